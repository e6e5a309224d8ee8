/* Does what its arguments say, two by two, and prints what came of it. */
#include "wali.h"

static struct inet_address address(const char *port) {
    long n = number(port);
    return (struct inet_address){
        AF_INET, {(unsigned char)(n >> 8), (unsigned char)n}, {127, 0, 0, 1}, {0}};
}

static long closed(long fd) {
    if (fd >= 0)
        SYS_close((int)fd);
    return fd >= 0 ? 0 : fd;
}

static long first_byte(long fd) {
    char byte;
    return fd < 0 ? fd : SYS_read((int)fd, &byte, 1);
}

/* "FOLDER NAME": the name in the folder, by a descriptor of that. */
static long beneath(char *words) {
    char *name = words;
    while (*name && *name != ' ')
        name++;
    *name++ = 0;
    long dir = SYS_open(words, O_PATH | O_DIRECTORY, 0);
    return dir < 0 ? dir : SYS_openat((int)dir, name, O_RDWR, 0);
}

static long rename_into(char *words) {
    char *to = words;
    while (*to && *to != ' ')
        to++;
    *to++ = 0;
    return SYS_rename(words, to);
}

static long stream(void) {
    return SYS_socket(AF_INET, SOCK_STREAM, 0);
}

static long to_port(const char *port, int listens) {
    struct inet_address there = address(port);
    long fd = stream();
    if (fd < 0)
        return fd;
    int on = 1;
    SYS_setsockopt((int)fd, 1, 2, &on, sizeof on);
    long r = listens ? SYS_bind((int)fd, &there, sizeof there)
                     : SYS_connect((int)fd, &there, sizeof there);
    if (r == 0 && listens)
        r = SYS_listen((int)fd, 1);
    SYS_close((int)fd);
    return r;
}

static long to_path(const char *path) {
    struct {
        unsigned short family;
        char path[108];
    } there = {AF_UNIX, {0}};
    for (int i = 0; path[i] && i < 107; i++)
        there.path[i] = path[i];
    long fd = SYS_socket(AF_UNIX, SOCK_STREAM, 0);
    long r = fd < 0 ? fd : SYS_connect((int)fd, &there, sizeof there);
    SYS_close((int)fd);
    return r;
}

static long list(const char *path) {
    static char names[4096];
    long fd = SYS_open(path, O_RDONLY | O_DIRECTORY, 0);
    long r = fd < 0 ? fd : SYS_getdents64((int)fd, names, sizeof names);
    SYS_close((int)fd);
    return r;
}

static long listen_unbound(void) {
    long fd = stream();
    return fd < 0 ? fd : SYS_listen((int)fd, 1);
}

static long in_child(void) {
    int status = 0;
    long child = SYS_fork();
    if (child == 0)
        leave(0);
    return child < 0 ? child : SYS_wait4((int)child, &status, 0, NULL) == child ? status : -1;
}

static long executed(const char *path) {
    int status = 0;
    long child = SYS_fork();
    if (child == 0)
        leave((int)-SYS_execve(path, (const char *[]){path, NULL}, (const char *[]){NULL}));
    return child < 0 ? child : SYS_wait4((int)child, &status, 0, NULL) == child ? status : -1;
}

static long own_memory(char *path) {
    long fd = SYS_open(path, O_RDWR, 0);
    char byte;
    return fd < 0 ? fd : SYS_pread64((int)fd, &byte, 1, 0x10000) < 0 ? 1 : 2;
}

static long map_file(const char *path) {
    long fd = SYS_open(path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    long r = SYS_mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, (int)fd, 0);
    SYS_close((int)fd);
    return r < 0 ? r : 0;
}

static long protect(void) {
    long at = SYS_mmap(NULL, PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    return at < 0 ? at : SYS_mprotect((void *)(size_t)at, PAGE, PROT_NONE);
}

/* F_SETLKW, or F_OFD_SETLKW. */
static long wait_for_lock(const char *path, int how) {
    struct {
        short kind, whence;
        long start, length;
        int pid, pad;
    } whole = {.kind = 1};
    long fd = SYS_open(path, O_RDWR, 0);
    return fd < 0 ? fd : SYS_fcntl((int)fd, how, (long)(size_t)&whole);
}

static long attempt(const char *what, char *on) {
    if (equal(what, "wait for a lock"))
        return wait_for_lock(on, 7);
    if (equal(what, "wait for a file's lock"))
        return wait_for_lock(on, 38);
    struct stat about;
    struct timespec times[2] = {{1, 0}, {1, 0}};
    char text[256];
    if (equal(what, "read"))
        return first_byte(SYS_open(on, O_RDONLY, 0));
    if (equal(what, "open to write"))
        return closed(SYS_open(on, O_RDWR, 0));
    if (equal(what, "open as a path"))
        return closed(SYS_open(on, O_PATH, 0));
    if (equal(what, "create"))
        return closed(SYS_open(on, O_WRONLY | O_CREAT, 0600));
    if (equal(what, "open beneath"))
        return closed(beneath(on));
    if (equal(what, "open memory"))
        return own_memory(on);
    if (equal(what, "rename"))
        return rename_into(on);
    if (equal(what, "truncate"))
        return SYS_truncate(on, 0);
    if (equal(what, "mkdir"))
        return SYS_mkdir(on, 0700);
    if (equal(what, "unlink"))
        return SYS_unlink(on);
    if (equal(what, "stat"))
        return SYS_stat(on, &about);
    if (equal(what, "is link")) {
        struct stat seen;
        long r = SYS_lstat(on, &seen);
        return r < 0 ? r : (seen.mode & 0170000) == 0120000;
    }
    if (equal(what, "readlink"))
        return SYS_readlink(on, text, sizeof text) < 0 ? -1 : 0;
    if (equal(what, "chdir"))
        return SYS_chdir(on);
    if (equal(what, "chdir by descriptor"))
        return SYS_fchdir((int)SYS_open(on, O_RDONLY | O_DIRECTORY, 0));
    if (equal(what, "chroot"))
        return SYS_chroot(on);
    if (equal(what, "become"))
        return SYS_execve(on, (const char *[]){on, "open memory", "mem", NULL}, NULL);
    if (equal(what, "chmod"))
        return SYS_chmod(on, 0600);
    if (equal(what, "set times"))
        return SYS_utimensat(AT_FDCWD, on, times, 0);
    if (equal(what, "connect"))
        return to_port(on, 0);
    if (equal(what, "connect by path"))
        return to_path(on);
    if (equal(what, "list"))
        return list(on);
    if (equal(what, "access"))
        return SYS_access(on, 4);
    if (equal(what, "listen"))
        return to_port(on, 1);
    if (equal(what, "listen unbound"))
        return listen_unbound();
    if (equal(what, "datagrams"))
        return closed(SYS_socket(AF_INET, SOCK_DGRAM, 0));
    if (equal(what, "raw packets"))
        return closed(SYS_socket(AF_INET, 3, 1));
    if (equal(what, "multipath"))
        return closed(SYS_socket(AF_INET, SOCK_STREAM, 262));
    if (equal(what, "netlink"))
        return closed(SYS_socket(16, 3, 0));
    if (equal(what, "unix"))
        return closed(SYS_socket(AF_UNIX, SOCK_STREAM, 0));
    if (equal(what, "fork"))
        return in_child();
    if (equal(what, "execute"))
        return executed(on);
    if (equal(what, "kill"))
        return SYS_kill((int)number(on), 0);
    if (equal(what, "kill parent"))
        return SYS_kill((int)SYS_getppid(), 0);
    if (equal(what, "group of parent"))
        return SYS_getpgid((int)SYS_getppid()) < 0 ? SYS_getpgid((int)SYS_getppid()) : 0;
    if (equal(what, "processors of parent"))
        return SYS_sched_getaffinity((int)SYS_getppid(), sizeof text, text) < 0 ? -1 : 0;
    if (equal(what, "own group"))
        return SYS_getpgid((int)SYS_getpid()) < 0 ? -1 : 0;
    if (equal(what, "no cores"))
        return SYS_setrlimit(4, (unsigned long[2]){0, 0});
    if (equal(what, "user"))
        return SYS_setuid((unsigned)SYS_getuid());
    if (equal(what, "getcwd"))
        return SYS_getcwd(text, sizeof text) < 0 ? -1 : 0;
    if (equal(what, "umask"))
        return SYS_umask(022);
    if (equal(what, "is open"))
        return SYS_fcntl((int)number(on), 1, 0) < 0 ? -9 : 0;
    if (equal(what, "map a file"))
        return map_file(on);
    if (equal(what, "map memory"))
        return SYS_mmap(NULL, (size_t)number(on), PROT_BOTH, MAP_NEW, -1, 0) < 0 ? -1 : 0;
    if (equal(what, "protect"))
        return protect();
    if (equal(what, "map code"))
        return SYS_mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_NEW, -1, 0);
    if (equal(what, "make code")) {
        void *at = (void *)(size_t)SYS_mmap(NULL, PAGE, PROT_BOTH, MAP_NEW, -1, 0);
        return SYS_mprotect(at, PAGE, PROT_READ | PROT_EXEC);
    }
    if (equal(what, "wait"))
        return SYS_wait4(-1, NULL, WNOHANG, NULL);
    if (equal(what, "poll"))
        return SYS_poll(NULL, 0, 0);
    if (equal(what, "random"))
        return SYS_getrandom(text, 8, 0);
    if (equal(what, "clock"))
        return SYS_clock_gettime(CLOCK_MONOTONIC, times);
    if (equal(what, "pid"))
        return SYS_getpid() < 0 ? SYS_getpid() : 1;
    return -9999;
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2)
        say("%d\n", attempt(argv[i], argv[i + 1]));
    return 0;
}
