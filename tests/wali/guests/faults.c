/* Ways to die: the argument says which, a second one that a child does. */
#include "wali.h"

static char *pages(int prot, int flags, int fd, long size) {
    return (char *)(size_t)SYS_mmap(NULL, (size_t)size, prot, flags, fd, 0);
}

static char *cut(void) {
    int fd = (int)SYS_open("cut", O_RDWR | O_CREAT, 0600);
    SYS_ftruncate(fd, 2 * PAGE);
    char *at = pages(PROT_BOTH, MAP_SHARED, fd, 2 * PAGE);
    at[PAGE] = 1;
    SYS_ftruncate(fd, PAGE);
    return at + PAGE;
}

static int die(const char *how) {
    volatile char *at = pages(PROT_BOTH, MAP_NEW, -1, 2 * PAGE);
    if (equal(how, "read protected"))
        return SYS_mprotect((void *)at, PAGE, PROT_NONE), at[5];
    if (equal(how, "write protected"))
        return SYS_mprotect((void *)at, PAGE, PROT_READ), at[5] = 1;
    if (equal(how, "read unmapped"))
        return SYS_munmap((void *)at, PAGE), at[0];
    if (equal(how, "fill protected")) {
        SYS_mprotect((void *)at, PAGE, PROT_READ);
        volatile size_t size = PAGE;
        __builtin_memset((void *)at, 1, size);
        return at[0];
    }
    if (equal(how, "read cut"))
        return at = cut(), at[0];
    if (equal(how, "write cut"))
        return at = cut(), at[0] = 1;
    if (equal(how, "divide")) {
        volatile int seven = 7, zero = 0;
        return seven / zero;
    }
    if (equal(how, "unreachable"))
        __builtin_trap();
    if (equal(how, "abort"))
        SYS_kill((int)SYS_getpid(), 6);
    if (equal(how, "terminate"))
        SYS_kill((int)SYS_getpid(), SIGTERM);
    if (equal(how, "kill"))
        SYS_kill((int)SYS_getpid(), SIGKILL);
    return 99;
}

/* A child's death is its own; what its parent gets to know of it is how. */
static void outlive(const char *how) {
    int status = 0, child = (int)SYS_fork();
    if (child == 0)
        leave(die(how));
    SYS_wait4(child, &status, 0, NULL);
    tell(how, status & 0x7f ? status & 0x7f : status >> 8);
}

/* A handler hears of it, and ends the program as it likes. */
static void note(int signal) {
    tell("handled", signal);
    leave(signal + 40);
}

/* Faults that a native program has, and that are the same with the traps of WebAssembly. */
static void handled(void) {
    static const char *const kinds[] = {"read protected", "write protected", "read unmapped",
                                        "divide", "unreachable"};
    for (int signal = 1; signal < 12; signal++)
        handle(signal, note, 0, 0);
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        outlive(kinds[i]);
}

/* What is written into a page that is gone is an error, not an end. */
static void survive(void) {
    char *gone = cut();
    int ends[2];
    SYS_pipe(ends);
    tell("pipe", SYS_pipe((int *)(void *)gone));
    tell("write", SYS_write(ends[1], gone, 4));
    tell("clock", SYS_clock_gettime(CLOCK_MONOTONIC, gone));
    tell("open", SYS_open(gone, O_RDONLY, 0));
    tell("poll", SYS_poll(gone, 2, 0));
    SYS_write(ends[1], "left", 4);
    tell("read", SYS_read(ends[0], gone, 4));
}

int main(int argc, char **argv) {
    if (argc > 2)
        outlive(argv[2]);
    else if (argc > 1)
        return die(argv[1]);
    else
        survive(), handled();
    return 0;
}
