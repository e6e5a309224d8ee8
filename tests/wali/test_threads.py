"""Threads, as far as a comparison with the native program does not show it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.wali import building

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor")
def test_two_threads_use_two_processors(
    wali: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """They wait for each other in loops: one after the other, each time would be a time slice."""
    done = wali("--allow-all", building.program("cores"), patience=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "passed: 100000\n", "")
