"""Policy: what whoever embeds or starts a guest works with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from . import _calls
from ._combine import meet, unheld
from ._conflicts import Trees
from ._model import Parts, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._decide import Decision
    from ._files import Grant
    from ._requests import Request


@attrs.frozen
class Policy(Parts):
    """What a guest may do. `Policy()` grants nothing: what a guest without a policy gets.

    A policy is plain data: it can be compared, copied and pickled, and it enforces nothing itself.
    One policy serves both kinds of guest: `network`, `syscalls`, `lockdown` and `view` bind WALI
    guests and grant WASI guests nothing, which have neither sockets of their own nor system calls.

    Attributes:
        name: what its author calls it; it has no effect.
        filesystem: the trees that are granted.
        environment: the variables that the guest gets.
        limits: what the guest may use up.
        network: the sockets that a WALI guest may use.
        syscalls: the system calls that a WALI guest may make.
        lockdown: what to do where the kernel cannot confine the guest's thread: refuse to run it
            (`"required"`), or run it (`"best-effort"`); `"off"` does not ask the kernel to.
        view: whether a WALI guest gets a file system of its own, in which only the grants exist:
            always, or it does not run (`"required"`), where the kernel lets it (`"auto"`), never.
        clock: what time it is for a WASI guest.
        random: where a WASI guest's random bytes come from.
        audit: what is written down of what the guest asked for.
        source: what to call the policy in messages; two policies that differ in it only are equal.
    """

    @classmethod
    def none(cls) -> Policy:
        """Return the policy that grants nothing, and limits nothing either."""
        return cls()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, catalogue: Mapping[str, str] | None = None
    ) -> Policy:
        """Read a policy file.

        Args:
            path: a TOML file. Host paths in it are relative to the folder that it lies in. Or the
                name of a policy that comes with the package, as in `"profile:cli-tool"`, for which
                they are relative to the working directory.
            catalogue: every system call that there is, with its group, if the names of calls are
                to be looked at, too. Else who asks which of them are granted is told.

        Raises:
            PolicyError: the file cannot be read, is not TOML or is not a policy; it lists every
                problem.
        """
        # cattrs and tomllib: half of what it takes to start a guest that has no policy's file.
        from . import _load

        return cls._of(_load.load(path, catalogue=catalogue))

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, object],
        base_dir: str | os.PathLike[str],
        *,
        source: str = "policy",
        catalogue: Mapping[str, str] | None = None,
    ) -> Policy:
        """Make a policy of TOML data.

        Args:
            data: the whole policy, as `tomllib` would give it.
            base_dir: the folder that host paths are relative to.
            source: what to call the policy in messages, where a file's name would stand.
            catalogue: as for `load`.

        Raises:
            PolicyError: with every problem of the data.
        """
        from . import _load

        return cls._of(_load.from_dict(data, os.path.abspath(base_dir), source, catalogue))

    def intersect(self, other: Policy) -> Policy:
        """Return the policy that grants what both do, within the tighter limits.

        Links in host paths are followed now, so that what both grant is what they lead to, and no
        more when a guest starts. The name is kept if both have the same, and dropped if not.
        """
        return self._of(meet(self, other, os.path.realpath))

    def unheld(self) -> tuple[Problem, ...]:
        """Find what nobody would hold a guest to. In a policy that was loaded there is nothing."""
        return tuple(Problem(self.source, *each) for each in unheld(self))

    def keyed_grants(self) -> dict[str, Grant]:
        """Return what is granted by its path, each with its key: `filesystem.read_only[0]`."""
        trees = Trees.of(self)
        return trees.read_only | trees.read_write | trees.exec | trees.unix

    def conflicts(self, resolve: Callable[[str], str]) -> tuple[Problem, ...]:
        """Find what the policy contradicts itself in, where links are followed.

        Args:
            resolve: what a host path means, such as `os.path.realpath`.
        """
        found = Trees.of(self).resolved(resolve).conflicts()
        return tuple(
            Problem(self.source, key, f"where links are followed, {message}")
            for key, message in found
        )

    def granted_calls(self, catalogue: Mapping[str, str]) -> frozenset[str]:
        """Decide which system calls a WALI guest may make.

        Without `allow` in `[syscalls]` that follows from the other tables: what works on memory,
        time, the guest's own process and the descriptors that it has is always granted,
        `@file-system`, `@chown` and `@sync` if the policy grants any file, `@network-io` if it
        grants any port, and other groups (processes, pipes, privileges) never. `allow` is exact,
        but for the few calls without which no program starts or ends. `deny` wins.

        Args:
            catalogue: every call that there is, with its group: `{"openat": "@file-system"}`.

        Raises:
            PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
        """
        return _calls.granted(self, catalogue)

    def reachable_calls(self, catalogue: Mapping[str, str]) -> frozenset[str]:
        """Return the system calls that a WALI guest gets through with.

        Those that are granted; all, where the policy says `on_deny = "log"`.

        Raises:
            PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
        """
        granted = self.granted_calls(catalogue)
        return frozenset(catalogue) if self.syscalls.on_deny == "log" else granted

    def withheld_calls(self, catalogue: Mapping[str, str]) -> dict[str, str]:
        """Find what nearly every program calls and this policy withholds, each by which key.

        Memory, output, the end: a program that is refused these can seldom say so.

        Raises:
            PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
        """
        return _calls.withheld(self, catalogue)

    def decide_calls(self, catalogue: Mapping[str, str]) -> dict[str, Decision]:
        """Decide on every call of a catalogue: as `granted_calls`, and by which rule each.

        Raises:
            PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
        """
        from ._decide import Decision

        return {name: Decision(*ruling) for name, ruling in _calls.rulings(self, catalogue).items()}

    def decide(
        self, request: Request | str, catalogue: Mapping[str, str] | None = None
    ) -> Decision:
        """Decide on one request, by what the policy says alone: nothing is looked at or enforced.

        Args:
            request: what a guest asks for, or as text: `"openat /etc/passwd"`.
            catalogue: every call that there is, with its group; without it, what a call names is
                decided on, and not the call.

        Raises:
            ValueError: the text is no request.
            PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
        """
        from ._decide import decide
        from ._requests import Request

        asked = Request.parse(request) if isinstance(request, str) else request
        return decide(self, asked, catalogue)

    def explain(self, catalogue: Mapping[str, str]) -> list[str]:
        """Say what is granted, in lines for people, each with the key that says so.

        Raises:
            PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
        """
        from . import _explain

        return _explain.explain(self, catalogue)

    def show(self) -> str:
        """Return the policy as canonical TOML, in version 1 of the schema.

        Host paths are absolute, entries are sorted, and what has its default is left out. Loading
        the text makes a policy that grants the same.
        """
        from . import _show

        return _show.show(self)

    @classmethod
    def _of(cls, parts: Parts) -> Policy:
        return cls(**{field.name: getattr(parts, field.name) for field in attrs.fields(Parts)})
