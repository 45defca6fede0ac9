/* What the tests of randomness read: 64-bit words of masks in some order, or of generators that must fail. The command
 * line says which, in arguments name=number:
 *
 *   seed=N keep=K width=N   masks of LAYERS layers of N units each, BATCH rows a step, from step 1 on; keep is K / 2^32
 *   order=R                 0: in the order of training, which is that of memory; else word by word down the rows, every
 *                           R-th of them: 1 next rows, 64 next blocks, BATCH next layers, BATCH LAYERS next steps
 *   twins=N                 fault: in every N-th step, every odd row is the one before it
 *   stuck=N                 fault: in every N-th step, bit 17 of lane 3 is kept, or dropped, whichever is rarer
 *   xorshift=64             fault: xorshift64 (Marsaglia 2003) instead
 *   xorshift=128            fault: xorshift128+ (Vigna 2017; shifts 23, 17, 26) instead, and with low=1 of its outputs the low halves only
 *
 * A program that is given anything else tests the wrong thing, so words_open stops it. */
#ifndef WORDS_H
#define WORDS_H

#include <stddef.h>
#include <stdint.h>

enum { LAYERS = 4, BATCH = 128 };

typedef struct {
    uint64_t seed, keep, width, order, twins, stuck, xorshift, low;
    uint64_t step, state[2]; /* of the masks; of the generator */
    size_t steps, n;         /* steps and words of a piece */
    uint64_t *drawn, *piece; /* n words each: as drawn, and in order */
} words;

/* One more argument, that only the program at hand knows. */
typedef struct {
    const char *name;
    uint64_t *value;
} argument;

/* argv: with its closing NULL; more: n of them. Arguments not given are 0. */
words words_open(char **argv, const argument more[], size_t n);

/* The next n words, valid until the next call. */
const uint64_t *words_next(words *w);

#endif
