/* One guest's context: made, bound to its memories, ended; and the calls that are not Linux's. */
#include "core.h"

struct wasmtime_api wasmtime;

EXPORT void wali_init(const struct wasmtime_api *api) {
    wasmtime = *api;
}

EXPORT uint64_t wali_context_size(void) {
    return sizeof(struct context);
}

/* `c` is zeroed memory of wali_context_size() bytes, at an address that will not change. */
EXPORT void wali_context_init(struct context *c, uint32_t limit) {
    c->deadline = INT64_MAX;
    c->wake = -1;
    c->cwd = NO_DIRECTORY;
    c->limit = limit < MAX_DESCRIPTORS ? limit : MAX_DESCRIPTORS;
    c->limit_most = c->limit;
    c->capacity = limit < INLINE_DESCRIPTORS ? limit : INLINE_DESCRIPTORS;
    c->descriptors = c->inline_descriptors;
    for (uint32_t i = 0; i < INLINE_DESCRIPTORS; i++)
        c->inline_descriptors[i].host = -1;
}

/* Bind a memory: which 0 is wali's, 1 is wali_guest's and guest's. */
EXPORT void wali_context_bind(struct context *c, uint32_t which, wasmtime_context_t *store,
                              const wasmtime_memory_t *memory, uint32_t zero_is_valid) {
    struct space *s = which ? &c->guest : &c->own;
    s->store = store;
    s->memory = *memory;
    s->zero_is_valid = zero_is_valid;
    s->bound = 1;
    s->base = wasmtime.memory_data(store, memory);
    s->size = wasmtime.memory_data_size(store, memory);
}

/* The same for a WALI program's memory, which it may share with threads. */
EXPORT void wali_context_bind_shared(struct context *c, const wasmtime_sharedmemory_t *memory) {
    c->own.shared = memory;
    c->own.bound = 1;
    c->own.base = wasmtime.sharedmemory_data(memory);
    c->own.size = wasmtime.sharedmemory_data_size(memory);
}

/* The guest is gone: so is everything that it held open.  The bytes of `c` stay Python's. */
EXPORT void wali_context_close(struct context *c) {
    for (uint32_t i = 0; i < c->capacity; i++)
        descriptor_release(c, (int32_t)i);
    if (c->descriptors != c->inline_descriptors)
        SYS(NR_munmap, c->descriptors, c->limit * sizeof(struct descriptor), 0, 0, 0, 0);
    slot_release(&c->slot);
    if (c->wake >= 0)
        SYS(NR_close, c->wake, 0, 0, 0, 0, 0);
    c->descriptors = c->inline_descriptors;
    c->capacity = 0;
    c->wake = -1;
    c->own.bound = c->guest.bound = 0;
    c->own.size = c->guest.size = 0;
}

/* Unwinds the guest.  Python reads why from c->stop, not from the message. */
wasm_trap_t *stop_trap(struct context *c) {
    (void)c;
    static const char message[] = "the guest was stopped";
    return wasmtime.trap_new(message, sizeof message - 1);
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

BODY(body_exit_group) {
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
    uint8_t *to = space_at(c, s, a[0].u32, 4);
    return to ? wali_copy(to, &a[1].u32, 4) : -EFAULT;
}

/* guest.store_u64(guest, value) */
BODY(body_store_u64) {
    uint8_t *to = space_at(c, s, a[0].u32, 8);
    return to ? wali_copy(to, &a[1].u64, 8) : -EFAULT;
}

/* guest.check(address, size) */
BODY(body_check) {
    return space_at(c, s, a[0].u32, a[1].u32) ? 0 : -EFAULT;
}
