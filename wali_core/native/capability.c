/* Capability mode: what the core itself refuses to a shim, whatever the shim asks for.
 *
 * A shim that has been taken over makes these calls with any arguments it likes.  It must still
 * hold only what lies beneath the directories that the policy granted, and read-only what was
 * granted read-only.  The decisions are in this file, but for the closed lists of fcntl and ioctl
 * (descriptors.c), O_NOFOLLOW on openat (files.c) and the table's kinds `zero` and `exchange`.
 * tests/escape/ links the core with permissive copies and sees every attack succeed that is refused
 * here.
 *
 * Escapes answer EPERM, which WASI's tests accept and wasmtime uses; a write through a read-only
 * grant answers EROFS.
 */
#include "core.h"

/* One component: a name in the directory itself.  With links not followed (below), the kernel then
 * has no way to leave it. */
int64_t capability_component(const char *path) {
    if (path[0] == '.' && path[1] == '.' && path[2] == 0)
        return -EPERM;
    for (; *path; path++)
        if (*path == '/')
            return -EPERM;
    return 0;
}

/* openat2 takes whole paths, since the kernel promises to keep them beneath.  It would answer EXDEV
 * to an absolute path: refusing it here says the same thing earlier. */
int64_t capability_open_how(const struct open_how *how, const char *path) {
    const uint64_t beneath = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    return path[0] == '/' || (how->resolve & beneath) != beneath ? -EPERM : 0;
}

/* What may be asked of an open in this directory. */
int64_t capability_open_flags(struct context *c, const struct descriptor *dir, uint64_t flags) {
    const uint64_t writes = O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE_BIT;
    return flags & writes ? capability_modify(c, dir) : 0;
}

/* A link is text, and following it is checked when it is followed.  An absolute target can only be
 * meant for programs outside. */
int64_t capability_link_target(const char *target) {
    return target[0] == '/' ? -EPERM : 0;
}

/* A call that changes the directory or the file behind this descriptor. */
int64_t capability_modify(struct context *c, const struct descriptor *d) {
    if (!(d->flags & DESCRIPTOR_READ_ONLY))
        return 0;
    c->refused_write = 1;
    return -EROFS;
}

int32_t capability_no_follow(int32_t flags) {
    return flags | AT_SYMLINK_NOFOLLOW;
}

/* No open may wait (a FIFO's, a device's), nor make a terminal ours, nor a file that runs as
 * somebody else.  O_PATH opens nothing, and goes with no other flag.  Whether the guest's calls on
 * it wait is what F_SETFL said. */
void capability_tame_open(uint64_t *flags, uint64_t *mode) {
    *flags |= *flags & O_PATH ? 0 : O_NONBLOCK | O_NOCTTY;
    *mode &= 0777;
}

/* A procfs that happens to be mounted beneath a granted directory, maybe since it was granted,
 * holds /proc/self/mem: the engine's own memory, writable.  What was opened decides, not its name.
 */
int64_t capability_opened(const struct descriptor *dir, int64_t host, int crossed) {
    if (host < 0 || LIKELY(!crossed && !(dir->flags & DESCRIPTOR_MAY_REACH_PROC)))
        return host;
    int64_t statfs[15]; /* struct statfs: f_type comes first, 120 bytes */
    int64_t r = SYS(NR_fstatfs, host, statfs, 0, 0, 0, 0);
    if (r < 0 || statfs[0] == PROC_SUPER_MAGIC) {
        SYS(NR_close, host, 0, 0, 0, 0, 0);
        return r < 0 ? r : -EACCES;
    }
    return host;
}
