/* fd_readdir: a cookie is the kernel's own position after an entry, and nothing is kept between
 * calls.  So any cookie works at any time, and a listing from 0 always sees the directory as it
 * is. */
#include "descriptors.h"
#include "errno.h"
#include "exports.h"
#include "memory.h"
#include "resolve.h"

struct kernel_dirent {
    uint64_t ino;
    int64_t next;
    uint16_t size;
    uint8_t type;
    char name[];
};

enum {
    NAME_AT = offsetof(struct kernel_dirent, name),
    CHUNK_SIZE = 4096,                           /* what is asked of the kernel at once */
    LONGEST = (NAME_AT + NAME_MAX + 1 + 7) & ~7, /* the kernel's entries are whole words of 8 */
    BATCH_SIZE = CHUNK_SIZE,                     /* what is given to the guest at once */
};

struct listing {
    fd_t fd;
    guest_address at;
    uint32_t left;
    uint32_t used; /* of the batch, which is on its way to `at` */
    char batch[BATCH_SIZE];
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
    if (name_is_dot_dot(entry->name)) /* not to be looked at, and no other could it be */
        return FILETYPE_DIRECTORY;
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

/* The entry, or NULL if the kernel's words make no sense. */
static const struct kernel_dirent *entry_at(const char *chunk, int64_t at, int64_t end) {
    const struct kernel_dirent *entry = (const void *)(chunk + at);
    if (end - at < NAME_AT + 1 || entry->size <= NAME_AT || entry->size > end - at ||
        entry->size % 8)
        return NULL;
    return entry;
}

/* -1 if it does not end.  The NUL is in the last 8 bytes: everything before them is name. */
static int32_t name_length(const struct kernel_dirent *entry) {
    int32_t room = entry->size - NAME_AT;
    for (int32_t length = room > 8 ? room - 8 : 0; length < room; length++)
        if (!entry->name[length])
            return length;
    return -1;
}

/* Gives the guest what was collected, or as much of it as there is room for: an entry that is cut
 * is how WASI says "more". */
static int64_t flush(struct listing *listing) {
    uint32_t size = listing->used < listing->left ? listing->used : listing->left;
    int64_t result = guest_copy_out(listing->at, listing->batch, size);
    listing->at += size;
    listing->left -= size;
    listing->used = 0;
    return result;
}

static int64_t put(struct listing *listing, const struct kernel_dirent *entry) {
    int32_t length = name_length(entry);
    if (length < 0 || length > NAME_MAX)
        return -EIO;
    struct dirent header = {
        .next = entry->next,
        .ino = inode_of(listing, entry),
        .name_length = length,
        .type = type_of(listing, entry),
    };
    uint32_t size = sizeof header + length;
    if (size > BATCH_SIZE - listing->used) {
        int64_t result = flush(listing);
        if (result < 0)
            return result;
    }
    char *to = listing->batch + listing->used;
    memcpy(to, &header, sizeof header);
    memcpy(to + sizeof header, entry->name, length);
    listing->used += size;
    return 0;
}

/* No more than the guest has room for, about: what is read in vain has to be read again. */
static uint32_t chunk_size(const struct listing *listing) {
    if (listing->left >= CHUNK_SIZE)
        return CHUNK_SIZE;
    return listing->left > LONGEST ? listing->left : LONGEST;
}

static int64_t list(struct listing *listing) {
    _Alignas(struct kernel_dirent) char chunk[CHUNK_SIZE];
    while (listing->left > 0) {
        int64_t end = at_most(CHUNK_SIZE, sys_getdents64(listing->fd, chunk, chunk_size(listing)));
        if (end == -ENOENT) /* it was removed: POSIX wants an empty one */
            return 0;
        if (end <= 0)
            return end;
        for (int64_t at = 0; at < end && listing->used < listing->left;) {
            const struct kernel_dirent *entry = entry_at(chunk, at, end);
            int64_t result = entry ? put(listing, entry) : -EIO;
            if (result < 0)
                return result;
            at += entry->size;
        }
        int64_t result = flush(listing);
        if (result < 0)
            return result;
    }
    return 0;
}

errno_t fd_readdir(fd_t fd, guest_address buffer, uint32_t size, uint64_t cookie,
                   guest_address out) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, RIGHTS_FD_READDIR, &descriptor);
    if (error)
        return error;
    if (guest_check(out, sizeof(uint32_t)) || guest_check(buffer, size))
        return ERRNO_FAULT;
    struct listing listing;
    listing.fd = fd, listing.at = buffer, listing.left = size, listing.used = 0;
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
