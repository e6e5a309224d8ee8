"""Tests of wali_core.aio: guests in programs that are asyncio's."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import trio

from tests.held import open_descriptors, settled_descriptors
from wali_core import CompletedGuest, GuestTrap, Runtime, aio

if TYPE_CHECKING:
    from pathlib import Path


def test_guests_run_beside_asyncios_tasks(runtime: Runtime, program: Path) -> None:
    """A guest waits for input that a task of asyncio's writes, in the same thread."""
    reader, writer = os.pipe()

    async def guest() -> bytes | None:
        result = await runtime.run(program, args=["echo"], stdin=reader, capture_output=True)
        return result.stdout

    async def write() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            os.write(writer, b"piece ")
        os.close(writer)

    async def main() -> bytes | None:
        given, _ = await asyncio.gather(aio.run(guest), write())
        return given

    assert asyncio.run(main()) == b"piece " * 3
    os.close(reader)


def test_errors_are_raised(runtime: Runtime, program: Path) -> None:
    """What a guest ends with is raised where it is awaited."""

    async def guest() -> None:
        await runtime.run(program, args=["trap"], capture_output=True)

    with pytest.raises(GuestTrap, match="unreachable"):
        asyncio.run(aio.run(guest))


@pytest.mark.parametrize("what", ["spin", "sleep"])
def test_cancelling_ends_the_guest(what: str, runtime: Runtime, program: Path) -> None:
    """A time-out of asyncio's ends a guest, whatever it does, and nothing is left."""
    before = len(settled_descriptors())

    async def guest() -> None:
        await runtime.run(program, args=[what], stdout=-3)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.run(guest), 0.2)

    asyncio.run(main())
    assert runtime.statistics().guests == 0
    assert len(open_descriptors()) <= before + 2  # compiled modules


def test_several_in_a_nursery(runtime: Runtime, program: Path) -> None:
    """One run of trio's serves many guests, and may be followed by another."""

    async def guests() -> int:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: runtime.run(program, args=["exit", "0"]))
        return runtime.statistics().started

    async def main() -> tuple[int, int]:
        return await aio.run(guests), await aio.run(guests)

    assert asyncio.run(main()) == (5, 10)


def test_cancelling_again_does_not_abandon_what_cleans_up(runtime: Runtime, program: Path) -> None:
    """However often it is cancelled, the task ends when the guests' clean-up has."""
    ended: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun, cleaning, go_on = asyncio.Event(), asyncio.Event(), trio.Event()
        tokens: list[trio.lowlevel.TrioToken] = []

        async def guest() -> None:
            tokens.append(trio.lowlevel.current_trio_token())
            begun.set()
            try:
                await runtime.run(program, args=["sleep"], stdout=-3)
            finally:
                with trio.CancelScope(shield=True):
                    cleaning.set()
                    await go_on.wait()
                ended.append("cleaned up")

        task = loop.create_task(aio.run(guest))
        await begun.wait()
        task.cancel()
        await cleaning.wait()
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        tokens[0].run_sync_soon(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        ended.append("over")
        assert (await aio.run(exits)).returncode == 3

    async def exits() -> CompletedGuest:
        return await runtime.run(program, args=["exit", "3"])

    asyncio.run(main())
    assert ended == ["cleaned up", "over"]


@pytest.mark.parametrize("ticks", range(4))
def test_cancelling_at_once(ticks: int, runtime: Runtime, program: Path) -> None:
    """So it is in the very first steps, before trio has begun, and in each of the next."""

    async def guest() -> None:
        await runtime.run(program, args=["sleep"], stdout=-3)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(aio.run(guest))
        for _ in range(ticks):
            await asyncio.sleep(0)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    for _ in range(2):
        asyncio.run(main())
