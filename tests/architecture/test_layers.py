"""The arrows between the packages hold; pyproject.toml lists the contracts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.contracts import is_private

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_import_contracts_are_kept() -> None:
    """`lint-imports` finds no import that breaks a layer."""
    command = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "private"),
    [
        ("wali_core._bridge", True),
        ("wali_core.native._x.y", True),
        ("wali_core", False),
        ("wali_core.lowlevel", False),
        ("wali_core.__main__", False),
    ],
)
def test_private_is_one_leading_underscore(module: str, *, private: bool) -> None:
    """A dotted name is private as soon as one of its parts is."""
    assert is_private(module) is private
