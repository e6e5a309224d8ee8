"""The address space of a program, driven directly: no hole, and every page as mmap(2) says.

Memory of this process is mapped, as a program's is, inside a linear memory of its own.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wali.conftest import ROOT
from wali_core import _bridge as bridge
from wali_core._engine import DEFAULT_STACK, Engine
from wali_core.programs._memory import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PAGE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    WASM_PAGE,
    AddressSpace,
    FreeList,
    LinearMemory,
    SharedMemory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST, MOST = 2, 64  # pages of 64 KiB
NEW = MAP_PRIVATE | MAP_ANONYMOUS
BOTH = PROT_READ | PROT_WRITE
MAYMOVE, FIXED = 1, 2
MOST_MAPPINGS = int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii"))


class World:
    """A memory, its address space, and a file that can be mapped as descriptor 3."""

    def __init__(self, engine: Engine) -> None:
        assert engine.pointer is not None
        self.shared = SharedMemory(engine.pointer, LEAST, MOST)
        self.memory: LinearMemory = self.shared.linear()
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.file.write(b"F" * 16 * PAGE)
        self.file.flush()
        # However often a mapping of it is made larger, there is a page of the file behind it: what
        # lies beyond its end cannot be touched, and that is the end of the process.
        self.file.truncate(512 * PAGE)
        self.space = AddressSpace(
            self.memory, lambda fd: self.file.fileno() if fd == 3 else -1, own_process=True
        )

    def close(self) -> None:
        """Give all of it back."""
        self.shared.close()
        self.file.close()

    def byte(self, address: int) -> int:
        """Return what lies at an address that can be read."""
        return ctypes.c_ubyte.from_address(self.memory.base + address).value

    def protection(self, address: int) -> str:
        """Return what the kernel says of the mapping at an address: ``rw-p``."""
        host = self.memory.base + address
        with open("/proc/self/maps", encoding="ascii") as file:
            lines = [line.split() for line in file]
        for bounds, word, *_ in lines:
            low, high = (int(n, 16) for n in bounds.split("-"))
            if low <= host < high:
                return word
        raise AssertionError(hex(address))

    def put(self, address: int, value: int) -> None:
        """Write one byte."""
        ctypes.c_ubyte.from_address(self.memory.base + address).value = value

    def holes(self) -> list[tuple[int, int]]:
        """Return the ranges of the memory where the kernel could put something else."""
        low, high = self.memory.base, self.memory.base + self.memory.size()
        found, at = [], low
        for start, end in mappings():
            if end <= at or start >= high:
                continue
            if start > at:
                found.append((at - low, start - low))
            at = end
        return found if at >= high else [*found, (at - low, high - low)]


def mappings(protection: str = "") -> list[tuple[int, int]]:
    """Return what is mapped in this process, lowest first; so, if that is said."""
    with open("/proc/self/maps", encoding="ascii") as file:
        ranges = [line.split()[0].split("-") for line in file if f" {protection}" in line]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Return one engine for all memories."""
    return Engine(bridge.core, DEFAULT_STACK)


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    """Return a fresh one."""
    made = World(engine)
    yield made
    made.close()


@pytest.mark.oldest
@pytest.mark.parametrize("most", [LEAST, MOST, 1 << 16])
def test_what_is_no_memory_of_four_gigabytes_is_inaccessible(engine: Engine, most: int) -> None:
    """And some behind them: the core hands such addresses to the kernel, which finds them so."""
    assert engine.pointer is not None
    memory = SharedMemory(engine.pointer, LEAST, most)
    memory.grow(min(most - LEAST, 5))
    low, high = memory.base + memory.size(), memory.base + (4 << 30) + (1 << 20)

    inaccessible = sum(max(0, min(end, high) - max(start, low)) for start, end in mappings("---p"))
    memory.close()

    assert inaccessible == high - low


def test_unmapping_leaves_no_hole(world: World) -> None:
    """After munmap the kernel finds no room there: mappings of the host's lie outside."""
    space, low = world.space, world.memory.base
    high = low + (4 << 30)
    for size in (1, 16, 100, 500):
        at = space.mmap(0, size * PAGE, BOTH, NEW, -1, 0)
        assert at > 0
        assert space.munmap(at, size * PAGE) == 0

    hosts = [mmap.mmap(-1, WASM_PAGE) for _ in range(1000)]
    inside = [
        host for host in hosts if low <= ctypes.addressof(ctypes.c_char.from_buffer(host)) < high
    ]

    assert world.holes() == []
    assert inside == []


def test_cycles_need_no_more_room(world: World) -> None:
    """Ten thousand mappings, each given back, lie all in the same place."""
    space = world.space
    places = set()
    for i in range(10_000):
        at = space.mmap(0, (i % 7 + 1) * PAGE, BOTH, NEW, -1, 0)
        places.add(at)
        assert space.munmap(at, (i % 7 + 1) * PAGE) == 0

    assert len(places) == 1
    assert world.memory.size() <= (LEAST + 1) * WASM_PAGE


def test_memory_ends(world: World) -> None:
    """What does not fit is ENOMEM, and what was mapped before is as it was."""
    space = world.space
    at = space.mmap(0, PAGE, BOTH, NEW, -1, 0)
    world.put(at, 7)

    assert space.mmap(0, MOST * WASM_PAGE, BOTH, NEW, -1, 0) == -errno.ENOMEM
    assert space.mremap(at, PAGE, MOST * WASM_PAGE, MAYMOVE, 0) == -errno.ENOMEM
    assert world.byte(at) == 7
    assert space.mmap(MOST * WASM_PAGE, PAGE, BOTH, NEW | MAP_FIXED, -1, 0) == -errno.ENOMEM
    assert space.mmap((1 << 32) - PAGE, PAGE, BOTH, NEW | MAP_FIXED, -1, 0) == -errno.ENOMEM
    assert space.munmap((1 << 32) - PAGE, PAGE) == 0  # nothing is there, as munmap(2) allows
    assert space.munmap(1 << 32, PAGE) == -errno.EINVAL
    assert space.munmap(PAGE, (1 << 32) - 1) == -errno.EINVAL
    assert space.mprotect((1 << 32) - PAGE, PAGE, PROT_READ) == -errno.ENOMEM


def test_growth_of_the_programs_is_its_own(world: World) -> None:
    """What it gets by memory.grow is not handed out by mmap."""
    space = world.space
    first = space.mmap(0, PAGE, BOTH, NEW, -1, 0)
    grown = world.memory.size()
    assert world.memory.grow(1) == grown
    world.put(grown, 9)

    places = [space.mmap(0, 8 * PAGE, BOTH, NEW, -1, 0) for _ in range(8)]

    assert world.byte(grown) == 9
    assert all(at + 8 * PAGE <= grown or at >= grown + WASM_PAGE for at in [first, *places])


HINT = (LEAST + 20) * WASM_PAGE


@pytest.mark.parametrize(("hint", "flags"), [(0, NEW), (HINT, NEW), (HINT, NEW | MAP_FIXED)])
@pytest.mark.parametrize("after", [False, True])
def test_growth_by_a_thread_meanwhile_is_the_programs(
    world: World, hint: int, flags: int, *, after: bool
) -> None:
    """memory.grow of another thread comes right before mmap's own, or right after: it is no room.

    Neither for that mapping, nor for a later one; unless the program itself says so.
    """
    grow, theirs = world.memory.grow, list[int]()

    def contended(pages: int) -> int:
        ours = grow(pages) if after else -1
        if not theirs:
            theirs.append(grow(1))
            world.put(theirs[0], 9)
        return ours if after else grow(pages)

    world.memory.grow = contended
    places = [world.space.mmap(hint, 3 * WASM_PAGE, BOTH, flags, -1, 0)]
    while (at := world.space.mmap(0, 8 * PAGE, BOTH, NEW, -1, 0)) > 0:
        places.append(at)

    assert world.byte(theirs[0]) == 9
    assert all(at + 8 * PAGE <= theirs[0] or at >= theirs[0] + WASM_PAGE for at in places[1:])
    assert len(places) > MOST  # all else was had


@pytest.mark.skipif(
    MOST_MAPPINGS > 200_000, reason="a process may have more mappings than can be made here"
)
def test_a_mapping_that_cannot_be_moved_stays() -> None:
    """Whichever step of mremap fails, since the process has all the mappings that it may have.

    The bytes are where they were, there is no hole, and nothing is left outside.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.wali.crowding"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.split("\n") == [
        *("elsewhere: -", "elsewhere: +-+", "elsewhere: ++-+", "elsewhere: +++"),
        *("to a place: -", "to a place: +-+", "to a place: ++-+", "to a place: +++"),
        *("twice: -", "twice: +-", "twice: ++", "twice: ++", ""),
    ]  # the last is the way back


def test_executable_memory_is_refused(world: World) -> None:
    """Neither made, nor made so later."""
    at = world.space.mmap(0, PAGE, BOTH, NEW, -1, 0)

    assert world.space.mmap(0, PAGE, BOTH | PROT_EXEC, NEW, -1, 0) == -errno.EPERM
    assert world.space.mprotect(at, PAGE, PROT_READ | PROT_EXEC) == -errno.EACCES


@pytest.mark.parametrize("kind", [MAP_SHARED, MAP_PRIVATE])
def test_mappings_of_files_are_resized_and_moved(world: World, kind: int) -> None:
    """Where a mapping of a file grows, the file's next bytes are, with the same protection."""
    space = world.space
    at = space.mmap(0, 2 * PAGE, PROT_READ, kind, 3, 0)
    anchor = space.mmap(0, PAGE, BOTH, NEW, -1, 0)
    assert anchor == at + 2 * PAGE
    world.file.seek(6 * PAGE)
    world.file.write(b"G")
    world.file.flush()

    assert space.mremap(at, 2 * PAGE, 8 * PAGE, 0, 0) == -errno.ENOMEM
    grown = space.mremap(at, 2 * PAGE, 8 * PAGE, MAYMOVE, 0)
    assert [world.byte(grown + n * PAGE) for n in (0, 6, 7)] == [*b"FGF"]
    moved = space.mremap(grown, 8 * PAGE, 7 * PAGE, MAYMOVE | FIXED, grown + 20 * PAGE)

    assert moved == grown + 20 * PAGE
    assert world.byte(moved + 6 * PAGE) == ord("G")
    assert world.protection(moved + 6 * PAGE) == ("r--s" if kind == MAP_SHARED else "r--p")
    assert world.holes() == []


def test_a_mapping_grows_where_it_is(world: World) -> None:
    """If what is behind it is free, it stays, keeps its bytes, and is zero behind them."""
    space = world.space
    at = space.mmap(0, 8 * PAGE, BOTH, NEW, -1, 0)
    world.put(at, 7)
    assert space.mremap(at, 8 * PAGE, 2 * PAGE, 0, 0) == at

    assert space.mremap(at, 2 * PAGE, 6 * PAGE, 0, 0) == at
    assert (world.byte(at), world.byte(at + 5 * PAGE)) == (7, 0)
    assert world.holes() == []


def test_what_is_shared_can_be_mapped_twice(world: World) -> None:
    """Without an old length mremap copies: the same pages in two places; never of private ones."""
    space = world.space
    at = space.mmap(0, PAGE, BOTH, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
    private = space.mmap(0, PAGE, BOTH, NEW, -1, 0)

    twin = space.mremap(at, 0, PAGE, MAYMOVE, 0)
    world.put(at, 9)

    assert twin not in {at, private}
    assert world.byte(twin) == 9
    assert space.mremap(private, 0, PAGE, MAYMOVE, 0) == -errno.EINVAL
    assert world.holes() == []


def test_hints_are_honoured_where_there_is_room(world: World) -> None:
    """Also behind the end of the memory, which grows; what is taken is left alone."""
    space = world.space
    at = space.mmap(0, 4 * PAGE, BOTH, NEW, -1, 0)
    far = at + 40 * WASM_PAGE

    assert space.mmap(far, PAGE, BOTH, NEW, -1, 0) == far
    assert space.mmap(far + 5, PAGE, BOTH, NEW, -1, 0) not in {far, far + PAGE}
    assert space.mmap(far + PAGE + 5, PAGE, BOTH, NEW, -1, 0) == far + PAGE
    beyond = space.mmap(MOST * WASM_PAGE, PAGE, BOTH, NEW, -1, 0)
    assert 0 < beyond < MOST * WASM_PAGE


def test_a_mapping_that_fails_leaves_no_hole(world: World) -> None:
    """A directory cannot be mapped: what was at the place is there, or nothing can be."""
    space = world.space
    at = space.mmap(0, 4 * PAGE, BOTH, NEW, -1, 0)
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(folder, world.file.fileno())
    os.close(folder)

    assert space.mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, 3, 0) == -errno.ENODEV
    assert space.mmap(0, PAGE, PROT_READ, MAP_PRIVATE, 3, 0) == -errno.ENODEV
    assert space.mmap(0, PAGE, PROT_READ, MAP_PRIVATE, 4, 0) == -errno.EBADF
    assert world.holes() == []


def test_null_is_nobodys(world: World) -> None:
    """Page 0 is never mapped, not even when the program unmaps all that it was linked with."""
    space = world.space

    assert space.mmap(0, PAGE, BOTH, NEW | MAP_FIXED, -1, 0) == -errno.EPERM
    assert space.munmap(0, LEAST * WASM_PAGE) == 0
    assert space.mmap(0, PAGE, BOTH, NEW, -1, 0) == PAGE


def test_break_moves(world: World) -> None:
    """Brk gives memory that is zero, takes it back, and stays where it is when it cannot move."""
    space = world.space
    start = space.brk(0)
    assert start % PAGE == 0
    assert start >= LEAST * WASM_PAGE

    assert space.brk(start + 3 * PAGE + 5) == start + 3 * PAGE + 5
    world.put(start + 3 * PAGE + 4, 8)
    assert space.brk(start + PAGE) == start + PAGE
    assert world.protection(start + PAGE) == "---p"
    assert space.brk(start + 4 * PAGE) == start + 4 * PAGE
    assert world.byte(start + 3 * PAGE + 4) == 0
    assert space.brk(start + MOST * WASM_PAGE) == start + 4 * PAGE
    assert space.brk(start - 1) == start + 4 * PAGE

    mapped = space.mmap(0, PAGE, BOTH, NEW, -1, 0)
    assert not start <= mapped < start + 4 * PAGE
    assert world.holes() == []


def test_no_memory_is_left_for_a_break(engine: Engine) -> None:
    """A memory that cannot grow has none: address 0, as WALI's reference answers."""
    assert engine.pointer is not None
    shared = SharedMemory(engine.pointer, 2, 2)
    space = AddressSpace(shared.linear(), lambda _fd: -1, own_process=True)

    assert space.brk(0) == 0
    assert space.brk(PAGE) == 0
    shared.close()


# --- at random ------------------------------------------------------------------------------------

_pages = st.integers(0, 40)
_sizes = st.integers(1, 12)
OPERATIONS = st.one_of(
    st.tuples(st.just("map"), _sizes),
    st.tuples(st.just("file"), _sizes),
    st.tuples(st.just("fixed"), _pages, _sizes),
    st.tuples(st.just("unmap"), _pages, _sizes),
    st.tuples(st.just("protect"), _pages, _sizes),
    st.tuples(st.just("resize"), _pages, _sizes, _sizes),
    st.tuples(st.just("move"), _pages, _sizes, _sizes, _pages),
    st.tuples(st.just("grow"), st.just(1)),
)


class Model:
    """What each page that was mapped must say: its mark, or None where it cannot be read.

    A mark lies in the first byte of a page.  Pages of a file are marked as well: they are private.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.first = world.memory.size()  # below lies what the program was linked with
        self.pages: dict[int, int | None] = {}
        self._marks = 0

    def page(self, number: int) -> int:
        """Return the address of a page, counted from the first that can be mapped."""
        return self.first + number * PAGE

    def mark(self, at: int, size: int) -> None:
        """Note pages that are new, and write their marks."""
        for address in range(at, at + size, PAGE):
            self._marks = self._marks % 250 + 1
            self.world.put(address, self._marks)
            self.pages[address] = self._marks

    def owned(self, at: int, size: int) -> bool:
        """Is all of a range readable, and the program's?"""
        return all(self.pages.get(page) is not None for page in range(at, at + size, PAGE))

    def apply(self, what: str, *numbers: int) -> None:
        """Do one operation, and note what must have come of it."""
        getattr(self, f"_{what}")(*numbers)

    def _map(self, size: int, flags: int = NEW, fd: int = -1) -> None:
        at = self.world.space.mmap(0, size * PAGE, BOTH, flags, fd, 0)
        if at < 0:
            assert at == -errno.ENOMEM
            return
        pages = range(at, at + size * PAGE, PAGE)
        assert at >= self.first
        assert not self.pages.keys() & set(pages)  # never over what is there
        assert [self.world.byte(page) for page in pages] == [0 if fd < 0 else ord("F")] * size
        self.mark(at, size * PAGE)

    def _file(self, size: int) -> None:
        self._map(size, MAP_PRIVATE, 3)

    def _fixed(self, page: int, size: int) -> None:
        at = self.page(page)
        assert self.world.space.mmap(at, size * PAGE, BOTH, NEW | MAP_FIXED, -1, 0) == at
        assert self.world.byte(at) == 0
        self.mark(at, size * PAGE)

    def _unmap(self, page: int, size: int) -> None:
        at = self.page(page)
        if at + size * PAGE > self.world.memory.size():
            return
        assert self.world.space.munmap(at, size * PAGE) == 0
        for address in range(at, at + size * PAGE, PAGE):
            self.pages.pop(address, None)

    def _protect(self, page: int, size: int) -> None:
        at = self.page(page)
        if self.owned(at, size * PAGE):
            assert self.world.space.mprotect(at, size * PAGE, PROT_NONE) == 0
            self.pages |= dict.fromkeys(range(at, at + size * PAGE, PAGE))

    def _resize(self, page: int, old: int, new: int) -> None:
        at = self.page(page)
        if self.owned(at, old * PAGE):
            moved = self.world.space.mremap(at, old * PAGE, new * PAGE, MAYMOVE, 0)
            self._moved(at, old, new, moved)

    def _move(self, page: int, old: int, new: int, to: int) -> None:
        at, target = self.page(page), self.page(to)
        if self.owned(at, old * PAGE):
            flags = MAYMOVE | FIXED
            moved = self.world.space.mremap(at, old * PAGE, new * PAGE, flags, target)
            assert moved in {target, -errno.EINVAL, -errno.ENOMEM, -errno.EFAULT}
            self._moved(at, old, new, moved)

    def _moved(self, at: int, old: int, new: int, moved: int) -> None:
        if moved < 0:  # a mapping of a file, or of two kinds: nothing has changed
            return
        marks = [self.pages.pop(at + i * PAGE) for i in range(old)]
        for i, mark in enumerate(marks[:new]):
            self.pages[moved + i * PAGE] = mark
        if new > old:
            self.mark(moved + old * PAGE, (new - old) * PAGE)

    def _grow(self, pages: int) -> None:
        start = self.world.memory.size()
        if self.world.memory.grow(pages) >= 0:
            self.mark(start, pages * WASM_PAGE)

    def check(self) -> None:
        """Compare every page with what it must say, and look for holes."""
        for page, mark in self.pages.items():
            if mark is not None:
                assert self.world.byte(page) == mark, hex(page)
        assert self.world.holes() == []


@settings(max_examples=150)
@given(operations=st.lists(OPERATIONS, max_size=25))
def test_pages_are_as_the_model_says(engine: Engine, operations: list[tuple[str, int]]) -> None:
    """Whatever is mapped, given back, resized and moved: each page is what it was, and no hole."""
    world = World(engine)
    try:
        model = Model(world)
        for operation in operations:
            model.apply(*operation)
            model.check()
    finally:
        world.close()


ranges = st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda r: (r[0], r[0] + r[1]))


@given(steps=st.lists(st.tuples(st.booleans(), ranges), max_size=30))
def test_free_list_is_a_set(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    """Ranges given and taken come to what a set of numbers would; they stay apart and sorted."""
    free, model = FreeList(), set[int]()
    for give, (start, end) in steps:
        if give:
            free.add(start, end)
            model |= set(range(start, end))
        else:
            free.remove(start, end)
            model -= set(range(start, end))

    assert {n for low, high in free.ranges for n in range(low, high)} == model
    assert free.ranges == sorted(free.ranges)
    assert all(a[1] < b[0] for a, b in zip(free.ranges, free.ranges[1:], strict=False))
    assert os.sysconf("SC_PAGE_SIZE") == PAGE


def test_thousands_of_free_ranges_cost_little() -> None:
    """To map and unmap among 20,000 gaps takes no more steps than there are sizes."""
    free = FreeList()
    for n in range(20_000):
        free.add(3 * n * PAGE, (3 * n + 1) * PAGE)
    free.add(1 << 30, 1 << 31)
    looked = []

    class Counting(dict[int, int]):
        def __getitem__(self, key: int) -> int:
            looked.append(key)
            return super().__getitem__(key)

    free._ends = Counting(free._ends)
    assert free.find(PAGE) == 0
    assert free.find(2 * PAGE) == 1 << 30
    free.remove(3 * PAGE, 4 * PAGE)
    free.add(3 * PAGE, 4 * PAGE)
    assert free.holds(30 * PAGE, 31 * PAGE)
    assert not free.touches(31 * PAGE, 33 * PAGE)

    assert len(looked) < 100
