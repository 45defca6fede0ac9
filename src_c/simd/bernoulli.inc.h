/* Packed Bernoulli masks from eight interleaved xoshiro256++ generators (Blackman and Vigna 2018).
 *
 * A unit is kept when its uniform bits, read from the top, are below keep. One draw gives the next bit of 512 units,
 * and a group of 512 stops as soon as every unit of it is decided (about 10 draws of 32), or keep has no more bits set.
 * Whether to continue is asked of the whole group, never of a vector, so every path consumes the same words. */
#include <string.h>

typedef struct {
    vwords s0, s1, s2, s3;
} generator;

static inline vwords draw(generator *g)
{
    const vwords sum = wadd(g->s0, g->s3), result = wadd(wrotl(sum, 23), g->s0), t = wshl17(g->s1);
    g->s2 = wxor(g->s2, g->s0);
    g->s3 = wxor(g->s3, g->s1);
    g->s1 = wxor(g->s1, g->s2);
    g->s0 = wxor(g->s0, g->s3);
    g->s2 = wxor(g->s2, t);
    g->s3 = wrotl(g->s3, 45);
    return result;
}

/* keep's bits left of bit `bit` have been compared; returns the kept units of one group. */
static inline vwords kept_units(generator *g, vwords undecided, uint64_t keep)
{
    vwords kept = wxor(undecided, undecided);
    for (int bit = 31; bit >= 0 && (keep & ((UINT64_C(2) << bit) - 1)) != 0; bit--) {
        const vwords random = draw(g);
        if (keep >> bit & 1) {
            kept = wor(kept, wandnot(random, undecided));
            undecided = wand(random, undecided);
        } else
            undecided = wandnot(random, undecided);
        if (wnone(undecided))
            break;
    }
    return kept;
}

static void mask_block(uint64_t *out, size_t n, size_t words, uint64_t valid, uint64_t keep, const uint64_t state[32])
{
    generator g = {wload(state), wload(state + 8), wload(state + 16), wload(state + 24)};
    uint64_t units[8], last[8];
    for (int i = 0; i < 8; i++)
        units[i] = ~UINT64_C(0);
    for (size_t done = 0, word = 0; done < n; done += 8) {
        if (~valid)
            for (int i = 0; i < 8; i++) {
                word = word + 1 == words ? 0 : word + 1;
                units[i] = word == 0 ? valid : ~UINT64_C(0);
            }
        const vwords kept = kept_units(&g, wload(units), keep);
        if (n - done >= 8) {
            wstore(out + done, kept);
        } else { /* the batch ends inside a group: its other rows are drawn all the same */
            wstore(last, kept);
            memcpy(out + done, last, (n - done) * sizeof *out);
        }
    }
}
