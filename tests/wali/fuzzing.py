"""Calls that Python serves, with arguments that nobody would give: run in a process of its own.

    python -m tests.wali.fuzzing PROGRAM SEED CALLS

Every call answers with a number, and nothing is raised: the guest gets an errno, or its wish.  What
it maps, protects and writes lies in its own memory: pages of the host's right beside that, and all
mappings that there were, are as before.  A line at the end counts the calls that succeeded.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import resource
import sys
from typing import TYPE_CHECKING

from wali_core import Runtime
from wali_core._bridge import ValRaw
from wali_core._grants import Grants
from wali_core._plan import Plan
from wali_core._stdio import Streams
from wali_core.programs._calls import AT_FDCWD
from wali_core.programs._memory import PAGE

if TYPE_CHECKING:
    from typing import Any

    from wali_core.programs._program import Program

LEFT_OUT = {
    "alarm": "the core's own, no guest's",
    "__wasm_thread_spawn": "a thread with a wild function traps, which ends the process",
    "longjmp": "raises on purpose",
    "SYS_rt_sigtimedwait": "waits for as long as it is told: for ever, if anything may say so",
    "SYS_setpriority": "changes that of all processes of its user, this one's or not",
}
LIMITS = {"SYS_setrlimit": 0, "SYS_prlimit64": 1}  # which argument says of what
HARMLESS = (4, 7, 8, 10, 11, 12, 13, 14, 15, 16, -1, 1 << 31)
"""Limits by which no process ends (getrlimit(2)): not of computing time, or memory."""
GUARD = 64 << 20  # bytes around linear memory that are the guest's as well: nothing lies there
SIGNED = 1 << 63


def number(dice: random.Random, size: int) -> int:
    """Something to call with: a flag, an address, a size, a descriptor, or any bits."""
    kind = dice.randrange(9)
    if kind == 0:
        return dice.choice((0, 1, 2, 3, -1, AT_FDCWD, 8, 16, PAGE, size, size - 1))
    if kind == 1:
        return dice.randrange(0, size + 16 * PAGE, PAGE)
    if kind in (2, 3):
        return dice.randrange(size)
    if kind == 4:
        return 1 << dice.randrange(64)
    if kind == 5:
        return (1 << dice.choice((16, 31, 32, 63))) - dice.randrange(3)
    if kind == 6:
        return dice.randrange(64)
    return dice.getrandbits(dice.choice((8, 16, 32, 64)))


def mappings(program: Program) -> set[tuple[str, str]]:
    """Where the host has files and libraries mapped, and how; but for the guest's own."""
    memory = program._space.memory  # type: ignore[union-attr]
    first, last = memory.base - GUARD, memory.base + (1 << 32) + GUARD
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps]
    return {
        (words[0], words[1])
        for words in lines
        if len(words) > 5
        and words[5].startswith("/")
        and not first <= int(words[0].partition("-")[0], 16) < last
    }


def prepared(path: str) -> Program:
    """Return the program, started in this process and not run."""
    runtime = Runtime(allow_all=True, cache=False)
    module = runtime.load(path)
    streams = Streams(None, None, None, capture=False, limit=0)
    return runtime._start_program(Plan(module, Grants(), streams))


def call(program: Program, index: int, arguments: list[int]) -> int:
    """Make a call as the core makes it."""
    values: Any = (ValRaw * 6)()
    for value, argument in zip(values, arguments, strict=True):
        value.i64 = (argument + SIGNED) % (2 * SIGNED) - SIGNED
    return program._host(program.address, index, ctypes.addressof(values))


def main(path: str, seed: int, calls: int) -> None:
    """Make so many calls.  Raises ``AssertionError`` where one did what it must not."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    dice = random.Random(seed)  # noqa: S311 - it is to be the same for the same seed
    program = prepared(path)
    sentinel = mmap.mmap(-1, PAGE)
    sentinel.write(b"host" * (PAGE // 4))
    names = program.core.host_calls
    indices = [i for i, name in enumerate(names) if name not in LEFT_OUT]
    before = mappings(program)
    succeeded: dict[str, int] = {}
    for _ in range(calls):
        index = dice.choice(indices)
        size = program._space.memory.size()  # type: ignore[union-attr]
        arguments = [number(dice, size) for _ in range(6)]
        if names[index] in LIMITS:
            arguments[LIMITS[names[index]]] = dice.choice(HARMLESS)
        result = call(program, index, arguments)
        if names[index] == "SYS_fork":
            if result == 0:
                os._exit(0)
            os.waitpid(result, 0)
        failures = program._failures
        assert not failures, f"{names[index]}{arguments} has raised {failures}"
        assert -SIGNED < result < SIGNED, f"{names[index]}{arguments} gave {result}"
        if result >= 0:
            succeeded[names[index]] = succeeded.get(names[index], 0) + 1
    assert sentinel[:] == b"host" * (PAGE // 4)
    assert before <= mappings(program)
    os.write(1, f"{calls} calls, {sum(succeeded.values())} of {len(succeeded)} kinds\n".encode())
    os._exit(0)  # what it has done to its own limits and memory ends with it


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
