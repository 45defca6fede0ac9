/* Preloaded by tests/soak/memory.py: counts the blocks that the code within a range of addresses takes from the C library and
 * has not given back, and refuses it one of them. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void __libc_free(void *block);

static uintptr_t watched_from, watched_to;
static atomic_long until_refused, held;

static int watched(void *caller) { return (uintptr_t)caller >= watched_from && (uintptr_t)caller < watched_to; }

void failing_watch(uintptr_t from, uintptr_t to)
{
    watched_from = from;
    watched_to = to;
}

/* The nth allocation from now on fails; 0: none. */
void failing_set(long nth) { atomic_store(&until_refused, nth); }

/* Whether that one is still to come. */
int failing_pending(void) { return atomic_load(&until_refused) > 0; }

long failing_held(void) { return atomic_load(&held); }

static int refused(void) { return atomic_load(&until_refused) > 0 && atomic_fetch_sub(&until_refused, 1) == 1; }

static void *counted(void *block)
{
    atomic_fetch_add(&held, block != NULL);
    return block;
}

void *malloc(size_t bytes)
{
    if (!watched(__builtin_return_address(0)))
        return __libc_malloc(bytes);
    return refused() ? NULL : counted(__libc_malloc(bytes));
}

void *calloc(size_t n, size_t bytes)
{
    if (!watched(__builtin_return_address(0)))
        return __libc_calloc(n, bytes);
    return refused() ? NULL : counted(__libc_calloc(n, bytes));
}

void free(void *block)
{
    if (watched(__builtin_return_address(0)))
        atomic_fetch_sub(&held, block != NULL);
    __libc_free(block);
}
