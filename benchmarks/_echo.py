"""An echo server that is a WALI program, and clients that are WASI programs, in one thread."""

from __future__ import annotations

import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks._sides import compile_program
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from wali_core import Runtime
    from wali_core._engine import Module

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "examples" / "06_echo_server" / "echo_server.c"
CLIENT = Path(__file__).with_name("echo_client.c")


def build(folder: Path, connections: int) -> tuple[Path, Path]:
    """Compile both: the server for so many connections at a time."""
    server = compile_program(SERVER, folder / "server.wasm", f"-DCONNECTIONS={connections}")
    client = compiler.compile_guest(CLIENT, folder / "client.wasm", target="wasm32-freestanding")
    return server, client


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def connect(port: int, count: int) -> list[socket.socket]:
    """Connections to the server, as soon as it listens."""
    made = []
    for _ in range(count):
        while True:
            connection = trio.socket.socket()
            try:
                await connection.connect(("127.0.0.1", port))
            except ConnectionRefusedError:
                connection.close()
                await trio.sleep(0.001)
            else:
                break
        made.append(socket.socket(fileno=connection.detach()))
    return made


async def echo(
    runtime: Runtime, modules: tuple[Module, Module], count: int, rounds: int, size: int, log: Path
) -> float:
    """Have ``count`` clients get their bytes back; the seconds that it took them.

    Raises ``ValueError`` where one has not.
    """
    server, client = modules
    port = free_port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                runtime.run,
                server,
                args=[str(port), str(log)],
                isolation="shared",
                stdout=subprocess.DEVNULL,
            )
        )
        connections = await connect(port, count)

        async def one(number: int, connection: socket.socket) -> None:
            words = [str(rounds), str(size), str(number + 1)]
            with connection:
                result = await runtime.run(client, args=words, sockets=[connection])
            if result.returncode:
                raise ValueError(f"a client has not got back what it has sent: {result}")

        began = trio.current_time()
        async with trio.open_nursery() as clients:
            for number, connection in enumerate(connections):
                clients.start_soon(one, number, connection)
        return trio.current_time() - began
