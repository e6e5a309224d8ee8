"""What an attack is: what it does, what refuses it, and what it gains where nobody does."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.escape.evil import Evil

    Run = Callable[[Evil], int]
    Gain = Callable[[Evil], bool]


class Breakage(enum.Enum):
    """What has to be broken in the core for an attack to succeed."""

    CAPABILITY = enum.auto()
    """`capability.c` alone."""

    LISTS = enum.auto()
    """The descriptor table and the closed lists around it, too."""

    NOTHING = enum.auto()
    """Somebody else stops it all the same: the attack says who."""


class Options(TypedDict, total=False):
    """What may be said of an attack besides."""

    falls_with: Breakage
    stopped_by: str
    grants_root: bool
    needs_root: bool


@dataclass(frozen=True)
class Attack:
    """One way to get out, or to get at something."""

    name: str
    run: Run
    errno: int
    """What it must be answered; 0 where the call is fine but must not do what is hoped for."""

    gain: Gain
    """Has it succeeded?  Asked after `run`, whose result is then the `answer`."""

    falls_with: Breakage = Breakage.CAPABILITY
    stopped_by: str = ""
    """Who stops it where `capability.c` does not."""

    grants_root: bool = False
    """The whole file system is granted, at the box's number."""

    needs_root: bool = False
    """Where the core is broken, the kernel still lets only root."""

    def __post_init__(self) -> None:
        if (self.falls_with is Breakage.CAPABILITY) == bool(self.stopped_by):
            raise ValueError(f"{self.name}: say who stops it if not capability.c, and only then")


def read(evil: Evil) -> bool:
    """It has read the secret."""
    return evil.has_read


def seen(evil: Evil) -> bool:
    """It has got the metadata of something outside."""
    return evil.has_seen


def changed(evil: Evil) -> bool:
    """It has changed something outside, or in the read-only grant."""
    return evil.has_changed


def answered(evil: Evil) -> bool:
    """The call was made, which is all there is to gain."""
    return evil.answer >= 0


class Collection:
    """The attacks of one kind."""

    def __init__(self) -> None:
        self.attacks: list[Attack] = []

    def attack(self, errno: int, gain: Gain, **options: Unpack[Options]) -> Callable[[Run], Run]:
        """Take a function in as an attack."""

        def take(run: Run) -> Run:
            self.add(run.__name__, run, errno, gain, **options)
            return run

        return take

    def add(self, name: str, run: Run, errno: int, gain: Gain, **options: Unpack[Options]) -> None:
        """Take one of many like it in."""
        if options.get("stopped_by"):
            options.setdefault("falls_with", Breakage.NOTHING)
        self.attacks.append(Attack(name, run, errno, gain, **options))


def named(attacks: Iterable[Attack]) -> dict[str, Attack]:
    """The attacks by name.  Raises where two have one name."""
    found: dict[str, Attack] = {}
    for attack in attacks:
        if attack.name in found:
            raise ValueError(f"two attacks are called {attack.name}")
        found[attack.name] = attack
    return found
