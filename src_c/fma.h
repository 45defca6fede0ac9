/* Fused multiply-adds in software, for CPUs without the instruction: a b + c, rounded once, in either mode of denormals
 * with the bits of x86's instruction. C libraries have their own, and not all are exact (musl's and MinGW's are
 * not). */
#ifndef CDROP_FMA_H
#define CDROP_FMA_H

float cdrop_fma_f32(float a, float b, float c);
double cdrop_fma_f64(double a, double b, double c);

/* Where the compiler's target has the instruction. */
#if !defined(CDROP_HAS_FMA) &&                                                                                         \
    (defined(__FMA__) || defined(__aarch64__) || defined(__s390x__) || defined(__powerpc64__) ||                       \
     (defined(__riscv_flen) && __riscv_flen >= 64) || (defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)))
#define CDROP_HAS_FMA
#endif

#endif
