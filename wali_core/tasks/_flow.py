"""Streams of a guest whose other end is a task of trio's: sources to read from, sinks to write to.

There is a pipe between the two, which gives back-pressure in both directions: a guest that writes
more than its sink takes waits, and a source is asked for more when the pipe has room.  What a
source or a sink raises ends the guest, and is raised where that was run.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING

import trio

from wali_core._errors import TOO_MUCH_OUTPUT, ended_by
from wali_core._stdio import Streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable
    from typing import Any, Final

    from wali_core._ending import Ending
    from wali_core._monitor import Capture
    from wali_core._stdio import Input, Limits, Output

    TaskInput = Input | trio.abc.ReceiveStream | AsyncIterable[bytes]
    TaskOutput = Output | trio.abc.SendStream | Callable[[bytes], Awaitable[object]]

_CHUNK: Final = 1 << 16
_END: Final = object()


class _Flow:
    """One stream's task.  ``guest_end`` is for the guest, and closed when that is gone."""

    reason = TOO_MUCH_OUTPUT

    def __init__(self, guest_end: int = -1, own_end: int = -1) -> None:
        if own_end >= 0:
            os.set_blocking(own_end, False)
        self.guest_end, self._own_end = guest_end, own_end
        self._scope = trio.CancelScope()

    async def run(self, fail: Callable[[_Flow, Exception | None], None]) -> None:
        with self._scope:
            try:
                if not await self._carry():
                    fail(self, None)
            except Exception as error:  # noqa: BLE001 - raised again where the guest was run
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
        if self.guest_end >= 0:
            os.close(self.guest_end)
            self.guest_end = -1

    def _close_own_end(self) -> None:
        if self._own_end >= 0:
            trio.lowlevel.notify_closing(self._own_end)
            os.close(self._own_end)
            self._own_end = -1


class _Source(_Flow):
    """Bytes for the guest, from an iterator of either kind, which a ReceiveStream is, too.

    A generator is closed when the guest has ended; all else stays its owner's.
    """

    reason = "what the guest's standard input came from has failed"

    def __init__(self, chunks: Any) -> None:
        super().__init__(*os.pipe2(os.O_CLOEXEC))
        self._asynchronous = hasattr(chunks, "__aiter__")
        self._chunks = chunks.__aiter__() if self._asynchronous else iter(chunks)

    async def _carry(self) -> bool:
        try:
            while (chunk := await self._next()) is not _END:
                left = memoryview(chunk).cast("B")  # what is not bytes raises
                while left:
                    left = left[await self._write(left) :]
        finally:
            if inspect.isasyncgen(self._chunks):
                await self._chunks.aclose()
            elif inspect.isgenerator(self._chunks):
                self._chunks.close()
        self._close_own_end()
        return True

    async def _next(self) -> Any:
        if self._asynchronous:
            return await anext(self._chunks, _END)
        return next(self._chunks, _END)

    async def _write(self, data: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return os.write(self._own_end, data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._own_end)


class _Sink(_Flow):
    """What the guest writes, given to a function, or sent.  ``limit`` is how much that may be."""

    def __init__(self, give: Callable[[bytes], Awaitable[None]], limit: int | None) -> None:
        own_end, guest_end = os.pipe2(os.O_CLOEXEC)
        super().__init__(guest_end, own_end)
        self._give = give
        self._room = limit

    async def _carry(self) -> bool:
        while chunk := await self._read():
            passed = chunk if self._room is None else chunk[: self._room]
            if self._room is not None:
                self._room -= len(passed)
            try:
                if passed:
                    await self._give(passed)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._close_own_end()  # nobody reads any more: the guest is told so by its pipe
                return True
            if len(passed) < len(chunk):
                return False
        return True

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._own_end, _CHUNK)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._own_end)

    def guest_is_gone(self) -> None:
        """Pass on what is left in the pipe, to its end."""
        self._close_guest_end()


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
    ) -> None:
        given: Any = stdin, stdout, stderr
        super().__init__(*given, capture=capture, limit=limit, most=most)

    def _set_up(self, *streams: Any) -> None:
        self._flows: list[_Flow] = []
        self._failed: _Flow | None = None
        super()._set_up(*streams)
        self._flows += [_Collection(c) for c in self._captured if c is not None]

    def _source(self, stream: Any) -> int | None:
        if not (hasattr(stream, "__aiter__") or hasattr(stream, "__iter__")):
            return None
        self._flows.append(flow := _Source(stream))
        return flow.guest_end

    def _destination(self, stream: Any, limit: int | None) -> int | None:
        if hasattr(stream, "send_all"):
            give = stream.send_all
        elif callable(stream):

            async def give(chunk: bytes) -> None:
                result = stream(chunk)
                if inspect.isawaitable(result):
                    await result
        else:
            return None
        self._flows.append(flow := _Sink(give, limit))
        return flow.guest_end

    def carry(self, run: Callable[[], Awaitable[Ending]]) -> Awaitable[Ending]:
        """Run a guest with the streams flowing.  When it has ended, all has been passed on."""
        return self._flowing(run) if self._flows else run()

    async def _flowing(self, run: Callable[[], Awaitable[Ending]]) -> Ending:
        ending: Ending | Exception | None = None
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                def fail(flow: _Flow, error: Exception | None) -> None:
                    if self._failed is None:
                        self._failed, self.error = flow, error
                        self.exceeded |= error is None
                    scope.cancel()

                for flow in self._flows:
                    nursery.start_soon(flow.run, fail)
                try:
                    ending = await run()
                except Exception as error:  # noqa: BLE001 - raised below: the nursery would wrap it
                    ending = error
            for flow in self._flows:
                flow.guest_is_gone()
        if isinstance(ending, Exception):
            raise ending
        if ending is None:
            assert self._failed is not None
            raise ended_by(self._failed.reason)
        return ending

    def finish(self) -> tuple[bytes | None, bytes | None]:
        """What was captured."""
        for flow in self._flows:
            flow.close()
        return super().finish()
