/* Pipes, fork and wait4. */
#include "wali.h"

static void pipes(void) {
    static char page[1 << 16];
    char text[16] = {0};
    int ends[2], gone[2], quick[2];
    tell("pipe", SYS_pipe(ends));
    tell("numbers", ends[0] * 100 + ends[1]);
    tell("write", SYS_write(ends[1], "through", 7));
    tell("read", SYS_read(ends[0], text, sizeof text));
    say("%s\n", text);
    tell("seek", SYS_lseek(ends[0], 0, 0));
    tell("write the read end", SYS_write(ends[0], "x", 1));
    SYS_pipe2(quick, O_NONBLOCK | O_CLOEXEC);
    tell("read an empty one", SYS_read(quick[0], text, 1));
    long filled = 0, wrote;
    while ((wrote = SYS_write(quick[1], page, sizeof page)) > 0)
        filled += wrote;
    tell("fill", filled);
    tell("write a full one", wrote);
    tell("flags", SYS_fcntl(quick[0], 3, 0) & O_NONBLOCK);
    tell("close-on-exec", SYS_fcntl(quick[0], 1, 0));
    tell("make it blocking", SYS_fcntl(quick[0], 4, 0));
    tell("flags", SYS_fcntl(quick[0], 3, 0) & O_NONBLOCK);
    tell("wrong flags", SYS_pipe2(gone, 1));
    SYS_pipe(gone);
    SYS_close(gone[1]);
    tell("read what nobody writes", SYS_read(gone[0], text, 1));
    for (int fd = 3; fd < 12; fd++)
        SYS_close(fd);
}

static int wait_for(int pid) {
    int status = -1;
    tell("wait", SYS_wait4(pid, &status, 0, NULL) == pid);
    return status;
}

/* What a child changes is its own: memory, descriptors, working directory. */
static void children(void) {
    static long counter = 1;
    int up[2], status;
    long mapped = SYS_mmap(NULL, PAGE, PROT_BOTH, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    volatile long *shared = (volatile long *)(size_t)mapped;
    SYS_pipe(up);
    int parent = (int)SYS_getpid(), pid = (int)SYS_fork();
    if (pid == 0) {
        char text[32] = "child";
        counter = 99;
        *shared = 42;
        SYS_close(up[0]);
        SYS_chdir("/");
        tell("its parent", SYS_getppid() == parent);
        tell("its number", SYS_getpid() != parent && SYS_gettid() == SYS_getpid());
        SYS_write(up[1], text, 5);
        leave(7);
    }
    char text[32] = {0};
    SYS_close(up[1]);
    tell("from the child", SYS_read(up[0], text, sizeof text));
    say("%s\n", text);
    tell("its end", SYS_read(up[0], text, sizeof text));
    tell("status", wait_for(pid));
    tell("memory of its own", counter);
    tell("memory that is shared", *shared);
    tell("nobody left", SYS_wait4(-1, &status, 0, NULL));
    tell("wait how", SYS_wait4(-1, &status, 0x100, NULL));
    SYS_close(up[0]);
}

static void signalled(void) {
    long usage[34] = {0};
    int hold[2], status = 5, pid;
    SYS_pipe(hold);
    if ((pid = (int)SYS_fork()) == 0) {
        char byte;
        SYS_close(hold[1]);
        SYS_read(hold[0], &byte, 1);
        leave(0);
    }
    tell("not yet", SYS_wait4(pid, &status, WNOHANG, usage));
    tell("untouched", status + usage[0]);
    tell("kill", SYS_kill(pid, SIGKILL));
    tell("wait", SYS_wait4(pid, &status, 0, usage) == pid);
    tell("status", status);
    tell("usage", usage[0] < 5 && usage[2] < 5); /* seconds of its own, and of the kernel's */
    tell("kill what is gone", SYS_kill(pid, 0));
    tell("no such signal", SYS_kill((int)SYS_getpid(), 99));
    SYS_close(hold[0]);
    SYS_close(hold[1]);
}

/* Each writes one byte; grandchildren too. */
static void many(void) {
    int up[2], made = 0;
    char byte;
    long sum = 0;
    SYS_pipe(up);
    for (int i = 0; i < 3; i++) {
        if (SYS_fork() == 0) {
            if (SYS_fork() == 0) {
                SYS_write(up[1], "g", 1);
                leave(1);
            }
            int status;
            SYS_wait4(-1, &status, 0, NULL);
            SYS_write(up[1], status == 256 ? "c" : "?", 1);
            leave(i);
        }
        made++;
    }
    SYS_close(up[1]);
    for (int status; made && SYS_wait4(-1, &status, 0, NULL) > 0; made--)
        sum += status;
    tell("statuses", sum);
    for (sum = 0; SYS_read(up[0], &byte, 1) == 1;)
        sum += byte;
    tell("bytes", sum);
    SYS_close(up[0]);
}

/* Fork twice, so that the second has no parent, nor our session or group; both say their numbers.
 */
static int flee(void) {
    int told[2];
    char byte;
    SYS_pipe(told);
    if (SYS_fork() == 0) {
        SYS_setsid();
        if (SYS_fork())
            leave(0);
        say("%d\n", SYS_getpid());
        SYS_write(told[1], "x", 1);
        return 1;
    }
    SYS_read(told[0], &byte, 1);
    say("%d\n", SYS_getpid());
    return 0;
}

/* Always another process, whose parent has ended. */
static void run_away(void) {
    say("%d\n", SYS_getpid());
    if (SYS_fork() == 0)
        for (;;)
            if (SYS_fork())
                leave(0);
}

/* Fork a child that stays, tell its number, and stay: for whoever ends us. */
static void stay(const char *how) {
    struct timespec long_time = {3600, 0};
    long child = 1;
    if (equal(how, "fleeing") || equal(how, "fleeing and leaving"))
        child = !flee();
    else if (equal(how, "running away"))
        run_away();
    else if ((child = SYS_fork()))
        say("%d %d\n", SYS_getpid(), child);
    if (child && (equal(how, "leaving") || equal(how, "executing in the child") ||
                  equal(how, "fleeing and leaving")))
        return;
    if (equal(how, "executing") || equal(how, "executing in the child"))
        if (!child || equal(how, "executing")) {
            char *words[] = {"sleep", "3600", NULL};
            SYS_execve("/bin/sleep", words, words + 2);
        }
    if (equal(how, "spinning"))
        for (volatile int n = 0;; n++)
            ;
    if (equal(how, "reading")) {
        char byte;
        SYS_read(0, &byte, 1);
        return;
    }
    SYS_nanosleep(&long_time, NULL);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        stay(argv[1]);
        return 0;
    }
    pipes();
    children();
    signalled();
    many();
    return 0;
}
