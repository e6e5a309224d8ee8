"""WALI programs that use what WebAssembly has got since its first version.

Each computes for ever in its way, and hears a signal all the same; what is not had is refused, and
it is said why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import wasmtime

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

HANDLED = 42
PROGRAM = """
(module {types}
  (import "wali" "__proc_exit" (func $exit (param i32)))
  (import "wali" "SYS_rt_sigaction" (func $action (param i32 i32 i32 i32) (result i64)))
  (import "wali" "SYS_setitimer" (func $timer (param i32 i32 i32) (result i64)))
  (memory (export "memory") 1 1 shared) {memories}
  {before} (table $table 2 2 funcref) {after}
  (elem (table $table) (i32.const 1) func $handler)
  (data (i32.const 128) "\\01\\00\\00\\00")
  {globals}
  (func $handler (param i32) (call $exit (i32.const 42)))
  (func $arm
    (i64.store (i32.const 280) (i64.const 20000))
    (drop (call $action (i32.const 14) (i32.const 128) (i32.const 0) (i32.const 8)))
    (drop (call $timer (i32.const 0) (i32.const 256) (i32.const 0))))
  {functions}
  (func (export "_start") (call $arm) {start}))
"""
VECTOR = "(v128.const f32x4 1 2 3 4)"
HEARING = {
    "vectors": {"start": f"(loop (drop (i32x4.add {VECTOR} {VECTOR})) (br 0))"},
    "relaxed vectors": {
        "start": f"(loop (drop (f32x4.relaxed_madd {VECTOR} {VECTOR} {VECTOR})) (br 0))"
    },
    "tail calls": {"functions": "(func $f (return_call $f))", "start": "(call $f)"},
    "tail calls through a table": {
        "after": "(table $own funcref (elem $f))",
        "functions": "(func $f (return_call_indirect $own (i32.const 0)))",
        "start": "(call $f)",
    },
    "exceptions": {
        "globals": "(tag $e)",
        "start": "(loop $l (block $h (try_table (catch $e $h) (throw $e))) (br $l))",
    },
    "references": {
        "after": "(table $others 1 externref)",
        "start": "(loop (table.set $others (i32.const 0) (ref.null extern)) (br 0))",
    },
    "references in the first table": {
        "before": "(table $others 1 externref)",
        "start": "(loop (table.set $others (i32.const 0) (ref.null extern)) (br 0))",
    },
    "a table of 64-bit indexes": {
        "before": "(table $others i64 1 funcref)",
        "start": "(loop (drop (table.get $others (i64.const 0))) (br 0))",
    },
    "typed references": {
        "types": "(type $v (func))",
        "functions": "(elem declare func $r) (func $r (return_call_ref $v (ref.func $r)))",
        "start": "(call_ref $v (ref.func $r))",
    },
    "constants that are computed": {
        "globals": "(global $g i32 (i32.add (i32.const 1) (i32.const 2)))",
        "start": "(loop (br_if 0 (global.get $g)))",
    },
    "calls that double": {
        "functions": "".join(f"(func $f{i} (call $f{i + 1}) (call $f{i + 1}))" for i in range(60))
        + "(func $f60)",
        "start": "(call $f0)",
    },
}
LOOP = "(loop (br 0))"
REFUSED = {
    "structs": ({"types": "(type (struct (field i32)))"}, "garbage collection: type 0x5f"),
    "groups of types": (
        {"types": "(rec (type $a (func (param (ref null $b)))) (type $b (func)))"},
        "garbage collection: type 0x4e",
    ),
    "small numbers as references": (
        {"start": f"(drop (ref.i31 (i32.const 1))) {LOOP}"},
        "function 5: WALI programs may not use WebAssembly's garbage collection",
    ),
    "constants that are references": (
        {"globals": "(global i31ref (ref.i31 (i32.const 1)))"},
        "garbage collection: a constant expression with opcode 0xfb",
    ),
    "several memories": ({"memories": "(memory 1)"}, "2 memories; a module may have one"),
}


@pytest.fixture
def run(wali: Run, tmp_path: Path) -> Callable[[dict[str, str]], subprocess.CompletedProcess[str]]:
    """Return a function that runs a program with these parts."""

    def run(parts: dict[str, str]) -> subprocess.CompletedProcess[str]:
        empty = dict.fromkeys(("types", "memories", "before", "after", "globals", "functions"), "")
        path = tmp_path / "guest.wasm"
        path.write_bytes(wasmtime.wat2wasm(PROGRAM.format(**empty | {"start": LOOP} | parts)))
        return wali("--allow-all", path)

    return run


@pytest.mark.parametrize("feature", HEARING)
def test_a_program_hears_signals(feature: str, run: Run) -> None:
    """Its handler runs, which ends it."""
    done = run(HEARING[feature])

    assert (done.returncode, done.stderr) == (HANDLED, "")


@pytest.mark.parametrize("feature", REFUSED)
def test_what_is_not_had_is_said(feature: str, run: Run) -> None:
    """With the place in the file, and what it is."""
    parts, words = REFUSED[feature]

    done = run(parts)

    assert done.returncode == 126
    assert "guest.wasm: byte" in done.stderr
    assert words in done.stderr
