/* exp, the activations and their derivatives: our own polynomials in a fixed order, never the C library's, so that
 * every path and platform agrees to the bit.
 *
 * exp(x) = 2^n (1 + q(r)), r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2], q(r) = exp(r) - 1 = r + r^2 P(r). P is the
 * Chebyshev interpolant of (exp(r) - 1 - r) / r^2 on that interval, computed with mpmath at 40 digits: relative error
 * 7e-8 (5 terms, float) and 2e-18 (11 terms, double) of a term that is at most 0.07 of the sum. n is rounded by
 * adding 1.5 * 2^mantissa, which leaves n in the low bits of the sum, where vscale2 wants it; ln 2 is split so that n
 * times its high part is exact. */
/* The limits keep n within the exponents of normal numbers: -126 to 127 in float, -1021 to 1023 in double. So 2^n is
 * made by adding n to the exponent bits of 1, and needs no case. LN2_HIGH has 15 (in double 33) significant bits, n
 * at most 7 (10), fewer together than a mantissa: n * LN2_HIGH is exact, and so is its difference from x, which is
 * close to it. Only the low part rounds. */
#if REAL_BYTES == 4
#define ROUNDER 12582912.0f /* 1.5 * 2^23 */
#define EXP_LOWEST (-87.0f) /* below, 2^n would leave the normal numbers: exp is 0 */
#define EXP_HIGHEST 88.0f   /* from here on it is taken to be infinite */
#define LN2_HIGH 0x1.62e4p-1f
#define LN2_LOW 0x1.7f7d1cp-20f
static const float KERNEL(exp_terms)[] = {0.0013926183587713495f, 0.0083631790527225774f, 0.041666554617204574f,
                                          0.16666576989698776f, 0.5f};
#else
#define ROUNDER 6755399441055744.0 /* 1.5 * 2^52 */
#define EXP_LOWEST (-708.0)
#define EXP_HIGHEST 709.0
#define LN2_HIGH 0x1.62e42fefp-1
#define LN2_LOW 0x1.473de6af278edp-34
static const double KERNEL(exp_terms)[] = {2.0914686968086877e-9,
                                           2.5105217004720745e-8,
                                           2.7557273643110295e-7,
                                           2.7557255400206424e-6,
                                           2.480158732554774e-5,
                                           1.984126987482063e-4,
                                           0.0013888888888883748,
                                           0.0083333333333261351,
                                           0.04166666666666667,
                                           0.16666666666666671,
                                           0.5};
#endif

/* q(r) of x in [EXP_LOWEST, EXP_HIGHEST], and n as vscale2 takes it. Horner's scheme from the highest term, each
 * step one fused multiply-add: this chain is the definition of exp here. It is evaluated in one lane without looking
 * at the others, so the vector width does not matter. Callers clamp x first; of NaN, q is NaN and n is meaningless. */
static inline VEC KERNEL(exp_reduced)(VEC x, VEC *n)
{
    const VEC rounder = V(vset)(ROUNDER);
    *n = V(vfma)(x, V(vset)((REAL)1.44269504088896340736), rounder);
    /* The addition has rounded to an integer, ties to even, which is in the low mantissa bits of *n. Subtracting
     * gives the integer as a number. A compiler that reassociates would cancel both; none does without being asked
     * to. */
    const VEC whole = V(vsub)(*n, rounder);
    /* First the exact part, then the small correction. */
    VEC r = V(vfma)(whole, V(vset)(-LN2_HIGH), x);
    r = V(vfma)(whole, V(vset)(-LN2_LOW), r);
    /* P from the highest power of r down; the last term is the 1 / 2 of r^2 / 2. r itself is added last, in one
     * operation with r^2 P: the large term meets the small ones once, so the error of P hardly shows. */
    VEC p = V(vset)(KERNEL(exp_terms)[0]);
    for (size_t i = 1; i < sizeof KERNEL(exp_terms) / sizeof(REAL); i++)
        p = V(vfma)(p, r, V(vset)(KERNEL(exp_terms)[i]));
    return V(vfma)(V(vmul)(r, r), p, r);
}

/* exp of x <= 0. That is all that softmax and the sigmoid need, and it saves the upper limit. The sum power * q +
 * power rounds once, and is 1 for x = 0 exactly. No result is a denormal: down to the limit it is a normal number,
 * and below it is 0. So it does not matter to exp whether a platform flushes them. */
static inline VEC KERNEL(exp)(VEC x)
{
    const VEC lowest = V(vset)(EXP_LOWEST);
    VEC n;
    const VEC q = KERNEL(exp_reduced)(V(vmax)(lowest, x), &n);                 /* this order lets NaN through */
    const VEC power = V(vscale2)(V(vset)(1), n), e = V(vfma)(power, q, power); /* NaN stays in q */
    return V(vselect)(V(vbits_le)(x, lowest), V(vset)(0), e);
}

/* exp of any x, of which infinity is a legal result: a Poisson mean that overflows must show as infinite. */
static inline VEC KERNEL(exp_any)(VEC x)
{
    const VEC lowest = V(vset)(EXP_LOWEST), highest = V(vset)(EXP_HIGHEST);
    VEC n;
    const VEC q = KERNEL(exp_reduced)(V(vmin)(highest, V(vmax)(lowest, x)), &n); /* NaN goes through both */
    const VEC power = V(vscale2)(V(vset)(1), n), e = V(vfma)(power, q, power);
    /* In this order: at both limits the clamped value is replaced, and NaN, which compares false, by neither. */
    const VEC above = V(vselect)(V(vbits_le)(x, lowest), V(vset)(0), e);
    return V(vselect)(V(vbits_le)(highest, x), V(vset)((REAL)CDROP_INFINITY), above);
}

/* exp - 1 of x <= 0, to full relative precision near 0: there n is 0, power - 1 is exactly 0, and the result is q
 * itself. Below the limit it is -1 to rounding, so it needs no select. */
static inline VEC KERNEL(expm1)(VEC x)
{
    const VEC one = V(vset)(1);
    VEC n;
    const VEC q = KERNEL(exp_reduced)(V(vmax)(V(vset)(EXP_LOWEST), x), &n);
    /* power - 1 is exact or rounded once, and power * q is added to it with one rounding. */
    const VEC power = V(vscale2)(one, n);
    return V(vfma)(power, q, V(vsub)(power, one));
}

/* tanh |x| = -m / (2 + m) with m = exp(-2 |x|) - 1. m is in [-1, 0], so nothing cancels and nothing overflows. The
 * sign comes from x: results are odd to the bit, and -0 stays -0. */
static inline VEC KERNEL(tanh)(VEC x)
{
    const VEC m = KERNEL(expm1)(V(vmul)(V(vset)(-2), V(vabs)(x)));
    return V(vcopysign)(V(vdiv)(m, V(vadd)(V(vset)(2), m)), x);
}

/* 1 / (1 + e) or e / (1 + e) with e = exp(-|x|): no overflow on either side. Both are one expression with another
 * numerator, so lanes of either sign take the same time. */
static inline VEC KERNEL(sigmoid)(VEC x)
{
    const VEC one = V(vset)(1), e = KERNEL(exp)(V(vsub)(V(vset)(0), V(vabs)(x)));
    /* x = 0 takes the first, which is 1 / 2 either way. NaN takes e, which is NaN. */
    const VEC top = V(vselect)(V(vbits_le)(V(vset)(0), x), one, e);
    return V(vdiv)(top, V(vadd)(one, e));
}

/* Comparisons are "z <= 0", which is false for NaN: it passes as a live number, and shows in the loss. The ReLU's
 * zero is +0. Where this is the ReLU of a hidden layer, the lists apply it as their rule instead (see forward.c). */
static inline VEC KERNEL(activation)(VEC z, cdrop_activation activation)
{
    const VEC zero = V(vset)(0);
    switch (activation) {
    case CDROP_RELU:
        return V(vselect)(V(vbits_le)(z, zero), zero, z);
    case CDROP_LEAKY_RELU:
        return V(vselect)(V(vbits_le)(z, zero), V(vmul)(z, V(vset)((REAL)CDROP_LEAK)), z);
    case CDROP_TANH:
        return KERNEL(tanh)(z);
    case CDROP_SIGMOID:
        return KERNEL(sigmoid)(z);
    case CDROP_IDENTITY:
        break;
    }
    return z;
}

/* delta times the derivative, found from the activation's output a: so pre-activations need not be kept, and the
 * activation may be in place. a > 0 exactly where z > 0 for both ReLUs; tanh' = 1 - a^2; sigmoid' = a (1 - a). The
 * order of the products is part of the result's bits. */
static inline VEC KERNEL(derivative)(VEC delta, VEC a, cdrop_activation activation)
{
    const VEC zero = V(vset)(0), one = V(vset)(1);
    switch (activation) {
    case CDROP_RELU:
        return V(vselect)(V(vbits_le)(a, zero), zero, delta);
    case CDROP_LEAKY_RELU:
        return V(vselect)(V(vbits_le)(a, zero), V(vmul)(delta, V(vset)((REAL)CDROP_LEAK)), delta);
    case CDROP_TANH:
        return V(vmul)(delta, V(vsub)(one, V(vmul)(a, a)));
    case CDROP_SIGMOID:
        return V(vmul)(delta, V(vmul)(a, V(vsub)(one, a)));
    case CDROP_IDENTITY:
        break;
    }
    return delta;
}

/* `activation` is a constant at every call from here on: the switches above are resolved when the code is compiled,
 * and the inner loops have no branch. Only `columns` columns of a line are changed; what is in the padding stays. */
static inline CDROP_INLINE void KERNEL(activate_with)(REAL *a_, size_t pitch, size_t columns, size_t lines,
                                                      cdrop_activation activation)
{
    for (size_t line = 0; line < lines; line++) {
        REAL *a = a_ + line * pitch;
        size_t i = 0;
        for (; i + L <= columns; i += L)
            V(vstore)(a + i, KERNEL(activation)(V(vload)(a + i), activation));
        /* The missing lanes are loaded as zeros, where every activation is finite, and are not stored. */
        if (i < columns)
            V(vstore_first)(a + i, KERNEL(activation)(V(vload_first)(a + i, columns - i), activation), columns - i);
    }
}

/* First the factor of dropout, then the derivative: two roundings, in this order for all activations. Lanes that
 * were not live are selected to be 0, not multiplied by 0: what is in them may be infinite, and the result must be
 * +0, not -0. */
static inline CDROP_INLINE VEC KERNEL(gated)(VEC delta, VEC a, VEC scale, uint64_t live, cdrop_activation activation)
{
    const VEC d = KERNEL(derivative)(V(vmul)(delta, scale), a, activation);
    return V(vselect)((unsigned)live & ((1u << L) - 1), d, V(vset)(0));
}

/* The factors of a line: with `noisy`, which is a constant at every call, the noise of each column; else the scale.
 * L divides CDROP_BLOCK, so the bits of a vector are always in one word. They are the live bits of the forward pass,
 * which hold the mask and, where the ReLU was the rule of the lists, its sign: no mask is drawn or read again. */
static inline CDROP_INLINE void KERNEL(gate_line)(REAL *delta, const REAL *a, const REAL *noise, size_t columns,
                                                  const uint64_t *live, VEC scale, cdrop_activation activation,
                                                  int noisy)
{
    size_t i = 0;
    for (; i + L <= columns; i += L) {
        const uint64_t bits = live[i / CDROP_BLOCK] >> (i % CDROP_BLOCK);
        const VEC factor = noisy ? V(vload)(noise + i) : scale;
        V(vstore)(delta + i, KERNEL(gated)(V(vload)(delta + i), V(vload)(a + i), factor, bits, activation));
    }
    if (i < columns) {
        /* Only real columns: the padding of delta keeps what the product put there. */
        const uint64_t bits = live[i / CDROP_BLOCK] >> (i % CDROP_BLOCK);
        const VEC factor = noisy ? V(vload_first)(noise + i, columns - i) : scale;
        const VEC d = V(vload_first)(delta + i, columns - i), of_a = V(vload_first)(a + i, columns - i);
        V(vstore_first)(delta + i, KERNEL(gated)(d, of_a, factor, bits, activation), columns - i);
    }
}

/* In place, right after the product has filled these lines of delta: they are in L1 or L2. delta and a may be the
 * same memory only for the identity, which does not read a. */
static inline CDROP_INLINE void KERNEL(gate_with)(REAL *delta, size_t pitch, const REAL *a, size_t a_pitch,
                                                  size_t columns, size_t lines, const cdrop_gate *g,
                                                  cdrop_activation activation, int noisy)
{
    const VEC scale = V(vset)((REAL)g->scale);
    for (size_t line = 0; line < lines; line++, delta += pitch)
        KERNEL(gate_line)
    (delta, activation == CDROP_IDENTITY ? delta : a + line * a_pitch, /* there it is not used */
     noisy ? (const REAL *)g->noise + line * g->noise_pitch : NULL, columns, g->live + line * g->words, scale,
     activation, noisy);
}

/* Makes one copy of a loop for each activation. */
#define EACH_ACTIVATION(CASE)                                                                                          \
    switch (activation) {                                                                                              \
        CASE(CDROP_RELU)                                                                                               \
        CASE(CDROP_LEAKY_RELU)                                                                                         \
        CASE(CDROP_TANH)                                                                                               \
        CASE(CDROP_SIGMOID)                                                                                            \
        CASE(CDROP_IDENTITY)                                                                                           \
    }

static void KERNEL(activate)(void *a, size_t pitch, size_t columns, size_t lines, cdrop_activation activation)
{
#define ACTIVATE(f)                                                                                                    \
    case f:                                                                                                            \
        KERNEL(activate_with)(a, pitch, columns, lines, f);                                                            \
        break;
    EACH_ACTIVATION(ACTIVATE)
#undef ACTIVATE
}

/* Without `a` there is no derivative, or for the ReLU it is in the live bits: a unit that is listed was positive,
 * and its derivative is 1. */
static void KERNEL(gate)(void *delta, size_t pitch, const void *a, size_t a_pitch, size_t columns, size_t lines,
                         const cdrop_gate *g, cdrop_activation activation)
{
    if (!a)
        activation = CDROP_IDENTITY;
/* Ten copies of the loop: five activations, with and without noise. */
#define GATE(f)                                                                                                        \
    case f:                                                                                                            \
        if (g->noise)                                                                                                  \
            KERNEL(gate_with)(delta, pitch, a, a_pitch, columns, lines, g, f, 1);                                      \
        else                                                                                                           \
            KERNEL(gate_with)(delta, pitch, a, a_pitch, columns, lines, g, f, 0);                                      \
        break;
    EACH_ACTIVATION(GATE)
#undef GATE
}

#undef EACH_ACTIVATION
#undef ROUNDER
#undef EXP_LOWEST
#undef EXP_HIGHEST
#undef LN2_HIGH
#undef LN2_LOW
