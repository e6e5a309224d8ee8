/* The guest of the benchmarks: loops over WASI calls, timed from outside.  It is the same file for
 * every engine.  Freestanding: nothing but the calls themselves. */
#include <stdint.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

typedef struct {
    const void *base;
    uint32_t length;
} iovec_t;

WASI(path_open)
int32_t path_open(int32_t dir, int32_t lookup, const char *path, uint32_t length, int32_t oflags,
                  int64_t base, int64_t inheriting, int32_t fdflags, int32_t *fd);
WASI(fd_close) int32_t fd_close(int32_t fd);
WASI(fd_seek) int32_t fd_seek(int32_t fd, int64_t offset, int32_t whence, int64_t *position);
WASI(fd_write)
int32_t fd_write(int32_t fd, const iovec_t *iov, uint32_t count, uint32_t *written);
WASI(fd_pread)
int32_t fd_pread(int32_t fd, const iovec_t *iov, uint32_t count, int64_t at, uint32_t *read);
WASI(fd_filestat_get) int32_t fd_filestat_get(int32_t fd, void *out);
WASI(path_filestat_get)
int32_t path_filestat_get(int32_t dir, int32_t lookup, const char *path, uint32_t length,
                          void *out);
WASI(fd_readdir)
int32_t fd_readdir(int32_t fd, void *buffer, uint32_t size, int64_t cookie, uint32_t *used);
WASI(clock_time_get) int32_t clock_time_get(int32_t clock, int64_t precision, uint64_t *out);
WASI(random_get) int32_t random_get(void *buffer, uint32_t size);
WASI(sched_yield) int32_t sched_yield(void);

static const int64_t FILE_RIGHTS = 0x2 | 0x4 | 0x40 | 0x200000;
static const char NAME[] = "file";
static _Alignas(4096) uint8_t buffer[1 << 20]; /* copies are as fast as they are aligned */
static uint8_t result[64];
static int32_t file, many;

static void check(int32_t error) {
    if (error)
        __builtin_trap();
}

EXPORT(write_1) void write_1(int32_t n) {
    const iovec_t iov = {buffer, 1};
    uint32_t done;
    int64_t at;
    check(fd_seek(file, 0, 0, &at));
    while (n--)
        check(fd_write(file, &iov, 1, &done));
}

EXPORT(pread_1) void pread_1(int32_t n) {
    const iovec_t iov = {buffer, 1};
    uint32_t done;
    while (n--)
        check(fd_pread(file, &iov, 1, 0, &done));
}

/* An engine may do less than it is asked for, and be asked again. */
EXPORT(write_1m) void write_1m(int32_t n) {
    int64_t at;
    while (n--) {
        check(fd_seek(file, 0, 0, &at));
        for (uint32_t all = 0, done; all < sizeof buffer; all += done) {
            const iovec_t iov = {buffer + all, sizeof buffer - all};
            check(fd_write(file, &iov, 1, &done));
        }
    }
}

EXPORT(pread_1m) void pread_1m(int32_t n) {
    while (n--)
        for (uint32_t all = 0, done; all < sizeof buffer; all += done) {
            const iovec_t iov = {buffer + all, sizeof buffer - all};
            check(fd_pread(file, &iov, 1, all, &done));
        }
}

EXPORT(setup) void setup(void) {
    check(path_open(3, 0, NAME, 4, 1 | 8, FILE_RIGHTS, 0, 0, &file));
    write_1m(1);
    check(path_open(3, 0, "many", 4, 2, 0x4000, 0, 0, &many));
}

EXPORT(fstat) void fstat(int32_t n) {
    while (n--)
        check(fd_filestat_get(file, result));
}

EXPORT(stat) void stat(int32_t n) {
    while (n--)
        check(path_filestat_get(3, 0, NAME, 4, result));
}

EXPORT(open_close) void open_close(int32_t n) {
    int32_t fd;
    while (n--) {
        check(path_open(3, 0, NAME, 4, 0, FILE_RIGHTS, 0, 0, &fd));
        check(fd_close(fd));
    }
}

static void list(void) {
    const uint32_t size = 32768; /* glibc's readdir() asks for as much */
    uint64_t cookie = 0;
    uint32_t used;
    do {
        check(fd_readdir(many, buffer, size, cookie, &used));
        for (uint32_t at = 0; at + 24 <= used;) {
            uint32_t length = *(uint32_t *)(buffer + at + 16);
            if (at + 24 + length <= used)
                cookie = *(uint64_t *)(buffer + at);
            at += 24 + length;
        }
    } while (used == size);
}

EXPORT(readdir) void readdir(int32_t n) {
    while (n--)
        list();
}

EXPORT(clock) void clock(int32_t n) {
    while (n--)
        check(clock_time_get(1, 1, (uint64_t *)result));
}

EXPORT(random_16) void random_16(int32_t n) {
    while (n--)
        check(random_get(result, 16));
}

EXPORT(yield) void yield(int32_t n) {
    while (n--)
        check(sched_yield());
}
