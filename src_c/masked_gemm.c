/* The public forward kernel: out = activation((x * mask * scale) w + bias), on live units only.
 *
 * The caller's matrices are row-major, the products run on panels: weights are packed before and results copied
 * after, both divided among the threads. All memory is one block, whose size a first, measuring pass adds up.
 *
 * One barrier stands in the job: behind it every thread reads the weights and lists that all have prepared. Results
 * need none, because a thread copies the rows that it has computed. */
#include <string.h>

#include "products.h"

typedef struct {
    const cdrop_kernels *k;
    void *out, *start;
    const void *w;
    cdrop_panels panels, result, dense, as_it_stands;
    cdrop_lists lists;
    cdrop_left left;
    cdrop_source source;
    size_t rows, n_out;
    cdrop_activation activation;
} gemm;

/* A panel's rows are complete and still in the cache: activate them and copy them to the caller's rows, without the
 * padding. Threads may copy different panels of one row: the bytes are not the same. */
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
    /* Dense rows without mask and scale are multiplied where they are. */
    if (g->left.dense != &g->as_it_stands)
        cdrop_list_rows(g->k, &g->left, &g->lists, &g->dense, &g->source, from, to);
    /* A product reads the weights and rows that all threads have prepared. */
    cdrop_barrier(team);
    const cdrop_right right = {.panels = &g->panels, .columns = g->n_out};
    cdrop_product_rows(g->k, &g->result, g->start, &right, &g->left, g->rows, team, NULL, finish_rows, g);
}

/* Called twice, to measure and then to take (CDROP_MEASURE), so that the two cannot differ. Room for lists and for a
 * dense copy is taken in both cases: which one is needed shows only in a sample, and the sample is listed. */
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
                              .mask = n_in ? mask : NULL, /* no word to read where there are no units */
                              .words = cdrop_words(n_in),
                              .scale = scale,
                              .rule = CDROP_LIVE_NONZERO};
    take_gemm(&g, &space, bias != NULL);
    if (cdrop_open(&space) != CDROP_OK)
        return CDROP_NO_MEMORY;
    take_gemm(&g, &space, bias != NULL);
    g.as_it_stands = cdrop_view_rows(k, x, n_in);
    if (bias)
        memcpy(g.start, bias, n_out * k->size);
    g.left = (cdrop_left){.lists = &g.lists, .entries = n_in};
    /* Here no earlier step has counted the live entries, so a few rows are sampled. Both ways give the same bits. */
    if (cdrop_sampled_density(k, &g.source, &g.lists, rows) > k->dense_above)
        g.left.dense = cdrop_as_it_stands(&g.source) ? &g.as_it_stands : &g.dense;
    cdrop_parallel(gemm_job, &g, cdrop_useful_threads(threads, (double)rows * (double)n_in * (double)n_out));
    cdrop_release(&space);
    return CDROP_OK;
}
