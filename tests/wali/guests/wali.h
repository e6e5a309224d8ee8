/* What our WALI guests are made with: Linux's calls, start-up, and a little to print with.
 *
 * The same source is a WALI program and, compiled for x86-64, an ordinary Linux program that makes
 * the same calls: what the one prints is held to what the other prints.  There is no libc.
 */
#ifndef WALI_GUEST_H
#define WALI_GUEST_H

/* The compiler is called without its headers. */
#define NULL ((void *)0)
typedef __SIZE_TYPE__ size_t;
typedef unsigned int mode;

int main(int argc, char **argv);

/* --- calls ------------------------------------------------------------------------------------ */

#if defined(__wasm__)

#define WALI(name) __attribute__((import_module("wali"), import_name(name)))
#define CALL(name, number, parameters, ...) WALI("SYS_" #name) long SYS_##name parameters;
#define IS_WALI 1

WALI("__init") int wali_init(void);
WALI("__deinit") int wali_deinit(void);
WALI("__proc_exit") void wali_proc_exit(int status);
WALI("__cl_get_argc") int wali_argc(void);
WALI("__cl_get_argv_len") int wali_argument_length(int index);
WALI("__cl_copy_argv") int wali_copy_argument(char *to, int index);
WALI("__get_init_envfile") int wali_environment_file(char *to, int room);

#else

#define CALL(name, number, parameters, ...)                                                        \
    static inline long SYS_##name parameters {                                                     \
        return KERNEL(number, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0);                                    \
    }
#define KERNEL(n, a, b, c, d, e, f, ...)                                                           \
    kernel(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define IS_WALI 0

static inline long kernel(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#endif

/* clang-format off */
CALL(read, 0, (int fd, void *to, size_t size), fd, to, size)
CALL(write, 1, (int fd, const void *from, size_t size), fd, from, size)
CALL(open, 2, (const char *path, int flags, mode m), path, flags, m)
CALL(close, 3, (int fd), fd)
CALL(stat, 4, (const char *path, void *to), path, to)
CALL(fstat, 5, (int fd, void *to), fd, to)
CALL(lstat, 6, (const char *path, void *to), path, to)
CALL(poll, 7, (void *fds, unsigned long count, int ms), fds, count, ms)
CALL(lseek, 8, (int fd, long offset, int whence), fd, offset, whence)
CALL(mmap, 9, (void *at, size_t size, int prot, int flags, int fd, long offset), at, size, prot, flags, fd, offset)
CALL(mprotect, 10, (void *at, size_t size, int prot), at, size, prot)
CALL(munmap, 11, (void *at, size_t size), at, size)
CALL(brk, 12, (void *at), at)
CALL(rt_sigaction, 13, (int signal, const void *action, void *old, unsigned size), signal, action, old, size)
CALL(rt_sigprocmask, 14, (int how, const void *set, void *old, unsigned size), how, set, old, size)
CALL(ioctl, 16, (int fd, int request, void *argument), fd, request, argument)
CALL(pread64, 17, (int fd, void *to, size_t size, long offset), fd, to, size, offset)
CALL(pwrite64, 18, (int fd, const void *from, size_t size, long offset), fd, from, size, offset)
CALL(readv, 19, (int fd, const void *parts, int count), fd, parts, count)
CALL(writev, 20, (int fd, const void *parts, int count), fd, parts, count)
CALL(access, 21, (const char *path, int how), path, how)
CALL(pipe, 22, (int *ends), ends)
CALL(select, 23, (int count, void *in, void *out, void *other, void *timeout), count, in, out, other, timeout)
CALL(sched_yield, 24, (void))
CALL(mremap, 25, (void *old, size_t old_size, size_t size, int flags, void *to), old, old_size, size, flags, to)
CALL(msync, 26, (void *at, size_t size, int flags), at, size, flags)
CALL(madvise, 28, (void *at, size_t size, int advice), at, size, advice)
CALL(dup, 32, (int fd), fd)
CALL(dup2, 33, (int fd, int to), fd, to)
CALL(nanosleep, 35, (const void *length, void *left), length, left)
CALL(getitimer, 36, (int which, void *to), which, to)
CALL(setitimer, 38, (int which, const void *value, void *old), which, value, old)
CALL(getpid, 39, (void))
CALL(sendfile, 40, (int to, int from, long *offset, size_t size), to, from, offset, size)
CALL(socket, 41, (int domain, int type, int protocol), domain, type, protocol)
CALL(connect, 42, (int fd, const void *address, unsigned size), fd, address, size)
CALL(accept, 43, (int fd, void *address, unsigned *size), fd, address, size)
CALL(sendto, 44, (int fd, const void *from, size_t size, int flags, const void *to, unsigned to_size), fd, from, size, flags, to, to_size)
CALL(recvfrom, 45, (int fd, void *to, size_t size, int flags, void *from, unsigned *from_size), fd, to, size, flags, from, from_size)
CALL(sendmsg, 46, (int fd, const void *message, int flags), fd, message, flags)
CALL(recvmsg, 47, (int fd, void *message, int flags), fd, message, flags)
CALL(shutdown, 48, (int fd, int how), fd, how)
CALL(bind, 49, (int fd, const void *address, unsigned size), fd, address, size)
CALL(listen, 50, (int fd, int backlog), fd, backlog)
CALL(getsockname, 51, (int fd, void *address, unsigned *size), fd, address, size)
CALL(getpeername, 52, (int fd, void *address, unsigned *size), fd, address, size)
CALL(socketpair, 53, (int domain, int type, int protocol, int *ends), domain, type, protocol, ends)
CALL(setsockopt, 54, (int fd, int level, int name, const void *value, unsigned size), fd, level, name, value, size)
CALL(getsockopt, 55, (int fd, int level, int name, void *value, unsigned *size), fd, level, name, value, size)
CALL(fork, 57, (void))
CALL(execve, 59, (const char *path, void *arguments, void *environment), path, arguments, environment)
CALL(exit, 60, (int status), status)
CALL(wait4, 61, (int pid, int *status, int options, void *usage), pid, status, options, usage)
CALL(kill, 62, (int pid, int signal), pid, signal)
CALL(uname, 63, (void *to), to)
CALL(fcntl, 72, (int fd, int command, long argument), fd, command, argument)
CALL(flock, 73, (int fd, int how), fd, how)
CALL(fsync, 74, (int fd), fd)
CALL(fdatasync, 75, (int fd), fd)
CALL(truncate, 76, (const char *path, long size), path, size)
CALL(ftruncate, 77, (int fd, long size), fd, size)
CALL(getcwd, 79, (char *to, size_t room), to, room)
CALL(chdir, 80, (const char *path), path)
CALL(fchdir, 81, (int fd), fd)
CALL(rename, 82, (const char *from, const char *to), from, to)
CALL(mkdir, 83, (const char *path, mode m), path, m)
CALL(rmdir, 84, (const char *path), path)
CALL(link, 86, (const char *from, const char *to), from, to)
CALL(unlink, 87, (const char *path), path)
CALL(symlink, 88, (const char *target, const char *path), target, path)
CALL(readlink, 89, (const char *path, char *to, size_t room), path, to, room)
CALL(chmod, 90, (const char *path, mode m), path, m)
CALL(fchmod, 91, (int fd, mode m), fd, m)
CALL(chown, 92, (const char *path, unsigned user, unsigned group), path, user, group)
CALL(fchown, 93, (int fd, unsigned user, unsigned group), fd, user, group)
CALL(umask, 95, (mode m), m)
CALL(gettimeofday, 96, (void *time, void *zone), time, zone)
CALL(getrlimit, 97, (int resource, void *to), resource, to)
CALL(getrusage, 98, (int who, void *to), who, to)
CALL(sysinfo, 99, (void *to), to)
CALL(getuid, 102, (void))
CALL(getgid, 104, (void))
CALL(geteuid, 107, (void))
CALL(getegid, 108, (void))
CALL(setuid, 105, (unsigned user), user)
CALL(setgid, 106, (unsigned group), group)
CALL(setpgid, 109, (int pid, int group), pid, group)
CALL(getppid, 110, (void))
CALL(setsid, 112, (void))
CALL(setreuid, 113, (unsigned real, unsigned effective), real, effective)
CALL(setregid, 114, (unsigned real, unsigned effective), real, effective)
CALL(getgroups, 115, (int count, void *to), count, to)
CALL(setgroups, 116, (int count, const void *from), count, from)
CALL(setresuid, 117, (unsigned real, unsigned effective, unsigned saved), real, effective, saved)
CALL(getresuid, 118, (unsigned *real, unsigned *effective, unsigned *saved), real, effective, saved)
CALL(setresgid, 119, (unsigned real, unsigned effective, unsigned saved), real, effective, saved)
CALL(getresgid, 120, (unsigned *real, unsigned *effective, unsigned *saved), real, effective, saved)
CALL(getpgid, 121, (int pid), pid)
CALL(getsid, 124, (int pid), pid)
CALL(rt_sigpending, 127, (void *to, unsigned size), to, size)
CALL(sched_getparam, 143, (int pid, void *to), pid, to)
CALL(sched_getscheduler, 145, (int pid), pid)
CALL(sched_get_priority_max, 146, (int policy), policy)
CALL(sched_get_priority_min, 147, (int policy), policy)
CALL(rt_sigtimedwait, 128, (const void *set, void *info, const void *timeout, unsigned size), set, info, timeout, size)
CALL(rt_sigsuspend, 130, (const void *set, unsigned size), set, size)
CALL(sigaltstack, 131, (const void *new, void *old), new, old)
CALL(statfs, 137, (const char *path, void *to), path, to)
CALL(fstatfs, 138, (int fd, void *to), fd, to)
CALL(getpriority, 140, (int which, int who), which, who)
CALL(setpriority, 141, (int which, int who, int nice), which, who, nice)
CALL(prctl, 157, (int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d), option, a, b, c, d)
CALL(setrlimit, 160, (int resource, const void *from), resource, from)
CALL(chroot, 161, (const char *path), path)
CALL(gettid, 186, (void))
CALL(tkill, 200, (int thread, int signal), thread, signal)
CALL(futex, 202, (void *word, int command, int value, void *timeout, void *second, int third), word, command, value, timeout, second, third)
CALL(sched_getaffinity, 204, (int pid, unsigned size, void *to), pid, size, to)
CALL(getdents64, 217, (int fd, void *to, size_t room), fd, to, room)
CALL(set_tid_address, 218, (int *at), at)
CALL(clock_gettime, 228, (int clock, void *to), clock, to)
CALL(clock_getres, 229, (int clock, void *to), clock, to)
CALL(clock_nanosleep, 230, (int clock, int flags, const void *length, void *left), clock, flags, length, left)
CALL(exit_group, 231, (int status), status)
CALL(epoll_wait, 232, (int fd, void *events, int most, int ms), fd, events, most, ms)
CALL(epoll_ctl, 233, (int fd, int how, int what, void *event), fd, how, what, event)
CALL(tgkill, 234, (int group, int thread, int signal), group, thread, signal)
CALL(utimes, 235, (const char *path, const void *times), path, times)
CALL(openat, 257, (int dir, const char *path, int flags, mode m), dir, path, flags, m)
CALL(mkdirat, 258, (int dir, const char *path, mode m), dir, path, m)
CALL(fchownat, 260, (int dir, const char *path, unsigned user, unsigned group, int flags), dir, path, user, group, flags)
CALL(futimesat, 261, (int dir, const char *path, const void *times), dir, path, times)
CALL(newfstatat, 262, (int dir, const char *path, void *to, int flags), dir, path, to, flags)
CALL(unlinkat, 263, (int dir, const char *path, int flags), dir, path, flags)
CALL(linkat, 265, (int from_dir, const char *from, int to_dir, const char *to, int flags), from_dir, from, to_dir, to, flags)
CALL(symlinkat, 266, (const char *target, int dir, const char *path), target, dir, path)
CALL(readlinkat, 267, (int dir, const char *path, char *to, size_t room), dir, path, to, room)
CALL(faccessat2, 439, (int dir, const char *path, int how, int flags), dir, path, how, flags)
CALL(pselect6, 270, (int count, void *in, void *out, void *other, void *timeout, void *mask), count, in, out, other, timeout, mask)
CALL(ppoll, 271, (void *fds, unsigned long count, void *timeout, void *mask, unsigned size), fds, count, timeout, mask, size)
CALL(utimensat, 280, (int dir, const char *path, const void *times, int flags), dir, path, times, flags)
CALL(epoll_pwait, 281, (int fd, void *events, int most, int ms, void *mask, unsigned size), fd, events, most, ms, mask, size)
CALL(timerfd_create, 283, (int clock, int flags), clock, flags)
CALL(timerfd_settime, 286, (int fd, int flags, const void *value, void *old), fd, flags, value, old)
CALL(timerfd_gettime, 287, (int fd, void *to), fd, to)
CALL(accept4, 288, (int fd, void *address, unsigned *size, int flags), fd, address, size, flags)
CALL(signalfd4, 289, (int fd, const void *set, unsigned size, int flags), fd, set, size, flags)
CALL(eventfd2, 290, (unsigned value, int flags), value, flags)
CALL(epoll_create1, 291, (int flags), flags)
CALL(dup3, 292, (int fd, int to, int flags), fd, to, flags)
CALL(pipe2, 293, (int *ends, int flags), ends, flags)
CALL(preadv, 295, (int fd, const void *parts, int count, long offset, long upper), fd, parts, count, offset, upper)
CALL(pwritev, 296, (int fd, const void *parts, int count, long offset, long upper), fd, parts, count, offset, upper)
CALL(prlimit64, 302, (int pid, int resource, const void *from, void *to), pid, resource, from, to)
CALL(renameat2, 316, (int from_dir, const char *from, int to_dir, const char *to, int flags), from_dir, from, to_dir, to, flags)
CALL(getrandom, 318, (void *to, size_t size, unsigned flags), to, size, flags)
CALL(copy_file_range, 326, (int from, long *from_at, int to, long *to_at, size_t size, unsigned flags), from, from_at, to, to_at, size, flags)
CALL(statx, 332, (int dir, const char *path, int flags, unsigned mask, void *to), dir, path, flags, mask, to)
/* clang-format on */

/* --- structs and constants -------------------------------------------------------------------- */

enum { AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, AT_REMOVEDIR = 0x200 };
enum { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT = 0x40, O_EXCL = 0x80, O_TRUNC = 0x200 };
enum { O_APPEND = 0x400, O_NONBLOCK = 0x800, O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000 };
enum { O_CLOEXEC = 0x80000, O_PATH = 0x200000 };
enum { PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 4, PROT_BOTH = 3 };
enum { MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20, MAP_NEW = 0x22 };
enum { MAP_FIXED_NOREPLACE = 0x100000, MREMAP_MAYMOVE = 1, MREMAP_FIXED = 2, MREMAP_DONTUNMAP = 4 };
enum { PAGE = 4096 };
enum { EPERM = 1, EAGAIN = 11, EFAULT = 14, EINVAL = 22, EPIPE = 32, EINPROGRESS = 115 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16, POLLNVAL = 32 };
enum { AF_UNIX = 1, AF_INET = 2, SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_NONBLOCK = 0x800 };
enum { SIGHUP = 1, SIGINT, SIGQUIT, SIGABRT = 6, SIGFPE = 8, SIGKILL, SIGUSR1, SIGSEGV };
enum { SIGUSR2 = 12, SIGPIPE, SIGALRM, SIGTERM, SIGCHLD = 17, SIGCONT, SIGSTOP, SIGTSTP };
enum { SIGURG = 23, SIGRTMIN = 34, SIG_BLOCK = 0, SIG_UNBLOCK, SIG_SETMASK, WNOHANG = 1 };
enum { SA_NOCLDSTOP = 1, SA_NOCLDWAIT = 2, SA_RESTART = 1 << 28, SA_NODEFER = 1 << 30 };
#define SA_RESETHAND 0x80000000ul
enum { CLOCK_REALTIME, CLOCK_MONOTONIC, TIMER_ABSTIME = 1 };

struct timespec {
    long seconds, rest;
};

struct pollfd {
    int fd;
    short events, revents;
};

struct iovec {
    void *base;
    size_t size;
};

/* struct msghdr of sendmsg(2). */
struct message {
    void *name;
    unsigned name_size;
    struct iovec *parts;
    size_t count;
#if defined(__wasm__)
    unsigned pad1;
#endif
    void *control;
    size_t control_size;
#if defined(__wasm__)
    unsigned pad2;
#endif
    int flags;
};

struct stat {
    unsigned long device, inode, links;
    unsigned mode, user, group, pad;
    unsigned long rdev;
    long size, block_size, blocks;
    struct timespec accessed, modified, changed;
    long unused[3];
};

struct dirent {
    unsigned long inode, offset;
    unsigned short size;
    unsigned char kind;
    char name[];
};

struct epoll_event {
    unsigned events;
    unsigned long data;
} __attribute__((packed));

struct inet_address {
    unsigned short family;
    unsigned char port[2], host[4], zero[8];
};

/* --- text ------------------------------------------------------------------------------------- */

/* The compiler may write calls to these for its own purposes. */
void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    for (size_t i = 0; i < size; i++)
        ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t size) {
    for (size_t i = 0; i < size; i++)
        ((volatile char *)to)[i] = (char)value;
    return to;
}

static inline size_t length(const char *text) {
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

static inline int equal(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static inline long number(const char *text) {
    long n = 0, sign = 1;
    if (*text == '-')
        sign = -1, text++;
    while (*text)
        n = n * 10 + (*text++ - '0');
    return n * sign;
}

static inline int decimal(char *to, long value) {
    char digits[24];
    int n = 0, used = 0;
    unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
    do
        digits[n++] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        to[used++] = '-';
    while (n)
        to[used++] = digits[--n];
    return used;
}

/* Print with one write: %s a string, %d a long, nothing else. */
static inline void say(const char *format, ...) {
    char line[1024];
    size_t used = 0;
    __builtin_va_list values;
    __builtin_va_start(values, format);
    for (; *format; format++) {
        if (*format != '%') {
            line[used++] = *format;
        } else if (*++format == 'd') {
            used += (size_t)decimal(line + used, __builtin_va_arg(values, long));
        } else {
            for (const char *text = __builtin_va_arg(values, const char *); *text; text++)
                line[used++] = *text;
        }
    }
    __builtin_va_end(values);
    SYS_write(1, line, used);
}

/* A line of the comparison: what was done, and what came of it. */
static inline long tell(const char *what, long result) {
    say("%s: %d\n", what, result);
    return result;
}

/* --- signals ---------------------------------------------------------------------------------- */

typedef void handler(int signal);

#if defined(__wasm__)
struct action {
    handler *call;
    unsigned long flags;
    unsigned restorer;
    unsigned long mask;
} __attribute__((packed));
#define SIG_DFL ((handler *)0)
#define SIG_IGN ((handler *)-2)
#define RESTORER
#else
struct action {
    handler *call;
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};
#define SIG_DFL ((handler *)0)
#define SIG_IGN ((handler *)1)
__attribute__((naked, used)) static void restorer(void) {
    __asm__("mov $15, %eax\n syscall");
}
#define RESTORER .restorer = restorer,
#endif

static inline unsigned long bit(int signal) {
    return 1ul << (signal - 1);
}

/* Put up a handler, as sigaction(3) does. */
static inline long handle(int signal, handler *call, unsigned long flags, unsigned long mask) {
    struct action action = {.call = call, RESTORER.flags = flags | 0x4000000, .mask = mask};
    return SYS_rt_sigaction(signal, &action, NULL, 8);
}

static inline unsigned long mask(int how, unsigned long set) {
    unsigned long old = 0;
    SYS_rt_sigprocmask(how, &set, &old, 8);
    return old;
}

static inline void pause_for(long milliseconds) {
    struct timespec length = {0, milliseconds * 1000000};
    SYS_nanosleep(&length, NULL);
}

/* --- start ------------------------------------------------------------------------------------ */

static inline void leave(int status) {
    for (;;)
        SYS_exit_group(status);
}

#if defined(__wasm__)

void _start(void) {
    static char block[1 << 16];
    static char *argv[256];
    wali_init();
    int argc = wali_argc();
    char *at = block;
    for (int i = 0; i < argc && i < 255; i++) {
        argv[i] = at;
        wali_copy_argument(at, i);
        at += wali_argument_length(i) + 1;
    }
    int status = main(argc, argv);
    if (status == 0)
        wali_deinit();
    wali_proc_exit(status);
}

#else

__attribute__((used)) static void native_start(long *stack) {
    leave(main((int)stack[0], (char **)(stack + 1)));
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call native_start\n hlt\n");

#endif
#endif
