#include "configure.h"
#include "exports.h"

errno_t environ_get(guest_address pointers, guest_address bytes) {
    return strings_get(&environment, pointers, bytes);
}

errno_t environ_sizes_get(guest_address count, guest_address size) {
    return strings_sizes_get(&environment, count, size);
}
