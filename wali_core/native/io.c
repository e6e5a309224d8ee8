/* read, write and their kin: vectors, and waiting where a call can wait. */
#include "core.h"

struct transfer {
    struct descriptor *d;
    struct iovec *iov;
    uint32_t count;
    int writes;
};

static int64_t wait_ready(struct context *c, const struct transfer *t, int64_t until) {
    struct pollfd fds[2] = {{t->d->host, t->writes ? POLLOUT : POLLIN, until ? TRIED : 0}};
    return wait_for(c, fds, 1, until);
}

/* How much may be written after a POLLOUT without waiting all the same.  A FIFO takes PIPE_BUF.  A
 * terminal keeps who writes until it has all, and promises no more than one step of its own: a line
 * feed becomes two bytes, a tab up to eight, all else goes in runs; a pseudo-terminal's room is a
 * multiple of 256. */
static uint64_t taken_at_once(const struct transfer *t) {
    uint8_t text[256];
    int terminal = t->d->kind == KIND_TERMINAL;
    uint64_t n = 1, most = terminal ? sizeof text : PIPE_BUF;
    most = t->iov->length < most ? t->iov->length : most;
    if (!terminal)
        return most;
    if (wali_copy(text, t->iov->base, most) == 0)
        while (n < most && text[0] >= ' ' && text[n] >= ' ')
            n++;
    return n;
}

/* Terminals and FIFOs do not know RWF_NOWAIT.  There the kernel says when a call would not wait. */
static int64_t attempt_when_ready(struct context *c, const struct transfer *t) {
    int64_t ready = wait_ready(c, t, 0);
    if (ready <= 0)
        return ready < 0 ? ready : -EAGAIN;
    if (!t->writes)
        return SYS(NR_readv, t->d->host, t->iov, t->count, 0, 0, 0);
    return SYS(NR_write, t->d->host, t->iov->base, taken_at_once(t), 0, 0, 0);
}

/* What comes behind `done` bytes.  NULL, which the kernel refuses, has nothing behind it: a call
 * that is made again need not be the one that has done so much. */
static uint8_t *behind(uint8_t *buffer, uint64_t done) {
    return buffer ? buffer + done : NULL;
}

/* Drop what has been written.  1 while something is left. */
static int advance(struct transfer *t, uint64_t done) {
    while (t->count && done >= t->iov->length) {
        done -= t->iov->length;
        t->iov++;
        t->count--;
    }
    if (t->count) {
        t->iov->base = behind(t->iov->base, done);
        t->iov->length -= done;
    }
    return t->count != 0;
}

/* The bytes that it has moved are its statistics, also of a call that does not come to its end. */
static int64_t counted(struct context *c, int64_t moved, int writes) {
    if (moved > 0)
        *(writes ? &c->written : &c->read) += (uint64_t)moved;
    return moved;
}

/* A transfer's end, short of what was asked for: its result, or what is to be remembered. */
static int64_t partly(struct context *c, int64_t done, int64_t r) {
    c->slot.done = r == SUSPENDED ? done : 0;
    return done && !GIVES_UP(r) ? done : r;
}

/* On what can wait.  A blocking write is not done before everything is written, as natively. */
static int64_t transfer_waiting(struct context *c, struct transfer *t) {
    int64_t written = done_before(c, INT64_MAX);
    advance(t, (uint64_t)written);
    for (;;) {
        int64_t r = SYS(t->writes ? NR_pwritev2 : NR_preadv2, t->d->host, t->iov, t->count, -1, -1,
                        RWF_NOWAIT);
        if (r == -EOPNOTSUPP)
            r = attempt_when_ready(c, t);
        if (r == -EAGAIN && !(t->d->status & STATUS_NONBLOCK)) {
            r = wait_ready(c, t, INT64_MAX);
            if (r >= 0)
                continue;
        }
        if (r < 0)
            return partly(c, written, r);
        written += counted(c, r, t->writes);
        if (!t->writes || r == 0 || t->d->status & STATUS_NONBLOCK || !advance(t, (uint64_t)r))
            return written;
    }
}

ALWAYS_INLINE int64_t transfer(struct context *c, int32_t number, struct iovec *iov, uint32_t count,
                               int writes) {
    struct descriptor *d = descriptor_at(c, number);
    if (d == NULL)
        return -EBADF;
    if (waits_in_kernel(c, d) || !descriptor_waits(d)) {
        if (writes && d->status & STATUS_APPEND)
            return counted(c, WAIT(c, NR_pwritev2, d->host, iov, count, -1, -1, RWF_APPEND), 1);
        int64_t call = writes ? NR_write : NR_read, vector = writes ? NR_writev : NR_readv;
        if (count == 1) /* the kernel has less to do for one buffer */
            return counted(c, WAIT(c, call, d->host, iov->base, iov->length, 0, 0, 0), writes);
        return counted(c, WAIT(c, vector, d->host, iov, count, 0, 0, 0), writes);
    }
    struct transfer t = {d, iov, count, writes};
    return transfer_waiting(c, &t);
}

static int64_t transfer_vector(struct context *c, struct space *s, const wasmtime_val_raw_t *a,
                               int writes) {
    uint32_t count = a[2].u32;
    int64_t call = writes ? NR_writev : NR_readv;
    struct iovec iov[IOVECS(count)];
    if (copy_iovec(c, s, a[1].u32, count, iov) < 0)
        return SYS(call, host_of(c, a[0].i32), WALI_BAD, count, 0, 0, 0);
    if (count == 1 && iov->length == 0) /* of one buffer it would be a plain write: of nothing */
        iov[count++] = *iov;
    return transfer(c, a[0].i32, iov, count, writes);
}

static int64_t transfer_buffer(struct context *c, struct space *s, const wasmtime_val_raw_t *a,
                               int writes) {
    struct iovec one = {space_buffer(c, s, a[1].u32, a[2].u32), a[2].u32};
    return transfer(c, a[0].i32, &one, 1, writes);
}

BODY(body_read) {
    return transfer_buffer(c, s, a, 0);
}

BODY(body_write) {
    return transfer_buffer(c, s, a, 1);
}

BODY(body_readv) {
    return transfer_vector(c, s, a, 0);
}

BODY(body_writev) {
    return transfer_vector(c, s, a, 1);
}

/* At an offset: only files that can seek, and those never wait. */
static int64_t transfer_at(struct context *c, struct space *s, int64_t call, int64_t single,
                           const wasmtime_val_raw_t *a, int32_t flags) {
    uint32_t count = a[2].u32;
    int32_t host = host_of(c, a[0].i32);
    struct iovec iov[IOVECS(count)];
    if (copy_iovec(c, s, a[1].u32, count, iov) < 0)
        return SYS(call, host, WALI_BAD, count, a[3].i64, 0, flags);
    return count == 1 && single ? SYS(single, host, iov->base, iov->length, a[3].i64, 0, 0)
                                : SYS(call, host, iov, count, a[3].i64, 0, flags);
}

BODY(body_preadv) {
    return counted(c, transfer_at(c, s, NR_preadv, NR_pread64, a, 0), 0);
}

BODY(body_pwritev) {
    return counted(c, transfer_at(c, s, NR_pwritev, NR_pwrite64, a, 0), 1);
}

/* With RWF_APPEND, on a descriptor that can wait, it is a plain write: nothing has an end there. */
BODY(body_pwritev2) {
    int32_t flags = a[4].i32 & ~(RWF_APPEND | RWF_NOAPPEND) ? -1 : a[4].i32; /* -1 are too many */
    struct descriptor *d = descriptor_at(c, a[0].i32);
    if (d && a[3].i64 == -1 && flags >= 0 && descriptor_waits(d))
        return transfer_vector(c, s, a, 1);
    return counted(c, transfer_at(c, s, NR_pwritev2, 0, a, flags), 1);
}

/* --- sockets ---------------------------------------------------------------------------------- */

/* One attempt must not wait, and has not been possible: 1 when it is to be made again. */
static int64_t again(struct context *c, struct descriptor *d, int32_t flags, int writes) {
    if (flags & MSG_DONTWAIT || d->status & STATUS_NONBLOCK)
        return -EAGAIN;
    struct pollfd fds[2] = {{d->host, writes ? POLLOUT : POLLIN, TRIED}};
    int64_t ready = wait_for(c, fds, 1, INT64_MAX);
    return ready < 0 ? ready : 1;
}

struct message {
    struct descriptor *d;
    uint8_t *buffer;
    uint64_t size;
    int32_t flags;
};

/* What sendto and recvfrom have in common.  No addresses: those are for unconnected sockets, which
 * only a program in a process of its own has; and few flags, that waiting can be made of. */
static int64_t message_of(struct context *c, struct space *s, const wasmtime_val_raw_t *a,
                          struct message *m) {
    m->d = descriptor_at(c, a[0].i32);
    if (m->d == NULL)
        return -EBADF;
    m->buffer = space_buffer(c, s, a[1].u32, a[2].u32);
    if (m->buffer == WALI_BAD)
        return -EFAULT;
    m->size = a[2].u32;
    m->flags = a[3].i32;
    return m->flags & ~FEW_MESSAGE_FLAGS || a[4].u32 ? -EINVAL : 0;
}

static int is_stream(int32_t socket) {
    int32_t type = 0;
    uint32_t size = sizeof type;
    SYS(NR_getsockopt, socket, SOL_SOCKET, SO_TYPE, &type, &size, 0);
    return type == SOCK_STREAM;
}

BODY(body_recvfrom) {
    struct message m = {0};
    int64_t r = message_of(c, s, a, &m), got = done_before(c, m.size);
    if (r < 0)
        return r;
    int all = m.flags & MSG_WAITALL && !(m.flags & MSG_PEEK) && is_stream(m.d->host);
    for (;;) {
        int32_t flags = (m.flags & ~MSG_WAITALL) | MSG_DONTWAIT;
        r = SYS(NR_recvfrom, m.d->host, behind(m.buffer, (uint64_t)got), m.size - (uint64_t)got,
                flags, 0, 0);
        if (r == -EAGAIN && (r = again(c, m.d, m.flags, 0)) == 1)
            continue;
        if (r <= 0)
            return partly(c, got, r);
        got += counted(c, r, 0);
        if (!all || (uint64_t)got >= m.size)
            return got;
    }
}

BODY(body_sendto) {
    struct message m = {0};
    int64_t r = message_of(c, s, a, &m), sent = done_before(c, m.size);
    if (r < 0)
        return r;
    for (;;) {
        int32_t flags = m.flags | MSG_DONTWAIT | MSG_NOSIGNAL;
        r = SYS(NR_sendto, m.d->host, behind(m.buffer, (uint64_t)sent), m.size - (uint64_t)sent,
                flags, 0, 0);
        if (r == -EAGAIN && (r = again(c, m.d, m.flags, 1)) == 1)
            continue;
        if (r < 0)
            return partly(c, sent, r);
        sent += counted(c, r, 1);
        if ((uint64_t)sent >= m.size || m.flags & MSG_DONTWAIT || m.d->status & STATUS_NONBLOCK)
            return sent;
    }
}

/* sendmsg(2) and recvmsg(2).  Control messages are translated in Python. */
static int64_t message_vector(struct context *c, struct space *s, const wasmtime_val_raw_t *a,
                              int64_t number, uint32_t hosted, int sends) {
    struct {
        uint32_t name, name_length, iov, count, pad, control, control_length, pad2, flags;
    } guest;
    struct {
        void *name;
        uint64_t name_length;
        struct iovec *iov;
        uint64_t count, control, control_length, flags;
    } host = {0};
    struct descriptor *d = descriptor_at(c, a[0].i32);
    uint32_t unknown = a[2].u32 & ~(uint32_t)MESSAGE_FLAGS;
    if (d == NULL || unknown || copy_from(c, s, a[1].u32, &guest, sizeof guest)) {
        int64_t wrong = SYS(number, d ? d->host : -1, WALI_BAD, a[2].u32, 0, 0, 0);
        return unknown && wrong == -EFAULT ? -EINVAL : wrong;
    }
    uint32_t flags = a[2].u32 | (waits_in_kernel(c, d) ? 0 : MSG_DONTWAIT);
    const wasmtime_val_raw_t b[3] = {a[0], a[1], {.u32 = flags}};
    if (guest.control && guest.control_length)
        return c->host(c, hosted, b);
    struct iovec iov[IOVECS(guest.count)];
    host.name = space_buffer(c, s, guest.name, guest.name_length);
    host.iov = copy_iovec(c, s, guest.iov, guest.count, iov) < 0 ? (void *)WALI_BAD : iov;
    host.count = guest.count;
    host.name_length = host.name ? guest.name_length : 0;
    int64_t r;
    do {
        r = WAIT(c, number, d->host, &host, flags, 0, 0, 0);
    } while (r == -EAGAIN && !c->direct && (r = again(c, d, a[2].i32, sends)) == 1);
    if (r < 0 || sends)
        return r;
    guest.name_length = host.name ? (uint32_t)host.name_length : guest.name_length;
    guest.control_length = 0;
    guest.flags = (uint32_t)host.flags;
    return copy_to(c, s, a[1].u32, &guest, sizeof guest) ? -EFAULT : r;
}

BODY(body_sendmsg) {
    return message_vector(c, s, a, NR_sendmsg, HOST_sendmsg, 1);
}

BODY(body_recvmsg) {
    return message_vector(c, s, a, NR_recvmsg, HOST_recvmsg, 0);
}

/* The new socket is non-blocking for us, and for the guest what it asked for.  An inherited
 * listener may be a blocking one, so it is polled first: only if another process takes the
 * connection in between does this accept wait for the next. */
BODY(body_accept4) {
    struct descriptor *d = descriptor_at(c, a[0].i32);
    uint32_t flags = a[3].u32;
    if (d == NULL)
        return -EBADF;
    if ((capable && a[1].u32) || (flags & ~(uint32_t)(SOCK_NONBLOCK | SOCK_CLOEXEC)))
        return -EINVAL;
    uint8_t *name = space_buffer(c, s, a[1].u32, 0);
    uint8_t *length = space_buffer(c, s, a[2].u32, 4);
    struct pollfd fds[2] = {{.fd = d->host, .events = POLLIN}};
    int64_t until = d->status & STATUS_NONBLOCK ? 0 : INT64_MAX;
    int64_t r = waits_in_kernel(c, d) ? 1 : wait_for(c, fds, 1, until);
    if (r <= 0)
        return r < 0 ? r : -EAGAIN;
    r = WAIT(c, NR_accept4, d->host, name, length, host_nonblock(c, flags) | SOCK_CLOEXEC, 0, 0);
    return descriptor_install_made(c, r, flags);
}
