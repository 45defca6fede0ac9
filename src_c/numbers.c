/* Logarithms with the same bits on every machine, and the test for NaN and infinity. C libraries round their logarithms
 * differently, and a step must not depend on which one is installed. */
#include "cdrop.h"
#include "logarithm.h"

double cdrop_log1p(double x) { return cdrop_log_1_plus(x); }

double cdrop_log(double x)
{
    if (!(x > 0))
        return NAN;
    if (isinf(x))
        return x;
    int shift = 0;
    if (x < 0x1p-1022)
        x = frexp(x, &shift);
    return cdrop_log_normal(x, shift);
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
