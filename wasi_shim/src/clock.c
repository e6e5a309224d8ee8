#include "errno.h"
#include "exports.h"
#include "linux.h"
#include "now.h"

/* WASI's four clocks have Linux's numbers. */

errno_t clock_res_get(uint32_t clock, guest_address out) {
    if (clock > CLOCK_THREAD_CPUTIME_ID)
        return ERRNO_INVAL;
    uint64_t resolution;
    int64_t result = clock_resolution(clock, &resolution);
    if (result < 0)
        return errno_of(result);
    return errno_of(guest_store_u64(out, resolution));
}

/* Apart, so that the other way needs no stack. */
__attribute__((noinline)) static errno_t read_and_store(uint32_t clock, guest_address out) {
    uint64_t now;
    int64_t result = clock_now(clock, &now);
    if (result < 0)
        return errno_of(result);
    return errno_of(guest_store_u64(out, now));
}

/* Of all calls, the one that is made most often. */
errno_t clock_time_get(uint32_t clock, uint64_t precision, guest_address out) {
    (void)precision; /* an allowance that reading a clock has no use for */
    if (clock > CLOCK_THREAD_CPUTIME_ID)
        return ERRNO_INVAL;
    if (clock > CLOCK_MONOTONIC || clock_is_made())
        return read_and_store(clock, out);
    return errno_of(guest_store_time(out, clock));
}
