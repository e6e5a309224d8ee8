"""Modules that no toolchain makes: without a table, with calls in their start, with our own names.

None of them is more than a program that ends badly: no fault of the engine's, no traceback.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import wasmtime

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Wali = Callable[..., subprocess.CompletedProcess[str]]
    Run = Callable[[str], subprocess.CompletedProcess[str]]

IMPORTS = """
    (import "wali" "__proc_exit" (func $exit (param i32)))
    (import "wali" "__wasm_thread_spawn" (func $spawn (param i32 i32) (result i32)))
    (import "wali" "SYS_rt_sigaction" (func $sigaction (param i32 i32 i32 i32) (result i64)))
    (import "wali" "SYS_kill" (func $kill (param i32 i32) (result i64)))
    (import "wali" "SYS_getpid" (func $getpid (result i64)))
    (import "wali" "SYS_fork" (func $fork (result i64)))
    (import "wali" "SYS_wait4" (func $wait4 (param i32 i32 i32 i32) (result i64)))
    (import "wali" "SYS_execve" (func $execve (param i32 i32 i32) (result i64)))
    (import "wali" "SYS_write" (func $write (param i32 i32 i32) (result i64)))
    (import "wali" "SYS_gettid" (func $gettid (result i64)))
    (import "wali" "SYS_tkill" (func $tkill (param i32 i32) (result i64)))
"""
COMMON = """
    (memory (export "memory") 1 4 shared)
    (global $handled (mut i32) (i32.const 0))
    (data (i32.const 16) "\\01")
    (data (i32.const 64) "/bin/true\\00")
    (data (i32.const 80) "once\\n")
    (func $handle (param $number i32)  ;; by function 1 of the table
      (drop (call $sigaction (local.get $number) (i32.const 16) (i32.const 0) (i32.const 8))))
    (func $hit
      (drop (call $kill (i32.wrap_i64 (call $getpid)) (i32.const 10))))
"""
HANDLER = """
    (table 3 funcref)
    (elem (i32.const 1) $note)
    (func $note (param i32) (global.set $handled (i32.add (global.get $handled) (i32.const 1))))
"""
NO_TABLE = ("", "(table 3 externref)")
USR1, ILL = 10, 4


@pytest.fixture
def run(wali: Wali, tmp_path: Path) -> Run:
    """Return a function that runs a module's text, with everything granted."""

    def written(text: str) -> subprocess.CompletedProcess[str]:
        module = tmp_path / "odd.wasm"
        module.write_bytes(wasmtime.wat2wasm(f"(module {IMPORTS} {COMMON} {text})"))
        return wali("--allow-all", "--timeout", "20s", module)

    return written


# --- handlers without a table ---------------------------------------------------------------------


@pytest.mark.parametrize("table", NO_TABLE)
@pytest.mark.parametrize(
    "end",
    [
        f"(call $handle (i32.const {USR1})) (call $hit)",
        f"(call $handle (i32.const {USR1})) (call $hit) (loop (br 0))",
        f"(call $handle (i32.const {ILL})) unreachable",
    ],
)
def test_handler_that_is_nowhere_is_a_trap(table: str, end: str, run: Run) -> None:
    """A number of a function is set as the handler where there are none."""
    done = run(f'{table} (func (export "_start") {end})')

    assert done.returncode == 128 + signal.SIGABRT
    assert "the program trapped: undefined element" in done.stderr


def test_thread_that_begins_nowhere_is_a_trap(run: Run) -> None:
    """So it is with the function of a thread."""
    text = """(func (export "_start")
        (drop (call $spawn (i32.const 0) (i32.const 0)))
        (drop (memory.atomic.wait32 (i32.const 200) (i32.const 0) (i64.const -1))))"""
    done = run(text)

    assert done.returncode == 128 + signal.SIGABRT
    assert "a thread of the program trapped: wasm trap: undefined element" in done.stderr


@pytest.mark.parametrize("name", ["__wali_call", "__wali_start_thread"])
@pytest.mark.parametrize("parameters", ["i32 i32", "i64 i64 i64 i64 i64 i64", "funcref i32"])
def test_what_the_host_calls_is_not_the_modules(name: str, parameters: str, run: Run) -> None:
    """A module cannot bring its own functions of the names of those that are added."""
    others = {"__wali_call", "__wali_start_thread"} - {name}
    text = "".join(f'(func (export "{other}") (param i32 i32))' for other in others)
    done = run(
        f"""{HANDLER} {text} (func (export "{name}") (param {parameters}))
        (func (export "_start") (call $handle (i32.const {USR1})) (call $hit))"""
    )

    assert done.returncode == 126
    assert "a name that is not for modules to use" in done.stderr


# --- calls in the start function ------------------------------------------------------------------


def test_start_function_forks(run: Run) -> None:
    """Both go on from there; what each writes it writes once."""
    done = run("""(global $child (mut i32) (i32.const 0))
        (func $first (global.set $child (i32.wrap_i64 (call $fork))))
        (start $first)
        (func (export "_start")
          (drop (call $write (i32.const 1) (i32.const 80) (i32.const 5)))
          (if (global.get $child) (then
            (drop (call $wait4 (global.get $child) (i32.const 0) (i32.const 0) (i32.const 0)))
            (call $exit (i32.const 7))))
          (call $exit (i32.const 8)))""")

    assert (done.returncode, done.stdout, done.stderr) == (7, "once\nonce\n", "")


def test_start_function_executes(run: Run) -> None:
    """A native program takes its place."""
    done = run("""(func $first
          (drop (call $execve (i32.const 64) (i32.const 0) (i32.const 0)))
          (call $exit (i32.const 9)))
        (start $first)
        (func (export "_start") (call $exit (i32.const 9)))""")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("end", ["", "(loop (br_if 0 (i32.eqz (global.get $handled))))"])
def test_start_function_handles_signals(end: str, run: Run) -> None:
    """What it has set stays set, and what has come is handled."""
    done = run(f"""{HANDLER}
        (func $first (call $handle (i32.const {USR1})) (call $hit) {end})
        (start $first)
        (func (export "_start") (call $hit) (call $exit (global.get $handled)))""")

    assert (done.returncode, done.stderr) == (2, "")


def test_start_function_makes_threads(run: Run) -> None:
    """It runs in the instance of each: the first alone makes another here."""
    done = run("""(table 1 funcref)
        (elem (i32.const 0) $thread)
        (func $thread (param i32 i32)
          (drop (i32.atomic.rmw.add (i32.const 200) (i32.const 1)))
          (drop (memory.atomic.notify (i32.const 200) (i32.const 1))))
        (func $first
          (if (i32.eqz (i32.atomic.rmw.add (i32.const 204) (i32.const 1)))
            (then (drop (call $spawn (i32.const 0) (i32.const 0))))))
        (start $first)
        (func (export "_start")
          (drop (memory.atomic.wait32 (i32.const 200) (i32.const 0) (i64.const -1)))
          (call $exit (i32.add (i32.mul (i32.atomic.load (i32.const 200)) (i32.const 10))
                               (i32.atomic.load (i32.const 204)))))""")

    assert (done.returncode, done.stderr) == (12, "")


def test_no_handler_runs_in_the_start_function_of_a_thread(run: Run) -> None:
    """The thread has no stack of its own yet."""
    done = run(f"""
        (global $begun (mut i32) (i32.const 0))
        (table 2 funcref)
        (elem (i32.const 0) $thread $note)
        (func $note (param i32)
          (i32.atomic.store (i32.const 200) (i32.add (i32.const 5) (global.get $begun))))
        (func $thread (param i32 i32)
          (global.set $begun (i32.const 1))
          (drop (call $getpid))
          (call $exit (i32.atomic.load (i32.const 200))))
        (func $first
          (if (i32.atomic.rmw.add (i32.const 204) (i32.const 1)) (then
            (drop (call $tkill (i32.wrap_i64 (call $gettid)) (i32.const {USR1})))
            (drop (call $getpid)))))
        (start $first)
        (func (export "_start")
          (call $handle (i32.const {USR1}))
          (drop (call $spawn (i32.const 0) (i32.const 0)))
          (drop (memory.atomic.wait32 (i32.const 208) (i32.const 0) (i64.const -1))))""")

    assert (done.returncode, done.stderr) == (6, "")


def test_start_function_ends_the_program(run: Run) -> None:
    """Its status is the program's."""
    done = run("""(func $first (call $exit (i32.const 9)))
        (start $first)
        (func (export "_start") (call $exit (i32.const 1)))""")

    assert (done.returncode, done.stderr) == (9, "")


def test_trap_in_the_start_function_of_a_thread(run: Run) -> None:
    """It is the end of the process, as any of a thread's."""
    done = run("""(table 1 funcref)
        (elem (i32.const 0) $thread)
        (func $thread (param i32 i32))
        (func $first
          (if (i32.atomic.rmw.add (i32.const 204) (i32.const 1)) (then unreachable)))
        (start $first)
        (func (export "_start")
          (drop (call $spawn (i32.const 0) (i32.const 0)))
          (drop (memory.atomic.wait32 (i32.const 200) (i32.const 0) (i64.const -1))))""")

    assert done.returncode == 128 + signal.SIGABRT
    assert "a thread of the program trapped: wasm trap: wasm `unreachable`" in done.stderr
