/* The scalar path with the CPU's fused multiply-add: still one lane at a time. */
#include "../kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
CDROP_TARGET_BEGIN("fma")
#define CDROP_HAS_FMA
#define PATH scalar
#include "vec_scalar.h"
#define VEC_CHAINS_BYTES 64
#include "path.inc.h"
CDROP_TARGET_END

const cdrop_path cdrop_path_scalar_fma = {"scalar", &kernels_scalar_f32, &kernels_scalar_f64, mask_block};
#endif
