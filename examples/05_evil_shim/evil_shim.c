/* A hostile WASI: it is linked in the place of the real shim, with everything that the core lets a
 * shim have, and tries to get out when its guest first writes something.
 *
 * It holds two directories: 3, to write in, and 4, to read only.  Beside them lies
 * ../private/secret, which nobody granted.  What it finds out it writes to its guest's standard
 * output, a line for each attempt: what it was, what the core answered, what it got.
 */
#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define SECRET "../private/secret"

struct open_how {
    uint64_t flags, mode, resolve;
};

struct iovec { /* of the guest's memory */
    uint32_t base, length;
};

IMPORT("wali", "SYS_openat2") int64_t openat2(int32_t, const char *, struct open_how *, uint32_t);
IMPORT("wali", "SYS_openat") int64_t openat(int32_t, const char *, int32_t flags, uint32_t mode);
IMPORT("wali", "SYS_close") int64_t close(int32_t);
IMPORT("wali", "SYS_newfstatat") int64_t fstatat(int32_t, const char *, void *, int32_t flags);
IMPORT("wali", "SYS_linkat")
int64_t linkat(int32_t, const char *, int32_t, const char *, int32_t flags);
IMPORT("wali", "SYS_mkdirat") int64_t mkdirat(int32_t, const char *, uint32_t mode);
IMPORT("wali", "SYS_symlinkat") int64_t symlinkat(const char *target, int32_t, const char *);
IMPORT("wali", "SYS_unlinkat") int64_t unlinkat(int32_t, const char *, int32_t flags);
IMPORT("wali", "SYS_fstat") int64_t fstat(int32_t, uint32_t out);
IMPORT("wali_guest", "SYS_preadv") int64_t guest_preadv(int32_t, uint32_t iov, int32_t, int64_t);
IMPORT("wali_guest", "SYS_writev") int64_t guest_writev(int32_t, uint32_t iov, int32_t);
IMPORT("guest", "copy_in") int32_t copy_in(void *to, uint32_t from, uint32_t size);
IMPORT("guest", "copy_out") int32_t copy_out(uint32_t to, const void *from, uint32_t size);
#ifdef GREEDY
IMPORT("wali", "SYS_socket") int64_t sys_socket(int32_t, int32_t, int32_t);
#endif

enum { O_WRONLY = 1, O_DIRECTORY = 0x10000, O_TRUNC = 0x200, AT_FDCWD = -100 };
enum { BENEATH = 0x0A, MOST_DESCRIPTORS = 4096 };
enum { GUEST_IOV = 0, GUEST_BYTES = 8 }; /* the guest's memory is its to use: it is the shim */

static char secret_path[4096]; /* absolute; whoever links a shim configures it */
static char loot[64], line[256];
static uint32_t line_length;

/* --- reporting -------------------------------------------------------------------------------- */

static void put(const char *text) {
    while (*text && line_length < sizeof line)
        line[line_length++] = *text++;
}

static void put_number(int64_t number) {
    char digits[24];
    uint32_t at = sizeof digits - 1;
    digits[at] = 0;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do
        digits[--at] = (char)('0' + left % 10);
    while (left /= 10);
    put(number < 0 ? "-" : "");
    put(digits + at);
}

static void report(const char *attempt, int64_t result) {
    line_length = 0;
    put(attempt), put("\t"), put_number(result), put("\t"), put(loot), put("\n");
    const struct iovec iov = {GUEST_BYTES, line_length};
    copy_out(GUEST_BYTES, line, line_length);
    copy_out(GUEST_IOV, &iov, sizeof iov);
    guest_writev(1, GUEST_IOV, 1);
    for (uint32_t i = 0; i < sizeof loot; i++)
        loot[i] = 0;
}

/* --- what attempts are made of ---------------------------------------------------------------- */

static int64_t read_loot(int64_t fd) {
    const struct iovec iov = {GUEST_BYTES, sizeof loot - 1};
    copy_out(GUEST_IOV, &iov, sizeof iov);
    int64_t got = guest_preadv((int32_t)fd, GUEST_IOV, 1, 0);
    if (got > 0)
        copy_in(loot, GUEST_BYTES, (uint32_t)got);
    return got;
}

/* Reads what was opened, if something was. */
static int64_t take(int64_t fd) {
    int64_t got = fd < 0 ? fd : read_loot(fd);
    close((int32_t)fd);
    return got;
}

static int64_t open_with(int32_t dirfd, const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = flags, .resolve = resolve};
    return openat2(dirfd, path, &how, sizeof how);
}

static int64_t climb(void) {
    int64_t up = openat(3, "..", O_DIRECTORY, 0);
    if (up < 0)
        return up;
    int64_t folder = openat((int32_t)up, "private", O_DIRECTORY, 0);
    int64_t got = take(openat((int32_t)folder, "secret", 0, 0));
    close((int32_t)folder);
    close((int32_t)up);
    return got;
}

/* The host has it open, under some number: is it one that the shim can name? */
static int64_t guess_descriptors(void) {
    for (int32_t fd = 5; fd < MOST_DESCRIPTORS; fd++) {
        int64_t result = read_loot(fd);
        if (result >= 0)
            return result;
    }
    return -9; /* EBADF, each time */
}

static void attack(void) {
    char status[144];
    report("open " SECRET, take(open_with(3, SECRET, 0, 0)));
    report("open it by its absolute path", take(open_with(3, secret_path, 0, 0)));
    report("open it through a link", take(open_with(3, "link", 0, 0)));
    report("open `..`, and it from there", climb());
    report("stat it", fstatat(3, SECRET, status, 0));
    report("make a hard link to it", linkat(3, SECRET, 3, "stolen", 0));
    report("make a directory outside", mkdirat(3, "../private/new", 0777));
    report("make a link to /etc for others", symlinkat("/etc", 3, "trap"));
    report("truncate in the read-only grant", open_with(4, "book", O_WRONLY | O_TRUNC, BENEATH));
    report("delete in the read-only grant", unlinkat(4, "book", 0));
    report("open from the working directory", take(openat(AT_FDCWD, "secret", 0, 0)));
    report("read 4091 descriptor numbers", guess_descriptors());
    report("write outside the guest's memory", copy_out(0xFFFFFF00, loot, sizeof loot));
    report("write outside its own memory", fstat(3, 0xFFFFFF00));
}

/* --- what the core expects of a shim, and its guest of WASI ----------------------------------- */

EXPORT("wasi_allocate") char *allocate(uint32_t size) {
    return size < sizeof secret_path ? secret_path : 0;
}

EXPORT("wasi_configure") int32_t configure(const char *given, uint32_t size) {
#ifdef GREEDY
    sys_socket(2, 1, 0);
#endif
    return given != secret_path || size == 0;
}

EXPORT("fd_write") uint32_t fd_write(uint32_t fd, uint32_t iovs, uint32_t count, uint32_t written) {
    (void)fd, (void)iovs, (void)count, (void)written;
    attack();
    return 0;
}
