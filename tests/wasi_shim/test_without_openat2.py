"""All tests of paths once more, where the kernel has no openat2 or a filter denies it.

The other tests have the shim told to do without it; here it has to find out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wasi_shim.without_openat2 import ERRORS, VARIABLE

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    "tests/wasi_shim/test_fast_path.py",
    "tests/wasi_shim/test_path.py",
    "tests/wasi_shim/test_readdir.py",
    "tests/wasi_shim/test_resolve.py",
    "tests/escape/test_wasi_paths.py",
    "tests/escape/test_wasi_rights.py",
]


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
def test_paths_resolve_as_ever(error: str) -> None:
    """In a process of its own, with a filter that stays, every one of them passes."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    # What walks anyway does not ask for openat2.
    command += ["-p", "tests.wasi_shim.without_openat2", "-k", "not walk", *TESTS]

    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {VARIABLE: error},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
