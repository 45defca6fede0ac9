/* Counts, for every two rows among the first HALF of two successive steps, the units that both keep or both drop. Those
 * rows are of two layers and of two blocks. Arguments: those of words.h, of which width is 512 and order 0, and
 * pieces=N. Writes ROWS x ROWS counts (those above the diagonal 0) and the number of units of each, as they lie in
 * memory. */
#include <stdio.h>

#include "words.h"

enum { HALF = LAYERS / 2 * BATCH, ROWS = 2 * HALF, ROW = 512 / 64, STEP = LAYERS * BATCH * ROW };

static uint64_t counts[ROWS][ROWS];

/* Row i of two steps. */
static const uint64_t *row(const uint64_t *steps, int i) { return steps + i / HALF * STEP + i % HALF * ROW; }

static void compare(const uint64_t *steps)
{
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < i; j++) {
            const uint64_t *a = row(steps, i), *b = row(steps, j);
            uint64_t equal = 0;
            for (int k = 0; k < ROW; k++)
                equal += (uint64_t)__builtin_popcountll(~(a[k] ^ b[k]));
            counts[i][j] += equal;
        }
}

int main(int argc, char **argv)
{
    (void)argc;
    uint64_t pieces = 0, units = 0;
    words w = words_open(argv, &(argument){"pieces", &pieces}, 1);
    for (uint64_t i = 0; i < pieces; i++) {
        const uint64_t *piece = words_next(&w);
        for (size_t step = 0; step + 1 < w.steps; step += 2, units += 64 * ROW)
            compare(piece + step * STEP);
    }
    fwrite(counts, sizeof counts, 1, stdout);
    fwrite(&units, sizeof units, 1, stdout);
    return fflush(stdout) != 0;
}
