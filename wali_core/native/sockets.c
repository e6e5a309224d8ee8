/* Sockets that a WALI program makes.  (io.c has what works on any socket.)
 *
 * Every list here is closed: a domain, an option or a flag that nobody looked at is refused, since
 * several of them pass what confines the process (MPTCP, Fast Open, raw and netlink sockets).  The
 * host's socket is non-blocking; whether the guest's calls wait is in its table.
 */
#include "core.h"

/* May this guest have such a socket?  A confined one has TCP only where a port is granted, and unix
 * sockets where a view shows the granted ones; which, is the kernel's business (Landlock). */
static int64_t socket_allowed(const struct context *c, int32_t domain, int32_t type,
                              int32_t protocol) {
    int known =
        type == SOCK_STREAM || type == SOCK_DGRAM || (type == SOCK_SEQPACKET && domain == AF_UNIX);
    int32_t own = domain == AF_UNIX ? 0 : type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
    int other = protocol != 0 && protocol != own;
    if (domain != AF_UNIX && domain != AF_INET && domain != AF_INET6)
        return -EAFNOSUPPORT;
    if (type < 0 || type >= SOCK_MAX || (domain != AF_UNIX && protocol < 0))
        return -EINVAL;
    if (other || !known)
        return known || (other && domain == AF_UNIX) ? -EPROTONOSUPPORT : -ESOCKTNOSUPPORT;
    uint32_t tcp = own == IPPROTO_TCP ? NETWORK_CONNECT | NETWORK_LISTEN : 0;
    uint32_t enough = NETWORK_ANY | (domain == AF_UNIX ? NETWORK_UNIX : tcp);
    return c->network & enough ? 0 : -EACCES;
}

BODY(body_socket) {
    uint32_t type = a[1].u32 & SOCK_TYPE, flags = a[1].u32 & ~(uint32_t)SOCK_TYPE;
    if (flags & ~(uint32_t)(SOCK_NONBLOCK | SOCK_CLOEXEC))
        return -EINVAL;
    int64_t r = socket_allowed(c, a[0].i32, (int32_t)type, a[2].i32);
    if (r < 0)
        return r;
    uint64_t made = type | (flags & ~(uint32_t)SOCK_NONBLOCK) | host_nonblock(c, flags);
    r = SYS(NR_socket, a[0].i32, made | SOCK_CLOEXEC, a[2].i32, 0, 0, 0);
    return descriptor_install_made(c, r, flags);
}

BODY(body_socketpair) {
    uint32_t type = a[1].u32 & SOCK_TYPE, flags = a[1].u32 & ~(SOCK_TYPE | SOCK_NONBLOCK);
    int32_t pair[2] = {-1, -1};
    if (flags & ~(uint32_t)SOCK_CLOEXEC)
        return -EINVAL;
    if (copy_to(c, s, a[3].u32, pair, sizeof pair)) /* before there is anything */
        return -EFAULT;
    int64_t r = socket_allowed(c, a[0].i32, (int32_t)type, a[2].i32);
    if (a[0].i32 != AF_UNIX)
        return r < 0 ? r : -EOPNOTSUPP;
    uint64_t made = type | flags | host_nonblock(c, a[1].u32);
    r = SYS(NR_socketpair, AF_UNIX, made | SOCK_CLOEXEC, a[2].i32, pair, 0, 0);
    return r < 0 ? r : descriptor_install_pair(c, s, a[3].u32, pair, a[1].u32);
}

/* connect(2): where it is waited for, the attempt goes on in the background.  A unix socket whose
 * listener takes no more is asked again every 10 ms: nothing tells when there is room. */
BODY(body_connect) {
    struct descriptor *d = descriptor_at(c, a[0].i32);
    uint8_t *address = space_buffer(c, s, a[1].u32, a[2].u32);
    if (d == NULL)
        return -EBADF;
    struct pollfd fds[2] = {{.fd = d->host, .events = POLLOUT}};
    int64_t r, waits = !c->direct && !(d->status & STATUS_NONBLOCK);
    while ((r = WAIT(c, NR_connect, d->host, address, a[2].u32, 0, 0, 0)) == -EAGAIN && waits)
        if ((r = wait_for(c, fds, 0, clock_now(CLOCK_MONOTONIC) + NSEC / 100)) < 0)
            return r;
    if (!waits || (r != -EINPROGRESS && r != -EALREADY))
        return r;
    r = wait_for(c, fds, 1, INT64_MAX);
    return r < 0 ? r : SYS(NR_connect, d->host, address, a[2].u32, 0, 0, 0); /* how it went */
}

/* listen(2) without a bind takes any port, which no hook of the kernel sees. */
BODY(body_listen) {
    int32_t host = host_of(c, a[0].i32);
    if (host < 0)
        return -EBADF;
    if (!(c->network & (NETWORK_ANY | NETWORK_LISTEN)))
        return -EACCES;
    return SYS(NR_listen, host, a[1].i32, 0, 0, 0, 0);
}

/* The kernel reads and writes a value in the program's memory, as much of it as the option has:
 * each on the list is less than the guard pages behind every memory.  The others are one that
 * nobody knows, at whatever level. */
static int32_t option_of(const wasmtime_val_raw_t *a) {
    return listed_size(a[1].i32, a[2].u32) < 0 ? -1 : a[2].i32;
}

BODY(body_setsockopt) {
    uint8_t *value = space_buffer(c, s, a[3].u32, a[4].i32 < 0 ? 0 : a[4].u32);
    return SYS(NR_setsockopt, host_of(c, a[0].i32), a[1].i32, option_of(a), value, a[4].i32, 0);
}

BODY(body_getsockopt) {
    uint8_t *value = space_buffer(c, s, a[3].u32, 0), *length = space_buffer(c, s, a[4].u32, 4);
    return SYS(NR_getsockopt, host_of(c, a[0].i32), a[1].i32, option_of(a), value, length, 0);
}
