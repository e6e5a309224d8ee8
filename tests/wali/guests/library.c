/* A module of WALI's without _start. */
#include "wali.h"

int main(int argc, char **argv) {
    (void)argv;
    return argc;
}

__attribute__((export_name("process"))) long process(void) {
    return SYS_getpid();
}
