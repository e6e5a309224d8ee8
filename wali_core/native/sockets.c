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
    if (domain != AF_UNIX && domain != AF_INET && domain != AF_INET6)
        return -EAFNOSUPPORT;
    if (type != SOCK_STREAM && type != SOCK_DGRAM && (type != SOCK_SEQPACKET || domain != AF_UNIX))
        return -EPROTONOSUPPORT;
    int32_t own = domain == AF_UNIX ? 0 : type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
    if (protocol != 0 && protocol != own)
        return -EPROTONOSUPPORT;
    uint32_t tcp = own == IPPROTO_TCP ? NETWORK_CONNECT | NETWORK_LISTEN : 0;
    uint32_t enough = NETWORK_ANY | (domain == AF_UNIX ? NETWORK_UNIX : tcp);
    return c->network & enough ? 0 : -EACCES;
}

BODY(body_socket) {
    uint32_t type = a[1].u32 & SOCK_TYPE, flags = a[1].u32 & ~(uint32_t)SOCK_TYPE;
    int64_t r = socket_allowed(c, a[0].i32, (int32_t)type, a[2].i32);
    if (r < 0)
        return r;
    uint64_t made = type | (flags & ~(uint32_t)SOCK_NONBLOCK) | host_nonblock(c, flags);
    r = SYS(NR_socket, a[0].i32, made | SOCK_CLOEXEC, a[2].i32, 0, 0, 0);
    return descriptor_install_made(c, r, flags);
}

BODY(body_socketpair) {
    uint32_t flags = a[1].u32 & ~(uint32_t)(SOCK_TYPE | SOCK_NONBLOCK);
    int32_t pair[2];
    if (a[0].i32 != AF_UNIX)
        return a[0].i32 == AF_INET || a[0].i32 == AF_INET6 ? -EOPNOTSUPP : -EAFNOSUPPORT;
    uint64_t made = (a[1].u32 & SOCK_TYPE) | flags | host_nonblock(c, a[1].u32);
    int64_t r = SYS(NR_socketpair, AF_UNIX, made | SOCK_CLOEXEC, a[2].i32, pair, 0, 0);
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

/* The kernel gets as much of a value as the program gives, up to the option's size, and says itself
 * what is too little. */
BODY(body_setsockopt) {
    uint8_t value[OPTION_MAX];
    int32_t host = host_of(c, a[0].i32), size = listed_size(a[1].i32, a[2].u32);
    if (host < 0 || size < 0)
        return host < 0 ? -EBADF : -ENOPROTOOPT;
    uint32_t length = a[4].u32 < (uint32_t)size ? a[4].u32 : (uint32_t)size;
    if (a[4].i32 < 0 || copy_from(c, s, a[3].u32, value, length))
        return a[4].i32 < 0 ? -EINVAL : -EFAULT;
    return SYS(NR_setsockopt, host, a[1].i32, a[2].i32, value, length, 0);
}

BODY(body_getsockopt) {
    uint8_t value[OPTION_MAX];
    int32_t length, host = host_of(c, a[0].i32), size = listed_size(a[1].i32, a[2].u32);
    if (host < 0 || size < 0)
        return host < 0 ? -EBADF : -ENOPROTOOPT;
    if (copy_from(c, s, a[4].u32, &length, sizeof length))
        return -EFAULT;
    length = length > OPTION_MAX ? OPTION_MAX : length;
    int64_t r = SYS(NR_getsockopt, host, a[1].i32, a[2].i32, value, &length, 0);
    if (r < 0)
        return r;
    if (length && copy_to(c, s, a[3].u32, value, (uint32_t)length))
        return -EFAULT;
    return copy_to(c, s, a[4].u32, &length, sizeof length);
}
