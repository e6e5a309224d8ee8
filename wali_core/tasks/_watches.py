"""Waiting for several descriptors, or for what others wait for as well, beside trio.

trio lets one task wait for a descriptor, in each direction.  A guest may poll a hundred of them,
two guests may read from one terminal, and an embedder may wait for what a guest waits for.  So
there is one epoll descriptor beside trio's own, made when it is first needed, which trio waits for:
each guest's descriptor is in it once, however many wait.

And trio's way costs: to be woken, a task is found, put in line, and entered from its outermost
coroutine to its innermost.  A guest that waits for what is its own (``sleep``) is let run from here
instead, in the place where its event is read.  Its task is woken only when there is more to do.

What the kernel does not let into it is polled on a thread instead.  That is: a file with more than
500 ways into nested epolls (the kernel counts those that a file has: a pipe of which 600 guests
each hold a duplicate has 600), a chain of epolls that is too long with ours on top, and what can be
polled but not added (a regular file).

Stale descriptors.  What was added stays there, for whoever waits for it next.  An epoll keeps it
after its number was closed, as long as the open file lives on elsewhere: nobody can remove it any
more, or change it, and it fires under a number that means another file by then.  Hence

- everything is armed for one shot, at each wait anew: what is stale fires once, and never spins;
- an event is a reason to look again, no more: whoever is woken makes its system call, which says
  what is the case, and waits again where that is nothing.  A wake-up too many costs microseconds;
- a number that the epoll does not know is no error: the kernel compares the open files, too, so
  that a number which means another one now is added to what was there.

Whoever closes a lent descriptor while a guest waits for it should say so
(``trio.lowlevel.notify_closing``), as for any task of trio's; else the guest waits on, as a thread
in poll(2) would.  trio tells who waits by its own means, so for each lent descriptor one guest
does, and tells the others that wait for it here.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from wali_core.tasks._turns import Turns

_ALWAYS: Final = select.EPOLLERR | select.EPOLLHUP
_TOLD: Final = _ALWAYS | select.POLLNVAL
_AT_ONCE: Final = 64  # events
_AT_MOST: Final = 0.001  # seconds from checkpoint to checkpoint


class _Waiter:
    """A task that waits.  Being woken and being cancelled are one thing: only the first counts.

    ``go_on`` is tried before it is woken: true where it has no need to be.  ``lose`` is called with
    a descriptor that is closed.
    """

    __slots__ = ("go_on", "lose", "task")

    def __init__(
        self, go_on: Callable[[], bool] | None = None, lose: Callable[[int], None] | None = None
    ) -> None:
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.go_on = go_on
        self.lose = lose

    def settle(self) -> trio.lowlevel.Task | None:
        """End the wait.  Who has done it is given the task to let it run; nobody else is."""
        task, self.task = self.task, None
        return task

    def wake(self) -> bool:
        """Let it go on, unless that goes without its task.  Does it wait still?"""
        if self.go_on is not None and self.go_on():
            return True
        task = self.settle()
        if task is not None:
            trio.lowlevel.reschedule(task)
        return False

    def give_up(self, _: object) -> trio.lowlevel.Abort:
        """It is cancelled: trio lets the task run, and nothing that is ready does any more."""
        self.settle()
        return trio.lowlevel.Abort.SUCCEEDED


class _Watch:
    """One descriptor, and who waits for which of its events."""

    __slots__ = ("armed", "fd", "polled", "waiters")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.waiters: dict[_Waiter, int] = {}
        self.armed = 0  # for these events, once
        self.polled = False  # by the thread


class Watches:
    """All descriptors that are waited for in this way, in one run of trio."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._watches: dict[int, _Watch] = {}
        self._epoll: select.epoll | None = None
        self._nested = trio.Event()
        self._poller: _Poller | None = None

    async def any_of(
        self, wanted: Iterable[tuple[int, int]], lose: Callable[[int], None] | None = None
    ) -> None:
        """Wait until one of these descriptors may have one of its events (poll(2)'s).

        ``lose`` is told of one that its owner has closed.
        """
        await self._wait(wanted, _Waiter(lose=lose))

    def look_again(self, fd: int, *, closed: bool = False) -> None:
        """Who has waited for this one by trio's means does not any more.  Wake the others."""
        watch = self._watches.get(fd)
        if watch is None or not watch.waiters:
            return
        for waiter in watch.waiters if closed else ():
            if waiter.lose is not None:
                waiter.lose(fd)
        self._fire(fd, select.POLLNVAL)

    async def sleep(self, fd: int, events: int, go_on: Callable[[], bool]) -> None:
        """Wait for one descriptor until ``go_on``, called when it may be ready, returns false.

        It is called by another task: while it returns true, this one sleeps.
        """
        await self._wait(((fd, events),), _Waiter(go_on))

    async def _wait(self, wanted: Iterable[tuple[int, int]], waiter: _Waiter) -> None:
        if self._epoll is None:
            self._open()
        if not self._nested.is_set():
            await self._nested.wait()
        joined = []
        try:
            for fd, events in wanted:
                joined.append(fd)
                self._join(fd, events, waiter)
            await trio.lowlevel.wait_task_rescheduled(waiter.give_up)
        finally:
            for fd in joined:
                self._leave(fd, waiter)

    def _open(self) -> None:
        """Make the epoll, and have trio wait for it: before anything is in it.

        Else the kernel would not let a full one into trio's, instead of one thing more into it.
        """
        self._epoll, self._nested = select.epoll(), trio.Event()
        trio.lowlevel.spawn_system_task(self._dispatch, self._epoll, self._nested)

    def _join(self, fd: int, events: int, waiter: _Waiter) -> None:
        watch = self._watches.get(fd)
        if watch is None:
            watch = self._watches[fd] = _Watch(fd)
        watch.waiters[waiter] = watch.waiters.get(waiter, 0) | events
        if (events | _ALWAYS) & ~watch.armed:
            self._arm(watch, watch.armed | events | _ALWAYS)

    def _leave(self, fd: int, waiter: _Waiter) -> None:
        watch = self._watches.get(fd)
        if watch is None or watch.waiters.pop(waiter, None) is None or watch.waiters:
            return  # what is armed for nobody now fires once, and is armed for the others then
        watch.armed = 0  # the number may be another file's when it is next waited for
        if watch.polled:
            assert self._poller is not None
            self._poller.disarm(fd)
            watch.polled = False

    # --- arming, and what comes of it -------------------------------------------------------------

    def _arm(self, watch: _Watch, events: int) -> None:
        """Have it fire at these events, once."""
        watch.armed = events
        if not watch.polled:
            assert self._epoll is not None
            try:
                _set(self._epoll, watch.fd, events | select.EPOLLONESHOT)
            except OSError:
                watch.polled = True
        if watch.polled:
            if self._poller is None:
                self._poller = _Poller(self._fire)
            self._poller.arm(watch.fd, events)

    def _fire(self, fd: int, events: int) -> None:
        """Wake who waits for these; for who waits still it is armed again."""
        watch = self._watches.get(fd)
        if watch is None or self._epoll is None:
            return
        again = 0
        for waiter, asked in watch.waiters.items():
            if waiter.task is None:
                continue  # its task is about to run, and leaves
            if not events & (asked | _TOLD) or waiter.wake():
                again |= asked | _ALWAYS
        watch.armed = 0
        if again:
            self._arm(watch, again)

    async def _dispatch(self, epoll: select.epoll, nested: trio.Event) -> None:
        nested.set()  # by the time that this wakes somebody, it is
        while not epoll.closed:
            try:
                await trio.lowlevel.wait_readable(epoll.fileno())
            except trio.ClosedResourceError:
                return
            until = time.perf_counter() + _AT_MOST
            while self._epoll is epoll and (ready := epoll.poll(0, _AT_ONCE)):
                for fd, events in ready:
                    if self._turns.due or time.perf_counter() >= until:
                        until = await self._give_way()
                    self._fire(fd, events)
            self._turns.release()

    async def _give_way(self) -> float:
        """Let trio run all else; how long to go on then (``time.perf_counter``)."""
        if self._turns.due:
            await self._turns.take(woken=True)
        else:
            await trio.lowlevel.checkpoint()
        return time.perf_counter() + _AT_MOST

    def close(self) -> None:
        """Close the epoll descriptor and end the thread.  Nobody waits any more."""
        if self._epoll is not None:
            try:
                trio.lowlevel.notify_closing(self._epoll.fileno())
            except RuntimeError:
                pass  # the run is over: nobody waits
            self._epoll.close()
        if self._poller is not None:
            self._poller.close()
        self._epoll = self._poller = None


def _set(epoll: select.epoll, fd: int, flags: int) -> None:
    try:
        epoll.modify(fd, flags)
    except FileNotFoundError:
        epoll.register(fd, flags)


class _Poller:
    """A thread in poll(2), for what epoll does not take.  It tells trio's thread, once."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._wanted: dict[int, int] = {}
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="wali poller", daemon=True)
        self._thread.start()

    def arm(self, fd: int, events: int) -> None:
        with self._lock:
            self._wanted[fd] = events
        os.eventfd_write(self._wake, 1)

    def disarm(self, fd: int) -> None:
        with self._lock:
            self._wanted.pop(fd, None)
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while True:
            poller = select.poll()
            poller.register(self._wake, select.POLLIN)
            with self._lock:
                if self._closed:
                    return
                for fd, events in self._wanted.items():
                    poller.register(fd, events)
            ready = dict(poller.poll())
            if ready.pop(self._wake, 0):
                os.eventfd_read(self._wake)
            with self._lock:
                told = [(fd, events) for fd, events in ready.items() if self._wanted.pop(fd, 0)]
            try:
                self._token.run_sync_soon(self._tell_all, told)
            except trio.RunFinishedError:
                return

    def _tell_all(self, told: list[tuple[int, int]]) -> None:
        for fd, events in told:
            self._tell(fd, events)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
