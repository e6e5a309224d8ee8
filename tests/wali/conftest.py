"""Ways to run the guests: by the command, and from Python."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wali_core import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Completed = subprocess.CompletedProcess[str]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for compiled modules."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Return an empty folder."""
    made = tmp_path / "box"
    made.mkdir()
    return made


@pytest.fixture
def command(cache_folder: Path, box: Path) -> Callable[..., Completed]:
    """Return a function that runs the command `wali` in the empty folder."""

    def run(*words: str | Path, patience: float = 60, **options: object) -> Completed:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)}
        given: dict[str, Any] = {"cwd": box, "stdin": subprocess.DEVNULL, "capture_output": True}
        given |= options
        if "input" in options:
            del given["stdin"]
        command = [sys.executable, "-m", "wali_core", *map(str, words)]
        return subprocess.run(
            command, env=environment, text=True, timeout=patience, check=False, **given
        )

    return run


@pytest.fixture
def wali(command: Callable[..., Completed]) -> Callable[..., Completed]:
    """Return a function that runs the command `wali run` in the empty folder."""
    return functools.partial(command, "run")


@pytest.fixture
def runtime(cache_folder: Path) -> Iterator[Runtime]:
    """Return a runtime that grants nothing."""
    with Runtime(cache=cache_folder) as made:
        yield made


@pytest.fixture
def free(cache_folder: Path) -> Iterator[Runtime]:
    """Return a runtime that grants everything."""
    with Runtime(cache=cache_folder, allow_all=True) as made:
        yield made
