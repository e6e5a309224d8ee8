/* The export table: every function of preview1 in the order of its specification, and what else
 * this module exports.  What is not declared here or in a header of its own is static. */
#ifndef WASI_SHIM_EXPORTS_H
#define WASI_SHIM_EXPORTS_H

#include "preview1.h"

#define EXPORT(type, name, parameters) __attribute__((export_name(#name))) type name parameters

EXPORT(errno_t, args_get, (guest_address pointers, guest_address bytes));
EXPORT(errno_t, args_sizes_get, (guest_address count, guest_address size));
EXPORT(errno_t, environ_get, (guest_address pointers, guest_address bytes));
EXPORT(errno_t, environ_sizes_get, (guest_address count, guest_address size));
EXPORT(errno_t, clock_res_get, (uint32_t clock, guest_address out));
EXPORT(errno_t, clock_time_get, (uint32_t clock, uint64_t precision, guest_address out));
EXPORT(errno_t, fd_advise, (fd_t fd, uint64_t offset, uint64_t length, uint32_t advice));
EXPORT(errno_t, fd_allocate, (fd_t fd, uint64_t offset, uint64_t length));
EXPORT(errno_t, fd_close, (fd_t fd));
EXPORT(errno_t, fd_datasync, (fd_t fd));
EXPORT(errno_t, fd_fdstat_get, (fd_t fd, guest_address out));
EXPORT(errno_t, fd_fdstat_set_flags, (fd_t fd, uint32_t flags));
EXPORT(errno_t, fd_fdstat_set_rights, (fd_t fd, uint64_t base, uint64_t inheriting));
EXPORT(errno_t, fd_filestat_get, (fd_t fd, guest_address out));
EXPORT(errno_t, fd_filestat_set_size, (fd_t fd, uint64_t size));
EXPORT(errno_t, fd_filestat_set_times, (fd_t fd, uint64_t atim, uint64_t mtim, uint32_t fstflags));
EXPORT(errno_t, fd_pread,
       (fd_t fd, guest_address iovs, uint32_t count, uint64_t offset, guest_address out));
EXPORT(errno_t, fd_prestat_get, (fd_t fd, guest_address out));
EXPORT(errno_t, fd_prestat_dir_name, (fd_t fd, guest_address name, uint32_t size));
EXPORT(errno_t, fd_pwrite,
       (fd_t fd, guest_address iovs, uint32_t count, uint64_t offset, guest_address out));
EXPORT(errno_t, fd_read, (fd_t fd, guest_address iovs, uint32_t count, guest_address out));
EXPORT(errno_t, fd_readdir,
       (fd_t fd, guest_address buffer, uint32_t size, uint64_t cookie, guest_address out));
EXPORT(errno_t, fd_renumber, (fd_t from, fd_t to));
EXPORT(errno_t, fd_seek, (fd_t fd, int64_t offset, uint32_t whence, guest_address out));
EXPORT(errno_t, fd_sync, (fd_t fd));
EXPORT(errno_t, fd_tell, (fd_t fd, guest_address out));
EXPORT(errno_t, fd_write, (fd_t fd, guest_address iovs, uint32_t count, guest_address out));
EXPORT(errno_t, path_create_directory, (fd_t fd, guest_address path, uint32_t length));
EXPORT(errno_t, path_filestat_get,
       (fd_t fd, uint32_t flags, guest_address path, uint32_t length, guest_address out));
EXPORT(errno_t, path_filestat_set_times,
       (fd_t fd, uint32_t flags, guest_address path, uint32_t length, uint64_t atim, uint64_t mtim,
        uint32_t fstflags));
EXPORT(errno_t, path_link,
       (fd_t old_fd, uint32_t old_flags, guest_address old_path, uint32_t old_length, fd_t new_fd,
        guest_address new_path, uint32_t new_length));
EXPORT(errno_t, path_open,
       (fd_t fd, uint32_t lookup_flags, guest_address path, uint32_t length, uint32_t oflags,
        uint64_t base, uint64_t inheriting, uint32_t fdflags, guest_address out));
EXPORT(errno_t, path_readlink,
       (fd_t fd, guest_address path, uint32_t length, guest_address buffer, uint32_t size,
        guest_address out));
EXPORT(errno_t, path_remove_directory, (fd_t fd, guest_address path, uint32_t length));
EXPORT(errno_t, path_rename,
       (fd_t old_fd, guest_address old_path, uint32_t old_length, fd_t new_fd,
        guest_address new_path, uint32_t new_length));
EXPORT(errno_t, path_symlink,
       (guest_address target, uint32_t target_length, fd_t fd, guest_address path,
        uint32_t length));
EXPORT(errno_t, path_unlink_file, (fd_t fd, guest_address path, uint32_t length));
EXPORT(errno_t, poll_oneoff,
       (guest_address in, guest_address out, uint32_t count, guest_address count_out));
_Noreturn EXPORT(void, proc_exit, (uint32_t status));
EXPORT(errno_t, proc_raise, (uint32_t signal));
EXPORT(errno_t, sched_yield, (void));
EXPORT(errno_t, random_get, (guest_address buffer, uint32_t size));
EXPORT(errno_t, sock_accept, (fd_t fd, uint32_t flags, guest_address out));
EXPORT(errno_t, sock_recv,
       (fd_t fd, guest_address iovs, uint32_t count, uint32_t riflags, guest_address size_out,
        guest_address flags_out));
EXPORT(errno_t, sock_send,
       (fd_t fd, guest_address iovs, uint32_t count, uint32_t siflags, guest_address out));
EXPORT(errno_t, sock_shutdown, (fd_t fd, uint32_t how));

/* wasi_unstable, where it differs. */

EXPORT(errno_t, unstable_fd_filestat_get, (fd_t fd, guest_address out));
EXPORT(errno_t, unstable_fd_seek, (fd_t fd, int64_t offset, uint32_t whence, guest_address out));
EXPORT(errno_t, unstable_path_filestat_get,
       (fd_t fd, uint32_t flags, guest_address path, uint32_t length, guest_address out));
EXPORT(errno_t, unstable_poll_oneoff,
       (guest_address in, guest_address out, uint32_t count, guest_address count_out));

/* For the host. */

struct configuration;

enum { WASI_ROOM = 1024 };
extern char wasi_room[WASI_ROOM]; /* most configurations need no more: spares them a call */
EXPORT(void *, wasi_allocate, (uint32_t size));
EXPORT(int32_t, wasi_configure, (const struct configuration *given, uint32_t size));
EXPORT(uint32_t, wasi_refused_writes, (void));

#endif
