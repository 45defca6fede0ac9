/* Whole training runs: the same weights, byte for byte, on every path and number of threads, and on every platform: the
 * hashes below were recorded on x86-64. A change of them is a change of the library's promise. */
#include "../../src_c/os_threads.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src_c/pass.h"
#include "check.h"

enum { SAMPLES = 150, BATCH = 70, MOST_UNITS = 200, MOST_WEIGHTS = MOST_UNITS * MOST_UNITS };

#define HALF (UINT64_C(1) << 31)

/* One way to train, and the hash of what comes of it in each type. */
typedef struct {
    const char *name;
    int steps;
    size_t layers, units[4];
    uint64_t input_keep;
    int scale_in_training;
    cdrop_activation activation;
    cdrop_loss loss;
    cdrop_rule rule;
    double rate, l2, max_norm, smoothing;
    uint64_t golden[DTYPES];
    size_t samples;
    double consistency;
} run;

/* The wide ones have several panels and blocks in every layer. */
enum { TWO_MASKS = 14 };
/* clang-format off */
static const run runs[] = {
    {"relu rmsprop", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_RELU, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_RMSPROP, 0.01, 1e-3, 0, 0,
     {UINT64_C(0xf5fd946462f7d2b8), UINT64_C(0xf9cd5c80aaede1d2)}, 0, 0},
    {"tanh adam", 20, 3, {37, 50, 33, 10}, 0xcccccccd, 1,
     CDROP_TANH, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_ADAM, 0.01, 0, 0, 0,
     {UINT64_C(0x4f884069d0c8286d), UINT64_C(0x1a4e4f68aa389d62)}, 0, 0},
    {"sigmoid nesterov", 20, 3, {37, 50, 33, 10}, HALF, 0,
     CDROP_SIGMOID, CDROP_SIGMOID_CROSS_ENTROPY, CDROP_NESTEROV, 0.01, 1e-4, 0, 0,
     {UINT64_C(0x968db6f4465c3134), UINT64_C(0xe8f826beeee96368)}, 0, 0},
    {"leaky adagrad", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_LEAKY_RELU, CDROP_SQUARED_ERROR, CDROP_ADAGRAD, 0.01, 0, 0, 0,
     {UINT64_C(0xbea1e8b696eef783), UINT64_C(0xfdca65e659b9c6a8)}, 0, 0},
    {"linear sgd", 20, 1, {37, 10}, CDROP_KEEP_ALL, 1,
     CDROP_IDENTITY, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_SGD, 0.3, 1e-3, 0, 0,
     {UINT64_C(0x86f1653dec37a5bf), UINT64_C(0x7317d6b9ed86b44a)}, 0, 0},
    {"wide relu momentum", 4, 3, {100, 150, 200, 10}, 0xcccccccd, 1,
     CDROP_RELU, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_MOMENTUM, 0.01, 1e-3, 0, 0,
     {UINT64_C(0xc531294a12d42998), UINT64_C(0x0c65daf6688fdb0f)}, 0, 0},
    {"wide sigmoid adam", 4, 3, {100, 150, 200, 130}, CDROP_KEEP_ALL, 1,
     CDROP_SIGMOID, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_ADAM, 0.01, 1e-3, 0, 0,
     {UINT64_C(0x944705a475a61d47), UINT64_C(0xb1bc626fec697344)}, 0, 0},
    {"limited relu rmsprop", 20, 3, {37, 50, 33, 10}, 0xcccccccd, 1,
     CDROP_RELU, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_RMSPROP, 0.01, 1e-3, 1.25, 0,
     {UINT64_C(0xd5373eaa105b5d5b), UINT64_C(0x08fb9cc3c5e2b47d)}, 0, 0},
    {"limited wide tanh momentum", 4, 3, {100, 150, 200, 130}, CDROP_KEEP_ALL, 1,
     CDROP_TANH, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_MOMENTUM, 0.01, 1e-3, 1.4, 0,
     {UINT64_C(0xef4ac0385fc1a55a), UINT64_C(0xcdf4105915b65687)}, 0, 0},
    {"absolute error", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_RELU, CDROP_ABSOLUTE_ERROR, CDROP_ADAM, 0.01, 0, 0, 0,
     {UINT64_C(0xfd5d5d041fc27fba), UINT64_C(0xcbe19e37327c0ffb)}, 0, 0},
    {"huber", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_RELU, CDROP_HUBER, CDROP_ADAM, 0.01, 0, 0, 0,
     {UINT64_C(0x7fa55bc7d5ccce34), UINT64_C(0x7f7d592b5c1a667f)}, 0, 0},
    {"poisson", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_RELU, CDROP_POISSON, CDROP_ADAM, 0.01, 0, 0, 0,
     {UINT64_C(0x9b87662ef7d4c4f7), UINT64_C(0x804a26655a38d1dc)}, 0, 0},
    {"quantile", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_RELU, CDROP_QUANTILE, CDROP_ADAM, 0.01, 0, 0, 0,
     {UINT64_C(0xee28624de6d26b1e), UINT64_C(0x34ada434612e44ee)}, 0, 0},
    {"smooth relu rmsprop", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_RELU, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_RMSPROP, 0.01, 1e-3, 0, 0.1,
     {UINT64_C(0x497922ba04a3f009), UINT64_C(0xd330aeb2e551c4e9)}, 0, 0},
    {"two masks relu rmsprop", 20, 3, {37, 50, 33, 10}, CDROP_KEEP_ALL, 1,
     CDROP_RELU, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_RMSPROP, 0.01, 1e-3, 0, 0,
     {UINT64_C(0x85ef4475d23b3316), UINT64_C(0xf36c26f9a108dab1)}, 2, 1.5},
    {"two masks of the input, leaky adam", 20, 3, {37, 50, 33, 10}, 0xcccccccd, 1,
     CDROP_LEAKY_RELU, CDROP_SIGMOID_CROSS_ENTROPY, CDROP_ADAM, 0.01, 0, 0, 0,
     {UINT64_C(0x449eaa4b048da098), UINT64_C(0x38f2f55b450c415c)}, 2, 0.7},
    {"wide tanh adam of three masks", 4, 3, {100, 150, 200, 10}, CDROP_KEEP_ALL, 1,
     CDROP_TANH, CDROP_SOFTMAX_CROSS_ENTROPY, CDROP_ADAM, 0.01, 1e-3, 0, 0,
     {UINT64_C(0xa7834ba0a1b3ad22), UINT64_C(0x8e1cea17a221d2d6)}, 3, 0},
};
/* clang-format on */

/* ---- The data ------------------------------------------------------------------------------------------------ */

static double inputs[SAMPLES * 100], targets[SAMPLES * 10], sample_weights[SAMPLES];
static float inputs_f32[SAMPLES * 100], targets_f32[SAMPLES * 10];
static int64_t labels[SAMPLES];

/* A third of the inputs are zero, as in a picture. Nothing here comes from the C library's functions. */
static void make_data(void)
{
    uint64_t words[SAMPLES];
    cdrop_random_normal(inputs, COUNT(inputs), 1, 0, CDROP_FOR_USER, 0, 0);
    cdrop_random_normal(targets, COUNT(targets), 1, 1, CDROP_FOR_USER, 0, 0);
    cdrop_random_words(words, SAMPLES, 1, 2, CDROP_FOR_USER, 0, 0);
    for (size_t i = 0; i < COUNT(inputs); i++)
        inputs_f32[i] = (float)(inputs[i] = inputs[i] < -0.43 ? 0 : inputs[i]);
    for (size_t i = 0; i < COUNT(targets); i++)
        targets_f32[i] = (float)(targets[i] = targets[i] > 0 ? 1 : 0.25);
    for (size_t i = 0; i < SAMPLES; i++) {
        labels[i] = (int64_t)(words[i] % 10);
        sample_weights[i] = 0.5 + (double)(words[i] >> 11) * 0x1p-53;
    }
}

/* Rows of the step's batch; every fourth is short. */
static size_t choose_rows(int64_t rows[BATCH], int step)
{
    const size_t n = step % 4 ? BATCH : BATCH - 7;
    for (size_t i = 0; i < n; i++)
        rows[i] = (int64_t)((i * 7 + (size_t)step * 31) % SAMPLES);
    return n;
}

/* ---- A run --------------------------------------------------------------------------------------------------- */

static void set_weights(cdrop_network *network, const run *r, cdrop_dtype t)
{
    static const double bias[MOST_UNITS];
    double *weight = malloc(MOST_WEIGHTS * sizeof *weight), row[MOST_UNITS];
    const size_t *units = r->units;
    for (size_t l = 0; l < r->layers; l++) {
        const double deviation = sqrt(2 / (double)units[l]);
        for (size_t i = 0; i < units[l]; i++) {
            cdrop_random_normal(row, units[l + 1], 1, 0, CDROP_FOR_WEIGHTS, (uint32_t)l, i);
            for (size_t j = 0; j < units[l + 1]; j++)
                put(t, weight, i * units[l + 1] + j, row[j] * deviation);
        }
        cdrop_network_set(network, l, CDROP_WEIGHT, weight, bias);
    }
    free(weight);
}

static cdrop_network *make_dropping(const run *r, cdrop_dtype t, const uint64_t *keep, const int *varies)
{
    static const double numbers[] = {0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.95}; /* quantiles, Huber's delta */
    const cdrop_design design = {
        .dtype = t,
        .layers = r->layers,
        .units = r->units,
        .keep = keep,
        .varies = varies,
        .scale_in_training = r->scale_in_training,
        .activation = r->activation,
        .loss = r->loss,
        .loss_parameters = r->loss <= CDROP_SIGMOID_CROSS_ENTROPY ? &r->smoothing : numbers,
        .seed = 2026,
    };
    cdrop_network *network;
    if (cdrop_network_create(&network, &design) != CDROP_OK)
        abort();
    set_weights(network, r, t);
    return network;
}

static cdrop_network *make_network(const run *r, cdrop_dtype t)
{
    const uint64_t keep[] = {r->input_keep, HALF, HALF};
    return make_dropping(r, t, keep, NULL);
}

static cdrop_status train_step(cdrop_network *network, const run *r, cdrop_dtype t, int step, int threads, double *loss)
{
    static const cdrop_optimizer settings = {.weight_decay = 0.01, .a = 0.9, .b = 0.999, .epsilon = 1e-8};
    const int f32 = t == CDROP_FLOAT32;
    int64_t rows[BATCH];
    cdrop_optimizer optimizer = settings;
    cdrop_batch batch = {.rows = rows, .truth.labels = labels, .samples = r->samples, .consistency = r->consistency};
    batch.x = f32 ? (const void *)inputs_f32 : inputs;
    batch.truth.targets = f32 ? (const void *)targets_f32 : targets;
    batch.truth.weights = step % 2 ? sample_weights : NULL;
    batch.n = choose_rows(rows, step);
    optimizer.rule = r->rule;
    optimizer.learning_rate = r->rate;
    optimizer.l2 = r->l2;
    optimizer.max_norm = r->max_norm;
    optimizer.correction1 = optimizer.correction2 = 1;
    for (int i = 0; i < step; i++) { /* 1 - beta^step, without the C library's pow */
        optimizer.correction1 *= optimizer.a;
        optimizer.correction2 *= optimizer.b;
    }
    optimizer.correction1 = 1 - optimizer.correction1;
    optimizer.correction2 = 1 - optimizer.correction2;
    return cdrop_network_step(network, &batch, &optimizer, (uint64_t)step, threads, loss);
}

/* Of all weights, biases and optimizer states. */
static uint64_t hash_network(const cdrop_network *network, const run *r, cdrop_dtype t)
{
    double *weight = malloc(MOST_WEIGHTS * sizeof *weight), bias[MOST_UNITS];
    uint64_t hash = HASH_OF_NOTHING;
    for (size_t l = 0; l < r->layers; l++)
        for (int part = CDROP_WEIGHT; part <= CDROP_STATE2; part++) {
            cdrop_network_get(network, l, (cdrop_part)part, weight, bias);
            hash = hash_elements(hash, t, weight, r->units[l] * r->units[l + 1]);
            hash = hash_elements(hash, t, bias, r->units[l + 1]);
        }
    free(weight);
    return hash;
}

/* What the products of a step and of a prediction run on: as counted before, or always the same. */
typedef enum { AS_COUNTED, ON_LISTS, DENSE } side;

static void choose_side(cdrop_network *network, side s)
{
    for (size_t l = 0; s != AS_COUNTED && l < network->layers; l++)
        network->layer[l].density = network->layer[l].predicted_density = s == DENSE ? 2 : 0;
}

/* Trains and hashes losses, weights and predictions; 0 where something failed. Without CHECK, which counts on one
 * thread only. */
static uint64_t train(const run *r, cdrop_dtype t, int threads, side s, double *first, double *last)
{
    const cdrop_batch all = {.x = t == CDROP_FLOAT32 ? (const void *)inputs_f32 : inputs, .n = SAMPLES};
    const size_t n_outputs = SAMPLES * r->units[r->layers];
    double *outputs = malloc(n_outputs * sizeof *outputs);
    cdrop_network *network = make_network(r, t);
    uint64_t hash = HASH_OF_NOTHING;
    int failed = 0;
    for (int step = 1; step <= r->steps; step++) {
        choose_side(network, s);
        failed |= train_step(network, r, t, step, threads, last) != CDROP_OK;
        for (size_t l = 0; s != AS_COUNTED && l < r->layers; l++)
            failed |= network->layer[l].dense != (s == DENSE);
        hash = hash_elements(hash, CDROP_FLOAT64, last, 1);
        if (step == 1)
            *first = *last;
    }
    const uint64_t weights = hash_network(network, r, t);
    failed |= cdrop_network_predict(network, outputs, &all, CDROP_PROBABILITIES, threads) != CDROP_OK;
    hash = hash_elements(hash, t, outputs, n_outputs);
    cdrop_network_free(network);
    free(outputs);
    return failed ? 0 : hash_elements(hash, CDROP_FLOAT64, &weights, 1);
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

static void test_run(const run *r, cdrop_dtype t)
{
    static const char *const side_names[] = {"lists or dense", "lists", "dense"};
    const int thread_counts[] = {1, 2, 3, 4, 8};
    for (int i = 0; cdrop_simd_usable(i); i++)
        for (size_t n = 0; n < COUNT(thread_counts) + 2; n++) {
            const int threads = n < COUNT(thread_counts) ? thread_counts[n] : 2;
            const side s = n < COUNT(thread_counts) ? AS_COUNTED : n == COUNT(thread_counts) ? ON_LISTS : DENSE;
            double first = 0, last = 0;
            if (n && !IN_SHORT((size_t)(r - runs) + n + (size_t)t, 6))
                continue;
            cdrop_select_simd(cdrop_simd_usable(i));
            const uint64_t hash = train(r, t, threads, s, &first, &last);
            check_case("%s %s, %s, %d threads, %s", r->name, DTYPE_NAME(t), cdrop_simd_active(), threads,
                       side_names[s]);
            CHECK(hash == r->golden[t], "hash 0x%016llx, recorded 0x%016llx", (unsigned long long)hash,
                  (unsigned long long)r->golden[t]);
            CHECK(last < first, "loss from %g to %g: it does not learn", first, last);
        }
}

static void check_fault(const cdrop_network *network, const run *r, size_t layer, int in_weights)
{
    int found = -1;
    const size_t where = cdrop_network_fault(network, BATCH, &found);
    CHECK(where == layer && found == in_weights, "layer %zu of %zu, in weights: %d", where, r->layers, found);
}

static void test_not_finite(const run *r, cdrop_dtype t)
{
    double *weight = malloc(MOST_WEIGHTS * sizeof *weight), bias[MOST_UNITS];
    for (int threads = 1; threads <= 3; threads++) {
        cdrop_network *network = make_network(r, t);
        double loss;
        check_case("NaN in the weights, %s, %d threads", DTYPE_NAME(t), threads);
        CHECK(train_step(network, r, t, 1, threads, &loss) == CDROP_OK, "the first step");
        cdrop_network_get(network, 1, CDROP_WEIGHT, weight, bias);
        put(t, weight, 17, NAN);
        cdrop_network_set(network, 1, CDROP_WEIGHT, weight, bias);
        const uint64_t before = hash_network(network, r, t);
        CHECK(train_step(network, r, t, 2, threads, &loss) == CDROP_NOT_FINITE && isnan(loss), "loss %g", loss);
        CHECK(hash_network(network, r, t) == before, "something was updated");
        check_fault(network, r, 1, 1);
        cdrop_network_free(network);
    }
    free(weight);
}

/* Weights too large for the sums of a layer, and an update too large for the weights. */
static void test_overflow(const run *r, cdrop_dtype t)
{
    run wild = *r;
    double *weight = malloc(MOST_WEIGHTS * sizeof *weight), bias[MOST_UNITS], loss;
    for (size_t l = 0; l < r->layers; l++) {
        cdrop_network *network = make_network(r, t);
        check_case("overflow in layer %zu, %s", l, DTYPE_NAME(t));
        cdrop_network_get(network, l, CDROP_WEIGHT, weight, bias);
        for (size_t i = 0; i < r->units[l] * r->units[l + 1]; i++)
            put(t, weight, i, t == CDROP_FLOAT32 ? 3e38 : 1e308);
        cdrop_network_set(network, l, CDROP_WEIGHT, weight, bias);
        CHECK(train_step(network, r, t, 1, 2, &loss) == CDROP_NOT_FINITE, "loss %g", loss);
        check_fault(network, r, l, 0);
        cdrop_network_free(network);
    }
    cdrop_network *network = make_network(r, t);
    check_case("an update that overflows, %s", DTYPE_NAME(t));
    wild.rate = INFINITY;
    CHECK(train_step(network, &wild, t, 1, 2, &loss) == CDROP_DIVERGED && isfinite(loss), "loss %g", loss);
    check_fault(network, r, 0, 1);
    cdrop_network_free(network);
    free(weight);
}

static void test_interruptions(const run *r, cdrop_dtype t)
{
    enum { ROWS = 2 * SAMPLES };
    static double outputs[ROWS * 10], x[ROWS * 37];
    cdrop_network *plain = make_network(r, t), *disturbed = make_network(r, t);
    check_case("interruptions, %s", DTYPE_NAME(t));
    for (int step = 1; step <= r->steps; step++) {
        const cdrop_batch some = {.x = x, .n = step < 10 ? 5 : ROWS};
        double loss, other_loss;
        CHECK(train_step(plain, r, t, step, 1, &loss) == CDROP_OK, "step %d", step);
        CHECK(train_step(disturbed, r, t, step, 1 + step % 4, &other_loss) == CDROP_OK, "step %d", step);
        CHECK(loss == other_loss, "step %d: loss %a and %a", step, loss, other_loss);
        if (step % 3 == 0) /* later on more rows than the batch: memory is taken again */
            cdrop_network_predict(disturbed, outputs, &some, CDROP_OUTPUTS, step % 5);
    }
    CHECK(hash_network(plain, r, t) == hash_network(disturbed, r, t), "other weights");
    cdrop_network_free(plain);
    cdrop_network_free(disturbed);
}

/* ---- Max-norm ------------------------------------------------------------------------------------------------ */

static double column_norm(cdrop_dtype t, const void *weight, size_t lines, size_t columns, size_t c)
{
    double squares = 0;
    for (size_t i = 0; i < lines; i++)
        squares += get(t, weight, i * columns + c) * get(t, weight, i * columns + c);
    return sqrt(squares);
}

/* No hidden unit is above its limit after a step, some are at it and some below; the output is not limited. */
static void test_norms_of(const run *r, cdrop_dtype t)
{
    const double most = r->max_norm * (t == CDROP_FLOAT64 ? 1 + 1e-15 : 1 + 1.2e-7);
    double *weight = malloc(MOST_WEIGHTS * sizeof *weight), bias[MOST_UNITS], loss;
    cdrop_network *network = make_network(r, t);
    check_case("norms of %s, %s", r->name, DTYPE_NAME(t));
    for (int step = 1; step <= 3; step++) {
        size_t at[2] = {0, 0}, below[2] = {0, 0}, above[2] = {0, 0}; /* of hidden units, of outputs */
        CHECK(train_step(network, r, t, step, 1 + step, &loss) == CDROP_OK, "step %d", step);
        for (size_t l = 0; l < r->layers; l++) {
            const int last = l + 1 == r->layers;
            cdrop_network_get(network, l, CDROP_WEIGHT, weight, bias);
            for (size_t c = 0; c < r->units[l + 1]; c++) {
                const double norm = column_norm(t, weight, r->units[l], r->units[l + 1], c);
                above[last] += norm > most;
                at[last] += norm <= most && norm > r->max_norm * (1 - 1e-6);
                below[last] += norm <= r->max_norm * (1 - 1e-6);
            }
        }
        CHECK(above[0] == 0 && at[0] && below[0], "%zu above, %zu at, %zu below", above[0], at[0], below[0]);
        CHECK(above[1] && !at[1], "outputs: %zu above, %zu at the limit", above[1], at[1]);
    }
    cdrop_network_free(network);
    free(weight);
}

/* The limit is part of the step alone: a step without it, then cdrop_limit_norms, gives the same weights. */
static void test_limit_alone(const run *r, cdrop_dtype t)
{
    run unlimited = *r;
    double *limited = malloc(MOST_WEIGHTS * sizeof *limited), *weight = malloc(MOST_WEIGHTS * sizeof *weight);
    double bias[MOST_UNITS], loss;
    cdrop_network *a = make_network(r, t), *b = make_network(r, t);
    unlimited.max_norm = 0;
    check_case("limit alone, %s, %s", r->name, DTYPE_NAME(t));
    CHECK(train_step(a, r, t, 1, 2, &loss) == CDROP_OK, "limited");
    CHECK(train_step(b, &unlimited, t, 1, 2, &loss) == CDROP_OK, "unlimited");
    for (size_t l = 0; l < r->layers; l++) {
        const size_t n = r->units[l] * r->units[l + 1];
        cdrop_network_get(a, l, CDROP_WEIGHT, limited, bias);
        cdrop_network_get(b, l, CDROP_WEIGHT, weight, bias);
        if (l + 1 < r->layers)
            CHECK(cdrop_limit_norms(t, weight, r->units[l], r->units[l + 1], r->max_norm) == CDROP_OK, "layer %zu", l);
        const size_t differs = first_difference(t, limited, weight, n);
        CHECK(differs == n, "layer %zu, element %zu", l, differs);
    }
    cdrop_network_free(a);
    cdrop_network_free(b);
    free(limited);
    free(weight);
}

/* A network whose weights are set again has the same squares as one that has trained. */
static void test_limited_weights_set_again(const run *r, cdrop_dtype t)
{
    double *weight = malloc(MOST_WEIGHTS * sizeof *weight), bias[MOST_UNITS];
    cdrop_network *trained = make_network(r, t), *copy = make_network(r, t);
    check_case("limited weights set again, %s, %s", r->name, DTYPE_NAME(t));
    for (int step = 1; step <= 4; step++) {
        double loss, copied_loss;
        for (size_t l = 0; l < r->layers; l++)
            for (int part = CDROP_WEIGHT; part <= CDROP_STATE2; part++) {
                cdrop_network_get(trained, l, (cdrop_part)part, weight, bias);
                cdrop_network_set(copy, l, (cdrop_part)part, weight, bias);
            }
        CHECK(train_step(trained, r, t, step, 3, &loss) == CDROP_OK, "step %d", step);
        CHECK(train_step(copy, r, t, step, 1, &copied_loss) == CDROP_OK, "step %d", step);
        CHECK(loss == copied_loss, "step %d: loss %a and %a", step, loss, copied_loss);
        CHECK(hash_network(trained, r, t) == hash_network(copy, r, t), "step %d: other weights", step);
    }
    cdrop_network_free(trained);
    cdrop_network_free(copy);
    free(weight);
}

/* ---- Several networks ---------------------------------------------------------------------------------------- */

typedef struct {
    const run *r;
    uint64_t hash;
    atomic_int done;
} lone_run;

static CDROP_THREAD train_alone(void *argument)
{
    lone_run *own = argument;
    double first, last;
    own->hash = train(own->r, CDROP_FLOAT32, 2, AS_COUNTED, &first, &last);
    atomic_store(&own->done, 1);
    return 0;
}

/* Several threads of the caller's train different networks: one at a time has the pool, the others work alone. */
static void test_callers_at_once(void)
{
    static lone_run own[4];
    check_case("networks at once");
    for (size_t i = 0; i < COUNT(own); i++) {
        own[i].r = &runs[i];
        if (!cdrop_start_thread(train_alone, &own[i]))
            train_alone(&own[i]); /* a system without threads */
    }
    for (size_t i = 0; i < COUNT(own); i++) {
        while (!atomic_load(&own[i].done))
            cdrop_yield();
        CHECK(own[i].hash == runs[i].golden[CDROP_FLOAT32], "network %zu", i);
    }
}

static void copy_network(cdrop_network *to, const cdrop_network *from, const run *r)
{
    double *weight = malloc(MOST_WEIGHTS * sizeof *weight), bias[MOST_UNITS];
    for (size_t l = 0; l < r->layers; l++)
        for (int part = CDROP_WEIGHT; part <= CDROP_STATE2; part++) {
            cdrop_network_get(from, l, (cdrop_part)part, weight, bias);
            cdrop_network_set(to, l, (cdrop_part)part, weight, bias);
        }
    free(weight);
}

/* Each step is that of a network which was made with the probabilities of this step, and so is a prediction after
 * it. */
static void test_changing_keep(const run *r, cdrop_dtype t)
{
    static const uint64_t keeps[][3] = {{CDROP_KEEP_ALL, HALF, CDROP_KEEP_ALL},
                                        {CDROP_KEEP_ALL, CDROP_KEEP_ALL, CDROP_KEEP_ALL},
                                        {HALF + 1, HALF / 2, HALF},
                                        {CDROP_KEEP_ALL - 1, 1, HALF},
                                        {HALF, HALF, CDROP_KEEP_ALL}};
    static const int varies[] = {1, 1, 1};
    const cdrop_batch all = {.x = t == CDROP_FLOAT32 ? (const void *)inputs_f32 : inputs, .n = SAMPLES};
    const size_t n_outputs = SAMPLES * r->units[r->layers];
    double *outputs = malloc(2 * n_outputs * sizeof *outputs), losses[2];
    cdrop_network *varying = make_dropping(r, t, keeps[1], varies);
    for (int step = 1; step <= (int)COUNT(keeps); step++) {
        cdrop_network *fixed = make_dropping(r, t, keeps[step - 1], NULL);
        copy_network(fixed, varying, r);
        cdrop_network_set_keep(varying, keeps[step - 1]);
        cdrop_network *both[] = {fixed, varying};
        int failed = 0;
        uint64_t predicted[2];
        for (int i = 0; i < 2; i++) {
            failed |= train_step(both[i], r, t, step, 2, &losses[i]) != CDROP_OK;
            failed |= cdrop_network_predict(both[i], outputs, &all, CDROP_PROBABILITIES, 1) != CDROP_OK;
            predicted[i] = hash_elements(HASH_OF_NOTHING, t, outputs, n_outputs);
        }
        check_case("%s %s, changing keep, step %d", r->name, DTYPE_NAME(t), step);
        CHECK(!failed && losses[0] == losses[1], "loss %g, not %g", losses[1], losses[0]);
        CHECK(hash_network(fixed, r, t) == hash_network(varying, r, t), "other weights");
        CHECK(predicted[0] == predicted[1], "other predictions");
        cdrop_network_free(fixed);
    }
    cdrop_network_free(varying);
    free(outputs);
}

int main(void)
{
    make_data();
    cdrop_set_cpus(2); /* so that teams of two spin, and larger ones yield */
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        for (size_t i = 0; i < COUNT(runs); i++) {
            test_run(&runs[i], t);
            test_changing_keep(&runs[i], t);
            if (runs[i].max_norm == 0)
                continue;
            test_norms_of(&runs[i], t);
            test_limit_alone(&runs[i], t);
            test_limited_weights_set_again(&runs[i], t);
        }
        test_not_finite(&runs[0], t);
        test_overflow(&runs[0], t);
        test_overflow(&runs[TWO_MASKS], t);
        test_interruptions(&runs[0], t);
    }
    test_callers_at_once();
    return check_report();
}
