"""The table: one line per call that a module may import, and all that is made from it.

The build generates the C thunks and the list from which the linker links; the trace, the
compatibility page and the groups that a policy names come from here too.  Types and numbers of
WALI's own calls are held to the ``wali-linux`` package by a test.

A line says: name, number on x86-64 and on aarch64 (``None``: not there, made from another call),
the arguments, systemd's name for the group, who serves it, which of the shim's import modules may
have it, and a note.

The arguments, by kind (``i``: i32, ``I``: i64 in Wasm):

=============  =  ==============================================================================
``fd``         i  a number of the guest's descriptor table
``fd!``        i  the same; the call changes what is behind it, so a read-only grant refuses it
``dirfd``      i  a directory for a path; ``AT_FDCWD`` is the guest's own working directory, and
                  nothing in capability mode
``dirfd!``     i  the same, and the call changes the directory
``stat``       i  a struct stat, which the kernel fills
``name``       i  a sockaddr that the kernel fills; its length is what the next argument points to
``path?``      i  a path, or NULL
``path``       i  a NUL-terminated string; in capability mode one component
``target``     i  what a symbolic link shall say; in capability mode not absolute
``mem:N``      i  a buffer whose length is argument N
``mem[N]``     i  a buffer of N bytes
``at``         i  ``AT_*`` flags; in capability mode ``AT_SYMLINK_NOFOLLOW`` is forced
``flags``      i  O_NONBLOCK and O_CLOEXEC of what is made, and what else the kernel takes
``cloexec``    i  the same without O_NONBLOCK
``message``    i  ``MSG_*``, a closed list
``mask:N``     i  the signals that are blocked while it waits, in a set whose size is argument N
``set:N``      i  any other set of signals
``zero``       i  flags that must be 0 in capability mode
``exchange``   i  ``RENAME_*``; in capability mode no whiteouts, which are devices
``clock``      i  in capability mode none of another process's
``mode``       i  permissions; in capability mode no set-uid, set-gid or sticky bits
``int``        i  sign-extended
``uint``       i  zero-extended, sizes too
``ptr``        i  a pointer that a handwritten body understands
``long``       I
=============  =  ==============================================================================
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

from collections import namedtuple

Call = namedtuple(
    "Call", "name x86_64 aarch64 arguments group served shim note ours", defaults=("", "", False)
)
Call.__doc__ = """One call.

``served``: ``"plain"``, the thunk is generated whole; ``"waits"``, the same, and it waits in the
kernel where a signal can end that; ``"makes"``, what it gives is a new descriptor; ``"body"``, its
body is written by hand (``body_NAME`` in C); ``"waits/body"``, that where it cannot wait in the
kernel; ``"bodies"``, for programs it is another (``program_NAME``); ``"moves"``, plain, and after it
paths begin elsewhere; ``"host"``, a rare call of WALI programs, written in Python; ``"= other(...)"``,
made from another call, with ``$N`` for argument N; ``"direct/= other(...)"``, the same, but plain in a
process of its own where the kernel has it, since that is quicker;
``"plain/program"``, plain, but for programs there is more to it (``program_NAME``);
``"planned"``, answers ``-ENOSYS`` until its time comes.
``shim``: ``"own"``, ``"guest"``, both or nothing: the import modules ``wali`` and ``wali_guest`` in
capability mode.
``ours``: not in WALI's specification (or there without arguments): named by us in its manner.
"""

# fmt: off
CALLS: Final = (
    # --- descriptors -----------------------------------------------------------------------------
    Call("read",             0,   63, "fd mem:2 uint",                "@basic-io",    "body"),
    Call("write",            1,   64, "fd mem:2 uint",                "@basic-io",    "body"),
    Call("readv",           19,   65, "fd ptr int",                   "@basic-io",    "body", "guest"),
    Call("writev",          20,   66, "fd ptr int",                   "@basic-io",    "body", "guest"),
    Call("pread64",         17,   67, "fd mem:2 uint long",           "@basic-io",    "plain"),
    Call("pwrite64",        18,   68, "fd mem:2 uint long",           "@basic-io",    "plain"),
    Call("preadv",         295,   69, "fd ptr int long",              "@basic-io",    "body", "guest", ours=True),
    Call("pwritev",        296,   70, "fd ptr int long",              "@basic-io",    "body", "guest", ours=True),
    Call("pwritev2",       328,  287, "fd ptr int long int",          "@basic-io",    "body", "guest", "RWF_APPEND, RWF_NOAPPEND", ours=True),
    Call("lseek",            8,   62, "fd long int",                  "@basic-io",    "plain", "own"),
    Call("close",            3,   57, "fd",                           "@basic-io",    "body", "own"),
    Call("dup",             32,   23, "fd",                           "@basic-io",    "body"),
    Call("dup2",            33, None, "fd fd",                        "@basic-io",    "body"),
    Call("dup3",           292,   24, "fd fd int",                    "@basic-io",    "body", "own"),
    Call("fcntl",           72,   25, "fd int long",                  "@file-system", "body", "own", "a closed list"),
    Call("ioctl",           16,   29, "fd int ptr",                   "@default",     "body", "own", "a closed list: IOCTLS"),
    Call("pipe",            22, None, "ptr",                          "@ipc",         "= pipe2($0, 0)"),
    Call("pipe2",          293,   59, "ptr int",                      "@ipc",         "body"),

    # --- files -----------------------------------------------------------------------------------
    Call("openat2",        437,  437, "dirfd path ptr uint",          "@file-system", "bodies", "own", "how is 24 bytes", ours=True),
    Call("openat",         257,   56, "dirfd path int uint",          "@file-system", "bodies", "own"),
    Call("open",             2, None, "path int uint",                "@file-system", "= openat(AT_FDCWD, $0, $1, $2)"),
    Call("fstat",            5,   80, "fd stat",                      "@file-system", "plain", "own"),
    Call("newfstatat",     262,   79, "dirfd path stat at",           "@file-system", "plain", "own"),
    Call("stat",             4, None, "path stat",                    "@file-system", "direct/= newfstatat(AT_FDCWD, $0, $1, 0)"),
    Call("lstat",            6, None, "path stat",                    "@file-system", "direct/= newfstatat(AT_FDCWD, $0, $1, AT_SYMLINK_NOFOLLOW)"),
    Call("utimensat",      280,   88, "dirfd! path? mem[32] at",      "@file-system", "plain", "own"),
    Call("faccessat",      269,   48, "dirfd path int uint",          "@file-system", "plain", note="the fourth argument is not the kernel's"),
    Call("access",          21, None, "path int",                     "@file-system", "= faccessat(AT_FDCWD, $0, $1, 0)"),
    Call("mkdirat",        258,   34, "dirfd! path mode",             "@file-system", "plain", "own"),
    Call("mkdir",           83, None, "path uint",                    "@file-system", "= mkdirat(AT_FDCWD, $0, $1)"),
    Call("unlinkat",       263,   35, "dirfd! path int",              "@file-system", "plain", "own"),
    Call("unlink",          87, None, "path",                         "@file-system", "= unlinkat(AT_FDCWD, $0, 0)"),
    Call("rmdir",           84, None, "path",                         "@file-system", "= unlinkat(AT_FDCWD, $0, AT_REMOVEDIR)"),
    Call("renameat2",      316,  276, "dirfd! path dirfd! path exchange", "@file-system", "plain", "own"),
    Call("rename",          82, None, "path path",                    "@file-system", "= renameat2(AT_FDCWD, $0, AT_FDCWD, $1, 0)"),
    Call("renameat",       264,   38, "dirfd! path dirfd! path",      "@file-system", "= renameat2($0, $1, $2, $3, 0)", ours=True),
    Call("linkat",         265,   37, "dirfd! path dirfd! path zero", "@file-system", "plain", "own"),
    Call("symlinkat",      266,   36, "target dirfd! path",           "@file-system", "plain", "own"),
    Call("symlink",         88, None, "target path",                  "@file-system", "= symlinkat($0, AT_FDCWD, $1)"),
    Call("readlinkat",     267,   78, "dirfd path mem:3 uint",        "@file-system", "plain/program", "own"),
    Call("readlink",        89, None, "path mem:2 uint",              "@file-system", "= readlinkat(AT_FDCWD, $0, $1, $2)"),
    Call("fchmodat",       268,   53, "dirfd! path uint uint",        "@file-system", "plain", note="the fourth argument is not the kernel's"),
    Call("chmod",           90, None, "path uint",                    "@file-system", "= fchmodat(AT_FDCWD, $0, $1, 0)"),
    Call("fchmod",          91,   52, "fd! uint",                     "@file-system", "plain"),
    Call("fchownat",       260,   54, "dirfd! path uint uint at",     "@chown",       "plain"),
    Call("chown",           92, None, "path uint uint",               "@chown",       "= fchownat(AT_FDCWD, $0, $1, $2, 0)"),
    Call("lchown",          94, None, "path uint uint",               "@chown",       "= fchownat(AT_FDCWD, $0, $1, $2, AT_SYMLINK_NOFOLLOW)", ours=True),
    Call("fchown",          93,   55, "fd! uint uint",                "@chown",       "plain"),
    Call("getdents64",     217,   61, "fd mem:2 uint",                "@file-system", "plain", "own"),
    Call("ftruncate",       77,   46, "fd! long",                     "@file-system", "plain", "own"),
    Call("fallocate",      285,   47, "fd! int long long",            "@file-system", "plain", "own", ours=True),
    Call("sendfile",        40,   71, "fd fd mem[8] uint",            "@basic-io",    "waits", ours=True),
    Call("copy_file_range",326,  285, "fd mem[8] fd mem[8] uint uint","@basic-io",    "plain", ours=True),
    Call("fadvise",        221,  223, "fd long long int",             "@file-system", "plain", "own", "the kernel's fadvise64"),
    Call("fsync",           74,   82, "fd",                           "@sync",        "plain", "own"),
    Call("fdatasync",       75,   83, "fd",                           "@sync",        "plain", "own"),
    Call("getcwd",          79,   17, "mem:1 uint",                   "@file-system", "plain", note="in a process of its own"),
    Call("chdir",           80,   49, "path",                         "@file-system", "moves", note="in a process of its own"),
    Call("fchdir",          81,   50, "fd",                           "@file-system", "moves", note="in a process of its own"),
    Call("utimes",         235, None, "path mem[32]",                 "@file-system", "host", ours=True),
    Call("futimesat",      261, None, "dirfd path mem[32]",           "@file-system", "host", ours=True),

    # --- waiting ---------------------------------------------------------------------------------
    Call("poll",             7, None, "ptr long int",                 "@io-event",    "body"),
    Call("select",          23, None, "int ptr ptr ptr ptr",          "@io-event",    "body"),
    Call("pselect6",       270,   72, "int ptr ptr ptr ptr ptr",      "@io-event",     "body"),
    Call("epoll_create1",  291,   20, "cloexec",                      "@io-event",     "makes"),
    Call("epoll_create",   213, None, "int",                          "@io-event",    "host", ours=True),
    Call("epoll_ctl",      233,   21, "fd int fd ptr",                "@io-event",    "body"),
    Call("epoll_pwait",    281,   22, "fd ptr int int ptr uint",      "@io-event",     "body"),
    Call("epoll_wait",     232, None, "fd ptr int int",               "@io-event",    "body", ours=True),
    Call("eventfd2",       290,   19, "uint flags",                   "@io-event",     "makes"),
    Call("timerfd_create", 283,   85, "int flags",                    "@io-event",     "makes", ours=True),
    Call("timerfd_settime", 286,   86, "fd int mem[32] mem[32]",       "@io-event",     "plain", ours=True),
    Call("timerfd_gettime", 287,   87, "fd mem[32]",                   "@io-event",     "plain", ours=True),
    Call("signalfd4",      289,   74, "ptr ptr uint int",             "@signal",       "host", ours=True),
    Call("signalfd",       282, None, "ptr ptr uint",                 "@signal",       "= signalfd4($0, $1, $2, 0)", ours=True),
    Call("eventfd",        284, None, "uint",                         "@io-event",    "= eventfd2($0, 0)"),
    Call("ppoll",          271,   73, "ptr long ptr ptr uint",        "@io-event",     "body", "own"),
    Call("pause",           34, None, "",                             "@default",      "= ppoll(0, 0, 0, 0, 0)", ours=True),
    Call("nanosleep",       35,  101, "ptr ptr",                      "@default",      "= clock_nanosleep(CLOCK_MONOTONIC, 0, $0, $1)"),
    Call("clock_nanosleep", 230,  115, "int int mem[16] mem[16]",      "@default",      "waits/body"),

    # --- sockets ---------------------------------------------------------------------------------
    Call("socket",          41,  198, "int int int",                  "@network-io",  "body", note="unix, TCP and UDP"),
    Call("socketpair",      53,  199, "int int int ptr",              "@network-io",  "body"),
    Call("connect",         42,  203, "fd mem:2 uint",                "@network-io",  "body"),
    Call("bind",            49,  200, "fd mem:2 uint",                "@network-io",   "plain"),
    Call("listen",          50,  201, "fd int",                       "@network-io",  "body"),
    Call("accept",          43,  202, "fd ptr ptr",                   "@network-io",   "= accept4($0, $1, $2, 0)"),
    Call("accept4",        288,  242, "fd ptr ptr int",               "@network-io",  "body", "own", "in capability mode without the peer's address"),
    Call("getsockname",     51,  204, "fd name mem[4]",               "@network-io",  "plain"),
    Call("getpeername",     52,  205, "fd name mem[4]",               "@network-io",  "plain"),
    Call("setsockopt",      54,  208, "fd int int mem:4 uint",        "@network-io",  "body", note="a closed list"),
    Call("getsockopt",      55,  209, "fd int int ptr ptr",           "@network-io",  "body", note="a closed list"),
    Call("sendto",          44,  206, "fd mem:2 uint message mem:5 uint","@network-io",   "waits/body"),
    Call("recvfrom",        45,  207, "fd mem:2 uint message name mem[4]","@network-io",   "waits/body", "own", "for shims without the peer's address"),
    Call("sendmsg",         46,  211, "fd ptr int",                   "@network-io",   "body"),
    Call("recvmsg",         47,  212, "fd ptr int",                   "@network-io",   "body"),
    Call("shutdown",        48,  210, "fd int",                       "@network-io",  "plain", "own"),

    # --- time, randomness, the system ------------------------------------------------------------
    Call("clock_gettime",  228,  113, "int mem[16]",                  "@default",     "body", "own"),
    Call("clock_getres",   229,  114, "clock mem[16]",                "@default",     "plain", "own"),
    Call("gettimeofday",    96,  169, "mem[16] mem[8]",               "@default",     "plain"),
    Call("getrandom",      318,  278, "mem:1 uint uint",              "@default",     "plain", "own guest"),
    Call("sched_yield",     24,  124, "",                             "@default",     "plain", "own"),
    Call("sysinfo",         99,  179, "mem[368]",                     "@default",     "plain"),

    # --- the process -----------------------------------------------------------------------------
    Call("getpid",          39,  172, "",                             "@default",     "plain"),
    Call("gettid",         186,  178, "",                             "@default",     "plain"),
    Call("getegid",        108,  177, "",                             "@default",     "plain"),
    Call("uname",           63,  160, "mem[390]",                     "@default",     "plain"),
    Call("umask",           95,  166, "uint",                         "@file-system", "plain"),
    Call("kill",            62,  129, "int int",                      "@process",     "plain"),
    Call("getpgid",        121,  155, "int",                          "@default",     "host", note="confined: of itself, its threads and its children"),
    Call("getsid",         124,  156, "int",                          "@default",     "host", note="confined: of itself, its threads and its children"),
    Call("statfs",         137,   43, "path mem[120]",                "@file-system", "plain"),
    Call("fstatfs",        138,   44, "fd mem[120]",                  "@file-system", "plain"),
    Call("truncate",        76,   45, "path long",                    "@file-system", "plain", ours=True),
    Call("link",            86, None, "path path",                    "@file-system", "= linkat(AT_FDCWD, $0, AT_FDCWD, $1, 0)"),
    Call("faccessat2",     439,  439, "dirfd path int int",           "@file-system", "plain"),
    Call("statx",          332,  291, "dirfd path int uint mem[256]", "@file-system", "plain"),
    Call("getppid",        110,  173, "",                             "@default",     "plain"),
    Call("getuid",         102,  174, "",                             "@default",     "plain"),
    Call("geteuid",        107,  175, "",                             "@default",     "plain"),
    Call("getgid",         104,  176, "",                             "@default",     "plain"),
    Call("getresuid",      118,  148, "mem[4] mem[4] mem[4]",         "@default",     "plain", ours=True),
    Call("getresgid",      120,  150, "mem[4] mem[4] mem[4]",         "@default",     "plain", ours=True),
    Call("getrusage",       98,  165, "int mem[272]",                 "@default",     "plain"),
    Call("getrlimit",       97,  163, "int mem[16]",                  "@default",     "host"),
    Call("setrlimit",      160,  164, "int mem[16]",                  "@resources",   "host"),
    Call("prlimit64",      302,  261, "int int ptr ptr",              "@default",     "host", note="RLIMIT_NOFILE bounds its own numbers, RLIMIT_AS its memory; confined: of itself"),
    Call("exit",            60,   93, "int",                          "@default",      "body", note="of one thread"),
    Call("exit_group",     231,   94, "int",                          "@default",     "body"),
    Call("set_tid_address",218,   96, "ptr",                          "@default",     "= gettid()", note="the address is not passed on: the kernel would write there when the host's thread ends"),
    Call("set_robust_list",273,   99, "ptr uint",                     "@default",     "= 0", note="does nothing: the kernel would walk a list of guest addresses", ours=True),
    Call("setuid",         105,  146, "uint",                         "@setuid",       "plain"),
    Call("setreuid",       113,  145, "uint uint",                    "@setuid",       "plain"),
    Call("setregid",       114,  143, "uint uint",                    "@setuid",       "plain"),
    Call("setresuid",      117,  147, "uint uint uint",               "@setuid",       "plain"),
    Call("setresgid",      119,  149, "uint uint uint",               "@setuid",       "plain"),
    Call("getgroups",      115,  158, "int ptr",                      "@default",      "host"),
    Call("setgroups",      116,  159, "int ptr",                      "@setuid",       "host"),
    Call("chroot",         161,   51, "path",                         "@mount",        "moves"),
    Call("setgid",         106,  144, "uint",                         "@setuid",      "plain"),
    Call("setpgid",        109,  154, "int int",                      "@process",     "plain"),
    Call("setsid",         112,  157, "",                             "@process",     "plain"),
    Call("wait4",           61,  260, "int mem[4] int mem[272]",      "@process",      "waits"),
    Call("waitid",         247,   95, "int int mem[128] int mem[272]", "@process",      "waits", ours=True),
    Call("times",          100,  153, "mem[32]",                      "@process",      "plain", ours=True),
    Call("fork",            57, None, "",                             "@process",     "host"),
    Call("execve",          59,  221, "path ptr ptr",                 "@process",      "host"),
    Call("tkill",          200,  130, "int int",                      "@process",      "plain"),
    Call("tgkill",         234,  131, "int int int",                  "@process",      "plain", ours=True),
    Call("futex",          202,   98, "ptr int int ptr ptr int",      "@default",      "body", note="a closed list"),
    Call("sched_getaffinity",204,123, "int uint mem:1",               "@default",     "host", note="confined: of itself, its threads and its children"),
    Call("sched_getparam",  143,  121, "int mem[4]",                   "@default",     "host", note="confined: of itself, its threads and its children", ours=True),
    Call("sched_getscheduler",145,120, "int",                          "@default",     "host", note="confined: of itself, its threads and its children", ours=True),
    Call("sched_get_priority_max",146,125,"int",                       "@default",     "plain", ours=True),
    Call("sched_get_priority_min",147,126,"int",                       "@default",     "plain", ours=True),
    Call("sched_setscheduler",144,119,"int int mem[4]",               "@resources",   "host", note="confined: of itself, its threads and its children", ours=True),
    Call("getpriority",    140,  141, "int int",                      "@default",     "host", note="confined: of itself, its threads and its children", ours=True),
    Call("setpriority",    141,  140, "int int int",                  "@resources",   "host", note="confined: of itself, its threads and its children", ours=True),
    Call("rt_sigaction",    13,  134, "int ptr ptr uint",             "@signal",       "body"),
    Call("rt_sigprocmask",  14,  135, "int set:3 mem[8] uint",       "@signal",       "plain"),
    Call("rt_sigpending",  127,  136, "mem:1 uint",                   "@signal",       "plain"),
    Call("rt_sigsuspend",  130,  133, "mask:1 uint",                  "@signal",       "waits"),
    Call("rt_sigtimedwait",128,  137, "ptr ptr ptr uint",             "@signal",       "host", ours=True),
    Call("rt_sigreturn",    15,  139, "long",                         "@signal",       "planned", note="handlers return as functions do"),
    Call("sigaltstack",    131,  132, "ptr ptr",                      "@signal",       "host", note="kept, not used: handlers run on the stack that is there"),
    Call("getitimer",       36,  102, "int mem[32]",                  "@timer",        "plain", ours=True),
    Call("setitimer",       38,  103, "int mem[32] mem[32]",          "@timer",        "plain"),
    Call("flock",           73,   32, "fd int",                       "@file-system",  "waits"),
    Call("prctl",          157,  167, "int long long long long",      "@process",      "host", note="a closed list"),

    # --- memory ----------------------------------------------------------------------------------
    Call("brk",             12,  214, "ptr",                          "@default",     "host", note="some of the memory is kept free for it"),
    Call("mmap",             9,  222, "ptr uint int int fd long",     "@default",     "host"),
    Call("mprotect",        10,  226, "ptr uint int",                 "@default",     "host"),
    Call("munmap",          11,  215, "ptr uint",                     "@default",     "host"),
    Call("mremap",          25,  216, "ptr uint uint int ptr",        "@default",     "host"),
    Call("msync",           26,  227, "ptr uint int",                 "@default",     "host"),
    Call("madvise",         28,  233, "ptr uint int",                 "@default",     "host", note="a closed list"),
)

# Calls that wait by the core's own means (``wait_for`` in wait.c): in a cooperative store they can
# suspend the guest.
WAITS: Final = frozenset(
    ["accept", "accept4", "clock_nanosleep", "connect", "epoll_pwait", "epoll_wait", "nanosleep", "pause", "poll", "ppoll", "pselect6", "pwritev2", "read", "readv", "recvfrom", "select", "sendto", "write", "writev"]
)

# Calls that are not Linux's: (module, name, arguments, result, C body, whose).  Those of `wali` are
# WALI's, for its programs; a shim may have `__proc_exit`.  `guest` is ours, for shims alone.
# "= 0" is all that there is to a call: nobody comes back to where a jump could be set to, and
# programs that never jump set often.
AUXILIARY: Final = (
    ("wali",  "__proc_exit", "int",           "",  "exit_group", "own"),
    ("wali",  "__init",             "",        "i", "", "host"),
    ("wali",  "__deinit",           "",        "i", "", "host"),
    ("wali",  "__cl_get_argc",      "",        "i", "", "host"),
    ("wali",  "__cl_get_argv_len",  "int",     "i", "", "host"),
    ("wali",  "__cl_copy_argv",     "ptr int", "i", "", "host"),
    ("wali",  "__get_init_envfile", "ptr int", "i", "", "host"),
    ("wali",  "__wasm_thread_spawn", "int ptr", "i", "", "host"),
    ("wali",  "setjmp",    "ptr",     "i", "= 0", "program"),
    ("wali",  "sigsetjmp", "ptr int", "i", "= 0", "program"),
    ("wali",  "longjmp",   "ptr int", "",  "", "host"),
    ("guest", "copy_in",     "ptr ptr uint",  "i", "copy_in",    "guest"),
    ("guest", "copy_out",    "ptr ptr uint",  "i", "copy_out",   "guest"),
    ("guest", "store_u32",   "ptr uint",      "i", "store_u32",  "guest"),
    ("guest", "store_u64",   "ptr long",      "i", "store_u64",  "guest"),
    ("guest", "store_time",  "ptr int",       "i", "store_time", "guest"),
    ("guest", "check",       "ptr uint",      "i", "check",      "guest"),
    ("guest", "suspend",     "",              "I", "suspend",    "guest"),
)
# fmt: on

# Calls that are made again when a handler with SA_RESTART has interrupted them (signal(7)).
RESTARTED: Final = frozenset(
    [
        "accept",
        "accept4",
        "connect",
        "fcntl",
        "flock",
        "futex",
        "ioctl",
        "open",
        "openat",
        "read",
        "readv",
        "recvfrom",
        "recvmsg",
        "sendfile",
        "sendmsg",
        "sendto",
        "wait4",
        "waitid",
        "write",
        "writev",
    ]
)

# Those of them that are not on a socket with a time-out: SO_RCVTIMEO or SO_SNDTIMEO (signal(7)).
TIMED: Final = {
    **dict.fromkeys(("accept", "accept4", "read", "readv", "recvfrom", "recvmsg"), 20),
    **dict.fromkeys(("connect", "sendfile", "sendmsg", "sendto", "write", "writev"), 21),
}

# Socket options that a program may read and set: level, name, the most bytes (socket(7), ip(7),
# ipv6(7), tcp(7)).  Never what passes the policy's ports by (TCP_FASTOPEN*, TCP_REPAIR), binds to
# devices, or loads programs into the kernel (SO_ATTACH_FILTER and its kin).
SOCKET_OPTIONS: Final = (
    (1, 2, 4),  # SO_REUSEADDR
    (1, 3, 4),  # SO_TYPE
    (1, 4, 4),  # SO_ERROR
    (1, 5, 4),  # SO_DONTROUTE
    (1, 6, 4),  # SO_BROADCAST
    (1, 7, 4),  # SO_SNDBUF
    (1, 8, 4),  # SO_RCVBUF
    (1, 9, 4),  # SO_KEEPALIVE
    (1, 10, 4),  # SO_OOBINLINE
    (1, 12, 4),  # SO_PRIORITY
    (1, 13, 8),  # SO_LINGER
    (1, 15, 4),  # SO_REUSEPORT
    (1, 16, 4),  # SO_PASSCRED
    (1, 17, 12),  # SO_PEERCRED
    (1, 18, 4),  # SO_RCVLOWAT
    (1, 20, 16),  # SO_RCVTIMEO
    (1, 21, 16),  # SO_SNDTIMEO
    (1, 28, 128),  # SO_PEERNAME
    (1, 29, 4),  # SO_TIMESTAMP
    (1, 30, 4),  # SO_ACCEPTCONN
    (1, 35, 4),  # SO_TIMESTAMPNS
    (1, 38, 4),  # SO_PROTOCOL
    (1, 39, 4),  # SO_DOMAIN
    (6, 1, 4),  # TCP_NODELAY
    (6, 2, 4),  # TCP_MAXSEG
    (6, 3, 4),  # TCP_CORK
    (6, 4, 4),  # TCP_KEEPIDLE
    (6, 5, 4),  # TCP_KEEPINTVL
    (6, 6, 4),  # TCP_KEEPCNT
    (6, 7, 4),  # TCP_SYNCNT
    (6, 8, 4),  # TCP_LINGER2
    (6, 9, 4),  # TCP_DEFER_ACCEPT
    (6, 10, 4),  # TCP_WINDOW_CLAMP
    (6, 11, 256),  # TCP_INFO
    (6, 12, 4),  # TCP_QUICKACK
    (6, 13, 16),  # TCP_CONGESTION
    (6, 18, 4),  # TCP_USER_TIMEOUT
    (6, 25, 4),  # TCP_NOTSENT_LOWAT
    (0, 1, 4),  # IP_TOS
    (0, 2, 4),  # IP_TTL
    (0, 4, 40),  # IP_OPTIONS
    (0, 8, 4),  # IP_PKTINFO
    (0, 10, 4),  # IP_MTU_DISCOVER
    (0, 11, 4),  # IP_RECVERR
    (0, 12, 4),  # IP_RECVTTL
    (0, 13, 4),  # IP_RECVTOS
    (0, 14, 4),  # IP_MTU
    (0, 32, 12),  # IP_MULTICAST_IF
    (0, 33, 4),  # IP_MULTICAST_TTL
    (0, 34, 4),  # IP_MULTICAST_LOOP
    (0, 35, 12),  # IP_ADD_MEMBERSHIP
    (0, 36, 12),  # IP_DROP_MEMBERSHIP
    (41, 16, 4),  # IPV6_UNICAST_HOPS
    (41, 17, 4),  # IPV6_MULTICAST_IF
    (41, 18, 4),  # IPV6_MULTICAST_HOPS
    (41, 19, 4),  # IPV6_MULTICAST_LOOP
    (41, 20, 20),  # IPV6_JOIN_GROUP
    (41, 21, 20),  # IPV6_LEAVE_GROUP
    (41, 24, 4),  # IPV6_MTU
    (41, 26, 4),  # IPV6_V6ONLY
    (41, 49, 4),  # IPV6_RECVPKTINFO
    (41, 50, 20),  # IPV6_PKTINFO
    (41, 66, 4),  # IPV6_RECVTCLASS
    (41, 67, 4),  # IPV6_TCLASS
)

# ioctl(2) requests that a program may make: number, bytes of what they read or write; 0 where the
# argument is a number.  Never TIOCSTI, which types on the terminal for others to read; nor what has
# pointers inside (SIOCGIFCONF) or takes a descriptor (FICLONE).
IOCTLS: Final = (
    (0x5401, 36),  # TCGETS, the kernel's struct termios
    (0x5402, 36),  # TCSETS
    (0x5403, 36),  # TCSETSW
    (0x5404, 36),  # TCSETSF
    (0x5409, 0),  # TCSBRK
    (0x540A, 0),  # TCXONC
    (0x540B, 0),  # TCFLSH
    (0x540E, 0),  # TIOCSCTTY
    (0x540F, 4),  # TIOCGPGRP
    (0x5410, 4),  # TIOCSPGRP
    (0x5411, 4),  # TIOCOUTQ, SIOCOUTQ
    (0x5413, 8),  # TIOCGWINSZ
    (0x5414, 8),  # TIOCSWINSZ
    (0x541B, 4),  # FIONREAD, SIOCINQ
    (0x5421, 4),  # FIONBIO: the guest's table remembers it
    (0x5422, 0),  # TIOCNOTTY
    (0x5425, 0),  # TCSBRKP
    (0x5429, 4),  # TIOCGSID
    (0x5450, 0),  # FIONCLEX: the guest's table has it
    (0x5451, 0),  # FIOCLEX
    (0x8905, 4),  # SIOCATMARK
    (0x80045430, 4),  # TIOCGPTN
    (0x40045431, 4),  # TIOCSPTLCK
    (0x5441, 0),  # TIOCGPTPEER: what it gives is a descriptor, which is installed
)

# Commands of fcntl(2) that are the kernel's alone: number, bytes of what they point to; 0 where the
# argument is a number.
FCNTLS: Final = (
    (5, 32),  # F_GETLK
    (6, 32),  # F_SETLK
    (7, 32),  # F_SETLKW
    (36, 32),  # F_OFD_GETLK
    (37, 32),  # F_OFD_SETLK
    (38, 32),  # F_OFD_SETLKW
    (8, 0),  # F_SETOWN
    (9, 0),  # F_GETOWN
    (10, 0),  # F_SETSIG
    (11, 0),  # F_GETSIG
    (15, 8),  # F_SETOWN_EX
    (16, 8),  # F_GETOWN_EX
    (1025, 0),  # F_GETLEASE
    (1031, 0),  # F_SETPIPE_SZ
    (1032, 0),  # F_GETPIPE_SZ
    (1033, 0),  # F_ADD_SEALS
    (1034, 0),  # F_GET_SEALS
)

# Kernel numbers that the core uses for itself: not calls of a guest.
INTERNAL: Final = {
    "mmap": (9, 222),
    "munmap": (11, 215),
    "preadv2": (327, 286),
}

_I64: Final = {"long"}


def signature(arguments: str) -> str:
    """The Wasm types of an argument list: ``i`` for i32 and ``I`` for i64, in order."""
    return "".join("I" if kind in _I64 else "i" for kind in arguments.split())
