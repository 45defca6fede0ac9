/* Where the time of a step goes. Each thread has its own watch; a lap adds the time since the last one to a part of
 * a layer. */
#ifndef CDROP_STOPWATCH_H
#define CDROP_STOPWATCH_H

#include <time.h>

#include "cdrop.h"

typedef struct {
    double last;
    double *seconds; /* [layer][part] */
    char apart[64];  /* from the next thread's cache line */
} cdrop_stopwatch;

static inline double cdrop_now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A watch that is NULL measures nothing and costs nothing. Parts that happen once a step are counted in layer 0. */
static inline void cdrop_lap(cdrop_stopwatch *w, cdrop_time part, size_t layer)
{
    if (!w)
        return;
    const double now = cdrop_now();
    w->seconds[layer * CDROP_TIMES + part] += now - w->last;
    w->last = now;
}

#endif
