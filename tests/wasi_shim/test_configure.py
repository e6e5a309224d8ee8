"""The configuration, as the shim reads it: whatever it is, nothing outside of it is looked at."""

from __future__ import annotations

import errno
import struct

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

import wasi_shim

GOOD = wasi_shim.abi.configuration(
    [b"prog", b"one"], [b"A=1"], [(3, b"/", False), (4, b"data", True)]
)


class Shim:
    """A shim without a core: it can be configured, and nothing else."""

    engine = wasmtime.Engine()
    module = wasmtime.Module.from_file(engine, wasi_shim.abi.path())

    def __init__(self) -> None:
        self.store = wasmtime.Store(self.engine)
        linker = wasmtime.Linker(self.engine)
        linker.define_unknown_imports_as_traps(self.module)
        self.exports = linker.instantiate(self.store, self.module).exports(self.store)

    def _call(self, name: str, *values: int) -> int:
        function = self.exports[name]
        assert isinstance(function, wasmtime.Func)
        return int(function(self.store, *values))

    def allocate(self, size: int) -> int:
        """Return the address of new memory."""
        return self._call("wasi_allocate", size) & 0xFFFFFFFF

    def configure(self, blob: bytes) -> int:
        """Hand a configuration over."""
        memory = self.exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        address = self.allocate(len(blob))
        memory.write(self.store, blob, address)
        return self._call("wasi_configure", address, len(blob))


def with_word(index: int, value: int) -> bytes:
    """Return the good configuration with another word in its header."""
    words = list(struct.unpack("<12I", GOOD[:48]))
    words[index] = value
    return struct.pack("<12I", *words) + GOOD[48:]


def test_a_good_one_is_taken() -> None:
    """0, and no call of the core is needed for it."""
    assert Shim().configure(GOOD) == 0


BAD = {
    **{f"cut to {size} bytes": GOOD[:size] for size in range(0, len(GOOD), 4)},
    **{
        f"word {index} is {value}": with_word(index, value)
        for index in range(6)
        for value in (99, 2**31, 2**32 - 1)
    },
    "version 0": with_word(0, 0),
    "version 1": with_word(0, 1),
    "one preopen too many": with_word(5, 3),
    "another clock": with_word(7, 3),
    "an endless name": GOOD[:-8] + struct.pack("<I", 2**32 - 1) + GOOD[-4:],
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_one_is_refused(what: str) -> None:
    """Another version, cut short, or counts that do not fit: EINVAL."""
    assert Shim().configure(BAD[what]) == errno.EINVAL


def test_a_descriptor_beyond_all_reason() -> None:
    """A table for it is not made."""
    blob = wasi_shim.abi.configuration([], [], [(2**32 - 1, b"/", False)])

    assert Shim().configure(blob) == errno.ENOMEM


def mutations() -> st.SearchStrategy[bytes]:
    """Configurations with a few bytes changed and a piece cut off."""

    def mutate(changes: dict[int, int], cut: int) -> bytes:
        data = bytearray(GOOD)
        for position, byte in changes.items():
            data[position] = byte
        return bytes(data[: len(data) - cut])

    positions = st.integers(0, len(GOOD) - 1)
    changes = st.dictionaries(positions, st.integers(0, 255), max_size=4)
    return st.builds(mutate, changes, st.integers(0, len(GOOD)))


@given(mutations())
def test_nothing_traps(blob: bytes) -> None:
    """Any bytes at all are taken or refused."""
    assert Shim().configure(blob) in (0, errno.EINVAL, errno.ENOMEM)


def test_there_is_room_for_a_small_one() -> None:
    """A constant says where 1,024 bytes are ready, which are nobody else's."""
    shim = Shim()
    room = shim.exports["wasi_room"]
    assert isinstance(room, wasmtime.Global)
    address = room.value(shim.store)

    assert not room.type(shim.store).mutable
    assert address % 8 == 0
    assert 0 < address < address + 1024 <= shim.allocate(1)


def test_memory_is_aligned_apart_and_grows() -> None:
    """Allocations do not overlap, also beyond the first page, and 0 says that there is no more."""
    shim = Shim()
    sizes = [1, 15, 16, 17, 100_000, 1]

    addresses = [shim.allocate(size) for size in sizes]

    assert all(address % 16 == 0 for address in addresses)
    for address, size, following in zip(addresses, sizes, addresses[1:], strict=False):
        assert address + size <= following
    assert shim.allocate(2**32 - 1) == 0
    assert shim.allocate(16) > addresses[-1]
