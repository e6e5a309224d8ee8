/* A library, not a program: the host calls `crc32` on bytes that it has put into `buffer`. */
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

static uint8_t buffer[65536];

EXPORT("buffer") uint8_t *get_buffer(void) {
    return buffer;
}

/* Deliberately trusting: a length beyond the buffer goes on to read whatever follows. */
EXPORT("crc32") uint32_t crc32(uint32_t length) {
    uint32_t crc = 0xFFFFFFFF;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= buffer[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}
