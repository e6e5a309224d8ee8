/* No signal is lost between the last look for one and a call that waits.
 *
 * Another process sends one about when the call begins.  The handler feeds the pipe that is read: a
 * signal that came before the call, and whose handler did not run, would leave it waiting for ever.
 */
#include "wali.h"

static int ends[2];
static volatile long handled;

static void feed(int signal) {
    (void)signal;
    handled++;
    SYS_write(ends[1], "x", 1);
}

static void spin(long times) {
    for (volatile long wait = times; wait > 0; wait--)
        ;
}

static void send(volatile long *turn, long tries, int to) {
    for (long i = 1; i <= tries; i++) {
        for (long looked = 0; *turn != i; looked++)
            if (looked > 1000)
                SYS_sched_yield(); /* there may be one processor */
        spin(i % 61 * 4);
        SYS_kill(to, SIGUSR1);
    }
}

static volatile long *turn;

static void take_turn(int signal) {
    (void)signal;
    __atomic_add_fetch(turn, 1, __ATOMIC_SEQ_CST);
}

/* The same without calls: all signals come to a loop, each when the one before is handled. */
static int loop(long tries, int parent) {
    handle(SIGUSR1, take_turn, 0, 0);
    *turn = 1;
    if (SYS_fork() == 0) {
        send(turn, tries, parent);
        leave(0);
    }
    while (*turn <= tries)
        ;
    tell("handled", *turn - 1);
    return 0;
}

int main(int argc, char **argv) {
    long tries = argc > 1 ? number(argv[1]) : 1000, interrupted = 0;
    long at = SYS_mmap(NULL, PAGE, PROT_BOTH, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    turn = (volatile long *)(size_t)at;
    int parent = (int)SYS_getpid();
    char byte;
    if (argc > 2)
        return loop(tries, parent);
    SYS_pipe(ends);
    handle(SIGUSR1, feed, 0, 0);
    if (SYS_fork() == 0) {
        send(turn, tries, parent);
        leave(0);
    }
    for (long i = 1; i <= tries; i++) {
        __atomic_store_n(turn, i, __ATOMIC_SEQ_CST);
        spin(i % 7 * 4);
        long r;
        while ((r = SYS_read(ends[0], &byte, 1)) == -4)
            interrupted++;
        if (r != 1 || handled != i)
            tell("lost", r);
    }
    tell("tries", tries);
    say("interrupted: %d\n", interrupted);
    return 0;
}
