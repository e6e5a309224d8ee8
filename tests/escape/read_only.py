"""Attacks on the read-only grant: every way to hold it, and every way to change something in it."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from tests.escape.attack import Breakage, Collection, answered, changed
from tests.escape.evil import BOX, DATA, IOVEC, SHELF
from tests.escape.paths import AT_EMPTY_PATH, RENAME_EXCHANGE, TIMES, ZERO

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.escape.attack import Run
    from tests.escape.evil import Evil

    Way = Callable[[Evil], int]
    Action = Callable[[Evil, int], int]

read_only = Collection()

# --- how to get a descriptor of a directory in it (with a `book`) ---------------------------------

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def _duplicated(evil: Evil) -> int:
    return evil.call("dup3", SHELF, 9, 0)


def _beneath(evil: Evil) -> int:
    return evil.call("openat", SHELF, b"dir", _FOLDER, 0)


def _beneath_as_path(evil: Evil) -> int:
    return evil.call("openat", SHELF, b"dir", os.O_PATH | os.O_DIRECTORY, 0)


def _beneath_by_openat2(evil: Evil) -> int:
    return evil.openat2(SHELF, b"dir", _FOLDER)


def _itself_again(evil: Evil) -> int:
    return evil.call("openat", SHELF, b".", _FOLDER, 0)


def _there_and_back(evil: Evil) -> int:
    while True:  # it errs where anybody renames a folder on this machine meanwhile (openat2(2))
        fd = evil.openat2(SHELF, b"dir/..", os.O_PATH | os.O_DIRECTORY)
        if fd != -errno.EAGAIN:
            return fd


def _beneath_and_duplicated(evil: Evil) -> int:
    return evil.call("dup3", _beneath(evil), 300, os.O_CLOEXEC)


WAYS: dict[str, Way] = {
    "preopen": lambda _: SHELF,
    "duplicated": _duplicated,
    "beneath": _beneath,
    "beneath_as_path": _beneath_as_path,
    "beneath_by_openat2": _beneath_by_openat2,
    "itself_again": _itself_again,
    "there_and_back": _there_and_back,
    "beneath_and_duplicated": _beneath_and_duplicated,
}

# --- what to do with it ---------------------------------------------------------------------------

_TMPFILE = 0o20200000

OPENS: dict[str, tuple[bytes, int]] = {
    "write": (b"book", os.O_WRONLY),
    "read_and_write": (b"book", os.O_RDWR),
    "append": (b"book", os.O_WRONLY | os.O_APPEND),
    "truncate": (b"book", os.O_RDONLY | os.O_TRUNC),
    "truncate_and_write": (b"book", os.O_WRONLY | os.O_TRUNC),
    "create": (b"new", os.O_RDONLY | os.O_CREAT),
    "create_new": (b"new", os.O_RDONLY | os.O_CREAT | os.O_EXCL),
}


def _opens(name: bytes, flags: int) -> Action:
    return lambda evil, folder: evil.scribble(evil.call("openat", folder, name, flags, 0o600))


def _opens_by_openat2(name: bytes, flags: int) -> Action:
    mode = 0o600 if flags & os.O_CREAT else 0
    return lambda evil, folder: evil.scribble(evil.openat2(folder, name, flags, mode=mode))


def _times_itself(evil: Evil, folder: int) -> int:
    return evil.call("utimensat", folder, b"", TIMES, AT_EMPTY_PATH)


def _writes_vector(name: str, *rest: int) -> Action:
    def run(evil: Evil, folder: int) -> int:
        evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 4))
        return evil.on_guest(name, evil.best(folder, b"book"), IOVEC, 1, *rest)

    return run


def _of_file(name: str, *rest: int | bytes) -> Action:
    return lambda evil, folder: evil.call(name, evil.best(folder, b"book"), *rest)


def _of_copy(evil: Evil, folder: int) -> int:
    return evil.call("ftruncate", evil.call("dup3", evil.best(folder, b"book"), 40, 0), 0)


ACTIONS: dict[str, Action] = {
    **{f"openat_{name}": _opens(*what) for name, what in OPENS.items()},
    **{f"openat2_{name}": _opens_by_openat2(*what) for name, what in OPENS.items()},
    "mkdirat": lambda evil, fd: evil.call("mkdirat", fd, b"new", 0o700),
    "unlinkat": lambda evil, fd: evil.call("unlinkat", fd, b"book", 0),
    "rename_within": lambda evil, fd: evil.call("renameat2", fd, b"book", fd, b"new", 0),
    "rename_out": lambda evil, fd: evil.call("renameat2", fd, b"book", BOX, b"stolen", 0),
    "rename_in": lambda evil, fd: evil.call("renameat2", BOX, b"file", fd, b"new", 0),
    "rename_over": lambda evil, fd: evil.call("renameat2", BOX, b"file", fd, b"book", 0),
    "rename_exchange": lambda evil, fd: evil.call(
        "renameat2", BOX, b"file", fd, b"book", RENAME_EXCHANGE
    ),
    "link_out": lambda evil, fd: evil.call("linkat", fd, b"book", BOX, b"stolen", 0),
    "link_in": lambda evil, fd: evil.call("linkat", BOX, b"file", fd, b"new", 0),
    "symlinkat": lambda evil, fd: evil.call("symlinkat", b"anything", fd, b"new"),
    "utimensat": lambda evil, fd: evil.call("utimensat", fd, b"book", TIMES, 0),
    "utimensat_itself": _times_itself,
    "utimensat_of_file": _of_file("utimensat", 0, TIMES, 0),
    "utimensat_of_file_by_empty_path": _of_file("utimensat", b"", TIMES, AT_EMPTY_PATH),
    "ftruncate": _of_file("ftruncate", 0),
    "ftruncate_longer": _of_file("ftruncate", 1 << 20),
    "ftruncate_of_a_copy": _of_copy,
    "fallocate": _of_file("fallocate", 0, 0, 1 << 16),
    "fallocate_punch_hole": _of_file("fallocate", 3, 0, 4),
}

# These the kernel refuses, since the file could only be opened for reading.
WRITES: dict[str, Action] = {
    "writev": _writes_vector("writev"),
    "pwritev": _writes_vector("pwritev", 0),
    "pwritev2": _writes_vector("pwritev2", 0, 0),
    "pwritev2_append": _writes_vector("pwritev2", -1, 0x10),
}


def _by_way(way: Way, action: Action) -> Run:
    return lambda evil: action(evil, way(evil))


for _way_name, _way in WAYS.items():
    for _name, _action in ACTIONS.items():
        read_only.add(f"{_name}_{_way_name}", _by_way(_way, _action), errno.EROFS, changed)
    for _name, _action in WRITES.items():
        read_only.add(f"{_name}_{_way_name}", _by_way(_way, _action), errno.EBADF, changed)


# --- one of a kind --------------------------------------------------------------------------------


@read_only.attack(errno.EROFS, answered)
def open_with_access_mode_3(evil: Evil) -> int:
    """Linux' fourth access mode, for ioctl: neither read nor write, but asks for both."""
    return evil.call("openat", SHELF, b"book", 3, 0)


def _asked_for(evil: Evil) -> bool:
    return evil.answer >= 0 or evil.answer == -errno.EOPNOTSUPP  # not every file system has it


@read_only.attack(errno.EROFS, _asked_for)
def open_temporary(evil: Evil) -> int:
    """O_TMPFILE makes a file that has no name yet."""
    return evil.call("openat", SHELF, b".", _TMPFILE | os.O_RDWR, 0o600)


@read_only.attack(errno.EROFS, _asked_for)
def open_temporary_by_openat2(evil: Evil) -> int:
    """The same by openat2."""
    return evil.openat2(SHELF, b".", _TMPFILE | os.O_RDWR, mode=0o600)


@read_only.attack(errno.EROFS, answered)
def open_temporary_for_reading(evil: Evil) -> int:
    """Without write access the kernel says EINVAL, but it must not be asked."""
    evil.call("openat", SHELF, b".", _TMPFILE, 0o600)
    return evil.call("openat", SHELF, b"dir", os.O_RDWR | os.O_PATH, 0)


@read_only.attack(errno.EROFS, changed)
def utimensat_without_a_path(evil: Evil) -> int:
    """A path of NULL means the descriptor itself."""
    return evil.call("utimensat", SHELF, 0, TIMES, 0)


@read_only.attack(errno.EROFS, changed, falls_with=Breakage.LISTS, stopped_by=ZERO, needs_root=True)
def linkat_empty_path_out(evil: Evil) -> int:
    """AT_EMPTY_PATH would give the book a name in the box, and there it could be written."""
    fd = evil.call("openat", SHELF, b"book", os.O_RDONLY, 0)
    return evil.call("linkat", fd, b"", BOX, b"stolen", AT_EMPTY_PATH)


@read_only.attack(errno.EROFS, changed)
def unlinkat_directory(evil: Evil) -> int:
    """A directory of it is removed, once it is empty."""
    evil.call("unlinkat", _beneath(evil), b"book", 0)
    return evil.call("unlinkat", SHELF, b"dir", 0x200)


@read_only.attack(errno.EBADF, changed)
def status_flags_do_not_make_it_writable(evil: Evil) -> int:
    """F_SETFL with an access mode changes nothing."""
    fd = evil.best(SHELF, b"book")
    assert evil.call("fcntl", fd, 4, os.O_RDWR) == 0
    return _writes_vector("pwritev", 0)(evil, SHELF) if fd < 0 else _rewrites(evil, fd)


def _rewrites(evil: Evil, fd: int) -> int:
    evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 4))
    return evil.on_guest("pwritev", fd, IOVEC, 1, 0)
