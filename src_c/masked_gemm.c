/* Forward: out = activation((x * mask * scale) w + bias), on live units only. */
#include <string.h>

#include "products.h"

enum {
    FEW_LINES = 16, /* fewer do not touch most of a block of weights */
    /* Of 64 rows and of 64 summed entries: the sums of as many rows and the weights of as many entries stay in a
     * second-level cache together, the left side's entries in a third-level cache from panel to panel. */
    MANY_GROUPS = 4,
    MANY_BLOCKS = 16,
};

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

/* A product, and the blocks [b0, b1) of its sums that are worked on. */
typedef struct {
    const cdrop_panels *out;
    size_t rows, blocks, b0, b1;
    cdrop_epilogue epilogue;
    void *context;
} work;

static size_t sum_blocks(const cdrop_left *left) { return left->entries ? cdrop_blocks(left->entries) : 1; }

static int next_blocks(work *w)
{
    w->b0 = w->b1;
    w->b1 = cdrop_min(w->b0 + MANY_BLOCKS, w->blocks);
    return w->b0 < w->blocks;
}

/* Row groups [g0, g1) of panel p. Where the sums end, their last block runs group by group, so that the epilogue finds its
 * rows in the cache; all others run over all these rows, so that a block of weights is read once. */
static void run_few_groups(const panel_product *q, const work *w, size_t p, size_t g0, size_t g1)
{
    const int last = w->b1 == w->blocks;
    const size_t pitch = cdrop_panel_pitch(w->out, p), common = w->b1 - (size_t)last;
    const size_t l0 = g0 * CDROP_BLOCK, l1 = cdrop_min(g1 * CDROP_BLOCK, w->rows);
    run_blocks(q, cdrop_panel_at(w->out, q->k, p, l0), pitch, w->b0, common, l0, l1);
    for (size_t l = l0; last && l < l1; l += CDROP_BLOCK) {
        const size_t end = cdrop_min(l + CDROP_BLOCK, l1);
        run_blocks(q, cdrop_panel_at(w->out, q->k, p, l), pitch, common, w->b1, l, end);
        w->epilogue(w->context, p, l, end);
    }
}

static void run_groups(const panel_product *q, const work *w, size_t p, size_t g0, size_t g1)
{
    for (size_t g = g0; g < g1; g += MANY_GROUPS)
        run_few_groups(q, w, p, g, cdrop_min(g + MANY_GROUPS, g1));
}

void cdrop_product_rows(const cdrop_kernels *k, const cdrop_panels *out, const void *start, const cdrop_panels *panels,
                        const cdrop_left *left, size_t rows, cdrop_team team, cdrop_epilogue epilogue, void *context)
{
    const size_t groups = cdrop_blocks(rows);
    work w = {.out = out, .rows = rows, .blocks = sum_blocks(left), .epilogue = epilogue, .context = context};
    size_t first, end, n;
    cdrop_share(team, panels->panels * groups, &first, &end);
    while (next_blocks(&w))
        for (size_t item = first; item < end; item += n) {
            const size_t p = item / groups, g = item % groups;
            const panel_product q = product_of(k, start, panels, left, p);
            n = cdrop_min(groups - g, end - item);
            run_groups(&q, &w, p, g, g + n);
        }
}

void cdrop_product_groups(const cdrop_kernels *k, const cdrop_panels *out, const void *start,
                          const cdrop_panels *panels, const cdrop_left *left, size_t from, size_t to,
                          cdrop_epilogue epilogue, void *context)
{
    work w = {.out = out, .rows = to, .blocks = sum_blocks(left), .epilogue = epilogue, .context = context};
    while (next_blocks(&w))
        for (size_t p = 0; p < panels->panels; p++) {
            const panel_product q = product_of(k, start, panels, left, p);
            run_groups(&q, &w, p, from / CDROP_BLOCK, cdrop_blocks(to));
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
    cdrop_panels panels, result, dense, as_it_stands;
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
    if (g->left.dense != &g->as_it_stands)
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
    g.as_it_stands = cdrop_view_rows(k, x, n_in);
    if (bias)
        memcpy(g.start, bias, n_out * k->size);
    g.left = (cdrop_left){.lists = &g.lists, .entries = n_in};
    if (cdrop_sampled_density(k, &g.source, &g.lists, rows) > k->dense_above)
        g.left.dense = cdrop_as_it_stands(&g.source) ? &g.as_it_stands : &g.dense;
    cdrop_parallel(gemm_job, &g, cdrop_useful_threads(threads, (double)rows * (double)n_in * (double)n_out));
    cdrop_release(&space);
    return CDROP_OK;
}
