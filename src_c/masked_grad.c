/* The public gradients of the masked product by weight, bias and input, on live units only. Each of the three may be
 * left out; without dinput or dweight, what only that one needs is neither taken nor prepared.
 *
 * They are the products of a training step, on copies of the caller's row-major matrices in panels: the same bits, for
 * the price of packing. One job does all: pack and list; a barrier; lists by unit; a barrier; the products, which read
 * what is prepared and each write their own result, so no barrier is needed between them. */
#include <string.h>

#include "products.h"

typedef struct {
    const cdrop_kernels *k;
    void *dinput, *dweight, *dbias;
    const void *dout, *x, *w;
    uint64_t *kept; /* the mask, or all ones */
    size_t rows, n_in, n_out, words;
    double scale;
    cdrop_activation activation;
    cdrop_panels delta, weight, back;
    cdrop_panels dense; /* the inputs, where most are live */
    cdrop_lists inputs, columns, outputs;
    cdrop_left by_unit, by_row; /* left sides of dweight and dinput */
    cdrop_source input_source, output_source;
    char *scratch, *bias; /* the first a piece for each thread */
} gradients;

/* Where the training step updates weights with the gradient of 64 units, this kernel hands it to the caller. */
static void copy_dweight(void *context, size_t p, size_t u0, size_t u1, void *gradient)
{
    const gradients *g = context;
    const size_t first = p * g->k->panel, n = cdrop_min(g->k->panel, g->n_out - first), size = g->k->size;
    const size_t width = cdrop_panel_width(&g->delta, p, g->k->panel);
    for (size_t u = u0; u < u1; u++)
        memcpy((char *)g->dweight + (u * g->n_out + first) * size, (const char *)gradient + (u - u0) * width * size,
               n * size);
}

/* The gradient by the activations becomes the gradient by their input: mask, scale and derivative, in the cache. The
 * derivative is found from x, what the activation gave. Unlike a step's, the gate takes the mask alone, not which units
 * were live: with the ReLU, derivative and mask come from different arrays. */
static void copy_dinput(void *context, size_t p, size_t l0, size_t l1)
{
    const gradients *g = context;
    const size_t first = p * g->k->panel, n = cdrop_min(g->k->panel, g->n_in - first), size = g->k->size;
    const size_t pitch = cdrop_panel_pitch(&g->back, p);
    char *rows = cdrop_panel_at(&g->back, g->k, p, l0);
    const cdrop_gate gate = {.live = g->kept + l0 * g->words + first / 64, .words = g->words, .scale = g->scale};
    g->k->gate(rows, pitch, (const char *)g->x + (l0 * g->n_in + first) * size, g->n_in, n, l1 - l0, &gate,
               g->activation);
    for (size_t line = l0; line < l1; line++)
        memcpy((char *)g->dinput + (line * g->n_in + first) * size, rows + (line - l0) * pitch * size, n * size);
}

/* The inputs by row, then by unit; the gradient by output in panels and in lists; the weights in panels. Rows, lines of
 * weights and blocks of units are divided among the threads, each by itself. */
static void prepare(gradients *g, cdrop_team team)
{
    size_t from, to;
    cdrop_share(team, g->rows, &from, &to);
    cdrop_pack(&g->delta, g->k, g->dout, g->n_out, from, to);
    if (g->dweight)
        cdrop_list_rows(g->k, &g->by_unit, &g->inputs, &g->dense, &g->input_source, from, to);
    if (g->dinput && !g->by_row.dense)
        g->k->compress(&g->outputs, &g->output_source, 0, g->outputs.blocks, from, to);
    cdrop_share(team, g->dinput ? g->n_in : 0, &from, &to);
    cdrop_pack(&g->weight, g->k, g->w, g->n_out, from, to);
    /* From here on threads read what others have packed and listed. */
    cdrop_barrier(team);
    if (g->dweight && !g->by_unit.dense) {
        cdrop_share(team, cdrop_blocks(g->n_in), &from, &to);
        /* Each thread fills the lists of its units, block of rows by block of rows: in ascending order, as
         * chains need. */
        for (size_t rows = 0; rows < cdrop_blocks(g->rows); rows++)
            g->k->scatter(&g->columns, &g->inputs, from, to, rows, g->rows);
    }
    /* A product may read the lists of any unit. */
    cdrop_barrier(team);
}

static void gradients_job(void *argument, cdrop_team team)
{
    gradients *g = argument;
    const cdrop_kernels *k = g->k;
    prepare(g, team);
    /* On one thread: rows x n_out additions are little next to rows x n_in x n_out multiply-adds. */
    if (g->dbias && team.index == 0)
        for (size_t p = 0; p < g->delta.panels; p++)
            cdrop_bias_gradient(k, g->bias + p * k->panel * k->size, &g->delta, p, g->rows);
    const cdrop_gradient_sink sink = {.take = copy_dweight, .context = g};
    char *scratch = g->scratch + (size_t)team.index * CDROP_BLOCK * k->panel * k->size;
    const cdrop_right right = {.panels = &g->weight, .columns = g->n_in, .scratch = scratch};
    if (g->dweight)
        cdrop_product_units(k, &g->by_unit, &g->delta, g->n_in, g->rows, scratch, team, NULL, &sink);
    if (g->dinput)
        cdrop_product_rows(k, &g->back, NULL, &right, &g->by_row, g->rows, team, NULL, copy_dinput, g);
}

/* Called twice, to measure and then to take. Lists and dense copies are both taken, as in take_gemm of
 * masked_gemm.c. */
static void take_memory(gradients *g, cdrop_workspace *space, size_t threads)
{
    const cdrop_kernels *k = g->k;
    g->delta = cdrop_take_panels(space, k, g->rows, g->n_out);
    g->bias = cdrop_take(space, cdrop_pad(g->n_out), k->size);
    g->kept = cdrop_take(space, g->rows * g->words, sizeof *g->kept);
    g->scratch = cdrop_take(space, threads * CDROP_BLOCK * k->panel, k->size);
    if (g->dweight) {
        g->dense = cdrop_take_panels(space, k, g->rows, g->n_in);
        g->inputs = cdrop_take_lists(space, k, g->rows, g->n_in, 1);
        g->columns = cdrop_take_lists(space, k, g->n_in, g->rows, 0);
    }
    if (g->dinput) {
        g->weight = cdrop_take_panels(space, k, g->n_in, g->n_out);
        g->outputs = cdrop_take_lists(space, k, g->rows, g->n_out, 1);
        g->back = cdrop_take_panels(space, k, g->rows, g->n_in);
    }
}

/* Lists or dense, for each of the two products, from a sample of its left side. x is the output of the activation
 * below: where that is the ReLU, an entry that is not positive is dead. The gradient by output lies in panels
 * already, so its dense form costs no copy. */
static void choose_sides(gradients *g)
{
    const cdrop_kernels *k = g->k;
    g->input_source = (cdrop_source){.data = g->x,
                                     .pitch = g->n_in,
                                     .columns = g->n_in,
                                     .mask = g->n_in ? g->kept : NULL, /* no word to read where there are no units */
                                     .words = g->words,
                                     .scale = g->scale,
                                     .rule = g->activation == CDROP_RELU ? CDROP_LIVE_POSITIVE : CDROP_LIVE_NONZERO};
    g->output_source =
        (cdrop_source){.data = g->dout, .pitch = g->n_out, .columns = g->n_out, .scale = 1, .rule = CDROP_LIVE_NONZERO};
    g->by_unit = (cdrop_left){.lists = &g->columns, .entries = g->rows};
    g->by_row = (cdrop_left){.lists = &g->outputs, .entries = g->n_out};
    if (g->dweight && cdrop_sampled_density(k, &g->input_source, &g->inputs, g->rows) > k->dense_above)
        g->by_unit.dense = &g->dense;
    if (g->dinput && cdrop_sampled_density(k, &g->output_source, &g->outputs, g->rows) > k->dense_above)
        g->by_row.dense = &g->delta;
}

cdrop_status cdrop_masked_gradients(cdrop_dtype dtype, void *dinput, void *dweight, void *dbias, const void *dout,
                                    const void *x, const void *w, const uint64_t *mask, size_t rows, size_t n_in,
                                    size_t n_out, double scale, cdrop_activation activation, int threads)
{
    cdrop_workspace space = CDROP_MEASURE;
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
    threads = cdrop_useful_threads(threads, (double)rows * (double)n_in * (double)n_out);
    take_memory(&g, &space, (size_t)threads);
    if (cdrop_open(&space) != CDROP_OK)
        return CDROP_NO_MEMORY;
    take_memory(&g, &space, (size_t)threads);
    /* The derivative of the activation needs a mask in any case: without one, all units are kept. */
    if (mask)
        memcpy(g.kept, mask, rows * g.words * sizeof *mask);
    else
        cdrop_bernoulli_mask(g.kept, 0, rows, n_in, CDROP_KEEP_ALL, 0, 0, CDROP_FOR_MASKS, 0);
    choose_sides(&g);
    cdrop_parallel(gradients_job, &g, threads);
    if (dbias)
        memcpy(dbias, g.bias, n_out * g.k->size);
    cdrop_release(&space);
    return CDROP_OK;
}
