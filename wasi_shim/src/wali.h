/* The system calls the shim may make: everything that it can do to the world.
 *
 * The names and types are WALI's (i32 for pointers, int and size_t; i64 for off_t and long);
 * the result of a call is the raw kernel result, -errno in -4095..-1.  Each module works on one
 * address space:
 *
 *   wali        the shim's own memory
 *   wali_guest  the memory of the guest that the shim serves
 *   guest       moves bytes between the two, and waits
 *
 * The core serves these in *capability mode* (see docs/architecture.md): descriptors are numbers of
 * the guest's own table, openat2 must ask for RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, every other
 * path is one component, and no link is followed.  Nothing here can be used to get around that.
 */
#ifndef WASI_SHIM_WALI_H
#define WASI_SHIM_WALI_H

#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

/* --- wali: on the shim's own memory --------------------------------------------------------- */

struct open_how { /* <linux/openat2.h> */
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

struct kernel_timespec {
    int64_t tv_sec;
    int64_t tv_nsec;
};

struct kernel_stat { /* WALI's struct stat: x86-64's layout on every processor, 144 bytes */
    uint64_t st_dev;
    uint64_t st_ino;
    uint64_t st_nlink;
    uint32_t st_mode;
    uint32_t st_uid;
    uint32_t st_gid;
    uint32_t pad0;
    uint64_t st_rdev;
    int64_t st_size;
    int64_t st_blksize;
    int64_t st_blocks;
    struct kernel_timespec st_atim;
    struct kernel_timespec st_mtim;
    struct kernel_timespec st_ctim;
    int64_t unused[3];
};

struct kernel_pollfd {
    int32_t fd;
    int16_t events;
    int16_t revents;
};

IMPORT("wali", "SYS_openat2")
int64_t sys_openat2(int32_t dirfd, const char *path, const struct open_how *how, uint32_t size);
IMPORT("wali", "SYS_openat") /* one component, O_NOFOLLOW forced: for the fallback walk */
int64_t sys_openat(int32_t dirfd, const char *path, int32_t flags, uint32_t mode);
IMPORT("wali", "SYS_close") int64_t sys_close(int32_t fd);
IMPORT("wali", "SYS_fstat") int64_t sys_fstat(int32_t fd, struct kernel_stat *out);
IMPORT("wali", "SYS_newfstatat") /* one component; AT_SYMLINK_NOFOLLOW is forced */
int64_t sys_newfstatat(int32_t dirfd, const char *path, struct kernel_stat *out, int32_t flags);
IMPORT("wali", "SYS_utimensat") /* path 0: the descriptor; "" with AT_EMPTY_PATH: an O_PATH one */
int64_t sys_utimensat(int32_t dirfd, const char *path, const struct kernel_timespec *times,
                      int32_t flags);
IMPORT("wali", "SYS_mkdirat") int64_t sys_mkdirat(int32_t dirfd, const char *path, uint32_t mode);
IMPORT("wali", "SYS_unlinkat") int64_t sys_unlinkat(int32_t dirfd, const char *path, int32_t flags);
IMPORT("wali", "SYS_renameat2")
int64_t sys_renameat2(int32_t olddirfd, const char *oldpath, int32_t newdirfd, const char *newpath,
                      uint32_t flags);
IMPORT("wali", "SYS_linkat")
int64_t sys_linkat(int32_t olddirfd, const char *oldpath, int32_t newdirfd, const char *newpath,
                   int32_t flags);
IMPORT("wali", "SYS_symlinkat")
int64_t sys_symlinkat(const char *target, int32_t dirfd, const char *path);
IMPORT("wali", "SYS_readlinkat")
int64_t sys_readlinkat(int32_t dirfd, const char *path, char *buf, uint32_t size);
IMPORT("wali", "SYS_getdents64") int64_t sys_getdents64(int32_t fd, void *buf, uint32_t size);
IMPORT("wali", "SYS_lseek") int64_t sys_lseek(int32_t fd, int64_t offset, int32_t whence);
IMPORT("wali", "SYS_ftruncate") int64_t sys_ftruncate(int32_t fd, int64_t length);
IMPORT("wali", "SYS_fallocate") /* mode 0 only */
int64_t sys_fallocate(int32_t fd, int32_t mode, int64_t offset, int64_t length);
IMPORT("wali", "SYS_fadvise")
int64_t sys_fadvise(int32_t fd, int64_t offset, int64_t length, int32_t advice);
IMPORT("wali", "SYS_fsync") int64_t sys_fsync(int32_t fd);
IMPORT("wali", "SYS_fdatasync") int64_t sys_fdatasync(int32_t fd);
IMPORT("wali", "SYS_fcntl") /* F_GETFL and F_SETFL (O_NONBLOCK, O_APPEND) only */
int64_t sys_fcntl(int32_t fd, int32_t command, int64_t argument);
IMPORT("wali", "SYS_ioctl") /* TCGETS (is it a terminal?) and FIONREAD only */
int64_t sys_ioctl(int32_t fd, int32_t request, void *argument);
IMPORT("wali", "SYS_dup3") int64_t sys_dup3(int32_t oldfd, int32_t newfd, int32_t flags);
IMPORT("wali", "SYS_clock_gettime")
int64_t sys_clock_gettime(int32_t clock, struct kernel_timespec *out);
IMPORT("wali", "SYS_clock_getres")
int64_t sys_clock_getres(int32_t clock, struct kernel_timespec *out);
IMPORT("wali", "SYS_ppoll") /* descriptors that never block (regular files) are ready */
int64_t sys_ppoll(struct kernel_pollfd *fds, int64_t nfds, const struct kernel_timespec *timeout,
                  const void *sigmask, uint32_t sigsetsize);
IMPORT("wali", "SYS_getrandom")
int64_t sys_getrandom(void *buf, uint32_t size, uint32_t flags);
IMPORT("wali", "SYS_sched_yield") int64_t sys_sched_yield(void);
IMPORT("wali", "SYS_accept4")
int64_t sys_accept4(int32_t fd, void *address, uint32_t *length, int32_t flags);
IMPORT("wali", "SYS_recvfrom") /* no address comes back */
int64_t sys_recvfrom(int32_t fd, void *buf, uint32_t size, int32_t flags, void *address,
                     uint32_t *length);
IMPORT("wali", "SYS_shutdown") int64_t sys_shutdown(int32_t fd, int32_t how);
IMPORT("wali", "__proc_exit") _Noreturn void sys_proc_exit(int32_t status);

/* --- wali_guest: on the guest's memory; iov is a guest address of {u32 base, u32 length}[] ---- */

IMPORT("wali_guest", "SYS_readv")
int64_t guest_readv(int32_t fd, uint32_t iov, int32_t count);
IMPORT("wali_guest", "SYS_writev")
int64_t guest_writev(int32_t fd, uint32_t iov, int32_t count);
IMPORT("wali_guest", "SYS_preadv")
int64_t guest_preadv(int32_t fd, uint32_t iov, int32_t count, int64_t offset);
IMPORT("wali_guest", "SYS_pwritev")
int64_t guest_pwritev(int32_t fd, uint32_t iov, int32_t count, int64_t offset);
IMPORT("wali_guest", "SYS_pwritev2") /* offset -1: the file's own position, advanced */
int64_t guest_pwritev2(int32_t fd, uint32_t iov, int32_t count, int64_t offset, int32_t flags);
IMPORT("wali_guest", "SYS_getrandom")
int64_t guest_getrandom(uint32_t buf, uint32_t size, uint32_t flags);

/* --- guest: between the two; 0, or -EFAULT and nothing was written ---------------------------- */

IMPORT("guest", "copy_in") int32_t guest_copy_in(void *to, uint32_t from, uint32_t size);
IMPORT("guest", "copy_out") int32_t guest_copy_out(uint32_t to, const void *from, uint32_t size);
IMPORT("guest", "store_u32") int32_t guest_store_u32(uint32_t to, uint32_t value);
IMPORT("guest", "store_u64") int32_t guest_store_u64(uint32_t to, uint64_t value);
IMPORT("guest", "store_time") /* nanoseconds, of CLOCK_REALTIME or CLOCK_MONOTONIC */
int32_t guest_store_time(uint32_t to, int32_t clock);
/* 0 when [address, address + size) lies in the guest's memory */
IMPORT("guest", "check") int32_t guest_check(uint32_t address, uint32_t size);

/* --- waiting ----------------------------------------------------------------------------------
 *
 * Where guests share a thread, a call that would wait answers SUSPENDED, which is no kernel's
 * result.  guest_suspend, called next, returns when it is to be made again.  Elsewhere calls wait
 * by themselves, and this costs a comparison.
 */
#define SUSPENDED (INT64_MIN + 1)
IMPORT("guest", "suspend") int64_t guest_suspend(void);

#define WAITING(call)                                                                              \
    ({                                                                                             \
        int64_t result_;                                                                           \
        do                                                                                         \
            result_ = (call);                                                                      \
        while (result_ == SUSPENDED && guest_suspend() == 0);                                      \
        result_;                                                                                   \
    })

/* A macro is not expanded in itself: these are the functions above. */
#ifndef DEFINES_CALLS
#define sys_accept4(...) WAITING(sys_accept4(__VA_ARGS__))
#define sys_ppoll(...) WAITING(sys_ppoll(__VA_ARGS__))
#define sys_recvfrom(...) WAITING(sys_recvfrom(__VA_ARGS__))
#define guest_pwritev2(...) WAITING(guest_pwritev2(__VA_ARGS__))
#define guest_readv(...) WAITING(guest_readv(__VA_ARGS__))
#define guest_writev(...) WAITING(guest_writev(__VA_ARGS__))
#endif

#endif
