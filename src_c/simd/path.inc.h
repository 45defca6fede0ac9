/* One SIMD path: both element types of every kernel, and the generator. The including file has set PATH, its vocabulary
 * and the compiler's target. */
#include "bernoulli.inc.h"

#define REAL float
#define REAL_BYTES 4
#define SFX f32
#include "kernels.inc.h"
#undef REAL_BYTES

#define REAL double
#define REAL_BYTES 8
#define SFX f64
#include "kernels.inc.h"
#undef REAL_BYTES
