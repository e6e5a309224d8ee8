/* Linux from below: system calls, structs and constants, for x86-64 and aarch64.
 *
 * The core is freestanding.  It makes its system calls itself, so a result is the kernel's own
 * (-errno), no libc's errno, cancellation point or symbol version comes between, and one object
 * loads into every glibc and musl.
 */
#ifndef WALI_LINUX_H
#define WALI_LINUX_H

#include <stddef.h>
#include <stdint.h>

#include "numbers.gen.h"

struct timespec {
    int64_t tv_sec;
    int64_t tv_nsec;
};

struct iovec {
    void *base;
    uint64_t length;
};

struct pollfd {
    int32_t fd;
    int16_t events;
    int16_t revents;
};

struct open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

/* WALI's struct stat is x86-64's, on every processor. */
struct guest_stat {
    uint64_t st_dev;
    uint64_t st_ino;
    uint64_t st_nlink;
    uint32_t st_mode;
    uint32_t st_uid;
    uint32_t st_gid;
    uint32_t pad;
    uint64_t st_rdev;
    int64_t st_size;
    int64_t st_blksize;
    int64_t st_blocks;
    struct timespec times[3];
    int64_t unused[3];
};

#if defined(__x86_64__)

typedef struct guest_stat kernel_stat_t;

static inline int64_t syscall6(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d,
                               int64_t e, int64_t f) {
    register int64_t r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
}

/* A system call that is not made where a signal is in flight (signals.c).  It is a jump there and
 * back, since every `ret` after a system call is mispredicted where the kernel has to leave the
 * return predictor in disorder (Safe RET). */
static inline int64_t interruptible(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                                    int64_t f, int64_t number, const uint32_t *signal) {
    register int64_t r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    register const uint32_t *r12 __asm__("r12") = signal;
    __asm__ volatile("lea 1f(%%rip), %%rbx\n jmp interruptible_begin\n1:"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9), "r"(r12)
                     : "rbx", "rcx", "r11", "memory");
    return number;
}

#define HOST_OPEN_FLAGS(flags) (flags)
#define GUEST_OPEN_FLAGS(flags) (flags)

#elif defined(__aarch64__)

typedef struct {
    uint64_t st_dev;
    uint64_t st_ino;
    uint32_t st_mode;
    uint32_t st_nlink;
    uint32_t st_uid;
    uint32_t st_gid;
    uint64_t st_rdev;
    uint64_t pad1;
    int64_t st_size;
    int32_t st_blksize;
    int32_t pad2;
    int64_t st_blocks;
    struct timespec times[3];
    uint32_t unused[2];
} kernel_stat_t;

static inline int64_t syscall6(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d,
                               int64_t e, int64_t f) {
    register int64_t x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
    register int64_t x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;
    register int64_t x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory", "cc");
    return x0;
}

int64_t interruptible(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                      int64_t number, const uint32_t *signal);

/* asm/fcntl.h: DIRECTORY 0x4000, NOFOLLOW 0x8000, DIRECT 0x10000, LARGEFILE 0x20000: the guest's
 * four bits 14..17 with the pairs exchanged. */
#define SWAP_OPEN_FLAGS(flags)                                                                     \
    (((flags) & ~(uint64_t)0x3c000) | (((flags) & 0xc000) << 2) | (((flags) & 0x30000) >> 2))
#define HOST_OPEN_FLAGS(flags) SWAP_OPEN_FLAGS((uint64_t)(flags))
#define GUEST_OPEN_FLAGS(flags) SWAP_OPEN_FLAGS((uint64_t)(flags))

#else
#error "Linux on x86-64 and aarch64 only"
#endif

#define SYS(number, a, b, c, d, e, f)                                                              \
    syscall6(number, (int64_t)(a), (int64_t)(b), (int64_t)(c), (int64_t)(d), (int64_t)(e),         \
             (int64_t)(f))

#endif
