"""The evil shim makes any calls in any order: whatever it gets, it is nothing from outside."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import hypothesis
from hypothesis import strategies as st

from tests.escape.evil import BOX, DATA, IOVEC, SHELF, TOKEN, WAYS_OUT, allow_list
from wali_core import GuestExit, GuestTimeout
from wali_core._table import AUXILIARY, CALLS

if TYPE_CHECKING:
    from tests.escape.evil import Evil, EvilHost, Worlds

KINDS = {("wali", f"SYS_{call.name}"): call.arguments.split() for call in CALLS}
KINDS |= {("wali_guest", f"SYS_{call.name}"): call.arguments.split() for call in CALLS}
KINDS |= {(row[0], row[1]): row[2].split() for row in AUXILIARY}
LISTED = sorted(allow_list())

NAMES = [b"file", b"dir", b".", b"..", b"", b"new", b"book", b"dir/book", b"empty", b"dir/.."]
NAMES += [b"../outside/secret", b"../outside/new", b"../shelf/book", b"../box/file", b"/etc/passwd"]
NAMES += [name.encode() for name in WAYS_OUT] + [b"absolute", b"outdir/secret", b"outdir/", b"dir/"]
RESOLVES = [0, 0x02, 0x08, 0x0A, 0x0B, 0x0E, 0x10, 0x12, 0x1A]
OPENS = [0, os.O_WRONLY, os.O_RDWR, 3, os.O_PATH, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_TRUNC]
OPENS += [os.O_CREAT, os.O_CREAT | os.O_RDWR, os.O_CREAT | os.O_EXCL, os.O_PATH | os.O_NOFOLLOW]
OPENS += [os.O_PATH | os.O_DIRECTORY, 0o20200002, os.O_NONBLOCK | os.O_RDWR, os.O_APPEND]
AT = [0, 0x100, 0x200, 0x400, 0x800, 0x1000, 0x1400, 0x1100]
LISTS = [0, 1, 2, 3, 4, 6, 8, 1026, 1030, 1035, 0x5401, 0x5412, 0x541B, 0x5421, 0x5451]

# Where strings and structs lie, as offsets in the shim's arena.
STRING, HOW, TIMES, POLL, BUFFER = 0, 16384, 20480, 24576, 32768

FD = st.sampled_from([0, 1, 2, BOX, SHELF, 5, 6, 7, 8, -1, -100, 200, 201, 202])
POINTER = st.sampled_from([HOW, TIMES, POLL, BUFFER, BUFFER + 64])
NAME = st.integers(0, len(NAMES) - 1).map(lambda index: STRING + 256 * index)
INT = st.sampled_from([*OPENS, *AT, *LISTS])
UINT = st.sampled_from([0, 8, 24, 64, 0o600, 144])
LONG = st.sampled_from([-1, 0, 1, 10, 4096])


@st.composite
def any_call(draw: st.DrawFn) -> tuple[str, list[int], list[int]]:
    """A call, its arguments, and which of them are offsets in the arena."""
    module, name = draw(st.sampled_from(LISTED))
    arguments, offsets = [], []
    for position, kind in enumerate(KINDS[module, name]):
        if kind.rstrip("!") in ("fd", "dirfd"):
            arguments.append(draw(FD))
        elif kind in ("path", "target"):
            arguments.append(draw(NAME))
            offsets.append(position)
        elif kind.startswith("mem") or kind == "ptr":
            guests = module == "wali_guest"
            arguments.append(draw(st.sampled_from([IOVEC, DATA])) if guests else draw(POINTER))
            offsets += [] if guests else [position]
        elif kind == "long":
            arguments.append(draw(LONG))
        else:
            arguments.append(draw(UINT if kind == "uint" else INT))
    return f"{module}.{name}", arguments, offsets


def prepare(evil: Evil, flags: int, resolve: int) -> None:
    """Put the strings and structs to where the calls expect them."""
    for index, name in enumerate(NAMES):
        evil.memory.write(evil.arena + STRING + 256 * index, name + b"\0")
    evil.memory.write(evil.arena + HOW, struct.pack("<3Q", flags, 0o600, resolve))
    evil.memory.write(evil.arena + TIMES, struct.pack("<4q", 5, 0, 5, 0))
    evil.memory.write(evil.arena + POLL, struct.pack("<ihhihh", BOX, 1, 0, 1, 4, 0))
    evil.guest.memory.write(IOVEC, struct.pack("<2I", DATA, 64))
    evil.guest.memory.write(DATA, b"evil" * 16)


@hypothesis.given(
    calls=st.lists(any_call(), min_size=1, max_size=20),
    flags=st.sampled_from(OPENS),
    resolve=st.sampled_from(RESOLVES),
)
@hypothesis.settings(max_examples=150)
def test_any_calls_stay_inside(
    evil_host: EvilHost,
    worlds: Worlds,
    calls: list[tuple[str, list[int], list[int]]],
    flags: int,
    resolve: int,
) -> None:
    """Nothing outside changes, the secret is in neither memory, and the process lives on."""
    with worlds.lend() as world, evil_host.enter(world) as evil:
        prepare(evil, flags, resolve)
        for name, arguments, offsets in calls:
            values = [
                value + evil.arena if position in offsets else value
                for position, value in enumerate(arguments)
            ]
            try:
                evil.guest.call(name, *values, timeout=0.05)
            except (GuestExit, GuestTimeout):  # it ended itself, or waits for something
                break
        else:
            assert TOKEN not in evil.memory.read(0, evil.memory.size)
            assert TOKEN not in evil.guest.memory.read(0, evil.guest.memory.size)
        assert not world.changed
