/* The guest's descriptor table, like the kernel's files_struct: numbers are handed out lowest
 * first, and mean nothing to anybody else.
 *
 * Threads of a program share a table.  They change it one at a time, but look numbers up without a
 * lock, so a host number may be in use while another thread closes it.  It must not come to mean
 * something else then, least of all a file of the host's.  So with threads a host number is not
 * given back: what it stands for is replaced, in one step, by a dead file (O_PATH, which answers
 * EBADF as the kernel would), and it stays buried in its entry until that is used again.
 */
#include "core.h"

struct descriptor *descriptor_at(struct context *c, int32_t number) {
    if (UNLIKELY((uint32_t)number >= c->table->capacity))
        return NULL;
    struct descriptor *d = &c->table->descriptors[number];
    return LIKELY(d->host >= 0) ? d : NULL;
}

enum { FREE = -1, BUSY = DESCRIPTOR_BUSY };
#define BURIED(host) (-2 - (host)) /* and back */

EXPORT struct table *table_lock(struct context *c) {
    while (UNLIKELY(c->table->dead >= 0) &&
           __atomic_exchange_n(&c->table->lock, 1, __ATOMIC_ACQUIRE))
        SYS(NR_sched_yield, 0, 0, 0, 0, 0, 0);
    return c->table;
}

void table_unlock(struct table *t) {
    __atomic_store_n(&t->lock, 0, __ATOMIC_RELEASE);
}

/* Few guests open more than a handful of files, so the table starts inside the context; the full
 * one is address space that costs nothing until it is touched. */
RARE static int64_t grow(struct table *t) {
    if (t->capacity >= t->limit_most)
        return -EMFILE;
    int64_t at = SYS(NR_mmap, 0, t->limit_most * sizeof(struct descriptor), PROT_READ_WRITE,
                     MAP_PRIVATE_ANONYMOUS, -1, 0);
    if (at < 0)
        return at;
    struct descriptor *table = (struct descriptor *)at;
    for (uint32_t i = 0; i < t->limit_most; i++)
        table[i] = i < t->capacity ? t->descriptors[i] : (struct descriptor){.host = FREE};
    t->descriptors = table;
    t->capacity = t->limit_most;
    return 0;
}

/* Before the first thread: the table has all its room, so it never moves again. */
EXPORT int64_t wali_table_share(struct context *c, int32_t dead) {
    int64_t r = c->table->capacity < c->table->limit_most ? grow(c->table) : 0;
    c->table->dead = dead;
    return r;
}

ALWAYS_INLINE int32_t descriptor_reserve(struct table *t, int32_t from) {
    uint32_t n = (uint32_t)from < t->lowest ? t->lowest : (uint32_t)from;
    for (; n < t->limit; n++) {
        if (UNLIKELY(n >= t->capacity)) {
            int64_t r = grow(t);
            if (r < 0)
                return (int32_t)r;
        }
        if (LIKELY(t->descriptors[n].host < 0 && t->descriptors[n].host != BUSY)) {
            if ((uint32_t)from <= t->lowest)
                t->lowest = n;
            return (int32_t)n;
        }
    }
    return -EMFILE;
}

ALWAYS_INLINE void descriptor_put(struct table *t, int32_t number, struct descriptor new) {
    struct descriptor *d = &t->descriptors[number];
    if (UNLIKELY(d->host <= BURIED(0))) {
        int32_t buried = BURIED(d->host);
        SYS(NR_dup3, new.host, buried, O_CLOEXEC, 0, 0, 0);
        SYS(NR_close, new.host, 0, 0, 0, 0, 0);
        new.host = buried;
    }
    *d = new;
}

/* To have no more is an errno, or where a policy says how many there may be, the guest's end. */
RARE static int64_t full(struct context *c) {
    if (!c->table->ends || c->table->limit < c->table->limit_most)
        return -EMFILE;
    c->stop = STOP_FILES;
    return STOPPED;
}

/* A new host descriptor (or the kernel's -errno, which passes through) gets the lowest number. */
FLAT EXPORT int64_t descriptor_install(struct context *c, int64_t host, uint16_t flags) {
    if (host < 0)
        return host;
    struct table *t = table_lock(c);
    int32_t number = descriptor_reserve(t, 0);
    if (number < 0)
        SYS(NR_close, host, 0, 0, 0, 0, 0);
    else
        descriptor_put(t, number, (struct descriptor){.host = (int32_t)host, .flags = flags});
    table_unlock(t);
    return number == -EMFILE ? full(c) : number;
}

/* A descriptor that a call of the guest's made, with the flags that the call gave it. */
FLAT int64_t descriptor_install_made(struct context *c, int64_t host, uint64_t guest_flags) {
    int64_t number = descriptor_install(c, host, guest_flags & O_CLOEXEC ? DESCRIPTOR_CLOEXEC : 0);
    if (UNLIKELY(guest_flags & O_NONBLOCK) && number >= 0 && !c->direct)
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
        numbers[i] = n < 0 ? -1 : (int32_t)n;
    }
    if (r == 0)
        r = copy_to(c, s, address, numbers, sizeof numbers);
    for (int i = 0; r < 0 && i < 2; i++)
        descriptor_release(c, numbers[i]); /* where it is one */
    return r;
}

static void give_back(struct table *t, int32_t number) {
    if ((uint32_t)number < t->lowest)
        t->lowest = (uint32_t)number;
}

/* Without threads it is all done before the system call, behind which every line costs more. */
EXPORT int64_t descriptor_release(struct context *c, int32_t number) {
    struct table *t = table_lock(c);
    struct descriptor *d = descriptor_at(c, number), was = d ? *d : (struct descriptor){0};
    int keeps = was.flags & DESCRIPTOR_BORROWED, buries = t->dead >= 0 && !keeps;
    if (d)
        d->host = buries ? BUSY : FREE;
    if (d && !buries)
        give_back(t, number);
    table_unlock(t);
    if (d == NULL || !buries)
        return d == NULL ? -EBADF : keeps ? 0 : SYS(NR_close, was.host, 0, 0, 0, 0, 0);
    int64_t r = SYS(NR_dup3, t->dead, was.host, O_CLOEXEC, 0, 0, 0); /* may take long */
    __atomic_store_n(&d->host, BURIED(was.host), __ATOMIC_RELEASE); /* whoever waits has the lock */
    table_lock(c);
    give_back(t, number);
    table_unlock(t);
    return r < 0 ? r : 0;
}

/* Can a call on it wait?  Regular files, directories and block devices never do (in the sense that
 * a signal or a time-out could end it), and RWF_NOWAIT would be an error on half of them. */
uint8_t descriptor_waits(struct descriptor *d) {
    if (LIKELY(d->kind != KIND_UNKNOWN))
        return d->kind >= KIND_WAITS;
    kernel_stat_t st;
    if (SYS(NR_fstat, d->host, &st, 0, 0, 0, 0) < 0)
        return 0; /* let the call itself say what is wrong */
    uint32_t type = st.st_mode & S_IFMT, termios[16];
    /* null, zero, full, random: the memory devices, but not kmsg, which waits for a message. */
    int memory = type == S_IFCHR && (st.st_rdev >> 8 & 0xfff) == 1 && (st.st_rdev & 0xff) != 11;
    int file = type == S_IFREG || type == S_IFDIR || type == S_IFBLK;
    int terminal = !file && SYS(NR_ioctl, d->host, TCGETS, termios, 0, 0, 0) == 0;
    d->kind = file || memory ? KIND_NEVER_WAITS : terminal ? KIND_TERMINAL : KIND_WAITS;
    return d->kind >= KIND_WAITS;
}

/* For Python: put `host` at `number`.  The table owns it unless flags say BORROWED. */
EXPORT int64_t wali_descriptor_set(struct context *c, int32_t number, int32_t host,
                                   uint32_t flags) {
    int64_t r = descriptor_reserve(c->table, number);
    if (r == number)
        descriptor_put(c->table, number, (struct descriptor){host, (uint16_t)flags, 0, 0});
    return r == number ? 0 : r < 0 ? r : -EINVAL;
}

EXPORT int32_t wali_descriptor_host(struct context *c, int32_t number) {
    return host_of(c, number);
}

BODY(body_close) {
    return descriptor_release(c, a[0].i32);
}

/* Make a number mean what `old` means: the lowest from `from` on, or that very one, whatever it
 * meant: in one step, as others see it.  The host descriptor is duplicated too, so each number owns
 * one and closing needs no counting. */
static int64_t duplicate(struct context *c, int32_t old, int32_t from, int exactly,
                         uint16_t flags) {
    if ((uint32_t)from >= c->table->limit)
        return exactly || !descriptor_at(c, old) ? -EBADF : -EINVAL;
    struct table *t = table_lock(c);
    while (exactly && t->dead >= 0 && t->descriptors[from].host == BUSY) /* by another thread */
        SYS(NR_sched_yield, 0, 0, 0, 0, 0, 0);
    struct descriptor *over = exactly ? descriptor_at(c, from) : NULL;
    int64_t number = !descriptor_at(c, old) ? -EBADF : over ? from : descriptor_reserve(t, from);
    if (number >= 0) {
        struct descriptor copy = *descriptor_at(c, old);
        int replaces = over && !(over->flags & DESCRIPTOR_BORROWED);
        int64_t host = replaces    ? SYS(NR_dup3, copy.host, over->host, O_CLOEXEC, 0, 0, 0)
                       : c->direct ? SYS(NR_dup, copy.host, 0, 0, 0, 0, 0) /* the quicker one */
                                   : SYS(NR_fcntl, copy.host, F_DUPFD_CLOEXEC, 0, 0, 0, 0);
        copy.host = (int32_t)host;
        copy.flags = (uint16_t)((copy.flags & ~(DESCRIPTOR_BORROWED | DESCRIPTOR_CLOEXEC)) | flags);
        if (host < 0)
            number = host;
        else
            descriptor_put(t, (int32_t)number, copy);
    }
    table_unlock(t);
    return number == -EMFILE ? full(c) : number;
}

BODY(body_dup) {
    return duplicate(c, a[0].i32, 0, 0, 0);
}

BODY(body_dup2) {
    if (a[0].i32 == a[1].i32)
        return descriptor_at(c, a[0].i32) ? a[0].i32 : -EBADF;
    return duplicate(c, a[0].i32, a[1].i32, 1, 0);
}

BODY(body_dup3) {
    if (a[0].i32 == a[1].i32 || (a[2].u32 & ~(uint32_t)O_CLOEXEC))
        return -EINVAL;
    return duplicate(c, a[0].i32, a[1].i32, 1, a[2].u32 ? DESCRIPTOR_CLOEXEC : 0);
}

/* Is O_NONBLOCK the guest's alone, and unknown to the host? */
static int is_virtual(const struct context *c, const struct descriptor *d) {
    return !c->direct || d->flags & DESCRIPTOR_SHARED;
}

/* F_GETFL: what the guest would see if every description were its own. */
static int64_t status_flags(const struct context *c, struct descriptor *d) {
    int64_t flags = SYS(NR_fcntl, d->host, F_GETFL, 0, 0, 0, 0);
    if (flags < 0)
        return flags;
    flags = (int64_t)GUEST_OPEN_FLAGS(flags);
    if (is_virtual(c, d) && descriptor_waits(d))
        flags &= ~(int64_t)O_NONBLOCK;
    if (d->status & STATUS_NONBLOCK)
        flags |= O_NONBLOCK;
    return d->status & STATUS_APPEND ? flags | O_APPEND : flags;
}

/* F_SETFL.  O_NONBLOCK is ours where the host side must stay as the waiting code knows it. O_APPEND
 * of a description that the embedder shares must not change under its feet. */
static int64_t set_status_flags(const struct context *c, struct descriptor *d, uint64_t flags) {
    uint8_t status = is_virtual(c, d) && flags & O_NONBLOCK ? STATUS_NONBLOCK : 0;
    if (d->flags & DESCRIPTOR_SHARED) {
        if (flags & O_APPEND)
            status |= STATUS_APPEND;
    } else {
        int64_t r = SYS(NR_fcntl, d->host, F_GETFL, 0, 0, 0, 0);
        uint64_t passed = HOST_OPEN_FLAGS(flags & (O_APPEND | O_ASYNC | GUEST_O_DIRECT));
        if (r >= 0)
            r = SYS(NR_fcntl, d->host, F_SETFL,
                    passed | ((c->direct ? flags : (uint64_t)r) & O_NONBLOCK), 0, 0, 0);
        if (r < 0)
            return r;
    }
    d->status = status;
    return 0;
}

static int64_t set_cloexec(struct descriptor *d, int64_t on) {
    int32_t others = d->flags & ~DESCRIPTOR_CLOEXEC;
    d->flags = (uint16_t)(on ? others | DESCRIPTOR_CLOEXEC : others);
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
        return status_flags(c, d);
    if (command == F_SETFL)
        return set_status_flags(c, d, (uint64_t)argument);
    if (capable)
        return -EPERM;
    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return duplicate(c, a[0].i32, (int32_t)argument, 0,
                         command == F_DUPFD ? 0 : DESCRIPTOR_CLOEXEC);
    case F_GETFD:
        return d->flags & DESCRIPTOR_CLOEXEC ? FD_CLOEXEC : 0;
    case F_SETFD:
        return set_cloexec(d, argument & FD_CLOEXEC);
    }
    int32_t size = listed_size(LISTED_FCNTL, (uint32_t)command);
    uint8_t *record = space_buffer(c, s, (uint32_t)argument, size > 0 ? (uint32_t)size : 0);
    if (size < 0 ||
        (size == 0 && d->flags & DESCRIPTOR_SHARED)) /* what is the embedder's as well */
        return -EINVAL;
    return WAIT(c, NR_fcntl, d->host, command, size ? (int64_t)record : argument, 0, 0, 0);
}

/* Is it the main end of a terminal?  A driver, or who serves a file system in user space (FUSE),
 * answers a request with whatever number it likes: only ptmx's is a descriptor. */
static int is_main_end(int32_t host) {
    kernel_stat_t st;
    return SYS(NR_fstat, host, &st, 0, 0, 0, 0) == 0 && (st.st_mode & S_IFMT) == S_IFCHR &&
           st.st_rdev == (TTYAUX_MAJOR << 8 | 2); /* see ptmx(4) */
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
    if (request == FIOCLEX || request == FIONCLEX)
        return set_cloexec(d, request == FIOCLEX);
    if (request == TIOCGPTPEER && is_main_end(d->host)) {
        uint64_t flags = HOST_OPEN_FLAGS(a[2].u32 | O_CLOEXEC);
        return descriptor_install_made(c, SYS(NR_ioctl, d->host, request, flags, 0, 0, 0),
                                       a[2].u32);
    }
    if (size <= 0)
        return size ? -ENOTTY : SYS(NR_ioctl, d->host, request, a[2].u32, 0, 0, 0);
    uint8_t *argument = space_buffer(c, s, a[2].u32, (uint32_t)size);
    if (request == FIONBIO && is_virtual(c, d)) {
        int32_t on;
        if (wali_copy(&on, argument, sizeof on))
            return -EFAULT;
        d->status = (uint8_t)(on ? d->status | STATUS_NONBLOCK : d->status & ~STATUS_NONBLOCK);
        return 0;
    }
    return SYS(NR_ioctl, d->host, request, argument, 0, 0, 0);
}
