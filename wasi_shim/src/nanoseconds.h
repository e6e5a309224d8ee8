/* WASI counts time in unsigned 64-bit nanoseconds since 1970, the kernel in timespecs. */
#ifndef WASI_SHIM_NANOSECONDS_H
#define WASI_SHIM_NANOSECONDS_H

#include "wali.h"

enum { NANOSECONDS_PER_SECOND = 1000000000 };

/* Files may carry times that do not fit (before 1970, after 2554): the nearest one that does.  An
 * error would make such a file impossible to look at. */
static inline uint64_t nanoseconds_of(struct kernel_timespec time) {
    if (time.tv_sec < 0)
        return 0;
    if ((uint64_t)time.tv_sec >= UINT64_MAX / NANOSECONDS_PER_SECOND)
        return UINT64_MAX;
    return (uint64_t)time.tv_sec * NANOSECONDS_PER_SECOND + time.tv_nsec;
}

static inline struct kernel_timespec timespec_of(uint64_t nanoseconds) {
    return (struct kernel_timespec){
        .tv_sec = nanoseconds / NANOSECONDS_PER_SECOND,
        .tv_nsec = nanoseconds % NANOSECONDS_PER_SECOND,
    };
}

#endif
