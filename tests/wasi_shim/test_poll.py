"""Waiting for clocks and descriptors."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import (
    BEYOND,
    READ,
    WRITE,
    Errno,
    Event,
    Wasi,
    WasiError,
    clock_subscription,
    fd_subscription,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.wasi_shim.conftest import Start

MS = 1_000_000
CLOCK, FD_READ, FD_WRITE, HANGUP = 0, 1, 2, 1


class Pipes:
    """A guest whose standard input and output are pipes."""

    def __init__(self, start: Start) -> None:
        self.stdin, self.feed = os.pipe()
        self.drain, self.stdout = os.pipe()
        self.wasi = start(stdio=(self.stdin, self.stdout, -1))

    def close(self) -> None:
        """Close what is still open."""
        for fd in (self.stdin, self.feed, self.drain, self.stdout):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipes(start: Start) -> Iterator[Pipes]:
    """Return a guest with pipes."""
    made = Pipes(start)
    yield made
    made.close()


@pytest.mark.parametrize("clock", [0, 1])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_clock_is_waited_for(start: Start, clock: int, absolute: bool) -> None:  # noqa: FBT001
    """Not shorter than asked, on either clock, for a time or until one."""
    wasi = start()
    before = time.clock_gettime_ns(clock)
    timeout = before + 30 * MS if absolute else 30 * MS

    events = wasi.poll(clock_subscription(timeout, clock=clock, absolute=absolute))

    assert [Event(7, 0, CLOCK, 0, 0)] == events
    assert 30 * MS <= time.clock_gettime_ns(clock) - before < 2000 * MS


@pytest.mark.parametrize("timeout", [0, 1])
def test_a_time_that_has_come(start: Start, timeout: int) -> None:
    """Long ago is now."""
    assert [Event(7, 0, CLOCK, 0, 0)] == start().poll(clock_subscription(timeout, absolute=True))


def test_all_that_is_ready_is_told(start: Start) -> None:
    """Clocks that are due together come together; those that are not, do not."""
    wasi = start()
    events = wasi.poll(
        clock_subscription(1, userdata=1),
        clock_subscription(3600 * 1000 * MS, userdata=2),
        clock_subscription(0, userdata=3),
        clock_subscription(1, clock=0, absolute=True, userdata=2**64 - 1),
    )

    assert {3, 2**64 - 1} <= {event.userdata for event in events} <= {1, 3, 2**64 - 1}


def test_silence_is_a_timeout(pipes: Pipes) -> None:
    """An open pipe without data does not become ready."""
    events = pipes.wasi.poll(fd_subscription(0), clock_subscription(20 * MS))

    assert [Event(7, 0, CLOCK, 0, 0)] == events


def test_data_wakes(pipes: Pipes) -> None:
    """The descriptor comes first when data arrives before the time."""
    writer = threading.Timer(0.02, os.write, (pipes.feed, b"x"))
    writer.start()

    events = pipes.wasi.poll(fd_subscription(0), clock_subscription(20_000 * MS))

    writer.join()
    assert [Event(8, 0, FD_READ, 1, 0)] == events


def test_the_other_end_is_gone(pipes: Pipes) -> None:
    """A closed pipe is readable, with HANGUP, after its data as well as before."""
    os.write(pipes.feed, b"x")
    os.close(pipes.feed)
    pipes.feed = -1

    assert [Event(8, 0, FD_READ, 1, HANGUP)] == pipes.wasi.poll(fd_subscription(0))
    assert pipes.wasi.read(0, 10) == b"x"
    assert [Event(8, 0, FD_READ, 0, HANGUP)] == pipes.wasi.poll(fd_subscription(0))


def test_reading_and_writing_together(pipes: Pipes) -> None:
    """Output is writable while input is silent; both come when both are ready."""
    wanted = (fd_subscription(0, userdata=1), fd_subscription(1, write=True, userdata=2))
    assert [Event(2, 0, FD_WRITE, 0, 0)] == pipes.wasi.poll(*wanted)

    os.write(pipes.feed, b"x")
    assert [event.userdata for event in pipes.wasi.poll(*wanted)] == [1, 2]


def test_files_are_always_ready(start: Start, box: Path) -> None:
    """With what is left to read, from the position."""
    (box / "file").write_bytes(bytes(100))
    wasi = start({"/": (str(box), "rw")})
    fd = wasi.path_open("file", base=READ | WRITE)
    wasi.seek(fd, 30)

    assert [Event(8, 0, FD_READ, 70, 0), Event(9, 0, FD_WRITE, 0, 0)] == wasi.poll(
        fd_subscription(fd), fd_subscription(fd, write=True, userdata=9)
    )


def test_the_null_device_is_ready(start: Start) -> None:
    """Epoll would refuse it; here it is readable at once."""
    with open(os.devnull, "rb") as null:
        wasi = start(stdio=(null.fileno(), -1, -1))

        (event,) = wasi.poll(fd_subscription(0))

    assert event[:3] == (8, 0, FD_READ)


def test_a_descriptor_that_is_not_there_fails_the_call(pipes: Pipes) -> None:
    """Also among others that are ready."""
    for fd in (2, 77, 2**32 - 1):
        with pytest.raises(WasiError, match="BADF"):
            pipes.wasi.poll(clock_subscription(0), fd_subscription(fd))


def test_errors_are_events(pipes: Pipes) -> None:
    """What one subscription cannot have is told at once, beside what is ready."""
    events = pipes.wasi.poll(
        fd_subscription(0, write=True, userdata=1),
        clock_subscription(10**15, userdata=2),
        clock_subscription(0, clock=2, userdata=3),
        clock_subscription(0, clock=9, userdata=4),
        fd_subscription(1, write=True, userdata=5),
    )

    assert [event[:2] for event in events] == [
        (1, Errno.BADF),
        (3, Errno.NOTSUP),
        (4, Errno.INVAL),
        (5, 0),
    ]


@pytest.mark.parametrize("count", [0, 4097, 2**26, 2**31, 2**32 - 1])
def test_counts_are_bounded(start: Start, count: int) -> None:
    """None at all is INVAL, and so is more than any program needs."""
    with pytest.raises(WasiError, match="INVAL"):
        start().call("poll_oneoff", 0, 0, count, 0)


@pytest.mark.parametrize("count", [16, 17, 1000, 4096])
def test_many_subscriptions(start: Start, count: int) -> None:
    """Every one gets its event, in order."""
    wasi = start()
    wasi.memory.write(0, b"".join(clock_subscription(0, userdata=i) for i in range(count)))

    wasi.call("poll_oneoff", 0, 200_000, count, 400_000)

    assert struct.unpack("<I", wasi.memory.read(400_000, 4)) == (count,)
    events = struct.iter_unpack("<QHB21x", wasi.memory.read(200_000, 32 * count))
    assert [(i, 0, CLOCK) for i in range(count)] == list(events)


def test_more_subscriptions_than_there_are_descriptors(pipes: Pipes) -> None:
    """The kernel polls no more entries than a process may have files; to read and to write are two.

    What is ready is told to each that asked for it, and to no other.
    """
    wasi, count = pipes.wasi, 1500
    many = [fd_subscription(fd, write=fd == 1, userdata=i) for i, fd in enumerate([0, 1] * count)]
    wasi.memory.write(0, b"".join(many))
    os.write(pipes.feed, b"x")
    wasi.read(0, 1)

    wasi.call("poll_oneoff", 0, 300_000, 2 * count, 480_000)

    assert wasi.words(1, 480_000) == (count,)
    events = list(struct.iter_unpack("<QHB21x", wasi.memory.read(300_000, 32 * count)))
    assert events == [(i, 0, FD_WRITE) for i in range(1, 2 * count, 2)]


def test_a_socket_that_is_read_and_written(start: Start) -> None:
    """One descriptor, two subscriptions: each has an event of its own, when it is ready itself."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wasi = start(sockets=[theirs])
        wanted = fd_subscription(3, userdata=1), fd_subscription(3, write=True, userdata=2)

        assert [Event(2, 0, FD_WRITE, 0, 0)] == wasi.poll(*wanted)
        ours.send(b"abc")
        assert [Event(1, 0, FD_READ, 3, 0), Event(2, 0, FD_WRITE, 0, 0)] == wasi.poll(*wanted)


@pytest.mark.parametrize("pointers", [(BEYOND, 64, 0), (64, BEYOND, 0), (64, 256, BEYOND)])
def test_pointers_outside_are_a_fault(start: Start, pointers: tuple[int, int, int]) -> None:
    """Before anything is waited for."""
    wasi = start()
    wasi.memory.write(64, clock_subscription(10**15))

    with pytest.raises(WasiError, match="FAULT"):
        wasi.call("poll_oneoff", pointers[0], pointers[1], 1, pointers[2])


def test_an_unknown_subscription(start: Start) -> None:
    """Neither a clock nor a descriptor."""
    with pytest.raises(WasiError, match="INVAL"):
        start().poll(struct.pack("<QB39x", 1, 3))


def test_subscriptions_may_lie_where_events_go(start: Start) -> None:
    """All are read before the first event is written."""
    wasi = start()
    wasi.memory.write(64, clock_subscription(0, userdata=1) + clock_subscription(0, userdata=2))

    wasi.call("poll_oneoff", 64, 64, 2, 0)

    assert tuple(struct.unpack_from("<Q", wasi.memory.read(64 + 32 * i, 8))[0] for i in (0, 1)) == (
        1,
        2,
    )


def test_a_waiting_guest_can_be_stopped(start: Start) -> None:
    """Sleeping for a century ends with the call's own deadline."""
    from wali_core import GuestTimeout

    wasi: Wasi = start()
    wasi.memory.write(64, clock_subscription(2**63))
    with pytest.raises(GuestTimeout):
        wasi.guest.call("poll_oneoff", 64, 128, 1, 0, timeout=0.05)
