/* A WASI program for the tests of the core: its first argument says what to do.
 *
 * Freestanding, so that it is compiled in a second.  What it cannot do ends it with WASI's errno as
 * its status.
 */
#include <stddef.h>
#include <stdint.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

struct iovec {
    const void *base;
    uint32_t length;
};

struct subscription {
    uint64_t userdata;
    uint8_t tag; /* 0: clock, 1: fd_read */
    union {
        struct {
            uint32_t id;
            uint64_t timeout, precision;
            uint16_t flags;
        } clock;
        uint32_t fd;
    };
};

WASI(args_get) uint32_t args_get(char **argv, char *bytes);
WASI(args_sizes_get) uint32_t args_sizes_get(uint32_t *count, uint32_t *size);
WASI(environ_get) uint32_t environ_get(char **environ, char *bytes);
WASI(environ_sizes_get) uint32_t environ_sizes_get(uint32_t *count, uint32_t *size);
WASI(fd_read) uint32_t fd_read(uint32_t fd, const struct iovec *, uint32_t, uint32_t *done);
WASI(fd_write) uint32_t fd_write(uint32_t fd, const struct iovec *, uint32_t, uint32_t *done);
WASI(fd_prestat_get) uint32_t fd_prestat_get(uint32_t fd, uint32_t prestat[2]);
WASI(fd_prestat_dir_name) uint32_t fd_prestat_dir_name(uint32_t fd, char *, uint32_t);
WASI(path_open)
uint32_t path_open(uint32_t fd, uint32_t lookup, const char *, uint32_t length, uint32_t oflags,
                   uint64_t base, uint64_t inheriting, uint32_t fdflags, uint32_t *opened);
WASI(poll_oneoff)
uint32_t poll_oneoff(const struct subscription *, uint64_t events[4], uint32_t, uint32_t *done);
WASI(proc_exit) _Noreturn void proc_exit(uint32_t status);

enum { FOLLOW = 1, CREATE = 1, READ = 1 << 1, WRITE = 1 << 6, CLOCK_MONOTONIC = 1, HOUR = 3600 };

static char buffer[1 << 16];
static char strings[1 << 20];
static char *pointers[1 << 12];
static uint32_t count;

static void must(uint32_t error) {
    if (error)
        proc_exit(error);
}

static uint32_t length_of(const char *text) {
    uint32_t length = 0;
    while (text[length])
        length++;
    return length;
}

static int same(const char *one, const char *other) {
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static uint32_t number(const char *text) {
    uint32_t value = 0;
    for (; *text; text++)
        value = value * 10 + (uint32_t)(*text - '0');
    return value;
}

static void put(uint32_t fd, const void *data, uint32_t size) {
    const char *at = data;
    while (size) {
        uint32_t done;
        must(fd_write(fd, &(struct iovec){at, size}, 1, &done));
        at += done;
        size -= done;
    }
}

static uint32_t take(uint32_t fd) {
    uint32_t done;
    must(fd_read(fd, &(struct iovec){buffer, sizeof buffer}, 1, &done));
    return done;
}

static void line(const char *text) {
    put(1, text, length_of(text));
    put(1, "\n", 1);
}

static void lines(uint32_t first) {
    for (uint32_t i = first; i < count; i++)
        line(pointers[i]);
}

static uint32_t open(const char *path, uint32_t oflags, uint64_t rights) {
    uint32_t fd;
    must(path_open(3, FOLLOW, path, length_of(path), oflags, rights, 0, 0, &fd));
    return fd;
}

static void copy(uint32_t from) {
    for (uint32_t size; (size = take(from));)
        put(1, buffer, size);
}

/* Tell whoever watches that what follows does not end by itself. */
static void ready(void) {
    put(1, "ready\n", 6);
}

static void wait_for(struct subscription what) {
    uint64_t event[4];
    uint32_t done;
    ready();
    must(poll_oneoff(&what, event, 1, &done));
}

static void spin(void) {
    for (volatile uint32_t i = 0;; i++)
        ;
}

static void preopens(void) {
    uint32_t prestat[2];
    for (uint32_t fd = 3; fd_prestat_get(fd, prestat) == 0; fd++) {
        must(fd_prestat_dir_name(fd, buffer, sizeof buffer));
        put(1, buffer, prestat[1]);
        put(1, "\n", 1);
    }
}

/* COUNT bytes to stdout and as many to stderr, in turn. */
static void both(uint32_t left) {
    for (uint32_t size; left; left -= size) {
        size = left < sizeof buffer ? left : sizeof buffer;
        put(1, buffer, size);
        put(2, buffer, size);
    }
}

static void environment(void) {
    uint32_t size;
    must(environ_sizes_get(&count, &size));
    must(environ_get(pointers, strings));
    lines(0);
}

__attribute__((export_name("_start"))) void start(void) {
    uint32_t size;
    must(args_sizes_get(&count, &size));
    must(args_get(pointers, strings));
    const char *what = count > 1 ? pointers[1] : "", *word = count > 2 ? pointers[2] : "";
    if (same(what, "args"))
        lines(0);
    else if (same(what, "env"))
        environment();
    else if (same(what, "echo"))
        copy(0);
    else if (same(what, "preopens"))
        preopens();
    else if (same(what, "cat"))
        copy(open(word, 0, READ));
    else if (same(what, "create"))
        put(open(word, CREATE, WRITE), "created\n", 8);
    else if (same(what, "both"))
        both(number(word));
    else if (same(what, "exit"))
        proc_exit(number(word));
    else if (same(what, "trap"))
        __builtin_trap();
    else if (same(what, "spin"))
        ready(), spin();
    else if (same(what, "read"))
        ready(), take(0);
    else if (same(what, "poll"))
        wait_for((struct subscription){.tag = 1, .fd = 0});
    else if (same(what, "sleep"))
        wait_for((struct subscription){
            .clock = {.id = CLOCK_MONOTONIC, .timeout = HOUR * 1000000000ull}});
    else if (same(what, "fill"))
        for (ready();;)
            put(1, buffer, sizeof buffer);
    else if (same(what, "grow"))
        proc_exit((uint32_t)__builtin_wasm_memory_grow(0, number(word)) == UINT32_MAX);
    else
        proc_exit(2);
}
