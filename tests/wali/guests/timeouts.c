/* What the kernel makes of a time-out, where it waits itself. */
#include "wali.h"

/* What is left of a time-out is written back: all but a little, or nothing. */
static void show_left(const char *what, long result, const struct timespec *t, long unit) {
    tell(what, result);
    tell("  left of 100 s", t->seconds == 99 && t->rest > 0 && t->rest < 1000000000 / unit);
    tell("  left", t->seconds || t->rest);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    int ends[2];
    SYS_pipe(ends);
    struct pollfd ready = {ends[1], POLLOUT, 0}, never = {ends[0], POLLIN, 0};
    struct timespec t = {100, 0};
    unsigned long in[16] = {1ul << ends[0]}, out[16] = {1ul << ends[1]};
    show_left("ppoll", SYS_ppoll(&ready, 1, &t, NULL, 8), &t, 1);
    t = (struct timespec){0, 1000000};
    show_left("ppoll to the end", SYS_ppoll(&never, 1, &t, NULL, 8), &t, 1);
    t = (struct timespec){100, 0};
    show_left("pselect", SYS_pselect6(64, NULL, out, NULL, &t, NULL), &t, 1);
    t = (struct timespec){100, 0};
    show_left("select", SYS_select(64, NULL, out, NULL, &t), &t, 1000);
    t = (struct timespec){0, 1000};
    show_left("select to the end", SYS_select(64, in, NULL, NULL, &t), &t, 1000);
    return 0;
}
