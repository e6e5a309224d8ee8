"""The privileges of a thread (capabilities(7)): whether it has one, and giving them up."""

from __future__ import annotations

import ctypes
from errno import EINVAL, EPERM
from struct import pack

from ._kernel import call, number, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Final

CHOWN: Final = 0
DAC_OVERRIDE: Final = 1
FOWNER: Final = 3
FSETID: Final = 4
SETGID: Final = 6
SETUID: Final = 7
NET_BIND_SERVICE: Final = 10
SYS_ADMIN: Final = 21

OF_FILES: Final = (CHOWN, DAC_OVERRIDE, FOWNER, FSETID)
"""What says how root meets files."""

_CAPGET, _CAPSET = number(125, 90), number(126, 91)
_HEADER = pack("=II", 0x20080522, 0)  # the version of the sets, and this thread
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

# Two words of 32 bits each, the lower half first: effective, permitted, inheritable.
_EFFECTIVE, _PERMITTED, _HALF = 0, 1, 3
_Sets = ctypes.c_uint32 * 6  # made once: that takes longer than a system call


def holds(capability: int) -> bool:
    """Return whether this thread has a capability, by its number, in effect."""
    sets = _sets()
    return bool(sets[_EFFECTIVE + _HALF * (capability // 32)] >> capability % 32 & 1)


def drop(keep: Collection[int] = ()) -> None:
    """Give up every capability of this thread for good but some, in every set.

    With `no_new_privileges` nothing that is executed later can bring one back.

    Raises:
        OSError: the kernel refused, which it does to nobody who gives up his own.
    """
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _narrow(keep)
    had, left = _sets(), _Sets()
    for capability in keep:
        half, bit = _HALF * (capability // 32), 1 << capability % 32
        left[_EFFECTIVE + half] |= had[_EFFECTIVE + half] & bit
        left[_PERMITTED + half] |= had[_PERMITTED + half] & bit
    call(_CAPSET, _HEADER, left)


_bound: Collection[int] = range(64)  # what may be in the bounding set; more than there will be


def bound(keep: Collection[int]) -> None:
    """Give up what programs that are executed could have, but for some, for good.

    It takes a system call for each, so a process that forks others, which will keep no more than
    these, does it once. It has one thread: each has a set of its own.

    Raises:
        OSError: the kernel refused.
    """
    global _bound  # noqa: PLW0603 - it is of the process, and of what it forks
    if _narrow(keep):
        _bound = frozenset(keep)


def unbound() -> None:
    """Note that the set is full again, as in a new user namespace."""
    global _bound  # noqa: PLW0603
    _bound = range(64)


def _narrow(keep: Collection[int]) -> bool:
    """Narrow the bounding set of this thread, and return whether it may."""
    try:
        for capability in sorted(set(_bound).difference(keep)):
            prctl(_PR_CAPBSET_DROP, capability)
    except OSError as error:
        # EPERM: only who may change his capabilities (CAP_SETPCAP) can narrow what programs could
        # have, and nobody else gains by it. EINVAL: that was the last one.
        if error.errno not in (EINVAL, EPERM):
            raise
        return error.errno == EINVAL
    return True


def no_new_privileges() -> None:
    """Have the kernel ignore set-uid bits and file capabilities from now on, for good.

    Raises:
        OSError: the kernel refused.
    """
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _sets() -> ctypes.Array[ctypes.c_uint32]:
    sets = _Sets()
    call(_CAPGET, _HEADER, sets)
    return sets
