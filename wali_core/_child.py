"""The process of one WALI program, from the fork to its end."""

from __future__ import annotations

import json
import os
from functools import partial
from importlib import import_module
from typing import NoReturn

from wali_core._errors import WaliError
from wali_core._plan import Plan
from wali_core._stdio import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wali_core._engine import Module
    from wali_core._runtime import Runtime
    from wali_core.processes._order import Descriptors, Order

_TRAPPED: Final = 128 + 6
_KILLED: Final = 128 + 9


_NEEDED: Final = ("wali_core.programs._program",)
_TO_CONFINE: Final = (
    *("wali_core._confine", "wali_core._filter", "wali_core._table"),
    *("capabilities._policy", "capabilities.lockdown.rlimits"),
)


def preload(*, confined: bool) -> None:
    """Import what ``run`` will need, once for all programs."""
    for name in (*_NEEDED, *(_TO_CONFINE if confined else ())):
        import_module(name)


def run(
    runtime: Runtime, module: Module, order: Order, descriptors: Descriptors, lifeline: int
) -> NoReturn:
    """Run the program in this process, which is its own, and answer with an error if there is one.

    ``lifeline`` is at its end when the program must be: so must what it forks from then on.
    """
    own, status = os.getpid(), _TRAPPED
    try:
        _take_over(order, descriptors)
        os.register_at_fork(after_in_child=partial(_end_if_cut, lifeline))
        streams = Streams(None, None, None, capture=False, limit=0)
        plan = Plan(module, order.grants, streams, args=order.args, argv0=order.argv0)
        ending = runtime.execute(plan)
        status = ending.status
    except Exception as error:  # noqa: BLE001 - nobody else would say it, and not on its stderr
        if os.getpid() == own:
            answer(descriptors.answer, error)
        else:  # a process that the program has forked: its end is not the program's
            os.write(2, f"wali: {_as_known(error)}\n".encode(errors="backslashreplace"))
    os._exit(status & 0xFF)


def _take_over(order: Order, descriptors: Descriptors) -> None:
    """Be where the caller is: in its folder, with its umask, and the streams that it gives.

    With a terminal among them the program stays in the caller's process group, as with any command
    that is started from there: in a group of its own it would be in the background, and stopped
    when it reads.  Else it has one, and cannot signal the caller's by accident.
    """
    if not any(map(os.isatty, descriptors.streams)):
        os.setpgid(0, 0)
    os.fchdir(descriptors.cwd)
    os.umask(order.umask)
    given = dict(zip(order.streams, descriptors.streams, strict=True))
    for number in range(3):
        if number in given:
            os.dup2(given[number], number)
        else:
            os.close(number)
    descriptors.close(but=[descriptors.control, descriptors.answer])


def _end_if_cut(lifeline: int) -> None:
    """In a forked child: whoever kills the others cannot have seen this one yet."""
    try:
        os.read(lifeline, 1)
    except BlockingIOError:
        return  # nobody writes, but somebody holds the other end
    os._exit(_KILLED)


def _as_known(error: Exception) -> WaliError | OSError:
    """An error as it is; one that nobody foresaw as one of ours, which says where it came up."""
    if isinstance(error, (WaliError, OSError)):
        return error
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    file = os.path.basename(at.tb_frame.f_code.co_filename) if at is not None else "?"
    return WaliError(
        "the program's process failed in the host's part: "
        f"{type(error).__name__}: {error} ({file}, line {at.tb_lineno if at is not None else 0})"
    )


def answer(fd: int, unknown: Exception) -> None:
    """Describe an error for whoever has ordered the program.

    Plain text, not a pickle: the program may have had its hands on this process.
    """
    error = _as_known(unknown)
    words = {
        "kind": type(error).__name__,
        "message": error.strerror if isinstance(error, OSError) else str(error),
        "errno": getattr(error, "errno", None),
        "filename": str(getattr(error, "filename", None) or ""),
        "frames": getattr(error, "frames", ()),
        "limit": getattr(error, "limit", ""),
        "call": getattr(error, "call", ""),
    }
    os.write(fd, json.dumps(words).encode())
