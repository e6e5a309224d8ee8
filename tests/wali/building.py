"""How the guests are built: as WALI programs and, from the same source, as Linux's own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

GUESTS = Path(__file__).parent / "guests"
HAS_NATIVE = os.uname().machine == "x86_64"

_COMMON = ("-O2", "-std=gnu11", "-fno-builtin", "-Wall", "-Wextra", "-Werror", f"-I{GUESTS}")
_COMPILE = (
    "--target=wasm32-unknown-linux-muslwali",
    *("-mcpu=generic", "-matomics", "-mbulk-memory"),
    *_COMMON,
)
_LINK = ("--no-entry", "--shared-memory", "--export-memory", "--max-memory=2147483648")
_NATIVE = ("-target", "x86_64-linux-none", "-nostdlib", "-static", "-fno-sanitize=all", *_COMMON)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="wali-guests-")


@functools.cache
def program(name: str | Path, *defines: str, start: bool = True) -> Path:
    """Return a guest, or another source, as a WALI program; built when it is first asked for."""
    made = _path(name, defines).with_suffix(".o")
    source = _source(name)
    _zig("clang", *_COMPILE, *_defined(defines), "-c", str(source), "-o", str(made))
    exports = ["--export=_start"] if start else []
    out = made.with_suffix(".wasm")
    _zig("wasm-ld", *_LINK, *exports, str(made), "-o", str(out))
    out.chmod(0o755)  # it can be executed
    return out


@functools.cache
def native(name: str | Path, *defines: str) -> Path:
    """Return a guest, or another source, as a program of this machine's."""
    out = _path(name, defines)
    _zig("cc", *_NATIVE, *_defined(defines), str(_source(name)), "-o", str(out))
    return out


def _source(name: str | Path) -> Path:
    return name if isinstance(name, Path) else GUESTS / f"{name}.c"


def _path(name: str | Path, defines: Iterable[str]) -> Path:
    return Path(_folder().name) / "-".join([Path(name).stem, *defines])


def _defined(names: Iterable[str]) -> list[str]:
    return [f"-D{name}" for name in names]


def _zig(*words: str) -> None:
    command = [sys.executable, "-m", "ziglang", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
