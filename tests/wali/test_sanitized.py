"""The core's C, built under sanitizers, and every call of it made at random: on the real kernel.

`sanitized/fuzz.c` is the engine and the guest, which makes every call of the table in every way
that there is: natively, on a fiber, in capability mode.  `sanitized/checks.c` looks at every copy
of the core's and at every buffer that the kernel is handed, and after each call at what lies around
the guest's memory and at the host's descriptors.  The default run is short, and its seeds are
always the same;

    WALI_FUZZ=10000000 python -m pytest tests/wali/test_sanitized.py
    WALI_FUZZ_SECONDS=1200 python -m pytest tests/wali/test_sanitized.py -k coverage

make so many calls, other ones each time, and look for so long for calls that get further in the
code (libFuzzer, so clang alone).  A failure names its seed, or its input.
"""

from __future__ import annotations

import copy
import faulthandler
import os
import random
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sanitizers import COMPILERS, VARIABLE, SanitizedBuild
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SEEDS, MOST_SEEDS, CALLS, BATCH = 4, 64, 20_000, 200_000
NOT_POSSIBLE = 77

HERE = Path(__file__).parent / "sanitized"
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:symbolize=0", "UBSAN_OPTIONS": "symbolize=0"}


def watched(text: str, name: str) -> str:
    """A source of the core's with its copies and system calls sent through the checks."""
    if name.endswith(".c"):
        return text.replace("wali_copy(", "checked_copy(")
    if name == "linux.h":
        text = text.replace(
            "static inline int64_t syscall6(", "static inline int64_t real_syscall("
        )
        return text.replace("    syscall6(", "    checked_syscall(")
    return text.replace("    interruptible((", "    checked_interruptible((")


def kinds() -> str:
    """The arguments of every row of the core's list, and the closed lists, as C."""
    table = runpy.run_path(str(compiler.TABLE))
    rows = [call.arguments for call in table["CALLS"]] + [row[2] for row in table["AUXILIARY"]]
    lines = [
        "    (const char *const[]){" + "".join(f'"{kind}", ' for kind in row.split()) + "NULL},\n"
        for row in rows
    ]
    listed = {name: [row[:1] for row in table[name]] for name in ("IOCTLS", "FCNTLS")}
    listed["SOCKET_OPTIONS"] = [row[:2] for row in table["SOCKET_OPTIONS"]]
    return "".join(
        (
            f"enum {{ MOST_CALLS = {len(rows)} }};\n",
            "static const char *const *const argument_kinds[] = {\n",
            *lines,
            "};\n",
            *(listed_numbers(name.lower(), numbers) for name, numbers in listed.items()),
        )
    )


def listed_numbers(name: str, rows: Sequence[Sequence[int]]) -> str:
    """One of the closed lists, as C."""
    values = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in rows)
    return f"static const uint32_t {name}[][{len(rows[0])}] = {{{values}}};\n"


class Build(SanitizedBuild):
    """The core, watched, and one of its files exchanged where a test asks for it."""

    def __init__(self, name: str, folder: Path, *flags: str) -> None:
        super().__init__(name, folder, ["-std=gnu11", *flags])
        generator = compiler._load(compiler.NATIVE / "generate.py")
        generator.generate(compiler.TABLE, folder, compiler.host_arch())
        (folder / "kinds.gen.h").write_text(kinds())
        for source in [*compiler.NATIVE.glob("*.[ch]")]:
            (folder / source.name).write_text(watched(source.read_text(), source.name))
        for source in HERE.glob("*.[ch]"):
            shutil.copy(source, folder)
        self.objects = {path.name: self.compile(path) for path in sorted(folder.glob("*.c"))}

    def compile(self, source: Path) -> Path:
        """Compile one file."""
        out = self.folder / f"{source.name}.{len(list(self.folder.glob('*.o')))}.o"
        own = ["-Dmemcpy=core_memcpy", "-Dmemset=core_memset"] if source.name == "memory.c" else []
        include = f"-I{self.folder}"
        self.run(*own, "-include", HERE / "checks.h", include, "-c", source, "-o", out)
        return out


@pytest.fixture(scope="module", params=COMPILERS)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return the core, compiled; once for each compiler that there is."""
    return Build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def fuzz(build: Build) -> Path:
    """Return the program that makes the calls."""
    return build.link()


def make_calls(program: Path, seed: int, calls: int) -> tuple[int, str]:
    """The status, and what was written.  Skips where no process can be confined."""
    done = subprocess.run(
        [program, str(seed), str(calls)],
        env=os.environ | OPTIONS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == NOT_POSSIBLE:
        pytest.skip("no process can be made that can harm nobody: there are no namespaces here")
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_goes_wrong(fuzz: Path, seed: int) -> None:
    """Random arguments, random pointers: no complaint, and no memory touched but the guest's."""
    status, said = make_calls(fuzz, seed, CALLS)

    assert status == 0, said
    figures = re.search(rf"^{CALLS} calls in (\d+) of (\d+) ways, (\d+) with", said, re.MULTILINE)
    assert figures is not None, said
    made, ways, succeeded = map(int, figures.groups())
    assert made == ways, said
    assert succeeded > ways * 2 // 3, said


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"set {VARIABLE} to a number of calls")
def test_nothing_goes_wrong_for_long(fuzz: Path, report_figure: Callable[[str], None]) -> None:
    """The same for as many calls as the environment says."""
    faulthandler.cancel_dump_traceback_later()  # pytest's: it takes as long as it takes
    calls = int(os.environ[VARIABLE])
    for _ in range(0, calls, BATCH):
        seed = random.randrange(2**61)  # noqa: S311 - which calls are made is no secret
        status, said = make_calls(fuzz, seed, BATCH)
        assert status == 0, f"seed {seed}: {said}"
    report_figure(f"fuzzing the core with {fuzz.parent.name}: {calls} calls")


# No thread of its own: a namespace's first process dies of signals that one thread blocks and
# another does not.
LIBFUZZER = ["-timeout=0", "-rss_limit_mb=0", "-max_len=1024", "-len_control=0"]
LIBFUZZER += ["-handle_usr1=0", "-handle_usr2=0"]
SECONDS = "WALI_FUZZ_SECONDS"


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(SECONDS not in os.environ, reason=f"set {SECONDS} to how long it may take")
def test_nothing_goes_wrong_by_coverage(
    tmp_path: Path, report_figure: Callable[[str], None]
) -> None:
    """Inputs that reach what none before them has are changed further."""
    faulthandler.cancel_dump_traceback_later()
    program = Build("clang", tmp_path, "-fsanitize=fuzzer", "-DCOVERAGE").link()
    command = [str(program), *LIBFUZZER, f"-max_total_time={os.environ[SECONDS]}"]

    done = subprocess.run(
        command, env=os.environ | OPTIONS, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    report_figure(f"fuzzing the core by coverage: {done.stdout.splitlines()[-1]}")


# What is taken out of the core, and what is said then.
BREAKAGES = {
    "a buffer may lie anywhere": (
        "memory.c",
        "return s->bound && address + size <= s->size ? ",
        "return s->bound ? ",
        "handed over|written|AddressSanitizer|signal",
    ),
    "a set may be of any size": (
        "events.c",
        "int32_t count = a[0].i32 > FD_SETSIZE ? FD_SETSIZE : a[0].i32;",
        "int32_t count = a[0].i32 > 16384 ? 16384 : a[0].i32;",
        "too short|AddressSanitizer",
    ),
    "a vector is of any length": (
        "io.c",
        "struct iovec iov[IOVECS(count)];",
        "struct iovec iov[2];",
        "too short|AddressSanitizer|runtime error",
    ),
    "a pair that has no room is left open": (
        "descriptors.c",
        "        SYS(NR_close, host, 0, 0, 0, 0, 0);\n    else\n        descriptor_put(t, number",
        "        ;\n    else\n        descriptor_put(t, number",
        "was left open",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BREAKAGES)
def test_what_is_wrong_is_seen(
    what: str, build: Build, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A core that was broken on purpose does not get far."""
    name, text, replacement, expected = BREAKAGES[what]
    source = (build.folder / name).read_text()
    assert text in source
    broken = copy.copy(build)
    broken.folder = tmp_path_factory.mktemp("broken")
    for path in build.folder.glob("*.[ch]"):
        shutil.copy(path, broken.folder)
    (broken.folder / name).write_text(source.replace(text, replacement))
    broken.objects = build.objects | {name: broken.compile(broken.folder / name)}
    program = broken.link()

    # Which calls a seed comes to changes with every line of the table: it is looked for until seen.
    complaints = (make_calls(program, seed, CALLS) for seed in range(MOST_SEEDS))

    assert any(status and re.search(expected, said) for status, said in complaints)
