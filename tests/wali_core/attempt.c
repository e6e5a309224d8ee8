/* Does what its arguments say, two by two, and prints what came of it: 0, or an errno. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int opened(const char *path, int flags) {
    int fd = open(path, flags, 0600);
    return fd < 0 ? fd : close(fd);
}

static int read_byte(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    int result = fd < 0 ? fd : read(fd, &byte, 1) < 0 ? -1 : 0;
    if (fd >= 0)
        close(fd);
    return result;
}

static int write_byte(const char *path) {
    int fd = open(path, O_RDWR);
    int result = fd < 0 ? fd : write(fd, "x", 1) < 0 ? -1 : 0;
    if (fd >= 0)
        close(fd);
    return result;
}

static int list(const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return -1;
    while (readdir(directory))
        ;
    return closedir(directory);
}

static int rename_to(char *words) {
    char *to = strchr(words, ' ');
    *to++ = 0;
    return rename(words, to);
}

static int attempt(const char *what, char *on) {
    struct stat about;
    if (!strcmp(what, "read"))
        return read_byte(on);
    if (!strcmp(what, "write"))
        return write_byte(on);
    if (!strcmp(what, "create"))
        return opened(on, O_WRONLY | O_CREAT);
    if (!strcmp(what, "mkdir"))
        return mkdir(on, 0700);
    if (!strcmp(what, "unlink"))
        return unlink(on);
    if (!strcmp(what, "rmdir"))
        return rmdir(on);
    if (!strcmp(what, "stat"))
        return stat(on, &about);
    if (!strcmp(what, "list"))
        return list(on);
    if (!strcmp(what, "rename"))
        return rename_to(on);
    return errno = EINVAL, -1;
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2)
        printf("%d\n", attempt(argv[i], argv[i + 1]) ? errno : 0);
    return 0;
}
