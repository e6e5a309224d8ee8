"""Trees of files that a policy grants or denies, as frozen values. No file is looked at."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


DEVICES = ("full", "null", "ptmx", "random", "tty", "urandom", "zero")
"""Devices that are granted by their names alone. They are found in /dev, here and there."""


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in order, each once."""
    return tuple(sorted(set(names)))


def _check_path(name: str, value: str) -> None:
    absolute = value.startswith("/") and not value.startswith("//")
    if not absolute or posixpath.normpath(value) != value or "\0" in value:
        raise ValueError(f"{name} is {value!r}: it must be absolute and normalised")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} is {value!r}: no file has such a name: {error.reason}") from error


def _is_normal_path(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    _check_path(attribute.name, value)


def _are_normal_paths(
    _: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]
) -> None:
    for path in value:
        _check_path(attribute.name, path)


@attrs.frozen(order=True)
class Grant:
    """A tree of the host that a guest may use, and where the guest finds it.

    Attributes:
        host: absolute, normalised path on the host: a directory with all that is in it, or a file.
        guest: absolute, normalised path that the guest uses.
        read_write: whether the guest may change the tree, or only read it.
        pinned: whether links in `host` have been followed, so that none may be in it when it is
            opened. Two grants that differ in it only are equal.

    Raises:
        ValueError: a path is not absolute or not normalised.
    """

    host: str = attrs.field(validator=_is_normal_path)
    guest: str = attrs.field(validator=_is_normal_path)
    read_write: bool = False
    pinned: bool = attrs.field(default=False, eq=False, repr=False, kw_only=True)

    def pin(self, resolve: Callable[[str], str]) -> Grant:
        """Return the grant of what its path leads to now, and of nothing that it leads to later.

        What is pinned stays: since then a guest may have put a link there.
        """
        if self.pinned:
            return self
        return attrs.evolve(self, host=resolve(self.host), pinned=True)

    def intersect(self, other: Grant) -> Grant | None:
        """Return what both grant, or None if nothing lies in both trees at the same guest path."""
        for outer, inner in ((self, other), (other, self)):
            below = relative_to(inner.host, outer.host)
            if below is not None and inner.guest == join(outer.guest, below):
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


def join(tree: str, below: str) -> str:
    """Return the path of what `relative_to` has given."""
    return posixpath.join(tree, below) if below else tree


def ancestors(path: str) -> Iterator[str]:
    """Go from a path to the root: the path itself, the directory that it lies in, and so on."""
    yield path
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def _outermost(grants: Iterable[Grant]) -> list[Grant]:
    """Sort grants, without those that others cover."""
    given = sorted(set(grants))
    return [
        grant
        for grant in given
        if not any(other.covers(grant) for other in given if other != grant)
    ]


def _shared(one: Iterable[Grant], other: Iterable[Grant]) -> Iterator[Grant]:
    theirs = tuple(other)
    pairs = (first.intersect(second) for first in one for second in theirs)
    return (grant for grant in pairs if grant is not None)


def _outermost_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Sort paths, without those that lie in others."""
    given = set(paths)
    return tuple(
        path
        for path in sorted(given)
        if not any(other in given for other in ancestors(path) if other != path)
    )


PTMX, PTS = "/dev/ptmx", "/dev/pts"


def device_grant(name: str) -> Grant:
    """Return the grant of a device: of the one that makes terminals, where those are then."""
    path = f"/dev/{name}"
    return Grant(path, PTS if path == PTMX else path, read_write=True)


@attrs.frozen
class Filesystem:
    """The trees that are granted; nothing else of the host's files is reachable.

    Attributes:
        read_only: grants to read.
        read_write: grants to read and change.
        inaccessible: host trees of which nothing may be granted, by whoever starts the guest too.
        exec: grants to read, and for a WALI guest to execute as programs of Linux's own.
        devices: names of devices that a WALI guest finds in /dev, to read and write.
        cwd: the guest's path in which it starts, or None for where it would without a policy.

    Raises:
        ValueError: a path is not absolute or not normalised, or a device is not one of `DEVICES`.
    """

    read_only: tuple[Grant, ...] = ()
    read_write: tuple[Grant, ...] = ()
    inaccessible: tuple[str, ...] = attrs.field(
        default=(), converter=_outermost_paths, validator=_are_normal_paths
    )
    exec: tuple[Grant, ...] = ()
    devices: tuple[str, ...] = attrs.field(
        default=(),
        converter=sorted_names,
        validator=attrs.validators.deep_iterable(attrs.validators.in_(DEVICES)),
    )
    cwd: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(_is_normal_path)
    )

    @classmethod
    def of(
        cls,
        grants: Iterable[Grant],
        *,
        inaccessible: Iterable[str] = (),
        exec: Iterable[Grant] = (),  # noqa: A002 - what the key is called
        devices: Iterable[str] = (),
        cwd: str | None = None,
    ) -> Filesystem:
        """Sort grants into the two kinds; what another grant covers is left out."""
        kept = _outermost(grants)
        return cls(
            read_only=tuple(grant for grant in kept if not grant.read_write),
            read_write=tuple(grant for grant in kept if grant.read_write),
            inaccessible=tuple(inaccessible),
            exec=tuple(_outermost(exec)),
            devices=tuple(devices),
            cwd=cwd,
        )

    @property
    def grants(self) -> tuple[Grant, ...]:
        """All grants to read and to change, to read first."""
        return self.read_only + self.read_write

    @property
    def named_devices(self) -> tuple[Grant, ...]:
        """The devices, as grants to read and write."""
        return tuple(device_grant(name) for name in self.devices)

    @property
    def readable(self) -> tuple[Grant, ...]:
        """All grants, each of which is at least to read."""
        return self.grants + self.exec

    def intersect(self, other: Filesystem) -> Filesystem:
        """Return what both grant; denials add up.

        Where the two show different host trees at one guest path, and each shows the other's tree
        below another path as well, the result can hold two grants for that guest path. Either one
        alone is still within both policies. A working directory is kept if both have the same.
        """
        return Filesystem.of(
            _shared(self.grants, other.grants),
            inaccessible=self.inaccessible + other.inaccessible,
            exec=_shared(self.exec, other.exec),
            devices=[name for name in self.devices if name in other.devices],
            cwd=self.cwd if self.cwd == other.cwd else None,
        )

    def denial(self, paths: Iterable[str], resolve: Callable[[str], str] = str) -> str | None:
        """Return the inaccessible tree that keeps a host tree from being granted, or None.

        The tree may lie in it, or hold it: a part of what is granted cannot be taken back.

        Args:
            paths: absolute, normalised paths on the host, which all lead to that tree.
            resolve: what an inaccessible path means, such as `os.path.realpath`.
        """
        given = {*paths}
        for denied in self.inaccessible:
            for one in {denied, resolve(denied)}:
                for two in given:
                    if relative_to(one, two) is not None or relative_to(two, one) is not None:
                        return denied
        return None
