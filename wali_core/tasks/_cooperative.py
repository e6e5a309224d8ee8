"""Guests that are trio tasks: all in one thread, each on a fiber of its own.

A store of such a guest takes only asynchronous calls (wasmtime's futures).  ``_drive`` lets one run
and does, on its own stack, what the guest has asked for when it comes back: wait, make a call that
is in Python, or give others a turn.  To drop the future is to cancel the guest, wherever it is: its
fiber is unwound, and nothing of the call is left.  While a future is alive, nobody else touches the
store.
"""

from __future__ import annotations

import ctypes
import struct
import time
from ctypes import byref, c_void_p
from functools import cache, partial
from typing import TYPE_CHECKING

import trio

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core._errors import GuestTimeout, GuestTrap, ModuleError, UseError
from wali_core._function import one_of, signed
from wali_core._guest import AnyGuest
from wali_core._link import Suspended, Trapped
from wali_core.tasks._reactor import ALONE, current_reactor, reactor_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, Self

    from wali_core._abi import Shim
    from wali_core._engine import Engine, Module
    from wali_core._function import Function
    from wali_core._limits import CpuTime
    from wali_core._link import Request
    from wali_core.tasks._reactor import Reactor

_poll: Final = W["wasmtime_call_future_poll"]
_delete: Final = W["wasmtime_call_future_delete"]
# Seconds.  Epochs go by while a guest waits, so that its time is over at once then: it did not
# compute, and has a tick yet.
_HARDLY: Final = 0.0002
_FEW: Final = 2  # descriptors, as nearly every call waits for
_NOTHING: Final = (bridge.Val * 0)()
_KINDS: Final = {letter: kind for kind, letter in enumerate(bridge.NUMBER_KINDS)}
_BODIES: Final = {"i": "i20x", "I": "q16x", "f": "f20x", "F": "d16x"}
"""Of a ``wasmtime_val_t``, behind its kind (struct's letters): to set a field by ctypes costs more.
"""
_FLOATS: Final = {"f": ctypes.c_float, "F": ctypes.c_double}


class CooperativeGuest(AnyGuest):
    """One instance of a module, whose calls are awaited.

    Many of them share a thread.  Made by ``Runtime.open``.  It takes one call at a time; a call
    that is cancelled, by whatever cancel scope, ends the guest.
    """

    __slots__ = (
        "_again",
        "_began",
        "_busy",
        "_closing",
        "_cpu_time",
        "_fds",
        "_first",
        "_future",
        "_inside",
        "_over",
        "_ran",
        "_reactor",
        "_slot",
        "_waits",
        "_waits_for",
        "_wanted",
        "lent",
    )

    cooperative = True

    def __init__(self, engine: Engine, module: Module) -> None:
        self._busy, self._waits, self._again = False, 0, 0
        self._closing = False
        self._began = self._inside = self._ran = 0.0
        super().__init__(engine, module)
        self._context.cooperative = 1
        self._slot = self._context.slot
        self._make_room(_FEW)
        self._cpu_time: float | None = None
        self._wanted = 0  # by how many pages its memory must grow
        self.lent: Sequence[int] = ()
        """Those that are lent."""
        self._future, self._over, self._waits_for = 0, False, (-1, 0)
        self._reactor: Reactor | None = reactor_for(engine)

    async def start(self, shim: Shim | None) -> None:
        """Instantiate the module itself, and call what it has to have called first."""
        for function in self.make_instance(shim):
            begin, _, ends = self._prepared(function, ())
            await self._bounded(begin, ends, None)

    async def call(self, name: str, *args: float, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as of Guest.call
        """Call an exported function; its result: None, a number, or a tuple of them.

        As ``Guest.call``, but that other tasks run meanwhile.  ``timeout`` is in seconds of trio's
        clock.  Raises ``UseError`` while another task is in a call of this guest.
        """
        function = self._function(name)
        begin, results, ends = self._prepared(function, args)
        await self._bounded(begin, ends, timeout)
        return _unboxed(function, results)

    async def _bounded(self, begin: Callable[[], int], ends: Any, seconds: float | None) -> None:
        """Begin something, and see it end in time, well or not."""
        if self._busy:
            raise UseError("the guest is in a call: it takes one at a time")
        self.usable_store()
        if self._reactor is not current_reactor():
            raise UseError("the guest was opened in another run of trio: it ends with that")
        if self._cpu_time is not None:
            self._cpu = _computing(self._cpu_time)
        at, seconds = self._bound(seconds, trio.current_time())
        try:
            if at is None:
                await self._drive(begin)
            else:
                with trio.CancelScope(deadline=at) as scope:
                    await self._drive(begin)
                if scope.cancelled_caught:
                    self._ended = str(GuestTimeout(seconds))
                    raise GuestTimeout(seconds)
            self._finish_call(*ends)
        finally:
            if self._closing:
                self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the guest: its memory and every descriptor that it holds.  Again does nothing.

        Raises ``UseError`` while a task is in a call of it: it is closed when that has ended.
        """
        if self._busy:
            self._closing = True
            raise UseError("the guest is in a call, and closed after that: cancel that first")
        self._closing = False
        super().close()
        reactor, self._reactor = self._reactor, None
        if reactor is not None:
            reactor.leave(self._engine)

    def limit_computing(self, seconds: float | None, *, whole_run: bool) -> None:
        """Bound the computing time of every call from here on; or of all of them together."""
        self._cpu_time = None if whole_run else seconds
        self._cpu = _computing(seconds) if whole_run else None

    # --- inside -----------------------------------------------------------------------------------

    def usable_store(self) -> int:
        """The store's context.  Raises ``UseError`` also while a call is going on."""
        if self._busy:
            raise UseError("the guest is in a call: wait until that has returned")
        return super().usable_store()

    def _read_memory(self, address: int, size: int) -> bytes:
        """Of a guest whose fiber lies still: nobody else is at its store."""
        busy, self._busy = self._busy, False
        try:
            return super()._read_memory(address, size)
        finally:
            self._busy = busy

    def _watch_epochs(self) -> None:
        # What it returns is neither an error nor anything else: wasmtime's binding is wrong there.
        W["wasmtime_context_epoch_deadline_async_yield_and_update"](self._store, 1)

    def _instantiate_linked(self, pre: int | None) -> bridge.Instance:
        instance = bridge.Instance()
        begin = W["wasmtime_instance_pre_instantiate_async"]
        ends = (c_void_p * 2)()
        self._complete(partial(begin, pre, self._store, byref(instance), *places(ends)))
        self._finish_call(*ends)
        return instance

    def _instantiate_with(self, imports: Any) -> bridge.Instance:
        """By a linker of its own: there is no other way, in such a store."""
        instance, ends = bridge.Instance(), (c_void_p * 2)()
        linker = W["wasmtime_linker_new"](self._engine.pointer)
        try:
            W["wasmtime_linker_allow_shadowing"](linker, True)  # a name may be imported twice
            for item, extern in zip(self._module.imports, imports, strict=True):
                module, name = item.module.encode(), item.name.encode()
                bridge.check(
                    W["wasmtime_linker_define"](
                        linker, self._store, module, len(module), name, len(name), byref(extern)
                    )
                )
            begin = W["wasmtime_linker_instantiate_async"]
            what = linker, self._store, self._module.pointer, byref(instance)
            self._complete(partial(begin, *what, *places(ends)))
        finally:
            W["wasmtime_linker_delete"](linker)
        if ends[0] and not self._context.stop:
            self._refuse_instance(imports, ends[0])
        self._finish_call(*ends)
        return instance

    def _run_now(self, function: Function, args: Sequence[float]) -> Any:
        begin, results, ends = self._prepared(function, args)
        self._complete(begin)
        self._finish_call(*ends)
        return _unboxed(function, results)

    def _prepared(
        self, function: Function, args: Sequence[float]
    ) -> tuple[Callable[[], int], Any, Any]:
        """What begins a call; its results; and its ends: an error, a trap."""
        arguments, results = _boxed(function, args)
        ends = (c_void_p * 2)()
        begin = partial(
            W["wasmtime_func_call_async"],
            self._store,
            function.func,
            arguments,
            len(function.parameters),
            results,
            len(function.results),
            *places(ends),
        )
        return begin, results, ends

    def _complete(self, begin: Callable[[], int]) -> None:
        """Do what does not wait."""
        future = begin()
        try:
            while not _poll(future):
                if self._slot.suspended or self._slot.requested:
                    raise ModuleError(f"{self._module.origin}: waits while its guest is made")
        finally:
            _delete(future)

    @trio.lowlevel.enable_ki_protection
    async def _drive(self, begin: Callable[[], int]) -> None:
        """Begin a call, and let the guest run until it has ended."""
        slot, reactor, waited = self._slot, self._reactor, False
        assert reactor is not None
        await trio.lowlevel.checkpoint_if_cancelled()
        future = begin()
        self._busy = True
        self._began = time.perf_counter()
        try:
            if reactor.turns.due:
                waited = True
                await reactor.turns.take(woken=True)
            self._future, self._over = future, self._let_run(future)
            while not self._over:
                waited = True
                if slot.suspended:
                    if reactor.turns.taken:
                        reactor.turns.release()
                    if self._waits_alone(slot):
                        self._count_wait()
                        await reactor.watches.sleep(*self._waits_for, self._go_on)
                        if not self._over:
                            await trio.lowlevel.checkpoint_if_cancelled()
                        continue
                    self._repeat(slot, await self._wait(slot))
                elif slot.requested:
                    slot.answer = await self._answer(slot)
                    slot.answered = not slot.grow
                elif self._ran >= _HARDLY:
                    await reactor.turns.take()
                if reactor.turns.due:
                    await reactor.turns.take(woken=True)
                # trio may have woken it before it has cancelled it: then it does no more.
                await trio.lowlevel.checkpoint_if_cancelled()
                self._over = self._let_run(future)
        except BaseException:
            self._ended = "its call was cut short"
            raise
        finally:
            reactor.turns.release()
            _delete(future)
            self._inside += time.perf_counter() - self._began
            self._busy = False
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _waits_alone(self, slot: bridge.Slot) -> bool:
        """Does it wait, for ever, for one descriptor that is its own?  Then the reactor runs it.

        What is lent can be closed by its owner, who tells trio of it.
        """
        if slot.count != 1 or slot.until != bridge.NO_DEADLINE or self._cpu is not None:
            return False
        first = self._first
        self._waits_for = first.fd, first.events
        return first.fd >= 0 and first.fd not in self.lent

    def _go_on(self) -> bool:
        """Let it run, on whatever task.  True where it waits for the same again."""
        slot, waited_for = self._slot, self._waits_for
        self._repeat(slot, bridge.RESUME_READY)
        self._over = self._let_run(self._future)
        if self._over or not slot.suspended or not self._waits_alone(slot):
            return False
        if self._waits_for != waited_for:
            return False
        self._count_wait()
        return True

    def _repeat(self, slot: bridge.Slot, why: int) -> None:
        """Have its next call begin where the one that waited has left off."""
        slot.resumed, slot.repeats = why, self._context.calls + 1

    def _count_wait(self) -> None:
        self._again += 1
        self._waits += 1

    async def _wait(self, slot: bridge.Slot) -> int:
        """Wait for what the slot says, if that has found room there."""
        reactor = self._reactor
        assert reactor is not None
        self._again += 1
        count = slot.count
        if count > slot.room:
            self._make_room(count)
            return bridge.RESUME_NOT
        self._waits += 1
        if count == 1 and slot.until == bridge.NO_DEADLINE:
            # What the reactor would do, without the coroutines between.
            wait = ALONE.get(self._first.events)
            if wait is not None:
                fd = self._first.fd
                try:
                    await wait(fd)
                except (trio.BusyResourceError, OSError):
                    pass  # the reactor has other means
                except trio.ClosedResourceError:
                    reactor.lost(fd, self)
                    return bridge.RESUME_READY
                except BaseException:
                    reactor.watches.look_again(fd)
                    raise
                else:
                    reactor.watches.look_again(fd)
                    return bridge.RESUME_READY
        return await reactor.wait(slot, self)

    def place_stdio(self, stdio: Sequence[int]) -> None:
        """Borrow the host's descriptors for 0, 1 and 2; -1 leaves a number free."""
        super().place_stdio(stdio)
        self.lent = stdio

    def lose(self, fd: int) -> None:
        """It is closed by its owner.  The number will mean another file, which is not lent."""
        core = self._engine.core
        for number, host in enumerate(self.lent):
            if host == fd and core.descriptor_host(self._address, number) == fd:
                core.descriptor_release(self._address, number)
        self.lent = [-1 if host == fd else host for host in self.lent]

    def _make_room(self, count: int) -> None:
        self._fds = (bridge.PollFd * count)()
        self._first: bridge.PollFd = self._fds[0]
        self._slot.fds, self._slot.room = self._fds, count

    def _let_run(self, future: int) -> bool:
        assert self._reactor is not None
        began = time.perf_counter()
        if self._cpu is None:
            done = self._reactor.poll(future)
        else:
            self._cpu.begin()
            done, left = self._reactor.poll(future), self._cpu.left()
            self._cpu.end()
            if left <= 0:
                raise self._cpu.error()
        self._ran = time.perf_counter() - began
        self._computing += self._ran
        self._reactor.turns.spent += self._ran
        return done

    def _since_began(self) -> float:
        """How long it has waited: all the time in its calls that it has not had the thread."""
        inside = self._inside + (time.perf_counter() - self._began if self._busy else 0.0)
        return max(0.0, inside - self._computing)

    def numbers(self) -> tuple[float, ...]:
        """What it has done.  A call that had to wait is one, however often it was made again."""
        c, waits = self._context, self._waits
        waiting = self._since_began()
        return c.calls - self._again, waits, c.read, c.written, waiting, self._computing

    async def _answer(self, slot: bridge.Slot) -> int:
        """Make a call that is in Python; it may go on to one that waits."""
        assert self._reactor is not None
        request = self._requests()[slot.request or 0]
        while True:
            values = (bridge.ValRaw * len(slot.arguments))(*slot.arguments)
            try:
                result = request(ctypes.addressof(values), self._address)
                if isinstance(result, int):
                    return result
                self._reactor.turns.release()  # it may wait long, and does not compute meanwhile
                return int(await result)
            except Suspended:
                self._reactor.turns.release()
                self._repeat(slot, await self._wait(slot))
            except Trapped as end:
                message, frames = bridge.trap_message(end.trap)
                slot.grow, self._wanted = self._wanted, 0
                if slot.grow:
                    return 0  # it asks again, when the memory has grown
                self.raise_end()
                raise GuestTrap(message, frames) from None

    def _requests(self) -> Mapping[int, Request]:
        """The calls in Python that it can ask for."""
        return self._link.requests if self._link is not None else {}


def _computing(seconds: float | None) -> CpuTime | None:
    """What adds up how long this thread computes for a guest."""
    if seconds is None:
        return None
    from wali_core._limits import CpuTime

    return CpuTime(seconds, own_process=False, whole_run=True)


def _boxed(function: Function, args: Sequence[float]) -> tuple[Any, Any]:
    """Arguments as asynchronous calls take them, and room for results."""
    function.check(args)
    values: list[float] = []
    for kind, argument in zip(function.parameters, args, strict=True):
        values.append(_KINDS[kind])
        values.append(_FLOATS[kind](argument).value if kind in _FLOATS else signed(kind, argument))
    results = (bridge.Val * len(function.results))() if function.results else _NOTHING
    return _layout(function.parameters, "B7x").pack(*values), results


def _unboxed(function: Function, results: Any) -> Any:
    return one_of(_layout(function.results, "8x").unpack(results))


@cache
def _layout(kinds: str, head: str) -> struct.Struct:
    """Of ``wasmtime_val_t``s."""
    return struct.Struct("<" + "".join(head + _BODIES[kind] for kind in kinds))


def places(ends: Any) -> tuple[Any, Any]:
    """Where a trap is to be put, and where an error."""
    return byref(ends, ctypes.sizeof(c_void_p)), byref(ends)
