/* A step takes memory once: the first of its shape does, or what reserves it, and no later one; so does a prediction
 * under many masks, for any number of rows and of masks. And any allocation may fail. Every allocation of the library
 * is counted by check.c. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { INPUTS = 200, ROWS = 130, LAYERS = 3, CLASSES = 10 };

static const size_t units[LAYERS + 1] = {INPUTS, 150, 100, CLASSES};

static cdrop_status create(cdrop_network **n, cdrop_dtype t, uint64_t input_keep)
{
    const uint64_t half = CDROP_KEEP_ALL / 2, keep[LAYERS] = {input_keep, half, half};
    const cdrop_design design = {.dtype = t,
                                 .layers = LAYERS,
                                 .units = units,
                                 .keep = keep,
                                 .scale_in_training = 1,
                                 .activation = CDROP_RELU,
                                 .loss = CDROP_SOFTMAX_CROSS_ENTROPY,
                                 .seed = 1};
    return cdrop_network_create(n, &design);
}

static cdrop_network *make_network(cdrop_dtype t, uint64_t input_keep)
{
    static double weight[INPUTS * 150]; /* of any layer */
    static cdrop_dtype filled = DTYPES;
    cdrop_network *n;
    CHECK(create(&n, t, input_keep) == CDROP_OK, "create");
    for (size_t i = 0; filled != t && i < COUNT(weight); i++)
        put(t, weight, i, random_between(-0.1, 0.1));
    filled = t;
    for (size_t l = 0; l < LAYERS; l++)
        cdrop_network_set(n, l, CDROP_WEIGHT, weight, weight);
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
    const int before = atomic_load(&check_taken);
    double loss;
    for (int step = 0; step < steps; step++)
        CHECK(cdrop_network_step(n, batch, &adam, (uint64_t)step, threads, &loss) == CDROP_OK, "step %d", step);
    return atomic_load(&check_taken) - before;
}

static int64_t labels[ROWS];

static cdrop_batch make_batch(cdrop_dtype t, double density)
{
    for (size_t i = 0; i < ROWS; i++)
        labels[i] = (int64_t)random_below(CLASSES);
    return (cdrop_batch){.x = random_array(t, ROWS * INPUTS, density, 1), .n = ROWS, .truth.labels = labels};
}

static void test_steps(cdrop_dtype t, uint64_t input_keep, double density)
{
    cdrop_batch batch = make_batch(t, density);
    cdrop_network *n = make_network(t, input_keep);
    for (int threads = 1; threads <= 3; threads++) {
        CHECK(taken_by_steps(n, &batch, 1, threads) > 0 || threads > 1, "the first step: is anything counted?");
        CHECK(taken_by_steps(n, &batch, 5, threads) == 0, "steps with %d threads", threads);
    }
    batch.n = ROWS / 2;
    CHECK(taken_by_steps(n, &batch, 5, 1) == 0, "steps on fewer rows");
    cdrop_network_free(n);
    guarded_release();
}

static void test_reserved(cdrop_dtype t, size_t samples)
{
    cdrop_batch batch = make_batch(t, 0.2);
    batch.samples = samples;
    cdrop_network *n = make_network(t, CDROP_KEEP_ALL);
    CHECK(cdrop_network_reserve(n, ROWS, samples, 3) == CDROP_OK, "reserve");
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
    const int before = atomic_load(&check_taken);
    CHECK(cdrop_network_sample(n, &out, &batch, &how, threads) == CDROP_OK, "%zu rows", rows);
    const int count = atomic_load(&check_taken) - before;
    free(number), free(mean), free(information);
    return count;
}

static void test_samples(cdrop_dtype t, uint64_t input_keep)
{
    const void *x = random_array(t, ROWS * INPUTS, 0.5, 1);
    for (int threads = 1; threads <= 3; threads++) {
        cdrop_network *n = make_network(t, input_keep);
        CHECK(taken_by_sample(n, t, x, 450, 1, threads) > 0, "the first: is anything counted?");
        CHECK(taken_by_sample(n, t, x, 450, 3, threads) == 0, "more passes, %d threads", threads);
        CHECK(taken_by_sample(n, t, x, 900, 2, threads) == 0, "more rows, %d threads", threads);
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

/* ---- Allocations that fail ----------------------------------------------------------------------------------- */

typedef struct {
    cdrop_dtype t;
    cdrop_network *n;
    void *x, *w, *out;
    const int64_t *numbers;
} call;

static cdrop_status run_gemm(call *c)
{
    return cdrop_masked_gemm(c->t, c->out, c->x, c->w, NULL, NULL, ROWS, INPUTS, CLASSES, 1, CDROP_RELU, 1);
}

static cdrop_status run_gradients(call *c)
{
    return cdrop_masked_gradients(c->t, NULL, c->out, NULL, c->x, c->x, c->w, NULL, ROWS, INPUTS, CLASSES, 1,
                                  CDROP_RELU, 1);
}

static cdrop_status run_limit(call *c) { return cdrop_limit_norms(c->t, c->w, INPUTS, CLASSES, 0.5); }

static cdrop_status run_create(call *c)
{
    cdrop_network *n;
    const cdrop_status status = create(&n, c->t, CDROP_KEEP_ALL);
    CHECK((n == NULL) == (status != CDROP_OK), "status %d, and %s network", (int)status, n ? "a" : "no");
    cdrop_network_free(n);
    return status;
}

static cdrop_status run_step(call *c)
{
    const cdrop_batch batch = {.x = c->x, .n = ROWS, .truth.labels = c->numbers};
    const cdrop_optimizer sgd = {.rule = CDROP_SGD, .learning_rate = 0.1};
    double loss;
    return cdrop_network_step(c->n, &batch, &sgd, 1, 1, &loss);
}

static cdrop_status run_predict(call *c)
{
    const cdrop_batch batch = {.x = c->x, .n = ROWS};
    return cdrop_network_predict(c->n, c->out, &batch, CDROP_OUTPUTS, 1);
}

static cdrop_status run_sample(call *c)
{
    const cdrop_batch batch = {.x = c->x, .n = ROWS};
    const cdrop_sampling how = {.passes = 2, .seed = 1};
    const cdrop_uncertainty out = {.mean = c->out};
    return cdrop_network_sample(c->n, &out, &batch, &how, 1);
}

static cdrop_status run_times(call *c)
{
    double seconds[LAYERS * CDROP_TIMES];
    return cdrop_network_times(c->n, 1, seconds);
}

/* Lists for which there is no memory are not kept, which is no failure. */
static cdrop_status run_keep(call *c)
{
    const cdrop_batch all = {.x = c->x, .rows = c->numbers, .n = ROWS};
    cdrop_kept *kept;
    const cdrop_status status = cdrop_keep_batches(&kept, c->n, &all, 50, 1, 1);
    CHECK(status == CDROP_OK || !kept, "lists after a failure");
    const int none = !kept;
    cdrop_kept_free(kept);
    return none ? CDROP_NO_MEMORY : status;
}

/* The block that the last call left would do for this one: a larger one, which is refused, drops it. */
static void drop_spare_memory(call *c)
{
    atomic_store(&check_refused, atomic_load(&check_taken) + 1);
    CHECK(cdrop_masked_gemm(c->t, c->out, c->x, c->w, NULL, NULL, 1 << 30, 1 << 10, 1, 1, CDROP_RELU, 1) ==
              CDROP_NO_MEMORY,
          "terabytes");
}

/* One call for each of its allocations, which fails; then nothing is amiss, and the call runs. */
static void test_refusals(const char *name, cdrop_status (*run)(call *c), call *c)
{
    cdrop_status status = CDROP_NO_MEMORY;
    int number = 0;
    check_case("%s, %s", name, DTYPE_NAME(c->t));
    while (status != CDROP_OK) {
        drop_spare_memory(c);
        c->n = make_network(c->t, CDROP_KEEP_ALL);
        number++;
        atomic_store(&check_taken, 0);
        atomic_store(&check_refused, number);
        status = run(c);
        CHECK(status == (atomic_load(&check_taken) < number ? CDROP_OK : CDROP_NO_MEMORY), "allocation %d", number);
        atomic_store(&check_refused, 0);
        CHECK(run(c) == CDROP_OK, "after allocation %d", number);
        cdrop_network_free(c->n);
        guarded_release();
    }
    CHECK(number > 1, "nothing was refused");
}

static void test_failures(cdrop_dtype t)
{
    static double x[ROWS * INPUTS], w[INPUTS * CLASSES], out[INPUTS * CLASSES];
    static int64_t numbers[ROWS];
    call c = {.t = t, .x = x, .w = w, .out = out, .numbers = numbers};
    memset(x, 0, sizeof x);
    for (size_t i = 0; i < ROWS; i++)
        put(t, x, i * INPUTS + i, 1);
    for (size_t i = 0; i < COUNT(w); i++)
        put(t, w, i, random_between(-1, 1));
    test_refusals("gemm", run_gemm, &c);
    test_refusals("gradients", run_gradients, &c);
    test_refusals("limit of norms", run_limit, &c);
    test_refusals("a network", run_create, &c);
    test_refusals("a step", run_step, &c);
    test_refusals("a prediction", run_predict, &c);
    test_refusals("a prediction under masks", run_sample, &c);
    test_refusals("times", run_times, &c);
    test_refusals("kept lists", run_keep, &c);
}

/* Of what is counted here nothing depends on the path, and the path that is active at first is the slowest. */
static void select_fastest(void)
{
    int last = 0;
    while (cdrop_simd_usable(last + 1))
        last++;
    CHECK(cdrop_select_simd(cdrop_simd_usable(last)) == CDROP_OK, "%s", cdrop_simd_usable(last));
}

int main(void)
{
    select_fastest();
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
        test_reserved(t, 1);
        test_reserved(t, 2);
        check_case("predictions under masks, %s", DTYPE_NAME(t));
        test_samples(t, CDROP_KEEP_ALL);
        test_samples(t, CDROP_KEEP_ALL / 5 * 4);
        test_failures(t);
    }
    return check_report();
}
