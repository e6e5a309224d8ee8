"""Capabilities are given up for good, and nothing that is executed brings them back."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from capabilities.lockdown import privileges
from tests.capabilities.confined import run

if TYPE_CHECKING:
    from pathlib import Path

# What the kernel says of this process, and of one that it executes.
SAYS = """
import os, subprocess, sys
from capabilities.lockdown import privileges
def sets():
    with open("/proc/self/status") as file:
        words = dict(line.split()[:2] for line in file if line.startswith(("Cap", "NoNew")))
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    return [int(words[name + ":"], 16) for name in names], words["NoNewPrivs:"]
def executed():
    return subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True).stdout
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="there are no capabilities to give up")


def test_they_are_known() -> None:
    """A capability is held or not, as the kernel says in its own words."""
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))

    for capability in (privileges.CHOWN, privileges.SYS_ADMIN, 40):
        assert privileges.holds(capability) == bool(effective >> capability & 1)


@needs_root
def test_all_are_given_up() -> None:
    """In every set; what is executed afterwards by the same user has none either."""
    code = f"{SAYS}\nprivileges.drop(); privileges.no_new_privileges()\nprint(sets(), executed())"

    assert run(code) == "([0, 0, 0, 0, 0], '1') b'CapEff:\\t0000000000000000\\n'\n"


@needs_root
def test_some_are_kept() -> None:
    """Those that are named, and no more."""
    kept = 1 << privileges.CHOWN | 1 << privileges.NET_BIND_SERVICE
    code = (
        f"{SAYS}\nprivileges.drop((privileges.CHOWN, privileges.NET_BIND_SERVICE))\nprint(sets())"
    )

    assert run(code) == f"([0, {kept}, {kept}, {kept}, 0], '0')\n"


@needs_root
def test_some_can_be_given_up_for_all_that_are_forked() -> None:
    """Once for all of them, who give up the rest."""
    code = f"""{SAYS}
privileges.bound((privileges.CHOWN,))
for kept in (privileges.CHOWN, privileges.SETUID), ():
    if os.fork() == 0:
        privileges.drop(kept)
        print(sets()[0], flush=True)
        os._exit(0)
    os.wait()
"""
    kept = 1 << privileges.CHOWN

    # SETUID can be had still; programs that are executed cannot.
    assert run(code).splitlines() == [
        str([0, kept | 1 << privileges.SETUID, kept | 1 << privileges.SETUID, kept, 0]),
        str([0] * 5),
    ]


@needs_root
def test_each_thread_gives_up_its_own() -> None:
    """What one has given up, another has still, until it does so itself."""
    code = f"""{SAYS}
import threading
def in_a_thread():
    go.wait()
    privileges.drop()
    with open("/proc/thread-self/status") as file:
        print(*(line.split()[1] for line in file if line.startswith("CapBnd")))
go = threading.Event()
thread = threading.Thread(target=in_a_thread)
thread.start()
privileges.drop()
go.set()
thread.join()
"""
    assert run(code) == f"{0:016}\n"


@needs_root
def test_what_is_not_there_cannot_be_kept() -> None:
    """To keep a capability is not to gain it."""
    code = f"{SAYS}\nprivileges.drop()\nprivileges.drop((0, 1))\nprint(sets()[0][2])"

    assert run(code) == "0\n"


@needs_root
def test_set_uid_programs_gain_nothing(tmp_path: Path) -> None:
    """Their bit is ignored, whoever owns them."""
    program = tmp_path / "id"
    shutil.copy(shutil.which("id") or "", program)
    os.chown(program, 65534, 65534)
    program.chmod(0o6755)
    code = f"""{SAYS}
print(subprocess.run([sys.argv[1], "-u"], capture_output=True).stdout)
privileges.no_new_privileges()
print(subprocess.run([sys.argv[1], "-u"], capture_output=True).stdout)
"""
    assert run(code, str(program)) == "b'65534\\n'\nb'0\\n'\n"
