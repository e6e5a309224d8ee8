#include "now.h"

#include "linux.h"
#include "nanoseconds.h"

enum { STEP = 1000 }; /* nanoseconds */

static enum clock_source source;
static uint64_t day;     /* the time of day at the beginning */
static uint64_t elapsed; /* since then */

bool clock_configure(uint32_t given, uint64_t time) {
    source = given;
    day = time;
    return given <= CLOCK_FIXED;
}

bool clock_is_made(void) {
    return source != CLOCK_HOST;
}

bool clock_stands_still(uint32_t clock) {
    return source == CLOCK_FIXED && clock == CLOCK_REALTIME;
}

void clock_pass(uint64_t nanoseconds) {
    if (__builtin_add_overflow(elapsed, nanoseconds, &elapsed))
        elapsed = UINT64_MAX;
}

/* Nothing takes time but looking: neither the guest's own work nor the host's. */
static uint64_t made_now(uint32_t clock) {
    clock_pass(STEP);
    if (clock != CLOCK_REALTIME)
        return elapsed;
    uint64_t now;
    if (clock_stands_still(clock))
        return day;
    return __builtin_add_overflow(day, elapsed, &now) ? UINT64_MAX : now;
}

int64_t clock_now(uint32_t clock, uint64_t *out) {
    if (clock_is_made()) {
        *out = made_now(clock);
        return 0;
    }
    struct kernel_timespec now = {0};
    int64_t result = sys_clock_gettime(clock, &now);
    *out = nanoseconds_of(now);
    return result;
}

int64_t clock_resolution(uint32_t clock, uint64_t *out) {
    if (clock_is_made()) {
        *out = STEP;
        return 0;
    }
    struct kernel_timespec resolution = {0};
    int64_t result = sys_clock_getres(clock, &resolution);
    *out = nanoseconds_of(resolution);
    return result;
}
