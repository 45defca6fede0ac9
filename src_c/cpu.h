/* Which SIMD paths this CPU and operating system can run, and which one the library uses. */
#ifndef CDROP_CPU_H
#define CDROP_CPU_H

#include "kernels.h"

/* The path in use; never NULL. Set once, by cdrop_select_simd, before any kernel runs. */
const cdrop_path *cdrop_active_path(void);

static inline const cdrop_kernels *cdrop_kernels_of(cdrop_dtype dtype)
{
    return dtype == CDROP_FLOAT64 ? cdrop_active_path()->f64 : cdrop_active_path()->f32;
}

/* Denormals slow the arithmetic 100 times and more: every thread that runs kernels flushes them to zero for as long,
 * and then restores the caller's mode. Other CPUs than these keep them. */
#if defined(__x86_64__) || defined(_M_X64) || defined(__aarch64__)
#define CDROP_FLUSHES 1
#else
#define CDROP_FLUSHES 0
#endif
typedef uint64_t cdrop_fp_mode;
cdrop_fp_mode cdrop_flush_denormals(void);
void cdrop_restore_fp_mode(cdrop_fp_mode mode);

/* Informs the core that this is a spinning loop. */
static inline void cdrop_relax(void)
{
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
