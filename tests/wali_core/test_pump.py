"""Tests of wali_core._pump: standard streams whose other end is an iterator, or a callable."""

from __future__ import annotations

import array
import gc
import io
import os
import pty
import queue
import signal
import subprocess
import sys
import threading
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from tests.held import open_descriptors, settled_descriptors
from wali_core import CompletedGuest, GuestError, GuestTimeout, GuestTrap, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.oldest

WASI = "wasi_snapshot_preview1"

# The status has a bit for each of the three streams that wasi-libc would call a terminal.
TERMINALS = f"""
(module
  (import "{WASI}" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $terminal (param $fd i32) (result i32)
    (if (call $fdstat (local.get $fd) (i32.const 64)) (then (return (i32.const 0))))
    (i32.and
      (i32.eq (i32.load8_u (i32.const 64)) (i32.const 2))
      (i64.eqz (i64.and (i64.load (i32.const 72)) (i64.const 0x24)))))
  (func (export "_start")
    (call $exit
      (i32.or (call $terminal (i32.const 0))
        (i32.or (i32.shl (call $terminal (i32.const 1)) (i32.const 1))
          (i32.shl (call $terminal (i32.const 2)) (i32.const 2)))))))
"""

# A WALI program that writes what it reads.
ECHO = """
(module
  (import "wali" "SYS_read" (func $read (param i32 i32 i32) (result i64)))
  (import "wali" "SYS_write" (func $write (param i32 i32 i32) (result i64)))
  (memory (export "memory") 2)
  (func (export "_start") (local $got i64)
    (loop $more
      (local.set $got (call $read (i32.const 0) (i32.const 8) (i32.const 65536)))
      (if (i64.gt_s (local.get $got) (i64.const 0))
        (then
          (drop (call $write (i32.const 1) (i32.const 8) (i32.wrap_i64 (local.get $got))))
          (br $more))))))
"""


class Mine(Exception):
    """What only the caller's own code raises."""


@pytest.fixture
def run(runtime: Runtime, program: Path) -> Callable[..., CompletedGuest]:
    """Return a function that runs the program with arguments."""
    return lambda *args, **options: runtime.run_sync(program, args=args, **options)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread of a stream's outlives its guest, unless a test knows why."""
    yield
    left = [thread for thread in threading.enumerate() if thread.name in ("Feeder", "Drain")]
    for thread in left:
        thread.join(10)
    assert not any(thread.is_alive() for thread in left)


# --- standard input from an iterator --------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b""],
        [b"one ", b"two"],
        [b"", b"after nothing", b""],
        [bytearray(b"bytes"), memoryview(b"view"), array.array("H", [1, 2])],
        [b"x" * 300_000, b"y" * 65536],
        [b"%d\n" % i for i in range(5000)],
    ],
    ids=["none", "empty", "two", "gaps", "buffers", "large", "many"],
)
def test_what_is_iterated_arrives(chunks: list[Any], run: Callable[..., CompletedGuest]) -> None:
    """A guest reads the pieces one after the other, whatever their sizes, and then the end."""
    result = run("echo", stdin=iter(chunks), capture_output=True)

    assert result.stdout == b"".join(bytes(chunk) for chunk in chunks)


def test_lists_and_files_in_memory_are_iterables_too(run: Callable[..., CompletedGuest]) -> None:
    """What can be iterated need not be an iterator; a file that has no descriptor is read."""
    assert run("echo", stdin=[b"a", b"b"], capture_output=True).stdout == b"ab"
    assert run("echo", stdin=io.BytesIO(b"1\n2"), capture_output=True).stdout == b"1\n2"


def test_an_iterator_is_asked_as_the_guest_reads(run: Callable[..., CompletedGuest]) -> None:
    """An endless iterator runs ahead by no more than a pipe holds, and is closed at the end."""
    asked, closed = [], []

    def endless() -> Iterator[bytes]:
        try:
            for number in count():
                asked.append(number)
                yield bytes(4096)
        finally:
            closed.append(threading.current_thread().name)

    assert run("read", stdin=endless(), capture_output=True).returncode == 0

    assert len(asked) <= 2 * 16 + 2  # what the guest may have read, what the pipe holds
    assert closed == ["Feeder"]


def test_an_iterator_that_nobody_reads_is_closed(run: Callable[..., CompletedGuest]) -> None:
    """A guest that ends without reading leaves an iterator that knows of its end."""
    closed = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            closed.append(True)

    assert run("exit", "3", stdin=endless()).returncode == 3
    assert closed == [True]


@pytest.mark.parametrize("what", ["echo", "spin", "sleep", "read"])
def test_what_an_iterator_raises_ends_the_guest(
    what: str, run: Callable[..., CompletedGuest]
) -> None:
    """The caller sees its own exception, wherever the guest is at the time."""

    def failing() -> Iterator[bytes]:
        if what == "echo":
            yield b"some"
        raise Mine

    with pytest.raises(Mine) as caught:
        run(what, stdin=failing(), stdout=subprocess.DEVNULL)

    assert isinstance(caught.value.__cause__, GuestError)
    assert "standard input" in str(caught.value.__cause__)


def test_what_an_iterator_raises_at_its_end_is_raised(run: Callable[..., CompletedGuest]) -> None:
    """An exception from the clean-up of a generator is not lost."""

    def untidy() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            raise Mine

    with pytest.raises(Mine):
        run("exit", "0", stdin=untidy())


def test_only_bytes_can_be_read(run: Callable[..., CompletedGuest]) -> None:
    """A piece of text is an error of the iterator's."""
    with pytest.raises(TypeError, match="bytes-like"):
        run("echo", stdin=iter(["text"]), stdout=subprocess.DEVNULL)


def test_nobody_waits_for_an_iterator_that_waits(
    run: Callable[..., CompletedGuest],
) -> None:
    """A guest's end is a result at once, while its input is still being waited for elsewhere."""
    asked, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def waiting() -> Iterator[bytes]:
        try:
            yield b"first"
            asked.set()
            go_on.wait()
            yield b"second"
        finally:
            closed.set()

    # The result is there when the output is, and that is when the iterator waits.
    assert run("read", stdin=waiting(), stdout=lambda _: asked.wait(10)).returncode == 0

    assert not closed.is_set()
    go_on.set()
    assert closed.wait(10)


def test_a_deadline_passes_while_an_iterator_waits(run: Callable[..., CompletedGuest]) -> None:
    """A time-out does not depend on the iterator's goodwill."""
    go_on = threading.Event()

    def waiting() -> Iterator[bytes]:
        go_on.wait()
        yield b""

    with pytest.raises(GuestTimeout):
        run("read", stdin=waiting(), timeout=0.05, stdout=subprocess.DEVNULL)
    go_on.set()


def test_a_child_that_the_caller_forks_does_not_hold_the_pipe(
    run: Callable[..., CompletedGuest],
) -> None:
    """Input ends where its iterator does, though a forked child lives on."""
    read, write = os.pipe()
    children: list[int] = []

    def give() -> Iterator[bytes]:
        yield b"x"
        children.append(os.fork())
        if children[0] == 0:
            os.close(write)
            os.read(read, 1)  # until the parent lets it go
            os._exit(0)

    run("echo", stdin=give(), stdout=subprocess.DEVNULL, timeout=60)
    os.close(write)
    os.close(read)
    os.waitpid(children[0], 0)


# --- output to callables --------------------------------------------------------------------------


@pytest.mark.parametrize("what", [["fill"], ["both", "10"]])
def test_a_time_out_holds_for_what_is_passed_on(
    what: list[str], run: Callable[..., CompletedGuest]
) -> None:
    """A function that does not return is left behind when the time is over."""
    go_on, called = threading.Event(), []

    def stuck(piece: bytes) -> None:
        called.append(piece)
        go_on.wait()

    with pytest.raises(GuestTimeout, match=r"after its 0\.2 s"):
        run(*what, stdout=stuck, stderr=subprocess.DEVNULL, timeout=0.2)
    go_on.set()
    assert len(called) == 1


def test_ctrl_c_ends_a_run_whose_output_is_stuck(run: Callable[..., CompletedGuest]) -> None:
    """So it does while what is left is being passed on, and the guest has gone."""
    go_on = threading.Event()

    def stuck(_: bytes) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait()

    with pytest.raises(KeyboardInterrupt):
        run("both", "10", stdout=stuck, stderr=subprocess.DEVNULL)
    go_on.set()


def test_output_is_passed_on(run: Callable[..., CompletedGuest]) -> None:
    """Both streams go to their callables, whole and in order, in this process."""
    out: list[bytes] = []
    errors: list[bytes] = []
    process = []

    def take(chunk: bytes) -> None:
        out.append(chunk)
        process.append(os.getpid())

    result = run("both", "1000000", stdout=take, stderr=errors.append)

    assert (result.stdout, result.stderr) == (None, None)
    assert len(b"".join(out)) == len(b"".join(errors)) == 1_000_000
    assert b"" not in out
    assert set(process) == {os.getpid()}


def test_output_arrives_before_the_result(run: Callable[..., CompletedGuest]) -> None:
    """When run_sync returns, every byte was passed on."""
    out: list[bytes] = []
    for _ in range(50):
        out.clear()
        run("args", argv0="me", stdout=out.append)
        assert b"".join(out) == b"me\nargs\n"


def test_output_arrives_while_the_guest_runs(run: Callable[..., CompletedGuest]) -> None:
    """Input can depend on output: the two have threads of their own."""
    seen: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def answers() -> Iterator[bytes]:
        for number in range(100):
            yield b"%d" % number
            assert seen.get(timeout=10) == b"%d" % number

    assert run("echo", stdin=answers(), stdout=seen.put).returncode == 0
    assert seen.empty()


@pytest.mark.parametrize(
    ("what", "stream"),
    [
        (("fill",), "stdout"),
        (("both", "300000000"), "stdout"),
        (("both", "300000000"), "stderr"),
    ],
)
def test_what_a_callable_raises_ends_the_guest(
    what: tuple[str, ...], stream: str, run: Callable[..., CompletedGuest]
) -> None:
    """The caller sees its own exception, and no more is passed on after it."""
    calls = []

    def fail(chunk: bytes) -> None:
        calls.append(chunk)
        raise Mine

    with pytest.raises(Mine) as caught:
        run(*what, **{"stdout": subprocess.DEVNULL, stream: fail})

    assert len(calls) == 1
    assert isinstance(caught.value.__cause__, GuestError)


def test_a_late_exception_is_raised_too(run: Callable[..., CompletedGuest]) -> None:
    """A guest may have ended by itself before its last output has failed."""

    def fail(_: bytes) -> None:
        raise Mine

    for _ in range(20):
        with pytest.raises(Mine):
            run("args", stdout=fail)


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [("fill",), ("args",)])
def test_a_callable_gets_no_more_than_its_limit(
    what: tuple[str, ...], run: Callable[..., CompletedGuest]
) -> None:
    """A guest that writes more is ended, or found out afterwards, and the limit is kept exactly."""
    out: list[bytes] = []

    with pytest.raises(GuestError, match="more output than its limit"):
        run(*what, stdout=out.append, output_limit=5)

    assert len(b"".join(out)) == 5


def test_limits_are_of_each_stream(run: Callable[..., CompletedGuest]) -> None:
    """A pair of limits is for stdout and stderr, and None for what is usual."""
    enough = run("both", "1000", capture_output=True, output_limit=(1000, None))
    assert (len(enough.stdout or b""), len(enough.stderr or b"")) == (1000, 1000)
    for limits in ((999, None), (None, 999), (999, 1000)):
        with pytest.raises(GuestError, match="more output than its limit") as caught:
            run("both", "1000", capture_output=True, output_limit=limits)
        assert caught.value.stdout is not None
        assert len(caught.value.stdout) == limits[0] or 1000


def test_a_limit_that_is_just_reached_is_kept(run: Callable[..., CompletedGuest]) -> None:
    """As many bytes as there may be are not too many."""
    out: list[bytes] = []

    run("args", argv0="me", stdout=out.append, output_limit=8)

    assert b"".join(out) == b"me\nargs\n"


def test_passing_on_has_no_limit_unasked(run: Callable[..., CompletedGuest]) -> None:
    """More than is ever captured can be passed on."""
    seen = [0]

    def add(chunk: bytes) -> None:
        seen[0] += len(chunk)

    run("both", "70000000", stdout=add, stderr=subprocess.DEVNULL)

    assert seen == [70_000_000]


# --- one stream of the two ------------------------------------------------------------------------


def test_one_stream_alone_is_captured(run: Callable[..., CompletedGuest]) -> None:
    """PIPE captures the stream that it is given for, as with subprocess."""
    result = run("both", "10", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert (result.stdout, result.stderr) == (bytes(10), None)

    result = run("both", "10", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert (result.stdout, result.stderr) == (None, bytes(10))


def test_one_goes_where_the_other_goes(run: Callable[..., CompletedGuest]) -> None:
    """STDOUT as stderr puts both into one, captured or passed on."""
    merged = run("both", "10", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (merged.stdout, merged.stderr) == (bytes(20), None)

    out: list[bytes] = []
    run("both", "10", stdout=out.append, stderr=subprocess.STDOUT)
    assert b"".join(out) == bytes(20)


def test_one_is_captured_and_one_passed_on(run: Callable[..., CompletedGuest]) -> None:
    """An error of the guest's carries what was captured beside."""
    out: list[bytes] = []
    result = run("both", "100000", stdout=subprocess.PIPE, stderr=out.append)

    assert result.stdout == b"".join(out) == bytes(100_000)


# --- terminals ------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[int]:
    """Return a terminal."""
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_what_is_a_terminal(
    runtime: Runtime, guest_from_wat: Callable[..., Path], terminal: int, tmp_path: Path
) -> None:
    """A guest finds a terminal where there is one, and nowhere else."""
    module = guest_from_wat(TERMINALS)

    def bits(*streams: Any) -> int:
        stdin, stdout, stderr = streams
        return runtime.run_sync(module, stdin=stdin, stdout=stdout, stderr=stderr).returncode

    assert bits(terminal, terminal, terminal) == 7
    assert bits(terminal, subprocess.DEVNULL, terminal) == 5
    assert bits(b"", terminal, subprocess.PIPE) == 2
    assert bits(iter([b""]), bytes, bytes) == 0
    with (tmp_path / "file").open("w+b") as file:
        assert bits(file, file, terminal) == 4
    ends = os.pipe()
    assert bits(ends[0], ends[1], subprocess.STDOUT) == 0
    for end in ends:
        os.close(end)


def test_a_command_finds_the_terminal_of_its_process(
    guest_from_wat: Callable[..., Path], terminal: int
) -> None:
    """`wali run` passes its own streams on as what they are."""
    command = [sys.executable, "-m", "wali_core", "run", "--no-cache", guest_from_wat(TERMINALS)]

    def bits(**streams: int) -> int:
        return subprocess.run(command, check=False, **streams).returncode  # type: ignore[call-overload, no-any-return]

    assert bits(stdin=terminal, stdout=terminal, stderr=terminal) == 7
    assert bits(stdin=terminal, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 1
    assert bits(stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.DEVNULL) == 2


# --- programs in a process of their own -----------------------------------------------------------


@pytest.mark.slow
def test_wali_programs_have_the_same_streams(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """An iterator and a callable serve a program in another process, and end it as well."""
    module = guest_from_wat(ECHO)
    out: list[bytes] = []

    runtime.run_sync(module, stdin=iter([b"a" * 100_000, b"b"]), stdout=out.append)
    assert b"".join(out) == b"a" * 100_000 + b"b"

    def failing() -> Iterator[bytes]:
        yield b"some"
        raise Mine

    with pytest.raises(Mine):
        runtime.run_sync(module, stdin=failing(), stdout=out.append)

    def fail(_: bytes) -> None:
        raise Mine

    with pytest.raises(Mine):
        runtime.run_sync(module, stdin=iter(lambda: b"more", None), stdout=fail)


# --- what is left ---------------------------------------------------------------------------------


def test_nothing_is_left_open(run: Callable[..., CompletedGuest]) -> None:
    """However a run with streams ends, it leaves no descriptor behind."""

    def failing() -> Iterator[bytes]:
        yield b"some"
        raise Mine

    def all_ways() -> None:
        run("echo", stdin=[b"x"], stdout=bytes, stderr=bytes)
        with pytest.raises(Mine):
            run("echo", stdin=failing(), stdout=bytes)
        with pytest.raises(TypeError):
            run("echo", stdin=[b"x"], stdout=bytes, stderr=b"no stream")
        with pytest.raises(TypeError):
            run("echo", stdin=5.5, stdout=bytes, stderr=bytes)
        with pytest.raises(GuestTrap):
            run("trap", stdin=[b"x"], stdout=bytes)

    all_ways()
    before = settled_descriptors()
    for _ in range(10):
        all_ways()
    gc.collect()

    assert open_descriptors() == before
