"""Sockets that the host hands over."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import (
    BEYOND,
    CREAT,
    NONBLOCK,
    SOCKET_DGRAM,
    SOCKET_STREAM,
    Right,
    Wasi,
    WasiError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.wasi_shim.conftest import Start

PEEK, WAITALL = 1, 2
TRUNCATED = 1


class Pair:
    """A guest with one end of a connection as input and output, and the other end."""

    def __init__(self, start: Start, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.end, self.ours = socket.socketpair(socket.AF_UNIX, kind)
        fd = self.end.fileno()
        self.wasi: Wasi = start(stdio=(fd, fd, -1))


@pytest.fixture
def pair(start: Start) -> Iterator[Pair]:
    """Return a connected guest."""
    made = Pair(start)
    with made.end, made.ours:
        yield made


def test_bytes_go_both_ways(pair: Pair) -> None:
    """As with read and write, over vectors."""
    pair.ours.sendall(b"hello")

    assert pair.wasi.receive(0, 2, 0, 10) == b"hello"
    assert pair.wasi.send(1, b"wor", b"", b"ld") == 5
    assert pair.ours.recv(10) == b"world"
    assert pair.wasi.fdstat(0).filetype == SOCKET_STREAM


def test_peeking_leaves_the_data(pair: Pair) -> None:
    """The same bytes come again."""
    pair.ours.sendall(b"hello")

    assert pair.wasi.receive(0, 1, 3, 9, flags=PEEK) == b"hello"
    assert pair.wasi.receive(0, 3, flags=PEEK | WAITALL) == b"hel"
    assert pair.wasi.receive(0, 100) == b"hello"


@pytest.mark.parametrize("size", [10, 16384, 16385, 100_000])
def test_waiting_for_all(pair: Pair, size: int) -> None:
    """All that fits, however it arrives, and however large."""
    data = os.urandom(size)

    def send() -> None:
        for i in range(0, size, 7000):
            pair.ours.sendall(data[i : i + 7000])

    sender = threading.Thread(target=send)
    sender.start()

    assert data == pair.wasi.receive(0, size // 2, size - size // 2, flags=WAITALL)
    sender.join()


def test_the_end_of_the_connection(pair: Pair) -> None:
    """Less than all, and then nothing."""
    pair.ours.sendall(b"rest")
    pair.ours.shutdown(socket.SHUT_WR)

    assert pair.wasi.receive(0, 100, flags=WAITALL) == b"rest"
    assert pair.wasi.receive(0, 100) == b""
    assert pair.wasi.receive(0, 100, flags=PEEK) == b""


def test_nonblocking(pair: Pair) -> None:
    """No data is AGAIN, with and without flags."""
    pair.wasi.call("fd_fdstat_set_flags", 0, NONBLOCK)

    for flags in (0, PEEK, WAITALL):
        with pytest.raises(WasiError, match="AGAIN"):
            pair.wasi.receive(0, 10, flags=flags)


@pytest.fixture
def datagrams(start: Start) -> Iterator[Pair]:
    """Return a guest with one end of a pair of datagram sockets."""
    made = Pair(start, socket.SOCK_DGRAM)
    with made.end, made.ours:
        yield made


def test_datagrams(datagrams: Pair) -> None:
    """Each is received by itself, and what had no room is told."""
    wasi, ours = datagrams.wasi, datagrams.ours
    for data in (b"one", b"two!", b"", b"three", b"x" * 20_000):
        ours.send(data)

    assert wasi.fdstat(0).filetype == SOCKET_DGRAM == wasi.filestat(0).filetype
    assert wasi.receive_and_flags(0, 2, 8) == (b"one", 0)
    assert wasi.receive_and_flags(0, 1, 2) == (b"two", TRUNCATED)
    assert wasi.receive_and_flags(0, 4) == (b"", 0)
    assert wasi.receive_and_flags(0, 4, flags=PEEK) == (b"thre", TRUNCATED)
    assert wasi.receive_and_flags(0, 5, flags=PEEK) == (b"three", 0)
    assert wasi.receive_and_flags(0, 8, flags=WAITALL) == (b"three", 0)
    assert wasi.receive_and_flags(0, 19_999) == (b"x" * 19_999, TRUNCATED)
    assert (wasi.send(1, b"fo", b"ur"), ours.recv(9)) == (4, b"four")


def test_no_room_for_a_datagram(datagrams: Pair) -> None:
    """It is gone all the same, as with recvmsg: else a program that drops it would see it again."""
    for data in (b"one", b"two", b"", b"three"):
        datagrams.ours.send(data)

    assert datagrams.wasi.receive_and_flags(0) == (b"", TRUNCATED)
    assert datagrams.wasi.receive_and_flags(0, 0, 0) == (b"", TRUNCATED)
    assert datagrams.wasi.receive_and_flags(0, 0) == (b"", 0)
    assert datagrams.wasi.receive_and_flags(0, 8) == (b"three", 0)


def test_datagrams_larger_than_udps(datagrams: Pair) -> None:
    """Whole, and where the shim has to cut one, it is told."""
    data = os.urandom(100_000)
    for _ in range(2):
        datagrams.ours.send(data)

    assert datagrams.wasi.receive_and_flags(0, 60_000, 60_000, flags=PEEK) == (
        data[:65536],
        TRUNCATED,
    )
    assert datagrams.wasi.receive_and_flags(0, 60_000, 60_000, flags=WAITALL) == (data, 0)
    assert datagrams.wasi.receive_and_flags(0, 70_000) == (data[:70_000], TRUNCATED)


def test_no_datagram_there(datagrams: Pair) -> None:
    """AGAIN, where the guest does not wait; BADF for a descriptor that may not receive."""
    datagrams.wasi.call("fd_fdstat_set_flags", 0, NONBLOCK)

    for flags in (0, PEEK, WAITALL):
        with pytest.raises(WasiError, match="AGAIN"):
            datagrams.wasi.receive(0, 10, flags=flags)
    with pytest.raises(WasiError, match="BADF"):
        datagrams.wasi.receive(1, 10)
    with pytest.raises(WasiError, match="NOTSUP"):
        datagrams.wasi.accept(0)


def test_datagrams_over_udp(start: Start) -> None:
    """A socket that is handed over, bound and connected, is known for what it is."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
    ):
        for end in (theirs, ours):
            end.bind(("127.0.0.1", 0))
        theirs.connect(ours.getsockname())
        ours.connect(theirs.getsockname())
        wasi = start(sockets=[theirs])
        ours.send(b"hello")

        assert wasi.fdstat(3).filetype == SOCKET_DGRAM
        assert wasi.receive_and_flags(3, 4) == (b"hell", TRUNCATED)
        assert (wasi.send(3, b"there"), ours.recv(9)) == (5, b"there")


@pytest.mark.parametrize(
    ("how", "expected"), [(1, (False, True)), (2, (True, False)), (3, (True, True))]
)
def test_shutting_down(pair: Pair, how: int, expected: tuple[bool, bool]) -> None:
    """One way, the other, or both."""
    pair.ours.settimeout(0.05)
    pair.wasi.call("sock_shutdown", 0, how)

    try:
        ended = pair.ours.recv(1) == b""
    except TimeoutError:
        ended = False
    try:
        pair.ours.send(b"x")
        refused = False
    except BrokenPipeError:
        refused = True
    assert expected == (ended, refused)


def test_accepting(start: Start) -> None:
    """A connection that waits gets a descriptor of its own, which reads and writes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        wasi = start(stdio=(server.fileno(), -1, -1))

        connection = wasi.accept(0, NONBLOCK)

        assert wasi.fdstat(connection)[:2] == (SOCKET_STREAM, NONBLOCK)
        assert wasi.fdstat(connection).base & Right.SOCK_SHUTDOWN
        with pytest.raises(WasiError, match="AGAIN"):
            wasi.receive(connection, 10)
        wasi.send(connection, b"hello")
        assert client.recv(10) == b"hello"
        wasi.close(connection)
        assert client.recv(10) == b""


def test_what_a_listener_gave_up_its_connections_lack(start: Start) -> None:
    """Rights that left `inheriting` are not to be had of what is accepted."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        wasi = start(stdio=(server.fileno(), -1, -1))
        had = wasi.fdstat(0)
        wasi.call("fd_fdstat_set_rights", 0, had.base, had.inheriting & ~Right.FD_WRITE)

        connection = wasi.accept(0)

        assert wasi.fdstat(connection).base == had.inheriting & ~Right.FD_WRITE
        with pytest.raises(WasiError, match="BADF"):
            wasi.send(connection, b"hello")


def test_nobody_to_accept(start: Start) -> None:
    """A listener that does not block says so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        wasi = start(stdio=(server.fileno(), -1, -1))
        wasi.call("fd_fdstat_set_flags", 0, NONBLOCK)

        with pytest.raises(WasiError, match="AGAIN"):
            wasi.accept(0)
        with pytest.raises(WasiError, match="INVAL"):
            wasi.accept(0, 1)
        with pytest.raises(WasiError, match="FAULT"):
            wasi.call("sock_accept", 0, 0, BEYOND)


@pytest.mark.parametrize(
    "call",
    [
        ("sock_accept", 0, 0),
        ("sock_recv", 0, 0, 0, 0, 64),
        ("sock_send", 0, 0, 0, 0),
        ("sock_shutdown", 3),
    ],
)
def test_what_is_no_socket(start: Start, box: Path, call: tuple[str, int]) -> None:
    """A pipe, a directory and a file are NOTSOCK."""
    end, other = os.pipe()
    wasi = start({"/": (str(box), "rw")}, stdio=(end, -1, -1))
    file = wasi.path_open("file", oflags=CREAT)

    for fd in (0, 3, file):
        with pytest.raises(WasiError, match="NOTSOCK"):
            wasi.call(call[0], fd, *call[1:])
    os.close(end)
    os.close(other)


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (("sock_recv", 64, 1025, 0, 0, 4), "INVAL"),
        (("sock_recv", 64, 1, 4, 0, 4), "INVAL"),
        (("sock_recv", 64, 1, 0, BEYOND, 4), "FAULT"),
        (("sock_recv", 64, 1, 0, 0, BEYOND + 2), "FAULT"),
        (("sock_recv", BEYOND, 1, PEEK, 0, 4), "FAULT"),
        (("sock_shutdown", 0), "INVAL"),
        (("sock_shutdown", 4), "INVAL"),
    ],
)
def test_arguments_are_checked(pair: Pair, call: tuple[str, int], errno: str) -> None:
    """Counts, flags and pointers."""
    with pytest.raises(WasiError, match=errno):
        pair.wasi.call(call[0], 0, *call[1:])
