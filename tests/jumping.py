"""Time that passes at once, for tests of guests that are tasks: none of them waits for it.

It cannot pass so for what is not in trio: threads, other processes, and guests that have a thread
to themselves.  Tests of those let the kernel's time pass, as little as will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
import trio.lowlevel
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def in_jumping_trio(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run an asynchronous function by a clock that jumps to a deadline when every task waits."""
    return trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=0))


async def let_pass(seconds: float, after: Callable[[], object]) -> None:
    """Let so much time pass when ``after()`` is true: a guest that computes never waits."""
    await until(after)
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something is so, which they bring about."""
    while not condition():
        await trio.lowlevel.checkpoint()
