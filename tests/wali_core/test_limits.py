"""What a WASI guest may use up: computing time, output, descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from capabilities import Limits, Policy
from tests.held import open_descriptors, settled_descriptors
from wali_core import GuestLimit, GuestTimeout, Runtime
from wali_core._limits import CpuTime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    UnderLimits = Callable[[Limits], Runtime]

SPIN = """
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
  (memory (export "memory") 1)
  (func (export "spin") (loop (br 0)))
  (func (export "count") (param i32) (loop
    (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
    (br_if 0 (local.get 0)))))
"""


@pytest.fixture
def under(cache_folder: Path) -> UnderLimits:
    """Return a function that makes a runtime with some limits."""
    return lambda limits: Runtime(policy=Policy(limits=limits), cache=cache_folder)


# --- computing time -------------------------------------------------------------------------------


def test_computing_ends(under: UnderLimits, program: Path) -> None:
    """A guest that computes is ended, with an error that names the limit."""
    with (
        under(Limits(cpu_time=0.05)) as runtime,
        pytest.raises(GuestLimit, match=r"the guest has computed for its 0\.05 s") as caught,
    ):
        runtime.run_sync(program, args=["spin"], capture_output=True)

    assert caught.value.limit == "cpu_time"
    assert caught.value.stdout == b"ready\n"


def test_waiting_is_not_computing(under: UnderLimits, program: Path) -> None:
    """A guest that sleeps is ended by the clock, not by what it has computed."""
    with under(Limits(cpu_time=0.02, wall_time=0.3)) as runtime, pytest.raises(GuestTimeout):
        runtime.run_sync(program, args=["sleep"], capture_output=True)


def test_each_call_has_the_limit(under: UnderLimits, guest_from_wat: Callable[..., Path]) -> None:
    """Calls of an instance do not add up; one that goes too far ends it."""
    with (
        under(Limits(cpu_time=0.2)) as runtime,
        runtime.instantiate(guest_from_wat(SPIN)) as guest,
    ):
        used = 0.0
        while used < 0.3:
            before = time.thread_time()
            guest.call("count", 20_000_000)
            used += time.thread_time() - before
        with pytest.raises(GuestLimit):
            guest.call("spin")


def test_other_threads_do_not_count(
    under: UnderLimits, guest_from_wat: Callable[..., Path]
) -> None:
    """A guest has what its own thread computes, however busy the others are."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            sum(range(1000))

    others = [threading.Thread(target=busy) for _ in range(3)]
    for other in others:
        other.start()
    try:
        with (
            under(Limits(cpu_time=0.3)) as runtime,
            runtime.instantiate(guest_from_wat(SPIN)) as guest,
        ):
            guest.call("count", 10_000)
            before = time.thread_time()
            with pytest.raises(GuestLimit):
                guest.call("spin")
            used = time.thread_time() - before
    finally:
        stop.set()
        for other in others:
            other.join()

    assert 0.25 < used < 3


def test_a_run_adds_up() -> None:
    """What is counted for a whole run goes on where it stopped; else it begins anew."""
    total, each = (CpuTime(10, own_process=False, whole_run=whole) for whole in (True, False))
    lefts: list[tuple[float, float]] = []

    for _ in range(2):
        for clock in (total, each):
            clock.begin()
        sum(range(300_000))
        lefts.append((total.left(), each.left()))
        for clock in (total, each):
            clock.end()

    (total_first, each_first), (total_second, each_second) = lefts
    spent = 10 - total_first
    assert 0 < spent < 5
    assert total_second < total_first - spent / 4
    assert each_second > each_first - 3 * spent


@pytest.mark.parametrize("seconds", [1e-6, 0.5])
def test_patience_is_bounded_below(seconds: float) -> None:
    """Near the end nobody looks all the time; at the end it is over."""
    clock = CpuTime(seconds, own_process=True, whole_run=True)
    clock.begin()

    assert clock.patience() in (0.0, pytest.approx(max(seconds, 0.01), rel=0.2))
    clock.end()


# --- output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["captured", "to a file", "to a function"])
def test_output_ends(how: str, under: UnderLimits, program: Path, tmp_path: Path) -> None:
    """However it is taken, there is no more of it than the limit, of each stream."""
    limit = 10_000
    pieces: list[bytes] = []
    with (
        (tmp_path / "out").open("wb") as out,
        (tmp_path / "err").open("wb") as err,
        under(Limits(output=limit)) as runtime,
    ):
        ways: dict[str, dict[str, Any]] = {
            "captured": {"capture_output": True},
            "to a file": {"stdout": out, "stderr": err},
            "to a function": {"stdout": pieces.append, "stderr": lambda _: None},
        }
        enough = runtime.run_sync(program, args=["both", str(limit)], **ways[how])
        size = len(enough.stdout or b"") + len(b"".join(pieces)) + os.fstat(out.fileno()).st_size
        with pytest.raises(GuestLimit) as caught:
            runtime.run_sync(program, args=["both", str(limit + 1)], **ways[how])

    assert size == limit
    assert caught.value.limit == "output"


def test_output_ends_for_instances(under: UnderLimits, program: Path, tmp_path: Path) -> None:
    """Descriptors that an instance gets are counted from its beginning on."""
    with (tmp_path / "out").open("wb") as file, under(Limits(output=100)) as runtime:
        stdio = (-1, file.fileno(), file.fileno())
        with (
            runtime.instantiate(program, args=["both", "51"], stdio=stdio) as guest,
            pytest.raises(GuestLimit, match="the guest wrote more output than its 100 bytes"),
        ):
            guest.call("_start")
        with runtime.instantiate(program, args=["both", "50"], stdio=stdio) as guest:
            guest.call("_start")

    assert (tmp_path / "out").stat().st_size == 51 + 100


def test_wild_writes_are_the_guests_errors(
    under: UnderLimits, guest_from_wat: Callable[..., Path], tmp_path: Path
) -> None:
    """Counting does not stumble over vectors that lie outside, or descriptors that are not open."""
    module = guest_from_wat(
        """
        (module
          (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "write") (param i32 i32 i32) (result i32)
            (call $write (local.get 0) (local.get 1) (local.get 2) (i32.const 0))))
        """
    )
    with (
        (tmp_path / "out").open("wb") as file,
        under(Limits(output=100)) as runtime,
        runtime.instantiate(module, stdio=(-1, file.fileno(), -1)) as guest,
    ):
        answers = [guest.call("write", *call) for call in WILD]

    assert answers == [8, 21, 21, 28, 28, 0]


WILD = [(7, 8, 1), (1, 65530, 1), (1, -1, 1), (1, 8, -1), (1, 8, 5000), (1, 8, 0)]


def test_nothing_is_left_open(under: UnderLimits, program: Path) -> None:
    """A guest that was counted leaves no descriptor."""
    with under(Limits(output=100)) as runtime:
        runtime.instantiate(program, stdio=(-1, 1, 2)).close()
        before = settled_descriptors()
        for _ in range(3):
            runtime.instantiate(program, stdio=(-1, 1, 2)).close()

        assert open_descriptors() == before


# --- descriptors ----------------------------------------------------------------------------------


def test_descriptors(
    under: UnderLimits, guest_from_wat: Callable[..., Path], tmp_path: Path
) -> None:
    """Its table has so many places: MFILE (33), until one is given back."""
    module = guest_from_wat(
        """
        (module
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 8) ".")
          (func (export "open") (result i32)
            (call $open (i32.const 3) (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 0)
              (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))
          (func (export "close") (param i32) (result i32) (call $close (local.get 0))))
        """
    )
    with (
        under(Limits(open_files=6)) as runtime,
        runtime.instantiate(module, dirs={"/": tmp_path}) as guest,
    ):
        answers = [guest.call("open") for _ in range(2)]
        closed = guest.call("close", 4)
        again = guest.call("open")
        with pytest.raises(GuestLimit) as caught:
            guest.call("open")

    assert (answers, closed, again) == ([0, 0], 0, 0)
    assert caught.value.limit == "open_files"
    assert str(caught.value) == "the guest wanted more than its 6 descriptors (limits.open_files)"


def test_too_few_descriptors_for_what_is_granted(
    under: UnderLimits, program: Path, tmp_path: Path
) -> None:
    """A limit that leaves no room for a granted directory is said, not ignored."""
    from wali_core import UseError

    dirs = {f"/{name}": tmp_path for name in "ab"}
    with under(Limits(open_files=4)) as runtime, pytest.raises(UseError, match="at most 4"):
        runtime.instantiate(program, dirs=dirs)


# --- processes and threads ------------------------------------------------------------------------

PROCESSES = """
import os
from wali_core._limits import Processes
from wali_core import GuestLimit
made = Processes(3)
def is_over(want):
    try:
        want()
    except GuestLimit as error:
        return error.limit == "processes"
made.add()
made.add()
print(is_over(made.add), is_over(made.fork))
made.remove()
made.add()
made.remove()
reader, writer = os.pipe()
pid = made.fork()
if pid == 0:
    over = is_over(made.fork) and is_over(made.add)
    os.read(reader, 1)
    os._exit(not over)
print(is_over(made.add))
os.write(writer, b".")
print(os.waitpid(pid, 0)[1])
made.add()
made.close()
"""


def test_threads_count_as_processes() -> None:
    """Each holds a place until it ends; a child has one of its own, and none of its parent's."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["True True", "True", "0"]
