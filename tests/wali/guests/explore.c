/* Looks around: every two arguments say what to do and on what; a line for each says what came of
 * it, an error as its negative number. */
#define STACKS 1
#include "thread.h"

static char content[1 << 16];

static void print(long result) {
    if (result < 0) {
        say("%d\n", result);
        return;
    }
    SYS_write(1, content, (size_t)result);
    SYS_write(1, "\n", 1);
}

/* The names in a folder, each with a space behind it. */
static long names(const char *path) {
    char buffer[4096];
    long size, used = 0, fd = SYS_open(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    while ((size = SYS_getdents64((int)fd, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < size;) {
            struct dirent *entry = (struct dirent *)(buffer + at);
            at += entry->size;
            if (equal(entry->name, ".") || equal(entry->name, ".."))
                continue;
            for (const char *c = entry->name; *c; c++)
                content[used++] = *c;
            content[used++] = ' ';
        }
    }
    SYS_close((int)fd);
    return size < 0 ? size : used;
}

static long text_of(const char *path) {
    long fd = SYS_open(path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    long size = SYS_read((int)fd, content, sizeof content);
    SYS_close((int)fd);
    while (size > 0 && content[size - 1] == '\n')
        size--;
    return size;
}

static long written(const char *path) {
    long fd = SYS_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    long size = SYS_write((int)fd, "written", 7);
    SYS_close((int)fd);
    return size < 0 ? size : text_of(path);
}

static long environment(void) {
    char path[256];
#if IS_WALI
    if (!wali_environment_file(path, sizeof path))
        return 0;
    return text_of(path);
#else
    (void)path;
    return 0;
#endif
}

static long where(void) {
    long size = SYS_getcwd(content, sizeof content);
    return size < 0 ? size : size - 1;
}

static long unix_socket(const char *path) {
    struct {
        unsigned short family;
        char path[108];
    } address = {AF_UNIX, {0}};
    for (size_t i = 0; path[i] && i < 107; i++)
        address.path[i] = path[i];
    long fd = SYS_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return fd;
    long result = SYS_connect((int)fd, &address, sizeof address);
    if (result == 0)
        result = SYS_read((int)fd, content, sizeof content);
    SYS_close((int)fd);
    return result;
}

/* What another process of the program's finds. */
static long in_child(const char *path) {
    int ends[2], status;
    SYS_pipe(ends);
    long child = SYS_fork();
    if (child < 0)
        return child;
    if (child == 0) {
        long size = names(path);
        SYS_write(ends[1], content, size < 0 ? 0 : (size_t)size);
        leave(size < 0 ? (int)-size : 0);
    }
    SYS_close(ends[1]);
    long size = SYS_read(ends[0], content, sizeof content);
    SYS_wait4((int)child, &status, 0, NULL);
    return status ? -(status >> 8) : size;
}

/* What another thread finds. */
static const char *listed;
static volatile long found;

static void look(long unused) {
    (void)unused;
    found = names(listed);
}

static long in_thread(const char *path) {
    listed = path;
    long thread = begin(0, look, 0);
    if (thread < 0)
        return thread;
    join(0);
    return found;
}

/* Another program, be it this one again: it looks at its environment and around. */
#if IS_WALI
typedef unsigned pointer;
#else
typedef unsigned long pointer;
#endif

static long execute(const char *path, int who) {
    const char *look[] = {path, "environment", "", "list", "/", "cwd", ""};
    const char *ask[] = {path, "who", ""}, **words = who ? ask : look;
    pointer arguments[8] = {0}, environ[2] = {(pointer)(size_t)"B=2", 0};
    for (int i = 0; i < (who ? 3 : 7); i++)
        arguments[i] = (pointer)(size_t)words[i];
    return SYS_execve(path, arguments, environ);
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *what = argv[i], *on = argv[i + 1];
        if (equal(what, "list"))
            print(names(on));
        else if (equal(what, "read"))
            print(text_of(on));
        else if (equal(what, "write"))
            print(written(on));
        else if (equal(what, "chmod"))
            say("%d\n", SYS_chmod(on, 0640));
        else if (equal(what, "stat owner")) {
            struct stat about = {0};
            long result = SYS_stat(on, &about);
            say("%d %d\n", result, (long)about.user);
        } else if (equal(what, "cwd"))
            print(where());
        else if (equal(what, "chdir"))
            say("%d\n", SYS_chdir(on));
        else if (equal(what, "environment"))
            print(environment());
        else if (equal(what, "connect"))
            print(unix_socket(on));
        else if (equal(what, "list in a child"))
            print(in_child(on));
        else if (equal(what, "list in a thread"))
            print(in_thread(on));
        else if (equal(what, "execute"))
            say("%d\n", execute(on, 0));
        else if (equal(what, "execute to ask who"))
            say("%d\n", execute(on, 1));
        else if (equal(what, "who"))
            say("%d %d %d\n", SYS_getuid(), SYS_getgid(), SYS_geteuid());
        else
            say("what is %s?\n", what);
    }
    return 0;
}
