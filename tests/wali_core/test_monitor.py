"""Tests of wali_core._monitor: deadlines, Ctrl-C and output, whatever the guest is doing.

A guest that has its thread to itself waits in the kernel, whose time nobody can let pass: so time
limits are short ones here, and in other tests of ``run_sync``.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from wali_core import Guest, GuestTimeout, Runtime, UseError
from wali_core import _bridge as bridge
from wali_core import _monitor as monitor
from wali_core._engine import Engine
from wali_core._monitor import Capture, Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    WhenReady = Callable[[Callable[[], object]], AbstractContextManager[int]]

# What a guest does that does not end by itself.
ENDLESS = ["spin", "read", "poll", "sleep", "fill"]


def interrupt_process() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_main_thread() -> None:
    """Press Ctrl-C so that the main thread gets the signal itself."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


def press_and(then: Callable[[], object]) -> None:
    """Press Ctrl-C, and do something while it is taken care of."""
    interrupt_process()
    then()


@pytest.fixture
def silence() -> Iterator[int]:
    """Return the read end of a pipe in which nothing ever comes."""
    read, write = os.pipe()
    yield read
    os.close(read)
    os.close(write)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Check that no guard, wake-up descriptor or handler is left behind."""
    handler = signal.getsignal(signal.SIGINT)
    wakeup = signal.set_wakeup_fd(-1)
    yield
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.set_wakeup_fd(wakeup) == -1
    assert not monitor._monitor._guards
    assert not monitor._monitor._signalled


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.oldest
@pytest.mark.parametrize("what", ENDLESS)
def test_a_deadline_ends_whatever_a_guest_does(
    what: str, runtime: Runtime, program: Path, silence: int, when_ready: WhenReady
) -> None:
    """A guest that computes, reads, polls, sleeps or writes is ended in time, and soon."""
    started = time.monotonic()
    with (
        when_ready(lambda: None) as output,
        runtime.instantiate(program, args=[what], stdio=(silence, output, -1)) as guest,
        pytest.raises(GuestTimeout, match=r"stopped after its 0\.05 s"),
    ):
        guest.call("_start", timeout=0.05)

    assert 0.05 <= time.monotonic() - started < 5


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
def test_waiting_for_any_input_ends_at_the_deadline(
    kind: Callable[[Path], tuple[int, int]],
    what: str,
    runtime: Runtime,
    program: Path,
    tmp_path: Path,
) -> None:
    """A guest that waits for a pipe, a terminal, a socket or a FIFO is ended in time."""
    ends = kind(tmp_path)
    with pytest.raises(GuestTimeout):
        runtime.run_sync(program, args=[what], stdin=ends[0], timeout=0.05, capture_output=True)
    os.write(ends[1], b"input\n")
    result = runtime.run_sync(program, args=[what], stdin=ends[0], timeout=5, capture_output=True)
    for fd in ends:
        os.close(fd)

    assert (result.returncode, result.stdout) == (0, b"ready\n")


@pytest.mark.parametrize("kind", [open_pipe, open_socket, open_fifo])
def test_waiting_for_any_output_ends_at_the_deadline(
    kind: Callable[[Path], tuple[int, int]], runtime: Runtime, program: Path, tmp_path: Path
) -> None:
    """A guest that waits until somebody reads what it has written is ended in time."""
    ends = kind(tmp_path)
    with pytest.raises(GuestTimeout):
        runtime.run_sync(program, args=["fill"], stdout=ends[1], timeout=0.1)
    for fd in ends:
        os.close(fd)


def test_signals_in_between_lose_nothing(runtime: Runtime, program: Path) -> None:
    """A guest that is interrupted by a signal every millisecond still reads and writes it all."""
    data = os.urandom(2_000_000)
    seen: list[int] = []
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as file:
            for start in range(0, len(data), 1000):
                file.write(data[start : start + 1000])
                file.flush()

    thread = threading.Thread(target=feed)
    previous = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        thread.start()
        result = runtime.run_sync(program, args=["echo"], stdin=read, capture_output=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        thread.join()
        os.close(read)

    assert result.stdout == data


def test_many_deadlines_are_kept_apart(runtime: Runtime, program: Path) -> None:
    """Guests of one engine in several threads are each ended at their own time."""
    took: dict[float, float] = {}

    def work(timeout: float) -> None:
        with runtime.instantiate(program, args=["spin"], stdio=(-1, null, -1)) as guest:
            started = time.monotonic()
            with contextlib.suppress(GuestTimeout):
                guest.call("_start", timeout=timeout)
            took[timeout] = time.monotonic() - started

    null = os.open(os.devnull, os.O_WRONLY)
    threads = [threading.Thread(target=work, args=(n / 20,)) for n in (8, 1, 5, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(null)

    assert len(took) == 4
    for timeout, seconds in took.items():
        assert timeout <= seconds < timeout + 5


def test_a_lost_epoch_is_made_up_for(
    runtime: Runtime, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that misses the first epoch after its deadline is ended by a later one."""
    increment = runtime.engine.increment_epoch
    lost: list[int] = []

    def lose_two() -> None:
        if len(lost) == 2:
            increment()
        else:
            lost.append(1)

    monkeypatch.setattr(runtime.engine, "increment_epoch", lose_two)
    null = os.open(os.devnull, os.O_WRONLY)
    with (
        runtime.instantiate(program, args=["spin"], stdio=(-1, null, -1)) as guest,
        pytest.raises(GuestTimeout),
    ):
        guest.call("_start", timeout=0.01)
    os.close(null)

    assert len(lost) == 2


def test_a_guest_without_a_deadline_is_left_alone(
    runtime: Runtime, program: Path, when_ready: WhenReady
) -> None:
    """A guest computes on while another one of its engine is ended."""
    ended: list[str] = []

    def end_another() -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        with runtime.instantiate(program, args=["spin"], stdio=(-1, null, -1)) as other:
            with contextlib.suppress(GuestTimeout):
                other.call("_start", timeout=0.05)
            ended.append("other")
        os.close(null)
        guest = guests[0]
        ended.append("running" if not guest._context.stop else "stopped")
        bridge.core.interrupt(guest._address)
        runtime.engine.increment_epoch()

    guests: list[Guest] = []
    with (
        when_ready(end_another) as output,
        runtime.instantiate(program, args=["spin"], stdio=(-1, output, -1)) as guest,
    ):
        guests.append(guest)
        with pytest.raises(KeyboardInterrupt):
            guest.call("_start")

    assert ended == ["other", "running"]


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.oldest
@pytest.mark.parametrize("press", [interrupt_process, interrupt_main_thread])
@pytest.mark.parametrize("what", ENDLESS)
def test_ctrl_c_ends_whatever_a_guest_does(
    what: str,
    press: Callable[[], None],
    runtime: Runtime,
    program: Path,
    silence: int,
    when_ready: WhenReady,
) -> None:
    """Ctrl-C ends a guest that computes, reads, polls, sleeps or writes; the process lives on."""
    with (
        when_ready(press) as output,
        runtime.instantiate(program, args=[what], stdio=(silence, output, -1)) as guest,
    ):
        with pytest.raises(KeyboardInterrupt):
            guest.call("_start")
        with pytest.raises(UseError, match="it was interrupted"):
            guest.call("_start")

    read, write = os.pipe()
    with runtime.instantiate(program, args=["args"], argv0="a", stdio=(-1, write, -1)) as guest:
        guest.call("_start")
    os.close(write)
    assert os.read(read, 100) == b"a\nargs\n"
    os.close(read)


def test_ctrl_c_counts_once(
    runtime: Runtime, program: Path, silence: int, when_ready: WhenReady
) -> None:
    """One Ctrl-C is one KeyboardInterrupt: none comes after it."""
    with (
        when_ready(interrupt_process) as output,
        runtime.instantiate(program, args=["read"], stdio=(silence, output, -1)) as guest,
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        guest.call("_start")

    assert caught.value.__context__ is None
    for _ in range(1000):
        pass


def test_an_own_handler_is_left_alone(
    runtime: Runtime, program: Path, silence: int, when_ready: WhenReady
) -> None:
    """A handler of the embedder's runs when the guest has ended; the guest goes on until then."""
    seen: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        with (
            when_ready(interrupt_process) as output,
            runtime.instantiate(program, args=["sleep"], stdio=(silence, output, -1)) as guest,
            pytest.raises(GuestTimeout),
        ):
            guest.call("_start", timeout=0.3)
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, previous)


def test_an_ignored_ctrl_c_stays_ignored(
    runtime: Runtime, program: Path, silence: int, when_ready: WhenReady
) -> None:
    """Where the process ignores Ctrl-C, the guest does too."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (
            when_ready(interrupt_process) as output,
            runtime.instantiate(program, args=["sleep"], stdio=(silence, output, -1)) as guest,
            pytest.raises(GuestTimeout),
        ):
            guest.call("_start", timeout=0.3)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_wakeup_descriptor_is_put_back(
    runtime: Runtime, program: Path, when_ready: WhenReady
) -> None:
    """The embedder's own wake-up descriptor is in its place again after Ctrl-C."""
    read, write = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(write)
    with (
        when_ready(interrupt_process) as output,
        runtime.instantiate(program, args=["spin"], stdio=(-1, output, -1)) as guest,
        pytest.raises(KeyboardInterrupt),
    ):
        guest.call("_start")

    assert signal.set_wakeup_fd(-1) == write
    os.close(read)
    os.close(write)


def test_other_signals_do_not_end_a_guest(
    runtime: Runtime, program: Path, silence: int, when_ready: WhenReady
) -> None:
    """A signal that the embedder handles leaves a waiting guest waiting."""
    seen: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with (
            when_ready(lambda: os.kill(os.getpid(), signal.SIGUSR1)) as output,
            runtime.instantiate(program, args=["read"], stdio=(silence, output, -1)) as guest,
            pytest.raises(GuestTimeout),
        ):
            guest.call("_start", timeout=0.3)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("start", ["threading", "_thread"])
def test_guests_of_other_threads_do_not_take_ctrl_c(
    start: str, runtime: Runtime, program: Path, silence: int, when_ready: WhenReady
) -> None:
    """Ctrl-C is the main thread's: a guest in another thread goes on to its own end."""
    ends: list[str] = []
    done = threading.Event()

    def work() -> None:
        try:
            with (
                when_ready(ready.set) as output,
                runtime.instantiate(program, args=["sleep"], stdio=(silence, output, -1)) as guest,
            ):
                guest.call("_start", timeout=0.3)
        except BaseException as error:  # noqa: BLE001 (which one is the question)
            ends.append(type(error).__name__)
        done.set()

    ready = threading.Event()
    if start == "threading":
        threading.Thread(target=work).start()
    else:
        _thread.start_new_thread(work, ())
    ready.wait()
    with pytest.raises(KeyboardInterrupt):
        press_and(done.wait)
    done.wait()

    assert ends == ["GuestTimeout"]


def test_a_process_without_threading_uses_guests_in_threads(program: Path) -> None:
    """Where nothing has imported `threading`, a second thread is still not taken for the main."""
    code = f"""
import _thread, os, sys
from wali_core import Runtime
runtime, gate, ends = Runtime(cache=False), _thread.allocate_lock(), []
gate.acquire()
def work():
    try:
        with runtime.instantiate({str(program)!r}, args=["exit", "3"]) as guest:
            guest.call("_start")
    except BaseException as error:
        ends.append(error)
    gate.release()
_thread.start_new_thread(work, ())
gate.acquire()
print("threading" in sys.modules, ends)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False [GuestExit('the guest exited with status 3')]\n"


def test_ctrl_c_at_any_moment_leaves_nothing_behind(guest_from_wat: Callable[..., Path]) -> None:
    """Wherever in the making of a call Ctrl-C falls, it is raised, and handlers are put back."""
    module = guest_from_wat('(module (func (export "f")))')
    code = f"""
import os, random, signal, sys, threading, time
from wali_core import Runtime, UseError
from wali_core import _monitor
sys.unraisablehook = lambda _: None  # Ctrl-C in a finalizer: Python drops it
runtime = Runtime(cache=False)
module = runtime.load({str(module)!r})
armed, done = threading.Event(), False
def press():  # once each time, so that none falls where it is caught
    while not done:
        armed.wait()
        time.sleep(random.uniform(0, 0.002))
        armed.clear()
        os.kill(os.getpid(), signal.SIGINT)
thread = threading.Thread(target=press, daemon=True)
thread.start()
pressed = 0
for _ in range(200):
    try:
        armed.set()
        with runtime.instantiate(module) as guest:
            late = time.monotonic() + 1  # one that a finalizer got never comes
            while time.monotonic() < late:
                guest.call("f", timeout=10)
                guest.call("f")
    except KeyboardInterrupt:
        pressed += 1
    except UseError:  # it ended the guest, and Python dropped it in a finalizer
        pass
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.set_wakeup_fd(-1) == -1
assert not _monitor._monitor._guards and not _monitor._monitor._signalled
print(pressed > 150)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("True\n", "")


# --- guards ---------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Engine:
    """Return an engine."""
    return Engine(bridge.core)


@pytest.fixture
def context() -> Iterator[bridge.Context]:
    """Return a context that no guest uses."""
    import ctypes

    buffer = ctypes.create_string_buffer(bridge.core.context_size)
    address = ctypes.addressof(buffer)
    bridge.core.context_init(address, 16)
    yield bridge.Context.from_buffer(buffer)
    bridge.core.context_close(address)


def address_of(context: bridge.Context) -> int:
    """Return where the context lies."""
    import ctypes

    return ctypes.addressof(context)


def test_the_inner_of_two_guards_takes_ctrl_c(engine: Engine) -> None:
    """Where a call runs within another, Ctrl-C ends the inner one alone."""
    import ctypes

    buffers = [ctypes.create_string_buffer(bridge.core.context_size) for _ in range(2)]
    contexts = [bridge.Context.from_buffer(buffer) for buffer in buffers]
    for buffer in buffers:
        bridge.core.context_init(ctypes.addressof(buffer), 16)
    outer, inner = (Guard(engine, ctypes.addressof(buffer), None) for buffer in buffers)

    with outer:
        with pytest.raises(KeyboardInterrupt), inner:
            interrupt_process()
        assert contexts[1].stop == bridge.STOP_INTERRUPT
        assert not contexts[0].stop


def test_ctrl_c_that_no_guest_saw_is_raised(engine: Engine, context: bridge.Context) -> None:
    """A Ctrl-C that falls when the guest has just returned is raised at the end of the call."""
    after: list[int] = []
    with pytest.raises(KeyboardInterrupt), Guard(engine, address_of(context), None):
        press_and(lambda: after.append(1))

    assert after
    assert context.stop == bridge.STOP_INTERRUPT


def test_ctrl_c_comes_before_an_error(engine: Engine, context: bridge.Context) -> None:
    """Where the call ends in an error as well, it is Ctrl-C that counts."""
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        Guard(engine, address_of(context), None),
    ):
        press_and(lambda: 1 / 0)

    assert isinstance(caught.value.__context__, ZeroDivisionError)


@pytest.fixture
def two_signals() -> Iterator[list[int]]:
    """At two signals something is raised; return the numbers of those that were handled."""
    handled: list[int] = []

    def handler(number: int, _frame: object) -> None:
        handled.append(number)
        raise LookupError(number)

    numbers = signal.SIGUSR1, signal.SIGUSR2
    before = [signal.signal(number, handler) for number in numbers]
    yield handled
    after = [signal.signal(number, old) for number, old in zip(numbers, before, strict=True)]
    assert after == [handler, handler]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def postponed(*numbers: signal.Signals) -> None:
    """Send these while signals are postponed."""
    with monitor.Postponed():
        for number in numbers:
            signal.raise_signal(number)


def test_each_postponed_signal_is_handled(two_signals: list[int]) -> None:
    """In the order in which they came, also where the handler of the first raises."""
    with pytest.raises(LookupError):
        postponed(signal.SIGUSR2, signal.SIGUSR1)

    assert two_signals == [signal.SIGUSR2, signal.SIGUSR1]


def test_postponed_ctrl_c_comes_before_what_handlers_raise(two_signals: list[int]) -> None:
    """That one ends the program does not lose the other."""
    with pytest.raises(KeyboardInterrupt) as caught:
        postponed(signal.SIGINT, signal.SIGUSR1)

    assert isinstance(caught.value.__context__, LookupError)
    assert two_signals == [signal.SIGUSR1]


def test_errors_pass_through_a_guard(engine: Engine, context: bridge.Context) -> None:
    """A guard changes nothing about an error."""
    with pytest.raises(ZeroDivisionError), Guard(engine, address_of(context), 1e9):
        raise ZeroDivisionError


def test_the_monitor_outlives_trouble(
    engine: Engine, context: bridge.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the monitor's thread cannot be started that is an error; the next try may succeed."""
    fresh = monitor._Monitor()
    monkeypatch.setattr(monitor, "_monitor", fresh)
    monkeypatch.setattr(monitor, "start_quiet_thread", _refuse)
    with pytest.raises(RuntimeError, match="no more"), Guard(engine, address_of(context), 1e9):
        pass
    assert not fresh._guards

    started: list[object] = []
    monkeypatch.setattr(monitor, "start_quiet_thread", lambda run, _: started.append(run))
    with Guard(engine, address_of(context), 1e9):
        pass

    assert len(started) == 1
    fresh.forget()


def _refuse(*_: object) -> None:
    raise RuntimeError("no more threads")


def test_a_forked_child_starts_anew(runtime: Runtime, program: Path) -> None:
    """In a forked child a guest has its deadline, though the monitor's thread is not there."""
    null = os.open(os.devnull, os.O_WRONLY)
    with (
        contextlib.suppress(GuestTimeout),
        runtime.instantiate(program, args=["spin"], stdio=(-1, null, -1)) as guest,
    ):
        guest.call("_start", timeout=0.01)
    guest = runtime.instantiate(program, args=["spin"], stdio=(-1, null, -1))

    child = os.fork()
    if child == 0:
        try:
            guest.call("_start", timeout=0.05)
        except GuestTimeout:
            os._exit(17)
        finally:
            os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    guest.close()
    os.close(null)


# --- captures -------------------------------------------------------------------------------------


def test_a_capture_collects_what_is_written() -> None:
    """What was written to the pipe is there at the end, whoever read it when."""
    capture = Capture(100)
    os.write(capture.write_end, b"one ")
    assert capture.drain()
    os.write(capture.write_end, b"two")

    assert capture.finish() == b"one two"
    assert not capture.exceeded


@pytest.mark.parametrize(("limit", "exceeded"), [(6, True), (7, False), (0, True)])
def test_a_capture_keeps_no_more_than_its_limit(limit: int, *, exceeded: bool) -> None:
    """Up to its last byte the limit holds; one more is noticed and thrown away."""
    capture = Capture(limit)
    os.write(capture.write_end, b"one two")

    assert capture.finish() == b"one two"[:limit]
    assert capture.exceeded == exceeded


def test_a_capture_ends_no_guest_that_is_gone(engine: Engine, context: bridge.Context) -> None:
    """Too much output that is found after the call interrupts nobody."""
    capture = Capture(3)
    with Guard(engine, address_of(context), None, (capture,)):
        pass
    os.write(capture.write_end, b"too much")

    capture.finish()

    assert capture.exceeded
    assert not context.stop


def test_captures_are_not_inherited() -> None:
    """A process that is started meanwhile does not keep a guest's pipe open."""
    capture = Capture(1)

    assert not os.get_inheritable(capture.read_end)
    assert not os.get_inheritable(capture.write_end)
    capture.finish()
