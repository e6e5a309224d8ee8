"""Build a WALI program and run it on a file: it has to be granted, like everything else.

python -m examples.07_wali_program.count
"""

from __future__ import annotations

from pathlib import Path

from examples._common import expect, run, wali, wali_program

HERE = Path(__file__).parent
EPERM = "errno 1"


def main() -> None:
    """Count the lines of the program's own source."""
    source = HERE / "count.c"
    program = wali_program(source)
    lines = len(source.read_text().splitlines())

    refused = wali("run", program, "count.c", cwd=HERE)
    granted = wali("run", "--dir", ".", program, "count.c", cwd=HERE)

    expect(EPERM in refused.stdout, "it has read what nobody granted")
    expect(f"count.c: lines {lines}" in granted.stdout, "it cannot count")


if __name__ == "__main__":
    run(main)
