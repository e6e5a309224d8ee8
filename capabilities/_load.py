"""From TOML to the parts of a policy, finding everything that is wrong on the way.

Each value has been checked by itself when it comes here. What concerns two values (the same guest
path twice, a tree to read inside a tree to write) is checked now, among the values that are right
by themselves, so that one run reports both kinds of mistake. What another policy has to do with it
that this one extends is looked at last, in `_combine`.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from . import _calls, _profiles, _values
from ._combine import NO_PATH, extend, meet, unheld
from ._conflicts import Trees
from ._document import PLACES, Document
from ._document import read as read_document
from ._errors import PolicyError
from ._files import Filesystem, Grant
from ._model import (
    LINKS,
    LOGS,
    MODES,
    ON_DENY,
    VIEWS,
    Audit,
    Environment,
    Limits,
    Network,
    Parts,
    Problem,
    Syscalls,
)
from ._units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._model import Word
    from ._values import Place

LARGEST_FILE = 1 << 20
MOST_FILES = 16  # that extend each other, one the next

_ORDER = tuple(attrs.fields_dict(Document))


def load(
    path: str | os.PathLike[str],
    base_dir: str | None = None,
    catalogue: Mapping[str, str] | None = None,
) -> Parts:
    """Read a policy file.

    Args:
        path: the file, or the name of a profile, as in `"profile:server"`.
        base_dir: absolute path of the folder that host paths are relative to, if it is not the one
            that the file lies in, or for a profile the working directory.
        catalogue: every system call that there is, with its group; None where that is looked at
            later.

    Raises:
        PolicyError: the file cannot be read, is not TOML, or is not a policy.
    """
    return _load(os.fspath(path), base_dir, _From((), catalogue))


def from_dict(
    data: Mapping[str, object],
    base_dir: str,
    source: str,
    catalogue: Mapping[str, str] | None = None,
) -> Parts:
    """Check a policy that is TOML data already.

    Args:
        data: the whole policy, as `tomllib` would give it.
        base_dir: absolute path of the folder that host paths are relative to.
        source: what to call the policy in messages.
        catalogue: as for `load`.

    Raises:
        PolicyError: with every problem of the data.
    """
    return _from_dict(data, base_dir, source, _From((), catalogue))


@attrs.frozen(eq=False, repr=False)
class _From:
    """How a policy came to be loaded: by files that extend each other; and what calls there are."""

    chain: tuple[str, ...]
    catalogue: Mapping[str, str] | None

    def further(self, path: str) -> _From:
        return _From((*self.chain, os.path.realpath(path)), self.catalogue)


def _load(source: str, base_dir: str | None, by: _From) -> Parts:
    if source.startswith(_values.PROFILE):
        path, base = _profiles.path(source), base_dir or os.getcwd()
    else:
        path = source
        base = base_dir or os.path.realpath(os.path.dirname(source) or ".")
    return _from_dict(_read(path, source), base, source, by.further(path))


def _read(path: str, source: str) -> Mapping[str, object]:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _unreadable(
            source, f"cannot be read: {reason}; write {_values.REFERENCE_FORM}"
        ) from error
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


def _from_dict(data: Mapping[str, object], base_dir: str, source: str, by: _From) -> Parts:
    document, wrong = _structured(data)
    trees, unresolved = _resolve(data, base_dir, pinned=document.links == LINKS[0])
    bases, without, elsewhere = _bases(data, base_dir, by)
    stated = _stated(data) - {part for key, _ in wrong for part in (key, key.partition(".")[0])}
    wrong += [*unresolved, *trees.conflicts(), *without]
    if by.catalogue is not None:
        wrong += _calls.unknown(_named_calls(data), by.catalogue)
    parts = _parts(document, trees, source)
    if bases:
        resolve = functools.cache(os.path.realpath)  # what was compared is what is kept
        base = functools.reduce(functools.partial(meet, resolve=resolve), bases)
        parts, beyond = extend(parts, stated, base, trees, resolve)
        wrong += (problem for problem in beyond if problem not in wrong)
    wrong += unheld(parts, {key for key, _ in wrong})
    if not bases and not without and not any(key.startswith("audit") for key, _ in wrong):
        wrong += _incomplete(document)
    if wrong or elsewhere:
        problems = (Problem(source, key, message) for key, message in wrong)
        raise PolicyError([*sorted(problems, key=_place_in_file), *elsewhere])
    return parts


def _structured(data: object) -> tuple[Document, list[tuple[str, str]]]:
    """Check every value of a policy by itself: what is right, and what is wrong with the rest."""
    document = read_document(data)
    if document is not None:
        return document, []
    from ._structure import structure

    return structure(data)


def _incomplete(document: Document) -> Iterator[tuple[str, str]]:
    """What keys need that other keys say."""
    audit = document.audit
    if audit is not None and audit.log != "none" and audit.path is None:
        yield "audit.path", NO_PATH


def _parts(document: Document, trees: Trees, source: str) -> Parts:
    files, audit = document.filesystem, document.audit
    limits = attrs.asdict(document.limits)
    return Parts(
        name=document.name,
        filesystem=Filesystem(
            read_only=tuple(trees.read_only.values()),
            read_write=tuple(trees.read_write.values()),
            inaccessible=tuple(trees.inaccessible.values()),
            exec=tuple(trees.exec.values()),
            devices=files.devices,
            cwd=files.cwd,
        ),
        environment=Environment(
            document.environment.inherit, dict[str, str](document.environment.set.items())
        ),
        limits=Limits(**limits),
        network=Network(
            document.network.connect, document.network.listen, tuple(trees.unix.values())
        ),
        syscalls=Syscalls(
            document.syscalls.allow,
            document.syscalls.within,
            document.syscalls.deny,
            _word(ON_DENY, document.syscalls.on_deny),
        ),
        lockdown=_word(MODES, document.lockdown),
        view=_word(VIEWS, document.view),
        clock=document.clock.source,
        random=document.random.source,
        audit=Audit()
        if audit is None
        else Audit(_word(LOGS, audit.log), next(iter(trees.audit.values()), None)),
        source=source,
    )


def _word(words: tuple[Word, ...], given: object) -> Word:
    """Return the same word, as one of those that the model knows."""
    return next(word for word in words if word == given)


# --- paths ----------------------------------------------------------------------------------------


def _resolve(
    data: Mapping[str, object], base_dir: str, *, pinned: bool
) -> tuple[Trees, list[tuple[str, str]]]:
    """Make absolute what is right by itself, each entry with its key; and say what cannot be."""
    variables = _variables(data)
    trees, problems = Trees(), []
    for key, name, place in _places(data):
        try:
            host = _values.host_path(place.host, base_dir, variables)
        except ValueError as error:
            problems.append((key, str(error)))
            continue
        of_kind = getattr(trees, name)
        if name in ("inaccessible", "audit"):
            of_kind[key] = host
        else:
            of_kind[key] = Grant(
                *(host, place.guest or host, name == "read_write"),
                # /dev is the host's own.
                pinned=pinned and name != "devices",
            )
    return trees, problems


def _places(data: Mapping[str, object]) -> Iterator[tuple[str, str, Place]]:
    """Find the entries that are right by themselves: key, which of the trees, and place."""
    for key, read in PLACES.items():
        table, _, name = key.partition(".")
        value = _within(data, table, name)
        entries = (
            {f"{key}[{i}]": entry for i, entry in enumerate(value)}
            if isinstance(value, list)
            else {key: value}
        )
        for entry_key, entry in entries.items():
            try:
                yield entry_key, "audit" if table == "audit" else name, read(entry)
            except ValueError:
                continue


def _within(data: Mapping[str, object], table: str, name: str) -> object:
    inner = data.get(table)
    return inner.get(name) if isinstance(inner, Mapping) else None


def _named_calls(data: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """List the entries that name calls and are right by themselves, each with its key."""
    within = _within(data, "syscalls", "within")
    lists = {f"syscalls.{name}": _within(data, "syscalls", name) for name in ("allow", "deny")} | {
        f"syscalls.within[{i}]": inner
        for i, inner in enumerate(within if isinstance(within, list) else ())
    }
    for key, entries in lists.items():
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            try:
                yield f"{key}[{i}]", _values.call(entry)
            except ValueError:
                continue


def _variables(data: Mapping[str, object]) -> dict[str, str]:
    table = data.get("variables")
    given = table.items() if isinstance(table, Mapping) else ()
    return {str(name): value for name, value in given if isinstance(value, str)}


# --- what is extended -----------------------------------------------------------------------------


def _bases(
    data: Mapping[str, object], base_dir: str, by: _From
) -> tuple[list[Parts], list[tuple[str, str]], list[Problem]]:
    """Load what a policy extends.

    Returns:
        The policies; what cannot be extended, by its key here; and what is wrong in other files.
    """
    entries = data.get("extends")
    bases: list[Parts] = []
    without: list[tuple[str, str]] = []
    elsewhere: list[Problem] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        try:
            name = _values.reference(entry)
        except ValueError:
            continue  # reported with the values that are wrong by themselves
        is_profile = name.startswith(_values.PROFILE)
        name = name if is_profile else os.path.join(base_dir, name)
        refusal = None if is_profile else _circle(name, by.chain)
        try:
            if refusal is None:
                bases.append(_load(name, base_dir if is_profile else None, by))
        except PolicyError as error:
            first = error.problems[0]
            if (first.file, first.key) == (name, ""):  # there is no policy there at all
                refusal = first.message
            else:
                elsewhere += error.problems
        if refusal is not None:
            without.append((f"extends[{index}]", f"{entry!r}: {refusal}"))
    return bases, without, elsewhere


def _circle(name: str, chain: tuple[str, ...]) -> str | None:
    """Why a file cannot be extended by the last of some that extend each other, or None."""
    path = os.path.realpath(name)
    if path in chain[-1:]:
        return "it is this file itself: write another"
    if path in chain:
        return "it extends this file in turn: remove one of the two"
    if len(chain) >= MOST_FILES:
        return f"that is one more than {MOST_FILES} files that extend each other: extend fewer"
    return None


def _stated(data: Mapping[str, object]) -> frozenset[str]:
    """List the keys that a policy states, so that it does not take over what it extends."""
    tables = {key: value for key, value in data.items() if isinstance(value, Mapping)}
    inner = (f"{key}.{name}" for key, table in tables.items() for name in table)
    return frozenset((*data, *inner))


def _place_in_file(problem: Problem) -> int:
    """Order problems by table, unknown tables last; those of one table stay as they are."""
    table = problem.key.partition(".")[0].partition("[")[0]
    return _ORDER.index(table) if table in _ORDER else len(_ORDER)
