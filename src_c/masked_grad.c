/* Gradients of the masked product by weight, bias and input, on live units only. */
#include <string.h>

#include "products.h"

void cdrop_product_units(const cdrop_kernels *k, const cdrop_lists *columns, const cdrop_panels *delta, size_t units,
                         size_t rows, void *scratch, cdrop_team team, cdrop_gradient_sink sink, void *context)
{
    const size_t groups = cdrop_blocks(units), blocks = rows ? cdrop_blocks(rows) : 1;
    size_t item, end;
    cdrop_share(team, delta->panels * groups, &item, &end);
    for (; item < end; item++) {
        const size_t p = item / groups, u0 = item % groups * CDROP_BLOCK, u1 = cdrop_min(u0 + CDROP_BLOCK, units);
        const size_t width = cdrop_panel_width(delta, p, k->panel);
        k->product(scratch, width, NULL, cdrop_panel_at(delta, k, p, 0), cdrop_panel_pitch(delta, p), width, columns, 0,
                   blocks, u0, u1, 0);
        sink(context, p, u0, u1, scratch);
    }
}

void cdrop_bias_gradient(const cdrop_kernels *k, void *out, const cdrop_panels *delta, size_t p, size_t rows)
{
    k->column_sums(out, cdrop_panel_at(delta, k, p, 0), cdrop_panel_pitch(delta, p),
                   cdrop_panel_width(delta, p, k->panel), rows);
}

typedef struct {
    const cdrop_kernels *k;
    void *dinput, *dweight, *dbias;
    const void *dout, *x, *w;
    uint64_t *kept; /* the mask, or all ones */
    size_t rows, n_in, n_out, words;
    double scale;
    cdrop_activation activation;
    cdrop_panels delta, weight, transposed, back;
    cdrop_lists inputs, columns, outputs;
    char *scratch, *bias; /* the first a piece for each thread */
} gradients;

static void copy_dweight(void *context, size_t p, size_t u0, size_t u1, const void *gradient)
{
    const gradients *g = context;
    const size_t first = p * g->k->panel, n = cdrop_min(g->k->panel, g->n_out - first), size = g->k->size;
    const size_t width = cdrop_panel_width(&g->delta, p, g->k->panel);
    for (size_t u = u0; u < u1; u++)
        memcpy((char *)g->dweight + (u * g->n_out + first) * size, (const char *)gradient + (u - u0) * width * size,
               n * size);
}

static void copy_dinput(void *context, size_t p, size_t l0, size_t l1)
{
    const gradients *g = context;
    const size_t first = p * g->k->panel, n = cdrop_min(g->k->panel, g->n_in - first), size = g->k->size;
    const size_t pitch = cdrop_panel_pitch(&g->back, p);
    char *rows = cdrop_panel_at(&g->back, g->k, p, l0);
    g->k->gate(rows, pitch, (const char *)g->x + (l0 * g->n_in + first) * size, g->n_in, n, l1 - l0,
               g->kept + l0 * g->words + first / 64, g->words, g->scale, g->activation);
    for (size_t line = l0; line < l1; line++)
        memcpy((char *)g->dinput + (line * g->n_in + first) * size, rows + (line - l0) * pitch * size, n * size);
}

/* Lists of the inputs by row, then by unit; the gradient by output in panels and in lists; the weights transposed. */
static void prepare(gradients *g, cdrop_team team)
{
    const cdrop_source inputs = {.data = g->x,
                                 .pitch = g->n_in,
                                 .columns = g->n_in,
                                 .mask = g->kept,
                                 .words = g->words,
                                 .scale = g->scale,
                                 .rule = g->activation == CDROP_RELU ? CDROP_LIVE_POSITIVE : CDROP_LIVE_NONZERO};
    const cdrop_source outputs = {
        .data = g->dout, .pitch = g->n_out, .columns = g->n_out, .scale = 1, .rule = CDROP_LIVE_NONZERO};
    size_t from, to;
    cdrop_share(team, g->rows, &from, &to);
    cdrop_pack(&g->delta, g->k, g->dout, g->n_out, from, to);
    if (g->dweight)
        g->k->compress(&g->inputs, &inputs, 0, g->inputs.blocks, from, to);
    if (g->dinput)
        g->k->compress(&g->outputs, &outputs, 0, g->outputs.blocks, from, to);
    cdrop_share(team, g->dinput ? g->n_in : 0, &from, &to);
    cdrop_pack(&g->weight, g->k, g->w, g->n_out, from, to);
    cdrop_barrier(team);
    if (g->dinput) {
        cdrop_share(team, cdrop_blocks(g->n_out), &from, &to);
        cdrop_transpose_panels(&g->transposed, &g->weight, g->k, g->n_in, g->n_out, from, to);
    }
    if (g->dweight) {
        cdrop_share(team, cdrop_blocks(g->n_in), &from, &to);
        for (size_t rows = 0; rows < cdrop_blocks(g->rows); rows++)
            g->k->scatter(&g->columns, &g->inputs, from, to, rows, g->rows);
    }
    cdrop_barrier(team);
}

static void gradients_job(void *argument, cdrop_team team)
{
    gradients *g = argument;
    const cdrop_kernels *k = g->k;
    prepare(g, team);
    if (g->dbias && team.index == 0)
        for (size_t p = 0; p < g->delta.panels; p++)
            cdrop_bias_gradient(k, g->bias + p * k->panel * k->size, &g->delta, p, g->rows);
    if (g->dweight)
        cdrop_product_units(k, &g->columns, &g->delta, g->n_in, g->rows,
                            g->scratch + (size_t)team.index * CDROP_BLOCK * k->panel * k->size, team, copy_dweight, g);
    if (g->dinput)
        cdrop_product_rows(k, &g->back, NULL, &g->transposed, &g->outputs, g->rows, team, copy_dinput, g);
}

static void take_memory(gradients *g, cdrop_workspace *space, size_t threads)
{
    const cdrop_kernels *k = g->k;
    g->delta = cdrop_take_panels(space, k, g->rows, g->n_out);
    g->bias = cdrop_take(space, cdrop_pad(g->n_out), k->size);
    g->kept = cdrop_take(space, g->rows * g->words, sizeof *g->kept);
    if (g->dweight) {
        g->inputs = cdrop_take_lists(space, k, g->rows, g->n_in, 1);
        g->columns = cdrop_take_lists(space, k, g->n_in, g->rows, 0);
        g->scratch = cdrop_take(space, threads * CDROP_BLOCK * k->panel, k->size);
    }
    if (g->dinput) {
        g->weight = cdrop_take_panels(space, k, g->n_in, g->n_out);
        g->transposed = cdrop_take_panels(space, k, g->n_out, g->n_in);
        g->outputs = cdrop_take_lists(space, k, g->rows, g->n_out, 1);
        g->back = cdrop_take_panels(space, k, g->rows, g->n_in);
    }
}

cdrop_status cdrop_masked_gradients(cdrop_dtype dtype, void *dinput, void *dweight, void *dbias, const void *dout,
                                    const void *x, const void *w, const uint64_t *mask, size_t rows, size_t n_in,
                                    size_t n_out, double scale, cdrop_activation activation, int threads)
{
    cdrop_workspace space = {0};
    gradients g = {.k = cdrop_kernels_of(dtype),
                   .dinput = dinput,
                   .dweight = dweight,
                   .dbias = dbias,
                   .dout = dout,
                   .x = x,
                   .w = w,
                   .rows = rows,
                   .n_in = n_in,
                   .n_out = n_out,
                   .words = cdrop_words(n_in),
                   .scale = scale,
                   .activation = activation};
    threads = threads ? threads : cdrop_get_num_threads();
    take_memory(&g, &space, (size_t)threads);
    if (space.failed) {
        cdrop_release(&space);
        return CDROP_NO_MEMORY;
    }
    if (mask)
        memcpy(g.kept, mask, rows * g.words * sizeof *mask);
    else
        cdrop_bernoulli_mask(g.kept, 0, rows, n_in, CDROP_KEEP_ALL, 0, 0, 0);
    cdrop_parallel(gradients_job, &g, threads);
    if (dbias)
        memcpy(dbias, g.bias, n_out * g.k->size);
    cdrop_release(&space);
    return CDROP_OK;
}
