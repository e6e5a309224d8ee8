"""A trusted WALI program as a trio task: calls that would stop the thread for all are other ones.

Its calls in Python are made on the stack of who drives it, and may be asynchronous.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from ctypes import byref, c_void_p
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.lowlevel

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core._calls import AT_FDCWD
from wali_core._cooperative import CooperativeGuest
from wali_core._program import AnyProgram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from wali_core._engine import Engine, Module
    from wali_core._link import ProgramLink, Request

_WITHOUT_WAITING: Final = {7: 6, 38: 37}
"""F_SETLKW and F_OFD_SETLKW, and what only tries: F_SETLK and F_OFD_SETLK."""
_TAKEN: Final = (-errno.EAGAIN, -errno.EACCES)
_SOON: Final = 0.0005
_LATER: Final = 0.01  # seconds from one attempt to the next, at first and at last
_FUTEX_COMMAND: Final = 127
_FUTEX_WAIT: Final = 0
_THUNK = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, ctypes.c_size_t)


class Grows(Exception):
    """A call in Python has to be made again, when the guest's memory has grown."""

    def __init__(self, pages: int) -> None:
        super().__init__(pages)
        self.pages = pages


class CooperativeProgram(AnyProgram, CooperativeGuest):
    """One trusted WALI program.  Made by ``Runtime``; started by ``call("_start")``."""

    def __init__(self, engine: Engine, module: Module) -> None:
        super().__init__(engine, module, own_process=False)
        self._growing: int | None = None

    async def start_program(self, link: ProgramLink) -> None:
        """Instantiate: the program's start function runs, which initialises its memory."""
        instance, trap, error = bridge.Instance(), c_void_p(), c_void_p()
        begin = W["wasmtime_instance_pre_instantiate_async"]
        future = begin(link.pre, self._store, byref(instance), byref(trap), byref(error))
        await self._drive(future)
        self._finish_call(error.value, trap.value)
        self._instance = instance

    def _requests(self) -> Mapping[int, Request]:
        assert self._program_link is not None
        return self._program_link.requests

    def _host(self, context: int, call: int, values: int) -> int:
        """As ever; but that its memory must grow is no failure."""
        result = super()._host(context, call, values)
        failure = self._failures.get(context)
        if isinstance(failure, Grows):
            del self._failures[context]
            self._wanted = failure.pages
        return result

    def _grow(self, memory: bridge.Memory, pages: int) -> bool:
        """Only its own fiber may grow the memory: the call is made again when it has tried to."""
        if self._growing is None:
            self._growing = self._size(memory)
            raise Grows(pages)
        before, self._growing = self._growing, None
        return self._size(memory) > before

    def _size(self, memory: bridge.Memory) -> int:
        """Until then it is as large as it was: what is new is not the program's yet."""
        return super()._size(memory) if self._growing is None else self._growing

    # --- calls that would wait in the kernel ------------------------------------------------------

    def _calls_instead(self) -> Mapping[str, Callable[..., Any]]:
        return {
            "SYS_fcntl": self._fcntl,
            "SYS_flock": self._flock,
            "SYS_futex": self._futex,
            "SYS_open": partial(self._openat, AT_FDCWD),
            "SYS_openat": self._openat,
        }

    async def _fcntl(self, number: int, command: int, argument: int) -> int:
        """fcntl(2)."""
        attempt = _WITHOUT_WAITING.get(command)
        if attempt is None:
            return self._native("SYS_fcntl", number, command, argument)
        return await _until_free(partial(self._native, "SYS_fcntl", number, attempt, argument))

    async def _flock(self, number: int, how: int) -> int:
        """flock(2): of an open file, so guests of one process keep each other out as well."""
        if how & fcntl.LOCK_NB:
            return self._native("SYS_flock", number, how)
        return await _until_free(partial(self._native, "SYS_flock", number, how | fcntl.LOCK_NB))

    def _native(self, name: str, *arguments: int) -> int:
        """Make a call of the table's, one that does not wait."""
        values = (bridge.ValRaw * len(bridge.Slot().arguments))()
        for value, argument in zip(values, arguments, strict=False):
            value.i64 = argument
        thunk = _THUNK(self._engine.core.calls["wali", name].native)
        thunk(self._address, None, ctypes.addressof(values), len(values))
        return int(values[0].i64)

    async def _futex(
        self, word: int, command: int, value: int, time_at: int, second: int, third: int
    ) -> int:
        """futex(2).  There is no other thread that could wake it: it waits for its time."""
        if command & _FUTEX_COMMAND != _FUTEX_WAIT:
            return self._native("SYS_futex", word, command, value, time_at, second, third)
        try:
            now = int.from_bytes(self._calls.read(word, 4), "little", signed=True)
            length = self._calls.read(time_at, 16) if time_at else b""
        except OSError as error:
            return -(error.errno or errno.EFAULT)
        if now != value:
            return -errno.EAGAIN
        if not length:
            await trio.sleep_forever()
        seconds, nanoseconds = (int.from_bytes(length[i : i + 8], "little") for i in (0, 8))
        if nanoseconds >= 10**9 or seconds >= 1 << 63:
            return -errno.EINVAL
        await trio.sleep(seconds + nanoseconds / 1e9)
        return -errno.ETIMEDOUT

    async def _openat(self, directory: int, path_at: int, flags: int, mode: int) -> int:
        """openat(2), which for a FIFO waits until that has another end: on a thread."""
        waits = not flags & (os.O_NONBLOCK | os.O_PATH) and flags & os.O_ACCMODE != os.O_RDWR
        fifo = self._fifo(directory, path_at) if waits else -1
        if fifo < 0:
            return self._native("SYS_openat", directory, path_at, flags, mode)
        try:
            host = await _open_fifo(fifo, flags & os.O_ACCMODE)
        except OSError as error:
            return -(error.errno or errno.EIO)
        finally:
            os.close(fifo)
        return self._install(host, flags)

    def _fifo(self, directory: int, path_at: int) -> int:
        """The FIFO of that name, opened for nothing; -1 where there is none."""
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

    def _install(self, host: int, flags: int) -> int:
        """Give it the lowest free number."""
        core, number = self._engine.core, 0
        while core.descriptor_host(self._address, number) >= 0:
            number += 1
        cloexec = bridge.DESCRIPTOR_CLOEXEC if flags & os.O_CLOEXEC else 0
        result = int(core.descriptor_set(self._address, number, host, cloexec))
        if result < 0:
            os.close(host)
            return result
        return number


async def _until_free(attempt: Callable[[], int]) -> int:
    """Ask for a lock again and again: nobody tells when another has given it back.

    A thread could wait for it in the kernel; but only a signal would get it out of there, when the
    guest is cancelled, and the signals of this process are the embedding program's.
    """
    pause = _SOON
    while (result := attempt()) in _TAKEN:
        await trio.sleep(pause)
        pause = min(2 * pause, _LATER)
    return result


async def _open_fifo(fifo: int, access: int) -> int:
    """Open it on a thread, which ends in any case: whoever gives up opens the other end as well."""
    path = f"/proc/self/fd/{fifo}"
    other = os.O_WRONLY if access == os.O_RDONLY else os.O_RDONLY
    done = trio.Event()
    result: list[int | OSError] = []

    async def wait() -> None:
        with trio.CancelScope(shield=True):
            try:
                result.append(await trio.to_thread.run_sync(os.open, path, access | os.O_CLOEXEC))
            except OSError as error:
                result.append(error)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        try:
            await done.wait()
        except trio.Cancelled:
            while not result:
                with trio.CancelScope(shield=True):
                    _release(path, other)
                    await trio.lowlevel.checkpoint()
            if isinstance(result[0], int):
                os.close(result[0])
            raise
    (opened,) = result
    if isinstance(opened, OSError):
        raise opened
    return opened


def _release(path: str, access: int) -> None:
    try:
        os.close(os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        pass  # nobody waits at the other end: not yet, or not any more
