"""Races: somebody changes the shim's memory while its calls are being checked.

Run as a module, this one prints how many of a number of rounds a core lost, as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import struct
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.escape.evil import BOX, EvilHost, Worlds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.evil import Evil

VARIABLE = "WALI_RACES"
ATTEMPTS = int(os.environ.get(VARIABLE, "0"))
"""How often each race is run at least: 0 is for as long as a short test may take."""

ROUNDS = 3
TRIES = max(20_000, ATTEMPTS // ROUNDS + 1)
"""Calls in a round that get past the core's checks, unless one gives a descriptor before."""


@contextmanager
def flipping(evil: Evil, address: int, good: bytes, bad: bytes) -> Iterator[None]:
    """Write the one and the other in turn, as fast as it goes, in another thread."""
    target = evil.memory._at(address, len(good))
    done = threading.Event()

    def flip() -> None:
        copy, size = ctypes.memmove, len(good)
        while not done.is_set():
            for _ in range(64):
                copy(target, bad, size)
                copy(target, good, size)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _stole(evil: Evil, fd: int) -> bool:
    evil.take(fd)
    if fd >= 0:
        evil.call("close", fd)
    return evil.has_read


def resolve_flipped(evil: Evil) -> bool:
    """The path leads out, and `resolve` says sometimes that it must not."""
    path, how = evil.arena, evil.arena + 4096
    good, bad = struct.pack("<3Q", 0, 0, 0x0A), struct.pack("<3Q", 0, 0, 0)
    evil.memory.write(path, b"../outside/secret\0")
    with flipping(evil, how, good, bad):
        fd = evil.guest.call("race_openat2", BOX, path, how, TRIES, timeout=60)
    return _stole(evil, fd)


def component_flipped(evil: Evil) -> bool:
    """The name is sometimes one component (of no file), and sometimes a path that leads out."""
    good, bad = b"...outside.secret\0", b"../outside/secret\0"
    with flipping(evil, evil.arena, good, bad):
        fd = evil.guest.call("race_openat", BOX, evil.arena, os.O_RDONLY, TRIES, timeout=60)
    return _stole(evil, fd)


RACES = {"resolve_flipped": resolve_flipped, "component_flipped": component_flipped}


def lost(host: EvilHost, folder: Path) -> dict[str, int]:
    """In how many rounds each race was lost by the core."""
    worlds = Worlds(folder)
    found = {}
    for name, race in RACES.items():
        found[name] = 0
        for _ in range(ROUNDS):
            with worlds.lend() as world, host.enter(world) as evil:
                found[name] += race(evil)
    worlds.close()
    return found


def main() -> None:
    """Race against the core at a path."""
    from wali_core._bridge import Core

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("core", type=Path)
    parser.add_argument("shim", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        host = EvilHost(arguments.shim, Core(str(arguments.core)))
        json.dump(lost(host, Path(folder)), sys.stdout)


if __name__ == "__main__":
    main()
