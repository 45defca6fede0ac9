/* The portable path: one lane, on any CPU. On x86 the fused multiply-add is a function, exact but slow; scalar_fma.c is
 * the same text for CPUs that have the instruction. */
#define PATH scalar
#include "vec_scalar.h"
#define VEC_CHAINS_BYTES 64
#include "path.inc.h"

const cdrop_path cdrop_path_scalar = {"scalar", &kernels_scalar_f32, &kernels_scalar_f64, mask_block};
