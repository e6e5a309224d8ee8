/* Signals of a WALI program, in a process of its own.
 *
 * The kernel does what it can: masks, pending signals, default actions and what is ignored are the
 * host's own.  Only a handler is a function of the guest's, and may run nowhere but at a safepoint:
 * before or after a system call, or at a poll of the guest's code (_polls.py).  So the host's
 * handler notes the signal and leaves the thread with all signals blocked: one is in flight, the
 * others stay pending in the kernel.  The mask that it has interrupted is put back when the guest's
 * handler has run.
 *
 * SEGV, BUS, ILL and FPE are WebAssembly's traps, so they are never blocked, and their handlers on
 * the host are not changed for a guest.  Those that are sent are the guest's all the same.
 */
#include "core.h"

/* A signal must not be lost between the look at `signal` and the system call.  It cannot: the
 * handler moves whoever is between the two, the syscall instruction included, to the exit.  (musl
 * has its cancellation points like this.)  On x86-64 it is jumped to and jumps back (linux.h). */
#if defined(__x86_64__)
__asm__(".text\n"
        ".globl interruptible_begin\n.hidden interruptible_begin\n"
        "interruptible_begin:\n"
        "    cmpl $0, (%r12)\n"
        "    jne interruptible_exit\n"
        "interruptible_call:\n"
        "    syscall\n"
        "    jmp *%rbx\n"
        "interruptible_exit:\n"
        "    mov $-512, %rax\n"
        "    jmp *%rbx\n"
        ".globl __x86_return_thunk\n.hidden __x86_return_thunk\n"
        "__x86_return_thunk: cmpl $0, wali_jumps_back(%rip)\n    jne 1f\n    ret\n"
        "1:  pop %rcx\n    jmp *%rcx\n"); /* of JUMPS_BACK */
#elif defined(__aarch64__)
__asm__(".text\n"
        ".globl interruptible\n.hidden interruptible\n"
        "interruptible:\n"
        "interruptible_begin:\n"
        "    ldr w9, [x7]\n"
        "    cbnz w9, interruptible_exit\n"
        "    mov x8, x6\n"
        "interruptible_call:\n"
        "    svc 0\n"
        "    ret\n"
        "interruptible_exit:\n"
        "    mov x0, #-512\n"
        "    ret\n");
#endif
EXPORT uint32_t wali_jumps_back; /* set by Python */
extern const char interruptible_begin[], interruptible_call[], interruptible_exit[];

EXPORT int64_t wali_interruptible(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                                  int64_t number, const uint32_t *signal) {
    return interruptible(a, b, c, d, e, f, number, signal);
}

enum { SIGNALS = 64, HANDLER_DEFAULT = 0, HANDLER_IGNORE = -2 };
#define BIT(signal) ((uint64_t)1 << ((signal) - 1))
#define SYNCHRONOUS (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE))

/* WALI's struct k_sigaction; a handler is an index of table 0. */
EXPORT struct action {
    uint32_t handler;
    uint64_t flags;
    uint32_t restorer;
    uint64_t mask;
} __attribute__((packed)) wali_actions[SIGNALS + 1]; /* as the guest gave them */

/* The last of each that is a function.  Whether that is still so is the kernel's to know: a signal
 * that it has brought here is for a handler, also where another action has been set since. */
static struct action handlers[SIGNALS + 1];

/* Kept by Python: who runs the guest's code, and whether there is one. */
EXPORT struct {
    int64_t tid;
    struct context *c;
} wali_running[MAX_THREADS];
int (*sent_signal)(int, void *, void *);

/* The host's handler of every signal that the guest handles.  It stores, and makes system calls:
 * what may be done in a signal handler. */
static void on_signal(int signal, void *info, void *ucontext) {
    int64_t i = 0, tid = SYS(NR_gettid, 0, 0, 0, 0, 0, 0);
    while (i < MAX_THREADS && wali_running[i].tid != tid)
        i++;
    const char **pc = (const char **)((char *)ucontext + UCONTEXT_PC);
    uint64_t *mask = (uint64_t *)((char *)ucontext + UCONTEXT_MASK);
    struct context *c = i < MAX_THREADS ? wali_running[i].c : NULL;
    if (c && c->signal && BIT(signal) & SYNCHRONOUS)
        return;
    if (c == NULL || c->signal) { /* who should have blocked it, and does now: it waits for others;
                                   * a thread of the host's, or one of those that are never blocked
                                   * is in flight, and has come just before a mask was set */
        *mask = ~SYNCHRONOUS;
        SYS(NR_kill, SYS(NR_getpid, 0, 0, 0, 0, 0, 0), signal, 0, 0, 0, 0);
        return;
    }
    c->signal = (uint32_t)signal;
    c->code = ((const int32_t *)info)[2];
    c->mask_before = *mask;
    *mask = ~SYNCHRONOUS;
    if (*pc >= interruptible_begin && *pc <= interruptible_call)
        *pc = interruptible_exit;
    if (c->poll)
        *c->poll = 1;
}

/* One of those that are traps, which somebody has sent: 0 where the default action is to follow.  A
 * second that comes while a signal is in flight is lost, since it cannot be blocked. */
static int signal_sent(int signal, void *info, void *ucontext) {
    uint32_t handler = wali_actions[signal].handler;
    if (handler != HANDLER_DEFAULT && handler != (uint32_t)HANDLER_IGNORE)
        on_signal(signal, info, ucontext);
    return handler != HANDLER_DEFAULT;
}

/* This process is a program's: from here on such signals are looked at. */
EXPORT void wali_take_sent_signals(void) {
    sent_signal = signal_sent;
}

static void set_mask(uint64_t mask) {
    mask &= ~SYNCHRONOUS;
    SYS(NR_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8, 0, 0);
}

/* Call the guest's handlers until no signal is in flight.  1 where one has ended the guest; or
 * somebody else has, and then the signal stays in flight: Python hands it back to the kernel. */
static int deliver(struct context *c) {
    for (int64_t restart = -1; c->signal;) {
        if (c->stop)
            return 1;
        struct table *t = table_lock(c);
        struct action action = handlers[c->signal];
        table_unlock(t);
        wasmtime_val_raw_t values[2] = {{.u32 = action.handler}, {.u32 = c->signal}};
        uint64_t before = c->mask_before, during = c->has_mask_during ? c->mask_during : before;
        if (!(action.flags & SA_NODEFER))
            during |= BIT(c->signal);
        if (restart < 0) /* the first decides, as in the kernel */
            restart = (action.flags & SA_RESTART) != 0;
        if (action.flags & SA_RESETHAND && BIT(c->signal) & SYNCHRONOUS) /* else the kernel has */
            wali_actions[c->signal].handler = HANDLER_DEFAULT;
        c->has_mask_during = c->signal = 0;
        set_mask(during | action.mask); /* others may come, and run inside */
        wasmtime_error_t *error =
            wasmtime.func_call_unchecked(c->own.store, &c->call, values, 2, &c->trap);
        if (error)
            wasmtime.error_delete(error);
        if (error || c->trap)
            return 1;
        set_mask(before); /* what was blocked meanwhile is in flight now */
        c->restart = restart > 0;
    }
    return 0;
}

/* Has a socket a time-out, set by this option?  On one that has, the kernel makes no call again. */
static int64_t has_timeout(struct context *c, int32_t number, int32_t option) {
    int64_t time[2] = {0, 0}, size = sizeof time; /* of which the kernel sees the lower half */
    SYS(NR_getsockopt, host_of(c, number), SOL_SOCKET, option, time, &size, 0);
    return time[0] | time[1];
}

/* After a call, or instead of one: its result.  ABORTED if it is to be made, or made again. */
int64_t signal_settle(struct context *c, int64_t result, int restarts, int32_t number) {
    if (result == STOPPED || deliver(c))
        return STOPPED;
    if (result == -EINTR && restarts && c->restart &&
        (restarts == 1 || !has_timeout(c, number, restarts)))
        return ABORTED;
    return result == NOT_AGAIN ? -EINTR : result;
}

/* A poll in the code of a program has found its flag set: by a signal, or by Python when it must
 * come to its end.  Whoever sets it again from here on does so for the next poll. */
EXPORT wasm_trap_t *wali_on_poll(void *env, UNUSED wasmtime_caller_t *caller,
                                 UNUSED wasmtime_val_raw_t *values, UNUSED size_t count) {
    struct context *c = env;
    __atomic_exchange_n(c->poll, 0, __ATOMIC_SEQ_CST);
    c->has_mask_during = 0; /* of a call that is over */
    return deliver(c) || c->stop ? stop_trap(c) : NULL;
}

/* --- the calls -------------------------------------------------------------------------------- */

BODY(body_rt_sigaction) {
    int32_t signal = a[0].i32;
    struct action given = {0}, old;
    struct kernel_sigaction was = {0}, action = {.restorer = wali_restorer, .mask = ~SYNCHRONOUS};
    if (a[3].u32 == 8 && a[1].u32 && copy_from(c, s, a[1].u32, &given, sizeof given))
        return -EFAULT;
    if (a[3].u32 != 8 || signal < 1 || signal > SIGNALS ||
        (a[1].u32 && (signal == SIGKILL || signal == SIGSTOP)))
        return -EINVAL;
    given.flags &= SA_KNOWN;
    given.mask &= ~(BIT(SIGKILL) | BIT(SIGSTOP));
    action.flags = (given.flags & (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_RESETHAND)) | SA_SIGINFO |
                   SA_ONSTACK | SA_RESTORER;
    action.handler = given.handler == HANDLER_DEFAULT            ? NULL
                     : given.handler == (uint32_t)HANDLER_IGNORE ? (void *)1
                                                                 : (void *)on_signal;
    struct table *t = table_lock(c); /* so others find the handler, and the kernel has it, in one */
    old = wali_actions[signal];
    if (a[1].u32)
        wali_actions[signal] = given;
    if (action.handler == (void *)on_signal)
        handlers[signal] = given;
    if (!(BIT(signal) & SYNCHRONOUS)) {
        SYS(NR_rt_sigaction, signal, a[1].u32 ? &action : NULL, &was, 8, 0, 0);
        if (was.handler != (void *)on_signal) /* SA_RESETHAND is the kernel's, too */
            old.handler = was.handler ? (uint32_t)HANDLER_IGNORE : HANDLER_DEFAULT;
    }
    table_unlock(t);
    return a[2].u32 ? copy_to(c, s, a[2].u32, &old, sizeof old) : 0;
}

/* A mask that the kernel is given: MASK_OF(c), which is NULL where `address` is. */
int64_t take_mask(struct context *c, struct space *s, uint32_t address, uint64_t size) {
    if (address && (size != 8 || !c->direct)) /* a guest that shares its process has no signals */
        return c->direct ? -EINVAL : -ENOSYS;
    if (address && copy_from(c, s, address, &c->mask_during, 8))
        return -EFAULT;
    c->mask_during &= ~SYNCHRONOUS;
    c->has_mask_during = address != 0;
    return 0;
}
