/* Clients of memcached: PORT CLIENTS OPERATIONS
 *
 * So many processes, each with a connection, set a value and get it, in turn, each waiting for its
 * answer.  It prints the nanoseconds that all OPERATIONS together took; it fails where an answer is
 * not the right one.
 */
#include "wali.h"

enum { KEYS = 1000, VALUE = 100, TCP_NODELAY = 1, IPPROTO_TCP = 6 };

static char line[512], value[VALUE + 1];

static long now(void) {
    struct timespec t;
    SYS_clock_gettime(CLOCK_MONOTONIC, &t);
    return t.seconds * 1000000000 + t.rest;
}

static int add(int at, const char *text) {
    for (; *text; text++)
        line[at++] = *text;
    return at;
}

/* Send what is in the line, and read until there is as much as the answer has. */
static void ask(int fd, int size, const char *answer) {
    char got[512];
    size_t all = length(answer), have = 0;
    SYS_sendto(fd, line, (size_t)size, 0, NULL, 0);
    while (have < all) {
        long r = SYS_recvfrom(fd, got + have, sizeof got - have, 0, NULL, NULL);
        if (r <= 0)
            leave(2);
        have += (size_t)r;
    }
    got[have] = 0;
    if (!equal(got, answer))
        leave(3);
}

static void client(int port, int index, long operations) {
    struct inet_address to = {
        AF_INET, {(unsigned char)(port >> 8), (unsigned char)port}, {127, 0, 0, 1}, {0}};
    int fd = (int)SYS_socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (SYS_connect(fd, &to, sizeof to) < 0)
        leave(1);
    SYS_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (long i = 0; i < operations / 2; i++) {
        char key[64];
        int n = decimal(key, index * KEYS + i / 2 % KEYS);
        key[n] = 0;
        int at = add(add(add(0, "set k"), key), " 0 0 100\r\n");
        ask(fd, add(add(at, value), "\r\n"), "STORED\r\n");
        char answer[512];
        at = add(add(add(add(add(0, "VALUE k"), key), " 0 100\r\n"), value), "\r\nEND\r\n");
        memcpy(answer, line, (size_t)at);
        answer[at] = 0;
        ask(fd, add(add(add(0, "get k"), key), "\r\n"), answer);
    }
    leave(0);
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 1;
    int clients = (int)number(argv[2]), failed = 0;
    for (int i = 0; i < VALUE; i++)
        value[i] = (char)('a' + i % 26);
    long began = now();
    for (int i = 0; i < clients; i++)
        if (SYS_fork() == 0)
            client((int)number(argv[1]), i, number(argv[3]) / clients);
    for (int i = 0, status = 0; i < clients; i++) {
        SYS_wait4(-1, &status, 0, NULL);
        failed |= status;
    }
    say("%d\n", now() - began);
    return failed >> 8;
}
