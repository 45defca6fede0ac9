/* Which bits of a byte are set, for the paths without a compress instruction. */
#ifndef CDROP_SET_BITS_H
#define CDROP_SET_BITS_H

#include <stdint.h>

/* Byte i of entry `bits` is the number of its i-th set bit.
 * Filled at compile time from the bits themselves: COMPRESS_n(b) appends lane n where bit n of b is set, by shifting
 * the lower lanes' bytes in below it. */
#define LOW_COUNT(b, n)                                                                                                \
    (((b) & 1) * ((n) > 0) + ((b) >> 1 & 1) * ((n) > 1) + ((b) >> 2 & 1) * ((n) > 2) + ((b) >> 3 & 1) * ((n) > 3) +    \
     ((b) >> 4 & 1) * ((n) > 4) + ((b) >> 5 & 1) * ((n) > 5) + ((b) >> 6 & 1) * ((n) > 6))
#define LANE_BYTE(b, n) (((b) >> (n) & 1) ? (uint64_t)(n) << (8 * LOW_COUNT(b, n)) : 0)
#define ORDER1(b)                                                                                                      \
    (LANE_BYTE(b, 1) | LANE_BYTE(b, 2) | LANE_BYTE(b, 3) | LANE_BYTE(b, 4) | LANE_BYTE(b, 5) | LANE_BYTE(b, 6) |       \
     LANE_BYTE(b, 7))
#define ORDER4(b) ORDER1(b), ORDER1((b) + 1), ORDER1((b) + 2), ORDER1((b) + 3)
#define ORDER16(b) ORDER4(b), ORDER4((b) + 4), ORDER4((b) + 8), ORDER4((b) + 12)
#define ORDER64(b) ORDER16(b), ORDER16((b) + 16), ORDER16((b) + 32), ORDER16((b) + 48)
static const uint64_t set_bits_order[256] = {ORDER64(0u), ORDER64(64u), ORDER64(128u), ORDER64(192u)};

#endif
