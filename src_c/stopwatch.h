/* Where the time of a step goes. Each thread has a watch of its own; a lap gives the time since the last one to a part. */
#ifndef CDROP_STOPWATCH_H
#define CDROP_STOPWATCH_H

#include <time.h>

#include "cdrop.h"

typedef struct {
    double last;
    double seconds[CDROP_TIMES];
    char apart[64]; /* from the next thread's cache line */
} cdrop_stopwatch;

static inline double cdrop_now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A watch that is NULL measures nothing and costs nothing. */
static inline void cdrop_start_watch(cdrop_stopwatch *w)
{
    if (w)
        w->last = cdrop_now();
}

static inline void cdrop_lap(cdrop_stopwatch *w, cdrop_time part)
{
    if (!w)
        return;
    const double now = cdrop_now();
    w->seconds[part] += now - w->last;
    w->last = now;
}

#endif
