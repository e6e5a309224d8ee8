/* Sockets on this machine's loopback. */
#include "wali.h"

static struct inet_address loopback(unsigned port) {
    return (struct inet_address){
        AF_INET, {(unsigned char)(port >> 8), (unsigned char)port}, {127, 0, 0, 1}, {0}};
}

static unsigned port_of(const struct inet_address *a) {
    return (unsigned)a->port[0] << 8 | a->port[1];
}

static int option(int fd, int level, int name) {
    int value = -1;
    unsigned size = sizeof value;
    long r = SYS_getsockopt(fd, level, name, &value, &size);
    tell("  getsockopt", r);
    tell("  size", size);
    return value;
}

static void options(int fd) {
    int on = 1;
    char small[2] = {7, 7};
    unsigned size = sizeof small;
    tell("reuse", SYS_setsockopt(fd, 1, 2, &on, sizeof on));
    tell("reuse is", option(fd, 1, 2));
    tell("no delay", SYS_setsockopt(fd, 6, 1, &on, sizeof on));
    tell("no delay is", option(fd, 6, 1));
    tell("kind", option(fd, 1, 3));
    tell("error", option(fd, 1, 4));
    tell("domain", option(fd, 1, 39));
    tell("too small", SYS_setsockopt(fd, 1, 2, &on, 2));
    tell("little room", SYS_getsockopt(fd, 1, 2, small, &size));
    tell("  size", size);
    tell("  bytes", small[0] * 10 + small[1]);
    long wait[2] = {1, 500000};
    tell("time-out", SYS_setsockopt(fd, 1, 20, wait, sizeof wait));
    wait[0] = wait[1] = 0, size = sizeof wait;
    tell("time-out is", SYS_getsockopt(fd, 1, 20, wait, &size));
    tell("  seconds", wait[0]);
    tell("  size", size);
    wait[0] = wait[1] = 0;
    SYS_setsockopt(fd, 1, 20, wait, sizeof wait);
    tell("not a socket", SYS_setsockopt(0, 1, 2, &on, sizeof on));
}

static void echo(void) {
    struct inet_address here = loopback(0), peer, self;
    unsigned size = sizeof here;
    char text[64] = {0};
    int listener = (int)tell("socket", SYS_socket(AF_INET, SOCK_STREAM, 0));
    options(listener);
    tell("bind", SYS_bind(listener, &here, sizeof here));
    tell("bind again", SYS_bind(listener, &here, sizeof here));
    tell("listen", SYS_listen(listener, 8));
    tell("getsockname", SYS_getsockname(listener, &here, &size));
    tell("  size", size);
    tell("  a port", port_of(&here) != 0);
    tell("getpeername", SYS_getpeername(listener, &peer, &size));
    int client = (int)SYS_socket(AF_INET, SOCK_STREAM, 6);
    tell("connect", SYS_connect(client, &here, sizeof here));
    tell("connect again", SYS_connect(client, &here, sizeof here));
    size = sizeof peer;
    int served = (int)tell("accept4", SYS_accept4(listener, &peer, &size, SOCK_NONBLOCK));
    tell("  size", size);
    unsigned own = sizeof self;
    SYS_getsockname(client, &self, &own);
    tell("  its address", port_of(&peer) == port_of(&self) && peer.host[0] == 127);
    tell("  flags", SYS_fcntl(served, 3, 0) & O_NONBLOCK);
    tell("  flags of the listener", SYS_fcntl(listener, 3, 0) & O_NONBLOCK);
    tell("nothing there", SYS_recvfrom(served, text, sizeof text, 0, NULL, NULL));
    tell("send", SYS_sendto(client, "hello", 5, 0, NULL, 0));
    tell("peek", SYS_recvfrom(served, text, 3, 2, NULL, NULL));
    tell("receive", SYS_recvfrom(served, text, sizeof text, 0, NULL, NULL));
    say("%s\n", text);
    tell("write", SYS_write(served, "echo", 4));
    tell("read", SYS_read(client, text, sizeof text));
    say("%s\n", text);
    tell("don't wait", SYS_recvfrom(client, text, 1, 0x40, NULL, NULL));
    tell("shutdown", SYS_shutdown(served, 1));
    tell("read the end", SYS_read(client, text, sizeof text));
    tell("send after it", SYS_sendto(served, "x", 1, 0x4000, NULL, 0));
    size = 4;
    tell("getpeername, little room", SYS_getpeername(client, &peer, &size));
    tell("  size", size);
    tell("shutdown how", SYS_shutdown(client, 9));
    SYS_close(served);
    SYS_close(client);
    SYS_fcntl(listener, 4, O_NONBLOCK);
    tell("nobody there", SYS_accept(listener, NULL, NULL));
    SYS_close(listener);
    client = (int)SYS_socket(AF_INET, SOCK_STREAM, 0);
    tell("nobody listens", SYS_connect(client, &here, sizeof here));
    SYS_close(client);
}

static void nonblocking(void) {
    struct inet_address here = loopback(0);
    unsigned size = sizeof here;
    int listener = (int)SYS_socket(AF_INET, SOCK_STREAM, 0);
    SYS_bind(listener, &here, sizeof here);
    SYS_listen(listener, 1);
    SYS_getsockname(listener, &here, &size);
    int client = (int)SYS_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    long r = SYS_connect(client, &here, sizeof here);
    tell("at once or soon", r == 0 || r == -EINPROGRESS);
    struct pollfd fds = {client, POLLOUT, 0};
    tell("poll", SYS_poll(&fds, 1, 5000));
    tell("  events", fds.revents);
    tell("error", option(client, 1, 4));
    int served = (int)SYS_accept(listener, NULL, NULL);
    tell("accepted", served >= 0);
    SYS_close(served);
    SYS_close(client);
    SYS_close(listener);
    client = (int)SYS_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    r = SYS_connect(client, &here, sizeof here);
    fds = (struct pollfd){client, POLLOUT, 0};
    SYS_poll(&fds, 1, 5000);
    tell("refused", r == -EINPROGRESS ? -option(client, 1, 4) : (option(client, 1, 4), r));
    SYS_close(client);
}

/* As much as two buffers hold, and more, while somebody reads: all of it arrives, in order. */
static void large(void) {
    static unsigned char block[1 << 16];
    enum { BLOCKS = 64 };
    int pair[2];
    tell("socketpair", SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    if (SYS_fork() == 0) {
        SYS_close(pair[0]);
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (unsigned char)(i * 7);
        long sent = 0;
        for (int i = 0; i < BLOCKS; i++)
            sent += i % 2 ? SYS_write(pair[1], block, sizeof block)
                          : SYS_sendto(pair[1], block, sizeof block, 0, NULL, 0);
        tell("sent", sent);
        leave(0);
    }
    SYS_close(pair[1]);
    long got, wrong = 0, total = 0;
    while ((got = SYS_recvfrom(pair[0], block, sizeof block, 0x100, NULL, NULL)) > 0)
        for (long i = 0; i < got; i++, total++)
            wrong += block[i] != (unsigned char)(total % (1 << 16) * 7);
    int status;
    SYS_wait4(-1, &status, 0, NULL);
    tell("received", total);
    tell("wrong", wrong);
    SYS_close(pair[0]);
}

static void mistakes(void) {
    struct inet_address here = loopback(80);
    tell("no such domain", SYS_socket(99, SOCK_STREAM, 0));
    tell("wrong protocol", SYS_socket(AF_INET, SOCK_STREAM, 17));
    tell("not a socket", SYS_connect(0, &here, sizeof here));
    tell("not open", SYS_listen(77, 1));
    tell("accept nothing", SYS_accept(0, NULL, NULL));
    int fd = (int)SYS_socket(AF_INET, SOCK_STREAM, 0);
    tell("short address", SYS_connect(fd, &here, 4));
    tell("long address", SYS_connect(fd, &here, 1000));
    tell("not connected", SYS_sendto(fd, "x", 1, 0x4000, NULL, 0));
    tell("not connected", SYS_shutdown(fd, 2));
    SYS_close(fd);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    echo();
    nonblocking();
    large();
    mistakes();
    return 0;
}
