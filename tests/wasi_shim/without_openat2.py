"""A pytest plugin: in this process the kernel answers every openat2 with an errno.

WALI_OPENAT2=ENOSYS python -m pytest -p tests.wasi_shim.without_openat2 ...
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

VARIABLE = "WALI_OPENAT2"
ERRORS = ("ENOSYS", "EPERM")
"""What an old kernel says; and what some containers' filters do, which are older than the call."""

_OPENAT2 = 437  # on every architecture
_SET_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38


def pytest_configure() -> None:
    """Put the filter on, before there is another thread: those that are made later have it."""
    refuse_openat2(getattr(errno, os.environ[VARIABLE]))


def refuse_openat2(error: int) -> None:
    """Have the kernel answer this thread's openat2 with an errno, for good (seccomp(2))."""
    instructions = struct.pack(
        "<HBBIHBBIHBBIHBBI",
        *(0x20, 0, 0, 0),  # load the number of the call
        *(0x15, 0, 1, _OPENAT2),  # the next one for openat2, else the last
        *(0x06, 0, 0, 0x00050000 | error),  # SECCOMP_RET_ERRNO
        *(0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    code = ctypes.create_string_buffer(instructions)
    program = struct.pack("@HP", 4, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [
        *(ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong)
    ]
    libc.prctl(_NO_NEW_PRIVILEGES, 1, None, 0, 0)
    libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0)
    libc.syscall(_OPENAT2, -1, None, None, 0)
    if ctypes.get_errno() != error:
        raise OSError(ctypes.get_errno(), "the filter does not hold")
