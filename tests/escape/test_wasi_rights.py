"""A guest of the real shim tries to write what it may only read, and to get rights back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.wasi_guest import relay
from tests.held import open_descriptors, settled_descriptors
from tests.wasi_shim.calls import (
    CREAT,
    DIRECTORY,
    EXCL,
    READ,
    TRUNC,
    WRITE,
    Errno,
    Right,
    Wasi,
    WasiError,
)
from wali_core import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.escape.evil import World
    from tests.escape.wasi_guest import WasiHost

    Change = Callable[[Wasi, int], object]

BOX, SHELF = 3, 4


@pytest.fixture
def wasi(wasi_host: WasiHost, world: World) -> Iterator[Wasi]:
    """A guest with the box and the shelf."""
    with wasi_host.enter(world) as guest:
        yield guest


# Every way to hold a read-only directory (with a `book`).
WAYS: dict[str, Callable[[Wasi], int]] = {
    "preopen": lambda _: SHELF,
    "beneath": lambda wasi: wasi.path_open("dir", fd=SHELF, oflags=DIRECTORY),
    "beneath_with_all_rights": lambda wasi: wasi.path_open(
        "dir", fd=SHELF, oflags=DIRECTORY, base=~WRITE & (1 << 30) - 1, inheriting=(1 << 30) - 1
    ),
    "itself": lambda wasi: wasi.path_open(".", fd=SHELF, oflags=DIRECTORY),
    "there_and_back": lambda wasi: wasi.path_open("dir/..", fd=SHELF, oflags=DIRECTORY),
    "renumbered": lambda wasi: renumbered(wasi, SHELF, BOX),
    "renumbered_beneath": lambda wasi: renumbered(
        wasi, wasi.path_open("dir", fd=SHELF, oflags=DIRECTORY), SHELF
    ),
}


def renumbered(wasi: Wasi, old: int, new: int) -> int:
    """The descriptor under another number, whose own descriptor is gone."""
    wasi.call("fd_renumber", old, new)
    return new


def opened(wasi: Wasi, fd: int) -> int:
    """The book, open for reading."""
    return wasi.path_open("book", fd=fd)


CHANGES: dict[str, Change] = {
    "open_to_write": lambda wasi, fd: wasi.path_open("book", fd=fd, base=WRITE),
    "open_to_read_and_write": lambda wasi, fd: wasi.path_open("book", fd=fd, base=READ | WRITE),
    "truncate": lambda wasi, fd: wasi.path_open("book", fd=fd, oflags=TRUNC),
    "truncate_with_no_rights": lambda wasi, fd: wasi.path_open("book", fd=fd, oflags=TRUNC, base=0),
    "create": lambda wasi, fd: wasi.path_open("new", fd=fd, oflags=CREAT),
    "create_new": lambda wasi, fd: wasi.path_open("new", fd=fd, oflags=CREAT | EXCL, base=0),
    "create_what_is_there": lambda wasi, fd: wasi.path_open("book", fd=fd, oflags=CREAT),
    "create_directory": lambda wasi, fd: wasi.on_path("path_create_directory", "new", fd=fd),
    "remove_directory": lambda wasi, fd: wasi.on_path("path_remove_directory", "dir", fd=fd),
    "unlink": lambda wasi, fd: wasi.on_path("path_unlink_file", "book", fd=fd),
    "rename": lambda wasi, fd: wasi.rename("book", "new", fds=(fd, fd)),
    "link": lambda wasi, fd: wasi.link("book", "new", fds=(fd, fd)),
    "symlink": lambda wasi, fd: wasi.symlink("anything", "new", fd=fd),
    "set_times": lambda wasi, fd: wasi.call(
        "path_filestat_set_times", fd, 0, *wasi.put_path("book"), 5, 5, 5
    ),
    "set_times_of_itself": lambda wasi, fd: wasi.call("fd_filestat_set_times", fd, 5, 5, 5),
    "set_size": lambda wasi, fd: wasi.call("fd_filestat_set_size", opened(wasi, fd), 0),
    "allocate": lambda wasi, fd: wasi.call("fd_allocate", opened(wasi, fd), 0, 1 << 16),
    "set_times_of_file": lambda wasi, fd: wasi.call(
        "fd_filestat_set_times", opened(wasi, fd), 5, 5, 5
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_changes_in_a_read_only_grant(
    wasi: Wasi, world: World, way: str, change: str
) -> None:
    """PERM, however the directory is held."""
    with pytest.raises(WasiError) as refused:
        CHANGES[change](wasi, WAYS[way](wasi))

    assert refused.value.errno is Errno.PERM
    assert not world.changed


@pytest.mark.parametrize("way", WAYS)
def test_bytes_of_a_read_only_file_stay(wasi: Wasi, world: World, way: str) -> None:
    """Writing to a file that is open for reading: BADF."""
    fd = opened(wasi, WAYS[way](wasi))
    for options in ({}, {"at": 0}):
        with pytest.raises(WasiError) as refused:
            wasi.write(fd, b"evil", **options)
        assert refused.value.errno is Errno.BADF
    assert not world.changed


@pytest.mark.parametrize("way", [way for way in WAYS if way != "renumbered"])
def test_files_do_not_leave_a_read_only_grant(wasi: Wasi, world: World, way: str) -> None:
    """Carried to the box by a link or a rename, the file could be written there."""
    fd = WAYS[way](wasi)
    for call in (wasi.link, wasi.rename):
        for names, fds in ((("book", "stolen"), (fd, BOX)), (("file", "new"), (BOX, fd))):
            with pytest.raises(WasiError) as refused:
                call(*names, fds=fds)
            assert refused.value.errno is Errno.PERM
    assert not world.changed
    assert not world.box_changed


def test_rights_do_not_come_back(wasi: Wasi, world: World) -> None:
    """fd_fdstat_set_rights takes away, and whoever asks for more gets NOTCAPABLE."""
    stat = wasi.fdstat(BOX)
    kept = stat.base & ~Right.PATH_UNLINK_FILE, stat.inheriting & ~Right.FD_WRITE
    wasi.call("fd_fdstat_set_rights", BOX, *kept)
    for wanted in (stat.base, kept[1]), (kept[0], stat.inheriting), ((1 << 64) - 1, 0):
        with pytest.raises(WasiError) as refused:
            wasi.call("fd_fdstat_set_rights", BOX, *wanted)
        assert refused.value.errno is Errno.NOTCAPABLE
    for call in (
        lambda: wasi.path_open("file", base=READ | WRITE),
        lambda: wasi.path_open("file", inheriting=WRITE),
        lambda: wasi.on_path("path_unlink_file", "file"),
    ):
        with pytest.raises(WasiError) as refused:
            call()
        assert refused.value.errno is Errno.NOTCAPABLE
    assert not world.box_changed


def test_a_read_only_directory_gains_nothing_by_rights(wasi: Wasi, world: World) -> None:
    """It never reports a right to write, and cannot be given one."""
    stat = wasi.fdstat(SHELF)
    writing = Right.FD_WRITE | Right.PATH_CREATE_FILE | Right.PATH_UNLINK_FILE
    assert not stat.base & writing
    assert not stat.inheriting & writing
    for wanted in ((stat.base | writing, 0), (0, stat.inheriting | writing)):
        with pytest.raises(WasiError) as refused:
            wasi.call("fd_fdstat_set_rights", SHELF, *wanted)
        assert refused.value.errno is Errno.NOTCAPABLE
    assert not world.changed


def test_read_only_directory_in_a_writable_one(wasi_host: WasiHost, world: World) -> None:
    """It is not granted, since it would not be read-only by the other's name."""
    dirs = {"/box": (str(world.box), "rw"), "/box/dir": (str(world.box / "dir"), "ro")}
    with pytest.raises(PolicyError, match="cannot be granted read-only"):
        wasi_host.runtime.instantiate(relay("wasi_snapshot_preview1"), dirs=dirs)


def test_writable_directory_in_a_read_only_one(wasi_host: WasiHost, world: World) -> None:
    """It is written to by its own name, and not by the other's."""
    dirs = {"/box": (str(world.box), "ro"), "/box/dir": (str(world.box / "dir"), "rw")}
    module = relay("wasi_snapshot_preview1")
    with wasi_host.runtime.instantiate(module, dirs=dirs, stdio=(-1, -1, -1)) as guest:
        wasi = Wasi(guest)
        wasi.close(wasi.path_open("new", fd=SHELF, oflags=CREAT, base=WRITE))
        for change in (
            lambda: wasi.path_open("dir/new", base=WRITE),
            lambda: wasi.on_path("path_unlink_file", "dir/new"),
            lambda: wasi.rename("dir/new", "old", fds=(BOX, SHELF)),
            lambda: wasi.link("file", "file", fds=(BOX, SHELF)),
        ):
            with pytest.raises(WasiError) as refused:
                change()
            assert refused.value.errno is Errno.PERM
        wasi.on_path("path_unlink_file", "new", fd=SHELF)
    assert not world.changed


HOST = [5, 6, 7, 10, 20, 200, 201, 202, 255, 1023, 1024, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1]


@pytest.mark.parametrize("number", HOST)
def test_host_descriptors_mean_nothing(wasi: Wasi, world: World, number: int) -> None:
    """What the engine or the embedder has open under a number is BADF for the guest."""
    for call in (
        lambda: wasi.path_open("secret", fd=number),
        lambda: wasi.read(number, 16),
        lambda: wasi.write(number, b"evil"),
        lambda: wasi.filestat(number),
        lambda: wasi.fdstat(number),
        lambda: wasi.close(number),
        lambda: wasi.readdir(number),
        lambda: wasi.prestat(number),
        lambda: wasi.call("fd_renumber", number, BOX),
        lambda: wasi.call("fd_renumber", BOX, number),
        lambda: wasi.call("fd_filestat_set_size", number, 0),
    ):
        with pytest.raises(WasiError) as refused:
            call()
        assert refused.value.errno is Errno.BADF
    assert wasi.prestat(BOX) == b"/box"
    assert not world.changed


def test_renumber_onto_itself_and_around(wasi: Wasi, world: World) -> None:
    """Onto itself is nothing; the old target is closed and nothing leaks."""
    before = len(settled_descriptors())
    wasi.call("fd_renumber", BOX, BOX)
    fds = [wasi.path_open("file") for _ in range(4)]
    for fd in fds[1:]:
        wasi.call("fd_renumber", fd, fds[0])
    assert wasi.read(fds[0], 16) == b"of the box"
    wasi.close(fds[0])
    assert len(open_descriptors()) == before
    assert not world.changed


def test_two_guests_share_nothing(wasi_host: WasiHost, world: World) -> None:
    """A descriptor of one guest is no descriptor of another in the same process."""
    with wasi_host.enter(world) as first, wasi_host.enter(world) as second:
        fds = [first.path_open("file") for _ in range(5)]
        for fd in set(fds) - {BOX, SHELF}:
            with pytest.raises(WasiError) as refused:
                second.read(fd, 16)
            assert refused.value.errno is Errno.BADF
        second.close(BOX)
        assert first.stat("file").size == len(b"of the box")
