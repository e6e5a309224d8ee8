/* Sockets: those that the host handed over, and those accepted from them. */
#include "descriptors.h"
#include "errno.h"
#include "exports.h"
#include "memory.h"

enum { BOUNCE_SIZE = 65536 }; /* the largest datagram of UDP fits */

static errno_t require_socket(fd_t fd, rights_t needed, struct descriptor **out) {
    errno_t error = descriptor_identify(fd, out);
    if (error)
        return error;
    if (!(rights_of_filetype((*out)->filetype) & RIGHTS_SOCK_SHUTDOWN))
        return ERRNO_NOTSOCK;
    return descriptor_require(fd, needed, out);
}

errno_t sock_accept(fd_t fd, uint32_t flags, guest_address out) {
    struct descriptor *listening;
    errno_t error = require_socket(fd, RIGHTS_SOCK_ACCEPT, &listening);
    if (error)
        return error;
    if (flags & ~FDFLAGS_NONBLOCK)
        return ERRNO_INVAL;
    if (guest_check(out, sizeof(fd_t)))
        return ERRNO_FAULT;
    int64_t accepted = sys_accept4(fd, NULL, NULL, SOCK_CLOEXEC | (flags ? SOCK_NONBLOCK : 0));
    if (accepted < 0)
        return errno_of(accepted);
    struct descriptor connection = {
        .base = RIGHTS_SOCKET & listening->inheriting,
        .filetype = FILETYPE_SOCKET_STREAM,
        .flags = flags,
    };
    error = descriptor_add(accepted, connection);
    if (error) {
        sys_close(accepted);
        return error;
    }
    return errno_of(guest_store_u32(out, accepted));
}

/* --- receiving ------------------------------------------------------------------------------ */

struct scatter { /* a place in a guest's iovec array */
    guest_address iovs;
    uint32_t count;
    struct iovec rest; /* of the current element */
};

static errno_t total_length(guest_address iovs, uint32_t count, uint64_t *out) {
    *out = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct iovec iov;
        if (guest_copy_in(&iov, iovs + i * sizeof iov, sizeof iov) ||
            guest_check(iov.base, iov.length))
            return ERRNO_FAULT;
        *out += iov.length;
    }
    return ERRNO_SUCCESS;
}

static errno_t scatter_out(struct scatter *to, const char *from, uint32_t size) {
    while (size > 0) {
        while (to->rest.length == 0) {
            if (to->count == 0 || guest_copy_in(&to->rest, to->iovs, sizeof to->rest))
                return ERRNO_FAULT;
            to->iovs += sizeof to->rest;
            to->count--;
        }
        uint32_t part = size < to->rest.length ? size : to->rest.length;
        if (guest_copy_out(to->rest.base, from, part))
            return ERRNO_FAULT;
        to->rest.base += part;
        to->rest.length -= part;
        from += part;
        size -= part;
    }
    return ERRNO_SUCCESS;
}

static char *bounce_buffer(void) {
    static char *buffer; /* kept: few guests need it */
    if (!buffer)
        buffer = memory_allocate(BOUNCE_SIZE);
    return buffer;
}

static int32_t flags_to_receive(uint32_t riflags) {
    return (riflags & RIFLAGS_RECV_PEEK ? MSG_PEEK : 0) |
           (riflags & RIFLAGS_RECV_WAITALL ? MSG_WAITALL : 0);
}

/* What was received before an error counts: it is out of the socket. */
static errno_t receive(fd_t fd, struct scatter *to, uint64_t wanted, uint32_t riflags,
                       uint32_t *received) {
    char *buffer = bounce_buffer();
    if (!buffer)
        return ERRNO_NOMEM;
    do {
        uint32_t size = wanted < BOUNCE_SIZE ? wanted : BOUNCE_SIZE;
        int64_t got =
            at_most(size, sys_recvfrom(fd, buffer, size, flags_to_receive(riflags), NULL, NULL));
        if (got < 0)
            return *received ? ERRNO_SUCCESS : errno_of(got);
        if (scatter_out(to, buffer, got))
            return ERRNO_FAULT;
        *received += got;
        wanted -= got;
        if (got < size || riflags != RIFLAGS_RECV_WAITALL)
            break;
    } while (wanted > 0);
    return ERRNO_SUCCESS;
}

/* Without flags, a receive is a read. */
static errno_t receive_plainly(fd_t fd, guest_address iovs, uint32_t count, uint32_t *received) {
    int64_t result = guest_readv(fd, iovs, count);
    *received = result;
    return errno_of(result);
}

static errno_t receive_stream(fd_t fd, guest_address iovs, uint32_t count, uint32_t riflags,
                              uint32_t *received) {
    if (!riflags)
        return receive_plainly(fd, iovs, count, received);
    uint64_t wanted;
    errno_t error = total_length(iovs, count, &wanted);
    if (error)
        return error;
    struct scatter to = {.iovs = iovs, .count = count};
    return receive(fd, &to, wanted < INT32_MAX ? wanted : INT32_MAX, riflags, received);
}

/* Larger than the bounce buffer, which only those of unix sockets can be.  Whoever shares the
 * socket may take the one that was looked at: then the flag is that one's. */
static errno_t receive_large_datagram(fd_t fd, guest_address iovs, uint32_t count, uint64_t room,
                                      uint32_t *received, bool *cut) {
    char nothing;
    int64_t size = sys_recvfrom(fd, &nothing, 0, MSG_PEEK | MSG_TRUNC, NULL, NULL);
    if (size < 0)
        return errno_of(size);
    *cut = (uint64_t)size > room;
    return receive_plainly(fd, iovs, count, received);
}

/* One whole datagram, or as much of it as there is room for, even none: the rest is lost.  It is
 * not read, since to read nothing would leave it there; and MSG_TRUNC has the kernel say how large
 * it was. */
static errno_t receive_datagram(fd_t fd, guest_address iovs, uint32_t count, uint32_t riflags,
                                uint32_t *received, bool *cut) {
    uint64_t room;
    errno_t error = total_length(iovs, count, &room);
    if (error)
        return error;
    if (room > BOUNCE_SIZE && !(riflags & RIFLAGS_RECV_PEEK))
        return receive_large_datagram(fd, iovs, count, room, received, cut);
    char *buffer = bounce_buffer();
    if (!buffer)
        return ERRNO_NOMEM;
    uint32_t size = room < BOUNCE_SIZE ? room : BOUNCE_SIZE;
    int32_t flags = MSG_TRUNC | (riflags & RIFLAGS_RECV_PEEK ? MSG_PEEK : 0);
    int64_t length = sys_recvfrom(fd, buffer, size, flags, NULL, NULL);
    if (length < 0)
        return errno_of(length);
    *cut = length > size;
    *received = *cut ? size : length;
    struct scatter to = {.iovs = iovs, .count = count};
    return scatter_out(&to, buffer, *received);
}

errno_t sock_recv(fd_t fd, guest_address iovs, uint32_t count, uint32_t riflags,
                  guest_address size_out, guest_address flags_out) {
    struct descriptor *socket;
    errno_t error = require_socket(fd, RIGHTS_FD_READ, &socket);
    if (error)
        return error;
    if (count > IOV_MAX || riflags & ~RIFLAGS_ALL)
        return ERRNO_INVAL;
    if (guest_check(size_out, sizeof(uint32_t)) || guest_check(flags_out, sizeof(uint16_t)))
        return ERRNO_FAULT;
    uint32_t received = 0;
    bool cut = false; /* a stream has no such thing */
    if (socket->filetype == FILETYPE_SOCKET_DGRAM)
        error = receive_datagram(fd, iovs, count, riflags, &received, &cut);
    else
        error = receive_stream(fd, iovs, count, riflags, &received);
    const uint16_t roflags = cut ? ROFLAGS_RECV_DATA_TRUNCATED : 0;
    if (!error)
        error = errno_of(guest_copy_out(flags_out, &roflags, sizeof roflags));
    return error ? error : errno_of(guest_store_u32(size_out, received));
}

/* --- sending, closing ----------------------------------------------------------------------- */

errno_t sock_send(fd_t fd, guest_address iovs, uint32_t count, uint32_t siflags,
                  guest_address out) {
    struct descriptor *socket;
    errno_t error = require_socket(fd, RIGHTS_FD_WRITE, &socket);
    if (error)
        return error;
    if (count > IOV_MAX || siflags)
        return ERRNO_INVAL;
    if (guest_check(out, sizeof(uint32_t)))
        return ERRNO_FAULT;
    int64_t result = guest_writev(fd, iovs, count); /* no flags: a send is a write */
    return result < 0 ? errno_of(result) : errno_of(guest_store_u32(out, result));
}

errno_t sock_shutdown(fd_t fd, uint32_t how) {
    static const uint8_t linux_how[] = {
        [SDFLAGS_RD] = SHUT_RD,
        [SDFLAGS_WR] = SHUT_WR,
        [SDFLAGS_ALL] = SHUT_RDWR,
    };
    struct descriptor *socket;
    errno_t error = require_socket(fd, RIGHTS_SOCK_SHUTDOWN, &socket);
    if (error)
        return error;
    if (how == 0 || how > SDFLAGS_ALL)
        return ERRNO_INVAL;
    return errno_of(sys_shutdown(fd, linux_how[how]));
}
