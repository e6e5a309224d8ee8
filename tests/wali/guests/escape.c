/* Tries to get out of what a policy grants: a line for each attempt, with what came of it.
 *
 *     escape OUTSIDE INSIDE READ-ONLY TCP-PORT PARENT
 *
 * OUTSIDE is a folder of the host's that was not granted, with what the attempts go for: `secret`,
 * `victim`, `folder/`, `socket` and `datagrams`, which are unix sockets.  INSIDE and READ-ONLY are
 * granted, the one to be changed; in INSIDE are links that lead out, and a file, `own`.  PARENT is
 * a process outside.  A result that is not negative is an attempt that has succeeded.
 */
#include "wali.h"

static const char *outside, *inside, *shelf;
static char text[4096];
static struct timespec times[2] = {{1, 0}, {1, 0}};

/* Two parts of a path, as one. */
static const char *at(const char *folder, const char *name) {
    static char paths[4][512];
    static int turn;
    char *path = paths[turn = (turn + 1) % 4];
    size_t used = 0;
    while (*folder)
        path[used++] = *folder++;
    path[used++] = '/';
    while (*name)
        path[used++] = *name++;
    path[used] = 0;
    return path;
}

static long opened(const char *path, int flags) {
    long fd = SYS_open(path, flags, 0600);
    if (fd >= 0)
        SYS_close((int)fd);
    return fd;
}

static long reading(const char *path) {
    long fd = SYS_open(path, O_RDONLY, 0);
    long size = fd < 0 ? fd : SYS_read((int)fd, text, sizeof text);
    if (fd >= 0)
        SYS_close((int)fd);
    return size;
}

/* A name by a descriptor of a folder. */
static long reading_beneath(const char *folder, const char *name) {
    long dir = SYS_open(folder, O_PATH | O_DIRECTORY, 0);
    long fd = dir < 0 ? dir : SYS_openat((int)dir, name, O_RDONLY, 0);
    if (dir >= 0)
        SYS_close((int)dir);
    if (fd >= 0)
        SYS_close((int)fd);
    return fd;
}

/* From a folder that was opened, up to wherever `..` leads. */
static long climbing(void) {
    long dir = SYS_open(inside, O_RDONLY | O_DIRECTORY, 0);
    for (int i = 0; dir >= 0 && i < 20; i++) {
        long up = SYS_openat((int)dir, "..", O_PATH | O_DIRECTORY, 0);
        SYS_close((int)dir);
        dir = up;
    }
    if (dir < 0)
        return dir;
    struct stat about;
    long result = SYS_newfstatat((int)dir, outside + 1, &about, 0);
    SYS_close((int)dir);
    return result;
}

/* --- files ------------------------------------------------------------------------------------ */

static void contents(void) {
    tell("read by its path", reading(at(outside, "secret")));
    tell("read by ..", reading(at(inside, "../outside/secret")));
    tell("read by a link", reading(at(inside, "relative")));
    tell("read by an absolute link", reading(at(inside, "absolute")));
    tell("read by a chain of links", reading(at(inside, "first")));
    tell("read by a link in the middle", reading(at(inside, "folder/secret")));
    tell("read by a link of its own",
         SYS_symlink("../outside/secret", at(inside, "made")) ?: reading(at(inside, "made")));
    tell("read beneath a descriptor", reading_beneath(inside, "../outside/secret"));
    tell("read by / beneath a descriptor", reading_beneath(inside, at(outside, "secret")));
    tell("read a neighbour whose name begins alike",
         reading(at(at(inside, ".."), "insider/secret")));
    tell("list", opened(outside, O_RDONLY | O_DIRECTORY));
    tell("open to write", opened(at(outside, "secret"), O_WRONLY));
    tell("truncate as it opens", opened(at(outside, "secret"), O_WRONLY | O_TRUNC));
    tell("truncate", SYS_truncate(at(outside, "secret"), 1));
    tell("create", opened(at(outside, "new"), O_WRONLY | O_CREAT));
    tell("create by a dangling link", opened(at(inside, "dangling"), O_WRONLY | O_CREAT));
    tell("make a folder", SYS_mkdir(at(outside, "made"), 0700));
    tell("make a link", SYS_symlink("secret", at(outside, "made")));
    tell("remove", SYS_unlink(at(outside, "victim")));
    tell("remove a folder", SYS_rmdir(at(outside, "empty")));
    tell("rename away", SYS_rename(at(outside, "victim"), at(inside, "stolen")));
    tell("rename into", SYS_rename(at(inside, "own"), at(outside, "brought")));
    tell("link away", SYS_link(at(outside, "secret"), at(inside, "hard")));
    tell("link away by a link",
         SYS_linkat(AT_FDCWD, at(inside, "relative"), AT_FDCWD, at(inside, "hard"), 0x400));
    tell("link into", SYS_link(at(inside, "own"), at(outside, "linked")));
    tell("map", reading(at(outside, "secret")));
}

static void metadata(void) {
    struct stat about;
    tell("stat", SYS_stat(at(outside, "secret"), &about));
    tell("stat by a link", SYS_stat(at(inside, "relative"), &about));
    tell("lstat", SYS_lstat(at(outside, "secret"), &about));
    tell("statx", SYS_statx(AT_FDCWD, at(outside, "secret"), 0, 0x7ff, text));
    tell("access", SYS_access(at(outside, "secret"), 4));
    tell("faccessat2", SYS_faccessat2(AT_FDCWD, at(outside, "secret"), 4, 0));
    tell("readlink", SYS_readlink(at(outside, "link"), text, sizeof text));
    tell("statfs", SYS_statfs(outside, text));
    tell("open as a path", opened(at(outside, "secret"), O_PATH));
    tell("climb and stat", climbing());
    tell("chdir", SYS_chdir(outside) ?: (SYS_chdir(inside), 0));
    tell("chdir by ..", SYS_chdir(at(inside, "../outside")) ?: (SYS_chdir(inside), 0));
    tell("chmod", SYS_chmod(at(outside, "victim"), 0640));
    tell("chmod by a link", SYS_chmod(at(inside, "relative"), 0640));
    tell("chown", SYS_chown(at(outside, "victim"), SYS_getuid(), SYS_getgid()));
    tell("set times", SYS_utimensat(AT_FDCWD, at(outside, "victim"), times, 0));
    tell("set times by utimes", SYS_utimes(at(outside, "victim"), NULL));
}

/* What was granted to be read is not to be changed. */
static void read_only(void) {
    long fd = SYS_open(at(shelf, "book"), O_RDONLY, 0);
    tell("read-only: open to write", opened(at(shelf, "book"), O_RDWR));
    tell("read-only: truncate as it opens", opened(at(shelf, "book"), O_RDONLY | O_TRUNC));
    tell("read-only: truncate", SYS_truncate(at(shelf, "book"), 1));
    tell("read-only: create", opened(at(shelf, "new"), O_WRONLY | O_CREAT));
    tell("read-only: make a folder", SYS_mkdir(at(shelf, "made"), 0700));
    tell("read-only: remove", SYS_unlink(at(shelf, "book")));
    tell("read-only: rename", SYS_rename(at(shelf, "book"), at(shelf, "moved")));
    tell("read-only: rename away", SYS_rename(at(shelf, "book"), at(inside, "moved")));
    tell("read-only: link away", SYS_link(at(shelf, "book"), at(inside, "copy")));
    tell("read-only: chmod", SYS_chmod(at(shelf, "book"), 0640));
    tell("read-only: set times", SYS_utimensat(AT_FDCWD, at(shelf, "book"), times, 0));
    tell("read-only: fchmod", fd < 0 ? fd : SYS_fchmod((int)fd, 0640));
    tell("read-only: set times of a descriptor",
         fd < 0 ? fd : SYS_utimensat((int)fd, NULL, times, 0));
    tell("read-only: ftruncate", fd < 0 ? fd : SYS_ftruncate((int)fd, 1));
    tell("read-only: map to write",
         fd < 0 ? fd : SYS_mmap(NULL, PAGE, PROT_BOTH, MAP_SHARED, (int)fd, 0));
    if (fd >= 0)
        SYS_close((int)fd);
}

static long change_root(void) {
    return SYS_chroot(inside);
}

/* Where it would change what follows. */
static long in_child(long (*act)(void)) {
    int status = 0;
    long child = SYS_fork();
    if (child == 0)
        leave((int)-act());
    if (child < 0)
        return child;
    SYS_wait4((int)child, &status, 0, NULL);
    return -(status >> 8 & 0xff);
}

static void elsewhere(void) {
    tell("memory by procfs", opened("/proc/self/mem", O_RDWR));
    tell("memory of another", opened(at("/proc/1", "mem"), O_RDONLY));
    tell("root by procfs", opened("/proc/self/root/etc/passwd", O_RDONLY));
    tell("descriptors by procfs", opened("/proc/self/fd", O_RDONLY | O_DIRECTORY));
    tell("a device", opened("/dev/null", O_RDWR));
    tell("make a device", SYS_openat(AT_FDCWD, "/dev/mem", O_RDWR, 0));
    tell("chroot", in_child(change_root));
}

/* --- sockets ---------------------------------------------------------------------------------- */

static struct {
    unsigned short family;
    char path[108];
} unix_address;

/* The length of the address of a path; one that begins with @ is abstract. */
static unsigned unix_name(const char *path) {
    unsigned used = 0;
    unix_address.family = AF_UNIX;
    for (; path[used] && used < sizeof unix_address.path - 1; used++)
        unix_address.path[used] = path[used] == '@' && used == 0 ? 0 : path[used];
    unix_address.path[used] = 0;
    return used + 2 + (path[0] != '@');
}

static struct inet_address tcp_address(long port) {
    return (struct inet_address){
        AF_INET, {(unsigned char)(port >> 8), (unsigned char)port}, {127, 0, 0, 1}, {0}};
}

static long connecting_unix(int type, const char *path) {
    long fd = SYS_socket(AF_UNIX, type, 0);
    long result = fd < 0 ? fd : SYS_connect((int)fd, &unix_address, unix_name(path));
    if (fd >= 0)
        SYS_close((int)fd);
    return result;
}

/* One end of a pair can be connected to somebody else. */
static long connecting_pair(const char *path) {
    int ends[2];
    long result = SYS_socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
    if (result < 0)
        return result;
    result = SYS_connect(ends[0], &unix_address, unix_name(path));
    SYS_close(ends[0]);
    SYS_close(ends[1]);
    return result;
}

static long made(int domain, int type, int protocol) {
    long fd = SYS_socket(domain, type, protocol);
    if (fd >= 0)
        SYS_close((int)fd);
    return fd;
}

static long on_stream(long port, int act) {
    struct inet_address address = tcp_address(port);
    int on = 1;
    long fd = SYS_socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return fd;
    long result = act == 0   ? SYS_connect((int)fd, &address, sizeof address)
                  : act == 1 ? SYS_bind((int)fd, &address, sizeof address)
                  : act == 2 ? SYS_listen((int)fd, 1)
                  : act == 3 ? SYS_sendto((int)fd, "x", 1, 0x20000000, &address, sizeof address)
                             : SYS_setsockopt((int)fd, 6, 30, &on, sizeof on);
    SYS_close((int)fd);
    return result;
}

static void sockets(long port) {
    tell("a unix socket", connecting_unix(SOCK_STREAM, at(outside, "socket")));
    tell("a unix socket by a link", connecting_unix(SOCK_STREAM, at(inside, "socket")));
    tell("a datagram socket", connecting_unix(SOCK_DGRAM, at(outside, "datagrams")));
    tell("a datagram socket by a pair", connecting_pair(at(outside, "datagrams")));
    tell("an abstract socket", connecting_unix(SOCK_STREAM, "@wali-escape-test"));
    tell("TCP: connect", on_stream(port, 0));
    tell("TCP: bind", on_stream(0, 1));
    tell("TCP: listen without bind", on_stream(0, 2));
    tell("TCP: fast open", on_stream(port, 3));
    tell("TCP: fast open by an option", on_stream(port, 4));
    tell("UDP", made(AF_INET, SOCK_DGRAM, 0));
    tell("MPTCP", made(AF_INET, SOCK_STREAM, 262));
    tell("SCTP", made(AF_INET, SOCK_STREAM, 132));
    tell("raw", made(AF_INET, 3, 1));
    tell("packets", made(17, 3, 0x300));
    tell("netlink", made(16, 3, 0));
    tell("the host of a virtual machine", made(40, SOCK_STREAM, 0));
    tell("cryptography", made(38, 5, 0));
}

/* --- processes and memory --------------------------------------------------------------------- */

static long native(const char *path) {
    const char *arguments[] = {path, NULL};
    int status = 0;
    long child = SYS_fork();
    if (child == 0) {
        SYS_execve(path, arguments, arguments + 1);
        leave(99);
    }
    if (child < 0)
        return child;
    SYS_wait4((int)child, &status, 0, NULL);
    return status ? -1 : 0;
}

static void processes(int parent) {
    unsigned long cpus[16];
    tell("a signal to the parent", SYS_kill(parent, 0));
    tell("a signal to a thread", SYS_tkill(parent, 0));
    tell("a signal to a thread of a process", SYS_tgkill(parent, parent, 0));
    tell("a group of another", SYS_getpgid(parent));
    tell("a session of another", SYS_getsid(parent));
    tell("processors of another", SYS_sched_getaffinity(parent, sizeof cpus, cpus));
    tell("scheduler of another", SYS_sched_getscheduler(parent));
    tell("parameter of another", SYS_sched_getparam(parent, text));
    tell("priority of another", SYS_getpriority(0, parent));
    tell("priority of all", SYS_getpriority(2, 0));
    tell("limits of another", SYS_prlimit64(parent, 7, NULL, text));
    tell("a program of the host's", native("/bin/true"));
    tell("become root", SYS_getuid() && SYS_setuid(0) == 0 ? 0 : -EPERM);
}

static void memory(void) {
    long page = SYS_mmap(NULL, PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    tell("map code", SYS_mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_NEW, -1, 0));
    tell("make code", SYS_mprotect((void *)(size_t)page, PAGE, PROT_READ | PROT_EXEC));
    tell("read into nothing", SYS_read(0, (void *)0xfffff000, 1 << 20));
    tell("map where nothing is",
         SYS_mmap((void *)0xfffff000, PAGE, PROT_BOTH, MAP_NEW | MAP_FIXED, -1, 0));
    tell("options of the process", SYS_prctl(4, 0, 0, 0, 0)); /* PR_SET_DUMPABLE */
    tell("a filter of its own", SYS_prctl(22, 2, 0, 0, 0));
}

static long of_copy(void) {
    long fd = SYS_dup(0);
    long result = SYS_fchmod((int)fd, 0640);
    SYS_close((int)fd);
    return result;
}

/* A descriptor travels by a socket and comes back as another. */
static long of_sent(void) {
    int ends[2];
    long result = SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    if (result < 0)
        return result;
    char letter = 'x';
    struct iovec part = {&letter, 1};
    struct {
        unsigned long size;
        int level, kind, fd;
    } __attribute__((packed)) sent = {20, 1, 1, 0};
    unsigned header[9] = {0, 0, (unsigned)(size_t)&part, 1, 0, (unsigned)(size_t)&sent, 20, 0, 0};
    result = SYS_sendmsg(ends[0], header, 0);
    header[6] = 20;
    if (result == 1 && SYS_recvmsg(ends[1], header, 0) == 1) {
        result = SYS_fchmod(sent.fd, 0640);
        SYS_close(sent.fd);
    }
    SYS_close(ends[0]);
    SYS_close(ends[1]);
    return result < 0 ? result : 0;
}

/* The streams are the host's: what they are opened to must not change under its feet. */
static void streams(void) {
    int one = 1;
    char letter = 'x';
    tell("type on a terminal", SYS_ioctl(0, 0x5412, &letter)); /* TIOCSTI */
    tell("owner of a stream", SYS_fcntl(0, 8, SYS_getpid()));  /* F_SETOWN */
    tell("signal of a stream", SYS_fcntl(0, 10, 9));           /* F_SETSIG */
    tell("lease of a stream", SYS_fcntl(0, 1024, 0));          /* F_SETLEASE */
    tell("mode of a stream", SYS_fchmod(0, 0640));
    tell("owner of a stream's file", SYS_fchown(0, SYS_getuid(), SYS_getgid()));
    tell("owner of a stream's file by its empty name",
         SYS_fchownat(0, "", SYS_getuid(), SYS_getgid(), 0x1000));
    tell("times of a stream", SYS_utimensat(0, NULL, times, 0));
    tell("times of a stream by its empty name", SYS_utimensat(0, "", times, 0x1000));
    tell("times of a stream in microseconds", SYS_futimesat(0, NULL, NULL));
    tell("mode of a stream by another number", of_copy());
    tell("mode of a stream that was sent", of_sent());
    SYS_fcntl(0, 4, O_NONBLOCK | O_APPEND);
    SYS_ioctl(1, 0x5421, &one); /* FIONBIO */
    long found = -1;
    for (int fd = 3; fd < 1024; fd++)
        if (SYS_fcntl(fd, 1, 0) >= 0)
            found = fd;
    tell("descriptors of the host", found);
}

/* What no program can have: Linux's, but not served. */
#if IS_WALI
#define UNSERVED(name) WALI("SYS_" #name) long SYS_##name(long, long, long, long, long, long);
#define TRY(name) tell("unserved: " #name, SYS_##name(0, 0, 0, 0, 0, 0));
#define ALL(each)                                                                                  \
    each(ptrace) each(process_vm_readv) each(process_vm_writev) each(pidfd_open) each(pidfd_getfd) \
        each(kcmp) each(userfaultfd) each(io_uring_setup) each(io_uring_enter) each(shmat)         \
            each(shmget) each(execveat) each(memfd_create) each(clone) each(clone3) each(vfork)    \
                each(open_by_handle_at) each(name_to_handle_at) each(pivot_root) each(mount)       \
                    each(umount2) each(move_mount) each(setns) each(unshare) each(mknod)           \
                        each(mknodat) each(bpf) each(perf_event_open) each(keyctl) each(add_key)   \
                            each(seccomp) each(landlock_restrict_self) each(capset)                \
                                each(init_module) each(kexec_load) each(reboot) each(swapon)       \
                                    each(ioperm) each(modify_ldt) each(personality) each(acct)     \
                                        each(settimeofday) each(sethostname) each(quotactl)        \
                                            each(process_madvise) each(rt_sigqueueinfo)            \
                                                each(fanotify_init) each(inotify_init1)            \
                                                    each(splice) each(tee) each(vmsplice)
ALL(UNSERVED)

static void unserved(void) {
    ALL(TRY)
}
#else
static void unserved(void) {
}
#endif

/* The name is exchanged with a link that leads out, again and again, while it is used. */
static void racing(long tries) {
    const char *path = at(inside, "swapped/secret");
    struct stat about;
    long read_it = -1, stated_it = -1, made_it = 0;
    for (long i = 0; i < tries; i++) {
        path = at(inside, "swapped/secret");
        long size = reading(path);
        if (size > 0 && text[0] == 'S')
            read_it = i;
        made_it += size > 0;
        if (SYS_stat(path, &about) == 0 && about.size != 4)
            stated_it = i;
        SYS_chmod(path, 0600);
        SYS_utimensat(AT_FDCWD, path, times, 0);
        long fd = SYS_open(at(inside, "swapped/new"), O_WRONLY | O_CREAT, 0600);
        if (fd >= 0)
            SYS_close((int)fd);
        SYS_unlink(at(inside, "swapped/new"));
    }
    tell("race: read", read_it);
    tell("race: stat", stated_it);
    tell("within", made_it);
}

int main(int argc, char **argv) {
    if (argc < 6)
        return 2;
    outside = argv[1], inside = argv[2], shelf = argv[3];
    if (argc > 6) {
        racing(number(argv[6]));
        return 0;
    }
    contents();
    metadata();
    read_only();
    elsewhere();
    sockets(number(argv[4]));
    processes((int)number(argv[5]));
    memory();
    unserved();
    streams();
    return 0;
}
