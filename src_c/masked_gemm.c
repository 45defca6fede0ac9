/* Forward: out = activation((x * mask * scale) w + bias), on live units only. */
#include <string.h>

#include "products.h"

enum { FEW_LINES = 16 }; /* fewer do not touch most of a block of weights */

/* Where one panel's product stands. */
typedef struct {
    const cdrop_kernels *k;
    const cdrop_left *left;
    const char *start, *panel; /* of this panel, start may be NULL */
    size_t pitch, width;
} panel_product;

static void run_lists(const panel_product *q, void *out, size_t out_pitch, size_t b0, size_t b1, size_t l0, size_t l1)
{
    const size_t block = CDROP_BLOCK * q->pitch * q->k->size;
    for (size_t b = b0; b < b1; b++) {
        const cdrop_ahead next = {.from = {q->panel + (b + 1) * block}, .bytes = block};
        const int worth_it = l1 - l0 >= FEW_LINES && (b + 2) * CDROP_BLOCK <= q->left->entries;
        q->k->product(out, out_pitch, q->start, q->panel, q->pitch, q->width, q->left->lists, b, b + 1, l0, l1, b > 0,
                      worth_it ? &next : NULL);
    }
}

/* Blocks [b0, b1) of the sum for lines [l0, l1); `out` is line l0. */
static void run_blocks(const panel_product *q, void *out, size_t out_pitch, size_t b0, size_t b1, size_t l0, size_t l1)
{
    const cdrop_kernels *k = q->k;
    const cdrop_panels *x = q->left->dense;
    if (!x) {
        run_lists(q, out, out_pitch, b0, b1, l0, l1);
        return;
    }
    const size_t per_panel = k->panel / CDROP_BLOCK;
    for (size_t b = b0; b < b1; b++) {
        const size_t xp = b / per_panel, first = b * CDROP_BLOCK;
        const char *from = cdrop_panel_at(x, k, xp, l0);
        k->product_dense(out, out_pitch, q->start, q->panel + first * q->pitch * k->size, q->pitch, q->width,
                         from + b % per_panel * CDROP_BLOCK * k->size, cdrop_panel_pitch(x, xp), 1,
                         cdrop_min(CDROP_BLOCK, q->left->entries - first), l1 - l0, b > 0);
    }
}

/* Row groups [g0, g1) of one panel. All but the last block of the sum run over all rows, so that a block of weights is
 * read once; the last runs group by group, so that the epilogue finds its rows in the cache. */
static void product_panel(const panel_product *q, const cdrop_panels *out, size_t rows, size_t p, size_t g0, size_t g1,
                          cdrop_epilogue epilogue, void *context)
{
    const size_t blocks = q->left->entries ? cdrop_blocks(q->left->entries) : 1, pitch = cdrop_panel_pitch(out, p);
    const size_t l0 = g0 * CDROP_BLOCK, l1 = cdrop_min(g1 * CDROP_BLOCK, rows);
    run_blocks(q, cdrop_panel_at(out, q->k, p, l0), pitch, 0, blocks - 1, l0, l1);
    for (size_t l = l0; l < l1; l += CDROP_BLOCK) {
        const size_t end = cdrop_min(l + CDROP_BLOCK, l1);
        run_blocks(q, cdrop_panel_at(out, q->k, p, l), pitch, blocks - 1, blocks, l, end);
        epilogue(context, p, l, end);
    }
}

static panel_product product_of(const cdrop_kernels *k, const void *start, const cdrop_panels *panels,
                                const cdrop_left *left, size_t p)
{
    return (panel_product){.k = k,
                           .left = left,
                           .start = start ? (const char *)start + p * k->panel * k->size : NULL,
                           .panel = cdrop_panel_at(panels, k, p, 0),
                           .pitch = cdrop_panel_pitch(panels, p),
                           .width = cdrop_panel_width(panels, p, k->panel)};
}

void cdrop_product_rows(const cdrop_kernels *k, const cdrop_panels *out, const void *start, const cdrop_panels *panels,
                        const cdrop_left *left, size_t rows, cdrop_team team, cdrop_epilogue epilogue, void *context)
{
    const size_t groups = cdrop_blocks(rows);
    size_t item, end;
    cdrop_share(team, panels->panels * groups, &item, &end);
    while (item < end) {
        const size_t p = item / groups, g0 = item % groups, g1 = cdrop_min(groups, g0 + end - item);
        const panel_product q = product_of(k, start, panels, left, p);
        product_panel(&q, out, rows, p, g0, g1, epilogue, context);
        item += g1 - g0;
    }
}

void cdrop_product_groups(const cdrop_kernels *k, const cdrop_panels *out, const void *start,
                          const cdrop_panels *panels, const cdrop_left *left, size_t from, size_t to,
                          cdrop_epilogue epilogue, void *context)
{
    for (size_t p = 0; p < panels->panels; p++) {
        const panel_product q = product_of(k, start, panels, left, p);
        product_panel(&q, out, to, p, from / CDROP_BLOCK, cdrop_blocks(to), epilogue, context);
    }
}

size_t cdrop_list_rows(const cdrop_kernels *k, const cdrop_left *left, cdrop_lists *lists, const cdrop_panels *dense,
                       const cdrop_source *source, size_t l0, size_t l1)
{
    const size_t per_panel = k->panel / CDROP_BLOCK, blocks = cdrop_blocks(source->columns);
    size_t live = 0;
    if (!left->dense)
        return k->compress(lists, source, 0, lists->blocks, l0, l1);
    for (size_t p = 0; p < dense->panels; p++)
        live += k->densify(cdrop_panel_at(dense, k, p, l0), cdrop_panel_pitch(dense, p), source, p * per_panel,
                           cdrop_min((p + 1) * per_panel, blocks), l0, l1);
    return live;
}

double cdrop_sampled_density(const cdrop_kernels *k, const cdrop_source *source, cdrop_lists *lists, size_t rows)
{
    enum { SAMPLES = 8 };
    const size_t step = rows / SAMPLES + 1;
    size_t live = 0, seen = 0;
    for (size_t row = 0; row < rows; row += step, seen++)
        live += k->compress(lists, source, 0, lists->blocks, row, row + 1);
    return seen && source->columns ? (double)live / (double)(seen * source->columns) : 0;
}

typedef struct {
    const cdrop_kernels *k;
    void *out, *start;
    const void *w;
    cdrop_panels panels, result, dense;
    cdrop_lists lists;
    cdrop_left left;
    cdrop_source source;
    size_t rows, n_out;
    cdrop_activation activation;
} gemm;

static void finish_rows(void *context, size_t p, size_t l0, size_t l1)
{
    const gemm *g = context;
    const size_t first = p * g->k->panel, n = cdrop_min(g->k->panel, g->n_out - first);
    char *rows = cdrop_panel_at(&g->result, g->k, p, l0);
    const size_t pitch = cdrop_panel_pitch(&g->result, p), size = g->k->size;
    if (g->activation != CDROP_IDENTITY)
        g->k->activate(rows, pitch, n, l1 - l0, g->activation);
    for (size_t line = l0; line < l1; line++)
        memcpy((char *)g->out + (line * g->n_out + first) * size, rows + (line - l0) * pitch * size, n * size);
}

static void gemm_job(void *argument, cdrop_team team)
{
    gemm *g = argument;
    size_t from, to;
    cdrop_share(team, g->source.columns, &from, &to);
    cdrop_pack(&g->panels, g->k, g->w, g->n_out, from, to);
    cdrop_share(team, g->rows, &from, &to);
    cdrop_list_rows(g->k, &g->left, &g->lists, &g->dense, &g->source, from, to);
    cdrop_barrier(team);
    cdrop_product_rows(g->k, &g->result, g->start, &g->panels, &g->left, g->rows, team, finish_rows, g);
}

static void take_gemm(gemm *g, cdrop_workspace *space, int with_bias)
{
    g->panels = cdrop_take_panels(space, g->k, g->source.columns, g->n_out);
    g->result = cdrop_take_panels(space, g->k, g->rows, g->n_out);
    g->dense = cdrop_take_panels(space, g->k, g->rows, g->source.columns);
    g->lists = cdrop_take_lists(space, g->k, g->rows, g->source.columns, 1);
    g->start = with_bias ? cdrop_take(space, cdrop_pad(g->n_out), g->k->size) : NULL;
}

cdrop_status cdrop_masked_gemm(cdrop_dtype dtype, void *out, const void *x, const void *w, const void *bias,
                               const uint64_t *mask, size_t rows, size_t n_in, size_t n_out, double scale,
                               cdrop_activation activation, int threads)
{
    const cdrop_kernels *k = cdrop_kernels_of(dtype);
    cdrop_workspace space = CDROP_MEASURE;
    gemm g = {.k = k, .out = out, .w = w, .rows = rows, .n_out = n_out, .activation = activation};
    g.source = (cdrop_source){.data = x,
                              .pitch = n_in,
                              .columns = n_in,
                              .mask = n_in ? mask : NULL,
                              .words = cdrop_words(n_in),
                              .scale = scale,
                              .rule = CDROP_LIVE_NONZERO};
    take_gemm(&g, &space, bias != NULL);
    if (cdrop_open(&space) != CDROP_OK)
        return CDROP_NO_MEMORY;
    take_gemm(&g, &space, bias != NULL);
    if (bias)
        memcpy(g.start, bias, n_out * k->size);
    g.left = (cdrop_left){.lists = &g.lists, .entries = n_in};
    if (cdrop_sampled_density(k, &g.source, &g.lists, rows) > k->dense_above)
        g.left.dense = &g.dense;
    cdrop_parallel(gemm_job, &g, cdrop_useful_threads(threads, (double)rows * (double)n_in * (double)n_out));
    cdrop_release(&space);
    return CDROP_OK;
}
