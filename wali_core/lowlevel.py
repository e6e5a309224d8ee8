"""Sharp tools, for who builds on wasmtime's own classes: addresses are passed, and not checked.

This is public, documented and not for daily use.  ``wasi_shim.define_wasi`` is made of it, and what
it does with them is the example to follow.

A *foreign* engine, linker or store is one that this library has not made.  They are named by the
address of wasmtime's C object: ``ForeignShim`` compiles a shim with such an engine and defines its
functions in such a linker; ``ForeignGuest`` is what one store then has.
"""

from wali_core._foreign import FIRST_GRANTED, ForeignGuest, ForeignShim, trap_of
from wali_core._grants import Preopen

__all__ = ["FIRST_GRANTED", "ForeignGuest", "ForeignShim", "Preopen", "trap_of"]
