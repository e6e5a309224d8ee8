"""The parts of a policy, as frozen values."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import attrs

Number = TypeVar("Number", int, float)

Mode = Literal["required", "best-effort", "off"]
MODES: tuple[Mode, ...] = ("required", "best-effort", "off")  # the strictest first

# What a call that is not granted may answer; where two policies differ it is the first.
ERRNOS = ("EPERM", "ENOSYS", "EACCES")

LARGEST_PORT = 65535


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


def _sorted_lists(lists: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted({_sorted_names(names) for names in lists}))


def _sorted_ports(ports: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(ports)))


def _are_ports(
    _: object, attribute: attrs.Attribute[tuple[int, ...]], value: Iterable[int]
) -> None:
    for port in value:
        if not 1 <= port <= LARGEST_PORT:
            raise ValueError(f"{attribute.name} holds {port!r}: it must be a port, 1 to 65535")


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
class Network:
    """The sockets that a WALI guest may use. WASI guests make none, so that they get nothing by it.

    A port is granted for every address: the kernel checks no more than the port.

    Attributes:
        connect: TCP ports that the guest may connect to.
        listen: TCP ports that the guest may listen at.

    Raises:
        ValueError: a port is not between 1 and 65535.
    """

    connect: tuple[int, ...] = attrs.field(
        default=(), converter=_sorted_ports, validator=_are_ports
    )
    listen: tuple[int, ...] = attrs.field(default=(), converter=_sorted_ports, validator=_are_ports)

    def intersect(self, other: Network) -> Network:
        """Return the ports that both grant."""
        return Network(
            connect=[port for port in self.connect if port in other.connect],
            listen=[port for port in self.listen if port in other.listen],
        )


@attrs.frozen
class Syscalls:
    """The system calls that a WALI guest may make. WASI guests make none: nothing here binds them.

    An entry is a call, such as `openat`, or a group of systemd's, such as `@file-system`.

    Attributes:
        allow: what is granted, exactly; None for what follows from the policy's other tables.
        within: more lists, each of which has to hold a call as well, or it is not granted. The
            intersection of two policies needs them, since here no group is known by its calls.
        deny: what is not granted, whatever else is said; it covers every variant of a call.
        on_deny: the name of the error that a call which is not granted answers.
    """

    allow: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_sorted_names)
    )
    within: tuple[tuple[str, ...], ...] = attrs.field(default=(), converter=_sorted_lists)
    deny: tuple[str, ...] = attrs.field(default=(), converter=_sorted_names)
    on_deny: str = attrs.field(default=ERRNOS[0], validator=attrs.validators.in_(ERRNOS))

    def intersect(self, other: Syscalls) -> Syscalls:
        """Return what grants a call if both do, and denies it if either does."""
        exact = [one.allow for one in (self, other) if one.allow is not None]
        lists = sorted({*exact, *self.within, *other.within})
        # Where one of the two follows from its tables, so does the result, within the other's list.
        allow = lists.pop(0) if len(exact) > 1 else None
        return Syscalls(
            allow=allow,
            within=lists,
            deny=self.deny + other.deny,
            on_deny=self.on_deny if self.on_deny == other.on_deny else ERRNOS[0],
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
        network: the sockets that a WALI guest may use.
        syscalls: the system calls that a WALI guest may make.
        lockdown: what to do where the kernel cannot confine the guest's thread: refuse to run it
            (`"required"`), or run it (`"best-effort"`); `"off"` does not ask the kernel to.
        source: what to call the policy in messages; two policies that differ in it only are equal.
    """

    name: str = ""
    filesystem: Filesystem = attrs.field(factory=Filesystem)
    environment: Environment = attrs.field(factory=Environment)
    limits: Limits = attrs.field(factory=Limits)
    network: Network = attrs.field(factory=Network)
    syscalls: Syscalls = attrs.field(factory=Syscalls)
    lockdown: Mode = attrs.field(default=MODES[0], validator=attrs.validators.in_(MODES))
    source: str = attrs.field(default="policy", eq=False, repr=False)


def stricter(one: Mode, other: Mode) -> Mode:
    """Return the mode that refuses more."""
    return min(one, other, key=MODES.index)


def _tighter(one: Number | None, other: Number | None) -> Number | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given, default=None)
