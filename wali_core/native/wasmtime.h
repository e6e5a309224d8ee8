/* The part of wasmtime's C API that the core uses, declared by us: the Python package of wasmtime
 * ships the library without its headers.  tests/wali_core/test_bridge.py compares every size and
 * offset with wasmtime's own bindings, for each major that we support.
 *
 * Nothing here is an undefined symbol of ours: wasmtime's library is loaded RTLD_LOCAL and this one
 * is linked BIND_NOW, so the addresses are handed over once, in struct wasmtime_api.
 */
#ifndef WALI_WASMTIME_H
#define WALI_WASMTIME_H

#include "layout.gen.h"
#include <stddef.h>
#include <stdint.h>

typedef struct wasm_trap wasm_trap_t;
typedef struct wasmtime_error wasmtime_error_t;
typedef struct wasmtime_caller wasmtime_caller_t;
typedef struct wasmtime_context wasmtime_context_t;

typedef union wasmtime_val_raw {
    int32_t i32;
    int64_t i64;
    uint32_t u32;
    uint64_t u64;
    void *funcref;
    uint8_t v128[16];
} wasmtime_val_raw_t;

typedef struct wasmtime_func {
    uint64_t store_id;
    void *private;
} wasmtime_func_t;

/* A boxed value, of which the core knows numbers only. */
enum { WASMTIME_I32 = 0, WASMTIME_I64 = 1 };
typedef struct wasmtime_val {
    uint8_t kind;
    union {
        int32_t i32;
        int64_t i64;
        uint64_t others[3];
    } of;
} wasmtime_val_t;

/* What an async function goes on with, until it says 1. */
typedef struct wasmtime_async_continuation {
    int (*callback)(void *env);
    void *env;
    void (*finalizer)(void *);
} wasmtime_async_continuation_t;

typedef struct wasmtime_memory {
    struct {
        uint64_t store_id;
        uint32_t private1;
    } handle;
    uint32_t private2;
} wasmtime_memory_t;

typedef uint8_t wasmtime_update_deadline_kind_t; /* 0: go on */

typedef wasm_trap_t *wasmtime_unchecked_callback_t(void *env, wasmtime_caller_t *caller,
                                                   wasmtime_val_raw_t *args_and_results,
                                                   size_t count);

struct wasmtime_api {
    WASMTIME_FIELDS
    /* libc's, for the vDSO behind it: int clock_gettime(clockid_t, struct timespec *) */
    int (*clock_gettime)(int32_t, void *);
};

#endif
