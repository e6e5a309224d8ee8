"""A guest of the real shim tries every path that leads out of its directory, in every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.escape.wasi_guest import answer
from tests.wasi_shim.calls import CREAT, DIRECTORY, EXCL, READ, TRUNC, WRITE, Errno

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.escape.evil import World
    from tests.wasi_shim.calls import Wasi

    PathCall = Callable[[Wasi, str], object]

ATIM, MTIM = 1, 4

# What leads out before its last component, or is absolute.
LEAVING = [
    "../outside/secret",
    "../outside/new",
    "../outside/empty",
    "dir/../../outside/secret",
    "../box/file",
    "../boxes/file",
    "../../../../../../../../etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "/box/file",
    "outdir/secret",
    "outdir/new",
    "outdir/../box/file",
    "slash/secret",
    "dir/far/outside/secret",
    "magic/environ",
    "magic/root/etc/passwd",
]

# What is a way out itself, if it is followed.
LINKS = ["out", "outdir", "absolute", "dangling", "first", "slash", "dir/far", "magic", "stdin"]

FOLLOWING: dict[str, PathCall] = {
    "open": lambda wasi, path: wasi.read(wasi.path_open(path), 64),
    "open_to_write": lambda wasi, path: wasi.path_open(path, base=READ | WRITE),
    "open_directory": lambda wasi, path: wasi.path_open(path, oflags=DIRECTORY),
    "create": lambda wasi, path: wasi.path_open(path, oflags=CREAT, base=WRITE),
    "truncate": lambda wasi, path: wasi.path_open(path, oflags=TRUNC, base=READ),
    "create_and_truncate": lambda wasi, path: wasi.path_open(path, oflags=CREAT | TRUNC),
    "stat": lambda wasi, path: wasi.stat(path),
    "set_times": lambda wasi, path: wasi.set_times(path, mtim=5, atim=5, flags=ATIM | MTIM),
}

NOT_FOLLOWING: dict[str, PathCall] = {
    "open_link": lambda wasi, path: wasi.path_open(path, follow=False),
    "create_new": lambda wasi, path: wasi.path_open(path, oflags=CREAT | EXCL, base=WRITE),
    "stat_link": lambda wasi, path: wasi.stat(path, follow=False),
    "set_times_of_link": lambda wasi, path: wasi.set_times(path, mtim=5, flags=MTIM, follow=False),
    "create_directory": lambda wasi, path: wasi.on_path("path_create_directory", path),
    "remove_directory": lambda wasi, path: wasi.on_path("path_remove_directory", path),
    "unlink": lambda wasi, path: wasi.on_path("path_unlink_file", path),
    "rename_from": lambda wasi, path: wasi.rename(path, "stolen"),
    "rename_to": lambda wasi, path: wasi.rename("file", path),
    "link_from": lambda wasi, path: wasi.link(path, "stolen"),
    "link_to": lambda wasi, path: wasi.link("file", path),
    "symlink": lambda wasi, path: wasi.symlink("anything", path),
    "readlink": lambda wasi, path: wasi.readlink(path),
}


@pytest.mark.parametrize("path", LEAVING)
def test_path_that_leaves_is_refused(wasi: Wasi, world: World, path: str) -> None:
    """PERM in every call, whether or not something is there, and even where it comes back."""
    calls = FOLLOWING | NOT_FOLLOWING
    answers = {name: answer(call, wasi, path) for name, call in calls.items()}

    assert answers == dict.fromkeys(calls, Errno.PERM)
    assert not world.changed
    assert not world.box_changed


@pytest.mark.parametrize("path", [*LINKS, "outdir/", "slash/", "dir/far/", "outdir/.", "slash/./"])
def test_link_that_leaves_is_not_followed(wasi: Wasi, world: World, path: str) -> None:
    """Links, chains of links, targets that end in a slash, dangling ones, magic ones: PERM."""
    answers = {name: answer(call, wasi, path) for name, call in FOLLOWING.items()}

    for name, errno in answers.items():
        # Linux makes no file whose name ends in a slash, and does not look where a link leads then.
        slash = "create" in name and (path.endswith("/") or path == "slash")
        assert errno in ({Errno.PERM, Errno.ISDIR} if slash else {Errno.PERM}), name
    assert not world.changed
    assert not world.box_changed


@pytest.mark.parametrize("call", ["open_link", "open_directory_of_link", "stat_link"])
@pytest.mark.parametrize("path", ["outdir/", "slash/", "dir/far/", "outdir//", "slash/."])
def test_slash_does_not_make_it_followed(wasi: Wasi, world: World, path: str, call: str) -> None:
    """A slash after a link makes every Unix follow it in spite of O_NOFOLLOW: PERM here."""
    calls = NOT_FOLLOWING | {
        "open_directory_of_link": lambda wasi, path: wasi.path_open(
            path, oflags=DIRECTORY, follow=False
        )
    }
    assert answer(calls[call], wasi, path) is Errno.PERM
    assert not world.changed


@pytest.mark.parametrize("call", ["unlink", "rename_from", "remove_directory", "link_from"])
@pytest.mark.parametrize("path", ["outdir/", "slash/", "dir/far//"])
def test_slash_does_not_name_the_target(wasi: Wasi, world: World, path: str, call: str) -> None:
    """What would act on the directory behind the link acts on nothing at all."""
    assert answer(NOT_FOLLOWING[call], wasi, path) is Errno.NOTDIR
    assert not world.changed
    assert not world.box_changed


@pytest.mark.parametrize("path", LINKS)
def test_link_itself_can_be_looked_at(wasi: Wasi, world: World, path: str) -> None:
    """A link is text: it can be read, and without following it is what it is."""
    assert wasi.readlink(path)
    assert wasi.stat(path, follow=False).filetype == 7
    assert answer(wasi.path_open, path, follow=False) is Errno.LOOP
    assert not world.changed


def test_links_of_its_own_lead_nowhere(wasi: Wasi, world: World) -> None:
    """A guest may make relative links that lead out, and gets nowhere by them."""
    for name, target in (("up", ".."), ("far", "../../../.."), ("there", "../outside/secret")):
        wasi.symlink(target, name)
        for call in FOLLOWING.values():
            assert answer(call, wasi, name) is Errno.PERM
    for path in ("up/outside/secret", "far/etc/passwd", "dir/../up/outside/secret"):
        assert answer(wasi.path_open, path) is Errno.PERM
    assert not world.changed


@pytest.mark.parametrize("target", ["/", "/etc/passwd", "//", "/box/file"])
def test_absolute_links_are_not_made(wasi: Wasi, world: World, target: str) -> None:
    """They could only be meant for others to follow."""
    assert answer(wasi.symlink, target, "new") is Errno.PERM
    assert not world.box_changed


def test_hard_links_are_not_made_through_links(wasi: Wasi, world: World) -> None:
    """LOOKUP_SYMLINK_FOLLOW on a link out would make a name for the outside file."""
    old, new = wasi.put_path("out"), wasi.put_path("stolen", 65536)
    assert wasi.guest.call("path_link", 3, 1, *old, 3, *new) == Errno.INVAL
    wasi.link("out", "stolen")
    assert (world.box / "stolen").is_symlink()
    assert not world.changed


@pytest.mark.parametrize(
    ("path", "errno"),
    [
        (b"file\0", Errno.INVAL),
        (b"file\0/../../outside/secret", Errno.INVAL),
        (b"\0", Errno.INVAL),
        (b"", Errno.NOENT),
        (b"nosuch/../file", Errno.NOENT),
        (b"file/../file", Errno.NOTDIR),
        (b"file/", Errno.NOTDIR),
        (b"file/.", Errno.NOTDIR),
        (b"../" * 1300, Errno.PERM),
        (b"../" * 10_000, Errno.NAMETOOLONG),
        (b"a" * 32_768, Errno.NAMETOOLONG),
        (b"a" * 256, Errno.NAMETOOLONG),
        (b"dir/" * 8000, Errno.NAMETOOLONG),
    ],
    ids=lambda value: f"{value[:15]!r}_{len(value)}" if isinstance(value, bytes) else value.name,
)
@pytest.mark.parametrize("call", ["open", "stat", "unlink", "create_directory", "readlink"])
def test_path_that_is_none(wasi: Wasi, world: World, path: bytes, errno: Errno, call: str) -> None:
    """NULs, nothing, files as directories, endless paths: refused in bounded time."""
    made: Any = (FOLLOWING | NOT_FOLLOWING)[call]
    creates_name = call in ("create_directory", "unlink", "readlink")
    allowed = {errno}
    if creates_name and path in (b"file/", b"file/."):
        allowed |= {Errno.EXIST, Errno.INVAL}

    assert answer(made, wasi, path) in allowed
    assert not world.changed
    assert not world.box_changed


def test_loops_end(wasi: Wasi, world: World) -> None:
    """Two links that point to each other: LOOP, as on Linux."""
    wasi.symlink("two", "one")
    wasi.symlink("one", "two")
    for call in FOLLOWING.values():
        assert answer(call, wasi, "one") is Errno.LOOP
    assert answer(wasi.path_open, "one/file") is Errno.LOOP
    assert not world.changed


def test_directory_is_its_own_root(wasi: Wasi, world: World) -> None:
    """From a descriptor of a subdirectory not even the box can be reached."""
    fd = wasi.path_open("dir", oflags=DIRECTORY)
    for path in ("..", "../file", "far", "third", "../dir/far"):
        assert answer(wasi.path_open, path, fd=fd) is Errno.PERM
    assert not world.changed
