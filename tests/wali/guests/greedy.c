/* Uses up whatever its first argument says, as far as it is let. */
#include "wali.h"

static char page[PAGE];

static void spin(void) {
    for (volatile int n = 0;; n++)
        ;
}

/* A child computes for ever; how it ends is said. */
static void spin_in_a_child(void) {
    int status = 0;
    int pid = (int)SYS_fork();
    if (pid == 0)
        spin();
    SYS_wait4(pid, &status, 0, NULL);
    tell("status", status);
}

/* Pages to a descriptor, by a call or the other, until it fails. */
static void write_to(int fd, long pages, int by_vector) {
    struct iovec parts[2] = {{page, 1000}, {page, PAGE - 1000}};
    for (long i = 0; i < pages; i++)
        if ((by_vector ? SYS_writev(fd, parts, 2) : SYS_write(fd, page, PAGE)) != PAGE)
            leave(1);
}

/* What standard input has, moved by the kernel: by no more calls than it takes for a few pages. */
static void pass_on(size_t at_once, int copies) {
    long moved = 1;
    for (int i = 0; i < 16 && moved > 0; i++)
        moved = copies ? SYS_copy_file_range(0, NULL, 1, NULL, at_once, 0)
                       : SYS_sendfile(1, 0, NULL, at_once);
    leave(moved < 0);
}

/* Three processes, which write as much each, one after the other. */
static void write_by_children(long pages) {
    for (int i = 0; i < 3; i++) {
        int status, pid = (int)SYS_fork();
        if (pid == 0) {
            write_to((int)SYS_dup(1), pages, i & 1);
            leave(0);
        }
        SYS_wait4(pid, &status, 0, NULL);
        if (status)
            leave(9);
    }
}

static void fill_descriptors(long most) {
    long count = 0;
    while (count < most && SYS_dup(0) >= 0)
        count++;
    SYS_close(5);
    say("%d\n", count);
    tell("again", SYS_dup(0));
    tell("beyond", SYS_dup2(0, 4000));
}

/* Children that stay until they are let go: how many there can be, here and in one of them. */
static void fork_many(long most) {
    int hold[2], up[2], status;
    long pid, count = 0;
    char byte;
    SYS_pipe(hold);
    SYS_pipe(up);
    while (count < most && (pid = SYS_fork()) > 0)
        count++;
    if (count < most && pid == 0) {
        SYS_close(hold[1]);
        SYS_read(hold[0], &byte, 1);
        leave(0);
    }
    say("%d %d\n", count, pid < 0 ? pid : 0);
    SYS_close(hold[1]); /* they go */
    for (long i = 0; i < count; i++)
        SYS_wait4(-1, &status, 0, NULL);
    if ((pid = SYS_fork()) == 0) { /* who has gone has left a place, for children's children too */
        long inner = SYS_fork();
        if (inner == 0)
            leave(0);
        say("inside %d\n", inner < 0 ? inner : 0);
        leave(inner > 0 ? (int)SYS_wait4((int)inner, &status, 0, NULL) != inner : 0);
    }
    if (pid > 0)
        SYS_wait4((int)pid, &status, 0, NULL);
    tell("after", pid > 0 ? status : pid);
}

/* All that is open in the process, by the kernel's links to it: opened and closed. */
static void reopen(void) {
    char path[] = "/proc/self/fd/  ";
    int count = 0;
    for (int i = 0; i < 100; i++) {
        path[14] = (char)(i < 10 ? '0' + i : '0' + i / 10);
        path[15] = (char)(i < 10 ? 0 : '0' + i % 10);
        for (int flags = 0; flags < 3; flags++) {
            int fd = (int)SYS_open(path, flags, 0);
            if (fd >= 0 && SYS_close(fd) == 0)
                count++;
        }
    }
    say("reopened %d\n", count);
}

static void map(long pages) {
    long at = SYS_mmap(NULL, (size_t)pages * PAGE, PROT_BOTH, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tell("mapped", at > 0 ? 0 : at);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long amount = argc > 2 ? number(argv[2]) : 0;
    if (equal(what, "spin"))
        spin();
    else if (equal(what, "spin in a child"))
        spin_in_a_child();
    else if (equal(what, "write"))
        write_to(1, amount, 0);
    else if (equal(what, "write vectors"))
        write_to(2, amount, 1);
    else if (equal(what, "send"))
        pass_on((size_t)amount, 0);
    else if (equal(what, "copy"))
        pass_on((size_t)amount, 1);
    else if (equal(what, "write by children"))
        write_by_children(amount);
    else if (equal(what, "descriptors"))
        fill_descriptors(amount);
    else if (equal(what, "reopen and fork")) {
        reopen();
        fork_many(amount);
    } else if (equal(what, "fork"))
        fork_many(amount);
    else if (equal(what, "map"))
        map(amount);
    else
        return 2;
    return 0;
}
