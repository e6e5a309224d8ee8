"""The least policy for a run of a WALI program: under it, the program does and prints the same."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from capabilities import Policy
from tests.wali import building
from wali_core.programs._audit_program import names_others

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Completed = subprocess.CompletedProcess[str]
    Learned = tuple[Policy, list[str]]


@pytest.fixture
def place(box: Path) -> Path:
    """Return the folder that the program starts in, with some things in it and beside it."""
    (box / "in").mkdir()
    (box / "in" / "file").write_text("in")
    (box / "out").mkdir()
    (box / "link").symlink_to("in/file")
    (box.parent / "secret").write_text("beside")
    return box


@pytest.fixture
def learned(command: Callable[..., Completed], place: Path) -> Callable[..., Learned]:
    """Return a function that learns from a run, and runs again under what was learned."""

    def learn(*words: str, name: str = "attempt") -> Learned:
        program, new = building.program(name), place.parent / "new.toml"
        first = command("policy", "learn", "--out", new, program, *words)
        assert first.returncode == 0
        state = sorted(place.rglob("*"))

        again = command("run", "--policy", new, program, *words)

        assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
        assert sorted(place.rglob("*")) == state
        return Policy.load(new), first.stderr.splitlines()[:-1]

    return learn


def trees(policy: Policy) -> list[tuple[str, str]]:
    """Return which files are granted, in short."""
    return [
        ("change" if grant.read_write else "read", grant.host)
        for grant in policy.filesystem.readable
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["read", "{}/in/file"], [("read", "{}/in/file")]),
        (["read", "{}/in/file", "stat", "{}"], [("read", "{}/in/file")]),
        (["read", "{}/link"], [("read", "{}/link")]),
        (["readlink", "{}/link"], [("read", "{}")]),
        (["is link", "{}/link"], [("read", "{}")]),
        (["is link", "{}/in/file"], [("read", "{}/in/file")]),
        (["readlink", "{}/link", "read", "{}/link"], [("read", "{}")]),
        (["open to write", "{}/in/file"], [("change", "{}/in/file")]),
        (["create", "{}/out/new", "unlink", "{}/out/new"], [("change", "{}/out")]),
        (["mkdir", "{}/out", "mkdir", "{}"], [("read", "{}/out")]),
        (
            ["rename", "{0}/in/file {0}/in/x", "rename", "{0}/in/x {0}/in/file"],
            [("change", "{}/in")],
        ),
        (["read", "{}/none", "stat", "/nowhere"], []),
        (["chmod", "{}/in/file"], [("change", "{}/in/file")]),
        (["pid", "", "fork", "", "random", ""], []),
    ],
)
def test_files(
    words: list[str],
    expected: list[tuple[str, str]],
    learned: Callable[..., Learned],
    place: Path,
) -> None:
    """Files by themselves where nothing is made, folders where names are."""
    policy, remarks = learned(*(word.format(place) for word in words))

    assert trees(policy) == [(kind, path.format(place)) for kind, path in expected]
    assert policy.filesystem.cwd is None
    assert not remarks


def test_calls(learned: Callable[..., Learned]) -> None:
    """Exactly those that were made, but for what no policy withholds."""
    policy, _ = learned("fork", "", "pid", "", "random", "", "umask", "")

    assert {"fork", "wait4", "umask"} <= set(policy.syscalls.allow or ())
    assert not {"exit_group", "open", "mkdir"} & set(policy.syscalls.allow or ())


def test_where_it_starts(learned: Callable[..., Learned], place: Path) -> None:
    """Who names files from the working directory has to have one: here, one that leads there."""
    policy, _ = learned("read", "in/file")

    assert policy.filesystem.cwd == str(place)
    assert trees(policy) == [("read", str(place / "in" / "file"))]


@pytest.fixture
def listening() -> Iterator[int]:
    """Return a port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_ports(learned: Callable[..., Learned], listening: int) -> None:
    """Ports that were connected to, whoever answered, and such that were listened at."""
    with socket.socket() as free, socket.socket() as nobodys:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 0))
        nobodys.bind(("127.0.0.1", 0))
        ports = free.getsockname()[1], nobodys.getsockname()[1]
        policy, _ = learned(
            *("connect", str(listening), "connect", str(ports[1]), "listen", str(ports[0]))
        )

    assert policy.network.connect == tuple(sorted((listening, ports[1])))
    assert policy.network.listen == (ports[0],)


@pytest.mark.skipif(not building.HAS_NATIVE, reason="no native programs are made here")
def test_programs_of_linux(learned: Callable[..., Learned]) -> None:
    """They are granted, with nothing that they do not ask for."""
    native = str(building.native("explore"))

    policy, remarks = learned("execute", native)

    assert [grant.host for grant in policy.filesystem.exec] == [native]
    assert policy.filesystem.grants == ()
    assert remarks == []


@pytest.mark.skipif(not building.HAS_NATIVE, reason="no native programs are made here")
def test_interpreters_with_relative_names(learned: Callable[..., Learned], place: Path) -> None:
    """The kernel finds them from the working directory, and so does who writes it down."""
    shutil.copy(building.native("explore"), place / "in" / "tool")
    script = place / "script"
    script.write_text("#!in/tool\n")
    script.chmod(0o755)

    policy, _ = learned("execute", str(script))

    assert {grant.host for grant in policy.filesystem.exec} == {
        str(script),
        str(place / "in" / "tool"),
    }


@pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="there is no shell here")
def test_what_programs_of_linux_ask_for(learned: Callable[..., Learned], place: Path) -> None:
    """A script: its shell with its loader and its libraries, and what they start and touch."""
    script = place / "script"
    script.write_text(
        "#!/bin/sh\ncat < in/file\ncat link none 2>/dev/null\n"
        "mkdir out/new && echo it > out/new/x\ncat out/new/x; rm -r out/new\n"
        "(cd in; ls; ls -l file | cut -c1-3)\n"
        "test -r ../secret || echo no\n"
        "kill -0 $$ && sleep 0 & wait\n"
    )
    script.chmod(0o755)

    policy, _ = learned("execute", str(script))

    executed = {grant.host for grant in policy.filesystem.exec}
    assert {"/bin/sh", str(script)} < executed
    assert any(os.path.basename(path) == "cat" for path in executed)
    assert trees(policy)[0][0] == "read"
    changed = [path for kind, path in trees(policy) if kind == "change"]
    assert changed == ["/dev/null", str(place / "out")]
    assert not any(path in ("/", "/usr", "/usr/bin", "/etc") for _, path in trees(policy))
    assert {"execve", "fork"} <= set(policy.syscalls.allow or ())


def test_links_that_lead_elsewhere(learned: Callable[..., Learned], place: Path) -> None:
    """Where one is seen as a link, what it leads to is granted by its own name."""
    link, beside = place / "in" / "link", place.parent / "secret"
    link.symlink_to(beside)

    policy, _ = learned("readlink", str(link), "read", str(link))

    assert trees(policy) == [("read", str(place / "in")), ("read", str(beside))]


def test_webassembly_that_is_executed(learned: Callable[..., Learned], place: Path) -> None:
    """By a path from the working directory, and by a script: nothing remains to be said of it."""
    tool, script = place / "tool.wasm", place / "script"
    shutil.copy2(building.program("attempt"), tool)
    script.write_text(f"#!{tool}\n")
    script.chmod(0o755)

    policy, remarks = learned("execute", "./tool.wasm", "execute", "script")

    assert [grant.host for grant in policy.filesystem.exec] == [str(script), str(tool)]
    assert remarks == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["unix", "-"], ["unix sockets are granted only with a path in network.unix"]),
        (["datagrams", "-"], ["no policy grants a socket of UDP"]),
        (
            ["listen unbound", "-"],
            [
                "sockets of TCP are granted only with a port in network.connect or network.listen",
                "listen is granted only with a port in network.listen",
            ],
        ),
        (["kill parent", "-"], ["no policy grants kill of another process"]),
        (["is link", "/proc/self"], ["lstat finds the link /proc/self only where /proc is"]),
        (["group of parent", "-"], ["no policy grants getpgid of another process"]),
        (["processors of parent", "-"], ["no policy grants sched_getaffinity of another process"]),
        (["read", "/proc/self/exe"], ["no policy grants open of /proc/self/exe"]),
        (["readlink", "/proc/self"], ["readlink finds the link /proc/self only where /proc is"]),
        (
            ["chmod", "file", "read", "/proc/self/status"],
            ["no policy grants chmod together with anything in /proc"],
        ),
        (["execute", "/proc/self/exe"], ["no policy grants execve of /proc/self/exe"]),
    ],
)
def test_what_no_policy_grants_is_said(
    words: list[str], said: list[str], command: Callable[..., Completed], place: Path
) -> None:
    """Under what was learned it is refused: exactly that is in the remarks, and in the file."""
    program, new = building.program("attempt"), place.parent / "new.toml"
    (place / "file").write_text("")
    first = command("policy", "learn", "--out", new, program, *words)

    again = command("run", "--policy", new, program, *words)

    remarks = [line.removeprefix("wali: ") for line in first.stderr.splitlines()[:-1]]
    assert all(any(line.startswith(one) for line in remarks) for one in said)
    assert all(f"# {line}" in new.read_text().splitlines() for line in remarks)
    assert again.returncode == 0
    assert again.stdout != first.stdout


@pytest.fixture
def group() -> Iterator[int]:
    """Return a process group of which nobody here is one of ours, with one process in it."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0) as process:
        yield process.pid
        process.kill()


def test_signals_to_groups_are_to_others_or_not(group: int) -> None:
    """To one of whose processes none is the program's, and which is there."""
    own, other = os.getpid(), os.getppid()

    assert names_others(group, other) is False  # that is a descendant's
    assert names_others(-group, other) is False
    assert names_others(-group, group) is False
    assert names_others(other, own)
    assert names_others(-group, 1 << 21) is True
    assert not names_others(-(1 << 21), own)
    assert not names_others(0, own)
    assert not names_others(-1, own)


def test_own_processes_are_nothing_to_remark_on(learned: Callable[..., Learned]) -> None:
    """What is asked of the program itself, and of its children, is granted."""
    _, remarks = learned("own group", "", "fork", "", "kill", "0")

    assert remarks == []


def test_what_is_not_executed_after_all(learned: Callable[..., Learned], place: Path) -> None:
    """A program that is not there leaves no trace; one that is none is there all the same."""
    (place / "none").write_text("no program")
    (place / "none").chmod(0o755)

    policy, _ = learned("execute", str(place / "none"), "execute", str(place / "in" / "no"))

    assert [grant.host for grant in policy.filesystem.exec] == [str(place / "none")]


def test_what_else_happens_is_not_granted(
    command: Callable[..., Completed], learned: Callable[..., Learned], place: Path
) -> None:
    """Another file, another call: refused under the policy that was learned."""
    file = place / "in" / "file"
    learned("read", str(file))

    done = command(
        *("run", "--policy", place.parent / "new.toml", building.program("attempt")),
        *("read", file, "read", place.parent / "secret", "open to write", file, "fork", ""),
    )

    first, *rest = done.stdout.split()
    assert int(first) > 0
    assert all(int(answer) < 0 for answer in rest)
    assert len(rest) == 3
