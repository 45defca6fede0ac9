/* From the rows of a layer's input to what the products run on: lists of live entries, by row and by column, or
 * where most entries are live the same values as a dense array.
 *
 * A list has its values packed in the order of their columns, and one word whose bits are these columns. Bit i of a
 * word is column i of the block, and lane i % L of vector i / L: so comparisons of vectors give parts of the word as
 * they are. Nothing here is summed. Each value is computed from its own entry alone, (entry - shift) * factor, with
 * the same two roundings in lists and in the dense array, on every path. */

/* Bits of L lanes from bit `at` of a word. L divides 64, so they never come from two words. */
#define LANE_BITS(word, at) ((unsigned)((word) >> (at)) & ((1u << L) - 1))

/* Comparisons are for what is not live, and then inverted: NaN compares false, so it is live under every rule. -0
 * equals 0 and is not live. The bits beyond L lanes must be cleared after the inversion. */
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

/* One block of one row of the source, its pointers at the block's first column. */
typedef struct {
    const REAL *in, *shift; /* shift: what is subtracted, or NULL */
    const REAL *noise;      /* factor of each entry, padded to CDROP_LANES, or NULL */
    size_t n;               /* columns; beyond them nothing is read */
    uint64_t kept;          /* by the mask */
} KERNEL(block);

/* The vector from column i of n, zeros from n on. The tail is loaded by vload_first, because behind a row of the
 * user's data there may be another row, or the end of a mapped file. Whether an entry is live is decided after the
 * subtraction: an entry that equals the background costs nothing. */
static inline CDROP_INLINE VEC KERNEL(block_vector)(const KERNEL(block) * k, size_t i, size_t n)
{
    const size_t rest = n - i;
    if (i >= n)
        return V(vset)(0);
    const VEC v = rest >= L ? V(vload)(k->in + i) : V(vload_first)(k->in + i, rest);
    if (!k->shift)
        return v;
    return V(vsub)(v, rest >= L ? V(vload)(k->shift + i) : V(vload_first)(k->shift + i, rest));
}

/* What the vector from column i of n is multiplied by. Noise is our own memory, with padded rows: it needs no tail. */
static inline CDROP_INLINE VEC KERNEL(block_factor)(const KERNEL(block) * k, size_t i, size_t n, VEC scale, int noisy)
{
    return noisy && i < n ? V(vload)(k->noise + i) : scale;
}

/* `rows` says where the data of a line is. Masks and noise go by the line itself, its place in the batch: they are
 * drawn for the batch, whichever rows of the data are in it. With words = 0 all lines have the same mask. Bits
 * beyond the last column are cleared here, once, so no kernel needs to look at the padding again. */
static inline KERNEL(block) KERNEL(source_block)(const cdrop_source *s, size_t line, size_t b)
{
    const size_t from = s->rows ? (size_t)s->rows[line] : line;
    KERNEL(block)
    k = {.in = (const REAL *)s->data + from * s->pitch + (b - s->first_block) * CDROP_BLOCK,
         .shift = s->shift ? (const REAL *)s->shift + b * CDROP_BLOCK : NULL,
         .noise = s->noise ? (const REAL *)s->noise + line * s->noise_pitch + b * CDROP_BLOCK : NULL,
         .n = cdrop_min(CDROP_BLOCK, s->columns - b * CDROP_BLOCK),
         .kept = cdrop_valid_bits(s->columns, b)};
    if (s->mask)
        k.kept &= s->mask[line * s->words + b];
    return k;
}

/* Rows in random order come one by one, so that no hardware foresees the next. The same block of the next line is
 * asked for while this line's is compressed: it has the time of one line to arrive. Rows in order need no help. */
static inline void KERNEL(fetch_next_row)(const cdrop_source *s, size_t line, size_t last, size_t b)
{
    if (!s->rows || line + 1 >= last)
        return;
    const REAL *from =
        (const REAL *)s->data + (size_t)s->rows[line + 1] * s->pitch + (b - s->first_block) * CDROP_BLOCK;
    const size_t n = cdrop_min(CDROP_BLOCK, s->columns - b * CDROP_BLOCK);
    for (size_t i = 0; i < n; i += CDROP_CACHE_LINE / sizeof(REAL))
        CDROP_FETCH(from + i);
}

/* Lists the live entries of the first n columns of one block of one row, and returns which they were. `rule`,
 * `noisy`, and n where it is CDROP_BLOCK, are constants at every call. All comparisons come first: where each
 * vector's entries go is then known without waiting for those before it. The block is in registers between the two
 * loops where there are enough (4 vectors of floats on AVX-512, 8 on AVX2).
 *
 * Each vcompress stores a whole vector. What it writes behind the live entries is overwritten by the next vector's,
 * or is garbage behind the end of the list. It stays inside the list's room: at most i entries come before vector i
 * / L, so the store ends at entry i + L of the 64 at the latest. */
static inline CDROP_INLINE uint64_t KERNEL(compress_first)(REAL *values, const KERNEL(block) * k, size_t n, VEC scale,
                                                           cdrop_live_rule rule, int noisy)
{
    /* Masked entries are compared and multiplied like others: a branch on a random mask would cost more. Only `live`
     * decides what is moved. */
    VEC v[CDROP_BLOCK / V(VEC_LANES)];
    uint64_t live = 0;
    CDROP_UNROLL
    for (size_t i = 0; i < CDROP_BLOCK; i += L) {
        v[i / L] = KERNEL(block_vector)(k, i, n);
        live |= (uint64_t)KERNEL(live_bits)(v[i / L], rule) << i;
    }
    live &= k->kept;
    CDROP_UNROLL
    for (size_t i = 0; i < CDROP_BLOCK; i += L) {
        V(vcompress)(values, V(vmul)(v[i / L], KERNEL(block_factor)(k, i, n, scale, noisy)), LANE_BITS(live, i));
        values += __builtin_popcount(LANE_BITS(live, i));
    }
    return live;
}

/* Whole blocks in a copy of the code without tails. */
static inline CDROP_INLINE uint64_t KERNEL(compress_block)(REAL *values, const KERNEL(block) * k, VEC scale,
                                                           cdrop_live_rule rule, int noisy)
{
    if (k->n == CDROP_BLOCK)
        return KERNEL(compress_first)(values, k, CDROP_BLOCK, scale, rule, noisy);
    return KERNEL(compress_first)(values, k, k->n, scale, rule, noisy);
}

/* Lines are the outer loop, for two reasons. Data is read in the order of memory, row by row. And packed lists of
 * one line follow each other: where block b + 1 starts is known when block b is done, so blocks of a line must
 * ascend and one thread must list them all. Slots have fixed starts: blocks of one line may be filled by different
 * threads.
 *
 * `live` of the source is written as whole words, one for each block of a line: no other thread writes into it. */
static inline CDROP_INLINE size_t KERNEL(compress_lines)(cdrop_lists *lists, const cdrop_source *s, size_t b0,
                                                         size_t b1, size_t l0, size_t l1, cdrop_live_rule rule,
                                                         int noisy)
{
    const VEC scale = V(vset)((REAL)s->scale);
    size_t total = 0;
    for (size_t line = l0; line < l1; line++) {
        size_t at = lists->start[b0 * lists->lines + line];
        for (size_t b = b0; b < b1; b++) {
            const size_t list = b * lists->lines + line;
            const KERNEL(block) k = KERNEL(source_block)(s, line, b);
            KERNEL(fetch_next_row)(s, line, l1, b);
            /* Packed: behind the block before. Else: in the block's own slot. */
            if (lists->packed)
                lists->start[list] = at;
            else
                at = lists->start[list];
            const uint64_t live = KERNEL(compress_block)((REAL *)lists->values + at, &k, scale, rule, noisy);
            const size_t count = (size_t)__builtin_popcountll(live);
            lists->live[list] = live;
            if (s->live)
                s->live[line * s->words + b] = live;
            at += count;
            total += count;
        }
    }
    return total;
}

/* One copy of the code for each rule, with and without noise: none of these choices is made in the loops. */
static size_t KERNEL(compress)(cdrop_lists *lists, const cdrop_source *s, size_t b0, size_t b1, size_t l0, size_t l1)
{
#define COMPRESS(rule)                                                                                                 \
    return s->noise ? KERNEL(compress_lines)(lists, s, b0, b1, l0, l1, rule, 1)                                        \
                    : KERNEL(compress_lines)(lists, s, b0, b1, l0, l1, rule, 0)
    if (s->rule == CDROP_LIVE_POSITIVE)
        COMPRESS(CDROP_LIVE_POSITIVE);
    if (s->rule == CDROP_LIVE_NONZERO)
        COMPRESS(CDROP_LIVE_NONZERO);
    COMPRESS(CDROP_LIVE_KEPT);
#undef COMPRESS
}

/* Entry by entry: they are moved, not computed, and few share a block. The indices of a row ascend, so blocks of a
 * line ascend and entries of a list are in the order of their bits, as in lists of dense rows: the same sums in the
 * same order.
 *
 * Blocks without entries are not visited. Their words were zeroed before, and what their `start` says is not read. */
static inline size_t KERNEL(sparse_line)(cdrop_lists *lists, const cdrop_source *s, size_t line, REAL scale)
{
    const size_t row = s->rows ? (size_t)s->rows[line] : line, end = (size_t)s->indptr[row + 1];
    const REAL *data = s->data, *noise = s->noise ? (const REAL *)s->noise + line * s->noise_pitch : NULL;
    REAL *values = lists->values;
    const size_t first = lists->start[line]; /* packed: where block 0 begins, empty or not */
    size_t at = first;
    for (size_t i = (size_t)s->indptr[row]; i < end;) {
        const size_t b = s->indices[i] / CDROP_BLOCK, list = b * lists->lines + line, from = at;
        const uint64_t kept = s->mask ? s->mask[line * s->words + b] : ~UINT64_C(0);
        uint64_t live = 0;
        for (; i < end && s->indices[i] / CDROP_BLOCK == b; i++) {
            const unsigned unit = s->indices[i] % CDROP_BLOCK;
            const uint64_t listed = kept >> unit & (data[i] != 0); /* no branch: masks cannot be predicted */
            /* Written always, counted only if it is listed: the next entry overwrites what was not. Behind the last
             * entry of a line there is room for one more (CDROP_SPARE). */
            values[at] = data[i] * (noise ? noise[s->indices[i]] : scale);
            at += (size_t)listed;
            live |= listed << unit;
        }
        lists->start[list] = from;
        lists->live[list] = live;
    }
    return at - first;
}

static size_t KERNEL(compress_sparse)(cdrop_lists *lists, const cdrop_source *s, size_t l0, size_t l1)
{
    size_t total = 0;
    for (size_t b = 0; b < lists->blocks; b++)
        for (size_t line = l0; line < l1; line++)
            lists->live[b * lists->lines + line] = 0;
    for (size_t line = l0; line < l1; line++)
        total += KERNEL(sparse_line)(lists, s, line, (REAL)s->scale);
    return total;
}

/* The dense twin of compress_lines: the same values in their own columns, zeros elsewhere. It selects instead of
 * multiplying by 0, so that a dropped NaN or infinity becomes a zero, as the lists would have it.
 *
 * A line is written up to the vector that holds its last column, which is within the padding to CDROP_LANES. The
 * products read nothing beyond the last column of the dense side. */
static inline CDROP_INLINE size_t KERNEL(densify_lines)(REAL *out_, size_t pitch, const cdrop_source *s, size_t b0,
                                                        size_t b1, size_t l0, size_t l1, int noisy)
{
    const VEC scale = V(vset)((REAL)s->scale), zero = V(vset)(0);
    size_t total = 0;
    for (size_t line = l0; line < l1; line++)
        for (size_t b = b0; b < b1; b++) {
            REAL *out = out_ + (line - l0) * pitch + (b - b0) * CDROP_BLOCK;
            const KERNEL(block) k = KERNEL(source_block)(s, line, b);
            KERNEL(fetch_next_row)(s, line, l1, b);
            uint64_t live = 0;
            for (size_t i = 0; i < k.n; i += L) {
                const VEC v = KERNEL(block_vector)(&k, i, k.n);
                /* `kept` has no bits beyond the last column, so the lanes behind it become zeros. */
                const unsigned bits = LANE_BITS(k.kept, i) & KERNEL(live_bits)(v, s->rule);
                const VEC factor = KERNEL(block_factor)(&k, i, k.n, scale, noisy);
                V(vstore)(out + i, V(vselect)(bits, V(vmul)(v, factor), zero));
                live |= (uint64_t)bits << i;
                total += (size_t)__builtin_popcount(bits);
            }
            if (s->live)
                s->live[line * s->words + b] = live;
        }
    return total;
}

static size_t KERNEL(densify)(void *out, size_t pitch, const cdrop_source *s, size_t b0, size_t b1, size_t l0,
                              size_t l1)
{
    return s->noise ? KERNEL(densify_lines)(out, pitch, s, b0, b1, l0, l1, 1)
                    : KERNEL(densify_lines)(out, pitch, s, b0, b1, l0, l1, 0);
}

/* Entry by entry: typically a quarter or fewer of a tile's entries are live (half of the units, kept by half of the
 * masks), so moving those beats transposing the tile.
 *
 * A tile is 64 rows x 64 units: one block of each row's list becomes one block of each unit's. Rows are walked in
 * ascending order, so each unit's entries are in ascending order of rows, and the gradient by weight sums them in
 * that order, no matter which thread made which tile. A tile writes one word and one slot for each of its units,
 * which are no other tile's.
 *
 * `end` holds where each unit's next entry goes: 64 cursors, 512 bytes, in L1. Lists of `out` have slots of
 * CDROP_SLOT entries; with a slot of 64 the cursors would all point into the same few cache sets. */
static void KERNEL(scatter)(cdrop_lists *out, const cdrop_lists *lists, size_t b0, size_t b1, size_t rows, size_t l1)
{
    REAL *out_values = out->values;
    const REAL *in_values = lists->values;
    const size_t first = rows * CDROP_BLOCK, last = cdrop_min(first + CDROP_BLOCK, l1);
    for (size_t b = b0; b < b1; b++) {
        const size_t line0 = b * CDROP_BLOCK, column = rows * out->lines + line0;
        /* The last block of columns may have fewer than 64 units; their bits beyond are 0 in every row's word. */
        const size_t units = cdrop_min(CDROP_BLOCK, out->lines - line0);
        uint64_t *out_live = out->live + column;
        size_t end[CDROP_BLOCK];
        for (size_t k = 0; k < units; k++) {
            end[k] = out->start[column + k];
            out_live[k] = 0;
        }
        /* The bit of a row is its place in the tile, so a word of `out` is in the order of its values, too. */
        for (size_t r = first; r < last; r++) {
            const REAL *values = in_values + lists->start[b * lists->lines + r];
            for (uint64_t live = lists->live[b * lists->lines + r]; live; live &= live - 1) {
                const int k = __builtin_ctzll(live);
                out_values[end[k]++] = *values++;
                out_live[k] |= UINT64_C(1) << (r - first);
            }
        }
    }
}

/* The kept lines follow each other in `out`, out_pitch apart, and in each of them the kept columns. The loop over a
 * word ends with its last kept column, so nothing beyond the last vector with one is read. Each store is a whole
 * vector, and what it writes behind the kept entries is overwritten by the next one: `out` must be a thread's own,
 * with room for one vector more, and must not overlap `in`. */
static void KERNEL(pack_kept)(void *out_, size_t out_pitch, const void *in_, size_t pitch, uint64_t lines,
                              const uint64_t *kept, size_t words)
{
    REAL *out = out_;
    for (; lines; lines &= lines - 1, out += out_pitch) {
        const REAL *in = (const REAL *)in_ + (size_t)__builtin_ctzll(lines) * pitch;
        REAL *values = out;
        for (size_t b = 0; b < words; b++)
            for (size_t i = 0; i < CDROP_BLOCK && kept[b] >> i; i += L) {
                V(vcompress)(values, V(vload)(in + b * CDROP_BLOCK + i), LANE_BITS(kept[b], i));
                values += __builtin_popcount(LANE_BITS(kept[b], i));
            }
    }
}

/* Each dropped line is zeros and takes nothing from `in`; each kept one takes the next line of `in`. Unlike a list,
 * `out` is written completely: it goes to the update, which also changes weights that have no gradient. */
static void KERNEL(unpack_kept)(void *out_, size_t pitch, size_t columns, size_t count, const void *in_,
                                size_t in_pitch, uint64_t lines, const uint64_t *kept)
{
    const VEC zero = V(vset)(0);
    const REAL *in = in_;
    for (size_t line = 0; line < count; line++) {
        REAL *out = (REAL *)out_ + line * pitch;
        const REAL *values = in;
        /* A dropped line leaves `in` where it is. */
        if (!(lines >> line & 1)) {
            for (size_t i = 0; i < columns; i += L)
                V(vstore)(out + i, zero);
            continue;
        }
        for (size_t i = 0; i < columns; i += L) {
            /* vexpand takes packed values for the set bits in ascending order: the inverse of vcompress. */
            const unsigned bits = LANE_BITS(kept[i / CDROP_BLOCK], i % CDROP_BLOCK);
            V(vstore)(out + i, V(vexpand)(values, bits));
            values += __builtin_popcount(bits);
        }
        /* What follows in the line is unpacked next. No hardware foresees 64 short pieces. */
        CDROP_FETCH(values);
        CDROP_FETCH((const char *)values + CDROP_CACHE_LINE);
        in += in_pitch;
    }
}

/* Writes exactly `columns` columns. Those to the left and right of them may come from other blocks, which other
 * threads copy at the same time, so a store of a whole vector would destroy their work. */
static void KERNEL(copy_columns)(void *out_, size_t out_pitch, const void *in_, size_t in_pitch, size_t columns,
                                 size_t lines)
{
    for (size_t line = 0; line < lines; line++) {
        REAL *out = (REAL *)out_ + line * out_pitch;
        const REAL *in = (const REAL *)in_ + line * in_pitch;
        size_t i = 0;
        for (; i + L <= columns; i += L)
            V(vstore)(out + i, V(vload)(in + i));
        if (i < columns)
            V(vstore_first)(out + i, V(vload_first)(in + i, columns - i), columns - i);
    }
}

#undef LANE_BITS
