"""One WASI call in a Linker and Store of one's own: wasmtime's WASI, ours in its place, ours bound.

    python -m benchmarks.bench_linker [FOLDER]

The guest and the loops are those of ``bench_wasi``; so is the way of measuring.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import wasmtime

import wasi_shim
from benchmarks import _sides
from benchmarks.bench_wasi import TARGETS, measure


class Linked(_sides.WasmtimePy):
    """The guest on ``wasi_shim.define_wasi``."""

    def __init__(self, guest: Path, folder: Path, *, direct: bool) -> None:
        engine = wasmtime.Engine()
        linker = wasmtime.Linker(engine)
        self._store = wasmtime.Store(engine)
        config = wasi_shim.WasiConfig()
        config.preopen_dir(str(folder), "/")
        wasi = wasi_shim.define_wasi(linker, self._store, config, direct=direct)
        instance = linker.instantiate(self._store, wasmtime.Module.from_file(engine, str(guest)))
        if direct:
            wasi.bind(self._store, instance)
        self._exports = instance.exports(self._store)
        self._call("setup")


def main(parent: str | None = None) -> None:
    """Print the table for files in a folder of its own beneath ``parent``."""
    with tempfile.TemporaryDirectory(prefix="wali-bench-", dir=parent) as name:
        folder = Path(name)
        guest = _sides.build_tools().compile_guest(
            _sides.HERE / "guest.c", folder / "guest.wasm", target="wasm32-freestanding"
        )
        for side in ("theirs", "ours", "bound"):
            _sides.populate(folder / side)
        sides: dict[str, _sides.Side] = {
            "theirs": _sides.WasmtimePy(guest, folder / "theirs"),
            "ours": Linked(guest, folder / "ours", direct=False),
            "bound": Linked(guest, folder / "bound", direct=True),
        }
        print("| call | wasmtime-py ns | define_wasi ns | direct=True ns |")
        print("| --- | --- | --- | --- |")
        for target in TARGETS:
            rounds = measure(sides, target.loop)
            figures = " | ".join(f"{statistics.median(rounds[side]):9.0f}" for side in sides)
            print(f"| {target.loop:10} | {figures} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
