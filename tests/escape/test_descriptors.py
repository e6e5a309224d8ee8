"""Numbers that are no descriptors, commands that are on no list, and what a process would leak."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.escape.evil import BOX, DATA, IOVEC, SHELF, Out, allow_list
from tests.held import open_descriptors, settled_descriptors
from wali_core._errors import GuestExit, PolicyError
from wali_core._table import CALLS

if TYPE_CHECKING:
    from tests.escape.evil import Evil, EvilHost, World

LISTED = {call.name: call for call in CALLS if call.shim}
GUEST_ONLY = {call.name for call in LISTED.values() if call.shim == "guest"}

NUMBERS = {
    "minus_one": -1,
    "working_directory": -100,
    "lowest": -(1 << 31),
    "highest": (1 << 31) - 1,
    "not_open": 7,
    "last_of_the_table": 1023,
    "past_the_table": 1024,
    "past_any_table": 4096,
    "closed_standard_input": 0,
}

TAKES_DESCRIPTOR = [
    pytest.param(name, position, id=f"{name}-{position}")
    for name, call in LISTED.items()
    for position, kind in enumerate(call.arguments.split())
    if kind.rstrip("!") in ("fd", "dirfd") and (name, position) != ("dup3", 1)
]


def good_arguments(evil: Evil, name: str) -> list[int]:
    """Arguments that make every other check pass: names, buffers, small numbers."""
    how = evil.arena + 4096
    evil.memory.write(evil.arena, b"file\0" + bytes(4091))
    evil.memory.write(how, struct.pack("<3Q", 0, 0, 0x0A))
    evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 4))
    out = []
    kinds = LISTED[name].arguments.split()
    for position, kind in enumerate(kinds):
        if kind.rstrip("!") in ("fd", "dirfd"):
            out.append(BOX)
        elif kind in ("path", "target"):
            out.append(evil.arena)
        elif kind.startswith("mem"):
            out.append(evil.arena + 8192)
        elif kind == "ptr":
            out.append(
                {"openat2": how, "ioctl": how}.get(name, 0 if name not in GUEST_ONLY else IOVEC)
            )
        else:
            out.append(1 if name in GUEST_ONLY and position == 2 else 0)
    special = {
        "openat2": {3: 24},
        "fcntl": {1: fcntl.F_GETFL},
        "ioctl": {1: 0x5401},
        "pwritev2": {4: 0x10},
        "dup3": {1: 40},
    }
    for position, value in special.get(name, {}).items():
        out[position] = value
    return out


@pytest.mark.parametrize(("name", "position"), TAKES_DESCRIPTOR)
def test_number_that_is_no_descriptor(evil: Evil, name: str, position: int) -> None:
    """Every call that takes a descriptor answers EBADF to what is not in the guest's table."""
    module = "wali_guest" if name in GUEST_ONLY else "wali"
    answers = {}
    for label, number in NUMBERS.items():
        arguments = good_arguments(evil, name)
        arguments[position] = number
        answers[label] = evil.guest.call(f"{module}.SYS_{name}", *arguments, timeout=20)

    assert answers == dict.fromkeys(NUMBERS, -errno.EBADF)
    assert not evil.has_anything


def test_every_host_descriptor_is_unknown(evil: Evil) -> None:
    """No number that is open in this process means anything to a guest, but for its own."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number not in (1, BOX, SHELF):
            assert evil.call("fstat", number, Out(144)) == -errno.EBADF
            assert evil.call("dup3", number, 60, 0) == -errno.EBADF
            assert evil.call("close", number) == -errno.EBADF


@pytest.mark.parametrize("number", [-1, -100, 1024, 4096, 1 << 30, -(1 << 31), (1 << 31) - 1])
def test_duplicate_to_what_is_no_number(evil: Evil, number: int) -> None:
    """The table has an end, and a host's limit does not matter."""
    assert evil.call("dup3", BOX, number, 0) == -errno.EBADF


def test_duplicate_to_itself_and_with_flags(evil: Evil) -> None:
    """dup3 knows O_CLOEXEC only."""
    assert evil.call("dup3", BOX, BOX, 0) == -errno.EINVAL
    assert evil.call("dup3", BOX, 9, os.O_NONBLOCK) == -errno.EINVAL
    assert evil.call("dup3", BOX, 1023, os.O_CLOEXEC) == 1023


def test_unknown_numbers_are_polled_as_such(evil: Evil) -> None:
    """To poll them is POLLNVAL, and the host's own are not looked at."""
    host = evil.world.host_stream
    entries = b"".join(struct.pack("<ihh", fd, 4, 0) for fd in (host, -100, -1, 1))
    evil.memory.write(evil.arena, entries)

    assert evil.guest.call("wali.SYS_ppoll", evil.arena, 4, 0, 0, 0, timeout=20) == 2
    found = struct.iter_unpack("<ihh", evil.memory.read(evil.arena, len(entries)))
    assert [revents for _, _, revents in found] == [0x20, 0, 0, 4]


def test_descriptors_run_out_for_the_guest_alone(evil: Evil) -> None:
    """A guest that opens for ever gets EMFILE from its own table, and the host goes on."""
    opened = 0
    while (fd := evil.call("openat", BOX, b"file", os.O_RDONLY, 0)) >= 0:
        opened += 1
    assert fd == -errno.EMFILE
    assert opened <= 1024
    os.close(os.open("/", os.O_RDONLY))


def test_nothing_stays_open_after_the_guest(evil_host: EvilHost, world: World) -> None:
    """What a guest opened and duplicated is closed with it; what it borrowed is not."""
    before = settled_descriptors()
    with evil_host.enter(world) as evil:
        for _ in range(40):
            evil.call("openat", BOX, b"file", os.O_RDONLY, 0)
        evil.call("dup3", 1, 900, 0)
        evil.call("dup3", 900, BOX, 0)
        evil.call("close", 1)
    assert open_descriptors() == before
    os.fstat(world.host_stream)


def test_failed_duplicate_leaves_no_descriptor_behind(evil: Evil) -> None:
    """Refused calls do not use up the host's descriptors."""
    evil.call("accept4", BOX, 0, 0, 0)  # the first wait makes what all the others use
    before = len(settled_descriptors())
    for _ in range(50):
        evil.call("dup3", 1, -1, 0)
        evil.openat2(BOX, b"../outside/secret")
        evil.call("openat", SHELF, b"book", os.O_RDWR, 0)
        evil.call("accept4", BOX, 0, 0, 0)
    assert len(open_descriptors()) == before


# --- closed lists ---------------------------------------------------------------------------------

FCNTL = {
    "F_DUPFD": 0,
    "F_GETFD": 1,
    "F_SETFD": 2,
    "F_GETLK": 5,
    "F_SETLK": 6,
    "F_SETLKW": 7,
    "F_SETOWN": 8,
    "F_GETOWN": 9,
    "F_SETSIG": 10,
    "F_GETSIG": 11,
    "F_SETOWN_EX": 15,
    "F_GETOWN_EX": 16,
    "F_GETOWNER_UIDS": 17,
    "F_OFD_GETLK": 36,
    "F_OFD_SETLK": 37,
    "F_OFD_SETLKW": 38,
    "F_SETLEASE": 1024,
    "F_GETLEASE": 1025,
    "F_NOTIFY": 1026,
    "F_DUPFD_QUERY": 1027,
    "F_CREATED_QUERY": 1028,
    "F_CANCELLK": 1029,
    "F_DUPFD_CLOEXEC": 1030,
    "F_SETPIPE_SZ": 1031,
    "F_GETPIPE_SZ": 1032,
    "F_ADD_SEALS": 1033,
    "F_GET_SEALS": 1034,
    "F_GET_RW_HINT": 1035,
    "F_SET_RW_HINT": 1036,
    "F_GET_FILE_RW_HINT": 1037,
    "F_SET_FILE_RW_HINT": 1038,
    "minus_one": -1,
    "lowest": -(1 << 31),
    "highest": (1 << 31) - 1,
}

IOCTL = {
    "TCSETS": 0x5402,
    "TCSBRK": 0x5409,
    "TIOCEXCL": 0x540C,
    "TIOCSCTTY": 0x540E,
    "TIOCSPGRP": 0x5410,
    "TIOCSTI": 0x5412,
    "TIOCGWINSZ": 0x5413,
    "TIOCSWINSZ": 0x5414,
    "TIOCLINUX": 0x541C,
    "TIOCCONS": 0x541D,
    "FIONBIO": 0x5421,
    "TIOCNOTTY": 0x5422,
    "TIOCSETD": 0x5423,
    "TCGETS2": 0x802C542A,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
    "FIOASYNC": 0x5452,
    "TIOCGPTPEER": 0x5441,
    "SIOCGIFCONF": 0x8912,
    "SIOCSPGRP": 0x8902,
    "BLKROSET": 0x125D,
    "FIBMAP": 1,
    "FS_IOC_SETFLAGS": 0x40086602,
    "FS_IOC_GETFLAGS": 0x80086601,
    "FS_IOC_FIEMAP": 0xC020660B,
    "FICLONE": 0x40049409,
    "FICLONERANGE": 0x4020940D,
    "FIDEDUPERANGE": 0xC0189436,
    "FIFREEZE": 0xC0045877,
    "FITRIM": 0xC0185879,
    "TCGETS_and_a_bit": 0x5401 | 1 << 31,
    "zero": 0,
    "minus_one": -1,
}


@pytest.mark.parametrize("command", FCNTL.values(), ids=FCNTL)
def test_fcntl_is_a_closed_list(evil: Evil, command: int) -> None:
    """Everything but F_GETFL and F_SETFL: EPERM, whatever the argument."""
    for fd in (1, BOX, SHELF):
        for argument in (0, 1, 500, evil.arena, (1 << 63) - 1, -1):
            assert evil.call("fcntl", fd, command, argument) == -errno.EPERM


@pytest.mark.parametrize("request_number", IOCTL.values(), ids=IOCTL)
def test_ioctl_is_a_closed_list(evil: Evil, request_number: int) -> None:
    """Everything but TCGETS and FIONREAD: EPERM."""
    for fd in (1, BOX, SHELF):
        assert evil.call("ioctl", fd, request_number, evil.arena) == -errno.EPERM


def test_terminal_is_not_typed_into(evil: Evil) -> None:
    """TIOCSTI and its like on an inherited terminal are refused there as well."""
    master, slave = os.openpty()
    try:
        core = evil.guest._engine.core
        assert core.descriptor_set(evil.guest._address, 30, slave, 2) == 0
        for request_number in (0x5412, 0x541C, 0x5402, 0x540E, 0x5421):
            assert evil.call("ioctl", 30, request_number, b"x") == -errno.EPERM
        assert evil.call("ioctl", 30, 0x5401, Out(36)) == 0
        assert os.get_blocking(slave)
    finally:
        os.close(master)
        os.close(slave)


def test_status_flags_that_pass(evil: Evil) -> None:
    """Of F_SETFL's flags only O_APPEND and O_DIRECT reach a file of the guest's own."""
    fd = evil.call("openat", BOX, b"file", os.O_RDWR, 0)
    host = evil.guest._engine.core.descriptor_host(evil.guest._address, fd)
    before = fcntl.fcntl(host, fcntl.F_GETFL)
    assert evil.call("fcntl", fd, fcntl.F_SETFL, -1 & ~0x4000) == 0
    assert fcntl.fcntl(host, fcntl.F_GETFL) == before | os.O_APPEND


def test_sockets_know_few_flags(evil_host: EvilHost, world: World) -> None:
    """MSG_OOB, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_CMSG_CLOEXEC and more: EINVAL."""
    ours, theirs = socket.socketpair()
    with ours, theirs, evil_host.enter(world, stdin=theirs.fileno()) as evil:
        for flag in (
            0x1,
            0x4,
            0x8,
            0x10,
            0x80,
            0x200,
            0x2000,
            0x8000,
            1 << 29,
            1 << 30,
            -(1 << 31),
        ):
            assert evil.call("recvfrom", 0, Out(1), 1, flag, 0, 0) == -errno.EINVAL
        assert evil.call("accept4", 0, 0, 0, 0x100) == -errno.EINVAL
        assert evil.call("shutdown", 0, 3) == -errno.EINVAL


def test_received_descriptors_are_dropped(evil_host: EvilHost, world: World) -> None:
    """A descriptor that somebody sends along (SCM_RIGHTS) never arrives."""
    ours, theirs = socket.socketpair()
    with ours, theirs, evil_host.enter(world, stdin=theirs.fileno()) as evil:
        before = len(settled_descriptors())
        socket.send_fds(ours, [b"x"], [world.host_file])
        assert evil.call("recvfrom", 0, Out(1), 1, 0, 0, 0) == 1
        socket.send_fds(ours, [b"y"], [world.host_file])
        evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 1))
        assert evil.on_guest("readv", 0, IOVEC, 1) == 1
        assert len(open_descriptors()) == before
        assert not evil.has_anything


@pytest.mark.parametrize(
    "flags", [0x1, 0x2, 0x4, 0x8, 0x40, 0x80, 1 << 30, -1], ids=lambda flags: f"{flags:#x}"
)
def test_pwritev2_knows_two_flags(evil: Evil, flags: int) -> None:
    """RWF_HIPRI, RWF_NOWAIT, RWF_ATOMIC and whatever comes: EOPNOTSUPP."""
    fd = evil.call("openat", BOX, b"file", os.O_RDWR, 0)
    evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 1))

    assert evil.on_guest("pwritev2", fd, IOVEC, 1, 0, flags) == -errno.EOPNOTSUPP


def test_exit_ends_the_guest_alone(evil: Evil) -> None:
    """`__proc_exit` is the guest's own end."""
    with pytest.raises(GuestExit) as end:
        evil.guest.call("wali.__proc_exit", 77)
    assert end.value.status == 77


def test_yielding_is_harmless(evil: Evil) -> None:
    """The one call without an argument."""
    assert evil.call("sched_yield") == 0


# --- grants that must not be made -----------------------------------------------------------------


@pytest.mark.parametrize(
    "folder", ["/proc", "/proc/self", "/proc/self/fd", "/proc/thread-self", "/proc/self/root/proc"]
)
@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_procfs_cannot_be_granted(evil_host: EvilHost, folder: str, mode: str) -> None:
    """A procfs holds the engine's own memory: granting it, or a part of it, is refused."""
    with pytest.raises(PolicyError, match="procfs"):
        evil_host.runtime.instantiate(evil_host.guest, dirs={"/p": (folder, mode)})


def test_procfs_cannot_be_granted_by_a_link(evil_host: EvilHost, tmp_path: Path) -> None:
    """Not under another name either."""
    (tmp_path / "innocent").symlink_to("/proc/self")
    with pytest.raises(PolicyError, match="procfs"):
        evil_host.runtime.instantiate(evil_host.guest, dirs={"/p": str(tmp_path / "innocent")})


# --- nothing is left out --------------------------------------------------------------------------


def test_each_call_on_the_list_is_driven() -> None:
    """No call that a shim may have is left out of the tests of this folder."""
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    driven = set(re.findall(r"\w+", sources))
    left_out = {name.removeprefix("SYS_") for _, name in allow_list()} - driven

    assert left_out == set()
