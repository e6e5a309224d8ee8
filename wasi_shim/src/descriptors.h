/* What the shim knows about each of the guest's descriptors.
 *
 * The numbers are the core's: it hands them out, lowest first, and it alone decides what they
 * mean.  This table only adds what WASI has and Linux has not.
 *
 * Rights: every operation names the rights that it needs, and what fd_fdstat_set_rights took away
 * stays away, here and for all that is opened beneath.  But rights *asked for* at path_open are
 * not a limit, except for the access mode: programs are seen to ask for nothing and then use the
 * descriptor, since the largest engine does not look.  With `strict_rights`, asked is granted.
 */
#ifndef WASI_SHIM_DESCRIPTORS_H
#define WASI_SHIM_DESCRIPTORS_H

#include <stdbool.h>

#include "linux.h"
#include "preview1.h"
#include "rights.h"
#include "wali.h"

struct preopen; /* configure.h */

enum {
    DESCRIPTOR_OPEN = 1 << 0,
    DESCRIPTOR_UNTYPED = 1 << 1,   /* nobody needed the type yet: filetype and flags are unset */
    DESCRIPTOR_STDIO = 1 << 2,     /* the host's stream, under whatever number it is now */
    DESCRIPTOR_READ_ONLY = 1 << 3, /* a read-only preopen, or opened beneath one */
    DESCRIPTOR_DATAGRAM = 1 << 4,  /* if it is a socket: of datagrams, as the host says */
};

struct descriptor {
    rights_t base;
    rights_t inheriting;
    rights_t dropped;              /* what left `inheriting`: not to be had beneath any more */
    const struct preopen *preopen; /* or NULL */
    uint8_t filetype;
    uint8_t flags;   /* FDFLAGS_; APPEND is ours alone, the kernel never hears of it */
    uint8_t state;   /* DESCRIPTOR_ */
    uint16_t polled; /* poll_oneoff's: where it is in the set that is polled, if it is */
};

struct descriptors {
    struct descriptor *entries;
    uint32_t size;
    bool strict_rights;
};

extern struct descriptors descriptors;

/* The open descriptor, or NULL.  Its type may not be known yet. */
struct descriptor *descriptor_lookup(fd_t fd);

/* ... with its type known. */
errno_t descriptor_identify(fd_t fd, struct descriptor **out);

/* ... having all of `needed`: the way in for every operation. */
errno_t descriptor_require_slowly(fd_t fd, rights_t needed, struct descriptor **out);

static inline errno_t descriptor_require(fd_t fd, rights_t needed, struct descriptor **out) {
    if (fd < descriptors.size && (descriptors.entries[fd].base & needed) == needed) {
        *out = &descriptors.entries[fd];
        return ERRNO_SUCCESS;
    }
    return descriptor_require_slowly(fd, needed, out);
}

/* The errno of a write that a read-only preopen does not allow; counted. */
errno_t refuse_write(void);

/* Why `needed` is refused, in the words that Linux would use where it has some. */
errno_t descriptor_refusal(const struct descriptor *descriptor, rights_t needed);

/* Records what the core has just opened as `fd`; ERRNO_NOMEM leaves it to the caller to close. */
errno_t descriptor_add(fd_t fd, struct descriptor descriptor);
void descriptor_remove(fd_t fd);

uint8_t filetype_of_mode(uint32_t mode);
uint8_t filetype_of_descriptor(const struct descriptor *descriptor, uint32_t mode);
rights_t rights_of_filetype(uint8_t filetype);

/* ... and of this file: a terminal is told from other character devices by asking it. */
rights_t rights_of_file(fd_t fd, uint8_t filetype);

#endif
