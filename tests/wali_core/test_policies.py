"""Tests of wali_core._policies: `wali policy check`, `show`, `explain` and `learn`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from capabilities import Policy
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Result = subprocess.CompletedProcess[str]
    Wali = Callable[..., Result]

POLICY = """
version = 1
name = "trial"

[filesystem]
read_only = ["in::/in"]
read_write = ["out::/out"]
inaccessible = ["secret"]

[environment]
set = { MODE = "batch" }

[network]
connect = ["tcp://*:443"]

[syscalls]
deny = ["@process"]

[limits]
wall_time = "10s"
memory = "64M"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder that the command runs in, with a policy and what that grants."""
    for name in ("in", "out", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "file").write_text("in")
    (tmp_path / "p.toml").write_text(POLICY)
    return tmp_path


# --- check ----------------------------------------------------------------------------------------


def test_right_policies(wali: Wali, folder: Path) -> None:
    """Each policy that is right is said to be, files and shipped ones."""
    done = wali("policy", "check", "p.toml", "server", folder / "p.toml")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"p.toml: right\nserver: right\n{folder}/p.toml: right\n"


def test_what_log_does_not_let_through_is_said(wali: Wali, folder: Path) -> None:
    """`on_deny = "log"` is about calls: what they name is refused all the same."""
    (folder / "log.toml").write_text(
        'version = 1\n[audit]\nlog = "all"\npath = "a.jsonl"\n[syscalls]\non_deny = "log"\n'
    )

    done = wali("policy", "check", "log.toml")

    assert (done.returncode, done.stdout) == (0, "log.toml: right\n")
    assert done.stderr == (
        'wali: log.toml: syscalls.on_deny: "log" lets calls through, and not what they name: '
        "files, ports and kinds of sockets that are not granted are refused all the same\n"
    )


@pytest.mark.usefixtures("folder")
def test_kinds_of_sockets_are_explained(wali: Wali) -> None:
    """The call says which kinds are granted, and each kind is decided on."""
    call, tcp, unix = (
        wali("policy", "explain", "p.toml", f"socket{k}") for k in ("", " tcp", " unix")
    )

    assert call.stdout == (
        "granted by network: '@network-io' goes with sockets that are granted: tcp\n"
    )
    assert (tcp.returncode, tcp.stdout) == (0, "granted by network.connect: it grants tcp\n")
    assert unix.returncode == 1
    assert unix.stdout == "refused by default: [network] grants no socket of kind unix\n"


def test_wrong_policies(wali: Wali, folder: Path) -> None:
    """All mistakes of all files are said, those in the names of calls, too."""
    (folder / "wrong.toml").write_text('version = 1\nnaem = "x"\n[limits]\nmemory = "1 elephant"\n')
    (folder / "calls.toml").write_text(
        'version = 1\nlockdown = "on"\nextends = ["p.tml"]\n[syscalls]\ndeny = ["opneat"]\n'
    )

    done = wali("policy", "check", "wrong.toml", "p.toml", "calls.toml", "no.toml", "strict")

    assert (done.returncode, done.stdout) == (1, "p.toml: right\n")
    assert done.stderr == (
        "wali: wrong.toml: limits.memory: '1 elephant' is not a size: write a whole number of "
        'bytes, or one with K, M, G or T (binary units), as in "256M"\n'
        'wrong.toml: naem: unknown key; did you mean "name"?\n'
        "wali: calls.toml: extends[0]: 'p.tml': cannot be read: No such file or directory; write "
        'a policy file, or a profile such as "profile:pure-compute"\n'
        'calls.toml: lockdown: \'on\' is not known here: write "required", "best-effort" or '
        '"off"\n'
        "calls.toml: syscalls.deny[0]: 'opneat' is no call of this version: did you mean "
        "'openat' or 'openat2' or 'connect'?\n"
        "wali: no.toml: cannot be read: No such file or directory; write a policy file, or a "
        'profile such as "profile:pure-compute"\n'
        "wali: strict: there is no such file, nor a profile: there are cli-tool, pure-compute, "
        "server\n"
    )


def test_what_is_not_there_is_said(wali: Wali, folder: Path) -> None:
    """A folder that does not exist here is no mistake of a policy's; no program starts with it."""
    (folder / "in" / "file").unlink()
    (folder / "in").rmdir()

    done = wali("policy", "check", "p.toml")

    assert (done.returncode, done.stdout) == (0, "p.toml: right\n")
    assert done.stderr == (
        f"wali: p.toml: filesystem.read_only[0]: {folder}/in does not exist here: no program "
        "starts without it\n"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("in", "in is a folder: no program starts; write the file that lines are added to"),
        ("none/log", "none is no folder here: no program starts without it"),
    ],
)
def test_an_audit_that_cannot_be_written_is_said(
    wali: Wali, folder: Path, path: str, message: str
) -> None:
    """No program starts whose requests cannot be written down, which is known before."""
    (folder / "p.toml").write_text(f'version = 1\n[audit]\npath = "{path}"\n')

    done = wali("policy", "check", "p.toml")

    assert (done.returncode, done.stdout) == (0, "p.toml: right\n")
    assert done.stderr == f"wali: p.toml: audit.path: {folder}/{message}\n"


def test_links_are_followed(wali: Wali, folder: Path) -> None:
    """What a run refuses because of where links lead is no policy that is right."""
    (folder / "link").symlink_to("secret/x")
    (folder / "secret" / "x").mkdir()
    (folder / "other").symlink_to("out")
    (folder / "out" / "y").mkdir()
    (folder / "p.toml").write_text(
        POLICY.replace('"in::/in"', '"link::/link", "in", "other/y::/y"')
    )

    done = wali("policy", "check", "p.toml")

    here = "wali: p.toml: filesystem.read_only"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{here}[2]: where links are followed, '{folder}/out/y' lies in '{folder}/out', which "
        "filesystem.read_write[0] makes writable: a policy can widen inside a tree but not narrow, "
        "since the kernel adds up what is granted along a path\n"
        f"{here.removeprefix('wali: ')}[0]: where links are followed, '{folder}/secret/x' lies in "
        f"'{folder}/secret', which filesystem.inaccessible[0] denies: deny wins, so remove one of "
        "the two\n"
    )


def test_what_does_not_start_is_not_right(wali: Wali, folder: Path) -> None:
    """Links out of what a guest may change, and those that the policy refuses, are found, too."""
    (folder / "out" / "link").symlink_to("../secret")
    (folder / "chain").symlink_to("out/link")
    (folder / "twin").symlink_to("in")
    tables = "[filesystem]\nread_only = ['chain::/chain', 'twin']\nread_write = ['out']\n"
    for links, said in (
        ("followed", [f"[0]: {folder}/chain cannot be granted: it leads to {folder}/secret, out"]),
        (
            "refused",
            [
                f"[0]: {folder}/chain cannot be granted: it leads to {folder}/secret, and no",
                f"[1]: {folder}/twin cannot be granted: it leads to {folder}/in, and no link",
            ],
        ),
    ):
        (folder / "p.toml").write_text(f'version = 1\nlinks = "{links}"\n{tables}')
        done = wali("policy", "check", "p.toml")
        assert (done.returncode, done.stdout) == (1, "")
        lines = done.stderr.removeprefix("wali: ").splitlines()
        assert len(lines) == len(said)
        for line, start in zip(lines, said, strict=True):
            assert line.startswith(f"p.toml: filesystem.read_only{start}")


def test_a_start_in_nothing_is_said(wali: Wali, folder: Path) -> None:
    """A folder to start in that the policy does not grant is the caller's to grant."""
    (folder / "p.toml").write_text(POLICY.replace("[env", 'cwd = "/x/y"\n\n[env'))

    done = wali("policy", "check", "p.toml")

    assert (done.returncode, done.stdout) == (0, "p.toml: right\n")
    assert done.stderr == (
        "wali: p.toml: filesystem.cwd: /x/y lies in nothing that is granted: that takes --dir\n"
    )


def test_what_is_no_socket_is_said(wali: Wali, folder: Path) -> None:
    """A folder has more sockets than one, and a file is none."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
    text = 'version = 1\n[network]\nunix = ["s", "in", "in/file", "none"]\n'
    (folder / "p.toml").write_text(text)

    done = wali("policy", "check", "p.toml")

    assert (done.returncode, done.stdout) == (0, "p.toml: right\n")
    assert done.stderr == (
        f"wali: p.toml: network.unix[3]: {folder}/none does not exist here: no program starts "
        "without it\n"
        f"wali: p.toml: {folder}/in is a folder: every socket in it can be connected to\n"
        f"wali: p.toml: {folder}/in/file is no socket, and nothing that could be connected to\n"
    )


# --- show -----------------------------------------------------------------------------------------


def test_what_is_shown_is_the_policy(wali: Wali, folder: Path) -> None:
    """A policy that is printed can be loaded from anywhere, and is the same."""
    (folder / "narrow.toml").write_text(
        'version = 1\nextends = ["p.toml", "profile:server"]\n[limits]\nmemory = "8M"\n'
    )

    done = wali("policy", "show", "narrow.toml")

    assert (done.returncode, done.stderr) == (0, "")
    (folder / "out" / "shown.toml").write_text(done.stdout)
    shown = Policy.load(folder / "out" / "shown.toml")
    assert shown == Policy.load(folder / "narrow.toml")
    assert shown.limits.memory == 8 << 20
    assert "extends" not in done.stdout


# --- explain --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ("openat /in/file", 0, "granted by filesystem.read_only[0]: '/in/file' lies in '/in' ("),
        (
            "openat /in/file write",
            1,
            "refused by filesystem.read_only[0]: '/in/file' lies in '/in'",
        ),
        ("openat /in/../etc/passwd", 1, "refused by default: '/etc/passwd' lies in nothing that"),
        ("rename /out/a /out/b", 0, "granted by filesystem.read_write[0]: '/out' lies in '/out' ("),
        ("path_open /out/a", 0, "granted by filesystem.read_write[0]: "),
        ("connect tcp://*:443", 0, "granted by network.connect: port 443 is in it"),
        ("connect tcp://10.0.0.1:80", 1, "refused by default: port 80 is not in network.connect"),
        ("fork", 1, "refused by syscalls.deny: "),
        ("frobnicate", 1, "refused by default: 'frobnicate' is not served"),
        ("getpid", 0, "granted by always: "),
        ("getenv MODE", 0, "granted by environment.set.MODE: it is 'batch'"),
        ("getenv HOME", 1, "refused by default: 'HOME' is neither inherited nor set"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_requests_are_decided(request_: str, status: int, said: str, wali: Wali) -> None:
    """The decision, the rule that decided and the reason; the status says it, too."""
    done = wali("policy", "explain", "p.toml", request_)

    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.startswith(said)
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("stated", [True, False])
def test_where_wasi_programs_look_for_files(
    wali: Wali, folder: Path, attempt: Path, *, stated: bool
) -> None:
    """Their libc takes a path that lies in no tree for one from the working directory."""
    own = "/sub" if stated else f"{folder}/in/sub"
    text = f'version = 1\n[filesystem]\nread_only = ["in/sub::{own}"]\n'
    (folder / "in" / "sub").mkdir()
    (folder / "in" / "sub" / "file").write_text("in sub")
    (folder / "cwd.toml").write_text(text + (f"cwd = '{own}'\n" if stated else ""))
    key = "filesystem.read_only[0]"
    reason = f"'/file' is looked for in filesystem.cwd: '{own}/file' lies in '{own}'"

    for path, access, words, expected in (
        ("/file", "read", "read", f"granted by {key}: {reason}"),
        (f"{own}/file", "read", "read", f"granted by {key}: '{own}/file' lies in "),
        ("/file", "write", "write", f"refused by {key}: {reason}"),
    ):
        request_ = f"path_open {path} {access}"
        decided = wali("policy", "explain", folder / "cwd.toml", request_, cwd=folder / "in/sub")
        done = wali(
            "run", "--policy", folder / "cwd.toml", attempt, words, path, cwd=folder / "in/sub"
        )

        assert decided.stdout.startswith(expected)
        assert (done.stdout == "0\n") == (decided.returncode == 0)


@pytest.mark.usefixtures("folder")
def test_requests_that_are_none(wali: Wali) -> None:
    """What cannot be understood is neither granted nor refused."""
    done = wali("policy", "explain", "p.toml", "openat etc/passwd")

    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == (
        "wali: 'etc/passwd' must be absolute: a request is not made from anywhere\n"
    )


def test_a_policy_is_explained(wali: Wali, folder: Path) -> None:
    """What is granted and by which key, then who closes which door on this machine."""
    done = wali("policy", "explain", "p.toml")

    assert (done.returncode, done.stderr) == (0, "")
    granted, _, enforced = done.stdout.partition("\n\n")
    rows = [re.split(r"  +", line) for line in granted.splitlines()]
    assert ["reads", f"{folder}/in as /in", "filesystem.read_only[0]"] in rows
    assert ["changes", f"{folder}/out as /out", "filesystem.read_write[0]"] in rows
    assert ["never", f"{folder}/secret", "filesystem.inaccessible[0]"] in rows
    assert ["variable", "MODE=batch", "environment.set.MODE"] in rows
    assert ["connects to", "TCP 443, at any address", "network.connect"] in rows
    assert ["time", "at most 10s", "limits.wall_time"] in rows
    assert ["processes", "unlimited"] in rows
    assert ["time", "host", "clock.source"] in rows
    first, second, *doors = enforced.splitlines()
    assert first.startswith("A WASI program is held to the files by the core")
    assert second == "A WALI program is held here by:"
    assert {line.split(":")[0] for line in doors} <= {
        *("  kernel", "  view", "  core", "  gate", "  open")
    }
    assert len(doors) > 10


def test_what_every_program_needs_is_said(wali: Wali, folder: Path) -> None:
    """A list of calls with which hardly a program gets far is said to be one, before any does."""
    text = 'version = 1\n[syscalls]\nallow = ["getpid"]\ndeny = ["mmap"]\n'
    (folder / "few.toml").write_text(text)
    few = "nearly every program calls write, writev, which syscalls.allow does not grant"

    explained = wali("policy", "explain", "few.toml").stdout
    checked = wali("policy", "check", "few.toml")

    assert f"! nearly every program calls mmap, which syscalls.deny does not grant\n! {few}\n" in (
        explained
    )
    assert (checked.returncode, checked.stdout) == (0, "few.toml: right\n")
    assert f"wali: few.toml: {few}\n" in checked.stderr


def test_what_native_programs_need_is_said(wali: Wali, folder: Path) -> None:
    """A script and an ELF file are run by something: that has to be granted as well."""
    script = folder / "script"
    script.write_text("#!/bin/sh -e\n")
    text = 'version = 1\n[filesystem]\nexec = ["{}", "{}"{}]\n'
    (folder / "few.toml").write_text(text.format(script, sys.executable, ""))
    (folder / "all.toml").write_text(text.format(script, sys.executable, ', "/"'))

    said = wali("policy", "explain", "few.toml").stdout

    assert f"! {script} is run by /bin/sh, which filesystem.exec does not grant" in said
    assert "! native programs execute libraries, which filesystem.exec has to grant" in said
    elf = re.search(rf"^! {sys.executable} is run by (/\S+), ", said, re.MULTILINE)
    assert elf is None or os.path.exists(elf[1])
    assert "is run by" not in wali("policy", "explain", "all.toml").stdout


# --- learn ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled `attempt.c`, a program with wasi-libc."""
    out = tmp_path_factory.mktemp("attempts") / "attempt.wasm"
    source = compiler.NATIVE.parents[1] / "tests" / "wali_core" / "attempt.c"
    return compiler.compile_guest(source, out, target="wasm32-wasi")


@pytest.fixture
def learned(wali: Wali, folder: Path, attempt: Path) -> Callable[..., Policy]:
    """Return a function that learns from a run, and runs again under what was learned."""

    def learn(*words: str) -> Policy:
        done = wali("policy", "learn", "--out", "new.toml", attempt, *words)
        assert done.returncode == 0
        assert done.stderr.splitlines()[-1] == "wali: the policy that this run needed is new.toml"
        state = sorted(folder.rglob("*"))

        again = wali("run", "--policy", "new.toml", attempt, *words)

        assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")
        assert sorted(folder.rglob("*")) == state
        return Policy.load(folder / "new.toml")

    return learn


def trees(policy: Policy) -> list[tuple[str, str]]:
    """Return what is granted, in short."""
    return [
        ("change" if grant.read_write else "read", grant.host)
        for grant in policy.filesystem.readable
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["read", "{}/in/file"], [("read", "{}/in")]),
        (["list", "{}/in", "read", "{}/in/file"], [("read", "{}/in")]),
        (["create", "{}/out/new", "unlink", "{}/out/new"], [("change", "{}/out")]),
        (["mkdir", "{}/out/d", "rmdir", "{}/out/d"], [("change", "{}/out")]),
        (["mkdir", "{}/out", "read", "{}/in/file"], [("change", "{}")]),
        (["read", "{}/none", "stat", "/nowhere/at/all"], []),
        (["read", "in/file", "stat", "p.toml"], [("read", "{}")]),
        (["read", "{}/out/../in/file"], [("read", "{}")]),
        (["read", "{}/link"], [("read", "{}")]),
        (
            ["rename", "{0}/in/file {0}/in/x", "rename", "{0}/in/x {0}/in/file"],
            [("change", "{}/in")],
        ),
        ([], []),
    ],
)
def test_what_a_wasi_program_needs_is_learned(
    words: list[str],
    expected: list[tuple[str, str]],
    learned: Callable[..., Policy],
    folder: Path,
) -> None:
    """Under the policy that was learned, the program does and prints the same."""
    (folder / "link").symlink_to("in/file")

    policy = learned(*(word.format(folder) for word in words))

    assert trees(policy) == [(kind, path.format(folder)) for kind, path in expected]
    assert policy.syscalls.allow is None


def test_variables_are_what_the_options_say(
    wali: Wali, folder: Path, program: Path, environment: dict[str, str]
) -> None:
    """Which variables a program looks at cannot be seen: it has those that it is given."""
    environment |= {"PASSED": "on", "KEPT": "back"}
    options = ("--env", "PASSED", "--env", "A=b", "--env", "UNSET")

    done = wali("policy", "learn", *options, program, "env")

    assert (done.returncode, done.stdout) == (0, "PASSED=on\nA=b\n")
    policy = Policy.load(folder / f"{program.stem}.policy.toml")
    assert (policy.environment.inherit, policy.environment.set) == (("PASSED",), {"A": "b"})
    again = wali("run", "--policy", f"{program.stem}.policy.toml", program, "env")
    assert sorted(again.stdout.split()) == ["A=b", "PASSED=on"]


def test_what_was_learned_says_from_what(wali: Wali, folder: Path, program: Path) -> None:
    """The file names the run and its end; the command ends as the program did."""
    done = wali("policy", "learn", "--out", "n.toml", program, "exit", "7")

    assert (done.returncode, done.stdout) == (7, "")
    assert (folder / "n.toml").read_text() == (
        f"# Learned from: {program} exit 7\n"
        "# That ended with status 7. What it did not do then is not granted here.\n"
        "version = 1\n"
    )


def test_a_run_that_ends_badly_is_learned_from(wali: Wali, folder: Path, program: Path) -> None:
    """What was done until then counts."""
    done = wali("policy", "learn", "--timeout", "100ms", "--out", "n.toml", program, "spin")

    assert done.returncode == 124
    assert "wali: the guest was stopped after its 0.1 s (wall_time)\n" in done.stderr
    assert "status 124" in (folder / "n.toml").read_text()


def test_an_interrupt_ends_the_program_alone(
    environment: dict[str, str], folder: Path, program: Path
) -> None:
    """Ctrl-C goes to program and command; what the program did until then is learned from."""
    command = [sys.executable, "-m", "wali_core", "policy", "learn", "--out", "n.toml"]
    with subprocess.Popen(
        [*command, str(program), "spin"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)

    assert process.returncode == 130
    assert "status 130" in (folder / "n.toml").read_text()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ((), 2, "policy learn needs the FILE of a program"),
        (("--policy", "p.toml", "x"), 2, "policy learn grants everything: --policy has no place"),
        (("--allow-all", "x"), 2, "policy learn grants everything: --allow-all has no place there"),
        (
            ("--out", "p.toml", "x"),
            126,
            "p.toml exists already: name another with --out, or remove",
        ),
    ],
)
def test_what_cannot_be_learned(
    options: tuple[str, ...], status: int, said: str, wali: Wali, folder: Path
) -> None:
    """Nothing has run then, and no file is touched."""
    before = (folder / "p.toml").read_text()

    done = wali("policy", "learn", *options)

    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"wali: {said}")
    assert (folder / "p.toml").read_text() == before
    assert not list(folder.glob("*.policy.toml"))


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "policy needs one of check, show, explain and learn"),
        (("frobnicate",), "policy needs one of check, show, explain and learn"),
        (("check",), "policy check needs POLICY, one or more"),
        (("show",), "policy show needs one POLICY"),
        (("show", "a", "b"), "policy show needs one POLICY"),
        (("explain",), "policy explain needs POLICY, and perhaps a REQUEST in quotes"),
        (("explain", "a", "open", "/x"), "policy explain needs POLICY, and perhaps a REQUEST in"),
        (("learn", "--outt", "x"), "unknown option --outt: did you mean --out?"),
    ],
)
def test_wrong_command_lines(words: tuple[str, ...], said: str, wali: Wali) -> None:
    """What the command line lacks is said; the status is that of every wrong one."""
    done = wali("policy", *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"wali: {said}")


@pytest.mark.parametrize("command", ["show", "explain"])
def test_policies_that_cannot_be_loaded(command: str, wali: Wali, folder: Path) -> None:
    """They are refused like those of a run."""
    (folder / "p.toml").write_text("version = 2\n")

    done = wali("policy", command, "p.toml")

    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr.startswith("wali: p.toml: version: ")
