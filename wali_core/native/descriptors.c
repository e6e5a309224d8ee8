/* The guest's descriptor table, like the kernel's files_struct: numbers are handed out lowest
 * first, and mean nothing to anybody else.  Only the guest's own thread touches its table. */
#include "core.h"

struct descriptor *descriptor_at(struct context *c, int32_t number) {
    if (UNLIKELY((uint32_t)number >= c->capacity))
        return NULL;
    struct descriptor *d = &c->descriptors[number];
    return LIKELY(d->host >= 0) ? d : NULL;
}

/* Few guests open more than a handful of files, so the table starts inside the context; the full
 * one is address space that costs nothing until it is touched. */
static int64_t grow(struct context *c) {
    if (c->capacity >= c->limit)
        return -EMFILE;
    int64_t at = SYS(NR_mmap, 0, c->limit * sizeof(struct descriptor), PROT_READ_WRITE,
                     MAP_PRIVATE_ANONYMOUS, -1, 0);
    if (at < 0)
        return at;
    struct descriptor *table = (struct descriptor *)at;
    for (uint32_t i = 0; i < c->limit; i++)
        table[i] = i < c->capacity ? c->descriptors[i] : (struct descriptor){.host = -1};
    c->descriptors = table;
    c->capacity = c->limit;
    return 0;
}

int32_t descriptor_reserve(struct context *c, int32_t from) {
    uint32_t n = (uint32_t)from < c->lowest ? c->lowest : (uint32_t)from;
    for (; n < c->limit; n++) {
        if (n >= c->capacity) {
            int64_t r = grow(c);
            if (r < 0)
                return (int32_t)r;
        }
        if (c->descriptors[n].host < 0) {
            if ((uint32_t)from <= c->lowest)
                c->lowest = n;
            return (int32_t)n;
        }
    }
    return -EMFILE;
}

void descriptor_put(struct context *c, int32_t number, int32_t host, uint16_t flags) {
    c->descriptors[number] = (struct descriptor){.host = host, .flags = flags};
}

/* A new host descriptor (or the kernel's -errno, which passes through) gets the lowest number. */
int64_t descriptor_install(struct context *c, int64_t host, uint16_t flags) {
    if (host < 0)
        return host;
    int32_t number = descriptor_reserve(c, 0);
    if (number < 0)
        SYS(NR_close, host, 0, 0, 0, 0, 0);
    else
        descriptor_put(c, number, (int32_t)host, flags);
    return number;
}

/* A descriptor that a call of the guest's made, with the flags that the call gave it. */
int64_t descriptor_install_made(struct context *c, int64_t host, uint64_t guest_flags) {
    int64_t number = descriptor_install(c, host, guest_flags & O_CLOEXEC ? DESCRIPTOR_CLOEXEC : 0);
    if (number >= 0 && guest_flags & O_NONBLOCK)
        descriptor_at(c, (int32_t)number)->status = STATUS_NONBLOCK;
    return number;
}

/* Two at once, and their numbers to the guest: all or nothing. */
int64_t descriptor_install_pair(struct context *c, struct space *s, uint32_t address,
                                const int32_t *hosts, uint64_t guest_flags) {
    int32_t numbers[2] = {-1, -1};
    int64_t r = 0;
    for (int i = 0; i < 2; i++) {
        int64_t n = descriptor_install_made(c, hosts[i], guest_flags);
        r = n < 0 ? n : r;
        numbers[i] = (int32_t)n;
    }
    if (r == 0)
        r = copy_to(c, s, address, numbers, sizeof numbers);
    for (int i = 0; r < 0 && i < 2; i++)
        if (numbers[i] >= 0)
            descriptor_release(c, numbers[i]);
    return r;
}

int64_t descriptor_release(struct context *c, int32_t number) {
    struct descriptor *d = descriptor_at(c, number);
    if (d == NULL)
        return -EBADF;
    int32_t host = d->host;
    uint16_t flags = d->flags;
    d->host = -1;
    if ((uint32_t)number < c->lowest)
        c->lowest = (uint32_t)number;
    return flags & DESCRIPTOR_BORROWED ? 0 : SYS(NR_close, host, 0, 0, 0, 0, 0);
}

/* Can a call on it wait?  Regular files, directories and block devices never do (in the sense that
 * a signal or a time-out could end it), and RWF_NOWAIT would be an error on half of them. */
uint8_t descriptor_waits(struct descriptor *d) {
    if (LIKELY(d->kind != KIND_UNKNOWN))
        return d->kind == KIND_WAITS;
    kernel_stat_t st;
    if (SYS(NR_fstat, d->host, &st, 0, 0, 0, 0) < 0)
        return 0; /* let the call itself say what is wrong */
    uint32_t type = st.st_mode & S_IFMT;
    /* null, zero, full, random: the memory devices, but not kmsg, which waits for a message. */
    int memory = type == S_IFCHR && (st.st_rdev >> 8 & 0xfff) == 1 && (st.st_rdev & 0xff) != 11;
    int file = type == S_IFREG || type == S_IFDIR || type == S_IFBLK;
    d->kind = file || memory ? KIND_NEVER_WAITS : KIND_WAITS;
    return d->kind == KIND_WAITS;
}

/* For Python: put `host` at `number`.  The table owns it unless flags say BORROWED. */
EXPORT int64_t wali_descriptor_set(struct context *c, int32_t number, int32_t host,
                                   uint32_t flags) {
    int64_t r = descriptor_reserve(c, number);
    if (r == number)
        descriptor_put(c, number, host, (uint16_t)flags);
    return r == number ? 0 : r < 0 ? r : -EINVAL;
}

EXPORT int32_t wali_descriptor_host(struct context *c, int32_t number) {
    return host_of(c, number);
}

BODY(body_close) {
    return descriptor_release(c, a[0].i32);
}

/* Make `number` mean what `d` means.  The host descriptor is duplicated too, so each number owns
 * one and closing needs no counting. */
static int64_t duplicate(struct context *c, struct descriptor *d, int32_t number, uint16_t flags) {
    int64_t host = SYS(NR_fcntl, d->host, F_DUPFD_CLOEXEC, 0, 0, 0, 0);
    if (host < 0)
        return host;
    struct descriptor copy = *d;
    copy.host = (int32_t)host;
    copy.flags = (uint16_t)((d->flags & ~(DESCRIPTOR_BORROWED | DESCRIPTOR_CLOEXEC)) | flags);
    if (descriptor_at(c, number))
        descriptor_release(c, number);
    int32_t reserved = descriptor_reserve(c, number);
    if (reserved != number) {
        SYS(NR_close, host, 0, 0, 0, 0, 0);
        return reserved < 0 ? reserved : -EBADF;
    }
    c->descriptors[number] = copy;
    return number;
}

static int64_t duplicate_from(struct context *c, int32_t old, int64_t from, uint16_t flags) {
    if (!descriptor_at(c, old))
        return -EBADF;
    if (from < 0 || from >= c->limit)
        return -EINVAL;
    int32_t number = descriptor_reserve(c, (int32_t)from); /* may move the table */
    return number < 0 ? number : duplicate(c, descriptor_at(c, old), number, flags);
}

static int64_t duplicate_to(struct context *c, int32_t old, int32_t number, uint16_t flags) {
    if (!descriptor_at(c, old) || (uint32_t)number >= c->limit)
        return -EBADF;
    while ((uint32_t)number >= c->capacity) {
        int64_t r = grow(c);
        if (r < 0)
            return r;
    }
    return duplicate(c, descriptor_at(c, old), number, flags);
}

BODY(body_dup) {
    return duplicate_from(c, a[0].i32, 0, 0);
}

BODY(body_dup2) {
    if (a[0].i32 == a[1].i32)
        return descriptor_at(c, a[0].i32) ? a[0].i32 : -EBADF;
    return duplicate_to(c, a[0].i32, a[1].i32, 0);
}

BODY(body_dup3) {
    uint32_t flags = a[2].u32;
    if (a[0].i32 == a[1].i32 || (flags & ~(uint32_t)O_CLOEXEC))
        return -EINVAL;
    return duplicate_to(c, a[0].i32, a[1].i32, flags ? DESCRIPTOR_CLOEXEC : 0);
}

/* F_GETFL: what the guest would see if every description were its own. */
static int64_t status_flags(struct descriptor *d) {
    int64_t flags = SYS(NR_fcntl, d->host, F_GETFL, 0, 0, 0, 0);
    if (flags < 0)
        return flags;
    flags = (int64_t)GUEST_OPEN_FLAGS(flags);
    if (descriptor_waits(d))
        flags &= ~(int64_t)O_NONBLOCK;
    if (d->status & STATUS_NONBLOCK)
        flags |= O_NONBLOCK;
    return d->status & STATUS_APPEND ? flags | O_APPEND : flags;
}

/* F_SETFL.  O_NONBLOCK of what can wait is always ours: the host side must stay as the waiting code
 * knows it.  O_APPEND of a description that the embedder shares must not change under its feet. */
static int64_t set_status_flags(struct descriptor *d, uint64_t flags) {
    uint8_t status = flags & O_NONBLOCK ? STATUS_NONBLOCK : 0;
    if (d->flags & DESCRIPTOR_SHARED) {
        if (flags & O_APPEND)
            status |= STATUS_APPEND;
    } else {
        int64_t r = SYS(NR_fcntl, d->host, F_GETFL, 0, 0, 0, 0);
        if (r < 0)
            return r;
        uint64_t passed = HOST_OPEN_FLAGS(flags & (O_APPEND | GUEST_O_DIRECT));
        r = SYS(NR_fcntl, d->host, F_SETFL, passed | ((uint64_t)r & O_NONBLOCK), 0, 0, 0);
        if (r < 0)
            return r;
    }
    d->status = status;
    return 0;
}

/* fcntl(2): a closed list.  A command that is passed on blindly can write host memory. */
BODY(body_fcntl) {
    struct descriptor *d = descriptor_at(c, a[0].i32);
    int32_t command = a[1].i32;
    int64_t argument = a[2].i64;
    if (d == NULL)
        return -EBADF;
    if (command == F_GETFL)
        return status_flags(d);
    if (command == F_SETFL)
        return set_status_flags(d, (uint64_t)argument);
    if (capable)
        return -EPERM;
    uint8_t *lock;
    switch (command) {
    case F_DUPFD:
        return duplicate_from(c, a[0].i32, argument, 0);
    case F_DUPFD_CLOEXEC:
        return duplicate_from(c, a[0].i32, argument, DESCRIPTOR_CLOEXEC);
    case F_GETFD:
        return d->flags & DESCRIPTOR_CLOEXEC ? FD_CLOEXEC : 0;
    case F_SETFD:
        d->flags = (uint16_t)(argument & FD_CLOEXEC ? d->flags | DESCRIPTOR_CLOEXEC
                                                    : d->flags & ~DESCRIPTOR_CLOEXEC);
        return 0;
    case F_GETLK: /* F_SETLKW waits: it comes with the worker threads that can be interrupted */
    case F_SETLK:
        lock = space_buffer(c, s, (uint32_t)argument, 32); /* struct flock */
        return lock == WALI_BAD ? -EFAULT : SYS(NR_fcntl, d->host, command, lock, 0, 0, 0);
    default:
        return -EINVAL;
    }
}

/* The size of what an ioctl or a socket option reads or writes, from the table's closed list; 0 is
 * an argument that is no address.  -1: not on it. */
int32_t listed_size(int32_t level, uint32_t name) {
    for (const struct listed *l = closed_list; l->level != LISTED_END; l++)
        if (l->level == level && l->name == name)
            return l->size;
    return -1;
}

/* ioctl(2): a closed list as well. */
BODY(body_ioctl) {
    struct descriptor *d = descriptor_at(c, a[0].i32);
    uint32_t request = a[1].u32;
    int32_t size = listed_size(LISTED_IOCTL, request);
    if (d == NULL)
        return -EBADF;
    if (capable && request != TCGETS && request != FIONREAD)
        return -EPERM;
    if (size <= 0)
        return size ? -EINVAL : SYS(NR_ioctl, d->host, request, a[2].u32, 0, 0, 0);
    uint8_t *argument = space_buffer(c, s, a[2].u32, (uint32_t)size);
    if (argument == WALI_BAD || argument == NULL)
        return -EFAULT;
    if (request == FIONBIO) {
        int32_t on;
        if (wali_copy(&on, argument, sizeof on))
            return -EFAULT;
        d->status = (uint8_t)(on ? d->status | STATUS_NONBLOCK : d->status & ~STATUS_NONBLOCK);
        return 0;
    }
    return SYS(NR_ioctl, d->host, request, argument, 0, 0, 0);
}
