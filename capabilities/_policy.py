"""Policy: what whoever embeds or starts a guest works with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from . import _load, _show
from ._model import Parts

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.frozen
class Policy(Parts):
    """What a guest may do. `Policy()` grants nothing: what a guest without a policy gets.

    A policy is plain data: it can be compared, copied and pickled, and it enforces nothing itself.

    Attributes:
        name: what its author calls it; it has no effect.
        filesystem: the trees that are granted.
        environment: the variables that the guest gets.
        limits: what the guest may use up.
    """

    @classmethod
    def none(cls) -> Policy:
        """Return the policy that grants nothing, and limits nothing either."""
        return cls()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Read a policy file.

        Args:
            path: a TOML file. Host paths in it are relative to the folder that it lies in.

        Raises:
            PolicyError: the file cannot be read, is not TOML or is not a policy; it lists every
                problem.
        """
        return cls._of(_load.load(path))

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, object],
        base_dir: str | os.PathLike[str],
        *,
        source: str = "policy",
    ) -> Policy:
        """Make a policy of TOML data.

        Args:
            data: the whole policy, as `tomllib` would give it.
            base_dir: the folder that host paths are relative to.
            source: what to call the policy in messages, where a file's name would stand.

        Raises:
            PolicyError: with every problem of the data.
        """
        return cls._of(_load.from_dict(data, os.path.abspath(base_dir), source))

    def intersect(self, other: Policy) -> Policy:
        """Return the policy that grants what both do, within the tighter limits.

        The name is kept if both have the same, and dropped if not.
        """
        return Policy(
            name=self.name if self.name == other.name else "",
            filesystem=self.filesystem.intersect(other.filesystem),
            environment=self.environment.intersect(other.environment),
            limits=self.limits.intersect(other.limits),
        )

    def show(self) -> str:
        """Return the policy as canonical TOML, in version 1 of the schema.

        Host paths are absolute, entries are sorted, and what has its default is left out. Loading
        the text makes a policy that grants the same.
        """
        return _show.show(self)

    @classmethod
    def _of(cls, parts: Parts) -> Policy:
        return cls(parts.name, parts.filesystem, parts.environment, parts.limits)
