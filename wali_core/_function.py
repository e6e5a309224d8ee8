"""A function that a guest exports: its types, and its arguments and results as wasmtime has them.

A type is a letter: ``i`` is i32, ``I`` i64, ``f`` f32, ``F`` f64, and ``?`` what cannot be passed.
"""

from __future__ import annotations

from ctypes import byref

from wali_core import _bridge as bridge
from wali_core._bridge import W

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Final

_RANGES: Final = {"i": (1 << 32, 1 << 31), "I": (1 << 64, 1 << 63)}


class Function:
    """An export that can be called: where its handle is, and its types, looked up once."""

    __slots__ = ("func", "parameters", "results")

    def __init__(
        self, store: int, found: bridge.Extern, known: tuple[int, str, str] | None = None
    ) -> None:
        self.func: Any = byref(found, bridge.OF)
        if known is not None:
            _, self.parameters, self.results = known
            return
        functype = W["wasmtime_func_type"](store, self.func)
        try:
            self.parameters = bridge.types_of(W["wasm_functype_params"](functype))
            self.results = bridge.types_of(W["wasm_functype_results"](functype))
        finally:
            W["wasm_functype_delete"](functype)

    def check(self, args: Sequence[float]) -> None:
        """Can it be called with so many?  Raises ``TypeError``."""
        if len(args) != len(self.parameters):
            raise TypeError(f"the function takes {len(self.parameters)} arguments, not {len(args)}")
        if "?" in self.parameters + self.results:
            raise TypeError("functions with references or vectors cannot be called from here")

    def raw_values(self, args: Sequence[float]) -> Any:
        """The arguments, unchecked, with room for the results.  Raises as ``Guest.call``."""
        self.check(args)
        values = (bridge.ValRaw * max(len(self.parameters), len(self.results), 1))()
        for value, kind, argument in zip(values, self.parameters, args, strict=False):
            if kind == "f":
                value.f32 = argument
            elif kind == "F":
                value.f64 = argument
            else:
                value.i64 = signed(kind, argument)
        return values

    def result_of(self, values: Any) -> Any:
        """What it has given, of the values that it was called with."""
        return one_of(_number(values[i], kind) for i, kind in enumerate(self.results))


def one_of(results: Iterable[float]) -> Any:
    """What a call gives that has these results: None, a number, or a tuple of them."""
    results = tuple(results)
    return results if len(results) > 1 else results[0] if results else None


def signed(kind: str, argument: float) -> int:
    """An integer for a parameter of that type.  Raises ``TypeError`` and ``OverflowError``."""
    modulus, half = _RANGES[kind]
    if not isinstance(argument, int):
        raise TypeError(f"{argument!r} is not an integer")
    if not -half <= argument < modulus:
        raise OverflowError(f"{argument} does not fit {'i32' if kind == 'i' else 'i64'}")
    return (argument + half) % modulus - half


def _number(value: bridge.ValRaw, kind: str) -> float:
    if kind == "i":
        return value.i32
    if kind == "I":
        return value.i64
    return value.f32 if kind == "f" else value.f64
