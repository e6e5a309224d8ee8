"""A guest passes wild pointers and lengths to every WASI function, through the real shim.

Every answer is a WASI errno; nothing is read or written outside the guest's memory, nothing happens
before the pointer is found to be bad, nothing hangs and no descriptor is lost.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.escape.wasi_guest import functions
from tests.wasi_shim.calls import MEMORY_SIZE, SIGNATURES, Errno, Wasi
from wali_core import GuestTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.evil import World, Worlds
    from tests.escape.wasi_guest import WasiHost

PREVIEW1, UNSTABLE = "wasi_snapshot_preview1", "wasi_unstable"
HIGHEST = (1 << 32) - 1
BOX, RECEIVING, SENDING, FILE, LAST_ERRNO = 3, 0, 1, 2, 76
RIGHTS = (1 << 30) - 1


@dataclass(frozen=True)
class At:
    """An argument that is an address: what stands there, or how much will be written there."""

    data: bytes

    @property
    def size(self) -> int:
        """How many bytes must be there."""
        return len(self.data)


def room(size: int) -> At:
    """A buffer to be filled."""
    return At(bytes(size))


@dataclass(frozen=True)
class Length:
    """An argument that is the length of the buffer before it."""

    value: int
    unit: int = 1


def path(name: str) -> tuple[At, Length]:
    """A path as WASI passes it."""
    return At(name.encode()), Length(len(name))


# A vector of one element: 16 bytes of the guest's memory, at an address that no argument has.
ELEMENT = 400_000
VECTOR = At(struct.pack("<2I", ELEMENT, 16)), Length(1, 8)
CLOCK = struct.pack("<QB7xI4xQQH6x", 7, 0, 1, 1, 0, 0)
UNSTABLE_CLOCK = struct.pack("<QB7xQI4xQQH6x", 7, 0, 9, 1, 1, 0, 0)

Arguments = tuple[int | At | Length, ...]

# Arguments with which each function succeeds.  2 is an open file of the box.
GOOD: dict[str, Arguments] = {
    "args_get": (room(8), room(6)),
    "args_sizes_get": (room(4), room(4)),
    "clock_res_get": (1, room(8)),
    "clock_time_get": (1, 0, room(8)),
    "environ_get": (room(8), room(8)),
    "environ_sizes_get": (room(4), room(4)),
    "fd_advise": (FILE, 0, 1, 0),
    "fd_allocate": (FILE, 0, 1),
    "fd_close": (FILE,),
    "fd_datasync": (FILE,),
    "fd_fdstat_get": (FILE, room(24)),
    "fd_fdstat_set_flags": (FILE, 0),
    "fd_fdstat_set_rights": (FILE, 0, 0),
    "fd_filestat_get": (FILE, room(64)),
    "fd_filestat_set_size": (FILE, 10),
    "fd_filestat_set_times": (FILE, 0, 0, 0),
    "fd_pread": (FILE, *VECTOR, 0, room(4)),
    "fd_prestat_dir_name": (BOX, room(4), Length(4)),
    "fd_prestat_get": (BOX, room(8)),
    "fd_pwrite": (FILE, *VECTOR, 0, room(4)),
    "fd_read": (FILE, *VECTOR, room(4)),
    "fd_readdir": (BOX, room(512), Length(512), 0, room(4)),
    "fd_renumber": (FILE, BOX),
    "fd_seek": (FILE, 0, 0, room(8)),
    "fd_sync": (FILE,),
    "fd_tell": (FILE, room(8)),
    "fd_write": (FILE, *VECTOR, room(4)),
    "path_create_directory": (BOX, *path("new")),
    "path_filestat_get": (BOX, 0, *path("file"), room(64)),
    "path_filestat_set_times": (BOX, 0, *path("file"), 0, 5, 4),
    "path_link": (BOX, 0, *path("file"), BOX, *path("new")),
    "path_open": (BOX, 0, *path("new"), 1, RIGHTS, RIGHTS, 0, room(4)),
    "path_readlink": (BOX, *path("out"), room(17), Length(17), room(4)),
    "path_remove_directory": (BOX, *path("empty")),
    "path_rename": (BOX, *path("file"), BOX, *path("new")),
    "path_symlink": (*path("anything"), BOX, *path("new")),
    "path_unlink_file": (BOX, *path("file")),
    "poll_oneoff": (At(CLOCK), room(32), Length(1, 32), room(4)),
    "proc_raise": (0,),
    "random_get": (room(64), Length(64)),
    "sched_yield": (),
    "sock_accept": (RECEIVING, 0, room(4)),
    "sock_recv": (RECEIVING, *VECTOR, 0, room(4), room(2)),
    "sock_send": (SENDING, *VECTOR, 0, room(4)),
    "sock_shutdown": (RECEIVING, 2),
}
# Of these buffers only so much is written as there is to say: that more is claimed does no harm.
FILLED_IN_PART = {("fd_prestat_dir_name", 2), ("path_readlink", 4)}
NEVER_SUCCEEDS = {"proc_raise": Errno.NOSYS, "sock_accept": Errno.INVAL}

GOOD_UNSTABLE: dict[str, Arguments] = {
    "fd_filestat_get": (FILE, room(56)),
    "fd_seek": (FILE, 0, 2, room(8)),
    "path_filestat_get": (BOX, 0, *path("file"), room(56)),
    "poll_oneoff": (At(UNSTABLE_CLOCK), room(32), Length(1, 32), room(4)),
}

FUNCTIONS = [(PREVIEW1, name, good) for name, good in GOOD.items()]
FUNCTIONS += [(UNSTABLE, name, good) for name, good in GOOD_UNSTABLE.items()]


def cases(kind: type[At | Length]) -> list[object]:
    """Each function with each of its arguments of that kind."""
    return [
        pytest.param(interface, name, position, id=f"{interface[5:13]}-{name}-{position}")
        for interface, name, good in FUNCTIONS
        for position, argument in enumerate(good)
        if isinstance(argument, kind)
    ]


def good_of(interface: str, name: str) -> Arguments:
    """What a function succeeds with."""
    return GOOD_UNSTABLE[name] if interface == UNSTABLE else GOOD[name]


def invoke(wasi: Wasi, interface: str, name: str, values: dict[int, int]) -> int:
    """Call a function with good arguments, but for `values`; its errno."""
    arguments = []
    for position, argument in enumerate(good_of(interface, name)):
        address = 1024 * (1 + position)
        value: int
        if isinstance(argument, At):
            wasi.memory.write(address, argument.data)
            value = address
        else:
            value = argument.value if isinstance(argument, Length) else argument
        arguments.append(values.get(position, value))
    return int(wasi.guest.call(name, *arguments, timeout=20))


@contextmanager
def guest(host: WasiHost, world: World, interface: str = PREVIEW1) -> Iterator[Wasi]:
    """A guest with a connected socket as 0 and 1, from which not much comes, and a file as 2."""
    ours, theirs = socket.socketpair()
    ours.send(b"something to receive")
    ours.shutdown(socket.SHUT_WR)
    number = theirs.fileno()
    options: dict[str, Any] = {"args": ["b"], "argv0": "abc", "env": {"A": "b", "C": "d"}}
    with (
        ours,
        theirs,
        host.enter(world, stdin=number, stdout=number, interface=interface, **options) as wasi,
    ):
        assert wasi.create("file") == FILE
        yield wasi


def host_descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def test_every_function_is_driven() -> None:
    """46 functions, of which proc_exit alone cannot answer anything."""
    assert set(GOOD) == set(SIGNATURES) - {"proc_exit"}
    assert len(SIGNATURES) == 46
    for name, kinds in SIGNATURES.items():
        assert len(GOOD.get(name, (0,))) == len(kinds)


@pytest.mark.parametrize(
    ("interface", "name"), [pytest.param(*case[:2], id="-".join(case[:2])) for case in FUNCTIONS]
)
def test_good_arguments_succeed(
    wasi_host: WasiHost, world: World, interface: str, name: str
) -> None:
    """What fails below fails for the one argument that is wild."""
    with guest(wasi_host, world, interface) as wasi:
        answer = invoke(wasi, interface, name, {})

    assert answer == NEVER_SUCCEEDS.get(name, Errno.SUCCESS)
    assert not world.changed


@pytest.mark.parametrize(("interface", "name", "position"), cases(At))
def test_wild_pointer_is_a_fault(
    wasi_host: WasiHost, world: World, interface: str, name: str, position: int
) -> None:
    """Past the end, across it, at the last byte, negative: FAULT, and nothing has happened."""
    argument = good_of(interface, name)[position]
    assert isinstance(argument, At)
    wild = [MEMORY_SIZE, MEMORY_SIZE + 65536, 1 << 31, HIGHEST - argument.size, HIGHEST]
    wild += [MEMORY_SIZE - argument.size + 1]
    if argument.size > 1:
        wild += [MEMORY_SIZE - 1]
    with guest(wasi_host, world, interface) as wasi:
        wasi.memory.write(MEMORY_SIZE - 64, b"file" * 16)
        before = host_descriptors()
        answers = [invoke(wasi, interface, name, {position: address}) for address in wild]

        assert host_descriptors() == before
        assert wasi.memory.read(MEMORY_SIZE - 64, 64) == b"file" * 16
    assert answers == [Errno.FAULT] * len(wild)
    assert not world.changed
    assert not world.box_changed


@pytest.mark.parametrize(("interface", "name", "position"), cases(At))
def test_pointer_at_the_very_end_is_fine(
    wasi_host: WasiHost, worlds: Worlds, interface: str, name: str, position: int
) -> None:
    """The last bytes of the memory belong to it, and so does its first."""
    argument = good_of(interface, name)[position]
    assert isinstance(argument, At)
    for address in (MEMORY_SIZE - argument.size, 0):
        with worlds.lend() as world, guest(wasi_host, world, interface) as wasi:
            wasi.memory.write(address, argument.data)
            answer = invoke(wasi, interface, name, {position: address})
        assert answer == NEVER_SUCCEEDS.get(name, Errno.SUCCESS)


@pytest.mark.parametrize(("interface", "name", "position"), cases(Length))
def test_wild_length_is_refused(
    wasi_host: WasiHost, world: World, interface: str, name: str, position: int
) -> None:
    """2^29 vectors, 2^31 subscriptions, lengths whose sum with the address wraps."""
    argument = good_of(interface, name)[position]
    assert isinstance(argument, Length)
    lengths = [HIGHEST, HIGHEST - 1024, 1 << 31, (1 << 31) - 1, 1 << 30, 1 << 29, 1 << 28]
    lengths += [MEMORY_SIZE, MEMORY_SIZE // argument.unit]
    with guest(wasi_host, world, interface) as wasi:
        before = host_descriptors()
        answers = {invoke(wasi, interface, name, {position: length}) for length in lengths}

        assert host_descriptors() == before
    refused = {Errno.FAULT, Errno.INVAL, Errno.NAMETOOLONG}
    assert answers <= refused | ({Errno.SUCCESS} if (name, position) in FILLED_IN_PART else set())
    assert not world.changed
    assert not world.box_changed


VECTORED = ["fd_read", "fd_write", "fd_pread", "fd_pwrite", "sock_recv", "sock_send"]
OUTSIDE = [
    (MEMORY_SIZE, 1),
    (MEMORY_SIZE - 1, 2),
    (0, MEMORY_SIZE + 1),
    (0, HIGHEST),
    (HIGHEST, 1),
    (HIGHEST, HIGHEST),
    (1 << 31, 1 << 31),
    (MEMORY_SIZE - 8, HIGHEST - 7),
]


@pytest.mark.parametrize("name", VECTORED)
def test_wild_element_of_a_vector_is_a_fault(wasi_host: WasiHost, world: World, name: str) -> None:
    """One bad element behind a good one: FAULT, and the good one was not used."""
    with guest(wasi_host, world) as wasi:
        wasi.memory.write(ELEMENT, b"0123456789abcdef")
        answers = []
        for element in OUTSIDE:
            wasi.memory.write(300_000, struct.pack("<4I", ELEMENT, 16, *element))
            answers.append(invoke(wasi, PREVIEW1, name, {1: 300_000, 2: 2}))

        assert wasi.memory.read(ELEMENT, 16) == b"0123456789abcdef"
        assert invoke(wasi, PREVIEW1, name, {}) == Errno.SUCCESS
    assert answers == [Errno.FAULT] * len(OUTSIDE)


@pytest.mark.parametrize("name", VECTORED)
@pytest.mark.parametrize("element", [(0, 0), (MEMORY_SIZE, 0), (ELEMENT, 1)])
def test_many_small_elements(
    wasi_host: WasiHost, world: World, name: str, element: tuple[int, int]
) -> None:
    """1024 elements are as many as Linux takes, and of no bytes they may lie at the very end."""
    with guest(wasi_host, world) as wasi:
        wasi.memory.write(300_000, struct.pack("<2I", *element) * 1025)

        assert invoke(wasi, PREVIEW1, name, {1: 300_000, 2: 1024}) == Errno.SUCCESS
        assert invoke(wasi, PREVIEW1, name, {1: 300_000, 2: 1025}) == Errno.INVAL


@pytest.mark.parametrize("size", [HIGHEST, 1 << 31, MEMORY_SIZE + 1, MEMORY_SIZE])
def test_random_bytes_are_bounded_by_the_memory(
    wasi_host: WasiHost, world: World, size: int
) -> None:
    """4 GiB are refused before the first byte."""
    with guest(wasi_host, world) as wasi:
        answer = wasi.guest.call("random_get", 1 if size == MEMORY_SIZE else 0, size, timeout=20)

        assert answer == Errno.FAULT
        assert wasi.memory.read(200_000, 100) == bytes(100)


# --- anything at all ------------------------------------------------------------------------------

EDGES = [0, 1, 2, 3, 4, 5, 6, 8, 63, 1024, 4096, 65535, 65536, 1 << 20, 1 << 29, 1 << 30]
EDGES += [MEMORY_SIZE - 8, MEMORY_SIZE - 1, MEMORY_SIZE, MEMORY_SIZE + 1]
NARROW = st.sampled_from([*EDGES, 1 << 31, HIGHEST - 8, HIGHEST]) | st.integers(0, HIGHEST)
WIDE = NARROW | st.sampled_from([1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1])
BYTES = st.binary(max_size=64) | st.sampled_from(
    [b"file", b"..", b"../outside/secret", b"outdir/x"]
)


# One ends the guest, the other would take the machine's disk: both are as they should be.
LEFT_OUT = {"proc_exit", "fd_allocate"}


@st.composite
def any_call(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A function and arguments of the right width."""
    name = draw(st.sampled_from(sorted(set(functions(PREVIEW1)) - LEFT_OUT)))
    return name, [draw(WIDE if kind == "I" else NARROW) for kind in SIGNATURES[name]]


@hypothesis.given(
    calls=st.lists(any_call(), min_size=1, max_size=12),
    contents=st.lists(st.tuples(st.sampled_from(EDGES[:-4]), BYTES), max_size=4),
)
@hypothesis.settings(max_examples=100)
def test_any_calls_answer_an_errno(
    wasi_host: WasiHost,
    worlds: Worlds,
    calls: list[tuple[str, list[int]]],
    contents: list[tuple[int, bytes]],
) -> None:
    """Whatever a guest passes in whatever order, it gets an errno, and nobody else notices."""
    with worlds.lend() as world, guest(wasi_host, world) as wasi:
        for address, data in contents:
            wasi.memory.write(min(address, MEMORY_SIZE - len(data)), data)
        for name, arguments in calls:
            try:
                answer = wasi.guest.call(name, *arguments, timeout=0.1)
            except GuestTimeout:  # it waits for something, as it may
                break
            assert 0 <= answer <= LAST_ERRNO, name
        assert not world.changed
