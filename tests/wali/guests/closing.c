/* Numbers that a thread closes: while another forks, and while another uses them again. */
#include "thread.h"

enum { CHILDREN = 100, TIMES = 200000, NUMBER = 20 };

static volatile int over;

static void opens_and_closes(long unused) {
    (void)unused;
    while (!over) {
        int ends[2];
        SYS_pipe(ends);
        SYS_close(ends[0]);
        SYS_close(ends[1]);
    }
}

/* How many numbers cannot be used in a child: there nobody closes any more. */
static int unusable(void) {
    int wrong = 0;
    for (int i = 3; i < 8; i++)
        wrong += SYS_dup2(1, i) != i;
    return wrong;
}

static void in_children(void) {
    int wrong = 0;
    over = 0;
    begin(0, opens_and_closes, 0);
    begin(1, opens_and_closes, 0);
    for (int i = 0; i < CHILDREN; i++) {
        int status = -1, pid = (int)SYS_fork();
        if (pid == 0)
            leave(unusable());
        SYS_wait4(pid, &status, 0, NULL);
        wrong += status != 0;
    }
    over = 1;
    join(0);
    join(1);
    tell("children with numbers that cannot be used", wrong);
}

static void closes(long unused) {
    (void)unused;
    while (!over)
        SYS_close(NUMBER);
}

static void while_it_is_closed(void) {
    int second = 0, third = 0;
    over = 0;
    begin(2, closes, 0);
    begin(3, closes, 0);
    for (int i = 0; i < TIMES; i++) {
        second += SYS_dup2(1, NUMBER) != NUMBER;
        third += SYS_dup3(1, NUMBER, O_CLOEXEC) != NUMBER;
    }
    over = 1;
    join(2);
    join(3);
    tell("dup2 refused", second);
    tell("dup3 refused", third);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    in_children();
    while_it_is_closed();
    return 0;
}
