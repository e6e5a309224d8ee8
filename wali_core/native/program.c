/* What only a WALI program calls: its start-up, pipes, limits, and the process that it is. */
#include "core.h"

/* --- pipes ------------------------------------------------------------------------------------ */

BODY(body_pipe2) {
    int32_t hosts[2];
    if (a[1].u32 & ~(uint32_t)(O_CLOEXEC | O_NONBLOCK))
        return -EINVAL;
    int64_t r = SYS(NR_pipe2, hosts, O_CLOEXEC, 0, 0, 0, 0);
    return r < 0 ? r : descriptor_install_pair(c, s, a[0].u32, hosts, a[1].u32);
}

/* --- the process ------------------------------------------------------------------------------ */

/* futex(2): a closed list, since the meaning of three arguments depends on the command. */
BODY(body_futex) {
    int32_t command = a[1].i32 & FUTEX_COMMAND;
    uint8_t *word = space_buffer(c, s, a[0].u32, 4), *second = NULL;
    struct timespec t, *timeout = NULL;
    if (word == NULL || word == WALI_BAD)
        return -EFAULT;
    if (command == FUTEX_WAIT && a[3].u32) {
        uint8_t *at = space_buffer(c, s, a[3].u32, sizeof t);
        if (at == WALI_BAD || wali_copy(&t, at, sizeof t))
            return -EFAULT;
        timeout = &t;
    } else if (command == FUTEX_REQUEUE || command == FUTEX_CMP_REQUEUE) {
        second = space_buffer(c, s, a[4].u32, 4);
        if (second == NULL || second == WALI_BAD)
            return -EFAULT;
    } else if (command != FUTEX_WAIT && command != FUTEX_WAKE) {
        return -ENOSYS;
    }
    int64_t fourth = command == FUTEX_WAIT ? (int64_t)timeout : a[3].i32; /* a count, for REQUEUE */
    return SYS(NR_futex, word, a[1].i32, a[2].i32, fourth, second, a[5].i32);
}
