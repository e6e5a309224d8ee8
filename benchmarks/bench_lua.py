"""Upstream's lua, as it is, against the machine's own: ``fib(30)``, processor time of the program.

    WALI_UPSTREAM=../WALI python -m benchmarks.bench_lua [NATIVE_LUA]

One run of each in turn; medians, and the median of the ratio round by round.  NATIVE_LUA is
``lua5.4`` if nothing is said.  Whose lua is which is printed: they should be of one version.

Upstream's binaries are compiled without optimisation.  What that costs is shown by ``prepared
only``: the same without the pass that keeps values in locals (``wali_core.rewriting._reuse``).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = 11
TARGET = 3.0
SCRIPT = """
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
local start = os.clock()
fib(30)
io.stderr:write(_VERSION, " ", os.clock() - start, "\\n")
"""
UNPASSED = """
import sys
from wali_core import cli
from wali_core.rewriting import _reuse
_reuse.reuse_values = lambda data, origin: data
sys.exit(cli.main(sys.argv[1:]))
"""


def seconds(command: list[str]) -> float:
    """What the program says that it took."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stderr.split()[-1])


def version(command: list[str]) -> str:
    """What a lua calls itself."""
    done = subprocess.run([*command, "-v"], check=True, capture_output=True, text=True)
    return done.stdout.split("  ")[0].strip()


def main(native: str = "lua5.4") -> None:
    """Print the medians."""
    upstream = os.environ.get("WALI_UPSTREAM")
    if upstream is None or shutil.which(native) is None:
        print(f"WALI_UPSTREAM names no checkout of WALI, or there is no {native}: not measured")
        return
    wasm = str(Path(upstream, "examples", "precompiled", "lua", "lua.wasm").resolve())
    run = ["run", "--allow-all", wasm]
    sides = {
        native: [native],
        "wali": [sys.executable, "-m", "wali_core", *run],
        "prepared only": [sys.executable, "-c", UNPASSED, "run", "--no-cache", *run[1:]],
    }
    with tempfile.TemporaryDirectory(prefix="wali-bench-") as folder:
        script = Path(folder) / "fib.lua"
        script.write_text(SCRIPT)
        names = {side: version(command) for side, command in sides.items()}
        for command in sides.values():
            seconds([*command, str(script)])
        rounds = [
            {side: seconds([*command, str(script)]) for side, command in sides.items()}
            for _ in range(RUNS)
        ]
    for side, name in names.items():
        median = statistics.median(r[side] for r in rounds) * 1e3
        ratio = statistics.median(r[side] / r[native] for r in rounds)
        print(f"{side:14} {name:10} {median:7.1f} ms  {ratio:5.2f} {verdict(side, ratio)}")


def verdict(side: str, ratio: float) -> str:
    """What was to be reached, and whether it was."""
    if side != "wali":
        return ""
    return f"(<= {TARGET}: {'yes' if ratio <= TARGET else 'NO'})"


if __name__ == "__main__":
    main(*sys.argv[1:])
