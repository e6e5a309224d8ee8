"""Tests of how guests wait and share a thread: many of them, for many things, for one thing."""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import operator
import os
import random
import resource
import socket
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from benchmarks._many import LIMIT, POLLER, WASI, Writer
from tests.jumping import in_jumping_trio, let_pass, until
from tests.wali_core.test_tasks import in_trio
from wali_core import GuestTimeout, Runtime
from wali_core import _bridge as bridge
from wali_core.programs._waits import _THUNK as THUNK
from wali_core.tasks import _turns
from wali_core.tasks._turns import BUDGET, CHECKPOINT, LEAST, MOST, Pace, Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from wali_core import CooperativeGuest
    from wali_core._engine import Module


@pytest.fixture
def module(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> Module:
    """Return the module above."""
    return runtime.load(guest_from_wat(POLLER))


# --- several descriptors --------------------------------------------------------------------------


@pytest.mark.parametrize("ready", [0, 1, 2])
def test_one_of_several_is_enough(
    ready: int,
    runtime: Runtime,
    module: Module,
    pipes: Callable[[], tuple[int, int]],
    pairs: Callable[[], tuple[socket.socket, socket.socket]],
) -> None:
    """A guest that waits for three descriptors is woken by any of them, again and again."""
    read, write = pipes()
    ends = [pairs() for _ in range(2)]
    theirs = [read, *(one.fileno() for one, _ in ends)]
    ours = [write, *(other.fileno() for _, other in ends)]

    async def main() -> None:
        sockets = [one for one, _ in ends]
        async with runtime.open(module, stdio=(read, -1, -1), sockets=sockets) as guest:
            for _ in range(3):
                found: list[int] = []

                async def poll(found: list[int] = found) -> None:
                    found.append(await guest.call("poll", 3))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(poll)
                    await trio.testing.wait_all_tasks_blocked()
                    assert not found
                    os.write(ours[ready], b"x")
                assert found == [ready]
                os.read(theirs[ready], 1)

    in_trio(main)


def test_what_is_always_ready_is_ready_beside_others(
    runtime: Runtime,
    module: Module,
    pairs: Callable[[], tuple[socket.socket, socket.socket]],
    tmp_path: Path,
) -> None:
    """A regular file is ready at once, whatever else is waited for."""
    (tmp_path / "file").write_bytes(b"x")

    async def main() -> int:
        with (tmp_path / "file").open("rb") as file:
            stdio = (file.fileno(), -1, -1)
            async with runtime.open(module, stdio=stdio, sockets=[pairs()[0]]) as guest:
                return int(await guest.call("poll", 2))

    assert in_trio(main) == 0


def test_the_embedder_waits_for_the_same(
    runtime: Runtime, module: Module, pipes: Callable[[], tuple[int, int]]
) -> None:
    """A guest and a task of the embedder's wait for one descriptor, and both are woken."""
    read, write = pipes()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(functools.partial(runtime.run, module, stdin=read))
            await trio.testing.wait_all_tasks_blocked()
            os.write(write, b"x")

    in_trio(main)


EBADF = 8  # WASI's

# Waits for its descriptor 0, alone or beside 3, until that has something or is gone; reads then.
READS = f"""(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $subscribe (param $at i32) (param $fd i32)
    (i32.store8 offset=8 (local.get $at) (i32.const 1))
    (i32.store offset=16 (local.get $at) (local.get $fd)))
  (func (export "read") (param $polled i32) (result i32)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 1))
    (call $subscribe (i32.const 1024) (i32.const 0))
    (call $subscribe (i32.const 1072) (i32.const 3))
    (if (local.get $polled) (then
      (drop (call $poll (i32.const 1024) (i32.const 2048) (local.get $polled) (i32.const 0)))))
    (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))))"""


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("polled", [(0,), (1,), (2,), (0, 0), (0, 1, 2), (2, 2), (2, 0)])
def test_a_lent_descriptor_is_closed(
    polled: tuple[int, ...],
    reused: bool,  # noqa: FBT001
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    pipes: Callable[[], tuple[int, int]],
    pairs: Callable[[], tuple[socket.socket, socket.socket]],
) -> None:
    """Whoever says that he closes what guests wait for ends all the waits; what is next is his."""
    module = runtime.load(guest_from_wat(READS))
    lent, (theirs, _), (other, write) = pipes()[0], pairs(), pipes()
    os.write(write, b"secret")
    found = []

    async def main() -> None:
        async def read(ways: int) -> None:
            stdio = (lent, -1, -1)
            async with runtime.open(module, stdio=stdio, sockets=[theirs]) as guest:
                found.append(await guest.call("read", ways))

        async with trio.open_nursery() as nursery:
            for ways in polled:
                nursery.start_soon(read, ways)
                await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.notify_closing(lent)
            if reused:
                os.dup2(other, lent)
            else:
                os.close(lent)

    in_trio(main)
    assert found == [EBADF] * len(polled)


@pytest.mark.parametrize("ends", ["cancelled", "woken"])
def test_who_waits_by_trios_means_has_a_successor(
    ends: str,
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    pipes: Callable[[], tuple[int, int]],
) -> None:
    """The first of those that wait for a lent descriptor goes; the others are told all the same."""
    module = runtime.load(guest_from_wat(READS))
    lent, write = pipes()
    found = []

    async def main() -> None:
        async def read(scope: trio.CancelScope) -> None:
            with scope:
                async with runtime.open(module, stdio=(lent, -1, -1)) as guest:
                    found.append(await guest.call("read", 0))

        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(3)]
            for scope in scopes:
                nursery.start_soon(read, scope)
                await trio.testing.wait_all_tasks_blocked()
            if ends == "woken":
                os.write(write, b"x")
            else:
                scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 2
            trio.lowlevel.notify_closing(lent)
            os.close(lent)

    in_trio(main)
    assert sorted(found) == [*([0] if ends == "woken" else []), EBADF, EBADF]


def test_what_another_guest_closes_is_waited_for(
    runtime: Runtime, module: Module, pipes: Callable[[], tuple[int, int]]
) -> None:
    """Duplicates of one file are waited for apart: closing one does not end the other's wait."""
    read, write = pipes()
    copy = os.dup(read)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(runtime.run, module, stdin=read))
            async with trio.open_nursery() as other:
                other.start_soon(functools.partial(runtime.run, module, stdin=copy))
                await trio.testing.wait_all_tasks_blocked()
                other.cancel_scope.cancel()
            os.close(copy)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            os.write(write, b"x")

    in_trio(main)


def test_more_waiters_than_the_kernel_nests(
    runtime: Runtime, module: Module, pairs: Callable[[], tuple[socket.socket, socket.socket]]
) -> None:
    """600 guests wait for duplicates of one socket, and for one of their own: one byte wakes all.

    The kernel lets a file into 500 nested epolls; what is beyond is polled on a thread, which ends.
    """
    count = 600
    raise_limit(4 * count)
    shared, far = pairs()
    before = threading.active_count()

    async def main() -> None:
        async def one() -> None:
            own, end = os.pipe()
            try:
                async with runtime.open(module, stdio=(own, -1, -1), sockets=[shared]) as guest:
                    assert await guest.call("poll", 2) == 1
            finally:
                os.close(own)
                os.close(end)

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked(0.05)  # one more is a thread
            assert len(nursery.child_tasks) == count
            assert "wali poller" in {thread.name for thread in threading.enumerate()}
            far.send(b"x")
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("wali poller") == 0

    in_trio(main)
    assert threading.active_count() <= before + 2  # trio's, and the one that moves the epoch


class Steps(trio.abc.Instrument):
    """Counts how often each task was let run, by its name."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one."""
        self.count[task.name] = self.count.get(task.name, 0) + 1


# Takes a byte from its socket at 3 and sends it back, so many times.
ECHO = f"""(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "echo") (param $count i32) (result i32)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 1))
    (loop $again
      (if (call $read (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (return (i32.const -1))))
      (if (call $write (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (return (i32.const -2))))
      (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))
    (i32.load8_u (i32.const 64))))"""


def test_who_waits_for_the_same_again_runs_without_its_task(
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    pairs: Callable[[], tuple[socket.socket, socket.socket]],
) -> None:
    """A guest that answers 500 messages runs for each of them, and its task a few times."""
    theirs, ours = pairs()
    steps, count = Steps(), 500

    async def main() -> None:
        module = runtime.load(guest_from_wat(ECHO))
        async with runtime.open(module, stdio=(-1, -1, -1), sockets=[theirs]) as guest:

            async def serve() -> None:
                assert await guest.call("echo", count) == (count - 1) % 256

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, name="server")
                await trio.testing.wait_all_tasks_blocked()
                trio.lowlevel.add_instrument(steps)
                for number in range(count):
                    ours.send(bytes([number % 256]))
                    await trio.lowlevel.wait_readable(ours)
                    assert ours.recv(2) == bytes([number % 256])
            assert count - 10 < guest.statistics().waits <= count

    in_trio(main)

    assert steps.count["server"] < 10


def test_cancelling_reaches_who_runs_without_its_task(
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    pairs: Callable[[], tuple[socket.socket, socket.socket]],
) -> None:
    """Cancelled between two messages, a guest answers no more; others with its number do."""
    ends = [pairs() for _ in range(3)]

    async def main() -> None:
        module = runtime.load(guest_from_wat(ECHO))
        for theirs, ours in ends:
            async with runtime.open(module, stdio=(-1, -1, -1), sockets=[theirs]) as guest:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(guest.call, "echo", 100)
                        for _ in range(5):
                            await trio.testing.wait_all_tasks_blocked()
                            ours.send(b"x")
                            await trio.lowlevel.wait_readable(ours)
                            assert ours.recv(2) == b"x"
                        scope.cancel()
            ours.send(b"y")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BlockingIOError):
                ours.recv(1, socket.MSG_DONTWAIT)

    in_trio(main)


def test_what_an_interrupted_call_had_done_counts_for_no_other(
    runtime: Runtime, module: Module, pairs: Callable[[], tuple[socket.socket, socket.socket]]
) -> None:
    """A shim that suspends in a long receive, then makes a short one, reaches nothing beside it."""
    theirs, ours = pairs()
    ours.send(b"x" * 100)

    async def main() -> None:
        async with runtime.open(module, stdio=(-1, -1, -1), sockets=[theirs]) as guest:
            thunk = THUNK(runtime.engine.core.calls["wali", "SYS_recvfrom"].capable)
            values = (bridge.ValRaw * 6)()
            for value, argument in zip(values, (3, 1024, 10, 0, 0, 0), strict=True):
                value.i64 = argument
            for done, got in ((600, 10), (11, 10), (6, 10)):
                context = guest._context
                context.slot.done, context.slot.repeats = done, context.calls + 1
                values[0].i64 = 3
                assert not thunk(guest._address, None, ctypes.addressof(values), len(values))
                assert values[0].i64 == got
            theirs.recv(100, socket.MSG_DONTWAIT)
            values[0].i64 = 3
            assert not thunk(guest._address, None, ctypes.addressof(values), len(values))
            assert values[0].i64 == bridge.SUSPENDED
            assert not guest._slot.suspended  # it has said that it would wait, and does not yet

    in_trio(main)


# --- turns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 4, 9, 49, 1000])
def test_a_turn_is_shorter_the_more_there_are(count: int) -> None:
    """min(10 ms, budget / guests), but no less than a tick; trio waits for two of them."""
    pace = Pace()
    turns = Turns(pace)
    turns._line.extend([None] * count)  # type: ignore[list-item]
    turns._set_pace()

    assert turns._length() == max(LEAST, min(MOST, BUDGET / (count + 1)))
    assert pace.period == min(CHECKPOINT / 2, turns._length())


@pytest.mark.parametrize("count", [1, 2, 5, 8, 50])
def test_turns_by_a_clock_that_only_computing_moves(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the thread for its turn and at most a tick more; trio has it at each tick."""
    now = 0.0
    clock = types.SimpleNamespace(perf_counter=lambda: now, sleep=time.sleep)
    monkeypatch.setattr(_turns, "time", clock)
    pace = Pace()
    turns = Turns(pace)
    ran: list[tuple[int, float]] = []
    gaps: list[float] = []

    async def compute(name: int) -> None:
        nonlocal now
        while True:
            now += pace.period
            ran.append((name, pace.period))
            await turns.take()

    class Rounds(trio.abc.Instrument):
        last = 0.0

        def before_io_wait(self, timeout: float) -> None:
            assert timeout == 0
            gaps.append(now - self.last)
            self.last = now

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in range(count):
                nursery.start_soon(compute, name)
            await trio.lowlevel.checkpoint()
            trio.lowlevel.add_instrument(rounds := Rounds())
            while now < 3.0:
                await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(rounds)
            nursery.cancel_scope.cancel()

    in_trio(main)

    length = min(MOST, BUDGET / count)
    tick = min(CHECKPOINT, length)
    assert max(gaps[1:]) <= tick + 1e-9  # at first all begin at once
    line = itertools.groupby(ran[2 * count :], key=operator.itemgetter(0))
    lengths = [sum(seconds for _, seconds in turn) for _, turn in line][1:-1]
    assert count == 1 or len(lengths) > count
    assert all(length - 1e-9 <= found <= length + tick + 1e-9 for found in lengths)


def test_computing_guests_take_turns(runtime: Runtime, module: Module) -> None:
    """Guests that compute without end get the same; others are served in between."""
    guests: list[Any] = []
    began: list[float] = []
    gaps: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def spin() -> None:
                async with runtime.open(module, stdio=(-1, -1, -1)) as guest:
                    guests.append(guest)
                    await guest.call("spin")

            for _ in range(8):
                nursery.start_soon(spin)
            await until(lambda: len(guests) == 8)
            await until(lambda: all(guest.statistics().running for guest in guests))
            began.extend(guest.statistics().running for guest in guests)
            last = time.perf_counter()
            while runtime.statistics().running < 0.5 + sum(began):
                await trio.lowlevel.checkpoint()
                gaps.append(time.perf_counter() - last)
                last += gaps[-1]
            nursery.cancel_scope.cancel()

    in_trio(main)

    times = [
        guest.statistics().running - before for guest, before in zip(guests, began, strict=True)
    ]
    assert len(times) == 8
    assert max(times) < 3 * min(times)
    assert sorted(gaps)[len(gaps) // 2] < 4 * CHECKPOINT


def test_a_guest_that_waits_is_served_while_others_compute(
    runtime: Runtime, module: Module, pipes: Callable[[], tuple[int, int]]
) -> None:
    """It does not stand in line: it is woken in less than a round of all turns."""
    read, write = pipes()

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            computing: list[CooperativeGuest] = []

            async def spin() -> None:
                async with runtime.open(module, stdio=(-1, -1, -1)) as guest:
                    computing.append(guest)
                    await guest.call("spin")

            for _ in range(50):
                nursery.start_soon(spin)
            await until(lambda: len(computing) == 50)
            await until(lambda: all(guest.statistics().running for guest in computing))
            delays: list[float] = []
            async with runtime.open(module, stdio=(read, -1, -1)) as guest:
                while len(delays) < 5:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(guest.call, "poll", 1)
                        await until(lambda: guest.statistics().waits > len(delays))
                        began = time.perf_counter()
                        os.write(write, b"x")
                    delays.append(time.perf_counter() - began)
                    os.read(read, 1)
            nursery.cancel_scope.cancel()
        return sorted(delays)[2]

    assert in_trio(main) < 2 * BUDGET


class Rounds(trio.abc.Instrument):
    """How many tasks of one step of trio's have computed for more than a millisecond, at most."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self.began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        """A task is let run."""
        self.began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        """It has run."""
        self.now += time.thread_time() - self.began > 0.001

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        """All have."""
        self.most, self.now = max(self.most, self.now), 0


# Waits for a byte from its descriptor 0 or 3, and computes then.
BUSY = f"""(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "compute") (param $fd i32)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (loop $again (br $again))))"""


@pytest.mark.parametrize("lent", [True, False])
def test_guests_that_wake_together_do_not_run_together(
    lent: bool,  # noqa: FBT001
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    pairs: Callable[[], tuple[socket.socket, socket.socket]],
) -> None:
    """However many become ready at once and compute then: trio gets the thread after each."""
    rounds, count = Rounds(), 20
    module = runtime.load(guest_from_wat(BUSY))

    async def main() -> None:
        ends = [pairs() for _ in range(count)]
        async with trio.open_nursery() as nursery:
            guests: list[CooperativeGuest] = []

            async def one(theirs: socket.socket) -> None:
                options: Any = {"stdio": (theirs.fileno() if lent else -1, -1, -1)}
                async with runtime.open(
                    module, sockets=[] if lent else [theirs], **options
                ) as guest:
                    guests.append(guest)
                    await guest.call("compute", 0 if lent else 3)

            for theirs, _ in ends:
                nursery.start_soon(one, theirs)
            await trio.testing.wait_all_tasks_blocked()
            before = [guest.statistics().running for guest in guests]
            trio.lowlevel.add_instrument(rounds)
            for _, ours in ends:
                ours.send(b"x")
            while not all(
                guest.statistics().running > was + 0.003
                for guest, was in zip(guests, before, strict=True)
            ):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    in_trio(main)
    assert 1 <= rounds.most <= 3


def test_two_loops_in_two_threads(
    runtime: Runtime, module: Module, pipes: Callable[[], tuple[int, int]]
) -> None:
    """A runtime may be shared: guests of two threads compute and wait side by side."""
    read = pipes()[0]
    problems: list[BaseException] = []

    def work() -> None:
        guests: list[CooperativeGuest] = []

        async def one(name: str, *args: int) -> None:
            async with runtime.open(module, stdio=(read, -1, -1)) as guest:
                guests.append(guest)
                with pytest.raises(GuestTimeout):
                    await guest.call(name, *args, timeout=60)

        async def main() -> None:
            for _ in range(3):
                guests.clear()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one, "spin")
                    nursery.start_soon(one, "poll", 1)
                    await until(lambda: len(guests) == 2)
                    await until(lambda: sum(one.statistics().running for one in guests) > 0.02)
                    await let_pass(60, lambda: any(one.statistics().waits for one in guests))

        try:
            in_jumping_trio(main)
        except BaseException as error:  # noqa: BLE001 - shown below
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


# --- many -----------------------------------------------------------------------------------------


def raise_limit(needed: int) -> None:
    """Allow this process as many descriptors as it may have."""
    exec(LIMIT, {"resource": resource})  # noqa: S102 - as the other process does
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < needed:
        pytest.skip(f"a process may not have {needed} descriptors here")


def held() -> tuple[int, int, int]:
    """Return how many descriptors, threads (but trio's idle ones) and mappings this process has."""
    gc.collect()
    mappings = Path("/proc/self/maps").read_text().count("\n")
    threads = [t for t in threading.enumerate() if not t.name.startswith("Trio thread")]
    return len(os.listdir("/proc/self/fd")), len(threads), mappings


@pytest.mark.slow
def test_ten_thousand_guests(cache_folder: Path, guest_from_wat: Callable[..., Path]) -> None:
    """10,000 guests are blocked in poll: any one wakes alone; cancelled, they leave nothing."""
    count = 10_000
    raise_limit(count + 500)
    writer = Writer(count)
    path = guest_from_wat(POLLER)
    woken = random.Random(5).sample(range(count), 50)  # noqa: S311 - a plan

    async def main() -> None:
        with Runtime(cache=cache_folder) as runtime:
            await runtime.run(runtime.load(path), stdin=-3)  # what is made once is made now
        before = held()
        await many(before)
        after = held()
        assert after[0] <= before[0]
        assert after[1] <= before[1]
        assert after[2] <= before[2] + 50

    async def many(before: tuple[int, int, int]) -> None:
        with Runtime(cache=cache_folder, pool=count + 10) as runtime:
            module = runtime.load(path)
            ended: list[int] = []

            async def one(index: int) -> None:
                await runtime.run(module, stdin=writer.reads[index])
                ended.append(index)

            async with trio.open_nursery() as nursery:
                for index in range(count):
                    nursery.start_soon(one, index)
                await trio.testing.wait_all_tasks_blocked(0.1)
                assert len(nursery.child_tasks) == count
                now = held()
                assert now[0] <= before[0]  # none of them has a descriptor, or a thread
                assert now[1] <= before[1]
                for number, index in enumerate(woken):
                    writer.write(index)
                    while len(ended) == number:
                        await trio.lowlevel.checkpoint()
                    await trio.testing.wait_all_tasks_blocked(0.001)
                    assert ended[number:] == [index]
                nursery.cancel_scope.cancel()
            assert runtime.statistics().guests == 0
            assert runtime.statistics().started == count

    try:
        trio.run(main)
    finally:
        writer.close()
