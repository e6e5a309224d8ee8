"""A process for every program: how it ends, what it leaves, and that nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from capabilities import Limits, Policy
from tests.wali import building
from wali_core import GuestError, GuestTimeout, GuestTrap, Runtime, UseError, WaliError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Wali = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 5.0  # seconds, for what takes milliseconds

# How a program dies, and of which signal: of none where wasmtime turns the fault into a trap, which
# says more.
DEATHS = {
    "fill protected": signal.SIGSEGV,
    "read cut": signal.SIGBUS,
    "write cut": signal.SIGBUS,
    "abort": signal.SIGABRT,
    "terminate": signal.SIGTERM,
    "kill": signal.SIGKILL,
}
TRAPS = {
    "read protected": "out of bounds memory access",
    "write protected": "out of bounds memory access",
    "read unmapped": "out of bounds memory access",
    "divide": "integer divide by zero",
    "unreachable": "unreachable",
}


@pytest.fixture
def here(box: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty folder, which is the working directory now."""
    monkeypatch.chdir(box)
    return box


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Every test ends with the descriptors and children that it began with."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def open_descriptors() -> set[str]:
    """Return what this process has open, but for what the looking itself opens."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    # Compiled modules live as long as what holds them, be it an exception's frames.
    return {line for line in found if "/fd" not in line and not re.search(r"/cache\d+/", line)}


def is_gone(pid: int) -> bool:
    """Wait for a process that is nobody's child here, and say whether it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], PATIENCE)[0])
    finally:
        os.close(pidfd)


# --- results --------------------------------------------------------------------------------------


def test_status_and_usage(runtime: Runtime) -> None:
    """A status is a result, with what the process has used."""
    result = runtime.run_sync(building.program("odd", "RESULT"), capture_output=True)

    assert (result.returncode, result.stdout, result.stderr) == (41, b"", b"")
    assert result.usage is not None
    assert result.usage.ru_maxrss > 1000
    assert result.usage.ru_utime + result.usage.ru_stime > 0


@pytest.mark.parametrize("how", DEATHS)
def test_death_by_signal(how: str, wali: Wali, free: Runtime, here: Path) -> None:
    """The signal is the process's end: for a shell, and as subprocess says it."""
    program = building.program("faults")

    done = wali("--allow-all", program, how)
    result = free.run_sync(program, args=[how], capture_output=True)

    assert (done.returncode, done.stdout, done.stderr) == (-DEATHS[how], "", "")
    assert (result.returncode, result.stdout) == (-DEATHS[how], b"")
    assert os.listdir(here) == (["cut"] if "cut" in how else [])


@pytest.mark.parametrize("how", TRAPS)
def test_trap(how: str, wali: Wali, free: Runtime) -> None:
    """A fault that wasmtime catches is a trap, with the functions that it happened in."""
    program = building.program("faults")

    done = wali("--allow-all", program, how)
    with pytest.raises(GuestTrap, match=TRAPS[how]) as trap:
        free.run_sync(program, args=[how])

    assert done.returncode == 134
    where = "".join(f"\n    in {name}" for name in trap.value.frames)
    assert f"the program trapped: {trap.value}{where}\n" in done.stderr
    assert trap.value.frames[-2:] == ("main", "_start")


@pytest.mark.parametrize("how", ["fill protected", "kill", "read protected"])
def test_death_of_a_forked_child(how: str, free: Runtime) -> None:
    """It is the child's alone; the program that forked it goes on, and is told the signal."""
    result = free.run_sync(building.program("faults"), args=["child", how], capture_output=True)

    expected = DEATHS.get(how, 134)
    assert (result.returncode, result.stdout) == (0, f"{how}: {int(expected)}\n".encode())


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["thread", "task"])
def test_what_nobody_foresaw_is_the_hosts_error(way: str, cache_folder: Path) -> None:
    """An exception in the host's part over there is one here, and says where it came up."""
    policy = Policy(limits=Limits(processes=2.5))  # type: ignore[arg-type]
    said = (
        r"the program's process failed in the host's part: TypeError: 'float' object cannot be "
        r"interpreted as an integer \(_limits.py, line \d+\)"
    )
    program = building.program("hello")
    with Runtime(policy=policy, cache=cache_folder) as runtime:
        run = {
            "thread": partial(runtime.run_sync, program, capture_output=True),
            "task": partial(trio.run, partial(runtime.run, program, capture_output=True)),
        }[way]
        for _ in range(2):
            with pytest.raises(WaliError, match=said) as caught:
                run()
            assert type(caught.value) is WaliError


def test_output_is_captured(free: Runtime) -> None:
    """What it and its children print is collected."""
    result = free.run_sync(building.program("processes"), capture_output=True)

    assert result.returncode == 0
    assert b"from the child: 5\n" in (result.stdout or b"")


@pytest.mark.usefixtures("here")
def test_input_is_bytes(free: Runtime) -> None:
    """Bytes are what a program reads on its standard input."""
    result = free.run_sync(
        building.program("attempt"),
        args=["read", "/dev/stdin", "read", "/dev/stdin"],
        stdin=b"a",
        capture_output=True,
    )

    assert result.stdout == b"1\n1\n"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_streams_are_sockets(kind: socket.SocketKind, wali: Wali, runtime: Runtime) -> None:
    """A confined program finds a socket where somebody has given it one, as inetd does."""
    program = building.program("attempt")
    own, given = socket.socketpair(socket.AF_UNIX, kind)
    with own, given:
        result = runtime.run_sync(program, args=["pid", ""], stdin=given, stdout=given)
        done = wali(program, "pid", "", stdin=given, stdout=given, capture_output=False)

        assert (result.returncode, done.returncode) == (0, 0)
        said = b""
        while len(said) < 4:
            said += own.recv(100, socket.MSG_DONTWAIT)
        assert said == b"1\n1\n"


def test_output_goes_to_a_file(free: Runtime, tmp_path: Path) -> None:
    """A file that is given is written as it is."""
    with (tmp_path / "out").open("wb") as file:
        result = free.run_sync(building.program("odd"), stdout=file)

    assert (result.returncode, result.stdout) == (0, None)
    assert (tmp_path / "out").read_text() == "after it\n"


@pytest.mark.usefixtures("here")
def test_too_much_output_ends_it(free: Runtime) -> None:
    """A program that writes more than is wanted is ended, and what came until then is kept."""
    with pytest.raises(GuestError, match="more output than its limit") as error:
        free.run_sync(building.program("memory"), capture_output=True, output_limit=10)

    assert error.value.stdout == b"mapped: 1\n"


def test_stream_that_is_not_open_is_refused(free: Runtime) -> None:
    """A descriptor that is not there is the caller's mistake."""
    with pytest.raises(UseError, match="not open"):
        free.run_sync(building.program("odd"), stdout=9999)


# --- its end --------------------------------------------------------------------------------------


def started(error: GuestError) -> list[int]:
    """Return the process numbers that `processes` has printed."""
    return [int(word) for word in (error.stdout or b"").split()]


@pytest.mark.parametrize("way", ["sleeping", "spinning", "reading", "fleeing"])
def test_timeout_ends_all_that_it_started(way: str, free: Runtime) -> None:
    """A program and the child that it forked are gone, whatever they were doing, and wherever."""
    program = free.load(building.program("processes"))
    free.run_sync(program, args=["fleeing and leaving"], capture_output=True)  # all is loaded then
    reader, writer = os.pipe()
    try:
        with pytest.raises(GuestTimeout) as error:
            free.run_sync(program, args=[way], stdin=reader, capture_output=True, timeout=2)
    finally:
        os.close(reader)
        os.close(writer)

    assert error.value.seconds == 2
    pids = started(error.value)
    assert len(pids) == 2
    assert [is_gone(pid) for pid in pids] == [True, True]


def test_policys_time_is_a_timeout_too(cache_folder: Path) -> None:
    """`wall_time` of a policy ends it with the same error as `timeout`."""
    policy = Policy(limits=Limits(wall_time=0.5))
    with (
        Runtime(policy=policy, cache=cache_folder) as runtime,
        pytest.raises(GuestTimeout) as error,
    ):
        runtime.run_sync(building.program("processes"), args=["spinning"], capture_output=True)

    assert error.value.seconds == 0.5


@pytest.mark.parametrize("way", ["sleeping", "spinning"])
def test_timeout_of_the_command(way: str, wali: Wali) -> None:
    """`--timeout` ends it with status 124."""
    done = wali("--timeout", "300ms", building.program("processes"), way)

    assert done.returncode == 124
    assert "stopped after its 0.3 s" in done.stderr


@pytest.mark.parametrize("way", ["sleeping", "spinning", "fleeing", "executing"])
def test_timeout_of_the_command_ends_children(way: str, wali: Wali, tmp_path: Path) -> None:
    """What it forked is gone as well."""
    words = ("--allow-all", "--timeout", "2s", building.program("processes"), way)
    with (tmp_path / "out").open("wb") as out:
        done = wali(*words, capture_output=False, stdout=out, stderr=subprocess.DEVNULL)

    pids = [int(pid) for pid in (tmp_path / "out").read_text().split()]
    assert (done.returncode, [is_gone(pid) for pid in pids]) == (124, [True, True])


def test_time_of_native_programs(wali: Wali, tmp_path: Path) -> None:
    """Where there is a time-out, native programs that it has executed do not outlive a program."""
    words = ("--allow-all", "--timeout", "60s", building.program("processes"))
    with (tmp_path / "out").open("wb") as out:
        done = wali(*words, "executing in the child", capture_output=False, stdout=out)

    pids = [int(pid) for pid in (tmp_path / "out").read_text().split()]
    assert (done.returncode, [is_gone(pid) for pid in pids]) == (0, [True, True])


@pytest.mark.parametrize("way", ["sleeping", "executing"])
@pytest.mark.parametrize("options", [(), ("--timeout", "60s")])
def test_signals_reach_the_program(
    way: str, options: tuple[str, ...], cache_folder: Path, box: Path
) -> None:
    """What is sent to the command's process is the program's, and so is the end."""
    command = [sys.executable, "-m", "wali_core", "run", "--allow-all", *options]
    with subprocess.Popen(
        [*command, str(building.program("processes")), way],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)},
        cwd=box,
        stdout=subprocess.PIPE,
    ) as command_process:
        assert command_process.stdout is not None
        pids = [int(word) for word in command_process.stdout.readline().split()]
        command_process.send_signal(signal.SIGSTOP)
        command_process.send_signal(signal.SIGCONT)
        command_process.send_signal(signal.SIGTERM)
        command_process.stdout.close()
        assert command_process.wait(PATIENCE) == -signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[1], signal.SIGKILL)

    assert [is_gone(pid) for pid in pids] == [True, True]


def test_timeout_of_the_command_ends_confined_children(wali: Wali, tmp_path: Path) -> None:
    """What a policy lets fork has its deadline in each child."""
    (tmp_path / "p.toml").write_text(
        'version = 1\n[syscalls]\nallow = ["@process", "@basic-io", "@default"]\n'
    )
    words = ("--policy", tmp_path / "p.toml", "--timeout", "6s")
    with (tmp_path / "out").open("wb") as out:
        done = wali(
            *(*words, building.program("processes"), "spinning"),
            capture_output=False,
            stdout=out,
            stderr=subprocess.DEVNULL,
        )

    pids = [int(pid) for pid in (tmp_path / "out").read_text().split()]
    assert len(pids) == 2
    assert (done.returncode, [is_gone(pid) for pid in pids]) == (124, [True, True])


@pytest.mark.parametrize("way", ["leaving", "fleeing and leaving"])
def test_leaves_no_child_behind(way: str, free: Runtime) -> None:
    """A program that ends before its child takes it along, be it in a session of its own."""
    result = free.run_sync(building.program("processes"), args=[way], capture_output=True)

    pids = [int(word) for word in (result.stdout or b"").split()]
    assert len(pids) == 2
    assert [is_gone(pid) for pid in pids] == [True, True]


def test_running_away_does_not_help(free: Runtime) -> None:
    """Where each process ends as soon as it has forked the next, none is left all the same."""
    program = free.load(building.program("processes"))
    free.run_sync(program, args=["leaving"], capture_output=True)
    reader, writer = os.pipe()
    try:
        with pytest.raises(GuestTimeout):
            free.run_sync(program, args=["running away"], stdout=writer, timeout=2)
        os.close(writer)
        writer = -1
        first = os.read(reader, 100)
        assert select.select([reader], [], [], PATIENCE)[0]
        assert os.read(reader, 100) == b""  # nobody has the other end any more
    finally:
        for fd in {reader, writer} - {-1}:
            os.close(fd)
    assert first.strip().isdigit()


HOST = """
import sys
from wali_core import Runtime
with Runtime(allow_all=True, cache=sys.argv[2]) as runtime:
    runtime.run_sync(sys.argv[1], args=[sys.argv[3]])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("way", ["sleeping", "fleeing"])
def test_ends_with_its_parent(way: str, number: signal.Signals, cache_folder: Path) -> None:
    """Whoever started it is killed: so is it, and the child that it forked."""
    program = str(building.program("processes"))
    with subprocess.Popen(
        [sys.executable, "-c", HOST, program, str(cache_folder), way],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as host:
        assert host.stdout is not None
        pids: list[int] = []
        while len(pids) < 2:
            pids += map(int, host.stdout.readline().split())
        host.send_signal(number)

    assert len(pids) == 2
    assert [is_gone(pid) for pid in pids] == [True, True]


INTERRUPTED = """
import os, signal, sys, threading
from wali_core import Runtime
reader, writer = os.pipe()
def interrupt():
    line = os.read(reader, 100)
    print(line.decode(), end="", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
with Runtime(allow_all=True, cache=sys.argv[2]) as runtime:
    try:
        runtime.run_sync(sys.argv[1], args=["sleeping"], stdout=writer)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_interrupt_ends_it(cache_folder: Path) -> None:
    """Ctrl-C is KeyboardInterrupt where it was started, and the end of all that was started."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, building.program("processes"), str(cache_folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    numbers, said = done.stdout.splitlines()
    assert (said, done.returncode) == ("interrupted", 0)
    assert [is_gone(int(pid)) for pid in numbers.split()] == [True, True]


def test_many_at_once(free: Runtime) -> None:
    """Threads that each run a program get their own results."""
    program = building.program("odd", "RESULT")
    free.load(program)
    statuses = []

    def run() -> None:
        statuses.append(free.run_sync(program, capture_output=True).returncode)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [41] * 4


def test_memory_limit_holds(wali: Wali) -> None:
    """`--memory` bounds what it can map."""
    words = ["map memory", "1000000"]

    enough = wali("--memory", "4M", building.program("attempt"), *words * 3)
    too_much = wali("--memory", "4M", building.program("attempt"), *words * 4)

    assert (enough.returncode, enough.stdout) == (0, "0\n0\n0\n")
    assert too_much.returncode == 137
    assert "bytes of memory (limits.memory)" in too_much.stderr


@pytest.mark.parametrize("most", [32, 256, 600])
def test_native_programs_where_few_files_may_be_open(most: int, wali: Wali) -> None:
    """What the program has open is laid out within what its process may have."""
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most, most))
    done = wali("--allow-all", building.program("attempt"), "execute", "/bin/true", preexec_fn=few)

    assert (done.stdout, done.stderr) == ("0\n", "")
