"""One plain component takes a shorter way: nothing is opened to find its parent, or to look at it.

The oracle is the long way, which `.//name` takes: each call is made on both, in twin directories,
and what it answers and what it leaves must be the same.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.wasi_shim.calls import CREAT, DIRECTORY, EXCL, READ, TRUNC, WRITE, Wasi, WasiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.wasi_shim.conftest import Start

    Calls = Callable[[Wasi, str], object]

LINKS = {
    "link": "file",
    "dirlink": "dir",
    "slashed": "dir/",
    "chain": "link",
    "dangling": "nothing",
    "loop": "loop",
    "out": "../outside",
    "outfile": "../outside/secret",
    "absolute": "/etc/passwd",
}
NAMES = [
    *("file", "empty", "dir", "fifo", "missing", *LINKS),
    *(".", "...", "x" * 255, "x" * 256, "\xff", "a b", "-", "new"),
]


def populate(box: Path) -> None:
    """Make one of everything."""
    (box / "dir").mkdir(parents=True)
    (box / "empty").mkdir()
    (box / "file").write_bytes(b"file")
    (box / "dir" / "inner").write_bytes(b"inner")
    (box / "-").write_bytes(b"dash")
    os.mkfifo(box / "fifo")
    for name, target in LINKS.items():
        (box / name).symlink_to(target)
    for path in [*box.rglob("*"), box]:
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


def tree(box: Path) -> Iterator[tuple[Any, ...]]:
    """All that is in the box, without what two boxes cannot have in common."""
    for path in sorted([*box.rglob("*"), box]):
        status = path.lstat()
        kept = status.st_mtime_ns if status.st_mtime_ns < 11 * 10**17 else "now"
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
        yield str(path.relative_to(box)), status.st_mode, status.st_nlink, kept, content, target


def opened(wasi: Wasi, name: str, **options: Any) -> object:
    """What was opened: its type, flags and rights, and what is in it."""
    fd = wasi.path_open(name, **options)
    fdstat = wasi.fdstat(fd)
    listed = fdstat.filetype == 3 and sorted(entry.name for entry in wasi.listdir(fd))
    read = fdstat.filetype == 4 and fdstat.base & READ and wasi.read(fd, 100)
    wasi.close(fd)
    return fdstat, listed, read


def filestat(wasi: Wasi, name: str, *, follow: bool) -> object:
    """What a name is, by the places of its inode."""
    found = wasi.stat(name, follow=follow)
    return found.filetype, found.nlink, found.size, found.mtim < 11 * 10**17 and found.mtim


CALLS: dict[str, Calls] = {
    "stat": lambda wasi, name: filestat(wasi, name, follow=True),
    "stat the link": lambda wasi, name: filestat(wasi, name, follow=False),
    "set times": lambda wasi, name: wasi.set_times(name, mtim=5, flags=4),
    "set the link's": lambda wasi, name: wasi.set_times(name, mtim=5, flags=4, follow=False),
    "set none": lambda wasi, name: wasi.set_times(name, flags=0),
    "set none of the link": lambda wasi, name: wasi.set_times(name, flags=0, follow=False),
    "open": opened,
    "open the link": lambda wasi, name: opened(wasi, name, follow=False),
    "open to write": lambda wasi, name: opened(wasi, name, base=READ | WRITE),
    "open a directory": lambda wasi, name: opened(wasi, name, oflags=DIRECTORY),
    "create": lambda wasi, name: opened(wasi, name, oflags=CREAT, base=WRITE),
    "create it new": lambda wasi, name: opened(wasi, name, oflags=CREAT | EXCL, base=WRITE),
    "truncate": lambda wasi, name: opened(wasi, name, oflags=TRUNC, base=WRITE),
    "make a directory": lambda wasi, name: wasi.on_path("path_create_directory", name),
    "remove a directory": lambda wasi, name: wasi.on_path("path_remove_directory", name),
    "unlink": lambda wasi, name: wasi.on_path("path_unlink_file", name),
    "read a link": lambda wasi, name: wasi.readlink(name),
    "link from": lambda wasi, name: wasi.link(name, "made"),
    "link to": lambda wasi, name: wasi.link("file", name),
    "rename from": lambda wasi, name: wasi.rename(name, "made"),
    "rename a file to": lambda wasi, name: wasi.rename("file", name),
    "rename a directory to": lambda wasi, name: wasi.rename("empty", name),
    "make a link": lambda wasi, name: wasi.symlink("target", name),
}


class Twin:
    """A guest, and its directory."""

    def __init__(self, start: Start, folder: Path, *, manual_walk: bool) -> None:
        self.box = folder / "box"
        (folder / "outside").mkdir(parents=True)
        (folder / "outside" / "secret").write_bytes(b"secret")
        populate(self.box)
        self.wasi = start({"/": (str(self.box), "rw")}, manual_walk=manual_walk)
        self.calls = 0

    def answer(self, call: Calls, name: str) -> object:
        """What a call answers, an errno or more."""
        before = self.wasi.guest._context.calls
        try:
            return call(self.wasi, name)
        except WasiError as error:
            return error.errno.name
        finally:
            self.calls = self.wasi.guest._context.calls - before


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{ascii(name)[1:9]}-{len(name)}")
@pytest.mark.parametrize("way", ["openat2", "walk"])
def test_the_short_way_leads_where_the_long_one_does(
    start: Start, tmp_path: Path, way: str, name: str
) -> None:
    """Every call, on every kind of name: the same answer, and the same directory after it."""
    for index, (what, call) in enumerate(CALLS.items()):
        short, long = (
            Twin(start, tmp_path / side / str(index), manual_walk=way == "walk")
            for side in ("short", "long")
        )

        assert short.answer(call, name) == long.answer(call, ".//" + name), what
        assert list(tree(short.box)) == list(tree(long.box)), what


# What saves a system call or more. To open is one in any case.
SHORTER = [what for what in CALLS if not what.startswith(("open", "create", "truncate"))]


@pytest.mark.parametrize("what", SHORTER)
def test_the_short_way_is_shorter(start: Start, tmp_path: Path, what: str) -> None:
    """It makes fewer calls of the core's; else the test above compares a way with itself."""
    name = {"read a link": "link", "remove a directory": "empty"}.get(what, "file")
    if what in {"make a directory", "link to", "make a link", "rename a directory to"}:
        name = "new"
    short, long = (Twin(start, tmp_path / side, manual_walk=False) for side in ("short", "long"))
    short.answer(CALLS[what], name)
    long.answer(CALLS[what], ".//" + name)

    if what == "set times":  # the link might have to be followed
        assert short.calls == long.calls
    else:
        assert short.calls < long.calls
