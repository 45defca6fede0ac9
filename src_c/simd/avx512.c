/* The AVX-512 path; cpu.c says when it is chosen. */
#include "../kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

CDROP_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt,bmi,bmi2")
#define PATH avx512
#include "vec_avx512.h"
#define VEC_CHAINS_BYTES 512
#include "path.inc.h"
CDROP_TARGET_END

const cdrop_path cdrop_path_avx512 = {"avx512", &kernels_avx512_f32, &kernels_avx512_f64, mask_block};
#endif
