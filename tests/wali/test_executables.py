"""What programs execute is compiled once, be they confined or in a process of their own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.wali import building
from wali_core import Runtime
from wali_core._engine import Engine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Wali = Callable[..., subprocess.CompletedProcess[str]]

STATUS = 41  # of what is executed


@pytest.fixture
def tool(box: Path) -> Path:
    """Return a program to be executed, in the folder in which its executor runs."""
    made = box / "tools" / "tool.wasm"
    made.parent.mkdir()
    shutil.copy2(building.program("odd", "RESULT"), made)
    return made


def policy(folder: Path, grant: Path) -> Path:
    """Write a policy that lets a program execute what is granted."""
    made = folder / "policy.toml"
    made.write_text(f'version = 1\n[filesystem]\nexec = ["{grant}"]\n')
    return made


def entries(cache: Path) -> dict[str, int]:
    """Return what is in the cache, and as which files: one that is compiled again is a new one."""
    return {path.name: path.stat().st_ino for path in cache.iterdir()}


def loaded(cache: Path, tool: Path) -> bool:
    """Is a program in the cache?"""
    with Runtime(cache=cache) as runtime:
        before = entries(cache)
        runtime.load(tool)
    return entries(cache) == before


def run(runtime: Runtime, tool: Path) -> int:
    """Have a child of a program execute another; its status."""
    attempt = building.program("attempt")
    done = runtime.run_sync(attempt, args=["execute", str(tool)], capture_output=True)
    return int(done.stdout or b"-1") >> 8


def test_what_a_free_program_executes_is_kept(tool: Path, tmp_path: Path) -> None:
    """The process in which it runs finds the cache, and leaves there what it has compiled."""
    cache = tmp_path / "cache"
    with Runtime(allow_all=True, cache=cache) as runtime:
        assert run(runtime, tool) == STATUS
        kept = entries(cache)
        assert run(runtime, tool) == STATUS

    assert len(kept) == 2
    assert entries(cache) == kept


def test_what_is_granted_by_name_is_compiled_before(tool: Path, tmp_path: Path) -> None:
    """It is in the cache before the program is confined, by which it could not be any more."""
    cache = tmp_path / "cache"
    with Runtime(policy=policy(tmp_path, tool), cache=cache) as runtime:
        assert run(runtime, tool) == STATUS
        kept = entries(cache)
        assert run(runtime, tool) == STATUS

    assert len(kept) == 2
    assert entries(cache) == kept


def test_the_command_compiles_before_as_well(
    wali: Wali, tool: Path, tmp_path: Path, cache_folder: Path
) -> None:
    """A confined `wali run` leaves in the cache what it has executed, and finds it there."""
    words = ("--policy", policy(tmp_path, tool), building.program("attempt"), "execute", tool)
    done = wali(*words)
    kept = entries(cache_folder / "wali")
    wali(*words)

    assert (done.returncode, int(done.stdout) >> 8, done.stderr) == (0, STATUS, "")
    assert loaded(cache_folder / "wali", tool)
    assert entries(cache_folder / "wali") == kept


@pytest.mark.parametrize(
    "calls", ['deny = ["getcwd"]', 'allow = ["execve", "fork", "wait4", "write"]']
)
def test_where_it_lies_is_no_call_of_the_programs(
    wali: Wali, tool: Path, tmp_path: Path, calls: str
) -> None:
    """A path from the working directory leads to a Wasm file, also where getcwd is refused."""
    (tool.parent / "link").symlink_to("tool.wasm")
    made = policy(tmp_path, tool.parent)
    cwd = f'cwd = "{tool.parent}"\n[syscalls]\n{calls}\n'
    made.write_text(made.read_text() + cwd)

    words = ("execute", "./tool.wasm", "execute", "link", "getcwd", "")
    done = wali("--policy", made, building.program("attempt"), *words)

    statuses = [int(line) for line in done.stdout.split()]
    assert (statuses, done.stderr) == ([STATUS << 8, STATUS << 8, -1], "")


def test_a_granted_folder_is_looked_through(
    tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its files those are at hand that are in the cache; none is compiled for being there."""
    cache = tmp_path / "cache"
    granted = policy(tmp_path, tool.parent)
    with Runtime(policy=granted, cache=cache) as runtime:
        runtime.executables(compiling=True)
    assert entries(cache) == {}
    with Runtime(cache=cache) as runtime:
        runtime.load(tool)

    with Runtime(policy=granted, cache=cache) as runtime:
        executables = runtime.executables(compiling=False)
        monkeypatch.setattr(Engine, "compile", None)  # nothing else is needed
        module = executables.load(tool.read_bytes(), str(tool))

    assert module.is_program


def test_what_is_not_at_hand_is_compiled_each_time(wali: Wali, tool: Path, tmp_path: Path) -> None:
    """Also by a program that was not, so that nothing for it was imported before the view."""
    words = ("--policy", policy(tmp_path, tool.parent), building.program("attempt"))

    done = [wali(*words, "execute", tool) for _ in range(2)]

    statuses = [(one.returncode, int(one.stdout) >> 8, one.stderr) for one in done]
    assert statuses == [(0, STATUS, "")] * 2


def test_without_a_cache_all_is_compiled(wali: Wali, tool: Path, tmp_path: Path) -> None:
    """A view has nothing that the compiler would have to look up."""
    words = ("--policy", policy(tmp_path, tool.parent), building.program("attempt"))

    done = wali("--no-cache", *words, "execute", tool)

    assert (done.returncode, int(done.stdout) >> 8, done.stderr) == (0, STATUS, "")


def test_native_programs_get_none_of_our_descriptors(wali: Wali, tmp_path: Path) -> None:
    """What `wali` was started with, its streams apart, is not theirs."""
    script, secret = tmp_path / "script", tmp_path / "secret"
    script.write_text(f"#!/bin/sh\nls -l /proc/self/fd > {tmp_path}/found\n")
    script.chmod(0o755)
    with secret.open("w") as file:
        done = wali(
            *("--allow-all", building.program("attempt"), "execute", script),
            pass_fds=[file.fileno()],
        )

    assert (done.returncode, done.stdout.strip()) == (0, "0")
    assert str(secret) not in (tmp_path / "found").read_text()
