/* Every kernel, written once. The including file sets
 *
 *   REAL     the element type: float or double
 *   SFX      its suffix in the vocabulary: f32 or f64
 *   PATH     the path's name: scalar, avx2, avx512, neon
 *
 * after including one vec_*.h, which gives, for L = VEC_LANES_<SFX> lanes (1, 2, 4, 8 or 16):
 *
 *   vload vstore vset                 unaligned; vload_first(p, n), vstore_first(p, a, n) touch only the first n < L
 *   vadd vsub vmul vdiv vsqrt vfma    IEEE, rounded once; vfma(a, b, c) = a b + c
 *   vmax vmin vabs vcopysign          the second operand where the comparison is false
 *   vbits_le vbits_eq vselect         comparisons as bits (bit i = lane i); vselect(bits, a, b) = bit ? a : b
 *   vscale2(a, n)                     a 2^k, where k stands in the lowest mantissa bits of n
 *   vcompress(values, a, bits)        the lanes with a set bit, packed; may write L
 *   vexpand(values, bits)             the inverse: lanes with a set bit from packed values, the others 0; may read L
 *   vtranspose(out, pitch, in, pitch) an L x L tile
 *
 * The order of operations below is part of the library's promise (same seed, same weights): a change of it is a change
 * of every golden file. */
#include <stddef.h>
#include <stdint.h>

#include "../kernels.h"
#include "../logarithm.h"

#define GLUE_(a, b) a##_##b
#define GLUE(a, b) GLUE_(a, b)
#define V(op) GLUE(op, SFX)
#define KERNEL(op) GLUE(GLUE(op, PATH), SFX)
#define VEC V(vec)
#define L ((size_t)V(VEC_LANES))

#include "product.inc.h"

#include "lists.inc.h"

#include "functions.inc.h"

#include "losses.inc.h"

#include "update.inc.h"

#include "noise.inc.h"

static const cdrop_kernels KERNEL(kernels) = {
    .name = CDROP_TEXT(PATH),
    .size = sizeof(REAL),
    .panel = PANEL,
    .dense_above = DENSE_ABOVE,
    .listing = LISTING,
    .product = KERNEL(product),
    .product_dense = KERNEL(product_dense),
    .compress = KERNEL(compress),
    .compress_sparse = KERNEL(compress_sparse),
    .densify = KERNEL(densify),
    .scatter = KERNEL(scatter),
    .pack_kept = KERNEL(pack_kept),
    .unpack_kept = KERNEL(unpack_kept),
    .copy_columns = KERNEL(copy_columns),
    .activate = KERNEL(activate),
    .gate = KERNEL(gate),
    .rate_slopes = KERNEL(rate_slopes),
    .column_sums = KERNEL(column_sums),
    .sum_squares = KERNEL(sum_squares),
    .column_squares = KERNEL(column_squares),
    .limit_factors = KERNEL(limit_factors),
    .scale_columns = KERNEL(scale_columns),
    .update = KERNEL(update),
    .update_lines = KERNEL(update_lines),
    .transpose = KERNEL(transpose),
    .softmax_row = KERNEL(softmax_row),
    .softmax_rows = KERNEL(softmax_rows),
    .softmax_to_row = KERNEL(softmax_to_row),
    .sigmoid_rows = KERNEL(sigmoid_rows),
    .divergence = KERNEL(divergence),
    .squared_row = KERNEL(squared_row),
    .huber_row = KERNEL(huber_row),
    .poisson_row = KERNEL(poisson_row),
    .pinball_row = KERNEL(pinball_row),
    .softmax = KERNEL(softmax),
    .exponential = KERNEL(exponential),
    .largest = KERNEL(largest),
    .positive = KERNEL(positive),
    .noise_block = KERNEL(noise_block),
};

#undef PARTIALS
#undef PANEL
#undef L
#undef VEC
#undef KERNEL
#undef V
#undef GLUE
#undef GLUE_
#undef SFX
#undef REAL
