"""What WALI adds to a system call: the same loops in C, natively and as a WALI program.

    python -m benchmarks.bench_calls [CALLS]

Both run side by side on one processor, and take turns of a few milliseconds, so that a machine that
changes its speed changes it for both; and both are started several times.  A line has medians of
all turns, in nanoseconds of processor time; "added" is the median of what the turns differ by.  It
is what is published elsewhere: the time of the call through WALI, less that of the raw call.
"""

from __future__ import annotations

import os
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.wali import building

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("calls.c")
STARTS, TURNS = 5, 15
"""Where a process happens to lie in memory makes some tens of nanoseconds: so there are several."""
KINDS = {
    "n": ("no pointers", 30),
    "p": ("pointers", 50),
    "s": ("structs inside", 100),
    "h": ("served by Python", None),
}


class Line(NamedTuple):
    """One call, and its medians."""

    name: str
    kind: str
    scale: int
    raw: float
    wali: float
    added: float


class Loops:
    """A process that runs the loops, one at a time when it is told to."""

    def __init__(self, command: list[str], folder: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(SOURCE.parents[1])}
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise BrokenPipeError(command[0])
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self.loops = [line.split() for line in iter(self._line, "\n")]
        """Name, kind and how many calls it is, of each."""

    def time(self, loop: int, calls: int) -> float:
        """Nanoseconds that one call takes."""
        self._orders.write(struct.pack("=qq", loop, calls))
        self._orders.flush()
        return int(self._line()) / 10

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self) -> str:
        return self._answers.readline().decode()


def measured(
    commands: list[list[str]], folder: str, calls: int, turns: int
) -> Iterator[tuple[list[str], list[list[float]]]]:
    """Each loop, and what its calls took: by turns, in which each command has one."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sides = [Loops(command, folder) for command in commands]
    for i, loop in enumerate(sides[0].loops):
        some = calls // 10 if KINDS[loop[1]][1] is None else calls
        yield loop, [[side.time(i, some) for side in sides] for _ in range(turns)]
    for side in sides:
        side.close()


def compare(calls: int) -> Iterator[Line]:
    """Each call, natively and through WALI."""
    program = str(building.program(SOURCE))
    wali = [sys.executable, "-m", "wali_core", "run", "--allow-all", program]
    commands = [[str(building.native(SOURCE))], wali]
    found: dict[tuple[str, ...], list[list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="wali-bench-", dir=_memory()) as folder:
        for _ in range(STARTS):
            for loop, turns in measured(commands, folder, calls, TURNS):
                found.setdefault(tuple(loop), []).extend(turns)
    for (name, kind, scale), turns in found.items():
        raw, through = (statistics.median(turn[of] for turn in turns) for of in (0, 1))
        added = statistics.median(turn[1] - turn[0] for turn in turns)
        yield Line(name, kind, int(scale), raw, through, added)


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - files in memory


def main() -> None:
    """Print the table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print("| call | | raw, ns | WALI, ns | added, ns | promised |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for line in compare(calls):
        kind, most = KINDS[line.kind]
        promised = "" if most is None else f"≤ {most * line.scale}"
        name = " + ".join(f"`{word}`" for word in line.name.split("_")) if line.scale > 1 else ""
        print(
            f"| {name or f'`{line.name}`'} | {kind} | {line.raw:.0f} | {line.wali:.0f} "
            f"| {line.added:.0f} | {promised} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
