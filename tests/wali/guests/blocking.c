/* poll, select, epoll and read that really wait.  Before each wait it asks for what shall happen
 * meanwhile ("? 2": two bytes come; "? 0": no more ever will) on its standard input, a socket. */
#include "wali.h"

enum { ADD = 1, DELETE, MODIFY, ET = 1u << 31, ONESHOT = 1 << 30, RDHUP = 0x2000, COPY = 20 };

static void ask(long bytes) {
    say("? %d\n", bytes);
}

static long change(int epoll, int how, int fd, unsigned events) {
    struct epoll_event event = {events, 0x123456789a00 + (unsigned long)fd};
    return SYS_epoll_ctl(epoll, how, fd, &event);
}

static void wait_on(const char *what, int epoll, int ms) {
    struct epoll_event events[8] = {{0}};
    long got = tell(what, SYS_epoll_wait(epoll, events, 8, ms));
    for (long i = 0; i < got; i++)
        say("  events %d of %d\n", (long)events[i].events, (long)events[i].data);
}

static void take(long bytes) {
    char to[16];
    for (long got; bytes > 0; bytes -= got)
        if ((got = SYS_read(0, to, (unsigned long)bytes)) <= 0) {
            tell("  not taken", got);
            return;
        }
}

static int epoll_of(int fd, unsigned events) {
    int epoll = (int)SYS_epoll_create1(0);
    tell("add", change(epoll, ADD, fd, events));
    return epoll;
}

static void polling(void) {
    int copy = (int)SYS_dup(0), ends[2];
    SYS_pipe2(ends, 0);
    struct pollfd fds[3] = {{0, POLLIN, 9}, {ends[0], POLLIN, 9}, {copy, POLLIN, 9}};
    ask(1);
    tell("poll one", SYS_poll(fds, 1, -1));
    tell("  events", fds[0].revents);
    take(1);
    ask(1);
    tell("poll three, of which two are one file", SYS_poll(fds, 3, -1));
    for (int i = 0; i < 3; i++)
        tell("  events", fds[i].revents);
    take(1);
    unsigned long in[16] = {1ul << ends[0] | 1};
    ask(1);
    tell("select", SYS_select(ends[0] + 1, in, NULL, NULL, NULL));
    tell("  in", (long)in[0]);
    take(1);
    char to[16];
    ask(3);
    tell("read some", SYS_read(0, to, 2));
    tell("read the rest", SYS_read(0, to, 16));
    SYS_close(copy), SYS_close(ends[0]), SYS_close(ends[1]);
}

static void level(void) {
    int epoll = epoll_of(0, POLLIN);
    ask(2);
    wait_on("level", epoll, -1);
    take(1);
    wait_on("level, half taken", epoll, -1);
    take(1);
    wait_on("level, all taken", epoll, 0);
    ask(1);
    wait_on("level, more", epoll, -1);
    take(1);
    SYS_close(epoll);
}

static void edge(void) {
    int epoll = epoll_of(0, POLLIN | ET);
    ask(2);
    wait_on("edge", epoll, -1);
    wait_on("edge, nothing taken", epoll, 10);
    ask(1);
    wait_on("edge, more", epoll, -1);
    take(2);
    wait_on("edge, not all taken", epoll, 10);
    take(1);
    ask(1);
    wait_on("edge, all taken", epoll, -1);
    take(1);
    SYS_close(epoll);
}

static void once(void) {
    int epoll = epoll_of(0, POLLIN | ONESHOT);
    ask(1);
    wait_on("once", epoll, -1);
    wait_on("once, nothing taken", epoll, 10);
    ask(1);
    wait_on("once, more", epoll, 50);
    tell("renew", change(epoll, MODIFY, 0, POLLIN | ONESHOT));
    wait_on("once, renewed", epoll, -1);
    take(2);
    tell("renew", change(epoll, MODIFY, 0, POLLIN | ONESHOT | ET));
    ask(1);
    wait_on("once and edge", epoll, -1);
    wait_on("once and edge, again", epoll, 10);
    take(1);
    SYS_close(epoll);
}

/* An epoll in an epoll, `depth` times; the innermost has standard input. */
static void nested(int depth, unsigned events) {
    int epolls[5], made = 0;
    say("%d deep\n", (long)depth);
    epolls[made++] = epoll_of(0, POLLIN);
    while (made <= depth)
        epolls[made] = epoll_of(epolls[made - 1], events), made++;
    ask(1);
    wait_on("the outermost", epolls[depth], -1);
    wait_on("the outermost, again", epolls[depth], 10);
    for (int i = depth; i--;)
        wait_on("the next", epolls[i], -1);
    take(1);
    wait_on("nothing left", epolls[depth], 0);
    ask(1);
    wait_on("the outermost, more", epolls[depth], -1);
    take(1);
    while (made)
        SYS_close(epolls[--made]);
}

/* An epoll keeps the file, not the number. */
static void numbers(void) {
    int ends[2];
    SYS_pipe2(ends, 0);
    SYS_dup2(0, COPY);
    int epoll = epoll_of(COPY, POLLIN);
    tell("the file again", change(epoll, ADD, 0, POLLIN | ONESHOT));
    ask(1);
    wait_on("by both numbers", epoll, -1);
    take(1);
    SYS_close(COPY);
    tell("delete what is closed", change(epoll, DELETE, COPY, 0));
    ask(1);
    wait_on("closed, but open by its other number", epoll, -1);
    take(1);
    SYS_dup2(ends[0], COPY);
    tell("another file of that number", change(epoll, ADD, COPY, POLLIN));
    ask(1);
    wait_on("the old one", epoll, -1);
    take(1);
    SYS_write(ends[1], "x", 1);
    wait_on("the new one", epoll, -1);
    SYS_close(COPY), SYS_close(ends[0]), SYS_close(ends[1]), SYS_close(epoll);
}

/* A number that is closed and means another file, in poll and in an epoll, wait after wait. */
static void reused(void) {
    int epoll = (int)SYS_epoll_create1(0);
    for (int i = 0; i < 3; i++) {
        int number = (int)SYS_dup(0), ends[2];
        struct pollfd one = {number, POLLIN, 0};
        tell("add", change(epoll, ADD, number, POLLIN));
        ask(1);
        tell("poll the copy", SYS_poll(&one, 1, -1));
        wait_on("the copy", epoll, -1);
        char byte;
        tell("  taken", SYS_read(number, &byte, 1));
        change(epoll, DELETE, number, 0);
        SYS_close(number);
        SYS_pipe2(ends, 0); /* takes its number */
        one.fd = ends[0];
        tell("the number again", ends[0] == number);
        tell("poll the pipe", SYS_poll(&one, 1, 10));
        SYS_close(ends[0]), SYS_close(ends[1]);
    }
    SYS_close(epoll);
}

static void ended(void) {
    int at_level = epoll_of(0, POLLIN | RDHUP), at_edge = epoll_of(0, POLLIN | RDHUP | ET);
    ask(0);
    wait_on("the end", at_level, -1);
    wait_on("the end, again", at_level, -1);
    wait_on("the end, by an edge", at_edge, -1);
    wait_on("the end, by an edge, again", at_edge, 10);
    take(1);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    polling();
    level();
    edge();
    once();
    nested(1, POLLIN);
    nested(1, POLLIN | ET);
    nested(3, POLLIN);
    nested(4, POLLIN);
    numbers();
    reused();
    ended();
    return 0;
}
