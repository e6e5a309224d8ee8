"""Rights: by type, by what was dropped, by what the host granted, and in strict mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import (
    APPEND,
    CREAT,
    DIRECTORY,
    DSYNC,
    EXCL,
    READ,
    RSYNC,
    SYNC,
    TRUNC,
    WRITE,
    Right,
    Wasi,
    WasiError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.wasi_shim.conftest import Start

ALL = Right(2**30 - 1)
PATHS = Right(sum(right for right in Right if right.name and right.name.startswith("PATH_")))


@pytest.fixture
def box(box: Path) -> Path:
    """Fill the box."""
    (box / "dir").mkdir()
    (box / "file").write_text("text")
    (box / "link").symlink_to("file")
    return box


@pytest.fixture
def wasi(start: Start, box: Path) -> Wasi:
    """Return a guest with the box, writable, as 3."""
    return start({"/": (str(box), "rw")})


@pytest.fixture
def strict(start: Start, box: Path) -> Wasi:
    """Return one where rights that were not asked for are not granted."""
    return start({"/": (str(box), "rw")}, strict=True)


# --- by type --------------------------------------------------------------------------------------


def test_a_preopen_has_a_directorys_rights(wasi: Wasi) -> None:
    """All that is done with names; nothing that is done with bytes. Beneath it, everything."""
    fdstat = wasi.fdstat(3)

    assert fdstat.base & PATHS == PATHS
    assert fdstat.base & Right.FD_READDIR
    assert not fdstat.base & (READ | WRITE | Right.FD_SEEK | Right.FD_FILESTAT_SET_SIZE)
    assert fdstat.inheriting == ALL


def test_rights_are_what_the_type_can_have(wasi: Wasi) -> None:
    """A file never has a directory's, a directory never a file's, whatever was asked."""
    file = wasi.fdstat(wasi.path_open("file", base=ALL, inheriting=ALL))
    directory = wasi.fdstat(wasi.path_open("dir", base=ALL & ~WRITE, inheriting=ALL))

    assert not file.base & (PATHS | Right.FD_READDIR | Right.SOCK_ACCEPT)
    assert file.inheriting == 0
    assert file.base & (READ | WRITE | Right.FD_SEEK) == READ | WRITE | Right.FD_SEEK
    assert directory.base == wasi.fdstat(3).base


def test_reported_rights_open_it_again(wasi: Wasi) -> None:
    """What fd_fdstat_get says is accepted by path_open, again and again."""
    fd = 3
    for _ in range(3):
        fdstat = wasi.fdstat(fd)
        fd = wasi.path_open(
            ".", fd=fd, oflags=DIRECTORY, base=fdstat.base, inheriting=fdstat.inheriting
        )
        assert fdstat == wasi.fdstat(fd)


def test_what_was_not_asked_for_works_all_the_same(wasi: Wasi) -> None:
    """Programs ask for nothing and use the directory: only reading and writing need asking."""
    directory = wasi.path_open("dir", oflags=DIRECTORY, base=0, inheriting=0)
    fd = wasi.path_open("new", fd=directory, oflags=CREAT, base=WRITE)

    wasi.write(fd, b"x")
    wasi.call("fd_filestat_set_size", fd, 0)
    wasi.on_path("path_unlink_file", "new", fd=directory)


# --- dropping -------------------------------------------------------------------------------------


def test_dropped_rights_are_gone(wasi: Wasi) -> None:
    """They are enforced, not reported, and cannot be had back."""
    fd = wasi.path_open("file", base=READ | WRITE)
    left = wasi.fdstat(fd).base & ~(READ | WRITE | Right.FD_SEEK)

    wasi.call("fd_fdstat_set_rights", fd, left, 0)

    assert left == wasi.fdstat(fd).base
    for attempt, errno in (
        (lambda: wasi.read(fd, 1), "BADF"),
        (lambda: wasi.write(fd, b"x"), "BADF"),
        (lambda: wasi.seek(fd, 1), "NOTCAPABLE"),
        (lambda: wasi.call("fd_fdstat_set_rights", fd, left | READ, 0), "NOTCAPABLE"),
        (lambda: wasi.call("fd_fdstat_set_rights", fd, left, READ), "NOTCAPABLE"),
        (lambda: wasi.call("fd_fdstat_set_rights", fd, left | 2**40, 0), "NOTCAPABLE"),
    ):
        with pytest.raises(WasiError, match=errno):
            attempt()
    assert wasi.tell(fd) == 0


def test_dropped_rights_are_not_inherited(wasi: Wasi) -> None:
    """What a directory can no longer pass on is refused beneath it, at any depth."""
    base, inheriting = wasi.fdstat(3)[2:]
    wasi.call("fd_fdstat_set_rights", 3, base, inheriting & ~(WRITE | Right.FD_ALLOCATE))

    directory = wasi.path_open("dir", oflags=DIRECTORY)
    for fd in (3, directory):
        with pytest.raises(WasiError, match="NOTCAPABLE"):
            wasi.path_open("new", fd=fd, oflags=CREAT, base=READ | WRITE)
        made = wasi.path_open("new", fd=fd, oflags=CREAT, base=READ)
        with pytest.raises(WasiError, match="BADF"):
            wasi.write(made, b"x")
        with pytest.raises(WasiError, match="NOTCAPABLE"):
            wasi.call("fd_allocate", made, 0, 1)


def test_truncating_needs_its_right(wasi: Wasi, box: Path) -> None:
    """O_TRUNC is a change of size by path, with or without writing."""
    base, inheriting = wasi.fdstat(3)[2:]
    wasi.call("fd_fdstat_set_rights", 3, base & ~Right.PATH_FILESTAT_SET_SIZE, inheriting)

    for rights in (0, READ, WRITE):
        with pytest.raises(WasiError, match="NOTCAPABLE"):
            wasi.path_open("file", oflags=TRUNC, base=rights)
    assert (box / "file").read_text() == "text"


NAMES: dict[str, Callable[[Wasi], object]] = {
    "PATH_CREATE_DIRECTORY": lambda w: w.on_path("path_create_directory", "new"),
    "PATH_CREATE_FILE": lambda w: w.create("new"),
    "PATH_LINK_SOURCE": lambda w: w.link("file", "new"),
    "PATH_LINK_TARGET": lambda w: w.link("file", "new"),
    "PATH_OPEN": lambda w: w.path_open("file"),
    "FD_READDIR": lambda w: w.readdir(3),
    "PATH_READLINK": lambda w: w.readlink("link"),
    "PATH_RENAME_SOURCE": lambda w: w.rename("file", "new"),
    "PATH_RENAME_TARGET": lambda w: w.rename("file", "new"),
    "PATH_FILESTAT_GET": lambda w: w.stat("file"),
    "PATH_FILESTAT_SET_SIZE": lambda w: w.path_open("file", oflags=TRUNC),
    "PATH_FILESTAT_SET_TIMES": lambda w: w.set_times("file", flags=2),
    "FD_FILESTAT_GET": lambda w: w.filestat(3),
    "FD_FILESTAT_SET_TIMES": lambda w: w.call("fd_filestat_set_times", 3, 0, 0, 2),
    "PATH_SYMLINK": lambda w: w.symlink("file", "new"),
    "PATH_REMOVE_DIRECTORY": lambda w: w.on_path("path_remove_directory", "dir"),
    "PATH_UNLINK_FILE": lambda w: w.on_path("path_unlink_file", "file"),
}


def test_every_right_of_a_directory_has_its_operation(wasi: Wasi) -> None:
    """The table below leaves none out."""
    assert {right.name for right in wasi.fdstat(3).base} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_directorys_rights_are_enforced(wasi: Wasi, name: str) -> None:
    """Without its right, and with all others, an operation is NOTCAPABLE; with it, it works."""
    base, inheriting = wasi.fdstat(3)[2:]
    wasi.call("fd_fdstat_set_rights", 3, base & ~Right[name], inheriting)

    with pytest.raises(WasiError, match="NOTCAPABLE"):
        NAMES[name](wasi)


@pytest.mark.parametrize("name", NAMES)
def test_a_directorys_operations_work(wasi: Wasi, name: str) -> None:
    """The baseline of the test above."""
    NAMES[name](wasi)


# --- read-only ------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Wasi, int], object]] = {
    "create": lambda w, fd: w.path_open("new", fd=fd, oflags=CREAT),
    "create what is there": lambda w, fd: w.path_open("file", fd=fd, oflags=CREAT),
    "create new": lambda w, fd: w.path_open("new", fd=fd, oflags=CREAT | EXCL, base=WRITE),
    "write": lambda w, fd: w.path_open("file", fd=fd, base=READ | WRITE),
    "append": lambda w, fd: w.path_open("file", fd=fd, base=WRITE, fdflags=APPEND),
    "truncate": lambda w, fd: w.path_open("file", fd=fd, oflags=TRUNC, base=READ),
    "truncate for nothing": lambda w, fd: w.path_open("file", fd=fd, oflags=TRUNC, base=0),
    "mkdir": lambda w, fd: w.on_path("path_create_directory", "new", fd=fd),
    "rmdir": lambda w, fd: w.on_path("path_remove_directory", "dir", fd=fd),
    "unlink": lambda w, fd: w.on_path("path_unlink_file", "file", fd=fd),
    "rename": lambda w, fd: w.rename("file", "new", fds=(fd, fd)),
    "link": lambda w, fd: w.link("file", "new", fds=(fd, fd)),
    "symlink": lambda w, fd: w.symlink("file", "new", fd=fd),
    "times of the directory": lambda w, fd: w.call("fd_filestat_set_times", fd, 0, 0, 2),
    "times": lambda w, fd: w.call("path_filestat_set_times", fd, 0, *w.put_path("file"), 0, 0, 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_read_only_refuses_changes(wasi_read_only: Wasi, box: Path, change: str) -> None:
    """PERM, in the preopen and in what was opened beneath it."""
    reopened = wasi_read_only.path_open(".", oflags=DIRECTORY, base=ALL & ~WRITE, inheriting=ALL)
    before = {path.name: path.lstat() for path in box.iterdir()}

    for fd in (3, reopened):
        with pytest.raises(WasiError, match="PERM"):
            CHANGES[change](wasi_read_only, fd)

    assert before == {path.name: path.lstat() for path in box.iterdir()}


def test_read_only_files(wasi_read_only: Wasi) -> None:
    """Reading works, also for who asks for all that is not writing; changing does not."""
    fd = wasi_read_only.path_open("file", base=ALL & ~WRITE, inheriting=ALL)

    assert wasi_read_only.read(fd, 10) == b"text"
    for name, values in (
        ("fd_filestat_set_size", (0,)),
        ("fd_filestat_set_times", (0, 0, 2)),
        ("fd_allocate", (0, 1)),
    ):
        with pytest.raises(WasiError, match="PERM"):
            wasi_read_only.call(name, fd, *values)
    with pytest.raises(WasiError, match="BADF"):
        wasi_read_only.write(fd, b"x")


@pytest.mark.parametrize("fds", [(3, 4), (4, 3)])
def test_files_do_not_cross_permissions(start: Start, box: Path, fds: tuple[int, int]) -> None:
    """Neither a hard link nor a rename carries a file from read-only to writable, or back."""
    other = box.parent / "other"
    other.mkdir()
    (other / "file").write_text("other")
    wasi = start({"ro": str(box), "rw": (str(other), "rw")})

    with pytest.raises(WasiError, match="PERM"):
        wasi.link("file", "new", fds=fds)
    with pytest.raises(WasiError, match="PERM"):
        wasi.rename("file", "new", fds=fds)


def test_files_cross_equal_permissions(start: Start, box: Path) -> None:
    """From one writable directory to another both work."""
    (box.parent / "other").mkdir()
    wasi = start({"a": (str(box), "rw"), "b": (str(box.parent / "other"), "rw")})

    wasi.link("file", "linked", fds=(3, 4))
    wasi.rename("file", "renamed", fds=(3, 4))

    assert wasi.stat("linked", fd=4).ino == wasi.stat("renamed", fd=4).ino


# --- strict ---------------------------------------------------------------------------------------


def test_strict_grants_what_was_asked(strict: Wasi) -> None:
    """No right that was not asked for, except what the type cannot have."""
    fd = strict.path_open("file", base=READ | Right.FD_READDIR)

    assert strict.fdstat(fd).base == READ
    with pytest.raises(WasiError, match="NOTCAPABLE"):
        strict.filestat(fd)
    with pytest.raises(WasiError, match="NOTCAPABLE"):
        strict.seek(fd, 0)


def test_strict_refuses_more_than_is_inherited(strict: Wasi) -> None:
    """Rights only shrink on the way down."""
    directory = strict.path_open(
        "dir", oflags=DIRECTORY, base=Right.PATH_OPEN | Right.PATH_CREATE_FILE, inheriting=READ
    )

    strict.path_open("new", fd=directory, oflags=CREAT, base=READ)
    for base, inheriting in ((READ | WRITE, 0), (READ, Right.FD_SEEK), (2**40, 0)):
        with pytest.raises(WasiError, match="NOTCAPABLE"):
            strict.path_open("new", fd=directory, base=base, inheriting=inheriting)


def test_to_seek_is_to_tell(wasi: Wasi, strict: Wasi) -> None:
    """FD_SEEK includes FD_TELL, which is enough to ask where one is and no more."""
    for guest in (wasi, strict):
        fd = guest.path_open("file", base=READ | Right.FD_SEEK | Right.FD_TELL)
        guest.call("fd_fdstat_set_rights", fd, READ | Right.FD_SEEK, 0)
        assert guest.seek(fd, 3) == guest.tell(fd) == guest.seek(fd, 0, 1) == 3
    fd = strict.path_open("file", base=Right.FD_TELL)
    assert strict.tell(fd) == strict.seek(fd, 0, 1) == 0
    with pytest.raises(WasiError, match="NOTCAPABLE"):
        strict.seek(fd, 1, 1)


@pytest.mark.parametrize(
    ("flag", "right"),
    [(SYNC, Right.FD_SYNC), (RSYNC, Right.FD_SYNC), (DSYNC, Right.FD_DATASYNC)],
)
@pytest.mark.parametrize("mode", ["dropped", "strict"])
def test_synchronous_files_take_a_right(
    wasi: Wasi, strict: Wasi, mode: str, flag: int, right: Right
) -> None:
    """Who may not have the right beneath a directory may not open with the flag either."""
    guest = strict if mode == "strict" else wasi
    inheriting = (READ | Right.FD_SYNC | Right.FD_DATASYNC) & ~right
    if mode == "strict":
        directory = guest.path_open(
            "dir", oflags=DIRECTORY, base=PATHS, inheriting=inheriting | PATHS
        )
    else:
        directory = guest.path_open("dir", oflags=DIRECTORY)
        guest.call("fd_fdstat_set_rights", directory, PATHS, inheriting | PATHS)

    with pytest.raises(WasiError, match="NOTCAPABLE"):
        guest.path_open("new", fd=directory, oflags=CREAT, fdflags=flag)
    guest.path_open("new", fd=directory, oflags=CREAT)


def test_strict_or_not_a_read_only_directory_stays_so(start: Start, box: Path) -> None:
    """What the host did not grant cannot be had by asking for it."""
    guest = start({"/": (str(box), "ro")}, strict=True)

    with pytest.raises(WasiError, match="PERM"):
        guest.path_open("file", base=READ | WRITE)
    with pytest.raises(WasiError, match="NOTCAPABLE"):
        guest.path_open("file", base=READ | Right.FD_FILESTAT_SET_SIZE)
    assert guest.read(guest.path_open("file"), 10)


# --- the table ------------------------------------------------------------------------------------


def test_many_descriptors(wasi: Wasi) -> None:
    """The table grows, keeps what it knew, and ends where the core says."""
    fds: list[int] = []
    with pytest.raises(WasiError, match="MFILE") as caught:
        fds.extend(wasi.path_open("file", base=WRITE if i % 2 else READ) for i in range(10_000))

    assert caught.value.errno == 33
    assert len(fds) > 900
    for i, fd in enumerate(fds):
        assert bool(i % 2) == bool(wasi.fdstat(fd).base & WRITE)
        wasi.close(fd)
    assert wasi.fdstat(3).base & Right.PATH_OPEN
