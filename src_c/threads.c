/* The thread pool: workers that spin, then yield, then sleep while they wait. See threads.h for what a job may rely
 * on. OpenMP would be shorter, but two of its runtimes in one process, or one after a fork, can hang. */
#include "os_threads.h"

#include <stdatomic.h>

#include "cpu.h"
#include "threads.h"

enum {
    SPINS_BEFORE_LOOK = 100,   /* about 2 us of pauses: longer than most waits */
    SPINS_BEFORE_YIELD = 2000, /* about 40 us: longer than the gap between two steps */
    YIELDS_BEFORE_SLEEP = 50,
    WORTH_A_THREAD = 2000000, /* multiply-adds: with fewer, two cores are hardly faster than one (measured) */
};

/* Where threads sleep that have waited long for the same thing. */
typedef struct {
    cdrop_condition wake;
    atomic_int sleepers;
} bed;

typedef struct {
    atomic_uint job; /* counts the jobs handed to this worker */
    cdrop_team team;
    bed bed;
} mailbox;

static struct {
    cdrop_mutex busy;  /* held while a job runs */
    cdrop_mutex sleep; /* of all beds */
    int workers;
    mailbox mail[CDROP_MAX_THREADS];
    atomic_int cpu[CDROP_MAX_THREADS]; /* where each thread of the team began the job */
    cdrop_job job;
    void *argument;
    atomic_uint unfinished;
    atomic_uint arrived, phase; /* of the barrier */
    bed bed;                    /* of the team, while it waits for any of these */
} pool = {.busy = CDROP_MUTEX, .sleep = CDROP_MUTEX, .bed = {.wake = CDROP_CONDITION}};

static atomic_int default_threads = 1;

int cdrop_get_num_threads(void) { return atomic_load(&default_threads); }

void cdrop_set_num_threads(int threads)
{
    if (threads >= 1)
        atomic_store(&default_threads, threads < CDROP_MAX_THREADS ? threads : CDROP_MAX_THREADS);
}

int cdrop_useful_threads(int asked, double work)
{
    const int threads = cdrop_get_num_threads();
    if (asked)
        return asked;
    return work < (double)WORTH_A_THREAD * threads ? 1 + (int)(work / WORTH_A_THREAD) : threads;
}

static atomic_int cpus = 1;

void cdrop_set_cpus(int n) { atomic_store(&cpus, n); }

/* Whether another of the team seems to need the CPU that this thread is on: a worker that has slept is often woken
 * there, and stays for milliseconds. */
static int crowded(int team)
{
    const int here = cdrop_this_cpu();
    int together = 0;
    for (int i = 0; here >= 0 && i < team; i++)
        together += atomic_load_explicit(&pool.cpu[i], memory_order_relaxed) == here;
    return together > 1;
}

/* One turn of a waiting loop: spin first, then let others run; false when it is time to sleep. A team larger than the
 * machine never spins. */
static int wait_a_little(int *turns, int team)
{
    if (++*turns == SPINS_BEFORE_LOOK && crowded(team))
        *turns = SPINS_BEFORE_YIELD;
    if (*turns < SPINS_BEFORE_YIELD && team <= atomic_load_explicit(&cpus, memory_order_relaxed))
        cdrop_relax();
    else {
        *turns = *turns < SPINS_BEFORE_YIELD ? SPINS_BEFORE_YIELD : *turns;
        cdrop_yield();
    }
    return *turns < SPINS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP;
}

/* Waits while *word is `value`. A thread that waits long sleeps: on a busy machine the one it waits for needs its
 * CPU. */
static void wait_while(atomic_uint *word, unsigned value, int team, bed *b)
{
    for (int turns = 0; wait_a_little(&turns, team);)
        if (atomic_load(word) != value)
            return;
    cdrop_lock(&pool.sleep);
    atomic_fetch_add(&b->sleepers, 1);
    while (atomic_load(word) == value)
        cdrop_sleep(&b->wake, &pool.sleep);
    atomic_fetch_sub(&b->sleepers, 1);
    cdrop_unlock(&pool.sleep);
}

/* After a change of a word that others may sleep on: the lock orders this after their last look at it. */
static void wake(bed *b)
{
    if (!atomic_load(&b->sleepers))
        return;
    cdrop_lock(&pool.sleep);
    cdrop_wake_all(&b->wake);
    cdrop_unlock(&pool.sleep);
}

void cdrop_barrier(cdrop_team team)
{
    if (team.size == 1)
        return;
    const unsigned phase = atomic_load(&pool.phase);
    if (atomic_fetch_add(&pool.arrived, 1) + 1 < (unsigned)team.size) {
        wait_while(&pool.phase, phase, team.size, &pool.bed);
        return;
    }
    atomic_store(&pool.arrived, 0);
    atomic_store(&pool.phase, phase + 1);
    wake(&pool.bed);
}

void cdrop_share(cdrop_team team, size_t items, size_t *from, size_t *to)
{
    const size_t size = (size_t)team.size, index = (size_t)team.index;
    *from = items / size * index + cdrop_min(items % size, index);
    *to = *from + items / size + (index < items % size);
}

cdrop_loop cdrop_divide(cdrop_team team, cdrop_claims *claims, size_t items)
{
    cdrop_loop loop = {.team = team, .claims = team.size > 1 ? claims : NULL, .items = items, .whose = team.index};
    cdrop_share(team, items, &loop.next, &loop.end);
    return loop;
}

/* From the part of thread `whose`: its own thread takes from the front, others from the back, so that both stay within
 * few panels. */
static int claim(cdrop_loop *loop, size_t *item)
{
    atomic_uint_least64_t *claimed = &loop->claims[loop->whose].claimed;
    const int own = loop->whose == loop->team.index;
    size_t from, to;
    uint64_t old = atomic_load_explicit(claimed, memory_order_relaxed);
    cdrop_share((cdrop_team){loop->whose, loop->team.size}, loop->items, &from, &to);
    for (;;) {
        const size_t front = old & UINT32_MAX, back = old >> 32;
        if (front + back >= to - from)
            return 0;
        if (atomic_compare_exchange_weak_explicit(claimed, &old, old + (own ? 1 : UINT64_C(1) << 32),
                                                  memory_order_relaxed, memory_order_relaxed)) {
            *item = own ? from + front : to - back - 1;
            return 1;
        }
    }
}

int cdrop_next(cdrop_loop *loop, size_t *item)
{
    if (!loop->claims) {
        *item = loop->next++;
        return *item < loop->end;
    }
    while (!claim(loop, item)) {
        loop->whose = (loop->whose + 1) % loop->team.size;
        if (loop->whose == loop->team.index)
            return 0;
    }
    return 1;
}

static void run_job(cdrop_job job, void *argument, cdrop_team team)
{
    const cdrop_fp_mode mode = cdrop_flush_denormals();
    atomic_store_explicit(&pool.cpu[team.index], cdrop_this_cpu(), memory_order_relaxed);
    job(argument, team);
    cdrop_restore_fp_mode(mode);
}

static CDROP_THREAD work(void *argument)
{
    mailbox *mail = argument;
    cdrop_team team = {0, 1};
    for (unsigned seen = 0;; seen++) {
        wait_while(&mail->job, seen, team.size, &mail->bed);
        team = mail->team;
        run_job(pool.job, pool.argument, team);
        if (atomic_fetch_sub(&pool.unfinished, 1) == 1)
            wake(&pool.bed);
    }
    return 0;
}

static void make_bed(bed *b)
{
    b->wake = (cdrop_condition)CDROP_CONDITION;
    atomic_store(&b->sleepers, 0);
}

/* The child of a fork has only the thread that forked: it begins with an empty, free pool. */
static void forget_workers(void)
{
    pool.workers = 0;
    pool.busy = pool.sleep = (cdrop_mutex)CDROP_MUTEX;
    make_bed(&pool.bed);
    atomic_store(&pool.unfinished, 0);
    atomic_store(&pool.arrived, 0);
}

/* Adds workers until `wanted` are there; fewer, where the system gives no more, is fine. The caller holds pool.busy. */
static int start_workers(int wanted)
{
    static int watching;
    if (!watching)
        cdrop_in_forked_child(forget_workers);
    watching = 1;
    while (pool.workers < wanted) {
        mailbox *mail = &pool.mail[pool.workers];
        atomic_store(&mail->job, 0);
        make_bed(&mail->bed);
        if (!cdrop_start_thread(work, mail))
            break;
        pool.workers++;
    }
    return pool.workers < wanted ? pool.workers : wanted;
}

static void hand_out(int workers)
{
    for (int i = 0; i < workers; i++) {
        pool.mail[i].team = (cdrop_team){i + 1, workers + 1};
        atomic_fetch_add(&pool.mail[i].job, 1);
        wake(&pool.mail[i].bed);
    }
}

void cdrop_parallel(cdrop_job job, void *argument, int threads)
{
    if (threads <= 1 || !cdrop_try_lock(&pool.busy)) {
        run_job(job, argument, (cdrop_team){0, 1});
        return;
    }
    const int workers = start_workers((threads < CDROP_MAX_THREADS ? threads : CDROP_MAX_THREADS) - 1);
    pool.job = job;
    pool.argument = argument;
    atomic_store(&pool.unfinished, (unsigned)workers);
    hand_out(workers);
    run_job(job, argument, (cdrop_team){0, workers + 1});
    for (unsigned left; (left = atomic_load(&pool.unfinished)) > 0;)
        wait_while(&pool.unfinished, left, workers + 1, &pool.bed);
    cdrop_unlock(&pool.busy);
}
