"""Waiting for a lock on a thread, out of which a signal gets who gives up.

Only the kernel knows whose turn it is: who asks for a lock again and again comes after all who wait
in it, and a thousand who ask keep a processor busy.  A thread that waits for a lock is left by it
for a signal alone, which somebody must handle, and the signals of a process are the embedding
program's.  SIGURG does nothing, where nobody has asked for it; so it is taken for this, with a
handler that does nothing either, when the first lock is waited for; and not where it is somebody's.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import threading
from ctypes import byref, c_char, c_int, c_void_p
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

_SIGNAL: Final = signal.SIGURG
_SIGNAL_SET: Final = 128  # bytes of libc's sigset_t
_libc = ctypes.CDLL(None, use_errno=True)


class _Action(ctypes.Structure):
    """Libc's ``struct sigaction``: without SA_RESTART, a call that waits is interrupted."""

    _fields_ = (
        ("handler", c_void_p),
        ("mask", c_char * _SIGNAL_SET),
        ("flags", c_int),
        ("restorer", c_void_p),
    )
    handler: int | None


# A function that takes a number and does nothing to anybody: what a handler in Python would do it
# would do in the main thread.
_NOTHING: Final = ctypes.cast(_libc.abs, c_void_p).value


def may_interrupt() -> bool:
    """Is there a signal that interrupts, and does nothing else?"""
    ours, found = _Action(handler=_NOTHING), _Action()
    if _libc.sigaction(_SIGNAL, None, byref(found)):
        return False
    return found.handler == _NOTHING or (
        found.handler is None and not _libc.sigaction(_SIGNAL, byref(ours), None)
    )


class LockWait:
    """One call of libc's that waits for a lock: ``run`` on a thread, ``interrupt`` from others."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self._call: Callable[..., int] = getattr(_libc, name)
        self._arguments = arguments
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._given_up = False

    def run(self) -> int:
        """Make the call: 0, or ``-errno``; ``-EINTR`` if it was given up."""
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {_SIGNAL})
        try:
            with self._lock:
                self._thread = threading.get_ident()
            while not self._given_up:
                if not self._call(*self._arguments):
                    return 0
                if ctypes.get_errno() != errno.EINTR:  # another signal may have come
                    return -ctypes.get_errno()
            return -errno.EINTR
        finally:
            with self._lock:
                self._thread = None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def interrupt(self) -> None:
        """Give it up: once may be too early, just before it waits."""
        with self._lock:
            self._given_up = True
            if self._thread is not None:
                signal.pthread_kill(self._thread, _SIGNAL)
