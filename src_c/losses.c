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

double cdrop_row_loss(const cdrop_kernels *k, const cdrop_loss_rows *l, void *doutputs, const void *outputs, size_t i)
{
    /* Outputs are those of the batch; labels, targets and weights those of all the data. */
    const cdrop_truth *t = &l->truth;
    const size_t row = row_of(l, i), columns = t->one_target ? 1 : l->n;
    const double share = cdrop_row_share(l, i);
    const double parameter = l->parameters ? l->parameters[0] : 0;
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
        loss = k->sigmoid_row(doutputs, outputs, targets, l->n, share, parameter);
        break;
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
    /* A row of weight 0 does not count, even if its loss is infinite: 0 times infinity would be NaN. */
    return share == 0 ? 0 : share * loss;
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
    double sum = 0;
    for (size_t i = 0; i < rows; i++)
        sum += cdrop_row_loss(k, &l, (char *)doutputs + i * n * k->size, (const char *)outputs + i * n * k->size, i);
    cdrop_restore_fp_mode(mode);
    return sum;
}

void cdrop_exponential(cdrop_dtype dtype, void *x, size_t n)
{
    const cdrop_fp_mode mode = cdrop_flush_denormals(); /* as in a step */
    cdrop_kernels_of(dtype)->exponential(x, n);
    cdrop_restore_fp_mode(mode);
}
