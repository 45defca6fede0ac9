/* Sums how far Hamming weights are from their mean, by the signature of the eight words before: for each, oldest last,
 * whether its weight was below `low` (0), above `high` (2), or between (1) (Blackman and Vigna 2022).
 * Arguments: those of words.h, claimed=K for a mean of K / 2^26, pieces=N, below=N, above=N. Writes 3^8 sums of
 * (weight - mean) 2^26 and the number of words, as they lie in memory. */
#include <stdio.h>

#include "words.h"

enum { SIGNATURES = 6561 };

static int64_t sums[SIGNATURES];

int main(int argc, char **argv)
{
    (void)argc;
    uint64_t pieces = 0, claimed = 0, below = 0, above = 0, read = 0;
    const argument more[] = {{"pieces", &pieces}, {"claimed", &claimed}, {"below", &below}, {"above", &above}};
    words w = words_open(argv, more, sizeof more / sizeof *more);
    int64_t away[65];
    unsigned digit[65], signature = 0;
    for (unsigned weight = 0; weight <= 64; weight++) {
        away[weight] = ((int64_t)weight << 26) - (int64_t)claimed;
        digit[weight] = (weight < below ? 0 : weight <= above ? 1 : 2) * (SIGNATURES / 3);
    }
    for (uint64_t i = 0; i < pieces; i++, read += w.n) {
        const uint64_t *piece = words_next(&w);
        for (size_t j = 0; j < w.n; j++) {
            const int weight = __builtin_popcountll(piece[j]);
            sums[signature] += away[weight];
            signature = signature / 3 + digit[weight];
        }
    }
    fwrite(sums, sizeof sums, 1, stdout);
    fwrite(&read, sizeof read, 1, stdout);
    return fflush(stdout) != 0;
}
