/* Every call of the core's, made at random on a fake engine and a real kernel.
 *
 * The guest's addresses, of which a few are memory and the others inaccessible, lie between
 * canaries: writable pages of a pattern, which nothing may touch.  What the core copies, and what
 * it hands to the kernel, must lie among the guest's addresses, or be memory of the core's that
 * AddressSanitizer knows and that is long enough, or nobody's.  The process is
 * alone in namespaces of its own, as nobody, where an empty tmpfs is all there is.
 *
 *     fuzz SEED CALLS      status 0 if nothing is wrong; prints what is, or how many calls
 *                                 were made, and how often they waited for what never came */
#include "core.h"

/* The C library, by hand: its headers name structs as the core does. */
int printf(const char *, ...);
int fflush(void *);
_Noreturn void _exit(int);
void *mmap(void *, size_t, int, int, int, long);
int mprotect(void *, size_t, int);
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
int strcmp(const char *, const char *);
int unshare(int);
int fork(void);
int chdir(const char *);
int open(const char *, int, ...);
int close(int);
long write(int, const void *, size_t);
int snprintf(char *, size_t, const char *, ...);
int access(const char *, int);
int memfd_create(const char *, unsigned);
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
long syscall(long, ...);
unsigned geteuid(void);
unsigned getegid(void);
int setgroups(size_t, const unsigned *);
int setresuid(unsigned, unsigned, unsigned);
int setresgid(unsigned, unsigned, unsigned);
int setrlimit(int, const uint64_t *);
int prctl(int, ...);
int waitpid(int, int *, int);
int kill(int, int);
int usleep(unsigned);
unsigned long strtoul(const char *, char **, int);
int clock_gettime(int, void *);
void *__asan_region_is_poisoned(void *, size_t);

#include "kinds.gen.h"

EXPORT void wali_init(const struct wasmtime_api *);
void wali_context_init(struct context *, uint32_t limit);
void wali_context_bind_shared(struct context *, wasmtime_context_t *, uint8_t *base);
void wali_context_close(struct context *);
int64_t wali_install_fault_handler(void);
int64_t wali_descriptor_set(struct context *, int32_t, int32_t, uint32_t);
extern const struct call wali_calls[];
extern const uint64_t wali_call_count;
extern struct {
    int64_t tid;
    struct context *c;
} wali_running[];

enum { KB = 1024, GUEST = 256 * KB, CANARY = 64 * KB, PAGE = 4096, PATTERN = 0xa5, LIMIT = 24 };
enum { HIDDEN = 37 * PAGE, READ_ONLY = 41 * PAGE, PATHS = 5 * PAGE, RECORDS = 8 * PAGE };

static uint8_t *guest; /* its addresses; CANARY bytes lie on either side */
static struct context context;
static uint32_t flag;  /* that its code would poll */
static int own_stream; /* what the guest has for standard streams: nothing of the host's */
#if defined(__x86_64__)
enum { NR_PIVOT_ROOT = 155 };
#else
enum { NR_PIVOT_ROOT = 41 };
#endif
static const char *now; /* the call that is being made */

_Noreturn static void fail(const char *what) {
    printf("%s: %s\n", now, what);
    fflush(NULL);
    _exit(1);
}

/* --- chance ----------------------------------------------------------------------------------- */

static uint64_t chance;

static uint64_t anything(void) { /* xorshift64* */
    chance ^= chance >> 12;
    chance ^= chance << 25;
    chance ^= chance >> 27;
    return chance * 0x2545f4914f6cdd1d;
}

static uint32_t below(uint32_t limit) {
    return (uint32_t)(anything() >> 32) % limit;
}

/* --- checks ----------------------------------------------------------------------------------- */

/* Which memory is an address in?  The canaries are nobody's. */
static int is_guests(uint64_t at, uint64_t size) {
    uint64_t low = (uint64_t)guest - CANARY, high = (uint64_t)guest + ADDRESSES + CANARY;
    if (at + size <= low || at >= high)
        return 0;
    if (at < (uint64_t)guest || at + size > (uint64_t)guest + ADDRESSES)
        fail("memory outside of the guest's is handed over");
    return 1;
}

static void check_range(uint64_t at, uint64_t size) {
    if (size == 0 || at == 0 || at == (uint64_t)WALI_BAD || is_guests(at, size))
        return;
    if (__asan_region_is_poisoned((void *)at, size))
        fail("memory of the core's is too short");
}

int checked_copy(void *to, const void *from, size_t size) {
    check_range((uint64_t)to, size);
    check_range((uint64_t)from, size);
    return wali_copy(to, from, size);
}

/* Where the kernel is told of a buffer and its length: argument numbers, and bytes of an element;
 * of one element where there is no count. */
static const struct buffer {
    int64_t number;
    int address, count, size;
} buffers[] = {
    {NR_read, 1, 2, 1},
    {NR_write, 1, 2, 1},
    {NR_pread64, 1, 2, 1},
    {NR_pwrite64, 1, 2, 1},
    {NR_readv, 1, 2, 16},
    {NR_writev, 1, 2, 16},
    {NR_preadv, 1, 2, 16},
    {NR_pwritev, 1, 2, 16},
    {NR_preadv2, 1, 2, 16},
    {NR_pwritev2, 1, 2, 16},
#ifdef NR_poll
    {NR_poll, 0, 1, 8},
#endif
    {NR_ppoll, 0, 1, 8},
    {NR_ppoll, 2, -1, 16},
    {NR_fstat, 1, -1, 144},
    {NR_newfstatat, 2, -1, 144},
    {NR_statx, 4, -1, 256},
    {NR_statfs, 1, -1, 120},
    {NR_fstatfs, 1, -1, 120},
    {NR_pipe2, 0, -1, 8},
    {NR_socketpair, 3, -1, 8},
    {NR_epoll_pwait, 1, 2, 12},
    {NR_epoll_ctl, 3, -1, 12},
    {NR_getsockopt, 3, -1, 1},
    {NR_getsockopt, 4, -1, 4},
    {NR_connect, 1, 2, 1},
    {NR_bind, 1, 2, 1},
    {NR_sendto, 1, 2, 1},
    {NR_sendto, 4, 5, 1},
    {NR_recvfrom, 1, 2, 1},
    {NR_sendmsg, 1, -1, 56},
    {NR_recvmsg, 1, -1, 56},
    {NR_getdents64, 1, 2, 1},
    {NR_getrandom, 0, 1, 1},
    {NR_clock_gettime, 1, -1, 16},
    {NR_clock_nanosleep, 2, -1, 16},
    {NR_utimensat, 2, -1, 32},
    {NR_uname, 0, -1, 390},
    {NR_sysinfo, 0, -1, 112},
    {NR_getrusage, 1, -1, 144},
    {NR_wait4, 1, -1, 4},
    {NR_wait4, 3, -1, 144},
    {NR_rt_sigaction, 1, -1, 32},
    {NR_rt_sigaction, 2, -1, 32},
    {NR_futex, 0, -1, 4},
    {NR_getitimer, 1, -1, 32},
    {NR_sendfile, 2, -1, 8},
    {NR_copy_file_range, 1, -1, 8},
    {NR_copy_file_range, 3, -1, 8},
    {NR_getresuid, 0, -1, 4},
    {NR_getresuid, 1, -1, 4},
    {NR_getresuid, 2, -1, 4},
    {NR_getresgid, 0, -1, 4},
    {NR_getresgid, 1, -1, 4},
    {NR_getresgid, 2, -1, 4},
    {NR_setitimer, 1, -1, 32},
    {NR_setitimer, 2, -1, 32},
    {NR_timerfd_settime, 2, -1, 32},
    {NR_timerfd_settime, 3, -1, 32},
    {NR_timerfd_gettime, 1, -1, 32},
    {NR_readlinkat, 2, 3, 1},
    {NR_getcwd, 0, 1, 1},
};

static void check_vector(const int64_t *vector, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        check_range((uint64_t)vector[2 * i], (uint64_t)vector[2 * i + 1]);
}

static void check_arguments(int64_t number, const int64_t *a) {
    for (int i = 0; i < 6; i++)
        is_guests((uint64_t)a[i], 0); /* not the canaries, whatever it is */
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        const struct buffer *b = &buffers[i];
        if (b->number != number)
            continue;
        uint64_t count = b->count < 0 ? 1 : (uint32_t)a[b->count];
        check_range((uint64_t)a[b->address], count * (uint64_t)b->size);
        if (b->size == 16 && b->count == 2 && a[1] != (int64_t)WALI_BAD)
            check_vector((const int64_t *)a[1], a[2]);
    }
    if ((number == NR_sendmsg || number == NR_recvmsg) && a[1] != (int64_t)WALI_BAD) {
        const int64_t *m = (const int64_t *)a[1]; /* name, length, iov, count, control, length */
        check_range((uint64_t)m[0], (uint32_t)m[1]);
        check_range((uint64_t)m[2], (uint64_t)m[3] * 16);
        check_vector((const int64_t *)m[2], m[2] == (int64_t)WALI_BAD ? 0 : m[3]);
        check_range((uint64_t)m[4], (uint64_t)m[5]);
    }
    if (number == NR_setsockopt && (int32_t)a[4] > 0) /* else the kernel refuses it */
        check_range((uint64_t)a[3], (uint32_t)a[4]);
}

int64_t checked_syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                        int64_t f) {
    check_arguments(number, (int64_t[]){a, b, c, d, e, f});
    return real_syscall(number, a, b, c, d, e, f);
}

int64_t checked_interruptible(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f,
                              int64_t number, const uint32_t *signal) {
    check_arguments(number, (int64_t[]){a, b, c, d, e, f});
    return wali_interruptible(a, b, c, d, e, f, number, signal);
}

static uint64_t inherited; /* descriptors of the test's: the standard streams */

static int is_open(int host) {
    return real_syscall(NR_fcntl, host, F_GETFD, 0, 0, 0, 0) >= 0;
}

/* After a call: nothing around the guest's memory has changed, and no descriptor is open that the
 * table does not know. */
static void check_world(void) {
    const uint8_t *low = guest - CANARY, *high = guest + ADDRESSES;
    for (int i = 0; i < CANARY; i += 8)
        if (*(const uint64_t *)(low + i) != 0xa5a5a5a5a5a5a5a5 ||
            *(const uint64_t *)(high + i) != 0xa5a5a5a5a5a5a5a5)
            fail("what lies beside the guest's memory was written");
    if (context.own.base != guest || context.own.size != ADDRESSES)
        fail("the space is another");
    if (context.table->capacity > LIMIT || context.table->limit > LIMIT)
        fail("the table is larger than its limit");
    uint64_t known = inherited;
    for (uint32_t i = 0; i < context.table->capacity; i++) {
        int32_t host = context.table->descriptors[i].host;
        if (host >= 64 || (host >= 0 && host != own_stream && known >> host & 1))
            fail("a host's descriptor is out of bounds, or there twice");
        if (host >= 0)
            known |= (uint64_t)1 << host;
    }
    if (context.wake >= 0)
        known |= (uint64_t)1 << context.wake;
    for (int fd = 0; fd < 64; fd++)
        if (!(known >> fd & 1) && is_open(fd))
            fail("a host's descriptor was left open");
}

/* --- the fake engine -------------------------------------------------------------------------- */

static wasm_trap_t *trap_new(const char *message, size_t length) {
    (void)message, (void)length;
    return (wasm_trap_t *)1;
}

static wasmtime_error_t *error_new(const char *message) {
    (void)message;
    return (wasmtime_error_t *)1;
}

static void error_delete(wasmtime_error_t *error) {
    (void)error;
}

static wasmtime_error_t *call_handler(wasmtime_context_t *store, const wasmtime_func_t *f,
                                      wasmtime_val_raw_t *values, size_t count,
                                      wasm_trap_t **trap) {
    (void)store, (void)f, (void)values, (void)count, (void)trap;
    return NULL;
}

/* What Python would serve. */
static int64_t host(struct context *c, uint32_t call, const wasmtime_val_raw_t *a) {
    (void)c, (void)call, (void)a;
    return -ENOSYS;
}

/* --- arguments -------------------------------------------------------------------------------- */

static uint32_t any_number(void) {
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
        return GUEST - below(64) + below(8);
    default:
        return (uint32_t)anything();
    }
}

/* An address: of the guest's most often, at its end now and then, or in what it cannot access. */
static uint32_t any_address(void) {
    switch (below(10)) {
    case 0:
        return 0;
    case 1:
        return GUEST - below(300);
    case 2:
        return any_number();
    case 3:
        return HIDDEN - below(40);
    case 4:
        return READ_ONLY - below(40);
    case 5:
        return PATHS + 32 * below(16);
    default:
        return RECORDS + 8 * below(1024);
    }
}

static const char paths[][16] = {".", "a", "b", "a/b", "..", "/", "/a", "c", "a/../b", ""};

/* Records that look like what calls read: small numbers, descriptors, addresses, lengths. */
static void fill_records(void) {
    for (int i = 0; i < 16; i++) {
        const char *path = paths[below(sizeof paths / sizeof *paths)];
        for (int k = 0; k < 16; k++)
            guest[PATHS + 32 * i + k] = (uint8_t)path[k];
    }
    for (int i = 0; i < 2048; i++) {
        uint32_t word = below(3) ? any_address() : any_number();
        word = below(3) ? word : below(16);
        memcpy(guest + RECORDS + 4 * i, &word, 4);
    }
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

enum { KICK = 12 };
static struct progress {
    uint64_t made, stuck;
    const char *now;
} *progress; /* shared with the process that watches */

/* What would end the process, or wait for what never comes, whatever the core does.  Their
 * arguments are numbers only. */
static int is_left_out(const char *name) {
    static const char *const names[] = {
        "SYS_kill",       "SYS_tkill",         "SYS_exit",      "SYS_rt_sigprocmask",
        "SYS_setitimer",  "SYS_rt_sigsuspend", "SYS_setuid",    "SYS_setgid",
        "SYS_setreuid",   "SYS_setregid",      "SYS_setresuid", "SYS_setresgid",
        "SYS_exit_group", "__proc_exit",       "SYS_chroot",    "SYS_tgkill",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return 1;
    return 0;
}

static void make_call(uint64_t which) {
    const struct call *call = &wali_calls[which];
    if (!call->native || is_left_out(call->name))
        return;
    progress->now = now = call->name;
    const char *const *kinds = argument_kinds[which];
    wasmtime_val_raw_t values[8];
    memset(values, 0xee, sizeof values);
    for (int i = 0; kinds[i]; i++)
        values[i].u64 = argument(kinds[i]);
    if (values[0].u32 == KICK && strcmp(call->name, "SYS_rt_sigaction") == 0)
        return;
    context.deadline =
        clock_now(CLOCK_MONOTONIC) + 2000000; /* waits end soon, or an alarm ends them */
    call->native(&context, NULL, values, 8);
    context.stop = STOP_NONE;
    context.signal = 0;
    check_world();
}

static void begin(void) {
    static const struct wasmtime_api api = {
        .trap_new = trap_new,
        .error_new = error_new,
        .error_delete = error_delete,
        .func_call_unchecked = call_handler,
        .clock_gettime = clock_gettime,
    };
    guest = (uint8_t *)mmap(NULL, ADDRESSES + 2 * CANARY, 0, 0x22, -1, 0) + CANARY;
    mprotect(guest - CANARY, CANARY + GUEST, 3);
    mprotect(guest + ADDRESSES, CANARY, 3);
    memset(guest - CANARY, PATTERN, CANARY);
    memset(guest + ADDRESSES, PATTERN, CANARY);
    mprotect(guest + HIDDEN, PAGE, 0);
    mprotect(guest + READ_ONLY, PAGE, 1);
    own_stream = memfd_create("streams", 0);
    for (int fd = 0; fd < 64; fd++)
        inherited |= (uint64_t)is_open(fd) << fd;
    wali_init(&api);
    wali_install_fault_handler();
    wali_context_init(&context, LIMIT);
    context.poll = &flag;
    wali_context_bind_shared(&context, NULL, guest);
    context.cwd = AT_FDCWD;
    context.network = NETWORK_ANY;
    context.host = host;
    context.direct = below(4) == 0;
    wali_running[0].tid = real_syscall(NR_gettid, 0, 0, 0, 0, 0, 0);
    wali_running[0].c = &context;
    for (int fd = 0; fd < 3; fd++)
        wali_descriptor_set(&context, fd, own_stream, DESCRIPTOR_BORROWED | DESCRIPTOR_SHARED);
}

/* --- the process ------------------------------------------------------------------------------ */

enum { NEW_NAMESPACES = 0x20000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000 };
enum { NOBODY = 65534, PR_SET_PDEATHSIG = 1, PR_SET_DUMPABLE = 4, DETACH = 2 };
enum { MOUNT_PRIVATE = 0x44000, MOUNT_PLAIN = 6 }; /* recursively; no set-uid files, no devices */
enum { NOT_POSSIBLE = 77, KICKS_UNTIL_STUCK = 100, KICK_MICROSECONDS = 10000 };

static int put(const char *path, const char *text, int length) {
    int fd = open(path, 1);
    int done = fd >= 0 && write(fd, text, (size_t)length) == length;
    close(fd);
    return done;
}

/* Have nothing of the host's in reach: not its users (root becomes nobody first), its processes,
 * its network, nor any file of its, whatever is called: the only mount that there is is a small
 * tmpfs. chroot would not do: whoever may call it gets out again. */
static int is_alone(void) {
    char map[64];
    int root = geteuid() == 0;
    if (root && (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
                 setresuid(NOBODY, NOBODY, NOBODY) || prctl(PR_SET_DUMPABLE, 1)))
        return 0;
    unsigned user = geteuid(), group = getegid();
    if (user == 0 || unshare(NEW_NAMESPACES))
        return 0;
    int length = snprintf(map, sizeof map, "0 %u 1", user);
    if (!put("/proc/self/setgroups", "deny", 4) || !put("/proc/self/uid_map", map, length))
        return 0;
    length = snprintf(map, sizeof map, "0 %u 1", group);
    if (!put("/proc/self/gid_map", map, length) || mount("none", "/", NULL, MOUNT_PRIVATE, NULL) ||
        mount("none", "/tmp", "tmpfs", MOUNT_PLAIN, "size=8m,mode=777") || chdir("/tmp") ||
        syscall(NR_PIVOT_ROOT, ".", ".") || umount2(".", DETACH) || chdir("/"))
        return 0;
    return access("/proc", 0) && access("/etc", 0) && access("..", 0) == 0 && access("/tmp", 0);
}

static void kicked(int signal) {
    (void)signal; /* a call that waits ends with EINTR */
}

static void live(uint64_t seed, uint64_t calls) {
    chance = seed * 2 + 1;
    begin();
    while (progress->made < calls) {
        if (progress->made++ % 16 == 0)
            fill_records();
        make_call(below((uint32_t)wali_call_count));
    }
    now = "the end";
    wali_context_close(&context);
    _exit(0);
}

static void confine(void) {
    const uint64_t files[2] = {64, 64}, size[2] = {1 << 20, 1 << 20};
    struct kernel_sigaction kick = {.handler = (void *)kicked, .flags = SA_RESTORER};
    kick.restorer = wali_restorer;
    prctl(PR_SET_PDEATHSIG, 9);
    if (setrlimit(7, files) || setrlimit(1, size))
        _exit(NOT_POSSIBLE);
    real_syscall(NR_rt_sigaction, KICK, (int64_t)&kick, 0, 8, 0, 0);
    kick.handler = (void *)1; /* SIGXFSZ: a file at its limit is an errno */
    real_syscall(NR_rt_sigaction, 25, (int64_t)&kick, 0, 8, 0, 0);
}

/* Let one process make calls until it has made them all, or waits for what never comes.  Its status
 * is 0 then. */
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
    return status;
}

/* Make calls in a process that is alone, until all are made or one waits for ever.  Never returns.
 */
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

int main(int count, char **words) {
    if (count != 3)
        return 2;
    uint64_t seed = strtoul(words[1], NULL, 10), calls = strtoul(words[2], NULL, 10);
    progress = mmap(NULL, PAGE, 3, 0x21, -1, 0);
    while (progress->made < calls) {
        int status = 0, other = fork();
        if (other == 0)
            run(seed + progress->stuck, calls);
        if (other < 0 || waitpid(other, &status, 0) != other || status)
            return status >> 8 ? status >> 8 : 1;
    }
    printf("%lu calls, %lu times stuck\n", (unsigned long)progress->made,
           (unsigned long)progress->stuck);
    return 0;
}
