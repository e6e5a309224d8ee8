/* A handler with SA_RESTART interrupts calls on sockets, with and without a time-out of their own.
 *
 * A timer sends signals for ever.  Where the call is made again, the third makes what it waits for.
 */
#include "wali.h"

enum { SOL_SOCKET = 1, SO_RCVTIMEO = 20, SO_SNDTIMEO = 21, MSG_DONTWAIT = 0x40, EIGHT = 8 };

struct timer {
    struct timespec every, first; /* in microseconds */
};

static volatile int signals;
static volatile enum { DATA, ROOM, CLIENT } waits_for;
static int pair[2], listener;
static const char address[] = {AF_UNIX, 0, 0, 'r', 'e', 's', 't', 'a', 'r', 't', 's'};
static char block[4096];

static void drain(int fd) {
    while (SYS_recvfrom(fd, block, sizeof block, MSG_DONTWAIT, NULL, NULL) > 0)
        ;
}

static void come(void) {
    int fd = (int)SYS_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SYS_connect(fd, address, sizeof address);
    SYS_close(fd);
}

static void note(int signal) {
    (void)signal;
    if (++signals != 3)
        return;
    if (waits_for == DATA)
        SYS_write(pair[1], "x", 1);
    else if (waits_for == ROOM)
        drain(pair[1]);
    else
        come();
}

static void begin_signals(int on) {
    struct timer timer = {{0, on * 20000}, {0, on * 20000}};
    signals = 0;
    SYS_setitimer(0, &timer, NULL);
}

static void set_times(int fd, long seconds) {
    struct timespec time = {seconds, 0};
    SYS_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    SYS_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

static long receive(int which) {
    struct iovec parts[2] = {{block, 1}, {block + 1, 1}};
    struct message message = {.parts = parts, .count = 2};
    switch (which) {
    case 0:
        return SYS_read(pair[0], block, EIGHT);
    case 1:
        return SYS_readv(pair[0], parts, 2);
    case 2:
        return SYS_recvfrom(pair[0], block, EIGHT, 0, NULL, NULL);
    case 3:
        return SYS_recvmsg(pair[0], &message, 0);
    case 4:
        return SYS_accept(listener, NULL, NULL) > 0 ? 1 : -4;
    default:
        return SYS_accept4(listener, NULL, NULL, 0) > 0 ? 1 : -4;
    }
}

static long send(int which) {
    struct iovec parts[2] = {{block, 2000}, {block + 1, 96}};
    struct message message = {.parts = parts, .count = 2};
    switch (which) {
    case 0:
        return SYS_write(pair[0], block, sizeof block);
    case 1:
        return SYS_writev(pair[0], parts, 2);
    case 2:
        return SYS_sendto(pair[0], block, sizeof block, 0, NULL, 0);
    default:
        return SYS_sendmsg(pair[0], &message, 0);
    }
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    static const char *receives[] = {"read", "readv", "recvfrom", "recvmsg", "accept", "accept4"};
    static const char *sends[] = {"write", "writev", "sendto", "sendmsg"};
    handle(SIGALRM, note, SA_RESTART, 0);
    SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    listener = (int)SYS_socket(AF_UNIX, SOCK_STREAM, 0);
    tell("bind", SYS_bind(listener, address, sizeof address));
    tell("listen", SYS_listen(listener, 8));
    for (long seconds = 0; seconds <= 50; seconds += 50) {
        tell("time-out in seconds", seconds);
        set_times(pair[0], seconds);
        set_times(listener, seconds);
        for (int i = 0; i < 6; i++) {
            waits_for = i < 4 ? DATA : CLIENT;
            begin_signals(1);
            tell(receives[i], receive(i));
            begin_signals(0);
        }
        for (int i = 0; i < 4; i++) {
            while (SYS_sendto(pair[0], block, sizeof block, MSG_DONTWAIT, NULL, 0) > 0)
                ;
            waits_for = ROOM;
            begin_signals(1);
            tell(sends[i], send(i));
            begin_signals(0);
            drain(pair[1]);
        }
    }
    return 0;
}
