/* The host's side: memory for the configuration, then the configuration itself. */
#include "configure.h"

#include <stdbool.h>

#include "descriptors.h"
#include "errno.h"
#include "exports.h"
#include "memory.h"
#include "now.h"
#include "random.h"
#include "resolve.h"

enum {
    VERSION = 2,
    CONFIGURE_STRICT_RIGHTS = 1 << 0,
    CONFIGURE_MANUAL_WALK = 1 << 1,
    CONFIGURE_SEEDED = 1 << 2,
    PREOPEN_READ_ONLY = 1 << 0,
    PREOPEN_DATAGRAM = 1 << 1, /* no directory, but a socket: fstat() does not say of which kind */
};

struct configuration {
    uint32_t version;
    uint32_t argument_count;
    uint32_t arguments_size;
    uint32_t environment_count;
    uint32_t environment_size;
    uint32_t preopen_count;
    uint32_t flags;
    uint32_t clock; /* an enum clock_source */
    uint64_t time;
    uint64_t seed;
    char rest[]; /* argv, environ, preopens */
};

struct reader { /* what is left of the configuration */
    const char *at;
    uint32_t size;
};

struct strings arguments;
struct strings environment;

static const char *take(struct reader *reader, uint32_t size) {
    if (size > reader->size)
        return NULL;
    const char *taken = reader->at;
    reader->at += size;
    reader->size -= size;
    return taken;
}

static bool take_strings(struct reader *reader, uint32_t count, uint32_t size,
                         struct strings *out) {
    const char *bytes = take(reader, size);
    if (!bytes)
        return false;
    uint32_t ends = 0;
    for (uint32_t i = 0; i < size; i++)
        ends += bytes[i] == '\0';
    if (ends != count || (size > 0 && bytes[size - 1]))
        return false;
    *out = (struct strings){.count = count, .size = size, .bytes = bytes};
    return true;
}

static const struct preopen *take_preopen(struct reader *reader) {
    const struct preopen *preopen = (const void *)take(reader, sizeof *preopen);
    if (!preopen || preopen->name_length > PATH_MAX)
        return NULL;
    uint32_t padded = (preopen->name_length + 3) & ~3u;
    return take(reader, padded) ? preopen : NULL;
}

static errno_t add_datagrams(fd_t fd) {
    if (fd > 2) {
        struct descriptor socket = {
            .base = RIGHTS_ALL,
            .state = DESCRIPTOR_UNTYPED | DESCRIPTOR_DATAGRAM,
        };
        return descriptor_add(fd, socket);
    }
    descriptors.entries[fd].state |= DESCRIPTOR_DATAGRAM; /* a standard stream, which is there */
    return ERRNO_SUCCESS;
}

static errno_t add_preopen(const struct preopen *preopen) {
    if (preopen->flags & PREOPEN_DATAGRAM)
        return add_datagrams(preopen->fd);
    bool read_only = preopen->flags & PREOPEN_READ_ONLY;
    rights_t denied = read_only ? RIGHTS_WRITING : 0;
    struct descriptor directory = {
        .base = RIGHTS_DIRECTORY & ~denied,
        .inheriting = RIGHTS_ALL & ~denied,
        .preopen = preopen,
        .filetype = FILETYPE_DIRECTORY,
        .state = read_only ? DESCRIPTOR_READ_ONLY : 0,
    };
    return descriptor_add(preopen->fd, directory);
}

/* Least authority: a terminal can be read and written through all three, and should not be. */
static void add_standard_streams(void) {
    for (fd_t fd = 0; fd <= 2; fd++) {
        struct descriptor stream = {
            .base = (RIGHTS_FILE | RIGHTS_SOCKET) & ~(fd == 0 ? RIGHTS_FD_WRITE : RIGHTS_FD_READ),
            .state = DESCRIPTOR_STDIO | DESCRIPTOR_UNTYPED,
        };
        descriptor_add(fd, stream);
    }
}

_Alignas(8) char wasi_room[WASI_ROOM];

void *wasi_allocate(uint32_t size) {
    return memory_allocate(size);
}

/* Takes over the memory: names and strings are used where they lie.  0, or Linux's errno. */
int32_t wasi_configure(const struct configuration *given, uint32_t size) {
    if (size < sizeof *given || size & 3 || given->version != VERSION ||
        !clock_configure(given->clock, given->time))
        return EINVAL;
    struct reader reader = {.at = given->rest, .size = size - sizeof *given};
    if (!take_strings(&reader, given->argument_count, given->arguments_size, &arguments) ||
        !take_strings(&reader, given->environment_count, given->environment_size, &environment))
        return EINVAL;
    add_standard_streams();
    take(&reader, reader.size & 3); /* the strings end anywhere, the rest is whole words */
    for (uint32_t i = 0; i < given->preopen_count; i++) {
        const struct preopen *preopen = take_preopen(&reader);
        if (!preopen)
            return EINVAL;
        if (add_preopen(preopen))
            return ENOMEM;
    }
    descriptors.strict_rights = given->flags & CONFIGURE_STRICT_RIGHTS;
    resolve_configure(given->flags & CONFIGURE_MANUAL_WALK);
    random_configure(given->flags & CONFIGURE_SEEDED, given->seed);
    return 0;
}

/* --- argv and environ ----------------------------------------------------------------------- */

errno_t strings_sizes_get(const struct strings *strings, guest_address count, guest_address size) {
    if (guest_store_u32(count, strings->count))
        return ERRNO_FAULT;
    return errno_of(guest_store_u32(size, strings->size));
}

errno_t strings_get(const struct strings *strings, guest_address pointers, guest_address bytes) {
    enum { BATCH = 64 };
    guest_address batch[BATCH];
    if (!strings->count)
        return ERRNO_SUCCESS;
    uint32_t offset = 0;
    for (uint32_t done = 0; done < strings->count;) {
        uint32_t n = 0;
        for (; n < BATCH && done < strings->count; n++, done++) {
            batch[n] = bytes + offset;
            offset += strlen(strings->bytes + offset) + 1;
        }
        if (guest_copy_out(pointers + 4 * (done - n), batch, 4 * n))
            return ERRNO_FAULT;
    }
    return errno_of(guest_copy_out(bytes, strings->bytes, strings->size));
}
