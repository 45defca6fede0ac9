/* The loss of a batch, row by row: shared by the public function and by the training step. */
#ifndef CDROP_LOSSES_H
#define CDROP_LOSSES_H

#include "kernels.h"

typedef struct {
    cdrop_loss loss;
    const double *parameters;
    const int64_t *rows; /* which row of labels, targets and weights is row i, or NULL */
    cdrop_truth truth;
    double weight_sum; /* over the batch */
    size_t n;          /* outputs of a row */
} cdrop_loss_rows;

double cdrop_weight_sum(const double *weights, const int64_t *rows, size_t n);

/* What the loss of row i is multiplied by. */
double cdrop_row_share(const cdrop_loss_rows *l, size_t i);

/* The shares of rows [from, to) in the batch's mean loss go to losses, their gradients to doutputs. doutputs and
 * outputs are at row `from`; their rows are d_pitch and pitch elements apart. */
void cdrop_row_losses(const cdrop_kernels *k, const cdrop_loss_rows *l, void *doutputs, size_t d_pitch,
                      const void *outputs, size_t pitch, size_t from, size_t to, double *losses);

#endif
