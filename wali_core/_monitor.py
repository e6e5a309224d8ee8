"""One thread that looks after guests which have a thread of their own: deadlines, Ctrl-C, output.

A guest that waits in a call sees its deadline by itself.  One that computes must be brought to a
safepoint from outside, by the engine's epoch; and Python's own signal handlers cannot run while the
main thread is inside a guest.  Both is done here.  The thread starts with the first guest that
needs it, sleeps in poll(2), and never touches a guest's store.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal wraps it in enums, which takes a while
import os
import select
import time
from _thread import allocate_lock, get_ident

from wali_core._errors import TOO_MUCH_OUTPUT
from wali_core._signals import have_polled, start_quiet_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, Final, Self

    from wali_core._engine import Engine
    from wali_core._limits import CpuTime


class Watched:
    """What may have to end a guest: to be drained whenever ``read_end`` is readable."""

    reason = TOO_MUCH_OUTPUT
    """Why the guest had to end."""

    def __init__(self, read_end: int) -> None:
        self.read_end = read_end
        self.exceeded = False
        self.on_exceeded: Guard | None = None

    def drain(self) -> bool:
        """Read what is there.  False at the end."""
        raise NotImplementedError

    def exceed(self) -> None:
        """End the guest, and remember it."""
        if not self.exceeded:
            self.exceeded = True
            if self.on_exceeded:
                self.on_exceeded.interrupt()


class Capture(Watched):
    """What a guest writes to a pipe, collected up to ``limit`` bytes.

    ``write_end`` is for the guest; ``finish`` closes it and gives the bytes.
    """

    def __init__(self, limit: int) -> None:
        read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        super().__init__(read_end)
        os.set_blocking(self.read_end, False)
        self.limit = limit
        self._data = bytearray()

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
            if len(chunk) > room:
                self.exceed()

    def finish(self) -> bytes:
        """Everything that was written, once the guest is gone."""
        self.on_exceeded = None
        os.close(self.write_end)
        self.drain()
        os.close(self.read_end)
        return bytes(self._data)


def collect(captures: Iterable[Watched], ready: set[int]) -> None:
    """Read from those captures whose read end is ready."""
    for capture in captures:
        if capture.read_end in ready:
            capture.drain()


class _Pressed:
    """Around what Ctrl-C is raised at the end of, once all is put back."""

    def __init__(self) -> None:
        self.pressed = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave()
        finally:
            if self.pressed and kind is not KeyboardInterrupt:
                raise KeyboardInterrupt

    def _leave(self) -> None:
        raise NotImplementedError


class Guard(_Pressed):
    """Around a call into a guest: brings it to an end at its deadline, or at Ctrl-C.

    ``on_deadline`` is called by the monitor's thread when the deadline has come and the guest may
    not see it by itself, waiting in the kernel as a WALI program can.  ``cpu`` is how long it may
    compute: looked at by that thread, too, as often as it can be over.

    On the main thread, where Python's own handler would raise KeyboardInterrupt, Ctrl-C is taken
    over: it ends the guest, and is raised once, when the guest has ended and all is put back.  Any
    other handler is its owner's: it runs when the guest has ended, as with every C function.
    """

    def __init__(
        self,
        engine: Engine,
        context: int,
        deadline: float | None,
        captures: tuple[Watched, ...] = (),
        on_deadline: Callable[[], None] | None = None,
        cpu: CpuTime | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.context = context
        self.deadline = deadline
        self.due = deadline
        """When the monitor's thread has something to do for it."""
        self.cpu = cpu
        self.cpu_due: float | None = None
        """When that thread has to look at its computing time."""
        self.captures = captures
        self.on_deadline = on_deadline
        self._computes = False
        self._handler: Any = None  # what to put back at the end, once it is taken
        self._wakeup: int | None = None

    def interrupt(self) -> None:
        """End the guest: from any thread, but only while this guard is entered."""
        self.engine.core.interrupt(self.context)
        self.urge()

    def urge(self) -> None:
        """Bring the guest to a safepoint, where it sees that it must end.

        And again a little later, if it is still there: an epoch that passes just while it looks at
        the one before is lost on it.
        """
        self.due = time.monotonic() + _AGAIN
        have_polled(self.context)
        self.engine.increment_epoch()

    def __enter__(self) -> Self:
        for capture in self.captures:
            capture.on_exceeded = self
        try:
            self._take_signals()
            if self.cpu is not None:
                self.cpu.begin()
                self.cpu_due = time.monotonic() + self.cpu.patience()
                self._computes = True
            if self._handler or self.waits_for_something:
                _monitor.add(self, takes_signals=self._handler is not None)
            if self._handler:
                self._wakeup = _monitor.wake_by_signals()
        except BaseException:
            self._leave()
            raise
        return self

    @property
    def waits_for_something(self) -> bool:
        """Has the monitor's thread something to do for it, but to hear signals?"""
        return self.deadline is not None or bool(self.captures) or self.cpu is not None

    def attend(self, now: float) -> None:
        """Do what is due.  On the monitor's thread."""
        if self.cpu is not None and self.cpu_due is not None and self.cpu_due <= now:
            patience = self.cpu.patience()
            self.cpu_due = now + patience if patience else None
            if not patience:
                self.cpu.exceeded = True
                self.interrupt()
        if self.due is not None and self.due <= now:
            self.urge()
            if self.on_deadline and self.deadline is not None and self.deadline <= now:
                self.on_deadline()

    def watch_again(self) -> None:
        """In a forked child, which has no thread for that: look after the deadline there, too."""
        _monitor.add(self, takes_signals=False)

    def _leave(self) -> None:
        try:
            self._put_back()
        except BaseException:  # of another signal's handler: the rest is put back all the same
            self._leave()
            raise

    def _put_back(self) -> None:
        if self._wakeup is not None:
            _signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        if self._handler:
            _signal.signal(_signal.SIGINT, self._handler)
        _monitor.remove(self)  # not before: what comes until then is this guard's
        if self.cpu is not None and self._computes:
            self._computes = False
            self.cpu.end()
        for capture in self.captures:
            capture.on_exceeded = None

    def _take_signals(self) -> None:
        self._handler = _take_ctrl_c(self._press)
        outer = getattr(self._handler, "__self__", None)
        if isinstance(outer, Postponed) and outer.pressed:
            raise KeyboardInterrupt  # before the guest does anything

    def _press(self, _number: int, _frame: object) -> None:
        """What runs at Ctrl-C: as soon as Python can, which while the guest runs is too late."""
        self.pressed = True
        outer = getattr(self._handler, "__self__", None)
        if isinstance(outer, Postponed):
            outer.pressed = True
        self.interrupt()


class Postponed(_Pressed):
    """Ctrl-C is raised when this is left, so that what is made and closed in it is so as a whole.

    It is for the thread, and the handler, for which a ``Guard`` is: one that is entered within is
    ended as ever.  Where it is, the handlers of other signals, which may raise as well, are called
    then, too.  What waits within has to be called by ``interruptible``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = get_ident()
        self._admits = False
        self._handlers: dict[int, Any] = {}  # by their signals, to be put back
        self._came: list[int] = []  # signals other than Ctrl-C

    def __enter__(self) -> Self:
        try:
            self._take()
        except BaseException:
            self._leave()
            raise
        return self

    def _leave(self) -> None:
        try:
            self._put_back()
            while self._came:
                _signal.raise_signal(self._came.pop(0))
        except BaseException:  # of a handler that is back: the others are put back all the same
            self._leave()
            raise

    def _take(self) -> None:
        if not _is_taken(_signal.getsignal(_signal.SIGINT)):
            return
        # Ctrl-C last: once that is taken, nothing is raised before this is left.
        for number in (*_OTHERS, _signal.SIGINT):
            handler = _signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler  # before, since ours may be called at once
                try:
                    _signal.signal(number, self._press if number == _signal.SIGINT else self._come)
                except ValueError:  # not the main thread
                    self._handlers.clear()
                    return

    def _put_back(self) -> None:
        while self._handlers:
            number = next(iter(self._handlers))
            # None but ours: a handler may have put up another.
            if _signal.getsignal(number) in (self._press, self._come):
                _signal.signal(number, self._handlers[number])
            del self._handlers[number]  # not before: what has just been put back may raise

    def _come(self, number: int, frame: object) -> None:
        if self._admits:
            self._handlers[number](number, frame)
        else:
            self._came.append(number)

    def _press(self, _number: int, _frame: object) -> None:
        self.pressed = True
        if self._admits:
            self._admits = False
            raise KeyboardInterrupt

    @staticmethod
    def current() -> Postponed | None:
        """The one that this thread has entered last, unless a guest is running."""
        found = getattr(_signal.getsignal(_signal.SIGINT), "__self__", None)
        if isinstance(found, Postponed) and found.thread == get_ident():
            return found
        return None

    @staticmethod
    def pressed_here() -> bool:
        """Has there been a Ctrl-C that this thread has yet to raise, or raises already?"""
        postponed = Postponed.current()
        return postponed is not None and postponed.pressed

    def admit(self, wait: Callable[..., Any], *arguments: Any) -> Any:
        """Call what waits.  Raises at Ctrl-C, also at an earlier one, or where a handler does."""
        self._admits = True
        try:
            if self.pressed:
                raise KeyboardInterrupt
            while self._came:
                number = self._came.pop(0)
                self._handlers[number](number, None)
            return wait(*arguments)
        finally:
            self._admits = False


def interruptible(wait: Callable[..., Any], *arguments: Any) -> Any:
    """Call what waits, so that Ctrl-C ends it at once even where that is postponed.

    What it returns may be lost then.
    """
    postponed = Postponed.current()
    return wait(*arguments) if postponed is None else postponed.admit(wait, *arguments)


def _take_ctrl_c(press: Callable[[int, object], None]) -> Any:
    """Put ``press`` in the place of Python's own handler, or of one of ours; what to put back.

    None where it stays as it is: for another handler, or in another thread than the main one.
    """
    handler = _signal.getsignal(_signal.SIGINT)
    if not _is_taken(handler):
        return None
    try:
        _signal.signal(_signal.SIGINT, press)
    except ValueError:
        return None  # not the main thread
    return handler


def _is_taken(handler: Any) -> bool:
    """Is that a handler of Ctrl-C that gives way: Python's own, or one of ours?"""
    ours = isinstance(getattr(handler, "__self__", None), _Pressed)
    return ours or handler is _signal.default_int_handler


_OTHERS: Final = tuple(number for number in range(1, _signal.NSIG) if number != _signal.SIGINT)


class _Monitor:
    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._guards: list[Guard] = []
        self._signalled: list[Guard] = []  # guards that Ctrl-C ends, the innermost last
        self._started = self._tells_children = False
        self._read_end = self._write_end = -1

    def add(self, guard: Guard, *, takes_signals: bool) -> None:
        with self._lock:
            self._start()
            self._guards.append(guard)
            if takes_signals:
                self._forget_signals()
                self._signalled.append(guard)
        if guard.waits_for_something:
            self._wake()  # it has something to wait for

    def remove(self, guard: Guard) -> None:
        """Afterwards the thread does not know the guard, nor read its captures."""
        with self._lock:
            if guard in self._guards:
                self._guards.remove(guard)
            if guard in self._signalled:
                self._signalled.remove(guard)
                self._forget_signals()

    def wake_by_signals(self) -> int:
        """Let the thread see signals while no Python code runs; the descriptor that did before."""
        return int(_signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False))

    def _start(self) -> None:
        if self._started:
            return
        if self._read_end < 0:
            self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if not self._tells_children:
            # Not before: a hook costs every fork, and most programs need no monitor.
            os.register_at_fork(after_in_child=self.forget)
            self._tells_children = True
        start_quiet_thread(self._run, self._read_end)
        self._started = True

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
            with self._lock:
                if read_end in ready:
                    self._notice(self._heard())
                self._attend(ready)

    def _patience(self, guards: tuple[Guard, ...]) -> float | None:
        """How long to sleep, in ms: one more than needed, so that the deadline has come then."""
        dues = [due for guard in guards for due in (guard.due, guard.cpu_due)]
        times = [due for due in dues if due is not None]
        if not times:
            return None
        return min(max(0.0, min(times) - time.monotonic()), _LONGEST) * 1000 + 1

    def _heard(self) -> bytes:
        """The numbers of signals, and zeros for wake-ups, since this was called last."""
        try:
            return os.read(self._read_end, 4096)
        except BlockingIOError:
            return b""

    def _forget_signals(self) -> None:
        """They came for somebody else than who takes them from now on, and who has raised them."""
        if self._heard():
            self._wake()

    def _notice(self, signals: bytes) -> None:
        if int(_signal.SIGINT) in signals and self._signalled:
            self._signalled[-1].interrupt()

    def _attend(self, ready: set[int]) -> None:
        now = time.monotonic()
        for guard in self._guards:
            collect(guard.captures, ready)
            guard.attend(now)

    def forget(self) -> None:
        """In a forked child there is no such thread, and nothing to look after."""
        for fd in (self._read_end, self._write_end):
            if fd >= 0:
                os.close(fd)
        self.__init__()  # type: ignore[misc]
        self._tells_children = True


_AGAIN: Final = 0.05  # seconds
_LONGEST: Final = 3600.0  # seconds; poll(2) counts milliseconds, in an int

_monitor = _Monitor()
