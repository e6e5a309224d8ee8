/* Start-up: arguments, and the environment by way of a file, as a libc reads it. */
#include "wali.h"

static void environment(void) {
    char path[64], small[4] = "???", line[4096];
    struct stat about;
    long there = wali_environment_file(path, sizeof path);
    tell("has an environment", there);
    if (!there)
        return;
    tell("asked with little room", wali_environment_file(small, sizeof small));
    tell("little room", small[0] == 0);
    tell("access", SYS_access(path, 4));
    long fd = tell("open", SYS_open(path, O_RDONLY, 0));
    SYS_fstat((int)fd, &about);
    char *mapped =
        (char *)(size_t)SYS_mmap(NULL, (size_t)about.size, PROT_READ, MAP_PRIVATE, (int)fd, 0);
    long got = SYS_read((int)fd, line, sizeof line - 1);
    line[got] = 0;
    tell("read all of it", got == about.size);
    int same = 1;
    for (long i = 0; i < got; i++)
        same &= mapped[i] == line[i];
    tell("mapped the same", same);
    tell("munmap", SYS_munmap(mapped, (size_t)about.size));
    tell("close", SYS_close((int)fd));
    say("%s", line);
}

int main(int argc, char **argv) {
    tell("init again", wali_init());
    for (int i = 0; i < argc; i++)
        say("argument %d: %s\n", (long)i, argv[i]);
    tell("no such argument", wali_argument_length(argc));
    environment();
    return 0;
}
