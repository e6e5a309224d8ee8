"""What the examples share: guests are built from source, and surprises end the run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "examples"


class Surprise(Exception):
    """Something went another way than an example says it does."""


def expect(condition: object, what: str) -> None:
    """Raise `Surprise` unless the condition holds."""
    if not condition:
        raise Surprise(what)


def say(text: str) -> None:
    """Print what happened, indented below the example's heading."""
    print("\n".join(f"  {line}" for line in text.splitlines()), flush=True)


def guest(
    source: Path, *, name: str = "", target: str = "wasm32-wasi", flags: Sequence[str] = ()
) -> Path:
    """Return the Wasm file of a C source, compiled now if it is older than its source."""
    out = BUILD / f"{name or source.stem}.wasm"
    if not out.exists() or out.stat().st_mtime < source.stat().st_mtime:
        first = target == "wasm32-wasi" and not BUILD.exists()
        note = (
            " (once; the compiler builds its C library for WASI first: a minute)" if first else ""
        )
        say(f"building {out.name} from {source.relative_to(ROOT)}{note}")
        BUILD.mkdir(parents=True, exist_ok=True)
        compiler.compile_guest(source, out, target=target, flags=flags)
    return out


def wali_program(source: Path) -> Path:
    """Return the WALI program of a C source, compiled now if it is older than its source."""
    out = BUILD / f"{source.stem}.wasm"
    if not out.exists() or out.stat().st_mtime < source.stat().st_mtime:
        say(f"building {out.name} from {source.relative_to(ROOT)}")
        BUILD.mkdir(parents=True, exist_ok=True)
        zig, made = (sys.executable, "-m", "ziglang"), out.with_suffix(".o")
        subprocess.run([*zig, *_COMPILE, str(source), "-o", str(made)], check=True)
        subprocess.run([*zig, *_LINK, str(made), "-o", str(out)], check=True)
    return out


_COMPILE = (
    *("clang", "--target=wasm32-unknown-linux-muslwali", "-mcpu=generic", "-matomics"),
    *("-mbulk-memory", "-O2", "-fno-builtin", "-Wall", "-Wextra", "-Werror", "-c"),
)
_LINK = (
    *("wasm-ld", "--no-entry", "--export=_start", "--shared-memory", "--export-memory"),
    "--max-memory=2147483648",
)


def wali(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command `wali` and show what it was and what it said."""
    shown = [word.name if isinstance(word, Path) else word for word in words]
    say(f"$ wali {shlex.join(shown)}")
    command = [sys.executable, "-m", "wali_core", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if output := done.stdout + done.stderr:
        say(output.rstrip())
    return done


def text(output: bytes | None) -> str:
    """Return what was captured, as text."""
    return (output or b"").decode()


def run(main: Callable[[], None]) -> None:
    """Run an example by itself: status 1 and one line where it surprises."""
    try:
        main()
    except Surprise as surprise:
        sys.exit(f"UNEXPECTED: {surprise}")
