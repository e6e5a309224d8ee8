/* What is done about a signal changes, again and again, while it comes. */
#include "thread.h"

enum { CHANGES = 60000, SENDERS = 2, SENT = 50000 };

static volatile int over;

static void notes(int signal) {
    (void)signal;
}

static void change(int signal, handler *other, int times) {
    for (int i = 0; i < times; i++) {
        handle(signal, notes, SA_RESTART, bit(SIGUSR2));
        handle(signal, other, 0, 0);
    }
}

static int sender(int to, int signal) {
    int pid = (int)SYS_fork();
    while (pid == 0)
        if (SYS_kill(to, signal) < 0 || SYS_getppid() != to)
            leave(0);
    return pid;
}

/* A function and none in turn: a signal that has come for the one does not find the other. */
static void by_the_thread_itself(const char *what, int signal, handler *other) {
    handle(signal, other, 0, 0);
    int pids[SENDERS];
    for (int i = 0; i < SENDERS; i++)
        pids[i] = sender((int)SYS_getpid(), signal);
    change(signal, other, CHANGES);
    for (int i = 0; i < SENDERS; i++) {
        SYS_kill(pids[i], SIGKILL);
        SYS_wait4(pids[i], NULL, 0, NULL);
    }
    tell(what, 1);
}

static void changes(long signal) {
    while (!over)
        change((int)signal, SIG_IGN, 1);
}

static void by_another(void) {
    int me = (int)SYS_getpid();
    handle(SIGUSR1, SIG_IGN, 0, 0);
    begin(0, changes, SIGUSR1);
    begin(1, changes, SIGUSR1);
    for (int i = 0; i < SENT; i++)
        SYS_tkill(me, SIGUSR1);
    over = 1;
    join(0);
    join(1);
    tell("by others", 1);
}

/* Afterwards the kernel and those who ask agree. */
static void is_told(void) {
    struct action old;
    handle(SIGUSR1, notes, SA_RESTART, bit(SIGUSR2));
    handle(SIGUSR1, SIG_IGN, SA_NODEFER, bit(SIGTERM));
    SYS_rt_sigaction(SIGUSR1, NULL, &old, 8);
    tell("ignored", old.call == SIG_IGN);
    tell("its flags", (long)(old.flags & (SA_RESTART | SA_NODEFER)));
    tell("its mask", (long)old.mask);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    by_the_thread_itself("ignored or not", SIGUSR1, SIG_IGN);
    by_the_thread_itself("default or not", SIGURG, SIG_DFL);
    by_the_thread_itself("a fault, ignored or not", SIGSEGV, SIG_IGN);
    by_another();
    is_told();
    return 0;
}
