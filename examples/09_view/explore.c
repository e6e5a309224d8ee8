/* Walks through all that exists for it, from its root, and tries a little: an ordinary Linux
 * program in C, but compiled to Wasm.
 *
 *     explore PATH-OF-THE-HOST
 */
#define CALL(name) __attribute__((import_module("wali"), import_name(#name)))

typedef __SIZE_TYPE__ size_t;

CALL(SYS_chmod) long chmod(const char *path, unsigned mode);
CALL(SYS_close) long close(int fd);
CALL(SYS_getcwd) long getcwd(char *to, size_t room);
CALL(SYS_getdents64) long getdents64(int fd, void *to, size_t room);
CALL(SYS_open) long open(const char *path, int flags, unsigned mode);
CALL(SYS_stat) long stat(const char *path, void *to);
CALL(SYS_write) long write(int fd, const void *from, size_t size);

CALL(__init) int wali_init(void);
CALL(__proc_exit) void wali_exit(int status);
CALL(__cl_copy_argv) int copy_argument(char *to, int index);

enum { O_WRONLY = 1, O_CREAT = 0x40, O_DIRECTORY = 0x10000, IS_FOLDER = 4 };

struct entry {
    unsigned long inode, offset;
    unsigned short size;
    unsigned char kind;
    char name[];
};

static size_t length(const char *text) {
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

static int same(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void say(const char *text) {
    write(1, text, length(text));
}

static void tell(const char *what, const char *on, long result) {
    char digits[24];
    int at = sizeof digits;
    unsigned long rest = result < 0 ? -(unsigned long)result : (unsigned long)result;
    say(what);
    say(" ");
    say(on);
    say(": ");
    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (result < 0)
        digits[--at] = '-';
    write(1, digits + at, sizeof digits - (size_t)at);
    say("\n");
}

static char path[4096];

/* Print the names below the path that is `used` long, each with its whole path. */
static void walk(size_t used) {
    char buffer[2048];
    long size, fd = open(used ? path : "/", O_DIRECTORY, 0);
    while (fd >= 0 && (size = getdents64((int)fd, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < size;) {
            struct entry *entry = (struct entry *)(buffer + at);
            at += entry->size;
            if (same(entry->name, ".") || same(entry->name, ".."))
                continue;
            size_t end = used;
            path[end++] = '/';
            for (const char *c = entry->name; *c; c++)
                path[end++] = *c;
            path[end] = 0;
            say("exists: ");
            say(path);
            say("\n");
            if (entry->kind == IS_FOLDER)
                walk(end);
            path[used] = 0;
        }
    if (fd >= 0)
        close((int)fd);
}

void _start(void) {
    static char host[4096], about[144];
    wali_init();
    walk(0);
    getcwd(path, sizeof path);
    say("here: ");
    say(path);
    say("\n");
    copy_argument(host, 1);
    tell("stat", host, stat(host, about));
    tell("stat", "/etc/passwd", stat("/etc/passwd", about));
    tell("write", "/recipes/soup", open("/recipes/soup", O_WRONLY, 0));
    tell("chmod", "/recipes/soup", chmod("/recipes/soup", 0600));
    long fd = open("menu", O_WRONLY | O_CREAT, 0644);
    if (fd >= 0) {
        write((int)fd, "soup\n", 5);
        close((int)fd);
    }
    tell("write", "menu", fd < 0 ? fd : 0);
    tell("chmod", "menu", chmod("menu", 0640));
    wali_exit(0);
}
