/* Greets the first argument in the words of $GREETING, and repeats a line of its input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    const char *greeting = getenv("GREETING");
    char line[80] = "";
    printf("%s, %s!\n", greeting ? greeting : "Hello", argc > 1 ? argv[1] : "world");
    if (fgets(line, sizeof line, stdin))
        printf("You said: %s", line);
    if (!fopen("/etc/passwd", "r"))
        fprintf(stderr, "/etc/passwd: %s\n", strerror(errno));
    return 3;
}
