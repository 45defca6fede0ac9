/* The NEON path, part of every 64-bit ARM CPU. */
#include "../kernels.h"

#if defined(__aarch64__)
#define PATH neon
#include "vec_neon.h"
#define VEC_CHAINS_BYTES 256
#include "path.inc.h"

const cdrop_path cdrop_path_neon = {"neon", &kernels_neon_f32, &kernels_neon_f64, mask_block};
#endif
