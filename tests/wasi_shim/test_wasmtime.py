"""Tests of wasi_shim._wasmtime: WASI in a Linker and a Store that are not ours.

The oracle is wasmtime's own WASI: the same program, the same settings, the same outcome.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

import wasi_shim
from tests.conformance.twins import caller
from tests.held import open_descriptors, settled_descriptors
from wali_core.native import compile as compiler
from wasi_shim import WasiConfig, define_wasi

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.oldest

WASI = "wasi_snapshot_preview1"

# Writes what lies at 64: "(call $put (i32.const FD) (i32.const LENGTH))" gives the errno.
WRITER = f"""
  (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "proc_exit" (func $exit (param i32)))
  (import "{WASI}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory $memory (export "memory") 1)
  (data (i32.const 64) "hello\\n")
  (func $put (export "put") (param $fd i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (local.get $length))
    (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func (export "exit") (param i32) (call $exit (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "time") (param i32) (result i32)
    (call $clock (i32.const 1) (i64.const 0) (local.get 0)))
"""


class Mine(Exception):
    """What only the caller's own code raises."""


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """Share one engine, so that the shim is compiled once."""
    return wasmtime.Engine()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the program of the core's tests, which does what its arguments say."""
    source = Path(__file__).parents[1] / "wali_core" / "guest.c"
    out = tmp_path_factory.mktemp("guests") / "guest.wasm"
    return compiler.compile_guest(source, out, target="wasm32-freestanding").read_bytes()


def assemble(fields: str) -> bytes:
    """Return a module from its fields."""
    return bytes(wasmtime.wat2wasm(f"(module {fields})"))


class Guest:
    """A module in a linker and a store of its own, or in those that are given."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        module: str | bytes,
        config: WasiConfig | None = None,
        linker: wasmtime.Linker | None = None,
        *,
        direct: bool = False,
    ) -> None:
        self.store = wasmtime.Store(engine)
        self.linker = wasmtime.Linker(engine) if linker is None else linker
        wasi = define_wasi(self.linker, self.store, config, direct=direct)
        instance = self.instantiate(module)
        if direct:
            wasi.bind(self.store, instance)
        self.exports: Any = instance.exports(self.store)

    def instantiate(self, module: str | bytes) -> wasmtime.Instance:
        """Another instance, in the same store."""
        data = assemble(module) if isinstance(module, str) else module
        return self.linker.instantiate(self.store, wasmtime.Module(self.store.engine, data))

    def call(self, name: str, *values: int) -> Any:
        """Call an export."""
        return self.exports[name](self.store, *values)


@pytest.fixture
def guest(engine: wasmtime.Engine) -> Callable[..., Guest]:
    """Return a function that makes a guest of the writer."""
    return lambda *rest, fields="", **options: Guest(engine, WRITER + fields, *rest, **options)


@pytest.fixture
def output(tmp_path: Path) -> tuple[WasiConfig, Path]:
    """Return a configuration with a file as stdout, and the file."""
    config = WasiConfig()
    config.stdout_file = str(tmp_path / "out")
    return config, tmp_path / "out"


# --- the same as wasmtime's -----------------------------------------------------------------------


def theirs(engine: wasmtime.Engine, config: Any) -> tuple[wasmtime.Store, wasmtime.Linker]:
    """Return a store and a linker with wasmtime's own WASI."""
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    linker.define_wasi()
    store.set_wasi(config)
    return store, linker


def ours(engine: wasmtime.Engine, config: Any) -> tuple[wasmtime.Store, wasmtime.Linker]:
    """Return a store and a linker with ours."""
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    define_wasi(linker, store, config)
    return store, linker


def outcome(
    make: Any, config: Any, engine: wasmtime.Engine, program: bytes, folder: Path, words: list[str]
) -> tuple[Any, ...]:
    """Run the program with arguments; how it ended, and what it wrote."""
    (folder / "in").write_bytes(b"input\n")
    config.argv = ["me", *words]
    config.env = [("A", "1"), ("B", "x=y"), ("LEER", "")]
    config.stdin_file = folder / "in"
    config.stdout_file = str(folder / "out")
    config.stderr_file = str(folder / "err")
    config.preopen_dir(str(folder / "box"), "/box")
    store, linker = make(engine, config)
    start: Any = linker.instantiate(store, wasmtime.Module(engine, program)).exports(store)
    try:
        start["_start"](store)
    except wasmtime.ExitTrap as end:
        end_of_it: Any = ("exit", end.code)
    except wasmtime.Trap as end:
        end_of_it = ("trap", end.trap_code)
    else:
        end_of_it = "returned"
    names = sorted(os.listdir(folder / "box"))
    return end_of_it, (folder / "out").read_bytes(), (folder / "err").read_bytes(), names


@pytest.mark.parametrize(
    "words",
    [
        ["args", "one", "two words", ""],
        ["env"],
        ["echo"],
        ["preopens"],
        ["cat", "file"],
        ["cat", "missing"],
        ["cat", "../in"],
        ["create", "new"],
        ["both", "1000"],
        ["exit", "0"],
        ["exit", "7"],
        ["trap"],
        [],
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_programs_end_as_with_wasmtimes_own(
    words: list[str], engine: wasmtime.Engine, program: bytes, tmp_path: Path
) -> None:
    """Status, output and files are the same, whoever serves the program."""
    results = []
    for name, make, config in (
        ("theirs", theirs, wasmtime.WasiConfig()),
        ("ours", ours, WasiConfig()),
    ):
        folder = tmp_path / name
        (folder / "box").mkdir(parents=True)
        (folder / "box" / "file").write_text("contents")
        results.append(outcome(make, config, engine, program, folder, words))

    assert results[0] == results[1]


def test_the_names_are_those_of_wasmtime() -> None:
    """Whatever can be said to wasmtime's configuration can be said to ours."""
    names = {name for name in dir(wasmtime.WasiConfig) if not name.startswith("_")}

    assert names - {"ptr"} <= set(dir(WasiConfig())) | {"argv"}


def test_nothing_is_given_unasked(
    engine: wasmtime.Engine, program: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without settings there is no argument, no input, and output goes nowhere."""
    guest = Guest(engine, program)

    with pytest.raises(wasmtime.ExitTrap) as caught:  # for want of an argument
        guest.call("_start")

    assert caught.value.code == 2
    assert capfd.readouterr() == ("", "")


def test_streams_of_the_process_are_inherited() -> None:
    """What is inherited are this process's own streams, arguments and environment."""
    code = (
        "import sys, wasmtime, wasi_shim\n"
        "c = wasi_shim.WasiConfig(); c.inherit_stdin(); c.inherit_stdout(); c.inherit_stderr()\n"
        "c.inherit_argv(); c.inherit_env()\n"
        "e = wasmtime.Engine(); s = wasmtime.Store(e); l = wasmtime.Linker(e)\n"
        "wasi_shim.define_wasi(l, s, c)\n"
        "assert c.argv == sys.orig_argv and ('MARK', 'here') in c.env\n"
        f"m = wasmtime.Module(e, wasmtime.wat2wasm('''(module {WRITER})'''))\n"
        "x = l.instantiate(s, m).exports(s)\n"
        "print(x['put'](s, 1, 6), x['put'](s, 2, 6), x['put'](s, 0, 6), flush=True)\n"
    ).replace("\\n", "\\\\n")

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MARK": "here"},
    )

    assert (done.stdout, done.stderr) == ("hello\n0 0 8\n", "hello\n")


# --- endings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
def test_an_exit_is_wasmtimes_exit_trap(guest: Callable[..., Guest], *, direct: bool) -> None:
    """proc_exit raises wasmtime.ExitTrap with the status, and the guest can be called again."""
    made = guest(direct=direct)

    for status in (0, 7, 255):
        with pytest.raises(wasmtime.ExitTrap, match=f"exit status {status}$") as caught:
            made.call("exit", status)
        assert caught.value.code == status
        assert made.call("put", 1, 6) == 0


def test_traps_are_wasmtimes(guest: Callable[..., Guest]) -> None:
    """A guest's own trap comes through as it is."""
    made = guest(fields='(func (export "trap") (drop (i32.load (i32.const -1))))')

    with pytest.raises(wasmtime.Trap) as caught:
        made.call("trap")
    assert caught.value.trap_code == wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS


def test_fuel_and_epochs_end_calls_in_the_shim_too() -> None:
    """What an engine counts is counted in the shim as well, and its traps come through."""
    config = wasmtime.Config()
    config.consume_fuel = True
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    store.set_fuel(1_000_000)
    linker = wasmtime.Linker(engine)
    define_wasi(linker, store)
    module = wasmtime.Module(engine, assemble(WRITER))
    exports: Any = linker.instantiate(store, module).exports(store)
    assert exports["put"](store, 1, 6) == 0

    ended = []
    for fuel in range(1, 60):
        store.set_fuel(fuel)
        try:
            ended.append(exports["put"](store, 1, 6))
        except wasmtime.Trap as trap:
            ended.append(trap.trap_code)

    # The first few are not even through the guest's own part.
    assert ended.count(wasmtime.TrapCode.OUT_OF_FUEL) > 10
    assert ended == sorted(ended, key=lambda end: end == 0)
    assert set(ended) == {wasmtime.TrapCode.OUT_OF_FUEL, 0}


# --- output to callables --------------------------------------------------------------------------


def test_output_is_given_to_a_callable(guest: Callable[..., Guest]) -> None:
    """What a guest writes is passed on in its own thread, before the call returns."""
    config = WasiConfig()
    seen: list[tuple[int, bytes]] = []
    config.stdout_custom = lambda data: seen.append((1, data))
    config.stderr_custom = lambda data: seen.append((2, data))
    made = guest(config)

    made.call("put", 1, 5)
    assert seen == [(1, b"hello")]
    made.call("put", 2, 6)
    made.call("put", 1, 6)
    assert seen[1:] == [(2, b"hello\n"), (1, b"hello\n")]
    assert made.call("put", 1, 0) == 0
    assert len(seen) == 3


def test_much_output_is_given_at_once(guest: Callable[..., Guest]) -> None:
    """One write of more than a pipe holds arrives whole."""
    config = WasiConfig()
    seen: list[bytes] = []
    config.stdout_custom = seen.append
    made = guest(config)
    made.call("grow", 100)

    assert made.call("put", 1, 5_000_000) == 0

    assert b"".join(seen) == b"hello\n" + bytes(4_999_994)


def test_output_before_an_exit_arrives(guest: Callable[..., Guest]) -> None:
    """An exit takes no output with it."""
    config = WasiConfig()
    seen: list[bytes] = []
    config.stdout_custom = seen.append
    made = guest(
        config,
        fields='(func (export "both") (drop (call $put (i32.const 1) (i32.const 6)))'
        " (call $exit (i32.const 1)))",
    )

    with pytest.raises(wasmtime.ExitTrap):
        made.call("both")
    assert seen == [b"hello\n"]


def test_what_a_callable_raises_is_raised(guest: Callable[..., Guest]) -> None:
    """An exception of the caller's own ends the call and reaches the caller."""

    def fail(_: bytes) -> None:
        raise Mine

    config = WasiConfig()
    config.stdout_custom = fail
    made = guest(config)

    for _ in range(2):
        with pytest.raises(Mine):
            made.call("put", 1, 6)
    assert made.call("put", 2, 6) == 0


@pytest.mark.parametrize("far", [1 << 20, 1 << 40])
def test_a_guest_that_seeks_costs_nothing(far: int, guest: Callable[..., Guest]) -> None:
    """A hole in the output is not passed on, however large; and no room can be reserved."""
    config = WasiConfig()
    seen: list[bytes] = []
    config.stdout_custom = seen.append
    made = guest(config)
    other = made.instantiate(f"""
      (import "{WASI}" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
      (import "{WASI}" "fd_allocate" (func $allocate (param i32 i64 i64) (result i32)))
      (memory (export "memory") 1)
      (func (export "seek") (result i32)
        (call $seek (i32.const 1) (i64.const {far}) (i32.const 0) (i32.const 0)))
      (func (export "allocate") (result i32)
        (call $allocate (i32.const 1) (i64.const 0) (i64.const {far})))""").exports(made.store)
    more: Any = other

    assert more["allocate"](made.store) != 0
    assert more["seek"](made.store) == 0
    assert made.call("put", 1, 6) == 0
    assert b"".join(seen) == b"hello\n"
    made.call("put", 1, 6)
    assert b"".join(seen) == b"hello\nhello\n"


# --- stores and linkers ---------------------------------------------------------------------------


def test_one_linker_serves_several_stores(
    engine: wasmtime.Engine, guest: Callable[..., Guest], tmp_path: Path
) -> None:
    """Each store has its own descriptors, though the functions are the linker's."""
    linker = wasmtime.Linker(engine)
    made = []
    for name in ("a", "b"):
        config = WasiConfig()
        config.stdout_file = tmp_path / name
        made.append(guest(config, linker))

    made[0].call("put", 1, 2)
    made[1].call("put", 1, 3)
    made[0].call("put", 1, 4)

    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["hehell", "hel"]


@pytest.mark.parametrize("errno", [0, 76])
def test_rights_can_be_strict(engine: wasmtime.Engine, tmp_path: Path, errno: int) -> None:
    """What was not asked for is then not granted."""
    (tmp_path / "f").touch()
    config = WasiConfig()
    config.strict_rights = errno != 0
    config.preopen_dir(str(tmp_path), "/")
    store, linker = ours(engine, config)
    module = wasmtime.Module(engine, caller())
    exports: Any = linker.instantiate(store, module).exports(store)
    exports["memory"].write(store, b"f", 8)

    assert exports["path_open"](store, 3, 0, 8, 1, 0, 0, 0, 0, 0) == 0
    assert exports["fd_filestat_get"](store, 4, 16) == errno


def test_one_configuration_serves_several_stores(
    output: tuple[WasiConfig, Path], guest: Callable[..., Guest]
) -> None:
    """Stores that were made from one configuration share its files, and outlive it."""
    config, path = output
    made = [guest(config), guest(config)]
    before = len(settled_descriptors())
    config.close()
    assert len(open_descriptors()) == before - 1
    config.close()
    del config, output
    gc.collect()

    for each in made:
        each.call("put", 1, 6)

    assert path.read_text() == "hello\nhello\n"


def test_two_modules_of_a_store_have_a_memory_each(
    output: tuple[WasiConfig, Path], guest: Callable[..., Guest]
) -> None:
    """A call works on the memory of the module that makes it."""
    made = guest(output[0])
    other: Any = made.instantiate(WRITER.replace("hello", "olleh")).exports(made.store)

    made.call("put", 1, 5)
    other["put"](made.store, 1, 5)
    made.call("put", 1, 5)

    assert output[1].read_text() == "helloollehhello"


@pytest.mark.parametrize("direct", [False, True])
def test_a_start_function_makes_calls(
    output: tuple[WasiConfig, Path], guest: Callable[..., Guest], *, direct: bool
) -> None:
    """A start function writes; unless the memory is still to be named, and then it is told so."""
    fields = (
        "(global $errno (mut i32) (i32.const -1))"
        '(func (export "errno") (result i32) (global.get $errno))'
        "(func $begin (global.set $errno (call $put (i32.const 1) (i32.const 6)))) (start $begin)"
    )
    made = guest(output[0], fields=fields, direct=direct)

    assert output[1].read_text() == ("" if direct else "hello\n")
    assert made.call("errno") == (21 if direct else 0)  # FAULT
    assert made.call("put", 1, 6) == 0


def test_instances_may_be_prepared(engine: wasmtime.Engine, guest: Callable[..., Guest]) -> None:
    """An InstancePre of the linker works in each store that has its WASI."""
    made = guest()
    module = wasmtime.Module(engine, assemble(WRITER))
    prepared = made.linker.instantiate_pre(module)

    exports: Any = prepared.instantiate(made.store).exports(made.store)

    assert exports["put"](made.store, 1, 6) == 0


def test_a_store_without_wasi_is_told(engine: wasmtime.Engine, guest: Callable[..., Guest]) -> None:
    """A module in a store that was forgotten traps with the reason."""
    linker = guest().linker
    store = wasmtime.Store(engine)
    module = wasmtime.Module(engine, assemble(WRITER))
    exports: Any = linker.instantiate(store, module).exports(store)

    with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError), match="not defined for the store"):
        exports["put"](store, 1, 6)


@pytest.mark.parametrize("memory", ["", '(memory (export "memory") 1 1 shared)'])
def test_a_module_needs_a_memory_of_its_own(memory: str) -> None:
    """A module without a memory, or with a shared one, traps with the reason."""
    config = wasmtime.Config()
    config.shared_memory = True
    engine = wasmtime.Engine(config)
    fields = f'(import "{WASI}" "sched_yield" (func $y (result i32))) (export "y" (func $y))'
    made = Guest(engine, f'{fields} {memory} (func (export "f") (result i32) (call $y))')

    for _ in range(3):
        with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError), match="exports no memory"):
            made.call("f")


def test_a_function_can_be_called_by_nobody(guest: Callable[..., Guest]) -> None:
    """A WASI function that is called from outside has no memory to work on, and says so."""
    made = guest()
    function: Any = made.linker.get(made.store, WASI, "sched_yield")

    with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError), match="exports no memory"):
        function(made.store)


def test_what_does_not_fit_together_is_refused(
    engine: wasmtime.Engine, guest: Callable[..., Guest]
) -> None:
    """Other engines, second definitions and names that are taken are errors, as with wasmtime."""
    with pytest.raises(wasmtime.WasmtimeError, match="different engines"):
        define_wasi(wasmtime.Linker(wasmtime.Engine()), wasmtime.Store(engine))
    made = guest()
    with pytest.raises(wasmtime.WasmtimeError, match="has its WASI already"):
        define_wasi(made.linker, made.store)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    with pytest.raises(wasmtime.WasmtimeError, match="defined twice"):
        define_wasi(linker, wasmtime.Store(engine))


def test_direct_calls_have_one_memory(
    output: tuple[WasiConfig, Path], guest: Callable[..., Guest]
) -> None:
    """Without the way through Python, what was bound last is what all calls work on."""
    made = guest(output[0], direct=True)
    made.call("put", 1, 5)
    made.instantiate(WRITER.replace("hello", "olleh"))
    made.call("put", 1, 5)
    assert output[1].read_text() == "hellohello"


def test_direct_calls_leave_no_room_for_callables(guest: Callable[..., Guest]) -> None:
    """Nobody would notice that there is output to pass on."""
    config = WasiConfig()
    config.stderr_custom = bytes

    with pytest.raises(wasmtime.WasmtimeError, match="nobody could call"):
        guest(config, direct=True)


def test_only_a_memory_can_be_bound(engine: wasmtime.Engine) -> None:
    """An instance without one is refused."""
    with pytest.raises(wasmtime.WasmtimeError, match="exports no memory"):
        Guest(engine, "", direct=True)


def test_the_old_interface_is_there_too(guest: Callable[..., Guest]) -> None:
    """Modules of wasi_unstable are served by the same definition."""
    made = guest()
    old: Any = made.instantiate(WRITER.replace(WASI, "wasi_unstable")).exports(made.store)

    assert old["put"](made.store, 1, 6) == 0


def test_any_thread_may_use_a_store(
    output: tuple[WasiConfig, Path], guest: Callable[..., Guest]
) -> None:
    """A store can be handed from thread to thread, as with wasmtime."""
    made = guest(output[0])
    thread = threading.Thread(target=lambda: made.call("put", 1, 6))
    thread.start()
    thread.join()
    made.call("put", 1, 6)

    assert output[1].read_text() == "hello\nhello\n"


def test_threads_do_not_disturb_each_other(engine: wasmtime.Engine, tmp_path: Path) -> None:
    """Stores in several threads at once each find their own memory and descriptors."""
    linker = wasmtime.Linker(engine)
    failures: list[int] = []

    def work(name: str) -> None:
        config = WasiConfig()
        config.stdout_file = tmp_path / name
        made = Guest(engine, WRITER.replace("hello", name), config, linker)
        failures.extend(made.call("put", 1, 6) for _ in range(500))

    define_wasi(linker, wasmtime.Store(engine))
    names = ["aaaaa", "bbbbb", "ccccc", "ddddd"]
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(failures) == {0}
    for name in names:
        assert (tmp_path / name).read_text() == f"{name}\n" * 500


# --- memories that move ---------------------------------------------------------------------------


def moving() -> wasmtime.Engine:
    """Return an engine whose memories move whenever they grow."""
    config = wasmtime.Config()
    config.memory_may_move = True
    config.memory_reservation = 0
    config.memory_reservation_for_growth = 0
    config.memory_guard_size = 0
    return wasmtime.Engine(config)


def test_a_memory_that_moves_is_found(output: tuple[WasiConfig, Path]) -> None:
    """After every growth, calls work on the memory where it is now."""
    made = Guest(moving(), WRITER, output[0])
    addresses = set()

    for _ in range(20):
        made.call("grow", 30)
        assert made.call("put", 1, 6) == 0
        size = made.exports["memory"].data_len(made.store)
        assert made.call("time", size - 8) == 0
        assert made.call("time", size - 7) == 21
        addresses.add(made.exports["memory"].data_ptr(made.store)[0:1] and _base(made))

    assert len(addresses) > 1
    assert output[1].read_text() == "hello\n" * 20


def _base(made: Guest) -> int:
    import ctypes

    pointer = made.exports["memory"].data_ptr(made.store)
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def test_the_shims_memory_does_not_grow(tmp_path: Path) -> None:
    """However much a guest makes the shim remember, it is where it was, or refuses."""
    (tmp_path / "f").touch()
    config = WasiConfig()
    config.preopen_dir(str(tmp_path), "/")
    made = Guest(
        moving(),
        f"""
        (import "{WASI}" "path_open"
          (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "f")
        (func (export "open") (result i32)
          (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
            (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8)))""",
        config,
    )

    answers = [made.call("open") for _ in range(1100)]

    assert answers[:1000] == [0] * 1000
    assert answers[-1] in (33, 41)  # MFILE, or the process's own limit: NFILE


def test_too_large_a_configuration_is_refused(engine: wasmtime.Engine) -> None:
    """What does not fit the shim's memory is an error when WASI is defined."""
    config = WasiConfig()
    config.env = [("LARGE", "x" * 2_000_000)]

    with pytest.raises(wasmtime.WasmtimeError, match="no memory for 2000"):
        define_wasi(wasmtime.Linker(engine), wasmtime.Store(engine), config)


# --- directories ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "writable"),
    [
        ({}, True),
        ({"fs_mutable": True}, True),
        ({"fs_mutable": False}, False),
        ({"dir_perms": "READ_ONLY", "file_perms": "READ_ONLY"}, False),
        ({"dir_perms": "READ_WRITE", "file_perms": "READ_ONLY"}, False),
        ({"dir_perms": "READ_WRITE", "file_perms": "READ_WRITE"}, True),
    ],
    ids=str,
)
def test_directories_are_granted(
    options: dict[str, Any],
    engine: wasmtime.Engine,
    program: bytes,
    tmp_path: Path,
    *,
    writable: bool,
) -> None:
    """A directory is writable as wasmtime's own configuration says it, new or old."""
    import enum

    perms = enum.Enum("perms", ["READ_ONLY", "WRITE_ONLY", "READ_WRITE"])
    config = WasiConfig()
    config.argv = ["me", "create", "new"]
    config.preopen_dir(
        str(tmp_path),
        "/",
        **{
            name: perms[value] if isinstance(value, str) else value
            for name, value in options.items()
        },
    )

    guest = Guest(engine, program, config)
    if writable:
        guest.call("_start")
    else:
        with pytest.raises(wasmtime.ExitTrap):
            guest.call("_start")

    assert (tmp_path / "new").exists() == writable


@pytest.mark.parametrize("path", ["missing", "file", "/proc"])
def test_what_is_no_directory_is_refused(path: str, tmp_path: Path) -> None:
    """Wasmtime's exception, at the same place, with the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(wasmtime.WasmtimeError, match="failed to add preopen dir: "):
        WasiConfig().preopen_dir(str(tmp_path / path), "/")


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    """Wasmtime's exception, at the same place, with the reason."""
    config = WasiConfig()
    with pytest.raises(wasmtime.WasmtimeError, match=r"failed to set stdin file: .*No such file"):
        config.stdin_file = str(tmp_path / "missing")
    with pytest.raises(wasmtime.WasmtimeError, match="failed to set stderr file"):
        config.stderr_file = bytes(tmp_path)


# --- what is left ---------------------------------------------------------------------------------


def open_files() -> list[str]:
    """Return what this process has open."""
    for _ in range(3):  # a store's end makes more to collect
        gc.collect()
    return sorted(os.listdir("/proc/self/fd"))


def test_everything_is_closed_with_the_store(
    engine: wasmtime.Engine, program: bytes, tmp_path: Path
) -> None:
    """Deleting a store closes all that its guests have open; so does losing it."""

    def make() -> Guest:
        config = WasiConfig()
        config.argv = ["me", "cat", "missing"]
        config.stdin_file = os.devnull
        config.stdout_file = tmp_path / "out"
        config.stderr_custom = bytes
        config.preopen_dir(str(tmp_path), "/")
        made = Guest(engine, program, config)
        with pytest.raises(wasmtime.ExitTrap):
            made.call("_start")
        return made

    make()
    before = open_files()

    kept = make()
    assert len(open_files()) > len(before)
    kept.store.close()
    del kept
    assert open_files() == before
    for _ in range(20):
        make()
    assert open_files() == before


def test_failures_leave_nothing_open(engine: wasmtime.Engine, tmp_path: Path) -> None:
    """A store that could not be given its WASI has nothing of it, and may try again."""
    config = WasiConfig()
    config.preopen_dir(str(tmp_path), "/")
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    define_wasi(wasmtime.Linker(engine), wasmtime.Store(engine))
    before = open_files()

    config.env = [("LARGE", "x" * 2_000_000)]
    with pytest.raises(wasmtime.WasmtimeError):
        define_wasi(linker, store, config)
    assert open_files() == before

    config.env = []
    define_wasi(linker, store, config)


def test_settings_may_be_changed(tmp_path: Path) -> None:
    """A stream that is set again is the last one, and the others are closed."""
    before = open_files()
    config = WasiConfig()
    for _ in range(3):
        config.stdout_file = tmp_path / "out"
        config.stdout_custom = bytes
        config.stdout_file = tmp_path / "out"
        config.inherit_stdout()
    assert open_files() == before


def test_wasmtime_is_not_imported_unasked() -> None:
    """`import wasi_shim` is on the path of `wali run`, and stays light."""
    code = "import sys, wasi_shim; print('wasmtime' in sys.modules, 'typing' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False False\n"


def test_other_names_are_not_there() -> None:
    """A name that is not public is an AttributeError that says so."""
    with pytest.raises(AttributeError, match="'wasi_shim' has no attribute 'frobnicate'"):
        _ = wasi_shim.frobnicate
