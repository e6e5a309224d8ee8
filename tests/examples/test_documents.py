"""What README and docs/ show works: commands, code, policies, and links.

A block marked `console` is run in a shell, in a folder with the examples' programs, and must print
what it shows. A block marked `python` is run; what it prints must be what the comments beside
`print` say. A block marked `toml` is a policy. Blocks marked otherwise are not for here.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.bench_wasi import TARGETS
from capabilities import Policy
from examples._common import guest
from tests.architecture.test_tcb import MOST_LINES
from wali_core.cli import USAGE
from wali_core.native import compile as compiler
from wali_core.native import generate

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = ROOT / "examples"
PROGRAMS = {
    "01_hello_wasi/hello.c": "wasm32-wasi",
    "02_policy/summarise.c": "wasm32-wasi",
    "03_timeout/wait.c": "wasm32-wasi",
    "04_library/checksum.c": "wasm32-freestanding",
    "05_evil_shim/innocent.c": "wasm32-freestanding",
    "../tests/wali_core/greeter.c": "wasm32-freestanding",
}
WRONG_POLICY = """version = 1
[filesystem]
read_onyl = ["x"]
[limits]
wall_time = "5 parsecs"
"""
COMMAND = """#!/bin/sh
exec env PYTHONPATH={root} {python} {words} "$@"
"""

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PRINT = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)

named = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(path: Path, kind: str) -> list[str]:
    """Return the blocks of a kind in a document."""
    return [text for found, text in FENCE.findall(path.read_text()) if found == kind]


def sessions(block: str) -> Iterator[tuple[str, str]]:
    """Split a console block into commands and what each prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def heading_anchor(heading: str) -> str:
    """Return the anchor that a heading gets on a page."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def run(command: list[str], folder: Path) -> str:
    """Run a command in a folder, with `wali` on its path; all that it printed."""
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as the documents assume it: programs, a policy, sources, and `wali`."""
    for source, target in PROGRAMS.items():
        shutil.copy(guest(EXAMPLES / source, target=target), tmp_path)
    shutil.copytree(EXAMPLES, tmp_path / "sources", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "out").mkdir()
    shutil.copy(EXAMPLES / "02_policy/policy.toml", tmp_path)
    (tmp_path / "wrong.toml").write_text(WRONG_POLICY)
    (tmp_path / "bin").mkdir()
    for name, words in (("wali", "-m wali_core"), ("python", "")):
        command = tmp_path / "bin" / name
        command.write_text(COMMAND.format(root=ROOT, python=sys.executable, words=words))
        command.chmod(0o755)
    return tmp_path


@pytest.mark.slow
@named
def test_commands_print_what_is_shown(path: Path, folder: Path) -> None:
    """Each command of a document, in order, prints what stands below it."""
    for block in blocks(path, "console"):
        for command, printed in sessions(block):
            assert printed == run(["bash", "-c", command], folder), command


@pytest.mark.slow
@named
def test_code_runs(path: Path, folder: Path) -> None:
    """Each piece of Python runs by itself, and prints what its comments say."""
    for block in blocks(path, "python"):
        expected = "".join(f"{line}\n" for line in PRINT.findall(block))

        assert expected == run([sys.executable, "-W", "error", "-c", block], folder), block


@named
def test_policies_are_accepted(path: Path) -> None:
    """Each policy that is shown can be loaded."""
    for block in blocks(path, "toml"):
        Policy.from_dict(tomllib.loads(block), "/")


@named
def test_links_lead_somewhere(path: Path) -> None:
    """Each link into the project names a file that is there, and a heading in it."""
    for link in LINK.findall(path.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in map(heading_anchor, headings), link


def test_the_trusted_base_is_as_small_as_readme_says() -> None:
    """README's figure is the limit that a test holds."""
    assert f"{MOST_LINES:,} lines of C" in (ROOT / "README.md").read_text()


def test_performance_has_every_call_that_is_measured() -> None:
    """`docs/performance.md` was written by the benchmarks that there are now."""
    lines = (ROOT / "docs" / "performance.md").read_text().splitlines()

    for target in TARGETS:
        rows = [line for line in lines if line.startswith(f"| {target.call} | {target.native} |")]
        assert rows, target.call


def test_every_option_is_described() -> None:
    """`docs/cli.md` has a line for every option that the command's own help has."""
    described = (ROOT / "docs" / "cli.md").read_text()

    for option in re.findall(r"^  (--[\w-]+)", USAGE, re.MULTILINE):
        assert re.search(rf"^\| `{option}[ `]", described, re.MULTILINE), option


def test_every_call_is_described() -> None:
    """`docs/wali.md` has the table that its generator makes, and no call is missing."""
    page = (ROOT / "docs" / "wali.md").read_text()
    listed = page.partition("<!-- calls -->\n")[2].partition("<!-- end of calls -->")[0]

    assert listed == generate.compatibility(runpy.run_path(str(compiler.TABLE)))


def test_every_file_of_the_core_is_placed() -> None:
    """`docs/architecture.md` names every file of the core, so that none is without a place."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    core = ROOT / "wali_core"
    files = [*core.rglob("_*.py"), *core.glob("*.py"), *(core / "native").glob("*.[ch]")]
    missing = {path.name for path in files if path.name not in text}

    assert not missing - {"__init__.py", "__main__.py"}
