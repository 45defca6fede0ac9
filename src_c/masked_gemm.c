/* Forward: out = activation((x * mask * scale) w + bias), on live units only. */
#include <string.h>

#include "products.h"

/* Row groups [g0, g1) of one panel. All but the last block of the sum run over all rows, so that a block of weights is
 * read once; the last runs group by group, so that the epilogue finds its rows in the cache. */
static void product_panel(const cdrop_kernels *k, const cdrop_panels *out, const void *start,
                          const cdrop_panels *panels, const cdrop_lists *lists, size_t rows, size_t p, size_t g0,
                          size_t g1, cdrop_epilogue epilogue, void *context)
{
    const size_t last = lists->blocks - 1, out_pitch = cdrop_panel_pitch(out, p), pitch = cdrop_panel_pitch(panels, p);
    const size_t width = cdrop_panel_width(panels, p, k->panel), l1 = cdrop_min(g1 * CDROP_BLOCK, rows);
    const void *panel = cdrop_panel_at(panels, k, p, 0);
    const void *from = start ? (const char *)start + p * k->panel * k->size : NULL;
    const size_t l0 = g0 * CDROP_BLOCK;
    if (last)
        k->product(cdrop_panel_at(out, k, p, l0), out_pitch, from, panel, pitch, width, lists, 0, last, l0, l1, 0);
    for (size_t l = l0; l < l1; l += CDROP_BLOCK) {
        const size_t end = cdrop_min(l + CDROP_BLOCK, l1);
        k->product(cdrop_panel_at(out, k, p, l), out_pitch, from, panel, pitch, width, lists, last, last + 1, l, end,
                   last > 0);
        epilogue(context, p, l, end);
    }
}

void cdrop_product_rows(const cdrop_kernels *k, const cdrop_panels *out, const void *start, const cdrop_panels *panels,
                        const cdrop_lists *lists, size_t rows, cdrop_team team, cdrop_epilogue epilogue, void *context)
{
    const size_t groups = cdrop_blocks(rows);
    size_t item, end;
    cdrop_share(team, panels->panels * groups, &item, &end);
    while (item < end) {
        const size_t p = item / groups, g0 = item % groups, g1 = cdrop_min(groups, g0 + end - item);
        product_panel(k, out, start, panels, lists, rows, p, g0, g1, epilogue, context);
        item += g1 - g0;
    }
}

typedef struct {
    const cdrop_kernels *k;
    void *out, *start;
    const void *w;
    cdrop_panels panels, result;
    cdrop_lists lists;
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
    g->k->compress(&g->lists, &g->source, 0, g->lists.blocks, from, to);
    cdrop_barrier(team);
    cdrop_product_rows(g->k, &g->result, g->start, &g->panels, &g->lists, g->rows, team, finish_rows, g);
}

cdrop_status cdrop_masked_gemm(cdrop_dtype dtype, void *out, const void *x, const void *w, const void *bias,
                               const uint64_t *mask, size_t rows, size_t n_in, size_t n_out, double scale,
                               cdrop_activation activation, int threads)
{
    const cdrop_kernels *k = cdrop_kernels_of(dtype);
    cdrop_workspace space = {0};
    gemm g = {.k = k, .out = out, .w = w, .rows = rows, .n_out = n_out, .activation = activation};
    g.source = (cdrop_source){.data = x,
                              .pitch = n_in,
                              .columns = n_in,
                              .mask = n_in ? mask : NULL,
                              .words = cdrop_words(n_in),
                              .scale = scale,
                              .rule = CDROP_LIVE_NONZERO};
    g.panels = cdrop_take_panels(&space, k, n_in, n_out);
    g.result = cdrop_take_panels(&space, k, rows, n_out);
    g.lists = cdrop_take_lists(&space, k, rows, n_in, 1);
    g.start = cdrop_take(&space, cdrop_pad(n_out), k->size);
    if (space.failed) {
        cdrop_release(&space);
        return CDROP_NO_MEMORY;
    }
    if (bias)
        memcpy(g.start, bias, n_out * k->size);
    cdrop_parallel(gemm_job, &g, threads ? threads : cdrop_get_num_threads());
    cdrop_release(&space);
    return CDROP_OK;
}
