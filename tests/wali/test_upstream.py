"""Upstream's own programs, where `WALI_UPSTREAM` names the folder of a checkout.

Nothing of it is here: the binaries and scripts are used as they lie there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Wali = Callable[..., subprocess.CompletedProcess[str]]

UPSTREAM = os.environ.get("WALI_UPSTREAM")

pytestmark = [
    pytest.mark.suite,
    pytest.mark.skipif(not UPSTREAM, reason="WALI_UPSTREAM names no checkout of WALI"),
]


def precompiled(name: str) -> Path:
    """Return one of the folders with a program that upstream has compiled."""
    folder = Path(UPSTREAM or "", "examples", "precompiled", name).resolve()
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


def test_lua_runs_a_script(wali: Wali) -> None:
    """Lua reads a script from the one folder that it is granted."""
    folder = precompiled("lua")

    done = wali("--dir", ".", "lua.wasm", "test.lua", cwd=folder)

    assert (done.returncode, done.stderr) == (0, "")
    assert "sum(10):\t55" in done.stdout
    assert "fact(5):\t120" in done.stdout


def test_lua_is_confined(wali: Wali, tmp_path: Path) -> None:
    """It reads nothing beside that folder, and writes nothing in it."""
    folder = precompiled("lua")
    (tmp_path / "box" / "attempt.lua").write_text(
        'print(io.open("/etc/passwd")); print(io.open("new", "w")); print(os.getenv("HOME"))'
    )

    done = wali("--dir", ".", folder / "lua.wasm", "attempt.lua")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "nil\t/etc/passwd: Permission denied\t13\nnil\tnew: Permission denied\t13\nnil\n"
    )


def test_sqlite_answers_queries(wali: Wali) -> None:
    """SQLite reads a database."""
    folder = precompiled("sqlite")

    done = wali("--dir", ".", "sqlite3.wasm", "chinook.db", ".read list_albums.sql", cwd=folder)

    assert done.returncode == 0
    assert "Ace Of Spades" in done.stdout


def test_sqlite_writes_a_database(wali: Wali) -> None:
    """It makes one as well, with locks and a journal, and finds in it what it wrote.

    Its input ends with a command that flushes: what stdio holds when `main` returns is lost with
    upstream's start-up code, unless standard output is a terminal.
    """
    program = precompiled("sqlite") / "sqlite3.wasm"
    write = "create table t(a, b); insert into t values (1, 'one'), (2, 'two');"

    made = wali("--dir", ".:rw", program, "new.db", write)
    read = wali(
        *("--dir", ".", program, "-readonly", "new.db"),
        input="select b from t order by a desc;\n",
    )

    assert (made.returncode, made.stdout) == (0, "")
    assert (read.returncode, read.stdout) == (0, "two\none\n")
