/* What whole programs do besides system calls: PROGRAM fork|fork_beside|thread|LOOP TIMES
 *
 * A line for each time, of nanoseconds: by the clock, and of processor time (children included).
 * Loops make no calls: what they take longer for being interruptible is what that costs.
 */
#define STACKS 16 /* each is written to before all begins, and so copied by a fork */
#include "thread.h"

enum { RUSAGE_SELF = 0, RUSAGE_CHILDREN = -1, CLOCK_THREAD_CPUTIME_ID = 3 };
enum { BYTES = 1 << 16, SIDE = 96, STEPS = 20000000, BESIDE = 4 };

static unsigned char bytes[BYTES];
static unsigned squares[3][SIDE][SIDE];
static volatile unsigned kept;

static long now(int clock) {
    struct timespec t;
    SYS_clock_gettime(clock, &t);
    return t.seconds * 1000000000 + t.rest;
}

static long used_by(int who) {
    long usage[64];
    SYS_getrusage(who, usage);
    return (usage[0] + usage[2]) * 1000000 + usage[1] + usage[3];
}

static long used(void) {
    return (used_by(RUSAGE_SELF) + used_by(RUSAGE_CHILDREN)) * 1000;
}

/* --- what is measured ------------------------------------------------------------------------- */

static void fork_and_wait(void) {
    int status, pid = (int)SYS_fork();
    if (pid == 0)
        leave(0);
    SYS_wait4(pid, &status, 0, NULL);
}

static volatile int never;

static void waits(long unused) {
    (void)unused;
    while (!never)
        SYS_futex((void *)&never, FUTEX_WAIT, 0, NULL, NULL, 0);
}

/* The same with threads alive, which wait and are not in the child. */
static void fork_beside_threads(void) {
    static int alive;
    for (; alive < BESIDE; alive++)
        begin(alive, waits, 0);
    fork_and_wait();
}

static void nothing(long unused) {
    (void)unused;
}

static void start_and_join(void) {
    begin(0, nothing, 0);
    join(0);
}

/* The shortest loop that a compiler leaves alone: a multiplication and an addition. */
static void tight(void) {
    unsigned state = kept;
    for (int i = 0; i < STEPS; i++)
        state = state * 1664525 + 1013904223;
    kept = state;
}

/* A hash of bytes: as short, with a load. */
static void hash(void) {
    unsigned state = kept;
    for (int round = 0; round < STEPS / BYTES; round++)
        for (int i = 0; i < BYTES; i++)
            state = (state ^ bytes[i]) * 16777619;
    kept = state;
}

static void sieve(void) {
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < BYTES; i++)
            bytes[i] = 1;
        for (int i = 2; i * i < BYTES; i++)
            for (int j = i * i; bytes[i] && j < BYTES; j += i)
                bytes[j] = 0;
    }
    kept += bytes[BYTES - 1];
}

static void multiply(void) {
    for (int round = 0; round < 8; round++)
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                unsigned sum = kept;
                for (int k = 0; k < SIDE; k++)
                    sum += squares[0][i][k] * squares[1][k][j];
                squares[2][i][j] = sum;
            }
}

static const struct {
    const char *name;
    void (*run)(void);
} kinds[] = {
    {"fork", fork_and_wait}, {"fork_beside", fork_beside_threads},
    {"tight", tight},        {"thread", start_and_join},
    {"hash", hash},          {"sieve", sieve},
    {"multiply", multiply},
};

int main(int argc, char **argv) {
    for (unsigned kind = 0; argc == 3 && kind < sizeof kinds / sizeof *kinds; kind++)
        for (long i = number(argv[2]); i > 0 && equal(kinds[kind].name, argv[1]); i--) {
            long began = now(CLOCK_MONOTONIC), before = used();
            kinds[kind].run();
            say("%d %d\n", now(CLOCK_MONOTONIC) - began, used() - before);
        }
    return 0;
}
