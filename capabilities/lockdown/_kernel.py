"""System calls by number, for what Python has no function for. It opens and imports nothing."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    Argument: TypeAlias = int | bytes | ctypes.Array[Any] | None

MACHINE: Final = os.uname().machine

_libc = ctypes.CDLL(None, use_errno=True)
_syscall, _prctl = _libc.syscall, _libc.prctl
# A start makes a hundred calls through these, so that ctypes has to find out nothing: an argument
# of this type may be an integer of either sign, bytes, an array, a reference, or None.
_syscall.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * 6)
_syscall.restype = ctypes.c_long
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def number(x86_64: int, aarch64: int) -> int:
    """Return the number of a call on this processor, of those that it has on each."""
    return x86_64 if MACHINE == "x86_64" else aarch64


def call(
    which: int,
    first: Argument = 0,
    second: Argument = 0,
    third: Argument = 0,
    fourth: Argument = 0,
    fifth: Argument = 0,
) -> int:
    """Make a system call.

    Raises:
        OSError: it failed.
    """
    result: int = _syscall(which, first, second, third, fourth, fifth, 0)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """Change something of this thread, by an option of the call that has this name.

    Raises:
        OSError: it failed.
    """
    if _prctl(option, first, second, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
