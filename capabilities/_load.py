"""From TOML to the parts of a policy, finding everything that is wrong on the way.

Each value has been checked by itself when it comes here. What concerns two values (the same guest
path twice, a tree to read inside a tree to write) is checked now, among the values that are right
by themselves, so that one run reports both kinds of mistake.
"""

from __future__ import annotations

import os
import posixpath
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from ._document import Document, Place, parse_place, structure
from ._errors import PolicyError
from ._model import (
    MODES,
    Environment,
    Filesystem,
    Grant,
    Limits,
    Network,
    Parts,
    Problem,
    Syscalls,
    relative_to,
)
from ._units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LARGEST_FILE = 1 << 20

_NARROWING = (
    "{!r} lies in {!r}, which {} makes writable: a policy can widen inside a tree but not narrow, "
    "since the kernel adds up what is granted along a path"
)
_ORDER = tuple(attrs.fields_dict(Document))


def load(path: str | os.PathLike[str]) -> Parts:
    """Read a policy file.

    Args:
        path: the file; host paths in it are relative to the folder that it lies in.

    Raises:
        PolicyError: the file cannot be read, is not TOML, or is not a policy.
    """
    source = os.fspath(path)
    base = os.path.realpath(os.path.dirname(os.path.abspath(source)))
    return from_dict(_read(source), base, source)


def from_dict(data: Mapping[str, object], base_dir: str, source: str) -> Parts:
    """Check a policy that is TOML data already.

    Args:
        data: the whole policy, as `tomllib` would give it.
        base_dir: absolute path of the folder that host paths are relative to.
        source: what to call the policy in messages.

    Raises:
        PolicyError: with every problem of the data.
    """
    document, found = structure(data)
    grants, conflicts = _resolve(_places(data), base_dir)
    problems = [Problem(source, key, message) for key, message in (*found, *conflicts)]
    if document is None or problems:
        raise PolicyError(sorted(problems, key=_place_in_file))
    return Parts(
        name=document.name,
        filesystem=Filesystem(
            read_only=tuple(grant for grant in grants if not grant.read_write),
            read_write=tuple(grant for grant in grants if grant.read_write),
        ),
        environment=Environment(
            document.environment.inherit, dict[str, str](document.environment.set.items())
        ),
        limits=Limits(document.limits.wall_time, document.limits.memory),
        network=Network(document.network.connect, document.network.listen),
        syscalls=Syscalls(
            document.syscalls.allow,
            document.syscalls.within,
            document.syscalls.deny,
            document.syscalls.on_deny,
        ),
        lockdown=next(mode for mode in MODES if mode == document.lockdown),
        source=source,
    )


def _read(source: str) -> Mapping[str, object]:
    try:
        with open(source, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _unreadable(source, f"cannot be read: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise _unreadable(source, f"is larger than {format_size(LARGEST_FILE)}: not a policy")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(source, f"is not TOML: {error}") from error
    except RecursionError as error:
        raise _unreadable(source, "is not TOML: it is nested too deeply") from error


def _unreadable(source: str, message: str) -> PolicyError:
    return PolicyError([Problem(source, "", message)])


def _places(data: Mapping[str, object]) -> Iterator[tuple[str, Place]]:
    """Find the entries that are right by themselves, each with its key."""
    table = data.get("filesystem")
    for kind in ("read_only", "read_write"):
        entries = table.get(kind) if isinstance(table, Mapping) else None
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            try:
                yield f"filesystem.{kind}[{index}]", parse_place(entry)
            except ValueError:
                continue


def _resolve(
    places: Iterable[tuple[str, Place]], base_dir: str
) -> tuple[list[Grant], list[tuple[str, str]]]:
    grants: dict[str, Grant] = {}
    for key, place in places:
        host = posixpath.normpath(posixpath.join(base_dir, place.host))
        # normpath keeps two leading slashes, which Linux does not tell from one.
        host = f"/{host.lstrip('/')}"
        grants[key] = Grant(host, place.guest or host, read_write=".read_write[" in key)
    return list(grants.values()), [*_repeated(grants), *_narrowing(grants)]


def _repeated(grants: Mapping[str, Grant]) -> Iterator[tuple[str, str]]:
    first: dict[str, str] = {}
    for key, grant in grants.items():
        before = first.setdefault(grant.guest, key)
        if before != key:
            yield key, f"{grant.guest!r} is granted to the guest by {before} already: grant it once"


def _narrowing(grants: Mapping[str, Grant]) -> Iterator[tuple[str, str]]:
    for key, inner in grants.items():
        for outer_key, outer in grants.items():
            inside = relative_to(inner.host, outer.host) is not None
            if inside and outer.read_write and not inner.read_write:
                yield key, _NARROWING.format(inner.host, outer.host, outer_key)


def _place_in_file(problem: Problem) -> int:
    """Order problems by table, unknown tables last; those of one table stay as they are."""
    table = problem.key.partition(".")[0]
    return _ORDER.index(table) if table in _ORDER else len(_ORDER)
