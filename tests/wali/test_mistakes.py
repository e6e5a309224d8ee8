"""Of several mistakes in one call the kernel says one: natively and through WALI the same.

`wrongs.py` makes the program, from the core's table.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.wali import building, wrongs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not building.HAS_NATIVE, reason="the guests are native programs on x86-64 only"
)

ENOUGH = 15_000


def test_the_same_error_comes_first(
    wali: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Every call with each combination of descriptors, pointers, flags and sizes, right and not."""
    source = tmp_path / "wrongs.c"
    source.write_text(wrongs.source())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    native = subprocess.run(
        [building.native(source)],
        cwd=elsewhere,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    expected = native.stdout.splitlines()
    done = wali("--allow-all", building.program(source))
    actual = done.stdout.splitlines()

    assert (done.stderr, done.returncode) == ("", 0)
    assert len(expected) == len(actual) > ENOUGH
    assert {line.split()[0] for line in expected} == wrongs.names()
    pairs = zip(expected, actual, strict=True)
    assert [(one, other.split()[-1]) for one, other in pairs if one != other] == []
