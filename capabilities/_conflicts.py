"""What is wrong with values that are right one by one: trees that contradict each other.

Everywhere here a tree goes by its key in the file, such as `filesystem.read_only[1]`. A problem is
the key that it is reported for, and a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ._files import Grant, ancestors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from ._model import Parts

    Item = TypeVar("Item", Grant, str)

_KERNEL = "since the kernel adds up what is granted along a path"
_NARROWING = (
    "{!r} lies in {!r}, which {} makes writable: a policy can widen inside a tree but not narrow, "
    + _KERNEL
)
_DENIED_INSIDE = (
    "{!r} lies in {!r}, which {} grants: a policy can widen inside a tree but not narrow, "
    + _KERNEL
)
_DENIED = "{!r} lies in {!r}, which {} denies: deny wins, so remove one of the two"
_TAMPERED = "{!r} lies in {!r}, which {} lets the guest change: write it elsewhere"


@attrs.frozen(eq=False, repr=False)
class Trees:
    """All trees of a policy, by their keys.

    Attributes:
        read_only: grants to read.
        read_write: grants to read and change.
        exec: grants to read and execute.
        devices: those that are granted by their names.
        unix: sockets to connect to.
        inaccessible: host trees that nobody grants.
        audit: the file that is written for the policy's author; none or one.
    """

    read_only: dict[str, Grant] = attrs.field(factory=dict)
    read_write: dict[str, Grant] = attrs.field(factory=dict)
    exec: dict[str, Grant] = attrs.field(factory=dict)
    devices: dict[str, Grant] = attrs.field(factory=dict)
    unix: dict[str, Grant] = attrs.field(factory=dict)
    inaccessible: dict[str, str] = attrs.field(factory=dict)
    audit: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, parts: Parts, whose: str = "") -> Trees:
        """Number the trees of a policy that was not read from a file, or not from this one."""

        def keyed(key: str, items: Iterable[Item]) -> dict[str, Item]:
            return {f"{key}[{index}]{whose}": item for index, item in enumerate(items)}

        files, audit = parts.filesystem, parts.audit
        return cls(
            read_only=keyed("filesystem.read_only", files.read_only),
            read_write=keyed("filesystem.read_write", files.read_write),
            exec=keyed("filesystem.exec", files.exec),
            devices=keyed("filesystem.devices", files.named_devices),
            unix=keyed("network.unix", parts.network.unix),
            inaccessible=keyed("filesystem.inaccessible", files.inaccessible),
            audit={} if audit.path is None else {"audit.path": audit.path},
        )

    def resolved(self, resolve: Callable[[str], str]) -> Trees:
        """Return the same trees where links in their paths are followed."""

        def followed(item: Any) -> Any:
            if isinstance(item, str):
                return resolve(item)
            return attrs.evolve(item, host=resolve(item.host))

        return Trees(
            **{
                field.name: {k: followed(item) for k, item in getattr(self, field.name).items()}
                for field in attrs.fields(Trees)
            }
        )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Find every contradiction: the key, and what is wrong."""
        yield from self._repeated()
        writable = {grant.host: key for key, grant in self.read_write.items()}
        for key, inner in self.read_only.items():
            if outer := _around(inner.host, writable):
                yield key, _NARROWING.format(inner.host, outer, writable[outer])
        yield from self._denied()
        for key, path in self.audit.items():
            if outer := _around(path, writable):
                yield key, _TAMPERED.format(path, outer, writable[outer])

    def _repeated(self) -> Iterator[tuple[str, str]]:
        first: dict[str, tuple[str, Grant]] = {}
        for key, grant in (self.read_only | self.read_write).items():
            before, _ = first.setdefault(grant.guest, (key, grant))
            if before != key:
                yield key, _again(grant, before, "grant it once")
        for key, grant in (self.exec | self.devices | self.unix).items():
            before, other = first.setdefault(grant.guest, (key, grant))
            if other.host != grant.host:
                yield key, _again(grant, before, f"there it is {other.host!r}")

    def _denied(self) -> Iterator[tuple[str, str]]:
        granted = self.read_only | self.read_write | self.exec | self.devices | self.unix
        hosts = {grant.host: key for key, grant in granted.items()}
        denied = {path: key for key, path in self.inaccessible.items()}
        for key, grant in granted.items():
            if outer := _around(grant.host, denied):
                yield key, _DENIED.format(grant.host, outer, denied[outer])
        for path, key in denied.items():
            outer = _around(path, hosts)
            if outer and outer != path:
                yield key, _DENIED_INSIDE.format(path, outer, hosts[outer])


def _around(path: str, trees: dict[str, str]) -> str | None:
    """Return the innermost of some trees that a path lies in."""
    return next((outer for outer in ancestors(path) if outer in trees), None)


def _again(grant: Grant, before: str, remedy: str) -> str:
    return f"{grant.guest!r} is granted to the guest by {before} already: {remedy}"
