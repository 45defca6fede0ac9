/* The operating system's threads, locks and condition variables under one set of names: those of Windows, or POSIX.
 * Only .c files include it, before anything else: it decides what the system's headers declare. */
#ifndef CDROP_OS_THREADS_H
#define CDROP_OS_THREADS_H

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#define NOGDI
#define NOMINMAX
#include <windows.h>

typedef SRWLOCK cdrop_mutex;
typedef CONDITION_VARIABLE cdrop_condition;
#define CDROP_MUTEX SRWLOCK_INIT
#define CDROP_CONDITION CONDITION_VARIABLE_INIT

static inline void cdrop_lock(cdrop_mutex *m) { AcquireSRWLockExclusive(m); }
static inline int cdrop_try_lock(cdrop_mutex *m) { return TryAcquireSRWLockExclusive(m); }
static inline void cdrop_unlock(cdrop_mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void cdrop_sleep(cdrop_condition *c, cdrop_mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
static inline void cdrop_wake_all(cdrop_condition *c) { WakeAllConditionVariable(c); }
static inline void cdrop_yield(void) { SwitchToThread(); }
static inline int cdrop_this_cpu(void) { return (int)GetCurrentProcessorNumber(); }

/* What a thread runs: CDROP_THREAD name(void *argument), which ends with `return 0`. */
#define CDROP_THREAD DWORD WINAPI
typedef LPTHREAD_START_ROUTINE cdrop_thread_body;

/* Starts a thread that nobody waits for; 0 where the system gives no more. */
static inline int cdrop_start_thread(cdrop_thread_body body, void *argument)
{
    const HANDLE thread = CreateThread(NULL, 0, body, argument, 0, NULL);
    if (!thread)
        return 0;
    CloseHandle(thread);
    return 1;
}

static inline void cdrop_in_forked_child(void (*function)(void)) { (void)function; }

#else

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getcpu */
#endif
#include <pthread.h>
#include <sched.h>

typedef pthread_mutex_t cdrop_mutex;
typedef pthread_cond_t cdrop_condition;
#define CDROP_MUTEX PTHREAD_MUTEX_INITIALIZER
#define CDROP_CONDITION PTHREAD_COND_INITIALIZER

static inline void cdrop_lock(cdrop_mutex *m) { pthread_mutex_lock(m); }
static inline int cdrop_try_lock(cdrop_mutex *m) { return !pthread_mutex_trylock(m); }
static inline void cdrop_unlock(cdrop_mutex *m) { pthread_mutex_unlock(m); }
static inline void cdrop_sleep(cdrop_condition *c, cdrop_mutex *m) { pthread_cond_wait(c, m); }
static inline void cdrop_wake_all(cdrop_condition *c) { pthread_cond_broadcast(c); }
static inline void cdrop_yield(void) { sched_yield(); }

/* -1 where the system does not say. */
static inline int cdrop_this_cpu(void)
{
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

#define CDROP_THREAD void *
typedef void *(*cdrop_thread_body)(void *);

static inline int cdrop_start_thread(cdrop_thread_body body, void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, argument))
        return 0;
    pthread_detach(thread);
    return 1;
}

/* Has the child of each fork call a function first. */
static inline void cdrop_in_forked_child(void (*function)(void))
{
#if defined(__wasi__)
    (void)function; /* a system without processes */
#else
    pthread_atfork(NULL, NULL, function);
#endif
}

#endif

#endif
