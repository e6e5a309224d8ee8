#include "errno.h"
#include "exports.h"
#include "wali.h"

_Noreturn void proc_exit(uint32_t status) {
    sys_proc_exit(status);
}

/* Not to be had: preview1 has no way to install a handler, so any signal worth raising would end
 * the process, which in an embedder is not the guest's.  wasi-libc's raise() runs its handlers in
 * the guest and never comes here; later editions of WASI have dropped the call. */
errno_t proc_raise(uint32_t signal) {
    (void)signal;
    return ERRNO_NOSYS;
}
