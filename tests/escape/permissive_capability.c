/* The core, broken on purpose: capability.c with every refusal taken out.
 *
 * The tests put this file in its place and see the same attacks succeed: so it is capability.c that
 * stops them, and they do attack.
 */
#include "core.h"

int64_t capability_component(const char *path) {
    (void)path;
    return 0;
}

int64_t capability_open_how(const struct open_how *how, const char *path) {
    (void)how, (void)path;
    return 0;
}

int64_t capability_open_flags(struct context *c, const struct descriptor *dir, uint64_t flags) {
    (void)c, (void)dir, (void)flags;
    return 0;
}

int64_t capability_link_target(const char *target) {
    (void)target;
    return 0;
}

int64_t capability_modify(struct context *c, const struct descriptor *d) {
    (void)c, (void)d;
    return 0;
}

int64_t capability_opened(const struct descriptor *dir, int64_t host, int crossed) {
    (void)dir, (void)crossed;
    return host;
}

int32_t capability_no_follow(int32_t flags) {
    return flags;
}

void capability_tame_open(uint64_t *flags, uint64_t *mode) {
    (void)flags, (void)mode;
}
