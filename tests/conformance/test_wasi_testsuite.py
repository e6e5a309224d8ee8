"""The public suite of WASI preview1: github.com/WebAssembly/wasi-testsuite.

Its programs are not ours to ship, so these tests run where `WALI_WASI_TESTSUITE` names a checkout
of the branch that holds them compiled, `prod/testsuite-base`:

    WALI_WASI_TESTSUITE=../wasi-testsuite python -m pytest tests/conformance/test_wasi_testsuite.py

Each program comes with a specification in JSON, of which everything that the preview1 tests use is
honoured here; a specification with any other key fails. The Rust tests look less closely at errno
unless `ERRNO_MODE_UNIX` is set, so they run twice; and everything runs once more with paths
resolved as on a kernel without `openat2`, and once with strict rights.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from wali_core import Runtime
from wasi_shim import WasiAbi

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "WALI_WASI_TESTSUITE"
LANGUAGES = ("assemblyscript", "c", "rust")
SECONDS = 60  # enough for the slowest of them on a machine that is busy

pytestmark = [pytest.mark.suite, pytest.mark.oldest]


@attrs.frozen
class Case:
    """One program of the suite, and how it is to be run."""

    program: Path
    env: dict[str, str] = attrs.field(factory=dict)

    @property
    def specification(self) -> dict[str, Any]:
        """What lies beside the program; without a file, everything has its default."""
        path = self.program.with_suffix(".json")
        return dict(json.loads(path.read_text())) if path.exists() else {}


def cases() -> list[Any]:
    """Return every program of the suite as a parameter, or one that is skipped."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        reason = f"set {VARIABLE} to a checkout of wasi-testsuite's branch prod/testsuite-base"
        return [pytest.param(None, id="no-suite", marks=pytest.mark.skip(reason=reason))]
    found = []
    for language in LANGUAGES:
        tests = Path(folder) / "tests" / language / "testsuite"
        programs = sorted(tests.glob("wasm32-wasip1/*.wasm"))
        programs = programs or sorted(tests.glob("*.wasm"))  # editions up to 2025
        found += [(f"{language}-{program.stem}", Case(program)) for program in programs]
        if language == "rust":
            strict = {"ERRNO_MODE_UNIX": "1"}
            found += [(f"rust-unix-{path.stem}", Case(path, strict)) for path in programs]
    if not found:
        raise FileNotFoundError(f"{VARIABLE} is {folder}: there are no compiled tests beneath it")
    return [pytest.param(case, id=name) for name, case in found]


@pytest.fixture(scope="module", params=["openat2", "walk", "strict"])
def way(request: pytest.FixtureRequest) -> str:
    """How the programs are run."""
    return str(request.param)


@pytest.fixture(scope="module")
def runtime(way: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Return one runtime for all programs, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "walk":
            walking = partialmethod(WasiAbi.configuration, manual_walk=True)
            patch.setattr(WasiAbi, "configuration", walking)
        with Runtime(cache=tmp_path_factory.mktemp("cache")) as shared:
            yield shared


def granted(case: Case, specification: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Copy the directories that a program wants, and say how it sees them."""
    wanted = {name: name for name in specification.pop("dirs", [])}  # editions up to 2025
    if root := specification.pop("root", None):
        wanted["/"] = root
    for guest, name in wanted.items():
        shutil.copytree(case.program.parent / name, scratch / name)
        wanted[guest] = (scratch / name, "rw")
    return wanted


@pytest.mark.parametrize("case", cases())
def test_program(case: Case, way: str, runtime: Runtime, tmp_path: Path) -> None:
    """A program of the suite ends as its specification says."""
    specification = case.specification

    result = runtime.run_sync(
        case.program,
        dirs=granted(case, specification, tmp_path),
        args=specification.pop("args", []),
        env=specification.pop("env", {}) | case.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        strict_rights=way == "strict",
    )

    assert result.stdout is not None
    assert result.stderr is not None
    seen = {
        "exit_code": result.returncode,
        "stdout": result.stdout.decode(),
        "stderr": result.stderr.decode(),
    }
    expected = {"exit_code": 0} | specification
    assert expected == {key: seen.get(key, "unknown to this harness") for key in expected}, seen
