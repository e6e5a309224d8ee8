"""Run a server that may use one port and one folder, talk to it, and see what it cannot do.

python -m examples.06_echo_server.run
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from examples._common import ROOT, expect, run, say, wali_program

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CLIENTS = 20
BLOCK = bytes(range(256)) * 4096  # a megabyte: the server has to wait for room, too
PATIENCE = 30.0


def attempts(lines: Iterator[str]) -> None:
    """Read what the server says of its attempts: none was made to work.

    A file that was not granted does not exist for it; without a view of its own, it is refused.
    """
    for line in lines:
        what, _, result = line.strip().rpartition(": ")
        if not what:
            say(f"the server: {line.strip()}")
            return
        number = -int(result)
        said = errno.errorcode.get(number, "it was DONE")
        say(f"the server: {what}: {said}")
        # What the gate holds back answers EPERM: this is the view, and Landlock.
        expect(number in (errno.ENOENT, errno.EACCES), f"{what}: {result}")
    expect(False, "the server has not come up")


def talk(port: int) -> None:
    """Send from several connections at once, and get the same back."""
    address = ("127.0.0.1", port)
    clients = [socket.create_connection(address, timeout=PATIENCE) for _ in range(CLIENTS)]
    for number, client in enumerate(clients):
        client.sendall(f"hello from {number}".encode())
    for number, client in enumerate(clients):
        expect(client.recv(100) == f"hello from {number}".encode(), f"client {number}: no echo")
    say(f"{CLIENTS} clients at once: each got its own words back")
    expect(echoed(clients[0], BLOCK) == BLOCK, "a megabyte came back changed")
    say("a megabyte through one of them: it came back as it was")
    for client in clients:
        client.close()


def echoed(client: socket.socket, data: bytes) -> bytes:
    """Send and receive at the same time."""
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    received = bytearray()
    while len(received) < len(data) and (piece := client.recv(65536)):
        received += piece
    sender.join()
    return bytes(received)


def serve(program: Path, folder: Path) -> None:
    """Start the server under its policy, be its clients, and see how it ended."""
    policy = folder / "policy.toml"
    grant = tomllib.loads(policy.read_text())["network"]["listen"][0]
    port = int(grant.rpartition(":")[2])
    words = [
        "run",
        "--policy",
        str(policy),
        str(program),
        str(port),
        str(folder / "log" / "served"),
    ]
    say(f"$ wali run --policy policy.toml {program.name} {port} log/served")
    with subprocess.Popen(
        [sys.executable, "-m", "wali_core", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            attempts(iter(server.stdout or ()))
            talk(port)
            status = server.wait(PATIENCE)
        finally:
            server.kill()
    ended = (folder / "log" / "served").read_text().count("ended\n")
    expect((status, ended) == (0, CLIENTS), f"status {status}, {ended} connections in its log")
    say(f"it has ended with status 0, and {ended} connections in its log")


def main() -> None:
    """Do it in a folder that is removed afterwards."""
    program = wali_program(HERE / "echo_server.c")
    with tempfile.TemporaryDirectory(prefix="wali-example-") as name:
        folder = Path(name)
        (folder / "log").mkdir()
        shutil.copy(HERE / "policy.toml", folder)
        serve(program, folder)


if __name__ == "__main__":
    run(main)
