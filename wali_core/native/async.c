/* Calls that can wait, in a cooperative store: the guest is on a fiber, which wasmtime suspends.
 *
 * A C function cannot be suspended in its middle, so a call that would wait leaves what it waits
 * for in the guest's slot, gives up, and is made again from its beginning when the reactor says so.
 * What must survive is in the slot: the arguments, how long it may take, and how much is done.
 */
#include "core.h"

static int go_on(void *env) {
    struct context *c = env;
    struct slot *w = &c->slot;
    struct arguments values = w->arguments;
    /* Epochs have gone by while it waited: without a new deadline it would yield at once. */
    if (w->suspended || w->requested)
        wasmtime.context_set_epoch_deadline(c->own.store, 1);
    w->suspended = w->requested = 0;
    wasm_trap_t *trap = c->unfinished.thunk(c, NULL, values.of, MAX_ARGUMENTS);
    if (!trap && values.of[0].i64 == SUSPENDED) {
        w->suspended = !w->requested;
        return 0;
    }
    *c->unfinished.trap = trap;
    if (c->unfinished.result_count)
        *c->unfinished.results = (wasmtime_val_t){
            (uintptr_t)w->request & REQUEST_GIVES_I32 ? WASMTIME_I32 : WASMTIME_I64,
            .of.i64 = values.of[0].i64};
    w->answered = 0;
    return 1;
}

/* A call in Python runs on the reactor's stack, never on a fiber's: it is asked for, and the answer
 * is what the call gives when it is made again.  The memory can be grown from here only. */
static wasm_trap_t *request(void *env, UNUSED wasmtime_caller_t *caller, wasmtime_val_raw_t *values,
                            UNUSED size_t count) {
    struct context *c = env;
    struct slot *w = &c->slot;
    uint64_t old;
    wasmtime_error_t *error =
        w->grow ? wasmtime.memory_grow(c->own.store, &c->own.memory, w->grow, &old) : NULL;
    if (error) /* that it has not grown says all */
        wasmtime.error_delete(error);
    w->grow = 0;
    values[0].i64 = w->answered ? w->answer : SUSPENDED;
    w->requested = !w->answered;
    return NULL;
}

/* wasmtime's callback.  `env` is the call's thunk; or, for a call in Python, a number for the
 * reactor to know it by, of which an odd one gives an i32. */
EXPORT void wali_async(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *arguments,
                       size_t count, wasmtime_val_t *results, size_t result_count,
                       wasm_trap_t **trap, wasmtime_async_continuation_t *next) {
    struct context *c = wasmtime.context_get_data(wasmtime.caller_context(caller));
    wasmtime_unchecked_callback_t *thunk =
        (uintptr_t)env < MOST_REQUESTS ? request : (wasmtime_unchecked_callback_t *)env;
    for (size_t i = 0; i < count && i < MAX_ARGUMENTS; i++)
        c->slot.arguments.of[i].i64 = arguments[i].kind ? arguments[i].of.i64 : arguments[i].of.i32;
    c->slot.request = env;
    c->unfinished = (struct unfinished){thunk, results, result_count, trap};
    *next = (wasmtime_async_continuation_t){.callback = go_on, .env = c};
}

/* guest.suspend(): a call of a shim's (or of _suspending.py's) has answered SUSPENDED, and will be
 * made again after this one.  So only what waits has a continuation: to make one costs more than
 * most calls do.  It counts only right after that call: what that waits for must not have been
 * closed. */
BODY(body_suspend) {
    int waits = c->slot.repeats == PARKED(c->calls);
    c->slot.repeats = c->calls--; /* it is no call of the guest's */
    return waits ? SUSPENDED : 0;
}

/* How much of a transfer is done that is made again; every other begins anew.  A shim may suspend
 * and then make another call: so it is at most what this one is about. */
int64_t done_before(const struct context *c, uint64_t most) {
    return c->slot.repeats == c->calls && (uint64_t)c->slot.done <= most ? c->slot.done : 0;
}
