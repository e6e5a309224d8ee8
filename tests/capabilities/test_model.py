"""Tests of capabilities._model: grants and how they combine."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given

from capabilities import Environment, Filesystem, Grant, Limits, Network, Policy, Syscalls
from capabilities._files import relative_to
from capabilities._model import MODES, stricter
from tests import strategies


def allowed(filesystem: Filesystem, depth: int = 5) -> set[tuple[str, str, bool]]:
    """List what a guest may reach, by definition: host path, guest path, and whether to write.

    Every grant is followed down to `depth` components, through all names that strategies use.
    """
    reached = set()
    for grant in filesystem.grants:
        below = [""]
        for _ in range(depth):
            reached |= {
                (join(grant.host, path), join(grant.guest, path), write)
                for path in below
                for write in {False, grant.read_write}
            }
            below = [posixpath.join(path, name) for path in below for name in ("a", "b", "ab")]
    return {(host, guest, write) for host, guest, write in reached if host.count("/") <= depth - 1}


def join(tree: str, path: str) -> str:
    """Join two paths, the second of which may be empty."""
    return posixpath.join(tree, path) if path else tree


@pytest.mark.parametrize("path", ["", "a", "/a/", "//a", "/a/../b", "/a/./b", "/a\0b", "."])
def test_a_grant_needs_normal_paths(path: str) -> None:
    """Neither path of a grant may be relative or have two spellings."""
    with pytest.raises(ValueError, match=r"host is .*: it must be absolute and normalised"):
        Grant(path, "/")
    with pytest.raises(ValueError, match=r"guest is .*: it must be absolute and normalised"):
        Grant("/", path)


@pytest.mark.parametrize(
    ("path", "tree", "relative"),
    [
        ("/a/b", "/a", "b"),
        ("/a/b/c", "/a", "b/c"),
        ("/a", "/a", ""),
        ("/a", "/", "a"),
        ("/", "/", ""),
        ("/", "/a", None),
        ("/ab", "/a", None),
        ("/a", "/a/b", None),
    ],
)
def test_relative_to(path: str, tree: str, relative: str | None) -> None:
    """A path lies in a tree by whole components."""
    assert relative_to(path, tree) == relative


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Grant("/a", "/a"), Grant("/a", "/a"), Grant("/a", "/a")),
        (Grant("/a/b", "/x/b"), Grant("/a", "/x"), Grant("/a/b", "/x/b")),
        (Grant("/a/b", "/a/b"), Grant("/", "/"), Grant("/a/b", "/a/b")),
        (Grant("/a/b", "/y"), Grant("/a", "/x"), None),
        (Grant("/a", "/x"), Grant("/a", "/y"), None),
        (Grant("/ab", "/ab"), Grant("/a", "/a"), None),
        (Grant("/a", "/a", read_write=True), Grant("/a", "/a"), Grant("/a", "/a")),
        (
            Grant("/a", "/a", read_write=True),
            Grant("/", "/", read_write=True),
            Grant("/a", "/a", read_write=True),
        ),
    ],
)
def test_grants_meet(one: Grant, other: Grant, both: Grant | None) -> None:
    """Two grants share the inner tree, if it lies at the corresponding place for the guest."""
    assert one.intersect(other) == both
    assert other.intersect(one) == both


def test_what_another_grant_covers_is_left_out() -> None:
    """A set of grants holds no grant that adds nothing."""
    outer = Grant("/a", "/a")
    inside = Grant("/a/b", "/a/b")
    elsewhere = Grant("/a/b", "/b")
    wider = Grant("/a/c", "/a/c", read_write=True)

    kept = Filesystem.of([inside, wider, outer, elsewhere, outer])

    assert kept == Filesystem(read_only=(outer, elsewhere), read_write=(wider,))


@given(strategies.filesystems, strategies.filesystems)
def test_intersection_is_what_both_allow(one: Filesystem, other: Filesystem) -> None:
    """A guest reaches through an intersection exactly what it reaches through both."""
    assert allowed(one.intersect(other)) == allowed(one) & allowed(other)


def test_environments_share_what_is_alike() -> None:
    """Names are inherited if both do, values are set if both set the same."""
    one = Environment(inherit=("A", "B"), set={"X": "1", "Y": "1", "Z": "1"})
    other = Environment(inherit=("B", "C"), set={"X": "1", "Y": "2"})

    assert one.intersect(other) == Environment(inherit=("B",), set={"X": "1"})


def test_environments_are_copied_in() -> None:
    """Changing a dict later does not change the environment that was made of it."""
    values = {"A": "1"}
    environment = Environment(set=values)
    values["A"] = "2"

    assert environment.set == {"A": "1"}


def test_networks_share_ports() -> None:
    """A port is granted if both grant it, for the same use."""
    one = Network(connect=(443, 80, 80), listen=(8080,))
    other = Network(connect=(8080, 443), listen=(80,))

    assert one.connect == (80, 443)
    assert one.intersect(other) == Network(connect=(443,))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_a_port(port: int) -> None:
    """No port is outside of what a port can be."""
    with pytest.raises(ValueError, match=rf"listen holds {port}: it must be a port, 1 to 65535"):
        Network(listen=(80, port))


def test_calls_are_those_of_both() -> None:
    """Lists of calls are all kept, since a group is not known by its calls; denials add up."""
    one = Syscalls(allow=["read", "@sync", "read"], deny=["chmod"], on_deny="ENOSYS")
    other = Syscalls(allow=["@basic-io"], deny=["@chown"], on_deny="ENOSYS")
    tables = Syscalls(deny=["chmod"], on_deny="EACCES")

    assert one.allow == ("@sync", "read")
    both = one.intersect(other)
    assert both == Syscalls(
        allow=["@basic-io"],
        within=[["@sync", "read"]],
        deny=["@chown", "chmod"],
        on_deny="ENOSYS",
    )
    assert one.intersect(tables) == Syscalls(
        within=[["@sync", "read"]], deny=["chmod"], on_deny="EACCES"
    )
    assert both.intersect(both) == both


@pytest.mark.parametrize("one", MODES)
@pytest.mark.parametrize("other", MODES)
def test_the_stricter_mode_counts(one: str, other: str) -> None:
    """Whoever wants the kernel's help gets it."""
    both = {one, other}
    strictest = "required" if "required" in both else "best-effort" if len(both) > 1 else one

    assert stricter(one, other, tuple(map(str, MODES))) == strictest


def test_words_are_checked() -> None:
    """Neither a mode nor an error can be misspelt."""
    with pytest.raises(ValueError, match="'lockdown' must be in"):
        Policy(lockdown="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'on_deny' must be in"):
        Syscalls(on_deny="EIO")  # type: ignore[arg-type]


def test_limits_tighten() -> None:
    """The smaller limit counts, and any limit is tighter than none."""
    one = Limits(wall_time=5.0, memory=None)
    other = Limits(wall_time=7.0, memory=1 << 20)

    assert one.intersect(other) == Limits(wall_time=5.0, memory=1 << 20)
    assert Limits().intersect(Limits()) == Limits()
