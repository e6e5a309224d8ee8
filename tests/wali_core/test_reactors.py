"""Modules that run code before they are called: start functions, and the reactors' _initialize."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

from wali_core import Guest, GuestExit, GuestTrap, ModuleError, Runtime, UseError, run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.oldest

WASI = "wasi_snapshot_preview1"

# A program whose functions write one letter each, by way of an iovec that lies in its data.
WRITER = f"""
  (import "{WASI}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\\20\\00\\00\\00\\01\\00\\00\\00")
  (global $errno (export "errno") (mut i32) (i32.const -1))
  (func (export "errno of the last") (result i32) (global.get $errno))
  (func $put (param $letter i32)
    (i32.store8 (i32.const 32) (local.get $letter))
    (global.set $errno
      (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16))))
  (func $start (call $put (i32.const 83)))
  (func $initialize (call $put (i32.const 73)))
  (func $main (call $put (i32.const 77)))
  (func (export "more") (call $put (i32.const 43)))
"""
INITIALIZE = '(export "_initialize" (func $initialize))'
COMMAND = '(export "_start" (func $main))'


class Output:
    """A pipe for a guest to write to."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    def text(self) -> str:
        """What has been written since the last time."""
        try:
            return os.read(self._read_end, 1000).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        """Close both ends."""
        os.close(self._read_end)
        os.close(self.write_end)


@pytest.fixture
def output() -> Iterator[Output]:
    """Return a pipe."""
    made = Output()
    yield made
    made.close()


@pytest.fixture
def make(
    runtime: Runtime, guest_from_wat: Callable[..., Path], output: Output
) -> Callable[..., Guest]:
    """Return a function that makes a guest of the writer and more fields."""

    def make_guest(fields: str) -> Guest:
        path = guest_from_wat(f"(module {WRITER} {fields})")
        return runtime.instantiate(path, stdio=(-1, output.write_end, -1))

    return make_guest


# --- start functions ------------------------------------------------------------------------------


def test_a_start_function_makes_calls(make: Callable[..., Guest], output: Output) -> None:
    """What a start function writes, from the module's data, arrives before instantiate returns."""
    guest = make("(start $start)")

    assert output.text() == "S"
    assert guest.call("errno of the last") == 0
    guest.call("more")
    assert output.text() == "+"


def test_a_start_function_sees_data_and_tables(make: Callable[..., Guest], output: Output) -> None:
    """A start function may depend on data, elements and globals of its module."""
    make("""
      (table 1 funcref) (elem (i32.const 0) $chosen)
      (data (i32.const 100) "D")
      (func $chosen (call $put (i32.load8_u (i32.const 100))))
      (func $early (call_indirect (i32.const 0)))
      (start $early)""")

    assert output.text() == "D"


def test_start_comes_before_initialize(make: Callable[..., Guest], output: Output) -> None:
    """A reactor's start function runs first, then its _initialize, each once."""
    guest = make(f"(start $start) {INITIALIZE}")

    assert output.text() == "SI"
    guest.call("more")
    assert output.text() == "+"


def test_an_imported_function_is_the_start_function(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A start function need not be the module's own."""
    module = guest_from_wat(f"""
      (module (import "{WASI}" "sched_yield" (func $yield (result i32)))
        (func $nothing) (start $nothing) (memory (export "memory") 1))""")

    assert runtime.instantiate(module).memory.size == 65536


def test_start_functions_run_without_wasi(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A module that imports nothing has its start function run as well."""
    guest = runtime.instantiate(
        guest_from_wat("""
          (module (global $n (mut i32) (i32.const 1))
            (func $start (global.set $n (i32.const 2))) (start $start)
            (func (export "n") (result i32) (global.get $n)))""")
    )

    assert guest.call("n") == 2


def test_a_trap_in_the_start_function_is_one(make: Callable[..., Guest]) -> None:
    """A start function that traps leaves no guest, and its own name in the frames."""
    with pytest.raises(GuestTrap, match="unreachable") as caught:
        make("(func $doomed (unreachable)) (start $doomed)")

    assert "doomed" in caught.value.frames[0]


def test_exit_in_the_start_function_ends_a_program(
    make: Callable[..., Guest], guest_from_wat: Callable[..., Path]
) -> None:
    """A program may exit in its start function: that is its status, and _start does not run."""
    fields = "(func $early (call $put (i32.const 69)) (call $exit (i32.const 7))) (start $early)"
    with pytest.raises(GuestExit) as caught:
        make(fields)
    assert caught.value.status == 7

    result = run_sync(
        guest_from_wat(f"(module {WRITER} {fields} {COMMAND})"), capture_output=True, cache=False
    )

    assert (result.returncode, result.stdout) == (7, b"E")


def test_a_program_with_a_start_function(guest_from_wat: Callable[..., Path]) -> None:
    """The start function of a program runs before _start."""
    module = guest_from_wat(f"(module {WRITER} (start $start) {COMMAND})")

    assert run_sync(module, capture_output=True, cache=False).stdout == b"SM"


def test_the_function_behind_the_start_section_is_not_for_callers(
    make: Callable[..., Guest],
) -> None:
    """The name under which the start function is reached is not one of the guest's."""
    guest = make("(start $start)")

    with pytest.raises(ModuleError, match="exports no function '__wali_start'"):
        guest.call("__wali_start")


@pytest.mark.parametrize("start", ["", "(start $start)"])
def test_the_name_is_reserved(start: str, make: Callable[..., Guest]) -> None:
    """A module that exports something by the reserved name is refused."""
    with pytest.raises(ModuleError, match="__wali_start, a name that is not for modules"):
        make(f'(func (export "__wali_start") (param i32)) {start}')


def test_prepared_modules_are_cached(
    guest_from_wat: Callable[..., Path], output: Output, tmp_path: Path
) -> None:
    """A module that comes from the cache has its start function run like a new one."""
    module = guest_from_wat(f"(module {WRITER} (start $start))")
    compiled: list[int] = []

    for _ in range(2):
        with Runtime(
            cache=tmp_path / "cache", on_compile=lambda _, size: compiled.append(size)
        ) as runtime:
            runtime.instantiate(module, stdio=(-1, output.write_end, -1)).close()
            assert output.text() == "S"

    assert len(compiled) == 2  # the module and the shim, once each


# --- reactors -------------------------------------------------------------------------------------


def test_initialize_is_called(make: Callable[..., Guest], output: Output) -> None:
    """A reactor's _initialize is called when the guest is made, and can use WASI."""
    guest = make(INITIALIZE)

    assert output.text() == "I"
    assert guest.call("errno of the last") == 0


def test_initialize_is_called_once(make: Callable[..., Guest], output: Output) -> None:
    """Nobody can call _initialize again: a reactor may rely on that."""
    guest = make(INITIALIZE)

    with pytest.raises(UseError, match="_initialize was called when the guest was made"):
        guest.call("_initialize")
    assert output.text() == "I"


def test_libraries_need_no_initialize(make: Callable[..., Guest], output: Output) -> None:
    """A library without _initialize is one all the same."""
    make("").call("more")

    assert output.text() == "+"


def test_commands_are_not_started(make: Callable[..., Guest], output: Output) -> None:
    """A command's _start is left to whoever made the guest."""
    guest = make(COMMAND)
    assert output.text() == ""

    guest.call("_start")

    assert output.text() == "M"


@pytest.mark.parametrize("start", ["", "(start $start)"])
def test_no_module_is_both(start: str, make: Callable[..., Guest], output: Output) -> None:
    """A module that is a command and a reactor is refused before any of it has run."""
    with pytest.raises(ModuleError, match=r"both _start and _initialize: .* not both"):
        make(f"{COMMAND} {INITIALIZE} {start}")

    assert output.text() == ""


@pytest.mark.parametrize("type_", ["(param i32)", "(result i32)"])
def test_initialize_takes_and_gives_nothing(
    type_: str, runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """An _initialize of another type is an error of the module's."""
    with pytest.raises(ModuleError, match="_initialize takes or gives values"):
        runtime.instantiate(
            guest_from_wat(f'(module (func (export "_initialize") {type_} (unreachable)))')
        )


def test_an_initialize_that_is_no_function_is_nothing(
    runtime: Runtime, guest_from_wat: Callable[..., Path]
) -> None:
    """A memory may have any name."""
    runtime.instantiate(guest_from_wat('(module (memory (export "_initialize") 1))')).close()


def test_what_initialize_raises_ends_the_guest(make: Callable[..., Guest]) -> None:
    """A trap or an exit in _initialize is what instantiate raises."""
    with pytest.raises(GuestTrap, match="unreachable"):
        make('(func (export "_initialize") (unreachable))')
    with pytest.raises(GuestExit) as caught:
        make('(func (export "_initialize") (call $exit (i32.const 3)))')
    assert caught.value.status == 3


def test_a_program_is_no_reactor(guest_from_wat: Callable[..., Path]) -> None:
    """A reactor cannot be run as a program."""
    module = guest_from_wat(f"(module {WRITER} {INITIALIZE})")

    with pytest.raises(ModuleError, match="no _start without parameters"):
        run_sync(module, cache=False)


def test_types_of_functions(make: Callable[..., Guest]) -> None:
    """The types of a function are known without calling it."""
    guest = make('(func (export "f") (param i32 i64 f32 f64 v128) (result i64 i32) (unreachable))')

    assert guest.types("f") == ("iIfF?", "Ii")
    assert guest.types("more") == ("", "")
    with pytest.raises(ModuleError, match="exports no function 'nothing'"):
        guest.types("nothing")


def test_the_oracle_agrees(guest_from_wat: Callable[..., Path], tmp_path: Path) -> None:
    """Wasmtime's own WASI writes the same for a start function and a reactor."""
    module = guest_from_wat(f"(module {WRITER} (start $start) {INITIALIZE})")
    store: Any = wasmtime.Store()
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    config = wasmtime.WasiConfig()
    config.stdout_file = str(tmp_path / "out")
    store.set_wasi(config)
    linker.define_module(store, "", wasmtime.Module.from_file(store.engine, str(module)))

    function = linker.get(store, "", "more")
    assert isinstance(function, wasmtime.Func)
    function(store)

    assert (tmp_path / "out").read_text() == "SI+"
