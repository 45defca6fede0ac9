/* All memory of the library comes from here, aligned to cache lines, sizes checked for overflow. What a network keeps
 * is zeroed. What a single call needs comes in one block, which is not, and which is kept for the next call, as BLAS
 * libraries do: memory fresh from the system costs a page fault every 4 kB, more than many a product. */
#ifndef CDROP_WORKSPACE_H
#define CDROP_WORKSPACE_H

#include "kernels.h"

/* A set of allocations that are freed together. `failed` is set by the first that did not succeed, and stays. */
typedef struct {
    struct cdrop_allocation *last;
    int failed;
    int measuring; /* nothing is taken yet: the room is added up */
    struct cdrop_arena *arena;
    size_t used; /* bytes of the arena */
} cdrop_workspace;

/* For one call: take everything from a workspace that begins as CDROP_MEASURE, open it, and take it again. */
#define CDROP_MEASURE ((cdrop_workspace){.measuring = 1})
cdrop_status cdrop_open(cdrop_workspace *w);

/* Room for count * size bytes, or NULL. */
void *cdrop_take(cdrop_workspace *w, size_t count, size_t size);
void cdrop_release(cdrop_workspace *w);

/* Lists of `lines` lines of `entries` entries. Packed lists are filled line by line in ascending blocks. */
cdrop_lists cdrop_take_lists(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t entries, int packed);

/* A copy of the first lines and blocks that takes no more room than it needs, block after block: how products walk
 * through it. With `bytes` it adds what it takes. */
cdrop_lists cdrop_take_copy(cdrop_workspace *w, const cdrop_kernels *k, const cdrop_lists *lists, size_t lines,
                            size_t blocks, size_t *bytes);

/* A lines x columns matrix in panels. */
cdrop_panels cdrop_take_panels(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t columns);

/* The same where whole rows must lie in one piece: panels of a row-major matrix. */
cdrop_panels cdrop_take_rows(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t columns);

/* The memory of a matrix from cdrop_take_panels, for one of as many lines and fewer columns. */
cdrop_panels cdrop_narrowed(const cdrop_panels *m, const cdrop_kernels *k, size_t columns);

/* Row-major rows of a caller, as panels to read from. */
cdrop_panels cdrop_view_rows(const cdrop_kernels *k, const void *rows, size_t columns);

/* Where (line, first column) of panel p stands. */
static inline void *cdrop_panel_at(const cdrop_panels *m, const cdrop_kernels *k, size_t p, size_t line)
{
    return (char *)m->data + (p * m->step + line * cdrop_panel_pitch(m, p)) * k->size;
}

/* A block of CDROP_BLOCK x CDROP_BLOCK elements of a matrix, or what is left of it at the ends. */
typedef struct {
    void *data;
    size_t pitch;
} cdrop_tile;

/* Panels are whole blocks wide. */
static inline cdrop_tile cdrop_tile_at(const cdrop_panels *m, const cdrop_kernels *k, size_t line_block,
                                       size_t column_block)
{
    const size_t per_panel = k->panel / CDROP_BLOCK, p = column_block / per_panel;
    char *line = cdrop_panel_at(m, k, p, line_block * CDROP_BLOCK);
    return (cdrop_tile){.data = line + column_block % per_panel * CDROP_BLOCK * k->size,
                        .pitch = cdrop_panel_pitch(m, p)};
}

/* Copies lines [l0, l1) of a row-major matrix of `columns` columns into panels, and back. */
void cdrop_pack(const cdrop_panels *m, const cdrop_kernels *k, const void *rows, size_t columns, size_t l0, size_t l1);
void cdrop_unpack(const cdrop_panels *m, const cdrop_kernels *k, void *rows, size_t columns, size_t l0, size_t l1);

#endif
