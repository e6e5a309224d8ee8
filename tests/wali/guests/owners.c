/* Users and groups, names of threads, other processes' groups and sessions, timers. */
#include "wali.h"

enum { SET_NAME = 15, GET_NAME = 16, GET_DUMPABLE = 3, GET_NO_NEW_PRIVS = 39, SET_SUBREAPER = 36 };
enum { GET_SUBREAPER = 37, GET_SECUREBITS = 27, CAPBSET_READ = 23 };

static long option(int which, unsigned long a) {
    return SYS_prctl(which, a, 0, 0, 0);
}

static void names(void) {
    char name[20] = {0};
    int answer = 7;
    tell("set a name", option(SET_NAME, (unsigned long)(size_t)"a-very-long-name-of-mine"));
    tell("get it", option(GET_NAME, (unsigned long)(size_t)name));
    say("  %s\n", name);
    tell("nowhere", option(GET_NAME, (unsigned long)(size_t)-8));
    tell("dumpable", option(GET_DUMPABLE, 0) >= 0);
    tell("no new privileges", option(GET_NO_NEW_PRIVS, 0));
    tell("wrong use", SYS_prctl(GET_NO_NEW_PRIVS, 1, 0, 0, 0));
    tell("reap", option(SET_SUBREAPER, 1));
    tell("reaps", option(GET_SUBREAPER, (unsigned long)(size_t)&answer));
    tell("  answer", answer);
    tell("secure bits", option(GET_SECUREBITS, 0) >= 0);
    tell("a capability", option(CAPBSET_READ, 0) >= 0);
    tell("no capability", option(CAPBSET_READ, 999));
    tell("no option", option(9999, 0));
}

static void groups(void) {
    unsigned given[40], set[2] = {4, 20};
    long count = SYS_getgroups(0, NULL);
    tell("getgroups", count >= 0 && count == SYS_getgroups(40, given));
    tell("negative", SYS_getgroups(-1, given));
    tell("nowhere", count ? SYS_getgroups(40, (void *)-8) : -14);
    int root = SYS_geteuid() == 0;
    tell("setgroups", SYS_setgroups(2, set) == (root ? 0 : -EPERM));
    if (root) {
        tell("are two", SYS_getgroups(0, NULL));
        tell("little room", SYS_getgroups(1, given));
        tell("both", SYS_getgroups(2, given));
        tell("  are", (long)(given[0] * 100 + given[1]));
    }
    tell("too many", SYS_setgroups(70000, set) == (root ? -EINVAL : -EPERM));
}

/* In a child, since there is no way back. */
static void users(void) {
    int status, root = SYS_geteuid() == 0;
    long child = SYS_fork();
    if (child == 0) {
        unsigned me = (unsigned)SYS_getuid();
        tell("to oneself", SYS_setuid(me));
        tell("nothing changes", SYS_setresuid(-1u, -1u, -1u) + SYS_setresgid(-1u, -1u, -1u));
        tell("setregid", SYS_setregid(1234, 1234) == (root ? 0 : -EPERM));
        tell("setresuid", SYS_setresuid(1111, 2222, 3333) == (root ? 0 : -EPERM));
        tell("  users", !root || (SYS_getuid() == 1111 && SYS_geteuid() == 2222));
        tell("  groups", !root || (SYS_getgid() == 1234 && SYS_getegid() == 1234));
        tell("to the saved one", !root || SYS_setreuid(-1u, 3333) == 0);
        tell("not back", SYS_setuid(me) == (root ? -EPERM : 0));
        tell("no other group", SYS_setgid(77));
        tell("nor groups", SYS_setgroups(0, NULL));
        tell("nor root", SYS_chroot("/"));
        leave(0);
    }
    SYS_wait4((int)child, &status, 0, NULL);
    tell("ended", status);
    child = SYS_fork();
    if (child == 0) {
        tell("chroot", SYS_chroot(".") == (root ? 0 : -EPERM));
        tell("chroot nowhere", SYS_chroot("none"));
        leave(0);
    }
    SYS_wait4((int)child, &status, 0, NULL);
    tell("ended", status);
}

static void sessions(void) {
    int status, ends[2];
    char byte;
    SYS_pipe(ends);
    long child = SYS_fork();
    if (child == 0) {
        tell("a session", SYS_setsid() == SYS_getpid());
        tell("again", SYS_setsid());
        tell("its group", SYS_getpgid(0) == SYS_getpid() && SYS_getsid(0) == SYS_getpid());
        SYS_write(ends[1], "x", 1);
        SYS_read(0, &byte, 1);
        leave(0);
    }
    SYS_read(ends[0], &byte, 1);
    tell("of a child", SYS_getpgid((int)child) == child && SYS_getsid((int)child) == child);
    tell("into its session", SYS_setpgid((int)child, (int)SYS_getpid()));
    tell("of nobody", SYS_setpgid(0x7ffffff0, 0));
    tell("negative", SYS_setpgid(0, -1));
    SYS_wait4((int)child, &status, 0, NULL);
}

static void timers(void) {
    long value[4] = {0, 0, 5, 0}, old[4] = {9, 9, 9, 9};
    struct timespec set[2] = {{0, 0}, {0, 2000000}}, left[2];
    unsigned long expired = 0;
    tell("setitimer", SYS_setitimer(0, value, NULL));
    value[2] = 0;
    tell("stop it", SYS_setitimer(0, value, old));
    tell("  left", old[2] == 4 || old[2] == 5);
    tell("no timer", SYS_setitimer(7, value, NULL));
    value[3] = 1000000;
    tell("too many us", SYS_setitimer(0, value, NULL));
    int fd = (int)SYS_timerfd_create(CLOCK_MONOTONIC, 0x80800);
    tell("timerfd", fd >= 0);
    tell("flags", SYS_timerfd_create(CLOCK_MONOTONIC, 1));
    tell("clock", SYS_timerfd_create(99, 0));
    tell("nothing yet", SYS_read(fd, &expired, 8));
    tell("set", SYS_timerfd_settime(fd, 0, set, left));
    tell("  was", left[1].seconds + left[1].rest);
    struct pollfd ready = {fd, POLLIN, 0};
    tell("wait", SYS_poll(&ready, 1, 5000));
    tell("read", SYS_read(fd, &expired, 8));
    tell("  times", (long)expired);
    tell("left", SYS_timerfd_gettime(fd, left));
    tell("  none", left[1].seconds + left[1].rest);
    tell("not a timer", SYS_timerfd_gettime(0, left));
    SYS_close(fd);
    fd = (int)SYS_timerfd_create(CLOCK_REALTIME, 0);
    SYS_timerfd_settime(fd, 0, set, NULL);
    tell("blocking", SYS_read(fd, &expired, 8));
    SYS_close(fd);
}

static void processors(void) {
    unsigned char set[128];
    long size = SYS_sched_getaffinity(0, sizeof set, set);
    tell("sched_getaffinity", size > 0 && size % 8 == 0);
    tell("of nobody", SYS_sched_getaffinity(0x7ffffff0, sizeof set, set));
    tell("little room", SYS_sched_getaffinity(0, 4, set));
}

static void show_owner(const char *path) {
    static struct stat status;
    tell("look", SYS_lstat(path, &status));
    say("  of %d and %d, mode %d\n", (long)status.user, (long)status.group,
        (long)(status.mode & 07777));
}

/* Of files: numbers that nobody has, and -1 for what stays. */
static void files(void) {
    int fd = (int)SYS_open("owned", O_RDWR | O_CREAT, 0600);
    SYS_symlink("owned", "a link");
    tell("change both", SYS_chown("owned", 30001, 30002));
    show_owner("owned");
    tell("the group", SYS_fchown(fd, (unsigned)-1, 30003));
    show_owner("owned");
    tell("of a link", SYS_fchownat(AT_FDCWD, "a link", 30004, 30005, AT_SYMLINK_NOFOLLOW));
    show_owner("a link");
    show_owner("owned");
    tell("through it", SYS_fchownat(AT_FDCWD, "a link", 30006, (unsigned)-1, 0));
    show_owner("owned");
    tell("nothing", SYS_chown("owned", (unsigned)-1, (unsigned)-1));
    tell("mode", SYS_fchmod(fd, 04751));
    show_owner("owned");
    tell("no file", SYS_fchown(77, 0, 0));
    tell("wrong flags", SYS_fchownat(AT_FDCWD, "owned", 0, 0, 1));
    SYS_close(fd);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    files();
    names();
    groups();
    users();
    sessions();
    timers();
    processors();
    return 0;
}
