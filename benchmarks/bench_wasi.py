"""One WASI call: native C, this library, wasmtime-py's own WASI; and a bare thunk.

    python -m benchmarks.bench_wasi [FOLDER]

All sides run in this process, one after the other in each round, so that a machine that changes its
speed changes it for all.  Figures are medians of the rounds in ns a call; ratios are medians of the
ratios within a round.
"""

from __future__ import annotations

import statistics
import sys
import time

import attrs

from benchmarks._sides import Side, Sides

ROUNDS = 15
ROUND_SECONDS = 0.02


@attrs.frozen
class Target:
    """What a loop must reach."""

    loop: str
    native: str
    most: float | None = None
    """ours / native"""
    nanoseconds: float | None = None
    """ours - native"""
    least: float | None = None
    """wasmtime-py / ours"""


TARGETS = (
    Target("clock", "clock", nanoseconds=35),
    Target("write_1", "writev", most=1.35, least=15),
    Target("pread_1", "preadv", most=1.35, least=15),
    Target("write_1m", "lseek + writev", most=1.05),
    Target("pread_1m", "preadv", most=1.05),
    Target("fstat", "fstat", most=1.3),
    Target("stat", "newfstatat", most=1.4),
    Target("open_close", "openat + fstat + close", most=1.5),
    Target("random_16", "getrandom"),
    Target("yield", "sched_yield"),
)


def nanoseconds(side: Side, loop: str, count: int) -> float:
    """One measurement: ns for each time round the loop."""
    start = time.perf_counter_ns()
    side.run(loop, count)
    return (time.perf_counter_ns() - start) / count


def fitting_count(side: Side, loop: str) -> int:
    """How often a loop must run to last about a round."""
    count = 16
    while (per_call := nanoseconds(side, loop, count)) * count < ROUND_SECONDS * 1e9 / 8:
        count *= 2
    return max(1, int(ROUND_SECONDS * 1e9 / per_call))


def measure(sides: dict[str, Side], loop: str) -> dict[str, list[float]]:
    """The rounds of one loop on every side."""
    counts = {name: fitting_count(side, loop) for name, side in sides.items()}
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            rounds[name].append(nanoseconds(side, loop, counts[name]))
    return rounds


def ratio(first: list[float], second: list[float]) -> float:
    """The median of the ratios within the rounds."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def difference(first: list[float], second: list[float]) -> float:
    """The median of the differences within the rounds."""
    return statistics.median(a - b for a, b in zip(first, second, strict=True))


def row(sides: Sides, target: Target) -> str:
    """Measure one loop; its line of the table."""
    rounds = measure(
        {"native": sides.native, "ours": sides.ours, "wasmtime": sides.wasmtime}, target.loop
    )
    native, ours, theirs = (statistics.median(rounds[n]) for n in ("native", "ours", "wasmtime"))
    to_native = ratio(rounds["ours"], rounds["native"])
    to_theirs = ratio(rounds["wasmtime"], rounds["ours"])
    return (
        f"| {target.loop:10} | {target.native:22} | {native:9.0f} | {ours:9.0f} | {theirs:9.0f} "
        f"| {to_native:5.2f} | {to_theirs:6.1f} | {verdict(target, rounds)} |"
    )


def verdict(target: Target, rounds: dict[str, list[float]]) -> str:
    """What was to be reached, and whether it was."""
    said = []
    if target.most is not None:
        reached = ratio(rounds["ours"], rounds["native"])
        said.append(f"<= {target.most}x native: {_yes(reached <= target.most)}")
    if target.nanoseconds is not None:
        more = difference(rounds["ours"], rounds["native"])
        said.append(f"<= native + {target.nanoseconds:.0f} ns: {_yes(more <= target.nanoseconds)}")
    if target.least is not None:
        reached = ratio(rounds["wasmtime"], rounds["ours"])
        most = ratio(rounds["wasmtime"], rounds["native"])
        said.append(f">= {target.least:.0f}x faster: {_yes(reached >= target.least)}")
        if most < target.least:
            said[-1] += f" (native C itself is {most:.1f}x faster here)"
    return "; ".join(said)


def _yes(reached: bool) -> str:  # noqa: FBT001
    return "yes" if reached else "NO"


def program_row(sides: Sides, loop: str, most: float) -> str:
    """A bare thunk of a WALI program against the raw system call in C."""
    rounds = measure({"native": sides.native, "program": sides.program}, loop)
    more = difference(rounds["program"], rounds["native"])
    native, ours = (statistics.median(rounds[n]) for n in ("native", "program"))
    reached = f"<= native + {most:.0f} ns: {_yes(more <= most)}"
    return f"| {loop:10} | {native:9.1f} | {ours:9.1f} | {more:+6.1f} ns | {reached} |"


def main(folder: str | None = None) -> None:
    """Print the table for files in ``folder``."""
    sides = Sides(folder)
    try:
        print(
            "| call | native | native ns | ours ns | wasmtime-py ns | ours/native "
            "| wasmtime-py/ours | target |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for target in TARGETS:
            print(row(sides, target), flush=True)
        print("\n| WALI call | native ns | ours ns | more | target |")
        print("| --- | --- | --- | --- | --- |")
        print(program_row(sides, "getppid", 40))
        print(program_row(sides, "write_null", 60))
        inline = statistics.median(measure({"inline": sides.native}, "getppid_inline")["inline"])
        print(f"\ngetppid in C without a function around it, so without a return: {inline:.1f} ns")
    finally:
        sides.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
