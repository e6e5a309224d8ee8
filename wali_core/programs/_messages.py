"""Messages with control data: sendmsg(2) and recvmsg(2) of a WALI program in its own process.

Without control data the core does it.  A control message of the guest's has the kernel's fields,
but lies at a multiple of 4, and descriptors in it (SCM_RIGHTS, unix(7)) are its own numbers.
"""

from __future__ import annotations

import ctypes
import errno
import os
from struct import Struct

from wali_core import _bridge as bridge
from wali_core.programs._calls import answering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

    from wali_core._bridge import Core
    from wali_core.programs._calls import GuestCalls, Served
    from wali_core.programs._memory import LinearMemory

_ARM: Final = os.uname().machine == "aarch64"
_SENDMSG, _RECVMSG = (211, 212) if _ARM else (46, 47)

_GUEST: Final = Struct("<IIII4xII4xI")  # struct msghdr: name, iovecs, control data, flags
_HOST: Final = Struct("<QI4xQQQQI4x")
_CONTROL: Final = Struct("<QII")  # struct cmsghdr; the guest's length is the lower half
_IOVEC: Final = Struct("<II")
_GUEST_ALIGN, _HOST_ALIGN = 4, 8
_MOST_PARTS, _MOST_NAME, _MOST_CONTROL = 1024, 128, 8192
_ADDRESSES = 1 << 32
_MSG_CTRUNC, _MSG_CMSG_CLOEXEC = 8, 0x40000000
_LOWER_HALF: Final = 0xFFFFFFFF

_SOL_SOCKET, _SCM_RIGHTS, _SCM_CREDENTIALS = 1, 1, 2
_MAY_BE_SENT: Final = frozenset(
    (
        (_SOL_SOCKET, _SCM_RIGHTS),
        (_SOL_SOCKET, _SCM_CREDENTIALS),
        (0, 1),  # IP_TOS
        (0, 2),  # IP_TTL
        (0, 8),  # IP_PKTINFO
        (41, 50),  # IPV6_PKTINFO
        (41, 52),  # IPV6_HOPLIMIT
        (41, 67),  # IPV6_TCLASS
    )
)
_SIGNAL: Final = bridge.Context.signal.offset  # type: ignore[attr-defined]

OF_THREADS: Final = ("SYS_sendmsg", "SYS_recvmsg")
"""Served with the address of the calling thread's context before the call's own arguments."""


def served_messages(calls: GuestCalls, core: Core, memory: Callable[[], LinearMemory]) -> Served:
    """The two calls, by name.  A guest that shares its process has no control data: ENOSYS."""

    def sendmsg(context: int, number: int, at: int, flags: int) -> int:
        message = Message(calls, memory(), at)
        message.take_name()
        message.take_control()
        return message.transfer(core, _SENDMSG, context, number, flags)

    def recvmsg(context: int, number: int, at: int, flags: int) -> int:
        message = Message(calls, memory(), at)
        message.make_room()
        result = message.transfer(core, _RECVMSG, context, number, flags | _MSG_CMSG_CLOEXEC)
        if result >= 0:
            message.give(flags & _MSG_CMSG_CLOEXEC)
        return result

    return {"SYS_sendmsg": answering(sendmsg), "SYS_recvmsg": answering(recvmsg)}


class Message:
    """A ``struct msghdr`` of the guest's, copied once, and the host's that is made of it.

    Raises ``OSError``, as the kernel has it, for what is not in the guest's memory, or too much.
    """

    def __init__(self, calls: GuestCalls, memory: LinearMemory, at: int) -> None:
        self._calls, self._memory, self._at = calls, memory, at
        fields = _GUEST.unpack(calls.read(at, _GUEST.size))
        self._name_at, self._name_length, parts_at, count = fields[:4]
        self._control_at, self._control_length, _ = fields[4:]
        if count > _MOST_PARTS:
            raise OSError(errno.EMSGSIZE, "")
        self._parts = (ctypes.c_uint64 * (2 * count))()
        data = calls.read(parts_at, _IOVEC.size * count) if count else b""
        for i, (base, length) in enumerate(_IOVEC.iter_unpack(data)):
            self._parts[2 * i : 2 * i + 2] = [self._host_address(base, length), length]
        self._name = ctypes.create_string_buffer(_MOST_NAME)
        self._control = ctypes.create_string_buffer(0)
        self._header = ctypes.create_string_buffer(_HOST.size)

    def _host_address(self, base: int, length: int) -> int:
        if base + length > _ADDRESSES:  # what is no memory of them, the kernel finds
            raise OSError(errno.EFAULT, "")
        return self._memory.base + base if base else 0

    def take_name(self) -> None:
        """Copy the address that the guest sends to."""
        self._name_length = min(self._name_length, _MOST_NAME) if self._name_at else 0
        if self._name_length:
            name = self._calls.read(self._name_at, self._name_length)
            ctypes.memmove(self._name, name, len(name))

    def take_control(self) -> None:
        """Translate the control messages that the guest sends."""
        if self._control_length > _MOST_CONTROL:
            raise OSError(errno.ENOBUFS, "")
        out = b""
        given = self._calls.read(self._control_at, self._control_length)
        for level, kind, data in _messages(given, _GUEST_ALIGN):
            if (level, kind) not in _MAY_BE_SENT:
                raise OSError(errno.EINVAL, "")
            if (level, kind) == (_SOL_SOCKET, _SCM_RIGHTS):
                hosts = [self._calls.host_of(number) for number in _numbers(data)]
                data = bytes((ctypes.c_int32 * len(hosts))(*hosts))  # noqa: PLW2901
            out += _control(level, kind, data, _HOST_ALIGN)
        self._control = ctypes.create_string_buffer(out, len(out))

    def make_room(self) -> None:
        """For what comes: as much as the kernel may send, whatever room the guest has."""
        self._control = ctypes.create_string_buffer(_MOST_CONTROL)

    def transfer(self, core: Core, system_call: int, context: int, number: int, flags: int) -> int:
        """Make the system call, which a signal for the guest's thread ends."""
        thread = bridge.Context.from_address(context)
        if not thread.direct:
            return -errno.ENOSYS
        room = min(self._name_length, _MOST_NAME) if self._name_at else 0
        header = (
            *(ctypes.addressof(self._name) if room else 0, room),
            *(ctypes.addressof(self._parts), len(self._parts) // 2),
            *(ctypes.addressof(self._control), len(self._control), 0),
        )
        _HOST.pack_into(self._header, 0, *header)
        host = self._calls.host_of(number)
        result: int = core.interruptible(
            *(host, ctypes.addressof(self._header), flags, 0, 0, 0, system_call, context + _SIGNAL)
        )
        return result

    def give(self, close_on_exec: int) -> None:
        """Write what has come back to the guest: address, control messages, lengths and flags."""
        fields = _HOST.unpack(self._header.raw)
        length, control_length, flags = fields[1], fields[5], fields[6]
        control, cut = b"", False
        for level, kind, data in _messages(self._control.raw[:control_length], _HOST_ALIGN):
            room = self._control_length - len(control) - _CONTROL.size
            kept = data[: max(room, 0)]
            if (level, kind) == (_SOL_SOCKET, _SCM_RIGHTS):
                kept = self._install(_numbers(data), room // 4, close_on_exec)
            cut = cut or room < 0 or len(kept) < len(data)
            if room >= 0 and (kept or not data):
                control += _control(level, kind, kept, _GUEST_ALIGN)
        control = control[: self._control_length]
        flags = flags & ~_MSG_CMSG_CLOEXEC | close_on_exec | (_MSG_CTRUNC if cut else 0)
        if self._name_at:
            name = self._name.raw[: min(length, self._name_length)]
            if name:
                self._calls.write(self._name_at, name)
            self._calls.write(self._at + 4, length.to_bytes(4, "little"))
        if control:
            self._calls.write(self._control_at, control)
        self._calls.write(self._at + 24, len(control).to_bytes(4, "little"))
        self._calls.write(self._at + 32, flags.to_bytes(4, "little"))

    def _install(self, hosts: list[int], room: int, close_on_exec: int) -> bytes:
        """Give numbers to descriptors that came, as far as there is room, and close the others."""
        numbers: list[int] = []
        for i, host in enumerate(hosts):
            if len(numbers) < i or i >= room:
                os.close(host)
                continue
            number = self._calls.install(host, close_on_exec=bool(close_on_exec))
            if number >= 0:  # else it is closed
                numbers.append(number)
        return bytes((ctypes.c_int32 * len(numbers))(*numbers))


def _messages(data: bytes, align: int) -> Iterator[tuple[int, int, bytes]]:
    """The control messages in a buffer: level, type and data.  Raises EINVAL where one is wrong."""
    at = 0
    while at + _CONTROL.size <= len(data):
        length, level, kind = _CONTROL.unpack_from(data, at)
        length &= _LOWER_HALF
        if length < _CONTROL.size or at + length > len(data):
            raise OSError(errno.EINVAL, "")
        yield level, kind, data[at + _CONTROL.size : at + length]
        at += -(-length // align) * align


def _control(level: int, kind: int, data: bytes, align: int) -> bytes:
    message = _CONTROL.pack(_CONTROL.size + len(data), level, kind) + data
    return message + bytes(-len(message) % align)


def _numbers(data: bytes) -> list[int]:
    whole = data[: len(data) // 4 * 4]
    return list((ctypes.c_int32 * (len(whole) // 4)).from_buffer_copy(whole))
