/* What time it is for the guest: the host's clocks, or a time that is the same in every run.
 *
 * The second passes by itself by one step for each time that somebody looks, so that a loop which
 * waits for it ends, and jumps to the end of every wait.  The time of day may also stand still.
 */
#ifndef WASI_SHIM_NOW_H
#define WASI_SHIM_NOW_H

#include <stdbool.h>

#include "wali.h"

enum clock_source { CLOCK_HOST, CLOCK_VIRTUAL, CLOCK_FIXED };

/* `time` is the time of day at the beginning, in nanoseconds since 1970.  False: no such source. */
bool clock_configure(uint32_t source, uint64_t time);

/* Nanoseconds on a clock, one of WASI's four; and between two of its readings.  0, or -errno. */
int64_t clock_now(uint32_t clock, uint64_t *out);
int64_t clock_resolution(uint32_t clock, uint64_t *out);

/* Is it a time that passes only as it is made to? */
bool clock_is_made(void);

/* Does a clock never come to a later time than now? */
bool clock_stands_still(uint32_t clock);

/* Let so much time pass, where it is made. */
void clock_pass(uint64_t nanoseconds);

#endif
