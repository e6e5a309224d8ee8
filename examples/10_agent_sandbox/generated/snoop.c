/* What was not asked for: it looks around, and changes its own input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void attempt(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (file && *mode == 'w')
        fprintf(file, "mine");
    int failed = file == NULL || fclose(file);
    printf("%s %s: %s\n", *mode == 'r' ? "read" : "write", path, failed ? strerror(errno) : "DONE");
}

int main(void) {
    attempt("/data/../.ssh/id_rsa", "r");
    attempt("/data/link", "r");
    attempt("/data/sales.csv", "w");
    attempt("/etc/passwd", "r");
    printf("OPERATOR is %s\n", getenv("OPERATOR") ? "here" : "not here");
    return 0;
}
