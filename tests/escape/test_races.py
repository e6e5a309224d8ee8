"""What the core has checked it does not read again."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.escape import broken
from tests.escape.races import RACES, lost

if TYPE_CHECKING:
    from pathlib import Path

    from tests.escape.evil import EvilHost


def test_arguments_are_read_once(evil_host: EvilHost, tmp_path: Path) -> None:
    """Another thread flips the bytes of `how`, and of a path, during thousands of calls."""
    assert lost(evil_host, tmp_path) == dict.fromkeys(RACES, 0)


def test_reading_twice_would_lose(evil_shim: Path, tmp_path: Path) -> None:
    """A core that reads its arguments again after the check loses both races."""
    core = broken.build_with(tmp_path / "reads_twice.so", broken.READS_TWICE)
    command = [sys.executable, "-m", "tests.escape.races", str(core), str(evil_shim)]
    done = subprocess.run(
        command, cwd=broken.ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    rounds = json.loads(done.stdout)

    assert all(rounds[name] > 0 for name in RACES)
