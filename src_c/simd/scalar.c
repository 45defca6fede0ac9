/* The portable path: one lane, on any CPU. On x86 without a fused multiply-add `__builtin_fma` is the C library's exact
 * but slow function; scalar_fma.c is the same text for CPUs that have it. */
#define PATH scalar
#include "vec_scalar.h"
#define VEC_CHAINS_BYTES 64
#include "path.inc.h"

const cdrop_path cdrop_path_scalar = {"scalar", &kernels_scalar_f32, &kernels_scalar_f64, mask_block};
