/* The article's experiment for the page: two networks on drawn digits, trained as `Network.fit(iterations=...)` trains
 * them, in the same order and from the same weights. All that the page's script calls is exported here. */
#include <pthread.h>
#include <stdlib.h>

#include "cdrop.h"
#include "digits.h"
#include "sha256.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

enum { LAYERS = 3, CLASSES = 10, ARMS = 2 };

typedef struct {
    cdrop_network *network;
    size_t units[LAYERS + 1];
    uint64_t seed, steps;
} arm;

/* WASI declares it and lacks it: there are no forks. */
int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent, (void)child;
    return 0;
}

static arm arms[ARMS];
static unsigned char *images;
static float *inputs;
static int64_t *labels, *order, *predicted;
static size_t training, testing, batch_size;
static double l2;

/* The training rows come first, then the test rows. */
int EXPORT(make_data)(unsigned train, unsigned test, unsigned batch, unsigned seed, double penalty)
{
    const size_t rows = (size_t)train + test;
    images = realloc(images, rows * PIXELS);
    inputs = realloc(inputs, rows * PIXELS * sizeof *inputs);
    labels = realloc(labels, rows * sizeof *labels);
    order = realloc(order, train * sizeof *order);
    predicted = realloc(predicted, test * sizeof *predicted);
    if (!images || !inputs || !labels || !order || !predicted)
        return 0;
    make_digits((int)rows, seed, images, labels);
    for (size_t i = 0; i < rows * PIXELS; i++)
        inputs[i] = (float)images[i] / 255;
    training = train;
    testing = test;
    batch_size = batch;
    l2 = penalty;
    return 1;
}

const unsigned char *EXPORT(image)(unsigned row) { return images + (size_t)row * PIXELS; }
int EXPORT(label)(unsigned row) { return (int)labels[row]; }

typedef struct {
    uint64_t key;
    int64_t row;
} place_in_order;

static int by_key(const void *a, const void *b)
{
    const place_in_order *p = a, *q = b;
    return p->key != q->key ? (p->key > q->key) - (p->key < q->key) : (p->row > q->row) - (p->row < q->row);
}

/* cdrop._batches.fixed: the shuffle that minibatches are cut from. */
static int shuffle(uint64_t seed)
{
    uint64_t *keys = malloc(training * sizeof *keys);
    place_in_order *places = malloc(training * sizeof *places);
    const int good = keys && places;
    if (good) {
        cdrop_random_words(keys, training, seed, 0, CDROP_FOR_ORDER, 0, 0);
        for (size_t i = 0; i < training; i++)
            places[i] = (place_in_order){keys[i], (int64_t)i};
        qsort(places, training, sizeof *places, by_key);
        for (size_t i = 0; i < training; i++)
            order[i] = places[i].row;
    }
    free(keys);
    free(places);
    return good;
}

/* cdrop.initializers: He's standard deviation; biases are 0. */
static int initialize(arm *a, size_t layer)
{
    const size_t in = a->units[layer], out = a->units[layer + 1];
    float *weight = malloc(in * out * sizeof *weight), *bias = calloc(out, sizeof *bias);
    double *normal = malloc(out * sizeof *normal);
    const int good = weight && bias && normal;
    for (size_t row = 0; good && row < in; row++) {
        cdrop_random_normal(normal, out, a->seed, 0, CDROP_FOR_WEIGHTS, (uint32_t)layer, row);
        for (size_t i = 0; i < out; i++)
            weight[row * out + i] = (float)(normal[i] * sqrt(2.0 / (double)in));
    }
    if (good)
        cdrop_network_set(a->network, layer, CDROP_WEIGHT, weight, bias);
    free(weight);
    free(bias);
    free(normal);
    return good;
}

int EXPORT(make_network)(unsigned which, unsigned hidden, double dropout, unsigned seed)
{
    arm *a = &arms[which];
    const uint64_t kept = (uint64_t)nearbyint((1 - dropout) * (double)CDROP_KEEP_ALL);
    const uint64_t keep[LAYERS] = {CDROP_KEEP_ALL, kept, kept};
    cdrop_network_free(a->network);
    *a = (arm){.units = {PIXELS, hidden, hidden, CLASSES}, .seed = seed};
    const cdrop_design design = {.dtype = CDROP_FLOAT32,
                                 .layers = LAYERS,
                                 .units = a->units,
                                 .keep = keep,
                                 .scale_in_training = 1,
                                 .activation = CDROP_RELU,
                                 .loss = CDROP_SOFTMAX_CROSS_ENTROPY,
                                 .seed = seed};
    cdrop_select_simd(NULL);
    int good = cdrop_network_create(&a->network, &design) == CDROP_OK && shuffle(seed);
    for (size_t layer = 0; good && layer < LAYERS; layer++)
        good = initialize(a, layer);
    return good;
}

/* One step on a minibatch drawn with replacement, as the article draws them; returns the loss, or NaN. */
double EXPORT(train)(unsigned which)
{
    arm *a = &arms[which];
    const size_t minibatches = (training + batch_size - 1) / batch_size;
    const cdrop_optimizer rmsprop = {.rule = CDROP_RMSPROP,
                                     .learning_rate = 1e-3,
                                     .l2 = l2,
                                     .a = 0.9,
                                     .epsilon = 1e-8,
                                     .correction1 = 1,
                                     .correction2 = 1};
    uint64_t word;
    double loss;
    cdrop_random_words(&word, 1, a->seed, ++a->steps, CDROP_FOR_ORDER, 0, 0);
    const size_t first = (size_t)((word >> 32) * minibatches >> 32) * batch_size;
    cdrop_batch batch = {.x = inputs, .rows = order + first, .truth = {.labels = labels}};
    batch.n = training - first < batch_size ? training - first : batch_size;
    return cdrop_network_step(a->network, &batch, &rmsprop, a->steps, 1, &loss) == CDROP_OK ? loss : NAN;
}

/* The share of the test rows that are predicted right. */
double EXPORT(test)(unsigned which)
{
    size_t right = 0;
    const cdrop_batch batch = {.x = inputs + training * PIXELS, .n = testing};
    if (cdrop_network_predict(arms[which].network, predicted, &batch, CDROP_LABELS, 1) != CDROP_OK)
        return NAN;
    for (size_t i = 0; i < testing; i++)
        right += predicted[i] == labels[training + i];
    return (double)right / (double)testing;
}

static float probabilities[CLASSES], drawn[PIXELS];

/* Where the page writes a digit that the user drew, and the probabilities of its classes. */
float *EXPORT(canvas)(void) { return drawn; }

const float *EXPORT(classify)(unsigned which)
{
    const cdrop_batch batch = {.x = drawn, .n = 1};
    cdrop_network_predict(arms[which].network, probabilities, &batch, CDROP_PROBABILITIES, 1);
    return probabilities;
}

/* SHA-256 of the weights, then biases, layer by layer; in hexadecimal. */
const char *EXPORT(digest)(unsigned which)
{
    static char text[65];
    arm *a = &arms[which];
    sha256 hash = sha256_begin();
    for (int biases = 0; biases < 2; biases++)
        for (size_t layer = 0; layer < LAYERS; layer++) {
            const size_t out = a->units[layer + 1], in = a->units[layer];
            float *weight = malloc(in * out * sizeof *weight), *bias = malloc(out * sizeof *bias);
            if (weight && bias) {
                cdrop_network_get(a->network, layer, CDROP_WEIGHT, weight, bias);
                sha256_add(&hash, biases ? bias : weight, (biases ? out : in * out) * sizeof *weight);
            }
            free(weight);
            free(bias);
        }
    sha256_end(&hash, text);
    return text;
}
