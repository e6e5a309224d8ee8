"""Attacks by name: paths that lead out of the box."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from tests.escape.attack import Breakage, Collection, answered, changed, read, seen
from tests.escape.evil import BOX, STAT, Out

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.escape.attack import Gain, Run
    from tests.escape.evil import Evil

    PathCall = Callable[[Evil, bytes], int]

paths = Collection()

AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, AT_REMOVEDIR = 0x400, 0x1000, 0x200
RENAME_EXCHANGE = 2
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x01, 0x02, 0x04
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x08, 0x10
TIMES = struct.pack("<4q", 5, 0, 5, 0)

KERNEL = "the kernel, which keeps openat2 beneath"

# --- calls that take one component: each with every kind of path that leads out -------------------


def _opens(evil: Evil, path: bytes) -> int:
    return evil.take(evil.call("openat", BOX, path, os.O_RDONLY, 0))


def _stats(evil: Evil, path: bytes) -> int:
    return evil.call("newfstatat", BOX, path, Out(STAT), 0)


def _reads_link(evil: Evil, path: bytes) -> int:
    return evil.call("readlinkat", BOX, path, Out(128), 128)


def _sets_times(evil: Evil, path: bytes) -> int:
    return evil.call("utimensat", BOX, path, TIMES, 0)


def _makes_directory(evil: Evil, path: bytes) -> int:
    return evil.call("mkdirat", BOX, path, 0o700)


def _unlinks(evil: Evil, path: bytes) -> int:
    return evil.call("unlinkat", BOX, path, 0)


def _removes_directory(evil: Evil, path: bytes) -> int:
    return evil.call("unlinkat", BOX, path, AT_REMOVEDIR)


def _renames_from(evil: Evil, path: bytes) -> int:
    return evil.call("renameat2", BOX, path, BOX, b"stolen", 0)


def _renames_to(evil: Evil, path: bytes) -> int:
    return evil.call("renameat2", BOX, b"file", BOX, path, 0)


def _exchanges(evil: Evil, path: bytes) -> int:
    return evil.call("renameat2", BOX, b"file", BOX, path, RENAME_EXCHANGE)


def _links_from(evil: Evil, path: bytes) -> int:
    return evil.call("linkat", BOX, path, BOX, b"stolen", 0)


def _links_to(evil: Evil, path: bytes) -> int:
    return evil.call("linkat", BOX, b"file", BOX, path, 0)


def _plants_link(evil: Evil, path: bytes) -> int:
    return evil.call("symlinkat", b"anything", BOX, path)


PATH_CALLS: dict[str, tuple[PathCall, bytes, Gain]] = {
    "openat": (_opens, b"secret", read),
    "newfstatat": (_stats, b"secret", seen),
    "readlinkat": (_reads_link, b"pointer", read),
    "utimensat": (_sets_times, b"secret", changed),
    "mkdirat": (_makes_directory, b"new", changed),
    "unlinkat": (_unlinks, b"secret", changed),
    "unlinkat_directory": (_removes_directory, b"empty", changed),
    "renameat2_from": (_renames_from, b"secret", changed),
    "renameat2_to": (_renames_to, b"new", changed),
    "renameat2_exchange": (_exchanges, b"secret", changed),
    "linkat_from": (_links_from, b"secret", changed),
    "linkat_to": (_links_to, b"new", changed),
    "symlinkat": (_plants_link, b"new", changed),
}

FORMS: dict[str, Callable[[Evil, bytes], bytes]] = {
    "up": lambda _, name: b"../outside/" + name,
    "down_and_up": lambda _, name: b"dir/../../outside/" + name,
    "absolute": lambda evil, name: os.fsencode(evil.world.outside) + b"/" + name,
    "through_a_link": lambda _, name: b"outdir/" + name,
}


def _by_form(call: PathCall, form: Callable[[Evil, bytes], bytes], name: bytes) -> Run:
    return lambda evil: call(evil, form(evil, name))


for _call_name, (_call, _name, _gain) in PATH_CALLS.items():
    for _form_name, _form in FORMS.items():
        paths.add(f"{_call_name}_{_form_name}", _by_form(_call, _form, _name), errno.EPERM, _gain)


@paths.attack(errno.EPERM, seen)
def openat_parent(evil: Evil) -> int:
    """`..` alone has no slash, and leads out as well."""
    fd = evil.call("openat", BOX, b"..", os.O_RDONLY | os.O_DIRECTORY, 0)
    if fd >= 0:
        evil.call("fstat", fd, Out(STAT))
    return fd


@paths.attack(errno.EPERM, seen)
def newfstatat_parent(evil: Evil) -> int:
    """The metadata of the box's parent."""
    return _stats(evil, b"..")


@paths.attack(errno.EPERM, changed)
def utimensat_parent(evil: Evil) -> int:
    """The times of the box's parent."""
    return _sets_times(evil, b"..")


@paths.attack(errno.EPERM, seen)
def openat_link_and_slash(evil: Evil) -> int:
    """A slash at the end makes every Unix follow a link in spite of O_NOFOLLOW."""
    fd = evil.call("openat", BOX, b"outdir/", os.O_RDONLY, 0)
    if fd >= 0:
        evil.call("fstat", fd, Out(STAT))
    return fd


# --- links at the end of a path -------------------------------------------------------------------

FORCED = "body_openat, which forces O_NOFOLLOW"


@paths.attack(0, seen)
def newfstatat_of_link(evil: Evil) -> int:
    """Without AT_SYMLINK_NOFOLLOW: it must be the link's own metadata that comes."""
    return _stats(evil, b"out")


@paths.attack(0, seen)
def newfstatat_of_link_with_other_flags(evil: Evil) -> int:
    """Other flags (AT_NO_AUTOMOUNT) do not make it follow either."""
    return evil.call("newfstatat", BOX, b"outdir", Out(STAT), 0x800)


@paths.attack(0, changed)
def utimensat_of_link(evil: Evil) -> int:
    """It must be the link's own times that change."""
    return _sets_times(evil, b"out")


@paths.attack(errno.ELOOP, read, falls_with=Breakage.LISTS, stopped_by=FORCED)
def openat_link(evil: Evil) -> int:
    """A link to a file outside."""
    return _opens(evil, b"out")


@paths.attack(errno.ELOOP, read, falls_with=Breakage.LISTS, stopped_by=FORCED)
def openat_absolute_link(evil: Evil) -> int:
    """A link with an absolute target."""
    return _opens(evil, b"absolute")


@paths.attack(errno.ENOTDIR, read, falls_with=Breakage.LISTS, stopped_by=FORCED)
def openat_link_to_directory(evil: Evil) -> int:
    """A link to a directory outside, from where all names are single components."""
    fd = evil.call("openat", BOX, b"outdir", os.O_RDONLY | os.O_DIRECTORY, 0)
    if fd >= 0:
        evil.take(evil.call("openat", fd, b"secret", os.O_RDONLY, 0))
    return fd


@paths.attack(errno.ELOOP, changed, falls_with=Breakage.LISTS, stopped_by=FORCED)
def openat_create_through_link(evil: Evil) -> int:
    """A link to a name outside that does not exist yet."""
    return evil.call("openat", BOX, b"dangling", os.O_CREAT | os.O_WRONLY, 0o600)


@paths.attack(errno.ELOOP, changed, falls_with=Breakage.LISTS, stopped_by=FORCED)
def openat_truncate_through_link(evil: Evil) -> int:
    """O_TRUNC needs no more than the open."""
    return evil.call("openat", BOX, b"out", os.O_TRUNC | os.O_RDONLY, 0)


@paths.attack(errno.ENOTDIR, read, stopped_by="the kernel: a link is no directory")
def link_opened_as_directory(evil: Evil) -> int:
    """O_PATH | O_NOFOLLOW opens the link itself; beneath it there is nothing."""
    fd = evil.call("openat", BOX, b"outdir", os.O_PATH | os.O_NOFOLLOW, 0)
    return evil.take(evil.openat2(fd, b"secret"))


# --- hard and symbolic links ----------------------------------------------------------------------

ZERO = "the table: a shim may give linkat no flags"


@paths.attack(errno.EPERM, changed, falls_with=Breakage.LISTS, stopped_by=ZERO)
def linkat_follow(evil: Evil) -> int:
    """AT_SYMLINK_FOLLOW makes a hard link to the file that a link points to."""
    return evil.call("linkat", BOX, b"out", BOX, b"stolen", AT_SYMLINK_FOLLOW)


@paths.attack(errno.EPERM, changed, falls_with=Breakage.LISTS, stopped_by=ZERO)
def linkat_follow_absolute(evil: Evil) -> int:
    """The same by an absolute link."""
    return evil.call("linkat", BOX, b"absolute", BOX, b"stolen", AT_SYMLINK_FOLLOW)


@paths.attack(errno.EPERM, answered, falls_with=Breakage.LISTS, stopped_by=ZERO, needs_root=True)
def linkat_empty_path(evil: Evil) -> int:
    """AT_EMPTY_PATH gives any open file a name."""
    fd = evil.call("openat", BOX, b"file", os.O_RDONLY, 0)
    return evil.call("linkat", fd, b"", BOX, b"stolen", AT_EMPTY_PATH)


def _planted(evil: Evil) -> bool:
    return (evil.world.box / "planted").is_symlink()


@paths.attack(errno.EPERM, _planted)
def symlinkat_absolute_target(evil: Evil) -> int:
    """An absolute target is a trap for programs outside."""
    return evil.call("symlinkat", b"/etc/passwd", BOX, b"planted")


@paths.attack(errno.EXDEV, read, stopped_by=KERNEL)
def symlinkat_and_open(evil: Evil) -> int:
    """A link that leads out may be made; following it is what is refused."""
    assert evil.call("symlinkat", b"../outside", BOX, b"mine") == 0
    return evil.take(evil.openat2(BOX, b"mine/secret"))


# --- openat2 --------------------------------------------------------------------------------------


@paths.attack(errno.EPERM, read)
def openat2_without_resolve(evil: Evil) -> int:
    """No RESOLVE_* at all: an ordinary open."""
    return evil.take(evil.openat2(BOX, b"../outside/secret", resolve=0))


@paths.attack(errno.EPERM, read)
def openat2_without_beneath(evil: Evil) -> int:
    """RESOLVE_NO_MAGICLINKS alone does not keep anything inside."""
    return evil.take(evil.openat2(BOX, b"outdir/secret", resolve=RESOLVE_NO_MAGICLINKS))


@paths.attack(errno.EPERM, answered)
def openat2_without_no_magiclinks(evil: Evil) -> int:
    """RESOLVE_BENEATH alone: that it stops magic links too is not promised for ever."""
    return evil.take(evil.openat2(BOX, b"file", resolve=RESOLVE_BENEATH))


@paths.attack(errno.EPERM, read)
def openat2_absolute(evil: Evil) -> int:
    """An absolute path where nothing is to be resolved beneath."""
    path = os.fsencode(evil.world.outside / "secret")
    return evil.take(evil.openat2(BOX, path, resolve=RESOLVE_NO_MAGICLINKS))


@paths.attack(errno.EPERM, read, stopped_by=KERNEL)
def openat2_absolute_beneath(evil: Evil) -> int:
    """An absolute path is refused before the kernel is asked."""
    return evil.take(evil.openat2(BOX, os.fsencode(evil.world.outside / "secret")))


@paths.attack(errno.EPERM, read, stopped_by="the kernel, which takes the box for the root")
def openat2_in_root(evil: Evil) -> int:
    """RESOLVE_IN_ROOT instead of RESOLVE_BENEATH: it would keep inside, but it is not the rule."""
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    return evil.take(evil.openat2(BOX, b"../outside/secret", resolve=resolve))


@paths.attack(errno.EINVAL, read, stopped_by="the kernel: the two exclude each other")
def openat2_in_root_and_beneath(evil: Evil) -> int:
    """Both at once."""
    resolve = RESOLVE_IN_ROOT | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    return evil.take(evil.openat2(BOX, b"../outside/secret", resolve=resolve))


@paths.attack(errno.EPERM, read, stopped_by="the kernel: no such flags")
def openat2_high_bits(evil: Evil) -> int:
    """The right bits, but 32 places too high."""
    return evil.take(evil.openat2(BOX, b"../outside/secret", resolve=0x0A << 32))


def _opens_beneath(path: bytes, flags: int) -> Run:
    return lambda evil: evil.take(evil.openat2(BOX, path, flags, mode=0o600 if flags else 0))


_CREATE = os.O_CREAT | os.O_WRONLY
for _label, _path, _flags in (
    ("up", b"../outside/secret", 0),
    ("down_and_up", b"dir/../../outside/secret", 0),
    ("parent", b"..", 0),
    ("out_and_back", b"../box/file", 0),
    ("link", b"out", 0),
    ("link_on_the_way", b"outdir/secret", 0),
    ("link_and_parent", b"outdir/..", 0),
    ("link_and_slash", b"outdir/", 0),
    ("absolute_link", b"absolute", 0),
    ("create_up", b"../outside/new", _CREATE),
    ("create_through_link", b"dangling", _CREATE),
):
    paths.add(
        f"openat2_beneath_{_label}",
        _opens_beneath(_path, _flags),
        errno.EXDEV,
        changed if _flags else read,
        stopped_by=KERNEL,
    )


def _opens_with_size(size: int) -> Run:
    def run(evil: Evil) -> int:
        how = struct.pack("<3Q", 0, 0, 0).ljust(64, b"\0")
        return evil.take(evil.call("openat2", BOX, b"../outside/secret", how, size))

    return run


for _size in (0, 1, 16, 23, 25, 32, 48, 4096, 1 << 31, (1 << 32) - 24):
    paths.add(
        f"openat2_how_of_{_size}_bytes",
        _opens_with_size(_size),
        errno.EINVAL,
        read,
        stopped_by="body_openat2, which knows one size",
    )
