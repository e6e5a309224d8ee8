"""A WALI program tries to get out of its policy, with all that holds it and with less.

With everything in place nothing gets out.  What each layer alone does not hold is listed here and
in `docs/security.md`: an attempt that is expected to succeed there has to, so that the attempts are
known to be real ones.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capabilities.lockdown import landlock, view
from tests.escape.swapper import exchanging
from tests.escape.wali_world import LAYERS, WaliWorld

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
RACES = 2000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        landlock.abi_version() < landlock.FEATURES["signals"] or view.probe() != "",
        reason="no namespaces here, or Landlock is missing or too old: ESCAPES ARE NOT TESTED",
    ),
]

READS_METADATA = {
    *("stat", "stat by a link", "lstat", "statx", "access", "faccessat2", "readlink", "statfs"),
    *("open as a path", "climb and stat", "chdir", "chdir by .."),
}
WRITES_METADATA = {
    *("chmod", "chmod by a link", "chown", "set times", "set times by utimes"),
    *("read-only: chmod", "read-only: set times", "read-only: fchmod"),
    "read-only: set times of a descriptor",
}
OF_OTHERS = {
    *("a group of another", "a session of another", "processors of another"),
    *("priority of another", "priority of all"),
    *("scheduler of another", "parameter of another"),
}
STREAMS = {
    *("mode of a stream", "owner of a stream's file", "times of a stream"),
    *("owner of a stream's file by its empty name", "times of a stream by its empty name"),
    *("mode of a stream by another number", "mode of a stream that was sent"),
    "times of a stream in microseconds",
}
SIGNALS = {
    *("a signal to the parent", "a signal to a thread", "a signal to a thread of a process"),
}
# What some layer does not hold; each is held by another.
NOT_HELD = {
    "all": set(),
    # Landlock has no hook for it, and the gate cannot do without the calls.
    "without a view": READS_METADATA,
    # Who else there is on the machine, and at which port, the core leaves to Landlock.
    "without Landlock and seccomp": {"TCP: connect", "TCP: bind", *SIGNALS},
    # It is about files: not about ports, nor about processes.
    "view alone": {
        *("an abstract socket", "UDP", "TCP: connect", "TCP: bind", "TCP: listen without bind"),
        *(*OF_OTHERS, *SIGNALS, *STREAMS, "options of the process"),
    },
    # Who is named by a number is in no register that a filter could judge.
    "kernel alone": {*READS_METADATA, *OF_OTHERS, "options of the process"},
    # What a descriptor leads to was opened before there was a view.
    "view and kernel": {*OF_OTHERS, *STREAMS, "options of the process"},
}
# Of the host's calls none is made by these, whoever is in the way.
NEVER = {
    *("TCP: fast open", "TCP: fast open by an option", "MPTCP", "SCTP", "raw", "packets"),
    *("netlink", "the host of a virtual machine", "cryptography", "limits of another"),
    *("map code", "make code", "read into nothing", "map where nothing is", "a filter of its own"),
    *("type on a terminal", "owner of a stream", "signal of a stream", "lease of a stream"),
    *("memory by procfs", "memory of another", "become root", "descriptors of the host"),
    *("read-only: ftruncate", "read-only: map to write", "make a device"),
}


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest) -> str:
    """Return as whom the program runs."""
    if request.param == "root" and os.geteuid():
        pytest.skip("not root")
    return str(request.param)


@pytest.fixture
def world(open_folder: Path, who: str) -> Iterator[WaliWorld]:
    """Return what is granted, and what is not."""
    made = WaliWorld(open_folder)
    if who == "user":
        made.hand_over()
    yield made
    made.close()


def succeeded(results: dict[str, int]) -> set[str]:
    """Return the attempts that have got out."""
    assert len(results) > 100
    return {what for what, result in results.items() if result >= 0}


@pytest.mark.parametrize("layers", NOT_HELD)
def test_nothing_gets_out(layers: str, world: WaliWorld, who: str) -> None:
    """Whoever is missing: what is not in his part is held, and what is only he has held."""
    out = succeeded(world.attack(LAYERS[layers], who))
    expected = NOT_HELD[layers]
    if who == "root":  # who may signal no processes of others without privileges
        expected = expected - SIGNALS

    assert out == expected
    assert world.changed == bool(expected & STREAMS)


def test_the_gate_alone(world: WaliWorld, who: str) -> None:
    """It knows calls, not paths: what it holds are the calls that a policy does not grant."""
    results = world.attack(LAYERS["gate alone"], who)
    out = succeeded(results)

    assert READS_METADATA | {"read by its path", "create", "remove", "TCP: connect"} <= out
    assert not out & (WRITES_METADATA | OF_OTHERS | STREAMS | NEVER)
    unix = ("a unix socket", "a datagram socket", "an abstract socket", "UDP")
    assert {results[what] for what in unix} == {-errno.EACCES}


def test_nothing_is_granted_without_files(world: WaliWorld, who: str) -> None:
    """Where a policy grants no files the gate alone holds all that is done by paths."""
    policy = 'version = 1\nview = "off"\nlockdown = "off"\n'

    assert succeeded(world.attack(LAYERS["gate alone"], who, policy=policy)) == set()
    assert not world.changed


@pytest.mark.parametrize("layers", ["all", "without a view", "view alone", "kernel alone"])
def test_exchanged_names_lead_nowhere(layers: str, world: WaliWorld, who: str) -> None:
    """A folder is exchanged with a link that leads out while the program walks through it."""
    swapped = world.inside / "swapped"
    swapped.mkdir()
    (swapped / "secret").write_text("mine")
    if who == "user":
        world.hand_over()
    with exchanging(swapped, world.inside / "folder"):
        results = world.attack(LAYERS[layers], who, str(RACES))

    assert results["race: read"] == -1
    if LAYERS[layers].view:
        assert results["race: stat"] == -1
    assert results["within"] > 0
    assert not world.changed


def test_what_is_not_held_is_documented() -> None:
    """Each attempt that one layer alone lets through is named in the page about security."""
    page = (ROOT / "docs" / "security.md").read_text()
    table = page.partition("| attempt | not held by |\n")[2].partition("\n\n")[0]
    documented: dict[str, set[str]] = {}
    for row in table.splitlines()[1:]:
        _, attempts, layers, _ = row.split("|")
        by = set(layers.strip().split(", "))
        documented |= dict.fromkeys(re.findall("`(.*?)`", attempts), by)
    found: dict[str, set[str]] = {}
    for layer, not_held in NOT_HELD.items():
        for attempt in not_held:
            found.setdefault(attempt, set()).add(layer)

    assert documented == found
