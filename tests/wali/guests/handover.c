/* A signal that has come is not lost where its handler does not run: when a thread ends, and when a
 * program is executed.  Nor is it handled twice, or by whom it was not sent to.
 */
#include "thread.h"

enum { EXECUTED = 20, ARRIVALS = 60, ENDS = 200, FIRSTS = 60, STARTS = 60, MOST_LOST = 3 };
enum { THREAD = 0, WAITS_US = 1000000 };

static char *self;

#if defined(__wasm__)
typedef unsigned pointer;
#else
typedef unsigned long pointer;
#endif

static void execute(const char *how, const char *more) {
    pointer words[] = {(pointer)(size_t)self, (pointer)(size_t)how, (pointer)(size_t)more, 0};
    pointer none[] = {0};
    leave(40 - (int)SYS_execve(self, words, none));
}

static void alarm_after(long us) {
    long value[4] = {0, 0, 0, us ? us : 1};
    SYS_setitimer(0, value, NULL);
}

static void pause_us(long us) {
    struct timespec length = {0, us * 1000};
    SYS_nanosleep(&length, NULL);
}

/* --- signals that keep coming ----------------------------------------------------------------- */

static volatile int handled;

static void notes(int signal) {
    (void)signal;
    __atomic_fetch_add(&handled, 1, __ATOMIC_SEQ_CST);
}

static int rain(int to) {
    int pid = (int)SYS_fork();
    while (pid == 0) {
        if (SYS_kill(to, SIGURG) < 0 || SYS_getppid() != to)
            leave(0);
        pause_us(50);
    }
    return pid;
}

static void is_over(int pid) {
    SYS_kill(pid, SIGKILL);
    SYS_wait4(pid, NULL, 0, NULL);
}

/* The program executes itself, and finds what was blocked: nothing. */
static void executed(long times, const char *sender) {
    char digits[24];
    unsigned long blocked = mask(SIG_BLOCK, 0);
    if (blocked)
        tell("executed with a mask", (long)blocked);
    if (times == EXECUTED) {
        is_over((int)number(sender));
        tell("executed", times);
        leave(0);
    }
    handle(SIGURG, notes, 0, 0);
    digits[decimal(digits, times + 1)] = 0;
    execute(digits, sender);
}

static volatile int masked;

static void has_a_mask(long unused) {
    (void)unused;
    masked += mask(SIG_BLOCK, 0) != 0;
}

static void starts_threads(void) {
    handle(SIGURG, notes, 0, 0);
    int pid = rain((int)SYS_getpid());
    for (int i = 0; i < STARTS; i++) {
        begin(THREAD, has_a_mask, 0);
        join(THREAD);
    }
    is_over(pid);
    tell("threads with a mask", masked);
}

/* --- one signal, at any moment ---------------------------------------------------------------- */

static void is_handled(int signal) {
    (void)signal;
    leave(3);
}

static volatile int turns;

static void loops(long unused) {
    (void)unused;
    for (;;)
        turns++;
}

/* It is handled before, or ends the new program, whichever thread it has come to. */
static void during_execve(void) {
    int survived = 0;
    for (int i = 0; i < ARRIVALS; i++) {
        int status = -1, pid = (int)SYS_fork();
        if (pid == 0) {
            handle(SIGALRM, is_handled, 0, 0);
            for (int thread = 0; thread < i % 3; thread++)
                begin(thread, loops, 0);
            alarm_after(i * 500l);
            execute("waits", NULL);
        }
        SYS_wait4(pid, &status, 0, NULL);
        survived += status != SIGALRM && status != 3 << 8;
    }
    tell("have survived a signal during execve", survived);
}

static void is_brief(long unused) {
    (void)unused;
    mask(SIG_UNBLOCK, bit(SIGALRM));
}

/* Whether it comes to a thread that ends or waits for another: it is there. */
static int is_there(int before) {
    for (long us = 0; us < WAITS_US; us += 500) {
        unsigned long pending = 0;
        SYS_rt_sigpending(&pending, 8);
        if (handled != before || pending & bit(SIGALRM))
            return 1;
        pause_us(500);
    }
    return 0;
}

static void at_the_end_of_a_thread(void) {
    int lost = 0;
    handled = 0;
    handle(SIGALRM, notes, 0, 0);
    mask(SIG_BLOCK, bit(SIGALRM));
    for (int i = 1; i <= ENDS && lost < MOST_LOST; i++) {
        alarm_after(i % 50 * 20);
        begin(THREAD, is_brief, 0);
        join(THREAD);
        lost += !is_there(i - 1 - lost);
        mask(SIG_UNBLOCK, bit(SIGALRM));
        mask(SIG_BLOCK, bit(SIGALRM));
        if (handled != i - lost)
            tell("handled twice", handled);
    }
    mask(SIG_UNBLOCK, bit(SIGALRM));
    tell("lost with a thread", lost);
}

static void takes_over(long unused) {
    (void)unused;
    pause_for(3);
    mask(SIG_UNBLOCK, bit(SIGALRM));
    for (int i = 0; i < 1000 && !handled; i++)
        pause_for(1);
    leave(handled == 1 ? 3 : 4);
}

static void at_the_end_of_the_first(void) {
    int lost = 0;
    for (int i = 0; i < FIRSTS && lost < MOST_LOST; i++) {
        int status = -1, pid = (int)SYS_fork();
        if (pid == 0) {
            handled = 0;
            mask(SIG_BLOCK, bit(SIGALRM));
            handle(SIGALRM, notes, 0, 0);
            begin(THREAD, takes_over, 0);
            mask(SIG_UNBLOCK, bit(SIGALRM));
            alarm_after(i % 50 * 4);
            SYS_exit(0);
        }
        SYS_wait4(pid, &status, 0, NULL);
        lost += status != 3 << 8;
    }
    tell("lost with the first", lost);
}

/* --- a signal for one thread ------------------------------------------------------------------ */

static volatile int others;

static void is_mine(int signal) {
    (void)signal;
    others += SYS_gettid() == SYS_getpid();
}

static void ends(long unused) {
    (void)unused;
}

static void for_one_thread(void) {
    handle(SIGUSR1, is_mine, 0, 0);
    for (int i = 0; i < STARTS; i++) {
        begin(THREAD, ends, 0);
        while (threads[THREAD].tid == 0)
            SYS_sched_yield();
        while (SYS_tkill(threads[THREAD].tid, SIGUSR1) == 0)
            ;
    }
    tell("handled by another", others);
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1 && equal(argv[1], "waits"))
        return pause_for(300), 0;
    if (argc > 1)
        executed(number(argv[1]), argv[2]);
    during_execve();
    at_the_end_of_a_thread();
    at_the_end_of_the_first();
    for_one_thread();
    starts_threads();
    char digits[24];
    handle(SIGURG, notes, 0, 0);
    digits[decimal(digits, rain((int)SYS_getpid()))] = 0;
    executed(0, digits);
    return 1;
}
