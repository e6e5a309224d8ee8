/* Waiting: the only places where a guest's thread sleeps.
 *
 * Every wait of a blocking store is one ppoll on the guest's descriptors and its wake-up eventfd,
 * until its deadline at the latest.  The eventfd stays readable once it was written, so a wake-up
 * between the check and the system call is not lost.  A signal of the host's ends the ppoll with
 * EINTR; who cares about it writes the eventfd, and we only look again.
 */
#include "core.h"

static int64_t nanoseconds(const struct timespec *t) {
    const int64_t most = INT64_MAX / NSEC - 1;
    return t->tv_sec > most ? INT64_MAX : t->tv_sec * NSEC + t->tv_nsec;
}

int64_t clock_now(int32_t clock) {
    struct timespec t = {0, 0};
    wasmtime.clock_gettime(clock, &t);
    return nanoseconds(&t);
}

static struct timespec none; /* for no time at all: stays so */

/* wait_for in a cooperative store: see async.c.  Whether the time is over is the reactor's to say:
 * its clock need not be ours.  What the guest waits for is kept while its stack frame is gone,
 * where there is room: else the reactor makes some, and lets it try again. */
static int64_t slot_wait(struct context *c, struct pollfd *fds, uint32_t count, int64_t until) {
    struct slot *w = &c->slot;
    int64_t r = count && fds->revents != TRIED ? SYS(NR_ppoll, fds, count, &none, 0, 8, 0) : 0;
    if (c->stop)
        return STOPPED;
    if ((r && r != -EINTR) || until <= 0)
        return r < 0 && r == -EINTR ? 0 : r;
    int resumed = w->repeats == c->calls ? w->resumed : RESUME_NOT;
    w->repeats = PARKED(c->calls + 1);
    if (resumed == RESUME_EXPIRED || (resumed == RESUME_NOT && until <= clock_now(CLOCK_MONOTONIC)))
        return 0;
    if (resumed == RESUME_NOT)
        w->until = until;
    for (uint32_t i = 0; i < count && i < w->room; i++)
        w->fds[i] = fds[i];
    w->count = count;
    return SUSPENDED;
}

/* guest.store_time(guest, clock): the nanoseconds of a clock that is read in the vDSO. */
BODY(body_store_time) {
    return a[1].u32 > CLOCK_MONOTONIC
               ? -EINVAL
               : copy_to(c, s, a[0].u32, &(int64_t){clock_now(a[1].i32)}, sizeof(int64_t));
}

/* The number of ready descriptors, 0 when `until` (CLOCK_MONOTONIC, ns) has come, STOPPED, or
 * -errno.  fds has room for one more than count. */
int64_t wait_for(struct context *c, struct pollfd *fds, uint32_t count, int64_t until) {
    c->waits++;
    if (c->cooperative)
        return slot_wait(c, fds, count, until);
    if (c->direct) /* for ever or not at all; whoever wants to end it ends the process */
        return wait_timeout(c, fds, count, until ? NULL : &none);
    if (c->wake < 0) {
        int64_t wake = SYS(NR_eventfd2, 0, O_CLOEXEC | O_NONBLOCK, 0, 0, 0, 0);
        if (wake < 0)
            return wake;
        __atomic_store_n(&c->wake, (int32_t)wake, __ATOMIC_SEQ_CST);
    }
    fds[count] = (struct pollfd){.fd = c->wake, .events = POLLIN};
    for (;;) {
        if (__atomic_load_n(&c->stop, __ATOMIC_SEQ_CST))
            return STOPPED;
        int64_t at = clock_now(CLOCK_MONOTONIC);
        if (at >= c->deadline) { /* also of what is ready for ever, and has nothing to give */
            c->stop = STOP_TIMEOUT;
            return STOPPED;
        }
        int64_t first = until < c->deadline ? until : c->deadline;
        int64_t left = first > at ? first - at : 0;
        struct timespec timeout = {left / NSEC, left % NSEC};
        int64_t r = SYS(NR_ppoll, fds, count + 1, first == INT64_MAX ? NULL : &timeout, 0, 8, 0);
        if (r > 0 && fds[count].revents) { /* woken: stop says why; it must not come again */
            uint64_t value;
            if (!__atomic_load_n(&c->stop, __ATOMIC_SEQ_CST))
                SYS(NR_read, c->wake, &value, sizeof value, 0, 0, 0);
            r--;
        }
        if (r > 0 || (r < 0 && r != -EINTR))
            return r;
        if (clock_now(CLOCK_MONOTONIC) >= until)
            return 0;
    }
}

static int valid(const struct timespec *t) {
    return t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < NSEC;
}

static int64_t until_after(const struct timespec *t) {
    int64_t at = clock_now(CLOCK_MONOTONIC), length = nanoseconds(t);
    return length > INT64_MAX - at ? INT64_MAX : at + length;
}

/* The time-out of a call that lies at `address`: 1, or 0 where that is NULL and the call waits for
 * ever; -EFAULT or -EINVAL.  In seconds and ns, or in any number of microseconds, as for select(2).
 */
int64_t timeout_from(struct context *c, struct space *s, uint32_t address, int micro,
                     struct timespec *t) {
    if (address == 0 && !s->zero_is_valid)
        return 0;
    if (copy_from(c, s, address, t, sizeof *t))
        return -EFAULT;
    if (micro && __builtin_add_overflow(t->tv_sec, t->tv_nsec / (NSEC / 1000), &t->tv_sec))
        return -EINVAL;
    t->tv_nsec = micro ? t->tv_nsec % (NSEC / 1000) * 1000 : t->tv_nsec;
    return valid(t) ? 1 : -EINVAL;
}

/* wait_for with a time-out (NULL: for ever).  Where the kernel waits, that becomes what is left. */
int64_t wait_timeout(struct context *c, struct pollfd *fds, uint32_t count, struct timespec *t) {
    int at_once = t && t->tv_sec == 0 && t->tv_nsec == 0;
    if (!c->direct)
        return wait_for(c, fds, count, at_once ? 0 : t ? until_after(t) : INT64_MAX);
#ifdef NR_poll /* the kernel has less to do for it */
    if (!c->has_mask_during && (at_once || t == NULL))
        return WAIT(c, NR_poll, fds, count, t ? 0 : -1, 0, 0, 0);
#endif
    return WAIT(c, NR_ppoll, fds, count, t, MASK_OF(c), 8, 0);
}

static int64_t sleep_until(struct context *c, int64_t until) {
    struct pollfd fds[1];
    return wait_for(c, fds, 0, until);
}

/* clock_nanosleep(2).  An absolute time on a clock that can be set is looked at again every second:
 * ppoll knows only how long. */
BODY(body_clock_nanosleep) {
    int32_t clock = a[0].i32, flags = a[1].i32;
    struct timespec t;
    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
        return -EINVAL;
    if (copy_from(c, s, a[2].u32, &t, sizeof t))
        return -EFAULT;
    if (!valid(&t))
        return -EINVAL;
    if (!(flags & TIMER_ABSTIME))
        return sleep_until(c, until_after(&t));
    if (clock == CLOCK_MONOTONIC)
        return sleep_until(c, nanoseconds(&t));
    for (int64_t target = nanoseconds(&t), left; (left = target - clock_now(clock)) > 0;) {
        int64_t r = sleep_until(c, clock_now(CLOCK_MONOTONIC) + (left < NSEC ? left : NSEC));
        if (r < 0)
            return r;
    }
    return 0;
}

/* The guest's pollfd array, copied once, in the host's numbers; what is not open is POLLNVAL. */
ALWAYS_INLINE int64_t poll_for(struct context *c, struct space *s, uint32_t address, uint64_t count,
                               struct timespec *timeout) {
    if (count > c->table->limit)
        return -EINVAL;
    struct pollfd fds[count + 1];
    int32_t numbers[count + 1];
    uint8_t *at = space_buffer(c, s, address, count * sizeof *fds);
    if (count && (at == NULL || at == WALI_BAD || wali_copy(fds, at, count * sizeof *fds)))
        return -EFAULT;
    int64_t invalid = 0;
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = fds[i].fd;
        fds[i].fd = host_of(c, numbers[i]);
        fds[i].revents = 0;
        invalid += fds[i].fd < 0 && numbers[i] >= 0;
    }
    int64_t ready = wait_timeout(c, fds, (uint32_t)count, invalid ? &none : timeout);
    if (ready < 0)
        return ready;
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i].fd < 0)
            fds[i].revents = numbers[i] >= 0 ? POLLNVAL : 0;
        fds[i].fd = numbers[i];
    }
    /* Growing is all that can have happened to the memory meanwhile; the pages may be gone. */
    return count && wali_copy(at, fds, count * sizeof *fds) ? -EFAULT : ready + invalid;
}

BODY(body_poll) {
    int32_t ms = a[2].i32;
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    return poll_for(c, s, a[0].u32, a[1].u64, ms < 0 ? NULL : &t);
}

BODY(body_ppoll) {
    struct timespec t;
    int64_t r, given = timeout_from(c, s, a[2].u32, 0, &t);
    if (given < 0 || (r = take_mask(c, s, a[3].u32, a[4].u32)) < 0)
        return given < 0 ? given : r;
    r = poll_for(c, s, a[0].u32, a[1].u64, given ? &t : NULL);
    if (given && !capable) /* what is left, as in the kernel, where a failure is none either */
        copy_to(c, s, a[2].u32, &t, sizeof t);
    return r;
}

/* wasmtime calls this when the engine's epoch has moved: a deadline has come, or somebody wants
 * this or another guest of the engine to stop. */
EXPORT wasmtime_error_t *wali_on_epoch(wasmtime_context_t *store, void *data, uint64_t *delta,
                                       wasmtime_update_deadline_kind_t *kind) {
    (void)store;
    struct context *c = data;
    if (!c->stop && clock_now(CLOCK_MONOTONIC) >= c->deadline)
        c->stop = STOP_TIMEOUT;
    if (c->stop)
        return wasmtime.error_new("the guest was stopped");
    *delta = 1;
    *kind = 0;
    return NULL;
}

/* For Python, from any thread: end the guest at its next safepoint, in a wait or in a loop (the
 * caller then increments the engine's epoch). */
EXPORT void wali_interrupt(struct context *c) {
    uint32_t none = STOP_NONE;
    __atomic_compare_exchange_n(&c->stop, &none, STOP_INTERRUPT, 0, __ATOMIC_SEQ_CST,
                                __ATOMIC_SEQ_CST);
    int32_t wake = __atomic_load_n(&c->wake, __ATOMIC_SEQ_CST);
    uint64_t one = 1;
    if (wake >= 0)
        SYS(NR_write, wake, &one, sizeof one, 0, 0, 0);
}
