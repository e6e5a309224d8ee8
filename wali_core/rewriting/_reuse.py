"""A pass over code: what it has just stored or loaded, and loads again, is kept in a local.

Compilers write such code when they do not optimise: each variable is in memory, on the stack that
the program itself keeps there, and is loaded for each use.  wasmtime leaves it so, since to know
that a store has not changed another variable it would have to know more about addresses than it
does: that two accesses at one address plus different constants do not overlap.

No store is removed, and none is moved.  A load is replaced by ``local.get`` where the same address
was accessed before and, on every way from there to here, nothing has happened that could have
changed it: a store through another address, one that overlaps, a call, an atomic or bulk
instruction, or the head of a loop, at which the handler of a signal may run.  So a program does
what it did, whatever it does with addresses, except that another thread's plain store may be seen
later, as the memory model of WebAssembly threads allows.

Functions with instructions that are not known here stay as they are, and so do whole modules whose
code is not what it should be: the engine will say what is wrong with them.
"""

from __future__ import annotations

import re

from wali_core.rewriting._prepare import CODE, Module, Reader, leb128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Slot = tuple[int, int, int]
    """A local that holds an address, a constant that is added, and the instruction that loads."""

# Opcodes (§5.4).
_BLOCK, _LOOP, _IF, _ELSE, _END, _BR, _BR_IF, _BR_TABLE = 2, 3, 4, 5, 0x0B, 0x0C, 0x0D, 0x0E
_LOCAL_GET, _LOCAL_SET, _LOCAL_TEE = 0x20, 0x21, 0x22
_I32_LOAD, _I64_LOAD, _F32_LOAD, _F64_LOAD = 0x28, 0x29, 0x2A, 0x2B

_I32, _I64, _F32, _F64 = 0x7F, 0x7E, 0x7D, 0x7C

# Of each load: how many bytes, and the type of the value.
_LOADS: Final = {
    _I32_LOAD: (4, _I32),
    _I64_LOAD: (8, _I64),
    _F32_LOAD: (4, _F32),
    _F64_LOAD: (8, _F64),
    **{opcode: (1 << (opcode - 0x2C >> 1), _I32) for opcode in range(0x2C, 0x30)},
    **{opcode: (1 << (opcode - 0x30 >> 1), _I64) for opcode in range(0x30, 0x36)},
}
# Of each store: how many bytes, and the load that gives the same value back, if there is one.
_STORES: Final = {
    0x36: (4, _I32_LOAD),
    0x37: (8, _I64_LOAD),
    0x38: (4, _F32_LOAD),
    0x39: (8, _F64_LOAD),
    **dict.fromkeys((0x3A, 0x3C), (1, None)),
    **dict.fromkeys((0x3B, 0x3D), (2, None)),
    0x3E: (4, None),
}

_LEB: Final = rb"[\x80-\xff]*[\x00-\x7f]"
# One instruction.  br_table has as many labels as it says: _branches reads them.
INSTRUCTION: Final = re.compile(
    rb"|".join(
        (
            rb"[\x20-\x22\x0c\x0d\x10\x23\x24\x3f\x40\x02-\x04\x41\x42]" + _LEB,
            rb"[\x28-\x3e]" + _LEB + _LEB,
            rb"[\x45-\xc4\x00\x01\x05\x0b\x0e\x0f\x1a\x1b]",
            rb"\x11" + _LEB + _LEB,
            rb"\x43[\x00-\xff]{4}|\x44[\x00-\xff]{8}",
            rb"\xfc(?:[\x00-\x07]|[\x08\x0a]" + _LEB + _LEB + rb"|[\x09\x0b]" + _LEB + rb")",
            rb"\xfe(?:\x03\x00|[\x00-\x02\x10-\x4e]" + _LEB + _LEB + rb")",
        )
    )
)

# What else an instruction does to the operands: how many it takes, and whether it leaves one whose
# value is not known here.
_NUMERIC_UNARY: Final = (
    *(0x45, 0x50, *range(0x67, 0x6A), *range(0x79, 0x7C), *range(0x8B, 0x92)),
    *(*range(0x99, 0xA0), *range(0xA7, 0xC5)),
)
_EFFECTS: Final = {
    **dict.fromkeys(range(0x45, 0xC5), (2, True)),
    **dict.fromkeys(_NUMERIC_UNARY, (1, True)),
    **dict.fromkeys((0x41, 0x42, 0x43, 0x44, 0x23, 0x3F), (0, True)),  # constants, global.get, size
    0x40: (1, True),  # memory.grow
    0x1B: (3, True),  # select
    **dict.fromkeys((0x1A, 0x24), (1, False)),  # drop, global.set
    0x01: (0, False),
}
_LEAVES: Final = frozenset((0x00, _BR, _BR_TABLE, 0x0F))  # after these nothing is reached
_UNKNOWN: Final = -1
_MULTI_MEMORY: Final = 0x40  # in the alignment: which memory follows
_MORE: Final = 0x80  # in a byte of LEB128: another follows
_MOST_LOCALS: Final = 40_000  # wasmtime's limit is 50,000


def number_at(body: bytes, at: int) -> tuple[int, int]:
    """A number in LEB128, without its sign, and where it ends.  ``IndexError`` if nowhere."""
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & ~_MORE) << shift
        shift += 7
        if byte < _MORE:
            return value, at


def reuse_values(data: bytes, origin: str) -> bytes:
    """The module with fewer loads.  Raises ``ModuleError`` for what is no module."""
    module = Module(data, origin)
    section = module.section(CODE)
    if section is None:
        return data
    types, functions = module.types(), module.functions()
    reader = Reader(section.body, origin, section.at)
    if reader.count() != len(functions):
        return data
    bodies = []
    for index in functions:
        body = bytes(reader.take(reader.number()))
        if index < len(types):
            body = _Function(body, len(types[index].parameters)).rewritten() or body
        bodies.append(leb128(len(body)) + body)
    module.overwrite(CODE, 0, len(section.body), leb128(len(bodies)) + b"".join(bodies))
    return module.encode()


class _Unsupported(Exception):
    """There is something in a function that is not known here."""


class _Label:
    """Where branches to a block go: what holds there on all ways that were seen, if there is one.

    ``before`` is what held before an ``if``, for its other branch.
    """

    __slots__ = ("before", "is_loop", "there")

    def __init__(self, *, is_loop: bool, before: set[Slot] | None) -> None:
        self.is_loop, self.before = is_loop, before
        self.there: set[Slot] | None = None

    def join(self, held: set[Slot]) -> None:
        if not self.is_loop:
            self.there = set(held) if self.there is None else self.there & held


class _Function:
    """One function: read from front to back once, with what is known at each instruction.

    ``_held`` are the slots whose values are in their locals; None where nothing is reached.
    ``_operands`` are the topmost operands: the number of the local that one comes from, or
    ``_UNKNOWN``, which is also what lies below.
    """

    def __init__(self, body: bytes, parameters: int) -> None:
        self._body = body
        self._held: set[Slot] | None = set()
        self._operands: list[int] = []
        self._labels = [_Label(is_loop=False, before=None)]
        self._uses: list[tuple[int, int, Slot]] = []  # loads to be replaced, with their address
        self._sources: list[tuple[int, Slot]] = []  # where a value is on top that could be kept
        self._first = parameters  # the number of the first local that is added

    def rewritten(self) -> bytes | None:
        """The function with the loads replaced; None where it stays as it is."""
        try:
            start = self._read_locals()
            self._read(start)
        except (_Unsupported, IndexError):
            return None
        kept = sorted({slot for _, _, slot in self._uses})
        if not kept or self._first + len(kept) > _MOST_LOCALS:
            return None
        numbers = {slot: leb128(self._first + i) for i, slot in enumerate(kept)}
        edits = [
            (at, at, bytes([_LOCAL_TEE]) + numbers[slot])
            for at, slot in self._sources
            if slot in numbers
        ]
        edits += [(at, end, bytes([_LOCAL_GET]) + numbers[slot]) for at, end, slot in self._uses]
        pieces = [self._declared(kept)]
        for at, end, piece in sorted(edits):
            pieces += (self._body[start:at], piece)
            start = end
        return b"".join((*pieces, self._body[start:]))

    # --- locals -----------------------------------------------------------------------------------

    def _number(self, at: int) -> tuple[int, int]:
        return number_at(self._body, at)

    def _read_locals(self) -> int:
        self._groups, at = self._number(0)
        self._groups_at = at
        for _ in range(self._groups):
            count, at = self._number(at)
            self._first += count
            if self._body[at] not in (_I32, _I64, _F32, _F64):
                raise _Unsupported
            at += 1
        self._groups_end = at
        return at

    def _declared(self, kept: list[Slot]) -> bytes:
        """The declarations of the locals, the new ones behind the others, one by one."""
        new = b"".join(bytes([1, _LOADS[load][1]]) for _, _, load in kept)
        old = self._body[self._groups_at : self._groups_end]
        return leb128(self._groups + len(kept)) + old + new

    # --- instructions -----------------------------------------------------------------------------

    def _read(self, at: int) -> None:
        body, operands = self._body, self._operands
        before = at  # where the instruction before began
        end = at
        while self._labels:
            at = end
            match = INSTRUCTION.match(body, at)
            if match is None:
                raise _Unsupported
            end = match.end()
            opcode = body[at]
            if opcode == _LOCAL_GET:
                operands.append(self._number(at + 1)[0])
            elif opcode in _EFFECTS:
                takes, leaves = _EFFECTS[opcode]
                if takes:
                    del operands[-takes:]
                if leaves:
                    operands.append(_UNKNOWN)
            elif opcode in _LOADS:
                self._load(opcode, before, at, end)
            elif opcode in _STORES:
                self._store(opcode, at)
            elif opcode in (_LOCAL_SET, _LOCAL_TEE):
                self._set(self._number(at + 1)[0], tee=opcode == _LOCAL_TEE)
            else:
                end = self._control(opcode, at, end)
            before = at
        if end != len(body):
            raise _Unsupported

    def _pop(self) -> int:
        return self._operands.pop() if self._operands else _UNKNOWN

    def _load(self, opcode: int, before: int, at: int, end: int) -> None:
        address = self._pop()
        self._operands.append(_UNKNOWN)
        if address == _UNKNOWN or self._held is None:
            return
        slot = address, self._offset(at + 1), opcode
        if slot not in self._held:
            self._held.add(slot)
            self._sources.append((end, slot))
        elif self._body[before] == _LOCAL_GET:
            self._uses.append((before, end, slot))

    def _store(self, opcode: int, at: int) -> None:
        self._pop()
        address = self._pop()
        if self._held is None:
            return
        if address == _UNKNOWN:
            self._held = set()
            return
        size, load = _STORES[opcode]
        start = self._offset(at + 1)
        self._held = {
            slot
            for slot in self._held
            if slot[0] == address
            and (slot[1] + _LOADS[slot[2]][0] <= start or slot[1] >= start + size)
        }
        if load is not None:
            self._held.add((address, start, load))
            self._sources.append((at, (address, start, load)))

    def _offset(self, at: int) -> int:
        alignment, at = self._number(at)
        if alignment >= _MULTI_MEMORY:
            raise _Unsupported
        return self._number(at)[0]

    def _set(self, local: int, *, tee: bool) -> None:
        self._pop()
        if local in self._operands:
            self._operands[:] = [_UNKNOWN if one == local else one for one in self._operands]
        if tee:
            self._operands.append(local)
        if self._held:
            self._held = {slot for slot in self._held if slot[0] != local}

    def _control(self, opcode: int, at: int, end: int) -> int:
        """What is left: branches, blocks, and all that may do anything.  Where it ends."""
        if opcode == _BR_IF:
            self._pop()
            self._branch(self._number(at + 1)[0])
            return end
        if opcode == _BR:
            self._branch(self._number(at + 1)[0])
        elif opcode == _BR_TABLE:
            count, end = self._number(end)
            for _ in range(count + 1):
                label, end = self._number(end)
                self._branch(label)
        elif opcode in (_BLOCK, _LOOP, _IF):
            self._begin(opcode)
        elif opcode == _ELSE:
            self._else()
        elif opcode == _END:
            self._end()
        elif self._held is not None and opcode not in _LEAVES:
            self._held = set()  # a call, an atomic or bulk instruction: anything may have happened
        if opcode in _LEAVES:
            self._held = None
        self._operands.clear()
        return end

    def _branch(self, depth: int) -> None:
        label = self._labels[-1 - depth]
        if self._held is not None:
            label.join(self._held)

    def _begin(self, opcode: int) -> None:
        before = None if self._held is None or opcode != _IF else set(self._held)
        self._labels.append(_Label(is_loop=opcode == _LOOP, before=before))
        if opcode == _LOOP and self._held is not None:
            self._held = set()

    def _else(self) -> None:
        label = self._labels[-1]
        if self._held is not None:
            label.join(self._held)
        self._held, label.before = label.before, None

    def _end(self) -> None:
        label = self._labels.pop()
        for held in (self._held, label.before):
            if held is not None and not label.is_loop:
                label.join(held)
        if not label.is_loop:
            self._held = label.there
