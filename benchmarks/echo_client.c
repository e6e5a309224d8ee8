/* A WASI program with a connection to an echo server at descriptor 3: CLIENT ROUNDS SIZE SEED
 *
 * Sends SIZE bytes (at most 65,536) and reads as many back, ROUNDS times, each time others.  Ends
 * with 0 if every byte came back, in order; with 200 at a wrong one; else with WASI's errno.
 */
#include <stdint.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

struct iovec {
    const void *base;
    uint32_t length;
};

WASI(args_get) uint32_t args_get(char **argv, char *bytes);
WASI(proc_exit) _Noreturn void proc_exit(uint32_t status);
WASI(sock_recv)
uint32_t sock_recv(uint32_t fd, const struct iovec *, uint32_t, uint32_t, uint32_t *done,
                   uint16_t *flags);
WASI(sock_send)
uint32_t sock_send(uint32_t fd, const struct iovec *, uint32_t, uint32_t, uint32_t *done);

enum { CONNECTION = 3, WRONG = 200, CLOSED = 201 };

static uint8_t sent[1 << 16], got[1 << 16];
static char strings[1 << 10];
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

static void send(uint32_t size) {
    for (uint32_t at = 0, done; at < size; at += done)
        must(sock_send(CONNECTION, &(struct iovec){sent + at, size - at}, 1, 0, &done));
}

static void receive(uint32_t size) {
    uint16_t flags;
    for (uint32_t at = 0, done; at < size; at += done) {
        must(sock_recv(CONNECTION, &(struct iovec){got + at, size - at}, 1, 0, &done, &flags));
        if (done == 0)
            proc_exit(CLOSED);
    }
}

__attribute__((export_name("_start"))) void start(void) {
    must(args_get(arguments, strings));
    uint32_t rounds = number(arguments[1]), size = number(arguments[2]);
    uint32_t state = number(arguments[3]);
    for (uint32_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < size; i++)
            sent[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
        send(size);
        receive(size);
        for (uint32_t i = 0; i < size; i++)
            if (sent[i] != got[i])
                proc_exit(WRONG);
    }
}
