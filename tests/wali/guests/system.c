/* Time, randomness, limits and the process, with what cannot differ printed as it is. */
#include "wali.h"

struct limit {
    unsigned long current, most;
};

static void clocks(void) {
    struct timespec a = {0}, b = {0}, fine = {0};
    long day[2] = {0};
    tell("realtime", SYS_clock_gettime(CLOCK_REALTIME, &a));
    tell("  is now", a.seconds > 1600000000 && a.rest >= 0 && a.rest < 1000000000);
    tell("gettimeofday", SYS_gettimeofday(day, NULL));
    tell("  agrees", day[0] - a.seconds <= 2);
    SYS_clock_gettime(CLOCK_MONOTONIC, &a);
    SYS_clock_gettime(CLOCK_MONOTONIC, &b);
    tell("monotonic", a.seconds < b.seconds || (a.seconds == b.seconds && a.rest <= b.rest));
    tell("cpu", SYS_clock_gettime(2, &a));
    tell("thread", SYS_clock_gettime(3, &a));
    tell("boot", SYS_clock_gettime(7, &a));
    tell("no clock", SYS_clock_gettime(77, &a));
    tell("getres", SYS_clock_getres(CLOCK_MONOTONIC, &fine));
    tell("  is", fine.rest);
    tell("getres of no clock", SYS_clock_getres(77, &fine));
}

static void randomness(void) {
    unsigned char bytes[64] = {0};
    int different = 0;
    tell("getrandom", SYS_getrandom(bytes, sizeof bytes, 0));
    for (int i = 1; i < 64; i++)
        different += bytes[i] != bytes[0];
    tell("  random", different > 32);
    tell("nothing", SYS_getrandom(bytes, 0, 0));
    tell("wrong flags", SYS_getrandom(bytes, 4, 0x80));
}

static void limits(void) {
    struct limit files = {0}, before, lower, core = {0, 0};
    tell("getrlimit", SYS_getrlimit(7, &files));
    tell("  some", files.current > 64 && files.current <= files.most);
    lower = (struct limit){64, files.most};
    tell("setrlimit", SYS_setrlimit(7, &lower));
    tell("prlimit", SYS_prlimit64(0, 7, NULL, &before));
    tell("  is", (long)before.current);
    int last = 0, fd;
    while ((fd = (int)SYS_open("/dev/null", O_RDONLY, 0)) >= 0)
        last = fd;
    tell("last number", last);
    tell("then", fd);
    tell("dup", SYS_dup(0));
    tell("dup2 beyond", SYS_dup2(0, 64));
    tell("dup2 within", SYS_dup2(0, 63));
    tell("F_DUPFD beyond", SYS_fcntl(0, 0, 64));
    for (fd = 3; fd < 64; fd++)
        SYS_close(fd);
    lower.current = lower.most + 1;
    tell("above the most", SYS_setrlimit(7, &lower));
    tell("no such limit", SYS_getrlimit(77, &before));
    tell("no cores", SYS_setrlimit(4, &core));
    core.most = 1;
    tell("are none", SYS_getrlimit(4, &core));
    tell("  is", (long)core.most);
}

static void process(void) {
    static char names[390];
    long usage[34] = {0}, info[46] = {0}, cpus[16] = {0};
    int word = 0;
    tell("its number", SYS_getpid() > 1);
    tell("its thread", SYS_gettid() == SYS_getpid());
    tell("set_tid_address", SYS_set_tid_address(&word) == SYS_getpid());
    tell("users", SYS_getuid() == SYS_geteuid() && SYS_getgid() == SYS_getegid());
    tell("its group", SYS_getpgid(0) == SYS_getpgid((int)SYS_getpid()));
    tell("its session", SYS_getsid(0) > 0);
    tell("group of nobody", SYS_getpgid(0x7ffffff0));
    tell("uname", SYS_uname(names));
    say("%s %s\n", names, names + 65 * 4);
    tell("getrusage", SYS_getrusage(0, usage));
    tell("of whom", SYS_getrusage(9, usage));
    tell("sysinfo", SYS_sysinfo(info));
    tell("  up", info[0] > 0);
    tell("affinity", SYS_sched_getaffinity(0, sizeof cpus, cpus) > 0);
    tell("yield", SYS_sched_yield());
    tell("no descriptor", SYS_ioctl(77, 0x5401, names));
    tell("not a terminal", SYS_ioctl(0, 0x5401, names));
    tell("futex", SYS_futex(&word, 1, 1, NULL, NULL, 0));
    tell("futex, another value", SYS_futex(&word, 0, 1, NULL, NULL, 0));
    struct timespec little = {0, 1000000};
    tell("futex, nobody wakes", SYS_futex(&word, 0, 0, &little, NULL, 0));
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    clocks();
    randomness();
    limits();
    process();
    return 0;
}
