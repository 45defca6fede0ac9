/* Multiplicative noise of mean 1 for dropout that scales units in place of dropping them: normal, uniform or concrete.
 *
 * A draw of the generator gives eight words for 16 units. Each half of a word, read as a signed integer k, is the
 * uniform number (k + 1/2) 2^-31 in (-1, 1): v from the upper half, w from the lower. Uniform noise uses both as they
 * are. Normal noise makes two numbers of them (Box and Muller 1958): radius sqrt(-2 log |v|) with the sign of v, angle
 * w pi / 2. The sign turns the half circle of the angles into the whole one, so that sine and cosine need no
 * reduction. The largest possible radius is 6.66, which a normal number exceeds once in 4 10^10 draws.
 *
 * As in functions.inc.h, polynomials are ours. With s = (m - 1) / (m + 1) and m in [sqrt(1/2), sqrt(2)), log m is
 * 2 (s + s^3 H(s^2)); sin x = x + x^3 S(x^2); cos x = 1 + x^2 C(x^2). H, S and C are Chebyshev interpolants, computed
 * with mpmath at 40 digits: absolute errors 1e-7, 7e-9 and 4e-10 (float), 2e-16, 4e-19 and 1e-20 (double).
 *
 * Concrete noise (1 - z) / keep has z = sigmoid(10 (logit(1 - keep) + logit(u))) with u = (1 + v) / 2. With the odds
 * (1 - keep) / keep that is (1 + odds) / (1 + (odds (1 + v) / (1 - v))^10): multiplications, and no function. v may
 * round to -1; then the noise is 1 / keep, as it should be. */
/* SQRT_HALF is the number sqrt(1/2) as an integer of its bits. Polynomials begin with the highest power. */
#if REAL_BYTES == 4
typedef uint32_t KERNEL(bits);
typedef int32_t KERNEL(signed_bits);
#define MANTISSA 23
#define SQRT_HALF UINT32_C(0x3f3504f3)
static const float KERNEL(log_terms)[] = {0.14789974695986392f, 0.19994390283010991f, 0.33333342519787928f};
static const float KERNEL(sin_terms)[] = {2.6347563918117813e-6f, -0.00019822739488631102f, 0.0083332421350969388f,
                                          -0.16666665963821187f};
static const float KERNEL(cos_terms)[] = {-2.6297517416492885e-7f, 2.4774579745194932e-5f, -0.0013888651647261391f,
                                          0.041666659360024927f, -0.49999999963953023f};
#else
typedef uint64_t KERNEL(bits);
typedef int64_t KERNEL(signed_bits);
#define MANTISSA 52
#define SQRT_HALF UINT64_C(0x3fe6a09e667f3bcd)
static const double KERNEL(log_terms)[] = {0.073082248425217029, 0.076658608002780206, 0.09091444562630861,
                                           0.1111110556739754,   0.14285714312987742,  0.19999999999949752,
                                           0.33333333333333348};
static const double KERNEL(sin_terms)[] = {2.7314447669863993e-15, -7.6439702967985721e-13, 1.6058977312464088e-10,
                                           -2.5052107616996183e-8, 2.7557319219163233e-6,   -0.00019841269841254974,
                                           0.0083333333333333159,  -0.16666666666666667};
static const double KERNEL(cos_terms)[] = {
    -1.5169166967261124e-16, 4.7774048896953542e-14, -1.1470694010874979e-11,
    2.0876756238770225e-9,   -2.7557319217593045e-7, 2.4801587301556646e-5,
    -0.0013888888888888815,  0.041666666666666666,   -0.5,
};
#endif

enum { KERNEL(NOISE_DRAWS) = 8, KERNEL(NOISE_PAIRS) = 64 }; /* at once, and the pairs of units that they serve */

/* v and w of up to NOISE_PAIRS pairs; |v| = mantissa 2^exponent. The arithmetic runs array by array (1 KiB of floats
 * or 2 of doubles in all), in loops of whole vectors: 64 is a multiple of every L. */
typedef struct {
    REAL v[KERNEL(NOISE_PAIRS)], w[KERNEL(NOISE_PAIRS)];
    REAL mantissa[KERNEL(NOISE_PAIRS)], exponent[KERNEL(NOISE_PAIRS)];
} KERNEL(uniforms);

/* The 1/2 makes the numbers symmetric, and none of them is 0: |v| is 2^-32 at least, so it has a finite logarithm and
 * is a normal number. In float, k and the sum are rounded, which is why v may be 1 or -1. The factor is a power of two,
 * and exact. */
static inline void KERNEL(draw_uniforms)(KERNEL(uniforms) * u, generator *g, size_t draws)
{
    for (size_t d = 0; d < draws; d++) {
        uint64_t words[8];
        wstore(words, draw(g));
        for (size_t i = 0; i < 8; i++) {
            u->v[8 * d + i] = ((REAL)(int32_t)(uint32_t)(words[i] >> 32) + (REAL)0.5) * (REAL)0x1p-31;
            u->w[8 * d + i] = ((REAL)(int32_t)(uint32_t)words[i] + (REAL)0.5) * (REAL)0x1p-31;
        }
    }
}

/* In integers, which the vector vocabulary lacks; compilers make vectors of this loop. Without the sign, the bits are
 * exponent and fraction in one integer. Its difference from that of sqrt(1/2), shifted down to the exponent and so
 * rounded down, says how many powers of two |v| is away from [sqrt(1/2), sqrt(2)); subtracted from the exponent it
 * leaves a mantissa in there, exactly. With that range |v| near 1 has the exponent 0, and its logarithm, near 0, is not
 * a difference of two larger numbers. */
static inline void KERNEL(split_exponents)(KERNEL(uniforms) * u)
{
    for (size_t i = 0; i < KERNEL(NOISE_PAIRS); i++) {
        KERNEL(bits) bits;
        memcpy(&bits, &u->v[i], sizeof bits);
        bits &= ~(KERNEL(bits))0 >> 1;
        const KERNEL(signed_bits) exponent = (KERNEL(signed_bits))(bits - SQRT_HALF) >> MANTISSA;
        bits -= (KERNEL(bits))exponent << MANTISSA;
        memcpy(&u->mantissa[i], &bits, sizeof bits);
        u->exponent[i] = (REAL)(int32_t)exponent;
    }
}

/* `terms` is a constant array at every call. Horner's scheme in one lane: the bits do not depend on the width. */
static inline CDROP_INLINE VEC KERNEL(polynomial)(VEC x, const REAL *terms, size_t count)
{
    VEC p = V(vset)(terms[0]);
    for (size_t i = 1; i < count; i++)
        p = V(vfma)(p, x, V(vset)(terms[i]));
    return p;
}

#define POLYNOMIAL(x, terms) KERNEL(polynomial)((x), (terms), sizeof(terms) / sizeof *(terms))

/* sqrt(-2 log |v|) with the sign of v. log |v| = 2 half_log + exponent ln 2; the constant is -2 ln 2. Division and
 * square root are correctly rounded on every path, so that these bits agree as well. */
static inline VEC KERNEL(radius)(const KERNEL(uniforms) * u, size_t i)
{
    const VEC one = V(vset)(1), m = V(vload)(u->mantissa + i);
    const VEC s = V(vdiv)(V(vsub)(m, one), V(vadd)(m, one)), z = V(vmul)(s, s);
    const VEC half_log = V(vfma)(V(vmul)(s, z), POLYNOMIAL(z, KERNEL(log_terms)), s);
    const VEC exponent = V(vmul)(V(vload)(u->exponent + i), V(vset)((REAL)-1.38629436111989061883));
    return V(vcopysign)(V(vsqrt)(V(vfma)(V(vset)(-4), half_log, exponent)), V(vload)(u->v + i));
}

/* v and w become normal numbers: radius times cosine and sine of w pi / 2, an angle between -pi / 2 and pi / 2. */
static inline void KERNEL(make_normal)(KERNEL(uniforms) * u)
{
    KERNEL(split_exponents)(u);
    for (size_t i = 0; i < KERNEL(NOISE_PAIRS); i += L) {
        const VEC r = KERNEL(radius)(u, i), x = V(vmul)(V(vload)(u->w + i), V(vset)((REAL)1.57079632679489661923));
        const VEC y = V(vmul)(x, x);
        const VEC sine = V(vfma)(V(vmul)(x, y), POLYNOMIAL(y, KERNEL(sin_terms)), x);
        const VEC cosine = V(vfma)(y, POLYNOMIAL(y, KERNEL(cos_terms)), V(vset)(1));
        V(vstore)(u->v + i, V(vmul)(r, cosine));
        V(vstore)(u->w + i, V(vmul)(r, sine));
    }
}

/* 1 + spread x, rounded once. */
static inline void KERNEL(spread_out)(REAL *x, VEC spread)
{
    for (size_t i = 0; i < KERNEL(NOISE_PAIRS); i += L)
        V(vstore)(x + i, V(vfma)(spread, V(vload)(x + i), V(vset)(1)));
}

/* v is at most 1 - 2^-32 and may have been rounded to 1: its distance from 1 is then taken to be 2^-32, not 0, which
 * would make NaN where odds is 0 (keep 1). The tenth power may overflow: infinity is meant, it makes a noise of 0. */
static inline void KERNEL(make_concrete)(REAL *x, VEC odds)
{
    const VEC one = V(vset)(1), top = V(vadd)(one, odds);
    for (size_t i = 0; i < KERNEL(NOISE_PAIRS); i += L) {
        const VEC v = V(vload)(x + i), to_one = V(vmax)(V(vsub)(one, v), V(vset)((REAL)0x1p-32));
        const VEC r = V(vmul)(odds, V(vdiv)(V(vadd)(one, v), to_one));
        const VEC r2 = V(vmul)(r, r), r4 = V(vmul)(r2, r2), r8 = V(vmul)(r4, r4);
        V(vstore)(x + i, V(vdiv)(top, V(vfma)(r8, r2, one)));
    }
}

static inline void KERNEL(shape)(REAL *x, cdrop_kind kind, VEC spread)
{
    if (kind == CDROP_CONCRETE)
        KERNEL(make_concrete)(x, spread);
    else
        KERNEL(spread_out)(x, spread);
}

/* Of 16 units the first eight have their draw's v, the others its w. Copies of fixed size, up to the padding of the
 * row: which unit has which half of which word is a contract, as the order of mask words is. */
static inline void KERNEL(put_noise)(REAL *out, const KERNEL(uniforms) * u, size_t draws)
{
    for (size_t d = 0; d < draws; d++) {
        memcpy(out + 16 * d, u->v + 8 * d, 8 * sizeof(REAL));
        memcpy(out + 16 * d + 8, u->w + 8 * d, 8 * sizeof(REAL));
    }
}

/* A row takes the same number of draws whatever they are, cdrop_pad(units) / 16, so the noise of a row does not depend
 * on how many rows follow. Where fewer than NOISE_DRAWS are left of a row, the arrays' other places hold zeros or
 * numbers of earlier draws: they are computed like the rest, and not copied. */
static void KERNEL(noise_block)(void *out_, size_t pitch, size_t units, size_t rows, cdrop_kind kind, double spread,
                                const uint64_t state[32])
{
    generator g = {wload(state), wload(state + 8), wload(state + 16), wload(state + 24)};
    KERNEL(uniforms) u = {.v = {0}};
    const size_t all = cdrop_pad(units) / 16;
    for (size_t row = 0; row < rows; row++)
        for (size_t done = 0; done < all; done += KERNEL(NOISE_DRAWS)) {
            const size_t draws = cdrop_min(KERNEL(NOISE_DRAWS), all - done);
            KERNEL(draw_uniforms)(&u, &g, draws);
            if (kind == CDROP_GAUSSIAN)
                KERNEL(make_normal)(&u);
            KERNEL(shape)(u.v, kind, V(vset)((REAL)spread));
            KERNEL(shape)(u.w, kind, V(vset)((REAL)spread));
            KERNEL(put_noise)((REAL *)out_ + row * pitch + 16 * done, &u, draws);
        }
}

#undef POLYNOMIAL
#undef MANTISSA
#undef SQRT_HALF
