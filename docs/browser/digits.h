/* Drawn digits, byte for byte those of cdrop.datasets.make_digits: see cdrop/datasets/digits.py, which has the reasons.
 * The templates of the pen's paths come from there, too: docs/browser/build.py writes templates.h. */
#ifndef DIGITS_H
#define DIGITS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "templates.h"

enum { SIDE = 28, PIXELS = SIDE * SIDE, POINTS = 96, UNIFORMS = 96, HEAD = UNIFORMS / 4, WORDS = HEAD + PIXELS / 8 };

/* ---- Philox 4x64-10 (Salmon et al. 2011), in the order of NumPy's random_raw ---- */

typedef struct {
    uint64_t counter, key[2], buffer[4];
    int left;
} philox;

static uint64_t high_product(uint64_t a, uint64_t b)
{
    const uint64_t al = a & UINT32_MAX, ah = a >> 32, bl = b & UINT32_MAX, bh = b >> 32;
    const uint64_t low = al * bl, one = ah * bl + (low >> 32), two = al * bh + (one & UINT32_MAX);
    return ah * bh + (one >> 32) + (two >> 32);
}

static uint64_t next_word(philox *p)
{
    if (!p->left) {
        uint64_t c[4] = {++p->counter, 0, 0, 0}, k0 = p->key[0], k1 = p->key[1];
        for (int round = 0; round < 10; round++) {
            const uint64_t m0 = UINT64_C(0xD2E7470EE14C6C93), m1 = UINT64_C(0xCA5A826395121157);
            const uint64_t high0 = high_product(m0, c[0]), high1 = high_product(m1, c[2]);
            const uint64_t low0 = m0 * c[0], low1 = m1 * c[2];
            c[0] = high1 ^ c[1] ^ k0;
            c[1] = low1;
            c[2] = high0 ^ c[3] ^ k1;
            c[3] = low0;
            k0 += UINT64_C(0x9E3779B97F4A7C15);
            k1 += UINT64_C(0xBB67AE8584CAA73B);
        }
        memcpy(p->buffer, c, sizeof c);
        p->left = 4;
    }
    return p->buffer[4 - p->left--];
}

/* ---- Splines ---- */

typedef struct {
    float knots[KNOTS][2];
    float weight[POINTS][4];
    int near[POINTS][4];
    float pen[POINTS]; /* 1 where ink flows on to the next point, else 0 */
} path;

static path paths[TEMPLATES];

/* A Catmull-Rom spline through the knots of a stroke; an end knot's missing neighbor is its other neighbor mirrored. */
static void spline(path *p, const unsigned char *stroke, int knots, int first, int points)
{
    for (int i = 0; i < points; i++) {
        const double position = (double)i * (knots - 1) / (points - 1);
        const int segment = (int)position < knots - 2 ? (int)position : knots - 2;
        const double t = position - segment, t2 = t * t, t3 = t * t * t;
        double w[4] = {0.5 * (2 * t2 - t - t3), 0.5 * (2 - 5 * t2 + 3 * t3), 0.5 * (t + 4 * t2 - 3 * t3),
                       0.5 * (t3 - t2)};
        if (segment == 0) {
            w[1] += w[0] * 2;
            w[2] -= w[0];
            w[0] = 0;
        }
        if (segment + 2 >= knots) {
            w[1] -= w[3];
            w[2] += w[3] * 2;
            w[3] = 0;
        }
        for (int j = 0; j < 4; j++) {
            const int at = segment + j - 1;
            p->near[first + i][j] = stroke[at < 0 ? 0 : at < knots ? at : knots - 1];
            p->weight[first + i][j] = (float)w[j];
        }
        p->pen[first + i] = i < points - 1;
    }
}

static void make_paths(void)
{
    for (int t = 0; t < TEMPLATES; t++) {
        path *p = &paths[t];
        const template *from = &templates[t];
        const unsigned char *stroke = from->strokes;
        for (int i = 0; i < KNOTS; i++)
            for (int axis = 0; axis < 2; axis++)
                p->knots[i][axis] = i < from->knots ? (float)(from->places[i][axis] / 50.0 - 1) : 0;
        for (int s = 0, first = 0; s < from->count; first += from->points[s++]) {
            spline(p, stroke, from->lengths[s], first, from->points[s]);
            stroke += from->lengths[s];
        }
    }
}

/* ---- One digit ---- */

typedef struct {
    float values[UNIFORMS];
    int next;
} draws;

static float uniform(draws *d) { return d->values[d->next++]; }

/* `width` triangular numbers in (-1, 1). */
static void spread(draws *d, float *out, int width)
{
    for (int i = 0; i < width; i++)
        out[i] = d->values[d->next + i] - d->values[d->next + width + i];
    d->next += 2 * width;
}

static float one_spread(draws *d)
{
    float value;
    spread(d, &value, 1);
    return value;
}

static void pen_path(draws *d, const path *p, float careless, float x[POINTS], float y[POINTS])
{
    const float scale = careless * SHAKE;
    float shaken[2 * KNOTS], knots[KNOTS][2];
    spread(d, shaken, 2 * KNOTS);
    for (int i = 0; i < 2 * KNOTS; i++)
        knots[i / 2][i % 2] = p->knots[i / 2][i % 2] + shaken[i] * scale;
    for (int i = 0; i < POINTS; i++)
        for (int axis = 0; axis < 2; axis++) {
            float v[4];
            for (int j = 0; j < 4; j++)
                v[j] = knots[p->near[i][j]][axis] * p->weight[i][j];
            (axis ? y : x)[i] = (v[0] + v[1]) + (v[2] + v[3]);
        }
}

static void bend(draws *d, float careless, float x[POINTS], float y[POINTS])
{
    float across[6], along[6];
    const float scale = careless * BEND;
    spread(d, across, 6);
    spread(d, along, 6);
    for (int i = 0; i < POINTS; i++) {
        const float xx = x[i] * x[i], xy = x[i] * y[i], yy = y[i] * y[i];
        const float terms[6] = {xx - 0.5f, xy, yy - 0.5f, xx * y[i], xy * y[i], yy * y[i] - y[i]};
        for (int k = 0; k < 6; k++) {
            x[i] += (across[k] * scale) * terms[k];
            y[i] += (along[k] * scale) * terms[k];
        }
    }
}

static float within(float a) { return a < 1 ? 1 : a > SIDE - 2 ? SIDE - 2 : a; }

static void place(draws *d, float x[POINTS], float y[POINTS])
{
    const float t = one_spread(d) * TURN, tt = t * t;
    const float cosine = (1 - tt) / (1 + tt), sine = (t + t) / (1 + tt);
    const float slant = one_spread(d) * SLANT + LEAN;
    const float wide = (one_spread(d) * WIDTH_SPREAD + 1) * WIDTH;
    const float high = (one_spread(d) * HEIGHT_SPREAD + 1) * HEIGHT;
    const float right = one_spread(d) * SHIFT + (SIDE - 1) / 2.0f, down = one_spread(d) * SHIFT + (SIDE - 1) / 2.0f;
    for (int i = 0; i < POINTS; i++) {
        const float a = (x[i] - slant * y[i]) * wide, b = y[i] * high;
        x[i] = within((cosine * a - sine * b) + right);
        y[i] = within((sine * a + cosine * b) + down);
    }
}

static void lay_ink(const path *p, float pressure, const float x[POINTS], const float y[POINTS], int32_t ink[PIXELS])
{
    memset(ink, 0, PIXELS * sizeof *ink);
    for (int i = 0; i < POINTS - 1; i++) {
        const float along = (float)i / (float)POINTS - 0.5f, flow = p->pen[i] * (pressure * along + 1);
        const float dx = x[i + 1] - x[i], dy = y[i + 1] - y[i];
        const float amount = sqrtf(dx * dx + dy * dy) * 256 * flow;
        const int column = (int)x[i], row = (int)y[i];
        const float right = x[i] - (float)column, below = y[i] - (float)row;
        const float lower = amount * below, upper = amount - lower;
        const float upper_right = upper * right, lower_right = lower * right;
        int32_t *at = ink + row * SIDE + column;
        at[0] += (int32_t)(upper - upper_right);
        at[1] += (int32_t)upper_right;
        at[SIDE] += (int32_t)(lower - lower_right);
        at[SIDE + 1] += (int32_t)lower_right;
    }
}

static void blur(int32_t ink[PIXELS])
{
    int32_t down[PIXELS];
    for (int i = 0; i < PIXELS; i++)
        down[i] = 2 * ink[i] + (i >= SIDE ? ink[i - SIDE] : 0) + (i < PIXELS - SIDE ? ink[i + SIDE] : 0);
    for (int i = 0; i < PIXELS; i++)
        ink[i] = 2 * down[i] + (i % SIDE ? down[i - 1] : 0) + (i % SIDE < SIDE - 1 ? down[i + 1] : 0);
}

static void expose(draws *d, const int32_t ink[PIXELS], const uint64_t *noise, unsigned char image[PIXELS])
{
    const float u = uniform(d), loud = uniform(d);
    const float gain = (u * u * THICK + THIN) * EXPOSURE, louder = loud * loud * LOUDNESS;
    for (int i = 0; i < PIXELS; i++) {
        const float specks = ((float)(noise[i / 8] >> 8 * (i % 8) & 255) - 127.5f) * louder;
        const float gray = ((float)ink[i] * gain + specks) - DARKEST;
        image[i] = (unsigned char)(gray < 0 ? 0 : gray > 255 ? 255 : gray);
    }
}

static void draw(int label, const uint64_t words[WORDS], unsigned char image[PIXELS])
{
    draws d = {.next = 0};
    float x[POINTS], y[POINTS];
    int32_t ink[PIXELS];
    for (int i = 0; i < UNIFORMS; i++)
        d.values[i] = (float)(words[i / 4] >> 16 * (i % 4) & 65535) * 0x1p-16f;
    const path *p = &paths[first_template[label] + (int)(uniform(&d) * (float)variants[label])];
    const float u = uniform(&d), careless = u * u * u * CARELESS_TAIL + CARELESS;
    pen_path(&d, p, careless, x, y);
    bend(&d, careless, x, y);
    place(&d, x, y);
    lay_ink(p, one_spread(&d) * PRESSURE, x, y, ink);
    blur(ink);
    expose(&d, ink, words + HEAD, image);
}

/* The order that sorts ten words: the labels of ten digits. */
static void ten_labels(philox *p, int labels[10])
{
    uint64_t keys[10];
    for (int i = 0; i < 10; i++) {
        int at = i;
        keys[i] = next_word(p);
        for (; at > 0 && keys[labels[at - 1]] > keys[i]; at--)
            labels[at] = labels[at - 1];
        labels[at] = i;
    }
}

/* Images and labels of the first n digits of a seed. */
static void make_digits(int n, uint64_t seed, unsigned char *images, int64_t *labels)
{
    philox order = {.key = {seed, 1}}, source = {.key = {seed, 0}};
    make_paths();
    for (int i = 0; i < n; i++) {
        uint64_t words[WORDS];
        int ten[10];
        if (i % 10 == 0) {
            ten_labels(&order, ten);
            for (int j = i; j < n && j < i + 10; j++)
                labels[j] = ten[j - i];
        }
        for (int w = 0; w < WORDS; w++)
            words[w] = next_word(&source);
        draw((int)labels[i], words, images + (size_t)i * PIXELS);
    }
}

#endif
