"""How a launcher is told what to do: a pickle in memory, with descriptors that go along."""

from __future__ import annotations

import _socket
import os
import pickle
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Final

    from capabilities import Policy
    from wali_core._engine import Module
    from wali_core._grants import Grants

MOST_MODULES: Final = 64
"""How many compiled modules are kept at hand, at either end."""

_INT_BYTES: Final = 4
_MOST_DESCRIPTORS: Final = 16


class Setting:
    """What holds for all programs of a launcher: the first that it is told.

    ``cache`` is the folder of the cache, if there is one.
    """

    __slots__ = ("allow_all", "cache", "policy")

    def __init__(
        self,
        policy: Policy | None,
        *,
        allow_all: bool,
        cache: str | None = None,
    ) -> None:
        self.policy, self.allow_all = policy, allow_all
        self.cache = cache


class Order:
    """One program.  ``key`` and ``origin`` name its compiled module.

    ``streams`` are those of 0, 1 and 2 that are open; ``umask`` is that of umask(2).
    """

    __slots__ = ("args", "argv0", "grants", "key", "origin", "streams", "umask")

    def __init__(
        self,
        module: Module,
        *,
        argv0: bytes,
        args: Sequence[bytes],
        grants: Grants,
        streams: Iterable[int],
        umask: int,
    ) -> None:
        self.key, self.origin = module.key, module.origin
        self.argv0, self.args, self.grants = argv0, tuple(args), grants
        self.streams, self.umask = tuple(streams), umask


class Descriptors:
    """What goes along with an order, behind the compiled module.

    ``control`` is one end of a connection to whoever ordered; ``answer`` a file for the words of an
    error; ``cwd`` the folder to start in; ``streams`` those that the order names.
    """

    __slots__ = ("answer", "control", "cwd", "streams")

    def __init__(self, control: int, answer: int, cwd: int, *streams: int) -> None:
        self.control, self.answer, self.cwd = control, answer, cwd
        self.streams = streams

    def all(self) -> list[int]:
        """All of them, in the order in which they travel."""
        return [self.control, self.answer, self.cwd, *self.streams]

    def close(self, *, but: Sequence[int] = ()) -> None:
        """Close what was received."""
        for fd in self.all():
            if fd not in but:
                os.close(fd)


def send(launcher: _socket.socket, words: Setting | Order, descriptors: Iterable[int] = ()) -> None:
    """Tell a launcher.  The descriptors stay the sender's as well.  Raises ``OSError``."""
    fd = os.memfd_create("order", os.MFD_CLOEXEC)
    try:
        data = memoryview(pickle.dumps(words))
        while data:
            data = data[os.write(fd, data) :]
        numbers = b"".join(n.to_bytes(_INT_BYTES, sys.byteorder) for n in (fd, *descriptors))
        rights = _socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers
        launcher.sendmsg([b"."], [rights], _socket.MSG_NOSIGNAL)
    finally:
        os.close(fd)


def receive(orders: _socket.socket) -> tuple[Any, list[int]] | None:
    """What was sent next, and the descriptors, which are close-on-exec; None at the end."""
    room = _socket.CMSG_SPACE(_MOST_DESCRIPTORS * _INT_BYTES)
    data, ancillary, _, _ = orders.recvmsg(1, room, _socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    fd, *descriptors = (n for _, _, numbers in ancillary for n in memoryview(numbers).cast("i"))
    with open(fd, "rb") as file:
        file.seek(0)
        return pickle.load(file), descriptors  # noqa: S301 - the parent's own words
