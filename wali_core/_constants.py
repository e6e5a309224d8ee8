"""Numbers of Linux's interface that the core decides by: flags, commands and errnos.

The build makes ``numbers.gen.h`` of them.  A value is a number, or a pair for x86-64 and aarch64.
Flags of open(2) are the guest's, which are x86-64's on every processor.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# fmt: off
CONSTANTS: Final[dict[str, int | tuple[int, int]]] = {
    # What errno(3) lists.
    "EPERM": 1, "ENOENT": 2, "EINTR": 4, "EBADF": 9, "EAGAIN": 11, "ENOMEM": 12, "EACCES": 13,
    "EFAULT": 14, "EBUSY": 16, "EXDEV": 18, "EINVAL": 22, "EMFILE": 24, "ENOTTY": 25, "ESPIPE": 29,
    "EROFS": 30,
    "ENAMETOOLONG": 36, "ENOSYS": 38, "EPROTONOSUPPORT": 93, "ESOCKTNOSUPPORT": 94,
    "EOPNOTSUPP": 95, "EAFNOSUPPORT": 97, "EALREADY": 114, "EINPROGRESS": 115,

    # Files: openat(2) and its kin
    "AT_FDCWD": -100, "AT_SYMLINK_NOFOLLOW": 0x100, "AT_REMOVEDIR": 0x200,
    "AT_SYMLINK_FOLLOW": 0x400, "AT_EMPTY_PATH": 0x1000,
    "O_ACCMODE": 3, "O_CREAT": 0x40, "O_NOCTTY": 0x100, "O_TRUNC": 0x200, "O_APPEND": 0x400,
    "O_NONBLOCK": 0x800, "O_ASYNC": 0x2000, "O_CLOEXEC": 0x80000, "O_PATH": 0x200000,
    "O_TMPFILE_BIT": 0x400000,
    "GUEST_O_DIRECT": 0x4000, "GUEST_O_LARGEFILE": 0x8000, "GUEST_O_DIRECTORY": 0x10000,
    "GUEST_O_NOFOLLOW": 0x20000,
    "RESOLVE_NO_XDEV": 0x01, "RESOLVE_NO_MAGICLINKS": 0x02, "RESOLVE_BENEATH": 0x08,
    "S_IFMT": 0xF000, "S_IFREG": 0x8000, "S_IFDIR": 0x4000, "S_IFBLK": 0x6000, "S_IFCHR": 0x2000,
    "PROC_SUPER_MAGIC": 0x9FA0, "PATH_MAX": 4096, "NAME_MAX": 255, "PIPE_BUF": 4096,

    # See fcntl(2)
    "F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_SETFL": 4,
    "F_DUPFD_CLOEXEC": 1030, "FD_CLOEXEC": 1,

    # See ioctl(2)
    "TCGETS": 0x5401, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIONCLEX": 0x5450, "FIOCLEX": 0x5451,
    "TIOCGPTPEER": 0x5441, "TTYAUX_MAJOR": 5,

    # Reading and waiting: readv(2), poll(2), select(2), epoll(7)
    "UIO_MAXIOV": 1024, "RWF_NOWAIT": 8, "RWF_APPEND": 0x10, "RWF_NOAPPEND": 0x20,
    "POLLIN": 1, "POLLPRI": 2, "POLLOUT": 4, "POLLERR": 8, "POLLHUP": 0x10, "POLLNVAL": 0x20,
    "FD_SETSIZE": 1024, "EPOLL_CTL_DEL": 2, "EFD_SEMAPHORE": 1,

    # Sockets: socket(2), recv(2)
    "AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "SOCK_STREAM": 1, "SOCK_DGRAM": 2,
    "SOCK_SEQPACKET": 5, "SOL_SOCKET": 1, "SO_TYPE": 3,
    "SOCK_TYPE": 0xF, "SOCK_MAX": 11, "SOCK_NONBLOCK": 0x800, "SOCK_CLOEXEC": 0x80000,
    "IPPROTO_TCP": 6, "IPPROTO_UDP": 17,
    "MSG_PEEK": 2, "MSG_TRUNC": 0x20, "MSG_DONTWAIT": 0x40, "MSG_WAITALL": 0x100,
    "MSG_NOSIGNAL": 0x4000,
    # OOB PEEK DONTROUTE CTRUNC TRUNC DONTWAIT EOR WAITALL CONFIRM NOSIGNAL MORE CMSG_CLOEXEC
    "MESSAGE_FLAGS": 0x4000C9EF,
    # PEEK TRUNC DONTWAIT WAITALL NOSIGNAL
    "FEW_MESSAGE_FLAGS": 0x4162,

    # Time, signals, memory: clock_gettime(2), sigaction(2), futex(2), mmap(2)
    "CLOCK_REALTIME": 0, "CLOCK_MONOTONIC": 1, "TIMER_ABSTIME": 1, "NSEC": 1_000_000_000,
    "SIGILL": 4, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9, "SIGSEGV": 11, "SIGSTOP": 19,
    "SIG_SETMASK": 2,
    "SA_NOCLDSTOP": 1, "SA_NOCLDWAIT": 2, "SA_SIGINFO": 4, "SA_RESTORER": 0x04000000,
    "SA_ONSTACK": 0x08000000, "SA_RESTART": 0x10000000, "SA_NODEFER": 0x40000000,
    "SA_RESETHAND": 0x80000000, "SA_KNOWN": 0xDC000807,
    # As bits: WAKE UNLOCK_PI TRYLOCK_PI WAKE_BITSET; with a time-out, WAIT LOCK_PI WAIT_BITSET
    # LOCK_PI2; of two words, REQUEUE CMP_REQUEUE WAKE_OP
    "FUTEX_PLAIN": 1 << 1 | 1 << 7 | 1 << 8 | 1 << 10, "FUTEX_TWO": 1 << 3 | 1 << 4 | 1 << 5,
    "FUTEX_TIMED": 1 << 0 | 1 << 6 | 1 << 9 | 1 << 13,
    "FUTEX_COMMAND": 0x7F,
    "PROT_READ_WRITE": 3, "MAP_PRIVATE_ANONYMOUS": 0x22,

    # Where a signal frame's ucontext_t has the program counter, and the mask.
    "UCONTEXT_PC": (168, 440), "UCONTEXT_MASK": (296, 40),
}
# fmt: on
