/* From an optimizer's settings to the constants of one update, and the limit of norms (max-norm) that may follow it.
 * The arithmetic on the weights is in simd/update.inc.h. */
#include "optimizers.h"

#include "cpu.h"

int cdrop_rule_states(cdrop_rule rule) { return rule == CDROP_SGD ? 0 : rule == CDROP_ADAM ? 2 : 1; }

/* Everything constant over a step is folded into the constants, in double, once: Adam's first bias correction into
 * the rate, its second into a factor of the squared gradients' mean. Biases are neither penalized nor decayed, as is
 * usual. */
cdrop_update cdrop_update_of(const cdrop_optimizer *o, int bias)
{
    const int adam = o->rule == CDROP_ADAM;
    return (cdrop_update){
        .rule = o->rule,
        .rate = adam ? o->learning_rate / o->correction1 : o->learning_rate,
        .l2 = bias ? 0 : o->l2,
        .decay = bias ? 0 : o->learning_rate * o->weight_decay,
        .a = o->a,
        .b = o->b,
        .epsilon = o->epsilon,
        .second = adam ? 1 / o->correction2 : 1,
    };
}

void cdrop_update_weights(cdrop_dtype dtype, void *weight, const void *gradient, void *state1, void *state2, size_t n,
                          const cdrop_optimizer *optimizer)
{
    const cdrop_update u = cdrop_update_of(optimizer, 0);
    const cdrop_fp_mode mode = cdrop_flush_denormals();
    cdrop_kernels_of(dtype)->update(weight, gradient, state1, state2, n, &u);
    cdrop_restore_fp_mode(mode);
}

double *cdrop_take_squares(cdrop_workspace *w, size_t lines, size_t columns)
{
    return cdrop_take(w, cdrop_blocks(lines) * cdrop_pad(columns), sizeof(double));
}

/* Block by block, because different threads update the blocks of one column; each column of a block is one ascending
 * chain. */
void cdrop_note_norms(const cdrop_kernels *k, const cdrop_norms *n, size_t line_block, size_t column_block)
{
    const cdrop_tile tile = cdrop_tile_at(n->weight, k, line_block, column_block);
    k->column_squares(n->squares + line_block * cdrop_pad(n->columns) + column_block * CDROP_BLOCK, tile.data,
                      tile.pitch, cdrop_in_block(n->columns, column_block), cdrop_in_block(n->lines, line_block));
}

/* Each thread computes the factors of its columns from the noted squares, all line blocks in ascending order.
 * Threads that share a column block repeat that small sum instead of waiting for each other. A column block without
 * a norm above the limit is skipped as a whole: its weights are not even read. */
void cdrop_limit_blocks(const cdrop_kernels *k, const cdrop_norms *n, double limit, cdrop_team team,
                        cdrop_block_sink sink, void *context)
{
    const size_t groups = cdrop_blocks(n->lines);
    double factors[CDROP_BLOCK]; /* room for either element type */
    size_t item, end;
    cdrop_share(team, groups * cdrop_blocks(n->columns), &item, &end);
    while (item < end) {
        const size_t column_block = item / groups, next = cdrop_min(end, (column_block + 1) * groups);
        const size_t columns = cdrop_in_block(cdrop_pad(n->columns), column_block);
        const size_t above = k->limit_factors(factors, n->squares + column_block * CDROP_BLOCK, cdrop_pad(n->columns),
                                              columns, groups, limit);
        for (; above && item < next; item++) {
            const cdrop_tile tile = cdrop_tile_at(n->weight, k, item % groups, column_block);
            k->scale_columns(tile.data, tile.pitch, factors, columns, cdrop_in_block(n->lines, item % groups));
            sink(context, item % groups, column_block);
        }
        item = next;
    }
}

/* A single matrix has no squares that would have to follow. */
static void ignore_block(void *context, size_t line_block, size_t column_block)
{
    (void)context, (void)line_block, (void)column_block;
}

cdrop_status cdrop_limit_norms(cdrop_dtype dtype, void *weight, size_t n_in, size_t n_out, double max_norm)
{
    const cdrop_kernels *k = cdrop_kernels_of(dtype);
    const cdrop_team alone = {.size = 1};
    cdrop_workspace space = {0};
    const cdrop_panels panels = cdrop_take_panels(&space, k, n_in, n_out);
    const cdrop_norms norms = {
        .weight = &panels, .lines = n_in, .columns = n_out, .squares = cdrop_take_squares(&space, n_in, n_out)};
    if (space.failed) {
        cdrop_release(&space);
        return CDROP_NO_MEMORY;
    }
    cdrop_pack(&panels, k, weight, n_out, 0, n_in);
    const cdrop_fp_mode mode = cdrop_flush_denormals();
    for (size_t line_block = 0; line_block < cdrop_blocks(n_in); line_block++)
        for (size_t column_block = 0; column_block < cdrop_blocks(n_out); column_block++)
            cdrop_note_norms(k, &norms, line_block, column_block);
    cdrop_limit_blocks(k, &norms, max_norm, alone, ignore_block, NULL);
    cdrop_restore_fp_mode(mode);
    cdrop_unpack(&panels, k, weight, n_out, 0, n_in);
    cdrop_release(&space);
    return CDROP_OK;
}
