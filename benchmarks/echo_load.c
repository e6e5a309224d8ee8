/* What both echo servers are measured with, guest or not: LOAD PORT CONNECTIONS ROUNDS SIZE
 *
 * Connects so often to a server on this machine.  Then each connection sends SIZE bytes (at most
 * 65,536) and reads as many back, ROUNDS times, all of them at once.  Prints how many nanoseconds
 * that took, without the connecting; ends with 1 if a byte was not what it should be.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 64, MOST = 1 << 16 };

struct connection {
    int fd;
    long left;
    size_t got;
};

static char sent[MOST], received[MOST];
static size_t size;

static void must(int condition, const char *what) {
    if (condition)
        return;
    perror(what);
    exit(1);
}

static int connect_to(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
            return fd;
        must(fd >= 0 && errno == ECONNREFUSED, "connect"); /* it does not listen yet */
        close(fd);
        usleep(1000);
    }
}

static void next(struct connection *c) {
    c->got = 0;
    must(send(c->fd, sent, size, 0) == (ssize_t)size, "send");
}

/* 1 when its last byte has come back. */
static int take(struct connection *c) {
    ssize_t n = recv(c->fd, received, size - c->got, 0);
    must(n > 0 && memcmp(received, sent + c->got, (size_t)n) == 0, "recv");
    c->got += (size_t)n;
    if (c->got < size)
        return 0;
    if (--c->left == 0)
        return 1;
    next(c);
    return 0;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000 + t.tv_nsec;
}

int main(int count, char **words) {
    must(count == 5, "LOAD PORT CONNECTIONS ROUNDS SIZE");
    long connections = atol(words[2]), left = connections;
    size = (size_t)atol(words[4]);
    must(size > 0 && size <= MOST, "size");
    for (size_t i = 0; i < size; i++)
        sent[i] = (char)(i * 31 + 7);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    int epoll = epoll_create1(0);
    must(all && epoll >= 0, "start");
    for (long i = 0; i < connections; i++) {
        all[i] = (struct connection){connect_to(atoi(words[1])), atol(words[3]), 0};
        struct epoll_event event = {EPOLLIN, {.ptr = all + i}};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event) == 0, "epoll_ctl");
    }
    int64_t began = now();
    for (long i = 0; i < connections; i++)
        next(all + i);
    while (left) {
        struct epoll_event ready[AT_ONCE];
        int n = epoll_wait(epoll, ready, AT_ONCE, -1);
        for (int i = 0; i < n; i++)
            left -= take(ready[i].data.ptr);
    }
    printf("%lld\n", (long long)(now() - began));
    return 0;
}
