/* Losses and their gradients, row by row; the softmax and what answers need; and the sums that are not products: by
 * column, of squares, and the slopes of learned rates.
 *
 * There are three kinds of sums, each with the same additions in the same order on every path. One that goes across
 * lanes has CDROP_LANES partial sums, element i in partial i % CDROP_LANES, which then go through one fixed tree; it is
 * of the element type. One by column is a chain in each lane. And a row's loss is summed in double, output by output in
 * ascending order, in plain C.
 *
 * Rows may be a caller's, which end where the next one begins, or where the memory ends: nothing behind their last
 * element is read or written. A gradient may be written over the outputs that it is of, so each function reads an
 * output for the last time before it writes that place. */

/* Vectors of a group of CDROP_LANES elements: from 1 (float on AVX-512) to 16 (the scalar path). */
#define PARTIALS (CDROP_LANES / L)

/* One group of CDROP_LANES elements, of which n are there; the others are `other`, which is chosen to change nothing in
 * what follows: 0 for a sum, an element of the row for a maximum, minus infinity under exp. So the last group of a row
 * takes the same steps as a whole one. */
static inline void KERNEL(load_group)(VEC group[], const REAL *p, size_t n, VEC other)
{
    for (size_t v = 0; v < PARTIALS; v++) {
        const size_t at = v * L;
        if (n >= at + L)
            group[v] = V(vload)(p + at);
        else if (n <= at)
            group[v] = other;
        else
            group[v] = V(vselect)((1u << (n - at)) - 1, V(vload_first)(p + at, n - at), other);
    }
}

static inline void KERNEL(store_group)(REAL *p, const VEC group[], size_t n)
{
    for (size_t v = 0; v < PARTIALS; v++) {
        const size_t at = v * L;
        if (n >= at + L)
            V(vstore)(p + at, group[v]);
        else if (n > at)
            V(vstore_first)(p + at, group[v], n - at);
    }
}

/* Partials 8 apart are added, then those 4, 2 and 1 apart. Lane j of vector v is partial v L + j, so the first
 * additions are those of whole vectors and the others those of lanes. The width of a vector decides how many of each
 * there are, but not which numbers meet. */
static inline double KERNEL(tree)(VEC partial[])
{
    REAL lane[V(VEC_LANES)];
    for (size_t half = PARTIALS / 2; half; half /= 2)
        for (size_t v = 0; v < half; v++)
            partial[v] = V(vadd)(partial[v], partial[v + half]);
    V(vstore)(lane, partial[0]);
    for (size_t half = L / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return (double)lane[0];
}

/* Vectors of a group of which n elements are there. The others are left out where a vector costs an exponential: they
 * would add exp of minus infinity, which is 0. */
static inline size_t KERNEL(vectors_of)(size_t n) { return cdrop_min((n + L - 1) / L, PARTIALS); }

/* Of a NaN in row[0], NaN; others are ignored, and show in the sum of the exponentials. Nothing is rounded here, so any
 * order of lanes finds the same number. (Or a zero of the other sign, which makes no difference under exp, nor to the
 * loss.) */
static inline REAL KERNEL(row_max)(const REAL *row, size_t n)
{
    VEC group[PARTIALS];
    REAL lane[V(VEC_LANES)];
    const VEC lowest = V(vset)(row[0]);
    VEC most = lowest;
    for (size_t i = 0; i < n; i += CDROP_LANES) {
        KERNEL(load_group)(group, row + i, n - i, lowest);
        for (size_t v = 0; v < KERNEL(vectors_of)(n - i); v++)
            most = V(vmax)(group[v], most);
    }
    V(vstore)(lane, most);
    for (size_t half = L / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    return lane[0];
}

/* out = exp(logits - max), and its sum. No argument is above 0, so nothing overflows, and the largest term is exactly
 * 1: the sum is at least that, and its logarithm finite. A group is loaded before it is stored: out may be logits. */
static inline REAL KERNEL(exponentials)(REAL *out, const REAL *logits, size_t n, REAL max)
{
    VEC partial[PARTIALS], group[PARTIALS];
    const VEC shift = V(vset)(max), lowest = V(vset)(-CDROP_INFINITY);
    for (size_t v = 0; v < PARTIALS; v++)
        partial[v] = V(vset)(0);
    for (size_t i = 0; i < n; i += CDROP_LANES) {
        KERNEL(load_group)(group, logits + i, n - i, lowest);
        for (size_t v = 0; v < KERNEL(vectors_of)(n - i); v++) {
            group[v] = KERNEL(exp)(V(vsub)(group[v], shift));
            partial[v] = V(vadd)(partial[v], group[v]);
        }
        KERNEL(store_group)(out + i, group, n - i);
    }
    return (REAL)KERNEL(tree)(partial);
}

static inline void KERNEL(scale_row)(REAL *row, size_t n, REAL factor)
{
    VEC group[PARTIALS];
    for (size_t i = 0; i < n; i += CDROP_LANES) {
        KERNEL(load_group)(group, row + i, n - i, V(vset)(0));
        for (size_t v = 0; v < PARTIALS; v++)
            group[v] = V(vmul)(group[v], V(vset)(factor));
        KERNEL(store_group)(row + i, group, n - i);
    }
}

/* loss = log sum exp(z - m) - (z_label - m), m the largest logit. The label's probability may underflow to 0, and its
 * logarithm would be infinite; this difference is finite for logits of any size. The gradient is factor (p - 1 of the
 * label): factor and the division by the sum are one number, found in double, so that an output costs one
 * multiplication. */
static double KERNEL(softmax_row)(void *dlogits_, const void *logits_, size_t n, int64_t label, double factor)
{
    const REAL *logits = logits_;
    REAL *dlogits = dlogits_;
    const REAL max = KERNEL(row_max)(logits, n), of_label = logits[label]; /* before dlogits may overwrite it */
    const REAL sum = KERNEL(exponentials)(dlogits, logits, n, max);
    KERNEL(scale_row)(dlogits, n, (REAL)(factor / (double)sum));
    dlogits[label] -= (REAL)factor;
    return cdrop_log((double)sum) - ((double)of_label - (double)max);
}

/* L rows of n <= CDROP_LANES logits become n vectors, a lane for each row. Lanes beyond the rows are zeros. */
static inline void KERNEL(rows_to_lanes)(REAL lanes[][V(VEC_LANES)], REAL row[][CDROP_LANES], const REAL *in,
                                         size_t pitch, size_t n, size_t rows)
{
    VEC group[PARTIALS];
    for (size_t r = 0; r < L; r++) {
        KERNEL(load_group)(group, in + r * pitch, r < rows ? n : 0, V(vset)(0));
        KERNEL(store_group)(row[r], group, CDROP_LANES);
    }
    size_t i = 0;
    do /* n is not 0 */
        V(vtranspose)(lanes[i], L, row[0] + i, CDROP_LANES);
    while ((i += L) < n);
}

/* The tree of a row with one element in each partial sum. Of the partial sums only n are not 0, and exponentials are
 * not negative: an addition of a missing one would change nothing, and is left out. */
static inline VEC KERNEL(tree_of_lanes)(REAL lanes[][V(VEC_LANES)], size_t n)
{
    VEC sum[CDROP_LANES];
    for (size_t i = 0; i < n; i++)
        sum[i] = V(vload)(lanes[i]);
    for (size_t half = CDROP_LANES / 2; half; half /= 2)
        for (size_t i = half; i < cdrop_min(n, 2 * half); i++)
            sum[i - half] = V(vadd)(sum[i - half], sum[i]);
    return sum[0];
}

/* log of a sum of exponentials, one of which is exp(0): at least 1, or NaN. */
static inline double KERNEL(log_of_sum)(double sum) { return cdrop_log_normal(sum, 0) + (sum - sum); }

/* softmax_row of L rows or fewer. By itself a row with few classes is a chain of operations on few lanes: largest,
 * exponential, tree, quotient, logarithm, each waiting for the one before. Here each operation is on all rows; the
 * compiler vectorizes those in double. A row has the operations of softmax_row in their order, so the same bits. */
static inline void KERNEL(softmax_lanes)(REAL *dlogits, size_t d_pitch, const REAL *logits, size_t pitch, size_t n,
                                         size_t rows, const int64_t *labels, const double *factors, double *losses)
{
    _Alignas(CDROP_CACHE_LINE) REAL row[V(VEC_LANES)][CDROP_LANES], lanes[CDROP_LANES][V(VEC_LANES)];
    REAL max[V(VEC_LANES)], sum[V(VEC_LANES)], factor[V(VEC_LANES)], of_label[V(VEC_LANES)];
    REAL label[V(VEC_LANES)] = {0}, whole[V(VEC_LANES)] = {0};
    double share[V(VEC_LANES)] = {0}, loss[V(VEC_LANES)];
    for (size_t r = 0; r < rows; r++) {
        label[r] = (REAL)labels[r];
        share[r] = factors[r];
        whole[r] = (REAL)factors[r];
    }
    KERNEL(rows_to_lanes)(lanes, row, logits, pitch, n, rows);
    const VEC which = V(vload)(label);
    VEC most = V(vload)(lanes[0]), chosen = most;
    for (size_t i = 1; i < n; i++) {
        const VEC logit = V(vload)(lanes[i]);
        most = V(vmax)(logit, most);
        chosen = V(vselect)(V(vbits_eq)(which, V(vset)((REAL)i)), logit, chosen);
    }
    for (size_t i = 0; i < n; i++)
        V(vstore)(lanes[i], KERNEL(exp)(V(vsub)(V(vload)(lanes[i]), most)));
    V(vstore)(max, most);
    V(vstore)(of_label, chosen);
    V(vstore)(sum, KERNEL(tree_of_lanes)(lanes, n));
    for (size_t r = 0; r < L; r++)
        factor[r] = (REAL)(share[r] / (double)sum[r]);
    for (size_t r = 0; r < L; r++)
        loss[r] = KERNEL(log_of_sum)((double)sum[r]) - ((double)of_label[r] - (double)max[r]);
    for (size_t i = 0; i < n; i++) {
        const VEC one = V(vselect)(V(vbits_eq)(which, V(vset)((REAL)i)), V(vload)(whole), V(vset)(0));
        V(vstore)(lanes[i], V(vsub)(V(vmul)(V(vload)(lanes[i]), V(vload)(factor)), one));
    }
    for (size_t i = 0; i < n; i += L)
        V(vtranspose)(row[0] + i, CDROP_LANES, lanes[i], L);
    for (size_t r = 0; r < rows; r++) {
        VEC group[PARTIALS];
        KERNEL(load_group)(group, row[r], CDROP_LANES, V(vset)(0));
        KERNEL(store_group)(dlogits + r * d_pitch, group, n);
        losses[r] = loss[r];
    }
}

static void KERNEL(softmax_rows)(void *dlogits, size_t d_pitch, const void *logits, size_t pitch, size_t n, size_t rows,
                                 const int64_t *labels, const double *factors, double *losses)
{
    for (size_t r = 0; r < rows; r += L)
        KERNEL(softmax_lanes)
    ((REAL *)dlogits + r * d_pitch, d_pitch, (const REAL *)logits + r * pitch, pitch, n, cdrop_min(L, rows - r),
     labels + r, factors + r, losses + r);
}

/* Targets are probabilities t, or without them those of the label, smoothed. With T their sum, which is 1 to rounding,
 * and m the largest logit: T log sum exp(z - m) - sum t (z - m). Its gradient is T p - t, with the T of these targets:
 * if they were rounded, loss and gradient still agree.
 *
 * Both sums are chains in double. A smoothed target is computed where it is needed, twice with the same operations: no
 * row of them is stored. */
static double KERNEL(softmax_to_row)(void *dlogits_, const void *logits_, const void *targets_, size_t n, int64_t label,
                                     double factor, double smoothing)
{
    const REAL *logits = logits_, *targets = targets_, max = KERNEL(row_max)(logits, n);
    REAL *dlogits = dlogits_;
    const double sharp = 1 - smoothing, even = smoothing / (double)n;
    double total = 0, linear = 0;
#define TARGET(i) (sharp * (targets ? (double)targets[i] : (double)((int64_t)(i) == label)) + even)
    for (size_t i = 0; i < n; i++) {
        total += TARGET(i);
        linear += TARGET(i) * ((double)logits[i] - (double)max);
    }
    const REAL sum = KERNEL(exponentials)(dlogits, logits, n, max);
    KERNEL(scale_row)(dlogits, n, (REAL)(factor * total / (double)sum));
    for (size_t i = 0; i < n; i++)
        dlogits[i] -= (REAL)(factor * TARGET(i));
#undef TARGET
    return total * cdrop_log((double)sum) - linear;
}

/* The sum over outputs of (p - q) (a - b) / 2: log(p / q) is a - b plus what is the same for all outputs, and the
 * differences p - q add up to 0. With the sigmoid log(p / q) - log((1 - p) / (1 - q)) is a - b. So no logarithm is
 * taken, and a probability that has underflowed to 0 does no harm.
 *
 * The gradient by a has two terms: p - q, because a - b changes; and, because p does, the derivative of p times a - b.
 * In the softmax that of p_i by a_j is p_i (1 if i = j, else 0) - p_i p_j, which leaves p_j times the distance of a_j -
 * b_j from its mean under p: hence the first loop. In the sigmoid it is p (1 - p). */
static double KERNEL(divergence)(void *da_, void *db_, const void *a_, const void *b_, const void *p_, const void *q_,
                                 size_t n, double factor, int apart)
{
    const REAL *a = a_, *b = b_, *p = p_, *q = q_;
    REAL *da = da_, *db = db_;                /* they hold the gradients of the rows' own losses */
    double total = 0, mean_p = 0, mean_q = 0; /* of a - b */
    for (size_t i = 0; i < n; i++) {
        const double pi = (double)p[i], qi = (double)q[i], apart_by = (double)a[i] - (double)b[i];
        total += (pi - qi) * apart_by;
        mean_p += pi * apart_by;
        mean_q += qi * apart_by;
    }
    for (size_t i = 0; i < n; i++) {
        const double pi = (double)p[i], qi = (double)q[i], apart_by = (double)a[i] - (double)b[i];
        const double by_p = apart ? (1 - pi) * apart_by : apart_by - mean_p;
        const double by_q = apart ? (1 - qi) * apart_by : apart_by - mean_q;
        da[i] += (REAL)(0.5 * factor * (pi - qi + pi * by_p));
        db[i] -= (REAL)(0.5 * factor * (pi - qi + qi * by_q));
    }
    return 0.5 * total;
}

static void KERNEL(softmax)(void *out, const void *logits, size_t n)
{
    const REAL sum = KERNEL(exponentials)(out, logits, n, KERNEL(row_max)(logits, n));
    KERNEL(scale_row)(out, n, (REAL)(1 / (double)sum));
}

/* A NaN compares false, so it becomes the best at once, and ends the loop: the comparison of `best` with itself. */
static size_t KERNEL(largest)(const void *row_, size_t n)
{
    const REAL *row = row_;
    size_t best = 0;
    for (size_t i = 1; i < n && row[best] == row[best]; i++)
        if (!(row[i] <= row[best]))
            best = i;
    return best;
}

static void KERNEL(positive)(int64_t *out, const void *row_, size_t n)
{
    const REAL *row = row_;
    for (size_t i = 0; i < n; i++)
        out[i] = row[i] > 0;
}

/* max(x, 0) - x t + log(1 + exp(-|x|)), which is -t log s - (1 - t) log(1 - s) with s = sigmoid(x), for x of any size:
 * exp has no argument above 0, and the logarithm is one of numbers from 1 to 2. x becomes the gradient, s - t.
 *
 * Exponentials are in vectors; the loop over doubles has no branch, so the compiler vectorizes it. */
static inline void KERNEL(sigmoid_terms)(double *terms, REAL *x, REAL *t, size_t n, double smoothing)
{
    const VEC sharp = V(vset)((REAL)(1 - smoothing)), even = V(vset)((REAL)(smoothing / 2));
    REAL e[CDROP_LANES * CDROP_LANES];
    for (size_t i = 0; i < n; i += L) {
        V(vstore)(t + i, V(vfma)(V(vload)(t + i), sharp, even));
        V(vstore)(e + i, KERNEL(exp)(V(vsub)(V(vset)(0), V(vabs)(V(vload)(x + i)))));
    }
    for (size_t i = 0; i < n; i++) {
        const double z = (double)x[i];
        terms[i] = (z > 0 ? z : 0) - z * (double)t[i] + cdrop_log_1_plus((double)e[i]);
    }
    for (size_t i = 0; i < n; i += L)
        V(vstore)(x + i, V(vsub)(KERNEL(sigmoid)(V(vload)(x + i)), V(vload)(t + i)));
}

/* Up to CDROP_LANES outputs of each row at a time, one row's behind another's without a gap: with one output, as
 * networks for two classes have, a vector is of as many rows as it has lanes. The terms of a row are added in the order
 * of its outputs, as if it were alone. */
static void KERNEL(sigmoid_rows)(void *dlogits_, size_t d_pitch, const void *logits_, size_t pitch,
                                 const void *const *targets, size_t n, size_t rows, const double *factors,
                                 double smoothing, double *losses)
{
    const REAL *logits = logits_;
    REAL *dlogits = dlogits_, x[CDROP_LANES * CDROP_LANES] = {0}, t[CDROP_LANES * CDROP_LANES] = {0};
    double terms[CDROP_LANES * CDROP_LANES];
    for (size_t r = 0; r < rows; r++)
        losses[r] = 0;
    for (size_t from = 0; from < n; from += CDROP_LANES) {
        const size_t width = cdrop_min(CDROP_LANES, n - from);
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < width; i++) {
                x[r * width + i] = logits[r * pitch + from + i];
                t[r * width + i] = ((const REAL *)targets[r])[from + i];
            }
        KERNEL(sigmoid_terms)(terms, x, t, rows * width, smoothing);
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < width; i++) {
                dlogits[r * d_pitch + from + i] = x[r * width + i] * (REAL)factors[r];
                losses[r] += terms[r * width + i];
            }
    }
}

static double KERNEL(squared_row)(void *doutputs_, const void *outputs_, const void *targets_, size_t n, double factor)
{
    const REAL *outputs = outputs_, *targets = targets_;
    REAL *doutputs = doutputs_;
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const double error = (double)outputs[i] - (double)targets[i];
        loss += 0.5 * error * error;
        doutputs[i] = (REAL)error * (REAL)factor;
    }
    return loss;
}

/* Slopes are chosen so that NaN stays NaN, and equal numbers have a gradient of 0: an error that compares false both
 * times is the slope itself. */
static double KERNEL(huber_row)(void *doutputs_, const void *outputs_, const void *targets_, size_t n, double factor,
                                double delta)
{
    const REAL *outputs = outputs_, *targets = targets_;
    REAL *doutputs = doutputs_;
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const double error = (double)outputs[i] - (double)targets[i], size = fabs(error);
        const double slope = error > delta ? delta : error < -delta ? -delta : error;
        loss += size <= delta ? 0.5 * error * error : delta * (size - 0.5 * delta);
        doutputs[i] = (REAL)slope * (REAL)factor;
    }
    return loss;
}

/* As in huber_row, the slope of an error that is 0 or NaN is that error. The loss is slope times error, which is never
 * negative. A step of 0 gives all outputs the same target. */
static double KERNEL(pinball_row)(void *doutputs_, const void *outputs_, const void *targets_, size_t step, size_t n,
                                  double factor, const double *quantiles)
{
    const REAL *outputs = outputs_, *targets = targets_;
    REAL *doutputs = doutputs_;
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const double error = (double)outputs[i] - (double)targets[i * step];
        const double above = quantiles ? 1 - quantiles[i] : 1, below = quantiles ? quantiles[i] : 1;
        const double slope = error > 0 ? above : error < 0 ? -below : error;
        loss += slope * error;
        doutputs[i] = (REAL)slope * (REAL)factor;
    }
    return loss;
}

/* Whole vectors, and at the end lanes of zeros whose results are not stored. */
static void KERNEL(exponential)(void *x_, size_t n)
{
    REAL *x = x_;
    size_t i = 0;
    for (; i + L <= n; i += L)
        V(vstore)(x + i, KERNEL(exp_any)(V(vload)(x + i)));
    if (i < n)
        V(vstore_first)(x + i, KERNEL(exp_any)(V(vload_first)(x + i, n - i)), n - i);
}

/* Half the deviance: exp(z) - t z + t log t - t, where t log t is 0 of t = 0. The last two terms are the same for all
 * outputs z: with them the least loss is 0. Means of one group at a time, so that no memory is needed for a row of
 * them, and outputs are read before the gradient may overwrite them. A mean that overflows is infinite, which leaves no
 * finite loss. */
static double KERNEL(poisson_row)(void *doutputs_, const void *outputs_, const void *targets_, size_t n, double factor)
{
    const REAL *outputs = outputs_, *targets = targets_;
    REAL *doutputs = doutputs_, mean[CDROP_LANES];
    double loss = 0;
    for (size_t i = 0; i < n; i += CDROP_LANES) {
        const size_t count = cdrop_min(CDROP_LANES, n - i);
        for (size_t j = 0; j < count; j++)
            mean[j] = outputs[i + j];
        KERNEL(exponential)(mean, count);
        for (size_t j = 0; j < count; j++) {
            const double t = (double)targets[i + j];
            loss += (double)mean[j] - t * (double)outputs[i + j] + (t > 0 ? t * (cdrop_log(t) - 1) : 0);
            doutputs[i + j] = (mean[j] - targets[i + j]) * (REAL)factor;
        }
    }
    return loss;
}

/* Line by line, group by group: partial j is a chain of fused multiply-adds over columns j, j + 16, ... of each line.
 * The padding of lines is not read, for it is not weights. */
static double KERNEL(sum_squares)(const void *in_, size_t pitch, size_t columns, size_t lines)
{
    const REAL *in = in_;
    VEC partial[PARTIALS], group[PARTIALS];
    for (size_t v = 0; v < PARTIALS; v++)
        partial[v] = V(vset)(0);
    for (size_t line = 0; line < lines; line++)
        for (size_t i = 0; i < columns; i += CDROP_LANES) {
            KERNEL(load_group)(group, in + line * pitch + i, columns - i, V(vset)(0));
            for (size_t v = 0; v < PARTIALS; v++)
                partial[v] = V(vfma)(group[v], group[v], partial[v]);
        }
    return KERNEL(tree)(partial);
}

/* z = 1 - keep * noise is the smooth step of concrete dropout, and the derivative of the noise by logit(1 - keep) is
 * the noise times (1 - keep) - z / 0.1. No division by the noise, which may be 0. With z put in, the factor is
 * 10 keep noise - 9 - keep: one fused multiply-add of two constants of the call.
 *
 * `delta` is the gradient by the noisy inputs, not gated, and `a` may hold what the ReLU's lists left out, so entries
 * that are not live are selected to be 0; multiplied by 0, an infinite one would be NaN. */
static inline double KERNEL(rate_slope)(const REAL *delta, const REAL *a, const REAL *noise, size_t columns,
                                        const uint64_t *live, double keep)
{
    const VEC zero = V(vset)(0), factor = V(vset)((REAL)(10 * keep)), constant = V(vset)((REAL)(-9 - keep));
    VEC partial[PARTIALS], d[PARTIALS], x[PARTIALS], f[PARTIALS];
    for (size_t v = 0; v < PARTIALS; v++)
        partial[v] = zero;
    for (size_t i = 0; i < columns; i += CDROP_LANES) {
        /* A group's bits are in one word, because CDROP_LANES divides CDROP_BLOCK. */
        const uint64_t bits = live[i / CDROP_BLOCK] >> (i % CDROP_BLOCK);
        KERNEL(load_group)(d, delta + i, columns - i, zero);
        KERNEL(load_group)(x, a + i, columns - i, zero);
        KERNEL(load_group)(f, noise + i, columns - i, zero);
        for (size_t v = 0; v < PARTIALS; v++) {
            const VEC noisy = V(vmul)(d[v], V(vmul)(x[v], f[v]));
            const VEC term = V(vmul)(noisy, V(vfma)(f[v], factor, constant));
            partial[v] = V(vadd)(partial[v], V(vselect)((unsigned)(bits >> v * L) & ((1u << L) - 1), term, zero));
        }
    }
    return KERNEL(tree)(partial);
}

/* One number for each line, not one for all: threads have different lines, and their sum must not depend on which. It
 * is added up after the step, panel by panel and line by line (see learned.c). */
static void KERNEL(rate_slopes)(double *out, const void *delta_, size_t pitch, const void *a_, size_t a_pitch,
                                size_t columns, size_t lines, const cdrop_gate *g, double keep)
{
    const REAL *delta = delta_, *a = a_, *noise = g->noise;
    for (size_t i = 0; i < lines; i++)
        out[i] = KERNEL(rate_slope)(delta + i * pitch, a + i * a_pitch, noise + i * g->noise_pitch, columns,
                                    g->live + i * g->words, keep);
}

/* A strip of CDROP_LANES columns from the first line to the last: its sums stay in registers, and each line of it is
 * one or two whole cache lines. Each chain begins at +0, so a sum of zeros is +0 whatever their signs. */
static void KERNEL(column_sums)(void *out_, const void *in_, size_t pitch, size_t width, size_t lines)
{
    REAL *out = out_;
    for (size_t i = 0; i < width; i += CDROP_LANES) {
        const REAL *in = (const REAL *)in_ + i;
        VEC sum[PARTIALS];
        for (size_t v = 0; v < PARTIALS; v++)
            sum[v] = V(vset)(0);
        for (size_t line = 0; line < lines; line++)
            for (size_t v = 0; v < PARTIALS; v++)
                sum[v] = V(vadd)(sum[v], V(vload)(in + line * pitch + v * L));
        for (size_t v = 0; v < PARTIALS; v++)
            V(vstore)(out + i + v * L, sum[v]);
    }
}
