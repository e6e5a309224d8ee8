"""For programs on asyncio: trio runs inside of asyncio's loop, in the same thread.

Guests that are tasks are trio's, which can live in a program that is asyncio's (its guest mode):
``await wali_core.aio.run(main)`` runs an asynchronous function of trio's there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import outcome

T = TypeVar("T")


async def run(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """``trio.run(function, *args)`` beside the other tasks of asyncio's loop.

    Cancelling the task that awaits this cancels what runs.  One at a time in a thread: to run
    several guests, start them in a nursery of trio's.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    scope = trio.CancelScope()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def bounded() -> T:
        tokens.append(trio.lowlevel.current_trio_token())
        with scope:
            return await function(*args)
        raise asyncio.CancelledError

    def finish(result: outcome.Outcome[T]) -> None:
        try:
            done.set_result(result.unwrap())
        except BaseException as error:  # noqa: BLE001 - raised where this is awaited
            done.set_exception(error)

    trio.lowlevel.start_guest_run(
        bounded,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=finish,
        host_uses_signal_set_wakeup_fd=True,
    )
    cancelled: tuple[Any, ...] | None = None
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError as error:
            # Once is enough, and it takes its time: trio's tasks may have to clean up.
            if cancelled is None:
                _cancel(scope, tokens)
            cancelled = error.args
    if cancelled is None:
        return done.result()
    done.exception()  # it has been seen
    raise asyncio.CancelledError(*cancelled)


def _cancel(scope: trio.CancelScope, tokens: list[trio.lowlevel.TrioToken]) -> None:
    if not tokens:
        scope.cancel()  # trio has not come to it yet
        return
    try:
        tokens[0].run_sync_soon(scope.cancel)
    except trio.RunFinishedError:
        pass  # asyncio is about to hear of it
