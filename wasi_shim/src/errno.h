/* Linux's error numbers into WASI's. */
#ifndef WASI_SHIM_ERRNO_H
#define WASI_SHIM_ERRNO_H

#include "linux.h"
#include "preview1.h"

errno_t errno_from_linux(int64_t error);

/* ... of a system call's raw result: -errno, or anything else for success. */
static inline errno_t errno_of(int64_t result) {
    return result < 0 ? errno_from_linux(-result) : ERRNO_SUCCESS;
}

#endif
