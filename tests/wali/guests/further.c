/* Calls that WALI's specification has no arguments for, and programs make all the same. */
#include "thread.h"

/* --- copies in the kernel --------------------------------------------------------------------- */

static int made(const char *name, const char *text) {
    int fd = (int)SYS_open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    SYS_write(fd, text, length(text));
    return fd;
}

static void shows(int fd) {
    char text[64] = {0};
    tell("  bytes", SYS_pread64(fd, text, sizeof text - 1, 0));
    say("  %s\n", text);
}

static void copies(void) {
    int from = made("from", "zero one two three"), to = made("to", ""), ends[2];
    long at = 5, where = 2, outside = -1;
    char text[32] = {0};
    SYS_pipe(ends);
    tell("send", SYS_sendfile(to, from, &at, 7));
    tell("  offset", at);
    tell("  its own is", SYS_lseek(from, 0, 1));
    shows(to);
    SYS_lseek(from, 0, 0);
    tell("send from where it is", SYS_sendfile(ends[1], from, NULL, 4));
    tell("  it is", SYS_lseek(from, 0, 1));
    tell("  comes out", SYS_read(ends[0], text, sizeof text));
    say("  %s\n", text);
    tell("behind the end", SYS_sendfile(to, from, (at = 99, &at), 4));
    tell("from a pipe", SYS_sendfile(to, ends[0], &at, 4));
    tell("before the beginning", SYS_sendfile(to, from, &outside, 4));
    tell("to what is not open", SYS_sendfile(99, from, NULL, 4));
    tell("nothing", SYS_sendfile(to, from, NULL, 0));
    at = 9;
    tell("copy", SYS_copy_file_range(from, &at, to, &where, 3, 0));
    tell("  from", at);
    tell("  to", where);
    shows(to);
    tell("unknown flags", SYS_copy_file_range(from, &at, to, &where, 3, 1));
    tell("to a pipe", SYS_copy_file_range(from, &at, ends[1], NULL, 3, 0));
}

static volatile int interrupted;

static void notes(int signal) {
    interrupted = signal;
}

static void fills_a_pipe(void) {
    int from = made("much", ""), ends[2];
    long at = 0, once[4] = {0, 0, 0, 20000};
    SYS_ftruncate(from, 1 << 20);
    SYS_pipe(ends);
    handle(SIGALRM, notes, 0, 0);
    SYS_setitimer(0, once, NULL);
    tell("a signal ends it", SYS_sendfile(ends[1], from, &at, 1 << 20) < 1 << 20);
    tell("  which", interrupted);
}

/* --- signals that are waited for -------------------------------------------------------------- */

static int info[32];
static struct timespec none, soon = {0, 2000000}, long_time = {20, 0}, wrong = {0, 2000000000};

static void waits_for_signals(void) {
    unsigned long set = bit(SIGUSR1) | bit(SIGCHLD), others = bit(SIGUSR2);
    long value[2] = {0};
    handle(SIGUSR1, notes, 0, 0);
    handle(SIGUSR2, notes, 0, 0);
    interrupted = 0;
    mask(SIG_BLOCK, set);
    tell("nothing there", SYS_rt_sigtimedwait(&set, info, &none, 8));
    tell("nothing comes", SYS_rt_sigtimedwait(&set, info, &soon, 8));
    tell("a wrong time", SYS_rt_sigtimedwait(&set, info, &wrong, 8));
    tell("a wrong size", SYS_rt_sigtimedwait(&set, info, &none, 4));
    tell("no set", SYS_rt_sigtimedwait(NULL, info, &none, 8));
    SYS_kill((int)SYS_getpid(), SIGUSR1);
    tell("what is there", SYS_rt_sigtimedwait(&set, info, NULL, 8));
    tell("  signal", info[0]);
    tell("  code", info[2]);
    tell("  from itself", info[4] == SYS_getpid() && info[5] == (int)SYS_getuid());
    tell("  its handler", interrupted);
    SYS_tgkill((int)SYS_getpid(), (int)SYS_gettid(), SIGUSR1);
    tell("for the thread", SYS_rt_sigtimedwait(&set, info, &long_time, 8));
    tell("  code", info[2]);
    int child = (int)SYS_fork();
    if (child == 0)
        leave(7);
    tell("a child's end", SYS_rt_sigtimedwait(&set, info, NULL, 8));
    tell("  whose", info[4] == child);
    tell("  status", info[6]);
    SYS_wait4(child, NULL, 0, NULL);
    long once[4] = {0, 0, 0, 20000};
    handle(SIGALRM, notes, SA_RESTART, 0);
    SYS_setitimer(0, once, NULL);
    tell("another's handler runs", SYS_rt_sigtimedwait(&set, NULL, NULL, 8));
    tell("  it is", interrupted);
    mask(SIG_BLOCK, others);
    SYS_kill((int)SYS_getpid(), SIGUSR2);
    SYS_kill((int)SYS_getpid(), SIGUSR1);
    tell("of two the one", SYS_rt_sigtimedwait(&set, NULL, NULL, 8));
    SYS_rt_sigpending(value, 8);
    tell("  and the other", value[0] == (long)others);
    tell("it, too", SYS_rt_sigtimedwait(&others, NULL, NULL, 8));
    mask(SIG_SETMASK, 0);
}

/* A thread that waits takes what is sent to the process, and no other does. */
static volatile int taken, asleep;

static void takes(long unused) {
    unsigned long set = bit(SIGUSR1);
    (void)unused;
    asleep = 1;
    for (int i = 0; i < 50; i++)
        taken += SYS_rt_sigtimedwait(&set, info, NULL, 8) == SIGUSR1;
}

static void a_thread_takes_them(void) {
    mask(SIG_BLOCK, bit(SIGUSR1));
    interrupted = 0;
    begin(0, takes, 0);
    while (!asleep)
        SYS_sched_yield();
    for (int i = 1; i <= 50; i++) {
        SYS_kill((int)SYS_getpid(), SIGUSR1);
        while (taken < i && !threads[0].done)
            SYS_sched_yield();
    }
    join(0);
    tell("taken by a thread", taken);
    tell("by a handler", interrupted);
    mask(SIG_SETMASK, 0);
}

static void timers(void) {
    long value[4] = {0, 0, 5, 0}, left[4] = {-1, -1, -1, -1};
    tell("no timer", SYS_getitimer(0, left));
    tell("  left", left[2] + left[3]);
    SYS_setitimer(0, value, NULL);
    tell("a timer", SYS_getitimer(0, left));
    tell("  left", left[2] == 4 || left[2] == 5);
    value[2] = 0;
    SYS_setitimer(0, value, NULL);
    tell("no such", SYS_getitimer(9, left));
    tell("to nowhere", SYS_getitimer(0, NULL));
}

static void to_threads(void) {
    interrupted = 0;
    handle(SIGUSR2, notes, 0, 0);
    int pid = (int)SYS_getpid(), tid = (int)SYS_gettid();
    tell("to itself", SYS_tgkill(pid, tid, SIGUSR2));
    tell("  it came", interrupted);
    tell("is it there", SYS_tgkill(pid, tid, 0));
    tell("of nobody", SYS_tgkill(pid, 0, 0));
    tell("no signal", SYS_tgkill(pid, tid, 99));
    tell("of another", SYS_tgkill(tid + 1, tid, 0));
}

/* --- who it is, and how nice ------------------------------------------------------------------ */

static void who(void) {
    unsigned ids[3] = {99, 98, 97};
    tell("user", SYS_getresuid(ids, ids + 1, ids + 2));
    tell("  real", ids[0] == (unsigned)SYS_getuid());
    tell("  effective", ids[1] == (unsigned)SYS_geteuid());
    tell("  saved", ids[2] == ids[1]);
    tell("group", SYS_getresgid(ids, ids + 1, ids + 2));
    tell("  real", ids[0] == (unsigned)SYS_getgid());
    tell("  effective", ids[1] == (unsigned)SYS_getegid());
    tell("to nowhere", SYS_getresuid(NULL, NULL, NULL));
    long nice = SYS_getpriority(0, 0);
    tell("priority", nice > 0 && nice <= 40);
    tell("nicer", SYS_setpriority(0, 0, 19));
    tell("  it is", SYS_getpriority(0, (int)SYS_getpid()));
    tell("no such kind", SYS_getpriority(7, 0));
    tell("nobody's", SYS_getpriority(0, -5));
    tell("nobody nicer", SYS_setpriority(0, -5, 19));
    tell("nobody's group", SYS_getpgid(-5));
    tell("nobody's session", SYS_getsid(-5));
}

static void schedules(void) {
    char processors[128];
    int parameter = -1;
    tell("parameter", SYS_sched_getparam(0, &parameter));
    tell("  it is", parameter);
    tell("of the thread", SYS_sched_getparam((int)SYS_gettid(), &parameter));
    tell("of nobody", SYS_sched_getparam(-1, &parameter));
    tell("to nowhere", SYS_sched_getparam(0, NULL));
    tell("scheduler", SYS_sched_getscheduler(0));
    tell("of nobody", SYS_sched_getscheduler(-5));
    tell("processors of nobody", SYS_sched_getaffinity(-5, sizeof processors, processors));
    for (int policy = -1; policy < 8; policy++)
        say("  policy %d: %d to %d\n", (long)policy, SYS_sched_get_priority_min(policy),
            SYS_sched_get_priority_max(policy));
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    copies();
    fills_a_pipe();
    waits_for_signals();
    a_thread_takes_them();
    timers();
    to_threads();
    who();
    schedules();
    return 0;
}
