"""The policy file as TOML has it: its tables, the form of each value, and the words for mistakes.

cattrs walks the tables. What it meets is either as declared here or a ValueError whose message is
meant for the author of the policy.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NewType, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory

from ._model import ERRNOS, LARGEST_PORT, MODES
from ._units import format_size, parse_duration, parse_size, quote

VERSION = 1
# One page of Wasm: with less, no guest that has a memory starts.
SMALLEST_MEMORY = 64 << 10

# Keys of the full schema that nothing holds a guest to yet, by table. Accepting them would let an
# author believe in a limit that is not there.
NOT_ENFORCED = {
    "": (
        "audit",
        "clock",
        "extends",
        "random",
        "variables",
        "view",
    ),
    "filesystem": ("cwd", "exec", "inaccessible", "temporary"),
    "environment": (),
    "network": ("unix",),
    "syscalls": (),
    "limits": ("cpu_time", "open_files", "output", "processes"),
}

_ADDRESS_FORM = '"tcp://*:PORT", as in "tcp://*:443"'
_CALL_FORM = 'a call such as "openat" or a group such as "@file-system"'

_CALL = re.compile("@[a-z][a-z0-9-]*|[a-z_][a-z0-9_]*")

_Version = NewType("_Version", int)
_Text = NewType("_Text", str)
_Variable = NewType("_Variable", str)
_Mode = NewType("_Mode", str)
_Port = NewType("_Port", int)
_Call = NewType("_Call", str)
_Errno = NewType("_Errno", str)
_Seconds = NewType("_Seconds", float)
_Bytes = NewType("_Bytes", int)


@attrs.frozen
class Place:
    """One entry of `read_only` or `read_write`.

    Attributes:
        host: path on the host, perhaps relative; a leading `~` is expanded already.
        guest: absolute, normalised path for the guest, or None if the entry gives none.
    """

    host: str
    guest: str | None


@attrs.frozen
class _FilesystemTable:
    read_only: list[Place] = attrs.field(factory=list)
    read_write: list[Place] = attrs.field(factory=list)


@attrs.frozen
class _EnvironmentTable:
    inherit: list[_Variable] = attrs.field(factory=list)
    set: dict[_Variable, _Text] = attrs.field(factory=dict)


@attrs.frozen
class _NetworkTable:
    connect: list[_Port] = attrs.field(factory=list)
    listen: list[_Port] = attrs.field(factory=list)


@attrs.frozen
class _SyscallsTable:
    allow: list[_Call] | None = None
    within: list[list[_Call]] = attrs.field(factory=list)
    deny: list[_Call] = attrs.field(factory=list)
    on_deny: _Errno = _Errno(ERRNOS[0])


@attrs.frozen
class _LimitsTable:
    wall_time: _Seconds | None = None
    memory: _Bytes | None = None


@attrs.frozen
class Document:
    """A policy whose values are right one by one."""

    version: _Version
    name: _Text = _Text("")
    lockdown: _Mode = _Mode(MODES[0])
    filesystem: _FilesystemTable = attrs.field(factory=_FilesystemTable)
    environment: _EnvironmentTable = attrs.field(factory=_EnvironmentTable)
    network: _NetworkTable = attrs.field(factory=_NetworkTable)
    syscalls: _SyscallsTable = attrs.field(factory=_SyscallsTable)
    limits: _LimitsTable = attrs.field(factory=_LimitsTable)


TABLES: dict[str, type] = {
    "": Document,
    "filesystem": _FilesystemTable,
    "environment": _EnvironmentTable,
    "network": _NetworkTable,
    "syscalls": _SyscallsTable,
    "limits": _LimitsTable,
}


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


def parse_place(text: object) -> Place:
    """Split `"HOST"` or `"HOST::GUEST"`, and expand a leading `~` of the host part.

    Raises:
        ValueError: it is neither; the message says what is allowed.
    """
    if not isinstance(text, str):
        raise ValueError(f'must be a string, "HOST" or "HOST::GUEST", not {_kind(text)}')
    host, *guests = text.split("::")
    if len(guests) > 1 or not host or "" in guests or "\0" in text:
        raise ValueError(f'{quote(text)} must be "HOST" or "HOST::GUEST", with one "::" at most')
    if "${" in host:
        raise ValueError(f"{quote(text)}: variables are not expanded by this version")
    expanded = os.path.expanduser(host)
    if host.startswith("~") and not expanded.startswith("/"):
        raise ValueError(f"{quote(text)}: there is no such home directory; write the whole path")
    return Place(expanded, _guest_path(guests[0]) if guests else None)


def parse_port(text: object) -> int:
    """Read `"tcp://*:PORT"`, the one form of an address that the kernel enforces.

    Raises:
        ValueError: it is none; the message says what is enforced.
    """
    if not isinstance(text, str):
        raise ValueError(f"must be a string, {_ADDRESS_FORM}, not {_kind(text)}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"{quote(text)} is no address: write {_ADDRESS_FORM}")
    if scheme != "tcp":
        raise ValueError(
            f"{quote(text)}: what is enforced is TCP by port, so nothing would hold the guest to "
            f"{quote(scheme)}: write {_ADDRESS_FORM}"
        )
    host, _, port = rest.rpartition(":")
    if not _is_port(port):
        raise ValueError(f"{quote(text)}: the port must be a number from 1 to {LARGEST_PORT}")
    if host != "*":
        raise ValueError(
            f"{quote(text)}: what is enforced is the port, for every address, so nothing would "
            f'hold the guest to {quote(host)}: write "tcp://*:{port}"'
        )
    return int(port)


def parse_call(text: object) -> str:
    """Check the form of an entry: a call, or a group. Whether there is one is the core's to say.

    Raises:
        ValueError: it is neither; the message says what is allowed.
    """
    if not isinstance(text, str):
        raise ValueError(f"must be a string, {_CALL_FORM}, not {_kind(text)}")
    if not _CALL.fullmatch(text):
        raise ValueError(f"{quote(text)} must be {_CALL_FORM}")
    return text


def _is_port(text: str) -> bool:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_PORT))
    return digits and not text.startswith("0") and int(text) <= LARGEST_PORT


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
    known = _known(table)
    if name in NOT_ENFORCED[table]:
        return (
            "known key, not enforced by this version: remove it, since a policy is accepted "
            "only where it is enforced"
        )
    for other in TABLES:
        if name in _known(other):
            return f"unknown key here; it belongs to {f'[{other}]' if other else 'the top'}"
    if near := difflib.get_close_matches(name, known, 1):
        return f'unknown key; did you mean "{near[0]}"?'
    return f"unknown key; allowed here: {', '.join(attrs.fields_dict(TABLES[table]))}"


def _known(table: str) -> tuple[str, ...]:
    return (*attrs.fields_dict(TABLES[table]), *NOT_ENFORCED[table])


def _guest_path(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/"):
        raise ValueError(
            f'{quote(text)} must be absolute for the guest, as in "/data", without ".."'
        )
    return f"/{posixpath.normpath(text).lstrip('/')}"


def _version(value: object, _: object) -> _Version:
    if type(value) is not int or value != VERSION:
        raise ValueError(f"{quote(value)} is not known here: write version = {VERSION}")
    return _Version(VERSION)


def _text(value: object, _: object) -> _Text:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_kind(value)}")
    if "\0" in value:
        raise ValueError(f"{quote(value)} must not hold a NUL character")
    return _Text(value)


def _variable(value: object, _: object) -> _Variable:
    if not isinstance(value, str):
        raise ValueError(f"must be the name of a variable, a string, not {_kind(value)}")
    if not value or "=" in value or "\0" in value:
        raise ValueError(
            f'{quote(value)} is no name of a variable: it is empty or holds "=" or NUL'
        )
    return _Variable(value)


def _choice(choices: tuple[str, ...]) -> Callable[[object, object], str]:
    *others, last = (f'"{choice}"' for choice in choices)
    allowed = f"{', '.join(others)} or {last}"

    def choose(value: object, _: object) -> str:
        if value not in choices:
            raise ValueError(f"{quote(value)} is not known here: write {allowed}")
        return str(value)

    return choose


def _seconds(value: object, _: object) -> _Seconds:
    return _Seconds(parse_duration(value))


def _bytes(value: object, _: object) -> _Bytes:
    size = parse_size(value)
    if size < SMALLEST_MEMORY:
        raise ValueError(f"{quote(value)} is less than {format_size(SMALLEST_MEMORY)}, one page")
    return _Bytes(size)


def _kind(value: object) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a string"),
        (list, "a list"),
        (Mapping, "a table"),
    )
    names = (name for kind, name in kinds if isinstance(value, kind))
    return next(names, f"a {type(value).__name__}")


_Hook = Callable[[Any, Any], Any]


def _checked(
    kind: type, form: str, make_hook: Callable[[Any, cattrs.BaseConverter], _Hook]
) -> Callable[[Any, cattrs.BaseConverter], _Hook]:
    """Wrap a factory of hooks: cattrs itself would take any iterable for a list."""

    def factory(target: Any, converter: cattrs.BaseConverter) -> _Hook:
        hook = make_hook(target, converter)

        def structure(value: object, target: Any) -> object:
            if not isinstance(value, kind):
                raise ValueError(f"must be {form}, not {_kind(value)}")
            return hook(value, target)

        return structure

    return factory


def _is_generic(kind: type) -> Callable[[Any], bool]:
    def check(target: Any) -> bool:
        origin: object = get_origin(target)
        return origin is kind

    return check


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
    converter.register_structure_hook(Place, lambda value, _: parse_place(value))
    converter.register_structure_hook(_Version, _version)
    converter.register_structure_hook(_Text, _text)
    converter.register_structure_hook(_Variable, _variable)
    converter.register_structure_hook(_Mode, _choice(MODES))
    converter.register_structure_hook(_Port, lambda value, _: parse_port(value))
    converter.register_structure_hook(_Call, lambda value, _: parse_call(value))
    converter.register_structure_hook(_Errno, _choice(ERRNOS))
    converter.register_structure_hook(_Seconds, _seconds)
    converter.register_structure_hook(_Bytes, _bytes)
    return converter


_CONVERTER = _make_converter()
