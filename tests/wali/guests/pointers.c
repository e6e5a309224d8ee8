/* Wrong pointers to every call that takes one: an error each time, and nobody dies. */
#include "wali.h"

static char *bad[5];
static const char *const kinds[] = {"null", "last byte", "far", "protected", "across"};
static int ends[2], pair[2], dir, file, epoll;

/* Descriptors must not pile up where a wrong pointer does no harm. */
static long tried(const char *call, const char *kind, long result) {
    say("%s %s: %d\n", call, kind, result);
    for (int fd = 20; fd < 40; fd++)
        SYS_close(fd);
    return result;
}

#define TRY(call) tried(#call, kinds[k], SYS_##call)

static void try_all(int k) {
    char *p = bad[k];
    unsigned size = 16;
    struct timespec none = {0, 0}, times[2] = {{0, 0}, {0, 0}};
    struct pollfd fds = {ends[0], POLLIN, 0};
    char text[64] = {0};
    struct iovec part = {p, 8}, *parts = (struct iovec *)(void *)p;
    SYS_write(ends[1], "12345678", 8);
    TRY(read(ends[0], p, 8));
    TRY(write(ends[1], p, 8));
    TRY(pread64(file, p, 8, 0));
    TRY(pwrite64(file, p, 8, 0));
    TRY(readv(file, &part, 1));
    TRY(readv(file, parts, 1));
    TRY(writev(ends[1], &part, 1));
    TRY(writev(ends[1], parts, 1));
    TRY(open(p, O_RDONLY, 0));
    TRY(openat(dir, p, O_RDONLY, 0));
    TRY(stat(p, text));
    TRY(stat(".", p));
    TRY(lstat(".", p));
    TRY(fstat(file, p));
    TRY(newfstatat(dir, ".", p, 0));
    TRY(statx(dir, ".", 0, 0x7ff, p));
    TRY(statfs(".", p));
    TRY(fstatfs(file, p));
    TRY(access(p, 0));
    TRY(faccessat2(dir, p, 0, 0));
    TRY(mkdir(p, 0700));
    TRY(mkdirat(dir, p, 0700));
    TRY(rmdir(p));
    TRY(unlink(p));
    TRY(unlinkat(dir, p, 0));
    TRY(rename(p, "x"));
    TRY(rename("file", p));
    TRY(renameat2(dir, p, dir, "x", 0));
    TRY(link(p, "x"));
    TRY(link("file", p));
    TRY(linkat(dir, "file", dir, p, 0));
    TRY(symlink(p, "x"));
    TRY(symlink("x", p));
    TRY(symlinkat("x", dir, p));
    TRY(readlink(p, text, 8));
    TRY(readlink("link", p, 8));
    TRY(readlinkat(dir, "link", p, 8));
    TRY(chmod(p, 0600));
    TRY(chown(p, 0, 0));
    TRY(chdir(p));
    TRY(truncate(p, 0));
    TRY(getcwd(p, 4096));
    TRY(getdents64(dir, p, 1024));
    if (k) {
        TRY(utimensat(dir, p, times, 0));
        TRY(utimensat(dir, "file", p, 0));
    }
    TRY(utimes(p, NULL));
    if (k)
        TRY(futimesat(dir, "file", p));
    TRY(pipe((int *)(void *)p));
    TRY(pipe2((int *)(void *)p, 0));
    TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)(void *)p));
    TRY(ioctl(ends[0], 0x541b, p));
    TRY(fcntl(file, 5, (long)(size_t)p));
    TRY(poll(p, 2, 0));
    TRY(ppoll(p, 2, &none, NULL, 8));
    if (k)
        TRY(ppoll(&fds, 1, p, NULL, 8));
    if (k)
        TRY(select(64, p, NULL, NULL, &none));
    if (k)
        TRY(select(0, NULL, NULL, NULL, p));
    if (k)
        TRY(pselect6(0, NULL, NULL, NULL, p, NULL));
    if (k)
        TRY(pselect6(0, NULL, NULL, NULL, &none, p));
    TRY(epoll_ctl(epoll, 3, ends[1], p));
    TRY(epoll_wait(epoll, p, 4, 0));
    TRY(nanosleep(p, NULL));
    TRY(clock_nanosleep(CLOCK_MONOTONIC, 0, p, NULL));
    TRY(clock_gettime(CLOCK_REALTIME, p));
    TRY(clock_gettime(2, p));
    if (k)
        TRY(clock_getres(CLOCK_REALTIME, p));
    if (k)
        TRY(gettimeofday(p, NULL));
    TRY(getrandom(p, 8, 0));
    TRY(uname(p));
    TRY(sysinfo(p));
    TRY(getrusage(0, p));
    TRY(getrlimit(7, p));
    TRY(setrlimit(7, p));
    if (k)
        TRY(prlimit64(0, 7, NULL, p));
    if (k)
        TRY(prlimit64(0, 4, p, NULL));
    TRY(sched_getaffinity(0, 128, p));
    if (k != 1) /* not aligned: that is wrong before it is nowhere */
        TRY(futex(p, 1, 1, NULL, NULL, 0));
    TRY(connect(pair[0], p, 16));
    TRY(bind(pair[0], p, 16));
    TRY(sendto(pair[0], p, 8, 0, NULL, 0));
    SYS_write(pair[1], "12345678", 8);
    TRY(recvfrom(pair[0], p, 8, 0, NULL, NULL));
    TRY(getsockname(pair[0], p, &size));
    TRY(getsockname(pair[0], text, (unsigned *)(void *)p));
    TRY(getpeername(pair[0], text, (unsigned *)(void *)p));
    TRY(setsockopt(pair[0], 1, 7, p, 4));
    size = 4;
    TRY(getsockopt(pair[0], 1, 7, p, &size));
    TRY(getsockopt(pair[0], 1, 7, text, (unsigned *)(void *)p));
    int child = (int)SYS_fork();
    if (child == 0)
        leave(0);
    if (k)
        tried("wait4", kinds[k], SYS_wait4(child, (int *)(void *)p, 0, NULL) == child);
    SYS_wait4(-1, NULL, 0, NULL);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    SYS_pipe2(ends, O_NONBLOCK);
    SYS_socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
    SYS_mkdir("d", 0700);
    SYS_symlink("target", "link");
    file = (int)SYS_open("file", O_RDWR | O_CREAT, 0600);
    SYS_write(file, "0123456789", 10);
    dir = (int)SYS_open(".", O_RDONLY, 0);
    epoll = (int)SYS_epoll_create1(0);
    struct epoll_event event = {POLLOUT, 1};
    SYS_epoll_ctl(epoll, 1, ends[1], &event);
    char *pages = (char *)(size_t)SYS_mmap(NULL, 2 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    for (int i = 0; i < 2 * PAGE; i++)
        pages[i] = 'x';
    SYS_mprotect(pages + PAGE, PAGE, PROT_NONE);
    /* An address that a program can have. */
    char *const far = (char *)(size_t)(IS_WALI ? 0xffff0000l : 1l << 40);
    char *const all[] = {NULL, (char *)-1, far, pages + PAGE, pages + PAGE - 2};
    for (int k = 0; k < 5; k++) {
        bad[k] = all[k];
        try_all(k);
    }
    return 0;
}
