"""The reactor: how guests on fibers wait, in one run of trio.

A guest that waits has left in its slot for what (native/async.c), and its fiber lies still.  A task
waits in its place, for one of:

- a descriptor of the guest's own: ``_watches``, which lets it go on without waking the task;
- one that is lent: trio's own wait, which its owner's ``notify_closing`` ends;
- several, or one that another task waits for already: ``_watches``, and for those that are lent
  trio's own wait as well;
- a time alone: trio's own deadlines.  They are in ``trio.current_time()``, so that a clock which
  tests have taken over holds for guests as well.

The call is then made again from its start, so it does not matter whether a wake-up was for nothing.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import trio

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core.tasks._turns import Pace, Turns, ticker
from wali_core.tasks._watches import Watches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Protocol

    from wali_core._engine import Engine

    class Borrower(Protocol):
        """What a guest has of its embedder's, and how it is told that it has one no more."""

        lent: Sequence[int]

        def lose(self, fd: int) -> None: ...


_READ, _WRITE = (select.POLLIN, select.POLLRDNORM), (select.POLLOUT, select.POLLWRNORM)
ALONE: Final = {
    **dict.fromkeys((*_READ, sum(_READ)), trio.lowlevel.wait_readable),
    **dict.fromkeys((*_WRITE, sum(_WRITE)), trio.lowlevel.wait_writable),
}
"""Which of trio's own waits serves which events of poll(2)."""

_poll: Final = W["wasmtime_call_future_poll"]


class Reactor:
    """Shared by the guests of a run of trio, made for the first and closed with the last."""

    def __init__(self) -> None:
        self._pace = Pace()
        self.turns = Turns(self._pace)
        self.watches = Watches(self.turns)
        self.guests = 0

    def enter(self, engine: Engine) -> None:
        """A guest is there."""
        if not self.guests:
            ticker.add(self._pace)
        self.guests += 1
        self._pace.engines[engine] = self._pace.engines.get(engine, 0) + 1

    def leave(self, engine: Engine) -> None:
        """A guest is gone.  With the last goes what they have shared."""
        self._pace.engines[engine] -= 1
        if not self._pace.engines[engine]:
            del self._pace.engines[engine]
        self.guests -= 1
        if not self.guests:
            ticker.remove(self._pace)
            self.watches.close()

    def poll(self, future: int) -> bool:
        """Let a guest run, until it has ended, waits, or has had its time."""
        pace = self._pace
        pace.polls += 1
        pace.inside = True
        if ticker.parked:
            ticker.unpark()
        try:
            return bool(_poll(future))
        finally:
            pace.inside = False

    async def wait(self, slot: bridge.Slot, guest: Borrower) -> int:
        """Wait for what the slot says; what to tell the guest of it."""
        if slot.until == bridge.NO_DEADLINE:
            await self._ready(slot, guest)
            return bridge.RESUME_READY
        left = (slot.until - time.monotonic_ns()) / 1e9
        with trio.CancelScope(deadline=trio.current_time() + left) as scope:
            await self._ready(slot, guest)
        return bridge.RESUME_EXPIRED if scope.cancelled_caught else bridge.RESUME_READY

    async def _ready(self, slot: bridge.Slot, guest: Borrower) -> None:
        wanted = [(f.fd, f.events) for f in slot.fds[: slot.count] if f.fd >= 0]
        if not wanted:
            await trio.sleep_forever()
        alone = len(wanted) == 1
        if alone and wanted[0][1] in ALONE and await self._alone(*wanted[0], guest):
            return
        theirs = [] if alone else [fd for fd in wanted if fd[0] in guest.lent]
        if not theirs:
            await self.watches.any_of(wanted, guest.lose)
            return
        async with trio.open_nursery() as nursery:
            for fd, events in theirs:
                one = _READ[0] if events & sum(_READ) else _WRITE[0] if events & sum(_WRITE) else 0
                if one:
                    nursery.start_soon(self._attend, fd, one, guest, nursery.cancel_scope)
            await self.watches.any_of(wanted, guest.lose)
            nursery.cancel_scope.cancel()

    async def _attend(self, fd: int, events: int, guest: Borrower, scope: trio.CancelScope) -> None:
        if await self._alone(fd, events, guest):
            scope.cancel()

    async def _alone(self, fd: int, events: int, guest: Borrower) -> bool:
        """Wait by trio's own means, where they will do."""
        try:
            await ALONE[events](fd)
        except (trio.BusyResourceError, OSError):
            return False
        except trio.ClosedResourceError:
            self.lost(fd, guest)
        except BaseException:
            self.watches.look_again(fd)
            raise
        else:
            self.watches.look_again(fd)
        return True

    def lost(self, fd: int, guest: Borrower) -> None:
        """A descriptor's owner closes it: nobody who waits for it makes another call on it."""
        guest.lose(fd)
        self.watches.look_again(fd, closed=True)


_reactor: trio.lowlevel.RunVar[Reactor | None] = trio.lowlevel.RunVar("wali reactor")


def reactor_for(engine: Engine) -> Reactor:
    """The reactor of this run, with a guest more.  Raises ``RuntimeError`` outside of trio."""
    reactor = _reactor.get(None)
    if reactor is None or not reactor.guests:
        reactor = Reactor()
        _reactor.set(reactor)
    reactor.enter(engine)
    return reactor


def current_reactor() -> Reactor | None:
    """The reactor of this run, where there is one."""
    return _reactor.get(None)


_compiling: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("wali compiling")


def compiling() -> trio.Lock:
    """What a task of this run holds while it has something compiled that all need."""
    try:
        return _compiling.get()
    except LookupError:
        lock = trio.Lock()
        _compiling.set(lock)
        return lock
