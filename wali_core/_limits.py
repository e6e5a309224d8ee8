"""What a guest may use up of its host, and no more: computing time, output, processes.

Memory, descriptors and the time by the clock are limited where they are handed out.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import struct
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from _thread import allocate_lock, get_ident

from wali_core._errors import GuestLimit, more_than
from wali_core._stdio import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Final

    from wali_core._link import Hook

_RESOLUTION: Final = 0.01  # seconds: how closely computing time is looked at near its end


class CpuTime:
    """Computing time of whatever runs between ``begin`` and ``end``: of the calling thread.

    In a process of the guest's own it is that of the whole process.  With ``whole_run`` it adds up
    from one beginning to the next; else each has all of it.  ``left`` and ``exceed`` are for any
    thread.
    """

    def __init__(self, seconds: float, *, own_process: bool, whole_run: bool) -> None:
        self._seconds = seconds
        self._whole_run = whole_run
        self._own_process = own_process
        self._clock = time.CLOCK_PROCESS_CPUTIME_ID
        self._used = self._began = 0.0
        self.exceeded = False

    def begin(self) -> None:
        """The guest is about to run, in this thread."""
        if not self._own_process:
            self._clock = time.pthread_getcpuclockid(get_ident())
        if not self._whole_run:
            self._used = 0.0
        self._began = time.clock_gettime(self._clock)

    def end(self) -> None:
        """It does not run any more."""
        self._used += time.clock_gettime(self._clock) - self._began

    def left(self) -> float:
        """How much it has left, in seconds: it cannot be over sooner than that."""
        used = self._used + time.clock_gettime(self._clock) - self._began
        return self._seconds - used

    def patience(self) -> float:
        """In how many seconds to look again; 0 when there is none left."""
        left = self.left()
        return max(left, _RESOLUTION) if left > 0 else 0.0

    def error(self) -> GuestLimit:
        """What has ended the guest."""
        return GuestLimit(
            "cpu_time", f"the guest has computed for its {self._seconds:g} s (limits.cpu_time)"
        )


def limit_cpu_time(seconds: int) -> None:
    """Have the kernel end this process by SIGXCPU when it has computed that long, and its children.

    Each by itself, and in whole seconds from its beginning on (getrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = seconds if soft == resource.RLIM_INFINITY else min(seconds, soft)
    # A second apart: at the hard limit it would be SIGKILL, which says nothing.
    most = wanted + 1 if hard == resource.RLIM_INFINITY else min(wanted + 1, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted, most))


_IOVEC: Final = struct.Struct("<II")
_MESSAGE: Final = struct.Struct("<8xIi")  # the beginning of WALI's struct msghdr
_MOST_VECTORS: Final = 1024


class OutputMeter:
    """Counts what is written to some files of the host's, and ends the guest that writes too much.

    Each file may get ``limit`` bytes; a call that would write more is not made.  What processes
    write that the guest has forked counts as well: the counter is the position in an open file that
    they share, which the kernel moves in one step.  ``read`` gets bytes of the guest's memory, and
    ``host_of`` the host's descriptor of one of its own; both raise ``OSError``.
    """

    def __init__(
        self,
        limit: int,
        hosts: Iterable[int],
        read: Callable[[int, int], bytes],
        host_of: Callable[[int], int],
    ) -> None:
        self._limit = limit
        self._read, self._host_of = read, host_of
        self._counters: dict[tuple[int, int], int] = {}
        for host in hosts:
            file = identity(host)
            if file not in self._counters:
                self._counters[file] = os.memfd_create("output", os.MFD_CLOEXEC)

    def hooks(self) -> dict[str, Hook]:
        """What goes around each call that can write to such a file."""
        plain = dict.fromkeys(("SYS_write", "SYS_pwrite64", "SYS_sendto"), self._around(_plain))
        vectors = ("SYS_writev", "SYS_pwritev", "SYS_pwritev2")
        return {
            **plain,
            **dict.fromkeys(vectors, self._around(self._vectors)),
            "SYS_sendmsg": self._around(self._message),
            "SYS_sendfile": self._around(lambda a: self._left_of(a[1], a[2], a[3])),
            "SYS_copy_file_range": self._around(lambda a: self._left_of(a[0], a[1], a[4]), to=2),
        }

    def _around(self, size_of: Callable[[Sequence[int]], int], to: int = 0) -> Hook:
        """``size_of`` says how much it would write at most; argument ``to`` is the descriptor."""

        def write(arguments: Sequence[int], proceed: Callable[[], int]) -> int:
            try:
                counter = self._counters.get(identity(self._host_of(arguments[to])))
            except OSError:
                return proceed()  # which has an answer to what is wrong
            if counter is None:
                return proceed()
            try:
                size = size_of(arguments)
            except OSError:
                size = 0  # likewise, unless a thread of the guest's has put it right by then
            if os.lseek(counter, 0, os.SEEK_CUR) + size > self._limit:
                raise self._error()
            written = proceed()
            # Looked at again: what a thread of the guest's shares can have changed meanwhile.
            if written > 0 and os.lseek(counter, written, os.SEEK_CUR) > self._limit:
                raise self._error()
            return written

        return write

    def _left_of(self, source: int, offset_at: int, most: int) -> int:
        """How much of another file is left, up to ``most``: its size is for who asks for all."""
        host = self._host_of(source)
        status = os.fstat(host)
        if stat.S_ISREG(status.st_mode):
            at = os.lseek(host, 0, os.SEEK_CUR)
            if offset_at:
                at = int.from_bytes(self._read(offset_at, 8), "little")
            return min(most & 0xFFFFFFFF, max(status.st_size - at, 0))
        # What cannot be positioned the kernel refuses, and a device may have no end.
        return most & 0xFFFFFFFF if stat.S_ISCHR(status.st_mode) else 0

    def _vectors(self, arguments: Sequence[int]) -> int:
        count = arguments[2]
        if not 0 <= count <= _MOST_VECTORS:
            raise OSError(errno.EINVAL, "")
        data = self._read(arguments[1], count * _IOVEC.size)
        return sum(size for _, size in _IOVEC.iter_unpack(data))

    def _message(self, arguments: Sequence[int]) -> int:
        """What a struct msghdr of the guest's holds."""
        vectors, count = _MESSAGE.unpack(self._read(arguments[1], _MESSAGE.size))
        return self._vectors((arguments[0], vectors, count))

    def _error(self) -> GuestLimit:
        return GuestLimit(
            "output", f"the guest wrote more output than its {self._limit} bytes (limits.output)"
        )

    def close(self) -> None:
        """Close the counters."""
        while self._counters:
            os.close(self._counters.popitem()[1])


def _plain(arguments: Sequence[int]) -> int:
    return arguments[2] & 0xFFFFFFFF


_FLOCK: Final = struct.Struct("hhqqi4x")
_EXISTS: Final = b"."


class Processes:
    """How many processes and threads a program is: itself, all that it forks, and so on.

    Each holds the lock on one byte of a file that they share, as long as it lives: what has ended,
    however it did, holds nothing.  (fcntl(2): such a lock is a process's, and no child has it.)

    It is a process's until that closes any descriptor of the file.  So the file is a socket: links
    in procfs lead to it as to others, but nobody can open it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC).detach()
        self._lock = allocate_lock()
        self._own: list[int] = []
        self.add()

    def add(self) -> None:
        """Take a place, for a thread.  Raises ``GuestLimit`` where there are enough."""
        if not self._add():
            raise more_than("processes", self._most)

    def _add(self) -> bool:
        with self._lock:
            for index in range(self._most):
                if index not in self._own and self._take(index):
                    self._own.append(index)
                    return True
        return False

    def remove(self) -> None:
        """Give up a place: a thread has ended."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._own.pop())

    def fork(self) -> int:
        """Fork: 0 in the child, its number in the parent, or ``-errno``.

        Raises ``GuestLimit`` where there are enough.
        """
        if not self._has_room():
            raise more_than("processes", self._most)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
            if pid == 0:
                self._begin(writer)
                return 0
            os.close(writer)
            writer = -1
            if not os.read(reader, 1):
                os.waitpid(pid, 0)
                raise more_than("processes", self._most)
        except OSError as error:
            return -(error.errno or errno.EAGAIN)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        return pid

    def _begin(self, writer: int) -> None:
        """In a child: find a place of its own, or be gone, as if it had never been."""
        self._lock, self._own = allocate_lock(), []
        if not self._add():  # another has just been faster
            os._exit(0)
        os.write(writer, _EXISTS)

    def _has_room(self) -> bool:
        return any(index not in self._own and self._is_free(index) for index in range(self._most))

    def _is_free(self, index: int) -> bool:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, index, 1, 0)
        answer = fcntl.fcntl(self._file, fcntl.F_GETLK, asked)
        return bool(_FLOCK.unpack(answer)[0] == fcntl.F_UNLCK)

    def _take(self, index: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def close(self) -> None:
        """Close the file, and with it give up every place."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
