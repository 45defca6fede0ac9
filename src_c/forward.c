/* The forward pass of a network: masks, lists of the input, and layer by layer product, activation and lists.
 *
 * Training, prediction and sampling share it, so that a prediction cannot differ from what was trained. They differ in
 * what the pass holds: masks or none, and whether backward will need to know which units were live.
 *
 * Barriers stand where a thread reads what others have written: between masks and the lists of the input (if masks or
 * noise apply to it), between those lists and the first product, and behind the product of each layer, with which its
 * activations are listed for the next one. Nothing of it is summed across threads but counts of live entries, which are
 * integers. */
#include <string.h>

#include "pass.h"

/* The total of all products decides, not a single layer's: threads are woken once for the whole pass. */
static double work_of(const cdrop_network *n, size_t rows)
{
    double work = 0;
    for (size_t i = 0; i < n->layers; i++)
        work += (double)rows * (double)n->layer[i].n_in * (double)n->layer[i].n_out;
    return work;
}

int cdrop_threads_for(const cdrop_network *n, size_t rows, int asked)
{
    return cdrop_useful_threads(asked, work_of(n, rows));
}

int cdrop_most_threads(const cdrop_network *n, size_t rows, int asked)
{
    return cdrop_tried_threads(asked, work_of(n, rows));
}

/* The old memory is released first, so that memory does not double. Training's memory goes as well, because it has
 * the same number of rows. */
cdrop_status cdrop_reserve_forward(cdrop_network *n, size_t rows)
{
    if (rows <= n->rows)
        return CDROP_OK;
    cdrop_release(&n->training);
    cdrop_release(&n->batch);
    n->rows = n->training_rows = 0;
    for (size_t i = 0; i < n->layers; i++) {
        layer *l = &n->layer[i];
        /* The data is listed row by row, so its lists can follow each other without gaps. A hidden layer's are
         * filled panel by panel, by several threads, and need slots of fixed size. */
        l->inputs = cdrop_take_lists(&n->batch, n->k, rows, l->n_in, i == 0);
        l->dense_inputs = cdrop_take_panels(&n->batch, n->k, rows, l->n_in);
        l->out = i + 1 < n->layers ? cdrop_take_panels(&n->batch, n->k, rows, l->n_out)
                                   : cdrop_take_rows(&n->batch, n->k, rows, l->n_out);
    }
    if (n->batch.failed) {
        cdrop_release(&n->batch);
        return CDROP_NO_MEMORY;
    }
    n->rows = rows;
    return CDROP_OK;
}

/* Sampling chooses as steps do: units are dropped out in both. The two densities are kept apart, so that a prediction
 * between two steps, as for validation, does not mislead the next step. */
static double *density_of(const pass *s, layer *l)
{
    return s->training || s->masks ? &l->density : &l->predicted_density;
}

/* The density above which a step's products of layer i run dense: the products' own, less what the lists cost, which is
 * spread over all columns that an entry is multiplied with. Those are n_out in the forward product and again in the
 * gradient by weight; and the entry's gradient, which is listed where the entry is live, meets the inputs of the layer
 * below. A block that is not full takes as long as a full one. Where lists cost more than all these columns the layer
 * runs dense whatever its density. */
static double dense_above(const pass *s, size_t i)
{
    const cdrop_network *n = s->n;
    const layer *l = &s->layer[i];
    const size_t below = i > 1 ? s->layer[i - 1].n_in : 0; /* the gradient by its input runs over lists of this width */
    const double columns = 2.0 * (double)l->n_out + (double)below;
    const double cost = n->k->listing * (double)(cdrop_blocks(l->n_in) * CDROP_BLOCK) / (double)l->n_in;
    return cost < columns ? n->k->dense_above * (1 - cost / columns) : 0;
}

/* A choice for all rows of the pass, from the density that the last one had: that of this one is known only afterwards.
 * The counts begin again. */
void cdrop_choose_products(const pass *s)
{
    for (size_t i = 0; i < s->n->layers; i++) {
        layer *l = &s->layer[i];
        l->dense = *density_of(s, l) > (s->training ? dense_above(s, i) : s->n->k->dense_above);
        atomic_store(&l->live_count, 0);
    }
    if (s->batch->indptr || s->kept)
        s->layer[0].dense = 0;
}

void cdrop_measure_density(const pass *s)
{
    for (size_t i = s->kept != NULL; i < s->n->layers; i++) {
        layer *l = &s->layer[i];
        if (l->n_in) /* a thinned layer may have none */
            *density_of(s, l) = (double)atomic_load(&l->live_count) / (double)(cdrop_rows_of(s, i) * l->n_in);
    }
}

/* Whether one mask is every row's: a step of nothing from row to row. */
static int one_mask(const pass *s, size_t i)
{
    const cdrop_kind kind = s->layer[i].kind;
    return s->given || kind == CDROP_SHARED || (kind == CDROP_MEMBERS && !s->training);
}

/* In sampling such a mask is row `step` of those of all passes. */
static const uint64_t *masks_of(const pass *s, size_t i)
{
    const uint64_t *masks = s->masks ? s->masks[i] : NULL;
    return masks && one_mask(s, i) && !s->training ? masks + s->step * s->layer[i].words : masks;
}

/* Noise has a row for each row, never one for all. */
static const void *noise_of(const pass *s, size_t i) { return s->noise ? s->noise[i] : NULL; }

/* How the input of layer i is listed from `data`: dropout, scale and, in training, which units were live. The rule
 * of the lists is the ReLU itself: a unit that is not positive is not listed, so no pass over the activations is
 * needed. Other activations keep all units that the mask keeps; a zero in the data is skipped. */
static cdrop_source input_source(const pass *s, size_t i, const void *data, size_t pitch)
{
    const layer *l = &s->layer[i];
    const int relu = s->n->activation == CDROP_RELU;
    return (cdrop_source){
        .data = data,
        .pitch = pitch,
        .rows = cdrop_is_copied(s, i) ? s->copies->of : NULL,
        .columns = l->n_in,
        .mask = masks_of(s, i),
        .words = one_mask(s, i) && s->masks && s->masks[i] ? 0 : l->words,
        .scale = s->masks ? l->train_scale : l->test_scale,
        .noise = noise_of(s, i),
        .noise_pitch = cdrop_noise_pitch(l->n_in),
        .rule = i == 0 ? CDROP_LIVE_NONZERO
                : relu ? CDROP_LIVE_POSITIVE
                       : CDROP_LIVE_KEPT,
        .shift = i == 0 && cdrop_shifted(s) ? s->n->background : NULL,
        .live = s->training && i ? l->live : NULL,
    };
}

/* Whether a layer's input is what the layer below has left, all of it and unscaled. A ReLU's zeros are not made in
 * place, because its lists need none; so its activations do need a copy. Whether that of layer 0 does is known to who
 * has the rows: as_it_stands. */
static int needs_no_copy(const pass *s, size_t i)
{
    const cdrop_source source = input_source(s, i, NULL, 0);
    if (i == 0)
        return s->as_it_stands.data != NULL;
    return source.rule == CDROP_LIVE_KEPT && !source.mask && !source.noise && source.scale == 1;
}

const cdrop_panels *cdrop_dense_input(const pass *s, size_t i)
{
    const layer *l = &s->layer[i];
    if (!needs_no_copy(s, i))
        return &l->dense_inputs;
    return i ? &s->layer[i - 1].out : &s->as_it_stands;
}

/* Only the first layer's lists can be kept ones, and only its input has a background. */
static cdrop_left left_of(const pass *s, size_t i)
{
    const layer *l = &s->layer[i];
    return (cdrop_left){.lists = s->kept && i == 0 ? &s->kept->inputs : &l->inputs,
                        .dense = l->dense ? cdrop_dense_input(s, i) : NULL,
                        .entries = l->n_in,
                        .background = i == 0 && cdrop_shifted(s) ? &s->n->background_row : NULL};
}

cdrop_source cdrop_batch_source(const pass *s)
{
    cdrop_source source = input_source(s, 0, s->batch->x, s->layer[0].n_in);
    source.rows = s->batch->rows;
    source.indptr = s->batch->indptr;
    source.indices = s->batch->indices;
    return source;
}

void cdrop_list_input(const pass *s, size_t from, size_t to)
{
    /* Whole rows: blocks of packed lists follow each other, and one thread must fill them all. */
    layer *l = &s->layer[0];
    const cdrop_left left = left_of(s, 0);
    const cdrop_source source = cdrop_batch_source(s);
    const cdrop_kernels *k = s->n->k;
    if (left.dense && needs_no_copy(s, 0))
        return;
    /* A sum of integers: the order in which threads add does not matter. */
    atomic_fetch_add(&l->live_count, source.indptr
                                         ? k->compress_sparse(&l->inputs, &source, from, to)
                                         : cdrop_list_rows(k, &left, &l->inputs, &l->dense_inputs, &source, from, to));
    cdrop_lap(s->watch, CDROP_TIME_LIST_INPUT, 0);
}

/* 64 rows share one stream of the generator, so a block of rows is the smallest unit of drawing. */
void cdrop_share_blocks(const pass *s, cdrop_team team, size_t *from, size_t *to)
{
    const size_t rows = cdrop_output_rows(s);
    cdrop_share(team, cdrop_blocks(rows), from, to);
    *from = cdrop_min(*from * CDROP_BLOCK, rows);
    *to = cdrop_min(*to * CDROP_BLOCK, rows);
}

/* Those that the subnetworks of the network's own seed have. */
void cdrop_draw_members(uint64_t *masks, size_t count, const cdrop_network *n, size_t i)
{
    const layer *l = &n->layer[i];
    cdrop_bernoulli_mask(masks, 0, count, l->n_in, l->keep, n->seed, 0, CDROP_FOR_SUBNETWORKS, (uint32_t)i);
}

/* A row of a fixed minibatch meets another member in each step: the members are counted on from the number of the
 * step. */
static void take_turns(const pass *s, size_t i, size_t from, size_t to)
{
    const layer *l = &s->layer[i];
    for (size_t row = from; row < to; row++)
        memcpy(s->masks[i] + row * l->words, l->members + (row + s->step) % s->n->members * l->words,
               l->words * sizeof *l->members);
}

/* For rows [from, to) of all layers, `from` a multiple of 64. A mask is a function of its key, so it does not matter
 * which thread draws it, nor that rows of the batch are drawn which other threads will list. */
static void draw_masks(const pass *s, size_t from, size_t to)
{
    const cdrop_dtype dtype = s->n->k->size == sizeof(float) ? CDROP_FLOAT32 : CDROP_FLOAT64;
    for (size_t i = 0; i < s->n->layers && from < to; i++) {
        const layer *l = &s->layer[i];
        const size_t first = s->first_row + from, rows = to - from, pitch = cdrop_noise_pitch(l->n_in);
        if (s->masks[i] && l->kind == CDROP_MEMBERS && s->training)
            take_turns(s, i, from, to);
        else if (s->masks[i] && !one_mask(s, i)) /* those are drawn before */
            cdrop_bernoulli_mask(s->masks[i] + from * l->words, first, rows, l->n_in, l->keep, s->seed, s->step,
                                 s->purpose, (uint32_t)i);
        if (noise_of(s, i))
            cdrop_noise(dtype, (char *)s->noise[i] + from * pitch * s->n->k->size, pitch, first, rows, l->n_in, l->kind,
                        l->keep, s->seed, s->step, s->purpose, (uint32_t)i);
    }
    cdrop_lap(s->watch, CDROP_TIME_MASKS, 0);
}

/* What list_hidden would note where every unit is live. */
static void all_live(const pass *s, size_t i, size_t b0, size_t b1, size_t l0, size_t l1)
{
    layer *l = &s->layer[i];
    const size_t units = cdrop_min(b1 * CDROP_BLOCK, l->n_in) - b0 * CDROP_BLOCK;
    for (size_t line = l0; s->training && line < l1; line++)
        for (size_t b = b0; b < b1; b++)
            l->live[line * l->words + b] = cdrop_valid_bits(l->n_in, b);
    atomic_fetch_add_explicit(&l->live_count, units * (l1 - l0), memory_order_relaxed);
}

/* The lists of layer i's input that its products run on, from lines [l0, l1) of panel p of the activations below. */
static void list_hidden(const pass *s, size_t i, size_t p, size_t l0, size_t l1)
{
    const cdrop_kernels *k = s->n->k;
    const cdrop_panels *a = &s->layer[i - 1].out;
    layer *l = &s->layer[i];
    /* A panel is whole blocks wide, so each list and each word of live bits is written by the one thread that has
     * completed the panel's rows. The lines are 64 or the last ones, from a multiple of 64: they are one block of the
     * lists by unit, which then has one writer as well. */
    const size_t b0 = p * k->panel / CDROP_BLOCK, b1 = cdrop_min(b0 + k->panel / CDROP_BLOCK, l->inputs.blocks);
    cdrop_source source = input_source(s, i, cdrop_panel_at(a, k, p, 0), cdrop_panel_pitch(a, p));
    source.first_block = b0;
    if (l->dense && needs_no_copy(s, i)) {
        all_live(s, i, b0, b1, l0, l1);
        return;
    }
    const size_t live = l->dense ? k->densify(cdrop_panel_at(&l->dense_inputs, k, p, l0),
                                              cdrop_panel_pitch(&l->dense_inputs, p), &source, b0, b1, l0, l1)
                                 : k->compress(&l->inputs, &source, b0, b1, l0, l1);
    /* Relaxed: it is read only after the job, whose end orders everything. */
    atomic_fetch_add_explicit(&l->live_count, live, memory_order_relaxed);
    cdrop_lap(s->watch, CDROP_TIME_LIST_HIDDEN, i - 1);
    /* By unit as well, for the gradient by weight, while the lists by row are in the cache. A dense input needs
     * neither: it is read down its columns. */
    if (s->training && !l->dense) {
        k->scatter(&l->columns, &l->inputs, b0, b1, l0 / CDROP_BLOCK, l1);
        cdrop_lap(s->watch, CDROP_TIME_LIST_UNITS, i - 1);
    }
}

/* The same for the copies of those lines, of which there are whole blocks except at the end. */
static void list_copies(const pass *s, size_t i, size_t p, size_t l0, size_t l1)
{
    const size_t samples = s->copies->samples;
    for (size_t line = l0 * samples; line < l1 * samples; line += CDROP_BLOCK)
        list_hidden(s, i, p, line, cdrop_min(line + CDROP_BLOCK, l1 * samples));
}

/* A hidden layer's rows are complete in one panel: activation, then the lists that the next layer's products run on. */
static void finish_hidden(void *context, size_t p, size_t l0, size_t l1)
{
    const pass *s = context;
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->layer[s->index];
    const size_t columns = cdrop_min(k->panel, l->n_out - p * k->panel);
    cdrop_lap(s->watch, CDROP_TIME_FORWARD, s->index);
    if (s->n->activation != CDROP_RELU && s->n->activation != CDROP_IDENTITY) /* the ReLU is the rule of the lists */
        k->activate(cdrop_panel_at(&l->out, k, p, l0), cdrop_panel_pitch(&l->out, p), columns, l1 - l0,
                    s->n->activation);
    cdrop_lap(s->watch, CDROP_TIME_ACTIVATION, s->index);
    /* In sampling the lists of this one layer differ from pass to pass: cdrop_forward_above makes them. */
    if (cdrop_is_copied(s, s->index + 1))
        list_copies(s, s->index + 1, p, l0, l1);
    else if (s->index + 1 != s->relisted)
        list_hidden(s, s->index + 1, p, l0, l1);
}

/* The outputs stay in place: loss and answers read whole rows, when all of their panels are there. */
static void finish_logits(void *context, size_t p, size_t l0, size_t l1)
{
    const pass *s = context;
    (void)p, (void)l0, (void)l1;
    cdrop_lap(s->watch, CDROP_TIME_FORWARD, s->index);
}

/* Divided by blocks of units, not by rows: each thread writes the lists of its units, for all rows. It reads the lists
 * by row that other threads have made, so a barrier must stand before it. */
void cdrop_scatter_input(const pass *s, cdrop_team team)
{
    layer *l = &s->layer[0];
    size_t from, to;
    cdrop_share(team, l->inputs.blocks, &from, &to);
    for (size_t rows = 0; rows < cdrop_blocks(s->batch->n); rows++)
        s->n->k->scatter(&l->columns, &l->inputs, from, to, rows, s->batch->n);
    cdrop_lap(s->watch, CDROP_TIME_LIST_UNITS, 0);
}

static cdrop_epilogue epilogue_of(const pass *s)
{
    if (s->index + 1 < s->n->layers)
        return finish_hidden;
    return s->finish_outputs ? s->finish_outputs : finish_logits;
}

/* The first `layers` layers, whose input has been listed. The barrier behind each product is needed because the next
 * product's sums run over whole rows, of which other threads have computed and listed other panels. */
static void run_layers(pass *s, size_t layers, cdrop_team team)
{
    for (s->index = 0; s->index < layers; s->index++) {
        const layer *l = &s->layer[s->index];
        const cdrop_left left = left_of(s, s->index);
        const cdrop_right right = {.panels = &l->weight, .columns = l->n_out};
        cdrop_product_rows(s->n->k, &l->out, l->bias, &right, &left, cdrop_rows_of(s, s->index), team,
                           cdrop_claims_of(s, CDROP_LOOP_FORWARD, s->index), epilogue_of(s), s);
        /* In the phase of the first product, which reads the same lists by row: no barrier in between. */
        if (s->index == 0 && s->training && !s->kept && !l->dense)
            cdrop_scatter_input(s, team);
        cdrop_meet(s, team, CDROP_TIME_WAIT_FORWARD, s->index);
    }
}

void cdrop_forward(pass *s, cdrop_team team)
{
    size_t from, to;
    if (s->masks) {
        /* The masks of all layers at once: they depend on the key alone, so no later layer has to wait for its own. */
        cdrop_share_blocks(s, team, &from, &to);
        draw_masks(s, from, to);
        if (s->masks[0] || noise_of(s, 0)) /* the input's lists read what other threads draw */
            cdrop_meet(s, team, CDROP_TIME_WAIT_MASKS, 0);
    }
    /* Single rows, which divide more evenly than the blocks that masks need. */
    cdrop_share(team, s->batch->n, &from, &to);
    if (!s->kept)
        cdrop_list_input(s, from, to);
    cdrop_meet(s, team, CDROP_TIME_WAIT_INPUT, 0);
    run_layers(s, s->n->layers, team);
}

void cdrop_forward_below(pass *s, cdrop_team team)
{
    size_t from, to;
    cdrop_share(team, s->batch->n, &from, &to);
    /* Where the data itself is dropped out, each pass lists it under its own mask. */
    if (s->relisted)
        cdrop_list_input(s, from, to);
    cdrop_meet(s, team, CDROP_TIME_WAIT_INPUT, 0);
    run_layers(s, s->relisted, team);
}

/* The input of layer `relisted`, from the activations below, which every pass finds as they were: lists and dense
 * copies are made next to them. */
static void list_again(const pass *s, size_t from, size_t to)
{
    for (size_t p = 0; p < s->layer[s->relisted - 1].out.panels; p++)
        list_hidden(s, s->relisted, p, from, to);
}

/* No barrier from here on: the rows are this thread's own, up to the outputs. That lets each thread run through all
 * passes at its own pace, with its rows' activations in its cache. Only one pass's masks, lists and outputs exist: the
 * caller uses the outputs before the next one. */
void cdrop_forward_above(pass *s, size_t from, size_t to)
{
    if (!s->given)
        draw_masks(s, from, to);
    if (s->relisted)
        list_again(s, from, to);
    else
        cdrop_list_input(s, from, to);
    for (s->index = s->relisted; s->index < s->n->layers; s->index++) {
        const layer *l = &s->layer[s->index];
        const cdrop_left left = left_of(s, s->index);
        const cdrop_right right = {.panels = &l->weight, .columns = l->n_out};
        cdrop_product_groups(s->n->k, &l->out, l->bias, &right, &left, from, to, epilogue_of(s), s);
    }
}
