/* A WASI program that has a listening socket: GREETER DESCRIPTOR CONNECTIONS
 *
 * Accepts, says "hello", gives back what it is sent until the other side says no more, says "bye",
 * and shuts down; one connection after the other.  What fails ends it with WASI's errno.
 */
#include <stdint.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

struct iovec {
    const void *base;
    uint32_t length;
};

WASI(args_get) uint32_t args_get(char **argv, char *bytes);
WASI(fd_close) uint32_t fd_close(uint32_t fd);
WASI(proc_exit) _Noreturn void proc_exit(uint32_t status);
WASI(sock_accept) uint32_t sock_accept(uint32_t fd, uint32_t flags, uint32_t *accepted);
WASI(sock_recv)
uint32_t sock_recv(uint32_t fd, const struct iovec *, uint32_t, uint32_t, uint32_t *done,
                   uint16_t *flags);
WASI(sock_send)
uint32_t sock_send(uint32_t fd, const struct iovec *, uint32_t, uint32_t, uint32_t *done);
WASI(sock_shutdown) uint32_t sock_shutdown(uint32_t fd, uint32_t how);

enum { SHUT_WRITING = 2 };

static char buffer[1 << 16];
static char strings[1 << 12];
static char *arguments[8];

static void must(uint32_t error) {
    if (error)
        proc_exit(error);
}

static uint32_t number(const char *text) {
    uint32_t value = 0;
    for (; *text; text++)
        value = value * 10 + (uint32_t)(*text - '0');
    return value;
}

static void send(uint32_t fd, const char *data, uint32_t size) {
    while (size) {
        uint32_t done;
        must(sock_send(fd, &(struct iovec){data, size}, 1, 0, &done));
        data += done;
        size -= done;
    }
}

static uint32_t receive(uint32_t fd) {
    uint32_t done;
    uint16_t flags;
    must(sock_recv(fd, &(struct iovec){buffer, sizeof buffer}, 1, 0, &done, &flags));
    return done;
}

__attribute__((export_name("_start"))) void start(void) {
    must(args_get(arguments, strings));
    uint32_t listener = number(arguments[1]), connection;
    for (uint32_t left = number(arguments[2]); left; left--) {
        must(sock_accept(listener, 0, &connection));
        send(connection, "hello\n", 6);
        for (uint32_t size; (size = receive(connection));)
            send(connection, buffer, size);
        send(connection, "bye\n", 4);
        must(sock_shutdown(connection, SHUT_WRITING));
        must(fd_close(connection));
    }
}
