/* The lists of minibatches that come again.
 *
 * A fit by iterations draws fixed minibatches with replacement, so the same rows return about once per epoch. Their
 * input lists, by row and by unit, do not depend on weights or masks: they are made once, before the first step, and
 * steps only read them, those of other networks too. Rows that are predicted again and again need lists by row alone.
 * Lists of hidden layers change in every step and are never kept. Keeping is an optimization, so whatever prevents it
 * (memory, dense rows, input dropout) is not an error: the steps make their own lists. */
#include <stdlib.h>
#include <string.h>

#include "pass.h"

/* Under input dropout lists differ from step to step. */
static int keepable(const cdrop_network *n, const cdrop_batch *batch)
{
    return !batch->indptr && n->layer[0].keep == CDROP_KEEP_ALL;
}

/* Lists hold differences from the background, so those made under another one are ignored, not used wrongly. The bytes
 * are compared at each use, which takes far less time than a product with as many inputs. */
const kept_batch *cdrop_kept_lists(const cdrop_network *n, const cdrop_batch *batch, int by_unit)
{
    const cdrop_kept *kept = batch->kept;
    if (!kept || !keepable(n, batch) || kept->by_unit < by_unit || kept->k != n->k || kept->n_in != n->layer[0].n_in ||
        memcmp(kept->background, n->background, kept->n_in * n->k->size))
        return NULL;
    return &kept->batch[batch->number];
}

/* The first part of a step, up to where the lists of its input are there: by the same functions, so they are the same
 * lists. A thread reads the rows of others to list its units, hence the barrier. */
static void list_batch_job(void *argument, cdrop_team team)
{
    const pass *s = argument;
    size_t from, to;
    cdrop_share(team, s->batch->n, &from, &to);
    cdrop_list_input(s, from, to);
    if (!s->training)
        return;
    cdrop_barrier(team);
    cdrop_scatter_input(s, team);
}

/* The network's own lists serve as scratch, in slots of fixed size; the copy has no gaps, in the order that products
 * read. */
static size_t keep_batch(cdrop_kept *kept, size_t i, cdrop_network *n, const cdrop_batch *batch, int threads)
{
    const layer *l = &n->layer[0];
    kept_batch *to = &kept->batch[i];
    pass s = {.n = n, .layer = n->layer, .batch = batch, .training = kept->by_unit};
    size_t bytes = 0;
    cdrop_parallel(list_batch_job, &s, cdrop_threads_for(n, batch->n, threads));
    to->inputs = cdrop_take_copy(&kept->memory, n->k, &l->inputs, batch->n, l->inputs.blocks, &bytes);
    if (kept->by_unit)
        to->columns = cdrop_take_copy(&kept->memory, n->k, &l->columns, l->n_in, cdrop_blocks(batch->n), &bytes);
    return bytes;
}

/* What decides whether another network may use the lists: see cdrop_kept_lists. */
static void describe(cdrop_kept *kept, const cdrop_network *n, size_t batches, size_t size, int by_unit)
{
    kept->size = size;
    kept->by_unit = by_unit;
    kept->k = n->k;
    kept->n_in = n->layer[0].n_in;
    kept->batch = cdrop_take(&kept->memory, batches, sizeof *kept->batch);
    kept->background = cdrop_take(&kept->memory, kept->n_in, n->k->size);
    if (kept->background)
        memcpy(kept->background, n->background, kept->n_in * n->k->size);
}

cdrop_status cdrop_keep_batches(cdrop_kept **kept, cdrop_network *n, const cdrop_batch *all, size_t size, int by_unit,
                                int threads)
{
    const size_t batches = (all->n + size - 1) / size, most = cdrop_min(size, all->n);
    *kept = NULL;
    if ((by_unit ? cdrop_network_reserve(n, most, 1, threads) : cdrop_reserve_forward(n, most)) != CDROP_OK)
        return CDROP_NO_MEMORY;
    /* The memory of a step is needed in any case and was an error above; memory for lists is not. */
    cdrop_kept *own = calloc(1, sizeof *own);
    if (!own)
        return CDROP_OK;
    describe(own, n, batches, size, by_unit);
    /* Otherwise the input would be copied densely where most of it is live, and there would be nothing to keep. */
    n->layer[0].dense = 0;
    size_t room = 0;
    int good = !own->memory.failed && keepable(n, all);
    /* Lists may take as much memory as the rows they stand for, counted over all batches so far. Rows that are
     * mostly live break that limit at the first batch, so little time is lost on them. */
    for (size_t i = 0; good && i < batches; i++) {
        const cdrop_batch batch = cdrop_part_of(n, all, i * size, cdrop_min(size, all->n - i * size));
        const size_t bytes = keep_batch(own, i, n, &batch, threads);
        room += batch.n * own->n_in * n->k->size;
        good = !own->memory.failed && bytes <= room;
        room -= good ? bytes : 0;
    }
    if (good)
        *kept = own;
    else
        cdrop_kept_free(own);
    return CDROP_OK;
}

void cdrop_kept_free(cdrop_kept *kept)
{
    if (kept)
        cdrop_release(&kept->memory);
    free(kept);
}
