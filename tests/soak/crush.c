/* One test of TestU01's batteries (L'Ecuyer and Simard 2007) on the bits of words, unit by unit.
 * Arguments: those of words.h, small=N or crush=N for the test by its number in SmallCrush or Crush, zip=1 to take bits
 * of two words in turn, neumann=1 to take of each two bits that differ the first (so masks of any keep give fair bits;
 * width must be even). Prints a line for each statistic: its p-value and name. */
#include <stdio.h>
#include <unistd.h>

#include <testu01/bbattery.h>
#include <testu01/swrite.h>
#include <testu01/unif01.h>

#include "words.h"

/* TestU01 calls a function without arguments, so what it reads from is here. */
static words source;
static const uint64_t *piece;
static size_t at; /* in the piece */
static uint64_t zip, neumann;
static uint64_t held[4]; /* stretches of at most 32 bits, first bit lowest; the last one is next */
static unsigned live[4], stretches;

static uint64_t next_word(unsigned *valid)
{
    if (!piece || at == source.n) {
        piece = words_next(&source);
        at = 0;
    }
    const size_t row_words = (source.width + 63) / 64;
    const int last = !source.xorshift && at % row_words == row_words - 1;
    *valid = last ? (unsigned)(source.width - 1) % 64 + 1 : 64;
    return piece[at++];
}

/* Bit i of 32 at bit 2 i. */
static uint64_t spread(uint64_t x)
{
    x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
    x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x | x << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    x = (x | x << 2) & UINT64_C(0x3333333333333333);
    return (x | x << 1) & UINT64_C(0x5555555555555555);
}

/* Of at most 32 bits, the first of each two that differ (von Neumann 1951); returns how many. */
static unsigned fair_bits(uint64_t *bits)
{
    unsigned n = 0;
    uint64_t fair = 0;
    for (uint64_t differ = (*bits ^ *bits >> 1) & 0x55555555; differ; differ &= differ - 1)
        fair |= (*bits >> __builtin_ctzll(differ) & 1) << n++;
    *bits = fair;
    return n;
}

static void hold(uint64_t bits, unsigned n)
{
    for (unsigned i = n > 32 ? 2 : 1; i-- > 0; stretches++) {
        held[stretches] = (uint32_t)(bits >> 32 * i);
        live[stretches] = i || n <= 32 ? n - 32 * i : 32;
        if (neumann)
            live[stretches] = fair_bits(&held[stretches]);
    }
}

static void hold_next(void)
{
    unsigned valid;
    const uint64_t first = next_word(&valid);
    if (!zip) {
        hold(first, valid);
        return;
    }
    const uint64_t second = next_word(&valid);
    hold(spread(first >> 32) | spread(second >> 32) << 1, 64);
    hold(spread((uint32_t)first) | spread((uint32_t)second) << 1, 64);
}

/* The tests look at a number from its highest bit on. */
static uint32_t reversed(uint32_t x)
{
    x = (x & 0x55555555) << 1 | (x >> 1 & 0x55555555);
    x = (x & 0x33333333) << 2 | (x >> 2 & 0x33333333);
    x = (x & 0x0f0f0f0f) << 4 | (x >> 4 & 0x0f0f0f0f);
    return __builtin_bswap32(x);
}

static unsigned next_number(void)
{
    static uint64_t bits;
    static unsigned n;
    while (n < 32) {
        if (!stretches)
            hold_next();
        stretches--;
        bits |= held[stretches] << n;
        n += live[stretches];
    }
    const uint32_t number = (uint32_t)bits;
    bits >>= 32;
    n -= 32;
    return reversed(number);
}

/* TestU01 prints without end; results go where the standard output was. */
int main(int argc, char **argv)
{
    (void)argc;
    uint64_t small = 0, crush = 0;
    const argument more[] = {{"small", &small}, {"crush", &crush}, {"zip", &zip}, {"neumann", &neumann}};
    source = words_open(argv, more, sizeof more / sizeof *more);
    FILE *results = fdopen(dup(STDOUT_FILENO), "w");
    if (!results || !freopen("/dev/null", "w", stdout))
        return 2;
    swrite_Basic = FALSE;
    int repetitions[97] = {0}; /* Crush has 96 tests */
    repetitions[small ? small : crush] = 1;
    unif01_Gen *generator = unif01_CreateExternGenBits("words", next_number);
    (small ? bbattery_RepeatSmallCrush : bbattery_RepeatCrush)(generator, repetitions);
    for (int i = 0; i < bbattery_NTests; i++)
        fprintf(results, "%.17g\t%s\n", bbattery_pVal[i], bbattery_TestNames[i]);
    return fclose(results) != 0;
}
