/* The thread pool: workers that spin, then yield, then sleep while they wait. See threads.h for what a job may rely
 * on. OpenMP would be shorter, but two of its runtimes in one process, or one after a fork, can hang.
 *
 * There is one pool and at most one job in it. A thread waits for a word to change its value: a worker for the
 * counter of its mailbox, the team for the phase of the barrier, the caller for the number of unfinished workers.
 * Words that others wait for are read and written with sequential consistency, for two reasons. Acquire and release
 * alone would publish what was written before the change; but a thread that is about to sleep and one that is about
 * to wake it each write one word and read the other's (see wake), and only a single order of all four accesses keeps
 * both from missing the other. Everything that only guides a choice (CPUs, claims) is relaxed. */
#include "os_threads.h"

#include <stdatomic.h>

#include "cpu.h"
#include "threads.h"

enum {
    SPINS_BEFORE_LOOK = 100,   /* about 2 us of pauses: longer than most waits */
    SPINS_BEFORE_YIELD = 2000, /* about 40 us: longer than the gap between two steps */
    YIELDS_BEFORE_SLEEP = 50,
    /* Multiply-adds of a thread, by measurement. Below the first, two threads took 0.7 to 0.9 of one thread's time, and up
     * to 1.5 of it where both CPUs were on one core; below the second 0.9 at best. */
    WORTH_A_THREAD = 2000000,
    WORTH_A_TRIAL = 500000,
};

/* Where threads sleep that have waited long for the same thing. `sleepers` changes under the lock `sleep`; it is
 * atomic because wake() looks at it without the lock, so that a change nobody sleeps on costs no system call. */
typedef struct {
    cdrop_condition wake;
    atomic_int sleepers;
} bed;

typedef struct {
    /* `team` is written before `job` changes and read after the change was seen. It is not written again until this
     * worker has finished. Only differences of the counter matter, so it may wrap around. */
    atomic_uint job; /* counts the jobs handed to this worker */
    cdrop_team team;
    bed bed;
} mailbox;

static struct {
    /* Everything but the beds and the atomics is written under `busy`, before a job is handed out, and is constant
     * while one runs. */
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

static int threads_for(int asked, double work, double of_each)
{
    const int threads = cdrop_get_num_threads();
    if (asked)
        return asked;
    return work < of_each * threads ? 1 + (int)(work / of_each) : threads;
}

int cdrop_useful_threads(int asked, double work) { return threads_for(asked, work, WORTH_A_THREAD); }

int cdrop_tried_threads(int asked, double work) { return threads_for(asked, work, WORTH_A_TRIAL); }

static atomic_int cpus = 1;

void cdrop_set_cpus(int n) { atomic_store(&cpus, n); }

/* Whether another of the team seems to need the CPU that this thread is on: a worker that has slept is often woken
 * there, and stays for milliseconds. A guess from where each thread began the job: stale entries cost time, not
 * results. */
static int crowded(int team)
{
    const int here = cdrop_this_cpu();
    int together = 0;
    for (int i = 0; here >= 0 && i < team; i++)
        together += atomic_load_explicit(&pool.cpu[i], memory_order_relaxed) == here;
    return together > 1;
}

/* One turn of a waiting loop: spin first, then let others run; false when it is time to sleep. A team larger than
 * the machine never spins: the thread it waits for may need this CPU. For the same reason a crowded thread skips the
 * rest of its spins after SPINS_BEFORE_LOOK turns. */
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
 * CPU. The load that sees the change orders what follows after all that the changing thread wrote before it. */
static void wait_while(atomic_uint *word, unsigned value, int team, bed *b)
{
    for (int turns = 0; wait_a_little(&turns, team);)
        if (atomic_load(word) != value)
            return;
    /* The last look comes after `sleepers` is raised, and the lock is held from there until the thread sleeps: a
     * thread that changes the word later sees the sleeper, and cannot wake the bed before it is in it. The loop also
     * covers spurious wakeups, and those meant for another word of the same bed. */
    cdrop_lock(&pool.sleep);
    atomic_fetch_add(&b->sleepers, 1);
    while (atomic_load(word) == value)
        cdrop_sleep(&b->wake, &pool.sleep);
    atomic_fetch_sub(&b->sleepers, 1);
    cdrop_unlock(&pool.sleep);
}

/* After a change of a word that others may sleep on: the lock orders this after their last look at it. The changer
 * writes the word, then reads `sleepers`; the sleeper raises `sleepers`, then reads the word. In any order of these
 * four at least one sees the other: the changer takes the lock and wakes, or the sleeper finds the new value and
 * does not sleep. */
static void wake(bed *b)
{
    if (!atomic_load(&b->sleepers))
        return;
    cdrop_lock(&pool.sleep);
    cdrop_wake_all(&b->wake);
    cdrop_unlock(&pool.sleep);
}

/* A counter of arrivals and a phase. A thread reads the phase before it arrives: until it has, the phase cannot
 * change.
 *
 * What it protects: every write of a thread before the barrier is visible to all after it. Each arrival is a
 * read-modify-write of one counter, so the last one to arrive has seen the writes of all others; it then writes the
 * phase, and a thread that reads the new phase sees everything that the last one saw. */
void cdrop_barrier(cdrop_team team)
{
    if (team.size == 1)
        return;
    const unsigned phase = atomic_load(&pool.phase);
    if (atomic_fetch_add(&pool.arrived, 1) + 1 < (unsigned)team.size) {
        wait_while(&pool.phase, phase, team.size, &pool.bed);
        return;
    }
    /* In this order: a thread that sees the new phase may arrive at the next barrier at once, and must count from 0.
     * The others wait for the phase, so none of them counts in between. */
    atomic_store(&pool.arrived, 0);
    atomic_store(&pool.phase, phase + 1);
    wake(&pool.bed);
}

/* Contiguous parts that differ by at most one item, the longer ones first. They depend on nothing but the sizes, so
 * each thread computes those of others as well (see claim). */
void cdrop_share(cdrop_team team, size_t items, size_t *from, size_t *to)
{
    const size_t size = (size_t)team.size, index = (size_t)team.index;
    *from = items / size * index + cdrop_min(items % size, index);
    *to = *from + items / size + (index < items % size);
}

/* Alone, a thread has nobody to share with: then the parts are fixed, and claims are not touched. */
cdrop_loop cdrop_divide(cdrop_team team, cdrop_claims *claims, size_t items)
{
    cdrop_loop loop = {.team = team, .claims = team.size > 1 ? claims : NULL, .items = items, .whose = team.index};
    cdrop_share(team, items, &loop.next, &loop.end);
    return loop;
}

/* From the part of thread `whose`: its own thread takes from the front, others from the back, so that both stay
 * within few panels.
 *
 * Both counts are in one word, the front in the low half and the back in the high half: one compare-and-swap sees
 * both, so front and back cannot pass each other and no item is claimed twice. Relaxed is enough. A claim only says
 * who computes an item; what the item reads was published by the barrier before the loop, and what it writes by the
 * barrier after it. The counters were zeroed before the job was handed out. Parts are far smaller than 2^32 items,
 * so neither half overflows. */
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
    /* A part only shrinks, so one that is used up is not visited again: after a full round nothing is left. Items
     * that others have claimed may still be running then. The barrier after the loop waits for them. */
    while (!claim(loop, item)) {
        loop->whose = (loop->whose + 1) % loop->team.size;
        if (loop->whose == loop->team.index)
            return 0;
    }
    return 1;
}

/* The mode of denormals belongs to a thread, and the caller's is the user's: it is restored. All threads of a team,
 * and also a caller that runs alone, must flush identically, or results would depend on who computed what. */
static void run_job(cdrop_job job, void *argument, cdrop_team team)
{
    const cdrop_fp_mode mode = cdrop_flush_denormals();
    atomic_store_explicit(&pool.cpu[team.index], cdrop_this_cpu(), memory_order_relaxed);
    job(argument, team);
    cdrop_restore_fp_mode(mode);
}

/* A worker's life. `seen` is the number of jobs it has done; hand_out raises the counter by one a job, and the next
 * job is handed out only when all workers have finished, so a worker cannot fall behind by two. It waits in the
 * manner of the last team that it was in. It never ends: the process's exit ends it. */
static CDROP_THREAD work(void *argument)
{
    mailbox *mail = argument;
    cdrop_team team = {0, 1};
    for (unsigned seen = 0;; seen++) {
        wait_while(&mail->job, seen, team.size, &mail->bed);
        team = mail->team;
        run_job(pool.job, pool.argument, team);
        /* The subtraction publishes what this worker wrote. Only the last one wakes the caller: it has nothing to do
         * before. */
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

/* The child of a fork has only the thread that forked: it begins with an empty, free pool. Another thread of the
 * parent may have held a lock, or have been in a job, at the moment of the fork: locks, beds and counts are made
 * again. The phase may keep its value, because only its changes count; mailboxes are reset when their workers start. */
static void forget_workers(void)
{
    pool.workers = 0;
    pool.busy = pool.sleep = (cdrop_mutex)CDROP_MUTEX;
    make_bed(&pool.bed);
    atomic_store(&pool.unfinished, 0);
    atomic_store(&pool.arrived, 0);
}

/* Adds workers until `wanted` are there; fewer, where the system gives no more, is fine. The caller holds pool.busy.
 * A mailbox is reset before its thread exists, so the thread begins to count at 0 as `work` does. Workers are never
 * stopped: a smaller team leaves the last of them asleep. */
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

/* The increment publishes the team, the job and its argument to the worker. */
static void hand_out(int workers)
{
    for (int i = 0; i < workers; i++) {
        pool.mail[i].team = (cdrop_team){i + 1, workers + 1};
        atomic_fetch_add(&pool.mail[i].job, 1);
        wake(&pool.mail[i].bed);
    }
}

/* try_lock instead of lock: a job that waited for another one would hold up its Python thread, while alone it can
 * begin at once. It also lets a job call this function, which then runs on its caller alone. */
void cdrop_parallel(cdrop_job job, void *argument, int threads)
{
    if (threads <= 1 || !cdrop_try_lock(&pool.busy)) {
        run_job(job, argument, (cdrop_team){0, 1});
        return;
    }
    const int workers = start_workers((threads < CDROP_MAX_THREADS ? threads : CDROP_MAX_THREADS) - 1);
    pool.job = job;
    pool.argument = argument;
    /* Before the first worker can finish. */
    atomic_store(&pool.unfinished, (unsigned)workers);
    hand_out(workers);
    run_job(job, argument, (cdrop_team){0, workers + 1});
    /* Any change of the count ends a wait, so it is a loop. Zero orders all writes of the workers before the return.
     * Only then may `busy` be given back: the next job overwrites what the workers read. */
    for (unsigned left; (left = atomic_load(&pool.unfinished)) > 0;)
        wait_while(&pool.unfinished, left, workers + 1, &pool.bed);
    cdrop_unlock(&pool.busy);
}
