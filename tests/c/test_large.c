/* 2^31 elements and more, without their memory: kernels run on a few lines that stand 5 * 2^30 elements apart, in
 * addresses that are mapped and hardly touched, and must give the bits of the same lines side by side. An index of 32
 * bits would point elsewhere. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../src_c/pass.h"
#include "check.h"

enum { LINES = 67, COLUMNS = 80, BLOCKS = 2, WIDTH = 48, REGIONS = 9 };
/* Bytes behind a block: up to the next cache line, and one more under the address sanitizer. */
enum { ROUNDING = 2 * CDROP_CACHE_LINE };

/* Not a multiple of 2^32, so that what wraps falls on nothing. */
static const size_t far = (5ull << 30) + 16, region_bytes = (size_t)1 << 42;

/* Pages that cost nothing until they are written; all are given back together. */
static void *regions[REGIONS];
static size_t n_regions;

static char *far_memory(void)
{
    void *p = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED, "no %zu bytes of addresses", region_bytes);
    if (p == MAP_FAILED || n_regions == REGIONS)
        exit(check_report() + 1);
    return regions[n_regions++] = p;
}

static void release_far(void)
{
    while (n_regions)
        munmap(regions[--n_regions], region_bytes);
    guarded_release();
}

/* `lines` lines of `columns` numbers each, the same side by side and far apart. */
typedef struct {
    cdrop_dtype t;
    size_t lines, columns;
    char *near, *apart;
} array;

static array copied_apart(cdrop_dtype t, size_t lines, size_t columns, const void *near)
{
    array a = {.t = t, .lines = lines, .columns = columns, .near = (char *)near, .apart = far_memory()};
    for (size_t line = 0; line < lines; line++)
        memcpy(a.apart + line * far * size_of(t), a.near + line * columns * size_of(t), columns * size_of(t));
    return a;
}

static array make_array(cdrop_dtype t, size_t lines, size_t columns)
{
    return copied_apart(t, lines, columns, random_array(t, lines * columns, 1, 1));
}

static void check_array(const array *a, const char *name)
{
    for (size_t line = 0; line < a->lines; line++) {
        const size_t at = first_difference(a->t, a->apart + line * far * size_of(a->t),
                                           a->near + line * a->columns * size_of(a->t), a->columns);
        CHECK(at == a->columns, "%s: line %zu, element %zu", name, line, at);
    }
    check_compared(a->t, a->near, a->lines * a->columns);
}

/* ---- Kernels of lines ---------------------------------------------------------------------------------------- */

static void test_lines(const cdrop_kernels *k, cdrop_dtype t)
{
    const array a = make_array(t, LINES, WIDTH), b = make_array(t, LINES, WIDTH), sums = make_array(t, 2, WIDTH);
    uint64_t live[LINES];
    double squares[2][WIDTH];
    memset(live, 0xff, sizeof live);
    k->activate(a.near, WIDTH, WIDTH, LINES, CDROP_TANH);
    k->activate(a.apart, far, WIDTH, LINES, CDROP_TANH);
    const cdrop_gate gate = {.live = live, .words = 1, .scale = 2};
    k->gate(b.near, WIDTH, a.near, WIDTH, WIDTH, LINES, &gate, CDROP_TANH);
    k->gate(b.apart, far, a.apart, far, WIDTH, LINES, &gate, CDROP_TANH);
    check_array(&a, "activate");
    check_array(&b, "gate");
    k->column_sums(sums.near, b.near, WIDTH, WIDTH, LINES);
    k->column_sums(sums.apart, b.apart, far, WIDTH, LINES);
    k->scale_columns(b.near, WIDTH, sums.near, WIDTH, LINES);
    k->scale_columns(b.apart, far, sums.apart, WIDTH, LINES);
    check_array(&sums, "column_sums");
    check_array(&b, "scale_columns");
    CHECK(k->sum_squares(b.near, WIDTH, WIDTH, LINES) == k->sum_squares(b.apart, far, WIDTH, LINES), "sum_squares");
    k->column_squares(squares[0], b.near, WIDTH, WIDTH, LINES);
    k->column_squares(squares[1], b.apart, far, WIDTH, LINES);
    CHECK(!memcmp(squares[0], squares[1], sizeof *squares), "column_squares");
    release_far();
}

static void test_squares_of_many_columns(const cdrop_kernels *k)
{
    double *near = random_array(CDROP_FLOAT64, LINES * WIDTH, 1, 1), factors[2][WIDTH] = {{0}};
    for (size_t i = 0; i < LINES * WIDTH; i++)
        near[i] = fabs(near[i]);
    const array squares = copied_apart(CDROP_FLOAT64, LINES, WIDTH, near);
    const double limit = sqrt(LINES / 2.0);
    const size_t above = k->limit_factors(factors[0], near, WIDTH, WIDTH, LINES, limit);
    CHECK(above && above < WIDTH, "%zu columns above the limit", above);
    CHECK(above == k->limit_factors(factors[1], (const double *)squares.apart, far, WIDTH, LINES, limit),
          "limit_factors");
    CHECK(!memcmp(factors[0], factors[1], sizeof *factors), "factors");
    release_far();
}

static void test_transpose(const cdrop_kernels *k, cdrop_dtype t)
{
    const array in = make_array(t, 16, 16), out = make_array(t, 16, 16);
    k->transpose(out.near, 16, in.near, 16, 16, 16);
    k->transpose(out.apart, far, in.apart, far, 16, 16);
    check_array(&out, "transpose");
    release_far();
}

/* ---- Lists and products -------------------------------------------------------------------------------------- */

/* Room for lists of some lines; or of the same in a matrix of `far` lines, whose values stand far apart. */
static cdrop_lists make_lists(cdrop_dtype t, size_t lines, size_t blocks, int apart)
{
    cdrop_lists l = {.lines = apart ? far : lines, .blocks = blocks};
    const size_t n = blocks * lines;
    l.values = apart ? (void *)far_memory() : guarded(n * CDROP_SLOT * size_of(t));
    l.live = apart ? (void *)far_memory() : guarded(n * sizeof *l.live);
    l.start = apart ? (void *)far_memory() : guarded(n * sizeof *l.start);
    for (size_t b = 0; b < blocks; b++)
        for (size_t line = 0; line < lines; line++)
            l.start[b * l.lines + line] = (b * lines + line) * (apart ? far / 2 : CDROP_SLOT);
    return l;
}

static void check_lists(cdrop_dtype t, const cdrop_lists *near, const cdrop_lists *apart, const char *name)
{
    for (size_t b = 0; b < near->blocks; b++)
        for (size_t line = 0; line < near->lines; line++) {
            const size_t i = b * near->lines + line, j = b * apart->lines + line, n = cdrop_listed(near, i);
            CHECK(near->live[i] == apart->live[j] && n, "%s: live entries of line %zu, block %zu", name, line, b);
            const char *values = (const char *)near->values + near->start[i] * size_of(t);
            const size_t at =
                first_difference(t, (const char *)apart->values + apart->start[j] * size_of(t), values, n);
            CHECK(at == n, "%s: value %zu of line %zu, block %zu", name, at, line, b);
            check_compared(t, values, n);
        }
}

static cdrop_source source_of(const array *x, const int64_t *rows, int apart)
{
    return (cdrop_source){.data = apart ? x->apart : x->near,
                          .pitch = apart ? far : x->columns,
                          .rows = rows,
                          .columns = x->columns,
                          .scale = 2,
                          .rule = CDROP_LIVE_NONZERO};
}

/* Rows far apart into lists far apart, by row and then by column; and the product on them. */
static void test_lists(const cdrop_kernels *k, cdrop_dtype t)
{
    const array x = make_array(t, LINES, COLUMNS);
    int64_t rows[LINES];
    for (size_t i = 0; i < LINES; i++)
        rows[i] = (int64_t)(i * 5 % LINES);
    const cdrop_source near = source_of(&x, rows, 0), apart = source_of(&x, rows, 1);
    cdrop_lists by_row[2] = {make_lists(t, LINES, BLOCKS, 0), make_lists(t, LINES, BLOCKS, 1)};
    cdrop_lists by_column[2] = {make_lists(t, COLUMNS, BLOCKS, 0), make_lists(t, COLUMNS, BLOCKS, 1)};
    const size_t live = k->compress(&by_row[0], &near, 0, BLOCKS, 0, LINES);
    CHECK(live == LINES * COLUMNS && live == k->compress(&by_row[1], &apart, 0, BLOCKS, 0, LINES), "%zu live", live);
    check_lists(t, &by_row[0], &by_row[1], "compress");
    for (size_t block = 0; block < cdrop_blocks(LINES); block++)
        for (int i = 0; i < 2; i++)
            k->scatter(&by_column[i], &by_row[i], 0, BLOCKS, block, LINES);
    check_lists(t, &by_column[0], &by_column[1], "scatter");
    release_far();
}

static void test_products(const cdrop_kernels *k, cdrop_dtype t)
{
    const array x = make_array(t, LINES, COLUMNS), w = make_array(t, COLUMNS, WIDTH), out = make_array(t, LINES, WIDTH);
    const cdrop_source near = source_of(&x, NULL, 0), apart = source_of(&x, NULL, 1);
    cdrop_lists lists[2] = {make_lists(t, LINES, BLOCKS, 0), make_lists(t, LINES, BLOCKS, 1)};
    k->compress(&lists[0], &near, 0, BLOCKS, 0, LINES);
    k->compress(&lists[1], &apart, 0, BLOCKS, 0, LINES);
    k->product(out.near, WIDTH, NULL, w.near, WIDTH, WIDTH, &lists[0], 0, BLOCKS, 0, LINES, 0, NULL);
    k->product(out.apart, far, NULL, w.apart, far, WIDTH, &lists[1], 0, BLOCKS, 0, LINES, 0, NULL);
    check_array(&out, "product");
    k->product_dense(out.near, WIDTH, NULL, w.near, WIDTH, WIDTH, x.near, COLUMNS, 1, CDROP_BLOCK, LINES, 1);
    k->product_dense(out.apart, far, NULL, w.apart, far, WIDTH, x.apart, far, 1, CDROP_BLOCK, LINES, 1);
    check_array(&out, "product_dense");
    k->product_dense(out.near, WIDTH, NULL, w.near, WIDTH, WIDTH, x.near, 1, COLUMNS, CDROP_BLOCK, LINES, 1);
    k->product_dense(out.apart, far, NULL, w.apart, far, WIDTH, x.apart, 1, far, CDROP_BLOCK, LINES, 1);
    check_array(&out, "product_dense across");
    release_far();
}

static void test_densify(const cdrop_kernels *k, cdrop_dtype t)
{
    const array x = make_array(t, LINES, COLUMNS), out = make_array(t, LINES, BLOCKS * CDROP_BLOCK);
    const cdrop_source near = source_of(&x, NULL, 0), apart = source_of(&x, NULL, 1);
    k->densify(out.near, out.columns, &near, 0, BLOCKS, 0, LINES);
    k->densify(out.apart, far, &apart, 0, BLOCKS, 0, LINES);
    check_array(&out, "densify");
    release_far();
}

/* Entries from number 2^32 on, in the last columns that there can be. */
static void test_sparse(const cdrop_kernels *k, cdrop_dtype t)
{
    const size_t first = 2 * far, block = UINT32_MAX / CDROP_BLOCK;
    const int64_t indptr[] = {(int64_t)first, (int64_t)first + 3};
    char *data = far_memory();
    uint32_t *indices = (uint32_t *)far_memory();
    cdrop_lists l = {.lines = 1, .blocks = 0, .packed = 1};
    l.values = guarded(CDROP_SLOT * size_of(t));
    l.live = (uint64_t *)far_memory();
    l.start = (size_t *)far_memory();
    for (uint32_t i = 0; i < 3; i++) {
        put(t, data + first * size_of(t), i, i + 1.0);
        indices[first + i] = UINT32_MAX - 10 + 5 * i;
    }
    const cdrop_source s = {.data = data, .indptr = indptr, .indices = indices, .scale = 1};
    const size_t listed = k->compress_sparse(&l, &s, 0, 1);
    CHECK(listed == 3 && l.live[block] == (UINT64_C(1) << 53 | UINT64_C(1) << 58 | UINT64_C(1) << 63), "%zu", listed);
    CHECK(get(t, l.values, 0) == 1 && get(t, l.values, 2) == 3, "values %g", get(t, l.values, 2));
    release_far();
}

/* ---- Sizes of memory, and where things stand in it ----------------------------------------------------------- */

typedef unsigned __int128 wide;

/* A matrix whose panels, blocks and elements have numbers of 33 bits and more: no address may have lost any. */
static void test_addresses(const cdrop_kernels *k)
{
    const size_t lines = ((size_t)1 << 33) + 64, columns = ((size_t)1 << 24) + 192;
    cdrop_workspace w = CDROP_MEASURE;
    const cdrop_panels m = cdrop_take_panels(&w, k, lines, columns);
    const wide bytes = (wide)lines * columns * k->size;
    CHECK(!w.failed && w.used >= bytes && w.used < bytes + ROUNDING, "%zu bytes", w.used);
    CHECK((wide)m.step == (wide)k->panel * lines && m.panels == columns / k->panel + (columns % k->panel != 0), "step");
    for (size_t p = 0; p < m.panels; p += m.panels / 3) {
        const wide at = ((wide)p * k->panel * lines + (wide)(lines - 1) * cdrop_panel_pitch(&m, p)) * k->size;
        CHECK((uintptr_t)cdrop_panel_at(&m, k, p, lines - 1) == (uintptr_t)at, "panel %zu", p);
    }
    const cdrop_tile tile = cdrop_tile_at(&m, k, cdrop_blocks(lines) - 1, 2);
    const size_t p = 2 * CDROP_BLOCK / k->panel, in_panel = 2 * CDROP_BLOCK % k->panel;
    const wide at = ((wide)p * m.step + (wide)(lines - 64) * cdrop_panel_pitch(&m, p) + in_panel) * k->size;
    CHECK((uintptr_t)tile.data == (uintptr_t)at, "a tile");
    const size_t before = w.used;
    cdrop_take_lists(&w, k, lines, 3 * CDROP_BLOCK, 0);
    const wide lists = (wide)lines * 3 * (CDROP_SLOT * k->size + 16);
    CHECK(!w.failed && w.used - before >= lists && w.used - before < lists + 3 * ROUNDING, "lists");
}

/* What no memory can hold is refused, not wrapped into something small. */
static void test_sizes_that_overflow(const cdrop_kernels *k)
{
    const size_t huge[] = {(size_t)1 << 32, (size_t)1 << 40, (size_t)1 << 62};
    for (size_t i = 0; i < COUNT(huge); i++)
        for (size_t j = 0; j < COUNT(huge); j++) {
            cdrop_workspace panels = CDROP_MEASURE, rows = CDROP_MEASURE, lists = CDROP_MEASURE;
            const int fits = (wide)huge[i] * huge[j] * k->size < SIZE_MAX / 2;
            cdrop_take_panels(&panels, k, huge[i], huge[j]);
            cdrop_take_rows(&rows, k, huge[i], huge[j]);
            cdrop_take_lists(&lists, k, huge[i], huge[j], (int)(i & 1));
            CHECK(panels.failed == !fits && rows.failed == !fits && lists.failed == !fits, "%zu x %zu", huge[i],
                  huge[j]);
        }
}

/* ---- Streams and steps --------------------------------------------------------------------------------------- */

/* Masks of late rows are not those of the rows that 32 bits would make of them. */
static void test_late_rows(void)
{
    uint64_t early[64], late[64];
    for (int shift = 31; shift < 44; shift++) {
        cdrop_bernoulli_mask(early, 0, 64, 64, UINT64_C(1) << 31, 1, 1, CDROP_FOR_MASKS, 0);
        cdrop_bernoulli_mask(late, (size_t)1 << shift, 64, 64, UINT64_C(1) << 31, 1, 1, CDROP_FOR_MASKS, 0);
        CHECK(memcmp(early, late, sizeof early), "rows from 2^%d on", shift);
    }
}

/* A step and a prediction on rows of a table of 2^32 and more rows, labels and weights next to it. */
static void test_step(cdrop_dtype t)
{
    enum { N = 70, IN = 5, OUT = 3 };
    const size_t units[] = {IN, 40, OUT}, first = 2 * far;
    const uint64_t keep[] = {CDROP_KEEP_ALL, UINT64_C(1) << 31};
    const cdrop_design design = {.dtype = t, .layers = 2, .units = units, .keep = keep, .activation = CDROP_TANH};
    const cdrop_optimizer sgd = {.rule = CDROP_SGD, .learning_rate = 0.1};
    int64_t rows[2][N], labels[N];
    double weights[N], loss[2], outputs[2][N * OUT], w[IN * 40], bias[40];
    char *x = random_array(t, N * IN, 1, 1), *far_x = far_memory();
    int64_t *far_labels = (int64_t *)far_memory();
    double *far_weights = (double *)far_memory();
    for (size_t i = 0; i < N; i++) {
        rows[0][i] = (int64_t)i;
        rows[1][i] = (int64_t)(first + i * 1001);
        far_labels[rows[1][i]] = labels[i] = (int64_t)random_below(OUT);
        far_weights[rows[1][i]] = weights[i] = random_between(1, 2);
        memcpy(far_x + (size_t)rows[1][i] * IN * size_of(t), x + i * IN * size_of(t), IN * size_of(t));
    }
    for (int i = 0; i < 2; i++) {
        const cdrop_batch batch = {.x = i ? far_x : x,
                                   .rows = rows[i],
                                   .n = N,
                                   .truth.labels = i ? far_labels : labels,
                                   .truth.weights = i ? far_weights : weights};
        cdrop_network *network;
        CHECK(cdrop_network_create(&network, &design) == CDROP_OK, "create");
        for (size_t j = 0; j < IN * 40; j++)
            put(t, w, j, (double)(j % 17) / 17 - 0.5);
        memset(bias, 0, sizeof bias);
        cdrop_network_set(network, 0, CDROP_WEIGHT, w, bias);
        CHECK(cdrop_network_step(network, &batch, &sgd, 1, 2, &loss[i]) == CDROP_OK, "step");
        CHECK(cdrop_network_predict(network, outputs[i], &batch, CDROP_OUTPUTS, 2) == CDROP_OK, "predict");
        cdrop_network_free(network);
    }
    CHECK(loss[0] == loss[1], "losses %a and %a", loss[0], loss[1]);
    CHECK(first_difference(t, outputs[0], outputs[1], N * OUT) == N * OUT, "outputs");
    check_compared(t, outputs[0], N * OUT);
    release_far();
}

int main(void)
{
    const cdrop_path *paths[MOST_PATHS];
    const size_t n = all_paths(paths);
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        for (size_t i = 0; i < n; i++) {
            const cdrop_kernels *k = kernels_of(paths[i], t);
            check_case("large, %s %s", paths[i]->name, DTYPE_NAME(t));
            test_lines(k, t);
            test_squares_of_many_columns(k);
            test_transpose(k, t);
            test_lists(k, t);
            test_products(k, t);
            test_densify(k, t);
            test_addresses(k);
            test_sizes_that_overflow(k);
        }
    }
    for (int i = 0; cdrop_simd_usable(i); i++) {
        cdrop_select_simd(cdrop_simd_usable(i));
        for (cdrop_dtype t = 0; t < DTYPES; t++) {
            check_case("far rows, %s %s", cdrop_simd_active(), DTYPE_NAME(t));
            test_sparse(cdrop_kernels_of(t), t);
            test_step(t);
        }
    }
    test_late_rows();
    check_mostly_nonzero("large");
    return check_report();
}
