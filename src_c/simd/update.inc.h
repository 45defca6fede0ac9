/* The update rules on flat arrays, the limit of column norms, and the transpose of a block of weights, which
 * gradients by input run on.
 *
 * An element's update depends on that element alone, so it does not matter how an array is divided. The order of
 * operations inside a rule is fixed and spelled in the vocabulary's operations, each correctly rounded on every
 * path, division and square root included: any other association would give other bits, and other golden files. */

/* Broadcast once a call. Differences to 1 are taken in double and rounded once: in float, 1 - 0.999 has four correct
 * digits. */
typedef struct {
    VEC rate, l2, keep, a, b, one_a, one_b, epsilon, second;
} KERNEL(constants);

/* Of how many arrays a rule has states: constant where the rule is, so loads and stores of others vanish. */
static inline CDROP_INLINE int KERNEL(states)(cdrop_rule rule)
{
    return rule == CDROP_SGD ? 0 : rule == CDROP_ADAM ? 2 : 1;
}

/* w and its states, one vector. `rule` is a constant at every call. The gradient already holds the L2 term.
 *
 * SGD: w -= rate g. Momentum: s1 = a s1 - rate g is the step itself. Nesterov takes the same s1, and steps by a s1 -
 * rate g with the new one: the weights that are stored are those looked ahead to. Adagrad sums g^2 in s1, RMSprop
 * averages it. Adam averages g in s1 and g^2 in s2.
 *
 * The three rules that divide by a root end in the same expression, with `top` above and `square` under the root;
 * the other three return early. A state that a rule does not have is a zero vector that is never stored. */
static inline CDROP_INLINE VEC KERNEL(apply)(VEC w, VEC g, VEC *s1, VEC *s2, const KERNEL(constants) * c,
                                             cdrop_rule rule)
{
    const VEC step = V(vmul)(c->rate, g);
    VEC top = step, square = *s1;
    switch (rule) {
    case CDROP_SGD:
        return V(vsub)(w, step);
    case CDROP_MOMENTUM:
        *s1 = V(vsub)(V(vmul)(c->a, *s1), step);
        return V(vadd)(w, *s1);
    case CDROP_NESTEROV:
        *s1 = V(vsub)(V(vmul)(c->a, *s1), step);
        return V(vadd)(w, V(vsub)(V(vmul)(c->a, *s1), step));
    case CDROP_ADAGRAD:
        square = *s1 = V(vfma)(g, g, *s1);
        break;
    case CDROP_RMSPROP:
        square = *s1 = V(vfma)(V(vmul)(c->one_a, g), g, V(vmul)(c->a, *s1));
        break;
    case CDROP_ADAM:
        /* Decoupled decay comes before the step, and does not enter the averages. The rate already has the first
         * bias correction, `second` is the second (see cdrop_update_of). */
        w = V(vmul)(w, c->keep);
        *s1 = V(vfma)(c->one_a, g, V(vmul)(c->a, *s1));
        *s2 = V(vfma)(V(vmul)(c->one_b, g), g, V(vmul)(c->b, *s2));
        top = V(vmul)(c->rate, *s1);
        square = V(vmul)(c->second, *s2);
        break;
    }
    return V(vsub)(w, V(vdiv)(top, V(vadd)(V(vsqrt)(square), c->epsilon)));
}

/* Element i and those behind it. Weights, gradients and up to two states are read once and written once. A state is read
 * before it is written: in place without a copy. */
static inline CDROP_INLINE void KERNEL(update_vector)(size_t i, REAL *w, VEC gradient, REAL *s1, REAL *s2,
                                                      const KERNEL(constants) * c, cdrop_rule rule)
{
    const int states = KERNEL(states)(rule);
    VEC weight = V(vload)(w + i), a = V(vset)(0), b = a;
    if (states > 0)
        a = V(vload)(s1 + i);
    if (states > 1)
        b = V(vload)(s2 + i);
    /* The L2 term is of the weight before decay and step. Without L2 it adds 0. */
    weight = KERNEL(apply)(weight, V(vfma)(c->l2, weight, gradient), &a, &b, c, rule);
    V(vstore)(w + i, weight);
    if (states > 0)
        V(vstore)(s1 + i, a);
    if (states > 1)
        V(vstore)(s2 + i, b);
}

/* None of the four arrays may overlap another. In a training step n is a multiple of CDROP_LANES, so the tail is only
 * for arrays of a caller. It takes the same steps in a copy, and touches nothing behind the end. */
static inline CDROP_INLINE void KERNEL(update_with)(REAL *w, const REAL *g, REAL *s1, REAL *s2, size_t n,
                                                    const KERNEL(constants) * c, cdrop_rule rule)
{
    const size_t whole = n - n % L;
    for (size_t i = 0; i < whole; i += L)
        KERNEL(update_vector)(i, w, V(vload)(g + i), s1, s2, c, rule);
    if (whole < n) {
        REAL rest[3][V(VEC_LANES)], *const from[3] = {w, s1, s2};
        const size_t arrays = 1 + (size_t)KERNEL(states)(rule);
        for (size_t a = 0; a < arrays; a++)
            V(vstore)(rest[a], V(vload_first)(from[a] + whole, n - whole));
        KERNEL(update_vector)(0, rest[0], V(vload_first)(g + whole, n - whole), rest[1], rest[2], c, rule);
        for (size_t a = 0; a < arrays; a++)
            V(vstore_first)(from[a] + whole, V(vload)(rest[a]), n - whole);
    }
}

/* Columns [first, end) of the lines, at most CDROP_BLOCK. The rules wait for square roots and divisions: meanwhile the
 * background is added and the squares are summed, which would otherwise each read the block again. Both have the
 * operations of the kernels that they stand for, product_pass and sum_squares, in their order. (The product would also
 * turn a -0 into +0 where nothing is listed, but products have left none in the gradient.) */
static inline CDROP_INLINE double KERNEL(update_block)(const cdrop_weight_lines *u, size_t first, size_t end,
                                                       const KERNEL(constants) * c, cdrop_rule rule)
{
    REAL *w = u->weight, *s1 = u->state1, *s2 = u->state2;
    const cdrop_lists *lists = u->background;
    const size_t columns = cdrop_min(end, u->columns) - first;
    const int states = KERNEL(states)(rule);
    const VEC zero = V(vset)(0);
    VEC partial[PARTIALS], group[PARTIALS];
    for (size_t v = 0; v < PARTIALS; v++)
        partial[v] = zero;
    for (size_t line = 0; line < u->lines; line++) {
        const size_t at = line * u->width + first, list = u->first + line;
        const REAL *gradient = (const REAL *)u->gradient + at;
        REAL whole[CDROP_BLOCK];
        if (lists && lists->live[list]) {
            const VEC x = V(vset)(((const REAL *)lists->values)[lists->start[list]]);
            for (size_t i = 0; i < end - first; i += L) {
                const VEC sum = V(vfma)(x, V(vload)((const REAL *)u->sums + first + i), V(vload)(gradient + i));
                V(vstore)(whole + i, V(vadd)(sum, zero));
            }
            gradient = whole;
        }
        KERNEL(update_with)
        (w + at, gradient, states > 0 ? s1 + at : NULL, states > 1 ? s2 + at : NULL, end - first, c, rule);
        for (size_t i = 0; i < columns; i += CDROP_LANES) {
            KERNEL(load_group)(group, w + at + i, columns - i, zero);
            for (size_t v = 0; v < PARTIALS; v++)
                partial[v] = V(vfma)(group[v], group[v], partial[v]);
        }
    }
    return KERNEL(tree)(partial);
}

static inline CDROP_INLINE KERNEL(constants) KERNEL(constants_of)(const cdrop_update *u)
{
    return (KERNEL(constants)){
        .rate = V(vset)((REAL)u->rate),
        .l2 = V(vset)((REAL)u->l2),
        .keep = V(vset)((REAL)(1 - u->decay)),
        .a = V(vset)((REAL)u->a),
        .b = V(vset)((REAL)u->b),
        .one_a = V(vset)((REAL)(1 - u->a)),
        .one_b = V(vset)((REAL)(1 - u->b)),
        .epsilon = V(vset)((REAL)u->epsilon),
        .second = V(vset)((REAL)u->second),
    };
}

/* One copy of a sweep for each rule. */
#define EACH_RULE(CASE)                                                                                                \
    CASE(CDROP_SGD)                                                                                                    \
    CASE(CDROP_MOMENTUM)                                                                                               \
    CASE(CDROP_NESTEROV)                                                                                               \
    CASE(CDROP_ADAGRAD)                                                                                                \
    CASE(CDROP_RMSPROP)                                                                                                \
    CASE(CDROP_ADAM)

static void KERNEL(update)(void *w, const void *g, void *s1, void *s2, size_t n, const cdrop_update *u)
{
    const KERNEL(constants) c = KERNEL(constants_of)(u);
#define ARRAYS(rule)                                                                                                   \
    case rule:                                                                                                         \
        KERNEL(update_with)(w, g, s1, s2, n, &c, rule);                                                                \
        break;
    switch (u->rule) {
        EACH_RULE(ARRAYS)
    }
#undef ARRAYS
}

static void KERNEL(update_lines)(const cdrop_weight_lines *lines, double *squares, const cdrop_update *u)
{
    const KERNEL(constants) c = KERNEL(constants_of)(u);
    for (size_t i = 0; i < lines->columns; i += CDROP_BLOCK) {
        const size_t end = cdrop_min(i + CDROP_BLOCK, lines->width);
#define LINES(rule)                                                                                                    \
    case rule:                                                                                                         \
        squares[i / CDROP_BLOCK] = KERNEL(update_block)(lines, i, end, &c, rule);                                      \
        break;
        switch (u->rule) {
            EACH_RULE(LINES)
        }
#undef LINES
    }
}
#undef EACH_RULE

/* Plain text: the vocabulary does not widen. A product of two floats is exact in double, and none is contracted, so
 * a compiler may vectorize over the columns as it likes. Lines are the outer loop and ascend: each column is one
 * chain. The block is in the cache from its update (64 lines of 64 columns, 16 or 32 KiB). `out` has 512 bytes and
 * stays in L1. */
static void KERNEL(column_squares)(double *out, const void *in, size_t pitch, size_t width, size_t lines)
{
    for (size_t c = 0; c < width; c++)
        out[c] = 0;
    for (size_t line = 0; line < lines; line++) {
        const REAL *row = (const REAL *)in + line * pitch;
        for (size_t c = 0; c < width; c++)
            out[c] += (double)row[c] * (double)row[c];
    }
}

/* Line blocks were squared by different threads, each into its own line of `squares`. They are added here in
 * ascending order, no matter which thread made them, so a norm has the same bits at any thread count. Threads that
 * share a column block repeat this sum.
 *
 * Padding columns have squares of 0, so their factor is 1. In double throughout: only the factor is rounded. */
static size_t KERNEL(limit_factors)(void *factors, const double *squares, size_t pitch, size_t columns, size_t blocks,
                                    double limit)
{
    double sum[CDROP_BLOCK] = {0};
    size_t above = 0;
    for (size_t b = 0; b < blocks; b++)
        for (size_t c = 0; c < columns; c++)
            sum[c] += squares[b * pitch + c];
    for (size_t c = 0; c < columns; c++) {
        const double norm = sqrt(sum[c]);
        /* NaN is not greater, and infinity is left out: such weights stay as they are. */
        const int over = norm > limit && norm < CDROP_INFINITY;
        ((REAL *)factors)[c] = over ? (REAL)(limit / norm) : 1;
        above += (size_t)over;
    }
    return above;
}

/* In place, whole vectors: the padding is multiplied as well. */
static void KERNEL(scale_columns)(void *in, size_t pitch, const void *factors, size_t width, size_t lines)
{
    for (size_t line = 0; line < lines; line++) {
        REAL *row = (REAL *)in + line * pitch;
        for (size_t c = 0; c < width; c += L)
            V(vstore)(row + c, V(vmul)(V(vload)(row + c), V(vload)((const REAL *)factors + c)));
    }
}

/* Values are moved, not computed. Whole L x L tiles: where the block is smaller, tiles read the padding of its lines
 * and columns and write it behind the last columns and lines of `out`. Both sides must have room for that, and must
 * not overlap. */
static void KERNEL(transpose)(void *out_, size_t out_pitch, const void *in_, size_t in_pitch, size_t lines,
                              size_t columns)
{
    REAL *out = out_;
    const REAL *in = in_;
    for (size_t r = 0; r < lines; r += L)
        for (size_t c = 0; c < columns; c += L)
            V(vtranspose)(out + c * out_pitch + r, out_pitch, in + r * in_pitch + c, in_pitch);
}
