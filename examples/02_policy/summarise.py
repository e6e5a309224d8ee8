"""Run a program on real files under a policy; then see what it cannot do.

    python -m examples.02_policy.summarise

The files are this repository's own sources, copied into a folder beside a secret that the policy
does not grant.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from examples._common import ROOT, expect, guest, run, say, wali

HERE = Path(__file__).parent
SOURCES = ("wali_core", "wasi_shim", "capabilities")
KINDS = (".py", ".c", ".h")

# What is tried, the program's words for it, and what is said of it.
REFUSED = (
    (("/out/report.txt", "/sources/../private"), "`..` out of the grant"),
    (("/out/report.txt", "/sources/link"), "a link that leads out of the grant"),
    (("/out/report.txt", "/etc"), "an absolute path that nothing grants"),
    (("/sources/report.txt", "/sources/capabilities"), "writing where it may only read"),
)


def make_world(folder: Path) -> None:
    """Copy the sources and the policy into `folder`, and a secret beside them."""
    for name in SOURCES:
        shutil.copytree(
            ROOT / name,
            folder / "sources" / name,
            ignore=lambda _, names: [n for n in names if "." in n and not n.endswith(KINDS)],
        )
    (folder / "out").mkdir()
    (folder / "private").mkdir()
    (folder / "private" / "secret.txt").write_text("the policy does not grant this\n")
    shutil.copy(HERE / "policy.toml", folder)


def counted(folder: Path) -> dict[str, tuple[int, int]]:
    """Count files and lines by kind in Python, to compare with the report."""
    files, lines = Counter[str](), Counter[str]()
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.suffix or "other"] += 1
            lines[path.suffix or "other"] += path.read_bytes().count(b"\n")
    return {kind: (files[kind], lines[kind]) for kind in files}


def works(program: Path, folder: Path) -> None:
    """Let it do its work, and check the report."""
    done = wali(
        *("run", "--policy", "policy.toml", program, "/out/report.txt", "/sources"), cwd=folder
    )
    expect(done.returncode == 0, f"status {done.returncode}")
    report = (folder / "out" / "report.txt").read_text()
    say(report)
    rows = [line.split() for line in report.splitlines()[1:-1]]
    found = {kind: (int(files), int(lines)) for kind, files, lines, _ in rows}
    expect(found == counted(folder / "sources"), "the report differs from what Python counts")
    say(f"Python counts the same in {sum(files for files, _ in found.values())} files.")


def is_refused(program: Path, folder: Path) -> None:
    """Let the same program try to get out."""
    (folder / "sources" / "link").symlink_to("../private")
    before = sorted(folder.rglob("*"))
    for words, what in REFUSED:
        say(f"\n{what}:")
        done = wali("run", "--policy", "policy.toml", program, *words, cwd=folder)
        expect(done.returncode == 1, f"status {done.returncode}")
        expect("(errno " in done.stderr, f"no errno in {done.stderr!r}")
    expect(sorted(folder.rglob("*")) == before, "it has made a file")
    (folder / "sources" / "link").unlink()


def main() -> None:
    """Do both in a folder that is removed afterwards."""
    program = guest(HERE / "summarise.c")
    with tempfile.TemporaryDirectory(prefix="wali-example-") as name:
        folder = Path(name)
        make_world(folder)
        works(program, folder)
        is_refused(program, folder)


if __name__ == "__main__":
    run(main)
