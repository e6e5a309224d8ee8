"""The calls of a WALI program as a task that can wait, with WebAssembly around each.

A call that wasmtime can suspend costs more than most calls take, whether it waits or not.  So such
a program gets functions in WebAssembly that make the ordinary call, and suspend only where that
says that it would wait: what WASI's shim does for its guests.  They are a module of ours, of which
each program has an instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wali_core._link import Link
from wali_core.rewriting._prepare import (
    CODE,
    EXPORT,
    EXTERN_FUNC,
    FUNCTION,
    IMPORT,
    TYPE,
    encode_name,
    leb128,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Final

    from wali_core import _bridge as bridge

_SUSPEND: Final = "guest", "suspend"
_TYPES: Final = {"i": b"\x7f", "I": b"\x7e"}
_SUSPENDED: Final = b"\x42\x81" + b"\x80" * 8 + b"\x7f"  # i64.const -2**63 + 1


class SuspendingLink(Link):
    """The module's imports: the calls as they are, and that which suspends."""

    def _offered(self, item: bridge.ImportType) -> tuple[Any, Any]:
        row = self.module.engine.core.calls[item.module, item.name]
        return row, row.capable if (item.module, item.name) == _SUSPEND else row.native

    def _suspending(self, item: bridge.ImportType, _: int) -> int | None:
        core = self.module.engine.core
        return core.async_call if (item.module, item.name) == _SUSPEND else None


def suspending_calls(core: bridge.Core) -> bytes:
    """The module: for each call that can wait a function of its name and type."""
    calls = {
        name: (row.parameters.decode(), row.result.decode())
        for (module, name), row in core.calls.items()
        if module == "wali" and row.waits and row.native
    }
    suspend = len(calls)  # the last of the imports
    types = [*calls.values(), ("", "I")]
    imports = [*(("wali", name) for name in calls), _SUSPEND]
    return b"\0asm\1\0\0\0" + b"".join(
        (
            _section(TYPE, (_type(*one) for one in types)),
            _section(IMPORT, (_import(*pair, i) for i, pair in enumerate(imports))),
            _section(FUNCTION, map(leb128, range(len(calls)))),
            _section(EXPORT, (_export(name, suspend + 1 + i) for i, name in enumerate(calls))),
            _section(CODE, (_body(len(of[0]), i, suspend) for i, of in enumerate(types[:-1]))),
        )
    )


def _section(identifier: int, entries: Iterable[bytes]) -> bytes:
    listed = list(entries)
    body = leb128(len(listed)) + b"".join(listed)
    return bytes([identifier]) + leb128(len(body)) + body


def _type(parameters: str, results: str) -> bytes:
    kinds = (
        leb128(len(some)) + b"".join(map(_TYPES.__getitem__, some))
        for some in (parameters, results)
    )
    return b"\x60" + b"".join(kinds)


def _import(module: str, name: str, index: int) -> bytes:
    names = encode_name(module.encode()) + encode_name(name.encode())
    return names + bytes([EXTERN_FUNC]) + leb128(index)


def _export(name: str, index: int) -> bytes:
    return encode_name(name.encode()) + bytes([EXTERN_FUNC]) + leb128(index)


def _body(parameters: int, call: int, suspend: int) -> bytes:
    """``do { result = call(...); } while (result == SUSPENDED && suspend() == 0);``."""
    result = leb128(parameters)
    given = b"".join(b"\x20" + leb128(i) for i in range(parameters))
    waits = b"\x22" + result + _SUSPENDED + b"\x51"
    again = b"\x10" + leb128(suspend) + b"\x50\x0d\x01"
    loop = given + b"\x10" + leb128(call) + waits + b"\x04\x40" + again + b"\x0b"
    body = b"\x01\x01\x7e" + b"\x03\x40" + loop + b"\x0b\x20" + result + b"\x0b"
    return leb128(len(body)) + body
