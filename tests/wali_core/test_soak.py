"""A soak: whatever can happen to guests happens to them, again and again, and nothing is left."""

from __future__ import annotations

import faulthandler
import functools
import gc
import os
import random
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import trio
import trio.lowlevel

from benchmarks._many import POLLER, WASI
from wali_core import GuestTimeout, GuestTrap, Runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wali_core._engine import Module

# Here the kernel's time passes: what comes upon a guest while it does what is not foreseen.
SECONDS = float(os.environ.get("WALI_SOAK_SECONDS", "10"))
SENT = 100_000  # bytes, to and fro over one connection
SPIN = ("spin",)

# Accepts a connection from socket 3, and sends back what comes over it, to its end.
SERVER = f"""(module
  (import "{WASI}" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
  (func (export "_start") (local $left i32)
    (call $check (call $accept (i32.const 3) (i32.const 0) (i32.const 16)))
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 5000))
      (call $check
        (call $read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $left (i32.load (i32.const 8)))
      (if (i32.eqz (local.get $left)) (then (return)))
      (loop $rest
        (i32.store (i32.const 4) (local.get $left))
        (call $check
          (call $write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 8))))
        (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 8))))
        (br_if $rest (local.get $left)))
      (br $more))))"""


class Soak:
    """One of each thing that can happen; ``happened`` counts those that really have."""

    def __init__(
        self, runtime: Runtime, poller: Module, words: Module, server: Module, plan: random.Random
    ) -> None:
        self.runtime = runtime
        self.poller, self.words, self.server = poller, words, server
        self.plan = plan
        self.happened: Counter[str] = Counter()

        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "it ends": self._ends,
            "it traps": self._traps,
            "it is woken": self._is_woken,
            "it reads to the end": self._reads_to_the_end,
            "it serves": self._serves,
        }
        for way in (self._computes, self._polls, self._accepts, self._reads, self._writes):
            for how in (self._cancel, self._let_be_late):
                kind = f"{how.__name__} while it {way.__name__}"
                self.kinds[kind] = functools.partial(way, functools.partial(how, kind))

    async def some(self) -> None:
        """Do one of them."""
        await self.plan.choice(list(self.kinds.values()))()

    # --- ends of their own ------------------------------------------------------------------------

    async def _ends(self) -> None:
        result = await self.runtime.run(self.words, args=["both", "70000"], capture_output=True)
        assert result.stdout == result.stderr == bytes(70_000)
        self.happened["it ends"] += 1

    async def _traps(self) -> None:
        with pytest.raises(GuestTrap, match="unreachable"):
            await self.runtime.run(self.words, args=["trap"], capture_output=True)
        self.happened["it traps"] += 1

    async def _is_woken(self) -> None:
        async with Pipe() as pipe, trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(self.runtime.run, self.poller, stdin=pipe.read))
            await self._a_moment()
            os.write(pipe.write, b"x")
        self.happened["it is woken"] += 1

    async def _reads_to_the_end(self) -> None:
        data, taken = self.plan.randbytes(self.plan.randrange(200_000)), bytearray()

        async def pieces() -> Any:
            for at in range(0, len(data), 30_000):
                await trio.lowlevel.checkpoint()
                yield data[at : at + 30_000]

        await self.runtime.run(self.words, args=["echo"], stdin=pieces(), stdout=taken.extend)
        assert taken == data
        self.happened["it reads to the end"] += 1

    async def _serves(self) -> None:
        """A client over a real connection, whose bytes come back in order."""
        data, got = self.plan.randbytes(SENT), bytearray()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    functools.partial(self.runtime.run, self.server, sockets=[listener], stdin=-3)
                )
                client = await trio.open_tcp_stream(*listener.getsockname())

                async def send() -> None:
                    await client.send_all(data)
                    await client.send_eof()

                nursery.start_soon(send)
                async for piece in client:
                    got.extend(piece)
                await client.aclose()
        assert got == data
        self.happened["it serves"] += 1

    # --- ends by others ---------------------------------------------------------------------------

    async def _a_moment(self) -> None:
        await trio.sleep(self.plan.uniform(0, 0.02))

    async def _cancel(self, kind: str, module: Module, *call: Any, **given: Any) -> None:
        """End a guest in its call, when it waits there or has computed."""
        async with self.runtime.open(module, **given) as guest:

            def is_at_it() -> bool:
                done = guest.statistics()
                return done.running > 0.001 if call == SPIN else done.waits > 0

            async with trio.open_nursery() as nursery:
                nursery.start_soon(functools.partial(guest.call, *call))
                while not is_at_it():
                    await trio.lowlevel.checkpoint()
                await self._a_moment()
                nursery.cancel_scope.cancel()
            assert nursery.cancel_scope.cancelled_caught
            assert is_at_it()
        self.happened[kind] += 1

    async def _let_be_late(self, kind: str, module: Module, *call: Any, **given: Any) -> None:
        """Let its time be over; where it was so before the guest had begun, that does not count."""
        async with self.runtime.open(module, **given) as guest:
            with pytest.raises(GuestTimeout):
                await guest.call(*call, timeout=self.plan.uniform(0.001, 0.05))
            done = guest.statistics()
            self.happened[kind] += bool(done.running if call == SPIN else done.waits)

    async def _computes(self, how: Callable[..., Awaitable[None]]) -> None:
        await how(self.poller, *SPIN)

    async def _polls(self, how: Callable[..., Awaitable[None]]) -> None:
        """For a pipe and a socket."""
        near, far = socket.socketpair()
        with near, far:
            async with Pipe() as pipe:
                await how(self.poller, "poll", 2, stdio=(pipe.read, -1, -1), sockets=[near])

    async def _accepts(self, how: Callable[..., Awaitable[None]]) -> None:
        """From a listener to which nobody comes."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await how(self.server, "_start", sockets=[listener])

    async def _reads(self, how: Callable[..., Awaitable[None]]) -> None:
        """From a client that says nothing."""
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()),
        ):
            await how(self.server, "_start", sockets=[listener])

    async def _writes(self, how: Callable[..., Awaitable[None]]) -> None:
        """To a socket that nobody reads from."""
        near, far = socket.socketpair()
        with near, far:
            await how(self.words, "_start", args=["fill"], stdio=(-1, near.fileno(), -1))


class Pipe:
    """Both ends of a pipe, for a while."""

    async def __aenter__(self) -> Self:
        self.read, self.write = os.pipe()
        return self

    async def __aexit__(self, *_: object) -> None:
        for fd in (self.read, self.write):
            trio.lowlevel.notify_closing(fd)
            os.close(fd)


def held() -> tuple[int, int, int]:
    """Return how many descriptors, threads and mappings this process has."""
    gc.collect()
    mappings = Path("/proc/self/maps").read_text().count("\n")
    return len(os.listdir("/proc/self/fd")), threading.active_count(), mappings


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_soak(cache_folder: Path, guest_from_wat: Callable[..., Path], program: Path) -> None:
    """Guests end, trap, are served, cancelled and timed out, and nothing leaks.

    ``WALI_SOAK_SECONDS=600`` makes it the ten minutes of the long run.
    """
    faulthandler.cancel_dump_traceback_later()  # it takes as long as it says
    poller, server = guest_from_wat(POLLER), guest_from_wat(SERVER, "server.wasm")

    async def main() -> None:
        with Runtime(cache=cache_folder) as runtime:
            plan = random.Random(20_26)  # noqa: S311 - a plan
            load = runtime.load
            soak = Soak(runtime, load(poller), load(program), load(server), plan)
            for once in soak.kinds.values():
                await once()
            before = None
            ends = trio.current_time() + SECONDS
            while trio.current_time() < ends or before is None:
                async with trio.open_nursery() as nursery:
                    for _ in range(plan.randrange(1, 60)):
                        nursery.start_soon(soak.some)
                assert runtime.statistics().guests == 0
                if before is None or soak.happened.total() < 1000:
                    before = held()
            after = held()
            assert after[0] == before[0]
            assert after[1] <= before[1]  # trio's own may end meanwhile
            assert after[2] <= before[2] + 30
            assert set(soak.happened) == set(soak.kinds)
            assert min(soak.happened.values()) > 1, soak.happened

    trio.run(main)
