"""``wali run --invoke``: a function's arguments from words, its results as lines of text."""

from __future__ import annotations

import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from wali_core._guest import Guest

_NAMES: Final = {"i": "i32", "I": "i64", "f": "f32", "F": "f64", "?": "a reference or a vector"}
_DIGITS: Final = 9  # that many tell any two f32 apart


class ArgumentError(Exception):
    """The words do not fit the function."""


def invoke(guest: Guest, name: str, words: Sequence[str]) -> str:
    """Call an exported function; its results, each on a line.

    Integers are decimal, or hexadecimal after ``0x``, signed or unsigned, and come back signed;
    floats are as Python reads and writes them.  Raises ``ArgumentError`` for words that do not fit,
    and what ``Guest.call`` raises.
    """
    parameters, results = guest.types(name)
    if "?" in parameters + results or len(words) != len(parameters):
        raise ArgumentError(f"{name} is {_signature(parameters, results)}")
    values = [_value(word, kind) for word, kind in zip(words, parameters, strict=True)]
    try:
        result = guest.call(name, *values)
    except OverflowError as error:
        raise ArgumentError(f"{name}: {error}") from None
    found = result if len(results) > 1 else (result,) if results else ()
    return "".join(_text(value, kind) + "\n" for value, kind in zip(found, results, strict=True))


def _signature(parameters: str, results: str) -> str:
    names = [", ".join(_NAMES[kind] for kind in kinds) for kinds in (parameters, results)]
    return f"({names[0]}) -> ({names[1]})"


def _value(word: str, kind: str) -> float:
    try:
        return float(word) if kind in "fF" else int(word, 0)
    except ValueError:
        raise ArgumentError(f"{word!r} is not {_NAMES[kind]}") from None


def _text(value: float, kind: str) -> str:
    if kind == "f":  # as short as tells it from its neighbours: 0.1, not 0.10000000149011612
        for digits in range(1, _DIGITS + 1):
            short = float(f"{value:.{digits}g}")
            if ctypes.c_float(short).value == value:
                return repr(short)
    return repr(value)
