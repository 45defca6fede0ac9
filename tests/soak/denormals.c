/* How much longer an update takes whose states are denormal, on each path: one line "path ratio" each. RMSprop's square
 * root and division are what denormals slow down on every CPU; some multiply them at full speed. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../src_c/cpu.h"

enum { N = 1 << 14, ROUNDS = 301 };

static float weight[N], gradient[N], state[N];

#ifdef UNFLUSHED /* with -Wl,--wrap, what the library calls to flush denormals: here it does not */
cdrop_fp_mode __wrap_cdrop_flush_denormals(void);
cdrop_fp_mode __real_cdrop_flush_denormals(void);
cdrop_fp_mode __wrap_cdrop_flush_denormals(void)
{
    const cdrop_fp_mode mode = __real_cdrop_flush_denormals();
    cdrop_restore_fp_mode(mode);
    return mode;
}
#endif

static double time_update(float size)
{
    const cdrop_optimizer rule = {.rule = CDROP_RMSPROP, .learning_rate = 1e-3, .a = 0.9, .epsilon = 1e-8};
    struct timespec start, end;
    for (size_t i = 0; i < N; i++) {
        weight[i] = 1;
        gradient[i] = state[i] = size;
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    cdrop_update_weights(CDROP_FLOAT32, weight, gradient, state, NULL, N, &rule);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    static double ordinary[ROUNDS], denormal[ROUNDS];
    for (int i = 0; cdrop_simd_usable(i); i++) {
        cdrop_select_simd(cdrop_simd_usable(i));
        for (int round = 0; round < ROUNDS; round++) {
            ordinary[round] = time_update(1e-3f);
            denormal[round] = time_update(1e-40f);
        }
        qsort(ordinary, ROUNDS, sizeof *ordinary, ascending);
        qsort(denormal, ROUNDS, sizeof *denormal, ascending);
        printf("%s %.3f\n", cdrop_simd_active(), denormal[ROUNDS / 2] / ordinary[ROUNDS / 2]);
    }
    return 0;
}
