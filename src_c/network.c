/* The training step: what is kept between steps, the order of the calls, and who does which part.
 *
 * One job of the thread pool is one step. Its phases, with a barrier between any two:
 *
 *   masks of all layers; lists of the input rows
 *   forward, layer by layer: product, bias, then in the cache: activation, mask, lists by row, lists by unit
 *   loss and its gradient, lists of that gradient; every thread decides alike whether the loss is finite
 *   backward, layer by layer: gradient by input from the transposed weights, and in the same phase, for the layer above,
 *   gradient by weight with its update and the refresh of the transposed copy
 *   with max-norm: the hidden units whose weights are too long, in both copies */
#include <stdlib.h>
#include <string.h>

#include "network.h"

enum { LOSS_ROWS = 16 };

struct cdrop_kept {
    cdrop_workspace memory;
    kept_batch *batch;
    unsigned background; /* the network's count when the lists were made */
};

/* ---- Making a network, its state in and out ---- */

static size_t square_blocks(const layer *l) { return cdrop_blocks(l->n_in) * cdrop_blocks(l->n_out); }

static void take_state(cdrop_network *n, size_t i)
{
    layer *l = &n->layer[i];
    const size_t width = cdrop_pad(l->n_out), size = n->k->size;
    l->weight = cdrop_take_panels(&n->state, n->k, l->n_in, l->n_out);
    l->state1 = cdrop_take_panels(&n->state, n->k, l->n_in, l->n_out);
    l->state2 = cdrop_take_panels(&n->state, n->k, l->n_in, l->n_out);
    l->bias = cdrop_take(&n->state, width, size);
    l->bias_state1 = cdrop_take(&n->state, width, size);
    l->bias_state2 = cdrop_take(&n->state, width, size);
    l->bias_gradient = cdrop_take(&n->state, width, size);
    l->squares = cdrop_take(&n->state, square_blocks(l), sizeof *l->squares);
    if (i + 1 < n->layers)
        l->column_squares = cdrop_take_squares(&n->state, l->n_in, l->n_out);
    if (i)
        l->transposed = cdrop_take_panels(&n->state, n->k, l->n_out, l->n_in);
}

static void describe_layer(layer *l, const cdrop_design *d, size_t i)
{
    const double kept = (double)d->keep[i] * 0x1p-32;
    l->n_in = d->units[i];
    l->n_out = d->units[i + 1];
    l->words = cdrop_words(l->n_in);
    l->keep = d->keep[i];
    l->train_scale = d->scale_in_training ? 1 / kept : 1;
    l->test_scale = d->scale_in_training ? 1 : kept;
    l->density = i && d->activation == CDROP_RELU ? kept / 2 : kept; /* a guess, until a step has counted */
}

static void take_background(cdrop_network *n, size_t n_in, size_t n_out)
{
    n->background = cdrop_take(&n->state, cdrop_pad(n_in), n->k->size);
    n->background_row = cdrop_take_lists(&n->state, n->k, 1, n_in, 1);
    n->background_columns = cdrop_take_lists(&n->state, n->k, n_in, 1, 0);
    n->start = cdrop_take(&n->state, cdrop_pad(n_out), n->k->size);
}

cdrop_status cdrop_network_create(cdrop_network **network, const cdrop_design *d)
{
    cdrop_workspace own = {0};
    cdrop_network *n = calloc(1, sizeof *n);
    *network = NULL;
    if (!n)
        return CDROP_NO_MEMORY;
    n->state = own;
    n->k = cdrop_kernels_of(d->dtype);
    n->layers = d->layers;
    n->activation = d->activation;
    n->loss = d->loss;
    n->seed = d->seed;
    n->layer = cdrop_take(&n->state, d->layers, sizeof *n->layer);
    for (size_t i = 0; i < d->layers && !n->state.failed; i++) {
        describe_layer(&n->layer[i], d, i);
        take_state(n, i);
    }
    take_background(n, d->units[0], d->units[1]);
    if (n->state.failed) {
        cdrop_network_free(n);
        return CDROP_NO_MEMORY;
    }
    *network = n;
    return CDROP_OK;
}

void cdrop_network_free(cdrop_network *n)
{
    if (!n)
        return;
    cdrop_release(&n->timing);
    cdrop_release(&n->training);
    cdrop_release(&n->batch);
    cdrop_release(&n->state);
    free(n);
}

static void *bias_part(const layer *l, cdrop_part part)
{
    return part == CDROP_WEIGHT ? l->bias : part == CDROP_STATE1 ? l->bias_state1 : l->bias_state2;
}

static const cdrop_panels *weight_part(const layer *l, cdrop_part part)
{
    return part == CDROP_WEIGHT ? &l->weight : part == CDROP_STATE1 ? &l->state1 : &l->state2;
}

/* The L2 term of a step's loss is that of the weights before it, so it is known before anything changes: the step that
 * wrote the weights has noted their squares, while they were in the cache. */
static void note_squares(const cdrop_kernels *k, const layer *l, size_t line_block, size_t column_block)
{
    const cdrop_tile tile = cdrop_tile_at(&l->weight, k, line_block, column_block);
    l->squares[line_block * cdrop_blocks(l->n_out) + column_block] = k->sum_squares(
        tile.data, tile.pitch, cdrop_in_block(l->n_out, column_block), cdrop_in_block(l->n_in, line_block));
}

/* What is kept of a block of weights beside them, after a change: its squares, and the transposed copy. */
static void refresh_block(const cdrop_kernels *k, const layer *l, size_t line_block, size_t column_block)
{
    note_squares(k, l, line_block, column_block);
    if (l->transposed.data)
        cdrop_transpose_block(&l->transposed, &l->weight, k, l->n_in, l->n_out, line_block, column_block);
}

void cdrop_network_set(cdrop_network *n, size_t index, cdrop_part part, const void *weight, const void *bias)
{
    const layer *l = &n->layer[index];
    cdrop_pack(weight_part(l, part), n->k, weight, l->n_out, 0, l->n_in);
    memcpy(bias_part(l, part), bias, l->n_out * n->k->size);
    if (part != CDROP_WEIGHT)
        return;
    const cdrop_fp_mode mode = cdrop_flush_denormals(); /* as in a step, which notes the same squares */
    for (size_t line_block = 0; line_block < cdrop_blocks(l->n_in); line_block++)
        for (size_t column_block = 0; column_block < cdrop_blocks(l->n_out); column_block++)
            refresh_block(n->k, l, line_block, column_block);
    cdrop_restore_fp_mode(mode);
}

void cdrop_network_get(const cdrop_network *n, size_t index, cdrop_part part, void *weight, void *bias)
{
    const layer *l = &n->layer[index];
    cdrop_unpack(weight_part(l, part), n->k, weight, l->n_out, 0, l->n_in);
    memcpy(bias, bias_part(l, part), l->n_out * n->k->size);
}

void cdrop_network_set_background(cdrop_network *n, const void *background)
{
    const cdrop_kernels *k = n->k;
    const size_t units = n->layer[0].n_in;
    const cdrop_source source = {
        .data = n->background, .pitch = units, .columns = units, .scale = 1, .rule = CDROP_LIVE_NONZERO};
    memcpy(n->background, background, units * k->size);
    n->backgrounds++;
    n->has_background = k->compress(&n->background_row, &source, 0, n->background_row.blocks, 0, 1) > 0;
    k->scatter(&n->background_columns, &n->background_row, 0, n->background_row.blocks, 0, 1);
}

/* ---- Memory of a batch ---- */

static void take_training(cdrop_network *n, size_t i)
{
    cdrop_workspace *w = &n->training;
    layer *l = &n->layer[i];
    l->columns = cdrop_take_lists(w, n->k, l->n_in, n->rows, 0);
    if (l->keep != CDROP_KEEP_ALL && n->masks)
        n->masks[i] = cdrop_take(w, n->rows * l->words, sizeof **n->masks);
    if (i) {
        l->live = cdrop_take(w, n->rows * l->words, sizeof *l->live);
        l->deltas = cdrop_take_lists(w, n->k, n->rows, l->n_out, 0);
    }
    l->delta =
        i + 1 < n->layers ? cdrop_take_panels(w, n->k, n->rows, l->n_out) : cdrop_take_rows(w, n->k, n->rows, l->n_out);
}

static cdrop_status reserve_training(cdrop_network *n, size_t rows, int threads)
{
    if (cdrop_reserve_forward(n, rows) != CDROP_OK)
        return CDROP_NO_MEMORY;
    if (n->training_rows >= rows && n->threads >= threads)
        return CDROP_OK;
    cdrop_release(&n->training);
    n->training_rows = 0;
    n->masks = cdrop_take(&n->training, n->layers, sizeof *n->masks);
    for (size_t i = 0; i < n->layers; i++)
        take_training(n, i);
    n->row_loss = cdrop_take(&n->training, n->rows, sizeof *n->row_loss);
    n->scratch = cdrop_take(&n->training, (size_t)threads * CDROP_BLOCK * n->k->panel, n->k->size);
    if (n->training.failed) {
        cdrop_release(&n->training);
        return CDROP_NO_MEMORY;
    }
    n->training_rows = n->rows;
    n->threads = threads;
    return CDROP_OK;
}

/* ---- Loss and backward ---- */

/* Whether the gradient by the pre-activations of layer i runs through its products as it is. It is as sparse as the
 * units that it passed on the way down; that of the last layer has no zeros. */
static int delta_dense(const cdrop_network *n, size_t i) { return i + 1 == n->layers || n->layer[i + 1].dense; }

static void losses(const pass *s, cdrop_team team)
{
    const cdrop_network *n = s->n;
    layer *l = &n->layer[n->layers - 1];
    const size_t rows = s->batch->n;
    const cdrop_source source = {
        .data = l->delta.data, .pitch = l->delta.pitch, .columns = l->n_out, .scale = 1, .rule = CDROP_LIVE_NONZERO};
    size_t from, to;
    cdrop_share(team, (rows + LOSS_ROWS - 1) / LOSS_ROWS, &from, &to);
    from *= LOSS_ROWS;
    to = cdrop_min(to * LOSS_ROWS, rows);
    for (size_t i = from; i < to; i++)
        n->row_loss[i] = cdrop_row_loss(n->k, &s->loss, cdrop_panel_at(&l->delta, n->k, 0, i),
                                        cdrop_panel_at(&l->out, n->k, 0, i), i);
    if (n->layers > 1 && from < to && !delta_dense(n, n->layers - 1))
        n->k->compress(&l->deltas, &source, 0, l->deltas.blocks, from, to);
    cdrop_lap(s->watch, CDROP_TIME_LOSS);
}

static double batch_loss(const pass *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->batch->n; i++)
        sum += s->n->row_loss[i];
    return sum;
}

/* The gradient by a hidden layer's activations is complete in one panel: through the live units it becomes the gradient
 * by the pre-activations of the layer below, as panels and as lists. */
static void finish_delta(void *context, size_t p, size_t l0, size_t l1)
{
    const pass *s = context;
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->n->layer[s->index];
    layer *below = &s->n->layer[s->index - 1];
    const size_t pitch = cdrop_panel_pitch(&below->delta, p), b0 = p * k->panel / CDROP_BLOCK;
    const size_t b1 = cdrop_min(b0 + k->panel / CDROP_BLOCK, cdrop_blocks(l->n_in));
    const int from_live = s->n->activation == CDROP_RELU; /* its derivative is in the live bits */
    cdrop_lap(s->watch, CDROP_TIME_PRODUCTS);
    k->gate(cdrop_panel_at(&below->delta, k, p, l0), pitch, from_live ? NULL : cdrop_panel_at(&below->out, k, p, l0),
            cdrop_panel_pitch(&below->out, p), cdrop_min(k->panel, l->n_in - p * k->panel), l1 - l0,
            l->live + l0 * l->words + b0, l->words, l->train_scale, s->n->activation);
    const cdrop_source source = {.data = cdrop_panel_at(&below->delta, k, p, 0),
                                 .pitch = pitch,
                                 .columns = l->n_in,
                                 .first_block = b0,
                                 .mask = l->live,
                                 .words = l->words,
                                 .scale = 1,
                                 .rule = CDROP_LIVE_KEPT};
    if (s->index > 1 && !l->dense)
        k->compress(&below->deltas, &source, b0, b1, l0, l1);
    cdrop_lap(s->watch, CDROP_TIME_LISTS);
}

/* Max-norm is for hidden units: the last layer has none. */
static int limited(const pass *s) { return s->max_norm > 0 && s->index + 1 < s->n->layers; }

static cdrop_norms norms_of(const layer *l)
{
    return (cdrop_norms){.weight = &l->weight, .lines = l->n_in, .columns = l->n_out, .squares = l->column_squares};
}

/* The gradient of 64 units of a panel: update them in place, note their new squares, and refresh the transposed copy, all
 * while the weights are in the cache. */
static void update_units(void *context, size_t p, size_t u0, size_t u1, const void *gradient)
{
    const pass *s = context;
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->n->layer[s->index];
    const size_t pitch = cdrop_panel_pitch(&l->weight, p), first = p * k->panel / CDROP_BLOCK;
    const size_t last = cdrop_min(first + k->panel / CDROP_BLOCK, cdrop_blocks(l->n_out));
    const cdrop_norms norms = norms_of(l);
    cdrop_lap(s->watch, CDROP_TIME_PRODUCTS);
    k->update(cdrop_panel_at(&l->weight, k, p, u0), gradient, cdrop_panel_at(&l->state1, k, p, u0),
              cdrop_panel_at(&l->state2, k, p, u0), (u1 - u0) * pitch, &s->weight_update);
    for (size_t block = first; block < last; block++) {
        if (limited(s))
            cdrop_note_norms(k, &norms, u0 / CDROP_BLOCK, block);
        refresh_block(k, l, u0 / CDROP_BLOCK, block);
    }
    cdrop_lap(s->watch, CDROP_TIME_UPDATE);
}

static void refresh_limited(void *context, size_t line_block, size_t column_block)
{
    const pass *s = context;
    refresh_block(s->n->k, &s->n->layer[s->index], line_block, column_block);
}

/* Max-norm, once the updates of all layers are there. */
static void limit_layers(pass *s, cdrop_team team)
{
    if (s->max_norm > 0)
        cdrop_meet(s, team);
    for (s->index = 0; limited(s); s->index++) {
        const cdrop_norms norms = norms_of(&s->n->layer[s->index]);
        cdrop_limit_blocks(s->n->k, &norms, s->max_norm, team, refresh_limited, s);
    }
    cdrop_lap(s->watch, CDROP_TIME_UPDATE);
}

static void update_bias(const pass *s, cdrop_team team)
{
    const cdrop_network *n = s->n;
    const layer *l = &n->layer[s->index];
    size_t from, to;
    cdrop_share(team, l->delta.panels, &from, &to);
    for (size_t p = from; p < to; p++) {
        const size_t at = p * n->k->panel * n->k->size;
        char *gradient = (char *)l->bias_gradient + at;
        cdrop_bias_gradient(n->k, gradient, &l->delta, p, s->batch->n);
        n->k->update((char *)l->bias + at, gradient, (char *)l->bias_state1 + at, (char *)l->bias_state2 + at,
                     cdrop_panel_width(&l->delta, p, n->k->panel), &s->bias_update);
    }
    cdrop_lap(s->watch, CDROP_TIME_UPDATE);
}

/* The gradient by the input of layer i, and with it the gradient by the pre-activations of the layer below. */
static void propagate(pass *s, size_t i, cdrop_team team)
{
    const cdrop_network *n = s->n;
    const layer *l = &n->layer[i];
    s->index = i;
    const cdrop_left left = {.lists = &l->deltas, .dense = delta_dense(n, i) ? &l->delta : NULL, .entries = l->n_out};
    cdrop_product_rows(n->k, &n->layer[i - 1].delta, NULL, &l->transposed, &left, s->batch->n, team, finish_delta, s);
}

static void update_layer(pass *s, size_t i, cdrop_team team)
{
    const cdrop_network *n = s->n;
    const layer *l = &n->layer[i];
    s->index = i;
    const cdrop_lists *columns = s->kept && i == 0 ? &s->kept->columns : &l->columns;
    const cdrop_left left = {.lists = columns, .dense = l->dense ? &l->dense_inputs : NULL, .entries = s->batch->n};
    const cdrop_background background = {.lists = &n->background_columns, .sums = l->bias_gradient};
    const int with_background = i == 0 && cdrop_shifted(s), states = cdrop_rule_states(s->weight_update.rule);
    const cdrop_gradient_sink sink = {
        .take = update_units,
        .context = s,
        .touches = {&l->weight, states > 0 ? &l->state1 : NULL, states > 1 ? &l->state2 : NULL}};
    update_bias(s, team);
    if (with_background) /* the background's share of the gradient needs all column sums */
        cdrop_meet(s, team);
    cdrop_product_units(n->k, &left, with_background ? &background : NULL, &l->delta, l->n_in, s->batch->n,
                        n->scratch + (size_t)team.index * CDROP_BLOCK * n->k->panel * n->k->size, team, &sink);
}

/* A layer is updated one phase after its gradient went down: then nobody reads its transposed weights any more. */
static void backward(pass *s, cdrop_team team)
{
    for (size_t i = s->n->layers; i-- > 0;) {
        if (i + 1 < s->n->layers)
            update_layer(s, i + 1, team);
        if (i) {
            propagate(s, i, team);
            cdrop_meet(s, team);
        }
    }
    update_layer(s, 0, team);
    limit_layers(s, team);
}

/* l2 / 2 times the sum of squares, block by block in a fixed order. */
static double penalty(const pass *s)
{
    double sum = 0;
    if (s->weight_update.l2 == 0)
        return 0;
    for (size_t i = 0; i < s->n->layers; i++)
        for (size_t b = 0; b < square_blocks(&s->n->layer[i]); b++)
            sum += s->n->layer[i].squares[b];
    return 0.5 * s->weight_update.l2 * sum;
}

static void measure_density(cdrop_network *n, size_t rows, const kept_batch *kept)
{
    for (size_t i = kept != NULL; i < n->layers; i++)
        n->layer[i].density = (double)atomic_load(&n->layer[i].live_count) / (double)(rows * n->layer[i].n_in);
}

/* Each thread walks the layers with a pass of its own: between barriers they are not at the same place. */
static void step_job(void *argument, cdrop_team team)
{
    pass mine = *(const pass *)argument, *s = &mine;
    s->watch = s->n->watches ? &s->n->watches[team.index] : NULL;
    cdrop_start_watch(s->watch);
    cdrop_forward(s, team);
    losses(s, team);
    cdrop_meet(s, team);
    const double loss = batch_loss(s) + penalty(s); /* the same sum on every thread */
    cdrop_meet(s, team);                            /* before the squares change */
    if (team.index == 0) {
        *s->total = loss;
        *s->status = isfinite(loss) ? CDROP_OK : CDROP_NOT_FINITE;
    }
    if (isfinite(loss))
        backward(s, team);
}

/* ---- Numbers that are not finite ---- */

static cdrop_dtype dtype_of(const cdrop_network *n) { return n->k->size == sizeof(float) ? CDROP_FLOAT32 : CDROP_FLOAT64; }

static int panels_finite(const cdrop_network *n, const cdrop_panels *m, size_t lines, size_t columns)
{
    for (size_t p = 0; p < m->panels; p++)
        for (size_t line = 0; line < lines; line++)
            if (!cdrop_all_finite(dtype_of(n), cdrop_panel_at(m, n->k, p, line),
                                  cdrop_min(n->k->panel, columns - p * n->k->panel)))
                return 0;
    return 1;
}

/* Squares of all weights are there, block by block: a sum of them is all that a step usually needs. It may overflow where
 * no weight has. */
static int parameters_finite(const cdrop_network *n, const layer *l)
{
    double sum = 0;
    for (size_t b = 0; b < square_blocks(l); b++)
        sum += l->squares[b];
    return cdrop_all_finite(dtype_of(n), l->bias, l->n_out) &&
           (isfinite(sum) || panels_finite(n, &l->weight, l->n_in, l->n_out));
}

size_t cdrop_network_fault(const cdrop_network *n, size_t rows, int *in_weights)
{
    for (size_t i = 0; i < n->layers; i++) {
        const layer *l = &n->layer[i];
        *in_weights = !parameters_finite(n, l);
        if (*in_weights || !panels_finite(n, &l->out, rows, l->n_out))
            return i;
    }
    return n->layers;
}

static const kept_batch *kept_lists(const cdrop_network *n, const cdrop_batch *batch)
{
    const cdrop_kept *kept = batch->kept;
    return kept && kept->background == n->backgrounds ? &kept->batch[batch->number] : NULL;
}

cdrop_status cdrop_network_step(cdrop_network *n, const cdrop_batch *batch, const cdrop_optimizer *optimizer,
                                uint64_t step, int threads, double *loss)
{
    cdrop_status status;
    int in_weights;
    threads = cdrop_threads_for(n, batch->n, threads);
    if (reserve_training(n, batch->n, threads) != CDROP_OK)
        return CDROP_NO_MEMORY;
    pass s = {
        .n = n,
        .batch = batch,
        .kept = kept_lists(n, batch),
        .masks = n->masks,
        .seed = n->seed,
        .step = step,
        .purpose = CDROP_FOR_MASKS,
        .training = 1,
        .total = loss,
        .status = &status,
        .weight_update = cdrop_update_of(optimizer, 0),
        .bias_update = cdrop_update_of(optimizer, 1),
        .max_norm = optimizer->max_norm,
        .loss = {.loss = n->loss,
                 .rows = batch->rows,
                 .labels = batch->labels,
                 .targets = batch->targets,
                 .weights = batch->weights,
                 .n = n->layer[n->layers - 1].n_out,
                 .weight_sum = cdrop_weight_sum(batch->weights, batch->rows, batch->n)},
    };
    cdrop_choose_products(n, batch, s.kept);
    cdrop_parallel(step_job, &s, threads);
    measure_density(n, batch->n, s.kept);
    if (status == CDROP_OK && cdrop_network_fault(n, 0, &in_weights) < n->layers)
        return CDROP_DIVERGED;
    return status;
}

/* ---- Minibatches that come again ---- */

static void list_batch_job(void *argument, cdrop_team team)
{
    const pass *s = argument;
    size_t from, to;
    cdrop_share(team, s->batch->n, &from, &to);
    cdrop_list_input(s, from, to);
    cdrop_barrier(team);
    cdrop_scatter_input(s, team);
}

static size_t keep_batch(kept_batch *to, cdrop_workspace *memory, cdrop_network *n, const cdrop_batch *batch,
                         int threads)
{
    const layer *l = &n->layer[0];
    pass s = {.n = n, .batch = batch};
    size_t bytes = 0;
    cdrop_parallel(list_batch_job, &s, cdrop_threads_for(n, batch->n, threads));
    to->inputs = cdrop_take_copy(memory, n->k, &l->inputs, batch->n, l->inputs.blocks, &bytes);
    to->columns = cdrop_take_copy(memory, n->k, &l->columns, l->n_in, cdrop_blocks(batch->n), &bytes);
    return bytes;
}

cdrop_status cdrop_keep_batches(cdrop_kept **kept, cdrop_network *n, const cdrop_batch *all, size_t size, int threads)
{
    const size_t batches = (all->n + size - 1) / size;
    cdrop_kept *own = calloc(1, sizeof *own);
    *kept = NULL;
    if (!own || reserve_training(n, cdrop_min(size, all->n), cdrop_threads_for(n, size, threads)) != CDROP_OK) {
        free(own);
        return CDROP_NO_MEMORY;
    }
    own->background = n->backgrounds;
    own->batch = cdrop_take(&own->memory, batches, sizeof *own->batch);
    n->layer[0].dense = 0;
    size_t room = 0;
    int good = own->batch && !all->indptr && n->layer[0].keep == CDROP_KEEP_ALL;
    for (size_t i = 0; good && i < batches; i++) { /* dense rows end it at the first */
        const cdrop_batch batch = {.x = all->x, .rows = all->rows + i * size, .n = cdrop_min(size, all->n - i * size)};
        const size_t bytes = keep_batch(&own->batch[i], &own->memory, n, &batch, threads);
        room += batch.n * n->layer[0].n_in * n->k->size;
        good = !own->memory.failed && bytes <= room;
        room -= good ? bytes : 0;
    }
    if (good)
        *kept = own;
    else
        cdrop_kept_free(own);
    return CDROP_OK;
}

void cdrop_kept_free(cdrop_kept *kept)
{
    if (kept)
        cdrop_release(&kept->memory);
    free(kept);
}

cdrop_status cdrop_network_times(cdrop_network *n, int on, double seconds[CDROP_TIMES])
{
    for (int part = 0; part < CDROP_TIMES; part++) {
        seconds[part] = 0;
        for (int i = 0; n->watches && i < CDROP_MAX_THREADS; i++)
            seconds[part] += n->watches[i].seconds[part];
    }
    cdrop_release(&n->timing);
    n->watches = on ? cdrop_take(&n->timing, CDROP_MAX_THREADS, sizeof *n->watches) : NULL;
    return on && !n->watches ? CDROP_NO_MEMORY : CDROP_OK;
}
