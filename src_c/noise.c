/* Keyed multiplicative noise. Like a mask it is a function of its key, so it needs no memory between steps, and any
 * thread can draw any block of rows. */
#include <math.h>

#include "cpu.h"

/* The number that shapes the noise of a kind. Uniform numbers in (-1, 1) have the variance 1/3. */
static double spread_of(cdrop_kind kind, uint64_t keep)
{
    const double kept = (double)keep * 0x1p-32, odds = (1 - kept) / kept;
    return kind == CDROP_CONCRETE ? odds : sqrt(kind == CDROP_UNIFORM ? 3 * odds : odds);
}

void cdrop_noise(cdrop_dtype dtype, void *noise, size_t pitch, size_t first_row, size_t rows, size_t units,
                 cdrop_kind kind, uint64_t keep, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer)
{
    const cdrop_kernels *k = cdrop_kernels_of(dtype);
    const double spread = spread_of(kind, keep);
    for (size_t row = 0; row < rows; row += CDROP_BLOCK) {
        uint64_t state[32];
        cdrop_stream_state(state, seed, step, purpose, layer, (first_row + row) / CDROP_BLOCK);
        k->noise_block((char *)noise + row * pitch * k->size, pitch, units, cdrop_min(CDROP_BLOCK, rows - row), kind,
                       spread, state);
    }
}
