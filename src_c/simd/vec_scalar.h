/* The vector vocabulary, one lane wide: the reference path, and the path of CPUs without a better one.
 *
 * Every vec_*.h defines the same names for float (suffix _f32) and double (_f64), and `vwords`, one draw of the
 * generator's eight lanes. kernels.inc.h says what each name means; this file is its plainest reading.
 *
 * A fused multiply-add is one instruction where the including file's target has one (it may say so by CDROP_HAS_FMA),
 * and a function of fma.c where not; both round once, so the bits agree. */
#ifndef CDROP_VEC_SCALAR_H
#define CDROP_VEC_SCALAR_H

#include <stdint.h>
#include <string.h>

#include "../fma.h"

#if defined(CDROP_HAS_FMA)
#define FMA_f32 __builtin_fmaf
#define FMA_f64 __builtin_fma
#else
#define FMA_f32 cdrop_fma_f32
#define FMA_f64 cdrop_fma_f64
#endif

#define VEC_LANES_f32 1
#define VEC_LANES_f64 1
#define DENSE_ABOVE 0.9
#define LISTING 0
#define VEC_CHAINS 16 /* output vectors a product keeps in registers */
#define DENSE_LINES 2 /* tile of a dense product */
#define DENSE_VECTORS 4

#define SCALAR_VOCABULARY(S, REAL, BITS, MANTISSA, FMA, SQRT, ABS, COPYSIGN)                                           \
    typedef REAL vec_##S;                                                                                              \
    static inline vec_##S vload_##S(const REAL *p) { return *p; }                                                      \
    static inline vec_##S vload_first_##S(const REAL *p, size_t n) { return n ? *p : 0; }                              \
    static inline void vstore_##S(REAL *p, vec_##S a) { *p = a; }                                                      \
    static inline void vstore_first_##S(REAL *p, vec_##S a, size_t n)                                                  \
    {                                                                                                                  \
        if (n)                                                                                                         \
            *p = a;                                                                                                    \
    }                                                                                                                  \
    static inline vec_##S vset_##S(REAL a) { return a; }                                                               \
    static inline vec_##S vadd_##S(vec_##S a, vec_##S b) { return a + b; }                                             \
    static inline vec_##S vsub_##S(vec_##S a, vec_##S b) { return a - b; }                                             \
    static inline vec_##S vmul_##S(vec_##S a, vec_##S b) { return a * b; }                                             \
    static inline vec_##S vdiv_##S(vec_##S a, vec_##S b) { return a / b; }                                             \
    static inline vec_##S vsqrt_##S(vec_##S a) { return SQRT(a); }                                                     \
    static inline vec_##S vfma_##S(vec_##S a, vec_##S b, vec_##S c) { return FMA(a, b, c); }                           \
    static inline vec_##S vmax_##S(vec_##S a, vec_##S b) { return a > b ? a : b; }                                     \
    static inline vec_##S vmin_##S(vec_##S a, vec_##S b) { return a < b ? a : b; }                                     \
    static inline vec_##S vabs_##S(vec_##S a) { return ABS(a); }                                                       \
    static inline vec_##S vcopysign_##S(vec_##S a, vec_##S b) { return COPYSIGN(a, b); }                               \
    static inline unsigned vbits_le_##S(vec_##S a, vec_##S b) { return a <= b; }                                       \
    static inline unsigned vbits_eq_##S(vec_##S a, vec_##S b) { return a == b; }                                       \
    static inline vec_##S vselect_##S(unsigned bits, vec_##S a, vec_##S b) { return bits & 1 ? a : b; }                \
    static inline vec_##S vscale2_##S(vec_##S a, vec_##S n)                                                            \
    {                                                                                                                  \
        BITS x, y;                                                                                                     \
        memcpy(&x, &a, sizeof x);                                                                                      \
        memcpy(&y, &n, sizeof y);                                                                                      \
        x += y << (MANTISSA);                                                                                          \
        memcpy(&a, &x, sizeof a);                                                                                      \
        return a;                                                                                                      \
    }                                                                                                                  \
    static inline void vcompress_##S(REAL *values, vec_##S a, unsigned bits)                                           \
    {                                                                                                                  \
        if (bits & 1)                                                                                                  \
            *values = a;                                                                                               \
    }                                                                                                                  \
    static inline vec_##S vexpand_##S(const REAL *values, unsigned bits) { return bits & 1 ? *values : 0; }            \
    static inline void vtranspose_##S(REAL *out, size_t out_pitch, const REAL *in, size_t in_pitch)                    \
    {                                                                                                                  \
        (void)out_pitch, (void)in_pitch;                                                                               \
        *out = *in;                                                                                                    \
    }

SCALAR_VOCABULARY(f32, float, uint32_t, 23, FMA_f32, __builtin_sqrtf, __builtin_fabsf, __builtin_copysignf)
SCALAR_VOCABULARY(f64, double, uint64_t, 52, FMA_f64, __builtin_sqrt, __builtin_fabs, __builtin_copysign)

#include "words_plain.h"

#endif
