/* Asks what is no terminal for its other end. */
#include "wali.h"

enum { TIOCGPTPEER = 0x5441 };

int main(int argc, char **argv) {
    static char text[] = "through what is somebody else's\n";
    int fd = argc > 1 ? (int)SYS_open(argv[1], O_RDONLY, 0) : -1;
    int got = (int)SYS_ioctl(fd, TIOCGPTPEER, NULL);
    tell("opened", fd);
    tell("answered", got);
    if (got > fd)
        SYS_write(got, text, sizeof text - 1);
    return 0;
}
