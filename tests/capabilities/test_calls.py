"""Tests of capabilities._calls: which system calls a policy grants."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from capabilities import Filesystem, Grant, Network, Policy, PolicyError, Syscalls
from capabilities._calls import ALWAYS, ESSENTIAL, FAMILIES, OWN, variants
from tests.capabilities import strategies
from tests.capabilities.strategies import CATALOGUE

FILES = Filesystem(read_only=(Grant("/a", "/a"),))
ESSENTIAL_HERE = {"mmap", "exit_group"}
SOCKETS = {"connect", "socket", "socketpair"}
FOLLOWS = ESSENTIAL_HERE | {
    *("getpid", "read", "readv", "epoll_wait", "nanosleep", "rt_sigaction", "fstat"),
}


def calls(policy: Policy) -> set[str]:
    """Return what a policy grants of the small world."""
    return set(policy.granted_calls(CATALOGUE))


@pytest.mark.parametrize(
    ("policy", "more"),
    [
        pytest.param(Policy(), set(), id="nothing"),
        pytest.param(
            Policy(filesystem=FILES),
            {"openat", "open", "chmod", "fchmodat", "fchown", "fsync"},
            id="files",
        ),
        pytest.param(
            Policy(filesystem=Filesystem(devices=["null"])),
            {"openat", "open", "chmod", "fchmodat", "fchown", "fsync"},
            id="devices",
        ),
        pytest.param(Policy(network=Network(connect=(80,))), SOCKETS, id="connect"),
        pytest.param(Policy(network=Network(listen=(80,))), SOCKETS, id="listen"),
    ],
)
def test_calls_follow_from_the_tables(policy: Policy, more: set[str]) -> None:
    """Without a list, a policy grants what its files and ports need, and what reaches nothing."""
    assert calls(policy) == FOLLOWS | more


def test_programs_are_executed_only_where_that_is_named() -> None:
    """Though systemd counts execve among @default, no policy comes to it by its tables."""
    policy = Policy(filesystem=FILES, network=Network(connect=(80,)))

    assert CATALOGUE["execve"] in ALWAYS
    assert "execve" not in calls(policy)
    assert "execve" in calls(Policy(syscalls=Syscalls(allow=["execve"])))


@pytest.mark.parametrize(
    ("allow", "granted"),
    [
        ([], set()),
        (["read"], {"read"}),
        (["@basic-io"], {"read", "readv"}),
        (["@process", "openat"], {"getpid", "fork", "openat"}),
        (["exit_group"], set()),
    ],
)
def test_allow_is_exact(allow: list[str], granted: set[str]) -> None:
    """A list grants what it names and no variant of it, whatever the other tables say."""
    policy = Policy(
        filesystem=FILES, network=Network(connect=(80,)), syscalls=Syscalls(allow=allow)
    )

    assert calls(policy) == granted | ESSENTIAL_HERE


@pytest.mark.parametrize(
    ("deny", "denied"),
    [
        (["chmod"], {"chmod", "fchmodat"}),
        (["fchmodat2"], {"chmod", "fchmodat"}),
        (["creat"], {"open", "openat"}),
        (["@chown"], {"fchown"}),
        (["@process"], {"getpid", "fork"}),
        (["@default"], {"execve"}),
        (["mmap"], {"mmap"}),
        (["exit"], {"exit_group"}),
        (
            ["@file-system", "read"],
            {*("fstat", "openat", "open", "chmod", "fchmodat"), "read", "readv"},
        ),
    ],
)
def test_deny_covers_every_variant(deny: list[str], denied: set[str]) -> None:
    """A denial takes all variants; that of a group leaves what no program can do without."""
    everything = sorted(set(CATALOGUE.values()))

    assert calls(Policy(syscalls=Syscalls(allow=everything))) == set(CATALOGUE)
    assert calls(Policy(syscalls=Syscalls(allow=everything, deny=deny))) == set(CATALOGUE) - denied


@pytest.mark.parametrize(
    ("one", "other", "granted"),
    [
        (["@basic-io"], ["read", "openat"], {"read"}),
        (["@basic-io"], ["@file-system"], set()),
        (None, ["read", "fork", "openat"], {"read"}),
        (None, None, FOLLOWS),
    ],
)
def test_calls_of_two_policies(
    one: list[str] | None, other: list[str] | None, granted: set[str]
) -> None:
    """Two policies share what both grant, also where one names a call and the other its group."""
    both = Policy(syscalls=Syscalls(allow=one)).intersect(Policy(syscalls=Syscalls(allow=other)))

    assert calls(both) == granted | ESSENTIAL_HERE


@given(strategies.policies)
def test_deny_wins(policy: Policy) -> None:
    """Nothing that is denied is granted, and nothing is that the catalogue does not have."""
    granted = calls(policy)

    assert granted <= set(CATALOGUE)
    for entry in policy.syscalls.deny:
        assert not granted & variants(entry)
        assert not {name for name in granted - ESSENTIAL if CATALOGUE[name] == entry}


@given(strategies.policies)
def test_essential_calls_are_granted(policy: Policy) -> None:
    """What no program can do without is granted, unless it is denied by its name."""
    denied = frozenset[str]().union(*map(variants, policy.syscalls.deny))

    assert calls(policy) >= ESSENTIAL_HERE - denied


def test_unknown_entries() -> None:
    """What the catalogue does not have is an error, all of it at once, with what is near."""
    syscalls = Syscalls(
        allow=["opnat", "@basicio", "creat", "read"],
        within=[["SYS_read"], ["readq"]],
        deny=["chmd", "@x", "creat", "zzz"],
    )
    groups = ", ".join(sorted(set(CATALOGUE.values())))
    no_call = "is no call of this version"
    not_served = "what is not served is never granted, so remove it"

    with pytest.raises(PolicyError) as caught:
        Policy(syscalls=syscalls, source="p.toml").granted_calls(CATALOGUE)

    assert str(caught.value).splitlines() == [
        "p.toml: syscalls.allow: '@basicio' is no group of this version: did you mean '@basic-io'?",
        f"p.toml: syscalls.allow: 'creat' {no_call}: did you mean 'open' or 'openat'?",
        f"p.toml: syscalls.allow: 'opnat' {no_call}: did you mean 'openat' or 'open'?",
        f"p.toml: syscalls.within: 'SYS_read' {no_call}: did you mean 'read' or 'readv'?",
        f"p.toml: syscalls.within: 'readq' {no_call}: did you mean 'read' or 'readv'?",
        f"p.toml: syscalls.deny: '@x' is no group of this version: there are {groups}",
        f"p.toml: syscalls.deny: 'chmd' {no_call}: did you mean 'chmod' or 'fchmodat'?",
        f"p.toml: syscalls.deny: 'zzz' {no_call}: {not_served}",
    ]


def test_names_are_spelt_as_calls_are() -> None:
    """No table of names holds what cannot be a call, and each family is about several."""
    assert all(len(family) > 1 for family in FAMILIES)
    for name in (*ESSENTIAL, *OWN, *(name for family in FAMILIES for name in family)):
        assert re.fullmatch("[a-z][a-z0-9_]*", name)


@pytest.mark.parametrize(
    ("syscalls", "withheld"),
    [
        (Syscalls(), {}),
        (Syscalls(allow=["getpid"]), {"write": "syscalls.allow"}),
        (
            Syscalls(allow=["@basic-io"], deny=["@memory", "exit"]),
            dict.fromkeys(("exit", "exit_group"), "syscalls.deny"),
        ),
        (
            Syscalls(within=[["read"]], deny=["mmap"]),
            {"mmap": "syscalls.deny", "write": "syscalls.within[0]"},
        ),
        (Syscalls(deny=["mmap", "write"], on_deny="log"), {}),
    ],
)
def test_what_every_program_needs(syscalls: Syscalls, withheld: dict[str, str]) -> None:
    """A policy that withholds what nearly every program calls can say so, and by which key."""
    catalogue = {**CATALOGUE, "mprotect": "@memory", "write": "@basic-io", "exit": "@process"}

    assert Policy(syscalls=syscalls).withheld_calls(catalogue) == withheld
