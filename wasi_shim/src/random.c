#include "errno.h"
#include "memory.h"
#include "wali.h"

/* Seeds and identifiers are small and many: they come from a pool, so that most cost no system
 * call.  What was handed out is wiped, or a later bug could reveal a key from before it. */
enum { POOL_SIZE = 1024, SMALL = 256, CHUNK = 1 << 20 };

static uint8_t pool[POOL_SIZE];
static uint32_t pool_left; /* bytes at the front that nobody has seen */

static errno_t refill(void) {
    int64_t got = sys_getrandom(pool, POOL_SIZE, 0);
    if (got < 0)
        return errno_of(got);
    pool_left = got; /* the kernel never gives less than SMALL at once, once it is seeded */
    return ERRNO_SUCCESS;
}

static errno_t random_small(guest_address buffer, uint32_t size) {
    if (pool_left < size) {
        errno_t error = refill();
        if (error)
            return error;
        if (pool_left < size)
            return ERRNO_AGAIN;
    }
    uint8_t *bytes = pool + pool_left - size;
    if (guest_copy_out(buffer, bytes, size))
        return ERRNO_FAULT;
    memset(bytes, 0, size);
    pool_left -= size;
    return ERRNO_SUCCESS;
}

static errno_t random_large(guest_address buffer, uint32_t size) {
    if (guest_check(buffer, size))
        return ERRNO_FAULT;
    while (size > 0) {
        int64_t got = guest_getrandom(buffer, size < CHUNK ? size : CHUNK, 0);
        if (got < 0)
            return errno_of(got);
        buffer += got;
        size -= got;
    }
    return ERRNO_SUCCESS;
}

EXPORT(random_get)
errno_t random_get(guest_address buffer, uint32_t size) {
    return size <= SMALL ? random_small(buffer, size) : random_large(buffer, size);
}
