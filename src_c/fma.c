/* See fma.h. Floats are computed in double, rounded to odd (Boldo and Melquiond 2008); doubles in integers of 128
 * bits. */
#include "fma.h"

#include <float.h>
#include <stdint.h>
#include <string.h>

/* A double has more than two bits in addition to those of a float: a sum whose last bit is set where something was lost
 * rounds to the float that the exact sum rounds to. The product of two floats is exact, and so is what the sum lost
 * (Knuth). */
float cdrop_fma_f32(float a, float b, float c)
{
    const double product = (double)a * b, sum = product + c, from_c = sum - product;
    const double lost = (product - (sum - from_c)) + (c - from_c); /* NaN where the sum is not finite */
    double odd;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    /* Without branches: which way a sum is rounded cannot be predicted. */
    const uint64_t even = ~bits & ((lost < 0) | (lost > 0)), away = (lost > 0) == (sum > 0);
    bits += (even & 1) * (2 * away - 1);
    memcpy(&odd, &bits, sizeof odd);
    return (float)odd;
}

typedef struct {
    uint64_t high, low;
} wide;

static wide multiply(uint64_t a, uint64_t b)
{
    const uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    const uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32), other = a0 * b1 + (uint32_t)middle;
    return (wide){a1 * b1 + (middle >> 32) + (other >> 32), other << 32 | (uint32_t)low};
}

/* To the right, where the last bit stays set if a set bit falls out: enough for the rounding of a sum. */
static wide shift(wide x, int n)
{
    if (n >= 64) {
        x = (wide){0, x.high | (x.low != 0)};
        n -= 64;
    }
    if (n >= 64)
        return (wide){0, (x.high | x.low) != 0};
    if (n == 0)
        return x;
    return (wide){x.high >> n, x.high << (64 - n) | x.low >> n | (x.low << (64 - n) != 0)};
}

static wide add(wide a, wide b)
{
    const uint64_t low = a.low + b.low;
    return (wide){a.high + b.high + (low < a.low), low};
}

static wide subtract(wide a, wide b) { return (wide){a.high - b.high - (a.low < b.low), a.low - b.low}; }

/* A number that is neither zero nor NaN nor infinite: mantissa 2^exponent, the mantissa from 2^52 on. */
typedef struct {
    uint64_t mantissa;
    int exponent, negative;
} parts;

static parts parts_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t fraction = bits & UINT64_C(0xfffffffffffff);
    const int exponent = bits >> 52 & 0x7ff, negative = bits >> 63;
    if (exponent)
        return (parts){fraction | UINT64_C(1) << 52, exponent - 1075, negative};
    const int room = __builtin_clzll(fraction) - 11;
    return (parts){fraction << room, -1074 - room, negative};
}

/* Whether this thread's results below the normal numbers are zeros. */
static int flushes(void)
{
    volatile double x = DBL_MIN;
    uint64_t bits;
    x *= 0.5;
    const double half = x;
    memcpy(&bits, &half, sizeof bits);
    return bits == 0;
}

/* top 2^(exponent - 1086), rounded, for a top with its highest bit set: `exponent` is that of a normal number. */
static double rounded(uint64_t top, int exponent, int negative)
{
    const uint64_t sign = (uint64_t)negative << 63;
    uint64_t bits = UINT64_C(0x7ff) << 52;
    double result;
    if (exponent < 1) {
        const int rounds_up = exponent == 0 && top >= -UINT64_C(0x400); /* to the smallest normal number */
        top = flushes() && !rounds_up ? 0 : shift((wide){0, top}, 1 - exponent).low;
        exponent = 1;
    }
    if (exponent < 0x7ff) {
        bits = top >> 11;
        bits += (top & 0x7ff) > 0x400 - (bits & 1); /* to nearest, to even in the middle */
        bits += (uint64_t)(exponent - 1) << 52;     /* 2^52 of the mantissa adds 1 to the exponent, and a carry does */
    }
    bits |= sign;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static double sum_of(parts a, parts b, parts c)
{
    const int negative = a.negative ^ b.negative, distance = a.exponent + b.exponent - c.exponent + 52;
    /* Both with room for the carry, and for all bits that a difference without leading ones needs. */
    const wide product = multiply(a.mantissa << 10, b.mantissa << 10), addend = {c.mantissa << 8, 0};
    const wide p = distance < 0 ? shift(product, -distance) : product;
    const wide q = distance > 0 ? shift(addend, distance) : addend;
    const int exponent = distance < 0 ? c.exponent - 72 : a.exponent + b.exponent - 20;
    const int larger = p.high != q.high ? p.high > q.high : p.low >= q.low;
    wide sum = negative == c.negative ? add(p, q) : larger ? subtract(p, q) : subtract(q, p);
    const int below = sum.high ? 0 : 64;
    if (below)
        sum = (wide){sum.low, 0};
    if (!sum.high)
        return 0;
    const int room = __builtin_clzll(sum.high);
    const uint64_t top = sum.high << room | sum.low >> 1 >> (63 - room) | (sum.low << room != 0);
    return rounded(top, exponent + 64 - below - room + 1086, larger ? negative : c.negative);
}

static int is_finite(double x) { return x - x == 0; }

/* In a mode that reads denormals as zero they are equal to zero here, too. */
double cdrop_fma_f64(double a, double b, double c)
{
    if (a == 0 || b == 0 || !is_finite(a) || !is_finite(b))
        return a * b + c;
    if (!is_finite(c))
        return c + c;
    if (c == 0)
        return a * b;
    return sum_of(parts_of(a), parts_of(b), parts_of(c));
}
