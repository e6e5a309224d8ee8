#include "configure.h"
#include "exports.h"

errno_t args_get(guest_address pointers, guest_address bytes) {
    return strings_get(&arguments, pointers, bytes);
}

errno_t args_sizes_get(guest_address count, guest_address size) {
    return strings_sizes_get(&arguments, count, size);
}
