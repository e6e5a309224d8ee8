"""Call the functions of a module that is no program, and survive its mistakes.

python -m examples.04_library.checksum
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path

from examples._common import expect, guest, run, say
from wali_core import GuestTrap, Runtime

CALLS = 1000


def main() -> None:
    """Compare a checksum with Python's own, many times, then give it a length that is a lie."""
    library = guest(Path(__file__).with_name("checksum.c"), target="wasm32-freestanding")
    data = b"the quick brown fox jumps over the lazy dog"
    with Runtime() as runtime, runtime.instantiate(library) as checksum:
        buffer = checksum.call("buffer")
        checksum.memory.write(buffer, data)
        result = checksum.call("crc32", len(data)) % 2**32
        expect(result == zlib.crc32(data), "another checksum than Python's")
        say(f"crc32 in the guest: {result:#x}, in Python: {zlib.crc32(data):#x}")
        start = time.perf_counter()
        for _ in range(CALLS):
            checksum.call("crc32", len(data))
        each = (time.perf_counter() - start) / CALLS
        say(f"{CALLS} calls: {each * 1e6:.1f} µs each")
        try:
            checksum.call("crc32", 2**32 - 1)
        except GuestTrap as trap:
            say(f"crc32 of 4 GiB: the guest trapped ({trap}); this process goes on")
        else:
            expect(False, "it has read beyond its memory")


if __name__ == "__main__":
    run(main)
