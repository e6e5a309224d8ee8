"""The evil shim at work: a hostile module in the real one's place, and its world."""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wali_core import _bridge
from wali_core._guest import Memory
from wali_core._link import ShimLink
from wali_core._runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from wali_core._guest import Guest

BOX, SHELF = 3, 4
"""The descriptors of the two grants: a directory to write in, and one to read only."""

TOKEN = b"<<the secret that nobody granted>>"
LONG_AGO = 1_000_000_000
HOST_DESCRIPTORS = 200
"""Where the host's own descriptors begin, in these tests."""

STAT = 144
"""The size of a `struct stat`."""

SMALL = 1 << 20
"""Files are smaller than that, but where a guest has made one larger: its size shows then."""

GUEST_PAGES = 16
"""The guest's memory is larger than the shim's: some of its addresses the shim has not."""

IOVEC, DATA = 16, 4096
"""Where the guest's memory holds what `wali_guest` calls work on."""

WAYS_OUT = {
    "out": "../outside/secret",
    "outdir": "../outside",
    "dangling": "../outside/new",
    "first": "second",
    "second": "dir/third",
    "dir/third": "../../outside/secret",
    "slash": "outdir/",
    "dir/far": "../..",
    "magic": "/proc/self",
    "stdin": "/dev/stdin",
}
"""The links in the box that lead out, one with an absolute target besides."""

_TYPES = {"i": "i32", "I": "i64"}


# --- the world ------------------------------------------------------------------------------------


class World:
    """A folder with what is granted (`box`, `shelf`) and what is not (`outside`, and itself)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.box, self.shelf, self.outside = root / "box", root / "shelf", root / "outside"
        self._fill()
        self.device = self.outside.stat().st_dev
        self.inodes = self._inodes()
        self.memory = ctypes.create_string_buffer(TOKEN)
        self.host_folder = _high(os.open(self.outside, os.O_RDONLY | os.O_DIRECTORY))
        self.host_file = _high(os.open(self.outside / "secret", os.O_RDWR))
        self.host_stream = _high(os.open(self.box / "output", os.O_RDWR | os.O_CREAT, 0o600))
        self._before = state_of(self._canaries())
        self._box_before = state_of([self.box, *self.box.rglob("*")])

    def _fill(self) -> None:
        for folder in ("box/dir", "box/empty", "shelf/dir", "outside/empty"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "box/file").write_bytes(b"of the box")
        for name, target in (WAYS_OUT | {"absolute": str(self.outside / "secret")}).items():
            (self.root / "box" / name).symlink_to(target)
        for name in ("shelf/book", "shelf/dir/book"):
            (self.root / name).write_bytes(b"to be read, not written")
        (self.outside / "secret").write_bytes(TOKEN)
        (self.outside / "pointer").symlink_to(TOKEN.decode())
        for path in self._canaries():
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)

    def _canaries(self) -> list[Path]:
        inside = [*self.outside.rglob("*"), *self.shelf.rglob("*")]
        return [*inside, self.outside, self.shelf, self.root]

    def _inodes(self) -> frozenset[int]:
        paths = (self.root, self.outside, *self.outside.rglob("*"))
        return frozenset(os.lstat(path).st_ino for path in paths)

    @property
    def changed(self) -> bool:
        """Has anything outside the box changed?"""
        return state_of(self._canaries()) != self._before

    @property
    def box_changed(self) -> bool:
        """Has anything in the box changed?"""
        return state_of([self.box, *self.box.rglob("*")]) != self._box_before

    def is_as_made(self) -> bool:
        """Is everything still as it was made, the host's descriptors and memory included?"""
        if self.changed or self.box_changed or self.memory.value != TOKEN:
            return False
        try:
            positions = [os.lseek(fd, 0, os.SEEK_CUR) for fd in (self.host_file, self.host_stream)]
            flags = fcntl.fcntl(self.host_stream, fcntl.F_GETFL)
            return positions == [0, 0] and not flags & (os.O_APPEND | os.O_NONBLOCK)
        except OSError:
            return False

    def close(self) -> None:
        """Close the host's descriptors, those that are still open."""
        for fd in (self.host_folder, self.host_file, self.host_stream):
            try:
                os.close(fd)
            except OSError:  # an attack on a broken core has closed it
                continue


def _high(fd: int) -> int:
    """The same descriptor at a number that none of the guests here uses."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HOST_DESCRIPTORS)
    finally:
        os.close(fd)


def state_of(paths: Iterable[Path]) -> dict[Path, tuple[object, ...]]:
    """All that can be known of files, but for the times of reading: any change shows."""
    found: dict[Path, tuple[object, ...]] = {}
    for path in paths:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        content: object = None
        if stat.S_ISREG(status.st_mode) and status.st_size < SMALL:
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        kept = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size)
        found[path] = (content, *kept, status.st_mtime_ns, status.st_ctime_ns)
    return found


class Worlds:
    """Worlds to be borrowed: a new one each time, or the last one where it is as good as new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self._spare: World | None = None

    @contextmanager
    def lend(self) -> Iterator[World]:
        """A world that nobody has touched."""
        world, self._spare = self._spare or self._make(), None
        try:
            yield world
        finally:
            if world.is_as_made():
                self._spare = world
            else:
                world.close()

    def _make(self) -> World:
        self._made += 1
        return World(self._folder / str(self._made))

    def close(self) -> None:
        """Close what is left."""
        if self._spare:
            self._spare.close()


# --- the shim -------------------------------------------------------------------------------------


class EvilAbi:
    """The hostile shim as a provider, which says of itself what the real one says."""

    modules: Mapping[str, str] = {"wasi_snapshot_preview1": ""}

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def path(self) -> str:
        """The path of the compiled module."""
        return self._path

    def configuration(
        self,
        args: Sequence[bytes],
        env: Sequence[bytes],
        preopens: Sequence[tuple[int, bytes, bool]],
        datagrams: Sequence[int] = (),
        **options: Any,
    ) -> bytes:
        """Nothing: it does not care."""
        del args, env, preopens, datagrams, options
        return b""


@dataclass(frozen=True)
class Out:
    """An argument: the address of a buffer of so many bytes, for the call to fill."""

    size: int


class EvilHost:
    """A runtime in which WASI is served by the evil shim, linked as the real one would be."""

    def __init__(self, shim: Path, core: _bridge.Core) -> None:
        self.runtime = Runtime(cache=False, core=core)
        abi = EvilAbi(shim)
        self.module = self.runtime._modules.compile(shim.read_bytes(), "the evil shim")
        self.runtime._modules.serve(abi, ShimLink(self.module))
        self.guest = self.runtime.load(relay_guest(core))

    @contextmanager
    def enter(self, world: World, *, grants_root: bool = False, stdin: int = -1) -> Iterator[Evil]:
        """A guest of the evil shim with the box and the shelf, or all there is, and an output."""
        dirs = {"/box": (str(world.box), "rw"), "/shelf": (str(world.shelf), "ro")}
        if grants_root:
            dirs = {"/box": ("/", "rw")}
        stdio = (stdin, world.host_stream, -1)
        with self.runtime.instantiate(self.guest, dirs=dirs, stdio=stdio) as guest:
            yield Evil(guest, world)

    def close(self) -> None:
        """Close the runtime."""
        self.runtime.close()


def allow_list(core: _bridge.Core = _bridge.core) -> dict[tuple[str, str], tuple[str, str]]:
    """What the core lets a shim import: the types of each function, `(parameters, result)`."""
    found = {}
    for (module, name), row in core.calls.items():
        types = row.parameters.decode(), row.result.decode()
        if row.capable:
            found[module, name] = types
        if row.capable_guest:
            found["wali_guest", name] = types
    return found


_C_TYPES = {"i": "I", "I": "L", "": "void"}


def relays(core: _bridge.Core = _bridge.core) -> str:
    """The text of `relays.gen.h`: `RELAY(module, name, result, (I a, L b), (a, b))` for each."""
    lines = []
    for (module, name), (parameters, result) in allow_list(core).items():
        letters = "abcdef"[: len(parameters)]
        typed = [f"{_C_TYPES[kind]} {a}" for kind, a in zip(parameters, letters, strict=True)]
        arguments = ", ".join(letters)
        head = f"{module}, {name}, {_C_TYPES[result]}"
        lines.append(f"RELAY({head}, ({', '.join(typed) or 'void'}), ({arguments}))\n")
    return "".join(lines)


def relay_guest(core: _bridge.Core) -> bytes:
    """A guest that imports everything the evil shim exports, and exports it again to be called."""
    from wasmtime import wat2wasm

    extra = {
        "arena": ("", "i"),
        "early": ("", "I"),
        "race_openat2": ("iiii", "I"),
        "race_openat": ("iiii", "I"),
    }
    functions = {f"{module}.{name}": types for (module, name), types in allow_list(core).items()}
    lines = ["(module"]
    for name, (parameters, result) in (functions | extra).items():
        types = "".join(f" (param {_TYPES[letter]})" for letter in parameters)
        types += f" (result {_TYPES[result]})" if result else ""
        lines.append(f'(import "wasi_snapshot_preview1" "{name}" (func ${name}{types}))')
    lines += [f'(export "{name}" (func ${name}))' for name in functions | extra]
    lines.append(f'(memory (export "memory") {GUEST_PAGES}))')
    return bytes(wat2wasm("\n".join(lines)))


class Evil:
    """One hostile guest at work.  It collects what it gets hold of."""

    def __init__(self, guest: Guest, world: World) -> None:
        self.guest = guest
        self.world = world
        self.loot: list[bytes] = []
        self.answer = 0
        assert guest._shim_instance is not None
        found = guest._export(guest._shim_instance, "memory")
        assert found is not None
        self.memory = Memory(guest, found.of.memory)
        self.arena = int(guest.call("arena"))

    # --- calls ---

    def call(self, name: str, *args: int | bytes | Out) -> int:
        """`wali.SYS_name`: bytes are put into the shim's memory, strings with a NUL at their end.

        What it fills into a buffer is loot.
        """
        at = self.arena
        values, buffers = [], []
        for arg in args:
            if isinstance(arg, int):
                values.append(arg)
                continue
            data = bytes(arg.size) if isinstance(arg, Out) else arg + b"\0"
            self.memory.write(at, data)
            values.append(at)
            if isinstance(arg, Out):
                buffers.append((at, arg.size))
            at = (at + len(data) + 15) & ~15
        result = int(self.guest.call(f"wali.SYS_{name}", *values, timeout=20))
        self.loot += [self.memory.read(address, size) for address, size in buffers]
        return result

    def on_guest(self, name: str, *args: int) -> int:
        """`wali_guest.SYS_name`."""
        return int(self.guest.call(f"wali_guest.SYS_{name}", *args, timeout=20))

    # --- what attacks are made of ---

    def openat2(
        self,
        dirfd: int,
        path: bytes,
        flags: int = os.O_RDONLY,
        resolve: int = 0x0A,
        size: int = 24,
        mode: int = 0,
    ) -> int:
        """Open with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS, if nothing else is said."""
        how = struct.pack("<3Q", flags, mode, resolve).ljust(size, b"\0")
        return self.call("openat2", dirfd, path, how, size)

    def take(self, fd: int) -> int:
        """Read a file, or the names in a directory, into the loot.  Gives `fd` back."""
        if fd >= 0:
            self.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 4096))
            got = self.on_guest("preadv", fd, IOVEC, 1, 0)
            if got > 0:
                self.loot.append(self.guest.memory.read(DATA, got))
            else:
                self.call("getdents64", fd, Out(4096), 4096)
        return fd

    def scribble(self, fd: int) -> int:
        """Write into a file.  Gives `fd` back."""
        if fd >= 0:
            self.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 4))
            self.guest.memory.write(DATA, b"evil")
            self.on_guest("pwritev", fd, IOVEC, 1, 0)
        return fd

    def best(self, dirfd: int, name: bytes) -> int:
        """A file open for writing, or else for reading."""
        fd = self.call("openat", dirfd, name, os.O_RDWR, 0)
        return fd if fd >= 0 else self.call("openat", dirfd, name, os.O_RDONLY, 0)

    # --- what there is to gain ---

    @property
    def has_read(self) -> bool:
        """Has it read the secret?"""
        return any(TOKEN in piece for piece in self.loot)

    @property
    def has_seen(self) -> bool:
        """Has it got the metadata (a `struct stat`) of something outside?"""
        files = [struct.unpack_from("<2Q", piece) for piece in self.loot if len(piece) == STAT]
        return any(dev == self.world.device and ino in self.world.inodes for dev, ino in files)

    @property
    def has_changed(self) -> bool:
        """Has it changed anything outside the box?"""
        return self.world.changed

    @property
    def has_anything(self) -> bool:
        """Has it got anything at all?"""
        return self.has_read or self.has_seen or self.has_changed
