"""The same source, built for this machine and as a WALI program, prints the same.

The kernel says what is right, and a guest has hundreds of lines to compare.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.wali import building

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not building.HAS_NATIVE, reason="the guests are native programs on x86-64 only"
)


@pytest.mark.parametrize(
    "name",
    [
        "exec",
        "faults",
        "files",
        "links",
        "locks",
        "memory",
        "messages",
        "owners",
        "pointers",
        "processes",
        "replacing",
        "signals",
        "sockets",
        "system",
        "threads",
        "waiting",
    ],
)
def test_prints_what_the_native_program_prints(
    name: str, wali: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Every result, errno, size and byte is the kernel's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    expected = subprocess.run(
        [building.native(name)],
        cwd=elsewhere,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    actual = wali("--allow-all", building.program(name))

    assert actual.stderr == ""
    assert actual.stdout.splitlines() == expected.stdout.splitlines()
    assert actual.returncode == expected.returncode == 0
    assert len(actual.stdout) > 50
