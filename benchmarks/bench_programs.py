"""Whole programs against the native ones: upstream's applications, and ours where there are none.

    WALI_UPSTREAM=../WALI python -m benchmarks.bench_programs [PART...]

The parts: applications, memcached, polling, processes, compiling.  The sides take turns; a figure
is the median of their rounds, a ratio the median of those within a round, of processor time unless
it says something else.  Upstream's binaries are taken from a checkout of WALI, their native
counterparts from the system (Debian: lua5.4, bash, sqlite3, memcached): what is missing is said,
and not measured.

With a document's path among the parts, what stands between its two marks is replaced:

    WALI_UPSTREAM=../WALI python -m benchmarks.bench_programs docs/performance.md
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import bench_lua, document
from tests.wali import building

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
UPSTREAM = Path(os.environ.get("WALI_UPSTREAM", "/nowhere"), "examples", "precompiled")
PYTHON = sys.executable
WALI = [PYTHON, "-m", "wali_core", "run", "--allow-all"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
    "PYTHONPATH": str(HERE.parent)
}
ROUNDS = 5


def output(*command: object, stdin: str = "", cwd: str | None = None) -> str:
    """What a program prints, to both streams."""
    done = subprocess.run(
        [str(word) for word in command],
        check=True,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


def verdict(ratio: float, most: float) -> str:
    """Was it reached?"""
    return f"≤ {most}: {'yes' if ratio <= most else 'NO'}"


def table(*columns: str) -> None:
    """The head of one: the first column is text, the others are figures."""
    print(f"\n| {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * (len(columns) - 1)}")


def missing(*programs: str | Path) -> bool:
    """Say what there is not."""
    absent = [str(p) for p in programs if not (shutil.which(p) or Path(p).is_file())]
    if absent:
        print(f"NOT MEASURED, missing: {', '.join(absent)}")
    return bool(absent)


# --- applications, by the processor time that they say they took ----------------------------------

LOOP = """
TIMEFORMAT='%U %S'
for round in 1 2 3 4 5; do
  i=0
  time while (( i < 20000 )); do (( i = i + 1 )); done
done
"""
INSERT = """.timer on
create table t(a integer primary key, b text, c integer);
begin;
insert into t select value, 'row ' || value, value * 7 % 1000 from generate_series(1, 100000);
commit;
"""


class Application(NamedTuple):
    """A program of upstream's, and what it is given to do."""

    name: str
    native: str
    wasm: Path
    arguments: list[str]
    stdin: str
    seconds: Callable[[str], float]
    target: float


def lua_seconds(text: str) -> float:
    """The script prints what ``os.clock`` says."""
    return float(text.rsplit(maxsplit=1)[-1])


def bash_seconds(text: str) -> float:
    """User and system time, of five loops."""
    return statistics.median(sum(map(float, line.split())) for line in text.splitlines())


def sqlite_seconds(text: str) -> float:
    """The sum over all statements."""
    words = [line.split() for line in text.splitlines() if line.startswith("Run Time")]
    return sum(float(w[w.index("user") + 1]) + float(w[w.index("sys") + 1]) for w in words)


APPLICATIONS = (
    Application(
        "lua, fib(30)",
        "lua5.4",
        UPSTREAM / "lua" / "lua.wasm",
        arguments=["-"],
        stdin=bench_lua.SCRIPT,
        seconds=lua_seconds,
        target=bench_lua.TARGET,
    ),
    Application(
        "bash, a loop of 20,000 rounds",
        "bash",
        UPSTREAM / "bash" / "bash.wasm",
        arguments=[],
        stdin=LOOP,
        seconds=bash_seconds,
        target=4.0,
    ),
    Application(
        "sqlite3, 100,000 rows inserted",
        "sqlite3",
        UPSTREAM / "sqlite" / "sqlite3.wasm",
        arguments=["new.db"],
        stdin=INSERT,
        seconds=sqlite_seconds,
        target=2.5,
    ),
)


def applications() -> None:
    """Lua, bash and SQLite."""
    table("application", "native, ms", "WALI, ms", "ratio", "target")
    for one in APPLICATIONS:
        if missing(one.native, one.wasm):
            continue
        sides: list[list[float]] = []
        for _ in range(ROUNDS + 1):  # the first one compiles
            took = []
            for command in ([one.native], [*WALI, str(one.wasm)]):
                with in_memory() as folder:
                    printed = output(*command, *one.arguments, stdin=one.stdin, cwd=folder)
                took.append(one.seconds(printed))
            sides.append(took)
        native, wali = (statistics.median(r[i] for r in sides[1:]) * 1e3 for i in (0, 1))
        ratio = statistics.median(r[1] / r[0] for r in sides[1:])
        target = verdict(ratio, one.target)
        print(f"| {one.name} | {native:.1f} | {wali:.1f} | {ratio:.2f} | {target} |")


def in_memory() -> tempfile.TemporaryDirectory[str]:
    """A folder whose files are in memory, where that can be had."""
    shm = "/dev/shm"  # noqa: S108
    return tempfile.TemporaryDirectory(
        prefix="wali-bench-", dir=shm if os.access(shm, os.W_OK) else None
    )


# --- memcached ------------------------------------------------------------------------------------

OPERATIONS = 20_000
MEMCACHED = ["-u", "root", "-t", "4", "-U", "0", "-l", "127.0.0.1"]


def memcached() -> None:
    """Operations per second, by the clock: both sides have the same clients, on this machine."""
    wasm = UPSTREAM / "memcached.wasm"
    if missing("memcached", wasm):
        return
    client = building.native(HERE / "memcached_client.c")
    table("memcached -t 4", "native, op/s", "WALI, op/s", "ratio", "target")
    with server(["memcached"]) as native, server([*WALI, str(wasm)]) as wali:
        for clients in (1, 4):
            rounds = []
            for _ in range(ROUNDS + 1):
                took = [int(output(client, port, clients, OPERATIONS)) for port in (native, wali)]
                rounds.append([OPERATIONS * 1e9 / nanoseconds for nanoseconds in took])
            each = [statistics.median(r[i] for r in rounds[1:]) for i in (0, 1)]
            ratio = statistics.median(r[1] / r[0] for r in rounds[1:])
            reached = f"≥ 0.7: {'yes' if ratio >= 0.7 else 'NO'}"
            name = "one client" if clients == 1 else f"{clients} clients"
            print(f"| {name} | {each[0]:,.0f} | {each[1]:,.0f} | {ratio:.2f} | {reached} |")


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[str]:
    """A memcached; its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*command, *MEMCACHED, "-p", str(port)], env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise
                time.sleep(0.01)
        yield str(port)
    finally:
        process.terminate()
        process.wait()


# --- what being interruptible costs ---------------------------------------------------------------

UNPOLLED = """
import sys
from wali_core import cli
from wali_core.rewriting import _polls
_polls.add_polls = lambda data, origin: data
sys.exit(cli.main(sys.argv[1:]))
"""
LOOPS = {
    "tight": "a multiplication and an addition",
    "hash": "a hash of bytes",
    "sieve": "a sieve of 65,536 numbers",
    "multiply": "a product of matrices",
}


def polling() -> None:
    """The same program with and without polls in its loops."""
    program = building.program(HERE / "programs.c")
    unpolled = [PYTHON, "-c", UNPOLLED, "run", "--no-cache", "--allow-all", program]
    table("loop without calls", "unpolled, ms", "polled, ms", "ratio", "target")
    for loop, description in LOOPS.items():
        rounds = []
        for _ in range(ROUNDS):
            took = [times(*command, loop, 9)[1] for command in (unpolled, [*WALI, program])]
            rounds.append(took)
        without, polled = (statistics.median(r[i] for r in rounds) / 1e6 for i in (0, 1))
        ratio = statistics.median(r[1] / r[0] for r in rounds)
        target = verdict(ratio, 1.1)
        print(f"| {description} | {without:.2f} | {polled:.2f} | {ratio:.2f} | {target} |")


def times(*command: object) -> tuple[float, float]:
    """Medians of what such a program prints: by the clock, and of processor time; ns."""
    lines = [list(map(int, line.split())) for line in output(*command).splitlines()]
    return statistics.median(r[0] for r in lines), statistics.median(r[1] for r in lines)


# --- processes and threads ------------------------------------------------------------------------

FORK = """
import os, resource, sys, threading, time
import wasmtime
for _ in range(int(sys.argv[2])):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
def used():
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
for _ in range(int(sys.argv[1])):
    began, before = time.monotonic_ns(), used()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    print(time.monotonic_ns() - began, int((used() - before) * 1e9))
"""
TIMES = 200
BESIDE = 4
"""Threads that are alive, of programs.c."""


def processes() -> None:
    """Fork and wait4, against Python's, also with threads alive; a thread, started and joined."""
    program = building.program(HERE / "programs.c")
    native = building.native(HERE / "programs.c")
    for name, loop, beside in (
        ("fork + wait4", "fork", 0),
        (f"the same with {BESIDE} threads alive", "fork_beside", BESIDE),
    ):
        sides: dict[str, list[object]] = {
            "native": [native, loop, TIMES],
            "os.fork": [PYTHON, "-W", "ignore", "-c", FORK, TIMES, beside],
            "WALI": [*WALI, program, loop, TIMES],
        }
        rounds = [{side: times(*command) for side, command in sides.items()} for _ in range(ROUNDS)]
        table(name, "by the clock, µs", "processor time, µs", "of os.fork's", "target")
        for side in sides:
            wall, cpu = (statistics.median(r[side][i] for r in rounds) / 1e3 for i in (0, 1))
            ratio = statistics.median(r[side][1] / r["os.fork"][1] for r in rounds)
            target = verdict(ratio, 1.25) if side == "WALI" and not beside else ""
            print(f"| {side} | {wall:.0f} | {cpu:.0f} | {ratio:.2f} | {target} |")
    threads: dict[str, list[object]] = {
        "native": [native, "thread", TIMES],
        "WALI": [*WALI, program, "thread", TIMES],
    }
    measured = [{name: times(*command) for name, command in threads.items()} for _ in range(ROUNDS)]
    table("a thread, started and joined", "by the clock, µs", "processor time, µs")
    for name in threads:
        wall, cpu = (statistics.median(r[name][i] for r in measured) / 1e3 for i in (0, 1))
        print(f"| {name} | {wall:.0f} | {cpu:.0f} |")


# --- compiling ------------------------------------------------------------------------------------

COMPILE = """
import sys, time
from wali_core import Runtime
runtime = Runtime(cache=False)
runtime.load(sys.argv[2])
began, before = time.perf_counter(), time.process_time()
runtime.load(sys.argv[1])
print(time.perf_counter() - began, time.process_time() - before)
"""
BINARIES = (
    *("lua/lua.wasm", "bash/bash.wasm", "sqlite/sqlite3.wasm"),
    *("memcached.wasm", "paho-mqtt-app.wasm", "sshd.wasm"),
)


def compiling() -> None:
    """Each of upstream's binaries without a cache: prepared, compiled, written down nowhere."""
    small = building.program("odd")
    table("compiled for the first time", "KB", "by the clock, s", "processor time, s")
    for name in BINARIES:
        path = UPSTREAM / name
        if missing(path):
            continue
        took = [
            list(map(float, output(PYTHON, "-c", COMPILE, path, small).split())) for _ in range(3)
        ]
        wall, cpu = (statistics.median(r[i] for r in took) for i in (0, 1))
        size = path.stat().st_size // 1000
        print(f"| {path.stem} | {size:,} | {wall:.2f} | {cpu:.2f} |")


PARTS = {part.__name__: part for part in (applications, memcached, polling, processes, compiling)}


def main(*parts: str) -> None:
    """Print the parts, or all of them."""
    for name in parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word in PARTS]
    paths = [word for word in sys.argv[1:] if word not in PARTS]
    if paths:
        document.rewrite(paths[0], "benchmarks.bench_programs", lambda: main(*words))
    else:
        main(*words)
