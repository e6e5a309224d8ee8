/* RESOLVE_BENEATH by hand, for kernels and sandboxes without openat2.
 *
 * The directories that were entered are kept open on a stack: `..` pops it and never asks the
 * kernel, which would answer with wherever the directory has been moved meanwhile.  A link is read
 * and its text put before what is left to walk.  Every other step is one component that is not
 * followed, so whatever is renamed under our feet, each directory was once a child of the previous
 * one, and the first is the guest's own.
 */
#include "memory.h"
#include "resolve.h"

enum {
    DEPTH_MAX = 256,          /* directories held open at once */
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

static struct walk *the_walk; /* most guests never need one */

static bool prepend(struct walk *walk, const char *text, uint32_t size) {
    if (size > walk->text)
        return false;
    walk->text -= size;
    memcpy(walk->buffer + walk->text, text, size);
    return true;
}

static int64_t begin(fd_t dirfd, const char *path) {
    if (!the_walk)
        the_walk = memory_allocate(sizeof *the_walk);
    if (!the_walk)
        return -ENOMEM;
    the_walk->stack[0] = dirfd;
    the_walk->depth = 1;
    the_walk->links = 0;
    the_walk->text = TEXT_SIZE;
    prepend(the_walk, path, strlen(path) + 1);
    return 0;
}

static int64_t end(struct walk *walk, int64_t result) {
    while (walk->depth > 1)
        sys_close(walk->stack[--walk->depth]);
    return result;
}

static int32_t current(const struct walk *walk) { return walk->stack[walk->depth - 1]; }

/* 1 and the next component, 0 at the end, or -errno. */
static int64_t next(struct walk *walk, struct component *out) {
    const char *rest = walk->buffer + walk->text;
    while (*rest == '/')
        rest++;
    const char *end = rest;
    while (*end && *end != '/')
        end++;
    uint32_t length = end - rest;
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(out->name, rest, length);
    out->name[length] = '\0';
    out->slash = *end == '/';
    while (*end == '/')
        end++;
    out->last = !*end;
    walk->text = end - walk->buffer;
    return length > 0;
}

/* Puts the link's target before the rest: -EINVAL when the component is no link. */
static int64_t expand(struct walk *walk, const struct component *component) {
    char target[PATH_MAX];
    int64_t length = sys_readlinkat(current(walk), component->name, target, sizeof target);
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

static int64_t enter(struct walk *walk, const struct component *component) {
    int64_t fd = sys_openat(current(walk), component->name, OPEN_PARENT | O_NOFOLLOW, 0);
    if (fd == -ENOTDIR) {
        int64_t expanded = expand(walk, component);
        return expanded == -EINVAL ? -ENOTDIR : expanded;
    }
    if (fd < 0)
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

static bool is_name(const char *name, const char *other) {
    return memcmp(name, other, strlen(other) + 1) == 0;
}

static int64_t step(struct walk *walk, const struct component *component) {
    if (is_name(component->name, "."))
        return 0;
    if (is_name(component->name, ".."))
        return leave(walk);
    return enter(walk, component);
}

static bool is_dots(const char *name) { return is_name(name, ".") || is_name(name, ".."); }

int64_t walk_open(fd_t dirfd, const char *path, int32_t flags, uint32_t mode) {
    bool follow = !(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    struct component component;
    int64_t result = begin(dirfd, path);
    while (result >= 0) {
        struct walk *walk = the_walk;
        result = next(walk, &component);
        if (result < 0)
            break;
        if (result == 0) /* the path named the directory we are in */
            return end(walk, sys_openat(current(walk), ".", flags | O_NOFOLLOW, mode));
        if (!component.last || component.slash || is_dots(component.name)) {
            result = step(walk, &component);
            continue;
        }
        result = follow ? expand(walk, &component) : -EINVAL;
        if (result == -EINVAL || result == -ENOENT) /* no link, or nothing: to be made, perhaps */
            return end(walk, sys_openat(current(walk), component.name, flags | O_NOFOLLOW, mode));
    }
    return the_walk ? end(the_walk, result) : result;
}
