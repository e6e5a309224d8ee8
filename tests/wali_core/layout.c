/* Where the C compiler finds what is in wasmtime's structs and the core's: for test_bridge.py. */
#include "core.h"

struct row {
    const char *type;
    const char *field; /* NULL: the whole type */
    uint64_t offset;
    uint64_t size;
};

#define TYPE(type) {#type, NULL, 0, sizeof(type)}
#define FIELD(type, field) {#type, #field, offsetof(type, field), sizeof(((type *)0)->field)}

EXPORT const struct row layout[] = {
    TYPE(wasmtime_val_raw_t),
    FIELD(wasmtime_val_raw_t, i32),
    FIELD(wasmtime_val_raw_t, i64),
    FIELD(wasmtime_val_raw_t, v128),
    FIELD(wasmtime_val_raw_t, funcref),
    TYPE(wasmtime_val_t),
    FIELD(wasmtime_val_t, kind),
    FIELD(wasmtime_val_t, of),
    TYPE(wasmtime_async_continuation_t),
    FIELD(wasmtime_async_continuation_t, callback),
    FIELD(wasmtime_async_continuation_t, env),
    FIELD(wasmtime_async_continuation_t, finalizer),
    TYPE(wasmtime_func_t),
    FIELD(wasmtime_func_t, store_id),
    FIELD(wasmtime_func_t, private),
    TYPE(wasmtime_memory_t),
    FIELD(wasmtime_memory_t, handle.store_id),
    FIELD(wasmtime_memory_t, handle.private1),
    FIELD(wasmtime_memory_t, private2),
    TYPE(wasmtime_update_deadline_kind_t),
    FIELD(struct context, stop),
    FIELD(struct context, status),
    FIELD(struct context, deadline),
    FIELD(struct context, calls),
    FIELD(struct context, waits),
    FIELD(struct context, read),
    FIELD(struct context, written),
    FIELD(struct context, wake),
    FIELD(struct context, refused_write),
    FIELD(struct context, cwd),
    FIELD(struct context, network),
    FIELD(struct context, table),
    FIELD(struct context, host),
    FIELD(struct context, direct),
    FIELD(struct context, signal),
    FIELD(struct context, store),
    FIELD(struct context, call),
    FIELD(struct context, call.store_id),
    FIELD(struct context, call.private),
    FIELD(struct context, trap),
    FIELD(struct context, mask_before),
    FIELD(struct context, mask_during),
    FIELD(struct context, has_mask_during),
    FIELD(struct context, restart),
    FIELD(struct context, cooperative),
    FIELD(struct context, slot),
    FIELD(struct context, own),
    FIELD(struct context, slot.fds),
    FIELD(struct context, slot.count),
    FIELD(struct context, slot.suspended),
    FIELD(struct context, slot.until),
    FIELD(struct context, slot.request),
    FIELD(struct context, slot.requested),
    FIELD(struct context, slot.answered),
    FIELD(struct context, slot.answer),
    FIELD(struct context, slot.resumed),
    FIELD(struct context, slot.grow),
    FIELD(struct context, slot.room),
    FIELD(struct context, slot.arguments),
    FIELD(struct context, slot.done),
    FIELD(struct table, limit),
    FIELD(struct table, limit_most),
    FIELD(struct table, capacity),
    FIELD(struct table, lowest),
    FIELD(struct table, dead),
    FIELD(struct table, lock),
    FIELD(struct table, descriptors),
    TYPE(struct call),
    FIELD(struct call, module),
    FIELD(struct call, name),
    FIELD(struct call, parameters),
    FIELD(struct call, result),
    FIELD(struct call, group),
    FIELD(struct call, native),
    FIELD(struct call, hosted),
    FIELD(struct call, capable),
    FIELD(struct call, capable_guest),
    FIELD(struct call, waits),
    TYPE(struct wasmtime_api),
};
EXPORT const uint64_t layout_count = sizeof layout / sizeof *layout;

struct constant {
    const char *name;
    int64_t value;
};

#define CONSTANT(name) {#name, name}

EXPORT const struct constant constants[] = {
    CONSTANT(RESUME_NOT),
    CONSTANT(RESUME_READY),
    CONSTANT(RESUME_EXPIRED),
    CONSTANT(STOP_NONE),
    CONSTANT(STOP_EXIT),
    CONSTANT(STOP_TIMEOUT),
    CONSTANT(STOP_INTERRUPT),
    CONSTANT(DESCRIPTOR_CLOEXEC),
    CONSTANT(DESCRIPTOR_BORROWED),
    CONSTANT(DESCRIPTOR_SHARED),
    CONSTANT(DESCRIPTOR_READ_ONLY),
    CONSTANT(DESCRIPTOR_MAY_REACH_PROC),
};
EXPORT const uint64_t constants_count = sizeof constants / sizeof *constants;
