"""Signals from outside, and many of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.wali import building
from tests.wali.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    Wali = Callable[..., subprocess.CompletedProcess[str]]

# The promise is for a million, which takes minutes where the processors are busy.
TRIES = int(os.environ.get("WALI_TRIES", "20000"))


def test_no_signal_is_lost_before_a_call(wali: Wali) -> None:
    """One that comes between the last look for it and the system call ends the call."""
    started = time.monotonic()

    done = wali("--allow-all", building.program("race"), str(TRIES), patience=60 + TRIES / 1000)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"tries: {TRIES}\ninterrupted: ")
    assert time.monotonic() - started < 60 + TRIES / 1000


def test_no_signal_is_lost_in_a_loop(wali: Wali) -> None:
    """One that comes while the handler of the one before is just over is seen at the next turn."""
    program, tries = building.program("race"), TRIES // 10  # where there is one processor: slow

    done = wali("--allow-all", program, str(tries), "loop", patience=60 + TRIES / 1000)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"handled: {tries}\n", "")


@pytest.fixture
def waiting(box: Path, cache_folder: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the guest, and waits until it is ready."""

    def start(*words: str, cold: bool = False) -> subprocess.Popen[str]:
        program = building.program("outside")
        command = (sys.executable, "-m", "wali_core", "run")
        child = subprocess.Popen(
            [*command, "--allow-all", *(["--no-cache"] if cold else []), str(program), *words],
            env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)},
            cwd=box,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    return start


def test_the_hosts_threads_take_no_signals(waiting: Callable[..., subprocess.Popen[str]]) -> None:
    """After a compilation, too, everything is blocked in all threads but the program's."""
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
    never = {signal.SIGKILL, signal.SIGSTOP}
    of_libc = {32, 33}  # which glibc blocks nowhere: where one comes, it is passed on
    child = waiting("sleeping", cold=True)
    try:
        blocked = {
            int(task.name): int(re.findall(r"SigBlk:\t(\w+)", (task / "status").read_text())[0], 16)
            for task in Path(f"/proc/{child.pid}/task").iterdir()
        }
    finally:
        child.kill()
        child.communicate(timeout=30)

    assert blocked.pop(child.pid) == 0
    assert blocked  # the compiler's
    everything = (1 << 64) - 1 - sum(1 << (number - 1) for number in faults | never | of_libc)
    assert {mask & everything for mask in blocked.values()} == {everything}


@pytest.mark.parametrize("how", ["sleeping", "spinning", "reading"])
def test_a_signal_to_the_command_reaches_the_handler(
    how: str, waiting: Callable[..., subprocess.Popen[str]]
) -> None:
    """`kill -TERM` of the process is the program's to handle, whatever it is doing."""
    child = waiting(how)

    child.send_signal(signal.SIGTERM)
    output, _ = child.communicate(timeout=30)

    assert (child.returncode, output) == (21, "handled 15\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV])
@pytest.mark.parametrize("how", ["sleeping unhandled", "spinning unhandled"])
def test_a_signal_without_a_handler_is_the_end(
    number: int, how: str, waiting: Callable[..., subprocess.Popen[str]]
) -> None:
    """The default action is the kernel's own, and so is the status."""
    child = waiting(*how.split())

    child.send_signal(number)
    output, _ = child.communicate(timeout=30)

    assert (child.returncode, output) == (-number, "")
