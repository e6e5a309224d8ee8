"""Where no namespace can be had: what holds a program then, and who is told.

Namespaces are forbidden here as container runtimes do it, by seccomp.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capabilities.lockdown import landlock
from tests import forbidding, ordinary
from tests.wali import building

if TYPE_CHECKING:
    from collections.abc import Callable

    Without = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
NOTICE = (
    "wali: no view of its own for the program (the kernel gives {} no namespace{}): names and "
    "metadata of other files stay readable; calls that write metadata and unix sockets are refused"
)
pytestmark = pytest.mark.skipif(
    landlock.abi_version() < landlock.FEATURES["signals"],
    reason="this kernel's Landlock is missing or too old: CONFINEMENT IS NOT TESTED HERE",
)


@pytest.fixture
def home(open_folder: Path) -> Path:
    """Return a folder with a granted folder in it, and with a secret."""
    made = open_folder / "home"
    (made / "in").mkdir(parents=True)
    (made / "in" / "file").write_text("in it")
    (made / "secret").write_text("secret")
    for name in ("attempt", "explore"):
        (made / f"{name}.wasm").write_bytes(building.program(name).read_bytes())
    return made


@pytest.fixture(params=["root", "user"])
def without(request: pytest.FixtureRequest, home: Path, cache_folder: Path) -> Without:
    """Return a function that runs the command where no namespace can be had."""
    if request.param == "root" and os.geteuid():
        pytest.skip("not root")

    def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        wali = [sys.executable, "-m", "wali_core", "run", *words]
        command = forbidding.command(wali, forbidding.UNSHARE)
        if request.param == "user":
            return ordinary.run(command, ordinary.give(home), **options)
        given: dict[str, Any] = {"capture_output": True, "stdin": subprocess.DEVNULL} | options
        environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)}
        return subprocess.run(
            command,
            env=os.environ | environment,
            cwd=home,
            text=True,
            timeout=60,
            check=False,
            **given,
        )

    return run


def test_landlock_and_the_gate_hold(without: Without, home: Path) -> None:
    """Files are as granted; metadata of others is readable, and nobody's to be written."""
    inside = home / "in"
    done = without(
        *("--dir", f"{inside}:rw", "attempt.wasm"),
        *("read", inside / "file", "create", inside / "new", "read", home / "secret"),
        *("truncate", home / "secret", "unlink", home / "secret", "read", "/etc/passwd"),
        *("stat", home / "secret", "chdir", "/"),
        *("chmod", inside / "file", "set times", inside / "file", "chmod", home / "secret"),
        *("unix", "", "kill parent", ""),
    )

    assert (done.returncode, done.stderr) == (0, "")
    results = list(map(int, done.stdout.split()))
    assert results == [1, 0, *[-13] * 4, 0, 0, *[-1] * 3, -1, -1]
    assert (home / "secret").read_text() == "secret"


def test_renaming_is_refused_with_the_reason(without: Without, home: Path) -> None:
    """The host's own paths are all that there is then."""
    done = without("--dir", f"{home / 'in'}::/data", "explore.wasm", "list", "/")

    assert (done.returncode, done.stdout) == (126, "")
    assert f"{home / 'in'} cannot be /data for a WALI program" in done.stderr
    assert "sees the host's own paths: the kernel gives this " in done.stderr
    assert "Operation not permitted" in done.stderr


def test_a_view_can_be_required(without: Without, home: Path) -> None:
    """Then nothing runs."""
    (home / "p.toml").write_text('version = 1\nview = "required"\n')

    done = without("--policy", "p.toml", "explore.wasm", "list", "/")

    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr.startswith('wali: view = "required" cannot be met: the kernel gives this ')


def test_there_are_no_terminals(without: Without, home: Path) -> None:
    """Those of others would be at hand."""
    (home / "p.toml").write_text('version = 1\n[filesystem]\ndevices = ["ptmx"]\n')

    done = without("--policy", "p.toml", "explore.wasm", "list", "/")

    assert (done.returncode, done.stdout) == (126, "")
    assert "/dev/ptmx cannot be /dev/pts for a WALI program, which without a view" in done.stderr


def test_unix_sockets_are_refused(without: Without, home: Path) -> None:
    """Granted or not: who may connect to one could connect to any."""
    (home / "p.toml").write_text('version = 1\n[network]\nunix = ["./in"]\n')

    done = without("--policy", "p.toml", "explore.wasm", "connect", home / "in" / "s")

    assert (done.returncode, done.stdout, done.stderr) == (0, "-13\n", "")


def test_it_is_said_once_on_a_terminal(without: Without) -> None:
    """By whom it is refused, and what that means; and nothing where nobody reads it."""
    master, slave = pty.openpty()
    try:
        done = without("attempt.wasm", "pid", "", capture_output=False, stdout=-1, stderr=slave)
        os.close(slave)
        said = os.read(master, 4096).decode().replace("\r\n", "\n")
    finally:
        os.close(master)
    quiet = without("attempt.wasm", "pid", "")

    assert (done.returncode, done.stdout) == (0, "1\n")
    assert said in {
        NOTICE.format("this user", " (unshare: Operation not permitted)") + "\n",
        NOTICE.format("this process", ": Operation not permitted") + "\n",
    }
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_it_can_be_meant(without: Without, home: Path) -> None:
    """A policy that wants no view is not told that it has none."""
    (home / "p.toml").write_text('version = 1\nview = "off"\n')
    master, slave = pty.openpty()
    try:
        done = without(
            *("--policy", "p.toml", "attempt.wasm", "pid", ""),
            capture_output=False,
            stdout=-1,
            stderr=slave,
        )
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 4096)
    finally:
        os.close(slave)
        os.close(master)

    assert (done.returncode, done.stdout) == (0, "1\n")


@pytest.mark.parametrize("required", [False, True])
def test_wasi_guests_run_without(required: bool, without: Without, home: Path) -> None:  # noqa: FBT001
    """They have no need of it, unless the policy says so."""
    import wasmtime

    source = '(module (memory (export "memory") 1) (func (export "_start")))'
    (home / "nothing.wasm").write_bytes(wasmtime.wat2wasm(source))
    (home / "p.toml").write_text(f'version = 1\nview = "{"required" if required else "auto"}"\n')

    done = without("--policy", "p.toml", "--dir", ".", "nothing.wasm")

    assert done.returncode == (126 if required else 0)
    assert done.stderr.startswith('wali: view = "required" cannot be met' if required else "")
