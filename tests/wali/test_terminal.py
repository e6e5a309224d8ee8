"""`wali run` at a terminal is what the native program is there: keys, sizes, jobs and statuses."""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from tests.wali import building
from tests.wali.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

pytestmark = [
    pytest.mark.skipif(not building.HAS_NATIVE, reason="one side is a native program on x86-64"),
    pytest.mark.skipif(not shutil.which("bash"), reason="jobs are an interactive shell's: no bash"),
]

PATIENCE = 30.0  # seconds, for what takes a fraction of one
PROMPT = "at your service> "
INTERRUPT, QUIT, STOP, END = "\x03", "\x1c", "\x1a", "\x04"
SHELL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
INTERACTIVE = ("--norc", "--noprofile", "-i")


class Terminal:
    """An interactive shell at a terminal of its own, in which ``$program`` is the guest."""

    def __init__(
        self, program: str, environment: dict[str, str], shell: tuple[str, ...] = ("bash",)
    ) -> None:
        self._master, slave = os.openpty()
        self.resize(80, 24)
        self._seen = ""
        self._shell = subprocess.Popen(
            [sys.executable, "-c", SHELL, *shell, *INTERACTIVE],
            env=environment | {"PS1": PROMPT, "HISTFILE": "", "TERM": "dumb"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.type(f"program={shlex.quote(program)}\n")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: str) -> None:
        """Wait until something is shown; the next is looked for behind it."""
        end = time.monotonic() + PATIENCE
        while text not in self._seen:
            left = end - time.monotonic()
            ready = left > 0 and select.select([self._master], [], [], left)[0]
            assert ready, f"{text!r} has not come: {self._seen!r}"
            self._seen += os.read(self._master, 4096).decode().replace("\r\n", "\n")
        self._seen = self._seen.partition(text)[2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._master)  # the shell and its jobs are hung up
        self._shell.wait(PATIENCE)


@pytest.fixture(params=["native", "wali"])
def terminal(request: pytest.FixtureRequest, cache_folder: Path) -> Iterator[Terminal]:
    """Return a terminal for the native program, and for the same as a WALI program."""
    words = [str(building.native("terminal"))]
    if request.param == "wali":
        program = str(building.program("terminal"))
        words = [sys.executable, "-m", "wali_core", "run", "--allow-all", program]
    environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)}
    with Terminal(shlex.join(words), os.environ | environment) as made:
        yield made


def test_keys_end_it(terminal: Terminal) -> None:
    """The keys for that end a program that waits, and one that computes: 128 and the signal."""
    for key, status in ((INTERRUPT, 130), (QUIT, 131)):
        for how in ("wait", "loop"):
            terminal.type(f"$program {how}\n")
            terminal.expect("in its foreground: 1\n")
            terminal.expect("ready\n")
            terminal.type(key)
            terminal.expect(PROMPT)
            terminal.type("echo status $?\n")
            terminal.expect(f"status {status}\n")


def test_keys_reach_handlers(terminal: Terminal) -> None:
    """Handled they are signals as others, and the program goes on to read."""
    terminal.type("$program handle; echo status $?\n")
    terminal.expect("ready\n")
    terminal.type(INTERRUPT)
    terminal.expect("signal: 2\n")
    terminal.type(QUIT)
    terminal.expect("signal: 3\n")
    terminal.type("a line\n")
    terminal.expect("a line\na line\n")
    terminal.type(END)
    terminal.expect("end: 0\n")
    terminal.expect("status 7\n")


def test_size_of_the_window(terminal: Terminal) -> None:
    """It is the terminal's, and that it has changed is a signal."""
    terminal.type("$program handle\n")
    terminal.expect("size: 0\n80 x 24\n")
    terminal.expect("ready\n")
    terminal.resize(132, 50)
    terminal.expect("size: 0\n132 x 50\n")


def test_it_is_a_job(terminal: Terminal) -> None:
    """Ctrl-Z stops it; in the background it may not read; in the foreground it goes on."""
    terminal.type("$program handle\n")
    terminal.expect("ready\n")
    terminal.type(STOP)
    terminal.expect("Stopped")
    terminal.expect(PROMPT)
    terminal.type("bg\n")
    terminal.expect("signal: 18\n")
    stopped = "until jobs | grep -q Stopped; do :; done; jobs\n"  # by SIGTTIN
    terminal.type(stopped)
    terminal.expect(stopped)
    terminal.expect("Stopped")
    terminal.type("fg\n")
    terminal.expect("signal: 18\n")
    terminal.type("again\n")
    terminal.expect("again\nagain\n")
    terminal.type(END)
    terminal.expect("end: 0\n")


@pytest.mark.parametrize("number", [1, 6, 9, 11, 14, 15])
def test_status_of_a_signal(number: int, terminal: Terminal) -> None:
    """What ends by a signal has 128 and its number."""
    terminal.type(f"$program die {number}; echo status $?\n")
    terminal.expect(f"status {128 + number}\n")
