/* A shim that has been taken over: it imports every call that the core lets a shim have, and passes
 * whatever its guest says straight on.  What it can do, no shim can do more.
 *
 * Each import `module.name` is exported under that very name.  relays.gen.h has a line for each,
 * made from the core's own list when the tests compile this.
 */
#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(#module), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(name)))

typedef int32_t I;
typedef int64_t L;

#define RELAY(module, name, result, parameters, arguments)                                         \
    IMPORT(module, name) result module##_##name parameters;                                        \
    EXPORT(#module "." #name) result relay_##module##_##name parameters {                          \
        return module##_##name arguments;                                                          \
    }

#include "relays.gen.h"

/* --- what the core expects of a shim ---------------------------------------------------------- */

static uint8_t arena[65536]; /* where whoever drives this puts strings and structs */

EXPORT("wasi_allocate") I wasi_allocate(I size) {
    return size <= (I)sizeof arena ? (I)(uintptr_t)arena : 0;
}

/* The guest's memory is not there yet: does anybody find something in its place?  0 is an address.
 */
static L early;

EXPORT("wasi_configure") I wasi_configure(I address, I size) {
    (void)address, (void)size;
    early = guest_check(0, 0) != -14;
    early |= guest_check(0, 1) != -14;
    early |= guest_copy_in(address, 0, 8) != -14;
    early |= guest_copy_out(0, address, 8) != -14;
    early |= guest_store_u32(0, -1) != -14;
    early |= guest_store_u64(0, -1) != -14;
    early |= guest_store_time(0, 1) != -14;
    early |= wali_guest_SYS_getrandom(0, 8, 0) != -14;
    early |= wali_guest_SYS_writev(1, 0, 1) != -14;
    return 0;
}

EXPORT("early") L early_answers(void) {
    return early;
}

EXPORT("arena") I arena_address(void) {
    return (I)(uintptr_t)arena;
}

/* --- many tries in a row, while somebody else changes the arguments --------------------------- */

enum { EPERM = 1, MOST = 1 << 24 };

/* Repeats a call until it gives a descriptor, or has got past the core's own checks `tries` times.
 */
#define RACE(call)                                                                                 \
    L result = -EPERM;                                                                             \
    for (I i = 0, all = 0; result < 0 && i < tries && all < MOST; all++) {                         \
        result = call;                                                                             \
        i += result != -EPERM;                                                                     \
    }                                                                                              \
    return result

EXPORT("race_openat2") L race_openat2(I dirfd, I path, I how, I tries) {
    RACE(wali_SYS_openat2(dirfd, path, how, 24));
}

EXPORT("race_openat") L race_openat(I dirfd, I path, I flags, I tries) {
    RACE(wali_SYS_openat(dirfd, path, flags, 0));
}
