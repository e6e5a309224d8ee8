/* fd_readdir: a cookie is the kernel's own position after an entry, and nothing is kept between
 * calls.  So any cookie works at any time, and a listing from 0 always sees the directory as it
 * is. */
#include "descriptors.h"
#include "errno.h"
#include "memory.h"
#include "resolve.h"

struct kernel_dirent {
    uint64_t ino;
    int64_t next;
    uint16_t size;
    uint8_t type;
    char name[];
};

struct listing {
    fd_t fd;
    guest_address at;
    uint32_t left;
};

/* A preopen's descriptor may be O_PATH: good to resolve beneath, not to read. */
static int64_t make_readable(fd_t fd) {
    int64_t opened = resolve_open(fd, ".", OPEN_ALWAYS | O_RDONLY | O_DIRECTORY, 0);
    if (opened < 0)
        return opened;
    int64_t result = sys_dup3(opened, fd, O_CLOEXEC);
    sys_close(opened);
    return result;
}

static int64_t rewind_to(fd_t fd, uint64_t cookie) {
    int64_t result = sys_lseek(fd, cookie, SEEK_SET);
    if (result != -EBADF)
        return result;
    result = make_readable(fd);
    return result < 0 ? result : sys_lseek(fd, cookie, SEEK_SET);
}

static uint8_t type_of(const struct listing *listing, const struct kernel_dirent *entry) {
    if (entry->type != DT_UNKNOWN)
        return filetype_of_mode((uint32_t)entry->type << DT_SHIFT);
    struct kernel_stat stat; /* some file systems leave it to stat() */
    if (sys_newfstatat(listing->fd, entry->name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
        return FILETYPE_UNKNOWN;
    return filetype_of_mode(stat.st_mode);
}

/* A directory's descriptor is its own root: `..` leads nowhere from it, and to show the inode of
 * what is above would tell something about the outside. */
static uint64_t inode_of(const struct listing *listing, const struct kernel_dirent *entry) {
    if (!name_is_dot_dot(entry->name))
        return entry->ino;
    struct kernel_stat stat;
    return sys_fstat(listing->fd, &stat) < 0 ? 0 : stat.st_ino;
}

/* Copies one entry out, or as much of it as there is room for: that is how WASI says "more". */
static int64_t put(struct listing *listing, const struct kernel_dirent *entry) {
    struct {
        struct dirent header;
        char name[NAME_MAX];
    } out;
    uint32_t length = strlen(entry->name);
    if (length > NAME_MAX)
        return -EOVERFLOW;
    out.header = (struct dirent){
        .next = entry->next,
        .ino = inode_of(listing, entry),
        .name_length = length,
        .type = type_of(listing, entry),
    };
    memcpy(out.name, entry->name, length);
    uint32_t size = sizeof out.header + length;
    if (size > listing->left)
        size = listing->left;
    int64_t result = guest_copy_out(listing->at, &out, size);
    listing->at += size;
    listing->left -= size;
    return result;
}

static int64_t list(struct listing *listing) {
    _Alignas(struct kernel_dirent) char chunk[4096];
    while (listing->left > 0) {
        int64_t size = sys_getdents64(listing->fd, chunk, sizeof chunk);
        if (size == -ENOENT) /* it was removed: POSIX wants an empty one */
            return 0;
        if (size <= 0)
            return size;
        for (int64_t at = 0; at < size && listing->left > 0;) {
            const struct kernel_dirent *entry = (const void *)(chunk + at);
            int64_t result = put(listing, entry);
            if (result < 0)
                return result;
            at += entry->size;
        }
    }
    return 0;
}

EXPORT(fd_readdir)
errno_t fd_readdir(fd_t fd, guest_address buffer, uint32_t size, uint64_t cookie,
                   guest_address out) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_READDIR, &descriptor);
    if (error)
        return error;
    if (guest_check(out, sizeof(uint32_t)) || guest_check(buffer, size))
        return ERRNO_FAULT;
    struct listing listing = {.fd = fd, .at = buffer, .left = size};
    /* The end, on every file system.  To read there first and from 0 then makes ext4 find nothing
     * at all: its readdir begins where the first one began, unless it has moved since. */
    if (cookie >= INT64_MAX)
        return errno_of(guest_store_u32(out, 0));
    int64_t result = rewind_to(fd, cookie);
    if (result == -EINVAL) /* no position of this directory: beyond its end */
        return errno_of(guest_store_u32(out, 0));
    if (result >= 0)
        result = list(&listing);
    return result < 0 ? errno_of(result) : errno_of(guest_store_u32(out, size - listing.left));
}
