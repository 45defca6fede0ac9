/* cdrop_masked_gemm and cdrop_masked_gradients against plain loops, bit for bit, on every path and number of threads.
 * All arrays are exactly as large as the caller's. */
#include <stdio.h>
#include <string.h>

#include "check.h"

enum { MOST_INPUTS = 1100 };

static const int thread_counts[] = {1, 2, 3, 4, 8};
static const double densities[] = {0.05, 0.25, 0.5, 1};

typedef struct {
    cdrop_dtype t;
    size_t rows, n_in, n_out;
    double scale;
    cdrop_activation activation;
    const void *x, *w, *bias, *dout;
    const uint64_t *mask;
} problem;

/* x * mask * scale, or 0 where the entry is not live: dropped, zero, or with the ReLU negative. */
static double live_value(const problem *p, size_t row, size_t i)
{
    const double x = get(p->t, p->x, row * p->n_in + i);
    if (p->mask && !bit_at(p->mask + row * cdrop_words(p->n_in), i))
        return 0;
    return rounded(p->t, x * rounded(p->t, p->scale));
}

static void activate(const problem *p, void *a, size_t n)
{
    kernels_of(&cdrop_path_scalar, p->t)->activate(a, n, n, 1, p->activation);
}

/* ---- Forward ------------------------------------------------------------------------------------------------- */

static void naive_gemm(const problem *p, void *out)
{
    double live[MOST_INPUTS];
    for (size_t row = 0; row < p->rows; row++) {
        for (size_t i = 0; i < p->n_in; i++)
            live[i] = live_value(p, row, i);
        for (size_t j = 0; j < p->n_out; j++) {
            double sum = p->bias ? get(p->t, p->bias, j) : 0;
            for (size_t i = 0; i < p->n_in; i++)
                sum = fused(p->t, live[i], get(p->t, p->w, i * p->n_out + j), sum);
            put(p->t, out, row * p->n_out + j, sum + 0.0);
        }
    }
    activate(p, out, p->rows * p->n_out);
}

static void check_array(const problem *p, const char *name, const void *got, const void *wanted, size_t n)
{
    const size_t at = first_difference(p->t, got, wanted, n);
    CHECK(at == n, "%s, element %zu: %a, not %a", name, at, get(p->t, got, at), get(p->t, wanted, at));
}

static void name_case(const problem *p, const char *operation, int threads)
{
    check_case("%s %zu x %zu x %zu, activation %d, %s, %s, %s, %d threads", operation, p->rows, p->n_in, p->n_out,
               p->activation, p->mask ? "mask" : "no mask", cdrop_simd_active(), DTYPE_NAME(p->t), threads);
}

static void check_gemm(const problem *p, const void *wanted, int threads)
{
    void *out = guarded(p->rows * p->n_out * size_of(p->t));
    name_case(p, "gemm", threads);
    CHECK(cdrop_masked_gemm(p->t, out, p->x, p->w, p->bias, p->mask, p->rows, p->n_in, p->n_out, p->scale,
                            p->activation, threads) == CDROP_OK,
          "status");
    check_array(p, "out", out, wanted, p->rows * p->n_out);
}

/* ---- Gradients ----------------------------------------------------------------------------------------------- */

typedef struct {
    void *dinput, *dweight, *dbias;
} gradients;

static gradients make_gradients(const problem *p, int with)
{
    const size_t size = size_of(p->t);
    return (gradients){
        .dinput = with & 1 ? guarded(p->rows * p->n_in * size) : NULL,
        .dweight = with & 2 ? guarded(p->n_in * p->n_out * size) : NULL,
        .dbias = with & 4 ? guarded(p->n_out * size) : NULL,
    };
}

/* delta times the activation's derivative at its output a, each operation rounded. */
static double through_activation(const problem *p, double delta, double a)
{
    const cdrop_dtype t = p->t;
    switch (p->activation) {
    case CDROP_RELU:
        return a <= 0 ? 0 : delta;
    case CDROP_LEAKY_RELU:
        return a <= 0 ? rounded(t, delta * rounded(t, CDROP_LEAK)) : delta;
    case CDROP_TANH:
        return rounded(t, delta * rounded(t, 1 - rounded(t, a * a)));
    case CDROP_SIGMOID:
        return rounded(t, delta * rounded(t, a * rounded(t, 1 - a)));
    case CDROP_IDENTITY:
        break;
    }
    return delta;
}

static void naive_dinput(const problem *p, void *dinput)
{
    for (size_t row = 0; row < p->rows; row++)
        for (size_t i = 0; i < p->n_in; i++) {
            const int kept = !p->mask || bit_at(p->mask + row * cdrop_words(p->n_in), i);
            const double a = get(p->t, p->x, row * p->n_in + i);
            double sum = 0;
            for (size_t j = 0; j < p->n_out; j++)
                sum = fused(p->t, get(p->t, p->dout, row * p->n_out + j), get(p->t, p->w, i * p->n_out + j), sum);
            sum = rounded(p->t, (sum + 0.0) * rounded(p->t, p->scale));
            put(p->t, dinput, row * p->n_in + i, kept ? through_activation(p, sum, a) : 0);
        }
}

static void naive_gradients(const problem *p, gradients g)
{
    naive_dinput(p, g.dinput);
    for (size_t i = 0; i < p->n_in; i++)
        for (size_t j = 0; j < p->n_out; j++) {
            double sum = 0;
            for (size_t row = 0; row < p->rows; row++) {
                const double x = live_value(p, row, i);
                if (p->activation != CDROP_RELU || x > 0)
                    sum = fused(p->t, x, get(p->t, p->dout, row * p->n_out + j), sum);
            }
            put(p->t, g.dweight, i * p->n_out + j, sum + 0.0);
        }
    for (size_t j = 0; j < p->n_out; j++) {
        double sum = 0;
        for (size_t row = 0; row < p->rows; row++)
            sum = rounded(p->t, sum + get(p->t, p->dout, row * p->n_out + j));
        put(p->t, g.dbias, j, sum);
    }
}

static void check_gradients(const problem *p, gradients wanted, int threads, int with)
{
    const gradients g = make_gradients(p, with);
    name_case(p, "gradients", threads);
    CHECK(cdrop_masked_gradients(p->t, g.dinput, g.dweight, g.dbias, p->dout, p->x, p->w, p->mask, p->rows, p->n_in,
                                 p->n_out, p->scale, p->activation, threads) == CDROP_OK,
          "status");
    if (g.dinput)
        check_array(p, "dinput", g.dinput, wanted.dinput, p->rows * p->n_in);
    if (g.dweight)
        check_array(p, "dweight", g.dweight, wanted.dweight, p->n_in * p->n_out);
    if (g.dbias)
        check_array(p, "dbias", g.dbias, wanted.dbias, p->n_out);
}

/* ---- Problems ------------------------------------------------------------------------------------------------ */

/* All paths and thread counts, or with `quick` one number of threads each. */
static void run_problem(const problem *p, int quick)
{
    void *out = guarded(p->rows * p->n_out * size_of(p->t));
    const gradients wanted = make_gradients(p, 7);
    naive_gemm(p, out);
    naive_gradients(p, wanted);
    check_compared(p->t, out, p->rows * p->n_out);
    check_compared(p->t, wanted.dinput, p->rows * p->n_in);
    check_compared(p->t, wanted.dweight, p->n_in * p->n_out);
    for (int i = 0; cdrop_simd_usable(i); i++)
        for (size_t n = quick ? random_below(COUNT(thread_counts)) : 0, end = quick ? n + 1 : COUNT(thread_counts);
             n < end; n++) {
            cdrop_select_simd(cdrop_simd_usable(i));
            check_gemm(p, out, thread_counts[n]);
            check_gradients(p, wanted, thread_counts[n], quick ? (int)random_below(8) : 7);
        }
    guarded_release();
}

static problem make_problem(cdrop_dtype t, size_t rows, size_t n_in, size_t n_out, double density, int variant)
{
    problem p = {.t = t, .rows = rows, .n_in = n_in, .n_out = n_out, .scale = variant % 3 ? 1 / 0.7 : 1};
    p.activation = (cdrop_activation)(variant % 5);
    p.x = random_array(t, rows * n_in, density, 1);
    p.w = random_array(t, n_in * n_out, 0.9, 1);
    p.dout = random_array(t, rows * n_out, 0.9, 1);
    p.bias = variant % 4 ? random_array(t, n_out, 0.9, 1) : NULL;
    p.mask = variant % 7 ? random_mask(rows, n_in, 0.6) : NULL;
    return p;
}

static void test_small(cdrop_dtype t)
{
    const size_t sizes[] = {0, 1, 2, 15, 16, 17, 63, 65};
    int variant = 0;
    for (size_t r = 0; r < COUNT(sizes); r++)
        for (size_t i = 0; i < COUNT(sizes); i++)
            for (size_t o = 0; o < COUNT(sizes); o++, variant++) {
                const double density = densities[random_below(COUNT(densities))];
                const problem p = make_problem(t, sizes[r], sizes[i], sizes[o], density, variant);
                run_problem(&p, 1);
            }
}

/* Every number of rows, inputs and outputs up to 130. */
static void test_sizes(cdrop_dtype t)
{
    for (size_t n = 0; n <= 130; n++)
        for (int which = 0; which < 3; which++) {
            if (!IN_SHORT(n + (size_t)which, 3))
                continue;
            size_t shape[3] = {1 + random_below(20), 1 + random_below(20), 1 + random_below(20)};
            shape[which] = n;
            const problem p = make_problem(t, shape[0], shape[1], shape[2], densities[n % 4], (int)n + which);
            run_problem(&p, 1);
        }
}

/* More rows, panels and blocks than threads, and fewer; each activation, with every thread count. */
static void test_threads(cdrop_dtype t)
{
    const size_t shapes[][3] = {{130, 129, 33}, {70, 37, 300}, {200, 65, 130}, {1, 200, 200}, {129, 1, 1}};
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int variant = 5; variant < 11; variant++) {
            const problem p = make_problem(t, shapes[i][0], shapes[i][1], shapes[i][2], densities[i % 4], variant);
            run_problem(&p, !IN_SHORT(i + (size_t)variant, 3));
        }
}

/* More rows, and more summed entries, than a product takes at once; dense, as the rows stand (variants 0 and 21) or
 * under a mask, and as lists. */
static void test_large(cdrop_dtype t)
{
    const int variants[] = {0, 21, 4, 8};
    for (size_t i = 0; i < COUNT(variants); i++)
        for (size_t d = 1; d < COUNT(densities); d += 2) {
            const problem p = make_problem(t, 270, MOST_INPUTS, 3, densities[d], variants[i]);
            run_problem(&p, 1);
        }
}

int main(void)
{
    cdrop_set_cpus(2); /* so that teams of two spin, and larger ones yield */
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        test_small(t);
        test_sizes(t);
        test_threads(t);
        test_large(t);
        check_mostly_nonzero("products and gradients");
    }
    return check_report();
}
