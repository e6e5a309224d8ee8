"""The table behind the seccomp filter agrees with what the core does, and with Linux."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from wali.spec.syscalls import SYSCALLS

from tests.architecture.test_reachable import NATIVE, functions_of
from wali_core import _filter
from wali_core._filter import KERNEL_CALLS, RUNTIME, Sockets, allowed, rules
from wali_core._table import CALLS, INTERNAL

ROWS = {row[0]: row for row in KERNEL_CALLS}
BY_NAME = {call.name: call for call in CALLS}

# Of WALI's calls those that Python serves without making one of the kernel's by this name: what it
# makes instead.
SERVED_BY = {
    "epoll_create": {"epoll_create1"},
    "fork": {"clone"},
    "getrlimit": {"prlimit64"},
    "setrlimit": {"prlimit64"},
    "utimes": {"utimensat"},
    "futimesat": {"utimensat"},
}
# Where the C is of calls with a body: the beginning of its name.
BODIES = {"body": "body", "bodies": "program"}
# What that makes only where nothing is confined.
UNCONFINED = {"openat": {"openat2"}}
# WALI's names where the kernel has another.
NAMED_OTHERWISE = {"fadvise": "fadvise64"}


def granted_by(name: str) -> set[str]:
    """Return the kernel's calls that the filter allows where one of WALI's is granted."""
    return {row[0] for row in KERNEL_CALLS if {name, RUNTIME} & set(row[3].split())}


def made_by_bodies() -> dict[str, set[str]]:
    """Return the kernel's calls that the C of each call can come to, from its text."""
    words: dict[str, set[str]] = defaultdict(set)
    for path in sorted(NATIVE.glob("*.[ch]")):
        for name, body in functions_of(path):
            words[name] |= set(re.findall(r"\w+", "\n".join(body))) - {name}
    made = {}
    for call in CALLS:
        if call.served in BODIES:
            found: set[str] = set()
            waiting = {f"{BODIES[call.served]}_{call.name}"}
            while waiting:
                name = waiting.pop()
                found.add(name)
                waiting |= (words[name] & words.keys()) - found
            numbers = set().union(*(words[name] for name in found))
            made[call.name] = {word[3:] for word in numbers if word.startswith("NR_")}
    return made


def test_what_the_core_makes_is_allowed() -> None:
    """For a call that is granted, whatever its C may come to is in the table, and has a reason."""
    for name, made in made_by_bodies().items():
        confined = made - UNCONFINED.get(name, set())
        missing = {NAMED_OTHERWISE.get(one, one) for one in confined} - granted_by(name)
        assert not missing, f"{name} makes {missing}"


@pytest.mark.parametrize("name", [call.name for call in CALLS if call.served not in BODIES])
def test_what_is_served_otherwise_is_allowed(name: str) -> None:
    """A plain call makes itself, one that is made from another makes that."""
    call = BY_NAME[name]
    made = SERVED_BY.get(name, {NAMED_OTHERWISE.get(name, name)})
    before, is_other, other = call.served.partition("= ")
    if is_other:
        made = {other.partition("(")[0]} & BY_NAME.keys() | ({name} if before else set())
    if call.served == "planned":
        made = set()

    assert made <= granted_by(name)


def test_nothing_is_allowed_for_nobody() -> None:
    """Every line is for calls that there are, or are to be, or for the runtime: that says why."""
    for name, _, _, callers, reason in KERNEL_CALLS:
        unknown = set(callers.split()) - BY_NAME.keys() - SYSCALLS.keys() - {RUNTIME}
        assert not unknown, f"{name}: {unknown} are no calls"
        assert callers != RUNTIME or reason, f"{name}: the runtime needs it: what for?"


@pytest.mark.parametrize("name", ROWS)
def test_numbers_are_linuxs(name: str) -> None:
    """As in the core's table and in WALI's specification, where those have them."""
    _, x86_64, aarch64, _, _ = ROWS[name]
    specified = SYSCALLS.get({v: k for k, v in NAMED_OTHERWISE.items()}.get(name, name))
    served = BY_NAME.get(name)

    if specified is not None and specified.nrs.x86_64 is not None:
        assert x86_64 == specified.nrs.x86_64
    if specified is not None and aarch64 is not None:
        assert aarch64 == specified.nrs.arm64
    if served is not None:
        assert (x86_64, aarch64) == (served.x86_64, served.aarch64)
    if name in INTERNAL:
        assert (x86_64, aarch64) == INTERNAL[name]


def test_rules_are_data() -> None:
    """Each says its call and its reason; those of what is not granted are not there."""
    few = {rule.name: rule for rule in rules({"openat", "accept"}, Sockets())}

    assert few["openat"].reason == "openat"
    assert few["fstatfs"].reason == "openat; whether it is procfs"
    assert few["accept4"].reason == "accept"
    assert few["ppoll"].reason == "every wait of the guest's"
    assert not {"socket", "execve", "mkdirat", "getppid"} & few.keys()
    assert all(rule.reason for rule in few.values())


def test_a_filter_is_made_once() -> None:
    """For the same calls and the same kinds of sockets; no more than a few are kept."""
    first = allowed({"openat"}, Sockets(tcp=True))

    assert allowed(["openat"], Sockets(tcp=True)) is first
    assert allowed({"openat"}, Sockets()) is not first
    assert allowed({"openat"}, None) is not first
    for call in CALLS:
        allowed({call.name}, None)
    assert len(_filter._made) <= _filter._MOST_MADE
    assert allowed({"openat"}, Sockets(tcp=True)).program == first.program


def test_everything_fits() -> None:
    """All calls together still make a program that the kernel takes, with no number twice."""
    found = rules({call.name for call in CALLS}, Sockets(tcp=True, listen=True, unix=True))

    assert len({rule.number for rule in found}) == len(found)
