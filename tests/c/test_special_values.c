/* NaN never vanishes, logits of any size are fine, and the caller's floating-point mode is its own. */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

/* ---- NaN ----------------------------------------------------------------------------------------------------- */

/* Quiet and signalling, of both signs, with and without low bits: some code forgets what it does to those. */
static const uint32_t nan_bits_f32[] = {0x7fc00000, 0xffc00000, 0x7fc00001, 0x7fffffff, 0xffffffff, 0x7f800001};
static const uint64_t nan_bits_f64[] = {
    UINT64_C(0x7ff8000000000000), UINT64_C(0xfff8000000000000), UINT64_C(0x7ff8000000000001),
    UINT64_C(0x7fffffffffffffff), UINT64_C(0xffffffffffffffff), UINT64_C(0x7ff0000000000001),
};

static void put_nan(cdrop_dtype t, void *p, size_t i, size_t which)
{
    if (t == CDROP_FLOAT64)
        memcpy((double *)p + i, &nan_bits_f64[which], sizeof(double));
    else
        memcpy((float *)p + i, &nan_bits_f32[which], sizeof(float));
}

static size_t count_nan(cdrop_dtype t, const void *p, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        found += isnan(get(t, p, i)) != 0;
    return found;
}

static void test_nan_activations(cdrop_dtype t, const cdrop_kernels *k, size_t n, size_t at, size_t which)
{
    for (int activation = CDROP_IDENTITY; activation <= CDROP_SIGMOID; activation++) {
        void *a = random_array(t, n, 1, 2);
        put_nan(t, a, at, which);
        k->activate(a, n, n, 1, (cdrop_activation)activation);
        CHECK(isnan(get(t, a, at)) && count_nan(t, a, n) == 1, "activation %d gives %g", activation, get(t, a, at));
    }
}

static void test_nan_losses(cdrop_dtype t, const cdrop_kernels *k, size_t n, size_t at, size_t which)
{
    void *logits = random_array(t, n, 1, 2), *out = guarded(n * size_of(t)), *targets = random_array(t, n, 1, 1);
    const cdrop_truth numbers = {.targets = targets};
    double quantiles[40];
    put_nan(t, logits, at, which);
    for (int64_t label = 0; label < (int64_t)n; label++)
        for (double smoothing = 0; smoothing < 0.2; smoothing += 0.1) {
            const cdrop_truth truth = {.labels = &label};
            const double loss =
                cdrop_loss_and_gradient(t, CDROP_SOFTMAX_CROSS_ENTROPY, &smoothing, out, logits, &truth, 1, n);
            CHECK(isnan(loss), "softmax, label %d: loss %g", (int)label, loss);
            CHECK(count_nan(t, out, n) == n, "softmax, label %d: %zu NaN in the gradient", (int)label,
                  count_nan(t, out, n));
        }
    for (size_t i = 0; i < n; i++)
        quantiles[i] = 0.5; /* also Huber's delta, and a smoothing */
    k->softmax(out, logits, n);
    CHECK(count_nan(t, out, n) == n, "softmax: %zu NaN in the probabilities", count_nan(t, out, n));
    for (int loss = CDROP_SIGMOID_CROSS_ENTROPY; loss <= CDROP_QUANTILE; loss++) {
        const double *parameters = loss == CDROP_ABSOLUTE_ERROR ? NULL : quantiles;
        const double value = cdrop_loss_and_gradient(t, (cdrop_loss)loss, parameters, out, logits, &numbers, 1, n);
        CHECK(isnan(value), "loss %d is %g", loss, value);
        CHECK(isnan(get(t, out, at)), "loss %d: gradient %g", loss, get(t, out, at));
    }
    k->exponential(logits, n);
    CHECK(count_nan(t, logits, n) == 1 && isnan(get(t, logits, at)), "exponential");
}

static void test_nan(const cdrop_path *path, cdrop_dtype t)
{
    const size_t lengths[] = {1, 3, 10, 17, 40};
    for (size_t i = 0; i < COUNT(lengths); i++)
        for (size_t at = 0; at < lengths[i]; at++)
            for (size_t which = 0; which < COUNT(nan_bits_f32); which++) {
                check_case("NaN %zu at %zu of %zu, %s %s", which, at, lengths[i], path->name, DTYPE_NAME(t));
                test_nan_activations(t, kernels_of(path, t), lengths[i], at, which);
                test_nan_losses(t, kernels_of(path, t), lengths[i], at, which);
                guarded_release();
            }
}

/* ---- Labels ------------------------------------------------------------------------------------------------- */

static void test_labels_of(cdrop_dtype t, const cdrop_kernels *k, const void *row, size_t n)
{
    int64_t above[40];
    size_t first = 0;
    for (size_t i = 1; i < n; i++)
        if (!isnan(get(t, row, first)) && !(get(t, row, i) <= get(t, row, first)))
            first = i;
    CHECK(k->largest(row, n) == first, "the largest is %zu, not %zu", k->largest(row, n), first);
    k->positive(above, row, n);
    for (size_t i = 0; i < n; i++)
        CHECK(above[i] == (get(t, row, i) > 0), "%g is reported as %d", get(t, row, i), (int)above[i]);
}

/* Of small integers many are equal: the first counts, and a NaN before any number. */
static void test_labels(const cdrop_path *path, cdrop_dtype t)
{
    for (size_t n = 1; n <= 40; n++) {
        check_case("labels of %zu, %s %s", n, path->name, DTYPE_NAME(t));
        void *row = random_array(t, n, 1, 3);
        test_labels_of(t, kernels_of(path, t), row, n);
        for (size_t i = 0; i < n; i++)
            put(t, row, i, round(get(t, row, i)));
        test_labels_of(t, kernels_of(path, t), row, n);
        for (size_t at = 0; at < n; at += 5) {
            put_nan(t, row, n - 1 - at, 0);
            test_labels_of(t, kernels_of(path, t), row, n);
        }
        guarded_release();
    }
}

/* ---- Weights of 0 -------------------------------------------------------------------------------------------- */

static void test_rows_without_weight(const cdrop_path *path, cdrop_dtype t)
{
    enum { N = 5 };
    check_case("a row without weight, %s %s", path->name, DTYPE_NAME(t));
    const double weights[] = {0, 2};
    void *outputs = random_array(t, 2 * N, 1, 1), *targets = random_array(t, 2 * N, 1, 1);
    void *out = guarded(2 * N * size_of(t));
    put(t, outputs, 0, INFINITY);
    const cdrop_truth truth = {.targets = targets, .weights = weights};
    const double loss = cdrop_loss_and_gradient(t, CDROP_SQUARED_ERROR, NULL, out, outputs, &truth, 2, N);
    double expected = 0;
    for (size_t i = N; i < 2 * N; i++)
        expected += 0.5 * pow(get(t, outputs, i) - get(t, targets, i), 2);
    CHECK(fabs(loss - expected) < 1e-12 * expected, "loss %g, not %g", loss, expected);
    guarded_release();
}

/* ---- Large logits -------------------------------------------------------------------------------------------- */

static void test_large_logits(const cdrop_path *path, cdrop_dtype t)
{
    enum { N = 19 };
    const double size = t == CDROP_FLOAT64 ? 1e300 : 1e38;
    check_case("logits of size %g, %s", size, path->name);
    for (int loss = CDROP_SOFTMAX_CROSS_ENTROPY; loss <= CDROP_SIGMOID_CROSS_ENTROPY; loss++)
        for (int64_t label = 0; label < N; label++) {
            void *logits = random_array(t, N, 1, size), *out = guarded(N * size_of(t));
            const cdrop_truth truth = {.labels = &label, .targets = random_array(t, N, 1, 1)};
            const double smoothing = label % 2 ? 0.1 : 0;
            const double value = cdrop_loss_and_gradient(t, (cdrop_loss)loss, &smoothing, out, logits, &truth, 1, N);
            int inside = 1;
            for (size_t i = 0; i < N; i++)
                inside &= fabs(get(t, out, i)) <= 2;
            CHECK(isfinite(value) && inside, "loss %d of label %d: %g", loss, (int)label, value);
            guarded_release();
        }
}

/* ---- Ties --------------------------------------------------------------------------------------------------- */

/* Where output and target are equal, the losses with a kink there have a gradient of 0; at Huber's it does not jump. */
static void test_kinks(const cdrop_path *path, cdrop_dtype t)
{
    const double quantile = 0.1, delta = 0.5;
    const double outputs_of[] = {1, 2, 0.5, 1.5, 1.75}, huber_slopes[] = {0, 0.5, -0.5, 0.5, 0.5};
    check_case("kinks, %s %s", path->name, DTYPE_NAME(t));
    for (size_t i = 0; i < COUNT(outputs_of); i++) {
        void *output = guarded(size_of(t)), *target = guarded(size_of(t)), *out = guarded(size_of(t));
        const cdrop_truth truth = {.targets = target};
        const double z = outputs_of[i];
        put(t, output, 0, z), put(t, target, 0, 1);
        double loss = cdrop_loss_and_gradient(t, CDROP_ABSOLUTE_ERROR, NULL, out, output, &truth, 1, 1);
        CHECK(loss == fabs(z - 1) && get(t, out, 0) == (z > 1) - (z < 1), "absolute error at %g: %g", z, loss);
        loss = cdrop_loss_and_gradient(t, CDROP_QUANTILE, &quantile, out, output, &truth, 1, 1);
        const double slope = z > 1 ? 0.9 : z < 1 ? -0.1 : 0;
        CHECK(loss == slope * (z - 1) && get(t, out, 0) == rounded(t, slope), "quantile at %g: %g", z, loss);
        loss = cdrop_loss_and_gradient(t, CDROP_HUBER, &delta, out, output, &truth, 1, 1);
        CHECK(get(t, out, 0) == huber_slopes[i], "Huber at %g: slope %g", z, get(t, out, 0));
        guarded_release();
    }
}

/* ---- Denormals ----------------------------------------------------------------------------------------------- */

static int flushes_denormals(void)
{
    volatile double smallest = DBL_MIN;
    volatile float smallest_f = FLT_MIN;
    const int flushes = smallest / 2 == 0;
    CHECK(flushes == (smallest_f / 2 == 0), "one type is flushed, the other is not");
    return flushes;
}

typedef struct {
    float x[200], w[32], out[200 * 16], dw[32], dx[400], mean[16];
    cdrop_network *network;
} data;

static void train_and_predict(data *d)
{
    const int64_t labels[100] = {0};
    const cdrop_batch batch = {.x = d->x, .n = 100, .truth.labels = labels};
    const cdrop_optimizer sgd = {.rule = CDROP_SGD, .learning_rate = 0.1};
    double loss;
    CHECK(cdrop_network_step(d->network, &batch, &sgd, 1, 3, &loss) == CDROP_OK, "step");
    CHECK(cdrop_network_predict(d->network, d->out, &batch, CDROP_PROBABILITIES, 3) == CDROP_OK, "predict");
}

/* Every public function that computes, on three threads where it takes some. */
static void call_everything(data *d)
{
    const cdrop_optimizer sgd = {.rule = CDROP_SGD, .learning_rate = 0.1};
    const int64_t label = 1;
    const cdrop_truth truth = {.labels = &label};
    cdrop_masked_gemm(CDROP_FLOAT32, d->out, d->x, d->w, NULL, NULL, 100, 2, 16, 1, CDROP_IDENTITY, 3);
    cdrop_masked_gradients(CDROP_FLOAT32, d->dx, d->dw, NULL, d->out, d->x, d->w, NULL, 100, 2, 16, 1, CDROP_RELU, 3);
    cdrop_loss_and_gradient(CDROP_FLOAT32, CDROP_SOFTMAX_CROSS_ENTROPY, NULL, d->mean, d->out, &truth, 1, 16);
    cdrop_exponential(CDROP_FLOAT32, d->mean, 16);
    cdrop_update_weights(CDROP_FLOAT32, d->w, d->dw, NULL, NULL, 32, &sgd);
    train_and_predict(d);
}

static void test_mode_is_restored(void)
{
    static data d;
    const size_t units[] = {2, 8, 16};
    const uint64_t keep[] = {CDROP_KEEP_ALL, UINT64_C(1) << 31};
    const cdrop_design design = {.layers = 2, .units = units, .keep = keep, .activation = CDROP_RELU};
    check_case("the caller's mode");
    CHECK(cdrop_network_create(&d.network, &design) == CDROP_OK, "create");
    CHECK(!flushes_denormals(), "this process flushes from the start");
    call_everything(&d);
    CHECK(!flushes_denormals(), "a function leaves its mode behind");
    const cdrop_fp_mode mode = cdrop_flush_denormals();
    CHECK(flushes_denormals() == CDROP_FLUSHES, "flushes: %d", flushes_denormals());
    call_everything(&d);
    CHECK(flushes_denormals() == CDROP_FLUSHES, "a function loses the caller's mode");
    cdrop_restore_fp_mode(mode);
    CHECK(!flushes_denormals(), "the mode is not restored");
    cdrop_network_free(d.network);
}

/* 1e-40 is a denormal: it must become +0 where the CPU can flush. */
static void test_every_thread_flushes(void)
{
    enum { ROWS = 600, OUT = 16 };
    static float x[ROWS], w[OUT], out[ROWS * OUT];
    for (size_t i = 0; i < ROWS; i++)
        x[i] = i % 2 ? 1e-30f : -1e-30f;
    for (size_t i = 0; i < OUT; i++)
        w[i] = 1e-10f;
    for (int threads = 1; threads <= 8; threads++) {
        size_t wrong = 0;
        check_case("denormals on %d threads", threads);
        cdrop_masked_gemm(CDROP_FLOAT32, out, x, w, NULL, NULL, ROWS, 1, OUT, 1, CDROP_IDENTITY, threads);
        for (size_t i = 0; i < ROWS * OUT; i++) {
            const float wanted = CDROP_FLUSHES ? 0 : x[i / OUT] * 1e-10f;
            wrong += first_difference(CDROP_FLOAT32, &out[i], &wanted, 1) == 0;
        }
        CHECK(wrong == 0, "%zu wrong elements", wrong);
    }
}

/* A product that rounds up to the smallest normal number: ARM calls it tiny before it rounds, and x86-64 after. It is
 * one of the two exceptions in docs/reproducibility.md. */
static void test_product_at_the_edge(cdrop_dtype t)
{
#if defined(__aarch64__)
    const double wanted = 0;
#else
    const double wanted = t == CDROP_FLOAT64 ? DBL_MIN : (double)FLT_MIN;
#endif
    const double small = t == CDROP_FLOAT64 ? 0x1p-511 : 0x1p-63, part = t == CDROP_FLOAT64 ? 0x1p-27 : 0x1p-13;
    void *x = guarded(size_of(t)), *w = guarded(size_of(t)), *out = guarded(size_of(t));
    check_case("a product at the edge, %s %s", cdrop_simd_active(), DTYPE_NAME(t));
    put(t, x, 0, (1 + part) * small);
    put(t, w, 0, (1 - part) * small);
    cdrop_masked_gemm(t, out, x, w, NULL, NULL, 1, 1, 1, 1, CDROP_IDENTITY, 1);
    CHECK(get(t, out, 0) == wanted, "%a, not %a", get(t, out, 0), wanted);
    guarded_release();
}

int main(void)
{
    const cdrop_path *paths[MOST_PATHS];
    all_paths(paths);
    for (int i = 0; cdrop_simd_usable(i); i++) {
        cdrop_select_simd(cdrop_simd_usable(i));
        for (cdrop_dtype t = 0; t < DTYPES; t++) {
            test_nan(cdrop_active_path(), t);
            test_large_logits(cdrop_active_path(), t);
            test_kinks(cdrop_active_path(), t);
            test_labels(cdrop_active_path(), t);
            test_rows_without_weight(cdrop_active_path(), t);
            test_product_at_the_edge(t);
        }
        test_mode_is_restored();
        test_every_thread_flushes();
    }
    return check_report();
}
