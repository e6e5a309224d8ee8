/* select and epoll, for WALI programs. */
#include "core.h"

/* --- select ----------------------------------------------------------------------------------- */

enum { SET_WORDS = FD_SETSIZE / 64, SETS = 3, EVENTS_AT_ONCE = MAX_DESCRIPTORS };

/* What makes a descriptor ready in each of the three sets (fs/select.c). */
static const int16_t set_asks[SETS] = {POLLIN, POLLOUT, POLLPRI};
static const int16_t set_takes[SETS] = {POLLIN | POLLHUP | POLLERR, POLLOUT | POLLERR, POLLPRI};

typedef uint64_t fd_sets[SETS][SET_WORDS];

static int in_set(const uint64_t *set, int32_t number) {
    return set[number / 64] >> (number % 64) & 1;
}

/* The three sets as one poll: the descriptors that are in any of them, lowest first. */
static int64_t sets_to_poll(struct context *c, fd_sets sets, int32_t count, struct pollfd *fds,
                            int32_t *numbers) {
    int64_t used = 0;
    for (int32_t n = 0; n < count; n++) {
        int16_t events = 0;
        for (int i = 0; i < SETS; i++)
            if (in_set(sets[i], n))
                events |= set_asks[i];
        if (events == 0)
            continue;
        int32_t host = host_of(c, n);
        if (host < 0)
            return -EBADF;
        numbers[used] = n;
        fds[used++] = (struct pollfd){.fd = host, .events = events};
    }
    return used;
}

static int64_t poll_to_sets(fd_sets sets, const struct pollfd *fds, const int32_t *numbers,
                            int64_t used) {
    int64_t ready = 0;
    fd_sets out = {{0}};
    for (int64_t k = 0; k < used; k++)
        for (int i = 0; i < SETS; i++)
            if (in_set(sets[i], numbers[k]) && fds[k].revents & set_takes[i]) {
                out[i][numbers[k] / 64] |= (uint64_t)1 << (numbers[k] % 64);
                ready++;
            }
    for (int i = 0; i < SETS; i++)
        for (int w = 0; w < SET_WORDS; w++)
            sets[i][w] = out[i][w];
    return ready;
}

/* select and pselect6, whose time-outs have different units. */
static int64_t select_for(struct context *c, struct space *s, const wasmtime_val_raw_t *a,
                          int micro) {
    struct timespec t = {0, 0};
    int32_t count = a[0].i32 > FD_SETSIZE ? FD_SETSIZE : a[0].i32;
    int64_t given = timeout_from(c, s, a[4].u32, micro, &t);
    if (given < 0 || count < 0)
        return given < 0 ? given : -EINVAL;
    uint64_t bytes = ((uint64_t)count + 63) / 64 * 8;
    fd_sets sets = {{0}};
    uint8_t *at[SETS];
    for (int i = 0; i < SETS; i++) {
        at[i] = space_buffer(c, s, a[1 + i].u32, bytes);
        if (at[i] == WALI_BAD || (at[i] && wali_copy(sets[i], at[i], bytes)))
            return -EFAULT;
    }
    struct pollfd fds[count + 1];
    int32_t numbers[count + 1];
    int64_t used = sets_to_poll(c, sets, count, fds, numbers);
    if (used < 0)
        return used;
    int64_t r = wait_timeout(c, fds, (uint32_t)used, given ? &t : NULL);
    t.tv_nsec /= micro ? 1000 : 1;
    if (given)
        copy_to(c, s, a[4].u32, &t, sizeof t); /* what is left */
    if (r < 0)
        return r;
    r = poll_to_sets(sets, fds, numbers, used);
    for (int i = 0; i < SETS; i++)
        if (at[i] && wali_copy(at[i], sets[i], bytes))
            return -EFAULT;
    return r;
}

BODY(body_select) {
    return select_for(c, s, a, 1);
}

BODY(body_pselect6) {
    struct {
        uint64_t address, size;
    } mask = {0, 0};
    int64_t r = a[5].u32 ? copy_from(c, s, a[5].u32, &mask, sizeof mask) : 0;
    if (r == 0)
        r = take_mask(c, s, (uint32_t)mask.address, mask.size);
    return r < 0 ? r : select_for(c, s, a, 0);
}

/* --- epoll ------------------------------------------------------------------------------------ */

/* The guest's struct epoll_event: x86-64's, packed.  The kernel's is that only on x86-64. */
struct guest_event {
    uint32_t events;
    uint64_t data;
} __attribute__((packed));

struct kernel_event {
    uint32_t events;
    uint64_t data;
}
#if defined(__x86_64__)
__attribute__((packed))
#endif
;

BODY(body_epoll_ctl) {
    int32_t epoll = host_of(c, a[0].i32), fd = host_of(c, a[2].i32);
    struct guest_event guest = {0, 0};
    if (a[1].i32 != EPOLL_CTL_DEL && copy_from(c, s, a[3].u32, &guest, sizeof guest))
        return -EFAULT;
    struct kernel_event event = {guest.events, guest.data};
    return SYS(NR_epoll_ctl, epoll, a[1].i32, fd, &event, 0, 0);
}

/* epoll_wait and epoll_pwait, which has a signal mask. */
static int64_t epoll_events(struct context *c, struct space *s, const wasmtime_val_raw_t *a) {
    int32_t epoll = host_of(c, a[0].i32), most = a[2].i32, ms = a[3].i32;
    int64_t until = ms < 0 ? INT64_MAX : 0;
    if (ms > 0 && !c->direct)
        until = clock_now(CLOCK_MONOTONIC) + (int64_t)ms * 1000000;
    uint8_t *at =
        space_buffer(c, s, a[1].u32, (uint64_t)(uint32_t)most * sizeof(struct guest_event));
    if (most <= 0 || (uint32_t)most > INT32_MAX / sizeof(struct guest_event) || at == WALI_BAD)
        return SYS(NR_epoll_pwait, epoll, WALI_BAD, most, 0, NULL, 8);
    if (most > EVENTS_AT_ONCE)
        most = EVENTS_AT_ONCE; /* fewer than asked for: the others stay ready for the next call */
    struct kernel_event events[most];
    for (;;) {
        int64_t r = WAIT(c, NR_epoll_pwait, epoll, events, most, c->direct ? ms : 0, MASK_OF(c), 8);
        if (r == 0 && !c->direct) {
            struct pollfd fds[2] = {{epoll, POLLIN, TRIED}};
            r = wait_for(c, fds, 1, until);
            if (r > 0)
                continue;
        }
        for (int64_t i = 0; i < r; i++) {
            struct guest_event guest = {events[i].events, events[i].data};
            uint64_t to = (uint64_t)at + (uint64_t)i * sizeof guest; /* `at` may be NULL */
            if (wali_copy((void *)to, &guest, sizeof guest))
                return i ? i
                         : -EFAULT; /* of those that are not told, who comes by an edge is lost */
        }
        return r;
    }
}

BODY(body_epoll_wait) {
    return epoll_events(c, s, a);
}

BODY(body_epoll_pwait) {
    int64_t r = take_mask(c, s, a[4].u32, a[5].u32);
    return r < 0 ? r : epoll_events(c, s, a);
}
