"""Start-up, warm cache, no policy: ``wali run`` of a WASI and of a WALI hello, and ``run_sync``.

    python -m benchmarks.bench_start

Whole processes, in turn, beside ``import wasmtime`` in Python; medians of the wall time, and of the
ratio round by round.  The WALI program is confined by gate and kernel, as it is without a policy.
``run_sync`` starts one in a process of its own, from a Python that has done it before.
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

import wasmtime

from wali_core import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 25
HERE = Path(__file__).parent
BASELINE = "import wasmtime"
TARGETS = {"wali run, WASI": 1.8, "wali run, WALI": 2.0}


# An installed package has its bytecode; so must this one, where an environment forbids writing it.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def seconds(run: Callable[[], object]) -> float:
    """The wall time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def process(*words: str) -> Callable[[], object]:
    """What runs Python with these words."""
    command = [sys.executable, *words]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)


def assembled(name: str, folder: Path) -> str:
    """The path of a module, made from its text."""
    path = folder / f"{name}.wasm"
    path.write_bytes(wasmtime.wat2wasm((HERE / f"{name}.wat").read_text()))
    return str(path)


def main() -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory(prefix="wali-bench-") as folder, Runtime() as runtime:
        wasi, wali = (assembled(name, Path(folder)) for name in ("hello", "hello_wali"))
        run = "-m", "wali_core", "run"
        commands = {
            "wali run, WASI": process(*run, wasi),
            "wali run, WALI": process(*run, wali),
            "wali run --allow-all, WALI": process(*run, "--allow-all", wali),
            "run_sync, WALI": lambda: runtime.run_sync(wali, stdout=subprocess.DEVNULL),
            BASELINE: process("-c", "import wasmtime"),
            "python alone": process("-c", "pass"),
        }
        for command in commands.values():
            seconds(command)
        rounds = [{name: seconds(c) for name, c in commands.items()} for _ in range(RUNS)]
    for name in commands:
        median = statistics.median(r[name] for r in rounds) * 1e3
        ratio = statistics.median(r[name] / r[BASELINE] for r in rounds)
        print(f"{name:28} {median:6.1f} ms  {ratio:5.2f} {verdict(name, ratio)}")


def verdict(name: str, ratio: float) -> str:
    """What was to be reached, and whether it was."""
    target = TARGETS.get(name)
    if target is None:
        return ""
    return f"(<= {target}: {'yes' if ratio <= target else 'NO'})"


if __name__ == "__main__":
    main()
