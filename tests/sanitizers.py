"""C of ours, built under AddressSanitizer and UBSan by a compiler that has them.

The zig that everything else is built with has no runtime of AddressSanitizer's: it takes clang or
gcc, with the library for it that comes along or in a package of its own.  (Debian: `apt install
clang`, which the continuous integration does; it leaves gcc out then.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VARIABLE = "WALI_FUZZ"
"""Says how much is called at random in a long run."""

COMMANDS = {"clang": ["clang", "-Wno-unknown-attributes"], "gcc": ["gcc"]}
REQUIRED = os.environ.get("WALI_SANITIZERS")
"""A compiler that is known to have them: it is enough, but for a long run."""

COMPILERS = [REQUIRED] if REQUIRED in COMMANDS and VARIABLE not in os.environ else list(COMMANDS)
FLAGS = [
    *("-g", "-O1", "-fno-omit-frame-pointer", "-Wno-attributes"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
]


class SanitizedBuild:
    """What one compiler makes in a folder.  ``flags`` are the sources' own.

    Skips the test, and says why, where that compiler or its sanitizers are missing; but fails where
    the environment says that they are there (`WALI_SANITIZERS`).
    """

    def __init__(self, compiler: str, folder: Path, flags: Sequence[str]) -> None:
        self.folder = folder
        self.objects: dict[str, Path] = {}
        self._command = [*COMMANDS[compiler], *FLAGS, *flags]
        if reason := self._why_not(compiler):
            said = f"nothing is tested under this one's sanitizers: {reason}"
            if compiler == REQUIRED:
                pytest.fail(said)
            pytest.skip(said)

    def run(self, *words: str | Path) -> None:
        """Run the compiler, which must succeed."""
        done = self._attempt(*words)
        assert done.returncode == 0, done.stderr

    def link(self, **exchanged: Path) -> Path:
        """Make a program of the objects, with some exchanged: by the stem of their source."""
        out = self.folder / f"fuzz{len(list(self.folder.glob('fuzz[0-9]*')))}"
        exchange = {f"{stem}.c": path for stem, path in exchanged.items()}
        self.run(*(self.objects | exchange).values(), "-o", out)
        return out

    def _attempt(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*self._command, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _why_not(self, compiler: str) -> str | None:
        if not shutil.which(compiler):
            return f"{compiler} is not installed"
        folder = self.folder / "probe"
        folder.mkdir()
        source, program = folder / "probe.c", folder / "probe"
        source.write_text("int main(void) { return 0; }\n")
        built = self._attempt(source, "-o", program)
        if built.returncode:
            return f"{compiler} has no AddressSanitizer: {built.stderr.strip().splitlines()[-1]}"
        done = subprocess.run([program], capture_output=True, check=False)
        return (
            f"what {compiler} makes does not run here: {done.stderr!r}" if done.returncode else None
        )
