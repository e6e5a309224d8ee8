"""A pass over the code of a WALI program in a process of its own: it looks for signals by itself.

In every cycle through its code there is a *poll*: the load of a flag, and a branch to code out of
the way which calls the host.  Cycles are those of loops, which are polled at their heads, and those
of calls: through a table, and the ones that a walk through the calls by their names finds closed.
What is in no cycle comes to its end by itself, so it has none, unless it could take long.

The flag is a memory of its own, which is added to the module.  The host knows its address, and
writes to it from the handler of a signal; the program has no instruction that names it.  What a
poll calls is the one element of a table that is added as well: the host puts it there.  So nothing
that the module has gets another number.  The start function is left to be called when both are in
their place.

wasmtime is told by hints that the branches are not taken (the branch hinting proposal).
"""

from __future__ import annotations

import re

from wali_core._abi import ATOMICS_EXPORT, FLAG_EXPORT, POLLED_EXPORT
from wali_core.rewriting._atomics import KINDS, PREFIX, Atomics
from wali_core.rewriting._prepare import (
    CODE,
    EXPORT,
    EXTERN_FUNC,
    EXTERN_MEMORY,
    EXTERN_TABLE,
    FUNCTION,
    GARBAGE_COLLECTION,
    GC_PREFIX,
    MEMORY,
    START_THREAD_EXPORT,
    TABLE,
    TYPE,
    Module,
    Reader,
    encode_name,
    export_start,
    leb128,
    refuse_exports,
)
from wali_core.rewriting._reuse import number_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

_LOOP, _BR_TABLE, _SELECT_TYPED, _TRY_TABLE = 0x03, 0x0E, 0x1C, 0x1F
_CALL, _RETURN_CALL = 0x10, 0x12
_INDIRECT: Final = frozenset((0x11, 0x13, 0x14, 0x15))  # call_indirect, call_ref; and as tail calls
_REFERENCES: Final = frozenset(b"\x63\x64")
_CATCH: Final = frozenset(b"\x00\x01")  # catch, catch_ref

_LEB: Final = rb"[\x80-\xff]*[\x00-\x7f]"
# Alignment and offset; bit 6 of the first says that a memory is named between the two.
_PLACE: Final = (
    rb"(?:[\x00-\x3f]|[\x80-\xbf]" + _LEB + rb"|(?:[\x40-\x7f]|[\xc0-\xff]" + _LEB + rb")" + _LEB
    + rb")" + _LEB
)  # fmt: skip
_BLOCK_TYPE: Final = rb"(?:[\x63\x64]" + _LEB + rb"|(?![\x63\x64])" + _LEB + rb")"
# What is neither replaced nor closes a cycle nor has a vector of operands, as many as there are.
_PLAIN: Final = re.compile(
    rb"(?:"
    + rb"|".join(
        (
            rb"[\x20-\x26\x41\x42\x0c\x0d\x08\x3f\x40\xd0\xd2\xd5\xd6]" + _LEB,
            rb"[\x28-\x3e]" + _PLACE,
            rb"[\x45-\xc4\x00\x01\x05\x0a\x0b\x0f\x1a\x1b\xd1\xd3\xd4]",
            rb"[\x02\x04]" + _BLOCK_TYPE,
            rb"\x43[\x00-\xff]{4}|\x44[\x00-\xff]{8}",
            rb"\xfc(?:[\x00-\x07\x13-\x16]|[\x08\x0a\x0c\x0e]" + _LEB + _LEB
            + rb"|[\x09\x0b\x0d\x0f-\x11]" + _LEB + rb")",
            rb"\xfe(?:\x03\x00|[\x10-\x4e]" + _PLACE + rb")",
            # Vectors: memory, constants, lanes, lanes in memory, and all others.
            rb"\xfd(?:[\x00-\x0b\x5c\x5d]" + _PLACE + rb"|[\x0c\x0d][\x00-\xff]{16}"
            + rb"|[\x15-\x22][\x00-\xff]|[\x54-\x5b]" + _PLACE + rb"[\x00-\xff]"
            + rb"|[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\xff][\x01-\x7f])",
        )
    )
    + rb")*+"
)  # fmt: skip

_MUCH: Final = 1 << 27  # bytes of code, which take a tenth of a second at the most
_MULTI_MEMORY: Final = 0x40
_ALIGNED: Final = 2  # to 1 << 2 bytes
_HINTS: Final = b"metadata.code.branch_hint"
_UNLIKELY: Final = b"\x01\x00"  # a hint of one byte, which says no


def add_polls(data: bytes, origin: str) -> bytes:
    """The module with polls.

    Raises ``ModuleError``, also for one that uses the names of what is added, and where there are
    instructions that are not known here.
    """
    module = Module(data, origin)
    refuse_exports(module, FLAG_EXPORT, POLLED_EXPORT, ATOMICS_EXPORT)
    section = module.section(CODE)
    if section is None:
        return data
    imports = sum(item.kind == EXTERN_FUNC for item in module.imports())
    reader = Reader(section.body, origin, section.at)
    functions = [_read(reader, imports + i) for i in range(reader.count())]
    _spare_beginnings(module, functions, imports)
    closing, order = _closing(functions, imports, _entries(module))
    for number in _long(functions, imports, closing, order):
        functions[number].polls_first = True
    poll = _Poll(module, imports + len(functions))
    atomics = poll.atomics() if _waits(module, functions, imports) else None
    bodies, hints = [], []
    for number, function in enumerate(functions):
        calls = [at for at, called in function.calls if called - imports in closing[number]]
        body, at = function.polled(poll, calls, atomics)
        bodies.append(leb128(len(body)) + body)
        if at:
            places = b"".join(leb128(place) + _UNLIKELY for place in at)
            hints.append(leb128(imports + number) + leb128(len(at)) + places)
    bodies.append(poll.add())
    bodies += atomics.add(poll.load + poll.branch) if atomics else []
    module.overwrite(CODE, 0, len(section.body), leb128(len(bodies)) + b"".join(bodies))
    # What hints there were are for code that was elsewhere.
    module.replace_custom(_HINTS, leb128(len(hints)) + b"".join(hints), CODE)
    export_start(module)
    return module.encode()


def _spare_beginnings(module: Module, functions: list[_Body], imports: int) -> None:
    """Have no poll before a thread begins.

    It has no stack of its own before its function has run a little: a handler would use the first
    thread's, over what lies there.
    """
    for export in module.exports():
        if export.name == START_THREAD_EXPORT.encode():
            functions[export.index - imports].indirect.clear()


def _waits(module: Module, functions: list[_Body], imports: int) -> bool:
    """Has it a memory to wait on, and does it after its start: see ``_atomics.py``?"""
    memories = [item.memory for item in module.imports() if item.memory is not None]
    start = module.start()
    waiting = (number for number, function in enumerate(functions, imports) if function.atomics)
    return any(memory.shared for memory in memories) and any(n != start for n in waiting)


class _Poll:
    """The instructions of a poll, and what they need of the module."""

    def __init__(self, module: Module, function: int) -> None:
        self._module, self._function = module, function
        imports = module.imports()
        self._memory, self._table = (
            module.count(section) + sum(item.kind == kind for item in imports)
            for section, kind in ((MEMORY, EXTERN_MEMORY), (TABLE, EXTERN_TABLE))
        )
        place = bytes([_ALIGNED | _MULTI_MEMORY]) + leb128(self._memory) + b"\0"
        self.load = b"\x41\x00\x28" + place  # i32.const 0, i32.load
        self.branch = b"\x04\x40\x10" + leb128(function) + b"\x0b"  # if, call, end

    def atomics(self) -> Atomics:
        """What comes behind what a poll needs."""
        return Atomics(self._module, self._function + 1, self._table + 1)

    def add(self) -> bytes:
        """Add what it needs to the module; the function that it calls."""
        module, kind = self._module, leb128(self._module.type_count())
        module.append(TYPE, b"\x60\x00\x00")
        module.append(FUNCTION, kind)
        module.append(MEMORY, b"\x01\x01\x01")  # one page, no less and no more
        module.append(TABLE, b"\x70\x01\x01\x01")  # one funcref
        for name, what, index in (
            (FLAG_EXPORT, EXTERN_MEMORY, self._memory),
            (POLLED_EXPORT, EXTERN_TABLE, self._table),
        ):
            module.append(EXPORT, encode_name(name.encode()) + bytes([what]) + leb128(index))
        body = b"\x00\x41\x00\x11" + kind + leb128(self._table) + b"\x0b"
        return leb128(len(body)) + body


class _Body:
    """The code of a function: where its loops begin, its calls, and where it waits."""

    __slots__ = ("atomics", "calls", "code", "indirect", "loops", "polls_first", "start")

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.start = _behind_locals(code)
        self.polls_first = False
        self.loops: list[int] = []  # behind the loop instruction
        self.indirect: list[int] = []  # before the call
        self.calls: list[tuple[int, int]] = []  # the same, and what is called
        self.atomics: list[tuple[int, int, int, int]] = []  # from, to, which, and its offset

    def polled(
        self, poll: _Poll, calls: list[int], atomics: Atomics | None
    ) -> tuple[bytes, list[int]]:
        """The code with its polls, also before these calls, and where their branches are."""
        first = [self.start] if self.polls_first else []
        edits = [(at, at, b"") for at in (*first, *self.loops, *self.indirect, *calls)]
        if atomics is not None:
            edits += [(at, to, atomics.call(*which)) for at, to, *which in self.atomics]
        pieces: list[bytes] = []
        branches: list[int] = []
        start = size = 0
        for at, end, instead in sorted(edits):
            piece = instead or poll.load + poll.branch
            size += at - start
            if not instead:
                branches.append(size + len(poll.load))
            pieces += (self.code[start:at], piece)
            size += len(piece)
            start = end
        return b"".join((*pieces, self.code[start:])), branches


def _read(reader: Reader, number: int) -> _Body:
    code, at = bytes(reader.take(reader.number())), 0
    try:
        body = _Body(code)
        at = _behind_plain(code, body.start)
        while at < len(code):
            at = _behind_plain(code, _step(body, at))
    except (IndexError, ValueError):
        of_gc = code[at : at + 1] == bytes([GC_PREFIX])
        known = f"{GARBAGE_COLLECTION}:" if of_gc else "unknown here:"
        what = f"function {number}: {known} instruction 0x{code[at : at + 2].hex()}"
        raise reader.error(what, reader.at - len(code) + at) from None
    return body


def _behind_plain(code: bytes, at: int) -> int:
    match = _PLAIN.match(code, at)
    assert match is not None  # none is some, too
    return match.end()


def _step(body: _Body, at: int) -> int:
    """One instruction that is not plain; where it ends.  ``ValueError``, ``IndexError`` if none."""
    code, opcode = body.code, body.code[at]
    if opcode == _LOOP:
        end = _behind_type(code, at + 1)
        body.loops.append(end)
        return end
    if opcode in (_CALL, _RETURN_CALL):
        called, end = number_at(code, at + 1)
        body.calls.append((at, called))
        return end
    if opcode in _INDIRECT:
        body.indirect.append(at)
        _, end = number_at(code, at + 1)
        return number_at(code, end)[1] if opcode in (0x11, 0x13) else end
    if opcode == PREFIX:
        kind, end = KINDS.index(code[at + 1]), _behind_number(code, at + 2)
        if code[at + 2] & _MULTI_MEMORY:
            end = _behind_number(code, end)
        offset, end_of = number_at(code, end)
        body.atomics.append((at, end_of, kind, offset))
        return end_of
    return _behind_vector(code, at)


def _behind_number(code: bytes, at: int) -> int:
    return number_at(code, at)[1]


def _behind_vector(code: bytes, at: int) -> int:
    opcode = code[at]
    if opcode == _TRY_TABLE:
        count, at = number_at(code, _behind_type(code, at + 1))
        for _ in range(count):
            names_tag = code[at] in _CATCH
            at = number_at(code, at + 1)[1]
            if names_tag:  # and then the label
                at = number_at(code, at)[1]
        return at
    if opcode not in (_BR_TABLE, _SELECT_TYPED):
        raise ValueError(opcode)
    count, at = number_at(code, at + 1)
    for _ in range(count + 1 if opcode == _BR_TABLE else count):
        at = number_at(code, at)[1] if opcode == _BR_TABLE else _behind_type(code, at)
    return at


def _behind_type(code: bytes, at: int) -> int:
    """Behind a type, of a block or a value, which is one number, or two for some references."""
    return number_at(code, at + 1 if code[at] in _REFERENCES else at)[1]


def _behind_locals(code: bytes) -> int:
    groups, at = number_at(code, 0)
    for _ in range(groups):
        at = _behind_type(code, number_at(code, at)[1])
    return at


def _entries(module: Module) -> Iterator[int]:
    """Where a program may begin."""
    start = module.start()
    if start is not None:
        yield start
    yield from (export.index for export in module.exports() if export.kind == EXTERN_FUNC)


def _closing(
    functions: list[_Body], imports: int, entries: Iterable[int]
) -> tuple[list[set[int]], list[int]]:
    """For each function, which others it calls by name that are on the way to it.

    On the way of a walk through all calls, depth first, from the entries on: what leads back closes
    a cycle, and every cycle has one such call.  And all functions, each behind those that it calls
    otherwise.
    """
    calls = [sorted({n - imports for _, n in f.calls if n >= imports}) for f in functions]
    closing: list[set[int]] = [set() for _ in functions]
    on_the_way: set[int] = set()
    seen: dict[int, None] = {}  # in the order in which they were left
    for root in (*(n - imports for n in entries if n >= imports), *range(len(functions))):
        way = [] if root in seen else [(root, iter(calls[root]))]
        on_the_way.update(function for function, _ in way)
        while way:
            function, left = way[-1]
            called = next(left, None)
            if called is None:
                seen[function] = None
                on_the_way.remove(function)
                way.pop()
            elif called in on_the_way:
                closing[function].add(called)
            elif called not in seen:
                way.append((called, iter(calls[called])))
                on_the_way.add(called)
    return closing, list(seen)


def _long(
    functions: list[_Body], imports: int, closing: list[set[int]], order: list[int]
) -> Iterator[int]:
    """The functions that could go on for long without a poll, by calls that are in no cycle.

    One that calls another twice, which does so in turn, comes to its end, but after forty of them
    nobody is there to see it.  So where all that a function can come to is much code, it begins
    with a poll, and counts for nothing where it is called.
    """
    sizes = [0] * len(functions)
    for number in order:
        function = functions[number]
        called = (n - imports for _, n in function.calls if n >= imports)
        size = len(function.code) + sum(sizes[n] for n in called if n not in closing[number])
        if size <= _MUCH:
            sizes[number] = size
        else:
            yield number
