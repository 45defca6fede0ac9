/* The loss of a batch: the weighted mean over its rows, and its gradient. The kernels of a row are in
 * simd/losses.inc.h; here is what surrounds them: which row, and its share of the mean. Sums over rows are in double
 * and in ascending order, on one thread, so that their bits do not depend on the number of threads. */
#include "losses.h"

#include "cpu.h"

double cdrop_weight_sum(const double *weights, const int64_t *rows, size_t n)
{
    double sum = 0;
    if (!weights)
        return (double)n;
    for (size_t i = 0; i < n; i++)
        sum += weights[rows ? rows[i] : (int64_t)i];
    return sum;
}

/* Which row of labels, targets and weights is row i of the batch. */
static size_t row_of(const cdrop_loss_rows *l, size_t i) { return l->rows ? (size_t)l->rows[i] : i; }

double cdrop_row_share(const cdrop_loss_rows *l, size_t i)
{
    return (l->truth.weights ? l->truth.weights[row_of(l, i)] : 1) / l->weight_sum;
}

/* Smoothing, Huber's delta or the first quantile. */
static double parameter_of(const cdrop_loss_rows *l) { return l->parameters ? l->parameters[0] : 0; }

/* A row of weight 0 does not count, even if its loss is infinite: 0 times infinity would be NaN. */
static double weighted(double share, double loss) { return share == 0 ? 0 : share * loss; }

static double row_loss(const cdrop_kernels *k, const cdrop_loss_rows *l, void *doutputs, const void *outputs, size_t i)
{
    /* Outputs are those of the batch; labels, targets and weights those of all the data. */
    const cdrop_truth *t = &l->truth;
    const size_t row = row_of(l, i), columns = t->one_target ? 1 : l->n;
    const double share = cdrop_row_share(l, i);
    const double parameter = parameter_of(l);
    const void *targets = t->targets ? (const char *)t->targets + row * columns * k->size : NULL;
    double loss = 0;
    switch (l->loss) {
    case CDROP_SOFTMAX_CROSS_ENTROPY:
        if (t->labels && parameter == 0)
            loss = k->softmax_row(doutputs, outputs, l->n, t->labels[row], share);
        else if (t->labels)
            loss = k->softmax_to_row(doutputs, outputs, NULL, l->n, t->labels[row], share, parameter);
        else
            loss = k->softmax_to_row(doutputs, outputs, targets, l->n, 0, share, parameter);
        break;
    case CDROP_SIGMOID_CROSS_ENTROPY:
        break; /* of several rows at once */
    case CDROP_SQUARED_ERROR:
        loss = k->squared_row(doutputs, outputs, targets, l->n, share);
        break;
    case CDROP_HUBER:
        loss = k->huber_row(doutputs, outputs, targets, l->n, share, parameter);
        break;
    case CDROP_POISSON:
        loss = k->poisson_row(doutputs, outputs, targets, l->n, share);
        break;
    case CDROP_ABSOLUTE_ERROR:
        loss = k->pinball_row(doutputs, outputs, targets, 1, l->n, share, NULL);
        break;
    case CDROP_QUANTILE:
        loss = k->pinball_row(doutputs, outputs, targets, columns == l->n, l->n, share, l->parameters);
        break;
    }
    return weighted(share, loss);
}

/* Rows of at most CDROP_LANES classes, or sigmoids of any number of outputs: up to CDROP_LANES rows at a time. */
static void rows_at_once(const cdrop_kernels *k, const cdrop_loss_rows *l, void *doutputs, size_t d_pitch,
                         const void *outputs, size_t pitch, size_t from, size_t rows, double *losses)
{
    int64_t labels[CDROP_LANES];
    const void *targets[CDROP_LANES];
    double shares[CDROP_LANES];
    const double even = 1 / l->weight_sum; /* the share without weights: one division, not one for each row */
    for (size_t i = 0; i < rows; i++) {
        shares[i] = l->truth.weights ? cdrop_row_share(l, from + i) : even;
        if (l->loss == CDROP_SOFTMAX_CROSS_ENTROPY)
            labels[i] = l->truth.labels[row_of(l, from + i)];
        else
            targets[i] = (const char *)l->truth.targets + row_of(l, from + i) * l->n * k->size;
    }
    if (l->loss == CDROP_SOFTMAX_CROSS_ENTROPY)
        k->softmax_rows(doutputs, d_pitch, outputs, pitch, l->n, rows, labels, shares, losses);
    else
        k->sigmoid_rows(doutputs, d_pitch, outputs, pitch, targets, l->n, rows, shares, parameter_of(l), losses);
    for (size_t i = 0; i < rows; i++)
        losses[i] = weighted(shares[i], losses[i]);
}

void cdrop_row_losses(const cdrop_kernels *k, const cdrop_loss_rows *l, void *doutputs, size_t d_pitch,
                      const void *outputs, size_t pitch, size_t from, size_t to, double *losses)
{
    const int few_classes =
        l->loss == CDROP_SOFTMAX_CROSS_ENTROPY && l->truth.labels && parameter_of(l) == 0 && l->n <= CDROP_LANES;
    const size_t step = few_classes || l->loss == CDROP_SIGMOID_CROSS_ENTROPY ? CDROP_LANES : 1;
    for (size_t i = 0; i < to - from; i += step) {
        void *gradient = (char *)doutputs + i * d_pitch * k->size;
        const void *of_rows = (const char *)outputs + i * pitch * k->size;
        if (step > 1)
            rows_at_once(k, l, gradient, d_pitch, of_rows, pitch, from + i, cdrop_min(step, to - from - i), losses + i);
        else
            losses[i] = row_loss(k, l, gradient, of_rows, from + i);
    }
}

double cdrop_loss_and_gradient(cdrop_dtype dtype, cdrop_loss loss, const double *parameters, void *doutputs,
                               const void *outputs, const cdrop_truth *truth, size_t rows, size_t n)
{
    const cdrop_kernels *k = cdrop_kernels_of(dtype);
    const cdrop_loss_rows l = {.loss = loss,
                               .parameters = parameters,
                               .truth = *truth,
                               .n = n,
                               .weight_sum = cdrop_weight_sum(truth->weights, NULL, rows)};
    /* As in a step, so that the public function and the step agree to the bit. */
    const cdrop_fp_mode mode = cdrop_flush_denormals();
    double sum = 0, losses[CDROP_LANES];
    for (size_t from = 0; from < rows; from += CDROP_LANES) {
        const size_t to = cdrop_min(from + CDROP_LANES, rows), at = from * n * k->size;
        cdrop_row_losses(k, &l, (char *)doutputs + at, n, (const char *)outputs + at, n, from, to, losses);
        for (size_t i = from; i < to; i++)
            sum += losses[i - from];
    }
    cdrop_restore_fp_mode(mode);
    return sum;
}

void cdrop_exponential(cdrop_dtype dtype, void *x, size_t n)
{
    const cdrop_fp_mode mode = cdrop_flush_denormals(); /* as in a step */
    cdrop_kernels_of(dtype)->exponential(x, n);
    cdrop_restore_fp_mode(mode);
}
