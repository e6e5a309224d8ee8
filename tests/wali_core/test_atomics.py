"""A guest in the embedder's process shares its memory with nobody, so nothing in it can wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wali_core import GuestTrap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wali_core import Runtime

WAITS = """
(module
  (memory (export "memory") 1 1 shared)
  (func (export "wait") (result i32)
    (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))
  (func (export "add") (result i32)
    (i32.atomic.rmw.add (i32.const 0) (i32.const 5))))
"""


def test_atomic_wait_is_a_trap(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """Waiting would stop the thread past every deadline: it traps, at once."""
    with (
        runtime.instantiate(guest_from_wat(WAITS)) as guest,
        pytest.raises(GuestTrap, match="shared"),
    ):
        guest.call("wait", timeout=5)


def test_other_atomic_instructions_work(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A program that was built for threads and has none runs as it is."""
    with runtime.instantiate(guest_from_wat(WAITS)) as guest:
        assert (guest.call("add"), guest.call("add")) == (0, 5)
