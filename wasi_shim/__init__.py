"""WASI preview1 as a WebAssembly program: C in ``src/``, compiled to ``shim.wasm``.

The core finds ``abi`` by the name of this package and by the entry point group ``wali.abi``.
``define_wasi`` and ``WasiConfig`` are for programs that build their own ``wasmtime.Linker``.
"""

from __future__ import annotations

from wasi_shim._abi import WasiAbi as WasiAbi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasi_shim._wasmtime import WasiConfig as WasiConfig
    from wasi_shim._wasmtime import define_wasi as define_wasi

__all__ = ["WasiAbi", "WasiConfig", "abi", "define_wasi"]

abi = WasiAbi()


def __getattr__(name: str) -> object:
    if name not in ("WasiConfig", "define_wasi"):
        raise AttributeError(f"module 'wasi_shim' has no attribute {name!r}")
    from wasi_shim import _wasmtime  # imports wasmtime, which takes longer than a guest to start

    value = globals()[name] = getattr(_wasmtime, name)
    return value
