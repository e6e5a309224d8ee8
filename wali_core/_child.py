"""The process of a WALI program, started by ``_process``: does the job and is gone."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pickle
import signal
from typing import TYPE_CHECKING, NoReturn

from wali_core._errors import WaliError
from wali_core._runtime import Runtime
from wali_core._stdio import Streams

if TYPE_CHECKING:
    from wali_core._process import Order

_PR_SET_PDEATHSIG = 1
_TRAPPED = 128 + 6
OWN_STACK = 2 << 20


def main(orders: int, answers: int) -> NoReturn:
    """Read the order from a descriptor, run it, and answer with an error where there is one."""
    with open(orders, "rb") as file:
        order: Order = pickle.load(file)  # noqa: S301 - the parent's own words
    os.set_inheritable(answers, False)
    _die_with(order.parent, order.lifeline)
    own, status = os.getpid(), _TRAPPED
    try:
        status = _run(order)
    except (WaliError, OSError) as error:
        if os.getpid() == own:
            os.write(answers, _described(error))
        else:  # a process that the program has forked: its end is not the program's
            os.write(2, f"wali: {error}\n".encode())
    os._exit(status & 0xFF)


def _described(error: Exception) -> bytes:
    """An error for the parent.  Plain text: the program may have had its hands on this process."""
    words = {
        "kind": type(error).__name__,
        "message": error.strerror if isinstance(error, OSError) else str(error),
        "errno": getattr(error, "errno", None),
        "filename": str(getattr(error, "filename", None) or ""),
        "frames": getattr(error, "frames", ()),
    }
    return json.dumps(words).encode()


def _die_with(parent: int, lifeline: int) -> None:
    """End with the parent, and with all that the program will have forked.

    The kernel's own signal for it reaches this process alone.  The lifeline is a pipe that nobody
    but the parent can write: when that is gone, the kernel tells the whole group by SIGKILL.
    """
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it was gone before the kernel was told


def _run(order: Order) -> int:
    job = order.job
    runtime = Runtime(policy=job.policy, allow_all=job.allow_all, cache=job.cache, stack=OWN_STACK)
    module = runtime.load(job.module)
    streams = Streams(None, None, None, capture=False, limit=0)
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    job.grants.deadline = None  # the parent's to watch; here wall_time ends what it left behind
    return runtime.execute(module, job.grants, order.args, order.argv0, streams).status
