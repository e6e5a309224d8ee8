/* The kernel's numbers, as WALI spells them: x86-64's on every processor. */
#ifndef WASI_SHIM_LINUX_H
#define WASI_SHIM_LINUX_H

enum { /* <errno.h> */
       EPERM = 1,
       ENOENT = 2,
       ESRCH = 3,
       EINTR = 4,
       EIO = 5,
       ENXIO = 6,
       E2BIG = 7,
       ENOEXEC = 8,
       EBADF = 9,
       ECHILD = 10,
       EAGAIN = 11,
       ENOMEM = 12,
       EACCES = 13,
       EFAULT = 14,
       ENOTBLK = 15,
       EBUSY = 16,
       EEXIST = 17,
       EXDEV = 18,
       ENODEV = 19,
       ENOTDIR = 20,
       EISDIR = 21,
       EINVAL = 22,
       ENFILE = 23,
       EMFILE = 24,
       ENOTTY = 25,
       ETXTBSY = 26,
       EFBIG = 27,
       ENOSPC = 28,
       ESPIPE = 29,
       EROFS = 30,
       EMLINK = 31,
       EPIPE = 32,
       EDOM = 33,
       ERANGE = 34,
       EDEADLK = 35,
       ENAMETOOLONG = 36,
       ENOLCK = 37,
       ENOSYS = 38,
       ENOTEMPTY = 39,
       ELOOP = 40,
       ENOMSG = 42,
       EIDRM = 43,
       ENOLINK = 67,
       EPROTO = 71,
       EMULTIHOP = 72,
       EBADMSG = 74,
       EOVERFLOW = 75,
       EILSEQ = 84,
       ENOTSOCK = 88,
       EDESTADDRREQ = 89,
       EMSGSIZE = 90,
       EPROTOTYPE = 91,
       ENOPROTOOPT = 92,
       EPROTONOSUPPORT = 93,
       EOPNOTSUPP = 95,
       EAFNOSUPPORT = 97,
       EADDRINUSE = 98,
       EADDRNOTAVAIL = 99,
       ENETDOWN = 100,
       ENETUNREACH = 101,
       ENETRESET = 102,
       ECONNABORTED = 103,
       ECONNRESET = 104,
       ENOBUFS = 105,
       EISCONN = 106,
       ENOTCONN = 107,
       ETIMEDOUT = 110,
       ECONNREFUSED = 111,
       EHOSTUNREACH = 113,
       EALREADY = 114,
       EINPROGRESS = 115,
       ESTALE = 116,
       EDQUOT = 122,
       ECANCELED = 125,
       EOWNERDEAD = 130,
       ENOTRECOVERABLE = 131,
};

enum { /* <fcntl.h> */
       O_RDONLY = 00,
       O_WRONLY = 01,
       O_RDWR = 02,
       O_ACCMODE = 03,
       O_CREAT = 0100,
       O_EXCL = 0200,
       O_NOCTTY = 0400,
       O_TRUNC = 01000,
       O_APPEND = 02000,
       O_NONBLOCK = 04000,
       O_DSYNC = 010000,
       O_DIRECTORY = 0200000,
       O_NOFOLLOW = 0400000,
       O_CLOEXEC = 02000000,
       O_SYNC = 04010000,
       O_PATH = 010000000,

       F_GETFL = 3,
       F_SETFL = 4,

       AT_SYMLINK_NOFOLLOW = 0x100,
       AT_REMOVEDIR = 0x200,
       AT_EMPTY_PATH = 0x1000,

       RESOLVE_NO_MAGICLINKS = 0x02,
       RESOLVE_BENEATH = 0x08,

       POSIX_FADV_NORMAL = 0,
       POSIX_FADV_RANDOM = 1,
       POSIX_FADV_SEQUENTIAL = 2,
       POSIX_FADV_WILLNEED = 3,
       POSIX_FADV_DONTNEED = 4,
       POSIX_FADV_NOREUSE = 5,

       SEEK_SET = 0,
       SEEK_CUR = 1,
       SEEK_END = 2,
};

enum { /* limits of path resolution and of one vectored transfer */
       PATH_MAX = 4096,
       NAME_MAX = 255,
       MAXSYMLINKS = 40,
       IOV_MAX = 1024,
};

enum { /* <sys/stat.h> and <dirent.h> */
       S_IFMT = 0170000,
       S_IFSOCK = 0140000,
       S_IFLNK = 0120000,
       S_IFREG = 0100000,
       S_IFBLK = 0060000,
       S_IFDIR = 0040000,
       S_IFCHR = 0020000,

       DT_UNKNOWN = 0, /* otherwise a DT_ constant is its S_IF constant shifted by DT_SHIFT */
       DT_SHIFT = 12,

       UTIME_NOW = 0x3fffffff,
       UTIME_OMIT = 0x3ffffffe,
};

enum {
    RWF_APPEND = 0x10, /* <linux/fs.h> */

    CLOCK_REALTIME = 0, /* <time.h> */
    CLOCK_MONOTONIC = 1,
    CLOCK_PROCESS_CPUTIME_ID = 2,
    CLOCK_THREAD_CPUTIME_ID = 3,

    POLLIN = 0x01, /* <poll.h> */
    POLLOUT = 0x04,
    POLLERR = 0x08,
    POLLHUP = 0x10,
    POLLNVAL = 0x20,

    TCGETS = 0x5401, /* <asm/ioctls.h> */
    FIONREAD = 0x541b,

    MSG_PEEK = 0x02, /* <sys/socket.h> */
    MSG_TRUNC = 0x20,
    MSG_WAITALL = 0x100,
    SOCK_NONBLOCK = 04000,
    SOCK_CLOEXEC = 02000000,
    SHUT_RD = 0,
    SHUT_WR = 1,
    SHUT_RDWR = 2,
};

#endif
