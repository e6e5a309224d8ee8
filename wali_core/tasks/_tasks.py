"""Whole programs, and guests, as tasks of trio: what ``Runtime.run`` and ``Runtime.open`` do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from wali_core._ending import Ending
from wali_core._errors import GuestError, GuestExit, GuestTimeout
from wali_core._result import concluded, failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wali_core._result import CompletedGuest
    from wali_core.processes._process import Running
    from wali_core.tasks._cooperative import CooperativeGuest
    from wali_core.tasks._flow import TaskStreams

    Make = Callable[[], Awaitable[CooperativeGuest]]


class Opening:
    """A guest that is made when this is entered, and closed when it is left."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._guest: CooperativeGuest | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> CooperativeGuest:
        self._guest = await self._make()
        return self._guest

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        assert self._guest is not None
        self._guest.close()


async def run_guest(make: Make) -> Ending:
    """Make a program and run it to its end."""
    try:
        guest = await make()
    except GuestExit as end:  # in the module's start function
        return Ending(end.status)
    try:
        guest.raise_end()
        status = 0
        try:
            await guest.call("_start")
        except GuestExit as end:
            status = end.status
        return Ending(status, write_refused=guest.write_refused)
    finally:
        guest.close()


async def run_process(start: Callable[[], Running]) -> Ending:
    """Run a program in a process of its own; nothing of it is left behind, however it ends."""
    running = await trio.to_thread.run_sync(start)
    try:
        try:
            with trio.CancelScope() as scope:
                scope.deadline = math.inf if running.deadline is None else running.deadline
                await trio.lowlevel.wait_readable(running.control.fileno())
            if scope.cancelled_caught:
                raise GuestTimeout(running.seconds)
        finally:
            running.shut_down()
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(running.control.fileno())
                while running.hear():
                    await trio.lowlevel.wait_readable(running.control.fileno())
        return running.ending()
    finally:
        running.close()


async def completed(
    run: Callable[[], Awaitable[Ending]],
    module: str,
    args: Sequence[str | bytes],
    streams: TaskStreams,
) -> CompletedGuest:
    """As ``_result.completed``."""
    try:
        ending = await streams.carry(run)
    except GuestError as error:
        failed(error, streams)
        raise
    return concluded(ending, module, args, streams)
