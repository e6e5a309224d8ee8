"""What native programs ask for that a WALI program executes, while a policy is learned from it.

They are not ours to go around: the kernel stops them in each call (seccomp_unotify(2)), and tells
this process, which looks what the call names, notes it down, and lets it go on.  It decides
nothing.  A result is not seen, so it is foreseen by what is there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import time

from capabilities import Event, access_of
from capabilities.lockdown.seccomp import ABSENT
from wali_core._audit import beneath, detour, what_is_at
from wali_core._elf import interpreters_of
from wali_core._filter import KERNEL_CALLS, VFORK
from wali_core._table import CALLS
from wali_core.programs._audit_program import (
    address_text,
    follows,
    kind_of,
    names_others,
    open_access,
    paths_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    from capabilities import Access
    from wali_core._table import Call

_ON_X86_64: Final = os.uname().machine == "x86_64"
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER: Final = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*
_CONTINUE: Final = 1
_PROT_EXEC: Final = 4
_CLONE_THREAD: Final = 0x10000
_AT_FDCWD: Final = -100
_STRING_MAX: Final = 4096
_ADDRESS_MAX: Final = 128

_CALLS: Final[dict[int | None, Call]] = {
    row.x86_64 if _ON_X86_64 else row.aarch64: row for row in CALLS
}
_GRANTED: Final = {
    row[1] if _ON_X86_64 else row[2] for row in KERNEL_CALLS if "execve" in row[3].split()
}
_NEWER: Final = 424  # from there on calls answer ENOSYS, and libcs do without
_MMAP, _CLONE, _CLONE3 = (9, 56, 435) if _ON_X86_64 else (222, 220, 435)


class Follower:
    """Notes down, to ``record``, what native programs ask for whose listeners come by a socket."""

    def __init__(self, channel: socket.socket, record: int) -> None:
        self._channel, self._record = channel, record
        self._first = 0
        self._listeners: set[int] = set()
        self._written: set[tuple[object, ...]] = set()
        self._opened: dict[str, set[str]] = {}  # by what a file is, the names it was opened by

    def until_end_of(self, pid: int) -> None:
        """Follow until a process has ended."""
        self._first = pid
        end = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(end, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        try:
            while end not in (ready := dict(poll.poll())):
                for fd, events in ready.items():
                    if fd == self._channel.fileno():
                        self._take(poll)
                    elif events & select.POLLIN:
                        self._hear(fd)
                    else:
                        poll.unregister(fd)
                        self._listeners.remove(fd)
                        os.close(fd)
        finally:
            for fd in (end, *self._listeners):
                os.close(fd)

    def _take(self, poll: select.poll) -> None:
        said, fds, _, _ = socket.recv_fds(self._channel, 1, 1)
        if not said:
            poll.unregister(self._channel)
        for fd in fds:
            os.set_inheritable(fd, False)
            self._listeners.add(fd)
            poll.register(fd, select.POLLIN)

    def _hear(self, listener: int) -> None:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
        except OSError:
            return  # whoever asked is gone
        about, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        try:
            for event in self._events(pid, number, arguments):
                self._write(event)
        except OSError:
            pass  # it is gone, or its memory cannot be read
        try:
            fcntl.ioctl(listener, _SEND, _ANSWER.pack(about, 0, 0, _CONTINUE))
        except OSError:
            pass

    def _write(self, event: Event) -> None:
        key = event.pid, event.syscall, event.resource, event.access, event.result, event.via
        if key not in self._written:
            self._written.add(key)
            os.write(self._record, event.line().encode())

    # --- what a call names ------------------------------------------------------------------------

    def _events(self, pid: int, number: int, arguments: Sequence[int]) -> Iterator[Event]:
        if number == _MMAP:
            yield from self._mapped(pid, arguments)
        elif number in (_CLONE, _CLONE3):
            flags = arguments[0]
            if number == _CLONE3:
                flags = int.from_bytes(_memory(pid, flags, 8), "little")
            if not flags & _CLONE_THREAD:
                yield _event(pid, "fork")
        elif number == VFORK and _ON_X86_64:
            yield _event(pid, "fork")
        elif number not in _CALLS:
            if number not in _GRANTED and number not in ABSENT and number < _NEWER:
                yield _event(pid, f"call {number}")
        else:
            call = _CALLS[number]
            kinds = call.arguments.split()
            yield _event(pid, call.name)
            access = access_of(call.name)
            if access is not None:
                for place in paths_of(kinds):
                    yield from self._on_path(pid, call.name, access, arguments, place)
            else:
                yield from self._on_others(pid, call.name, arguments)

    def _on_others(self, pid: int, call: str, arguments: Sequence[int]) -> Iterator[Event]:
        """Of sockets, and of other processes."""
        if call in ("connect", "bind"):
            yield from _on_socket(pid, call, arguments)
        elif call in ("socket", "socketpair"):
            domain, kind, protocol = map(_signed, arguments[:3])
            yield _event(pid, call, kind_of(domain, kind, protocol))
        elif call == "kill":
            named = _signed(arguments[0])
            if names_others(named, self._first):
                yield _event(pid, call, f"another process{' group' if named < 0 else ''}")

    def _mapped(self, pid: int, arguments: Sequence[int]) -> Iterator[Event]:
        """A library is executed where it is mapped, under each name that it was opened by."""
        fd = _signed(arguments[4])
        if not arguments[2] & _PROT_EXEC or fd < 0:
            return
        real = os.readlink(f"/proc/{pid}/fd/{fd}")
        for path in self._opened.get(real, ()):
            yield _of_file(pid, "mmap", path, "execute", "0")

    def _on_path(
        self,
        pid: int,
        call: str,
        access: Access,
        arguments: Sequence[int],
        place: tuple[int | None, int],
    ) -> Iterator[Event]:
        directory, at = place
        if not arguments[at]:
            return
        said = _memory(pid, arguments[at], _STRING_MAX).partition(b"\0")[0]
        from_cwd = directory is None or _signed(arguments[directory]) == _AT_FDCWD
        where = "cwd" if from_cwd else f"fd/{_signed(arguments[directory or 0])}"
        folder = None if said.startswith(b"/") else os.readlink(f"/proc/{pid}/{where}")
        path = beneath(folder, said) if said else None
        if path is None or path.startswith("/proc/"):
            return
        if call in ("open", "openat", "openat2"):
            flags = arguments[at + 1]
            if call == "openat2":
                flags = int.from_bytes(_memory(pid, flags, 8), "little")
            access = open_access(flags, path)
            self._opened.setdefault(os.path.realpath(path), set()).add(path)
        result = _foreseen(path, access, call)
        relative = from_cwd and not said.startswith(b"/")
        yield _of_file(
            *(pid, call, path, access, result, detour(folder, said)),
            relative=relative,
            link=not follows(call, arguments) and os.path.islink(path),
        )
        if access == "execute" and result == "0":
            here = os.readlink(f"/proc/{pid}/cwd")
            for written in interpreters_of(path, here):
                interpreter = os.path.join(here, written)
                result = _foreseen(interpreter, access, call)
                relative = not os.path.isabs(written)
                yield _of_file(pid, call, interpreter, access, result, relative=relative)


def _signed(argument: int) -> int:
    return ctypes.c_int32(argument).value


def _memory(pid: int, at: int, size: int) -> bytes:
    """Bytes of a process's memory, fewer where that ends."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        rest = _PAGE - at % _PAGE  # never into a page that may not be there
        data = os.pread(fd, min(size, rest), at)
        if len(data) < size and b"\0" not in data:
            data += os.pread(fd, size - len(data), at + len(data))
        return data
    finally:
        os.close(fd)


_PAGE: Final = 4096


def _foreseen(path: str, access: Access, call: str) -> str:
    """What a call will answer, as far as what is there decides it."""
    there = os.path.lexists(path)
    if access == "make":
        makes_new = call.startswith(("mkdir", "mknod", "symlink"))
        if makes_new and there:
            return "EEXIST"
        removes = call.startswith(("unlink", "rmdir"))
        writable = os.access(os.path.dirname(path), os.W_OK)
        return ("ENOENT" if removes and not there else "0") if writable else "EACCES"
    if not there:
        return "ENOENT"
    if call.startswith("readlink") and not os.path.islink(path):
        return "EINVAL"
    mode = {"look": os.F_OK, "read": os.R_OK, "write": os.W_OK, "execute": os.X_OK}[access]
    return "0" if os.access(path, mode) or os.path.islink(path) else "EACCES"


def _event(pid: int, call: str, resource: str = "") -> Event:
    return Event(time.time(), pid, call, resource, "", "granted", "default", "0")


def _of_file(
    pid: int,
    call: str,
    path: str,
    access: Access,
    result: str,
    via: str | None = None,
    *,
    relative: bool = False,
    link: bool = False,
) -> Event:
    real, directory = what_is_at(path, link=link or "readlink" in call)
    return Event(
        time.time(),
        pid,
        call,
        path,
        access,
        "granted",
        "default",
        result,
        host=path,
        real=real,
        directory=directory,
        relative=relative,
        via=via,
        link=link,
    )


def _on_socket(pid: int, call: str, arguments: Sequence[int]) -> Iterator[Event]:
    address = _memory(pid, arguments[1], min(arguments[2] & 0xFFFFFFFF, _ADDRESS_MAX))
    resource = address_text(address, "tcp")
    path = resource.removeprefix("unix://")
    if resource and (call == "bind" or not path.startswith("/") or os.path.exists(path)):
        yield _event(pid, call, resource)


# --- in the process that becomes a native program -------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_SECCOMP: Final = 317 if _ON_X86_64 else 277
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_NO_NEW_PRIVS: Final = 38
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _RETURN, _FIRST_AT = 0x20, 0x15, 0x06, 16  # classic BPF, struct seccomp_data
_SENDMSG: Final = 46 if _ON_X86_64 else 211
# What names nothing, and is granted to every process that may execute: by _filter.py's names.
_UNSEEN: Final = frozenset(
    (
        *("read", "write", "readv", "writev", "close", "lseek", "munmap", "mremap", "mprotect"),
        *("madvise", "brk", "futex", "exit", "exit_group", "rt_sigaction", "rt_sigprocmask"),
        *("rt_sigreturn", "sigaltstack", "restart_syscall", "clock_gettime", "fstat"),
        *("set_robust_list", "rseq", "arch_prctl", "set_tid_address", "prlimit64", "getrandom"),
        *("getpid", "gettid", "fcntl", "ioctl", "prctl", "sched_yield", "sched_getaffinity"),
    )
)


class Record:
    """Where a run is written down: ``file``, and who follows the native programs in it."""

    def __init__(self, file: int, follower: socket.socket) -> None:
        self.file = file
        self._follower = follower

    def hand_over(self, path: bytes) -> None:
        """Have the follower told what this thread asks for from now on.

        It is about to become the native program of that ``path``: where there is none, or it is
        being followed already, nothing is done.
        """
        if not os.access(path, os.X_OK) or not os.path.isfile(path):
            return
        instructions = _program(self._follower.fileno())
        address = ctypes.cast(ctypes.c_char_p(instructions), ctypes.c_void_p).value
        program = struct.pack("@HP", len(instructions) // 8, address)
        _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        listener = _libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, program)
        if listener < 0:
            return  # it is, or the kernel cannot
        socket.send_fds(self._follower, [b"l"], [listener])
        os.close(listener)


def _program(channel: int) -> bytes:
    """What the kernel does with a call: it tells of each, but for those that name nothing.

    And but for the one that hands the listener over, before which nobody would answer.
    """
    unseen = [(row[1] if _ON_X86_64 else row[2]) for row in KERNEL_CALLS if row[0] in _UNSEEN]
    numbers = [number for number in unseen if number is not None]
    code = [(_LOAD, 0, 0, 0)]
    for number in numbers:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    code += [(_EQUAL, 0, 3, _SENDMSG), (_LOAD, 0, 0, _FIRST_AT), (_EQUAL, 0, 1, channel)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
