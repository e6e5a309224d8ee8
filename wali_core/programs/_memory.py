"""The address space of a WALI program: mappings inside its linear memory.

mmap(2) and its kin are rare, so they are Python.  The rule that everything here serves: *never
leave a hole*.  Where the kernel had unmapped a piece of linear memory, the next mapping of the
host's could land there, inside the guest's reach.  So what the program unmaps becomes an
inaccessible anonymous mapping, and what it maps is put over one in a single call.
"""

from __future__ import annotations

import ctypes
import errno
import os
from bisect import bisect_left, insort
from ctypes import byref, c_char, c_int, c_long, c_size_t, c_uint64, c_void_p
from stat import S_ISREG

from wali_core import _bridge as bridge
from wali_core._bridge import W

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from ctypes import Array
    from typing import Final

PAGE: Final = 4096
WASM_PAGE: Final = 65536
_END: Final = 1 << 32  # of all addresses that a program has

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
_BOTH: Final = PROT_READ | PROT_WRITE
_PROTECTIONS: Final = 0xF  # PROT_SEM, too, which does nothing
MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, _MAP_TYPE = 1, 2, 3, 0xF
MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_HUGETLB = 0x10, 0x20, 0x100, 0x40000
MAP_LOCKED, MAP_NORESERVE, MAP_POPULATE, MAP_NONBLOCK = 0x2000, 0x4000, 0x8000, 0x10000
MAP_STACK, MAP_FIXED_NOREPLACE = 0x20000, 0x100000
_HARMLESS: Final = MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK
_LEGACY: Final = 0x1840  # MAP_32BIT MAP_DENYWRITE MAP_EXECUTABLE, which do nothing
_PLACING: Final = MAP_FIXED | MAP_FIXED_NOREPLACE
_FRESH: Final = MAP_PRIVATE | MAP_ANONYMOUS
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4

# NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED FREE REMOVE HUGEPAGE NOHUGEPAGE DONTDUMP DODUMP
# WIPEONFORK KEEPONFORK COLD PAGEOUT POPULATE_READ POPULATE_WRITE: advice that leaves everything
# mapped.  Never DONTFORK, which makes a hole in a child, nor what is for the machine's operator.
_MS_FLAGS, _MS_EITHER = 7, 5  # MS_ASYNC or MS_SYNC, not both
_ADVICE: Final = frozenset((0, 1, 2, 3, 4, 8, 9, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23))

_BREAK_ROOM: Final = 16 << 20  # the most that is kept free for brk

_libc = ctypes.CDLL(None, use_errno=True)


def _declared(name: str, result: object, *arguments: object) -> Callable[..., int]:
    function = getattr(_libc, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


_mmap = _declared("mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_mprotect = _declared("mprotect", c_int, c_void_p, c_size_t, c_int)
_mremap = _declared("mremap", c_void_p, c_void_p, c_size_t, c_size_t, c_int, c_void_p)
_munmap = _declared("munmap", c_int, c_void_p, c_size_t)
_msync = _declared("msync", c_int, c_void_p, c_size_t, c_int)
_madvise = _declared("madvise", c_int, c_void_p, c_size_t, c_int)
_FAILED: Final = c_void_p(-1).value


def _checked(result: int) -> int:
    return -ctypes.get_errno() if result in (-1, _FAILED) else 0


def _read_fully(host: int, into: Array[c_char], offset: int) -> int:
    """Read until it is full, or the file ends.  0, or -errno."""
    view = memoryview(into).cast("B")
    try:
        while view and (count := os.preadv(host, [view], offset)):
            view, offset = view[count:], offset + count
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def _round_up(size: int, unit: int = PAGE) -> int:
    return -(-size // unit) * unit


class LinearMemory:
    """What the manager must know of a memory: where it is, its size, and how it grows.

    ``grow`` takes 64 KiB pages and gives the size before, in bytes; -1 where it cannot.
    """

    def __init__(
        self, base: int, size: Callable[[], int], grow: Callable[[int], int], most: int
    ) -> None:
        self.base, self.size, self.grow, self.most = base, size, grow, most


class FreeList:
    """Ranges that the program has unmapped, or never had: disjoint, sorted, never touching.

    Ranges of similar sizes are listed together, so that one is found among thousands at once.
    """

    _FEW = 16

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: dict[int, int] = {}
        self._alike: list[list[int]] = [[] for _ in range(_END.bit_length() + 1)]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """All of them, lowest first."""
        return [(start, self._ends[start]) for start in self._starts]

    def add(self, start: int, end: int) -> None:
        """Give a range back.  It may touch free ones, and overlap them."""
        if start >= end:
            return
        for low, high in self._cut(start, end, touching=1):
            start, end = min(low, start), max(high, end)
        self._insert(start, end)

    def remove(self, start: int, end: int) -> None:
        """Take out whatever of a range is free."""
        for low, high in self._cut(start, end, touching=0):
            if low < start:
                self._insert(low, start)
            if high > end:
                self._insert(end, high)

    def holds(self, start: int, end: int) -> bool:
        """Is all of a range free?"""
        i = self._first(start, touching=0)
        return i < len(self._starts) and self._starts[i] <= start and end <= self._end(i)

    def touches(self, start: int, end: int) -> bool:
        """Is any of a range free?"""
        i = self._first(start, touching=0)
        return i < len(self._starts) and self._starts[i] < end

    def used(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of a range is not free, lowest first."""
        i, found = self._first(start, touching=0), []
        while start < end:
            low = self._starts[i] if i < len(self._starts) else end
            if start < low:
                found.append((start, min(low, end)))
            start, i = self._end(i) if low < end else end, i + 1
        return found

    def find(self, size: int) -> int | None:
        """A free range of this size, low rather than high, or None."""
        similar = self._alike[size.bit_length()]
        for start in similar[: self._FEW]:
            if self._ends[start] - start >= size:
                return start
        larger = [alike[0] for alike in self._alike[size.bit_length() + 1 :] if alike]
        if larger:
            return min(larger)
        return next((s for s in similar[self._FEW :] if self._ends[s] - s >= size), None)

    def start_of_last(self, end: int) -> int:
        """Where the free range begins that ends at ``end``; ``end`` itself if there is none."""
        last = self._starts[-1] if self._starts else end
        return last if self._ends.get(last) == end else end

    def _end(self, i: int) -> int:
        return self._ends[self._starts[i]]

    def _first(self, start: int, *, touching: int) -> int:
        """The index of the lowest range that ends behind ``start``, or where it touches it."""
        i = bisect_left(self._starts, start)
        return i - 1 if i and self._end(i - 1) > start - touching else i

    def _cut(self, start: int, end: int, *, touching: int) -> list[tuple[int, int]]:
        """Take out all ranges that overlap with one, or touch it as well, and return them."""
        first = last = self._first(start, touching=touching)
        while last < len(self._starts) and self._starts[last] < end + touching:
            last += 1
        found = [(low, self._ends.pop(low)) for low in self._starts[first:last]]
        del self._starts[first:last]
        for low, high in found:
            alike = self._alike[(high - low).bit_length()]
            del alike[bisect_left(alike, low)]
        return found

    def _insert(self, start: int, end: int) -> None:
        insort(self._starts, start)
        self._ends[start] = end
        insort(self._alike[(end - start).bit_length()], start)


class AddressSpace:
    """mmap, munmap, mremap, mprotect, msync, madvise and brk; results as the kernel's.

    ``host_of`` gives the host's descriptor for a guest's number, or -1.  ``own_process`` allows
    file mappings and protections: there a fault is the end of nobody else.  Without it, a private
    mapping of a file is a copy.  ``exceed`` is told when there is no room left, and may raise what
    is to come of that; ``allowed`` gives what the program allows itself, in bytes.  One thread at a
    time.
    """

    def __init__(
        self,
        memory: LinearMemory,
        host_of: Callable[[int], int],
        exceed: Callable[[], None] = lambda: None,
        allowed: Callable[[], int] = lambda: _END,
        *,
        own_process: bool,
    ) -> None:
        self.memory = memory
        self._host_of = host_of
        self._exceed = exceed
        self._allowed = allowed
        self._own_process = own_process
        # Bulk instructions die of what cannot be accessed, with the whole process.
        self._nothing = PROT_NONE if own_process else _BOTH
        self._free = FreeList()
        self._known = _round_up(memory.size())  # up to here, what is not free is the program's
        self._break: Break | None = None

    # --- the calls --------------------------------------------------------------------------------

    def mmap(self, hint: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
        """Map memory or a file."""
        if offset % PAGE:
            return -errno.EINVAL
        host = -1 if flags & MAP_ANONYMOUS else self._host_of(fd)
        if host < 0 and not flags & MAP_ANONYMOUS:
            return -errno.EBADF
        refused = self._refused(length, prot, flags)
        if refused:
            return -refused
        kind = MAP_PRIVATE if flags & _MAP_TYPE == MAP_PRIVATE else MAP_SHARED
        kind |= flags & (MAP_ANONYMOUS | _HARMLESS)
        size = _round_up(length)
        self._adopt_growth()
        start = self._place(hint, size, flags)
        if start < 0:
            return start
        if host >= 0 and not self._own_process:
            result = self._copy_file(start, size, host, offset)
        else:
            result = self._over(start, size, prot & _PROTECTIONS, kind, host, offset)
        if result < 0:
            return result  # what was there is there still, be it free or not
        self._free.remove(start, start + size)
        return start

    def _refused(self, length: int, prot: int, flags: int) -> int:
        kind = flags & _MAP_TYPE
        if length == 0 or kind not in (MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE):
            return errno.EINVAL
        if kind == MAP_SHARED_VALIDATE and flags & MAP_ANONYMOUS:
            return errno.EINVAL
        if kind == MAP_SHARED_VALIDATE and flags & ~(kind | _LEGACY | _HARMLESS | _PLACING):
            return errno.EOPNOTSUPP
        if flags & (MAP_GROWSDOWN | MAP_HUGETLB):
            return errno.EINVAL  # other flags that are not known do nothing, as in the kernel
        if prot & PROT_EXEC:
            return errno.EPERM  # linear memory is never code
        if self._own_process:
            return 0
        # A fault would be the end of others, too.  Of a file a program may have a copy: without,
        # upstream's C library could not read its environment.
        served = prot & _BOTH == _BOTH if flags & MAP_ANONYMOUS else kind == MAP_PRIVATE
        return 0 if served else errno.ENOSYS

    def _copy_file(self, start: int, size: int, host: int, offset: int) -> int:
        """What a private mapping of a file shows as long as nobody changes the file."""
        try:
            if not S_ISREG(os.fstat(host).st_mode):
                return -errno.ENODEV
            os.pread(host, 0, 0)  # while nothing has been replaced yet
        except OSError as error:
            return -(errno.EACCES if error.errno == errno.EBADF else error.errno or errno.EIO)
        result = self._over(start, size, _BOTH, _FRESH, -1, 0)
        if result < 0:
            return result
        return _read_fully(host, (c_char * size).from_address(self.memory.base + start), offset)

    def munmap(self, start: int, length: int) -> int:
        """Unmap: the range becomes inaccessible, and free for the next mmap."""
        end = start + _round_up(length)
        if start % PAGE or length == 0 or end > _END:
            return -errno.EINVAL
        self._adopt_growth()
        return self._unmap(start, min(end, self._known))

    def mremap(self, old: int, old_length: int, new_length: int, flags: int, new: int) -> int:
        """Resize or move a mapping.  Without an old length, a shared mapping is made once more."""
        old_size, new_size = _round_up(old_length), _round_up(new_length)
        if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP):
            return -errno.EINVAL
        if flags & ~MREMAP_MAYMOVE and not flags & MREMAP_MAYMOVE:
            return -errno.EINVAL
        if flags & MREMAP_DONTUNMAP and old_size != new_size:
            return -errno.EINVAL
        if old % PAGE or not new_size:
            return -errno.EINVAL
        self._adopt_growth()
        if not self._is_mapped(old, old + (old_size or PAGE)):
            return -errno.EFAULT
        if flags == MREMAP_MAYMOVE or not flags:
            return self._resize(old, old_size, new_size, flags)
        target = self._target(old, old_size, new_size, flags, new)
        return target if target < 0 else self._move(old, old_size, new_size, target, flags)

    def mprotect(self, start: int, length: int, prot: int) -> int:
        """Protect a range; never executable."""
        if start % PAGE or prot & ~_PROTECTIONS:
            return -errno.EINVAL
        if not self._own_process:
            return -errno.ENOSYS
        if prot & PROT_EXEC:
            return -errno.EACCES
        return self._on_range(start, length, lambda at, size: _mprotect(at, size, prot), until=True)

    def msync(self, start: int, length: int, flags: int) -> int:
        """Write a shared mapping back to its file."""
        if start % PAGE or flags & ~_MS_FLAGS or flags & _MS_EITHER == _MS_EITHER:
            return -errno.EINVAL
        return self._on_range(start, length, lambda at, size: _msync(at, size, flags))

    def madvise(self, start: int, length: int, advice: int) -> int:
        """Take advice that cannot change what is mapped."""
        if start % PAGE or advice not in _ADVICE:
            return -errno.EINVAL
        if start + length > _END:
            return -errno.EINVAL
        return self._on_range(start, length, lambda at, size: _madvise(at, size, advice))

    def brk(self, address: int) -> int:
        """Set the program's break, and return it: where it was, if it cannot be there."""
        self._adopt_growth()
        if self._break is None:
            self._break = self._make_break()
        now, end = self._break.now, self._break.end
        if not self._break.start <= address <= end:
            return now
        old, new = _round_up(now), _round_up(address)
        prot = _BOTH if new > old else self._nothing
        low, high = min(old, new), max(old, new)
        if low < high and self._over(low, high - low, prot, _FRESH, -1, 0) < 0:
            return now
        self._break.now = address
        return address

    # --- inside -----------------------------------------------------------------------------------

    def _on_range(
        self, start: int, length: int, call: Callable[[int, int], int], *, until: bool = False
    ) -> int:
        """Do it to all of a range that is mapped, or ``until`` the first hole, as the kernel does.

        ENOMEM where there is one.
        """
        end = start + _round_up(length)
        used = self._free.used(start, min(end, self.memory.size())) if start else []
        for low, high in used:
            if until and low > start:
                break
            if result := _checked(call(self.memory.base + low, high - low)):
                return result
        return 0 if used == [(start, end)] or start == end else -errno.ENOMEM

    def _is_mapped(self, start: int, end: int) -> bool:
        """Is all of a range the program's?  Address 0 is NULL, where nothing is for anybody."""
        return start > 0 and end <= self.memory.size() and not self._free.touches(start, end)

    def _over(self, start: int, size: int, prot: int, flags: int, host: int, offset: int) -> int:
        """Put a mapping over a part of the memory, in one step.

        The kernel may have unmapped what was there before it finds that it cannot: then, and only
        then, there is room for a mapping that replaces nothing.
        """
        at = self.memory.base + start
        result = _checked(_mmap(at, size, prot, flags | MAP_FIXED, host, offset))
        if result < 0:
            self._fill(at, size)
        return result

    def _unmap(self, start: int, end: int) -> int:
        if start >= end:
            return 0  # nothing was there
        flags = _FRESH | MAP_NORESERVE
        result = self._over(start, end - start, self._nothing, flags, -1, 0)
        if result == 0:
            self._free.add(max(start, PAGE), end)  # NULL is given to nobody
        return result

    def _place(self, hint: int, size: int, flags: int) -> int:
        """Where a mapping goes; -errno where it cannot."""
        if flags & _PLACING:
            return self._fixed(hint, size, flags)
        wanted = hint // PAGE * PAGE
        if wanted and self._is_free(wanted, wanted + size):
            return wanted
        start = self._free.find(size)
        if start is not None:
            return start
        while True:
            start = self._free.start_of_last(self._known)  # behind everything, after some growth
            if not self._reach(start + size):
                return self._no_room()
            if self._free.holds(start, start + size):
                return start

    def _no_room(self) -> int:
        if self._allowed() >= self.memory.most:
            self._exceed()
        return -errno.ENOMEM

    def _is_free(self, start: int, end: int) -> bool:
        """Can a mapping go there without replacing anything?  The memory may have to grow."""
        if start < self._known and not self._free.holds(start, min(end, self._known)):
            return False
        return end <= self._known or (self._reach(end) and self._free.holds(start, end))

    def _fixed(self, start: int, size: int, flags: int) -> int:
        end = start + size
        if start % PAGE:
            return -errno.EINVAL
        if start == 0:
            return -errno.EPERM  # as below vm.mmap_min_addr
        if end > self._known and not self._reach(end):
            return self._no_room()
        if flags & MAP_FIXED_NOREPLACE and not self._free.holds(start, end):
            return -errno.EEXIST
        return start

    def _reach(self, end: int) -> bool:
        """Have the memory reach to ``end`` at least; what is added is free.

        Not all that is new has been added here: another thread may grow the memory meanwhile, and
        what it gets is the program's.
        """
        if end > min(self.memory.most, self._allowed()):
            return False
        self._adopt_growth()
        missing = _round_up(end, WASM_PAGE) - self._known
        if missing <= 0:
            return True
        before = self.memory.grow(missing // WASM_PAGE)
        if before < 0:
            return False
        self._known = before + missing
        self._free.add(before, self._known)
        return True

    def _adopt_growth(self) -> None:
        """What the program has grown by itself, with memory.grow, is its own."""
        self._known = max(self._known, self.memory.size())

    def _resize(self, old: int, old_size: int, new_size: int, flags: int) -> int:
        end = old + old_size
        if 0 < new_size <= old_size:
            result = self._unmap(old + new_size, end)
            return old if result == 0 else result
        if old_size and self._is_free(end, old + new_size):
            return self._move(old, old_size, new_size, old, flags)
        if not flags & MREMAP_MAYMOVE:
            return -errno.ENOMEM  # it could have it elsewhere
        target = self._place(0, new_size, 0)
        return target if target < 0 else self._move(old, old_size, new_size, target, flags)

    def _target(self, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
        """Where MREMAP_FIXED or MREMAP_DONTUNMAP puts a mapping."""
        if not flags & MREMAP_FIXED:
            return self._place(new, new_size, 0)
        if new < old + old_size and old < new + new_size:
            return -errno.EINVAL
        return self._fixed(new, new_size, 0)

    def _move(self, old: int, old_size: int, new_size: int, new: int, flags: int) -> int:
        """Move the pages, and more of them where they are to be.

        DONTUNMAP keeps the old place mapped: no hole, not for a moment.
        """
        base, kept = self.memory.base, min(old_size, new_size)
        if kept == new_size:
            result = self._bring(base + old, kept, new, MREMAP_DONTUNMAP)
        else:
            result = self._move_larger(old, kept, new_size, new)
        if result < 0:
            return result
        if new != old and old_size and not flags & MREMAP_DONTUNMAP:
            self._unmap(old, old + old_size)
        self._free.remove(new, new + new_size)
        return new

    def _move_larger(self, old: int, kept: int, size: int, new: int) -> int:
        """To become larger, pages go out of linear memory, where the kernel finds room for more.

        Where it finds none, or cannot bring them back in, they return to where they were.
        """
        if not kept:
            return self._map_twice(old, size, new)
        ballast = _Ballast()
        try:
            return ballast.result or self._by_way_of(ballast, old, kept, size, new)
        finally:
            ballast.drop()

    def _by_way_of(self, ballast: _Ballast, old: int, kept: int, size: int, new: int) -> int:
        keeping = MREMAP_MAYMOVE | MREMAP_DONTUNMAP
        aside = _mremap(self.memory.base + old, kept, kept, keeping, None)
        result = _checked(aside)
        if result < 0:
            return result
        larger = _mremap(aside, kept, size, MREMAP_MAYMOVE, None)
        result = _checked(larger)
        if result == 0:
            result = self._bring(larger, size, new)
            if result == 0:
                return 0
            aside = larger
            _munmap(aside + kept, size - kept)
        ballast.drop()
        if self._bring(aside, kept, old) < 0:
            raise MemoryError("mremap: the kernel does not bring pages back into linear memory")
        return result

    def _map_twice(self, old: int, size: int, new: int) -> int:
        twin = _mremap(self.memory.base + old, 0, size, MREMAP_MAYMOVE, None)
        result = _checked(twin)
        if result == 0:
            result = self._bring(twin, size, new)
            if result < 0:
                _munmap(twin, size)
        return result

    def _bring(self, host: int, size: int, to: int, flags: int = 0) -> int:
        """Move pages to a place in the memory, over what is there.

        As for ``_over``: the kernel may find that it cannot when that is unmapped already.
        """
        at = self.memory.base + to
        result = _checked(_mremap(host, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | flags, at))
        if result < 0:
            self._fill(at, size)
        return result

    def _fill(self, at: int, size: int) -> None:
        _mmap(at, size, self._nothing, _FRESH | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0)

    def _make_break(self) -> Break:
        """Room for the break: some of the memory, since what is behind it is mapped soon."""
        room = min(_BREAK_ROOM, (self.memory.most - self._known) // 8) // PAGE * PAGE
        start = self._place(0, room, 0) if room else -errno.ENOMEM
        if start < 0 or self._over(start, room, self._nothing, _FRESH | MAP_NORESERVE, -1, 0) < 0:
            return Break(0, 0)
        self._free.remove(start, start + room)
        return Break(start, start + room)


class Break:
    """The program's break, between two addresses."""

    __slots__ = ("end", "now", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.now, self.end = start, start, end


class _Ballast:
    """Mappings that are there to be dropped: then a process can have so many others.

    It could not undo what it has begun where it had as many already as the kernel allows.
    ``result`` is 0, or -errno: it has.
    """

    _COUNT = 9  # mremap(2) may need six, and the outer ones can merge with others

    def __init__(self) -> None:
        size = self._COUNT * PAGE
        self._at = _mmap(None, size, PROT_NONE, _FRESH | MAP_NORESERVE, -1, 0)
        self.result = _checked(self._at)
        for i in range(1, self._COUNT, 2):
            if self.result == 0:
                self.result = _checked(_mprotect(self._at + i * PAGE, PAGE, PROT_READ))

    def drop(self) -> None:
        """Unmap it, once."""
        if self._at not in (0, _FAILED):
            _munmap(self._at, self._COUNT * PAGE)
        self._at = 0


class SharedMemory:
    """A shared memory that the host makes, for a program to import.  Freed by ``close``.

    It never moves from ``base``, from where all 4 GiB of addresses are reserved, and more: what is
    not memory of these is inaccessible, which the core relies on as the program's code does.
    """

    def __init__(self, engine: int, least: int, most: int) -> None:
        memorytype, pointer = c_void_p(), c_void_p()
        bridge.check(
            W["wasmtime_memorytype_new"](least, True, most, False, True, 16, byref(memorytype))
        )
        try:
            bridge.check(W["wasmtime_sharedmemory_new"](engine, memorytype, byref(pointer)))
        finally:
            W["wasm_memorytype_delete"](memorytype)
        self.pointer: int | None = pointer.value
        self.base: int = W["wasmtime_sharedmemory_data"](self.pointer)
        self.most = most * WASM_PAGE

    def linear(self) -> LinearMemory:
        """As the manager sees it."""
        return LinearMemory(self.base, self.size, self.grow, self.most)

    def size(self) -> int:
        """In bytes."""
        return int(W["wasmtime_sharedmemory_data_size"](self.pointer))

    def grow(self, pages: int) -> int:
        """By 64 KiB pages: its size before, in bytes.

        -1 where its maximum, or the machine's memory, does not allow it.
        """
        previous = c_uint64()
        error = W["wasmtime_sharedmemory_grow"](self.pointer, pages, byref(previous))
        if error:
            bridge.error_message(error)
        return -1 if error else previous.value * WASM_PAGE

    def close(self) -> None:
        """Drop the host's reference."""
        if self.pointer:
            W["wasmtime_sharedmemory_delete"](self.pointer)
            self.pointer = None
