#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "cpu.h"

enum {
    SPINS_BEFORE_YIELD = 2000, /* about 40 us of pauses: longer than the gap between two steps */
    YIELDS_BEFORE_SLEEP = 50,
};

typedef struct {
    atomic_uint job; /* counts the jobs handed to this worker */
    atomic_int asleep;
    cdrop_team team;
} mailbox;

static struct {
    pthread_mutex_t busy;  /* held while a job runs */
    pthread_mutex_t sleep; /* guards `wake` */
    pthread_cond_t wake;
    int workers;
    mailbox mail[CDROP_MAX_THREADS];
    cdrop_job job;
    void *argument;
    atomic_int unfinished;
    atomic_uint arrived, phase; /* of the barrier */
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static atomic_int default_threads = 1;

int cdrop_get_num_threads(void) { return atomic_load(&default_threads); }

void cdrop_set_num_threads(int threads)
{
    if (threads >= 1)
        atomic_store(&default_threads, threads < CDROP_MAX_THREADS ? threads : CDROP_MAX_THREADS);
}

static atomic_int cpus = 1;

void cdrop_set_cpus(int n) { atomic_store(&cpus, n); }

/* One turn of a waiting loop: spin first, then let others run. A team larger than the machine never spins. */
static void wait_a_little(int *turns, int team)
{
    if (++*turns < SPINS_BEFORE_YIELD && team <= atomic_load_explicit(&cpus, memory_order_relaxed))
        cdrop_relax();
    else
        sched_yield();
}

void cdrop_barrier(cdrop_team team)
{
    if (team.size == 1)
        return;
    const unsigned phase = atomic_load_explicit(&pool.phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&pool.arrived, 1, memory_order_acq_rel) + 1 == (unsigned)team.size) {
        atomic_store_explicit(&pool.arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool.phase, phase + 1, memory_order_release);
        return;
    }
    for (int turns = 0; atomic_load_explicit(&pool.phase, memory_order_acquire) == phase;)
        wait_a_little(&turns, team.size);
}

void cdrop_share(cdrop_team team, size_t items, size_t *from, size_t *to)
{
    const size_t size = (size_t)team.size, index = (size_t)team.index;
    *from = items / size * index + cdrop_min(items % size, index);
    *to = *from + items / size + (index < items % size);
}

static void run_job(cdrop_job job, void *argument, cdrop_team team)
{
    const cdrop_fp_mode mode = cdrop_flush_denormals();
    job(argument, team);
    cdrop_restore_fp_mode(mode);
}

static void sleep_until(mailbox *mail, unsigned seen)
{
    pthread_mutex_lock(&pool.sleep);
    atomic_store(&mail->asleep, 1);
    while (atomic_load(&mail->job) == seen)
        pthread_cond_wait(&pool.wake, &pool.sleep);
    atomic_store(&mail->asleep, 0);
    pthread_mutex_unlock(&pool.sleep);
}

static void *work(void *argument)
{
    mailbox *mail = argument;
    cdrop_team team = {0, 1};
    for (unsigned seen = 0;; seen++) {
        for (int turns = 0; atomic_load_explicit(&mail->job, memory_order_acquire) == seen;) {
            if (turns >= SPINS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP)
                sleep_until(mail, seen);
            else
                wait_a_little(&turns, team.size);
        }
        team = mail->team;
        run_job(pool.job, pool.argument, team);
        atomic_fetch_sub_explicit(&pool.unfinished, 1, memory_order_release);
    }
    return NULL;
}

/* The child of a fork has only the thread that forked: it begins with an empty, free pool. */
static void forget_workers(void)
{
    pool.workers = 0;
    pthread_mutex_init(&pool.busy, NULL);
    pthread_mutex_init(&pool.sleep, NULL);
    pthread_cond_init(&pool.wake, NULL);
    atomic_store(&pool.unfinished, 0);
    atomic_store(&pool.arrived, 0);
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Adds workers until `wanted` are there; fewer, where the system gives no more, is fine. */
static int start_workers(int wanted)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    while (pool.workers < wanted) {
        pthread_t thread;
        mailbox *mail = &pool.mail[pool.workers];
        atomic_store(&mail->job, 0);
        atomic_store(&mail->asleep, 0);
        if (pthread_create(&thread, NULL, work, mail))
            break;
        pthread_detach(thread);
        pool.workers++;
    }
    return pool.workers < wanted ? pool.workers : wanted;
}

static void hand_out(int workers)
{
    int sleeping = 0;
    for (int i = 0; i < workers; i++) {
        pool.mail[i].team = (cdrop_team){i + 1, workers + 1};
        atomic_fetch_add(&pool.mail[i].job, 1);
        sleeping |= atomic_load(&pool.mail[i].asleep);
    }
    if (sleeping) { /* the lock orders this after a worker's last look at its mail */
        pthread_mutex_lock(&pool.sleep);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.sleep);
    }
}

void cdrop_parallel(cdrop_job job, void *argument, int threads)
{
    if (threads <= 1 || pthread_mutex_trylock(&pool.busy)) {
        run_job(job, argument, (cdrop_team){0, 1});
        return;
    }
    const int workers = start_workers((threads < CDROP_MAX_THREADS ? threads : CDROP_MAX_THREADS) - 1);
    pool.job = job;
    pool.argument = argument;
    atomic_store(&pool.unfinished, workers);
    hand_out(workers);
    run_job(job, argument, (cdrop_team){0, workers + 1});
    for (int turns = 0; atomic_load_explicit(&pool.unfinished, memory_order_acquire);)
        wait_a_little(&turns, workers + 1);
    pthread_mutex_unlock(&pool.busy);
}
