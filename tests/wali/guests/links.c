/* Links, renames and times of files, and what every kind of stat says of them. */
#include "wali.h"

struct statx {
    unsigned mask, block_size;
    unsigned long attributes;
    unsigned links, user, group;
    unsigned short mode, pad;
    unsigned long inode, size, blocks, attributes_mask;
    struct {
        long seconds;
        unsigned rest, pad;
    } times[4];
    unsigned long others[16];
};

enum { NOFOLLOW = 0x100, FOLLOW = 0x400, EMPTY_PATH = 0x1000, NOREPLACE = 1, EXCHANGE = 2 };
enum { UTIME_NOW = (1 << 30) - 1, UTIME_OMIT = (1 << 30) - 2 };

static long make(const char *name) {
    int fd = (int)SYS_open(name, O_RDWR | O_CREAT, 0640);
    long done = SYS_write(fd, name, length(name));
    SYS_close(fd);
    return done;
}

static void links(void) {
    struct stat a, b;
    char text[64] = {0};
    make("file");
    tell("link", SYS_link("file", "second"));
    tell("  twice", SYS_link("file", "second"));
    SYS_stat("file", &a), SYS_stat("second", &b);
    tell("  same", a.inode == b.inode && a.links == 2);
    tell("symlink", SYS_symlink("file", "soft"));
    tell("linkat, the link", SYS_linkat(AT_FDCWD, "soft", AT_FDCWD, "soft2", 0));
    tell("linkat, followed", SYS_linkat(AT_FDCWD, "soft", AT_FDCWD, "third", FOLLOW));
    SYS_lstat("soft2", &a), SYS_stat("third", &b);
    tell("  a link", (a.mode & 0xf000) == 0xa000);
    tell("  links", (long)b.links);
    tell("readlink", SYS_readlink("soft", text, 64));
    say("  %s\n", text);
    tell("  cut", SYS_readlink("soft", text, 2));
    tell("  of a file", SYS_readlink("file", text, 64));
    tell("  no room", SYS_readlink("soft", text, 0));
    tell("/proc/self", SYS_readlink("/proc/self", text, 64) > 0 && number(text) == SYS_getpid());
    tell("a loop", SYS_symlink("loop", "loop"));
    tell("  opened", SYS_open("loop", O_RDONLY, 0));
    tell("  looked at", SYS_stat("loop", &a));
    tell("nothing to say", SYS_symlink("", "empty"));
    tell("NULL", SYS_symlink(NULL, "empty"));
    tell("link to nowhere", SYS_link("none", "other"));
    tell("link of a directory", SYS_link(".", "other"));
}

static void renaming(void) {
    make("one"), make("other");
    SYS_mkdir("folder", 0700);
    tell("not over", SYS_renameat2(AT_FDCWD, "one", AT_FDCWD, "other", NOREPLACE));
    tell("exchange", SYS_renameat2(AT_FDCWD, "one", AT_FDCWD, "other", EXCHANGE));
    struct stat a;
    SYS_stat("one", &a);
    tell("  size", a.size);
    tell("both", SYS_renameat2(AT_FDCWD, "one", AT_FDCWD, "other", NOREPLACE | EXCHANGE));
    tell("over", SYS_rename("one", "other"));
    tell("over a directory", SYS_rename("other", "folder"));
    tell("into itself", SYS_rename("folder", "folder/in"));
    tell("nothing", SYS_rename("none", "new"));
    int dir = (int)SYS_open("folder", O_RDONLY | O_DIRECTORY, 0);
    tell("into it", SYS_renameat2(AT_FDCWD, "other", dir, "in", 0));
    tell("rmdir", SYS_rmdir("folder"));
    tell("unlink", SYS_unlinkat(dir, "in", 0));
    SYS_close(dir);
    tell("rmdir", SYS_rmdir("folder"));
}

static void show(const char *name, const struct timespec *t) {
    say("  %s %d.%d\n", name, t->seconds, t->rest);
}

static void times(void) {
    struct stat s;
    struct timespec set[2] = {{1000000000, 123456789}, {-1, 999999999}};
    long micro[4] = {1234567890, 5, 1234567891, 999999};
    tell("utimensat", SYS_utimensat(AT_FDCWD, "file", set, 0));
    SYS_stat("file", &s), show("a", &s.accessed), show("m", &s.modified);
    set[0].rest = UTIME_OMIT, set[1].rest = UTIME_NOW;
    tell("omit and now", SYS_utimensat(AT_FDCWD, "file", set, 0));
    SYS_stat("file", &s), show("a", &s.accessed);
    tell("  now", s.modified.seconds > 1600000000);
    tell("of the link",
         SYS_utimensat(AT_FDCWD, "soft", (struct timespec[2]){{5, 6}, {7, 8}}, 0x100));
    SYS_lstat("soft", &s), show("m", &s.modified);
    set[0].rest = 1000000000;
    tell("too many ns", SYS_utimensat(AT_FDCWD, "file", set, 0));
    tell("nowhere", SYS_utimensat(AT_FDCWD, "file", (void *)-8, 0));
    tell("utimes", SYS_utimes("file", micro));
    SYS_stat("file", &s), show("a", &s.accessed), show("m", &s.modified);
    tell("futimesat", SYS_futimesat(AT_FDCWD, "third", micro));
    micro[1] = 1000000;
    tell("too many us", SYS_utimes("file", micro));
    int fd = (int)SYS_open("file", O_RDWR, 0);
    set[0] = (struct timespec){3, 4}, set[1] = (struct timespec){5, 6};
    tell("of a descriptor", SYS_utimensat(fd, NULL, set, 0));
    SYS_fstat(fd, &s), show("m", &s.modified);
    SYS_close(fd);
}

static void looking(void) {
    struct statx x = {0};
    struct stat s;
    long fs[15] = {0};
    SYS_stat("file", &s);
    tell("statx", SYS_statx(AT_FDCWD, "file", 0, 0x7ff, &x));
    tell("  same", x.inode == s.inode && x.size == (unsigned long)s.size && x.links == s.links);
    tell("  mode", x.mode);
    tell("  time", x.times[3].seconds == s.modified.seconds);
    tell("  of the link", SYS_statx(AT_FDCWD, "soft", NOFOLLOW, 0x7ff, &x));
    tell("  mode", x.mode);
    tell("  by number", SYS_statx(0, "", EMPTY_PATH, 1, &x));
    tell("  how", SYS_statx(AT_FDCWD, "file", 0x8000, 1, &x));
    tell("  nowhere", SYS_statx(AT_FDCWD, "file", 0, 1, (void *)-100));
    tell("newfstatat", SYS_newfstatat(AT_FDCWD, "soft", &s, NOFOLLOW));
    tell("  size", s.size);
    tell("  empty", SYS_newfstatat(0, "", &s, EMPTY_PATH));
    tell("statfs", SYS_statfs(".", fs));
    tell("  block", fs[1] >= 512 && fs[2] >= fs[3]);
    tell("  of /proc", SYS_statfs("/proc", fs));
    tell("  type", fs[0]);
    tell("  nothing", SYS_statfs("none", fs));
    tell("access", SYS_access("file", 4));
    tell("  to run", SYS_access("file", 1));
    tell("  how", SYS_access("file", 9));
    tell("faccessat2", SYS_faccessat2(AT_FDCWD, "soft", 0, NOFOLLOW));
    tell("truncate", SYS_truncate("file", 2));
    tell("  of a directory", SYS_truncate(".", 2));
    tell("  below", SYS_truncate("file", -1));
    SYS_stat("file", &s);
    tell("  size", s.size);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    SYS_umask(022);
    links();
    renaming();
    times();
    looking();
    return 0;
}
