/* A step under masks that all its rows share.
 *
 * The dropped units of a hidden layer then do nothing in the step: no row needs them, and their weights have no
 * gradient. So the step runs on the thinned network (Srivastava et al. 2014, section 2), whose layers have the kept
 * units alone: their weights are copied into smaller matrices, and all products become shorter, in both directions.
 * The results are, to the bit, those of a mask for each row that is the same in all rows, because every sum skips
 * the same zeros. Kept units stay in ascending order, so each chain adds what is left in the same order; that blocks
 * end elsewhere changes nothing, because a chain is stored and resumed without rounding.
 *
 * Whole layers remain for the update: L2, momentum and the averages of the rules change weights without a gradient,
 * too. The input keeps its width, because its rows are listed from the caller's memory: there a shared mask is a
 * mask like others.
 *
 * Weights are copied, and gradients brought back, in blocks of 64 lines of a panel. A block's kept lines follow each
 * other in the thinned matrix, too; its kept columns may lie in two panels of it. As masks are functions of their
 * keys, those of the next step are known: its weights are copied while the update has their block in the cache.
 *
 * Barriers order this. The one before the first product (in cdrop_forward) follows the copies of cdrop_thin. Those
 * of backward stand between the gradients that threads note and the blocks of cdrop_update_thinned that read them: a
 * block's kept lines may have been noted by several threads. And the thinned weights of the next step go over those
 * of this one only when a barrier has passed since the last product that reads them. */
#include <string.h>

#include "pass.h"

/* Whether units of layer i's input may be left out in some step: memory is taken for it once, whatever the rate is.
 * The data (i = 0) and the outputs (i = layers) are never thinned. */
static int may_share(const cdrop_network *n, size_t i)
{
    const layer *l = &n->layer[i];
    return i && i < n->layers && l->kind == CDROP_SHARED && (l->varies || l->keep != CDROP_KEEP_ALL);
}

/* Whether units of layer i's input are left out in this step. */
static int leaves_out(const cdrop_network *n, size_t i)
{
    return may_share(n, i) && n->layer[i].keep != CDROP_KEEP_ALL;
}

/* ---- Memory ---- */

/* `before` has one entry more than there are blocks: the last one is the number of kept units. */
static kept_units take_units(cdrop_workspace *w, size_t units)
{
    return (kept_units){.kept = cdrop_take(w, cdrop_blocks(units), sizeof(uint64_t)),
                        .before = cdrop_take(w, cdrop_blocks(units) + 1, sizeof(size_t))};
}

/* A layer is thinned on the side of its inputs, of its units, or both. Its memory has room for the whole layer,
 * since a mask may keep everything; each step lays a smaller matrix into it (cdrop_narrowed). Biases have
 * CDROP_SPARE elements more, because packing and unpacking move whole vectors.
 *
 * The gradient is row-major, not in panels: a line of kept columns is then one piece, from which a block of the
 * whole layer takes its part, wherever panels of the thinned layer begin. */
static void take_part(cdrop_network *n, size_t i)
{
    cdrop_workspace *w = &n->training;
    const layer *l = &n->layer[i];
    thinned_part *part = &n->parts[i];
    if (!may_share(n, i) && !may_share(n, i + 1))
        return;
    n->thinned[i].weight = cdrop_take_panels(w, n->k, l->n_in, l->n_out);
    n->thinned[i].bias = cdrop_take(w, cdrop_pad(l->n_out) + CDROP_SPARE, n->k->size);
    part->now = (kept_part){take_units(w, l->n_in), take_units(w, l->n_out)};
    part->next = (kept_part){take_units(w, l->n_in), take_units(w, l->n_out)};
    part->gradient = cdrop_take_rows(w, n->k, l->n_in + 1, l->n_out); /* one more: whole vectors are read */
    part->bias_gradient = cdrop_take(w, cdrop_pad(l->n_out) + CDROP_SPARE, n->k->size);
}

/* Where no layer may share masks, n->thinned is NULL and steps run on the layers themselves. thinned_step = 0:
 * nothing has been copied into the new memory. */
void cdrop_take_thinned(cdrop_network *n)
{
    int any = 0;
    for (size_t i = 0; i < n->layers; i++)
        any |= may_share(n, i);
    n->thinned = any ? cdrop_take(&n->training, n->layers, sizeof *n->thinned) : NULL;
    n->parts = any ? cdrop_take(&n->training, n->layers, sizeof *n->parts) : NULL;
    n->thinned_keep = any ? cdrop_take(&n->training, n->layers, sizeof *n->thinned_keep) : NULL;
    n->thinned_step = 0;
    for (size_t i = 0; n->thinned && n->parts && i < n->layers; i++)
        take_part(n, i);
}

/* ---- The thinned layers of a step ---- */

/* Which units are kept by a mask, NULL for all. `before` counts the kept units in front of each block: that is the
 * place in the thinned matrix of the first one kept in the block, so that blocks are copied independently of each
 * other. */
static void note_units(kept_units *u, const uint64_t *mask, size_t units)
{
    u->before[0] = 0;
    for (size_t b = 0; b < cdrop_blocks(units); b++) {
        u->kept[b] = mask ? mask[b] : cdrop_valid_bits(units, b);
        u->before[b + 1] = u->before[b] + (size_t)__builtin_popcountll(u->kept[b]);
    }
}

/* A mask has two rows: of this step, and of the next. The units of layer i are the inputs of layer i + 1, whose mask
 * they share. */
static void note_kept(const cdrop_network *n, kept_part *part, size_t i, size_t row)
{
    const layer *l = &n->layer[i];
    const uint64_t *inputs = leaves_out(n, i) ? l->mask + row * l->words : NULL;
    const uint64_t *outputs = leaves_out(n, i + 1) ? l[1].mask + row * l[1].words : NULL;
    note_units(&part->inputs, inputs, l->n_in);
    note_units(&part->outputs, outputs, l->n_out);
}

/* Lists in slots of fixed size start at multiples of it, so that the lists of fewer lines fit the same memory: list
 * number b * lines + line has the slot of that number, whatever `lines` is. */
static void narrow_inputs(const cdrop_network *n, layer *t, size_t kept)
{
    t->n_in = kept;
    t->words = cdrop_words(kept);
    t->dense_inputs = cdrop_narrowed(&t->dense_inputs, n->k, kept);
    t->inputs.blocks = kept ? cdrop_blocks(kept) : 1;
    t->columns.lines = kept;
    if (!kept) /* no product fills the only block */
        memset(t->inputs.live, 0, t->inputs.lines * sizeof *t->inputs.live);
}

static void narrow_units(const cdrop_network *n, layer *t, size_t kept)
{
    t->n_out = kept;
    t->out = cdrop_narrowed(&t->out, n->k, kept);
    t->delta = cdrop_narrowed(&t->delta, n->k, kept);
    t->deltas.blocks = kept ? cdrop_blocks(kept) : 1;
}

static cdrop_panels narrowed_weight(const cdrop_network *n, size_t i, const kept_part *part)
{
    return cdrop_narrowed(&n->thinned[i].weight, n->k, part->outputs.before[cdrop_blocks(n->layer[i].n_out)]);
}

/* Everything but what the thinned layer has for itself is the layer's own: a copy of the struct, so both point to
 * the same lists, activations and gradients, with the smaller shape in the copy. The density is the thinned layer's
 * own too. It is measured on kept units alone, which are live more often. */
static void thin_layer(cdrop_network *n, size_t i)
{
    const layer *l = &n->layer[i];
    layer *t = &n->thinned[i], was = *t;
    thinned_part *part = &n->parts[i];
    *t = *l;
    if (was.density > 0)
        t->density = was.density;
    if (part->whole)
        return;
    t->weight = was.weight;
    t->weight = narrowed_weight(n, i, &part->now);
    t->bias = was.bias;
    if (leaves_out(n, i))
        narrow_inputs(n, t, part->now.inputs.before[cdrop_blocks(l->n_in)]);
    if (leaves_out(n, i + 1))
        narrow_units(n, t, part->now.outputs.before[cdrop_blocks(l->n_out)]);
}

/* Whether the step before has copied the weights that this one needs: it must have been the step before, and the
 * masks it knew must be those of now, so the rates must be the same. */
static int copied(const cdrop_network *n, uint64_t step)
{
    int same = n->thinned_step == step;
    for (size_t i = 0; i < n->layers; i++)
        same &= n->thinned_keep[i] == n->layer[i].keep;
    return same;
}

/* What was next becomes now, which is what the weights were copied by. The struct that is free takes the masks of
 * the step after; the two are swapped, not copied, since each has its own memory. */
static void choose_part(cdrop_network *n, size_t i, int is_copied)
{
    thinned_part *part = &n->parts[i];
    const kept_part now = part->now;
    part->whole = !leaves_out(n, i) && !leaves_out(n, i + 1);
    if (part->whole)
        return;
    if (is_copied) {
        part->now = part->next;
        part->next = now;
    } else
        note_kept(n, &part->now, i, 0);
    note_kept(n, &part->next, i, 1);
}

/* Runs on one thread, before the job: all threads then work with the same layers. Both rows of each shared mask are
 * drawn here, that of the input included, for this step and for the next. A mask depends on its key alone, so
 * drawing the next one early gives the same bits as drawing it in time. */
layer *cdrop_choose_layers(cdrop_network *n, uint64_t step)
{
    int thinned = 0;
    for (size_t i = 0; i < n->layers; i++) {
        const layer *l = &n->layer[i];
        for (size_t row = 0; row < 2 && l->kind == CDROP_SHARED && l->keep != CDROP_KEEP_ALL; row++)
            cdrop_bernoulli_mask(l->mask + row * l->words, 0, 1, l->n_in, l->keep, n->seed, step + row, CDROP_FOR_MASKS,
                                 (uint32_t)i);
        thinned |= leaves_out(n, i);
    }
    if (!thinned)
        return n->layer;
    if (!copied(n, step))
        n->thinned_step = 0;
    for (size_t i = 0; i < n->layers; i++) {
        choose_part(n, i, n->thinned_step == step);
        thin_layer(n, i);
    }
    return n->thinned;
}

/* ---- Between whole and thinned matrices ---- */

/* Block b of the lines of panel p of a whole matrix, and where its kept entries are in the thinned one. */
typedef struct {
    size_t p, b;
    size_t line, lines;     /* of the whole matrix */
    size_t first, count;    /* lines of the thinned one */
    size_t column, columns; /* of the thinned one */
    uint64_t inputs;        /* kept of these lines, */
    const uint64_t *units;  /* and of the panel's columns */
    size_t words, width;    /* of those: blocks, and columns with padding */
} block;

/* Items go through the panels of one block of lines, then to the next block: consecutive items of a thread write the
 * same lines of the thinned matrix. first, count, column and columns are differences of the counts `before`, so each
 * item knows its place without the others. */
static block block_of(const pass *s, size_t i, size_t item, const kept_part *part)
{
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->n->layer[i];
    const size_t per_panel = k->panel / CDROP_BLOCK, b = item / l->weight.panels, p = item % l->weight.panels;
    const size_t u0 = p * per_panel, u1 = cdrop_min(u0 + per_panel, cdrop_blocks(l->n_out));
    const kept_units *in = &part->inputs, *out = &part->outputs;
    return (block){.p = p,
                   .b = b,
                   .line = b * CDROP_BLOCK,
                   .lines = cdrop_in_block(l->n_in, b),
                   .first = in->before[b],
                   .count = in->before[b + 1] - in->before[b],
                   .column = out->before[u0],
                   .columns = out->before[u1] - out->before[u0],
                   .inputs = in->kept[b],
                   .units = out->kept + u0,
                   .words = u1 - u0,
                   .width = cdrop_panel_width(&l->weight, p, k->panel)};
}

static size_t items_of(const layer *l) { return l->weight.panels * cdrop_blocks(l->n_in); }

/* The block's kept entries, packed a panel's width apart, into the thinned matrix: one panel of it after the other.
 * Its columns begin wherever the block before ends, which may be in the middle of a cache line that another thread
 * writes as well. So exactly these columns are written (copy_columns), and nothing around them. */
static void put_block(const cdrop_kernels *k, const cdrop_panels *m, const char *packed, const block *q)
{
    for (size_t done = 0, some; done < q->columns; done += some) {
        const size_t p = (q->column + done) / k->panel, column = (q->column + done) % k->panel;
        some = cdrop_min(q->columns - done, k->panel - column);
        k->copy_columns((char *)cdrop_panel_at(m, k, p, q->first) + column * k->size, cdrop_panel_pitch(m, p),
                        packed + done * k->size, k->panel, some, q->count);
    }
}

/* `packed` is room for the block: a thread's own, because packing writes whole vectors beyond the kept columns,
 * which must not happen in the shared matrix. */
static void copy_weights(const pass *s, size_t i, const block *q, const cdrop_panels *thinned, char *packed)
{
    const cdrop_kernels *k = s->n->k;
    const cdrop_panels *whole = &s->n->layer[i].weight;
    k->pack_kept(packed, k->panel, cdrop_panel_at(whole, k, q->p, q->line), cdrop_panel_pitch(whole, q->p), q->inputs,
                 q->units, q->words);
    put_block(k, thinned, packed, q);
}

/* Weights only if the step before has not copied them (the first one, or after a change of rates or a limit of
 * norms), biases always: they are short, and one thread copies them. No barrier ends this: that before the first
 * product, which every forward pass has, also covers these copies. */
void cdrop_thin(const pass *s, cdrop_team team)
{
    const cdrop_network *n = s->n;
    if (s->layer == n->layer)
        return;
    for (size_t i = 0; i < n->layers; i++) {
        const thinned_part *part = &n->parts[i];
        if (part->whole)
            continue;
        cdrop_loop loop = cdrop_divide(team, NULL, n->thinned_step == s->step ? 0 : items_of(&n->layer[i]));
        for (size_t item; cdrop_next(&loop, &item);) {
            const block q = block_of(s, i, item, &part->now);
            copy_weights(s, i, &q, &s->layer[i].weight, cdrop_scratch_of(n, team));
        }
        if (team.index == 0)
            n->k->pack_kept(s->layer[i].bias, 0, n->layer[i].bias, 0, 1, part->now.outputs.kept,
                            cdrop_blocks(n->layer[i].n_out));
    }
    cdrop_lap(s->watch, CDROP_TIME_THINNING, 0);
}

/* ---- The update of the whole layers ---- */

/* The gradient's place is its final one: lines of 64 units in a panel's columns, no other item's. Noted gradients
 * are read by other threads only after a barrier. */
void *cdrop_gradient_place(void *context, size_t p, size_t u0, size_t *pitch)
{
    const pass *s = context;
    const cdrop_panels *gradient = &s->n->parts[s->index].gradient;
    *pitch = gradient->pitch;
    return cdrop_panel_at(gradient, s->n->k, p, u0);
}

/* It is in its place. What it lacks is the background: one more row, whose delta is the column sums. */
void cdrop_note_gradient(void *context, size_t p, size_t u0, size_t u1, void *gradient)
{
    const pass *s = context;
    const cdrop_kernels *k = s->n->k;
    const size_t width = cdrop_panel_width(&s->layer[s->index].delta, p, k->panel);
    if (s->index == 0 && cdrop_shifted(s))
        k->product(gradient, s->n->parts[0].gradient.pitch, NULL, s->sums, width, width, &s->n->background_columns, 0,
                   1, u0, u1, 1, NULL);
    cdrop_lap(s->watch, CDROP_TIME_WEIGHT_GRADIENT, s->index);
}

/* Called once a panel, by the thread that has its first units; the panels are those of the thinned layer. */
void cdrop_note_bias_gradient(const pass *s, size_t p)
{
    const cdrop_kernels *k = s->n->k;
    memcpy((char *)s->n->parts[s->index].bias_gradient + p * k->panel * k->size, s->sums,
           cdrop_panel_width(&s->layer[s->index].delta, p, k->panel) * k->size);
}

/* A layer without inputs has had no product to note its biases' gradient with. That happens when a mask drops every
 * unit below. */
static void sum_biases(const pass *s)
{
    const cdrop_kernels *k = s->n->k;
    const layer *t = &s->layer[s->index];
    for (size_t p = 0; p < t->delta.panels; p++)
        cdrop_bias_gradient(k, (char *)s->n->parts[s->index].bias_gradient + p * k->panel * k->size, &t->delta, p,
                            s->batch->n);
}

/* From the kept units' gradient to a panel of whole biases, zeros where units were dropped: momentum moves those as
 * well. s->sums is this thread's own and free here. */
static void update_biases(pass *s, const block *q)
{
    const cdrop_kernels *k = s->n->k;
    const char *gradient = (const char *)s->n->parts[s->index].bias_gradient + q->column * k->size;
    k->unpack_kept(s->sums, 0, q->width, 1, gradient, 0, 1, q->units);
    cdrop_update_bias(s, q->p, s->sums);
}

/* A limit of the norms changes weights after their update: copies made here would be those before it. */
static int copies_for_next(const pass *s) { return s->max_norm == 0; }

/* One block of the whole layer by one thread: its gradient is spread to full width with zeros, its weights and
 * states are updated as in a step without thinning, and while they are in the cache they are packed for the next
 * step. The first item of each panel (b = 0) also updates the panel's biases, so that happens once.
 *
 * The thinned weights are overwritten while whole weights of other blocks are still to be updated. That is safe
 * because the products of this step that read the thinned weights of this layer are over, behind a barrier (see
 * backward in train.c). */
static void update_block(pass *s, size_t item, const cdrop_panels *next_weight, char *gradient, char *packed)
{
    const cdrop_kernels *k = s->n->k;
    const thinned_part *part = &s->n->parts[s->index];
    const block q = block_of(s, s->index, item, &part->now), next = block_of(s, s->index, item, &part->next);
    if (q.b == 0)
        update_biases(s, &q);
    const char *kept = cdrop_panel_at(&part->gradient, k, 0, q.first);
    k->unpack_kept(gradient, q.width, q.width, q.lines, kept + q.column * k->size, part->gradient.pitch, q.inputs,
                   q.units);
    cdrop_lap(s->watch, CDROP_TIME_THINNING, 0);
    cdrop_update_units(s, q.p, q.line, q.line + q.lines, gradient);
    if (copies_for_next(s))
        copy_weights(s, s->index, &next, next_weight, packed);
    cdrop_lap(s->watch, CDROP_TIME_THINNING, 0);
}

/* Called when a barrier has passed since the gradients of layer i were noted. The scratch has two blocks: the dense
 * gradient of a block, and its packed weights. */
void cdrop_update_thinned(pass *s, size_t i, cdrop_team team)
{
    const cdrop_kernels *k = s->n->k;
    char *gradient = cdrop_scratch_of(s->n, team), *packed = gradient + CDROP_BLOCK * k->panel * k->size;
    if (!cdrop_is_thinned(s, i))
        return;
    s->index = i;
    if (!s->layer[i].n_in) { /* on all threads or none: they meet in there */
        if (team.index == 0)
            sum_biases(s);
        cdrop_barrier(team);
    }
    /* The next step's matrix lies in the same memory in another shape: its panels have other pitches. */
    const cdrop_panels next_weight = narrowed_weight(s->n, i, &s->n->parts[i].next);
    cdrop_loop loop = cdrop_divide(team, NULL, items_of(&s->n->layer[i]));
    for (size_t item; cdrop_next(&loop, &item);)
        update_block(s, item, &next_weight, gradient, packed);
}

void cdrop_end_thinned(const pass *s)
{
    cdrop_network *n = s->n;
    if (s->layer == n->layer)
        return;
    n->thinned_step = copies_for_next(s) ? s->step + 1 : 0;
    for (size_t i = 0; i < n->layers; i++)
        n->thinned_keep[i] = n->layer[i].keep;
}
