/* Linux's error numbers into WASI's. */
#ifndef WASI_SHIM_ERRNO_H
#define WASI_SHIM_ERRNO_H

#include "linux.h"
#include "preview1.h"

/* Of the raw result of a system call that failed: -errno. */
errno_t errno_of_failure(int64_t result);

/* ... or that may have succeeded. */
static inline errno_t errno_of(int64_t result) {
    return result < 0 ? errno_of_failure(result) : ERRNO_SUCCESS;
}

/* How much a call has put into a buffer, which cannot be more than there is room for: whoever says
 * so is not believed. */
static inline int64_t at_most(uint32_t size, int64_t result) {
    return result > size ? -EIO : result;
}

#endif
