"""Waiting, no longer than there is time, for what cannot be interrupted: a thread does it.

At the deadline, and at Ctrl-C, that is left behind: it goes on to its end, and what comes of it
nobody gets.
"""

from __future__ import annotations

import time
from _thread import TIMEOUT_MAX, allocate_lock

from wali_core._errors import GuestTimeout
from wali_core._monitor import interruptible
from wali_core._signals import start_quiet_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def within(bound: tuple[float, float] | None, function: Callable[[], T]) -> T:
    """Call it on a thread of its own; its result, or what it raises.

    ``bound`` is when that must be over (monotonic), and how many seconds that is: it is said by the
    ``GuestTimeout`` that is raised then.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done = allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for it
            errors.append(error)
        done.release()

    start_quiet_thread(work)
    left = TIMEOUT_MAX if bound is None else max(0.0, bound[0] - time.monotonic())
    interruptible(done.acquire, True, min(left, TIMEOUT_MAX))
    if errors:
        raise errors.pop()
    if not results:
        assert bound is not None
        raise GuestTimeout(bound[1])
    return results[0]
