/* Mappings: made, filled, resized, moved, given back.  What is printed are relations: where a
 * mapping lies is everybody's own affair. */
#include "wali.h"

static char *map(void *at, size_t size, int prot, int flags, int fd, long offset) {
    return (char *)(size_t)SYS_mmap(at, size, prot, flags, fd, offset);
}

/* An error is a long; cut to a pointer it is one of the last, where no mapping lies. */
static int failed(const char *at) {
    return (size_t)at > (size_t)-4096;
}

static long sum(const char *at, size_t size) {
    long total = 0;
    for (size_t i = 0; i < size; i++)
        total += (long)(unsigned char)at[i] * (long)(i % 251 + 1);
    return total;
}

static void fill(char *at, size_t size, int seed) {
    for (size_t i = 0; i < size; i++)
        at[i] = (char)((int)i * seed + seed);
}

static void anonymous(void) {
    char *a = map(NULL, 5 * PAGE + 1, PROT_BOTH, MAP_NEW, -1, 0);
    tell("mapped", !failed(a) && (size_t)a % PAGE == 0);
    tell("zero", sum(a, 6 * PAGE));
    fill(a, 6 * PAGE, 3);
    tell("munmap a part", SYS_munmap(a + PAGE, 2 * PAGE));
    tell("the rest stays", sum(a, PAGE) + sum(a + 3 * PAGE, 3 * PAGE));
    char *b = map(a + PAGE, 2 * PAGE, PROT_BOTH, MAP_NEW | MAP_FIXED, -1, 0);
    tell("put it back", b == a + PAGE);
    tell("zero again", sum(b, 2 * PAGE));
    fill(b, 2 * PAGE, 5);
    b = map(a, PAGE, PROT_BOTH, MAP_NEW | MAP_FIXED, -1, 0);
    tell("over what is there", b == a && sum(a, PAGE) == 0);
    tell("not over it", SYS_mmap(a, PAGE, PROT_BOTH, MAP_NEW | MAP_FIXED_NOREPLACE, -1, 0));
    tell("the rest stays", sum(a + PAGE, 5 * PAGE));
    tell("munmap", SYS_munmap(a, 6 * PAGE));
    tell("munmap again", SYS_munmap(a, 6 * PAGE));
    tell("protect what is gone", SYS_mprotect(a, PAGE, PROT_BOTH));
    tell("advise about it", SYS_madvise(a, PAGE, 4));
    tell("write it back", SYS_msync(a, PAGE, 4));
    tell("resize it", SYS_mremap(a, PAGE, 2 * PAGE, MREMAP_MAYMOVE, NULL));
    tell("munmap nothing", SYS_munmap(a, 0));
    tell("munmap between pages", SYS_munmap(a + 1, PAGE));
}

static void files(void) {
    char text[PAGE];
    int fd = (int)SYS_open("mapped", O_RDWR | O_CREAT, 0600);
    fill(text, PAGE, 7);
    for (int i = 0; i < 3; i++)
        SYS_write(fd, text, PAGE);
    char *private = map(NULL, 3 * PAGE, PROT_BOTH, MAP_PRIVATE, fd, 0);
    char *shared = map(NULL, 2 * PAGE, PROT_BOTH, MAP_SHARED, fd, PAGE);
    tell("the file's bytes", sum(private, PAGE) == sum(text, PAGE));
    fill(private, PAGE, 1);
    fill(shared, PAGE, 9);
    tell("msync", SYS_msync(shared, PAGE, 4));
    SYS_pread64(fd, text, PAGE, 0);
    tell("private", sum(text, PAGE) != sum(private, PAGE));
    SYS_pread64(fd, text, PAGE, PAGE);
    tell("shared", sum(text, PAGE) == sum(shared, PAGE));
    tell("seen in both", sum(private + PAGE, PAGE) == sum(shared, PAGE));
    SYS_pwrite64(fd, "written", 7, PAGE);
    tell("and the other way", shared[0] == 'w' && shared[6] == 'n');
    SYS_close(fd);
    tell("it outlives the descriptor", sum(shared, PAGE) != 0);
    tell("munmap", SYS_munmap(private, 3 * PAGE) + SYS_munmap(shared, 2 * PAGE));
    fd = (int)SYS_open("mapped", O_RDONLY, 0);
    char *read_only = map(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    tell("read-only", !failed(read_only));
    tell("read into it", SYS_read(fd, read_only, 4));
    tell("write from it", SYS_write(1, read_only, 0));
    tell("shared, to write, of what is to read", SYS_mmap(NULL, PAGE, 3, MAP_SHARED, fd, 0));
    tell("make it writable", SYS_mprotect(read_only, PAGE, PROT_BOTH));
    char *kept = map(NULL, PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    kept[0] = 'k';
    tell("over memory, refused", SYS_mmap(kept, PAGE, 3, MAP_SHARED | MAP_FIXED, fd, 0));
    char *next = map(NULL, PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    tell("  kept", kept[0] == 'k' && next != kept);
    tell("no such file", SYS_mmap(NULL, PAGE, PROT_READ, MAP_SHARED, 77, 0));
    tell("between pages", SYS_mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 5));
    tell("neither", SYS_mmap(NULL, PAGE, PROT_READ, 0, fd, 0));
    tell("nothing", SYS_mmap(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0));
    int pipe[2];
    SYS_pipe(pipe);
    tell("a pipe", SYS_mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pipe[0], 0));
    SYS_munmap(read_only, PAGE);
    SYS_unlink("mapped");
}

static void resizing(void) {
    char *a = map(NULL, 4 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    fill(a, 4 * PAGE, 11);
    long before = sum(a, 2 * PAGE);
    tell("shrink", SYS_mremap(a, 4 * PAGE, 2 * PAGE, 0, NULL) == (long)(size_t)a);
    tell("  kept", sum(a, 2 * PAGE) == before);
    char *b = (char *)(size_t)SYS_mremap(a, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE, NULL);
    tell("grow", !failed(b));
    tell("  kept", sum(b, 2 * PAGE) == before);
    tell("  zero", sum(b + 2 * PAGE, 62 * PAGE));
    char *c = map(NULL, 8 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    fill(c, 8 * PAGE, 13);
    char *d = (char *)(size_t)SYS_mremap(b, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, c);
    tell("move over another", d == c);
    tell("  kept", sum(d, 2 * PAGE) == before);
    tell("  zero", sum(d + 2 * PAGE, 2 * PAGE));
    tell("  the other's rest", sum(c + 4 * PAGE, 4 * PAGE) != 0);
    tell("over itself", SYS_mremap(c, 4 * PAGE, 4 * PAGE, 3, c + PAGE));
    tell("fixed without maymove", SYS_mremap(c, PAGE, PAGE, MREMAP_FIXED, b));
    tell("between pages", SYS_mremap(c + 1, PAGE, PAGE, MREMAP_MAYMOVE, NULL));
    tell("to nothing", SYS_mremap(c, PAGE, 0, MREMAP_MAYMOVE, NULL));
    tell("how", SYS_mremap(c, PAGE, PAGE, 64, NULL));
    char *guard = map(c + 4 * PAGE, PAGE, PROT_NONE, MAP_NEW | MAP_FIXED, -1, 0);
    tell("no room to grow", SYS_mremap(c, 4 * PAGE, 5 * PAGE, 0, NULL));
    SYS_munmap(guard, PAGE);
    SYS_munmap(b + 2 * PAGE, 62 * PAGE);
    SYS_munmap(c, 8 * PAGE);
}

static void protecting(void) {
    char text[8] = "text";
    char *a = map(NULL, 2 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    fill(a, 2 * PAGE, 3);
    int pipe[2];
    SYS_pipe(pipe);
    tell("protect", SYS_mprotect(a, PAGE, PROT_READ));
    SYS_write(pipe[1], text, 8);
    tell("the kernel writes it", SYS_read(pipe[0], a, 8));
    tell("the kernel reads it", SYS_write(pipe[1], a, 8));
    tell("not at all", SYS_mprotect(a, PAGE, PROT_NONE));
    tell("the kernel reads it", SYS_write(pipe[1], a, 8));
    tell("a path in it", SYS_open(a, O_RDONLY, 0));
    tell("a time in it", SYS_clock_gettime(CLOCK_MONOTONIC, a));
    tell("a time across it", SYS_clock_gettime(CLOCK_REALTIME, a + PAGE - 8));
    tell("a status in it", SYS_pipe((int *)(void *)a));
    tell("both again", SYS_mprotect(a, PAGE, PROT_BOTH));
    tell("  kept", sum(a, 2 * PAGE));
    tell("protect between pages", SYS_mprotect(a + 1, PAGE, PROT_READ));
    tell("protect how", SYS_mprotect(a, PAGE, 0x100));
    tell("advise", SYS_madvise(a, PAGE, 4));
    tell("  gone", sum(a, PAGE));
    tell("  the next stays", sum(a + PAGE, PAGE));
    tell("protect NULL", SYS_mprotect(NULL, PAGE, PROT_READ));
    tell("nothing of it", SYS_mprotect(NULL, 0, PROT_READ));
    tell("advise about NULL", SYS_madvise(NULL, PAGE, 4));
    tell("write NULL back", SYS_msync(NULL, PAGE, 4));
    tell("resize NULL", SYS_mremap(NULL, PAGE, 2 * PAGE, MREMAP_MAYMOVE, NULL));
    tell("advise how", SYS_madvise(a, PAGE, 999));
    tell("advise between pages", SYS_madvise(a + 1, PAGE, 4));
    SYS_munmap(a, 2 * PAGE);
}

/* Ten thousand mappings, some of them live at a time, in no more room than those need. */
static void holes(void) {
    char *a = map(NULL, 8 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    fill(a, 8 * PAGE, 3);
    tell("make a hole", SYS_munmap(a + 2 * PAGE, PAGE));
    tell("protect over it", SYS_mprotect(a, 8 * PAGE, PROT_READ));
    tell("before it", SYS_getrandom(a, 1, 0));
    tell("behind it", SYS_getrandom(a + 3 * PAGE, 1, 0));
    tell("protect from it on", SYS_mprotect(a + 2 * PAGE, 2 * PAGE, PROT_READ));
    tell("behind it", SYS_getrandom(a + 3 * PAGE, 1, 0));
    tell("protect nothing of it", SYS_mprotect(a + 2 * PAGE, 0, PROT_READ));
    tell("unprotect", SYS_mprotect(a, 2 * PAGE, PROT_BOTH));
    fill(a, 2 * PAGE, 5);
    fill(a + 3 * PAGE, 5 * PAGE, 5);
    tell("advise over it", SYS_madvise(a, 8 * PAGE, 4));
    tell("before it", a[PAGE]);
    tell("behind it", a[7 * PAGE]);
    tell("write back over it", SYS_msync(a, 8 * PAGE, 4));
    tell("advise beyond all", SYS_madvise(a, (size_t)-PAGE, 4));
    tell("protect beyond all", SYS_mprotect(a, (size_t)-PAGE, PROT_READ));
    tell("clear away", SYS_munmap(a, 8 * PAGE));
}

static void cycles(void) {
    char *live[16] = {0}, *lowest = (char *)-1, *highest = NULL;
    size_t sizes[16];
    unsigned random = 1, wrong = 0;
    for (int i = 0; i < 10000; i++) {
        random = random * 1103515245 + 12345;
        int slot = (int)(random >> 16 & 15);
        if (live[slot]) {
            wrong += live[slot][0] != (char)slot || live[slot][sizes[slot] - 1] != (char)slot;
            wrong += SYS_munmap(live[slot], sizes[slot]) != 0;
            live[slot] = NULL;
            continue;
        }
        sizes[slot] = (1 + (random >> 20 & 31)) * PAGE;
        char *at = map(NULL, sizes[slot], PROT_BOTH, MAP_NEW, -1, 0);
        wrong += failed(at) || at[0] || at[sizes[slot] - 1];
        at[0] = at[sizes[slot] - 1] = (char)slot;
        live[slot] = at;
        lowest = at < lowest ? at : lowest;
        highest = at + sizes[slot] > highest ? at + sizes[slot] : highest;
    }
    tell("cycles went wrong", wrong);
    tell("within 4 MiB", highest - lowest <= 4 << 20);
    for (int i = 0; i < 16; i++)
        if (live[i])
            SYS_munmap(live[i], sizes[i]);
}

/* Mappings of files grow with the file's bytes; what is shared can be had twice. */
static void growing_files(void) {
    char text[PAGE];
    int fd = (int)SYS_open("grown", O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 8; i++) {
        fill(text, PAGE, i + 1);
        SYS_write(fd, text, PAGE);
    }
    char *a = map(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    char *b = (char *)(size_t)SYS_mremap(a, 2 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, NULL);
    tell("a file's mapping grows", !failed(b) && sum(b + 7 * PAGE, PAGE) == sum(text, PAGE));
    SYS_pwrite64(fd, "new", 3, 7 * PAGE);
    tell("  is the file still", b[7 * PAGE] == 'n');
    tell("  and read-only", SYS_pread64(fd, b, 1, 0));
    char *twin = (char *)(size_t)SYS_mremap(b, 0, PAGE, MREMAP_MAYMOVE, NULL);
    tell("twice", twin != b && sum(twin, PAGE) == sum(b, PAGE));
    char *c = map(NULL, PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    tell("never what is private", SYS_mremap(c, 0, PAGE, MREMAP_MAYMOVE, NULL));
    c[0] = 'c';
    char *d = (char *)(size_t)SYS_mremap(c, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    tell("moved, the old place kept", d != c && d[0] == 'c' && c[0] == 0);
    tell("kept, of another size", SYS_mremap(c, PAGE, 2 * PAGE, 5, NULL));
    SYS_munmap(b, 8 * PAGE);
    SYS_munmap(twin, PAGE);
    SYS_munmap(c, PAGE);
    SYS_munmap(d, PAGE);
    SYS_close(fd);
    SYS_unlink("grown");
}

static void placing(void) {
    char *a = map(NULL, 4 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    SYS_munmap(a + PAGE, 2 * PAGE);
    tell("a hint", map(a + 2 * PAGE, PAGE, PROT_BOTH, MAP_NEW, -1, 0) == a + 2 * PAGE);
    tell("between pages", map(a + 1, PAGE, PROT_BOTH, MAP_NEW, -1, 0) == a + PAGE);
    tell("where something is", map(a, PAGE, PROT_BOTH, MAP_NEW, -1, 0) != a);
    tell("fixed between pages", SYS_mmap(a + 1, PAGE, PROT_BOTH, MAP_NEW | MAP_FIXED, -1, 0));
    tell("flags that do nothing", !failed(map(NULL, PAGE, PROT_BOTH, MAP_NEW | 0x1800, -1, 0)));
    tell("checked flags", SYS_mmap(NULL, PAGE, PROT_BOTH, 0x20 | 3 | 0x800, -1, 0));
    int fd = (int)SYS_open("checked", O_RDWR | O_CREAT, 0600);
    tell("checked, of a file", SYS_mmap(NULL, PAGE, PROT_READ, 3 | 0x80000, fd, 0));
    tell("checked", !failed(map(NULL, PAGE, PROT_READ, 3, fd, 0)));
    SYS_unlink("checked");
    tell("no kind", SYS_mmap(NULL, PAGE, PROT_BOTH, 0x20, -1, 0));
    SYS_munmap(a, 4 * PAGE);
}

static void breaking(void) {
    size_t start = (size_t)SYS_brk(NULL);
    char *a = (char *)start;
    tell("a break", start != 0 && start % PAGE == 0);
    tell("up", SYS_brk(a + 5 * PAGE + 3) - (long)start);
    tell("  zero", sum(a, 5 * PAGE + 3));
    fill(a, 5 * PAGE, 3);
    long kept = sum(a, 2 * PAGE);
    tell("down", SYS_brk(a + 2 * PAGE) - (long)start);
    tell("up again", SYS_brk(a + 5 * PAGE) - (long)start);
    tell("  kept", sum(a, 2 * PAGE) == kept);
    tell("  zero again", sum(a + 2 * PAGE, 3 * PAGE));
    tell("below its start", SYS_brk(a - PAGE) - (long)start);
    tell("much too far", SYS_brk((void *)-PAGE) - (long)start);
    tell("a guard in it", SYS_mmap(a, PAGE, PROT_NONE, MAP_NEW | MAP_FIXED, -1, 0) == (long)start);
    tell("and up", SYS_brk(a + 6 * PAGE) - (long)start);
    a[6 * PAGE - 1] = 1;
    tell("back", SYS_brk(a) - (long)start);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    anonymous();
    files();
    resizing();
    growing_files();
    placing();
    protecting();
    holes();
    cycles();
    breaking();
    return 0;
}
