/* Predictions under many masks: the same bytes on every path, at any number of threads and however they are cut, as
 * recorded on x86-64, and results of the right size. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { INPUTS = 70, ROWS = 300, LAYERS = 3, OUTPUTS = 5, PASSES = 4, WORDS = 3, ARRAYS = 5 };

static const size_t units[LAYERS + 1] = {INPUTS, 130, 65, OUTPUTS};

/* Which inputs are dropped out: of all layers, or from the second or the last on. */
typedef struct {
    const char *name;
    uint64_t keep[LAYERS];
    cdrop_activation activation;
    cdrop_loss loss;
    uint64_t golden[DTYPES];
} design;

#define HALF (UINT64_C(1) << 31)

/* clang-format off */
static const design designs[] = {
    {"all, softmax", {0xcccccccd, HALF, HALF}, CDROP_RELU, CDROP_SOFTMAX_CROSS_ENTROPY,
     {UINT64_C(0x9a73be330a746c17), UINT64_C(0x0e0b0c09cebf94df)}},
    {"hidden, sigmoid", {CDROP_KEEP_ALL, HALF, 0xcccccccd}, CDROP_TANH, CDROP_SIGMOID_CROSS_ENTROPY,
     {UINT64_C(0x2fb22e041011f9eb), UINT64_C(0xe030c3b64853204b)}},
    {"last, squared error", {CDROP_KEEP_ALL, CDROP_KEEP_ALL, HALF}, CDROP_LEAKY_RELU, CDROP_SQUARED_ERROR,
     {UINT64_C(0x18608b5e20c67906), UINT64_C(0xb76f10b52c046a58)}},
    {"last, Poisson", {CDROP_KEEP_ALL, CDROP_KEEP_ALL, HALF}, CDROP_LEAKY_RELU, CDROP_POISSON,
     {UINT64_C(0x05956ff81d67242c), UINT64_C(0x92db222577efc2c6)}},
};
/* clang-format on */

static cdrop_network *make_network(const design *d, cdrop_dtype t)
{
    const cdrop_design design = {.dtype = t,
                                 .layers = LAYERS,
                                 .units = units,
                                 .keep = d->keep,
                                 .scale_in_training = 1,
                                 .activation = d->activation,
                                 .loss = d->loss,
                                 .seed = 1};
    cdrop_network *n;
    CHECK(cdrop_network_create(&n, &design) == CDROP_OK, "create");
    for (size_t l = 0; l < LAYERS; l++) {
        const size_t count = units[l] * units[l + 1];
        double *normals = malloc(count * sizeof *normals);
        void *weight = malloc(count * size_of(t)), *bias = calloc(units[l + 1], size_of(t));
        cdrop_random_normal(normals, count, 1, 0, CDROP_FOR_USER, (uint32_t)l, 0);
        for (size_t i = 0; i < count; i++)
            put(t, weight, i, normals[i] * 0.2);
        cdrop_network_set(n, l, CDROP_WEIGHT, weight, bias);
        free(normals), free(weight), free(bias);
    }
    return n;
}

static void *make_rows(cdrop_dtype t)
{
    double *normals = malloc(ROWS * INPUTS * sizeof *normals);
    void *x = guarded((size_t)ROWS * INPUTS * size_of(t));
    cdrop_random_normal(normals, ROWS * INPUTS, 2, 0, CDROP_FOR_USER, 0, 0);
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        put(t, x, i, normals[i] < 0 ? 0 : normals[i]);
    free(normals);
    return x;
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* One array after the other, NULL where the loss has none; each ends at a page that traps. */
typedef struct {
    void *array[ARRAYS];
    size_t width[ARRAYS]; /* numbers of a row */
} results;

static results make_results(const design *d, cdrop_dtype t)
{
    const int squared = cdrop_of_numbers(d->loss);
    const size_t apart = d->loss == CDROP_SOFTMAX_CROSS_ENTROPY ? 1 : OUTPUTS;
    results r = {
        .width = {OUTPUTS, squared ? OUTPUTS : 0, squared ? 0 : apart, squared ? 0 : apart, squared ? 0 : apart}};
    for (int i = 0; i < ARRAYS; i++)
        r.array[i] = r.width[i] ? guarded(ROWS * r.width[i] * size_of(t)) : NULL;
    return r;
}

/* Where the results of rows from `row` on stand. */
static cdrop_uncertainty at(const results *r, cdrop_dtype t, size_t row)
{
    void *from[ARRAYS];
    for (int i = 0; i < ARRAYS; i++)
        from[i] = r->array[i] ? (char *)r->array[i] + row * r->width[i] * size_of(t) : NULL;
    return (cdrop_uncertainty){.mean = from[0],
                               .deviation = from[1],
                               .predictive_entropy = from[2],
                               .expected_entropy = from[3],
                               .mutual_information = from[4]};
}

static uint64_t hash_of(const results *r, cdrop_dtype t)
{
    uint64_t hash = HASH_OF_NOTHING;
    for (int i = 0; i < ARRAYS; i++)
        hash = hash_elements(hash, t, r->array[i], ROWS * r->width[i]);
    return hash;
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

/* In parts of `step` rows. */
static uint64_t sample(cdrop_network *n, const design *d, cdrop_dtype t, const void *x, size_t step, int threads)
{
    const results r = make_results(d, t);
    for (size_t row = 0; row < ROWS; row += step) {
        const cdrop_batch part = {.x = (const char *)x + row * INPUTS * size_of(t),
                                  .n = row + step < ROWS ? step : ROWS - row};
        const cdrop_sampling how = {.passes = PASSES, .seed = 7, .first_row = row};
        const cdrop_uncertainty out = at(&r, t, row);
        CHECK(cdrop_network_sample(n, &out, &part, &how, threads) == CDROP_OK, "rows from %zu", row);
    }
    return hash_of(&r, t);
}

static void test_design(const design *d, cdrop_dtype t)
{
    const int thread_counts[] = {1, 2, 3, 4, 8};
    const void *x = make_rows(t);
    for (int i = 0; cdrop_simd_usable(i); i++) {
        cdrop_select_simd(cdrop_simd_usable(i));
        for (size_t k = 0; k < COUNT(thread_counts); k++) {
            cdrop_network *n = make_network(d, t);
            const size_t step = k % 2 ? 64 * k : ROWS;
            check_case("%s %s, %s, %d threads", d->name, DTYPE_NAME(t), cdrop_simd_active(), thread_counts[k]);
            const uint64_t hash = sample(n, d, t, x, step, thread_counts[k]);
            CHECK(hash == d->golden[t], "hash 0x%016llx, recorded 0x%016llx", (unsigned long long)hash,
                  (unsigned long long)d->golden[t]);
            cdrop_network_free(n);
        }
    }
    guarded_release();
}

/* Masks that are given: those that would be drawn for the first row. */
static void test_given_masks(const design *d, cdrop_dtype t)
{
    const cdrop_batch one = {.x = make_rows(t), .n = 1};
    uint64_t *mask[LAYERS];
    const uint64_t *masks[LAYERS];
    for (uint32_t l = 0; l < LAYERS; l++) {
        const size_t words = cdrop_words(units[l]);
        masks[l] = mask[l] = d->keep[l] == CDROP_KEEP_ALL ? NULL : guarded(PASSES * words * sizeof **mask);
        for (size_t pass = 0; mask[l] && pass < PASSES; pass++)
            cdrop_bernoulli_mask(mask[l] + pass * words, 0, 1, units[l], d->keep[l], 7, pass, CDROP_FOR_SAMPLES, l);
    }
    const cdrop_sampling drawn = {.passes = PASSES, .seed = 7}, given = {.passes = PASSES, .masks = masks};
    const results a = make_results(d, t), b = make_results(d, t);
    const cdrop_uncertainty first = at(&a, t, ROWS - 1), second = at(&b, t, ROWS - 1);
    cdrop_network *n = make_network(d, t);
    check_case("given masks, %s, %s", d->name, DTYPE_NAME(t));
    CHECK(cdrop_network_sample(n, &first, &one, &drawn, 1) == CDROP_OK, "drawn");
    CHECK(cdrop_network_sample(n, &second, &one, &given, 1) == CDROP_OK, "given");
    CHECK(hash_of(&a, t) == hash_of(&b, t), "other results");
    CHECK(get(t, first.mean, 0) != get(t, make_results(d, t).array[0], 0), "nothing was written");
    cdrop_network_free(n);
    guarded_release();
}

int main(void)
{
    cdrop_set_cpus(2); /* so that teams of two spin, and larger ones yield */
    for (cdrop_dtype t = 0; t < DTYPES; t++)
        for (size_t i = 0; i < COUNT(designs); i++) {
            test_design(&designs[i], t);
            test_given_masks(&designs[i], t);
        }
    return check_report();
}
