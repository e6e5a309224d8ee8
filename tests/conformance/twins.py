"""Twin worlds: the same WASI calls on this library and on wasmtime's own WASI.

Each has a directory of its own with the same content, and a guest that is nothing but its imports.
A call is made on both, and what it answers is brought into a form that can be compared.

Descriptors are named by the numbers that they have here; `Twins.numbers` has wasmtime's.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import wasmtime

from tests.wasi_shim.calls import DIRECTORY_TYPE, SIGNATURES, Right

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from wali_core import Guest, Runtime

# What each call takes: f a descriptor, p a path, i and I plain numbers, r a list of sizes to read
# into, w a list of bytes to write, b a buffer's size, s subscriptions; a digit is the size of an
# output, of which the call's caller says nothing.
CALLS = {
    "args_sizes_get": "44",
    "clock_res_get": "i8",
    "clock_time_get": "iI8",
    "environ_sizes_get": "44",
    "fd_advise": "fIIi",
    "fd_allocate": "fII",
    "fd_close": "f",
    "fd_datasync": "f",
    "fd_fdstat_get": "fO",
    "fd_fdstat_set_flags": "fi",
    "fd_fdstat_set_rights": "fII",
    "fd_filestat_get": "fS",
    "fd_filestat_set_size": "fI",
    "fd_filestat_set_times": "fIIi",
    "fd_pread": "frI4",
    "fd_prestat_dir_name": "fb",
    "fd_prestat_get": "f8",
    "fd_pwrite": "fwI4",
    "fd_read": "fr4",
    "fd_readdir": "fbI4",
    "fd_renumber": "ff",
    "fd_seek": "fIi8",
    "fd_sync": "f",
    "fd_tell": "f8",
    "fd_write": "fw4",
    "path_create_directory": "fp",
    "path_filestat_get": "fipS",
    "path_filestat_set_times": "fipIIi",
    "path_link": "fipfp",
    "path_open": "fipiIIi4",
    "path_readlink": "fpb4",
    "path_remove_directory": "fp",
    "path_rename": "fpfp",
    "path_symlink": "pfp",
    "path_unlink_file": "fp",
    "poll_oneoff": "s4",
    "random_get": "b",
    "sched_yield": "",
    "sock_accept": "fi4",
    "sock_recv": "fri44",
    "sock_send": "fwi4",
    "sock_shutdown": "fi",
}
_OUTPUTS = {"4": 4, "8": 8, "O": 24, "S": 64}

FILESTAT, FDSTAT, EVENT = "<QQB7xQQQQQ", "<BxH4xQQ", "<QHB5xQH6x"
TRAP = -1  # in place of an errno
UNTOUCHED = 0x55

PAGES = 8
_MEMORY = PAGES * 65536
_PATHS, _OUT, _VECTOR, _EVENTS, _DATA = 65536, 1024, 2048, 8192, 131072

ARGUMENTS = ("program", "-x", "")
STDIN = b"standard input"
OUTSIDE = "outside"
_RECENT = 86400 * 10**9


class Call(NamedTuple):
    """One call: its name, and what its caller says."""

    name: str
    args: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.args))})"

    @property
    def inputs(self) -> str:
        """The kinds of the arguments."""
        return "".join(kind for kind in CALLS[self.name] if kind not in _OUTPUTS)

    def descriptors(self) -> list[int]:
        """Those that it names."""
        named = zip(self.inputs, self.args, strict=True)
        return [value for kind, value in named if kind == "f"]

    def replaced(self, index: int, value: Any) -> Call:
        """The same with another argument."""
        return self._replace(args=(*self.args[:index], value, *self.args[index + 1 :]))


def _fdstat_of(fd: int) -> Call:
    return Call("fd_fdstat_get", (fd,))


class Subscription(NamedTuple):
    """One subscription for poll_oneoff; `of` is a clock or a descriptor."""

    tag: int
    of: int
    timeout: int = 0
    flags: int = 0


class Answer(NamedTuple):
    """What a call said: its errno, and, if that is 0, its outputs in the order of CALLS."""

    errno: int
    outputs: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"{self.errno}{list(self.outputs) if self.outputs else ''}"


def caller() -> bytes:
    """A module with one function for each of WASI's, which only makes the call."""
    imports, functions = [], []
    for name in CALLS:
        kinds = SIGNATURES[name]
        of_type = " ".join({"i": "i32", "I": "i64"}[kind] for kind in kinds)
        of_type = f"(param {of_type}) (result i32)"
        imports.append(f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {of_type}))')
        values = " ".join(f"local.get {i}" for i in range(len(kinds)))
        functions.append(f'(func (export "{name}") {of_type} {values} call ${name})')
    memory = f'(memory (export "memory") {PAGES})'
    return bytes(wasmtime.wat2wasm(f"(module {' '.join([*imports, memory, *functions])})"))


# --- the two engines ------------------------------------------------------------------------------


class Side(Protocol):
    """One engine's guest."""

    def invoke(self, name: str, *values: int) -> int:
        """Make one call: its errno, or TRAP."""

    def read(self, address: int, size: int) -> bytes:
        """Read the guest's memory."""

    def write(self, address: int, data: bytes) -> None:
        """Write the guest's memory."""

    def close(self) -> None:
        """End the guest."""


class OurSide:
    """This library."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        memory = guest.memory
        self.read, self.write = memory.read, memory.write

    def invoke(self, name: str, *values: int) -> int:
        """Make one call."""
        return int(self._guest.call(name, *values))

    def close(self) -> None:
        """End the guest."""
        self._guest.close()


class TheirSide:
    """wasmtime's own WASI."""

    def __init__(self, store: wasmtime.Store, instance: wasmtime.Instance) -> None:
        self._store: wasmtime.Store | None = store
        self._exports = instance.exports(store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._base = ctypes.addressof(memory.data_ptr(store).contents)  # it never grows

    def invoke(self, name: str, *values: int) -> int:
        """Make one call."""
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        assert self._store is not None
        try:
            return int(function(self._store, *values))
        except (wasmtime.Trap, wasmtime.WasmtimeError):
            return TRAP

    def read(self, address: int, size: int) -> bytes:
        """Read the guest's memory."""
        return ctypes.string_at(self._base + address, size)

    def write(self, address: int, data: bytes) -> None:
        """Write the guest's memory."""
        ctypes.memmove(self._base + address, data, len(data))

    def close(self) -> None:
        """End the guest."""
        if self._store is not None:
            self._store.close()
            self._store = None


class Engines:
    """What all twins share: both engines with the module compiled."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ours = runtime.load(caller())
        engine = wasmtime.Engine()
        self._theirs = wasmtime.Module(engine, caller())
        self._linker = wasmtime.Linker(engine)
        self._linker.define_wasi()

    def ours(self, box: Path, stdio: Sequence[int]) -> OurSide:
        """Start a guest here."""
        guest = self._runtime.instantiate(
            self._ours, args=ARGUMENTS[1:], argv0=ARGUMENTS[0], dirs={"/": (box, "rw")}, stdio=stdio
        )
        return OurSide(guest)

    def theirs(self, box: Path, stdio: Sequence[Path]) -> TheirSide:
        """Start a guest there."""
        config = wasmtime.WasiConfig()
        config.argv = list(ARGUMENTS)
        config.preopen_dir(str(box), "/")
        config.stdin_file, config.stdout_file, config.stderr_file = map(str, stdio)
        store = wasmtime.Store(self._linker.engine)
        store.set_wasi(config)
        return TheirSide(store, self._linker.instantiate(store, self._theirs))


# --- making a call --------------------------------------------------------------------------------


def perform(side: Side, call: Call, number: Callable[[int], int]) -> Answer:
    """Lay the arguments out, make the call, and collect the outputs."""
    values: list[int] = []
    areas: list[tuple[int, int]] = []
    given = iter(call.args)
    out, path = _OUT, _PATHS

    def area(address: int, size: int) -> None:
        side.write(address, bytes([UNTOUCHED]) * size)
        areas.append((address, size))

    for kind in CALLS[call.name]:
        if kind in _OUTPUTS:
            area(out, _OUTPUTS[kind])
            values.append(out)
            out += 64
            continue
        argument = next(given)
        if kind == "f":
            values.append(_signed(number(argument), 32))
        elif kind in "iI":
            values.append(_signed(argument, 32 if kind == "i" else 64))
        elif kind == "p":
            side.write(path, argument)
            values += path, len(argument)
            path += 8192
        elif kind == "b":
            area(_DATA, argument + 8)
            values += _DATA, argument
        elif kind == "r":
            values += _vector(side, argument)
            area(_DATA, sum(argument) + 8)
        elif kind == "w":
            values += _vector(side, [len(part) for part in argument])
            side.write(_DATA, b"".join(argument))
        else:
            data = b"".join(_subscription(i, s, number) for i, s in enumerate(argument))
            side.write(_VECTOR, data)
            area(_EVENTS, 32 * len(argument))
            values += _VECTOR, _EVENTS, len(argument)
    errno = side.invoke(call.name, *values)
    if errno:
        return Answer(errno)
    return Answer(errno, tuple(side.read(*where) for where in areas))


def _signed(value: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (value + half) % (1 << bits) - half


def _vector(side: Side, sizes: Sequence[int]) -> tuple[int, int]:
    at, parts = _DATA, []
    for size in sizes:
        parts.append(struct.pack("<2I", at, size))
        at += size
    side.write(_VECTOR, b"".join(parts))
    return _VECTOR, len(parts)


def _subscription(index: int, one: Subscription, number: Callable[[int], int]) -> bytes:
    if one.tag == 0:
        return struct.pack("<QB7xI4xQQH6x", index, 0, one.of, one.timeout, 0, one.flags)
    return struct.pack("<QB7xI28x", index, one.tag, number(one.of))


# --- the twins ------------------------------------------------------------------------------------


class Twins:
    """Both guests and their directories, and which descriptor of the one is which of the other."""

    def __init__(self, engines: Engines, folder: Path) -> None:
        self.boxes = folder / "ours" / "box", folder / "theirs" / "box"
        for box in self.boxes:
            populate(box)
        files = [folder / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_bytes(STDIN)
        self._their_output = files[1:]
        # Files as standard streams would be files here: pipes are what they are in wasmtime.
        stdin, self._stdin_end = os.pipe()
        self._output, stdout = os.pipe()
        self._error, stderr = os.pipe()
        self._pipes = [stdin, stdout, stderr, self._output, self._error]
        os.write(self._stdin_end, STDIN)
        os.close(self._stdin_end)
        self.ours: Side = engines.ours(self.boxes[0], (stdin, stdout, stderr))
        self.theirs: Side = engines.theirs(self.boxes[1], files)
        self.numbers = {number: number for number in range(4)}
        self.streams = {0, 1, 2}
        self.openings: dict[int, Call] = {}
        self._inodes: dict[int, int] = {}

    def close(self) -> None:
        """End both guests."""
        self.ours.close()
        self.theirs.close()
        for fd in self._pipes:
            os.close(fd)

    def their_number(self, ours: int) -> int:
        """The number in wasmtime; of what is not open, one that is not open there either."""
        if ours in self.numbers:
            return self.numbers[ours]
        return ours if ours not in self.numbers.values() else ours + 1000

    def call(self, call: Call) -> tuple[Answer, Answer]:
        """Make the call on both."""
        return self.on_ours(call), self.on_theirs(call)

    def on_ours(self, call: Call) -> Answer:
        """Make a call here only."""
        return normalised(call, perform(self.ours, call, int))

    def on_theirs(self, call: Call) -> Answer:
        """Make a call there only."""
        return normalised(call, perform(self.theirs, call, self.their_number))

    def follow(self, call: Call, ours: Answer, theirs: Answer) -> tuple[Answer, Answer]:
        """Follow what a call that worked on both sides has done to descriptors."""
        match call.name:
            case "path_open":
                self.numbers[ours.outputs[0]] = theirs.outputs[0]
                self.openings[ours.outputs[0]] = call
                same = Answer(0, (ours.outputs[0],))
                return same, same
            case "fd_close":
                self.forget(call.args[0])
            case "fd_renumber" if call.args[0] != call.args[1]:
                was, now = call.args
                self.openings.pop(now, None)
                if was in self.openings:
                    self.openings[now] = self.openings[was]
                self.streams -= {now}
                self.streams |= {now} if was in self.streams else set()
                self.forget(was)
        if call.name in _CHANGING:
            self._inodes.clear()
        return ours, theirs

    def forget(self, fd: int) -> None:
        """The descriptor is closed on both sides."""
        del self.numbers[fd]
        self.streams -= {fd}
        self.openings.pop(fd, None)

    def close_both(self, fd: int) -> None:
        """Close a descriptor on both sides."""
        close = Call("fd_close", (fd,))
        self.follow(close, *self.call(close))

    def same_listings(self, fd: int) -> bool:
        """List a whole directory on both sides, whose order is their own, and compare."""
        whole = Call("fd_readdir", (fd, 4096, 0))
        ours, theirs = self.on_ours(whole), self.on_theirs(whole)
        mine, other = ours.outputs[0], theirs.outputs[0]
        for side, listing in ((self.on_ours, mine), (self.on_theirs, other)):
            middle = len(listing.entries) // 2
            if middle:  # every cookie leads to what comes after its entry
                again = side(whole.replaced(2, listing.cookies[middle - 1]))
                if again.outputs[0].entries != listing.entries[middle:]:
                    return False
        order = [
            sorted(range(len(one.entries)), key=one.entries.__getitem__) for one in (mine, other)
        ]
        inodes = [
            [one.inodes[i] for i in found] for one, found in zip((mine, other), order, strict=True)
        ]
        return sorted(mine.entries) == sorted(other.entries) and self.same_files(*inodes)

    def kind(self, fd: int) -> str:
        """What an open descriptor is: a stream, a directory or a file; or nothing."""
        if fd not in self.numbers:
            return "nothing"
        if fd in self.streams:
            return "stream"
        answer = self.on_ours(_fdstat_of(fd))
        return "directory" if answer.outputs[0].type == DIRECTORY_TYPE else "file"

    def same_files(self, ours: Sequence[int], theirs: Sequence[int]) -> bool:
        """Do the inodes correspond, by what was seen since something was removed?"""
        for mine, other in zip(ours, theirs, strict=True):
            if self._inodes.setdefault(mine, other) != other:
                return False
        return len(set(self._inodes.values())) == len(self._inodes)

    def trees(self) -> tuple[Any, Any]:
        """What became of both directories, and of the standard streams."""
        written = []
        for fd, file in zip((self._output, self._error), self._their_output, strict=True):
            os.set_blocking(fd, False)
            try:
                mine = os.read(fd, 65536)
            except BlockingIOError:
                mine = b""
            written.append((mine, file.read_bytes()))
        ours, theirs = (dict(tree(box.parent)) for box in self.boxes)
        return (ours, [pair[0] for pair in written]), (theirs, [pair[1] for pair in written])


# After these an inode's number may come back for another file.
_CHANGING = {
    "fd_close",
    "fd_renumber",
    "path_remove_directory",
    "path_rename",
    "path_unlink_file",
}


def populate(box: Path) -> None:
    """Make a small tree, with something outside."""
    box.mkdir(parents=True)
    (box.parent / OUTSIDE).write_bytes(b"secret")
    (box / "d").mkdir()
    (box / "e").mkdir()
    (box / "a").write_bytes(b"0123456789")
    (box / "d" / "b").write_bytes(b"inner")
    (box / "l").symlink_to("a")
    (box / "m").symlink_to("d")
    (box / "n").symlink_to("../" + OUTSIDE)
    (box / "d" / "l").symlink_to("../e/")


def tree(folder: Path, prefix: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Everything beneath a directory that twins must have in common."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        status = entry.stat(follow_symlinks=False)
        kind, content = stat.S_IFMT(status.st_mode), b""
        if kind == stat.S_IFREG:
            content = read_start(entry.path)
        elif kind == stat.S_IFLNK:
            content = os.fsencode(os.readlink(entry.path))
        name = prefix + entry.name
        times = timestamp(status.st_mtime_ns)
        yield name, (oct(status.st_mode), status.st_nlink, status.st_size, content, times)
        if kind == stat.S_IFDIR:
            yield from tree(folder / entry.name, name + "/")


def read_start(path: str) -> bytes:
    """The beginning of a file, which may have been made enormous."""
    with open(path, "rb") as file:
        return file.read(4096)


# --- answers --------------------------------------------------------------------------------------


class Filestat(NamedTuple):
    """What is compared of a filestat; inodes are compared by Twins.same_files."""

    ino: int
    type: int
    nlink: int
    size: int
    atim: int | str
    mtim: int | str


class Fdstat(NamedTuple):
    """What fd_fdstat_get tells."""

    type: int
    flags: int
    base: Right
    inheriting: Right


class Event(NamedTuple):
    """What is compared of an event: the rest is no two engines' same."""

    userdata: int
    error: int
    type: int


class Listing(NamedTuple):
    """One answer of fd_readdir."""

    used: int
    untouched: bool
    cookies: tuple[int, ...]
    inodes: tuple[int, ...]
    entries: tuple[tuple[int, bytes], ...]


def timestamp(time_ns: int) -> int | str:
    """A time that somebody set, or that it is a recent one."""
    return "now" if abs(time_ns - time.time_ns()) < _RECENT else time_ns


def normalised(call: Call, answer: Answer) -> Answer:
    """Bring the outputs into a form that can be compared."""
    if answer.errno:
        return answer
    raw = answer.outputs
    if call.name in {"fd_filestat_get", "path_filestat_get"}:
        _, ino, kind, nlink, size, atim, mtim, _ = struct.unpack(FILESTAT, raw[0])
        found = Filestat(ino, kind, nlink, size, timestamp(atim), timestamp(mtim))
        return Answer(0, (found,))
    if call.name == "fd_fdstat_get":
        kind, flags, base, inheriting = struct.unpack(FDSTAT, raw[0])
        return Answer(0, (Fdstat(kind, flags, Right(base), Right(inheriting)),))
    if call.name == "poll_oneoff":
        count = int.from_bytes(raw[1], "little")
        events = struct.iter_unpack(EVENT, raw[0][: 32 * count])
        return Answer(0, tuple(Event(*event[:3]) for event in events))
    if call.name == "fd_readdir":
        return Answer(0, (_listing(*raw),))
    if call.name in {"clock_time_get", "clock_res_get"}:
        return Answer(0, (raw[0] != b"\0" * 8,))
    if call.name == "random_get":
        return Answer(0, (raw[0][-8:],))
    if call.name == "fd_prestat_get":
        return Answer(0, (raw[0][0], int.from_bytes(raw[0][4:], "little")))
    numbers = tuple(int.from_bytes(part, "little") if len(part) in {4, 8} else part for part in raw)
    return Answer(0, numbers)


def _listing(buffer: bytes, count: bytes) -> Listing:
    used = int.from_bytes(count, "little")
    data, cookies, inodes, entries = buffer[:used], [], [], []
    while len(data) >= 24:
        cookie, inode, size, kind = struct.unpack_from("<QQIB", data)
        if len(data) < 24 + size:
            break
        cookies.append(cookie)
        inodes.append(inode)
        entries.append((kind, data[24 : 24 + size]))
        data = data[24 + size :]
    untouched = buffer[used:] == bytes([UNTOUCHED]) * (len(buffer) - used)
    return Listing(used, untouched, tuple(cookies), tuple(inodes), tuple(entries))
