/* The product of the library, for sparse and for dense left sides, against a panel (see kernels.h). Forward runs the
 * lists of a batch against weights; the gradient by input runs those of the gradient against transposed weights; the
 * gradient by weight runs each unit's list of rows against the gradient.
 *
 * Both kernels compute the same sums in the same order. An output element is one chain of fused multiply-adds,
 * ascending in the summed index, in one lane of one register. The chain is stored after a block and loaded again for
 * the next one; a store and a load do not round. So how many columns run at once, how wide a vector is, and where a
 * thread stops between two blocks are invisible in the result. An entry that the lists skip is a zero: the dense
 * kernel adds its product, which is 0 for a finite weight and leaves the sum as it is. (For an infinite weight it
 * would be NaN: the promise of equal bits is for finite weights.) */

/* Columns in one pass, in groups of CDROP_LANES: as many chains as the registers hold. The sums fill VEC_CHAINS
 * registers: 8 of 16 on AVX2, 8 of 32 on AVX-512, 16 of 32 on NEON. Eight or more independent chains also hide the
 * latency of the fused multiply-add: two units of four cycles each need eight in flight. */
#define PASS_GROUPS (VEC_CHAINS * L / CDROP_LANES)
/* A panel is at least one mask word wide, so that a panel's epilogue fills whole list blocks. Its line has 256 bytes
 * (float, except on AVX-512) or 512 bytes (double, and float on AVX-512). The 64 lines of a block are then 16 or 32
 * KiB. That is the part of the right side that must stay in L1: each multiply-add of the sparse product loads one
 * vector of it, and an entry is only as cheap as these loads. Doubles on AVX2 and NEON, and the scalar path, run a
 * panel in several passes. */
#define PANEL (VEC_CHAINS * L > CDROP_BLOCK ? VEC_CHAINS * L : (size_t)CDROP_BLOCK)

/* The share of one line, if `lines` of them fetch all: `share` is a multiple of the cache line, rounded up, so the
 * last lines may find nothing left. Spread over the lines, the requests do not crowd the queue of outstanding
 * misses. */
static inline void KERNEL(fetch_ahead)(const cdrop_ahead *ahead, size_t share, size_t line)
{
    for (size_t i = 0; i < sizeof ahead->from / sizeof *ahead->from && ahead->from[i]; i++)
        for (size_t at = line * share; at < cdrop_min((line + 1) * share, ahead->bytes); at += CDROP_CACHE_LINE)
            CDROP_FETCH((const char *)ahead->from[i] + at);
}

/* The lists of lines [l0, l1), against blocks [b0, b1) of the panel. `groups` is a constant at every call, so that
 * `sum` lives in registers: the loops over v unroll, and what is beyond `groups` in the array does not exist.
 *
 * Blocks are the outer loop: one block of the panel, up to 32 KiB, is read once from further away and then serves
 * all lines from L1. The price is one load and one store of a line's sums for each block, about as much as one live
 * entry costs.
 *
 * `out` must not overlap the panel or the lists. `start` may be shared by all lines, and is read, not written. */
static inline CDROP_INLINE void KERNEL(product_pass)(const size_t groups, REAL *out, size_t out_pitch,
                                                     const REAL *start, const REAL *panel, size_t pitch,
                                                     const cdrop_lists *lists, size_t b0, size_t b1, size_t l0,
                                                     size_t l1, int resume, const cdrop_ahead *ahead)
{
    const REAL *all_values = lists->values;
    /* Each of the (b1 - b0) (l1 - l0) lists fetches at least one cache line, in whole cache lines from each of the
     * memories. Without lists there is nothing to hang the requests on. */
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
            /* The chain begins once, at the first block of the first call; from then on `row` holds what it has
             * summed. */
            const REAL *from = resume || b > b0 ? row : start;
            VEC sum[CDROP_LANES * 8 / V(VEC_LANES)];
            CDROP_UNROLL
            for (size_t v = 0; v < groups * CDROP_LANES / L; v++)
                sum[v] = from ? V(vload)(from + v * L) : V(vset)(0);
            /* Bits ascend, and values are stored in the order of the bits: so the sum ascends, and no index is
             * loaded. The address of the panel line does not depend on the value that is multiplied: the processor
             * runs several entries ahead of the chains. */
            for (uint64_t live = lists->live[list]; live; live &= live - 1) {
                const REAL *w = block + (size_t)__builtin_ctzll(live) * pitch;
                const VEC x = V(vset)(*values++);
                CDROP_UNROLL
                for (size_t v = 0; v < groups * CDROP_LANES / L; v++)
                    sum[v] = V(vfma)(x, V(vload)(w + v * L), sum[v]);
            }
            /* A -0 can be left only by an underflow or by `start`. The dense product would have turned it into +0 at
             * the next skipped zero, the lists would have kept it. Adding +0 at the end of each block makes them
             * equal; no other value changes. */
            CDROP_UNROLL
            for (size_t v = 0; v < groups * CDROP_LANES / L; v++) /* + 0: a sum that underflowed to -0 becomes +0 */
                V(vstore)(row + v * L, V(vadd)(sum[v], V(vset)(0)));
        }
    }
}

/* Passes from left to right over the columns of a panel. Widths are padded to CDROP_LANES, so a pass consists of
 * full groups and needs no tail; the padding's sums are computed like the others and ignored. The narrow passes are
 * for the last panel of a matrix: with fewer chains they wait for the latency of the multiply-add, but they do not
 * compute columns that do not exist.
 *
 * The lists are walked again in every pass. Only the first pass fetches ahead: the memory is then under way for all. */
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
        /* Only as many cases as a path can need. VEC_CHAINS_BYTES is VEC_CHAINS vectors in bytes (of floats on the
         * scalar path), for the preprocessor, which does not know the types. */
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

/* ---- Dense left side: a tile of lines and columns in registers, one block of the sum at a time ------------------ */

/* `lines` and `vectors` are constants at every call. A tile of 6 lines x 2 vectors (AVX2) has 12 sums, 2 vectors of
 * the panel and 1 entry of the left side in registers: 15 of 16. With 6 x 4 (AVX-512, NEON) it is 29 of 32.
 *
 * Each vector of the panel that is loaded serves all lines of the tile, and each entry all its vectors: 8 loads for
 * 12 multiply-adds, or 10 for 24. The sparse product needs at least one load for each. That is why the dense product
 * is the faster one from DENSE_ABOVE live entries on, although it multiplies the zeros as well.
 *
 * j ascends, and each sum is one chain: the order of the lists, with the zeros in between. Without `start` the chains
 * continue from `out`. Lines of the tile share `start`: it is a row of all columns. */
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

/* All lines of one strip of columns, so that the strip of the block stays in L1: 64 lines of 64 bytes on AVX2 and
 * NEON, of 256 bytes on AVX-512. A line's bits do not depend on the height of the tile it is in: lines never mix. */
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

/* One block of the sum, strip by strip. The strides serve both uses: rows of a batch (line_step is a row, index_step
 * 1), and units over the rows of a batch (line_step 1, index_step a row), which reads the left side down its columns
 * and saves its transpose. Entries are read one by one, so the left side needs no padding. */
static void KERNEL(product_dense)(void *out_, size_t out_pitch, const void *start_, const void *w_, size_t pitch,
                                  size_t width, const void *x, size_t line_step, size_t index_step, size_t count,
                                  size_t lines, int resume)
{
    /* A chain that starts from nothing starts from +0, as in the sparse product. A row of zeros keeps a case out of
     * the tile; NULL is free to mean that the chains continue. */
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
