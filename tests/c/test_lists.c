/* Lists of live entries, and the product that runs on them, against plain loops: on every path, in guarded buffers. */
#include <stdio.h>
#include <string.h>

#include "check.h"

static const double densities[] = {0.05, 0.25, 0.5, 1};

/* ---- Lists --------------------------------------------------------------------------------------------------- */

/* Guarded lists with no more room than kernels.h promises. */
static cdrop_lists make_lists(cdrop_dtype t, size_t lines, size_t entries, int packed)
{
    const size_t blocks = entries ? cdrop_blocks(entries) : 1, n = lines * blocks;
    const size_t line_room = packed ? blocks * CDROP_BLOCK + CDROP_SPARE : blocks * CDROP_SLOT,
                 room = lines * line_room;
    cdrop_lists l = {.lines = lines, .blocks = blocks, .packed = packed};
    l.values = guarded(room * size_of(t));
    l.live = guarded(n * sizeof *l.live);
    l.start = guarded(n * sizeof *l.start);
    for (size_t b = 0; b < blocks; b++)
        for (size_t line = 0; line < lines; line++)
            l.start[b * lines + line] = packed ? line * line_room : (b * lines + line) * CDROP_SLOT;
    return l;
}

static int is_live(double value, cdrop_live_rule rule)
{
    return rule == CDROP_LIVE_KEPT || (rule == CDROP_LIVE_NONZERO ? !(value == 0) : !(value <= 0));
}

/* One list and its live bits by the definition. */
static void check_list(cdrop_dtype t, const cdrop_lists *l, const cdrop_source *s, size_t line, size_t b)
{
    const size_t list = b * l->lines + line, from = s->rows ? (size_t)s->rows[line] : line;
    uint64_t live = 0;
    size_t n = 0;
    for (size_t i = 0; i < 64 && b * 64 + i < s->columns; i++) {
        const size_t unit = b * 64 + i, at = l->start[list] + n;
        const double value = get(t, s->data, from * s->pitch + unit - s->first_block * 64);
        if ((s->mask && !bit_at(s->mask + line * s->words, unit)) || !is_live(value, s->rule))
            continue;
        const double factor = s->noise ? get(t, s->noise, line * s->noise_pitch + unit) : rounded(t, s->scale);
        const double wanted = rounded(t, value * factor), got = get(t, l->values, at);
        live |= UINT64_C(1) << i;
        n++;
        if (memcmp(&got, &wanted, sizeof got)) {
            CHECK(isnan(got) && isnan(wanted), "line %zu, unit %zu: value %a, not %a", line, unit, got, wanted);
            return;
        }
    }
    CHECK(l->live[list] == live, "line %zu, block %zu: entries %llx, not %llx", line, b,
          (unsigned long long)l->live[list], (unsigned long long)live);
    if (s->live)
        CHECK(s->live[line * s->words + b] == live, "line %zu, block %zu: live bits", line, b);
}

static void check_lists(cdrop_dtype t, const cdrop_lists *l, const cdrop_source *s, size_t b0, size_t b1, size_t l0,
                        size_t l1)
{
    for (size_t b = b0; b < b1; b++)
        for (size_t line = l0; line < l1; line++) {
            check_list(t, l, s, line, b);
            if (l->packed && b > b0)
                CHECK(l->start[b * l->lines + line] ==
                          l->start[(b - 1) * l->lines + line] + cdrop_listed(l, (b - 1) * l->lines + line),
                      "line %zu, block %zu does not follow the block before", line, b);
        }
}

static size_t all_listed(const cdrop_lists *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->lines * l->blocks; i++)
        n += cdrop_listed(l, i);
    return n;
}

/* The same entries, dense: the lists say which, and how many. */
static void check_densify(const cdrop_kernels *k, cdrop_dtype t, const cdrop_lists *l, const cdrop_source *s)
{
    const size_t pitch = cdrop_pad(s->columns), lines = l->lines;
    void *out = guarded(lines * pitch * size_of(t));
    if (s->live)
        memset(s->live, 0, lines * s->words * sizeof *s->live);
    const size_t live = k->densify(out, pitch, s, 0, cdrop_blocks(s->columns), 0, lines);
    CHECK(live == all_listed(l), "%zu entries written, not %zu", live, all_listed(l));
    for (size_t line = 0; line < lines; line++) {
        size_t n = l->start[line];
        for (size_t i = 0; i < s->columns; i++) {
            const int listed = bit_at(&l->live[i / 64 * lines + line], i % 64);
            const double wanted = listed ? get(t, l->values, n++) : 0, got = get(t, out, line * pitch + i);
            CHECK(first_difference(CDROP_FLOAT64, &got, &wanted, 1) == 1, "line %zu, unit %zu: %a", line, i, got);
            CHECK(!s->live || bit_at(s->live + line * s->words, i) == listed, "line %zu, live bit %zu", line, i);
        }
    }
}

/* Whole rows, packed, as the input of a network is listed. */
static void test_compress_rows(const cdrop_path *path, cdrop_dtype t, size_t columns, size_t lines, double density)
{
    const size_t pitch = columns + random_below(3), all = lines + 2, size = all ? (all - 1) * pitch + columns : 0;
    void *data = random_array(t, size, density, 2);
    int64_t *rows = guarded(lines * sizeof *rows);
    add_special_values(t, data, size);
    for (size_t i = 0; i < lines; i++)
        rows[i] = (int64_t)random_below(all);
    for (int variant = 0; variant < 24; variant++) {
        const size_t noise_pitch = cdrop_pad(columns) + CDROP_LANES;
        const cdrop_source s = {
            .noise = variant < 12 ? NULL : random_array(t, lines * noise_pitch, 1, 1),
            .noise_pitch = noise_pitch,
            .data = data,
            .pitch = pitch,
            .rows = variant & 1 ? rows : NULL,
            .columns = columns,
            .mask = variant & 2 ? random_mask(lines, columns, density) : NULL,
            .words = cdrop_words(columns),
            .scale = variant & 1 ? 1 / 0.7 : 1,
            .rule = (cdrop_live_rule)(variant / 4 % 3),
            .live = variant & 2 ? guarded(lines * cdrop_words(columns) * sizeof(uint64_t)) : NULL,
        };
        cdrop_lists l = make_lists(t, lines, columns, 1);
        const size_t listed = kernels_of(path, t)->compress(&l, &s, 0, l.blocks, 0, lines);
        CHECK(listed == all_listed(&l), "%zu entries listed, %zu reported", all_listed(&l), listed);
        check_lists(t, &l, &s, 0, l.blocks, 0, lines);
        check_densify(kernels_of(path, t), t, &l, &s);
    }
    guarded_release();
}

/* The same rows from a sparse matrix, which holds some of the zeros, too. */
static void test_compress_sparse(const cdrop_path *path, cdrop_dtype t, size_t columns, size_t lines, double density)
{
    const size_t all = lines + 2, size = all * columns;
    void *dense = random_array(t, size, density, 2), *data = guarded(size * size_of(t));
    int64_t *indptr = guarded((all + 1) * sizeof *indptr), *rows = guarded(lines * sizeof *rows), n = 0;
    uint32_t *indices = guarded(size * sizeof *indices);
    add_special_values(t, dense, size);
    for (size_t i = 0; i < size; i++) {
        const double value = get(t, dense, i);
        if (i % columns == 0)
            indptr[i / columns] = n;
        if (value == 0 && random_below(2))
            continue;
        put(t, data, (size_t)n, value);
        indices[n++] = (uint32_t)(i % columns);
    }
    indptr[all] = n;
    for (size_t i = 0; i < lines; i++)
        rows[i] = (int64_t)random_below(all);
    for (int variant = 0; variant < 8; variant++) {
        const size_t noise_pitch = cdrop_pad(columns) + CDROP_LANES;
        cdrop_source s = {
            .noise = variant < 4 ? NULL : random_array(t, lines * noise_pitch, 1, 1),
            .noise_pitch = noise_pitch,
            .data = data,
            .rows = variant & 1 ? rows : NULL,
            .indptr = indptr,
            .indices = indices,
            .mask = variant & 2 ? random_mask(lines, columns, density) : NULL,
            .words = cdrop_words(columns),
            .scale = variant & 1 ? 1 / 0.7 : 1,
            .rule = CDROP_LIVE_NONZERO,
        };
        cdrop_lists l = make_lists(t, lines, columns, 1);
        size_t listed = 0;
        for (int time = 0; time < 2; time++) /* the second over what the first has left */
            listed = kernels_of(path, t)->compress_sparse(&l, &s, 0, lines);
        s.data = dense;
        s.pitch = s.columns = columns;
        for (size_t i = 0; i < lines * l.blocks; i++) {
            check_list(t, &l, &s, i % lines, i / lines);
            listed -= cdrop_listed(&l, i);
        }
        CHECK(listed == 0, "%zu entries listed more than reported", listed);
    }
    guarded_release();
}

/* Some blocks of some lines of a panel into slots, as a hidden layer is listed. */
static void test_compress_panel(const cdrop_path *path, cdrop_dtype t, size_t columns, size_t lines, double density)
{
    const size_t blocks = cdrop_blocks(columns), b0 = random_below(blocks), b1 = b0 + 1 + random_below(blocks - b0);
    const size_t l0 = random_below(lines), l1 = l0 + random_below(lines - l0 + 1), pitch = cdrop_pad(columns - b0 * 64);
    const cdrop_source s = {
        .data = random_array(t, (lines - 1) * pitch + columns - b0 * 64, density, 2),
        .pitch = pitch,
        .columns = columns,
        .first_block = b0,
        .mask = random_mask(lines, columns, 0.5),
        .words = cdrop_words(columns),
        .scale = 2,
        .rule = CDROP_LIVE_POSITIVE,
        .live = guarded(lines * cdrop_words(columns) * sizeof(uint64_t)),
    };
    cdrop_lists l = make_lists(t, lines, columns, 0);
    kernels_of(path, t)->compress(&l, &s, b0, b1, l0, l1);
    check_lists(t, &l, &s, b0, b1, l0, l1);
    guarded_release();
}

static void test_compress(const cdrop_path *path, cdrop_dtype t)
{
    for (size_t columns = 0; columns <= 130; columns++)
        for (size_t d = 0; d < COUNT(densities); d++) {
            if (!IN_SHORT(columns + d, 2))
                continue;
            check_case("compress %zu columns, density %g, %s %s", columns, densities[d], path->name, DTYPE_NAME(t));
            test_compress_rows(path, t, columns, columns % 3, densities[d]);
            if (!columns)
                continue;
            test_compress_sparse(path, t, columns, columns % 3, densities[d]);
            test_compress_panel(path, t, columns, 1 + random_below(5), densities[d]);
        }
}

/* ---- Lists by column ----------------------------------------------------------------------------------------- */

/* Dense rows to lists by row; keeps every entry's bits. */
static cdrop_lists list_rows(cdrop_dtype t, const void *data, size_t lines, size_t columns, int packed)
{
    const cdrop_source s = {.data = data, .pitch = columns, .columns = columns, .scale = 1, .rule = CDROP_LIVE_NONZERO};
    cdrop_lists l = make_lists(t, lines, columns, packed);
    kernels_of(&cdrop_path_scalar, t)->compress(&l, &s, 0, l.blocks, 0, lines);
    return l;
}

/* The list of unit `unit` over a block of rows: the column of the dense matrix. */
static void check_column(cdrop_dtype t, const cdrop_lists *out, const void *data, size_t columns, size_t block,
                         size_t lines, size_t unit)
{
    const size_t list = block * out->lines + unit, first = block * 64;
    uint64_t live = 0;
    size_t n = 0;
    for (size_t row = first; row < cdrop_min(first + 64, lines); row++) {
        const double value = get(t, data, row * columns + unit);
        if (value == 0)
            continue;
        CHECK(get(t, out->values, out->start[list] + n) == value, "unit %zu, row %zu", unit, row);
        live |= UINT64_C(1) << (row - first);
        n++;
    }
    CHECK(out->live[list] == live, "unit %zu, row block %zu: entries %llx, not %llx", unit, block,
          (unsigned long long)out->live[list], (unsigned long long)live);
}

static void test_scatter_of(const cdrop_path *path, cdrop_dtype t, size_t lines, size_t columns, double density)
{
    void *data = random_array(t, lines * columns, density, 2);
    const cdrop_lists in = list_rows(t, data, lines, columns, 0);
    cdrop_lists out = make_lists(t, columns, lines, 0);
    for (size_t block = 0; block < cdrop_blocks(lines); block++) {
        const size_t cut = random_below(in.blocks + 1); /* in two calls, as two threads would */
        kernels_of(path, t)->scatter(&out, &in, 0, cut, block, lines);
        kernels_of(path, t)->scatter(&out, &in, cut, in.blocks, block, lines);
        for (size_t unit = 0; unit < columns; unit++)
            check_column(t, &out, data, columns, block, lines, unit);
    }
    guarded_release();
}

static void test_scatter(const cdrop_path *path, cdrop_dtype t)
{
    for (size_t n = 1; n <= 130; n++)
        for (size_t d = 0; d < COUNT(densities); d++) {
            const size_t other = 1 + random_below(130);
            if (!IN_SHORT(n + d, 2))
                continue;
            check_case("scatter %zu and %zu, density %g, %s %s", n, other, densities[d], path->name, DTYPE_NAME(t));
            test_scatter_of(path, t, n, other, densities[d]);
            test_scatter_of(path, t, other, n, densities[d]);
        }
}

/* ---- The product --------------------------------------------------------------------------------------------- */

typedef struct {
    cdrop_dtype t;
    size_t lines, columns, width, pitch, out_pitch;
    const void *x, *panel, *start;
} problem;

static void naive_product(const problem *p, void *out)
{
    for (size_t line = 0; line < p->lines; line++)
        for (size_t j = 0; j < p->width; j++) {
            double sum = p->start ? get(p->t, p->start, j) : 0;
            for (size_t i = 0; i < p->columns; i++) {
                const double x = get(p->t, p->x, line * p->columns + i);
                if (x != 0)
                    sum = fused(p->t, x, get(p->t, p->panel, i * p->pitch + j), sum);
            }
            put(p->t, out, line * p->out_pitch + j, sum + 0.0);
        }
}

/* All blocks in one call; or cut in two, by blocks and by lines. */
static void run_product(const problem *p, const cdrop_kernels *k, const cdrop_lists *lists, void *out, int cut)
{
    const size_t b = cut && lists->blocks > 1 ? 1 + random_below(lists->blocks - 1) : lists->blocks;
    const size_t l = cut ? random_below(p->lines + 1) : p->lines;
    char *rest = (char *)out + l * p->out_pitch * k->size;
    const cdrop_ahead ahead = {.from = {p->panel, p->x}, .bytes = p->lines * p->columns * k->size};
    k->product(out, p->out_pitch, p->start, p->panel, p->pitch, p->width, lists, 0, b, 0, l, 0, NULL);
    if (l < p->lines)
        k->product(rest, p->out_pitch, p->start, p->panel, p->pitch, p->width, lists, 0, b, l, p->lines, 0, &ahead);
    if (b < lists->blocks)
        k->product(out, p->out_pitch, p->start, (const char *)p->panel + b * CDROP_BLOCK * p->pitch * k->size, p->pitch,
                   p->width, lists, b, lists->blocks, 0, p->lines, 1, NULL);
}

static void test_product_of(const cdrop_path *const *paths, size_t n_paths, problem p, double density)
{
    const size_t size = size_of(p.t), out_size = (p.lines - 1) * p.out_pitch + p.width;
    p.x = random_array(p.t, p.lines * p.columns, density, 2);
    p.panel = random_array(p.t, (p.columns - 1) * p.pitch + p.width, 0.9, 2);
    p.start = random_below(4) ? random_array(p.t, p.width, 0.9, 2) : NULL;
    const cdrop_lists lists = list_rows(p.t, p.x, p.lines, p.columns, (int)random_below(2));
    void *wanted = guarded(out_size * size);
    naive_product(&p, wanted);
    for (size_t line = 0; line < p.lines; line++) /* between the lines nothing is written */
        check_compared(p.t, (char *)wanted + line * p.out_pitch * size, p.width);
    for (size_t i = 0; i < 2 * n_paths; i++) {
        const cdrop_path *path = paths[i / 2];
        void *out = guarded(out_size * size);
        check_case("product %zu x %zu x %zu, density %g, %s %s", p.lines, p.columns, p.width, density, path->name,
                   DTYPE_NAME(p.t));
        run_product(&p, kernels_of(path, p.t), &lists, out, i & 1);
        const size_t at = first_difference(p.t, out, wanted, out_size);
        CHECK(at == out_size, "element %zu", at);
    }
    guarded_release();
}

static void test_product(const cdrop_path *const *paths, size_t n_paths, cdrop_dtype t)
{
    const size_t lines[] = {1, 2, 5};
    for (size_t width = 16; width <= 176; width += 16)
        for (size_t c = 1; c <= 130; c += c < 66 ? 1 : 16)
            for (size_t d = 0; d < COUNT(densities); d++) {
                if (!IN_SHORT(c + d, 2))
                    continue;
                const problem p = {.t = t,
                                   .lines = lines[(c + d) % COUNT(lines)],
                                   .columns = c,
                                   .width = width,
                                   .pitch = width + 16 * random_below(2),
                                   .out_pitch = width + 16 * random_below(2)};
                test_product_of(paths, n_paths, p, densities[d]);
            }
}

/* Zeros come out as +0, whatever the signs that went in. */
static void test_signs_of_zero(const cdrop_path *path, cdrop_dtype t)
{
    void *x = guarded(size_of(t)), *panel = guarded(16 * size_of(t)), *start = guarded(16 * size_of(t));
    void *out = guarded(16 * size_of(t));
    put(t, x, 0, 1);
    for (size_t i = 0; i < 16; i++) {
        put(t, panel, i, -0.0);
        put(t, start, i, -0.0);
    }
    check_case("signs of zero, %s %s", path->name, DTYPE_NAME(t));
    const cdrop_lists lists = list_rows(t, x, 1, 1, 1);
    kernels_of(path, t)->product(out, 16, start, panel, 16, 16, &lists, 0, 1, 0, 1, 0, NULL);
    for (size_t i = 0; i < 16; i++)
        CHECK(get(t, out, i) == 0 && !signbit(get(t, out, i)), "element %zu", i);
    guarded_release();
}

int main(void)
{
    const cdrop_path *paths[MOST_PATHS];
    const size_t n = all_paths(paths);
    cdrop_flush_denormals(); /* as the library runs its kernels */
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        test_product(paths, n, t);
        check_mostly_nonzero("products");
        for (size_t i = 0; i < n; i++) {
            test_compress(paths[i], t);
            test_scatter(paths[i], t);
            test_signs_of_zero(paths[i], t);
        }
    }
    return check_report();
}
