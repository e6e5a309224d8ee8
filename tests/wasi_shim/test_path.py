"""Operations on names."""

from __future__ import annotations

import functools
import os
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.wasi_shim.calls import (
    BEYOND,
    CREAT,
    DIRECTORY,
    EXCL,
    READ,
    REGULAR_FILE,
    TRUNC,
    UNKNOWN,
    WRITE,
    Wasi,
    WasiError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.wasi_shim.conftest import Start

DOTS = (".", "..", "dir/.", "dir/sub/..", "./", "dir/./")


@pytest.fixture
def box(box: Path) -> Path:
    """Fill the box."""
    (box / "dir" / "sub").mkdir(parents=True)
    (box / "file").write_text("text")
    (box / "link").symlink_to("file")
    return box


def outcome(attempt: Callable[[], object]) -> str:
    """Name the errno that a call answers."""
    try:
        attempt()
    except WasiError as error:
        return error.errno.name
    return "SUCCESS"


# --- open -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "errno"),
    [
        ({"oflags": EXCL | CREAT}, "EXIST"),
        ({"oflags": DIRECTORY}, "NOTDIR"),
        ({"oflags": CREAT | DIRECTORY}, "INVAL"),
        ({"oflags": EXCL | DIRECTORY}, "INVAL"),
        ({"oflags": TRUNC | DIRECTORY}, "INVAL"),
        ({"oflags": 16}, "INVAL"),
        ({"fdflags": 32}, "INVAL"),
        ({"follow": 2}, "INVAL"),
        ({"fd": 77}, "BADF"),
    ],
)
def test_opens_that_are_refused(wasi: Wasi, options: dict[str, Any], errno: str) -> None:
    """What an open may not ask for has its errno."""
    with pytest.raises(WasiError, match=errno):
        wasi.path_open("file", **options)


def test_open_gives_the_lowest_number(wasi: Wasi) -> None:
    """Numbers of closed descriptors are used again."""
    first, second = wasi.path_open("file"), wasi.path_open("file")
    wasi.close(first)

    assert first == wasi.path_open("file")
    assert second != first


def test_a_result_pointer_outside_opens_nothing(wasi: Wasi, box: Path) -> None:
    """The fault comes before the side effect."""
    where = wasi.put_path("new")
    with pytest.raises(WasiError, match="FAULT"):
        wasi.call("path_open", 3, 0, *where, CREAT, WRITE, 0, 0, BEYOND)

    assert not (box / "new").exists()


@pytest.mark.parametrize("where", [(BEYOND, 8), (0xFFFFFFF0, 8), (0xFFFFFFF0, 0x20)])
def test_a_path_outside_memory_is_a_fault(wasi: Wasi, where: tuple[int, int]) -> None:
    """Paths are bounded by the memory, also where the sum wraps."""
    with pytest.raises(WasiError, match="FAULT"):
        wasi.call("path_unlink_file", 3, *where)


def test_opening_truncates(wasi: Wasi, box: Path) -> None:
    """O_TRUNC empties the file; writing alone does not."""
    wasi.path_open("file", base=WRITE)
    assert (box / "file").read_text() == "text"

    wasi.path_open("file", base=WRITE, oflags=TRUNC)
    assert (box / "file").read_text() == ""


def test_writing_to_a_directory_is_refused(wasi: Wasi) -> None:
    """A directory cannot be opened for writing, said or unsaid that it is one."""
    for oflags in (0, DIRECTORY):
        with pytest.raises(WasiError, match="ISDIR"):
            wasi.path_open("dir", base=READ | WRITE, oflags=oflags)


def test_a_fifo_does_not_hang_the_open(wasi: Wasi, box: Path) -> None:
    """Nobody at the other end: reading opens at once, writing says so."""
    os.mkfifo(box / "fifo")
    signal.alarm(20)

    fifo = wasi.path_open("fifo")
    assert wasi.fdstat(fifo).filetype == UNKNOWN
    wasi.close(fifo)
    with pytest.raises(WasiError, match="NXIO"):
        wasi.path_open("fifo", base=WRITE)
    signal.alarm(0)


def test_opening_beneath_a_file(wasi: Wasi) -> None:
    """A descriptor that is no directory is NOTDIR before anything else."""
    file = wasi.path_open("file")

    for path in ("x", "..", "/"):
        with pytest.raises(WasiError, match="NOTDIR"):
            wasi.path_open(path, fd=file)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "path", "errno"),
    [
        ("path_create_directory", "new", "SUCCESS"),
        ("path_create_directory", "new/", "SUCCESS"),
        ("path_create_directory", "dir/sub/../new///", "SUCCESS"),
        ("path_create_directory", "file", "EXIST"),
        ("path_create_directory", "link", "EXIST"),
        ("path_create_directory", "dir/", "EXIST"),
        ("path_create_directory", "no/new", "NOENT"),
        ("path_create_directory", "file/new", "NOTDIR"),
        ("path_create_directory", "", "NOENT"),
        ("path_remove_directory", "dir/sub", "SUCCESS"),
        ("path_remove_directory", "dir/sub/", "SUCCESS"),
        ("path_remove_directory", "dir", "NOTEMPTY"),
        ("path_remove_directory", "file", "NOTDIR"),
        ("path_remove_directory", "file/", "NOTDIR"),
        ("path_remove_directory", "link", "NOTDIR"),
        ("path_remove_directory", "new", "NOENT"),
        ("path_unlink_file", "file", "SUCCESS"),
        ("path_unlink_file", "link", "SUCCESS"),
        ("path_unlink_file", "dir/../file", "SUCCESS"),
        ("path_unlink_file", "file/", "NOTDIR"),
        ("path_unlink_file", "dir", "ISDIR"),
        ("path_unlink_file", "dir/", "ISDIR"),
        ("path_unlink_file", "new", "NOENT"),
        ("path_unlink_file", "new/", "NOENT"),
    ],
)
def test_making_and_removing_names(wasi: Wasi, call: str, path: str, errno: str) -> None:
    """Slashes at the end ask for a directory, and links are not followed."""
    assert outcome(lambda: wasi.on_path(call, path)) == errno


def test_unlinking_a_link_leaves_its_target(wasi: Wasi, box: Path) -> None:
    """The name goes, not the file."""
    wasi.on_path("path_unlink_file", "link")

    assert not (box / "link").is_symlink()
    assert (box / "file").exists()


@pytest.mark.parametrize("path", DOTS)
def test_dots_are_no_names(wasi: Wasi, box: Path, path: str) -> None:
    """What ends in a dot names a directory that is there, and its name cannot be touched."""
    inside = path != ".."
    expected = {
        "path_create_directory": "EXIST",
        "path_remove_directory": "INVAL",
        "path_unlink_file": "ISDIR",
    }
    for call, errno in expected.items():
        attempt = functools.partial(wasi.on_path, call, path)
        assert outcome(attempt) == (errno if inside else "PERM")
    others: dict[str, Callable[[], object]] = {
        "rename BUSY": lambda: wasi.rename(path, "new"),
        "rename onto BUSY": lambda: wasi.rename("dir", path),
        "link onto EXIST": lambda: wasi.link("file", path),
        "link PERM": lambda: wasi.link(path, "new"),
        "symlink EXIST": lambda: wasi.symlink("file", path),
        "readlink INVAL": lambda: wasi.readlink(path),
    }
    for name, other in others.items():
        assert outcome(other) == (name.split()[-1] if inside else "PERM"), name
    assert {"dir", "file", "link"} == set(os.listdir(box))


# --- rename and links -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "errno"),
    [
        ("file", "new", "SUCCESS"),
        ("file", "dir/new", "SUCCESS"),
        ("link", "new", "SUCCESS"),
        ("dir", "new", "SUCCESS"),
        ("dir/", "new", "SUCCESS"),
        ("dir", "new/", "SUCCESS"),
        ("dir/", "new/", "SUCCESS"),
        ("file", "link", "SUCCESS"),
        ("file/", "new", "NOTDIR"),
        ("file", "new/", "NOTDIR"),
        ("link/", "new", "NOTDIR"),
        ("file", "dir", "ISDIR"),
        ("dir", "file", "NOTDIR"),
        ("dir", "dir/sub/x", "INVAL"),
        ("no", "new", "NOENT"),
        ("no/", "new", "NOENT"),
        ("dir/sub", "no/new", "NOENT"),
    ],
)
def test_renames(wasi: Wasi, old: str, new: str, errno: str) -> None:
    """Both names may end in a slash if it is a directory that moves."""
    assert outcome(lambda: wasi.rename(old, new)) == errno


def test_rename_onto_directories(wasi: Wasi, box: Path) -> None:
    """An empty directory is replaced, a full one is not."""
    (box / "empty").mkdir()
    (box / "full" / "x").mkdir(parents=True)

    assert outcome(lambda: wasi.rename("dir", "full")) == "NOTEMPTY"
    assert outcome(lambda: wasi.rename("dir", "empty")) == "SUCCESS"
    assert (box / "empty" / "sub").is_dir()


@pytest.mark.parametrize(
    ("old", "new", "errno"),
    [
        ("file", "new", "SUCCESS"),
        ("file", "dir/new", "SUCCESS"),
        ("link", "new", "SUCCESS"),
        ("file", "file", "EXIST"),
        ("file", "link", "EXIST"),
        ("file", "dir", "EXIST"),
        ("file", "dir/", "EXIST"),
        ("file", "new/", "NOENT"),
        ("file/", "new", "NOTDIR"),
        ("dir", "new", "PERM"),
        ("dir/", "new", "PERM"),
        ("no", "new", "NOENT"),
        ("no", "dir/", "NOENT"),
        ("no", "file/", "NOTDIR"),
        ("no", ".", "NOENT"),
        (".", "new", "PERM"),
        (".", "file", "EXIST"),
        ("dir/", "file", "EXIST"),
        (".", "x" * 256, "NAMETOOLONG"),
        ("file/", "../new", "NOTDIR"),
    ],
)
def test_hard_links(wasi: Wasi, old: str, new: str, errno: str) -> None:
    """Links to directories and onto names that are there are refused."""
    assert outcome(lambda: wasi.link(old, new)) == errno


def test_a_directory_is_not_linked_into_one_that_is_gone(wasi: Wasi, box: Path) -> None:
    """What is missing comes first."""
    fd = wasi.path_open("dir/sub", oflags=DIRECTORY)
    (box / "dir" / "sub").rmdir()

    assert outcome(lambda: wasi.link("dir/", "new", fds=(3, fd))) == "NOENT"


def test_a_hard_link_of_a_link_is_the_link(wasi: Wasi, box: Path) -> None:
    """The old name is never followed, and asking for it is INVAL."""
    wasi.link("link", "new")
    source, target = wasi.put_path("link"), wasi.put_path("other", 4096)
    with pytest.raises(WasiError, match="INVAL"):
        wasi.call("path_link", 3, 1, *source, 3, *target)

    assert os.readlink(box / "new") == "file"


@pytest.mark.parametrize(
    ("target", "path", "errno"),
    [
        ("anything/../..", "new", "SUCCESS"),
        ("../../outside", "dir/new", "SUCCESS"),
        ("/etc/passwd", "new", "PERM"),
        ("/", "new", "PERM"),
        ("", "new", "NOENT"),
        ("a\0b", "new", "INVAL"),
        ("x" * 4096, "new", "NAMETOOLONG"),
        ("x", "file", "EXIST"),
        ("x", "link", "EXIST"),
        ("x", "dir/", "EXIST"),
        ("x", "file/", "NOTDIR"),
        ("x", "new/", "NOENT"),
    ],
)
def test_symbolic_links(wasi: Wasi, target: str, path: str, errno: str) -> None:
    """The target is text, but may not be absolute."""
    assert outcome(lambda: wasi.symlink(target, path)) == errno


@pytest.mark.parametrize("path", ["way/", "dir/back//"])
def test_a_slash_follows_links(wasi: Wasi, box: Path, path: str) -> None:
    """What is there is the directory behind the link: no text to read, no name to make."""
    (box / "way").symlink_to("dir")
    (box / "dir" / "back").symlink_to("../dir/sub")

    assert outcome(lambda: wasi.readlink(path)) == "INVAL"
    assert outcome(lambda: wasi.symlink("x", path)) == "EXIST"
    assert outcome(lambda: wasi.link("file", path)) == "EXIST"


def test_a_slash_does_not_follow_links_out(wasi: Wasi, box: Path) -> None:
    """A link that leaves is refused, not looked behind."""
    (box / "out").symlink_to("../outside")

    assert outcome(lambda: wasi.readlink("out/")) == "PERM"
    assert outcome(lambda: wasi.symlink("x", "out/")) == "PERM"


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 4096, 10000])
def test_reading_a_link_truncates(wasi: Wasi, size: int) -> None:
    """A short buffer gets the front, and nothing behind it is touched."""
    wasi.memory.write(135168, b"#" * 20)

    assert b"file"[:size] == wasi.readlink("link", size)
    assert wasi.memory.read(135168, 20) == b"file"[:size].ljust(20, b"#")


@pytest.mark.parametrize(
    ("path", "errno"), [("file", "INVAL"), ("dir/", "INVAL"), ("file/", "NOTDIR"), ("no", "NOENT")]
)
def test_reading_what_is_no_link(wasi: Wasi, path: str, errno: str) -> None:
    """Only links have a text."""
    assert outcome(lambda: wasi.readlink(path)) == errno


# --- filestat -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["file", "link", "dir/../file", "./link"])
def test_stat_is_the_kernels(wasi: Wasi, box: Path, path: str) -> None:
    """Every field, times to the nanosecond."""
    os.utime(box / "file", ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    expected = os.stat(box / "file")

    assert wasi.stat(path) == (
        expected.st_dev,
        expected.st_ino,
        REGULAR_FILE,
        1,
        4,
        1_600_000_000_123_456_789,
        1_500_000_000_987_654_321,
        expected.st_ctime_ns,
    )


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, 0), (-(2**40), 0), (20_000_000_000, 2**64 - 1)]
)
def test_times_that_do_not_fit(start: Start, seconds: int, shown: int) -> None:
    """Before 1970 and far in the future is the nearest time that can be said."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as box:  # tmpfs keeps any time
        (Path(box) / "file").touch()
        os.utime(Path(box) / "file", (seconds, seconds))

        assert start({"/": box}).stat("file").mtim == shown


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("path", ["link", "dir/../link"])
def test_setting_times(wasi: Wasi, box: Path, path: str, follow: bool) -> None:  # noqa: FBT001
    """Only the named times of the named file change."""
    os.utime(box / "file", ns=(1, 2))
    os.utime(box / "link", ns=(3, 4), follow_symlinks=False)

    wasi.set_times(path, atim=111, mtim=2**62 + 1, flags=4, follow=follow)

    changed, other = (box / "file", box / "link") if follow else (box / "link", box / "file")
    assert os.lstat(changed).st_mtime_ns == 2**62 + 1
    assert os.lstat(changed).st_atime_ns == (1 if follow else 3)
    assert os.lstat(other).st_mtime_ns == (4 if follow else 2)


@pytest.mark.parametrize("flags", [3, 12, 15, 16])
def test_contradicting_times_change_nothing(wasi: Wasi, box: Path, flags: int) -> None:
    """A time given and now is INVAL, and so is a flag that does not exist."""
    before = os.stat(box / "file")

    assert outcome(lambda: wasi.set_times("file", flags=flags)) == "INVAL"
    assert before == os.stat(box / "file")


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    ("path", "errno"), [("link", "SUCCESS"), ("no", "NOENT"), ("./no", "NOENT"), ("no/no", "NOENT")]
)
def test_setting_no_time_needs_a_file(wasi: Wasi, path: str, errno: str, *, follow: bool) -> None:
    """Linux does not look at the path then, but only where it is a single component."""
    assert outcome(lambda: wasi.set_times(path, flags=0, follow=follow)) == errno


@pytest.mark.parametrize("call", ["link", "rename"])
def test_descriptors_come_before_names(wasi: Wasi, call: str) -> None:
    """Whatever the first path leads to, a second descriptor that is not open is BADF."""
    for path in ("no/no", "", "/", "file"):
        attempt = partial(getattr(wasi, call), path, "new", fds=(3, 77))
        assert outcome(attempt) == "BADF"
