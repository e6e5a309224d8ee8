/* Where random bytes come from: the kernel, or a seed from which all of them follow. */
#ifndef WASI_SHIM_RANDOM_H
#define WASI_SHIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

void random_configure(bool from_seed, uint64_t seed);

#endif
