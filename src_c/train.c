/* The training step: the order of the calls, and which thread does which part.
 *
 * One job of the thread pool is one step. Its phases, with a barrier between any two:
 *
 *   masks of all layers
 *   lists of the input rows
 *   forward, layer by layer: product, bias, then in the cache: activation, mask, lists by row, lists by unit; after the
 *     last layer, loss and its gradient
 *   every thread decides identically whether the loss is finite, and then backward, layer by layer: gradient by input,
 *     and in the same phase, for the layer above, gradient by weight with its update
 *   where rows share masks of hidden units: the update of the whole layers (thinned.c)
 *   with max-norm: the hidden units whose weights are too long
 *
 * Everything that follows a product happens block by block while the block is in the cache. That is why gradients by
 * weight are never stored as a whole, and why updates are callbacks of products.
 *
 * There are no locks. In a phase each place has one thread that writes it: the loss of a row, 64 rows of a panel of
 * activations or of a gradient, 64 lines of a panel of weights with their states and squares. What another thread has
 * written is read behind the next barrier. Sums that several threads contribute to are noted part by part, and added in
 * a fixed order by each thread that needs them. */
#include <string.h>

#include "pass.h"

/* Rows are divided among threads in units of 16: their losses fill two cache lines of doubles, which then only one
 * thread writes. */
enum { LOSS_ROWS = 16 };

/* ---- Loss and backward ---- */

/* Whether the gradient by the pre-activations of layer i is multiplied as it is, without lists. It is zero where the
 * units of layer i were not live, so it is as sparse as the input of layer i + 1. That of the last layer has no
 * zeros to skip. */
static int delta_dense(const pass *s, size_t i) { return i + 1 == s->n->layers || s->layer[i + 1].dense; }

/* Loss and gradient of rows [from, to). Each loss goes to its row's place; batch_loss adds them up. Where rows have two
 * copies, from and to are even: both are multiples of 16, or the end. */
static void row_losses(const pass *s, size_t from, size_t to)
{
    const cdrop_network *n = s->n;
    const layer *l = &s->layer[n->layers - 1];
    cdrop_row_losses(n->k, &s->loss, cdrop_panel_at(&l->delta, n->k, 0, from), cdrop_panel_pitch(&l->delta, 0),
                     cdrop_panel_at(&l->out, n->k, 0, from), cdrop_panel_pitch(&l->out, 0), from, to,
                     n->row_loss + from);
    if (s->consistency > 0)
        cdrop_add_divergences(s, from, to);
    cdrop_lap(s->watch, CDROP_TIME_LOSS, 0);
}

/* Outputs of one panel are complete row by row: their losses follow while they are in the cache, and without a
 * barrier. */
static void finish_with_losses(void *context, size_t p, size_t l0, size_t l1)
{
    const pass *s = context;
    (void)p;
    cdrop_lap(s->watch, CDROP_TIME_FORWARD, s->index);
    row_losses(s, l0, l1);
}

/* The last layer's width never changes: outputs are not thinned. */
static int one_panel_of_outputs(const cdrop_network *n) { return n->layer[n->layers - 1].out.panels == 1; }

/* Otherwise a row's outputs come from several threads, and its loss has to wait for the barrier that ends the forward
 * pass. The one in here is for batch_loss. */
static void losses(const pass *s, cdrop_team team)
{
    const size_t rows = cdrop_output_rows(s);
    size_t from, to;
    cdrop_share(team, (rows + LOSS_ROWS - 1) / LOSS_ROWS, &from, &to);
    row_losses(s, cdrop_min(from * LOSS_ROWS, rows), cdrop_min(to * LOSS_ROWS, rows));
    cdrop_meet(s, team, CDROP_TIME_WAIT_LOSS, 0);
}

/* Every thread adds up all rows in the same order, so that all get the same bits and decide without another barrier. */
static double batch_loss(const pass *s)
{
    double sum = 0;
    for (size_t i = 0; i < cdrop_output_rows(s); i++)
        sum += s->n->row_loss[i];
    return sum;
}

/* Live bits and noise have whole rows; the gate gets those of the panel, which begins at a mask word. */
cdrop_gate cdrop_gate_of(const pass *s, size_t p, size_t l0)
{
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->layer[s->index];
    const char *noise = s->noise ? s->noise[s->index] : NULL;
    const size_t noise_pitch = cdrop_noise_pitch(l->n_in);
    return (cdrop_gate){.live = l->live + l0 * l->words + p * k->panel / CDROP_BLOCK,
                        .words = l->words,
                        .scale = l->train_scale,
                        .noise = noise ? noise + (l0 * noise_pitch + p * k->panel) * k->size : NULL,
                        .noise_pitch = noise_pitch};
}

void cdrop_list_delta(const pass *s, size_t p, size_t l0, size_t l1, const uint64_t *live)
{
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->layer[s->index];
    layer *below = &s->layer[s->index - 1];
    const size_t b0 = p * k->panel / CDROP_BLOCK;
    const size_t b1 = cdrop_min(b0 + k->panel / CDROP_BLOCK, cdrop_blocks(l->n_in));
    const cdrop_source source = {.data = cdrop_panel_at(&below->delta, k, p, 0),
                                 .pitch = cdrop_panel_pitch(&below->delta, p),
                                 .columns = l->n_in,
                                 .first_block = b0,
                                 .mask = live,
                                 .words = l->words,
                                 .scale = 1,
                                 .rule = CDROP_LIVE_KEPT};
    /* Layer 0 passes no gradient on to the data, so its own is never a left side by row. And where the layer runs
     * dense, so does the product that would read these lists (see delta_dense). */
    if (s->index > 1 && !l->dense)
        k->compress(&below->deltas, &source, b0, b1, l0, l1);
    cdrop_lap(s->watch, CDROP_TIME_LIST_GRADIENT, s->index);
}

/* The gradient by a hidden layer's activations is complete in one panel. Where the units were live it becomes the
 * gradient by the pre-activations of the layer below, as panels and as lists. The positions of the lists are the live
 * bits themselves (CDROP_LIVE_KEPT): a gradient that happens to be zero stays in the list, and no value is tested.
 *
 * Panels for the gradient by weight, whose right side it is, as a whole; lists for the gradient by the next input,
 * whose left side it is. The slopes come first: the gate multiplies by the noise, in place, and they need the gradient
 * as it was before. */
static void finish_delta(void *context, size_t p, size_t l0, size_t l1)
{
    const pass *s = context;
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->layer[s->index];
    layer *below = &s->layer[s->index - 1];
    const size_t pitch = cdrop_panel_pitch(&below->delta, p);
    const int from_live = s->n->activation == CDROP_RELU; /* its derivative is in the live bits */
    cdrop_lap(s->watch, CDROP_TIME_INPUT_GRADIENT, s->index);
    const cdrop_gate gate = cdrop_gate_of(s, p, l0);
    if (l->kind == CDROP_CONCRETE && gate.noise)
        cdrop_note_slopes(s, p, l0, l1);
    k->gate(cdrop_panel_at(&below->delta, k, p, l0), pitch, from_live ? NULL : cdrop_panel_at(&below->out, k, p, l0),
            cdrop_panel_pitch(&below->out, p), cdrop_min(k->panel, l->n_in - p * k->panel), l1 - l0, &gate,
            s->n->activation);
    cdrop_lap(s->watch, CDROP_TIME_DERIVATIVE, s->index);
    cdrop_list_delta(s, p, l0, l1, l->live);
}

/* Max-norm limits hidden units, so the last layer has none (Srivastava et al. 2014, section 5.1). */
static int limited(const pass *s) { return s->max_norm > 0 && s->index + 1 < s->n->layers; }

/* A view, made where it is needed: the layer owns the memory. */
static cdrop_norms norms_of(const layer *l)
{
    return (cdrop_norms){.weight = &l->weight, .lines = l->n_in, .columns = l->n_out, .squares = l->column_squares};
}

/* The background that the update has to add to the gradient: none but the first layer has one, and where that is
 * thinned, the gradient was noted with it. */
static const cdrop_lists *background_of(const pass *s)
{
    return s->index == 0 && cdrop_shifted(s) && !cdrop_is_thinned(s, 0) ? &s->n->background_columns : NULL;
}

/* The gradient of 64 input units in one panel: update their weights in place, and note the new squares. The padding of
 * the columns is updated as well, which spares the kernel a tail; lanes are outputs, so nothing mixes it with real
 * columns.
 *
 * Squares are taken of the weights as they are stored, rounded: the next step's L2 term, the limit of norms and the
 * check for NaN then are about the same numbers. */
void cdrop_update_units(void *context, size_t p, size_t u0, size_t u1, void *gradient)
{
    const pass *s = context;
    const cdrop_kernels *k = s->n->k;
    const layer *l = &s->n->layer[s->index];
    const size_t first = p * k->panel / CDROP_BLOCK, last = first + k->panel / CDROP_BLOCK;
    const size_t line_block = u0 / CDROP_BLOCK, blocks = cdrop_blocks(l->n_out);
    const cdrop_norms norms = norms_of(l);
    const cdrop_weight_lines lines = {.weight = cdrop_panel_at(&l->weight, k, p, u0),
                                      .state1 = cdrop_panel_at(&l->state1, k, p, u0),
                                      .state2 = cdrop_panel_at(&l->state2, k, p, u0),
                                      .gradient = gradient,
                                      .width = cdrop_panel_width(&l->weight, p, k->panel),
                                      .columns = cdrop_min(k->panel, l->n_out - p * k->panel),
                                      .lines = u1 - u0,
                                      .background = background_of(s),
                                      .first = u0,
                                      .sums = s->sums};
    cdrop_update rule = s->weight_update;
    rule.l2 = cdrop_l2_of(s, l);
    cdrop_lap(s->watch, CDROP_TIME_WEIGHT_GRADIENT, s->index);
    k->update_lines(&lines, l->squares + line_block * blocks + first, &rule);
    for (size_t block = first; limited(s) && block < cdrop_min(last, blocks); block++)
        cdrop_note_norms(k, &norms, line_block, block);
    cdrop_lap(s->watch, CDROP_TIME_UPDATE, s->index);
}

/* The limit has scaled this block's weights: squares must follow, as after an update. */
static void refresh_limited(void *context, size_t line_block, size_t column_block)
{
    const pass *s = context;
    cdrop_note_squares(s->n->k, &s->n->layer[s->index], line_block, column_block);
}

/* Max-norm, after the updates of all layers. It waits for them because a unit's weights are spread over blocks of
 * lines that different threads update: a norm is known only when all of them are done. */
static void limit_layers(pass *s, cdrop_team team)
{
    if (s->max_norm > 0)
        cdrop_meet(s, team, CDROP_TIME_WAIT_UPDATES, 0);
    for (s->index = 0; limited(s); s->index++) {
        const cdrop_norms norms = norms_of(&s->n->layer[s->index]);
        cdrop_limit_blocks(s->n->k, &norms, s->max_norm, team, refresh_limited, s);
    }
    cdrop_lap(s->watch, CDROP_TIME_MAX_NORM, 0);
}

/* By one thread for each panel. The gradient is padded like the bias, so the padding is updated with it. */
void cdrop_update_bias(const pass *s, size_t p, const void *gradient)
{
    const cdrop_network *n = s->n;
    const layer *l = &n->layer[s->index];
    const size_t at = p * n->k->panel * n->k->size;
    n->k->update((char *)l->bias + at, gradient, (char *)l->bias_state1 + at, (char *)l->bias_state2 + at,
                 cdrop_panel_width(&l->delta, p, n->k->panel), &s->bias_update);
}

/* The gradient by the bias, each column one ascending chain on one thread, is due when a panel's first weights are.
 * The first layer's background needs the column sums for all weights: each thread computes those of the panels that it
 * meets, which costs less than waiting for another's. All get the same bits. They stay in s->sums as long as the thread
 * stays in the panel. */
static void begin_update(void *context, size_t p, size_t u0)
{
    pass *s = context;
    const int with_background = s->index == 0 && cdrop_shifted(s);
    if (u0 == 0 || (with_background && s->summed != p + 1)) {
        cdrop_bias_gradient(s->n->k, s->sums, &s->layer[s->index].delta, p, cdrop_rows_of(s, s->index));
        s->summed = p + 1;
    }
    if (u0 == 0 && cdrop_is_thinned(s, s->index))
        cdrop_note_bias_gradient(s, p);
    else if (u0 == 0)
        cdrop_update_bias(s, p, s->sums);
    cdrop_lap(s->watch, CDROP_TIME_BIAS, s->index);
}

/* The gradient by the input of layer i, and with it the gradient by the pre-activations of the layer below. It is a
 * product with the transpose of the weights, which do not change in this phase. Copies of a row have one row below
 * them: their gradients are added up behind one more barrier, because a row's copies may have been done by several
 * threads. */
static void propagate(pass *s, size_t i, cdrop_team team)
{
    const cdrop_network *n = s->n;
    const layer *l = &s->layer[i];
    s->index = i;
    const cdrop_left left = {.lists = &l->deltas, .dense = delta_dense(s, i) ? &l->delta : NULL, .entries = l->n_out};
    const cdrop_right right = {.panels = &l->weight, .columns = l->n_in, .scratch = cdrop_scratch_of(n, team)};
    const int copied = cdrop_is_copied(s, i);
    const cdrop_panels out = copied ? cdrop_copied_delta(s) : s->layer[i - 1].delta;
    cdrop_product_rows(n->k, &out, NULL, &right, &left, cdrop_rows_of(s, i), team,
                       cdrop_claims_of(s, CDROP_LOOP_GRADIENT, i), copied ? cdrop_gate_copies : finish_delta, s);
    if (copied) {
        cdrop_meet(s, team, CDROP_TIME_WAIT_GRADIENT, i);
        cdrop_sum_copies(s, team);
    }
}

/* The gradient by the weights of layer i, 64 units of a panel at a time, and where it is complete the update. `touches`
 * is what the update will read: the product fetches it meanwhile. A thinned layer's gradient is only noted. */
static void update_layer(pass *s, size_t i, cdrop_team team)
{
    const cdrop_network *n = s->n;
    const layer *l = &s->layer[i];
    s->index = i;
    s->summed = 0;
    /* A listed input has its lists by unit already; a dense one is read down its columns. */
    const cdrop_lists *columns = s->kept && i == 0 ? &s->kept->columns : &l->columns;
    const cdrop_panels *dense = l->dense ? cdrop_dense_input(s, i) : NULL;
    const cdrop_left left = {.lists = columns, .dense = dense, .entries = cdrop_rows_of(s, i)};
    const int states = cdrop_rule_states(s->weight_update.rule);
    const cdrop_gradient_sink update = {
        .begin = begin_update,
        .take = cdrop_update_units,
        .context = s,
        .touches = {&l->weight, states > 0 ? &l->state1 : NULL, states > 1 ? &l->state2 : NULL}};
    const cdrop_gradient_sink note = {
        .begin = begin_update, .place = cdrop_gradient_place, .take = cdrop_note_gradient, .context = s};
    cdrop_product_units(n->k, &left, &l->delta, l->n_in, cdrop_rows_of(s, i), cdrop_scratch_of(n, team), team,
                        cdrop_claims_of(s, CDROP_LOOP_UPDATE, i), cdrop_is_thinned(s, i) ? &note : &update);
}

/* A layer is updated one phase after its gradient was passed down: then no thread reads its weights any more. The
 * update of layer i + 1 and the gradient by the input of layer i share a phase because they touch different layers,
 * which halves the number of barriers. The phase of layer 1's update is also that of layer 0's: nothing is passed down
 * from there.
 *
 * A thinned layer takes one phase more, because any thread may have noted any part of the gradient that the whole
 * layer's update spreads out: noted with update_layer, and used behind the barrier after it. For layers 1 and 0
 * that is the barrier behind all products. */
static void backward(pass *s, cdrop_team team)
{
    const size_t layers = s->n->layers;
    for (size_t i = layers; i-- > 0;) {
        if (i + 2 < layers)
            cdrop_update_thinned(s, i + 2, team);
        if (i + 1 < layers)
            update_layer(s, i + 1, team);
        if (i) {
            propagate(s, i, team);
            cdrop_meet(s, team, CDROP_TIME_WAIT_GRADIENT, i);
        }
    }
    update_layer(s, 0, team);
    if (s->layer != s->n->layer)
        cdrop_meet(s, team, CDROP_TIME_WAIT_UPDATES, 0);
    for (size_t i = cdrop_min(layers, 2); i-- > 0;)
        cdrop_update_thinned(s, i, team);
    limit_layers(s, team);
}

/* l2 / 2 times the sum of squares, block by block in a fixed order: the blocks were noted by whichever thread updated
 * them. Layers with a learned rate have another factor, l2 / (2 keep), and so another sum. Without L2 the sum is not
 * even looked at: that of large float64 weights may be infinite, and 0 times infinity is NaN. */
static double penalty(const pass *s)
{
    const cdrop_network *n = s->n;
    const double l2 = s->weight_update.l2;
    double sum = 0, learned = 0;
    if (l2 == 0)
        return 0;
    for (size_t i = 0; i < n->layers; i++) {
        const layer *l = &n->layer[i];
        if (l->kind == CDROP_CONCRETE)
            learned += cdrop_l2_of(s, l) / l2 * cdrop_sum_of_squares(l);
        else
            for (size_t b = 0; b < cdrop_square_blocks(l); b++)
                sum += l->squares[b];
    }
    return 0.5 * l2 * (sum + learned);
}

/* Each thread walks the layers with its own pass: between barriers they are not at the same place. The forward pass
 * ends with a barrier, behind which all row losses are there, or with several panels of outputs behind that of
 * losses(). */
static void step_job(void *argument, cdrop_team team)
{
    pass mine = *(const pass *)argument, *s = &mine;
    cdrop_take_watch(s, team);
    cdrop_take_two_rows(s, team);
    cdrop_thin(s, team);
    cdrop_forward(s, team);
    if (!s->finish_outputs)
        losses(s, team);
    const double loss = batch_loss(s) + penalty(s); /* the same bits on every thread */
    cdrop_lap(s->watch, CDROP_TIME_LOSS, 0);
    /* The squares must be read before an update overwrites them. With several layers the first update comes after the
     * barrier behind the first gradient by input. */
    if (s->n->layers == 1)
        cdrop_meet(s, team, CDROP_TIME_WAIT_TOTAL, 0);
    if (team.index == 0) {
        *s->total = loss;
        *s->status = isfinite(loss) ? CDROP_OK : CDROP_NOT_FINITE;
    }
    /* All threads or none: they meet at barriers in there. A loss that is not finite must leave the weights
     * untouched. */
    if (isfinite(loss))
        backward(s, team);
}

/* ---- Numbers that are not finite ---- */

static cdrop_dtype dtype_of(const cdrop_network *n)
{
    return n->k->size == sizeof(float) ? CDROP_FLOAT32 : CDROP_FLOAT64;
}

/* Without the padding: what is stored there is not a weight. */
static int panels_finite(const cdrop_network *n, const cdrop_panels *m, size_t lines, size_t columns)
{
    for (size_t p = 0; p < m->panels; p++)
        for (size_t line = 0; line < lines; line++)
            if (!cdrop_all_finite(dtype_of(n), cdrop_panel_at(m, n->k, p, line),
                                  cdrop_min(n->k->panel, columns - p * n->k->panel)))
                return 0;
    return 1;
}

/* The squares of all weights are known, block by block, so one sum over them usually answers: NaN and infinity
 * spread into it. It can also overflow when no weight is infinite, and only then the weights themselves are read,
 * unless their norms were to be `limited`: a norm that overflows is not. */
static int parameters_finite(const cdrop_network *n, const layer *l, int limited)
{
    double sum = 0;
    for (size_t b = 0; b < cdrop_square_blocks(l); b++)
        sum += l->squares[b];
    return cdrop_all_finite(dtype_of(n), l->bias, l->n_out) &&
           (isfinite(sum) || (!limited && panels_finite(n, &l->weight, l->n_in, l->n_out)));
}

/* From the input on: what is not finite spreads to the layers above, so the first one is where to look. Weights come
 * before outputs, for outputs that are not finite may come from them. Outputs are those of the layers as the last step
 * ran them, thinned ones or copies included. */
size_t cdrop_network_fault(const cdrop_network *n, size_t rows, int *in_weights)
{
    for (size_t i = 0; i < n->layers; i++) {
        const layer *l = &n->layer[i];
        *in_weights = !parameters_finite(n, l, rows == 0 && n->limited && i + 1 < n->layers);
        const size_t run = n->copies.rows && i >= n->copies.from ? n->copies.rows : rows;
        if (*in_weights || (rows && !panels_finite(n, &n->used[i].out, run, n->used[i].n_out)))
            return i;
    }
    return n->layers;
}

/* A layer that may drop units may keep all of them in this step: then it has no mask, as if it had no dropout. Nor has
 * a hidden layer whose rows share one: its dropped units are not there. */
static void choose_masks(const cdrop_network *n)
{
    for (size_t i = 0; i < n->layers; i++) {
        const layer *l = &n->layer[i];
        const int whole = l->keep == CDROP_KEEP_ALL;
        n->masks[i] = whole || (i && l->kind == CDROP_SHARED) ? NULL : l->mask;
        n->noise[i] = whole ? NULL : l->noise;
        if (n->masks[i] && l->kind == CDROP_MEMBERS)
            cdrop_draw_members(l->members, n->members, n, i);
    }
}

/* What all threads must agree on is decided here, before the job: memory, masks or not, the layers, lists or dense.
 * After it there is one thread again, which counts, learns rates and looks for numbers that are not finite. */
cdrop_status cdrop_network_step(cdrop_network *n, const cdrop_batch *batch, const cdrop_optimizer *optimizer,
                                uint64_t step, int threads, double *loss)
{
    cdrop_status status;
    int in_weights;
    const double begin = cdrop_begin_watches(n);
    n->limited = optimizer->max_norm > 0 && optimizer->max_norm < 1e150; /* larger ones are as good as none */
    const size_t rows_run = batch->n * (batch->samples ? batch->samples : 1);
    const int asked = threads > 0, first = cdrop_threads_for(n, rows_run, threads);
    const int most = cdrop_most_threads(n, rows_run, threads);
    threads = asked ? most : cdrop_paced_threads(&n->pace, first, most);
    if (cdrop_reserve_training(n, batch->n, batch->samples, most) != CDROP_OK)
        return CDROP_NO_MEMORY;
    choose_masks(n);
    const row_copies *copies = cdrop_repeat_rows(n, batch);
    const int64_t *rows = copies ? copies->data : batch->rows; /* of the losses */
    cdrop_batch now = *batch;
    if (copies && !copies->from) { /* no layer runs on the rows themselves */
        now.rows = rows;
        now.n = copies->rows;
    }
    n->used = cdrop_choose_layers(n, step);
    pass s = {
        .n = n,
        .layer = (layer *)n->used,
        .batch = &now,
        .kept = cdrop_kept_lists(n, batch, 1),
        .copies = copies,
        .consistency = copies ? batch->consistency : 0,
        .masks = n->masks,
        .noise = n->noise,
        .seed = n->seed,
        .step = step,
        .purpose = CDROP_FOR_MASKS,
        .training = 1,
        .finish_outputs = one_panel_of_outputs(n) ? finish_with_losses : NULL,
        .begin = begin,
        .total = loss,
        .status = &status,
        .weight_update = cdrop_update_of(optimizer, 0),
        .bias_update = cdrop_update_of(optimizer, 1),
        .max_norm = optimizer->max_norm,
        .loss = {.loss = n->loss,
                 .parameters = n->loss_parameters,
                 .rows = rows,
                 .truth = batch->truth,
                 .n = n->layer[n->layers - 1].n_out,
                 .weight_sum = cdrop_weight_sum(batch->truth.weights, rows, copies ? copies->rows : batch->n)},
    };
    cdrop_choose_products(&s);
    if (optimizer->learned) /* from the squares of the weights before the update */
        cdrop_begin_learning(&s, optimizer->entropy);
    memset(n->claims, 0, n->layers * CDROP_LOOPS * (size_t)n->threads * sizeof *n->claims);
    const double start = cdrop_now();
    cdrop_parallel(step_job, &s, threads);
    if (!asked)
        cdrop_note_pace(&n->pace, first, most, batch->n, cdrop_now() - start);
    cdrop_lap(n->watches, CDROP_TIME_WAIT_END, 0);
    cdrop_measure_density(&s);
    cdrop_end_thinned(&s);
    if (optimizer->learned && status == CDROP_OK)
        cdrop_learn_rates(&s, optimizer->learned);
    /* The loss is that of the weights before the update, so it cannot show what the update did. */
    if (status == CDROP_OK && cdrop_network_fault(n, 0, &in_weights) < n->layers)
        status = CDROP_DIVERGED;
    cdrop_lap(n->watches, CDROP_TIME_CHECKS, 0);
    cdrop_end_watches(&s);
    return status;
}
