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

/* The share of row i in the batch's mean loss; its gradient goes to doutputs. */
double cdrop_row_loss(const cdrop_kernels *k, const cdrop_loss_rows *l, void *doutputs, const void *outputs, size_t i);

#endif
