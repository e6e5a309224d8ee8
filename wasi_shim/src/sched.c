#include "errno.h"
#include "wali.h"

EXPORT(sched_yield)
errno_t sched_yield(void) {
    return errno_of(sys_sched_yield());
}
