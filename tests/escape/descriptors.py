"""Attacks by number: descriptors and memory of the host, and calls with many meanings."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from contextlib import chdir
from typing import TYPE_CHECKING

from tests.escape.attack import Breakage, Collection, answered, changed, read, seen
from tests.escape.evil import BOX, DATA, IOVEC, STAT, TOKEN, Out
from tests.escape.paths import KERNEL, TIMES

if TYPE_CHECKING:
    from tests.escape.attack import Gain, Run
    from tests.escape.evil import Evil

descriptors = Collection()

AT_FDCWD = -100
TABLE = "the descriptor table, which does not know the number"

# --- the host's own descriptors -------------------------------------------------------------------


def _vector(name: str, *rest: int) -> Run:
    def run(evil: Evil) -> int:
        evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, len(TOKEN)))
        answer = evil.on_guest(name, evil.world.host_file, IOVEC, 1, *rest)
        evil.loot.append(evil.guest.memory.read(DATA, len(TOKEN)))
        return answer

    return run


def _of_file(name: str, *rest: int | bytes | Out) -> Run:
    return lambda evil: evil.call(name, evil.world.host_file, *rest)


def _of_folder(name: str, *rest: int | bytes | Out) -> Run:
    return lambda evil: evil.call(name, evil.world.host_folder, *rest)


def _closed(evil: Evil) -> bool:
    try:
        os.fstat(evil.world.host_file)
    except OSError:
        return True
    return False


def _listed(evil: Evil) -> bool:
    return any(b"pointer" in piece for piece in evil.loot)


HOST: dict[str, tuple[Run, Gain]] = {
    "openat2": (lambda e: e.take(e.openat2(e.world.host_folder, b"secret")), read),
    "openat": (
        lambda e: e.take(e.call("openat", e.world.host_folder, b"secret", os.O_RDONLY, 0)),
        read,
    ),
    "dup3": (lambda e: e.take(e.call("dup3", e.world.host_file, 9, 0)), read),
    "readv": (_vector("readv"), read),
    "preadv": (_vector("preadv", 0), read),
    "writev": (_vector("writev"), changed),
    "pwritev": (_vector("pwritev", 0), changed),
    "pwritev2": (_vector("pwritev2", 0, 0), changed),
    "fstat": (_of_file("fstat", Out(STAT)), seen),
    "newfstatat": (_of_folder("newfstatat", b"secret", Out(STAT), 0), seen),
    "readlinkat": (_of_folder("readlinkat", b"pointer", Out(128), 128), read),
    "getdents64": (_of_folder("getdents64", Out(1024), 1024), _listed),
    "ftruncate": (_of_file("ftruncate", 0), changed),
    "fallocate": (_of_file("fallocate", 0, 0, 1 << 16), changed),
    "utimensat": (_of_file("utimensat", 0, TIMES, 0), changed),
    "mkdirat": (_of_folder("mkdirat", b"new", 0o700), changed),
    "unlinkat": (_of_folder("unlinkat", b"secret", 0), changed),
    "symlinkat": (
        lambda e: e.call("symlinkat", b"anything", e.world.host_folder, b"new"),
        changed,
    ),
    "renameat2_from": (_of_folder("renameat2", b"secret", BOX, b"stolen", 0), changed),
    "renameat2_to": (
        lambda e: e.call("renameat2", BOX, b"file", e.world.host_folder, b"new", 0),
        changed,
    ),
    "linkat_from": (_of_folder("linkat", b"secret", BOX, b"stolen", 0), changed),
    "linkat_to": (
        lambda e: e.call("linkat", BOX, b"file", e.world.host_folder, b"new", 0),
        changed,
    ),
    "lseek": (_of_file("lseek", 7, 0), lambda e: os.lseek(e.world.host_file, 0, os.SEEK_CUR) == 7),
    "close": (_of_file("close"), _closed),
    "fadvise": (_of_file("fadvise", 0, 0, 0), answered),
    "fsync": (_of_file("fsync"), answered),
    "fdatasync": (_of_file("fdatasync"), answered),
    "fcntl": (_of_file("fcntl", fcntl.F_GETFL, 0), answered),
}

for _name, (_run, _gain) in HOST.items():
    descriptors.add(
        f"{_name}_of_the_host",
        _run,
        errno.EBADF,
        _gain,
        falls_with=Breakage.LISTS,
        stopped_by=TABLE,
    )


# --- the host's working directory -----------------------------------------------------------------


def _from_root(run: Run) -> Run:
    def there(evil: Evil) -> int:
        with chdir(evil.world.root):
            return run(evil)

    return there


def _opens_twice(evil: Evil) -> int:
    fd = evil.call("openat", AT_FDCWD, b"outside", os.O_RDONLY | os.O_DIRECTORY, 0)
    if fd >= 0:
        evil.take(evil.call("openat", fd, b"secret", os.O_RDONLY, 0))
    return fd


WORKING_DIRECTORY: dict[str, tuple[Run, Gain]] = {
    "openat2": (lambda e: e.take(e.openat2(AT_FDCWD, b"outside/secret")), read),
    "openat": (_opens_twice, read),
    "newfstatat": (lambda e: e.call("newfstatat", AT_FDCWD, b"outside", Out(STAT), 0), seen),
    "utimensat": (lambda e: e.call("utimensat", AT_FDCWD, b"outside", TIMES, 0), changed),
    "mkdirat": (lambda e: e.call("mkdirat", AT_FDCWD, b"new", 0o700), changed),
    "symlinkat": (lambda e: e.call("symlinkat", b"anything", AT_FDCWD, b"new"), changed),
    "renameat2_to": (
        lambda e: e.call("renameat2", BOX, b"file", AT_FDCWD, b"new", 0),
        changed,
    ),
    "renameat2_from": (
        lambda e: e.call("renameat2", AT_FDCWD, b"outside", BOX, b"stolen", 0),
        lambda e: not e.world.outside.exists(),
    ),
    "linkat_to": (lambda e: e.call("linkat", BOX, b"file", AT_FDCWD, b"new", 0), changed),
    "readlinkat": (
        lambda e: e.call("readlinkat", AT_FDCWD, b"link", Out(64), 64),
        lambda e: e.answer == -errno.ENOENT,
    ),
    "unlinkat": (
        lambda e: e.call("unlinkat", AT_FDCWD, b"nothing", 0),
        lambda e: e.answer == -errno.ENOENT,
    ),
}

for _name, (_run, _gain) in WORKING_DIRECTORY.items():
    descriptors.add(
        f"{_name}_in_the_working_directory",
        _from_root(_run),
        errno.EBADF,
        _gain,
        falls_with=Breakage.LISTS,
        stopped_by="the descriptor table: AT_FDCWD is no number of it",
    )


# --- fcntl and ioctl: closed lists ----------------------------------------------------------------

LISTED = "the closed list in body_fcntl"
F_GET_RW_HINT, FIOCLEX, FIONBIO = 1035, 0x5451, 0x5421
OUTPUT = 1


@descriptors.attack(
    errno.EPERM,
    lambda evil: evil.world.memory.value != TOKEN,
    falls_with=Breakage.LISTS,
    stopped_by=LISTED,
)
def fcntl_writes_host_memory(evil: Evil) -> int:
    """F_GET_RW_HINT stores eight bytes at whatever address it is given."""
    fd = evil.call("openat", BOX, b"file", os.O_RDWR, 0)
    return evil.call("fcntl", fd, F_GET_RW_HINT, ctypes.addressof(evil.world.memory))


@descriptors.attack(errno.EPERM, answered, falls_with=Breakage.LISTS, stopped_by=LISTED)
def fcntl_duplicates_past_the_table(evil: Evil) -> int:
    """F_DUPFD passed on would make a descriptor of the host's."""
    return evil.call("fcntl", BOX, fcntl.F_DUPFD, 500)


@descriptors.attack(
    errno.EPERM,
    lambda evil: fcntl.fcntl(evil.world.host_stream, fcntl.F_GETOWN) == os.getpid(),
    falls_with=Breakage.LISTS,
    stopped_by=LISTED,
)
def fcntl_has_signals_sent(evil: Evil) -> int:
    """F_SETOWN on a shared stream says whom the kernel signals."""
    return evil.call("fcntl", OUTPUT, fcntl.F_SETOWN, os.getpid())


@descriptors.attack(
    0,
    lambda evil: bool(fcntl.fcntl(evil.world.host_stream, fcntl.F_GETFL) & os.O_APPEND),
    falls_with=Breakage.LISTS,
    stopped_by="set_status_flags: a shared stream's flags stay with the guest",
)
def fcntl_changes_a_shared_stream(evil: Evil) -> int:
    """O_APPEND and O_NONBLOCK of an inherited stream belong to everybody who has it."""
    return evil.call("fcntl", OUTPUT, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)


@descriptors.attack(
    errno.EPERM,
    lambda evil: not os.get_blocking(evil.world.host_stream),
    falls_with=Breakage.LISTS,
    stopped_by="the closed list in body_ioctl",
)
def ioctl_changes_a_shared_stream(evil: Evil) -> int:
    """FIONBIO is O_NONBLOCK by another way."""
    return evil.call("ioctl", OUTPUT, FIONBIO, b"\1\0\0\0")


# --- procfs: the engine's own memory --------------------------------------------------------------


def _reads_memory(name: bytes) -> Run:
    def run(evil: Evil) -> int:
        fd = evil.openat2(BOX, name, os.O_RDWR)
        if fd >= 0:
            evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, len(TOKEN)))
            evil.on_guest("preadv", fd, IOVEC, 1, ctypes.addressof(evil.world.memory))
            evil.loot.append(evil.guest.memory.read(DATA, len(TOKEN)))
        return fd

    return run


for _label, _path in (
    ("self", b"proc/self/mem"),
    ("thread_self", b"proc/thread-self/mem"),
    ("number", b"proc/%d/mem" % os.getpid()),
):
    descriptors.add(
        f"memory_of_the_engine_{_label}",
        _reads_memory(_path),
        errno.EACCES,
        read,
        grants_root=True,
    )


@descriptors.attack(errno.EACCES, answered, grants_root=True)
def procfs_as_a_path(evil: Evil) -> int:
    """O_PATH opens nothing, and yet is where to start from."""
    return evil.call("openat", BOX, b"proc", os.O_PATH | os.O_DIRECTORY, 0)


@descriptors.attack(errno.EACCES, answered, grants_root=True)
def procfs_after_dup3(evil: Evil) -> int:
    """A copy of the grant's descriptor remembers what lies beneath."""
    return evil.openat2(evil.call("dup3", BOX, 20, 0), b"proc/self/maps")


@descriptors.attack(errno.EACCES, answered, grants_root=True)
def procfs_after_another_open(evil: Evil) -> int:
    """So does a directory opened beneath it."""
    return evil.openat2(evil.openat2(BOX, b".", os.O_PATH | os.O_DIRECTORY), b"proc/self/environ")


@descriptors.attack(errno.ELOOP, answered, grants_root=True, stopped_by=KERNEL)
def procfs_magic_link(evil: Evil) -> int:
    """`/proc/self/root` is a way into everything that does not look like one."""
    return evil.openat2(BOX, b"proc/self/root/etc")


@descriptors.attack(errno.ELOOP, read, grants_root=True, stopped_by=KERNEL)
def procfs_descriptor(evil: Evil) -> int:
    """`/proc/self/fd` opens the host's descriptors again."""
    return evil.take(evil.openat2(BOX, b"proc/self/fd/%d" % evil.world.host_file))


@descriptors.attack(errno.EPERM, read, grants_root=True)
def procfs_descriptor_without_resolve(evil: Evil) -> int:
    """The same with magic links allowed."""
    path = b"proc/self/fd/%d" % evil.world.host_file
    return evil.take(evil.openat2(BOX, path, resolve=0))


@descriptors.attack(errno.EXDEV, answered, grants_root=True, stopped_by=KERNEL)
def procfs_by_a_link_in_dev(evil: Evil) -> int:
    """`/dev/fd` is a link to where the host's descriptors are."""
    return evil.openat2(BOX, b"dev/fd/%d" % evil.world.host_file)
