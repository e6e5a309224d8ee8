"""Listing directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import (
    BEYOND,
    DIRECTORY,
    DIRECTORY_TYPE,
    REGULAR_FILE,
    SYMBOLIC_LINK,
    Wasi,
    WasiError,
    entries,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [300, 256 + 24, 1000, 65536])
def test_every_entry_is_listed_once(wasi: Wasi, box: Path, size: int) -> None:
    """Whatever the buffer, a thousand entries and the two dots come back, and only once."""
    names = {f"entry-{i:04}-{'x' * (i % 200)}" for i in range(1000)}
    for name in names:
        (box / name).touch()

    listed = [entry.name.decode() for entry in wasi.listdir(3, size)]

    assert sorted([".", "..", *names]) == sorted(listed)


def test_entries_have_types_and_inodes(wasi: Wasi, box: Path) -> None:
    """They agree with stat; `..` shows no inode from above."""
    (box / "dir").mkdir()
    (box / "file").touch()
    (box / "link").symlink_to("file")
    os.mkfifo(box / "fifo")

    listed = {entry.name: entry for entry in wasi.listdir(3)}

    assert {name: entry.type for name, entry in listed.items()} == {
        b".": 3,
        b"..": 3,
        b"dir": 3,
        b"file": 4,
        b"link": 7,
        b"fifo": 0,
    }
    assert (DIRECTORY_TYPE, REGULAR_FILE, SYMBOLIC_LINK) == (3, 4, 7)
    for name in (".", "dir", "file", "link", "fifo"):
        assert listed[name.encode()].ino == wasi.stat(name, follow=False).ino
    assert listed[b".."].ino == os.stat(box).st_ino


def test_a_full_buffer_cuts_the_last_entry(wasi: Wasi, box: Path) -> None:
    """There is more exactly if the buffer was filled to its end."""
    (box / "some-file").touch()
    whole = wasi.readdir(3)

    for size in range(len(whole) + 2):
        assert whole[:size] == wasi.readdir(3, size=size)


def test_cookies_restart_after_their_entry(wasi: Wasi, box: Path) -> None:
    """Each cookie continues with the entry that follows, in any order of asking."""
    for i in range(20):
        (box / f"f{i}").touch()
    listed = wasi.listdir(3)

    for i in reversed(range(len(listed))):
        assert listed[i + 1 :] == entries(wasi.readdir(3, listed[i].next))


def test_a_listing_from_the_start_is_fresh(wasi: Wasi, box: Path) -> None:
    """Nothing is remembered from an earlier one."""
    (box / "old").touch()
    assert b"old" in {entry.name for entry in wasi.listdir(3)}
    (box / "old").rename(box / "new")

    assert {b".", b"..", b"new"} == {entry.name for entry in wasi.listdir(3)}


@pytest.mark.parametrize("cookie", [2**63 - 1, 2**63, 2**64 - 1])
def test_beyond_the_end_is_nothing(wasi: Wasi, cookie: int) -> None:
    """A cookie that never was is the end of the directory."""
    assert wasi.readdir(3, cookie) == b""


def test_listing_needs_a_directory_and_room(wasi: Wasi) -> None:
    """A file is NOTDIR, a bad buffer a fault."""
    file = wasi.create("file")

    with pytest.raises(WasiError, match="NOTDIR"):
        wasi.readdir(file)
    for values in ((3, BEYOND, 64, 0, 0), (3, 0, 64, 0, BEYOND), (3, 64, 0xFFFFFFFF, 0, 0)):
        with pytest.raises(WasiError, match="FAULT"):
            wasi.call("fd_readdir", *values)


def test_a_directory_that_is_only_a_path(wasi: Wasi, box: Path) -> None:
    """A preopen that the host could not open for reading is opened again when it is listed."""
    (box / "file").touch()
    wasi.guest._place(9, os.open(box, os.O_PATH | os.O_DIRECTORY), 0)

    assert {b".", b"..", b"file"} == {entry.name for entry in wasi.listdir(9)}
    assert wasi.stat("file").ino == wasi.filestat(wasi.path_open("file", fd=9)).ino


def test_a_subdirectory_shows_nothing_above(wasi: Wasi, box: Path) -> None:
    """Its `..` has its own inode: it is the root of what can be named from it."""
    (box / "dir").mkdir()
    sub = wasi.path_open("dir", oflags=DIRECTORY)

    assert {(box / "dir").stat().st_ino} == {entry.ino for entry in wasi.listdir(sub)}


@pytest.mark.parametrize("end", [2**63 - 1, 2**63, 2**64 - 1])
def test_the_end_comes_before_the_beginning(wasi: Wasi, box: Path, end: int) -> None:
    """Whoever reads behind the end first finds everything from 0 on."""
    (box / "file").touch()

    assert wasi.readdir(3, end) == b""
    assert {b".", b"..", b"file"} == {entry.name for entry in wasi.listdir(3)}


def test_a_removed_directory_is_empty(wasi: Wasi, box: Path) -> None:
    """To list it is no error, as it is none for readdir()."""
    (box / "dir").mkdir()
    fd = wasi.path_open("dir", oflags=DIRECTORY)
    (box / "dir").rmdir()

    assert wasi.listdir(fd) == []
