/* From an optimizer's settings to the constants of one update, and the limit of norms that follows it. */
#ifndef CDROP_OPTIMIZERS_H
#define CDROP_OPTIMIZERS_H

#include "threads.h"
#include "workspace.h"

/* The constants for weights, or with `bias` for biases, which are never decayed. */
cdrop_update cdrop_update_of(const cdrop_optimizer *o, int bias);

/* A weight matrix whose columns have a largest norm. A column is spread over blocks of lines, which different threads
 * update: each block's sums of squares are noted first, and added in a fixed order when all are there. */
typedef struct {
    const cdrop_panels *weight;
    size_t lines, columns;
    double *squares; /* [block of lines][padded column] */
} cdrop_norms;

/* Room for the squares. */
double *cdrop_take_squares(cdrop_workspace *w, size_t lines, size_t columns);

void cdrop_note_norms(const cdrop_kernels *k, const cdrop_norms *n, size_t line_block, size_t column_block);

/* Called for each block that the limit has changed. */
typedef void (*cdrop_block_sink)(void *context, size_t line_block, size_t column_block);

/* This thread's part of the limit, after a barrier. */
void cdrop_limit_blocks(const cdrop_kernels *k, const cdrop_norms *n, double limit, cdrop_team team,
                        cdrop_block_sink sink, void *context);

#endif
