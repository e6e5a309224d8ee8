/* Operations on names. */
#include "descriptors.h"
#include "errno.h"
#include "exports.h"
#include "filestat.h"
#include "resolve.h"

enum { NEW_FILE = 0666, NEW_DIRECTORY = 0777 }; /* before the host's umask */

errno_t path_create_directory(fd_t fd, guest_address path, uint32_t length) {
    struct parent parent;
    errno_t error = parent_open(&parent, fd, RIGHTS_PATH_CREATE_DIRECTORY, path, length);
    if (error)
        return error;
    int64_t result = parent.is_dot ? -EEXIST : sys_mkdirat(parent.fd, parent.name, NEW_DIRECTORY);
    return parent_close(&parent, result);
}

/* --- filestat ------------------------------------------------------------------------------- */

static errno_t path_stat(fd_t fd, uint32_t flags, guest_address path, uint32_t length,
                         struct kernel_stat *out) {
    char name[PATH_MAX];
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_PATH_FILESTAT_GET, &descriptor);
    if (!error)
        error = path_copy_in(name, path, length);
    if (error)
        return error;
    if (flags & ~LOOKUPFLAGS_SYMLINK_FOLLOW)
        return ERRNO_INVAL;
    return errno_of(resolve_stat(fd, name, flags & LOOKUPFLAGS_SYMLINK_FOLLOW, out));
}

errno_t path_filestat_get(fd_t fd, uint32_t flags, guest_address path, uint32_t length,
                          guest_address out) {
    struct kernel_stat stat;
    errno_t error = path_stat(fd, flags, path, length, &stat);
    return error ? error : filestat_copy_out(out, &stat, filetype_of_mode(stat.st_mode));
}

errno_t unstable_path_filestat_get(fd_t fd, uint32_t flags, guest_address path, uint32_t length,
                                   guest_address out) {
    struct kernel_stat stat;
    errno_t error = path_stat(fd, flags, path, length, &stat);
    return error ? error : unstable_filestat_copy_out(out, &stat, filetype_of_mode(stat.st_mode));
}

static int64_t set_times(fd_t fd, const char *path, bool follow,
                         const struct kernel_timespec times[2]) {
    if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) {
        struct kernel_stat stat; /* Linux would not even see whether there is such a file */
        return resolve_stat(fd, path, follow, &stat);
    }
    if (!follow && path_is_component(path))
        return sys_utimensat(fd, path, times, AT_SYMLINK_NOFOLLOW);
    int64_t opened = resolve_open(fd, path, OPEN_PATH | (follow ? 0 : O_NOFOLLOW), 0);
    if (opened < 0)
        return opened;
    int64_t result = sys_utimensat(opened, "", times, AT_EMPTY_PATH);
    sys_close(opened);
    return result;
}

errno_t path_filestat_set_times(fd_t fd, uint32_t flags, guest_address path, uint32_t length,
                                uint64_t atim, uint64_t mtim, uint32_t fstflags) {
    char name[PATH_MAX];
    struct descriptor *descriptor;
    struct kernel_timespec times[2];
    errno_t error = filestat_times(atim, mtim, fstflags, times);
    if (!error)
        error = descriptor_require(fd, RIGHTS_PATH_FILESTAT_SET_TIMES, &descriptor);
    if (!error)
        error = path_copy_in(name, path, length);
    if (error)
        return error;
    if (flags & ~LOOKUPFLAGS_SYMLINK_FOLLOW)
        return ERRNO_INVAL;
    return errno_of(set_times(fd, name, flags & LOOKUPFLAGS_SYMLINK_FOLLOW, times));
}

/* Two descriptors are looked at before any file is. */
static errno_t require_both(fd_t old_fd, rights_t old_needed, fd_t new_fd, rights_t new_needed) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(old_fd, old_needed, &descriptor);
    return error ? error : descriptor_require(new_fd, new_needed, &descriptor);
}

/* --- links ---------------------------------------------------------------------------------- */

/* What making `parent`'s name anew must answer without trying, or 0.  `name/` can only ever be a
 * directory, and neither kind of link is one. */
static int64_t new_link_error(struct parent *parent) {
    if (parent->is_dot)
        return -EEXIST;
    if (!parent->slash)
        return 0;
    int64_t result = parent_leads_to_directory(parent);
    return result ? result : -EEXIST;
}

/* As on Linux, the old name must be there before the new one matters, and that it is a directory's
 * is what matters last: any directory will do to be told, and none is ever linked. */
static int64_t link(const struct parent *from, struct parent *to) {
    bool directory = from->is_dot || from->slash;
    int64_t result = new_link_error(to);
    if (result == -EEXIST && !directory) {
        struct kernel_stat stat;
        int64_t old = sys_newfstatat(from->fd, from->name, &stat, AT_SYMLINK_NOFOLLOW);
        return old < 0 ? old : result;
    }
    if (result)
        return result;
    if (directory)
        return sys_linkat(to->fd, ".", to->fd, to->name, 0);
    return sys_linkat(from->fd, from->name, to->fd, to->name, 0);
}

errno_t path_link(fd_t old_fd, uint32_t old_flags, guest_address old_path, uint32_t old_length,
                  fd_t new_fd, guest_address new_path, uint32_t new_length) {
    struct parent from, to;
    errno_t error = require_both(old_fd, RIGHTS_PATH_LINK_SOURCE, new_fd, RIGHTS_PATH_LINK_TARGET);
    if (error)
        return error;
    if (old_flags) /* to follow first and link then is two steps, and a race between them */
        return ERRNO_INVAL;
    error = parent_open(&from, old_fd, RIGHTS_PATH_LINK_SOURCE, old_path, old_length);
    if (error)
        return error;
    if (from.slash && !from.is_dot)
        error = errno_of(parent_names_directory(&from));
    if (!error)
        error = parent_open(&to, new_fd, RIGHTS_PATH_LINK_TARGET, new_path, new_length);
    if (!error)
        error = parent_close(&to, link(&from, &to));
    parent_close(&from, 0);
    return error;
}

/* --- open ----------------------------------------------------------------------------------- */

struct opening {
    uint32_t oflags;
    uint32_t fdflags;
    uint64_t base;
    uint64_t inheriting;
    bool follow;
};

/* The rights on the directory that the flags call for. */
static rights_t rights_to_open(const struct opening *opening) {
    rights_t needed = RIGHTS_PATH_OPEN;
    if (opening->oflags & OFLAGS_CREAT)
        needed |= RIGHTS_PATH_CREATE_FILE;
    if (opening->oflags & OFLAGS_TRUNC) /* truncates without FD_WRITE being asked for, too */
        needed |= RIGHTS_PATH_FILESTAT_SET_SIZE;
    return needed;
}

static bool is_valid_opening(const struct opening *opening) {
    /* POSIX leaves open what these mean for a directory.  Before 6.4 Linux made a file for CREAT,
     * and then said that it is no directory. */
    const uint32_t for_files = OFLAGS_CREAT | OFLAGS_EXCL | OFLAGS_TRUNC;
    if (opening->oflags & OFLAGS_DIRECTORY && opening->oflags & for_files)
        return false;
    return !(opening->oflags & ~OFLAGS_ALL) && !(opening->fdflags & ~FDFLAGS_ALL);
}

/* The rights that are asked for, by the flags as well. */
static uint64_t rights_asked(const struct opening *opening) {
    uint64_t asked = opening->base | opening->inheriting;
    if (opening->fdflags & FDFLAGS_DSYNC)
        asked |= RIGHTS_FD_DATASYNC;
    if (opening->fdflags & (FDFLAGS_RSYNC | FDFLAGS_SYNC))
        asked |= RIGHTS_FD_SYNC;
    return asked;
}

static errno_t refuse_opening(const struct descriptor *directory, const struct opening *opening) {
    uint64_t asked = rights_asked(opening);
    if (asked & directory->dropped)
        return ERRNO_NOTCAPABLE;
    if (opening->base & RIGHTS_FD_WRITE && directory->state & DESCRIPTOR_READ_ONLY)
        return refuse_write();
    if (descriptors.strict_rights && asked & ~(uint64_t)directory->inheriting)
        return ERRNO_NOTCAPABLE;
    return ERRNO_SUCCESS;
}

static int32_t flags_to_open(const struct opening *opening) {
    int32_t flags = OPEN_ALWAYS | (opening->follow ? 0 : O_NOFOLLOW);
    if (opening->base & RIGHTS_FD_WRITE)
        flags |= opening->base & RIGHTS_FD_READ ? O_RDWR : O_WRONLY;
    if (opening->oflags & OFLAGS_CREAT)
        flags |= O_CREAT;
    if (opening->oflags & OFLAGS_DIRECTORY)
        flags |= O_DIRECTORY;
    if (opening->oflags & OFLAGS_EXCL)
        flags |= O_EXCL;
    if (opening->oflags & OFLAGS_TRUNC)
        flags |= O_TRUNC;
    if (opening->fdflags & FDFLAGS_DSYNC)
        flags |= O_DSYNC;
    if (opening->fdflags & (FDFLAGS_RSYNC | FDFLAGS_SYNC))
        flags |= O_SYNC;
    return flags;
}

static int64_t type_opened(fd_t fd, const struct opening *opening, uint8_t *out) {
    if (opening->oflags & OFLAGS_DIRECTORY) {
        *out = FILETYPE_DIRECTORY;
        return 0;
    }
    struct kernel_stat stat;
    int64_t result = sys_fstat(fd, &stat);
    if (result >= 0)
        *out = filetype_of_mode(stat.st_mode);
    return result;
}

static void grant_rights(struct descriptor *opened, const struct descriptor *directory,
                         const struct opening *opening) {
    const rights_t access = RIGHTS_FD_READ | RIGHTS_FD_WRITE;
    if (descriptors.strict_rights) {
        opened->base = opening->base;
        opened->inheriting = opening->inheriting;
    } else {
        opened->base = directory->inheriting & (opening->base | ~access);
        opened->inheriting = directory->inheriting;
    }
    opened->dropped = directory->dropped;
    opened->state = directory->state & DESCRIPTOR_READ_ONLY;
}

static errno_t record_opened(fd_t fd, fd_t directory, const struct opening *opening) {
    struct descriptor opened = {.flags = opening->fdflags};
    int64_t result = type_opened(fd, opening, &opened.filetype);
    if (result >= 0 && opening->fdflags & FDFLAGS_NONBLOCK)
        result = sys_fcntl(fd, F_SETFL, O_NONBLOCK);
    if (result < 0)
        return errno_of(result);
    grant_rights(&opened, &descriptors.entries[directory], opening);
    opened.base &= rights_of_file(fd, opened.filetype);
    if (opened.filetype == FILETYPE_DIRECTORY)
        opened.flags = 0;
    else
        opened.inheriting = 0;
    return descriptor_add(fd, opened);
}

errno_t path_open(fd_t fd, uint32_t lookup_flags, guest_address path, uint32_t length,
                  uint32_t oflags, uint64_t base, uint64_t inheriting, uint32_t fdflags,
                  guest_address out) {
    char name[PATH_MAX];
    struct descriptor *directory;
    struct opening opening = {
        .oflags = oflags,
        .fdflags = fdflags,
        .base = base,
        .inheriting = inheriting,
        .follow = lookup_flags & LOOKUPFLAGS_SYMLINK_FOLLOW,
    };
    errno_t error = descriptor_require(fd, rights_to_open(&opening), &directory);
    if (!error)
        error = refuse_opening(directory, &opening);
    if (error)
        return error;
    if (lookup_flags & ~LOOKUPFLAGS_SYMLINK_FOLLOW || !is_valid_opening(&opening))
        return ERRNO_INVAL;
    error = path_copy_in(name, path, length);
    if (error)
        return error;
    if (guest_check(out, sizeof(fd_t)))
        return ERRNO_FAULT;
    int64_t opened = resolve_open(fd, name, flags_to_open(&opening), NEW_FILE);
    if (opened < 0)
        return errno_of(opened);
    error = record_opened(opened, fd, &opening);
    if (error) {
        sys_close(opened);
        return error;
    }
    return errno_of(guest_store_u32(out, opened));
}

/* --- the rest ------------------------------------------------------------------------------- */

errno_t path_readlink(fd_t fd, guest_address path, uint32_t length, guest_address buffer,
                      uint32_t size, guest_address out) {
    char target[PATH_MAX];
    struct parent parent;
    errno_t error = parent_open(&parent, fd, RIGHTS_PATH_READLINK, path, length);
    if (error)
        return error;
    int64_t result = -EINVAL; /* a directory, no link */
    if (parent.slash && !parent.is_dot) {
        int64_t directory = parent_leads_to_directory(&parent);
        result = directory ? directory : -EINVAL;
    } else if (!parent.is_dot)
        result =
            at_most(sizeof target, sys_readlinkat(parent.fd, parent.name, target, sizeof target));
    error = parent_close(&parent, result);
    if (error)
        return error;
    uint32_t used = result < size ? result : size;
    if (guest_copy_out(buffer, target, used))
        return ERRNO_FAULT;
    return errno_of(guest_store_u32(out, used));
}

errno_t path_remove_directory(fd_t fd, guest_address path, uint32_t length) {
    struct parent parent;
    errno_t error = parent_open(&parent, fd, RIGHTS_PATH_REMOVE_DIRECTORY, path, length);
    if (error)
        return error;
    int64_t result = parent.is_dot ? -EINVAL : sys_unlinkat(parent.fd, parent.name, AT_REMOVEDIR);
    return parent_close(&parent, result);
}

static int64_t rename(const struct parent *from, const struct parent *to) {
    if (from->is_dot || to->is_dot)
        return -EBUSY;
    int64_t result = from->slash || to->slash ? parent_names_directory(from) : 0;
    return result ? result : sys_renameat2(from->fd, from->name, to->fd, to->name, 0);
}

errno_t path_rename(fd_t old_fd, guest_address old_path, uint32_t old_length, fd_t new_fd,
                    guest_address new_path, uint32_t new_length) {
    struct parent from, to;
    errno_t error =
        require_both(old_fd, RIGHTS_PATH_RENAME_SOURCE, new_fd, RIGHTS_PATH_RENAME_TARGET);
    if (!error)
        error = parent_open(&from, old_fd, RIGHTS_PATH_RENAME_SOURCE, old_path, old_length);
    if (error)
        return error;
    error = parent_open(&to, new_fd, RIGHTS_PATH_RENAME_TARGET, new_path, new_length);
    if (!error)
        error = parent_close(&to, rename(&from, &to));
    parent_close(&from, 0);
    return error;
}

/* The target is text, and may well lead out: following it is what is refused.  Not so an absolute
 * one, which could only be meant for other programs, who would follow it. */
errno_t path_symlink(guest_address target, uint32_t target_length, fd_t fd, guest_address path,
                     uint32_t length) {
    char text[PATH_MAX];
    struct parent parent;
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_PATH_SYMLINK, &descriptor);
    if (!error)
        error = path_copy_in(text, target, target_length);
    if (!error)
        error = parent_open(&parent, fd, RIGHTS_PATH_SYMLINK, path, length);
    if (error)
        return error;
    int64_t result = new_link_error(&parent);
    if (!result)
        result = sys_symlinkat(text, parent.fd, parent.name);
    return parent_close(&parent, result);
}

errno_t path_unlink_file(fd_t fd, guest_address path, uint32_t length) {
    struct parent parent;
    errno_t error = parent_open(&parent, fd, RIGHTS_PATH_UNLINK_FILE, path, length);
    if (error)
        return error;
    int64_t result;
    if (parent.is_dot)
        result = -EISDIR;
    else if (parent.slash)
        result = (result = parent_names_directory(&parent)) ? result : -EISDIR;
    else
        result = sys_unlinkat(parent.fd, parent.name, 0);
    return parent_close(&parent, result);
}
