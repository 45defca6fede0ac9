/* The vector vocabulary on NEON (64-bit ARM): 4 floats or 2 doubles. kernels.inc.h says what each name means; comments
 * here are about the choice of instructions.
 *
 * As on AVX2 a mask is a vector, and `bits` go from and to it by a few instructions. Quotients and roots are those of
 * the divider, which round correctly; NEON's estimates (vrecpe, vrsqrte) do not. */
#ifndef CDROP_VEC_NEON_H
#define CDROP_VEC_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "set_bits.h"

/* Names of the vocabulary that ARM's header has given to operations on half vectors. */
#define vadd_f32 full_vadd_f32
#define vadd_f64 full_vadd_f64
#define vsub_f32 full_vsub_f32
#define vsub_f64 full_vsub_f64
#define vmul_f32 full_vmul_f32
#define vmul_f64 full_vmul_f64
#define vdiv_f32 full_vdiv_f32
#define vdiv_f64 full_vdiv_f64
#define vsqrt_f32 full_vsqrt_f32
#define vsqrt_f64 full_vsqrt_f64
#define vfma_f32 full_vfma_f32
#define vfma_f64 full_vfma_f64
#define vmax_f32 full_vmax_f32
#define vmax_f64 full_vmax_f64
#define vmin_f32 full_vmin_f32
#define vmin_f64 full_vmin_f64
#define vabs_f32 full_vabs_f32
#define vabs_f64 full_vabs_f64

#define VEC_LANES_f32 4
#define VEC_LANES_f64 2
#define LISTING 0
#define DENSE_ABOVE 0.7 /* as on AVX2: not measured, no such machine was at hand */
#define VEC_CHAINS 16   /* half of the 32 registers; two pipes of four cycles need at least eight */
#define DENSE_LINES 6   /* tile of a dense product: 24 of 32 registers */
#define DENSE_VECTORS 4

typedef float32x4_t vec_f32;
typedef float64x2_t vec_f64;

static const uint32_t lane_bit_f32[4] = {1, 2, 4, 8};
static const uint64_t lane_bit_f64[2] = {1, 2};

/* All ones in the lanes whose bit is set. */
static inline uint32x4_t vmask_f32(unsigned bits) { return vtstq_u32(vdupq_n_u32(bits), vld1q_u32(lane_bit_f32)); }
static inline uint64x2_t vmask_f64(unsigned bits) { return vtstq_u64(vdupq_n_u64(bits), vld1q_u64(lane_bit_f64)); }

/* And back: NEON has no instruction that gathers the sign bits. Each lane keeps one bit, another one in each lane, so
 * their sum is the word of bits. */
static inline unsigned vbits_f32(uint32x4_t mask) { return vaddvq_u32(vandq_u32(mask, vld1q_u32(lane_bit_f32))); }

static inline unsigned vbits_f64(uint64x2_t mask)
{
    return (unsigned)vaddvq_u64(vandq_u64(mask, vld1q_u64(lane_bit_f64)));
}

static inline vec_f32 vload_f32(const float *p) { return vld1q_f32(p); }
static inline vec_f64 vload_f64(const double *p) { return vld1q_f64(p); }

/* NEON has no masked memory access: the lanes of a short end go one by one, the others are 0. n is below the number of
 * lanes, so of four the last is never among them. */
static inline vec_f32 vload_first_f32(const float *p, size_t n)
{
    vec_f32 a = vdupq_n_f32(0);
    if (n > 0)
        a = vld1q_lane_f32(p, a, 0);
    if (n > 1)
        a = vld1q_lane_f32(p + 1, a, 1);
    if (n > 2)
        a = vld1q_lane_f32(p + 2, a, 2);
    return a;
}

static inline vec_f64 vload_first_f64(const double *p, size_t n)
{
    const vec_f64 zero = vdupq_n_f64(0);
    return n > 0 ? vld1q_lane_f64(p, zero, 0) : zero;
}

static inline void vstore_f32(float *p, vec_f32 a) { vst1q_f32(p, a); }
static inline void vstore_f64(double *p, vec_f64 a) { vst1q_f64(p, a); }

static inline void vstore_first_f32(float *p, vec_f32 a, size_t n)
{
    if (n > 0)
        vst1q_lane_f32(p, a, 0);
    if (n > 1)
        vst1q_lane_f32(p + 1, a, 1);
    if (n > 2)
        vst1q_lane_f32(p + 2, a, 2);
}

static inline void vstore_first_f64(double *p, vec_f64 a, size_t n)
{
    if (n > 0)
        vst1q_lane_f64(p, a, 0);
}

static inline vec_f32 vset_f32(float a) { return vdupq_n_f32(a); }
static inline vec_f64 vset_f64(double a) { return vdupq_n_f64(a); }
static inline vec_f32 vadd_f32(vec_f32 a, vec_f32 b) { return vaddq_f32(a, b); }
static inline vec_f64 vadd_f64(vec_f64 a, vec_f64 b) { return vaddq_f64(a, b); }
static inline vec_f32 vsub_f32(vec_f32 a, vec_f32 b) { return vsubq_f32(a, b); }
static inline vec_f64 vsub_f64(vec_f64 a, vec_f64 b) { return vsubq_f64(a, b); }
static inline vec_f32 vmul_f32(vec_f32 a, vec_f32 b) { return vmulq_f32(a, b); }
static inline vec_f64 vmul_f64(vec_f64 a, vec_f64 b) { return vmulq_f64(a, b); }
static inline vec_f32 vdiv_f32(vec_f32 a, vec_f32 b) { return vdivq_f32(a, b); }
static inline vec_f64 vdiv_f64(vec_f64 a, vec_f64 b) { return vdivq_f64(a, b); }
static inline vec_f32 vsqrt_f32(vec_f32 a) { return vsqrtq_f32(a); }
static inline vec_f64 vsqrt_f64(vec_f64 a) { return vsqrtq_f64(a); }
/* The accumulator comes first here; c + a b is rounded once. */
static inline vec_f32 vfma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return vfmaq_f32(c, a, b); }
static inline vec_f64 vfma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return vfmaq_f64(c, a, b); }

/* Compare and select: NEON's own maximum returns NaN for a NaN on either side, and +0 of two zeros of different sign.
 * The rule here is that of x86: the second operand where the comparison is false. */
static inline vec_f32 vmax_f32(vec_f32 a, vec_f32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vec_f64 vmax_f64(vec_f64 a, vec_f64 b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
static inline vec_f32 vmin_f32(vec_f32 a, vec_f32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vec_f64 vmin_f64(vec_f64 a, vec_f64 b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
static inline vec_f32 vabs_f32(vec_f32 a) { return vabsq_f32(a); }
static inline vec_f64 vabs_f64(vec_f64 a) { return vabsq_f64(a); }
static inline vec_f32 vcopysign_f32(vec_f32 a, vec_f32 b) { return vbslq_f32(vdupq_n_u32(UINT32_C(1) << 31), b, a); }
static inline vec_f64 vcopysign_f64(vec_f64 a, vec_f64 b) { return vbslq_f64(vdupq_n_u64(UINT64_C(1) << 63), b, a); }

/* These comparisons are false for NaN. */
static inline unsigned vbits_le_f32(vec_f32 a, vec_f32 b) { return vbits_f32(vcleq_f32(a, b)); }
static inline unsigned vbits_le_f64(vec_f64 a, vec_f64 b) { return vbits_f64(vcleq_f64(a, b)); }
static inline unsigned vbits_eq_f32(vec_f32 a, vec_f32 b) { return vbits_f32(vceqq_f32(a, b)); }
static inline unsigned vbits_eq_f64(vec_f64 a, vec_f64 b) { return vbits_f64(vceqq_f64(a, b)); }
static inline vec_f32 vselect_f32(unsigned bits, vec_f32 a, vec_f32 b) { return vbslq_f32(vmask_f32(bits), a, b); }
static inline vec_f64 vselect_f64(unsigned bits, vec_f64 a, vec_f64 b) { return vbslq_f64(vmask_f64(bits), a, b); }

/* The shift leaves n's low bits where a number has its sign and exponent; see vec_avx2.h. */
static inline vec_f32 vscale2_f32(vec_f32 a, vec_f32 n)
{
    const uint32x4_t shift = vshlq_n_u32(vreinterpretq_u32_f32(n), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), shift));
}

static inline vec_f64 vscale2_f64(vec_f64 a, vec_f64 n)
{
    const uint64x2_t shift = vshlq_n_u64(vreinterpretq_u64_f64(n), 52);
    return vreinterpretq_f64_u64(vaddq_u64(vreinterpretq_u64_f64(a), shift));
}

/* NEON permutes bytes alone by index (tbl). Lane n is bytes 4 n to 4 n + 3, which in a word are 0x03020100 + n
 * 0x04040404. Four lanes need the first 16 entries of the table. The whole vector is stored, with garbage behind the
 * packed lanes. */
static inline void vcompress_f32(float *values, vec_f32 a, unsigned bits)
{
    const uint16x4_t lanes = vget_low_u16(vmovl_u8(vcreate_u8(set_bits_order[bits])));
    const uint32x4_t bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), vmovl_u16(lanes), 0x04040404);
    const uint8x16_t packed = vqtbl1q_u8(vreinterpretq_u8_f32(a), vreinterpretq_u8_u32(bytes));
    vst1q_f32(values, vreinterpretq_f32_u8(packed));
}

/* Of two lanes, the first one packed is lane 0 or else lane 1; a second one can only be lane 1. */
static inline void vcompress_f64(double *values, vec_f64 a, unsigned bits)
{
    const unsigned skipped = ~bits & 1;
    vst1q_f64(values, vbslq_f64(vdupq_n_u64((uint64_t)skipped - 1), a, vdupq_laneq_f64(a, 1)));
}

/* The same with the table of ranks. Lanes whose bit is not set are cleared afterwards. */
static inline vec_f32 vexpand_f32(const float *values, unsigned bits)
{
    const uint16x4_t lanes = vget_low_u16(vmovl_u8(vcreate_u8(set_bits_rank[bits])));
    const uint32x4_t bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), vmovl_u16(lanes), 0x04040404);
    const uint8x16_t spread = vqtbl1q_u8(vreinterpretq_u8_f32(vld1q_f32(values)), vreinterpretq_u8_u32(bytes));
    return vbslq_f32(vmask_f32(bits), vreinterpretq_f32_u8(spread), vdupq_n_f32(0));
}

/* Lane 1 takes the second value where lane 0 has taken the first. */
static inline vec_f64 vexpand_f64(const double *values, unsigned bits)
{
    const float64x2_t a = vld1q_f64(values);
    const float64x2_t spread = vbslq_f64(vdupq_n_u64((uint64_t)(bits & 1) - 1), vdupq_laneq_f64(a, 0), a);
    return vbslq_f64(vmask_f64(bits), spread, vdupq_n_f64(0));
}

/* Two floats move as one double. */
static inline vec_f32 vtrn1_pairs(vec_f32 a, vec_f32 b)
{
    return vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

static inline vec_f32 vtrn2_pairs(vec_f32 a, vec_f32 b)
{
    return vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

/* 2 x 2 tiles of single lanes, then of pairs. */
static inline void vtranspose_f32(float *out, size_t out_pitch, const float *in, size_t in_pitch)
{
    const vec_f32 r0 = vld1q_f32(in), r1 = vld1q_f32(in + in_pitch);
    const vec_f32 r2 = vld1q_f32(in + 2 * in_pitch), r3 = vld1q_f32(in + 3 * in_pitch);
    const vec_f32 even01 = vtrn1q_f32(r0, r1), odd01 = vtrn2q_f32(r0, r1);
    const vec_f32 even23 = vtrn1q_f32(r2, r3), odd23 = vtrn2q_f32(r2, r3);
    vst1q_f32(out, vtrn1_pairs(even01, even23));
    vst1q_f32(out + out_pitch, vtrn1_pairs(odd01, odd23));
    vst1q_f32(out + 2 * out_pitch, vtrn2_pairs(even01, even23));
    vst1q_f32(out + 3 * out_pitch, vtrn2_pairs(odd01, odd23));
}

static inline void vtranspose_f64(double *out, size_t out_pitch, const double *in, size_t in_pitch)
{
    const vec_f64 r0 = vld1q_f64(in), r1 = vld1q_f64(in + in_pitch);
    vst1q_f64(out, vtrn1q_f64(r0, r1));
    vst1q_f64(out + out_pitch, vtrn2q_f64(r0, r1));
}

/* The generator's state is 16 of the 32 registers; as plain words it would not fit into the general ones. */
typedef struct {
    uint64x2_t v0, v1, v2, v3;
} vwords;

#define WORDS_BINARY(NAME, OP)                                                                                         \
    static inline vwords NAME(vwords a, vwords b)                                                                      \
    {                                                                                                                  \
        return (vwords){OP(a.v0, b.v0), OP(a.v1, b.v1), OP(a.v2, b.v2), OP(a.v3, b.v3)};                               \
    }

/* vbicq(x, y) is x & ~y: the other way round than the vocabulary's. */
static inline uint64x2_t words_andnot(uint64x2_t a, uint64x2_t b) { return vbicq_u64(b, a); }

WORDS_BINARY(wadd, vaddq_u64)
WORDS_BINARY(wxor, veorq_u64)
WORDS_BINARY(wor, vorrq_u64)
WORDS_BINARY(wand, vandq_u64)
WORDS_BINARY(wandnot, words_andnot)

static inline vwords wload(const uint64_t *p)
{
    return (vwords){vld1q_u64(p), vld1q_u64(p + 2), vld1q_u64(p + 4), vld1q_u64(p + 6)};
}

static inline void wstore(uint64_t *p, vwords a)
{
    vst1q_u64(p, a.v0);
    vst1q_u64(p + 2, a.v1);
    vst1q_u64(p + 4, a.v2);
    vst1q_u64(p + 6, a.v3);
}

static inline vwords wshl17(vwords a)
{
    return (vwords){vshlq_n_u64(a.v0, 17), vshlq_n_u64(a.v1, 17), vshlq_n_u64(a.v2, 17), vshlq_n_u64(a.v3, 17)};
}

/* A macro, because the instructions take constant counts only: shift left, then insert the upper bits below. */
#define ROTL_PAIR(a, k) vsriq_n_u64(vshlq_n_u64((a), (k)), (a), 64 - (k))
#define wrotl(a, k) ((vwords){ROTL_PAIR((a).v0, k), ROTL_PAIR((a).v1, k), ROTL_PAIR((a).v2, k), ROTL_PAIR((a).v3, k)})

/* The maximum across lanes exists for 32-bit ones, not for 64: halves of words do as well. */
static inline int wnone(vwords a)
{
    const uint64x2_t any = vorrq_u64(vorrq_u64(a.v0, a.v1), vorrq_u64(a.v2, a.v3));
    return vmaxvq_u32(vreinterpretq_u32_u64(any)) == 0;
}

#endif
