/* The one product of the library: lists of live entries against a panel (see kernels.h). Forward runs the lists of a
 * batch against weights; the gradient by input runs those of the gradient against transposed weights; the gradient by
 * weight runs each unit's list of rows against the gradient. */

/* Columns in one pass: as many chains as the registers hold. Eight or more independent chains also hide the latency of
 * the fused multiply-add. */
#define PASS_GROUPS (VEC_CHAINS * L / CDROP_LANES)
/* A panel is at least one mask word wide, so that a panel's epilogue fills whole list blocks. */
#define PANEL (VEC_CHAINS * L > CDROP_BLOCK ? VEC_CHAINS * L : (size_t)CDROP_BLOCK)

/* `groups` is a constant at every call, so that `sum` lives in registers. */
static inline CDROP_INLINE void KERNEL(product_pass)(const size_t groups, REAL *out, size_t out_pitch,
                                                     const REAL *start, const REAL *panel, size_t pitch,
                                                     const cdrop_lists *lists, size_t b0, size_t b1, size_t l0,
                                                     size_t l1, int resume)
{
    const REAL *all_values = lists->values;
    for (size_t b = b0; b < b1; b++) {
        const REAL *block = panel + b * CDROP_BLOCK * pitch;
        for (size_t line = l0; line < l1; line++) {
            const size_t list = b * lists->lines + line, count = lists->count[list];
            const REAL *values = all_values + lists->start[list];
            const uint16_t *index = lists->index + lists->start[list];
            REAL *row = out + (line - l0) * out_pitch;
            const REAL *from = resume || b > b0 ? row : start;
            VEC sum[CDROP_LANES * 8 / V(VEC_LANES)];
            CDROP_UNROLL
            for (size_t v = 0; v < groups * CDROP_LANES / L; v++)
                sum[v] = from ? V(vload)(from + v * L) : V(vset)(0);
            for (size_t i = 0; i < count; i++) {
                const REAL *w = block + index[i] * pitch;
                const VEC x = V(vset)(values[i]);
                CDROP_UNROLL
                for (size_t v = 0; v < groups * CDROP_LANES / L; v++)
                    sum[v] = V(vfma)(x, V(vload)(w + v * L), sum[v]);
            }
            CDROP_UNROLL
            for (size_t v = 0; v < groups * CDROP_LANES / L; v++) /* + 0: a sum that underflowed to -0 becomes +0 */
                V(vstore)(row + v * L, V(vadd)(sum[v], V(vset)(0)));
        }
    }
}

static void KERNEL(product)(void *out_, size_t out_pitch, const void *start_, const void *panel_, size_t pitch,
                            size_t width, const cdrop_lists *lists, size_t b0, size_t b1, size_t l0, size_t l1,
                            int resume)
{
#define PASS(groups)                                                                                                   \
    case (groups):                                                                                                     \
        KERNEL(product_pass)                                                                                           \
        ((groups), out, out_pitch, start, panel, pitch, lists, b0, b1, l0, l1, resume);                                \
        break;
    size_t groups;
    for (size_t column = 0; column < width; column += groups * CDROP_LANES) {
        REAL *out = (REAL *)out_ + column;
        const REAL *panel = (const REAL *)panel_ + column, *start = start_ ? (const REAL *)start_ + column : NULL;
        groups = cdrop_min((width - column) / CDROP_LANES, PASS_GROUPS);
        switch (groups) {
            PASS(1)
#if VEC_CHAINS_BYTES >= 2 * 16 * REAL_BYTES
            PASS(2)
#endif
#if VEC_CHAINS_BYTES >= 4 * 16 * REAL_BYTES
            PASS(3)
            PASS(4)
#endif
#if VEC_CHAINS_BYTES >= 8 * 16 * REAL_BYTES
            PASS(5)
            PASS(6)
            PASS(7)
            PASS(8)
#endif
        }
    }
#undef PASS
}

#undef PASS_GROUPS
