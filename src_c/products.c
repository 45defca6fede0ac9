/* The machinery of the masked products: which thread computes which part, and in which order blocks pass through the
 * caches.
 *
 * It is apart from masked_gemm.c and masked_grad.c because the training step runs the same products on its own
 * memory: one implementation, so both give the same bits. The order of work is free to follow the caches: each
 * output element is one ascending chain of fused multiply-adds, stored after a block and resumed from there, so no
 * block size and no division among threads changes a bit.
 *
 * Two rules make that hold. All blocks of an output element run on one thread, in ascending order. And two threads
 * never write the same line of the same panel, so there is nothing to lock; the caller's barrier publishes the
 * result. */
#include "products.h"

enum {
    /* Fewer lines leave most of the next block of weights untouched, and fetching it would waste bandwidth: with a
     * quarter of the entries live, 16 lines read a given line of weights with a probability of 1 - 0.75^16 = 0.99. */
    FEW_LINES = 16,
    /* Groups of 64 rows and blocks of 64 summed entries. A panel line is 512 bytes at most (8 registers of 16
     * floats), so the sums of 4 x 64 rows are 128 KiB and the weights of 16 x 64 entries 512 KiB: together they fit
     * a second-level cache of 1 MiB. The entries of the left side stay in the third-level cache from panel to panel.
     * Within that, one block of one panel (32 KiB) is what a kernel call keeps in L1 while 256 rows run over it. */
    MANY_GROUPS = 4,
    MANY_BLOCKS = 16,
    CLAIMS = 4, /* of a thread in a product, at least, where there are rows enough */
};

/* What all blocks of one panel's product have in common. `with_background` is a row of sums that stands in for
 * `start`; `start` may point into the same struct, so a copy of it would point into the original. */
typedef struct {
    const cdrop_kernels *k;
    const cdrop_left *left;
    const cdrop_right *right;
    size_t p, columns, width; /* width: columns, padded */
    const char *start;        /* of this panel, or NULL */
    char with_background[CDROP_MOST_PANEL];
} panel_product;

/* CDROP_BLOCK lines of the panel, and the memory of the next ones. */
typedef struct {
    size_t b;
    const char *data;
    size_t pitch;
    cdrop_ahead next;
} panel_block;

static panel_product product_of(const cdrop_kernels *k, const void *start, const cdrop_right *right,
                                const cdrop_left *left, size_t p)
{
    const size_t first = p * k->panel, columns = cdrop_min(k->panel, right->columns - first);
    return (panel_product){.k = k,
                           .left = left,
                           .right = right,
                           .p = p,
                           .columns = columns,
                           .width = cdrop_pad(columns),
                           .start = start ? (const char *)start + first * k->size : NULL};
}

/* The background row reads all lines of the panel: just before the rows do, so that memory is read once. Threads
 * that share a panel repeat it instead of waiting for each other. They get the same bits, because the row is one
 * ascending chain per column like any other. Each row's chain then continues from it, so the background comes first
 * in every sum. */
static void add_background_row(panel_product *q)
{
    const cdrop_lists *row = q->left->background;
    const cdrop_panels *m = q->right->panels;
    if (!row)
        return;
    q->k->product(q->with_background, 0, q->start, cdrop_panel_at(m, q->k, q->p, 0), cdrop_panel_pitch(m, q->p),
                  q->width, row, 0, row->blocks, 0, 1, 0, NULL);
    q->start = q->with_background;
}

/* The block of the transpose comes from lines of the matrix, of which the panel may be two blocks wide. Line j of
 * the result is entry b * CDROP_BLOCK + j, a column of the matrix; its columns are lines of the matrix. The scratch
 * has 64 lines of a panel, 32 KiB at most: what is transposed is used at once, from the caches next to the core, and
 * is transposed again for the next 256 rows. Whole vector tiles are read and written: matrices in panels have lines
 * and columns padded to CDROP_LANES, and what the padding leaves in scratch reaches only the padding of the outputs. */
static void transpose_block(const panel_product *q, size_t b)
{
    const cdrop_kernels *k = q->k;
    const size_t per_panel = k->panel / CDROP_BLOCK;
    for (size_t i = 0; i < cdrop_blocks(q->columns); i++) {
        const cdrop_tile from = cdrop_tile_at(q->right->panels, k, q->p * per_panel + i, b);
        k->transpose(q->right->scratch + i * CDROP_BLOCK * k->size, q->width, from.data, from.pitch,
                     cdrop_in_block(q->columns, i), cdrop_in_block(q->left->entries, b));
    }
}

/* The memory of block b, fetched while the one before it is in use. A partial one would be read beyond the end of
 * the panel: it is left out. So is the second block of lines that hold two, because it comes with the first.
 *
 * Lines of a panel follow each other without gaps, so the memory of a block is one piece. For a transpose it is the
 * lines of the matrix that the panel's columns are, in the panel of the matrix that holds entries of block b. */
static cdrop_ahead memory_of(const panel_product *q, size_t b)
{
    const cdrop_kernels *k = q->k;
    const cdrop_panels *m = q->right->panels;
    const size_t per_panel = k->panel / CDROP_BLOCK, transposed = b / per_panel;
    if ((b + 1) * CDROP_BLOCK > q->left->entries || (q->right->scratch && b % per_panel))
        return (cdrop_ahead){.bytes = 0};
    if (q->right->scratch)
        return (cdrop_ahead){.from = {cdrop_panel_at(m, k, transposed, q->p * k->panel)},
                             .bytes = q->columns * cdrop_panel_pitch(m, transposed) * k->size};
    return (cdrop_ahead){.from = {cdrop_panel_at(m, k, q->p, b * CDROP_BLOCK)},
                         .bytes = CDROP_BLOCK * cdrop_panel_pitch(m, q->p) * k->size};
}

/* Where the lines of block b are: in the panel itself, or in scratch after a transpose. Scratch holds one block at a
 * time, so a block is used up before the next one begins. */
static panel_block begin_block(const panel_product *q, size_t b)
{
    const cdrop_panels *m = q->right->panels;
    panel_block block = {.b = b, .data = q->right->scratch, .pitch = q->width, .next = memory_of(q, b + 1)};
    if (block.data)
        transpose_block(q, b);
    else {
        block.data = cdrop_panel_at(m, q->k, q->p, b * CDROP_BLOCK);
        block.pitch = cdrop_panel_pitch(m, q->p);
    }
    return block;
}

/* The block's part of the sums of lines [l0, l1); `out` is line l0. Only the first block (b = 0) begins the chains;
 * all others resume them from `out`, where the block before has left them. */
static void run_block(const panel_product *q, const panel_block *block, void *out, size_t out_pitch, size_t l0,
                      size_t l1)
{
    const cdrop_kernels *k = q->k;
    const cdrop_panels *x = q->left->dense;
    const size_t b = block->b;
    if (!x) {
        const int worth_it = l1 - l0 >= FEW_LINES && block->next.bytes;
        k->product(out, out_pitch, q->start, block->data, block->pitch, q->width, q->left->lists, b, b + 1, l0, l1,
                   b > 0, worth_it ? &block->next : NULL);
        return;
    }
    /* The left side is stored in panels too, so its block b lies in panel b / per_panel, at a column offset. */
    const size_t per_panel = k->panel / CDROP_BLOCK, xp = b / per_panel;
    const char *from = (const char *)cdrop_panel_at(x, k, xp, l0) + b % per_panel * CDROP_BLOCK * k->size;
    k->product_dense(out, out_pitch, q->start, block->data, block->pitch, q->width, from, cdrop_panel_pitch(x, xp), 1,
                     cdrop_min(CDROP_BLOCK, q->left->entries - b * CDROP_BLOCK), l1 - l0, b > 0);
}

/* A product for all rows, and the blocks [b0, b1) of its sums that are next. */
typedef struct {
    const cdrop_panels *out;
    size_t rows, blocks, b0, b1;
    cdrop_epilogue epilogue;
    void *context;
} work;

/* Without entries there is still one block to run, an empty one: the outputs must get their start values, and the
 * epilogue its rows. */
static size_t sum_blocks(const cdrop_left *left) { return left->entries ? cdrop_blocks(left->entries) : 1; }

/* Turns of MANY_BLOCKS blocks. Between two turns the unfinished sums are in `out`. */
static int next_blocks(work *w)
{
    w->b0 = w->b1;
    w->b1 = cdrop_min(w->b0 + MANY_BLOCKS, w->blocks);
    return w->b0 < w->blocks;
}

/* Row groups [g0, g1) of the panel. Where the sums end, their last block runs group by group, so that the epilogue
 * finds its rows in the cache (64 lines, 32 KiB at most); all others run over all these rows, so that a block is
 * read once. The epilogue gets whole groups, beginning at a multiple of 64: masks, live bits and lists by unit have
 * one word for 64 rows or units, and so each word is written by one thread. */
static void run_few_groups(const panel_product *q, const work *w, size_t g0, size_t g1)
{
    const size_t pitch = cdrop_panel_pitch(w->out, q->p);
    const size_t l0 = g0 * CDROP_BLOCK, l1 = cdrop_min(g1 * CDROP_BLOCK, w->rows);
    for (size_t b = w->b0; b < w->b1; b++) {
        const panel_block block = begin_block(q, b);
        const int last = b + 1 == w->blocks;
        const size_t step = last ? CDROP_BLOCK : l1 - l0;
        for (size_t l = l0; l < l1; l += step) {
            const size_t end = cdrop_min(l + step, l1);
            run_block(q, &block, cdrop_panel_at(w->out, q->k, q->p, l), pitch, l, end);
            if (last)
                w->epilogue(w->context, q->p, l, end);
        }
    }
}

/* MANY_GROUPS at a time: their sums and this turn's weights fit L2 together. */
static void run_groups(const panel_product *q, const work *w, size_t g0, size_t g1)
{
    for (size_t g = g0; g < g1; g += MANY_GROUPS)
        run_few_groups(q, w, g, cdrop_min(g + MANY_GROUPS, g1));
}

/* Groups that are claimed together: each thread should find a few times to claim, and a read of a block serve as
 * many rows as it can. More than MANY_GROUPS would not be run in one piece anyway. The choice depends on the number
 * of threads, but no bit of a result does, because rows do not mix. */
static size_t groups_at_once(size_t panels, size_t groups, int threads)
{
    const size_t share = panels * groups / (CLAIMS * (size_t)threads);
    return share < 1 ? 1 : cdrop_min(share, cdrop_min(groups, MANY_GROUPS));
}

void cdrop_product_rows(const cdrop_kernels *k, const cdrop_panels *out, const void *start, const cdrop_right *right,
                        const cdrop_left *left, size_t rows, cdrop_team team, cdrop_claims *claims,
                        cdrop_epilogue epilogue, void *context)
{
    const size_t groups = cdrop_blocks(rows), at_once = groups_at_once(out->panels, groups, team.size);
    const size_t runs = (groups + at_once - 1) / at_once; /* of a panel */
    work w = {.out = out, .rows = rows, .blocks = sum_blocks(left), .epilogue = epilogue, .context = context};
    /* Items are numbered panel by panel, so this thread's run of them shares few panels. The blocks are the outer
     * loop: all rows use MANY_BLOCKS blocks of the left side before the next ones are read. A thread that has begun
     * a sum must then end it: threads do not meet between turns, so another one might resume a sum before it is
     * stored. That is why there are claims only where all blocks fit one turn. Fixed parts are the same in every
     * turn. */
    while (next_blocks(&w)) {
        cdrop_loop loop = cdrop_divide(team, w.blocks <= MANY_BLOCKS ? claims : NULL, out->panels * runs);
        for (size_t item; cdrop_next(&loop, &item);) {
            const size_t g = item % runs * at_once;
            panel_product q = product_of(k, start, right, left, item / runs);
            /* Later turns resume from `out` and do not look at `start`. */
            if (w.b0 == 0)
                add_background_row(&q);
            run_groups(&q, &w, g, cdrop_min(g + at_once, groups));
        }
    }
}

/* One thread's own rows, so there is nothing to divide, and MANY_GROUPS at a time share the reads of a block. The
 * background is not added here: this serves sampling, from the first masked layer on, and a network with dropout on
 * its input has no background (network.py sets none). */
void cdrop_product_groups(const cdrop_kernels *k, const cdrop_panels *out, const void *start, const cdrop_right *right,
                          const cdrop_left *left, size_t from, size_t to, cdrop_epilogue epilogue, void *context)
{
    work w = {.out = out, .rows = to, .blocks = sum_blocks(left), .epilogue = epilogue, .context = context};
    while (next_blocks(&w))
        for (size_t p = 0; p < out->panels; p++) {
            const panel_product q = product_of(k, start, right, left, p);
            run_groups(&q, &w, from / CDROP_BLOCK, cdrop_blocks(to));
        }
}

/* A list covers whole rows, but dense entries go into panels, one call for each: the source's blocks are split at
 * panel boundaries. Either way a line is written by the thread that has its row. */
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

/* The lists' memory serves as scratch: the caller fills it after the choice. Rows are sampled at a fixed distance,
 * not at random, so that the same call always takes the same path and the same time. */
double cdrop_sampled_density(const cdrop_kernels *k, const cdrop_source *source, cdrop_lists *lists, size_t rows)
{
    enum { SAMPLES = 8 };
    const size_t step = rows / SAMPLES + 1;
    size_t live = 0, seen = 0;
    for (size_t row = 0; row < rows; row += step, seen++)
        live += k->compress(lists, source, 0, lists->blocks, row, row + 1);
    return seen && source->columns ? (double)live / (double)(seen * source->columns) : 0;
}

/* What the sums of 64 units of one panel need: the gradient by weight, before it goes to the sink. */
typedef struct {
    const cdrop_kernels *k;
    const cdrop_left *left;
    const char *panel; /* of delta */
    size_t pitch, width, rows;
    char *out;
    size_t out_pitch;
} unit_product;

/* Unit u of the group is line u of the product, and its entry r is in row r: the dense rows are read down their
 * columns, with a line step of 1 and an index step of a row. That saves a transposed copy of the inputs. The 64
 * units lie in one panel, because panels are whole blocks wide.
 *
 * The right side is delta itself: its rows are the summed entries. Blocks of rows ascend, so each sum is one
 * ascending chain over the rows of the batch. */
static void run_units_dense(const unit_product *q, size_t u0, size_t u1)
{
    const cdrop_kernels *k = q->k;
    const cdrop_panels *x = q->left->dense;
    const size_t p = u0 / k->panel, x_pitch = cdrop_panel_pitch(x, p);
    for (size_t r = 0; r < q->rows; r += CDROP_BLOCK)
        k->product_dense(q->out, q->out_pitch, NULL, q->panel + r * q->pitch * k->size, q->pitch, q->width,
                         (const char *)cdrop_panel_at(x, k, p, r) + u0 % k->panel * k->size, 1, x_pitch,
                         cdrop_min(CDROP_BLOCK, q->rows - r), u1 - u0, r > 0);
}

/* What the sink reads next (weights, and up to two states of the optimizer), fetched while the product computes: the
 * update is bound by memory and the product by arithmetic, so the fetch costs nothing. A place has 64 lines of a
 * panel: 32 KiB at most for each matrix, so all three, the sums and the block of delta stay within L2. */
static cdrop_ahead touched(const cdrop_kernels *k, const cdrop_gradient_sink *sink, size_t p, size_t u0, size_t u1)
{
    cdrop_ahead ahead = {.bytes = 0};
    for (size_t i = 0; i < 3 && sink->touches[i]; i++) {
        ahead.from[i] = cdrop_panel_at(sink->touches[i], k, p, u0);
        ahead.bytes = (u1 - u0) * cdrop_panel_pitch(sink->touches[i], p) * k->size;
    }
    return ahead;
}

void cdrop_product_units(const cdrop_kernels *k, const cdrop_left *left, const cdrop_panels *delta, size_t units,
                         size_t rows, void *scratch, cdrop_team team, cdrop_claims *claims,
                         const cdrop_gradient_sink *sink)
{
    /* Without rows the gradient is zero, not missing: the sink still runs, because L2 and momentum change weights
     * too.
     *
     * An item is 64 units in one panel. It is computed from the first row to the last by the thread that claims it,
     * and its sink runs there once. So updates need no lock, and any thread may claim any item. */
    const size_t groups = cdrop_blocks(units), blocks = rows ? cdrop_blocks(rows) : 1;
    cdrop_loop loop = cdrop_divide(team, claims, delta->panels * groups);
    for (size_t item; cdrop_next(&loop, &item);) {
        const size_t p = item / groups, u0 = item % groups * CDROP_BLOCK, u1 = cdrop_min(u0 + CDROP_BLOCK, units);
        unit_product q = {.k = k,
                          .left = left,
                          .panel = cdrop_panel_at(delta, k, p, 0),
                          .pitch = cdrop_panel_pitch(delta, p),
                          .width = cdrop_panel_width(delta, p, k->panel),
                          .rows = rows,
                          .out = scratch};
        q.out_pitch = q.width;
        if (sink->place)
            q.out = sink->place(sink->context, p, u0, &q.out_pitch);
        const cdrop_ahead ahead = touched(k, sink, p, u0, u1);
        if (sink->begin)
            sink->begin(sink->context, p, u0);
        /* All blocks of rows in one call: the sums (64 lines, 32 KiB at most) stay in the first-level cache
         * meanwhile, or in the second where the first has no more than that. Blocks of delta stream past them, each
         * read once an item. */
        if (left->dense)
            run_units_dense(&q, u0, u1);
        else
            k->product(q.out, q.out_pitch, NULL, q.panel, q.pitch, q.width, left->lists, 0, blocks, u0, u1, 0, &ahead);
        sink->take(sink->context, p, u0, u1, q.out);
    }
}

void cdrop_bias_gradient(const cdrop_kernels *k, void *out, const cdrop_panels *delta, size_t p, size_t rows)
{
    k->column_sums(out, cdrop_panel_at(delta, k, p, 0), cdrop_panel_pitch(delta, p),
                   cdrop_panel_width(delta, p, k->panel), rows);
}
