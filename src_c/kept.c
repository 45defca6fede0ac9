/* The lists of minibatches that come again.
 *
 * A fit by iterations draws fixed minibatches with replacement, so the same rows return about once per epoch. Their
 * input lists, by row and by unit, do not depend on weights or masks: they are made once, before the first step, and
 * steps only read them. Lists of hidden layers change in every step and are never kept. Keeping is an optimization,
 * so whatever prevents it (memory, dense rows, input dropout) is not an error: the steps make their own lists. */
#include <stdlib.h>

#include "pass.h"

struct cdrop_kept {
    cdrop_workspace memory;
    kept_batch *batch;
    unsigned background; /* the network's count when the lists were made */
};

/* Lists hold differences from the background, so those made under another one are ignored, not used wrongly. */
const kept_batch *cdrop_kept_lists(const cdrop_network *n, const cdrop_batch *batch)
{
    const cdrop_kept *kept = batch->kept;
    return kept && kept->background == n->backgrounds ? &kept->batch[batch->number] : NULL;
}

static void list_batch_job(void *argument, cdrop_team team)
{
    const pass *s = argument;
    size_t from, to;
    cdrop_share(team, s->batch->n, &from, &to);
    cdrop_list_input(s, from, to);
    cdrop_barrier(team);
    cdrop_scatter_input(s, team);
}

/* The network's own lists serve as scratch, in slots of fixed size; the copy has no gaps, in the order that products
 * read. */
static size_t keep_batch(kept_batch *to, cdrop_workspace *memory, cdrop_network *n, const cdrop_batch *batch,
                         int threads)
{
    const layer *l = &n->layer[0];
    pass s = {.n = n, .batch = batch};
    size_t bytes = 0;
    cdrop_parallel(list_batch_job, &s, cdrop_threads_for(n, batch->n, threads));
    to->inputs = cdrop_take_copy(memory, n->k, &l->inputs, batch->n, l->inputs.blocks, &bytes);
    to->columns = cdrop_take_copy(memory, n->k, &l->columns, l->n_in, cdrop_blocks(batch->n), &bytes);
    return bytes;
}

cdrop_status cdrop_keep_batches(cdrop_kept **kept, cdrop_network *n, const cdrop_batch *all, size_t size, int threads)
{
    const size_t batches = (all->n + size - 1) / size;
    *kept = NULL;
    if (cdrop_network_reserve(n, cdrop_min(size, all->n), threads) != CDROP_OK)
        return CDROP_NO_MEMORY;
    /* The memory of a step is needed in any case and was an error above; memory for lists is not. */
    cdrop_kept *own = calloc(1, sizeof *own);
    if (!own)
        return CDROP_OK;
    own->background = n->backgrounds;
    own->batch = cdrop_take(&own->memory, batches, sizeof *own->batch);
    /* Otherwise the input would be copied densely where most of it is live, and there would be nothing to keep. */
    n->layer[0].dense = 0;
    size_t room = 0;
    int good = own->batch && !all->indptr && n->layer[0].keep == CDROP_KEEP_ALL;
    /* Lists may take as much memory as the rows they stand for, counted over all batches so far. Rows that are
     * mostly live break that limit at the first batch, so little time is lost on them. */
    for (size_t i = 0; good && i < batches; i++) {
        const cdrop_batch batch = {.x = all->x, .rows = all->rows + i * size, .n = cdrop_min(size, all->n - i * size)};
        const size_t bytes = keep_batch(&own->batch[i], &own->memory, n, &batch, threads);
        room += batch.n * n->layer[0].n_in * n->k->size;
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
