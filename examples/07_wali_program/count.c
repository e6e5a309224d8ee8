/* A WALI program without a C library: it counts the lines of the files that it is given.
 *
 * A system call is an import of the module "wali", named SYS_ and Linux's name.  What it gives is
 * the kernel's own answer: -errno where something went wrong. */

#define WALI(name) __attribute__((import_module("wali"), import_name(name)))

typedef __SIZE_TYPE__ size_t;

WALI("SYS_open") long open_file(const char *path, int flags, unsigned mode);
WALI("SYS_read") long read_from(int fd, void *to, size_t size);
WALI("SYS_write") long write_to(int fd, const void *from, size_t size);
WALI("SYS_close") long close_file(int fd);

/* The arguments, and the end, are not Linux's. */
WALI("__init") int begin(void);
WALI("__deinit") int end(void);
WALI("__proc_exit") void leave(int status);
WALI("__cl_get_argc") int argument_count(void);
WALI("__cl_get_argv_len") int argument_length(int index);
WALI("__cl_copy_argv") int copy_argument(char *to, int index);

static void say(const char *text) {
    size_t size = 0;
    while (text[size])
        size++;
    write_to(1, text, size);
}

static void say_number(long number) {
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = 0;
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    say(digits + at);
}

static long lines_of(const char *path) {
    static char buffer[65536];
    long fd = open_file(path, 0, 0), lines = 0, got;
    if (fd < 0)
        return fd;
    while ((got = read_from((int)fd, buffer, sizeof buffer)) > 0)
        for (long i = 0; i < got; i++)
            lines += buffer[i] == '\n';
    close_file((int)fd);
    return got < 0 ? got : lines;
}

void _start(void) {
    static char path[4096];
    int failed = 0;
    begin();
    for (int i = 1; i < argument_count(); i++) {
        if (argument_length(i) >= (int)sizeof path)
            leave(2);
        copy_argument(path, i);
        long lines = lines_of(path);
        failed |= lines < 0;
        say(path);
        say(lines < 0 ? ": errno " : ": lines ");
        say_number(lines < 0 ? -lines : lines);
        say("\n");
    }
    end();
    leave(failed);
}
