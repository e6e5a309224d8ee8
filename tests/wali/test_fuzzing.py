"""Calls that Python serves, with arguments that nobody would give: see `fuzzing`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.wali import building
from tests.wali.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# How many calls each: as many as WALI_WILD_CALLS says, where somebody has the time.
CALLS = int(os.environ.get("WALI_WILD_CALLS", "4000"))
LEAST_KINDS = 12  # of some thirty, of which others need more than luck


@pytest.mark.parametrize("seed", range(3))
def test_wild_arguments(seed: int, box: Path) -> None:
    """Every call answers with a number, and what is not the guest's stays as it is."""
    program = str(building.program("waiting"))
    command = [sys.executable, "-m", "tests.wali.fuzzing", program]

    done = subprocess.run(
        [*command, str(seed), str(CALLS)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=box,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 + CALLS / 100,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    said = re.fullmatch(rf"{CALLS} calls, (\d+) of (\d+) kinds\n", done.stdout)
    assert said is not None
    assert int(said[1]) > CALLS // 20
    assert int(said[2]) >= LEAST_KINDS
