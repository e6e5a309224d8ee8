"""Linking: which thunk stands behind an import.  This is where the gate is."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core._errors import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wali_core._engine import Module


class Link:
    """A module with every import resolved to a thunk.

    Made once for a module and a gate, and shared by all guests that they serve: the thunks find the
    guest through its store.  May be used by several threads.

    ``gate`` maps the names of calls that are held back (``"SYS_unlinkat"``) to the positive errno
    that they answer.  Raises ``ModuleError`` for an import that cannot be had.
    """

    def __init__(self, module: Module, gate: Mapping[str, int] | None = None) -> None:
        self.module = module
        self.denials: dict[str, bridge.Denial] = {}
        self._gate = gate or {}
        self.linker: int | None = W["wasmtime_linker_new"](module.engine.pointer)
        self.pre: int | None = None
        try:
            for item in module.imports:
                self._define(item)
            pre = c_void_p()
            bridge.check(
                W["wasmtime_linker_instantiate_pre"](self.linker, module.pointer, byref(pre))
            )
            self.pre = pre.value
        except BaseException:
            self.close()
            raise

    def _define(self, item: bridge.ImportType) -> None:
        thunk, env = self._resolve(item)
        module, name = item.module.encode(), item.name.encode()
        bridge.check(
            W["wasmtime_linker_define_func_unchecked"](
                self.linker, module, len(module), name, len(name), item.functype, thunk, env, None
            )
        )

    def _resolve(self, item: bridge.ImportType) -> tuple[int, int | None]:
        """The thunk for an import, and its env: none, so that it asks the store for the guest."""
        row, thunk = self._offered(item)
        if item.kind != bridge.EXTERN_FUNC or row is None or not thunk:
            raise ModuleError(f"{self._where(item)}, {self.refusal}")
        expected = row.parameters.decode(), row.result.decode()
        # SYS_exit and its like are typed without a result by some: then none is written either way.
        if item.parameters != expected[0] or item.results not in ("", expected[1]):
            raise ModuleError(
                f"{self._where(item)} with another type than ({expected[0]}) -> ({expected[1]})"
                " (i: i32, I: i64)"
            )
        if item.name not in self._gate:
            return thunk, None
        denial = self.denials.setdefault(item.name, bridge.Denial(-self._gate[item.name], 0))
        return self.module.engine.core.denied, ctypes.addressof(denial)

    def _where(self, item: bridge.ImportType) -> str:
        return f"{self.module.origin}: imports {item.module}.{item.name}"

    refusal = ""
    """Why an import is refused that is not offered."""

    def _offered(self, item: bridge.ImportType) -> tuple[Any, Any]:
        """The table's row for an import, and the thunk that this kind of module may have."""
        raise NotImplementedError

    def close(self) -> None:
        if self.pre:
            W["wasmtime_instance_pre_delete"](self.pre)
        if self.linker:
            W["wasmtime_linker_delete"](self.linker)
        self.pre = self.linker = None

    def __del__(self) -> None:
        self.close()


class ShimLink(Link):
    """A shim's module: in capability mode, and only the calls that the table gives to shims."""

    refusal = "which a shim may not have"

    def _offered(self, item: bridge.ImportType) -> tuple[Any, Any]:
        on_guest = item.module == "wali_guest"
        row = self.module.engine.core.calls.get(("wali" if on_guest else item.module, item.name))
        return row, row and (row.capable_guest if on_guest else row.capable)


class ProgramLink(Link):
    """A WALI program's module: the calls of the table as Linux has them."""

    refusal = "which is not a call of this version"

    def _offered(self, item: bridge.ImportType) -> tuple[Any, Any]:
        row = self.module.engine.core.calls.get((item.module, item.name))
        return row, row and row.native
