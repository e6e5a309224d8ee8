"""The file of an environment that has no place: whoever opens its name is given it, by a hook.

WALI's libc opens, by its path, a file for its environment.  Where a view has a folder for that, or
the kernel holds a program to its files, it can be let.  Where neither is so, a program that may
open nothing is still to find what it was given, and nothing else.
"""

from __future__ import annotations

import errno
import os

from wali_core.programs._calls import answering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wali_core._link import Hook
    from wali_core.programs._calls import GuestCalls

_O_CLOEXEC, _X_OK = 0o2000000, 1


class EnvironmentFile:
    """The last environment that was ``place``d, under the name that this has."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._name = os.fsencode(path)
        self._data: bytes | None = None

    def place(self, data: bytes) -> str:
        """Have it be the environment; gives its path."""
        self._data = data
        return self._path

    def hooks(self, calls: GuestCalls) -> dict[str, Hook]:
        """What goes around the calls of one program by which its libc gets at it."""

        def around(path: int, answer: Callable[[int], int]) -> Hook:
            """``path`` is which argument that is; what comes after it is answered to."""

            def hook(arguments: Sequence[int], proceed: Callable[[], int]) -> int:
                if self._data is None or not self._is_named(calls, arguments[path]):
                    return proceed()
                return answer(arguments[path + 1])

            return hook

        def opened(flags: int) -> int:
            return calls.install(self._copy(), close_on_exec=bool(flags & _O_CLOEXEC))

        def looked_at(mode: int) -> int:
            return -errno.EACCES if mode & _X_OK else 0

        return {
            "SYS_open": around(0, answering(opened)),
            "SYS_openat": around(1, answering(opened)),
            "SYS_access": around(0, looked_at),
            "SYS_faccessat": around(1, looked_at),
        }

    def _is_named(self, calls: GuestCalls, address: int) -> bool:
        try:
            return calls.string(address) == self._name
        except OSError:  # the call says what is wrong with it
            return False

    def _copy(self) -> int:
        """A file of its own for each that opens it, by calls that no filter refuses."""
        assert self._data is not None
        fd = os.memfd_create("environment", os.MFD_CLOEXEC)
        whole = os.write(fd, self._data) == len(self._data)
        os.lseek(fd, 0, os.SEEK_SET)
        if not whole:
            os.close(fd)
            raise OSError(errno.ENOSPC, "")
        return fd
