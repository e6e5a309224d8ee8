"""Tests of Ctrl-C at every line: each is raised once, and nothing is lost or left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import trio

import wali_core
from wali_core import Runtime
from wali_core import _monitor as monitor
from wali_core._monitor import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from wali_core._engine import Module

pytestmark = [pytest.mark.oldest, pytest.mark.slow]

OURS = str(Path(wali_core.__file__).parent)
WASI = "wasi_snapshot_preview1"

# Writes what it reads.
ECHO = f"""
(module
  (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 16))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""


Line = tuple[str, int, int]


class Press:
    """Sends this process a signal at one line of these files: the first that is not among ``done``.

    A line counts anew for each line that its function is called from.
    """

    def __init__(self, done: set[Line], files: tuple[str, ...], number: signal.Signals) -> None:
        self.done, self.number = done, number
        self.files = files
        self.where: Line | None = None

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, _event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(self.files) or self.where:
            return None
        # Python drops what a finalizer raises.
        return None if frame.f_code.co_name == "__del__" else self._line

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and self.where is None:
            caller = 0 if frame.f_back is None else frame.f_back.f_lineno
            line = frame.f_code.co_filename, frame.f_lineno, caller
            if line not in self.done:
                self.done.add(line)
                self.where = line
                signal.raise_signal(self.number)
        return self._line


def state() -> set[str]:
    """Return what this process has open, but for compiled modules, and its threads."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
        if "/cache" not in target and "wasm-memory-image" not in target:
            found.append(f"{number} {target}")
    names = [thread.name for thread in threading.enumerate() if "trio" not in thread.name.lower()]
    return {*found, *names}


def press_at_every_line(
    once: Callable[[], object],
    *files: str,
    number: signal.Signals = signal.SIGINT,
    raises: type[BaseException] = KeyboardInterrupt,
) -> int:
    """Do this again and again, with a signal each time at another line.  How many there are."""
    once()
    once()
    before = state()
    done: set[Line] = set()
    while True:
        caught: BaseException | None = None
        with Press(done, files, number) as press:
            try:
                once()
            except BaseException as error:  # noqa: BLE001 - looked at below
                caught = error
        if press.where is None:
            assert caught is None
            return len(done)
        assert type(caught) is raises, (press.where, caught)
        assert state() ^ before == set(), press.where


@pytest.fixture
def module(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> Module:
    """Return a program that echoes."""
    return runtime.load(guest_from_wat(ECHO))


STREAMS: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes and captured": lambda: {"stdin": b"x", "capture_output": True},
    "an iterator": lambda: {"stdin": [b"x"], "stdout": -3},
    "functions": lambda: {"stdin": b"x", "stdout": len, "stderr": len},
}


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    """Whatever falls where: in the end the handler is Python's own."""
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("streams", STREAMS)
def test_at_every_line_of_run_sync(streams: str, runtime: Runtime, module: Module) -> None:
    """Pipes, files in memory and threads of a run are gone, and none of them twice."""

    def once() -> None:
        runtime.run_sync(module, **STREAMS[streams]())

    assert press_at_every_line(once, OURS, threading.__file__) > 100


class Terminated(BaseException):
    """What a handler raises."""


@pytest.fixture
def terminating() -> Iterator[None]:
    """At SIGTERM something is raised, which is the handler's before and after."""

    def handler(_number: int, _frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    yield
    assert signal.signal(signal.SIGTERM, before) is handler


@pytest.mark.usefixtures("terminating")
@pytest.mark.parametrize("streams", STREAMS)
def test_other_handlers_at_every_line_of_run_sync(
    streams: str, runtime: Runtime, module: Module
) -> None:
    """What raises at another signal than Ctrl-C loses as little."""

    def once() -> None:
        runtime.run_sync(module, **STREAMS[streams]())

    files = OURS, threading.__file__
    assert press_at_every_line(once, *files, number=signal.SIGTERM, raises=Terminated) > 100


@pytest.mark.usefixtures("terminating")
def test_other_handlers_while_a_guard_is_left(runtime: Runtime, module: Module) -> None:
    """One that raises at any line where things are put back keeps nothing from being so."""
    code = Guard._put_back.__code__
    raised = 0
    for line in sorted({line for *_, line in code.co_lines() if line} - {code.co_firstlineno}):

        def press(frame: FrameType, event: str, _: object, line: int = line) -> Any:
            if event == "line" and frame.f_lineno == line:
                signal.raise_signal(signal.SIGTERM)
            return press if frame.f_code.co_filename == monitor.__file__ else None

        with runtime.instantiate(module, stdio=(-1, -1, -1)) as guest:
            sys.settrace(press)
            try:
                guest.call("_start", timeout=60)
            except Terminated:
                raised += 1
            finally:
                sys.settrace(None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, line
        assert not monitor._monitor._guards
    assert raised > 5  # the others are for what is not there


@pytest.mark.parametrize("streams", STREAMS)
def test_at_every_line_of_a_task(streams: str, runtime: Runtime, module: Module) -> None:
    """So they are where it is a task of trio's, and Ctrl-C is bare there, too."""

    def once() -> None:
        trio.run(partial(runtime.run, module, **STREAMS[streams]()))

    assert press_at_every_line(once, OURS) > 100
