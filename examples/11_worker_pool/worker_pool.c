/* A WALI program with threads and signals, without a C library: workers count primes, a block of
 * numbers at a time, until SIGTERM comes.  Then each finishes its block, and the sum is told.
 *
 * WALI has no clone: `__wasm_thread_spawn` makes an instance of the module on the same memory.  How
 * a thread waits for another is Linux's futex, and the handler of a signal is a function.
 */
#define WALI(name) __attribute__((import_module("wali"), import_name(name)))

typedef __SIZE_TYPE__ size_t;

WALI("SYS_write") long write_to(int fd, const void *from, size_t size);
WALI("SYS_futex")
long futex(volatile int *word, int command, int value, void *timeout, void *second, int third);
WALI("SYS_rt_sigaction")
long set_action(int signal, const void *action, void *old, unsigned mask_bytes);
WALI("SYS_exit") long end_thread(int status);
WALI("__wasm_thread_spawn") int spawn(int entry, void *argument);
WALI("__init") int begin(void);
WALI("__deinit") int end(void);
WALI("__proc_exit") void leave(int status);

enum { WORKERS = 4, STACK = 1 << 16, BLOCK = 5000, WAIT = 0, WAKE = 1, SIGTERM = 15 };

/* --- text ------------------------------------------------------------------------------------- */

static size_t put(char *to, const char *text) {
    size_t size = 0;
    while (text[size])
        to[size] = text[size], size++;
    return size;
}

static size_t put_number(char *to, long number) {
    char digits[24];
    size_t size = 0, at = 0;
    do
        digits[size++] = (char)('0' + number % 10);
    while (number /= 10);
    while (size)
        to[at++] = digits[--size];
    return at;
}

/* Lines of several threads do not mix, since each is one write. */
static void tell(const char *before, long number, const char *after) {
    char line[100];
    size_t size = put(line, before);
    size += put_number(line + size, number);
    size += put(line + size, after);
    write_to(1, line, size);
}

/* --- workers ---------------------------------------------------------------------------------- */

struct worker {
    char *stack; /* its end: the first member, for the code below */
    volatile int done;
    long blocks, primes;
};

static struct worker workers[WORKERS];
static char stacks[WORKERS][STACK] __attribute__((aligned(16)));
static volatile int stopping;
static long next_block;

static int is_prime(long number) {
    for (long divisor = 2; divisor * divisor <= number; divisor++)
        if (number % divisor == 0)
            return 0;
    return number > 1;
}

__attribute__((used)) static void work(int thread, struct worker *me) {
    while (!stopping) {
        long block = __atomic_fetch_add(&next_block, 1, __ATOMIC_SEQ_CST);
        for (long number = block * BLOCK; number < (block + 1) * BLOCK; number++)
            me->primes += is_prime(number);
        if (++me->blocks == 1)
            tell("thread ", thread, " has finished its first block\n");
    }
    me->done = 1;
    futex(&me->done, WAKE, 1, 0, 0, 0);
    for (;;)
        end_thread(0);
}

/* The first instructions of a thread: it has a stack pointer of its own, which is to be set. */
void thread_begin(int thread, struct worker *me);
__asm__(".globaltype __stack_pointer, i32\n"
        ".functype work (i32, i32) -> ()\n"
        ".globl thread_begin\n.type thread_begin,@function\n"
        "thread_begin:\n"
        "    .functype thread_begin (i32, i32) -> ()\n"
        "    local.get 1\n"
        "    i32.load 0\n"
        "    global.set __stack_pointer\n"
        "    local.get 0\n"
        "    local.get 1\n"
        "    call work\n"
        "    end_function\n");

/* --- the first thread ------------------------------------------------------------------------- */

static void stop(int signal) {
    tell("signal ", signal, ": no block is begun any more\n");
    stopping = 1;
}

static void handle(int signal, void (*handler)(int)) {
    struct {
        void (*handler)(int);
        unsigned long flags;
        unsigned restorer;
        unsigned long mask;
    } __attribute__((packed)) action = {handler, 0, 0, 0};
    set_action(signal, &action, 0, sizeof action.mask);
}

void _start(void) {
    long blocks = 0, primes = 0;
    begin();
    handle(SIGTERM, stop);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].stack = stacks[i] + STACK;
        if (spawn((int)(size_t)thread_begin, &workers[i]) < 0)
            leave(1);
    }
    for (int i = 0; i < WORKERS; i++) {
        while (!workers[i].done) /* a signal ends the wait, and it is made again */
            futex(&workers[i].done, WAIT, 0, 0, 0, 0);
        blocks += workers[i].blocks;
        primes += workers[i].primes;
    }
    tell("", blocks, " blocks\n");
    tell("", primes, " primes\n");
    end();
    leave(0);
}
