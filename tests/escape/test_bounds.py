"""Pointers and lengths: no call reads or writes outside the memory that it works on."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.escape.evil import BOX, DATA, GUEST_PAGES, IOVEC, STAT
from tests.escape.paths import TIMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.evil import Evil, EvilHost, World

PAGE = 65536
GUEST_SIZE = GUEST_PAGES * PAGE
HIGHEST = (1 << 32) - 1
HOW = struct.pack("<3Q", 0, 0, 0x0A)
SOON = struct.pack("<2q", 0, 1000)
SOCKET = 0
O_NOWAIT = socket.MSG_DONTWAIT


@dataclass(frozen=True)
class At:
    """An argument that is an address: what stands there, and how much the call touches."""

    data: bytes
    size: int = 0
    optional: bool = False
    """0 is no address here, but means that there is none."""

    @property
    def needed(self) -> int:
        """How many bytes must be there."""
        return self.size or len(self.data)


def room(size: int) -> At:
    """A buffer to be filled."""
    return At(bytes(size))


NAME, NEW = At(b"file\0"), At(b"new\0")

# Each call with arguments that are all right.  An integer N after a buffer is its length.
CALLS: dict[str, tuple[int | At, ...]] = {
    "openat2": (BOX, NAME, At(HOW), 24),
    "openat": (BOX, NAME, os.O_RDONLY, 0),
    "fstat": (BOX, room(STAT)),
    "newfstatat": (BOX, NAME, room(STAT), 0),
    "utimensat": (BOX, At(b"file\0", optional=True), At(TIMES, optional=True), 0),
    "mkdirat": (BOX, NEW, 0o700),
    "unlinkat": (BOX, NAME, 0),
    "renameat2": (BOX, NAME, BOX, NEW, 0),
    "linkat": (BOX, NAME, BOX, NEW, 0),
    "symlinkat": (NAME, BOX, NEW),
    "readlinkat": (BOX, At(b"out\0"), room(64), 64),
    "getdents64": (BOX, room(2048), 2048),
    "ppoll": (At(struct.pack("<ihh", 1, 4, 0)), 1, At(SOON, optional=True), 0, 0),
    "clock_gettime": (1, room(16)),
    "clock_getres": (1, At(bytes(16), optional=True)),
    "getrandom": (room(64), 64, 0),
    "recvfrom": (SOCKET, room(64), 64, O_NOWAIT, 0, 0),
}

# Of other clocks the kernel itself writes the time.
CALLS |= {"clock_gettime of a process": (2, room(16))}

POINTERS = [
    pytest.param(name, position, id=f"{name}-{position}")
    for name, arguments in CALLS.items()
    for position, argument in enumerate(arguments)
    if isinstance(argument, At)
]

LENGTHS = [("readlinkat", 2), ("getdents64", 1), ("getrandom", 0), ("recvfrom", 1)]


@pytest.fixture
def shim(evil_host: EvilHost, world: World) -> Iterator[Evil]:
    """The evil shim with a connected socket for its descriptor 0."""
    ours, theirs = socket.socketpair()
    with ours, theirs, evil_host.enter(world, stdin=theirs.fileno()) as evil:
        ours.send(b"something to receive")
        yield evil


def invoke(evil: Evil, name: str, values: dict[int, int]) -> int:
    """Make a call with all arguments as they should be, but for `values`."""
    arguments = []
    for position, argument in enumerate(CALLS[name]):
        if isinstance(argument, At):
            address = evil.arena + 4096 * position
            evil.memory.write(address, argument.data)
            arguments.append(values.get(position, address))
        else:
            arguments.append(values.get(position, argument))
    return int(evil.guest.call(f"wali.SYS_{name.partition(' ')[0]}", *arguments, timeout=20))


@pytest.mark.parametrize("name", CALLS)
def test_call_with_good_pointers_succeeds(shim: Evil, name: str) -> None:
    """What fails below fails for the one argument that is bad."""
    assert invoke(shim, name, {}) >= 0


@pytest.mark.parametrize(("name", "position"), POINTERS)
def test_pointer_outside_is_refused(shim: Evil, name: str, position: int) -> None:
    """A pointer past the end, or a buffer that reaches past it: EFAULT, and nothing happens."""
    argument = CALLS[name][position]
    assert isinstance(argument, At)
    size = shim.memory.size
    shim.memory.write(size - 64, b"x" * 64)
    outside = {
        "end": size,
        "last_byte": size - 1,
        "one_too_far": size - argument.needed + 1,
        "next_page": size + PAGE,
        "half": 1 << 31,
        "negative": (1 << 32) - 4096,
        "highest": HIGHEST,
    }
    answers = {where: invoke(shim, name, {position: at}) for where, at in outside.items()}

    assert answers == dict.fromkeys(outside, -errno.EFAULT)
    assert shim.memory.read(size - 64, 64) == b"x" * 64
    assert not shim.world.changed
    assert (shim.world.box / "file").read_bytes() == b"of the box"
    assert not (shim.world.box / "new").exists()


@pytest.mark.parametrize(("name", "position"), POINTERS)
def test_null_is_no_address(shim: Evil, name: str, position: int) -> None:
    """Address 0 is NULL for a shim: EFAULT, but where NULL means something."""
    argument = CALLS[name][position]
    assert isinstance(argument, At)
    answer = invoke(shim, name, {position: 0})

    assert answer >= 0 if argument.optional else answer == -errno.EFAULT


@pytest.mark.parametrize(("name", "position"), POINTERS)
def test_pointer_at_the_very_end_is_fine(shim: Evil, name: str, position: int) -> None:
    """The last bytes of the memory belong to it."""
    argument = CALLS[name][position]
    assert isinstance(argument, At)
    address = shim.memory.size - argument.needed
    shim.memory.write(address, argument.data)

    assert invoke(shim, name, {position: address}) >= 0


@pytest.mark.parametrize(("name", "position"), LENGTHS)
@pytest.mark.parametrize("length", [HIGHEST, 1 << 31, (1 << 31) - 1, (1 << 32) - PAGE])
def test_length_past_the_end_is_refused(shim: Evil, name: str, position: int, length: int) -> None:
    """A length that does not fit, or whose sum with the address wraps, is never handed on."""
    for address in (16, shim.arena, shim.memory.size - 64, shim.memory.size - 1):
        values = {position: address, position + 1: length}
        assert invoke(shim, name, values) == -errno.EFAULT


@pytest.mark.parametrize("name", ["openat", "mkdirat", "unlinkat", "readlinkat"])
def test_string_without_an_end_is_refused(shim: Evil, name: str) -> None:
    """A path that runs into the end of the memory, and one that is longer than any path."""
    size = shim.memory.size
    shim.memory.write(size - 100, b"a" * 100)
    assert invoke(shim, name, {1: size - 100}) == -errno.EFAULT
    shim.memory.write(size - 8192, b"a" * 8192)
    assert invoke(shim, name, {1: size - 8192}) == -errno.ENAMETOOLONG
    shim.memory.write(size - 1, b"\0")
    assert invoke(shim, name, {1: size - 1}) == -errno.ENOENT


@pytest.mark.parametrize("count", [1 << 31, (1 << 32) - 1, 1 << 32, 1 << 61, (1 << 63) - 1, -1])
def test_too_many_to_poll(shim: Evil, count: int) -> None:
    """2^31 entries: EINVAL, and no host memory of that size."""
    assert invoke(shim, "ppoll", {1: count}) == -errno.EINVAL


def test_poll_entries_past_the_end(shim: Evil) -> None:
    """As many entries as there may be descriptors, of which the last lie outside."""
    assert invoke(shim, "ppoll", {0: shim.memory.size - 8 * 1000, 1: 1024}) == -errno.EFAULT


def test_poll_with_a_signal_mask_is_not_served(shim: Evil) -> None:
    """A mask would have to be read from somewhere."""
    assert invoke(shim, "ppoll", {3: HIGHEST, 4: 8}) == -errno.ENOSYS


@pytest.mark.parametrize("address", [1, 16, HIGHEST])
def test_no_address_of_a_peer(shim: Evil, address: int) -> None:
    """The address arguments of the socket calls are not read or written at all."""
    assert invoke(shim, "recvfrom", {4: address, 5: 16}) == -errno.EINVAL
    assert shim.call("accept4", SOCKET, address, 16, 0) == -errno.EINVAL


def test_terminal_request_past_the_end(shim: Evil) -> None:
    """TCGETS fills 36 bytes; where there is a terminal it is the same."""
    master, slave = os.openpty()
    with os.fdopen(master, "wb"), os.fdopen(slave, "wb") as terminal:
        core = shim.guest._engine.core
        assert core.descriptor_set(shim.guest._address, 30, terminal.fileno(), 2) == 0
        assert shim.call("ioctl", 30, 0x5401, shim.memory.size - 35) == -errno.EFAULT
        assert shim.call("ioctl", 30, 0x5401, 0) == -errno.EFAULT
        assert shim.call("ioctl", 30, 0x5401, shim.memory.size - 36) == 0


# --- the guest's memory ---------------------------------------------------------------------------

VECTORS: dict[str, tuple[int, ...]] = {
    "readv": (),
    "writev": (),
    "preadv": (0,),
    "pwritev": (0,),
    "pwritev2": (0, 0),
    "pwritev2 appending": (-1, 0x10),
}
OUTSIDE = [
    (GUEST_SIZE, 1),
    (GUEST_SIZE - 1, 2),
    (DATA, GUEST_SIZE),
    (DATA, HIGHEST),
    (HIGHEST, 1),
    (HIGHEST, HIGHEST),
    (GUEST_SIZE - 8, (1 << 32) - 8),
    (1 << 31, 1 << 31),
]


def transfer(evil: Evil, name: str, iovecs: list[tuple[int, int]], count: int) -> int:
    """Read or write the box's file by these vectors."""
    fd = evil.call("openat", BOX, b"file", os.O_RDWR, 0)
    evil.guest.memory.write(IOVEC, b"".join(struct.pack("<2I", *iovec) for iovec in iovecs))
    return evil.on_guest(name.partition(" ")[0], fd, IOVEC, count, *VECTORS[name])


@pytest.mark.parametrize("name", VECTORS)
def test_too_many_vectors(evil: Evil, name: str) -> None:
    """2^29 vectors: EINVAL at once."""
    for count in (1025, 1 << 16, 1 << 29, (1 << 31) - 1, -(1 << 31), -1):
        assert transfer(evil, name, [(DATA, 1)], count) == -errno.EINVAL


@pytest.mark.parametrize("name", VECTORS)
def test_vector_past_the_end(evil: Evil, name: str) -> None:
    """One bad vector behind a good one: EFAULT, and the good one was not used."""
    evil.guest.memory.write(DATA, b"evil")
    answers = {wild: transfer(evil, name, [(DATA, 4), wild], 2) for wild in OUTSIDE}

    assert answers == dict.fromkeys(OUTSIDE, -errno.EFAULT)
    assert (evil.world.box / "file").read_bytes() == b"of the box"
    assert evil.guest.memory.read(DATA, 4) == b"evil"


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_themselves_past_the_end(evil: Evil, name: str) -> None:
    """The array of vectors is memory as well."""
    fd = evil.call("openat", BOX, b"file", os.O_RDWR, 0)
    call = name.partition(" ")[0]

    for address in (GUEST_SIZE, GUEST_SIZE - 7, 1 << 31, HIGHEST - 6, HIGHEST):
        assert evil.on_guest(call, fd, address, 1, *VECTORS[name]) == -errno.EFAULT


def test_vectors_that_reach_past_the_end(evil: Evil) -> None:
    """1024 vectors of which the last lies outside."""
    fd = evil.call("openat", BOX, b"file", os.O_RDWR, 0)

    assert evil.on_guest("writev", fd, GUEST_SIZE - 8 * 1023, 1024) == -errno.EFAULT
    assert evil.on_guest("writev", fd, GUEST_SIZE - 8 * 1024, 1024) == 0


@pytest.mark.parametrize(("address", "size"), OUTSIDE)
def test_random_bytes_past_the_end(evil: Evil, address: int, size: int) -> None:
    """Random bytes for the guest."""
    assert evil.on_guest("getrandom", address, size, 0) == -errno.EFAULT


def test_copies_stay_inside(evil: Evil) -> None:
    """`guest.*` checks both memories, with the size of each."""
    ours = evil.memory.size
    call = evil.guest.call
    good, bad = 0, -errno.EFAULT
    assert ours < GUEST_SIZE
    expected = {
        (ours - 8, GUEST_SIZE - 8, 8): good,
        (ours - 8, 0, 8): good,
        (ours, GUEST_SIZE, 0): good,
        (ours - 7, 0, 8): bad,
        (ours, 0, 1): bad,
        (evil.arena, GUEST_SIZE - 7, 8): bad,
        (evil.arena, GUEST_SIZE, 1): bad,
        (evil.arena, HIGHEST, 8): bad,
        (HIGHEST, 0, 8): bad,
        (evil.arena, 0, HIGHEST): bad,
        (evil.arena, 0, GUEST_SIZE): bad,
        (16, 16, (1 << 32) - 8): bad,
    }
    for (own, guest, size), answer in expected.items():
        assert call("guest.copy_in", own, guest, size) == answer
        assert call("guest.copy_out", guest, own, size) == answer


def test_stores_and_checks_stay_inside(evil: Evil) -> None:
    """The last address at which a value fits, and the first at which it does not."""
    call = evil.guest.call
    assert call("guest.store_u32", GUEST_SIZE - 4, -1) == 0
    assert call("guest.store_u64", GUEST_SIZE - 8, -1) == 0
    assert call("guest.store_time", GUEST_SIZE - 8, time.CLOCK_REALTIME) == 0
    assert int.from_bytes(evil.guest.memory.read(GUEST_SIZE - 8, 8), "little") <= time.time_ns()
    assert call("guest.store_u64", GUEST_SIZE - 8, -1) == 0
    assert call("guest.check", GUEST_SIZE, 0) == 0
    assert call("guest.check", 0, GUEST_SIZE) == 0
    for address in (GUEST_SIZE - 3, GUEST_SIZE, 1 << 31, HIGHEST - 3, HIGHEST):
        assert call("guest.store_u32", address, 0) == -errno.EFAULT
        assert call("guest.store_u64", address, 0) == -errno.EFAULT
        assert call("guest.store_time", address, time.CLOCK_REALTIME) == -errno.EFAULT
        assert call("guest.check", address, 4) == -errno.EFAULT
    assert call("guest.check", 1, GUEST_SIZE) == -errno.EFAULT
    assert call("guest.check", 16, HIGHEST) == -errno.EFAULT
    for clock in (time.CLOCK_PROCESS_CPUTIME_ID, 99, -1, (~os.getppid() << 3) | 2):
        assert call("guest.store_time", GUEST_SIZE - 8, clock) == -errno.EINVAL
    assert evil.guest.memory.read(GUEST_SIZE - 8, 8) == b"\xff" * 8


def test_own_calls_do_not_reach_the_guest(evil: Evil) -> None:
    """An address that only the guest's memory has is none for `wali.*`."""
    beyond = evil.memory.size + 4096
    assert beyond + STAT < GUEST_SIZE
    evil.guest.memory.write(beyond, b"\xaa" * STAT)

    assert evil.call("fstat", BOX, beyond) == -errno.EFAULT
    assert evil.call("getrandom", beyond, 16, 0) == -errno.EFAULT
    assert evil.call("clock_gettime", 1, beyond) == -errno.EFAULT
    assert evil.guest.memory.read(beyond, STAT) == b"\xaa" * STAT


def test_own_calls_write_the_own_memory_only(evil: Evil) -> None:
    """An address that both memories have means the shim's."""
    evil.guest.memory.write(evil.arena, b"\xaa" * STAT)
    evil.memory.write(evil.arena, b"\xbb" * STAT)

    assert evil.call("fstat", BOX, evil.arena) == 0
    assert evil.guest.memory.read(evil.arena, STAT) == b"\xaa" * STAT
    assert evil.memory.read(evil.arena, STAT) != b"\xbb" * STAT


def test_guest_calls_write_the_guest_only(evil: Evil) -> None:
    """The other way round."""
    evil.guest.memory.write(evil.arena, b"\xaa" * 64)
    evil.memory.write(evil.arena, b"\xbb" * 64)

    assert evil.on_guest("getrandom", evil.arena, 64, 0) == 64
    assert evil.guest.memory.read(evil.arena, 64) != b"\xaa" * 64
    assert evil.memory.read(evil.arena, 64) == b"\xbb" * 64


def test_before_there_is_a_guest(evil: Evil) -> None:
    """While the shim is configured there is no guest's memory: EFAULT, even for no bytes at all."""
    assert evil.guest.call("early") == 0
