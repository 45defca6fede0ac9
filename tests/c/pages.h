/* Pages of memory, and what happens when a program touches one that it may not: as Windows has it, and POSIX. */
#ifndef PAGES_H
#define PAGES_H

static void (*when_trapped)(void);

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#define NOGDI
#include <windows.h>

static size_t page_size(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

/* Pages that trap, or NULL. */
static void *reserve_pages(size_t bytes) { return VirtualAlloc(NULL, bytes, MEM_RESERVE, PAGE_NOACCESS); }

/* Makes pages of these usable. */
static int open_pages(void *pages, size_t bytes)
{
    return VirtualAlloc(pages, bytes, MEM_COMMIT, PAGE_READWRITE) != NULL;
}

static LONG WINAPI filter(EXCEPTION_POINTERS *exception)
{
    (void)exception;
    when_trapped();
    return EXCEPTION_EXECUTE_HANDLER;
}

/* Has `function` called instead of the program's silent end. */
static void watch_traps(void (*function)(void))
{
    when_trapped = function;
    SetUnhandledExceptionFilter(filter);
}

#else

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static void *reserve_pages(size_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

static int open_pages(void *pages, size_t bytes) { return !mprotect(pages, bytes, PROT_READ | PROT_WRITE); }

static void trapped_by(int signal_number)
{
    (void)signal_number;
    when_trapped();
}

static void watch_traps(void (*function)(void))
{
    when_trapped = function;
    signal(SIGSEGV, trapped_by);
    signal(SIGBUS, trapped_by);
}

#endif

#endif
