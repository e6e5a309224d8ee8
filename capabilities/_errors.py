"""The exceptions of this package."""

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


class LockdownError(Exception):
    """The kernel cannot confine a thread as asked, so no guest may run on it.

    Attributes:
        reasons: everything that stands in the way; never empty. As text, one line each.
    """

    def __init__(self, reasons: Iterable[str]) -> None:
        super().__init__(tuple(reasons))

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons, as a tuple."""
        reasons: tuple[str, ...] = self.args[0]
        return reasons

    def __str__(self) -> str:
        return "\n".join(self.reasons)
