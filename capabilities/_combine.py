"""Two policies in one: what both grant, and a policy that extends another.

Neither way can anything be had that one of the two does not grant. What a path grants is what links
in it lead to: so trees are compared, and kept, with their links followed (`Grant.pin`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ._conflicts import Trees
from ._files import Filesystem, ancestors
from ._metadata import METADATA_WRITERS
from ._model import (
    LOGS,
    MODES,
    ON_DENY,
    VIEWS,
    Audit,
    Environment,
    Network,
    Parts,
    Syscalls,
    stricter,
)
from ._units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from ._files import Grant
    from ._model import Log, View

NO_PATH = "is missing: write the file that lines are added to"
LOG_NEEDS_AUDIT = "'log' lets calls through and only says so: it needs an [audit] that says where"
_UNIX_NEEDS = (
    ("lockdown", "Landlock: without it sockets with abstract names could be connected to"),
    ("view", "a view: without one any unix socket of the host's could be connected to"),
)
_OF = " of "

_FORMATS: dict[str, Callable[[Any], str]] = {
    "wall_time": format_duration,
    "cpu_time": format_duration,
    "memory": format_size,
    "output": format_size,
}


def meet(one: Parts, other: Parts, resolve: Callable[[str], str] = str) -> Parts:
    """Return what grants all that both do and no more, within the tighter limits.

    Args:
        one: a policy.
        other: another policy.
        resolve: what a host path means, such as `os.path.realpath`.
    """
    same_source = one.source == other.source
    one, other = _pinned(one, resolve), _pinned(other, resolve)
    return Parts(
        name=one.name if one.name == other.name else "",
        filesystem=one.filesystem.intersect(other.filesystem),
        environment=one.environment.intersect(other.environment),
        limits=one.limits.intersect(other.limits),
        network=one.network.intersect(other.network),
        syscalls=_viewless(one.syscalls.intersect(other.syscalls), one.view, other.view),
        lockdown=stricter(one.lockdown, other.lockdown, MODES),
        view=stricter(one.view, other.view, VIEWS),
        clock=one.clock.intersect(other.clock),
        random=one.random.intersect(other.random),
        audit=one.audit.intersect(other.audit),
        source=one.source if same_source else f"{one.source} and {other.source}",
    )


def _pinned(parts: Parts, resolve: Callable[[str], str]) -> Parts:
    """Return the same policy with the trees that its paths lead to now."""

    def pinned(grants: Iterable[Grant]) -> tuple[Grant, ...]:
        return tuple(grant.pin(resolve) for grant in grants)

    files = attrs.evolve(
        parts.filesystem,
        read_only=pinned(parts.filesystem.read_only),
        read_write=pinned(parts.filesystem.read_write),
        exec=pinned(parts.filesystem.exec),
    )
    network = attrs.evolve(parts.network, unix=pinned(parts.network.unix))
    return attrs.evolve(parts, filesystem=files, network=network)


def _viewless(calls: Syscalls, one: View, other: View) -> Syscalls:
    """Withhold what one of two policies refuses for want of a view, which the other one brings."""
    if one == other or "off" not in (one, other):
        return calls
    return attrs.evolve(calls, deny=(*calls.deny, *METADATA_WRITERS))


def extend(
    own: Parts,
    stated: AbstractSet[str],
    base: Parts,
    trees: Trees,
    resolve: Callable[[str], str] = str,
) -> tuple[Parts, list[tuple[str, str]]]:
    """Return a policy with what it does not state taken over from the one that it extends.

    Args:
        own: what the policy states itself, and defaults.
        stated: the keys that it states, such as `filesystem.read_only`.
        base: the policy that it extends. Denials and lists of calls add up.
        trees: those that the policy states, by their keys.
        resolve: what a host path means, such as `os.path.realpath`.

    Returns:
        The policy, and what is wrong: each key that grants what the extended policy does not, or
        limits less, and what the two contradict each other in.
    """
    problems = [*_Narrowing(own, stated, base, trees, resolve).problems()]
    combined = _combined(own, stated, base)
    problems += _trees(combined, trees, stated, base).conflicts()
    if combined.audit.log != "none" and combined.audit.path is None:
        problems.append(("audit.path", NO_PATH))
    combined = _pinned(combined, resolve)
    return combined, [("extends" if _OF in key else key, message) for key, message in problems]


def unheld(parts: Parts, wrong: AbstractSet[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Find what one key grants and nobody holds a guest to, since another says so.

    Args:
        parts: the policy.
        wrong: other keys that are known to be wrong: nothing is concluded from those.
    """
    audited = {"audit.log", "audit.path"}.isdisjoint(wrong) and parts.audit.log == "none"
    if parts.syscalls.on_deny == "log" and audited:
        yield "syscalls.on_deny", LOG_NEEDS_AUDIT
    for key, needs in _UNIX_NEEDS:
        if parts.network.unix and getattr(parts, key) == "off" and key not in wrong:
            yield "network.unix", f'{key} = "off" is in its way; it takes {needs}'


class _Narrowing:
    """What a policy states beyond the one that it extends: key and message."""

    def __init__(
        self,
        own: Parts,
        stated: AbstractSet[str],
        base: Parts,
        trees: Trees,
        resolve: Callable[[str], str],
    ) -> None:
        self._own, self._stated, self._base = own, stated, base
        self._own_trees, self._resolve = trees, resolve
        self._suffix = f"{base.source}, which this policy extends: it can only narrow that"

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from self._words()
        yield from self._trees()
        yield from self._names()
        yield from self._limits()
        yield from self._sources()

    def _trees(self) -> Iterator[tuple[str, str]]:
        own, base = self._own_trees, self._base.filesystem
        yield from self._outside(own.read_only, base.readable)
        yield from self._outside(own.read_write, base.read_write, "to be changed ")
        yield from self._outside(own.exec, base.exec, "to be executed ")
        yield from self._outside(own.unix, self._base.network.unix)

    def _outside(
        self, grants: Mapping[str, Grant], within: Iterable[Grant], purpose: str = ""
    ) -> Iterator[tuple[str, str]]:
        hosts = {grant.pin(self._resolve).host for grant in within}
        for key, grant in grants.items():
            place = grant.pin(self._resolve).host
            if hosts.isdisjoint(ancestors(place)):
                leads = "" if place == grant.host else f" leads to {place!r}, which"
                yield key, f"{grant.host!r}{leads} is not granted {purpose}by {self._suffix}"

    def _names(self) -> Iterator[tuple[str, str]]:
        for key, own, base in (
            ("environment.inherit", self._own.environment.inherit, self._base.environment.inherit),
            ("filesystem.devices", self._own.filesystem.devices, self._base.filesystem.devices),
            ("network.connect", self._own.network.connect, self._base.network.connect),
            ("network.listen", self._own.network.listen, self._base.network.listen),
        ):
            for name in own:
                if name not in base:
                    yield key, f"{name!r} is not granted by {self._suffix}"

    def _limits(self) -> Iterator[tuple[str, str]]:
        for field in attrs.fields(type(self._own.limits)):
            own, most = (getattr(one.limits, field.name) for one in (self._own, self._base))
            if own is not None and most is not None and own > most:
                show = _FORMATS.get(field.name, str)
                message = f"{show(own)} is more than the {show(most)} of {self._suffix}"
                yield f"limits.{field.name}", message

    def _words(self) -> Iterator[tuple[str, str]]:
        own, base = self._own, self._base
        for key, words, one, other in (
            ("lockdown", MODES, own.lockdown, base.lockdown),
            ("view", VIEWS, own.view, base.view),
            ("audit.log", LOGS, own.audit.log, base.audit.log),
            ("syscalls.on_deny", ON_DENY, own.syscalls.on_deny, base.syscalls.on_deny),
        ):
            if key in self._stated and _rank(words, one) > _rank(words, other):
                yield key, f"{one!r} is less than the {other!r} of {self._suffix}"

    def _sources(self) -> Iterator[tuple[str, str]]:
        """What the same run of two programs would differ in."""
        for key in ("clock", "random"):
            own, base = getattr(self._own, key), getattr(self._base, key)
            if key in self._stated and own.intersect(base) != own:
                yield f"{key}.source", f"it is not that of {self._suffix}"
        path = self._base.audit.path
        if path is not None and self._own.audit.path not in (None, path):
            yield "audit.path", f"{path!r} is the file of {self._suffix}"


def _rank(words: tuple[Any, ...], word: Any) -> int:
    """How strict a word is, less being stricter. Among the names of errors none is."""
    if words is ON_DENY:
        return {"kill": 0, "log": 2}.get(word, 1)
    return words.index(word)


def _combined(own: Parts, stated: AbstractSet[str], base: Parts) -> Parts:
    def pick(key: str) -> Any:
        one: Any = own if key in stated else base
        for name in key.split("."):
            one = getattr(one, name)
        return one

    denied = frozenset(own.filesystem.inaccessible)

    def kept(key: str) -> tuple[Grant, ...]:
        grants: tuple[Grant, ...] = pick(key)
        if key in stated:
            return grants
        return tuple(grant for grant in grants if denied.isdisjoint(ancestors(grant.host)))

    return attrs.evolve(
        own,
        filesystem=Filesystem(
            read_only=kept("filesystem.read_only"),
            read_write=kept("filesystem.read_write"),
            inaccessible=own.filesystem.inaccessible + base.filesystem.inaccessible,
            exec=kept("filesystem.exec"),
            devices=pick("filesystem.devices"),
            cwd=pick("filesystem.cwd"),
        ),
        environment=Environment(
            pick("environment.inherit"), {**base.environment.set, **own.environment.set}
        ),
        limits=own.limits.intersect(base.limits),
        network=Network(pick("network.connect"), pick("network.listen"), kept("network.unix")),
        syscalls=_calls(own, stated, base),
        lockdown=pick("lockdown"),
        view=pick("view"),
        clock=pick("clock"),
        random=pick("random"),
        audit=Audit(_log(own, stated, base), own.audit.path or base.audit.path),
    )


def _calls(own: Parts, stated: AbstractSet[str], base: Parts) -> Syscalls:
    calls = own.syscalls
    if "syscalls.allow" not in stated:
        calls = attrs.evolve(calls, allow=base.syscalls.allow)
    on_deny = calls.on_deny if "syscalls.on_deny" in stated else base.syscalls.on_deny
    both = attrs.evolve(calls.intersect(base.syscalls), on_deny=on_deny)
    return _viewless(both, own.view if "view" in stated else base.view, base.view)


def _log(own: Parts, stated: AbstractSet[str], base: Parts) -> Log:
    if "audit.log" in stated:
        return own.audit.log
    return stricter(own.audit.log, base.audit.log, LOGS)


def _trees(combined: Parts, own: Trees, stated: AbstractSet[str], base: Parts) -> Trees:
    """Collect the trees of a policy by their keys; those taken over say from where."""
    taken = Trees.of(combined, f"{_OF}{base.source}")
    return Trees(
        read_only=(own if "filesystem.read_only" in stated else taken).read_only,
        read_write=(own if "filesystem.read_write" in stated else taken).read_write,
        exec=(own if "filesystem.exec" in stated else taken).exec,
        devices=(own if "filesystem.devices" in stated else taken).devices,
        unix=(own if "network.unix" in stated else taken).unix,
        inaccessible=own.inaccessible,
        audit=taken.audit,
    )
