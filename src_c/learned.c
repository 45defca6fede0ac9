/* Concrete dropout (Gal, Hron and Kendall 2017): dropout rates that training learns.
 *
 * A unit of a layer with such a rate is multiplied by (1 - z) / keep, where z is a smooth step from 0 to 1
 * (noise.inc.h). So the loss has a derivative by logit(1 - keep), which is summed while the gradient by the noisy
 * units is at hand: row by row in each panel, and after the step over these in a fixed order, so that it has the same
 * bits with any number of threads. */
#include <math.h>

#include "cpu.h"
#include "pass.h"

static double keep_of(const layer *l) { return (double)l->keep / (double)CDROP_KEEP_ALL; }

/* The gradient of what does not depend on the data, by logit = logit(1 - keep). The derivative of keep by it is
 * -keep (1 - keep). So l2 / (2 keep) times the squares of the weights has the derivative (1 - keep) times itself, and
 * the entropy of keep, which is subtracted, -keep (1 - keep) logit. With l2 = 0 the squares are not looked at, because
 * they may be infinite; with keep = 1 the logit is infinite, and the derivative 0. */
static double prior_gradient(const pass *s, const layer *l, double entropy)
{
    const double keep = keep_of(l), logit = cdrop_log((1 - keep) / keep), l2 = cdrop_l2_of(s, l);
    const double weights = l2 == 0 ? 0 : 0.5 * l2 * cdrop_sum_of_squares(l) * (1 - keep);
    return weights + (keep < 1 ? entropy * (double)l->n_in * keep * (1 - keep) * logit : 0);
}

/* Before the step changes the weights, whose squares it needs; on one thread. */
void cdrop_begin_learning(const pass *s, double entropy)
{
    for (size_t i = 0; i < s->n->layers; i++)
        if (s->n->layer[i].kind == CDROP_CONCRETE)
            s->n->rate_gradients[i] = prior_gradient(s, &s->n->layer[i], entropy);
}

/* Each line of a panel has a place in l->slopes, which the thread that has the line writes. */
void cdrop_note_slopes(const pass *s, size_t p, size_t l0, size_t l1)
{
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->layer[s->index];
    const cdrop_panels *a = &s->layer[s->index - 1].out;
    const int copied = cdrop_is_copied(s, s->index);
    const cdrop_panels delta = copied ? cdrop_copied_delta(s) : s->layer[s->index - 1].delta;
    const size_t lines = copied ? 1 : l1 - l0; /* at once: each copy has its row's activations */
    for (size_t line = l0; line < l1; line += lines) {
        const cdrop_gate gate = cdrop_gate_of(s, p, line);
        const size_t row = copied ? (size_t)s->copies->of[line] : line;
        k->rate_slopes(l->slopes + p * cdrop_rows_of(s, s->index) + line, cdrop_panel_at(&delta, k, p, line),
                       cdrop_panel_pitch(&delta, p), cdrop_panel_at(a, k, p, row), cdrop_panel_pitch(a, p),
                       cdrop_min(k->panel, l->n_in - p * k->panel), lines, &gate, keep_of(l));
    }
}

/* The gradient by the logit of a whole step, on one thread: panel by panel, line by line. Where all units are kept no
 * noise was drawn, and only the prior counts. */
static double rate_gradient(const pass *s, size_t i)
{
    double sum = s->n->rate_gradients[i];
    const size_t slopes = s->noise[i] ? cdrop_rows_of(s, i) * s->n->layer[i - 1].out.panels : 0;
    for (size_t j = 0; j < slopes; j++)
        sum += s->n->layer[i].slopes[j];
    return sum;
}

/* In double, on one number. Both powers are of the step counted from 1. */
static void adam(cdrop_learned_rate *r, double gradient)
{
    enum { FARTHEST = 12 }; /* 1 - keep is then 6e-6 or keep is */
    r->mean = 0.9 * r->mean + 0.1 * gradient;
    r->square = 0.999 * r->square + 0.001 * gradient * gradient;
    r->power1 *= 0.9;
    r->power2 *= 0.999;
    r->logit -= 0.01 * (r->mean / (1 - r->power1)) / (sqrt(r->square / (1 - r->power2)) + 1e-8);
    r->logit = fmin(fmax(r->logit, -FARTHEST), FARTHEST);
}

/* A gradient that is not finite leaves its rate: if the weights have diverged, the step reports that. */
void cdrop_learn_rates(const pass *s, cdrop_learned_rate *learned)
{
    for (size_t i = 0; i < s->n->layers; i++) {
        const double gradient = s->n->layer[i].kind == CDROP_CONCRETE ? rate_gradient(s, i) : NAN;
        if (isfinite(gradient))
            adam(&learned[i], gradient);
    }
}
