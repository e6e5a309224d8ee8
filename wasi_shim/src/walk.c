/* RESOLVE_BENEATH by hand, for kernels and sandboxes without openat2.
 *
 * The directories that were entered are kept open on a stack: `..` pops it and never asks the
 * kernel, which would answer with wherever the directory has been moved meanwhile.  A link is read
 * and its text put before what is left to walk.  Every other step is one component that is not
 * followed, so whatever is renamed under our feet, each directory was once a child of the previous
 * one, and the first is the guest's own.
 */
#include "errno.h"
#include "memory.h"
#include "resolve.h"

enum {
    DEPTH_MAX = 256,          /* directories held open at once */
    CHANGES_MAX = 4,          /* of one name, while it is looked at */
    TEXT_SIZE = 2 * PATH_MAX, /* what is left to walk, links' texts included */
};

struct walk {
    int32_t stack[DEPTH_MAX]; /* stack[0] is the guest's */
    uint32_t depth;
    uint32_t links;
    uint32_t text; /* where in `buffer` the rest begins; it ends with a NUL at the end */
    char buffer[TEXT_SIZE];
};

struct component {
    char name[NAME_MAX + 1];
    bool slash; /* one follows: the component must be a directory */
    bool last;
};

static bool prepend(struct walk *walk, const char *text, uint32_t size) {
    if (size > walk->text)
        return false;
    walk->text -= size;
    memcpy(walk->buffer + walk->text, text, size);
    return true;
}

static struct walk *begin(fd_t dirfd, const char *path) {
    static struct walk *walk; /* kept; most guests never need one */
    if (!walk)
        walk = memory_allocate(sizeof *walk);
    if (!walk)
        return NULL;
    walk->stack[0] = dirfd;
    walk->depth = 1;
    walk->links = 0;
    walk->text = TEXT_SIZE;
    prepend(walk, path, strlen(path) + 1);
    return walk;
}

static int64_t end(struct walk *walk, int64_t result) {
    while (walk->depth > 1)
        sys_close(walk->stack[--walk->depth]);
    return result;
}

static int32_t current(const struct walk *walk) {
    return walk->stack[walk->depth - 1];
}

/* 1 and the next component, 0 at the end, or -errno.  What is left never begins with a slash. */
static int64_t next(struct walk *walk, struct component *out) {
    const char *rest = walk->buffer + walk->text;
    const char *stop = rest;
    while (*stop && *stop != '/')
        stop++;
    uint32_t length = stop - rest;
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(out->name, rest, length);
    out->name[length] = '\0';
    out->slash = *stop == '/';
    while (*stop == '/')
        stop++;
    out->last = !*stop;
    walk->text = stop - walk->buffer;
    return length > 0;
}

/* Puts the link's target before the rest: -EINVAL when the component is no link. */
static int64_t expand(struct walk *walk, const struct component *component) {
    char target[PATH_MAX];
    int64_t length = at_most(sizeof target,
                             sys_readlinkat(current(walk), component->name, target, sizeof target));
    if (length < 0)
        return length;
    if (++walk->links > MAXSYMLINKS)
        return -ELOOP;
    if (length == 0)
        return -ENOENT;
    if (target[0] == '/')
        return -EPERM;
    /* The slash after the link belongs to its target as well, and a slash at the target's own end
     * demands a directory just like one in the path: both are text to walk, nothing more. */
    if (component->slash && !prepend(walk, "/", 1))
        return -ENAMETOOLONG;
    return prepend(walk, target, length) ? 0 : -ENAMETOOLONG;
}

static bool is_of_type(int64_t result, const struct kernel_stat *stat, uint32_t type) {
    return result >= 0 && (stat->st_mode & S_IFMT) == type;
}

/* O_PATH opens a link itself rather than refuse it. */
static int64_t open_unless_link(const struct walk *walk, const char *name, int32_t flags,
                                uint32_t mode) {
    int64_t fd = sys_openat(current(walk), name, flags | O_NOFOLLOW, mode);
    if (fd < 0 || (flags & (O_PATH | O_DIRECTORY)) != O_PATH)
        return fd;
    struct kernel_stat stat;
    if (!is_of_type(sys_fstat(fd, &stat), &stat, S_IFLNK))
        return fd;
    sys_close(fd);
    return -ELOOP;
}

/* Was what could not be opened a link, and is none any more?  To O_NOFOLLOW only links answer
 * ELOOP, but to O_DIRECTORY they and files answer the same. */
static bool has_changed(const struct walk *walk, const char *name, int64_t error) {
    if (error == -ELOOP)
        return true;
    struct kernel_stat stat;
    int64_t result = sys_newfstatat(current(walk), name, &stat, AT_SYMLINK_NOFOLLOW);
    return is_of_type(result, &stat, S_IFDIR);
}

/* The component opened; or its target put before the rest, when it is a link. */
static int64_t open_or_expand(struct walk *walk, const struct component *component, int32_t flags,
                              uint32_t mode, bool *expanded) {
    *expanded = false;
    for (int attempt = 0;; attempt++) {
        int64_t fd = open_unless_link(walk, component->name, flags, mode);
        if (fd != -ELOOP && fd != -ENOTDIR) /* what links answer to O_NOFOLLOW and O_DIRECTORY */
            return fd;
        int64_t result = expand(walk, component);
        *expanded = result == 0;
        if (result != -EINVAL)
            return result;
        if (attempt == CHANGES_MAX || !has_changed(walk, component->name, fd))
            return fd;
    }
}

static int64_t enter(struct walk *walk, const struct component *component) {
    bool expanded;
    int64_t fd = open_or_expand(walk, component, OPEN_PARENT, 0, &expanded);
    if (fd < 0 || expanded)
        return fd;
    if (walk->depth == DEPTH_MAX) {
        sys_close(fd);
        return -ENAMETOOLONG;
    }
    walk->stack[walk->depth++] = fd;
    return 0;
}

static int64_t leave(struct walk *walk) {
    if (walk->depth == 1)
        return -EPERM;
    sys_close(walk->stack[--walk->depth]);
    return 0;
}

static int64_t step(struct walk *walk, const struct component *component) {
    if (name_is_dot(component->name))
        return 0;
    return name_is_dot_dot(component->name) ? leave(walk) : enter(walk, component);
}

static bool is_final(const struct component *component) {
    return component->last && !component->slash && !name_is_dot(component->name) &&
           !name_is_dot_dot(component->name);
}

/* O_CREAT makes files, and a slash behind a name says that it is none.  Linux does not even look.
 */
static bool is_no_file(const struct component *component, int32_t flags) {
    return flags & O_CREAT && component->last && component->slash &&
           !name_is_dot(component->name) && !name_is_dot_dot(component->name);
}

int64_t walk_open(fd_t dirfd, const char *path, int32_t flags, uint32_t mode) {
    const int32_t exclusive = O_CREAT | O_EXCL;
    bool follow = !(flags & O_NOFOLLOW) && (flags & exclusive) != exclusive;
    struct walk *walk = begin(dirfd, path);
    if (!walk)
        return -ENOMEM;
    for (;;) {
        struct component component;
        int64_t result = next(walk, &component);
        if (result == 0) /* the path named the directory we are in */
            return end(walk, sys_openat(current(walk), ".", flags | O_NOFOLLOW, mode));
        if (result > 0 && is_no_file(&component, flags))
            result = -EISDIR;
        bool expanded = false;
        bool final = result > 0 && is_final(&component);
        if (final && follow)
            result = open_or_expand(walk, &component, flags, mode, &expanded);
        else if (final)
            result = sys_openat(current(walk), component.name, flags | O_NOFOLLOW, mode);
        else if (result > 0)
            result = step(walk, &component);
        if (result < 0 || (final && !expanded))
            return end(walk, result);
    }
}
