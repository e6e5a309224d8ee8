"""Random bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import BEYOND, MEMORY_SIZE, WasiError

if TYPE_CHECKING:
    from tests.wasi_shim.conftest import Start


@pytest.mark.parametrize("size", [16, 256, 257, 100_000])
def test_bytes_are_not_repeated(start: Start, size: int) -> None:
    """Neither within one answer nor from one to the next, across refills of the pool."""
    wasi = start()

    answers = [wasi.random(size) for _ in range(20)]

    assert len(set(answers)) == 20
    assert len({data[i : i + 8] for data in answers for i in range(0, size, 8)}) >= 20 * (size // 8)


def test_two_guests_differ(start: Start) -> None:
    """Each has a pool of its own."""
    assert start().random(32) != start().random(32)


def test_nothing_is_zero_bytes(start: Start) -> None:
    """An empty buffer is filled with success."""
    assert start().random(0) == b""


@pytest.mark.parametrize(("address", "size"), [(BEYOND, 8), (0, MEMORY_SIZE + 1), (8, 0xFFFFFFFF)])
def test_a_buffer_outside_is_a_fault(start: Start, address: int, size: int) -> None:
    """Nothing is written when the end lies outside."""
    wasi = start()

    with pytest.raises(WasiError, match="FAULT"):
        wasi.call("random_get", address, size)

    assert wasi.memory.read(0, 64) == bytes(64)
