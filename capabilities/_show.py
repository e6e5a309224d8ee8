"""A policy as canonical TOML: host paths absolute, entries sorted, defaults left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ._document import VERSION
from ._model import ERRNOS, MODES
from ._units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._model import Parts


def show(parts: Parts) -> str:
    """Return the TOML text, ending with a line feed, from which loading makes the same parts."""
    return "".join(f"{line}\n" for line in _lines(parts))


def _lines(parts: Parts) -> Iterator[str]:
    yield f"version = {VERSION}"
    if parts.name:
        yield f"name = {_string(parts.name)}"
    if parts.lockdown != MODES[0]:
        yield f"lockdown = {_string(parts.lockdown)}"
    yield from _table("filesystem", _filesystem(parts))
    yield from _table("environment", _environment(parts))
    yield from _table("network", _network(parts))
    yield from _table("syscalls", _syscalls(parts))
    yield from _table("limits", _limits(parts))


def _table(name: str, lines: Iterable[str]) -> Iterator[str]:
    given = list(lines)
    if given:
        yield from ("", f"[{name}]", *given)


def _filesystem(parts: Parts) -> Iterator[str]:
    for kind in ("read_only", "read_write"):
        grants = getattr(parts.filesystem, kind)
        if grants:
            yield from _list(kind, sorted(f"{grant.host}::{grant.guest}" for grant in grants))


def _environment(parts: Parts) -> Iterator[str]:
    if parts.environment.inherit:
        yield from _list("inherit", parts.environment.inherit)
    pairs = sorted(parts.environment.set.items())
    if pairs:
        yield f"set = {{ {', '.join(f'{_string(k)} = {_string(v)}' for k, v in pairs)} }}"


def _network(parts: Parts) -> Iterator[str]:
    for kind in ("connect", "listen"):
        ports = getattr(parts.network, kind)
        if ports:
            yield from _list(kind, (f"tcp://*:{port}" for port in ports))


def _syscalls(parts: Parts) -> Iterator[str]:
    syscalls = parts.syscalls
    if syscalls.allow is not None:
        yield from _list("allow", syscalls.allow)
    if syscalls.within:
        yield "within = ["
        yield from (f"    [{', '.join(map(_string, names))}]," for names in syscalls.within)
        yield "]"
    if syscalls.deny:
        yield from _list("deny", syscalls.deny)
    if syscalls.on_deny != ERRNOS[0]:
        yield f"on_deny = {_string(syscalls.on_deny)}"


def _limits(parts: Parts) -> Iterator[str]:
    if parts.limits.wall_time is not None:
        yield f"wall_time = {_string(format_duration(parts.limits.wall_time))}"
    if parts.limits.memory is not None:
        yield f"memory = {_string(format_size(parts.limits.memory))}"


def _list(key: str, entries: Iterable[str]) -> Iterator[str]:
    yield f"{key} = ["
    yield from (f"    {_string(entry)}," for entry in entries)
    yield "]"


def _string(text: str) -> str:
    # JSON's strings are TOML's basic strings, but for this one control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
