"""A process for a WALI program: started, watched by its pidfd, ended with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import attrs

from wali_core._ending import Ending
from wali_core._errors import (
    GuestError,
    GuestTimeout,
    GuestTrap,
    ModuleError,
    PolicyError,
    UseError,
    WaliError,
)
from wali_core._monitor import collect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capabilities import Policy
    from wali_core._grants import Grants
    from wali_core._stdio import Streams


@attrs.frozen
class Job:
    """What another process must know to run a program.  It can be pickled, and is."""

    module: str | bytes
    policy: Policy | None
    allow_all: bool
    cache: bool | str | os.PathLike[str]
    grants: Grants


@attrs.frozen
class Order:
    """A job with its command line, as it travels."""

    job: Job
    args: tuple[str | bytes, ...]
    argv0: str | bytes | None
    parent: int
    lifeline: int


def run_job(
    job: Job,
    args: Sequence[str | bytes],
    argv0: str | bytes | None,
    streams: Streams,
) -> Ending:
    """Run the job in a process of its own, until it ends, or until the deadline of its grants.

    Raises what the runtime there raised, ``GuestTimeout``, and ``GuestError`` for too much output.
    Nothing of it is left behind, however it ends.
    """
    lifeline, held = os.pipe2(os.O_CLOEXEC)
    order = pickle.dumps(Order(job, tuple(args), argv0, os.getpid(), lifeline))
    orders, answers = _memory_file(order), os.memfd_create("answer", os.MFD_CLOEXEC)
    try:
        child = _start(streams, orders, answers, lifeline)
        try:
            pidfd = os.pidfd_open(child.pid)
            try:
                _watch(pidfd, streams, job.grants.deadline, job.grants.wall_time)
            finally:
                os.close(pidfd)
        finally:
            usage = _end(child)
        return _answer(answers, child.returncode, usage)
    finally:
        for fd in (orders, answers, lifeline, held):
            os.close(fd)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("order", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _start(streams: Streams, orders: int, answers: int, lifeline: int) -> subprocess.Popen[bytes]:
    """A new interpreter that sees the packages that this one sees, in a group of its own."""
    code = "import sys; from wali_core._child import main; main(*map(int, sys.argv[1:]))"
    stdio = [fd if fd >= 0 else subprocess.DEVNULL for fd in streams.host]
    return subprocess.Popen(
        [sys.executable, "-c", code, str(orders), str(answers)],
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        pass_fds=(orders, answers, lifeline),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        process_group=0,
    )


def _watch(pidfd: int, streams: Streams, deadline: float | None, seconds: float | None) -> None:
    """Collect output until the process has ended.  Raises at the deadline, or at too much."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    for capture in streams.captures:
        poller.register(capture.read_end, select.POLLIN)
    while True:
        left = None if deadline is None else (deadline - time.monotonic()) * 1000
        if left is not None and left <= 0:
            raise GuestTimeout(seconds or 0.0)
        ready = {fd for fd, _ in poller.poll(left)}
        collect(streams.captures, ready)
        reasons = [capture.reason for capture in streams.captures if capture.exceeded]
        if reasons:
            raise GuestError(reasons[0])
        if pidfd in ready:
            return


def _end(child: subprocess.Popen[bytes]) -> object:
    """Kill whatever is left of the process and its group, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _answer(answers: int, status: int, usage: object) -> Ending:
    """How it went: an exception of the runtime's over there, or a status."""
    os.lseek(answers, 0, os.SEEK_SET)
    with open(answers, "rb", closefd=False) as file:
        data = file.read()
    if data:
        raise _error(data)
    return Ending(status, usage=usage)  # type: ignore[arg-type]


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
        if words["kind"] in _KINDS:
            return _KINDS[words["kind"]](message)
        return OSError(int(words["errno"] or 0), message, str(words["filename"]) or None)
    except (ValueError, KeyError, TypeError) as error:
        return GuestError(f"the program's process left an answer that cannot be read: {error}")
