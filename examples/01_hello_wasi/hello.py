"""Run a program from Python: arguments, environment, input, output, status.

python -m examples.01_hello_wasi.hello
"""

from __future__ import annotations

from pathlib import Path

from examples._common import expect, guest, run, say, text
from wali_core import run_sync


def main() -> None:
    """Run it once, and show what came out."""
    program = guest(Path(__file__).with_name("hello.c"))
    result = run_sync(
        program,
        args=["Ada"],
        env={"GREETING": "Good morning"},
        stdin=b"it is early\n",
        capture_output=True,
    )
    say(f"stdout: {text(result.stdout)!r}")
    say(f"stderr: {text(result.stderr)!r} (no policy: no files)")
    say(f"status: {result.returncode}")
    expect(text(result.stdout) == "Good morning, Ada!\nYou said: it is early\n", "its output")
    expect("No such file or directory" in text(result.stderr), "it has seen a file")
    expect(result.returncode == 3, "its status")


if __name__ == "__main__":
    run(main)
