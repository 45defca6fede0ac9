#define _GNU_SOURCE
#include "check.h"

#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src_c/fma.h"
#include "pages.h"

enum { MOST_PRINTED = 20, CANARY_BYTES = 64, PATTERN = 0xa5 };

static size_t passed, failed;
static char case_name[200] = "-";

void check_passed(void) { passed++; }

void check_failed(const char *file, int line, const char *message, ...)
{
    va_list arguments;
    if (failed++ >= MOST_PRINTED)
        return;
    printf("%s:%d: [%s] ", file, line, case_name);
    va_start(arguments, message);
    vprintf(message, arguments);
    va_end(arguments);
    printf("\n");
#ifdef CHECK_STOPS
    exit(1);
#endif
}

/* A trap cannot be survived, but it can say which case it was. */
static void trapped(void)
{
    printf("memory outside a buffer was touched in: %s\n", case_name);
    fflush(stdout);
    _Exit(1);
}

void check_case(const char *name, ...)
{
    static int watching;
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(case_name, sizeof case_name, name, arguments);
    va_end(arguments);
    if (!watching)
        watch_traps(trapped);
    watching = 1;
}

size_t check_failures(void) { return failed; }

int check_report(void)
{
    guarded_release();
    if (failed > MOST_PRINTED)
        printf("... and %zu more\n", failed - MOST_PRINTED);
    printf("%zu passed, %zu failed\n", passed, failed);
    return failed != 0;
}

/* ---- Allocations of the library ------------------------------------------------------------------------------ */

atomic_int check_taken, check_refused;

static int refuse(void) { return atomic_fetch_add(&check_taken, 1) + 1 == atomic_load(&check_refused); }

void *check_malloc(size_t bytes) { return refuse() ? NULL : malloc(bytes); }
void *check_calloc(size_t n, size_t bytes) { return refuse() ? NULL : calloc(n, bytes); }

/* ---- Guarded buffers ----------------------------------------------------------------------------------------- */

/* Mapped once, then used again and again: mapping is slow under an emulator. */
typedef struct region {
    struct region *next;
    unsigned char *pages, *start, *canary;
    size_t room; /* whole pages between the two that trap */
} region;

static region *in_use, *idle;

static region *map_region(size_t room, size_t page)
{
    region *r = malloc(sizeof *r);
    if (!r)
        abort();
    r->pages = reserve_pages(page + room + page);
    if (!r->pages || !open_pages(r->pages + page, room))
        abort();
    r->pages += page;
    r->room = room;
    return r;
}

void *guarded(size_t bytes)
{
    const size_t page = page_size(), room = (bytes + CANARY_BYTES + page - 1) / page * page;
    region **link = &idle, *r;
    while (*link && (*link)->room != room)
        link = &(*link)->next;
    r = *link;
    if (r)
        *link = r->next;
    else
        r = map_region(room, page);
    r->next = in_use;
    in_use = r;
    const int at_front = random_below(4) == 0;
    r->start = at_front ? r->pages : r->pages + room - bytes;
    r->canary = at_front ? r->pages + bytes : r->start - CANARY_BYTES;
    memset(r->start, PATTERN, bytes);
    memset(r->canary, PATTERN, CANARY_BYTES);
    return r->start;
}

void *guarded_copy(const void *from, size_t bytes)
{
    void *copy = guarded(bytes);
    if (bytes)
        memcpy(copy, from, bytes);
    return copy;
}

void guarded_release(void)
{
    while (in_use) {
        region *r = in_use;
        for (size_t i = 0; i < CANARY_BYTES; i++)
            if (r->canary[i] != PATTERN) {
                check_failed(__FILE__, __LINE__, "a write %td bytes from the start of a buffer",
                             r->canary + i - r->start);
                break;
            }
        in_use = r->next;
        r->next = idle;
        idle = r;
    }
}

/* ---- Random numbers (SplitMix64) ----------------------------------------------------------------------------- */

uint64_t random_bits(void)
{
    static uint64_t state = 2026;
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

double random_between(double low, double high)
{
    return low + (high - low) * ((double)(random_bits() >> 11) * 0x1p-53);
}

size_t random_below(size_t n) { return (size_t)(random_bits() % n); }

/* ---- Elements ------------------------------------------------------------------------------------------------ */

#if defined(__x86_64__) && !defined(CDROP_HAS_FMA)
#define BY_TARGET
CDROP_TARGET_BEGIN("fma")
#endif
float fused_instruction_f32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
double fused_instruction_f64(double a, double b, double c) { return __builtin_fma(a, b, c); }
#if defined(BY_TARGET)
CDROP_TARGET_END
#endif

int has_fused_instruction(void)
{
#if defined(BY_TARGET)
    static int known, has;
    if (!known) {
        const char *before = cdrop_simd_active();
        cdrop_select_simd("scalar");
        has = cdrop_active_path() == &cdrop_path_scalar_fma;
        cdrop_select_simd(before);
        known = 1;
    }
    return has;
#elif defined(CDROP_HAS_FMA)
    return 1;
#else
    return 0;
#endif
}

double fused(cdrop_dtype t, double a, double b, double c)
{
    const int has = has_fused_instruction();
    if (t == CDROP_FLOAT64)
        return has ? fused_instruction_f64(a, b, c) : cdrop_fma_f64(a, b, c);
    const float x = (float)a, y = (float)b, z = (float)c;
    return (double)(has ? fused_instruction_f32(x, y, z) : cdrop_fma_f32(x, y, z));
}

size_t first_difference(cdrop_dtype t, const void *a, const void *b, size_t n)
{
    const size_t size = size_of(t);
    if (n == 0 || !memcmp(a, b, n * size))
        return n;
    for (size_t i = 0; i < n; i++)
        if (memcmp((const char *)a + i * size, (const char *)b + i * size, size) &&
            !(isnan(get(t, a, i)) && isnan(get(t, b, i))))
            return i;
    return n;
}

uint64_t hash_elements(uint64_t hash, cdrop_dtype t, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t half;
        uint64_t bits;
        if (t == CDROP_FLOAT64)
            memcpy(&bits, (const double *)p + i, sizeof bits);
        else {
            memcpy(&half, (const float *)p + i, sizeof half);
            bits = half;
        }
        for (size_t byte = 0; byte < size_of(t); byte++)
            hash = (hash ^ (bits >> 8 * byte & 0xff)) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static size_t compared, nonzero;

void check_compared(cdrop_dtype t, const void *p, size_t n)
{
    compared += n;
    for (size_t i = 0; i < n; i++)
        nonzero += get(t, p, i) != 0;
}

void check_mostly_nonzero(const char *comparison)
{
    check_case("%s", comparison);
    CHECK(2 * nonzero > compared, "%zu of %zu numbers compared are not 0", nonzero, compared);
    compared = nonzero = 0;
}

void *random_array(cdrop_dtype t, size_t n, double density, double size)
{
    void *array = guarded(n * size_of(t));
    for (size_t i = 0; i < n; i++)
        put(t, array, i, random_between(0, 1) < density ? random_between(-size, size) : 0);
    return array;
}

void add_special_values(cdrop_dtype t, void *p, size_t n)
{
    const double tiny = t == CDROP_FLOAT64 ? DBL_MIN : (double)FLT_MIN, huge = t == CDROP_FLOAT64 ? DBL_MAX : FLT_MAX;
    const double values[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, tiny / 2, -tiny / 2, tiny, -tiny, huge, -huge};
    for (size_t i = 0; i < n; i++)
        if (random_below(8) == 0)
            put(t, p, i, values[random_below(COUNT(values))]);
}

uint64_t *random_mask(size_t lines, size_t units, double density)
{
    const size_t words = cdrop_words(units);
    uint64_t *mask = guarded(lines * words * sizeof *mask);
    for (size_t i = 0; i < lines * words; i++) {
        mask[i] = 0;
        for (int bit = 0; bit < 64; bit++)
            mask[i] |= (uint64_t)(random_between(0, 1) < density) << bit;
        mask[i] &= cdrop_valid_bits(units, i % words);
    }
    return mask;
}

/* ---- SIMD paths ---------------------------------------------------------------------------------------------- */

size_t all_paths(const cdrop_path *paths[MOST_PATHS])
{
    size_t n = 0;
    for (const char *name; (name = cdrop_simd_usable((int)n)) != NULL;) {
        CHECK(cdrop_select_simd(name) == CDROP_OK, "path %s is usable but cannot be chosen", name);
        paths[n++] = cdrop_active_path();
    }
    CHECK(n > 0 && !strcmp(paths[0]->name, "scalar"), "the first path is not the scalar one");
    if (paths[0] != &cdrop_path_scalar)
        paths[n++] = &cdrop_path_scalar;
    return n;
}
