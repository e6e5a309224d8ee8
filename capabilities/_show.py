"""A policy as canonical TOML: host paths absolute, entries sorted, defaults left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ._document import VERSION
from ._model import DEFAULT_ON_DENY, DEFAULT_VIEW, LINKS, MODES, Audit
from ._units import format_duration, format_size
from ._values import format_clock, format_random

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._files import Grant
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
    if parts.view != DEFAULT_VIEW:
        yield f"view = {_string(parts.view)}"
    if any(grant.pinned for grant in (*parts.filesystem.readable, *parts.network.unix)):
        yield f"links = {_string(LINKS[0])}"
    yield from _table("filesystem", _filesystem(parts))
    yield from _table("environment", _environment(parts))
    yield from _table("network", _network(parts))
    yield from _table("syscalls", _syscalls(parts))
    yield from _table("limits", _limits(parts))
    yield from _table("clock", _source(format_clock(parts.clock)))
    yield from _table("random", _source(format_random(parts.random)))
    yield from _table("audit", _audit(parts))


def _table(name: str, lines: Iterable[str]) -> Iterator[str]:
    given = list(lines)
    if given:
        yield from ("", f"[{name}]", *given)


def _filesystem(parts: Parts) -> Iterator[str]:
    files = parts.filesystem
    yield from _grants("read_only", files.read_only)
    yield from _grants("read_write", files.read_write)
    if files.inaccessible:
        yield from _list("inaccessible", files.inaccessible)
    yield from _grants("exec", files.exec)
    if files.devices:
        yield from _list("devices", files.devices)
    if files.cwd is not None:
        yield f"cwd = {_string(files.cwd)}"


def _grants(key: str, grants: Iterable[Grant]) -> Iterator[str]:
    if grants:
        yield from _list(key, sorted(f"{grant.host}::{grant.guest}" for grant in grants))


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
    yield from _grants("unix", parts.network.unix)


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
    if syscalls.on_deny != DEFAULT_ON_DENY:
        yield f"on_deny = {_string(syscalls.on_deny)}"


def _limits(parts: Parts) -> Iterator[str]:
    limits = parts.limits
    for key, seconds in (("wall_time", limits.wall_time), ("cpu_time", limits.cpu_time)):
        if seconds is not None:
            yield f"{key} = {_string(format_duration(seconds))}"
    for key, size in (("memory", limits.memory), ("output", limits.output)):
        if size is not None:
            yield f"{key} = {_string(format_size(size))}"
    for key, count in (
        ("open_files", limits.open_files),
        ("processes", limits.processes),
        ("threads", limits.threads),
    ):
        if count is not None:
            yield f"{key} = {count}"


def _source(text: str) -> Iterator[str]:
    if text != "host":
        yield f"source = {_string(text)}"


def _audit(parts: Parts) -> Iterator[str]:
    if parts.audit == Audit():
        return
    yield f"log = {_string(parts.audit.log)}"
    if parts.audit.path is not None:
        yield f"path = {_string(parts.audit.path)}"


def _list(key: str, entries: Iterable[str]) -> Iterator[str]:
    yield f"{key} = ["
    yield from (f"    {_string(entry)}," for entry in entries)
    yield "]"


def _string(text: str) -> str:
    # JSON's strings are TOML's basic strings, but for this one control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
