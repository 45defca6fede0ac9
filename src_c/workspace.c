/* The checked allocator, and the shapes that live in it: lists and panels, and their copies. See workspace.h for who
 * frees what.
 *
 * There are two kinds of workspaces. What a network keeps is a list of separate zeroed allocations. What one call
 * needs is an arena: the call takes everything twice, first to measure, then for real, and the same code runs both
 * times, so the sizes agree. Every block begins at a cache line: no two blocks share one, so threads that write
 * different blocks do not disturb each other. Pitches of such panels are multiples of 16 elements, so no vector of a
 * panel straddles two cache lines. */
#include "workspace.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The address sanitizer knows of whole allocations only: it is informed of what lies between the blocks within one.
 * There blocks stand APART, so that a store behind one meets poisoned memory and not the next block. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { APART = CDROP_CACHE_LINE };
#else
enum { APART = 0 };
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

/* Stands in front of each block, which begins at the next cache line boundary behind it. */
struct cdrop_allocation {
    struct cdrop_allocation *next;
};

/* `data` begins at the first cache line boundary behind this header, in the same allocation. `room` does not count
 * what is skipped before it. */
struct cdrop_arena {
    size_t room;
    char *data;
};

enum { KEPT_MOST = 64 << 20 }; /* bytes of a block that is kept */

/* The block of the last call. The thread that takes it owns it, so no lock is needed, and none can be lost in a
 * fork. Two calls at once: one takes it, the other finds NULL and allocates; both give theirs back, and the one that
 * was there is freed. So at most KEPT_MOST bytes are kept. */
static _Atomic(struct cdrop_arena *) spare;

/* Takes the spare block if it is large enough, else frees it and allocates. It is freed first, so that memory does
 * not hold both. The block is not zeroed: it has what an earlier call left, and a call must write what it reads. The
 * extra cache line is for the alignment. */
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
    /* From here on the workspace hands out memory, from the beginning again. */
    w->arena = a;
    w->failed |= !a;
    w->measuring = 0;
    w->used = 0;
    if (!w->failed)
        return CDROP_OK;
    cdrop_release(w);
    return CDROP_NO_MEMORY;
}

/* The exchange publishes the block to the next thread that takes it; what it replaces is this thread's to free. */
static void give_back(struct cdrop_arena *a)
{
    if (a && a->room <= KEPT_MOST)
        a = atomic_exchange(&spare, a);
    free(a);
}

/* Within an arena, or while it is measured. Sizes are rounded up to cache lines, so that every block is aligned if
 * the arena is. Nothing is checked against the arena's room: it is the sum of the same sizes. */
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

/* Zeroed, for a network: the padding of weights and states must begin as zeros. Half of SIZE_MAX is the limit of a
 * block, so that the header and the alignment cannot overflow the sum. After the first failure all blocks are NULL;
 * those before it stay valid until the release. So a caller takes everything, then checks `failed` once. */
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
    /* calloc aligns to 16 bytes at best: up to a cache line is skipped. */
    const uintptr_t first = (uintptr_t)(a + 1);
    return (char *)(a + 1) + (CDROP_CACHE_LINE - first % CDROP_CACHE_LINE) % CDROP_CACHE_LINE;
}

/* Separate allocations are freed; an arena goes back for the next call. An empty workspace may be released, too. */
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

/* count * size, or more than any allocation can hold: sizes may be multiplied step by step, and cdrop_take refuses
 * at the end. */
static size_t product(size_t count, size_t size)
{
    return size && count > SIZE_MAX / 2 / size ? SIZE_MAX / 2 : count * size;
}

/* Packed: one room for a line, its blocks behind each other in it as they are filled; only the start of block 0 is
 * final. Slots: one room for each block of a line, so that threads may fill blocks of one line at the same time and
 * in any order. Blocks are the outer index of words and starts: a product runs all lines of one block, and reads
 * them in sequence.
 *
 * Without entries there is one empty block: products then have something to run, which gives the outputs their start
 * values. */
cdrop_lists cdrop_take_lists(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t entries, int packed)
{
    const size_t blocks = entries ? cdrop_blocks(entries) : 1;
    const size_t line_room = blocks * CDROP_BLOCK + CDROP_SPARE;
    const size_t room = packed ? product(lines, line_room) : product(product(lines, blocks), CDROP_SLOT);
    cdrop_lists l = {.lines = lines, .blocks = blocks, .packed = packed};
    l.values = cdrop_take(w, room, k->size);
    l.live = cdrop_take(w, product(lines, blocks), sizeof *l.live);
    l.start = cdrop_take(w, product(lines, blocks), sizeof *l.start);
    /* From here on nothing can overflow: products of the same sizes were taken. */
    if (w->failed || w->measuring)
        return l;
    /* In an arena the words are what an earlier call left: a list that is never filled must be empty. */
    memset(l.live, 0, lines * blocks * sizeof *l.live);
    for (size_t b = 0; b < blocks; b++)
        for (size_t line = 0; line < lines; line++)
            l.start[b * lines + line] = packed ? line * line_room : (b * lines + line) * CDROP_SLOT;
    return l;
}

/* In pieces of one size, which compile to moves; both lists have room behind them. What a piece writes behind its
 * list is overwritten by the next list, because copies ascend. */
static void copy_values(char *to, const char *from, size_t bytes)
{
    enum { PIECE = CDROP_SPARE * sizeof(float) };
    for (size_t i = 0; i < bytes; i += PIECE)
        memcpy(to + i, from + i, PIECE);
}

/* Block after block, all lines of a block together: the order in which products read the values, so that the
 * hardware fetches them ahead. The copy is not filled again, and so needs neither slots nor rooms: `packed` stays 0.
 * The entries are counted first, because their number is the size. */
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

/* All panels are k->panel columns wide but the last, whose width is the rest, padded to CDROP_LANES: products then
 * need no tail of columns. A matrix without columns has no panels. */
static cdrop_panels shape(const cdrop_kernels *k, size_t columns)
{
    cdrop_panels m = {.panels = (columns + k->panel - 1) / k->panel, .pitch = k->panel};
    if (m.panels)
        m.tail_width = cdrop_pad(columns - (m.panels - 1) * k->panel);
    return m;
}

/* Lines of a panel follow each other without gaps: the 64 lines of a block are one piece of 16 or 32 KiB, which
 * falls evenly on the sets of L1. Padded lines and columns exist in memory, so tiles of a transpose and whole
 * vectors may touch them. */
cdrop_panels cdrop_take_panels(cdrop_workspace *w, const cdrop_kernels *k, size_t lines, size_t columns)
{
    cdrop_panels m = shape(k, columns);
    /* Panel after panel: each but the last is k->panel columns wide, so the last one's narrower lines move nobody's
     * place. */
    m.step = product(k->panel, cdrop_pad(lines)); /* whole tiles can be transposed */
    m.tail_pitch = m.tail_width;
    m.data = cdrop_take(w, product(cdrop_pad(lines), cdrop_pad(columns)), k->size);
    return m;
}

/* The step from panel to panel stays, so that no panel is moved; only the last panel, and which one that is,
 * changes. Every line still fits: a panel is never wider than it was. */
cdrop_panels cdrop_narrowed(const cdrop_panels *m, const cdrop_kernels *k, size_t columns)
{
    cdrop_panels n = shape(k, columns);
    n.data = m->data;
    n.step = m->step;
    n.tail_pitch = n.tail_width;
    return n;
}

/* Rows whose length is a multiple of 1 kB would fall on few cache sets: those get one more cache line (of floats).
 * An L1 of 64 sets takes a column of such rows into 4 of them or fewer. */
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

/* Nothing writes through a view: the const is cast away because panels have one type. Rows have no padding, so whole
 * vectors must not be read: it serves as the dense left side of a product, which is read entry by entry. */
cdrop_panels cdrop_view_rows(const cdrop_kernels *k, const void *rows, size_t columns)
{
    cdrop_panels m = shape(k, columns);
    m.data = (void *)rows;
    m.step = k->panel;
    m.pitch = m.tail_pitch = columns;
    return m;
}

/* Which way copy_lines moves: one loop, so that both directions agree on the layout. */
typedef enum { INTO_PANELS, OUT_OF_PANELS } direction;

/* Real columns only: padding is neither read from rows, which have none, nor written in panels. */
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

/* A move, not arithmetic. Threads may copy different lines at once: a line of a panel is a thread's own. */
void cdrop_pack(const cdrop_panels *m, const cdrop_kernels *k, const void *rows, size_t columns, size_t l0, size_t l1)
{
    copy_lines(m, k, (char *)rows, columns, l0, l1, INTO_PANELS);
}

void cdrop_unpack(const cdrop_panels *m, const cdrop_kernels *k, void *rows, size_t columns, size_t l0, size_t l1)
{
    copy_lines(m, k, rows, columns, l0, l1, OUT_OF_PANELS);
}
