/* The baseline of the benchmarks: the same loops in C.  Each system call is a function, as it is in
 * every C program that calls writev() of its libc; only the errno handling is missing.  That the
 * function returns matters: on processors with Linux' "Safe RET" mitigation the first return
 * after a system call is mispredicted, which costs some 50 ns, and a loop that has none would be
 * compared with nothing that exists.  bench_wasi.py prints the figure. */
#include "linux.h"

__attribute__((noinline)) static int64_t call6(int64_t number, int64_t a, int64_t b, int64_t c,
                                               int64_t d, int64_t e, int64_t f) {
    return syscall6(number, a, b, c, d, e, f);
}
#define CALL(number, a, b, c, d, e, f)                                                             \
    call6(number, (int64_t)(a), (int64_t)(b), (int64_t)(c), (int64_t)(d), (int64_t)(e),            \
          (int64_t)(f))

#define EXPORT __attribute__((visibility("default")))

static _Alignas(4096) uint8_t buffer[1 << 20]; /* copies are as fast as they are aligned */
static struct guest_stat result;

static void vectors(int64_t call, int64_t fd, uint64_t size, int64_t n, int rewind) {
    struct iovec iov = {buffer, size};
    while (n--) {
        if (rewind)
            CALL(NR_lseek, fd, 0, 0, 0, 0, 0);
        CALL(call, fd, &iov, 1, 0, 0, 0);
    }
}

EXPORT void write_1(int64_t fd, int64_t dir, int64_t n) {
    (void)dir;
    CALL(NR_lseek, fd, 0, 0, 0, 0, 0);
    vectors(NR_writev, fd, 1, n, 0);
}

EXPORT void pread_1(int64_t fd, int64_t dir, int64_t n) {
    (void)dir;
    vectors(NR_preadv, fd, 1, n, 0);
}

EXPORT void write_1m(int64_t fd, int64_t dir, int64_t n) {
    (void)dir;
    vectors(NR_writev, fd, sizeof buffer, n, 1);
}

EXPORT void pread_1m(int64_t fd, int64_t dir, int64_t n) {
    (void)dir;
    vectors(NR_preadv, fd, sizeof buffer, n, 0);
}

EXPORT void fstat(int64_t fd, int64_t dir, int64_t n) {
    (void)dir;
    while (n--)
        CALL(NR_fstat, fd, &result, 0, 0, 0, 0);
}

EXPORT void stat(int64_t fd, int64_t dir, int64_t n) {
    (void)fd;
    while (n--)
        CALL(NR_newfstatat, dir, "file", &result, AT_SYMLINK_NOFOLLOW, 0, 0);
}

/* path_open must know what it opened, so its equal is open, fstat and close. */
EXPORT void open_close(int64_t fd, int64_t dir, int64_t n) {
    (void)fd;
    while (n--) {
        int64_t file = CALL(NR_openat, dir, "file", O_CLOEXEC, 0, 0, 0);
        CALL(NR_fstat, file, &result, 0, 0, 0, 0);
        CALL(NR_close, file, 0, 0, 0, 0, 0);
    }
}

/* A whole directory, and a look at each entry. */
EXPORT void readdir(int64_t fd, int64_t dir, int64_t n) {
    (void)dir;
    while (n--) {
        CALL(NR_lseek, fd, 0, 0, 0, 0, 0);
        int64_t used;
        while ((used = CALL(NR_getdents64, fd, buffer, 32768, 0, 0, 0)) > 0)
            for (int64_t at = 0; at < used;)
                at += *(uint16_t *)(buffer + at + 16);
    }
}

static int (*clock_gettime)(int32_t, void *);

EXPORT void set_clock(int (*function)(int32_t, void *)) {
    clock_gettime = function;
}

EXPORT void clock(int64_t fd, int64_t dir, int64_t n) {
    (void)fd, (void)dir;
    while (n--)
        clock_gettime(CLOCK_MONOTONIC, &result);
}

EXPORT void random_16(int64_t fd, int64_t dir, int64_t n) {
    (void)fd, (void)dir;
    while (n--)
        CALL(NR_getrandom, buffer, 16, 0, 0, 0, 0);
}

EXPORT void yield(int64_t fd, int64_t dir, int64_t n) {
    (void)fd, (void)dir;
    while (n--)
        CALL(NR_sched_yield, 0, 0, 0, 0, 0, 0);
}

EXPORT void getppid(int64_t fd, int64_t dir, int64_t n) {
    (void)fd, (void)dir;
    while (n--)
        CALL(NR_getppid, 0, 0, 0, 0, 0, 0);
}

EXPORT void write_null(int64_t fd, int64_t dir, int64_t n) {
    (void)dir;
    while (n--)
        CALL(NR_write, fd, buffer, 1, 0, 0, 0);
}

/* The same without a function: what the return costs. */
EXPORT void getppid_inline(int64_t fd, int64_t dir, int64_t n) {
    (void)fd, (void)dir;
    while (n--)
        SYS(NR_getppid, 0, 0, 0, 0, 0, 0);
}
