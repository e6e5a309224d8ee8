"""Tests of wali_core._guest: calls, memory, traps and the end of one guest."""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wali_core import (
    Guest,
    GuestExit,
    GuestLimit,
    GuestTimeout,
    GuestTrap,
    ModuleError,
    PolicyError,
    Runtime,
    UseError,
)
from wali_core import _bridge as bridge
from wali_core._plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.oldest

WASI = "wasi_snapshot_preview1"
EXIT = f'(import "{WASI}" "proc_exit" (func $exit (param i32)))'

IDENTITIES = """
(module
  (func (export "i32") (param i32) (result i32) (local.get 0))
  (func (export "i64") (param i64) (result i64) (local.get 0))
  (func (export "f32") (param f32) (result f32) (local.get 0))
  (func (export "f64") (param f64) (result f64) (local.get 0))
  (func (export "none"))
  (func (export "swap") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
    (local.get 3) (local.get 2) (local.get 1) (local.get 0))
  (func (export "many") (result i32 i32 i32) (i32.const 1) (i32.const 2) (i32.const 3))
  (func (export "vector") (param v128))
  (func (export "gives vector") (result v128) (unreachable))
  (func (export "reference") (param externref))
  (global (export "global") i32 (i32.const 1))
  (memory (export "memory") 1 3))
"""


@pytest.fixture
def guest(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> Guest:
    """Return a guest whose functions give back what they are given."""
    return runtime.instantiate(guest_from_wat(IDENTITIES))


@pytest.fixture
def make(runtime: Runtime, guest_from_wat: Callable[..., Path]) -> Callable[..., Guest]:
    """Return a function that makes a guest of the fields of a module."""
    return lambda text, **options: runtime.instantiate(
        guest_from_wat(f"(module {text})"), **options
    )


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "bits"), [("i32", 32), ("i64", 64)])
def test_integers_come_back_signed(name: str, bits: int, guest: Guest) -> None:
    """Integers are taken signed and unsigned, up to the last one, and come back signed."""
    half = 1 << (bits - 1)
    for value in (0, 1, -1, half - 1, -half, half, 2 * half - 1):
        signed = value - 2 * half if value >= half else value
        assert guest.call(name, value) == signed


@pytest.mark.parametrize(("name", "bits"), [("i32", 32), ("i64", 64)])
def test_integers_that_do_not_fit_are_refused(name: str, bits: int, guest: Guest) -> None:
    """An integer beyond its type is an error, not another integer."""
    for value in (1 << bits, -(1 << (bits - 1)) - 1, 1 << 100):
        with pytest.raises(OverflowError, match=f"does not fit {name}"):
            guest.call(name, value)


@given(value=st.floats(width=32))
def test_floats_keep_their_bits(value: float) -> None:
    """A float of either width comes back with every bit, not-a-numbers as such."""
    guest = _shared_guest()
    for name, form in (("f32", "<f"), ("f64", "<d")):
        back = guest.call(name, value)
        if value == value:  # noqa: PLR0124 (not-a-number has many forms)
            assert struct.pack(form, back) == struct.pack(form, value)
        else:
            assert back != back  # noqa: PLR0124


def _shared_guest() -> Guest:
    """Return a guest for hypothesis, whose tests outlive function-scoped fixtures."""
    if not _guests:
        import wasmtime

        _guests.append(Runtime(cache=False).instantiate(bytes(wasmtime.wat2wasm(IDENTITIES))))
    return _guests[0]


_guests: list[Guest] = []


def test_numbers_of_other_kinds_are_converted(guest: Guest) -> None:
    """A float parameter takes integers, and every number takes a truth value."""
    assert guest.call("f64", 2**53) == 2.0**53
    assert guest.call("f32", -1) == -1.0
    assert guest.call("i32", True) == 1


@pytest.mark.parametrize("name", ["i32", "i64", "f32", "f64"])
@pytest.mark.parametrize("value", ["text", None, b"bytes", [1], 1j])
def test_what_is_no_number_is_refused(name: str, value: Any, guest: Guest) -> None:
    """Text and the like is no argument."""
    with pytest.raises(TypeError):
        guest.call(name, value)


@pytest.mark.parametrize("name", ["i32", "i64"])
def test_integers_are_not_made_of_floats(name: str, guest: Guest) -> None:
    """A float is not cut to an integer behind the caller's back."""
    with pytest.raises(TypeError, match=r"1\.0 is not an integer"):
        guest.call(name, 1.0)


def test_results_are_as_many_as_the_function_has(guest: Guest) -> None:
    """No result is None, one is itself, several are a tuple; more than the parameters fit."""
    assert guest.call("none") is None
    assert guest.call("i32", 7) == 7
    assert guest.call("swap", 1, 2, 3.5, 4.25) == (4.25, 3.5, 2, 1)
    assert guest.call("many") == (1, 2, 3)


@pytest.mark.parametrize(("name", "args"), [("none", (1,)), ("i32", ()), ("swap", (1, 2, 3))])
def test_arguments_are_counted(name: str, args: tuple[int, ...], guest: Guest) -> None:
    """Too many and too few arguments are refused, with the number that it takes."""
    with pytest.raises(TypeError, match=r"takes \d arguments, not \d"):
        guest.call(name, *args)


@pytest.mark.parametrize(
    ("name", "args"), [("vector", (1,)), ("reference", (None,)), ("gives vector", ())]
)
def test_vectors_and_references_are_refused(name: str, args: tuple[Any, ...], guest: Guest) -> None:
    """A function whose values cannot be had is not called at all."""
    with pytest.raises(TypeError, match="references or vectors"):
        guest.call(name, *args)


@pytest.mark.parametrize("name", ["nothing", "memory", "global", "", "größe"])
def test_other_exports_are_no_functions(name: str, guest: Guest) -> None:
    """Calling what is not an exported function says so, with its name."""
    assert not guest.exports(name)
    with pytest.raises(ModuleError, match=f"exports no function {name!r}"):
        guest.call(name)


def test_exports_are_known(guest: Guest) -> None:
    """A function that is exported is known before it is called."""
    assert guest.exports("swap")


def test_refused_arguments_leave_the_guest_as_it_was(guest: Guest) -> None:
    """An error of the caller's does not end the guest."""
    with pytest.raises(TypeError):
        guest.call("i32", 1.5)
    assert guest.call("i32", 1) == 1


# --- memory ---------------------------------------------------------------------------------------


def test_memory_is_read_and_written(guest: Guest) -> None:
    """What is written can be read, up to the last byte."""
    memory = guest.memory

    memory.write(0, b"start")
    memory.write(memory.size - 3, b"end")

    assert memory.size == 65536
    assert memory.read(0, 6) == b"start\0"
    assert memory.read(65533, 3) == b"end"
    assert memory.read(65536, 0) == b""


@pytest.mark.parametrize(
    ("address", "size"),
    [(65536, 1), (65535, 2), (0, 65537), (-1, 1), (1 << 32, 1), (0, 1 << 64), (-1, 0), (5, -1)],
)
def test_reads_outside_the_memory_are_refused(address: int, size: int, guest: Guest) -> None:
    """Not a byte before the memory or behind it is read, whatever the sum of the two is."""
    with pytest.raises(IndexError, match="outside the guest's memory of 65536 bytes"):
        guest.memory.read(address, size)


@pytest.mark.parametrize("address", [65536, 65534, -1, 1 << 32, 1 << 64])
def test_writes_outside_the_memory_write_nothing(address: int, guest: Guest) -> None:
    """A write that does not fit is refused whole."""
    with pytest.raises(IndexError):
        guest.memory.write(address, b"abc")
    assert guest.memory.read(0, 65536) == bytes(65536)


@pytest.mark.parametrize("data", ["abc", 3, None, [1, 2], 1.5])
def test_only_bytes_are_written(data: Any, guest: Guest) -> None:
    """Text, numbers and addresses are not what a memory is made of."""
    with pytest.raises(TypeError):
        guest.memory.write(0, data)
    assert guest.memory.read(0, 16) == bytes(16)


def test_any_bytes_are_written(guest: Guest) -> None:
    """What lies in a buffer is written whole, whatever its items are."""
    for data in (bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"abcd").cast("H")):
        guest.memory.write(0, bytes(4))
        guest.memory.write(0, data)  # type: ignore[arg-type]
        assert guest.memory.read(0, 5) == b"abcd\0"


def test_grown_memory_can_be_used(make: Callable[..., Guest]) -> None:
    """A memory object that was had before the guest grew it sees all of it."""
    guest = make("""
      (memory (export "memory") 1)
      (func (export "grow") (result i32) (memory.grow (i32.const 2)))""")
    memory = guest.memory
    memory.write(0, b"kept")

    assert guest.call("grow") == 1

    memory.write(3 * 65536 - 1, b"x")
    assert memory.size == 3 * 65536
    assert memory.read(0, 4) == b"kept"


def test_without_a_memory_there_is_none(make: Callable[..., Guest]) -> None:
    """A module that exports no memory, or something else by that name, says so."""
    for text in ("", '(func (export "memory"))'):
        with pytest.raises(ModuleError, match="exports no memory"):
            _ = make(text).memory


# --- traps ----------------------------------------------------------------------------------------

TRAPS = {
    "unreachable": ("unreachable", "wasm `unreachable` instruction executed"),
    "load": ("(drop (i32.load (i32.const -1)))", "out of bounds memory access"),
    "store": ("(i64.store (i32.const 65529) (i64.const 0))", "out of bounds memory access"),
    "fill": (
        "(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))",
        "out of bounds memory access",
    ),
    "divide": ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer divide by zero"),
    "overflow": (
        "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
        "integer overflow",
    ),
    "convert": (
        "(drop (i32.trunc_f32_s (f32.const nan)))",
        "invalid conversion to integer",
    ),
    "type": ("(call_indirect (param i32) (i32.const 1) (i32.const 0))", "indirect call type mism"),
    "null": ("(call_indirect (i32.const 1))", "uninitialized element"),
    "table": ("(call_indirect (i32.const 9))", "undefined element: out of bounds table access"),
    "stack": ("(call $stack)", "call stack exhausted"),
}

TRAPPING = """
  (memory (export "memory") 1)
  (table 2 funcref)
  (func $other)
  (elem (i32.const 0) $other)
  (func (export "fine") (result i32) (i32.const 1))
""" + "".join(
    f'(func ${name} {body}) (func $outer_{name} (export "{name}") (call ${name}))'
    for name, (body, _) in TRAPS.items()
)


@pytest.mark.parametrize("name", TRAPS)
def test_traps_name_their_cause_and_place(name: str, make: Callable[..., Guest]) -> None:
    """A trap has its cause in one line, and the functions it was in, innermost first."""
    guest = make(TRAPPING)

    with pytest.raises(GuestTrap) as caught:
        guest.call(name)

    assert str(caught.value).startswith(TRAPS[name][1])
    assert "\n" not in str(caught.value)
    assert caught.value.frames[0] == name
    assert caught.value.frames[-1] == (f"outer_{name}" if name != "stack" else "stack")
    assert guest.call("fine") == 1


def test_frames_without_names_have_numbers(make: Callable[..., Guest]) -> None:
    """A function that the module does not name is called by its index."""
    guest = make('(func (export "f") unreachable)')

    with pytest.raises(GuestTrap) as caught:
        guest.call("f")

    assert caught.value.frames == ("function 0",)


def test_a_thousand_traps_leave_the_process_alone(make: Callable[..., Guest]) -> None:
    """Traps of the processor's kind, again and again, are each only the guest's."""
    guest = make(TRAPPING)

    for name in ["load", "divide", "unreachable"] * 300:
        with pytest.raises(GuestTrap):
            guest.call(name)

    assert guest.call("fine") == 1


def test_traps_in_threads_are_their_own(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """Guests that trap in several threads at once do not end each other."""
    module = runtime.load(guest_from_wat(f"(module {TRAPPING})"))
    ends: list[str] = []

    def work() -> None:
        with runtime.instantiate(module) as guest:
            for name in ["load", "stack", "divide"] * 10:
                try:
                    guest.call(name)
                except GuestTrap as trap:
                    ends.append(trap.frames[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ends) == sorted(["load", "stack", "divide"] * 40)


def test_a_thread_too_small_for_a_guest_is_refused(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """In a thread whose stack a guest could overflow there is none; in one just larger, a trap."""
    module = runtime.load(guest_from_wat(f"(module {TRAPPING})"))
    ends: list[str] = []

    def work() -> None:
        try:
            runtime.instantiate(module).call("stack")
        except (UseError, GuestTrap) as error:
            ends.append(str(error))

    least = runtime.engine.stack + (128 << 10)
    before = threading.stack_size()
    for size in (128 << 10, least - 4096, least, 8 << 20):
        threading.stack_size(size)
        thread = threading.Thread(target=work)
        thread.start()
        threading.stack_size(before)
        thread.join()

    assert [end.partition(" of ")[0] for end in ends] == [
        *["this thread's stack"] * 2,
        *["call stack exhausted"] * 2,
    ]


# --- its start ------------------------------------------------------------------------------------


def test_a_start_function_runs_at_once(make: Callable[..., Guest]) -> None:
    """What a module does at its start is done when the guest is there."""
    guest = make("""
      (global $g (mut i32) (i32.const 0))
      (func $start (global.set $g (i32.const 42)))
      (start $start)
      (func (export "get") (result i32) (global.get $g))""")

    assert guest.call("get") == 42


def test_a_trap_at_the_start_is_raised(make: Callable[..., Guest]) -> None:
    """A start function that traps is a trap of the instantiation."""
    with pytest.raises(GuestTrap, match="unreachable") as caught:
        make("(func $begin unreachable) (start $begin)")
    assert caught.value.frames == ("begin",)


def test_an_exit_at_the_start_is_raised(make: Callable[..., Guest]) -> None:
    """A start function that exits leaves no guest, but its status."""
    with pytest.raises(GuestExit) as caught:
        make(f"{EXIT} (func $begin (call $exit (i32.const 3))) (start $begin)")
    assert caught.value.status == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('(import "env" "f" (func))', r"imports env\.f: wali serves only the modules "),
        ('(import "" "" (func))', r"imports \.: wali serves only the modules "),
        ('(import "wali_guest" "SYS_readv" (func))', "wali serves only"),
        ('(import "guest" "copy_in" (func))', "wali serves only"),
        (
            f'(import "wali" "SYS_read" (func)) (import "{WASI}" "fd_read" (func))',
            f"imports both wali and {WASI}: a module may use one of them only",
        ),
        (f'(import "{WASI}" "fd_frobnicate" (func))', r"fd_frobnicate, which does not exist"),
        (f'(import "{WASI}" "wasi_configure" (func))', r"wasi_configure, which does not exist"),
        (f'(import "{WASI}" "wasi_allocate" (func))', r"wasi_allocate, which does not exist"),
        (f'(import "{WASI}" "memory" (memory 1))', r"\.memory, which does not exist"),
        ('(import "wasi_unstable" "wasi_configure" (func))', "which does not exist"),
        (f'(import "{WASI}" "fd_close" (func))', r"imports .*\.fd_close: types incompatible"),
        (
            f'{EXIT} (import "{WASI}" "fd_close" (func (param i64) (result i32)))',
            r"imports .*\.fd_close: types incompatible: expected type",
        ),
        (f'(import "{WASI}" "fd_close" (global i32))', r"fd_close, which does not exist"),
    ],
)
def test_what_cannot_be_imported_is_named(
    text: str, message: str, make: Callable[..., Guest]
) -> None:
    """A module that imports what is not there is refused in one line that names it."""
    with pytest.raises(ModuleError, match=message) as caught:
        make(text)
    assert "\n" not in str(caught.value)


def test_a_module_without_imports_needs_no_shim(
    make: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What imports nothing runs where no interface is installed."""
    monkeypatch.setattr("wali_core._abi.shim_for", None)

    assert make('(func (export "f") (result i32) (i32.const 5))').call("f") == 5


def test_both_names_of_wasi_may_be_mixed(make: Callable[..., Guest]) -> None:
    """A module may use the older and the newer name of WASI: one shim serves both."""
    kind = "(func (param i32) (result i32))"
    guest = make(f"""
      (import "wasi_unstable" "fd_close" (func $old (param i32) (result i32)))
      (import "{WASI}" "fd_close" {kind})
      (memory (export "memory") 1)
      (func (export "f") (result i32) (call $old (i32.const 77)))""")

    assert guest.call("f") == 8  # EBADF


# --- its end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 125, 255, 256, 0x7FFFFFFF, -1])
def test_exit_ends_the_guest_with_its_status(status: int, make: Callable[..., Guest]) -> None:
    """Whatever status a program exits with is what is raised; it cannot be called again."""
    guest = make(f'{EXIT} (memory (export "memory") 1) (export "exit" (func $exit))')

    with pytest.raises(GuestExit, match=f"exited with status {status}") as caught:
        guest.call("exit", status)

    assert caught.value.status == status
    with pytest.raises(UseError, match=f"the guest exited with status {status}"):
        guest.call("exit", 0)
    with pytest.raises(UseError):
        guest.memory.read(0, 1)


def test_closed_guests_cannot_be_used(guest: Guest) -> None:
    """After the end nothing of a guest can be had; closing it again does nothing."""
    memory = guest.memory
    guest.close()
    guest.close()

    for use in (
        lambda: guest.call("none"),
        lambda: guest.exports("none"),
        lambda: guest.memory,
        lambda: memory.size,
        lambda: memory.read(0, 1),
        lambda: memory.write(0, b"x"),
    ):
        with pytest.raises(UseError, match="it was closed"):
            use()


def test_leaving_the_context_closes_the_guest(guest: Guest) -> None:
    """A guest used as a context manager is closed behind it, after an error too."""
    with pytest.raises(ZeroDivisionError), guest:
        _ = 1 / 0
    with pytest.raises(UseError):
        guest.call("none")


def test_other_threads_may_not_use_a_guest(guest: Guest) -> None:
    """A guest belongs to its thread; another one gets an error, and the guest is none the worse."""
    errors: list[BaseException] = []
    memory = guest.memory

    def work() -> None:
        for use in (
            lambda: guest.call("i32", 1),
            lambda: guest.exports("i32"),
            lambda: memory.read(0, 1),
            guest.close,
        ):
            try:
                use()
            except UseError as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert [str(error).partition(";")[0] for error in errors] == [
        "a guest belongs to the thread that made it"
    ] * 4
    assert guest.call("i32", 1) == 1


def test_an_unfinished_end_is_noticed(guest: Guest) -> None:
    """A guest that was interrupted as its call returned cannot be used any more."""
    bridge.core.interrupt(guest._address)

    with pytest.raises(UseError, match="it was interrupted"):
        guest.call("i32", 1)


def test_refused_writes_can_be_asked_for_after_the_end(
    runtime: Runtime, program: Path, tmp_path: Path
) -> None:
    """Whether a write was refused is known after an exit, though the engine's epoch has moved."""
    guest = runtime.instantiate(program, args=["create", "x"], dirs={"/": tmp_path})
    with pytest.raises(GuestExit):
        guest.call("_start")
    runtime.engine.increment_epoch()
    runtime.engine.increment_epoch()

    assert guest.write_refused


# --- limits ---------------------------------------------------------------------------------------

GROWING = """
  (memory (export "memory") 2)
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
"""


def test_memory_grows_up_to_its_limit(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """The limit is the most that a memory grows to; to want more is the guest's end."""
    module = runtime.load(guest_from_wat(f"(module {GROWING})"))
    guest = runtime.start(Plan(module, runtime.grants(memory=5 * 65536 + 1), _nothing()))

    assert guest.call("grow", 3) == 2
    assert guest.memory.size == 5 * 65536
    with pytest.raises(GuestLimit, match="327681 bytes of memory"):
        guest.call("grow", 1)


def _nothing() -> Any:
    from wali_core._stdio import Given

    return Given((-1, -1, -1))


@pytest.mark.parametrize("limit", [0, 1, 2 * 65536 - 1])
def test_a_memory_that_starts_too_large_is_refused(
    limit: int, runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A module that needs more than it may have does not start, and says why."""
    module = runtime.load(guest_from_wat(f"(module {GROWING})"))

    with pytest.raises(
        GuestLimit, match=rf"needs 131072 bytes .* and may have {limit} \(limits\.memory\)"
    ) as caught:
        runtime.start(Plan(module, runtime.grants(memory=limit), _nothing()))
    assert caught.value.limit == "memory"


def test_no_second_memory_escapes_the_limit(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """Where there is a limit a module may have one memory: it would be each one's."""
    module = runtime.load(guest_from_wat("(module (memory 1) (memory 1))"))

    with pytest.raises(ModuleError, match="memory count too high"):
        runtime.start(Plan(module, runtime.grants(memory=1 << 20), _nothing()))


def test_a_limit_beyond_all_memory_is_none(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A limit that no machine has is no error, and no wrapped number."""
    module = runtime.load(guest_from_wat(f"(module {GROWING})"))

    guest = runtime.start(Plan(module, runtime.grants(memory=1 << 70), _nothing()))

    assert guest.call("grow", 10) == 2


def test_a_negative_limit_is_refused(runtime: Runtime) -> None:
    """A limit below nothing is not taken for none."""
    with pytest.raises(PolicyError, match="memory: -1 is negative"):
        runtime.grants(memory=-1)


# --- time -----------------------------------------------------------------------------------------

SPINNING = """
  (func $spin (export "spin") (loop (br 0)))
  (func (export "fine") (result i32) (i32.const 1))
"""


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_a_call_ends_at_its_deadline(timeout: float, make: Callable[..., Guest]) -> None:
    """A call that computes for ever ends in time, and the guest with it."""
    guest = make(SPINNING)

    with pytest.raises(GuestTimeout) as caught:
        guest.call("spin", timeout=timeout)

    assert caught.value.seconds == timeout
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(UseError, match="the guest was stopped after its"):
        guest.call("fine")


@pytest.mark.parametrize("timeout", [1e6, 1e10, 1e300, float("inf")])
def test_deadlines_in_the_far_future_are_none(timeout: float, make: Callable[..., Guest]) -> None:
    """However long a call may take, it is made, and later deadlines are still watched."""
    guest = make(SPINNING)

    assert guest.call("fine", timeout=timeout) == 1
    with pytest.raises(GuestTimeout):
        guest.call("spin", timeout=0.01)


def test_a_deadline_is_of_one_call(make: Callable[..., Guest]) -> None:
    """A call in time leaves no deadline behind for the next."""
    guest = make(SPINNING)

    guest.call("fine", timeout=5.0)

    assert guest._context.deadline > 0
    assert guest.call("fine") == 1
    assert guest._context.deadline == bridge.NO_DEADLINE


def test_the_policys_time_bounds_the_start_and_each_call(
    cache_folder: Path, guest_from_wat: Callable[..., Path], tmp_path: Path
) -> None:
    """A guest's start function and its calls each have the wall time of the policy."""
    policy = tmp_path / "policy.toml"
    policy.write_text('version = 1\n[limits]\nwall_time = "200ms"\n')
    starting = guest_from_wat(f"(module {SPINNING} (start $spin))", "starting.wasm")
    with Runtime(policy=policy, cache=cache_folder) as runtime:
        guest = runtime.instantiate(guest_from_wat(f"(module {SPINNING})"))
        assert guest.call("fine", timeout=10) == 1
        with pytest.raises(GuestTimeout, match=r"after its 0\.2 s"):
            guest.call("spin", timeout=10)

        with pytest.raises(GuestTimeout, match=r"after its 0\.2 s"):
            runtime.instantiate(starting)


# --- what it leaves behind ------------------------------------------------------------------------


def descriptors() -> dict[str, str]:
    """Return what this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def mappings() -> int:
    """Return how many mappings this process has."""
    return Path("/proc/self/maps").read_text().count("\n")


def test_nothing_is_left_of_many_guests(runtime: Runtime, program: Path, tmp_path: Path) -> None:
    """Guests that end in every way leave no descriptor, no thread and no mapping behind."""
    fine = {"dirs": {"/": tmp_path, "/rw": (tmp_path, "rw")}, "stdio": (-1, -1, -1)}
    (tmp_path / "file").write_text("x")

    def one_of_each() -> None:
        for args in (["cat", "file"], ["exit", "3"], ["trap"], ["create", "x"], []):
            guest = runtime.instantiate(program, args=args, **fine)  # type: ignore[arg-type]
            try:
                guest.call("_start")
            except (GuestExit, GuestTrap):
                pass
            guest.close()
        with pytest.raises(PolicyError):
            runtime.instantiate(program, dirs={"/": tmp_path, "/no": tmp_path / "no"})

    for _ in range(3):
        one_of_each()
    gc.collect()
    before = descriptors(), threading.active_count(), len(os.listdir("/proc/self/task"))
    mapped = mappings()

    for _ in range(60):
        one_of_each()
    gc.collect()

    assert (descriptors(), threading.active_count(), len(os.listdir("/proc/self/task"))) == before
    assert mappings() - mapped < 20


def test_collected_guests_are_closed(runtime: Runtime, program: Path, tmp_path: Path) -> None:
    """A guest that nobody closed is closed when it is collected, whichever thread does it."""
    runtime.instantiate(program).close()  # modules hold what they were loaded from
    before = descriptors()
    guests = [runtime.instantiate(program, dirs={"/": tmp_path}) for _ in range(5)]
    assert descriptors() != before

    thread = threading.Thread(target=guests.clear)
    thread.start()
    thread.join()
    gc.collect()

    assert descriptors() == before


def test_an_unused_guest_can_be_collected() -> None:
    """A guest whose making failed at once can be collected without an error."""
    guest = Guest.__new__(Guest)

    guest.__del__()


def test_standard_streams_stay_the_callers(runtime: Runtime, program: Path) -> None:
    """Closing a guest does not close what it was lent."""
    read, write = os.pipe()
    with runtime.instantiate(program, args=["args"], argv0="x", stdio=(-1, write, -1)) as guest:
        guest.call("_start")

    assert os.read(read, 100) == b"x\nargs\n"
    os.write(write, b"still open")
    os.close(read)
    os.close(write)


def test_too_many_directories_are_refused(runtime: Runtime, program: Path, tmp_path: Path) -> None:
    """A guest has room for so many descriptors; one directory more is an error without a leak."""
    runtime.instantiate(program).close()  # modules hold what they were loaded from
    before = descriptors()

    with pytest.raises(UseError, match="at most 1024"):
        runtime.instantiate(program, dirs={f"/{i}": tmp_path for i in range(1022)})

    assert descriptors() == before


def test_the_contexts_bytes_are_the_guests_own(guest: Guest) -> None:
    """The core's context lies in memory that lives as long as the guest."""
    assert ctypes.sizeof(guest._context) == bridge.core.context_size
    assert ctypes.addressof(guest._context) == guest._address
