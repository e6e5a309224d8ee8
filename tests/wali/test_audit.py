"""What is written down of WALI programs, and what becomes of calls that are held back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from capabilities import Event, Policy, read_events
from tests.wali import building
from wali_core import GuestDenied, Runtime

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Wali = Callable[..., subprocess.CompletedProcess[str]]
    Line = tuple[str, str, str, str, str, str]

RO, RW = "filesystem.read_only[0]", "filesystem.read_write[0]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with some things in it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("in")
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("beside")
    return tmp_path


def policy_text(folder: Path, log: str = "all", more: str = "", files: str = "") -> str:
    """Return a policy that grants a tree to read and one to change."""
    return f"""
    version = 1
    view = "off"
    [filesystem]
    read_only = ["{folder}/in"]
    read_write = ["{folder}/out"]
    {files}
    [network]
    connect = ["tcp://*:1"]
    [audit]
    log = "{log}"
    path = "audit.jsonl"
    {more}
    """


@pytest.fixture
def attempt(wali: Wali, folder: Path) -> Callable[..., list[Line]]:
    """Return a function that has a program attempt things: what was written down of it."""

    def run(*words: str | Path, log: str = "all", more: str = "", files: str = "") -> list[Line]:
        (folder / "p.toml").write_text(policy_text(folder, log, more, files))
        done = wali("--policy", folder / "p.toml", building.program("attempt"), *words)
        assert (done.returncode, done.stderr) == (0, "")
        return [short(event) for event in events(folder)]

    return run


def events(folder: Path) -> list[Event]:
    """Return what was written down, but for the start."""
    with (folder / "audit.jsonl").open() as file:
        start, *rest = read_events(file)
    assert start.decision == "started"
    return rest


def short(event: Event) -> Line:
    """Return what matters."""
    return (
        *(event.syscall, event.resource, event.access, event.decision, event.rule),
        event.result,
    )


def test_what_was_granted(attempt: Callable[..., list[Line]], folder: Path) -> None:
    """Each call that names something is written down with the rule that grants it."""
    one, two = folder / "in" / "file", folder / "out" / "new"

    written = attempt("read", one, "create", two, "open to write", two, "unlink", two)

    assert [line for line in written if line[1]] == [
        ("open", str(one), "read", "granted", RO, "0"),
        ("open", str(two), "make", "granted", RW, "0"),
        ("open", str(two), "write", "granted", RW, "0"),
        ("unlink", str(two), "make", "granted", RW, "0"),
    ]


def test_calls_that_name_nothing_are_written_down_once(attempt: Callable[..., list[Line]]) -> None:
    """By which rule they are granted, and no more."""
    written = attempt("pid", "", "pid", "", "protect", "", "clock", "")

    plain = {line[0]: line[1:] for line in written}
    assert len(plain) == len(written)
    assert plain["getpid"] == ("", "", "granted", "always", "0")
    assert plain["mmap"] == ("", "", "granted", "always", "0")
    assert plain["clock_gettime"] == ("", "", "granted", "always", "0")


def test_what_was_refused(attempt: Callable[..., list[Line]], folder: Path) -> None:
    """Refusals of the kernel's and of the gate's, and nothing else."""
    one, secret = folder / "in" / "file", folder / "secret"
    new = folder / "in" / "new"

    written = attempt(
        *("read", one, "read", secret, "open to write", one, "create", new, "fork", ""),
        *("read", folder / "none", "chmod", one, "connect", "80", "datagrams", ""),
        log="denied",
    )

    assert written == [
        ("open", str(secret), "read", "denied", "default", "EACCES"),
        ("open", str(one), "write", "denied", RO, "EACCES"),
        ("open", str(new), "make", "denied", RO, "EACCES"),
        ("fork", "", "", "denied", "default", "EPERM"),
        ("open", str(folder / "none"), "read", "denied", "default", "ENOENT"),
        ("chmod", str(one), "write", "denied", "view", "EPERM"),
        ("connect", "tcp://127.0.0.1:80", "", "denied", "default", "EACCES"),
        ("socket", "udp", "", "denied", "default", "EACCES"),
    ]


def test_sockets_are_written_down_by_kind(attempt: Callable[..., list[Line]]) -> None:
    """The call is granted with any socket; which of them there may be, is said of each."""
    written = attempt("connect", "2", "unix", "", "netlink", "", "multipath", "", "raw packets", "")

    assert [line for line in written if line[0] == "socket"] == [
        ("socket", "tcp", "", "granted", "network.connect", "0"),
        ("socket", "unix", "", "denied", "default", "EACCES"),
        ("socket", "other", "", "denied", "default", "EAFNOSUPPORT"),
        ("socket", "other", "", "denied", "default", "EPROTONOSUPPORT"),
        ("socket", "other", "", "denied", "default", "ESOCKTNOSUPPORT"),
    ]


def test_listening_without_a_port_is_written_down(attempt: Callable[..., list[Line]]) -> None:
    """It takes any port, so that it is granted with the others, or not at all."""
    assert ("listen", "", "", "denied", "default", "EACCES") in attempt("listen unbound", "")


def test_programs_are_written_down_before(attempt: Callable[..., list[Line]], folder: Path) -> None:
    """From an execve that succeeds nothing comes back; one that fails is written down again."""
    tool, secret = folder / "tools" / "tool.wasm", folder / "secret"
    tool.parent.mkdir()
    shutil.copy(building.program("attempt"), tool)
    secret.chmod(0o755)
    programs = f'exec = ["{tool.parent}"]'

    written = attempt("execute", tool, "execute", secret, "execute", "/none", files=programs)

    assert [line for line in written if line[0] == "execve" and line[1]] == [
        ("execve", str(tool), "execute", "granted", "filesystem.exec[0]", ""),
        ("execve", str(secret), "execute", "passed", "default", ""),
        ("execve", str(secret), "execute", "denied", "default", "EACCES"),
        ("execve", "/none", "execute", "passed", "default", ""),
        ("execve", "/none", "execute", "denied", "default", "ENOENT"),
    ]


def test_what_nobody_refuses_is_said(attempt: Callable[..., list[Line]], folder: Path) -> None:
    """Without a view metadata stays readable: the policy does not grant it, and it passed."""
    written = attempt("stat", folder / "secret", log="denied")

    assert written == [("stat", str(folder / "secret"), "look", "passed", "default", "0")]


def test_relative_paths_begin_where_the_program_is(
    attempt: Callable[..., list[Line]], folder: Path
) -> None:
    """The working directory, wherever it goes, and descriptors of directories."""
    written = attempt(
        *("read", "../secret", "chdir", folder / "in", "read", "file"),
        *("open beneath", f"{folder}/out ../secret"),
    )

    assert [line[1] for line in written if line[1]] == [
        *(str(folder / "secret"), str(folder / "in"), str(folder / "in" / "file")),
        *(str(folder / "out"), str(folder / "secret")),
    ]


PROCESSES = '[syscalls]\nallow = ["@default", "@basic-io", "@file-system", "@process"]\n'


def test_children_write_as_well(attempt: Callable[..., list[Line]], folder: Path) -> None:
    """What a program forks is written down with its own number."""
    attempt("fork", "", more=PROCESSES)

    with (folder / "audit.jsonl").open() as file:
        start, *rest = read_events(file)
    assert [event.syscall for event in rest if event.pid != start.pid] == ["fork"]


def test_run_sync_writes_too(cache_folder: Path, folder: Path) -> None:
    """A program in a process that a runtime started."""
    (folder / "p.toml").write_text(policy_text(folder, "denied"))
    with Runtime(policy=folder / "p.toml", cache=cache_folder) as runtime:
        runtime.run_sync(
            building.program("attempt"), args=["read", str(folder / "secret")], capture_output=True
        )

    (event,) = events(folder)
    assert short(event)[:2] == ("open", str(folder / "secret"))
    assert event.pid != os.getpid()


def test_unix_sockets_and_others(wali: Wali, folder: Path) -> None:
    """Addresses are written as a policy would have them, and those that none can grant as well."""
    (folder / "p.toml").write_text(policy_text(folder, "all"))
    with socket.create_server(("127.0.0.1", 0)):
        done = wali("--policy", folder / "p.toml", building.program("attempt"), "listen", "0")

    assert done.returncode == 0
    lines = [short(event) for event in events(folder) if event.resource]
    assert lines == [
        ("socket", "tcp", "", "granted", "network.connect", "0"),
        ("bind", "tcp://127.0.0.1:0", "", "denied", "default", "EACCES"),
    ]


# --- calls that are held back ---------------------------------------------------------------------

KILL = '[syscalls]\non_deny = "kill"\n'


def test_calls_can_go_through_and_be_said(attempt: Callable[..., list[Line]], folder: Path) -> None:
    """With `on_deny = "log"` no call is held back; files are refused all the same."""
    one = folder / "in" / "file"
    more = '[syscalls]\nallow = ["@basic-io", "openat"]\non_deny = "log"\n'

    written = attempt(
        "fork", "", "read", one, "create", folder / "in" / "x", log="denied", more=more
    )

    assert ("fork", "", "", "logged", "syscalls.allow", "0") in written
    assert ("open", str(one), "read", "logged", "syscalls.allow", "0") in written
    assert written[-1] == (
        "open",
        str(folder / "in" / "x"),
        "make",
        "denied",
        "filesystem.read_only[0]",
        "EACCES",
    )


def test_sockets_of_no_granted_kind_are_not_let_through(
    attempt: Callable[..., list[Line]],
) -> None:
    """`on_deny = "log"` lets a call through; what it makes and names is refused all the same."""
    more = '[syscalls]\nallow = ["@basic-io"]\non_deny = "log"\n'

    written = attempt("unix", "", "connect", "80", log="denied", more=more)

    assert [line for line in written if line[0] in ("socket", "connect")] == [
        ("socket", "unix", "", "denied", "default", "EACCES"),
        ("socket", "tcp", "", "logged", "syscalls.allow", "0"),
        ("connect", "tcp://127.0.0.1:80", "", "denied", "default", "EACCES"),
    ]


@pytest.mark.parametrize("log", ["none", "denied"])
def test_calls_can_end_the_program(wali: Wali, folder: Path, log: str) -> None:
    """With `on_deny = "kill"` a call that is not granted is the last, as by seccomp."""
    (folder / "p.toml").write_text(policy_text(folder, log, KILL))

    done = wali(
        *("--policy", folder / "p.toml", building.program("attempt")),
        *("read", folder / "in" / "file", "fork", "", "pid", ""),
    )

    assert (done.returncode, done.stdout) == (128 + signal.SIGSYS, "1\n")
    assert done.stderr == "wali: the guest made a call that its policy does not grant: fork\n"
    if log == "denied":
        assert [short(event) for event in events(folder)] == [
            ("fork", "", "", "denied", "default", "EPERM")
        ]


def test_calls_can_end_the_program_from_python(cache_folder: Path) -> None:
    """It is an error that names the call."""
    policy = Policy.from_dict({"version": 1, "syscalls": {"on_deny": "kill"}}, "/")
    with (
        Runtime(policy=policy, cache=cache_folder) as runtime,
        pytest.raises(GuestDenied, match="does not grant: fork") as caught,
    ):
        runtime.run_sync(
            building.program("attempt"), args=["pid", "", "fork", ""], capture_output=True
        )

    assert (caught.value.call, caught.value.stdout) == ("fork", b"1\n")


def test_in_a_view(wali: Wali, folder: Path) -> None:
    """What it takes is there before nothing of the host's is."""
    policy = folder / "in-a-view.toml"
    policy.write_text(policy_text(folder).replace('view = "off"', ""))

    done = wali("--policy", policy, building.program("attempt"), "read", folder / "in" / "file")

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert '"rule": "filesystem.read_only[0]"' in (folder / "audit.jsonl").read_text()


def test_what_never_starts_is_not_written_down(wali: Wali, folder: Path) -> None:
    """A program that is refused before anything of it runs has not started."""
    (folder / "p.toml").write_text(policy_text(folder) + '[limits]\nmemory = "64K"\n')

    done = wali("--policy", folder / "p.toml", building.program("attempt"), "pid", "")

    assert done.returncode == 128 + signal.SIGKILL
    assert (folder / "audit.jsonl").read_text() == ""


def test_what_the_caller_grants(wali: Wali, folder: Path, box: Path) -> None:
    """Its working directory is where the program finds it, and grants nothing else."""
    (folder / "p.toml").write_text(policy_text(folder))
    (box / "file").write_text("in")

    done = wali(
        *("--dir", ".", "--policy", folder / "p.toml", building.program("attempt")),
        *("read", box / "file", "read", folder / "secret"),
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in map(short, events(folder)) if line[1]] == [
        ("open", str(box / "file"), "read", "granted", "caller", "0"),
        ("open", str(folder / "secret"), "read", "denied", "default", "EACCES"),
    ]
