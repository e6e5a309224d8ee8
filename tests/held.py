"""The descriptors that this process has open, for tests that look whether something stays open."""

from __future__ import annotations

import gc
import os


def open_descriptors() -> list[str]:
    """Their numbers, and that of the folder that was just looked at."""
    return sorted(os.listdir("/proc/self/fd"))


def settled_descriptors() -> list[str]:
    """The same, before a test begins: what tests before it have left in cycles is closed.

    Modules, runtimes and exceptions hold descriptors, and without this the collector would close
    them at any moment while the test counts.
    """
    gc.collect()
    return open_descriptors()
