/* Every other entry of the dispatch table, on every path: the scalar path's bits, and not a byte outside the arrays. */
#include <stdio.h>
#include <string.h>

#include "check.h"

static const cdrop_path *paths[MOST_PATHS];
static size_t n_paths;

static const double sizes[] = {1, 10, 1000, 1e-37}; /* of the numbers: the last gives denormals in float */
static const double densities[] = {0.05, 0.25, 0.5, 1};

/* Each test runs twice: with arrays of all kinds, and with `full` ones, whose results are mostly not zero. */
static int full;

static double any_density(void) { return full ? 1 : densities[random_below(COUNT(densities))]; }

static double any_size(void) { return full ? 1 : sizes[random_below(COUNT(sizes))]; }

/* ---- The same call on every path ----------------------------------------------------------------------------- */

/* What a call overwrites: n elements, which before it hold `before`. */
typedef struct {
    const void *before;
    size_t n;
} output;

enum { MOST_OUTPUTS = 3 };

/* Runs one kernel on copies of the outputs and gives what it returns. */
typedef double (*call)(const cdrop_kernels *k, const void *arguments, void *const out[]);

static double run_on(const cdrop_kernels *k, call run, const void *arguments, const output outputs[], void *out[])
{
    for (size_t i = 0; i < MOST_OUTPUTS && outputs[i].before; i++)
        out[i] = guarded_copy(outputs[i].before, outputs[i].n * k->size);
    return run(k, arguments, out);
}

/* `run` on every path against `reference` on the scalar one. outputs: MOST_OUTPUTS entries, the unused ones zero. Gives
 * all buffers back. */
static void compare_with(const char *name, cdrop_dtype t, call reference, call run, const void *arguments,
                         const output outputs[])
{
    void *wanted[MOST_OUTPUTS] = {NULL}, *out[MOST_OUTPUTS] = {NULL};
    check_case("%s, scalar %s", name, DTYPE_NAME(t));
    const double wanted_value = run_on(kernels_of(paths[0], t), reference, arguments, outputs, wanted);
    if (full && !outputs[0].before)
        check_compared(CDROP_FLOAT64, &wanted_value, 1);
    for (size_t i = 0; full && i < MOST_OUTPUTS && outputs[i].before; i++)
        check_compared(t, wanted[i], outputs[i].n);
    for (size_t p = reference == run; p < n_paths; p++) {
        check_case("%s, %s %s", name, paths[p]->name, DTYPE_NAME(t));
        const double value = run_on(kernels_of(paths[p], t), run, arguments, outputs, out);
        CHECK(first_difference(CDROP_FLOAT64, &value, &wanted_value, 1) == 1, "gave %a, not %a", value, wanted_value);
        for (size_t i = 0; i < MOST_OUTPUTS && outputs[i].before; i++) {
            const size_t at = first_difference(t, out[i], wanted[i], outputs[i].n);
            CHECK(at == outputs[i].n, "output %zu, element %zu: %a, not %a", i, at, get(t, out[i], at),
                  get(t, wanted[i], at));
        }
    }
    guarded_release();
}

static void compare_paths(const char *name, cdrop_dtype t, call run, const void *arguments, const output outputs[])
{
    compare_with(name, t, run, run, arguments, outputs);
}

/* Numbers of every size, one array in four with special values. */
static void *any_array(cdrop_dtype t, size_t n)
{
    void *array = random_array(t, n, any_density(), any_size());
    if (!full && random_below(4) == 0)
        add_special_values(t, array, n);
    return array;
}

static void *positive_array(cdrop_dtype t, size_t n)
{
    void *array = any_array(t, n);
    for (size_t i = 0; i < n; i++)
        put(t, array, i, fabs(get(t, array, i)));
    return array;
}

/* ---- Activations --------------------------------------------------------------------------------------------- */

typedef struct {
    size_t columns, lines, pitch, a_pitch;
    const void *a;
    const uint64_t *live;
    const void *noise; /* NULL for the scale */
    double scale;
    cdrop_activation activation;
} activation_call;

static double run_activate(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const activation_call *c = arguments;
    k->activate(out[0], c->pitch, c->columns, c->lines, c->activation);
    return 0;
}

static double run_gate(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const activation_call *c = arguments;
    const cdrop_gate gate = {.live = c->live,
                             .words = cdrop_words(c->columns),
                             .scale = c->scale,
                             .noise = c->noise,
                             .noise_pitch = c->a_pitch};
    k->gate(out[0], c->pitch, c->a, c->a_pitch, c->columns, c->lines, &gate, c->activation);
    return 0;
}

static void test_activations(cdrop_dtype t)
{
    for (size_t columns = 0; columns <= 130; columns++)
        for (int activation = CDROP_IDENTITY; activation <= CDROP_SIGMOID; activation++) {
            char name[100];
            activation_call c = {.columns = columns, .lines = 1 + random_below(3), .scale = 1 / 0.7};
            c.activation = (cdrop_activation)activation;
            c.pitch = columns + random_below(3);
            c.a_pitch = columns + random_below(3);
            const size_t n = (c.lines - 1) * c.pitch + columns;
            snprintf(name, sizeof name, "activate %zu x %zu, activation %d", c.lines, columns, activation);
            compare_paths(name, t, run_activate, &c, (output[MOST_OUTPUTS]){{any_array(t, n), n}});
            if (random_below(4))
                c.a = any_array(t, (c.lines - 1) * c.a_pitch + columns);
            c.live = random_mask(c.lines, columns, any_density());
            c.noise = random_below(2) ? any_array(t, (c.lines - 1) * c.a_pitch + columns) : NULL;
            snprintf(name, sizeof name, "gate %zu x %zu, activation %d", c.lines, columns, activation);
            compare_paths(name, t, run_gate, &c, (output[MOST_OUTPUTS]){{any_array(t, n), n}});
        }
}

/* ---- Losses -------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t n;
    const void *logits, *targets; /* no logits: they are in the output */
    int64_t label;
    double factor, parameter;
    const double *quantiles;
} loss_call;

typedef struct {
    size_t n;
    const void *a, *b, *p, *q;
    double factor;
    int apart;
} divergence_call;

static double run_softmax_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    return k->softmax_row(out[0], c->logits ? c->logits : out[0], c->n, c->label, c->factor);
}

typedef struct {
    size_t n, rows, d_pitch, pitch;
    const void *logits; /* or NULL: they are in the output */
    const int64_t *labels;
    const void *const *targets;
    const double *factors;
    double smoothing;
} rows_call;

static double run_softmax_rows(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const rows_call *c = arguments;
    k->softmax_rows(out[0], c->d_pitch, c->logits ? c->logits : out[0], c->logits ? c->pitch : c->d_pitch, c->n,
                    c->rows, c->labels, c->factors, out[1]);
    return 0;
}

/* The same by softmax_row. */
static double run_softmax_by_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const rows_call *c = arguments;
    const size_t pitch = c->logits ? c->pitch : c->d_pitch;
    for (size_t i = 0; i < c->rows; i++)
        ((double *)out[1])[i] = k->softmax_row((char *)out[0] + i * c->d_pitch * k->size,
                                               (const char *)(c->logits ? c->logits : out[0]) + i * pitch * k->size,
                                               c->n, c->labels[i], c->factors[i]);
    return 0;
}

static void sigmoids(const cdrop_kernels *k, const rows_call *c, void *const out[], size_t first, size_t rows)
{
    const size_t pitch = c->logits ? c->pitch : c->d_pitch;
    k->sigmoid_rows((char *)out[0] + first * c->d_pitch * k->size, c->d_pitch,
                    (const char *)(c->logits ? c->logits : out[0]) + first * pitch * k->size, pitch, c->targets + first,
                    c->n, rows, c->factors + first, c->smoothing, (double *)out[1] + first);
}

static double run_sigmoid_rows(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const rows_call *c = arguments;
    sigmoids(k, c, out, 0, c->rows);
    return 0;
}

static double run_sigmoid_by_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const rows_call *c = arguments;
    for (size_t i = 0; i < c->rows; i++)
        sigmoids(k, c, out, i, 1);
    return 0;
}

static double run_softmax_to_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    return k->softmax_to_row(out[0], c->logits ? c->logits : out[0], c->n % 2 ? c->targets : NULL, c->n, c->label,
                             c->factor, c->parameter);
}

static double run_huber_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    return k->huber_row(out[0], c->logits, c->targets, c->n, c->factor, c->parameter);
}

static double run_poisson_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    return k->poisson_row(out[0], c->logits, c->targets, c->n, c->factor);
}

/* Without quantiles it is the absolute error. */
static double run_pinball_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    const size_t step = c->n % 3 > 0;
    return k->pinball_row(out[0], c->logits, c->targets, step, c->n, c->factor, c->n % 2 ? c->quantiles : NULL);
}

static double run_exponential(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    k->exponential(out[0], c->n);
    return 0;
}

static double run_squared_row(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    return k->squared_row(out[0], c->logits, c->targets, c->n, c->factor);
}

/* Probabilities need not be those of the logits. */
static double run_divergence(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const divergence_call *c = arguments;
    return k->divergence(out[0], out[1], c->a, c->b, c->p, c->q, c->n, c->factor, c->apart);
}

static double run_softmax(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    k->softmax(out[0], c->logits ? c->logits : out[0], c->n);
    return 0;
}

static void test_loss(const char *loss, cdrop_dtype t, call run, size_t n, int in_place)
{
    char name[100];
    double quantiles[130];
    for (size_t i = 0; i < n; i++)
        quantiles[i] = random_between(0.01, 0.99);
    const loss_call c = {
        .n = n,
        .logits = in_place ? NULL : any_array(t, n),
        .targets = random_array(t, n, 0.5, 1),
        .label = n ? (int64_t)random_below(n) : 0,
        .factor = random_between(0, 1),
        .parameter = random_between(0, 1),
        .quantiles = quantiles,
    };
    snprintf(name, sizeof name, "%s of %zu%s", loss, n, in_place ? " in place" : "");
    compare_paths(name, t, run, &c, (output[MOST_OUTPUTS]){{any_array(t, n), n}});
}

/* Several rows at a time give every row the bits that it has by itself on the scalar path, and leave what is between
 * rows. */
static void test_rows(const char *loss, cdrop_dtype t, call run, call by_row, size_t n, int in_place)
{
    char name[100];
    int64_t labels[CDROP_LANES];
    const void *targets[CDROP_LANES];
    double factors[CDROP_LANES];
    rows_call c = {.n = n,
                   .rows = 1 + random_below(CDROP_LANES),
                   .labels = labels,
                   .targets = targets,
                   .factors = factors,
                   .smoothing = random_between(0, 1)};
    c.d_pitch = n + random_below(5);
    c.pitch = n + random_below(5);
    for (size_t i = 0; i < c.rows; i++) {
        labels[i] = (int64_t)random_below(n);
        targets[i] = random_array(t, n, 0.5, 1);
        factors[i] = random_between(0, 1);
    }
    const size_t size = (c.rows - 1) * c.d_pitch + n;
    if (!in_place)
        c.logits = any_array(t, (c.rows - 1) * c.pitch + n);
    snprintf(name, sizeof name, "%s of %zu x %zu%s", loss, c.rows, n, in_place ? " in place" : "");
    const void *before = any_array(t, size), *losses = random_array(CDROP_FLOAT64, c.rows, 1, 1);
    const cdrop_kernels *k = kernels_of(paths[0], t);
    for (size_t p = 0; p < n_paths; p++) {
        void *wanted[] = {guarded_copy(before, size * k->size), guarded_copy(losses, c.rows * sizeof(double))};
        void *out[] = {guarded_copy(before, size * k->size), guarded_copy(losses, c.rows * sizeof(double))};
        by_row(k, &c, wanted);
        run(kernels_of(paths[p], t), &c, out);
        check_case("%s, %s %s", name, paths[p]->name, DTYPE_NAME(t));
        const size_t at = first_difference(t, out[0], wanted[0], size);
        CHECK(at == size, "element %zu: %a, not %a", at, get(t, out[0], at), get(t, wanted[0], at));
        const size_t row = first_difference(CDROP_FLOAT64, out[1], wanted[1], c.rows);
        CHECK(row == c.rows, "loss %zu: %a, not %a", row, ((double *)out[1])[row], ((double *)wanted[1])[row]);
        if (full)
            check_compared(t, wanted[0], size);
    }
    guarded_release();
}

static void test_divergence(cdrop_dtype t, size_t n, int apart)
{
    char name[100];
    divergence_call c = {.n = n, .factor = random_between(0, 1), .apart = apart};
    c.a = any_array(t, n);
    c.b = any_array(t, n);
    c.p = random_array(t, n, 0.5, 1);
    c.q = random_array(t, n, 0.5, 1);
    snprintf(name, sizeof name, "divergence of %zu%s", n, apart ? " apart" : "");
    compare_paths(name, t, run_divergence, &c, (output[MOST_OUTPUTS]){{any_array(t, n), n}, {any_array(t, n), n}});
}

static void test_losses(cdrop_dtype t)
{
    for (size_t n = 0; n <= 130; n++)
        for (int time = 0; time < 4; time++) {
            test_loss("squared_row", t, run_squared_row, n, 0);
            test_loss("huber_row", t, run_huber_row, n, 0);
            test_loss("poisson_row", t, run_poisson_row, n, 0);
            test_loss("pinball_row", t, run_pinball_row, n, 0);
            test_loss("exponential", t, run_exponential, n, 1);
            test_divergence(t, n, time & 1);
            if (n) {
                test_loss("softmax_row", t, run_softmax_row, n, time & 1);
                if (n <= CDROP_LANES)
                    test_rows("softmax_rows", t, run_softmax_rows, run_softmax_by_row, n, time & 1);
                test_rows("sigmoid_rows", t, run_sigmoid_rows, run_sigmoid_by_row, n, time & 1);
                test_loss("softmax_to_row", t, run_softmax_to_row, n, time & 1);
                test_loss("softmax", t, run_softmax, n, time & 1);
            }
        }
}

/* ---- Labels -------------------------------------------------------------------------------------------------- */

static double run_largest(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    (void)out;
    return (double)k->largest(c->logits, c->n);
}

static double run_positive(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const loss_call *c = arguments;
    int64_t *label = guarded(c->n * sizeof *label);
    double sum = 0;
    (void)out;
    k->positive(label, c->logits, c->n);
    for (size_t i = 0; i < c->n; i++)
        sum += (double)label[i] * (double)(i + 1);
    return sum;
}

static void test_labels(cdrop_dtype t)
{
    for (size_t n = 1; n <= 130; n++) {
        const loss_call c = {.n = n, .logits = any_array(t, n)};
        compare_paths("largest", t, run_largest, &c, (output[MOST_OUTPUTS]){{NULL, 0}});
        const loss_call again = {.n = n, .logits = any_array(t, n)};
        compare_paths("positive", t, run_positive, &again, (output[MOST_OUTPUTS]){{NULL, 0}});
    }
}

/* ---- Sums ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const void *in;
    size_t pitch, columns, lines;
} sum_call;

static double run_column_sums(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const sum_call *c = arguments;
    k->column_sums(out[0], c->in, c->pitch, c->columns, c->lines);
    return 0;
}

static double run_sum_squares(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const sum_call *c = arguments;
    (void)out;
    return k->sum_squares(c->in, c->pitch, c->columns, c->lines);
}

static void test_sums(cdrop_dtype t)
{
    const size_t lines[] = {0, 1, 2, 63, 64, 65};
    for (size_t l = 0; l < COUNT(lines); l++)
        for (size_t columns = 0; columns <= 144; columns++) {
            char name[100];
            sum_call c = {.columns = columns, .lines = lines[l], .pitch = columns + random_below(4)};
            c.in = any_array(t, c.lines ? (c.lines - 1) * c.pitch + columns : 0);
            snprintf(name, sizeof name, "sums of %zu x %zu", c.lines, columns);
            if (columns % CDROP_LANES == 0)
                compare_paths(name, t, run_column_sums, &c, (output[MOST_OUTPUTS]){{any_array(t, columns), columns}});
            c.in = any_array(t, c.lines ? (c.lines - 1) * c.pitch + columns : 0);
            if (columns <= CDROP_BLOCK)
                compare_paths(name, t, run_sum_squares, &c, (output[MOST_OUTPUTS]){{NULL, 0}});
            guarded_release();
        }
}

/* ---- Limit of norms ------------------------------------------------------------------------------------------ */

typedef struct {
    const void *in; /* squares, or factors */
    size_t pitch, columns, lines;
    double limit;
} norm_call;

/* Sums are doubles whatever the type of the elements: they are compared with what a plain loop gives. */
static void test_column_squares(const cdrop_path *path, cdrop_dtype t, size_t columns, size_t lines)
{
    const size_t pitch = columns + random_below(4);
    const void *in = any_array(t, lines ? (lines - 1) * pitch + columns : 0);
    double *out = guarded(columns * sizeof *out);
    check_case("column squares of %zu x %zu, %s %s", lines, columns, path->name, DTYPE_NAME(t));
    kernels_of(path, t)->column_squares(out, in, pitch, columns, lines);
    for (size_t c = 0; c < columns; c++) {
        double wanted = 0;
        for (size_t line = 0; line < lines; line++)
            wanted += get(t, in, line * pitch + c) * get(t, in, line * pitch + c);
        CHECK(first_difference(CDROP_FLOAT64, &out[c], &wanted, 1) == 1, "column %zu: %a, not %a", c, out[c], wanted);
    }
    guarded_release();
}

static double run_limit_factors(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const norm_call *c = arguments;
    return (double)k->limit_factors(out[0], c->in, c->pitch, c->columns, c->lines, c->limit);
}

static double run_scale_columns(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const norm_call *c = arguments;
    k->scale_columns(out[0], c->pitch, c->in, c->columns, c->lines);
    return 0;
}

/* Of three columns only the one above the limit is scaled; NaN and infinity are left. */
static void test_factors_by_hand(const cdrop_path *path, cdrop_dtype t)
{
    const double squares[] = {9, 1, 4, NAN, INFINITY, 16, 3, 0, 1, 1}, wanted[] = {0.4, 1, 1, 1, 1};
    double factors[5];
    check_case("factors by hand, %s %s", path->name, DTYPE_NAME(t));
    const size_t above = kernels_of(path, t)->limit_factors(factors, squares, 5, 5, 2, 2);
    CHECK(above == 1, "%zu columns above the limit", above);
    for (size_t c = 0; c < COUNT(wanted); c++)
        CHECK(get(t, factors, c) == rounded(t, wanted[c]), "column %zu: %g", c, get(t, factors, c));
}

/* Each line is scaled, the last and the first. */
static void test_scaled_lines(const cdrop_path *path, cdrop_dtype t)
{
    enum { LINES = 3, WIDTH = 32, PITCH = 35 };
    const void *before = random_array(t, LINES * PITCH, 1, 1), *factors = random_array(t, WIDTH, 1, 1);
    void *in = guarded_copy(before, LINES * PITCH * size_of(t));
    check_case("scaled lines, %s %s", path->name, DTYPE_NAME(t));
    kernels_of(path, t)->scale_columns(in, PITCH, factors, WIDTH, LINES);
    for (size_t i = 0; i < LINES * PITCH; i++) {
        const double factor = i % PITCH < WIDTH ? get(t, factors, i % PITCH) : 1;
        CHECK(get(t, in, i) == rounded(t, get(t, before, i) * factor), "element %zu: %a", i, get(t, in, i));
    }
    guarded_release();
}

static void test_norms(cdrop_dtype t)
{
    const size_t lines[] = {0, 1, 2, 63, 64};
    for (size_t i = 0; i < n_paths; i++) {
        test_factors_by_hand(paths[i], t);
        test_scaled_lines(paths[i], t);
    }
    for (size_t l = 0; l < COUNT(lines); l++)
        for (size_t columns = 0; columns <= CDROP_BLOCK; columns++) {
            char name[100];
            norm_call c = {.columns = columns, .lines = lines[l], .limit = any_size()};
            c.pitch = columns + random_below(4);
            const size_t n = c.lines ? (c.lines - 1) * c.pitch + columns : 0;
            for (size_t i = 0; i < n_paths; i++)
                test_column_squares(paths[i], t, columns, c.lines);
            snprintf(name, sizeof name, "limit of %zu x %zu", c.lines, columns);
            c.in = positive_array(CDROP_FLOAT64, n);
            compare_paths(name, t, run_limit_factors, &c, (output[MOST_OUTPUTS]){{any_array(t, columns), columns}});
            c.in = any_array(t, columns);
            if (columns % CDROP_LANES == 0)
                compare_paths(name, t, run_scale_columns, &c, (output[MOST_OUTPUTS]){{any_array(t, n), n}});
        }
}

/* The sum of squares of 64 lines, and of those sums. */
static double column_norm(cdrop_dtype t, const void *weight, size_t lines, size_t columns, size_t c)
{
    double sum = 0;
    for (size_t first = 0; first < lines; first += 64) {
        double block = 0;
        for (size_t i = first; i < cdrop_min(first + 64, lines); i++)
            block += get(t, weight, i * columns + c) * get(t, weight, i * columns + c);
        sum += block;
    }
    return sqrt(sum);
}

/* The limit is a norm of one of the columns: about half are above it, and one is at it. */
static void test_limit_of(cdrop_dtype t, size_t lines, size_t columns)
{
    const void *before = random_array(t, lines * columns, 1, 1);
    void *weight = guarded_copy(before, lines * columns * size_of(t));
    const double limit = columns ? column_norm(t, before, lines, columns, columns / 2) : 1;
    check_case("limit of norms of %zu x %zu, %s %s", lines, columns, cdrop_simd_active(), DTYPE_NAME(t));
    CHECK(cdrop_limit_norms(t, weight, lines, columns, limit) == CDROP_OK, "status");
    for (size_t i = 0; i < lines * columns; i++) {
        const double norm = column_norm(t, before, lines, columns, i % columns);
        const double factor = norm > limit ? rounded(t, limit / norm) : 1;
        const double wanted = rounded(t, get(t, before, i) * factor);
        CHECK(get(t, weight, i) == wanted, "element %zu: %a, not %a", i, get(t, weight, i), wanted);
    }
    guarded_release();
}

static void test_limits(cdrop_dtype t)
{
    const size_t shapes[][2] = {{1, 1}, {70, 130}, {64, 64}, {200, 3}, {3, 200}, {0, 5}, {5, 0}};
    for (int i = 0; cdrop_simd_usable(i); i++) {
        cdrop_select_simd(cdrop_simd_usable(i));
        for (size_t s = 0; s < COUNT(shapes); s++)
            test_limit_of(t, shapes[s][0], shapes[s][1]);
    }
}

/* ---- Updates ------------------------------------------------------------------------------------------------- */

typedef struct {
    const void *gradient;
    size_t n;
    cdrop_update rule;
} update_call;

/* The outputs are the weights and the states that the rule has. */
static double run_update(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const update_call *c = arguments;
    const int states = cdrop_rule_states(c->rule.rule);
    k->update(out[0], c->gradient, states > 0 ? out[1] : NULL, states > 1 ? out[2] : NULL, c->n, &c->rule);
    return 0;
}

static update_call any_update(cdrop_rule rule, const void *gradient, size_t n)
{
    return (update_call){
        .gradient = gradient,
        .n = n,
        .rule = {.rule = rule,
                 .rate = 0.01,
                 .l2 = n % 2 ? 1e-3 : 0,
                 .decay = n % 3 ? 1e-4 : 0,
                 .a = 0.9,
                 .b = 0.999,
                 .epsilon = 1e-8,
                 .second = 1.5},
    };
}

static void test_updates(cdrop_dtype t)
{
    for (size_t n = 0; n <= 130; n++)
        for (int rule = CDROP_SGD; rule <= CDROP_ADAM; rule++) {
            char name[100];
            const update_call c = any_update((cdrop_rule)rule, any_array(t, n), n);
            const output outputs[MOST_OUTPUTS] = {
                {any_array(t, n), n}, {positive_array(t, n), n}, {positive_array(t, n), n}};
            snprintf(name, sizeof name, "update of %zu, rule %d", n, rule);
            compare_paths(name, t, run_update, &c, outputs);
        }
}

/* Lines of weights, with a background where `sums` are given. */
typedef struct {
    update_call update;
    size_t columns, lines;
    const void *sums;
    cdrop_lists background;
} lines_call;

static double run_update_lines(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const lines_call *c = arguments;
    const int states = cdrop_rule_states(c->update.rule.rule);
    const cdrop_weight_lines lines = {.weight = out[0],
                                      .state1 = states > 0 ? out[1] : NULL,
                                      .state2 = states > 1 ? out[2] : NULL,
                                      .gradient = c->update.gradient,
                                      .width = cdrop_pad(c->columns),
                                      .columns = c->columns,
                                      .lines = c->lines,
                                      .background = c->sums ? &c->background : NULL,
                                      .first = c->background.lines - c->lines,
                                      .sums = c->sums};
    double squares[3] = {0};
    k->update_lines(&lines, squares, &c->update.rule);
    return squares[0] + 2 * squares[1] + 3 * squares[2];
}

/* By the kernels that it stands for, one after the other. */
static double run_update_by_parts(const cdrop_kernels *k, const void *arguments, void *const out[])
{
    const lines_call *c = arguments;
    const size_t width = cdrop_pad(c->columns), first = c->background.lines - c->lines;
    update_call update = c->update;
    void *gradient = guarded_copy(update.gradient, update.n * k->size);
    double squares[3] = {0};
    update.gradient = gradient;
    if (c->sums)
        k->product(gradient, width, NULL, c->sums, width, width, &c->background, 0, 1, first, c->background.lines, 1,
                   NULL);
    run_update(k, &update, out);
    for (size_t i = 0; i < c->columns; i += CDROP_BLOCK)
        squares[i / CDROP_BLOCK] =
            k->sum_squares((const char *)out[0] + i * k->size, width, cdrop_min(CDROP_BLOCK, c->columns - i), c->lines);
    return squares[0] + 2 * squares[1] + 3 * squares[2];
}

/* One entry or none in the only block of each line. */
static cdrop_lists any_background(cdrop_dtype t, size_t lines)
{
    cdrop_lists l = {.values = any_array(t, lines), .lines = lines, .blocks = 1};
    l.live = guarded(lines * sizeof *l.live);
    l.start = guarded(lines * sizeof *l.start);
    for (size_t line = 0; line < lines; line++) {
        l.live[line] = full || random_below(2);
        l.start[line] = lines - 1 - line;
    }
    return l;
}

/* As products leave it: without a -0. */
static void *any_gradient(cdrop_dtype t, size_t n)
{
    void *gradient = any_array(t, n);
    for (size_t i = 0; i < n; i++)
        put(t, gradient, i, get(t, gradient, i) + 0.0);
    return gradient;
}

static void test_updates_of_lines(cdrop_dtype t)
{
    for (size_t columns = 1; columns <= 144; columns++)
        for (int rule = CDROP_SGD; rule <= CDROP_ADAM; rule++) {
            char name[100];
            const size_t lines = 1 + random_below(CDROP_BLOCK), width = cdrop_pad(columns), n = lines * width;
            const lines_call c = {
                .update = any_update((cdrop_rule)rule, any_gradient(t, n), n),
                .columns = columns,
                .lines = lines,
                .sums = random_below(2) ? any_array(t, width) : NULL,
                .background = any_background(t, lines + random_below(3)),
            };
            const output outputs[MOST_OUTPUTS] = {
                {any_array(t, n), n}, {positive_array(t, n), n}, {positive_array(t, n), n}};
            snprintf(name, sizeof name, "update of %zu x %zu, rule %d", lines, columns, rule);
            compare_with(name, t, run_update_by_parts, run_update_lines, &c, outputs);
        }
}

/* One element by its rule's formula, each operation rounded to the type; state[0] and state[1] where there are
 * states. */
static double updated(cdrop_dtype t, double w, double g, double state[2], const cdrop_update *u)
{
    const double a = rounded(t, u->a), b = rounded(t, u->b), one_a = rounded(t, 1 - u->a), one_b = rounded(t, 1 - u->b);
    const double rate = rounded(t, u->rate), gradient = fused(t, rounded(t, u->l2), w, g);
    const double step = rounded(t, rate * gradient), faded = rounded(t, a * state[0]);
    double top = step, square = 0;
    switch (u->rule) {
    case CDROP_SGD:
        return rounded(t, w - step);
    case CDROP_MOMENTUM:
        return rounded(t, w + (state[0] = rounded(t, faded - step)));
    case CDROP_NESTEROV:
        state[0] = rounded(t, faded - step);
        return rounded(t, w + rounded(t, rounded(t, a * state[0]) - step));
    case CDROP_ADAGRAD:
        square = state[0] = fused(t, gradient, gradient, state[0]);
        break;
    case CDROP_RMSPROP:
        square = state[0] = fused(t, rounded(t, one_a * gradient), gradient, faded);
        break;
    case CDROP_ADAM:
        w = rounded(t, w * rounded(t, 1 - u->decay));
        state[0] = fused(t, one_a, gradient, faded);
        state[1] = fused(t, rounded(t, one_b * gradient), gradient, rounded(t, b * state[1]));
        top = rounded(t, rate * state[0]);
        square = rounded(t, rounded(t, u->second) * state[1]);
        break;
    }
    return rounded(t, w - rounded(t, top / rounded(t, rounded(t, sqrt(square)) + rounded(t, u->epsilon))));
}

static void test_update_by_formula(const cdrop_path *path, cdrop_dtype t, cdrop_rule rule)
{
    enum { N = 37 };
    const cdrop_update u = {
        .rule = rule, .rate = 0.1, .l2 = 0.2, .decay = 0.3, .a = 0.7, .b = 0.8, .epsilon = 0.05, .second = 1.5};
    const int states = cdrop_rule_states(rule);
    void *w = random_array(t, N, 1, 1), *g = random_array(t, N, 1, 1), *state[2], *before[3];
    before[0] = guarded_copy(w, N * size_of(t));
    for (int s = 0; s < 2; s++) {
        state[s] = random_array(t, N, 1, 1);
        for (size_t i = 0; i < N; i++)
            put(t, state[s], i, fabs(get(t, state[s], i)));
        before[1 + s] = guarded_copy(state[s], N * size_of(t));
    }
    check_case("update by formula, rule %d, %s %s", rule, path->name, DTYPE_NAME(t));
    kernels_of(path, t)->update(w, g, states > 0 ? state[0] : NULL, states > 1 ? state[1] : NULL, N, &u);
    for (size_t i = 0; i < N; i++) {
        double own[2] = {get(t, before[1], i), get(t, before[2], i)};
        const double wanted = updated(t, get(t, before[0], i), get(t, g, i), own, &u);
        CHECK(get(t, w, i) == wanted, "element %zu: %a, not %a", i, get(t, w, i), wanted);
        for (int s = 0; s < 2; s++)
            CHECK(get(t, state[s], i) == own[s], "state %d, element %zu: %a, not %a", s, i, get(t, state[s], i),
                  own[s]);
    }
    guarded_release();
}

/* ---- Transpose ----------------------------------------------------------------------------------------------- */

static void test_transpose_of(const cdrop_path *path, cdrop_dtype t, size_t lines, size_t columns)
{
    const size_t in_pitch = cdrop_pad(columns) + 16 * random_below(2),
                 out_pitch = cdrop_pad(lines) + 16 * random_below(2);
    const void *in = random_array(t, (cdrop_pad(lines) - 1) * in_pitch + cdrop_pad(columns), 1, 1);
    void *out = guarded(((cdrop_pad(columns) - 1) * out_pitch + cdrop_pad(lines)) * size_of(t));
    size_t wrong = 0;
    kernels_of(path, t)->transpose(out, out_pitch, in, in_pitch, lines, columns);
    for (size_t r = 0; r < lines; r++)
        for (size_t c = 0; c < columns; c++)
            wrong += get(t, out, c * out_pitch + r) != get(t, in, r * in_pitch + c);
    CHECK(wrong == 0, "%zu elements", wrong);
    guarded_release();
}

static void test_transpose(const cdrop_path *path, cdrop_dtype t)
{
    const size_t edges[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64};
    for (size_t i = 0; i < COUNT(edges); i++)
        for (size_t j = 0; j < COUNT(edges); j++) {
            check_case("transpose %zu x %zu, %s %s", edges[i], edges[j], path->name, DTYPE_NAME(t));
            test_transpose_of(path, t, edges[i], edges[j]);
        }
}

static void test_all(void (*test)(cdrop_dtype), const char *name, cdrop_dtype t)
{
    for (full = 0; full <= 1; full++)
        test(t);
    check_mostly_nonzero(name);
}

int main(void)
{
    n_paths = all_paths(paths);
    cdrop_flush_denormals(); /* as the library runs its kernels */
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        test_all(test_activations, "activations", t);
        test_all(test_losses, "losses", t);
        test_all(test_labels, "labels", t);
        test_all(test_sums, "sums", t);
        test_all(test_norms, "norms", t);
        test_limits(t);
        test_all(test_updates, "updates", t);
        test_all(test_updates_of_lines, "updates of lines", t);
        for (size_t i = 0; i < n_paths; i++) {
            test_transpose(paths[i], t);
            for (int rule = CDROP_SGD; rule <= CDROP_ADAM; rule++)
                test_update_by_formula(paths[i], t, (cdrop_rule)rule);
        }
    }
    return check_report();
}
