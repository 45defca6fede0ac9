/* cdrop: dropout training on CPUs. The whole C API on one page.
 *
 * Conventions, unless a function says otherwise:
 * - Matrices are dense and row-major; `float` or `double` by the `dtype` argument, behind `void *`.
 * - Masks are packed: bit j of 64-bit word w of a row is unit 64 w + j, 1 = kept, padding bits 0; a row of n units has
 *   cdrop_words(n) words.
 * - `keep` is the probability of KEEPING a unit, in units of 2^-32 (0 to 2^32). Python speaks of `dropout`, the
 *   probability of dropping: this is the only place where the two meet.
 * - Outputs come first, are overwritten, and must not alias inputs.
 * - Functions may be called from several threads at once on different objects. Nothing prints, exits or keeps mutable
 *   state beyond the chosen SIMD path and the thread pool.
 * - Results do not depend on the SIMD path, the number of threads, or how a call is cut into smaller ones: every output
 *   element is one chain of fused multiply-adds in ascending order, and reductions go through fixed partial sums. */
#ifndef CDROP_H
#define CDROP_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

typedef enum {
    CDROP_OK = 0,
    CDROP_NO_MEMORY,
    CDROP_UNSUPPORTED, /* this CPU has no such SIMD path */
    CDROP_NOT_FINITE,  /* the loss is NaN or infinite: nothing was updated */
    CDROP_DIVERGED,    /* the update has left a weight or bias that is NaN or infinite, or too large for max_norm */
} cdrop_status;

typedef enum { CDROP_FLOAT32, CDROP_FLOAT64 } cdrop_dtype;

typedef enum { CDROP_IDENTITY, CDROP_RELU, CDROP_LEAKY_RELU, CDROP_TANH, CDROP_SIGMOID } cdrop_activation;

/* See cdrop_loss_and_gradient. Those from CDROP_SQUARED_ERROR on are losses of numbers. */
typedef enum {
    CDROP_SOFTMAX_CROSS_ENTROPY,
    CDROP_SIGMOID_CROSS_ENTROPY,
    CDROP_SQUARED_ERROR,
    CDROP_ABSOLUTE_ERROR,
    CDROP_HUBER,
    CDROP_POISSON,
    CDROP_QUANTILE,
} cdrop_loss;

/* Adam with decoupled weight decay is AdamW (Loshchilov and Hutter 2019). */
typedef enum { CDROP_SGD, CDROP_MOMENTUM, CDROP_NESTEROV, CDROP_ADAGRAD, CDROP_RMSPROP, CDROP_ADAM } cdrop_rule;

/* What dropout does to a layer's input. All kinds multiply it by noise of mean 1 and variance (1 - keep) / keep,
 * CDROP_CONCRETE nearly:
 *
 *   CDROP_BERNOULLI  each entry is kept with probability keep and scaled, or dropped (Srivastava et al. 2014)
 *   CDROP_GAUSSIAN   each entry is multiplied by normal noise (the same paper, section 10)
 *   CDROP_UNIFORM    by uniform noise (continuous dropout: Shen et al. 2018)
 *   CDROP_SHARED     as CDROP_BERNOULLI, but all rows of a step share one mask, so that products run on the kept units
 *                    alone, densely
 *   CDROP_CONCRETE   for hidden layers: by (1 - z) / keep, where z is a smooth step from 0 to 1, so that keep can be
 *                    learned by its gradient (Gal, Hron and Kendall 2017); see cdrop_optimizer
 *   CDROP_MEMBERS    as CDROP_BERNOULLI, but there are only `members` masks, the same in all steps, which rows take in
 *                    turn: an ensemble that shares weights (Masksembles: Durasov et al. 2021) */
typedef enum {
    CDROP_BERNOULLI,
    CDROP_GAUSSIAN,
    CDROP_UNIFORM,
    CDROP_SHARED,
    CDROP_CONCRETE,
    CDROP_MEMBERS,
} cdrop_kind;

/* What a generator stream is for: streams of different purposes never meet. Any other number is free, too. */
typedef enum {
    CDROP_FOR_MASKS, /* of training */
    CDROP_FOR_WEIGHTS,
    CDROP_FOR_ORDER,
    CDROP_FOR_USER,
    CDROP_FOR_SAMPLES,     /* masks of predictions under dropout: step is the pass, from 0 */
    CDROP_FOR_SUBNETWORKS, /* masks of subnetworks: row is the subnetwork, step 0 */
} cdrop_purpose;

#define CDROP_LEAK 0.01 /* slope of the leaky ReLU below 0 */
#define CDROP_KEEP_ALL (UINT64_C(1) << 32)
#define CDROP_INFINITY INFINITY
#define CDROP_MAX_THREADS 256

static inline size_t cdrop_words(size_t units) { return (units + 63) / 64; }

/* ---- SIMD path and threads ---- */

/* Chooses the path named ("scalar", "avx2", "avx512", "neon"), or with NULL the best one. CDROP_UNSUPPORTED, and no
 * change, where this CPU, this operating system or this build has no such path. Call it before any other thread uses
 * the library. */
cdrop_status cdrop_select_simd(const char *name);
const char *cdrop_simd_active(void);
const char *cdrop_simd_built(int i);  /* NULL past the last */
const char *cdrop_simd_usable(int i); /* NULL past the last; the best one last */

/* The name of parameter i of the path in use, with its value; NULL past the last. */
const char *cdrop_simd_parameter(cdrop_dtype dtype, int i, double *value);

/* Threads of calls that ask for 0, at least 1. */
CDROP_EXPORT int cdrop_get_num_threads(void);
CDROP_EXPORT void cdrop_set_num_threads(int threads);
/* How many CPUs this process may use: a team larger than that never spins. */
void cdrop_set_cpus(int cpus);

/* ---- Generator (bernoulli.c, noise.c) ---- */

/* Eight xoshiro256++ generators (Blackman and Vigna 2018), the lanes of one stream. Their state is a bijection of the
 * key (seed, step, purpose and layer, 8 block + lane) by SplitMix64's finalizer (Steele, Lea and Flood 2014), so
 * different keys never share a state. state[8 i + lane] is word i of a lane. */
void cdrop_stream_state(uint64_t state[32], uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer,
                        uint64_t block);

/* The first n words of a stream, draw by draw, lanes in order. */
void cdrop_random_words(uint64_t *out, size_t n, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer,
                        uint64_t block);

/* n standard normal numbers from a stream: Marsaglia and Bray's polar method (1964) with our own logarithm. */
void cdrop_random_normal(double *out, size_t n, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer,
                         uint64_t block);

/* Mask of rows [first_row, first_row + rows) of a call, first_row a multiple of 64. mask: rows x cdrop_words(units).
 * The bits are a function of (seed, step, purpose, layer, row, unit, units, keep) and nothing else. */
void cdrop_bernoulli_mask(uint64_t *mask, size_t first_row, size_t rows, size_t units, uint64_t keep, uint64_t seed,
                          uint64_t step, uint32_t purpose, uint32_t layer);

/* Noise for rows [first_row, first_row + rows) of a call, first_row a multiple of 64, keep not 0: normal, uniform or
 * concrete. With u uniform in (0, 1), the last is (1 - z) / keep, z = sigmoid((logit(1 - keep) + logit(u)) / 0.1).
 * noise: rows of `pitch` numbers each, a multiple of 16 and at least units; the padding is written, too. A function of
 * (seed, step, purpose, layer, row, unit, units, kind, keep) and nothing else. */
void cdrop_noise(cdrop_dtype dtype, void *noise, size_t pitch, size_t first_row, size_t rows, size_t units,
                 cdrop_kind kind, uint64_t keep, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer);

/* ---- Masked products (masked_gemm.c, masked_grad.c, products.c) ---- */

/* out (rows x n_out) = activation((x * mask * scale) w + bias).
 * x: rows x n_in; w: n_in x n_out; bias: n_out or NULL; mask: rows x cdrop_words(n_in) or NULL for all.
 * Dropped and zero entries of x cost no arithmetic. */
cdrop_status cdrop_masked_gemm(cdrop_dtype dtype, void *out, const void *x, const void *w, const void *bias,
                               const uint64_t *mask, size_t rows, size_t n_in, size_t n_out, double scale,
                               cdrop_activation activation, int threads);

/* Gradients of the above. dout: rows x n_out, by the output before its activation. x is what `activation` gave,
 * unmasked; with the ReLU never below 0.
 *
 *   dinput  (rows x n_in)  = (dout w^T) * mask * scale * activation'(x), by the input of that activation
 *   dweight (n_in x n_out) = (x * mask * scale)^T dout
 *   dbias   (n_out)        = column sums of dout
 *
 * Any of the three may be NULL. Dropped entries, and with the ReLU dead ones, cost no arithmetic in dweight. */
cdrop_status cdrop_masked_gradients(cdrop_dtype dtype, void *dinput, void *dweight, void *dbias, const void *dout,
                                    const void *x, const void *w, const uint64_t *mask, size_t rows, size_t n_in,
                                    size_t n_out, double scale, cdrop_activation activation, int threads);

/* ---- Losses (losses.c) ---- */

/* What the losses of a batch are measured by: rows `rows[0..n)` of the arrays, or their first n rows where rows is
 * NULL. Softmax takes labels, or without them targets: probabilities of the classes. The others take targets. A row of
 * targets has one number for each output; with CDROP_QUANTILE and `one_target` a single one, for all outputs. weights
 * may be NULL for 1; the sum of the batch's must be positive. */
typedef struct {
    const int64_t *labels;
    const void *targets;
    int one_target;
    const double *weights;
} cdrop_truth;

/* The weighted mean over rows of the loss of each row, and its gradient by the outputs (rows x n). A row's loss is a
 * sum over its outputs z, with targets t:
 *
 *                                 the loss of z                          parameters
 *   CDROP_SOFTMAX_CROSS_ENTROPY   -t log softmax(z)                      [s], or NULL for 0
 *   CDROP_SIGMOID_CROSS_ENTROPY   -t log s(z) - (1 - t) log(1 - s(z))    [s], or NULL for 0
 *   CDROP_SQUARED_ERROR           (z - t)^2 / 2                          none
 *   CDROP_ABSOLUTE_ERROR          |z - t|                                none
 *   CDROP_HUBER                   (z - t)^2 / 2 where |z - t| <= d,      [d], above 0
 *                                 else d (|z - t| - d / 2)
 *   CDROP_POISSON                 exp(z) - t z + t log t - t, t >= 0     none
 *   CDROP_QUANTILE                (1 - q) (z - t) where z > t,           [q of each output], in (0, 1)
 *                                 else q (t - z)
 *
 * s is label smoothing (Szegedy et al. 2016, section 7), in [0, 1): t stands for (1 - s) t + s / n in the softmax, and
 * for (1 - s) t + s / 2 in the sigmoid. Huber 1964; Koenker and Bassett 1978. Where z = t the gradients of the
 * absolute error and of the quantile loss are 0. The cross-entropies are finite for logits of any size. */
double cdrop_loss_and_gradient(cdrop_dtype dtype, cdrop_loss loss, const double *parameters, void *doutputs,
                               const void *outputs, const cdrop_truth *truth, size_t rows, size_t n);

/* x[i] = exp(x[i]): the means that outputs stand for with CDROP_POISSON. Infinite from 88 (float) or 709 (double)
 * on. */
void cdrop_exponential(cdrop_dtype dtype, void *x, size_t n);

/* ---- Update rules (optimizers.c) ---- */

/* A rate that is learned, that of CDROP_CONCRETE dropout: logit(1 - keep), and the state of its Adam, all of whose
 * means are 0 and powers 1 at first. `learned` of cdrop_optimizer has one for each layer, of which only those of such
 * layers count; a step updates them after the weights, and the caller sets the keep of the next step. What they
 * minimize is the loss of the step, plus for each such layer
 *
 *   l2 / (2 keep) times the sum of squares of its weights, in place of l2 / 2 times that sum
 *   - entropy times its inputs times H, the entropy of keep in nats
 *
 * by Adam with learning rate 0.01, betas 0.9 and 0.999, epsilon 1e-8, and the logit stays within [-12, 12] (Gal, Hron
 * and Kendall 2017, equations 3 and 4, with l2 for their length scale). */
typedef struct {
    double logit, mean, square, power1, power2; /* the last: beta^t */
} cdrop_learned_rate;

typedef struct {
    cdrop_rule rule;
    double learning_rate;
    double l2;           /* coupled: the gradient gets l2 * weight */
    double weight_decay; /* decoupled, Adam only: weights are first multiplied by 1 - learning_rate * weight_decay */
    double a, b;         /* momentum or rho or beta1; beta2 */
    double epsilon;
    double correction1, correction2; /* Adam's 1 - beta^t */
    double max_norm;                 /* of a hidden unit's incoming weights, for steps of a network; 0 for no limit */
    cdrop_learned_rate *learned;     /* for steps, or NULL */
    double entropy;                  /* likewise: weight of the entropies, usually 1 / number of training rows */
} cdrop_optimizer;

/* State arrays of a rule: 0, 1 or 2, each as large as the weights and zero at first. */
int cdrop_rule_states(cdrop_rule rule);

/* One step on n elements, in place. */
void cdrop_update_weights(cdrop_dtype dtype, void *weight, const void *gradient, void *state1, void *state2, size_t n,
                          const cdrop_optimizer *optimizer);

/* Max-norm (Srivastava et al. 2014, section 5.1), in place: a column of weight (n_in x n_out) whose Euclidean norm is
 * above max_norm is multiplied by max_norm / norm; the others do not change in a bit. Norm and quotient are computed
 * in double, from sums of squares of 64 lines each. A column whose sum of squares is NaN or infinite is left as it is.
 * Sums below the smallest normal double count as 0, so max_norm must be well above its root, 1.5e-154. */
cdrop_status cdrop_limit_norms(cdrop_dtype dtype, void *weight, size_t n_in, size_t n_out, double max_norm);

/* ---- Networks (network.c, train.c, thinned.c, kept.c, forward.c, predict.c, sample.c) ---- */

typedef struct {
    cdrop_dtype dtype;
    size_t layers;               /* weight matrices, at least 1 */
    const size_t *units;         /* layers + 1 widths, input first, each at least 1 */
    const uint64_t *keep;        /* layers values: of the input, then of each hidden layer; none 0 */
    const int *varies;           /* layers values: whether cdrop_network_set_keep may change that one; NULL for none */
    const cdrop_kind *kinds;     /* layers values, as keep; NULL for CDROP_BERNOULLI everywhere */
    size_t members;              /* masks of layers with CDROP_MEMBERS: at least 1; with none of those 0 */
    int scale_in_training;       /* 1: inverted dropout, kept units / keep; 0: classic, units * keep at test time.
                                    Gaussian and uniform noise has mean 1 in both cases. */
    cdrop_activation activation; /* of hidden layers; the last layer is linear */
    cdrop_loss loss;
    const double *loss_parameters; /* as cdrop_loss_and_gradient takes them; copied */
    uint64_t seed;
} cdrop_design;

typedef struct cdrop_network cdrop_network;
typedef struct cdrop_kept cdrop_kept;

typedef enum { CDROP_WEIGHT, CDROP_STATE1, CDROP_STATE2 } cdrop_part;

/* A batch: rows `rows[0..n)` of the arrays, or their first n rows where rows is NULL. The input is dense, or with
 * `indptr` sparse (CSR): row r has the entries x[indptr[r]] to below x[indptr[r + 1]], in the columns that `indices`
 * has there, ascending and below units[0]. Both train to the same bits where the network has no background; sparse
 * input takes none. */
typedef struct {
    const void *x;         /* row-major, units[0] columns; or the stored entries */
    const int64_t *indptr; /* or NULL */
    const uint32_t *indices;
    const int64_t *rows;
    size_t n;
    cdrop_truth truth;
    const cdrop_kept *kept; /* lists made of these rows, or NULL */
    size_t number;          /* of a step: which of their minibatches this is */
    size_t samples;         /* of a step: masks for each row, where more than 1 */
    double consistency;     /* of a step with 2 samples, and a cross-entropy: see cdrop_network_step */
} cdrop_batch;

cdrop_status cdrop_network_create(cdrop_network **network, const cdrop_design *design);
void cdrop_network_free(cdrop_network *network);

/* Copies a layer's weights (units[l] x units[l + 1]) and bias, or their optimizer states, in and out. */
void cdrop_network_set(cdrop_network *network, size_t layer, cdrop_part part, const void *weight, const void *bias);
void cdrop_network_get(const cdrop_network *network, size_t layer, cdrop_part part, void *weight, void *bias);

/* Sets what the input mostly is: units[0] values, of which those that are 0 mean nothing. Products with the input then
 * run on its difference from the background, which is mostly zero, and the background's own products are added once a
 * step. Only for networks without input dropout. Changes results by rounding. */
void cdrop_network_set_background(cdrop_network *network, const void *background);

/* Keep probabilities of later steps and samples: layers values, none 0. Only those that vary may differ from the
 * design. */
void cdrop_network_set_keep(cdrop_network *network, const uint64_t *keep);

/* Takes the memory of steps on up to `rows` rows with up to `samples` masks each, so that those find it there.
 * CDROP_NO_MEMORY changes nothing. */
cdrop_status cdrop_network_reserve(cdrop_network *network, size_t rows, size_t samples, int threads);

/* The lists of minibatches that come again: the i-th has rows [i * size, (i + 1) * size) of the batch `all`, of which
 * only the input counts. *kept stays NULL where they cannot help, would take more memory than those rows themselves or
 * than there is, or the input is sparse. `by_unit` as well as by row, for steps; predictions need the lists by row
 * alone. Several networks may read them at once; one whose number of inputs, type, input dropout or background differs
 * ignores them. Results do not depend on them. */
cdrop_status cdrop_keep_batches(cdrop_kept **kept, cdrop_network *network, const cdrop_batch *all, size_t size,
                                int by_unit, int threads);
void cdrop_kept_free(cdrop_kept *kept);

/* One training step: masks or noise of `step`, forward, loss, backward, update in place, and then cdrop_limit_norms of
 * each hidden layer's weights where the optimizer has a max_norm. *loss is the batch's mean loss plus l2 / 2 times the
 * sum of squares of the weights before the update. CDROP_NOT_FINITE leaves everything as it was;
 * CDROP_DIVERGED reports an update that was made.
 *
 * With `samples` M of the batch above 1, each row is trained under M masks, and the loss is the mean over them
 * (multi-sample dropout: Inoue 2019): a step on M copies of each row, of which copy m of row r has the mask of row r M
 * + m. What lies below the first layer that is dropped out runs once for all copies. No layer may be CDROP_SHARED.
 * Where M is 2, and p and q are what a row's copies predict, the loss of the row has one more term (R-Drop: Liang et
 * al. 2021; by the authors' code, whose weight of it is half of that in their paper's equation 4):
 *
 *   consistency (KL(p | q) + KL(q | p)) / 2
 *
 * with a softmax; with a sigmoid the sum of that over the outputs.
 *
 * Memory is taken at the first step, and when n, samples or threads grow. threads 0 means at most
 * cdrop_get_num_threads(), and as many of them as have been the fastest in the steps before. */
cdrop_status cdrop_network_step(cdrop_network *network, const cdrop_batch *batch, const cdrop_optimizer *optimizer,
                                uint64_t step, int threads, double *loss);

/* After one of these two: the first layer, from the input on, that is not finite, or the number of layers where only
 * the loss is. It is looked for in the weights and biases, then *in_weights is 1, and in the layer's outputs for the
 * `rows` rows of the last step; with 0 rows in weights and biases alone. */
size_t cdrop_network_fault(const cdrop_network *network, size_t rows, int *in_weights);

/* What the threads of steps spend their time on, in the order of a step: once a step, or for each layer. Lists stand
 * for dense copies as well, where a layer's products run without lists. Waiting is named by the work that the barrier
 * is behind; "start" is the time until a thread has begun its part, and "end" that until the call is over. Hidden
 * lists belong to the layer whose outputs they are, and gradients by input, with what follows them, to the layer whose
 * input it is. */
/* clang-format off */
#define CDROP_TIME_PARTS(once, each) \
    once(MASKS, "masks"), \
    once(THINNING, "thinned weights"), \
    once(LIST_INPUT, "lists: input"), \
    each(FORWARD, "products: forward"), \
    each(ACTIVATION, "activation: forward"), \
    each(LIST_HIDDEN, "lists: hidden"), \
    each(LIST_UNITS, "lists: by unit"), \
    once(LOSS, "loss"), \
    each(INPUT_GRADIENT, "products: gradient by input"), \
    each(DERIVATIVE, "activation: derivative"), \
    each(LIST_GRADIENT, "lists: gradient"), \
    each(WEIGHT_GRADIENT, "products: gradient by weight"), \
    each(UPDATE, "update: weights"), \
    each(BIAS, "update: biases"), \
    once(MAX_NORM, "update: max-norm"), \
    once(CHECKS, "checks of the result"), \
    once(WAIT_START, "waiting: start"), \
    once(WAIT_MASKS, "waiting: masks"), \
    once(WAIT_INPUT, "waiting: lists of the input"), \
    each(WAIT_FORWARD, "waiting: forward"), \
    once(WAIT_LOSS, "waiting: loss"), \
    once(WAIT_TOTAL, "waiting: total of the losses"), \
    each(WAIT_GRADIENT, "waiting: gradient by input"), \
    once(WAIT_UPDATES, "waiting: updates before max-norm"), \
    once(WAIT_END, "waiting: end")
/* clang-format on */

#define CDROP_TIME_MEMBER(part, name) CDROP_TIME_##part
typedef enum {
    CDROP_TIME_PARTS(CDROP_TIME_MEMBER, CDROP_TIME_MEMBER),
    CDROP_TIMES, /* how many */
} cdrop_time;
#undef CDROP_TIME_MEMBER

/* The name of a part above, and whether each layer has its own time. */
const char *cdrop_time_name(int part, int *by_layer);

/* seconds[layer * CDROP_TIMES + part] since the last call, summed over threads, training steps and predictions under
 * masks; what happens once a step is in layer 0. Measured from a call with on = 1 to one with on = 0, it costs a step
 * about 2 %. CDROP_NO_MEMORY changes nothing. */
cdrop_status cdrop_network_times(cdrop_network *network, int on, double *seconds);

/* What a prediction gives for each row, by the network's loss:
 *
 *                       softmax                      sigmoid                  Poisson            other numbers
 *   CDROP_OUTPUTS       logits                       logits                   outputs            outputs
 *   CDROP_PROBABILITIES softmax of them              sigmoid of them          exp of them        outputs
 *   CDROP_LABELS        int64, the first largest     int64 0 or 1 for each    exp of them        outputs
 *
 * A row with an output that is not finite has no probabilities and labels: they are NaN and -1. */
typedef enum { CDROP_OUTPUTS, CDROP_PROBABILITIES, CDROP_LABELS } cdrop_answer;

/* Predicts without dropout for the inputs of the batch; it needs no more than those. out: n x units[layers], but n for
 * the labels of a softmax. Works in chunks of fixed size, or minibatch by minibatch where the lists of all rows are
 * kept. */
cdrop_status cdrop_network_predict(cdrop_network *network, void *out, const cdrop_batch *batch, cdrop_answer answer,
                                   int threads);

/* Monte Carlo dropout (Gal and Ghahramani 2016): `passes` forward passes as in training, each under its own masks, and
 * their mean and spread. With p_t the probabilities that pass t gives, or for a loss of numbers its predictions, and H
 * the entropy in nats:
 *
 *   mean                 mean of p_t over the passes                           n x units[layers]
 *   deviation            numbers: sqrt(mean of (p_t - mean)^2)                 n x units[layers]
 *   predictive_entropy   H(mean)                                               n; sigmoid: n x units[layers], by label
 *   expected_entropy     mean of H(p_t)                                        likewise
 *   mutual_information   their difference, of output and weights; at least 0   likewise
 *   samples              p_t, each pass `stride` rows after the one before     passes x stride x units[layers]
 *
 * Arrays have the network's type; one that is NULL is not wanted, and the loss must have those that are. Sums are in
 * double, over passes in ascending order. */
typedef struct {
    void *mean, *deviation, *predictive_entropy, *expected_entropy, *mutual_information;
    void *samples;
    size_t stride; /* at least n; only for samples */
} cdrop_uncertainty;

/* The masks of layer l in pass t are those of cdrop_bernoulli_mask for (seed, t, CDROP_FOR_SAMPLES, l), whose row is
 * first_row + i for row i of the batch, or row 0 for all rows where they share their mask, or with CDROP_MEMBERS for
 * all rows the mask of member t mod `members`; likewise the noise is that of cdrop_noise. So a call may be cut into
 * several, at multiples of 64. Or masks are given, and nothing else: masks[l] has `passes` rows of
 * cdrop_words(units[l]) words, of which row t is the mask of all rows in pass t, or is NULL where nothing is dropped.
 * Neither may leave all layers without dropout. */
typedef struct {
    size_t passes; /* at least 1 */
    uint64_t seed;
    size_t first_row;             /* a multiple of 64 */
    const uint64_t *const *masks; /* NULL, or one for each layer's input */
    /* The passes may be made in several calls on the same rows, in order, each those from `done` to below `until`; the
     * last one has the results. NULL: this call makes them all. */
    double *sums; /* n * 2 * units[layers] numbers, which the first call sets */
    size_t done, until;
} cdrop_sampling;

/* Works in chunks of fixed size: needs no more memory for more rows or passes. What lies below the first layer that is
 * dropped out is computed once for all passes. Only the inputs of the batch count. */
cdrop_status cdrop_network_sample(cdrop_network *network, const cdrop_uncertainty *out, const cdrop_batch *batch,
                                  const cdrop_sampling *how, int threads);

/* ---- Numbers (numbers.c) ---- */

/* Whether none of n numbers is NaN or infinite. */
int cdrop_all_finite(cdrop_dtype dtype, const void *x, size_t n);

/* Logarithms that are the same everywhere. */

double cdrop_log(double x);   /* x > 0; NaN for others */
double cdrop_log1p(double x); /* 0 <= x <= 1 */

#endif
