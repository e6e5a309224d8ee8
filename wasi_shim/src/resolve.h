/* Paths: always beneath the descriptor that the guest named, which need not be a preopen.
 *
 * One openat2() does the work where it exists: the kernel resolves `..` and links on real
 * directories, without races, and refuses to leave.  What has no openat2 form (mkdir, unlink,
 * rename ...) opens the parent that way and then acts on one component, which is never followed.
 * So no path ever reaches another call, and nothing here compares or cleans strings.
 */
#ifndef WASI_SHIM_RESOLVE_H
#define WASI_SHIM_RESOLVE_H

#include <stdbool.h>

#include "linux.h"
#include "preview1.h"
#include "rights.h"
#include "wali.h"

enum {
    OPEN_ALWAYS = O_CLOEXEC | O_NOCTTY | O_NONBLOCK, /* NONBLOCK: a FIFO must not hang the open */
    OPEN_PATH = O_PATH | O_CLOEXEC,
    OPEN_PARENT = O_PATH | O_CLOEXEC | O_DIRECTORY,
};

/* Copies a path out of the guest and refuses what is no relative path: empty, absolute, too long
 * or with a NUL in it. */
errno_t path_copy_in(char path[PATH_MAX], guest_address address, uint32_t length);

static inline bool name_is_dot(const char *name) {
    return name[0] == '.' && !name[1];
}

static inline bool name_is_dot_dot(const char *name) {
    return name[0] == '.' && name[1] == '.' && !name[2];
}

/* A path that is one component and not `..`: safe to hand to the calls that do not follow it. */
bool path_is_component(const char *path);

/* A descriptor, or -errno: -EPERM for a path that leaves `dirfd`. */
int64_t resolve_open(fd_t dirfd, const char *path, int32_t flags, uint32_t mode);

/* fstat() of what the path names. */
int64_t resolve_stat(fd_t dirfd, const char *path, bool follow, struct kernel_stat *out);

/* The directory that holds the last component, and that component. */
struct parent {
    int32_t fd;
    fd_t base;   /* what the guest named */
    bool owned;  /* fd was opened for this, rather than named by the guest */
    bool slash;  /* the path ended in a slash: it must name a directory */
    bool is_dot; /* it ended in `.` or `..`: fd is the directory itself, and there is no name */
    char *name;
    char path[PATH_MAX];
};

/* Checks `needed` on `fd`, copies the path in and resolves all but the last component. */
errno_t parent_open(struct parent *parent, fd_t fd, rights_t needed, guest_address path,
                    uint32_t length);

/* Turns the result of what was done there into WASI's errno. */
errno_t parent_close(const struct parent *parent, int64_t result);

/* 0 when the name is a directory, else -ENOTDIR or why that cannot be said. */
int64_t parent_names_directory(const struct parent *parent);

/* The same of `name/`, which follows a link. */
int64_t parent_leads_to_directory(struct parent *parent);

/* The same as openat2 with RESOLVE_BENEATH, one component at a time (walk.c). */
int64_t walk_open(fd_t dirfd, const char *path, int32_t flags, uint32_t mode);

/* Whether to look for openat2, or to do without it in any case. */
void resolve_configure(bool without_openat2);

#endif
