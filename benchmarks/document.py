"""Measure WASI calls, and write the figures into the document that has them.

    python -m benchmarks.document docs/performance.md

What stands between its two marks is replaced. The files lie in memory (``/dev/shm``), so that a
disk's own time does not hide ours, and then where temporary files usually lie.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import bench_linker, bench_wasi
from benchmarks._sides import Node

if TYPE_CHECKING:
    from collections.abc import Callable

INTRODUCTION = """\
Written by `{command}`. Measured on {date}, on

- {processors} processors ({architecture}, {model}), shared with others; load before the run: {load}
- Linux {release}, Python {python}, wasmtime {wasmtime}, Node {node}
"""


def machine() -> dict[str, object]:
    """What is measured on, and with what."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processors": os.cpu_count(),
        "architecture": platform.machine(),
        "model": model,
        "load": ", ".join(f"{value:.1f}" for value in os.getloadavg()),
        "release": platform.release(),
        "python": platform.python_version(),
        "wasmtime": metadata.version("wasmtime"),
        "node": Node.version() or "none",
    }


class Both(io.StringIO):
    """Keeps what is printed, and prints it."""

    def write(self, text: str) -> int:
        """Print it as well."""
        assert sys.__stdout__ is not None  # noqa: S101
        sys.__stdout__.write(text)
        sys.__stdout__.flush()
        return super().write(text)


def report() -> None:
    """Print all of it."""
    for folder in ("/dev/shm", tempfile.gettempdir()):  # noqa: S108
        if os.access(folder, os.W_OK):
            print(f"### Files in {folder}\n")
            bench_wasi.main(folder)
            print()
    print("### In a Linker of one's own\n")
    bench_linker.main()


def rewrite(document: str, module: str, report: Callable[[], None]) -> None:
    """Have ``report`` print what is to stand between the marks of a module."""
    begin, end = (f"<!-- {module}: {what} -->\n" for what in ("begin", "end"))
    path = Path(document)
    before, _, rest = path.read_text().partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{document} does not have the marks {begin!r} and {end!r}")
    with contextlib.redirect_stdout(Both()) as printed:
        print(INTRODUCTION.format(command=f"python -m {module} {document}", **machine()))
        report()
    path.write_text(f"{before}{begin}{printed.getvalue()}{end}{after}")


if __name__ == "__main__":
    rewrite(sys.argv[1], "benchmarks.document", report)
