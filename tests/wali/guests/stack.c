/* A handler's variables lie beside those of the function that it interrupts, not on them.
 *
 * A function that calls none, and has few variables in memory, leaves the stack pointer where it
 * is: they lie in the red zone below.
 */
#include "wali.h"

static volatile int handled;

static void __attribute__((noinline)) scribble(int signal) {
    volatile int on[64];
    for (int i = 0; i < 64; i++)
        on[i] = signal;
    handled++;
}

static int __attribute__((noinline)) leaf(void) {
    volatile int kept[16];
    for (int i = 0; i < 16; i++)
        kept[i] = i;
    while (handled == 0)
        ;
    int changed = 0;
    for (int i = 0; i < 16; i++)
        changed += kept[i] != i;
    return changed;
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    static const long once[4] = {0, 0, 0, 1000};
    handle(SIGALRM, scribble, 0, 0);
    SYS_setitimer(0, once, NULL);
    tell("changed", leaf());
    return 0;
}
