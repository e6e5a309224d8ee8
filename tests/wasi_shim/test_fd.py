"""Operations on open descriptors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.held import settled_descriptors
from tests.wasi_shim.calls import (
    APPEND,
    BEYOND,
    CHARACTER_DEVICE,
    CREAT,
    DIRECTORY,
    DIRECTORY_TYPE,
    DSYNC,
    MEMORY_SIZE,
    NONBLOCK,
    READ,
    REGULAR_FILE,
    SYNC,
    UNKNOWN,
    WRITE,
    Right,
    Wasi,
    WasiError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.wasi_shim.conftest import Start


@pytest.fixture
def wasi(start: Start, box: Path) -> Wasi:
    """Return a guest with the box, writable, as 3."""
    return start({"/": (str(box), "rw")})


# --- reading and writing --------------------------------------------------------------------------


def test_bytes_go_through(wasi: Wasi, box: Path) -> None:
    """Vectors are written and read in order, from the position, or from an offset."""
    fd = wasi.create("file")

    assert wasi.write(fd, b"Hello", b"", b", world") == 12
    assert (box / "file").read_bytes() == b"Hello, world"
    assert wasi.read(fd, 100) == b""
    assert wasi.read(fd, 3, 0, 100, at=2) == b"llo, world"
    assert wasi.write(fd, b"J", at=0) == 1
    assert wasi.seek(fd, 0) == 0
    assert wasi.read(fd, 2, 3) == b"Jello"
    assert wasi.tell(fd) == 5


def test_seeking(wasi: Wasi) -> None:
    """From the start, from here, from the end; not before the start, not by another measure."""
    fd = wasi.create("file")
    wasi.write(fd, bytes(100))

    assert [
        wasi.seek(fd, 10),
        wasi.seek(fd, 5, 1),
        wasi.seek(fd, -2, 2),
        wasi.seek(fd, 1000),
    ] == [10, 15, 98, 1000]
    for offset, whence in ((-1, 0), (-2000, 1), (0, 3)):
        with pytest.raises(WasiError, match="INVAL"):
            wasi.seek(fd, offset, whence)


def test_appending(wasi: Wasi, box: Path) -> None:
    """With APPEND a write goes to the end, an fd_pwrite where it says; APPEND can be ended."""
    (box / "file").write_bytes(b"0123456789")
    fd = wasi.create("file", fdflags=APPEND)

    wasi.write(fd, b"A")
    wasi.seek(fd, 0)
    wasi.write(fd, b"B")
    wasi.write(fd, b"w", at=1)
    assert (box / "file").read_bytes() == b"0w23456789AB"
    assert wasi.fdstat(fd).flags == APPEND

    wasi.call("fd_fdstat_set_flags", fd, 0)
    wasi.seek(fd, 2)
    wasi.write(fd, b"--")
    assert (box / "file").read_bytes() == b"0w--456789AB"


@pytest.mark.parametrize("call", ["fd_read", "fd_write"])
def test_too_many_vectors(wasi: Wasi, call: str) -> None:
    """More than Linux takes is INVAL, however many more."""
    fd = wasi.create("file")

    for count in (1025, 2**29, 2**32 - 1):
        with pytest.raises(WasiError, match="INVAL"):
            wasi.call(call, fd, 64, count, 0)


def test_bad_vectors_have_no_effect(wasi: Wasi, box: Path) -> None:
    """The array, a buffer or the result outside memory: nothing is written."""
    fd = wasi.create("file")
    for vector, result in (((BEYOND, 1), 0), ((0xFFFFFFF8, 2), 0), ((256, 16), BEYOND)):
        with pytest.raises(WasiError, match="FAULT"):
            wasi.call("fd_write", fd, *vector, result)
    wasi.memory.write(64, MEMORY_SIZE.to_bytes(4, "little") + b"\x01\0\0\0")
    with pytest.raises(WasiError, match="FAULT"):
        wasi.call("fd_write", fd, 64, 1, 0)

    assert (box / "file").read_bytes() == b""


@pytest.mark.parametrize("base", [0, READ, WRITE])
def test_access_is_what_was_asked(wasi: Wasi, box: Path, base: int) -> None:
    """Reading and writing need their rights, even for no bytes at all."""
    (box / "file").write_text("x")
    fd = wasi.path_open("file", base=base)

    for right, attempt in (
        (READ, lambda: wasi.read(fd, 1)),
        (READ, lambda: wasi.read(fd, 1, at=0)),
        (WRITE, lambda: wasi.write(fd, b"")),
        (WRITE, lambda: wasi.write(fd, b"x", at=0)),
    ):
        if base & right:
            attempt()
        else:
            with pytest.raises(WasiError, match="BADF"):
                attempt()


@pytest.mark.parametrize(
    "call",
    [
        ("fd_read", 64, 1, 0),
        ("fd_write", 64, 1, 0),
        ("fd_pread", 64, 1, 0, 0),
        ("fd_pwrite", 64, 1, 0, 0),
        ("fd_seek", 0, 1, 0),
        ("fd_seek", 0, 0, 0),
        ("fd_tell", 0),
        ("fd_allocate", 0, 1),
        ("fd_filestat_set_size", 0),
        ("fd_advise", 0, 0, 0),
        ("fd_sync",),
        ("fd_datasync",),
        ("fd_fdstat_set_flags", 0),
    ],
)
def test_directories_are_no_files(wasi: Wasi, call: tuple[str, int]) -> None:
    """Linux would answer some of these; WASI's programs expect BADF."""
    opened = wasi.path_open(".", oflags=DIRECTORY)

    for fd in (3, opened):
        with pytest.raises(WasiError, match="BADF"):
            wasi.call(call[0], fd, *call[1:])


@pytest.mark.parametrize(
    "call",
    [
        ("fd_advise", 0, 0, 0),
        ("fd_allocate", 0, 0),
        ("fd_close",),
        ("fd_datasync",),
        ("fd_fdstat_get", 0),
        ("fd_fdstat_set_flags", 0),
        ("fd_fdstat_set_rights", 0, 0),
        ("fd_filestat_get", 0),
        ("fd_filestat_set_size", 0),
        ("fd_filestat_set_times", 0, 0, 0),
        ("fd_pread", 0, 0, 0, 0),
        ("fd_prestat_dir_name", 0, 0),
        ("fd_prestat_get", 0),
        ("fd_pwrite", 0, 0, 0, 0),
        ("fd_read", 0, 0, 0),
        ("fd_readdir", 0, 0, 0, 0),
        ("fd_seek", 0, 0, 0),
        ("fd_sync",),
        ("fd_tell", 0),
        ("fd_write", 0, 0, 0),
        ("path_open", 0, 64, 1, 0, 0, 0, 0, 0),
        ("path_unlink_file", 64, 1),
        ("sock_accept", 0, 0),
        ("sock_recv", 0, 0, 0, 0, 0),
        ("sock_send", 0, 0, 0, 0),
        ("sock_shutdown", 3),
    ],
)
@pytest.mark.parametrize("fd", [0, 4, 127, 2**20, 2**31, 2**32 - 1])
def test_what_is_not_open_is_badf(wasi: Wasi, call: tuple[str, int], fd: int) -> None:
    """No number means anything that the guest was not given: not the host's own descriptors."""
    with pytest.raises(WasiError, match="BADF"):
        wasi.call(call[0], fd, *call[1:])


# --- sizes, times, advice -------------------------------------------------------------------------


def test_sizes(wasi: Wasi, box: Path) -> None:
    """Set_size cuts and grows, allocate only grows."""
    fd = wasi.create("file")

    wasi.call("fd_filestat_set_size", fd, 100)
    assert wasi.filestat(fd).size == 100
    wasi.call("fd_allocate", fd, 10, 20)
    assert wasi.filestat(fd).size == 100
    wasi.call("fd_allocate", fd, 100, 50)
    assert wasi.filestat(fd).size == 150
    wasi.call("fd_filestat_set_size", fd, 1)
    assert (box / "file").stat().st_size == 1
    with pytest.raises(WasiError, match="INVAL"):
        wasi.call("fd_filestat_set_size", fd, 2**63)


def test_size_of_a_file_for_reading(wasi: Wasi, box: Path) -> None:
    """Ftruncate's own answer."""
    (box / "file").write_text("x")

    with pytest.raises(WasiError, match="INVAL"):
        wasi.call("fd_filestat_set_size", wasi.path_open("file"), 0)


def test_times(wasi: Wasi, box: Path) -> None:
    """Set on a descriptor, open for reading or a directory's, and not both ways at once."""
    (box / "file").write_text("x")
    for fd, path in ((wasi.path_open("file"), box / "file"), (3, box)):
        wasi.call("fd_filestat_set_times", fd, 2**61 + 3, 0, 1)
        assert path.stat().st_atime_ns == 2**61 + 3
        assert path.stat().st_mtime_ns > 2**60
        wasi.call("fd_filestat_set_times", fd, 0, 5, 4)
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (2**61 + 3, 5)
        with pytest.raises(WasiError, match="INVAL"):
            wasi.call("fd_filestat_set_times", fd, 0, 5, 12)


@pytest.mark.parametrize(
    ("values", "errno"),
    [
        ((0, 0, 0), ""),
        ((1, 2, 5), ""),
        ((0, 0, 6), "INVAL"),
        ((2**63, 0, 0), ""),
        ((0, 2**63, 0), "INVAL"),
    ],
)
def test_advice(wasi: Wasi, values: tuple[int, int, int], errno: str) -> None:
    """Six kinds of advice exist; what offsets and lengths there are, Linux says."""
    fd = wasi.create("file")

    if not errno:
        wasi.call("fd_advise", fd, *values)
    else:
        with pytest.raises(WasiError, match=errno):
            wasi.call("fd_advise", fd, *values)


def test_syncing(wasi: Wasi) -> None:
    """A file can be synchronised."""
    fd = wasi.create("file")

    wasi.call("fd_sync", fd)
    wasi.call("fd_datasync", fd)


# --- fdstat ---------------------------------------------------------------------------------------


def test_flags_come_back(wasi: Wasi) -> None:
    """What was asked at open is told; SYNC cannot be changed later, silently or otherwise."""
    fd = wasi.create("file", fdflags=APPEND | SYNC | DSYNC)
    assert wasi.fdstat(fd).flags == APPEND | SYNC | DSYNC

    wasi.call("fd_fdstat_set_flags", fd, NONBLOCK | SYNC | DSYNC)
    assert wasi.fdstat(fd).flags == NONBLOCK | SYNC | DSYNC
    for flags in (0, SYNC, 32):
        with pytest.raises(WasiError, match="INVAL"):
            wasi.call("fd_fdstat_set_flags", fd, flags)


def test_a_directory_has_no_flags(wasi: Wasi) -> None:
    """The kernel's own O_LARGEFILE and its kin do not show."""
    assert wasi.fdstat(wasi.path_open(".", oflags=DIRECTORY))[:2] == (DIRECTORY_TYPE, 0)
    assert wasi.fdstat(wasi.path_open(".", fdflags=NONBLOCK))[:2] == (DIRECTORY_TYPE, 0)
    assert wasi.fdstat(3)[:2] == (DIRECTORY_TYPE, 0)


# --- preopens, numbers ----------------------------------------------------------------------------


def test_preopens_are_found_in_order(start: Start, box: Path) -> None:
    """From 3 on without a hole, each by the name that it was given."""
    wasi = start({"/": str(box), "data": str(box), "two words": str(box)})

    assert [wasi.prestat(fd) for fd in (3, 4, 5)] == [b"/", b"data", b"two words"]
    with pytest.raises(WasiError, match="BADF"):
        wasi.prestat(6)


def test_only_preopens_have_a_name(wasi: Wasi) -> None:
    """Everything else that is open is NOTDIR, what is not is BADF."""
    for fd, errno in (
        (wasi.create("file"), "NOTDIR"),
        (wasi.path_open("."), "NOTDIR"),
        (77, "BADF"),
    ):
        with pytest.raises(WasiError, match=errno):
            wasi.call("fd_prestat_dir_name", fd, 64, 8)


def test_the_name_needs_room(start: Start, box: Path) -> None:
    """A short buffer is NAMETOOLONG, a long one keeps its rest."""
    wasi = start({"name": str(box)})
    wasi.memory.write(64, b"########")

    wasi.call("fd_prestat_dir_name", 3, 64, 8)
    assert wasi.memory.read(64, 8) == b"name####"
    for size in (0, 3):
        with pytest.raises(WasiError, match="NAMETOOLONG"):
            wasi.call("fd_prestat_dir_name", 3, 64, size)


def test_renumbering(wasi: Wasi, box: Path) -> None:
    """The target is closed, the source's number is free, and all that was known moves along."""
    (box / "file").write_text("text")
    source, target = wasi.create("file", fdflags=APPEND), wasi.create("other")
    known = wasi.fdstat(source)

    wasi.call("fd_renumber", source, target)

    assert known == wasi.fdstat(target)
    assert wasi.read(target, 10) == b"text"
    with pytest.raises(WasiError, match="BADF"):
        wasi.fdstat(source)
    for numbers in ((target, source), (source, target), (target, 2**32 - 1), (99, 98)):
        with pytest.raises(WasiError, match="BADF"):
            wasi.call("fd_renumber", *numbers)
    wasi.call("fd_renumber", target, target)
    assert known == wasi.fdstat(target)


def test_renumbering_does_not_leak(wasi: Wasi) -> None:
    """Two thousand times is no more than once."""
    before = len(settled_descriptors())
    for _ in range(2000):
        target = wasi.create("b")
        wasi.call("fd_renumber", wasi.create("a"), target)
        wasi.close(target)

    assert before == len(settled_descriptors())


def test_a_directory_over_a_preopen_takes_its_place(wasi: Wasi, box: Path) -> None:
    """Paths then resolve beneath the directory, and the old preopen is out of reach."""
    (box / "dir").mkdir()
    (box / "file").touch()
    wasi.call("fd_renumber", wasi.path_open("dir", oflags=DIRECTORY), 3)

    with pytest.raises(WasiError, match="BADF"):
        wasi.prestat(3)
    with pytest.raises(WasiError, match="PERM"):
        wasi.path_open("../file")


def test_a_preopen_can_be_closed(wasi: Wasi) -> None:
    """Then it is gone, and its number is given to what is opened next."""
    sub, *_ = (wasi.path_open(".", oflags=DIRECTORY) for _ in range(3))  # 0, 1 and 2 are free
    wasi.close(3)

    with pytest.raises(WasiError, match="BADF"):
        wasi.prestat(3)
    assert wasi.create("file", fd=sub) == 3
    assert wasi.fdstat(3).filetype == REGULAR_FILE


# --- standard streams -----------------------------------------------------------------------------


def test_pipes_as_standard_streams(start: Start) -> None:
    """They are no terminals, have no position, and their metadata says nothing of the host."""
    (stdin, feed), (drain, stdout) = os.pipe(), os.pipe()
    wasi = start(stdio=(stdin, stdout, -1))
    os.write(feed, b"in")

    assert wasi.read(0, 10) == b"in"
    assert wasi.write(1, b"out") == 3
    assert os.read(drain, 10) == b"out"
    assert wasi.fdstat(0).filetype == UNKNOWN
    assert not wasi.fdstat(0).base & (Right.FD_SEEK | Right.FD_TELL | WRITE)
    assert not wasi.fdstat(1).base & READ
    assert wasi.filestat(0)[4:] == (0, 0, 0, 0)
    for fd in (0, 1):
        with pytest.raises(WasiError, match="SPIPE"):
            wasi.seek(fd, 0)
    with pytest.raises(WasiError, match="BADF"):
        wasi.write(0, b"x")
    with pytest.raises(WasiError, match="BADF"):
        wasi.read(1, 1)
    for fd in (stdin, feed, drain, stdout):
        os.close(fd)


def test_a_terminal_has_no_position(start: Start) -> None:
    """A character device without SEEK and TELL: what isatty() looks for. Others have them."""
    master, terminal = os.openpty()
    null = os.open(os.devnull, os.O_RDWR)
    wasi = start(stdio=(terminal, null, -1))

    assert [wasi.fdstat(fd).filetype for fd in (0, 1)] == [CHARACTER_DEVICE] * 2
    assert not wasi.fdstat(0).base & (Right.FD_SEEK | Right.FD_TELL)
    assert wasi.fdstat(1).base & Right.FD_SEEK
    for fd in (master, terminal, null):
        os.close(fd)


def test_a_file_as_standard_stream(start: Start, box: Path) -> None:
    """A regular file keeps its size, its position and, opened so, its APPEND."""
    (box / "log").write_bytes(b"old ")
    log = os.open(box / "log", os.O_WRONLY | os.O_APPEND)
    wasi = start(stdio=(-1, log, -1))

    assert wasi.write(1, b"new") == 3
    assert wasi.fdstat(1)[:2] == (REGULAR_FILE, APPEND)
    assert wasi.filestat(1).size == 7
    assert wasi.filestat(1).mtim > 0
    os.close(log)


def test_nonblocking_is_the_guests_alone(start: Start) -> None:
    """The host's description of a shared pipe stays as it was."""
    stdin, feed = os.pipe()
    wasi = start(stdio=(stdin, -1, -1))

    wasi.call("fd_fdstat_set_flags", 0, NONBLOCK)

    assert os.get_blocking(stdin)
    assert wasi.fdstat(0).flags == NONBLOCK
    with pytest.raises(WasiError, match="AGAIN"):
        wasi.read(0, 1)
    os.close(stdin)
    os.close(feed)


def test_streams_that_were_not_given(wasi: Wasi) -> None:
    """They are not open, and stay so whatever asks."""
    for fd in (0, 1, 2):
        with pytest.raises(WasiError, match="BADF"):
            wasi.fdstat(fd)
        with pytest.raises(WasiError, match="BADF"):
            wasi.write(fd, b"x")
    assert wasi.path_open("file", oflags=CREAT) == 0
    assert wasi.fdstat(0).filetype == REGULAR_FILE


def test_renaming_streams_away(start: Start, box: Path) -> None:
    """A stream that is renumbered keeps working under the new number, and the old one is BADF."""
    drain, stdout = os.pipe()
    wasi = start({"/": (str(box), "rw")}, stdio=(-1, stdout, -1))
    file = wasi.create("file")

    wasi.call("fd_renumber", 1, file)

    assert wasi.write(file, b"moved") == 5
    assert os.read(drain, 10) == b"moved"
    with pytest.raises(WasiError, match="BADF"):
        wasi.write(1, b"x")
    os.close(drain)
    os.close(stdout)
