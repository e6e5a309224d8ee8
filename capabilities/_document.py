"""The policy file as TOML has it: its tables, and the words for keys that are none.

cattrs walks the tables. What it meets is either as `_values` has it or a ValueError whose message
is meant for the author of the policy.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NewType, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory

from . import _values
from ._files import DEVICES
from ._model import (
    DEFAULT_ON_DENY,
    DEFAULT_VIEW,
    FEWEST_FILES,
    LOGS,
    MODES,
    MOST_FILES,
    MOST_PROCESSES,
    ON_DENY,
    VIEWS,
    Clock,
    Random,
)
from ._units import quote
from ._values import Place

VERSION = 1

_Version = NewType("_Version", int)
_Text = NewType("_Text", str)
_Reference = NewType("_Reference", str)
_Name = NewType("_Name", str)
_Plain = NewType("_Plain", str)
_Variable = NewType("_Variable", str)
_HostPlace = NewType("_HostPlace", Place)
_GuestPath = NewType("_GuestPath", str)
_Mode = NewType("_Mode", str)
_View = NewType("_View", str)
_Device = NewType("_Device", str)
_Port = NewType("_Port", int)
_Call = NewType("_Call", str)
_OnDeny = NewType("_OnDeny", str)
_Seconds = NewType("_Seconds", float)
_Memory = NewType("_Memory", int)
_Size = NewType("_Size", int)
_Files = NewType("_Files", int)
_Processes = NewType("_Processes", int)
_Log = NewType("_Log", str)


@attrs.frozen
class _FilesystemTable:
    read_only: list[Place] = attrs.field(factory=list)
    read_write: list[Place] = attrs.field(factory=list)
    inaccessible: list[_HostPlace] = attrs.field(factory=list)
    exec: list[Place] = attrs.field(factory=list)
    devices: list[_Device] = attrs.field(factory=list)
    cwd: _GuestPath | None = None


@attrs.frozen
class _EnvironmentTable:
    inherit: list[_Variable] = attrs.field(factory=list)
    set: dict[_Variable, _Text] = attrs.field(factory=dict)


@attrs.frozen
class _NetworkTable:
    connect: list[_Port] = attrs.field(factory=list)
    listen: list[_Port] = attrs.field(factory=list)
    unix: list[Place] = attrs.field(factory=list)


@attrs.frozen
class _SyscallsTable:
    allow: list[_Call] | None = None
    within: list[list[_Call]] = attrs.field(factory=list)
    deny: list[_Call] = attrs.field(factory=list)
    on_deny: _OnDeny = _OnDeny(DEFAULT_ON_DENY)


@attrs.frozen
class _LimitsTable:
    wall_time: _Seconds | None = None
    cpu_time: _Seconds | None = None
    memory: _Memory | None = None
    open_files: _Files | None = None
    output: _Size | None = None
    processes: _Processes | None = None


@attrs.frozen
class _ClockTable:
    source: Clock = attrs.field(factory=Clock)


@attrs.frozen
class _RandomTable:
    source: Random = attrs.field(factory=Random)


@attrs.frozen
class _AuditTable:
    log: _Log = _Log("denied")
    path: _HostPlace | None = None


@attrs.frozen
class Document:
    """A policy whose values are right one by one."""

    version: _Version
    name: _Text = _Text("")
    extends: list[_Reference] = attrs.field(factory=list)
    lockdown: _Mode = _Mode(MODES[0])
    view: _View = _View(DEFAULT_VIEW)
    variables: dict[_Name, _Plain] = attrs.field(factory=dict)
    filesystem: _FilesystemTable = attrs.field(factory=_FilesystemTable)
    environment: _EnvironmentTable = attrs.field(factory=_EnvironmentTable)
    network: _NetworkTable = attrs.field(factory=_NetworkTable)
    syscalls: _SyscallsTable = attrs.field(factory=_SyscallsTable)
    limits: _LimitsTable = attrs.field(factory=_LimitsTable)
    clock: _ClockTable = attrs.field(factory=_ClockTable)
    random: _RandomTable = attrs.field(factory=_RandomTable)
    audit: _AuditTable | None = None


TABLES: dict[str, type] = {
    "": Document,
    "filesystem": _FilesystemTable,
    "environment": _EnvironmentTable,
    "network": _NetworkTable,
    "syscalls": _SyscallsTable,
    "limits": _LimitsTable,
    "clock": _ClockTable,
    "random": _RandomTable,
    "audit": _AuditTable,
}

PLACES: dict[str, Callable[[object], Place]] = {
    "filesystem.read_only": _values.place,
    "filesystem.read_write": _values.place,
    "filesystem.exec": _values.place,
    "filesystem.devices": _values.device,
    "filesystem.inaccessible": _values.host_place,
    "network.unix": _values.place,
    "audit.path": _values.host_place,
}
"""The keys whose values name something of the host's, and what reads one of them."""


def structure(data: object) -> tuple[Document | None, list[tuple[str, str]]]:
    """Check every value of a policy by itself.

    Args:
        data: the whole policy, as `tomllib` gives it.

    Returns:
        The document and no problems, or None and all of them: dotted key and message.
    """
    try:
        return _CONVERTER.structure(data, Document), []
    except (cattrs.BaseValidationError, ValueError) as error:
        return None, list(_explain(error, ""))


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


def _version(value: object) -> _Version:
    if type(value) is not int or value != VERSION:
        raise ValueError(f"{quote(value)} is not known here: write version = {VERSION}")
    return _Version(VERSION)


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


_READERS: dict[Any, Callable[[object], object]] = {
    _Version: _version,
    _Text: _values.text,
    _Reference: _values.reference,
    _Name: _values.variable_name,
    _Plain: _values.variable_value,
    _Variable: _values.environment_name,
    Place: _values.place,
    _HostPlace: _values.host_place,
    _GuestPath: _values.guest_path,
    _Mode: _values.choice(MODES),
    _View: _values.choice(VIEWS),
    _Device: _values.choice(DEVICES),
    _Port: _values.port,
    _Call: _values.call,
    _OnDeny: _values.choice(ON_DENY),
    _Seconds: _values.seconds,
    _Memory: _values.memory,
    _Size: _values.size,
    _Files: _values.count(FEWEST_FILES, MOST_FILES, "descriptors"),
    _Processes: _values.count(1, MOST_PROCESSES, "processes"),
    Clock: _values.clock,
    Random: _values.random,
    _Log: _values.choice(LOGS),
}


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
    for kind, read in _READERS.items():
        converter.register_structure_hook(kind, _reading(read))
    return converter


_CONVERTER = _make_converter()
