/* `vwords`, the generator's eight 64-bit lanes, in plain C: for paths whose vectors hold fewer than four words, where
 * the compiler does as well from this text. */
#ifndef CDROP_WORDS_PLAIN_H
#define CDROP_WORDS_PLAIN_H

#include <stdint.h>

typedef struct {
    uint64_t lane[8];
} vwords;

#define WORDS_BINARY(NAME, EXPRESSION)                                                                                 \
    static inline vwords NAME(vwords a, vwords b)                                                                      \
    {                                                                                                                  \
        vwords r;                                                                                                      \
        for (int i = 0; i < 8; i++) {                                                                                  \
            const uint64_t x = a.lane[i], y = b.lane[i];                                                               \
            r.lane[i] = (EXPRESSION);                                                                                  \
        }                                                                                                              \
        return r;                                                                                                      \
    }

WORDS_BINARY(wadd, x + y)
WORDS_BINARY(wxor, x ^ y)
WORDS_BINARY(wor, x | y)
WORDS_BINARY(wand, x &y)
WORDS_BINARY(wandnot, ~x &y)

static inline vwords wload(const uint64_t *p)
{
    vwords r;
    for (int i = 0; i < 8; i++)
        r.lane[i] = p[i];
    return r;
}

static inline void wstore(uint64_t *p, vwords a)
{
    for (int i = 0; i < 8; i++)
        p[i] = a.lane[i];
}

static inline vwords wshl17(vwords a)
{
    for (int i = 0; i < 8; i++)
        a.lane[i] <<= 17;
    return a;
}

static inline vwords wrotl(vwords a, int k)
{
    for (int i = 0; i < 8; i++)
        a.lane[i] = (a.lane[i] << k) | (a.lane[i] >> (64 - k));
    return a;
}

static inline int wnone(vwords a)
{
    uint64_t any = 0;
    for (int i = 0; i < 8; i++)
        any |= a.lane[i];
    return any == 0;
}

#endif
