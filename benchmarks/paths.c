/* A WALI program that makes calls by a path, and says how much time one takes, in ns.
 *
 *     paths FILE TIMES
 */
#define CALL(name) __attribute__((import_module("wali"), import_name(#name)))

typedef __SIZE_TYPE__ size_t;

CALL(SYS_open) long open(const char *path, int flags, unsigned mode);
CALL(SYS_close) long close(int fd);
CALL(SYS_stat) long stat(const char *path, void *to);
CALL(SYS_chmod) long chmod(const char *path, unsigned mode);
CALL(SYS_write) long write(int fd, const void *from, size_t size);
CALL(SYS_clock_gettime) long clock_gettime(int clock, void *to);
CALL(__init) int wali_init(void);
CALL(__proc_exit) void wali_exit(int status);
CALL(__cl_copy_argv) int copy_argument(char *to, int index);

static char path[4096], digits[32], about[144];

static long now(void) {
    long time[2];
    clock_gettime(2, time); /* CLOCK_PROCESS_CPUTIME_ID: others may be busy, too */
    return time[0] * 1000000000 + time[1];
}

static void say(long value, char end) {
    int at = sizeof digits;
    digits[--at] = end;
    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    write(1, digits + at, sizeof digits - (size_t)at);
}

static long one(int which) {
    if (which == 0)
        return stat(path, about);
    if (which == 1)
        return close((int)open(path, 0, 0));
    return chmod(path, 0600);
}

void _start(void) {
    long times = 0;
    wali_init();
    copy_argument(digits, 2);
    copy_argument(path, 1);
    for (char *c = digits; *c; c++)
        times = times * 10 + (*c - '0');
    for (int which = 0; which < 3; which++) {
        long before = 0;
        for (long i = -times / 10; i < times; i++) {
            if (i == 0)
                before = now();
            if (one(which) < 0)
                wali_exit(1);
        }
        say((now() - before) / times, which < 2 ? ' ' : '\n');
    }
    wali_exit(0);
}
