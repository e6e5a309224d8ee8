"""Tests of the face of capabilities."""

from __future__ import annotations

import subprocess
import sys

import pytest

import capabilities


def test_every_public_name_is_there() -> None:
    """`__all__` is sorted, and each of its names resolves and is listed."""
    assert capabilities.__all__ == sorted(capabilities.__all__)
    for name in capabilities.__all__:
        assert getattr(capabilities, name).__name__ == name
    assert set(capabilities.__all__) <= set(dir(capabilities))


def test_other_names_are_not() -> None:
    """A name that does not exist raises what Python raises for any module."""
    with pytest.raises(AttributeError, match="module 'capabilities' has no attribute 'Polcy'"):
        capabilities.Polcy  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("names", ["", "PolicyError, parse_duration, parse_size"])
def test_importing_is_cheap(names: str) -> None:
    """Neither the package nor what the command line reads options with imports anything heavy."""
    code = (
        "import sys; before = set(sys.modules); import capabilities\n"
        f"{f'from capabilities import {names}' if names else ''}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - {'capabilities', '__future__', 'importlib', 'warnings', '_warnings'}))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "\n"
