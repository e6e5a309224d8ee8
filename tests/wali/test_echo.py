"""A server and its clients, all in one thread of one process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks import _echo
from tests.wali_core.test_reactor import held, raise_limit

if TYPE_CHECKING:
    from pathlib import Path

    from wali_core import Runtime


@pytest.mark.parametrize(
    ("count", "rounds", "size"),
    [(1, 20, 65_536), (50, 5, 5_000), pytest.param(1000, 3, 3000, marks=pytest.mark.slow)],
)
def test_every_byte_comes_back(
    count: int, rounds: int, size: int, runtime: Runtime, tmp_path: Path
) -> None:
    """An epoll server, which is trusted, echoes what WASI clients send: all of it, in order."""
    raise_limit(3 * count + 100)
    server, client = _echo.build(tmp_path, 1100)
    threads = threading.active_count()

    async def main() -> None:
        modules = runtime.load(server, isolation="shared"), runtime.load(client)
        await _echo.echo(runtime, modules, 1, 1, 1, tmp_path / "log")
        files, running, _ = held()
        with trio.fail_after(120):
            await _echo.echo(runtime, modules, count, rounds, size, tmp_path / "log")
        assert held()[0] == files
        assert held()[1] <= running  # those that trio keeps for other tests may end meanwhile

    trio.run(main)
    assert threading.active_count() <= threads + 2
    assert (tmp_path / "log").read_text().count("ended\n") == count + 1
