/* Opening, metadata and time: the calls whose arguments the core itself must understand. */
#include "core.h"

/* --- opening ---------------------------------------------------------------------------------- */

/* /proc/PID/mem is the memory of a process, writable whatever its pages say; of this one, that is
 * the end of all confinement.  Its name has many spellings, so what was opened decides: nothing
 * else on procfs is a regular file of mode 0600 but a few of root's switches.  And it can be
 * positioned anywhere, while other files refuse what is negative: so most are told by one lseek. */
static int64_t refuse_process_memory(const struct context *c, int64_t host) {
    kernel_stat_t st;
    int64_t statfs[15];
    if (host < 0 || c->table->procfs & PROCFS_ABSENT)
        return host;
    int64_t at = c->table->procfs & PROCFS_TOLD ? SYS(NR_lseek, host, -1, 0, 0, 0, 0) : -1;
    if (at == -EINVAL || at == -ESPIPE || at == 0)
        return host;
    SYS(NR_lseek, host, 0, 0, 0, 0, 0);
    if (SYS(NR_fstat, host, &st, 0, 0, 0, 0) < 0 || st.st_mode != (S_IFREG | 0600) ||
        (SYS(NR_fstatfs, host, statfs, 0, 0, 0, 0) == 0 && statfs[0] != PROC_SUPER_MAGIC))
        return host;
    SYS(NR_close, host, 0, 0, 0, 0, 0);
    return -EACCES;
}

/* What an open gave a shim, checked and numbered.  It inherits what its directory is. */
static int64_t opened(struct context *c, const struct descriptor *dir, int64_t host,
                      uint64_t guest_flags, int crossed) {
    int32_t cloexec = guest_flags & O_CLOEXEC ? DESCRIPTOR_CLOEXEC : 0;
    int32_t flags = cloexec | (dir->flags & DESCRIPTOR_INHERITED);
    return descriptor_install(c, capability_opened(dir, host, crossed), (uint16_t)flags);
}

/* openat2(2) of a shim, with the struct and the path copied once: the kernel gets what was checked.
 * O_NONBLOCK only keeps the open itself from waiting (FIFOs); whether the guest's calls wait is
 * what F_SETFL said. */
BODY(body_openat2) {
    char path[PATH_MAX];
    struct open_how how;
    struct descriptor *dir = descriptor_at(c, a[0].i32);
    if (dir == NULL || a[3].u32 != sizeof how) /* AT_FDCWD is no descriptor of the table */
        return dir ? -EINVAL : -EBADF;
    if (copy_from(c, s, a[2].u32, &how, sizeof how))
        return -EFAULT;
    int64_t r = copy_string(c, s, a[1].u32, path, sizeof path);
    if (r >= 0 && (r = capability_open_how(&how, path)) == 0)
        r = capability_open_flags(c, dir, how.flags);
    if (r < 0)
        return r;
    uint64_t flags = how.flags, anywhere = how.resolve, crossed = 0;
    capability_tame_open(&how.flags, &how.mode);
    how.resolve |= RESOLVE_NO_XDEV; /* at first: a mount may be new, and a procfs */
    how.flags = HOST_OPEN_FLAGS(how.flags | O_CLOEXEC);
    while ((r = SYS(NR_openat2, dir->host, path, &how, sizeof how, 0, 0)) == -EXDEV && !crossed++)
        how.resolve = anywhere;
    return opened(c, dir, r, flags, crossed != 0);
}

/* openat(2) of a shim that has to walk where the kernel has no openat2: one component, never
 * through a link. */
BODY(body_openat) {
    char path[PATH_MAX];
    struct descriptor *dir = descriptor_at(c, a[0].i32);
    uint64_t flags = a[2].u32, host_flags = flags | O_CLOEXEC | GUEST_O_NOFOLLOW, mode = a[3].u32;
    int64_t r = copy_string(c, s, a[1].u32, path, sizeof path);
    if (r < 0 || dir == NULL)
        return r < 0 ? r : -EBADF;
    capability_tame_open(&host_flags, &mode);
    r = capability_component(path);
    if (r == 0)
        r = capability_open_flags(c, dir, flags);
    if (r == 0)
        r = SYS(NR_openat, dir->host, path, HOST_OPEN_FLAGS(host_flags), mode, 0, 0);
    return opened(c, dir, r, flags, 1);
}

/* openat(2) of a program.  No procfs is reached without leaving the mount where the path begins,
 * as long as neither root nor working directory can be on one: that is asked of the kernel first,
 * and costs nothing where it holds.  It is not asked for a while where it has just failed. */
BODY(program_openat) {
    const char *path;
    int32_t dir = a[0].i32 == AT_FDCWD ? c->cwd : host_of(c, a[0].i32);
    uint64_t flags = HOST_OPEN_FLAGS(a[2].u32 | O_CLOEXEC), mode = a[3].u32;
    struct open_how how = {flags, flags & (O_CREAT | O_TMPFILE_BIT) ? mode : 0, RESOLVE_NO_XDEV};
    int64_t r = take_string(c, s, a[1].u32, NULL, &path, 0), stays = -EXDEV;
    if (LIKELY(dir == AT_FDCWD && c->table->procfs & PROCFS_ELSEWHERE && c->crossing-- <= 0)) {
        r = stays = WAIT(c, NR_openat2, dir, path, &how, sizeof how, 0, 0);
        c->crossing = stays == -EXDEV ? 16 : 0;
    }
    if (UNLIKELY(stays == -EXDEV || stays == -EINVAL || stays == -ENOSYS))
        r = WAIT(c, NR_openat, dir, path, flags, mode, 0, 0);
    if (UNLIKELY(stays < 0 || !(c->table->procfs & PROCFS_ELSEWHERE))) /* also: not any more */
        r = refuse_process_memory(c, r);
    return descriptor_install_made(c, r, a[2].u32);
}

BODY(program_openat2) {
    const char *path;
    struct open_how how;
    int64_t r = take_string(c, s, a[1].u32, NULL, &path, 0);
    if (a[3].u32 != sizeof how)
        return -EINVAL;
    if (copy_from(c, s, a[2].u32, &how, sizeof how))
        return -EFAULT;
    uint64_t flags = how.flags;
    how.flags = HOST_OPEN_FLAGS(flags | O_CLOEXEC);
    r = WAIT(c, NR_openat2, a[0].i32 == AT_FDCWD ? c->cwd : host_of(c, a[0].i32), path, &how,
             sizeof how, 0, 0);
    return descriptor_install_made(c, refuse_process_memory(c, r), flags);
}

/* readlinkat(2) of a program, to whom /proc/self/fd/N is its own descriptor: Python knows which. */
BODY(body_readlinkat);
BODY(program_readlinkat) {
    static const char own[] = "/proc/self/fd/";
    char path[sizeof own - 1];
    uint32_t same = 0;
    if (copy_from(c, s, a[1].u32, path, sizeof path) == 0)
        while (same < sizeof path && path[same] == own[same])
            same++;
    return same == sizeof path ? c->host(c, HOST_readlinkat, a) : body_readlinkat(c, s, a, 0);
}

#if defined(__aarch64__)
/* The kernel's struct stat in the guest's form, which on x86-64 is the kernel's own. */
int64_t stat_to_guest(uint8_t *to, const kernel_stat_t *k) {
    struct guest_stat g = {
        .st_dev = k->st_dev,
        .st_ino = k->st_ino,
        .st_nlink = k->st_nlink,
        .st_mode = k->st_mode,
        .st_uid = k->st_uid,
        .st_gid = k->st_gid,
        .st_rdev = k->st_rdev,
        .st_size = k->st_size,
        .st_blksize = k->st_blksize,
        .st_blocks = k->st_blocks,
        .times = {k->times[0], k->times[1], k->times[2]},
    };
    return to ? wali_copy(to, &g, sizeof g) : -EFAULT;
}
#endif

/* --- time ------------------------------------------------------------------------------------- */

/* The two clocks that everybody asks for are a read in the vDSO; it may not write guest memory,
 * where a fault would be fatal. */
BODY(body_clock_gettime) {
    int32_t clock = a[0].i32;
    struct timespec t;
    uint8_t *out = space_buffer(c, s, a[1].u32, sizeof t);
    if (capable && a[0].u32 > CLOCKS_OF_ONES_OWN)
        return -EINVAL;
    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
        return SYS(NR_clock_gettime, clock, out, 0, 0, 0, 0);
    wasmtime.clock_gettime(clock, &t);
    return wali_copy(out, &t, sizeof t);
}
