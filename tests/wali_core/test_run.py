"""Tests of wali_core._run and _result: whole programs, their streams, their grants, their end."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import capabilities
from tests.held import open_descriptors, settled_descriptors
from wali_core import (
    CompletedGuest,
    GuestError,
    GuestFailed,
    GuestLimit,
    GuestTimeout,
    GuestTrap,
    ModuleError,
    PolicyError,
    Runtime,
    UseError,
    run_sync,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    WhenReady = Callable[[Callable[[], object]], AbstractContextManager[int]]

WASI = "wasi_snapshot_preview1"
EXIT = f'(import "{WASI}" "proc_exit" (func $exit (param i32)))'


@pytest.fixture
def run(runtime: Runtime, program: Path) -> Callable[..., CompletedGuest]:
    """Return a function that runs the program with arguments, and collects its output."""

    def run(*args: str, **options: Any) -> CompletedGuest:
        options.setdefault("capture_output", True)
        return runtime.run_sync(program, args=args, **options)

    return run


def lines(result: CompletedGuest) -> list[str]:
    """Return what the program has printed, by the line."""
    assert result.stdout is not None
    return os.fsdecode(result.stdout).splitlines()


# --- results --------------------------------------------------------------------------------------


def test_a_result_says_what_a_process_would(program: Path, cache_folder: Path) -> None:
    """A run without a runtime of one's own gives the status and the output."""
    result = run_sync(program, args=["exit", "3"], cache=cache_folder, capture_output=True)

    assert result.module == str(program)
    assert result.args == ("exit", "3")
    assert result.returncode == 3
    assert (result.stdout, result.stderr) == (b"", b"")


@pytest.mark.parametrize("status", [0, 1, 255, 256])
def test_a_status_is_no_exception(status: int, run: Callable[..., CompletedGuest]) -> None:
    """A program that exits with any status has run to its end."""
    assert run("exit", str(status)).returncode == status


def test_a_status_can_be_made_one(run: Callable[..., CompletedGuest]) -> None:
    """A result raises on demand, unless the status is 0; the error has what the result had."""
    run("args").check_returncode()
    failed = run("exit", "3")

    with pytest.raises(GuestFailed, match="exited with status 3") as caught:
        failed.check_returncode()

    assert caught.value.returncode == 3
    assert caught.value.stdout == b""
    assert isinstance(caught.value, GuestError)


def test_results_are_values(run: Callable[..., CompletedGuest]) -> None:
    """A result can be compared, copied and pickled, and not changed."""
    result = run("args")

    assert result == run("args")
    assert copy.copy(result) == pickle.loads(pickle.dumps(result)) == result  # noqa: S301
    with pytest.raises(AttributeError):
        result.returncode = 1  # type: ignore[misc]


def test_nothing_is_captured_unasked(run: Callable[..., CompletedGuest]) -> None:
    """Without capture_output a result has no output."""
    result = run("exit", "0", capture_output=False)

    assert (result.stdout, result.stderr) == (None, None)


# --- arguments and environment --------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("args",),
        ("args", ""),
        ("args", "with space", "-x", "--", "größe", "日本", "\U0001f600", "\t", '"'),
        ("args", os.fsdecode(b"no utf-8: \xff\xfe")),
        ("args", *(str(number) for number in range(1000))),
        ("args", "x" * 1_000_000),
    ],
    ids=["none", "empty", "unicode", "bytes", "many", "long"],
)
def test_arguments_arrive(words: tuple[str, ...], run: Callable[..., CompletedGuest]) -> None:
    """A program gets its arguments byte for byte, after the name that it is called by."""
    assert lines(run(*words, argv0="me")) == ["me", *words]


def test_a_program_is_called_by_its_path(run: Callable[..., CompletedGuest], program: Path) -> None:
    """Without another name a program's own is the path that it was loaded from."""
    assert lines(run("args"))[0] == str(program)


def test_a_copy_is_called_by_its_own_path(runtime: Runtime, program: Path, tmp_path: Path) -> None:
    """Two files with the same content each have their own name."""
    other = tmp_path / "other.wasm"
    other.write_bytes(program.read_bytes())

    for path in (program, other, program):
        result = runtime.run_sync(path, args=["args"], capture_output=True)
        assert lines(result)[0] == result.module == str(path)


def test_a_module_may_be_bytes(program: Path) -> None:
    """A program can be given as the bytes of its file; its name then says so."""
    result = run_sync(program.read_bytes(), args=["args"], cache=False, capture_output=True)

    assert lines(result) == ["<module>", "args"]


def test_arguments_may_be_bytes(run: Callable[..., CompletedGuest]) -> None:
    """Arguments and the program's name can be given as bytes."""
    result = run(b"args", b"\xff", argv0=b"\xfe")

    assert result.stdout == b"\xfe\nargs\n\xff\n"


@pytest.mark.parametrize(
    "options",
    [
        {"args": ["a\0b"]},
        {"args": [b"\0"]},
        {"argv0": "a\0"},
        {"env": {"A\0": "b"}},
        {"env": {"A": "b\0c"}},
        {"env": {"": "b"}},
        {"env": {"A=B": "c"}},
        {"dirs": {"/a\0": "/"}},
        {"dirs": {"": "/"}},
        {"dirs": {"/": "/tmp/\0"}},
    ],
    ids=str,
)
def test_what_no_program_can_be_told_is_refused(
    options: dict[str, Any], runtime: Runtime, program: Path
) -> None:
    """A NUL, or a variable without a name, is an error before anything runs."""
    with pytest.raises(PolicyError) as caught:
        runtime.run_sync(program, **options)
    assert "\n" not in str(caught.value)


def test_the_environment_is_what_was_given(
    run: Callable[..., CompletedGuest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program sees the variables that it is given, in order, and none of the process's."""
    monkeypatch.setenv("SECRET", "x")
    given = {"ONE": "1", "EMPTY": "", "Größe": "日本", "WITH": "a=b", os.fsdecode(b"\xff"): "y"}

    assert lines(run("env", env=given)) == [f"{name}={value}" for name, value in given.items()]
    assert lines(run("env")) == []


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
def test_stdin_may_be_bytes(size: int, run: Callable[..., CompletedGuest]) -> None:
    """Bytes are the program's input, however many; then comes the end."""
    data = os.urandom(size)

    for given in (data, bytearray(data), memoryview(data)):
        assert run("echo", stdin=given).stdout == data


@pytest.mark.parametrize("count", [0, 1, 65536, 1_500_000])
def test_both_streams_are_captured_whole(count: int, run: Callable[..., CompletedGuest]) -> None:
    """Output of any size on both streams is collected, without a deadlock."""
    result = run("both", str(count))

    assert result.stdout == result.stderr == bytes(count)


def test_stdin_may_be_nothing(run: Callable[..., CompletedGuest]) -> None:
    """From DEVNULL a program reads its end at once."""
    assert run("echo", stdin=subprocess.DEVNULL).stdout == b""


def test_streams_may_be_files(run: Callable[..., CompletedGuest], tmp_path: Path) -> None:
    """Open files and descriptors are read from where they are, written to, and left open."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"skipped, read")
    with source.open("rb", buffering=0) as stdin, target.open("wb") as stdout:
        stdin.seek(9)
        run("echo", stdin=stdin, stdout=stdout, capture_output=False)
        run("args", argv0="x", stdout=stdout.fileno(), capture_output=False)
        stdout.write(b"more")

    assert target.read_bytes() == b"readx\nargs\nmore"


def test_output_may_go_nowhere(run: Callable[..., CompletedGuest]) -> None:
    """Output to DEVNULL is gone."""
    result = run("both", "100", stdout=subprocess.DEVNULL, stderr=-3, capture_output=False)

    assert result.returncode == 0


def test_output_is_inherited(program: Path, cache_folder: Path) -> None:
    """Without another word a program has the process's own streams."""
    code = f"""
import wali_core
print(wali_core.run_sync({str(program)!r}, args=["echo"], cache={str(cache_folder)!r}).stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"through\n", capture_output=True, check=True
    )

    assert done.stdout == b"through\nNone\n"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"stdin": 9999}, UseError),
        ({"stdin": -1}, UseError),
        ({"stdout": 1 << 40}, UseError),
        ({"stdin": "text"}, TypeError),
        ({"stdin": 1.5}, TypeError),
        ({"stdout": b"bytes"}, TypeError),
        ({"capture_output": True, "stdout": -3}, UseError),
        ({"capture_output": True, "stderr": 2}, UseError),
    ],
    ids=str,
)
def test_what_is_no_stream_is_refused(
    options: dict[str, Any], error: type[Exception], runtime: Runtime, program: Path
) -> None:
    """A descriptor that is not open, or something else than a stream, is an error in words."""
    runtime.load(program)  # modules hold what they were loaded from
    before = settled_descriptors()

    with pytest.raises(error):
        runtime.run_sync(program, **options)

    assert open_descriptors() == before


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)], ids=str)
def test_closed_streams_are_not_there(
    closed: tuple[int, ...], program: Path, cache_folder: Path, tmp_path: Path
) -> None:
    """A program does not get another file where the process has closed a stream."""
    out = tmp_path / "result"
    code = f"""
import os, wali_core
for fd in {closed}:
    os.close(fd)
runtime = wali_core.Runtime(cache={str(cache_folder)!r})
results = [runtime.run_sync({str(program)!r}, args=["echo"], capture_output=True) for _ in "12"]
results += [runtime.run_sync({str(program)!r}, args=["args"], stdin=-3) for _ in "12"]
open({str(out)!r}, "w").write(repr([(r.returncode, r.stdout) for r in results]))
"""

    subprocess.run([sys.executable, "-c", code], input=b"in", capture_output=True, check=True)

    badf = 8
    (first, second, third, fourth) = eval(out.read_text())  # noqa: S307 (our own words)
    if 0 in closed:
        assert first == second == (badf, b"")
    else:
        assert (first, second) == ((0, b"in"), (0, b""))
    assert third == fourth == ((badf if 1 in closed else 0), None)


def test_no_stream_at_all(runtime: Runtime, program: Path) -> None:
    """A guest without streams gets an errno, not somebody else's file."""
    with runtime.instantiate(program, args=["read"], stdio=(-1, -1, -1)) as guest:
        assert guest.exports("_start")


def test_more_output_than_allowed_is_an_error(run: Callable[..., CompletedGuest]) -> None:
    """A program that writes beyond the limit is ended; what it wrote until then is there."""
    for stream in ("stdout", "stderr"):
        with pytest.raises(GuestError, match="more output than its limit allows") as caught:
            run("both", "1000000", output_limit=100_000)
        assert getattr(caught.value, stream) is not None
        assert len(getattr(caught.value, stream)) <= 100_000


def test_a_little_more_output_is_an_error_too(run: Callable[..., CompletedGuest]) -> None:
    """Output beyond the limit is an error though the program has ended before it was found."""
    for _ in range(20):
        with pytest.raises(GuestError, match="more output than its limit allows") as caught:
            run("both", "11", output_limit=10)
        assert caught.value.stdout == bytes(10)
    assert run("both", "10", output_limit=10).stdout == bytes(10)


def test_endless_output_is_ended(run: Callable[..., CompletedGuest]) -> None:
    """A program that never stops writing is ended at its limit, without a time-out."""
    with pytest.raises(GuestError, match="more output than its limit allows") as caught:
        run("fill", output_limit=1 << 20)

    assert caught.value.stdout is not None
    assert len(caught.value.stdout) == 1 << 20


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["spin", "read", "poll", "sleep"])
def test_a_time_out_ends_a_program(what: str, run: Callable[..., CompletedGuest]) -> None:
    """A program is ended in time whatever it does, and its output until then is in the error."""
    read, write = os.pipe()
    started = time.monotonic()

    with pytest.raises(GuestTimeout, match=r"after its 0\.1 s") as caught:
        run(what, timeout=0.1, stdin=read)

    assert 0.1 <= time.monotonic() - started < 5
    assert caught.value.seconds == 0.1
    assert caught.value.stdout in {b"ready\n", b""}  # on a busy machine it has not come that far
    assert caught.value.stderr == b""
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("timeout", [0, -1, -1e300])
def test_no_time_is_too_little(timeout: float, run: Callable[..., CompletedGuest]) -> None:
    """A program that has no time is not started."""
    with pytest.raises(GuestTimeout) as caught:
        run("args", timeout=timeout)
    assert caught.value.stdout == b""


@pytest.mark.parametrize("timeout", [1e7, 1e12, float("inf")])
def test_much_time_is_enough(timeout: float, run: Callable[..., CompletedGuest]) -> None:
    """A program that may take for ever ends when it ends."""
    assert run("args", timeout=timeout).returncode == 0


def test_a_start_function_has_the_programs_time(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """What a module does before `_start` counts, and can be ended."""
    module = guest_from_wat(
        '(module (func $spin (loop (br 0))) (start $spin) (func (export "_start")))'
    )

    with pytest.raises(GuestTimeout, match=r"after its 0\.05 s"):
        runtime.run_sync(module, timeout=0.05)


# --- WALI programs, which have a process of their own ---------------------------------------------

WALI = """(module
  (import "wali" "SYS_exit_group" (func $exit (param i32) (result i64)))
  (memory (export "memory") 1 10 shared)
  (func (export "_start") (drop (call $exit (i32.const 3)))))"""


@pytest.mark.parametrize("form", ["path", "bytes", "loaded path", "loaded bytes"])
def test_a_wali_program_may_have_any_form(
    form: str, runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A program that runs in another process can be given as it would be for this one."""
    path = guest_from_wat(WALI)
    module: Any = path if "path" in form else path.read_bytes()
    if "loaded" in form:
        module = runtime.load(module)

    assert runtime.run_sync(module).returncode == 3


# --- programs that are none -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        '(func (export "start"))',
        '(global (export "_start") i32 (i32.const 0))',
        '(func (export "_start") (param i32))',
        '(func (export "_start") (result i32) (i32.const 0))',
    ],
)
def test_a_library_is_no_program(
    text: str, runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A module without `_start`, or with one that takes or gives values, cannot be run."""
    with pytest.raises(ModuleError, match=r"no _start .* a library, not a program"):
        runtime.run_sync(guest_from_wat(f"(module {text})"))


def test_a_library_is_not_even_started(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """What is no program does not run its start function either."""
    module = guest_from_wat("(module (func $trap unreachable) (start $trap))")

    with pytest.raises(ModuleError, match="no _start"):
        runtime.run_sync(module)


def test_an_exit_in_the_start_function_is_a_status(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A program may exit before `_start`."""
    module = guest_from_wat(f"""(module {EXIT}
      (memory (export "memory") 1)
      (func $begin (call $exit (i32.const 9))) (start $begin)
      (func (export "_start") unreachable))""")

    assert runtime.run_sync(module, capture_output=True).returncode == 9


def test_a_trap_has_the_output_until_then(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A trap ends a program with its place, and what was captured."""
    module = guest_from_wat(f"""(module
      (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\\08\\00\\00\\00\\05\\00\\00\\00hello")
      (func $main (export "_start")
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
        unreachable))""")

    with pytest.raises(GuestTrap, match="unreachable") as caught:
        runtime.run_sync(module, capture_output=True)

    assert caught.value.frames == ("main",)
    assert caught.value.stdout == b"hello"


@pytest.mark.parametrize("path", ["no/such/file.wasm", "", "\udcff"])
def test_a_missing_file_is_not_found(path: str, runtime: Runtime) -> None:
    """A path where nothing is raises what open() raises."""
    with pytest.raises(FileNotFoundError):
        runtime.run_sync(path)


def test_a_folder_is_no_program(runtime: Runtime, tmp_path: Path) -> None:
    """A folder in a file's place raises what open() raises."""
    with pytest.raises(IsADirectoryError):
        runtime.run_sync(tmp_path)


def test_a_device_is_not_read_to_its_end(runtime: Runtime) -> None:
    """A file without an end is refused by its start."""
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(ModuleError, match=device):
            runtime.run_sync(device)


# --- directories ----------------------------------------------------------------------------------


def test_directories_have_the_guests_names(
    run: Callable[..., CompletedGuest], tmp_path: Path
) -> None:
    """Directories appear in the order given, by the names that the guest shall see."""
    dirs = {"/": tmp_path, "data": str(tmp_path), "größe": (tmp_path, "rw"), ".": (tmp_path, "ro")}

    assert lines(run("preopens", dirs=dirs)) == ["/", "data", "größe", "."]
    assert lines(run("preopens")) == []


def test_read_only_is_the_default(run: Callable[..., CompletedGuest], tmp_path: Path) -> None:
    """A directory is read-only unless it is granted otherwise."""
    (tmp_path / "file").write_text("content")

    for grant in (tmp_path, (tmp_path, "ro")):
        assert run("cat", "file", dirs={"/": grant}).stdout == b"content"
        assert run("create", "new", dirs={"/": grant}).returncode != 0
    assert not (tmp_path / "new").exists()
    assert run("create", "new", dirs={"/": (tmp_path, "rw")}).returncode == 0
    assert (tmp_path / "new").read_bytes() == b"created\n"


def test_directories_may_be_relative(run: Callable[..., CompletedGuest], tmp_path: Path) -> None:
    """Relative paths are of the working directory."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("content")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert run("cat", "file", dirs={"/": "sub"}).stdout == b"content"
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("dirs", "message"),
    [
        (
            {"/x": "/no/such/place"},
            "directory '/x': cannot open /no/such/place on the host: No such",
        ),
        ({"/x": __file__}, "cannot open .*: Not a directory"),
        ({"/x": "/proc"}, "lies on procfs, which is never granted"),
        ({"/x": "/proc/self/fd"}, "lies on procfs"),
        ({"/x": "/proc/self/root/proc"}, "lies on procfs"),
        ({"/x": ("/", "wr")}, "the mode is 'wr', it must be 'ro' or 'rw'"),
        ({"/x": ("/", "")}, "the mode is ''"),
        ({"/x": ("/", None)}, "the mode is None"),
    ],
)
def test_what_is_no_directory_is_refused(
    dirs: dict[str, Any], message: str, runtime: Runtime, program: Path
) -> None:
    """A directory that cannot be had is named, with what to do; nothing has run then."""
    with pytest.raises(PolicyError, match=message) as caught:
        runtime.run_sync(program, args=["args"], dirs=dirs, capture_output=True)
    assert "\n" not in str(caught.value)


def test_procfs_beneath_a_directory_is_closed(run: Callable[..., CompletedGuest]) -> None:
    """Where procfs lies in a granted tree the guest cannot open what is in it."""
    acces = 2
    result = run("cat", "proc/self/mem", dirs={"/": "/"})

    assert (result.returncode, result.stdout) == (acces, b"")
    assert run("cat", "proc/self/environ", dirs={"/": "/"}).returncode == acces


def test_a_fifo_is_waited_for_no_longer_than_allowed(
    run: Callable[..., CompletedGuest], tmp_path: Path
) -> None:
    """Opening and reading a FIFO that nobody writes to ends, at the latest with the program."""
    os.mkfifo(tmp_path / "fifo")

    try:
        result = run("cat", "fifo", dirs={"/": tmp_path}, timeout=0.2)
    except GuestTimeout:
        return
    assert result.stdout == b""


# --- policies -------------------------------------------------------------------------------------

POLICY = """
version = 1
[filesystem]
read_only = ["{folder}::/data"]
read_write = ["{folder}/out::/out"]
[environment]
inherit = ["LANG", "NOT_SET"]
set = {{ MODE = "batch" }}
[limits]
wall_time = "{time}"
memory = "3M"
"""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a policy file that grants two directories, two variables, and little else."""
    (tmp_path / "out").mkdir()
    (tmp_path / "file").write_text("content")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("NOT_SET", raising=False)
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.format(folder=tmp_path, time="1m"))
    return path


@pytest.fixture
def short_policy(policy: Path) -> Path:
    """Return the same policy, with little time."""
    policy.write_text(POLICY.format(folder=policy.parent, time="100ms"))
    return policy


@pytest.mark.parametrize("form", ["path", "string", "value"])
def test_a_policy_grants_what_it_says(
    form: str, policy: Path, program: Path, cache_folder: Path
) -> None:
    """Directories and variables of a policy are there, in whatever form it is given."""
    forms: dict[str, Any] = {
        "path": policy,
        "string": str(policy),
        "value": capabilities.Policy.load(policy),
    }

    def run(*args: str) -> CompletedGuest:
        options: Any = {"policy": forms[form], "cache": cache_folder, "capture_output": True}
        return run_sync(program, args=args, **options)

    assert lines(run("preopens")) == ["/data", "/out"]
    assert lines(run("env")) == ["LANG=C.UTF-8", "MODE=batch"]
    assert run("cat", "file").stdout == b"content"


def test_grants_come_on_top_of_a_policy(
    policy: Path, program: Path, cache_folder: Path, tmp_path: Path
) -> None:
    """The caller's directories and variables are added, and replace those of the same name."""
    with Runtime(policy=policy, cache=cache_folder) as runtime:
        result = runtime.run_sync(
            program,
            args=["preopens"],
            dirs={"/more": tmp_path, "/data": (tmp_path, "rw")},
            capture_output=True,
        )
        assert lines(result) == ["/data", "/out", "/more"]
        result = runtime.run_sync(
            program, args=["env"], env={"MODE": "x", "MORE": "y"}, capture_output=True
        )
        assert lines(result) == ["LANG=C.UTF-8", "MODE=x", "MORE=y"]


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_a_policys_time_is_not_widened(
    timeout: float | None, short_policy: Path, program: Path, cache_folder: Path
) -> None:
    """The shorter of the policy's time and the caller's counts."""
    with (
        Runtime(policy=short_policy, cache=cache_folder) as runtime,
        pytest.raises(GuestTimeout, match=r"after its 0\.1 s"),
    ):
        runtime.run_sync(program, args=["spin"], timeout=timeout, capture_output=True)


def test_a_policys_time_is_narrowed(short_policy: Path, program: Path, cache_folder: Path) -> None:
    """A time-out shorter than the policy's counts instead."""
    with (
        Runtime(policy=short_policy, cache=cache_folder) as runtime,
        pytest.raises(GuestTimeout, match=r"after its 0\.02 s"),
    ):
        runtime.run_sync(program, args=["spin"], timeout=0.02, capture_output=True)


def test_a_policys_memory_is_a_limit(policy: Path, program: Path, cache_folder: Path) -> None:
    """A program grows its memory within the policy's limit; to want more is its end."""
    with Runtime(policy=policy, cache=cache_folder) as runtime:
        assert runtime.run_sync(program, args=["grow", "4"]).returncode == 0
        with pytest.raises(GuestLimit) as caught:
            runtime.run_sync(program, args=["grow", "33"])

    assert caught.value.limit == "memory"


@pytest.mark.parametrize("memory", [0, 1, 65536])
def test_memory_is_narrowed_by_the_caller(
    memory: int, policy: Path, program: Path, cache_folder: Path
) -> None:
    """Less memory than the program starts with is refused, before it runs."""
    with (
        Runtime(policy=policy, cache=cache_folder) as runtime,
        pytest.raises(GuestLimit, match=rf"to start, and may have {memory} \(limits") as caught,
    ):
        runtime.run_sync(program, args=["args"], memory=memory)
    assert caught.value.limit == "memory"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "version"),
        ("version = 2", "version"),
        ("version = 1\nfrobnicate = 1", "frobnicate"),
        ("version = 1\n[filesystem]\nread_only = 3", r"filesystem\.read_only"),
        ("version = 1\n[limits]\nwall_time = 'soon'", r"limits\.wall_time"),
        ("not toml", "is not TOML"),
        ("\xff", "is not TOML"),
    ],
)
def test_a_policy_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """A policy with a mistake is refused when the runtime is made, with file and key."""
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(PolicyError, match=f"policy.toml: .*{message}"):
        Runtime(policy=path)


def test_a_missing_policy_is_refused(tmp_path: Path) -> None:
    """A policy file that is not there grants nothing: it is an error."""
    with pytest.raises(PolicyError, match=r"no\.toml: cannot be read: No such file"):
        Runtime(policy=tmp_path / "no.toml")


def test_everything_can_be_allowed(program: Path, cache_folder: Path) -> None:
    """With allow_all a program has the file system, the working directory and the environment."""
    options: Any = {"allow_all": True, "cache": cache_folder, "capture_output": True}

    granted = lines(run_sync(program, args=["preopens"], **options))
    assert granted[0] == "."
    assert {"/usr", "/tmp"} <= {*granted}
    assert not {"/", "/proc"} & {*granted}
    environment = lines(run_sync(program, args=["env"], **options))
    assert f"PATH={os.environ['PATH']}" in environment


# --- many at once ---------------------------------------------------------------------------------


def test_threads_share_a_runtime(runtime: Runtime, program: Path, tmp_path: Path) -> None:
    """Programs run in eight threads at once, each with its own input, output and end."""
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "file").write_text(str(number))
            for _ in range(5):
                data = os.urandom(100_000)
                options: Any = {"dirs": {"/": folder}, "capture_output": True}
                assert (
                    runtime.run_sync(program, args=["echo"], stdin=data, **options).stdout == data
                )
                shown = runtime.run_sync(program, args=["cat", "file"], **options)
                assert shown.stdout == str(number).encode()
                ended = runtime.run_sync(program, args=["exit", str(number)], **options)
                assert ended.returncode == number
                with pytest.raises(GuestTimeout):
                    runtime.run_sync(program, args=["spin"], timeout=0.02, **options)
                with pytest.raises(GuestTrap):
                    runtime.run_sync(program, args=["trap"], **options)
        except BaseException as error:  # noqa: BLE001 (shown below)
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not problems


def test_nothing_is_left_of_many_runs(
    program: Path, cache_folder: Path, guest_from_wat: Callable[..., Path]
) -> None:
    """Runs with a runtime of their own leave no descriptor, thread or mapping behind."""
    library = guest_from_wat("(module)")

    def one_of_each() -> None:
        options: Any = {"cache": cache_folder, "capture_output": True}
        run_sync(program, args=["both", "10000"], stdin=b"x", **options)
        with pytest.raises(GuestTimeout):
            run_sync(program, args=["spin"], timeout=0.001, **options)
        with pytest.raises(GuestError):
            run_sync(program, args=["both", "10000"], output_limit=10, **options)
        with pytest.raises(ModuleError):
            run_sync(library, **options)
        with pytest.raises(PolicyError):
            run_sync(program, dirs={"/": "/no/such"}, **options)

    def state() -> tuple[list[str], int, int]:
        gc.collect()
        tasks = len(os.listdir("/proc/self/task"))
        return sorted(os.listdir("/proc/self/fd")), threading.active_count(), tasks

    for _ in range(3):
        one_of_each()
    before = state()
    mapped = Path("/proc/self/maps").read_text().count("\n")
    for _ in range(30):
        one_of_each()

    assert state() == before
    assert Path("/proc/self/maps").read_text().count("\n") - mapped < 20


def test_ctrl_c_ends_a_run(runtime: Runtime, program: Path, when_ready: WhenReady) -> None:
    """Ctrl-C during a run is KeyboardInterrupt; the runtime goes on."""
    import signal

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    read, write = os.pipe()
    with when_ready(press) as output, pytest.raises(KeyboardInterrupt):
        runtime.run_sync(program, args=["read"], stdin=read, stdout=output)
    os.close(read)
    os.close(write)

    assert runtime.run_sync(program, args=["args"], capture_output=True).returncode == 0
