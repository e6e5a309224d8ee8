"""Arguments and environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import BEYOND, WasiError

if TYPE_CHECKING:
    from tests.wasi_shim.conftest import Start


def test_arguments_arrive_in_order(start: Start) -> None:
    """Argv is what the host gave, the program's name first."""
    wasi = start(argv0="prog", args=["", "two words", "dr\u00e4i"])

    assert [b"prog", b"", b"two words", "dr\u00e4i".encode()] == wasi.strings("args")


def test_environment_is_nothing_but_what_was_given(start: Start) -> None:
    """Quotes and newlines pass through, the order is kept."""
    wasi = start(env={"Z": "'\"\n", "A": "", "B": "x=y"})

    assert wasi.strings("environ") == [b"Z='\"\n", b"A=", b"B=x=y"]


def test_no_environment(start: Start) -> None:
    """None at all is a count and a size of 0."""
    assert start(env={}).strings("environ") == []


def test_many_arguments(start: Start) -> None:
    """More than one batch of pointers is written."""
    arguments = [f"argument {i}" for i in range(150)]

    assert [b"prog", *(a.encode() for a in arguments)] == start(
        argv0="prog", args=arguments
    ).strings("args")


@pytest.mark.parametrize("name", ["args_get", "args_sizes_get", "environ_get", "environ_sizes_get"])
def test_pointers_outside_are_a_fault(start: Start, name: str) -> None:
    """Either pointer may be bad."""
    wasi = start(args=["a"], env={"A": "b"})

    for pointers in ((BEYOND, 0), (0, BEYOND), (0xFFFFFFFF, 0), (0, 0xFFFFFFFE)):
        with pytest.raises(WasiError, match="FAULT"):
            wasi.call(name, *pointers)
