#include "memory.h"

#include <stdbool.h>

enum { PAGE_SIZE = 65536, ALIGNMENT = 16 };

extern char __heap_base; /* the linker's: where static data ends */

/* The builtins are single instructions of the bulk memory proposal. */

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    return __builtin_memcpy(to, from, size);
}

void *memmove(void *to, const void *from, size_t size) {
    return __builtin_memmove(to, from, size);
}

void *memset(void *to, int byte, size_t size) {
    return __builtin_memset(to, byte, size);
}

__attribute__((no_builtin("memcmp", "bcmp"))) int memcmp(const void *left, const void *right,
                                                         size_t size) {
    const unsigned char *a = left, *b = right;
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i])
            return a[i] - b[i];
    return 0;
}

__attribute__((no_builtin("strlen"))) size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

static uint32_t next; /* the first free byte; 0 before the first allocation */

static bool memory_reaches(uint64_t end) {
    uint64_t size = (uint64_t)__builtin_wasm_memory_size(0) * PAGE_SIZE;
    if (end <= size)
        return true;
    uint64_t pages = (end - size + PAGE_SIZE - 1) / PAGE_SIZE;
    return end <= UINT32_MAX && __builtin_wasm_memory_grow(0, pages) != (size_t)-1;
}

void *memory_allocate(uint32_t size) {
    if (!next)
        next = (uint32_t)(uintptr_t)&__heap_base;
    uint64_t start = ((uint64_t)next + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
    if (!memory_reaches(start + size))
        return NULL;
    next = start + size;
    return (void *)(uintptr_t)start;
}
