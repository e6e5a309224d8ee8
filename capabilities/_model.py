"""The parts of a policy, as frozen values."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import TypeVar

import attrs

Number = TypeVar("Number", int, float)


@attrs.frozen
class Problem:
    """One thing that is wrong with a policy.

    Attributes:
        file: the policy's file as it was named, or what stands for it.
        key: the key that is wrong, dotted, such as `filesystem.read_only[1]`; empty for the file.
        message: what is wrong and what is allowed, on one line.
    """

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.message) if part)


def _is_normal_path(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    absolute = value.startswith("/") and not value.startswith("//")
    if not absolute or posixpath.normpath(value) != value or "\0" in value:
        raise ValueError(f"{attribute.name} is {value!r}: it must be absolute and normalised")


@attrs.frozen(order=True)
class Grant:
    """A tree of the host that a guest may use, and where the guest finds it.

    Attributes:
        host: absolute, normalised path on the host.
        guest: absolute, normalised path that the guest uses.
        read_write: whether the guest may change the tree, or only read it.

    Raises:
        ValueError: a path is not absolute or not normalised.
    """

    host: str = attrs.field(validator=_is_normal_path)
    guest: str = attrs.field(validator=_is_normal_path)
    read_write: bool = False

    def intersect(self, other: Grant) -> Grant | None:
        """Return what both grant, or None if nothing lies in both trees at the same guest path."""
        for outer, inner in ((self, other), (other, self)):
            below = relative_to(inner.host, outer.host)
            if below is not None and inner.guest == _join(outer.guest, below):
                return attrs.evolve(inner, read_write=self.read_write and other.read_write)
        return None

    def covers(self, other: Grant) -> bool:
        """Return whether this grants all that the other one does."""
        return self.intersect(other) == other


def relative_to(path: str, tree: str) -> str | None:
    """Return `path` relative to `tree`, empty if they are equal, None if it lies outside.

    Both are absolute and normalised; no file is looked at.
    """
    top = tree if tree.endswith("/") else f"{tree}/"
    if path == tree:
        return ""
    return path.removeprefix(top) if path.startswith(top) else None


def _join(tree: str, below: str) -> str:
    return posixpath.join(tree, below) if below else tree


def _sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _copied(items: Mapping[str, str]) -> dict[str, str]:
    return dict(items)


@attrs.frozen
class Filesystem:
    """The trees that are granted; nothing else of the host's files is reachable.

    Attributes:
        read_only: grants to read.
        read_write: grants to read and change.
    """

    read_only: tuple[Grant, ...] = ()
    read_write: tuple[Grant, ...] = ()

    @classmethod
    def of(cls, grants: Iterable[Grant]) -> Filesystem:
        """Sort grants into the two kinds; what another grant covers is left out."""
        given = sorted(set(grants))
        kept = [
            grant
            for grant in given
            if not any(other.covers(grant) for other in given if other != grant)
        ]
        return cls(
            read_only=tuple(grant for grant in kept if not grant.read_write),
            read_write=tuple(grant for grant in kept if grant.read_write),
        )

    @property
    def grants(self) -> tuple[Grant, ...]:
        """All grants, to read first."""
        return self.read_only + self.read_write

    def intersect(self, other: Filesystem) -> Filesystem:
        """Return what both grant.

        Where the two show different host trees at one guest path, and each shows the other's tree
        below another path as well, the result can hold two grants for that guest path. Either one
        alone is still within both policies.
        """
        pairs = (mine.intersect(theirs) for mine in self.grants for theirs in other.grants)
        return Filesystem.of(grant for grant in pairs if grant is not None)


@attrs.frozen
class Environment:
    """The environment variables that a guest gets.

    Attributes:
        inherit: names whose values come from whoever starts the guest, if they are set there.
        set: names and values, whatever they are outside; these win over `inherit`.
    """

    inherit: tuple[str, ...] = attrs.field(default=(), converter=_sorted_names)
    # Not part of the hash, since a dict has none; it is part of the comparison.
    set: Mapping[str, str] = attrs.field(factory=dict, converter=_copied, hash=False)

    def intersect(self, other: Environment) -> Environment:
        """Return the names that both inherit, and the values that both set alike."""
        return Environment(
            inherit=[name for name in self.inherit if name in other.inherit],
            set={name: value for name, value in self.set.items() if other.set.get(name) == value},
        )


@attrs.frozen
class Limits:
    """What a guest may use up; None is without limit.

    Attributes:
        wall_time: seconds from start to end.
        memory: bytes of linear memory.
    """

    wall_time: float | None = None
    memory: int | None = None

    def intersect(self, other: Limits) -> Limits:
        """Return the tighter limit of each kind."""
        return Limits(
            wall_time=_tighter(self.wall_time, other.wall_time),
            memory=_tighter(self.memory, other.memory),
        )


@attrs.frozen
class Parts:
    """What a policy is made of.

    Attributes:
        name: what its author calls it; it has no effect.
        filesystem: the trees that are granted.
        environment: the variables that the guest gets.
        limits: what the guest may use up.
    """

    name: str = ""
    filesystem: Filesystem = attrs.field(factory=Filesystem)
    environment: Environment = attrs.field(factory=Environment)
    limits: Limits = attrs.field(factory=Limits)


def _tighter(one: Number | None, other: Number | None) -> Number | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given, default=None)
