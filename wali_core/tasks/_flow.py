"""Streams of a guest whose other end is a task of trio's: sources to read from, sinks to write to.

There is a pipe between the two, which gives back-pressure in both directions: a guest that writes
more than its sink takes waits, and a source is asked for more when the pipe has room.  What a
source or a sink raises ends the guest, and is raised where that was run.

Ctrl-C falls nowhere in here but where a task waits (trio's protection from it), so that each end of
a pipe is closed once; and in the caller's code, as if there were nothing around it.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, TypeVar

import trio

from wali_core._errors import TOO_MUCH_OUTPUT, GuestTimeout, ended_by
from wali_core._pump import GRACE, sources
from wali_core._stdio import Streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable
    from typing import Any, Final

    from wali_core._ending import Ending
    from wali_core._monitor import Capture
    from wali_core._stdio import Input, Limits, Output

    TaskInput = Input | trio.abc.ReceiveStream | AsyncIterable[bytes]
    TaskOutput = Output | trio.abc.SendStream | Callable[[bytes], Awaitable[object]]

T = TypeVar("T")
_CHUNK: Final = 1 << 16
_END: Final = object()
_RAISED: Final = (Exception, KeyboardInterrupt, SystemExit)
"""What the caller's code raises.  The rest is what coroutines are ended by."""


@trio.lowlevel.disable_ki_protection
def _call(function: Callable[..., T], *args: Any) -> T:
    """Call the caller's code, which Ctrl-C ends."""
    return function(*args)


@trio.lowlevel.disable_ki_protection
async def _await(awaitable: Awaitable[T]) -> T:
    """Await the caller's code."""
    return await awaitable


class _Flow:
    """One stream's task.  ``guest_end`` is for the guest, and closed when that is gone."""

    reason = TOO_MUCH_OUTPUT

    def __init__(self, guest_end: int = -1, own_end: int = -1) -> None:
        if own_end >= 0:
            os.set_blocking(own_end, False)
        self.guest_end, self._own_end = guest_end, own_end
        self._scope = trio.CancelScope()

    @trio.lowlevel.enable_ki_protection
    async def run(self, fail: Callable[[_Flow, BaseException | None], None]) -> None:
        with self._scope:
            try:
                if not await self._carry():
                    fail(self, None)
            except _RAISED as error:  # raised again where the guest was run
                fail(self, error)

    async def _carry(self) -> bool:
        """Until the stream's end.  False where the guest has to be ended first."""
        raise NotImplementedError

    def guest_is_gone(self) -> None:
        """Come to an end."""
        self._scope.cancel()

    def close(self) -> None:
        """Close both ends of the pipe."""
        self._close_guest_end()
        self._close_own_end()

    def _close_guest_end(self) -> None:
        guest_end, self.guest_end = self.guest_end, -1
        if guest_end >= 0:
            os.close(guest_end)

    def _close_own_end(self) -> None:
        own_end, self._own_end = self._own_end, -1
        if own_end >= 0:
            trio.lowlevel.notify_closing(own_end)
            os.close(own_end)


class _Source(_Flow):
    """Bytes for the guest, from an iterator of either kind, which a ReceiveStream is, too.

    A generator is closed when the guest has ended; all else stays its owner's.
    """

    reason = "what the guest's standard input came from has failed"

    def __init__(self, chunks: Any) -> None:
        self._asynchronous = hasattr(chunks, "__aiter__")
        self._chunks = chunks.__aiter__() if self._asynchronous else iter(chunks)
        super().__init__(*os.pipe2(os.O_CLOEXEC))
        sources.add(self)

    def close_write_end(self) -> None:
        """In a forked child, in which there is no trio to be told of it."""
        own_end, self._own_end = self._own_end, -1
        if own_end >= 0:
            os.close(own_end)

    async def _carry(self) -> bool:
        try:
            while (chunk := await self._next()) is not _END:
                left = memoryview(chunk).cast("B")  # what is not bytes raises
                while left:
                    left = left[await self._write(left) :]
        finally:
            if inspect.isasyncgen(self._chunks):
                await _await(self._chunks.aclose())
            elif inspect.isgenerator(self._chunks):
                _call(self._chunks.close)
        self._close_own_end()
        return True

    async def _next(self) -> Any:
        if self._asynchronous:
            return await _await(anext(self._chunks, _END))
        return _call(next, self._chunks, _END)

    async def _write(self, data: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return os.write(self._own_end, data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._own_end)


class _Sink(_Flow):
    """What the guest writes, given to a function, or sent.  ``limit`` is how much that may be.

    ``broken`` are the errors which say that nobody takes any more.
    """

    def __init__(
        self,
        give: Callable[[bytes], Awaitable[None]],
        limit: int | None,
        broken: tuple[type[Exception], ...],
    ) -> None:
        own_end, guest_end = os.pipe2(os.O_CLOEXEC)
        super().__init__(guest_end, own_end)
        self._give = give
        self._room = limit
        self._broken = broken
        self._gone = False
        self._idle: trio.CancelScope | None = None

    async def _carry(self) -> bool:
        while chunk := await self._read():
            passed = chunk if self._room is None else chunk[: self._room]
            if self._room is not None:
                self._room -= len(passed)
            try:
                if passed:
                    await self._give(passed)
            except self._broken:
                self._close_own_end()  # nobody reads any more: the guest is told so by its pipe
                return True
            if len(passed) < len(chunk):
                return False
        return True

    async def _read(self) -> bytes:
        """What there is; nothing at the end, or where the guest is gone, whoever else writes."""
        while True:
            try:
                return os.read(self._own_end, _CHUNK)
            except BlockingIOError:
                if self._gone:
                    return b""
            with trio.CancelScope() as self._idle:
                await trio.lowlevel.wait_readable(self._own_end)

    def guest_is_gone(self) -> None:
        """Pass on what is left in the pipe.

        Do not wait for its end: a process that the caller has forked may have it open, too.
        """
        self._gone = True
        self._close_guest_end()
        if self._idle is not None:
            self._idle.cancel()


class _Collection(_Flow):
    """What the guest writes, kept in memory, which the capture's owner gets at the end."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    async def _carry(self) -> bool:
        while not self._capture.exceeded:
            await trio.lowlevel.wait_readable(self._capture.read_end)
            self._capture.drain()
        return False


class TaskStreams(Streams):
    """Streams for a guest that is run by ``carry``; what moves the bytes are trio tasks."""

    captures = ()

    def __init__(
        self,
        stdin: TaskInput,
        stdout: TaskOutput,
        stderr: TaskOutput,
        *,
        capture: bool,
        limit: Limits = None,
        most: int | None = None,
        bound: tuple[float, float] | None = None,
    ) -> None:
        """``bound`` is by trio's clock."""
        given: Any = stdin, stdout, stderr
        super().__init__(*given, capture=capture, limit=limit, most=most, bound=bound)

    def _set_up(self, *streams: Any) -> None:
        self._flows: list[_Flow] = []
        self._failed: _Flow | None = None
        self._sending: list[tuple[Any, trio.Lock]] = []
        super()._set_up(*streams)
        self._flows += [_Collection(c) for c in self._captured if c is not None]

    def _source(self, stream: Any) -> int | None:
        if not (hasattr(stream, "__aiter__") or hasattr(stream, "__iter__")):
            return None
        self._flows.append(flow := _Source(stream))
        return flow.guest_end

    def _destination(self, stream: Any, limit: int | None) -> int | None:
        broken: tuple[type[Exception], ...] = ()
        lock = self._lock_of(stream)
        if hasattr(stream, "send_all"):
            broken = trio.BrokenResourceError, trio.ClosedResourceError

            async def give(chunk: bytes) -> None:
                async with lock:
                    await _await(stream.send_all(chunk))
        elif callable(stream):

            async def give(chunk: bytes) -> None:
                async with lock:
                    result = _call(stream, chunk)
                    if inspect.isawaitable(result):
                        await _await(result)
        else:
            return None
        self._flows.append(flow := _Sink(give, limit, broken))
        return flow.guest_end

    def _lock_of(self, stream: Any) -> trio.Lock:
        """One for both outputs, where they go to the same."""
        for known, lock in self._sending:
            if known == stream:
                return lock
        self._sending.append((stream, lock := trio.Lock()))
        return lock

    def carry(self, run: Callable[[], Awaitable[Ending]]) -> Awaitable[Ending]:
        """Run a guest with the streams flowing.  When it has ended, all has been passed on."""
        return self._flowing(run) if self._flows else run()

    async def _flowing(self, run: Callable[[], Awaitable[Ending]]) -> Ending:
        endings: list[Ending | BaseException] = []
        try:
            await self._flow_beside(run, endings)
        except BaseExceptionGroup as group:
            interrupted = group.subgroup(KeyboardInterrupt)
            if interrupted is None:
                raise
            raise KeyboardInterrupt from group  # bare, as it would be without a nursery
        if not endings:
            assert self._failed is not None
            raise ended_by(self._failed.reason)
        ending = endings.pop()
        if isinstance(ending, BaseException):
            try:
                raise ending
            finally:
                del ending  # its traceback has this frame
        return ending

    async def _flow_beside(
        self, run: Callable[[], Awaitable[Ending]], endings: list[Ending | BaseException]
    ) -> None:
        """Run it, and note how it has ended; nothing where it was a stream that has ended it."""
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                def fail(flow: _Flow, error: BaseException | None) -> None:
                    if self._failed is None:
                        self._failed, self.error = flow, error
                        self.exceeded |= error is None
                    scope.cancel()

                for flow in self._flows:
                    nursery.start_soon(flow.run, fail)
                try:
                    endings.append(await run())
                except _RAISED as error:  # raised above: the nursery would wrap it
                    endings.append(error)
            for flow in self._flows:
                flow.guest_is_gone()
            if self._bound is not None:
                nursery.cancel_scope.deadline = max(self._bound[0], trio.current_time()) + GRACE
        if nursery.cancel_scope.cancelled_caught and self._bound is not None:
            self.late = GuestTimeout(self._bound[1])

    def finish(self) -> tuple[bytes | None, bytes | None]:
        """What was captured."""
        for flow in self._flows:
            flow.close()
        return super().finish()
