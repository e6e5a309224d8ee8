"""What the host does to granted directories while a guest of the real shim holds them.

It moves and removes them, and puts things into them that a guest could not make: devices, sockets,
hard links to what is outside.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.escape.evil import TOKEN
from tests.escape.wasi_guest import answer
from tests.wasi_shim.calls import CREAT, DIRECTORY, READ, TRUNC, WRITE, Errno

if TYPE_CHECKING:
    from tests.escape.evil import World
    from tests.wasi_shim.calls import Wasi

BOX, SHELF = 3, 4


def test_granted_directory_that_is_moved(wasi: Wasi, world: World) -> None:
    """It is the directory that was granted, not its name; `..` is out wherever it is."""
    world.box.rename(world.outside / "box")
    world.box.mkdir()
    (world.box / "trap").write_bytes(TOKEN)

    assert wasi.read(wasi.path_open("file"), 16) == b"of the box"
    for path in ("..", "../secret", "dir/../..", "dir/../../secret", "outdir/secret"):
        assert answer(wasi.path_open, path) is Errno.PERM
        assert answer(wasi.stat, path) is Errno.PERM
    assert answer(wasi.path_open, "trap") is Errno.NOENT


def test_directories_above_that_are_renamed(wasi: Wasi, world: World) -> None:
    """What a grant's parents are called does not matter."""
    folder = wasi.path_open("dir", oflags=DIRECTORY)
    elsewhere = world.root.with_name(world.root.name + " elsewhere")
    world.root.rename(elsewhere)
    try:
        assert wasi.read(wasi.path_open("file"), 16) == b"of the box"
        assert answer(wasi.path_open, "../file", fd=folder) is Errno.PERM
    finally:
        elsewhere.rename(world.root)


def test_directory_that_is_removed(wasi: Wasi, world: World) -> None:
    """Nothing comes into it any more, it leads nowhere, and it is empty."""
    folder = wasi.path_open("empty", oflags=DIRECTORY)
    (world.box / "empty").rmdir()

    for call in (
        lambda: wasi.path_open("new", fd=folder, oflags=CREAT, base=WRITE),
        lambda: wasi.on_path("path_create_directory", "new", fd=folder),
        lambda: wasi.symlink("x", "new", fd=folder),
        lambda: wasi.link("file", "new", fds=(BOX, folder)),
        lambda: wasi.rename("file", "new", fds=(BOX, folder)),
    ):
        assert answer(call) is Errno.NOENT
    for path in ("..", "../file"):
        assert answer(wasi.path_open, path, fd=folder) is Errno.PERM
    assert wasi.readdir(folder) == b""
    assert wasi.stat(".", fd=folder).nlink == 0


def test_hard_links_of_a_read_only_grant(wasi: Wasi, world: World) -> None:
    """The host may link one file into both grants: each grant says what may be done by its name."""
    os.link(world.shelf / "book", world.box / "linked")

    assert answer(wasi.path_open, "book", fd=SHELF, base=WRITE) is Errno.PERM
    assert answer(wasi.path_open, "book", fd=SHELF, oflags=TRUNC) is Errno.PERM
    wasi.write(wasi.path_open("linked", base=WRITE), b"T")
    assert wasi.read(wasi.path_open("book", fd=SHELF), 5) == b"To be"


def test_socket_that_lies_there(wasi: Wasi, world: World) -> None:
    """It is seen for what it is, can be linked and unlinked, and nobody connects by opening it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(world.box / "socket"))
        listener.listen(1)
        for base in (READ, WRITE, READ | WRITE):
            assert answer(wasi.path_open, "socket", base=base) is Errno.NXIO
        assert wasi.stat("socket").filetype == 6
        wasi.on_path("path_unlink_file", "socket")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_devices_that_lie_there(wasi: Wasi, world: World) -> None:
    """They answer as devices do, no terminal becomes the process's own, and there is no waiting."""
    for name, number in (("null", 3), ("full", 7)):
        os.mknod(world.box / name, 0o20666, os.makedev(1, number))
    os.mknod(world.box / "nobody", 0o60666, os.makedev(240, 77))
    full = wasi.path_open("full", base=READ | WRITE)

    wasi.memory.write(64, (1024).to_bytes(4, "little") + (8).to_bytes(4, "little"))
    assert wasi.guest.call("fd_write", full, 64, 1, 128) == 51  # NOSPC
    assert wasi.write(wasi.path_open("null", base=WRITE), b"gone") == 4
    assert wasi.read(wasi.path_open("null"), 4) == b""
    assert answer(wasi.path_open, "nobody") is Errno.NXIO


def test_links_that_double(wasi: Wasi, world: World) -> None:
    """A billion steps in thirty links: Linux counts them, and so does the walk."""
    (world.box / "l0").symlink_to(".")
    for i in range(1, 30):
        (world.box / f"l{i}").symlink_to(f"l{i - 1}/" * 10)

    assert answer(wasi.stat, "l1/file") is Errno.SUCCESS
    for path in ("l4/file", "l29/file", "l29"):
        assert answer(wasi.stat, path) is Errno.LOOP
    assert answer(wasi.stat, "l0/" * 40 + "file") is Errno.SUCCESS
    assert answer(wasi.stat, "l0/" * 41 + "file") is Errno.LOOP


@pytest.mark.parametrize("offset", [2**62, 2**63 - 4096, 2**63 - 1, 2**63, 2**64 - 1])
def test_far_offsets(wasi: Wasi, offset: int) -> None:
    """Nothing is written there, nothing is made larger, and nothing wraps to the beginning."""
    fd = wasi.create("new")
    wasi.write(fd, b"here")
    wasi.memory.write(64, (1024).to_bytes(4, "little") + (8).to_bytes(4, "little"))

    for call in (
        ("fd_pwrite", fd, 64, 1, offset, 128),
        ("fd_allocate", fd, offset, 8),
        ("fd_allocate", fd, 8, offset),
        ("fd_filestat_set_size", fd, offset),
    ):
        assert wasi.guest.call(*call) in {Errno.INVAL, 22}, call  # FBIG
    assert wasi.guest.call("fd_pread", fd, 64, 1, offset, 128) in {Errno.SUCCESS, Errno.INVAL}
    assert wasi.filestat(fd).size == 4
    assert wasi.read(fd, 8, at=0) == b"here"


def test_vectors_that_overlap_themselves(wasi: Wasi) -> None:
    """A read over the vector that says where it goes, and over where its result goes."""
    fd = wasi.create("new")
    wasi.write(fd, b"\xff" * 32)
    wasi.seek(fd, 0)
    both = b"".join(word.to_bytes(4, "little") for word in (1024, 16, 1032, 16))
    wasi.memory.write(1024, both)

    assert wasi.guest.call("fd_read", fd, 1024, 2, 1028) == Errno.SUCCESS
    assert wasi.words(1, 1028) == (32,)
    assert wasi.memory.read(1032, 16) == b"\xff" * 16
