"""Standard streams for a guest: whose descriptors 0, 1 and 2 are."""

from __future__ import annotations

import fcntl
import os

from wali_core._errors import UseError
from wali_core._monitor import Capture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Protocol

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    Input = bytes | int | HasFileno | None
    Output = int | HasFileno | None

DEVNULL: Final = -3
"""As ``subprocess.DEVNULL``."""

_F_ADD_SEALS: Final = 1033
_SEALS: Final = 1 | 2 | 4 | 8  # no more seals, no shrinking, no growing, no writing


class Given:
    """Streams that stay their owner's: three descriptors, -1 for none."""

    captures: tuple[Capture, ...] = ()

    def __init__(self, host: Sequence[int]) -> None:
        own = own_streams()
        self.host = [own[fd] if 0 <= fd < len(own) else fd for fd in host]


class Streams:
    """Three host descriptors, and what must be closed with them.

    ``None`` inherits the process's own stream.  Bytes become a sealed file in memory, which the
    guest reads as it would read a redirected file.
    """

    def __init__(
        self, stdin: Input, stdout: Output, stderr: Output, *, capture: bool, limit: int
    ) -> None:
        self._owned: list[int] = []
        self._own = own_streams()
        self.exceeded = False
        """Was there more output than the captures keep?  Known when they are finished."""
        self.captures: tuple[Capture, ...] = ()
        if capture:
            if stdout is not None or stderr is not None:
                raise UseError(
                    "capture_output takes stdout and stderr: they cannot be given as well"
                )
            self.captures = (Capture(limit), Capture(limit))
        try:
            self.host = [self._input(stdin), self._output(stdout, 1), self._output(stderr, 2)]
        except BaseException:
            self.close()
            raise

    def _input(self, stream: Input) -> int:
        if isinstance(stream, (bytes, bytearray, memoryview)):
            return self._memory_file(bytes(stream))
        return self._descriptor(stream, 0)

    def _memory_file(self, data: bytes) -> int:
        fd = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._owned.append(fd)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        return fd

    def _output(self, stream: Output, number: int) -> int:
        if self.captures:
            return self.captures[number - 1].write_end
        return self._descriptor(stream, number)

    def _descriptor(self, stream: int | HasFileno | None, number: int) -> int:
        if stream is None:
            return self._own[number]
        if stream == DEVNULL:
            fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._owned.append(fd)
            return fd
        if not isinstance(stream, int) and not hasattr(stream, "fileno"):
            raise TypeError(f"stream {number} is neither a descriptor nor a file: {stream!r}")
        fd = stream if isinstance(stream, int) else stream.fileno()
        if not _is_open(fd):
            raise UseError(f"descriptor {fd}, given as stream {number}, is not open")
        return fd

    def finish(self) -> tuple[bytes | None, bytes | None]:
        """What was captured, once the guest is closed."""
        if not self.captures:
            return None, None
        first, second = self.captures
        self.captures = ()
        captured = first.finish(), second.finish()
        self.exceeded = first.exceeded or second.exceeded
        return captured

    def close(self) -> None:
        self.finish()
        for fd in self._owned:
            os.close(fd)
        self._owned = []


_plugged: set[int] = set()


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
