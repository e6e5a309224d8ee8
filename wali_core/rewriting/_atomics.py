"""What a WALI program has instead of waiting by WebAssembly's own instructions.

wasmtime waits by itself in ``memory.atomic.wait32`` and ``wait64``: no signal's handler would run
until somebody notifies, and nothing would get the thread out of there, not even an execve.  So
these instructions become calls of functions that are added, and ``memory.atomic.notify`` as well:
they trap where the instruction does, and leave the rest to functions of the host's, which wait by
futex(2), as all else in such a program.  Those are in a table that is added, where the host puts
them.

A memory that is not shared keeps the instructions, since waiting on one is a trap.  So does a
module which has them in its start function alone: linkers write one that has each instance wait
for the first to have put the data in its place, and nobody comes later than that.
"""

from __future__ import annotations

from wali_core._abi import ATOMICS_EXPORT
from wali_core.rewriting._prepare import (
    EXPORT,
    EXTERN_TABLE,
    FUNCTION,
    TABLE,
    TYPE,
    Module,
    encode_name,
    leb128,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PREFIX: Final = 0xFE
NOTIFY, WAIT32, WAIT64 = KINDS = range(3)
"""The second byte of each instruction: also the number of the function that it calls."""

_I32, _I64 = b"\x7f", b"\x7e"
_TYPES: Final = (  # of those functions: the operands, and the offset in the instruction
    b"\x60\x03" + _I32 * 3 + b"\x01" + _I32,
    b"\x60\x04" + _I32 * 2 + _I64 + _I32 + b"\x01" + _I32,
    b"\x60\x04" + _I32 + _I64 * 2 + _I32 + b"\x01" + _I32,
    # and of the host's, by their places in the table
    b"\x60\x06" + _I32 * 6 + b"\x01" + _I64,
    b"\x60\x05" + _I32 * 2 + _I64 * 3 + b"\x01" + _I64,
)
_FUTEX, _ATOMIC = range(2)
_FUTEX_WAKE: Final = 1
_NOT_EQUAL: Final = 1


class Atomics:
    """The functions, which are numbered from ``first`` on, and ``table`` with the host's."""

    def __init__(self, module: Module, first: int, table: int) -> None:
        self._module, self._first, self._table = module, first, table
        self._types = 0

    def call(self, kind: int, offset: int) -> bytes:
        """The instructions that stand for one of these, with the offset that it had."""
        return b"\x41" + _signed(offset) + b"\x10" + leb128(self._first + kind)

    def add(self, poll: bytes) -> list[bytes]:
        """Add what they need to the module; their code, which has ``poll`` where it waits."""
        module = self._module
        self._types = module.type_count()
        module.append(TYPE, *_TYPES)
        module.append(FUNCTION, *(leb128(self._types + kind) for kind in KINDS))
        module.append(TABLE, b"\x70\x01\x02\x02")  # two of funcref
        name = encode_name(ATOMICS_EXPORT.encode())
        module.append(EXPORT, name + bytes([EXTERN_TABLE]) + leb128(self._table))
        bodies = self._notify(), self._wait(WAIT32, poll), self._wait(WAIT64, poll)
        return [leb128(len(body)) + body for body in bodies]

    def _host(self, which: int) -> bytes:
        """A call of the host's function."""
        kind = leb128(self._types + len(KINDS) + which)
        return b"\x41" + _signed(which) + b"\x11" + kind + leb128(self._table)

    def _notify(self) -> bytes:
        """Address 0, count 1, offset 2.  Of address 0 the futex call thinks as of NULL."""
        nobody = b"\x20\x01\x45\x04\x40\x41\x00\x0f\x0b"
        most = b"\x41" + _signed((1 << 31) - 1)  # the kernel's count has a sign
        count = most + b"\x20\x01\x20\x01\x41\x00\x48\x1b"
        none = b"\x41\x00" * 3
        woken = b"\x20\x00\x41" + _signed(_FUTEX_WAKE) + count + none + self._host(_FUTEX)
        rest = b"\x42\x00" * 2
        at_0 = b"\x41\x00\x20\x00" + count + b"\xad" + rest + self._host(_ATOMIC)
        choice = b"\x20\x00\x04\x7e" + woken + b"\x05" + at_0 + b"\x0b\xa7"
        return b"\x00" + _place(2) + b"\x20\x00\xfe\x10\x02\x00\x1a" + nobody + choice + b"\x0b"

    def _wait(self, kind: int, poll: bytes) -> bytes:
        """Address 0, expected value 1, timeout 2, offset 3; and until when it waits, 4.

        The host gives what the instruction does, 0 to 2, or until when to wait when it has been
        interrupted.
        """
        load, differs, widened = {
            WAIT32: (b"\xfe\x10\x02\x00", b"\x47", b"\xac"),
            WAIT64: (b"\xfe\x11\x03\x00", b"\x52", b""),
        }[kind]
        changed = b"\x20\x00" + load + b"\x20\x01" + differs
        leave = b"\x04\x40\x41" + _signed(_NOT_EQUAL) + b"\x0f\x0b"
        operands = b"\x41" + _signed(4 * kind) + b"\x20\x00\x20\x01" + widened + b"\x20\x02\x20\x04"
        again = b"\x22\x04\x42\x02\x55\x0d\x00"
        turn = poll + changed + leave + operands + self._host(_ATOMIC) + again
        result = b"\x20\x04\xa7"
        return b"\x01\x01\x7e" + _place(3) + b"\x03\x40" + turn + b"\x0b" + result + b"\x0b"


def _place(offset: int) -> bytes:
    """Add a parameter to the first, or trap as an access that is out of bounds.

    No memory holds four bytes from its last address on.
    """
    add = b"\x20\x00\x20" + leb128(offset) + b"\x6a\x22\x00\x20" + leb128(offset)
    return add + b"\x49\x04\x40\x41\x7f\x28\x00\x00\x1a\x0b"


def _signed(value: int) -> bytes:
    """An i32 in LEB128, of which bit 31 may be the sign (§5.2.2)."""
    value -= (value & 1 << 31) << 1
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        if value == -(byte >> 6):  # the rest is its sign
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)
