/* Calls that few programs make, and that have a more general sister which the others make. */
#include "wali.h"

/* clang-format off */
CALL(fadvise, 221, (int fd, long offset, long size, int advice), fd, offset, size, advice)
CALL(epoll_create, 213, (int size), size)
CALL(faccessat, 269, (int dir, const char *path, int how, int ignored), dir, path, how, ignored)
CALL(fchmodat, 268, (int dir, const char *path, mode m, int ignored), dir, path, m, ignored)
CALL(sched_setscheduler, 144, (int pid, int policy, const void *parameter), pid, policy, parameter)
CALL(set_robust_list, 273, (const void *list, size_t size), list, size)
CALL(signalfd, 282, (int fd, const void *set, unsigned size), fd, set, size)
CALL(pause, 34, (void))
CALL(lchown, 94, (const char *path, unsigned user, unsigned group), path, user, group)
CALL(times, 100, (void *to), to)
CALL(waitid, 247, (int kind, int id, void *info, int options, void *usage), kind, id, info, options, usage)
CALL(renameat, 264, (int from, const char *old, int to, const char *new), from, old, to, new)
CALL(eventfd, 284, (unsigned value), value)
CALL(fallocate, 285, (int fd, int how, long offset, long size), fd, how, offset, size)
#if defined(__wasm__)
CALL(pwritev2, 328, (int fd, const void *parts, int count, long offset, int flags), fd)
#else
CALL(pwritev2, 328, (int fd, const void *parts, int count, long offset, int flags), fd, parts, count, offset, 0, flags)
#endif
CALL(openat2, 437, (int dir, const char *path, const void *how, size_t size), dir, path, how, size)
/* clang-format on */

enum { RWF_APPEND = 0x10, RESOLVE_BENEATH = 8, SCHED_OTHER = 0 };

static void files(void) {
    static struct stat status;
    static long system[15];
    struct iovec parts[2] = {{"one ", 4}, {"two", 3}};
    struct {
        unsigned long flags, mode, resolve;
    } how = {O_RDONLY, 0, RESOLVE_BENEATH}, wrong = {O_RDONLY, 0, 1ul << 40};
    char text[16] = {0};
    int fd = (int)SYS_open("rare", O_RDWR | O_CREAT, 0600);
    tell("write", SYS_pwritev2(fd, parts, 2, 0, 0));
    tell("append", SYS_pwritev2(fd, parts + 1, 1, 0, RWF_APPEND));
    tell("unknown flag", SYS_pwritev2(fd, parts, 2, 0, 1 << 20));
    tell("read", SYS_pread64(fd, text, sizeof text, 0));
    say("%s\n", text);
    tell("allocate", SYS_fallocate(fd, 0, 0, 5000));
    SYS_fstat(fd, &status);
    tell("size", status.size);
    tell("allocate nothing", SYS_fallocate(fd, 0, 0, 0));
    tell("advise", SYS_fadvise(fd, 0, 0, 2));
    tell("wrong advice", SYS_fadvise(fd, 0, 0, 99));
    tell("of a file system", SYS_fstatfs(fd, system));
    tell("of none", SYS_fstatfs(99, system));
    tell("may read", SYS_faccessat(AT_FDCWD, "rare", 4, 0));
    tell("nothing there", SYS_faccessat(AT_FDCWD, "nothing", 4, 0));
    tell("mode", SYS_fchmodat(AT_FDCWD, "rare", 0640, 0));
    SYS_fstat(fd, &status);
    tell("it is", status.mode & 0777);
    tell("rename", SYS_renameat(AT_FDCWD, "rare", AT_FDCWD, "seldom"));
    tell("rename nothing", SYS_renameat(AT_FDCWD, "rare", AT_FDCWD, "seldom"));
    tell("rename back", SYS_renameat(AT_FDCWD, "seldom", AT_FDCWD, "rare"));
    SYS_symlink("nowhere", "link");
    tell("owner of a link", SYS_lchown("link", -1u, -1u));
    tell("of nothing", SYS_lchown("nothing", -1u, -1u));
    int dir = (int)SYS_open(".", O_RDONLY | O_DIRECTORY, 0);
    tell("open beneath", SYS_openat2(dir, "rare", &how, sizeof how) > dir);
    tell("open outside", SYS_openat2(dir, "../rare", &how, sizeof how));
    tell("unknown resolution", SYS_openat2(dir, "rare", &wrong, sizeof wrong));
}

static void others(void) {
    unsigned long set = bit(SIGUSR1), value = 0;
    int parameter = 0, high = 50, event = (int)SYS_eventfd(3);
    tell("read an event", SYS_read(event, &value, sizeof value));
    tell("  value", (long)value);
    tell("make an epoll", SYS_epoll_create(1) > event);
    tell("make a signalfd", SYS_signalfd(-1, &set, 8) > event);
    tell("of another size", SYS_signalfd(-1, &set, 4));
    tell("schedule as before", SYS_sched_setscheduler(0, SCHED_OTHER, &parameter));
    tell("schedule wrongly", SYS_sched_setscheduler(0, SCHED_OTHER, &high));
    static void *list[3] = {list};
    tell("a list", SYS_set_robust_list(list, IS_WALI ? 24 : sizeof list));
}

static volatile long rung;

static void ring(int signal) {
    rung += signal;
}

static void processes(void) {
    enum { P_ALL = 0, P_PID = 1, WEXITED = 4, WNOWAIT = 1 << 24 };
    int info[32] = {0};
    long ticks[4] = {-1, -1, -1, -1}, timer[4] = {0, 5000, 0, 5000}, none[4] = {0};
    int child = (int)SYS_fork();
    if (child == 0)
        leave(7);
    tell("wait, and leave it", SYS_waitid(P_PID, child, info, WEXITED | WNOWAIT, NULL));
    tell("  signal", info[0]);
    tell("  code", info[2]);
    tell("  is it", info[4] == child);
    tell("  status", info[6]);
    tell("wait", SYS_waitid(P_ALL, 0, info, WEXITED, NULL));
    tell("wait for nobody", SYS_waitid(P_ALL, 0, info, WEXITED, NULL));
    tell("no such kind", SYS_waitid(9, 0, info, WEXITED, NULL));
    tell("times", SYS_times(ticks) > 0);
    tell("  all there", ticks[0] >= 0 && ticks[1] >= 0 && ticks[2] >= 0 && ticks[3] >= 0);
    handle(SIGALRM, ring, 0, 0);
    SYS_setitimer(0, timer, NULL);
    tell("pause", SYS_pause());
    SYS_setitimer(0, none, NULL);
    tell("  rung", rung >= SIGALRM);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    files();
    others();
    processes();
    return 0;
}
