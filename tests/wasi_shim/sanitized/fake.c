#define DEFINES_CALLS /* what the shim makes again is a macro: here are the functions */
#include "fake.h"

uint64_t chance = 1;
struct file files[FILES];
uint8_t *guest;
bool hostile, was_hostile;
uint32_t system_calls;
jmp_buf left;

static uint64_t now = 1000000000; /* nanoseconds; it passes as it is looked at */

/* What a guest's world is like. */
static bool without_openat2;
static uint32_t most_are; /* of one type: a deep tree, or nothing but links */
static uint32_t errors;   /* one call in so many fails */

void fake_reset(void) {
    memset(files, 0, sizeof files);
    without_openat2 = one_in(4);
    most_are = (uint32_t)ONE_OF(0, 0, 0, S_IFDIR, S_IFLNK, S_IFREG);
    errors = (uint32_t)ONE_OF(3, 10, 10, 10000);
}

uint64_t any_number(void) {
    uint64_t near = one_in(4) ? anything() : (uint64_t)1 << below(64);
    return near + below(5) - 2;
}

static void check(bool holds, const char *what) {
    if (!holds)
        fail(what);
}

/* --- results -------------------------------------------------------------------------------- */

static void count(void) {
    if (++system_calls < MOST_CALLS)
        return;
    /* The host would stop a guest that does not end for what its kernel says. */
    if (was_hostile)
        longjmp(left, STOPPED);
    fail("one call of WASI's makes system calls without an end");
}

static int64_t result(int64_t honest) {
    count();
    if (!hostile || !one_in(12))
        return honest;
    was_hostile = true;
    return (int64_t)any_number();
}

static bool errs(void) {
    return one_in(errors);
}

static int64_t error(void) {
    return -(int64_t)(one_in(3) ? 1 + below(133)
                                : ONE_OF(EINTR, EAGAIN, ENOENT, ENOTDIR, ELOOP, EACCES, EIO, EPERM,
                                         EXDEV, EMFILE, EINVAL, EBADF));
}

/* What the kernel leaves in a buffer; under a hostile one, anything. */
static void fill(void *buffer, size_t size) {
    uint8_t *bytes = buffer;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)anything();
}

static void maybe_spoil(void *buffer, size_t size) {
    if (!hostile || !one_in(12))
        return;
    was_hostile = true;
    if (one_in(2))
        fill(buffer, size);
    else
        ((uint8_t *)buffer)[below((uint32_t)size)] = (uint8_t)anything();
}

/* --- descriptors ---------------------------------------------------------------------------- */

static struct file *file(int32_t fd) {
    return fd >= 0 && fd < FILES && files[fd].open ? &files[fd] : NULL;
}

static int64_t open_file(uint32_t mode, int32_t flags) {
    for (int32_t fd = 0; fd < FILES; fd++) {
        if (files[fd].open)
            continue;
        files[fd] = (struct file){.open = true, .flags = flags, .mode = mode};
        return fd;
    }
    return -EMFILE;
}

static uint32_t any_mode(void) {
    if (most_are && !one_in(300))
        return most_are | 0755;
    return (uint32_t)ONE_OF(S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK,
                            S_IFSOCK, 0010000) |
           below(01000);
}

/* --- paths ---------------------------------------------------------------------------------- */

static void check_text(const char *path) {
    check(path != NULL, "a path is NULL");
    check(strlen(path) < PATH_MAX, "a path is too long"); /* ASan says whether it ends at all */
}

static void check_component(const char *path) {
    check_text(path);
    check(path[0] != '\0' || was_hostile, "a component is empty");
    check(!strchr(path, '/') || was_hostile, "a component has a slash");
    check(strcmp(path, "..") != 0 || was_hostile, "a component is ..");
}

/* A directory to resolve a component in, or why not. */
static int64_t directory_error(int32_t dirfd) {
    check(dirfd >= 0 || was_hostile, "a directory's descriptor is negative");
    const struct file *directory = file(dirfd);
    if (!directory)
        return -EBADF;
    return (directory->mode & S_IFMT) == S_IFDIR ? 0 : -ENOTDIR;
}

static int64_t at(int32_t dirfd, const char *path) {
    check_component(path);
    int64_t wrong = directory_error(dirfd);
    return wrong ? wrong : errs() ? error() : 0;
}

static int64_t opened(int32_t flags) {
    uint32_t mode = any_mode();
    if (flags & O_DIRECTORY && (mode & S_IFMT) != S_IFDIR)
        return most_are || one_in(3) ? -ENOTDIR : open_file(S_IFDIR | 0755, flags);
    if ((mode & S_IFMT) == S_IFDIR && flags & (O_ACCMODE | O_CREAT) && !(flags & O_PATH))
        return -EISDIR;
    if ((mode & S_IFMT) == S_IFLNK && !(flags & O_PATH))
        return -ELOOP;
    if ((mode & S_IFMT) == S_IFSOCK && !(flags & O_PATH))
        return -ENXIO;
    return open_file(mode, flags);
}

int64_t sys_openat2(int32_t dirfd, const char *path, const struct open_how *how, uint32_t size) {
    check(size == sizeof *how, "openat2: the size");
    check(how->resolve == (RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS), "openat2: resolve");
    check(how->flags & O_CLOEXEC, "openat2: O_CLOEXEC");
    check(!how->mode || how->flags & O_CREAT, "openat2: a mode for nothing");
    check_text(path);
    check(path[0] && path[0] != '/', "openat2: the path");
    if (without_openat2)
        return result(one_in(2) ? -ENOSYS : -EPERM);
    int64_t wrong = directory_error(dirfd);
    if (!wrong && errs())
        wrong = error();
    if (wrong == -ENOSYS)
        wrong = -ELOOP; /* an openat2 that is there does not say so */
    return result(wrong ? wrong : opened((int32_t)how->flags));
}

int64_t sys_openat(int32_t dirfd, const char *path, int32_t flags, uint32_t mode) {
    (void)mode;
    check(flags & O_CLOEXEC, "openat: O_CLOEXEC");
    check(flags & O_NOFOLLOW, "openat: O_NOFOLLOW");
    int64_t wrong = at(dirfd, path);
    return result(wrong ? wrong : opened(flags));
}

int64_t sys_close(int32_t fd) {
    struct file *closed = file(fd);
    check(closed || was_hostile || fd < 0 || fd >= FILES || !files[fd].open, "close");
    if (!closed)
        return result(-EBADF);
    closed->open = false; /* whatever it answers */
    return result(one_in(20) ? one_in(2) ? -EIO : -EINTR : 0);
}

static void stat_of(uint32_t mode, struct kernel_stat *out) {
    fill(out, sizeof *out);
    out->st_mode = mode;
    out->st_nlink = one_in(8) ? any_number() : 1;
    out->st_size = below(10000);
    struct kernel_timespec *times[] = {&out->st_atim, &out->st_mtim, &out->st_ctim};
    for (int i = 0; i < 3; i++) {
        if (!one_in(8)) /* a file system may have years like these */
            times[i]->tv_sec = below(2000000000);
        times[i]->tv_nsec = below(1000000000);
    }
    maybe_spoil(out, sizeof *out);
}

int64_t sys_fstat(int32_t fd, struct kernel_stat *out) {
    const struct file *found = file(fd);
    if (!found)
        return result(-EBADF);
    stat_of(found->mode, out);
    return result(one_in(40) ? error() : 0);
}

int64_t sys_newfstatat(int32_t dirfd, const char *path, struct kernel_stat *out, int32_t flags) {
    check(flags == AT_SYMLINK_NOFOLLOW, "newfstatat: flags");
    int64_t wrong = at(dirfd, path);
    if (!wrong)
        stat_of(any_mode(), out);
    return result(wrong);
}

int64_t sys_utimensat(int32_t dirfd, const char *path, const struct kernel_timespec *times,
                      int32_t flags) {
    for (int i = 0; i < 2; i++)
        check((times[i].tv_nsec >= 0 && times[i].tv_nsec < 1000000000) ||
                  times[i].tv_nsec == UTIME_NOW || times[i].tv_nsec == UTIME_OMIT,
              "utimensat: the times");
    if (path && *path) {
        check(flags == AT_SYMLINK_NOFOLLOW, "utimensat: flags for a name");
        return result(at(dirfd, path));
    }
    check(flags == (path ? AT_EMPTY_PATH : 0), "utimensat: flags for a descriptor");
    return result(!file(dirfd) ? -EBADF : errs() ? error() : 0);
}

int64_t sys_mkdirat(int32_t dirfd, const char *path, uint32_t mode) {
    check(mode <= 0777, "mkdirat: the mode");
    return result(at(dirfd, path));
}

int64_t sys_unlinkat(int32_t dirfd, const char *path, int32_t flags) {
    check((flags & ~AT_REMOVEDIR) == 0, "unlinkat: flags");
    return result(at(dirfd, path));
}

int64_t sys_renameat2(int32_t olddirfd, const char *oldpath, int32_t newdirfd, const char *newpath,
                      uint32_t flags) {
    check(flags == 0, "renameat2: flags");
    int64_t wrong = at(olddirfd, oldpath);
    int64_t also_wrong = at(newdirfd, newpath);
    return result(wrong ? wrong : also_wrong);
}

int64_t sys_linkat(int32_t olddirfd, const char *oldpath, int32_t newdirfd, const char *newpath,
                   int32_t flags) {
    check(flags == 0, "linkat: flags");
    int64_t wrong = at(olddirfd, oldpath);
    int64_t also_wrong = at(newdirfd, newpath);
    return result(wrong ? wrong : also_wrong);
}

int64_t sys_symlinkat(const char *target, int32_t dirfd, const char *path) {
    check_text(target);
    check(target[0] && target[0] != '/', "symlinkat: the target");
    return result(at(dirfd, path));
}

int64_t sys_readlinkat(int32_t dirfd, const char *path, char *buf, uint32_t size) {
    static const char *const targets[] = {"a",     "a/b", "..", "../..", "./",  "/",
                                          "/etc/", "a//", ".",  "",      "l/l", "b/../"};
    int64_t wrong = at(dirfd, path);
    if (wrong || (most_are != S_IFLNK && one_in(4)))
        return result(wrong ? wrong : -EINVAL);
    uint32_t length = 0;
    if (one_in(10)) {
        length = one_in(2) ? size : below(size);
        for (uint32_t i = 0, period = (uint32_t)ONE_OF(1, 2, 100, 5000); i < length; i++)
            buf[i] = i % period == period - 1 ? '/' : 'l';
    } else if (most_are == S_IFLNK && !one_in(50))
        buf[length++] = 'l';
    else {
        const char *target = targets[below(sizeof targets / sizeof *targets)];
        length = strlen(target) < size ? strlen(target) : size;
        memcpy(buf, target, length);
    }
    maybe_spoil(buf, size);
    return result(length);
}

/* --- directories ---------------------------------------------------------------------------- */

enum { ENTRIES = 500 }; /* of every directory */

int64_t sys_getdents64(int32_t fd, void *buf, uint32_t size) {
    struct file *directory = file(fd);
    if (!directory || directory->flags & O_PATH)
        return result(-EBADF);
    if ((directory->mode & S_IFMT) != S_IFDIR)
        return result(-ENOTDIR);
    if (errs())
        return result(error());
    uint32_t used = 0;
    while (directory->listed < ENTRIES) {
        char name[NAME_MAX + 1] = ".";
        uint32_t length = one_in(6) ? 1 + below(NAME_MAX) : 1 + below(12);
        if (directory->listed == 1)
            memcpy(name, "..", 3);
        else if (directory->listed)
            memset(name, 'n', length);
        uint64_t header[2] = {any_number(), directory->listed + 1};
        uint16_t whole = (uint16_t)((19 + strlen(name) + 1 + 7) & ~7u);
        if (whole > size - used)
            break;
        char *entry = (char *)buf + used;
        memset(entry, 0, whole);
        memcpy(entry, header, sizeof header);
        memcpy(entry + 16, &whole, sizeof whole);
        entry[18] = (char)ONE_OF(0, 4, 8, 10, 1, 12, 99);
        memcpy(entry + 19, name, strlen(name) + 1);
        used += whole;
        directory->listed++;
        if (one_in(100))
            break;
    }
    maybe_spoil(buf, size);
    return result(used);
}

int64_t sys_lseek(int32_t fd, int64_t offset, int32_t whence) {
    check(whence >= 0 && whence <= 2, "lseek: whence");
    struct file *found = file(fd);
    if (!found || found->flags & O_PATH)
        return result(-EBADF);
    if (errs() || (whence == 0 && offset < 0))
        return result(one_in(2) ? -EINVAL : -ESPIPE);
    if ((found->mode & S_IFMT) == S_IFDIR)
        found->listed = offset < ENTRIES ? (uint32_t)offset : ENTRIES;
    return result(whence == 0 ? offset : below(10000));
}

/* --- files ---------------------------------------------------------------------------------- */

static int64_t plain(int32_t fd) {
    return result(!file(fd) ? -EBADF : errs() ? error() : 0);
}

int64_t sys_ftruncate(int32_t fd, int64_t length) {
    (void)length;
    return plain(fd);
}

int64_t sys_fallocate(int32_t fd, int32_t mode, int64_t offset, int64_t length) {
    (void)offset, (void)length;
    check(mode == 0, "fallocate: the mode");
    return plain(fd);
}

int64_t sys_fadvise(int32_t fd, int64_t offset, int64_t length, int32_t advice) {
    (void)offset, (void)length;
    check(advice >= 0 && advice <= 5, "fadvise: the advice");
    return plain(fd);
}

int64_t sys_fsync(int32_t fd) {
    return plain(fd);
}

int64_t sys_fdatasync(int32_t fd) {
    return plain(fd);
}

int64_t sys_fcntl(int32_t fd, int32_t command, int64_t argument) {
    check(command == F_GETFL || command == F_SETFL, "fcntl: the command");
    check((argument & ~(int64_t)O_NONBLOCK) == 0, "fcntl: the flags");
    const struct file *found = file(fd);
    int64_t honest = found && command == F_GETFL ? found->flags : 0;
    return result(!found ? -EBADF : one_in(20) ? error() : honest);
}

int64_t sys_ioctl(int32_t fd, int32_t request, void *argument) {
    check(request == TCGETS || request == FIONREAD, "ioctl: the request");
    if (!file(fd))
        return result(-EBADF);
    fill(argument, request == TCGETS ? 60 : 4); /* the sizes of Linux */
    return result(one_in(2) ? -ENOTTY : 0);
}

int64_t sys_dup3(int32_t oldfd, int32_t newfd, int32_t flags) {
    check(flags == O_CLOEXEC, "dup3: flags");
    check(oldfd != newfd || was_hostile, "dup3: onto itself");
    const struct file *old = file(oldfd);
    if (!old || newfd < 0 || newfd >= FILES)
        return result(-EBADF);
    if (errs())
        return result(one_in(2) ? -EBUSY : -EINTR);
    files[newfd] = *old;
    return result(newfd);
}

/* --- time, chance, the processor ------------------------------------------------------------ */

static struct kernel_timespec time_of(uint64_t nanoseconds) {
    return (struct kernel_timespec){.tv_sec = (int64_t)(nanoseconds / 1000000000),
                                    .tv_nsec = (int64_t)(nanoseconds % 1000000000)};
}

static void check_time(const struct kernel_timespec *time) {
    check(time->tv_sec >= 0 && time->tv_nsec >= 0 && time->tv_nsec < 1000000000, "a timespec");
}

int64_t sys_clock_gettime(int32_t clock, struct kernel_timespec *out) {
    check(clock >= 0 && clock <= 3, "clock_gettime: the clock");
    now += below(1000);
    *out = time_of(now);
    maybe_spoil(out, sizeof *out);
    return result(one_in(50) ? error() : 0);
}

int64_t sys_clock_getres(int32_t clock, struct kernel_timespec *out) {
    check(clock >= 0 && clock <= 3, "clock_getres: the clock");
    *out = time_of(below(1000));
    return result(one_in(50) ? error() : 0);
}

static int64_t poll_files(struct kernel_pollfd *fds, int64_t nfds) {
    int64_t ready = 0;
    for (int64_t i = 0; i < nfds; i++) {
        fds[i].revents = 0;
        if (fds[i].fd >= 0 && !file(fds[i].fd))
            fds[i].revents = POLLNVAL;
        else if (fds[i].fd >= 0 && one_in(3))
            fds[i].revents = (int16_t)ONE_OF(POLLIN, POLLOUT, POLLHUP, POLLERR, POLLIN | POLLHUP);
        ready += fds[i].revents != 0;
    }
    return ready;
}

int64_t sys_ppoll(struct kernel_pollfd *fds, int64_t nfds, const struct kernel_timespec *timeout,
                  const void *sigmask, uint32_t sigsetsize) {
    check(nfds >= 0 && nfds <= 4096 && !sigmask && !sigsetsize, "ppoll");
    if (timeout)
        check_time(timeout);
    if (errs())
        return result(-EINTR);
    int64_t ready = poll_files(fds, nfds);
    if (!ready && !timeout)
        return result(-EINTR); /* nobody else is there who could wake it */
    if (!ready) {
        uint64_t passes = (uint64_t)timeout->tv_sec * 1000000000 + (uint64_t)timeout->tv_nsec;
        now = now + passes < now ? UINT64_MAX : now + passes;
    }
    for (int64_t i = 0; hostile && i < nfds; i++)
        maybe_spoil(&fds[i].revents, sizeof fds[i].revents);
    return result(ready);
}

int64_t sys_getrandom(void *buf, uint32_t size, uint32_t flags) {
    check(flags == 0, "getrandom: flags");
    fill(buf, size);
    return result(one_in(20) ? error() : size);
}

int64_t sys_sched_yield(void) {
    return result(0);
}

/* --- sockets -------------------------------------------------------------------------------- */

int64_t sys_accept4(int32_t fd, void *address, uint32_t *length, int32_t flags) {
    check(!address && !length, "accept4: an address");
    check((flags & ~SOCK_NONBLOCK) == SOCK_CLOEXEC, "accept4: flags");
    const struct file *listener = file(fd);
    if (!listener)
        return result(-EBADF);
    if ((listener->mode & S_IFMT) != S_IFSOCK)
        return result(-ENOTSOCK);
    return result(errs() ? error() : open_file(S_IFSOCK | 0777, O_RDWR));
}

int64_t sys_recvfrom(int32_t fd, void *buf, uint32_t size, int32_t flags, void *address,
                     uint32_t *length) {
    check(!address && !length, "recvfrom: an address");
    if (flags & MSG_TRUNC) { /* how much there was, which may be more than there is room for */
        check((flags & ~(MSG_PEEK | MSG_TRUNC)) == 0, "recvfrom: flags of a datagram");
        fill(buf, size);
        return result(!file(fd) ? -EBADF : errs() ? error() : below(100000));
    }
    check((flags & ~(MSG_PEEK | MSG_WAITALL)) == 0, "recvfrom: flags");
    fill(buf, size);
    return result(!file(fd) ? -EBADF : errs() ? error() : one_in(3) ? size : below(size + 1));
}

int64_t sys_shutdown(int32_t fd, int32_t how) {
    check(how >= SHUT_RD && how <= SHUT_RDWR, "shutdown: how");
    return plain(fd);
}

_Noreturn void sys_proc_exit(int32_t status) {
    (void)status;
    longjmp(left, EXITED);
}

/* --- the guest's memory --------------------------------------------------------------------- */

static bool within(uint32_t address, uint64_t size) {
    return address + size <= GUEST_SIZE;
}

/* How much the guest's iovecs hold together, or -errno; `writes` what the kernel would. */
static int64_t transfer(int32_t fd, uint32_t iov, int32_t count, bool writes) {
    check(count >= 0 && count <= IOV_MAX, "a count of iovecs");
    if (!file(fd))
        return -EBADF;
    uint64_t total = 0;
    for (int32_t i = 0; i < count; i++) {
        struct iovec one;
        if (guest_copy_in(&one, iov + (uint32_t)i * sizeof one, sizeof one) ||
            !within(one.base, one.length))
            return -EFAULT;
        if (writes)
            memset(guest + one.base, 0x2a, one.length);
        total += one.length;
    }
    if (errs())
        return error();
    return one_in(4) ? below((uint32_t)total + 1) : (int64_t)total;
}

int64_t guest_readv(int32_t fd, uint32_t iov, int32_t count_) {
    return result(transfer(fd, iov, count_, true));
}

int64_t guest_writev(int32_t fd, uint32_t iov, int32_t count_) {
    return result(transfer(fd, iov, count_, false));
}

int64_t guest_preadv(int32_t fd, uint32_t iov, int32_t count_, int64_t offset) {
    return result(offset < 0 ? -EINVAL : transfer(fd, iov, count_, true));
}

int64_t guest_pwritev(int32_t fd, uint32_t iov, int32_t count_, int64_t offset) {
    return result(offset < 0 ? -EINVAL : transfer(fd, iov, count_, false));
}

int64_t guest_pwritev2(int32_t fd, uint32_t iov, int32_t count_, int64_t offset, int32_t flags) {
    check(offset == -1 && flags == RWF_APPEND, "pwritev2");
    return result(transfer(fd, iov, count_, false));
}

int64_t guest_getrandom(uint32_t buf, uint32_t size, uint32_t flags) {
    check(flags == 0, "getrandom: flags");
    if (!within(buf, size))
        return result(-EFAULT);
    fill(guest + buf, size);
    return result(one_in(20) ? error() : one_in(2) ? size : 1 + below(size));
}

int32_t guest_copy_in(void *to, uint32_t from, uint32_t size) {
    count();
    if (!within(from, size))
        return -EFAULT;
    memcpy(to, guest + from, size);
    return 0;
}

int32_t guest_copy_out(uint32_t to, const void *from, uint32_t size) {
    count();
    if (!within(to, size))
        return -EFAULT;
    memcpy(guest + to, from, size);
    return 0;
}

int32_t guest_store_u32(uint32_t to, uint32_t value) {
    return guest_copy_out(to, &value, sizeof value);
}

int32_t guest_store_u64(uint32_t to, uint64_t value) {
    return guest_copy_out(to, &value, sizeof value);
}

int64_t guest_suspend(void) {
    count();
    check(was_hostile, "nothing has answered SUSPENDED"); /* but for a kernel that lies */
    return 0;
}

int32_t guest_store_time(uint32_t to, int32_t clock) {
    check(clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC, "store_time: the clock");
    uint64_t time = now += below(1000);
    return guest_copy_out(to, &time, sizeof time);
}

int32_t guest_check(uint32_t address, uint32_t size) {
    count();
    return within(address, size) ? 0 : -EFAULT;
}

/* --- the shim's memory, one piece each, so that ASan sees the end of it ---------------------- */

void *memory_allocate(uint32_t size) {
    if (size > 1u << 28 || one_in(50))
        return NULL;
    return calloc(1, size);
}
