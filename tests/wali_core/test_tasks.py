"""Tests of guests as trio tasks: what they wait for, and how they end."""

from __future__ import annotations

import functools
import gc
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import wasmtime

import wali_core
from benchmarks._many import POLLER
from tests.held import open_descriptors, settled_descriptors
from tests.jumping import in_jumping_trio, let_pass, until
from wali_core import (
    CompletedGuest,
    GuestError,
    GuestExit,
    GuestLimit,
    GuestTimeout,
    GuestTrap,
    ModuleError,
    Runtime,
    Statistics,
    UseError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from wali_core import CooperativeGuest

pytestmark = pytest.mark.oldest

WASI = "wasi_snapshot_preview1"
ENDLESS = ["spin", "read", "poll", "sleep", "fill"]


def in_trio(function: Callable[..., Awaitable[Any]], *args: Any, clock: Any = None) -> Any:
    """Run an asynchronous function; no test takes longer than it has to."""

    async def bounded() -> Any:
        with trio.fail_after(60):
            return await function(*args)

    return trio.run(bounded, clock=clock)


@pytest.fixture
def run(runtime: Runtime, program: Path) -> Callable[..., Awaitable[CompletedGuest]]:
    """Return a function that runs the program with arguments, and collects its output."""
    module = runtime.load(program)

    def run(*args: str, **options: Any) -> Awaitable[CompletedGuest]:
        options.setdefault("capture_output", not {"stdout", "stderr"} & set(options))
        return runtime.run(module, args=args, **options)

    return run


@pytest.fixture
def silence() -> Iterator[int]:
    """Return a pipe that nobody writes to."""
    ends = os.pipe()
    yield ends[0]
    for fd in ends:
        os.close(fd)


@pytest.fixture
def sink() -> Iterator[int]:
    """Return a pipe that nobody reads from."""
    ends = os.pipe()
    yield ends[1]
    for fd in ends:
        os.close(fd)


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (["args", "a", "b"], {}),
        (["env"], {"env": {"A": "1"}}),
        (["echo"], {"stdin": b"x" * 200_000}),
        (["both", "100000"], {}),
        (["exit", "3"], {}),
        (["grow", "2"], {"memory": 40 << 16}),
        (["preopens"], {"dirs": {"/": "/tmp"}}),
    ],
)
def test_results_are_those_of_run_sync(
    args: list[str], options: dict[str, Any], runtime: Runtime, program: Path
) -> None:
    """A program gives the same, be it run in a thread of its own or as a task."""
    options |= {"args": args, "capture_output": True}

    expected = runtime.run_sync(program, **options)

    assert in_trio(functools.partial(runtime.run, program, **options)) == expected


def test_a_program_once(program: Path, cache_folder: Path) -> None:
    """The module's own function makes a runtime, as run_sync does."""
    result = in_trio(
        functools.partial(
            wali_core.run, program, args=["echo"], stdin=b"hello", capture_output=True,
            cache=cache_folder,
        )
    )  # fmt: skip

    assert result.stdout == b"hello"


def test_a_trap_is_an_error(run: Any) -> None:
    """A trap is raised, with its frames."""
    with pytest.raises(GuestTrap, match="unreachable") as caught:
        in_trio(run, "trap")

    assert caught.value.frames
    assert caught.value.stdout == b""


def test_what_is_no_program_is_refused(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """The errors are those of run_sync."""
    with pytest.raises(ModuleError, match="a library, not a program"):
        in_trio(runtime.run, guest_from_wat("(module)"))
    with pytest.raises(FileNotFoundError):
        in_trio(runtime.run, "/no/such/module.wasm")
    text = f"""(module (import "{WASI}" "fd_close" (func (param i64) (result i32)))
        (func (export "_start")))"""
    with pytest.raises(ModuleError, match=r"imports wasi_snapshot_preview1\.fd_close: "):
        in_trio(runtime.run, guest_from_wat(text))


def test_an_exit_in_the_start_function_is_a_status(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A start function runs with the guest's imports, and may end it."""
    text = f"""(module (import "{WASI}" "proc_exit" (func $exit (param i32)))
        (func $early (call $exit (i32.const 7))) (start $early)
        (func (export "_start")))"""

    assert in_trio(runtime.run, guest_from_wat(text)).returncode == 7


# --- guests that are called -----------------------------------------------------------------------

NUMBERS = """(module
  (func (export "add") (param i32 i64 f32 f64) (result i64)
    (i64.add (i64.extend_i32_s (local.get 0)) (local.get 1)))
  (func (export "swap") (param f32 f64) (result f64 f32) (local.get 1) (local.get 0))
  (func (export "spin") (loop (br 0)))
  (func (export "trap") (unreachable))
  (memory (export "memory") 1)
  (data (i32.const 5) "bytes"))"""


def test_functions_are_called(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """Arguments and results of every kind arrive; a trap leaves the guest as it is."""

    async def main() -> None:
        async with runtime.open(guest_from_wat(NUMBERS)) as guest:
            assert await guest.call("add", -1, 2**40, 1.5, 2.5) == 2**40 - 1
            assert await guest.call("swap", 0.5, 0.25) == (0.25, 0.5)
            with pytest.raises(GuestTrap):
                await guest.call("trap")
            assert guest.memory.read(5, 5) == b"bytes"
            assert guest.types("swap") == ("fF", "Ff")
            with pytest.raises(OverflowError):
                await guest.call("add", 2**33, 0, 0, 0)
        with pytest.raises(UseError, match="it was closed"):
            await guest.call("add", 1, 2, 3, 4)

    in_trio(main)


def test_a_call_has_a_time(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """A time-out is the call's, and ends the guest."""
    module = runtime.load(guest_from_wat(NUMBERS))

    async def main() -> None:
        async with runtime.open(module) as guest, trio.open_nursery() as nursery:
            nursery.start_soon(let_pass, 7, lambda: guest.statistics().running)
            with pytest.raises(GuestTimeout, match=r"after its 7 s"):
                await guest.call("spin", timeout=7)
            with pytest.raises(UseError, match=r"stopped after its 7 s"):
                await guest.call("trap")

    in_jumping_trio(main)


def test_one_call_at_a_time(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """While a call goes on, nobody else gets at the guest."""

    async def main() -> None:
        async with runtime.open(guest_from_wat(NUMBERS)) as guest, trio.open_nursery() as nursery:
            memory = guest.memory
            nursery.start_soon(guest.call, "spin")
            await until(lambda: guest.statistics().running)
            with pytest.raises(UseError, match="in a call"):
                await guest.call("trap")
            with pytest.raises(UseError, match="in a call"):
                memory.read(0, 1)
            with pytest.raises(UseError, match="cancel that first"):
                guest.close()
            nursery.cancel_scope.cancel()

    in_trio(main)


def test_a_guest_that_is_left_in_a_call_is_closed_after_it(
    runtime: Runtime, guest_from_wat: Callable[..., Path], silence: int
) -> None:
    """Who leaves the block too early is told so; when the call has ended, nothing is left."""
    module = runtime.load(guest_from_wat(POLLER))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            opening = runtime.open(module, stdio=(silence, -1, -1))
            guest = await opening.__aenter__()
            nursery.start_soon(guest.call, "poll", 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(UseError, match="closed after that"):
                await opening.__aexit__(None, None, None)
            assert runtime.statistics().guests == 1
            nursery.cancel_scope.cancel()
        assert runtime.statistics().guests == 0
        with pytest.raises(UseError):
            await guest.call("poll", 1)

    in_trio(main)


def test_a_pool_that_is_full_says_so(cache_folder: Path, program: Path) -> None:
    """More guests than there is room for are a mistake of the caller's, and no trap."""

    async def main() -> None:
        with Runtime(cache=cache_folder, pool=2) as runtime:
            async with runtime.open(program), runtime.open(program):
                with pytest.raises(UseError, match=r"pool=2\)"):
                    async with runtime.open(program):
                        pass
            assert (await runtime.run(program, args=["exit", "3"])).returncode == 3

    in_trio(main)


def test_one_module_is_compiled_once(program: Path) -> None:
    """However many tasks ask for it at a time."""
    compiled: list[str] = []

    async def main() -> None:
        with Runtime(cache=False, on_compile=lambda name, _: compiled.append(name)) as runtime:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(functools.partial(runtime.run, program, args=["exit", "0"]))

    in_trio(main)
    assert compiled.count(str(program)) == 1


def test_an_exit_is_an_exception_of_the_call(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """As with Guest.call, a library that exits raises."""
    text = f"""(module (import "{WASI}" "proc_exit" (func $exit (param i32)))
        (func (export "leave") (call $exit (i32.const 9))))"""

    async def main() -> None:
        async with runtime.open(guest_from_wat(text)) as guest:
            with pytest.raises(GuestExit) as caught:
                await guest.call("leave")
            assert caught.value.status == 9

    in_trio(main)


def test_calls_are_checkpoints(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """A call that does not wait still lets others run, and is cancelled before it begins."""

    async def main() -> None:
        async with runtime.open(guest_from_wat(NUMBERS)) as guest:
            with trio.testing.assert_checkpoints():
                await guest.call("swap", 1, 2)
            with trio.CancelScope() as scope:
                scope.cancel()
                await guest.call("swap", 1, 2)
            assert scope.cancelled_caught
            assert await guest.call("swap", 1, 2) == (2, 1)  # it had not begun

    in_trio(main)


def test_outside_of_trio_there_are_none(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """Without trio nothing is made."""
    coroutine = runtime.open(runtime.load(guest_from_wat(NUMBERS))).__aenter__()
    with pytest.raises(RuntimeError):
        coroutine.send(None)


# --- waiting --------------------------------------------------------------------------------------


def open_pipe(_: Path) -> tuple[int, int]:
    """Return both ends of a pipe."""
    return os.pipe()


def open_terminal(_: Path) -> tuple[int, int]:
    """Return a terminal, and whoever types on it."""
    master, slave = os.openpty()
    return slave, master


def open_socket(_: Path) -> tuple[int, int]:
    """Return two sockets that are connected."""
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def open_fifo(folder: Path) -> tuple[int, int]:
    """Return a FIFO, opened for both."""
    os.mkfifo(folder / "fifo")
    return os.open(folder / "fifo", os.O_RDWR), os.open(folder / "fifo", os.O_WRONLY)


KINDS = [open_pipe, open_terminal, open_socket, open_fifo]


@pytest.mark.parametrize("what", ["read", "poll"])
@pytest.mark.parametrize("kind", KINDS)
def test_input_of_any_kind_is_waited_for(
    kind: Callable[[Path], tuple[int, int]], what: str, run: Any, tmp_path: Path
) -> None:
    """A guest waits for its input while others run, and goes on when there is some."""
    ours, theirs = kind(tmp_path)
    blocking = os.get_blocking(ours)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            done: list[CompletedGuest] = []

            async def guest() -> None:
                done.append(await run(what, stdin=ours))

            nursery.start_soon(guest)
            await trio.testing.wait_all_tasks_blocked()
            assert not done
            os.write(theirs, b"a line\n")
        assert (done[0].returncode, done[0].stdout) == (0, b"ready\n")

    try:
        in_trio(main)
        assert os.get_blocking(ours) == blocking
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("count", [2, 40])
@pytest.mark.parametrize("kind", [open_pipe, open_terminal])
def test_many_wait_for_one_descriptor(
    kind: Callable[[Path], tuple[int, int]], count: int, run: Any, tmp_path: Path
) -> None:
    """Guests that read from one descriptor each get a line, whoever comes first."""
    ours, theirs = kind(tmp_path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(functools.partial(run, "read", stdin=ours))
            await trio.testing.wait_all_tasks_blocked()
            for left in range(count, 0, -1):
                assert len(nursery.child_tasks) == left
                os.write(theirs, b"\n")
                while len(nursery.child_tasks) == left:
                    await trio.lowlevel.checkpoint()

    try:
        in_trio(main)
    finally:
        os.close(ours)
        os.close(theirs)


def test_time_is_trios(runtime: Runtime, program: Path) -> None:
    """A guest sleeps by trio's clock, which tests may move: an hour passes at once."""

    async def main() -> float:
        started = trio.current_time()
        result = await runtime.run(runtime.load(program), args=["sleep"], stdout=-3)
        assert result.returncode == 0
        return trio.current_time() - started

    assert in_jumping_trio(main) == pytest.approx(3600, abs=1)


def test_time_outs_are_trios(runtime: Runtime, program: Path) -> None:
    """So are the limits of a guest: a time-out of a minute takes none."""

    async def main() -> float:
        started = trio.current_time()
        with pytest.raises(GuestTimeout, match="after its 60 s"):
            await runtime.run(runtime.load(program), args=["sleep"], stdout=-3, timeout=60)
        return trio.current_time() - started

    assert in_jumping_trio(main) == pytest.approx(60, abs=1)


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ENDLESS)
def test_a_time_out_ends_whatever_a_guest_does(
    what: str, runtime: Runtime, program: Path, silence: int, sink: int
) -> None:
    """A guest that computes, reads, polls, sleeps or writes is ended in time."""
    streams: Any = {"stdin": silence, "stdout": sink}
    module = runtime.load(program)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            if what == "spin":
                nursery.start_soon(let_pass, 60, lambda: runtime.statistics().running)
            with pytest.raises(GuestTimeout, match=r"stopped after its 60 s"):
                await runtime.run(module, args=[what], timeout=60, **streams)

    in_jumping_trio(main)


@pytest.mark.parametrize("what", ENDLESS)
def test_cancelling_ends_whatever_a_guest_does(
    what: str, runtime: Runtime, program: Path, silence: int, sink: int
) -> None:
    """Any cancel scope does."""
    streams: Any = {"stdin": silence, "stdout": sink}
    module = runtime.load(program)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            if what == "spin":
                nursery.start_soon(let_pass, 60, lambda: runtime.statistics().running)
            with trio.move_on_after(60) as scope:
                await runtime.run(module, args=[what], **streams)
            assert scope.cancelled_caught

    in_jumping_trio(main)


@pytest.mark.parametrize("what", ENDLESS)
def test_ctrl_c_ends_whatever_a_guest_does(
    what: str, runtime: Runtime, program: Path, silence: int, sink: int
) -> None:
    """Ctrl-C is trio's: it ends the run, and the guest with it."""
    reader, writer = os.pipe()
    module = runtime.load(program)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(press)
            stdout = sink if what == "fill" else writer
            await runtime.run(module, args=[what], stdin=silence, stdout=stdout)

    async def press() -> None:
        if what != "fill":
            await trio.lowlevel.wait_readable(reader)
        signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
            trio.run(main)
    finally:
        os.close(reader)
        os.close(writer)
    if isinstance(caught.value, BaseExceptionGroup):
        assert caught.value.split(KeyboardInterrupt)[1] is None


def test_nothing_is_left(
    runtime: Runtime, program: Path, silence: int, sink: int, run: Any
) -> None:
    """However guests end, descriptors, threads and mappings are what they were."""
    module = runtime.load(program)

    async def one_of_each() -> None:
        for what in ENDLESS:
            streams: Any
            for streams in ({"stdin": silence, "stdout": -3}, {"stdin": silence, "stdout": sink}):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(
                            functools.partial(runtime.run, module, args=[what], **streams)
                        )
                        for _ in range(5):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
        await run("both", "100000", stdin=b"x")
        with pytest.raises(GuestTrap):
            await run("trap")
        with pytest.raises(GuestTimeout):
            await run("poll", stdin=silence, timeout=0)
        with pytest.raises(GuestError):
            await run("both", "100000", output_limit=10)
        with trio.CancelScope() as scope:
            scope.cancel()
            await run("exit", "0")

    def state() -> tuple[dict[str, str], int, int]:
        gc.collect()  # what tests before this one have left
        mappings = Path("/proc/self/maps").read_text().count("\n")
        folder = "/proc/self/fd"
        names = [f"{folder}/{fd}" for fd in os.listdir(folder)]
        files = {name: os.readlink(name) for name in names if os.path.lexists(name)}
        return files, threading.active_count(), mappings

    async def main() -> None:
        for _ in range(2):
            await one_of_each()
        before = state()
        for _ in range(4):
            await one_of_each()
        after = state()
        assert sorted(after[0].items() - before[0].items()) == []
        assert after[1] <= before[1]  # those that trio keeps for other tests may end meanwhile
        assert after[2] <= before[2] + 4

    in_trio(main)


@pytest.mark.parametrize("closed", [False, True])
def test_cancelled_while_its_module_is_compiled(closed: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """The task ends at once; the thread that compiles ends with that, and leaves nothing."""
    step = "(local.set 0 (i32.mul (local.get 0) (i32.rotl (local.get 0) (i32.const 7))))"
    function = f'(func (export "f%d") (param i32) (result i32) {step * 100} (local.get 0))'
    functions = "".join(function % number for number in range(400))
    module = bytes(wasmtime.wat2wasm(f'(module {functions} (func (export "_start")))'))

    async def main() -> None:
        threads = trio.to_thread.current_default_thread_limiter()
        with Runtime(cache=tmp_path) as runtime:
            before = settled_descriptors()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.run, module)
                await trio.testing.wait_all_tasks_blocked()
                assert threads.borrowed_tokens == 1
                nursery.cancel_scope.cancel()
            assert threads.borrowed_tokens == 1  # it compiles still
            if closed:
                runtime.close()
            threads.total_tokens = 1
            async with threads:  # so it does not any more
                assert open_descriptors() == before
            assert runtime.statistics().started == 0
            if not closed:
                assert (await runtime.run(module)).returncode == 0

    in_trio(main)


def test_a_time_out_while_its_module_is_compiled(program: Path) -> None:
    """It is raised in time; the compiler is left behind."""
    go_on = threading.Event()

    def compiling(_name: str, _size: int) -> None:
        go_on.wait()

    clock = trio.testing.MockClock(autojump_threshold=0)
    with Runtime(cache=False, on_compile=compiling) as runtime:
        with pytest.raises(GuestTimeout, match="after its 20 s"):
            in_trio(functools.partial(runtime.run, program, timeout=20), clock=clock)
        with pytest.raises(GuestTimeout, match=r"after its 0\.01 s"):
            runtime.run_sync(program, timeout=0.01)
        go_on.set()
        assert runtime.run_sync(program, args=["exit", "3"], timeout=100).returncode == 3


# --- streams --------------------------------------------------------------------------------------


async def typed() -> AsyncIterator[bytes]:
    """Give a few pieces."""
    for _ in range(3):
        await trio.lowlevel.checkpoint()
        yield b"piece "


@pytest.mark.parametrize(
    "source",
    [typed, lambda: iter([b"piece "] * 3), lambda: [b"piece ", b"piece piece "]],
    ids=["asynchronous", "iterator", "list"],
)
def test_what_is_iterated_arrives(source: Callable[[], Any], run: Any) -> None:
    """Standard input may come from an iterator of either kind."""
    assert in_trio(functools.partial(run, "echo", stdin=source())).stdout == b"piece " * 3


def test_streams_are_trios(runtime: Runtime, program: Path) -> None:
    """Standard input may be a ReceiveStream, standard output a SendStream; both stay open."""

    async def main() -> bytes:
        client, server = trio.testing.memory_stream_pair()
        out, far = trio.testing.memory_stream_pair()
        await client.send_all(b"x" * 300_000)
        await client.send_eof()
        await runtime.run(program, args=["echo"], stdin=server, stdout=out)
        await out.send_all(b"!")
        await out.send_eof()
        return b"".join([chunk async for chunk in far])

    assert in_trio(main) == b"x" * 300_000 + b"!"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_output_is_passed_on(asynchronous: bool, runtime: Runtime, program: Path) -> None:  # noqa: FBT001
    """A function is called with what is written, while the guest runs, and awaited if need be."""
    pieces: list[bytes] = []

    async def take(piece: bytes) -> None:
        await trio.lowlevel.checkpoint()
        pieces.append(piece)

    take_it: Any = take if asynchronous else pieces.append
    in_trio(functools.partial(runtime.run, program, args=["both", "200000"], stdout=take_it,
                              stderr=-3))  # fmt: skip

    assert len(b"".join(pieces)) == 200_000
    assert len(pieces) > 1


def test_a_slow_sink_slows_the_guest(runtime: Runtime, program: Path) -> None:
    """A guest that writes more than is taken waits: there is no more in between than a pipe."""
    taken: list[int] = []

    async def take(piece: bytes) -> None:
        taken.append(len(piece))
        if len(taken) == 2:
            await trio.sleep_forever()

    module = runtime.load(program)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(runtime.run, module, args=["fill"], stdout=take))
            await trio.testing.wait_all_tasks_blocked()
            assert len(taken) == 2
            nursery.cancel_scope.cancel()

    in_trio(main)


def test_a_broken_stream_is_a_broken_pipe(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A guest whose reader has gone is told so by an errno, as in a pipeline."""
    text = f"""(module
      (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "{WASI}" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func (export "_start") (local $errno i32)
        (i32.store (i32.const 4) (i32.const 1000))
        (loop $again
          (local.set $errno (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (br_if $again (i32.eqz (local.get $errno))))
        (call $exit (local.get $errno))))"""

    async def main() -> CompletedGuest:
        near, far = trio.testing.memory_stream_pair()
        await far.aclose()
        return await runtime.run(guest_from_wat(text), stdout=near)

    assert in_trio(main).returncode == 64  # EPIPE


class Stuck(trio.abc.SendStream):
    """A stream that takes nothing."""

    async def send_all(self, _data: bytes | bytearray | memoryview) -> None:
        """Wait for ever."""
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        """Not needed."""

    async def aclose(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize("what", [["fill"], ["both", "10"]])
@pytest.mark.parametrize("sink", [Stuck(), Stuck().send_all])
def test_a_time_out_holds_for_what_is_passed_on(
    what: list[str], sink: Any, runtime: Runtime, program: Path
) -> None:
    """A sink that takes nothing holds up no run that has a time, be its guest gone or not."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    once = functools.partial(runtime.run, runtime.load(program), args=what)
    with pytest.raises(GuestTimeout, match="after its 20 s"):
        in_trio(functools.partial(once, stdout=sink, stderr=-3, timeout=20), clock=clock)
    assert runtime.statistics().started == 1


def test_what_is_left_is_passed_on_after_a_time_out(runtime: Runtime, program: Path) -> None:
    """What a guest has written in its time arrives, if that takes no longer than a moment."""
    module, taken = runtime.load(program), bytearray()

    async def take(piece: bytes) -> None:
        await trio.sleep(0.3)
        taken.extend(piece)

    async def main() -> None:
        with pytest.raises(GuestTimeout):
            await runtime.run(module, args=["fill"], stdout=take, timeout=20)
        ended = trio.current_time()
        assert ended < 21

    in_trio(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(taken) > 1_000_000


@pytest.mark.parametrize("error", [trio.ClosedResourceError, trio.BrokenResourceError])
def test_a_functions_errors_are_its_own(error: type[Exception], run: Any) -> None:
    """Of a function what says that a stream is broken is an error like others."""

    def fail(_: bytes) -> None:
        raise error("mine")

    with pytest.raises(error, match="mine"):
        in_trio(functools.partial(run, "both", "10", stdout=fail))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, trio.ClosedResourceError])
def test_what_streams_raise_is_bare(error: type[BaseException], run: Any) -> None:
    """There is no group around what streams raise, even where others catch nothing else."""

    class Failing(trio.abc.ReceiveStream):
        async def receive_some(self, _max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise error("mine")

        async def aclose(self) -> None:
            pass

    async def fail(_: bytes) -> None:
        raise error("mine")

    for what in ({"stdout": fail}, {"stdin": Failing()}):
        with pytest.raises(error, match="mine"):
            in_trio(functools.partial(run, "echo", **({"stdin": b"x", "stdout": len} | what)))


def test_one_stream_for_both_outputs(runtime: Runtime, program: Path) -> None:
    """A stream that both are sent to is used by one at a time."""
    got = bytearray()

    async def main() -> None:
        near, far = trio.testing.lockstep_stream_pair()  # BusyResourceError for two at a time

        async def read() -> None:
            async for piece in far:
                got.extend(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await runtime.run(program, args=["both", "100000"], stdout=near, stderr=near)
            await near.aclose()

    in_trio(main)
    assert len(got) == 200_000


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_child_that_the_caller_forks_holds_up_nothing(stream: str, run: Any) -> None:
    """A run ends with its guest, though a forked child has its pipes, too."""
    read, write = os.pipe()
    children: list[int] = []

    def fork() -> None:
        if not children:
            children.append(os.fork())
            if children[0] == 0:
                os.close(write)
                os.read(read, 1)  # until the parent lets it go
                os._exit(0)

    def give() -> Iterator[bytes]:
        yield b"x"
        fork()

    streams = {"stdin": give()} if stream == "stdin" else {"stdout": lambda _: fork()}
    try:
        in_trio(functools.partial(run, "echo", **({"stdin": b"x", "stdout": len} | streams)))
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(children[0], 0)


def test_what_a_source_raises_ends_the_guest(run: Any) -> None:
    """An exception of the caller's is raised where the guest was run."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        await trio.lowlevel.checkpoint()
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        in_trio(functools.partial(run, "echo", stdin=broken()))


def test_what_a_sink_raises_ends_the_guest(run: Any) -> None:
    """Likewise with a function that takes output."""

    async def refuse(_: bytes) -> None:
        raise LookupError("not this")

    with pytest.raises(LookupError, match="not this"):
        in_trio(functools.partial(run, "fill", stdout=refuse))


@pytest.mark.parametrize("limit", [0, 10, 70_000])
def test_no_more_output_than_allowed(limit: int, run: Any) -> None:
    """A guest that writes more is ended; what there may be is kept, or passed on."""
    passed: list[bytes] = []

    with pytest.raises(GuestError, match="more output") as caught:
        in_trio(functools.partial(run, "fill", output_limit=limit))
    with pytest.raises(GuestError, match="more output"):
        in_trio(functools.partial(run, "fill", stdout=passed.append, output_limit=limit))

    assert len(caught.value.stdout or b"") == limit
    assert len(b"".join(passed)) == limit


def test_a_generator_is_closed(run: Any) -> None:
    """When the guest has ended, so has the generator of its input."""
    closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.append(True)

    in_trio(functools.partial(run, "exit", "0", stdin=endless()))

    assert closed


def test_guests_in_a_pipeline(runtime: Runtime, program: Path) -> None:
    """One guest's output is the next one's input; the end of the first is passed on."""

    async def main() -> CompletedGuest:
        read, write = os.pipe()

        async def first() -> None:
            async with trio.lowlevel.FdStream(write) as stream:
                await runtime.run(program, args=["both", "500000"], stdout=stream, stderr=-3)

        async with trio.open_nursery() as nursery, trio.lowlevel.FdStream(read) as stream:
            nursery.start_soon(first)
            return await runtime.run(program, args=["echo"], stdin=stream, capture_output=True)

    assert len(in_trio(main).stdout) == 500_000


# --- statistics -----------------------------------------------------------------------------------

ECHO = f"""(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "echo") (result i32)
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 100))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func (export "compute") (local $n i32)
    (loop $again
      (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1)))
                              (i32.const 20000000))))))"""


def test_a_guest_has_statistics(
    runtime: Runtime, guest_from_wat: Callable[..., Path], silence: int
) -> None:
    """Calls, waits, bytes and times are counted, a guest's own and all together."""
    module = runtime.load(guest_from_wat(ECHO))
    reader, writer = os.pipe()

    async def main() -> tuple[Statistics, Statistics]:
        async with (
            runtime.open(module, stdio=(reader, writer, -1)) as guest,
            runtime.open(module, stdio=(silence, -1, -1)) as other,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(other.call, "echo")
            before = guest.statistics()
            async with trio.open_nursery() as inner:
                inner.start_soon(guest.call, "echo")
                await trio.testing.wait_all_tasks_blocked()
                waited = guest.statistics().waiting
                await until(lambda: guest.statistics().waiting > waited > 0)
                os.write(writer, b"twelve bytes")
            await guest.call("compute")
            nursery.cancel_scope.cancel()
        assert runtime.statistics().guests == 0
        return before, guest.statistics()

    try:
        before, after = in_trio(main)
    finally:
        os.close(reader)
        os.close(writer)
    assert (after.read - before.read, after.written - before.written) == (12, 12)
    assert after.waits - before.waits == 1
    assert after.calls - before.calls < 10
    assert after.running > 0.001
    with pytest.raises(AttributeError):
        setattr(after, "calls", 0)  # noqa: B010 - it is a mistake, which mypy knows as well
    total = runtime.statistics()
    assert (total.started, total.read, total.written, total.waits) == (2, 12, 12, 2)
    assert total.calls >= after.calls
    assert total.waiting > after.waiting


def test_guests_with_threads_have_the_same_statistics(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A guest that waits in the kernel counts what a task counts."""
    reader, writer = os.pipe()
    try:
        with runtime.instantiate(guest_from_wat(ECHO), stdio=(reader, writer, -1)) as guest:
            os.write(writer, b"twelve bytes")
            guest.call("echo")
            guest.call("compute")
            assert runtime.statistics().guests == 1
    finally:
        os.close(reader)
        os.close(writer)
    found = guest.statistics()
    assert (found.read, found.written) == (12, 12)
    assert found.running > 0.001
    assert found.waiting >= 0


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value", "what"), [("cpu_time", '"100ms"', "spin"), ("output", "70000", "fill")]
)
def test_limits_of_a_policy_hold(
    limit: str, value: str, what: str, program: Path, cache_folder: Path, tmp_path: Path
) -> None:
    """Computing time and output are limited as for a guest that has its thread."""
    policy = tmp_path / "policy.toml"
    policy.write_text(f"version = 1\n[limits]\n{limit} = {value}\n")
    reader, writer = os.pipe()

    async def main() -> int:
        written = 0
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                nonlocal written
                async with trio.lowlevel.FdStream(reader) as stream:
                    async for chunk in stream:
                        written += len(chunk)

            nursery.start_soon(read)
            with Runtime(policy=policy, cache=cache_folder) as runtime:
                module = runtime.load(program)
                for stdout in (writer, -1):
                    with pytest.raises(GuestLimit) as caught:
                        await runtime.run(module, args=[what], stdout=stdout, stderr=-3)
                    assert caught.value.limit == limit
            os.close(writer)
        return written

    written = in_trio(main)
    assert 0 < written <= 70_000 - 4096 if what == "fill" else written == 6


def test_a_shim_is_compiled_once_and_beside(program: Path, tmp_path: Path) -> None:
    """Tasks that need it first wait for one thread to compile it; trio's runs all else."""
    compiled: list[tuple[str, int]] = []

    def tell(origin: str, _size: int) -> None:
        compiled.append((origin, threading.get_ident()))

    async def main(runtime: Runtime) -> None:
        module = runtime.load(program)
        compiled.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(functools.partial(runtime.run, module, args=["exit", "0"]))

    with Runtime(cache=tmp_path, on_compile=tell) as runtime:
        in_trio(main, runtime)
    assert len(compiled) == 1
    assert compiled[0][1] != threading.get_ident()


def test_a_write_that_is_cancelled_has_written(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """What of a long write is in the pipe when it is cancelled counts as written."""
    module = runtime.load(guest_from_wat(LONG_WRITE))
    read, write = os.pipe()

    async def main() -> int:
        async with runtime.open(module, stdio=(-1, write, -1)) as guest:
            with trio.move_on_after(1):
                await guest.call("write")
            return guest.statistics().written

    try:
        assert in_jumping_trio(main) == len(os.read(read, 1 << 20)) > 0
    finally:
        os.close(read)
        os.close(write)


LONG_WRITE = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 17)
  (func (export "write")
    (i32.store (i32.const 4) (i32.const 1000000))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


def test_a_guest_ends_with_its_run(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """In a later run of trio a guest takes no calls; to close it anywhere leaves nothing."""
    module = runtime.load(guest_from_wat(POLLER))
    (theirs, ours), (read, write) = socket.socketpair(), os.pipe()

    async def make() -> CooperativeGuest:
        guest = await runtime.open(module, stdio=(read, -1, -1), sockets=[theirs]).__aenter__()
        ours.send(b"x")
        assert await guest.call("poll", 2) == 1
        theirs.recv(1)
        async with trio.open_nursery() as nursery:  # so that it has waited

            async def poll() -> None:
                assert await guest.call("poll", 2) == 1

            nursery.start_soon(poll)
            await trio.testing.wait_all_tasks_blocked()
            ours.send(b"x")
        return guest

    async def use(guest: CooperativeGuest) -> None:
        with pytest.raises(UseError, match="another run of trio"):
            await guest.call("poll", 2)

    async def close(guest: CooperativeGuest) -> None:
        await trio.lowlevel.checkpoint()
        guest.close()

    in_trio(make).close()  # what a runtime keeps is there from here on
    before = settled_descriptors()
    first, second = in_trio(make), in_trio(make)
    in_trio(use, first)
    first.close()
    in_trio(close, second)
    assert open_descriptors() == before
    for one in (theirs, ours):
        one.close()
    for fd in (read, write):
        os.close(fd)
