/* poll_oneoff: clocks and descriptors, waited for together and reported together. */
#include "descriptors.h"
#include "errno.h"
#include "exports.h"
#include "memory.h"
#include "nanoseconds.h"
#include "now.h"

enum {
    FEW = 16,    /* subscriptions that fit on the stack: nearly every call */
    MANY = 4096, /* ... and what a guest may have at all */
};

struct waiting { /* one subscription, while the call lasts */
    uint64_t userdata;
    uint64_t deadline; /* clocks: nanoseconds on `clock` */
    fd_t fd;
    uint16_t pollfd; /* descriptors: which one stands for it, unless there is an error */
    uint16_t error;  /* known from the start: ready at once */
    uint8_t tag;
    uint8_t clock;
};

struct poll {
    struct waiting *waiting;
    struct kernel_pollfd *pollfds; /* one for each descriptor, however often it is among them */
    uint32_t count;
    uint32_t pollfd_count;
    bool at_once;
    const struct waiting *over; /* the clock whose time is over, says who has waited for it */
};

typedef errno_t (*subscription_reader)(struct waiting *out, guest_address from, uint32_t index);

/* --- subscriptions -------------------------------------------------------------------------- */

/* A relative timeout does not care when somebody sets the wall clock; an absolute one does. */
static errno_t read_clock(struct waiting *out, uint32_t clock, uint64_t timeout, uint16_t flags) {
    if (clock > CLOCK_THREAD_CPUTIME_ID || flags & ~SUBCLOCKFLAGS_ABSTIME)
        return ERRNO_INVAL;
    if (clock > CLOCK_MONOTONIC)
        return ERRNO_NOTSUP; /* a clock of the guest's own work stands still while it waits */
    out->clock = flags & SUBCLOCKFLAGS_ABSTIME ? clock : CLOCK_MONOTONIC;
    out->deadline = timeout;
    if (flags & SUBCLOCKFLAGS_ABSTIME)
        return ERRNO_SUCCESS;
    uint64_t now;
    int64_t result = clock_now(CLOCK_MONOTONIC, &now);
    if (__builtin_add_overflow(now, timeout, &out->deadline))
        out->deadline = UINT64_MAX;
    return errno_of(result);
}

static errno_t read_subscription(struct waiting *out, guest_address from, uint32_t index) {
    struct subscription given;
    if (guest_copy_in(&given, from + index * sizeof given, sizeof given))
        return ERRNO_FAULT;
    *out = (struct waiting){.userdata = given.userdata, .tag = given.tag, .fd = given.fd};
    if (given.tag == EVENTTYPE_CLOCK)
        out->error = read_clock(out, given.clock.id, given.clock.timeout, given.clock.flags);
    return ERRNO_SUCCESS;
}

static errno_t read_unstable_subscription(struct waiting *out, guest_address from, uint32_t index) {
    struct unstable_subscription given;
    if (guest_copy_in(&given, from + index * sizeof given, sizeof given))
        return ERRNO_FAULT;
    *out = (struct waiting){.userdata = given.userdata, .tag = given.tag, .fd = given.fd};
    if (given.tag == EVENTTYPE_CLOCK)
        out->error = read_clock(out, given.clock.id, given.clock.timeout, given.clock.flags);
    return ERRNO_SUCCESS;
}

/* Each descriptor is polled once, for all that is asked of it: the kernel allows no more entries
 * than there can be open files, and to read and to write are two subscriptions. */
static struct kernel_pollfd *pollfd_of(struct poll *poll, struct descriptor *descriptor, fd_t fd) {
    uint32_t i = descriptor->polled; /* of an earlier call, maybe */
    if (i >= poll->pollfd_count || poll->pollfds[i].fd != (int32_t)fd) {
        i = descriptor->polled = poll->pollfd_count++;
        poll->pollfds[i] = (struct kernel_pollfd){.fd = fd};
    }
    return &poll->pollfds[i];
}

/* A descriptor that is not there fails the whole call; one without the right is an event. */
static errno_t watch(struct poll *poll, struct waiting *waiting) {
    struct descriptor *descriptor;
    errno_t error = descriptor_identify(waiting->fd, &descriptor);
    if (error)
        return error;
    bool reads = waiting->tag == EVENTTYPE_FD_READ;
    rights_t needed = RIGHTS_POLL_FD_READWRITE | (reads ? RIGHTS_FD_READ : RIGHTS_FD_WRITE);
    waiting->error = descriptor_require(waiting->fd, needed, &descriptor);
    if (waiting->error)
        return ERRNO_SUCCESS;
    pollfd_of(poll, descriptor, waiting->fd)->events |= reads ? POLLIN : POLLOUT;
    waiting->pollfd = descriptor->polled;
    return ERRNO_SUCCESS;
}

static errno_t subscribe(struct poll *poll, guest_address in, uint32_t count,
                         subscription_reader read) {
    poll->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct waiting *waiting = &poll->waiting[i];
        errno_t error = read(waiting, in, i);
        if (!error && waiting->tag > EVENTTYPE_FD_WRITE)
            error = ERRNO_INVAL;
        if (!error && waiting->tag != EVENTTYPE_CLOCK)
            error = watch(poll, waiting);
        if (error)
            return error;
        poll->at_once |= waiting->error != 0;
    }
    return ERRNO_SUCCESS;
}

/* --- waiting -------------------------------------------------------------------------------- */

static bool is_pending_clock(const struct waiting *waiting) {
    return waiting->tag == EVENTTYPE_CLOCK && !waiting->error;
}

/* What would never come has come: a guest must not wait for ever where time stands still. */
static uint64_t time_left(const struct waiting *waiting) {
    uint64_t now;
    if (clock_stands_still(waiting->clock) || clock_now(waiting->clock, &now) < 0 ||
        now >= waiting->deadline)
        return 0;
    return waiting->deadline - now;
}

/* The clock that is due first, or NULL. */
static const struct waiting *first_clock(const struct poll *poll, uint64_t *left) {
    const struct waiting *first = NULL;
    *left = UINT64_MAX;
    for (uint32_t i = 0; i < poll->count; i++) {
        const struct waiting *waiting = &poll->waiting[i];
        if (!is_pending_clock(waiting))
            continue;
        uint64_t this_left = time_left(waiting);
        if (!first || this_left < *left) {
            first = waiting;
            *left = this_left;
        }
    }
    return first;
}

/* Time that is made does not wait for anything: what is not ready now never is, before the end. */
static int64_t pass_time(struct poll *poll, uint64_t left) {
    struct kernel_timespec none = {0};
    int64_t ready = sys_ppoll(poll->pollfds, poll->pollfd_count, &none, NULL, 0);
    if (ready == 0)
        clock_pass(left);
    return ready;
}

/* When it has waited for a monotonic clock, that is over, and not asked again: a host may run its
 * guests by a clock of its own, and then says so by returning.  The other can be set meanwhile. */
static int64_t waited(struct poll *poll, const struct waiting *clock, int64_t result) {
    if (result == 0 && clock && clock->clock == CLOCK_MONOTONIC)
        poll->over = clock;
    return result;
}

static int64_t wait_once(struct poll *poll) {
    uint64_t left = 0;
    const struct waiting *first = poll->at_once ? NULL : first_clock(poll, &left);
    if (first && clock_is_made())
        return pass_time(poll, left);
    if (poll->pollfd_count == 0 && left == 0)
        return 0;
    if (first && first->clock != CLOCK_MONOTONIC && left > NANOSECONDS_PER_SECOND)
        left = NANOSECONDS_PER_SECOND; /* somebody may set a wall clock meanwhile: looked at every
                                          second */
    struct kernel_timespec timeout = timespec_of(left);
    bool for_ever = !poll->at_once && !first;
    return waited(
        poll, first,
        sys_ppoll(poll->pollfds, poll->pollfd_count, for_ever ? NULL : &timeout, NULL, 0));
}

/* --- events --------------------------------------------------------------------------------- */

static uint64_t bytes_to_read(fd_t fd, int16_t revents) {
    struct descriptor *descriptor;
    struct kernel_stat stat;
    if (!descriptor_identify(fd, &descriptor) && descriptor->filetype == FILETYPE_REGULAR_FILE &&
        sys_fstat(fd, &stat) >= 0) {
        int64_t position = sys_lseek(fd, 0, SEEK_CUR);
        return position >= 0 && position < stat.st_size ? stat.st_size - position : 0;
    }
    int32_t pending;
    if (revents & POLLIN && sys_ioctl(fd, FIONREAD, &pending) >= 0 && pending > 0)
        return (uint64_t)pending;
    return revents & POLLIN ? 1 : 0; /* a connection to accept, say: something there is */
}

static bool clock_event(const struct poll *poll, const struct waiting *waiting, struct event *out) {
    const struct waiting *over = poll->over;
    *out = (struct event){
        .userdata = waiting->userdata, .error = waiting->error, .type = EVENTTYPE_CLOCK};
    if (over && waiting->clock == over->clock && waiting->deadline <= over->deadline)
        return true;
    return waiting->error || time_left(waiting) == 0;
}

static bool fd_event(const struct waiting *waiting, int16_t revents, struct event *out) {
    *out = (struct event){
        .userdata = waiting->userdata, .error = waiting->error, .type = waiting->tag};
    if (waiting->error)
        return true;
    if (revents & (POLLHUP | POLLERR))
        out->flags = EVENTRWFLAGS_HANGUP;
    if (waiting->tag == EVENTTYPE_FD_READ)
        out->nbytes = revents ? bytes_to_read(waiting->fd, revents) : 0;
    return revents != 0;
}

/* What has happened to the descriptor of a subscription, as far as that was what it asked for. */
static int16_t happened(const struct poll *poll, const struct waiting *waiting) {
    if (waiting->tag == EVENTTYPE_CLOCK || waiting->error)
        return 0;
    int16_t other = waiting->tag == EVENTTYPE_FD_READ ? POLLOUT : POLLIN;
    return poll->pollfds[waiting->pollfd].revents & ~other;
}

/* How many events there are, or -errno. */
static int64_t report(const struct poll *poll, guest_address out) {
    int64_t ready = 0;
    for (uint32_t i = 0; i < poll->count; i++) {
        const struct waiting *waiting = &poll->waiting[i];
        int16_t revents = happened(poll, waiting);
        struct event event;
        if (revents & POLLNVAL)
            return -EBADF;
        bool is_ready = waiting->tag == EVENTTYPE_CLOCK ? clock_event(poll, waiting, &event)
                                                        : fd_event(waiting, revents, &event);
        if (!is_ready)
            continue;
        if (guest_copy_out(out + ready * sizeof event, &event, sizeof event))
            return -EFAULT;
        ready++;
    }
    return ready;
}

static errno_t poll_subscribed(struct poll *poll, guest_address out, guest_address count_out) {
    int64_t ready = 0;
    while (ready == 0) {
        ready = wait_once(poll);
        if (ready >= 0)
            ready = report(poll, out);
    }
    return ready < 0 ? errno_of(ready) : errno_of(guest_store_u32(count_out, ready));
}

struct scratch {
    struct waiting waiting[MANY];
    struct kernel_pollfd pollfds[MANY];
};

static errno_t poll_many(struct poll *poll) {
    static struct scratch *scratch; /* kept: a guest that polls many will do so again */
    if (!scratch)
        scratch = memory_allocate(sizeof *scratch);
    if (!scratch)
        return ERRNO_NOMEM;
    poll->waiting = scratch->waiting;
    poll->pollfds = scratch->pollfds;
    return ERRNO_SUCCESS;
}

static errno_t poll_oneoff_with(guest_address in, guest_address out, uint32_t count,
                                guest_address count_out, subscription_reader read) {
    struct waiting few[FEW];
    struct kernel_pollfd few_pollfds[FEW];
    struct poll poll = {.waiting = few, .pollfds = few_pollfds};
    if (count == 0 || count > MANY)
        return ERRNO_INVAL;
    if (guest_check(out, count * sizeof(struct event)) || guest_check(count_out, sizeof(uint32_t)))
        return ERRNO_FAULT;
    errno_t error = count > FEW ? poll_many(&poll) : ERRNO_SUCCESS;
    if (!error)
        error = subscribe(&poll, in, count, read);
    return error ? error : poll_subscribed(&poll, out, count_out);
}

errno_t poll_oneoff(guest_address in, guest_address out, uint32_t count, guest_address count_out) {
    return poll_oneoff_with(in, out, count, count_out, read_subscription);
}

errno_t unstable_poll_oneoff(guest_address in, guest_address out, uint32_t count,
                             guest_address count_out) {
    return poll_oneoff_with(in, out, count, count_out, read_unstable_subscription);
}
