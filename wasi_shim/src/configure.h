/* What the host tells the shim before the guest starts. */
#ifndef WASI_SHIM_CONFIGURE_H
#define WASI_SHIM_CONFIGURE_H

#include "preview1.h"

struct preopen { /* as it lies in the configuration: a directory, or what a socket is */
    uint32_t fd;
    uint32_t flags;
    uint32_t name_length;
    char name[]; /* without a NUL */
};

struct strings { /* argv or environ: NUL-terminated, back to back */
    uint32_t count;
    uint32_t size;
    const char *bytes;
};

extern struct strings arguments;
extern struct strings environment;

/* The two halves of args_* and environ_*. */
errno_t strings_sizes_get(const struct strings *strings, guest_address count, guest_address size);
errno_t strings_get(const struct strings *strings, guest_address pointers, guest_address bytes);

#endif
