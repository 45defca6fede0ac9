/* Trials of fewer and of more threads: see pace.h.
 *
 * Steps are judged by windows of several, for a single one may have been interrupted. A trial is a window that is compared
 * with those before it. One that was faster is repeated, and has to be faster again. */
#include "pace.h"

enum {
    STEPS = 16, /* of a window, at least */
    /* Windows before the first trial, and before one that follows a change. After a trial that has changed nothing it
     * is four times as many, up to LONGEST: then trials are 1 of 129 windows, and cost less than 1 % even where one
     * thread takes twice as long as two. */
    FIRST = 4,
    LONGEST = 128,
    OTHERS = 64, /* steps in a row that may get fewer threads than those before: the limit has been lowered */
};

static const double SHORTEST = 2e-3; /* seconds of a window */
static const double FASTER = 0.95;   /* of the time before: a gain that is more than noise */
static const double CHANGED = 1.25;  /* steps that have become this much slower are a reason for a trial at once */

int cdrop_paced_threads(const cdrop_pace *p, int first, int most)
{
    const int threads = p->most == 0 ? first : p->tried ? p->tried : p->threads;
    return threads < most ? threads : most;
}

static void begin_trial(cdrop_pace *p)
{
    p->up = p->threads == 1 || (p->up && p->threads < p->most);
    p->tried = p->up ? 2 * p->threads : (p->threads + 1) / 2;
    p->tried = p->tried < p->most ? p->tried : p->most;
}

/* Where more or fewer threads have helped, still more or fewer may. */
static void end_trial(cdrop_pace *p, double pace)
{
    const int faster = pace < FASTER * p->usual;
    if (faster && !p->won) {
        p->won = 1;
        return;
    }
    if (faster) {
        p->threads = p->tried;
        p->usual = pace;
        p->wait = FIRST;
    } else {
        p->up = !p->up;
        p->wait = 4 * p->wait < LONGEST ? 4 * p->wait : LONGEST;
    }
    p->tried = p->won = 0;
    p->left = p->wait;
}

/* The trial does not follow the slow window itself: most of those are slow by chance, and steps on any number of threads
 * would be faster than it. */
static void end_window(cdrop_pace *p, double pace)
{
    if (p->tried) {
        end_trial(p, pace);
        return;
    }
    const int changed = p->usual > 0 && pace > CHANGED * p->usual;
    p->usual = changed || p->usual == 0 ? pace : (p->usual + pace) / 2;
    if (changed) {
        p->wait = FIRST;
        p->left = 1;
    } else if (p->left)
        p->left--;
    else
        begin_trial(p);
}

/* A single step that may get fewer threads, as the last one of an epoch with its few rows, does not count. */
void cdrop_note_pace(cdrop_pace *p, int first, int most, size_t rows, double seconds)
{
    p->fewer = most < p->most ? p->fewer + 1 : 0;
    if (most > p->most || p->fewer > OTHERS)
        *p = (cdrop_pace){.most = most, .threads = first, .wait = FIRST, .left = FIRST};
    if (p->fewer || most < 2 || !rows)
        return;
    p->seconds += seconds;
    p->rows += (double)rows;
    p->steps++;
    if (p->steps < STEPS || p->seconds < SHORTEST)
        return;
    end_window(p, p->seconds / p->rows);
    p->seconds = p->rows = 0;
    p->steps = 0;
}
