/* Threads without a libc: what pthread_create and pthread_join do, in WALI and natively. */
#ifndef WALI_GUEST_THREAD_H
#define WALI_GUEST_THREAD_H

#include "wali.h"

#ifndef STACKS
#define STACKS 200
#endif
enum { FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_REQUEUE = 3, FUTEX_CMP_REQUEUE = 4 };
enum { FUTEX_WAIT_BITSET = 9, FUTEX_WAKE_BITSET = 10, FUTEX_PRIVATE = 128 };
enum { MOST = 200, STACK = 65536 };

struct thread {
    volatile int tid, done;
    void (*run)(long);
    long argument;
    char *stack;
};

static struct thread threads[MOST];
static char stacks[STACKS][STACK] __attribute__((aligned(16)));

static void finish(struct thread *t) {
    __atomic_store_n(&t->done, 1, __ATOMIC_SEQ_CST);
    SYS_futex((void *)&t->done, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
    for (;;)
        SYS_exit(0);
}

#if defined(__wasm__)

WALI("__wasm_thread_spawn") int spawn(int entry, void *argument);

/* Its first instructions: the stack pointer is an instance's own, and still the first thread's. */
void thread_begin(int tid, struct thread *t);
__asm__(".globaltype __stack_pointer, i32\n"
        ".functype thread_main (i32, i32) -> ()\n"
        ".globl thread_begin\n.type thread_begin,@function\n"
        "thread_begin:\n"
        "    .functype thread_begin (i32, i32) -> ()\n"
        "    local.get 1\n"
        "    i32.load 24\n"
        "    global.set __stack_pointer\n"
        "    local.get 0\n"
        "    local.get 1\n"
        "    call thread_main\n"
        "    end_function\n");

__attribute__((used)) void thread_main(int tid, struct thread *t) {
    t->tid = tid;
    t->run(t->argument);
    finish(t);
}

static int start(int i) {
    return spawn((int)(size_t)thread_begin, &threads[i]);
}

#else

__attribute__((used)) static void thread_main(struct thread *t) {
    t->tid = (int)SYS_gettid();
    t->run(t->argument);
    finish(t);
}

/* clone(2): VM FS FILES SIGHAND THREAD SYSVSEM. */
static int start(int i) {
    struct thread *t = &threads[i];
    long *top = (long *)t->stack - 3, result;
    top[0] = (long)t;
    register long r10 __asm__("r10") = 0;
    __asm__ volatile("syscall\n test %%rax, %%rax\n jnz 1f\n pop %%rdi\n call thread_main\n1:"
                     : "=a"(result)
                     : "a"(56L), "D"(0x50f00L), "S"(top), "d"(0L), "r"(r10)
                     : "rcx", "r11", "r8", "r9", "memory");
    return (int)result;
}

#endif

/* A stack is used again much later: who has told that it is done still has a few steps to go. */
static int begin(int i, void (*run)(long), long argument) {
    static int stack;
    threads[i] = (struct thread){0, 0, run, argument, stacks[stack++ % STACKS] + STACK};
    return start(i);
}

static void join(int i) {
    while (!__atomic_load_n(&threads[i].done, __ATOMIC_SEQ_CST))
        SYS_futex((void *)&threads[i].done, FUTEX_WAIT, 0, NULL, NULL, 0);
}

#endif
