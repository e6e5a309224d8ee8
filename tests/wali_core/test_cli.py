"""Tests of wali_core.cli: the command as a user types it, with what a shell sees of it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
WASI = "wasi_snapshot_preview1"

# What the start of a guest without a policy has no time for.
NOT_IMPORTED = {
    "argparse",
    "attr",
    "attrs",
    "cattr",
    "cattrs",
    "difflib",
    "enum",
    "hashlib",
    "importlib.metadata",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "re",
    "signal",
    "subprocess",
    "tempfile",
    "threading",
    "tomllib",
    "trio",
    "typing",
    "wasmtime",
}

Result = subprocess.CompletedProcess[str]


def refused(result: Result, status: int, message: str) -> None:
    """Check that the command has refused to run anything, in one line."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("wali: ")
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    assert re.search(message, result.stderr), result.stderr


# --- running --------------------------------------------------------------------------------------


def test_a_program_runs(wali: Callable[..., Result], program: Path) -> None:
    """A program has its arguments, its input and its output, and nothing is said besides."""
    result = wali("run", program, "args", "--dir", "-x", "")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split("\n") == [str(program), "args", "--dir", "-x", "", ""]
    assert wali("run", program, "echo", input="in and out").stdout == "in and out"


@pytest.mark.parametrize(
    ("status", "seen"), [(0, 0), (1, 1), (123, 123), (124, 124), (255, 255), (256, 0), (259, 3)]
)
def test_statuses_pass_through(
    status: int, seen: int, wali: Callable[..., Result], program: Path
) -> None:
    """The command's status is the program's own, as much of it as a status can be."""
    result = wali("run", program, "exit", str(status))

    assert (result.returncode, result.stdout, result.stderr) == (seen, "", "")


def test_a_trap_is_status_134(wali: Callable[..., Result], program: Path) -> None:
    """A program that traps ends as one that aborts, with its cause and its place."""
    result = wali("run", program, "trap")

    assert result.returncode == 134
    assert result.stderr == (
        "wali: the program trapped: wasm `unreachable` instruction executed\n    in start\n"
    )


def test_a_deep_trap_is_shown_in_part(
    wali: Callable[..., Result], guest_from_wat: Callable[..., Path]
) -> None:
    """Of a stack without an end only the innermost functions are shown."""
    result = wali("run", guest_from_wat('(module (func $deep (export "_start") (call $deep)))'))

    assert result.returncode == 134
    assert result.stderr.splitlines()[0] == "wali: the program trapped: call stack exhausted"
    assert result.stderr.splitlines()[1:] == ["    in deep"] * 12


@pytest.mark.parametrize("what", ["spin", "read", "poll", "sleep"])
def test_a_time_out_is_status_124(what: str, wali: Callable[..., Result], program: Path) -> None:
    """A program is ended in time, whether it computes, or waits for its input or the clock."""
    read, write = os.pipe()
    started = time.monotonic()

    result = wali("run", "--timeout", "500ms", program, what, stdin=read)

    os.close(read)
    os.close(write)
    assert result.returncode == 124
    assert result.stderr == "wali: the guest was stopped after its 0.5 s (wall_time)\n"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("what", ["spin", "read", "poll", "sleep"])
def test_ctrl_c_ends_the_process_by_its_signal(
    what: str, environment: dict[str, str], program: Path
) -> None:
    """Ctrl-C kills the process, as it would a native program, whatever the guest is doing."""
    with subprocess.Popen(
        [sys.executable, "-m", "wali_core", "run", str(program), what],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()

    assert process.returncode == -signal.SIGINT
    assert errors == b""


def test_a_shell_sees_130_after_ctrl_c(environment: dict[str, str], program: Path) -> None:
    """What a shell makes of that end is status 130."""
    script = f'"{sys.executable}" -m wali_core run "{program}" sleep; echo "status $?"'
    with subprocess.Popen(
        ["sh", "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        child = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text()
        os.kill(int(child), signal.SIGINT)
        output, _ = shell.communicate()

    assert output == "status 130\n"


def test_an_ignored_ctrl_c_stays_ignored(environment: dict[str, str], program: Path) -> None:
    """A program that a shell has put into the background does not end by Ctrl-C."""
    command = [sys.executable, "-m", "wali_core", "run", "--timeout", "30s", str(program), "read"]
    with subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.communicate(b"input")

    assert process.returncode == 0


# --- grants ---------------------------------------------------------------------------------------


def test_nothing_is_granted_unasked(wali: Callable[..., Result], program: Path) -> None:
    """Without options a program has no directory and no variable."""
    assert wali("run", program, "preopens").stdout == ""
    assert wali("run", program, "env").stdout == ""


@pytest.mark.parametrize(
    ("option", "name", "writable"),
    [
        ("data", "data", False),
        ("data:ro", "data", False),
        ("data:rw", "data", True),
        ("data::/x", "/x", False),
        ("data::/x:ro", "/x", False),
        ("data::/x:rw", "/x", True),
        ("{tmp}/data::a:b:rw", "a:b", True),
        ("data::größe", "größe", False),
        ("./data/../data:rw", "./data/../data", True),
    ],
)
def test_directories_are_granted(
    option: str,
    name: str,
    wali: Callable[..., Result],
    program: Path,
    tmp_path: Path,
    *,
    writable: bool,
) -> None:
    """A directory has the name and the mode that the option says; read-only is the default."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    granted = ["run", "--dir", option.format(tmp=tmp_path), program]

    assert wali(*granted, "preopens").stdout == f"{name}\n"
    assert wali(*granted, "cat", "file").stdout == "content"
    created = wali(*granted, "create", "new")
    assert (created.returncode == 0) == (tmp_path / "data" / "new").exists() == writable
    assert created.stderr == ""


def test_options_repeat(wali: Callable[..., Result], program: Path, tmp_path: Path) -> None:
    """Directories and variables can be given again and again, in both ways to write options."""
    (tmp_path / "a").mkdir()

    assert wali("run", "--dir", "a", "--dir=a::b", program, "preopens").stdout == "a\nb\n"
    assert wali("run", "--env=A=1", "--env", "B=2=3", program, "env").stdout == "A=1\nB=2=3\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [("a::/x", "b::/x"), ("a::/x:rw", "a::/x/"), ("a", "a:rw"), (".", "a::.")],
)
def test_one_name_is_granted_once(
    first: str, second: str, wali: Callable[..., Result], program: Path
) -> None:
    """Two directories of one name are a slip: which is meant is not for the command to say."""
    done = wali("run", "--dir", first, "--dir", second, program)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"wali: --dir {second}: the guest has --dir {first} under that name already (try 'wali "
        "--help')\n"
    )


def test_variables_are_passed_on(
    wali: Callable[..., Result], program: Path, environment: dict[str, str]
) -> None:
    """A variable without a value is the process's own, if it has one."""
    environment["GIVEN"] = "größe"
    words = ("--env", "GIVEN", "--env", "NOT_THERE", "--env", "EMPTY=")

    assert wali("run", *words, program, "env").stdout == "GIVEN=größe\nEMPTY=\n"


# Opens `f` beneath its directory with no right at all, and then asks for its size: the errno.
UNASKED = f"""
(module
  (import "{WASI}" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "{WASI}" "fd_filestat_get" (func $stat (param i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "f")
  (func (export "_start")
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 0)
                      (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))
    (call $exit (call $stat (i32.load (i32.const 0)) (i32.const 16)))))
"""


@pytest.mark.parametrize(("options", "status"), [([], 0), (["--strict-rights"], 76)])
def test_rights_are_strict_on_demand(
    options: list[str],
    status: int,
    wali: Callable[..., Result],
    guest_from_wat: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """What a program does not ask for it has all the same; with the option it has not."""
    (tmp_path / "f").touch()

    result = wali("run", *options, "--dir", ".", guest_from_wat(UNASKED))

    assert (result.returncode, result.stderr) == (status, "")


def test_rights_are_not_for_wali_programs(
    wali: Callable[..., Result], guest_from_wat: Callable[..., Path]
) -> None:
    """Their descriptors are Linux's."""
    module = guest_from_wat(
        '(module (import "wali" "SYS_getpid" (func (result i64))) (func (export "_start")))'
    )

    refused(wali("run", "--strict-rights", module), 126, "whose descriptors have no rights")


def test_everything_can_be_allowed(
    wali: Callable[..., Result], program: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """With --allow-all a program has the whole file system, this folder and the environment."""
    environment["MINE"] = "x"
    (tmp_path / "file").write_text("content")

    granted = wali("run", "--allow-all", program, "preopens").stdout.splitlines()
    assert granted[0] == "."
    assert {"/usr", "/tmp"} <= {*granted}
    assert "MINE=x\n" in wali("run", "--allow-all", program, "env").stdout
    assert wali("run", "--allow-all", program, "cat", "file").stdout == "content"


def test_a_policy_is_applied(wali: Callable[..., Result], program: Path, tmp_path: Path) -> None:
    """A policy file's directories, variables and limits are those of the run."""
    (tmp_path / "policy.toml").write_text("""
version = 1
[filesystem]
read_only = [".::/data"]
[environment]
set = { MODE = "batch" }
""")
    (tmp_path / "time.toml").write_text('version = 1\n[limits]\nwall_time = "300ms"')
    options = ("run", "--policy", "policy.toml", "--env", "MORE=1")

    assert wali(*options, program, "preopens").stdout == "/data\n"
    assert wali(*options, program, "env").stdout == "MODE=batch\nMORE=1\n"
    assert wali("run", "--policy", "time.toml", program, "spin").returncode == 124


@pytest.mark.parametrize("name", ["pure-compute", "cli-tool", "server", "profile:server"])
def test_a_shipped_policy_is_applied(
    name: str, wali: Callable[..., Result], program: Path, tmp_path: Path
) -> None:
    """Policies that are shipped are named; files of the same name have a folder before it."""
    (tmp_path / name).write_text("version = 1\nnonsense = 1\n")

    assert wali("run", "--policy", name, program, "exit", "3").returncode == 3
    assert "nonsense: unknown key" in wali("run", "--policy", f"./{name}", program, "env").stderr


def test_a_command_line_tool_sees_where_it_is(
    wali: Callable[..., Result], program: Path, tmp_path: Path
) -> None:
    """The profile cli-tool grants the working directory to read, and no more of the files."""
    (tmp_path / "file").write_text("here")

    assert wali("run", "--policy", "cli-tool", program, "cat", "file").stdout == "here"
    assert wali("run", "--policy", "cli-tool", program, "create", "new").returncode
    assert wali("run", "--policy", "pure-compute", program, "cat", "file").returncode


def test_another_name_can_be_given(wali: Callable[..., Result], program: Path) -> None:
    """A program is called by the path that was typed, or as it is told."""
    assert wali("run", "--argv0", "x y", program, "args").stdout == "x y\nargs\n"


def test_memory_is_limited(wali: Callable[..., Result], program: Path) -> None:
    """A program does not grow beyond what it may have."""
    assert wali("run", "--memory", "4M", program, "grow", "4").returncode == 0
    done = wali("run", "--memory", "4M", program, "grow", "64")
    message = f"wali: the guest wanted more than its {4 << 20} bytes of memory (limits.memory)\n"
    assert (done.returncode, done.stderr) == (137, message)


# --- what cannot be run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "try 'wali --help'"),
        (("frobnicate",), "unknown command 'frobnicate': try 'wali --help'"),
        (("--frobnicate",), "unknown command '--frobnicate'"),
        (("run",), "run needs the FILE of a program"),
        (("run", "--"), "run needs the FILE of a program"),
        (("run", "--dri", "x"), r"unknown option --dri: did you mean --dir\?"),
        (("run", "--frobnicate"), r"unknown option --frobnicate \(try"),
        (("run", "-d", "x"), "unknown option -d"),
        (("run", "--dir"), "--dir needs a value"),
        (("run", "--dir=", "FILE"), "--dir : it must be HOST or HOST::GUEST"),
        (("run", "--dir", ":rw", "FILE"), "--dir :rw: it must be HOST or HOST::GUEST"),
        (("run", "--dir", "::/x", "FILE"), "--dir ::/x: it must be HOST or HOST::GUEST"),
        (("run", "--dir", "x::", "FILE"), "--dir x::: it must be HOST or HOST::GUEST"),
        (("run", "--dir", "x:::rw", "FILE"), "it must be HOST or HOST::GUEST"),
        (("run", "--dir", "x::/y:wr", "FILE"), "--dir x::/y:wr: 'wr' must be ro or rw"),
        (("run", "--env", "=x", "FILE"), "--env =x: a variable needs a name"),
        (("run", "--env", "", "FILE"), "--env : a variable needs a name"),
        (("run", "--timeout", "soon", "FILE"), "--timeout: .*soon"),
        (("run", "--timeout", "-1s", "FILE"), "--timeout: .*-1s"),
        (("run", "--timeout", "", "FILE"), "--timeout: "),
        (("run", "--timeout=1s", "--timeout=2s", "FILE"), "--timeout is given twice"),
        (("run", "--memory", "much", "FILE"), "--memory: .*much"),
        (("run", "--memory", "-1", "FILE"), "--memory: .*-1"),
        (("run", "--allow-all=yes", "FILE"), "--allow-all takes no value"),
        (("run", "--no-cache", "--policy"), "--policy needs a value"),
        (("inspect",), "inspect needs one FILE"),
        (("inspect", "FILE", "FILE"), "inspect needs one FILE"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_status_2(
    words: tuple[str, ...], message: str, wali: Callable[..., Result], program: Path
) -> None:
    """What is not understood is said in one line, with the option."""
    words = tuple(str(program) if word == "FILE" else word for word in words)

    refused(wali(*words), 2, message)


@pytest.mark.parametrize("command", ["run", "inspect"])
@pytest.mark.parametrize(
    "path", ["no.wasm", "no/such/folder.wasm", "", "größe", os.fsdecode(b"\xff")]
)
def test_a_missing_file_is_status_127(command: str, path: str, wali: Callable[..., Result]) -> None:
    """A file that is not there is not found."""
    refused(wali(command, path), 127, ": no such file$")


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "text": (b"hello\n", "not a WebAssembly module"),
    "script": (b"#!/bin/sh\n", "a native program"),
    "elf": (b"\x7fELF\2\1\1\0", "a native program"),
    "wat": (b"(module)", "WebAssembly text; assemble it first"),
    "component": (bytes(wasmtime.wat2wasm("(component)")), "a component .* wasm32-wasip1"),
    "cut": (b"\0asm\1\0\0", "a truncated module"),
    "cut later": (
        bytes(wasmtime.wat2wasm("(module (func))"))[:-1],
        "unexpected end-of-file",
    ),
    "invalid": (
        bytes(wasmtime.wat2wasm("(module (func (result i32) (i32.const 1)))")).replace(
            b"\x41\x01", b"\x42\x01"
        ),
        "type mismatch",
    ),
}


@pytest.mark.parametrize("command", ["run", "inspect"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_module_is_status_126(
    command: str, name: str, wali: Callable[..., Result], tmp_path: Path
) -> None:
    """A file that is no module is refused for what it is."""
    data, message = FILES[name]
    (tmp_path / "file").write_bytes(data)

    refused(wali(command, "file"), 126, f"^wali: file: .*{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no _start .* a library, not a program"),
        ('(func (export "_start") (param i32))', "no _start"),
        ('(import "env" "f" (func)) (func (export "_start"))', r"imports env\.f: wali serves"),
        (f'(import "{WASI}" "f" (func)) (func (export "_start"))', r"\.f, which does not exist"),
        (
            f'(import "wali" "SYS_read" (func)) (import "{WASI}" "fd_read" (func))',
            "imports both wali and",
        ),
        (
            f'(import "{WASI}" "fd_close" (func)) (func (export "_start"))',
            "fd_close: types incompatible",
        ),
    ],
)
def test_what_cannot_be_linked_is_status_126(
    text: str, message: str, wali: Callable[..., Result], guest_from_wat: Callable[..., Path]
) -> None:
    """A module that is no program, or imports what is not there, is refused in one line."""
    refused(wali("run", guest_from_wat(f"(module {text})")), 126, message)


@pytest.mark.parametrize("command", ["run", "inspect"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "^wali: /: a directory, not a WebAssembly module"),
        ("/dev/null", "an empty file"),
        ("/dev/zero", "not a WebAssembly module"),
        ("/proc/self/mem", "^wali: /proc/self/mem: Input/output error"),
    ],
)
def test_what_cannot_be_read_is_status_126(
    command: str, path: str, message: str, wali: Callable[..., Result]
) -> None:
    """A folder, a device or a file that cannot be read is refused."""
    refused(wali(command, path), 126, message)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_unreadable_file_is_status_126(
    environment: dict[str, str], program: Path, tmp_path: Path
) -> None:
    """A file that the user may not read is refused."""
    path = tmp_path / "secret.wasm"
    path.write_bytes(program.read_bytes())
    path.chmod(0)
    code = f"""
import os, sys, wali_core._runtime, wali_core._stdio, wasi_shim
from wali_core.cli import main
os.chdir({str(tmp_path)!r})
os.setuid(65534)
sys.exit(main(["run", "secret.wasm"]))
"""

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    # Not even the folder can be searched by everybody, so both answers are right.
    assert done.returncode in {126, 127}
    assert done.stderr in {
        "wali: secret.wasm: not readable\n",
        "wali: secret.wasm: no such file\n",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--dir", "no/such"),
            "directory 'no/such': cannot open no/such on the host: No such file",
        ),
        (("--dir", "no/such::/x"), "directory '/x': cannot open no/such on the host"),
        (("--dir", "file"), "Not a directory"),
        (("--dir", "/proc::/x"), "lies on procfs, which is never granted"),
        (("--policy", "no.toml"), r"no\.toml: cannot be read: No such file"),
        (("--policy", "."), "cannot be read: Is a directory"),
        (("--policy", "unknown.toml"), r"unknown\.toml: frobnicate: "),
        (("--policy", "broken.toml"), r"broken\.toml: is not TOML"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_granted_is_status_126(
    options: tuple[str, ...],
    message: str,
    wali: Callable[..., Result],
    program: Path,
    tmp_path: Path,
) -> None:
    """A grant that cannot be had, or a policy with a mistake, is named; nothing has run then."""
    (tmp_path / "file").write_text("")
    (tmp_path / "unknown.toml").write_text("version = 1\nfrobnicate = 1\n")
    (tmp_path / "broken.toml").write_text("version = ")

    refused(wali("run", *options, program, "args"), 126, message)


def test_too_little_memory_to_start_is_status_137(
    wali: Callable[..., Result], program: Path
) -> None:
    """It is a limit like the others, and said with what is needed."""
    message = r"needs \d+ bytes of memory to start, and may have 65536 \(limits\.memory\)"
    refused(wali("run", "--memory", "64K", program, "args"), 137, message)


# --- streams that are not there -------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_change_nothing_else(
    closed: tuple[int, ...], environment: dict[str, str], program: Path, tmp_path: Path
) -> None:
    """With a stream closed the program still runs, and finds it closed; its status is its own."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    def status(*words: str) -> int:
        return subprocess.run(
            [sys.executable, "-m", "wali_core", "run", "--dir", ".:rw", program, *words],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=close,
            check=False,
        ).returncode

    assert status("exit", "3") == 3
    assert status("create", "file") == 0
    assert status("args") == (8 if 1 in closed else 0)
    assert status("read") == (8 if {0, 1} & {*closed} else 0)
    assert status("trap") == 134
    (tmp_path / "file").unlink()


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("run", "--help"), ("inspect",)])
def test_output_that_cannot_be_written_is_an_error(
    words: tuple[str, ...], wali: Callable[..., Result], program: Path
) -> None:
    """A full disk in the output's place is said, once, and is status 1."""
    words = (*words, str(program)) if words == ("inspect",) else words
    with open("/dev/full", "wb") as full:
        result = wali(*words, stdout=full)

    assert result.returncode == 1
    assert result.stderr == "wali: standard output: No space left on device\n"


@pytest.mark.parametrize("words", [("--help",), ("inspect",)])
def test_a_reader_that_has_gone_ends_the_command(
    words: tuple[str, ...], wali: Callable[..., Result], program: Path
) -> None:
    """Output to a pipe that nobody reads any more ends the command by SIGPIPE, silently."""
    words = (*words, str(program)) if words == ("inspect",) else words
    read, write = os.pipe()
    os.close(read)
    result = wali(*words, stdout=write)
    os.close(write)

    assert result.returncode == -signal.SIGPIPE
    assert result.stderr == ""


def test_a_program_gets_an_errno_from_a_broken_pipe(
    wali: Callable[..., Result], program: Path
) -> None:
    """A program that writes to a pipe without a reader is told so, and can end as it likes."""
    read, write = os.pipe()
    os.close(read)
    result = wali("run", program, "args", stdout=write)
    os.close(write)

    assert result.returncode == 64  # EPIPE


# --- terminals ------------------------------------------------------------------------------------


@pytest.fixture
def terminal(environment: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Return a function that runs the command with a terminal for its errors: status and text."""

    def run(*words: str | Path) -> tuple[int, str]:
        master, slave = pty.openpty()
        try:
            with subprocess.Popen(
                [sys.executable, "-m", "wali_core", *map(str, words)],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=slave,
            ) as process:
                os.close(slave)
                text = b""
                while chunk := read_terminal(master):
                    text += chunk
        finally:
            os.close(master)
        return process.returncode, text.decode().replace("\r\n", "\n")

    return run


def read_terminal(master: int) -> bytes:
    """Return what was written to the terminal; nothing, when nobody has it open any more."""
    try:
        return os.read(master, 4096)
    except OSError:
        return b""


def test_a_refused_write_prints_a_hint(
    terminal: Callable[..., tuple[int, str]], program: Path
) -> None:
    """On a terminal a write to a read-only directory tells which option would allow it."""
    status, text = terminal("run", "--dir", ".", program, "create", "new")

    assert status not in {0, 126}
    assert text.startswith("wali: hint: a write was refused by a read-only directory; --dir ")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dir", ".:rw"), ("create", "new")),
        (("--dir", "."), ("cat", "no such file")),
        ((), ("exit", "3")),
    ],
)
def test_no_hint_is_printed_without_a_reason(
    options: tuple[str, ...],
    words: tuple[str, ...],
    terminal: Callable[..., tuple[int, str]],
    program: Path,
) -> None:
    """What was not refused for being read-only is not commented on."""
    assert terminal("run", *options, program, *words)[1] == ""


def test_no_hint_is_printed_into_a_file(wali: Callable[..., Result], program: Path) -> None:
    """Hints are for people: another stream than a terminal gets none."""
    assert wali("run", "--dir", ".", program, "create", "new").stderr == ""


def test_who_allows_everything_is_told(
    terminal: Callable[..., tuple[int, str]], wali: Callable[..., Result], program: Path
) -> None:
    """A terminal is told what --allow-all means; a file is not."""
    assert terminal("run", "--allow-all", program, "args") == (
        0,
        "wali: --allow-all: the program can read and change all that you can\n",
    )
    assert wali("run", "--allow-all", program, "args").stderr == ""


def test_audit_of_a_confined_guest(
    wali: Callable[..., Result], program: Path, tmp_path: Path
) -> None:
    """What a guest asks for is written down also where its process sees and may do nothing."""
    (tmp_path / "file").write_text("content")
    policy = tmp_path / "p.toml"
    policy.write_text(
        f'version = 1\n[filesystem]\nread_only = ["{tmp_path}"]\n'
        f'[audit]\nlog = "all"\npath = "{tmp_path}/audit.jsonl"\n'
    )

    done = wali("run", "--policy", policy, program, "cat", "file")

    assert (done.returncode, done.stdout, done.stderr) == (0, "content", "")
    assert '"rule": "filesystem.read_only[0]"' in (tmp_path / "audit.jsonl").read_text()


def test_what_allow_all_lifts_is_said(
    wali: Callable[..., Result], program: Path, tmp_path: Path
) -> None:
    """A policy beside it is not all dropped in silence: its limits hold."""
    policy = tmp_path / "p.toml"
    policy.write_text('version = 1\n[limits]\noutput = "1"\n')

    done = wali("run", "--allow-all", "--policy", policy, program, "args")

    assert f"wali: --allow-all lifts what {policy} refuses, and leaves its limits\n" in done.stderr
    assert (done.returncode, done.stdout) == (153, "")


def test_a_long_compilation_is_announced_once(
    terminal: Callable[..., tuple[int, str]], guest_from_wat: Callable[..., Path]
) -> None:
    """On a terminal a large module says that it is being compiled, the first time."""
    text = f'(module (memory 8) (data (i32.const 0) "{"x" * 400_000}") (func (export "_start")))'
    large = guest_from_wat(text, "large.wasm")

    announced = (0, f"wali: compiling {large} (0.4 MB), once\n")
    assert terminal("run", large) == announced
    assert terminal("run", large) == (0, "")
    assert terminal("run", "--no-cache", large) == announced


def test_a_short_compilation_is_not_announced(
    terminal: Callable[..., tuple[int, str]], program: Path
) -> None:
    """What takes no time is not commented on."""
    assert terminal("run", "--no-cache", program, "args") == (0, "")


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",), ("run", "--help")])
def test_help_is_output(words: tuple[str, ...], wali: Callable[..., Result]) -> None:
    """Asking for help is no error, and lists every option of the command."""
    from wali_core import cli

    result = wali(*words)

    assert (result.returncode, result.stderr) == (0, "")
    for option in cli._RUN_OPTIONS.keys() - {"help"}:
        assert f"  --{option} " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_versions_are_told(wali: Callable[..., Result]) -> None:
    """The versions of this package and of wasmtime are told, installed or not."""
    result = wali("--version")

    assert result.returncode == 0
    assert re.fullmatch(r"wali (\(not installed\)|[\d.]+\S*) \(wasmtime [\d.]+\)\n", result.stdout)


def test_imports_are_inspected(wali: Callable[..., Result], tmp_path: Path) -> None:
    """A module's interface is told, and each import with its types."""
    text = f"""(module
      (import "{WASI}" "proc_exit" (func (param i32)))
      (import "{WASI}" "fd_seek" (func (param i32 i64 i32 i32) (result i32))))"""
    path = tmp_path / os.fsdecode(b"\xff.wasm")
    path.write_bytes(wasmtime.wat2wasm(text))

    result = wali("inspect", path)

    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        f"{path}: {WASI}",
        f"  {WASI}.proc_exit (i) -> ()",
        f"  {WASI}.fd_seek (iIii) -> (i)",
    ]


def test_a_module_without_imports_is_inspected(
    wali: Callable[..., Result], guest_from_wat: Callable[..., Path]
) -> None:
    """A module that imports nothing says so."""
    assert wali("inspect", guest_from_wat("(module)")).stdout.endswith(": imports nothing\n")


@pytest.mark.parametrize("cached", [True, False])
def test_the_cache_can_be_left_alone(
    wali: Callable[..., Result],
    guest_from_wat: Callable[..., Path],
    environment: dict[str, str],
    tmp_path: Path,
    *,
    cached: bool,
) -> None:
    """Compiled modules are kept in the user's cache, unless they shall not be."""
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    module = guest_from_wat('(module (func (export "_start")))')

    assert wali("run", *(() if cached else ("--no-cache",)), module).returncode == 0

    assert (tmp_path / "cache" / "wali").exists() == cached


def test_the_start_imports_little(
    environment: dict[str, str], guest_from_wat: Callable[..., Path]
) -> None:
    """A program without a policy starts before anything slow is imported."""
    hello = guest_from_wat(f"""(module
      (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\\08\\00\\00\\00\\06\\00\\00\\00hello\\n")
      (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))""")
    code = f"""
import sys
before = set(sys.modules)
from wali_core.cli import main
status = main(["run", "--dir", ".", "--env", "A=b", {str(hello)!r}])
print(status, *sorted(set(sys.modules) - before))
"""
    command = [sys.executable, "-c", code]

    def run() -> str:
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout

    run()  # which compiles
    first, second = run().splitlines()
    status, *imported = second.split()
    assert (first, status) == ("hello", "0")
    assert not NOT_IMPORTED & {*imported}
    assert len(imported) < 60
