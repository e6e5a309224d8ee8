"""Tests of wali_core.rewriting._reuse: fewer loads, the same results.

The oracle is wasmtime, on the module as it was.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from wali_core import ModuleError
from wali_core.rewriting import _prepare as prep
from wali_core.rewriting import _reuse

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

MODULE = """
(module
  (memory (export "memory") 1)
  (data (i32.const 0) "{data}")
  (func $clear (param i32) (i64.store (local.get 0) (i64.const 0)))
  (func (export "f") (param $p i32) (param $q i32) (param $x i32) (result i32)
    (local $n i32) (local $y i32) (local $z i64) (local $a f32) (local $b f64)
    {body}))
"""
DATA = "".join(f"\\{(7 * i + 3) % 256:02x}" for i in range(512))
CLEAR, FUNCTION = 0, 1  # numbers of the two functions


@cache
def assembled(body: str) -> bytes:
    """Return a module whose function has that body."""
    return bytes(wasmtime.wat2wasm(MODULE.format(data=DATA, body=body)))


def code(data: bytes, number: int) -> tuple[bytes, int]:
    """Return a function's code, and how many parameters it has."""
    module = prep.Module(data, "guest.wasm")
    section = module.section(prep.CODE)
    assert section
    reader = prep.Reader(section.body, "guest.wasm", section.at)
    bodies = [bytes(reader.take(reader.number())) for _ in range(reader.count())]
    kind = module.functions()[number]
    return bodies[number], len(module.types()[kind].parameters)


def replaced(body: str) -> int:
    """Return how many loads of a body are replaced, by a module that is valid."""
    data = assembled(body)
    function = _reuse._Function(*code(data, FUNCTION))
    function.rewritten()
    valid(_reuse.reuse_values(data, "guest.wasm"))
    return len(function._uses)


def valid(data: bytes) -> wasmtime.Module:
    """Return the module, compiled."""
    return wasmtime.Module(engine(), data)


@cache
def engine() -> wasmtime.Engine:
    """Return an engine on which whatever goes in circles ends."""
    config = wasmtime.Config()
    config.consume_fuel = True
    return wasmtime.Engine(config)


def outcome(data: bytes, *arguments: int) -> tuple[Any, bytes]:
    """Return what a function returns, or why not, and the memory afterwards."""
    store = wasmtime.Store(engine())
    store.set_fuel(100_000)
    exports = wasmtime.Instance(store, valid(data), []).exports(store)
    function, memory = exports["f"], exports["memory"]
    assert isinstance(function, wasmtime.Func)
    assert isinstance(memory, wasmtime.Memory)
    result: Any
    try:
        result = function(store, *arguments)
    except wasmtime.Trap as trap:
        result = trap.trap_code
    return result, bytes(memory.read(store, 0, 1024))


# --- what is replaced, and what is not ------------------------------------------------------------

LOAD = "(i32.load offset=8 (local.get $p))"
DROP = f"(drop {LOAD})"
ZERO = "(i32.const 0)"
STORE = "(i32.store offset=8 (local.get $p) (local.get $x))"


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (f"{STORE} {LOAD}", 1),
        (f"{DROP} {LOAD}", 1),
        (f"{DROP} {DROP} {LOAD}", 2),
        (f"{STORE} (i32.store offset=12 (local.get $p) (i32.const 1)) {LOAD}", 1),
        (f"{STORE} (i64.store offset=0 (local.get $p) (i64.const 1)) {LOAD}", 1),
        (f"{STORE} (local.set $x (i32.const 1)) {LOAD}", 1),
        (f"{STORE} (global.get 0) drop {LOAD}", 1),
        (f"{STORE} (block {DROP}) {LOAD}", 2),
        (f"{STORE} (if (local.get $x) (then {DROP}) (else {DROP})) {LOAD}", 3),
        (f"(if (local.get $x) (then {STORE}) (else {DROP})) {LOAD}", 1),
        (f"(block (br_if 0 (local.get $x)) {STORE}) {DROP} {LOAD}", 1),
        (f"{STORE} (block (br_if 0 (local.get $x)) {STORE}) {LOAD}", 1),
        (f"{STORE} (block (block (br_table 0 1 (local.get $x))) {DROP}) {LOAD}", 2),
        (f"(f32.store (local.get $p) (f32.const 2)) (drop (f32.load (local.get $p))) {ZERO}", 1),
        (f"(f64.store (local.get $p) (f64.const 2)) (drop (f64.load (local.get $p))) {ZERO}", 1),
        ("(drop (i32.load8_u (local.get $p))) (i32.load8_u (local.get $p))", 1),
        (f"{STORE} (drop (memory.grow (i32.const 0))) {LOAD}", 1),
    ],
)
def test_loads_are_replaced(body: str, count: int) -> None:
    """The value is what was stored or loaded last, on whatever way."""
    body = body.replace("(global.get 0) drop", "(nop)")

    assert replaced(body) == count


@pytest.mark.parametrize(
    "body",
    [
        LOAD,
        f"{STORE} (i32.store offset=8 (local.get $q) (i32.const 1)) {LOAD}",
        f"{STORE} (i32.store (i32.add (local.get $p) (local.get $x)) (i32.const 1)) {LOAD}",
        f"{STORE} (i32.store offset=0 (local.get $q) (i32.const 1)) {LOAD}",
        f"(local.get $p) (local.set $p (local.get $q)) (local.get $x) (i32.store offset=8) {LOAD}",
        f"{STORE} (i32.store8 offset=11 (local.get $p) (i32.const 1)) {LOAD}",
        f"{STORE} (i64.store offset=1 (local.get $p) (i64.const 1)) {LOAD}",
        f"{STORE} (call $clear (local.get $p)) {LOAD}",
        f"{STORE} (local.set $p (local.get $q)) {LOAD}",
        f"{STORE} (drop (local.tee $p (local.get $q))) {LOAD}",
        f"{STORE} (loop {DROP})  (i32.const 0)",
        f"(loop {DROP} (br_if 0 (local.get $x))) (i32.const 0)",
        f"(block (br_if 0 (local.get $x)) {STORE}) {LOAD}",
        f"(if (local.get $x) (then {STORE})) {LOAD}",
        f"{STORE} (if (local.get $x) (then (call $clear (local.get $p)))) {LOAD}",
        f"(block (block (br_table 0 1 (local.get $x))) {DROP}) {LOAD}",
        f"{STORE} (memory.fill (local.get $q) (i32.const 0) (i32.const 9)) {LOAD}",
        f"{STORE} (i32.load16_u offset=8 (local.get $p))",
        "(i64.store (local.get $p) (i64.const 1)) (i32.load (local.get $p))",
        "(i32.store8 (local.get $p) (local.get $x)) (i32.load8_u (local.get $p))",
        f"(return (i32.const 0)) {STORE} {LOAD}",
        f"{STORE} (return (i32.const 0)) {LOAD}",
    ],
)
def test_loads_stay(body: str) -> None:
    """Where something else may have been stored, on any way, memory is asked."""
    assert replaced(body) == 0


def test_atomic_instructions_are_barriers() -> None:
    """What another thread has stored before one is seen after it."""
    text = """(module (memory 1 1 shared) (func (param i32) (result i32)
        (i32.store (local.get 0) (i32.const 1)) {} (i32.load (local.get 0))))"""
    for between, count in (
        ("", 1),
        ("(atomic.fence)", 0),
        ("(drop (i32.atomic.load (i32.const 64)))", 0),
        ("(drop (memory.atomic.notify (i32.const 64) (i32.const 1)))", 0),
    ):
        function = _reuse._Function(*code(bytes(wasmtime.wat2wasm(text.format(between))), 0))
        function.rewritten()
        assert len(function._uses) == count


@pytest.mark.parametrize(
    "strange",
    [
        "(drop (v128.load (local.get 0)))",
        "(drop (ref.null func))",
        "(try_table (nop))",
        "(drop (select (result i32) (i32.const 0) (i32.const 0) (i32.const 0)))",
    ],
)
def test_what_is_not_known_stays(strange: str) -> None:
    """A function with other instructions is left alone, and so is no other."""
    text = f"""(module (memory 1)
        (func (param i32) {strange} (drop (i32.load (local.get 0))) (drop (i32.load (local.get 0))))
        (func (param i32) (drop (i32.load (local.get 0))) (drop (i32.load (local.get 0)))))"""
    data = bytes(wasmtime.wat2wasm(text))

    after = _reuse.reuse_values(data, "guest.wasm")

    assert code(after, 0) == code(data, 0)
    assert code(after, 1) != code(data, 1)


def test_other_locals_and_numbers_are_longer() -> None:
    """Locals of several groups and numbers of several bytes are read as they are."""
    locals_ = "(local i32 i32 i64 i64 f32)" * 40
    access = "(drop (i32.load offset=40000 (local.get $p)))"
    text = f"(module (memory 1) (func {locals_} (local $p i32) {access} {access}))"
    data = bytes(wasmtime.wat2wasm(text))
    body, parameters = code(data, 0)

    rewritten = _reuse._Function(body, parameters).rewritten()

    assert rewritten is not None
    assert rewritten.count(b"\x28\x02\xc0\xb8\x02") == 1
    valid(_reuse.reuse_values(data, "guest.wasm"))


# --- any program ----------------------------------------------------------------------------------

# Few places and mostly one type: what is not accessed twice shows nothing.
BASES = st.sampled_from(["$p", "$p", "$q", "$y"])
OFFSETS = st.sampled_from([0, 0, 4, 4, 2, 9])
STORES = {
    "i32": ["i32.store"] * 3 + ["i32.store8", "i32.store16"],
    "i64": ["i64.store", "i64.store8", "i64.store16", "i64.store32"],
    "f32": ["f32.store"],
    "f64": ["f64.store"],
}
LOADS = {
    "i32": ["i32.load"] * 6 + ["i32.load8_s", "i32.load8_u", "i32.load16_s", "i32.load16_u"],
    "i64": ["i64.load", "i64.load8_s", "i64.load16_u", "i64.load32_s", "i64.load32_u"],
    "f32": ["f32.load"],
    "f64": ["f64.load"],
}
LOCALS = {"i32": ["$x", "$n"], "i64": ["$z"], "f32": ["$a"], "f64": ["$b"]}
TYPES = st.sampled_from(["i32"] * 6 + ["i64", "i64", "f32", "f64"])


@st.composite
def values(draw: DrawFn, kind: str, depth: int = 2) -> str:
    """Return an expression."""
    how = draw(st.integers(0, 8 if depth else 6))
    if how == 0:
        return f"({kind}.const {draw(st.integers(0, 500))})"
    if how == 1:
        return f"(local.get {draw(st.sampled_from(LOCALS[kind]))})"
    if how <= 6:
        load = draw(st.sampled_from(LOADS[kind]))
        return f"({load} offset={draw(OFFSETS)} (local.get {draw(BASES)}))"
    if how == 7:
        one, other = draw(values(kind, depth - 1)), draw(values(kind, depth - 1))
        return f"({kind}.add {one} {other})"
    local = draw(st.sampled_from(LOCALS[kind]))
    return f"(local.tee {local} {draw(values(kind, depth - 1))})"


# What is there now goes into the result.
PROBE = """(local.set $n (i32.add (i32.mul (local.get $n) (i32.const 31))
    (i32.load offset={} (local.get {}))))"""


@st.composite
def statements(draw: DrawFn, depth: int, labels: int) -> str:
    """Return a statement, and loads that show what it did."""
    probes = draw(st.lists(st.tuples(OFFSETS, BASES), max_size=2))
    return draw(bare_statements(depth, labels)) + "".join(PROBE.format(*one) for one in probes)


@st.composite
def bare_statements(draw: DrawFn, depth: int, labels: int) -> str:
    """Return a statement; labels up to this one can be branched to."""
    how = draw(st.integers(0, 11 if depth else 7))
    if how <= 2:
        kind = draw(TYPES)
        store = draw(st.sampled_from(STORES[kind]))
        return f"({store} offset={draw(OFFSETS)} (local.get {draw(BASES)}) {draw(values(kind))})"
    if how <= 4:
        kind = draw(TYPES)
        return f"(local.set {draw(st.sampled_from(LOCALS[kind]))} {draw(values(kind))})"
    if how == 5:
        return f"(local.set {draw(BASES)} (i32.and (i32.const 31) {draw(values('i32'))}))"
    if how == 6:
        return f"(call $clear (local.get {draw(BASES)}))"
    if how == 7:
        return f"(br_if {draw(st.integers(0, labels))} {draw(values('i32'))})"
    return draw(blocks(depth - 1, labels))


@st.composite
def blocks(draw: DrawFn, depth: int, labels: int) -> str:
    """Return statements in a block of some kind."""
    inner = "".join(draw(st.lists(statements(depth, labels + 1), max_size=4)))
    kind = draw(st.sampled_from(["block", "loop", "if", "else", "table", "leave"]))
    if kind in ("block", "loop"):
        return f"({kind} {inner})"
    if kind == "table":
        there = st.lists(st.integers(0, labels + 1), min_size=1, max_size=3)
        table = " ".join(map(str, draw(there)))
        return f"(block {inner} (br_table {table} {draw(values('i32'))}))"
    if kind == "leave":
        leave = draw(st.sampled_from(["(br 0)", "(br 1)", "(return (local.get $x))"]))
        return f"(block (br_if 0 {draw(values('i32'))}) {inner} {leave} {inner})"
    other = "".join(draw(st.lists(statements(depth, labels + 1), max_size=3)))
    rest = f"(else {other})" if kind == "else" else ""
    return f"(if {draw(values('i32'))} (then {inner}) {rest})"


PROGRAMS = st.lists(statements(3, 0), min_size=3, max_size=15).map("".join)
ADDRESSES = st.integers(0, 12)
# What is left in the locals is part of the result.
SUM = """
    (i64.store offset=600 (i32.const 0) (local.get $z))
    (f32.store offset=608 (i32.const 0) (local.get $a))
    (f64.store offset=616 (i32.const 0) (local.get $b))
    (i32.store offset=624 (i32.const 0) (local.get $n))
    (i32.store offset=628 (i32.const 0) (i32.load offset=4 (local.get $p)))
    (i32.store offset=632 (i32.const 0) (i32.load (local.get $q)))
    (local.get $x)
"""


@given(PROGRAMS, ADDRESSES, ADDRESSES, st.integers(0, 40))
def test_programs_do_what_they_did(program: str, p: int, q: int, x: int) -> None:
    """Whatever overlaps, the result and every byte of memory are the same."""
    data = assembled_once(f"(block {program}) {SUM}")

    before = outcome(data, p, q, x)
    after = outcome(_reuse.reuse_values(data, "guest.wasm"), p, q, x)

    # Fuel is counted by instructions, of which there are fewer now.
    assert wasmtime.TrapCode.OUT_OF_FUEL in (before[0], after[0]) or before == after


def assembled_once(body: str) -> bytes:
    """Return a module that nobody asks for again."""
    return assembled.__wrapped__(body)


# --- any file -------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_random_code(body: bytes) -> None:
    """Code that is none is left as it is, or becomes what is none either."""
    function = _reuse._Function(body, 1)

    rewritten = function.rewritten()

    assert rewritten is None or len(rewritten) > 0


@given(st.data())
def test_damaged_modules(data: st.DataObject) -> None:
    """A damaged module is refused, or rewritten into one that is valid if it was."""
    whole = bytearray(assembled(f"{STORE} (block {DROP} (br_if 0 (local.get $x))) {LOAD}"))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))

    try:
        after = _reuse.reuse_values(bytes(whole), "guest.wasm")
    except ModuleError:
        return

    assert is_valid(after) or not is_valid(bytes(whole))


def is_valid(data: bytes) -> bool:
    """Return whether wasmtime would compile a module."""
    try:
        wasmtime.Module.validate(engine(), data)
    except wasmtime.WasmtimeError:
        return False
    return True


# --- upstream's binaries --------------------------------------------------------------------------

UPSTREAM = os.environ.get("WALI_UPSTREAM")


@pytest.mark.suite
@pytest.mark.skipif(not UPSTREAM, reason="WALI_UPSTREAM names no checkout of WALI")
@pytest.mark.parametrize("name", ["lua/lua", "sqlite/sqlite3", "bash/bash"])
def test_upstream_binaries(name: str) -> None:
    """They were compiled without optimisation: a good part of their loads can go."""
    data = Path(UPSTREAM or "", "examples", "precompiled", f"{name}.wasm").read_bytes()

    after = _reuse.reuse_values(data, name)

    config = wasmtime.Config()
    config.shared_memory = True
    wasmtime.Module.validate(wasmtime.Engine(config), after)
    module = prep.Module(data, name)
    uses = loads = 0
    for number, kind in enumerate(module.functions()):
        if number % 20 == 0:
            body, parameters = code(data, number)
            assert parameters == len(module.types()[kind].parameters)
            function = _reuse._Function(body, parameters)
            function.rewritten()
            uses += len(function._uses)
            loads += len(function._sources)
    assert uses > loads / 10
