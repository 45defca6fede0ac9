/* The dispatch table: what a SIMD path offers, and the shapes its kernels work on.
 *
 * Three ideas carry every product of the library.
 *
 * Lists. A *line* (a row of a batch, or one unit seen over the rows of a batch) is cut into blocks of CDROP_BLOCK
 * entries; for each block the live entries (kept by dropout, not zeroed by the ReLU) are listed as values and as
 * bits of a word. Nothing else of the line is ever touched again.
 *
 * Panels. The matrix that the lists select rows of is cut into panels of `panel` columns, each stored line after line,
 * so that one block of one panel stays in L1 while all lists run over it.
 *
 * Chains. Every output element is one chain of fused multiply-adds, in ascending order of the summed index, from a
 * start value. Vector lanes are outputs. So neither the vector width, nor the panel width, nor the thread that computes
 * it, nor whether zeros are skipped, can change a bit of a result.
 *
 * Kernels run on one thread, allocate nothing, and touch only what their arguments say. `void *` arguments point to the
 * table's element type. */
#ifndef CDROP_KERNELS_H
#define CDROP_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "cdrop.h"

enum {
    CDROP_BLOCK = 64, /* entries of a list block, rows of a generator block: one mask word */
    CDROP_LANES = 16, /* columns are padded to this; reductions use this many partial sums on every path */
    /* Elements of room behind packed entries, which are read and stored in whole vectors: the last one may end up to 15
     * elements behind the last entry. */
    CDROP_SPARE = 16,
    CDROP_MOST_PANEL = 1024, /* bytes of a line of a panel, at most */
    /* Elements from one list to the next where lists have fixed slots. A list has 64 at most. The sets of a cache are
     * a power of two: with 16 more, slots of floats are 5 cache lines apart and begin in all of the sets, those of
     * doubles 10 and in half of them. With 64 it would be a quarter and an eighth. */
    CDROP_SLOT = 64 + 16,
};

/* Lists of live entries. Bit j of live[block * lines + line] says that entry j of the block is in the list of (block,
 * line); its values stand from start[block * lines + line] on, in the order of the bits. (A kernel finds the next set
 * bit faster than it reads an index.) Rows of the user's input are packed (a line's blocks follow each other); lists
 * that several threads fill at once have fixed slots. */
typedef struct {
    void *values; /* element type, the entry times its dropout scale */
    uint64_t *live;
    size_t *start;
    size_t lines;
    size_t blocks;
    int packed;
} cdrop_lists;

/* A matrix in panels: element (line, column) of panel p is data[p * step + line * pitch(p) + column], where the last
 * panel may have a different pitch. A row-major matrix is the case step = panel width, tail_pitch = pitch. */
typedef struct {
    void *data;
    size_t panels;
    size_t step;
    size_t pitch;
    size_t tail_pitch;
    size_t tail_width; /* columns of the last panel, padded to CDROP_LANES */
} cdrop_panels;

/* Memory that the call after this one touches: fetched into the cache meanwhile, a little with each line. */
typedef struct {
    const void *from[3]; /* or NULL */
    size_t bytes;        /* from each */
} cdrop_ahead;

/* Which entries a list takes, of those that the mask keeps. NaN is always live: it must never vanish as a dead unit. */
typedef enum {
    CDROP_LIVE_KEPT,     /* all */
    CDROP_LIVE_NONZERO,  /* all but zeros */
    CDROP_LIVE_POSITIVE, /* ReLU: not (value <= 0) */
} cdrop_live_rule;

/* The source of `compress`: rows of 64-unit blocks with one mask bit for each unit. */
typedef struct {
    const void *data;
    size_t pitch;            /* elements from row to row */
    const int64_t *rows;     /* which row of data is line i, or NULL for i */
    const int64_t *indptr;   /* of sparse rows, as in cdrop_batch; only for compress_sparse, */
    const uint32_t *indices; /* which has use for neither pitch, first_block, shift, rule nor live */
    size_t columns;          /* units of a whole row */
    size_t first_block;      /* data starts at this block of the row */
    const uint64_t *mask;    /* [line][words] of whole rows, or NULL to keep all */
    size_t words;            /* mask words of a whole row */
    const void *shift;       /* whole row that is subtracted from each row first, or NULL */
    double scale;            /* what a kept value is multiplied by, or */
    const void *noise;       /* [line][noise_pitch] of whole rows: a factor for each entry, or NULL */
    size_t noise_pitch;
    cdrop_live_rule rule;
    uint64_t *live; /* [line][words] of whole rows: which entries were listed, or NULL */
} cdrop_source;

/* How a gradient by a layer's inputs is gated. All rows begin at the line and column that the kernel is called for. */
typedef struct {
    const uint64_t *live; /* [line][words]: which entries pass a gradient on */
    size_t words;
    double scale;      /* what it is multiplied by, or */
    const void *noise; /* [line][noise_pitch]: a factor for each entry, or NULL */
    size_t noise_pitch;
} cdrop_gate;

/* An update rule with everything that is constant over a step already folded in (see optimizers.c). */
typedef struct {
    cdrop_rule rule;
    double rate;    /* learning rate; for Adam divided by its first bias correction */
    double l2;      /* coupled: added to the gradient as l2 * weight */
    double decay;   /* decoupled: weights are first multiplied by 1 - decay */
    double a, b;    /* momentum, rho, or beta1 and beta2 */
    double epsilon; /* added to the square root */
    double second;  /* Adam: 1 / (second bias correction) */
} cdrop_update;

/* Lines of weights in one panel, and of the gradient that they are updated by. */
typedef struct {
    void *weight, *state1, *state2; /* line 0; a state may be NULL where the rule has none */
    const void *gradient;
    /* Of all four, without gaps from line to line: `columns`, padded to CDROP_LANES. */
    size_t width, columns, lines;
    /* What the gradient lacks, or NULL: of each line the only entry of a list times `sums`, or nothing where the list is
     * empty. Line 0 has the list `first`, in block 0. */
    const cdrop_lists *background;
    size_t first;
    const void *sums;
} cdrop_weight_lines;

typedef struct {
    const char *name;
    size_t size;        /* bytes of an element */
    size_t panel;       /* columns of a panel: a multiple of CDROP_BLOCK */
    double dense_above; /* share of live entries from which on the dense product is the faster one */
    double listing;     /* columns of dense products that take as long as making an entry's lists, by row and by unit */

    /* out[line - l0][0..width) = start[0..width) + sum over blocks b0..b1 of values * panel lines, for lines l0..l1.
     * The panel begins at the lines of block b0. With `resume` the chains continue from out instead of start; start
     * may be NULL for zeros, and ahead for nothing. */
    void (*product)(void *out, size_t out_pitch, const void *start, const void *panel, size_t pitch, size_t width,
                    const cdrop_lists *lists, size_t b0, size_t b1, size_t l0, size_t l1, int resume,
                    const cdrop_ahead *ahead);
    /* The same sum over one block of at most CDROP_BLOCK entries, where the left side is dense: entry j of line i is
     * x[i * line_step + j * index_step], and entry j selects line j of w. Bits are those of the lists. */
    void (*product_dense)(void *out, size_t out_pitch, const void *start, const void *w, size_t pitch, size_t width,
                          const void *x, size_t line_step, size_t index_step, size_t count, size_t lines, int resume);
    /* Lists blocks b0..b1 of lines l0..l1 of the source; returns the number of live entries. */
    size_t (*compress)(cdrop_lists *lists, const cdrop_source *source, size_t b0, size_t b1, size_t l0, size_t l1);
    /* Lists the nonzero entries of lines l0..l1 of a sparse source, all blocks; returns their number. An empty list
     * keeps the start it had. */
    size_t (*compress_sparse)(cdrop_lists *lists, const cdrop_source *source, size_t l0, size_t l1);
    /* The same entries in a dense array, zeros where not live; out begins at (l0, b0). Its lines have room for columns
     * padded to CDROP_LANES. How many of the padding are set to zero depends on the path: nothing may read them. */
    size_t (*densify)(void *out, size_t pitch, const cdrop_source *source, size_t b0, size_t b1, size_t l0, size_t l1);
    /* Lists the same entries by column: block `rows` (64 lines) of `lists` becomes block `rows` of lines
     * 64 b0 .. 64 b1 of `out`. */
    void (*scatter)(cdrop_lists *out, const cdrop_lists *lists, size_t b0, size_t b1, size_t rows, size_t l1);
    /* Of up to CDROP_BLOCK lines those with a bit in `lines`, and of their columns those with a bit in `kept`, packed
     * into the first lines and columns of out. Reads and writes whole vectors: out needs CDROP_SPARE more elements. */
    void (*pack_kept)(void *out, size_t out_pitch, const void *in, size_t pitch, uint64_t lines, const uint64_t *kept,
                      size_t words);
    /* The inverse for `count` lines and `columns` columns, a multiple of CDROP_LANES: zeros where there is no bit.
     * Reads whole vectors: in needs CDROP_SPARE more elements. */
    void (*unpack_kept)(void *out, size_t pitch, size_t columns, size_t count, const void *in, size_t in_pitch,
                        uint64_t lines, const uint64_t *kept);
    void (*copy_columns)(void *out, size_t out_pitch, const void *in, size_t in_pitch, size_t columns, size_t lines);
    /* a = activation(a), in place, `columns` of each of `lines`. */
    void (*activate)(void *a, size_t pitch, size_t columns, size_t lines, cdrop_activation activation);
    /* delta = live ? delta * factor * activation'(a) : 0, in place; a NULL stands for the identity. */
    void (*gate)(void *delta, size_t pitch, const void *a, size_t a_pitch, size_t columns, size_t lines,
                 const cdrop_gate *gate, cdrop_activation activation);
    /* out[line] = sum over the live columns of delta * a * noise * (1 - keep - 10 (1 - keep * noise)), through
     * CDROP_LANES fixed partial sums: with the gradient delta by the inputs that concrete noise has multiplied, that
     * by logit(1 - keep). */
    void (*rate_slopes)(double *out, const void *delta, size_t pitch, const void *a, size_t a_pitch, size_t columns,
                        size_t lines, const cdrop_gate *gate, double keep);
    /* out[column] = sum over lines, each column one ascending chain. width is a multiple of CDROP_LANES. */
    void (*column_sums)(void *out, const void *in, size_t pitch, size_t width, size_t lines);
    /* Sum of squares of a block of at most 64 columns through CDROP_LANES fixed partial sums. */
    double (*sum_squares)(const void *in, size_t pitch, size_t columns, size_t lines);
    /* out[column] = sum over lines of squares, in double, each column one ascending chain. in and out do not
     * overlap. */
    void (*column_squares)(double *out, const void *in, size_t pitch, size_t width, size_t lines);
    /* factors[column] = limit / norm where a column's norm is above the limit, else 1, for at most CDROP_BLOCK columns;
     * returns how many are above. A norm^2 is the sum of `blocks` lines of `squares`, ascending. One that is NaN or
     * infinite counts as not above, so that a diverged weight stays what it is and the next loss shows it. */
    size_t (*limit_factors)(void *factors, const double *squares, size_t pitch, size_t columns, size_t blocks,
                            double limit);
    /* in[line][column] *= factors[column], in place. width is a multiple of CDROP_LANES. */
    void (*scale_columns)(void *in, size_t pitch, const void *factors, size_t width, size_t lines);
    /* The fused update rule on n elements. state1 and state2 may be NULL where the rule has none. */
    void (*update)(void *weight, const void *gradient, void *state1, void *state2, size_t n, const cdrop_update *rule);
    /* The same for lines. And squares[b] = sum_squares of columns 64 b .. 64 (b + 1) of the new weights. */
    void (*update_lines)(const cdrop_weight_lines *lines, double *squares, const cdrop_update *rule);
    /* out[c][r] = in[r][c] for 64 x 64 blocks or less; both are padded to CDROP_LANES. */
    void (*transpose)(void *out, size_t out_pitch, const void *in, size_t in_pitch, size_t lines, size_t columns);
    /* Losses of one row: the gradient of factor * loss, and the loss itself. dlogits may alias logits. */
    double (*softmax_row)(void *dlogits, const void *logits, size_t n, int64_t label, double factor);
    /* The same of several rows with 1 <= n <= CDROP_LANES; d_pitch and pitch are in elements. */
    void (*softmax_rows)(void *dlogits, size_t d_pitch, const void *logits, size_t pitch, size_t n, size_t rows,
                         const int64_t *labels, const double *factors, double *losses);
    /* With label smoothing; from targets, or where they are NULL from the label. */
    double (*softmax_to_row)(void *dlogits, const void *logits, const void *targets, size_t n, int64_t label,
                             double factor, double smoothing);
    /* Of up to CDROP_LANES rows, each with its targets; d_pitch and pitch are in elements. */
    void (*sigmoid_rows)(void *dlogits, size_t d_pitch, const void *logits, size_t pitch, const void *const *targets,
                         size_t n, size_t rows, const double *factors, double smoothing, double *losses);
    double (*squared_row)(void *doutputs, const void *outputs, const void *targets, size_t n, double factor);
    double (*huber_row)(void *doutputs, const void *outputs, const void *targets, size_t n, double factor,
                        double delta);
    double (*poisson_row)(void *doutputs, const void *outputs, const void *targets, size_t n, double factor);
    /* The target of output i is targets[i * step]; without quantiles the loss is the absolute error. */
    double (*pinball_row)(void *doutputs, const void *outputs, const void *targets, size_t step, size_t n,
                          double factor, const double *quantiles);
    /* (KL(p | q) + KL(q | p)) / 2 of the probabilities p and q of two rows with the logits a and b; `factor` times its
     * gradients are added to da and db. `apart`: each output is a distribution, with the sigmoid, and the result their
     * sum. */
    double (*divergence)(void *da, void *db, const void *a, const void *b, const void *p, const void *q, size_t n,
                         double factor, int apart);
    /* Probabilities of one row; may be in place. */
    void (*softmax)(void *out, const void *logits, size_t n);
    /* x[i] = exp(x[i]). */
    void (*exponential)(void *x, size_t n);
    /* The first largest of n >= 1 numbers; the first NaN if there is one. */
    size_t (*largest)(const void *row, size_t n);
    /* out[i] = row[i] > 0. */
    void (*positive)(int64_t *out, const void *row, size_t n);
    /* Noise of the first rows of one generator block, `pitch` apart: 1 + spread z with z standard normal, or uniform in
     * (-1, 1); or concrete noise, whose odds (1 - keep) / keep are `spread`. Rows are drawn, and written, up to the
     * next multiple of CDROP_LANES units. */
    void (*noise_block)(void *out, size_t pitch, size_t units, size_t rows, cdrop_kind kind, double spread,
                        const uint64_t state[32]);
} cdrop_kernels;

typedef struct {
    const char *name;
    const cdrop_kernels *f32, *f64;
    /* The first n words of the mask of one generator block, whose rows have `words` words each, the last of them with
     * the bits of `valid`. keep is neither 0 nor 2^32. */
    void (*mask_block)(uint64_t *out, size_t n, size_t words, uint64_t valid, uint64_t keep, const uint64_t state[32]);
} cdrop_path;

extern const cdrop_path cdrop_path_scalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const cdrop_path cdrop_path_scalar_fma; /* the same text where the CPU has a fused multiply-add */
extern const cdrop_path cdrop_path_avx2;
extern const cdrop_path cdrop_path_avx512;
#elif defined(__aarch64__)
extern const cdrop_path cdrop_path_neon;
#endif

/* Whether a loss is one of numbers, not of classes. */
static inline int cdrop_of_numbers(cdrop_loss loss) { return loss >= CDROP_SQUARED_ERROR; }

static inline size_t cdrop_blocks(size_t n) { return (n + CDROP_BLOCK - 1) / CDROP_BLOCK; }
static inline size_t cdrop_pad(size_t n) { return (n + CDROP_LANES - 1) / CDROP_LANES * CDROP_LANES; }
static inline size_t cdrop_min(size_t a, size_t b) { return a < b ? a : b; }

/* How many of n entries stand in block b. */
static inline size_t cdrop_in_block(size_t n, size_t b) { return cdrop_min(CDROP_BLOCK, n - b * CDROP_BLOCK); }

/* The bits of block b that are units of a row of n. */
static inline uint64_t cdrop_valid_bits(size_t n, size_t b)
{
    const size_t rest = n - b * CDROP_BLOCK;
    return rest >= CDROP_BLOCK ? ~UINT64_C(0) : (UINT64_C(1) << rest) - 1;
}

/* Entries of a list. */
static inline size_t cdrop_listed(const cdrop_lists *l, size_t list)
{
    return (size_t)__builtin_popcountll(l->live[list]);
}

static inline size_t cdrop_panel_pitch(const cdrop_panels *m, size_t p)
{
    return p + 1 < m->panels ? m->pitch : m->tail_pitch;
}

static inline size_t cdrop_panel_width(const cdrop_panels *m, size_t p, size_t panel)
{
    return p + 1 < m->panels ? panel : m->tail_width;
}

#endif
