"""What runs a native program: the interpreter of a script, the loader of an ELF file."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_MOST_HEAD: Final = 4096


def interpreter_of(path: str) -> str | None:
    """What runs a program: the interpreter of a script, or the loader of an ELF file (elf(5))."""
    try:
        with open(path, "rb") as file:
            head = file.read(_MOST_HEAD)
    except OSError:
        return None
    if head.startswith(b"#!"):
        words = head[2:].splitlines()[0].split()
        return os.fsdecode(words[0]) if words else None
    if not head.startswith(b"\x7fELF\x02"):
        return None
    start, size, count = (_number(head, 32, 8), _number(head, 54, 2), _number(head, 56, 2))
    for at in range(start, start + size * count, size or 1):
        if _number(head, at, 4) == _PT_INTERP:
            offset, length = _number(head, at + 8, 8), _number(head, at + 32, 8)
            return os.fsdecode(head[offset : offset + length].rstrip(b"\0")) or None
    return None


def interpreters_of(path: str, folder: str = "") -> Iterator[str]:
    """That of a program, what runs that, and so on, as far as the kernel goes (execve(2)).

    Each as it is written; relative ones are found from a ``folder``, or the working directory.
    """
    for _ in range(_MOST_INTERPRETERS):
        interpreter = interpreter_of(path)
        if interpreter is None:
            return
        yield interpreter
        path = os.path.join(folder, interpreter)


_MOST_INTERPRETERS: Final = 5
_PT_INTERP: Final = 3


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
