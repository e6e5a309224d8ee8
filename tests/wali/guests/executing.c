/* execve of native programs while others do something: threads that go on, signals that come. */
#include "thread.h"

#if defined(__wasm__)
typedef unsigned pointer;
#else
typedef unsigned long pointer;
#endif

enum { FILES = 40, TRIES = 300, CHILDREN = 20, FILLED = 4 };
enum { FIONREAD = 0x541b };

static long executed(const char *path, const char *a, const char *b, const char *c) {
    const char *words[] = {path, a, b, c};
    pointer vector[5] = {0}, none[] = {0};
    for (int i = 0; i < 4; i++)
        vector[i] = (pointer)(size_t)words[i];
    return SYS_execve(path, vector, none);
}

/* --- an execution that fails ------------------------------------------------------------------ */

static int files[FILES];
static volatile int over, wrong, looked;

/* Each file holds its own number, whoever tries to become another program meanwhile. */
static void looks(long unused) {
    (void)unused;
    while (!over) {
        for (int i = 0; i < FILES; i++) {
            char number = -1;
            if (SYS_pread64(files[i], &number, 1, 0) != 1 || number != i)
                wrong = 1;
        }
        looked = 1;
    }
}

static void while_a_thread_reads(void) {
    for (int i = 0; i < FILES; i++) {
        char number = (char)i;
        files[i] = (int)SYS_open("numbered", O_RDWR | O_CREAT, 0600);
        SYS_unlink("numbered");
        SYS_write(files[i], &number, 1);
        if (i % 3 == 0) /* numbers that are free in between */
            SYS_close((int)SYS_dup(files[i]));
    }
    long nothing = SYS_open("nothing", O_WRONLY | O_CREAT, 0700);
    SYS_write((int)nothing, "no program", 10);
    SYS_close((int)nothing);
    begin(0, looks, 0);
    while (!looked)
        SYS_sched_yield();
    long result = 0;
    for (int i = 0; i < TRIES; i++)
        result |= -8 - executed("nothing", NULL, NULL, NULL);
    over = 1;
    join(0);
    tell("no program", result);
    tell("other files meanwhile", wrong);
}

/* --- a signal that comes before it --------------------------------------------------------------
 */

static void handled(int signal) {
    (void)signal;
}

static void while_signals_come(void) {
    long failed = 0;
    for (int i = 0; i < CHILDREN; i++) {
        int ready[2], status = -1;
        char byte;
        SYS_pipe(ready);
        long child = SYS_fork();
        if (child == 0) {
            handle(SIGURG, handled, 0, 0);
            SYS_write(ready[1], "", 1);
            leave((int)-executed("/bin/grep", "-q", "SigBlk:.0*$", "/proc/self/status"));
        }
        SYS_read(ready[0], &byte, 1);
        while (SYS_wait4((int)child, &status, WNOHANG, NULL) == 0)
            SYS_kill((int)child, SIGURG);
        failed |= status;
        SYS_close(ready[0]);
        SYS_close(ready[1]);
    }
    tell("with no signal blocked", failed);
}

/* --- a signal that has come to another thread ------------------------------------------------- */

static int told[2];
static const size_t MUCH = 128 << 20;

static void tells(int signal) {
    (void)signal;
    SYS_write(told[1], "", 1);
}

/* A program's safepoints are far from each other here: a handler has to be waited for.  (Natively
 * it begins at once, where the thread has a processor: of some tries most do.) */
static void fills(long at) {
    for (;;) {
        __builtin_memset((void *)(size_t)at, looked, MUCH);
        looked = 1;
    }
}

static void while_a_thread_fills(void) {
    int was_handled = 0;
    SYS_pipe(told);
    for (int i = 0; i < FILLED; i++) {
        int status = -1;
        char byte;
        long child = SYS_fork();
        if (child == 0) {
            looked = 0;
            handle(SIGUSR1, tells, 0, 0);
            begin(0, fills, SYS_mmap(NULL, MUCH, PROT_BOTH, MAP_NEW, -1, 0));
            while (!looked)
                SYS_sched_yield();
            SYS_tkill(threads[0].tid, SIGUSR1);
            pause_for(5);
            leave((int)-executed("/bin/true", NULL, NULL, NULL));
        }
        SYS_wait4((int)child, &status, 0, NULL);
        SYS_write(told[1], "", 1);
        while (SYS_read(told[0], &byte, 1) == 1 && SYS_ioctl(told[0], FIONREAD, &status) == 0 &&
               status)
            was_handled++;
    }
    tell("handled by another before", was_handled >= FILLED / 2);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    while_a_thread_reads();
    while_signals_come();
    while_a_thread_fills();
    return 0;
}
