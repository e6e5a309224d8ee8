/* A shim that has been taken over: it imports every call that the core lets a shim have, and passes
 * whatever its guest says straight on.  What it can do, no shim can do more.
 *
 * Each import `module.name` is exported under that very name.
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

RELAY(wali, SYS_openat2, L, (I a, I b, I c, I d), (a, b, c, d))
RELAY(wali, SYS_openat, L, (I a, I b, I c, I d), (a, b, c, d))
RELAY(wali, SYS_close, L, (I a), (a))
RELAY(wali, SYS_dup3, L, (I a, I b, I c), (a, b, c))
RELAY(wali, SYS_lseek, L, (I a, L b, I c), (a, b, c))
RELAY(wali, SYS_fcntl, L, (I a, I b, L c), (a, b, c))
RELAY(wali, SYS_ioctl, L, (I a, I b, I c), (a, b, c))
RELAY(wali, SYS_fstat, L, (I a, I b), (a, b))
RELAY(wali, SYS_newfstatat, L, (I a, I b, I c, I d), (a, b, c, d))
RELAY(wali, SYS_utimensat, L, (I a, I b, I c, I d), (a, b, c, d))
RELAY(wali, SYS_mkdirat, L, (I a, I b, I c), (a, b, c))
RELAY(wali, SYS_unlinkat, L, (I a, I b, I c), (a, b, c))
RELAY(wali, SYS_renameat2, L, (I a, I b, I c, I d, I e), (a, b, c, d, e))
RELAY(wali, SYS_linkat, L, (I a, I b, I c, I d, I e), (a, b, c, d, e))
RELAY(wali, SYS_symlinkat, L, (I a, I b, I c), (a, b, c))
RELAY(wali, SYS_readlinkat, L, (I a, I b, I c, I d), (a, b, c, d))
RELAY(wali, SYS_getdents64, L, (I a, I b, I c), (a, b, c))
RELAY(wali, SYS_ftruncate, L, (I a, L b), (a, b))
RELAY(wali, SYS_fallocate, L, (I a, I b, L c, L d), (a, b, c, d))
RELAY(wali, SYS_fadvise, L, (I a, L b, L c, I d), (a, b, c, d))
RELAY(wali, SYS_fsync, L, (I a), (a))
RELAY(wali, SYS_fdatasync, L, (I a), (a))
RELAY(wali, SYS_ppoll, L, (I a, L b, I c, I d, I e), (a, b, c, d, e))
RELAY(wali, SYS_clock_nanosleep, L, (I a, I b, I c, I d), (a, b, c, d))
RELAY(wali, SYS_clock_gettime, L, (I a, I b), (a, b))
RELAY(wali, SYS_clock_getres, L, (I a, I b), (a, b))
RELAY(wali, SYS_accept4, L, (I a, I b, I c, I d), (a, b, c, d))
RELAY(wali, SYS_sendto, L, (I a, I b, I c, I d, I e, I f), (a, b, c, d, e, f))
RELAY(wali, SYS_recvfrom, L, (I a, I b, I c, I d, I e, I f), (a, b, c, d, e, f))
RELAY(wali, SYS_shutdown, L, (I a, I b), (a, b))
RELAY(wali, SYS_getrandom, L, (I a, I b, I c), (a, b, c))
RELAY(wali, SYS_sched_yield, L, (void), ())
RELAY(wali, __proc_exit, void, (I a), (a))

RELAY(wali_guest, SYS_readv, L, (I a, I b, I c), (a, b, c))
RELAY(wali_guest, SYS_writev, L, (I a, I b, I c), (a, b, c))
RELAY(wali_guest, SYS_preadv, L, (I a, I b, I c, L d), (a, b, c, d))
RELAY(wali_guest, SYS_pwritev, L, (I a, I b, I c, L d), (a, b, c, d))
RELAY(wali_guest, SYS_pwritev2, L, (I a, I b, I c, L d, I e), (a, b, c, d, e))
RELAY(wali_guest, SYS_getrandom, L, (I a, I b, I c), (a, b, c))

RELAY(guest, copy_in, I, (I a, I b, I c), (a, b, c))
RELAY(guest, copy_out, I, (I a, I b, I c), (a, b, c))
RELAY(guest, store_u32, I, (I a, I b), (a, b))
RELAY(guest, store_u64, I, (I a, L b), (a, b))
RELAY(guest, check, I, (I a, I b), (a, b))

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
