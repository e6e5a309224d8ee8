/* What only a WALI program calls: its start-up, pipes, limits, and the process that it is. */
#include "core.h"

/* --- pipes ------------------------------------------------------------------------------------ */

BODY(body_pipe2) {
    int32_t hosts[2];
    uint64_t flags = a[1].u32 & (c->direct ? ~(uint64_t)0 : ~(uint64_t)O_NONBLOCK);
    if (flags & ~(uint64_t)(O_CLOEXEC | O_NONBLOCK | GUEST_O_DIRECT))
        return -EINVAL;
    int64_t r = SYS(NR_pipe2, hosts, HOST_OPEN_FLAGS(flags | O_CLOEXEC), 0, 0, 0, 0);
    return r < 0 ? r : descriptor_install_pair(c, s, a[0].u32, hosts, a[1].u32);
}

/* --- the process ------------------------------------------------------------------------------ */

/* futex(2): a closed list, since the meaning of three arguments depends on the command. */
BODY(body_futex) {
    uint32_t command = a[1].u32 & FUTEX_COMMAND, is = command < 32 ? 1U << command : 0;
    uint8_t *word = space_buffer(c, s, a[0].u32, 4), *second = NULL;
    int64_t fourth = a[3].i32; /* a count, for REQUEUE */
    if (!(is & (FUTEX_PLAIN | FUTEX_TIMED | FUTEX_TWO)))
        return -ENOSYS;
    if (is & FUTEX_TWO)
        second = space_buffer(c, s, a[4].u32, 4);
    if (is & FUTEX_TIMED)
        fourth = (int64_t)space_buffer(c, s, a[3].u32, sizeof(struct timespec));
    int64_t r = WAIT(c, NR_futex, word, a[1].i32, a[2].i32, fourth, second, a[5].i32);
    return r == -EINTR && is & FUTEX_TIMED && a[3].u32 ? NOT_AGAIN : r;
}
