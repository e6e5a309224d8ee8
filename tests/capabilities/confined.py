"""What tests of confinement share: attempts made in a process that has confined itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from capabilities.lockdown import landlock

if TYPE_CHECKING:
    from collections.abc import Mapping

needs_landlock = pytest.mark.skipif(
    landlock.abi_version() < landlock.FEATURES["signals"],
    reason="this kernel's Landlock is missing or too old: CONFINEMENT IS NOT TESTED HERE",
)

_SCRIPT = """
import ctypes, errno, json, os, signal, socket, stat, subprocess, sys, threading
from capabilities.lockdown import landlock

given = json.loads(sys.argv[1])
names = given["names"]

def attempt(code):
    try:
        value = eval(code, globals(), names)
    except OSError as error:
        return errno.errorcode[error.errno]
    return value if isinstance(value, str) else "ok"

def forked(code):  # what a child makes of it
    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, attempt(code).encode())
        os._exit(0)
    os.wait()
    return os.read(reader, 64).decode()

def threaded(code):  # what a thread that starts now makes of it
    results = []
    thread = threading.Thread(target=lambda: results.append(attempt(code)))
    thread.start()
    thread.join()
    return results[0]

def tcp(act, port):
    with socket.socket() as end:
        getattr(end, act)(("127.0.0.1", port))

def unix(act, path, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as end:
        getattr(end, act)(path)

def no_new_privs():
    return str(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))

exec(given["setup"], globals(), names)
if given["abi"] is not None:
    landlock.abi_version = lambda: given["abi"]
if given["grants"] is not None:
    landlock.restrict(**given["grants"])
print(json.dumps([attempt(code) for code in given["attempts"]]))
"""


def attempt(
    attempts: Mapping[str, str],
    *,
    names: Mapping[str, object] | None = None,
    setup: str = "",
    abi: int | None = None,
    confine: bool = True,
    **grants: Any,
) -> dict[str, str]:
    """Say what becomes of some attempts in a process that has confined itself.

    Args:
        attempts: expressions, each with what is expected of it; the latter is not looked at.
        names: what names in the expressions stand for.
        setup: statements to run before.
        abi: the version of Landlock to act as if the kernel had it.
        confine: whether to confine the process at all.
        grants: arguments of `landlock.restrict`; nothing is granted by default, and all required.

    Returns:
        Every attempt's result: the name of an error, a text that it made, or "ok".
    """
    nothing: dict[str, object] = {
        "read_only": [],
        "read_write": [],
        "connect_ports": [],
        "listen_ports": [],
    }
    given = {
        "attempts": list(attempts),
        "names": {name: _plain(value) for name, value in (names or {}).items()},
        "setup": setup,
        "abi": abi,
        "grants": {**nothing, "mode": "required", **grants} if confine else None,
    }
    done = run(_SCRIPT, json.dumps(given, default=str))
    return dict(zip(attempts, json.loads(done), strict=True))


def run(script: str, *arguments: str) -> str:
    """Run a script in an interpreter of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _plain(value: object) -> object:
    return value if isinstance(value, (int, str)) else str(value)
