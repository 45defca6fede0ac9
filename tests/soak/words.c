#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src_c/cdrop.h"

/* About how many words a piece has: it and its copy stay in the second-level cache. */
enum { PIECE = 1 << 16 };

static void stop(const char *what, const char *which)
{
    fprintf(stderr, "%s: %s\n", what, which);
    exit(2);
}

/* Whether `text` is name=number; then sets the value. */
static int assign(const char *text, argument a)
{
    const size_t length = strlen(a.name);
    if (strncmp(text, a.name, length) != 0 || text[length] != '=')
        return 0;
    char *end;
    *a.value = strtoull(text + length + 1, &end, 10);
    if (*end)
        stop("no number", text);
    return 1;
}

static void parse(words *w, char **argv, const argument more[], size_t n)
{
    const argument own[] = {{"seed", &w->seed},         {"keep", &w->keep},   {"width", &w->width},
                            {"order", &w->order},       {"twins", &w->twins}, {"stuck", &w->stuck},
                            {"xorshift", &w->xorshift}, {"low", &w->low}};
    const size_t owned = sizeof own / sizeof *own;
    while (*++argv) {
        size_t i = 0;
        while (i < owned + n && !assign(*argv, i < owned ? own[i] : more[i - owned]))
            i++;
        if (i == owned + n)
            stop("unknown argument", *argv);
    }
}

words words_open(char **argv, const argument more[], size_t n)
{
    words w = {.step = 1};
    parse(&w, argv, more, n);
    if (cdrop_select_simd(NULL) != CDROP_OK)
        stop("no SIMD path", "");
    const size_t a_step = LAYERS * BATCH * cdrop_words(w.width);
    w.steps = a_step && a_step < PIECE ? PIECE / a_step : 1;
    w.n = w.xorshift ? PIECE : w.steps * a_step;
    w.drawn = calloc(w.n, sizeof *w.drawn);
    w.piece = calloc(w.n, sizeof *w.piece);
    if (!w.n || !w.drawn || !w.piece)
        stop("no words", "width is 0, or memory is out");
    cdrop_random_words(w.state, 2, w.seed, 0, CDROP_FOR_USER, 0, 0);
    return w;
}

static void make_twins(uint64_t *mask, size_t row_words)
{
    for (size_t row = 1; row < BATCH; row += 2)
        memcpy(mask + row * row_words, mask + (row - 1) * row_words, row_words * sizeof *mask);
}

static void stick(uint64_t *mask, size_t row_words, int kept)
{
    for (size_t i = 3; i < BATCH * row_words; i += 8)
        mask[i] = kept ? mask[i] | 1 << 17 : mask[i] & ~(UINT64_C(1) << 17);
}

static void draw(words *w)
{
    const size_t row_words = cdrop_words(w->width);
    uint64_t *mask = w->drawn;
    for (size_t i = 0; i < w->steps; i++, w->step++)
        for (uint32_t layer = 0; layer < LAYERS; layer++, mask += BATCH * row_words) {
            cdrop_bernoulli_mask(mask, 0, BATCH, w->width, w->keep, w->seed, w->step, CDROP_FOR_MASKS, layer);
            if (w->twins && w->step % w->twins == 0)
                make_twins(mask, row_words);
            if (w->stuck && w->step % w->stuck == 0)
                stick(mask, row_words, w->keep <= CDROP_KEEP_ALL / 2);
        }
}

static uint64_t xorshift64(uint64_t state[2])
{
    uint64_t x = state[0];
    x ^= x << 13;
    x ^= x >> 7;
    return state[0] = x ^ x << 17;
}

static uint64_t xorshift128plus(uint64_t state[2])
{
    uint64_t x = state[0];
    const uint64_t y = state[1], sum = x + y;
    x ^= x << 23;
    state[0] = y;
    state[1] = x ^ y ^ x >> 17 ^ y >> 26;
    return sum;
}

static uint64_t bad_word(words *w)
{
    if (w->xorshift == 64)
        return xorshift64(w->state);
    const uint64_t word = xorshift128plus(w->state);
    return w->low ? (uint32_t)word | xorshift128plus(w->state) << 32 : word;
}

const uint64_t *words_next(words *w)
{
    if (w->xorshift) {
        for (size_t i = 0; i < w->n; i++)
            w->piece[i] = bad_word(w);
        return w->piece;
    }
    draw(w);
    if (!w->order)
        return w->drawn;
    const size_t stride = w->order * cdrop_words(w->width), length = w->n / stride;
    for (size_t i = 0; i < length; i++)
        for (size_t j = 0; j < stride; j++)
            w->piece[j * length + i] = w->drawn[i * stride + j];
    return w->piece;
}
