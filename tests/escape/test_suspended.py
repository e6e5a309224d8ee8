"""A call on a fiber that is made again need not be the one that was suspended.

How much of a transfer is done is remembered meanwhile, and a shim that was taken over comes back
with other arguments.  The thunk is called here as such a shim would: its memory is a buffer.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
from contextlib import contextmanager
from ctypes import c_void_p
from typing import TYPE_CHECKING

import pytest

from wali_core import _bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = 2 << 20
BUFFER = 4096
NULL = 0
PLACES = (1 << 20, 1 << 20 | 1 << 18, 1 << 19)
"""Addresses where something of the host's may lie that is as low as a guest's: programs are loaded
there that are no position-independent ones (mmap_min_addr is 64 KiB)."""
FIXED_NOREPLACE = 0x100000
WAITALL = 0x100
_THUNK = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, ctypes.c_size_t)


class _Space(ctypes.Structure):
    """The first fields of the core's ``struct space``: without the others it cannot grow."""

    _fields_ = (("base", c_void_p), ("size", ctypes.c_uint64))


class Shim:
    """A context on a fiber, with a socket as number 3."""

    def __init__(self, host: int) -> None:
        core = _bridge.core
        self._memory = ctypes.create_string_buffer(MEMORY)
        self._context = core.make_context()
        self.address = ctypes.addressof(self._context)
        core.context_init(self.address, 16)
        space = _Space.from_address(self.address + core.own_space)
        space.base, space.size = ctypes.addressof(self._memory), MEMORY
        self._context.cooperative = 1
        assert core.descriptor_set(self.address, 3, host, 0) == 0

    def call(self, module: str, name: str, *arguments: int) -> int:
        """Make a call as a shim may: on its own memory."""
        values = (_bridge.ValRaw * 8)()
        for value, argument in zip(values, arguments, strict=False):
            value.i64 = argument
        thunk = _THUNK(_bridge.core.calls[module, name].capable)
        assert thunk(self.address, None, ctypes.addressof(values), 8) is None
        return int(values[0].i64)

    def receive(self, buffer: int, size: int) -> int:
        """``recvfrom(3, buffer, size, MSG_WAITALL)``; with what it waits for, if it does."""
        result = self.call("wali", "SYS_recvfrom", 3, buffer, size, WAITALL, NULL, NULL)
        if result == _bridge.SUSPENDED:
            assert self.call("guest", "suspend") == _bridge.SUSPENDED  # and on it goes
            assert self.call("guest", "suspend") == 0
        return result

    def close(self) -> None:
        """Give back what it has open."""
        _bridge.core.context_close(self.address)


@contextmanager
def shim_and_peer() -> Iterator[tuple[Shim, socket.socket]]:
    """Return a shim, and who sends to it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    shim = Shim(theirs.detach())
    try:
        with ours:
            yield shim, ours
    finally:
        shim.close()


@contextmanager
def something_at(places: tuple[int, ...]) -> Iterator[int]:
    """Have a page of the host's at one of these addresses, and return which."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype, libc.mmap.argtypes = c_void_p, (c_void_p, *(ctypes.c_long,) * 5)
    libc.munmap.argtypes = c_void_p, ctypes.c_size_t
    how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | FIXED_NOREPLACE
    readable = mmap.PROT_READ | mmap.PROT_WRITE
    for place in places:
        if libc.mmap(place, mmap.PAGESIZE, readable, how, -1, 0) == place:
            break
    else:
        pytest.skip(f"nothing can be mapped that low: {os.strerror(ctypes.get_errno())}")
    try:
        yield place
    finally:
        libc.munmap(place, mmap.PAGESIZE)


def test_nothing_is_behind_no_address() -> None:
    """Some of a message is there; the call is made again with NULL, behind which the host lies."""
    with shim_and_peer() as (shim, peer), something_at(PLACES) as place:
        for sent in range(0, place, 1 << 16):
            peer.sendall(b"x" * min(1 << 16, place - sent))
            assert shim.receive(BUFFER, place + mmap.PAGESIZE) == _bridge.SUSPENDED
        peer.sendall(b"evil")

        result = shim.receive(NULL, place + mmap.PAGESIZE)

        assert ctypes.string_at(place, 4) == bytes(4)
        assert result == place  # what had come before
