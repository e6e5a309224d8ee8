"""What every test shares: markers, hypothesis' settings, and figures for the summary."""

from __future__ import annotations

import signal
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARKERS = (
    "oldest: also run with the oldest wasmtime that is supported",
    "slow: takes more than a second; leave out with -m 'not slow'",
    "suite: needs a public test suite in a folder that the environment names",
)

# How long one example takes says nothing on a shared machine.
hypothesis.settings.register_profile("wali", deadline=None)
hypothesis.settings.load_profile("wali")

_figures = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and be as in the foreground: a job of `&` in a script has no keys."""
    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,  # of nohup(1)
    }
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    config.stash[_figures] = []
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_report_header() -> str:
    """Name the wasmtime under test: there are two."""
    return f"wasmtime: {metadata.version('wasmtime')}"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures that tests have reported."""
    for line in config.stash[_figures]:
        terminalreporter.write_line(line)


@pytest.fixture
def report_figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that adds one line of measured fact to the summary."""
    return request.config.stash[_figures].append


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return an empty folder that every user can reach: pytest's own are closed again and again."""
    with tempfile.TemporaryDirectory(prefix="wali-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
