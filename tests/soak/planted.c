/* Faults that the sanitizers and valgrind must find, to show that the commands which find none elsewhere can. As a program
 * it makes the fault that is named; tests/soak/sanitizers.py also loads it as a library. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBERS = 8 };

/* Volatile throughout: the compiler must neither foresee the faults nor leave them out. */
__attribute__((visibility("default"))) int planted_read(void)
{
    volatile int *numbers = calloc(NUMBERS, sizeof *numbers), *volatile end = numbers + NUMBERS;
    const int beyond = *end;
    free((void *)numbers);
    return beyond;
}

__attribute__((visibility("default"))) int planted_overflow(void)
{
    volatile int most = INT_MAX;
    return most + 1;
}

static int planted_uninitialized(void)
{
    void *(*volatile take)(size_t) = malloc; /* else the compiler finds the fault itself */
    int *numbers = take(NUMBERS * sizeof *numbers);
    const int answer = numbers[NUMBERS / 2] == 1 ? 2 : 3;
    free(numbers);
    return answer;
}

__attribute__((visibility("default"))) void planted_leak(void)
{
    void *(*volatile take)(size_t) = malloc;
    if (!take(NUMBERS)) /* nobody keeps what it gives */
        abort();
}

static int shared;

static void *count_up(void *argument)
{
    for (int i = 0; i < 1000; i++)
        *(volatile int *)&shared += 1;
    return argument;
}

static int planted_race(void)
{
    pthread_t other;
    if (pthread_create(&other, NULL, count_up, NULL))
        abort();
    count_up(NULL);
    pthread_join(other, NULL);
    return shared;
}

static const struct {
    const char *name;
    int (*make)(void);
} faults[] = {
    {"read", planted_read},
    {"overflow", planted_overflow},
    {"uninitialized", planted_uninitialized},
    {"race", planted_race},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (argc == 2 && !strcmp(argv[1], faults[i].name)) {
            printf("%s: %d\n", faults[i].name, faults[i].make());
            return 0;
        }
    return 2;
}
