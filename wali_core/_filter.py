"""The calls that a guest's process makes of the kernel, each with its reason: for seccomp.

An entry is one call of the kernel: its name, its numbers on x86-64 and on aarch64 (``None``: not
there), for which of the guest's calls it is made, and a reason where that is not said by those.
Sisters may share a line.
``*`` is for the runtime: Python, wasmtime and the core need it, whatever the guest may do.

What is not here, or not for a call that the policy grants, the kernel refuses: also where the core
has been got round.  ``tests/architecture/test_filter.py`` holds the table to what the core's C
does, and to what Linux' calls are called.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any, Final

    from capabilities.lockdown.seccomp import Filter, Rule, Tests

RUNTIME: Final = "*"

# fmt: off
KERNEL_CALLS: Final = (
    # --- the runtime -----------------------------------------------------------------------------
    ("read",              0,   63, "*", "the guest's reads; what wakes the core and the monitor"),
    ("write",             1,   64, "*", "the guest's writes; what wakes the core; messages"),
    ("readv",            19,   65, "*", "the guest's reads"),
    ("writev",           20,   66, "*", "the guest's writes"),
    ("preadv2",         327,  286, "*", "reads of what can wait: tries that do not"),
    ("pwritev2",        328,  287, "*", "writes to what can wait, and at the end of a file"),
    ("close",             3,   57, "*", "descriptors"),
    ("fstat",             5,   80, "*", "what a descriptor is: whether it can wait"),
    ("lseek",             8,   62, "*", "the guest's; Python's streams when it ends"),
    ("fcntl",            72,   25, "*", "descriptors and their flags"),
    ("ioctl",            16,   29, "*", "whether something is a terminal"),
    ("ppoll",           271,   73, "*", "every wait of the guest's"),
    ("poll",              7, None, "*", "the monitor's waits"),
    ("eventfd2",        290,   19, "*", "what wakes a guest that waits"),
    ("dup3",            292,   24, "*", "descriptors of a guest with threads"),
    ("pipe2",           293,   59, "*", "what wakes the monitor"),
    ("memfd_create",    319,  279, "*", "wasmtime: images of memories, for modules from no file"),
    ("ftruncate",        77,   46, "*", "the same; the guest's files"),
    ("mmap",              9,  222, "*", "memory"),
    ("munmap",           11,  215, "*", "memory"),
    ("mremap",           25,  216, "*", "memory"),
    ("mprotect",         10,  226, "*", "memory that grows; the guest's protections"),
    ("madvise",          28,  233, "*", "memory"),
    ("brk",              12,  214, "*", "libc's heap"),
    ("futex",           202,   98, "*", "locks"),
    ("futex_waitv",     449,  449, "*", "the guest's memory.atomic.wait64"),
    ("clone",            56,  220, "*", "the monitor's thread"),
    ("set_robust_list", 273,   99, "*", "libc: a new thread or process"),
    ("rseq",            334,  293, "*", "libc: a new thread"),
    ("sched_yield",      24,  124, "*", "locks"),
    ("sched_getaffinity", 204, 123, "*", "libc and wasmtime: how many processors there are"),
    ("exit",             60,   93, "*", "the end of a thread"),
    ("exit_group",      231,   94, "*", "the end"),
    ("getpid",           39,  172, "*", "who this is, after a fork"),
    ("gettid",          186,  178, "*", "which thread this is"),
    ("tgkill",          234,  131, "tgkill *", "abort"),
    ("kill",             62,  129, "kill *", "the process's own end by a signal, as natively"),
    ("rt_sigaction",     13,  134, "*", "handlers: wasmtime's, Python's, the guest's"),
    ("rt_sigprocmask",   14,  135, "*", "libc: around a new thread or process"),
    ("rt_sigreturn",     15,  139, "*", "the end of a handler"),
    ("sigaltstack",     131,  132, "*", "wasmtime: stacks of its handlers"),
    ("restart_syscall", 219,  128, "*", "waits that were stopped for a while (SIGCONT)"),
    ("prctl",           157,  167, "*", "names of threads"),
    ("clock_gettime",   228,  113, "*", "clocks that are not in the vDSO"),
    ("clock_nanosleep", 230,  115, "*", "Python's sleep"),
    ("getrandom",       318,  278, "*", "Python and the guest"),
    ("prlimit64",       302,  261, "*", "the process's own limits"),
    ("getrusage",        98,  165, "*", "what it has used"),

    # --- descriptors, for the guest --------------------------------------------------------------
    ("dup",              32,   23, "dup dup2 dup3 fcntl", ""),
    ("close_range",     436,  436, "execve", "native programs: the guest's numbers"),
    ("pread64",          17,   67, "pread64 preadv", ""),
    ("pwrite64",         18,   68, "pwrite64 pwritev", ""),
    ("preadv",          295,   69, "preadv pwritev pwritev2", ""),
    ("pwritev",         296,   70, "pwritev", ""),
    ("sendfile",         40,   71, "sendfile", ""),
    ("copy_file_range", 326,  285, "copy_file_range", ""),
    ("fadvise64",       221,  223, "fadvise", ""),
    ("fallocate",       285,   47, "fallocate", ""),
    ("fsync", 74, 82, "fsync", ""), ("fdatasync", 75, 83, "fdatasync", ""),
    ("msync",            26,  227, "msync", ""),
    ("flock",            73,   32, "flock", ""),
    ("timerfd_create",  283,   85, "timerfd_create", ""),
    ("timerfd_settime", 286,   86, "timerfd_settime", ""),
    ("timerfd_gettime", 287,   87, "timerfd_gettime", ""),
    ("signalfd4",       289,   74, "signalfd signalfd4", ""),
    ("getdents64",      217,   61, "getdents64", ""),
    ("fstatfs",         138,   44, "fstatfs open openat openat2", "whether it is procfs"),
    ("epoll_create1",   291,   20, "epoll_create epoll_create1", ""),
    ("epoll_ctl",       233,   21, "epoll_ctl", ""),
    ("epoll_pwait",     281,   22, "epoll_pwait epoll_wait", ""),

    # --- paths -----------------------------------------------------------------------------------
    ("openat",          257,   56, "open openat execve", ""),
    ("openat2",         437,  437, "openat2", ""),
    ("newfstatat",      262,   79, "newfstatat fstat stat lstat execve", ""),
    ("stat",              4, None, "stat", ""),
    ("lstat",             6, None, "lstat", ""),
    ("statx",           332,  291, "statx", ""),
    ("statfs",          137,   43, "statfs", ""),
    ("faccessat",       269,   48, "access faccessat", ""),
    ("faccessat2",      439,  439, "faccessat2", ""),
    ("readlinkat",      267,   78, "readlink readlinkat execve", "the same, on aarch64"),
    ("readlink",         89, None, "execve", "where a Wasm file that is executed lies"),
    ("getcwd",           79,   17, "getcwd execve", "where a Wasm file that is executed lies"),
    ("chroot",          161,   51, "chroot", ""),
    ("chdir",            80,   49, "chdir", ""),
    ("fchdir",           81,   50, "fchdir", ""),
    ("truncate",         76,   45, "truncate", ""),
    ("mkdirat",         258,   34, "mkdir mkdirat", ""),
    ("unlinkat",        263,   35, "unlink rmdir unlinkat", ""),
    ("renameat2",       316,  276, "rename renameat renameat2", ""),
    ("linkat",          265,   37, "link linkat", ""),
    ("symlinkat",       266,   36, "symlink symlinkat", ""),
    ("fchmodat",        268,   53, "chmod fchmodat", ""),
    ("fchmod",           91,   52, "fchmod", ""),
    ("fchownat",        260,   54, "chown fchownat lchown", ""),
    ("fchown",           93,   55, "fchown", ""),
    ("utimensat",       280,   88, "utimensat utimes futimesat", ""),
    ("umask",            95,  166, "umask", ""),

    # --- sockets ---------------------------------------------------------------------------------
    ("socket",           41,  198, "socket", ""),
    ("socketpair",       53,  199, "socketpair", ""),
    ("connect",          42,  203, "connect", ""),
    ("bind",             49,  200, "bind", ""),
    ("listen",           50,  201, "listen", ""),
    ("accept4",         288,  242, "accept accept4", ""),
    ("getsockname",      51,  204, "getsockname", ""),
    ("getpeername",      52,  205, "getpeername accept accept4", ""),
    ("setsockopt",       54,  208, "setsockopt", ""),
    ("getsockopt",       55,  209, "getsockopt", ""),
    ("sendto",           44,  206, "sendto", ""),
    ("recvfrom",         45,  207, "recvfrom", ""),
    ("sendmsg",          46,  211, "sendmsg", ""),
    ("recvmsg",          47,  212, "recvmsg", ""),
    ("shutdown",         48,  210, "shutdown", ""),

    # --- time and the system ---------------------------------------------------------------------
    ("clock_getres",    229,  114, "clock_getres", ""),
    ("gettimeofday",     96,  169, "gettimeofday", ""),
    ("sysinfo",          99,  179, "sysinfo", ""),
    ("uname",            63,  160, "uname", ""),
    ("setitimer", 38, 103, "setitimer", ""), ("getitimer", 36, 102, "getitimer", ""),

    # --- the process -----------------------------------------------------------------------------
    ("getppid",         110,  173, "getppid", ""),
    ("getuid", 102, 174, "getuid", ""), ("getgid", 104, 176, "getgid", ""),
    ("geteuid", 107, 175, "geteuid execve", ""), ("getegid", 108, 177, "getegid execve", ""),
    ("getpgid", 121, 155, "getpgid", ""), ("getsid", 124, 156, "getsid", ""),
    ("setpgid", 109, 154, "setpgid", ""), ("setsid", 112, 157, "setsid", ""),
    ("rt_sigpending",   127,  136, "rt_sigpending execve", ""),
    ("rt_sigsuspend",   130,  133, "rt_sigsuspend", ""),
    ("rt_sigtimedwait", 128,  137, "rt_sigtimedwait", ""),
    ("tkill",           200,  130, "tkill", ""),
    ("sched_setscheduler", 144, 119, "sched_setscheduler", ""),
    ("sched_getparam", 143, 121, "sched_getparam", ""),
    ("sched_getscheduler", 145, 120, "sched_getscheduler", ""),
    ("sched_get_priority_max", 146, 125, "sched_get_priority_max", ""),
    ("sched_get_priority_min", 147, 126, "sched_get_priority_min", ""),
    ("getpriority", 140, 141, "getpriority", ""), ("setpriority", 141, 140, "setpriority", ""),
    ("getgroups",       115,  158, "getgroups execve", ""),
    ("setgroups",       116,  159, "setgroups", ""),
    ("setreuid", 113, 145, "setreuid", ""), ("setregid", 114, 143, "setregid", ""),
    ("setresuid", 117, 147, "setresuid", ""), ("setresgid", 119, 149, "setresgid", ""),
    ("setuid", 105, 146, "setuid", ""), ("setgid", 106, 144, "setgid", ""),
    ("wait4",            61,  260, "wait4", ""),
    ("waitid",          247,   95, ("waitid getpgid getsid getpriority setpriority "
                                    "sched_getaffinity sched_setscheduler sched_getscheduler "
                                    "sched_getparam"), ""),
    ("execve",           59,  221, "execve", ""),
    ("dup2",             33, None, "execve", "native programs: the guest's numbers"),
    ("arch_prctl",      158, None, "execve", "native programs: where a thread's own data is"),
    ("set_tid_address", 218,   96, "execve", "native programs: libc's first call"),
    ("getpgrp",         111, None, "execve", "native programs: shells"),
    ("getresuid",       118,  148, "getresuid execve", "native programs: who they run as"),
    ("getresgid",       120,  150, "getresgid execve", "native programs: the same"),
    ("times",           100,  153, "times execve", "native programs: what they have used"),
)
# fmt: on

# Commands of calls that multiplex, beside those of the core's lists (`_table.py`).
_F_COMMANDS: Final = (*range(8), 9, 11, 16, 36, 37, 38, *range(1030, 1035))
"""F_DUPFD to F_SETLKW, F_GETOWN F_GETSIG F_GETOWN_EX, F_OFD_*, F_DUPFD_CLOEXEC, the sizes of pipes,
and seals, which wasmtime's images have."""
_OF_TERMINALS: Final = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX and FIOCLEX."""
_OF_NAMES: Final = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, and PR_SET_VMA, by which libcs name their memory."""

VFORK: Final = 58  # on x86-64 alone

_ALL: Final = 0xFFFFFFFF
_PROT_EXEC: Final = 4
_MSG_FASTOPEN: Final = 0x20000000
_SIGINT, _SIGABRT, _SIGPIPE = 2, 6, 13
_FAULTS: Final = (4, 7, 8, 11)  # sent by somebody: the core's handler then ends the process by them
_CLONE_THREAD: Final = 0x10000
# CLONE_NEW* (new namespaces), CLONE_PTRACE and CLONE_UNTRACED.
_CLONE_NEVER: Final = 0x7E020000 | 0x2000 | 0x800000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE, _STREAM, _ANY_UNIX = 0xF, (1,), (1, 2, 5)
_TCP: Final = (0, 6)


class Sockets:
    """What sockets there may be: of TCP, to ``listen`` with, too, and connected unix sockets."""

    __slots__ = ("listen", "tcp", "unix")

    def __init__(self, *, tcp: bool = False, listen: bool = False, unix: bool = False) -> None:
        self.tcp, self.listen, self.unix = tcp, listen, unix


_made: dict[object, Filter] = {}
_MOST_MADE: Final = 16


def allowed(granted: Collection[str], sockets: Sockets | None) -> Filter:
    """The filter of ``rules``; that of the same calls is made once.

    A process that forks others makes what they will ask for: there each page that a computation
    looks at is copied first, so that it takes some five times as long.
    """
    from capabilities.lockdown.seccomp import Filter

    kinds = None if sockets is None else (sockets.tcp, sockets.listen, sockets.unix)
    key = frozenset(granted), kinds
    found = _made.get(key)
    if found is None:
        while len(_made) >= _MOST_MADE:
            del _made[next(iter(_made))]
        found = _made[key] = Filter(rules(granted, sockets))
    return found


def rules(granted: Collection[str], sockets: Sockets | None) -> list[Rule]:
    """The rules for a guest that may make some calls, by their names without ``SYS_``.

    Without ``sockets`` it is a shim that makes the calls: it is in capability mode, in which the
    commands of those that multiplex are fewer.
    """
    from capabilities.lockdown.seccomp import Rule

    wanted = {RUNTIME, *granted}
    conditions = dict(_conditions(granted, sockets))
    on_x86_64 = os.uname().machine == "x86_64"
    found = []
    for name, x86_64, aarch64, by, reason in KERNEL_CALLS:
        number, callers = x86_64 if on_x86_64 else aarch64, by.split()
        if number is not None and not wanted.isdisjoint(callers):
            said = ", ".join(sorted(wanted.intersection(callers) - {RUNTIME}))
            found.append(
                Rule(name, number, "; ".join(filter(None, (said, reason))), conditions.get(name))
            )
    if "execve" in granted:
        found += _of_native_programs(granted, {rule.number for rule in found})
    return found


def _conditions(
    granted: Collection[str], sockets: Sockets | None
) -> Iterator[tuple[str, tuple[Tests, ...]]]:
    """What the arguments of some calls must be, where registers show it."""
    # A program that is executed brings code of its own, which must be mapped.
    if "execve" not in granted:
        yield "mmap", (((2, _PROT_EXEC, (0,)),),)
        yield "mprotect", (((2, _PROT_EXEC, (0,)),),)
        yield "prctl", (((0, _ALL, _OF_NAMES),),)
    thread = ((0, _CLONE_THREAD | _CLONE_NEVER, (_CLONE_THREAD,)),)
    process = ((0, _CLONE_THREAD | _CLONE_NEVER, (0,)),)
    yield "clone", (thread, process) if "fork" in granted else (thread,)
    yield "fcntl", (((1, _ALL, _F_COMMANDS),),)
    requests = _OF_TERMINALS if sockets is None else (*_OF_TERMINALS, *_listed("ioctl", granted))
    yield "ioctl", (((1, _ALL, requests),),)
    yield "prlimit64", (((0, _ALL, (0,)),),)  # the process's own
    if "kill" not in granted:
        from capabilities.lockdown.seccomp import OWN_PROCESS

        yield "kill", (((0, _ALL, (OWN_PROCESS,)), (1, _ALL, (_SIGINT, _SIGPIPE, *_FAULTS))),)
    if "tkill" not in granted and "tgkill" not in granted:
        yield "tgkill", (((2, _ALL, (_SIGABRT,)),),)
    if sockets is not None:
        yield from _of_sockets(granted, sockets)


def _of_sockets(
    granted: Collection[str], sockets: Sockets
) -> Iterator[tuple[str, tuple[Tests, ...]]]:
    if "socket" in granted:
        tcp = ((0, _ALL, (_AF_INET, _AF_INET6)), (1, _SOCK_TYPE, _STREAM), (2, _ALL, _TCP))
        unix = ((0, _ALL, (_AF_UNIX,)), (1, _SOCK_TYPE, _ANY_UNIX), (2, _ALL, (0,)))
        yield "socket", (*((tcp,) if sockets.tcp else ()), *((unix,) if sockets.unix else ()))
    if not sockets.listen:  # without a bind it takes any port, which no other rule sees
        yield "listen", ()
    # One end of a pair of datagram sockets can be connected to any other socket that has a path.
    kinds = _ANY_UNIX if sockets.unix else _STREAM
    yield "socketpair", (((0, _ALL, (_AF_UNIX,)), (1, _SOCK_TYPE, kinds), (2, _ALL, (0,))),)
    yield "sendto", (((3, _MSG_FASTOPEN, (0,)),),)
    yield "sendmsg", (((2, _MSG_FASTOPEN, (0,)),),)
    options: dict[int, list[int]] = {}
    for level, name in _listed("setsockopt", granted) or _listed("getsockopt", granted):
        options.setdefault(level, []).append(name)
    by_level = tuple(
        ((1, _ALL, (level,)), (2, _ALL, tuple(names))) for level, names in options.items()
    )
    yield "setsockopt", by_level
    yield "getsockopt", by_level


def _listed(name: str, granted: Collection[str]) -> Any:
    """The core's own list for a call, where that is granted: to read it takes a millisecond."""
    if name not in granted:
        return ()
    from wali_core._table import IOCTLS, SOCKET_OPTIONS

    if name == "ioctl":
        return tuple(number for number, _ in IOCTLS if number not in _OF_TERMINALS)
    return tuple((level, option) for level, option, _ in SOCKET_OPTIONS)


def _of_native_programs(granted: Collection[str], known: set[int]) -> Iterator[Rule]:
    """Granted calls under their own numbers, which the core makes by others."""
    from capabilities.lockdown.seccomp import Rule
    from wali_core._table import CALLS

    for call in CALLS:
        number = call.x86_64 if os.uname().machine == "x86_64" else call.aarch64
        if call.name in granted and number is not None and number not in known:
            yield Rule(call.name, number, f"native programs: {call.name}")
    if "fork" in granted and os.uname().machine == "x86_64":
        yield Rule("vfork", VFORK, "native programs: fork")
