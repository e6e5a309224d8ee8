"""Tests of capabilities.lockdown: from a policy to a thread that the kernel confines."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from capabilities import Filesystem, Grant, Lockdown, LockdownError, Network, Policy
from capabilities._calls import variants
from capabilities.lockdown import _NEEDED_FOR, _PASSES, METADATA_WRITERS, landlock, seccomp
from tests.capabilities.confined import needs_landlock, run

if TYPE_CHECKING:
    from pathlib import Path

HARMLESS = frozenset({"read", "write", "exit_group"})

# What is opened, imported or executed is printed, from the moment in which the kernel confines.
SCRIPT = """
import os, sys
from capabilities import Filesystem, Grant, Lockdown, Network, Policy
policy = Policy(
    filesystem=Filesystem(read_only=(Grant(sys.argv[1], sys.argv[1]),)),
    network=Network(connect=(443,)),
)
lockdown = Lockdown.prepare(policy, read_write=["/dev/null"], listen_ports=[8080])
def hook(event, arguments):
    if event in ("open", "import", "exec", "compile", "ctypes.dlopen"):
        os.write(1, f"{event}: {arguments[0]}\\n".encode())
sys.addaudithook(hook)
os.write(1, b"NOW\\n")
lockdown.commit()
lockdown.explain()
try:
    lockdown.commit()
except Exception as error:
    str(error)
lockdown.close()
os.write(1, b"DONE\\n")
"""


def test_importing_is_cheap() -> None:
    """Every guest's start imports this package: nothing that takes time comes with it."""
    code = (
        "import sys; before = set(sys.modules); import capabilities.lockdown\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new))"
    )
    imported = set(run(code).split())

    assert {"capabilities", "ctypes"} <= imported
    assert not imported & {"attr", "cattrs", "enum", "functools", "re", "resource", "typing"}


@needs_landlock
def test_nothing_is_opened_once_confined(tmp_path: Path) -> None:
    """From its first step on, confining opens no file and imports nothing."""
    assert run(SCRIPT, str(tmp_path)) == "NOW\nDONE\n"


@needs_landlock
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_nothing_is_opened_until_the_end(tmp_path: Path) -> None:
    """The kernel sees no file opened either, up to the end of the interpreter."""
    trace = tmp_path / "trace"
    calls = "-e trace=open,openat,openat2,execve,write"

    done = subprocess.run(
        ["strace", "-f", "-o", trace, *calls.split(), sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        check=False,
    )

    if done.returncode:
        pytest.skip(f"strace does not work here: {done.stderr!r}")
    before, marker, after = trace.read_text().partition('write(1, "NOW\\n"')
    assert "openat(" in before
    assert marker
    assert re.findall(r"(?:open\w*|execve)\(.*", after) == []


@needs_landlock
def test_a_policy_confines(tmp_path: Path) -> None:
    """What a policy grants, and what is granted besides, is all that there is to one thread."""
    for name in ("ro", "rw", "more", "most", "bin", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("#!/bin/sh\n")
    code = """
import os, sys, threading
from capabilities import Filesystem, Grant, Lockdown, Policy
top = sys.argv[1]
policy = Policy(
    filesystem=Filesystem(
        read_only=(Grant(f"{top}/ro", "/a"),), read_write=(Grant(f"{top}/rw", "/b", True),)
    )
)
def attempt(name, mode):
    try:
        open(f"{top}/{name}/file", mode).close()
    except PermissionError:
        return "-"
    return mode
def attempts():
    return " ".join(attempt(n, "r") + attempt(n, "a") for n in os.listdir(top))
names = sorted(os.listdir(top))
def guest():
    lockdown.commit()
    for name in names:
        print(name, attempt(name, "r") + attempt(name, "a"))
lockdown = Lockdown.prepare(
    policy, read_only=[f"{top}/more"], read_write=[f"{top}/most"], exec_paths=[f"{top}/bin"]
)
thread = threading.Thread(target=guest)
thread.start()
thread.join()
print(attempts())
"""
    expected = ["bin r-", "more r-", "most ra", "out --", "ro r-", "rw ra", "ra ra ra ra ra ra"]

    assert run(code, str(tmp_path)).splitlines() == expected


@needs_landlock
@pytest.mark.parametrize(
    ("abi", "calls"),
    [
        (3, HARMLESS),
        (4, HARMLESS | {"listen", "bind"}),
        (4, HARMLESS | {"ioctl"}),
        (6, None),
        (6, HARMLESS | {"kill", "connect"}),
    ],
)
def test_what_is_required(
    abi: int, calls: frozenset[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel suffices that confines what the guest can do at all."""
    monkeypatch.setattr(landlock, "abi_version", lambda: abi)
    lockdown = Lockdown.prepare(Policy(), calls=calls)
    lockdown.close()

    assert lockdown.mode == "required"
    assert lockdown.missing == tuple(n for n, since in landlock.FEATURES.items() if since > abi)


@pytest.mark.parametrize(
    ("abi", "calls", "lacking"),
    [
        (0, HARMLESS, "files, truncation"),
        (2, HARMLESS, r"truncation \(version 3\)"),
        (3, HARMLESS | {"listen"}, r"TCP ports \(version 4\)"),
        (3, HARMLESS | {"sendto"}, r"abstract unix sockets \(version 6\)"),
        (5, HARMLESS | {"tkill"}, r"signals \(version 6\)"),
        (5, None, r"abstract unix sockets \(version 6\), signals \(version 6\)"),
    ],
)
def test_what_is_refused(
    abi: int, calls: frozenset[str] | None, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that cannot confine what the guest can do is refused; best-effort takes it."""
    monkeypatch.setattr(landlock, "abi_version", lambda: abi)

    with pytest.raises(LockdownError, match=f"and cannot confine {lacking}: the policy"):
        Lockdown.prepare(Policy(), calls=calls)
    Lockdown.prepare(Policy(lockdown="off"), calls=calls).close()


@needs_landlock
@pytest.mark.parametrize("mode", ["required", "best-effort"])
def test_missing_files_are_refused(mode: str) -> None:
    """A policy that grants what is not there is refused before anything runs."""
    policy = Policy(
        filesystem=Filesystem(read_only=(Grant("/none/a", "/a"),)),
        lockdown=mode,  # type: ignore[arg-type]
    )

    with pytest.raises(LockdownError) as caught:
        Lockdown.prepare(policy, read_write=["/none/b"])

    assert caught.value.reasons == (
        "/none/a cannot be granted: No such file or directory",
        "/none/b cannot be granted: No such file or directory",
    )


def test_off_is_off() -> None:
    """A policy that asks for nothing gets nothing, and is told so."""
    code = """
import ctypes
from capabilities import Lockdown, Policy
lockdown = Lockdown.prepare(Policy(lockdown="off"), read_only=["/none"])
lockdown.commit()
open("/etc/passwd").close()
lockdown.close()
print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), *lockdown.missing[:2])
print(lockdown.explain()[0])
"""

    assert run(code).splitlines() == [
        "0 files truncation",
        'open: the policy says lockdown = "off": the kernel confines nothing',
    ]


FILES = "kernel: files are opened, executed, made, removed, renamed and linked below these alone"
STREAMS = (
    "core: metadata of the files at the standard streams is writable (fchmod, fchown, utimensat): "
    "left to its look at what a call names"
)
PASSES = [
    "open: names and metadata of the host's files are readable (stat, access, readlink, O_PATH)",
    "open: metadata of the host's files is writable (chmod, chown, utimensat, setxattr)",
    STREAMS,
    "open: unix sockets can be connected to by their path",
    (
        "core: MPTCP, TCP fast open, UDP, raw, packet and netlink sockets: left to its closed list "
        "of socket types, options and flags"
    ),
    (
        "core: any port is listened at without a bind: left to its look at whether a port to "
        "listen at is granted"
    ),
    "core: abstract names of unix sockets can be bound: left to its closed list of socket types",
    (
        "core: memory of this process, where a grant reaches /proc (/proc/PID/mem): left to its "
        "look at what was opened"
    ),
    (
        "core: priority, affinity, limits and groups of other processes: left to its look at "
        "whom a call names"
    ),
    "open: descriptors that are open already keep the rights that they were opened with",
]


@needs_landlock
def test_explanation() -> None:
    """Everything is said: what is enforced, by whom, and what is not."""
    policy = Policy(
        filesystem=Filesystem(
            read_only=(Grant("/usr", "/usr"),), read_write=(Grant("/tmp", "/tmp", read_write=True),)
        ),
        network=Network(connect=(443, 80), listen=(8080,)),
    )
    lockdown = Lockdown.prepare(policy, exec_paths=["/usr/bin"], connect_ports=[80, 22])
    lockdown.close()

    assert lockdown.explain() == [
        "kernel: no program that is executed gains privileges (no_new_privs)",
        f"{FILES}: /usr (read), /tmp (read and write), /usr/bin (read and execute)",
        "kernel: TCP connects to these ports alone, at any address: 22, 80, 443",
        "kernel: TCP binds to these ports alone, at any address: 8080",
        "kernel: files are truncated where they can be written alone",
        "kernel: devices opened from now on answer ioctls where writable alone",
        "kernel: no abstract unix socket from outside can be connected to",
        "kernel: no process outside can be sent a signal",
        *PASSES,
    ]


IN_A_VIEW = r"""
from capabilities import Filesystem, Grant, Lockdown, Network, Policy
from capabilities.lockdown import view
from wali_core._filter import Sockets, allowed
calls = {"openat", "chmod", "connect", "socket", "bind", "getpgid"}
found = allowed(calls, Sockets(tcp=True))
grant = Grant("/usr", "/other")
policy = Policy(filesystem=Filesystem(read_only=(grant,)))
view.claim()
inside = view.enter([view.Bind(grant.host, grant.guest)])
lockdown = Lockdown.prepare(policy, calls=calls, inside=inside, rules=found, keep=())
print(*lockdown.explain(), sep="\n")
with_unix = Policy(network=Network(unix=(Grant("/s", "/s"),)))
found = allowed(calls, Sockets(unix=True))
other = Lockdown.prepare(with_unix, calls=calls, inside=inside, rules=found)
print(*(line for line in other.explain() if "abstract names" in line))
lockdown.commit()
print(lockdown.explain()[0])
"""


@needs_landlock
def test_explanation_in_a_view() -> None:
    """The view closes what Landlock has no hook for, and seccomp what is in registers."""
    first, *lines, with_unix_sockets, after = run(IN_A_VIEW).splitlines()
    gone = "what was not granted does not exist for it"
    filtered = next(line for line in lines if "no system call is made but these" in line)
    lines.remove(filtered)

    assert with_unix_sockets == "open: abstract names of unix sockets can be bound"
    assert first == after == f"view: {gone}: it has a root directory of its own"
    assert lines[:2] == [
        "kernel: no program that is executed gains privileges (no_new_privs)",
        f"{FILES}: /other (read)",
    ]
    assert "fchmodat, " in filtered
    assert "mkdirat" not in filtered
    assert lines[-10:] == [
        f"view: {PASSES[0].removeprefix('open: ')}: {gone}",
        f"view: {PASSES[1].removeprefix('open: ')}: {gone}",
        (
            "gate: metadata of the files at the standard streams is writable (fchmod, fchown, "
            "utimensat): no call that does is granted"
        ),
        f"view: {PASSES[3].removeprefix('open: ')}: {gone}",
        (
            "kernel: MPTCP, TCP fast open, UDP, raw, packet and netlink sockets: seccomp; and left "
            "to the core's closed list of socket types, options and flags"
        ),
        "gate: any port is listened at without a bind: no call that does is granted",
        (
            "kernel: abstract names of unix sockets can be bound: seccomp; and left to the core's "
            "closed list of socket types"
        ),
        *PASSES[7:],
    ]


def test_a_kernel_without_filters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seccomp is required, too, where there are rules for it; best-effort goes on without."""
    monkeypatch.setattr(seccomp, "available", lambda: False)
    rules = [seccomp.Rule("read", 0, "to read")]

    with pytest.raises(LockdownError, match=r"this kernel has no seccomp filters, .*best-effort"):
        Lockdown.prepare(Policy(), rules=seccomp.Filter(rules))
    Lockdown.prepare(Policy(lockdown="off"), rules=seccomp.Filter(rules)).close()
    lockdown = Lockdown.prepare(Policy(lockdown="best-effort"), rules=seccomp.Filter(rules))
    lockdown.close()
    assert not [line for line in lockdown.explain() if "(seccomp)" in line]


@needs_landlock
def test_explanation_of_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this kernel cannot confine is said, and what no call can do is nobody's concern."""
    monkeypatch.setattr(landlock, "abi_version", lambda: 3)
    calls = HARMLESS | {"ioctl", "stat", "kill"}
    lockdown = Lockdown.prepare(Policy(lockdown="best-effort"), calls=calls)
    lockdown.close()
    gate = "no call that does is granted"

    assert lockdown.explain() == [
        "kernel: no program that is executed gains privileges (no_new_privs)",
        f"{FILES}: none",
        "kernel: files are truncated where they can be written alone",
        f"gate: this kernel cannot confine TCP ports: {gate}",
        "core: this kernel cannot confine ioctls of devices: left to its closed list of ioctls",
        f"gate: this kernel cannot confine abstract unix sockets: {gate}",
        "open: this kernel cannot confine signals",
        PASSES[0],
        *(f"gate: {passes}: {gate}" for passes, _, _ in _PASSES[1:]),
        PASSES[-1],
    ]


def test_explanation_without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel confines nothing, nothing is claimed."""
    monkeypatch.setattr(landlock, "abi_version", lambda: 0)

    lines = Lockdown.prepare(Policy(lockdown="best-effort")).explain()

    assert [line for line in lines if line.startswith("kernel:")] == [
        "kernel: no program that is executed gains privileges (no_new_privs)"
    ]
    assert "open: this kernel cannot confine files" in lines
    assert "open: this kernel cannot confine truncation" in lines


def test_tables_know_every_variant() -> None:
    """Where a table holds a call that does something, it holds all that do the same."""
    writers = ("chmod", "chown", "utimensat", "setxattr", "removexattr")

    assert frozenset().union(*map(variants, writers)) == METADATA_WRITERS
    assert _NEEDED_FOR["signals"] == variants("kill")
