/* The library's own functions against the C library's in long double, in units in the last place. Prints the worst of
 * each. One lane is enough: test_kernels.c proves that all paths give the same bits. */
#include <float.h>
#include <stdio.h>

#include "check.h"

/* The kernels' own text, for the functions that the dispatch table does not show. */
#define PATH scalar
#include "../../src_c/simd/vec_scalar.h"
#define VEC_CHAINS_BYTES 64
#include "../../src_c/simd/path.inc.h"

static const cdrop_path own = {"scalar", &kernels_scalar_f32, &kernels_scalar_f64, mask_block};

enum { POINTS = 20000 };

typedef double (*approximation)(cdrop_dtype t, double x);
typedef long double (*exact)(long double x);

/* Of a normal number. */
static double error_in_ulp(cdrop_dtype t, double value, long double truth)
{
    int exponent;
    if ((long double)value == truth)
        return 0;
    frexpl(truth, &exponent);
    return (double)(fabsl((long double)value - truth) / ldexpl(1, exponent - (t == CDROP_FLOAT64 ? 53 : 24)));
}

/* Half of the points spread evenly, half by their exponent; of the type, between low and high, which have one sign. */
static double worst_error(cdrop_dtype t, approximation f, exact g, double low, double high)
{
    const double nearest = fmax(fmin(fabs(low), fabs(high)), t == CDROP_FLOAT64 ? 1e-300 : 1e-37);
    const double farthest = fmax(fabs(low), fabs(high)), sign = low < 0 ? -1 : 1;
    double worst = 0;
    for (int i = 0; i < POINTS; i++) {
        const double even = random_between(low, high), spread = exp(random_between(log(nearest), log(farthest)));
        const double x = rounded(t, i % 2 ? even : sign * spread);
        if (x >= low && x <= high)
            worst = fmax(worst, error_in_ulp(t, f(t, x), g((long double)x)));
    }
    return worst;
}

/* ---- The functions ------------------------------------------------------------------------------------------- */

static double our_exp(cdrop_dtype t, double x)
{
    return t == CDROP_FLOAT64 ? exp_scalar_f64(x) : (double)exp_scalar_f32((float)x);
}

static double our_exp_any(cdrop_dtype t, double x)
{
    return t == CDROP_FLOAT64 ? exp_any_scalar_f64(x) : (double)exp_any_scalar_f32((float)x);
}

static double our_expm1(cdrop_dtype t, double x)
{
    return t == CDROP_FLOAT64 ? expm1_scalar_f64(x) : (double)expm1_scalar_f32((float)x);
}

static double activated(cdrop_dtype t, double x, cdrop_activation activation)
{
    double element;
    put(t, &element, 0, x);
    kernels_of(&own, t)->activate(&element, 1, 1, 1, activation);
    return get(t, &element, 0);
}

static double our_tanh(cdrop_dtype t, double x) { return activated(t, x, CDROP_TANH); }
static double our_sigmoid(cdrop_dtype t, double x) { return activated(t, x, CDROP_SIGMOID); }
static double our_log(cdrop_dtype t, double x) { return (void)t, cdrop_log(x); }
static double our_log1p(cdrop_dtype t, double x) { return (void)t, cdrop_log1p(x); }
static long double exact_sigmoid(long double x) { return 1 / (1 + expl(-x)); }

typedef struct {
    const char *name;
    approximation ours;
    exact truth;
    cdrop_dtype t;
    double low, high, bound;
} function;

/* Bounds: the worst of 6 million points each, rounded up. */
static const function functions[] = {
    {"exp", our_exp, expl, CDROP_FLOAT32, -86.9, 0, 1.2},
    {"exp", our_exp, expl, CDROP_FLOAT64, -707.9, 0, 1.2},
    {"exp", our_exp_any, expl, CDROP_FLOAT32, 0, 87.99, 1.2},
    {"exp", our_exp_any, expl, CDROP_FLOAT64, 0, 708.99, 1.2},
    {"expm1", our_expm1, expm1l, CDROP_FLOAT32, -86.9, 0, 1.2},
    {"expm1", our_expm1, expm1l, CDROP_FLOAT64, -707.9, 0, 1.2},
    {"tanh", our_tanh, tanhl, CDROP_FLOAT32, -20, 0, 2.6},
    {"tanh", our_tanh, tanhl, CDROP_FLOAT32, 0, 20, 2.6},
    {"tanh", our_tanh, tanhl, CDROP_FLOAT64, -40, 0, 2.6},
    {"tanh", our_tanh, tanhl, CDROP_FLOAT64, 0, 40, 2.6},
    {"sigmoid", our_sigmoid, exact_sigmoid, CDROP_FLOAT32, -86.9, 0, 2.3},
    {"sigmoid", our_sigmoid, exact_sigmoid, CDROP_FLOAT32, 0, 90, 1.6},
    {"sigmoid", our_sigmoid, exact_sigmoid, CDROP_FLOAT64, -707.9, 0, 2.3},
    {"sigmoid", our_sigmoid, exact_sigmoid, CDROP_FLOAT64, 0, 710, 1.6},
    {"log", our_log, logl, CDROP_FLOAT64, 0x1p-1022, 1e300, 2.1},
    {"log", our_log, logl, CDROP_FLOAT64, 0.5, 2, 2.1},
    {"log1p", our_log1p, log1pl, CDROP_FLOAT64, 0, 1, 2.1},
};

/* Some C libraries compute in double what they return as long double (musl on RISC-V), and in others the types are
 * one. */
static double error_of_truth(cdrop_dtype t)
{
    const volatile long double x = 1;
    return t == CDROP_FLOAT64 && expl(x) == (long double)(double)expl(x) ? 1 : 0;
}

static void test_accuracy(void)
{
    for (size_t i = 0; i < COUNT(functions); i++) {
        const function *f = &functions[i];
        const double worst = worst_error(f->t, f->ours, f->truth, f->low, f->high);
        check_case("%s %s", f->name, DTYPE_NAME(f->t));
        printf("  %-7s %s on [%g, %g]: %.2f ulp\n", f->name, DTYPE_NAME(f->t), f->low, f->high, worst);
        CHECK(worst <= f->bound + error_of_truth(f->t), "%g ulp between %g and %g", worst, f->low, f->high);
    }
}

/* Exact where it matters: no unit is born or dies by rounding. */
static void test_end_points(void)
{
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        check_case("end points, %s", DTYPE_NAME(t));
        CHECK(our_exp(t, 0) == 1 && our_exp(t, -INFINITY) == 0, "exp");
        CHECK(our_exp_any(t, 0) == 1 && our_exp_any(t, -INFINITY) == 0 && isnan(our_exp_any(t, NAN)), "exp");
        CHECK(isinf(our_exp_any(t, INFINITY)) && isinf(our_exp_any(t, t == CDROP_FLOAT64 ? 709 : 88)), "exp");
        for (double x = -80; x <= 0; x += 0.125)
            CHECK(our_exp_any(t, x) == our_exp(t, x), "exp of %g", x);
        CHECK(our_tanh(t, 0) == 0 && our_tanh(t, INFINITY) == 1 && our_tanh(t, -INFINITY) == -1, "tanh");
        CHECK(our_sigmoid(t, 0) == 0.5 && our_sigmoid(t, INFINITY) == 1 && our_sigmoid(t, -INFINITY) == 0, "sigmoid");
    }
    check_case("end points of the logarithms");
    CHECK(cdrop_log(1) == 0 && cdrop_log1p(0) == 0 && isinf(cdrop_log(INFINITY)), "log");
    CHECK(isnan(cdrop_log(0)) && isnan(cdrop_log(-1)) && isnan(cdrop_log(NAN)) && isnan(cdrop_log1p(NAN)),
          "log of NaN");
}

int main(void)
{
    test_accuracy();
    test_end_points();
    return check_report();
}
