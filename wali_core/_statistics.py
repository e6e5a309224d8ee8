"""What guests have done, in numbers."""

from __future__ import annotations

import attrs


@attrs.frozen
class Statistics:
    """Of one guest: ``Guest.statistics``, ``CooperativeGuest.statistics``.

    ``waiting`` and ``running`` are seconds inside its calls.  A guest with a thread runs while that
    computes, one that is a task while it has the thread of all.
    """

    calls: int
    """System calls, of its shim's as well."""
    waits: int
    """How often one has waited; with a thread also how often one has looked whether it had to."""
    read: int
    """Bytes, by read(2), recv(2) and their kin."""
    written: int
    waiting: float
    running: float


@attrs.frozen
class RuntimeStatistics(Statistics):
    """Of all guests of a runtime that share this process, also of those that are gone."""

    guests: int
    """How many there are."""
    started: int
    """How many there were."""
