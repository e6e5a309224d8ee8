"""Programs in processes of their own, as their embedder sees them: started, watched, ended.

The process that starts them is a launcher (``_launcher``): a new interpreter, with one thread
however many the embedder has.  Nothing but ``Launcher`` knows of it.
"""

from __future__ import annotations

import _socket
import fcntl
import json
import os
import select
import sys
import time
import weakref
from _thread import allocate_lock
from typing import TYPE_CHECKING

from wali_core._ending import Ending
from wali_core._errors import (
    GuestDenied,
    GuestError,
    GuestLimit,
    GuestTimeout,
    GuestTrap,
    ModuleError,
    PolicyError,
    UseError,
    WaliError,
    ended_by,
)
from wali_core._monitor import collect, interruptible
from wali_core.processes._order import MOST_MODULES, Descriptors, Order, send
from wali_core.processes._supervisor import report_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from wali_core._engine import Module
    from wali_core._grants import Grants
    from wali_core._stdio import Streams
    from wali_core.processes._order import Setting

_LOST: Final = "the process that the program ran in was lost: somebody has killed its supervisor"
_REPORT_BYTES: Final = 4096
_ANSWER_BYTES: Final = 1 << 20  # more than any error has to say


def run_program(start: Callable[[], Running], streams: Streams) -> Ending:
    """Run a program in a process of its own, until it ends, or until the deadline of its grants.

    Raises what the runtime there raised, ``GuestTimeout``, and ``GuestError`` for too much output.
    Nothing of it is left behind, however it ends.
    """
    running = start()
    try:
        try:
            _watch(running.control, streams, running.deadline, running.seconds)
        finally:
            running.shut_down()
            while running.hear():
                pass
        return running.ending()
    finally:
        running.close()


class Running:
    """A program that has been started in a process of its own.  To be closed, once it has ended.

    ``control`` becomes readable when it ends.  ``deadline`` and ``seconds`` are those of its
    grants: whoever has started it watches the time.
    """

    def __init__(
        self,
        launcher: Launcher,
        module: Module,
        argv: Sequence[bytes],
        grants: Grants,
        streams: Streams,
    ) -> None:
        self.deadline, self.seconds = grants.deadline, grants.wall_time or 0.0
        grants.deadline = grants.wall_time = None
        self._launcher = launcher
        self._started, self._report = False, b""
        self.control, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        _not_for_children.add(self.control)
        self._owned = [os.memfd_create("answer", os.MFD_CLOEXEC)]
        try:
            self._owned.append(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            given = {number: fd for number, fd in enumerate(streams.host) if fd >= 0}
            order = Order(
                module, argv0=argv[0], args=argv[1:], grants=grants, streams=given, umask=_umask()
            )
            descriptors = Descriptors(theirs.fileno(), *self._owned, *given.values())
            launcher.start(module, order, descriptors)
            self._started = True
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()

    def shut_down(self) -> None:
        """Have all that is left of the program ended."""
        self.control.shutdown(_socket.SHUT_WR)

    def hear(self) -> bool:
        """Wait for the next of its words.  False when it has ended, and nothing of it is left."""
        words = self.control.recv(_REPORT_BYTES)
        self._report = words or self._report
        return bool(words)

    def ending(self) -> Ending:
        """How it went.  Raises what the runtime over there has raised."""
        return _result(self._report, self._owned[0])

    def close(self) -> None:
        """Close what was for the program."""
        _not_for_children.discard(self.control)
        self.control.close()
        while self._owned:
            os.close(self._owned.pop())
        if self._started:
            self._launcher.done()


def _watch(
    control: _socket.socket, streams: Streams, deadline: float | None, seconds: float
) -> None:
    """Collect output until the program has ended.  Raises at the deadline, or at too much."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    for capture in streams.captures:
        poller.register(capture.read_end, select.POLLIN)
    while True:
        left = None if deadline is None else (deadline - time.monotonic()) * 1000
        if left is not None and left <= 0:
            raise GuestTimeout(seconds)
        ready = {fd for fd, _ in interruptible(poller.poll, left)}
        collect(streams.captures, ready)
        reasons = [capture.reason for capture in streams.captures if capture.exceeded]
        if reasons:
            raise ended_by(reasons[0])
        if control.fileno() in ready:
            return


def _result(report: bytes, answers: int) -> Ending:
    """How it went: an exception of the runtime's over there, or a status."""
    os.lseek(answers, 0, os.SEEK_SET)
    with open(answers, "rb", closefd=False) as file:
        data = file.read(_ANSWER_BYTES)
    if data:
        raise _error(data)
    if not report:
        raise GuestError(_LOST)
    status, usage = report_of(report)
    return Ending(os.waitstatus_to_exitcode(status), usage=usage)


_KINDS = {
    kind.__name__: kind for kind in (GuestError, ModuleError, PolicyError, UseError, WaliError)
}


def _error(data: bytes) -> Exception:
    """The error that the other process described.  Whatever it says, it is only text."""
    try:
        words = json.loads(data)
        message = str(words["message"])
        if words["kind"] == "GuestTrap":
            return GuestTrap(message, tuple(str(frame) for frame in words["frames"]))
        if words["kind"] == "GuestDenied":
            return GuestDenied(str(words["call"]))
        if words["kind"] == "GuestLimit":
            return GuestLimit(str(words["limit"]), message)
        if words["kind"] in _KINDS:
            return _KINDS[words["kind"]](message)
        return OSError(int(words["errno"] or 0), message, str(words["filename"]) or None)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return GuestError(f"the program's process left an answer that cannot be read: {error}")


def _umask() -> int:
    """That of umask(2), which can only be read there by changing it for all threads."""
    with open("/proc/self/status", "rb") as file:
        return next(int(line.split()[1], 8) for line in file if line.startswith(b"Umask:"))


# --- the launcher ---------------------------------------------------------------------------------

_NUMBER: Final = 3  # its socket is there
_CODE: Final = (
    f"import sys; sys.path[:] = sys.argv[1:]; from wali_core._launcher import main; main({_NUMBER})"
)


class Launcher:
    """Starts programs that have a policy in common.  May be shared between threads.

    The first ``start`` makes the process that does it; ``close`` lets that end.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._artefacts: dict[str, int] = {}  # descriptors, by the keys of modules
        self.forget()
        _launchers.add(self)

    def forget(self) -> None:
        """In a forked child: what is there is the parent's."""
        self._lock = allocate_lock()
        self._socket: _socket.socket | None = None
        self._pid = 0
        self._identity: tuple[object, ...] = ()
        self._ending: list[int] = []  # processes that have been told to
        self._running = 0

    def start(self, module: Module, order: Order, descriptors: Descriptors) -> None:
        """Have a program started; call ``done`` when it has ended.

        Raises ``GuestError`` where there can be no launcher.
        """
        with self._lock:
            artefact = self._artefact(module)
            if self._socket is not None and self._identity != _identity():
                self._drop()
            for _ in range(2):
                try:
                    send(self._connect(), order, [artefact, *descriptors.all()])
                except ConnectionError:  # somebody has killed it
                    self._drop()
                else:
                    self._running += 1
                    return
        raise GuestError(f"{sys.executable}: no process can be started that starts programs")

    def done(self) -> None:
        """Take note of the end of a program that was started."""
        with self._lock:
            self._running -= 1
            self._reap()

    def close(self) -> None:
        """Let the process end.  Programs that are running go on."""
        with self._lock:
            self._drop()
            self._reap()
            while self._artefacts:
                os.close(self._artefacts.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def _artefact(self, module: Module) -> int:
        found = self._artefacts.get(module.key)
        if found is None:
            while len(self._artefacts) >= MOST_MODULES:
                os.close(self._artefacts.pop(next(iter(self._artefacts))))
            found = self._artefacts[module.key] = module.artefact()
        return found

    def _connect(self) -> _socket.socket:
        if self._socket is None:
            self._socket = self._spawn()
            _not_for_children.add(self._socket)
            send(self._socket, self._setting)
        return self._socket

    def _spawn(self) -> _socket.socket:
        if not sys.executable:
            raise UseError("sys.executable names no Python: WALI programs cannot be started")
        socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        high = -1
        try:
            high = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, _NUMBER + 1)  # not there already
            self._identity = _identity()
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *_flags(), "-c", _CODE, *_path()],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, high, _NUMBER),
                ],
                setsigmask=(),
            )
        except BaseException:
            socket.close()
            raise
        finally:
            theirs.close()
            if high >= 0:
                os.close(high)
        return socket

    def _drop(self) -> None:
        if self._socket is not None:
            _not_for_children.discard(self._socket)
            self._socket.close()
            self._socket = None
            self._ending.append(self._pid)

    def _reap(self) -> None:
        """Wait for what ends at once: a launcher stays as long as a program that it started."""
        options = os.WNOHANG if self._running else 0
        self._ending = [pid for pid in self._ending if not _has_ended(pid, options)]


def _has_ended(pid: int, options: int) -> bool:
    try:
        return os.waitpid(pid, options)[0] == pid
    except ChildProcessError:  # the embedder waits for any child, or ignores SIGCHLD
        return True


def _identity() -> tuple[object, ...]:
    """What a launcher has from its embedder, and cannot change when that does."""
    return (
        *(os.getpid(), os.getsid(0), os.getpgrp()),
        *(os.getresuid(), os.getresgid(), os.getgroups()),
    )


def _flags() -> list[str]:
    """Options for an interpreter that looks at nothing but what it is told, as this one would."""
    flags = ["-I", "-S", "-X", f"utf8={sys.flags.utf8_mode}"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.pycache_prefix is not None:
        flags += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return flags


def _path() -> list[str]:
    """Where this interpreter finds packages, us among them."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return list(dict.fromkeys([*map(os.path.abspath, sys.path), own]))


_launchers: weakref.WeakSet[Launcher] = weakref.WeakSet()
_not_for_children: set[_socket.socket] = set()
"""Connections by whose end others know that this process is gone."""


def _leave_to_parent() -> None:
    for socket in _not_for_children:
        socket.close()
    _not_for_children.clear()
    for launcher in _launchers:
        launcher.forget()


os.register_at_fork(after_in_child=_leave_to_parent)
