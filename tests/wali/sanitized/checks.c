/* What is looked at: every copy of the core's, every buffer that the kernel is handed, and after
 * each call what lies around the guests' memories, and the host's descriptors. */
#include "fuzz.h"

void *__asan_region_is_poisoned(void *, size_t);

_Noreturn void fail(const char *what) {
    printf("%s: %s\n", now, what);
    fflush(NULL);
    _exit(1);
}

/* Is it among the guests' addresses?  What lies beside them, or has not grown yet, is nobody's. */
static int is_guests(uint64_t at, uint64_t size) {
    for (int i = 0; i < MEMORIES; i++) {
        const struct memory *m = &memories[i];
        uint64_t base = (uint64_t)m->base;
        if (at + size <= base - CANARY || at >= base + m->whole + CANARY)
            continue;
        if (at < base || at + size > base + m->addresses)
            fail("memory outside of the guest's is handed over");
        return 1;
    }
    return 0;
}

/* A kernel's address is refused by the kernel.  There is nothing of ours below 4 GiB: such a number
 * was an address of the guest's, or an offset. */
static void check_range(uint64_t at, uint64_t size) {
    if (size == 0 || at == 0 || at >> 47 || is_guests(at, size))
        return;
    if (at >> 32 == 0)
        fail("a number is handed over for an address");
    if (__asan_region_is_poisoned((void *)at, size))
        fail("memory of the core's is too short");
}

int checked_copy(void *to, const void *from, size_t size) {
    check_range((uint64_t)to, size);
    check_range((uint64_t)from, size);
    return wali_copy(to, from, size);
}

/* Where the kernel is told of a buffer and its length: argument numbers, and bytes of an element;
 * of one element where there is no count. */
static const struct buffer {
    int64_t number;
    int address, count, size;
} buffers[] = {
    {NR_read, 1, 2, 1},
    {NR_write, 1, 2, 1},
    {NR_pread64, 1, 2, 1},
    {NR_pwrite64, 1, 2, 1},
    {NR_readv, 1, 2, 16},
    {NR_writev, 1, 2, 16},
    {NR_preadv, 1, 2, 16},
    {NR_pwritev, 1, 2, 16},
    {NR_preadv2, 1, 2, 16},
    {NR_pwritev2, 1, 2, 16},
#ifdef NR_poll
    {NR_poll, 0, 1, 8},
#endif
    {NR_ppoll, 0, 1, 8},
    {NR_ppoll, 2, -1, 16},
    {NR_fstat, 1, -1, 144},
    {NR_newfstatat, 2, -1, 144},
    {NR_statx, 4, -1, 256},
    {NR_statfs, 1, -1, 120},
    {NR_fstatfs, 1, -1, 120},
    {NR_pipe2, 0, -1, 8},
    {NR_socketpair, 3, -1, 8},
    {NR_epoll_pwait, 1, 2, 12},
    {NR_epoll_ctl, 3, -1, 12},
    {NR_getsockopt, 4, -1, 4},
    {NR_connect, 1, 2, 1},
    {NR_bind, 1, 2, 1},
    {NR_sendto, 1, 2, 1},
    {NR_sendto, 4, 5, 1},
    {NR_recvfrom, 1, 2, 1},
    {NR_sendmsg, 1, -1, 56},
    {NR_recvmsg, 1, -1, 56},
    {NR_sendfile, 2, -1, 8},
    {NR_copy_file_range, 1, -1, 8},
    {NR_copy_file_range, 3, -1, 8},
    {NR_getdents64, 1, 2, 1},
    {NR_getrandom, 0, 1, 1},
    {NR_clock_gettime, 1, -1, 16},
    {NR_clock_getres, 1, -1, 16},
    {NR_clock_nanosleep, 2, -1, 16},
    {NR_clock_nanosleep, 3, -1, 16},
    {NR_gettimeofday, 0, -1, 16},
    {NR_gettimeofday, 1, -1, 8},
    {NR_times, 0, -1, 32},
    {NR_utimensat, 2, -1, 32},
    {NR_uname, 0, -1, 390},
    {NR_sysinfo, 0, -1, 112},
    {NR_getrusage, 1, -1, 144},
    {NR_wait4, 1, -1, 4},
    {NR_wait4, 3, -1, 144},
    {NR_waitid, 2, -1, 128},
    {NR_waitid, 4, -1, 144},
    {NR_rt_sigaction, 1, -1, 32},
    {NR_rt_sigaction, 2, -1, 32},
    {NR_rt_sigprocmask, 1, -1, 8},
    {NR_rt_sigprocmask, 2, -1, 8},
    {NR_rt_sigpending, 0, 1, 1},
    {NR_rt_sigsuspend, 0, -1, 8},
    {NR_futex, 0, -1, 4},
    {NR_getitimer, 1, -1, 32},
    {NR_getresuid, 0, -1, 4},
    {NR_getresuid, 1, -1, 4},
    {NR_getresuid, 2, -1, 4},
    {NR_getresgid, 0, -1, 4},
    {NR_getresgid, 1, -1, 4},
    {NR_getresgid, 2, -1, 4},
    {NR_setitimer, 1, -1, 32},
    {NR_setitimer, 2, -1, 32},
    {NR_timerfd_settime, 2, -1, 32},
    {NR_timerfd_settime, 3, -1, 32},
    {NR_timerfd_gettime, 1, -1, 32},
    {NR_readlinkat, 2, 3, 1},
    {NR_getcwd, 0, 1, 1},
};

static void check_vector(const int64_t *vector, int64_t count) {
    for (int64_t i = 0; vector != (const int64_t *)WALI_BAD && i < count; i++)
        check_range((uint64_t)vector[2 * i], (uint64_t)vector[2 * i + 1]);
}

static void check_arguments(int64_t number, const int64_t *a) {
    for (int i = 0; i < 6; i++)
        is_guests((uint64_t)a[i], 0); /* nothing beside them, whatever it is */
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        const struct buffer *b = &buffers[i];
        if (b->number != number)
            continue;
        uint64_t count = b->count < 0 ? 1 : (uint32_t)a[b->count];
        check_range((uint64_t)a[b->address], count * (uint64_t)b->size);
        if (b->size == 16 && b->count == 2)
            check_vector((const int64_t *)a[1], a[2]);
    }
    if ((number == NR_sendmsg || number == NR_recvmsg) && a[1] != (int64_t)WALI_BAD) {
        const int64_t *m = (const int64_t *)a[1]; /* name, length, iov, count, control, length */
        check_range((uint64_t)m[0], (uint32_t)m[1]);
        check_range((uint64_t)m[2], (uint64_t)m[3] * 16);
        check_vector((const int64_t *)m[2], m[3]);
        check_range((uint64_t)m[4], (uint64_t)m[5]);
    }
    if (number == NR_setsockopt && (int32_t)a[4] > 0) /* else the kernel refuses it */
        check_range((uint64_t)a[3], (uint32_t)a[4]);
}

/* Calls that are looked at and not made, with 0 for an answer: what would end this process, or
 * reach others in its group; signals of a guest that has none; and a fault that is sent where its
 * default action would follow, since the core then gives up the handler that its copies need. */
static int is_only_looked_at(int64_t number, const int64_t *a) {
    int sends = number == NR_kill || number == NR_tkill || number == NR_tgkill;
    int64_t sent = number == NR_tgkill ? a[2] : a[1];
    int fault = sends && (sent == SIGSEGV || sent == SIGBUS || sent == SIGILL || sent == SIGFPE);
    if (contexts[0].table && !contexts[0].direct &&
        (sends || number == NR_rt_sigaction || number == NR_setitimer))
        return 1;
    return number == NR_exit_group || (number == NR_kill && a[0] <= 0) || (sends && sent == KICK) ||
           (fault && wali_actions[sent].handler == 0) ||
           (number == NR_rt_sigaction && a[0] == KICK);
}

int64_t checked_syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                        int64_t f) {
    int64_t arguments[] = {a, b, c, d, e, f};
    uint64_t mask;
    check_arguments(number, arguments);
    if (is_only_looked_at(number, arguments))
        return 0;
    if (number == NR_rt_sigprocmask && b && wali_copy(&mask, (const void *)b, 8) == 0) {
        mask &= ~KICK_BIT;
        b = (int64_t)&mask;
    }
    return real_syscall(number, a, b, c, d, e, f);
}

/* A signal may come just before the call; and what waits can always be kicked. */
int64_t checked_interruptible(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                              int64_t number, const uint32_t *signal) {
    check_arguments(number, (int64_t[]){a, b, c, d, e, f});
    for (int i = 0; i < THREADS; i++)
        contexts[i].mask_during &= ~KICK_BIT;
    if (contexts[0].direct && below(16) == 0)
        real_syscall(NR_tkill, real_syscall(NR_gettid, 0, 0, 0, 0, 0, 0), SIGUSR1, 0, 0, 0, 0);
    return wali_interruptible(a, b, c, d, e, f, number, signal);
}

int64_t untouched_syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                          int64_t f) {
    return real_syscall(number, a, b, c, d, e, f);
}

int is_open(int host) {
    return real_syscall(NR_fcntl, host, F_GETFD, 0, 0, 0, 0) >= 0;
}

static void check_canary(const uint8_t *from, const uint8_t *to) {
    static uint8_t pattern[CANARY];
    if (*pattern == 0)
        memset(pattern, PATTERN, sizeof pattern);
    for (; from < to; from += CANARY)
        if (memcmp(from, pattern, (size_t)(to - from < CANARY ? to - from : CANARY)))
            fail("what lies beside the guest's memory was written");
}

/* After a call: nothing around the guests' memories has changed, and no descriptor is open that the
 * table does not know. */
void check_world(void) {
    const struct context *c = &contexts[0];
    for (int i = 0; i < MEMORIES; i++) {
        const struct memory *m = &memories[i];
        check_canary(m->base - CANARY, m->base);
        uint64_t end = m->whole == ADDRESSES ? ADDRESSES : m->size;
        check_canary(m->base + end, m->base + m->whole + CANARY);
    }
    if (c->own.base != memories[OWN].base || c->own.size > memories[OWN].addresses ||
        (c->guest.bound &&
         (c->guest.base != memories[GUESTS].base || c->guest.size > memories[GUESTS].addresses)))
        fail("the space is another");
    if (c->table->capacity > LIMIT || c->table->limit > LIMIT)
        fail("the table is larger than its limit");
    uint64_t known = inherited;
    for (uint32_t i = 0; i < c->table->capacity; i++) {
        int32_t host = c->table->descriptors[i].host, buried = -2 - host;
        if (c->table->dead >= 0 && buried >= 0 && buried < HOSTS)
            host = buried;
        if (host >= HOSTS || (host >= 0 && host != own_stream && known >> host & 1))
            fail("a host's descriptor is out of bounds, or there twice");
        if (host >= 0)
            known |= (uint64_t)1 << host;
    }
    for (int i = 0; i < THREADS; i++)
        if (contexts[i].wake > 0)
            known |= (uint64_t)1 << contexts[i].wake;
    for (int fd = 0; fd < HOSTS; fd++)
        if (!(known >> fd & 1) && is_open(fd))
            fail("a host's descriptor was left open");
}
