"""Time and randomness that are the same in every run, as a policy asks for them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from capabilities import Clock, Policy, Random
from tests.wasi_shim.calls import (
    BEYOND,
    Errno,
    Event,
    Wasi,
    WasiError,
    caller,
    clock_subscription,
    fd_subscription,
)
from wali_core import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., Wasi]

SECOND = 1_000_000_000
STEP = 1000
YEAR_2026 = 1_767_225_600 * SECOND
CLOCKS = range(4)
REALTIME, MONOTONIC = 0, 1
VIRTUAL = Policy(clock=Clock("virtual"))
FIXED = Policy(clock=Clock("fixed", YEAR_2026 + 5))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for compiled modules."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(cache: Path) -> Iterator[Start]:
    """Return a function that starts a guest under a policy."""
    with contextlib.ExitStack() as stack:

        def start_guest(policy: Policy, **options: Any) -> Wasi:
            runtime = stack.enter_context(Runtime(policy=policy, cache=cache))
            options.setdefault("stdio", (-1, -1, -1))
            guest = runtime.instantiate(caller("wasi_snapshot_preview1"), **options)
            return Wasi(stack.enter_context(guest))

        yield start_guest


# --- time -----------------------------------------------------------------------------------------


def test_virtual_time_begins_alike(start: Start) -> None:
    """Every reading of every clock is the same in each run, and later than the one before."""
    one, other = start(VIRTUAL), start(VIRTUAL)

    readings = [one.time(clock) for clock in CLOCKS for _ in range(3)]

    assert readings == [other.time(clock) for clock in CLOCKS for _ in range(3)]
    assert readings[:3] == [YEAR_2026 + STEP * count for count in (1, 2, 3)]
    assert readings[3:] == [STEP * count for count in range(4, 13)]


def test_fixed_time_of_day_stands_still(start: Start) -> None:
    """The time of day is what the policy says; the other clocks go on."""
    wasi = start(FIXED)

    assert [wasi.time(REALTIME) for _ in range(3)] == [YEAR_2026 + 5] * 3
    assert [wasi.time(MONOTONIC) for _ in range(3)] == [STEP * count for count in (4, 5, 6)]


@pytest.mark.parametrize("policy", [VIRTUAL, FIXED], ids=["virtual", "fixed"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_resolution_is_one_step(start: Start, policy: Policy, clock: int) -> None:
    """The resolution is what passes between two readings; what is wrong stays wrong."""
    wasi = start(policy)

    wasi.call("clock_res_get", clock, 0)

    assert int.from_bytes(wasi.memory.read(0, 8), "little") == STEP
    with pytest.raises(WasiError, match="INVAL"):
        wasi.call("clock_res_get", 4, 0)
    with pytest.raises(WasiError, match="FAULT"):
        wasi.call("clock_time_get", 1, 0, BEYOND)


@pytest.mark.parametrize("policy", [VIRTUAL, FIXED], ids=["virtual", "fixed"])
def test_waiting_takes_no_time(start: Start, policy: Policy) -> None:
    """A wait for a day is over at once, and a day has passed; the first that is due comes alone."""
    wasi, day = start(policy), 86_400 * SECOND
    before, began = wasi.time(MONOTONIC), time.monotonic()

    first = wasi.poll(clock_subscription(2 * day, userdata=1), clock_subscription(day, userdata=2))
    passed = wasi.time(MONOTONIC) - before

    assert first == [Event(2, 0, 0, 0, 0)]
    assert day <= passed < day + 20 * STEP
    assert time.monotonic() - began < 60


def test_waiting_until_a_time_of_day(start: Start) -> None:
    """Virtual time comes to it; where it stands still the wait is over all the same."""
    for policy, after in ((VIRTUAL, YEAR_2026 + 7 * SECOND), (FIXED, YEAR_2026 + 5)):
        wasi = start(policy)

        events = wasi.poll(
            clock_subscription(YEAR_2026 + 7 * SECOND, clock=REALTIME, absolute=True)
        )

        assert events == [Event(7, 0, 0, 0, 0)]
        assert after <= wasi.time(REALTIME) <= after + 20 * STEP


def test_the_end_of_time(start: Start) -> None:
    """A wait for ever ends at the last moment that there is, again and again."""
    wasi = start(VIRTUAL)

    for _ in range(3):
        assert wasi.poll(clock_subscription(2**64 - 1)) == [Event(7, 0, 0, 0, 0)]
    assert wasi.time(MONOTONIC) == 2**64 - 1
    assert wasi.time(REALTIME) == 2**64 - 1


def test_descriptors_that_are_ready_come_first(start: Start) -> None:
    """What can be read now is told, and no time passes; else it is the clock's turn."""
    reader, writer = os.pipe()
    try:
        wasi = start(VIRTUAL, stdio=(reader, -1, -1))
        waits = (fd_subscription(0), clock_subscription(3600 * SECOND))

        assert wasi.poll(*waits) == [Event(7, 0, 0, 0, 0)]
        os.write(writer, b"x")
        before = wasi.time(MONOTONIC)
        assert wasi.poll(*waits) == [Event(8, 0, 1, 1, 0)]
        assert wasi.time(MONOTONIC) - before < 20 * STEP
    finally:
        os.close(reader)
        os.close(writer)


def test_descriptors_alone_are_waited_for(start: Start) -> None:
    """Without a clock among them, a wait is a wait."""
    reader, writer = os.pipe()
    wasi = start(VIRTUAL, stdio=(reader, -1, -1))
    late = threading.Timer(0.05, os.write, (writer, b"x"))
    late.start()
    try:
        assert wasi.poll(fd_subscription(0)) == [Event(8, 0, 1, 1, 0)]
    finally:
        late.join()
        os.close(reader)
        os.close(writer)


def test_files_are_stamped_with_it(start: Start, tmp_path: Path) -> None:
    """`now` is the guest's time also where a file is told it."""
    wasi = start(FIXED, dirs={"/": (tmp_path, "rw")})
    fd = wasi.create("file")

    wasi.call("fd_filestat_set_times", fd, 0, 0, 2 | 8)

    stat = (tmp_path / "file").stat()
    assert (stat.st_atime_ns, stat.st_mtime_ns) == (YEAR_2026 + 5, YEAR_2026 + 5)


# --- randomness -----------------------------------------------------------------------------------

SIZES = (0, 1, 8, 100, 256, 257, 5000, 3)


def test_a_seed_gives_the_same_bytes(start: Start) -> None:
    """Each run has the same, however large the pieces; another seed has others."""
    one, same, other = (start(Policy(random=Random(seed))) for seed in (42, 42, 43))

    drawn = [one.random(size) for size in SIZES]

    assert drawn == [same.random(size) for size in SIZES]
    assert drawn != [other.random(size) for size in SIZES]


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_seeded_bytes_are_not_repeated(start: Start, seed: int) -> None:
    """Neither within one answer nor from one to the next, whichever seed it is."""
    wasi = start(Policy(random=Random(seed)))

    answers = [wasi.random(size) for size in (16, 256, 257, 100_000) for _ in range(20)]

    words = {data[i : i + 8] for data in answers for i in range(0, len(data) - 7, 8)}
    assert len(words) == sum(len(data) // 8 for data in answers)


def test_known_numbers(start: Start) -> None:
    """The generator is SplitMix64: its first numbers for the seed 1234567 are published."""
    wasi = start(Policy(random=Random(1_234_567)))

    data = wasi.random(1024)

    published = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    assert [int.from_bytes(data[i : i + 8], "little") for i in (0, 8, 16)] == list(published)


def test_seeded_bytes_outside_are_a_fault(start: Start) -> None:
    """A buffer that does not fit gets nothing."""
    wasi = start(Policy(random=Random(1)))

    for address, size in ((BEYOND, 8), (0, 2**31)):
        with pytest.raises(WasiError) as caught:
            wasi.call("random_get", address, size)
        assert caught.value.errno == Errno.FAULT


def test_the_rest_is_the_hosts(start: Start) -> None:
    """A seed leaves the clocks alone, and a clock the randomness."""
    seeded, clocked = start(Policy(random=Random(1))), start(VIRTUAL)

    assert abs(seeded.time(REALTIME) - time.time_ns()) < 3600 * SECOND
    assert clocked.random(16) != start(VIRTUAL).random(16)
