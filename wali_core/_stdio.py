"""Standard streams for a guest: whose descriptors 0, 1 and 2 are."""

from __future__ import annotations

import fcntl
import os
import time

from wali_core._errors import GuestTimeout, UseError
from wali_core._monitor import Capture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Final, Protocol

    from wali_core._monitor import Watched
    from wali_core._pump import Drain, Feeder, Sink

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    Input = bytes | int | HasFileno | Iterable[bytes] | None
    Output = int | HasFileno | Callable[[bytes], object] | None
    Limits = int | tuple[int | None, int | None] | None

PIPE: Final = -1
STDOUT: Final = -2
DEVNULL: Final = -3
"""These three as in ``subprocess``."""

OUTPUT_LIMIT: Final = 64 << 20
"""How many bytes are kept of a stream that is captured, where nothing is said."""

_F_ADD_SEALS: Final = 1033
_SEALS: Final = 1 | 2 | 4 | 8  # no more seals, no shrinking, no growing, no writing


def seal(fd: int) -> None:
    """Let nobody change a file in memory any more (memfd_create(2), ``MFD_ALLOW_SEALING``)."""
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)


class Given:
    """Streams that stay their owner's: three descriptors, -1 for none."""

    captures: tuple[Watched, ...] = ()

    def __init__(self, host: Sequence[int]) -> None:
        own = own_streams()
        self.host = [own[fd] if 0 <= fd < len(own) else fd for fd in host]


class Streams:
    """Three host descriptors, and what must be closed with them.

    ``None`` inherits the process's own stream.  Bytes become a sealed file in memory, which the
    guest reads as it would read a redirected file; what is iterated or called has a pipe.

    ``limit`` is a number of bytes for stdout and stderr each, or for the one and the other; None
    stands for ``OUTPUT_LIMIT`` where output is captured, and for no limit where it is passed on.
    ``most`` is one that no stream goes beyond; ``passed_on`` are the numbers of those that nobody
    here counts, since they are somebody's own files.  ``bound`` is when all should have been passed
    on (monotonic), and how many seconds that is.
    """

    def __init__(
        self,
        stdin: Input,
        stdout: Output,
        stderr: Output,
        *,
        capture: bool,
        limit: Limits = None,
        most: int | None = None,
        bound: tuple[float, float] | None = None,
    ) -> None:
        if capture:
            if stdout is not None or stderr is not None:
                raise UseError(
                    "capture_output takes stdout and stderr: they cannot be given as well"
                )
            stdout = stderr = PIPE
        given: tuple[Any, ...] = limit if isinstance(limit, tuple) else (limit, limit)
        for one in given:
            if one is not None and (not isinstance(one, int) or one < 0):
                raise UseError(f"output_limit={limit!r}: it must be a number of bytes, 0 or more")
        self._limits = tuple(_tighter(one, most) for one in given)
        self._owned: list[int] = []
        self._own = own_streams()
        self._captured: list[Capture | None] = [None, None]
        self._sinks: list[Sink] = []
        self._pumps: list[Feeder | Drain] = []
        self._bound = bound
        self.late: GuestTimeout | None = None
        """What to raise where not all was passed on in time.  Known when the streams are finished.
        """
        self.exceeded = False
        """Was there more output than there may be?  Known when the streams are finished."""
        self.error: BaseException | None = None
        """What an iterator or a callable has raised.  Known then as well."""
        self.passed_on: list[int] = []
        self.host: list[int] = []
        try:
            self._set_up(stdin, stdout, stderr)
        except BaseException:
            self.close()
            raise

    def _set_up(self, stdin: Input, stdout: Output, stderr: Output) -> None:
        out = self._output(stdout, 1)
        errors = out if _is(stderr, STDOUT) else self._output(stderr, 2)
        if self._sinks:
            from wali_core._pump import Drain

            sinks, self._sinks = self._sinks, []
            self._start(Drain(sinks))
        self.host = [self._input(stdin), out, errors]

    @property
    def captures(self) -> tuple[Watched, ...]:
        """What has to be looked after while a guest runs."""
        captured = (capture for capture in self._captured if capture is not None)
        return *captured, *self._pumps

    def _start(self, pump: Feeder | Drain) -> None:
        self._pumps.append(pump)  # before: it has to be finished in any case
        pump.start()

    def _input(self, stream: Any) -> int:
        if isinstance(stream, (bytes, bytearray, memoryview)):
            return self._memory_file(bytes(stream))
        fd = self._descriptor(stream, 0)
        if fd is not None:
            return fd
        fd = None if isinstance(stream, str) else self._source(stream)
        if fd is None:
            raise TypeError(
                f"stream 0 is neither bytes nor a descriptor, nor a file, nor gives any: {stream!r}"
            )
        return fd

    def _source(self, stream: Any) -> int | None:
        """A pipe that is filled from what gives bytes; None for what does not."""
        if not hasattr(stream, "__iter__"):
            return None
        from wali_core._pump import Feeder

        self._start(feeder := Feeder(stream))
        return feeder.guest_end

    def _memory_file(self, data: bytes) -> int:
        fd = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._owned.append(fd)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        seal(fd)
        return fd

    def _output(self, stream: Output, number: int) -> int:
        limit = self._limits[number - 1]
        if _is(stream, PIPE):
            capture = Capture(OUTPUT_LIMIT if limit is None else limit)
            self._captured[number - 1] = capture
            return capture.write_end
        fd = self._descriptor(stream, number)
        if fd is not None:
            if not _is(stream, DEVNULL):
                self.passed_on.append(number)
            return fd
        fd = self._destination(stream, limit)
        if fd is None:
            raise TypeError(
                f"stream {number} is neither a descriptor nor a file, nor can it be called: "
                f"{stream!r}"
            )
        return fd

    def _destination(self, stream: Any, limit: int | None) -> int | None:
        """A pipe, of which all is passed on to what takes bytes; None for what does not."""
        if not callable(stream):
            return None
        from wali_core._pump import Sink

        self._sinks.append(Sink(stream, limit))
        return self._sinks[-1].write_end

    def _descriptor(self, stream: Any, number: int) -> int | None:
        """The descriptor that a stream stands for; None where it is of another kind."""
        if stream is None:
            return self._own[number]
        if _is(stream, DEVNULL):
            fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._owned.append(fd)
            return fd
        given = stream if isinstance(stream, int) else _fileno(stream)
        if given is None or _is_open(given):
            return given
        raise UseError(f"descriptor {given}, given as stream {number}, is not open")

    def finish(self) -> tuple[bytes | None, bytes | None]:
        """What was captured, once the guest is closed; what was passed on has arrived by then."""
        sinks, self._sinks = self._sinks, []  # no drain had been made for them yet
        for sink in sinks:
            sink.close()
        while self._pumps:
            pump = self._pumps[0]
            pump.finish(self._until())
            del self._pumps[0]
            self.error = self.error or pump.error
            self.exceeded |= pump.exceeded
            if pump.late and self._bound is not None:
                self.late = GuestTimeout(self._bound[1])
        captured, self._captured = self._captured, [None, None]
        found = [None if capture is None else capture.finish() for capture in captured]
        self.exceeded |= any(capture is not None and capture.exceeded for capture in captured)
        return found[0], found[1]

    def _until(self) -> float | None:
        """When what it is passed on to is waited for no longer (monotonic)."""
        if self._bound is None:
            return None
        from wali_core._pump import GRACE

        return max(self._bound[0], time.monotonic()) + GRACE

    def close(self) -> None:
        self.finish()
        owned, self._owned = self._owned, []
        for fd in owned:
            os.close(fd)


def _tighter(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)


def _is(stream: Any, constant: int) -> bool:
    return isinstance(stream, int) and stream == constant


def _fileno(stream: Any) -> int | None:
    """What a file says; None for what is none, or has none, as those in memory."""
    fileno = getattr(stream, "fileno", None)
    if fileno is None:
        return None
    try:
        return int(fileno())
    except OSError:  # io.UnsupportedOperation
        return None


_plugged: set[int] = set()


def identity(fd: int) -> tuple[int, int]:
    """Which file it is, whoever has opened it, and however often."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def own_streams() -> list[int]:
    """The process's own streams, -1 for one that is closed.

    A closed one is plugged: else the next file that is opened, another guest's or a compiled
    module, would get its number, and with it be the stream of the next guest.
    """
    for number in range(3):
        if _is_open(number):
            if number in _plugged and not os.path.samestat(os.fstat(number), os.stat(os.devnull)):
                _plugged.remove(number)  # somebody has put a stream in its place
            continue
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # gets the lowest free number
        if fd == number:
            _plugged.add(number)
        else:
            os.close(fd)  # another thread has just taken it
    return [-1 if number in _plugged else number for number in range(3)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True
