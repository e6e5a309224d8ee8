/* What the core is compiled with to be watched: its copies and its system calls go through checks
 * of ours (checks.c), which know what is the guest's memory and what is not. */
#ifndef SANITIZED_CHECKS_H
#define SANITIZED_CHECKS_H

#include <stddef.h>
#include <stdint.h>

int wali_copy(void *to, const void *from, size_t size);
int checked_copy(void *to, const void *from, size_t size);
int64_t checked_syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                        int64_t f);
int64_t wali_interruptible(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                           int64_t number, const uint32_t *signal);
int64_t checked_interruptible(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                              int64_t number, const uint32_t *signal);

#endif
