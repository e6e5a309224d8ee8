"""Which passes a module goes through before it is compiled, by what it is to be.

What does the work is imported when there is some: a compiled module comes from the cache.
"""

from __future__ import annotations

PROCESS = "process"
SHARED = "shared"
"""Where a WALI program runs: in a process of its own, or in the embedder's."""


class NoProgram(Exception):
    """A module that was taken for a program imports nothing from ``wali``."""


def may_be_program(data: bytes) -> bool:
    """Is it worth a look?  What has not got this imports nothing from ``wali``."""
    return b"\x04wali" in data


def prepare_guest(data: bytes, origin: str) -> bytes:
    """As a guest of a shim's."""
    from wali_core.rewriting._growth import watch_growth
    from wali_core.rewriting._prepare import defer_start

    return watch_growth(defer_start(data, origin), origin)


def prepare_if_program(data: bytes, origin: str, isolation: str) -> bytes:
    """As a program that runs there.  Raises ``NoProgram``."""
    from wali_core.rewriting._prepare import is_program

    if not is_program(data, origin):
        raise NoProgram
    return prepare_program(data, origin, isolation)


def prepare_program(data: bytes, origin: str, isolation: str = PROCESS) -> bytes:
    """The same, whatever it imports."""
    from wali_core.rewriting._prepare import prepare
    from wali_core.rewriting._reuse import reuse_values

    prepared = prepare(data, origin, unshare=isolation == SHARED)
    data = reuse_values(prepared.data, origin)
    if isolation == SHARED:
        return data
    from wali_core.rewriting._polls import add_polls

    return add_polls(data, origin)
