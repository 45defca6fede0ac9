/* Sums over the noise of dropout: powers of it, and products with later numbers.
 * Arguments: kind=1 (Gaussian), 2 (uniform) or 4 (concrete), seed=N, steps=N (of BATCH rows of WIDTH units each); and a fault: shift=N or
 * scale=N (in units of 1e-5), or copied=N (in every N-th step, each odd unit is the one before it).
 * Writes POWERS + 2 PAIRS sums and the number of units, as double, as they lie in memory. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdrop.h"

enum { BATCH = 128, WIDTH = 512, UNITS = BATCH * WIDTH, POWERS = 4, PAIRS = 5, LANES = 8 };

/* Distance of the numbers of a pair: the next unit, the other number of a radius and angle, the next row, the next block of
 * rows, and the next step. */
static const size_t distance[PAIRS] = {1, 8, WIDTH, 64 * WIDTH, UNITS};

static float drawn[UNITS];
static double z[2 * UNITS];      /* of this step and the next */
static double deviation, fourth; /* of the noise; the mean of z^4 */

static uint64_t argument(char **argv, const char *name)
{
    const size_t n = strlen(name);
    for (char **at = argv + 1; *at; at++)
        if (!strncmp(*at, name, n) && (*at)[n] == '=')
            return strtoull(*at + n + 1, NULL, 10);
    return 0;
}

static void standardize(char **argv, uint64_t step, cdrop_kind kind, double *out)
{
    const double shift = (double)argument(argv, "shift") * 1e-5, scale = 1 + (double)argument(argv, "scale") * 1e-5;
    const uint64_t copied = argument(argv, "copied");
    cdrop_noise(CDROP_FLOAT32, drawn, WIDTH, 0, BATCH, WIDTH, kind, CDROP_KEEP_ALL / 2, argument(argv, "seed"), step,
                CDROP_FOR_MASKS, 1);
    for (size_t i = 0; i < UNITS; i++)
        out[i] = ((double)drawn[i] - 1) / deviation * scale + shift;
    for (size_t i = 1; copied && step % copied == 0 && i < UNITS; i += 2)
        out[i] = out[i - 1];
}

/* Lanes are summed apart, so that compilers make vectors of them. */
static void add(double sums[][LANES], size_t i)
{
    for (int lane = 0; lane < LANES; lane++) {
        const double a = z[i + (size_t)lane], square = a * a;
        sums[0][lane] += a;
        sums[1][lane] += square - 1;
        sums[2][lane] += square * a;
        sums[3][lane] += square * square - fourth;
        for (int p = 0; p < PAIRS; p++) {
            const double b = z[i + (size_t)lane + distance[p]];
            sums[POWERS + p][lane] += a * b;
            sums[POWERS + PAIRS + p][lane] += (square - 1) * (b * b - 1);
        }
    }
}

int main(int argc, char **argv)
{
    enum { SUMS = POWERS + 2 * PAIRS };
    (void)argc;
    const cdrop_kind kind = (cdrop_kind)argument(argv, "kind");
    const uint64_t steps = argument(argv, "steps");
    double total[SUMS + 1] = {0};
    cdrop_select_simd(NULL);
    /* At keep 1/2 concrete noise is 1 - tanh(5 x), x logistic: by quadrature, as in noise.py. */
    deviation = kind == CDROP_CONCRETE ? 0.949107111091474 : 1;
    fourth = kind == CDROP_GAUSSIAN ? 3 : kind == CDROP_UNIFORM ? 1.8 : 1.0697685062222924;
    standardize(argv, 0, kind, z + UNITS);
    for (uint64_t step = 1; step <= steps; step++) {
        double sums[SUMS][LANES] = {{0}};
        memcpy(z, z + UNITS, UNITS * sizeof *z);
        standardize(argv, step, kind, z + UNITS);
        for (size_t i = 0; i < UNITS; i += LANES)
            add(sums, i);
        for (int sum = 0; sum < SUMS; sum++)
            for (int lane = 0; lane < LANES; lane++)
                total[sum] += sums[sum][lane];
        total[SUMS] += UNITS;
    }
    fwrite(total, sizeof total, 1, stdout);
    return fflush(stdout) != 0;
}
