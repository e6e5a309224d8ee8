/* Waiting by WebAssembly's own instructions: memory.atomic.wait32, wait64 and notify.
 *
 * Natively it is futex(2), which waits on 32 bits: so nothing here changes the upper half alone
 * while somebody waits.  What a thread does in its wait is the kernel's: it handles signals, and
 * ends.
 */
#include "thread.h"

enum { OK, NOT_EQUAL, TIMED_OUT, FIRST = 0, SECOND, SIGNALS = 200, ROUNDS = 2000 };

static const long FOR_EVER = -1, SOON = 1000000, MOMENT = 30000000;

#if defined(__wasm__)

static int wait32(volatile int *at, int expected, long ns) {
    return __builtin_wasm_memory_atomic_wait32((int *)at, expected, ns);
}

static int wait64(volatile long *at, long expected, long ns) {
    return __builtin_wasm_memory_atomic_wait64((long long *)at, expected, ns);
}

static unsigned notify(volatile void *at, unsigned count) {
    return __builtin_wasm_memory_atomic_notify((int *)at, count);
}

#else

enum { EINTR = 4, ETIMEDOUT = 110, FUTEX_MONOTONIC = FUTEX_WAIT_BITSET };

static int wait32(volatile int *at, int expected, long ns) {
    struct timespec until = {0, 0};
    SYS_clock_gettime(CLOCK_MONOTONIC, &until);
    until.rest += ns % 1000000000;
    until.seconds += ns / 1000000000 + until.rest / 1000000000;
    until.rest %= 1000000000;
    long r;
    do
        r = SYS_futex((void *)at, FUTEX_MONOTONIC, expected, ns < 0 ? NULL : &until, NULL, -1);
    while (r == -EINTR);
    return r == 0 ? OK : r == -ETIMEDOUT ? TIMED_OUT : NOT_EQUAL;
}

static int wait64(volatile long *at, long expected, long ns) {
    if (__atomic_load_n(at, __ATOMIC_SEQ_CST) != expected)
        return NOT_EQUAL;
    return wait32((volatile int *)at, (int)expected, ns);
}

static unsigned notify(volatile void *at, unsigned count) {
    int most = count > 0x7fffffff ? 0x7fffffff : (int)count;
    return count ? (unsigned)SYS_futex((void *)at, FUTEX_WAKE, most, NULL, NULL, 0) : 0;
}

#endif

/* --- what the instructions give --------------------------------------------------------------- */

static struct {
    int before[2];
    volatile int word;
    volatile long both;
} places;

static void alone(void) {
    places.word = 1;
    places.both = 1l << 40 | 7;
    tell("another value", wait32(&places.word, 0, FOR_EVER));
    tell("a time-out", wait32(&places.word, 1, SOON));
    tell("no time", wait32(&places.word, 1, 0));
    tell("another upper half", wait64(&places.both, 7, FOR_EVER));
    tell("another lower half", wait64(&places.both, 1l << 40, FOR_EVER));
    tell("a time-out", wait64(&places.both, 1l << 40 | 7, SOON));
    places.both = -1;
    tell("all bits", wait64(&places.both, -1, SOON));
    tell("nobody there", notify(&places.word, 1));
    tell("nobody wanted", notify(&places.word, 0));
    tell("all of nobody", notify(&places.both, -1u));
}

/* --- threads ---------------------------------------------------------------------------------- */

static volatile int results[8];

static void until_asleep(int count) {
    while (__atomic_load_n(&places.before[0], __ATOMIC_SEQ_CST) < count)
        SYS_sched_yield();
    pause_for(30);
    places.before[0] = 0;
}

static void waits32(long i) {
    __atomic_fetch_add(&places.before[0], 1, __ATOMIC_SEQ_CST);
    results[i] = wait32(&places.word, 1, FOR_EVER);
}

static void waits64(long i) {
    __atomic_fetch_add(&places.before[0], 1, __ATOMIC_SEQ_CST);
    results[i] = wait64(&places.both, 5l << 32, FOR_EVER);
}

static void waking(void) {
    places.word = 1;
    places.both = 5l << 32;
    for (int i = 0; i < 4; i++)
        begin(i, waits32, i), results[i] = -1;
    until_asleep(4);
    tell("wake one", notify(&places.word, 1));
    tell("wake two", notify(&places.word, 2));
    tell("wake all that are left", notify(&places.word, -1u));
    for (int i = 0; i < 4; i++)
        join(i), tell("woken", results[i]);
    for (int i = 0; i < 2; i++)
        begin(i, waits64, i), results[i] = -1;
    until_asleep(2);
    tell("wake both", notify(&places.both, 9));
    for (int i = 0; i < 2; i++)
        join(i), tell("woken", results[i]);
}

static volatile int turn;

static void takes_turns(long me) {
    for (int i = 0; i < ROUNDS; i++) {
        int seen;
        while ((seen = __atomic_load_n(&turn, __ATOMIC_SEQ_CST)) % 2 != me)
            wait32(&turn, seen, FOR_EVER);
        __atomic_fetch_add(&turn, 1, __ATOMIC_SEQ_CST);
        notify(&turn, 1);
    }
}

static void in_turns(void) {
    begin(FIRST, takes_turns, 0);
    begin(SECOND, takes_turns, 1);
    join(FIRST), join(SECOND);
    tell("turns", turn);
}

/* --- signals ---------------------------------------------------------------------------------- */

static volatile int handled, handled_by;

static void notes(int signal) {
    (void)signal;
    handled_by = (int)SYS_gettid();
    __atomic_fetch_add(&handled, 1, __ATOMIC_SEQ_CST);
}

static void wakes(int signal) {
    places.word = signal;
    notify(&places.word, 1);
}

/* The wait goes on when the handler has run, whatever its flags say. */
static void signals(unsigned long flags) {
    handled = 0;
    handle(SIGUSR1, notes, flags, 0);
    places.word = 1;
    begin(FIRST, waits32, FIRST);
    until_asleep(1);
    for (int i = 1; i <= SIGNALS; i++) {
        SYS_tkill(threads[FIRST].tid, SIGUSR1);
        while (handled < i)
            SYS_sched_yield();
    }
    tell("handled while it waits", handled);
    tell("by who waits", handled_by == threads[FIRST].tid);
    tell("it waits on", !threads[FIRST].done);
    while (!notify(&places.word, 1))
        SYS_sched_yield();
    join(FIRST);
    tell("woken", results[FIRST]);
}

static void alarm_every(long us) {
    long value[4] = {0, us, 0, us};
    SYS_setitimer(0, value, NULL);
}

static void of_the_process(void) {
    handle(SIGALRM, wakes, 0, 0);
    places.word = 1;
    alarm_every(20000);
    tell("a handler changes what the first waits on", wait32(&places.word, 1, FOR_EVER));
    handled = 0;
    handle(SIGALRM, notes, SA_RESTART, 0);
    places.word = 1;
    alarm_every(2000);
    struct timespec from, to;
    SYS_clock_gettime(CLOCK_MONOTONIC, &from);
    tell("its time goes on", wait32(&places.word, 1, MOMENT));
    SYS_clock_gettime(CLOCK_MONOTONIC, &to);
    alarm_every(0);
    tell("  signals", handled > 2);
    long took = (to.seconds - from.seconds) * 1000000000 + to.rest - from.rest;
    tell("  not before", took >= MOMENT);
    tell("  not much later", took < 20 * MOMENT);
}

/* --- ends ------------------------------------------------------------------------------------- */

#if defined(__wasm__)
typedef unsigned pointer;
#else
typedef unsigned long pointer;
#endif

static char *self;

static void executes(long unused) {
    pointer words[] = {(pointer)(size_t)self, (pointer)(size_t)"executed", 0}, none[] = {0};
    (void)unused;
    SYS_execve(self, words, none);
}

static void leaves(long unused) {
    (void)unused;
    leave(31);
}

/* While the first and two others wait for ever, somebody ends them: by a program or an exit. */
static int ended(void (*by)(long)) {
    int status = -1, pid = (int)SYS_fork();
    if (pid == 0) {
        places.word = 1;
        places.both = 5l << 32;
        begin(2, waits32, 2);
        begin(3, waits64, 3);
        until_asleep(2);
        begin(4, by, 0);
        wait32(&places.word, 1, FOR_EVER);
    }
    SYS_wait4(pid, &status, 0, NULL);
    return status;
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1)
        return 21;
    alone();
    waking();
    in_turns();
    signals(0);
    signals(SA_RESTART);
    of_the_process();
    tell("a program is executed", ended(executes) >> 8);
    tell("a thread ends all", ended(leaves) >> 8);
    return 0;
}
