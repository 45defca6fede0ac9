/* How many threads steps get where nobody has asked for a number: as many as make them fast.
 *
 * More are not always faster. Threads wait for each other a few times a step. On a virtual machine with two CPUs a step
 * on two threads was seen to take 0.53 to 0.6 of the time on one while the host gave each a core, and 1 to 2.1 of it while
 * both were on one core, with changes every few seconds; another program on one of the CPUs has the same effect. So from
 * time to time a few steps are made on half or on twice as many threads, and the faster number stays. Results do not
 * depend on the number of threads, so none of this shows in them. */
#ifndef CDROP_PACE_H
#define CDROP_PACE_H

#include <stddef.h>

/* All zero before the first step. */
typedef struct {
    int most;             /* threads that steps may get */
    int threads;          /* that they get, */
    int tried;            /* and for the time being, or 0 */
    int won;              /* whether the trial was the faster one once */
    int up;               /* whether more are tried next, not fewer */
    double usual;         /* seconds for a row on `threads`, smoothed over windows; 0 before the first */
    double seconds, rows; /* of this window, and its */
    size_t steps;
    size_t fewer;      /* steps in a row that might not get `most` */
    size_t wait, left; /* windows from trial to trial, and until the next one */
} cdrop_pace;

/* For a step that may get up to `most`, and gets `first` where nothing is known yet. */
int cdrop_paced_threads(const cdrop_pace *p, int first, int most);

/* After that step. */
void cdrop_note_pace(cdrop_pace *p, int first, int most, size_t rows, double seconds);

#endif
