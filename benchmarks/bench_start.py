"""Start-up: ``wali run hello.wasm``, warm cache, no policy, and ``import wasmtime`` in Python.

    python -m benchmarks.bench_start

Whole processes, in turn; medians of the wall time, and of the ratio pair by pair.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import wasmtime

RUNS = 25
TARGET = 1.8


# An installed package has its bytecode; so must this one, where an environment forbids writing it.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> float:
    """The wall time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - start


def main() -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory(prefix="wali-bench-") as folder:
        hello = Path(folder) / "hello.wasm"
        hello.write_bytes(wasmtime.wat2wasm((Path(__file__).parent / "hello.wat").read_text()))
        commands = {
            "wali run hello.wasm": [sys.executable, "-m", "wali_core", "run", str(hello)],
            "import wasmtime": [sys.executable, "-c", "import wasmtime"],
            "python alone": [sys.executable, "-c", "pass"],
        }
        for command in commands.values():
            seconds(command)
        rounds = [{name: seconds(c) for name, c in commands.items()} for _ in range(RUNS)]
    for name in commands:
        print(f"{name:22} {statistics.median(r[name] for r in rounds) * 1e3:6.1f} ms")
    ratio = statistics.median(r["wali run hello.wasm"] / r["import wasmtime"] for r in rounds)
    print(f"ratio {ratio:.2f} (<= {TARGET}: {'yes' if ratio <= TARGET else 'NO'})")


if __name__ == "__main__":
    main()
