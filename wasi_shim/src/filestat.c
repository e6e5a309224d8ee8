#include "filestat.h"

#include "descriptors.h"
#include "errno.h"
#include "nanoseconds.h"
#include "now.h"

errno_t filestat_copy_out(guest_address out, const struct kernel_stat *stat, uint8_t filetype) {
    struct filestat filestat = {
        .dev = stat->st_dev,
        .ino = stat->st_ino,
        .filetype = filetype,
        .nlink = stat->st_nlink,
        .size = stat->st_size,
        .atim = nanoseconds_of(stat->st_atim),
        .mtim = nanoseconds_of(stat->st_mtim),
        .ctim = nanoseconds_of(stat->st_ctim),
    };
    return errno_of(guest_copy_out(out, &filestat, sizeof filestat));
}

errno_t unstable_filestat_copy_out(guest_address out, const struct kernel_stat *stat,
                                   uint8_t filetype) {
    struct unstable_filestat filestat = {
        .dev = stat->st_dev,
        .ino = stat->st_ino,
        .filetype = filetype,
        .nlink = stat->st_nlink < UINT32_MAX ? stat->st_nlink : UINT32_MAX,
        .size = stat->st_size,
        .atim = nanoseconds_of(stat->st_atim),
        .mtim = nanoseconds_of(stat->st_mtim),
        .ctim = nanoseconds_of(stat->st_ctim),
    };
    return errno_of(guest_copy_out(out, &filestat, sizeof filestat));
}

static struct kernel_timespec requested(uint64_t time, bool set, bool now) {
    if (now && clock_is_made())
        set = clock_now(CLOCK_REALTIME, &time) == 0;
    else if (now)
        return (struct kernel_timespec){.tv_nsec = UTIME_NOW};
    return set ? timespec_of(time) : (struct kernel_timespec){.tv_nsec = UTIME_OMIT};
}

errno_t filestat_times(uint64_t atim, uint64_t mtim, uint32_t fstflags,
                       struct kernel_timespec out[2]) {
    const uint32_t both_atim = FSTFLAGS_ATIM | FSTFLAGS_ATIM_NOW;
    const uint32_t both_mtim = FSTFLAGS_MTIM | FSTFLAGS_MTIM_NOW;
    if (fstflags & ~FSTFLAGS_ALL || (fstflags & both_atim) == both_atim ||
        (fstflags & both_mtim) == both_mtim)
        return ERRNO_INVAL;
    out[0] = requested(atim, fstflags & FSTFLAGS_ATIM, fstflags & FSTFLAGS_ATIM_NOW);
    out[1] = requested(mtim, fstflags & FSTFLAGS_MTIM, fstflags & FSTFLAGS_MTIM_NOW);
    return ERRNO_SUCCESS;
}
