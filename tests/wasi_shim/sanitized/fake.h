/* A fake core for the shim's C, built natively under sanitizers: the guest's memory is an array,
 * and the kernel answers at random.
 *
 * What it checks: that whatever the shim hands over can be read and written as far as it says, that
 * every path is one component or goes to openat2 with the right flags, and that no call of the
 * shim's asks for what the core would refuse.  That the core refuses it is tested elsewhere. */
#ifndef SANITIZED_FAKE_H
#define SANITIZED_FAKE_H

/* The shim's own headers come first: the C library makes macros of some of their names. */
#include "configure.h"
#include "descriptors.h"
#include "exports.h"
#include "linux.h"
#include "memory.h"
#include "preview1.h"
#include "wali.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GUEST_SIZE = 256 * 1024,
    FILES = 300,             /* descriptors that a guest can have: more than a walk may hold */
    GIVEN = 8,               /* ... of which the host opened these itself, if they are open */
    MOST_CALLS = 200 * 1000, /* that one of WASI's may make: more is an endless loop */
};

/* --- chance --------------------------------------------------------------------------------- */

extern uint64_t chance; /* the state; never 0 */

static inline uint64_t anything(void) { /* xorshift64* */
    chance ^= chance >> 12;
    chance ^= chance << 25;
    chance ^= chance >> 27;
    return chance * 0x2545f4914f6cdd1d;
}

static inline uint32_t below(uint32_t limit) {
    return (uint32_t)(anything() >> 32) % limit;
}

static inline bool one_in(uint32_t of) {
    return below(of) == 0;
}

#define ONE_OF(...)                                                                                \
    ((uint64_t[]){__VA_ARGS__}[below(sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))])

/* A number of any size: near a power of two, most often. */
uint64_t any_number(void);

/* --- the fake ------------------------------------------------------------------------------- */

struct file {
    bool open;
    int32_t flags;
    uint32_t mode;
    uint32_t listed; /* entries that getdents64 has given */
};

extern struct file files[FILES];
extern uint8_t *guest;   /* its memory */
extern bool hostile;     /* may the kernel give results that Linux never gives? */
extern bool was_hostile; /* has it, during this call? */
extern uint32_t system_calls;
extern jmp_buf left; /* where a call of WASI's ends that does not return */

enum { EXITED = 1, STOPPED = 2 };

void fake_reset(void);

_Noreturn void fail(const char *what);

#endif
