/* WASI preview1 as its witx files define it: numbers and the layout of what crosses memory. */
#ifndef WASI_SHIM_PREVIEW1_H
#define WASI_SHIM_PREVIEW1_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t guest_address; /* a pointer that only the guest module can follow */
typedef uint32_t fd_t;
typedef int32_t errno_t;

enum {
    ERRNO_SUCCESS = 0,
    ERRNO_2BIG = 1,
    ERRNO_ACCES = 2,
    ERRNO_ADDRINUSE = 3,
    ERRNO_ADDRNOTAVAIL = 4,
    ERRNO_AFNOSUPPORT = 5,
    ERRNO_AGAIN = 6,
    ERRNO_ALREADY = 7,
    ERRNO_BADF = 8,
    ERRNO_BADMSG = 9,
    ERRNO_BUSY = 10,
    ERRNO_CANCELED = 11,
    ERRNO_CHILD = 12,
    ERRNO_CONNABORTED = 13,
    ERRNO_CONNREFUSED = 14,
    ERRNO_CONNRESET = 15,
    ERRNO_DEADLK = 16,
    ERRNO_DESTADDRREQ = 17,
    ERRNO_DOM = 18,
    ERRNO_DQUOT = 19,
    ERRNO_EXIST = 20,
    ERRNO_FAULT = 21,
    ERRNO_FBIG = 22,
    ERRNO_HOSTUNREACH = 23,
    ERRNO_IDRM = 24,
    ERRNO_ILSEQ = 25,
    ERRNO_INPROGRESS = 26,
    ERRNO_INTR = 27,
    ERRNO_INVAL = 28,
    ERRNO_IO = 29,
    ERRNO_ISCONN = 30,
    ERRNO_ISDIR = 31,
    ERRNO_LOOP = 32,
    ERRNO_MFILE = 33,
    ERRNO_MLINK = 34,
    ERRNO_MSGSIZE = 35,
    ERRNO_MULTIHOP = 36,
    ERRNO_NAMETOOLONG = 37,
    ERRNO_NETDOWN = 38,
    ERRNO_NETRESET = 39,
    ERRNO_NETUNREACH = 40,
    ERRNO_NFILE = 41,
    ERRNO_NOBUFS = 42,
    ERRNO_NODEV = 43,
    ERRNO_NOENT = 44,
    ERRNO_NOEXEC = 45,
    ERRNO_NOLCK = 46,
    ERRNO_NOLINK = 47,
    ERRNO_NOMEM = 48,
    ERRNO_NOMSG = 49,
    ERRNO_NOPROTOOPT = 50,
    ERRNO_NOSPC = 51,
    ERRNO_NOSYS = 52,
    ERRNO_NOTCONN = 53,
    ERRNO_NOTDIR = 54,
    ERRNO_NOTEMPTY = 55,
    ERRNO_NOTRECOVERABLE = 56,
    ERRNO_NOTSOCK = 57,
    ERRNO_NOTSUP = 58,
    ERRNO_NOTTY = 59,
    ERRNO_NXIO = 60,
    ERRNO_OVERFLOW = 61,
    ERRNO_OWNERDEAD = 62,
    ERRNO_PERM = 63,
    ERRNO_PIPE = 64,
    ERRNO_PROTO = 65,
    ERRNO_PROTONOSUPPORT = 66,
    ERRNO_PROTOTYPE = 67,
    ERRNO_RANGE = 68,
    ERRNO_ROFS = 69,
    ERRNO_SPIPE = 70,
    ERRNO_SRCH = 71,
    ERRNO_STALE = 72,
    ERRNO_TIMEDOUT = 73,
    ERRNO_TXTBSY = 74,
    ERRNO_XDEV = 75,
    ERRNO_NOTCAPABLE = 76,
};

enum {
    FILETYPE_UNKNOWN = 0,
    FILETYPE_BLOCK_DEVICE = 1,
    FILETYPE_CHARACTER_DEVICE = 2,
    FILETYPE_DIRECTORY = 3,
    FILETYPE_REGULAR_FILE = 4,
    FILETYPE_SOCKET_DGRAM = 5,
    FILETYPE_SOCKET_STREAM = 6,
    FILETYPE_SYMBOLIC_LINK = 7,
};

enum {
    FDFLAGS_APPEND = 1 << 0,
    FDFLAGS_DSYNC = 1 << 1,
    FDFLAGS_NONBLOCK = 1 << 2,
    FDFLAGS_RSYNC = 1 << 3,
    FDFLAGS_SYNC = 1 << 4,
    FDFLAGS_ALL = 0x1f,

    LOOKUPFLAGS_SYMLINK_FOLLOW = 1 << 0,

    OFLAGS_CREAT = 1 << 0,
    OFLAGS_DIRECTORY = 1 << 1,
    OFLAGS_EXCL = 1 << 2,
    OFLAGS_TRUNC = 1 << 3,
    OFLAGS_ALL = 0xf,

    FSTFLAGS_ATIM = 1 << 0,
    FSTFLAGS_ATIM_NOW = 1 << 1,
    FSTFLAGS_MTIM = 1 << 2,
    FSTFLAGS_MTIM_NOW = 1 << 3,
    FSTFLAGS_ALL = 0xf,

    WHENCE_SET = 0,
    WHENCE_CUR = 1,
    WHENCE_END = 2,
    UNSTABLE_WHENCE_CUR = 0,
    UNSTABLE_WHENCE_END = 1,
    UNSTABLE_WHENCE_SET = 2,

    EVENTTYPE_CLOCK = 0,
    EVENTTYPE_FD_READ = 1,
    EVENTTYPE_FD_WRITE = 2,
    SUBCLOCKFLAGS_ABSTIME = 1 << 0,
    EVENTRWFLAGS_HANGUP = 1 << 0,

    RIFLAGS_RECV_PEEK = 1 << 0,
    RIFLAGS_RECV_WAITALL = 1 << 1,
    RIFLAGS_ALL = 0x3,
    ROFLAGS_RECV_DATA_TRUNCATED = 1 << 0,

    SDFLAGS_RD = 1 << 0,
    SDFLAGS_WR = 1 << 1,
    SDFLAGS_ALL = 0x3,
};

struct iovec {
    guest_address base;
    uint32_t length;
};

struct prestat {
    uint32_t tag; /* 0: a directory, the only kind there is */
    uint32_t name_length;
};

struct fdstat {
    uint8_t filetype;
    uint16_t flags;
    uint64_t rights_base;
    uint64_t rights_inheriting;
};

struct filestat {
    uint64_t dev;
    uint64_t ino;
    uint8_t filetype;
    uint64_t nlink;
    uint64_t size;
    uint64_t atim;
    uint64_t mtim;
    uint64_t ctim;
};

struct unstable_filestat {
    uint64_t dev;
    uint64_t ino;
    uint8_t filetype;
    uint32_t nlink;
    uint64_t size;
    uint64_t atim;
    uint64_t mtim;
    uint64_t ctim;
};

struct dirent { /* the name follows, without a NUL and without padding */
    uint64_t next;
    uint64_t ino;
    uint32_t name_length;
    uint8_t type;
};

struct subscription {
    uint64_t userdata;
    uint8_t tag;
    union {
        struct {
            uint32_t id;
            uint64_t timeout;
            uint64_t precision;
            uint16_t flags;
        } clock;
        fd_t fd;
    };
};

struct unstable_subscription {
    uint64_t userdata;
    uint8_t tag;
    union {
        struct {
            uint64_t identifier;
            uint32_t id;
            uint64_t timeout;
            uint64_t precision;
            uint16_t flags;
        } clock;
        fd_t fd;
    };
};

struct event {
    uint64_t userdata;
    uint16_t error;
    uint8_t type;
    uint64_t nbytes;
    uint16_t flags;
};

_Static_assert(sizeof(struct prestat) == 8, "prestat");
_Static_assert(sizeof(struct fdstat) == 24, "fdstat");
_Static_assert(offsetof(struct fdstat, flags) == 2, "fdstat.flags");
_Static_assert(sizeof(struct filestat) == 64, "filestat");
_Static_assert(sizeof(struct unstable_filestat) == 56, "filestat of wasi_unstable");
_Static_assert(sizeof(struct dirent) == 24, "dirent");
_Static_assert(sizeof(struct subscription) == 48, "subscription");
_Static_assert(offsetof(struct subscription, fd) == 16, "subscription.fd");
_Static_assert(sizeof(struct unstable_subscription) == 56, "subscription of wasi_unstable");
_Static_assert(sizeof(struct event) == 32, "event");
_Static_assert(offsetof(struct event, nbytes) == 16, "event.nbytes");

#endif
