/* execve of a program with threads: all others end, whatever they do, and whoever executes. */
#include "thread.h"

static char *self;               /* its path */
static const char *status = "5"; /* that it ends with, once it is executed */

#if defined(__wasm__)
typedef unsigned pointer;
#else
typedef unsigned long pointer;
#endif

static void is_there(long unused) {
    (void)unused;
    SYS_write(1, "  threads again\n", 16);
}

/* What is found afterwards: a process with one thread, which is its first. */
static void shown(void) {
    char byte;
    tell("  first", SYS_gettid() == SYS_getpid());
    unsigned long pending = 0;
    tell("  masked", (long)mask(SIG_BLOCK, 0));
    SYS_rt_sigpending(&pending, 8);
    tell("  pending", (long)pending);
    tell("  kept", SYS_read(7, &byte, 1));
    tell("  closed on exec", SYS_read(9, &byte, 1));
    struct action old;
    for (int signal = 7; signal < 12; signal += 4) {
        SYS_rt_sigaction(signal, NULL, &old, 8);
        tell("  default", old.call == SIG_DFL);
    }
    begin(0, is_there, 0);
    join(0);
}

static void ignores(int signal) {
    (void)signal;
}

/* What is masked has been sent, to this thread or to all. */
static void execute(long masked) {
    pointer words[] = {(pointer)(size_t)self, (pointer)(size_t)status, 0}, none[] = {0};
    mask(SIG_SETMASK, (unsigned long)masked);
    for (int signal = 1; signal < 32; signal++)
        if (masked & (long)bit(signal)) {
            handle(signal, ignores, 0, 0);
            if (signal == SIGURG)
                SYS_kill((int)SYS_getpid(), signal);
            else
                SYS_tkill((int)SYS_gettid(), signal);
        }
    leave(40 - (int)SYS_execve(self, words, none));
}

/* --- what the others do ----------------------------------------------------------------------- */

static volatile int busy, never, ends[2];

static void is_busy(void) {
    __atomic_fetch_add(&busy, 1, __ATOMIC_SEQ_CST);
}

static void sleeps(long unused) {
    struct timespec length = {1000, 0};
    (void)unused;
    mask(SIG_SETMASK, ~0ul);
    for (is_busy();;)
        SYS_nanosleep(&length, NULL);
}

static void reads(long unused) {
    char byte;
    (void)unused;
    for (is_busy();;)
        SYS_read(ends[0], &byte, 1);
}

static void waits(long unused) {
    (void)unused;
    for (is_busy();;)
        SYS_futex((void *)&never, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void loops(long unused) {
    (void)unused;
    for (is_busy(); !never;)
        ;
}

static void executes_too(long unused) {
    is_busy();
    pause_for(50);
    execute(unused);
}

static void (*const all[])(long) = {sleeps, reads, waits, loops};
enum { OTHERS = 4 };

static void start_all(void) {
    mask(SIG_BLOCK, bit(SIGURG));
    SYS_pipe((int *)ends);
    SYS_dup3((int)SYS_open("file", O_RDONLY | O_CREAT, 0600), 7, 0);
    SYS_dup3(7, 9, O_CLOEXEC);
    handle(SIGSEGV, SIG_DFL, 0, 0);
    for (int i = 0; i < OTHERS; i++)
        begin(i, all[i], 0);
    while (busy < OTHERS)
        SYS_sched_yield();
    pause_for(20);
}

/* --- who executes ----------------------------------------------------------------------------- */

static void the_first(void) {
    start_all();
    execute((long)(bit(SIGUSR2) | bit(SIGURG)));
}

static void another(void) {
    start_all();
    begin(5, execute, (long)(bit(SIGTERM) | bit(SIGURG)));
    sleeps(0);
}

static void one_without_the_first(void) {
    start_all();
    begin(5, executes_too, 0);
    for (;;)
        SYS_exit(3);
}

static void two_at_once(void) {
    start_all();
    begin(5, executes_too, 0);
    begin(6, executes_too, 0);
    executes_too(0);
}

static volatile int way;

/* The first waits in one call, and has nothing more to do. */
static void while_the_first_waits(void) {
    struct timespec length = {1000, 0};
    unsigned long nothing = 0;
    char byte;
    start_all();
    begin(5, executes_too, 0);
    if (way == 0)
        SYS_futex((void *)&never, FUTEX_WAIT, 0, NULL, NULL, 0);
    else if (way == 1)
        SYS_read(ends[0], &byte, 1);
    else if (way == 2)
        SYS_nanosleep(&length, NULL);
    else if (way == 3)
        SYS_poll(NULL, 0, -1);
    else
        SYS_rt_sigsuspend(&nothing, 8);
    say("the first goes on: %d\n", way);
    leave(1);
}

static void ends_later(long with) {
    pause_for(30);
    SYS_exit((int)with);
}

/* The child of a thread has that for its first. */
static void has_a_child(long how) {
    int got = -1, pid = (int)SYS_fork();
    if (pid == 0) {
        if (how == 1)
            leave(6);
        if (how == 2)
            execute((long)(bit(SIGUSR2) | bit(SIGURG)));
        if (how == 3)
            begin(6, executes_too, 0);
        if (how == 4)
            begin(6, ends_later, 9);
        for (;;)
            SYS_exit(7);
    }
    SYS_wait4(pid, &got, 0, NULL);
    tell("child of a thread", got);
}

/* What cannot be executed leaves all as it is. */
static void nothing(void) {
    pointer words[] = {0};
    start_all();
    tell("no such program", SYS_execve("/no/such", words, words));
    tell("no program", SYS_execve("file", words, words));
    char byte = 'x';
    SYS_write(ends[1], &byte, 1);
    tell("they go on", busy);
    leave(6);
}

static void in_child(const char *what, void (*run)(void)) {
    int status = -1, pid = (int)SYS_fork();
    if (pid == 0)
        run();
    SYS_wait4(pid, &status, 0, NULL);
    tell(what, status);
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1)
        return shown(), (int)number(argv[1]);
    in_child("the first", the_first);
    in_child("another", another);
    in_child("without the first", one_without_the_first);
    in_child("two at once", two_at_once);
    for (way = 0; way < 5; way++)
        in_child("while the first waits", while_the_first_waits);
    in_child("nothing", nothing);
    for (int how = 0; how < 5; how++) {
        begin(7, has_a_child, how);
        join(7);
    }
    status = "0";
    the_first();
    return 1;
}
