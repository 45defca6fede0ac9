/* Counts the units kept at each bit position of each lane: word i of a call is drawn by lane i mod 8.
 * Arguments: those of words.h, and pieces=N. Writes 8 x 64 counts and the number of words, as they lie in memory. */
#include <stdio.h>

#include "words.h"

enum { PLANES = 10, LANES = 8 };

static uint64_t counts[LANES][64], plane[PLANES][LANES];

/* Bit i of each position's count so far is in plane i. */
static void count(const uint64_t group[LANES])
{
    uint64_t carry[LANES];
    for (int lane = 0; lane < LANES; lane++)
        carry[lane] = group[lane];
    for (int i = 0; i < PLANES; i++)
        for (int lane = 0; lane < LANES; lane++) {
            const uint64_t both = plane[i][lane] & carry[lane];
            plane[i][lane] ^= carry[lane];
            carry[lane] = both;
        }
}

static void empty_planes(void)
{
    for (int i = 0; i < PLANES; i++)
        for (int lane = 0; lane < LANES; lane++) {
            for (int bit = 0; bit < 64; bit++)
                counts[lane][bit] += (plane[i][lane] >> bit & 1) << i;
            plane[i][lane] = 0;
        }
}

int main(int argc, char **argv)
{
    (void)argc;
    uint64_t pieces = 0, read = 0;
    words w = words_open(argv, &(argument){"pieces", &pieces}, 1);
    for (uint64_t i = 0; i < pieces; i++, read += w.n) {
        const uint64_t *piece = words_next(&w);
        for (size_t group = 0; group < w.n / LANES; group++) {
            count(piece + group * LANES);
            if (group % ((1 << PLANES) - 1) == 0)
                empty_planes();
        }
        empty_planes();
    }
    fwrite(counts, sizeof counts, 1, stdout);
    fwrite(&read, sizeof read, 1, stdout);
    return fflush(stdout) != 0;
}
