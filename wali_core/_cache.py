"""Compiled modules on disk.

An entry is native code that will run with all of this process's rights, so nobody else may have
been able to write it: the folder and every entry must belong to this user and be writable by no
other, and what is checked is what is loaded (one descriptor).  Where that cannot be had, there is
no cache.

An entry's name is a digest of the module, of wasmtime's library and of the engine's settings;
wasmtime itself checks its version and settings once more when it loads.
"""

from __future__ import annotations

import os
import stat
from _blake2 import blake2b  # hashlib would load OpenSSL, for a fifth of the start-up time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

MAXIMUM_BYTES: Final = 1 << 30
"""When the entries take more than this, the ones unused for longest go."""

_DAY: Final = 86400
_DIGEST_BYTES: Final = 20


def default_folder() -> str:
    """``$XDG_CACHE_HOME/wali``, or ``~/.cache/wali``; empty for a user who has no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: relative ones are to be ignored
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "wali") if os.path.isabs(base) else ""


def digest(data: bytes, *context: str) -> str:
    """A name for what is compiled from ``data`` in this context."""
    hasher = blake2b(digest_size=_DIGEST_BYTES)
    for text in context:
        hasher.update(os.fsencode(text) + b"\0")
    hasher.update(data)
    return hasher.hexdigest()


def _is_name(text: str) -> bool:
    return len(text) == 2 * _DIGEST_BYTES and not text.strip("0123456789abcdef")


# The kernel opens with O_NOATIME for the owner alone, whom it knows by more than a number: in a
# user namespace, where a view is made, all other users have one, which may be this user's own.
_OWN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME


def _private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


class Cache:
    """A folder of compiled modules.  ``usable`` is false where it could not be made private."""

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder or default_folder()
        self.usable = self._prepare()

    def _prepare(self) -> bool:
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            fd = os.open(self.folder, os.O_DIRECTORY | _OWN)
            try:
                return _private(os.fstat(fd))
            finally:
                os.close(fd)
        except OSError:
            return False

    def load(self, name: str, use: Callable[[bytes], int | None]) -> int | None:
        """Give the entry's path to ``use``; its result, or None where there is no good entry."""
        if not self.usable:
            return None
        path = os.path.join(self.folder, name)
        try:
            # O_NONBLOCK: a FIFO in its place would be waited for.
            fd = os.open(path, os.O_NONBLOCK | _OWN)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or not _private(status):
                return None
            loaded = use(b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)
        if loaded is None:  # damaged, or of another build: make room for a good one
            self._forget(path)
        else:
            self._touch(path, status)
        return loaded

    def store(self, name: str, data: bytes | memoryview) -> None:
        """Keep an entry.  That it cannot be written is no error: the next run compiles again."""
        if not self.usable:
            return
        path = os.path.join(self.folder, name)
        temporary = f"{path}.{os.getpid()}"
        try:
            fd = os.open(
                temporary,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            try:
                with open(fd, "wb") as file:
                    file.write(data)
                os.rename(temporary, path)
            except OSError:
                self._forget(temporary)
                return
        except OSError:
            return
        self._bound()

    def _touch(self, path: str, status: os.stat_result) -> None:
        """The time of last use, at a day's precision: reading stays free of writing."""
        import time

        if time.time() - status.st_mtime > _DAY:
            try:
                os.utime(path, follow_symlinks=False)
            except OSError:
                pass  # another process removed it: it is loaded all the same

    def _forget(self, path: str) -> None:
        try:
            os.unlink(path)
        except OSError:
            pass  # somebody else did

    def _bound(self) -> None:
        try:
            entries = sorted(self._entries())
        except OSError:
            return  # the folder is gone, and the entries with it
        excess = sum(size for _, size, _ in entries) - MAXIMUM_BYTES
        for _, size, path in entries:
            if excess <= 0:
                break
            self._forget(path)
            excess -= size

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """Time of last use, size and path of each, unfinished ones too.

        Other files are not ours to count, or to remove: the folder may be any.
        """
        with os.scandir(self.folder) as listing:
            for entry in listing:
                if _is_name(entry.name.partition(".")[0]):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    yield status.st_mtime, status.st_size, entry.path
