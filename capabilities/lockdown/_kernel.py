"""System calls by number, for what Python has no function for. It opens and imports nothing."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

MACHINE: Final = os.uname().machine

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def number(x86_64: int, aarch64: int) -> int:
    """Return the number of a call on this processor, of those that it has on each."""
    return x86_64 if MACHINE == "x86_64" else aarch64


def call(which: int, *arguments: int | bytes | ctypes.Array[Any] | ctypes.Structure | None) -> int:
    """Make a system call.

    Raises:
        OSError: it failed.
    """
    # A plain int would be passed as 32 bits; a struct is passed by its address.
    words = [
        ctypes.c_long(word)
        if isinstance(word, int)
        else ctypes.byref(word)
        if isinstance(word, ctypes.Structure)
        else word
        for word in arguments
    ]
    result: int = _libc.syscall(ctypes.c_long(which), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """Change something of this thread, by an option of the call that has this name.

    Raises:
        OSError: it failed.
    """
    if _libc.prctl(option, first, second, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
