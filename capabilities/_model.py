"""The parts of a policy, as frozen values. Trees of files are in `_files`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import attrs

from ._files import Filesystem, Grant, sorted_names

Number = TypeVar("Number", int, float)
Word = TypeVar("Word", bound=str)

Mode = Literal["required", "best-effort", "off"]
View = Literal["required", "auto", "off"]
Links = Literal["refused", "followed"]
OnDeny = Literal["kill", "EPERM", "EACCES", "ENOSYS", "ENOENT", "EINVAL", "EOPNOTSUPP", "log"]
Log = Literal["all", "denied", "none"]
Source = Literal["virtual", "fixed", "host"]

# Of each, the strictest first: it is what counts where two policies differ.
MODES: tuple[Mode, ...] = ("required", "best-effort", "off")
VIEWS: tuple[View, ...] = ("required", "auto", "off")
LINKS: tuple[Links, ...] = ("refused", "followed")
ON_DENY: tuple[OnDeny, ...] = (
    *("kill", "EPERM", "EACCES", "ENOSYS", "ENOENT", "EINVAL", "EOPNOTSUPP"),
    "log",
)
LOGS: tuple[Log, ...] = ("all", "denied", "none")
SOURCES: tuple[Source, ...] = ("virtual", "fixed", "host")

DEFAULT_VIEW: View = "auto"
DEFAULT_LINKS: Links = "followed"
DEFAULT_ON_DENY: OnDeny = "EPERM"

LARGEST_PORT = 65535
LARGEST_SEED = (1 << 64) - 1
LATEST_TIME = (1 << 64) - 1  # nanoseconds since 1970, as WASI counts them
VIRTUAL_START = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
FEWEST_FILES = 3  # the standard streams
MOST_FILES = 4096  # what the core has room for
MOST_PROCESSES = 32768
MOST_THREADS = 1024  # what the core has room for


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


def _sorted_lists(lists: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted({sorted_names(names) for names in lists}))


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
class Environment:
    """The environment variables that a guest gets.

    Attributes:
        inherit: names whose values come from whoever starts the guest, if they are set there.
        set: names and values, whatever they are outside; these win over `inherit`.
    """

    inherit: tuple[str, ...] = attrs.field(default=(), converter=sorted_names)
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
        unix: unix sockets that the guest may connect to, by their paths.

    Raises:
        ValueError: a port is not between 1 and 65535.
    """

    connect: tuple[int, ...] = attrs.field(
        default=(), converter=_sorted_ports, validator=_are_ports
    )
    listen: tuple[int, ...] = attrs.field(default=(), converter=_sorted_ports, validator=_are_ports)
    unix: tuple[Grant, ...] = ()

    def intersect(self, other: Network) -> Network:
        """Return the ports and sockets that both grant."""
        return Network(
            connect=[port for port in self.connect if port in other.connect],
            listen=[port for port in self.listen if port in other.listen],
            unix=tuple(sorted({*self.unix} & {*other.unix})),
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
        on_deny: what a call does that is not granted: answer an error, whose name this is, or end
            the guest (`"kill"`); with `"log"` it is made all the same, and only said.
    """

    allow: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(sorted_names)
    )
    within: tuple[tuple[str, ...], ...] = attrs.field(default=(), converter=_sorted_lists)
    deny: tuple[str, ...] = attrs.field(default=(), converter=sorted_names)
    on_deny: OnDeny = attrs.field(default=DEFAULT_ON_DENY, validator=attrs.validators.in_(ON_DENY))

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
            on_deny=stricter(self.on_deny, other.on_deny, ON_DENY),
        )


@attrs.frozen
class Limits:
    """What a guest may use up; None is without limit.

    Attributes:
        wall_time: seconds from start to end.
        cpu_time: seconds of computing, of each process.
        memory: bytes of linear memory.
        open_files: descriptors that it may have at a time, its three streams among them.
        output: bytes that it may write to its standard output, and as many to standard error.
        processes: how many processes and threads it may be at a time; 1 is itself alone.
        threads: how many threads each process may have at a time; 1 is the first alone.
    """

    wall_time: float | None = None
    cpu_time: float | None = None
    memory: int | None = None
    open_files: int | None = None
    output: int | None = None
    processes: int | None = None
    threads: int | None = None

    def intersect(self, other: Limits) -> Limits:
        """Return the tighter limit of each kind."""
        return Limits(
            wall_time=_tighter(self.wall_time, other.wall_time),
            cpu_time=_tighter(self.cpu_time, other.cpu_time),
            memory=_tighter(self.memory, other.memory),
            open_files=_tighter(self.open_files, other.open_files),
            output=_tighter(self.output, other.output),
            processes=_tighter(self.processes, other.processes),
            threads=_tighter(self.threads, other.threads),
        )


def _is_time(_: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and not 0 <= value <= LATEST_TIME:
        raise ValueError(f"{attribute.name} is {value!r}: it must be nanoseconds since 1970")


@attrs.frozen
class Clock:
    """What time it is for a WASI guest.

    Attributes:
        source: `"host"` is the host's clocks. `"virtual"` is a time that begins at the same instant
            in every run, passes by itself hardly at all, and jumps to the end of every wait.
            `"fixed"` is the same, but that the time of day stands still.
        at: the time of day that stands still, in nanoseconds since 1970; None for other sources.

    Raises:
        ValueError: `at` is given without `"fixed"`, or the other way round, or is no such time.
    """

    source: Source = attrs.field(default="host", validator=attrs.validators.in_(SOURCES))
    at: int | None = attrs.field(default=None, validator=_is_time)

    def __attrs_post_init__(self) -> None:
        if (self.at is None) == (self.source == "fixed"):
            raise ValueError(f"at is {self.at!r}: a fixed clock has a time, and no other has one")

    @property
    def start(self) -> int:
        """The time of day at which a run begins, in nanoseconds since 1970, if not the host's."""
        return VIRTUAL_START if self.at is None else self.at

    def intersect(self, other: Clock) -> Clock:
        """Return the clock that says less: any is within the host's, and none of the rest alike."""
        return min(self, other, key=lambda clock: (SOURCES.index(clock.source), clock.at or 0))


@attrs.frozen
class Random:
    """Where a WASI guest's random bytes come from.

    Attributes:
        seed: a number from which all of them follow, the same in every run; None for the kernel's.
            0 to 2**64 - 1.
    """

    seed: int | None = None

    def intersect(self, other: Random) -> Random:
        """Return the source that says less: a seed, the smaller one of two."""
        return Random(_tighter(self.seed, other.seed))


@attrs.frozen
class Audit:
    """What is written down of what a guest asked for.

    Attributes:
        log: `"denied"` is what was refused, `"all"` also what was granted, `"none"` is neither.
        path: absolute path on the host of the file to which a line of JSON is added for each;
            None where nothing is written.
    """

    log: Log = attrs.field(default="none", validator=attrs.validators.in_(LOGS))
    path: str | None = None

    def intersect(self, other: Audit) -> Audit:
        """Return what writes down as much as either; to the first path, where they have two."""
        paths = [one.path for one in (self, other) if one.path is not None]
        return Audit(stricter(self.log, other.log, LOGS), min(paths, default=None))


@attrs.frozen
class Parts:
    """What a policy is made of: see `Policy`, which has the same attributes."""

    name: str = ""
    filesystem: Filesystem = attrs.field(factory=Filesystem)
    environment: Environment = attrs.field(factory=Environment)
    limits: Limits = attrs.field(factory=Limits)
    network: Network = attrs.field(factory=Network)
    syscalls: Syscalls = attrs.field(factory=Syscalls)
    lockdown: Mode = attrs.field(default=MODES[0], validator=attrs.validators.in_(MODES))
    view: View = attrs.field(default=DEFAULT_VIEW, validator=attrs.validators.in_(VIEWS))
    clock: Clock = attrs.field(factory=Clock)
    random: Random = attrs.field(factory=Random)
    audit: Audit = attrs.field(factory=Audit)
    source: str = attrs.field(default="policy", eq=False, repr=False)


def stricter(one: Word, other: Word, strictest_first: tuple[Word, ...]) -> Word:
    """Return the word that comes first in a tuple of them."""
    return min(one, other, key=strictest_first.index)


def _tighter(one: Number | None, other: Number | None) -> Number | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given, default=None)
