"""Where paths of the host's lead: links are followed once, and none when it is opened.

A guest may have put a link wherever it can write, and another guest may do so at any time. So who
is granted a path gets what that led to when it was looked at: `follow` finds that, and which links
were in the way, and `open_plain` opens it if no link is there by then.

It serves the start of every guest that has a directory, so it imports nothing that takes time.
"""

from __future__ import annotations

import os
from errno import EINVAL, ELOOP, ENOENT
from stat import S_ISLNK

MOST_LINKS = 40  # as the kernel follows (path_resolution(7))
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """Where a path leads.

    Attributes:
        path: an absolute, normalised path of the same in which there was no link.
        links: where the links were that were followed, in this order, as such paths.
        error: why there is nothing at the end, in words; empty if there is.
    """

    __slots__ = ("error", "links", "path")

    def __init__(self, path: str, links: tuple[str, ...], error: str) -> None:
        self.path, self.links, self.error = path, links, error


def follow(path: str) -> Place:
    """Find where a path leads, from the working directory if it is relative; nothing is opened.

    Like `os.path.realpath`, this goes on where there is nothing, or nothing that may be looked at.

    Raises:
        FileNotFoundError: the path is relative, and the working directory was removed.
        ValueError: there is a NUL in the path.
    """
    left = [*reversed(path.split("/"))]
    if not path.startswith("/"):
        left += reversed(os.getcwd().split("/"))
    links: list[str] = []
    at, error = "/", "" if path else os.strerror(ENOENT)
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = at.rpartition("/")[0] or "/"
            continue
        at = f"{at.rstrip('/')}/{name}"
        try:
            target = os.readlink(at)
        except OSError as refusal:
            if refusal.errno != EINVAL:  # that is: no link
                error = error or os.strerror(refusal.errno or 0)
            continue
        if len(links) == MOST_LINKS:
            return Place(at, tuple(links), os.strerror(ELOOP))
        links.append(at)
        left += reversed(target.split("/"))
        at = "/" if target.startswith("/") else at.rpartition("/")[0] or "/"
    return Place(at, tuple(links), error)


def real(path: str) -> str:
    """Return where a path leads.

    As `os.path.realpath`, which raises EINVAL where a link becomes something else meanwhile.
    """
    return follow(path).path


def open_plain(path: str, flags: int, mode: int = 0o777) -> int:
    """Open an absolute path with no link in it, where ``..`` is none either.

    Raises:
        OSError: it cannot be opened; ENOTDIR or ELOOP where there is a link.
        ValueError: it is not absolute, or there is a NUL in it.
    """
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not absolute")
    *parents, name = path.strip("/").split("/")
    at = os.open("/", _FOLDER)
    try:
        for parent in parents:
            above, at = at, os.open(parent, _FOLDER, dir_fd=at)
            os.close(above)
        fd = os.open(name or ".", flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)
    finally:
        os.close(at)
    if flags & os.O_PATH and S_ISLNK(os.fstat(fd).st_mode):  # that is the link itself
        os.close(fd)
        raise OSError(ELOOP, os.strerror(ELOOP))
    return fd
