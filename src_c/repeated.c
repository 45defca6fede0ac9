/* A step in which each row is trained under several masks: multi-sample dropout, and R-Drop.
 *
 * It is a step on copies of the rows. Copies of a row follow each other, so whole blocks of rows have whole blocks of
 * copies, and masks are drawn for copies as for any rows. Nothing differs between a row's copies below the first layer
 * whose input is dropped out: what lies below runs on the rows themselves. Going up, the input of that layer is listed
 * from each row's activations as often as it has copies; going down, the gradients by it are added up, copy by
 * copy. */
#include <string.h>

#include "pass.h"

static size_t outputs(const cdrop_network *n) { return n->layer[n->layers - 1].n_out; }

static size_t widest_hidden(const cdrop_network *n)
{
    size_t most = 1;
    for (size_t i = 0; i + 1 < n->layers; i++)
        most = n->layer[i].n_out > most ? n->layer[i].n_out : most;
    return most;
}

/* Elements of a thread's room for two rows of outputs: whole cache lines, which no other thread writes. */
static size_t two_rows(const cdrop_network *n) { return 2 * cdrop_pad(outputs(n)); }

/* n->rows counts copies here. Which layer is copied may change with the rates, so there is room for the widest; each
 * step lays the width of its layer into it (cdrop_copied_delta). */
void cdrop_take_copies(cdrop_network *n, int threads)
{
    cdrop_workspace *w = &n->training;
    const size_t widest = widest_hidden(n);
    n->copies.of = cdrop_take(w, n->rows, sizeof *n->copies.of);
    n->copies.data = cdrop_take(w, n->rows, sizeof *n->copies.data);
    n->copies.delta = cdrop_take_panels(w, n->k, n->rows, widest);
    n->copies.live = cdrop_take(w, n->rows * cdrop_words(widest), sizeof *n->copies.live);
    n->copies.scratch = cdrop_take(w, (size_t)threads * two_rows(n), n->k->size);
}

/* The first layer whose input is dropped out or noisy in this step, or the number of layers. */
static size_t first_masked(const cdrop_network *n)
{
    size_t i = 0;
    while (i < n->layers && !n->masks[i] && !n->noise[i])
        i++;
    return i;
}

/* Copies i M to i M + M - 1 are those of row i. `of` leads to the activations below, which have the rows of the batch;
 * `data` to the caller's rows, for labels, targets and weights, or where the data itself is dropped out. */
const row_copies *cdrop_repeat_rows(cdrop_network *n, const cdrop_batch *batch)
{
    row_copies *c = &n->copies;
    c->rows = 0;
    c->from = first_masked(n);
    if (batch->samples < 2 || c->from == n->layers) /* all copies would be the same */
        return NULL;
    c->samples = batch->samples;
    c->rows = batch->n * c->samples;
    for (size_t i = 0; i < c->rows; i++) {
        const int64_t row = (int64_t)(i / c->samples);
        c->of[i] = row;
        c->data[i] = batch->rows ? batch->rows[row] : row;
    }
    return c;
}

/* ---- The divergence of two copies ---- */

void cdrop_take_two_rows(pass *s, cdrop_team team)
{
    if (s->copies)
        s->two_rows = s->copies->scratch + (size_t)team.index * two_rows(s->n) * s->n->k->size;
}

/* As a prediction would give them. The outputs stay logits: the divergence needs both. */
static void probabilities(const cdrop_network *n, void *p, const void *logits)
{
    const size_t units = outputs(n);
    if (n->loss == CDROP_SOFTMAX_CROSS_ENTROPY) {
        n->k->softmax(p, logits, units);
        return;
    }
    memcpy(p, logits, units * n->k->size);
    n->k->activate(p, units, units, 1, CDROP_SIGMOID);
}

/* Rows come in pairs, and are both this thread's (see row_losses of train.c). The losses of the two copies have been
 * noted, and their gradients are in place: this adds to both. The divergence is one number for two copies; it is added
 * to the loss of the first. */
void cdrop_add_divergences(const pass *s, size_t from, size_t to)
{
    const cdrop_network *n = s->n;
    const cdrop_kernels *k = n->k;
    const layer *l = &s->layer[n->layers - 1];
    char *p = s->two_rows, *q = p + cdrop_pad(outputs(n)) * k->size;
    for (size_t i = from; i < to; i += 2) {
        const void *a = cdrop_panel_at(&l->out, k, 0, i), *b = cdrop_panel_at(&l->out, k, 0, i + 1);
        const double share = s->consistency * 2 * cdrop_row_share(&s->loss, i); /* both copies' */
        if (share == 0)                                                         /* as in losses.c */
            continue;
        probabilities(n, p, a);
        probabilities(n, q, b);
        n->row_loss[i] +=
            share * k->divergence(cdrop_panel_at(&l->delta, k, 0, i), cdrop_panel_at(&l->delta, k, 0, i + 1), a, b, p,
                                  q, outputs(n), share, n->loss == CDROP_SIGMOID_CROSS_ENTROPY);
    }
}

/* ---- The gradient by the rows that were copied ---- */

cdrop_panels cdrop_copied_delta(const pass *s)
{
    return cdrop_narrowed(&s->copies->delta, s->n->k, s->layer[s->index].n_in);
}

/* Masks, noise and scale differ between copies; the derivative of the activation does not, and waits for the sum,
 * except for the ReLU's, which is in the live bits. */
void cdrop_gate_copies(void *context, size_t p, size_t l0, size_t l1)
{
    const pass *s = context;
    const cdrop_kernels *k = s->n->k;
    const cdrop_panels delta = cdrop_copied_delta(s);
    const cdrop_gate gate = cdrop_gate_of(s, p, l0);
    cdrop_lap(s->watch, CDROP_TIME_INPUT_GRADIENT, s->index);
    if (s->layer[s->index].kind == CDROP_CONCRETE && gate.noise)
        cdrop_note_slopes(s, p, l0, l1);
    k->gate(cdrop_panel_at(&delta, k, p, l0), cdrop_panel_pitch(&delta, p), NULL, 0,
            cdrop_min(k->panel, s->layer[s->index].n_in - p * k->panel), l1 - l0, &gate, CDROP_IDENTITY);
    cdrop_lap(s->watch, CDROP_TIME_DERIVATIVE, s->index);
}

/* Of lines [l0, l1) of panel p, whose copies' gradients `delta` has. Each column is one ascending chain over the
 * copies, which lie behind each other: the kernel of column sums serves. */
static void add_copies(const pass *s, const cdrop_panels *delta, size_t p, size_t l0, size_t l1)
{
    const cdrop_kernels *k = s->n->k;
    const cdrop_panels *sums = &s->layer[s->index - 1].delta;
    const size_t samples = s->copies->samples;
    for (size_t line = l0; line < l1; line++)
        k->column_sums(cdrop_panel_at(sums, k, p, line), cdrop_panel_at(delta, k, p, line * samples),
                       cdrop_panel_pitch(delta, p), cdrop_panel_width(delta, p, k->panel), samples);
}

/* A unit that is live in no copy of a row has no gradient there: in all copies it was gated to 0. */
static void note_live(const pass *s, size_t b0, size_t b1, size_t l0, size_t l1)
{
    const layer *l = &s->layer[s->index];
    const size_t samples = s->copies->samples;
    for (size_t line = l0; line < l1; line++)
        for (size_t b = b0; b < b1; b++) {
            uint64_t live = 0;
            for (size_t copy = line * samples; copy < (line + 1) * samples; copy++)
                live |= l->live[copy * l->words + b];
            s->copies->live[line * l->words + b] = live;
        }
}

/* What finish_delta of train.c does with the gradient by the activations, for the sums. Mask, noise and scale have been
 * applied copy by copy, so the scale is 1, and with the ReLU nothing is left to do but lists. */
static void finish_sums(const pass *s, size_t p, size_t l0, size_t l1)
{
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->layer[s->index];
    layer *below = &s->layer[s->index - 1];
    const size_t pitch = cdrop_panel_pitch(&below->delta, p), b0 = p * k->panel / CDROP_BLOCK;
    const size_t b1 = cdrop_min(b0 + k->panel / CDROP_BLOCK, cdrop_blocks(l->n_in));
    const cdrop_gate gate = {.live = s->copies->live + l0 * l->words + b0, .words = l->words, .scale = 1};
    note_live(s, b0, b1, l0, l1);
    if (s->n->activation != CDROP_RELU && s->n->activation != CDROP_IDENTITY)
        k->gate(cdrop_panel_at(&below->delta, k, p, l0), pitch, cdrop_panel_at(&below->out, k, p, l0),
                cdrop_panel_pitch(&below->out, p), cdrop_min(k->panel, l->n_in - p * k->panel), l1 - l0, &gate,
                s->n->activation);
    cdrop_lap(s->watch, CDROP_TIME_DERIVATIVE, s->index);
    cdrop_list_delta(s, p, l0, l1, s->copies->live);
}

/* Behind a barrier: copies of a row may have been done by different threads. 64 rows of a panel have one thread, as
 * everywhere, so words of live bits and lists have one writer. */
void cdrop_sum_copies(const pass *s, cdrop_team team)
{
    const size_t rows = s->batch->n, groups = cdrop_blocks(rows);
    const cdrop_panels delta = cdrop_copied_delta(s);
    cdrop_loop loop = cdrop_divide(team, NULL, delta.panels * groups);
    for (size_t item; cdrop_next(&loop, &item);) {
        const size_t p = item / groups, l0 = item % groups * CDROP_BLOCK, l1 = cdrop_min(l0 + CDROP_BLOCK, rows);
        add_copies(s, &delta, p, l0, l1);
        finish_sums(s, p, l0, l1);
    }
}
