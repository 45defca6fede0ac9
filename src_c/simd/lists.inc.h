/* From dense rows to lists of live entries, and from lists by row to lists by column. */

/* Bits of L lanes from bit `at` of a word. */
#define LANE_BITS(word, at) ((unsigned)((word) >> (at)) & ((1u << L) - 1))

static inline unsigned KERNEL(live_bits)(VEC v, cdrop_live_rule rule)
{
    const unsigned all = (1u << L) - 1;
    const VEC zero = V(vset)(0);
    if (rule == CDROP_LIVE_POSITIVE)
        return ~V(vbits_le)(v, zero) & all;
    if (rule == CDROP_LIVE_NONZERO)
        return ~V(vbits_eq)(v, zero) & all;
    return all;
}

/* Lists the live entries of one block of one row, and returns which they were. `bits` marks the kept units; columns
 * beyond `n` are never read. `rule` is a constant at every call. */
static inline CDROP_INLINE uint64_t KERNEL(compress_block)(REAL *values, uint16_t *index, uint16_t *count,
                                                           const REAL *in, size_t n, uint64_t bits, VEC scale,
                                                           cdrop_live_rule rule)
{
    uint64_t live = 0;
    size_t filled = 0;
    for (size_t i = 0; i < n; i += L) {
        unsigned kept = LANE_BITS(bits, i);
        if (!kept)
            continue;
        const VEC v = n - i >= L ? V(vload)(in + i) : V(vload_first)(in + i, n - i);
        kept &= KERNEL(live_bits)(v, rule);
        V(vcompress)(values + filled, index + filled, V(vmul)(v, scale), kept, (unsigned)i);
        filled += (size_t)__builtin_popcount(kept);
        live |= (uint64_t)kept << i;
    }
    *count = (uint16_t)filled;
    return live;
}

static inline CDROP_INLINE void KERNEL(compress_lines)(cdrop_lists *lists, const cdrop_source *s, size_t b0, size_t b1,
                                                       size_t l0, size_t l1, cdrop_live_rule rule)
{
    const VEC scale = V(vset)((REAL)s->scale);
    for (size_t line = l0; line < l1; line++) {
        const size_t from = s->rows ? (size_t)s->rows[line] : line;
        const REAL *row = (const REAL *)s->data + from * s->pitch;
        size_t at = lists->start[b0 * lists->lines + line];
        for (size_t b = b0; b < b1; b++) {
            const size_t list = b * lists->lines + line;
            const size_t n = cdrop_min(CDROP_BLOCK, s->columns - b * CDROP_BLOCK);
            uint64_t bits = cdrop_valid_bits(s->columns, b);
            if (s->mask)
                bits &= s->mask[line * s->words + b];
            if (lists->packed)
                lists->start[list] = at;
            else
                at = lists->start[list];
            bits = KERNEL(compress_block)((REAL *)lists->values + at, lists->index + at, &lists->count[list],
                                          row + (b - s->first_block) * CDROP_BLOCK, n, bits, scale, rule);
            if (s->live)
                s->live[line * s->words + b] = bits;
            at += lists->count[list];
        }
    }
}

static void KERNEL(compress)(cdrop_lists *lists, const cdrop_source *s, size_t b0, size_t b1, size_t l0, size_t l1)
{
    if (s->rule == CDROP_LIVE_POSITIVE)
        KERNEL(compress_lines)(lists, s, b0, b1, l0, l1, CDROP_LIVE_POSITIVE);
    else if (s->rule == CDROP_LIVE_NONZERO)
        KERNEL(compress_lines)(lists, s, b0, b1, l0, l1, CDROP_LIVE_NONZERO);
    else
        KERNEL(compress_lines)(lists, s, b0, b1, l0, l1, CDROP_LIVE_KEPT);
}

/* Entry by entry: a quarter or fewer of a tile's entries are live, so moving those beats transposing the tile. */
static void KERNEL(scatter)(cdrop_lists *out, const cdrop_lists *lists, size_t b0, size_t b1, size_t rows, size_t l1)
{
    REAL *out_values = out->values;
    const REAL *in_values = lists->values;
    const size_t first = rows * CDROP_BLOCK, last = cdrop_min(first + CDROP_BLOCK, l1);
    for (size_t b = b0; b < b1; b++) {
        const size_t line0 = b * CDROP_BLOCK, column = rows * out->lines + line0;
        const size_t units = cdrop_min(CDROP_BLOCK, out->lines - line0);
        uint16_t *count = out->count + column;
        const size_t *start = out->start + column;
        for (size_t k = 0; k < units; k++)
            count[k] = 0;
        for (size_t r = first; r < last; r++) {
            const size_t list = b * lists->lines + r;
            const REAL *values = in_values + lists->start[list];
            const uint16_t *index = lists->index + lists->start[list];
            for (size_t i = 0; i < lists->count[list]; i++) {
                const size_t k = index[i], at = start[k] + count[k]++;
                out_values[at] = values[i];
                out->index[at] = (uint16_t)(r - first);
            }
        }
    }
}

#undef LANE_BITS
