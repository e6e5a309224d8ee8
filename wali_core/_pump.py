"""Streams of a guest whose other end is Python: an iterator to read from, callables to write to.

Either may take its time, so each runs on a thread of its own, beside the guest, which waits on the
pipe between the two as it would for any other program.  What the caller's code raises ends the
guest, and is ``error`` afterwards.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Generator

from wali_core._monitor import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

_CHUNK: Final = 1 << 16
_END: Final = object()


class _Pump(Watched):
    """A thread between a guest and code of the caller's.

    ``read_end`` becomes readable when the guest must end: for ``error``, or with ``exceeded`` alone
    for what it has done itself.
    """

    def __init__(self) -> None:
        super().__init__(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def _run(self) -> None:
        raise NotImplementedError

    def _fail(self, error: BaseException | None) -> None:
        """Have the guest ended.  On the pump's own thread."""
        self.error = error
        os.eventfd_write(self.read_end, 1)

    def drain(self) -> bool:
        """End the guest: it is the guest's thread, or the monitor's, that calls this."""
        try:
            os.eventfd_read(self.read_end)
        except BlockingIOError:
            return True
        self.exceed()
        return True


class Feeder(_Pump):
    """Bytes from an iterator, which is asked for more whenever the pipe has room.

    ``guest_end`` is for the guest.  A generator is closed when the guest has ended.
    """

    reason = "what the guest's standard input came from has failed"

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._iterator = iter(chunks)
        super().__init__()
        self._lock = threading.Lock()
        self._asking = self._stopped = False
        self.guest_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write_end, False)
        self._thread.start()

    def _run(self) -> None:
        try:
            while (chunk := self._next()) is not _END and self._put(chunk):
                pass
            if isinstance(self._iterator, Generator):
                self._iterator.close()
        except BaseException as error:
            with self._lock:
                left_behind = self._stopped and self._asking
                self._asking = False
                if not left_behind:  # the pipe stays open: this is no ordinary end of input
                    self._fail(error)
                    return
            os.close(self._write_end)
            raise  # nobody waits for it any more: the thread's own handler reports it
        os.close(self._write_end)
        self._write_end = -1

    def _next(self) -> object:
        """Ask the iterator.  Nobody waits for it meanwhile: it may never answer."""
        with self._lock:
            self._asking = not self._stopped
        chunk = next(self._iterator, _END) if self._asking else _END
        with self._lock:
            if not self._stopped:
                self._asking = False
                return chunk
        return _END  # left behind: only what is this thread's own may be touched

    def _put(self, chunk: object) -> bool:
        """Write it all, as the guest makes room.  False if it has ended first."""
        left = memoryview(chunk).cast("B")  # type: ignore[arg-type]  # what is not bytes raises
        poller = select.poll()
        poller.register(self._write_end, select.POLLOUT)
        poller.register(self._stop, select.POLLIN)
        while left:
            ready = {fd for fd, _ in poller.poll()}
            if self._stop in ready:
                return False
            left = left[os.write(self._write_end, left) :]
        return True

    def finish(self) -> None:
        """The guest is gone.  Waits for the thread, unless that waits for the iterator."""
        with self._lock:
            self._stopped = True
            left_behind = self._asking
        os.eventfd_write(self._stop, 1)
        if not left_behind:
            self._thread.join()
            if self._write_end >= 0:
                os.close(self._write_end)
        for fd in (self.guest_end, self._stop, self.read_end):
            os.close(fd)


class Sink:
    """A pipe for a guest, and what is called with that which comes out of it.

    ``limit`` is how many bytes that may be, ``None`` any number.
    """

    def __init__(self, call: Callable[[bytes], object], limit: int | None) -> None:
        self._call = call
        self._room = limit
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)

    def give(self, chunk: bytes) -> bool:
        """Pass on as much as may be.  False if that is not all."""
        if self._room is None:
            self._call(chunk)
            return True
        passed = chunk[: self._room]
        self._room -= len(passed)
        if passed:
            self._call(passed)
        return len(passed) == len(chunk)

    def close(self) -> None:
        for fd in (self.read_end, self.write_end):
            os.close(fd)


class Drain(_Pump):
    """What a guest writes to the pipes of ``sinks``, given to their callables.

    After the first that raises, or that has had all it may get, the rest goes nowhere.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        super().__init__()
        self._sinks = {sink.read_end: sink for sink in sinks}
        self._over = False
        self._thread.start()

    @property
    def reason(self) -> str:  # type: ignore[override]
        """Why the guest had to end."""
        if self.error is not None:
            return "what the guest's output went to has failed"
        return super().reason

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._stop, select.POLLIN)
        for fd in self._sinks:
            poller.register(fd, select.POLLIN)
        stopping = False
        while not stopping:
            ready = {fd for fd, _ in poller.poll()}
            stopping = self._stop in ready
            # When it is time to stop, what is still in the pipes goes through first.
            for fd in self._sinks if stopping else ready:
                while self._pass(fd) and stopping:
                    pass

    def _pass(self, fd: int) -> bool:
        """Take one chunk.  False if there was none."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        try:
            if chunk and not self._over and not self._sinks[fd].give(chunk):
                self._over = True
                self._fail(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the guest was run
            self._over = True
            self._fail(error)
        return chunk != b""

    def finish(self) -> None:
        """The guest is gone: pass on what it has left, and end."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self.drain()
        for fd in (self._stop, self.read_end):
            os.close(fd)
        for sink in self._sinks.values():
            sink.close()
