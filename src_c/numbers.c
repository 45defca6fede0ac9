/* Logarithms with the same bits on every machine, and the test for NaN and infinity. C libraries round their logarithms
 * differently, and a step must not depend on which one is installed. */
#include <string.h>

#include "cdrop.h"

/* atanh(s) / s - 1 = z h(z) with z = s^2 <= 1/9. h is the Chebyshev interpolant of the series sum z^k / (2 k + 3) on
 * [0, 1/9], computed with mpmath at 40 digits: absolute error 9e-22. */
static const double terms[] = {
    0.074694142429899235, 0.026417061140686356,   0.046159721366841237,   0.047285816036057424, 0.052659189060199418,
    0.058821970513368847, 0.066666726616529892,   0.076923075383545864,   0.090909090934402781, 0.111111111110863944,
    0.142857142857144109, 0.19999999999999999751, 0.33333333333333333333,
};

static double atanh_small(double s)
{
    const double z = s * s;
    double h = terms[0];
    for (size_t i = 1; i < sizeof terms / sizeof *terms; i++)
        h = h * z + terms[i];
    return s + s * (z * h);
}

double cdrop_log1p(double x) { return 2 * atanh_small(x / (2 + x)); }

/* x = m 2^k with m in [1/2, 1), from the bits of x; the C library's frexp takes as long as the rest of the
 * logarithm. */
static double mantissa(double x, int *k)
{
    uint64_t bits;
    if (x < 0x1p-1022)
        return frexp(x, k);
    memcpy(&bits, &x, sizeof bits);
    *k = (int)(bits >> 52) - 1022;
    bits = (bits & UINT64_C(0xfffffffffffff)) | UINT64_C(0x3fe0000000000000);
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x = m 2^k with m in [sqrt(1/2), sqrt(2)), log x = k ln 2 + 2 atanh((m - 1) / (m + 1)); ln 2 in two parts: the
 * first has 33 significant bits, so that its product with k is exact. */
double cdrop_log(double x)
{
    if (!(x > 0))
        return NAN;
    if (isinf(x))
        return x;
    int k;
    double m = mantissa(x, &k);
    if (m < 0.70710678118654752440) {
        m *= 2;
        k--;
    }
    return k * 0x1.62e42fefp-1 + (k * 0x1.473de6af278edp-34 + 2 * atanh_small((m - 1) / (m + 1)));
}

/* x - x is 0 for a finite number and NaN for the others: no branch, so that compilers vectorize it. */
#define ALL_FINITE(name, REAL)                                                                                         \
    static int name(const REAL *x, size_t n)                                                                           \
    {                                                                                                                  \
        int bad = 0;                                                                                                   \
        for (size_t i = 0; i < n; i++)                                                                                 \
            bad |= !(x[i] - x[i] == 0);                                                                                \
        return !bad;                                                                                                   \
    }

ALL_FINITE(all_finite_f32, float)
ALL_FINITE(all_finite_f64, double)

int cdrop_all_finite(cdrop_dtype dtype, const void *x, size_t n)
{
    return dtype == CDROP_FLOAT32 ? all_finite_f32(x, n) : all_finite_f64(x, n);
}
