/* Signals: handlers, masks, what they interrupt, and what they do where nobody handles them. */
#include "wali.h"

static volatile int seen[64], count;

static void note(int signal) {
    seen[count++] = signal;
}

/* What has run since the last time, in its order. */
static void show(const char *what) {
    say("%s:", what);
    for (int i = 0; i < count; i++)
        say(" %d", (long)seen[i]);
    say("\n");
    count = 0;
}

static void hit(int signal) {
    SYS_kill((int)SYS_getpid(), signal);
}

static void actions(void) {
    struct action old = {0};
    tell("first action", SYS_rt_sigaction(SIGUSR1, NULL, &old, 8));
    tell("default", old.call == SIG_DFL && old.flags == 0 && old.mask == 0);
    tell("handle", handle(SIGUSR1, note, SA_RESTART, bit(SIGUSR2) | bit(SIGKILL)));
    SYS_rt_sigaction(SIGUSR1, NULL, &old, 8);
    tell("the same", old.call == note);
    tell("flags", (long)(old.flags & ~0x4000000ul));
    tell("mask", (long)old.mask);
    tell("handle KILL", handle(SIGKILL, note, 0, 0));
    tell("ignore STOP", handle(SIGSTOP, SIG_IGN, 0, 0));
    tell("look at KILL", SYS_rt_sigaction(SIGKILL, NULL, &old, 8));
    tell("handle 0", handle(0, note, 0, 0));
    tell("handle 64", handle(64, note, 0, 0));
    tell("handle 65", handle(65, note, 0, 0));
    tell("handle SEGV", handle(SIGSEGV, note, 0, 0));
    SYS_rt_sigaction(SIGSEGV, NULL, &old, 8);
    tell("the same", old.call == note);
    handle(SIGSEGV, SIG_DFL, 0, 0);
    tell("wrong size", SYS_rt_sigaction(SIGUSR1, NULL, &old, 16));
    tell("ignore", handle(SIGUSR2, SIG_IGN, 0, 0));
    SYS_rt_sigaction(SIGUSR2, NULL, &old, 8);
    tell("ignored", old.call == SIG_IGN);
    hit(SIGUSR2);
    hit(64);
    hit(SIGUSR1);
    show("ran");
}

static void resend(int signal) {
    note(signal);
    if (count < 5)
        hit(signal);
    note(-signal);
}

static void order(void) {
    handle(SIGUSR1, resend, 0, 0);
    hit(SIGUSR1);
    show("one after the other");
    handle(SIGUSR1, resend, SA_NODEFER, 0);
    hit(SIGUSR1);
    show("one in the other");
    handle(SIGUSR1, note, SA_RESETHAND, 0);
    struct action old;
    hit(SIGUSR1);
    SYS_rt_sigaction(SIGUSR1, NULL, &old, 8);
    tell("reset", old.call == SIG_DFL);
    show("once");
    handle(SIGUSR1, note, 0, 0);
    handle(SIGUSR2, note, 0, 0);
    handle(SIGRTMIN, note, 0, 0);
    unsigned long pending = 0;
    tell("mask", (long)mask(SIG_BLOCK, bit(SIGUSR1) | bit(SIGUSR2) | bit(SIGRTMIN)));
    for (int i = 0; i < 3; i++)
        hit(SIGUSR2), hit(SIGUSR1), hit(SIGRTMIN);
    tell("pending", SYS_rt_sigpending(&pending, 8));
    tell("  which", (long)pending);
    show("blocked");
    tell("unblock", (long)mask(SIG_UNBLOCK, bit(SIGUSR1)));
    show("the first");
    tell("unblock all", (long)mask(SIG_SETMASK, 0));
    show("the others");
    SYS_rt_sigpending(&pending, 8);
    tell("pending", (long)pending);
    handle(SIGUSR1, note, 0, bit(SIGUSR2));
    mask(SIG_BLOCK, bit(SIGUSR1) | bit(SIGUSR2));
    hit(SIGUSR1), hit(SIGUSR2);
    mask(SIG_SETMASK, 0);
    show("with a mask");
    tell("wrong size", SYS_rt_sigprocmask(SIG_BLOCK, &pending, NULL, 4));
    tell("wrong how", SYS_rt_sigprocmask(7, &pending, NULL, 8));
    mask(SIG_SETMASK, 0);
}

static unsigned long inside;

static void look(int signal) {
    inside = mask(SIG_BLOCK, 0);
    note(signal);
}

static void suspending(void) {
    /* Faults are never blocked: WebAssembly's traps are such signals. */
    const unsigned long faults = bit(4) | bit(7) | bit(SIGFPE) | bit(SIGSEGV);
    const unsigned long possible = ~(faults | bit(SIGKILL) | bit(SIGSTOP));
    unsigned long none = 0, all = ~0ul, others = possible & ~bit(SIGUSR1);
    handle(SIGUSR1, look, 0, bit(SIGHUP));
    mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGTERM));
    hit(SIGUSR1);
    tell("suspend", SYS_rt_sigsuspend(&none, 8));
    show("ran");
    tell("  masked", (long)inside);
    tell("  and after", (long)mask(SIG_BLOCK, 0));
    hit(SIGUSR1);
    tell("suspend", SYS_rt_sigsuspend(&others, 8));
    show("ran");
    tell("  masked", (long)(inside == possible));
    tell("suspend nowhere", SYS_rt_sigsuspend(NULL, 8));
    tell("wrong size", SYS_rt_sigsuspend(&all, 7));
    hit(SIGUSR1);
    struct pollfd nothing[1] = {{-1, 0, 0}};
    struct timespec second = {5, 0};
    tell("ppoll", SYS_ppoll(nothing, 1, &second, &none, 8));
    show("ran");
    hit(SIGUSR1);
    struct {
        unsigned long set, size;
    } six = {(unsigned long)(size_t)&none, 8};
    tell("pselect6", SYS_pselect6(0, NULL, NULL, NULL, &second, &six));
    show("ran");
    hit(SIGUSR1);
    int epoll = (int)SYS_epoll_create1(0);
    struct epoll_event event;
    tell("epoll_pwait", SYS_epoll_pwait(epoll, &event, 1, 5000, &none, 8));
    show("ran");
    SYS_close(epoll);
    hit(SIGUSR1);
    struct timespec soon = {0, 1000};
    tell("ppoll without a mask", SYS_ppoll(nothing, 1, &soon, NULL, 8));
    show("still blocked");
    mask(SIG_SETMASK, 0);
    show("now");
}

/* What WebAssembly's traps are as well: sent, they are signals as others. */
static void faults(void) {
    static const int signals[] = {4, 7, SIGFPE, SIGSEGV};
    struct action old;
    for (int i = 0; i < 4; i++) {
        handle(signals[i], note, 0, 0);
        hit(signals[i]);
        SYS_tkill((int)SYS_gettid(), signals[i]);
    }
    show("sent faults");
    handle(SIGSEGV, resend, SA_NODEFER, 0);
    hit(SIGSEGV);
    show("one in the other");
    handle(SIGSEGV, note, SA_RESETHAND, 0);
    hit(SIGSEGV);
    SYS_rt_sigaction(SIGSEGV, NULL, &old, 8);
    tell("reset", old.call == SIG_DFL);
    handle(SIGSEGV, SIG_IGN, 0, 0);
    hit(SIGSEGV);
    show("once, and not at all");
    for (int i = 0; i < 4; i++)
        handle(signals[i], SIG_DFL, 0, 0);
}

static int go[2];

/* Say that the next call is one to be interrupted. */
static void armed(void) {
    SYS_write(go[1], "x", 1);
}

/* Until another process sleeps in a call.  (proc(5): its state comes after the name.) */
static void until_asleep(int pid) {
    char path[64] = "/proc/", text[256];
    memcpy(path + 6 + decimal(path + 6, pid), "/stat", 6);
    for (char state = 0; state != 'S'; pause_for(1)) {
        int fd = (int)SYS_open(path, O_RDONLY, 0);
        long size = SYS_read(fd, text, sizeof text);
        SYS_close(fd);
        for (long i = 0; i + 2 < size; i++)
            if (text[i] == ')')
                state = text[i + 2];
    }
}

/* A child that hits its parent twice, and then writes: each a little after it is told, `times`
 * altogether, and without being told where the parent's call goes on. */
static int bother(int signal, int fd, int times) {
    int parent = (int)SYS_getpid(), pid = (int)SYS_fork();
    char byte;
    if (pid == 0) {
        for (int i = 0; i < 3; i++) {
            if (i < times)
                SYS_read(go[0], &byte, 1);
            pause_for(20); /* until it has woken up from what was before */
            until_asleep(parent);
            if (i < 2)
                SYS_kill(parent, signal);
        }
        SYS_write(fd, "x", 1);
        leave(0);
    }
    return pid;
}

static void interrupting(void) {
    int ends[2], pair[2], status;
    char byte;
    struct pollfd fds[1];
    struct timespec length = {5, 0}, left = {0, 0};
    SYS_pipe(ends), SYS_pipe(go);
    fds[0] = (struct pollfd){ends[0], POLLIN, 0};
    handle(SIGUSR1, note, 0, 0);
    int pid = bother(SIGUSR1, ends[1], 3);
    for (int i = 0; i < 3; i++)
        armed(), tell("read", SYS_read(ends[0], &byte, 1));
    SYS_wait4(pid, &status, 0, NULL);
    show("ran");
    handle(SIGUSR1, note, SA_RESTART, 0);
    pid = bother(SIGUSR1, ends[1], 1);
    armed(), tell("read on", SYS_read(ends[0], &byte, 1));
    SYS_wait4(pid, &status, 0, NULL);
    show("ran");
    pid = bother(SIGUSR1, ends[1], 3);
    for (int i = 0; i < 3; i++)
        armed(), tell("poll", SYS_poll(fds, 1, 5000));
    SYS_read(ends[0], &byte, 1);
    SYS_wait4(pid, &status, 0, NULL);
    show("ran");
    pid = bother(SIGUSR1, ends[1], 2);
    armed(), tell("sleep", SYS_nanosleep(&length, &left));
    tell("  left", left.seconds);
    armed(), tell("wait on", SYS_wait4(pid, &status, 0, NULL) == pid);
    SYS_read(ends[0], &byte, 1);
    show("ran");
    handle(SIGUSR1, note, 0, 0);
    pid = bother(SIGUSR1, ends[1], 3);
    for (int i = 0; i < 3; i++) {
        armed();
        long waited = SYS_wait4(pid, &status, 0, NULL);
        tell("wait", waited == pid ? 1 : waited);
    }
    SYS_read(ends[0], &byte, 1);
    show("ran");
    int word = 0;
    pid = bother(SIGUSR1, ends[1], 3);
    armed(), tell("futex", SYS_futex(&word, 0, 0, NULL, NULL, 0));
    handle(SIGUSR1, note, SA_RESTART, 0);
    armed(), tell("futex with a time-out", SYS_futex(&word, 0, 0, &length, NULL, 0));
    armed();
    SYS_wait4(pid, &status, 0, NULL);
    SYS_read(ends[0], &byte, 1);
    show("ran");
    SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    pid = bother(SIGUSR1, pair[1], 1);
    armed(), tell("recvfrom", SYS_recvfrom(pair[0], &byte, 1, 0, NULL, NULL));
    SYS_wait4(pid, &status, 0, NULL);
    show("ran");
    for (int i = 0; i < 2; i++)
        SYS_close(ends[i]), SYS_close(go[i]), SYS_close(pair[i]);
}

static volatile int rang;

static void ring(int signal) {
    (void)signal;
    rang++;
}

static void loop_until(int signal) {
    note(signal);
    int before = rang;
    while (rang == before)
        ;
    note(-signal);
}

struct timer {
    long every[2], first[2];
};

/* In loops that make no calls, also in a handler's. */
static void looping(void) {
    struct timer once = {{0, 0}, {0, 20000}}, often = {{0, 5000}, {0, 5000}}, off = {{0}, {0}}, old;
    handle(SIGALRM, ring, 0, 0);
    handle(SIGUSR1, loop_until, 0, 0);
    tell("timer", SYS_setitimer(0, &once, NULL));
    while (!rang)
        ;
    tell("rang", rang);
    SYS_setitimer(0, &often, NULL);
    while (rang < 20)
        ;
    hit(SIGUSR1);
    show("a handler that loops");
    tell("timer off", SYS_setitimer(0, &off, &old));
    tell("it was", old.every[1]);
    tell("wrong timer", SYS_setitimer(9, &off, NULL));
}

static int ends_by(void (*what)(void)) {
    int status = -1, pid = (int)SYS_fork();
    if (pid == 0) {
        what();
        leave(33);
    }
    SYS_wait4(pid, &status, 0, NULL);
    return status;
}

static void by_term(void) {
    hit(SIGTERM);
}
static void by_abort(void) {
    hit(SIGABRT);
}
static void by_segv(void) {
    hit(SIGSEGV);
}
static void by_fpe(void) {
    hit(SIGFPE);
}
static void by_child(void) {
    hit(SIGCHLD), hit(SIGURG), hit(SIGCONT);
}
static void by_pipe(void) {
    int ends[2];
    SYS_pipe(ends);
    SYS_close(ends[0]);
    SYS_write(ends[1], "x", 1);
}
static void by_ignored_pipe(void) {
    handle(SIGPIPE, SIG_IGN, 0, 0);
    by_pipe();
}
static void by_real_time(void) {
    SYS_tkill((int)SYS_gettid(), SIGRTMIN + 3);
}
static void by_alarm(void) {
    struct timer soon = {{0, 0}, {0, 1000}};
    handle(SIGALRM, SIG_DFL, 0, 0);
    SYS_setitimer(0, &soon, NULL);
    for (;;)
        ;
}

static void defaults(void) {
    tell("TERM", ends_by(by_term) & 0x7f);
    tell("ABRT", ends_by(by_abort) & 0x7f);
    tell("SEGV", ends_by(by_segv) & 0x7f);
    tell("FPE", ends_by(by_fpe) & 0x7f);
    tell("PIPE", ends_by(by_pipe));
    tell("PIPE, ignored", ends_by(by_ignored_pipe));
    tell("real time", ends_by(by_real_time));
    tell("ALRM in a loop", ends_by(by_alarm));
    tell("CHLD URG CONT", ends_by(by_child));
}

static void quit(int signal) {
    leave(signal + 40);
}
static void quitting(void) {
    handle(SIGUSR1, quit, 0, 0);
    hit(SIGUSR1);
}
static void quitting_in_a_loop(void) {
    struct timer soon = {{0, 0}, {0, 1000}};
    handle(SIGALRM, quit, 0, 0);
    SYS_setitimer(0, &soon, NULL);
    for (;;)
        ;
}
static void inherited(void) {
    unsigned long pending = 1;
    SYS_rt_sigpending(&pending, 8);
    tell("  pending there", (long)pending);
    tell("  masked there", (long)mask(SIG_SETMASK, 0));
    hit(SIGUSR2);
    show("  handled there");
}

static void children(void) {
    int status;
    handle(SIGUSR2, note, 0, 0);
    mask(SIG_SETMASK, bit(SIGUSR1));
    hit(SIGUSR1);
    tell("child", ends_by(inherited));
    handle(SIGUSR1, SIG_IGN, 0, 0);
    mask(SIG_SETMASK, 0);
    tell("quit in a handler", ends_by(quitting));
    tell("quit in a loop's handler", ends_by(quitting_in_a_loop));
    handle(SIGCHLD, note, 0, 0);
    count = 0;
    tell("child", ends_by(by_term));
    show("told");
    handle(SIGCHLD, note, SA_NOCLDWAIT, 0);
    int pid = (int)SYS_fork();
    if (pid == 0)
        leave(0);
    while (SYS_wait4(pid, &status, 0, NULL) != -10)
        ;
    show("told, nothing to wait for");
    handle(SIGCHLD, SIG_DFL, 0, 0);
    struct {
        void *at;
        int flags;
        size_t size;
    } stack = {(void *)(size_t)65536, 0, 8192}, small = {(void *)(size_t)65536, 0, 100}, old = {0};
    tell("alternate stack", SYS_sigaltstack(NULL, &old));
    tell("  none", old.flags);
    tell("set it", SYS_sigaltstack(&stack, &old));
    tell("too small", SYS_sigaltstack(&small, NULL));
    SYS_sigaltstack(NULL, &old);
    tell("  size", (long)old.size);
    stack.flags = 2;
    tell("none again", SYS_sigaltstack(&stack, NULL));
}

static void descriptor(void) {
    unsigned long set = bit(SIGUSR1);
    unsigned what[32];
    handle(SIGUSR1, note, 0, 0);
    mask(SIG_SETMASK, set);
    int fd = (int)SYS_signalfd4(-1, &set, 8, O_NONBLOCK | O_CLOEXEC);
    tell("signalfd", fd);
    tell("read nothing", SYS_read(fd, what, sizeof what));
    hit(SIGUSR1);
    tell("read", SYS_read(fd, what, sizeof what));
    tell("  which", what[0]);
    set = bit(SIGUSR2);
    tell("another set", SYS_signalfd4(fd, &set, 8, 0) == fd);
    tell("wrong flags", SYS_signalfd4(-1, &set, 8, 1));
    tell("wrong size", SYS_signalfd4(-1, &set, 4, 0));
    tell("no descriptor", SYS_signalfd4(99, &set, 8, 0));
    SYS_close(fd);
    mask(SIG_SETMASK, 0);
    show("not handled");
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    actions();
    order();
    faults();
    suspending();
    interrupting();
    looping();
    defaults();
    children();
    descriptor();
    return 0;
}
