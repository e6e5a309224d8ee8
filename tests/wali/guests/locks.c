/* Locks on files: of the open file, of the process, and of the description; between processes. */
#include "wali.h"

struct flock {
    short kind, whence;
    long start, length;
    int pid, pad;
};

enum { READ, WRITE, UNLOCK, GETLK = 5, SETLK, SETLKW, OFD_GETLK = 36, OFD_SETLK, OFD_SETLKW };
enum { SH = 1, EX, NB = 4, UN = 8 };

static long lock(int fd, int how, short kind, long start, long length) {
    struct flock l = {.kind = kind, .start = start, .length = length};
    return SYS_fcntl(fd, how, (long)(size_t)&l);
}

/* Done by another process, whose result is told here. */
static void other(const char *what, int fd, int how, short kind) {
    int status = 0;
    long child = SYS_fork();
    if (child == 0)
        leave((int)-lock(fd, how, kind, 0, 10));
    SYS_wait4((int)child, &status, 0, NULL);
    tell(what, status >> 8);
}

static void whole_files(void) {
    int a = (int)SYS_open("whole", O_RDWR | O_CREAT, 0600), b = (int)SYS_open("whole", O_RDWR, 0);
    tell("shared", SYS_flock(a, SH));
    tell("shared by two", SYS_flock(b, SH));
    tell("not alone", SYS_flock(a, EX | NB));
    tell("given up", SYS_flock(b, UN));
    tell("alone", SYS_flock(a, EX));
    tell("not shared", SYS_flock(b, SH | NB));
    int copy = (int)SYS_dup(a);
    SYS_close(a);
    tell("held by the copy", SYS_flock(b, EX | NB));
    SYS_close(copy);
    tell("free", SYS_flock(b, EX | NB));
    tell("how", SYS_flock(b, 64));
    tell("of nothing", SYS_flock(77, EX));
    SYS_close(b);
    SYS_unlink("whole");
}

static void records(void) {
    int fd = (int)SYS_open("records", O_RDWR | O_CREAT, 0600);
    struct flock l = {.kind = WRITE, .start = 5, .length = 10};
    tell("lock", lock(fd, SETLK, WRITE, 0, 10));
    tell("my own is no hindrance", SYS_fcntl(fd, GETLK, (long)(size_t)&l));
    tell("  kind", l.kind);
    int status;
    long child = SYS_fork();
    if (child == 0) {
        l.kind = READ;
        tell("ask", SYS_fcntl(fd, GETLK, (long)(size_t)&l));
        tell("  kind", l.kind);
        tell("  from", l.start);
        tell("  length", l.length);
        tell("  whose", l.pid == SYS_getppid());
        tell("refused", lock(fd, SETLK, READ, 9, 1));
        tell("behind it", lock(fd, SETLK, WRITE, 10, 10));
        leave(0);
    }
    SYS_wait4((int)child, &status, 0, NULL);
    other("held", fd, SETLK, WRITE);
    tell("unlock", lock(fd, SETLK, UNLOCK, 0, 0));
    other("free", fd, SETLK, WRITE);
    tell("wait for nobody", lock(fd, SETLKW, WRITE, 0, 1));
    tell("wrong kind", lock(fd, SETLK, 9, 0, 1));
    tell("before the start", lock(fd, SETLK, WRITE, -5, 1));
    tell("of nothing", lock(77, SETLK, WRITE, 0, 1));
    tell("nowhere", SYS_fcntl(fd, SETLK, 0xfffffffc));
    int read_only = (int)SYS_open("records", O_RDONLY, 0);
    tell("to write what is to read", lock(read_only, SETLK, WRITE, 0, 1));
    SYS_close(read_only);
    other("closing another number gave it up", fd, SETLK, WRITE);
    SYS_close(fd);
    SYS_unlink("records");
}

/* A child holds a lock until it is told to end; the parent's call waits. */
static void waiting(void) {
    int fd = (int)SYS_open("waited", O_RDWR | O_CREAT, 0600), ready[2], status;
    char byte;
    SYS_pipe(ready);
    long child = SYS_fork();
    if (child == 0) {
        lock(fd, SETLK, WRITE, 0, 1);
        SYS_write(ready[1], "r", 1);
        struct timespec little = {0, 50000000};
        SYS_nanosleep(&little, NULL);
        leave(7);
    }
    SYS_read(ready[0], &byte, 1);
    tell("held", lock(fd, SETLK, WRITE, 0, 1));
    tell("waited for", lock(fd, SETLKW, WRITE, 0, 1));
    tell("  until it ended", SYS_wait4((int)child, &status, WNOHANG, NULL) >= 0);
    SYS_close(fd);
    SYS_unlink("waited");
}

static void descriptions(void) {
    int a = (int)SYS_open("own", O_RDWR | O_CREAT, 0600), b = (int)SYS_open("own", O_RDWR, 0);
    struct flock l = {.kind = WRITE, .length = 1};
    tell("of the description", lock(a, OFD_SETLK, WRITE, 0, 1));
    tell("not by the other", lock(b, OFD_SETLK, READ, 0, 1));
    tell("ask", SYS_fcntl(b, OFD_GETLK, (long)(size_t)&l));
    tell("  whose", l.pid);
    l.pid = 5;
    tell("with a number", SYS_fcntl(b, OFD_SETLK, (long)(size_t)&l));
    SYS_close(a);
    tell("wait for nobody", lock(b, OFD_SETLKW, WRITE, 0, 1));
    SYS_close(b);
    SYS_unlink("own");
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    whole_files();
    records();
    waiting();
    descriptions();
    return 0;
}
