"""What a guest may ask for, as a value: one call, and what it names."""

from __future__ import annotations

import posixpath
from typing import Literal

import attrs

from ._model import LARGEST_PORT
from ._units import quote

Access = Literal["look", "read", "write", "make", "execute"]
Use = Literal["connect", "listen"]

ACCESSES: tuple[Access, ...] = ("look", "read", "write", "make", "execute")

REQUEST_FORM = (
    '"CALL", "CALL PATH" or "CALL PATH ACCESS" (look, read, write, make or execute), '
    '"connect tcp://*:PORT", "connect unix:///PATH", "socket KIND" '
    '(tcp, udp, unix, unix-datagram or unix-seqpacket) or "getenv NAME"'
)

KINDS = ("tcp", "udp", "unix", "unix-datagram", "unix-seqpacket")
"""What sockets there are.  Programs may ask for others, which nothing grants."""

MAKES_SOCKETS = frozenset(("socket", "socketpair"))

GETENV = "getenv"
"""Not a call: how a request names an environment variable."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a call does to the path that it names, if nothing else is said. `look` is to find out what is
# there; `make` is to make, remove or rename what has the name, which changes the directory that the
# name lies in.
_LOOKS = _names("""
    stat lstat fstatat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs chdir
    path_filestat_get path_readlink
""")
_READS = _names("""
    open openat openat2 getxattr lgetxattr getxattrat listxattr llistxattr listxattrat
    inotify_add_watch path_open
""")
_WRITES = _names("""
    truncate chmod fchmodat fchmodat2 chown lchown fchownat utime utimes futimesat utimensat
    setxattr lsetxattr setxattrat removexattr lremovexattr removexattrat path_filestat_set_times
""")
_MAKES = _names("""
    creat mkdir mkdirat mknod mknodat unlink unlinkat rmdir symlink symlinkat
    path_create_directory path_remove_directory path_unlink_file path_symlink
""")
_MAKES_TWO = _names("rename renameat renameat2 link linkat path_rename path_link")
_EXECUTES = _names("execve execveat")
_USES: dict[str, Use] = {"connect": "connect", "bind": "listen", "listen": "listen"}

FILE_CALLS: dict[str, Access] = {
    **dict.fromkeys(_LOOKS, "look"),
    **dict.fromkeys(_READS, "read"),
    **dict.fromkeys(_WRITES, "write"),
    **dict.fromkeys(_MAKES | _MAKES_TWO, "make"),
    **dict.fromkeys(_EXECUTES, "execute"),
}
"""Calls that name files, each with what it does to them."""


def access_of(call: str) -> Access | None:
    """Say what a call does to the path that it names; None for one that names none."""
    return FILE_CALLS.get(call)


def is_wasi(call: str) -> bool:
    """Say whether a call is one of WASI's, which no gate holds back."""
    return call.startswith(("path_", "fd_"))


@attrs.frozen
class Request:
    """One call of a guest's.

    Attributes:
        call: its name: a system call, a function of WASI's that takes a path, or `getenv`.
        paths: the guest's absolute, normalised paths that it names; two for a rename or a link.
        access: what it does to them.
        port: the TCP port that it names.
        socket: the guest's path of a unix socket that it connects to.
        kind: of the socket, or the pair, that it makes: one of `KINDS`.
        variable: the environment variable that is meant, for `getenv`.
    """

    call: str
    paths: tuple[str, ...] = ()
    access: Access = "read"
    port: int | None = None
    socket: str | None = None
    kind: str | None = None
    variable: str | None = None

    @property
    def use(self) -> Use | None:
        """What a call does with a socket; None for one that names none."""
        return _USES.get(self.call)

    @classmethod
    def parse(cls, text: str) -> Request:
        """Read a request as people write it, such as `"openat /etc/passwd"`.

        Raises:
            ValueError: it is none; the message says what is allowed.
        """
        call, *words = text.split() or [""]
        if call == GETENV and len(words) == 1:
            return cls(call, variable=words[0])
        if call in FILE_CALLS:
            return cls._of_files(call, words, text)
        if call in _USES and len(words) == 1:
            return cls._of_socket(call, words[0], text)
        if call in MAKES_SOCKETS and len(words) == 1 and words[0] in KINDS:
            return cls(call, kind=words[0])
        if call and call != GETENV and not words:
            return cls(call)
        raise ValueError(f"{quote(text)} is no request: write {REQUEST_FORM}")

    @classmethod
    def _of_files(cls, call: str, words: list[str], text: str) -> Request:
        access, count = FILE_CALLS[call], 2 if call in _MAKES_TWO else 1
        if len(words) == count + 1:
            access = _access(words.pop())
        if not words:
            return cls(call)
        if len(words) != count:
            paths = "two paths" if count > 1 else "one path"
            raise ValueError(f"{quote(text)}: {call} names {paths}, without white space")
        return cls(call, tuple(_path(word) for word in words), access)

    @classmethod
    def _of_socket(cls, call: str, address: str, text: str) -> Request:
        if address.startswith("unix://"):
            return cls(call, socket=_path(address.removeprefix("unix://")))
        digits = address.rpartition(":")[2] if address.startswith("tcp://") else ""
        if not (digits.isascii() and digits.isdigit()) or int(digits) > LARGEST_PORT:
            raise ValueError(f"{quote(text)}: write {call} tcp://*:PORT or {call} unix:///PATH")
        return cls(call, port=int(digits))


def _access(word: str) -> Access:
    import difflib

    for access in ACCESSES:
        if word == access:
            return access
    near = difflib.get_close_matches(word, ACCESSES, 1)
    hint = f"did you mean {near[0]}?" if near else f"write {', '.join(ACCESSES[:-1])} or execute"
    raise ValueError(f"{quote(word)} is nothing that is done to a file: {hint}")


def _path(word: str) -> str:
    if not word.startswith("/"):
        raise ValueError(f"{quote(word)} must be absolute: a request is not made from anywhere")
    return f"/{posixpath.normpath(word).lstrip('/')}"
