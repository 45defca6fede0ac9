/* The update rules on flat arrays, the limit of column norms, and the transpose that keeps the second copy of a weight
 * matrix in step. */

typedef struct {
    VEC rate, l2, keep, a, b, one_a, one_b, epsilon, second;
} KERNEL(constants);

/* w and its states, one vector. `rule` is a constant at every call. The gradient already holds the L2 term. */
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
        w = V(vmul)(w, c->keep);
        *s1 = V(vfma)(c->one_a, g, V(vmul)(c->a, *s1));
        *s2 = V(vfma)(V(vmul)(c->one_b, g), g, V(vmul)(c->b, *s2));
        top = V(vmul)(c->rate, *s1);
        square = V(vmul)(c->second, *s2);
        break;
    }
    return V(vsub)(w, V(vdiv)(top, V(vadd)(V(vsqrt)(square), c->epsilon)));
}

static inline CDROP_INLINE void KERNEL(update_with)(REAL *w, const REAL *g, REAL *s1, REAL *s2, size_t n,
                                                    const KERNEL(constants) * c, cdrop_rule rule)
{
    for (size_t i = 0; i < n; i += L) {
        const size_t rest = cdrop_min(L, n - i);
        VEC a = V(vset)(0), b = V(vset)(0), weight, gradient;
        if (rest == L) {
            weight = V(vload)(w + i), gradient = V(vload)(g + i);
            a = s1 ? V(vload)(s1 + i) : a, b = s2 ? V(vload)(s2 + i) : b;
        } else {
            weight = V(vload_first)(w + i, rest), gradient = V(vload_first)(g + i, rest);
            a = s1 ? V(vload_first)(s1 + i, rest) : a, b = s2 ? V(vload_first)(s2 + i, rest) : b;
        }
        gradient = V(vfma)(c->l2, weight, gradient);
        weight = KERNEL(apply)(weight, gradient, &a, &b, c, rule);
        if (rest == L) {
            V(vstore)(w + i, weight);
            if (s1)
                V(vstore)(s1 + i, a);
            if (s2)
                V(vstore)(s2 + i, b);
        } else {
            V(vstore_first)(w + i, weight, rest);
            if (s1)
                V(vstore_first)(s1 + i, a, rest);
            if (s2)
                V(vstore_first)(s2 + i, b, rest);
        }
    }
}

static void KERNEL(update)(void *w, const void *g, void *s1, void *s2, size_t n, const cdrop_update *u)
{
    const KERNEL(constants) c = {
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
#define RULE(rule, first, second)                                                                                      \
    case rule:                                                                                                         \
        KERNEL(update_with)(w, g, first, second, n, &c, rule);                                                         \
        break;
    switch (u->rule) {
        RULE(CDROP_SGD, NULL, NULL)
        RULE(CDROP_MOMENTUM, s1, NULL)
        RULE(CDROP_NESTEROV, s1, NULL)
        RULE(CDROP_ADAGRAD, s1, NULL)
        RULE(CDROP_RMSPROP, s1, NULL)
        RULE(CDROP_ADAM, s1, s2)
    }
#undef RULE
}

/* Plain text: the vocabulary does not widen. A product of two floats is exact in double, and none is contracted, so a
 * compiler may vectorize over the columns as it likes. */
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
        const int over = norm > limit && norm < CDROP_INFINITY;
        ((REAL *)factors)[c] = over ? (REAL)(limit / norm) : 1;
        above += (size_t)over;
    }
    return above;
}

static void KERNEL(scale_columns)(void *in, size_t pitch, const void *factors, size_t width, size_t lines)
{
    for (size_t line = 0; line < lines; line++) {
        REAL *row = (REAL *)in + line * pitch;
        for (size_t c = 0; c < width; c += L)
            V(vstore)(row + c, V(vmul)(V(vload)(row + c), V(vload)((const REAL *)factors + c)));
    }
}

static void KERNEL(transpose)(void *out_, size_t out_pitch, const void *in_, size_t in_pitch, size_t lines,
                              size_t columns)
{
    REAL *out = out_;
    const REAL *in = in_;
    for (size_t r = 0; r < lines; r += L)
        for (size_t c = 0; c < columns; c += L)
            V(vtranspose)(out + c * out_pitch + r, out_pitch, in + r * in_pitch + c, in_pitch);
}
