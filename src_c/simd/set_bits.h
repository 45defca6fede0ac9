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

/* Byte n of entry `bits` is the number of set bits below bit n: which packed value lane n takes. */
#define RANK_BYTE(b, n) ((uint64_t)LOW_COUNT(b, n) << (8 * (n)))
#define RANK1(b)                                                                                                       \
    (RANK_BYTE(b, 1) | RANK_BYTE(b, 2) | RANK_BYTE(b, 3) | RANK_BYTE(b, 4) | RANK_BYTE(b, 5) | RANK_BYTE(b, 6) |       \
     RANK_BYTE(b, 7))
#define RANK4(b) RANK1(b), RANK1((b) + 1), RANK1((b) + 2), RANK1((b) + 3)
#define RANK16(b) RANK4(b), RANK4((b) + 4), RANK4((b) + 8), RANK4((b) + 12)
#define RANK64(b) RANK16(b), RANK16((b) + 16), RANK16((b) + 32), RANK16((b) + 48)
static const uint64_t set_bits_rank[256] = {RANK64(0u), RANK64(64u), RANK64(128u), RANK64(192u)};

#endif
