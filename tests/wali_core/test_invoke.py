"""Tests of wali_core._invoke: functions called from the command line."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wali_core.test_guest import IDENTITIES, _shared_guest
from wali_core import GuestTrap, Runtime
from wali_core._invoke import ArgumentError, invoke

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wali_core import Guest

WASI = "wasi_snapshot_preview1"
EXITING = f"""
(module
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (import "{WASI}" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $ready (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $ready (i32.const 1)))
  (func (export "ready") (result i32) (global.get $ready))
  (func (export "exit") (param i32) (call $exit (local.get 0)))
  (func (export "trap") (unreachable))
  (func (export "spin") (loop (br 0)))
  (func (export "arguments") (result i32)
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (i32.load (i32.const 0))))
"""


@pytest.fixture
def guest() -> Guest:
    """Return a guest whose functions give back what they are given."""
    return _shared_guest()


@pytest.mark.parametrize(
    ("name", "words", "lines"),
    [
        ("i32", ["7"], "7\n"),
        ("i32", ["-7"], "-7\n"),
        ("i32", ["4294967295"], "-1\n"),
        ("i32", ["0x10"], "16\n"),
        ("i32", ["-0x10"], "-16\n"),
        ("i64", ["18446744073709551615"], "-1\n"),
        ("f64", ["0.1"], "0.1\n"),
        ("f64", ["3"], "3.0\n"),
        ("f64", ["-inf"], "-inf\n"),
        ("f64", ["nan"], "nan\n"),
        ("f32", ["0.1"], "0.1\n"),
        ("f32", ["nan"], "nan\n"),
        ("f32", ["16777217"], "16777216.0\n"),
        ("none", [], ""),
        ("many", [], "1\n2\n3\n"),
        ("swap", ["1", "2", "0.3", "0.4"], "0.4\n0.3\n2\n1\n"),
    ],
)
def test_words_become_numbers_and_results_lines(
    name: str, words: list[str], lines: str, guest: Guest
) -> None:
    """Arguments are read by the function's types, and each result is a line."""
    assert invoke(guest, name, words) == lines


@given(value=st.floats(width=32, allow_nan=False))
@example(1.17549435e-38)
@example(0.00010362414468545467)  # nine digits
def test_f32_are_printed_short_and_exact(value: float) -> None:
    """What is printed of an f32 reads as the same f32, in as few digits as that takes."""
    text = invoke(_shared_guest(), "f32", [repr(value)]).strip()

    assert struct.pack("<f", float(text)) == struct.pack("<f", value)
    assert len(text.partition("e")[0].replace(".", "").replace("-", "").strip("0")) <= 9


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("i32", ["1.5"], "'1.5' is not i32"),
        ("i32", [""], "'' is not i32"),
        ("i64", ["one"], "'one' is not i64"),
        ("f64", ["one"], "'one' is not f64"),
        ("i32", ["4294967296"], "4294967296 does not fit i32"),
        ("i32", [], r"i32 is \(i32\) -> \(i32\)"),
        ("swap", ["1"], r"swap is \(i32, i64, f32, f64\) -> \(f64, f32, i64, i32\)"),
        ("reference", ["1"], r"\(a reference or a vector\) -> \(\)"),
        ("gives vector", [], r"\(\) -> \(a reference or a vector\)"),
    ],
)
def test_what_does_not_fit_is_said(name: str, words: list[str], message: str, guest: Guest) -> None:
    """Words that are no argument are refused, in words."""
    with pytest.raises(ArgumentError, match=message):
        invoke(guest, name, words)


def test_a_trap_is_the_callers(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> None:
    """What the function raises is raised."""
    with pytest.raises(GuestTrap):
        invoke(runtime.instantiate(guest_from_wat(EXITING)), "trap", [])


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_results(guest_from_wat: Callable[..., Path]) -> None:
    """`wali run --invoke` calls the function with the words that follow the file."""
    module = guest_from_wat(IDENTITIES)
    command = [sys.executable, "-m", "wali_core", "run", "--no-cache", "--invoke", "swap"]

    done = subprocess.run(
        [*command, module, "-1", "2", "1.5", "-0.0"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "-0.0\n1.5\n2\n-1\n", "")


def run(*words: str | Path) -> tuple[int, str, str]:
    """Return status and output of `wali run`, in a process of its own: it locks that down."""
    command = [sys.executable, "-m", "wali_core", "run", "--no-cache", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        (["ready"], 0, "1\n", ""),
        (["exit", "9"], 9, "", ""),
        (["trap"], 134, "", "wali: the program trapped: wasm `unreachable` instruction executed"),
        (["exit"], 2, "", "wali: --invoke: exit is (i32) -> ()"),
        (["exit", "x"], 2, "", "wali: --invoke: 'x' is not i32"),
        (["nothing"], 126, "", "exports no function 'nothing'"),
        (["_initialize"], 126, "", "_initialize was called when the guest was made"),
    ],
)
def test_statuses(
    words: list[str],
    status: int,
    out: str,
    err: str,
    guest_from_wat: Callable[..., Path],
) -> None:
    """An exit is the status, and whatever goes wrong is a message and the usual status."""
    module = guest_from_wat(EXITING)

    done = run("--invoke", words[0], module, *words[1:])

    assert done[:2] == (status, out)
    assert err in done[2]
    assert bool(err) == bool(done[2])


def test_time_runs_out(
    guest_from_wat: Callable[..., Path],
) -> None:
    """A time-out bounds the function as it does a program."""
    options = ("--timeout", "50ms", "--invoke", "spin")

    done = run(*options, guest_from_wat(EXITING))

    assert done == (124, "", "wali: the guest was stopped after its 0.05 s (wall_time)\n")


def test_the_words_are_not_the_programs(
    guest_from_wat: Callable[..., Path],
) -> None:
    """The module's own arguments are its name alone."""
    assert run("--invoke", "arguments", guest_from_wat(EXITING)) == (
        0,
        "1\n",
        "",
    )


def test_a_command_has_functions_too(
    guest_from_wat: Callable[..., Path],
) -> None:
    """A function of a command can be called instead of _start, as the application ABI has it."""
    module = guest_from_wat(
        '(module (func (export "_start") (unreachable))'
        ' (func (export "other") (result i32) (i32.const 5)))'
    )

    assert run("--invoke", "other", module) == (0, "5\n", "")


def test_functions_of_wali_programs_cannot_be_called(
    guest_from_wat: Callable[..., Path],
) -> None:
    """A WALI program is a process, not a library."""
    module = guest_from_wat(
        '(module (import "wali" "SYS_getpid" (func (result i64))) (func (export "f")))'
    )

    status, out, err = run("--invoke", "f", module)

    assert (status, out) == (126, "")
    assert "a WALI program, of which only _start can be called" in err
