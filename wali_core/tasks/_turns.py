"""Guests that compute, on a thread that they share: whose turn it is, and for how long.

A guest that waits gives the thread away by itself.  One that computes comes out of WebAssembly when
the engine's epoch moves, and then it is asked here.  A turn is ``min(10 ms, budget / guests that
compute)``; at least every 5 ms trio gets to run all else, be it in the middle of a turn.  Guests
whose call has become ready do not stand in line here, nor do other tasks: only who goes on
computing does.  But if so many have become ready at once that together they take too long for one
step of trio's, those that are left have turns as well, before who computes.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from typing import Final

    from wali_core._engine import Engine

MOST: Final = 0.010
BUDGET: Final = 0.050
CHECKPOINT: Final = 0.005
LEAST: Final = 0.001
"""Seconds: a turn's most and least, how long all turns together take, and how long trio waits."""
_TICK: Final = CHECKPOINT / 2
"""Seconds: whoever begins before the half of a checkpoint's time is over ends by the next tick, so
in the other half."""
_ROW: Final = 4

_QUIET: Final = 3  # ticks without a guest in WebAssembly, after which there are no more ticks


class Turns:
    """Who of the computing guests has the thread.  The others wait in line."""

    def __init__(self, pace: Pace) -> None:
        self.spent = 0.0
        """Seconds for which guests have run since one of them has given way to all other tasks."""
        self._pace = pace
        self._line: deque[trio.lowlevel.Task] = deque()
        self._woken: deque[trio.lowlevel.Task] = deque()
        self._holder: trio.lowlevel.Task | None = None
        self._row = 0  # how many of them have had turns, one after the other
        self._since = 0.0

    @property
    def due(self) -> bool:
        """Has trio to run all else, before another guest begins?"""
        return self.spent >= _TICK

    async def take(self, *, woken: bool = False) -> None:
        """Go on computing: at once after a checkpoint, or when it is this task's turn again.

        ``woken`` is who does not compute yet, and would begin when others have to (``due``).
        """
        task, now = trio.lowlevel.current_task(), time.perf_counter()
        if self._holder is None:
            self._give(task, now)
        elif self._holder is task and (
            self._woken or (self._line and now - self._since >= self._length())
        ):
            self._next(now)
        if self._holder is task:
            await trio.lowlevel.checkpoint()
        else:
            await self._stand(self._woken if woken else self._line, task)
        self.spent = 0.0

    async def _stand(self, line: deque[trio.lowlevel.Task], task: trio.lowlevel.Task) -> None:
        line.append(task)
        self._set_pace()

        def leave(_: object) -> trio.lowlevel.Abort:
            line.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    @property
    def taken(self) -> bool:
        """Is it anybody's turn?"""
        return self._holder is not None

    def release(self) -> None:
        """This task does not compute any more: it waits, or has ended."""
        if self._holder is not None and self._holder is trio.lowlevel.current_task():
            self._next(time.perf_counter())

    def _next(self, now: float) -> None:
        """Give the turn to who was woken; but after a few of them to one that computes."""
        if self._woken and (not self._line or self._row < _ROW):
            line, self._row = self._woken, self._row + 1
        else:
            line, self._row = self._line, 0
        task = line.popleft() if line else None
        self._give(task, now)
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _give(self, task: trio.lowlevel.Task | None, now: float) -> None:
        self._holder, self._since = task, now
        self._set_pace()

    @property
    def _waiting(self) -> int:
        return len(self._line) + len(self._woken)

    def _length(self) -> float:
        return max(LEAST, min(MOST, BUDGET / (self._waiting + 1)))

    def _set_pace(self) -> None:
        self._pace.period = min(_TICK, self._length())


class Pace:
    """How one thread of trio's lets guests run: written there, and read by the ticker."""

    __slots__ = ("engines", "inside", "period", "polls")

    def __init__(self) -> None:
        self.period = _TICK
        """Seconds from tick to tick, while one is running."""
        self.polls = 0
        """How often one was let run."""
        self.inside = False
        """Is one running?"""
        self.engines: dict[Engine, int] = {}
        """Of what engines they are, and how many."""


class Ticker:
    """A thread that moves the epoch while guests run, and sleeps while none does.

    There is one in the process, made for the first guest.  It takes Python's lock once a tick, for
    microseconds; whose guest is ticked is in WebAssembly, and without it.
    """

    def __init__(self) -> None:
        self.parked = True
        """Has whoever lets a guest run to call ``unpark``?"""
        self._paces: list[Pace] = []
        self._go = threading.Event()
        self._started = False

    def add(self, pace: Pace) -> None:
        """Look after this thread of trio's."""
        self._paces.append(pace)

    def remove(self, pace: Pace) -> None:
        """It has no guests any more."""
        self._paces.remove(pace)

    def unpark(self) -> None:
        """A guest is about to run, and there are no ticks."""
        self.parked = False
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="wali ticker", daemon=True).start()
        self._go.set()

    def _run(self) -> None:
        while self._go.wait():
            while not self._park():
                self._tick()

    def _tick(self) -> None:
        quiet, seen = 0, self._polls()
        while quiet < _QUIET:
            paces = tuple(self._paces)
            time.sleep(min((pace.period for pace in paces), default=CHECKPOINT))
            quiet += 1
            for pace in paces:
                if pace.inside:
                    quiet = 0
                    for engine in tuple(pace.engines):
                        engine.increment_epoch()
            polls = self._polls()
            seen, quiet = polls, quiet if seen == polls else 0

    def _polls(self) -> int:
        return sum(pace.polls for pace in tuple(self._paces))

    def _park(self) -> bool:
        """Have ``unpark`` called by who lets a guest run next, unless one has been let just now."""
        self._go.clear()
        seen, self.parked = self._polls(), True
        if not any(pace.inside for pace in tuple(self._paces)) and seen == self._polls():
            return True
        self.parked = False
        return False

    def forget(self) -> None:
        """In a forked child there is no such thread."""
        self.__init__()  # type: ignore[misc]


ticker = Ticker()
os.register_at_fork(after_in_child=ticker.forget)
