"""What a policy costs: each granted call, its loading and compiling, and the start of a program.

    python -m benchmarks.bench_policy

Everything is measured in pairs, with and without, in turn; the medians of the differences.  Calls
are measured by the time that the process computes: a WASI guest's in this process, a WALI program's
in its own, which says what each of its calls has taken.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._sides import build_tools
from benchmarks.bench_calls import SOURCE, measured
from benchmarks.bench_start import ENVIRONMENT, assembled
from capabilities import Policy
from capabilities.lockdown import Lockdown
from capabilities.lockdown.seccomp import Filter
from tests.wali import building
from wali_core import Runtime
from wali_core._bridge import core
from wali_core._filter import Sockets, rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from wali_core import Guest

HERE = Path(__file__).parent
MOST_NS, MOST_LOAD_MS, MOST_LOCKDOWN_MS = 3.0, 5.0, 5.0
LOOPS = {"clock": 100_000, "random_16": 50_000, "fstat": 20_000, "pread_1": 20_000}
PAIRS, ROUNDS, TURNS, LOADS, STARTS = 12, 9, 25, 50, 25
CALLS = 2000
RULES = 100


def verdict(value: float, most: float) -> str:
    """What was to be reached, and whether it was."""
    return f"(<= {most:g}: {'yes' if value <= most else 'NO'})"


def computing(guest: Guest, loop: str, count: int) -> float:
    """The nanoseconds that one call of a guest's computes in this process."""
    start = time.process_time_ns()
    guest.call(loop, count)
    return (time.process_time_ns() - start) / count


def wasi_calls(folder: Path) -> None:
    """A guest with a policy beside one with the caller's grants alone, in turn."""
    guest = folder / "guest.wasm"
    build_tools().compile_guest(HERE / "guest.c", guest)
    (folder / "many").mkdir()
    policy = Policy.from_dict(
        {
            "version": 1,
            "filesystem": {"read_write": [f"{folder}::/"]},
            "environment": {"set": {"MODE": "batch"}},
            "limits": {"wall_time": "1h", "memory": "256M", "open_files": 64},
        },
        folder,
    )
    found: dict[str, list[tuple[float, float]]] = {loop: [] for loop in LOOPS}
    with Runtime() as without, Runtime(policy=policy) as with_one:
        for pair in range(PAIRS):  # where memories come to lie is worth some nanoseconds
            with (
                without.instantiate(guest, dirs={"/": (folder, "rw")}) as free,
                with_one.instantiate(guest) as held,
            ):
                for one in (free, held):
                    one.call("setup")
                sides = (free, held) if pair % 2 else (held, free)
                for loop, count in LOOPS.items():
                    for _ in range(ROUNDS):
                        took = {side: computing(side, loop, count) for side in sides}
                        found[loop].append((took[free], took[held]))
    for loop, pairs in found.items():
        added = statistics.median(after - before for before, after in pairs)
        plain = statistics.median(before for before, _ in pairs)
        print(f"  {loop:14} {plain:7.1f} ns, {added:+6.2f} {verdict(added, MOST_NS)}")


def wali_calls(folder: Path) -> None:
    """The loops of `calls.c` with everything granted, through the gate, and held by the kernel."""
    groups = ", ".join(f'"{group}"' for group in sorted(set(core.catalogue().values())))
    text = f"""
        version = 1
        [filesystem]
        read_write = ["{folder}"]
        devices = ["null", "zero"]
        [syscalls]
        allow = [{groups}]
    """
    gate, locked = folder / "gate.toml", folder / "locked.toml"
    gate.write_text(text.replace("version = 1", 'version = 1\nview = "off"\nlockdown = "off"'))
    locked.write_text(text)
    run = sys.executable, "-m", "wali_core", "run"
    program = str(building.program(SOURCE))
    sides = [
        [*run, "--allow-all", program],
        [*run, "--policy", str(gate), program],
        [*run, "--policy", str(locked), program],
    ]
    loops = list(measured(sides, str(folder), CALLS, TURNS))
    for kind, what in (("n", "no pointers"), ("p", "pointers")):
        for index, held in ((1, "the gate"), (2, "gate, view, Landlock and seccomp")):
            added = statistics.median(
                (turn[index] - turn[0]) / int(scale)
                for (_, of, scale), turns in loops
                for turn in turns
                if of == kind
            )
            most = verdict(added, MOST_NS) if index == 1 else ""
            print(f"  {what:12} {held:34} {added:+6.2f} ns {most}")


def loading(folder: Path) -> None:
    """A policy with a hundred rules: read, checked and made into the kernel's rules."""
    kinds = {"read_only": range(60), "read_write": range(60, 85)}
    trees = {
        kind: ", ".join(f'"./{number}::/data/{number}"' for number in numbers)
        for kind, numbers in kinds.items()
    }
    for number in range(85):
        (folder / str(number)).mkdir()
    ports = ", ".join(f'"tcp://*:{port}"' for port in range(1000, 1000 + RULES - 85))
    file = folder / "hundred.toml"
    file.write_text(
        f"version = 1\n[filesystem]\nread_only = [{trees['read_only']}]\n"
        f"read_write = [{trees['read_write']}]\n[network]\nconnect = [{ports}]\n"
    )
    catalogue = core.catalogue()

    def load() -> Policy:
        return Policy.load(file)

    def compile_it(policy: Policy) -> None:
        calls = policy.granted_calls(catalogue)
        found = Filter(rules(calls, Sockets(tcp=True)))
        Lockdown.prepare(policy, calls=calls, rules=found, keep=())

    def timed(what: Callable[[], object]) -> float:
        start = time.perf_counter()
        what()
        return (time.perf_counter() - start) * 1e3

    policy = load()
    compile_it(policy)
    loads = statistics.median(timed(load) for _ in range(LOADS))
    compiles = statistics.median(timed(lambda: compile_it(policy)) for _ in range(LOADS))
    print(
        f"  loading {loads:.2f} ms, compiling {compiles:.2f} ms, together {loads + compiles:.2f} "
        f"{verdict(loads + compiles, MOST_LOAD_MS)}"
    )
    script = (
        "import time, sys; a = time.perf_counter(); from capabilities import _load; "
        "b = time.perf_counter(); _load.load(sys.argv[1]); c = time.perf_counter(); "
        "print((b - a) * 1e3, (c - b) * 1e3)"
    )
    command = [sys.executable, "-c", script, str(file)]
    first = [
        [
            float(word)
            for word in subprocess.run(
                command, env=ENVIRONMENT, capture_output=True, text=True, check=True
            ).stdout.split()
        ]
        for _ in range(STARTS)
    ]
    imports, loads = (statistics.median(one[i] for one in first) for i in (0, 1))
    print(f"  the first time in a process: {loads:.2f} ms, after imports of {imports:.1f} ms")


def process(*words: str) -> tuple[float, float]:
    """The wall time and the computing time of `wali run`, in ms."""
    command = [sys.executable, "-m", "wali_core", "run", *words]
    start = time.perf_counter()
    null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(sys.executable, command, ENVIRONMENT, file_actions=null)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{command} has failed")
    return (time.perf_counter() - start) * 1e3, (used.ru_utime + used.ru_stime) * 1e3


def starts(folder: Path) -> None:
    """Whole runs of small programs: with a policy, and with the kernel's rules."""
    wasi, wali = (assembled(name, folder) for name in ("hello", "hello_wali"))
    text = "version = 1\n[environment]\ninherit = ['LANG']\n[limits]\nmemory = '64M'\n"
    plain, unlocked = folder / "plain.toml", folder / "unlocked.toml"
    plain.write_text(text)
    unlocked.write_text(text.replace("version = 1", "version = 1\nlockdown = 'off'"))
    held, free = ("--policy", str(plain)), ("--policy", str(unlocked))
    for what, before, after, most in (
        ("a policy, WASI", (wasi,), (*held, wasi), None),
        ("a policy, WALI", (wali,), (*held, wali), None),
        ("lockdown, WASI", (*free, wasi), (*held, wasi), MOST_LOCKDOWN_MS),
        ("lockdown, WALI", (*free, wali), (*held, wali), MOST_LOCKDOWN_MS),
    ):
        pairs = [(process(*before), process(*after)) for _ in range(STARTS + 1)][1:]
        wall, used = (statistics.median(b[i] - a[i] for a, b in pairs) for i in (0, 1))
        whole = statistics.median(a[0] for a, _ in pairs)
        end = "" if most is None else verdict(wall, most)
        print(f"  {what:16} {whole:6.1f} ms, {wall:+6.1f} {end}; computing {used:+6.1f}")


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="wali-bench-", dir=_memory()) as name:
        folder = Path(name)
        print("A granted call of a WASI guest: without a policy, and what one adds")
        wasi_calls(folder)
        print("A granted call of a WALI program: what is added to --allow-all, by")
        wali_calls(folder)
        print(f"A policy of {RULES} rules")
        loading(folder)
        print("A start: without, and what is added by")
        starts(folder)


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - files in memory


if __name__ == "__main__":
    main()
