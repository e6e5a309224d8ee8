"""Sockets that a guest is given: the caller's, the command line's, and those passed to us.

A WASI program cannot make any.  It finds the ones it has as descriptors, after its directories.
"""

from __future__ import annotations

import os
import stat

from wali_core._errors import PolicyError, UseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Final, TypeAlias

    from wali_core._stdio import HasFileno

    Socket: TypeAlias = int | HasFileno

_FIRST: Final = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
_LAST_PORT: Final = 65535
_SOL_SOCKET, _SO_TYPE, _SO_ACCEPTCONN, _SOCK_DGRAM = 1, 3, 30, 2
_WAITING: Final = 128  # connections that may wait to be accepted


def duplicate(given: Socket) -> int:
    """A descriptor of the same socket.

    The guest's own, so that the number cannot become another file's while the guest has it.  One
    that listens is non-blocking from now on, for the caller, too: a guest that waits must do so
    where its deadline can reach it, and when somebody else has taken the connection, no flag keeps
    accept(2) itself from waiting for the next.  Raises ``UseError`` for what is no socket.
    """
    fd = given if isinstance(given, int) else given.fileno()
    try:
        copy = os.dup(fd)
    except OSError as error:
        raise UseError(f"socket {given!r}: descriptor {fd}: {error.strerror}") from None
    if not stat.S_ISSOCK(os.fstat(copy).st_mode):
        os.close(copy)
        raise UseError(f"socket {given!r}: descriptor {fd} is something else")
    if _option(copy, _SO_ACCEPTCONN):
        os.set_blocking(copy, False)
    return copy


def is_datagram(fd: int) -> bool:
    """Whether a socket is for datagrams."""
    return _option(fd, _SO_TYPE) == _SOCK_DGRAM


def _option(fd: int, name: int) -> int | None:
    """An option of a socket's; None where it has none.

    Python's own module would take 5 ms of the start.
    """
    import ctypes

    found, size = ctypes.c_int(), ctypes.c_uint32(4)
    libc = ctypes.CDLL(None)
    failed = libc.getsockopt(fd, _SOL_SOCKET, name, ctypes.byref(found), ctypes.byref(size))
    return None if failed else found.value


def address_of(text: str) -> tuple[str, int]:
    """``HOST:PORT``, or ``[HOST]:PORT`` for an address of IPv6.  Raises ``ValueError``."""
    host, colon, digits = text.rpartition(":")
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text}: an address of IPv6 needs brackets: [{host}]:{digits}")
    if not colon or not host or not digits.isdecimal() or int(digits) > _LAST_PORT:
        raise ValueError(f"{text}: it must be HOST:PORT")
    return host, int(digits)


def listen(host: str, port: int) -> _socket.socket:
    """A listening TCP socket.  Of a name that has several addresses, the first that can be had.

    Raises ``PolicyError`` where none can.
    """
    import _socket  # what the module socket wraps takes longer to import than a guest to start

    try:
        found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)
    except OSError as error:
        raise PolicyError(f"cannot listen on {host}: {error.strerror}") from None
    reason: str | None = "it has no address"
    for family, kind, protocol, _, address in found:
        made = _socket.socket(family, kind, protocol)
        try:
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if family == _socket.AF_INET6:
                made.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(_WAITING)
        except OSError as error:
            made.close()
            reason = error.strerror
        else:
            return made
    raise PolicyError(f"cannot listen on {host}, port {port}: {reason}")


def inherited() -> list[int]:
    """The sockets that this process was started with, by systemd's protocol (sd_listen_fds(3)).

    Says so in no environment of a later process.  Raises ``PolicyError`` if there are none.
    """
    process, count = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal() or not int(count):
        raise PolicyError(
            "no sockets were passed to this process: LISTEN_PID and LISTEN_FDS do not say so"
        )
    found = list(range(_FIRST, _FIRST + int(count)))
    for fd in found:
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise PolicyError(
                f"LISTEN_FDS is {count}, but descriptor {fd} was not passed: {error.strerror}"
            ) from None
    return found
