"""What the trusted C and Python both know: numbers, and the fields of the structs that both use.

The build makes ``layout.gen.h`` of it, ``_bridge.py`` its ctypes structures.  A field is its type
in C, its name, and what it is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Fields = tuple[tuple[str, str, str], ...]

NUMBERS: Final[dict[str, int]] = {
    # What a guest's descriptor number means: struct descriptor's flags.
    "DESCRIPTOR_CLOEXEC": 1,
    "DESCRIPTOR_BORROWED": 2,  # the embedder's: never closed by us
    "DESCRIPTOR_SHARED": 4,  # its open file description is the embedder's: F_SETFL stays here
    "DESCRIPTOR_READ_ONLY": 8,  # granted read-only; everything opened beneath inherits it
    "DESCRIPTOR_MAY_REACH_PROC": 16,  # a procfs is mounted beneath: look at what was opened
    "DESCRIPTOR_BUSY": -0x7FFFFFFF,  # instead of a host's: just being closed
    # What sockets a program may make: struct context's network.
    "NETWORK_CONNECT": 1,
    "NETWORK_LISTEN": 2,
    "NETWORK_ANY": 4,
    "NETWORK_UNIX": 8,
    # Whether a WALI program can open what is on a procfs: struct table's procfs.
    "PROCFS_REACHED": 0,
    "PROCFS_TOLD": 1,  # and a process's memory is told from other files by seeking in it
    "PROCFS_ABSENT": 2,
    "PROCFS_ELSEWHERE": 4,  # neither root nor working directory are on one
    # Why a guest must end: struct context's stop.
    "STOP_NONE": 0,
    "STOP_EXIT": 1,
    "STOP_TIMEOUT": 2,
    "STOP_INTERRUPT": 3,
    "STOP_FILES": 4,
    # Why a call is made again: struct slot's resumed.
    "RESUME_NOT": 0,
    "RESUME_READY": 1,
    "RESUME_EXPIRED": 2,
    # A flag of struct slot's request, which is a number: the call gives an i32.
    "REQUEST_GIVES_I32": 1,
    "MOST_REQUESTS": 1 << 16,  # such numbers are smaller: no address is
    "MAX_THREADS": 1024,
}

SLOT: Final[Fields] = (
    ("struct pollfd *", "fds", "of the host; what it waits for"),
    ("uint32_t", "count", "of fds"),
    ("uint32_t", "suspended", "it waits for them"),
    ("int64_t", "until", "until when (CLOCK_MONOTONIC, ns; INT64_MAX: for ever)"),
    ("void *", "request", "the call in Python that it asks for"),
    ("uint32_t", "requested", "it asks for that"),
    ("uint32_t", "answered", "the answer is there"),
    ("int64_t", "answer", ""),
    ("uint32_t", "resumed", "why the call is made again"),
    ("uint32_t", "grow", "by how many pages the memory is to grow before it asks again"),
    ("uint32_t", "room", "of fds"),
    ("struct arguments", "arguments", ""),
    ("int64_t", "done", "bytes, of a transfer that takes several attempts"),
    ("uint64_t", "repeats", "the call that is made again, by its number (struct context's calls)"),
)

TABLE: Final[Fields] = (
    ("uint32_t", "limit", "RLIMIT_NOFILE of the guest"),
    ("uint32_t", "limit_most", "how far it may raise that"),
    ("uint32_t", "capacity", "of descriptors"),
    ("uint32_t", "lowest", "no free number lies below"),
    ("int32_t", "dead", "with threads: what a closed descriptor is replaced by; else -1"),
    ("uint32_t", "lock", "with threads: somebody changes the table"),
    ("uint32_t", "ends", "whoever wants more than limit_most descriptors is ended"),
    ("uint32_t", "procfs", "whether a program can open /proc/PID/mem"),
    ("struct descriptor *", "descriptors", ""),
)

CONTEXT: Final[Fields] = (
    ("uint32_t", "stop", "why the guest must end"),
    ("int32_t", "status", "STOP_EXIT: its exit status"),
    ("int64_t", "deadline", "CLOCK_MONOTONIC, ns; INT64_MAX: none"),
    ("uint64_t", "waits", "times that a call had to wait"),
    ("int32_t", "wake", "eventfd that ends a wait, -1: not made yet"),
    ("int32_t", "refused_write", "a write that a read-only grant refused: for the hint"),
    ("uint32_t", "network", "what sockets a WALI program may make"),
    ("host_call_t *", "host", "Python's: a call that it serves, by its number"),
    # A guest of a cooperative store: it waits in its slot, not in the kernel (async.c).
    ("uint32_t", "cooperative", ""),
    ("struct slot", "slot", ""),
    # A program in a process of its own: signals reach it (signals.c).
    ("int32_t", "code", "si_code of the signal: SI_TKILL where it was sent to this thread alone"),
    ("uint32_t *", "poll", "the flag that its code looks at, or NULL (_polls.py)"),
    ("void *", "store", "the wasmtime_store_t"),
    ("wasmtime_func_t", "call", "of the module, which calls a function of its table 0"),
    ("wasm_trap_t *", "trap", "what a handler ended with"),
    ("uint64_t", "mask_before", "which the signal in flight has interrupted"),
    ("uint64_t", "mask_during", "of the call that waited for it"),
    ("uint32_t", "restart", "the handler was one with SA_RESTART"),
    # What calls use is together, with what follows in C: the kernel leaves little in the cache.
    ("uint32_t", "direct", "in a process of its own: its calls wait in the kernel"),
    ("uint64_t", "calls", "thunks entered"),
    ("uint64_t", "read", "bytes that read(2), recv(2) and their kin have moved"),
    ("uint64_t", "written", "bytes of write(2), send(2) and theirs"),
    ("uint32_t", "signal", "in flight: its handler is to be called"),
    ("uint32_t", "has_mask_during", "the call brought a mask"),
    ("int32_t", "cwd", "where relative paths start; AT_FDCWD in a process of its own"),
    ("int32_t", "crossing", "opens that are not asked to stay on a mount"),
    ("struct table *", "table", "of descriptors"),
)

CALL: Final[Fields] = (
    ("const char *", "module", "wali, guest"),
    ("const char *", "name", "SYS_read"),
    ("const char *", "parameters", "i, I: i32, i64"),
    ("const char *", "result", "the same, or empty"),
    ("const char *", "group", "@basic-io"),
    ("wasmtime_unchecked_callback_t *", "native", "for a WALI guest, or NULL"),
    ("wasmtime_unchecked_callback_t *", "hosted", "the same, where Python serves it"),
    ("wasmtime_unchecked_callback_t *", "capable", "in capability mode, or NULL"),
    ("wasmtime_unchecked_callback_t *", "capable_guest", "wali_guest.*, or NULL"),
    ("uint64_t", "waits", "in a cooperative store it can suspend"),
)

_CALLED: Final = "wasmtime_context_t *, const wasmtime_func_t *, wasmtime_val_raw_t *, size_t"

# The functions of wasmtime that the core calls, with the prefix wasmtime_ there: result, name,
# arguments.
WASMTIME: Final[Fields] = (
    ("wasmtime_context_t *", "caller_context", "const wasmtime_caller_t *"),
    ("void *", "context_get_data", "const wasmtime_context_t *"),
    ("uint8_t *", "memory_data", "const wasmtime_context_t *, const wasmtime_memory_t *"),
    ("size_t", "memory_data_size", "const wasmtime_context_t *, const wasmtime_memory_t *"),
    ("wasm_trap_t *", "trap_new", "const char *, size_t"),
    ("wasmtime_error_t *", "error_new", "const char *"),
    ("void", "error_delete", "wasmtime_error_t *"),
    (
        "wasmtime_error_t *",
        "memory_grow",
        "wasmtime_context_t *, const wasmtime_memory_t *, uint64_t, uint64_t *",
    ),
    ("wasmtime_error_t *", "func_call_unchecked", f"{_CALLED}, wasm_trap_t **"),
    ("void", "context_set_epoch_deadline", "wasmtime_context_t *, uint64_t"),
)
