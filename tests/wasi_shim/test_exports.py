"""What the compiled shim exports and imports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import wasmtime

import wasi_shim
from tests.wasi_shim.calls import SIGNATURES

UNSTABLE = ("fd_filestat_get", "fd_seek", "path_filestat_get", "poll_oneoff")
LETTERS = {"i32": "i", "i64": "I"}


@pytest.fixture(scope="module")
def shim() -> wasmtime.Module:
    """Compile the shim alone."""
    return wasmtime.Module.from_file(wasmtime.Engine(), wasi_shim.abi.path())


def kinds(types: list[wasmtime.ValType]) -> str:
    """Spell parameter types as `SIGNATURES` does."""
    return "".join(LETTERS[str(kind)] for kind in types)


def test_all_functions_have_preview1s_types(shim: wasmtime.Module) -> None:
    """All 46 functions are there, typed as witx lowers them, and the old edition's four."""
    expected = SIGNATURES | {f"unstable_{name}": SIGNATURES[name] for name in UNSTABLE}
    found = {
        item.name: item.type
        for item in shim.exports
        if isinstance(item.type, wasmtime.FuncType) and not item.name.startswith("wasi_")
    }

    assert expected == {name: kinds(functype.params) for name, functype in found.items()}
    assert {"proc_exit"} == {name for name, functype in found.items() if not functype.results}
    assert {"i"} == {kinds(functype.results) for functype in found.values() if functype.results}


def test_the_table_has_the_specifications_order() -> None:
    """exports.h declares preview1's functions, all of them, in the order of its witx file."""
    header = (Path(wasi_shim.__file__).parent / "src" / "exports.h").read_text()
    names = re.findall(r"^(?:_Noreturn )?EXPORT\([^,]*, (\w+),", header, re.MULTILINE)

    assert names[: len(SIGNATURES)] == list(SIGNATURES)
    assert names[len(SIGNATURES) :][: len(UNSTABLE)] == [f"unstable_{name}" for name in UNSTABLE]


def test_only_the_contract_is_imported(shim: wasmtime.Module) -> None:
    """Whatever the shim imports is declared in wali.h, and nothing brings its own memory."""
    header = (Path(wasi_shim.__file__).parent / "src" / "wali.h").read_text()

    for item in shim.imports:
        assert f'IMPORT("{item.module}", "{item.name}")' in header
        assert isinstance(item.type, wasmtime.FuncType)


def test_memory_starts_small(shim: wasmtime.Module) -> None:
    """Thousands of guests have a shim each: stack and data share two pages at most."""
    (memory,) = (item.type for item in shim.exports if isinstance(item.type, wasmtime.MemoryType))

    assert memory.limits.min <= 2
