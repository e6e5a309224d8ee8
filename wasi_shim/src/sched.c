#include "errno.h"
#include "exports.h"
#include "wali.h"

errno_t sched_yield(void) {
    return errno_of(sys_sched_yield());
}
