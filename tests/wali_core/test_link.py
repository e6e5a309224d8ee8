"""Tests of wali_core._link: which imports a shim gets, and what a held-back call answers.

The shims here are a few lines each; their exports are what a guest calls.
"""

from __future__ import annotations

import errno
import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import wasmtime

from wali_core import Guest, GuestTrap, ModuleError, Runtime
from wali_core import _abi as abi
from wali_core import _bridge as bridge
from wali_core._link import ShimLink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# What the core asks of every shim.
CONFIGURED = """
  (memory (export "memory") 1)
  (func (export "wasi_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "wasi_configure") (param i32 i32) (result i32) (i32.const 0))
"""

GUEST = """
(module
  (import "wasi_snapshot_preview1" "probe" (func $probe (param i32 i32) (result i64)))
  (memory (export "memory") 1)
  (export "probe" (func $probe)))
"""


class Shim:
    """A shim that serves WASI with whatever it exports."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.modules: Mapping[str, str] = {"wasi_snapshot_preview1": ""}

    def path(self) -> str:
        """Return the path of the module."""
        return str(self._path)

    def configuration(
        self,
        args: Sequence[bytes],
        env: Sequence[bytes],
        preopens: Sequence[tuple[int, bytes, bool]],
        datagrams: Sequence[int] = (),
        *,
        strict: bool,
    ) -> bytes:
        """Return what the shim above reads nothing of."""
        assert not strict
        assert not datagrams
        return b"\0".join([*args, *env, *(name for _, name, _ in preopens)])


def importing(module: str, name: str, kind: str = "(func)") -> bytes:
    """Return a shim's module with one import."""
    text = f'(module (import "{module}" "{name}" {kind}) {CONFIGURED})'
    return bytes(wasmtime.wat2wasm(text))


def linked(runtime: Runtime, data: bytes) -> ShimLink:
    """Link the module as a shim."""
    return ShimLink(runtime.engine.compile(data, "<module>", None))


def refused(runtime: Runtime, data: bytes) -> str:
    """Return the words with which the module is refused as a shim."""
    with pytest.raises(ModuleError) as caught:
        linked(runtime, data)
    assert str(caught.value).startswith("<module>: imports ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what a shim may import -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("env", "SYS_openat2"),
        ("wali", "SYS_execve"),
        ("wali", "SYS_mmap"),
        ("wali", "SYS_open"),
        ("wali", "SYS_no_such_call"),
        ("wali", "openat2"),
        ("wali", ""),
        ("wali", "copy_in"),
        ("wali_guest", "SYS_openat2"),
        ("wali_guest", "SYS_close"),
        ("wali_guest", "copy_in"),
        ("wali_guest", "__proc_exit"),
        ("guest", "SYS_readv"),
        ("guest", "store_u8"),
        ("wasi_snapshot_preview1", "fd_write"),
    ],
)
def test_calls_that_shims_may_not_have_are_refused(
    module: str, name: str, runtime: Runtime
) -> None:
    """A shim links to the calls of its column in the table, and to no others."""
    message = refused(runtime, importing(module, name))

    assert message == f"<module>: imports {module}.{name}, which a shim may not have"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("(memory 1)", "SYS_openat2"),
        ("(global i32)", "SYS_openat2"),
        ("(table 1 funcref)", "SYS_openat2"),
        ("(tag)", "SYS_openat2"),
    ],
)
def test_only_functions_are_offered(kind: str, name: str, runtime: Runtime) -> None:
    """A call's name does not get a shim a memory, a table, a global or a tag."""
    assert refused(runtime, importing("wali", name, kind)).endswith("which a shim may not have")


@pytest.mark.parametrize(
    "kind",
    [
        "(func)",
        "(func (result i64))",
        "(func (param i64) (result i64))",
        "(func (param i32) (result i32))",
        "(func (param i32 i32) (result i64))",
        "(func (param f32) (result i64))",
        "(func (param i32) (result i64 i64))",
        "(func (param v128) (result i64))",
        "(func (param externref) (result i64))",
        "(func (param i32) (result v128))",
    ],
)
def test_other_types_are_refused(kind: str, runtime: Runtime) -> None:
    """An import has the table's type, or the module does not link: it says which that is."""
    message = refused(runtime, importing("wali", "SYS_close", kind))

    assert message == (
        "<module>: imports wali.SYS_close with another type than (i) -> (I) (i: i32, I: i64)"
    )


def test_a_result_may_be_left_out(runtime: Runtime) -> None:
    """What some declare without a result links with and without one."""
    for kind in ("(func (param i32))", "(func (param i32) (result i64))"):
        linked(runtime, importing("wali", "SYS_close", kind)).close()


def test_a_result_needs_room(runtime: Runtime) -> None:
    """A call without arguments has a result: the thunk would write it outside the empty array."""
    message = refused(runtime, importing("wali", "SYS_sched_yield", "(func)"))

    assert "another type than () -> (I)" in message


def test_every_offered_call_links(runtime: Runtime) -> None:
    """All that the table gives to shims can be imported, each with its own thunk."""
    lines, modules = [], {"wali": "capable", "wali_guest": "capable_guest", "guest": "capable"}
    words = {"i": "i32", "I": "i64"}
    thunks = set()
    for (home, name), row in bridge.core.calls.items():
        for module, column in modules.items():
            if (home == "guest") == (module == "guest") and getattr(row, column):
                parameters = " ".join(words[kind] for kind in row.parameters.decode())
                results = "".join(words[kind] for kind in row.result.decode())
                kind = f"(func (param {parameters}) (result {results}))"
                lines.append(f'(import "{module}" "{name}" {kind})')
                thunks.add(getattr(row, column))

    link = linked(runtime, bytes(wasmtime.wat2wasm(f"(module {' '.join(lines)})")))

    assert link.pre
    assert len(thunks) == len(lines) > 40
    link.close()


def test_a_refused_link_holds_nothing(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is refused half-way frees its linker, once."""
    made, freed = [], []
    new, delete = bridge.W["wasmtime_linker_new"], bridge.W["wasmtime_linker_delete"]

    def watched_new(engine: int) -> int:
        made.append(new(engine))
        return int(made[-1])

    def watched_delete(linker: int) -> None:
        freed.append(linker)
        delete(linker)

    monkeypatch.setitem(bridge.W, "wasmtime_linker_new", watched_new)
    monkeypatch.setitem(bridge.W, "wasmtime_linker_delete", watched_delete)
    refused(runtime, importing("wali", "SYS_execve"))
    gc.collect()

    assert len(made) == 1
    assert freed.count(made[0]) == 1


# --- the gate -------------------------------------------------------------------------------------


@pytest.fixture
def probe(
    runtime: Runtime, guest_from_wat: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Guest]:
    """Return a function that makes a guest on a shim, whose `probe` it calls, under a gate."""

    def make(imports: str, body: str, gate: Mapping[str, int] | None = None) -> Guest:
        text = f"""(module {imports} {CONFIGURED}
          (func (export "probe") (param i32 i32) (result i64) {body}))"""
        shim = Shim(guest_from_wat(text, "shim.wasm"))
        monkeypatch.setattr(abi, "shim_for", lambda _: shim)
        monkeypatch.setattr(
            "wali_core._modules.ShimLink", lambda module, **how: ShimLink(module, gate, **how)
        )
        return runtime.instantiate(guest_from_wat(GUEST))

    return make


CLOSE = '(import "wali" "SYS_close" (func $close (param i32) (result i64)))'
CALL_CLOSE = "(call $close (local.get 0))"


def link_of(runtime: Runtime) -> ShimLink:
    """Return the link that the runtime made for its one shim."""
    ((_, link),) = set(runtime._modules._links.values())
    return link


def test_without_a_gate_calls_reach_the_kernel(probe: Callable[..., Guest]) -> None:
    """A call that is not held back is made."""
    guest = probe(CLOSE, CALL_CLOSE)

    assert guest.call("probe", 0, 0) == 0
    assert guest.call("probe", 0, 0) == -errno.EBADF


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EACCES])
def test_held_back_calls_answer_the_errno(
    number: int, probe: Callable[..., Guest], runtime: Runtime
) -> None:
    """A call that the gate holds back answers what was asked for, and is counted."""
    guest = probe(CLOSE, CALL_CLOSE, {"SYS_close": number, "SYS_openat2": 1})

    answers = [guest.call("probe", 0, 0) for _ in range(3)]

    assert answers == [-number] * 3
    denials = link_of(runtime).denials
    assert {name: denial.count for name, denial in denials.items()} == {"SYS_close": 3}


def test_a_gate_holds_for_both_memories(probe: Callable[..., Guest], runtime: Runtime) -> None:
    """A call that is imported for the guest's memory as well is held back there too."""
    kind = "(param i32 i32 i32) (result i64)"
    imports = f"""
      (import "wali" "SYS_getrandom" (func $own {kind}))
      (import "wali_guest" "SYS_getrandom" (func $guest {kind}))"""
    body = """(i64.add (call $own (i32.const 0) (i32.const 1) (i32.const 0))
                       (call $guest (i32.const 0) (i32.const 1) (i32.const 0)))"""
    guest = probe(imports, body, {"SYS_getrandom": errno.EPERM})

    assert guest.call("probe", 0, 0) == -2 * errno.EPERM
    assert link_of(runtime).denials["SYS_getrandom"].count == 2


def test_denials_are_counted_for_all_guests(
    probe: Callable[..., Guest], runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """Guests of one runtime share a link, and so the count."""
    first = probe(CLOSE, CALL_CLOSE, {"SYS_close": errno.EPERM})
    second = runtime.instantiate(guest_from_wat(GUEST))

    first.call("probe", 0, 0)
    second.call("probe", 0, 0)

    assert link_of(runtime).denials["SYS_close"].count == 2


def test_a_guest_keeps_its_link(probe: Callable[..., Guest], runtime: Runtime) -> None:
    """A guest outlives its runtime, and what its denials count into."""
    guest = probe(CLOSE, CALL_CLOSE, {"SYS_close": errno.EPERM})
    denial = link_of(runtime).denials["SYS_close"]
    there = weakref.ref(link_of(runtime))
    runtime.close()
    gc.collect()

    guest.call("probe", 0, 0)

    assert there() is not None
    assert denial.count == 1
    del guest
    gc.collect()
    assert there() is None


# --- a shim's side of the bargain -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a shim must export its memory"),
        ('(memory (export "memory") 1)', "does not export wasi_allocate"),
        ('(table (export "memory") 1 funcref)', "a shim must export its memory"),
        (CONFIGURED.replace("(param i32) (result i32) (i32.const 1024)", ""), "as it must"),
        (CONFIGURED.replace("(param i32 i32) (result i32) (i32.const 0)", ""), "as it must"),
        (CONFIGURED.replace("(i32.const 0)", "(i32.const 22)"), "refused its configuration"),
    ],
)
def test_a_shim_that_is_none_is_refused(
    text: str,
    message: str,
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shim without its exports, or that refuses its configuration, is an error in words."""
    shim = Shim(guest_from_wat(f"(module {text})", "shim.wasm"))
    monkeypatch.setattr(abi, "shim_for", lambda _: shim)

    with pytest.raises(ModuleError, match=message):
        runtime.instantiate(guest_from_wat(GUEST))


@pytest.mark.parametrize("answer", [0, 65536, -1])
def test_a_configuration_that_does_not_fit_is_refused(
    answer: int,
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shim that has no room for its configuration, or points outside its memory, gets none."""
    text = CONFIGURED.replace("(i32.const 1024)", f"(i32.const {answer})")
    shim = Shim(guest_from_wat(f"(module {text})", "shim.wasm"))
    monkeypatch.setattr(abi, "shim_for", lambda _: shim)

    with pytest.raises(ModuleError, match="no memory for"):
        runtime.instantiate(guest_from_wat(GUEST))


@pytest.mark.parametrize(
    ("room", "message"),
    [
        ('(global (export "wasi_room") i32 (i32.const 65536))', "no memory for"),
        ('(global (export "wasi_room") i32 (i32.const -1))', "no memory for"),
        ('(global (export "wasi_room") i32 (i32.const 0))', "no memory for"),
        ('(global (export "wasi_room") i64 (i64.const 1024))', "a constant of the type i32"),
        ('(func (export "wasi_room"))', "a constant of the type i32"),
    ],
)
def test_room_that_is_none_is_refused(
    room: str,
    message: str,
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shim that says it keeps room for a configuration where it has no memory gets none."""
    shim = Shim(guest_from_wat(f"(module {CONFIGURED} {room})", "shim.wasm"))
    monkeypatch.setattr(abi, "shim_for", lambda _: shim)

    for _ in range(2):
        with pytest.raises(ModuleError, match=message):
            runtime.instantiate(guest_from_wat(GUEST))


@pytest.mark.parametrize(("size", "expected"), [(1024, 2048), (1025, 1024)])
def test_what_fits_into_the_room_needs_no_memory(
    size: int,
    expected: int,
    runtime: Runtime,
    guest_from_wat: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shim is asked for memory only where its room is too small."""
    configured = CONFIGURED.replace("(i32.const 0))", "(global.set 0 (local.get 0)) (i32.const 0))")
    text = f"""
      (global (mut i32) (i32.const 0))
      (global (export "wasi_room") i32 (i32.const 2048))
      {configured}
      (func (export "probe") (param i32 i32) (result i64) (i64.extend_i32_u (global.get 0)))"""
    shim = Shim(guest_from_wat(f"(module {text})", "shim.wasm"))
    monkeypatch.setattr(shim, "configuration", lambda *_, strict: bytes(size))  # noqa: ARG005
    monkeypatch.setattr(abi, "shim_for", lambda _: shim)

    for _ in range(2):
        with runtime.instantiate(guest_from_wat(GUEST)) as guest:
            assert guest.call("probe", 0, 0) == expected


def test_a_trap_in_a_shim_is_the_guests_trap(probe: Callable[..., Guest]) -> None:
    """A shim that traps ends the call, with the shim's function among the frames."""
    guest = probe("", "unreachable")

    with pytest.raises(GuestTrap, match="unreachable"):
        guest.call("probe", 0, 0)
