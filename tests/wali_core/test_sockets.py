"""Tests of wali_core._sockets: sockets that WASI programs are given, with real clients."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capabilities import Limits, Policy
from tests.held import open_descriptors, settled_descriptors
from tests.wasi_shim.calls import SOCKET_STREAM, Errno, Right, Wasi, WasiError, caller
from wali_core import GuestTimeout, PolicyError, Runtime, UseError
from wali_core._sockets import address_of, duplicate, inherited, listen
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.oldest

# Starts a command as systemd does: with the descriptor that its first argument names as 3.
PASSING = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="echo")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled `greeter.c`, which serves the descriptor that its arguments name."""
    out = tmp_path_factory.mktemp("greeter") / "greeter.wasm"
    source = Path(__file__).with_name("greeter.c")
    return compiler.compile_guest(source, out, target="wasm32-freestanding")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def talk(address: Any, data: bytes) -> bytes:
    """Say this to a server, and return all that it says."""
    with socket.create_connection(address[:2], timeout=10) as client:

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        sender.join()
        return answer


class Client(threading.Thread):
    """Talks to a server while a guest has this test's own thread."""

    def __init__(self, address: Any, *messages: bytes) -> None:
        super().__init__()
        self._address = address
        self._messages = messages
        self._answers: list[bytes] = []
        self.start()

    def run(self) -> None:
        """Say one thing after the other."""
        self._answers += [talk(self._address, message) for message in self._messages]

    def answers(self) -> list[bytes]:
        """What came back, in the end."""
        self.join(20)
        return self._answers


def answered(message: bytes) -> bytes:
    """Return what the server says to a client that says this."""
    return b"hello\n" + message + b"bye\n"


# --- through Python -------------------------------------------------------------------------------


def test_a_program_serves_clients(runtime: Runtime, server: Path, listener: socket.socket) -> None:
    """A WASI program accepts, echoes and shuts down on a socket of the caller's."""
    messages = (b"", b"one", os.urandom(1_000_000))
    client = Client(listener.getsockname(), *messages)

    result = runtime.run_sync(server, args=["3", "3"], sockets=[listener], timeout=20)

    assert result.returncode == 0
    assert client.answers() == [answered(message) for message in messages]


def test_clients_may_have_come_before(
    runtime: Runtime, server: Path, listener: socket.socket
) -> None:
    """A connection that waits already is accepted at once."""
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"early")
        client.shutdown(socket.SHUT_WR)

        runtime.run_sync(server, args=["3", "1"], sockets=[listener.fileno()], timeout=20)

        assert client.recv(100) == answered(b"early")


def test_sockets_come_after_directories(
    runtime: Runtime, server: Path, listener: socket.socket, tmp_path: Path
) -> None:
    """A program finds its directories from 3 on, its sockets behind them, and no hole."""
    dirs = {"/a": tmp_path, "/b": tmp_path}
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        runtime.instantiate(caller(), dirs=dirs, sockets=[other, listener]) as guest,
    ):
        wasi = Wasi(guest)
        for number in (5, 6):
            assert wasi.fdstat(number).filetype == SOCKET_STREAM
            assert Right.SOCK_ACCEPT in wasi.fdstat(number).base
            with pytest.raises(WasiError) as caught:
                wasi.call("fd_prestat_get", number, 0)
            assert caught.value.errno == Errno.BADF
        with pytest.raises(WasiError):
            wasi.fdstat(7)
        client = Client(listener.getsockname(), b"second")
        result = runtime.run_sync(
            server, args=["6", "1"], dirs=dirs, sockets=[other, listener], timeout=20
        )

    assert result.returncode == 0
    assert client.answers() == [answered(b"second")]


def test_accepting_without_waiting(runtime: Runtime, listener: socket.socket) -> None:
    """A guest that asked for it is told that there is nobody yet; so is one that polls."""
    with runtime.instantiate(caller(), sockets=[listener]) as guest:
        wasi = Wasi(guest)
        wasi.call("fd_fdstat_set_flags", 3, 4)
        with pytest.raises(WasiError) as caught:
            wasi.call("sock_accept", 3, 0, 0)
        assert caught.value.errno == Errno.AGAIN

        with socket.create_connection(listener.getsockname()) as client:
            wasi.call("sock_accept", 3, 0, 0)
            (connection,) = struct.unpack("<I", guest.memory.read(0, 4))
            assert connection == 4
            client.sendall(b"hi")
            assert wasi.receive(connection, 10) == b"hi"
            wasi.call("sock_shutdown", connection, 3)
            assert client.recv(10) == b""


def test_connected_sockets_can_be_given(runtime: Runtime) -> None:
    """A socket need not listen."""
    ours, theirs = socket.socketpair()
    with ours, theirs, runtime.instantiate(caller(), sockets=[theirs]) as guest:
        wasi = Wasi(guest)
        ours.sendall(b"hi")
        assert wasi.receive(3, 10) == b"hi"
        assert wasi.send(3, b"ho") == 2
        assert ours.recv(10) == b"ho"


def test_a_deadline_ends_a_guest_that_accepts(
    runtime: Runtime, server: Path, listener: socket.socket
) -> None:
    """Nobody comes, and time passes."""
    with pytest.raises(GuestTimeout):
        runtime.run_sync(server, args=["3", "1"], sockets=[listener], timeout=0.05)


def test_the_callers_socket_stays_the_callers(runtime: Runtime, listener: socket.socket) -> None:
    """Closing it on one side leaves the other as it was; only the mode of waiting is shared."""
    with runtime.instantiate(caller(), sockets=[listener]) as guest:
        Wasi(guest).call("fd_close", 3)
    assert not os.get_blocking(listener.fileno())
    with socket.create_connection(listener.getsockname()):
        pass

    with runtime.instantiate(caller(), sockets=[listener]) as guest:
        address = listener.getsockname()
        listener.close()
        with Path("/dev/null").open("rb"):  # gets the number of the socket that is gone
            assert Wasi(guest).fdstat(3).filetype == SOCKET_STREAM
        with socket.create_connection(address):
            Wasi(guest).call("sock_accept", 3, 0, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [(9999, "socket 9999: descriptor 9999: Bad file"), (2, "socket 2: descriptor 2 is something")],
)
def test_only_sockets_are_sockets(given: int, message: str, runtime: Runtime, server: Path) -> None:
    """What is closed, or something else, is refused, and nothing is left of the attempt."""
    runtime.instantiate(server).close()
    before = settled_descriptors()

    with pytest.raises(UseError, match=message):
        runtime.run_sync(server, sockets=[given])

    assert open_descriptors() == before


def test_there_is_room_for_so_many(runtime: Runtime, listener: socket.socket) -> None:
    """Sockets fill the descriptor table like anything else, and one too many leaves nothing."""
    runtime.instantiate(caller()).close()
    before = settled_descriptors()

    with pytest.raises(UseError, match="at most 1024"):
        runtime.instantiate(caller(), sockets=[listener] * 1022)

    assert open_descriptors() == before


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_wali_programs_are_given_none(
    isolation: str, runtime: Runtime, guest_from_wat: Callable[..., Path], listener: socket.socket
) -> None:
    """A WALI program makes its own, as its policy allows."""
    module = guest_from_wat(
        '(module (import "wali" "SYS_getpid" (func (result i64))) (func (export "_start")))'
    )

    with pytest.raises(PolicyError, match="makes its sockets itself"):
        runtime.run_sync(module, sockets=[listener], isolation=isolation)


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::]:1", ("::", 1)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    """A host and a port, the host in brackets where it has colons."""
    assert address_of(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "80", ":80", "host", "host:", "host:x", "host:-1", "host:65536", "::1:80"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """All else is not understood."""
    with pytest.raises(ValueError, match=r"it must be HOST:PORT|needs brackets"):
        address_of(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_socket_listens_there(host: str) -> None:
    """The socket is of the host's kind, and takes connections."""
    with socket.socket(fileno=listen(host, 0).detach()) as made:
        name = made.getsockname()
        assert (":" in name[0]) == (made.family == socket.AF_INET6)
        with socket.create_connection(name[:2]):
            pass
        assert not os.get_inheritable(made.fileno())


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first address cannot be had, the next one is."""
    import _socket

    tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*tcp, ("192.0.2.1", 0)), (*tcp, ("127.0.0.1", 0))]
    monkeypatch.setattr(_socket, "getaddrinfo", lambda *_: found)

    with socket.socket(fileno=listen("name", 0).detach()) as made:
        assert made.getsockname()[0] == "127.0.0.1"


def test_what_cannot_be_had_is_said(listener: socket.socket) -> None:
    """A port in use, an address of another machine, and no address are each an error."""
    with pytest.raises(PolicyError, match=r"port .*: Address already in use"):
        listen(*listener.getsockname())
    with pytest.raises(PolicyError, match="Cannot assign requested address"):
        listen("192.0.2.1", 0)
    with pytest.raises(PolicyError, match=r"cannot listen on no\.such\.invalid"):
        listen("no.such.invalid", 0)


# --- systemd --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "count"),
    [("", ""), ("1", "1"), ("own", ""), ("own", "0"), ("own", "-1"), ("own", "x"), ("", "1")],
)
def test_nothing_was_passed(process: str, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets of another process, or none, are not taken, and not spoken of again."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if process == "own" else process)
    monkeypatch.setenv("LISTEN_FDS", count)

    with pytest.raises(PolicyError, match="no sockets were passed to this process"):
        inherited()

    assert "LISTEN_FDS" not in os.environ


def test_what_was_promised_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor that is not open is an error, not somebody else's file later."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "100000")

    with pytest.raises(PolicyError, match=r"LISTEN_FDS is 100000, but descriptor \d+ was not"):
        inherited()


def until_it_waits(wasi: Wasi, call: str) -> None:
    """Read from, or write to, descriptor 3 until that waits for somebody who does nothing."""
    while True:
        if call in ("receive", "read"):
            getattr(wasi, call)(3, 10)
        else:
            getattr(wasi, call)(3, b"x" * 4000)


@pytest.mark.parametrize("call", ["receive", "read", "send", "write"])
@pytest.mark.parametrize(
    "kind",
    [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET],
    ids=lambda kind: kind.name,
)
def test_sockets_that_are_connected_stay_as_they_are(kind: socket.SocketKind, call: str) -> None:
    """A guest that waits on one is ended by its deadline; to the caller it is what it was."""
    ours, theirs = socket.socketpair(type=kind)
    with (
        Runtime(policy=Policy(limits=Limits(wall_time=0.1))) as runtime,
        ours,
        theirs,
        runtime.instantiate(caller(), sockets=[theirs]) as guest,
    ):
        with pytest.raises(GuestTimeout):
            until_it_waits(Wasi(guest), call)
        assert os.get_blocking(theirs.fileno())


def test_duplicates_of_listeners_are_non_blocking(listener: socket.socket) -> None:
    """The host's side never waits in the kernel."""
    copy = duplicate(listener)

    with socket.socket(fileno=copy) as made, pytest.raises(BlockingIOError) as caught:
        made.accept()
    assert caught.value.errno == errno.EAGAIN


# --- the command ----------------------------------------------------------------------------------

WALI = [sys.executable, "-m", "wali_core", "run", "--no-cache", "--timeout", "20s"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_the_command_listens(host: str, server: Path) -> None:
    """`--tcplisten` gives the program a socket; the port that the kernel chose is told."""
    command = [*WALI, "--tcplisten", f"{host}:0", str(server), "3", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        assert told.startswith("wali: listening on ")
        address = address_of(told.removeprefix("wali: listening on ").strip())
        assert talk(address, b"x") == answered(b"x")
        assert process.wait(20) == 0


def test_the_command_listens_more_than_once(server: Path, tmp_path: Path) -> None:
    """Each `--tcplisten` is a socket more, behind the directories."""
    options = ["--dir", str(tmp_path), "--tcplisten", "127.0.0.1:0", "--tcplisten", "[::1]:0"]
    command = [*WALI, *options, str(server), "5", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(2)]
        address = address_of(told[1].removeprefix("wali: listening on ").strip())
        assert talk(address, b"x") == answered(b"x")
        assert process.wait(20) == 0


def test_the_command_takes_what_systemd_passes(server: Path, listener: socket.socket) -> None:
    """`--listenfd` gives the program the sockets that came with the process."""
    number = listener.fileno()
    command = [
        sys.executable,
        "-c",
        PASSING,
        str(number),
        *WALI,
        "--listenfd",
        str(server),
        "3",
        "1",
    ]
    with subprocess.Popen(command, pass_fds=[number]) as process:
        assert talk(listener.getsockname(), b"x") == answered(b"x")
        assert process.wait(20) == 0


def test_the_command_takes_nothing_unasked(server: Path, listener: socket.socket) -> None:
    """Without `--listenfd` a program has no such socket."""
    number = listener.fileno()
    command = [sys.executable, "-c", PASSING, str(number), *WALI, str(server), "3", "1"]

    done = subprocess.run(command, pass_fds=[number], check=False)

    assert done.returncode == Errno.BADF


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--tcplisten", "nowhere"], 2, "--tcplisten nowhere: it must be HOST:PORT"),
        (["--tcplisten", "192.0.2.1:0"], 126, "cannot listen on 192.0.2.1, port 0: Cannot assign"),
        (["--listenfd"], 126, "no sockets were passed to this process"),
    ],
)
def test_the_command_says_what_is_wrong(
    options: list[str], status: int, message: str, server: Path
) -> None:
    """What cannot be had is one line, and the usual status."""
    done = subprocess.run(
        [*WALI, *options, str(server)], capture_output=True, text=True, check=False
    )

    assert done.returncode == status
    assert done.stderr.startswith(f"wali: {message}")
