"""execve(2) of a WALI program: native programs by the kernel, Wasm files in the same process.

A Wasm file takes the place of the program that executes it: its instance, its memory and its
arguments.  The process stays what it is, descriptors and ignored signals included, and no new
interpreter is started, which a confined process could not do.  What can be refused is refused
before: then the call answers, and nothing has changed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from _thread import allocate_lock, get_native_id, start_new_thread
from struct import Struct, iter_unpack

from wali_core import _bridge as bridge
from wali_core._bridge import DESCRIPTOR_CLOEXEC
from wali_core._errors import ModuleError
from wali_core._signals import ALL, set_mask
from wali_core.programs._calls import answering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

    from wali_core._bridge import Context, Core
    from wali_core._engine import Module
    from wali_core.programs._calls import GuestCalls

_MOST: Final = 2 << 20  # bytes of arguments and environment, as with Linux's usual stack
_MOST_OF_ONE: Final = 1 << 17  # with its NUL: MAX_ARG_STRLEN
_MOST_STRINGS: Final = 1 << 17
_HEAD: Final = 256  # bytes that decide what a file is, as in the kernel
_MOST_FILES: Final = 6  # five scripts, and the program that they come to
_MAGIC: Final = b"\0asm"
_ENTRY: Final = Struct("<iHBB")  # struct descriptor
_PATIENCE, _MOMENT = 0.5, 0.0001  # seconds

_libc = ctypes.CDLL(None, use_errno=True)


class Executed(BaseException):
    """The program has executed a Wasm file: it is over, and this goes on in its process."""

    def __init__(self, module: Module, argv: Sequence[bytes], environ: Sequence[bytes]) -> None:
        super().__init__(module)
        self.module, self.argv, self.environ = module, argv, environ
        self.mask = 0
        """The signals that the thread had blocked that executed it, and the program has."""
        self.pending = 0
        """Those that were pending for that thread, and are for the program."""

    def environment(self) -> bytes | None:
        """WALI's file of the environment.  It has no way to write a value with a newline."""
        lines = [pair for pair in self.environ if b"\n" not in pair]
        return b"".join(line + b"\n" for line in lines) if lines else None


class Executor:
    """Serves execve for one program.

    ``load`` compiles a module, from its bytes and a name for it; ``roots`` are the folders and
    files that Wasm may be executed from, None for all; ``make_way`` ends the other
    threads, and says what is to be raised then; ``leave`` is told which native program comes.
    """

    def __init__(
        self,
        calls: GuestCalls,
        load: Callable[[bytes, str], Module],
        roots: Sequence[str] | None,
        make_way: Callable[[int, Executed], BaseException],
        leave: Callable[[bytes], None] | None,
    ) -> None:
        self._calls = calls
        self._load = load
        self._roots = roots
        self._make_way = make_way
        self._leave = leave
        self.execve = answering(self._execve)

    def _execve(self, context: int, path_at: int, argv_at: int, environ_at: int) -> int:
        path = self._calls.string(path_at)
        argv = self._strings(argv_at, _MOST - len(path))
        environ = self._strings(environ_at, _MOST - len(path) - sum(map(len, argv)))
        found = _resolve(path, argv or [b""])
        if found is None:
            if self._leave is not None:
                self._leave(path)
            native = _Native(self._calls.core, context, path, argv, environ)
            return native.execute(self._calls.address_space)
        path, argv = found
        module = self._module(os.fsdecode(path))
        raise self._make_way(context, Executed(module, argv, environ))

    def _strings(self, at: int, most: int) -> list[bytes]:
        """A vector of strings that ends with a NULL; NULL is an empty one.

        E2BIG where they are larger than ``most``, or one of them than the kernel takes.
        """
        found: list[bytes] = []
        while at:
            address = int.from_bytes(self._calls.read(at + 4 * len(found), 4), "little")
            if address == 0:
                break
            if len(found) == _MOST_STRINGS:
                raise OSError(errno.E2BIG, "")
            found.append(self._calls.text(address, _MOST_OF_ONE))
            most -= len(found[-1])
            if most < 0 or len(found[-1]) >= _MOST_OF_ONE:
                raise OSError(errno.E2BIG, "")
        return found

    def _module(self, path: str) -> Module:
        if self._roots is not None and not _lies_in(path, self._roots):
            raise OSError(errno.EACCES, "")
        with open(path, "rb") as file:
            data = file.read()
        try:
            module = self._load(data, path)
        except ModuleError as error:
            raise OSError(errno.ENOEXEC, "") from error
        if not module.is_program:
            raise OSError(errno.ENOEXEC, "")
        return module


def _lies_in(path: str, roots: Sequence[str]) -> bool:
    place = os.path.realpath(path)
    return any(place == root or place.startswith(root.rstrip("/") + "/") for root in roots)


def _resolve(path: bytes, argv: list[bytes]) -> tuple[bytes, list[bytes]] | None:
    """The Wasm file that a path comes to, through scripts, with its arguments; None: no such."""
    script = path
    for _ in range(_MOST_FILES):
        head = _head(script)
        if head.startswith(_MAGIC):
            return script, argv
        if not head.startswith(b"#!"):
            return None
        line = head[2:].partition(b"\n")[0].partition(b"\0")[0]
        words = line.strip(b" \t").split(None, 1)
        if not words:
            return None
        argv = [words[0], *(word.strip(b" \t") for word in words[1:]), script, *argv[1:]]
        script = words[0]
    return None  # the kernel says what is wrong


def _head(path: bytes) -> bytes:
    """The first bytes of a file that may be executed; nothing of any other."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""  # the kernel says what is wrong
    try:
        return os.read(fd, _HEAD) if _may_execute(os.fstat(fd)) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def _may_execute(status: os.stat_result) -> bool:
    """By its permissions, as access(2) has it for the effective user."""
    if not stat.S_ISREG(status.st_mode):
        return False
    if os.geteuid() == 0:
        return status.st_mode & 0o111 != 0
    if status.st_uid == os.geteuid():
        return status.st_mode & stat.S_IXUSR != 0
    if status.st_gid == os.getegid() or status.st_gid in os.getgroups():
        return status.st_mode & stat.S_IXGRP != 0
    return status.st_mode & stat.S_IXOTH != 0


# --- descriptors ----------------------------------------------------------------------------------


def descriptors(context: Context) -> Iterator[tuple[int, int, int]]:
    """What is open: the guest's number, the host's and the flags."""
    table = context.table.contents
    data = ctypes.string_at(table.descriptors, table.capacity * _ENTRY.size)
    for number, (host, flags, _, _) in enumerate(iter_unpack(_ENTRY.format, data)):
        if host >= 0:
            yield number, host, flags


def keep_from_native_programs() -> None:
    """Close what this process was started with, its streams apart, where it becomes a native one.

    They are whatever the one who called ``wali`` had open.  A WALI program has no numbers for them;
    a native one that it executes would.
    """
    if _libc.syscall(_CLOSE_RANGE, 3, -1, _RANGE_CLOEXEC) < 0:
        _close_on_exec()


def _close_on_exec() -> None:
    """All but the standard streams, before Linux 5.11."""
    for number in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2}:
        try:
            os.set_inheritable(number, False)
        except OSError:
            pass  # that of the listing


# --- native programs ------------------------------------------------------------------------------


class _Native:
    """The kernel's execve, by a thread that has descriptors of its own.

    It gives them the guest's numbers, and where the execution fails nobody else has seen that.
    Where it does not, the kernel gives that thread the process's number and ends all others.
    Signals that come meanwhile are this thread's, and are not lost: see ``core.interruptible``; and
    what has come to others by then they have handled.
    """

    def __init__(
        self, core: Core, context: int, path: bytes, argv: Sequence[bytes], environ: Sequence[bytes]
    ) -> None:
        self._core = core
        self._context = bridge.Context.from_address(context)
        self._words = ctypes.c_char_p(path), _vector(argv), _vector(environ)
        tid = get_native_id()
        self._running = next(one for one in core.running if one.tid == tid)
        self._death = ctypes.c_int()
        _libc.prctl(_GET_PDEATHSIG, ctypes.byref(self._death))
        self._ended = allocate_lock()
        self._memory = (ctypes.c_uint64 * 2)()
        self._limit: ctypes.Array[ctypes.c_uint64] | None = None
        self._mask = 0
        self._result = 0

    def execute(self, limit: tuple[int, int] | None) -> int:
        """``-errno``, or that a signal has come before.  ``limit`` is RLIMIT_AS."""
        _libc.prlimit64(0, _RLIMIT_AS, None, self._memory)
        if limit:
            self._limit = (ctypes.c_uint64 * 2)(limit[0], self._memory[1])  # there is a way back
        tid, self._mask = self._running.tid, set_mask(ALL)
        if not self._context.signal:
            self._ended.acquire()
            try:
                start_new_thread(self._run, ())
                self._ended.acquire()
            except RuntimeError:
                self._result = -errno.EAGAIN
            self._running.tid = tid
        if self._context.signal:  # everything stays blocked until its handler runs
            return _ABORTED
        set_mask(self._mask)
        return self._result

    def _run(self) -> None:
        try:
            _lay_out(self._context)
            _libc.prctl(_SET_PDEATHSIG, self._death)  # a thread's
            self._running.tid = get_native_id()
            self._await_handlers()
            set_mask(self._mask)
            words = (ctypes.cast(word, ctypes.c_void_p).value for word in self._words)
            signal = ctypes.addressof(self._context) + _SIGNAL
            _libc.prlimit64(0, _RLIMIT_AS, self._limit, None)
            self._result = self._core.interruptible(*words, 0, 0, 0, _EXECVE, signal)
            _libc.prlimit64(0, _RLIMIT_AS, self._memory, None)
        except OSError as error:
            self._result = -(error.errno or errno.EIO)
        finally:
            set_mask(ALL)
            self._ended.release()

    def _await_handlers(self) -> None:
        """Wait until no other thread has a signal in flight: it would end with that.

        Natively a handler begins at once, where a thread of the program's may have some way to go
        to a safepoint.  One that has not been there for long is not waited for.
        """
        running = self._core.running
        tids = memoryview(running).cast("B").cast("q").tolist()[::2]
        others = [running[i] for i, tid in enumerate(tids) if tid not in (0, self._running.tid)]
        until = time.monotonic() + _PATIENCE
        while any(map(_has_signal, others)) and time.monotonic() < until:
            time.sleep(_MOMENT)


def _has_signal(thread: bridge.Running) -> bool:
    """Has a thread one in flight?  One that has ended has none, nor a context."""
    context = thread.context if thread.tid else None
    return context is not None and bridge.Context.from_address(context).signal != 0


def _lay_out(context: Context) -> None:
    """Give the calling thread descriptors of its own, and those the guest's numbers.

    What it is not to keep, the runtime's as well, is closed when it executes.
    """
    if _libc.syscall(_CLOSE_RANGE, 3, -1, _RANGE_CLOEXEC | _RANGE_UNSHARE) < 0:
        if _libc.unshare(_CLONE_FILES) < 0:
            raise OSError(ctypes.get_errno(), "")
        _close_on_exec()
    kept = [(n, host) for n, host, flags in descriptors(context) if not flags & DESCRIPTOR_CLOEXEC]
    above = 1 + max((number for number, _ in kept), default=2)  # where none is put over another
    moved = [(number, _fcntl(host, _DUPFD_CLOEXEC, above)) for number, host in kept]
    for number, high in moved:
        os.dup2(high, number, inheritable=True)
    for number in {0, 1, 2} - {number for number, _ in kept}:
        try:
            os.close(number)
        except OSError:
            pass  # nothing was there


_DUPFD_CLOEXEC: Final = 1030
_CLOSE_RANGE, _RANGE_UNSHARE, _RANGE_CLOEXEC = 436, 2, 4
_CLONE_FILES: Final = 0x400
_EXECVE: Final = 221 if os.uname().machine == "aarch64" else 59
_SET_PDEATHSIG, _GET_PDEATHSIG = 1, 2
_RLIMIT_AS: Final = 9
_ABORTED: Final = -512  # of the core's: the call is made again
_SIGNAL: Final = bridge.Context.signal.offset  # type: ignore[attr-defined]


def _fcntl(fd: int, command: int, argument: int) -> int:
    result: int = _libc.fcntl(fd, command, argument)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def _vector(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)
