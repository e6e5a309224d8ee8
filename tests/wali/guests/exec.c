/* execve: of this very program, through scripts, of Linux's own, and of what is none. */
#include "wali.h"

static char *self; /* its path */

/* --- what is found after it ------------------------------------------------------------------- */

static void show_environment(char **argv, int argc) {
    char text[1024];
#if defined(__wasm__)
    (void)argv, (void)argc;
    if (wali_environment_file(text, sizeof text) == 0)
        return;
    int fd = (int)SYS_open(text, O_RDONLY | O_CLOEXEC, 0);
    long size = SYS_read(fd, text, sizeof text);
    SYS_write(1, text, size > 0 ? (size_t)size : 0);
    SYS_close(fd);
#else
    for (char **one = argv + argc + 1; *one; one++)
        say("%s\n", *one);
    (void)text;
#endif
}

static int shown(int argc, char **argv) {
    struct action old;
    char text[16] = {0};
    for (int i = 1; i < argc; i++)
        say("  argument %s\n", argv[i]);
    show_environment(argv, argc);
    for (int fd = 3; fd < 12; fd++)
        if (SYS_fcntl(fd, 1, 0) >= 0)
            say("  open %d\n", (long)fd);
    if (SYS_pread64(7, text, sizeof text, 0) > 0)
        say("  in it %s\n", text);
    tell("  masked", (long)mask(SIG_BLOCK, 0));
    SYS_rt_sigaction(SIGUSR1, NULL, &old, 8);
    tell("  handled is default", old.call == SIG_DFL && old.flags == 0 && old.mask == 0);
    SYS_rt_sigaction(SIGUSR2, NULL, &old, 8);
    tell("  ignored is ignored", old.call == SIG_IGN);
    SYS_rt_sigaction(SIGPIPE, NULL, &old, 8);
    tell("  so is PIPE", old.call == SIG_IGN);
    static long fresh = 1;
    tell("  data is new", fresh++);
    return argc > 2 ? 5 : 0;
}

/* --- who does it ------------------------------------------------------------------------------ */

#if defined(__wasm__)
typedef unsigned pointer;
#else
typedef unsigned long pointer;
#endif

static pointer vector[16];

static pointer *words(const char *a, const char *b, const char *c) {
    const char *all[] = {a, b, c};
    int n = 0;
    for (int i = 0; i < 3; i++)
        if (all[i])
            vector[n++] = (pointer)(size_t)all[i];
    vector[n] = 0;
    return vector;
}

static pointer environment[3];

static int in_child(const char *path, pointer *arguments) {
    int status = -1, pid = (int)SYS_fork();
    if (pid == 0) {
        tell("execve", SYS_execve(path, arguments, environment));
        leave(44);
    }
    SYS_wait4(pid, &status, 0, NULL);
    return status;
}

static void write_file(const char *name, const char *text, mode m) {
    int fd = (int)SYS_open(name, O_WRONLY | O_CREAT | O_TRUNC, m);
    SYS_write(fd, text, length(text));
    SYS_close(fd);
}

static void script(const char *name, const char *interpreter, const char *word) {
    char line[512];
    int n = 0;
    for (const char *parts[] = {"#!", interpreter, " ", word, "\necho hello from $0\n", NULL},
                    **p = parts;
         *p; p++)
        for (const char *c = *p; *c; c++)
            line[n++] = *c;
    line[n] = 0;
    write_file(name, line, 0755);
}

static void note(int signal) {
    (void)signal;
}

static void programs(void) {
    environment[0] = (pointer)(size_t)"FIRST=1",
    environment[1] = (pointer)(size_t)"SECOND=two words";
    handle(SIGUSR1, note, SA_RESTART, bit(SIGHUP));
    handle(SIGUSR2, SIG_IGN, 0, 0);
    handle(SIGPIPE, SIG_IGN, 0, 0);
    int fd = (int)SYS_open("file", O_RDWR | O_CREAT, 0600);
    SYS_write(fd, "kept", 4);
    SYS_dup3(fd, 7, 0);
    SYS_dup3(fd, 9, O_CLOEXEC);
    SYS_fcntl(fd, 2, 1);
    mask(SIG_SETMASK, bit(SIGTERM));
    tell("itself", in_child(self, words("any name", "show", "two words")) >> 8);
    mask(SIG_SETMASK, 0);
    environment[0] = 0;
    tell("without an environment", in_child(self, words("a", "show", NULL)) >> 8);
    script("direct", self, "show");
    tell("a script", in_child("direct", words("ignored", "last", NULL)) >> 8);
    script("twice", "./direct", "more");
    tell("a script's script", in_child("twice", words("ignored", NULL, NULL)) >> 8);
    script("third", "./twice", "");
    script("fourth", "./third", "");
    script("fifth", "./fourth", "");
    script("sixth", "./fifth", "");
    tell("five scripts", in_child("fifth", words("ignored", NULL, NULL)) >> 8);
    tell("six", SYS_execve("sixth", words("ignored", NULL, NULL), environment));
}

static void others(void) {
    tell("native", in_child("/bin/echo", words("echo", "one", "two")));
    script("native script", "/bin/sh", "");
    tell("a native script", in_child("./native script", words("x", NULL, NULL)));
    tell("descriptors there", in_child("/bin/cat", words("cat", "/proc/self/fd/7", NULL)));
    tell("and not there", in_child("/bin/sh", words("sh", "-c", "test -e /proc/self/fd/9")) != 0);
    tell("status", in_child("/bin/sh", words("sh", "-c", "exit 7")) >> 8);
    tell("signal", in_child("/bin/sh", words("sh", "-c", "kill -9 $$")) & 0x7f);
}

/* A script's first line may end with a NUL; a string has its limit, and so have all together. */
static void ends(void) {
    static char large[(1 << 17) + 1];
    static pointer many[2000];
    int fd = (int)SYS_open("nul", O_WRONLY | O_CREAT | O_TRUNC, 0755);
    SYS_write(fd, "#!/bin/echo\0 more\n", 18);
    SYS_close(fd);
    tell("a NUL", in_child("./nul", words("x", "word", NULL)));
    memset(large, 'x', sizeof large - 1);
    tell("a large word", SYS_execve(self, words("x", large, NULL), environment));
    for (int i = 0; i < 1999; i++)
        many[i] = (pointer)(size_t)(large + 1);
    tell("many", SYS_execve(self, many, environment));
    tell("many to a native one", SYS_execve("/bin/true", many, environment));
}

static void errors(void) {
    write_file("text", "nothing to run\n", 0755);
    write_file("no rights", "#!/bin/sh\n", 0644);
    script("circle", "./circle", "");
    script("nowhere", "/no/such/program", "");
    tell("text", in_child("text", words("x", NULL, NULL)) >> 8);
    tell("empty name", SYS_execve("", words("x", NULL, NULL), environment));
    tell("nothing there", SYS_execve("/no/such", words("x", NULL, NULL), environment));
    tell("a directory", SYS_execve("/", words("x", NULL, NULL), environment));
    tell("not executable", SYS_execve("no rights", words("x", NULL, NULL), environment));
    tell("no interpreter", SYS_execve("nowhere", words("x", NULL, NULL), environment));
    tell("a circle", SYS_execve("circle", words("x", NULL, NULL), environment));
    tell("beneath a file", SYS_execve("text/x", words("x", NULL, NULL), environment));
    tell("nowhere", SYS_execve(NULL, words("x", NULL, NULL), environment));
    tell("descriptors are the same", SYS_write(7, "x", 1));
    SYS_write(1, "so is output\n", 13);
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1)
        return shown(argc, argv);
    programs();
    others();
    ends();
    errors();
    tell("in this process, at last", 0);
    return (int)SYS_execve(self, words("x", "show", NULL), environment);
}
