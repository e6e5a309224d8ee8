/* One guest's context: made, bound to its memories, ended; and the calls that are not Linux's. */
#include "core.h"

struct wasmtime_api wasmtime;

EXPORT void wali_init(const struct wasmtime_api *api) {
    wasmtime = *api;
}

EXPORT const uint64_t wali_context_size = sizeof(struct context);
EXPORT const uint64_t wali_own_space = offsetof(struct context, own);

/* `c` is zeroed memory of wali_context_size() bytes, at an address that will not change. */
EXPORT void wali_context_init(struct context *c, uint32_t limit) {
    c->deadline = INT64_MAX;
    c->wake = -1;
    c->cwd = NO_DIRECTORY;
    struct table *t = c->table = &c->own_table;
    t->limit = t->limit_most = limit < MAX_DESCRIPTORS ? limit : MAX_DESCRIPTORS;
    t->capacity = limit < INLINE_DESCRIPTORS ? limit : INLINE_DESCRIPTORS;
    t->dead = -1;
    t->descriptors = t->inline_descriptors;
    for (uint32_t i = 0; i < INLINE_DESCRIPTORS; i++)
        t->inline_descriptors[i].host = -1;
}

/* Bind a memory: which 0 is wali's, 1 is wali_guest's and guest's. */
EXPORT void wali_context_bind(struct context *c, uint32_t which, wasmtime_context_t *store,
                              const wasmtime_memory_t *memory, uint32_t zero_is_valid) {
    struct space *s = which ? &c->guest : &c->own;
    *s = (struct space){.store = store, .memory = *memory, .zero_is_valid = zero_is_valid};
    s->bound = 1;
    s->base = wasmtime.memory_data(store, memory);
    space_refresh(c, s, 0, 0);
}

/* The same for a WALI program's memory, which it may share with threads.  It never moves. */
EXPORT void wali_context_bind_shared(struct context *c, wasmtime_context_t *store, uint8_t *base) {
    c->own = (struct space){.base = base, .size = ADDRESSES, .store = store};
}

/* The guest is gone: so is everything that it held open.  The bytes of `c` stay Python's. */
EXPORT void wali_context_close(struct context *c) {
    struct table *t = &c->own_table; /* a thread's other one is not its to close */
    for (uint32_t i = 0; c->table == t && i < t->capacity; i++)
        descriptor_release(c, (int32_t)i);
    if (t->descriptors != t->inline_descriptors)
        SYS(NR_munmap, t->descriptors, t->capacity * sizeof(struct descriptor), 0, 0, 0, 0);
    if (c->wake >= 0)
        SYS(NR_close, c->wake, 0, 0, 0, 0, 0);
    t->descriptors = t->inline_descriptors;
    t->capacity = 0;
    c->wake = -1;
    c->own.bound = c->guest.bound = 0;
    c->own.size = c->guest.size = 0;
}

/* Unwinds the guest.  Python reads why from c->stop, not from the message. */
wasm_trap_t *stop_trap(struct context *c) {
    static const char message[] = "the guest was stopped";
    wasm_trap_t *trap = c->trap;
    c->trap = NULL;
    return trap ? trap : wasmtime.trap_new(message, sizeof message - 1);
}

/* --- the gate --------------------------------------------------------------------------------- */

/* A call that the policy does not grant is linked to this, with its own record as env. */
struct denial {
    int64_t result; /* -errno */
    uint64_t count;
};

EXPORT wasm_trap_t *wali_denied(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values,
                                size_t count) {
    (void)caller, (void)count;
    struct denial *d = env;
    __atomic_fetch_add(&d->count, 1, __ATOMIC_RELAXED);
    values[0].i64 = d->result;
    return NULL;
}

/* --- calls of WALI and of ours ---------------------------------------------------------------- */

/* In a process of its own, that is the end of it and of all its threads. */
BODY(body_exit_group) {
    if (c->direct)
        SYS(NR_exit_group, a[0].i32, 0, 0, 0, 0, 0);
    return body_exit(c, s, a, capable);
}

/* The end of one thread. */
BODY(body_exit) {
    c->status = a[0].i32;
    c->stop = STOP_EXIT;
    return STOPPED;
}

/* guest.copy_in(own, guest, size): from the guest to the shim. */
BODY(body_copy_in) {
    uint8_t *to = space_at(c, &c->own, a[0].u32, a[2].u32);
    uint8_t *from = space_at(c, &c->guest, a[1].u32, a[2].u32);
    return to && from ? wali_copy(to, from, a[2].u32) : -EFAULT;
}

/* guest.copy_out(guest, own, size) */
BODY(body_copy_out) {
    uint8_t *to = space_at(c, &c->guest, a[0].u32, a[2].u32);
    uint8_t *from = space_at(c, &c->own, a[1].u32, a[2].u32);
    return to && from ? wali_copy(to, from, a[2].u32) : -EFAULT;
}

/* guest.store_u32(guest, value) */
BODY(body_store_u32) {
    return copy_to(c, s, a[0].u32, &a[1].u32, 4);
}

/* guest.store_u64(guest, value) */
BODY(body_store_u64) {
    return copy_to(c, s, a[0].u32, &a[1].u64, 8);
}

/* guest.check(address, size) */
BODY(body_check) {
    return space_at(c, s, a[0].u32, a[1].u32) ? 0 : -EFAULT;
}
