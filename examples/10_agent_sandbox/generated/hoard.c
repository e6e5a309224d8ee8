/* Files that are opened and never closed. */
#include <stdio.h>

int main(void) {
    for (;;)
        fopen("/data/sales.csv", "r");
}
