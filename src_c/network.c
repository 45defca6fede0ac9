/* A network between its steps: its weights and optimizer state, in and out, and the memory that steps work in.
 *
 * Memory has three lifetimes, hence three workspaces: `state` lives as long as the network; `batch` grows with the
 * largest batch, which predictions need too; `training` is taken only by networks that are trained. (A fourth, for
 * times, lives while they are measured.) Biases and other vectors are padded like a panel's lines, so that kernels run
 * without a tail. Memory is zeroed when it is taken: padding begins as zeros, and so does the optimizers' state.
 *
 * Nothing in this file runs on more than one thread, except cdrop_note_squares, on blocks of the caller's, and
 * cdrop_take_watch, on the caller's watch. */
#include <stdlib.h>
#include <string.h>

#include "pass.h"

/* ---- Making a network, its state in and out ---- */

/* Both states are taken for every rule, because a rule is an argument of each step. Only hidden layers have norms to
 * limit. */
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
    l->squares = cdrop_take(&n->state, cdrop_square_blocks(l), sizeof *l->squares);
    if (i + 1 < n->layers)
        l->column_squares = cdrop_take_squares(&n->state, l->n_in, l->n_out);
}

/* Scales use the keep probability that masks are drawn with, a multiple of 2^-32, so that expectations are exact. Noise
 * has the mean 1 and needs no scale. */
static void set_keep(layer *l, uint64_t keep, int scale_in_training)
{
    const double kept = cdrop_drops(l) ? (double)keep * 0x1p-32 : 1;
    l->keep = keep;
    l->train_scale = scale_in_training ? 1 / kept : 1;
    l->test_scale = scale_in_training ? 1 : kept;
}

void cdrop_network_set_keep(cdrop_network *n, const uint64_t *keep)
{
    for (size_t i = 0; i < n->layers; i++)
        if (n->layer[i].varies)
            set_keep(&n->layer[i], keep[i], n->scale_in_training);
}

static void describe_layer(layer *l, const cdrop_design *d, size_t i)
{
    l->n_in = d->units[i];
    l->n_out = d->units[i + 1];
    l->words = cdrop_words(l->n_in);
    l->kind = d->kinds ? d->kinds[i] : CDROP_BERNOULLI;
    l->varies = d->varies && d->varies[i];
    set_keep(l, d->keep[i], d->scale_in_training);
    const double kept = cdrop_drops(l) ? (double)d->keep[i] * 0x1p-32 : 1;
    /* Until a step has counted: random weights make about half of the pre-activations negative. A prediction drops
     * nothing, so its share has no factor of keep. A wrong guess costs time, not results. */
    l->density = i && d->activation == CDROP_RELU ? kept / 2 : kept;
    l->predicted_density = l->density / kept;
}

/* One line of the input's width, listed by row and by unit like a batch of one row, because it goes through the same
 * products. */
static void take_background(cdrop_network *n, size_t n_in)
{
    n->background = cdrop_take(&n->state, cdrop_pad(n_in), n->k->size);
    n->background_row = cdrop_take_lists(&n->state, n->k, 1, n_in, 1);
    n->background_columns = cdrop_take_lists(&n->state, n->k, n_in, 1, 0);
}

/* One number for each output with CDROP_QUANTILE, else a single one. */
static void take_loss_parameters(cdrop_network *n, const cdrop_design *d)
{
    const size_t count = d->loss == CDROP_QUANTILE ? d->units[d->layers] : 1;
    if (!d->loss_parameters)
        return;
    n->loss_parameters = cdrop_take(&n->state, count, sizeof *n->loss_parameters);
    if (n->loss_parameters)
        memcpy(n->loss_parameters, d->loss_parameters, count * sizeof *n->loss_parameters);
}

cdrop_status cdrop_network_create(cdrop_network **network, const cdrop_design *d)
{
    /* Everything begins as zeros, so cdrop_network_free can also take a network whose making has failed. */
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
    n->members = d->members;
    n->scale_in_training = d->scale_in_training;
    n->layer = cdrop_take(&n->state, d->layers, sizeof *n->layer);
    for (size_t i = 0; i < d->layers && !n->state.failed; i++) {
        describe_layer(&n->layer[i], d, i);
        take_state(n, i);
    }
    take_background(n, d->units[0]);
    take_loss_parameters(n, d);
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

/* The L2 term of a step's loss is that of the weights before it, and must be known before anything changes. What
 * writes weights notes their squares while they are in the cache, which saves the next step from reading all weights
 * for it. */
void cdrop_note_squares(const cdrop_kernels *k, const layer *l, size_t line_block, size_t column_block)
{
    const cdrop_tile tile = cdrop_tile_at(&l->weight, k, line_block, column_block);
    l->squares[line_block * cdrop_blocks(l->n_out) + column_block] = k->sum_squares(
        tile.data, tile.pitch, cdrop_in_block(l->n_out, column_block), cdrop_in_block(l->n_in, line_block));
}

/* The bias is copied without its padding, which stays the zeros that it was made with. New weights need new squares,
 * and make copies for thinned steps void. */
void cdrop_network_set(cdrop_network *n, size_t index, cdrop_part part, const void *weight, const void *bias)
{
    const layer *l = &n->layer[index];
    cdrop_pack(weight_part(l, part), n->k, weight, l->n_out, 0, l->n_in);
    memcpy(bias_part(l, part), bias, l->n_out * n->k->size);
    if (part != CDROP_WEIGHT)
        return;
    n->thinned_step = 0;
    const cdrop_fp_mode mode = cdrop_flush_denormals(); /* as in a step, so that the squares have the same bits */
    for (size_t line_block = 0; line_block < cdrop_blocks(l->n_in); line_block++)
        for (size_t column_block = 0; column_block < cdrop_blocks(l->n_out); column_block++)
            cdrop_note_squares(n->k, l, line_block, column_block);
    cdrop_restore_fp_mode(mode);
}

void cdrop_network_get(const cdrop_network *n, size_t index, cdrop_part part, void *weight, void *bias)
{
    const layer *l = &n->layer[index];
    cdrop_unpack(weight_part(l, part), n->k, weight, l->n_out, 0, l->n_in);
    memcpy(bias, bias_part(l, part), l->n_out * n->k->size);
}

/* Values that are 0 are not listed; a background of zeros alone is none. */
void cdrop_network_set_background(cdrop_network *n, const void *background)
{
    const cdrop_kernels *k = n->k;
    const size_t units = n->layer[0].n_in;
    const cdrop_source source = {
        .data = n->background, .pitch = units, .columns = units, .scale = 1, .rule = CDROP_LIVE_NONZERO};
    memcpy(n->background, background, units * k->size);
    n->has_background = k->compress(&n->background_row, &source, 0, n->background_row.blocks, 0, 1) > 0;
    k->scatter(&n->background_columns, &n->background_row, 0, n->background_row.blocks, 0, 1);
}

/* ---- Memory of a batch ---- */

/* The lists by unit have slots of fixed size: several threads fill them at once. The gradient of the last layer lies in
 * whole rows because the loss works on rows; all others are in panels because products write panels.
 *
 * A shared mask has two rows, of this step and of the next (see thinned.c). Layer 0 has no live bits and its gradient
 * no lists: they serve the gradient by a layer's input, and that of the data is not asked for. Slopes have a number for
 * each panel and row (see learned.c). */
static void take_training(cdrop_network *n, size_t i)
{
    cdrop_workspace *w = &n->training;
    layer *l = &n->layer[i];
    l->columns = cdrop_take_lists(w, n->k, l->n_in, n->rows, 0);
    l->mask = l->noise = NULL;
    l->slopes =
        l->kind == CDROP_CONCRETE ? cdrop_take(w, n->rows * n->layer[i - 1].out.panels, sizeof *l->slopes) : NULL;
    if (l->keep != CDROP_KEEP_ALL || l->varies) {
        if (l->kind == CDROP_MEMBERS)
            l->members = cdrop_take(w, n->members * l->words, sizeof *l->members);
        if (cdrop_drops(l))
            l->mask = cdrop_take(w, (l->kind == CDROP_SHARED ? 2 : n->rows) * l->words, sizeof *l->mask);
        else
            l->noise = cdrop_take(w, n->rows * cdrop_noise_pitch(l->n_in), n->k->size);
    }
    if (i) {
        l->live = cdrop_take(w, n->rows * l->words, sizeof *l->live);
        l->deltas = cdrop_take_lists(w, n->k, n->rows, l->n_out, 0);
    }
    l->delta =
        i + 1 < n->layers ? cdrop_take_panels(w, n->k, n->rows, l->n_out) : cdrop_take_rows(w, n->k, n->rows, l->n_out);
}

/* Copies of rows count as rows. Memory is taken for n->rows, which may be more than the rows asked for: predictions may
 * have needed them. */
cdrop_status cdrop_reserve_training(cdrop_network *n, size_t rows, size_t samples, int threads)
{
    if (samples > 1)
        rows *= samples;
    if (cdrop_reserve_forward(n, rows) != CDROP_OK)
        return CDROP_NO_MEMORY;
    if (n->training_rows >= rows && n->threads >= threads && (samples < 2 || n->copies.of))
        return CDROP_OK;
    /* Released before more is taken, so that memory does not double; a failure leaves a network that can take it
     * again. */
    cdrop_release(&n->training);
    n->training_rows = 0;
    n->masks = cdrop_take(&n->training, n->layers, sizeof *n->masks);
    n->noise = cdrop_take(&n->training, n->layers, sizeof *n->noise);
    for (size_t i = 0; i < n->layers; i++)
        take_training(n, i);
    cdrop_take_thinned(n);
    n->rate_gradients = cdrop_take(&n->training, n->layers, sizeof *n->rate_gradients);
    n->copies = (row_copies){.rows = 0};
    if (samples > 1)
        cdrop_take_copies(n, threads);
    n->row_loss = cdrop_take(&n->training, n->rows, sizeof *n->row_loss);
    n->claims = cdrop_take(&n->training, n->layers * CDROP_LOOPS * (size_t)threads, sizeof *n->claims);
    n->scratch = cdrop_take(&n->training, (size_t)threads * cdrop_scratch_size(n->k), n->k->size);
    if (n->training.failed) {
        cdrop_release(&n->training);
        return CDROP_NO_MEMORY;
    }
    n->training_rows = n->rows;
    n->threads = threads;
    return CDROP_OK;
}

cdrop_status cdrop_network_reserve(cdrop_network *n, size_t rows, size_t samples, int threads)
{
    return cdrop_reserve_training(n, rows, samples, cdrop_most_threads(n, rows * (samples ? samples : 1), threads));
}

/* ---- Timing ---- */

const char *cdrop_time_name(int part, int *by_layer)
{
#define ONCE(part, name) {name, 0}
#define EACH(part, name) {name, 1}
    /* In the order of the enumeration, because both come from CDROP_TIME_PARTS. */
    static const struct {
        const char *name;
        int by_layer;
    } parts[] = {CDROP_TIME_PARTS(ONCE, EACH)};
#undef ONCE
#undef EACH
    *by_layer = parts[part].by_layer;
    return parts[part].name;
}

static int take_watches(cdrop_network *n)
{
    /* Whole cache lines for each thread: its times are in nobody else's. */
    const size_t times = (n->layers * CDROP_TIMES + 7) / 8 * 8;
    double *seconds = cdrop_take(&n->timing, CDROP_MAX_THREADS * times, sizeof *seconds);
    n->watches = seconds ? cdrop_take(&n->timing, CDROP_MAX_THREADS, sizeof *n->watches) : NULL;
    for (size_t i = 0; n->watches && i < CDROP_MAX_THREADS; i++)
        n->watches[i].seconds = seconds + i * times;
    return n->watches != NULL;
}

/* The watches are in a separate workspace: they come and go while the network's memory stays. There is one for
 * each thread that a later step may use. */
cdrop_status cdrop_network_times(cdrop_network *n, int on, double *seconds)
{
    for (size_t part = 0; part < n->layers * CDROP_TIMES; part++) {
        seconds[part] = 0;
        for (int i = 0; n->watches && i < CDROP_MAX_THREADS; i++)
            seconds[part] += n->watches[i].seconds[part];
    }
    cdrop_release(&n->timing);
    n->watches = NULL;
    return on && !take_watches(n) ? CDROP_NO_MEMORY : CDROP_OK;
}

double cdrop_begin_watches(const cdrop_network *n) { return n->watches ? cdrop_now() : 0; }

/* A thread's time begins when the call does, not when the thread does: how late it is shows as waiting. Then the times
 * of all threads together are their number times that of the call. */
void cdrop_take_watch(pass *s, cdrop_team team)
{
    s->watch = s->n->watches ? &s->n->watches[team.index] : NULL;
    if (s->watch)
        s->watch->last = s->begin;
    cdrop_lap(s->watch, CDROP_TIME_WAIT_START, 0);
}

/* Only the watches of threads that have taken part have moved since the beginning. */
void cdrop_end_watches(const pass *s)
{
    const cdrop_network *n = s->n;
    for (int i = 0; n->watches && i < CDROP_MAX_THREADS; i++)
        if (n->watches[i].last >= s->begin)
            cdrop_lap(&n->watches[i], CDROP_TIME_WAIT_END, 0);
}
