"""The policy file as TOML has it: its tables, and how they are read where nothing is wrong.

A value is either as `_values` has it or a ValueError whose message is meant for the author of the
policy. `_structure` finds all of those; what is right is read here, without cattrs, whose import
takes as long as a small guest runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NewType, get_args, get_origin, get_type_hints

import attrs

from . import _values
from ._files import DEVICES
from ._model import (
    DEFAULT_LINKS,
    DEFAULT_ON_DENY,
    DEFAULT_VIEW,
    FEWEST_FILES,
    LINKS,
    LOGS,
    MODES,
    MOST_FILES,
    MOST_PROCESSES,
    MOST_THREADS,
    ON_DENY,
    VIEWS,
    Clock,
    Random,
)
from ._units import quote
from ._values import Place

VERSION = 1

# To make a class takes three times as long with what nobody asks of these: eq and repr.

_Version = NewType("_Version", int)
_Text = NewType("_Text", str)
_Reference = NewType("_Reference", str)
_Name = NewType("_Name", str)
_Plain = NewType("_Plain", str)
_Variable = NewType("_Variable", str)
_Inherited = NewType("_Inherited", str)
_HostPlace = NewType("_HostPlace", Place)
_GuestPath = NewType("_GuestPath", str)
_Mode = NewType("_Mode", str)
_View = NewType("_View", str)
_Links = NewType("_Links", str)
_Device = NewType("_Device", str)
_Port = NewType("_Port", int)
_Call = NewType("_Call", str)
_OnDeny = NewType("_OnDeny", str)
_Seconds = NewType("_Seconds", float)
_Memory = NewType("_Memory", int)
_Size = NewType("_Size", int)
_Files = NewType("_Files", int)
_Processes = NewType("_Processes", int)
_Threads = NewType("_Threads", int)
_Log = NewType("_Log", str)


@attrs.frozen(eq=False, repr=False)
class _FilesystemTable:
    read_only: list[Place] = attrs.field(factory=list)
    read_write: list[Place] = attrs.field(factory=list)
    inaccessible: list[_HostPlace] = attrs.field(factory=list)
    exec: list[Place] = attrs.field(factory=list)
    devices: list[_Device] = attrs.field(factory=list)
    cwd: _GuestPath | None = None


@attrs.frozen(eq=False, repr=False)
class _EnvironmentTable:
    inherit: list[_Inherited] = attrs.field(factory=list)
    set: dict[_Variable, _Text] = attrs.field(factory=dict)


@attrs.frozen(eq=False, repr=False)
class _NetworkTable:
    connect: list[_Port] = attrs.field(factory=list)
    listen: list[_Port] = attrs.field(factory=list)
    unix: list[Place] = attrs.field(factory=list)


@attrs.frozen(eq=False, repr=False)
class _SyscallsTable:
    allow: list[_Call] | None = None
    within: list[list[_Call]] = attrs.field(factory=list)
    deny: list[_Call] = attrs.field(factory=list)
    on_deny: _OnDeny = _OnDeny(DEFAULT_ON_DENY)


@attrs.frozen(eq=False, repr=False)
class _LimitsTable:
    wall_time: _Seconds | None = None
    cpu_time: _Seconds | None = None
    memory: _Memory | None = None
    open_files: _Files | None = None
    output: _Size | None = None
    processes: _Processes | None = None
    threads: _Threads | None = None


@attrs.frozen(eq=False, repr=False)
class _ClockTable:
    source: Clock = attrs.field(factory=Clock)


@attrs.frozen(eq=False, repr=False)
class _RandomTable:
    source: Random = attrs.field(factory=Random)


@attrs.frozen(eq=False, repr=False)
class _AuditTable:
    log: _Log = _Log("denied")
    path: _HostPlace | None = None


@attrs.frozen(eq=False, repr=False)
class Document:
    """A policy whose values are right one by one."""

    version: _Version
    name: _Text = _Text("")
    extends: list[_Reference] = attrs.field(factory=list)
    lockdown: _Mode = _Mode(MODES[0])
    view: _View = _View(DEFAULT_VIEW)
    links: _Links = _Links(DEFAULT_LINKS)
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


def _version(value: object) -> _Version:
    if type(value) is not int or value != VERSION:
        raise ValueError(f"{quote(value)} is not known here: write version = {VERSION}")
    return _Version(VERSION)


READERS: dict[Any, Callable[[object], object]] = {
    _Version: _version,
    _Text: _values.text,
    _Reference: _values.reference,
    _Name: _values.variable_name,
    _Plain: _values.variable_value,
    _Variable: _values.environment_name,
    _Inherited: _values.inherited_name,
    Place: _values.place,
    _HostPlace: _values.host_place,
    _GuestPath: _values.guest_path,
    _Mode: _values.choice(MODES),
    _View: _values.choice(VIEWS),
    _Links: _values.choice(LINKS),
    _Device: _values.choice(DEVICES),
    _Port: _values.port,
    _Call: _values.call,
    _OnDeny: _values.choice(ON_DENY),
    _Seconds: _values.seconds,
    _Memory: _values.memory,
    _Size: _values.size,
    _Files: _values.count(FEWEST_FILES, MOST_FILES, "descriptors"),
    _Processes: _values.count(1, MOST_PROCESSES, "processes"),
    _Threads: _values.count(1, MOST_THREADS, "threads"),
    Clock: _values.clock,
    Random: _values.random,
    _Log: _values.choice(LOGS),
}


_HINTS: dict[type, dict[str, Any]] = {}


def read(data: object) -> Document | None:
    """Read a policy each of whose values is right.

    Args:
        data: the whole policy, as `tomllib` gives it.

    Returns:
        The document, or None where anything is wrong: `_structure` says all that is.
    """
    try:
        document: Document = read_as(Document, data)
    except (ValueError, TypeError):
        return None
    return document


def read_as(target: Any, value: Any) -> Any:
    """Read a value of a type: a table, a list, a dictionary, or what a reader is for.

    Raises:
        ValueError: anything in it is wrong; or TypeError.
    """
    if target in READERS:
        return READERS[target](value)
    if attrs.has(target):
        return target(**_members(target, value))
    kind, parts = get_origin(target), get_args(target)
    if kind is list and isinstance(value, list):
        return [read_as(parts[0], item) for item in value]
    if kind is dict and isinstance(value, Mapping):
        return {read_as(parts[0], name): read_as(parts[1], item) for name, item in value.items()}
    if type(None) in parts and value is not None:
        return read_as(parts[0], value)
    raise ValueError(value)


def hints_of(table: type) -> dict[str, Any]:
    """Return the types of a table's values."""
    if table not in _HINTS:
        _HINTS[table] = get_type_hints(table)
    return _HINTS[table]


def _members(table: type, value: object) -> dict[str, Any]:
    hints = hints_of(table)
    if not isinstance(value, Mapping) or not value.keys() <= hints.keys():
        raise ValueError(value)
    return {name: read_as(hints[name], item) for name, item in value.items()}
