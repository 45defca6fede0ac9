#include "optimizers.h"

#include "cpu.h"

int cdrop_rule_states(cdrop_rule rule) { return rule == CDROP_SGD ? 0 : rule == CDROP_ADAM ? 2 : 1; }

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
