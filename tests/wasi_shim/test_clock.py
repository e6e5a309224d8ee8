"""Clocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import BEYOND, WasiError

if TYPE_CHECKING:
    from tests.wasi_shim.conftest import Start


@pytest.mark.parametrize("clock", [time.CLOCK_REALTIME, time.CLOCK_MONOTONIC])
def test_time_is_the_hosts(start: Start, clock: int) -> None:
    """A reading lies between two of the host's."""
    wasi = start()

    before = time.clock_gettime_ns(clock)
    assert before <= wasi.time(clock) <= time.clock_gettime_ns(clock)


@pytest.mark.parametrize("clock", range(4))
def test_every_clock_has_a_resolution(start: Start, clock: int) -> None:
    """It is neither zero nor coarser than a second."""
    wasi = start()

    wasi.call("clock_res_get", clock, 0)

    assert 0 < int.from_bytes(wasi.memory.read(0, 8), "little") <= 10**9


@pytest.mark.parametrize("call", [("clock_res_get", 4, 0), ("clock_time_get", 4, 0, 0)])
def test_other_clocks_do_not_exist(start: Start, call: tuple[str, int]) -> None:
    """Linux has more clocks than WASI."""
    with pytest.raises(WasiError, match="INVAL"):
        start().call(*call)


@pytest.mark.parametrize("call", [("clock_res_get", 1, BEYOND), ("clock_time_get", 1, 0, BEYOND)])
def test_a_result_needs_room(start: Start, call: tuple[str, int]) -> None:
    """A pointer outside the memory is a fault."""
    with pytest.raises(WasiError, match="FAULT"):
        start().call(*call)
