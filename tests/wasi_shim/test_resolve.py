"""Path resolution: what stays beneath the directory, and what is refused; in both ways to do it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import (
    CREAT,
    DIRECTORY,
    EXCL,
    READ,
    SYMBOLIC_LINK,
    TRUNC,
    WRITE,
    Wasi,
    WasiError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.wasi_shim.conftest import Start


@pytest.fixture
def box(box: Path) -> Path:
    """Fill the box with every kind of way out."""
    (box / "dir" / "sub").mkdir(parents=True)
    (box / "file").write_text("inside")
    (box / "dir" / "file").write_text("inside dir")
    outside = str(box.parent / "outside")
    for name, target in {
        "to_file": "file",
        "to_dir": "dir",
        "dir/up": "../file",
        "dir/sub/to_root": "../..",
        "out": "../outside",
        "out_file": "../outside/secret",
        "out_absolute": outside,
        "in_absolute": str(box / "file"),
        "out_dangling": "../outside/new",
        "out_chain": "out_file",
        "out_slash": "evil/",
        "evil": "../outside/",
        "dangling": "nothing",
        "loop": "loop",
        "ping": "pong",
        "pong": "ping",
        "proc": "/proc/self",
        "slash_file": "file/",
        "slash_dir": "dir/",
        "dot_dot": "..",
        "out_and_back": "../box/file",
    }.items():
        (box / name).symlink_to(target)
    return box


def unchanged(box: Path) -> bool:
    """Is the outside as it was?"""
    outside = box.parent / "outside"
    return os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "secret"


ESCAPES = [
    "..",
    "../outside/secret",
    "../outside/nothing",
    "dir/../../outside/secret",
    "dir/sub/../../../outside",
    "../box/file",
    "/file",
    "//file",
    "/",
    "out_file",
    "out/secret",
    "out/nothing",
    "out/",
    "out_absolute/secret",
    "in_absolute",
    "out_dangling",
    "out_chain",
    "out_slash/secret",
    "out_slash/",
    "evil/secret",
    "proc/environ",
    "proc/self/fd/0",
    "dot_dot",
    "dot_dot/outside/secret",
    "dir/sub/to_root/../outside",
    "out_and_back",
    "to_dir/../../outside",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_escapes_cannot_be_opened(wasi: Wasi, box: Path, path: str) -> None:
    """A path that leaves is PERM, whether or not something is there, and even if it comes back."""
    for options in (
        {},
        {"base": READ | WRITE},
        {"oflags": CREAT, "base": WRITE},
        {"oflags": CREAT | TRUNC, "base": WRITE},
        {"oflags": DIRECTORY},
    ):
        # Linux refuses to make `name/` before it looks where that is.
        early = path.endswith("/") and options.get("oflags", 0) & CREAT
        with pytest.raises(WasiError, match="PERM|ISDIR" if early else "PERM"):
            wasi.path_open(path, **options)

    assert unchanged(box)


@pytest.mark.parametrize("path", ESCAPES)
def test_escapes_cannot_be_looked_at_or_touched(wasi: Wasi, box: Path, path: str) -> None:
    """Metadata outside is neither read nor written."""
    before = os.stat(box.parent / "outside" / "secret")

    with pytest.raises(WasiError, match="PERM"):
        wasi.stat(path)
    with pytest.raises(WasiError, match="PERM"):
        wasi.set_times(path, mtim=1, flags=4)

    assert before == os.stat(box.parent / "outside" / "secret")


@pytest.mark.parametrize(
    "path",
    [
        "../new",
        "dir/../../new",
        "/new",
        "out/new",
        "out_absolute/new",
        "out_slash/new",
        "evil/new",
        "dot_dot/new",
        "../outside/secret",
        "out/secret",
        "dir/sub/to_root/../outside/secret",
    ],
)
def test_names_outside_cannot_be_changed(wasi: Wasi, box: Path, path: str) -> None:
    """No call that makes, moves or removes a name does so through a parent outside."""
    attempts: list[Callable[[], object]] = [
        lambda: wasi.on_path("path_create_directory", path),
        lambda: wasi.on_path("path_unlink_file", path),
        lambda: wasi.on_path("path_remove_directory", path),
        lambda: wasi.link("file", path),
        lambda: wasi.link(path, "new"),
        lambda: wasi.rename("file", path),
        lambda: wasi.rename(path, "new"),
        lambda: wasi.symlink("file", path),
        lambda: wasi.readlink(path),
    ]
    for attempt in attempts:
        with pytest.raises(WasiError, match="PERM"):
            attempt()

    assert unchanged(box)
    assert (box / "file").exists()
    assert not (box / "new").exists()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("file", b"inside"),
        ("./file", b"inside"),
        (".//file", b"inside"),
        ("dir/../file", b"inside"),
        ("dir/.//sub/.././file", b"inside dir"),
        ("to_file", b"inside"),
        ("to_dir/file", b"inside dir"),
        ("to_dir/../file", b"inside"),
        ("dir/up", b"inside"),
        ("dir/sub/to_root/file", b"inside"),
        ("dir/sub/to_root/dir/sub/to_root/to_file", b"inside"),
        ("slash_dir/file", b"inside dir"),
    ],
)
def test_paths_inside_are_followed(wasi: Wasi, path: str, content: bytes) -> None:
    """Dots and links that stay inside lead where they say."""
    assert content == wasi.read(wasi.path_open(path), 100)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nothing", "NOENT"),
        ("nothing/../file", "NOENT"),
        ("file/../file", "NOTDIR"),
        ("file/", "NOTDIR"),
        ("file///", "NOTDIR"),
        ("to_file/", "NOTDIR"),
        ("slash_file", "NOTDIR"),
        ("dangling", "NOENT"),
        ("loop", "LOOP"),
        ("ping/file", "LOOP"),
        ("", "NOENT"),
        ("file\0", "INVAL"),
        ("file\0/../../outside/secret", "INVAL"),
        ("x" * 256, "NAMETOOLONG"),
        ("x/" * 2048, "NAMETOOLONG"),
        ("y" * 70000, "NAMETOOLONG"),
    ],
)
def test_paths_that_lead_nowhere(wasi: Wasi, path: str, error: str) -> None:
    """The errno is Linux's own for the path."""
    with pytest.raises(WasiError, match=error):
        wasi.path_open(path)


def test_many_dots_are_bounded(wasi: Wasi) -> None:
    """The longest path of nothing but ways up is refused at the first."""
    with pytest.raises(WasiError, match="PERM"):
        wasi.path_open("../" * 1365)


@pytest.mark.parametrize("links", [40, 41])
def test_link_hops_are_counted(wasi: Wasi, box: Path, links: int) -> None:
    """Forty links are followed, as on Linux, and one more is a loop."""
    (box / "hop0").symlink_to("file")
    for i in range(1, links):
        (box / f"hop{i}").symlink_to(f"hop{i - 1}")

    if links == 40:
        assert wasi.stat("hop39").size == 6
    else:
        with pytest.raises(WasiError, match="LOOP"):
            wasi.stat("hop40")


@pytest.mark.parametrize("path", ["to_file", "out_file", "loop", "dangling", "proc"])
def test_no_follow_is_about_the_link(wasi: Wasi, box: Path, path: str) -> None:
    """Without following, the last component is the link itself, wherever it points."""
    assert wasi.stat(path, follow=False).filetype == SYMBOLIC_LINK
    wasi.set_times(path, mtim=5_000_000_001, flags=4, follow=False)
    assert os.lstat(box / path).st_mtime_ns == 5_000_000_001
    with pytest.raises(WasiError, match="LOOP"):
        wasi.path_open(path, follow=False)
    with pytest.raises(WasiError, match="NOTDIR"):
        wasi.path_open(path, follow=False, oflags=DIRECTORY)


def test_a_slash_follows_the_link_but_not_out(wasi: Wasi) -> None:
    """`link/` means the directory it leads to, even without following, and stays beneath."""
    assert wasi.stat("to_dir/", follow=False).ino == wasi.stat("dir").ino
    with pytest.raises(WasiError, match="PERM"):
        wasi.path_open("out/", follow=False)
    with pytest.raises(WasiError, match="PERM"):
        wasi.path_open("out_slash/", follow=False, oflags=DIRECTORY)


def test_creating_through_links(wasi: Wasi, box: Path) -> None:
    """A dangling link inside makes its target, unless the file must be new."""
    wasi.create("dangling")

    assert (box / "nothing").exists()
    with pytest.raises(WasiError, match="EXIST"):
        wasi.path_open("to_file", oflags=CREAT | EXCL, base=WRITE)
    with pytest.raises(WasiError, match="EXIST"):
        wasi.path_open("out_dangling", oflags=CREAT | EXCL, base=WRITE)
    assert unchanged(box)


def test_a_directory_is_its_own_root(wasi: Wasi) -> None:
    """From a subdirectory's descriptor nothing above it can be reached."""
    sub = wasi.path_open("dir", oflags=DIRECTORY)

    assert wasi.read(wasi.path_open("file", fd=sub), 100) == b"inside dir"
    for path in ("../file", "up", "sub/to_root/file", ".."):
        with pytest.raises(WasiError, match="PERM"):
            wasi.path_open(path, fd=sub)


def test_a_moved_directory_does_not_lead_out(wasi: Wasi, box: Path) -> None:
    """`..` in a directory that was moved out of the box leaves nothing open to walk to."""
    moved = wasi.path_open("dir", oflags=DIRECTORY)
    (box / "dir").rename(box.parent / "outside" / "dir")

    with pytest.raises(WasiError, match="PERM"):
        wasi.path_open("../secret", fd=moved)


def test_descriptors_on_the_way_are_closed(wasi: Wasi) -> None:
    """However a resolution ends, only what was asked for stays open."""
    first = wasi.path_open("file")
    wasi.close(first)
    for path in ("dir/sub/../sub/to_root/file", "dir/sub/nothing", "dir/sub/to_root/../x", "loop"):
        with contextlib.suppress(WasiError):
            wasi.close(wasi.path_open(path))
        with contextlib.suppress(WasiError):
            wasi.stat(path)

    assert first == wasi.path_open("file")


def test_deep_paths(wasi: Wasi, box: Path) -> None:
    """A hundred levels are as good as one."""
    deep = "/".join(["d"] * 100)
    (box / deep).mkdir(parents=True)
    (box / deep / "file").write_text("deep")

    assert wasi.read(wasi.path_open(f"{deep}/file"), 100) == b"deep"
    assert wasi.stat(deep + "/.." * 100).ino == wasi.stat(".").ino


def test_two_ways_agree(start: Start, box: Path) -> None:
    """The walk answers what openat2 answers, for every path over a small alphabet."""
    names = ["..", ".", "dir", "to_dir", "out", "dir/sub/to_root", "file", "slash_dir", ""]
    paths = [f"{a}/{b}/{c}" for a in names[:-1] for b in names for c in names]
    guests = [start({"/": (str(box), "rw")}, manual_walk=walk) for walk in (False, True)]

    for path in paths:
        for follow in (True, False):
            answers = []
            for guest in guests:
                try:
                    answers.append(str(guest.stat(path, follow=follow)))
                except WasiError as error:
                    answers.append(error.errno.name)
            assert answers[0] == answers[1], path


@pytest.mark.parametrize("path", ["file/", "dir/", "no/", "dir/no//", "to_dir/", "slash_dir"])
def test_no_file_is_made_with_a_slash(wasi: Wasi, path: str) -> None:
    """ISDIR whether or not anything is there, as on Linux."""
    with pytest.raises(WasiError, match="ISDIR"):
        wasi.create(path)
