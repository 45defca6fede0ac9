/* The fused multiply-adds in software against the CPU's instruction, where there is one, in both modes of denormals;
 * and everywhere against the hash of what the instruction gives. An argument is the number of random operands of each
 * kind and type (40,000). */
#include <stdlib.h>
#include <string.h>

#include "../../src_c/fma.h"
#include "check.h"

enum { TRIALS = 40000 };

/* Flushed are the results that x86-64 flushes. ARM, which has other rules, always has the instruction. */
#if defined(__aarch64__)
enum { MODES = 1 };
#else
enum { MODES = 2 };
#endif

/* ---- Operands, as bits: a mode may read a denormal number as zero --------------------------------------------- */

typedef struct {
    uint64_t x[3];
} operands;

/* Bits of the fraction, and the exponent of infinity. */
static const int fraction_bits[DTYPES] = {23, 52}, infinity[DTYPES] = {0xff, 0x7ff};

static uint64_t number(cdrop_dtype t, int negative, int exponent, uint64_t fraction)
{
    const uint64_t one = UINT64_C(1) << fraction_bits[t];
    return (uint64_t)negative << (t == CDROP_FLOAT64 ? 63 : 31) | (uint64_t)exponent * one | (fraction & (one - 1));
}

static uint64_t result(cdrop_dtype t, const operands *o, int software)
{
    uint64_t bits[3] = {o->x[0], o->x[1], o->x[2]};
    if (t == CDROP_FLOAT64) {
        double x[3];
        memcpy(x, bits, sizeof x);
        x[0] = software ? cdrop_fma_f64(x[0], x[1], x[2]) : fused_instruction_f64(x[0], x[1], x[2]);
        memcpy(bits, x, sizeof *x);
    } else {
        float x[3];
        for (int i = 0; i < 3; i++) {
            const uint32_t half = (uint32_t)bits[i];
            memcpy(&x[i], &half, sizeof half);
        }
        uint32_t half;
        x[0] = software ? cdrop_fma_f32(x[0], x[1], x[2]) : fused_instruction_f32(x[0], x[1], x[2]);
        memcpy(&half, x, sizeof half);
        bits[0] = half;
    }
    const uint64_t size = bits[0] & (number(t, 1, 0, 0) - 1);
    return size > number(t, 0, infinity[t], 0) ? 1 : bits[0]; /* all NaNs are one */
}

typedef struct {
    cdrop_dtype t;
    int has_instruction;
    size_t wrong;
    uint64_t hash;
} comparison;

static void compare(comparison *c, operands o)
{
    const uint64_t got = result(c->t, &o, 1), wanted = c->has_instruction ? result(c->t, &o, 0) : got;
    if (got != wanted && c->wrong++ < 5)
        CHECK(0, "%llx * %llx + %llx: %llx, not %llx", (unsigned long long)o.x[0], (unsigned long long)o.x[1],
              (unsigned long long)o.x[2], (unsigned long long)got, (unsigned long long)wanted);
    c->hash = (c->hash ^ got) * UINT64_C(0x9e3779b97f4a7c15);
    c->hash ^= c->hash >> 32;
}

/* ---- Kinds of operands --------------------------------------------------------------------------------------- */

/* All triples of numbers where rules change: zeros, the ends of the denormal and of the normal numbers, the
 * surroundings of 1, powers whose products end there, infinities, NaN. */
static void compare_special(comparison *c)
{
    const int bias = infinity[c->t] / 2, half = bias / 2, last = infinity[c->t] - 1;
    const int exponents[] = {0, 1, 2, half, half + 1, bias - 1, bias, bias + 1, bias + half, last, infinity[c->t]};
    const uint64_t fractions[] = {0, 1, UINT64_MAX};
    uint64_t numbers[2 * COUNT(exponents) * COUNT(fractions)];
    for (size_t i = 0; i < COUNT(numbers); i++)
        numbers[i] =
            number(c->t, (int)(i & 1), exponents[i / 2 % COUNT(exponents)], fractions[i / 2 / COUNT(exponents)]);
    for (size_t i = 0; i < COUNT(numbers); i++)
        for (size_t j = 0; j < COUNT(numbers); j++)
            for (size_t k = 0; k < COUNT(numbers); k++)
                compare(c, (operands){{numbers[i], numbers[j], numbers[k]}});
}

/* Addends at the ends of the normal and of the denormal numbers, and products of any size below. */
static void compare_edges(comparison *c)
{
    const int half = infinity[c->t] / 4;
    const uint64_t fractions[] = {0, 1, UINT64_MAX, UINT64_C(1) << (fraction_bits[c->t] - 1)};
    for (int below = 0; below <= 2 * fraction_bits[c->t] + 10; below++)
        for (size_t i = 0; i < COUNT(fractions) * COUNT(fractions) * COUNT(fractions); i++)
            for (int kind = 0; kind < 8; kind++) {
                const uint64_t x = number(c->t, kind & 1, half, fractions[i % 4]);
                const uint64_t y = number(c->t, 0, half + 4 - below, fractions[i / 4 % 4]);
                compare(c, (operands){{x, y, number(c->t, kind >> 1 & 1, kind >> 2, fractions[i / 16])}});
            }
}

/* Of the bits of a fraction all, few, or all but few: sums of those end in the middle between two numbers. */
static uint64_t any_fraction(cdrop_dtype t)
{
    const size_t bits = (size_t)fraction_bits[t], kind = random_below(4);
    const uint64_t few = UINT64_C(1) << random_below(bits) | UINT64_C(1) << random_below(bits);
    return kind == 0 ? few : kind == 1 ? ~few : kind == 2 ? few & -few : random_bits();
}

static int between(int exponent, int low, int high) { return exponent < low ? low : exponent > high ? high : exponent; }

/* A product of any size, or one near the ends of the range, and an addend so near to it that the sum depends on both,
 * or any. */
static operands near_operands(cdrop_dtype t)
{
    const int bias = infinity[t] / 2, last = infinity[t] - 1, reach = 5 * fraction_bits[t];
    const int ends[] = {0, bias + last, bias + (int)random_below((size_t)last)};
    const int sum = ends[random_below(3)] + (int)random_below((size_t)reach) - reach / 2; /* of the biased exponents */
    const int a =
        between((int)random_below((size_t)last), between(sum + bias - last, 0, last), between(sum + bias, 0, last));
    const int near = sum + (int)random_below((size_t)reach) - reach / 2;
    const int c = random_below(8) ? near : (int)random_below((size_t)last);
    const uint64_t signs = random_bits();
    return (operands){{number(t, signs & 1, a, any_fraction(t)),
                       number(t, signs >> 1 & 1, between(sum + bias - a, 0, last), any_fraction(t)),
                       number(t, signs >> 2 & 1, between(c, 0, last), any_fraction(t))}};
}

/* An addend that is the product's negative, but for its last bits. */
static operands cancelling_operands(cdrop_dtype t)
{
    operands o = near_operands(t), product = o;
    product.x[2] = number(t, 1, 0, 0); /* -0 leaves the product as it is */
    o.x[2] = result(t, &product, 1) ^ number(t, 1, 0, 0);
    o.x[2] += (uint64_t)random_below(5) - 2; /* where size_t has 32 bits, too */
    return o;
}

/* A product just beyond a power of two: (1 + x)(1 - x + x^2) = 1 + x^3, where x^3 is far below the product's last
 * bit. */
static operands power_operands(cdrop_dtype t)
{
    const int half = fraction_bits[t] / 2;
    operands o = near_operands(t);
    const uint64_t mantissa = number(t, 0, 1, 0) - 1, x = UINT64_C(1) << (fraction_bits[t] - half);
    o.x[0] = (o.x[0] & ~mantissa) | x;
    o.x[1] = (o.x[1] & ~mantissa) | ((mantissa + 1 - 2 * x + (x >> (half - 1))) & mantissa);
    return o;
}

/* A product in the middle between two numbers, (1 + 2^-i)(1 + 2^-j) with i + j one more than a fraction has bits, and
 * an addend that decides. */
static operands halfway_operands(cdrop_dtype t)
{
    const size_t bits = (size_t)fraction_bits[t], i = 1 + random_below(bits);
    const uint64_t mantissa = number(t, 0, 1, 0) - 1;
    operands o = near_operands(t);
    o.x[0] = (o.x[0] & ~mantissa) | UINT64_C(1) << (bits - i);
    o.x[1] = (o.x[1] & ~mantissa) | UINT64_C(1) << (i - 1);
    return o;
}

static void compare_random(comparison *c, size_t trials)
{
    for (size_t i = 0; i < trials; i++) {
        const uint64_t all = c->t == CDROP_FLOAT64 ? UINT64_MAX : UINT32_MAX;
        compare(c, (operands){{random_bits() & all, random_bits() & all, random_bits() & all}});
        compare(c, near_operands(c->t));
        compare(c, cancelling_operands(c->t));
        compare(c, power_operands(c->t));
        compare(c, halfway_operands(c->t));
    }
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

/* Of the specials and of TRIALS of each kind, with denormal numbers. */
static const uint64_t recorded[DTYPES] = {UINT64_C(0x5c1714fe167f0cfe), UINT64_C(0xa5c0c91a8febe2ce)};

static void test_fma(cdrop_dtype t, size_t trials, int flush)
{
    comparison c = {.t = t, .has_instruction = has_fused_instruction()};
    const cdrop_fp_mode mode = flush ? cdrop_flush_denormals() : 0;
    check_case("fma, %s, %s", DTYPE_NAME(t), flush ? "denormals flushed" : "denormals kept");
    compare_special(&c);
    compare_edges(&c);
    compare_random(&c, trials);
    if (flush)
        cdrop_restore_fp_mode(mode);
    CHECK(c.wrong == 0, "%zu wrong", c.wrong);
    if (!flush && trials == TRIALS)
        CHECK(c.hash == recorded[t], "hash 0x%016llx, recorded 0x%016llx", (unsigned long long)c.hash,
              (unsigned long long)recorded[t]);
}

int main(int count, char **arguments)
{
    const size_t trials = count > 1 ? strtoull(arguments[1], NULL, 10) : TRIALS;
    for (int flush = 0; flush < MODES; flush++)
        for (cdrop_dtype t = 0; t < DTYPES; t++)
            test_fma(t, trials, flush);
    return check_report();
}
