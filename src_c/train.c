/* The training step: the order of the calls, and which thread does which part.
 *
 * One job of the thread pool is one step. Its phases, with a barrier between any two:
 *
 *   masks of all layers; lists of the input rows
 *   forward, layer by layer: product, bias, then in the cache: activation, mask, lists by row, lists by unit
 *   loss and its gradient, lists of that gradient; every thread decides identically whether the loss is finite
 *   backward, layer by layer: gradient by input from the transposed weights, and in the same phase, for the layer above,
 *   gradient by weight with its update and the refresh of the transposed copy
 *   with max-norm: the hidden units whose weights are too long, in both copies
 *
 * Everything that follows a product happens block by block while the block is in the cache. That is why gradients by
 * weight are never stored as a whole, and why updates are callbacks of products. */
#include "pass.h"

/* Rows are divided among threads in units of 16: their losses fill two cache lines of doubles, which then only one
 * thread writes. */
enum { LOSS_ROWS = 16 };

/* ---- Loss and backward ---- */

/* Whether the gradient by the pre-activations of layer i is multiplied as it is, without lists. It is zero where the
 * units of layer i were not live, so it is as sparse as the input of layer i + 1. That of the last layer has no
 * zeros to skip. */
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
    /* The lists are for the gradient by the last layer's input; with one layer that input is the data. */
    if (n->layers > 1 && from < to && !delta_dense(n, n->layers - 1))
        n->k->compress(&l->deltas, &source, 0, l->deltas.blocks, from, to);
    cdrop_lap(s->watch, CDROP_TIME_LOSS);
}

/* Every thread adds up all rows in the same order, so that all get the same bits and decide without another barrier. */
static double batch_loss(const pass *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->batch->n; i++)
        sum += s->n->row_loss[i];
    return sum;
}

/* The gradient by a hidden layer's activations is complete in one panel. Where the units were live it becomes the
 * gradient by the pre-activations of the layer below, as panels and as lists. The positions of the lists are the
 * live bits themselves (CDROP_LIVE_KEPT): a gradient that happens to be zero stays in the list, and no value is
 * tested. */
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
    /* Layer 0 passes no gradient on to the data, so its own is never a left side by row. */
    if (s->index > 1 && !l->dense)
        k->compress(&below->deltas, &source, b0, b1, l0, l1);
    cdrop_lap(s->watch, CDROP_TIME_LISTS);
}

/* Max-norm limits hidden units, so the last layer has none (Srivastava et al. 2014, section 5.1). */
static int limited(const pass *s) { return s->max_norm > 0 && s->index + 1 < s->n->layers; }

/* A view, made where it is needed: the layer owns the memory. */
static cdrop_norms norms_of(const layer *l)
{
    return (cdrop_norms){.weight = &l->weight, .lines = l->n_in, .columns = l->n_out, .squares = l->column_squares};
}

/* The gradient of 64 input units in one panel: update their weights in place, note the new squares, and refresh the
 * transposed copy, all while the weights are in the cache. The padding of the columns is updated as well, which
 * spares the kernel a tail; lanes are outputs, so nothing mixes it with real columns. */
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
        cdrop_refresh_block(k, l, u0 / CDROP_BLOCK, block);
    }
    cdrop_lap(s->watch, CDROP_TIME_UPDATE);
}

/* The limit has scaled this block's weights: squares and transposed copy must follow, as after an update. */
static void refresh_limited(void *context, size_t line_block, size_t column_block)
{
    const pass *s = context;
    cdrop_refresh_block(s->n->k, &s->n->layer[s->index], line_block, column_block);
}

/* Max-norm, after the updates of all layers. It waits for them because a unit's weights are spread over blocks of
 * lines that different threads update: a norm is known only when all of them are done. */
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

/* Divided by panels, so that each column is one ascending chain on one thread. The first layer's background reads these
 * column sums of other threads, hence the barrier in update_layer. */
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
    /* A listed input has its lists by unit already; a dense one is read down its columns. */
    const cdrop_lists *columns = s->kept && i == 0 ? &s->kept->columns : &l->columns;
    const cdrop_panels *dense = l->dense ? cdrop_dense_input(s, i) : NULL;
    const cdrop_left left = {.lists = columns, .dense = dense, .entries = s->batch->n};
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

/* A layer is updated one phase after its gradient was passed down: then no thread reads its transposed weights any
 * more. The update of layer i + 1 and the gradient by the input of layer i share a phase because they touch
 * different layers, which halves the number of barriers. */
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

/* l2 / 2 times the sum of squares, block by block in a fixed order. Without L2 the sum is not even looked at: that
 * of large float64 weights may be infinite, and 0 times infinity is NaN. */
static double penalty(const pass *s)
{
    double sum = 0;
    if (s->weight_update.l2 == 0)
        return 0;
    for (size_t i = 0; i < s->n->layers; i++)
        for (size_t b = 0; b < cdrop_square_blocks(&s->n->layer[i]); b++)
            sum += s->n->layer[i].squares[b];
    return 0.5 * s->weight_update.l2 * sum;
}

/* Counted by this step, used by the next one to choose between lists and dense products. Kept lists are not counted
 * again, so the first layer keeps its density. */
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
    const double loss = batch_loss(s) + penalty(s); /* the same bits on every thread */
    cdrop_meet(s, team);                            /* before an update overwrites the squares */
    if (team.index == 0) {
        *s->total = loss;
        *s->status = isfinite(loss) ? CDROP_OK : CDROP_NOT_FINITE;
    }
    /* All threads or none: they meet at barriers in there. A loss that is not finite must leave the weights
     * untouched. */
    if (isfinite(loss))
        backward(s, team);
}

/* ---- Numbers that are not finite ---- */

static cdrop_dtype dtype_of(const cdrop_network *n)
{
    return n->k->size == sizeof(float) ? CDROP_FLOAT32 : CDROP_FLOAT64;
}

/* Without the padding: what is stored there is not a weight. */
static int panels_finite(const cdrop_network *n, const cdrop_panels *m, size_t lines, size_t columns)
{
    for (size_t p = 0; p < m->panels; p++)
        for (size_t line = 0; line < lines; line++)
            if (!cdrop_all_finite(dtype_of(n), cdrop_panel_at(m, n->k, p, line),
                                  cdrop_min(n->k->panel, columns - p * n->k->panel)))
                return 0;
    return 1;
}

/* The squares of all weights are known, block by block, so one sum over them usually answers: NaN and infinity
 * spread into it. It can also overflow when no weight is infinite, and only then the weights themselves are read. */
static int parameters_finite(const cdrop_network *n, const layer *l)
{
    double sum = 0;
    for (size_t b = 0; b < cdrop_square_blocks(l); b++)
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

cdrop_status cdrop_network_step(cdrop_network *n, const cdrop_batch *batch, const cdrop_optimizer *optimizer,
                                uint64_t step, int threads, double *loss)
{
    cdrop_status status;
    int in_weights;
    threads = cdrop_threads_for(n, batch->n, threads);
    if (cdrop_reserve_training(n, batch->n, threads) != CDROP_OK)
        return CDROP_NO_MEMORY;
    pass s = {
        .n = n,
        .batch = batch,
        .kept = cdrop_kept_lists(n, batch),
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
    /* Decided once, before the job: all threads must agree on it. */
    cdrop_choose_products(n, batch, s.kept);
    cdrop_parallel(step_job, &s, threads);
    measure_density(n, batch->n, s.kept);
    /* The loss is that of the weights before the update, so it cannot show what the update did. */
    if (status == CDROP_OK && cdrop_network_fault(n, 0, &in_weights) < n->layers)
        return CDROP_DIVERGED;
    return status;
}
