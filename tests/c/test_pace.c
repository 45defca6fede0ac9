/* How many threads steps get, on machines that are made up: what a step takes on each number of threads is given. */
#include "check.h"
#include "pace.h"

enum { ROWS = 100 };

/* Seconds of a step on one thread, and how many times as fast it is on others. */
typedef struct {
    int first, most;
    double alone;
    const double *speedup; /* by number of threads */
} machine;

/* Makes steps, and gives the seconds they take in all. */
static double run(cdrop_pace *p, const machine *m, size_t steps)
{
    double seconds = 0;
    for (size_t i = 0; i < steps; i++) {
        const double step = m->alone / m->speedup[cdrop_paced_threads(p, m->first, m->most)];
        cdrop_note_pace(p, m->first, m->most, ROWS, step);
        seconds += step;
    }
    return seconds;
}

/* With a core for each of two CPUs, and with one for both. */
static const double own[] = {0, 1, 1.7}, shared[] = {0, 1, 0.6};
static const double many[] = {0, 1, 1.9, 2.8, 3.5, 4, 4.3, 4.2, 4};           /* most on 6 */
static const double few[] = {0, 1, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1, 1, 1, 1}; /* most on 2 */

static void test_the_faster_number(double alone)
{
    cdrop_pace p = {.most = 0};
    const machine two = {2, 2, alone, own}, one = {2, 2, alone, shared};
    const size_t steps = alone < 1e-4 ? (size_t)(3 / alone) : 30000; /* a thousand windows and more */
    check_case("the faster number, steps of %g s", alone);
    CHECK(cdrop_paced_threads(&p, 2, 2) == 2, "the first step has %d threads", cdrop_paced_threads(&p, 2, 2));
    const double fast = run(&p, &two, steps) / ((double)steps * alone);
    CHECK(p.threads == 2 && fast < 1.02 / 1.7, "%d threads, %g of one thread's time", p.threads, fast);
    const double slow = run(&p, &one, steps) / ((double)steps * alone);
    CHECK(p.threads == 1 && slow < 1.02, "%d threads, %g of one thread's time", p.threads, slow);
    run(&p, &two, steps);
    CHECK(p.threads == 2, "%d threads", p.threads);
}

/* A step that has become slower is a reason for a trial at once, not when its turn has come. */
static void test_a_change_is_noticed(void)
{
    cdrop_pace p = {.most = 0};
    const machine two = {2, 2, 1e-3, own}, one = {2, 2, 1e-3, shared};
    check_case("a change");
    run(&p, &two, 100000);
    run(&p, &one, 100);
    CHECK(p.threads == 1, "%d threads after 100 steps", p.threads);
}

/* Small steps begin on few threads. */
static void test_the_first_number(void)
{
    const machine two = {1, 2, 1e-4, own}, one = {1, 2, 1e-4, shared};
    cdrop_pace p = {.most = 0}, q = {.most = 0};
    check_case("the first number");
    CHECK(cdrop_paced_threads(&p, 1, 2) == 1, "the first step has %d threads", cdrop_paced_threads(&p, 1, 2));
    run(&p, &two, 1000);
    CHECK(p.threads == 2, "%d threads", p.threads);
    const double slow = run(&q, &one, 10000) / (10000 * one.alone);
    CHECK(q.threads == 1 && slow < 1.03, "%d threads, %g of one thread's time", q.threads, slow);
}

static void test_many_threads(void)
{
    cdrop_pace p = {.most = 0}, q = {.most = 0};
    const machine up = {8, 8, 1e-3, many}, down = {11, 11, 1e-3, few};
    check_case("many threads");
    run(&p, &up, 20000);
    CHECK(up.speedup[p.threads] >= 3.5, "%d of 8 threads", p.threads);
    run(&q, &down, 20000);
    CHECK(q.threads <= 3, "%d of 11 threads", q.threads);
}

/* The last step of an epoch, with few rows, may get fewer threads. It is not counted; one that may get more begins the
 * trials again, and so does a limit that has been lowered. */
static void test_other_steps(void)
{
    cdrop_pace p = {.most = 0};
    check_case("other steps");
    for (int i = 0; i < 10000; i++) {
        cdrop_note_pace(&p, 4, 4, ROWS, 1e-3);
        cdrop_note_pace(&p, 1, 1, 1, 1);
        cdrop_note_pace(&p, 4, 4, 0, 1);
    }
    CHECK(p.most == 4 && p.usual < 1.01e-3 / ROWS, "%d threads, %g s a row", p.most, p.usual);
    CHECK(cdrop_paced_threads(&p, 1, 1) == 1, "more threads than the step may get");
    for (int i = 0; i < 100; i++)
        cdrop_note_pace(&p, 2, 2, ROWS, 1e-3);
    CHECK(p.most == 2, "%d threads where the limit is 2", p.most);
    cdrop_note_pace(&p, 8, 8, ROWS, 1e-3);
    CHECK(cdrop_paced_threads(&p, 8, 8) == 8, "%d threads", cdrop_paced_threads(&p, 8, 8));
}

/* One step in twenty is interrupted for as long as many steps: a wrong number of threads does not stay. */
static void test_interruptions(void)
{
    cdrop_pace p = {.most = 0};
    size_t right = 0;
    check_case("interruptions");
    for (int i = 0; i < 100000; i++) {
        const int threads = cdrop_paced_threads(&p, 2, 2);
        right += threads == 2;
        cdrop_note_pace(&p, 2, 2, ROWS, 1e-3 / own[threads] + (random_below(20) ? 0 : 5e-3));
    }
    CHECK(right > 75000, "%zu of 100,000 steps on the faster number", right);
}

int main(void)
{
    test_the_faster_number(1e-5);
    test_the_faster_number(1e-3);
    test_the_faster_number(0.1);
    test_a_change_is_noticed();
    test_the_first_number();
    test_many_threads();
    test_other_steps();
    test_interruptions();
    return check_report();
}
