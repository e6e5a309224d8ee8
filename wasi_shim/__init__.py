"""WASI preview1 as a WebAssembly program: C in ``src/``, compiled to ``shim.wasm``.

The core finds ``abi`` by the name of this package and by the entry point group ``wali.abi``.
"""

from wasi_shim._abi import WasiAbi as WasiAbi

__all__ = ["WasiAbi", "abi"]

abi = WasiAbi()
