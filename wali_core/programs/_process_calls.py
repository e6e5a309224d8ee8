"""Rare calls about the process: its names, groups, scheduling and signals."""

from __future__ import annotations

import ctypes
import errno
import os
from _thread import _local
from struct import Struct

from wali_core import _bridge as bridge
from wali_core.programs._calls import answering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from wali_core.programs._calls import GuestCalls, Served

_IS_ARM: Final = os.uname().machine == "aarch64"
_NUMBERS: Final = {
    "prctl": (157, 167),
    "getgroups": (115, 158),
    "setgroups": (116, 159),
    "sched_setscheduler": (144, 119),
    "signalfd4": (289, 74),
    "epoll_create1": (291, 20),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "tgkill": (234, 131),
    "futex": (202, 98),
    "getpriority": (140, 141),
    "setpriority": (141, 140),
    "rt_sigtimedwait": (128, 137),
    "futex_waitv": (449, 449),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_MOST_GROUPS: Final = 65536
_NAME: Final = 16
_STACK: Final = Struct("<IiI")
_SS_ONSTACK, _SS_DISABLE, _SS_AUTODISARM = 1, 2, -(1 << 31)
_LEAST_STACK: Final = 2048
_O_CLOEXEC, _O_NONBLOCK = 0x80000, 0x800


def number_of(name: str) -> int:
    """A system call's number on this processor."""
    return _NUMBERS[name][_IS_ARM]


def system_call(name: str, *arguments: int) -> int:
    """Make a system call of the calling thread's; raises ``OSError``."""
    words = (ctypes.c_long(argument) for argument in arguments)
    result: int = _libc.syscall(number_of(name), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


# prctl(2), by what the second argument is; the other three are passed on.
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_ANSWERS: Final = frozenset((3, 7, 21, 23, 27, 30, 39))
"""PR_GET_DUMPABLE KEEPCAPS SECCOMP, PR_CAPBSET_READ, PR_GET_SECUREBITS TIMERSLACK NO_NEW_PRIVS."""
_STORES_A_NUMBER: Final = frozenset((2, 37))
"""PR_GET_PDEATHSIG CHILD_SUBREAPER."""
CHANGES: Final = frozenset((1, 4, 8, 29, 36, 38))
"""PR_SET_PDEATHSIG DUMPABLE KEEPCAPS TIMERSLACK CHILD_SUBREAPER NO_NEW_PRIVS: a confined program
may not."""


def served_process(calls: GuestCalls, *, free: Callable[[], bool]) -> Served:
    """The calls, by name.  ``free``: is the program confined by no policy?"""

    def prctl(option: int, argument: int, *others: int) -> int:
        buffer = ctypes.create_string_buffer(_NAME)
        if option == _PR_SET_NAME:
            buffer.value = _name_at(calls, argument)
            return system_call("prctl", option, ctypes.addressof(buffer), *others)
        if option == _PR_GET_NAME or option in _STORES_A_NUMBER:
            result = system_call("prctl", option, ctypes.addressof(buffer), *others)
            calls.write(argument, buffer.raw[: _NAME if option == _PR_GET_NAME else 4])
            return result
        if option in _ANSWERS or (option in CHANGES and free()):
            return system_call("prctl", option, argument, *others)
        return -errno.EPERM if option in CHANGES else -errno.EINVAL

    def getgroups(count: int, at: int) -> int:
        if count < 0:
            return -errno.EINVAL
        room = (ctypes.c_uint32 * min(count, _MOST_GROUPS))()
        found = system_call("getgroups", len(room), ctypes.addressof(room))
        if count and found:
            calls.write(at, bytes(room)[: 4 * found])
        return found

    def setgroups(count: int, at: int) -> int:
        # Of too many the kernel reads none, and says itself what is wrong, or who may not.
        data = calls.read(at, 4 * count) if 0 < count <= _MOST_GROUPS else b""
        buffer = ctypes.create_string_buffer(data, max(len(data), 1))
        return system_call("setgroups", count, ctypes.addressof(buffer))

    def named(pid: int) -> int:
        """``pid``, where the program may name it.  The kernel lets it name any of its user's.

        A negative one is nobody's, which the kernel says in its own order.
        """
        pid = ctypes.c_int32(pid).value
        if pid >= 0 and not free() and not is_own(pid):
            raise OSError(errno.EPERM, "")
        return pid

    def sched_getaffinity(pid: int, size: int, at: int) -> int:
        room = ctypes.create_string_buffer(min(size & _UINT, _MOST_PROCESSORS))
        address = ctypes.addressof(room)
        filled = system_call("sched_getaffinity", named(pid), len(room), address)
        calls.write(at, room.raw[:filled])
        return filled

    def sched_getparam(pid: int, at: int) -> int:
        if not at:
            return -errno.EINVAL
        parameter = ctypes.c_int32()
        result = system_call("sched_getparam", named(pid), ctypes.addressof(parameter))
        calls.write(at, bytes(parameter))
        return result

    def sched_setscheduler(pid: int, policy: int, at: int) -> int:
        if policy < 0 or pid < 0 or not at:
            return -errno.EINVAL
        priority = ctypes.c_int32(int.from_bytes(calls.read(at, 4), "little", signed=True))
        address = ctypes.addressof(priority)
        return system_call("sched_setscheduler", named(pid), policy, address)

    def prioritised(which: int, pid: int) -> int:
        """``pid``, as ``named`` has it; a group or a user has others', too."""
        if which != _PRIO_PROCESS and not free():
            raise OSError(errno.EPERM if which in _PRIO_OTHERS else errno.EINVAL, "")
        return named(pid) if which == _PRIO_PROCESS else pid

    def getpriority(which: int, pid: int) -> int:
        return system_call("getpriority", which, prioritised(which, pid))

    def setpriority(which: int, pid: int, nice: int) -> int:
        return system_call("setpriority", which, prioritised(which, pid), nice)

    def epoll_create(size: int) -> int:
        return (
            calls.install(system_call("epoll_create1", _O_CLOEXEC)) if size > 0 else -errno.EINVAL
        )

    served: Served = {
        "SYS_epoll_create": epoll_create,
        "SYS_prctl": prctl,
        "SYS_getgroups": getgroups,
        "SYS_setgroups": setgroups,
        "SYS_getpgid": lambda pid: system_call("getpgid", named(pid)),
        "SYS_getsid": lambda pid: system_call("getsid", named(pid)),
        "SYS_sched_getaffinity": sched_getaffinity,
        "SYS_sched_getparam": sched_getparam,
        "SYS_sched_getscheduler": lambda pid: system_call("sched_getscheduler", named(pid)),
        "SYS_sched_setscheduler": sched_setscheduler,
        "SYS_getpriority": getpriority,
        "SYS_setpriority": setpriority,
    }
    return {name: answering(call) for name, call in served.items()}


def served_signals(calls: GuestCalls) -> Served:
    """Those that the core leaves to Python."""

    def rt_sigtimedwait(context: int, set_at: int, info_at: int, timeout_at: int, size: int) -> int:
        """What comes is taken from the kernel's queue, and its handler is not called."""
        if size != _MASK:
            return -errno.EINVAL
        mask = ctypes.create_string_buffer(calls.read(set_at, _MASK), _MASK)
        limit = ctypes.create_string_buffer(calls.read(timeout_at, _TIME) if timeout_at else b"")
        info = ctypes.create_string_buffer(_INFO)
        result: int = calls.core.interruptible(
            *(ctypes.addressof(mask), ctypes.addressof(info)),
            *(ctypes.addressof(limit) if timeout_at else 0, size, 0, 0),
            *(number_of("rt_sigtimedwait"), context + _SIGNAL),
        )
        if result > 0 and info_at:
            calls.write(info_at, info.raw)
        return result

    def signalfd4(number: int, mask_at: int, size: int, flags: int) -> int:
        if size != _MASK or flags & ~(_O_CLOEXEC | _O_NONBLOCK):
            return -errno.EINVAL
        mask = ctypes.create_string_buffer(calls.read(mask_at, _MASK), _MASK)
        host = -1 if number == -1 else calls.host_of(number)
        made = system_call("signalfd4", host, ctypes.addressof(mask), _MASK, flags | _O_CLOEXEC)
        return number if host >= 0 else calls.install(made, close_on_exec=bool(flags & _O_CLOEXEC))

    served: Served = {
        "SYS_rt_sigtimedwait": rt_sigtimedwait,
        "SYS_signalfd4": signalfd4,
        "SYS_sigaltstack": AlternateStacks(calls).sigaltstack,
    }
    return {name: answering(call) for name, call in served.items()}


OF_THREADS: Final = ("SYS_rt_sigtimedwait",)
"""Served with the address of the calling thread's context before the call's own arguments."""
_MASK, _TIME, _INFO = 8, 16, 128  # bytes
_PRIO_PROCESS, _PRIO_OTHERS = 0, (1, 2)
_SIGNAL: Final = bridge.Context.signal.offset  # type: ignore[attr-defined]
_UINT: Final = 0xFFFFFFFF
_MOST_PROCESSORS: Final = 1024  # bytes, a bit for each


def is_own(pid: int) -> bool:
    """Is it this process, one of its threads or a child, be it of another group or ended?"""
    try:
        return pid in (0, os.getpid()) or system_call("tgkill", os.getpid(), pid, 0) == 0
    except OSError:
        pass
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, OverflowError):
        return False
    return True


def _name_at(calls: GuestCalls, address: int) -> bytes:
    """Up to 15 bytes of a string, which may end where memory does."""
    name = b""
    while len(name) < _NAME - 1 and (byte := calls.read(address + len(name), 1)) != b"\0":
        name += byte
    return name


class AlternateStacks:
    """sigaltstack(2): what each thread has set is kept, and given back."""

    def __init__(self, calls: GuestCalls) -> None:
        self._calls = calls
        self._own = _local()

    def sigaltstack(self, new_at: int, old_at: int) -> int:
        """The call."""
        old = getattr(self._own, "stack", (0, 0, 0))
        if new_at:
            new = pointer, flags, size = _STACK.unpack(self._calls.read(new_at, _STACK.size))
            if flags & ~_SS_AUTODISARM not in (0, _SS_DISABLE, _SS_ONSTACK):
                return -errno.EINVAL
            if flags & _SS_DISABLE:
                pointer = size = 0
            elif size < _LEAST_STACK and new != old:
                return -errno.ENOMEM
            self._own.stack = (pointer, flags & ~_SS_ONSTACK, size)
        if old_at:
            pointer, flags, size = old
            flags = flags & _SS_AUTODISARM | (0 if size else _SS_DISABLE)
            self._calls.write(old_at, _STACK.pack(pointer, flags, size))
        return 0
