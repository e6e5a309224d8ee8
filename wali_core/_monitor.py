"""One thread that looks after guests which have a thread of their own: deadlines, Ctrl-C, output.

A guest that waits in a call sees its deadline by itself.  One that computes must be brought to a
safepoint from outside, by the engine's epoch; and Python's own signal handlers cannot run while the
main thread is inside a guest.  Both is done here.  The thread starts with the first guest that
needs it, sleeps in poll(2), and never touches a guest's store.
"""

from __future__ import annotations

import os
import select
import time
from _thread import allocate_lock, get_ident, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from wali_core._engine import Engine


class Capture:
    """What a guest writes to a pipe, collected up to ``limit`` bytes.

    ``write_end`` is for the guest; ``finish`` closes it and gives the bytes.
    """

    def __init__(self, limit: int) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)
        self.limit = limit
        self.exceeded = False
        self._data = bytearray()
        self.on_exceeded: Guard | None = None

    def drain(self) -> bool:
        """Read what is there.  False at the end."""
        while True:
            try:
                chunk = os.read(self.read_end, 1 << 16)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            room = self.limit - len(self._data)
            self._data += chunk[:room]
            if len(chunk) > room and not self.exceeded:
                self.exceeded = True
                if self.on_exceeded:
                    self.on_exceeded.interrupt()

    def finish(self) -> bytes:
        """Everything that was written, once the guest is gone."""
        os.close(self.write_end)
        self.drain()
        os.close(self.read_end)
        return bytes(self._data)


def collect(captures: Iterable[Capture], ready: set[int]) -> None:
    """Read from those captures whose read end is ready."""
    for capture in captures:
        if capture.read_end in ready:
            capture.drain()


class Guard:
    """Around a call into a guest: brings it to an end at its deadline, or at Ctrl-C.

    ``on_deadline`` is called by the monitor's thread when the deadline has come and the guest may
    not see it by itself, waiting in the kernel as a WALI program can.
    """

    def __init__(
        self,
        engine: Engine,
        context: int,
        deadline: float | None,
        captures: tuple[Capture, ...] = (),
        on_deadline: Callable[[], None] | None = None,
    ) -> None:
        self.engine = engine
        self.context = context
        self.deadline = deadline
        self.captures = captures
        self.on_deadline = on_deadline
        self.interrupted = False
        self._takes_signals = False

    def interrupt(self) -> None:
        """End the guest: from any thread, but only while this guard is entered."""
        self.interrupted = True
        self.engine.core.interrupt(self.context)
        self.engine.increment_epoch()

    def __enter__(self) -> Self:
        for capture in self.captures:
            capture.on_exceeded = self
        self._takes_signals = _default_sigint()
        if self._takes_signals or self.deadline is not None or self.captures:
            _monitor.add(self)
            if self._takes_signals:
                _monitor.take_signals(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._takes_signals:
            _monitor.release_signals(self)
        _monitor.remove(self)


def _default_sigint() -> bool:
    """Is this the main thread, with Python's own handler of Ctrl-C?

    Any other handler is its owner's: it runs when the guest has ended, as with every C function.
    """
    # What the module signal wraps in enums, which take a while to make.
    import _signal  # type: ignore[import-not-found]

    return (
        get_ident() == _main_thread()
        and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    )


def _main_thread() -> int:
    import sys

    threading = sys.modules.get("threading")
    return threading.main_thread().ident if threading else get_ident()


class _Monitor:
    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._guards: list[Guard] = []
        self._signalled: list[Guard] = []  # guards that Ctrl-C ends, the innermost last
        self._wakeups: list[int] = []
        self._started = False
        self._read_end = self._write_end = -1

    def add(self, guard: Guard) -> None:
        with self._lock:
            self._guards.append(guard)
            if not self._started:
                self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                self._started = True
                start_new_thread(self._run, (self._read_end,))
                return
        self._wake()

    def remove(self, guard: Guard) -> None:
        """Afterwards the thread does not know the guard, nor read its captures."""
        with self._lock:
            if guard in self._guards:
                self._guards.remove(guard)

    def take_signals(self, guard: Guard) -> None:
        import _signal

        self._signalled.append(guard)
        self._wakeups.append(_signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False))

    def release_signals(self, guard: Guard) -> None:
        import _signal

        _signal.set_wakeup_fd(self._wakeups.pop(), warn_on_full_buffer=False)
        with self._lock:
            self._signalled.remove(guard)

    def _wake(self) -> None:
        try:
            os.write(self._write_end, b"\0")
        except BlockingIOError:
            pass  # full of wake-ups already

    def _run(self, read_end: int) -> None:
        while True:
            with self._lock:
                guards = tuple(self._guards)
            poller = select.poll()
            poller.register(read_end, select.POLLIN)
            captures = {capture.read_end for guard in guards for capture in guard.captures}
            for fd in captures:
                poller.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poller.poll(self._patience(guards))}
            if read_end in ready:
                self._notice(os.read(read_end, 4096))
            with self._lock:
                self._attend(ready)

    def _patience(self, guards: tuple[Guard, ...]) -> float | None:
        """How long to sleep, in ms: one more than needed, so that the deadline has come then."""
        deadlines = [guard.deadline for guard in guards if guard.deadline is not None]
        return max(0.0, (min(deadlines) - time.monotonic()) * 1000) + 1 if deadlines else None

    def _notice(self, signals: bytes) -> None:
        import _signal

        if int(_signal.SIGINT) in signals:
            with self._lock:
                if self._signalled:
                    self._signalled[-1].interrupt()

    def _attend(self, ready: set[int]) -> None:
        now = time.monotonic()
        for guard in self._guards:
            collect(guard.captures, ready)
            if guard.deadline is not None and guard.deadline <= now:
                guard.deadline = None
                guard.engine.increment_epoch()
                if guard.on_deadline:
                    guard.on_deadline()

    def forget(self) -> None:
        """In a forked child there is no such thread, and nothing to look after."""
        for fd in (self._read_end, self._write_end):
            if fd >= 0:
                os.close(fd)
        self.__init__()  # type: ignore[misc]


_monitor = _Monitor()
os.register_at_fork(after_in_child=_monitor.forget)
