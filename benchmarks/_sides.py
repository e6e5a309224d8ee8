"""The sides that are compared: the same loops in C, here, on Node's WASI and on wasmtime's own."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import wasmtime

import wali_core

if TYPE_CHECKING:
    from types import ModuleType

HERE = Path(__file__).parent
FILE_SIZE = 1 << 20
ENTRIES = 10_000


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


def compile_program(source: Path, out: Path, *flags: str) -> Path:
    """Compile a C file to a WALI program."""
    zig, made = (sys.executable, "-m", "ziglang"), out.with_suffix(".o")
    compile_it = (
        *("clang", "--target=wasm32-unknown-linux-muslwali", "-mcpu=generic", "-matomics"),
        *("-mbulk-memory", "-O2", "-fno-builtin", *flags, "-c"),
    )
    link_it = (
        *("wasm-ld", "--no-entry", "--export=_start", "--shared-memory", "--export-memory"),
        "--max-memory=2147483648",
    )
    subprocess.run([*zig, *compile_it, str(source), "-o", str(made)], check=True)
    subprocess.run([*zig, *link_it, str(made), "-o", str(out)], check=True)
    return out


class Side(Protocol):
    """Something that can run a loop by its name."""

    def time(self, loop: str, count: int) -> int:
        """Run the loop ``count`` times: how many nanoseconds that took."""


class _Here:
    """A side in this process."""

    def run(self, loop: str, count: int) -> None:
        raise NotImplementedError

    def time(self, loop: str, count: int) -> int:
        start = time.perf_counter_ns()
        self.run(loop, count)
        return time.perf_counter_ns() - start


class Native(_Here):
    """The loops in C, on the same file."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        address = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p)
        self._library.set_clock(address)
        self._dir = os.open(folder, os.O_DIRECTORY)
        self._file = os.open(folder / "file", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self._file, bytes(FILE_SIZE))
        self._many = os.open(folder / "many", os.O_DIRECTORY)
        self._null = os.open(os.devnull, os.O_WRONLY)

    def run(self, loop: str, count: int) -> None:
        others = {"write_null": self._null, "readdir": self._many}
        file = others.get(loop, self._file)
        getattr(self._library, loop)(*map(ctypes.c_int64, (file, self._dir, count)))


class Ours(_Here):
    """The guest on this library."""

    def __init__(self, guest: Path, folder: Path) -> None:
        self._runtime = wali_core.Runtime()
        self._guest = self._runtime.instantiate(guest, dirs={"/": (folder, "rw")})
        self._guest.call("setup")

    def run(self, loop: str, count: int) -> None:
        self._guest.call(loop, count)


class WasmtimePy(_Here):
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


_SERVER = """
const fs = require('node:fs');
const {WASI} = require('node:wasi');
const wasi = new WASI({version: 'preview1', preopens: {'/': process.argv[2]}});
const module = new WebAssembly.Module(fs.readFileSync(process.argv[1]));
const instance = new WebAssembly.Instance(module, wasi.getImportObject());
wasi.initialize(instance);
instance.exports.setup();
const line = Buffer.alloc(100);
for (let size; (size = fs.readSync(0, line)) > 0;) {
  const [loop, count] = line.toString('utf8', 0, size).split(' ');
  const start = process.hrtime.bigint();
  instance.exports[loop](Number(count));
  fs.writeSync(1, String(process.hrtime.bigint() - start));
}
"""


class Node:
    """The guest on Node's WASI, in a process of its own that is told what to run."""

    def __init__(self, guest: Path, folder: Path) -> None:
        theirs, self._order = os.pipe()
        self._answer, answer = os.pipe()
        self._process = subprocess.Popen(
            ["node", "--no-warnings", "-e", _SERVER, str(guest), str(folder)],
            stdin=theirs,
            stdout=answer,
        )
        os.close(theirs)
        os.close(answer)

    def time(self, loop: str, count: int) -> int:
        os.write(self._order, f"{loop} {count}".encode())
        answer = os.read(self._answer, 100)
        if not answer:
            raise RuntimeError(f"Node could not run {loop}")
        return int(answer)

    def close(self) -> None:
        """End the process."""
        os.close(self._order)
        os.close(self._answer)
        self._process.wait()

    @staticmethod
    def version() -> str | None:
        """Which Node there is, or None: it may lack its WASI."""
        if not shutil.which("node"):
            return None
        command = ["node", "--no-warnings", "-p", "require('node:wasi'); process.version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None


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


class Program(_Here):
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
        for name in ("native", "ours", "node", "wasmtime"):
            populate(folder / name)
        self.native = Native(library, folder / "native")
        self.ours = Ours(guest, folder / "ours")
        self.wasmtime = WasmtimePy(guest, folder / "wasmtime")
        self.node = Node(guest, folder / "node") if Node.version() else None
        self.program = Program()

    def close(self) -> None:
        """Remove the files."""
        if self.node:
            self.node.close()
        self._temporary.cleanup()


def populate(folder: Path) -> None:
    """Make the folder that one side works in."""
    (folder / "many").mkdir(parents=True)
    for number in range(ENTRIES):
        (folder / "many" / f"file{number:05}").touch()
