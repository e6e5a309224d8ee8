#include "resolve.h"

#include "descriptors.h"
#include "errno.h"
#include "memory.h"

/* --- paths ---------------------------------------------------------------------------------- */

errno_t path_copy_in(char path[PATH_MAX], guest_address address, uint32_t length) {
    if (length == 0)
        return ERRNO_NOENT;
    if (length >= PATH_MAX)
        return ERRNO_NAMETOOLONG;
    if (guest_copy_in(path, address, length))
        return ERRNO_FAULT;
    path[length] = '\0';
    if (strlen(path) != length) /* a NUL: what was checked would not be what is opened */
        return ERRNO_INVAL;
    return path[0] == '/' ? ERRNO_PERM : ERRNO_SUCCESS;
}

bool path_is_component(const char *path) {
    for (const char *c = path; *c; c++)
        if (*c == '/')
            return false;
    return !name_is_dot_dot(path);
}

/* --- openat2 -------------------------------------------------------------------------------- */

static enum { UNKNOWN, PRESENT, ABSENT } openat2_state;

void resolve_configure(bool without_openat2) {
    openat2_state = without_openat2 ? ABSENT : UNKNOWN;
}

static int64_t openat2_beneath(fd_t dirfd, const char *path, int32_t flags, uint32_t mode) {
    struct open_how how = {
        .flags = (uint32_t)flags,
        .mode = flags & O_CREAT ? mode : 0, /* openat2 refuses a mode without a use */
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    return sys_openat2(dirfd, path, &how, sizeof how);
}

/* Old kernels say ENOSYS.  Some containers' seccomp filters, older than the call, say EPERM, which
 * an honest openat2 may say too: of an immutable file, but not of a directory that is open. */
static bool openat2_is_absent(fd_t dirfd, int64_t error) {
    if (error == -ENOSYS)
        openat2_state = ABSENT;
    else if (error == -EPERM && openat2_state == UNKNOWN) {
        int64_t probe = openat2_beneath(dirfd, ".", OPEN_PATH, 0);
        openat2_state = probe == -EPERM ? ABSENT : PRESENT;
        if (probe >= 0)
            sys_close(probe);
    }
    return openat2_state == ABSENT;
}

int64_t resolve_open(fd_t dirfd, const char *path, int32_t flags, uint32_t mode) {
    /* The kernel gives up with EAGAIN when any rename on the machine raced with a `..`.  Somebody
     * could see to that for ever; the walk needs no luck. */
    for (int attempt = 0; attempt < 4 && openat2_state != ABSENT; attempt++) {
        int64_t result = openat2_beneath(dirfd, path, flags, mode);
        if (result >= 0) {
            openat2_state = PRESENT;
            return result;
        }
        if (result == -EXDEV)
            return -EPERM;
        if (result != -EAGAIN && !openat2_is_absent(dirfd, result))
            return result;
    }
    return walk_open(dirfd, path, flags, mode);
}

int64_t resolve_stat(fd_t dirfd, const char *path, bool follow, struct kernel_stat *out) {
    if (path_is_component(path)) {
        int64_t result = sys_newfstatat(dirfd, path, out, AT_SYMLINK_NOFOLLOW);
        if (result < 0 || !follow || (out->st_mode & S_IFMT) != S_IFLNK)
            return result;
    }
    int64_t fd = resolve_open(dirfd, path, OPEN_PATH | (follow ? 0 : O_NOFOLLOW), 0);
    if (fd < 0)
        return fd;
    int64_t result = sys_fstat(fd, out);
    sys_close(fd);
    return result;
}

/* --- parents -------------------------------------------------------------------------------- */

/* Cuts trailing slashes off, and returns the last component within `path`. */
static char *last_component(char *path, bool *slash) {
    size_t end = strlen(path);
    *slash = path[end - 1] == '/'; /* the path is not empty, and does not begin with a slash */
    while (path[end - 1] == '/')
        path[--end] = '\0';
    while (end > 0 && path[end - 1] != '/')
        end--;
    return path + end;
}

static int64_t resolve_parent(struct parent *parent) {
    char *path = parent->path;
    parent->name = last_component(path, &parent->slash);
    parent->is_dot = name_is_dot(parent->name) || name_is_dot_dot(parent->name);
    if (parent->is_dot)
        return resolve_open(parent->fd, path, OPEN_PARENT, 0);
    if (parent->name == path)
        return parent->fd;
    parent->name[-1] = '\0';
    return name_is_dot(path) ? parent->fd : resolve_open(parent->fd, path, OPEN_PARENT, 0);
}

errno_t parent_open(struct parent *parent, fd_t fd, rights_t needed, guest_address path,
                    uint32_t length) {
    struct descriptor *descriptor;
    errno_t error = descriptor_require(fd, needed, &descriptor);
    if (!error)
        error = path_copy_in(parent->path, path, length);
    if (error)
        return error;
    parent->fd = parent->base = fd;
    int64_t result = resolve_parent(parent);
    parent->owned = result >= 0 && result != parent->fd;
    parent->fd = result;
    return errno_of(result);
}

errno_t parent_close(const struct parent *parent, int64_t result) {
    if (parent->owned)
        sys_close(parent->fd);
    return errno_of(result);
}

static int64_t parent_mode(const struct parent *parent) {
    struct kernel_stat stat;
    int64_t result = sys_newfstatat(parent->fd, parent->name, &stat, AT_SYMLINK_NOFOLLOW);
    return result < 0 ? result : stat.st_mode & S_IFMT;
}

int64_t parent_names_directory(const struct parent *parent) {
    int64_t mode = parent_mode(parent);
    if (mode < 0)
        return mode;
    return mode == S_IFDIR ? 0 : -ENOTDIR;
}

int64_t parent_leads_to_directory(struct parent *parent) {
    if (parent_mode(parent) != S_IFLNK)
        return parent_names_directory(parent);
    if (parent->name != parent->path)
        parent->name[-1] = '/';
    int64_t opened = resolve_open(parent->base, parent->path, OPEN_PARENT, 0);
    if (opened >= 0)
        sys_close(opened);
    return opened < 0 ? opened : 0;
}
