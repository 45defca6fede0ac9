/* What the regression guard counts: every kernel of one SIMD path once, then whole training steps, on one thread and on
 * fixed data. Callgrind counts the instructions inside `measured` and writes them down each time it returns; the names
 * printed here stand in the same order. */
#include <stdio.h>
#include <stdlib.h>

#include "products.h"

enum { LINES = 128, UNITS = 256, LAYERS = 3, CLASSES = 10, RULES = 6 };

typedef struct {
    const cdrop_kernels *k;
    cdrop_workspace space;
    cdrop_panels weight, state1, state2, out, dense, transposed;
    cdrop_lists lists, columns;
    cdrop_source source;
    uint64_t *mask;
    void *x, *row;
    double *squares;
    cdrop_update update;
    cdrop_network *network;
    cdrop_batch batch;
    cdrop_optimizer optimizer;
    uint64_t keep;
} bench;

typedef void (*workload)(bench *);

/* Named in benchmarks/guard/__main__.py. Called through a pointer that the compiler does not see through: it would call
 * a copy of another name. */
void measured(workload run, bench *b);
void measured(workload run, bench *b)
{
    run(b);
    __asm__ volatile("" ::: "memory"); /* else the call becomes a jump, and returns from here too early */
}
static void (*volatile const count_in)(workload run, bench *b) = measured;

static uint64_t state = 1;

static uint64_t random_bits(void)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return state >> 33;
}

static void fill(void *p, size_t n, unsigned percent)
{
    for (size_t i = 0; i < n; i++)
        ((float *)p)[i] = random_bits() % 100 < percent ? (float)(random_bits() % 2000) * 1e-3f - 1 : 0;
}

static void draw_mask(bench *b) { cdrop_bernoulli_mask(b->mask, 0, LINES, UNITS, b->keep, 1, 0, CDROP_FOR_MASKS, 0); }

static void compress(bench *b) { b->k->compress(&b->lists, &b->source, 0, b->lists.blocks, 0, LINES); }

static void densify(bench *b)
{
    const size_t per_panel = b->k->panel / CDROP_BLOCK;
    for (size_t p = 0; p < b->dense.panels; p++)
        b->k->densify(cdrop_panel_at(&b->dense, b->k, p, 0), cdrop_panel_pitch(&b->dense, p), &b->source, p * per_panel,
                      (p + 1) * per_panel, 0, LINES);
}

static void scatter(bench *b)
{
    for (size_t rows = 0; rows < LINES / CDROP_BLOCK; rows++)
        b->k->scatter(&b->columns, &b->lists, 0, b->lists.blocks, rows, LINES);
}

static void product(bench *b)
{
    b->k->product(b->out.data, b->out.pitch, NULL, b->weight.data, b->weight.pitch, b->k->panel, &b->lists, 0,
                  b->lists.blocks, 0, LINES, 0, NULL);
}

static void product_dense(bench *b)
{
    b->k->product_dense(b->out.data, b->out.pitch, NULL, b->weight.data, b->weight.pitch, b->k->panel, b->dense.data,
                        b->dense.pitch, 1, CDROP_BLOCK, LINES, 0);
}

static void update(bench *b)
{
    b->k->update(b->weight.data, b->out.data, b->state1.data, b->state2.data, LINES * b->k->panel, &b->update);
}

static void gate(bench *b)
{
    const cdrop_gate gate = {.live = b->mask, .words = b->source.words, .scale = 2};
    b->k->gate(b->out.data, b->out.pitch, NULL, 0, b->k->panel, LINES, &gate, CDROP_RELU);
}

static void noise(bench *b)
{
    const uint64_t state[32] = {1, 2, 3};
    b->k->noise_block(b->out.data, b->out.pitch, b->k->panel, LINES, CDROP_GAUSSIAN, 1, state);
}

static void pack_kept(bench *b)
{
    b->k->pack_kept(b->out.data, b->out.pitch, b->weight.data, b->weight.pitch, b->mask[0], b->mask + 1,
                    b->k->panel / CDROP_BLOCK);
}

static void unpack_kept(bench *b)
{
    b->k->unpack_kept(b->out.data, b->out.pitch, b->k->panel, CDROP_BLOCK, b->weight.data, b->weight.pitch, b->mask[0],
                      b->mask + 1);
}

static void copy_columns(bench *b)
{
    b->k->copy_columns(b->out.data, b->out.pitch, b->weight.data, b->weight.pitch, b->k->panel / 2 + 1, CDROP_BLOCK);
}

static void activate(bench *b) { b->k->activate(b->out.data, b->out.pitch, b->k->panel, LINES, CDROP_TANH); }

static void column_sums(bench *b) { b->k->column_sums(b->row, b->out.data, b->out.pitch, b->k->panel, LINES); }

static void sum_squares(bench *b) { b->squares[0] = b->k->sum_squares(b->out.data, b->out.pitch, CDROP_BLOCK, LINES); }

static void column_squares(bench *b)
{
    b->k->column_squares(b->squares, b->out.data, b->out.pitch, b->k->panel, LINES);
}

static void scale_columns(bench *b) { b->k->scale_columns(b->out.data, b->out.pitch, b->row, b->k->panel, LINES); }

static void transpose(bench *b)
{
    b->k->transpose(b->transposed.data, b->transposed.pitch, b->weight.data, b->weight.pitch, CDROP_BLOCK, CDROP_BLOCK);
}

static void softmax_row(bench *b)
{
    for (size_t line = 0; line < LINES; line++)
        b->k->softmax_row(b->row, cdrop_panel_at(&b->out, b->k, 0, line), CLASSES, 1, 0.5);
}

static void softmax_rows(bench *b)
{
    int64_t labels[LINES];
    double factors[LINES], losses[LINES];
    for (size_t line = 0; line < LINES; line++) {
        labels[line] = 1;
        factors[line] = 0.5;
    }
    b->k->softmax_rows(b->transposed.data, CLASSES, b->out.data, b->out.pitch, CLASSES, LINES, labels, factors, losses);
}

static void steps(bench *b)
{
    double loss;
    for (uint64_t step = 1; step <= 3; step++)
        if (cdrop_network_step(b->network, &b->batch, &b->optimizer, step, 1, &loss) != CDROP_OK)
            exit(1);
}

static void count(const char *name, workload run, bench *b)
{
    count_in(run, b);
    printf("%s\n", name);
}

static void take(bench *b)
{
    cdrop_workspace *w = &b->space;
    b->weight = cdrop_take_panels(w, b->k, UNITS, UNITS);
    b->state1 = cdrop_take_panels(w, b->k, UNITS, UNITS);
    b->state2 = cdrop_take_panels(w, b->k, UNITS, UNITS);
    b->out = cdrop_take_panels(w, b->k, LINES, UNITS);
    b->dense = cdrop_take_panels(w, b->k, LINES, UNITS);
    b->transposed = cdrop_take_panels(w, b->k, UNITS, UNITS);
    b->lists = cdrop_take_lists(w, b->k, LINES, UNITS, 0);
    b->columns = cdrop_take_lists(w, b->k, UNITS, LINES, 0);
    b->mask = cdrop_take(w, LINES * cdrop_words(UNITS), sizeof *b->mask);
    b->x = cdrop_take(w, LINES * UNITS, b->k->size);
    b->row = cdrop_take(w, UNITS, b->k->size);
    b->squares = cdrop_take(w, UNITS, sizeof *b->squares);
    if (w->failed)
        exit(1);
}

static void count_kernels(bench *b)
{
    static const char *const rules[RULES] = {"sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"};
    char name[32];
    b->source = (cdrop_source){.data = b->x,
                               .pitch = UNITS,
                               .columns = UNITS,
                               .words = cdrop_words(UNITS),
                               .scale = 2,
                               .rule = CDROP_LIVE_POSITIVE};
    fill(b->x, LINES * UNITS, 50);
    fill(b->weight.data, UNITS * UNITS, 100);
    b->keep = CDROP_KEEP_ALL / 2;
    count("mask, keep 0.5", draw_mask, b);
    b->keep = CDROP_KEEP_ALL / 10 * 7;
    count("mask, keep 0.7", draw_mask, b);
    count("compress", compress, b);
    count("densify", densify, b);
    count("scatter", scatter, b);
    count("product", product, b);
    count("product_dense", product_dense, b);
    count("gate", gate, b);
    count("noise, gaussian", noise, b);
    count("pack_kept", pack_kept, b);
    count("unpack_kept", unpack_kept, b);
    count("copy_columns", copy_columns, b);
    count("activate, tanh", activate, b);
    count("column_sums", column_sums, b);
    count("sum_squares", sum_squares, b);
    count("column_squares", column_squares, b);
    count("scale_columns", scale_columns, b);
    count("transpose", transpose, b);
    count("softmax_row", softmax_row, b);
    count("softmax_rows", softmax_rows, b);
    for (int rule = 0; rule < RULES; rule++) {
        b->update = (cdrop_update){
            .rule = (cdrop_rule)rule, .rate = 1e-3, .l2 = 1e-3, .a = 0.9, .b = 0.999, .epsilon = 1e-8, .second = 1};
        snprintf(name, sizeof name, "update, %s", rules[rule]);
        count(name, update, b);
    }
}

static void count_steps(bench *b, const char *name, uint64_t keep, cdrop_kind kind)
{
    const size_t units[LAYERS + 1] = {UNITS, 128, 128, CLASSES};
    const uint64_t keeps[LAYERS] = {CDROP_KEEP_ALL, keep, keep};
    const cdrop_kind kinds[LAYERS] = {kind, kind, kind};
    const cdrop_design design = {.dtype = CDROP_FLOAT32,
                                 .layers = LAYERS,
                                 .units = units,
                                 .keep = keeps,
                                 .kinds = kinds,
                                 .scale_in_training = 1,
                                 .activation = CDROP_RELU,
                                 .loss = CDROP_SOFTMAX_CROSS_ENTROPY,
                                 .seed = 1};
    static float weight[UNITS * 128], bias[128];
    static int64_t labels[LINES];
    if (cdrop_network_create(&b->network, &design) != CDROP_OK)
        exit(1);
    for (size_t l = 0; l < LAYERS; l++) {
        fill(weight, units[l] * units[l + 1], 100);
        cdrop_network_set(b->network, l, CDROP_WEIGHT, weight, bias);
    }
    fill(b->x, LINES * UNITS, 20);
    b->batch = (cdrop_batch){.x = b->x, .n = LINES, .truth.labels = labels};
    b->optimizer =
        (cdrop_optimizer){.rule = CDROP_RMSPROP, .learning_rate = 1e-3, .l2 = 1e-3, .a = 0.9, .epsilon = 1e-8};
    steps(b); /* takes the memory */
    count(name, steps, b);
    cdrop_network_free(b->network);
}

int main(int arguments, char **argument)
{
    static bench b;
    if (arguments != 2 || cdrop_select_simd(argument[1]) != CDROP_OK) {
        fprintf(stderr, "usage: kernels PATH, a SIMD path of this machine\n");
        return 2;
    }
    b.k = cdrop_kernels_of(CDROP_FLOAT32);
    take(&b);
    count_kernels(&b);
    count_steps(&b, "steps with dropout", CDROP_KEEP_ALL / 2, CDROP_BERNOULLI);
    count_steps(&b, "steps without dropout", CDROP_KEEP_ALL, CDROP_BERNOULLI);
    count_steps(&b, "steps with Gaussian noise", CDROP_KEEP_ALL / 2, CDROP_GAUSSIAN);
    count_steps(&b, "steps with shared masks", CDROP_KEEP_ALL / 2, CDROP_SHARED);
    cdrop_release(&b.space);
    return 0;
}
