/* A loop that never ends. */
int main(void) {
    for (volatile unsigned n = 0;; n++)
        ;
}
