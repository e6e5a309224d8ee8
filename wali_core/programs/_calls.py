"""Rare calls of WALI programs, in Python: start-up, limits, and times in microseconds.

They are few and short of time only where a program makes them in a loop, which none does: a call
through here takes a microsecond or two.  What is in Python is not in the trusted C.
"""

from __future__ import annotations

import ctypes
import errno
import os
from struct import Struct

from wali_core._bridge import DESCRIPTOR_CLOEXEC
from wali_core._errors import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from wali_core._bridge import Context, Core

    Served = dict[str, Callable[..., int]]
    Place = Callable[[bytes], str]

AT_FDCWD: Final = -100
_PATH_MAX: Final = 4096
_OWN_DESCRIPTORS, _MOST_DIGITS = b"/proc/self/fd/", 10
_RLIMIT_NOFILE, _RLIMIT_AS, _RLIMITS = 7, 9, 16
_PAIR: Final = Struct("<QQ")
_TIMES: Final = Struct("<qqqq")
_SECOND: Final = 1_000_000  # microseconds
_libc = ctypes.CDLL(None, use_errno=True)


class GuestCalls:
    """What calls in Python need of a guest: its memory, and its descriptors.

    Addresses are the guest's, of any sign.  What is not its memory is ``OSError`` with EFAULT.
    """

    def __init__(self, core: Core, context: Context) -> None:
        self.core = core
        self.context = context
        self._address = ctypes.addressof(context)
        self._space = self._address + core.own_space
        self.address_space: tuple[int, int] | None = None
        """RLIMIT_AS, which is kept from the process: wasmtime reserves 4 GiB for each memory."""

    def read(self, address: int, size: int) -> bytes:
        """A copy of ``size`` bytes."""
        buffer = ctypes.create_string_buffer(size)
        _check(self.core.copy_from(self._address, self._space, address & 0xFFFFFFFF, buffer, size))
        return buffer.raw

    def write(self, address: int, data: bytes) -> None:
        """Put ``data`` at ``address``."""
        _check(self.core.copy_to(self._address, self._space, address & 0xFFFFFFFF, data, len(data)))

    def string(self, address: int) -> bytes:
        """A path: a string that ends in a NUL.  ENAMETOOLONG where it is too long."""
        buffer = ctypes.create_string_buffer(_PATH_MAX)
        _check(
            self.core.copy_string(
                self._address, self._space, address & 0xFFFFFFFF, buffer, _PATH_MAX
            )
        )
        return buffer.value

    def text(self, address: int, most: int) -> bytes:
        """A string of up to ``most`` bytes; E2BIG where it is longer."""
        found, room = b"", _PATH_MAX
        while True:
            buffer = ctypes.create_string_buffer(room)
            try:
                at = (address + len(found)) & 0xFFFFFFFF
                _check(self.core.copy_string(self._address, self._space, at, buffer, room))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                found += buffer.raw
            else:
                return found + buffer.value
            if len(found) > most:
                raise OSError(errno.E2BIG, "")

    def host_of(self, number: int) -> int:
        """The host's descriptor for a number of the guest's; EBADF where none is open."""
        host: int = self.core.descriptor_host(self._address, number)
        if host < 0:
            raise OSError(errno.EBADF, "")
        return host

    def directory(self, number: int) -> int:
        """The same for where a path begins; -1 where that is nowhere."""
        if number == AT_FDCWD:
            return self.context.cwd
        host: int = self.core.descriptor_host(self._address, number)
        return host

    def install(self, host: int, *, close_on_exec: bool = False) -> int:
        """The lowest free number for a new descriptor of the host's, which is the guest's then."""
        flags = DESCRIPTOR_CLOEXEC if close_on_exec else 0
        number: int = self.core.descriptor_install(self._address, host, flags)
        return number


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, "")


def answering(call: Callable[..., int]) -> Callable[..., int]:
    """``-errno`` for an ``OSError``, as the kernel answers."""

    def answer(*arguments: int) -> int:
        try:
            return call(*arguments)
        except OSError as error:
            return -(error.errno or errno.EIO)

    return answer


# --- start-up -------------------------------------------------------------------------------------


class Startup:
    """The arguments and the environment, as ``__cl_*`` and ``__get_init_envfile`` hand them over.

    ``place`` puts the environment where the program can open it, and gives that path.  Without, it
    is a file without a name, which only this process can open.
    """

    def __init__(
        self,
        calls: GuestCalls,
        argv: Sequence[bytes] = (),
        environment: bytes | None = None,
        place: Place | None = None,
    ) -> None:
        self._calls = calls
        self._argv = argv
        self._begun = self._ended = 0
        self._file = -1
        self._path: str | None = None
        if environment is not None and place is not None:
            self._path = place(environment)
        elif environment is not None:
            self._file = os.memfd_create("environment", os.MFD_CLOEXEC)
            os.write(self._file, environment)
            self._path = f"/proc/self/fd/{self._file}"

    def served(self) -> Served:
        """The calls, by name."""
        return {
            "__init": self._init,
            "__deinit": self._deinit,
            "__cl_get_argc": lambda: len(self._argv),
            "__cl_get_argv_len": lambda i: len(self._argument(i) or b""),
            "__cl_copy_argv": answering(self._copy_argument),
            "__get_init_envfile": answering(self._environment_path),
        }

    def _init(self) -> int:
        self._begun += 1
        return int(self._begun > 1)

    def _deinit(self) -> int:
        self._ended += 1
        return int(self._ended > 1)

    def _argument(self, index: int) -> bytes | None:
        return self._argv[index] if 0 <= index < len(self._argv) else None

    def _copy_argument(self, buffer: int, index: int) -> int:
        word = self._argument(index)
        if word is None:
            return -errno.EFAULT
        self._calls.write(buffer, word + b"\0")
        return 0

    def _environment_path(self, buffer: int, room: int) -> int:
        """Its path; as in the reference, a buffer that is too small gets an empty one."""
        if self._path is None:
            return 0
        path = os.fsencode(self._path) + b"\0"
        self._calls.write(buffer, path if len(path) <= room & 0xFFFFFFFF else b"\0")
        return 1

    def close(self) -> None:
        """Close the environment's file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def environment_text(environ: Sequence[bytes]) -> bytes | None:
    """What the file of an environment holds: one ``K=V`` a line; None where there is none.

    Raises ``ModuleError`` for a variable that such a file cannot hold.
    """
    for pair in environ:
        if b"\n" in pair:
            name = pair.partition(b"=")[0].decode(errors="replace")
            raise ModuleError(
                f"environment variable {name!r}: its value has a newline, "
                "which WALI's environment file cannot hold"
            )
    return b"\n".join(environ) + b"\n" if environ else None


# --- limits ---------------------------------------------------------------------------------------


def served_limits(calls: GuestCalls) -> Served:
    """prlimit64(2) and its kin, of the program itself.

    RLIMIT_NOFILE bounds the numbers of its own table, RLIMIT_AS its memory.
    """

    def taken(at: int) -> tuple[int, int]:
        now, most = _PAIR.unpack(calls.read(at, _PAIR.size))
        return now, most

    def limits(resource: int, new: tuple[int, int] | None, old_at: int) -> int:
        if not 0 <= resource < _RLIMITS:
            return -errno.EINVAL
        if new and resource != _RLIMIT_NOFILE and calls.context.cwd != AT_FDCWD:
            return -errno.EPERM  # of a process that is not the program's
        of = {_RLIMIT_NOFILE: _open_files, _RLIMIT_AS: _address_space}.get(resource, _of_process)
        old = of(calls, resource, new)
        if old_at:
            calls.write(old_at, _PAIR.pack(*old))
        return 0

    def prlimit64(pid: int, resource: int, new_at: int, old_at: int) -> int:
        new = taken(new_at) if new_at else None
        if pid not in (0, os.getpid()):
            return -errno.ESRCH if pid < 0 else -errno.EPERM
        return limits(resource, new, old_at)

    def getrlimit(resource: int, at: int) -> int:
        return limits(resource, None, at) or (0 if at else -errno.EFAULT)

    def setrlimit(resource: int, at: int) -> int:
        return limits(resource, taken(at), 0)

    return {
        "SYS_prlimit64": answering(prlimit64),
        "SYS_getrlimit": answering(getrlimit),
        "SYS_setrlimit": answering(setrlimit),
    }


def _of_process(_calls: GuestCalls, resource: int, new: tuple[int, int] | None) -> tuple[int, int]:
    """Plainly prlimit(2): Python's own module would translate RLIM_INFINITY."""
    old = (ctypes.c_uint64 * 2)()
    wanted = None if new is None else (ctypes.c_uint64 * 2)(*new)
    if _libc.prlimit64(0, resource, wanted, old):
        raise OSError(ctypes.get_errno(), "")
    return old[0], old[1]


def _open_files(calls: GuestCalls, _resource: int, new: tuple[int, int] | None) -> tuple[int, int]:
    table = calls.context.table.contents
    old = table.limit, table.limit_most
    if new is not None:
        _check_lowered(old, new)
        table.limit, table.limit_most = new
    return old


def _address_space(calls: GuestCalls, kind: int, new: tuple[int, int] | None) -> tuple[int, int]:
    old = calls.address_space or _of_process(calls, kind, None)
    if new is not None:
        _check_lowered(old, new)
        calls.address_space = new
    return old


def _check_lowered(old: tuple[int, int], new: tuple[int, int]) -> None:
    if new[0] > new[1]:
        raise OSError(errno.EINVAL, "")
    if new[1] > old[1]:
        raise OSError(errno.EPERM, "")


# --- times in microseconds ------------------------------------------------------------------------


def served_times(calls: GuestCalls) -> Served:
    """utimes(2) and futimesat(2), by utimensat(2)."""

    def times_of(at: int) -> ctypes.Array[ctypes.c_int64] | None:
        if not at:
            return None
        first, first_us, second, second_us = _TIMES.unpack(calls.read(at, _TIMES.size))
        if not (0 <= first_us < _SECOND and 0 <= second_us < _SECOND):
            raise OSError(errno.EINVAL, "")
        return (ctypes.c_int64 * 4)(first, first_us * 1000, second, second_us * 1000)

    def futimesat(number: int, path_at: int, times_at: int) -> int:
        times = times_of(times_at)
        if path_at or number == AT_FDCWD:
            path = calls.string(path_at)
            # An absolute path needs no directory: that there is none the kernel says.
            result = _libc.utimensat(calls.directory(number), path, times, 0)
        else:
            result = _libc.futimens(calls.host_of(number), times)
        return -ctypes.get_errno() if result else 0

    def utimes(path_at: int, times_at: int) -> int:
        return futimesat(AT_FDCWD, path_at, times_at)

    return {"SYS_utimes": answering(utimes), "SYS_futimesat": answering(futimesat)}


# --- links ----------------------------------------------------------------------------------------


def served_links(calls: GuestCalls) -> Served:
    """readlinkat(2) of ``/proc/self/fd/N``: procfs would take N for a number of the host's."""

    def readlinkat(directory: int, path_at: int, at: int, size: int) -> int:
        if size <= 0:
            return -errno.EINVAL
        path = calls.string(path_at)
        number = path[len(_OWN_DESCRIPTORS) :]
        if number.isdigit() and len(number) < _MOST_DIGITS:
            target = _where(calls.directory(int(number)))
        else:
            target = _read_link(calls.directory(directory), path)
        calls.write(at, target[:size])
        return len(target[:size])

    return {"SYS_readlinkat": answering(readlinkat)}


def _where(host: int) -> bytes:
    """What is open there, or ENOENT: a terminal can be told without procfs, too."""
    if host < 0:
        raise OSError(errno.ENOENT, "")
    try:
        return _read_link(AT_FDCWD, b"%s%d" % (_OWN_DESCRIPTORS, host))
    except FileNotFoundError:
        device = os.fstat(host)
        name = b"/dev/pts/%d" % os.minor(device.st_rdev)
        if not os.isatty(host) or not os.path.samestat(os.stat(name), device):
            raise
        return name


def _read_link(directory: int, path: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(_PATH_MAX)
    length = _libc.readlinkat(directory, path, buffer, _PATH_MAX)
    if length < 0:
        raise OSError(ctypes.get_errno(), "")
    return buffer.raw[:length]
