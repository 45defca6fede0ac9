/* The generator against its published outputs, and masks against a plain reading of their definition. */
#include <stdio.h>
#include <string.h>

#include "check.h"

/* ---- The definition, word by word ---------------------------------------------------------------------------- */

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* xoshiro256++ as its authors publish it. */
static uint64_t next(uint64_t s[4])
{
    const uint64_t result = rotl(s[0] + s[3], 23) + s[0];
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

typedef struct {
    uint64_t lane[8][4];
} stream;

static stream stream_of(uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer, uint64_t block)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    stream s;
    for (uint64_t lane = 0; lane < 8; lane++) {
        uint64_t k[4] = {seed, step, (uint64_t)purpose << 32 | layer, block * 8 + lane};
        for (int round = 0; round < 2; round++) {
            k[0] = mix(k[0] + (round ? k[3] : 0) + golden);
            k[1] = mix(k[1] + k[0] + golden);
            k[2] = mix(k[2] + k[1] + golden);
            k[3] = mix(k[3] + k[2] + golden);
        }
        memcpy(s.lane[lane], k, sizeof k);
    }
    return s;
}

static void draw(stream *s, uint64_t words[8])
{
    for (int lane = 0; lane < 8; lane++)
        words[lane] = next(s->lane[lane]);
}

static void group_mask(stream *s, uint64_t kept[8], uint64_t undecided[8], uint64_t keep)
{
    memset(kept, 0, 8 * sizeof *kept);
    for (int bit = 31; bit >= 0 && (keep & ((UINT64_C(1) << (bit + 1)) - 1)) != 0; bit--) {
        uint64_t random[8], any = 0;
        draw(s, random);
        for (int i = 0; i < 8; i++) {
            if (keep >> bit & 1) {
                kept[i] |= undecided[i] & ~random[i];
                undecided[i] &= random[i];
            } else
                undecided[i] &= ~random[i];
            any |= undecided[i];
        }
        if (!any)
            break;
    }
}

/* Rows of one generator block; `mask` has room for whole groups. */
static void block_mask(uint64_t *mask, size_t rows, size_t units, uint64_t keep, stream s)
{
    const size_t words = cdrop_words(units);
    for (size_t i = 0; i < rows * words; i += 8) {
        uint64_t undecided[8];
        for (size_t j = 0; j < 8; j++)
            undecided[j] = cdrop_valid_bits(units, (i + j) % words);
        group_mask(&s, mask + i, undecided, keep);
    }
}

enum { MOST_UNITS = 832, MOST_ROWS = 192 };

/* rows of a mask from row 0 on; the result is overwritten by the next call. */
static const uint64_t *defined_mask(size_t rows, size_t units, uint64_t keep, uint64_t step)
{
    static uint64_t mask[MOST_ROWS * MOST_UNITS / 64];
    const size_t words = cdrop_words(units);
    for (size_t row = 0; row < rows; row += 64) {
        uint64_t *block = mask + row * words;
        const size_t n = cdrop_min(64, rows - row) * words;
        if (keep == 0 || keep == CDROP_KEEP_ALL)
            for (size_t i = 0; i < n; i++)
                block[i] = keep ? cdrop_valid_bits(units, i % words) : 0;
        else
            block_mask(block, cdrop_min(64, rows - row), units, keep, stream_of(2026, step, 0, 1, row / 64));
    }
    return mask;
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

/* First outputs of the authors' C program from the state {1, 2, 3, 4}. */
static const uint64_t published[10] = {
    UINT64_C(41943041),
    UINT64_C(58720359),
    UINT64_C(3588806011781223),
    UINT64_C(3591011842654386),
    UINT64_C(9228616714210784205),
    UINT64_C(9973669472204895162),
    UINT64_C(14011001112246962877),
    UINT64_C(12406186145184390807),
    UINT64_C(15849039046786891736),
    UINT64_C(10450023813501588000),
};

/* keep = 1/2 looks at one bit: a unit is kept where the generator's bit is 0. So the words show through. */
static void test_published_outputs(const cdrop_path *path)
{
    uint64_t state[32], plain[4] = {1, 2, 3, 4};
    check_case("published outputs, %s", path->name);
    for (size_t i = 0; i < 32; i++)
        state[i] = i / 8 + 1;
    uint64_t *out = guarded(80 * sizeof *out);
    path->mask_block(out, 80, 1, ~UINT64_C(0), UINT64_C(1) << 31, state);
    for (size_t i = 0; i < 10; i++) {
        CHECK(next(plain) == published[i], "the test's own generator, output %zu", i);
        for (size_t lane = 0; lane < 8; lane++)
            CHECK(~out[8 * i + lane] == published[i], "output %zu of lane %zu", i, lane);
    }
    guarded_release();
}

/* The inverse of mix: of its shifts, and of its factors modulo 2^64. */
static uint64_t unmix(uint64_t z)
{
    z = (z ^ z >> 31 ^ z >> 62) * UINT64_C(0x319642b2d24d8ec3);
    z = (z ^ z >> 27 ^ z >> 54) * UINT64_C(0x96de1b173f119089);
    return z ^ z >> 30 ^ z >> 60;
}

/* The one key of all whose state would be 0, which the generator never leaves. It solves the second round from its end:
 * the words after the first round are 0 and three times -golden. */
static void test_state_of_zeros(void)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15), word = unmix(-golden);
    uint64_t state[32];
    check_case("a state of zeros");
    CHECK(mix(word) == -golden && mix(unmix(12345)) == 12345, "unmix is not the inverse");
    cdrop_stream_state(state, -golden, word - golden, (uint32_t)(word >> 32), (uint32_t)word, word / 8);
    for (uint64_t lane = 0; lane < 8; lane++) {
        const int zero = lane == word % 8 && !state[8 + lane] && !state[16 + lane] && !state[24 + lane];
        const int other = lane != word % 8 && state[8 + lane];
        CHECK(zero ? state[lane] == golden : other, "lane %d", (int)lane);
    }
}

static void test_random_words(void)
{
    const size_t sizes[] = {0, 1, 7, 8, 9, 100};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        stream s = stream_of(7, 11, CDROP_FOR_USER, UINT32_MAX, 5);
        uint64_t *out = guarded(sizes[i] * sizeof *out);
        check_case("%zu random words", sizes[i]);
        cdrop_random_words(out, sizes[i], 7, 11, CDROP_FOR_USER, UINT32_MAX, 5);
        for (size_t j = 0; j < sizes[i]; j++)
            CHECK(out[j] == next(s.lane[j % 8]), "word %zu", j);
    }
    guarded_release();
}

static void check_mask(size_t rows, size_t units, uint64_t keep, uint64_t step)
{
    const size_t words = cdrop_words(units);
    const uint64_t *defined = defined_mask(rows, units, keep, step);
    uint64_t *mask = guarded(rows * words * sizeof *mask);
    cdrop_bernoulli_mask(mask, 0, rows, units, keep, 2026, step, CDROP_FOR_MASKS, 1);
    CHECK(!memcmp(mask, defined, rows * words * sizeof *mask), "differs from the definition");
    if (rows > 64) { /* the rows of the second block alone */
        uint64_t *tail = guarded((rows - 64) * words * sizeof *tail);
        cdrop_bernoulli_mask(tail, 64, rows - 64, units, keep, 2026, step, CDROP_FOR_MASKS, 1);
        CHECK(!memcmp(tail, defined + 64 * words, (rows - 64) * words * sizeof *tail), "depends on the cut");
    }
    guarded_release();
}

static void test_masks(const char *path)
{
    const uint64_t keeps[] = {0, 1, UINT64_C(1) << 31, 0x33333333, 0xffffffff, CDROP_KEEP_ALL};
    const size_t widths[] = {1, 63, 64, 65, 127, 128, 129, 200, 512, 784}, rows[] = {1, 2, 63, 64, 65, 130};
    for (size_t k = 0; k < COUNT(keeps); k++)
        for (size_t w = 0; w < COUNT(widths); w++)
            for (size_t r = 0; r < COUNT(rows); r++) {
                check_case("mask %zu x %zu, keep %llx, %s", rows[r], widths[w], (unsigned long long)keeps[k], path);
                check_mask(rows[r], widths[w], keeps[k], r);
            }
    check_case("empty masks");
    cdrop_bernoulli_mask(guarded(0), 0, 0, 5, 1, 0, 0, CDROP_FOR_MASKS, 0);
    cdrop_bernoulli_mask(guarded(0), 0, 5, 0, 1, 0, 0, CDROP_FOR_MASKS, 0);
    guarded_release();
}

/* A unit whose 32 bits all equal keep's is decided by them: nothing more may be drawn. That happens once in 2^32 units;
 * these steps were searched for. Further groups of the block show whether the generator is where it should be. */
static void test_ties(const char *path)
{
    const struct {
        uint64_t keep, step;
    } ties[] = {{0x33333333, 71076}, {0x80000001, 15423}, {0xaaaaaaab, 77844}};
    for (size_t i = 0; i < COUNT(ties); i++) {
        check_case("a unit equal to keep %llx, %s", (unsigned long long)ties[i].keep, path);
        check_mask(64, MOST_UNITS, ties[i].keep, ties[i].step);
    }
}

/* Within 5 standard deviations of the binomial distribution, for all units together. */
static void test_frequency(void)
{
    enum { ROWS = 1000, UNITS = 1000 };
    const double keeps[] = {0.001, 0.2, 0.5, 0.9};
    static uint64_t mask[ROWS * ((UNITS + 63) / 64)];
    for (size_t i = 0; i < COUNT(keeps); i++) {
        const double n = (double)ROWS * UNITS, keep = (double)(uint64_t)(keeps[i] * 0x1p32) * 0x1p-32;
        double kept = 0;
        cdrop_bernoulli_mask(mask, 0, ROWS, UNITS, (uint64_t)(keeps[i] * 0x1p32), 3, 1, CDROP_FOR_MASKS, 2);
        for (size_t w = 0; w < COUNT(mask); w++)
            kept += __builtin_popcountll(mask[w]);
        check_case("frequency at keep %g", keep);
        CHECK(fabs(kept - n * keep) < 5 * sqrt(n * keep * (1 - keep)), "%g of %g units", kept, n);
    }
}

/* The polar method on pairs of words, with the C library's logarithm. */
static void test_normal_numbers(void)
{
    enum { N = 1001 };
    stream s = stream_of(5, 0, CDROP_FOR_WEIGHTS, 2, 9);
    double *out = guarded(N * sizeof *out), worst = 0;
    check_case("normal numbers");
    cdrop_random_normal(out, N, 5, 0, CDROP_FOR_WEIGHTS, 2, 9);
    for (size_t i = 0, word = 0; i < N; word += 2) {
        const double u = (double)(next(s.lane[word % 8]) >> 11) * 0x1p-52 - 1;
        const double v = (double)(next(s.lane[word % 8 + 1]) >> 11) * 0x1p-52 - 1;
        const double r = u * u + v * v;
        if (r >= 1 || r == 0)
            continue;
        const double f = sqrt(-2 * log(r) / r);
        worst = fmax(worst, fabs(out[i++] / (u * f) - 1));
        if (i < N)
            worst = fmax(worst, fabs(out[i++] / (v * f) - 1));
    }
    CHECK(worst < 1e-14, "relative error %g", worst);
    guarded_release();
}

int main(void)
{
    const cdrop_path *paths[MOST_PATHS];
    const size_t n = all_paths(paths);
    for (size_t i = 0; i < n; i++)
        test_published_outputs(paths[i]);
    for (int i = 0; cdrop_simd_usable(i); i++) {
        cdrop_select_simd(cdrop_simd_usable(i));
        test_masks(cdrop_simd_active());
        test_ties(cdrop_simd_active());
    }
    test_random_words();
    test_state_of_zeros();
    test_frequency();
    test_normal_numbers();
    return check_report();
}
