/* Waits for a signal from outside, in one way or another. */
#include "wali.h"

static void quit(int signal) {
    say("handled %d\n", (long)signal);
    leave(21);
}

int main(int argc, char **argv) {
    struct timespec length = {1000, 0};
    int ends[2];
    char byte;
    SYS_pipe(ends);
    if (argc < 3)
        handle(SIGTERM, quit, 0, 0);
    say("ready\n");
    for (;;)
        if (equal(argv[1], "sleeping"))
            SYS_nanosleep(&length, NULL);
        else if (equal(argv[1], "reading"))
            SYS_read(ends[0], &byte, 1);
}
