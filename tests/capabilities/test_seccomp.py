"""The list of system calls: as data, as a program for the kernel, and as the kernel enforces it."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities import LockdownError
from capabilities.lockdown import seccomp
from capabilities.lockdown._kernel import number
from capabilities.lockdown.seccomp import Rule
from tests.capabilities.confined import run

if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT = 0x50000 | errno.EOPNOTSUPP
ALLOW, KILL, REFUSE, MISSING = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
ARCHITECTURE = number(0xC000003E, 0xC00000B7)
WORD = 0xFFFFFFFF

needs_seccomp = pytest.mark.skipif(
    not seccomp.available(), reason="no seccomp filters here: THE FILTER IS NOT TESTED"
)


def run_program(
    program: bytes, which: int, arguments: Sequence[int] = (), architecture: int = ARCHITECTURE
) -> int:
    """Do what the kernel does with a program, and return the action that it comes to."""
    values = [*arguments, *(0,) * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", which, architecture, 0, *values)
    code = list(struct.iter_unpack("=HBBI", program))
    at, word = 0, 0
    while True:
        kind, if_true, if_false, value = code[at]
        at += 1
        if kind == 0x20:  # load
            (word,) = struct.unpack_from("=I", data, value)
        elif kind == 0x54:
            word &= value
        elif kind == 0x05:
            at += value
        elif kind == 0x06:
            return int(value)
        else:
            holds = {0x15: word == value, 0x35: word >= value}[kind]
            at += if_true if holds else if_false


def allowed(rules: Sequence[Rule], which: int, arguments: Sequence[int]) -> bool:
    """Say what rules mean, in the plainest way."""
    return any(
        rule.number == which
        and (
            rule.alternatives is None
            or any(
                all(arguments[index] & mask & WORD in values for index, mask, values in tests)
                for tests in rule.alternatives
            )
        )
        for rule in rules
    )


_numbers = st.integers(0, 40)
_values = st.integers(0, 7)
_test = st.tuples(
    st.integers(0, 5),
    st.sampled_from([WORD, 1, 4, 7, 0x80000000]),
    st.lists(_values, min_size=1, max_size=3, unique=True).map(tuple),
)
_alternatives = st.none() | st.lists(
    st.lists(_test, min_size=1, max_size=3).map(tuple), max_size=3
).map(tuple)
_rules = st.lists(
    st.builds(Rule, st.just("name"), _numbers, st.just("why"), _alternatives),
    max_size=12,
    unique_by=lambda rule: rule.number,
)
_arguments = st.lists(_values | st.integers(0, 2**64 - 1), min_size=6, max_size=6)


@given(_rules, _numbers, _arguments)
def test_program_means_the_rules(rules: list[Rule], which: int, arguments: list[int]) -> None:
    """Whatever the rules: the program allows what they do, and refuses all else."""
    action = run_program(seccomp.compile(rules), which, arguments)

    assert action == (ALLOW if allowed(rules, which, arguments) else REFUSE)


def test_many_calls_are_found() -> None:
    """Each of some hundreds is found, and none between them is."""
    rules = [Rule(f"call {n}", n, "") for n in range(0, 800, 2)]
    program = seccomp.compile(rules)

    for which in range(800):
        expected = ALLOW if which % 2 == 0 else MISSING if which >= 424 else REFUSE
        expected = ABSENT if which % 2 and which in seccomp.ABSENT else expected
        assert run_program(program, which) == expected


def test_long_lists_are_taken() -> None:
    """A rule may hold more instructions than a comparison can skip."""
    alternatives = tuple(((0, WORD, (n,)), (1, WORD, tuple(range(60)))) for n in range(20))
    rules = [Rule("a", 1, "", alternatives), Rule("b", 2, "")]
    program = seccomp.compile(rules)

    assert run_program(program, 1, (19, 59)) == ALLOW
    assert run_program(program, 1, (19, 60)) == REFUSE
    assert run_program(program, 1, (20, 59)) == REFUSE
    assert run_program(program, 2) == ALLOW
    assert run_program(program, 3) == REFUSE


def test_too_much_is_refused() -> None:
    """What the kernel would not take is no program."""
    wide = tuple(((0, WORD, tuple(range(200))),) for _ in range(30))
    with pytest.raises(ValueError, match="are more than the kernel takes"):
        seccomp.compile([Rule("a", 1, "", wide)])
    with pytest.raises(ValueError, match="more values than a comparison can skip"):
        seccomp.compile([Rule("a", 1, "", (((0, WORD, tuple(range(300))),),))])


def test_other_architectures_end_the_process() -> None:
    """The numbers of a rule are those of one architecture; by no other is anything allowed."""
    program = seccomp.compile([Rule("read", 0, "")])
    i386, x32 = 0x40000003, 0x40000000

    assert run_program(program, 0) == ALLOW
    assert run_program(program, 0, architecture=i386) == KILL
    if ARCHITECTURE == 0xC000003E:
        assert run_program(program, x32) == KILL
        assert run_program(program, 0xFFFFFFFF) == KILL


def test_newer_calls_are_missing() -> None:
    """A libc that asks for a newer call takes the older one, of which it is known what it does."""
    program = seccomp.compile([Rule("clone", 56, "")])

    assert run_program(program, 435) == MISSING  # clone3
    assert run_program(program, 40) == REFUSE


# --- the kernel -----------------------------------------------------------------------------------

FILTERED = """
import ctypes, errno, os, socket, sys, threading
from capabilities.lockdown import privileges, seccomp
from capabilities.lockdown._kernel import MACHINE
from wali_core._filter import Sockets, rules

granted = set(sys.argv[1].split())
given = rules(granted, Sockets(tcp="tcp" in sys.argv[2], unix="unix" in sys.argv[2]))

def attempt(code):
    try:
        value = eval(code)
    except OSError as error:
        return errno.errorcode[error.errno]
    return value if isinstance(value, str) else "ok"

def call(number, *arguments):
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(number, *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")

libc = ctypes.CDLL(None, use_errno=True)
waiting, results = threading.Event(), []
def earlier(code):  # in a thread that was there before
    waiting.wait()
    results.append(attempt(code))
thread = threading.Thread(target=earlier, args=("os.getsid(0)",))
thread.start()
privileges.no_new_privileges()
seccomp.install(seccomp.compile(given))
for code in sys.argv[3:]:
    print(attempt(code))
waiting.set()
thread.join()
print(*results)
"""


@needs_seccomp
def test_the_kernel_takes_the_rules() -> None:
    """What is granted works; what is not, or with other arguments, does not: in any thread."""
    attempts = {
        "os.getpid()": "ok",
        "os.open('/etc/passwd', os.O_RDONLY)": "EPERM",
        "os.stat('/')": "EPERM",
        "os.getsid(0)": "EPERM",
        "os.kill(os.getppid(), 0)": "EPERM",
        "os.fork()": "EPERM",
        "threading.Thread(target=int).start()": "ok",
        "os.uname()": "EPERM",
        "socket.socket()": "EPERM",
        "socket.socketpair()": "ok",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)": "EPERM",
        "call(9 if MACHINE == 'x86_64' else 222, 0, 4096, 1, 0x22, -1, 0)": "ok",
        "call(9 if MACHINE == 'x86_64' else 222, 0, 4096, 5, 0x22, -1, 0)": "EPERM",
        "call(425, 1, 0)": "ENOSYS",
        "os.listxattr('/')": "ENOTSUP",
    }
    done = run(FILTERED, "socketpair", "", *attempts)

    assert done.splitlines() == [*attempts.values(), "EPERM"]


@needs_seccomp
def test_sockets_are_of_granted_kinds() -> None:
    """Domain, type and protocol are in registers: TCP is TCP, and nothing that looks like it."""
    mptcp, any_bits = 262, 1 << 40
    attempts = {
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)": "ok",
        "socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)": "ok",
        f"socket.socket(socket.AF_INET, socket.SOCK_STREAM, {mptcp})": "EPERM",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)": "EPERM",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)": "EPERM",
        "socket.socket(socket.AF_UNIX)": "EPERM",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)": "EPERM",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)": "EPERM",
        f"call(41 if MACHINE == 'x86_64' else 198, 1 | {any_bits}, 1, 0)": "EPERM",
    }
    tcp = run(FILTERED, "socket", "tcp", *attempts)
    both = run(FILTERED, "socket", "tcp unix", "socket.socket(socket.AF_UNIX)")
    neither = run(FILTERED, "socket", "", "socket.socket()")

    assert tcp.splitlines()[:-1] == list(attempts.values())
    assert both.splitlines()[0] == "ok"
    assert neither.splitlines()[0] == "EPERM"


@needs_seccomp
def test_fast_open_is_refused() -> None:
    """Neither the flag nor the option: both connect where no rule looks at the port."""
    calls = "socket setsockopt sendto"
    reuse, fast_open, connect = (1, 2), (6, 23), (6, 30)
    attempts = [
        f"socket.socket().setsockopt({level}, {option}, 1)"
        for level, option in (reuse, fast_open, connect)
    ]
    attempts.append("socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', 9))")

    assert run(FILTERED, calls, "tcp", *attempts).splitlines()[:-1] == ["ok", *["EPERM"] * 3]


@needs_seccomp
def test_own_process_is_whoever_installs_it() -> None:
    """A filter may be made in one process and hold another: that one may signal itself."""
    code = """
import os
from capabilities.lockdown import privileges, seccomp
from capabilities.lockdown._kernel import number
kill, alternatives = number(62, 129), (((0, 0xFFFFFFFF, (seccomp.OWN_PROCESS,)),),)
rules = [seccomp.Rule("", which, "") for which in range(400) if which != kill]
filter = seccomp.Filter([*rules, seccomp.Rule("kill", kill, "", alternatives)])
made = os.getpid()
if os.fork():
    os.wait()
else:
    privileges.no_new_privileges()
    seccomp.install(filter.program)
    os.kill(os.getpid(), 0)
    for other in (made, 0):
        try:
            os.kill(other, 0)
        except PermissionError:
            print("refused")
"""
    assert run(code) == "refused\nrefused\n"


def test_it_takes_giving_up_privileges_first() -> None:
    """An ordinary user cannot filter what a set-uid program may do: the kernel says so."""
    code = """
from capabilities import LockdownError
from capabilities.lockdown import privileges, seccomp
privileges.drop()
try:
    seccomp.install(seccomp.compile([]))
except LockdownError as error:
    print(error)
"""
    assert run(code).splitlines()[-1].endswith("seccomp refused: Permission denied")


def test_nonsense_is_refused() -> None:
    """An empty program is an error, and nothing else happens."""
    with pytest.raises(LockdownError, match="seccomp refused"):
        seccomp.install(b"")
