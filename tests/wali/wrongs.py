"""A program that makes every call with each combination of right and wrong arguments.

It is made from the core's table: what an argument may be follows from its kind, but for where a
call would end the program, wait, or change what others see: natively nothing holds it, so a call
that can name another process has numbers of its own below, or is not made.  Each line says which
arguments a call had and which error it answered; 0 is for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wali_core._table import CALLS, signature

if TYPE_CHECKING:
    from typing import Any

NOT_MADE = frozenset(
    (
        *("exit", "exit_group", "fork", "execve", "pause", "rt_sigsuspend", "rt_sigreturn", "kill"),
        *("tkill", "brk", "chroot", "mremap", "munmap", "set_tid_address", "set_robust_list"),
        *("setgroups", "setsid", "umask", "sched_yield", "setregid", "setreuid", "setresgid"),
        *("setresuid", "setuid", "setgid", "setpgid", "getpgid", "getsid", "epoll_create"),
        *("signalfd", "signalfd4", "tgkill", "setpriority"),
    )
)
"""They end the program, wait, reach other processes, or there is nothing in them to be wrong."""

# By kind, or by a part of it: names of values in C, see below.
VALUES = {
    "fd": "file socket as_path none",
    "dirfd": "AT_FDCWD dir file none",
    "path": 'NULL far PATH("file") PATH("") PATH("missing") PATH("file/x")',
    "target": 'NULL far PATH("file")',
    "at": "0 AT_SYMLINK_NOFOLLOW -1",
    "int": "0 1 -1 0x7fffffff",
    "uint": "0 8 0x7fffffff",
    "mode": "0600",
    "long": "0 -1 4096",
    "clock": "0 99 -1",
    "message": "0 0x40",
    "zero": "0 -1",
    "exchange": "0 1 3 99",
    "flags": "0 0x800 1 -1",
    "cloexec": "0 -1",
}
POINTER = "NULL far room"

# What would wait for ever, is in one of the closed lists, or needs something else to be right.
OVERRIDES: dict[str, dict[int, str]] = {
    "accept": {0: "file socket listener as_path none"},
    "accept4": {0: "file socket listener as_path none"},
    "bind": {2: "0 2 -1 0x7fffffff"},
    "clock_gettime": {0: "0 1 99 -1"},
    "clock_nanosleep": {0: "0 1 99 -1", 1: "0 1"},
    "connect": {2: "0 2 -1 0x7fffffff"},
    "dup2": {1: "none -1 0x7fffffff"},
    "dup3": {1: "none -1 0x7fffffff", 2: "0 1 -1"},
    "epoll_ctl": {0: "epoll file none", 1: "1 2 3 99"},
    "epoll_pwait": {0: "epoll file none", 3: "0"},
    "epoll_wait": {0: "epoll file none", 3: "0"},
    "eventfd2": {0: "0"},
    "faccessat": {3: "0"},
    "fadvise": {3: "0 99"},
    "fallocate": {1: "0 -1"},
    "fchmodat": {3: "0"},
    "fcntl": {1: "1 3 5 6 7 8 999 -1", 2: "0 far room"},
    "flock": {1: "8 4 -1 0x7fffffff"},
    "futex": {0: "NULL far room room+1", 1: "0 1 3 4 129 99", 2: "1 -1", 3: "NULL far"},
    "getitimer": {0: "0 1 99 -1"},
    "getrlimit": {0: "0 7 99 -1"},
    "getrusage": {0: "0 1 99 -1"},
    "getpriority": {0: "0 99 -1", 1: "0 999999"},
    "getgroups": {0: "0 -1 0x7fffffff"},
    "getsockopt": {1: "1 6 99", 2: "3 7 999", 4: "NULL far four negative"},
    "ioctl": {1: "0x5401 0x541b 0x5421 0x12345678"},
    "lseek": {2: "0 1 99"},
    "madvise": {0: "page page+1 far", 1: "0 PAGE", 2: "0 4 9999"},
    "mmap": {0: "0", 1: "0 PAGE", 2: "0 3", 3: "0 1 2 0x22", 5: "0 1 PAGE"},
    "mprotect": {0: "page page+1 far", 1: "0 PAGE", 2: "3 -1"},
    "msync": {0: "page page+1 far", 1: "0 PAGE", 2: "0 4 5 -1"},
    "openat2": {3: "0 24", 2: "NULL far room"},
    "poll": {1: "0 1 0x7fffffff -1", 2: "0"},
    "ppoll": {1: "0 1 0x7fffffff -1", 2: "far room", 4: "8 0"},
    "prctl": {0: "15 16 9999 -1", 1: "NULL far room"} | dict.fromkeys((2, 3, 4), "0"),
    "prlimit64": {0: "0 -1", 1: "7 99 -1", 2: "NULL far"},
    "pselect6": {0: "0 8 -1", 4: "far room"},
    "pwritev2": {4: "0 0x10 0x12345678"},
    "rt_sigaction": {0: "10 9 0 99", 3: "8 0"},
    "rt_sigpending": {1: "8 0 9"},
    "rt_sigprocmask": {0: "0 1 99 -1", 3: "8 0"},
    "rt_sigtimedwait": {2: "far room"},
    "sched_getaffinity": {0: "0 -1", 1: "0 8 128"},
    "sched_get_priority_max": {0: "0 1 99 -1"},
    "sched_get_priority_min": {0: "0 1 99 -1"},
    "sched_getparam": {0: "0 -1"},
    "sched_getscheduler": {0: "0 -1"},
    "sched_setscheduler": {0: "0 -1", 1: "0 99 -1"},
    "select": {0: "0 8 -1", 4: "far room"},
    "setitimer": {0: "0 99 -1", 1: "NULL far room"},
    "setrlimit": {0: "99 -1"},
    "setsockopt": {1: "1 6 99", 2: "7 999", 4: "0 4 -1"},
    "socket": {0: "1 2 99 -1", 1: "1 2 4 9 99 -1", 2: "0 99 -1"},
    "socketpair": {0: "1 2 99 -1", 1: "1 2 99 -1", 2: "0 99 -1"},
    "timerfd_settime": {0: "timer file none", 1: "0 1 99"},
    "timerfd_gettime": {0: "timer file none"},
    "timerfd_create": {0: "0 1 99"},
    "unlinkat": {2: "0 AT_REMOVEDIR -1"},
    "wait4": {0: "0 -1 999999", 2: "0 1 -1"},
    "waitid": {0: "0 1 99", 1: "0 999999", 3: "0 4 5 -1"},
}

HEAD = """\
#include "wali.h"

enum { none = 99 };
static char *far, *room, *page;
static int file, dir, socket, listener, as_path, epoll, timer;
static unsigned *four, *negative;

struct value {
    const char *name;
    long is;
};
#define V(what) {#what, (long)(what)}
#define PATH(text) ((long)(size_t)text)

/* So that each call finds the same. */
static void prepare(void) {
    for (int fd = 20; fd < 40; fd++)
        SYS_close(fd);
    SYS_fchdir(dir);
    const char *const names[] = {"file", "missing", "0", "1"};
    for (int i = 1; i < 4; i++) {
        SYS_unlink(names[i]);
        SYS_rmdir(names[i]);
    }
    SYS_close(SYS_open("file", O_RDWR | O_CREAT, 0600));
    SYS_ftruncate(file, 16);
    SYS_lseek(file, 0, 0);
    SYS_lseek(dir, 0, 0);
    memset(room, 0, 512);
    *four = 4;
    *negative = -1u;
}

typedef long call(const long *);

static void try_all(const char *name, call *make, struct value *const *choices, int count) {
    long with[6] = {0};
    int at[6] = {0};
    for (long result = 0;;) {
        char line[256];
        size_t used = 0;
        for (int i = 0; i < count; i++) {
            with[i] = choices[i][at[i]].is;
            for (const char *text = choices[i][at[i]].name; *text; text++)
                line[used++] = *text;
            line[used++] = ' ';
        }
        line[used] = 0;
        if (result >= 0)
            prepare();
        result = make(with);
        say("%s %s%d\\n", name, line, result < 0 && result > -4096 ? -result : 0);
        int i = 0;
        while (i < count && !choices[i][++at[i]].name)
            at[i++] = 0;
        if (i == count)
            return;
    }
}

"""

MAIN = """\
int main(int argc, char **argv) {
    (void)argc, (void)argv;
    far = (char *)(size_t)(IS_WALI ? 0x78000000l : 1l << 40); /* an address that one can have */
    page = (char *)(size_t)SYS_mmap(NULL, 4 * PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    room = page + PAGE;
    four = (unsigned *)(void *)(page + 2 * PAGE);
    negative = four + 1;
    file = (int)SYS_open("file", O_RDWR | O_CREAT, 0600);
    dir = (int)SYS_open(".", O_RDONLY, 0);
    as_path = (int)SYS_open("file", O_PATH, 0);
    socket = (int)SYS_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    listener = (int)SYS_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const unsigned short family = AF_UNIX;
    SYS_bind(listener, &family, 2);
    SYS_listen(listener, 1);
    epoll = (int)SYS_epoll_create1(0);
    timer = (int)SYS_timerfd_create(0, O_NONBLOCK);
    for (int fd = timer + 1; fd < 20; fd++)
        SYS_dup2(0, fd);
"""


def choices(call: Any) -> list[list[str]]:
    """What each argument of a call may be."""
    own = OVERRIDES.get(call.name, {})
    found = []
    for i, kind in enumerate(call.arguments.split()):
        assert i in own or i or kind != "int", f"{call.name}: a number of another process?"
        plain = kind.rstrip("!?").partition(":")[0]
        found.append(own.get(i, VALUES.get(plain, POINTER)).split())
    return found


def function(call: Any) -> str:
    """A function in C that makes a call."""
    kinds, types = call.arguments.split(), signature(call.arguments)
    parameters = ", ".join("int" if kind == "i" else "long" for kind in types) or "void"
    given = ", ".join(f"({'int' if kind == 'i' else 'long'})a[{i}]" for i, kind in enumerate(types))
    native = ", ".join(f"a[{i}]" for i in range(len(kinds))) or "0"
    number = call.x86_64
    return (
        "#if IS_WALI\n"
        f'WALI("SYS_{call.name}") long wasm_{call.name}({parameters});\n'
        f"static long do_{call.name}(const long *a) {{\n    (void)a;\n"
        f"    return wasm_{call.name}({given});\n}}\n#else\n"
        f"static long do_{call.name}(const long *a) {{\n    (void)a;\n"
        f"    return KERNEL({number}, {native}, 0, 0, 0, 0, 0, 0);\n}}\n#endif\n\n"
    )


def names() -> set[str]:
    """The calls that are made."""
    return {call.name for call in CALLS if call.arguments} - NOT_MADE


def source() -> str:
    """The program, in C."""
    calls = [call for call in CALLS if call.name in names()]
    body = []
    for call in calls:
        lists = choices(call)
        for i, values in enumerate(lists):
            rows = ", ".join(f"V({value})" for value in values)
            body.append(f"    struct value {call.name}_{i}[] = {{{rows}, {{NULL, 0}}}};\n")
        columns = ", ".join(f"{call.name}_{i}" for i in range(len(lists)))
        body.append(f"    struct value *{call.name}_all[] = {{{columns}}};\n")
        body.append(f'    try_all("{call.name}", do_{call.name}, {call.name}_all, {len(lists)});\n')
    functions = "".join(map(function, calls))
    return HEAD + functions + MAIN + "".join(body) + "    return 0;\n}\n"
