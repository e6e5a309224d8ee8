"""The examples and the demonstration run, check themselves and say what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

# Compiling wasi-libc, which happens once on a machine, takes longer than all the rest.
SECONDS = 280

SAID = {
    "01_hello_wasi.hello": (
        r"stdout: 'Good morning, Ada!\\nYou said: it is early\\n'",
        r"/etc/passwd: No such file or directory",
        r"status: 3",
    ),
    "02_policy.summarise": (
        r"\$ wali run --policy policy.toml summarise.wasm /out/report.txt /sources$",
        r"^  \.py +\d+ +\d+ +\d+$",
        r"most often: \w+ \d+(, \w+ \d+){5}$",
        r"Python counts the same in \d+ files",
        r"/sources/\.\./private: Operation not permitted \(errno 63\)",
        r"/sources/link: Operation not permitted \(errno 63\)",
        r"/etc: No such file or directory \(errno 44\)",
        r"/sources/report.txt: Operation not permitted \(errno 63\)",
    ),
    "03_timeout.wait": (
        r"waits for input that never comes: ended \d+\.\d ms after its 100 ms",
        r"sleeps for an hour: ended",
        r"counts for ever: ended",
    ),
    "04_library.checksum": (
        r"crc32 in the guest: (0x\w+), in Python: \1$",
        r"the guest trapped \(.*out of bounds memory access\); this process goes on",
    ),
    "05_evil_shim.evil_shim": (
        r"open \.\./private/secret +EPERM$",
        r"truncate in the read-only grant +EROFS$",
        r"14 attempts: all refused, nothing read, nothing changed",
        r"imports wali.SYS_socket, which a shim may not have",
        r"broken ON PURPOSE",
        r"open \.\./private/secret +DONE  it read 'nobody granted this'",
    ),
    "06_echo_server.run": (
        r"the server: open /etc/passwd: (ENOENT|EACCES)$",
        r"the server: serve at the next port: EACCES$",
        r"20 clients at once: each got its own words back",
        r"it has ended with status 0, and 20 connections in its log",
    ),
    "07_wali_program.count": (
        r"^  count.c: errno 1$",
        r"\$ wali run --dir . count.wasm count.c\n  count.c: lines \d+$",
    ),
    "08_reactor.reactor": (
        r"300 guests wait for input, all in this thread",
        r"a line for one of them: it has ended \d+\.\d ms on",
        r"the others are cancelled, in \d+ µs each, and nothing of them is left",
        r"count 20000 \| shout \| total: 20000 lines, 348894 bytes",
        r"beside it another has counted for ever: the guest was stopped after its 1 s",
    ),
    "09_view.explore": (
        r"exists: /recipes/soup$",
        r"stat /etc/passwd: -2$",
        r"chmod /recipes/soup: -30$",
        r"8 names exist for it: what the policy grants, and nothing else",
        r"what it wrote is in table/menu",
    ),
    "10_agent_sandbox.sandbox": (
        r"read /data/link: Operation not permitted$",
        r"OPERATOR is not here$",
        r"spin: cpu_time: the guest has computed for its 0\.5 s \(limits\.cpu_time\)$",
        r"flood: output: the guest wrote more output than its limit allows$",
        r"hoard: open_files: the guest wanted more than its 16 descriptors",
        r"the report: 3 rows, 157 in all$",
        r"written down: read /data/link: refused by default$",
        r"written down: write /data/sales.csv: refused by filesystem.read_only\[0\]$",
    ),
    "11_worker_pool.worker_pool": (
        r"(thread \d+ has finished its first block\n  ){4}\$ kill -TERM",
        r"signal 15: no block is begun any more",
        r"^  \d+ primes$",
    ),
}

pytestmark = pytest.mark.slow


def run(module: str) -> str:
    """Run a module of the examples as a user does; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{module}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_example_is_tested() -> None:
    """No example lies in its folder without a test, a README and a place in the demonstration."""
    folders = {path.name for path in EXAMPLES.iterdir() if path.name[0].isdigit()}

    assert {name.partition(".")[0] for name in SAID} == folders
    for folder in folders:
        readme = (EXAMPLES / folder / "README.md").read_text()
        assert f"python -m examples.{folder}." in readme


@pytest.mark.parametrize("module", SAID)
def test_example(module: str) -> None:
    """An example ends well and prints what it shows."""
    printed = run(module)

    for said in SAID[module]:
        assert re.search(said, printed, re.MULTILINE), f"{said} is not in\n{printed}"


def test_demo() -> None:
    """The demonstration runs all of them, and says so."""
    printed = run("demo")

    for module in SAID:
        assert f"[examples/{module.replace('.', '/')}.py]" in printed
    assert "UNEXPECTED" not in printed
    assert re.search(rf"^All {len(SAID)} went as they should, in \d+ s\.$", printed, re.MULTILINE)
