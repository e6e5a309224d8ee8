/* Every call of the core's, in each way that it can be made, at random: on a fake engine and a real
 * kernel.
 *
 * A guest lives for a number of calls, in one of five ways: as a program in a process of its own
 * (signals come at any moment, now and then to two threads of it), as one that shares the
 * embedder's, or as the shim in capability mode; the last two also on a fiber, where they wait in
 * their slot.  Its memory has pages that it may not touch, that are gone, and that another thread
 * takes away and gives back; it also writes what the core is just reading.  What is looked at is in
 * checks.c, and that nobody else is harmed in alone.c.
 *
 *     fuzz SEED CALLS      status 0 if nothing is wrong; prints what is, or how many calls
 *                          were made in how many ways, and how often they waited for what
 *                          never came
 *
 * With COVERAGE it is a target of libFuzzer's, and what is chance here are the bytes of an input.
 */
#include "fuzz.h"

#include "kinds.gen.h"

enum { HIDDEN = 37 * PAGE, READ_ONLY = 41 * PAGE, GONE = 45 * PAGE, FLIPPED = 49 * PAGE };
enum { PATHS = 5 * PAGE, RECORDS = 8 * PAGE, FIRST_SIZE = 208 * KB, GROWTH = 16 * KB };
enum { HOW = RECORDS, TIMES = HOW + 64, NAME = TIMES + 64, VECTOR = NAME + 64 };
enum { MESSAGE = VECTOR + 64, DATA = MESSAGE + 64, ROOT = 3, PAIR = 4 }; /* and two descriptors */
static const uint32_t edges[] = {HIDDEN, READ_ONLY, GONE, FLIPPED};

enum way { PROGRAM, SHARED, FIBER_PROGRAM, SHIM, FIBER_SHIM, WAYS };
enum kind { NATIVE, HOSTED, CAPABLE, CAPABLE_GUEST, KINDS };

struct memory memories[MEMORIES];
struct context contexts[THREADS];
__thread const char *now = "the beginning";
int own_stream;
uint64_t inherited;

static enum way way;
static int threads = 1;
static __thread int me; /* which of them */
static uint32_t polls[THREADS];
static struct pollfd slot_fds[3];

static struct progress {
    uint64_t made, lives, stuck;
    const char *now;
    uint32_t times[MOST_CALLS][KINDS], successes[MOST_CALLS][KINDS];
} *progress; /* shared with the process that watches */

static int is_program(void) {
    return way <= FIBER_PROGRAM;
}

/* --- chance ----------------------------------------------------------------------------------- */

static __thread uint64_t chance;
static const uint8_t *input; /* of libFuzzer's */
static size_t left;

uint64_t anything(void) { /* xorshift64* */
    if (input) {
        uint64_t word = 0;
        for (int i = 0; i < 4 && left; i++, left--)
            word = word << 8 | *input++;
        return word * 0x100000001;
    }
    chance ^= chance >> 12;
    chance ^= chance << 25;
    chance ^= chance >> 27;
    return chance * 0x2545f4914f6cdd1d;
}

uint32_t below(uint32_t limit) {
    if (input && limit <= 256)
        return left ? left--, *input++ % limit : 0;
    return (uint32_t)(anything() >> 32) % limit;
}

/* --- the fake engine -------------------------------------------------------------------------- */

static uint8_t *memory_data(UNUSED const wasmtime_context_t *s, const wasmtime_memory_t *m) {
    return memories[m->private2].base;
}

static size_t memory_size(UNUSED const wasmtime_context_t *s, const wasmtime_memory_t *m) {
    return memories[m->private2].size;
}

static wasm_trap_t *trap_new(UNUSED const char *message, UNUSED size_t length) {
    return (wasm_trap_t *)1;
}

static wasmtime_error_t *error_new(UNUSED const char *message) {
    return (wasmtime_error_t *)1;
}

static void error_delete(UNUSED wasmtime_error_t *error) {
}

static wasmtime_context_t *caller_context(UNUSED const wasmtime_caller_t *caller) {
    return NULL;
}

static void *get_data(UNUSED const wasmtime_context_t *store) {
    return &contexts[me];
}

static void set_deadline(UNUSED wasmtime_context_t *store, UNUSED uint64_t ticks) {
}

static void grow(struct memory *m) {
    if (m->size + GROWTH > MOST)
        return;
    mprotect(m->base + m->size, GROWTH, 3);
    memset(m->base + m->size, 0, GROWTH);
    __atomic_store_n(&m->size, m->size + GROWTH, __ATOMIC_SEQ_CST);
    if (m->addresses < m->size)
        __atomic_store_n(&m->addresses, m->size, __ATOMIC_SEQ_CST);
}

static wasmtime_error_t *memory_grow(UNUSED wasmtime_context_t *s, const wasmtime_memory_t *m,
                                     UNUSED uint64_t pages, uint64_t *old) {
    *old = memories[m->private2].size;
    grow(&memories[m->private2]);
    return below(4) ? NULL : (wasmtime_error_t *)1;
}

/* What Python would serve. */
static int64_t host(UNUSED struct context *c, UNUSED uint32_t call,
                    UNUSED const wasmtime_val_raw_t *a) {
    return below(2) ? -ENOSYS : (int64_t)below(100);
}

static wasm_trap_t *make_any_call(void);

/* A handler of the guest's, which makes calls as well. */
static wasmtime_error_t *call_handler(UNUSED wasmtime_context_t *store,
                                      UNUSED const wasmtime_func_t *f,
                                      UNUSED wasmtime_val_raw_t *values, UNUSED size_t count,
                                      wasm_trap_t **trap) {
    static __thread int depth;
    if (depth < 3 && below(2)) {
        const char *interrupted = now;
        depth++;
        *trap = make_any_call();
        depth--;
        now = interrupted;
    }
    if (*trap == NULL && below(64) == 0)
        *trap = (wasm_trap_t *)1;
    return below(64) ? NULL : (wasmtime_error_t *)1;
}

/* --- arguments -------------------------------------------------------------------------------- */

static uint32_t any_number(void) {
    uint32_t size = (uint32_t)memories[OWN].size;
    switch (below(6)) {
    case 0:
        return below(8);
    case 1:
        return below(5000);
    case 2:
        return (uint32_t)-1 - below(8);
    case 3:
        return (uint32_t)1 << below(32);
    case 4:
        return size - below(64) + below(8);
    default:
        return (uint32_t)anything();
    }
}

/* An address: of the guest's most often, at its end now and then, or at what it cannot access. */
static uint32_t any_address(void) {
    switch (below(10)) {
    case 0:
        return 0;
    case 1:
        return (uint32_t)memories[below(MEMORIES)].size - below(300);
    case 2:
        return any_number();
    case 3:
    case 4:
        return edges[below(4)] - below(40);
    case 5:
        return PATHS + 32 * below(16);
    default:
        return RECORDS + 8 * below(1024);
    }
}

static const char paths[][16] = {".", "a", "b", "a/b", "..", "/", "/a", "c", "a/../b", ""};

static void put_words(uint8_t *to, int count) {
    for (int i = 0; i < count; i++) {
        uint32_t word = below(3) ? any_address() : any_number();
        word = below(3) ? word : below(16);
        memcpy(to + 4 * i, &word, 4);
    }
}

/* Structs as calls want them, of which chance makes none. */
static void put_structs(uint8_t *base) {
    const uint64_t how[3] = {below(2) ? 0x42 : 0, 0600, below(4) ? 0x0a : 0};
    const int64_t times[4] = {0, below(100000), 0, below(100000)};
    const uint8_t name[16] = {AF_UNIX, 0, below(2), 'n'};
    const uint32_t vector[6] = {DATA, below(100), below(4) ? DATA + 50 : 0, below(5000), DATA, 9};
    const uint32_t message[9] = {below(2) ? 0 : NAME, 16, VECTOR, below(4)};
    memcpy(base + HOW, how, sizeof how);
    memcpy(base + TIMES, times, sizeof times);
    memcpy(base + NAME, name, sizeof name);
    memcpy(base + VECTOR, vector, sizeof vector);
    memcpy(base + MESSAGE, message, sizeof message);
}

/* Records that look like what calls read: small numbers, descriptors, addresses, lengths. */
static void fill_records(int some) {
    const uint8_t *kept = input;
    chance = input ? anything() | 1 : chance; /* an input chooses among many, it does not say all */
    input = NULL;
    for (int m = 0; m < MEMORIES; m++) {
        uint8_t *base = memories[m].base;
        for (int i = 0; i < 16; i++) {
            const char *path = paths[below(sizeof paths / sizeof *paths)];
            memcpy(base + PATHS + 32 * i, path, sizeof paths[0]);
        }
        for (int i = 0; i < 4; i++)
            put_words(base + edges[i] - 64, 16);
        put_words(base + RECORDS + (some ? 64 * below(127) : 0), some ? some : 2048);
        if (below(4))
            put_structs(base);
    }
    input = kept;
}

static uint64_t argument(const char *kind) {
    if (kind[0] == 'f' || kind[0] == 'd') /* fd, dirfd, flags */
        return kind[1] == 'l' ? any_number()
               : below(8)     ? below(28)
                              : (uint32_t)(below(2) ? AT_FDCWD : (int32_t)any_number());
    if (kind[0] == 'p' && kind[1] == 'a')
        return below(8) ? PATHS + 32 * below(16) : any_address();
    if (kind[0] == 'l')
        return below(4) ? any_number() : anything();
    if (kind[0] == 'i' || kind[0] == 'u')
        return any_number();
    return any_address();
}

/* Numbers that a call knows, of which chance finds few. */
static const struct hint {
    const char *call;
    int argument, count;
    uint32_t values[12];
} hints[] = {
    {"SYS_openat2", 2, 1, {HOW}},
    {"SYS_ppoll", 2, 1, {TIMES}},
    {"SYS_pselect6", 4, 1, {TIMES}},
    {"SYS_pselect6", 5, 1, {0}},
    {"SYS_select", 4, 1, {TIMES}},
    {"SYS_nanosleep", 0, 1, {TIMES}},
    {"SYS_clock_nanosleep", 2, 1, {TIMES}},
    {"SYS_utimensat", 2, 1, {TIMES}},
    {"SYS_setitimer", 1, 1, {TIMES}},
    {"SYS_timerfd_settime", 2, 1, {TIMES}},
    {"SYS_futex", 3, 1, {TIMES}},
    {"SYS_bind", 1, 1, {NAME}},
    {"SYS_connect", 1, 1, {NAME}},
    {"SYS_readv", 1, 1, {VECTOR}},
    {"SYS_readv", 2, 3, {1, 2, 3}},
    {"SYS_writev", 1, 1, {VECTOR}},
    {"SYS_writev", 2, 3, {1, 2, 3}},
    {"SYS_preadv", 1, 1, {VECTOR}},
    {"SYS_preadv", 2, 3, {1, 2, 3}},
    {"SYS_pwritev", 1, 1, {VECTOR}},
    {"SYS_pwritev", 2, 3, {1, 2, 3}},
    {"SYS_pwritev2", 1, 1, {VECTOR}},
    {"SYS_pwritev2", 2, 3, {1, 2, 3}},
    {"SYS_sendmsg", 1, 1, {MESSAGE}},
    {"SYS_recvmsg", 1, 1, {MESSAGE}},
    {"SYS_recvfrom", 0, 2, {PAIR, PAIR + 1}},
    {"SYS_writev", 0, 4, {PAIR, PAIR + 1, 1, 9}},
    {"SYS_close", 0, 5, {6, 7, 8, 9, 10}},
    {"SYS_recvfrom", 2, 3, {10, 100, 5000}},
    {"SYS_rt_sigaction", 0, 8, {SIGUSR1, 12, 14, 17, 34, SIGSEGV, SIGFPE, SIGUSR1}},
    {"SYS_rt_sigaction", 3, 1, {8}},
    {"SYS_rt_sigprocmask", 0, 3, {0, 1, 2}},
    {"SYS_rt_sigprocmask", 3, 1, {8}},
    {"SYS_rt_sigpending", 1, 1, {8}},
    {"SYS_rt_sigsuspend", 1, 1, {8}},
    {"SYS_kill", 0, 1, {1}},
    {"SYS_kill", 1, 7, {SIGUSR1, 12, 14, 34, SIGSEGV, SIGFPE, SIGBUS}},
    {"SYS_tkill", 0, 2, {1, 2}},
    {"SYS_tkill", 1, 7, {SIGUSR1, 12, 14, 34, SIGSEGV, SIGFPE, SIGBUS}},
    {"SYS_tgkill", 0, 1, {1}},
    {"SYS_tgkill", 1, 2, {1, 2}},
    {"SYS_tgkill", 2, 5, {SIGUSR1, 12, 34, SIGSEGV, SIGFPE}},
    {"SYS_ppoll", 1, 4, {0, 1, 2, 9}},
    {"SYS_ppoll", 4, 1, {8}},
    {"SYS_poll", 1, 4, {0, 1, 2, 9}},
    {"SYS_poll", 2, 3, {0, 1, 3}},
    {"SYS_select", 0, 4, {0, 3, 20, 64}},
    {"SYS_pselect6", 0, 4, {0, 3, 20, 64}},
    {"SYS_epoll_ctl", 1, 3, {1, 2, 3}},
    {"SYS_epoll_wait", 2, 3, {1, 2, 20}},
    {"SYS_epoll_wait", 3, 3, {0, 1, 3}},
    {"SYS_epoll_pwait", 2, 3, {1, 2, 20}},
    {"SYS_epoll_pwait", 3, 3, {0, 1, 3}},
    {"SYS_epoll_pwait", 5, 1, {8}},
    {"SYS_epoll_create1", 0, 2, {0, O_CLOEXEC}},
    {"SYS_eventfd2", 1, 4, {0, O_NONBLOCK, O_CLOEXEC, 1}},
    {"SYS_timerfd_create", 0, 2, {0, 1}},
    {"SYS_timerfd_create", 1, 2, {0, O_NONBLOCK}},
    {"SYS_timerfd_settime", 1, 2, {0, 1}},
    {"SYS_open", 1, 8, {0, 1, 2, 0x42, 0x41, 0x10000, 0x200000, 0x442}},
    {"SYS_openat", 2, 8, {0, 1, 2, 0x42, 0x41, 0x10000, 0x200000, 0x442}},
    {"SYS_openat2", 3, 1, {24}},
    {"SYS_lseek", 2, 5, {0, 1, 2, 3, 4}},
    {"SYS_unlinkat", 2, 2, {0, 0x200}},
    {"SYS_linkat", 4, 2, {0, 0x400}},
    {"SYS_renameat2", 4, 3, {0, 1, 2}},
    {"SYS_newfstatat", 3, 3, {0, 0x100, 0x1000}},
    {"SYS_statx", 2, 3, {0, 0x100, 0x1000}},
    {"SYS_utimensat", 3, 2, {0, 0x100}},
    {"SYS_fchownat", 4, 2, {0, 0x100}},
    {"SYS_faccessat2", 3, 2, {0, 0x200}},
    {"SYS_fallocate", 1, 2, {0, 1}},
    {"SYS_fadvise", 3, 3, {0, 3, 4}},
    {"SYS_flock", 1, 4, {1, 5, 6, 8}},
    {"SYS_pwritev2", 4, 2, {0, 16}},
    {"SYS_pipe2", 1, 3, {0, O_CLOEXEC, O_NONBLOCK}},
    {"SYS_dup3", 2, 2, {0, O_CLOEXEC}},
    {"SYS_socket", 0, 3, {AF_UNIX, AF_INET, AF_INET6}},
    {"SYS_socket", 1, 4, {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM | SOCK_NONBLOCK}},
    {"SYS_socket", 2, 1, {0}},
    {"SYS_socketpair", 0, 1, {AF_UNIX}},
    {"SYS_socketpair", 1, 3, {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}},
    {"SYS_socketpair", 2, 1, {0}},
    {"SYS_accept4", 3, 2, {0, SOCK_NONBLOCK}},
    {"SYS_sendto", 3, 2, {0, 0x40}},
    {"SYS_sendto", 4, 1, {0}},
    {"SYS_recvfrom", 3, 5, {0, 2, 0x40, 0x100, 0x100}},
    {"SYS_recvfrom", 4, 1, {0}},
    {"SYS_sendmsg", 2, 2, {0, 0x40}},
    {"SYS_recvmsg", 2, 3, {0, 2, 0x40}},
    {"SYS_shutdown", 1, 3, {0, 1, 2}},
    {"SYS_bind", 2, 3, {2, 16, 28}},
    {"SYS_connect", 2, 3, {2, 16, 28}},
    {"SYS_futex", 1, 8, {0, 1, 3, 4, 9, 10, 128, 129}},
    {"SYS_clock_gettime", 0, 3, {0, 1, 2}},
    {"SYS_clock_getres", 0, 3, {0, 1, 2}},
    {"SYS_clock_nanosleep", 0, 2, {0, 1}},
    {"SYS_clock_nanosleep", 1, 2, {0, 1}},
    {"SYS_setitimer", 0, 3, {0, 1, 2}},
    {"SYS_getrusage", 0, 3, {0, 1, (uint32_t)-1}},
    {"SYS_wait4", 2, 2, {0, 1}},
    {"SYS_getrandom", 2, 2, {0, 1}},
    {"SYS_setuid", 0, 1, {0}},
    {"SYS_setgid", 0, 1, {0}},
};

/* The table's closed lists, for the calls that have one: a command, or a level and an option. */
static void choose_listed(const char *name, wasmtime_val_raw_t *values) {
    if (strcmp(name, "SYS_ioctl") == 0)
        values[1].u64 = ioctls[below(sizeof ioctls / sizeof *ioctls)][0];
    if (strcmp(name, "SYS_fcntl") == 0)
        values[1].u64 = fcntls[below(sizeof fcntls / sizeof *fcntls)][0];
    if (strcmp(name, "SYS_setsockopt") && strcmp(name, "SYS_getsockopt"))
        return;
    const uint32_t *option = socket_options[below(sizeof socket_options / sizeof *socket_options)];
    values[1].u64 = option[0];
    values[2].u64 = option[1];
}

static void choose_arguments(uint32_t which, wasmtime_val_raw_t *values) {
    const char *const *kinds = argument_kinds[which], *name = wali_calls[which].name;
    memset(values, 0xee, 8 * sizeof *values);
    for (int i = 0; kinds[i]; i++)
        values[i].u64 = argument(kinds[i]);
    if (below(4))
        choose_listed(name, values);
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (strcmp(name, hints[i].call) == 0 && below(8))
            values[hints[i].argument].u64 = hints[i].values[below((uint32_t)hints[i].count)];
    if (below(8) == 0)
        values[below(MAX_ARGUMENTS)].u64 = 0;
}

/* --- calls ------------------------------------------------------------------------------------ */

static int is_fiber(void) {
    return way == FIBER_PROGRAM || way == FIBER_SHIM;
}

static wasmtime_unchecked_callback_t *thunk_of(uint32_t which, enum kind kind) {
    const struct call *call = &wali_calls[which];
    wasmtime_unchecked_callback_t *const all[KINDS] = {call->native, call->hosted, call->capable,
                                                       call->capable_guest};
    return all[kind];
}

static uint32_t call_named(const char *name) {
    for (uint32_t i = 0; i < wali_call_count; i++)
        if (strcmp(wali_calls[i].name, name) == 0)
            return i;
    fail("there is no such call");
}

/* A call on a fiber: it is suspended and goes on, a few times at the most; who waits longer is
 * dropped. */
static wasm_trap_t *make_on_fiber(void *env, uint32_t which, wasmtime_val_raw_t *values) {
    const struct call *call = &wali_calls[which];
    struct slot *slot = &contexts[0].slot;
    wasmtime_val_t arguments[MAX_ARGUMENTS], results[1];
    wasmtime_async_continuation_t next;
    wasm_trap_t *trap = NULL;
    size_t count = 0;
    for (; argument_kinds[which][count]; count++) {
        arguments[count].kind = call->parameters[count] == 'I';
        arguments[count].of.i64 = values[count].i64;
    }
    memset(results, 0, sizeof results);
    wali_async(env, NULL, arguments, count, results, *call->result != 0, &trap, &next);
    for (int i = 0; i < 5; i++) {
        if (next.callback(next.env)) {
            values[0].i64 = results[0].of.i64;
            return trap;
        }
        slot->answered = slot->requested;
        slot->answer = (int64_t)any_number() - 1000;
        slot->grow = below(4) == 0;
        slot->resumed = below(3);
        if (below(4) == 0)
            fill_records(16);
    }
    slot->suspended = slot->requested = slot->answered = 0;
    slot->repeats = 0;
    slot->done = 0;
    values[0].i64 = -EINTR;
    return NULL;
}

/* What a shim does that is to wait, and _suspending.py for a program.  A shim that was taken over
 * may make another call instead. */
static wasm_trap_t *wait_and_repeat(uint32_t which, wasmtime_unchecked_callback_t *thunk,
                                    const wasmtime_val_raw_t *given, wasmtime_val_raw_t *values) {
    struct context *c = &contexts[0];
    uint32_t suspend = call_named("suspend");
    wasm_trap_t *trap = NULL;
    for (int i = 0; i < 4 && !trap && values[0].i64 == SUSPENDED; i++) {
        wasmtime_val_raw_t none[8];
        c->slot.resumed = RESUME_NOT;
        trap = make_on_fiber((void *)thunk_of(suspend, CAPABLE), suspend, none);
        memcpy(values, given, 8 * sizeof *values);
        if (way == FIBER_SHIM && below(4) == 0)
            choose_arguments(which, values);
        if (!trap)
            trap = thunk(c, NULL, values, 8);
    }
    if (values[0].i64 == SUSPENDED) { /* it is dropped */
        c->slot.repeats = 0;
        values[0].i64 = -EINTR;
    }
    return trap;
}

/* On a fiber Python serves these wholly (programs/_messages.py), and others where it has to. */
static int is_requested(const struct call *call, enum kind kind) {
    return way == FIBER_PROGRAM && (kind == HOSTED || strcmp(call->name, "SYS_sendmsg") == 0 ||
                                    strcmp(call->name, "SYS_recvmsg") == 0);
}

static wasm_trap_t *make_call(uint32_t which, enum kind kind) {
    struct context *c = &contexts[me];
    const struct call *call = &wali_calls[which];
    wasmtime_unchecked_callback_t *thunk = thunk_of(which, kind);
    wasmtime_val_raw_t given[8], values[8];
    wasm_trap_t *trap;
    progress->now = now = call->name;
    choose_arguments(which, given);
    memcpy(values, given, sizeof values);
    c->deadline = clock_now(CLOCK_MONOTONIC) + 2000000; /* waits end soon, or a kick ends them */
    if (is_requested(call, kind)) {
        uintptr_t number = 2 * which + (*call->result == 'i');
        trap = make_on_fiber((void *)number, which, values);
    } else {
        trap = thunk(below(2) ? c : NULL, NULL, values, 8);
        if (is_fiber() && call->waits && !trap && values[0].i64 == SUSPENDED)
            trap = wait_and_repeat(which, thunk, given, values);
    }
    if (!trap && *call->result && GIVES_UP(values[0].i64) && strcmp(now, "suspend"))
        fail("the guest goes on where it must not");
    __atomic_add_fetch(&progress->times[which][kind], 1, __ATOMIC_RELAXED);
    if (!trap && *call->result && values[0].i64 >= 0)
        __atomic_add_fetch(&progress->successes[which][kind], 1, __ATOMIC_RELAXED);
    return trap;
}

static wasm_trap_t *make_any_call(void) {
    enum kind first = is_program() ? NATIVE : CAPABLE;
    for (;;) {
        uint32_t which = below((uint32_t)wali_call_count);
        enum kind kind = first + below(2);
        if (!thunk_of(which, kind))
            kind = first + (kind == first);
        if (thunk_of(which, kind))
            return make_call(which, kind);
        if (input && !left)
            return NULL;
    }
}

/* --- signals ---------------------------------------------------------------------------------- */

#if defined(__x86_64__)
enum { NR_TIMER_CREATE = 222, NR_TIMER_SETTIME = 223, NR_TIMER_DELETE = 226 };
#else
enum { NR_TIMER_CREATE = 107, NR_TIMER_SETTIME = 110, NR_TIMER_DELETE = 111 };
#endif
static int32_t timer;

static void set_mask(uint64_t mask) {
    untouched_syscall(NR_rt_sigprocmask, SIG_SETMASK, (int64_t)&mask, 0, 8, 0, 0);
}

/* One comes soon: before, in or after the next system call. */
static void send_soon(void) {
    const int64_t time[4] = {0, 0, 0, 1 + below(40000)};
    untouched_syscall(NR_TIMER_SETTIME, timer, 0, (int64_t)time, 0, 0, 0);
}

static void begin_signals(void) {
    struct action action = {5, below(2) ? SA_RESTART : 0, 0, 0};
    wasmtime_val_raw_t values[8] = {{.u64 = SIGUSR1}, {.u64 = RECORDS}, {.u64 = 0}, {.u64 = 8}};
    const int32_t event[16] = {0, 0, SIGUSR1, 0};
    wali_take_sent_signals();
    memcpy(memories[OWN].base + RECORDS, &action, sizeof action);
    thunk_of(call_named("SYS_rt_sigaction"), NATIVE)(&contexts[0], NULL, values, 8);
    untouched_syscall(NR_TIMER_CREATE, CLOCK_MONOTONIC, (int64_t)event, (int64_t)&timer, 0, 0, 0);
}

/* --- a guest ---------------------------------------------------------------------------------- */

/* The guest's code between two calls: a poll, growth, and what the embedder may do. */
static void between_calls(void) {
    struct context *c = &contexts[me];
    wasmtime_val_raw_t none[1];
    if (way == PROGRAM && below(3) == 0)
        send_soon();
    if (c->poll && *c->poll)
        c->trap = wali_on_poll(c, NULL, none, 0);
    if (me == 0 && below(64) == 0)
        grow(&memories[below(MEMORIES)]);
    if (!c->direct && below(64) == 0)
        wali_interrupt(c);
    if (is_fiber() && below(16) == 0)
        c->slot.room = below(4);
}

/* One call, and those of the handlers that run meanwhile.  A guest that has ended begins anew, with
 * what it has open. */
static void step(void) {
    struct context *c = &contexts[me];
    between_calls();
    wasm_trap_t *trap = make_any_call();
    if (!trap && !c->stop)
        return;
    c->stop = STOP_NONE;
    c->trap = NULL;
    if (c->signal) {
        c->signal = 0;
        set_mask(0);
    }
}

static void begin_context(struct context *c, int thread) {
    wali_context_init(c, LIMIT);
    c->poll = &polls[thread];
    if (way == PROGRAM) {
        wali_context_bind_shared(c, NULL, memories[OWN].base);
    } else {
        wasmtime_memory_t own = {.private2 = OWN}, guests = {.private2 = GUESTS};
        wali_context_bind(c, 0, NULL, &own, 0);
        wali_context_bind(c, 1, NULL, &guests, 1);
    }
    c->cwd = is_program() ? AT_FDCWD : NO_DIRECTORY;
    c->network = NETWORK_ANY;
    c->host = host;
    c->direct = way == PROGRAM;
    c->cooperative = is_fiber();
    c->slot.fds = slot_fds;
    c->slot.room = below(sizeof slot_fds / sizeof *slot_fds + 1);
    c->own_table.procfs = below(8);
}

/* Zeroes to begin with, and patterns around them; some pages are protected, or gone with the file
 * that was mapped there.  All addresses are a program's own: what is no memory is inaccessible, so
 * where the kernel itself decides how much it writes, it may be told of any. */
static void begin_memory(struct memory *m) {
    int gone = memfd_create("gone", 0);
    int programs = is_program() && m == &memories[OWN];
    if (m->base)
        munmap(m->base - CANARY, m->whole + 2 * CANARY);
    m->size = FIRST_SIZE;
    m->addresses = programs && way == PROGRAM ? ADDRESSES : FIRST_SIZE;
    m->whole = programs ? ADDRESSES : MOST;
    m->base = (uint8_t *)mmap(NULL, m->whole + 2 * CANARY, 0, 0x4022, -1, 0) + CANARY;
    mprotect(m->base - CANARY, CANARY + FIRST_SIZE, 3);
    memset(m->base - CANARY, PATTERN, CANARY);
    uint8_t *end = m->base + (programs ? m->whole : m->size), *behind = m->base + m->whole + CANARY;
    mprotect(end, (size_t)(behind - end), 3);
    memset(end, PATTERN, (size_t)(behind - end));
    mmap(m->base + GONE, PAGE, 3, 0x11, gone, 0); /* MAP_SHARED | MAP_FIXED, of an empty file */
    close(gone);
    mprotect(m->base + HIDDEN, PAGE, 0);
    mprotect(m->base + READ_ONLY, PAGE, 1);
}

static void begin(void) {
    for (int i = 0; i < MEMORIES; i++)
        begin_memory(&memories[i]);
    begin_context(&contexts[0], 0);
    wali_running[0].tid = untouched_syscall(NR_gettid, 0, 0, 0, 0, 0, 0);
    wali_running[0].c = &contexts[0];
    for (int fd = 0; fd < 3; fd++) {
        uint32_t flags = DESCRIPTOR_BORROWED | DESCRIPTOR_SHARED;
        wali_descriptor_set(&contexts[0], fd, own_stream, flags);
    }
    fill_records(0);
    if (way == PROGRAM)
        begin_signals();
    if (!is_program()) { /* a shim has a directory and sockets, or nothing */
        int pair[2];
        untouched_syscall(NR_socketpair, AF_UNIX, SOCK_STREAM | O_NONBLOCK, 0, (int64_t)pair, 0, 0);
        wali_descriptor_set(&contexts[0], ROOT, open("/", 0x200000),
                            below(2) ? DESCRIPTOR_READ_ONLY : 0);
        wali_descriptor_set(&contexts[0], PAIR, pair[0], 0);
        wali_descriptor_set(&contexts[0], PAIR + 1, pair[1], 0);
    }
}

/* The world: once in a process. */
static void begin_process(void) {
    static const struct wasmtime_api api = {
        .caller_context = caller_context,
        .context_get_data = get_data,
        .memory_data = memory_data,
        .memory_data_size = memory_size,
        .trap_new = trap_new,
        .error_new = error_new,
        .error_delete = error_delete,
        .memory_grow = memory_grow,
        .func_call_unchecked = call_handler,
        .context_set_epoch_deadline = set_deadline,
        .clock_gettime = clock_gettime,
    };
    mkdir("/a", 0777);
    close(open("/b", 0x42, 0666));
    symlink("b", "/c");
    own_stream = memfd_create("streams", 0);
    for (int fd = 0; fd < HOSTS; fd++)
        inherited |= (uint64_t)is_open(fd) << fd;
    wali_init(&api);
    wali_install_fault_handler();
}

/* --- the process ------------------------------------------------------------------------------ */

enum { PR_SET_PDEATHSIG = 1, LIFE = 1000, ROUND = 8 };
enum { NOT_POSSIBLE = 77, KICKS_UNTIL_STUCK = 100, KICK_MICROSECONDS = 10000 };

/* The second thread makes its calls while the first one does; what there is then is looked at when
 * both have made some. */
static uint32_t round_begun, round_ended, over;

static void yield(void) {
    untouched_syscall(NR_sched_yield, 0, 0, 0, 0, 0, 0);
}

static void *second_thread(void *seed) {
    me = 1;
    chance = (uint64_t)seed;
    wali_running[1].tid = untouched_syscall(NR_gettid, 0, 0, 0, 0, 0, 0);
    for (uint32_t next = 1;; next++) {
        while (__atomic_load_n(&round_begun, __ATOMIC_SEQ_CST) < next)
            if (__atomic_load_n(&over, __ATOMIC_SEQ_CST))
                return NULL;
            else
                yield();
        for (int i = 0; i < ROUND; i++)
            step();
        __atomic_store_n(&round_ended, next, __ATOMIC_SEQ_CST);
    }
}

static void begin_second_thread(void) {
    unsigned long thread;
    begin_context(&contexts[1], 1);
    wali_table_share(&contexts[0], open("/", 0x200000));
    for (int fd = 0; fd < HOSTS; fd++)
        if (is_open(fd) && contexts[0].table->dead == fd)
            inherited |= (uint64_t)1 << fd;
    contexts[1].table = contexts[0].table;
    wali_running[1].c = &contexts[1];
    pthread_create(&thread, NULL, second_thread, (void *)(anything() | 1));
}

/* Somebody else's thread, which has this memory as well. */
static void *change_memory(void *seed) {
    chance = (uint64_t)seed;
    for (uint32_t i = 0; !__atomic_load_n(&over, __ATOMIC_SEQ_CST); i++) {
        struct memory *m = &memories[below(MEMORIES)];
        put_words(m->base + RECORDS + 4 * below(2048), 1);
        m->base[PATHS + below(512)] = (uint8_t)paths[below(9)][below(4)];
        if (i % 64 == 0)
            mprotect(m->base + FLIPPED, PAGE, below(2) ? 3 : 0);
        if (i % 16 == 0)
            yield();
    }
    return NULL;
}

static void begin_changes(void) {
    unsigned long thread;
    set_mask(~(uint64_t)0);
    pthread_create(&thread, NULL, change_memory, (void *)(anything() | 1));
    set_mask(0);
}

static void kicked(UNUSED int signal) { /* a call that waits ends with EINTR */
    if (threads > 1 && me == 0)
        untouched_syscall(NR_tkill, wali_running[1].tid, KICK, 0, 0, 0, 0);
}

static void confine(void) {
    const uint64_t files[2] = {HOSTS, HOSTS}, size[2] = {1 << 20, 1 << 20};
    struct kernel_sigaction kick = {.handler = (void *)kicked, .flags = SA_RESTORER};
    kick.restorer = wali_restorer;
    prctl(PR_SET_PDEATHSIG, 9);
    if (setsid() < 0 || setrlimit(7, files) || setrlimit(1, size))
        _exit(NOT_POSSIBLE);
    untouched_syscall(NR_rt_sigaction, KICK, (int64_t)&kick, 0, 8, 0, 0);
    kick.handler = (void *)1; /* SIGXFSZ: a file at its limit is an errno */
    untouched_syscall(NR_rt_sigaction, 25, (int64_t)&kick, 0, 8, 0, 0);
}

/* Make some calls.  Lives take turns in their ways; a third of the programs has two threads, and
 * every other guest's memory changes under the core's hands. */
static void live(uint64_t seed, uint64_t calls) {
    uint64_t life = progress->lives, turn = life / WAYS;
    chance = (seed * 1000003 + life) * 2 + 1;
    way = (enum way)(life % WAYS);
    threads = way == PROGRAM && turn % 3 == 1 ? 2 : 1;
    begin_process();
    begin();
    if (threads > 1)
        begin_second_thread();
    if (turn % 2 == 1)
        begin_changes();
    for (uint64_t i = 0; i < LIFE && progress->made < calls; i++, progress->made++) {
        if (i % 16 == 0)
            fill_records(0);
        if (threads > 1 && i % ROUND == 0)
            __atomic_add_fetch(&round_begun, 1, __ATOMIC_SEQ_CST);
        step();
        while (threads > 1 && i % ROUND == ROUND - 1 &&
               __atomic_load_n(&round_ended, __ATOMIC_SEQ_CST) < round_begun)
            yield();
        if (threads == 1 || i % ROUND == ROUND - 1)
            check_world();
    }
    now = "the end";
    if (threads == 1)
        wali_context_close(&contexts[0]);
    _exit(0);
}

/* Has a signal ended it that its guest had no handler for?  A namespace's first process ignores
 * those, but not where one of its threads blocks them and another does not. */
static int is_signals_default(int status) {
    return status > 0 && status < 64 && status != SIGSEGV && status != SIGBUS && status != SIGILL &&
           status != SIGFPE && status != 6; /* SIGABRT */
}

/* Let one process make calls until it has made them, or waits for what never comes.  Its status is
 * 0 then. */
static int watch(int child) {
    int status = 0;
    uint64_t last = 0;
    for (int kicks = 0; waitpid(child, &status, 1) == 0; kicks++) {
        if (progress->made != last)
            kicks = 0;
        last = progress->made;
        if (kicks == KICKS_UNTIL_STUCK) {
            progress->stuck++;
            kill(child, 9);
            waitpid(child, &status, 0);
            return 0;
        }
        kill(child, KICK);
        usleep(KICK_MICROSECONDS);
    }
    return is_signals_default(status) ? 0 : status;
}

/* Make calls in a process that is alone.  Never returns. */
_Noreturn static void run(uint64_t seed, uint64_t calls) {
    if (!is_alone())
        _exit(NOT_POSSIBLE);
    prctl(PR_SET_PDEATHSIG, 9);
    int child = fork();
    if (child == 0) {
        confine();
        live(seed, calls);
    }
    int status = child < 0 ? NOT_POSSIBLE << 8 : watch(child);
    if (status && status >> 8 != NOT_POSSIBLE)
        printf("%s: ended with status %#x\n", progress->now, (unsigned)status);
    fflush(NULL);
    _exit(status >> 8 ? status >> 8 : status != 0);
}

/* Which calls were made, in which ways; those that were not are named. */
static void report(void) {
    static const char *const names[KINDS] = {"", " by Python", " by a shim", " on its guest"};
    unsigned ways = 0, made = 0, succeeded = 0;
    for (uint32_t i = 0; i < wali_call_count; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            ways += thunk_of(i, kind) != NULL;
            made += progress->times[i][kind] != 0;
            succeeded += progress->successes[i][kind] != 0;
            if (thunk_of(i, kind) && !progress->successes[i][kind])
                printf("%s%s: %s\n", wali_calls[i].name, names[kind],
                       progress->times[i][kind] ? "always refused" : "not made");
        }
    printf("%lu calls in %u of %u ways, %u with success, %lu times stuck\n",
           (unsigned long)progress->made, made, ways, succeeded, (unsigned long)progress->stuck);
}

static void begin_progress(void) {
    progress = mmap(NULL, sizeof *progress, 3, 0x21, -1, 0);
}

#ifndef COVERAGE

int main(int count, char **words) {
    if (count != 3)
        return 2;
    uint64_t seed = strtoul(words[1], NULL, 10), calls = strtoul(words[2], NULL, 10);
    begin_progress();
    for (; progress->made < calls; progress->lives++) {
        int status = 0, other = fork();
        if (other == 0)
            run(seed, calls);
        if (other < 0 || waitpid(other, &status, 0) != other || status)
            return status >> 8 ? status >> 8 : 1;
    }
    report();
    return 0;
}

#else

void __sanitizer_set_death_callback(void (*)(void));
int LLVMFuzzerInitialize(int *, char ***);
int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

static const uint8_t *whole;
static size_t whole_size;

/* The input that it has died of: files lie in a tmpfs that nobody sees again. */
static void print_input(void) {
    printf("%s; the input:\n", now);
    for (size_t i = 0; i < whole_size; i++)
        printf("%02x", whole[i]);
    printf("\n");
    fflush(NULL);
}

int LLVMFuzzerInitialize(UNUSED int *count, UNUSED char ***words) {
    begin_progress();
    if (!is_alone())
        _exit(NOT_POSSIBLE);
    prctl(PR_SET_PDEATHSIG, 9);
    int child = fork();
    if (child) {
        int status = child < 0 ? NOT_POSSIBLE << 8 : watch(child);
        report();
        fflush(NULL);
        _exit(status >> 8 ? status >> 8 : status != 0);
    }
    confine();
    begin_process();
    __sanitizer_set_death_callback(print_input);
    return 0;
}

/* One guest: the first byte says of which kind. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    whole = data;
    whole_size = size;
    way = (enum way)(*data % WAYS);
    input = data + 1;
    left = size - 1;
    memset(contexts, 0, sizeof contexts);
    begin();
    do {
        progress->made++;
        step();
        check_world();
    } while (left);
    wali_context_close(&contexts[0]);
    for (int signal = 1; way == PROGRAM && signal < KICK; signal++) {
        const struct kernel_sigaction none = {0};
        if (signal != SIGSEGV && signal != SIGBUS && signal != SIGILL && signal != SIGFPE)
            untouched_syscall(NR_rt_sigaction, signal, (int64_t)&none, 0, 8, 0, 0);
    }
    if (way == PROGRAM)
        untouched_syscall(NR_TIMER_DELETE, timer, 0, 0, 0, 0, 0);
    set_mask(0);
    return 0;
}

#endif
