"""The one exception of this package."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._model import Problem


class PolicyError(ValueError):
    """A policy cannot be accepted: its author has to change it, or the way it is used.

    Attributes:
        problems: everything that is wrong, in the order of the file's tables; never empty. As text,
            one line each: `FILE: table.key: what is wrong, what is allowed`.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        # As they are, not as text: copying and pickling make the exception again from these.
        super().__init__(tuple(problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems, as a tuple."""
        problems: tuple[Problem, ...] = self.args[0]
        return problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))
