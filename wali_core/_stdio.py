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
        self.host = host


class Streams:
    """Three host descriptors, and what must be closed with them.

    ``None`` inherits the process's own stream.  Bytes become a sealed file in memory, which the
    guest reads as it would read a redirected file.
    """

    def __init__(
        self, stdin: Input, stdout: Output, stderr: Output, *, capture: bool, limit: int
    ) -> None:
        self._owned: list[int] = []
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
            return number if _is_open(number) else -1
        if stream == DEVNULL:
            fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._owned.append(fd)
            return fd
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
        return first.finish(), second.finish()

    def close(self) -> None:
        self.finish()
        for fd in self._owned:
            os.close(fd)
        self._owned = []


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True
