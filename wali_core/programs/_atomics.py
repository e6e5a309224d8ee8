"""What a WALI program waits by where its code has WebAssembly's own instructions for that.

They are calls by the time that it runs (``rewriting/_atomics.py``), and what those call is here:
futex(2) on the program's memory.  A signal ends the wait, as that of any call: its handler runs at
the poll in the code that has called, which then waits on.
"""

from __future__ import annotations

import ctypes
import errno
import time

from wali_core import _bridge as bridge
from wali_core._abi import ATOMICS_EXPORT
from wali_core._signals import put_function
from wali_core.programs._process_calls import number_of, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from wali_core._bridge import Core, Instance

_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)
_OPERANDS: Final = (
    *(ctypes.c_int32, ctypes.c_uint32),  # how many bytes are waited on, 0 to notify; the address
    *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),  # the value, for how long and until when
)
_OK, _NOT_EQUAL, _TIMED_OUT = range(3)  # what the instructions give
_WAIT_BITSET, _WAKE, _ALL_BITS = 9, 1, 0xFFFFFFFF
_OF_32_BITS, _CLOCK_MONOTONIC = 2, 1
_FOR_EVER: Final = (1 << 63) - 1
_SECOND: Final = 1_000_000_000  # nanoseconds
_SLICE: Final = _SECOND // 20
_SIGNAL: Final = bridge.Context.signal.offset  # type: ignore[attr-defined]


class Atomics:
    """Serves the instances of one program, whose memory begins at ``base``."""

    def __init__(self, core: Core, base: int) -> None:
        self._core, self._base = core, base
        self._callback: Any = None

    def serve(self, store: int, instance: Instance, context: int) -> None:
        """Put in place what an instance waits by; nothing where it has no such instructions."""
        table = bridge.export_of(store, instance, ATOMICS_EXPORT)
        if table is None:
            return
        self._callback = self._callback or _CALLBACK(self._run)
        callback = ctypes.cast(self._callback, ctypes.c_void_p).value
        futex = self._core.calls["wali", "SYS_futex"].native
        for index, (types, thunk) in enumerate((("iiiiii", futex), ("iiIII", callback))):
            assert thunk is not None
            put_function(store, table, index, (types, "I"), thunk, context)

    def _run(self, context: int, _caller: int, values: int, _count: int) -> None:
        """The host function: what it gives takes the place of its first operand."""
        width, address, value, timeout, until = (
            kind.from_address(values + 16 * i).value for i, kind in enumerate(_OPERANDS)
        )
        word = self._base + address
        if width:
            wait = _Wait(self._core, context, until or _until(timeout))
            result = wait.on(word, width, value)
        else:
            result = system_call("futex", word, _WAKE, value)
        ctypes.c_int64.from_address(values).value = result


def _until(timeout: int) -> int:
    """When a timeout is over, CLOCK_MONOTONIC in ns; what is negative never is."""
    return min(time.monotonic_ns() + timeout, _FOR_EVER) if timeout >= 0 else _FOR_EVER


class _Wait:
    """One wait of the thread with this context.  It is over at ``until``."""

    def __init__(self, core: Core, context: int, until: int) -> None:
        self._core, self._signal, self._until = core, context + _SIGNAL, until

    def on(self, word: int, width: int, value: int) -> int:
        """What the instruction gives, or until when: it is to be asked again.

        That is when a signal has come, or the value has to be looked at again.
        """
        halves = [value >> shift & _ALL_BITS for shift in range(0, 8 * width, 32)]
        result = self._on_both(word, halves) if len(halves) > 1 else self._on_one(word, *halves)
        if result >= 0:
            return _OK
        if result == -errno.EAGAIN:
            return _NOT_EQUAL
        is_over = result == -errno.ETIMEDOUT and time.monotonic_ns() >= self._until
        return _TIMED_OUT if is_over else self._until

    def _on_one(self, word: int, value: int, most: int = _FOR_EVER) -> int:
        """On 32 bits, until ``most`` at the latest."""
        limit = _limit(min(self._until, most))
        return self._call("futex", word, _WAIT_BITSET, value, limit, 0, _ALL_BITS)

    def _on_both(self, word: int, halves: list[int]) -> int:
        """The kernel's futexes are of 32 bits: it waits on two, and is woken at the lower half.

        It takes several since Linux 5.16.  Before, it looks at the value again from time to time:
        the upper half could change between the program's own look and the wait.
        """
        vector = (ctypes.c_uint64 * 6)()
        for i, half in enumerate(halves):
            vector[3 * i : 3 * i + 3] = [half, word + 4 * i, _OF_32_BITS]
        limit = _limit(self._until)
        result = self._call("futex_waitv", vector, len(halves), 0, limit, _CLOCK_MONOTONIC, 0)
        if result not in (-errno.ENOSYS, -errno.EPERM):
            return result
        return self._on_one(word, halves[0], time.monotonic_ns() + _SLICE)

    def _call(self, name: str, *arguments: Any) -> int:
        addresses = (one if isinstance(one, int) else ctypes.addressof(one) for one in arguments)
        result: int = self._core.interruptible(*addresses, number_of(name), self._signal)
        return result


def _limit(until: int) -> Any:
    """The kernel's ``struct timespec``, or NULL."""
    return (ctypes.c_int64 * 2)(*divmod(until, _SECOND)) if until < _FOR_EVER else 0
