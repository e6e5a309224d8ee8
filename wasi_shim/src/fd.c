/* Operations on open descriptors. */
#include "configure.h"
#include "descriptors.h"
#include "errno.h"
#include "exports.h"
#include "filestat.h"
#include "resolve.h"

errno_t fd_advise(fd_t fd, uint64_t offset, uint64_t length, uint32_t advice) {
    static const uint8_t linux_advice[] = {
        POSIX_FADV_NORMAL,   POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM,
        POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED,   POSIX_FADV_NOREUSE,
    };
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_ADVISE, &descriptor);
    if (error)
        return error;
    if (advice >= sizeof linux_advice)
        return ERRNO_INVAL;
    return errno_of(sys_fadvise(fd, offset, length, linux_advice[advice]));
}

errno_t fd_allocate(fd_t fd, uint64_t offset, uint64_t length) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_ALLOCATE, &descriptor);
    return error ? error : errno_of(sys_fallocate(fd, 0, offset, length));
}

errno_t fd_close(fd_t fd) {
    int64_t result = sys_close(fd);
    if (result != -EBADF) /* after any other error, Linux has closed it nevertheless */
        descriptor_remove(fd);
    return errno_of(result);
}

errno_t fd_datasync(fd_t fd) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_DATASYNC, &descriptor);
    return error ? error : errno_of(sys_fdatasync(fd));
}

errno_t fd_fdstat_get(fd_t fd, guest_address out) {
    struct descriptor *descriptor;
    errno_t error = descriptor_identify(fd, &descriptor);
    if (error)
        return error;
    struct fdstat fdstat = {
        .filetype = descriptor->filetype,
        .flags = descriptor->flags,
        .rights_base = descriptor->base,
        .rights_inheriting = descriptor->inheriting,
    };
    return errno_of(guest_copy_out(out, &fdstat, sizeof fdstat));
}

errno_t fd_fdstat_set_flags(fd_t fd, uint32_t flags) {
    struct descriptor *descriptor;
    errno_t error = descriptor_identify(fd, &descriptor);
    if (!error)
        error = descriptor_require(fd, RIGHTS_FD_FDSTAT_SET_FLAGS, &descriptor);
    if (error)
        return error;
    uint32_t changed = flags ^ descriptor->flags;
    if (changed & ~(FDFLAGS_APPEND | FDFLAGS_NONBLOCK)) /* Linux would ignore SYNC in silence */
        return ERRNO_INVAL;
    if (changed & FDFLAGS_NONBLOCK) {
        int64_t result = sys_fcntl(fd, F_SETFL, flags & FDFLAGS_NONBLOCK ? O_NONBLOCK : 0);
        if (result < 0)
            return errno_of(result);
    }
    descriptor->flags = flags;
    return ERRNO_SUCCESS;
}

errno_t fd_fdstat_set_rights(fd_t fd, uint64_t base, uint64_t inheriting) {
    struct descriptor *descriptor;
    errno_t error = descriptor_identify(fd, &descriptor);
    if (error)
        return error;
    if (base & ~(uint64_t)descriptor->base || inheriting & ~(uint64_t)descriptor->inheriting)
        return ERRNO_NOTCAPABLE;
    descriptor->dropped |= descriptor->inheriting & ~(rights_t)inheriting;
    descriptor->base = base;
    descriptor->inheriting = inheriting;
    return ERRNO_SUCCESS;
}

/* --- filestat ------------------------------------------------------------------------------- */

/* Of the host's terminal or pipe a guest needs no timestamps: when its user last typed. */
static void blank_stream(struct kernel_stat *stat) {
    if ((stat->st_mode & S_IFMT) == S_IFREG)
        return;
    stat->st_size = 0;
    stat->st_atim = stat->st_mtim = stat->st_ctim = (struct kernel_timespec){0};
}

static errno_t fd_stat(fd_t fd, struct kernel_stat *out, uint8_t *filetype) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_FILESTAT_GET, &descriptor);
    if (error)
        return error;
    int64_t result = sys_fstat(fd, out);
    if (result < 0)
        return errno_of(result);
    if (descriptor->state & DESCRIPTOR_STDIO)
        blank_stream(out);
    *filetype = filetype_of_descriptor(descriptor, out->st_mode);
    return ERRNO_SUCCESS;
}

errno_t fd_filestat_get(fd_t fd, guest_address out) {
    struct kernel_stat stat;
    uint8_t filetype;
    errno_t error = fd_stat(fd, &stat, &filetype);
    return error ? error : filestat_copy_out(out, &stat, filetype);
}

errno_t unstable_fd_filestat_get(fd_t fd, guest_address out) {
    struct kernel_stat stat;
    uint8_t filetype;
    errno_t error = fd_stat(fd, &stat, &filetype);
    return error ? error : unstable_filestat_copy_out(out, &stat, filetype);
}

errno_t fd_filestat_set_size(fd_t fd, uint64_t size) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_FILESTAT_SET_SIZE, &descriptor);
    return error ? error : errno_of(sys_ftruncate(fd, size));
}

errno_t fd_filestat_set_times(fd_t fd, uint64_t atim, uint64_t mtim, uint32_t fstflags) {
    struct descriptor *descriptor;
    struct kernel_timespec times[2];
    errno_t error = filestat_times(atim, mtim, fstflags, times);
    if (!error)
        error = descriptor_require(fd, RIGHTS_FD_FILESTAT_SET_TIMES, &descriptor);
    if (error)
        return error;
    if (descriptor->filetype == FILETYPE_DIRECTORY) /* a preopen may be O_PATH */
        return errno_of(sys_utimensat(fd, "", times, AT_EMPTY_PATH));
    return errno_of(sys_utimensat(fd, NULL, times, 0));
}

/* --- reading and writing -------------------------------------------------------------------- */

static inline errno_t transfer_begin(fd_t fd, rights_t needed, uint32_t count, guest_address out,
                                     struct descriptor **descriptor) {
    errno_t error = descriptor_require(fd, needed, descriptor);
    if (error)
        return error;
    if (count > IOV_MAX)
        return ERRNO_INVAL;
    return guest_check(out, sizeof(uint32_t)) ? ERRNO_FAULT : ERRNO_SUCCESS;
}

static inline errno_t transfer_end(int64_t result, guest_address out) {
    return result < 0 ? errno_of(result) : errno_of(guest_store_u32(out, result));
}

errno_t fd_pread(fd_t fd, guest_address iovs, uint32_t count, uint64_t offset, guest_address out) {
    struct descriptor *descriptor;
    errno_t error = transfer_begin(fd, RIGHTS_FD_READ | RIGHTS_FD_SEEK, count, out, &descriptor);
    return error ? error : transfer_end(guest_preadv(fd, iovs, count, offset), out);
}

errno_t fd_prestat_get(fd_t fd, guest_address out) {
    const struct descriptor *descriptor = descriptor_lookup(fd);
    if (!descriptor || !descriptor->preopen)
        return ERRNO_BADF;
    struct prestat prestat = {.name_length = descriptor->preopen->name_length};
    return errno_of(guest_copy_out(out, &prestat, sizeof prestat));
}

errno_t fd_prestat_dir_name(fd_t fd, guest_address name, uint32_t size) {
    struct descriptor *descriptor;
    errno_t error = descriptor_identify(fd, &descriptor);
    if (error)
        return error;
    const struct preopen *preopen = descriptor->preopen;
    if (!preopen) /* not BADF: that is fd_prestat_get's, by which preopens are counted */
        return ERRNO_NOTDIR;
    if (size < preopen->name_length)
        return ERRNO_NAMETOOLONG;
    return errno_of(guest_copy_out(name, preopen->name, preopen->name_length));
}

errno_t fd_pwrite(fd_t fd, guest_address iovs, uint32_t count, uint64_t offset, guest_address out) {
    struct descriptor *descriptor;
    errno_t error = transfer_begin(fd, RIGHTS_FD_WRITE | RIGHTS_FD_SEEK, count, out, &descriptor);
    return error ? error : transfer_end(guest_pwritev(fd, iovs, count, offset), out);
}

errno_t fd_read(fd_t fd, guest_address iovs, uint32_t count, guest_address out) {
    struct descriptor *descriptor;
    errno_t error = transfer_begin(fd, RIGHTS_FD_READ, count, out, &descriptor);
    return error ? error : transfer_end(guest_readv(fd, iovs, count), out);
}

errno_t fd_write(fd_t fd, guest_address iovs, uint32_t count, guest_address out) {
    struct descriptor *descriptor;
    errno_t error = transfer_begin(fd, RIGHTS_FD_WRITE, count, out, &descriptor);
    if (error)
        return error;
    /* O_APPEND would send pwrite() to the end as well, against POSIX: so the flag is ours, and
     * each write says what it wants. */
    if (descriptor->flags & FDFLAGS_APPEND)
        return transfer_end(guest_pwritev2(fd, iovs, count, -1, RWF_APPEND), out);
    return transfer_end(guest_writev(fd, iovs, count), out);
}

/* --- position, numbers ---------------------------------------------------------------------- */

/* FD_SEEK includes FD_TELL, which is enough to ask where one is. */
static errno_t require_to_seek(fd_t fd, bool tells) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_SEEK, &descriptor);
    return error && tells ? descriptor_require(fd, RIGHTS_FD_TELL, &descriptor) : error;
}

static errno_t seek(fd_t fd, int64_t offset, int32_t whence, guest_address out) {
    errno_t error = require_to_seek(fd, offset == 0 && whence == WHENCE_CUR);
    if (error)
        return error;
    if (guest_check(out, sizeof(uint64_t)))
        return ERRNO_FAULT;
    int64_t result = sys_lseek(fd, offset, whence);
    return result < 0 ? errno_of(result) : errno_of(guest_store_u64(out, result));
}

errno_t fd_renumber(fd_t from, fd_t to) {
    struct descriptor *source, *target;
    errno_t error = descriptor_identify(to, &target);
    if (!error)
        error = descriptor_identify(from, &source);
    if (error || from == to)
        return error;
    int64_t result = sys_dup3(from, to, O_CLOEXEC);
    if (result < 0)
        return errno_of(result);
    /* Looked up again: finding the one may have moved the table that holds the other. */
    descriptors.entries[to] = descriptors.entries[from];
    descriptor_remove(from);
    return errno_of(sys_close(from));
}

errno_t fd_seek(fd_t fd, int64_t offset, uint32_t whence, guest_address out) {
    if (whence > WHENCE_END) /* preview1's numbers are Linux's */
        return ERRNO_INVAL;
    return seek(fd, offset, whence, out);
}

errno_t unstable_fd_seek(fd_t fd, int64_t offset, uint32_t whence, guest_address out) {
    static const uint8_t preview1_whence[] = {
        [UNSTABLE_WHENCE_CUR] = WHENCE_CUR,
        [UNSTABLE_WHENCE_END] = WHENCE_END,
        [UNSTABLE_WHENCE_SET] = WHENCE_SET,
    };
    if (whence >= sizeof preview1_whence)
        return ERRNO_INVAL;
    return fd_seek(fd, offset, preview1_whence[whence], out);
}

errno_t fd_sync(fd_t fd) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_SYNC, &descriptor);
    return error ? error : errno_of(sys_fsync(fd));
}

errno_t fd_tell(fd_t fd, guest_address out) {
    return seek(fd, 0, WHENCE_CUR, out);
}
