/* Opens what its process has open besides the streams once more, by the names in /proc, to write.
 */
#include "wali.h"

static void put_number(char *to, int number) {
    if (number > 9)
        *to++ = (char)('0' + number / 10);
    *to++ = (char)('0' + number % 10);
    *to = 0;
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    char path[32] = "/proc/self/fd/";
    struct stat status;
    for (int number = 3; number < 64; number++) {
        put_number(path + 14, number);
        int fd = (int)SYS_open(path, O_RDWR, 0);
        if (fd < 0)
            continue;
        SYS_fstat(fd, &status);
        if (status.size > 0)
            tell("change what is there", SYS_pwrite64(fd, "x", 1, 0));
        else if ((status.mode & 0170000) != 0100000)
            tell("an open channel", fd);
        SYS_close(fd);
    }
    return 0;
}
