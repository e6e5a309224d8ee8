"""How a program ended, as the parts of this library tell each other."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage


class Ending:
    """An exit status, and what else is known.

    ``write_refused``: it tried to write through a read-only grant.  ``usage``: what its process has
    used, where it had one of its own.
    """

    def __init__(
        self, status: int, *, write_refused: bool = False, usage: struct_rusage | None = None
    ) -> None:
        self.status = status
        self.write_refused = write_refused
        self.usage = usage
