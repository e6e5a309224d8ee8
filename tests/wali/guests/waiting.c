/* poll, select and epoll, on pipes, files and what is not open. */
#include "wali.h"

static int ends[2], other[2];

static void show_poll(const char *what, struct pollfd *fds, unsigned long count, int ms) {
    tell(what, SYS_poll(fds, count, ms));
    for (unsigned long i = 0; i < count; i++)
        tell("  events", fds[i].revents);
}

static void polling(void) {
    struct pollfd fds[4] = {
        {ends[0], POLLIN, 9}, {ends[1], POLLOUT, 9}, {55, POLLIN, 9}, {-3, 1, 9}};
    show_poll("poll", fds, 4, 1000);
    show_poll("poll without the closed one", fds, 2, -1);
    show_poll("poll an empty pipe", fds, 1, 10);
    SYS_write(ends[1], "x", 1);
    show_poll("poll a full one", fds, 1, -1);
    show_poll("poll nothing", NULL, 0, 1);
    tell("poll nowhere", SYS_poll(NULL, 2, 0));
    tell("poll too many", SYS_poll(fds, 1 << 20, 0));
    struct timespec none = {0, 0}, wrong = {0, 1000000000};
    tell("ppoll", SYS_ppoll(fds, 1, &none, NULL, 8));
    tell("ppoll for a wrong time", SYS_ppoll(fds, 1, &wrong, NULL, 8));
    char byte;
    SYS_read(ends[0], &byte, 1);
    SYS_dup2(ends[1], 20);
    SYS_close(20);
    fds[0].fd = 20;
    show_poll("poll what was closed", fds, 1, 0);
}

static void selecting(void) {
    unsigned long in[16] = {0}, out[16] = {0}, bad[16] = {0};
    struct timespec none = {0, 0}, negative = {-1, 0}, some = {0, 1000};
    in[0] = 1ul << ends[0] | 1ul << other[0], out[0] = 1ul << ends[1];
    tell("select", SYS_select(64, in, out, NULL, &none));
    tell("  in", (long)in[0]), tell("  out", (long)out[0]);
    in[0] = 1ul << ends[0], out[0] = 0;
    tell("select an empty pipe", SYS_select(ends[0] + 1, in, NULL, NULL, &some));
    tell("  in", (long)in[0]);
    bad[1] = 1;
    tell("select what is not open", SYS_select(65, bad, NULL, NULL, &none));
    tell("below it", SYS_select(64, bad, NULL, NULL, &none));
    tell("select for a negative time", SYS_select(0, NULL, NULL, NULL, &negative));
    tell("select a negative count", SYS_select(-1, NULL, NULL, NULL, &none));
    SYS_write(ends[1], "x", 1);
    in[0] = 1ul << ends[0];
    tell("pselect", SYS_pselect6(ends[0] + 1, in, NULL, NULL, NULL, NULL));
    tell("  in", (long)in[0]);
    long no_mask[2] = {0, 8};
    tell("pselect without a mask", SYS_pselect6(ends[0] + 1, in, NULL, NULL, &none, no_mask));
    char byte;
    SYS_read(ends[0], &byte, 1);
}

static long wait_once(const char *what, int epoll, int most) {
    struct epoll_event events[8] = {{0}};
    long got = tell(what, SYS_epoll_wait(epoll, events, most, 0));
    for (long i = 0; i < got; i++)
        say("  events %d of %d\n", (long)events[i].events, (long)events[i].data);
    return got;
}

static long change(int epoll, int how, int fd, unsigned events) {
    struct epoll_event event = {events, 0x123456789a00 + (unsigned long)fd};
    return SYS_epoll_ctl(epoll, how, fd, &event);
}

enum { ADD = 1, DELETE, MODIFY, ET = 1u << 31, ONESHOT = 1 << 30 };

static void epolling(const char *file) {
    char byte;
    int epoll = (int)SYS_epoll_create1(O_CLOEXEC);
    tell("wrong flags", SYS_epoll_create1(1));
    tell("add", change(epoll, ADD, ends[0], POLLIN));
    tell("add again", change(epoll, ADD, ends[0], POLLIN));
    tell("add what is not open", change(epoll, ADD, 55, POLLIN));
    tell("add a file", change(epoll, ADD, (int)SYS_open(file, O_CREAT | O_RDWR, 0600), POLLIN));
    tell("add to itself", change(epoll, ADD, epoll, POLLIN));
    tell("modify what is not there", change(epoll, MODIFY, other[0], POLLIN));
    tell("no such change", change(epoll, 77, ends[0], POLLIN));
    tell("change what is no epoll", change(ends[0], ADD, other[0], POLLIN));
    wait_once("empty", epoll, 8);
    tell("empty, to nowhere", SYS_epoll_wait(epoll, NULL, 1, 0));
    SYS_write(ends[1], "xx", 2);
    wait_once("level", epoll, 8);
    wait_once("level again", epoll, 8);
    tell("level, to nowhere", SYS_epoll_wait(epoll, NULL, 1, 0));
    tell("edge", change(epoll, MODIFY, ends[0], POLLIN | ET));
    wait_once("edge", epoll, 8);
    wait_once("edge again", epoll, 8);
    SYS_write(ends[1], "x", 1);
    wait_once("edge, after more", epoll, 8);
    tell("once", change(epoll, MODIFY, ends[0], POLLIN | ONESHOT));
    wait_once("once", epoll, 8);
    SYS_write(ends[1], "x", 1);
    wait_once("once again", epoll, 8);
    tell("renew", change(epoll, MODIFY, ends[0], POLLIN));
    change(epoll, ADD, ends[1], POLLOUT);
    change(epoll, ADD, other[1], POLLOUT);
    long got = wait_once("two of three", epoll, 2);
    got += wait_once("two of three again", epoll, 2);
    tell("together", got);
    tell("delete", SYS_epoll_ctl(epoll, DELETE, ends[1], NULL));
    tell("delete again", SYS_epoll_ctl(epoll, DELETE, ends[1], NULL));
    tell("delete the other", SYS_epoll_ctl(epoll, DELETE, other[1], NULL));
    int copy = (int)SYS_dup(ends[0]);
    change(epoll, DELETE, ends[0], 0);
    change(epoll, ADD, copy, POLLIN);
    SYS_close(copy);
    wait_once("closed, but open by its other number", epoll, 8);
    while (SYS_poll(&(struct pollfd){ends[0], POLLIN, 0}, 1, 0) > 0)
        SYS_read(ends[0], &byte, 1);
    struct epoll_event event;
    tell("no room", SYS_epoll_wait(epoll, &event, 0, 0));
    tell("negative room", SYS_epoll_wait(epoll, &event, -1, 0));
    tell("too much room", SYS_epoll_wait(epoll, &event, 0x7fffffff, 0));
    tell("wait on what is no epoll", SYS_epoll_wait(ends[0], &event, 1, 0));
    tell("wait on what is not open", SYS_epoll_wait(55, &event, 1, 0));
    tell("wait a little", SYS_epoll_pwait(epoll, &event, 1, 5, NULL, 8));
    SYS_close(epoll);
}

/* More at once than the core asks the kernel for: all must come, in as many calls as it takes. */
static void many(void) {
    static struct epoll_event events[512];
    static unsigned char seen[300];
    int epoll = (int)SYS_epoll_create1(0), made[300];
    for (int i = 0; i < 300; i++) {
        made[i] = (int)SYS_eventfd2(1, 0);
        struct epoll_event event = {POLLIN | ET, (unsigned long)i};
        SYS_epoll_ctl(epoll, ADD, made[i], &event);
    }
    long total = 0, got, different = 0;
    while ((got = SYS_epoll_wait(epoll, events, 512, 0)) > 0)
        for (long i = 0; i < got; i++, total++)
            different += !seen[events[i].data]++;
    tell("many", total);
    tell("different", different);
    for (int i = 0; i < 300; i++)
        SYS_close(made[i]);
    SYS_close(epoll);
}

static void sleeping(void) {
    struct timespec before, after, little = {0, 2000000}, wrong = {0, -1}, left = {7, 7};
    SYS_clock_gettime(CLOCK_MONOTONIC, &before);
    tell("nanosleep", SYS_nanosleep(&little, &left));
    tell("  left", left.seconds + left.rest);
    SYS_clock_gettime(CLOCK_MONOTONIC, &after);
    long slept = (after.seconds - before.seconds) * 1000000000 + after.rest - before.rest;
    tell("  long enough", slept >= 2000000);
    tell("nanosleep for a wrong time", SYS_nanosleep(&wrong, NULL));
    tell("until the past", SYS_clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &before, NULL));
    tell("by no clock", SYS_clock_nanosleep(77, 0, &little, NULL));
    after.rest += 1000000;
    if (after.rest >= 1000000000)
        after.rest -= 1000000000, after.seconds++;
    tell("until then", SYS_clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &after, NULL));
    SYS_clock_gettime(CLOCK_MONOTONIC, &before);
    slept = (before.seconds - after.seconds) * 1000000000 + before.rest - after.rest;
    tell("  it is then", slept >= 0);
}

int main(int argc, char **argv) {
    SYS_pipe(ends);
    SYS_pipe2(other, O_NONBLOCK);
    polling();
    selecting();
    epolling(argc > 1 ? argv[1] : "f");
    many();
    sleeping();
    return 0;
}
