"""Landlock, by its three system calls (landlock(7)): files, TCP ports, and what leaves the process.

`prepare` does all that needs files and can fail; `Ruleset.commit` then confines the calling thread,
and what is started by it later. Other threads keep their rights.

It serves every guest's start, so it imports nothing that takes time, and nothing after that start.
"""

from __future__ import annotations

import os
from errno import E2BIG, EBADF
from stat import S_ISDIR
from struct import pack

from capabilities._errors import LockdownError
from capabilities.links import open_plain

from . import privileges
from ._kernel import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Final, Literal, TypeAlias, TypeVar

    _What = TypeVar("_What", str | int, int)
    Mode: TypeAlias = Literal["required", "best-effort"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_CHAR: Final = 1 << 6
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15

BIND_TCP: Final = 1 << 0
CONNECT_TCP: Final = 1 << 1

SCOPE_ABSTRACT_UNIX: Final = 1 << 0
SCOPE_SIGNAL: Final = 1 << 1

# What a single file can be granted; the rest is about what lies in a directory.
OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

TO_READ: Final = READ_FILE | READ_DIR
TO_EXECUTE: Final = TO_READ | EXECUTE
TO_WRITE: Final = (
    TO_READ
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
    | IOCTL_DEV
)

FEATURES: Final = {
    "files": 1,
    "truncation": 3,
    "TCP ports": 4,
    "ioctls of devices": 5,
    "abstract unix sockets": 6,
    "signals": 6,
}
"""What Landlock confines, each with the version of its interface that brought it.

The second version, which is about links and renames across directories, only brought the means to
grant them: on the first they are refused everywhere.
"""

LATEST: Final = 7
"""The newest version whose rights are known here."""


def abi_version() -> int:
    """Return the version of Landlock's interface that the kernel has; 0 is no Landlock."""
    try:
        return call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:  # not built, switched off, or refused by whoever confines this process
        return 0


def handled(abi: int) -> tuple[int, int, int]:
    """Return every right that a version knows: of files, of TCP, and the scopes."""
    files = MAKE_SYM | (MAKE_SYM - 1) if abi >= 1 else 0
    files |= REFER if abi >= 2 else 0  # noqa: PLR2004 (the versions of landlock(7))
    files |= TRUNCATE if abi >= FEATURES["truncation"] else 0
    files |= IOCTL_DEV if abi >= FEATURES["ioctls of devices"] else 0
    tcp = BIND_TCP | CONNECT_TCP if abi >= FEATURES["TCP ports"] else 0
    scopes = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL if abi >= FEATURES["signals"] else 0
    return files, tcp, scopes


class Ruleset:
    """Rules that the kernel has accepted and that hold nobody yet.

    Attributes:
        abi: the version of the kernel's interface.
        missing: those of `FEATURES` that the kernel does not confine.
    """

    __slots__ = ("_fd", "abi", "missing")

    def __init__(self, abi: int, missing: tuple[str, ...]) -> None:
        self.abi, self.missing = abi, missing
        files, tcp, scopes = handled(abi)
        masks = [files, *([tcp] if tcp else []), *([scopes] if scopes else [])]
        attr = pack(f"={len(masks)}Q", *masks)
        self._fd = call(_CREATE_RULESET, attr, len(attr), 0) if abi else -1

    def grant_path(self, path: str | int, rights: int) -> None:
        """Grant rights on a file, or on all that lies in a directory.

        By a descriptor, or a path in which no link may be.

        Raises:
            OSError: there is no such file, or it cannot be reached.
            ValueError: it is no path.
        """
        fd = path if isinstance(path, int) else open_plain(path, os.O_PATH)
        try:
            rights &= handled(self.abi)[0]
            if not S_ISDIR(os.fstat(fd).st_mode):
                rights &= OF_FILES
            if self._fd >= 0:
                call(_ADD_RULE, self._fd, _PATH_BENEATH, pack("=Qi", rights, fd), 0)
        finally:
            if fd != path:
                os.close(fd)

    def grant_port(self, port: int, rights: int) -> None:
        """Grant to connect to a TCP port, or to bind to it, whatever the address."""
        if handled(self.abi)[1]:
            call(_ADD_RULE, self._fd, _NET_PORT, pack("=QQ", rights, port), 0)

    def commit(self) -> None:
        """Confine the calling thread for good, and keep it from gaining privileges by exec.

        Raises:
            LockdownError: the kernel refused; the thread may not be confined.
        """
        try:
            privileges.no_new_privileges()
            if self.abi:
                call(_RESTRICT_SELF, self._fd, 0)
        except OSError as error:
            raise LockdownError([_refusal(error)]) from error
        self.close()

    def close(self) -> None:
        """Give up the rules, if they were not committed. It may be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def prepare(
    read_only: Iterable[str | int],
    read_write: Iterable[str | int],
    connect_ports: Iterable[int],
    listen_ports: Iterable[int],
    *,
    exec_paths: Iterable[str | int] = (),
    listed: Iterable[str] = (),
    oldest: int = 1,
    mode: Mode,
    needed: Collection[str] = tuple(FEATURES),
) -> Ruleset:
    """Have the kernel accept the rules: every right that it knows is refused if it is not granted.

    Args:
        read_only: files, and directories with all that lies in them, to read.
        read_write: the same to read, write, make and remove; devices cannot be made.
        connect_ports: TCP ports to connect to.
        listen_ports: TCP ports to bind to.
        exec_paths: files and directories to read and execute.
        listed: directories whose entries can be listed, with those of all that lies in them.
        oldest: the version of the interface before which it is not used at all.
        mode: what to do where the kernel lacks something that is needed: `"required"` refuses,
            `"best-effort"` goes on, and says so in `Ruleset.missing`.
        needed: those of `FEATURES` without which `"required"` is not met.

    Raises:
        LockdownError: the kernel lacks what is needed, or a path cannot be granted; it lists
            everything that is wrong.
    """
    abi = min(abi_version(), LATEST)
    abi = abi if abi >= oldest else 0
    missing = tuple(name for name, since in FEATURES.items() if abi < since)
    lacking = [name for name in missing if name == "files" or name in needed]
    if mode == "required" and lacking:
        raise LockdownError([_lack(abi, lacking)])
    trees: list[tuple[str | int, int]] = [(path, TO_READ) for path in read_only]
    trees += [(path, TO_WRITE) for path in read_write]
    trees += [(path, TO_EXECUTE) for path in exec_paths]
    trees += [(path, READ_DIR) for path in listed]
    ports = [(port, CONNECT_TCP) for port in connect_ports]
    ports += [(port, BIND_TCP) for port in listen_ports]
    try:
        ruleset = Ruleset(abi, missing)
    except OSError as error:
        raise LockdownError([_refusal(error)]) from error
    refused = _grant(ruleset.grant_path, trees) + _grant(ruleset.grant_port, ports)
    if refused:
        ruleset.close()
        raise LockdownError(refused)
    return ruleset


def restrict(
    read_only: Iterable[str],
    read_write: Iterable[str],
    connect_ports: Iterable[int],
    listen_ports: Iterable[int],
    *,
    exec_paths: Iterable[str] = (),
    mode: Mode,
    needed: Collection[str] = tuple(FEATURES),
) -> list[str]:
    """`prepare` and commit in one step.

    Returns:
        Those of `FEATURES` that are not confined.
    """
    ruleset = prepare(
        read_only,
        read_write,
        connect_ports,
        listen_ports,
        exec_paths=exec_paths,
        mode=mode,
        needed=needed,
    )
    ruleset.commit()
    return list(ruleset.missing)


def _grant(grant: Callable[[_What, int], None], wanted: list[tuple[_What, int]]) -> list[str]:
    """Grant one after the other, and return what went wrong."""
    refused = []
    for what, rights in wanted:
        try:
            grant(what, rights)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            refused.append(f"{what} cannot be granted: {reason}")
    return refused


def _lack(abi: int, lacking: Iterable[str]) -> str:
    has = f"has version {abi} of Landlock" if abi else "has no Landlock, or it is switched off"
    wanted = ", ".join(f"{name} (version {FEATURES[name]})" if abi else name for name in lacking)
    return (
        f"this kernel {has}, and cannot confine {wanted}: the policy has to say "
        'lockdown = "best-effort" to run without'
    )


def _refusal(error: OSError) -> str:
    if error.errno == E2BIG:
        return "Landlock refused: too many rulesets hold this thread already"
    if error.errno == EBADF:
        return "Landlock refused: these rules were committed or closed before"
    return f"Landlock refused: {error.strerror}"
