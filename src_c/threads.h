/* A small pool of threads that stays alive between jobs.
 *
 * A job is one function run by every thread of a team at once; inside it the team meets at barriers. Workers spin for a
 * moment after a job, since the next step usually follows at once, then sleep. A job that finds the pool busy (another
 * Python thread trains) runs on its caller alone, which by the library's contract changes nothing but its time. After a
 * fork the child starts without workers and makes its own. */
#ifndef CDROP_THREADS_H
#define CDROP_THREADS_H

#include <stddef.h>

#include "cdrop.h"

typedef struct {
    int index; /* of this thread, 0 is the caller */
    int size;  /* of the team */
} cdrop_team;

typedef void (*cdrop_job)(void *argument, cdrop_team team);

/* Runs `job` on up to `threads` threads, the caller among them, with denormals flushed; returns when all have ended. */
void cdrop_parallel(cdrop_job job, void *argument, int threads);

/* The threads asked for; for 0, of those that there are, as many as pay where the products between barriers are together
 * that many dense multiply-adds. */
int cdrop_useful_threads(int asked, double work);

/* Waits until every thread of the team has come here; what they wrote before is visible after. */
void cdrop_barrier(cdrop_team team);

/* The part [*from, *to) of `items` items that is this thread's. */
void cdrop_share(cdrop_team team, size_t items, size_t *from, size_t *to);

#endif
