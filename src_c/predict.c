/* Prediction without dropout, in chunks of rows of fixed size: memory does not grow with the number of rows. A row's
 * outputs depend on nothing but that row, so the size of the chunks changes no bit.
 *
 * It is the forward pass of training, with masks and noise NULL, and answers in place of losses. */
#include <string.h>

#include "pass.h"

/* Bytes of a row's answer. */
static size_t answer_size(const cdrop_network *n, cdrop_answer answer)
{
    const size_t units = n->layer[n->layers - 1].n_out;
    if (answer != CDROP_LABELS || cdrop_of_numbers(n->loss))
        return units * n->k->size;
    return (n->loss == CDROP_SOFTMAX_CROSS_ENTROPY ? 1 : units) * sizeof(int64_t);
}

/* The answer for a row that has none: labels of -1, probabilities that are NaN in every bit. */
static void answer_nothing(const pass *s, size_t row, size_t size) { memset((char *)s->out + row * size, 0xff, size); }

/* One row's answer from its outputs. Labels need no exponential: the largest logit is the largest probability, and a
 * positive one a probability above 1/2. */
static void answer_row(const pass *s, size_t row, const void *outputs, size_t units)
{
    const cdrop_kernels *k = s->n->k;
    const cdrop_loss loss = s->n->loss;
    if (s->answer != CDROP_OUTPUTS && !cdrop_of_numbers(loss) &&
        !cdrop_all_finite(k->size == sizeof(float) ? CDROP_FLOAT32 : CDROP_FLOAT64, outputs, units)) {
        answer_nothing(s, row, answer_size(s->n, s->answer));
        return;
    }
    char *out = (char *)s->out + row * units * k->size;
    if (s->answer == CDROP_LABELS && loss == CDROP_SOFTMAX_CROSS_ENTROPY)
        ((int64_t *)s->out)[row] = (int64_t)k->largest(outputs, units);
    else if (s->answer == CDROP_LABELS && loss == CDROP_SIGMOID_CROSS_ENTROPY)
        k->positive((int64_t *)s->out + row * units, outputs, units);
    else if (s->answer == CDROP_PROBABILITIES && loss == CDROP_SOFTMAX_CROSS_ENTROPY)
        k->softmax(out, outputs, units);
    else
        memcpy(out, outputs, units * k->size);
    /* These work in place, on the outputs just copied. */
    if (s->answer == CDROP_PROBABILITIES && loss == CDROP_SIGMOID_CROSS_ENTROPY)
        k->activate(out, units, units, 1, CDROP_SIGMOID);
    if (s->answer != CDROP_OUTPUTS && loss == CDROP_POISSON)
        k->exponential(out, units);
}

/* The forward pass ends with a barrier, so any thread may answer any row. */
static void predict_job(void *argument, cdrop_team team)
{
    pass mine = *(const pass *)argument, *s = &mine;
    const layer *last = &s->n->layer[s->n->layers - 1];
    size_t from, to;
    cdrop_forward(s, team);
    cdrop_share(team, s->batch->n, &from, &to);
    for (size_t i = from; i < to; i++)
        answer_row(s, i, cdrop_panel_at(&last->out, s->n->k, 0, i), last->n_out);
}

/* Hidden layers are chosen by the last chunk's count. Input varies more, and a few of its rows cost little to look
 * at: they are listed in the memory that the pass will fill. Dense rows that need no change are not even copied. */
static void choose_products(pass *s)
{
    cdrop_network *n = s->n;
    layer *first = &n->layer[0];
    cdrop_choose_products(s);
    if (s->batch->indptr || s->kept)
        return;
    const cdrop_source source = cdrop_batch_source(s);
    first->dense = cdrop_sampled_density(n->k, &source, &first->inputs, s->batch->n) > n->k->dense_above;
    if (first->dense && cdrop_as_it_stands(&source))
        s->as_it_stands = cdrop_view_rows(n->k, s->batch->x, first->n_in);
}

/* The offsets of sparse rows count from the first entry of all, so only the pointer to them moves. What `rows` says
 * also counts from the first row of all. */
cdrop_batch cdrop_part_of(const cdrop_network *net, const cdrop_batch *batch, size_t first, size_t n)
{
    cdrop_batch part = {.x = batch->x, .indptr = batch->indptr, .indices = batch->indices, .n = n};
    if (batch->rows)
        part.rows = batch->rows + first;
    else if (batch->indptr)
        part.indptr += first;
    else
        part.x = (const char *)batch->x + first * net->layer[0].n_in * net->k->size;
    return part;
}

cdrop_status cdrop_network_predict(cdrop_network *n, void *out, const cdrop_batch *batch, cdrop_answer answer,
                                   int threads)
{
    /* Kept lists are those of whole minibatches, so their size is that of the chunks. */
    const kept_batch *kept = cdrop_kept_lists(n, batch, 0);
    /* The memory of training, where that is larger: it is there, and more rows make better use of the threads. */
    const size_t own = n->rows > CDROP_PREDICT_ROWS ? n->rows : CDROP_PREDICT_ROWS;
    const size_t chunk = kept ? batch->kept->size : own;
    if (cdrop_reserve_forward(n, cdrop_min(batch->n, chunk)) != CDROP_OK)
        return CDROP_NO_MEMORY;
    for (size_t done = 0, i = 0; done < batch->n; done += chunk, i++) {
        const cdrop_batch part = cdrop_part_of(n, batch, done, cdrop_min(chunk, batch->n - done));
        pass s = {.n = n,
                  .layer = n->layer,
                  .batch = &part,
                  .out = (char *)out + done * answer_size(n, answer),
                  .answer = answer};
        s.kept = kept ? kept + i : NULL;
        choose_products(&s);
        cdrop_parallel(predict_job, &s, cdrop_threads_for(n, part.n, threads));
        cdrop_measure_density(&s);
    }
    return CDROP_OK;
}
