/* The checked allocator, and the shapes that live in it: lists and panels, their copies and transposes. See
 * workspace.h for who frees what. */
#include "workspace.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The address sanitizer knows of whole allocations only: it is informed of what lies between the blocks within one. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { APART = CDROP_CACHE_LINE };
#else
enum { APART = 0 };
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

/* Stands in front of each block, which begins at the next cache line boundary but one. */
struct cdrop_allocation {
    struct cdrop_allocation *next;
};

struct cdrop_arena {
    size_t room;
    char *data;
};

enum { KEPT_MOST = 64 << 20 }; /* bytes of a block that is kept */

/* The block of the last call. The thread that takes it owns it, so no lock is needed, and none can be lost in a fork. */
static _Atomic(struct cdrop_arena *) spare;

cdrop_status cdrop_open(cdrop_workspace *w)
{
    struct cdrop_arena *a = atomic_exchange(&spare, NULL);
    if (!w->failed && (!a || a->room < w->used)) {
        free(a);
        a = w->used <= SIZE_MAX / 2 ? malloc(sizeof *a + w->used + CDROP_CACHE_LINE) : NULL;
        if (a) {
            const uintptr_t first = (uintptr_t)(a + 1);
            a->room = w->used;
            a->data = (char *)(a + 1) + (CDROP_CACHE_LINE - first % CDROP_CACHE_LINE) % CDROP_CACHE_LINE;
        }
    }
    if (a)
        ASAN_UNPOISON_MEMORY_REGION(a->data, a->room);
    w->arena = a;
    w->failed |= !a;
    w->measuring = 0;
    w->used = 0;
    if (!w->failed)
        return CDROP_OK;
    cdrop_release(w);
    return CDROP_NO_MEMORY;
}

static void give_back(struct cdrop_arena *a)
{
    if (a && a->room <= KEPT_MOST)
        a = atomic_exchange(&spare, a);
    free(a);
}

/* Within an arena, or while it is measured. */
static void *take_from_arena(cdrop_workspace *w, size_t count, size_t size)
{
    const size_t at = w->used;
    if (size && count > (SIZE_MAX / 2 - at) / size) {
        w->failed = 1;
        return NULL;
    }
    w->used += (count * size + CDROP_CACHE_LINE - 1) / CDROP_CACHE_LINE * CDROP_CACHE_LINE + APART;
    if (w->measuring)
        return NULL;
    char *block = w->arena->data + at;
    ASAN_POISON_MEMORY_REGION(block + count * size, w->used - at - count * size);
    return block;
}

void *cdrop_take(cdrop_workspace *w, size_t count, size_t size)
{
    const size_t most = SIZE_MAX / 2;
    struct cdrop_allocation *a = NULL;
    if (w->measuring || w->arena)
        return take_from_arena(w, count, size);
    if (!w->failed && (!size || count <= most / size))
        a = calloc(1, sizeof *a + count * size + CDROP_CACHE_LINE);
    if (!a) {
        w->failed = 1;
        return NULL;
    }
    a->next = w->last;
    w->last = a;
    const uintptr_t first = (uintptr_t)(a + 1);
    return (char *)(a + 1) + (CDROP_CACHE_LINE - first % CDROP_CACHE_LINE) % CDROP_CACHE_LINE;
}

void cdrop_release(cdrop_workspace *w)
{
    while (w->last) {
        struct cdrop_allocation *next = w->last->next;
        free(w->last);
        w->last = next;
    }
    give_back(w->arena);
    w->arena = NULL;
    w->failed = 0;
}

/* count * size, or more than any allocation can hold. */
static size_t product(size_t count, size_t size)
{
    return size && count > SIZE_MAX / 2 / size ? SIZE_MAX / 2 : count * size;
}

cdrop_lists cdrop_take_lists(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t entries, int packed)
{
    const size_t blocks = entries ? cdrop_blocks(entries) : 1;
    const size_t line_room = blocks * CDROP_BLOCK + CDROP_SPARE;
    const size_t room = packed ? product(lines, line_room) : product(product(lines, blocks), CDROP_SLOT);
    cdrop_lists l = {.lines = lines, .blocks = blocks, .packed = packed};
    l.values = cdrop_take(w, room, k->size);
    l.live = cdrop_take(w, product(lines, blocks), sizeof *l.live);
    l.start = cdrop_take(w, product(lines, blocks), sizeof *l.start);
    if (w->failed || w->measuring)
        return l;
    memset(l.live, 0, lines * blocks * sizeof *l.live);
    for (size_t b = 0; b < blocks; b++)
        for (size_t line = 0; line < lines; line++)
            l.start[b * lines + line] = packed ? line * line_room : (b * lines + line) * CDROP_SLOT;
    return l;
}

/* In pieces of one size, which compile to moves; both lists have room behind them. */
static void copy_values(char *to, const char *from, size_t bytes)
{
    enum { PIECE = CDROP_SPARE * sizeof(float) };
    for (size_t i = 0; i < bytes; i += PIECE)
        memcpy(to + i, from + i, PIECE);
}

cdrop_lists cdrop_take_copy(cdrop_workspace *w, const cdrop_kernels *k, const cdrop_lists *lists, size_t lines,
                            size_t blocks, size_t *bytes)
{
    cdrop_lists copy = {.lines = lines, .blocks = blocks};
    size_t entries = 0;
    for (size_t b = 0; b < blocks; b++)
        for (size_t line = 0; line < lines; line++)
            entries += cdrop_listed(lists, b * lists->lines + line);
    copy.values = cdrop_take(w, entries + CDROP_SPARE, k->size);
    copy.live = cdrop_take(w, lines * blocks, sizeof *copy.live);
    copy.start = cdrop_take(w, lines * blocks, sizeof *copy.start);
    *bytes += entries * k->size + lines * blocks * (sizeof *copy.live + sizeof *copy.start);
    for (size_t list = 0, at = 0; !w->failed && list < lines * blocks; at += cdrop_listed(&copy, list++)) {
        const size_t from = list / lines * lists->lines + list % lines;
        copy.start[list] = at;
        copy.live[list] = lists->live[from];
        copy_values((char *)copy.values + at * k->size, (const char *)lists->values + lists->start[from] * k->size,
                    cdrop_listed(&copy, list) * k->size);
    }
    return copy;
}

static cdrop_panels shape(const cdrop_kernels *k, size_t columns)
{
    cdrop_panels m = {.panels = (columns + k->panel - 1) / k->panel, .pitch = k->panel};
    if (m.panels)
        m.tail_width = cdrop_pad(columns - (m.panels - 1) * k->panel);
    return m;
}

cdrop_panels cdrop_take_panels(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t columns)
{
    cdrop_panels m = shape(k, columns);
    m.step = product(k->panel, cdrop_pad(lines)); /* whole tiles can be transposed */
    m.tail_pitch = m.tail_width;
    m.data = cdrop_take(w, product(cdrop_pad(lines), cdrop_pad(columns)), k->size);
    return m;
}

cdrop_panels cdrop_narrowed(const cdrop_panels *m, const cdrop_kernels *k, size_t columns)
{
    cdrop_panels n = shape(k, columns);
    n.data = m->data;
    n.step = m->step;
    n.tail_pitch = n.tail_width;
    return n;
}

/* Rows whose length is a multiple of 1 kB would fall on few cache sets: those get one more cache line. */
cdrop_panels cdrop_take_rows(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t columns)
{
    cdrop_panels m = shape(k, columns);
    size_t pitch = cdrop_pad(columns);
    if (pitch * k->size % 1024 == 0)
        pitch += CDROP_LANES;
    m.step = k->panel;
    m.pitch = m.tail_pitch = pitch;
    m.data = cdrop_take(w, product(lines, pitch), k->size);
    return m;
}

cdrop_panels cdrop_view_rows(const cdrop_kernels *k, const void *rows, size_t columns)
{
    cdrop_panels m = shape(k, columns);
    m.data = (void *)rows;
    m.step = k->panel;
    m.pitch = m.tail_pitch = columns;
    return m;
}

typedef enum { INTO_PANELS, OUT_OF_PANELS } direction;

static void copy_lines(const cdrop_panels *m, const cdrop_kernels *k, char *rows, size_t columns, size_t l0, size_t l1,
                       direction way)
{
    for (size_t p = 0; p < m->panels; p++) {
        const size_t first = p * k->panel, n = cdrop_min(k->panel, columns - first) * k->size;
        for (size_t line = l0; line < l1; line++) {
            char *row = rows + (line * columns + first) * k->size, *panel = cdrop_panel_at(m, k, p, line);
            if (way == INTO_PANELS)
                memcpy(panel, row, n);
            else
                memcpy(row, panel, n);
        }
    }
}

void cdrop_pack(const cdrop_panels *m, const cdrop_kernels *k, const void *rows, size_t columns, size_t l0, size_t l1)
{
    copy_lines(m, k, (char *)rows, columns, l0, l1, INTO_PANELS);
}

void cdrop_unpack(const cdrop_panels *m, const cdrop_kernels *k, void *rows, size_t columns, size_t l0, size_t l1)
{
    copy_lines(m, k, rows, columns, l0, l1, OUT_OF_PANELS);
}
