"""Guests, and a runtime to run them in."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime

from wali_core import Runtime
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for compiled modules, so that the shim is compiled once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled `guest.c`, which does what its arguments say."""
    out = tmp_path_factory.mktemp("guests") / "guest.wasm"
    source = Path(__file__).with_name("guest.c")
    return compiler.compile_guest(source, out, target="wasm32-freestanding")


@pytest.fixture
def runtime(cache_folder: Path) -> Iterator[Runtime]:
    """Return a runtime that grants nothing."""
    with Runtime(cache=cache_folder) as made:
        yield made


@pytest.fixture
def guest_from_wat(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that assembles a module, and gives its path."""

    def assemble(text: str, name: str = "guest.wasm") -> Path:
        path = tmp_path / name
        path.write_bytes(wasmtime.wat2wasm(text))
        return path

    return assemble


@pytest.fixture
def when_ready() -> Callable[[Callable[[], object]], contextlib.AbstractContextManager[int]]:
    """Return a function that does something as soon as a guest says that it is ready.

    What it returns is entered for the guest's standard output.
    """

    @contextlib.contextmanager
    def watching(action: Callable[[], object]) -> Iterator[int]:
        read, write = os.pipe()

        def watch() -> None:
            with open(read, "rb", closefd=False) as file:
                if file.readline():
                    action()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield write
        finally:
            os.close(write)
            thread.join()
            os.close(read)

    return watching
