/* Terminals of its own: a pair is made, and a child has one end as its terminal. */
#include "wali.h"

enum { TIOCSCTTY = 0x540E, TIOCGPGRP = 0x540F, TIOCGWINSZ = 0x5413, TIOCSWINSZ = 0x5414 };
enum { TIOCSPTLCK = 0x40045431, TIOCGPTPEER = 0x5441, TIOCGSID = 0x5429, SIGWINCH = 28 };
enum { O_NOCTTY = 0x100 };
#define TIOCGPTN ((int)0x80045430)

static int main_end, number_of;

static int opened(void) {
    int fd = (int)SYS_open("/dev/ptmx", O_RDWR | O_NOCTTY, 0);
    tell("the main end", fd >= 0);
    return fd;
}

/* Read up to a line from the other end that has this in it: before it may be what it echoes. */
static void expect(const char *text) {
    char line[256];
    size_t used = 0;
    while (used < sizeof line && SYS_read(main_end, line + used, 1) == 1) {
        size_t same = 0, size = length(text);
        for (size_t at = 0; line[used] == '\n' && same < size && at + size <= used; at++)
            for (same = 0; same < size && line[at + same] == text[same];)
                same++;
        if (same == size) {
            say("  %s\n", text);
            return;
        }
        used = line[used] == '\n' ? 0 : used + 1;
    }
    say("%s has not come\n", text);
}

static void note(int signal) {
    unsigned short size[4] = {0};
    if (signal == SIGWINCH)
        SYS_ioctl(0, TIOCGWINSZ, size);
    say("signal %d %d\n", (long)signal, (long)size[0]);
}

static void hung_up(int signal) {
    leave(40 + signal);
}

static void child(const char *path) {
    char line[64];
    long got;
    int group = 0, session = 0;
    tell("setsid", SYS_setsid() == SYS_getpid());
    int fd = (int)SYS_open(path, O_RDWR | O_NOCTTY, 0);
    SYS_close(main_end);
    long became = SYS_ioctl(fd, TIOCSCTTY, NULL);
    for (int i = 0; i < 3; i++)
        SYS_dup2(fd, i);
    tell("TIOCSCTTY", became);
    tell("/dev/tty is it", SYS_close((int)SYS_open("/dev/tty", O_RDWR, 0)));
    SYS_ioctl(0, TIOCGPGRP, &group);
    SYS_ioctl(0, TIOCGSID, &session);
    tell("its group", group == SYS_getpid());
    tell("its session", session == SYS_getpid());
    handle(SIGINT, note, 0, 0);
    handle(SIGWINCH, note, 0, 0);
    handle(SIGHUP, hung_up, 0, 0);
    say("ready\n");
    for (;;)
        if ((got = SYS_read(0, line, sizeof line - 1)) >= 0) {
            line[got] = 0;
            say("got %s", line);
        }
}

/* As ttyname(3) asks for it. */
static void named(int fd, const char *path) {
    char own[32] = "/proc/self/fd/", name[64];
    own[14 + decimal(own + 14, fd)] = 0;
    long size = SYS_readlink(own, name, sizeof name - 1);
    name[size > 0 ? size : 0] = 0;
    tell("its name", equal(name, path));
    tell("of less room", SYS_readlink(own, name, 5));
    tell("of no room", SYS_readlink(own, name, 0));
    own[14 + decimal(own + 14, 99)] = 0;
    tell("of none", SYS_readlink(own, name, 5));
}

static void names(void) {
    char room[1024];
    int fd = (int)SYS_open("/dev/pts", O_RDONLY | O_DIRECTORY, 0);
    long size = SYS_getdents64(fd, room, sizeof room), others = 0;
    for (long at = 0; IS_WALI && at < size; at += ((struct dirent *)(void *)(room + at))->size) {
        const char *name = ((struct dirent *)(void *)(room + at))->name;
        others += name[0] != '.' && !equal(name, "ptmx") && number(name) != number_of;
    }
    tell("a folder", size > 0);
    tell("terminals of others", others);
    SYS_close(fd);
}

int main(int argc, char **argv) {
    char path[32] = "/dev/pts/";
    int locked = 1, unlocked = 0, status = 0;
    struct stat seen;
    (void)argv;
    main_end = opened();
    tell("TIOCGPTN", SYS_ioctl(main_end, TIOCGPTN, &number_of));
    path[9 + decimal(path + 9, number_of)] = 0;
    tell("it is there", SYS_stat(path, &seen));
    tell("a device", (seen.mode & 0170000) == 0020000);
    tell("its own", seen.user == (unsigned)SYS_getuid());
    tell("locked at first", SYS_open(path, O_RDWR | O_NOCTTY, 0));
    tell("TIOCSPTLCK", SYS_ioctl(main_end, TIOCSPTLCK, &unlocked));
    tell("with a bad flag", SYS_ioctl(main_end, TIOCGPTPEER, (void *)(size_t)0x40000000));
    int peer = (int)SYS_ioctl(main_end, TIOCGPTPEER, (void *)(O_RDWR | O_NOCTTY | O_CLOEXEC));
    tell("TIOCGPTPEER", peer > main_end);
    tell("close-on-exec", SYS_fcntl(peer, 1, 0));
    named(peer, path);
    SYS_write(peer, "one\n", 4);
    expect("one");
    tell("lock", SYS_ioctl(main_end, TIOCSPTLCK, &locked));
    tell("again", SYS_open(path, O_RDWR | O_NOCTTY, 0));
    SYS_ioctl(main_end, TIOCSPTLCK, &unlocked);
    if (argc > 1) /* natively there are the terminals of all */
        names();
    int pid = (int)SYS_fork();
    if (pid == 0)
        child(path);
    SYS_close(peer);
    expect("ready");
    SYS_write(main_end, "a line\n", 7);
    expect("got a line");
    SYS_write(main_end, "\x03", 1);
    expect("signal 2");
    unsigned short size[4] = {40, 100, 0, 0};
    tell("TIOCSWINSZ", SYS_ioctl(main_end, TIOCSWINSZ, size));
    expect("signal 28 40");
    int second = opened();
    tell("a second", SYS_close(second));
    SYS_close(main_end);
    tell("wait4", SYS_wait4(pid, &status, 0, NULL) == pid);
    tell("it was hung up", status >> 8);
    return 0;
}
