"""Tests of guests that are woken and cancelled at once, in whatever order trio finds the two."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
import trio.testing

from benchmarks._many import WASI
from tests.wali_core.test_tasks import in_trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wali_core import Runtime

    Pairs = Callable[[], tuple[socket.socket, socket.socket]]
    Pipes = Callable[[], tuple[int, int]]

TRIES = 20
"""trio runs the tasks of one step in an order of its own, by chance."""

# Waits in one of four ways, and says then, into its socket at 3, that it goes on.
ANSWERS = f"""(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func $answer
    (drop (call $write (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $subscribe (param $at i32) (param $fd i32)
    (i32.store8 offset=8 (local.get $at) (i32.const 1))
    (i32.store offset=16 (local.get $at) (local.get $fd)))
  (func (export "read") (param $fd i32)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $answer))
  (func (export "poll") (param $count i32)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 1))
    (call $subscribe (i32.const 1024) (i32.const 3))
    (call $subscribe (i32.const 1072) (i32.const 0))
    (i32.store offset=16 (i32.const 1120) (i32.const 1))
    (i64.store offset=24 (i32.const 1120) (i64.const 1000000000))
    (drop (call $poll (i32.const 1024) (i32.const 2048) (local.get $count) (i32.const 0)))
    (call $answer)))"""

WAYS = {
    "its own": ("read", 3, 1),
    "several": ("poll", 2, 1),
    "a lent one": ("read", 0, 1),
    "one that is shared": ("read", 0, 2),
}


def has_come(end: socket.socket) -> bool:
    """Has the other end sent something?"""
    try:
        return bool(end.recv(1, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("ends", ["cancelled", "timed out", "cancelled by who is woken as well"])
@pytest.mark.parametrize("way", WAYS)
def test_woken_and_cancelled_at_once(
    way: str,
    ends: str,
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    pairs: Pairs,
    pipes: Pipes,
) -> None:
    """A guest that is cancelled in the step in which it is woken is cancelled, and does no more."""
    function, argument, guests = WAYS[way]
    module = runtime.load(guest_from_wat(ANSWERS))
    clock = trio.testing.MockClock()

    async def once() -> None:
        (read, write), (stop, stopper) = pipes(), pairs()
        ends_of = [pairs() for _ in range(guests)]
        returned = []

        async def one(theirs: socket.socket) -> None:
            async with runtime.open(module, stdio=(read, -1, -1), sockets=[theirs]) as guest:
                await guest.call(function, argument)
                returned.append(theirs)

        async def stops(scope: trio.CancelScope) -> None:
            await trio.lowlevel.wait_readable(stop)
            scope.cancel()

        with trio.move_on_after(1 if ends == "timed out" else 100) as scope:
            async with trio.open_nursery() as nursery:
                for theirs, _ in ends_of:
                    nursery.start_soon(one, theirs)
                nursery.start_soon(stops, scope)
                await trio.testing.wait_all_tasks_blocked()
                os.write(write, b"x" * guests)
                for _, ours in ends_of:
                    ours.send(b"x")
                if ends == "timed out":
                    clock.jump(2)
                elif ends == "cancelled":
                    scope.cancel()
                else:
                    stopper.send(b"x")
        answered = [theirs for theirs, ours in ends_of if has_come(ours)]
        assert set(answered) == set(returned)
        if "who" not in ends:
            assert scope.cancelled_caught
            assert not answered

    async def main() -> None:
        for _ in range(TRIES):
            await once()

    in_trio(main, clock=clock)


def test_a_time_of_its_own_comes_with_what_it_waits_for(
    runtime: Runtime, guest_from_wat: Callable[..., Path], pairs: Pairs, pipes: Pipes
) -> None:
    """A guest whose poll is over in the step in which its descriptor is ready goes on once."""
    module = runtime.load(guest_from_wat(ANSWERS))
    clock = trio.testing.MockClock()

    async def once() -> None:
        (theirs, ours), (read, _) = pairs(), pipes()
        async with (
            runtime.open(module, stdio=(read, -1, -1), sockets=[theirs]) as guest,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(guest.call, "poll", 3)
            await trio.testing.wait_all_tasks_blocked()
            ours.send(b"x")
            clock.jump(2)
        assert has_come(ours)
        assert not has_come(ours)

    async def main() -> None:
        for _ in range(TRIES):
            await once()

    in_trio(main, clock=clock)
