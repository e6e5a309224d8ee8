#include "descriptors.h"

#include "errno.h"
#include "exports.h"
#include "memory.h"

enum { INITIAL_SIZE = 16, MAXIMUM_SIZE = 1 << 20 };

static struct descriptor initial_entries[INITIAL_SIZE];

struct descriptors descriptors = {.entries = initial_entries, .size = INITIAL_SIZE};

/* --- types ---------------------------------------------------------------------------------- */

uint8_t filetype_of_mode(uint32_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG:
        return FILETYPE_REGULAR_FILE;
    case S_IFDIR:
        return FILETYPE_DIRECTORY;
    case S_IFCHR:
        return FILETYPE_CHARACTER_DEVICE;
    case S_IFBLK:
        return FILETYPE_BLOCK_DEVICE;
    case S_IFLNK:
        return FILETYPE_SYMBOLIC_LINK;
    case S_IFSOCK:
        return FILETYPE_SOCKET_STREAM;
    default: /* FIFOs: WASI has no word for them */
        return FILETYPE_UNKNOWN;
    }
}

uint8_t filetype_of_descriptor(const struct descriptor *descriptor, uint32_t mode) {
    uint8_t filetype = filetype_of_mode(mode);
    if (filetype == FILETYPE_SOCKET_STREAM && descriptor->state & DESCRIPTOR_DATAGRAM)
        return FILETYPE_SOCKET_DGRAM;
    return filetype;
}

rights_t rights_of_filetype(uint8_t filetype) {
    switch (filetype) {
    case FILETYPE_REGULAR_FILE:
    case FILETYPE_BLOCK_DEVICE:
    case FILETYPE_CHARACTER_DEVICE:
        return RIGHTS_FILE;
    case FILETYPE_DIRECTORY:
        return RIGHTS_DIRECTORY;
    case FILETYPE_SOCKET_DGRAM:
        return RIGHTS_SOCKET & ~RIGHTS_SOCK_ACCEPT;
    case FILETYPE_SOCKET_STREAM:
        return RIGHTS_SOCKET;
    default:
        return RIGHTS_STREAM;
    }
}

static bool is_socket(const struct descriptor *descriptor) {
    return descriptor->filetype == FILETYPE_SOCKET_STREAM ||
           descriptor->filetype == FILETYPE_SOCKET_DGRAM;
}

static bool is_terminal(fd_t fd) {
    uint8_t termios[64]; /* the kernel writes at most 60 bytes */
    return sys_ioctl(fd, TCGETS, termios) >= 0;
}

rights_t rights_of_file(fd_t fd, uint8_t filetype) {
    if (filetype == FILETYPE_CHARACTER_DEVICE && is_terminal(fd))
        return RIGHTS_STREAM;
    return rights_of_filetype(filetype);
}

/* --- the table ------------------------------------------------------------------------------ */

static bool grow_beyond(fd_t fd) {
    if (fd >= MAXIMUM_SIZE)
        return false;
    uint32_t size = descriptors.size;
    while (size <= fd)
        size *= 2;
    struct descriptor *entries = memory_allocate(size * sizeof *entries);
    if (!entries)
        return false;
    memcpy(entries, descriptors.entries, descriptors.size * sizeof *entries);
    descriptors.entries = entries; /* the old ones are lost: at most as much again, in all */
    descriptors.size = size;
    return true;
}

errno_t descriptor_add(fd_t fd, struct descriptor descriptor) {
    if (fd >= descriptors.size && !grow_beyond(fd))
        return ERRNO_NOMEM;
    descriptor.state |= DESCRIPTOR_OPEN;
    descriptors.entries[fd] = descriptor;
    return ERRNO_SUCCESS;
}

void descriptor_remove(fd_t fd) {
    if (fd < descriptors.size)
        descriptors.entries[fd] = (struct descriptor){0};
}

/* --- what the host put there ---------------------------------------------------------------- */

static rights_t rights_of_access(int64_t file_flags) {
    if (file_flags & O_PATH)
        return RIGHTS_ALL & ~(RIGHTS_FD_READ | RIGHTS_FD_WRITE);
    switch (file_flags & O_ACCMODE) {
    case O_RDONLY:
        return RIGHTS_ALL & ~RIGHTS_FD_WRITE;
    case O_WRONLY:
        return RIGHTS_ALL & ~RIGHTS_FD_READ;
    default:
        return RIGHTS_ALL;
    }
}

static uint8_t fdflags_of(int64_t file_flags) {
    return (file_flags & O_APPEND ? FDFLAGS_APPEND : 0) |
           (file_flags & O_NONBLOCK ? FDFLAGS_NONBLOCK : 0);
}

static errno_t identify(fd_t fd, struct descriptor *descriptor) {
    struct kernel_stat stat;
    int64_t file_flags = sys_fstat(fd, &stat);
    if (file_flags >= 0)
        file_flags = sys_fcntl(fd, F_GETFL, 0);
    if (file_flags < 0) {
        descriptor_remove(fd); /* a standard stream that the guest was not given */
        return errno_of(file_flags);
    }
    descriptor->filetype = filetype_of_descriptor(descriptor, stat.st_mode);
    descriptor->flags = fdflags_of(file_flags);
    descriptor->base &= rights_of_file(fd, descriptor->filetype) & rights_of_access(file_flags);
    if (is_socket(descriptor))
        descriptor->inheriting = RIGHTS_SOCKET; /* of what is accepted from it */
    descriptor->state &= ~DESCRIPTOR_UNTYPED;
    return ERRNO_SUCCESS;
}

/* The host may hand over descriptors without announcing them: a listening socket, say. */
static struct descriptor *adopt(fd_t fd) {
    struct kernel_stat stat;
    if (sys_fstat(fd, &stat) < 0)
        return NULL;
    struct descriptor found = {.base = RIGHTS_ALL, .state = DESCRIPTOR_UNTYPED};
    if (filetype_of_mode(stat.st_mode) == FILETYPE_DIRECTORY)
        found.inheriting = RIGHTS_ALL;
    return descriptor_add(fd, found) ? NULL : &descriptors.entries[fd];
}

struct descriptor *descriptor_lookup(fd_t fd) {
    if (fd < descriptors.size && descriptors.entries[fd].state & DESCRIPTOR_OPEN)
        return &descriptors.entries[fd];
    return adopt(fd);
}

errno_t descriptor_identify(fd_t fd, struct descriptor **out) {
    struct descriptor *descriptor = descriptor_lookup(fd);
    if (!descriptor)
        return ERRNO_BADF;
    *out = descriptor;
    return descriptor->state & DESCRIPTOR_UNTYPED ? identify(fd, descriptor) : ERRNO_SUCCESS;
}

/* --- rights --------------------------------------------------------------------------------- */

static uint32_t refused_writes;

errno_t refuse_write(void) {
    refused_writes++;
    return ERRNO_PERM;
}

/* For the host: how often a read-only preopen was in the way, so that it can say which grant is
 * missing. */
uint32_t wasi_refused_writes(void) {
    return refused_writes;
}

errno_t descriptor_refusal(const struct descriptor *descriptor, rights_t needed) {
    rights_t missing = needed & ~descriptor->base;
    if (missing & (RIGHTS_FD_READ | RIGHTS_FD_WRITE))
        return ERRNO_BADF;
    if (missing & RIGHTS_WRITING && descriptor->state & DESCRIPTOR_READ_ONLY)
        return refuse_write();
    if (!(missing & ~rights_of_filetype(descriptor->filetype)))
        return ERRNO_NOTCAPABLE; /* it could have them, and has not */
    if (descriptor->filetype == FILETYPE_DIRECTORY)
        return ERRNO_BADF;
    if (missing & RIGHTS_DIRECTORY_ONLY)
        return ERRNO_NOTDIR;
    if (missing & (RIGHTS_SOCK_ACCEPT | RIGHTS_SOCK_SHUTDOWN))
        return is_socket(descriptor) ? ERRNO_NOTSUP : ERRNO_NOTSOCK;
    if (missing & RIGHTS_FD_FILESTAT_SET_SIZE)
        return ERRNO_INVAL;
    return ERRNO_SPIPE;
}

errno_t descriptor_require_slowly(fd_t fd, rights_t needed, struct descriptor **out) {
    errno_t error = descriptor_identify(fd, out);
    if (error)
        return error;
    return ((*out)->base & needed) == needed ? ERRNO_SUCCESS : descriptor_refusal(*out, needed);
}
