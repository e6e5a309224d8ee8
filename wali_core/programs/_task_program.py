"""A trusted WALI program as a trio task: calls that would stop the thread for all are other ones.

Its calls in Python are made on the stack of who drives it, and may be asynchronous.
"""

from __future__ import annotations

import errno
import fcntl
import os
from ctypes import byref, c_void_p
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.lowlevel

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core.programs._calls import AT_FDCWD
from wali_core.programs._locks import LockWait, may_interrupt
from wali_core.programs._program import AnyProgram
from wali_core.programs._waits import (
    LATER,
    SOON,
    TAKEN,
    WITHOUT_WAITING,
    Waiting,
    other_end,
    release,
    waits_for_futex,
)
from wali_core.tasks._cooperative import CooperativeGuest, places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from wali_core._engine import Engine, Module
    from wali_core._link import ProgramLink, Request
    from wali_core.programs._suspending import SuspendingLink

_LOCK: Final = 32  # bytes of a struct flock


class Grows(Exception):
    """A call in Python has to be made again, when the guest's memory has grown."""

    def __init__(self, pages: int) -> None:
        super().__init__(pages)
        self.pages = pages


class CooperativeProgram(AnyProgram, CooperativeGuest):
    """One trusted WALI program.  Made by ``Runtime``; started by ``call("_start")``."""

    def __init__(self, engine: Engine, module: Module, suspending: SuspendingLink) -> None:
        super().__init__(engine, module, own_process=False)
        self._suspending = suspending
        self._growing: int | None = None
        self._blocking = Waiting(engine.core, self._context, self._calls)

    async def start_program(self, link: ProgramLink) -> None:
        """Instantiate: the program's start function runs, which initialises its memory."""
        instance, ends = bridge.Instance(), (c_void_p * 2)()
        begin = W["wasmtime_instance_pre_instantiate_async"]
        what = link.pre, self._store, byref(instance), *places(ends)
        await self._bounded(partial(begin, *what), ends, None)
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

    def _grow(self, memory: bridge.Memory, pages: int) -> int:
        """Only its own fiber may grow the memory: the call is made again when it has tried to."""
        if self._growing is None:
            self._growing = self._size(memory)
            raise Grows(pages)
        before, self._growing = self._growing, None
        return before if self._size(memory) > before else -1

    def _size(self, memory: bridge.Memory) -> int:
        """Until then it is as large as it was: what is new is not the program's yet."""
        return super()._size(memory) if self._growing is None else self._growing

    # --- calls that would wait in the kernel ------------------------------------------------------

    def _suspending_calls(self) -> Mapping[str, bridge.Extern]:
        instance = self._instantiate_linked(self._suspending.pre)
        wanted = {
            item.name for item in self._module.imports
        } & self._suspending.module.exports.keys()
        found = ((name, self._export(instance, name)) for name in wanted)
        return {name: extern for name, extern in found if extern is not None}

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
        attempt = WITHOUT_WAITING.get(command)
        if attempt is None:
            return self._blocking.native("SYS_fcntl", number, command, argument)
        tried = partial(self._blocking.native, "SYS_fcntl", number, attempt, argument)
        result = tried()
        if result not in TAKEN:
            return result
        record = self._calls.read(argument, _LOCK)
        return await _lock(tried, "fcntl", self._calls.host_of(number), command, record)

    async def _flock(self, number: int, how: int) -> int:
        """flock(2): of an open file, so guests of one process keep each other out as well."""
        tried = partial(self._blocking.native, "SYS_flock", number, how | fcntl.LOCK_NB)
        result = tried()
        if how & fcntl.LOCK_NB or result not in TAKEN:
            return result
        return await _lock(tried, "flock", self._calls.host_of(number), how)

    async def _futex(
        self, word: int, command: int, value: int, time_at: int, second: int, third: int
    ) -> int:
        """futex(2).  There is no other thread that could wake it: it waits for its time."""
        arguments = word, command, value, time_at, second, third
        if not waits_for_futex(command):
            return self._blocking.native("SYS_futex", *arguments)
        result, seconds = self._blocking.futex(*arguments)
        if seconds:
            await trio.sleep(seconds)
        return result

    async def _openat(self, directory: int, path_at: int, flags: int, mode: int) -> int:
        """openat(2), which for a FIFO waits until that has another end: on a thread."""
        fifo = self._blocking.fifo(directory, path_at, flags)
        if fifo < 0:
            return self._blocking.native("SYS_openat", directory, path_at, flags, mode)
        try:
            host = await _open_fifo(fifo, flags & os.O_ACCMODE)
        finally:
            os.close(fifo)
        if host < 0:
            return host
        return self._calls.install(host, close_on_exec=bool(flags & os.O_CLOEXEC))


async def _lock(attempt: Callable[[], int], call: str, *arguments: Any) -> int:
    """Wait for a lock that somebody has: on a thread; or ask again and again, where none can be."""
    if not may_interrupt():
        return await _until_free(attempt)
    waiting = LockWait(call, *arguments)
    return await _on_thread(waiting.run, waiting.interrupt)


async def _until_free(attempt: Callable[[], int]) -> int:
    pause = SOON
    while (result := attempt()) in TAKEN:
        await trio.sleep(pause)
        pause = min(2 * pause, LATER)
    return result


async def _open_fifo(fifo: int, access: int) -> int:
    """Open it on a thread: whoever gives up opens the other end as well."""
    path, opened = f"/proc/self/fd/{fifo}", -1

    def wait() -> int:
        nonlocal opened
        try:
            opened = os.open(path, access | os.O_CLOEXEC)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return opened

    try:
        return await _on_thread(wait, partial(release, path, other_end(access)))
    except BaseException:
        if opened >= 0:
            os.close(opened)
        raise


async def _on_thread(call: Callable[[], int], give_up: Callable[[], None]) -> int:
    """Make a call that waits, on a thread; cancelled, ``give_up`` until it has come to its end.

    There may be as many as there are guests: who waits for another must not keep that from a
    thread.
    """
    result, done = -errno.EINTR, trio.Event()

    async def make() -> None:
        nonlocal result
        with trio.CancelScope(shield=True):
            result = await trio.to_thread.run_sync(call, limiter=trio.CapacityLimiter(1))
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make)
        try:
            await done.wait()
        finally:
            while not done.is_set():
                give_up()
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
    return result
