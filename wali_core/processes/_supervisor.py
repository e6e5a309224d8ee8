"""The end of processes, with all that they have started: whatever they did to get away.

A process that becomes a *subreaper* (prctl(2)) is the new parent of every descendant whose own
parent is gone, be it in another session or group.  So it can find them all, and nothing that it has
found can leave.

``supervise`` looks after a program that somebody in another process has ordered, ``stay_behind``
after one that has taken the place of this very process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal wraps it in enums, which takes a while
import _socket
import ctypes
import os
import resource
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

# What a terminal sends to all that run in its foreground, and what comes to a whole group: the
# programs are to act on it, and whoever looks after them must stay for that.
_NOT_FOR_US: Final = (
    *(_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGPIPE),
    *(_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGUSR1, _signal.SIGUSR2),
)
# WebAssembly's traps arrive as these: their handlers are wasmtime's and the core's.
_FAULTS: Final = frozenset((_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGILL, _signal.SIGFPE))
_NOT_TO_BE_SET: Final = frozenset((_signal.SIGKILL, _signal.SIGSTOP))

_prctl = ctypes.CDLL(None).prctl
_prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def adopt_orphans() -> None:
    """Become a subreaper, of what is forked from here on.  Forked children are none."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends.  It holds for this process alone, not for what it forks."""
    _prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it was gone before the kernel was told


def leave_signals_to_others() -> None:
    """Ignore what a whole group or a terminal's foreground is sent."""
    for number in _NOT_FOR_US:
        _signal.signal(number, _signal.SIG_IGN)


def reset_signals() -> None:
    """Give every signal its default action, as a program starts with, and block none."""
    _signal.set_wakeup_fd(-1)
    for number in _signal.valid_signals() - _FAULTS - _NOT_TO_BE_SET:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


class Deaths:
    """Makes a descriptor readable, ``read_end``, when a child has ended."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda _number, _frame: None)

    def clear(self) -> None:
        """Wait for the next: call this, then look who it was."""
        try:
            os.read(self.read_end, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """In a forked child, whose children are others."""
        _signal.set_wakeup_fd(-1)
        for fd in (self.read_end, self._write_end):
            os.close(fd)


def children() -> list[int]:
    """The children of this process, which has one thread, those that have ended included."""
    try:
        return _children_of("thread-self")
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return children_by_search()


def _children_of(thread: str) -> list[int]:
    with open(f"/proc/{thread}/children", "rb") as file:
        return [int(word) for word in file.read().split()]


def children_by_search() -> list[int]:
    """The same, by looking at every process that there is."""
    own = os.getpid()
    return [pid for pid, parent in _parents().items() if parent == own]


def _parents() -> dict[int, int]:
    """The parent of every process that there is."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid: parent for pid in pids if (parent := _parent_of(pid)) is not None}


def _parent_of(pid: int) -> int | None:
    """None for one that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def end_descendants(but: Collection[int] = ()) -> None:
    """Kill all children, all theirs, and so on, and reap them; ``but`` are spared.

    They are stopped first, all of them: else those that are still there could start others as fast
    as they are killed.  What has gained privileges that this process has not (set-uid) can be
    neither stopped nor killed, and is left.
    """
    spared = set(but)
    _stop_descendants(spared)
    while doomed := set(children()) - spared:
        for pid in doomed:
            try:
                os.kill(pid, _signal.SIGKILL)
            except PermissionError:
                spared.add(pid)
        for pid in doomed - spared:
            os.waitpid(pid, 0)  # from here on its children are ours: look again


def _stop_descendants(spared: Collection[int]) -> None:
    """Stop them until there are no others: one that is stopped starts none."""
    stopped: set[int] = set()
    while found := _stop_more(stopped, spared):
        stopped |= found


def _stop_more(stopped: set[int], spared: Collection[int]) -> set[int]:
    """Stop the children of those that are stopped already, and of this process; which those are."""
    own, found = os.getpid(), set()
    for pid, parent in _parents().items():
        known = parent == own or parent in stopped or parent in found
        if known and pid not in stopped and pid not in spared and _stop(pid, parent):
            found.add(pid)
    return found


def _stop(pid: int, parent: int) -> bool:
    """Stop a process that is some process's child.  False for one that is not to be found."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Its number may mean another by now: whose child it is says that it does not.
        if _parent_of(pid) not in (parent, os.getpid()):
            return False
        _signal.pidfd_send_signal(fd, _signal.SIGSTOP)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # and yet its children are
    finally:
        os.close(fd)
    return True


def supervise(
    control: _socket.socket, start: Callable[[int], NoReturn], release: Callable[[], None]
) -> NoReturn:
    """Fork a program; end when it ends, or when the other end of ``control`` is closed.

    Either way nothing of it is left when this process is gone.  Where it has ended by itself, the
    other end is told its wait status and the usage of all that it was (``report_of``).

    ``start`` gets a descriptor that is at its end when the program must be; ``release`` gives back
    what is the program's alone.
    """
    adopt_orphans()
    deaths = Deaths()
    # Sockets: a pipe could be opened once more, to write, by a program that finds it in procfs.
    lifeline, held = (end.detach() for end in _socket.socketpair())
    os.set_blocking(lifeline, False)
    own = os.getpid()
    program = os.fork()
    if program == 0:
        deaths.close()
        control.close()
        os.close(held)
        die_with_parent(own)
        reset_signals()
        start(lifeline)
    os.close(lifeline)
    release()
    status = _wait(program, control, deaths)
    os.close(held)
    end_descendants()
    if status is not None:
        _report(control, status)
    os._exit(0)


def _wait(program: int, control: _socket.socket, deaths: Deaths) -> int | None:
    """The program's wait status; None when it is to be ended."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(deaths.read_end, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll()}
        deaths.clear()
        pid = -1
        while pid:  # orphans that it has left are reaped on the way
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == program:
                return status
        if control.fileno() in ready:
            return None


def _report(control: _socket.socket, status: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = " ".join(map(repr, (status, *usage)))
    try:
        control.send(words.encode(), _socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        pass  # nobody wants to know any more


def report_of(words: bytes) -> tuple[int, resource.struct_rusage]:
    """What ``supervise`` tells: a wait status and the usage."""
    status, *usage = words.split()
    seconds, counts = usage[:2], usage[2:]
    return int(status), resource.struct_rusage((*map(float, seconds), *map(int, counts)))


# --- for a command --------------------------------------------------------------------------------

TIMED_OUT: Final = 124
"""The status of a process that was out of time, as timeout(1) gives it."""

_GRACE: Final = 0.2  # seconds: what watches its time itself does so, and says more
_FROM_THE_KERNEL: Final = 0x80  # SI_KERNEL (sigaction(2)): a terminal's, which the program got too


def stay_behind(deadline: float, late: bytes) -> None:
    """Fork: the child returns, to be the program, and this process stays until it has ended.

    For a program that may become a native one, in which nothing of ours looks at the time.  At the
    deadline (monotonic) it is ended with all that it has started, and ``late`` is said.  Otherwise
    this process ends as the program does, and nothing is left either.  Until then it does what the
    program's would: signals go on to it, and when it is stopped, so is this one.
    """
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    adopt_orphans()
    own = os.getpid()
    program = os.fork()
    if program == 0:
        die_with_parent(own)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        return
    status = _pass_on(program, deadline + _GRACE)
    if status is None:
        os.write(2, late)
    end_descendants()
    _end_as(TIMED_OUT << 8 if status is None else status)


def _pass_on(program: int, until: float) -> int | None:
    """Hand signals on until it ends.  Its wait status, or None when it is time."""
    every = _signal.valid_signals()
    while True:
        signal = _signal.sigtimedwait(every, max(0.0, until - time.monotonic()))
        if signal is None:
            return None
        if signal.si_signo != _signal.SIGCHLD:
            if signal.si_code != _FROM_THE_KERNEL:
                os.kill(program, signal.si_signo)
            continue
        pid = -1
        while pid:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid != program:
                continue
            if not os.WIFSTOPPED(status):
                return status
            os.kill(os.getpid(), _signal.SIGSTOP)
            os.kill(program, _signal.SIGCONT)


def _end_as(status: int) -> NoReturn:
    """End with a wait status, so that a shell sees what has happened."""
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one dump is enough
        number = os.WTERMSIG(status)
        if number not in _NOT_TO_BE_SET:
            _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
