/* The logarithm of a normal number, without a branch: kernels have loops over several, which compilers vectorize. */
#ifndef CDROP_LOGARITHM_H
#define CDROP_LOGARITHM_H

#include <stdint.h>
#include <string.h>

/* atanh of |s| <= 1/3. atanh(s) / s - 1 = z h(z) with z = s^2 <= 1/9. h is the Chebyshev interpolant of the series
 * sum z^k / (2 k + 3) on [0, 1/9], computed with mpmath at 40 digits: absolute error 9e-22. Horner's scheme
 * without a loop: one over an array of terms would keep the loop around it from being vectorized. */
static inline double cdrop_atanh_small(double s)
{
    const double z = s * s;
    double h = 0.074694142429899235 * z + 0.026417061140686356;
    h = h * z + 0.046159721366841237;
    h = h * z + 0.047285816036057424;
    h = h * z + 0.052659189060199418;
    h = h * z + 0.058821970513368847;
    h = h * z + 0.066666726616529892;
    h = h * z + 0.076923075383545864;
    h = h * z + 0.090909090934402781;
    h = h * z + 0.111111111110863944;
    h = h * z + 0.142857142857144109;
    h = h * z + 0.19999999999999999751;
    h = h * z + 0.33333333333333333333;
    return s + s * (z * h);
}

/* log(1 + x), 0 <= x <= 1. */
static inline double cdrop_log_1_plus(double x) { return 2 * cdrop_atanh_small(x / (2 + x)); }

/* log(x 2^shift) of a positive normal x. x = m 2^k with m in [sqrt(1/2), sqrt(2)) by its bits: the C library's frexp
 * takes as long as the rest, and a choice between two products of doubles would be a branch. Then it is k ln 2 +
 * 2 atanh((m - 1) / (m + 1)); ln 2 in two parts: the first has 33 significant bits, so that its product with k is
 * exact. */
static inline double cdrop_log_normal(double x, int shift)
{
    uint64_t bits;
    double m;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t fraction = bits & UINT64_C(0xfffffffffffff);
    const uint64_t high = fraction >= UINT64_C(0x6a09e667f3bcd); /* that of sqrt(1/2) and sqrt(2) */
    const int k = shift + (int)(bits >> 52) + (int)high - 1023;
    bits = fraction | (UINT64_C(1023) - high) << 52;
    memcpy(&m, &bits, sizeof m);
    return k * 0x1.62e42fefp-1 + (k * 0x1.473de6af278edp-34 + 2 * cdrop_atanh_small((m - 1) / (m + 1)));
}

#endif
