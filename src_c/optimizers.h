/* From an optimiser's settings to the constants of one update. */
#ifndef CDROP_OPTIMIZERS_H
#define CDROP_OPTIMIZERS_H

#include "kernels.h"

/* The constants for weights, or with `bias` for biases, which are never decayed. */
cdrop_update cdrop_update_of(const cdrop_optimizer *o, int bias);

#endif
