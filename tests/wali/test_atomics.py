"""WebAssembly's own instructions to wait and to notify, where no C compiler would write them so.

What they do in threads is compared with the native program (``guests/atomics.c``).
"""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING

import pytest
import wasmtime

from tests.wali import building
from wali_core import _bridge as bridge
from wali_core._abi import ATOMICS_EXPORT
from wali_core._passes import prepare_program
from wali_core.programs import _atomics
from wali_core.programs._process_calls import number_of, system_call
from wali_core.rewriting import _prepare as prep

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Wali = Callable[..., subprocess.CompletedProcess[str]]

OK, NOT_EQUAL, TIMED_OUT, GO_ON = range(4)
WAKE = 1

# Each leaves an i32.
TRAPPING = {
    "unaligned": "(memory.atomic.wait32 (i32.const 66) (i32.const 0) (i64.const 0))",
    "unaligned by an offset": "(memory.atomic.notify offset=2 (i32.const 64) (i32.const 1))",
    "four of eight": "(memory.atomic.wait64 (i32.const 68) (i64.const 0) (i64.const 0))",
    "outside": "(memory.atomic.notify (i32.const 0x10000) (i32.const 1))",
    "across the end": "(memory.atomic.wait64 (i32.const 0x10000) (i64.const 0) (i64.const 0))",
    "outside by an offset": """(memory.atomic.wait32 offset=0xfff0
        (i32.const 16) (i32.const 0) (i64.const 0))""",
    "around the end of all addresses": """(memory.atomic.wait32 offset=0xfffffff0
        (i32.const 0x20) (i32.const 0) (i64.const 0))""",
}
GIVING = {
    "not equal": ("(memory.atomic.wait32 (i32.const 64) (i32.const 1) (i64.const -1))", 1),
    "a time-out": ("(memory.atomic.wait32 (i32.const 64) (i32.const 0) (i64.const 1))", 2),
    "the longest but for ever": (
        "(memory.atomic.wait64 (i32.const 64) (i64.const 1) (i64.const 0x7fffffffffffffff))",
        1,
    ),
    "at address 0": ("(memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 1000))", 2),
    "nobody at address 0": ("(memory.atomic.notify (i32.const 0) (i32.const -1))", 0),
    "at an offset": (
        "(memory.atomic.wait32 offset=0x7ffc (i32.const 0x8000) (i32.const 7) (i64.const 0))",
        2,
    ),
}


def program(text: str) -> str:
    """Return a program that exits with what some instructions leave."""
    return f"""(module
      (import "wali" "__proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1 1 shared)
      (data (i32.const 0xfffc) "\\07")
      (func (export "_start") (call $exit {text})))"""


@pytest.fixture
def run(wali: Wali, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Return a function that runs a program from its text."""

    def run(text: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "guest.wasm"
        path.write_bytes(wasmtime.wat2wasm(text))
        return wali(path)

    return run


def trap_of(text: str) -> str:
    """Return what wasmtime says where it executes the instruction itself."""
    config = wasmtime.Config()
    config.wasm_threads = config.shared_memory = True
    engine = wasmtime.Engine(config)
    linker, store = wasmtime.Linker(engine), wasmtime.Store(engine)
    exits = wasmtime.FuncType([wasmtime.ValType.i32()], [])
    linker.define_func("wali", "__proc_exit", exits, lambda _: None)
    module = wasmtime.Module(engine, bytes(wasmtime.wat2wasm(text)))
    start = linker.instantiate(store, module).exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    with pytest.raises(wasmtime.Trap) as caught:
        start(store)
    return caught.value.message.splitlines()[-1].partition(": ")[2]


@pytest.mark.parametrize("what", TRAPPING)
def test_it_traps_where_the_instruction_does(
    what: str, run: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    """And for its reason."""
    text = program(TRAPPING[what])
    expected = trap_of(text)

    done = run(text)

    assert done.returncode == 134
    assert "aligned" in expected or "out of bounds" in expected
    assert expected.removeprefix("wasm trap: ") in done.stderr


@pytest.mark.parametrize("what", GIVING)
def test_it_gives_what_the_instruction_does(
    what: str, run: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    """At every address, with every offset and for any time."""
    text, expected = GIVING[what]

    done = run(program(text))

    assert (done.returncode, done.stderr) == (expected, "")


def test_a_thread_is_woken_at_address_0(
    run: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    """Which is NULL for system calls, and an address for instructions."""
    done = run("""(module
      (import "wali" "__proc_exit" (func $exit (param i32)))
      (import "wali" "__wasm_thread_spawn" (func $spawn (param i32 i32) (result i32)))
      (import "wali" "SYS_sched_yield" (func $yield (result i64)))
      (memory (export "memory") 1 1 shared)
      (table funcref (elem $thread))
      (func $thread (param i32 i32)
        (i32.store (i32.const 64)
          (i32.add (i32.const 10)
            (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))
        (drop (memory.atomic.notify (i32.const 64) (i32.const 1))))
      (func (export "_start")
        (drop (call $spawn (i32.const 0) (i32.const 0)))
        (loop $asleep
          (drop (call $yield))
          (br_if $asleep (i32.eqz (memory.atomic.notify (i32.const 0) (i32.const 1)))))
        (drop (memory.atomic.wait32 (i32.const 64) (i32.const 0) (i64.const -1)))
        (call $exit (i32.load (i32.const 64)))))""")

    assert (done.returncode, done.stderr) == (10, "")


@pytest.fixture(params=["futex_waitv", "before Linux 5.16"])
def word(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ctypes.c_int64:
    """Return what a thread waits on, where the kernel has a call for several, and where not."""
    if request.param != "futex_waitv":
        numbers = {"futex": number_of("futex"), "futex_waitv": 9999}
        monkeypatch.setattr(_atomics, "number_of", numbers.__getitem__)
    return ctypes.c_int64(5 << 32)


def wait(word: ctypes.c_int64, value: int, seconds: float) -> int:
    """Wait for 64 bits to be notified, once; the time that it is over, where that has to go on."""
    context = bridge.core.make_context()
    until = time.monotonic_ns() + int(seconds * 1e9)
    waiting = _atomics._Wait(bridge.core, ctypes.addressof(context), until)
    result = waiting.on(ctypes.addressof(word), 8, value)
    return result if result <= TIMED_OUT else GO_ON


def test_64_bits_are_compared(word: ctypes.c_int64) -> None:
    """As far as the kernel can: what differs in the lower half is seen at once, in any case."""
    assert wait(word, 5 << 32 | 1, 30) == NOT_EQUAL
    assert wait(word, 5 << 32, 0.01) == TIMED_OUT
    assert wait(word, 6 << 32, 30) in (NOT_EQUAL, GO_ON)  # to be looked at again


def test_a_wait_for_64_bits_is_notified(word: ctypes.c_int64) -> None:
    """At the address of the lower half, in whichever slice of time."""
    results: list[int] = []

    def waits() -> None:
        while not results or results[-1] == GO_ON:
            results.append(wait(word, 5 << 32, 30))

    thread = threading.Thread(target=waits)
    thread.start()
    while not system_call("futex", ctypes.addressof(word), WAKE, 1):
        pass
    thread.join(30)

    assert results[-1] == OK


@pytest.mark.parametrize(("name", "has"), [("hello", False), ("threads", False), ("atomics", True)])
def test_only_who_has_these_instructions_pays(name: str, *, has: bool) -> None:
    """What linkers write into every program's start function does not count."""
    data = building.program(name).read_bytes()
    assert b"\xfe\x01" in data

    prepared = prep.Module(prepare_program(data, name), name)

    assert (ATOMICS_EXPORT.encode() in {one.name for one in prepared.exports()}) is has
