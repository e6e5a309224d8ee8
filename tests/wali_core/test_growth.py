"""Tests of wali_core.rewriting._growth: whoever wants too much memory is ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import wasmtime

from capabilities import Limits, Policy
from wali_core import GuestLimit, GuestTrap, ModuleError, Runtime, UseError
from wali_core._abi import EXCEEDED_EXPORT, LIMIT_EXPORT
from wali_core.rewriting._growth import watch_growth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = 64 << 10
TEXT = """
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
  (memory (export "memory") 1 {most})
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "branching") (param i32 i64) (result i32) (local f32 i64)
    (block (block (block
      (br_table 0 1 2 (local.get 0)))
      (return (memory.grow (i32.const 64))))
      (return (memory.size)))
    (if (i32.const 1) (then (unreachable)))
    (i32.const 0x40))
  (func (export "_start") (loop
    (drop (memory.grow (i32.const 1))) (br 0))))
"""


def module(most: int | str = "") -> bytes:
    """Return a module that grows its memory, and may to so many pages."""
    return bytes(wasmtime.wat2wasm(TEXT.format(most=most)))


@pytest.fixture
def limited(cache_folder: Path) -> Iterator[Runtime]:
    """Return a runtime whose guests may have four pages."""
    policy = Policy(limits=Limits(memory=4 * PAGE))
    with Runtime(policy=policy, cache=cache_folder) as made:
        yield made


MESSAGE = f"the guest wanted more than its {4 * PAGE} bytes of memory (limits.memory)"


def test_growth_ends(limited: Runtime) -> None:
    """Up to the limit it grows; one page more is its end, and the reason is said."""
    with limited.instantiate(module()) as guest:
        assert [guest.call("grow", n) for n in (1, 2, 0)] == [1, 2, 4]
        with pytest.raises(GuestLimit) as caught:
            guest.call("grow", 1)
        with pytest.raises(UseError, match="wanted more"):
            guest.call("grow", 0)

    assert (caught.value.limit, str(caught.value)) == ("memory", MESSAGE)


@pytest.mark.parametrize("pages", [4, 1 << 16, -1])
def test_however_much_is_wanted(limited: Runtime, pages: int) -> None:
    """It does not overflow."""
    with limited.instantiate(module()) as guest, pytest.raises(GuestLimit):
        guest.call("grow", pages)


def test_types_in_groups_are_counted_one_by_one(limited: Runtime) -> None:
    """A guest with garbage collection has such; the functions that are added have types as well."""
    types = """(rec (type $a (struct (field (ref null $b) (mut i8)))) (type $b (array i16)))
        (type $c (sub (func (param (ref null $a)) (result f64))))"""
    data = bytes(wasmtime.wat2wasm(TEXT.replace("(module", f"(module {types}", 1).format(most="")))
    with limited.instantiate(data) as guest:
        assert guest.call("grow", 3) == 1
        with pytest.raises(GuestLimit):
            guest.call("grow", 1)


def test_modules_have_limits_of_their_own(limited: Runtime, runtime: Runtime) -> None:
    """What a module says of its own memory is no policy: it is answered by -1, as ever."""
    with limited.instantiate(module(2)) as guest, runtime.instantiate(module(2)) as free:
        assert [guest.call("grow", n) for n in (1, 1, 2)] == [1, -1, -1]
        assert [free.call("grow", n) for n in (1, 1, -1)] == [1, -1, -1]


def test_code_around_it_is_as_it_was(limited: Runtime) -> None:
    """Branches and constants that look like it are left alone; other traps are what they are."""
    with limited.instantiate(module()) as guest:
        assert guest.call("branching", 1, 0) == 1
        with pytest.raises(GuestTrap, match="unreachable"):
            guest.call("branching", 2, 0)
        with pytest.raises(GuestLimit):
            guest.call("branching", 0, 0)


def test_programs_end(limited: Runtime) -> None:
    """Whole programs as well, blocking and as tasks."""
    with pytest.raises(GuestLimit, match="bytes of memory"):
        limited.run_sync(module())

    async def run() -> None:
        with pytest.raises(GuestLimit, match="bytes of memory"):
            await limited.run(module())

    trio.run(run)


@pytest.mark.parametrize(
    "text",
    [
        "(module)",
        '(module (func (export "f")))',
        '(module (memory 1) (func (export "f") (drop (i32.const 0x40))))',
    ],
)
def test_what_does_not_grow_stays_as_it_is(text: str) -> None:
    """Modules without a memory to grow, or with names of ours, are the same bytes."""
    data = bytes(wasmtime.wat2wasm(text))

    assert watch_growth(data, "m") == data


@pytest.mark.parametrize("name", [LIMIT_EXPORT, EXCEEDED_EXPORT])
def test_modules_may_not_use_the_names(limited: Runtime, name: str) -> None:
    """What the host calls is never a function of the guest's own."""
    data = bytes(wasmtime.wat2wasm(f'(module (func (export "{name}")))'))

    with pytest.raises(ModuleError, match=f"exports {name}, a name that is not for modules"):
        limited.load(data)


def test_the_names_are_nobodys_to_call(limited: Runtime) -> None:
    """A guest's embedder cannot take the limit away by a name."""
    with limited.instantiate(module()) as guest:
        for name, arguments in ((LIMIT_EXPORT, (0,)), (EXCEEDED_EXPORT, ())):
            call: Any = guest.call
            with pytest.raises(Exception, match="exports no function"):
                call(name, *arguments)
