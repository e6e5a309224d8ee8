"""The calls of a WASI program that are written down: those that name files.

Around the program's imports, and not around what the shim makes of them: what the shim refuses by
itself is to be seen as well.
"""

from __future__ import annotations

import os
from functools import partial
from posixpath import normpath

from capabilities import access_of
from wali_core._audit import Audit, Names, beneath, detour

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from capabilities import Access
    from wali_core._grants import Preopen
    from wali_core._link import Hook

    Arguments = Sequence[int]
    Proceed = Callable[[], int]

# Where each call has its directories and paths: descriptor, address, length; and the second.
_PLACES: Final = {
    "path_open": ((0, 2, 3),),
    "path_filestat_get": ((0, 2, 3),),
    "path_filestat_set_times": ((0, 2, 3),),
    "path_create_directory": ((0, 1, 2),),
    "path_readlink": ((0, 1, 2),),
    "path_remove_directory": ((0, 1, 2),),
    "path_unlink_file": ((0, 1, 2),),
    "path_symlink": ((2, 3, 4),),
    "path_rename": ((0, 1, 2), (3, 4, 5)),
    "path_link": ((0, 2, 3), (4, 5, 6)),
}
_CHANGES: Final = ("fd_allocate", "fd_filestat_set_size", "fd_filestat_set_times")
_LOOKUP, _FOLLOW = 1, 1  # of path_filestat_get
_OFLAGS, _RIGHTS, _OUT = 4, 5, 8  # arguments of path_open
_CREAT, _DIRECTORY, _TRUNC = 1, 2, 8
_WRITES: Final = 1 << 6 | 1 << 8 | 1 << 22  # FD_WRITE, FD_ALLOCATE, FD_FILESTAT_SET_SIZE
_PATH_MAX: Final = 4096

_ERRNOS: Final = {
    0: "0",
    2: "EACCES",
    8: "EBADF",
    20: "EEXIST",
    21: "EFAULT",
    28: "EINVAL",
    31: "EISDIR",
    32: "ELOOP",
    33: "EMFILE",
    37: "ENAMETOOLONG",
    44: "ENOENT",
    51: "ENOSPC",
    54: "ENOTDIR",
    55: "ENOTEMPTY",
    58: "ENOTSUP",
    63: "EPERM",
    69: "EROFS",
    75: "EXDEV",
    76: "ENOTCAPABLE",
}


class WasiCalls:
    """What goes around a program's imports, by their names.

    ``preopens`` are its directories, with their numbers.  ``read`` gets bytes of its memory and
    ``host_of`` the host's descriptor of a number; both raise ``OSError``.
    """

    def __init__(
        self,
        audit: Audit,
        preopens: Sequence[tuple[int, Preopen]],
        read: Callable[[int, int], bytes],
        host_of: Callable[[int], int],
    ) -> None:
        self._audit, self._read, self._host_of = audit, read, host_of
        self._names, self._hosts = Names(), Names()
        for number, preopen in preopens:
            self._opened(number, preopen.path, preopen.full)

    def hooks(self) -> dict[str, Hook]:
        """Them all."""
        return {
            **{call: partial(self._on_paths, call) for call in _PLACES},
            **{call: partial(self._on_descriptor, call) for call in _CHANGES},
            "fd_close": self._on_close,
            "fd_renumber": self._on_renumber,
        }

    def _opened(self, number: int, path: str | None, host: str | None) -> None:
        self._names.opened(number, path)
        self._hosts.opened(number, host)

    def _on_paths(self, call: str, arguments: Arguments, proceed: Proceed) -> int:
        found = [self._named(arguments, *place) for place in _PLACES[call]]
        named = [each for each in found if each is not None]
        access = access_of(call) or "read"
        if call == "path_open" and named:
            access = self._access(arguments, named[0][2])
        result = proceed()
        # Linux has no reason of its own to say that to who only looks or reads.
        out = access in ("look", "read") and _name_of(result) in ("EPERM", "ENOTCAPABLE")
        for path, host, _, via in named:
            self._audit.on_path(
                *(call, path, access, _name_of(result)),
                host=host,
                via=via,
                leads_out=out,
                follows=call != "path_filestat_get" or bool(arguments[_LOOKUP] & _FOLLOW),
            )
        if call == "path_open" and result == 0 and named:
            self._opened(self._number(arguments[_OUT]), *named[0][:2])
        return result

    def _named(
        self, arguments: Arguments, directory: int, at: int, size: int
    ) -> tuple[str, str, bytes, str | None] | None:
        """What a call names: for the guest, on the host, as it says it, and by which detour."""
        length = arguments[size] & 0xFFFFFFFF
        folder, host = self._names[arguments[directory]], self._hosts[arguments[directory]]
        if folder is None or host is None or length > _PATH_MAX:
            return None
        try:
            said = self._read(arguments[at], length)
        except OSError:
            return None
        path, on_host = beneath(folder, said), beneath(host, said.lstrip(b"/"))
        if path is None or on_host is None:
            return None
        return path, on_host, said, detour(folder, said)

    def _access(self, arguments: Arguments, said: bytes) -> Access:
        flags, rights = arguments[_OFLAGS], arguments[_RIGHTS]
        if flags & _CREAT and not self._exists(arguments[0], said):
            return "make"
        changes = flags & _TRUNC or (rights & _WRITES and not flags & _DIRECTORY)
        return "write" if changes else "read"

    def _exists(self, directory: int, said: bytes) -> bool:
        """By the descriptor: this process may see other files than were granted, or none."""
        try:
            os.stat(normpath(said), dir_fd=self._host_of(directory))
        except (OSError, ValueError):
            return False
        return True

    def _number(self, address: int) -> int:
        try:
            return int.from_bytes(self._read(address, 4), "little")
        except OSError:
            return -1

    def _on_descriptor(self, call: str, arguments: Arguments, proceed: Proceed) -> int:
        """Calls that change what is open: whatever it was opened for."""
        path, host = self._names[arguments[0]], self._hosts[arguments[0]]
        result = proceed()
        if path is not None:
            self._audit.on_path(call, path, "write", _name_of(result), host=host)
        return result

    def _on_close(self, arguments: Arguments, proceed: Proceed) -> int:
        result = proceed()
        if result == 0:
            self._opened(arguments[0], None, None)
        return result

    def _on_renumber(self, arguments: Arguments, proceed: Proceed) -> int:
        old, new = arguments
        result = proceed()
        if result == 0 and old != new:
            self._opened(new, self._names[old], self._hosts[old])
            self._opened(old, None, None)
        return result


def _name_of(result: int) -> str:
    return _ERRNOS.get(result & 0xFFFF, str(result & 0xFFFF))
