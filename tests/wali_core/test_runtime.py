"""Tests of Runtime and Modules: what guests share, and the end of it all."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

from wali_core import ModuleError, Runtime, UseError
from wali_core import _modules as module

if TYPE_CHECKING:
    from collections.abc import Callable

    from wali_core._engine import Module

ROOT = Path(__file__).resolve().parents[2]
ANSWER = '(module (func (export "f") (result i32) (i32.const 42)))'


@pytest.fixture
def answer(guest_from_wat: Callable[..., Path]) -> Path:
    """Return a module whose `f` is 42."""
    return guest_from_wat(ANSWER, "answer.wasm")


# --- modules --------------------------------------------------------------------------------------


def test_modules_come_in_every_form(runtime: Runtime, answer: Path) -> None:
    """A module can be a path, in both its forms, its bytes, or one that was loaded before."""
    for form in (answer, str(answer), answer.read_bytes(), runtime.load(answer)):
        with runtime.instantiate(form) as guest:
            assert guest.call("f") == 42


def test_a_module_is_loaded_once(runtime: Runtime, answer: Path) -> None:
    """The same file is the same module, until its content changes."""
    first = runtime.load(answer)
    assert runtime.load(answer) is first
    assert runtime.load(str(answer)) is first

    answer.write_bytes(wasmtime.wat2wasm(ANSWER.replace("42", "43")))

    with runtime.instantiate(answer) as guest:
        assert guest.call("f") == 43


def test_modules_are_told_apart_by_name(
    runtime: Runtime, answer: Path, guest_from_wat: Callable[..., Path]
) -> None:
    """Two files with one content are two modules, each of which errors call by its name."""
    other = guest_from_wat(ANSWER, "other.wasm")

    assert runtime.load(answer).origin == str(answer)
    assert runtime.load(other).origin == str(other)
    with runtime.instantiate(other) as guest, pytest.raises(ModuleError, match=r"other\.wasm: "):
        guest.call("g")


def test_few_modules_are_kept(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime keeps so many modules at hand; older ones go when nobody uses them."""
    monkeypatch.setattr(module, "_KEPT", 2)
    modules = []
    for number in range(4):
        data = wasmtime.wat2wasm(ANSWER.replace("42", str(number)))
        modules.append(weakref.ref(runtime.load(bytes(data))))
    gc.collect()

    assert [ref() is not None for ref in modules] == [False, False, True, True]
    assert len(runtime._modules._loaded) == 2


def test_an_evicted_module_is_not_taken_from_its_guest(
    runtime: Runtime, answer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest goes on when its module is no longer at hand."""
    monkeypatch.setattr(module, "_KEPT", 1)
    guest = runtime.instantiate(answer)
    runtime.load(bytes(wasmtime.wat2wasm("(module)")))
    gc.collect()

    assert guest.call("f") == 42


def test_modules_of_other_runtimes_are_refused(runtime: Runtime, answer: Path) -> None:
    """A module was compiled by one engine, and is no other's."""
    with (
        Runtime(cache=False) as other,
        pytest.raises(UseError, match="loaded by another runtime: load it with this one"),
    ):
        other.instantiate(runtime.load(answer))


def test_threads_load_one_module(cache_folder: Path, answer: Path) -> None:
    """Threads that load a module at the same time all get one that works."""
    with Runtime(cache=cache_folder) as runtime:
        answers: list[Any] = []

        def work() -> None:
            with runtime.instantiate(answer) as guest:
                answers.append(guest.call("f"))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert answers == [42] * 8


def test_compilations_are_announced(answer: Path, tmp_path: Path) -> None:
    """Whoever wants to tell a user about a compilation hears its name and size, once."""
    told: list[tuple[str, int]] = []

    for _ in range(2):
        with Runtime(cache=tmp_path, on_compile=lambda *what: told.append(what)) as runtime:
            runtime.load(answer)
            runtime.load(answer)

    assert told == [(str(answer), answer.stat().st_size)]


# --- the cache ------------------------------------------------------------------------------------


def test_the_cache_is_the_users(
    answer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another word compiled modules are kept in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with Runtime() as runtime:
        runtime.load(answer)

    assert len(list((tmp_path / "wali").iterdir())) == 1


def test_there_need_be_no_cache(
    answer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With cache=False nothing is read from the disk, nor written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with Runtime(cache=False) as runtime:
        runtime.load(answer)

    assert not (tmp_path / "wali").exists()


def test_a_cache_that_cannot_be_had_is_no_error(answer: Path, tmp_path: Path) -> None:
    """Where there can be no cache a module is compiled each time."""
    (tmp_path / "file").write_text("")

    with (
        Runtime(cache=tmp_path / "file" / "cache") as runtime,
        runtime.instantiate(answer) as guest,
    ):
        assert guest.call("f") == 42


# --- links ----------------------------------------------------------------------------------------


def test_a_shim_is_linked_once(runtime: Runtime, program: Path) -> None:
    """All guests of a runtime are served by one link, under both names of the interface."""
    for _ in range(3):
        runtime.instantiate(program).close()

    assert set(runtime._modules._links) == {"wasi_snapshot_preview1", "wasi_unstable"}
    assert len({id(link) for _, link in runtime._modules._links.values()}) == 1


def test_what_needs_no_shim_links_none(runtime: Runtime, answer: Path) -> None:
    """A guest without imports has no shim."""
    runtime.instantiate(answer).close()

    assert runtime._modules._links == {}


# --- its end --------------------------------------------------------------------------------------


def test_a_policy_is_one() -> None:
    """Anything else is named."""
    with pytest.raises(UseError, match="policy=3: it must be a Policy, or the path or name"):
        Runtime(policy=3)  # type: ignore[arg-type]


def test_a_closed_runtime_makes_no_guests(runtime: Runtime, answer: Path) -> None:
    """After its end a runtime loads and makes nothing; closing it again does nothing."""
    loaded = runtime.load(answer)
    runtime.close()
    runtime.close()

    for use in (
        lambda: runtime.load(answer),
        lambda: runtime.instantiate(loaded),
        lambda: runtime.instantiate(answer),
        lambda: runtime.run_sync(answer),
        lambda: runtime.run_sync(loaded),
    ):
        with pytest.raises(UseError, match="the runtime is closed"):
            use()


def test_guests_outlive_their_runtime(runtime: Runtime, answer: Path, program: Path) -> None:
    """A guest that is still open can be used, and closed, when its runtime is gone."""
    guest = runtime.instantiate(answer)
    waiting = runtime.instantiate(program, args=["exit", "0"], stdio=(-1, -1, -1))
    runtime.close()
    gc.collect()

    assert guest.call("f", timeout=5) == 42
    assert waiting.exports("_start")
    guest.close()
    waiting.close()


def test_closing_does_not_disturb_who_makes_a_guest(cache_folder: Path, program: Path) -> None:
    """A thread that is making a guest when the runtime is closed gets it, or an error."""
    ends: set[str] = set()

    def work(runtime: Runtime, loaded: Module) -> None:
        try:
            while True:
                runtime.instantiate(loaded, stdio=(-1, -1, -1)).close()
        except UseError as error:
            ends.add(str(error))

    for _ in range(10):
        runtime = Runtime(cache=cache_folder)
        loaded = runtime.load(program)
        runtime.instantiate(loaded).close()
        threads = [threading.Thread(target=work, args=(runtime, loaded)) for _ in range(3)]
        for thread in threads:
            thread.start()
        runtime.close()
        for thread in threads:
            thread.join()

    assert ends == {"the runtime is closed"}


def test_a_runtime_goes_with_its_last_user(answer: Path) -> None:
    """A runtime that nobody closed frees its engine when it is forgotten."""
    runtime = Runtime(cache=False)
    engine = weakref.ref(runtime.engine)
    guest = runtime.instantiate(answer)

    del runtime
    gc.collect()
    assert engine() is not None
    del guest
    gc.collect()
    assert engine() is None


def test_an_interpreter_ends_quietly(program: Path, cache_folder: Path) -> None:
    """Runtimes and guests that are still there at the end of the interpreter say nothing."""
    code = f"""
from wali_core import Runtime
runtime = Runtime(cache={str(cache_folder)!r})
module = runtime.load({str(program)!r})
guest = runtime.instantiate(module)
cycle = [runtime, guest]
cycle.append(cycle)
runtime.run_sync(module, args=["args"], argv0="x", capture_output=True, timeout=5)
"""

    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
