/* Predictions under many masks, their mean and spread (Monte Carlo dropout).
 *
 * Rows come in chunks of fixed size; of a chunk only sums over the passes are kept, so memory grows neither with the
 * rows nor with the passes. What lies below the first dropped-out layer is computed once a chunk, by all threads
 * together. Then each thread takes whole blocks of rows through all passes, without waiting for the others:
 *
 *   masks of all layers; the first of them applied: lists of what is left
 *   forward from there, layer by layer
 *   each row's outputs into its sums
 *
 * Sums are in double, whatever the network's type: information is a small difference of entropies. A row's passes are
 * added up by one thread, in their order, so the sums do not depend on the number of threads. */
#include <string.h>

#include "cpu.h"
#include "pass.h"

/* Rows of a thread in a chunk: their lists and activations stay in its cache over the passes. */
enum { THREAD_ROWS = 2 * CDROP_BLOCK };

typedef struct {
    pass pass;
    const cdrop_sampling *how;
    size_t done;     /* rows before this chunk */
    double *mean;    /* by row and output: sums of probabilities, or means of outputs */
    double *second;  /* by row, and where outputs stand apart by output: sums of entropies, or of squared differences */
    double *scratch; /* for each thread: two rows */
    cdrop_uncertainty out;
} sampling;

/* The last layer's outputs are whole rows, in one piece: panel 0 has their address. */
static size_t outputs(const cdrop_network *n) { return n->layer[n->layers - 1].n_out; }

/* Numbers that are not a mean, for each row. */
static size_t statistics(const cdrop_network *n) { return n->loss == CDROP_SOFTMAX_CROSS_ENTROPY ? 1 : outputs(n); }

static double real_at(const cdrop_network *n, const void *row, size_t i)
{
    return n->k->size == sizeof(float) ? (double)((const float *)row)[i] : ((const double *)row)[i];
}

/* An output that is not wanted is NULL. */
static void put_real(const cdrop_network *n, void *out, size_t i, double value)
{
    if (!out)
        return;
    if (n->k->size == sizeof(float))
        ((float *)out)[i] = (float)value;
    else
        ((double *)out)[i] = value;
}

/* ---- One pass of one row ---- */

/* Adds softmax(z) to mean and returns its entropy, log(sum exp(z_i - z_max)) - sum p_i (z_i - z_max): one logarithm,
 * and the largest probability is 1 / sum. All terms are at least 0, so nothing cancels. The kernel of doubles serves
 * both types: floats have been widened. */
static double add_softmax(double *mean, double *p, const double *z, size_t n)
{
    const cdrop_kernels *k = cdrop_kernels_of(CDROP_FLOAT64);
    const size_t best = k->largest(z, n);
    k->softmax(p, z, n);
    double entropy = -cdrop_log(p[best]);
    for (size_t i = 0; i < n; i++) {
        mean[i] += p[i];
        if (p[i] != 0) /* its logit may be infinitely far away */
            entropy += p[i] * (z[best] - z[i]);
    }
    return entropy;
}

/* Each label by itself: with q the smaller of its two probabilities, log(1 + exp(-|z|)) + q |z|, and exp(-|z|) is
 * q / (1 - q): no second exponential. q is found as sigmoid(-|z|), not as 1 minus the larger one, which would lose its
 * digits. */
static void add_sigmoid(double *mean, double *entropy, double *q, const double *z, size_t n)
{
    for (size_t i = 0; i < n; i++)
        q[i] = -fabs(z[i]);
    cdrop_kernels_of(CDROP_FLOAT64)->activate(q, n, n, 1, CDROP_SIGMOID);
    for (size_t i = 0; i < n; i++) {
        mean[i] += z[i] > 0 ? 1 - q[i] : q[i];
        entropy[i] += cdrop_log1p(q[i] / (1 - q[i])) + q[i] * fabs(z[i]);
    }
}

/* Welford (1962): no difference of large sums. `passes` counts this one. */
static void add_outputs(double *mean, double *squares, const double *x, size_t n, double passes)
{
    for (size_t i = 0; i < n; i++) {
        const double before = x[i] - mean[i];
        mean[i] += before / passes;
        squares[i] += before * (x[i] - mean[i]);
    }
}

/* Of a sigmoid, p is the smaller of a label's two probabilities. */
static void put_sample(const sampling *q, size_t row, const double *z, const double *p)
{
    const cdrop_network *n = q->pass.n;
    const size_t units = outputs(n), at = ((size_t)q->pass.step * q->out.stride + q->done + row) * units;
    for (size_t i = 0; i < units; i++)
        if (n->loss == CDROP_SOFTMAX_CROSS_ENTROPY)
            put_real(n, q->out.samples, at + i, p[i]);
        else if (n->loss == CDROP_SIGMOID_CROSS_ENTROPY)
            put_real(n, q->out.samples, at + i, z[i] > 0 ? 1 - p[i] : p[i]);
        else
            put_real(n, q->out.samples, at + i, z[i]);
}

static void add_row(const sampling *q, size_t row, double *scratch)
{
    const cdrop_network *n = q->pass.n;
    const size_t units = outputs(n);
    const void *out = cdrop_panel_at(&n->layer[n->layers - 1].out, n->k, 0, row);
    double *mean = q->mean + row * units, *second = q->second + row * statistics(n);
    double *z = scratch, *p = scratch + cdrop_pad(units);
    for (size_t i = 0; i < units; i++)
        z[i] = real_at(n, out, i);
    if (n->loss == CDROP_SOFTMAX_CROSS_ENTROPY)
        *second += add_softmax(mean, p, z, units);
    else if (n->loss == CDROP_SIGMOID_CROSS_ENTROPY)
        add_sigmoid(mean, second, p, z, units);
    else {
        if (n->loss == CDROP_POISSON)
            cdrop_kernels_of(CDROP_FLOAT64)->exponential(z, units);
        add_outputs(mean, second, z, units, (double)(q->pass.step + 1));
    }
    if (q->out.samples)
        put_sample(q, row, z, p);
}

/* ---- The results of one row ---- */

/* Rounding may take a difference below 0; NaN stays. */
static double at_least_zero(double x) { return x <= 0 ? 0 : x; }

static double minus_p_log_p(double p) { return p == 0 ? 0 : -p * cdrop_log(p); }

static void put_entropies(const sampling *q, size_t at, double predictive, double expected)
{
    const cdrop_network *n = q->pass.n;
    predictive = at_least_zero(predictive);
    put_real(n, q->out.predictive_entropy, at, predictive);
    put_real(n, q->out.expected_entropy, at, expected);
    put_real(n, q->out.mutual_information, at, at_least_zero(predictive - expected));
}

/* `at` is the row's place in the results. Of probabilities `mean` is a sum over the passes, of numbers it is the mean
 * itself. The entropy of a label takes both of its probabilities. */
static void finish_row(const sampling *q, size_t row, size_t at)
{
    const cdrop_network *n = q->pass.n;
    const size_t units = outputs(n), apart = statistics(n);
    const double passes = (double)q->how->passes, *second = q->second + row * apart;
    double *mean = q->mean + row * units, entropy = 0;
    for (size_t i = 0; i < units; i++) {
        const double p = cdrop_of_numbers(n->loss) ? mean[i] : mean[i] / passes;
        put_real(n, q->out.mean, at * units + i, p);
        if (cdrop_of_numbers(n->loss))
            put_real(n, q->out.deviation, at * units + i, sqrt(second[i] / passes));
        else if (n->loss == CDROP_SIGMOID_CROSS_ENTROPY)
            put_entropies(q, at * units + i, minus_p_log_p(p) + minus_p_log_p(1 - p), second[i] / passes);
        else
            entropy += minus_p_log_p(p);
    }
    if (n->loss == CDROP_SOFTMAX_CROSS_ENTROPY)
        put_entropies(q, at, entropy, second[0] / passes);
}

/* ---- A chunk of rows ---- */

static void add_rows(const sampling *q, size_t from, size_t to, double *scratch)
{
    for (size_t row = from; row < to; row++)
        add_row(q, row, scratch);
    cdrop_lap(q->pass.watch, CDROP_TIME_LOSS, 0);
}

static void begin_rows(const sampling *q, size_t from, size_t to)
{
    const size_t units = outputs(q->pass.n), apart = statistics(q->pass.n);
    memset(q->mean + from * units, 0, (to - from) * units * sizeof *q->mean);
    memset(q->second + from * apart, 0, (to - from) * apart * sizeof *q->second);
}

/* cdrop_forward_below ends with a barrier; behind it no thread waits for another, so one that has no rows may leave.
 * Sums of the caller's (see cdrop_sampling) are those of earlier calls, unless this one makes the first pass. */
static void sample_job(void *argument, cdrop_team team)
{
    sampling mine = *(const sampling *)argument;
    pass *s = &mine.pass;
    double *scratch = mine.scratch + (size_t)team.index * 2 * cdrop_pad(outputs(s->n));
    size_t from, to;
    cdrop_take_watch(s, team);
    cdrop_forward_below(s, team);
    cdrop_share_blocks(s, team, &from, &to);
    if (from == to)
        return;
    const size_t first = mine.how->sums ? mine.how->done : 0;
    const size_t last = mine.how->sums ? mine.how->until : mine.how->passes;
    if (first == 0)
        begin_rows(&mine, from, to);
    for (s->step = first; s->step < last; s->step++) {
        cdrop_forward_above(s, from, to);
        add_rows(&mine, from, to, scratch);
    }
    if (last < mine.how->passes)
        return;
    for (size_t row = from; row < to; row++)
        finish_row(&mine, row, mine.done + row);
}

/* ---- All rows ---- */

/* Of each layer's input: those given, which nothing writes to; or room to draw a chunk's, or where all rows share one,
 * a row for each pass. While memory is measured, cdrop_take returns NULL. */
static uint64_t **take_masks(cdrop_workspace *space, const cdrop_network *n, const cdrop_sampling *how, size_t rows)
{
    uint64_t **masks = cdrop_take(space, n->layers, sizeof *masks);
    for (size_t i = 0; i < n->layers; i++) {
        const layer *l = &n->layer[i];
        const size_t lines = l->kind == CDROP_SHARED || l->kind == CDROP_MEMBERS ? how->passes : rows;
        uint64_t *drawn = how->masks || l->keep == CDROP_KEEP_ALL || !cdrop_drops(l)
                              ? NULL
                              : cdrop_take(space, lines * l->words, sizeof **masks);
        if (masks)
            masks[i] = how->masks ? (uint64_t *)how->masks[i] : drawn;
    }
    return masks;
}

/* A chunk's, where there is any. */
static void **take_noise(cdrop_workspace *space, const cdrop_network *n, const cdrop_sampling *how, size_t rows)
{
    void **noise = cdrop_take(space, n->layers, sizeof *noise);
    for (size_t i = 0; i < n->layers; i++) {
        const layer *l = &n->layer[i];
        void *room = how->masks || l->keep == CDROP_KEEP_ALL || cdrop_drops(l)
                         ? NULL
                         : cdrop_take(space, rows * cdrop_noise_pitch(l->n_in), n->k->size);
        if (noise)
            noise[i] = room;
    }
    return noise;
}

static void draw_shared_by_pass(const pass *s, size_t i, size_t passes)
{
    const layer *l = &s->n->layer[i];
    for (size_t t = 0; t < passes; t++)
        cdrop_bernoulli_mask(s->masks[i] + t * l->words, 0, 1, l->n_in, l->keep, s->seed, t, s->purpose, (uint32_t)i);
}

/* Pass t has the mask of member t, and after the last member again that of the first: each mask is copied from the one
 * `members` rows before it. */
static void draw_members_by_pass(const pass *s, size_t i, size_t passes)
{
    const size_t words = s->n->layer[i].words, members = cdrop_min(s->n->members, passes);
    cdrop_draw_members(s->masks[i], members, s->n, i);
    for (size_t t = members; t < passes; t++)
        memcpy(s->masks[i] + t * words, s->masks[i] + (t - members) * words, words * sizeof **s->masks);
}

/* The masks that all rows share, of all passes: each thread makes its passes at its own pace. */
static void draw_shared(const pass *s, const cdrop_sampling *how)
{
    for (size_t i = 0; !s->given && i < s->n->layers; i++) {
        const cdrop_kind kind = s->n->layer[i].kind;
        if (kind == CDROP_SHARED && s->masks[i])
            draw_shared_by_pass(s, i, how->passes);
        if (kind == CDROP_MEMBERS && s->masks[i])
            draw_members_by_pass(s, i, how->passes);
    }
}

static void take_sampling(sampling *q, cdrop_workspace *space, size_t rows, int threads)
{
    const cdrop_network *n = q->pass.n;
    q->pass.masks = take_masks(space, n, q->how, rows);
    q->pass.noise = take_noise(space, n, q->how, rows);
    q->mean = cdrop_take(space, rows * outputs(n), sizeof *q->mean);
    q->second = cdrop_take(space, rows * statistics(n), sizeof *q->second);
    q->scratch = cdrop_take(space, (size_t)threads * 2 * cdrop_pad(outputs(n)), sizeof *q->scratch);
}

/* The first layer whose input is dropped out or noisy. There is one: cdrop_network_sample is not called without. */
static size_t first_masked(const pass *s)
{
    size_t i = 0;
    while (!s->masks[i] && !s->noise[i])
        i++;
    return i;
}

/* Rows at once, whole blocks: THREAD_ROWS for each of the threads that are of use, or as many as there is room for. So
 * every chunk begins at a multiple of 64, where streams of masks begin. */
static size_t chunk_rows(const cdrop_network *n, size_t rows, int *threads)
{
    *threads = cdrop_threads_for(n, rows, *threads);
    const size_t wanted = (size_t)*threads * THREAD_ROWS, room = n->rows / CDROP_BLOCK * CDROP_BLOCK;
    return wanted > room ? wanted : room;
}

cdrop_status cdrop_network_sample(cdrop_network *n, const cdrop_uncertainty *out, const cdrop_batch *batch,
                                  const cdrop_sampling *how, int threads)
{
    const size_t chunk = chunk_rows(n, batch->n, &threads), rows = cdrop_min(batch->n, chunk);
    cdrop_workspace space = CDROP_MEASURE;
    sampling q = {.how = how, .out = *out};
    q.pass =
        (pass){.n = n, .layer = n->layer, .given = how->masks != NULL, .seed = how->seed, .purpose = CDROP_FOR_SAMPLES};
    if (cdrop_reserve_forward(n, rows) != CDROP_OK)
        return CDROP_NO_MEMORY;
    take_sampling(&q, &space, rows, threads);
    if (cdrop_open(&space) != CDROP_OK)
        return CDROP_NO_MEMORY;
    take_sampling(&q, &space, rows, threads);
    draw_shared(&q.pass, how);
    q.pass.relisted = first_masked(&q.pass);
    for (q.done = 0; q.done < batch->n; q.done += chunk) {
        const cdrop_batch part = cdrop_part_of(n, batch, q.done, cdrop_min(chunk, batch->n - q.done));
        if (how->sums) {
            q.mean = how->sums + q.done * outputs(n);
            q.second = how->sums + batch->n * outputs(n) + q.done * statistics(n);
        }
        q.pass.batch = &part;
        q.pass.first_row = how->first_row + q.done;
        q.pass.begin = cdrop_begin_watches(n);
        cdrop_choose_products(&q.pass);
        cdrop_parallel(sample_job, &q, threads);
        cdrop_end_watches(&q.pass);
    }
    cdrop_release(&space);
    return CDROP_OK;
}
