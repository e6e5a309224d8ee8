"""Tests of wali_core.rewriting._prepare.

The oracle is wasmtime: what it accepts before it must accept after, with the same meaning, and what
it refuses it must go on to refuse.  Upstream's binaries are not ours to ship, so the tests on them
run where `WALI_UPSTREAM` names a checkout of WALI:

    WALI_UPSTREAM=../WALI python -m pytest tests/wali_core/test_prepare.py
"""

from __future__ import annotations

import contextlib
import os
import time
import tracemalloc
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime
from hypothesis import example, given
from hypothesis import strategies as st

from wali_core import ModuleError
from wali_core._abi import START_EXPORT
from wali_core.rewriting import _prepare as prep

if TYPE_CHECKING:
    from collections.abc import Iterable

VARIABLE = "WALI_UPSTREAM"

# All that a WALI binary has: its own shared memory that a start function fills, a hidden table.
WALI = """
(module $program
  (@custom "first" (before first) "\\00\\ff")
  (import "wali" "SYS_getpid" (func $getpid (result i64)))
  (import "env" "base" (global $base i32))
  (table $table 3 funcref)
  (memory $memory 2 32768 shared)
  (global $stack (mut i32) (i32.add (i32.const 65536) (i32.const -16)))
  (export "memory" (memory $memory))
  (export "run" (func $run))
  (start $init)
  (elem (i32.const 1) $run $add)
  (func $init
    (if (i32.eqz (i32.atomic.rmw.cmpxchg (i32.const 0) (i32.const 0) (i32.const 1)))
      (then (memory.init $text (i32.const 8) (i32.const 0) (i32.const 5)) (data.drop $text))))
  (func $run (param $a i32) (result i64)
    (i64.add
      (call $getpid)
      (i64.extend_i32_u
        (call_indirect (param i32) (result i32) (local.get $a) (i32.const 2)))))
  (func $add (param i32) (result i32) (i32.add (local.get 0) (i32.load8_u (i32.const 8))))
  (data $text "hello")
  (@custom "between" (after data) "kept as it is"))
"""
PLAIN = """
(module (func $main (export "main") (result i32) (memory.size))
  (memory (export "memory") 1) (data (i32.const 4) "x"))
"""
IMPORTED = """
(module (import "wali" "other" (func (param i32 f64) (result f32)))
  (import "env" "shared" (memory 1 4 shared))
  (import "env" "calls" (table 1 funcref))
  (func (export "f") (result i32) (i32.atomic.load (i32.const 0))))
"""
NEITHER = '(module (func (export "main") (result i32) (i32.const 1)))'
ONLY_TABLE = '(module (@custom "dylink.0" (before first) "x") (table $calls 1 funcref))'
ONLY_MEMORY = '(module (@custom "dylink.0" (before first) "x") (memory $heap 1))'
CALLED = """
(module (table 3 funcref) (elem (i32.const 1) $one $two)
  (global $first (export "first") (mut i32) (i32.const 0))
  (global $second (export "second") (mut i32) (i32.const 0))
  (func $one (param i32) (global.set $first (local.get 0)))
  (func $two (param i32 i32)
    (global.set $first (local.get 0)) (global.set $second (local.get 1))))
"""
SEEDS = [WALI, PLAIN, IMPORTED, NEITHER, ONLY_TABLE, ONLY_MEMORY, "(module)"]


@cache
def assemble(text: str) -> bytes:
    """Return a module from its text."""
    return bytes(wasmtime.wat2wasm(text))


@cache
def engine() -> wasmtime.Engine:
    """Return an engine that knows shared memories."""
    config = wasmtime.Config()
    config.wasm_threads = True
    config.shared_memory = True
    return wasmtime.Engine(config)


def valid(data: bytes) -> bool:
    """Return whether wasmtime would compile a module."""
    try:
        wasmtime.Module.validate(engine(), data)
    except wasmtime.WasmtimeError:
        return False
    return True


def prepare(data: bytes, *, unshare: bool = False) -> prep.Prepared:
    """Prepare a module that has no name."""
    return prep.prepare(data, "guest.wasm", unshare=unshare)


def limits(memory: prep.MemoryLimits | None) -> tuple[int, int | None, bool]:
    """Return minimum, maximum and whether it is shared."""
    assert memory
    return memory.minimum, memory.maximum, memory.shared


# --- a second opinion on the format ---------------------------------------------------------------


def read_number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number in LEB128, and where it ends."""
    end = next(i for i in range(at, len(data)) if data[i] < 0x80) + 1
    return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(data[at:end])), end


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Return each section of a valid module: its id, and all of it with its head."""
    found = []
    at = 8
    while at < len(data):
        size, body = read_number(data, at + 1)
        found.append((data[at], data[at : body + size]))
        at = body + size
    return found


def section(identifier: int, body: bytes, *, width: int = 1) -> bytes:
    """Return a section, its size in so many bytes."""
    return bytes([identifier]) + padded(len(body), width) + body


def padded(value: int, width: int) -> bytes:
    """Return a number in LEB128, in more bytes than it needs."""
    most = [value >> 7 * i & 0x7F | 0x80 for i in range(width - 1)]
    return bytes([*most, value >> 7 * (width - 1)])


def module(*sections: bytes) -> bytes:
    """Return a module of these sections."""
    return prep.PREAMBLE + b"".join(sections)


ADDED_TYPES = b"\x60\1\x7f\0\x60\2\x7f\x7f\0\x60\2\x7f\x7f\0\x60\3\x7f\x7f\x7f\0"


def added(types: int = 0, functions: int = 0) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the sections that calls of a table take, behind so many types and functions."""
    exports = b"\x0b__wali_call\0%c\x13__wali_start_thread\0%c" % (functions, functions + 1)
    call = b"\x09\0\x20\1\x20\0\x11%c\0\x0b" % types
    start = b"\x0b\0\x20\1\x20\2\x20\0\x11%c\0\x0b" % (types + 2)
    return (
        section(1, b"\4" + ADDED_TYPES),
        section(3, bytes([2, types + 1, types + 3])),
        section(7, b"\2" + exports),
        section(10, b"\2" + call + start),
    )


ADDED = added()


def describe(kind: object) -> str:
    """Return what wasmtime says of the type of an import or export."""
    if isinstance(kind, wasmtime.FuncType):
        return f"{[str(t) for t in kind.params]} -> {[str(t) for t in kind.results]}"
    if isinstance(kind, wasmtime.MemoryType):
        return f"memory {kind.limits.min} {kind.limits.max} {kind.is_shared}"
    if isinstance(kind, wasmtime.TableType):
        return f"table {kind.element} {kind.limits.min} {kind.limits.max}"
    assert isinstance(kind, wasmtime.GlobalType)
    return f"global {kind.content} {kind.mutable}"


def interface(data: bytes) -> tuple[list[Any], dict[str, str]]:
    """Return what wasmtime finds that a module imports and exports."""
    compiled = wasmtime.Module(engine(), data)
    imports = [(item.module, item.name, describe(item.type)) for item in compiled.imports]
    return imports, {item.name: describe(item.type) for item in compiled.exports}


def check(data: bytes, prepared: prep.Prepared, changed: set[int]) -> None:
    """Assert that a prepared module differs in these sections and in what was asked for only."""
    before, after = split(data), split(prepared.data)
    assert [s for s in before if s[0] not in changed] == [s for s in after if s[0] not in changed]
    assert {s[0] for s in set(before) ^ set(after)} == changed
    imports, exports = interface(data)
    if prep.MEMORY in changed:
        minimum, maximum, shared = limits(prepared.memory)
        imports.append(("wali", "memory", f"memory {minimum} {maximum} {shared}"))
    new_imports, new_exports = interface(prepared.data)
    assert new_imports == imports
    assert exports.items() <= new_exports.items()
    assert new_exports.items() - exports.items() <= CALLS.items()
    assert (new_exports.items() >= CALLS.items()) == prepared.has_table


WITH_TABLE = {prep.TYPE, prep.FUNCTION, prep.EXPORT, prep.CODE}
"""The sections that calls of what is in a table change."""

CALLS = {
    prep.CALL_EXPORT: "['i32', 'i32'] -> []",
    prep.START_THREAD_EXPORT: "['i32', 'i32', 'i32'] -> []",
}

# --- what the passes do ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "memory", "has_table", "changed"),
    [
        (WALI, (2, 32768, True), True, {prep.IMPORT, prep.MEMORY, *WITH_TABLE}),
        (PLAIN, (1, None, False), False, {prep.IMPORT, prep.MEMORY}),
        (IMPORTED, (1, 4, True), True, WITH_TABLE),
        (ONLY_TABLE, None, True, WITH_TABLE),
        (ONLY_MEMORY, (1, None, False), False, {prep.IMPORT, prep.MEMORY}),
        ("(module (memory 0 65536))", (0, 65536, False), False, {prep.IMPORT, prep.MEMORY}),
        ("(module (memory 65536))", (65536, None, False), False, {prep.IMPORT, prep.MEMORY}),
        ("(module (memory 0 0))", (0, 0, False), False, {prep.IMPORT, prep.MEMORY}),
    ],
)
def test_memory_is_imported_and_table_called(
    text: str, memory: tuple[int, int | None, bool] | None, *, has_table: bool, changed: set[int]
) -> None:
    """A memory keeps its type, a table gets its callers, and all other sections their bytes."""
    prepared = prepare(assemble(text))

    check(assemble(text), prepared, changed)
    assert prepared.has_table == has_table
    assert (prepared.memory and limits(prepared.memory)) == memory


@pytest.mark.parametrize("unshare", [False, True])
@pytest.mark.parametrize("text", ["(module)", NEITHER])
def test_what_needs_nothing_is_returned_itself(text: str, *, unshare: bool) -> None:
    """A module that no pass changes is the same object."""
    data = assemble(text)

    assert prepare(data, unshare=unshare).data is data


@pytest.mark.parametrize("kind", ["func (param i32 i32)", "func (param funcref)", "memory 1"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("table", ["", "(table 1 funcref)"])
def test_names_of_what_is_added_are_refused(table: str, name: str, kind: str) -> None:
    """What the host calls without a look at its type is never a module's own."""
    what, _, rest = kind.partition(" ")
    text = f'(module {table} ({what} (export "{name}") {rest}))'

    with pytest.raises(ModuleError, match=f"exports {name}, a name that is not for modules"):
        prepare(assemble(text))


HANDLES = '(import "wali" "SYS_rt_sigaction" (func (param i32 i32 i32 i32) (result i64)))'


@pytest.mark.parametrize(
    ("table", "reached"),
    [
        ("", False),
        ("(table 3 externref)", False),
        ("(table 3 externref) (table 3 funcref) (elem (table 1) (i32.const 0) func $do)", True),
        ("(table 3 funcref) (elem (i32.const 0) $do)", True),
        ("(table 3 (ref null func)) (elem (i32.const 0) $do)", True),
    ],
)
def test_handlers_are_called_in_a_table_of_functions(table: str, *, reached: bool) -> None:
    """Where there is no such table, none of them is found: that is a trap as any other."""
    text = f"""(module {HANDLES} {table} (global $done (mut i32) (i32.const 0))
        (func $do (param i32) (global.set $done (local.get 0)))
        (func (export "done") (result i32) (global.get $done)))"""
    prepared = prepare(assemble(text))
    store = wasmtime.Store(engine())
    compiled = wasmtime.Module(engine(), prepared.data)
    imported: Any = compiled.imports[0].type
    unused = wasmtime.Func(store, imported, lambda *_: 0)
    exports = wasmtime.Instance(store, compiled, [unused]).exports(store)
    call: Any = exports[prep.CALL_EXPORT]
    done: Any = exports["done"]

    if reached:
        call(store, 0, 7)
    else:
        with pytest.raises(wasmtime.Trap, match="undefined element"):
            call(store, 0, 7)

    assert done(store) == (7 if reached else 0)


def test_the_type_of_functions_has_a_long_form() -> None:
    """A table of (ref null func) in two bytes is one of functions as well."""
    short, long = b"\x04\x04\x01\x70\x00\x03", b"\x04\x05\x01\x63\x70\x00\x03"
    data = assemble(f"(module {HANDLES} (table 3 funcref))")
    assert data.count(short) == 1

    prepared = prepare(data.replace(short, long))

    wasmtime.Module.validate(engine(), prepared.data)
    assert prep.Module(prepared.data, "").count(prep.TABLE) == 1


def test_unsharing_a_defined_memory() -> None:
    """The memory is imported as a plain one of the same size."""
    prepared = prepare(assemble(WALI), unshare=True)

    check_imports, _ = interface(prepared.data)
    assert check_imports[-1] == ("wali", "memory", "memory 2 32768 False")
    assert limits(prepared.memory) == (2, 32768, False)


def test_unsharing_an_imported_memory() -> None:
    """Of an import that is there already the type changes, not the name or the place."""
    data = assemble(IMPORTED)

    prepared = prepare(data, unshare=True)

    imports, _ = interface(data)
    imports[1] = ("env", "shared", "memory 1 4 False")
    assert interface(prepared.data)[0] == imports
    assert limits(prepared.memory) == (1, 4, False)


def test_unsharing_is_a_change_of_its_own() -> None:
    """Of a module that needs nothing else, the flag alone changes."""
    shared, plain = (section(2, b"\1\0\0\2" + flags + b"\1\2") for flags in (b"\3", b"\1"))

    assert prepare(module(shared), unshare=True).data == module(plain)


def test_unsharing_leaves_plain_memories() -> None:
    """A memory that is not shared is treated as ever."""
    assert prepare(assemble(PLAIN), unshare=True).data == prepare(assemble(PLAIN)).data


def test_prepared_modules_do_what_they_did() -> None:
    """Start function, passive segment, imports, elements and table work on the imported memory."""
    prepared = prepare(assemble(WALI), unshare=True)
    store = wasmtime.Store(engine())
    getpid = wasmtime.Func(
        store, wasmtime.FuncType([], [wasmtime.ValType.i64()]), lambda: 1_000_000_000_000
    )
    base = wasmtime.Global(
        store, wasmtime.GlobalType(wasmtime.ValType.i32(), mutable=False), wasmtime.Val.i32(0)
    )
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(2, 32768)))
    compiled = wasmtime.Module(engine(), prepared.data)

    exports = wasmtime.Instance(store, compiled, [getpid, base, memory]).exports(store)

    assert memory.read(store, 8, 13) == b"hello"
    run = exports["run"]
    assert isinstance(run, wasmtime.Func)
    assert run(store, 5) == 1_000_000_000_000 + 5 + ord("h")


@pytest.mark.parametrize(
    ("name", "values", "seen", "traps"),
    [
        (prep.CALL_EXPORT, (1, 7), (7, 0), None),
        (prep.START_THREAD_EXPORT, (2, 8, 9), (8, 9), None),
        (prep.CALL_EXPORT, (2, 7), None, "indirect call type mismatch"),
        (prep.START_THREAD_EXPORT, (1, 8, 9), None, "indirect call type mismatch"),
        (prep.CALL_EXPORT, (0, 7), None, "uninitialized element"),
        (prep.CALL_EXPORT, (3, 7), None, "out of bounds"),
        (prep.CALL_EXPORT, (-1, 7), None, "out of bounds"),
    ],
)
def test_what_is_in_the_table_can_be_called(
    name: str, values: tuple[int, ...], seen: tuple[int, int] | None, traps: str | None
) -> None:
    """A function is called by its index, with what follows; any other index is a trap."""
    store = wasmtime.Store(engine())
    compiled = wasmtime.Module(engine(), prepare(assemble(CALLED)).data)
    exports = wasmtime.Instance(store, compiled, []).exports(store)
    call, first, second = exports[name], exports["first"], exports["second"]
    assert isinstance(call, wasmtime.Func)

    with pytest.raises(wasmtime.Trap, match=traps) if traps else contextlib.nullcontext():
        call(store, *values)

    assert isinstance(first, wasmtime.Global)
    assert isinstance(second, wasmtime.Global)
    assert (first.value(store), second.value(store)) == (seen or (0, 0))


def test_start_functions_are_exported_instead() -> None:
    """The start section goes, the function gets a name, and all else keeps its bytes.

    But for the memory, which is shared no more.
    """
    data = assemble(WALI)

    deferred = prep.defer_start(data, "guest.wasm")

    changed = {prep.START, prep.EXPORT, prep.MEMORY}
    before, after = split(data), split(deferred)
    assert [s for s in before if s[0] not in changed] == [s for s in after if s[0] not in changed]
    assert not any(s[0] == prep.START for s in after)
    assert interface(deferred)[1].keys() == {*interface(data)[1], START_EXPORT}


@pytest.mark.parametrize("text", [PLAIN, IMPORTED, NEITHER, "(module)"])
def test_what_has_no_start_function_is_returned_itself(text: str) -> None:
    """A module without a start section is the same object."""
    data = assemble(text)

    assert prep.defer_start(data, "guest.wasm") is data


def test_start_functions_must_be_one_number() -> None:
    """A start section that goes on is refused."""
    with pytest.raises(ModuleError, match="byte 11: 1 more bytes after the start function"):
        prep.defer_start(module(section(prep.START, b"\0\0")), "guest.wasm")


def test_the_start_functions_name_is_reserved() -> None:
    """A module that exports it is refused, whether it has a start function or not."""
    data = assemble('(module (func (export "__wali_start")))')

    with pytest.raises(ModuleError, match="exports __wali_start"):
        prep.defer_start(data, "guest.wasm")


@pytest.mark.parametrize(
    ("text", "pages", "memory"),
    [
        (PLAIN, 16, (16, 16)),
        (PLAIN, 0, (1, 1)),
        ("(module (memory 3 100))", 16, (16, 16)),
        ("(module (memory 30 100))", 16, (30, 30)),
    ],
)
def test_memories_are_fixed(text: str, pages: int, memory: tuple[int, int]) -> None:
    """A memory gets a size that is its first and its last, and no other section changes."""
    data = assemble(text)

    fixed = prep.fix_memory(data, "guest.wasm", pages)

    assert valid(fixed)
    assert limits(prep.Module(fixed, "guest.wasm").memories()[0]) == (*memory, False)
    others = [s for s in split(data) if s[0] != prep.MEMORY]
    assert [s for s in split(fixed) if s[0] != prep.MEMORY] == others


@pytest.mark.parametrize("text", [NEITHER, "(module (memory 1) (memory 1))", IMPORTED])
def test_only_one_memory_can_be_fixed(text: str) -> None:
    """A module must define one memory, no more and no less."""
    with pytest.raises(ModuleError, match=r"\d memories; there must be one"):
        prep.fix_memory(assemble(text), "guest.wasm", 16)


def test_custom_sections_stay_in_their_places() -> None:
    """New sections come after what must be first, and before what must be last."""
    first, last = section(0, b"\x08dylink.0"), section(0, b"\x04name")
    memory, table = section(5, b"\1\0\1"), section(4, b"\1\x70\0\1")
    types, functions, exports, code = ADDED

    imports = section(2, b"\1\x04wali\x06memory\2\0\1")
    assert prepare(module(first, memory, last)).data == module(first, imports, last)
    prepared = prepare(module(first, table, last)).data
    assert prepared == module(first, types, functions, table, exports, code, last)
    prepared = prepare(module(first, table, first, memory, last)).data
    assert prepared == module(first, types, imports, functions, table, exports, code, first, last)


def test_imports_of_every_kind_are_passed_over() -> None:
    """The memory's import comes after functions, tables, globals and tags, which are counted."""
    kinds = (b"\0\0", b"\1\x70\1\1\2", b"\3\x64\x70\1", b"\3\x7f\0", b"\4\0\0")
    entries = b"".join(b"\1e\1n" + kind for kind in kinds)
    types = section(1, b"\1\x60\0\0")

    prepared = prepare(module(types, section(2, b"\5" + entries), section(5, b"\1\0\1")))

    imports = section(2, b"\6" + entries + b"\x04wali\x06memory\2\0\1")
    _, functions, exports, code = added(types=1, functions=1)
    added_types = section(1, b"\5\x60\0\0" + ADDED_TYPES)
    assert prepared.data == module(added_types, imports, functions, exports, code)


def test_empty_vectors_are_none() -> None:
    """Sections without entries are valid, and are no memory and no table."""
    data = module(*(section(identifier, b"\0") for identifier in (1, 2, 3, 4, 5, 6, 7)))
    assert valid(data)

    prepared = prepare(data)

    assert prepared.data is data
    assert prepared.memory is None
    assert not prepared.has_table


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", range(1, 6))
def test_numbers_may_be_longer_than_needed(width: int) -> None:
    """Numbers are understood in up to five bytes, and stay so long in what is not changed."""
    functions = section(1, padded(1, width) + b"\x60\0\0", width=width)
    table = section(4, padded(1, width) + b"\x70\0" + padded(2, width), width=width)
    memory = section(5, padded(1, width) + b"\1" + padded(3, width) + padded(4, width), width=width)
    exports = section(7, padded(1, width) + padded(1, width) + b"m\2" + padded(0, width))
    data = module(functions, table, memory, exports)
    assert valid(data)

    prepared = prepare(data)

    assert limits(prepared.memory) == (3, 4, False)
    check(data, prepared, {prep.IMPORT, prep.MEMORY, *WITH_TABLE})


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (b"\x80" * 10 + b"\0", "byte 12: a number takes more bytes than 64 bits need"),
        (b"\xff" * 9 + b"\2", "byte 12: a number does not fit 64 bits"),
        (b"\xff\xff\xff\xff\x1f", "byte 11: a memory of 8589934591 to None pages"),
        (b"\x81\x80\x04", "byte 11: a memory of 65537 to None pages"),
        (b"\xff", "byte 13: the file or a section of it ends too early"),
        (b"", "byte 12: the file or a section of it ends too early"),
        (b"\1\0", "byte 13: 1 more bytes after the last entry of a section"),
    ],
)
def test_wrong_numbers(number: bytes, what: str) -> None:
    """A number that is too long, too large or cut off is refused, with its place."""
    data = module(section(5, b"\1\0" + number))
    assert not valid(data)

    with pytest.raises(ModuleError, match=rf"^guest\.wasm: {what}$"):
        prepare(data)


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (b"\x80\x80\x80\x80\x80\0", "byte 10: a number takes more bytes than 32 bits need"),
        (b"\xff\xff\xff\xff\x1f", "byte 10: a number does not fit 32 bits"),
    ],
)
def test_wrong_counts(number: bytes, what: str) -> None:
    """A count has 32 bits in five bytes at most."""
    data = module(section(7, number))
    assert not valid(data)

    with pytest.raises(ModuleError, match=rf"^guest\.wasm: {what}$"):
        prepare(data)


def test_limits_are_numbers_of_64_bits() -> None:
    """The sizes of a 32-bit memory may take ten bytes, as the engine has it."""
    data = module(section(5, b"\1\1" + padded(1, 10) + padded(2, 10)))
    assert valid(data)

    prepared = prepare(data)

    assert prepared.data == module(section(2, b"\1\x04wali\x06memory\2\1\1\2"))


@given(st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_numbers_survive(value: int, padding: int) -> None:
    """A number is read as it was written, also where it was written with more bytes than needed."""
    encoded = prep.leb128(value)
    width = min(len(encoded) + padding, 10)
    reader = prep.Reader(padded(value, width), "test")

    assert prep.Reader(encoded, "test").number(64) == value
    assert len(encoded) == max(1, -(-value.bit_length() // 7))
    assert reader.number(64) == value
    assert not reader.left


# --- what is refused ------------------------------------------------------------------------------

MEMORY = section(5, b"\1\0\1")
EXPORT = b"\1\x0b__wali_call"
TABLE = section(4, b"\1\x70\0\1")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "byte 0: not the preamble"),
        (b"\0asm", "byte 0: not the preamble"),
        (b"\0asm\r\0\1\0", "byte 0: not the preamble"),
        (module(b"\5"), "byte 9: the file or a section of it ends too early"),
        (module(b"\5\4\1\0\1"), "byte 10: 4 bytes should follow, but 3 do"),
        (module(MEMORY, MEMORY), "byte 13: a section out of order, with id 5"),
        (module(section(7, b"\0"), MEMORY), "byte 11: a section out of order, with id 5"),
        (module(MEMORY, section(0, b"\0"), MEMORY), "byte 16: a section out of order, with id 5"),
        (module(section(99, b"")), "byte 8: an unknown section, with id 99"),
        (module(section(5, b"\2\0\1\0\1")), "byte 10: 2 memories; a module may have one"),
        (module(section(5, b"\1\4\1")), "byte 11: a 64-bit memory .memory64.: build .* wasm32"),
        (module(section(5, b"\1\2\1")), "byte 11: a shared memory without a maximum"),
        (module(section(5, b"\1\x08\1\0")), "byte 11: unknown flags of limits, 0x08"),
        (module(section(5, b"\1\1\2\1")), "byte 11: a memory of 2 to 1 pages"),
        (module(section(5, b"\1\1\0\x81\x80\4")), "byte 11: a memory of 0 to 65537 pages"),
        (module(section(5, b"\xff\xff\xff\xff\x0f")), "byte 10: 4294967295 entries in 0 bytes"),
        (module(section(2, b"\1\0\0\2\4\1")), "byte 14: a 64-bit memory"),
        (module(section(2, b"\1\0\0\2\0\1"), MEMORY), "byte 18: 2 memories"),
        (module(section(2, b"\2\0\0\2\0\1\0\0\2\0\1")), "byte 10: 2 memories"),
        (module(section(2, b"\1\0\0\5")), "byte 13: an import of unknown kind 0x05"),
        (module(section(2, b"\1\0\x7f")), "byte 13: 127 bytes should follow, but 0 do"),
        (module(section(2, b"\2\0\0\0\0\0\0")), "byte 17: the file or a section of it ends too"),
        (module(section(2, b"\1\0\0\1\x64\xff\xff\xff\xff\xff\0")), "byte 15: .* than 33 bits"),
        (module(section(2, b"\1\0\0\1\x40\0\1")), "byte 14: an unknown value type, 0x40"),
        (module(section(7, b"\1\0\0\0\0")), "byte 14: 1 more bytes after the last entry"),
        (module(TABLE, section(7, EXPORT + b"\0\0")), "byte 16: exports __wali_call, a"),
        (module(TABLE, section(7, EXPORT + b"\1\0")), "byte 16: exports __wali_call, a"),
    ],
)
def test_refusals(data: bytes, what: str) -> None:
    """What cannot be prepared is refused with the module's name, the place and the reason."""
    with pytest.raises(ModuleError, match=f"^guest.wasm: {what}"):
        prepare(data)


def test_number_of_sections_has_a_limit() -> None:
    """A file of nothing but empty sections is refused before it becomes as many objects."""
    empty = section(0, b"\0")

    assert prepare(module(*[empty] * 10_000)).data
    with pytest.raises(ModuleError, match="byte 30008: more than 10000 sections"):
        prepare(module(*[empty] * 10_001))


def test_number_of_entries_has_a_limit() -> None:
    """More entries than wasmtime takes are refused before the first is read."""
    body = prep.leb128(1_000_001) + bytes(1_000_001)

    with pytest.raises(ModuleError, match="1000001 entries, more than wasmtime's 1000000"):
        prepare(module(section(2, body, width=4)))


@pytest.mark.parametrize("claim", [10**3, 10**6, 2**32 - 1])
def test_claimed_sizes_cost_nothing(claim: int) -> None:
    """What a short file says of its own size is not believed: little memory is taken for it."""
    size = prep.leb128(claim)
    files = [module(bytes([identifier]) + size) for identifier in range(14)]
    files += [module(section(identifier, size)) for identifier in (2, 5, 7)]
    files += [module(section(2, b"\1" + size)), module(section(7, b"\1" + size))]
    tracemalloc.start()
    try:
        for data in files:
            with pytest.raises(ModuleError):
                prepare(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# --- any file at all ------------------------------------------------------------------------------


def check_any(data: bytes) -> None:
    """Assert that a file is refused, or prepared into one that is valid if it was.

    What is added may be just what an invalid one lacks: the engine is asked before, too.
    """
    for unshare in (False, True):
        try:
            prepared = prepare(data, unshare=unshare)
        except ModuleError as error:
            assert str(error).startswith("guest.wasm: byte ")  # noqa: PT017
        else:
            assert valid(prepared.data) or not valid(data)
            assert unshare is False or prepared.memory is None or not prepared.memory.shared
    try:
        deferred = prep.defer_start(data, "guest.wasm")
    except ModuleError as error:
        assert str(error).startswith("guest.wasm: byte ")  # noqa: PT017
    else:  # a start function of a wrong type is a fine export: the caller looks at it
        assert valid(deferred) or not valid(data)
    check_decoders(data)


def check_decoders(data: bytes) -> None:
    """Assert that every section of a file is decoded or refused."""
    try:
        decoded = prep.Module(data, "guest.wasm")
    except ModuleError:
        return
    for decode in (
        *(decoded.types, decoded.imports, decoded.functions, decoded.tables),
        *(decoded.memories, decoded.globals, decoded.exports, decoded.start),
    ):
        try:
            decode()
        except ModuleError as error:
            assert str(error).startswith("guest.wasm: byte ")  # noqa: PT017


@pytest.mark.parametrize("text", SEEDS)
def test_cut_off_files(text: str) -> None:
    """A module that ends anywhere is refused, or is prepared as far as it goes."""
    data = assemble(text)

    for end in range(len(data)):
        check_any(data[:end])


EDITS = st.tuples(
    st.sampled_from(["set", "insert", "delete", "flip"]), st.integers(0, 2**16), st.integers(0, 255)
)


def edited(data: bytes, edits: Iterable[tuple[str, int, int]]) -> bytes:
    """Return a file after some accidents."""
    out = bytearray(data)
    for what, where, value in edits:
        at = where % len(out)
        if what == "insert":
            out.insert(at, value)
        elif what == "set":
            out[at] = value
        elif what == "flip":
            out[at] ^= 1 << value % 8
        elif len(out) > 1:
            del out[at]
    return bytes(out)


@given(st.sampled_from(SEEDS), st.lists(EDITS, min_size=1, max_size=4))
def test_damaged_files(text: str, edits: list[tuple[str, int, int]]) -> None:
    """A damaged module is refused, or prepared into one that is as valid as it was."""
    check_any(edited(assemble(text), edits))


SMALL = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 0x0B, 0x40, 0x41, 0x60, 0x70, 0x7F, 0x80, 0xFF])
BODIES = st.lists(SMALL, max_size=12).map(bytes)


@given(st.lists(st.tuples(st.sampled_from([0, *prep._ORDER]), BODIES), max_size=6))
@example([(4, b"\1\x40\0\x70\0\1\xd0\x70\x0b")])
@example([(1, b"\1\x60\0\0"), (13, b"\1\0\0"), (5, b"\1\0\1")])
def test_invented_files(sections: list[tuple[int, bytes]]) -> None:
    """Sections of anything, in their order, are refused, or prepared validly if they were valid."""
    ordered = sorted(sections, key=lambda one: prep._RANK.get(one[0], 0))

    check_any(module(*(section(identifier, body) for identifier, body in ordered)))


@given(st.binary(max_size=64))
def test_random_files(tail: bytes) -> None:
    """Random bytes behind the preamble are refused, or prepared validly if they were valid."""
    check_any(prep.PREAMBLE + tail)


# --- what passes to come will decode --------------------------------------------------------------


def signature(function: prep.FunctionType) -> str:
    """Return a function type as `describe` writes it."""
    names = {b"\x7f": "i32", b"\x7e": "i64", b"\x7d": "f32", b"\x7c": "f64"}
    parameters, results = ([names[t] for t in ts] for ts in (function.parameters, function.results))
    return f"{parameters} -> {results}"


def check_decoded(data: bytes) -> None:
    """Assert that the decoded sections say what wasmtime says."""
    decoded = prep.Module(data, "guest.wasm")
    types, imports = decoded.types(), decoded.imports()
    of_functions = [i.type_index for i in imports if i.type_index is not None]
    of_functions += decoded.functions()
    expected_imports, expected_exports = interface(data)
    assert [(i.module.decode(), i.name.decode()) for i in imports] == [
        item[:2] for item in expected_imports
    ]
    for item, expected in zip(imports, expected_imports, strict=True):
        if item.type_index is not None:
            assert signature(types[item.type_index]) == expected[2]
    exports = {item.name.decode(): item for item in decoded.exports()}
    assert exports.keys() == expected_exports.keys()
    for name, export in exports.items():
        if export.kind == prep.EXTERN_FUNC:
            assert signature(types[of_functions[export.index]]) == expected_exports[name]


@pytest.mark.parametrize("text", SEEDS)
def test_decoded_sections_are_what_wasmtime_sees(text: str) -> None:
    """Imports, exports and the types of functions are decoded as wasmtime decodes them."""
    check_decoded(assemble(text))


def test_globals_are_decoded() -> None:
    """Every kind of constant that initialises a global is passed over to the next one."""
    data = assemble("""(module (import "e" "g" (global $g i64)) (func $f)
        (global i32 (i32.const -1)) (global (mut i64) (i64.const 0x8000000000000000))
        (global f32 (f32.const 1.5)) (global (mut f64) (f64.const 1.5)) (elem declare func $f)
        (global funcref (ref.func $f)) (global externref (ref.null extern))
        (global v128 (v128.const i64x2 11 0)) (global (ref func) (ref.func $f))
        (global i64 (i64.mul (global.get $g) (i64.sub (i64.const 1) (i64.const 2)))))""")
    assert valid(data)

    found = [(one.type, one.mutable) for one in prep.Module(data, "test").globals()]

    assert found == [
        *((b"\x7f", False), (b"\x7e", True), (b"\x7d", False), (b"\x7c", True)),
        *((b"\x70", False), (b"\x6f", False), (b"\x7b", False), (b"\x64\x70", False)),
        (b"\x7e", False),
    ]


def test_tables_are_decoded() -> None:
    """Element types, sizes and initialisers are told apart."""
    data = assemble("""(module (func $f) (table 1 2 funcref) (table 0 externref)
        (table 3 (ref func) (ref.func $f)) (elem declare func $f))""")
    assert valid(data)

    found = prep.Module(data, "test").tables()

    assert [(t.element, t.minimum, t.maximum, t.filled) for t in found] == [
        *((b"\x70", 1, 2, False), (b"\x6f", 0, None, False)),
        (b"\x64\x70", 3, None, True),
    ]


def test_unknown_types_are_refused_only_when_asked_for() -> None:
    """A module with types that we do not decode is prepared, as long as nobody needs them."""
    data = assemble("""(module (type $s (struct (field i32))) (memory 1)
        (global (ref null $s) (struct.new $s (i32.const 1))))""")
    decoded = prep.Module(data, "test")

    assert prepare(data).memory
    with pytest.raises(ModuleError, match=r"test: byte 11: .* garbage collection: type 0x5f"):
        decoded.types()
    with pytest.raises(ModuleError, match="a constant expression with opcode 0xfb"):
        decoded.globals()


def test_entries_are_appended() -> None:
    """Several entries can be added to a section that is there, or that is not."""
    decoded = prep.Module(assemble(WALI), "test")

    decoded.append(prep.GLOBAL, b"\x7e\1\x42\0\x0b", b"\x7f\0\x41\1\x0b")
    decoded.append(prep.TAG, b"\0\0")

    again = prep.Module(decoded.encode(), "test")
    assert [one.type for one in again.globals()] == [b"\x7f", b"\x7e", b"\x7f"]
    assert again.count(prep.TAG) == 1
    ranks = [prep._RANK[one.id] for one in again.sections if one.id]
    assert all(one < other for one, other in pairwise(ranks))


# --- speed, and upstream's binaries ---------------------------------------------------------------


def best(data: bytes) -> float:
    """Return the shortest of several times that it takes to prepare a module."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        prepare(data)
        times.append(time.perf_counter() - start)
    return min(times)


def test_large_code_is_not_looked_at() -> None:
    """Three megabytes of code take milliseconds."""
    body = bytes([0]) + b"\x01" * 1000 + b"\x0b"  # no locals, nop ..., end
    codes = padded(3000, 2) + (padded(len(body), 2) + body) * 3000
    data = module(
        section(1, b"\1\x60\0\0"),
        section(3, padded(3000, 2) + bytes(3000), width=2),
        section(4, b"\1\x70\0\1"),
        section(5, b"\1\0\1"),
        section(10, codes, width=4),
    )
    assert valid(data)

    assert best(data) < 0.02


STACK = "(global $s (mut i32) (i32.const 9))"
PROLOGUE = """(func (local i32)
    (global.set $s (local.tee 0 (i32.sub (global.get $s) (i32.const 16)))))"""


@pytest.mark.parametrize(
    ("text", "stack"),
    [
        (STACK + PROLOGUE, 0),
        (f'(import "m" "g" (global i32)) {STACK} {PROLOGUE}', 1),
        (STACK + "(func (global.set $s (i32.const 3)))", None),
        (STACK, None),
        ("(global i32 (i32.const 9))" + STACK + PROLOGUE, None),
        ("(global (mut i64) (i64.const 9)) (func (drop (global.get 0)))", None),
        ("(func)", None),
    ],
)
def test_the_stack_pointer_is_known_by_how_functions_begin(text: str, stack: int | None) -> None:
    """Below it lie variables that a handler must not write over: see guests/stack.c."""
    module = prep.Module(bytes(wasmtime.wat2wasm(f"(module {text})")), "guest.wasm")

    assert prep._stack_pointer(module) == stack


def upstream() -> list[Any]:
    """Return every binary of upstream as a parameter, or one that is skipped."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        reason = f"set {VARIABLE} to a checkout of WALI with its binaries"
        return [pytest.param(None, id="no-upstream", marks=pytest.mark.skip(reason=reason))]
    found = sorted(Path(folder).glob("examples/precompiled/**/*.wasm"))
    found += sorted(Path(folder).glob("tests/bin/unit/wasm/*.wasm"))
    if not found:
        raise FileNotFoundError(f"{VARIABLE} is {folder}: there are no binaries beneath it")
    return [pytest.param(path, id=path.stem) for path in found]


@pytest.mark.suite
@pytest.mark.parametrize("path", upstream())
def test_upstream_binaries(path: Path) -> None:
    """A binary of upstream still compiles, differs only where it should, and is prepared fast."""
    data = path.read_bytes()
    if not valid(data):
        pytest.skip(f"wasmtime refuses {path} as it is")

    prepared = prepare(data)

    assert limits(prepared.memory)[1:] == (32768, True)
    tables = WITH_TABLE if prepared.has_table else set()
    check(data, prepared, {prep.IMPORT, prep.MEMORY} | tables)
    check_decoded(data)
    assert valid(prepare(data, unshare=True).data)
    assert best(data) < 0.02
