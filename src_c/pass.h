/* What the files of a network share: its memory, and one pass through it, which training, prediction and sampling run
 * identically. The files are network.c (memory and state), forward.c, train.c, thinned.c, learned.c, kept.c, predict.c
 * and sample.c. */
#ifndef CDROP_PASS_H
#define CDROP_PASS_H

#include <stdatomic.h>

#include "losses.h"
#include "optimizers.h"
#include "pace.h"
#include "products.h"
#include "stopwatch.h"

/* Rows that a prediction works on at once, at least, where there are more: as many as share each read of a block of
 * weights (MANY_GROUPS of products.c). */
enum { CDROP_PREDICT_ROWS = 256 };

typedef struct {
    size_t n_in, n_out;
    cdrop_kind kind; /* of dropout on this layer's input */
    uint64_t keep;
    int varies; /* whether `keep` may change from step to step */
    double train_scale, test_scale;
    /* state: weights and their optimizer state, and padded rows for the biases */
    cdrop_panels weight, state1, state2;
    void *bias, *bias_state1, *bias_state2;
    double *squares;        /* sums of squares of 64 x 64 weights, for the L2 term */
    double *column_squares; /* by column, for max-norm; of hidden layers */
    /* the batch */
    uint64_t *mask;    /* of the input, where units of it are or may be dropped */
    uint64_t *members; /* the masks that its rows take in turn, with CDROP_MEMBERS */
    void *noise;       /* of the input, where it is or may be multiplied by noise: padded rows */
    double *slopes;    /* gradient by the logit of a learned rate, of each panel and row of the input */
    uint64_t *live;    /* of the input: which units were live */
    size_t words;      /* of its masks */
    atomic_size_t live_count;
    /* share of the input that was live in the last step, and in the last prediction, which drops nothing */
    double density, predicted_density;
    int dense;                   /* whether its products run without lists */
    cdrop_panels dense_inputs;   /* the input after dropout, and */
    cdrop_lists inputs, columns; /* its live entries by row and by unit: one of the two is filled */
    cdrop_panels out, delta;     /* activations or logits; gradient by the layer's pre-activation */
    cdrop_lists deltas;          /* the gradient's live entries by row */
} layer;

typedef struct {
    cdrop_lists inputs, columns; /* by row; by unit, or empty */
} kept_batch;

/* Depends on the rows and on what of the network is noted here, so that other networks can use it. */
struct cdrop_kept {
    cdrop_workspace memory;
    kept_batch *batch;
    size_t size; /* rows of each batch but the last */
    int by_unit;
    const cdrop_kernels *k;
    size_t n_in;
    void *background; /* what the entries are differences from */
};

/* Whether dropout on its input drops units, in contrast to noise, whose mean is 1. */
static inline int cdrop_drops(const layer *l)
{
    return l->kind == CDROP_BERNOULLI || l->kind == CDROP_SHARED || l->kind == CDROP_MEMBERS;
}

/* Which units a shared mask keeps. `before` counts those in the blocks before each block, and last all of them. */
typedef struct {
    uint64_t *kept;
    size_t *before;
} kept_units;

typedef struct {
    kept_units inputs, outputs;
} kept_part;

/* The part of a layer that a step trains, where rows share a mask of hidden units: see thinned.c. */
typedef struct {
    int whole; /* nothing of the layer is dropped */
    kept_part now, next;
    cdrop_panels gradient; /* by the kept weights, and */
    void *bias_gradient;   /* biases */
} thinned_part;

/* Copies of a step's rows, each under its own mask: see repeated.c. */
typedef struct {
    size_t rows;        /* copies of all rows, in the last step; 0 where it had no use for them */
    size_t samples;     /* of each row */
    size_t from;        /* the first layer that runs on them; those below run on the rows themselves */
    int64_t *of, *data; /* which row of the batch, and of the data, a copy is of */
    cdrop_panels delta; /* of each copy: gradient by the input of layer `from` */
    uint64_t *live;     /* of each row: which units were live in any copy */
    char *scratch;      /* for each thread: probabilities of two copies */
} row_copies;

struct cdrop_network {
    const cdrop_kernels *k;
    size_t layers;
    layer *layer;
    layer *thinned; /* the layers as a step with shared masks runs them; NULL if no hidden layer has such masks */
    thinned_part *parts;
    uint64_t thinned_step;  /* for which the thinned weights have been copied already, or 0 */
    uint64_t *thinned_keep; /* by whose masks */
    const layer *used;      /* the layers as the last step ran them */
    row_copies copies;
    cdrop_activation activation;
    cdrop_loss loss;
    double *loss_parameters; /* or NULL */
    uint64_t seed;
    size_t members; /* see cdrop_design */
    cdrop_workspace state, batch, training;
    size_t rows, training_rows; /* capacity */
    int threads;                /* capacity of the scratch */
    cdrop_pace pace;            /* of steps whose number of threads nobody has chosen */
    char *scratch;              /* for each thread: see cdrop_scratch_of */
    cdrop_claims *claims;       /* of a step's loops, `threads` for each; see cdrop_claims_of */
    double *row_loss;
    double *rate_gradients;   /* by the logit of each layer's learned rate: see learned.c */
    int limited;              /* whether the last step had a max_norm that squares can be compared with */
    int scale_in_training;    /* see cdrop_design */
    uint64_t **masks;         /* of each layer's input in this step, or NULL where nothing is dropped */
    void **noise;             /* likewise */
    cdrop_stopwatch *watches; /* for each thread, or NULL: nothing is measured */
    cdrop_workspace timing;
    /* The most common value of each feature. It is carried as one more row: products run on input minus background,
     * and the background's own products are added once for all rows. */
    int has_background;
    void *background;               /* padded row */
    cdrop_lists background_row;     /* its nonzero entries, as a row */
    cdrop_lists background_columns; /* and by unit */
};

/* What a pass works on. It is not part of the network because it changes from call to call, and because each thread
 * of a step walks the layers with its own copy. */
typedef struct {
    cdrop_network *n;
    layer *layer; /* those of the network, or the thinned ones */
    const cdrop_batch *batch;
    const kept_batch *kept;   /* its lists, or NULL if they must be made */
    const row_copies *copies; /* of its rows, or NULL */
    /* Dropout: NULL for none. Masks are drawn by their key, or given: then row `step` of them is every row's. */
    uint64_t *const *masks;
    void *const *noise; /* NULL if no layer has any */
    int given;
    uint64_t seed, step;
    cdrop_purpose purpose;
    size_t first_row; /* of the batch, in the call */
    size_t relisted;  /* sampling: the layer whose input is listed pass by pass; 0 elsewhere */
    size_t index;     /* the layer being worked on */
    int training;
    cdrop_epilogue finish_outputs; /* what follows the last layer's product; NULL for nothing */
    cdrop_loss_rows loss;
    double consistency;
    char *two_rows; /* this thread's room for two rows of outputs, where there is consistency */
    double *total;
    cdrop_status *status;
    cdrop_stopwatch *watch; /* this thread's, or NULL */
    double begin;           /* when the call began; only where there are watches */
    cdrop_update weight_update, bias_update;
    double max_norm; /* 0 for none */
    size_t summed;   /* panels of the layer whose column sums this thread has seen: the last one's are in `sums` */
    char sums[CDROP_MOST_PANEL];
    void *out; /* predictions */
    cdrop_answer answer;
    cdrop_panels as_it_stands; /* the batch's rows, where predictions multiply them without a copy; else no data */
} pass;

/* Whether the first layer's products run on differences from the background. Not for sparse rows: their difference
 * from it would have no zeros. */
static inline int cdrop_shifted(const pass *s) { return s->n->has_background && !s->batch->indptr; }

/* Rows that the products of layer i run on; those of the outputs. */
static inline size_t cdrop_rows_of(const pass *s, size_t i)
{
    return s->copies && i >= s->copies->from ? s->copies->rows : s->batch->n;
}
static inline size_t cdrop_output_rows(const pass *s) { return cdrop_rows_of(s, s->n->layers); }

/* The loops of a step that its team divides as it goes: the products of each layer. */
typedef enum { CDROP_LOOP_FORWARD, CDROP_LOOP_GRADIENT, CDROP_LOOP_UPDATE, CDROP_LOOPS } cdrop_step_loop;

/* Predictions have none: their parts are fixed. */
static inline cdrop_claims *cdrop_claims_of(const pass *s, cdrop_step_loop loop, size_t layer)
{
    return s->training ? s->n->claims + (layer * CDROP_LOOPS + loop) * (size_t)s->n->threads : NULL;
}

/* The barrier after the work that `part` names; see cdrop_time. */
static inline void cdrop_meet(const pass *s, cdrop_team team, cdrop_time part, size_t layer)
{
    cdrop_barrier(team);
    cdrop_lap(s->watch, part, layer);
}

/* Room of a thread, in elements: a block of gradient lines of a panel, and one of packed lines. */
static inline size_t cdrop_scratch_size(const cdrop_kernels *k) { return 2 * CDROP_BLOCK * k->panel + CDROP_SPARE; }

static inline char *cdrop_scratch_of(const cdrop_network *n, cdrop_team team)
{
    return n->scratch + (size_t)team.index * cdrop_scratch_size(n->k) * n->k->size;
}

/* ---- network.c ---- */

/* Blocks of 64 x 64 weights, whose squares are noted one by one. */
static inline size_t cdrop_square_blocks(const layer *l) { return cdrop_blocks(l->n_in) * cdrop_blocks(l->n_out); }

static inline double cdrop_sum_of_squares(const layer *l)
{
    double sum = 0;
    for (size_t b = 0; b < cdrop_square_blocks(l); b++)
        sum += l->squares[b];
    return sum;
}

/* To be called after every change of a block of weights. */
void cdrop_note_squares(const cdrop_kernels *k, const layer *l, size_t line_block, size_t column_block);

/* Around a job that is measured: when it begins, for the pass; in it, on each thread; and after it. */
double cdrop_begin_watches(const cdrop_network *n);
void cdrop_take_watch(pass *s, cdrop_team team);
void cdrop_end_watches(const pass *s);

/* Memory for steps on up to `rows` rows with up to `samples` masks each and by up to `threads` threads. */
cdrop_status cdrop_reserve_training(cdrop_network *n, size_t rows, size_t samples, int threads);

/* Elements from row to row of the noise of a layer with `units` inputs: not a multiple of 4 kB. */
static inline size_t cdrop_noise_pitch(size_t units) { return cdrop_pad(units) + CDROP_LANES; }

/* ---- thinned.c ---- */

/* Memory for thinned steps, in the workspace of training. */
void cdrop_take_thinned(cdrop_network *n);

/* The layers that this step runs on: the network's, or where hidden units share masks, which it draws, thinned ones. */
layer *cdrop_choose_layers(cdrop_network *n, uint64_t step);

/* The weights of the thinned layers, by all threads together; nothing to do where the step before has copied them. */
void cdrop_thin(const pass *s, cdrop_team team);

/* Whether the gradients of layer i are to be noted, not used for an update. */
static inline int cdrop_is_thinned(const pass *s, size_t i) { return s->layer != s->n->layer && !s->n->parts[i].whole; }

/* A sink of cdrop_product_units that keeps the gradient of layer s->index; and that of its biases. */
void *cdrop_gradient_place(void *context, size_t p, size_t u0, size_t *pitch);
void cdrop_note_gradient(void *context, size_t p, size_t u0, size_t u1, void *gradient);
void cdrop_note_bias_gradient(const pass *s, size_t p);

/* The update of the whole layer i from gradients that all threads have noted, this thread's part. */
void cdrop_update_thinned(pass *s, size_t i, cdrop_team team);

/* To be called after a step: whether the next one may use what this one has copied. A step that was refused is made
 * again under its number, which differs from the one noted here. */
void cdrop_end_thinned(const pass *s);

/* ---- learned.c ---- */

/* The factor of the L2 term of a layer's weights. */
static inline double cdrop_l2_of(const pass *s, const layer *l)
{
    const double l2 = s->weight_update.l2;
    return l->kind == CDROP_CONCRETE ? l2 * (double)CDROP_KEEP_ALL / (double)l->keep : l2;
}

/* What a step adds to the gradients by learned rates: first what depends on the weights alone, before they change;
 * then while the gradient by the noisy input of layer s->index is in the cache, that of lines [l0, l1) of panel p; and
 * after a step that has updated the weights, the update of the rates. */
void cdrop_begin_learning(const pass *s, double entropy);
void cdrop_note_slopes(const pass *s, size_t p, size_t l0, size_t l1);
void cdrop_learn_rates(const pass *s, cdrop_learned_rate *learned);

/* ---- repeated.c ---- */

/* Memory for the copies of up to n->rows rows in all, in the workspace of training. */
void cdrop_take_copies(cdrop_network *n, int threads);

/* The copies of a step, whose masks have been chosen; NULL where each row has one mask, or nothing is dropped. */
const row_copies *cdrop_repeat_rows(cdrop_network *n, const cdrop_batch *batch);

/* Whether layer i's input are copies of the rows below, so that the gradient by it must be added up. */
static inline int cdrop_is_copied(const pass *s, size_t i) { return i && s->copies && i == s->copies->from; }

/* Where that gradient goes, copy by copy; what follows it, block by block; and when all threads have got there, the
 * sums: the gradient by the pre-activations of the layer below, this thread's part. */
cdrop_panels cdrop_copied_delta(const pass *s);
void cdrop_gate_copies(void *context, size_t p, size_t l0, size_t l1);
void cdrop_sum_copies(const pass *s, cdrop_team team);

/* Adds the divergence of the two copies of each row to the losses and gradients of copies [from, to). */
void cdrop_take_two_rows(pass *s, cdrop_team team);
void cdrop_add_divergences(const pass *s, size_t from, size_t to);

/* ---- train.c ---- */

/* How the gradient by the input of layer s->index is gated, from line l0 of panel p on. */
cdrop_gate cdrop_gate_of(const pass *s, size_t p, size_t l0);

/* Lists by row of the gradient by the pre-activations below layer s->index, of lines [l0, l1) in panel p: the entries
 * with a bit in `live`, which has whole rows, where products of the layer below run on lists. */
void cdrop_list_delta(const pass *s, size_t p, size_t l0, size_t l1, const uint64_t *live);

/* The update of units [u0, u1) in panel p of the whole layer s->index, and of its biases in that panel by their
 * gradient. */
void cdrop_update_units(void *context, size_t p, size_t u0, size_t u1, void *gradient);
void cdrop_update_bias(const pass *s, size_t p, const void *gradient);

/* ---- kept.c ---- */

/* The kept lists of a batch, or NULL. */
const kept_batch *cdrop_kept_lists(const cdrop_network *n, const cdrop_batch *batch, int by_unit);

/* ---- forward.c ---- */

/* Threads for a batch of that many rows. Results do not depend on it. */
int cdrop_threads_for(const cdrop_network *n, size_t rows, int asked);

/* The most that a step may get: see pace.h. */
int cdrop_most_threads(const cdrop_network *n, size_t rows, int asked);

/* Memory for a forward pass over up to `rows` rows. */
cdrop_status cdrop_reserve_forward(cdrop_network *n, size_t rows);

/* Lists or dense, layer by layer, from what the last step counted, or for a prediction the last prediction. It changes
 * no bit of the result. Inputs that are kept or sparse are always listed. */
void cdrop_choose_products(const pass *s);

/* To be called after a pass: what it counted. Kept lists are not counted again. */
void cdrop_measure_density(const pass *s);

/* The input of layer i where its products run without lists: a copy, or what needs none. */
const cdrop_panels *cdrop_dense_input(const pass *s, size_t i);

/* The masks of the first `count` members. */
void cdrop_draw_members(uint64_t *masks, size_t count, const cdrop_network *n, size_t i);

/* How the rows of the batch are listed. */
cdrop_source cdrop_batch_source(const pass *s);

/* This thread's rows, where blocks of them stay whole: a block's masks come from one stream. */
void cdrop_share_blocks(const pass *s, cdrop_team team, size_t *from, size_t *to);

/* Lists of the input: of rows [from, to), and this thread's part of those by unit. */
void cdrop_list_input(const pass *s, size_t from, size_t to);
void cdrop_scatter_input(const pass *s, cdrop_team team);

/* From the input to the last layer's outputs; returns when every thread of the team has reached the end. */
void cdrop_forward(pass *s, cdrop_team team);

/* The same in two parts. First up to the activations that are the input of layer `relisted`; then from there on, for
 * rows [from, to) on this thread alone, from a multiple of 64: again and again, under other masks. */
void cdrop_forward_below(pass *s, cdrop_team team);
void cdrop_forward_above(pass *s, size_t from, size_t to);

/* ---- predict.c ---- */

/* Rows [first, first + n) of a batch's inputs. */
cdrop_batch cdrop_part_of(const cdrop_network *net, const cdrop_batch *batch, size_t first, size_t n);

#endif
