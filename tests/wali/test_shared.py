"""A trusted program in the embedder's own process: what it has there, and what it has not."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.wali import building
from wali_core import GuestTimeout, GuestTrap, ModuleError, PolicyError, Runtime, UseError
from wali_core import _bridge as bridge

if TYPE_CHECKING:
    from pathlib import Path


F_OFD_SETLK = 37  # which Python has no name for


def attempted(runtime: Runtime, *words: str | Path) -> list[int]:
    """Have a program attempt things in this process."""
    result = runtime.run_sync(
        building.program("attempt"),
        args=[str(word) for word in words],
        isolation="shared",
        capture_output=True,
    )
    assert (result.returncode, result.stderr, result.usage) == (0, b"", None)
    return [int(line) for line in (result.stdout or b"").splitlines()]


def test_runs_in_this_process(runtime: Runtime) -> None:
    """A program computes, reads and writes, with a status as its result."""
    result = runtime.run_sync(
        building.program("odd", "RESULT"), isolation="shared", capture_output=True
    )

    assert (result.returncode, result.stdout) == (41, b"")


def test_status_is_as_wait_tells_it(runtime: Runtime) -> None:
    """It has eight bits, wherever the program runs."""
    for isolation in ("shared", "process"):
        result = runtime.run_sync(
            building.program("odd", "RESULT"), args=["261"], isolation=isolation
        )

        assert result.returncode == 5


@pytest.mark.parametrize("jumps", [0, 1])
def test_calls_return_in_either_way(runtime: Runtime, jumps: int) -> None:
    """As usual or by a jump, which is quicker on some processors: what they give is the same."""
    flag = ctypes.c_uint32.in_dll(bridge.core._library, "wali_jumps_back")
    was, flag.value = flag.value, jumps
    try:
        got = attempted(runtime, "clock", "", "random", "", "map code", "", "is open", "1")
    finally:
        flag.value = was

    assert got == [0, 8, -1, 0]


def test_environment_is_read_from_its_file(runtime: Runtime) -> None:
    """Which a C library maps: here that is a copy."""
    result = runtime.run_sync(
        building.program("hello"),
        env={"A": "1", "B": "two words"},
        isolation="shared",
        capture_output=True,
    )

    assert result.stdout is not None
    assert b"read all of it: 1\nmapped the same: 1\nmunmap: 0\nclose: 0\n" in result.stdout
    assert sorted(result.stdout.split(b"close: 0\n")[1].splitlines()) == [b"A=1", b"B=two words"]


def test_whats_the_processs_own_is_refused(runtime: Runtime) -> None:
    """Another process, the working directory, signals: ENOSYS, and nothing has happened."""
    here, mask = os.getcwd(), os.umask(0o77)
    try:
        got = attempted(
            runtime,
            *("fork", "", "chdir", "/", "getcwd", "", "umask", "", "wait", ""),
            *("kill", str(os.getpid()), "user", "", "no cores", ""),
        )

        assert got == [-38, -38, -1, -38, -38, -38, -38, -1]
        assert (os.getcwd(), os.umask(0o77)) == (here, 0o77)
    finally:
        os.umask(mask)


def test_memory_is_plain(runtime: Runtime) -> None:
    """Memory can be mapped and given back, not protected: a fault could end us all."""
    got = attempted(
        runtime,
        *("map memory", "100000", "protect", "", "map code", "", "make code", ""),
    )

    assert got == [0, -38, -1, -38]


def test_relative_paths_start_nowhere(runtime: Runtime) -> None:
    """It has no working directory, so that many can share the process."""
    assert attempted(runtime, "read", "etc/passwd", "read", "/etc/passwd") == [-9, 1]
    assert attempted(runtime, "map a file", "/etc/passwd") == [0]


def test_trap_is_an_error_here(runtime: Runtime) -> None:
    """A fault ends the program alone."""
    with pytest.raises(GuestTrap, match="unreachable"):
        runtime.run_sync(building.program("faults"), args=["unreachable"], isolation="shared")


@pytest.mark.parametrize("way", ["spinning", "reading", "sleeping"])
def test_timeout_ends_it(way: str, runtime: Runtime) -> None:
    """What it does meanwhile, computing or waiting, is brought to an end in this process."""
    reader, writer = os.pipe()
    try:
        with pytest.raises(GuestTimeout):
            runtime.run_sync(
                building.program("processes"),
                args=[way],
                stdin=reader,
                isolation="shared",
                capture_output=True,
                timeout=0.1,
            )
    finally:
        os.close(reader)
        os.close(writer)


def waited(runtime: Runtime, what: str, path: Path) -> str:
    """Have a program do what the kernel would not let it out of; what it said."""
    result = runtime.run_sync(
        building.program("attempt"),
        args=[what, str(path)],
        isolation="shared",
        capture_output=True,
        timeout=0.2,
    )
    return (result.stdout or b"").decode().strip()


@pytest.mark.parametrize("what", ["wait for a lock", "wait for a file's lock"])
def test_waits_for_locks_end(what: str, runtime: Runtime, tmp_path: Path) -> None:
    """A lock that somebody else has is waited for until the time-out; a free one is had."""
    file = tmp_path / "file"
    file.touch()
    with file.open("r+") as ours:
        fcntl.fcntl(ours, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        with pytest.raises(GuestTimeout):
            waited(runtime, what, file)

    assert waited(runtime, what, file) == "0"


def test_waits_for_fifos_end(runtime: Runtime, tmp_path: Path) -> None:
    """So is the other end of a FIFO, and no thread is left that waits for it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = threading.active_count()

    with pytest.raises(GuestTimeout):
        waited(runtime, "read", fifo)
    assert threading.active_count() == before

    ours = os.open(fifo, os.O_RDWR)
    os.write(ours, b"x")
    assert waited(runtime, "read", fifo) == "1"
    os.close(ours)


def test_must_be_spelled_out(runtime: Runtime) -> None:
    """A library's function can be called where the program is trusted, and not otherwise."""
    library = building.program("library", start=False)

    with pytest.raises(ModuleError, match="isolation='shared' if you trust it"):
        runtime.instantiate(library)
    with runtime.instantiate(library, isolation="shared") as guest:
        pid = guest.call("process")

    assert pid == os.getpid()


@pytest.mark.parametrize("isolation", ["none", "Shared", None])
def test_other_isolations_do_not_exist(isolation: Any, runtime: Runtime) -> None:
    """Least of all do they run a program here, confining this process with it."""
    program = building.program("attempt")
    module = runtime.load(program)

    for what in (program, module):
        with pytest.raises(PolicyError, match="it must be 'process' or 'shared'"):
            runtime.run_sync(what, args=["pid", ""], isolation=isolation)
        with pytest.raises(PolicyError, match="isolation"):
            trio.run(partial(runtime.run, what, isolation=isolation))
        with pytest.raises(PolicyError, match="isolation"):
            runtime.instantiate(what, isolation=isolation)
    with pytest.raises(PolicyError, match="isolation"):
        runtime.load(program, isolation=isolation)


@pytest.mark.parametrize(("loaded", "run"), [("process", "shared"), ("shared", "process")])
def test_modules_are_loaded_for_one_isolation(loaded: str, run: str, runtime: Runtime) -> None:
    """Memory that can be shared could be waited on, past a deadline; without it are no threads."""
    module = runtime.load(building.program("attempt"), isolation=loaded)

    with pytest.raises(UseError, match=f"for isolation='{loaded}': load it with isolation='{run}'"):
        runtime.run_sync(module, isolation=run)
    with pytest.raises(UseError, match=f"load it with isolation='{run}'"):
        trio.run(partial(runtime.run, module, isolation=run))


def test_arguments_are_a_list(runtime: Runtime) -> None:
    """A single string would be a list of its letters."""
    for isolation in ("shared", "process"):
        with pytest.raises(TypeError, match="args: 'pid' is one string: give a list of them"):
            runtime.run_sync(building.program("attempt"), args="pid", isolation=isolation)


def test_many_at_once(runtime: Runtime) -> None:
    """Threads have programs of their own, with memories of their own."""
    statuses = []

    def run() -> None:
        result = runtime.run_sync(
            building.program("odd", "RESULT"), isolation="shared", capture_output=True
        )
        statuses.append(result.returncode)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [41] * 4
