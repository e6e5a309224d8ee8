"""An echo server that is a WALI program, and clients that are WASI programs, in one thread."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks._sides import compile_program
from wali_core import GuestExit
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from wali_core import Runtime
    from wali_core._engine import Module
    from wali_core.tasks._cooperative import CooperativeGuest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "examples" / "06_echo_server" / "echo_server.c"
CLIENT = Path(__file__).with_name("echo_client.c")
LOAD = Path(__file__).with_name("echo_load.c")


def build(folder: Path, connections: int) -> tuple[Path, Path]:
    """Compile both: the server for so many connections at a time."""
    server = compile_program(SERVER, folder / "server.wasm", f"-DCONNECTIONS={connections}")
    client = compiler.compile_guest(CLIENT, folder / "client.wasm", target="wasm32-freestanding")
    return server, client


def build_load(folder: Path) -> Path:
    """Compile the clients that are no guests: an ordinary program, which is all of them."""
    target = ("-target", f"{platform.machine()}-linux-musl", "-O2")
    made = folder / "load"
    compile_it = [sys.executable, "-m", "ziglang", "cc", *target, str(LOAD), "-o", str(made)]
    subprocess.run(compile_it, check=True)
    return made


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


async def load(program: Path, port: int, count: int, rounds: int, size: int) -> float:
    """Have that program be the clients; the seconds that it took them.

    Raises ``subprocess.CalledProcessError`` where bytes are not what they should be.
    """
    words = [str(program), *map(str, (port, count, rounds, size))]
    result = await trio.run_process(words, capture_stdout=True)
    return int(result.stdout) / 1e9


def serve(runtime: Runtime, server: Module, log: Path) -> tuple[int, Callable[[], Awaitable[Any]]]:
    """A port, and what serves there until the last connection has ended."""
    port = free_port()
    run = partial(
        runtime.run,
        server,
        args=[str(port), str(log)],
        isolation="shared",
        stdout=subprocess.DEVNULL,
    )
    return port, run


async def echo(
    runtime: Runtime, modules: tuple[Module, Module], count: int, rounds: int, size: int, log: Path
) -> float:
    """Have ``count`` guests get their bytes back; the seconds that it took them, once all are made.

    Raises ``ValueError`` where one has not.
    """
    server, client = modules
    port, run = serve(runtime, server, log)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nursery.start_soon(run)
        guests = []
        for number, connection in enumerate(await connect(port, count)):
            stack.enter_context(connection)
            words = [str(rounds), str(size), str(number + 1)]
            guests.append(
                await stack.enter_async_context(
                    runtime.open(client, args=words, sockets=[connection])
                )
            )

        async def one(guest: CooperativeGuest) -> None:
            try:
                await guest.call("_start")
            except GuestExit as end:
                raise ValueError(f"a client has not got back what it has sent: {end}") from end

        began = trio.current_time()
        async with trio.open_nursery() as clients:
            for guest in guests:
                clients.start_soon(one, guest)
        return trio.current_time() - began
