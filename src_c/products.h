/* The three masked products, as a team of threads runs them: shared by the public kernels and by the training step, so
 * that there is one implementation of each. */
#ifndef CDROP_PRODUCTS_H
#define CDROP_PRODUCTS_H

#include "cpu.h"
#include "threads.h"
#include "workspace.h"

/* What follows a product while its result is still in the cache: lines [l0, l1) of panel p are complete. */
typedef void (*cdrop_epilogue)(void *context, size_t p, size_t l0, size_t l1);

/* The left side of a product: lists of live entries, or with `dense` the entries themselves. */
typedef struct {
    const cdrop_lists *lists;
    const cdrop_panels *dense; /* [line][entry], or NULL */
    size_t entries;            /* summed over */
    /* One row whose product every line's sum starts with, as line 0 of these lists, or NULL. */
    const cdrop_lists *background;
} cdrop_left;

/* The right side: a matrix of entries x columns in panels, or with `scratch` the transpose of one of columns x entries.
 * Of that, each block is transposed when its turn comes: less memory traffic than a second copy kept in step. */
typedef struct {
    const cdrop_panels *panels;
    size_t columns;
    char *scratch; /* this thread's room for CDROP_BLOCK lines of a panel, or NULL */
} cdrop_right;

/* out = start + background x right + left x right, this thread's part: whole panels first, so that a thread's weights
 * stay in its cache, then row groups of 64. start: padded row of all columns, or NULL. claims: see cdrop_loop. */
void cdrop_product_rows(const cdrop_kernels *k, const cdrop_panels *out, const void *start, const cdrop_right *right,
                        const cdrop_left *left, size_t rows, cdrop_team team, cdrop_claims *claims,
                        cdrop_epilogue epilogue, void *context);

/* The same for rows [from, to) on this thread alone, from a multiple of 64. */
void cdrop_product_groups(const cdrop_kernels *k, const cdrop_panels *out, const void *start, const cdrop_right *right,
                          const cdrop_left *left, size_t from, size_t to, cdrop_epilogue epilogue, void *context);

/* Whether the source's rows, multiplied densely, need no copy: all is kept as it is. */
static inline int cdrop_as_it_stands(const cdrop_source *s)
{
    return !s->mask && !s->noise && !s->rows && !s->shift && s->scale == 1 && s->rule == CDROP_LIVE_NONZERO;
}

/* Rows [l0, l1) of a source, as lists or dense, whichever `left` is; the number of live entries. */
size_t cdrop_list_rows(const cdrop_kernels *k, const cdrop_left *left, cdrop_lists *lists, const cdrop_panels *dense,
                       const cdrop_source *source, size_t l0, size_t l1);

/* Share of live entries in a few rows spread over all, found in the lists' memory: enough to choose the faster
 * product. */
double cdrop_sampled_density(const cdrop_kernels *k, const cdrop_source *source, cdrop_lists *lists, size_t rows);

/* What is done with gradient = columns x panels for units [u0, u1) of panel p. */
typedef struct {
    /* Before it is computed, or NULL. */
    void (*begin)(void *context, size_t p, size_t u0);
    /* Where it is computed, with the elements from unit to unit; NULL: in scratch, one padded line a unit. */
    void *(*place)(void *context, size_t p, size_t u0, size_t *pitch);
    /* When it is complete. */
    void (*take)(void *context, size_t p, size_t u0, size_t u1, void *gradient);
    void *context;
    const cdrop_panels *touches[3]; /* what `take` reads at the same place: the weights and their states, or NULL */
} cdrop_gradient_sink;

/* The gradient by weight, this thread's part, 64 units of a panel at a time. left->lists has each unit's live rows;
 * left->dense the rows of all units, as for the forward product; its background is the sink's to add. `scratch` has
 * room for CDROP_BLOCK lines of a panel. */
void cdrop_product_units(const cdrop_kernels *k, const cdrop_left *left, const cdrop_panels *delta, size_t units,
                         size_t rows, void *scratch, cdrop_team team, cdrop_claims *claims,
                         const cdrop_gradient_sink *sink);

/* dbias of panel p, once a panel: column sums over rows into `out`. */
void cdrop_bias_gradient(const cdrop_kernels *k, void *out, const cdrop_panels *delta, size_t p, size_t rows);

#endif
