/* Makes calls of WASI at random, on the fake core:
 *
 *     fuzz SEED LIVES
 *
 * A life is one guest: it is configured, and then makes some calls.  The same seed makes the same
 * calls.  When something fails the last ones are printed. */
#include "fake.h"

struct call {
    const char *name;
    /* What each parameter is: f a descriptor, p a path, r and w iovecs, b a buffer, s
     * subscriptions, a an address, i and I numbers; 4, 8, O and S are addresses of outputs. */
    const char *kinds;
    int32_t (*make)(const uint64_t *arguments);
};

#include "calls.gen.h" /* calls[], of every export, and path_open_call; test_sanitized.py makes it */

enum {
    CALLS = sizeof calls / sizeof *calls,
    CALLS_IN_A_LIFE = 200,
    MOST_ARGUMENTS = 10,
    REMEMBERED = 24,
};

/* --- telling what was done ------------------------------------------------------------------ */

struct made {
    const struct call *call;
    uint64_t arguments[MOST_ARGUMENTS];
    int32_t answer;
};

static struct made made[REMEMBERED];
static uint64_t made_count, seed, life;

static void tell(void) {
    fprintf(stderr, "seed %llu, life %llu; the last calls:\n", (unsigned long long)seed,
            (unsigned long long)life);
    uint64_t first = made_count < REMEMBERED ? 0 : made_count - REMEMBERED;
    for (uint64_t i = first; i < made_count; i++) {
        const struct made *one = &made[i % REMEMBERED];
        fprintf(stderr, "  %s(", one->call->name);
        for (int a = 0; a < MOST_ARGUMENTS; a++)
            fprintf(stderr, "%s%llu", a ? ", " : "", (unsigned long long)one->arguments[a]);
        fprintf(stderr, ") = %d\n", one->answer);
    }
}

void fail(const char *what) {
    fprintf(stderr, "FAILED: %s\n", what);
    tell();
    abort();
}

/* The sanitizers ask for this: the shim never frees, by design. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

/* ... and call what is set here before they end the process. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

/* --- arguments ------------------------------------------------------------------------------ */

static uint32_t any_address(uint32_t size) {
    if (one_in(40))
        return (uint32_t)any_number();
    if (one_in(40)) /* around the end */
        return GUEST_SIZE - size + below(9) - 4;
    return below(GUEST_SIZE - size);
}

static uint32_t any_size(void) {
    if (one_in(60))
        return (uint32_t)any_number();
    return one_in(4) ? below(20000) : below(100);
}

static uint32_t any_fd(void) {
    if (one_in(30))
        return (uint32_t)any_number();
    uint32_t fd = below(20);
    for (uint32_t i = 0; i < 20 && !one_in(20); i++) {
        if (files[fd].open && (fd > 2 || one_in(8)))
            break;
        fd = (fd + 1) % 20;
    }
    return fd;
}

static const struct call *any_call(void) {
    for (;;) {
        const struct call *call = &calls[below(CALLS)];
        bool seldom = strstr("fd_close fd_fdstat_set_rights fd_renumber proc_exit", call->name);
        if (!seldom || one_in(8))
            return one_in(8) ? path_open_call : call;
    }
}

static void put(uint32_t address, const void *data, uint32_t size) {
    if ((uint64_t)address + size <= GUEST_SIZE)
        memcpy(guest + address, data, size);
}

static uint32_t any_path(char *path, uint32_t room) {
    if (one_in(30)) { /* deep, or a chain of links */
        uint32_t depth = below(400);
        for (uint32_t i = 0; i < depth; i++)
            memcpy(path + 2 * i, "a/", 2);
        return 2 * depth;
    }
    static const char *const parts[] = {"a", "b",  "c",   "dir", ".", "..",  "l",
                                        "/", "//", "/./", "..",  "",  "\0x", "name"};
    uint32_t length = 0, count = one_in(30) ? below(2000) : 1 + below(6);
    for (uint32_t i = 0; i < count && length + 400 < room; i++) {
        const char *part = parts[below(sizeof parts / sizeof *parts)];
        uint32_t size = *part || one_in(20) ? (uint32_t)strlen(part) + (*part == '\0') : 0;
        memcpy(path + length, part, size);
        length += size;
        if (one_in(100)) {
            uint32_t more = 200 + below(100);
            memset(path + length, 'x', more);
            length += more;
        }
        if (!one_in(4))
            path[length++] = '/';
    }
    if (length && path[length - 1] == '/' && !one_in(4))
        length--;
    return length;
}

static void path_arguments(uint64_t out[2]) {
    char path[8192];
    uint32_t length = any_path(path, sizeof path);
    uint32_t address = any_address(sizeof path);
    put(address, path, length);
    out[0] = address;
    out[1] = one_in(60) ? (uint32_t)any_number() : length;
}

static void iovec_arguments(uint64_t out[2]) {
    uint32_t count = one_in(20) ? below(1100) : below(5);
    uint32_t address = any_address(1100 * sizeof(struct iovec));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t size = one_in(8) ? any_size() : below(40);
        struct iovec one = {any_address(size % GUEST_SIZE), size};
        put(address + i * (uint32_t)sizeof one, &one, sizeof one);
    }
    out[0] = address;
    out[1] = one_in(60) ? (uint32_t)any_number() : count;
}

/* Of either edition: both read garbage sensibly, or should. */
static void subscription_arguments(uint64_t out[3], bool unstable) {
    uint32_t count = one_in(20) ? below(4200) : 1 + below(6);
    uint32_t size = unstable ? sizeof(struct unstable_subscription) : sizeof(struct subscription);
    uint32_t room = count * size < GUEST_SIZE ? count * size : GUEST_SIZE - 1;
    uint32_t address = any_address(room);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t one[56];
        uint64_t userdata = i, timeout = one_in(8) ? any_number() : below(100000);
        uint32_t of = one_in(2) ? below(3) : any_fd(), tag = one_in(40) ? below(256) : below(3);
        uint16_t flags = one_in(20) ? (uint16_t)any_number() : (uint16_t)below(2);
        memset(one, 0, sizeof one);
        memcpy(one, &userdata, 8);
        one[8] = (uint8_t)tag;
        uint32_t clock = 16 + (unstable && tag == 0 ? 8 : 0);
        memcpy(one + clock, &of, 4);
        memcpy(one + clock + 8, &timeout, 8);
        memcpy(one + size - 8, &flags, 2);
        put(address + i * size, one, size);
    }
    out[0] = address;
    out[1] = any_address(room);
    out[2] = one_in(60) ? (uint32_t)any_number() : count;
}

static uint64_t any_flags(void) {
    return one_in(20) ? any_number() : below(one_in(3) ? 32 : 2);
}

static uint64_t any_wide(void) { /* rights, times, offsets, cookies, sizes */
    switch (below(5)) {
    case 0:
        return RIGHTS_ALL;
    case 1:
        return anything() & RIGHTS_ALL;
    case 2:
        return any_number();
    default:
        return below(60);
    }
}

static void any_arguments(const struct call *call, uint64_t *out) {
    for (const char *kind = call->kinds; *kind; kind++) {
        switch (*kind) {
        case 'f':
            *out++ = any_fd();
            break;
        case 'p':
            path_arguments(out);
            out += 2;
            break;
        case 'r':
        case 'w':
            iovec_arguments(out);
            out += 2;
            break;
        case 'b':
            out[1] = any_size();
            out[0] = any_address((uint32_t)(out[1] % GUEST_SIZE));
            out += 2;
            break;
        case 's':
            subscription_arguments(out, !strncmp(call->name, "unstable_", 9));
            out += 3;
            break;
        case 'i':
            *out++ = (uint32_t)any_flags();
            break;
        case 'I':
            *out++ = any_wide();
            break;
        default: /* outputs, of at most 64 bytes */
            *out++ = any_address(64);
        }
    }
}

/* --- one guest ------------------------------------------------------------------------------ */

/* What both tables must say of every descriptor, between calls: the kernel's, which is the fake's,
 * and the shim's.  A file that only the one knows is leaked; one that only the other knows would
 * lend its rights to what gets the number next. */
static void check_tables(void) {
    for (uint32_t fd = 0; fd < FILES; fd++) {
        bool known = fd < descriptors.size && descriptors.entries[fd].state & DESCRIPTOR_OPEN;
        if (files[fd].open && !known && fd >= GIVEN)
            fail("a descriptor is open and the shim does not know");
        if (!files[fd].open && known && fd > 2)
            fail("the shim knows a descriptor that is not open");
    }
}

static void check_rights(void) {
    for (uint32_t fd = 0; fd < descriptors.size && fd < FILES; fd++) {
        const struct descriptor *one = &descriptors.entries[fd];
        if (!(one->state & DESCRIPTOR_OPEN) || one->state & DESCRIPTOR_UNTYPED)
            continue;
        if (one->base & ~rights_of_filetype(one->filetype))
            fail("a descriptor has rights that its type cannot have");
        if (one->state & DESCRIPTOR_READ_ONLY && (one->base | one->inheriting) & RIGHTS_WRITING)
            fail("a read-only descriptor may write");
        if (one->inheriting & one->dropped)
            fail("a dropped right is inherited");
    }
}

static void one_call(void) {
    struct made *now = &made[made_count++ % REMEMBERED];
    *now = (struct made){.call = any_call(), .answer = -1};
    any_arguments(now->call, now->arguments);
    system_calls = 0;
    if (!setjmp(left))
        now->answer = now->call->make(now->arguments);
    else
        now->answer = 0;
    if (now->answer < 0 || now->answer > ERRNO_NOTCAPABLE)
        fail("no errno of WASI's");
    if (!was_hostile) {
        check_tables();
        check_rights();
    }
}

static void append(uint8_t *blob, uint32_t *size, const void *data, uint32_t length) {
    memcpy(blob + *size, data, length);
    *size += length;
}

static void append_padded(uint8_t *blob, uint32_t *size, const void *data, uint32_t length) {
    append(blob, size, data, length);
    while (*size % 4)
        blob[(*size)++] = 0;
}

/* As small as it is in a new guest, too. */
static void forget_descriptors(void) {
    static struct descriptors first;
    if (!first.entries)
        first = descriptors;
    if (descriptors.entries != first.entries)
        free(descriptors.entries);
    descriptors = first;
    memset(descriptors.entries, 0, descriptors.size * sizeof *descriptors.entries);
}

/* The host's words, or nearly. */
static void configure(bool spoiled) {
    static const char argv[] = "program\0one\0", environ[] = "A=1\0";
    uint8_t blob[1024];
    uint32_t size = 0, preopens = below(4);
    uint32_t header[8] = {2,        2,        sizeof argv - 1, 1, sizeof environ - 1,
                          preopens, below(8), below(3)};
    uint64_t time_and_seed[2] = {one_in(4) ? any_number() : below(1000), anything()};
    append(blob, &size, header, sizeof header);
    append(blob, &size, time_and_seed, sizeof time_and_seed);
    append(blob, &size, argv, sizeof argv - 1);
    append_padded(blob, &size, environ, sizeof environ - 1);
    for (uint32_t i = 0; i < preopens; i++) {
        uint32_t length = 1 + below(9), head[3] = {3 + i, below(3), length};
        bool socket = head[1] == 2;
        append(blob, &size, head, sizeof head);
        append_padded(blob, &size, "directory", length);
        files[3 + i] = (struct file){true, one_in(4) ? O_PATH : O_RDONLY, S_IFDIR | 0755, 0};
        if (socket)
            files[3 + i] = (struct file){true, O_RDWR, S_IFSOCK | 0755, 0};
    }
    for (uint32_t i = 0; spoiled && i < 1 + below(4); i++)
        blob[below(size)] ^= (uint8_t)(1 << below(8));
    if (spoiled && one_in(2))
        size = below(size);
    void *given = wasi_allocate(size);
    if (!given)
        return;
    memcpy(given, blob, size);
    if (wasi_configure(given, size) && !spoiled)
        fail("the configuration was refused");
}

static void one_life(void) {
    fake_reset();
    was_hostile = false;
    hostile = one_in(2);
    forget_descriptors();
    configure(true);
    forget_descriptors();
    for (uint32_t fd = 0; fd < 3; fd++)
        files[fd] = (struct file){!one_in(4), O_RDWR, below(2) ? S_IFCHR : 0010000, 0};
    if (one_in(2))
        files[3 + below(GIVEN - 3)] = (struct file){true, O_RDWR, S_IFSOCK | 0777, 0};
    configure(false);
    was_hostile = false;
    for (int i = 0; i < CALLS_IN_A_LIFE; i++)
        one_call();
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: fuzz SEED LIVES\n");
        return 2;
    }
    seed = strtoull(argv[1], NULL, 10);
    chance = seed * 2 + 1;
    guest = malloc(GUEST_SIZE);
    memset(guest, 0, GUEST_SIZE);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(tell);
    for (uint64_t lives = strtoull(argv[2], NULL, 10); life < lives; life++)
        one_life();
    printf("%llu calls, %u writes refused\n", (unsigned long long)made_count,
           wasi_refused_writes());
    return 0;
}
