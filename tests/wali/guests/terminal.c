/* What a program has to do with its terminal: its size, keys that are signals, its foreground. */
#include "wali.h"

enum { SIGTTIN = 21, SIGWINCH = 28, TCGETS = 0x5401, TIOCGPGRP = 0x540F, TIOCGWINSZ = 0x5413 };

static void size(void) {
    unsigned short window[4] = {0};
    tell("size", SYS_ioctl(0, TIOCGWINSZ, window));
    say("%d x %d\n", (long)window[1], (long)window[0]);
}

static void note(int signal) {
    if (signal == SIGWINCH)
        size();
    else
        tell("signal", signal);
}

static void echo(void) {
    char line[100];
    long got;
    say("ready\n");
    while ((got = SYS_read(0, line, sizeof line)) > 0 || got == -4)
        if (got > 0)
            SYS_write(1, line, (size_t)got);
    tell("end", got);
}

int main(int argc, char **argv) {
    char settings[64];
    int group = 0;
    if (argc > 2)
        SYS_kill((int)SYS_getpid(), (int)number(argv[2]));
    tell("a terminal", SYS_ioctl(0, TCGETS, settings));
    SYS_ioctl(0, TIOCGPGRP, &group);
    tell("in its foreground", group == (int)SYS_getpgid(0));
    for (int signal = 1; argc > 1 && equal(argv[1], "handle") && signal <= SIGWINCH; signal++)
        if (signal == SIGINT || signal == SIGQUIT || signal == SIGCONT || signal == SIGWINCH)
            handle(signal, note, 0, 0);
    size();
    if (argc > 1 && equal(argv[1], "loop"))
        for (say("ready\n");;)
            ;
    echo();
    return 7;
}
