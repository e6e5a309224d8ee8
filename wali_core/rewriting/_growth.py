"""A pass over a WASI guest's code: growing its memory beyond a limit is the guest's end.

wasmtime's limits only make ``memory.grow`` give -1, which says nothing of why, neither to the guest
nor to whoever runs it.  So each ``memory.grow`` becomes a call of a function that is added: it does
the same, and where that fails because of the limit it takes note of that and traps.  The host sets
the limit, and looks what was noted, by two more functions; without a limit nothing changes.

Functions with instructions that are not known here stay as they are.
"""

from __future__ import annotations

from wali_core._abi import EXCEEDED_EXPORT, LIMIT_EXPORT
from wali_core.rewriting._prepare import (
    CODE,
    EXPORT,
    EXTERN_FUNC,
    EXTERN_GLOBAL,
    FUNCTION,
    GLOBAL,
    IS_64,
    TYPE,
    Module,
    Reader,
    encode_name,
    leb128,
    refuse_exports,
)
from wali_core.rewriting._reuse import INSTRUCTION, number_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_GROW: Final = b"\x40\x00"
_BR_TABLE: Final = 0x0E
_I32: Final = 0x7F
_TYPES: Final = (  # of the three functions
    bytes([0x60, 1, _I32, 1, _I32]),
    bytes([0x60, 1, _I32, 0]),
    bytes([0x60, 0, 1, _I32]),
)


def watch_growth(data: bytes, origin: str) -> bytes:
    """The module, rewritten if it has one memory, and code to grow that.

    Raises ``ModuleError``, also for a module that uses the names of what is added.
    """
    module = Module(data, origin)
    refuse_exports(module, LIMIT_EXPORT, EXCEEDED_EXPORT)
    section = module.section(CODE)
    if section is None or _GROW not in bytes(section.body) or not _is_plain(module):
        return data
    imports = sum(item.kind == EXTERN_FUNC for item in module.imports())
    functions = module.functions()
    grow = imports + len(functions)
    reader = Reader(section.body, origin, section.at)
    if reader.count() != len(functions):
        return data  # the engine will say so
    call = b"\x10" + leb128(grow)
    bodies = [_rewritten(bytes(reader.take(reader.number())), call) for _ in functions]
    pieces = (leb128(len(body)) + body for body in bodies)
    module.overwrite(CODE, 0, len(section.body), leb128(len(bodies)) + b"".join(pieces))
    _add_functions(module, grow)
    return module.encode()


def _is_plain(module: Module) -> bool:
    """Has it one memory, of 32-bit addresses?"""
    flags = module.memory_flags()
    return len(flags) == 1 and not flags[0] & IS_64


def _add_functions(module: Module, grow: int) -> None:
    types = module.type_count()
    globals_ = module.count(GLOBAL) + sum(item.kind == EXTERN_GLOBAL for item in module.imports())
    most, exceeded = leb128(globals_), leb128(globals_ + 1)
    module.append(TYPE, *_TYPES)
    module.append(FUNCTION, *(leb128(types + i) for i in range(len(_TYPES))))
    module.append(GLOBAL, *[bytes([_I32, 1, 0x41, 0, 0x0B])] * 2)  # (mut i32) (i32.const 0)
    for index, name in enumerate((LIMIT_EXPORT, EXCEEDED_EXPORT), grow + 1):
        entry = encode_name(name.encode()) + bytes([EXTERN_FUNC]) + leb128(index)
        module.append(EXPORT, entry)
    # Delta is local 0, what memory.grow gave local 1.  With a limit, and delta > limit - size:
    beyond = b"\x20\x00\x23" + most + b"\x3f\x00\x6b\x4b"
    is_over = b"\x23" + most + b"\x04\x7f" + beyond + b"\x05\x41\x00\x0b"
    end = b"\x41\x01\x24" + exceeded + b"\x00"  # note that, and trap
    failed = b"\x22\x01\x41\x7f\x46"
    code = b"\x20\x00" + _GROW + failed + b"\x04\x40" + is_over + b"\x04\x40" + end
    for body in (
        bytes([1, 1, _I32]) + code + b"\x0b\x0b\x20\x01\x0b",
        b"\x00\x20\x00\x24" + most + b"\x0b",
        b"\x00\x23" + exceeded + b"\x0b",
    ):
        module.append(CODE, leb128(len(body)) + body)


def _rewritten(body: bytes, call: bytes) -> bytes:
    """A function with each ``memory.grow`` replaced; as it is, if it has none or is not known."""
    if _GROW not in body:
        return body
    try:
        places = list(_places(body))
    except (ValueError, IndexError):
        return body
    pieces: list[bytes] = []
    start = 0
    for at in places:
        pieces += (body[start:at], call)
        start = at + len(_GROW)
    return b"".join((*pieces, body[start:]))


def _places(body: bytes) -> Iterator[int]:
    """Where each ``memory.grow`` is.  Raises ``ValueError`` for what is not known."""
    at = _behind_locals(body)
    while at < len(body):
        match = INSTRUCTION.match(body, at)
        if match is None:
            raise ValueError(at)
        if match[0] == _GROW:
            yield at
        at = match.end()
        if match[0][0] == _BR_TABLE:
            count, at = number_at(body, at)
            for _ in range(count + 1):
                _, at = number_at(body, at)


def _behind_locals(body: bytes) -> int:
    groups, at = number_at(body, 0)
    for _ in range(groups):
        _, at = number_at(body, at)
        at += 1  # the type
    return at
