/* The product of the library, for sparse and for dense left sides, against a panel (see kernels.h). Forward runs the lists of a
 * batch against weights; the gradient by input runs those of the gradient against transposed weights; the gradient by
 * weight runs each unit's list of rows against the gradient. */

/* Columns in one pass: as many chains as the registers hold. Eight or more independent chains also hide the latency of
 * the fused multiply-add. */
#define PASS_GROUPS (VEC_CHAINS * L / CDROP_LANES)
/* A panel is at least one mask word wide, so that a panel's epilogue fills whole list blocks. */
#define PANEL (VEC_CHAINS * L > CDROP_BLOCK ? VEC_CHAINS * L : (size_t)CDROP_BLOCK)

/* The share of one line, if `lines` of them fetch all. */
static inline void KERNEL(fetch_ahead)(const cdrop_ahead *ahead, size_t share, size_t line)
{
    for (size_t i = 0; i < sizeof ahead->from / sizeof *ahead->from && ahead->from[i]; i++)
        for (size_t at = line * share; at < cdrop_min((line + 1) * share, ahead->bytes); at += CDROP_CACHE_LINE)
            CDROP_FETCH((const char *)ahead->from[i] + at);
}

/* `groups` is a constant at every call, so that `sum` lives in registers. */
static inline CDROP_INLINE void KERNEL(product_pass)(const size_t groups, REAL *out, size_t out_pitch,
                                                     const REAL *start, const REAL *panel, size_t pitch,
                                                     const cdrop_lists *lists, size_t b0, size_t b1, size_t l0,
                                                     size_t l1, int resume, const cdrop_ahead *ahead)
{
    const REAL *all_values = lists->values;
    const size_t fetches = (b1 - b0) * (l1 - l0) * CDROP_CACHE_LINE;
    const size_t share = ahead && fetches ? (ahead->bytes + fetches - 1) / fetches * CDROP_CACHE_LINE : 0;
    for (size_t b = b0; b < b1; b++) {
        const REAL *block = panel + (b - b0) * CDROP_BLOCK * pitch;
        for (size_t line = l0; line < l1; line++) {
            const size_t list = b * lists->lines + line;
            const REAL *values = all_values + lists->start[list];
            REAL *row = out + (line - l0) * out_pitch;
            if (ahead)
                KERNEL(fetch_ahead)(ahead, share, (b - b0) * (l1 - l0) + line - l0);
            const REAL *from = resume || b > b0 ? row : start;
            VEC sum[CDROP_LANES * 8 / V(VEC_LANES)];
            CDROP_UNROLL
            for (size_t v = 0; v < groups * CDROP_LANES / L; v++)
                sum[v] = from ? V(vload)(from + v * L) : V(vset)(0);
            for (uint64_t live = lists->live[list]; live; live &= live - 1) {
                const REAL *w = block + (size_t)__builtin_ctzll(live) * pitch;
                const VEC x = V(vset)(*values++);
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
                            int resume, const cdrop_ahead *ahead)
{
#define PASS(groups)                                                                                                   \
    case (groups):                                                                                                     \
        KERNEL(product_pass)                                                                                           \
        ((groups), out, out_pitch, start, panel, pitch, lists, b0, b1, l0, l1, resume, column ? NULL : ahead);         \
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

/* ---- Dense left side: a tile of lines and columns in registers, one block of the sum at a time ---------------------- */

/* `lines` and `vectors` are constants at every call. */
static inline CDROP_INLINE void KERNEL(dense_tile)(const size_t lines, const size_t vectors, REAL *out,
                                                   size_t out_pitch, const REAL *start, const REAL *w, size_t pitch,
                                                   const REAL *x, size_t line_step, size_t index_step, size_t count)
{
    VEC sum[DENSE_LINES][DENSE_VECTORS];
    CDROP_UNROLL
    for (size_t i = 0; i < lines; i++)
        CDROP_UNROLL
    for (size_t v = 0; v < vectors; v++)
        sum[i][v] = start ? V(vload)(start + v * L) : V(vload)(out + i * out_pitch + v * L);
    for (size_t j = 0; j < count; j++) {
        VEC row[DENSE_VECTORS];
        CDROP_UNROLL
        for (size_t v = 0; v < vectors; v++)
            row[v] = V(vload)(w + j * pitch + v * L);
        CDROP_UNROLL
        for (size_t i = 0; i < lines; i++) {
            const VEC a = V(vset)(x[i * line_step + j * index_step]);
            CDROP_UNROLL
            for (size_t v = 0; v < vectors; v++)
                sum[i][v] = V(vfma)(a, row[v], sum[i][v]);
        }
    }
    CDROP_UNROLL
    for (size_t i = 0; i < lines; i++)
        CDROP_UNROLL
    for (size_t v = 0; v < vectors; v++)
        V(vstore)(out + i * out_pitch + v * L, V(vadd)(sum[i][v], V(vset)(0)));
}

static inline CDROP_INLINE void KERNEL(dense_columns)(const size_t vectors, REAL *out, size_t out_pitch,
                                                      const REAL *start, const REAL *w, size_t pitch, const REAL *x,
                                                      size_t line_step, size_t index_step, size_t count, size_t lines)
{
    size_t i = 0;
#define TILES(n)                                                                                                       \
    for (; i + (n) <= lines; i += (n))                                                                                 \
        KERNEL(dense_tile)                                                                                             \
    ((n), vectors, out + i * out_pitch, out_pitch, start, w, pitch, x + i * line_step, line_step, index_step, count);
    TILES(DENSE_LINES)
#if DENSE_LINES > 4
    TILES(4) /* 64 lines, which is what most calls have, are ten tiles of 6 and one of 4 */
#endif
    TILES(1)
#undef TILES
}

static void KERNEL(product_dense)(void *out_, size_t out_pitch, const void *start_, const void *w_, size_t pitch,
                                  size_t width, const void *x, size_t line_step, size_t index_step, size_t count,
                                  size_t lines, int resume)
{
    static const REAL zeros[DENSE_VECTORS * V(VEC_LANES)];
    size_t vectors;
    for (size_t column = 0; column < width; column += vectors * L) {
        REAL *out = (REAL *)out_ + column;
        const REAL *w = (const REAL *)w_ + column;
        const REAL *start = resume ? NULL : start_ ? (const REAL *)start_ + column : zeros;
        vectors = cdrop_min((width - column) / L, DENSE_VECTORS);
#define COLUMNS(n)                                                                                                     \
    case n:                                                                                                            \
        KERNEL(dense_columns)(n, out, out_pitch, start, w, pitch, x, line_step, index_step, count, lines);             \
        break;
        switch (vectors) {
            COLUMNS(1)
            COLUMNS(2)
#if DENSE_VECTORS >= 4
            COLUMNS(3)
            COLUMNS(4)
#endif
        }
#undef COLUMNS
    }
}
