"""Enlarge mappings of a program while its process has nearly as many as the kernel allows.

Run as a module, since whoever does so can do little else.  It prints which steps of each
attempt the kernel has taken (``+``) and refused (``-``).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
from contextlib import closing

from tests.wali.test_address_space import BOTH, FIXED, MAYMOVE, MOST_MAPPINGS, NEW, World, mappings
from wali_core import _bridge as bridge
from wali_core._engine import DEFAULT_STACK, Engine
from wali_core.programs import _memory
from wali_core.programs._memory import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PAGE, PROT_READ

SLACK = 64  # what it takes to make a memory and look at it
_KERNELS = _memory._mremap
OLD, ENLARGED = 4 * PAGE, 8 * PAGE


class Crowd:
    """Many mappings, each of one page; behind them is one large."""

    def __init__(self) -> None:
        self._pages = mmap.mmap(-1, (MOST_MAPPINGS + 2) * PAGE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self._count = 0

    def add(self, count: int) -> int:
        """Make so many more, or fewer; how many it were, where no more can be had."""
        for done in range(abs(count)):
            here = self._count + (count > 0)
            kind = here if count > 0 else here - 1
            at, rest = self._base + here * PAGE, (MOST_MAPPINGS + 2 - here) * PAGE
            if _memory._mprotect(at, rest, (BOTH, PROT_READ)[kind % 2]) < 0:
                return done
            self._count += 1 if count > 0 else -1
        return count


class Steps:
    """The kernel's mremap(2), before one of whose calls the process gets all that it can have."""

    def __init__(self, crowd: Crowd, full_at: int) -> None:
        self._crowd, self._full_at = crowd, full_at
        self.results: list[int] = []
        self.added = 0

    def __call__(self, *arguments: int) -> int:
        """Make the call."""
        if len(self.results) == self._full_at:
            self.added = self._crowd.add(MOST_MAPPINGS)
        result = _KERNELS(*arguments)
        self.results.append(0 if result == _memory._FAILED else result)
        return result

    def __str__(self) -> str:
        return "".join("-+"[place > 0] for place in self.results)


def main() -> None:
    """Fail at each step of each way to become larger."""
    engine = Engine(bridge.core, DEFAULT_STACK)
    crowd = Crowd()
    crowd.add(MOST_MAPPINGS)
    crowd.add(-SLACK)
    for name in ("elsewhere", "to a place", "twice"):
        for full_at in range(4):  # it has three steps, or two
            with closing(World(engine)) as world:
                at, behind = two(world, MAP_SHARED if name == "twice" else MAP_PRIVATE)
                place = at + 40 * PAGE if name == "to a place" else 0
                flags = MAYMOVE | FIXED if place else MAYMOVE
                old_size = 0 if name == "twice" else OLD
                steps = _memory._mremap = Steps(crowd, full_at)
                result = world.space.mremap(at, old_size, ENLARGED, flags, place)
                crowd.add(-steps.added)
                assert result > 0 or result == -errno.ENOMEM
                where = at if result < 0 else result
                assert (world.byte(where), world.byte(behind)) == (7, 8)
                assert world.holes() == []
                inside = range(world.memory.base, world.memory.base + (4 << 30))
                outside = [host for host in steps.results if host and host not in inside]
                assert not any(start <= host < end for host in outside for start, end in mappings())
            sys.stdout.write(f"{name}: {steps}\n")


def two(world: World, kind: int) -> tuple[int, int]:
    """Map one that has another right behind it, each with a byte in it."""
    at = world.space.mmap(0, OLD, BOTH, kind | MAP_ANONYMOUS, -1, 0)
    behind = world.space.mmap(0, OLD, BOTH, NEW, -1, 0)
    assert behind == at + OLD
    world.put(at, 7)
    world.put(behind, 8)
    return at, behind


if __name__ == "__main__":
    main()
