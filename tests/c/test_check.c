/* The harness: what it must find, it finds. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { BYTES = 100 };

typedef void (*fault)(volatile char *buffer);

static void read_behind(volatile char *buffer) { (void)buffer[BYTES]; }
static void write_behind(volatile char *buffer) { buffer[BYTES] = 1; }
static void read_in_front(volatile char *buffer) { (void)buffer[-1]; }
static void write_in_front(volatile char *buffer) { buffer[-1] = 1; }

static void none(volatile char *buffer)
{
    buffer[0] = buffer[BYTES - 1];
    buffer[BYTES - 1] = 1;
}

/* How many of 100 buffers notice, by a trap or when they are given back; each in a child, which says nothing. */
static int noticed(fault f)
{
    int found = 0;
    for (int i = 0; i < 100; i++) {
        char *buffer = guarded(BYTES);
        const pid_t child = fork();
        int status;
        if (child == 0) {
            close(STDOUT_FILENO);
            f(buffer);
            guarded_release();
            _exit(check_failures() > 0);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status), "the child");
        found += WEXITSTATUS(status) != 0;
    }
    guarded_release();
    return found;
}

static void test_guards(void)
{
    check_case("guards");
    CHECK(noticed(none) == 0, "what is allowed is found");
    CHECK(noticed(write_behind) == 100 && noticed(write_in_front) == 100, "a write outside a buffer is not found");
    CHECK(noticed(read_behind) >= 50, "%d of 100 reads behind a buffer are found", noticed(read_behind));
    CHECK(noticed(read_in_front) >= 10, "%d of 100 reads in front of one are found", noticed(read_in_front));
}

int main(void)
{
    test_guards();
    return check_report();
}
