/* A stage of a pipeline, as for a shell: STAGE count N | shout | total
 *
 * count writes the numbers up to N, a line each; shout passes lines on in capitals; total says how
 * many lines and bytes came.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long lines = 0, bytes = 0;
    if (!strcmp(what, "count"))
        for (int n = 1; n <= atoi(argv[2]); n++)
            printf("line number %d\n", n);
    else
        for (int c; (c = getchar()) != EOF; bytes++, lines += c == '\n')
            if (!strcmp(what, "shout"))
                putchar(toupper(c));
    if (!strcmp(what, "total"))
        printf("%ld lines, %ld bytes\n", lines, bytes);
}
