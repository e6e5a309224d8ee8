"""Tests of wali_core._engine: what is compiled, and what is refused in one clear line."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import weakref
from typing import TYPE_CHECKING

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from wali_core import ModuleError
from wali_core import _bridge as bridge
from wali_core._cache import Cache
from wali_core._engine import Engine, sniff
from wali_core.rewriting._prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

SMALL = """
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "some bytes")
  (func (export "_start") (call $exit (i32.const 7)))
  (func (export "add") (param i64 f32) (result f64 i32) (f64.const 1) (i32.const 2)))
"""
BYTES = bytes(wasmtime.wat2wasm(SMALL))


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Return one engine for all."""
    return Engine(bridge.core)


def compiled(engine: Engine, data: bytes) -> str:
    """Return the words with which the compiler refuses `data`, on one line."""
    with pytest.raises(ModuleError) as caught:
        engine.compile(data, "file.wasm", None)
    message = str(caught.value)
    assert message.startswith("file.wasm: ")
    assert "\n" not in message
    return message.removeprefix("file.wasm: ")


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\0", "not a WebAssembly module"),
        (b"\0as", "not a WebAssembly module"),
        (b"hello\n", "not a WebAssembly module"),
        (b"\xff" * 100, "not a WebAssembly module"),
        (b"#!/bin/sh\n", "a native program, not a WebAssembly module"),
        (b"\x7fELF\2\1\1", "a native program, not a WebAssembly module"),
        (b"(module)", "WebAssembly text; assemble it first"),
        (b"\n  (module (func))", "WebAssembly text; assemble it first"),
        (b"\0asm\r\0\1\0", "a component (WASI preview 2 or later)"),
        (b"\0asm\r\0\1\0more", "build it for wasm32-wasip1"),
        (b"\0asm", "a truncated module, or one of an unknown version"),
        (b"\0asm\1\0\0", "a truncated module, or one of an unknown version"),
        (b"\0asm\2\0\0\0", "a truncated module, or one of an unknown version"),
    ],
)
def test_other_files_are_named_for_what_they_are(data: bytes, message: str, engine: Engine) -> None:
    """What is plainly no core module is refused with its kind, before it is compiled."""
    assert message in compiled(engine, data)


def test_a_real_component_is_recognised(engine: Engine) -> None:
    """A component as tools make it is told from a module."""
    data = bytes(wasmtime.wat2wasm("(component)"))

    assert "a component" in compiled(engine, data)


@pytest.mark.parametrize("length", range(9, len(BYTES)))
def test_truncated_modules_are_refused(length: int, engine: Engine) -> None:
    """A module that ends early is refused, wherever it ends, unless what is left is whole."""
    try:
        wasmtime.Module.validate(wasmtime.Engine(), BYTES[:length])
    except wasmtime.WasmtimeError:
        assert len(compiled(engine, BYTES[:length])) < 300
    else:
        engine.compile(BYTES[:length], "file.wasm", None).close()


@given(data=st.data())
def test_damaged_modules_end_in_an_error_or_a_module(data: st.DataObject) -> None:
    """Whatever the bytes after the header are, the compiler answers, and the process lives."""
    engine = _shared_engine()
    module = bytearray(BYTES)
    for _ in range(data.draw(st.integers(1, 4))):
        module[data.draw(st.integers(8, len(module) - 1))] = data.draw(st.integers(0, 255))

    try:
        engine.compile(bytes(module), "file.wasm", None).close()
    except ModuleError as error:
        assert "\n" not in str(error)  # noqa: PT017 (both ends are right)


@given(data=st.binary(max_size=40))
def test_sniffing_survives_anything(data: bytes) -> None:
    """Any bytes are a module to try, or refused in one line."""
    try:
        sniff(data, "file")
    except ModuleError as error:
        assert "\n" not in str(error)  # noqa: PT017 (both ends are right)
    else:
        assert data.startswith(b"\0asm\1\0\0\0")


def _shared_engine() -> Engine:
    """Return an engine for hypothesis, whose tests outlive function-scoped fixtures."""
    if not _engines:
        _engines.append(Engine(bridge.core))
    return _engines[0]


_engines: list[Engine] = []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(module (func (result i32)))", "type mismatch"),
        ("(module (func (call 9)))", "unknown function"),
        ("(module (memory 70000))", "memory size must be at most"),
    ],
)
def test_invalid_modules_say_what_is_wrong(text: str, message: str, engine: Engine) -> None:
    """A module that does not validate is refused with the innermost cause."""
    data = _assemble_unchecked(text)

    assert message in compiled(engine, data)


def test_preparing_makes_nothing_valid(engine: Engine) -> None:
    """A module that calls the function which preparing will add is as invalid as it was."""
    data = _assemble_unchecked(
        "(module (table 1 funcref) (func (call 1 (i32.const 0) (i32.const 0))))"
    )
    prepared = prepare(data, "file.wasm").data
    engine.compile(prepared, "file.wasm", None).close()

    with pytest.raises(ModuleError, match=r"^file\.wasm: unknown function"):
        engine.compile(data, "file.wasm", None, prepare=lambda _: prepared)


def _assemble_unchecked(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


# --- modules --------------------------------------------------------------------------------------


def test_imports_are_listed_with_their_types(engine: Engine) -> None:
    """A module tells what it imports: module, name, kind and types."""
    text = """(module
      (import "a" "f" (func (param i32 i64 f32 f64) (result i64)))
      (import "b" "g" (global i32))
      (import "b" "r" (func (param externref v128)))
      (import "a" "" (memory 1)))"""

    module = engine.compile(bytes(wasmtime.wat2wasm(text)), "m", None)

    found = [(i.module, i.name, i.kind, i.parameters, i.results) for i in module.imports]
    assert found == [
        ("a", "f", bridge.EXTERN_FUNC, "iIfF", "I"),
        ("b", "g", bridge.EXTERN_GLOBAL, "", ""),
        ("b", "r", bridge.EXTERN_FUNC, "??", ""),
        ("a", "", bridge.EXTERN_MEMORY, "", ""),
    ]
    assert module.import_modules == {"a", "b"}


def test_closed_modules_have_no_imports(engine: Engine) -> None:
    """Closing a module frees it once, however often it is asked for."""
    module = engine.compile(BYTES, "m", None)

    module.close()
    module.close()

    assert module.pointer is None
    assert module.imports == ()


def test_modules_name_their_file(engine: Engine) -> None:
    """A module's representation says where it came from."""
    assert repr(engine.compile(BYTES, "dir/m.wasm", None)) == "<Module dir/m.wasm>"


def test_compilation_is_announced_with_the_size(engine: Engine, tmp_path: Path) -> None:
    """Whoever wants to tell a user is told before a compilation, and not when none is needed."""
    told: list[int] = []
    cache = Cache(str(tmp_path / "cache"))

    engine.compile(BYTES, "m", cache, on_compile=told.append)
    engine.compile(BYTES, "m", cache, on_compile=told.append)

    assert told == [len(BYTES)]


# --- the cache's key ------------------------------------------------------------------------------


def test_keys_tell_modules_apart(engine: Engine) -> None:
    """Another module, even with one byte changed, has another key."""
    assert engine.key(BYTES) == engine.key(bytes(BYTES))
    assert engine.key(BYTES) != engine.key(BYTES[:-1] + b"\0")


@pytest.mark.parametrize(
    ("name", "value"),
    [("_SETTINGS", "other settings"), ("bridge.MACHINE", "other machine")],
)
def test_keys_tell_settings_apart(
    name: str, value: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another setting of the compiler, or another machine, is another key."""
    before = engine.key(BYTES)

    monkeypatch.setattr(f"wali_core._engine.{name}", value)

    assert Engine(bridge.core).key(BYTES) != before


def test_keys_tell_wasmtimes_apart(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another library of wasmtime, in another place or of another time, is another key."""
    before = engine.key(BYTES)
    other = tmp_path / "libwasmtime.so"
    other.write_bytes(b"")
    monkeypatch.setattr("wali_core._engine.bridge.WASMTIME_PATH", str(other))

    key = Engine(bridge.core).key(BYTES)
    other.write_bytes(b"changed")

    assert len({before, key, Engine(bridge.core).key(BYTES)}) == 3


# --- what it holds --------------------------------------------------------------------------------


def test_an_engine_lives_as_long_as_its_modules() -> None:
    """An engine goes with the last module that was compiled by it."""
    engine = Engine(bridge.core)
    module = engine.compile(BYTES, "m", None)
    gone = weakref.ref(engine)

    del engine
    gc.collect()
    assert gone() is module.engine
    assert len(module.imports) == 1

    del module
    gc.collect()
    assert gone() is None


def test_engines_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of wasmtime is deleted when nobody uses ours any more."""
    deleted = []
    delete = bridge.W["wasm_engine_delete"]

    def watched(pointer: int) -> None:
        deleted.append(pointer)
        delete(pointer)

    monkeypatch.setitem(bridge.W, "wasm_engine_delete", watched)
    engine = Engine(bridge.core)
    pointer = engine.pointer

    del engine
    gc.collect()

    assert deleted == [pointer]


def test_a_machine_without_an_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that wasmtime cannot make is an error, not a null pointer."""
    monkeypatch.setitem(bridge.W, "wasm_engine_new_with_config", lambda _: None)

    with pytest.raises(ModuleError, match="could not make an engine"):
        Engine(bridge.core)


def test_code_for_other_processes_is_as_it_was_compiled(engine: Engine) -> None:
    """Whoever has its descriptor, or opens it anew by procfs, can read it and nothing else."""
    fd = engine.compile(BYTES, "file.wasm", None).artefact()
    try:
        with open(f"/proc/self/fd/{fd}", "r+b", buffering=0) as file:
            with pytest.raises(PermissionError):
                file.write(b"x")
            with pytest.raises(PermissionError):
                file.truncate(1)
            with pytest.raises(PermissionError):
                mmap.mmap(file.fileno(), 1)  # to write, and shared
            with pytest.raises(PermissionError):
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, 0)

        assert engine.load_artefact(fd, "file.wasm").is_program
    finally:
        os.close(fd)
