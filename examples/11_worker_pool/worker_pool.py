"""A pool of threads that computes until it is told to stop, and then ends in order.

python -m examples.11_worker_pool.worker_pool
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from examples._common import ROOT, expect, run, say, wali_program

HERE = Path(__file__).parent
WORKERS = 4
BLOCK = 5000


def main() -> None:
    """Stop it when every worker has finished a block; what it has counted is right."""
    program = wali_program(HERE / "worker_pool.c")
    say("$ wali run worker_pool.wasm &  # without a grant: it only computes")
    with subprocess.Popen(
        [sys.executable, "-m", "wali_core", "run", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as pool:
        assert pool.stdout is not None  # noqa: S101
        threads = {show(pool.stdout.readline()).split()[1] for _ in range(WORKERS)}
        say("$ kill -TERM $!")
        pool.send_signal(signal.SIGTERM)
        rest = show(pool.stdout.read())

    handled, blocks, primes = rest.splitlines()
    expect(pool.returncode == 0, f"it ended with {pool.returncode}")
    expect(len(threads) == WORKERS, "some threads were the same")
    expect("signal 15" in handled, "no handler has run")
    numbers = int(blocks.split()[0]) * BLOCK
    expect(int(primes.split()[0]) == primes_below(numbers), "it has lost or repeated a block")


def show(text: str) -> str:
    """Print what the program has said."""
    say(text.rstrip())
    return text


def primes_below(end: int) -> int:
    """How many there are, by another way."""
    sieve = bytearray([1]) * end
    sieve[:2] = bytes(2)
    for number in range(2, int(end**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, end, number)))
    return sum(sieve)


if __name__ == "__main__":
    run(main)
