/* Two threads that pass a ball by looking at memory: quick only if both run at the same time. */
#define STACKS 2
#include "thread.h"

enum { TIMES = 100000 };

static volatile int ball;

static void play(long me) {
    for (int i = 0; i < TIMES; i++) {
        while (ball != me)
            ;
        ball = !me;
    }
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    for (int i = 0; i < 2; i++)
        begin(i, play, i);
    for (int i = 0; i < 2; i++)
        join(i);
    tell("passed", TIMES);
    return 0;
}
