"""Signals of a WALI program: what of them is Python's.

The core delivers them (``native/signals.c``).  Here a process is made ready for that: the host's
own threads block every signal, so that none takes one that is the program's, and the actions that
Python has put up are taken back.
"""

from __future__ import annotations

import ctypes
import os
from _thread import start_new_thread
from functools import partial
from struct import Struct

from wali_core._abi import FLAG_EXPORT, POLLED_EXPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from wali_core._bridge import Context, Core, Extern, Func, Instance

ALL: Final = (1 << 64) - 1
_SETMASK: Final = 2
_IS_ARM: Final = os.uname().machine == "aarch64"
_RT_SIGACTION, _RT_SIGPROCMASK, _RT_SIGPENDING = (134, 135, 136) if _IS_ARM else (13, 14, 127)
# SIGILL, SIGBUS, SIGFPE, SIGSEGV: WebAssembly's traps.  SIGKILL and SIGSTOP are nobody's to set.
_FAULTS: Final = (4, 7, 8, 11)
_NOT_TO_BE_SET: Final = (9, 19)
_IGNORED_BY_PYTHON: Final = (13, 25)  # SIGPIPE, SIGXFSZ
_MAX: Final = 64
_IGNORE: Final = 1
_NOT_BLOCKED: Final = sum(1 << (number - 1) for number in _FAULTS)

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def set_mask(mask: int) -> int:
    """Block these signals in the calling thread, bit 0 being signal 1; what was blocked before."""
    new, old = ctypes.c_uint64(mask & ~_NOT_BLOCKED), ctypes.c_uint64()
    size = ctypes.c_size_t(8)
    _syscall(_RT_SIGPROCMASK, _SETMASK, ctypes.byref(new), ctypes.byref(old), size)
    return old.value


def own_mask(context: Context, mask: int) -> int:
    """What the thread with this context blocks by itself, of what the kernel blocks for it.

    That is everything while a signal is in flight.  The thread blocks all signals by now.
    """
    return mask & context.mask_before if context.signal else mask


def hand_back(context: Context) -> None:
    """Send a signal that is in flight to the process again: its thread will not handle it any more.

    That thread blocks all signals.  What was sent to it alone ends with it.
    """
    number, context.signal = context.signal, 0
    if number and context.code != _SI_TKILL:
        os.kill(os.getpid(), number)


_SI_TKILL: Final = -6


def pending() -> int:
    """The signals that wait in the kernel, for the calling thread or for the process."""
    found = ctypes.c_uint64()
    _syscall(_RT_SIGPENDING, ctypes.byref(found), ctypes.c_size_t(8))
    return found.value


def have_pending(signals: int) -> None:
    """Send to the process what does not wait in the kernel any more.  All are blocked."""
    missing = signals & ~pending()
    for number in range(1, _MAX + 1):
        if missing >> (number - 1) & 1:
            os.kill(os.getpid(), number)


def mask_around_fork() -> tuple[Callable[[], object], Callable[[], object]]:
    """What blocks all signals, and what puts back what was blocked before, for one thread."""
    quick = ctypes.PyDLL(None).syscall  # which keeps the interpreter's lock, and no errno
    everything, before = ctypes.c_uint64(ALL & ~_NOT_BLOCKED), ctypes.c_uint64()
    size = ctypes.c_size_t(8)
    new, old = ctypes.byref(everything), ctypes.byref(before)
    block = partial(quick, _RT_SIGPROCMASK, _SETMASK, new, old, size)
    return block, partial(quick, _RT_SIGPROCMASK, _SETMASK, old, ctypes.c_void_p(), size)


def start_quiet_thread(run: Callable[..., object], *arguments: Any) -> None:
    """Start a thread that takes no signals."""
    mask = set_mask(ALL)
    try:
        start_new_thread(run, arguments)
    finally:
        set_mask(mask)


def reset_actions(*, at_start: bool = True) -> None:
    """Give every signal its default action, but for what is ignored.

    That is by whoever started us; two signals, at the start, by Python alone.
    """
    default, size = (ctypes.c_uint64 * 4)(), ctypes.c_size_t(8)
    for number in range(1, _MAX + 1):
        if number in _FAULTS or number in _NOT_TO_BE_SET:
            continue
        old = (ctypes.c_uint64 * 4)()
        _syscall(_RT_SIGACTION, number, None, old, size)
        if old[0] > _IGNORE or (at_start and number in _IGNORED_BY_PYTHON):
            _syscall(_RT_SIGACTION, number, default, None, size)


class Actions:
    """What the program has set for its signals, as the core keeps it: WALI's struct k_sigaction."""

    def __init__(self, core: Core) -> None:
        self._actions = memoryview(core.actions).cast("B")

    def handler(self, number: int) -> int:
        """Its index in table 0; 0 for the default action."""
        return int(_HANDLER.unpack_from(self._actions, number * _ACTION_BYTES)[0])

    def flags(self, number: int) -> int:
        """Those of sigaction(2)."""
        return int(_FLAGS.unpack_from(self._actions, number * _ACTION_BYTES + _HANDLER.size)[0])

    def set_handler(self, number: int, handler: int) -> int:
        """What it was.  The host's own handlers stay as they are."""
        before = self.handler(number)
        _HANDLER.pack_into(self._actions, number * _ACTION_BYTES, handler)
        return before

    def reset(self) -> None:
        """As execve(2) does: what is ignored stays so, of those that the kernel is not told of."""
        ignored = [number for number in _FAULTS if self.handler(number) == IGNORED]
        self._actions[:] = bytes(len(self._actions))
        for number in ignored:
            self.set_handler(number, IGNORED)


IGNORED: Final = 0xFFFFFFFE
_HANDLER, _FLAGS = Struct("<I"), Struct("<Q")
_RESETHAND: Final = 0x80000000
_ACTION_BYTES: Final = 24


# By wasmtime's codes of traps (trap.h): what the machine does about such a fault.
_SIGILL, _SIGFPE, _SIGSEGV = 4, 8, 11
_SIGNAL_OF_TRAP: Final = {
    **dict.fromkeys((0, 1, 2, 3, 4, 5), _SIGSEGV),  # stack, memory, alignment, calls to nowhere
    **dict.fromkeys((6, 7, 8), _SIGFPE),  # overflow, division by zero, conversion
    9: _SIGILL,  # unreachable
}


def handle_trap(core: Core, store: int, call: Func, trap: int) -> tuple[int, int] | None:
    """Run the handler that a program has for a fault of its own, now that it has come to its end.

    It is called as any function, where the faulting one is no more: it can say so and end the
    program, as most do.  Where it does not, or there is none, there is no more to be done, and the
    result is None; else the error and the trap by which it has ended.
    """
    from wali_core import _bridge as bridge

    code = ctypes.c_uint8()
    if not bridge.W["wasmtime_trap_code"](trap, ctypes.byref(code)):
        return None
    number = _SIGNAL_OF_TRAP.get(code.value, 0)
    actions = Actions(core)
    handler = actions.handler(number)
    if not number or handler in (0, IGNORED):
        return None
    if actions.flags(number) & _RESETHAND:
        actions.set_handler(number, 0)
    values, ended = (bridge.ValRaw * 2)(), ctypes.c_void_p()
    values[0].i32, values[1].i32 = ctypes.c_int32(handler).value, number
    error = bridge.W["wasmtime_func_call_unchecked"](
        store, ctypes.byref(call), values, 2, ctypes.byref(ended)
    )
    return (error or 0, ended.value or 0) if error or ended.value else None


def serve_polls(core: Core, store: int, instance: Instance, context: Context) -> None:
    """Put in place what an instance's code polls, and what its polls call.  Without any: nothing.

    From here on whoever sets ``context.signal`` or ``context.stop`` sets the flag as well.
    """
    from wali_core import _bridge as bridge

    flag, polled = (
        bridge.export_of(store, instance, name) for name in (FLAG_EXPORT, POLLED_EXPORT)
    )
    if flag is None or polled is None:
        return
    put_function(store, polled, 0, ("", ""), core.on_poll, ctypes.addressof(context))
    context.poll = bridge.W["wasmtime_memory_data"](store, ctypes.byref(flag.of.memory))


def put_function(
    store: int, table: Extern, index: int, types: tuple[str, str], thunk: int, context: int
) -> None:
    """Have an element of a table be a host function for the guest with this context.

    ``types`` are those of its parameters and of what it gives, a letter each.
    """
    from wali_core import _bridge as bridge

    function, reference = bridge.Func(), bridge.Val(kind=bridge.FUNCREF)
    functype = bridge.functype(*types)
    bridge.W["wasmtime_func_new_unchecked"](
        store, functype, thunk, context, None, ctypes.byref(function)
    )
    bridge.W["wasm_functype_delete"](functype)
    ctypes.memmove(ctypes.byref(reference.of), ctypes.byref(function), ctypes.sizeof(function))
    where = ctypes.byref(table.of.memory)
    bridge.check(bridge.W["wasmtime_table_set"](store, where, index, ctypes.byref(reference)))


def have_polled(context: int) -> None:
    """Have whoever runs with this context look, at its next poll, why it must end.

    Its store must not go meanwhile.
    """
    from wali_core._bridge import Context

    flag = Context.from_address(context).poll
    if flag:
        ctypes.c_uint32.from_address(flag).value = 1
