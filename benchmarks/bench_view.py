"""What a view of its own and the kernel's rules cost a WALI program: at its start, and per call.

    python -m benchmarks.bench_view

The start is measured by programs that end at once, in turn: without what is measured, and with it.
It is also measured by bare forks, which is more: what a program touches anyway is charged to what
touches it first.  All that it takes is counted, up to the end of the process.  Calls are measured
in the program, in a granted folder and with everything granted, in turn, by the time that the
process computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import wasmtime

from benchmarks._sides import compile_program
from capabilities import Filesystem, Grant, Policy
from capabilities.lockdown import Lockdown, privileges, view
from capabilities.lockdown._kernel import prctl
from tests import ordinary
from wali_core import Runtime
from wali_core._bridge import core
from wali_core._filter import Sockets, allowed

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
FORKS, STARTED = 300, 200
CALLS, ROUNDS, NATIVE_ROUNDS = 5_000, 80, 100
STARTS = 500
MOST_MS = {"the view, as root": 2.0, "the view, as an ordinary user": 3.0, "the rules": 5.0}
MOST_RATIO = 1.03
NOBODY = 65534
PATIENCE = 5.0  # seconds
_PR_SET_DUMPABLE = 4


def forked(act: Callable[[], None]) -> tuple[float, float]:
    """The wall time and the computing time of a process that does something and ends, in ms."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    _, status, used = os.wait4(child, 0)
    if status:
        raise RuntimeError("the process has failed")
    return (time.perf_counter() - start) * 1e3, (used.ru_utime + used.ru_stime) * 1e3


def become_ordinary() -> None:
    """Give up being root, if that is who this is."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(_PR_SET_DUMPABLE, 1)  # as a process has it that was never root's


def starts(folder: Path) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """What is measured, each with what it is measured against."""
    for name in ("in", "out"):
        (folder / name).mkdir()
    binds = [
        view.Bind(str(folder / "in"), "/data"),
        view.Bind(str(folder / "out"), "/results", writable=True),
        view.Bind("/dev/null", "/dev/null", writable=True),
    ]

    def nothing() -> None:
        """End at once."""

    def enter() -> None:
        view.claim()
        view.enter(binds)
        privileges.drop(())

    def enter_as_ordinary_user() -> None:
        become_ordinary()
        enter()

    importlib.import_module("wali_core._table")  # else each fork would import it
    grants = [Grant(bind.host, bind.guest, bind.writable) for bind in binds]
    policy = Policy(filesystem=Filesystem.of(grants))
    calls = policy.granted_calls(core.catalogue())

    def lock_down() -> None:
        found = allowed(calls, Sockets())
        Lockdown.prepare(policy, calls=calls, rules=found, keep=()).commit()

    lock_down_by = {"the rules": (nothing, lock_down)}
    ordinary = {"the view, as an ordinary user": (become_ordinary, enter_as_ordinary_user)}
    root = {"the view, as root": (nothing, enter)} if os.geteuid() == 0 else {}
    return root | ordinary | lock_down_by


def measure_starts(folder: Path) -> bool:
    """Print the medians; whether all is as it has to be."""
    good = True
    for name, (without, with_it) in starts(folder).items():
        forked(with_it)
        pairs = [(forked(without), forked(with_it)) for _ in range(FORKS)]
        added, computing = (statistics.median(b[i] - a[i] for a, b in pairs) for i in (0, 1))
        most = MOST_MS[name]
        good &= added <= most
        verdict = "yes" if added <= most else "NO"
        print(
            f"{name:32} adds {added:5.2f} ms to a bare fork (<= {most:.0f}: {verdict}), "
            f"{computing:.2f} of them computing"
        )
    return good


ENDS = """(module (import "wali" "__proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 0))))"""


def measure_programs(folder: Path) -> bool:
    """Print by how much the start of a program is longer, as root and as an ordinary user."""
    good = True
    for who in ("root", "an ordinary user") if os.geteuid() == 0 else ("an ordinary user",):
        home = folder / who
        home.mkdir()
        command = [sys.executable, "-m", "benchmarks.bench_view", str(home)]
        if who == "root":
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        else:
            done = ordinary.run(command, ordinary.give(home), cwd=ordinary.ROOT)
            done.check_returncode()
            said = done.stdout
        for what, (least, added) in json.loads(said).items():
            most = MOST_MS.get(f"{what}, as {who}") or MOST_MS[what]
            good &= added <= most
            print(
                f"{f'{what}, as {who}':32} adds {added:5.2f} ms to the {least:.1f} of a program "
                f"(<= {most:.0f}: {'yes' if added <= most else 'NO'})"
            )
    return good


def longer_starts(home: Path) -> dict[str, tuple[float, float]]:
    """What a program takes that ends at once, and what is added to that; in ms."""
    for name in ("in", "out"):
        (home / name).mkdir()
    files = Filesystem.of(
        [
            Grant(str(home / "in"), str(home / "in")),
            Grant(str(home / "out"), str(home / "out"), read_write=True),
            Grant("/dev/null", "/dev/null", read_write=True),
        ]
    )
    policies = {
        "": Policy(filesystem=files, view="off", lockdown="off"),
        "the view": Policy(filesystem=files, view="required", lockdown="off"),
        "the rules": Policy(filesystem=files, view="off", lockdown="required"),
    }
    module = bytes(wasmtime.wat2wasm(ENDS))
    found: dict[str, list[float]] = {name: [] for name in policies}
    with contextlib.ExitStack() as stack:
        runtimes = {
            name: stack.enter_context(Runtime(policy=policy, cache=home / "cache"))
            for name, policy in policies.items()
        }
        for number in range(-3, STARTED):
            for name in list(runtimes)[:: -1 if number % 2 else 1]:
                start = time.perf_counter()
                runtimes[name].run_sync(module)
                if number >= 0:
                    found[name].append((time.perf_counter() - start) * 1e3)
    least = found.pop("")
    return {
        name: (
            statistics.median(least),
            statistics.median(b - a for a, b in zip(least, times, strict=True)),
        )
        for name, times in found.items()
    }


def commands(program: Path, folder: Path) -> dict[str, list[str]]:
    """The program with everything granted, twice; in a view; and with the kernel's rules, too."""
    wali = [sys.executable, "-m", "wali_core", "run"]
    file = folder / "file"
    file.write_bytes(b"x")
    # As many components, of the same lengths: a path is looked up name by name.
    renamed = "/" + "/".join("x" * len(part) for part in folder.parts[1:])
    grant = ["--dir", f"{folder}::{renamed}:rw", str(program), f"{renamed}/file", str(CALLS)]
    free = [*wali, "--allow-all", str(program), str(file), str(CALLS)]
    found = {"free": free, "control": free}
    for name, lockdown in (("view", "off"), ("all", "required")):
        policy = folder / f"{name}.toml"
        policy.write_text(f'version = 1\nview = "required"\nlockdown = "{lockdown}"\n')
        found[name] = [*wali, "--policy", str(policy), *grant]
    return found


def on_one_processor() -> None:
    """Have all that is started from now on run on the processor that is this one's now."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure_calls(folder: Path) -> bool:
    """Print the ratios; whether those of the view are as they have to be.

    They are medians over rounds of what a call takes in one process and in the next.  The control
    is the same against itself: it says what of a ratio is noise.
    """
    program = compile_program(HERE / "paths.c", folder / "paths.wasm")
    sides = commands(program, folder)
    found: dict[str, list[list[int]]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            done = subprocess.run(
                sides[name], check=True, capture_output=True, text=True, preexec_fn=on_one_processor
            )
            found[name].append([int(word) for word in done.stdout.split()])
    good = True
    for i, call in enumerate(("stat", "open and close", "chmod")):
        ratio, noise, with_all = (
            statistics.median(b[i] / a[i] for a, b in zip(found["free"], found[name], strict=True))
            for name in ("view", "control", "all")
        )
        good &= ratio <= MOST_RATIO
        verdict = "yes" if ratio <= MOST_RATIO else "NO"
        print(
            f"{call:16} {statistics.median(row[i] for row in found['free']):6.0f} ns; "
            f"in a view {ratio:.3f} of it (<= {MOST_RATIO}: {verdict}; the same again: "
            f"{noise:.3f}), with Landlock and seccomp {with_all:.3f}"
        )
    return good


def measure_native_calls(folder: Path) -> None:
    """Print the ratios of the same calls in C, without WebAssembly: what the kernel itself takes.

    One thread is in a view, and one is where all was before; they take turns.
    """
    library = folder / "paths.so"
    zig = (sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC")
    subprocess.run([*zig, str(HERE / "paths_native.c"), "-o", str(library)], check=True)
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the process has failed")
        return
    status = 1
    try:
        compare_native_calls(library, folder)
        status = 0
    finally:
        os._exit(status)


def compare_native_calls(library: Path, folder: Path) -> None:
    """Be the process that does it, which has one thread still."""
    view.claim()
    on_one_processor()
    time_calls = ctypes.CDLL(str(library)).time_calls
    time_calls.restype = ctypes.c_long
    (folder / "file").write_bytes(b"x")
    renamed = "/" + "/".join("x" * len(part) for part in folder.parts[1:])
    places = (str(folder), renamed, f"/{'x' * (len(renamed) - 1)}")
    binds = [view.Bind(str(folder), place, writable=True) for place in places[1:]]
    with (
        ThreadPoolExecutor(1) as here,
        ThreadPoolExecutor(1, initializer=view.enter, initargs=(binds,)) as there,
    ):
        sides = [(here, places[0]), (here, places[0]), (there, places[1]), (there, places[2])]
        for i, call in enumerate(("stat", "open and close", "chmod")):
            rounds = []
            for number in range(NATIVE_ROUNDS):
                took = dict.fromkeys(range(len(sides)), 0)
                for side in list(took)[:: -1 if number % 2 else 1]:
                    pool, place = sides[side]
                    path = os.fsencode(f"{place}/file")
                    took[side] = pool.submit(time_calls, i, path, ctypes.c_long(CALLS)).result()
                rounds.append([time / took[0] for time in took.values()])
            _, noise, inside, first = map(statistics.median, zip(*rounds, strict=True))
            print(
                f"{call:16} natively, in a view {inside:.3f} of it (the same again: {noise:.3f}); "
                f"in the view's root itself {first:.3f}",
                flush=True,
            )


def left(temporary: Path) -> tuple[int, int, int, int]:
    """How many mounts, processes, temporary files and descriptors there are."""
    with open("/proc/self/mountinfo") as mounts:
        mounted = len(mounts.readlines())
    processes = sum(1 for pid in os.listdir("/proc") if pid.isdigit() and _is_ours(pid))
    return mounted, processes, len(os.listdir(temporary)), len(os.listdir("/proc/self/fd"))


def _is_ours(pid: str) -> bool:
    """Is it this process, or was it started by it?"""
    while pid not in ("0", str(os.getpid())):
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = file.read().rpartition(") ")[2].split()[1]
        except OSError:
            return False
    return pid != "0"


def measure_leavings(folder: Path) -> bool:
    """Start many, and see that nothing is left."""
    program = compile_program(HERE / "paths.c", folder / "paths.wasm")
    (folder / "file").write_bytes(b"x")
    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)
    with Runtime(cache=folder / "cache") as runtime:

        def run() -> None:
            runtime.run_sync(
                program,
                args=["/data/file", "1"],
                dirs={"/data": (folder, "rw")},
                capture_output=True,
            )

        run()
        before, start = left(temporary), time.perf_counter()
        for _ in range(STARTS):
            run()
        took = (time.perf_counter() - start) / STARTS * 1e3
        end = time.monotonic() + PATIENCE
        while (after := left(temporary)) != before and time.monotonic() < end:
            pass  # a process that has ended is there until it is waited for
    print(
        f"{STARTS} programs, {took:.1f} ms each: {before} mounts, processes, files and descriptors "
        f"before, {after} after ({'yes' if before == after else 'NO'})"
    )
    return before == after


def main() -> None:
    """Print all of it; or be one of the parts, in a folder of its own."""
    if len(sys.argv) > 1:
        print(json.dumps(longer_starts(Path(sys.argv[1]))))
        return
    if why := view.probe():
        print(f"no views here: {why}")
        return
    with tempfile.TemporaryDirectory(prefix="wali-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        measure_programs(folder)
        measure_starts(folder)
        measure_calls(folder)
        measure_native_calls(folder)
        measure_leavings(folder)


if __name__ == "__main__":
    main()
