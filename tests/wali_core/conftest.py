"""Guests, and a runtime to run them in."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

from wali_core import Runtime
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Completed = subprocess.CompletedProcess[str]

ROOT = Path(__file__).resolve().parents[2]


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


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def environment(cache_folder: Path) -> dict[str, str]:
    """Return an environment in which the command finds its packages, and a cache of its own."""
    return {
        **{name: value for name, value in os.environ.items() if name != "LANG"},
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache_folder),
    }


@pytest.fixture
def wali(environment: dict[str, str], tmp_path: Path) -> Callable[..., Completed]:
    """Return a function that runs the command, in a folder of its own.

    Whatever it does, it never shows a Python traceback.
    """

    def run(*words: str | Path, **options: Any) -> Completed:
        options = {"input": ""} | options if "stdin" not in options else options
        if not options.get("stdout"):
            options["stdout"] = subprocess.PIPE
        done = subprocess.run(
            [sys.executable, "-m", "wali_core", *map(str, words)],
            cwd=options.pop("cwd", tmp_path),
            env=environment,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
            **options,
        )
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        return done

    return run


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Return a function that makes pairs of sockets, which are closed afterwards."""
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        made.extend(pair)
        return pair

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    """Return a function that makes pipes, which are closed afterwards."""
    made: list[int] = []

    def make() -> tuple[int, int]:
        ends = os.pipe()
        made.extend(ends)
        return ends

    yield make
    for fd in made:
        try:
            os.close(fd)
        except OSError:
            pass  # a test has done it
