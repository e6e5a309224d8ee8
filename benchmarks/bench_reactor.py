"""Guests as trio tasks: what a call, a wait, a guest and an echo cost.

    python -m benchmarks.bench_reactor [GUESTS]

Every figure that issue was made for has its target beside it.  GUESTS is 10,000 unless said else.
Where two sides are compared they take turns, and ratios are medians of pairs.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import socket
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
import wasmtime

from benchmarks import _echo
from benchmarks._many import LIMIT, POLLER, WASI, Writer
from wali_core import Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from wali_core._engine import Module

CALLS, WAITS, ROUNDS = 50_000, 3000, 7
ONE, MANY, SIZE = 3000, 60, 512

# read: takes COUNT times one byte from stdin; nothing: reads none of it, COUNT times.
READER = f"""(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $loop (param $count i32) (param $size i32)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (local.get $size))
    (loop $again
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
  (func (export "read") (param i32) (call $loop (local.get 0) (i32.const 1)))
  (func (export "nothing") (param i32) (call $loop (local.get 0) (i32.const 0))))"""

PROGRAM = """(module
  (import "wali" "SYS_read" (func $read (param i32 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (func (export "nothing") (param $count i32)
    (loop $again
      (drop (call $read (i32.const 0) (i32.const 64) (i32.const 0)))
      (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))))"""


def say(what: str, value: float, unit: str, target: str, *, met: bool | None = None) -> None:
    """Print a line."""
    verdict = "" if met is None else "yes" if met else "NO"
    print(f"{what:58} {value:10.2f} {unit:6} {target:12} {verdict}", flush=True)


def status(key: str) -> int:
    """A figure of this process's, in KiB (proc_pid_status(5))."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{key}:")[2].split()[0])


# --- calls and waits ------------------------------------------------------------------------------


async def calls(runtime: Runtime) -> None:
    """A call that could wait, and need not: with a thread, and as a task."""
    await call_of("a call", runtime, runtime.load(bytes(wasmtime.wat2wasm(READER))), "process")
    program = runtime.load(bytes(wasmtime.wat2wasm(PROGRAM)), isolation="shared")
    await call_of("a WALI program's", runtime, program, "shared")


async def call_of(what: str, runtime: Runtime, module: Module, isolation: str) -> None:
    """Read nothing from a pipe that has something."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    given: Any = {"stdio": (reader, -1, -1), "isolation": isolation}
    found = []
    with runtime.instantiate(module, **given) as blocking:
        async with runtime.open(module, **given) as task:
            for _ in range(ROUNDS):
                began = time.perf_counter()
                blocking.call("nothing", CALLS)
                middle = time.perf_counter()
                await task.call("nothing", CALLS)
                found.append((middle - began, time.perf_counter() - middle))
    one = statistics.median(b for b, _ in found) / CALLS * 1e9
    more = statistics.median(t - b for b, t in found) / CALLS * 1e9
    say(f"{what} that need not wait, with a thread", one, "ns", "")
    say("the same as a task: more", more, "ns", "<= 200", met=more <= 200)
    os.close(reader)
    os.close(writer)


async def waits(runtime: Runtime) -> None:
    """A byte from one task to another, which waits for each: a guest, and Python."""
    module = runtime.load(bytes(wasmtime.wat2wasm(READER)))
    found = []
    for _ in range(ROUNDS):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        async with runtime.open(module, stdio=(reader, -1, -1)) as guest:
            taken = await timed(writer, partial(guest.call, "read", WAITS))
        bare = await timed(writer, partial(read, reader))
        found.append((taken, bare))
        os.close(reader)
        os.close(writer)
    taken = statistics.median(one for one, _ in found) / WAITS * 1e6
    bare = statistics.median(one for _, one in found) / WAITS * 1e6
    say("suspend and resume a guest, its waker included", taken, "us", "<= 25", met=taken <= 25)
    say("the same with a task in Python", bare, "us", "")


async def read(reader: int) -> None:
    """What the guest does."""
    for _ in range(WAITS):
        while True:
            try:
                os.read(reader, 1)
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(reader)


async def timed(writer: int, run: Callable[[], Awaitable[Any]]) -> float:
    """How long it takes to be woken so often."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        began = time.perf_counter()
        while nursery.child_tasks:
            os.write(writer, b"x")
            await trio.lowlevel.checkpoint()
    return time.perf_counter() - began


# --- many guests ----------------------------------------------------------------------------------


async def many(folder: Path, count: int) -> None:
    """Guests that wait in poll, each with its shim."""
    writer = Writer(count)
    with Runtime(cache=folder, pool=count + 10) as runtime:
        module = runtime.load(bytes(wasmtime.wat2wasm(POLLER)))
        with trio.move_on_after(0.01):
            await runtime.run(module, stdin=writer.reads[0])
        gc.collect()
        before = status("VmRSS"), status("VmPTE")
        ended: list[float] = []
        scopes: dict[int, trio.CancelScope] = {}

        async def one(index: int) -> None:
            with trio.CancelScope() as scopes[index]:
                await runtime.run(module, stdin=writer.reads[index])
            ended.append(time.perf_counter())

        async with trio.open_nursery() as nursery:
            began, computed = time.perf_counter(), time.process_time()
            for index in range(count):
                nursery.start_soon(one, index)
            await trio.testing.wait_all_tasks_blocked()
            started = (time.perf_counter() - began) / count * 1e6
            computed = (time.process_time() - computed) / count * 1e6
            gc.collect()
            resident = (status("VmRSS") - before[0]) / count
            say(f"start one of {count:,} guests", started, "us", "<= 800", met=started <= 800)
            say("  of that, computing time", computed, "us", "")
            say("resident memory of an idle one", resident, "KiB", "<= 48", met=resident <= 48)
            say("  and page tables", (status("VmPTE") - before[1]) / count, "KiB", "")
            gc.freeze()
            woken = sorted([await wake(writer, ended, index) for index in range(0, count, 25)])
            median, worst = woken[len(woken) // 2] * 1e3, woken[int(len(woken) * 0.99)] * 1e3
            say("wake one, median", median, "ms", "<= 1", met=median <= 1)
            say("wake one, 99 of 100", worst, "ms", "<= 5", met=worst <= 5)
            gone = sorted([await cancel(scopes[index], ended) for index in range(1, count, 100)])
            median = gone[len(gone) // 2] * 1e3
            say("cancel an idle one, median", median, "ms", "<= 2", met=median <= 2)
            began, left = time.perf_counter(), len(nursery.child_tasks)
            nursery.cancel_scope.cancel()
        all_gone = (time.perf_counter() - began) / left * 1e6
        say("cancel all that are left: each", all_gone, "us", "")
        gc.unfreeze()
    writer.close()


async def wake(writer: Writer, ended: list[float], index: int) -> float:
    """How long after the byte was written the guest has ended."""
    number, began = len(ended), time.perf_counter()
    writer.write(index)
    while len(ended) == number:
        await trio.lowlevel.checkpoint()
    return ended[-1] - began


async def cancel(scope: trio.CancelScope, ended: list[float]) -> float:
    """How long it takes until it has ended."""
    number, began = len(ended), time.perf_counter()
    scope.cancel()
    while len(ended) == number:
        await trio.lowlevel.checkpoint()
    return ended[-1] - began


async def computing(runtime: Runtime) -> None:
    """Cancel one of 50 guests that compute."""
    module = runtime.load(bytes(wasmtime.wat2wasm(POLLER)))
    found = []

    async def spin(scope: trio.CancelScope) -> None:
        with scope:
            async with runtime.open(module, stdio=(-1, -1, -1)) as guest:
                await guest.call("spin")
        found.append(time.perf_counter())

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(61)]
        for scope in scopes[:50]:
            nursery.start_soon(spin, scope)
        taken = []
        for number, scope in enumerate(scopes[:11]):
            await trio.sleep(0.15)
            began = time.perf_counter()
            scope.cancel()
            while len(found) == number:
                await trio.lowlevel.checkpoint()
            taken.append(found[-1] - began)
            nursery.start_soon(spin, scopes[50 + number])
        nursery.cancel_scope.cancel()
    median = statistics.median(taken) * 1e3
    say("cancel one of 50 that compute, median", median, "ms", "<= 60", met=median <= 60)


# --- echo -----------------------------------------------------------------------------------------


async def bare_server(listener: socket.socket, count: int) -> None:
    """What the guest does, in Python: an epoll of its own, which trio waits for."""
    epoll, connections = select.epoll(), {}
    epoll.register(listener, select.EPOLLIN)
    ended = 0
    while ended < count:
        await trio.lowlevel.wait_readable(epoll.fileno())
        for fd, _ in epoll.poll(0, 16):
            if fd == listener.fileno():
                made, _ = listener.accept()
                made.setblocking(False)
                connections[made.fileno()] = made
                epoll.register(made, select.EPOLLIN)
                continue
            data = connections[fd].recv(16384)
            if data:
                connections[fd].send(data)
                epoll.modify(fd, select.EPOLLIN)  # as the guest says what it waits for next
            else:
                connections.pop(fd).close()
                ended += 1
    epoll.close()


async def bare_client(connection: socket.socket, rounds: int) -> None:
    """What the guest does, in Python."""
    connection.setblocking(False)
    with connection:
        for number in range(rounds):
            data = bytes([number & 0xFF]) * SIZE
            connection.send(data)
            got = b""
            while len(got) < SIZE:
                try:
                    got += connection.recv(SIZE)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(connection)
            if got != data:
                raise ValueError("not what was sent")


@asynccontextmanager
async def bare_serving(count: int) -> AsyncIterator[int]:
    """An echo server without WebAssembly; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bare_server, listener, count)
            yield listener.getsockname()[1]


async def bare(count: int, rounds: int) -> float:
    """An echo without WebAssembly at either end; the seconds that it took the clients."""
    async with bare_serving(count) as port:
        connections = await _echo.connect(port, count)
        began = trio.current_time()
        async with trio.open_nursery() as clients:
            for connection in connections:
                clients.start_soon(bare_client, connection, rounds)
        return trio.current_time() - began


async def bare_loaded(load: Path, count: int, rounds: int) -> float:
    """The same with clients in another process, in C."""
    async with bare_serving(count) as port:
        return await _echo.load(load, port, count, rounds, SIZE)


async def loaded(
    runtime: Runtime, server: Module, load: Path, count: int, rounds: int, log: Path
) -> float:
    """A guest as the server of those clients."""
    port, run = _echo.serve(runtime, server, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        return await _echo.load(load, port, count, rounds, SIZE)


async def echoes(runtime: Runtime, folder: Path) -> None:
    """Echo over one connection and over a thousand, with guests and without.

    First only the server is a guest, and the clients are the same for both: so the figures say what
    a server costs.  Then the clients are guests as well, or tasks in Python, in the same thread.
    """
    server, client = _echo.build(folder, 1100)
    load, log = _echo.build_load(folder), folder / "log"
    modules = runtime.load(server, isolation="shared"), runtime.load(client)
    for count, rounds in ((1, ONE), (1000, MANY)):
        served, whole = [], []
        for _ in range(5):
            theirs = await bare_loaded(load, count, rounds)
            served.append((theirs, await loaded(runtime, modules[0], load, count, rounds, log)))
            theirs = await bare(count, rounds)
            ours = await _echo.echo(runtime, modules, count, rounds, SIZE, log)
            whole.append((theirs, ours))
        compare(f"echo server, {count} connection(s), a second", count * rounds, served)
        compare("echo with clients that are guests, too, a second", count * rounds, whole)


def compare(what: str, messages: int, found: list[tuple[float, float]]) -> None:
    """Print how many messages came back in a second, and the ratio to the others' time."""
    ratio = statistics.median(theirs / ours for theirs, ours in found)
    say(what, statistics.median(messages / ours for _, ours in found), "", "")
    say("  of the same in Python on trio", ratio, "x", ">= 0.8", met=ratio >= 0.8)


async def main() -> None:
    """Print the figures."""
    exec(LIMIT, {"resource": resource})  # noqa: S102 - as the other process does
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="wali-bench-") as name, Runtime(cache=name) as runtime:
        folder = Path(name)
        await calls(runtime)
        await waits(runtime)
        await computing(runtime)
        await echoes(runtime, folder)
        await many(folder, count)


if __name__ == "__main__":
    trio.run(main)
