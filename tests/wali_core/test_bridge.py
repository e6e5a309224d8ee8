"""Tests of wali_core._bridge: what we declare of wasmtime is what wasmtime declares of itself.

They run with the oldest wasmtime as well: a symbol can stay while what is behind it changes.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wasmtime import _bindings as theirs
from wasmtime import _ffi as ffi

from wali_core import UnsupportedPlatform, _layout
from wali_core import _bridge as bridge
from wali_core.native import compile as compiler

pytestmark = pytest.mark.oldest

# Ours and theirs; below, fields of theirs that ours name otherwise.
STRUCTS = {
    "wasm_byte_vec_t": (bridge.ByteVec, theirs.wasm_byte_vec_t),
    "wasmtime_func_t": (bridge.Func, theirs.wasmtime_func_t),
    "wasmtime_instance_t": (bridge.Instance, theirs.wasmtime_instance_t),
    "wasmtime_memory_t": (bridge.Memory, theirs.wasmtime_memory_t),
    "the store's part of wasmtime_memory_t": (bridge._MemoryHandle, theirs.wasmtime_memory_anon_0),
    "wasmtime_extern_t": (bridge.Extern, theirs.wasmtime_extern_t),
    "wasmtime_extern_union_t": (bridge.ExternUnion, theirs.wasmtime_extern_union_t),
    "wasmtime_val_raw_t": (bridge.ValRaw, theirs.wasmtime_val_raw_t),
}
NAMES = {"__private": "private", "__private1": "private1", "__private2": "private2"}
NAMES["_anon_1"] = "handle"

POINTERS = (ctypes._Pointer, ctypes.c_void_p, ctypes.c_char_p, ctypes._CFuncPtr)  # type: ignore[attr-defined]

# C's words for what ctypes has classes for; what else the header's functions have are pointers.
C_TYPES = {"size_t": ctypes.c_size_t, "uint64_t": ctypes.c_uint64, "void": None}


class Row(ctypes.Structure):
    """A row of `layout` in layout.c."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("field", ctypes.c_char_p),
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Mitigation: Safe RET", True),
        ("Vulnerable: Safe RET, no microcode", True),
        ("Not affected", False),
        ("Mitigation: SMT disabled", False),
        (None, False),
    ],
)
def test_where_returns_are_mispredicted(tmp_path: Path, text: str | None, *, told: bool) -> None:
    """The kernel says so, where it is new enough to know."""
    if text is not None:
        (tmp_path / "spec_rstack_overflow").write_text(f"{text}\n")

    assert bridge.returns_are_mispredicted(str(tmp_path)) is told


@pytest.fixture(scope="module")
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return what the C compiler makes of the headers."""
    out = tmp_path_factory.mktemp("layout") / "layout.so"
    return ctypes.CDLL(str(compiler.build_baseline(request.path.with_name("layout.c"), out)))


def table_of(library: ctypes.CDLL, name: str, row: type[ctypes.Structure]) -> list[Any]:
    """Return an exported array whose length is exported beside it."""
    count = ctypes.c_uint64.in_dll(library, f"{name}_count").value
    return list((row * count).in_dll(library, name))


def fields(struct: Any, prefix: str = "", start: int = 0) -> dict[str, tuple[int, int]]:
    """Return offset and size of each field, of nested structs too, by its dotted name."""
    found = {}
    for name, kind in struct._fields_:
        place = getattr(struct, name)
        path = prefix + NAMES.get(name, name)
        found[path] = (start + place.offset, ctypes.sizeof(kind))
        if hasattr(kind, "_fields_") and kind._fields_:
            found |= fields(kind, f"{path}.", start + place.offset)
    return found


def normal(kind: Any) -> Any:
    """Return a type for comparison: one pointer is as good as another."""
    return ctypes.c_void_p if isinstance(kind, type) and issubclass(kind, POINTERS) else kind


def c_type(text: str) -> Any:
    """Return the ctypes class of a parameter or result in our C header."""
    return ctypes.c_void_p if "*" in text else C_TYPES[text.split(maxsplit=1)[0]]


# --- structs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_are_those_of_wasmtime(name: str) -> None:
    """A struct has wasmtime's size and alignment, and our fields lie where wasmtime's do."""
    ours, its = STRUCTS[name]

    assert ctypes.sizeof(ours) == ctypes.sizeof(its)
    assert ctypes.alignment(ours) == ctypes.alignment(its)
    assert fields(ours).items() <= fields(its).items()


def test_boxed_values_are_those_of_wasmtime() -> None:
    """A boxed value holds a number where wasmtime looks for it, and is as large."""
    ours: Any = bridge.Val
    its: Any = theirs.wasmtime_val_t

    assert ctypes.sizeof(ours) == ctypes.sizeof(its)
    assert ctypes.alignment(ours) == ctypes.alignment(its)
    assert (ours.kind.offset, ours.kind.size) == (its.kind.offset, its.kind.size)
    assert ours.of.offset == its.of.offset


def test_c_structs_are_those_of_wasmtime(layout: ctypes.CDLL) -> None:
    """Our C header gives wasmtime's structs the sizes and offsets that wasmtime does."""
    structs = {
        "wasmtime_val_raw_t": theirs.wasmtime_val_raw_t,
        "wasmtime_func_t": theirs.wasmtime_func_t,
        "wasmtime_memory_t": theirs.wasmtime_memory_t,
        "wasmtime_val_t": theirs.wasmtime_val_t,
        "wasmtime_async_continuation_t": theirs.wasmtime_async_continuation_t,
        "wasmtime_update_deadline_kind_t": theirs.wasmtime_update_deadline_kind_t,
    }
    seen = set()
    for row in table_of(layout, "layout", Row):
        its = structs.get(row.type.decode())
        if its is None:
            continue
        seen.add(row.type.decode())
        if row.field is None:
            assert row.size == ctypes.sizeof(its), row.type
        else:
            assert (row.offset, row.size) == fields(its)[row.field.decode()], row.field
    assert seen == structs.keys()


def test_python_sees_the_cores_structs(layout: ctypes.CDLL) -> None:
    """What Python reads of the core's own structs lies where the C compiler put it."""
    structs = {
        "struct context": fields(bridge.Context),
        "struct table": fields(bridge.Table),
        "struct call": fields(bridge._Call),
    }
    seen: dict[str, set[str]] = {name: set() for name in structs}
    for row in table_of(layout, "layout", Row):
        name, field = row.type.decode(), (row.field or b"").decode()
        if field in structs.get(name, ()):
            assert structs[name][field] == (row.offset, row.size), field
            seen[name].add(field)
        elif field == "own":  # what follows is not Python's to read
            assert row.offset >= ctypes.sizeof(bridge.Context)
        elif name == "struct call":
            assert row.size == ctypes.sizeof(bridge._Call)
        elif name == "struct wasmtime_api":
            assert row.size == ctypes.sizeof(bridge.core._api)
    assert seen == {name: set(struct) for name, struct in structs.items()}


# --- functions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bridge._WASMTIME)
def test_functions_are_declared_as_wasmtime_does(name: str) -> None:
    """A function takes and returns what wasmtime's own declaration says."""
    result, arguments = bridge._WASMTIME[name]

    its = getattr(theirs, f"_{name}")

    assert [normal(kind) for kind in arguments] == [normal(kind) for kind in its.argtypes]
    assert normal(result) == normal(its.restype)


def test_functions_of_the_core_have_wasmtimes_types() -> None:
    """What the C calls of wasmtime takes and returns what wasmtime's own declaration says."""
    for result, name, arguments in _layout.WASMTIME:
        its = getattr(theirs, f"_wasmtime_{name}")
        assert [c_type(a) for a in arguments.split(",")] == [normal(kind) for kind in its.argtypes]
        assert c_type(result) == normal(its.restype)


def test_callbacks_have_the_signature_that_wasmtime_calls() -> None:
    """Thunks take an environment, a caller, values and their count, and return a trap or NULL."""
    its = theirs.wasmtime_func_unchecked_callback_t

    found = [normal(kind) for kind in its._argtypes_]

    assert found == [*[ctypes.c_void_p] * 3, ctypes.c_size_t]
    assert its._restype_ is ctypes.c_size_t


def test_kinds_are_wasmtimes() -> None:
    """Kinds of externs and values have wasmtime's numbers."""
    kinds = [bridge.EXTERN_FUNC, bridge.EXTERN_GLOBAL, bridge.EXTERN_TABLE, bridge.EXTERN_MEMORY]
    names = ("FUNC", "GLOBAL", "TABLE", "MEMORY")
    values = ("I32", "I64", "F32", "F64")

    assert kinds == [getattr(ffi, f"WASMTIME_EXTERN_{name}").value for name in names]
    assert [getattr(ffi, f"WASM_{name}").value for name in values] == [
        theirs.wasm_valtype_kind(ctypes.cast(number, ctypes.POINTER(theirs.wasm_valtype_t)))
        for _, number in bridge._NUMBERS
    ]


# --- what cannot be used --------------------------------------------------------------------------


def test_missing_symbol_is_named() -> None:
    """A library that lacks a function is refused, with the function's name and what to install."""
    symbols = {"wasmtime_no_such_thing": (None, ())}

    with pytest.raises(UnsupportedPlatform, match=r"here has no wasmtime_no_such_thing: .* 48"):
        bridge._declare(bridge._wasmtime, symbols, "here", bridge._NEEDS_WASMTIME)


def test_missing_core_is_named(tmp_path: Path) -> None:
    """A native core that was not built is named, with the command that builds it."""
    with pytest.raises(UnsupportedPlatform, match=r"native core .*libwali\.so .* pip install \."):
        bridge.Core(str(tmp_path / "libwali.so"))


@pytest.mark.parametrize("lacks", ["wali_take_sent_signals", "wali_own_space", "wali_denied"])
def test_core_of_other_sources_is_named(tmp_path: Path, lacks: str) -> None:
    """One that lacks a function or a datum is to be built again: wasmtime is not what is wrong."""
    whole = Path(bridge.CORE_PATH).read_bytes()
    path = tmp_path / "libwali.so"
    path.write_bytes(whole.replace(lacks.encode(), lacks.upper().encode()))

    with pytest.raises(
        UnsupportedPlatform, match=rf"libwali\.so.* {lacks}: .*make setup"
    ) as caught:
        bridge.Core(str(path))

    assert "wasmtime" not in str(caught.value).replace(lacks, "")


def test_damaged_core_is_named(tmp_path: Path) -> None:
    """A file that is no native core is refused in the same way."""
    path = tmp_path / "libwali.so"
    path.write_bytes(b"\x7fELF, more or less")

    with pytest.raises(UnsupportedPlatform, match=r"libwali\.so does not load"):
        bridge.Core(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("import sys; sys.platform = 'darwin'", "not on darwin"),
        (
            "import os; os.uname = lambda: type('', (), {'machine': 'riscv64'})",
            "not on linux riscv64",
        ),
    ],
)
def test_other_platforms_are_refused(change: str, message: str) -> None:
    """On another system or processor the import itself says what the library needs."""
    code = f"{change}\ntry:\n import wali_core\nexcept ImportError as e: print(type(e), e)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "UnsupportedPlatform" in done.stdout
    assert message in done.stdout


def test_absent_wasmtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wasmtime's package the error says what to install."""
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(UnsupportedPlatform, match="pip install wasmtime"):
        bridge._find_wasmtime()


def test_wasmtime_is_not_imported() -> None:
    """The bridge loads wasmtime's library without running its package."""
    code = "import sys, wali_core._bridge; print('wasmtime' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "plain", "größer", "two\nlines"])
def test_errors_keep_their_text(text: str) -> None:
    """An error's message is what it was made with, whatever it holds."""
    error = theirs.wasmtime_error_new(ctypes.create_string_buffer(text.encode()))

    assert bridge.error_message(ctypes.cast(error, ctypes.c_void_p).value or 0) == text


def test_traps_have_text_and_no_frames_outside_wasm() -> None:
    """A trap that no function caused has its message, and an empty trace."""
    trap = theirs.wasmtime_trap_new(ctypes.create_string_buffer(b"because"), 7)

    pointer = ctypes.cast(trap, ctypes.c_void_p).value

    assert bridge.trap_message(pointer or 0) == ("because", ())
