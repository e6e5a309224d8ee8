"""Tests of wali_core.rewriting._polls: all cycles through the code of a program have a poll.

And nothing else has one.  The oracle is wasmtime: what never ends, ends when the flag is set, since
what is called then traps; what does end gives what it gave, however often it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

from wali_core import ModuleError
from wali_core._abi import FLAG_EXPORT, POLLED_EXPORT, START_EXPORT
from wali_core.rewriting import _prepare as prep
from wali_core.rewriting._polls import add_polls

if TYPE_CHECKING:
    from collections.abc import Callable

HINTS = b"metadata.code.branch_hint"

# Functions that never end, each by another kind of cycle.
ENDLESS = {
    "a loop": "(func (export {f}) (loop (br 0)))",
    "a loop in a loop": "(func (export {f}) (loop (loop (br 1))))",
    "a loop with parameters": """(func (export {f}) (drop
        (i32.const 1) (loop (param i32) (result i32) (i32.add (i32.const 1)) (br 0))))""",
    "a loop that is left and entered by a table": """(func (export {f})
        (loop (block (br_table 0 1 (i32.const 1)))))""",
    "a tail call": "(func $f (export {f}) (return_call $f))",
    "tail calls in turn": """(func $a (return_call $b)) (func $b (return_call $a))
        (func (export {f}) (call $a))""",
    "a tail call through the table": """(table funcref (elem $t))
        (func $t (export {f}) (return_call_indirect (i32.const 0)))""",
    "a tail call by reference": """(type $t (func)) (elem declare func $r)
        (func $r (export {f}) (return_call_ref $t (ref.func $r)))""",
    "calls with no end": "(func $f (export {f}) (call $f))",
    "calls in turn": """(func $c (call $d)) (func $d (call $e)) (func $e (call $c))
        (func (export {f}) (call $d))""",
    "calls through the table": """(table funcref (elem $t))
        (func $t (export {f}) (call_indirect (i32.const 0)))""",
    "calls by reference": """(type $t (func)) (elem declare func $r)
        (func $r (export {f}) (call_ref $t (ref.func $r)))""",
    "calls from a try block": """(tag $t) (func $f (export {f})
        (block $caught (try_table (catch $t $caught) (call $f))))""",
}

DOUBLED = 40
ENDLESS["calls that double, forty times"] = (
    "".join(f"(func $f{i} (call $f{i + 1}) (call $f{i + 1}))" for i in range(DOUBLED))
    + f"(func $f{DOUBLED}) (func (export {{f}}) (call $f0))"
)

# What ends: an argument and what comes out.
ENDING = """
(module
  (memory (export "memory") 1)
  (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
      (then (local.get 0))
      (else (i32.add
        (call $fib (i32.sub (local.get 0) (i32.const 1)))
        (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
  (func $leaf (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
  (func (export "sum") (param i32) (result i32) (local i32)
    (loop $next (result i32)
      (local.set 1 (i32.add (local.get 1) (call $leaf (local.get 0))))
      (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))
      (local.get 1))))
"""


def assembled(text: str) -> bytes:
    """Return a module from its text."""
    return bytes(wasmtime.wat2wasm(text))


def engine() -> wasmtime.Engine:
    """Return an engine that takes everything."""
    config = wasmtime.Config()
    config.wasm_gc = True
    config.wasm_exceptions = True
    return wasmtime.Engine(config)


class Instance:
    """A module with polls, whose flag and what they call are at hand."""

    def __init__(self, data: bytes, called: Callable[[], None]) -> None:
        its = engine()
        self.store = wasmtime.Store(its)
        module = wasmtime.Module(its, add_polls(data, "guest.wasm"))
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.calls = 0

        def polled() -> None:
            self.calls += 1
            called()

        function = wasmtime.Func(self.store, wasmtime.FuncType([], []), polled)
        self._of(POLLED_EXPORT).set(self.store, 0, function)

    def _of(self, name: str) -> Any:
        return self.exports[name]

    def set_flag(self, value: int) -> None:
        """Have polls call, or not."""
        self._of(FLAG_EXPORT).write(self.store, bytes([value]), 0)

    def call(self, name: str, *arguments: int) -> Any:
        """Call an exported function."""
        return self._of(name)(self.store, *arguments)


def polls(data: bytes) -> int:
    """Return how many polls a module gets: one hint for each."""
    return sum(len(at) for at in hints(add_polls(data, "guest.wasm")).values())


def hints(data: bytes) -> dict[int, list[int]]:
    """Return where the branches are that are not taken, by the number of the function."""
    module = prep.Module(data, "guest.wasm")
    found: dict[int, list[int]] = {}
    for section in module.sections:
        reader = prep.Reader(section.body, "guest.wasm")
        if section.id != prep.CUSTOM or reader.name() != HINTS:
            continue
        assert not found  # there is one such section
        for _ in range(reader.number()):
            places = found.setdefault(reader.number(), [])
            for _ in range(reader.number()):
                places.append(reader.number())
                assert bytes(reader.take(2)) == b"\x01\x00"
        assert reader.left == 0
    return found


@pytest.mark.parametrize("kind", ENDLESS)
def test_every_cycle_has_a_poll(kind: str) -> None:
    """What never ends by itself is ended by what its polls call."""

    def end() -> None:
        raise RuntimeError("polled")

    instance = Instance(assembled("(module " + ENDLESS[kind].format(f='"f"') + ")"), end)
    instance.set_flag(1)
    with pytest.raises(RuntimeError, match="polled"):
        instance.call("f")
    assert instance.calls == 1


def count() -> None:
    """Let it go on."""


@pytest.mark.parametrize(("name", "expected"), [("fib", 55), ("sum", 165)])
def test_what_ends_does_so_as_it_did(name: str, expected: int) -> None:
    """Polls change no result, called or not."""
    instance = Instance(assembled(ENDING), count)

    assert instance.call(name, 10) == expected
    assert instance.calls == 0
    instance.set_flag(1)
    assert instance.call(name, 10) == expected
    assert instance.calls >= 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(func $a) (func $b (call $a)) (func (call $b) (call $a) (call $b))", 0),
        ("(func (loop))", 1),
        ("(func (loop (loop)) (loop))", 3),
        ("(func $a (call $b)) (func $b (call $c)) (func $c (call $a))", 1),
        ("(func $a (call $a) (call $a))", 2),
        ("(func $a (call $b)) (func $b (call $b)) (func (call $a))", 1),
        # Calls that double, and come to their end soon.
        (
            "".join(f"(func $f{i} (call $f{i + 1}) (call $f{i + 1}))" for i in range(12))
            + "(func $f12)",
            0,
        ),
        ('(import "m" "f" (func $i)) (func $a (call $i) (call $b)) (func $b (call $i))', 0),
    ],
)
def test_there_are_no_more_than_needed(text: str, expected: int) -> None:
    """What is in no cycle has none, and a cycle of calls has one."""
    assert polls(assembled(f"(module {text})")) == expected


def test_a_cycle_is_closed_where_the_program_comes_from_its_entry() -> None:
    """The poll is at the call that leads back, not at the one that leads on."""
    calls = "(func $back (call $on)) (func $on (call $back))"
    found = hints(add_polls(assembled(f'(module {calls} (export "_start" (func $on)))'), "m"))

    assert list(found) == [0]


def test_hints_are_at_the_branches() -> None:
    """Each names an ``if``, whose block calls the function that was added; those of others go."""
    data = add_polls(assembled(ENDING), "guest.wasm")
    custom = prep.encode_name(HINTS) + b"\x01\x00\x01\x07\x01\x01"
    stale = data[:8] + b"\x00" + prep.leb128(len(custom)) + custom + assembled(ENDING)[8:]
    assert add_polls(stale, "guest.wasm") == data
    module = prep.Module(data, "guest.wasm")
    section = module.section(prep.CODE)
    assert section is not None
    reader = prep.Reader(section.body, "guest.wasm")
    bodies = [bytes(reader.take(reader.number())) for _ in range(reader.count())]

    found = hints(data)

    assert {function: len(at) for function, at in found.items()} == {0: 2, 2: 1}
    for function, at in found.items():
        for place in at:
            assert bodies[function][place : place + 5] == b"\x04\x40\x10\x03\x0b"


# Of each kind of operands one instruction, in a function that may have any.
INSTRUCTIONS = """
    (drop (i32.const -1)) (drop (i64.const -1)) (drop (f32.const nan)) (drop (f64.const 3))
    (local.set $i (i32.load8_s offset=300 align=1 (local.get $i)))
    (i64.store $second offset=0x20000 (local.get $i) (i64.const 1))
    (drop (memory.size)) (drop (memory.grow $second (i32.const 0)))
    (memory.copy $second 0 (i32.const 0) (i32.const 0) (i32.const 0))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))
    (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0)) (data.drop $d)
    (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 0)) (elem.drop $e)
    (table.copy $t $t (i32.const 0) (i32.const 0) (i32.const 0))
    (table.set $t (i32.const 0) (table.get $t (i32.const 0)))
    (drop (table.grow $t (ref.null func) (i32.const 0))) (drop (table.size $t))
    (table.fill $t (i32.const 0) (ref.func $f) (i32.const 0))
    (drop (ref.is_null (ref.null extern))) (drop (select (result funcref)
      (ref.null func) (ref.func $f) (local.get $i)))
    (drop (select (local.get $i) (i32.const 1) (i32.const 2)))
    (drop (i32.trunc_sat_f64_u (f64.const 1))) (drop (i64.extend32_s (i64.const 1)))
    (drop (i32.atomic.rmw.cmpxchg (i32.const 0) (i32.const 0) (i32.const 0))) (atomic.fence)
    (drop (memory.atomic.notify (i32.const 0) (i32.const 0)))
    (local.set $v (v128.const i32x4 0x03030303 0x0b0b0b0b 3 4))
    (local.set $v (v128.load offset=200 (i32.const 0)))
    (local.set $v (i8x16.shuffle 3 3 3 3 3 3 3 3 11 11 11 11 11 11 11 11
      (local.get $v) (local.get $v)))
    (drop (i8x16.extract_lane_s 3 (local.get $v)))
    (local.set $v (v128.load8_lane $second offset=3 3 (i32.const 0) (local.get $v)))
    (local.set $v (v128.load32_zero (i32.const 3)))
    (local.set $v (i64x2.mul (i8x16.swizzle (local.get $v) (local.get $v)) (local.get $v)))
    (local.set $v (i32x4.relaxed_trunc_f32x4_s (f32x4.relaxed_madd
      (local.get $v) (local.get $v) (local.get $v))))
    (global.set $g (i32.add (global.get $g) (i32.const 3)))
    (block $out (br_if $out (local.get $i)) (br_on_null $out (ref.func $f)) (drop))
    (drop (block $out (result (ref func)) (br_on_non_null $out (ref.func $f)) (ref.func $f)))
    (drop (ref.as_non_null (ref.func $f)))
    (block $h (try_table (catch $tag $h) (catch_all $h) (throw $tag)))
    (drop (block $h (result exnref) (try_table (catch_all_ref $h)) (unreachable)))
    (block $a (block $b (br_table $a $b $a (local.get $i))))
    (if (result i32) (local.get $i) (then (i32.const 3)) (else (i32.const 4))) (drop)
    (block (nop) (return)) (unreachable)
"""
EVERYTHING = f"""
(module
  (memory 1) (memory $second 1) (global $g (mut i32) (i32.const 0)) (tag $tag)
  (table $t 3 funcref) (elem $e func $f) (data $d "3")
  (func $f (export "f") (local $i i32) (local $v v128) (local funcref) (local (ref null func))
    {{loop}} {INSTRUCTIONS.replace(chr(10), chr(10) + "{loop}")}))
"""


def test_every_instruction_is_known() -> None:
    """Between all instructions of all kinds, each loop is found, and nothing is taken for one."""
    data = assembled(EVERYTHING.format(loop="(loop)"))
    wasmtime.Module.validate(engine(), data)

    made = add_polls(data, "guest.wasm")

    wasmtime.Module.validate(engine(), made)
    assert sum(map(len, hints(made).values())) == EVERYTHING.count("{loop}")
    assert polls(assembled(EVERYTHING.format(loop=""))) == 0


def test_what_is_added_is_behind_what_there_is() -> None:
    """A memory and a table get the next numbers; nothing else of the module changes its own."""
    module = prep.Module(
        add_polls(assembled(EVERYTHING.format(loop="(loop)")), "guest.wasm"), "guest.wasm"
    )
    named = {export.name.decode(): (export.kind, export.index) for export in module.exports()}

    assert named == {
        "f": (prep.EXTERN_FUNC, 0),
        FLAG_EXPORT: (prep.EXTERN_MEMORY, 2),
        POLLED_EXPORT: (prep.EXTERN_TABLE, 1),
    }


def test_the_start_function_waits() -> None:
    """It is exported, to be called when what polls need is in its place."""
    data = assembled("(module (func $s (loop (br 0))) (start $s))")
    instance = Instance(data, count)  # which would never return

    assert START_EXPORT in instance.exports


@pytest.mark.parametrize("name", [FLAG_EXPORT, POLLED_EXPORT, START_EXPORT])
def test_names_are_not_taken(name: str) -> None:
    """A module that has what is added already is refused by name."""
    with pytest.raises(ModuleError, match=f"^m: byte .*exports {name}, a name that is not for"):
        add_polls(assembled(f'(module (func (export "{name}")))'), "m")


def test_unknown_instructions_are_refused_with_their_place() -> None:
    """Code that cannot be read could hide a loop."""
    data = assembled("(module (func (drop (ref.i31 (i32.const 3)))))")

    with pytest.raises(ModuleError, match=r"^m: byte 25: function 0: .*collection: .* 0xfb1c$"):
        add_polls(data, "m")


def test_a_module_without_code_stays_as_it_is() -> None:
    """There is nothing to poll."""
    data = assembled('(module (memory (export "memory") 1))')

    assert add_polls(data, "m") == data
