"""seccomp, by its system call (seccomp(2)): a list of the calls that a process may make at all.

Rules are data: a call's name, its number, and where it matters what its arguments may be. `compile`
makes a program for the kernel of them, in its classic BPF, that answers every other call with an
error; `install` sets it, for good, on all threads.

The program sees numbers and registers, never what a pointer leads to. A call of another
architecture (32-bit, or x32, which names the same calls by other numbers) ends the process.

It serves every guest's start, so it imports nothing that takes time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from errno import ENOSYS, EOPNOTSUPP, EPERM
from struct import pack

from capabilities._errors import LockdownError

from ._kernel import MACHINE, call, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final, TypeAlias

    Instruction: TypeAlias = tuple[int, int, int, int]
    Test: TypeAlias = tuple[int, int, tuple[int, ...]]
    Tests: TypeAlias = tuple[Test, ...]

_SECCOMP = number(317, 277)
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC

_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_ARCHITECTURE: Final = number(0xC000003E, 0xC00000B7)  # AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_X32 = 0x40000000
_WORD = 0xFFFFFFFF

# Classic BPF: load a word, compare it with a constant, AND, jump, return (linux/filter.h).
_LOAD, _EQUAL, _NOT_LESS, _AND, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x05, 0x06
# In the struct seccomp_data that the program looks at.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_INSTRUCTION, _CONSTANT_AT = 8, 4  # the size of one, and where in it its constant is
_FARTHEST = 255  # instructions that a comparison can skip
_MOST_INSTRUCTIONS = 4096
_FEW = 3  # calls that are looked for one after the other

# Extended attributes: who is told that there are none does without (getxattr(2)).
ABSENT: Final = range(number(188, 5), number(188, 5) + 12)

# From here on calls have the same number on every architecture, and libcs know what to do without:
# they are told that there are none, so that they take the older ones, of which it is known.
_NEWER: Final = 424


OWN_PROCESS: Final = 0xFFFFFF00  # no process has such a number, no other value is this one


class Rule:
    """One call that is allowed.

    Attributes:
        name: the kernel's name for it.
        number: its number on this processor.
        alternatives: None: whatever its arguments; else one must hold. Each is a tuple of tests,
            which must all hold; a test is (index of the argument, mask, values): the lower 32 bits
            of the argument, under the mask, must be one of the values. `OWN_PROCESS` among them is
            the number of the process that installs the filter.
        reason: who needs it, and what for.
    """

    __slots__ = ("alternatives", "name", "number", "reason")

    def __init__(
        self, name: str, number: int, reason: str, alternatives: tuple[Tests, ...] | None = None
    ) -> None:
        self.name, self.number, self.reason = name, number, reason
        self.alternatives = alternatives


class Filter:
    """Rules with the program that they come to, which may be made long before it is installed.

    Attributes:
        rules: those that it was made of.
        program: what `install` takes.
    """

    __slots__ = ("program", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.program = compile(self.rules)


def available() -> bool:
    """Return whether the kernel has what `install` takes."""
    try:
        call(_SECCOMP, _GET_ACTION_AVAIL, 0, pack("=I", _KILL))
    except OSError:
        return False
    return sys.byteorder == "little"  # where a word lies in an argument depends on it


def compile(rules: Iterable[Rule]) -> bytes:  # noqa: A001 - that is what it does
    """Return the program for the kernel that allows some calls and no others."""
    refusal = _ERRNO | EPERM
    missing = _ERRNO | ENOSYS
    absent = {which: [(_RETURN, 0, 0, _ERRNO | EOPNOTSUPP)] for which in ABSENT}
    leaves = sorted((absent | {rule.number: _leaf(rule, refusal) for rule in rules}).items())
    x32 = [(_NOT_LESS, 0, 1, _X32), (_RETURN, 0, 0, _KILL)] if MACHINE == "x86_64" else []
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *x32,
        *_search(leaves, refusal, missing),
    ]
    if len(program) > _MOST_INSTRUCTIONS:
        raise ValueError(f"{len(program)} instructions are more than the kernel takes")
    return b"".join([pack("=HBBI", *instruction) for instruction in program])


def install(program: bytes) -> None:
    """Hold every thread of this process to a program, for good, and what they start.

    The thread must have given up gaining privileges before (`privileges.no_new_privileges`).

    Raises:
        LockdownError: the kernel refused, or cannot do it for some thread.
    """
    program = _of_own_process(program)
    address = ctypes.cast(ctypes.c_char_p(program), ctypes.c_void_p).value
    fprog = pack("@HP", len(program) // _INSTRUCTION, address)
    try:
        thread = call(_SECCOMP, _SET_MODE_FILTER, _ALL_THREADS, fprog)
    except OSError as error:
        raise LockdownError([f"seccomp refused: {error.strerror}"]) from error
    if thread:
        raise LockdownError([f"seccomp refused: thread {thread} has a filter of its own"])


def _of_own_process(program: bytes) -> bytes:
    own, at = pack("=I", OWN_PROCESS), -1
    while (at := program.find(own, at + 1)) >= 0:
        if at % _INSTRUCTION == _CONSTANT_AT:
            program = program[:at] + pack("=I", os.getpid()) + program[at + len(own) :]
    return program


def _search(
    leaves: list[tuple[int, list[Instruction]]], refusal: int, missing: int
) -> list[Instruction]:
    """Find the call's number among sorted leaves by halves, and do as its leaf says."""
    if len(leaves) > _FEW:
        middle = len(leaves) // 2
        lower = _search(leaves[:middle], refusal, missing)
        upper = _search(leaves[middle:], refusal, missing)
        pivot = leaves[middle][0]
        return [(_NOT_LESS, 0, 1, pivot), (_JUMP, 0, 0, len(lower)), *lower, *upper]
    code: list[Instruction] = []
    for which, leaf in leaves:
        code += _unless_equal(which, len(leaf))
        code += leaf
    return [*code, (_NOT_LESS, 0, 1, _NEWER), (_RETURN, 0, 0, missing), (_RETURN, 0, 0, refusal)]


def _unless_equal(which: int, distance: int) -> list[Instruction]:
    if distance <= _FARTHEST:
        return [(_EQUAL, 0, distance, which)]
    return [(_EQUAL, 1, 0, which), (_JUMP, 0, 0, distance)]


def _leaf(rule: Rule, refusal: int) -> list[Instruction]:
    """What is done once the number is known; it ends in a return, whatever happens."""
    if rule.alternatives is None:
        return [(_RETURN, 0, 0, _ALLOW)]
    code: list[Instruction] = []
    for tests in rule.alternatives:
        code += _alternative(tests)
    return [*code, (_RETURN, 0, 0, refusal)]


def _alternative(tests: Tests) -> list[Instruction]:
    """Allow the call if all tests hold; if not, go on after the end of this."""
    code: list[Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for index, mask, values in reversed(tests):
        last, *others = reversed(values)
        if len(code) > _FARTHEST or len(values) > _FARTHEST:
            raise ValueError("a rule has more values than a comparison can skip")
        compare = [(_EQUAL, 0, len(code), last)]
        for after, value in enumerate(others, 1):
            compare.insert(0, (_EQUAL, after, 0, value))
        masked = [(_AND, 0, 0, mask)] if mask != _WORD else []
        code = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index), *masked, *compare, *code]
    return code
