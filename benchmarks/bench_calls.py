"""What WALI adds to a system call: the same loops in C, natively and as a WALI program.

    python -m benchmarks.bench_calls [CALLS]

Both run in turns; a line is the median of the rounds, in nanoseconds of processor time.  "Added" is
what it is published as elsewhere: the time of the call through WALI, less that of the raw call.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.wali import building

SOURCE = Path(__file__).with_name("calls.c")
TURNS = 25
"""Many and short: most of them nobody interrupts, also on a machine that is not quite idle."""
KINDS = {
    "n": ("no pointers", 30),
    "p": ("pointers", 50),
    "s": ("structs inside", 100),
    "h": ("served by Python", None),
}


class Line(NamedTuple):
    """One call."""

    name: str
    kind: str
    scale: int
    nanoseconds: float


def measured(command: list[str], folder: str) -> list[Line]:
    """Run one side once."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parents[1])}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    lines = []
    for line in done.stdout.splitlines():
        name, kind, scale, tenths = line.split()
        lines.append(Line(name, kind, int(scale), int(tenths) / 10))
    return lines


def compare(calls: int) -> list[tuple[Line, float, float]]:
    """Each call, and its median on both sides: natively, and through WALI."""
    native = [str(building.native(SOURCE)), str(calls)]
    program = str(building.program(SOURCE))
    wali = [sys.executable, "-m", "wali_core", "run", "--allow-all", program, str(calls)]
    sides: list[list[list[Line]]] = [[], []]
    with tempfile.TemporaryDirectory(prefix="wali-bench-", dir=_memory()) as folder:
        for _ in range(TURNS):
            for side, command in zip(sides, (native, wali), strict=True):
                side.append(measured(command, folder))
    medians = [
        [statistics.median(turn[i].nanoseconds for turn in side) for i in range(len(side[0]))]
        for side in sides
    ]
    return list(zip(sides[0][0], *medians, strict=True))


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - files in memory


def main() -> None:
    """Print the table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print("| call | | raw, ns | WALI, ns | added, ns | promised |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for line, raw, wali in compare(calls):
        kind, most = KINDS[line.kind]
        promised = "" if most is None else f"≤ {most * line.scale}"
        name = " + ".join(f"`{word}`" for word in line.name.split("_")) if line.scale > 1 else ""
        print(
            f"| {name or f'`{line.name}`'} | {kind} | {raw:.0f} | {wali:.0f} | {wali - raw:.0f} "
            f"| {promised} |"
        )


if __name__ == "__main__":
    main()
