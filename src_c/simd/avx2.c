/* The AVX2 path; cpu.c says when it is chosen. */
#include "../kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

CDROP_TARGET_BEGIN("avx2,fma,popcnt,bmi")
#define PATH avx2
#include "vec_avx2.h"
#define VEC_CHAINS_BYTES 256
#include "path.inc.h"
CDROP_TARGET_END

const cdrop_path cdrop_path_avx2 = {"avx2", &kernels_avx2_f32, &kernels_avx2_f64, mask_block};
#endif
