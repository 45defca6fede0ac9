/* The vector vocabulary on AVX2 and FMA: 8 floats or 4 doubles. kernels.inc.h says what each name means; comments here
 * are about the choice of instructions.
 *
 * What AVX2 lacks is bits that select lanes. A mask is a vector here, so `bits` are spread into lanes first (vmask),
 * and what AVX-512 does in one instruction takes two or three, or a table. All arithmetic is a single instruction that
 * rounds as IEEE 754 says, except that denormals are flushed. The faster estimates of quotients and roots (rcpps,
 * rsqrtps) are not used: their bits differ between CPUs. */
#ifndef CDROP_VEC_AVX2_H
#define CDROP_VEC_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "set_bits.h"

#define VEC_LANES_f32 8
#define VEC_LANES_f64 4
#define DENSE_ABOVE 0.72
#define LISTING 40    /* at half of the entries live */
#define VEC_CHAINS 8  /* of 16 registers: see product.inc.h */
#define DENSE_LINES 6 /* tile of a dense product: 12 of 16 registers */
#define DENSE_VECTORS 2

typedef __m256 vec_f32;
typedef __m256d vec_f64;

/* All ones in the lanes whose bit is set: each lane looks at its own bit of a copy of all. Bits beyond the lanes are
 * ignored. */
static inline __m256i vmask_f32(unsigned bits)
{
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lane), lane);
}

static inline __m256i vmask_f64(unsigned bits)
{
    const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), lane), lane);
}

static inline vec_f32 vload_f32(const float *p) { return _mm256_loadu_ps(p); }
static inline vec_f64 vload_f64(const double *p) { return _mm256_loadu_pd(p); }

/* A masked load does not touch the lanes that are left out, so it may end at the end of mapped memory. They are 0. The
 * load itself costs no more than another (measured on Zen 4). */
static inline vec_f32 vload_first_f32(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, vmask_f32((1u << n) - 1));
}
static inline vec_f64 vload_first_f64(const double *p, size_t n)
{
    return _mm256_maskload_pd(p, vmask_f64((1u << n) - 1));
}
static inline void vstore_f32(float *p, vec_f32 a) { _mm256_storeu_ps(p, a); }
static inline void vstore_f64(double *p, vec_f64 a) { _mm256_storeu_pd(p, a); }

/* For tails alone: on Zen 4 a masked store of floats takes as long as 12 stores of whole vectors, one of doubles as 6
 * (measured). */
static inline void vstore_first_f32(float *p, vec_f32 a, size_t n)
{
    _mm256_maskstore_ps(p, vmask_f32((1u << n) - 1), a);
}

static inline void vstore_first_f64(double *p, vec_f64 a, size_t n)
{
    _mm256_maskstore_pd(p, vmask_f64((1u << n) - 1), a);
}

static inline vec_f32 vset_f32(float a) { return _mm256_set1_ps(a); }
static inline vec_f64 vset_f64(double a) { return _mm256_set1_pd(a); }
static inline vec_f32 vadd_f32(vec_f32 a, vec_f32 b) { return _mm256_add_ps(a, b); }
static inline vec_f64 vadd_f64(vec_f64 a, vec_f64 b) { return _mm256_add_pd(a, b); }
static inline vec_f32 vsub_f32(vec_f32 a, vec_f32 b) { return _mm256_sub_ps(a, b); }
static inline vec_f64 vsub_f64(vec_f64 a, vec_f64 b) { return _mm256_sub_pd(a, b); }
static inline vec_f32 vmul_f32(vec_f32 a, vec_f32 b) { return _mm256_mul_ps(a, b); }
static inline vec_f64 vmul_f64(vec_f64 a, vec_f64 b) { return _mm256_mul_pd(a, b); }
static inline vec_f32 vdiv_f32(vec_f32 a, vec_f32 b) { return _mm256_div_ps(a, b); }
static inline vec_f64 vdiv_f64(vec_f64 a, vec_f64 b) { return _mm256_div_pd(a, b); }
static inline vec_f32 vsqrt_f32(vec_f32 a) { return _mm256_sqrt_ps(a); }
static inline vec_f64 vsqrt_f64(vec_f64 a) { return _mm256_sqrt_pd(a); }
static inline vec_f32 vfma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec_f64 vfma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm256_fmadd_pd(a, b, c); }
/* The instructions are what the vocabulary's rule was taken from: where a > b is false, because of a NaN or of two
 * zeros too, the second operand. So the order of the operands matters. */
static inline vec_f32 vmax_f32(vec_f32 a, vec_f32 b) { return _mm256_max_ps(a, b); }
static inline vec_f64 vmax_f64(vec_f64 a, vec_f64 b) { return _mm256_max_pd(a, b); }
static inline vec_f32 vmin_f32(vec_f32 a, vec_f32 b) { return _mm256_min_ps(a, b); }
static inline vec_f64 vmin_f64(vec_f64 a, vec_f64 b) { return _mm256_min_pd(a, b); }
/* The sign is a bit, whatever the number: NaN included, and without rounding. */
static inline vec_f32 vabs_f32(vec_f32 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vec_f64 vabs_f64(vec_f64 a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }

static inline vec_f32 vcopysign_f32(vec_f32 a, vec_f32 b)
{
    return _mm256_or_ps(vabs_f32(a), _mm256_and_ps(_mm256_set1_ps(-0.0f), b));
}

static inline vec_f64 vcopysign_f64(vec_f64 a, vec_f64 b)
{
    return _mm256_or_pd(vabs_f64(a), _mm256_and_pd(_mm256_set1_pd(-0.0), b));
}

/* Ordered comparisons (O) are false for NaN, quiet ones (Q) raise no exception for it. */
static inline unsigned vbits_le_f32(vec_f32 a, vec_f32 b)
{
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ));
}

static inline unsigned vbits_le_f64(vec_f64 a, vec_f64 b)
{
    return (unsigned)_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_LE_OQ));
}

static inline unsigned vbits_eq_f32(vec_f32 a, vec_f32 b)
{
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}

static inline unsigned vbits_eq_f64(vec_f64 a, vec_f64 b)
{
    return (unsigned)_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_EQ_OQ));
}

/* Moves lanes as they are: what is not selected may be NaN or infinite, and leaves no trace. */
static inline vec_f32 vselect_f32(unsigned bits, vec_f32 a, vec_f32 b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(vmask_f32(bits)));
}

static inline vec_f64 vselect_f64(unsigned bits, vec_f64 a, vec_f64 b)
{
    return _mm256_blendv_pd(b, a, _mm256_castsi256_pd(vmask_f64(bits)));
}

/* The shift leaves the low 9 bits of n (12 in double) where a number has its sign and exponent: k modulo 512 (4096).
 * The addition is modulo the same, so k may be negative. It is exact where a and the result are normal numbers, which
 * the limits of exp take care of (functions.inc.h). */
static inline vec_f32 vscale2_f32(vec_f32 a, vec_f32 n)
{
    const __m256i shift = _mm256_slli_epi32(_mm256_castps_si256(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), shift));
}

static inline vec_f64 vscale2_f64(vec_f64 a, vec_f64 n)
{
    const __m256i shift = _mm256_slli_epi64(_mm256_castpd_si256(n), 52);
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(a), shift));
}

/* AVX2 has no compress; a permute by table is one. The table takes 2 KiB (doubles use 16 entries of 256). pdep and
 * pext would compute the order without it, but they are of BMI2, which this path does not ask for, and AMD's CPUs
 * before Zen 3 run them in microcode. bits is an index here: it must have none beyond the lanes.
 *
 * The whole vector is stored, with garbage behind the packed lanes. A store of just those would be a masked one, and as
 * slow as vstore_first; the next store overwrites the garbage. */
static inline void vcompress_f32(float *values, vec_f32 a, unsigned bits)
{
    const __m128i lanes = _mm_cvtsi64_si128((long long)set_bits_order[bits]);
    _mm256_storeu_ps(values, _mm256_permutevar8x32_ps(a, _mm256_cvtepu8_epi32(lanes)));
}

/* A double is a pair of 32-bit lanes: lane n of four moves as lanes 2 n and 2 n + 1 of eight. */
static inline void vcompress_f64(double *values, vec_f64 a, unsigned bits)
{
    const __m128i lanes = _mm_cvtsi64_si128((long long)set_bits_order[bits]);
    const __m256i even = _mm256_slli_epi64(_mm256_cvtepu8_epi64(lanes), 1);
    const __m256i odd = _mm256_slli_epi64(_mm256_add_epi64(even, _mm256_set1_epi64x(1)), 32);
    const __m256 pairs = _mm256_permutevar8x32_ps(_mm256_castpd_ps(a), _mm256_or_si256(even, odd));
    _mm256_storeu_pd(values, _mm256_castps_pd(pairs));
}

/* Lane i takes the packed value of its rank, the number of set bits below it. Lanes whose bit is not set take some
 * value as well, which the mask clears: to +0, even if it was NaN. */
static inline vec_f32 vexpand_f32(const float *values, unsigned bits)
{
    const __m128i lanes = _mm_cvtsi64_si128((long long)set_bits_rank[bits]);
    const __m256 spread = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), _mm256_cvtepu8_epi32(lanes));
    return _mm256_and_ps(spread, _mm256_castsi256_ps(vmask_f32(bits)));
}

static inline vec_f64 vexpand_f64(const double *values, unsigned bits)
{
    const __m128i lanes = _mm_cvtsi64_si128((long long)set_bits_rank[bits]);
    const __m256i even = _mm256_slli_epi64(_mm256_cvtepu8_epi64(lanes), 1);
    const __m256i odd = _mm256_slli_epi64(_mm256_add_epi64(even, _mm256_set1_epi64x(1)), 32);
    const __m256 pairs = _mm256_castpd_ps(_mm256_loadu_pd(values));
    const __m256 spread = _mm256_permutevar8x32_ps(pairs, _mm256_or_si256(even, odd));
    return _mm256_and_pd(_mm256_castps_pd(spread), _mm256_castsi256_pd(vmask_f64(bits)));
}

/* 128-bit lane L of the result holds in[4 L + row][0..3]: a transpose inside the lanes then makes whole columns. The
 * lanes are filled from memory, so no instruction moves numbers from lane to lane: 8 loads, 8 inserts and 16 unpacks
 * for 64 numbers. */
static inline __m256 vgather_quads(const float *in, size_t pitch)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in)), _mm_loadu_ps(in + 4 * pitch), 1);
}

/* Four columns at a time: pairs of rows are interleaved number by number, then these pairs of pairs by twos. The casts
 * to doubles move two floats as one; nothing is computed. */
static inline void vtranspose_f32(float *out, size_t out_pitch, const float *in, size_t in_pitch)
{
    for (int c = 0; c < 8; c += 4) {
        const __m256 r0 = vgather_quads(in + c, in_pitch), r1 = vgather_quads(in + c + in_pitch, in_pitch);
        const __m256 r2 = vgather_quads(in + c + 2 * in_pitch, in_pitch);
        const __m256 r3 = vgather_quads(in + c + 3 * in_pitch, in_pitch);
        const __m256d t0 = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1));
        const __m256d t1 = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1));
        const __m256d t2 = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3));
        const __m256d t3 = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
        float *row = out + (size_t)c * out_pitch;
        _mm256_storeu_ps(row, _mm256_castpd_ps(_mm256_unpacklo_pd(t0, t2)));
        _mm256_storeu_ps(row + out_pitch, _mm256_castpd_ps(_mm256_unpackhi_pd(t0, t2)));
        _mm256_storeu_ps(row + 2 * out_pitch, _mm256_castpd_ps(_mm256_unpacklo_pd(t1, t3)));
        _mm256_storeu_ps(row + 3 * out_pitch, _mm256_castpd_ps(_mm256_unpackhi_pd(t1, t3)));
    }
}

/* The same with lanes of two doubles: one interleaving is enough. */
static inline __m256d vgather_pairs(const double *in, size_t pitch)
{
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(in)), _mm_loadu_pd(in + 2 * pitch), 1);
}

static inline void vtranspose_f64(double *out, size_t out_pitch, const double *in, size_t in_pitch)
{
    for (int c = 0; c < 4; c += 2) {
        const __m256d r0 = vgather_pairs(in + c, in_pitch), r1 = vgather_pairs(in + c + in_pitch, in_pitch);
        _mm256_storeu_pd(out + (size_t)c * out_pitch, _mm256_unpacklo_pd(r0, r1));
        _mm256_storeu_pd(out + (size_t)(c + 1) * out_pitch, _mm256_unpackhi_pd(r0, r1));
    }
}

/* The generator's eight 64-bit lanes are two registers. Its four words of state take 8 of the 16. */
typedef struct {
    __m256i lo, hi;
} vwords;

#define WORDS_BINARY(NAME, OP)                                                                                         \
    static inline vwords NAME(vwords a, vwords b) { return (vwords){OP(a.lo, b.lo), OP(a.hi, b.hi)}; }

WORDS_BINARY(wadd, _mm256_add_epi64)
WORDS_BINARY(wxor, _mm256_xor_si256)
WORDS_BINARY(wor, _mm256_or_si256)
WORDS_BINARY(wand, _mm256_and_si256)
WORDS_BINARY(wandnot, _mm256_andnot_si256)

static inline vwords wload(const uint64_t *p)
{
    return (vwords){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 4))};
}

static inline void wstore(uint64_t *p, vwords a)
{
    _mm256_storeu_si256((__m256i *)p, a.lo);
    _mm256_storeu_si256((__m256i *)(p + 4), a.hi);
}

static inline vwords wshl17(vwords a) { return (vwords){_mm256_slli_epi64(a.lo, 17), _mm256_slli_epi64(a.hi, 17)}; }

/* AVX2 has no rotation. k is a constant at every call. */
static inline __m256i rotl_half(__m256i a, int k)
{
    return _mm256_or_si256(_mm256_slli_epi64(a, k), _mm256_srli_epi64(a, 64 - k));
}

static inline vwords wrotl(vwords a, int k) { return (vwords){rotl_half(a.lo, k), rotl_half(a.hi, k)}; }

static inline int wnone(vwords a)
{
    const __m256i any = _mm256_or_si256(a.lo, a.hi);
    return _mm256_testz_si256(any, any);
}

#endif
