/* A path is offered only where the CPU reports every feature its instructions need: emulators hide some and not others.
 * cpu.c is compiled here once more, under other names, and asks a CPU that this file makes up. */
#include "check.h"

#include <stdio.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <string.h>

enum { EBX = 1, ECX = 2, REGISTERS = 4, LEAVES = 8 };

static unsigned reported[LEAVES][REGISTERS];

static int made_up_cpuid(unsigned leaf, unsigned *a, unsigned *b, unsigned *c, unsigned *d)
{
    const unsigned *r = reported[leaf];
    *a = r[0], *b = r[EBX], *c = r[ECX], *d = r[3];
    return 1;
}

#define __get_cpuid made_up_cpuid
#define __get_cpuid_count(leaf, part, a, b, c, d) made_up_cpuid((part) == 0 ? (leaf) : 0, a, b, c, d)
#define cdrop_active_path made_up_active_path
#define cdrop_simd_active made_up_simd_active
#define cdrop_simd_built made_up_simd_built
#define cdrop_simd_usable made_up_simd_usable
#define cdrop_select_simd made_up_select_simd
#define cdrop_simd_parameter made_up_simd_parameter
#define cdrop_flush_denormals made_up_flush_denormals
#define cdrop_restore_fp_mode made_up_restore_fp_mode
#include "../../src_c/cpu.c"

/* By the first of the paths that needs each: without it, those in front of that one remain. */
enum { PORTABLE, FMA, AVX2, AVX512 };
static const struct {
    const char *name;
    unsigned leaf, reg, bit;
    int first;
} needed[] = {
    {"osxsave", 1, ECX, bit_OSXSAVE, FMA},
    {"avx", 1, ECX, bit_AVX, FMA},
    {"fma", 1, ECX, bit_FMA, FMA},
    {"popcnt", 1, ECX, bit_POPCNT, AVX2},
    {"avx2", 7, EBX, bit_AVX2, AVX2},
    {"bmi", 7, EBX, bit_BMI, AVX2},
    {"bmi2", 7, EBX, bit_BMI2, AVX512},
    {"avx512f", 7, EBX, bit_AVX512F, AVX512},
    {"avx512bw", 7, EBX, bit_AVX512BW, AVX512},
    {"avx512dq", 7, EBX, bit_AVX512DQ, AVX512},
    {"avx512vl", 7, EBX, bit_AVX512VL, AVX512},
};

static void check_paths(int best)
{
    static const cdrop_path *const all[] = {&cdrop_path_scalar, &cdrop_path_scalar_fma, &cdrop_path_avx2,
                                            &cdrop_path_avx512};
    const cdrop_path *paths[4];
    const int n = usable_paths(paths);
    CHECK(paths[0] == all[best > FMA ? FMA : best], "the first path is %s", paths[0]->name);
    CHECK(n == (best > FMA ? best : 1), "%d paths", n);
    CHECK(paths[n - 1] == all[best], "the best path is %s", paths[n - 1]->name);
}

/* What this system saves at a switch of tasks cannot be made up. */
static int best_here(void)
{
    const uint64_t saved = saved_registers();
    return (saved & SAVES_ZMM) == SAVES_ZMM ? AVX512 : (saved & SAVES_YMM) == SAVES_YMM ? AVX2 : PORTABLE;
}

static void test_features(void)
{
    const int best = best_here();
    for (size_t i = 0; i < COUNT(needed); i++) {
        check_case("all but %s", needed[i].name);
        memset(reported, 0xff, sizeof reported);
        reported[needed[i].leaf][needed[i].reg] &= ~needed[i].bit;
        check_paths(needed[i].first - 1 < best ? needed[i].first - 1 : best);
    }
    check_case("these alone");
    memset(reported, 0, sizeof reported);
    check_paths(PORTABLE);
    for (size_t i = 0; i < COUNT(needed); i++)
        reported[needed[i].leaf][needed[i].reg] |= needed[i].bit;
    check_paths(best);
}
#else
static void test_features(void) {}
#endif

int main(void)
{
    test_features();
    const cdrop_path *paths[MOST_PATHS];
    const size_t n = all_paths(paths);
    printf("paths of this machine:");
    for (size_t i = 0; i < n; i++)
        printf(" %s", paths[i]->name);
    printf("\n");
    return check_report();
}
