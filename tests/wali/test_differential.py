"""The same source, built for this machine and as a WALI program, prints the same.

The kernel says what is right, and a guest has hundreds of lines to compare.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import ordinary
from tests.wali import building
from wali_core._table import CALLS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not building.HAS_NATIVE, reason="the guests are native programs on x86-64 only"
)


NAMES = (
    *("atomics", "changing", "closing", "corners", "edges", "exec", "executing", "faults"),
    *("files", "further", "handover", "links", "locks", "memory", "messages", "owners", "pointers"),
    *("processes", "rare", "replacing", "restarts", "signals", "sockets", "stack", "system"),
    *("terminals", "threads", "timeouts", "waiting"),
)
FAMILIES = {
    "@basic-io": ("further", "files", "processes", "rare"),
    "@chown": ("owners", "rare"),
    "@default": (
        "further",
        "memory",
        "owners",
        "processes",
        "system",
        "threads",
        "waiting",
        "rare",
    ),
    "@file-system": ("files", "links", "locks", "owners", "rare"),
    "@io-event": ("waiting", "owners", "rare"),
    "@ipc": ("processes",),
    "@mount": ("owners",),
    "@network-io": ("sockets", "messages"),
    "@process": (
        "further",
        "processes",
        "exec",
        "executing",
        "replacing",
        "signals",
        "owners",
        "rare",
    ),
    "@resources": ("further", "system", "rare"),
    "@setuid": ("owners",),
    "@signal": ("further", "signals", "changing", "rare"),
    "@sync": ("files",),
    "@timer": ("further", "signals", "owners"),
}
"""Which programs make the calls of which family."""
NOT_MADE = {
    "rt_sigreturn": "handlers return as functions do: it is none of a program's calls",
}
CONFINED = (
    *("atomics", "exec", "executing", "faults", "files", "further", "handover", "locks", "memory"),
    "messages pairs",
    "pointers",
    *("processes", "replacing", "signals", "terminals", "threads", "waiting"),
)
"""Those that can do all that they do under a policy; after some their arguments."""
NEED_PROC = ("exec", "executing", "signals")
"""Which is not granted to the others: with it, calls that change metadata are refused."""


@pytest.mark.parametrize("family", sorted({call.group for call in CALLS}))
def test_every_call_of_a_family_is_made(family: str) -> None:
    """Each call is made by one of the programs that are there for its family."""
    files = ("wali.h", *(f"{name}.c" for name in FAMILIES[family]))
    text = "".join((building.GUESTS / file).read_text() for file in files)
    text = re.sub(r"^CALL\(.*$", "", text, flags=re.MULTILINE)
    words = set(re.findall(r"\w+", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)))
    made = words | {word.removeprefix("SYS_") for word in words}

    names = {call.name for call in CALLS if call.group == family}

    assert names - made - set(NOT_MADE) == set()


@pytest.mark.parametrize("name", NAMES)
def test_prints_what_the_native_program_prints(
    name: str, wali: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Every result, errno, size and byte is the kernel's."""
    expected = natively(name, tmp_path)
    actual = wali("--allow-all", building.program(name))

    same(expected, actual)


@pytest.mark.parametrize("words", CONFINED)
def test_prints_the_same_under_a_policy(
    words: str, wali: Callable[..., subprocess.CompletedProcess[str]], box: Path, tmp_path: Path
) -> None:
    """Gate, view, Landlock and seccomp take nothing from what a policy grants."""
    name, *arguments = words.split()
    program = building.program(name)
    policy = tmp_path / "policy.toml"
    programs = [str(program.parent), str(box), "/bin", "/usr/bin", "/usr/lib", "/lib", "/lib64"]
    groups = "default basic-io file-system io-event ipc network-io process signal timer sync"
    policy.write_text(
        f"""version = 1
        view = "required"
        lockdown = "required"
        [filesystem]
        read_only = {["/proc"] if name in NEED_PROC else []}
        read_write = ["{box}"]
        exec = {[path for path in programs if os.path.isdir(path)]}
        devices = ["null", "ptmx", "tty"]
        cwd = "{box}"
        [syscalls]
        allow = {["@" + group for group in (groups + " resources setuid chown").split()]}
        """
    )

    expected = natively(name, tmp_path, *arguments)
    actual = wali("--policy", policy, program, *arguments)

    same(expected, actual)


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody but root can be somebody else")
@pytest.mark.parametrize("name", ["files", "links", "owners", "processes", "system"])
def test_it_is_the_same_for_an_ordinary_user(name: str, open_folder: Path) -> None:
    """So it is for who may do less."""
    places = [open_folder / "here", open_folder / "there"]
    for place in places:
        place.mkdir()
    ordinary.give(open_folder)
    native, program = open_folder / name, open_folder / f"{name}.wasm"
    shutil.copy(building.native(name), native)
    shutil.copy(building.program(name), program)
    wali = [sys.executable, "-m", "wali_core", "run", "--allow-all", str(program)]

    expected = ordinary.run([native], open_folder, cwd=places[0])
    actual = ordinary.run(wali, open_folder, cwd=places[1])

    same(expected, actual)


def natively(name: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program of this machine's, in a folder of its own."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return subprocess.run(
        [building.native(name), *arguments],
        cwd=elsewhere,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def same(
    expected: subprocess.CompletedProcess[str], actual: subprocess.CompletedProcess[str]
) -> None:
    """Compare what two programs have printed, and how they have ended."""
    assert actual.stderr == ""
    assert actual.stdout.splitlines() == expected.stdout.splitlines()
    assert actual.returncode == expected.returncode == 0
