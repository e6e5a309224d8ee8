/* What only a WALI program calls: its start-up, pipes, limits, and the process that it is. */
#include "core.h"

/* --- start-up (wali.__init and its kin) ------------------------------------------------------- */

/* For Python.  The arguments stay its own; `cwd` is AT_FDCWD in a process of the program's own. */
EXPORT void wali_program_set(struct context *c, const char *arguments, const uint32_t *ends,
                             uint32_t count, int32_t cwd, uint32_t network) {
    c->arguments = arguments;
    c->argument_ends = ends;
    c->argument_count = count;
    c->cwd = cwd;
    c->network = network;
}

EXPORT void wali_program_environment(struct context *c, const char *path) {
    for (uint32_t i = 0; i < sizeof c->environment - 1 && path[i]; i++)
        c->environment[i] = path[i];
}

BODY(body_init) {
    (void)s, (void)a, (void)capable;
    return c->started++ ? 1 : 0;
}

BODY(body_deinit) {
    (void)s, (void)a, (void)capable;
    return c->ended++ ? 1 : 0;
}

BODY(body_cl_get_argc) {
    (void)s, (void)a, (void)capable;
    return c->argument_count;
}

/* An argument's place in the block that the host made, and its length without the NUL. */
static const char *argument(const struct context *c, uint32_t index, uint32_t *length) {
    if (index >= c->argument_count)
        return NULL;
    *length = c->argument_ends[index] - (index ? c->argument_ends[index - 1] : 0) - 1;
    return c->arguments + (index ? c->argument_ends[index - 1] : 0);
}

BODY(body_cl_get_argv_len) {
    (void)s, (void)capable;
    uint32_t length;
    return argument(c, a[0].u32, &length) ? length : 0;
}

BODY(body_cl_copy_argv) {
    (void)capable;
    uint32_t length;
    const char *from = argument(c, a[1].u32, &length);
    return from ? copy_to(c, s, a[0].u32, from, (uint64_t)length + 1) : -EFAULT;
}

/* A path that the program opens for its environment; 0: it has none.  As in the reference, a buffer
 * that is too small gets an empty path. */
BODY(body_get_init_envfile) {
    (void)capable;
    uint32_t room = a[1].u32;
    if (c->environment[0] == 0)
        return 0;
    uint32_t size = 0;
    while (c->environment[size++])
        ;
    if (size > room)
        return room && copy_to(c, s, a[0].u32, "", 1) == 0;
    return copy_to(c, s, a[0].u32, c->environment, size) == 0;
}

/* --- pipes ------------------------------------------------------------------------------------ */

/* A descriptor that a call of the guest's made, with the flags that the call gave it. */
int64_t descriptor_install_made(struct context *c, int64_t host, uint64_t guest_flags) {
    int64_t number = descriptor_install(c, host, guest_flags & O_CLOEXEC ? DESCRIPTOR_CLOEXEC : 0);
    if (number >= 0 && guest_flags & O_NONBLOCK)
        descriptor_at(c, (int32_t)number)->status = STATUS_NONBLOCK;
    return number;
}

/* Two at once, and their numbers to the guest: all or nothing. */
int64_t descriptor_install_pair(struct context *c, struct space *s, uint32_t address,
                                const int32_t *hosts, uint64_t guest_flags) {
    int32_t numbers[2] = {-1, -1};
    int64_t r = 0;
    for (int i = 0; i < 2; i++) {
        int64_t n = descriptor_install_made(c, hosts[i], guest_flags);
        r = n < 0 ? n : r;
        numbers[i] = (int32_t)n;
    }
    if (r == 0)
        r = copy_to(c, s, address, numbers, sizeof numbers);
    for (int i = 0; r < 0 && i < 2; i++)
        if (numbers[i] >= 0)
            descriptor_release(c, numbers[i]);
    return r;
}

BODY(body_pipe2) {
    (void)capable;
    int32_t hosts[2];
    if (a[1].u32 & ~(uint32_t)(O_CLOEXEC | O_NONBLOCK))
        return -EINVAL;
    int64_t r = SYS(NR_pipe2, hosts, O_CLOEXEC, 0, 0, 0, 0);
    return r < 0 ? r : descriptor_install_pair(c, s, a[0].u32, hosts, a[1].u32);
}

/* --- the process ------------------------------------------------------------------------------ */

enum { RLIMIT_NOFILE = 7, RLIMITS = 16 };

struct rlimit {
    uint64_t current, most;
};

/* prlimit64(2), of the program itself.  RLIMIT_NOFILE bounds the numbers of its own table. */
static int64_t limits(struct context *c, struct space *s, int32_t resource, uint32_t new_at,
                      uint32_t old_at) {
    struct rlimit new_limit, old_limit = {c->limit, c->limit_most};
    uint8_t *from = space_buffer(c, s, new_at, sizeof new_limit);
    uint8_t *to = space_buffer(c, s, old_at, sizeof old_limit);
    if (resource < 0 || resource >= RLIMITS)
        return -EINVAL;
    if (from == WALI_BAD || to == WALI_BAD ||
        (from && wali_copy(&new_limit, from, sizeof new_limit)))
        return -EFAULT;
    if (resource != RLIMIT_NOFILE) {
        int64_t r = SYS(NR_prlimit64, 0, resource, from ? &new_limit : NULL, &old_limit, 0, 0);
        if (r < 0)
            return r;
    } else if (from) {
        if (new_limit.current > new_limit.most || new_limit.current < c->capacity)
            return -EINVAL;
        if (new_limit.most > c->limit_most)
            return -EPERM;
        c->limit = (uint32_t)new_limit.current;
        c->limit_most = (uint32_t)new_limit.most;
    }
    return to && wali_copy(to, &old_limit, sizeof old_limit) ? -EFAULT : 0;
}

BODY(body_getrlimit) {
    (void)capable;
    return a[1].u32 ? limits(c, s, a[0].i32, 0, a[1].u32) : -EFAULT;
}

BODY(body_setrlimit) {
    (void)capable;
    return a[1].u32 ? limits(c, s, a[0].i32, a[1].u32, 0) : -EFAULT;
}

BODY(body_prlimit64) {
    (void)capable;
    if (a[0].i32 && a[0].i32 != SYS(NR_getpid, 0, 0, 0, 0, 0, 0))
        return -EPERM;
    return limits(c, s, a[1].i32, a[2].u32, a[3].u32);
}

/* The address would be the kernel's to clear when the host's thread ends: it is not passed on. */
BODY(body_set_tid_address) {
    (void)c, (void)s, (void)a, (void)capable;
    return SYS(NR_gettid, 0, 0, 0, 0, 0, 0);
}

/* Nothing: the kernel would walk a list of guest addresses in the host's memory. */
BODY(body_set_robust_list) {
    (void)c, (void)s, (void)a, (void)capable;
    return 0;
}

/* There is no heap below the mappings: every libc then uses mmap. */
BODY(body_brk) {
    (void)c, (void)s, (void)a, (void)capable;
    return 0;
}

/* futex(2): a closed list, since the meaning of three arguments depends on the command. */
BODY(body_futex) {
    (void)capable;
    enum { WAIT = 0, WAKE = 1, REQUEUE = 3, CMP_REQUEUE = 4, COMMAND = 0x7f };
    int32_t command = a[1].i32 & COMMAND;
    uint8_t *word = space_buffer(c, s, a[0].u32, 4), *second = NULL;
    struct timespec t, *timeout = NULL;
    if (word == NULL || word == WALI_BAD)
        return -EFAULT;
    if (command == WAIT && a[3].u32) {
        uint8_t *at = space_buffer(c, s, a[3].u32, sizeof t);
        if (at == WALI_BAD || wali_copy(&t, at, sizeof t))
            return -EFAULT;
        timeout = &t;
    } else if (command == REQUEUE || command == CMP_REQUEUE) {
        second = space_buffer(c, s, a[4].u32, 4);
        if (second == NULL || second == WALI_BAD)
            return -EFAULT;
    } else if (command != WAIT && command != WAKE) {
        return -ENOSYS;
    }
    int64_t fourth = command == WAIT ? (int64_t)timeout : a[3].i32; /* a count, for REQUEUE */
    return SYS(NR_futex, word, a[1].i32, a[2].i32, fourth, second, a[5].i32);
}

/* wait4(2).  The process is the program's own, so waiting is the kernel's. */
BODY(body_wait4) {
    (void)capable;
    int64_t usage[18]; /* the kernel's struct rusage, 144 bytes */
    int32_t status = 0;
    uint8_t *to = space_buffer(c, s, a[1].u32, sizeof status);
    uint8_t *usage_to = space_buffer(c, s, a[3].u32, sizeof usage);
    if (to == WALI_BAD || usage_to == WALI_BAD)
        return -EFAULT;
    int64_t r = SYS(NR_wait4, a[0].i32, &status, a[2].i32, usage, 0, 0);
    if (r > 0 && ((to && wali_copy(to, &status, sizeof status)) ||
                  (usage_to && wali_copy(usage_to, usage, sizeof usage))))
        return -EFAULT;
    return r;
}

/* utimes(2) and futimesat(2), by utimensat: their times are in microseconds. */
static int64_t set_times(struct context *c, struct space *s, int32_t host, uint32_t path_at,
                         uint32_t times_at) {
    char path[PATH_MAX];
    struct timespec times[2];
    uint8_t *from = space_buffer(c, s, times_at, sizeof times);
    if (from == WALI_BAD || (from && wali_copy(times, from, sizeof times)))
        return -EFAULT;
    for (int i = 0; from && i < 2; i++) {
        if (times[i].tv_nsec < 0 || times[i].tv_nsec >= 1000000)
            return -EINVAL;
        times[i].tv_nsec *= 1000;
    }
    int64_t r = path_at ? copy_string(c, s, path_at, path, sizeof path) : 0;
    return r < 0 ? r : SYS(NR_utimensat, host, path_at ? path : NULL, from ? times : NULL, 0, 0, 0);
}

BODY(body_utimes) {
    (void)capable;
    return a[0].u32 ? set_times(c, s, c->cwd, a[0].u32, a[1].u32) : -EFAULT;
}

BODY(body_futimesat) {
    (void)capable;
    int32_t host = a[0].i32 == AT_FDCWD ? c->cwd : host_of(c, a[0].i32);
    return host == NO_DIRECTORY ? -EBADF : set_times(c, s, host, a[1].u32, a[2].u32);
}

/* __wasm_thread_spawn: threads are planned; -1 makes pthread_create fail with EAGAIN. */
BODY(body_no_threads) {
    (void)c, (void)s, (void)a, (void)capable;
    return -1;
}
