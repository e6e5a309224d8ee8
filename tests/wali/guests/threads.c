/* Threads: instances on one memory, joined by futex, each with signals and an end of its own.
 */
#include "thread.h"

/* --- what they do ----------------------------------------------------------------------------- */

static volatile int lock, counter, ready;

/* Wait until a thread has come to its call, and a little longer. */
static void until_ready(void) {
    while (!__atomic_exchange_n(&ready, 0, __ATOMIC_SEQ_CST))
        SYS_sched_yield();
    pause_for(30);
}

static void acquire(volatile int *word) {
    while (__atomic_exchange_n(word, 1, __ATOMIC_SEQ_CST))
        SYS_futex((void *)word, FUTEX_WAIT | FUTEX_PRIVATE, 1, NULL, NULL, 0);
}

static void release(volatile int *word) {
    __atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
    SYS_futex((void *)word, FUTEX_WAKE | FUTEX_PRIVATE, 1, NULL, NULL, 0);
}

static void add(long times) {
    for (long i = 0; i < times; i++) {
        acquire(&lock);
        counter = counter + 1;
        release(&lock);
    }
}

static void counting(void) {
    int distinct = 1;
    for (int i = 0; i < 4; i++)
        tell("begin", begin(i, add, 1000) > 0);
    for (int i = 0; i < 4; i++) {
        join(i);
        distinct &= threads[i].tid != (int)SYS_gettid();
        for (int j = 0; j < i; j++)
            distinct &= threads[i].tid != threads[j].tid;
    }
    tell("counted", counter);
    tell("numbers differ", distinct);
    tell("the first is the process", SYS_gettid() == SYS_getpid());
}

static volatile int seen_pid;

static void one_process(long unused) {
    (void)unused;
    seen_pid = (int)SYS_getpid();
}

static int shared_fd;

static void open_one(long unused) {
    (void)unused;
    shared_fd = (int)SYS_open("shared", O_RDWR | O_CREAT, 0600);
    SYS_write(shared_fd, "from a thread", 13);
}

static void shares(void) {
    char text[32] = {0};
    begin(0, one_process, 0);
    join(0);
    tell("one process", seen_pid == (int)SYS_getpid());
    begin(0, open_one, 0);
    join(0);
    tell("descriptor", shared_fd);
    tell("read what it wrote", SYS_pread64(shared_fd, text, sizeof text, 0));
    say("%s\n", text);
    tell("close", SYS_close(shared_fd));
    tell("again", SYS_close(shared_fd));
    tell("the number is free", SYS_open("shared", O_RDONLY, 0) == shared_fd);
    SYS_close(shared_fd);
    tell("many", 0);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 8; i++)
            begin(i, one_process, 0);
        for (int i = 0; i < 8; i++)
            join(i);
    }
}

/* --- descriptors that are closed while others use them ---------------------------------------- */

static int ends[2];
static volatile long got = -1;

static void read_one(long unused) {
    char byte;
    (void)unused;
    ready = 1;
    got = SYS_read(ends[0], &byte, 1);
}

static void closing(void) {
    SYS_pipe(ends);
    begin(0, read_one, 0);
    until_ready();
    tell("close what is read", SYS_close(ends[0]));
    tell("it is gone", SYS_fcntl(ends[0], 1, 0));
    tell("write to it", SYS_write(ends[1], "x", 1));
    join(0);
    tell("read all the same", got);
    SYS_close(ends[1]);
    int pair[2];
    char byte;
    SYS_socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    begin(1, one_process, 0);
    join(1);
    SYS_close(pair[1]);
    tell("the other end sees it at once", SYS_read(pair[0], &byte, 1));
    SYS_close(pair[0]);
    int low = (int)SYS_dup(1), last = 0;
    SYS_close(low);
    for (int i = 0; i < 2000; i++) {
        last = (int)SYS_open("/dev/null", O_RDONLY, 0);
        SYS_close(last);
    }
    tell("numbers are used again", last == low);
    tell("dup2 over", SYS_dup2(1, last) == last);
    tell("dup2 over", SYS_dup2(2, last) == last);
    SYS_close(last);
}

static volatile int racing;

static void open_and_close(long unused) {
    (void)unused;
    while (racing) {
        int fd = (int)SYS_open("/dev/null", O_RDWR, 0);
        if (fd >= 0)
            SYS_close(fd);
    }
}

/* Whatever the others do, what is written to /dev/null is written or is EBADF. */
static void write_anywhere(long times) {
    for (long i = 0; i < times; i++)
        for (int fd = 3; fd < 12; fd++) {
            long r = SYS_write(fd, "y", 1);
            if (r != 1 && r != -9)
                tell("unexpected", r);
        }
}

static int replaced;
static volatile long taken;

static void replace(long by) {
    while (racing)
        if (SYS_dup2((int)by, replaced) != replaced)
            tell("dup2 over what is open", -1);
}

static void take_what_is_free(long unused) {
    (void)unused;
    while (racing) {
        int fd = (int)SYS_dup(0);
        taken += fd == replaced;
        SYS_close(fd);
    }
}

/* What dup2 is made over and over again is open at all times, and nobody else's. */
static void replacing(void) {
    long missed = 0;
    replaced = (int)SYS_dup(1);
    racing = 1;
    begin(0, replace, 1);
    begin(1, replace, 2);
    begin(2, take_what_is_free, 0);
    for (int i = 0; i < 20000; i++)
        missed += SYS_fcntl(replaced, 1, 0) != 0;
    racing = 0;
    for (int i = 0; i < 3; i++)
        join(i);
    tell("missed while it was replaced", missed);
    tell("taken while it was replaced", taken);
    SYS_close(replaced);
}

static void racing_descriptors(void) {
    racing = 1;
    begin(0, open_and_close, 0);
    begin(1, open_and_close, 0);
    begin(2, write_anywhere, 300);
    join(2);
    racing = 0;
    join(0), join(1);
    int fd = (int)SYS_open("/dev/null", O_RDONLY, 0);
    tell("nothing is left open", fd);
    SYS_close(fd);
}

/* --- signals ---------------------------------------------------------------------------------- */

static volatile int handled_by, woken;

static void note_thread(int signal) {
    (void)signal;
    handled_by = (int)SYS_gettid();
}

static void sleep_until_hit(long unused) {
    struct timespec length = {5, 0};
    (void)unused;
    ready = 1;
    woken = (int)SYS_nanosleep(&length, NULL);
}

static void loop_until_hit(long unused) {
    (void)unused;
    ready = 1;
    while (!handled_by)
        ;
}

static void with_its_mask(long unused) {
    (void)unused;
    woken = mask(SIG_BLOCK, 0) == bit(SIGUSR2);
}

static void signalling(void) {
    handle(SIGUSR1, note_thread, 0, 0);
    begin(0, sleep_until_hit, 0);
    until_ready();
    tell("tkill", SYS_tkill(threads[0].tid, SIGUSR1));
    join(0);
    tell("it was interrupted", woken);
    tell("it ran the handler", handled_by == threads[0].tid);
    handled_by = 0;
    begin(0, loop_until_hit, 0);
    until_ready();
    SYS_tkill(threads[0].tid, SIGUSR1);
    join(0);
    tell("in a loop", handled_by == threads[0].tid);
    handled_by = 0;
    mask(SIG_BLOCK, bit(SIGUSR1));
    begin(0, loop_until_hit, 0);
    SYS_tkill(threads[0].tid, SIGUSR1);
    SYS_kill((int)SYS_getpid(), SIGUSR1);
    mask(SIG_SETMASK, 0);
    join(0);
    tell("whoever does not block it", handled_by == (int)SYS_gettid());
    long gone;
    while ((gone = SYS_tkill(threads[0].tid, 0)) == 0)
        SYS_sched_yield();
    tell("no such thread", gone);
    mask(SIG_SETMASK, bit(SIGUSR2));
    begin(0, with_its_mask, 0);
    join(0);
    tell("a mask is inherited", woken);
    mask(SIG_SETMASK, 0);
}

/* --- futexes ---------------------------------------------------------------------------------- */

static volatile int first, second, up;

static void wait_on_first(long unused) {
    (void)unused;
    __atomic_fetch_add(&up, 1, __ATOMIC_SEQ_CST);
    SYS_futex((void *)&first, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void futexes(void) {
    struct timespec soon = {0, 1000000}, wrong = {0, 2000000000};
    int word = 1, pi = 0;
    tell("another value", SYS_futex(&word, FUTEX_WAIT, 0, NULL, NULL, 0));
    tell("a time-out", SYS_futex(&word, FUTEX_WAIT, 1, &soon, NULL, 0));
    tell("a wrong one", SYS_futex(&word, FUTEX_WAIT, 1, &wrong, NULL, 0));
    tell("bits", SYS_futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 1));
    tell("no bits", SYS_futex(&word, FUTEX_WAIT_BITSET, 1, NULL, NULL, 0));
    tell("wake nobody", SYS_futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0));
    tell("wake nobody's bits", SYS_futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 2));
    tell("lock with priority", SYS_futex(&pi, 6, 0, NULL, NULL, 0));
    tell("  whose", pi == (int)SYS_gettid());
    tell("again", SYS_futex(&pi, 6, 0, NULL, NULL, 0));
    tell("unlock", SYS_futex(&pi, 7, 0, NULL, NULL, 0));
    tell("try", SYS_futex(&pi, 8, 0, NULL, NULL, 0));
    tell("odd address", SYS_futex((char *)&word + 1, FUTEX_WAKE, 1, NULL, NULL, 0));
    tell("unknown", SYS_futex(&word, 99, 1, NULL, NULL, 0));
    for (int i = 0; i < 3; i++)
        begin(i, wait_on_first, 0);
    while (up < 3)
        SYS_sched_yield();
    pause_for(50);
    tell("compare", SYS_futex((void *)&first, FUTEX_CMP_REQUEUE, 1, (void *)1, (void *)&second, 7));
    long moved = SYS_futex((void *)&first, FUTEX_CMP_REQUEUE, 1, (void *)1, (void *)&second, 0);
    tell("wake one, move one", moved);
    tell("wake what was moved", SYS_futex((void *)&second, FUTEX_WAKE, 9, NULL, NULL, 0));
    tell("move the last",
         SYS_futex((void *)&first, FUTEX_REQUEUE, 0, (void *)9, (void *)&second, 0));
    tell("wake it", SYS_futex((void *)&second, FUTEX_WAKE, 9, NULL, NULL, 0));
    for (int i = 0; i < 3; i++)
        join(i);
}

/* --- memory and processes --------------------------------------------------------------------- */

static void map_and_unmap(long times) {
    for (long i = 0; i < times; i++) {
        long at = SYS_mmap(NULL, 8 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
        volatile char *page = (volatile char *)(size_t)at;
        page[0] = (char)i, page[7 * PAGE] = (char)i;
        if (page[0] != (char)i || page[7 * PAGE] != (char)i)
            tell("not its own", i);
        SYS_munmap((void *)(size_t)at, 8 * PAGE);
    }
}

static void forked(long unused) {
    int status = -1, pid = (int)SYS_fork();
    (void)unused;
    if (pid == 0) {
        int here = SYS_gettid() == SYS_getpid();
        begin(9, one_process, 0);
        join(9);
        leave(here && seen_pid == (int)SYS_getpid() ? 21 : 22);
    }
    SYS_wait4(pid, &status, 0, NULL);
    woken = status;
}

static void mapping(void) {
    for (int i = 0; i < 3; i++)
        begin(i, map_and_unmap, 200);
    for (int i = 0; i < 3; i++)
        join(i);
    tell("mapped", 0);
    begin(0, forked, 0);
    join(0);
    tell("a thread's child", woken >> 8);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void sleep_for_ever(long unused) {
    struct timespec length = {1000, 0};
    (void)unused;
    for (;;)
        SYS_nanosleep(&length, NULL);
}

static void leave_all(long status) {
    pause_for(20);
    leave((int)status);
}

static void leave_later(long status) {
    (void)status;
    pause_for(30);
    SYS_write(1, "the last\n", 9);
}

static int in_child(void (*run)(long), void (*then)(void)) {
    int status = -1, pid = (int)SYS_fork();
    if (pid == 0) {
        begin(0, run, 31);
        then();
        leave(34);
    }
    SYS_wait4(pid, &status, 0, NULL);
    return status >> 8;
}

static void wait_long(void) {
    sleep_for_ever(0);
}

static void exit_one(void) {
    for (;;)
        SYS_exit(33);
}

static void nothing(void) {
}

static void ending(void) {
    tell("a thread ends all", in_child(leave_all, wait_long));
    tell("the first ends all", in_child(sleep_for_ever, nothing));
    tell("the first ends itself", in_child(leave_later, exit_one));
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    counting();
    shares();
    closing();
    racing_descriptors();
    replacing();
    signalling();
    futexes();
    mapping();
    ending();
    begin(0, sleep_for_ever, 0);
    return 0;
}
