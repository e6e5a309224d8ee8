"""Hundreds of guests in one thread: some wait, one computes without end, three are a pipeline.

python -m examples.08_reactor.reactor
"""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from examples._common import expect, guest, run, say
from wali_core import GuestTimeout, Runtime

if TYPE_CHECKING:
    from wali_core._engine import Module

HERE = Path(__file__).parent
SLEEPERS, LINES = 300, 20_000


async def sleepers(runtime: Runtime, module: Module) -> None:
    """Have guests wait for a line each, wake one, and give up the others."""
    pipes = [os.pipe() for _ in range(SLEEPERS)]
    async with trio.open_nursery() as nursery:
        for read, _ in pipes:
            nursery.start_soon(partial(runtime.run, module, args=["read"], stdin=read))
        while runtime.statistics().waits < SLEEPERS:
            await trio.lowlevel.checkpoint()
        threads = [thread.name for thread in threading.enumerate() if "wali" in thread.name]
        say(f"{SLEEPERS} guests wait for input, all in this thread (beside it: {threads})")
        began = trio.current_time()
        os.write(pipes[SLEEPERS // 2][1], b"\n")
        while runtime.statistics().guests == SLEEPERS:
            await trio.lowlevel.checkpoint()
        say(f"a line for one of them: it has ended {(trio.current_time() - began) * 1e3:.1f} ms on")
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    each = (trio.current_time() - began) / SLEEPERS
    expect(runtime.statistics().guests == 0, "somebody is still there")
    say(f"the others are cancelled, in {each * 1e6:.0f} µs each, and nothing of them is left")
    for fd in (fd for pair in pipes for fd in pair):
        os.close(fd)


async def pipeline(runtime: Runtime, module: Module) -> None:
    """Run three guests, each reading what the one before writes."""

    async def stage(*words: str, stdin: int | None = None, stdout: int | None = None) -> None:
        try:
            await runtime.run(module, args=words, stdin=stdin, stdout=stdout)
        finally:
            for fd in (stdin, stdout):
                if fd is not None:
                    os.close(fd)

    (first_in, first_out), (second_in, second_out) = os.pipe(), os.pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(stage, "count", str(LINES), stdout=first_out))
        nursery.start_soon(partial(stage, "shout", stdin=first_in, stdout=second_out))
        result = await runtime.run(module, args=["total"], stdin=second_in, capture_output=True)
    os.close(second_in)
    said = (result.stdout or b"").decode().strip()
    say(f"count {LINES} | shout | total: {said}")
    expect(said.startswith(f"{LINES} lines"), said)


async def endless(runtime: Runtime, module: Module) -> None:
    """Run a guest that computes for ever, for a second."""
    try:
        await runtime.run(module, args=["spin"], timeout=1.0)
    except GuestTimeout as error:
        say(f"beside it another has counted for ever: {error}")
    else:
        expect(False, "nobody has counted for ever")


async def all_at_once() -> None:
    """Do it, beside a guest that computes without end and gets a time for it."""
    wait = guest(HERE.parent / "03_timeout" / "wait.c")
    stage = guest(HERE / "stage.c")
    with Runtime() as runtime:
        waiting, staged = runtime.load(wait), runtime.load(stage)
        await sleepers(runtime, waiting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endless, runtime, waiting)
            await pipeline(runtime, staged)
        total = runtime.statistics()
        say(f"{total.started} guests, {total.calls} calls, {total.waits} waits")


def main() -> None:
    """Run it all in one trio."""
    trio.run(all_at_once)


if __name__ == "__main__":
    run(main)
