/* Buffers that reach beyond what there is: what fits is moved where the kernel moves it, by each
 * call, up to the end of memory, a page that is protected, and one that is gone. */
#include "wali.h"

static const char *const kinds[] = {"end", "protected", "gone"};
static const char *kind;
static char *edge; /* the first byte that is not there */
static int file, dir, ends[2], pair[2], packets[2];

enum { SEEN = 64, MANY = 5000 };

static void prepare(void) {
    for (int i = 1; i <= SEEN; i++)
        edge[-i] = (char)('A' + i % 26);
}

/* What came of it, and what is in the last bytes now. */
static void tried(const char *call, long result, int seen) {
    unsigned long sum = 0;
    for (int i = SEEN; seen && i; i--)
        sum = sum * 31 % 1000003 + (unsigned char)edge[-i];
    say("%s %s: %d %d\n", call, kind, result, (long)sum);
}

#define SEE(call)                                                                                  \
    do {                                                                                           \
        prepare();                                                                                 \
        tried(#call, SYS_##call, 1);                                                               \
    } while (0)
/* Where what the kernel writes is another each time. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        prepare();                                                                                 \
        tried(#call, SYS_##call, 0);                                                               \
    } while (0)
#define AT(n) (edge - (n))

/* What is left in a pipe or a socket. */
static void drain(const char *what, int fd) {
    static char room[MANY];
    long got, all = 0;
    while ((got = SYS_read(fd, room, sizeof room)) > 0)
        all += got;
    say("  left in %s: %d\n", what, all);
}

static void fill(int fd, size_t size) {
    static char text[MANY];
    for (int i = 0; i < MANY; i++)
        text[i] = (char)('a' + i % 26);
    SYS_write(fd, text, size);
}

static void files(void) {
    SEE(pread64(file, AT(10), 100, 3));
    SEE(pread64(file, AT(0), 100, 3));
    SEE(pread64(file, AT(1), 0x7fffffff, 0));
    SYS_lseek(file, 0, 0);
    SEE(read(file, AT(10), 100));
    SEE(read(file, AT(0), 100));
    SEE(read(file, AT(10), 10));
    TRY(lseek(file, 0, 1));
    struct iovec parts[3] = {{AT(30), 10}, {AT(5), 20}, {AT(20), 4}};
    SEE(readv(file, parts, 3));
    SEE(preadv(file, parts, 3, 2, 0));
    SEE(preadv(file, parts + 1, 1, 2, 0));
    SEE(preadv(file, parts, 1, 2, 0));
    struct iovec *across = (struct iovec *)(void *)AT(sizeof *across + 4);
    SEE(readv(file, across, 2));
    SEE(preadv(file, across, 2, 0, 0));
    int out = (int)SYS_open("out", O_RDWR | O_CREAT | O_TRUNC, 0600);
    SEE(write(out, AT(10), 100));
    SEE(pwrite64(out, AT(10), 100, 50));
    SEE(pwrite64(out, AT(0), 100, 50));
    SEE(writev(out, parts, 3));
    SEE(pwritev(out, parts, 3, 70, 0));
    SEE(writev(out, across, 2));
    TRY(lseek(out, 0, 2));
    SYS_close(out);
}

static void folders(void) {
    struct stat status;
    SYS_lseek(dir, 0, 0);
    TRY(getdents64(dir, AT(40), 4096));
    SYS_lseek(dir, 0, 0);
    TRY(getdents64(dir, AT(8), 4096));
    SYS_lseek(dir, 0, 0);
    TRY(getdents64(dir, AT(24), 24));
    SEE(readlink("link", AT(20), 4096));
    SEE(readlink("link", AT(5), 4096));
    SEE(readlink("link", AT(5), 5));
    SEE(readlinkat(dir, "link", AT(6), 64));
    TRY(getcwd(AT(2), 4096));
    SYS_chdir("/");
    SEE(getcwd(AT(2), 4096));
    SEE(getcwd(AT(1), 4096));
    SYS_fchdir(dir);
    TRY(stat(".", AT(sizeof status)));
    TRY(stat(".", AT(sizeof status - 1)));
    TRY(statx(dir, ".", 0, 0x7ff, AT(255)));
    TRY(statfs(".", AT(119)));
    TRY(statfs(".", AT(120)));
    edge[-1] = 0;
    edge[-2] = '.';
    say("a path that just fits: %d\n", SYS_access(AT(2), 0));
    edge[-1] = '/';
    say("one without an end: %d\n", SYS_access(AT(2), 0));
    TRY(mkdir(AT(2), 0700));
    TRY(symlink(AT(2), "nowhere"));
    TRY(utimensat(dir, "file", AT(24), 0));
}

static void streams(void) {
    fill(ends[1], 100);
    SEE(read(ends[0], AT(10), 100));
    SEE(read(ends[0], AT(10), 10));
    drain("the pipe", ends[0]);
    SEE(write(ends[1], AT(10), 100));
    SEE(write(ends[1], AT(10), MANY));
    drain("the pipe", ends[0]);
    struct iovec parts[2] = {{AT(30), 10}, {AT(5), 20}};
    SEE(writev(ends[1], parts, 2));
    drain("the pipe", ends[0]);
    fill(ends[1], 100);
    SEE(readv(ends[0], parts, 2));
    drain("the pipe", ends[0]);
    int counter = (int)SYS_eventfd2(7, O_NONBLOCK);
    SEE(read(counter, AT(4), 8));
    SEE(read(counter, AT(8), 100));
    SEE(write(counter, AT(4), 8));
    SYS_close(counter);
    int full = (int)SYS_open("/dev/zero", O_RDWR, 0);
    SEE(read(full, AT(10), MANY));
    SEE(write(full, AT(10), MANY));
    SYS_close(full);
}

static void sockets(void) {
    unsigned size = 100;
    fill(pair[1], 100);
    SEE(recvfrom(pair[0], AT(10), 100, 2, NULL, NULL));
    SEE(recvfrom(pair[0], AT(10), 100, 0, NULL, NULL));
    SEE(read(pair[0], AT(10), 100));
    drain("the socket", pair[0]);
    SEE(sendto(pair[1], AT(10), 100, 0, NULL, 0));
    SEE(write(pair[1], AT(10), 100));
    drain("the socket", pair[0]);
    fill(packets[1], 100);
    fill(packets[1], 50);
    SEE(recvfrom(packets[0], AT(10), 100, 0, NULL, NULL));
    SEE(recvfrom(packets[0], AT(10), 10, 0, NULL, NULL));
    SEE(sendto(packets[1], AT(10), 100, 0, NULL, 0));
    drain("the packets", packets[0]);
    struct iovec parts[2] = {{AT(30), 10}, {AT(5), 20}};
    struct {
        void *name;
        unsigned name_size;
        struct iovec *parts;
        size_t count;
        void *control;
        size_t control_size;
        int flags;
    } message = {NULL, 0, parts, 2, NULL, 0, 0};
    TRY(sendmsg(pair[1], &message, 0));
    fill(pair[1], 100);
    SEE(recvmsg(pair[0], &message, 0));
    drain("the socket", pair[0]);
    TRY(recvmsg(pair[0], AT(20), 0));
    SEE(getsockname(pair[0], AT(1), &size));
    say("  size %d\n", (long)size);
    size = 100;
    SEE(getsockname(pair[0], AT(2), &size));
    TRY(getsockopt(pair[0], 1, 3, AT(2), &size));
    size = 100;
    SEE(getsockopt(pair[0], 1, 3, AT(4), &size));
    say("  size %d\n", (long)size);
    TRY(getsockopt(pair[0], 1, 3, AT(4), (unsigned *)(void *)AT(3)));
    TRY(setsockopt(pair[0], 1, 7, AT(3), 4));
    TRY(bind(pair[0], AT(3), 16));
    TRY(connect(pair[0], AT(3), 16));
}

static void waits(void) {
    struct timespec none = {0, 0};
    int epoll = (int)SYS_epoll_create1(0);
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {POLLOUT, 7};
        SYS_epoll_ctl(epoll, 1, pair[i], &event);
    }
    SEE(epoll_wait(epoll, AT(24), 100, 0));
    SEE(epoll_wait(epoll, AT(12), 100, 0));
    TRY(epoll_wait(epoll, AT(4), 100, 0));
    SEE(epoll_ctl(epoll, 3, pair[0], AT(4)));
    SYS_close(epoll);
    TRY(poll(AT(12), 2, 0));
    TRY(select(64, AT(4), NULL, NULL, &none));
    TRY(select(0, NULL, NULL, NULL, AT(8)));
    TRY(nanosleep(AT(8), NULL));
    TRY(clock_gettime(CLOCK_REALTIME, AT(8)));
    TRY(clock_gettime(2, AT(8)));
    TRY(gettimeofday(AT(8), NULL));
}

static void others(void) {
    TRY(getrandom(AT(10), 100, 0));
    TRY(getrandom(AT(0), 100, 0));
    TRY(getrandom(AT(10), 0x7fffffff, 0));
    TRY(uname(AT(390)));
    TRY(uname(AT(389)));
    TRY(sysinfo(AT(112)));
    TRY(sysinfo(AT(111)));
    TRY(getrusage(0, AT(144)));
    TRY(getrusage(0, AT(143)));
    TRY(getrlimit(7, AT(16)));
    TRY(getrlimit(7, AT(15)));
    TRY(pipe((int *)(void *)AT(4)));
    TRY(pipe((int *)(void *)AT(8)));
    for (int i = 0; i < 2; i++)
        SYS_close(((int *)(void *)AT(8))[i]);
    SEE(ioctl(ends[0], 0x541b, AT(4)));
    SEE(ioctl(ends[0], 0x541b, AT(3)));
    SEE(fcntl(file, 5, (long)(size_t)AT(31)));
    TRY(rt_sigprocmask(SIG_BLOCK, AT(7), NULL, 8));
    TRY(rt_sigprocmask(SIG_BLOCK, NULL, AT(7), 8));
    SEE(rt_sigprocmask(SIG_BLOCK, NULL, AT(8), 8));
    SEE(rt_sigpending(AT(8), 8));
    SEE(rt_sigpending(AT(8), 9));
    TRY(rt_sigaction(SIGUSR1, NULL, AT(4), 8));
    SEE(setitimer(0, NULL, AT(31)));
    int child = (int)SYS_fork();
    if (child == 0)
        leave(3);
    SEE(wait4(child, (int *)(void *)AT(3), 0, NULL) == child);
}

/* The end of memory; natively that is where nothing is mapped any more. */
static char *end(void) {
#if defined(__wasm__)
    return (char *)(size_t)((__builtin_wasm_memory_grow(0, 1) + 1) << 16);
#else
    char *pages = (char *)(size_t)SYS_mmap(NULL, 2 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    SYS_munmap(pages + PAGE, PAGE);
    return pages + PAGE;
#endif
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    SYS_mkdir("d", 0700);
    SYS_symlink("the target", "link");
    dir = (int)SYS_open(".", O_RDONLY, 0);
    file = (int)SYS_open("file", O_RDWR | O_CREAT, 0600);
    fill(file, MANY);
    SYS_pipe2(ends, O_NONBLOCK);
    SYS_socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
    SYS_socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, packets);
    char *pages[2];
    for (int i = 0; i < 2; i++)
        pages[i] = (char *)(size_t)SYS_mmap(NULL, 3 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    SYS_mprotect(pages[0] + PAGE, PAGE, PROT_NONE);
    SYS_munmap(pages[1] + PAGE, PAGE);
    char *const edges[] = {end(), pages[0] + PAGE, pages[1] + PAGE};
    for (int k = 0; k < 3; k++) {
        kind = kinds[k];
        edge = edges[k];
        files();
        folders();
        streams();
        sockets();
        waits();
        others();
    }
    return 0;
}
