/* Keyed streams of random words, and packed Bernoulli masks drawn from them.
 *
 * A stream's state is a function of its key alone, not of earlier draws. That is what makes a mask a function of
 * (seed, step, purpose, layer, row, unit): any thread can draw any block of rows at any time, and a resumed fit
 * draws what an uninterrupted one would. The order of words in a mask is a contract; cdrop.reference spells it out
 * in NumPy. */
#include <math.h>
#include <string.h>

#include "cpu.h"

/* 2^64 divided by the golden ratio, made odd: SplitMix64's increment. Without it mix(0) = 0 would map keys of zeros
 * to zeros. */
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* SplitMix64's finalizer (Steele, Lea and Flood 2014): a bijection of 64 bits. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Two rounds over the four key words. Each word is replaced by a bijection of itself given the others, so the whole is
 * a bijection of 256 bits; after the second round every output bit depends on every key word. Lanes enter last, so that
 * the first three words of the first round are shared. */
void cdrop_stream_state(uint64_t state[32], uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer,
                        uint64_t block)
{
    const uint64_t a = mix(seed + GOLDEN), b = mix(step + a + GOLDEN);
    const uint64_t c = mix(((uint64_t)purpose << 32 | layer) + b + GOLDEN);
    for (uint64_t lane = 0; lane < 8; lane++) {
        const uint64_t d = mix(block * 8 + lane + c + GOLDEN);
        uint64_t s0 = mix(a + d + GOLDEN);
        const uint64_t s1 = mix(b + s0 + GOLDEN), s2 = mix(c + s1 + GOLDEN), s3 = mix(d + s2 + GOLDEN);
        if (!(s0 | s1 | s2 | s3)) /* the one state that a xorshift generator never leaves */
            s0 = GOLDEN;
        state[lane] = s0, state[8 + lane] = s1, state[16 + lane] = s2, state[24 + lane] = s3;
    }
}

static uint64_t rotl(uint64_t x, int k) { return x << k | x >> (64 - k); }

/* The published step of xoshiro256++, on one lane. */
static uint64_t next_word(uint64_t state[32], size_t lane)
{
    uint64_t *s0 = state + lane, *s1 = s0 + 8, *s2 = s0 + 16, *s3 = s0 + 24;
    const uint64_t result = rotl(*s0 + *s3, 23) + *s0, t = *s1 << 17;
    *s2 ^= *s0;
    *s3 ^= *s1;
    *s1 ^= *s2;
    *s0 ^= *s3;
    *s2 ^= t;
    *s3 = rotl(*s3, 45);
    return result;
}

/* Eight generators side by side, one word of each in turn: the order that the vector paths produce. */
void cdrop_random_words(uint64_t *out, size_t n, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer,
                        uint64_t block)
{
    uint64_t state[32];
    cdrop_stream_state(state, seed, step, purpose, layer, block);
    for (size_t i = 0; i < n; i++)
        out[i] = next_word(state, i % 8);
}

void cdrop_random_normal(double *out, size_t n, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer,
                         uint64_t block)
{
    uint64_t state[32];
    cdrop_stream_state(state, seed, step, purpose, layer, block);
    /* 53 bits, as many as a double holds, scaled to [-1, 1) exactly. Only IEEE operations and our own logarithm:
     * those of C libraries differ in the last bit. Words come in pairs, and 8 is even, so a pair never wraps around
     * the lanes. */
    for (size_t filled = 0, word = 0; filled < n; word += 2) {
        const double u = (double)(next_word(state, word % 8) >> 11) * 0x1p-52 - 1;
        const double v = (double)(next_word(state, word % 8 + 1) >> 11) * 0x1p-52 - 1;
        const double s = u * u + v * v;
        if (s >= 1 || s == 0)
            continue;
        const double f = sqrt(-2 * cdrop_log(s) / s);
        out[filled++] = u * f;
        if (filled < n)
            out[filled++] = v * f;
    }
}

/* All units kept: ones, with the padding bits of each row 0. */
static void fill_ones(uint64_t *mask, size_t rows, size_t units)
{
    const size_t words = cdrop_words(units);
    for (size_t i = 0; i < rows * words; i++)
        mask[i] = cdrop_valid_bits(units, i % words);
}

void cdrop_bernoulli_mask(uint64_t *mask, size_t first_row, size_t rows, size_t units, uint64_t keep, uint64_t seed,
                          uint64_t step, uint32_t purpose, uint32_t layer)
{
    const size_t words = cdrop_words(units);
    if (!words || !rows)
        return;
    /* Certainty needs no draw, and mask_block could not express it: it compares 32 binary digits of keep. */
    if (keep == 0 || keep == CDROP_KEEP_ALL) {
        memset(mask, 0, rows * words * sizeof *mask);
        if (keep)
            fill_ones(mask, rows, units);
        return;
    }
    const uint64_t valid = cdrop_valid_bits(units, words - 1);
    for (size_t row = 0; row < rows; row += CDROP_BLOCK) {
        uint64_t state[32];
        cdrop_stream_state(state, seed, step, purpose, layer, (first_row + row) / CDROP_BLOCK);
        cdrop_active_path()->mask_block(mask + row * words, cdrop_min(CDROP_BLOCK, rows - row) * words, words, valid,
                                        keep, state);
    }
}
