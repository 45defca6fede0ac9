/* A step takes memory once: the first of its shape does, or what reserves it, and no later one; so does a prediction under
 * many masks, for any number of rows and of masks. The linker sends every allocation of the library through the counters
 * below (--wrap, see the Makefile). */
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"

enum { INPUTS = 200, ROWS = 130, LAYERS = 3, CLASSES = 10 };

static atomic_int taken;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    atomic_fetch_add(&taken, 1);
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    atomic_fetch_add(&taken, 1);
    return __real_calloc(n, bytes);
}

static cdrop_network *make_network(cdrop_dtype t, uint64_t input_keep)
{
    const size_t units[LAYERS + 1] = {INPUTS, 150, 100, CLASSES};
    const uint64_t half = CDROP_KEEP_ALL / 2, keep[LAYERS] = {input_keep, half, half};
    const cdrop_design design = {.dtype = t,
                                 .layers = LAYERS,
                                 .units = units,
                                 .keep = keep,
                                 .scale_in_training = 1,
                                 .activation = CDROP_RELU,
                                 .loss = CDROP_SOFTMAX_CROSS_ENTROPY,
                                 .seed = 1};
    cdrop_network *n;
    CHECK(cdrop_network_create(&n, &design) == CDROP_OK, "create");
    for (size_t l = 0; l < LAYERS; l++)
        cdrop_network_set(n, l, CDROP_WEIGHT, random_array(t, units[l] * units[l + 1], 1, 0.1),
                          random_array(t, units[l + 1], 1, 0.1));
    return n;
}

/* How often `steps` steps take memory. */
static int taken_by_steps(cdrop_network *n, const cdrop_batch *batch, int steps, int threads)
{
    const cdrop_optimizer adam = {.rule = CDROP_ADAM,
                                  .learning_rate = 1e-3,
                                  .a = 0.9,
                                  .b = 0.999,
                                  .epsilon = 1e-8,
                                  .correction1 = 1,
                                  .correction2 = 1,
                                  .max_norm = 2};
    const int before = atomic_load(&taken);
    double loss;
    for (int step = 0; step < steps; step++)
        CHECK(cdrop_network_step(n, batch, &adam, (uint64_t)step, threads, &loss) == CDROP_OK, "step %d", step);
    return atomic_load(&taken) - before;
}

static int64_t labels[ROWS];

static cdrop_batch make_batch(cdrop_dtype t, double density)
{
    for (size_t i = 0; i < ROWS; i++)
        labels[i] = (int64_t)random_below(CLASSES);
    return (cdrop_batch){.x = random_array(t, ROWS * INPUTS, density, 1), .n = ROWS, .labels = labels};
}

static void test_steps(cdrop_dtype t, uint64_t input_keep, double density)
{
    cdrop_batch batch = make_batch(t, density);
    cdrop_network *n = make_network(t, input_keep);
    for (int threads = 1; threads <= 3; threads++) {
        CHECK(taken_by_steps(n, &batch, 1, threads) > 0 || threads > 1, "the first step: is anything counted?");
        CHECK(taken_by_steps(n, &batch, 20, threads) == 0, "steps with %d threads", threads);
    }
    batch.n = ROWS / 2;
    CHECK(taken_by_steps(n, &batch, 20, 1) == 0, "steps on fewer rows");
    cdrop_network_free(n);
    guarded_release();
}

static void test_reserved(cdrop_dtype t)
{
    const cdrop_batch batch = make_batch(t, 0.2);
    cdrop_network *n = make_network(t, CDROP_KEEP_ALL);
    CHECK(cdrop_network_reserve(n, ROWS, 3) == CDROP_OK, "reserve");
    for (int threads = 1; threads <= 3; threads++)
        CHECK(taken_by_steps(n, &batch, 3, threads) == 0, "steps with %d threads", threads);
    cdrop_network_free(n);
    guarded_release();
}

/* How often a prediction takes memory; the rows come again and again. */
static int taken_by_sample(cdrop_network *n, cdrop_dtype t, const void *x, size_t rows, size_t passes, int threads)
{
    int64_t *number = malloc(rows * sizeof *number);
    void *mean = malloc(rows * CLASSES * size_of(t)), *information = malloc(rows * size_of(t));
    const cdrop_batch batch = {.x = x, .rows = number, .n = rows};
    const cdrop_uncertainty out = {.mean = mean, .mutual_information = information};
    const cdrop_sampling how = {.passes = passes, .seed = 1};
    for (size_t i = 0; i < rows; i++)
        number[i] = (int64_t)(i % ROWS);
    const int before = atomic_load(&taken);
    CHECK(cdrop_network_sample(n, &out, &batch, &how, threads) == CDROP_OK, "%zu rows", rows);
    const int count = atomic_load(&taken) - before;
    free(number), free(mean), free(information);
    return count;
}

static void test_samples(cdrop_dtype t, uint64_t input_keep)
{
    const void *x = random_array(t, ROWS * INPUTS, 0.5, 1);
    for (int threads = 1; threads <= 3; threads++) {
        cdrop_network *n = make_network(t, input_keep);
        CHECK(taken_by_sample(n, t, x, 1000, 1, threads) > 0, "the first: is anything counted?");
        CHECK(taken_by_sample(n, t, x, 1000, 50, threads) == 0, "more passes, %d threads", threads);
        CHECK(taken_by_sample(n, t, x, 4000, 2, threads) == 0, "more rows, %d threads", threads);
        cdrop_network_free(n);
    }
    guarded_release();
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>

#include "../../src_c/workspace.h"

static void take_two(cdrop_workspace *w, char **first, char **second)
{
    *first = cdrop_take(w, 3, 4);
    *second = cdrop_take(w, 128, 1);
}

/* A call's blocks lie in one allocation, and the sanitizer must still see a step from one into the next. */
static void test_blocks_are_apart(void)
{
    cdrop_workspace w = CDROP_MEASURE;
    char *first, *second;
    take_two(&w, &first, &second);
    CHECK(cdrop_open(&w) == CDROP_OK, "open");
    take_two(&w, &first, &second);
    for (ptrdiff_t i = 0; i < second + 128 - first; i++) {
        const int inside = i < 12 || i >= second - first;
        CHECK(__asan_address_is_poisoned(first + i) == !inside, "byte %td", i);
    }
    CHECK(__asan_address_is_poisoned(second + 128), "beyond the last");
    cdrop_release(&w);
}
#else
static void test_blocks_are_apart(void) {}
#endif

int main(void)
{
    check_case("blocks of a call");
    test_blocks_are_apart();
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        check_case("sparse rows, %s", DTYPE_NAME(t));
        test_steps(t, CDROP_KEEP_ALL, 0.2);
        check_case("dense rows, %s", DTYPE_NAME(t));
        test_steps(t, CDROP_KEEP_ALL, 1);
        check_case("input dropout, %s", DTYPE_NAME(t));
        test_steps(t, CDROP_KEEP_ALL / 5 * 4, 1);
        check_case("memory reserved, %s", DTYPE_NAME(t));
        test_reserved(t);
        check_case("predictions under masks, %s", DTYPE_NAME(t));
        test_samples(t, CDROP_KEEP_ALL);
        test_samples(t, CDROP_KEEP_ALL / 5 * 4);
    }
    return check_report();
}
