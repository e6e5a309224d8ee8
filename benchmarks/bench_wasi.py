"""One WASI call: native C, this library, Node's WASI, wasmtime-py's own; and a bare thunk.

    python -m benchmarks.bench_wasi [FOLDER]

All sides take turns in each round, so that a machine that changes its speed changes it for all.
Figures are medians of the rounds in ns a call; ratios are medians of the ratios within a round.
Node's column is empty where there is no Node.
"""

from __future__ import annotations

import statistics
import sys

import attrs

from benchmarks._sides import Side, Sides

ROUNDS, ROUND_SECONDS = 75, 0.004
"""Many and short: most of them nobody interrupts, also on a machine that is not quite idle."""
FEW_ROUNDS, LONG_SECONDS = 3, 0.3
"""So many rounds are enough where a call alone takes that long on some side."""


@attrs.frozen
class Target:
    """What a loop must reach.  Nowhere shall it be slower than Node."""

    loop: str
    call: str
    native: str
    most: float | None = None
    """ours / native"""
    more: float | None = None
    """ours - native, in ns"""
    at_most: float | None = None
    """ours, in ns"""
    least: float | None = None
    """wasmtime-py / ours"""


TARGETS = (
    Target("clock", "clock_time_get", "clock_gettime (vDSO)", more=35),
    Target("write_1", "fd_write, 1 byte", "writev", most=1.25, least=15),
    Target("pread_1", "fd_pread, 1 byte", "preadv", most=1.25, least=15),
    Target("write_1m", "fd_seek + fd_write, 1 MiB", "lseek + writev", most=1.05, least=15),
    Target("pread_1m", "fd_pread, 1 MiB", "preadv", most=1.05, least=15),
    Target("fstat", "fd_filestat_get", "fstat", most=1.3, least=15),
    Target("stat", "path_filestat_get", "newfstatat", most=1.4, least=15),
    Target("open_close", "path_open + fd_close", "openat + fstat + close", most=1.5, least=15),
    Target("readdir", "fd_readdir, 10,000 entries", "lseek + getdents64", most=2, least=15),
    Target("random_16", "random_get, 16 bytes", "getrandom", at_most=150),
    Target("yield", "sched_yield", "sched_yield"),
)


def nanoseconds(side: Side, loop: str, count: int) -> float:
    """One measurement: ns for each time round the loop."""
    return side.time(loop, count) / count


def fitting_count(side: Side, loop: str) -> tuple[int, float]:
    """How often a loop must run to last about a round, and what one time takes in seconds."""
    count, per_call = 1, nanoseconds(side, loop, 1)
    if per_call < LONG_SECONDS * 1e9:  # else it does not matter that the first time is the slowest
        per_call = 0
    while per_call * count < ROUND_SECONDS * 1e9 / 8:
        count *= 2
        per_call = min(nanoseconds(side, loop, count) for _ in range(3))  # nobody else's time
    return max(1, int(ROUND_SECONDS * 1e9 / per_call)), per_call / 1e9


def measure(sides: dict[str, Side], loop: str) -> dict[str, list[float]]:
    """The rounds of one loop on every side."""
    counts = {name: fitting_count(side, loop) for name, side in sides.items()}
    is_long = any(seconds > LONG_SECONDS for _, seconds in counts.values())
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(FEW_ROUNDS if is_long else ROUNDS):
        for name, side in sides.items():
            rounds[name].append(nanoseconds(side, loop, counts[name][0]))
    return rounds


def ratio(first: list[float], second: list[float]) -> float:
    """The median of the ratios within the rounds."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def difference(first: list[float], second: list[float]) -> float:
    """The median of the differences within the rounds."""
    return statistics.median(a - b for a, b in zip(first, second, strict=True))


def row(sides: dict[str, Side], target: Target) -> str:
    """Measure one loop; its line of the table."""
    rounds = measure(sides, target.loop)
    ours = rounds["ours"]
    cells = [target.call, target.native]
    cells += [
        f"{statistics.median(rounds[name]):,.0f}" if name in rounds else "—"
        for name in ("native", "ours", "node", "wasmtime")
    ]
    cells.append(f"{ratio(ours, rounds['native']):.2f}")
    cells.append(f"{ratio(rounds['node'], ours):.1f}" if "node" in rounds else "—")
    cells.append(f"{ratio(rounds['wasmtime'], ours):.1f}")
    cells.append("; ".join(verdict(target, rounds)))
    return f"| {' | '.join(cells)} |"


def verdict(target: Target, rounds: dict[str, list[float]]) -> list[str]:
    """What was to be reached, and whether it was."""
    ours, native = rounds["ours"], rounds["native"]
    said = []
    if target.most is not None:
        said.append(f"≤ {target.most}x native: {_yes(ratio(ours, native) <= target.most)}")
    if target.more is not None:
        more = difference(ours, native)
        said.append(f"≤ native + {target.more:.0f} ns: {_yes(more <= target.more)} (+{more:.0f})")
    if target.at_most is not None:
        reached = statistics.median(ours) <= target.at_most
        said.append(f"≤ {target.at_most:.0f} ns: {_yes(reached)}")
    if "node" in rounds and target.loop != "yield":
        said.append(f"no slower than Node: {_yes(ratio(rounds['node'], ours) >= 1)}")
    if target.least is not None:
        said.append(
            f"≥ {target.least:.0f}x wasmtime-py: "
            f"{_yes(ratio(rounds['wasmtime'], ours) >= target.least)}"
        )
        most = ratio(rounds["wasmtime"], native)
        if most < target.least:
            said[-1] += f" (C itself is {most:.1f}x as fast)"
    return said


def _yes(reached: bool) -> str:  # noqa: FBT001
    return "yes" if reached else "NO"


def program_row(sides: dict[str, Side], loop: str, most: float) -> str:
    """A bare thunk of a WALI program against the raw system call in C."""
    rounds = measure(sides, loop)
    more = difference(rounds["program"], rounds["native"])
    native, ours = (statistics.median(rounds[n]) for n in ("native", "program"))
    reached = f"≤ native + {most:.0f} ns: {_yes(more <= most)}"
    return f"| {loop} | {native:.0f} | {ours:.0f} | {more:+.0f} ns | {reached} |"


def main(folder: str | None = None) -> None:
    """Print the table for files in ``folder``."""
    made = Sides(folder)
    try:
        sides: dict[str, Side] = {"native": made.native, "ours": made.ours}
        if made.node:
            sides["node"] = made.node
        else:
            print("There is no Node with a WASI on this machine: its column is empty.\n")
        sides["wasmtime"] = made.wasmtime
        print(
            "| call | native C | native ns | ours ns | Node ns | wasmtime-py ns | ours / native "
            "| Node / ours | wasmtime-py / ours | target |"
        )
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
        for target in TARGETS:
            print(row(sides, target), flush=True)
        bare: dict[str, Side] = {"native": made.native, "program": made.program}
        print("\n| WALI call | native ns | ours ns | more | target |")
        print("| --- | ---: | ---: | ---: | --- |")
        print(program_row(bare, "getppid", 40))
        print(program_row(bare, "write_null", 60))
        inline = statistics.median(measure({"inline": made.native}, "getppid_inline")["inline"])
        print(f"\ngetppid in C without a function around it, so without a return: {inline:.1f} ns")
    finally:
        made.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
