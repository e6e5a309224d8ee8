"""Tests of capabilities._learn and _audit: the least policy for what was written down."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities import Environment, Event, Filesystem, Grant, Policy, learn, read_events
from tests.capabilities.strategies import CATALOGUE
from tests.strategies import paths

if TYPE_CHECKING:
    from capabilities._learn import Learned

NOTHING = Environment()


def event(call: str, resource: str = "", access: str = "", **more: Any) -> Event:
    """Return an event of a run in which everything was granted."""
    more = {"result": "0", "host": resource, "real": resource} | more
    return Event(1.0, 2, call, resource, access, "granted", "always", **more)


def learned(*events: Event, wasi: bool = False) -> Learned:
    """Return what some events come to."""
    return learn(events, environment=NOTHING, catalogue=None if wasi else CATALOGUE)


def files(*events: Event, wasi: bool = False) -> list[tuple[str, str]]:
    """Return the trees that some events come to: the guest's path, and how it is granted."""
    filesystem = learned(*events, wasi=wasi).policy.filesystem
    kinds = {
        "read": filesystem.read_only,
        "write": filesystem.read_write,
        "execute": filesystem.exec,
    }
    return [(grant.guest, kind) for kind, grants in kinds.items() for grant in grants]


FOLDER: dict[str, Any] = {"directory": True}


@pytest.mark.parametrize(
    ("events", "granted"),
    [
        ([event("open", "/a/f", "read")], [("/a/f", "read")]),
        ([event("open", "/a/f", "write")], [("/a/f", "write")]),
        ([event("open", "/a/f", "make")], [("/a", "write")]),
        ([event("openat", "/a", "read", **FOLDER)], [("/a", "read")]),
        ([event("mkdir", "/a/d", "make", **FOLDER)], [("/a", "write")]),
        ([event("chmod", "/a/f", "write")], [("/a/f", "write")]),
        ([event("stat", "/a/f", "look")], [("/a/f", "read")]),
        ([event("stat", "/a", "look", **FOLDER)], [("/a", "read")]),
        ([event("stat", "/", "look", **FOLDER)], []),
        (
            [event("stat", "/a", "look", **FOLDER), event("open", "/a/b/f", "read")],
            [("/a/b/f", "read")],
        ),
        (
            [event("openat", "/a", "look", **FOLDER), event("openat", "/a/f", "read")],
            [("/a/f", "read")],
        ),
        (
            [event("open", "/a/f", "read"), event("open", "/a", "read", **FOLDER)],
            [("/a", "read")],
        ),
        (
            [event("open", "/a/f", "read"), event("open", "/a/g", "make")],
            [("/a", "write")],
        ),
        (
            [event("open", "/a/f", "read", real="/b/f"), event("open", "/b/g", "make")],
            [("/a/f", "read"), ("/b", "write")],
        ),
        ([event("open", "/a/f", "read", result="ENOENT")], []),
        ([event("mkdir", "/a/d", "make", result="EEXIST", **FOLDER)], [("/a/d", "read")]),
        ([event("open", "/a/f", "write", result="EEXIST")], [("/a/f", "read")]),
        (
            [
                event("mkdir", "/a", "make", result="EEXIST", **FOLDER),
                event("mkdir", "/a/d", "make", **FOLDER),
            ],
            [("/a", "write")],
        ),
        ([event("open", "/proc/self/fd/3", "read")], []),
        (
            [event("open", "/a/f", "read", via="/b/c/../../a/f")],
            [("/a/f", "read"), ("/b/c", "read")],
        ),
        ([event("execve", "/bin/sort", "execute")], [("/bin/sort", "execute")]),
        ([event("readlink", "/a/l", "look")], [("/a", "read")]),
        ([event("lstat", "/a/l", "look", link=True)], [("/a", "read")]),
        ([event("lstat", "/a/l", "look", link=True, result="ENOENT")], []),
        ([event("readlink", "/a/f", "look", result="EINVAL")], [("/a/f", "read")]),
        ([event("readlink", "/a", "look", result="EINVAL", **FOLDER)], [("/a", "read")]),
        (
            [
                event("readlink", "/a", "look", result="EINVAL", **FOLDER),
                event("open", "/a/b/f", "read"),
            ],
            [("/a/b/f", "read")],
        ),
        (
            [event("readlinkat", "/a/l", "look"), event("open", "/a/l", "read", real="/b/f")],
            [("/a", "read"), ("/b/f", "read")],
        ),
        (
            [event("readlink", "/a/l", "look"), event("open", "/a/l", "read", real="/a/f")],
            [("/a", "read")],
        ),
    ],
)
def test_what_a_wali_program_needs(events: list[Event], granted: list[tuple[str, str]]) -> None:
    """Files alone where that is enough, folders where names are made, and nothing that failed."""
    assert files(*events) == granted


@pytest.mark.parametrize(
    ("events", "granted"),
    [
        ([event("path_open", "/a/f", "read")], [("/a", "read")]),
        ([event("path_open", "/a/f", "write")], [("/a", "write")]),
        ([event("path_open", "/a/d", "read", **FOLDER)], [("/a/d", "read")]),
        ([event("path_filestat_get", "/a/f", "look")], [("/a", "read")]),
        ([event("path_filestat_get", "/a/d", "look", link=True)], [("/a", "read")]),
        ([event("path_filestat_get", "/a", "look", **FOLDER)], [("/a", "read")]),
        ([event("path_create_directory", "/a/d", "make", **FOLDER)], [("/a", "write")]),
        (
            [event("path_create_directory", "/a/d", "make", result="EEXIST", **FOLDER)],
            [("/a", "write")],
        ),
        ([event("fd_filestat_set_size", "/a/f", "write")], [("/a", "write")]),
        ([event("path_open", "/a/b/f", "read", real="/a/c/f")], [("/a", "read")]),
        (
            [
                event("path_open", "/a/b/f", "read", real="/a/c/f"),
                event("path_open", "/a/b/g", "make"),
            ],
            [("/a", "write")],
        ),
        ([event("path_open", "/a/c/f", "read", via="/a/b/../c/f")], [("/a", "read")]),
        (
            [
                event("path_open", "/a/c/f", "read", via="/a/b/../c/f"),
                event("path_open", "/a/b/g", "make"),
            ],
            [("/a", "write")],
        ),
        (
            [
                event("path_open", "/x/f", "read", host="/a/f", real="/a/f"),
                event("path_open", "/a/g", "make"),
            ],
            [("/a", "write"), ("/x", "write")],
        ),
    ],
)
def test_what_a_wasi_program_needs(events: list[Event], granted: list[tuple[str, str]]) -> None:
    """Folders, in which a path begins and ends."""
    assert files(*events, wasi=True) == granted


def test_terminals_are_granted_by_the_device_that_makes_them() -> None:
    """The host's have other names the next time, and are others'."""
    found = learned(
        event("open", "/dev/ptmx", "write"),
        event("stat", "/dev/pts/3", "look"),
        event("open", "/dev/pts/3", "write"),
    )

    assert found.policy.filesystem == Filesystem(devices=("ptmx",))


def test_calls_are_those_that_were_made() -> None:
    """All that were made, but for those that are always granted, whatever came of them."""
    policy = learned(
        event("read"), event("openat", "/a", "read", result="ENOENT"), event("mmap")
    ).policy

    assert policy.syscalls.allow == ("openat", "read")
    assert learned(event("path_open", "/a/f", "read"), wasi=True).policy.syscalls.allow is None


def test_sockets() -> None:
    """Ports and paths, also such where nobody listens; what cannot be granted is said."""
    found = learned(
        event("connect", "tcp://10.0.0.1:443"),
        event("connect", "tcp://[::1]:80", result="EINPROGRESS"),
        event("connect", "tcp://10.0.0.1:22", result="ECONNREFUSED"),
        event("connect", "tcp://10.0.0.1:23", result="EACCES"),
        event("bind", "tcp://0.0.0.0:8080"),
        event("bind", "tcp://0.0.0.0:0"),
        event("connect", "unix:///run/x.sock"),
        event("connect", "unix://@abstract"),
        event("connect", "udp://1.1.1.1:53"),
    )

    network = found.policy.network
    assert (network.connect, network.listen) == ((22, 80, 443), (8080,))
    assert network.unix == (Grant("/run/x.sock", "/run/x.sock"),)
    assert found.remarks == (
        "no policy grants bind of tcp://0.0.0.0:0",
        "no policy grants connect of unix://@abstract",
        "no policy grants connect of udp://1.1.1.1:53",
    )


def test_sockets_of_which_nothing_is_named() -> None:
    """They are granted with an address: what others there are is enough, if there are any."""
    made = [event("socket", "tcp"), event("socketpair", "unix-datagram"), event("listen")]

    assert learned(*made).remarks == (
        (
            "sockets of TCP are granted only with a port in network.connect or network.listen, "
            "and this run named none"
        ),
        "unix sockets are granted only with a path in network.unix, and this run named none",
        "listen is granted only with a port in network.listen, and this run named none",
    )
    named = [event("bind", "tcp://0.0.0.0:80"), event("connect", "unix:///run/x.sock")]
    assert learned(*made, *named).remarks == ()
    assert learned(event("socketpair", "unix")).remarks == ()
    assert learned(event("socket", "udp")).remarks == ("no policy grants a socket of UDP",)


def test_what_is_never_granted_is_remarked_on() -> None:
    """Other processes, what procfs leads to, and changing metadata where that is granted."""
    chmod, status = event("chmod", "/a/f", "write"), event("open", "/proc/self/status", "read")

    assert learned(event("kill", "another process")).remarks == (
        "no policy grants kill of another process",
    )
    assert learned(event("execve", "/proc/self/exe", "execute", result="")).remarks == (
        "no policy grants execve of /proc/self/exe",
    )
    assert learned(event("open", "/proc/self/root/etc/f", "read")).remarks == (
        "no policy grants open of /proc/self/root/etc/f",
    )
    assert learned(event("readlink", "/bin", "look")).remarks == (
        "readlink finds the link /bin only where / is granted, which is not in here",
    )
    assert learned(chmod).remarks == learned(status).remarks == ()
    assert learned(chmod, status).remarks == (
        (
            "no policy grants chmod together with anything in /proc, of which this run needed "
            "/proc/self/status"
        ),
    )


def test_where_a_program_starts() -> None:
    """If it names anything from there, or asks."""
    start = Event(0.0, 1, "", "prog.wasm", "", "started", "sha256:0", host="/home/me")
    relative = event("open", "/home/me/f", "read", relative=True)

    assert learned(start, relative).policy.filesystem.cwd == "/home/me"
    assert files(start, relative) == [("/home/me/f", "read")]
    assert files(start, event("getcwd")) == [("/home/me", "read")]
    assert learned(start, event("open", "/a", "read")).policy.filesystem.cwd is None


def test_native_programs_are_remarked_on() -> None:
    """What they need themselves was not seen."""
    found = learned(event("execve", "/bin/sort", "execute", result=""))

    assert found.remarks == (
        "what /bin/sort needs besides, if it is one of Linux's own programs, is not in here",
    )


def test_of_webassembly_nothing_is_unknown() -> None:
    """What it does once it is executed is written down as all else."""
    found = learned(event("execve", "/a/prog.wasm", "execute", result="", module=True))

    assert found.remarks == ()
    assert [grant.host for grant in found.policy.filesystem.exec] == ["/a/prog.wasm"]


def test_programs_that_could_not_be_executed_are_not_granted() -> None:
    """An attempt is written down before, and its failure after it; each of its own process's."""
    looked_for = [
        event("execve", "/usr/bin/sort", "execute", result=""),
        event("execve", "/usr/bin/sort", "execute", result="ENOENT"),
        event("execve", "/bin/sort", "execute", result=""),
    ]
    assert files(*looked_for) == [("/bin/sort", "execute")]

    elsewhere = attrs.evolve(looked_for[1], pid=3)
    assert files(looked_for[0], elsewhere) == [("/usr/bin/sort", "execute")]


CALLS = ["open", "stat", "mkdir", "path_open", "path_filestat_get", "path_create_directory"]
events_ = st.builds(
    lambda call, path, access, directory: event(call, path, access, directory=directory),
    st.sampled_from(CALLS),
    paths.filter(lambda path: path != "/"),
    st.sampled_from(["look", "read", "write", "make"]),
    st.booleans(),
)


@given(st.lists(events_, max_size=8))
def test_what_was_learned_grants_what_was_done(events: list[Event]) -> None:
    """Every event is granted by the policy, which loads as it is shown."""
    import tomllib

    for wasi in (False, True):
        kind = [e for e in events if e.syscall.startswith("path_") == wasi]
        policy = learned(*kind, wasi=wasi).policy
        leads = {grant.guest for grant in policy.filesystem.grants}

        assert Policy.from_dict(tomllib.loads(policy.show()), "/") == policy
        for e in kind:
            place_exists = e.access == "look" and any(
                path.startswith(f"{e.resource}/") for path in leads
            )
            request = f"{e.syscall} {e.resource} {e.access}"
            assert policy.decide(request) or place_exists


def test_events_are_read_as_they_are_written() -> None:
    """A line makes the same event again; other lines are named."""
    start = Event(0.0, 1, "", "prog.wasm", "", "started", "sha256:0", host="/home/me")
    events = [start, event("open", "/a\n\udcff", "read", via="/b/../a", relative=True)]

    assert list(read_events(e.line() for e in events)) == events
    for line in ("", "[]", "3", '{"v": 2}', '{"v": 1, "time": 3}', "{}"):
        with pytest.raises(ValueError, match="line 2 is no line of an audit: "):
            list(read_events([start.line(), line]))


def test_what_is_learned_only_is_left_out_of_audits() -> None:
    """Lines for people have no fields that are for learning."""
    line = attrs.evolve(event("open", "/a", "read"), host=None, real=None).line()

    assert not re.search("host|real|directory|relative|via|module", line)
