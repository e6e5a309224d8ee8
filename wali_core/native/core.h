/* The core: what one guest is, and what the thunks are made of.  See docs/architecture.md. */
#ifndef WALI_CORE_H
#define WALI_CORE_H

#include "layout.gen.h" /* what Python knows as well */
#include "linux.h"
#include "wasmtime.h"

#define EXPORT __attribute__((visibility("default")))
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNUSED __attribute__((unused))
#define FLAT __attribute__((flatten))        /* what it calls becomes a part of it */
#define RARE __attribute__((cold, noinline)) /* kept out of the way of what is not */
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* A linear memory, as the thunks of one import module see it. */
struct space {
    uint8_t *base;
    uint64_t size; /* a lower bound of the true size: memories never shrink.  Of a program's shared
                    * memory ADDRESSES: what is not memory of these is reserved, and inaccessible,
                    * so the kernel finds its end as it finds that of a native program's */
    wasmtime_context_t *store;
    wasmtime_memory_t memory;
    uint32_t zero_is_valid; /* WASI: address 0 is an address; WALI: it is NULL */
    uint32_t bound;
};
#define ADDRESSES ((uint64_t)1 << 32)

/* What a guest's descriptor number means. */
struct descriptor {
    int32_t host; /* -1: free */
    uint16_t flags;
    uint8_t kind;
    uint8_t status; /* the guest's own O_NONBLOCK and O_APPEND, where the host's stay untouched */
};

#define DESCRIPTOR_INHERITED (DESCRIPTOR_READ_ONLY | DESCRIPTOR_MAY_REACH_PROC)

enum descriptor_kind { KIND_UNKNOWN, KIND_NEVER_WAITS, KIND_WAITS, KIND_TERMINAL };
enum { STATUS_NONBLOCK = 1, STATUS_APPEND = 2 };
enum { INLINE_DESCRIPTORS = 16, MAX_DESCRIPTORS = 4096 };

/* A guest's descriptors, which its threads share. */
struct table {
    TABLE_FIELDS
    struct descriptor inline_descriptors[INLINE_DESCRIPTORS];
};

enum { NO_DIRECTORY = INT32_MAX }; /* a number of the host's that nothing has */
/* Where a guest of a cooperative store waits: see async.c. */
enum { MAX_ARGUMENTS = 6 };
enum { TRIED = 1 }; /* in the revents of a wait: it was not ready just now */
struct arguments {
    wasmtime_val_raw_t of[MAX_ARGUMENTS];
};
struct slot {
    SLOT_FIELDS
};
/* In its `repeats`: what call must be guest.suspend(), for it to wait. */
#define PARKED(call) (~(call))

/* The call that is made again, and where wasmtime wants its result. */
struct unfinished {
    wasmtime_unchecked_callback_t *thunk;
    wasmtime_val_t *results;
    size_t result_count;
    wasm_trap_t **trap;
};

/* A call that is served by Python, of the generated enum host_call. */
struct context;
typedef int64_t host_call_t(struct context *, uint32_t call, const wasmtime_val_raw_t *arguments);

/* One guest, or one thread of a program. */
struct context {
    CONTEXT_FIELDS
    struct space own;       /* the memory of the module that imports wali.* */
    struct table own_table; /* of the first thread, or the only one */
    struct space guest;     /* the memory behind wali_guest.* and guest.* */
    struct unfinished unfinished;
};

/* A body's answer when the guest must not go on. */
#define STOPPED INT64_MIN
/* And when it has to be made again: the guest is suspended.  Both say: give up, at once. */
#define SUSPENDED (INT64_MIN + 1)
#define GIVES_UP(result) ((result) <= SUSPENDED)
/* A signal came before the call had begun; or during it, and it is not made again whatever the
 * handler's flags say.  (The kernel's ERESTARTSYS and ERESTARTNOHAND.) */
enum { ABORTED = -512, NOT_AGAIN = -514 };

extern struct wasmtime_api wasmtime;

/* memory.c */
struct kernel_sigaction {
    void *handler;
    uint64_t flags;
    void (*restorer)(void);
    uint64_t mask;
};
void wali_restorer(void);
extern int (*sent_signal)(int, void *, void *); /* of signals.c: of a WALI program's process */
int wali_copy(void *to, const void *from, size_t size); /* 0, or -EFAULT on a page that is gone */
RARE uint8_t *space_refresh(struct context *, struct space *, uint64_t address, uint64_t size);
int64_t copy_string(struct context *, struct space *, uint32_t address, char *to, uint32_t room);
int64_t copy_iovec(struct context *, struct space *, uint32_t address, uint32_t count,
                   struct iovec *to);
/* The room that it needs.  Where it fails, the kernel is to say what is wrong: it is made to, by a
 * vector at WALI_BAD, since it looks at the descriptor first. */
#define IOVECS(count) ((count) > UIO_MAXIOV ? 1 : (count) + 1)

/* The host address of a guest's [address, address + size), or NULL.  64-bit: the sum cannot wrap.
 */
ALWAYS_INLINE uint8_t *space_at(struct context *c, struct space *s, uint32_t address,
                                uint64_t size) {
    if (LIKELY((uint64_t)address + size <= s->size))
        return s->base + address;
    return space_refresh(c, s, address, size);
}

/* The same for a buffer that the kernel fills or reads.  NULL stays NULL (where it is one): the
 * kernel has its own answer to that.  WALI_BAD: not the guest's memory.  A kernel's address: handed
 * over all the same it is refused, after whatever else is wrong. */
#define WALI_BAD ((uint8_t *)(-(INT64_C(1) << 47)))
ALWAYS_INLINE uint8_t *space_buffer(struct context *c, struct space *s, uint32_t address,
                                    uint64_t size) {
    if (UNLIKELY(address == 0) && !s->zero_is_valid)
        return NULL;
    uint8_t *at = space_at(c, s, address, size);
    return at ? at : WALI_BAD;
}

/* A string for the kernel.  In capability mode it is copied, so that what was looked at is what is
 * used; else the kernel takes it where it lies, as from everybody: behind the end of every memory
 * there are guard pages.  0 or -errno, in capability mode. */
ALWAYS_INLINE int64_t take_string(struct context *c, struct space *s, uint32_t address,
                                  char copy[PATH_MAX], const char **string, int capable) {
    *string = capable ? copy : (const char *)space_buffer(c, s, address, 1);
    return capable ? copy_string(c, s, address, copy, PATH_MAX) : 0;
}

/* A struct of the guest's, copied once; and back.  0 or -EFAULT, also for NULL. */
int64_t copy_from(struct context *, struct space *, uint32_t address, void *to, uint64_t size);
int64_t copy_to(struct context *, struct space *, uint32_t address, const void *from,
                uint64_t size);

/* descriptors.c */
struct table *table_lock(struct context *); /* with threads: of what they share and change */
void table_unlock(struct table *);
struct descriptor *descriptor_at(struct context *, int32_t number); /* NULL: not open */
int64_t descriptor_install(struct context *, int64_t host, uint16_t flags);
int64_t descriptor_release(struct context *, int32_t number);
int64_t descriptor_install_made(struct context *, int64_t host, uint64_t guest_flags);
int64_t descriptor_install_pair(struct context *, struct space *, uint32_t address,
                                const int32_t *hosts, uint64_t guest_flags);

ALWAYS_INLINE int32_t host_of(struct context *c, int32_t number) {
    struct descriptor *d = descriptor_at(c, number);
    return d ? d->host : -1;
}

/* capability.c: what the core refuses in capability mode, whatever the shim asks.  0 or -errno. */
int64_t capability_component(const char *path);
int64_t capability_open_how(const struct open_how *how, const char *path);
int64_t capability_open_flags(struct context *, const struct descriptor *dir, uint64_t flags);
int64_t capability_link_target(const char *target);
int64_t capability_modify(struct context *, const struct descriptor *d);
int64_t capability_opened(const struct descriptor *dir, int64_t host, int crossed);
int32_t capability_no_follow(int32_t flags);
void capability_tame_open(uint64_t *flags, uint64_t *mode);
enum { CLOCKS_OF_ONES_OWN = 3 }; /* above: of other processes, by their pid */

/* signals.c: a system call that can wait, not made any more where a signal is in flight. */
RARE int64_t signal_settle(struct context *, int64_t result, int restarts, int32_t number);
int64_t take_mask(struct context *, struct space *, uint32_t address, uint64_t size);
#define WAIT(context, number, a, b, c, d, e, f)                                                    \
    interruptible((int64_t)(a), (int64_t)(b), (int64_t)(c), (int64_t)(d), (int64_t)(e),            \
                  (int64_t)(f), number, &(context)->signal)
#define MASK_OF(context) ((context)->has_mask_during ? &(context)->mask_during : NULL)

/* May a call on it wait in the kernel?  Not where the guest's O_NONBLOCK is unknown to the host. */
ALWAYS_INLINE int waits_in_kernel(const struct context *c, const struct descriptor *d) {
    return c->direct && !(d->status & STATUS_NONBLOCK);
}

/* What a new descriptor of a guest's is to the host: in a process of its own, what it asked for. */
ALWAYS_INLINE uint64_t host_nonblock(const struct context *c, uint64_t flags) {
    return c->direct ? flags & O_NONBLOCK : O_NONBLOCK;
}

/* wait.c: the only places where a guest sleeps. */
int64_t wait_for(struct context *, struct pollfd *fds, uint32_t count, int64_t until);
int64_t done_before(const struct context *, uint64_t most); /* async.c */
int64_t wait_timeout(struct context *, struct pollfd *fds, uint32_t count, struct timespec *);
int64_t clock_now(int32_t clock);
int64_t timeout_from(struct context *, struct space *, uint32_t address, int micro,
                     struct timespec *);
uint8_t descriptor_waits(struct descriptor *d); /* is it of a kind that can? asks the kernel once */

/* A body does one system call for a guest: the arguments are the guest's, checked by nobody yet.
 * `capable` is a constant in every thunk: the compiler makes two functions of one text. */
#define BODY(name)                                                                                 \
    FLAT int64_t name(UNUSED struct context *c, UNUSED struct space *s,                            \
                      UNUSED const wasmtime_val_raw_t *a, UNUSED int capable)

BODY(body_exit);
int64_t stat_to_guest(uint8_t *to, const kernel_stat_t *);

RARE wasm_trap_t *stop_trap(struct context *);

ALWAYS_INLINE struct context *context_of(void *env, wasmtime_caller_t *caller) {
    struct context *c = env ? env : wasmtime.context_get_data(wasmtime.caller_context(caller));
    c->calls++;
    return c;
}

/* The ends of thunks: one for each import module and mode that the table allows.  `restarts` is -1
 * for a shim.  A WALI program's signal handlers run here: before the call if a signal has come by
 * then, and after it; 1 is for calls that are then made again, where the handler says so, and an
 * option of sockets for those that are not where it has set a time-out. */
#define THUNK(thunk, body, space, capable, restarts)                                               \
    FLAT static wasm_trap_t *thunk(void *env, wasmtime_caller_t *caller,                           \
                                   wasmtime_val_raw_t *values, size_t count) {                     \
        (void)count;                                                                               \
        struct context *c = context_of(env, caller);                                               \
        const int signals = (restarts) >= 0;                                                       \
        int64_t result;                                                                            \
        if (signals)                                                                               \
            c->has_mask_during = 0;                                                                \
        do                                                                                         \
            result =                                                                               \
                signals && UNLIKELY(c->signal) ? ABORTED : body(c, &c->space, values, capable);    \
        while (signals && UNLIKELY(c->signal) &&                                                   \
               (result = signal_settle(c, result, restarts, values->i32)) == ABORTED);             \
        if (UNLIKELY(result == STOPPED))                                                           \
            return stop_trap(c);                                                                   \
        values[0].i64 = result;                                                                    \
        return NULL;                                                                               \
    }

/* The size of what an ioctl, a command of fcntl or a socket option reads or writes, from the
 * table's closed lists; 0 is an argument that is no address.  -1: not on them. */
enum { LISTED_IOCTL = -1, LISTED_FCNTL = -2 };
int32_t listed_size(int32_t level, uint32_t name);

/* A row of the generated list from which Python links. */
struct call {
    CALL_FIELDS
};

#endif
