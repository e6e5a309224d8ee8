"""A guest that is nothing but its imports: WASI's functions, called from Python."""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import wasmtime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wali_core import Guest

# Parameters of preview1's functions as witx lowers them, in its order: i is i32, I is i64. All
# return an i32, except proc_exit.
SIGNATURES = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "sched_yield": "",
    "random_get": "ii",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}

PAGES = 8
MEMORY_SIZE = PAGES * 65536
BEYOND = MEMORY_SIZE - 3
"""An address at which not even a word fits."""

_RESULT, _PATH, _OTHER_PATH, _VECTOR, _DATA = 0, 1024, 65536, 131072, 135168


class Errno(enum.IntEnum):
    """The errors that the tests name."""

    SUCCESS = 0
    ACCES = 2
    AGAIN = 6
    BADF = 8
    BUSY = 10
    EXIST = 20
    FAULT = 21
    INVAL = 28
    ISDIR = 31
    LOOP = 32
    MFILE = 33
    NAMETOOLONG = 37
    NOENT = 44
    NOSYS = 52
    NOTDIR = 54
    NOTEMPTY = 55
    NOTSOCK = 57
    NOTSUP = 58
    NXIO = 60
    PERM = 63
    ROFS = 69
    SPIPE = 70
    XDEV = 75
    NOTCAPABLE = 76


class Right(enum.IntFlag):
    """Rights, in the ABI's order."""

    FD_DATASYNC = enum.auto()
    FD_READ = enum.auto()
    FD_SEEK = enum.auto()
    FD_FDSTAT_SET_FLAGS = enum.auto()
    FD_SYNC = enum.auto()
    FD_TELL = enum.auto()
    FD_WRITE = enum.auto()
    FD_ADVISE = enum.auto()
    FD_ALLOCATE = enum.auto()
    PATH_CREATE_DIRECTORY = enum.auto()
    PATH_CREATE_FILE = enum.auto()
    PATH_LINK_SOURCE = enum.auto()
    PATH_LINK_TARGET = enum.auto()
    PATH_OPEN = enum.auto()
    FD_READDIR = enum.auto()
    PATH_READLINK = enum.auto()
    PATH_RENAME_SOURCE = enum.auto()
    PATH_RENAME_TARGET = enum.auto()
    PATH_FILESTAT_GET = enum.auto()
    PATH_FILESTAT_SET_SIZE = enum.auto()
    PATH_FILESTAT_SET_TIMES = enum.auto()
    FD_FILESTAT_GET = enum.auto()
    FD_FILESTAT_SET_SIZE = enum.auto()
    FD_FILESTAT_SET_TIMES = enum.auto()
    PATH_SYMLINK = enum.auto()
    PATH_REMOVE_DIRECTORY = enum.auto()
    PATH_UNLINK_FILE = enum.auto()
    POLL_FD_READWRITE = enum.auto()
    SOCK_SHUTDOWN = enum.auto()
    SOCK_ACCEPT = enum.auto()


READ, WRITE = Right.FD_READ, Right.FD_WRITE
CREAT, DIRECTORY, EXCL, TRUNC = 1, 2, 4, 8
APPEND, DSYNC, NONBLOCK, RSYNC, SYNC = 1, 2, 4, 8, 16
UNKNOWN, CHARACTER_DEVICE, DIRECTORY_TYPE, REGULAR_FILE = 0, 2, 3, 4
SOCKET_DGRAM, SOCKET_STREAM, SYMBOLIC_LINK = 5, 6, 7


class WasiError(Exception):
    """A call answered an errno."""

    def __init__(self, call: str, errno: Errno) -> None:
        super().__init__(f"{call}: {errno.name}")
        self.errno = errno


class Fdstat(NamedTuple):
    """What fd_fdstat_get tells."""

    filetype: int
    flags: int
    base: Right
    inheriting: Right


class Filestat(NamedTuple):
    """What fd_filestat_get and path_filestat_get tell."""

    dev: int
    ino: int
    filetype: int
    nlink: int
    size: int
    atim: int
    mtim: int
    ctim: int


class Entry(NamedTuple):
    """One entry of a directory."""

    next: int
    ino: int
    type: int
    name: bytes


class Event(NamedTuple):
    """One event of poll_oneoff."""

    userdata: int
    error: int
    type: int
    nbytes: int
    flags: int


def caller(interface: str = "wasi_snapshot_preview1") -> bytes:
    """A module that exports what it imports, and a memory."""
    lines = []
    for name, kinds in SIGNATURES.items():
        if interface == "wasi_unstable" and name == "sock_accept":
            continue
        parameters = " ".join({"i": "i32", "I": "i64"}[kind] for kind in kinds)
        result = "" if name == "proc_exit" else "(result i32)"
        lines.append(
            f'(import "{interface}" "{name}" (func ${name} (param {parameters}) {result}))'
            f'(export "{name}" (func ${name}))'
        )
    text = f'(module {" ".join(lines)} (memory (export "memory") {PAGES}))'
    return bytes(wasmtime.wat2wasm(text))


class Wasi:
    """WASI's functions with Python's types. Every errno but SUCCESS is raised as WasiError."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.memory = guest.memory

    def call(self, name: str, *values: int) -> None:
        """Make one call as it is."""
        errno = self.guest.call(name, *values)
        if errno:
            raise WasiError(name, Errno(errno))

    def words(self, count: int = 1, at: int = _RESULT) -> tuple[int, ...]:
        """The i32s that a call has left."""
        return struct.unpack(f"<{count}I", self.memory.read(at, 4 * count))

    def put_path(self, path: str | bytes, at: int = _PATH) -> tuple[int, int]:
        """A path in the guest's memory: its address and length."""
        data = path.encode() if isinstance(path, str) else path
        self.memory.write(at, data)
        return at, len(data)

    def _vector(self, sizes: Iterable[int]) -> tuple[int, int, int]:
        """An iovec array over consecutive buffers: address, count, and where the data begins."""
        at, parts = _DATA, []
        for size in sizes:
            parts.append(struct.pack("<2I", at, size))
            at += size
        self.memory.write(_VECTOR, b"".join(parts))
        return _VECTOR, len(parts), _DATA

    # --- paths ------------------------------------------------------------------------------------

    def path_open(
        self,
        path: str | bytes,
        *,
        fd: int = 3,
        oflags: int = 0,
        base: int = READ,
        inheriting: int = 0,
        fdflags: int = 0,
        follow: bool = True,
    ) -> int:
        """Open a path; the new descriptor."""
        where = self.put_path(path)
        self.call("path_open", fd, follow, *where, oflags, base, inheriting, fdflags, _RESULT)
        return self.words()[0]

    def create(self, path: str | bytes, **options: Any) -> int:
        """Open a file for reading and writing, made if it is not there."""
        return self.path_open(path, oflags=CREAT, base=READ | WRITE, **options)

    def on_path(self, name: str, path: str | bytes, *, fd: int = 3) -> None:
        """Make a call that takes a descriptor and a path."""
        self.call(name, fd, *self.put_path(path))

    def stat(self, path: str | bytes, *, fd: int = 3, follow: bool = True) -> Filestat:
        """Return path_filestat_get's answer."""
        self.call("path_filestat_get", fd, follow, *self.put_path(path), _RESULT)
        return self._filestat()

    def set_times(
        self, path: str | bytes, *, atim: int = 0, mtim: int = 0, flags: int, follow: bool = True
    ) -> None:
        """Call path_filestat_set_times."""
        where = self.put_path(path)
        self.call("path_filestat_set_times", 3, follow, *where, atim, mtim, flags)

    def link(self, old: str | bytes, new: str | bytes, *, fds: tuple[int, int] = (3, 3)) -> None:
        """Make a hard link."""
        source, target = self.put_path(old), self.put_path(new, _OTHER_PATH)
        self.call("path_link", fds[0], 0, *source, fds[1], *target)

    def rename(self, old: str | bytes, new: str | bytes, *, fds: tuple[int, int] = (3, 3)) -> None:
        """Rename."""
        source, target = self.put_path(old), self.put_path(new, _OTHER_PATH)
        self.call("path_rename", fds[0], *source, fds[1], *target)

    def symlink(self, target: str | bytes, path: str | bytes, *, fd: int = 3) -> None:
        """Make a symbolic link."""
        text, where = self.put_path(target), self.put_path(path, _OTHER_PATH)
        self.call("path_symlink", *text, fd, *where)

    def readlink(self, path: str | bytes, size: int = 4096, *, fd: int = 3) -> bytes:
        """Read a symbolic link into a buffer of that size."""
        self.call("path_readlink", fd, *self.put_path(path), _DATA, size, _RESULT)
        return self.memory.read(_DATA, self.words()[0])

    # --- descriptors ------------------------------------------------------------------------------

    def read(self, fd: int, *sizes: int, at: int | None = None) -> bytes:
        """fd_read, or fd_pread at an offset."""
        iovs, count, data = self._vector(sizes)
        if at is None:
            self.call("fd_read", fd, iovs, count, _RESULT)
        else:
            self.call("fd_pread", fd, iovs, count, at, _RESULT)
        return self.memory.read(data, self.words()[0])

    def write(self, fd: int, *parts: bytes, at: int | None = None) -> int:
        """fd_write, or fd_pwrite at an offset."""
        iovs, count, data = self._vector(map(len, parts))
        self.memory.write(data, b"".join(parts))
        if at is None:
            self.call("fd_write", fd, iovs, count, _RESULT)
        else:
            self.call("fd_pwrite", fd, iovs, count, at, _RESULT)
        return self.words()[0]

    def seek(self, fd: int, offset: int, whence: int = 0) -> int:
        """Return the new position."""
        self.call("fd_seek", fd, offset, whence, _RESULT)
        return self._u64()

    def tell(self, fd: int) -> int:
        """Return the position."""
        self.call("fd_tell", fd, _RESULT)
        return self._u64()

    def fdstat(self, fd: int) -> Fdstat:
        """Return fd_fdstat_get's answer."""
        self.call("fd_fdstat_get", fd, _RESULT)
        filetype, flags, base, inheriting = struct.unpack("<BxH4xQQ", self.memory.read(_RESULT, 24))
        return Fdstat(filetype, flags, Right(base), Right(inheriting))

    def filestat(self, fd: int) -> Filestat:
        """Return fd_filestat_get's answer."""
        self.call("fd_filestat_get", fd, _RESULT)
        return self._filestat()

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        self.call("fd_close", fd)

    def prestat(self, fd: int) -> bytes:
        """Return the name of a preopen."""
        self.call("fd_prestat_get", fd, _RESULT)
        tag, size = self.words(2)
        assert tag == 0
        self.call("fd_prestat_dir_name", fd, _DATA, size)
        return self.memory.read(_DATA, size)

    def readdir(self, fd: int, cookie: int = 0, size: int = 4096) -> bytes:
        """Return what fd_readdir puts into a buffer of that size."""
        self.call("fd_readdir", fd, _DATA, size, cookie, _RESULT)
        return self.memory.read(_DATA, self.words()[0])

    def listdir(self, fd: int, size: int = 4096) -> list[Entry]:
        """All entries, read with a buffer of that size."""
        found: list[Entry] = []
        while True:
            data = self.readdir(fd, found[-1].next if found else 0, size)
            found += entries(data)
            if len(data) < size:
                return found

    # --- the rest ---------------------------------------------------------------------------------

    def poll(self, *subscriptions: bytes) -> list[Event]:
        """Return the events of one poll_oneoff."""
        self.memory.write(_DATA, b"".join(subscriptions))
        events = _DATA + sum(map(len, subscriptions))
        self.call("poll_oneoff", _DATA, events, len(subscriptions), _RESULT)
        count = self.words()[0]
        data = self.memory.read(events, 32 * count)
        return [Event(*fields) for fields in struct.iter_unpack("<QHB5xQH6x", data)]

    def time(self, clock: int) -> int:
        """Return a clock's nanoseconds."""
        self.call("clock_time_get", clock, 0, _RESULT)
        return self._u64()

    def random(self, size: int) -> bytes:
        """Return random bytes."""
        self.call("random_get", _DATA, size)
        return self.memory.read(_DATA, size)

    def strings(self, what: str) -> list[bytes]:
        """Return argv (``args``) or environ, by way of the pointers."""
        self.call(f"{what}_sizes_get", _RESULT, _RESULT + 4)
        count, size = self.words(2)
        self.call(f"{what}_get", _VECTOR, _DATA)
        data = self.memory.read(_DATA, size)
        starts = [address - _DATA for address in self.words(count, _VECTOR)]
        assert starts == [0, *[i + 1 for i, byte in enumerate(data[:-1]) if byte == 0]][:count]
        return [data[start : data.index(0, start)] for start in starts]

    def receive(self, fd: int, *sizes: int, flags: int = 0) -> bytes:
        """What sock_recv receives."""
        return self.receive_and_flags(fd, *sizes, flags=flags)[0]

    def receive_and_flags(self, fd: int, *sizes: int, flags: int = 0) -> tuple[bytes, int]:
        """sock_recv."""
        iovs, count, data = self._vector(sizes)
        self.call("sock_recv", fd, iovs, count, flags, _RESULT, _RESULT + 4)
        got = self.memory.read(data, self.words()[0])
        return got, int.from_bytes(self.memory.read(_RESULT + 4, 2), "little")

    def send(self, fd: int, *parts: bytes) -> int:
        """sock_send."""
        iovs, count, data = self._vector(map(len, parts))
        self.memory.write(data, b"".join(parts))
        self.call("sock_send", fd, iovs, count, 0, _RESULT)
        return self.words()[0]

    def accept(self, fd: int, flags: int = 0) -> int:
        """Return the accepted connection's descriptor."""
        self.call("sock_accept", fd, flags, _RESULT)
        return self.words()[0]

    def _u64(self) -> int:
        return int.from_bytes(self.memory.read(_RESULT, 8), "little")

    def _filestat(self) -> Filestat:
        return Filestat(*struct.unpack("<QQB7xQQQQQ", self.memory.read(_RESULT, 64)))


def entries(data: bytes) -> list[Entry]:
    """The whole entries at the front of what fd_readdir gave."""
    found = []
    while len(data) >= 24:
        cookie, ino, size, kind = struct.unpack_from("<QQIB", data)
        if len(data) < 24 + size:
            break
        found.append(Entry(cookie, ino, kind, data[24 : 24 + size]))
        data = data[24 + size :]
    return found


def clock_subscription(
    timeout: int, *, clock: int = 1, absolute: bool = False, userdata: int = 7
) -> bytes:
    """A subscription for poll_oneoff: a time."""
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, clock, timeout, 0, absolute)


def fd_subscription(fd: int, *, write: bool = False, userdata: int = 8) -> bytes:
    """A subscription for poll_oneoff: a descriptor."""
    return struct.pack("<QB7xI28x", userdata, 2 if write else 1, fd)
