/* Which SIMD paths this machine can run, the choice of one, and the mode that flushes denormals.
 *
 * A path needs the CPU's instructions and an operating system that saves its registers at a context switch; both are
 * asked for, because a virtual machine may offer one without the other. */
#include "cpu.h"

#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#include <immintrin.h>

/* The operating system saves the registers named by these bits of XCR0: 1 and 2 are XMM and the upper halves of YMM;
 * 5 to 7 are the mask registers, the upper halves of ZMM0 to 15, and ZMM16 to 31. */
enum { SAVES_YMM = 0x6, SAVES_ZMM = 0xe6 };

static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

typedef struct {
    int fma, avx2, avx512;
} features;

/* Every bit that a path's instructions need is tested: emulators (valgrind) hide some and not others. Without
 * OSXSAVE the instruction that reads XCR0 would itself be illegal. */
static features detect(void)
{
    features f = {0, 0, 0};
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return f;
    const uint64_t saved = saved_registers();
    const int popcnt = (c & bit_POPCNT) != 0;
    f.fma = (c & bit_FMA) && (c & bit_AVX) && (saved & SAVES_YMM) == SAVES_YMM;
    if (!f.fma || !popcnt || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return f;
    const unsigned for_avx2 = bit_AVX2 | bit_BMI;
    const unsigned for_avx512 = for_avx2 | bit_BMI2 | bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    f.avx2 = (b & for_avx2) == for_avx2;
    f.avx512 = (b & for_avx512) == for_avx512 && (saved & SAVES_ZMM) == SAVES_ZMM;
    return f;
}

/* Fills `paths` with what this machine runs, the best one last. */
static int usable_paths(const cdrop_path *paths[])
{
    const features f = detect();
    int n = 0;
    paths[n++] = f.fma ? &cdrop_path_scalar_fma : &cdrop_path_scalar;
    if (f.avx2)
        paths[n++] = &cdrop_path_avx2;
    if (f.avx512)
        paths[n++] = &cdrop_path_avx512;
    return n;
}

cdrop_fp_mode cdrop_flush_denormals(void)
{
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); /* bit 15, flush results to zero; bit 6, read denormals as zero */
    return before;
}

void cdrop_restore_fp_mode(cdrop_fp_mode mode) { _mm_setcsr((unsigned)mode); }

#elif defined(__aarch64__)

static int usable_paths(const cdrop_path *paths[])
{
    paths[0] = &cdrop_path_scalar;
    paths[1] = &cdrop_path_neon; /* part of the base instruction set */
    return 2;
}

cdrop_fp_mode cdrop_flush_denormals(void)
{
    uint64_t before;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(before));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(before | UINT64_C(1) << 24)); /* FZ: both results and operands */
    return before;
}

void cdrop_restore_fp_mode(cdrop_fp_mode mode) { __asm__ __volatile__("msr fpcr, %0" : : "r"(mode)); }

#else

static int usable_paths(const cdrop_path *paths[])
{
    paths[0] = &cdrop_path_scalar;
    return 1;
}

cdrop_fp_mode cdrop_flush_denormals(void) { return 0; }
void cdrop_restore_fp_mode(cdrop_fp_mode mode) { (void)mode; }

#endif

static const char *const built[] = {
    "scalar",
#if defined(__x86_64__) || defined(_M_X64)
    "avx2",
    "avx512",
#elif defined(__aarch64__)
    "neon",
#endif
};

/* Scalar until the binding selects a path at import: it runs everywhere. Not atomic, because no kernel runs before. */
static const cdrop_path *active = &cdrop_path_scalar;

const cdrop_path *cdrop_active_path(void) { return active; }

const char *cdrop_simd_active(void) { return active->name; }

const char *cdrop_simd_built(int i) { return i >= 0 && i < (int)(sizeof built / sizeof *built) ? built[i] : NULL; }

const char *cdrop_simd_usable(int i)
{
    const cdrop_path *paths[4];
    return i >= 0 && i < usable_paths(paths) ? paths[i]->name : NULL;
}

const char *cdrop_simd_parameter(cdrop_dtype dtype, int i, double *value)
{
    const cdrop_kernels *k = cdrop_kernels_of(dtype);
    const struct {
        const char *name;
        double value;
    } parameters[] = {{"panel", (double)k->panel}, {"dense_above", k->dense_above}};
    if (i < 0 || i >= (int)(sizeof parameters / sizeof *parameters))
        return NULL;
    *value = parameters[i].value;
    return parameters[i].name;
}

cdrop_status cdrop_select_simd(const char *name)
{
    const cdrop_path *paths[4];
    const int n = usable_paths(paths);
    if (!name) {
        active = paths[n - 1];
        return CDROP_OK;
    }
    for (int i = 0; i < n; i++)
        if (!strcmp(paths[i]->name, name)) {
            active = paths[i];
            return CDROP_OK;
        }
    return CDROP_UNSUPPORTED;
}
