"""What is wrong with a policy file, value by value, and the words for keys that are none.

cattrs walks the tables of `_document` and collects what their readers raise.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory

from . import _values
from ._document import READERS, TABLES, VERSION, Document, _Call, _Version, hints_of, read_as
from ._units import quote


def structure(data: object) -> tuple[Document, list[tuple[str, str]]]:
    """Check every value of a policy by itself.

    Args:
        data: the whole policy, as `tomllib` gives it.

    Returns:
        The document, without what is wrong, so that the rest can be looked at; and all that is:
        dotted key and message.
    """
    try:
        return _CONVERTER.structure(data, Document), []
    except (cattrs.BaseValidationError, ValueError) as error:
        return _right_of(Document, data) or Document(_Version(VERSION)), list(_explain(error, ""))


def _right_of(target: Any, value: Any) -> Any:
    """Read what is right of a value; None where nothing is."""
    kind, parts = get_origin(target), get_args(target)
    if attrs.has(target) and target not in READERS and isinstance(value, Mapping):
        found = {n: _right_of(hint, value.get(n)) for n, hint in hints_of(target).items()}
        if target is Document:
            found["version"] = VERSION
        return target(**{name: item for name, item in found.items() if item is not None})
    if kind is list and isinstance(value, list):
        return [item for each in value if (item := _right_of(parts[0], each)) is not None]
    if kind is dict and isinstance(value, Mapping):
        pairs = (
            [_right_of(*pair) for pair in zip(parts, item, strict=True)] for item in value.items()
        )
        return {name: item for name, item in pairs if None not in (name, item)}
    if type(None) in parts:
        return _right_of(parts[0], value)
    try:
        return read_as(target, value)
    except (ValueError, TypeError):
        return None


def _explain(error: BaseException, key: str) -> Iterator[tuple[str, str]]:
    """Turn what cattrs raised into dotted keys and messages."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        for name in sorted(map(str, error.extra_fields)):
            yield _join(key, name), _unknown(key, name)
    elif isinstance(error, cattrs.ClassValidationError):
        fields, others = error.group_exceptions()
        for problem, field in fields:
            yield from _explain(problem, _join(key, field.name))
        for problem in others:
            yield from _explain(problem, key)
    elif isinstance(error, cattrs.IterableValidationError):
        for problem, item in error.group_exceptions()[0]:
            yield from _explain(problem, _join(key, item.index))
    elif isinstance(error, KeyError):
        yield key, f"is missing: write {key} = {VERSION}"  # nothing but the version is required
    else:
        yield key, str(error)


def _join(key: str, part: int | str) -> str:
    if isinstance(part, int):
        return f"{key}[{part}]"
    bare = part.replace("-", "").replace("_", "")
    name = part if bare.isascii() and bare.isalnum() else quote(part)
    return f"{key}.{name}" if key else name


def _unknown(table: str, name: str) -> str:
    known = tuple(attrs.fields_dict(TABLES[table]))
    for other, kind in TABLES.items():
        if name in attrs.fields_dict(kind):
            return f"unknown key here; it belongs to {f'[{other}]' if other else 'the top'}"
    if near := difflib.get_close_matches(name, known, 1):
        return f'unknown key; did you mean "{near[0]}"?'
    return f"unknown key; allowed here: {', '.join(known)}"


_Hook = Callable[[Any, Any], Any]


def _checked(
    kind: type, form: str, make_hook: Callable[[Any, cattrs.BaseConverter], _Hook]
) -> Callable[[Any, cattrs.BaseConverter], _Hook]:
    """Wrap a factory of hooks: cattrs itself would take any iterable for a list."""

    def factory(target: Any, converter: cattrs.BaseConverter) -> _Hook:
        hook = make_hook(target, converter)

        def structure(value: object, target: Any) -> object:
            if not isinstance(value, kind):
                raise ValueError(f"must be {form}, not {_values.kind(value)}")
            return hook(value, target)

        return structure

    return factory


def _is_generic(kind: type) -> Callable[[Any], bool]:
    def check(target: Any) -> bool:
        origin: object = get_origin(target)
        return origin is kind

    return check


def _reading(read: Callable[[object], object]) -> _Hook:
    return lambda value, _: read(value)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook_factory(
        attrs.has, _checked(Mapping, "a table", make_dict_structure_fn)
    )
    converter.register_structure_hook_factory(
        _is_generic(list),
        _checked(list, "a list of strings", list_structure_factory),
    )
    converter.register_structure_hook_factory(
        _is_generic(dict),
        _checked(Mapping, "a table of strings", mapping_structure_factory),
    )
    converter.register_structure_hook_factory(
        lambda target: target == list[list[_Call]],
        _checked(list, "a list of lists of strings", list_structure_factory),
    )
    for kind, read in READERS.items():
        converter.register_structure_hook(kind, _reading(read))
    return converter


_CONVERTER = _make_converter()
