#include "random.h"

#include "errno.h"
#include "exports.h"
#include "memory.h"
#include "wali.h"

/* Seeds and identifiers are small and many: they come from a pool, so that most cost no system
 * call.  What was handed out is wiped, or a later bug could reveal a key from before it. */
enum { POOL_SIZE = 1024, SMALL = 256, CHUNK = 1 << 20 };

static uint8_t pool[POOL_SIZE];
static uint32_t pool_left; /* bytes at the front that nobody has seen */

static bool seeded;
static uint64_t state;

void random_configure(bool from_seed, uint64_t seed) {
    seeded = from_seed;
    state = seed;
}

/* SplitMix64 (Steele, Lea and Flood, 2014): the same numbers in every run, and no secrets. */
static uint64_t next_word(void) {
    uint64_t word = state += 0x9e3779b97f4a7c15;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
}

/* How many bytes there are, or -errno. */
static int64_t draw(uint8_t *to, uint32_t size) {
    if (!seeded)
        return sys_getrandom(to, size, 0);
    for (uint32_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t word = next_word();
        memcpy(to + i, &word, size - i < sizeof word ? size - i : sizeof word);
    }
    return size;
}

static errno_t refill(void) {
    int64_t got = at_most(POOL_SIZE, draw(pool, POOL_SIZE));
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

/* How many bytes were put into the guest's memory, or -errno. */
static int64_t draw_to_guest(guest_address buffer, uint32_t size) {
    if (!seeded)
        return guest_getrandom(buffer, size < CHUNK ? size : CHUNK, 0);
    uint8_t bytes[POOL_SIZE];
    int64_t got = draw(bytes, size < POOL_SIZE ? size : POOL_SIZE);
    return guest_copy_out(buffer, bytes, got) ? -EFAULT : got;
}

static errno_t random_large(guest_address buffer, uint32_t size) {
    if (guest_check(buffer, size))
        return ERRNO_FAULT;
    while (size > 0) {
        int64_t got = at_most(size, draw_to_guest(buffer, size));
        if (got <= 0)
            return got ? errno_of(got) : ERRNO_IO;
        buffer += got;
        size -= got;
    }
    return ERRNO_SUCCESS;
}

errno_t random_get(guest_address buffer, uint32_t size) {
    return size <= SMALL ? random_small(buffer, size) : random_large(buffer, size);
}
