/* Guest memory: bounds, and copies that survive a page which is gone.
 *
 * A guest that owns mappings can protect a page, or truncate the file behind one, at any moment, so
 * the host must not touch guest memory with ordinary loads: a fault there would be the end of the
 * process.  All copies go through wali_copy.  When it faults, the handler below sends it to an exit
 * that answers -EFAULT (gVisor calls the same idea safecopy).  Buffers that the kernel itself fills
 * or reads need none of this.
 */
#include "core.h"

/* int wali_copy(void *to, const void *from, size_t size)
 * A leaf that keeps no state outside its registers, so the fault exit needs to restore nothing. */
#if defined(__x86_64__)
__asm__(".text\n"
        ".globl wali_copy\n.hidden wali_copy\n.type wali_copy, @function\n"
        "wali_copy:\n"
        "    mov %rdx, %rcx\n"
        "    cmp $256, %rdx\n"
        "    jae 3f\n"
        "    sub $8, %rcx\n"
        "    jb 2f\n"
        "1:  mov (%rsi), %rax\n"
        "    mov %rax, (%rdi)\n"
        "    add $8, %rsi\n"
        "    add $8, %rdi\n"
        "    sub $8, %rcx\n"
        "    jae 1b\n"
        "2:  add $8, %ecx\n"
        "    jz 4f\n"
        "3:  rep movsb\n"
        "4:  xor %eax, %eax\n"
        "    ret\n"
        ".globl wali_copy_end\n.hidden wali_copy_end\n"
        "wali_copy_end:\n"
        "    mov $-14, %eax\n"
        "    ret\n"
        ".globl wali_restorer\n.hidden wali_restorer\n"
        "wali_restorer:\n"
        "    mov $15, %eax\n" /* rt_sigreturn */
        "    syscall\n");
#elif defined(__aarch64__)
__asm__(".text\n"
        ".globl wali_copy\n.hidden wali_copy\n.type wali_copy, %function\n"
        "wali_copy:\n"
        "1:  cmp x2, #8\n"
        "    b.lo 2f\n"
        "    ldr x3, [x1], #8\n"
        "    str x3, [x0], #8\n"
        "    sub x2, x2, #8\n"
        "    b 1b\n"
        "2:  cbz x2, 4f\n"
        "    ldrb w3, [x1], #1\n"
        "    strb w3, [x0], #1\n"
        "    sub x2, x2, #1\n"
        "    b 2b\n"
        "4:  mov w0, #0\n"
        "    ret\n"
        ".globl wali_copy_end\n.hidden wali_copy_end\n"
        "wali_copy_end:\n"
        "    mov w0, #-14\n"
        "    ret\n"
        ".globl wali_restorer\n.hidden wali_restorer\n"
        "wali_restorer:\n"
        "    mov x8, #139\n" /* rt_sigreturn */
        "    svc 0\n");
#endif

extern const char wali_copy_end[];

/* The compiler may write calls to these for its own purposes, and there is no libc. */
void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    uint8_t *t = to;
    const uint8_t *f = from;
    while (size--)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int value, size_t size) {
    uint8_t *t = to;
    while (size--)
        *t++ = (uint8_t)value;
    return to;
}

static struct kernel_sigaction previous[SIGSEGV + 1];

static void on_fault(int signal, void *info, void *ucontext) {
    uintptr_t *pc = (uintptr_t *)((char *)ucontext + UCONTEXT_PC);
    if (*pc >= (uintptr_t)wali_copy && *pc < (uintptr_t)wali_copy_end) {
        *pc = (uintptr_t)wali_copy_end;
        return;
    }
    /* Not ours: wasmtime's own handler (a trap of the guest), or whoever was there before. */
    struct kernel_sigaction *before = &previous[signal];
    int sent = sent_signal && ((const int32_t *)info)[2] <= 0; /* by kill(2), to a program */
    if (sent && sent_signal(signal, info, ucontext))
        return;
    if (sent || (uintptr_t)before->handler <= 1) { /* SIG_DFL, SIG_IGN: returning faults again */
        struct kernel_sigaction fatal = {.flags = SA_RESTORER, .restorer = wali_restorer};
        SYS(NR_rt_sigaction, signal, &fatal, 0, 8, 0, 0);
        if (sent)
            SYS(NR_kill, SYS(NR_getpid, 0, 0, 0, 0, 0, 0), signal, 0, 0, 0, 0);
    } else /* one without SA_SIGINFO does not look at the other two, which are in registers */
        ((void (*)(int, void *, void *))before->handler)(signal, info, ucontext);
}

/* Called after wasmtime has put up its handlers, which then stand behind ours.  Once only: whoever
 * has put up another since then keeps ours behind it, and to go in front again would close a
 * circle.  Each is blocked while it is handled (no SA_NODEFER): whoever sends them faster than that
 * would fill the alternate stack. */
EXPORT int64_t wali_install_fault_handler(void) {
    static int installed;
    const int signals[4] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct kernel_sigaction ours = {.handler = (void *)on_fault,
                                    .flags = SA_SIGINFO | SA_ONSTACK | SA_RESTORER,
                                    .restorer = wali_restorer};
    if (__atomic_exchange_n(&installed, 1, __ATOMIC_SEQ_CST))
        return 0;
    for (int i = 0; i < 4; i++) {
        int64_t r = SYS(NR_rt_sigaction, signals[i], &ours, &previous[signals[i]], 8, 0, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The memory may have grown since its size was read, and in a store that is not ours it may have
 * moved: look again, then decide. */
uint8_t *space_refresh(struct context *c, struct space *s, uint64_t address, uint64_t size) {
    (void)c;
    if (s->bound) {
        s->base = wasmtime.memory_data(s->store, &s->memory);
        s->size = wasmtime.memory_data_size(s->store, &s->memory);
    }
    return s->bound && address + size <= s->size ? s->base + address : NULL;
}

/* These three serve Python as well, for the rare calls of WALI programs. */

/* A NUL-terminated string into `to`.  Its length, -EFAULT, or -ENAMETOOLONG where room is short. */
EXPORT int64_t copy_string(struct context *c, struct space *s, uint32_t address, char *to,
                           uint32_t room) {
    if (address == 0)
        return -EFAULT;
    uint32_t done = 0;
    while (done < room) {
        /* Aligned pieces never cross into a page that the string does not reach: it may be gone. */
        uint64_t at = (uint64_t)address + done;
        uint32_t chunk = 64 - (at & 63);
        if (chunk > room - done)
            chunk = room - done;
        if (at + chunk > s->size && !space_refresh(c, s, at, chunk)) {
            if (at >= s->size)
                return -EFAULT;
            chunk = (uint32_t)(s->size - at);
        }
        if (wali_copy(to + done, s->base + at, chunk))
            return -EFAULT;
        for (uint32_t end = done + chunk; done < end; done++)
            if (to[done] == 0)
                return done;
    }
    return -ENAMETOOLONG;
}

/* An iovec array of the guest, checked and translated into to[count].  0 or -errno. */
int64_t copy_iovec(struct context *c, struct space *s, uint32_t address, uint32_t count,
                   struct iovec *to) {
    struct {
        uint32_t base, length;
    } guest[16];
    if (count > UIO_MAXIOV)
        return -EINVAL;
    if (count &&
        !space_at(c, s, address, (uint64_t)count * sizeof *guest)) /* so no part of it wraps */
        return -EFAULT;
    for (uint32_t done = 0; done < count;) {
        uint32_t n = count - done < 16 ? count - done : 16;
        if (copy_from(c, s, address + done * 8, guest, n * 8))
            return -EFAULT;
        for (uint32_t i = 0; i < n; i++, done++) {
            uint8_t *base = space_buffer(c, s, guest[i].base, guest[i].length);
            if (base == WALI_BAD)
                return -EFAULT;
            to[done] = (struct iovec){base, guest[i].length};
        }
    }
    return 0;
}

EXPORT int64_t copy_from(struct context *c, struct space *s, uint32_t address, void *to,
                         uint64_t size) {
    uint8_t *at = space_buffer(c, s, address, size);
    return at == NULL || at == WALI_BAD ? -EFAULT : wali_copy(to, at, size);
}

EXPORT int64_t copy_to(struct context *c, struct space *s, uint32_t address, const void *from,
                       uint64_t size) {
    uint8_t *at = space_buffer(c, s, address, size);
    return at == NULL || at == WALI_BAD ? -EFAULT : wali_copy(at, from, size);
}
