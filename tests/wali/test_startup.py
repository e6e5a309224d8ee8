"""How a program starts: its arguments, its environment, its imports, and how it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from capabilities.lockdown import view as views
from tests import forbidding, ordinary
from tests.wali import building
from wali_core import GuestTrap, ModuleError, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Wali = Callable[..., subprocess.CompletedProcess[str]]

READ_ENVIRONMENT = """\
has an environment: 1
asked with little room: 1
little room: 1
access: 0
open: 3
read all of it: 1
mapped the same: 1
munmap: 0
close: 0
"""


def test_arguments_arrive(wali: Wali) -> None:
    """A program's name is its path as it was given; all bytes of its arguments arrive."""
    program = building.program("hello")
    long = "x" * 5000

    done = wali(program, "", "two words", "--dir", "é\n", long)

    lines = ["", "two words", "--dir", "é\n", long]
    shown = "".join(f"argument {i}: {word}\n" for i, word in enumerate([str(program), *lines]))
    assert (done.returncode, done.stderr) == (0, "")
    assert shown[:200] in done.stdout
    assert "no such argument: 0\nhas an environment: 0\n" in done.stdout


def test_name_can_be_another(wali: Wali) -> None:
    """`--argv0` is what the program sees as its own name."""
    done = wali("--argv0", "sh", building.program("hello"))

    assert "argument 0: sh\n" in done.stdout


@pytest.mark.parametrize(
    "grants",
    [
        ["--allow-all"],
        ["--dir", "."],
        [],
    ],
)
def test_environment_is_read_from_its_file(grants: list[str], wali: Wali) -> None:
    """Whatever else is granted: what was given of an environment can be read."""
    done = wali(*grants, "--env", "A=1", "--env", "B=two words=é", building.program("hello"))

    assert READ_ENVIRONMENT in done.stdout
    lines = done.stdout.split("close: 0\n")[1].splitlines()
    assert {"A=1", "B=two words=é"} <= set(lines)
    if "--allow-all" not in grants:
        assert len(lines) == 2


VIEWS, LOCKDOWNS = ("auto", "off"), ("required", "best-effort", "off")
GRANTS = {
    "nothing": "",
    "a folder": '[filesystem]\nread_only = ["."]\n',
    "a folder as the root": '[filesystem]\nread_only = [".::/"]\n',
    "nothing, and no attempt": '[syscalls]\non_deny = "kill"\n',
}


@pytest.mark.parametrize("granted", GRANTS)
@pytest.mark.parametrize("lockdown", LOCKDOWNS)
@pytest.mark.parametrize("view", VIEWS)
def test_environment_is_read_whoever_holds_the_program(
    view: str, lockdown: str, granted: str, wali: Wali, tmp_path: Path
) -> None:
    """With and without a view, and whatever the kernel is asked for."""
    if "root" in granted and (view == "off" or views.probe()):
        pytest.skip("there is no other root without a view")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'version = 1\nview = "{view}"\nlockdown = "{lockdown}"\n{GRANTS[granted]}')

    done = wali("--policy", policy, "--env", "A=1", building.program("hello"))

    assert (done.returncode, done.stderr) == (0, "")
    assert f"{READ_ENVIRONMENT}A=1\n" in done.stdout


@pytest.mark.parametrize("lockdown", ["best-effort", "off"])
def test_environment_is_read_without_the_kernel(
    lockdown: str, box: Path, cache_folder: Path
) -> None:
    """Where the gate alone holds a program, it opens that file, be it executed; and no other."""
    shutil.copy(building.program("explore"), box)
    (box / "p.toml").write_text(
        f"""version = 1
        view = "off"
        lockdown = "{lockdown}"
        [filesystem]
        exec = ["."]
        [syscalls]
        allow = ["@default", "read", "write", "execve"]
        """
    )
    command = [sys.executable, "-m", "wali_core", "run", "--policy", "p.toml", "--env", "A=1"]
    command += ["explore.wasm", "environment", "", "read", "p.toml", "list", "/"]
    command += ["execute", str(box / "explore.wasm")]
    environment = {"PYTHONPATH": str(ordinary.ROOT), "XDG_CACHE_HOME": str(cache_folder)}
    done = subprocess.run(
        forbidding.command(command, forbidding.LANDLOCK),
        env=os.environ | environment,
        cwd=box,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["A=1", "-1", "-1", "B=2", "-1", "-1"]


def test_environment_with_a_newline_is_refused(wali: Wali) -> None:
    """The variable is named, since WALI's file cannot hold such a value."""
    done = wali("--env", "A=1\n2", building.program("hello"))

    assert done.returncode == 126
    assert "environment variable 'A': its value has a newline" in done.stderr


@pytest.mark.parametrize("typed", ["RESULT", "NO_RESULT"])
def test_exit_can_have_both_types(typed: str, wali: Wali) -> None:
    """Some programs import SYS_exit with a result, some without."""
    done = wali(building.program("odd", typed))

    assert (done.returncode, done.stdout, done.stderr) == (41, "", "")


def test_missing_calls_answer_enosys(wali: Wali) -> None:
    """A call that nobody serves, of any type, answers -38, and a program that runs is not told."""
    done = wali("--allow-all", building.program("odd", "MISSING"))

    assert done.stdout == "quotactl: -38\nof the future: -38\nrt_sigreturn: -38\nafter it\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_calls_are_named(wali: Wali) -> None:
    """`--warn-missing` names them before the program runs."""
    done = wali("--allow-all", "--warn-missing", building.program("odd", "MISSING"))

    assert done.stderr.startswith("wali: these calls answer ENOSYS: ")
    assert set(done.stderr.split(": ")[2].strip().split(", ")) >= {
        "SYS_quotactl",
        "SYS_of_the_future",
    }


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (["LONGJMP"], "wali.setjmp"),
        (["LONGJMP", "SIGSETJMP"], "wali.sigsetjmp"),
        (["LONGJMP", "SIGSETJMP", "BOTH"], "wali.setjmp or wali.sigsetjmp"),
    ],
)
def test_longjmp_is_named(kinds: list[str], names: str, wali: Wali) -> None:
    """A program can set; jumping ends it, with the reason, and the imports by which it has set."""
    done = wali(building.program("odd", *kinds))

    assert set(done.stdout.splitlines()) == {"setjmp: 0"}
    assert done.returncode == 134
    assert "called wali.longjmp, which this version does not serve: where it has called" in (
        done.stderr
    )
    assert f"called {names} there is no way back" in done.stderr


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("STRANGER", "imports wali.launch, which is not a call of WALI"),
        ("WRONG_TYPE", "imports wali.SYS_getuid with another type than () -> (I)"),
        ("OTHER_MODULE", "imports env.f"),
    ],
)
def test_imports_that_are_not_walis_are_refused(kind: str, message: str, wali: Wali) -> None:
    """They are named before anything runs."""
    done = wali(building.program("odd", kind))

    assert (done.returncode, done.stdout) == (126, "")
    assert message in done.stderr


def test_library_is_no_program(wali: Wali, runtime: Runtime) -> None:
    """Without _start there is nothing to run, by the command and from Python."""
    library = building.program("library", "LIBRARY", start=False)

    done = wali(library)
    with pytest.raises(ModuleError, match=r"no _start.*: a library, not a program"):
        runtime.run_sync(library)

    assert done.returncode == 126
    assert "a library, not a program; use instantiate and call, with isolation='shared'" in (
        done.stderr
    )


def test_module_from_bytes(free: Runtime) -> None:
    """A program can be given as its bytes."""
    data = building.program("hello").read_bytes()

    result = free.run_sync(data, argv0="mine", args=["a"], capture_output=True)

    assert result.returncode == 0
    assert b"argument 0: mine\nargument 1: a\n" in (result.stdout or b"")


def test_errors_of_the_other_process_arrive(runtime: Runtime, tmp_path: Path) -> None:
    """What the runtime there raises is raised here: its kind, its words, its frames."""
    with pytest.raises(ModuleError, match=r"wali\.launch, which is not a call of WALI"):
        runtime.run_sync(building.program("odd", "STRANGER"))
    with pytest.raises(GuestTrap, match=r"called wali\.longjmp") as trap:
        runtime.run_sync(building.program("odd", "LONGJMP"), capture_output=True)
    with pytest.raises(ModuleError, match=r"environment variable 'A': .* newline"):
        runtime.run_sync(building.program("hello"), env={"A": "\n"})
    with pytest.raises(FileNotFoundError):
        runtime.run_sync(tmp_path / "none.wasm")

    assert trap.value.stdout == b"setjmp: 0\n"
