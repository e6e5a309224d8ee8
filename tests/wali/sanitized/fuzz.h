/* What the files of the fuzzing program share. */
#ifndef SANITIZED_FUZZ_H
#define SANITIZED_FUZZ_H

#include "core.h"

/* The C library, by hand: its headers name structs as the core does. */
int printf(const char *, ...);
int fflush(void *);
_Noreturn void _exit(int);
void *mmap(void *, size_t, int, int, int, long);
int mprotect(void *, size_t, int);
int munmap(void *, size_t);
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
int memcmp(const void *, const void *, size_t);
int strcmp(const char *, const char *);
int open(const char *, int, ...);
int close(int);
int mkdir(const char *, unsigned);
int symlink(const char *, const char *);
long write(int, const void *, size_t);
int fork(void);
int waitpid(int, int *, int);
int kill(int, int);
int setsid(void);
int prctl(int, ...);
int setrlimit(int, const uint64_t *);
int usleep(unsigned);
int memfd_create(const char *, unsigned);
int ftruncate(int, long);
int clock_gettime(int, void *);
unsigned long strtoul(const char *, char **, int);
int pthread_create(void *, const void *, void *(*)(void *), void *);
int pthread_join(unsigned long, void **);

/* The core, as Python knows it. */
EXPORT void wali_init(const struct wasmtime_api *);
void wali_context_init(struct context *, uint32_t limit);
void wali_context_bind(struct context *, uint32_t which, wasmtime_context_t *,
                       const wasmtime_memory_t *, uint32_t zero_is_valid);
void wali_context_bind_shared(struct context *, wasmtime_context_t *, uint8_t *base);
void wali_context_close(struct context *);
int64_t wali_install_fault_handler(void);
void wali_take_sent_signals(void);
int64_t wali_descriptor_set(struct context *, int32_t, int32_t, uint32_t);
int64_t wali_table_share(struct context *, int32_t dead);
void wali_interrupt(struct context *);
wasm_trap_t *wali_on_poll(void *, wasmtime_caller_t *, wasmtime_val_raw_t *, size_t);
void wali_async(void *env, wasmtime_caller_t *, const wasmtime_val_t *, size_t, wasmtime_val_t *,
                size_t, wasm_trap_t **, wasmtime_async_continuation_t *);
extern const struct call wali_calls[];
extern const uint64_t wali_call_count;
extern struct {
    int64_t tid;
    struct context *c;
} wali_running[];
extern struct action {
    uint32_t handler;
    uint64_t flags;
    uint32_t restorer;
    uint64_t mask;
} __attribute__((packed)) wali_actions[];

enum { KB = 1024, PAGE = 4096, CANARY = 16 * KB, MOST = 256 * KB, PATTERN = 0xa5 };
enum { OWN, GUESTS, MEMORIES }; /* of the module that imports wali, and of a shim's guest */
enum { THREADS = 2, LIMIT = 24, HOSTS = 64 };

/* A linear memory, which may grow to MOST, of addresses that the core may hand over; those that are
 * not memory are inaccessible.  CANARY bytes lie on either side of all, or right behind a memory
 * that has no other addresses. */
struct memory {
    uint8_t *base;
    uint64_t size, addresses, whole; /* the last includes what it may become; no canaries */
};
extern struct memory memories[MEMORIES];

extern struct context contexts[THREADS]; /* the second is for a program with a thread */
extern __thread const char *now;         /* the call that is being made */
extern int own_stream;                   /* what a guest has for standard streams */
extern uint64_t inherited;               /* descriptors of ours */

/* Signals that the guest never sees nor blocks: a call that waits is ended by it. */
enum { KICK = 64, SIGUSR1 = 10 };
#define KICK_BIT ((uint64_t)1 << (KICK - 1))

_Noreturn void fail(const char *what);

/* fuzz.c: chance */
uint64_t anything(void);
uint32_t below(uint32_t limit);

/* checks.c */
int is_open(int host);
void check_world(void);
int64_t untouched_syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                          int64_t f);

/* alone.c: 0 where no process can be made that can harm nobody */
int is_alone(void);

#endif
