/* Work on files, in a working directory that is empty. */
#include "wali.h"

static struct stat about;

static void show(const char *what, long result) {
    tell(what, result);
    if (result == 0) {
        tell("  mode", about.mode);
        tell("  size", about.size);
        tell("  links", (long)about.links);
        tell("  modified", about.modified.seconds);
        tell("  and a rest", about.modified.rest);
    }
}

static long list(const char *path) {
    char entries[2048];
    long fd = tell(path, SYS_open(path, O_RDONLY | O_DIRECTORY, 0)), got, count = 0, names = 0;
    while ((got = SYS_getdents64((int)fd, entries, sizeof entries)) > 0)
        for (long at = 0; at < got;) {
            struct dirent *entry = (struct dirent *)(entries + at);
            for (const char *c = entry->name; *c; c++)
                names += *c * (c - entry->name + 1);
            at += entry->size;
            count++;
        }
    tell("  end of the list", got);
    tell("  no room for an entry", SYS_getdents64((int)fd, entries, 1));
    SYS_close((int)fd);
    tell("  names", names);
    return tell("  entries", count);
}

static void reading_and_writing(void) {
    char text[64] = {0};
    long fd = tell("create", SYS_open("a", O_RDWR | O_CREAT | O_EXCL, 0640));
    tell("create again", SYS_open("a", O_RDWR | O_CREAT | O_EXCL, 0640));
    tell("write", SYS_write((int)fd, "hello, file", 11));
    tell("seek", SYS_lseek((int)fd, 7, 0));
    tell("read", SYS_read((int)fd, text, sizeof text));
    say("%s\n", text);
    tell("read at the end", SYS_read((int)fd, text, sizeof text));
    tell("pwrite", SYS_pwrite64((int)fd, "there", 5, 20));
    tell("pread a hole", SYS_pread64((int)fd, text, 9, 11));
    tell("hole", text[0] + text[8]);
    tell("pread before the start", SYS_pread64((int)fd, text, 1, -1));
    tell("seek from the end", SYS_lseek((int)fd, -5, 2));
    tell("seek before the start", SYS_lseek((int)fd, -5, 0));
    tell("seek how", SYS_lseek((int)fd, 0, 77));
    struct iovec parts[3] = {{text, 2}, {NULL, 0}, {text + 10, 3}};
    tell("readv", SYS_readv((int)fd, parts, 3));
    parts[0] = (struct iovec){"ab", 2}, parts[2] = (struct iovec){"cde", 3};
    tell("writev", SYS_writev((int)fd, parts, 3));
    tell("writev of nothing", SYS_writev((int)fd, parts, 0));
    tell("writev of too many", SYS_writev((int)fd, parts, 1025));
    tell("pwritev", SYS_pwritev((int)fd, parts, 3, 30, 0));
    parts[0] = (struct iovec){text, 4}, parts[2] = (struct iovec){text + 4, 60};
    tell("preadv", SYS_preadv((int)fd, parts, 3, 28, 0));
    tell("  is", text[2] == 'a' && text[3] == 'b' && text[4] == 'c' && text[6] == 'e');
    tell("preadv before the start", SYS_preadv((int)fd, parts, 3, -1, -1));
    tell("FIOCLEX", SYS_ioctl((int)fd, 0x5451, NULL) + 10 * SYS_fcntl((int)fd, 1, 0));
    tell("FIONCLEX", SYS_ioctl((int)fd, 0x5450, NULL) + 10 * SYS_fcntl((int)fd, 1, 0));
    tell("no terminal", SYS_ioctl((int)fd, 0x5401, text));
    tell("no request", SYS_ioctl((int)fd, 0x12345, text));
    tell("ftruncate", SYS_ftruncate((int)fd, 8));
    tell("fsync", SYS_fsync((int)fd));
    tell("fdatasync", SYS_fdatasync((int)fd));
    about.modified.rest = 0;
    tell("fstat", SYS_fstat((int)fd, &about));
    tell("  size", about.size);
    tell("close", SYS_close((int)fd));
    tell("close again", SYS_close((int)fd));
    fd = SYS_open("a", O_WRONLY | O_APPEND, 0);
    tell("append", SYS_write((int)fd, "!", 1));
    tell("read what is for writing", SYS_read((int)fd, text, 1));
    tell("status flags", SYS_fcntl((int)fd, 3, 0) & (O_APPEND | 3));
    tell("no such command", SYS_fcntl((int)fd, 999, 0));
    SYS_close((int)fd);
    tell("truncate", SYS_truncate("a", 4));
    fd = SYS_open("a", O_RDONLY | O_CLOEXEC, 0);
    tell("close-on-exec", SYS_fcntl((int)fd, 1, 0));
    tell("duplicate", SYS_dup((int)fd));
    tell("duplicate to", SYS_dup2((int)fd, 17));
    tell("duplicate to itself", SYS_dup3((int)fd, (int)fd, 0));
    tell("without close-on-exec", SYS_fcntl(17, 1, 0));
    tell("duplicate from", SYS_fcntl((int)fd, 0, 17));
    tell("duplicate beyond", SYS_dup2((int)fd, 1 << 30));
    tell("the duplicate's place", SYS_lseek(17, 2, 0) + SYS_lseek((int)fd, 0, 1));
    for (int i = 3; i < 20; i++)
        SYS_close(i);
}

static void names(void) {
    char text[64] = {0};
    struct timespec times[2] = {{1000000000, 0}, {1234567890, 123456789}};
    struct timespec micro[2] = {{1000000000, 0}, {1111111111, 999999}};
    tell("umask", SYS_umask(027));
    tell("umask before", SYS_umask(022));
    tell("mkdir", SYS_mkdir("d", 0777));
    tell("mkdir again", SYS_mkdir("d", 0777));
    tell("mkdir nowhere", SYS_mkdir("x/y", 0777));
    tell("utimensat", SYS_utimensat(AT_FDCWD, "a", times, 0));
    show("stat", SYS_stat("a", &about));
    tell("utimes", SYS_utimes("a", micro));
    show("stat", SYS_lstat("a", &about));
    micro[1].rest = 1000000;
    tell("utimes too large", SYS_utimes("a", micro));
    tell("rename", SYS_rename("a", "d/b"));
    tell("rename what is gone", SYS_rename("a", "d/b"));
    tell("rename over a folder", SYS_rename("d/b", "d"));
    tell("link", SYS_link("d/b", "d/c"));
    tell("rename, not over", SYS_renameat2(AT_FDCWD, "d/b", AT_FDCWD, "d/c", 1));
    tell("symlink", SYS_symlink("d/b", "l"));
    show("stat through it", SYS_stat("l", &about));
    tell("lstat", SYS_lstat("l", &about));
    tell("  kind", about.mode >> 12);
    tell("readlink", SYS_readlink("l", text, sizeof text));
    say("%s\n", text);
    tell("readlink of a file", SYS_readlink("d/b", text, sizeof text));
    tell("open a link", SYS_open("l", O_RDONLY | O_NOFOLLOW, 0));
    tell("a loop", SYS_symlink("loop", "loop") + SYS_open("loop", O_RDONLY, 0));
    tell("chmod", SYS_chmod("d/b", 0600));
    tell("fchmod of nothing", SYS_fchmod(77, 0600));
    tell("access", SYS_access("d/b", 4));
    tell("access how", SYS_access("d/b", 99));
    tell("faccessat2", SYS_faccessat2(AT_FDCWD, "none", 0, 0));
    show("stat", SYS_stat("d/b", &about));
    tell("not a folder", SYS_open("d/b/c", O_RDONLY, 0));
    tell("a folder for writing", SYS_open("d", O_WRONLY, 0));
    tell("empty name", SYS_open("", O_RDONLY, 0));
    list("d");
    long dir = SYS_open("d", O_PATH | O_DIRECTORY, 0);
    long fd = tell("openat", SYS_openat((int)dir, "e", O_CREAT | O_WRONLY, 0600));
    SYS_close((int)fd);
    tell("newfstatat", SYS_newfstatat((int)dir, "e", &about, AT_SYMLINK_NOFOLLOW));
    tell("mkdirat", SYS_mkdirat((int)dir, "f", 0700));
    tell("symlinkat", SYS_symlinkat("e", (int)dir, "s"));
    tell("readlinkat", SYS_readlinkat((int)dir, "s", text, 1));
    tell("linkat", SYS_linkat((int)dir, "e", (int)dir, "g", 0));
    tell("unlinkat of a folder", SYS_unlinkat((int)dir, "f", 0));
    tell("unlinkat", SYS_unlinkat((int)dir, "f", AT_REMOVEDIR));
    tell("no such descriptor", SYS_openat(99, "e", O_RDONLY, 0));
    tell("not a folder", SYS_openat(1, "e", O_RDONLY, 0));
    SYS_close((int)dir);
    dir = SYS_openat(99, "/dev/null", O_RDONLY, 0);
    tell("an absolute path needs none", dir >= 0);
    tell("nor for stat", SYS_newfstatat(99, "/dev/null", &about, 0));
    tell("nor for access", SYS_faccessat2(99, "/dev/null", 0, 0));
    SYS_close((int)dir);
    list("d");
}

static void directories(void) {
    char here[512], there[512];
    long length = SYS_getcwd(here, sizeof here);
    tell("chdir", SYS_chdir("d"));
    tell("getcwd grows by", SYS_getcwd(there, sizeof there) - length);
    tell("getcwd without room", SYS_getcwd(there, 2));
    tell("stat from here", SYS_stat("b", &about));
    long fd = SYS_open("..", O_RDONLY, 0);
    tell("fchdir", SYS_fchdir((int)fd));
    tell("back", SYS_getcwd(there, sizeof there) - length);
    tell("the same", equal(here, there));
    tell("fchdir to a file", SYS_fchdir(0));
    tell("chdir nowhere", SYS_chdir("nowhere"));
    SYS_close((int)fd);
}

static void removing(void) {
    static const char *const files[] = {"d/b", "d/c", "d/e", "d/g", "d/s", "l", "loop"};
    tell("rmdir of a full one", SYS_rmdir("d"));
    tell("rmdir of a file", SYS_rmdir("d/b"));
    tell("unlink a folder", SYS_unlink("d"));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        tell(files[i], SYS_unlink(files[i]));
    tell("rmdir", SYS_rmdir("d"));
    list(".");
}

static void many(void) {
    char name[8] = "n000";
    long sum = 0;
    SYS_mkdir("many", 0700);
    SYS_chdir("many");
    for (int i = 0; i < 300; i++) {
        name[1] = (char)('0' + i / 100), name[2] = (char)('0' + i / 10 % 10);
        name[3] = (char)('0' + i % 10);
        long fd = SYS_open(name, O_CREAT | O_WRONLY, 0600);
        sum += fd;
        SYS_close((int)fd);
    }
    tell("numbers are used again", sum);
    list(".");
    long fd = SYS_open("../many", O_RDONLY, 0), left = 0;
    for (int i = 0; i < 300; i++) {
        name[1] = (char)('0' + i / 100), name[2] = (char)('0' + i / 10 % 10);
        name[3] = (char)('0' + i % 10);
        left += SYS_unlinkat((int)fd, name, 0);
    }
    tell("all removed", left);
    SYS_chdir("..");
    tell("rmdir", SYS_rmdir("many"));
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    reading_and_writing();
    names();
    directories();
    removing();
    many();
    return 0;
}
