"""Tests of guests that write to a terminal which takes no more."""

from __future__ import annotations

import contextlib
import os
import termios
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from benchmarks._many import WASI
from wali_core import GuestTimeout, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Writes one byte again and again, so many at once, for ever; or some once.
WRITES = f"""(module
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "once") (param $byte i32) (param $size i32) (result i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (local.get $size))
    (memory.fill (i32.const 1024) (local.get $byte) (local.get $size))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))
  (func $fill (export "fill") (param $byte i32) (param $size i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (local.get $size))
    (memory.fill (i32.const 1024) (local.get $byte) (local.get $size))
    (loop $again
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $again)))
  (func (export "_start") (call $fill (i32.const 10) (i32.const 1000))))"""

TOO_LONG = 20.0  # seconds: then a thread is stuck in the kernel; a hang-up frees it, to fail


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Yield a terminal that nobody reads, and who could.  Tabs become spaces there."""
    master, slave = os.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] |= termios.OPOST | termios.ONLCR | termios.TAB3
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    stuck = threading.Event()

    def free() -> None:
        stuck.set()
        os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), master, inheritable=False)

    watchdog = threading.Timer(TOO_LONG, free)
    watchdog.start()
    try:
        yield slave, master
    finally:
        watchdog.cancel()
        os.close(slave)
        os.close(master)
    assert not stuck.is_set()


@pytest.mark.parametrize("size", [1, 7, 1000, 4095, 5000])
@pytest.mark.parametrize("byte", [b"\n", b"\t", b"x"])
def test_a_guest_waits_for_room(
    byte: bytes, size: int, runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """Whatever it writes and however much of it: it waits as a task, and is cancelled there."""
    module = runtime.load(guest_from_wat(WRITES))

    async def main(slave: int) -> None:
        async with runtime.open(module, stdio=(-1, slave, -1)) as guest:
            with trio.move_on_after(1) as scope:
                await guest.call("fill", ord(byte), size)
        assert scope.cancelled_caught

    with terminal() as (slave, _):
        trio.run(main, slave, clock=trio.testing.MockClock(autojump_threshold=0))
        assert os.get_blocking(slave)


def test_a_terminal_that_is_stopped(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """After Ctrl-S there is no room at all; after Ctrl-Q everything arrives."""
    module = runtime.load(guest_from_wat(WRITES))
    size, written = 20_000, []

    async def main(slave: int, master: int) -> None:
        async with (
            runtime.open(module, stdio=(-1, slave, -1)) as guest,
            trio.open_nursery() as nursery,
        ):

            async def write() -> None:
                written.append(await guest.call("once", ord("x"), size))

            termios.tcflow(slave, termios.TCOOFF)
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            assert not written
            termios.tcflow(slave, termios.TCOON)
            left = size
            while left:
                await trio.lowlevel.wait_readable(master)
                text = os.read(master, 1 << 16)
                assert set(text) == {ord("x")}
                left -= len(text)

    with terminal() as (slave, master):
        trio.run(main, slave, master)
    assert written == [size]


def test_a_time_out_ends_a_guest_with_the_thread(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """`run_sync` comes back in time from a guest that writes to a terminal nobody reads."""
    module = runtime.load(guest_from_wat(WRITES))
    with (
        terminal() as (slave, _),
        pytest.raises(GuestTimeout, match=r"stopped after its 0\.2 s"),
    ):
        runtime.run_sync(module, stdout=slave, timeout=0.2)
