"""Calls of a trusted program that would wait in the kernel, out of reach of what ends the program.

In a process of its own a signal interrupts them, or the end of the process does.  In the embedder's
the signals are the embedder's: what would wait is tried without waiting, again and again, or
waited for on another thread.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import stat
import time
from ctypes import c_void_p
from threading import Thread

from wali_core import _bridge as bridge
from wali_core.programs._calls import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from wali_core._link import Hook
    from wali_core.programs._calls import GuestCalls

WITHOUT_WAITING: Final = {7: 6, 38: 37}
"""F_SETLKW and F_OFD_SETLKW, and what only tries: F_SETLK and F_OFD_SETLK."""
TAKEN: Final = (-errno.EAGAIN, -errno.EACCES)
"""What trying answers where somebody else has the lock."""
SOON: Final = 0.0005
LATER: Final = 0.01
"""Seconds from one attempt to the next, at first and at last."""
_WAIT: Final = 0
_LOCK_PI: Final = 6
_WAIT_BITSET: Final = 9
_LOCK_PI2: Final = 13
_WAITS: Final = frozenset((_WAIT, _LOCK_PI, _WAIT_BITSET, _LOCK_PI2))
_TRYLOCK_PI: Final = 8
_COMMAND, _PRIVATE, _REALTIME = 127, 128, 256
"""What futex(2) can be asked for, and what else is in that number."""
_LATE: Final = -errno.ETIMEDOUT
_THUNK = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, ctypes.c_size_t)


class Waiting:
    """What such calls are made of, for one program."""

    def __init__(self, core: bridge.Core, context: bridge.Context, calls: GuestCalls) -> None:
        self._core, self._context, self._calls = core, context, calls
        self._address = ctypes.addressof(context)

    def native(self, name: str, *arguments: int) -> int:
        """Make a call of the table's, one that does not wait."""
        values = (bridge.ValRaw * len(bridge.Slot().arguments))()
        for value, argument in zip(values, arguments, strict=False):
            value.i64 = argument
        thunk = _THUNK(self._core.calls["wali", name].native)
        thunk(self._address, None, ctypes.addressof(values), len(values))
        return int(values[0].i64)

    def futex(
        self, word: int, command: int, value: int, time_at: int, _: int, bits: int
    ) -> tuple[int, float]:
        """Do what waits: the result, and after how many seconds (futex(2)).

        There is no other thread that would wake it, or give a lock back.
        """
        kind = command & _COMMAND
        try:
            seconds = self._futex_time(command, time_at)
            if kind in (_LOCK_PI, _LOCK_PI2):
                attempt = _TRYLOCK_PI | command & _PRIVATE
                result = self.native("SYS_futex", word, attempt, 0, 0, 0, 0)
            elif kind == _WAIT_BITSET and not bits:
                result = -errno.EINVAL
            else:
                now = int.from_bytes(self._calls.read(word, 4), "little")
                return (-errno.EAGAIN, 0) if now != value & 0xFFFFFFFF else (_LATE, seconds)
        except OSError as error:
            return -(error.errno or errno.EFAULT), 0
        return (_LATE, seconds) if result == -errno.EAGAIN else (result, 0)

    def _futex_time(self, command: int, time_at: int) -> float:
        """How long it is to wait at most, in seconds.  Raises ``OSError``."""
        if not time_at:
            return math.inf
        length = self._calls.read(time_at, 16)
        seconds, nanoseconds = (int.from_bytes(length[i : i + 8], "little") for i in (0, 8))
        if nanoseconds >= 10**9 or seconds >= 1 << 63:
            raise OSError(errno.EINVAL, "")
        kind = command & _COMMAND
        if kind == _WAIT:
            return seconds + nanoseconds / 1e9
        of_day = kind == _LOCK_PI or command & _REALTIME
        clock = time.CLOCK_REALTIME if of_day else time.CLOCK_MONOTONIC
        return max(0.0, seconds + nanoseconds / 1e9 - time.clock_gettime(clock))

    def fifo(self, directory: int, path_at: int, flags: int) -> int:
        """The FIFO that openat(2) would wait for, opened for nothing; -1 where it would not."""
        if flags & (os.O_NONBLOCK | os.O_PATH) or flags & os.O_ACCMODE == os.O_RDWR:
            return -1
        try:
            path = self._calls.string(path_at)
            if directory == AT_FDCWD or path.startswith(b"/"):
                start = None if path.startswith(b"/") else -1
            else:
                start = self._calls.host_of(directory)
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=start)
        except (OSError, ValueError):
            return -1
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return -1


def waits_for_futex(command: int) -> bool:
    """Is it one of those for which another thread would have to do something?"""
    return command & _COMMAND in _WAITS


def release(path: str, access: int) -> None:
    """Let go of whoever waits for the other end of a FIFO: open it for a moment."""
    try:
        os.close(os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        pass  # nobody waits at the other end: not yet, or not any more


def other_end(access: int) -> int:
    """The access mode of who is waited for."""
    return os.O_WRONLY if access == os.O_RDONLY else os.O_RDONLY


class ThreadWaiting(Waiting):
    """The calls of a program that has the calling thread for itself.

    ``end`` raises what ends it.
    """

    def __init__(
        self,
        core: bridge.Core,
        context: bridge.Context,
        calls: GuestCalls,
        end: Callable[[], None],
    ) -> None:
        super().__init__(core, context, calls)
        self._end = end

    def hooks(self) -> dict[str, Hook]:
        """What goes around them."""
        return {
            "SYS_fcntl": self._fcntl,
            "SYS_futex": self._futex,
            "SYS_open": lambda words, proceed: self._openat((AT_FDCWD, *words), proceed),
            "SYS_openat": self._openat,
        }

    def _wait(self, done: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Wait until something is so; False where the time is over.  Raises if the program is."""
        end, pause = time.monotonic() + seconds, SOON
        while not done():
            left = min(pause, end - time.monotonic())
            self._end_in_time()
            if left <= 0:
                return False
            time.sleep(left)
            pause = min(2 * pause, LATER)
        return True

    def _end_in_time(self) -> None:
        """Raise if the program has been stopped, or its time is up: as the core's own waits do."""
        context = self._context
        if context.stop == bridge.STOP_NONE and time.monotonic_ns() >= context.deadline:
            context.stop = bridge.STOP_TIMEOUT
        if context.stop != bridge.STOP_NONE:
            self._end()

    def _fcntl(self, arguments: Sequence[int], proceed: Callable[[], int]) -> int:
        number, command, lock = arguments
        attempt = WITHOUT_WAITING.get(command)
        if attempt is None:
            return proceed()
        result = -errno.EINTR

        def tried() -> bool:
            nonlocal result
            result = self.native("SYS_fcntl", number, attempt, lock)
            return result not in TAKEN

        self._wait(tried)
        return result

    def _futex(self, arguments: Sequence[int], proceed: Callable[[], int]) -> int:
        if not waits_for_futex(arguments[1]):
            return proceed()
        result, seconds = self.futex(*arguments)
        if seconds:
            self._wait(lambda: False, seconds)
        return result

    def _openat(self, arguments: Sequence[int], proceed: Callable[[], int]) -> int:
        directory, path_at, flags, *_ = arguments
        fifo = self.fifo(directory, path_at, flags)
        if fifo < 0:
            return proceed()
        try:
            host = self._open_fifo(f"/proc/self/fd/{fifo}", flags & os.O_ACCMODE)
        finally:
            os.close(fifo)
        if host < 0:
            return host
        return self._calls.install(host, close_on_exec=bool(flags & os.O_CLOEXEC))

    def _open_fifo(self, path: str, access: int) -> int:
        """On a thread, which ends in any case: whoever gives up opens the other end as well."""
        opened: list[int] = []

        def wait() -> None:
            try:
                opened.append(os.open(path, access | os.O_CLOEXEC))
            except OSError as error:
                opened.append(-(error.errno or errno.EIO))

        thread = Thread(target=wait, name="wali-fifo", daemon=True)
        thread.start()
        arrived = False
        try:
            arrived = self._wait(lambda: bool(opened))
        finally:
            while not opened:
                release(path, other_end(access))
                thread.join(SOON)
            thread.join()
            if not arrived and opened[0] >= 0:
                os.close(opened[0])
        return opened[0]
