/* A program that wants no more than to say one word. */
#include <stdint.h>

struct iovec {
    const char *base;
    uint32_t length;
};

__attribute__((import_module("wasi_snapshot_preview1"), import_name("fd_write"))) uint32_t
fd_write(uint32_t fd, const struct iovec *, uint32_t count, uint32_t *written);

__attribute__((export_name("_start"))) void start(void) {
    const struct iovec word = {"hello\n", 6};
    uint32_t written;
    fd_write(1, &word, 1, &written);
}
