/* Loops of system calls, one kind each: built natively and as a WALI program, they are compared.
 *
 * Every call is a function, as it is in a program with a libc (see native.c for why that matters).
 */
#include "wali.h"

enum { CLOCK_PROCESS_CPUTIME_ID = 2, FIONREAD = 0x541B, MSG_DONTWAIT = 0x40, ROUNDS = 3 };

static int null, zero, file, ends[2], pair[2], epoll;
static char buffer[4096];
static struct timespec result[64];
static int word;

#define LOOP(name, call)                                                                           \
    __attribute__((noinline)) static long one_##name(void) {                                       \
        return call;                                                                               \
    }                                                                                              \
    __attribute__((noinline)) static long many_##name(long n) {                                    \
        long r = 0;                                                                                \
        while (n--)                                                                                \
            r |= one_##name();                                                                     \
        return r;                                                                                  \
    }

static struct iovec parts[2] = {{buffer, 1}, {buffer + 1, 1}};
static struct pollfd polled[1];
static unsigned long set[16];
static struct timespec none;
static struct action action;
static struct epoll_event event;
static long record[4];

static long message(void) {
    static struct {
        void *name;
        unsigned name_size;
        struct iovec *parts;
        int count, pad;
        void *control;
        unsigned control_size, pad2;
        int flags;
    } m = {.parts = parts, .count = 1};
    return SYS_sendmsg(null, &m, 0);
}

/* Two calls are two functions. */
__attribute__((noinline)) static long one_open(void) {
    return SYS_open("file", O_RDONLY, 0);
}

__attribute__((noinline)) static long one_dup(void) {
    return SYS_dup(file);
}

__attribute__((noinline)) static long one_close(long number) {
    return SYS_close((int)number);
}

LOOP(getpid, SYS_getpid())
LOOP(getuid, SYS_getuid())
LOOP(sched_yield, SYS_sched_yield())
LOOP(umask, SYS_umask(022))
LOOP(lseek, SYS_lseek(file, 0, 0))
LOOP(fcntl, SYS_fcntl(file, 3, 0))
LOOP(read, SYS_read(zero, buffer, 1))
LOOP(write, SYS_write(null, buffer, 1))
LOOP(pread64, SYS_pread64(file, buffer, 1, 0))
LOOP(pwrite64, SYS_pwrite64(file, buffer, 1, 0))
LOOP(fstat, SYS_fstat(file, result))
LOOP(stat, SYS_stat("file", result))
LOOP(access, SYS_access("file", 0))
LOOP(open_close, one_close(one_open()))
LOOP(dup_close, one_close(one_dup()))
LOOP(ioctl, SYS_ioctl(ends[0], FIONREAD, &word))
LOOP(clock_gettime, SYS_clock_gettime(CLOCK_PROCESS_CPUTIME_ID, result))
LOOP(getrusage, SYS_getrusage(0, result))
LOOP(uname, SYS_uname(result))
LOOP(futex, SYS_futex(&word, 1, 1, NULL, NULL, 0))
LOOP(recvfrom, SYS_recvfrom(pair[0], buffer, 1, MSG_DONTWAIT, NULL, NULL))
LOOP(rt_sigprocmask, SYS_rt_sigprocmask(0, set, set + 1, 8))
LOOP(rt_sigaction, SYS_rt_sigaction(SIGUSR1, &action, NULL, 8))
LOOP(writev, SYS_writev(null, parts, 2))
LOOP(readv, SYS_readv(zero, parts, 2))
LOOP(poll, SYS_poll(polled, 1, 0))
LOOP(ppoll, SYS_ppoll(polled, 1, &none, NULL, 8))
LOOP(select, SYS_select(8, NULL, NULL, NULL, &none))
LOOP(epoll_wait, SYS_epoll_wait(epoll, &event, 1, 0))
LOOP(sendmsg, message())
LOOP(fcntl_lock, SYS_fcntl(file, 5, (long)(size_t)record))
LOOP(prlimit64, SYS_prlimit64(0, 3, NULL, result))
LOOP(mprotect, SYS_mprotect((void *)0, 0, 0))

#define ENTRY(name, kind, scale) {#name, kind, many_##name, scale}

/* Arguments: n none in memory, p a buffer, s a struct that must be understood, h served by Python.
 */
static const struct {
    const char *name, *kind;
    long (*many)(long);
    long scale;
} loops[] = {
    ENTRY(getpid, "n", 1),     ENTRY(getuid, "n", 1),         ENTRY(sched_yield, "n", 1),
    ENTRY(umask, "n", 1),      ENTRY(lseek, "n", 1),          ENTRY(fcntl, "n", 1),
    ENTRY(dup_close, "n", 2),  ENTRY(read, "p", 1),           ENTRY(write, "p", 1),
    ENTRY(pread64, "p", 1),    ENTRY(pwrite64, "p", 1),       ENTRY(fstat, "p", 1),
    ENTRY(stat, "p", 1),       ENTRY(access, "p", 1),         ENTRY(open_close, "p", 2),
    ENTRY(ioctl, "p", 1),      ENTRY(clock_gettime, "p", 1),  ENTRY(getrusage, "p", 1),
    ENTRY(uname, "p", 1),      ENTRY(futex, "p", 1),          ENTRY(recvfrom, "p", 1),
    ENTRY(fcntl_lock, "p", 1), ENTRY(rt_sigprocmask, "p", 1), ENTRY(rt_sigaction, "s", 1),
    ENTRY(writev, "s", 1),     ENTRY(readv, "s", 1),          ENTRY(poll, "s", 1),
    ENTRY(ppoll, "s", 1),      ENTRY(select, "s", 1),         ENTRY(epoll_wait, "s", 1),
    ENTRY(sendmsg, "s", 1),    ENTRY(prlimit64, "h", 1),      ENTRY(mprotect, "h", 1),
};

static long now(void) {
    struct timespec t;
    SYS_clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.seconds * 1000000000 + t.rest;
}

/* Answers two numbers, a loop and how often, with the nanoseconds of one call, in tenths. */
int main(int argc, char **argv) {
    long wanted[2];
    (void)argc, (void)argv;
    null = (int)SYS_open("/dev/null", O_RDWR, 0);
    zero = (int)SYS_open("/dev/zero", O_RDWR, 0);
    file = (int)SYS_open("file", O_RDWR | O_CREAT, 0600);
    SYS_write(file, buffer, 100);
    SYS_pipe(ends);
    SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    epoll = (int)SYS_epoll_create1(0);
    polled[0] = (struct pollfd){ends[0], POLLIN, 0};
    action.call = SIG_IGN;
    for (unsigned i = 0; i < sizeof loops / sizeof *loops; i++)
        say("%s %s %d\n", loops[i].name, loops[i].kind, loops[i].scale);
    say("\n");
    while (SYS_read(0, wanted, sizeof wanted) == sizeof wanted) {
        long best = 1l << 62;
        for (int round = 0; round < ROUNDS; round++) {
            long begun = now();
            loops[wanted[0]].many(wanted[1]);
            long took = (now() - begun) * 10 / wanted[1];
            best = took < best ? took : best;
        }
        say("%d\n", best);
    }
    return 0;
}
