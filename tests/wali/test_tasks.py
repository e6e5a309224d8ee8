"""WALI programs under trio: trusted ones as tasks, others in processes that are awaited."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import wasmtime

from tests.jumping import in_jumping_trio, let_pass, until
from tests.wali import building
from wali_core import GuestLimit, GuestTimeout, GuestTrap, ModuleError, Runtime, Statistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


def in_trio(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run an asynchronous function; no test takes longer than it has to."""

    async def bounded() -> Any:
        with trio.fail_after(60):
            return await function(*args)

    return trio.run(bounded)


native = pytest.mark.skipif(
    not building.HAS_NATIVE, reason="the guests are native programs on x86-64 only"
)


@native
@pytest.mark.parametrize("name", ["waiting"])
def test_prints_what_the_native_program_prints(name: str, free: Runtime, tmp_path: Path) -> None:
    """Poll, select, epoll and sockets of a task are the kernel's, to the last errno."""
    file = str(tmp_path / "f")  # a guest that shares its process has no working directory
    expected = subprocess.run(
        [building.native(name), file],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )

    actual = in_trio(
        partial(
            free.run,
            building.program(name),
            args=[file],
            isolation="shared",
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
    )

    assert actual.stdout.splitlines() == expected.stdout.splitlines()
    assert (actual.returncode, actual.stderr) == (expected.returncode, b"")
    assert len(actual.stdout) > 50


def until_it_sleeps(pid: int) -> None:
    """Wait until a process does (proc_pid_stat(5))."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "S":
        os.sched_yield()


def do(ours: socket.socket, line: bytes) -> None:
    """Do what a program asks for: send it so many bytes, or say that there will be no more."""
    count = int(line.removeprefix(b"? "))
    if count:
        ours.send(b"x" * count)
    else:
        ours.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def blocking_natively() -> bytes:
    """Return what the program prints that waits for what happens then, as a native one."""
    out, command = b"", [building.native("blocking")]
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            out += line
            if line.startswith(b"? "):
                until_it_sleeps(process.pid)
                do(ours, line)
    assert process.returncode == 0
    assert out.count(b"\n") > 100
    return out


@native
@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_waits_as_the_kernel_has_it_wait(
    isolation: str, free: Runtime, blocking_natively: bytes
) -> None:
    """Edges, one shots, epolls in epolls, numbers that change: each while the program waits."""
    out, done = b"", 0
    program = building.program("blocking")
    ours, theirs = socket.socketpair()

    async def take(chunk: bytes) -> None:
        nonlocal out, done
        out += chunk
        while (end := out.find(b"\n", done)) >= 0:
            line, done = out[done:end], end + 1
            if line.startswith(b"? "):
                await trio.testing.wait_all_tasks_blocked()
                do(ours, line)

    with ours, theirs:
        run = partial(free.run, program, stdin=theirs, stdout=take, isolation=isolation)
        result = in_trio(run)

    assert result.returncode == 0
    assert out.splitlines() == blocking_natively.splitlines()


def test_memory_grows_while_the_program_is_suspended(runtime: Runtime) -> None:
    """Mapping memory grows the program's, from its own stack; so far and no further."""

    async def main(*words: str) -> list[int]:
        result = await runtime.run(
            building.program("attempt"),
            args=words,
            isolation="shared",
            capture_output=True,
            memory=64 << 16,
        )
        return [int(line) for line in (result.stdout or b"").splitlines()]

    fits = ["map memory", "100000", "protect", "", "map memory", "1"]
    assert in_trio(main, *fits) == [0, -38, 0]
    with pytest.raises(GuestLimit) as caught:
        in_trio(main, "map memory", "100000", "map memory", "30000000")
    assert caught.value.stdout == b"0\n"


def test_what_is_not_trusted_is_refused(runtime: Runtime) -> None:
    """A program that would share this process has to be trusted explicitly."""

    async def main() -> None:
        async with runtime.open(building.program("library", start=False)):
            pass

    with pytest.raises(ModuleError, match="isolation='shared' if you trust it"):
        in_trio(main)


def test_functions_of_a_trusted_library(runtime: Runtime) -> None:
    """A library's functions are awaited."""

    async def main() -> int:
        library = building.program("library", start=False)
        async with runtime.open(library, isolation="shared") as guest:
            return int(await guest.call("process"))

    assert in_trio(main) == os.getpid()


@pytest.mark.parametrize("result", ["", "(result i64)"])
def test_a_call_waits_however_it_is_typed(result: str, free: Runtime) -> None:
    """A module may leave a call's result out: it is waited for all the same, and once."""
    program = wasmtime.wat2wasm(f"""(module
      (import "wali" "SYS_read" (func $read (param i32 i32 i32) {result}))
      (memory (export "memory") 1)
      (func (export "read") (result i32)
        (call $read (i32.const 0) (i32.const 64) (i32.const 8)) {"drop" if result else ""}
        (i32.load8_u (i32.const 64))))""")
    reader, writer = os.pipe()

    async def main() -> tuple[int, Statistics]:
        module = free.load(bytes(program), isolation="shared")
        stdio = reader, -1, -1
        async with free.open(module, stdio=stdio, isolation="shared") as guest:
            found: list[int] = []

            async def read() -> None:
                found.append(await guest.call("read"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                assert not found
                os.write(writer, b"a")
            return found[0], guest.statistics()

    try:
        byte, statistics = in_trio(main)
    finally:
        os.close(reader)
        os.close(writer)
    assert byte == ord("a")
    assert (statistics.calls, statistics.waits, statistics.read) == (1, 1, 1)


@pytest.mark.parametrize("isolation", ["shared", "process"])
@pytest.mark.parametrize("way", ["spinning", "reading", "sleeping"])
def test_a_time_out_ends_it(way: str, isolation: str, free: Runtime) -> None:
    """What it does meanwhile, computing or waiting, is brought to an end, in either place."""
    reader, writer = os.pipe()

    async def main(free: Runtime, seconds: float) -> None:
        module = free.load(building.program("processes"), isolation=isolation)
        options: Any = {"stdin": reader, "isolation": isolation, "capture_output": True}
        async with trio.open_nursery() as nursery:
            if isolation == "shared" and way == "spinning":
                nursery.start_soon(let_pass, seconds, lambda: free.statistics().running)
            with pytest.raises(GuestTimeout, match=f"after its {seconds} s"):
                await free.run(module, args=[way], timeout=seconds, **options)

    try:
        if isolation == "shared":
            in_jumping_trio(main, free, 60)
        else:  # the kernel's time is the only one that another process has
            in_trio(main, free, 0.1)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("isolation", ["shared", "process"])
@pytest.mark.parametrize("way", ["spinning", "reading", "sleeping"])
def test_cancelling_ends_it(way: str, isolation: str, free: Runtime) -> None:
    """So does any cancel scope; the process is gone then, with all that it has forked."""
    reader, writer = os.pipe()

    async def main(free: Runtime, seconds: float) -> None:
        module = free.load(building.program("processes"), isolation=isolation)
        options: Any = {"stdin": reader, "isolation": isolation, "capture_output": True}
        async with trio.open_nursery() as nursery:
            if isolation == "shared" and way == "spinning":
                nursery.start_soon(let_pass, seconds, lambda: free.statistics().running)
            with trio.move_on_after(seconds) as scope:
                await free.run(module, args=[way], **options)
            assert scope.cancelled_caught

    try:
        if isolation == "shared":
            in_jumping_trio(main, free, 60)
        else:  # nobody says here that another process has come to where it waits
            in_trio(main, free, 0.2)
    finally:
        os.close(reader)
        os.close(writer)


def test_processes_are_awaited(free: Runtime) -> None:
    """A program in a process of its own gives what run_sync gives, and others run meanwhile."""
    options: dict[str, Any] = {
        "args": ["a", "b"],
        "stdin": b"input",
        "capture_output": True,
        "env": {"A": "1"},
    }
    expected = free.run_sync(building.program("hello"), **options)
    results = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def one() -> None:
                results.append(await free.run(building.program("hello"), **options))

            for _ in range(4):
                nursery.start_soon(one)

    in_trio(main)
    assert [(r.returncode, r.stdout, r.stderr, r.args) for r in results] == [
        (expected.returncode, expected.stdout, expected.stderr, expected.args)
    ] * 4
    assert all(r.usage is not None for r in results)


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_a_trap_is_an_error(isolation: str, free: Runtime) -> None:
    """A trap is raised in either place."""
    with pytest.raises(GuestTrap, match="unreachable"):
        in_trio(
            partial(free.run, building.program("faults"), args=["unreachable"], isolation=isolation)
        )


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_streams_are_trios(isolation: str, free: Runtime) -> None:
    """Programs read from and write to trio's streams."""
    program = building.program("attempt")

    async def main() -> bytes:
        out, far = trio.testing.memory_stream_pair()
        await free.run(program, args=["random", ""], stdout=out, isolation=isolation)
        await out.send_eof()
        return b"".join([chunk async for chunk in far])

    assert in_trio(main) == b"8\n"


@pytest.mark.parametrize("given_up", [False, True])
def test_a_fifo_is_opened_on_a_thread(given_up: bool, free: Runtime, tmp_path: Path) -> None:  # noqa: FBT001
    """A program waits for a FIFO's other end, and others run; given up, no thread is left."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        module = free.load(building.program("attempt"), isolation="shared")
        await trio.to_thread.run_sync(int)  # trio keeps a thread
        before = threading.active_count()
        async with trio.open_nursery() as nursery:
            results = []

            async def program() -> None:
                result = await free.run(
                    module, args=["read", str(fifo)], isolation="shared", capture_output=True
                )
                results.append(result.stdout)

            nursery.start_soon(program)
            await trio.testing.wait_all_tasks_blocked(0.05)  # the thread gets as far as that
            assert not results
            if given_up:
                nursery.cancel_scope.cancel()
            else:
                async with await trio.open_file(fifo, "wb") as file:
                    await file.write(b"x")
        assert results == ([] if given_up else [b"1\n"])
        # trio keeps one, too, with which the other end was opened; and one moves the epoch.
        assert threading.active_count() <= before + 2

    in_trio(main)


def test_more_fifos_than_trio_has_threads(free: Runtime, tmp_path: Path) -> None:
    """Programs that wait in open(2) leave trio's threads to others, and each can be cancelled."""
    count = 45  # trio's own limit is 40
    fifos = [tmp_path / str(number) for number in range(count)]
    for fifo in fifos:
        os.mkfifo(fifo)

    async def main() -> None:
        module = free.load(building.program("attempt"), isolation="shared")

        async def program(fifo: Path, scope: trio.CancelScope) -> None:
            with scope:
                await free.run(module, args=["read", str(fifo)], isolation="shared", stdout=-3)

        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in fifos]
            for fifo, scope in zip(fifos, scopes, strict=True):
                nursery.start_soon(program, fifo, scope)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(int)
            scopes[-1].cancel()
            while len(nursery.child_tasks) == count:
                await trio.lowlevel.checkpoint()
            assert scopes[-1].cancelled_caught
            nursery.cancel_scope.cancel()

    in_trio(main)


LOCKER = """#include "wali.h"
struct record { short kind, whence; long start, length; int pid, pad; };
/* HOW FILE: lock it, however long that takes, and say so. */
int main(int argc, char **argv) {
    long how = argc > 1 ? number(argv[1]) : 0;
    struct record all = {.kind = 1};
    int fd = (int)SYS_open(argv[2], O_RDWR, 0);
    say("waiting\\n");
    tell("locked", how ? SYS_fcntl(fd, (int)how, (long)(size_t)&all) : SYS_flock(fd, 2));
    return 0;
}
"""

HOLDER = """
import fcntl, struct, sys
how, file = int(sys.argv[1]), open(sys.argv[2], "r+")
record = struct.pack("hhllii", fcntl.F_WRLCK, 0, 0, 0, 0, 0)
fcntl.fcntl(file, how, record) if how else fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("given_up", [False, True])
@pytest.mark.parametrize(("how", "held"), [(0, 0), (7, 6), (38, 37)])
def test_a_lock_is_waited_for(
    how: int,
    held: int,
    given_up: bool,  # noqa: FBT001
    free: Runtime,
    tmp_path: Path,
) -> None:
    """What another process has locked is waited for while others run, or until it is given up."""
    (tmp_path / "locker.c").write_text(LOCKER)
    (tmp_path / "file").write_bytes(b"")
    program = building.program(tmp_path / "locker.c")
    command = [sys.executable, "-c", HOLDER, str(held), str(tmp_path / "file")]
    lines: list[bytes] = []
    threads = threading.active_count()

    async def main() -> None:
        waiting = trio.Event()

        async def take(chunk: bytes) -> None:
            lines.extend(chunk.splitlines())
            waiting.set()

        async with trio.open_nursery() as nursery:
            words = [str(how), str(tmp_path / "file")]
            run = partial(free.run, program, args=words, isolation="shared", stdout=take)
            nursery.start_soon(run)
            await waiting.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert lines == [b"waiting"]
            if given_up:
                nursery.cancel_scope.cancel()
            else:
                assert holder.stdin is not None
                holder.stdin.close()

    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        in_trio(main)

    assert lines == [b"waiting"] if given_up else [b"waiting", b"locked: 0"]
    assert threading.active_count() <= threads + 2  # trio's, and the one that moves the epoch


@pytest.fixture
def locker(tmp_path: Path) -> Path:
    """Return the program above, beside a file."""
    (tmp_path / "locker.c").write_text(LOCKER)
    (tmp_path / "file").write_bytes(b"")
    return building.program(tmp_path / "locker.c")


@contextlib.contextmanager
def held_elsewhere(how: int, file: Path) -> Iterator[Callable[[], None]]:
    """Have another process hold a lock until it is told not to any more."""
    command = [sys.executable, "-c", HOLDER, str(how), str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        yield holder.stdin.close


def waiters(file: Path) -> int:
    """How many wait in the kernel for a lock of this file (proc_locks(5))."""
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(
        "->" in line and line.split()[6].endswith(f":{file.stat().st_ino}") for line in lines
    )


@pytest.mark.parametrize("given_up", [False, True])
@pytest.mark.parametrize(("how", "held"), [(0, 0), (7, 6), (38, 37)])
def test_many_wait_for_a_lock_in_line(
    how: int,
    held: int,
    given_up: bool,  # noqa: FBT001
    free: Runtime,
    locker: Path,
    tmp_path: Path,
) -> None:
    """They wait in the kernel, more of them than trio has threads; and leave it when they must."""
    file, count = tmp_path / "file", 60
    out = bytearray()

    async def main(let_go: Callable[[], None]) -> None:
        module = free.load(locker, isolation="shared")
        async with trio.open_nursery() as nursery:
            words = [str(how), str(file)]
            run = partial(free.run, module, args=words, isolation="shared", stdout=out.extend)
            for _ in range(count):
                nursery.start_soon(run)
            await until(lambda: waiters(file) == count)
            assert await trio.to_thread.run_sync(int) == 0  # who waits takes no thread from others
            if given_up:
                nursery.cancel_scope.cancel()
            else:
                let_go()

    with held_elsewhere(held, file) as let_go:
        in_trio(main, let_go)
        assert waiters(file) == 0
    assert out.count(b"locked: 0\n") == (0 if given_up else count)


def test_a_signal_that_is_somebodys_is_left_alone(
    free: Runtime, locker: Path, tmp_path: Path
) -> None:
    """Then a lock is asked for again and again instead."""
    file, came, out = tmp_path / "file", [], bytearray()

    async def main(let_go: Callable[[], None]) -> None:
        module = free.load(locker, isolation="shared")
        async with trio.open_nursery() as nursery:
            run = partial(free.run, module, args=["0", str(file)], stdout=out.extend)
            nursery.start_soon(partial(run, isolation="shared"))
            await until(lambda: out == b"waiting\n")
            await trio.testing.wait_all_tasks_blocked()
            assert waiters(file) == 0
            let_go()

    before = signal.signal(signal.SIGURG, lambda *_: came.append(1))
    try:
        with held_elsewhere(0, file) as let_go:
            in_trio(main, let_go)
        signal.raise_signal(signal.SIGURG)
        assert came == [1]
    finally:
        signal.signal(signal.SIGURG, before or signal.SIG_DFL)
    assert out == b"waiting\nlocked: 0\n"


def test_who_waits_for_a_call_in_python_keeps_nobody_from_computing(free: Runtime) -> None:
    """A guest whose turn it is gives that up with the processor, in whatever call it waits."""
    program = wasmtime.wat2wasm("""(module
      (import "wali" "SYS_futex" (func $futex (param i32 i32 i32 i32 i32 i32) (result i64)))
      (memory (export "memory") 1)
      (func (export "compute") (param $rounds i64) (result i64)
        (loop $again
          (local.set 0 (i64.sub (local.get 0) (i64.const 1)))
          (br_if $again (i64.ne (local.get 0) (i64.const 0))))
        (call $futex (i32.const 64) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                     (i32.const 0))))""")
    there = (-1, -1, -1)

    async def main() -> None:
        module = free.load(bytes(program), isolation="shared")
        async with (
            free.open(module, isolation="shared", stdio=there) as one,
            free.open(module, isolation="shared", stdio=there) as other,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(one.call, "compute", 10**8)
            nursery.start_soon(other.call, "compute", 0)  # which is 2**64
            await until(lambda: one._slot.requested)
            ran = other.statistics().running
            assert one.statistics().running > 0.01
            await until(lambda: other.statistics().running > ran + 0.02)
            nursery.cancel_scope.cancel()

    in_trio(main)


FUTEX = """#include "wali.h"
enum { WAIT, WAKE, LOCK_PI = 6, WAIT_BITSET = 9, LOCK_PI2 = 13, PRIVATE = 128 };
int main(int argc, char **argv) {
    int word = 1, lock = 0, taken = 0, *forever = NULL;
    struct timespec hour = {3600, 0}, wrong = {0, 1000000000}, past = {1, 0};
    (void)argc;
    for (const char *digit = argv[1]; *digit; digit++)
        taken = 10 * taken + *digit - '0';
    if (argv[2][0] == 'b')
        SYS_futex(&word, WAIT_BITSET | PRIVATE, 1, forever, NULL, -1);
    if (argv[2][0] == 'l')
        SYS_futex(&taken, LOCK_PI | PRIVATE, 0, forever, NULL, 0);
    tell("another value", SYS_futex(&word, WAIT, 2, NULL, NULL, 0));
    tell("nobody wakes it", SYS_futex(&word, WAIT | PRIVATE, 1, &hour, NULL, 0));
    tell("for a wrong time", SYS_futex(&word, WAIT, 1, &wrong, NULL, 0));
    tell("wakes nobody", SYS_futex(&word, WAKE, 1, NULL, NULL, 0));
    tell("bits of another value", SYS_futex(&word, WAIT_BITSET, 2, NULL, NULL, -1));
    tell("no bits", SYS_futex(&word, WAIT_BITSET, 1, NULL, NULL, 0));
    tell("bits until long ago", SYS_futex(&word, WAIT_BITSET, 1, &past, NULL, -1));
    tell("a free lock", SYS_futex(&lock, LOCK_PI, 0, NULL, NULL, 0));
    tell("the same again", SYS_futex(&lock, LOCK_PI | PRIVATE, 0, NULL, NULL, 0));
    tell("a lock until long ago", SYS_futex(&taken, LOCK_PI | PRIVATE, 0, &past, NULL, 0));
    tell("and by the other clock", SYS_futex(&taken, LOCK_PI2 | PRIVATE, 0, &past, NULL, 0));
    tell("for ever", SYS_futex(&word, WAIT, 1, NULL, NULL, 0));
    return 0;
}
"""


@pytest.fixture
def other_thread() -> Iterator[str]:
    """Return the number of a thread that lives, and is not the guest's."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield str(thread.native_id)
    done.set()
    thread.join()


@pytest.mark.parametrize("command", ["wait", "bits", "lock"])
def test_a_futex_waits_for_its_time_alone(
    command: str, other_thread: str, free: Runtime, tmp_path: Path
) -> None:
    """There is no other thread: an hour of trio's clock goes by, and without a time it is all."""
    (tmp_path / "futex.c").write_text(FUTEX)
    out = bytearray()

    async def main() -> None:
        module = free.load(building.program(tmp_path / "futex.c"), isolation="shared")
        began = trio.current_time()
        with trio.move_on_after(10_000):
            args = [other_thread, command]
            await free.run(module, args=args, isolation="shared", stdout=out.extend)
        assert trio.current_time() - began >= 10_000

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))

    if command != "wait":
        assert not out
        return
    assert [int(line.split(b": ")[1]) for line in out.splitlines()] == [
        -errno.EAGAIN,
        -errno.ETIMEDOUT,
        -errno.EINVAL,
        0,
        -errno.EAGAIN,
        -errno.EINVAL,
        -errno.ETIMEDOUT,
        0,
        -errno.EDEADLK,
        -errno.ETIMEDOUT,
        -errno.ETIMEDOUT,
    ]


@pytest.mark.parametrize("command", ["bits", "lock"])
def test_a_futex_ends_in_time(
    command: str, other_thread: str, free: Runtime, tmp_path: Path
) -> None:
    """So does what waits for ever in a thread of its own."""
    (tmp_path / "futex.c").write_text(FUTEX)
    module = free.load(building.program(tmp_path / "futex.c"), isolation="shared")
    with pytest.raises(GuestTimeout):
        free.run_sync(module, args=[other_thread, command], isolation="shared", timeout=0.1)


def test_a_start_function_has_the_same_time(free: Runtime) -> None:
    """A trusted program whose start function never ends is ended in time."""
    text = """(module (import "wali" "__init" (func (result i32)))
      (memory (export "memory") 1 10 shared)
      (func $spin (loop $again (br $again))) (start $spin) (func (export "_start")))"""
    module = free.load(bytes(wasmtime.wat2wasm(text)), isolation="shared")
    with pytest.raises(GuestTimeout, match=r"stopped after its 0\.05 s"):
        in_trio(partial(free.run, module, isolation="shared", timeout=0.05))
    assert free.statistics().guests == 0


CONNECT = """#include "wali.h"
int main(int argc, char **argv) {
    struct { unsigned short family; char path[108]; } address = {1, {0}};
    int i = 0;
    (void)argc;
    for (; argv[1][i]; i++)
        address.path[i] = argv[1][i];
    unsigned size = 3 + (unsigned)i;
    tell("it must not wait", SYS_connect((int)SYS_socket(1, 1 | 04000, 0), &address, size));
    tell("it waits", SYS_connect((int)SYS_socket(1, 1, 0), &address, size));
    return 0;
}
"""


def test_a_full_listener_is_waited_for(free: Runtime, tmp_path: Path, open_folder: Path) -> None:
    """A program that connects to a unix socket waits until that takes one more, as natively."""
    (tmp_path / "connect.c").write_text(CONNECT)
    module = free.load(building.program(tmp_path / "connect.c"), isolation="shared")
    path, out, others = str(open_folder / "socket"), bytearray(), []

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            refused = 0
            while not refused:
                others.append(socket.socket(socket.AF_UNIX))
                others[-1].setblocking(False)
                refused = others[-1].connect_ex(path)
            assert refused == errno.EAGAIN
            run = partial(free.run, module, args=[path], isolation="shared", stdout=out.extend)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await let_pass(1, lambda: out)
                await trio.sleep(1)
                assert len(out.splitlines()) == 1
                others.append(listener.accept()[0])

    in_jumping_trio(main)
    for one in others:
        one.close()
    assert out == b"it must not wait: -11\nit waits: 0\n"
