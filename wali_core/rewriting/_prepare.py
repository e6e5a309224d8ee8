"""Small changes to a module before it is compiled: passes over its decoded sections.

WALI binaries define their memory and keep their function table to themselves, but threads need one
memory for several instances, and signals a way to call what is in the table.  ``prepare`` imports
the one and exports the other.  A start function runs before anybody can know the memory of the new
instance, but in a WASI guest it may make calls that need it: ``defer_start`` leaves it to be called
afterwards.  The engine validates what comes out, so nothing here is trusted; what it
must not do is change the meaning of a valid module, or do worse to an invalid one than refuse it.
Sections that no pass touches are copied as they stand, whatever is in them.

"§" is a section of the WebAssembly core specification, release 3.0.
"""

from __future__ import annotations

import re

from wali_core._abi import START_EXPORT
from wali_core._errors import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    _Entry = TypeVar("_Entry")

MEMORY_IMPORT: Final = (b"wali", b"memory")
"""How a prepared module imports the memory that it defined."""

CALL_EXPORT: Final = "__wali_call"
START_THREAD_EXPORT: Final = "__wali_start_thread"
"""Functions of a prepared module that call one of its table 0, by its index: the handler of a
signal, with the number; and what a thread begins with, with its number and an argument.  An index
that is none, or another type, is the trap that it always is.
"""

PREAMBLE: Final = b"\0asm\1\0\0\0"

# Sections (§5.5.2), in the order in which they must come.
CUSTOM: Final = 0
TYPE, IMPORT, FUNCTION, TABLE, MEMORY, TAG, GLOBAL = 1, 2, 3, 4, 5, 13, 6
EXPORT, START, ELEMENT, DATA_COUNT, CODE, DATA = 7, 8, 9, 12, 10, 11
_ORDER: Final = (
    *(TYPE, IMPORT, FUNCTION, TABLE, MEMORY, TAG, GLOBAL),
    *(EXPORT, START, ELEMENT, DATA_COUNT, CODE, DATA),
)
_RANK: Final = {identifier: rank for rank, identifier in enumerate(_ORDER, 1)}

# What an import or an export is (§5.4.1).
EXTERN_FUNC, EXTERN_TABLE, EXTERN_MEMORY, EXTERN_GLOBAL, EXTERN_TAG = range(5)

# Flags of limits (§5.3.10; "shared" is of the threads proposal).
_HAS_MAXIMUM, _SHARED, IS_64 = 1, 2, 4
_KNOWN_FLAGS: Final = 7
_MOST_PAGES: Final = 1 << 16

# Value types of one byte (§5.3.1, 5.3.2, 5.3.4), and the prefixes of typed references.
_SHORT_TYPES: Final = frozenset(
    b"\x7f\x7e\x7d\x7c\x7b\x74\x73\x72\x71\x70\x6f\x6e\x6d\x6c\x6b\x6a\x69"
)
_REFERENCES: Final = frozenset(b"\x63\x64")
_FUNCTION_TYPE: Final = 0x60
_REC, _SUB, _SUB_FINAL, _STRUCT, _ARRAY = 0x4E, 0x50, 0x4F, 0x5F, 0x5E
_PACKED_TYPES: Final = frozenset(b"\x77\x78")  # i16 and i8, in those two
_FUNCREF: Final = b"\x70"
_FUNCREFS: Final = frozenset((_FUNCREF, b"\x63\x70"))  # (ref null func) is the same type
GARBAGE_COLLECTION: Final = "WALI programs may not use WebAssembly's garbage collection"
GC_PREFIX: Final = 0xFB
_I32: Final = 0x7F
_FILLED_TABLE: Final = 0x40

# Constant expressions (§5.4).
_END, _GLOBAL_GET, _REF_NULL, _REF_FUNC = 0x0B, 0x23, 0xD0, 0xD2
_I32_CONST, _I64_CONST, _F32_CONST, _F64_CONST = 0x41, 0x42, 0x43, 0x44
_SIGNED_BITS: Final = {_I32_CONST: 32, _I64_CONST: 64, _REF_NULL: 33}
_FLOAT_BYTES: Final = {_F32_CONST: 4, _F64_CONST: 8}
_ARITHMETIC: Final = frozenset(b"\x6a\x6b\x6c\x7c\x7d\x7e")  # add, sub, mul of i32 and of i64
_VECTOR: Final = 0xFD
_V128_CONST: Final = 12

_LOCAL_GET, _CALL_INDIRECT = 0x20, 0x11
_DOWN, _UP = b"\x80\x7f", b"\x80\x01"  # the 128 bytes of LLVM's red zone, in LEB128

_SETS_HANDLERS: Final = (b"wali", b"SYS_rt_sigaction")

_MORE: Final = 0x80  # in a byte of LEB128: another follows
# wasmtime's own limit for every kind of entry.
_MOST_ENTRIES: Final = 1_000_000
# Compilers write about 30; without a limit a file of empty ones would become as many objects.
_MOST_SECTIONS: Final = 10_000


class Reader:
    """Reads a section from front to back.  Whatever is wrong there is a ``ModuleError``."""

    __slots__ = ("at", "base", "data", "origin")

    def __init__(self, data: bytes | memoryview, origin: str, base: int = 0) -> None:
        self.data, self.origin, self.base = data, origin, base
        self.at = 0

    def error(self, what: str, at: int | None = None) -> ModuleError:
        """What is wrong, with its place in the file."""
        place = self.base + (self.at if at is None else at)
        return ModuleError(f"{self.origin}: byte {place}: {what}")

    @property
    def left(self) -> int:
        """How many bytes were not read yet."""
        return len(self.data) - self.at

    def byte(self) -> int:
        """One byte."""
        if self.at >= len(self.data):
            raise self.error("the file or a section of it ends too early")
        self.at += 1
        return self.data[self.at - 1]

    def take(self, size: int) -> bytes | memoryview:
        """So many bytes, not copied out of a section of the file."""
        if size > self.left:
            raise self.error(f"{size} bytes should follow, but {self.left} do")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, bits: int = 32) -> int:
        """An unsigned number in LEB128 (§5.2.2); more bytes than needed are allowed, to a limit."""
        start = self.at
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & ~_MORE) << shift
            shift += 7
            if byte < _MORE:
                break
            if shift >= bits:
                raise self.error(f"a number takes more bytes than {bits} bits need", start)
        if value >> bits:
            raise self.error(f"a number does not fit {bits} bits", start)
        return value

    def skip_signed(self, bits: int) -> None:
        """A signed number in LEB128, of which only the length matters here."""
        start = self.at
        while self.byte() & _MORE:
            if (self.at - start) * 7 >= bits:
                raise self.error(f"a number takes more bytes than {bits} bits need", start)

    def name(self) -> bytes:
        """A name (§5.2.4).  Whether it is UTF-8 is the engine's business."""
        return bytes(self.take(self.number()))

    def count(self) -> int:
        """The number of entries of a vector (§5.1.3), of at least one byte each."""
        start = self.at
        count = self.number()
        if count > self.left:
            raise self.error(f"{count} entries in {self.left} bytes", start)
        if count > _MOST_ENTRIES:
            raise self.error(f"{count} entries, more than wasmtime's {_MOST_ENTRIES}", start)
        return count

    def vector(self, entry: Callable[[Reader], _Entry]) -> list[_Entry]:
        """A vector (§5.1.3)."""
        return [entry(self) for _ in range(self.count())]

    def skip_type(self) -> None:
        """A value type or reference type (§5.3.4)."""
        byte = self.byte()
        if byte in _REFERENCES:
            self.skip_signed(33)
        elif byte not in _SHORT_TYPES:
            raise self.error(f"an unknown value type, {byte:#04x}", self.at - 1)

    def type_bytes(self) -> bytes:
        """A value type as it stands in the file."""
        start = self.at
        self.skip_type()
        return bytes(self.data[start : self.at])

    def recursive_type(self) -> int:
        """A group of types (§5.3.9); of how many."""
        if self.data[self.at : self.at + 1] != bytes([_REC]):
            self._skip_defined_type()
            return 1
        self.byte()
        count = self.count()
        for _ in range(count):
            self._skip_defined_type()
        return count

    def _skip_defined_type(self) -> None:
        """A type that others can name (§5.3.8)."""
        form = self.byte()
        if form in {_SUB, _SUB_FINAL}:
            self.vector(Reader.number)
            form = self.byte()
        if form == _FUNCTION_TYPE:
            self.vector(Reader.skip_type)
            self.vector(Reader.skip_type)
        elif form == _STRUCT:
            self.vector(Reader._skip_field)
        elif form == _ARRAY:
            self._skip_field()
        else:
            raise self.error(f"an unknown type, {form:#04x}", self.at - 1)

    def _skip_field(self) -> None:
        if self.left and self.data[self.at] in _PACKED_TYPES:
            self.byte()
        else:
            self.skip_type()
        self.byte()  # may it change?

    def limits(self) -> tuple[int, int, int | None]:
        """Flags, minimum and maximum of a table or memory (§5.3.10), numbers of 64 bits in all."""
        flags = self.byte()
        if flags > _KNOWN_FLAGS:
            raise self.error(f"unknown flags of limits, {flags:#04x}", self.at - 1)
        return flags, self.number(64), self.number(64) if flags & _HAS_MAXIMUM else None

    def skip_expression(self) -> None:
        """A constant expression (§5.4.9), up to its end; those of the GC proposal are refused."""
        while (opcode := self.byte()) != _END:
            start = self.at - 1
            if opcode in _SIGNED_BITS:
                self.skip_signed(_SIGNED_BITS[opcode])
            elif opcode in _FLOAT_BYTES:
                self.take(_FLOAT_BYTES[opcode])
            elif opcode in {_GLOBAL_GET, _REF_FUNC}:
                self.number()
            elif opcode == _VECTOR and self.number() == _V128_CONST:
                self.take(16)
            elif opcode not in _ARITHMETIC:
                known = f"{GARBAGE_COLLECTION}: " if opcode == GC_PREFIX else ""
                raise self.error(f"{known}a constant expression with opcode {opcode:#04x}", start)


# --- what sections hold ---------------------------------------------------------------------------


class MemoryLimits:
    """The type of a 32-bit memory: sizes in pages of 64 KiB, and whether threads may share it."""

    __slots__ = ("maximum", "minimum", "shared")

    def __init__(self, minimum: int, maximum: int | None, *, shared: bool) -> None:
        self.minimum, self.maximum, self.shared = minimum, maximum, shared

    def encode(self) -> bytes:
        """The memory type (§5.3.11)."""
        if self.maximum is None:
            return b"\0" + leb128(self.minimum)
        flags = _HAS_MAXIMUM | (_SHARED if self.shared else 0)
        return bytes([flags]) + leb128(self.minimum) + leb128(self.maximum)

    def __repr__(self) -> str:
        shared = " shared" if self.shared else ""
        return f"<MemoryLimits {self.minimum} to {self.maximum} pages{shared}>"


def read_memory(reader: Reader) -> MemoryLimits:
    """A memory type (§5.3.11) that ``wali`` can offer."""
    start = reader.at
    flags, minimum, maximum = reader.limits()
    if flags & IS_64:
        raise reader.error("a 64-bit memory (memory64): build the module for wasm32", start)
    if flags & _SHARED and maximum is None:
        raise reader.error("a shared memory without a maximum", start)
    if not minimum <= (_MOST_PAGES if maximum is None else maximum) <= _MOST_PAGES:
        raise reader.error(f"a memory of {minimum} to {maximum} pages", start)
    return MemoryLimits(minimum, maximum, shared=bool(flags & _SHARED))


class FunctionType:
    """A function type (§5.3.6): the bytes of each parameter and of each result, 0x7f for i32."""

    __slots__ = ("parameters", "results")

    def __init__(self, reader: Reader) -> None:
        if (form := reader.byte()) != _FUNCTION_TYPE:
            what = f"{GARBAGE_COLLECTION}: type {form:#04x}"
            raise reader.error(what, reader.at - 1)
        self.parameters = reader.vector(Reader.type_bytes)
        self.results = reader.vector(Reader.type_bytes)


class Import:
    """An import (§5.5.5); its type lies at ``start`` to ``end`` in the section.

    ``type_index`` is a function's, ``memory`` a memory's; others have neither.
    """

    __slots__ = ("end", "kind", "memory", "module", "name", "start", "type_index")

    def __init__(self, reader: Reader) -> None:
        self.module, self.name = reader.name(), reader.name()
        self.kind = reader.byte()
        self.start = reader.at
        self.type_index: int | None = None
        self.memory: MemoryLimits | None = None
        self._read_type(reader)
        self.end = reader.at

    def _read_type(self, reader: Reader) -> None:
        if self.kind == EXTERN_FUNC:
            self.type_index = reader.number()
        elif self.kind == EXTERN_TABLE:
            reader.skip_type()
            reader.limits()
        elif self.kind == EXTERN_MEMORY:
            self.memory = read_memory(reader)
        elif self.kind == EXTERN_GLOBAL:
            reader.skip_type()
            reader.byte()
        elif self.kind == EXTERN_TAG:
            reader.byte()
            reader.number()
        else:
            raise reader.error(f"an import of unknown kind {self.kind:#04x}", self.start - 1)


class Export:
    """An export (§5.5.10): what kind of thing, and which of those."""

    __slots__ = ("index", "kind", "name")

    def __init__(self, reader: Reader) -> None:
        self.name = reader.name()
        self.kind, self.index = reader.byte(), reader.number()


class Table:
    """A table that is defined here (§5.5.7): type of its elements, sizes, whether it is filled."""

    __slots__ = ("element", "filled", "is_64", "maximum", "minimum")

    def __init__(self, reader: Reader) -> None:
        self.filled = reader.left > 0 and reader.data[reader.at] == _FILLED_TABLE
        if self.filled:
            reader.take(2)
        self.element = reader.type_bytes()
        flags, self.minimum, self.maximum = reader.limits()
        self.is_64 = bool(flags & IS_64)
        if self.filled:
            reader.skip_expression()


class Global:
    """A global that is defined here (§5.5.9)."""

    __slots__ = ("mutable", "type")

    def __init__(self, reader: Reader) -> None:
        self.type = reader.type_bytes()
        self.mutable = bool(reader.byte())
        reader.skip_expression()


def leb128(value: int) -> bytes:
    """An unsigned number in as few bytes as possible (§5.2.2)."""
    out = bytearray()
    while value >= _MORE:
        out.append(value % _MORE | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_name(name: bytes) -> bytes:
    """A name (§5.2.4)."""
    return leb128(len(name)) + name


# --- the module -----------------------------------------------------------------------------------


class Section:
    """A section (§5.5.2).  ``head`` is its id and size as they are, or shall be, in the file."""

    __slots__ = ("at", "body", "head", "id")

    def __init__(
        self, identifier: int, head: bytes | memoryview, body: bytes | memoryview, at: int
    ) -> None:
        self.id, self.head, self.body, self.at = identifier, head, body, at

    def replace(self, body: bytes) -> None:
        """Give it another body."""
        self.head, self.body = bytes([self.id]) + leb128(len(body)), body


class Module:
    """A decoded module: its sections in order; their entries, decoded when they are asked for."""

    def __init__(self, data: bytes, origin: str) -> None:
        self.origin = origin
        self._data = data
        self._changed = False
        if data[:8] != PREAMBLE:
            raise ModuleError(f"{origin}: byte 0: not the preamble of a core WebAssembly module")
        self.sections = self._read_sections(Reader(memoryview(data), origin))

    @staticmethod
    def _read_sections(reader: Reader) -> list[Section]:
        sections: list[Section] = []
        last = 0
        reader.at = len(PREAMBLE)
        while reader.left:
            start = reader.at
            identifier = reader.byte()
            rank = _RANK.get(identifier, 0)
            if identifier != CUSTOM and rank <= last:
                what = "a section out of order" if rank else "an unknown section"
                raise reader.error(f"{what}, with id {identifier}", start)
            if len(sections) == _MOST_SECTIONS:
                raise reader.error(f"more than {_MOST_SECTIONS} sections", start)
            last = rank or last
            size = reader.number()
            at = reader.at
            body = reader.take(size)
            sections.append(Section(identifier, reader.data[start:at], body, at))
        return sections

    def error(self, what: str, identifier: int) -> ModuleError:
        """What is wrong, with the place of a section in the file."""
        section = self.section(identifier)
        return ModuleError(f"{self.origin}: byte {section.at if section else 0}: {what}")

    # Looking

    def section(self, identifier: int) -> Section | None:
        """The section with an id other than ``CUSTOM``, if there is one."""
        return next((section for section in self.sections if section.id == identifier), None)

    def _reader(self, identifier: int) -> Reader:
        section = self.section(identifier)
        if section is None:
            return Reader(b"\0", self.origin)  # no entries
        return Reader(section.body, self.origin, section.at)

    def count(self, identifier: int) -> int:
        """How many entries a section has; an absent one has none."""
        return self._reader(identifier).count()

    def _entries(self, identifier: int, entry: Callable[[Reader], _Entry]) -> list[_Entry]:
        reader = self._reader(identifier)
        entries = reader.vector(entry)
        if reader.left:
            raise reader.error(f"{reader.left} more bytes after the last entry of a section")
        return entries

    def types(self) -> list[FunctionType]:
        """The types, if all are functions' (§5.5.4)."""
        return self._entries(TYPE, FunctionType)

    def type_count(self) -> int:
        """How many types there are: entries may be groups of several (§5.5.4)."""
        return sum(self._entries(TYPE, Reader.recursive_type))

    def imports(self) -> list[Import]:
        """The imports (§5.5.5)."""
        return self._entries(IMPORT, Import)

    def functions(self) -> list[int]:
        """The index of the type of each function that is defined here (§5.5.6)."""
        return self._entries(FUNCTION, Reader.number)

    def tables(self) -> list[Table]:
        """The tables that are defined here (§5.5.7)."""
        return self._entries(TABLE, Table)

    def memories(self) -> list[MemoryLimits]:
        """The memories that are defined here (§5.5.8)."""
        return self._entries(MEMORY, read_memory)

    def memory_flags(self) -> list[int]:
        """The flags of those memories, whatever else they are."""
        return self._entries(MEMORY, lambda reader: reader.limits()[0])

    def globals(self) -> list[Global]:
        """The globals that are defined here (§5.5.9)."""
        return self._entries(GLOBAL, Global)

    def exports(self) -> list[Export]:
        """The exports (§5.5.10)."""
        return self._entries(EXPORT, Export)

    def start(self) -> int | None:
        """The index of the start function (§5.5.11), if there is one."""
        if self.section(START) is None:
            return None
        reader = self._reader(START)
        index = reader.number()
        if reader.left:
            raise reader.error(f"{reader.left} more bytes after the start function")
        return index

    # Changing

    def append(self, identifier: int, *entries: bytes) -> None:
        """Add entries at the end of a section, which is made if it is not there."""
        reader = self._reader(identifier)
        count = reader.count() + len(entries)
        body = b"".join((leb128(count), reader.take(reader.left), *entries))
        section = self.section(identifier)
        if section is None:
            section = Section(identifier, b"", b"", 0)
            self.sections.insert(self._place(identifier), section)
        section.replace(body)
        self._changed = True

    def _place(self, identifier: int) -> int:
        """Where a new section goes: behind its last predecessor, else before its first successor.

        That leaves the custom sections where they are looked for: ``name`` behind the others,
        ``dylink.0`` before them.
        """
        ranks = [_RANK.get(section.id, 0) for section in self.sections]
        before = [i for i, rank in enumerate(ranks) if 0 < rank < _RANK[identifier]]
        after = [i for i, rank in enumerate(ranks) if rank > _RANK[identifier]]
        return before[-1] + 1 if before else after[0] if after else len(ranks)

    def overwrite(self, identifier: int, start: int, end: int, piece: bytes) -> None:
        """Put ``piece`` in the place of a part of a section."""
        section = self.section(identifier)
        assert section is not None
        section.replace(b"".join((section.body[:start], piece, section.body[end:])))
        self._changed = True

    def replace_custom(self, name: bytes, body: bytes, before: int) -> None:
        """Put a custom section before another, in the place of any with its name."""
        start = encode_name(name)
        self.sections = [
            section
            for section in self.sections
            if section.id != CUSTOM or bytes(section.body[: len(start)]) != start
        ]
        added = Section(CUSTOM, b"", b"", 0)
        added.replace(start + body)
        self.sections.insert([section.id for section in self.sections].index(before), added)
        self._changed = True

    def remove(self, identifier: int) -> None:
        """Drop a section."""
        self.sections = [section for section in self.sections if section.id != identifier]
        self._changed = True

    def encode(self) -> bytes:
        """The module as a file; the very bytes it was made of, if nothing was changed."""
        if not self._changed:
            return self._data
        pieces: list[bytes | memoryview] = [PREAMBLE]
        for section in self.sections:
            pieces += (section.head, section.body)
        return b"".join(pieces)


# --- the passes -----------------------------------------------------------------------------------


class Prepared:
    """A prepared module: the file, the type of its memory, and whether it has a function table."""

    __slots__ = ("data", "has_table", "memory")

    def __init__(self, data: bytes, memory: MemoryLimits | None, *, has_table: bool) -> None:
        self.data, self.memory, self.has_table = data, memory, has_table


def is_program(data: bytes, origin: str) -> bool:
    """Does the module import anything from ``wali``?  Raises ``ModuleError``."""
    return any(item.module == b"wali" for item in Module(data, origin).imports())


def prepare(data: bytes, origin: str, *, unshare: bool = False) -> Prepared:
    """Import the memory of a core module, and export calls of what is in its table.

    Other modules stay as they are.

    ``unshare`` makes a shared memory a plain one: atomic instructions work on those too, except
    that nothing can wait on them.  ``origin`` names the module in errors.  Raises ``ModuleError``.
    """
    module = Module(data, origin)
    memory = _import_memory(module, unshare=unshare)
    has_table = _export_calls(module)
    return Prepared(module.encode(), memory, has_table=has_table)


def _import_memory(module: Module, *, unshare: bool) -> MemoryLimits | None:
    """Import the memory that is defined here, as ``MEMORY_IMPORT``.

    Memories are counted apart from all else that can be imported, and imported ones before others:
    the only memory keeps its index, 0, and so does everything else.
    """
    imported = [item for item in module.imports() if item.kind == EXTERN_MEMORY]
    defined = module.memories()
    if len(imported) + len(defined) > 1:
        count = len(imported) + len(defined)
        raise module.error(
            f"{count} memories; a module may have one", MEMORY if defined else IMPORT
        )
    memory = defined[0] if defined else imported[0].memory if imported else None
    if memory is None:
        return None
    was_shared, memory.shared = memory.shared, memory.shared and not unshare
    if defined:
        names = b"".join(map(encode_name, MEMORY_IMPORT))
        module.append(IMPORT, names + bytes([EXTERN_MEMORY]) + memory.encode())
        module.remove(MEMORY)
    elif was_shared != memory.shared:
        module.overwrite(IMPORT, imported[0].start, imported[0].end, memory.encode())
    return memory


def _export_calls(module: Module) -> bool:
    """Export ``CALL_EXPORT`` and ``START_THREAD_EXPORT``; False where there is nothing to call."""
    imports = module.imports()
    refuse_exports(module, CALL_EXPORT, START_THREAD_EXPORT)
    table = _function_table(module, imports)
    if table is None:
        return False
    names = (CALL_EXPORT.encode(), START_THREAD_EXPORT.encode())
    functions = sum(item.kind == EXTERN_FUNC for item in imports) + module.count(FUNCTION)
    types = module.type_count()
    stack = _stack_pointer(module)
    for parameters, name in enumerate(names, 1):
        called, calling = (_function_type(n) for n in (parameters, parameters + 1))
        module.append(TYPE, called, calling)
        module.append(FUNCTION, leb128(types + 1))
        module.append(EXPORT, encode_name(name) + bytes([EXTERN_FUNC]) + leb128(functions))
        # Its parameters from the second on, then the first, which says what is called.
        gets = b"".join(bytes([_LOCAL_GET, i]) for i in (*range(1, parameters + 1), 0))
        call = gets + bytes([_CALL_INDIRECT]) + leb128(types) + leb128(table)
        if stack is not None and name == CALL_EXPORT.encode():
            call = _move(stack, _DOWN) + call + _move(stack, _UP)
        body = b"\0" + call + bytes([_END])
        module.append(CODE, leb128(len(body)) + body)
        types, functions = types + 2, functions + 1
    return True


def _function_table(module: Module, imports: list[Import]) -> int | None:
    """The table that numbers of functions are of: the first that holds any functions.

    That is table 0, but for programs that have one of references besides.  Where there is none, but
    handlers can be set, it is an empty one that is added: none of them is found there.
    """
    imported = sum(item.kind == EXTERN_TABLE for item in imports)
    if imported:
        return 0
    tables = module.tables()
    for number, table in enumerate(tables):
        if table.element in _FUNCREFS and not table.is_64:
            return number
    if not any((item.module, item.name) == _SETS_HANDLERS for item in imports):
        return None
    module.append(TABLE, _FUNCREF + b"\0\0")
    return len(tables)


def _stack_pointer(module: Module) -> int | None:
    """The global that is the stack pointer of a program in C: the first of its own, as ld has it.

    A function that calls none leaves it where it is, and has variables below (LLVM's *red zone*).
    When a handler interrupts it there, it must be called beyond those.  None where the code does
    not begin functions as C's are begun: it subtracts from the global, and keeps the result.
    """
    globals_, code = module.globals(), module.section(CODE)
    if code is None or not globals_ or globals_[0].type[0] != _I32 or not globals_[0].mutable:
        return None
    index = sum(item.kind == EXTERN_GLOBAL for item in module.imports())
    relocated = bytes((*(index >> 7 * i & 0x7F | _MORE for i in range(4)), index >> 28))
    number = b"|".join(map(re.escape, (leb128(index), relocated)))
    begins = rb"\x23(?:%b)\x41[\x80-\xff]*[\x00-\x7f]\x6b[\x21\x22]" % number
    return index if re.search(begins, code.body) else None


def _move(pointer: int, by: bytes) -> bytes:
    """The instructions that add a constant to a global."""
    index = leb128(pointer)
    return b"\x23" + index + b"\x41" + by + b"\x6a\x24" + index


def _function_type(parameters: int) -> bytes:
    """The type of a function that takes so many numbers and gives nothing."""
    return bytes([_FUNCTION_TYPE, parameters, *[_I32] * parameters, 0])


def defer_start(data: bytes, origin: str) -> bytes:
    """Export the start function as ``START_EXPORT``, to be called instead of running by itself.

    A memory of its own is not shared any more: a guest in the embedder's process could stop its
    thread in ``memory.atomic.wait32``, past every deadline; on a plain memory that traps.

    A module without either stays as it is.  Raises ``ModuleError``, also for a module that uses the
    name itself.
    """
    module = Module(data, origin)
    export_start(module)
    if any(flags & _SHARED for flags in module.memory_flags()):
        memories = module.memories()
        for memory in memories:
            memory.shared = False
        module.remove(MEMORY)
        module.append(MEMORY, *(memory.encode() for memory in memories))
    return module.encode()


def export_start(module: Module) -> None:
    """Export the start function, if there is one, instead of having it run by itself."""
    refuse_exports(module, START_EXPORT)
    start = module.start()
    if start is not None:
        name = encode_name(START_EXPORT.encode())
        module.append(EXPORT, name + bytes([EXTERN_FUNC]) + leb128(start))
        module.remove(START)


def refuse_exports(module: Module, *names: str) -> None:
    """Raise ``ModuleError`` where a module exports something by one of these names."""
    for name in names:
        if any(export.name == name.encode() for export in module.exports()):
            raise module.error(f"exports {name}, a name that is not for modules to use", EXPORT)


def fix_memory(data: bytes, origin: str, pages: int) -> bytes:
    """Give the one memory that a module defines so many pages, and no way to grow.

    A memory that cannot grow cannot move, whatever the engine.  Raises ``ModuleError``.
    """
    module = Module(data, origin)
    memories, section = module.memories(), module.section(MEMORY)
    if len(memories) != 1 or section is None:
        raise module.error(f"{len(memories)} memories; there must be one", MEMORY)
    fixed = MemoryLimits(max(pages, memories[0].minimum), None, shared=memories[0].shared)
    fixed.maximum = fixed.minimum
    module.overwrite(MEMORY, 0, len(section.body), leb128(1) + fixed.encode())
    return module.encode()
