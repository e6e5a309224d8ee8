/* Imports that not every engine has, or not so; -D says which. */
#include "wali.h"

#if defined(MISSING)
WALI("SYS_quotactl") long quotactl(int command, const char *path, int id, void *to);
WALI("SYS_of_the_future") long future(long one, double two);
WALI("SYS_rt_sigreturn") long rt_sigreturn(long unused);
#elif defined(NO_RESULT)
WALI("SYS_exit") void exit_so(int status);
#elif defined(RESULT)
WALI("SYS_exit") long exit_so(int status);
#elif defined(LONGJMP)
WALI("setjmp") int set_jump(void *buffer);
WALI("sigsetjmp") int set_jump_and_mask(void *buffer, int keeps);
WALI("longjmp") void jump(void *buffer, int value);
#elif defined(STRANGER)
WALI("launch") int launch(void);
#elif defined(WRONG_TYPE)
WALI("SYS_getuid") int get_user(int of);
#elif defined(OTHER_MODULE)
__attribute__((import_module("env"), import_name("f"))) int other(void);
#endif

int main(int argc, char **argv) {
    int status = argc > 1 ? (int)number(argv[1]) : 41;
    (void)status;
#if defined(MISSING)
    tell("quotactl", quotactl(0, "/", 0, NULL));
    tell("of the future", future(1, 2));
    tell("rt_sigreturn", rt_sigreturn(0));
#elif defined(NO_RESULT) || defined(RESULT)
    exit_so(status);
#elif defined(LONGJMP)
    int buffer[64];
#if defined(SIGSETJMP)
    tell("setjmp", set_jump_and_mask(buffer, 1));
#endif
#if defined(BOTH) || !defined(SIGSETJMP)
    tell("setjmp", set_jump(buffer));
#endif
    jump(buffer, 1);
#elif defined(STRANGER)
    launch();
#elif defined(WRONG_TYPE)
    get_user(1);
#elif defined(OTHER_MODULE)
    other();
#endif
    say("after it\n");
    return 0;
}
