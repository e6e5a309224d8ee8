"""The address space of a WALI program: mappings inside its linear memory.

mmap(2) and its kin are rare, so they are Python.  The rule that everything here serves: *never
leave a hole*.  Where the kernel had unmapped a piece of linear memory, the next mapping of the
host's could land there, inside the guest's reach.  So what the program unmaps becomes an
inaccessible anonymous mapping, and what it maps is put over one in a single call.
"""

from __future__ import annotations

import ctypes
import errno
from ctypes import byref, c_int, c_long, c_size_t, c_uint64, c_void_p

from wali_core import _bridge as bridge
from wali_core._bridge import W

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

PAGE: Final = 4096
WASM_PAGE: Final = 65536

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 0x10, 0x20
MAP_NORESERVE, MAP_POPULATE, MAP_STACK, MAP_FIXED_NOREPLACE = 0x4000, 0x8000, 0x20000, 0x100000
_HARMLESS: Final = MAP_NORESERVE | MAP_POPULATE | MAP_STACK
_PLACING: Final = MAP_FIXED | MAP_FIXED_NOREPLACE
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4

# NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED FREE: advice that changes no mapping.
_ADVICE: Final = frozenset((0, 1, 2, 3, 4, 8))

_libc = ctypes.CDLL(None, use_errno=True)


def _declared(name: str, result: object, *arguments: object) -> Callable[..., int]:
    function = getattr(_libc, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


_mmap = _declared("mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_mprotect = _declared("mprotect", c_int, c_void_p, c_size_t, c_int)
_mremap = _declared("mremap", c_void_p, c_void_p, c_size_t, c_size_t, c_int, c_void_p)
_msync = _declared("msync", c_int, c_void_p, c_size_t, c_int)
_madvise = _declared("madvise", c_int, c_void_p, c_size_t, c_int)
_FAILED: Final = c_void_p(-1).value


def _checked(result: int) -> int:
    return -ctypes.get_errno() if result in (-1, _FAILED) else 0


def _round_up(size: int, unit: int = PAGE) -> int:
    return -(-size // unit) * unit


class LinearMemory:
    """What the manager must know of a memory: where it is, its size, and how it grows."""

    def __init__(
        self, base: int, size: Callable[[], int], grow: Callable[[int], bool], most: int
    ) -> None:
        self.base, self.size, self.grow, self.most = base, size, grow, most


class FreeList:
    """Ranges that the program has unmapped, or never had: disjoint, sorted, never touching."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        """Give a range back.  It may touch free ones, and overlap them."""
        kept = []
        for low, high in self.ranges:
            if high < start or low > end:
                kept.append((low, high))
            else:
                start, end = min(low, start), max(high, end)
        kept.append((start, end))
        self.ranges = sorted(kept)

    def remove(self, start: int, end: int) -> None:
        """Take out whatever of a range is free."""
        kept = []
        for low, high in self.ranges:
            if low < start:
                kept.append((low, min(high, start)))
            if high > end:
                kept.append((max(low, end), high))
        self.ranges = sorted({piece for piece in kept if piece[0] < piece[1]})

    def holds(self, start: int, end: int) -> bool:
        """Is all of a range free?"""
        return any(low <= start and end <= high for low, high in self.ranges)

    def touches(self, start: int, end: int) -> bool:
        """Is any of a range free?"""
        return any(low < end and start < high for low, high in self.ranges)

    def find(self, size: int) -> int | None:
        """The lowest free range of this size, or None."""
        return next((low for low, high in self.ranges if high - low >= size), None)


class AddressSpace:
    """mmap, munmap, mremap, mprotect, msync and madvise; results as the kernel's, -errno included.

    ``host_of`` gives the host's descriptor for a guest's number, or -1.  ``own_process`` allows
    file mappings and protections: there a fault is the end of nobody else.
    """

    def __init__(
        self, memory: LinearMemory, host_of: Callable[[int], int], *, own_process: bool
    ) -> None:
        self._memory = memory
        self._host_of = host_of
        self._own_process = own_process
        self._free = FreeList()
        self._known = _round_up(memory.size())  # up to here, what is not free is the program's
        self._files: list[tuple[int, int]] = []  # mappings of files, which cannot be extended here

    # --- the calls --------------------------------------------------------------------------------

    def mmap(self, hint: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
        """Map memory or a file."""
        refused = self._refused(length, prot, flags, offset)
        if refused:
            return -refused
        self._adopt_growth()
        host = -1
        if not flags & MAP_ANONYMOUS:
            host = self._host_of(fd)
            if host < 0:
                return -errno.EBADF
        size = _round_up(length)
        start = self._place(hint, size, flags)
        if start < 0:
            return start
        kind = flags & (MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS | _HARMLESS)
        result = self._over(start, size, prot, kind, host, offset)
        if result < 0:
            return result  # what was there is there still, be it free or not
        self._taken(start, start + size, file=host >= 0)
        return start

    def _refused(self, length: int, prot: int, flags: int, offset: int) -> int:
        known = MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS | _HARMLESS | _PLACING
        if prot & PROT_EXEC:
            return errno.EPERM  # linear memory is never code
        if length == 0 or offset % PAGE or flags & 3 not in (MAP_SHARED, MAP_PRIVATE):
            return errno.EINVAL
        if flags & ~known or prot & ~7:
            return errno.EINVAL
        if not self._own_process and (not flags & MAP_ANONYMOUS or prot != PROT_READ | PROT_WRITE):
            return errno.ENOSYS
        return 0

    def munmap(self, start: int, length: int) -> int:
        """Unmap: the range becomes inaccessible, and free for the next mmap."""
        end = start + _round_up(length)
        if start % PAGE or length == 0 or end > self._memory.size():
            return -errno.EINVAL
        result = self._over(
            start, end - start, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
        )
        if result == 0:
            self._forget_files(start, end)
            self._free.add(start, end)
        return result

    def mremap(self, old: int, old_length: int, new_length: int, flags: int, new: int) -> int:
        """Resize or move a mapping.  A mapping of a file can shrink and move, but not grow."""
        old_size, new_size = _round_up(old_length), _round_up(new_length)
        if old % PAGE or not old_size or not new_size or flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED):
            return -errno.EINVAL
        if not self._is_mapped(old, old + old_size):
            return -errno.EFAULT
        self._adopt_growth()
        if flags & MREMAP_FIXED:
            return (
                self._move_to(old, old_size, new_size, new)
                if flags & MREMAP_MAYMOVE
                else -errno.EINVAL
            )
        if new_size <= old_size:
            shrunk = self.munmap(old + new_size, old_size - new_size) if new_size < old_size else 0
            return old if shrunk == 0 else shrunk
        if self._is_file(old, old + old_size):
            return -errno.ENOMEM
        if self._extend(old + old_size, new_size - old_size):
            return old
        if not flags & MREMAP_MAYMOVE:
            return -errno.ENOMEM
        target = self._place(0, new_size, 0)
        return target if target < 0 else self._move(old, old_size, new_size, target)

    def mprotect(self, start: int, length: int, prot: int) -> int:
        """Protect a range; never executable."""
        if start % PAGE or prot & ~7:
            return -errno.EINVAL
        if not self._own_process:
            return -errno.ENOSYS
        if prot & PROT_EXEC:
            return -errno.EACCES
        return self._on_range(start, length, lambda at, size: _mprotect(at, size, prot))

    def msync(self, start: int, length: int, flags: int) -> int:
        """Write a shared mapping back to its file."""
        if start % PAGE:
            return -errno.EINVAL
        return self._on_range(start, length, lambda at, size: _msync(at, size, flags))

    def madvise(self, start: int, length: int, advice: int) -> int:
        """Take advice that cannot change what is mapped."""
        if start % PAGE or advice not in _ADVICE:
            return -errno.EINVAL
        return self._on_range(start, length, lambda at, size: _madvise(at, size, advice))

    # --- inside -----------------------------------------------------------------------------------

    def _on_range(self, start: int, length: int, call: Callable[[int, int], int]) -> int:
        size = _round_up(length)
        if size and not self._is_mapped(start, start + size):
            return -errno.ENOMEM
        return _checked(call(self._memory.base + start, size)) if size else 0

    def _is_mapped(self, start: int, end: int) -> bool:
        """Is all of a range the program's?  Address 0 is NULL, where nothing is for anybody."""
        return start > 0 and end <= self._memory.size() and not self._free.touches(start, end)

    def _over(self, start: int, size: int, prot: int, flags: int, host: int, offset: int) -> int:
        """Put a mapping over a part of the memory, in one step."""
        at = self._memory.base + start
        return _checked(_mmap(at, size, prot, flags | MAP_FIXED, host, offset))

    def _place(self, hint: int, size: int, flags: int) -> int:
        """Where a mapping goes; -errno where it cannot."""
        if flags & _PLACING:
            return self._fixed(hint, size, flags)
        start = self._free.find(size)
        if start is not None:
            return start
        return self._at_end(size)

    def _fixed(self, start: int, size: int, flags: int) -> int:
        end = start + size
        if start % PAGE or start == 0:
            return -errno.EINVAL
        if end > self._known and not self._reach(end):
            return -errno.ENOMEM
        if flags & MAP_FIXED_NOREPLACE and not self._free.holds(start, end):
            return -errno.EEXIST
        return start

    def _at_end(self, size: int) -> int:
        """Behind everything, after as much growth as it takes."""
        start = self._known
        ranges = self._free.ranges
        if ranges and ranges[-1][1] == self._known:
            start = ranges[-1][0]
        return start if self._reach(start + size) else -errno.ENOMEM

    def _reach(self, end: int) -> bool:
        missing = _round_up(end, WASM_PAGE) - self._memory.size()
        if end > self._memory.most or (missing > 0 and not self._memory.grow(missing // WASM_PAGE)):
            return False
        self._free.add(self._known, self._memory.size())
        self._known = self._memory.size()
        return True

    def _adopt_growth(self) -> None:
        """What the program has grown by itself, with memory.grow, is its own."""
        self._known = max(self._known, self._memory.size())

    def _taken(self, start: int, end: int, *, file: bool) -> None:
        self._free.remove(start, end)
        self._forget_files(start, end)
        if file:
            self._files.append((start, end))

    def _forget_files(self, start: int, end: int) -> None:
        rest = []
        for low, high in self._files:
            rest += (
                [(low, min(high, start)), (max(low, end), high)]
                if low < end and high > start
                else [(low, high)]
            )
        self._files = [piece for piece in rest if piece[0] < piece[1]]

    def _is_file(self, start: int, end: int) -> bool:
        return any(low < end and high > start for low, high in self._files)

    def _extend(self, start: int, size: int) -> bool:
        """Grow a mapping of plain memory where it is."""
        end = start + size
        if start == self._known and not self._reach(end):
            return False
        if not self._free.holds(start, end):
            return False
        if self._over(start, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) < 0:
            return False
        self._taken(start, end, file=False)
        return True

    def _move_to(self, old: int, old_size: int, new_size: int, new: int) -> int:
        if new < old + old_size and old < new + new_size:
            return -errno.EINVAL
        target = self._fixed(new, new_size, 0)
        if target >= 0 and new_size > old_size and self._is_file(old, old + old_size):
            return -errno.ENOMEM
        return target if target < 0 else self._move(old, old_size, new_size, target)

    def _move(self, old: int, old_size: int, new_size: int, new: int) -> int:
        """Move the pages.  DONTUNMAP keeps the old place mapped: no hole, not for a moment."""
        kept = min(old_size, new_size)
        base = self._memory.base
        flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP
        result = _checked(_mremap(base + old, kept, kept, flags, base + new))
        if result == 0 and new_size > kept:
            anonymous = MAP_PRIVATE | MAP_ANONYMOUS
            result = self._over(
                new + kept, new_size - kept, PROT_READ | PROT_WRITE, anonymous, -1, 0
            )
        if result < 0:
            return result
        file = self._is_file(old, old + old_size)
        self._taken(new, new + new_size, file=file)
        self.munmap(old, old_size)
        return new


class SharedMemory:
    """A shared memory that the host makes, for a program to import.  Freed by ``close``."""

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
        self.most = most * WASM_PAGE

    def linear(self) -> LinearMemory:
        """As the manager sees it.  A shared memory never moves."""
        base: int = W["wasmtime_sharedmemory_data"](self.pointer)
        return LinearMemory(base, self.size, self.grow, self.most)

    def size(self) -> int:
        """In bytes."""
        return int(W["wasmtime_sharedmemory_data_size"](self.pointer))

    def grow(self, pages: int) -> bool:
        """By 64 KiB pages.  False where its maximum, or the machine's memory, does not allow it."""
        previous = c_uint64()
        error = W["wasmtime_sharedmemory_grow"](self.pointer, pages, byref(previous))
        if error:
            bridge.error_message(error)
        return not error

    def close(self) -> None:
        """Drop the host's reference."""
        if self.pointer:
            W["wasmtime_sharedmemory_delete"](self.pointer)
            self.pointer = None
