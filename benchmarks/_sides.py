"""The sides that are compared: the same loops in C, on this library and on wasmtime's own WASI."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import wasmtime

import wali_core

if TYPE_CHECKING:
    from types import ModuleType

HERE = Path(__file__).parent
FILE_SIZE = 1 << 20


def build_tools() -> ModuleType:
    """The build script, which is part of no package that is installed."""
    path = HERE.parent / "wali_core" / "native" / "compile.py"
    spec = importlib.util.spec_from_file_location("_bench_compile", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Side(Protocol):
    """Something that can run a loop by its name."""

    def run(self, loop: str, count: int) -> None:
        """Run the loop ``count`` times."""


class Native:
    """The loops in C, on the same file."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        address = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p)
        self._library.set_clock(address)
        self._dir = os.open(folder, os.O_DIRECTORY)
        self._file = os.open(folder / "file", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self._file, bytes(FILE_SIZE))
        self._null = os.open(os.devnull, os.O_WRONLY)

    def run(self, loop: str, count: int) -> None:
        file = self._null if loop == "write_null" else self._file
        getattr(self._library, loop)(*map(ctypes.c_int64, (file, self._dir, count)))


class Ours:
    """The guest on this library."""

    def __init__(self, guest: Path, folder: Path) -> None:
        self._runtime = wali_core.Runtime()
        self._guest = self._runtime.instantiate(guest, dirs={"/": (folder, "rw")})
        self._guest.call("setup")

    def run(self, loop: str, count: int) -> None:
        self._guest.call(loop, count)


class WasmtimePy:
    """The guest on wasmtime-py's own WASI."""

    def __init__(self, guest: Path, folder: Path) -> None:
        engine = wasmtime.Engine()
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        self._store = wasmtime.Store(engine)
        config = wasmtime.WasiConfig()
        config.preopen_dir(str(folder), "/")
        self._store.set_wasi(config)
        module = wasmtime.Module.from_file(engine, str(guest))
        self._exports = linker.instantiate(self._store, module).exports(self._store)
        self._call("setup")

    def _call(self, name: str, *values: int) -> None:
        function = self._exports[name]
        if not isinstance(function, wasmtime.Func):
            raise TypeError(name)
        function(self._store, *values)

    def run(self, loop: str, count: int) -> None:
        self._call(loop, count)


_PROGRAM = """
(module
  (import "wali" "SYS_getppid" (func $getppid (result i64)))
  (import "wali" "SYS_write" (func $write (param i32 i32 i32) (result i64)))
  (memory (export "memory") 1 1 shared)
  (func (export "getppid") (param $n i32)
    loop $again
      (drop (call $getppid))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))
    end)
  (func (export "write_null") (param $n i32)
    loop $again
      (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))
    end))
"""


class Program:
    """Loops of a WALI program over bare thunks; its standard output is /dev/null."""

    def __init__(self) -> None:
        self._runtime = wali_core.Runtime(cache=False)
        self._null = os.open(os.devnull, os.O_WRONLY)
        self._guest = self._runtime.instantiate(
            bytes(wasmtime.wat2wasm(_PROGRAM)), stdio=(-1, self._null, -1), isolation="shared"
        )

    def run(self, loop: str, count: int) -> None:
        self._guest.call(loop, count)


class Sides:
    """All of them, in a folder of their own that is removed at the end."""

    def __init__(self, parent: str | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="wali-bench-", dir=parent)
        folder = Path(self._temporary.name)
        tools = build_tools()
        library = tools.build_baseline(HERE / "native.c", folder / "native.so")
        guest = tools.compile_guest(
            HERE / "guest.c", folder / "guest.wasm", target="wasm32-freestanding"
        )
        for name in ("native", "ours", "wasmtime"):
            (folder / name).mkdir()
        self.native = Native(library, folder / "native")
        self.ours = Ours(guest, folder / "ours")
        self.wasmtime = WasmtimePy(guest, folder / "wasmtime")
        self.program = Program()

    def close(self) -> None:
        """Remove the files."""
        self._temporary.cleanup()
