"""Tests of wali_core.aio: guests in programs that are asyncio's."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import trio

from wali_core import GuestTrap, Runtime, aio

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
    before = len(os.listdir("/proc/self/fd"))

    async def guest() -> None:
        await runtime.run(program, args=[what], stdout=-3)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.run(guest), 0.2)

    asyncio.run(main())
    assert runtime.statistics().guests == 0
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # compiled modules


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
