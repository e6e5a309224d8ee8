"""The shim's C, built natively under sanitizers and called at random on a fake core.

`sanitized/fake.c` stands for the core and for the kernel, which answers anything, now and then what
Linux never would; `sanitized/fuzz.c` makes the calls and looks at the shim's tables after each. The
default run is short and always the same;

    WALI_FUZZ=100000 python -m pytest tests/wasi_shim/test_sanitized.py

lets that many guests live, other ones each time, on each compiler. A failure names its seed:
`fuzz SEED LIVES` makes the same calls.
"""

from __future__ import annotations

import faulthandler
import os
import random
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.twins import CALLS
from tests.sanitizers import COMPILERS, VARIABLE, SanitizedBuild
from tests.wasi_shim.calls import SIGNATURES
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS, MOST_SEEDS, LIVES, BATCH = 6, 120, 500, 2000

HERE = Path(__file__).parent / "sanitized"
SHIM = compiler.SHIM_SOURCES
# The shim's own memory is the fake's business: each piece has a redzone there.
SOURCES = sorted({*SHIM.glob("*.c")} - {SHIM / "memory.c"}) + sorted(HERE.glob("*.c"))

FLAGS = [
    *("-std=c11", "-Wall", "-Wextra", "-Werror"),
    "-Dsched_yield=wasi_sched_yield",  # a name of the C library's
]

# What the twins do not call.
KINDS = CALLS | {"args_get": "aa", "environ_get": "aa", "proc_exit": "i", "proc_raise": "i"}
UNSTABLE = ["fd_filestat_get", "fd_seek", "path_filestat_get", "poll_oneoff"]


def declarations() -> str:
    """A table of the shim's exports in C, and functions that call them."""
    lines, rows = [], []
    types = {"i": "uint32_t", "I": "uint64_t"}
    exports = {name: name for name in SIGNATURES} | {f"unstable_{name}": name for name in UNSTABLE}
    for export, name in exports.items():
        kinds, returns = SIGNATURES[name], name != "proc_exit"
        values = ", ".join(f"({types[kind]})a[{i}]" for i, kind in enumerate(kinds))
        lines += [
            f"static int32_t make_{export}(const uint64_t *a) {{",
            f"    (void)a; {'return ' if returns else ''}{export}({values});",
            "}",
        ]
        rows.append(f'{{"{export}", "{KINDS[name]}", make_{export}}},')
    lines += ["static const struct call calls[] = {", *rows, "};"]
    lines.append(
        "static const struct call *const path_open_call = "
        f"&calls[{list(exports).index('path_open')}];"
    )
    return "\n".join([*lines, ""])


class Build(SanitizedBuild):
    """One compiler's objects, of which a test may exchange one."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder, FLAGS)
        (folder / "calls.gen.h").write_text(declarations())
        self.objects = {source.name: self.compile(source) for source in SOURCES}

    def compile(self, source: Path) -> Path:
        """Compile one file, which may be a copy of one of the shim's."""
        out = self.folder / f"{source.name}.{source.parent.name}.o"
        # Quoted names only: the shim has an errno.h of its own, and so has the C library.
        folders = (f"-iquote{folder}" for folder in (source.parent, SHIM, HERE, self.folder))
        self.run("-c", *folders, source, "-o", out)
        return out


@pytest.fixture(scope="module", params=COMPILERS)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return the shim, compiled; once for each compiler that there is."""
    return Build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def fuzz(build: Build) -> Path:
    """Return the program that makes the calls."""
    return build.link()


def live(program: Path, seed: int, lives: int) -> tuple[int, str, str]:
    """Let guests live: the status, and what was written."""
    done = subprocess.run(
        [program, str(seed), str(lives)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_goes_wrong(fuzz: Path, seed: int) -> None:
    """Random calls, and a kernel that errs and lies: no sanitizer complains, no table is wrong."""
    status, said, complaint = live(fuzz, seed, LIVES)

    assert status == 0, complaint
    assert said.startswith(f"{LIVES * 200} calls, ")


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"set {VARIABLE} to a number of guests")
def test_nothing_goes_wrong_for_long(fuzz: Path, report_figure: Callable[[str], None]) -> None:
    """The same for as many guests as the environment says."""
    faulthandler.cancel_dump_traceback_later()  # pytest's: it takes as long as it takes
    lives = int(os.environ[VARIABLE])
    for _ in range(0, lives, BATCH):
        seed = random.randrange(2**62)  # noqa: S311 - which calls are made is no secret
        status, _, complaint = live(fuzz, seed, BATCH)
        assert status == 0, complaint
    report_figure(f"fuzzing {fuzz.parent.name}: {lives} guests, {200 * lives} calls")


# What is taken out of the shim, and what is said then.
BREAKAGES = {
    "an error leaves a file open": (
        "path",
        "    if (error) {\n        sys_close(opened);\n",
        "    if (error) {\n",
        "a descriptor is open and the shim does not know",
    ),
    "a number keeps its rights": (
        "fd",
        "    descriptor_remove(from);\n    return errno_of(sys_close(from));",
        "    return errno_of(sys_close(from));",
        "the shim knows a descriptor that is not open",
    ),
    "a path may leave": (
        "resolve",
        "RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS",
        "RESOLVE_NO_MAGICLINKS",
        "openat2: resolve",
    ),
    "a path is no component": (
        "resolve",
        "        if (*c == '/')\n            return false;\n",
        "        (void)c;\n",
        "a component has a slash",
    ),
    "a directory's bytes are believed": (
        "readdir",
        "        return NULL;\n    return entry;",
        "        return entry;\n    return entry;",
        "runtime error|AddressSanitizer",
    ),
    "what is read-only may be written": (
        "configure",
        ".inheriting = RIGHTS_ALL & ~denied",
        ".inheriting = RIGHTS_ALL",
        "a read-only descriptor may write",
    ),
    "the kernel is believed": (
        "random",
        "at_most(POOL_SIZE, draw(pool, POOL_SIZE))",
        "draw(pool, POOL_SIZE)",
        "runtime error|AddressSanitizer",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BREAKAGES)
def test_what_is_wrong_is_seen(build: Build, tmp_path: Path, what: str) -> None:
    """A shim that was broken on purpose does not live long."""
    stem, text, replacement, expected = BREAKAGES[what]
    source = (SHIM / f"{stem}.c").read_text()
    assert source.count(text) == 1
    broken = tmp_path / f"{stem}.c"
    broken.write_text(source.replace(text, replacement))

    program = build.link(**{stem: build.compile(broken)})
    # What a seed comes to changes with every line of the shim: it is looked for until seen.
    complaints = (live(program, seed, LIVES) for seed in range(MOST_SEEDS))

    assert any(status and re.search(expected, said) for status, _, said in complaints)
