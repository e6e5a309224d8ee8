"""End a program when its time is up, whatever it is doing.

python -m examples.03_timeout.wait
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from examples._common import expect, guest, run, say
from wali_core import GuestTimeout, Runtime

WAYS = {
    "read": "waits for input that never comes",
    "sleep": "sleeps for an hour",
    "compute": "counts for ever",
}
SECONDS = 0.1
PATIENCE = 1.0  # on a machine that is busy; otherwise it takes a few milliseconds


def main() -> None:
    """Give each way a tenth of a second."""
    program = guest(Path(__file__).with_name("wait.c"))
    silent, writer = os.pipe()
    with Runtime() as runtime:
        module = runtime.load(program)
        for way, what in WAYS.items():
            start = time.monotonic()
            try:
                runtime.run_sync(module, args=[way], stdin=silent, timeout=SECONDS)
            except GuestTimeout:
                late = time.monotonic() - start - SECONDS
            else:
                late = -1.0
            expect(0 <= late < PATIENCE, f"a guest that {what}: {late:.3f} s")
            say(f"a guest that {what}: ended {late * 1e3:.1f} ms after its {SECONDS * 1e3:.0f} ms")
    os.close(silent)
    os.close(writer)


if __name__ == "__main__":
    run(main)
