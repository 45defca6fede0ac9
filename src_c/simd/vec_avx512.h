/* The vector vocabulary on AVX-512 (F, BW, DQ, VL): 16 floats or 8 doubles. kernels.inc.h says what each name means;
 * comments here are about the choice of instructions, and where they differ from AVX2's.
 *
 * `bits` of the vocabulary are this path's masks: they select lanes of any instruction, so there are neither tables nor
 * vectors of masks. Casts to __mmask8 and __mmask16 drop what is beyond the lanes. */
#ifndef CDROP_VEC_AVX512_H
#define CDROP_VEC_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define VEC_LANES_f32 16
#define VEC_LANES_f64 8
#define DENSE_ABOVE 0.55
#define LISTING 0     /* measured on Zen 4: choices between 0.55 and 0.72 are within 4 % of each other */
#define VEC_CHAINS 8  /* of 32 registers: enough to hide the latency, see product.inc.h */
#define DENSE_LINES 6 /* tile of a dense product: 24 of 32 registers */
#define DENSE_VECTORS 4

typedef __m512 vec_f32;
typedef __m512d vec_f64;

static inline vec_f32 vload_f32(const float *p) { return _mm512_loadu_ps(p); }
static inline vec_f64 vload_f64(const double *p) { return _mm512_loadu_pd(p); }

/* Lanes that are left out are not touched, and 0: the row may end where mapped memory does. */
static inline vec_f32 vload_first_f32(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

static inline vec_f64 vload_first_f64(const double *p, size_t n)
{
    return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}

static inline void vstore_f32(float *p, vec_f32 a) { _mm512_storeu_ps(p, a); }
static inline void vstore_f64(double *p, vec_f64 a) { _mm512_storeu_pd(p, a); }

/* Here a masked store takes no longer than another (measured on Zen 4), unlike AVX2's. */
static inline void vstore_first_f32(float *p, vec_f32 a, size_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}

static inline void vstore_first_f64(double *p, vec_f64 a, size_t n)
{
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), a);
}

static inline vec_f32 vset_f32(float a) { return _mm512_set1_ps(a); }
static inline vec_f64 vset_f64(double a) { return _mm512_set1_pd(a); }
static inline vec_f32 vadd_f32(vec_f32 a, vec_f32 b) { return _mm512_add_ps(a, b); }
static inline vec_f64 vadd_f64(vec_f64 a, vec_f64 b) { return _mm512_add_pd(a, b); }
static inline vec_f32 vsub_f32(vec_f32 a, vec_f32 b) { return _mm512_sub_ps(a, b); }
static inline vec_f64 vsub_f64(vec_f64 a, vec_f64 b) { return _mm512_sub_pd(a, b); }
static inline vec_f32 vmul_f32(vec_f32 a, vec_f32 b) { return _mm512_mul_ps(a, b); }
static inline vec_f64 vmul_f64(vec_f64 a, vec_f64 b) { return _mm512_mul_pd(a, b); }
static inline vec_f32 vdiv_f32(vec_f32 a, vec_f32 b) { return _mm512_div_ps(a, b); }
static inline vec_f64 vdiv_f64(vec_f64 a, vec_f64 b) { return _mm512_div_pd(a, b); }
static inline vec_f32 vsqrt_f32(vec_f32 a) { return _mm512_sqrt_ps(a); }
static inline vec_f64 vsqrt_f64(vec_f64 a) { return _mm512_sqrt_pd(a); }
static inline vec_f32 vfma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec_f64 vfma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm512_fmadd_pd(a, b, c); }
/* Where a > b is false, because of a NaN or of two zeros too, the second operand, as on AVX2. */
static inline vec_f32 vmax_f32(vec_f32 a, vec_f32 b) { return _mm512_max_ps(a, b); }
static inline vec_f64 vmax_f64(vec_f64 a, vec_f64 b) { return _mm512_max_pd(a, b); }
static inline vec_f32 vmin_f32(vec_f32 a, vec_f32 b) { return _mm512_min_ps(a, b); }
static inline vec_f64 vmin_f64(vec_f64 a, vec_f64 b) { return _mm512_min_pd(a, b); }
static inline vec_f32 vabs_f32(vec_f32 a) { return _mm512_abs_ps(a); }
static inline vec_f64 vabs_f64(vec_f64 a) { return _mm512_abs_pd(a); }

/* Bits, not numbers. Logic on vectors of floats is of DQ. */
static inline vec_f32 vcopysign_f32(vec_f32 a, vec_f32 b)
{
    const vec_f32 sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b));
}

static inline vec_f64 vcopysign_f64(vec_f64 a, vec_f64 b)
{
    const vec_f64 sign = _mm512_set1_pd(-0.0);
    return _mm512_or_pd(_mm512_andnot_pd(sign, a), _mm512_and_pd(sign, b));
}

/* False for NaN: ordered comparisons. The result is a mask already. */
static inline unsigned vbits_le_f32(vec_f32 a, vec_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline unsigned vbits_le_f64(vec_f64 a, vec_f64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
static inline unsigned vbits_eq_f32(vec_f32 a, vec_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline unsigned vbits_eq_f64(vec_f64 a, vec_f64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }

static inline vec_f32 vselect_f32(unsigned bits, vec_f32 a, vec_f32 b)
{
    return _mm512_mask_blend_ps((__mmask16)bits, b, a);
}

static inline vec_f64 vselect_f64(unsigned bits, vec_f64 a, vec_f64 b)
{
    return _mm512_mask_blend_pd((__mmask8)bits, b, a);
}

/* See vec_avx2.h. vscalefps would take k as a number; the vocabulary has it in the low bits of one. */
static inline vec_f32 vscale2_f32(vec_f32 a, vec_f32 n)
{
    const __m512i shift = _mm512_slli_epi32(_mm512_castps_si512(n), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), shift));
}

static inline vec_f64 vscale2_f64(vec_f64 a, vec_f64 n)
{
    const __m512i shift = _mm512_slli_epi64(_mm512_castpd_si512(n), 52);
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(a), shift));
}

/* Compress in a register, then store the whole vector: compressing straight to memory is microcoded on Zen 4, where it
 * takes 36 times as long as these two (measured). Behind the packed lanes it stores zeros, where AVX2 stores garbage:
 * nothing may rely on either. */
static inline void vcompress_f32(float *values, vec_f32 a, unsigned bits)
{
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps((__mmask16)bits, a));
}

static inline void vcompress_f64(double *values, vec_f64 a, unsigned bits)
{
    _mm512_storeu_pd(values, _mm512_maskz_compress_pd((__mmask8)bits, a));
}

/* The whole vector is loaded, which the vocabulary allows; lanes whose bit is not set are +0. */
static inline vec_f32 vexpand_f32(const float *values, unsigned bits)
{
    return _mm512_maskz_expand_ps((__mmask16)bits, _mm512_loadu_ps(values));
}

static inline vec_f64 vexpand_f64(const double *values, unsigned bits)
{
    return _mm512_maskz_expand_pd((__mmask8)bits, _mm512_loadu_pd(values));
}

/* 128-bit lane L of the result holds in[4 L + row][0..3]: a transpose inside the lanes then makes whole columns. As on
 * AVX2 the lanes are filled from memory, and no instruction moves numbers between them. */
static inline __m512 vgather_quads(const float *in, size_t pitch)
{
    __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(in));
    r = _mm512_insertf32x4(r, _mm_loadu_ps(in + 4 * pitch), 1);
    r = _mm512_insertf32x4(r, _mm_loadu_ps(in + 8 * pitch), 2);
    return _mm512_insertf32x4(r, _mm_loadu_ps(in + 12 * pitch), 3);
}

static inline void vtranspose_f32(float *out, size_t out_pitch, const float *in, size_t in_pitch)
{
    for (int c = 0; c < 16; c += 4) {
        const __m512 r0 = vgather_quads(in + c, in_pitch), r1 = vgather_quads(in + c + in_pitch, in_pitch);
        const __m512 r2 = vgather_quads(in + c + 2 * in_pitch, in_pitch);
        const __m512 r3 = vgather_quads(in + c + 3 * in_pitch, in_pitch);
        const __m512d t0 = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
        const __m512d t1 = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
        const __m512d t2 = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
        const __m512d t3 = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
        float *row = out + (size_t)c * out_pitch;
        _mm512_storeu_ps(row, _mm512_castpd_ps(_mm512_unpacklo_pd(t0, t2)));
        _mm512_storeu_ps(row + out_pitch, _mm512_castpd_ps(_mm512_unpackhi_pd(t0, t2)));
        _mm512_storeu_ps(row + 2 * out_pitch, _mm512_castpd_ps(_mm512_unpacklo_pd(t1, t3)));
        _mm512_storeu_ps(row + 3 * out_pitch, _mm512_castpd_ps(_mm512_unpackhi_pd(t1, t3)));
    }
}

/* The same with lanes of two doubles. */
static inline __m512d vgather_pairs(const double *in, size_t pitch)
{
    __m512d r = _mm512_castpd128_pd512(_mm_loadu_pd(in));
    r = _mm512_insertf64x2(r, _mm_loadu_pd(in + 2 * pitch), 1);
    r = _mm512_insertf64x2(r, _mm_loadu_pd(in + 4 * pitch), 2);
    return _mm512_insertf64x2(r, _mm_loadu_pd(in + 6 * pitch), 3);
}

static inline void vtranspose_f64(double *out, size_t out_pitch, const double *in, size_t in_pitch)
{
    for (int c = 0; c < 8; c += 2) {
        const __m512d r0 = vgather_pairs(in + c, in_pitch), r1 = vgather_pairs(in + c + in_pitch, in_pitch);
        _mm512_storeu_pd(out + (size_t)c * out_pitch, _mm512_unpacklo_pd(r0, r1));
        _mm512_storeu_pd(out + (size_t)(c + 1) * out_pitch, _mm512_unpackhi_pd(r0, r1));
    }
}

/* The generator's eight 64-bit lanes are one register, its state four. Rotation is an instruction. */
typedef __m512i vwords;

static inline vwords wload(const uint64_t *p) { return _mm512_loadu_si512(p); }
static inline void wstore(uint64_t *p, vwords a) { _mm512_storeu_si512(p, a); }
static inline vwords wadd(vwords a, vwords b) { return _mm512_add_epi64(a, b); }
static inline vwords wxor(vwords a, vwords b) { return _mm512_xor_si512(a, b); }
static inline vwords wor(vwords a, vwords b) { return _mm512_or_si512(a, b); }
static inline vwords wand(vwords a, vwords b) { return _mm512_and_si512(a, b); }
static inline vwords wandnot(vwords a, vwords b) { return _mm512_andnot_si512(a, b); }
static inline vwords wshl17(vwords a) { return _mm512_slli_epi64(a, 17); }
static inline int wnone(vwords a) { return _mm512_test_epi64_mask(a, a) == 0; }
#define wrotl(a, k) _mm512_rol_epi64((a), (k)) /* the count must be a constant */

#endif
