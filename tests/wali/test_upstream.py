"""Upstream's own programs, where `WALI_UPSTREAM` names the folder of a checkout.

Nothing of it is here: the binaries and scripts are used as they lie there.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.wali.conftest import ROOT

if TYPE_CHECKING:
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
    # In a view of its own what is not granted is not there; without one, Landlock refuses it.
    in_view = (
        "nil\t/etc/passwd: No such file or directory\t2\nnil\tnew: Read-only file system\t30\n"
    )
    refused = "nil\t/etc/passwd: Permission denied\t13\nnil\tnew: Permission denied\t13\n"
    assert done.stdout in (in_view + "nil\n", refused + "nil\n")


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


def test_folders_have_other_names(wali: Wali, tmp_path: Path) -> None:
    """Both run under a policy that renames: what they are told are names of their own."""
    lua, sqlite = precompiled("lua"), precompiled("sqlite")
    (tmp_path / "data").mkdir()
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f"""version = 1
        view = "required"
        [filesystem]
        read_only = ["{lua}::/scripts", "{sqlite}::/music"]
        read_write = ["./data::/data"]
        cwd = "/data"
        """
    )
    write = "create table t(a); insert into t values ('one');"

    script = wali("--policy", policy, lua / "lua.wasm", "/scripts/test.lua")
    queried = wali(
        *("--policy", policy, sqlite / "sqlite3.wasm", "-readonly", "/music/chinook.db"),
        ".read /music/list_albums.sql",
    )
    made = wali("--policy", policy, sqlite / "sqlite3.wasm", "new.db", write)
    read = wali(
        *("--policy", policy, sqlite / "sqlite3.wasm", "-readonly", "/data/new.db"),
        input="select a from t;\n",
    )

    assert "sum(10):\t55" in script.stdout
    assert "Ace Of Spades" in queried.stdout
    assert (made.returncode, read.stdout) == (0, "one\n")
    assert os.listdir(tmp_path / "data") == ["new.db"]


def test_bash_executes_wasm_and_native_programs(wali: Wali, box: Path) -> None:
    """A shell forks, executes Lua in WebAssembly in its child's place, and Linux's own programs."""
    for name in ("bash", "lua"):
        shutil.copy(precompiled(name) / f"{name}.wasm", box)
        (box / f"{name}.wasm").chmod(0o755)
    (box / "script").write_text(
        "echo a b c | /usr/bin/tr a-z A-Z | /bin/cat\n"
        "./lua.wasm -e 'print(6 * 7)'\n"
        "/bin/sh -c 'kill -9 $$' 2>/dev/null\n"
        "echo $?\n"
    )

    done = wali("--allow-all", "bash.wasm", "script")

    assert done.returncode == 0
    assert done.stdout == "A B C\n42\n137\n"


def test_memcached_serves_with_four_threads(box: Path, cache_folder: Path) -> None:
    """Ten thousand values are set and got over eight connections; SIGTERM ends it in order."""
    program = Path(UPSTREAM or "", "examples", "precompiled", "memcached.wasm").resolve()
    if not program.is_file():
        pytest.skip(f"{program} is missing")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["-u", "root", "-t", "4", "-U", "0", "-l", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "wali_core", "run", "--allow-all", str(program), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)},
        cwd=box,
        stderr=subprocess.PIPE,
    )
    try:
        with ThreadPoolExecutor(8) as clients:
            assert sum(clients.map(partial(_set_and_get, port), range(8))) == 10_000
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
        assert server.returncode == 0, errors
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("sshd", ["-V"], "OpenSSH_9.5p1"),
        ("paho-mqtt-app", ["-h"], "Usage: "),
    ],
)
def test_starts_and_says_what_it_is(name: str, words: list[str], said: str, wali: Wali) -> None:
    """As far as they go without keys and without a broker."""
    program = Path(UPSTREAM or "", "examples", "precompiled", f"{name}.wasm").resolve()
    if not program.is_file():
        pytest.skip(f"{program} is missing")

    done = wali("--allow-all", program, *words)

    assert said in done.stdout + done.stderr
    assert done.returncode == 0


def _set_and_get(port: int, client: int) -> int:
    """Use one connection; how many values came back as they were."""
    connection = _connected(port)
    good = 0
    with connection, connection.makefile("rb") as answers:
        for i in range(1250):
            key, value = f"{client}.{i}".encode(), f"value {i} of {client}".encode()
            connection.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
            stored = answers.readline()
            connection.sendall(b"get %s\r\n" % key)
            got = [answers.readline() for _ in range(3)]
            good += (stored, got[1], got[2]) == (b"STORED\r\n", value + b"\r\n", b"END\r\n")
    return good


def _connected(port: int) -> socket.socket:
    """Connect as soon as somebody listens."""
    ends = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            if time.monotonic() > ends:
                raise
            select.select([], [], [], 0.05)
