"""Streams of a guest whose other end is Python: an iterator to read from, callables to write to.

Either may take its time, so each runs on a thread of its own, beside the guest, which waits on the
pipe between the two as it would for any other program.  What the caller's code raises ends the
guest, and is ``error`` afterwards.

A thread that is in the caller's code cannot be ended: it may have to be left behind.  Hence what
guest and thread have in common is closed by the one that is done with it last.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Generator
from functools import partial

from wali_core._monitor import Postponed, Watched, interruptible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final

_CHUNK: Final = 1 << 16
_END: Final = object()

GRACE: Final = 0.5
"""Seconds that what a guest has left in its pipe may take to be passed on, when time is over."""


class _Pump(Watched):
    """A thread between a guest and code of the caller's.

    ``read_end`` becomes readable when the guest must end: for ``error``, or with ``exceeded`` alone
    for what it has done itself.
    """

    def __init__(self) -> None:
        super().__init__(-1)
        self._stop = -1
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._users = 1  # of what is in common
        self._begun = self._ended = self._left_behind = False
        self._done = threading.Lock()  # an Event does not stand a KeyboardInterrupt
        self._done.acquire()
        self._thread = threading.Thread(target=self._work, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Open what there has to be, and begin.  From here on ``finish`` has to be called."""
        self.read_end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._open()
        self._users, self._begun = 2, True
        try:
            self._thread.start()
        except RuntimeError:  # there can be no more threads
            self._users, self._begun = 1, False
            raise

    def _open(self) -> None:
        """Make the pipe."""

    def _work(self) -> None:
        try:
            self._run()
        finally:
            self._leave()
            self._ended = True
            self._done.release()

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

    late = False
    """Has anything been left behind that should have been waited for?"""

    def finish(self, until: float | None) -> None:
        """The guest is gone.  Wait for the thread until then (monotonic), or for ever.

        If it is left behind it ends when the caller's code lets it.  Ctrl-C ends the waiting; then
        this has to be called again.
        """
        done = not self._begun or self._wait(until)
        self._close_guest_ends()
        if self._begun and done:
            self._thread.join()  # it has nothing more to do
            self.drain()
        self._leave()

    def _wait(self, until: float | None) -> bool:
        """True when the thread has come to its end."""
        os.eventfd_write(self._stop, 1)
        left = threading.TIMEOUT_MAX
        if until is not None:
            left = min(left, max(0.0, until - time.monotonic()))
        pressed = Postponed.pressed_here()
        if not self._ended and pressed:
            self._done.acquire(timeout=min(left, GRACE))
        elif not self._ended:
            interruptible(partial(self._done.acquire, timeout=left))
        self._left_behind = not self._ended
        return not self._left_behind

    def _leave(self) -> None:
        """This side is done with what is in common."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self._close()

    def _close(self) -> None:
        """Close what is in common."""
        _close_all(self._stop, self.read_end)

    def _close_guest_ends(self) -> None:
        """Close what is the guest's."""
        raise NotImplementedError


sources: weakref.WeakSet[Any] = weakref.WeakSet()
"""What holds a pipe from which a guest reads: it would not end while a forked child holds it too.
"""


def _leave_to_parent() -> None:
    for source in tuple(sources):
        source.close_write_end()


os.register_at_fork(after_in_child=_leave_to_parent)


def _close_all(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


class Feeder(_Pump):
    """Bytes from an iterator, which is asked for more whenever the pipe has room.

    ``guest_end`` is for the guest.  A generator is closed when the guest has ended.
    """

    reason = "what the guest's standard input came from has failed"

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._iterator = iter(chunks)
        self._asking = self._stopped = False
        self.guest_end = self._write_end = -1

    def _open(self) -> None:
        self.guest_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write_end, False)
        sources.add(self)

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
            raise  # nobody waits for it any more: the thread's own handler reports it
        self.close_write_end()

    def close_write_end(self) -> None:
        """There is no more: the guest's input ends here."""
        write_end, self._write_end = self._write_end, -1
        _close_all(write_end)

    def _next(self) -> object:
        """Ask the iterator.  Nobody waits for it meanwhile: it may never answer."""
        with self._lock:
            self._asking = not self._stopped
        chunk = next(self._iterator, _END) if self._asking else _END
        with self._lock:
            if not self._stopped:
                self._asking = False
                return chunk
        return _END  # left behind

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

    def _wait(self, until: float | None) -> bool:
        """Do not wait for the iterator."""
        with self._lock:
            self._stopped = True
            asking = self._asking
        return super()._wait(time.monotonic() if asking else until)

    def _close(self) -> None:
        super()._close()
        self.close_write_end()

    def _close_guest_ends(self) -> None:
        guest_end, self.guest_end = self.guest_end, -1
        _close_all(guest_end)


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
        """Close both ends: no drain has been made for it."""
        _close_all(self.read_end, self.write_end)


class Drain(_Pump):
    """What a guest writes to the pipes of ``sinks``, given to their callables.

    After the first that raises, or that has had all it may get, the rest goes nowhere.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        super().__init__()
        self._sinks = tuple(sinks)
        self._over = False

    @property
    def reason(self) -> str:  # type: ignore[override]
        """Why the guest had to end."""
        if self.error is not None:
            return "what the guest's output went to has failed"
        return super().reason

    @property
    def late(self) -> bool:  # type: ignore[override]
        """Has what a guest wrote not been passed on in time?"""
        return self._left_behind

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._stop, select.POLLIN)
        sinks = {sink.read_end: sink for sink in self._sinks}
        for fd in sinks:
            poller.register(fd, select.POLLIN)
        stopping = False
        while not stopping:
            ready = {fd for fd, _ in poller.poll()}
            stopping = self._stop in ready
            # When it is time to stop, what is still in the pipes goes through first.
            for fd, sink in sinks.items():
                while (stopping or fd in ready) and self._pass(sink) and stopping:
                    pass

    def _pass(self, sink: Sink) -> bool:
        """Take one chunk.  False if there was none."""
        try:
            chunk = os.read(sink.read_end, _CHUNK)
        except BlockingIOError:
            return False
        try:
            if chunk and not self._over and not self._left_behind and not sink.give(chunk):
                self._over = True
                self._fail(None)
        except BaseException as error:
            if self._left_behind:
                raise  # the thread's own handler reports it
            self._over = True
            self._fail(error)
        return chunk != b""

    def _close(self) -> None:
        super()._close()
        _close_all(*(sink.read_end for sink in self._sinks))

    def _close_guest_ends(self) -> None:
        for sink in self._sinks:
            write_end, sink.write_end = sink.write_end, -1
            _close_all(write_end)
