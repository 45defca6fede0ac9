/* A small pool of threads that stays alive between jobs.
 *
 * A job is one function run by every thread of a team at once; inside it the team meets at barriers. Workers spin for a
 * moment after a job, since the next step usually follows at once, then sleep. A job that finds the pool busy (another
 * Python thread trains) runs on its caller alone, which by the library's contract changes nothing but its time. After a
 * fork the child starts without workers and makes its own. */
#ifndef CDROP_THREADS_H
#define CDROP_THREADS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "cdrop.h"

typedef struct {
    int index; /* of this thread, 0 is the caller */
    int size;  /* of the team */
} cdrop_team;

typedef void (*cdrop_job)(void *argument, cdrop_team team);

/* Runs `job` on up to `threads` threads, the caller among them, with denormals flushed; returns when all have ended. */
void cdrop_parallel(cdrop_job job, void *argument, int threads);

/* The threads asked for; for 0, of those that there are, as many as pay where the products between barriers are
 * together that many dense multiply-adds. */
int cdrop_useful_threads(int asked, double work);

/* Up to how many may pay, which has to be tried: see pace.h. */
int cdrop_tried_threads(int asked, double work);

/* Waits until every thread of the team has come here; what they wrote before is visible after. */
void cdrop_barrier(cdrop_team team);

/* The part [*from, *to) of `items` items that is this thread's. */
void cdrop_share(cdrop_team team, size_t items, size_t *from, size_t *to);

/* How many items of one thread's part have been claimed: from its front by itself, from its back by others. */
typedef struct {
    atomic_uint_least64_t claimed;
    char apart[64 - sizeof(atomic_uint_least64_t)]; /* a cache line each */
} cdrop_claims;

/* A loop whose items a team divides while it runs: a thread that has done its own part helps the others. So a CPU that
 * is slow, or busy with something else, does not hold the team up for long. */
typedef struct {
    cdrop_team team;
    cdrop_claims *claims; /* one for each thread, zero before the loop; or NULL for fixed parts */
    size_t items, next, end;
    int whose;
} cdrop_loop;

cdrop_loop cdrop_divide(cdrop_team team, cdrop_claims *claims, size_t items);
/* The next item for this thread, or 0 when all are claimed. */
int cdrop_next(cdrop_loop *loop, size_t *item);

#endif
