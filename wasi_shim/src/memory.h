/* The shim's own memory: there is no libc. */
#ifndef WASI_SHIM_MEMORY_H
#define WASI_SHIM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Compilers call these four on their own. */
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);

size_t strlen(const char *text);

/* `size` bytes, zeroed and never freed, or NULL.  What needs more than once keeps and reuses. */
void *memory_allocate(uint32_t size);

#endif
