/* stat(2) results and timestamps, for fd_* and path_*. */
#ifndef WASI_SHIM_FILESTAT_H
#define WASI_SHIM_FILESTAT_H

#include "preview1.h"
#include "wali.h"

/* Copies a stat out to the guest, in either edition's layout. */
errno_t filestat_copy_out(guest_address out, const struct kernel_stat *stat, uint8_t filetype);
errno_t unstable_filestat_copy_out(guest_address out, const struct kernel_stat *stat,
                                   uint8_t filetype);

/* utimensat()'s argument from set_times' three. */
errno_t filestat_times(uint64_t atim, uint64_t mtim, uint32_t fstflags,
                       struct kernel_timespec out[2]);

#endif
