/* Noise by its definition, and the moves between whole and thinned matrices: on every path, in guarded buffers. */
#include <string.h>

#include "check.h"

static const cdrop_path *paths[MOST_PATHS];
static size_t n_paths;

/* ---- Noise ----------------------------------------------------------------------------------------------------- */

/* Unit `unit` of row `row`, from the words of the stream. */
static double defined_noise(cdrop_kind kind, double spread, const uint64_t *words, size_t units, size_t row,
                            size_t unit)
{
    const size_t draws = cdrop_pad(units) / 16, draw = row * draws + unit / 16;
    const uint64_t word = words[8 * draw + unit % 8];
    const double v = ((int32_t)(uint32_t)(word >> 32) + 0.5) * 0x1p-31, w = ((int32_t)(uint32_t)word + 0.5) * 0x1p-31;
    const int second = unit % 16 >= 8;
    if (kind == CDROP_UNIFORM)
        return 1 + spread * (second ? w : v);
    if (kind == CDROP_CONCRETE) {
        const double x = second ? w : v, logit = log(spread) + log1p(x) - log1p(-x);
        return (1 + spread) / (1 + exp(10 * logit));
    }
    const double angle = w * acos(0), radius = copysign(sqrt(-2 * log(fabs(v))), v);
    return 1 + spread * radius * (second ? sin(angle) : cos(angle));
}

static void test_noise_of(const cdrop_path *path, cdrop_dtype t, cdrop_kind kind, size_t units)
{
    enum { ROWS = 3, KEEP_SHIFT = 31 };
    const size_t pitch = cdrop_pad(units) + 16 * random_below(2), n = (ROWS - 1) * pitch + cdrop_pad(units);
    const double spread = kind == CDROP_UNIFORM ? sqrt(3) : 1, rounding = t == CDROP_FLOAT32 ? 6e-6 : 4e-15;
    const double limit = kind == CDROP_CONCRETE ? 10 * rounding : rounding; /* a tenth power */
    uint64_t state[32], *words = guarded(ROWS * cdrop_pad(units) / 2 * sizeof *words);
    void *out = guarded(n * size_of(t)), *wanted = guarded(n * size_of(t));
    double worst = 0;
    check_case("noise of kind %d, %zu units, %s %s", (int)kind, units, path->name, DTYPE_NAME(t));
    cdrop_stream_state(state, 5, 6, 7, 8, 1);
    kernels_of(path, t)->noise_block(out, pitch, units, ROWS, kind, spread, state);
    kernels_of(paths[0], t)->noise_block(wanted, pitch, units, ROWS, kind, spread, state);
    cdrop_random_words(words, ROWS * cdrop_pad(units) / 2, 5, 6, 7, 8, 1);
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t unit = 0; unit < units; unit++)
            worst = fmax(worst,
                         fabs(get(t, out, row * pitch + unit) - defined_noise(kind, spread, words, units, row, unit)));
        const char *ours = (const char *)out + row * pitch * size_of(t);
        CHECK(!memcmp(ours, (const char *)wanted + row * pitch * size_of(t), units * size_of(t)), "row %zu: other bits",
              row);
    }
    CHECK(worst < limit, "differs by %g", worst);
    guarded_release();
}

/* With v = 1, -1 or a number next to them in place of drawn ones there is no NaN, and it is what the limit is. */
static void test_ends_of_concrete_noise(cdrop_dtype t)
{
    enum { ROWS = 64, UNITS = 320 };
    void *all = guarded(ROWS * UNITS * size_of(t));
    check_case("concrete noise of all or no units, %s", DTYPE_NAME(t));
    for (int i = 0; i < 2; i++) {
        const uint64_t keep = i ? CDROP_KEEP_ALL - 1 : 1;
        const double most = (double)CDROP_KEEP_ALL / (double)keep;
        cdrop_noise(t, all, UNITS, 0, ROWS, UNITS, CDROP_CONCRETE, keep, 1, 2, 3, 4);
        for (size_t j = 0; j < ROWS * UNITS; j++) {
            const double share = get(t, all, j) / most;
            CHECK(i ? share > 0.999 && share < 1.001 : share >= 0 && share < 1e-3, "entry %zu: %g", j, share);
        }
    }
    guarded_release();
}

/* ---- The gradient by a learned rate ---------------------------------------------------------------------------- */

/* Only the live columns count, and not a byte next to the others is read. */
static void test_rate_slopes(const cdrop_path *path, cdrop_dtype t, size_t columns)
{
    enum { LINES = 5 };
    const double keep = 0.7;
    const size_t pitch = columns + random_below(3), n = (LINES - 1) * pitch + columns;
    const void *delta = random_array(t, n, 1, 1), *a = random_array(t, n, 1, 1), *noise = random_array(t, n, 1, 1);
    const uint64_t *live = random_mask(LINES, columns, 0.5);
    const cdrop_gate gate = {.live = live, .words = cdrop_words(columns), .noise = noise, .noise_pitch = pitch};
    double found[LINES], first[LINES];
    check_case("slopes of a rate, %zu columns, %s %s", columns, path->name, DTYPE_NAME(t));
    kernels_of(path, t)->rate_slopes(found, delta, pitch, a, pitch, columns, LINES, &gate, keep);
    kernels_of(paths[0], t)->rate_slopes(first, delta, pitch, a, pitch, columns, LINES, &gate, keep);
    for (size_t line = 0; line < LINES; line++) {
        double sum = 0, size = 0;
        for (size_t i = line * pitch; i < line * pitch + columns; i++) {
            const double f = get(t, noise, i), term = get(t, delta, i) * get(t, a, i) * f;
            const double slope = 1 - keep - 10 * (1 - keep * f);
            if (bit_at(live + line * gate.words, i - line * pitch))
                sum += term * slope, size += fabs(term * slope);
        }
        CHECK(fabs(found[line] - sum) <= size * (t == CDROP_FLOAT32 ? 1e-5 : 1e-14), "line %zu: %g, not %g", line,
              found[line], sum);
        CHECK(found[line] == first[line], "line %zu: other bits", line);
    }
    guarded_release();
}

/* The public function: rows of several blocks, scaled by keep; the same rows from a later first row. */
static void test_rows(cdrop_dtype t)
{
    enum { UNITS = 20, PITCH = 32, ROWS = 130 };
    void *all = guarded(ROWS * PITCH * size_of(t)), *some = guarded(2 * PITCH * size_of(t));
    double sum = 0, squares = 0;
    check_case("rows of noise, %s", DTYPE_NAME(t));
    cdrop_noise(t, all, PITCH, 0, ROWS, UNITS, CDROP_GAUSSIAN, CDROP_KEEP_ALL / 5, 1, 2, 3, 4);
    cdrop_noise(t, some, PITCH, 128, 2, UNITS, CDROP_GAUSSIAN, CDROP_KEEP_ALL / 5, 1, 2, 3, 4);
    for (size_t row = 0; row < ROWS; row++)
        for (size_t unit = 0; unit < UNITS; unit++) {
            const double z = get(t, all, row * PITCH + unit) - 1;
            sum += z, squares += z * z;
        }
    CHECK(fabs(sum / (ROWS * UNITS)) < 4 * sqrt(4.0 / (ROWS * UNITS)), "mean 1 + %g", sum / (ROWS * UNITS));
    CHECK(fabs(squares / (ROWS * UNITS) / 4 - 1) < 4 * sqrt(2.0 / (ROWS * UNITS)), "variance %g, not 4",
          squares / (ROWS * UNITS));
    for (size_t row = 0; row < 2; row++)
        for (size_t unit = 0; unit < UNITS; unit++)
            CHECK(get(t, some, row * PITCH + unit) == get(t, all, (128 + row) * PITCH + unit), "row %zu, unit %zu", row,
                  unit);
    guarded_release();
}

/* ---- Whole and thinned matrices -------------------------------------------------------------------------------- */

/* Lines and columns that are kept, packed and back. */
static void test_kept(const cdrop_path *path, cdrop_dtype t, size_t lines, size_t columns, double density)
{
    const cdrop_kernels *k = kernels_of(path, t);
    const size_t pitch = cdrop_words(columns) * 64 + 16 * random_below(2), packed_pitch = pitch,
                 width = cdrop_pad(columns);
    const uint64_t *rows = random_mask(1, lines, density), *kept = random_mask(1, columns, density);
    void *in = random_array(t, lines * pitch, 1, 1), *back = guarded(lines * pitch * size_of(t));
    void *packed = guarded((lines * packed_pitch + CDROP_SPARE) * size_of(t));
    size_t line = 0;
    check_case("kept of %zu x %zu, density %g, %s %s", lines, columns, density, path->name, DTYPE_NAME(t));
    k->pack_kept(packed, packed_pitch, in, pitch, *rows, kept, cdrop_words(columns));
    k->unpack_kept(back, pitch, width, lines, packed, packed_pitch, *rows, kept);
    for (size_t i = 0; i < lines; i++) {
        size_t column = 0;
        const int live = bit_at(rows, i);
        for (size_t j = 0; j < columns; j++) {
            const int both = live && bit_at(kept, j);
            const double wanted = both ? get(t, in, i * pitch + j) : 0, got = get(t, back, i * pitch + j);
            CHECK(got == wanted, "line %zu, column %zu: %a, not %a", i, j, got, wanted);
            if (both)
                CHECK(get(t, packed, line * packed_pitch + column++) == wanted, "packed line %zu", line);
        }
        line += (size_t)live;
    }
    guarded_release();
}

/* Not a byte next to the columns is written, nor read. */
static void test_copy(const cdrop_path *path, cdrop_dtype t, size_t lines, size_t columns)
{
    const size_t pitch = columns + random_below(3), out_pitch = columns + random_below(3);
    const size_t n = lines && columns ? (lines - 1) * pitch + columns : 0;
    const size_t n_out = lines && columns ? (lines - 1) * out_pitch + columns : 0;
    void *in = random_array(t, n, 1, 1), *out = random_array(t, n_out, 1, 1),
         *before = guarded_copy(out, n_out * size_of(t));
    check_case("copy of %zu x %zu, %s %s", lines, columns, path->name, DTYPE_NAME(t));
    kernels_of(path, t)->copy_columns(out, out_pitch, in, pitch, columns, lines);
    for (size_t i = 0; i < n_out; i++) {
        const size_t line = i / out_pitch, column = i % out_pitch;
        const double wanted = column < columns ? get(t, in, line * pitch + column) : get(t, before, i);
        CHECK(get(t, out, i) == wanted, "line %zu, column %zu", line, column);
    }
    guarded_release();
}

/* ---- Steps of thinned networks --------------------------------------------------------------------------------- */

enum { INPUTS = 70, FIRST = 90, SECOND = 130, OUTPUTS = 5, BATCH = 100, LAYERS = 3, STEPS = 4 };

static const size_t units[LAYERS + 1] = {INPUTS, FIRST, SECOND, OUTPUTS};

/* Weights of the middle layer after a few steps on the first rows. */
static void *trained(cdrop_dtype t, cdrop_kind kind, uint64_t keep, const void *x, size_t rows, double max_norm)
{
    static const int64_t labels[BATCH];
    const uint64_t keeps[LAYERS] = {CDROP_KEEP_ALL, keep, keep};
    const cdrop_kind kinds[LAYERS] = {kind == CDROP_CONCRETE ? CDROP_GAUSSIAN : kind, kind, kind};
    cdrop_learned_rate rates[LAYERS] = {
        {.power1 = 1, .power2 = 1}, {.power1 = 1, .power2 = 1}, {.power1 = 1, .power2 = 1}};
    const cdrop_design design = {.dtype = t,
                                 .layers = LAYERS,
                                 .units = units,
                                 .keep = keeps,
                                 .kinds = kinds,
                                 .scale_in_training = 1,
                                 .activation = CDROP_RELU,
                                 .seed = 3};
    const cdrop_optimizer optimizer = {.rule = CDROP_RMSPROP,
                                       .learning_rate = 0.01,
                                       .l2 = 1e-3,
                                       .a = 0.9,
                                       .epsilon = 1e-8,
                                       .max_norm = max_norm,
                                       .learned = kind == CDROP_CONCRETE ? rates : NULL,
                                       .entropy = 0.01};
    const cdrop_batch batch = {.x = x, .n = rows, .truth.labels = labels};
    void *weight = guarded(FIRST * SECOND * size_of(t)), *bias = guarded(SECOND * size_of(t));
    cdrop_network *network;
    CHECK(cdrop_network_create(&network, &design) == CDROP_OK, "no network");
    for (size_t l = 0; l < LAYERS; l++) {
        void *start = guarded(units[l] * units[l + 1] * size_of(t));
        for (size_t i = 0; i < units[l] * units[l + 1]; i++)
            put(t, start, i, 0.2 * sin((double)(i * i % 1009)));
        cdrop_network_set(network, l, CDROP_WEIGHT, start, guarded(units[l + 1] * size_of(t)));
    }
    for (uint64_t step = 1; step <= STEPS; step++) {
        double loss;
        CHECK(cdrop_network_step(network, &batch, &optimizer, step, 2, &loss) == CDROP_OK, "step %d", (int)step);
    }
    cdrop_network_get(network, 1, CDROP_WEIGHT, weight, bias);
    cdrop_network_free(network);
    return weight;
}

/* With one row a mask is shared anyway. Of more rows: whatever is dropped, memory is used as it is meant to be. */
static void test_shared(cdrop_dtype t, double max_norm)
{
    const void *x = random_array(t, BATCH * INPUTS, 0.5, 1);
    check_case("shared masks, max-norm %g, %s", max_norm, DTYPE_NAME(t));
    const void *shared = trained(t, CDROP_SHARED, CDROP_KEEP_ALL / 2, x, 1, max_norm);
    const void *single = trained(t, CDROP_BERNOULLI, CDROP_KEEP_ALL / 2, x, 1, max_norm);
    CHECK(!memcmp(shared, single, FIRST * SECOND * size_of(t)), "other weights");
    for (int i = 1; i < 8; i++) {
        const void *many = trained(t, CDROP_SHARED, CDROP_KEEP_ALL / (uint64_t)(1 << i), x, BATCH, max_norm);
        CHECK(cdrop_all_finite(t, many, FIRST * SECOND), "keep 2^-%d: not finite", i);
    }
    trained(t, CDROP_GAUSSIAN, CDROP_KEEP_ALL / 2, x, BATCH, max_norm);
    CHECK(cdrop_all_finite(t, trained(t, CDROP_CONCRETE, CDROP_KEEP_ALL / 2, x, BATCH, max_norm), FIRST * SECOND),
          "concrete: not finite");
    guarded_release();
}

int main(void)
{
    static const size_t edges[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 129, 200};
    n_paths = all_paths(paths);
    for (cdrop_dtype t = 0; t < DTYPES; t++) {
        test_rows(t);
        test_ends_of_concrete_noise(t);
        test_shared(t, 0);
        test_shared(t, 1);
        for (size_t p = 0; p < n_paths; p++)
            for (size_t i = 0; i < COUNT(edges); i++) {
                test_noise_of(paths[p], t, CDROP_GAUSSIAN, edges[i]);
                test_noise_of(paths[p], t, CDROP_UNIFORM, edges[i]);
                test_noise_of(paths[p], t, CDROP_CONCRETE, edges[i]);
                test_rate_slopes(paths[p], t, edges[i]);
                for (size_t lines = 1; lines <= 64; lines += 21) {
                    test_kept(paths[p], t, lines, edges[i], 0.5);
                    test_kept(paths[p], t, lines, edges[i], lines % 2 ? 1 : 0.05);
                    test_copy(paths[p], t, lines, edges[i]);
                }
            }
    }
    return check_report();
}
