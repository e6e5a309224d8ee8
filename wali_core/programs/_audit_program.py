"""The calls of a WALI program that are written down: what goes around each, by the table's kinds.

What it reads of the program's memory is for the file alone: another thread of the program's may
change it before the core copies it, which is what is decided on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from _socket import inet_ntop
from functools import partial

from capabilities import access_of
from wali_core._audit import Audit, Names, beneath, detour, is_module
from wali_core._elf import interpreters_of
from wali_core._table import CALLS
from wali_core.programs._process_calls import CHANGES, is_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Final

    from capabilities import Access
    from wali_core._link import Hook
    from wali_core._table import Call
    from wali_core.programs._calls import GuestCalls

    Arguments = Sequence[int]
    Proceed = Callable[[], int]
    Track = Callable[[Arguments, int], None]

_AT_FDCWD: Final = -100
_F_DUPFD, _F_DUPFD_CLOEXEC = 0, 1030
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE, _SOCK_DGRAM = 0xF, 2
_KINDS: Final = {  # by domain, type and the protocol that may be said; 0 always may
    **{(family, 1): (6, "tcp") for family in (_AF_INET, _AF_INET6)},
    **{(family, 2): (17, "udp") for family in (_AF_INET, _AF_INET6)},
    (_AF_UNIX, 1): (0, "unix"),
    (_AF_UNIX, 2): (0, "unix-datagram"),
    (_AF_UNIX, 5): (0, "unix-seqpacket"),
}
_ADDRESS_MAX: Final = 128
_STOPPED: Final = -(1 << 63)  # the program has become another
_OF_PROCESSES: Final = {  # and which argument names one
    **dict.fromkeys(("kill", "tkill", "tgkill", "getpgid", "getsid"), 0),
    **dict.fromkeys(("sched_getaffinity", "sched_setscheduler"), 0),
    **dict.fromkeys(("sched_getparam", "sched_getscheduler"), 0),
    **dict.fromkeys(("getpriority", "setpriority"), 1),
}
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_FLAGS_AT: Final = {"newfstatat": 3, "fstatat": 3, "statx": 2, "fchownat": 4, "utimensat": 3}
_OF_LINKS: Final = frozenset(("lstat", "lchown"))
_OPENS: Final = frozenset(("open", "openat", "openat2"))


def hooks(audit: Audit, calls: GuestCalls, gate: Collection[str], cwd: str) -> dict[str, Hook]:
    """What goes around a program's calls, by their names with ``SYS_``; ``gate`` are those held."""
    held = {name.removeprefix("SYS_") for name in gate}
    audit.withhold(held)
    written = _Written(audit, calls, held, cwd)
    found = {}
    for call in CALLS:
        hook = written.hook(call)
        if hook is not None:
            found[f"SYS_{call.name}"] = hook
    return found


def name_of(result: int) -> str:
    """``"0"`` for what succeeded, or the errno's name."""
    return "0" if result >= 0 else errno.errorcode.get(-result, str(-result))


class _Written:
    def __init__(self, audit: Audit, calls: GuestCalls, held: Collection[str], cwd: str) -> None:
        self._audit, self._calls, self._held = audit, calls, held
        self._names = Names()
        self._cwd: str | None = cwd
        self._datagrams: set[int] = set()
        self._first = os.getpid()

    def hook(self, call: Call) -> Hook | None:
        """What goes around a call; None where nothing has to."""
        kinds = call.arguments.split()
        track = self._tracking().get(call.name)
        access = access_of(call.name)
        if access is not None and paths_of(kinds):
            return partial(self._on_files, call.name, access, paths_of(kinds))
        if call.name in ("connect", "bind"):
            return partial(self._on_socket, call.name)
        if call.name in ("socket", "socketpair", "listen"):
            return partial(self._on_making, call.name, track)
        if kinds[:1] == ["fd!"]:
            return partial(self._on_descriptor, call.name)
        if track or self._audit.everything or not self._audit.grants(call.name):
            return partial(self._plainly, call.name, track)
        return None

    def _tracking(self) -> dict[str, Track]:
        """What tells which file a descriptor is."""
        return {
            "close": lambda a, _: self._forget(a[0]),
            "dup": lambda a, result: self._names.duplicated(a[0], result),
            "dup2": lambda a, result: self._names.duplicated(a[0], result),
            "dup3": lambda a, result: self._names.duplicated(a[0], result),
            "fcntl": self._on_fcntl,
            "fchdir": lambda a, _: self._enter(self._names[a[0]]),
            "socket": self._on_new_socket,
            **(self._learning() if self._audit.learning else {}),
        }

    def _learning(self) -> dict[str, Track]:
        """What is looked at besides where a policy is learned: things that none, or few, grant."""
        return {
            **{name: partial(self._on_process, name) for name in _OF_PROCESSES},
            "prctl": self._on_prctl,
            "chroot": lambda _a, _r: self._audit.on_socket("chroot", "another directory", "0"),
        }

    def _on_process(self, call: str, arguments: Arguments, _: int) -> None:
        pid = ctypes.c_int32(arguments[_OF_PROCESSES[call]]).value
        if call == "kill" and pid < 0:
            if names_others(pid, self._first):
                self._audit.on_socket(call, "another process group", "0")
            return
        if pid <= 0 or is_own(pid):
            return
        # Signals go to whatever is confined together (Landlock).
        if call not in ("kill", "tkill", "tgkill") or not descends(pid, self._first):
            self._audit.on_socket(call, "another process", "0")

    def _on_prctl(self, arguments: Arguments, _: int) -> None:
        if arguments[0] in CHANGES:
            self._audit.on_socket("prctl", f"option {arguments[0]}", "0")

    def _forget(self, number: int) -> None:
        self._names.closed(number)
        self._datagrams.discard(number)

    def _enter(self, folder: str | None) -> None:
        self._cwd = folder

    def _on_fcntl(self, arguments: Arguments, result: int) -> None:
        if arguments[1] in (_F_DUPFD, _F_DUPFD_CLOEXEC):
            self._names.duplicated(arguments[0], result)

    def _on_new_socket(self, arguments: Arguments, result: int) -> None:
        if arguments[1] & _SOCK_TYPE == _SOCK_DGRAM:
            self._datagrams.add(result)

    def _plainly(
        self,
        call: str,
        track: Track | None,
        arguments: Arguments,
        proceed: Proceed,
    ) -> int:
        result = proceed()
        self._audit.on_call(call, "", "", name_of(result))
        return _tracked(track, arguments, result)

    # --- files ------------------------------------------------------------------------------------

    def _on_files(
        self,
        call: str,
        access: Access,
        places: Sequence[tuple[int | None, int]],
        arguments: Arguments,
        proceed: Proceed,
    ) -> int:
        named = [self._path(arguments, *place) for place in places]
        paths = [path for path in named if path is not None]
        if call in _OPENS and paths:
            access = self._access(call, arguments[places[0][1] + 1], paths[0][0])
        if access == "execute" and call not in self._held:
            for path, via, relative in paths:  # from what succeeds there is no coming back
                self._audit.on_path(call, path, access, "", via=via, relative=relative)
                for interpreter, from_here in self._of_module(path):
                    self._audit.on_path(call, interpreter, access, "", relative=from_here)
        result = proceed()
        if result > _STOPPED:
            self._after_files(call, paths, access, result, follows=follows(call, arguments))
        return result

    def _of_module(self, path: str) -> list[tuple[str, bool]]:
        """What runs a script, where that is WebAssembly: the kernel does not see it.

        Also whether that is found from the working directory.
        """
        if not self._audit.learning or not is_module(path):
            return []
        found = [
            (beneath(self._cwd, os.fsencode(each)), not os.path.isabs(each))
            for each in interpreters_of(path, self._cwd or "")
        ]
        return [(each, relative) for each, relative in found if each is not None]

    def _after_files(
        self,
        call: str,
        paths: Sequence[tuple[str, str | None, bool]],
        access: Access,
        result: int,
        *,
        follows: bool,
    ) -> None:
        first = paths[0][0] if paths else None
        if self._audit.on_call(call, first or "", access, name_of(result)):
            return
        for path, via, relative in paths:
            self._audit.on_path(
                *(call, path, access, name_of(result)), via=via, relative=relative, follows=follows
            )
        if call in _OPENS:
            self._names.opened(result, first)
        elif call == "chdir" and result == 0:
            self._enter(first)

    def _path(
        self, arguments: Arguments, directory: int | None, at: int
    ) -> tuple[str, str | None, bool] | None:
        """The path that an argument says, its detour, and whether from the working directory.

        None where it says none, or where it cannot be known.
        """
        folder, from_cwd = self._cwd, True
        if directory is not None and arguments[directory] != _AT_FDCWD:
            folder, from_cwd = self._names[arguments[directory]], False
        try:
            said = self._calls.string(arguments[at]) if arguments[at] else b""
        except OSError:
            return None
        path = beneath(folder, said) if said else folder
        if path is None:
            return None
        return path, detour(folder, said), from_cwd and not said.startswith(b"/")

    def _access(self, call: str, flags: int, path: str) -> Access:
        if call == "openat2":  # there it is the address of a struct open_how
            try:
                flags = int.from_bytes(self._calls.read(flags, 8), "little")
            except OSError:
                return "read"
        return open_access(flags, path)

    def _on_descriptor(self, call: str, arguments: Arguments, proceed: Proceed) -> int:
        """Calls that change what is open: whatever it was opened for."""
        result = proceed()
        path = self._names[arguments[0]]
        if not self._audit.on_call(call, path or "", "write", name_of(result)) and path:
            self._audit.on_path(call, path, "write", name_of(result))
        return result

    # --- sockets ----------------------------------------------------------------------------------

    def _on_making(
        self,
        call: str,
        track: Track | None,
        arguments: Arguments,
        proceed: Proceed,
    ) -> int:
        result = proceed()
        kind = "" if call == "listen" else kind_of(*arguments[:3])
        self._audit.on_kind(call, kind, name_of(result))
        return _tracked(track, arguments, result)

    def _on_socket(self, call: str, arguments: Arguments, proceed: Proceed) -> int:
        try:
            size = arguments[2] & 0xFFFFFFFF
            address = self._calls.read(arguments[1], min(size, _ADDRESS_MAX))
        except OSError:
            address = b""
        scheme = "udp" if arguments[0] in self._datagrams else "tcp"
        resource = address_text(address, scheme)
        result = proceed()
        if not self._audit.on_call(call, resource, "", name_of(result)) and resource:
            self._audit.on_socket(call, resource, name_of(result))
        return result


def _tracked(track: Track | None, arguments: Arguments, result: int) -> int:
    """The result of a call, after which of what succeeded is followed what it did."""
    if track and result >= 0:
        track(arguments, result)
    return result


def kind_of(domain: int, type_: int, protocol: int) -> str:
    """What a policy calls a socket that socket(2) is asked for; ``other`` if it knows none such."""
    own, kind = _KINDS.get((domain, type_ & _SOCK_TYPE), (0, "other"))
    return kind if protocol in (0, own) else "other"


def open_access(flags: int, path: str) -> Access:
    """What open(2) with these flags does to a path."""
    if flags & os.O_CREAT and not os.path.exists(path):
        return "make"
    if flags & os.O_PATH:
        return "look"
    return "write" if flags & (os.O_ACCMODE | os.O_TRUNC | os.O_CREAT) else "read"


def follows(call: str, arguments: Sequence[int]) -> bool:
    """Is a call about what a link leads to, and not about the link?"""
    at = _FLAGS_AT.get(call)
    return call not in _OF_LINKS and (at is None or not arguments[at] & _AT_SYMLINK_NOFOLLOW)


def members_of(named: int) -> list[int]:
    """The processes that kill(2) would signal, and who that would be: one, or those of a group."""
    if named > 0:
        return [named] if os.path.exists(f"/proc/{named}") else []
    found = []
    for name in os.listdir("/proc") if named < -1 else ():
        try:
            if name.isdecimal() and os.getpgid(int(name)) == -named:
                found.append(int(name))
        except ProcessLookupError:
            continue
    return found


def names_others(named: int, first: int) -> bool:
    """Would kill(2) signal somebody, and nobody of a process's own: itself and its descendants?"""
    members = members_of(named)
    return bool(members) and not any(descends(member, first) for member in members)


def descends(pid: int, first: int) -> bool:
    """Is a process, or a thread, that first one or one of its descendants'?"""
    while pid not in (0, first):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return False
    return pid == first


def paths_of(kinds: Sequence[str]) -> list[tuple[int | None, int]]:
    """Which arguments are paths, each with the directory that it starts from, if one is given."""
    return [
        (i - 1 if i and kinds[i - 1].startswith("dirfd") else None, i)
        for i, kind in enumerate(kinds)
        if kind in ("path", "path?")
    ]


def address_text(address: bytes, scheme: str) -> str:
    """A sockaddr as ``tcp://HOST:PORT`` or ``unix://PATH``; empty where it is another, or none."""
    family = int.from_bytes(address[:2], "little")
    try:
        if family == _AF_INET:
            (port,) = struct.unpack_from(">H", address, 2)
            return f"{scheme}://{inet_ntop(_AF_INET, address[4:8])}:{port}"
        if family == _AF_INET6:
            (port,) = struct.unpack_from(">H", address, 2)
            return f"{scheme}://[{inet_ntop(_AF_INET6, address[8:24])}]:{port}"
    except (struct.error, ValueError):
        return ""
    if family != _AF_UNIX:
        return ""
    name = address[2:]
    if name[:1] == b"\0":
        return f"unix://@{os.fsdecode(name[1:])}"
    return f"unix://{os.fsdecode(name.partition(bytes(1))[0])}"
