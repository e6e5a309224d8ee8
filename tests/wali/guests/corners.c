/* Arguments at their ends: limits that are lowered, numbers that are too large, buffers that reach
 * beyond memory. */
#define STACKS 8
#include "thread.h"

CALL(epoll_create, 213, (int size), size)

enum { RLIMIT_NOFILE = 7, RLIMIT_AS = 9, F_DUPFD = 0, F_GETFD = 1, SOCK_SEQPACKET = 5 };
enum { FUTEX_WAKE_OP = 5, ADD_ONE_IF_NONE = 1 << 28 | 1 << 12, SS_DISABLE = 2 };

struct limits {
    unsigned long now, most;
};

static long limit(int resource, unsigned long now, unsigned long most) {
    struct limits wanted = {now, most}, found = {0, 0};
    long result = SYS_setrlimit(resource, &wanted);
    SYS_getrlimit(resource, &found);
    say("limit %d of %d: ", (long)found.now, (long)found.most);
    return tell("setrlimit", result);
}

static void files(void) {
    limit(RLIMIT_NOFILE, 1000, 1000);
    limit(RLIMIT_NOFILE, 8, 1000);
    tell("F_DUPFD of an int", SYS_fcntl(0, F_DUPFD, 1L << 32 | 6));
    tell("F_DUPFD of a negative one", SYS_fcntl(0, F_DUPFD, -1));
    while (SYS_dup(0) >= 0)
        ;
    tell("dup among 8", SYS_dup(0));
    tell("dup2 beyond", SYS_dup2(0, 8));
    tell("F_DUPFD beyond", SYS_fcntl(0, F_DUPFD, 8));
    struct pollfd many[9] = {{-1, 0, 0}};
    tell("poll of more than there can be", SYS_poll(many, 9, 0));
    limit(RLIMIT_NOFILE, 1000, 1000);
    for (int i = 8; i < 40; i++)
        SYS_dup(0);
    limit(RLIMIT_NOFILE, 20, 1000);
    tell("above the limit", SYS_fcntl(30, F_GETFD, 0));
    tell("dup", SYS_dup(0));
    tell("dup2 over one above it", SYS_dup2(0, 30));
    tell("close", SYS_close(30));
    tell("and below", SYS_close(10));
    tell("the one below is free", SYS_dup(0));
    limit(RLIMIT_NOFILE, 1000, 1000);
    tell("the one above, too", SYS_dup(0));
    limit(RLIMIT_NOFILE, 0, 900);
    tell("none", SYS_eventfd2(0, 0));
    limit(RLIMIT_NOFILE, 900, 900);
    for (int i = 3; i < 40; i++)
        SYS_close(i);
}

static void selecting(void) {
    static unsigned long set[128];
    struct timespec t = {0, 2500000};
    tell("select for 2.5 s of microseconds", SYS_select(1, NULL, NULL, NULL, &t));
    tell("  left", t.seconds || t.rest);
    t = (struct timespec){1, -1000000};
    tell("less than none", SYS_select(0, NULL, NULL, NULL, &t));
    t = (struct timespec){0, -1};
    tell("negative", SYS_select(0, NULL, NULL, NULL, &t));
    t = (struct timespec){0, 1000000000};
    tell("pselect6 has nanoseconds", SYS_pselect6(0, NULL, NULL, NULL, &t, NULL));
    t = (struct timespec){0, 0};
    tell("select of 8000", SYS_select(8000, set, NULL, NULL, &t));
    tell("pselect6 of 8000", SYS_pselect6(8000, set, NULL, NULL, &t, NULL));
    tell("select of -1", SYS_select(-1, set, NULL, NULL, &t));
}

static void events(void) {
    static struct epoll_event found[300];
    int epoll = (int)SYS_epoll_create1(0), added = 0;
    for (int i = 0; i < 200; i++) {
        int fd = (int)SYS_eventfd2(1, 0);
        struct epoll_event event = {POLLIN, (unsigned long)fd};
        added += SYS_epoll_ctl(epoll, 1, fd, &event) == 0;
    }
    tell("added", added);
    long ready = tell("ready at once", SYS_epoll_wait(epoll, found, 300, 0)), sum = 0;
    for (long i = 0; i < ready; i++)
        sum += (long)found[i].data - epoll;
    tell("their numbers", sum);
    for (int i = 0; i <= 200; i++)
        SYS_close(epoll + i);
    tell("epoll_create of none", SYS_epoll_create(0));
    tell("of less", SYS_epoll_create(-1));
    tell("of one", SYS_epoll_create(1) - epoll);
    SYS_close(epoll);
}

static void buffers(void) {
    static char room[16];
    int ends[2];
    tell("pipe", SYS_pipe(ends));
    SYS_write(ends[1], "abc", 3);
    tell("read of more than there is memory", SYS_read(ends[0], room, 0x7fffffff));
    tell("what came", room[0] == 'a' && room[2] == 'c' && room[3] == 0);
    SYS_close(ends[0]);
    SYS_close(ends[1]);
}

/* What is wrong is looked at in the kernel's order. */
static void wrongs(void) {
    struct iovec parts[1] = {{(void *)-8, 4}};
    tell("read", SYS_read(99, (void *)-8, 4));
    tell("write", SYS_write(99, (void *)-8, 4));
    tell("readv", SYS_readv(99, parts, 1));
    tell("writev of too many", SYS_writev(99, parts, 2000));
    tell("preadv of too many", SYS_preadv(99, parts, 2000, 0, 0));
    tell("preadv before the start", SYS_preadv(99, parts, 1, -1, -1));
    tell("too many of one that is open", SYS_readv(0, parts, 2000));
}

static void times(void) {
    long set[4] = {1000, 500000, 2000, 250000};
    int fd = (int)SYS_openat(AT_FDCWD, "timed", O_CREAT | O_RDWR, 0600);
    struct stat status;
    tell("futimesat of the file itself", SYS_futimesat(fd, NULL, set));
    SYS_fstat(fd, &status);
    tell("accessed", status.accessed.seconds * 1000 + status.accessed.rest / 1000000);
    tell("modified", status.modified.seconds * 1000 + status.modified.rest / 1000000);
    tell("now", SYS_futimesat(fd, NULL, NULL));
    SYS_fstat(fd, &status);
    tell("later", status.modified.seconds > 1000000);
    tell("of nothing", SYS_futimesat(AT_FDCWD, NULL, set));
    SYS_close(fd);
    SYS_unlink("timed");
}

static void sockets(void) {
    static const char address[] = {AF_UNIX, 0, 0, 'c', 'o', 'r', 'n', 'e', 'r', 's'};
    char room[16];
    int listener = (int)SYS_socket(AF_UNIX, SOCK_SEQPACKET, 0);
    tell("bind", SYS_bind(listener, address, sizeof address));
    tell("listen", SYS_listen(listener, 1));
    int client = (int)SYS_socket(AF_UNIX, SOCK_SEQPACKET, 0);
    tell("connect", SYS_connect(client, address, sizeof address));
    int server = (int)SYS_accept(listener, NULL, NULL);
    tell("send", SYS_sendto(client, "one", 3, 0, NULL, 0));
    tell("and", SYS_sendto(client, "three", 5, 0, NULL, 0));
    tell("each by itself", SYS_read(server, room, sizeof room));
    tell("  and", SYS_read(server, room, sizeof room));
    tell("socket", SYS_socket(AF_INET, SOCK_SEQPACKET, 0) < 0);
    int pair[2];
    tell("socketpair", SYS_socketpair(AF_INET, SOCK_STREAM, 0, pair));
    tell("of no family", SYS_socketpair(99, SOCK_STREAM, 0, pair));
}

static void words(void) {
    int first = 0, second = 0;
    tell("FUTEX_WAKE_OP", SYS_futex(&first, FUTEX_WAKE_OP, 1, (void *)1, &second, ADD_ONE_IF_NONE));
    tell("second", second);
    tell("at no word", SYS_futex(&first, FUTEX_WAKE_OP, 1, (void *)1, NULL, ADD_ONE_IF_NONE) < 0);
}

/* --- what is a thread's own ------------------------------------------------------------------- */

struct alternate {
    void *at;
    int flags;
    size_t size;
};

static void set_stack(long argument) {
    static char room[16384];
    struct alternate new = {room, 0, sizeof room}, old = {NULL, 0, 0};
    (void)argument;
    tell("sigaltstack", SYS_sigaltstack(&new, &old));
    tell("before", old.flags == SS_DISABLE);
    SYS_sigaltstack(NULL, &old);
    tell("now", old.flags == 0 && old.at == room);
}

static void nothing(long argument) {
    (void)argument;
}

static void alternates(void) {
    set_stack(0);
    for (int i = 0; i < 4; i++) {
        begin(i, set_stack, 0);
        join(i);
        pause_for(20); /* its number and its stack are free again */
    }
}

/* --- and of the process ----------------------------------------------------------------------- */

static void memory(void) {
    limit(RLIMIT_AS, 512 << 20, 512 << 20);
    long small = (long)(size_t)SYS_mmap(NULL, 1 << 20, PROT_BOTH, MAP_NEW, -1, 0);
    tell("mmap", small < 0 && small > -4096);
    unsigned large = (unsigned)SYS_mmap(NULL, 700 << 20, PROT_BOTH, MAP_NEW, -1, 0);
    tell("of too much", (int)large);
    char *at = (char *)SYS_brk(NULL);
    tell("brk", (char *)SYS_brk(at + PAGE) == at + PAGE);
    tell("a thread", begin(5, nothing, 0) > 0);
    join(5);
    int status = 0, child = (int)SYS_fork();
    if (child == 0)
        leave(limit(RLIMIT_AS, 256 << 20, 512 << 20) ? 1 : 3);
    SYS_wait4(child, &status, 0, NULL);
    tell("fork", status);
    child = (int)SYS_fork();
    if (child == 0) {
        const char *words[] = {"sh", "-c", "ulimit -v", NULL};
        SYS_execve("/bin/sh", words, words + 3);
        leave(127);
    }
    SYS_wait4(child, &status, 0, NULL);
    tell("a native program", status);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    files();
    selecting();
    events();
    buffers();
    wrongs();
    times();
    sockets();
    words();
    alternates();
    memory();
    return 0;
}
