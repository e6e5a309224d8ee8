"""Tests of capabilities._policy and of how policies are shown."""

from __future__ import annotations

import pickle
import tomllib
from typing import TYPE_CHECKING

import attrs
from hypothesis import assume, given

from capabilities import (
    Audit,
    Clock,
    Environment,
    Filesystem,
    Grant,
    Limits,
    Network,
    Policy,
    PolicyError,
    Random,
    Syscalls,
)
from capabilities._model import LOGS, MODES, VIEWS
from tests.capabilities import strategies

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
version = 1
name = "thumbnailer"
lockdown = "best-effort"
view = "required"

[filesystem]
read_only = [
    "/srv/models::/models",
    "/usr/share/zoneinfo::/usr/share/zoneinfo",
]
read_write = [
    "/srv/out::/out",
]
inaccessible = [
    "/home",
]
exec = [
    "/usr/bin/sort::/usr/bin/sort",
]
devices = [
    "null",
    "urandom",
]
cwd = "/out"

[environment]
inherit = [
    "LANG",
    "TZ",
]
set = { "MODE" = "batch" }

[network]
connect = [
    "tcp://*:80",
    "tcp://*:443",
]
listen = [
    "tcp://*:8080",
]
unix = [
    "/run/log.sock::/log.sock",
]

[syscalls]
allow = [
    "@basic-io",
    "openat",
]
within = [
    [],
    ["@file-system", "read"],
]
deny = [
    "@chown",
    "chmod",
]
on_deny = "ENOSYS"

[limits]
wall_time = "10s"
cpu_time = "500ms"
memory = "256M"
output = "16M"
open_files = 64
processes = 8
threads = 4

[clock]
source = "fixed:2026-01-01T12:00:00.000250Z"

[random]
source = "seed:42"

[audit]
log = "all"
path = "/srv/audit.jsonl"
"""

POLICY = Policy(
    name="thumbnailer",
    filesystem=Filesystem(
        read_only=(
            Grant("/srv/models", "/models"),
            Grant("/usr/share/zoneinfo", "/usr/share/zoneinfo"),
        ),
        read_write=(Grant("/srv/out", "/out", read_write=True),),
        inaccessible=("/home",),
        exec=(Grant("/usr/bin/sort", "/usr/bin/sort"),),
        devices=("urandom", "null"),
        cwd="/out",
    ),
    environment=Environment(inherit=("LANG", "TZ"), set={"MODE": "batch"}),
    limits=Limits(
        wall_time=10.0,
        cpu_time=0.5,
        memory=256 << 20,
        open_files=64,
        output=16 << 20,
        processes=8,
        threads=4,
    ),
    network=Network(connect=(443, 80), listen=(8080,), unix=(Grant("/run/log.sock", "/log.sock"),)),
    syscalls=Syscalls(
        allow=["openat", "@basic-io"],
        within=[["read", "@file-system"], []],
        deny=["chmod", "@chown"],
        on_deny="ENOSYS",
    ),
    lockdown="best-effort",
    view="required",
    clock=Clock("fixed", 1_767_268_800_000_250_000),
    random=Random(42),
    audit=Audit("all", "/srv/audit.jsonl"),
)


def canonical(policy: Policy) -> Policy:
    """Return the policy with its grants in order."""
    files = policy.filesystem
    in_order = Filesystem.of(
        files.grants,
        inaccessible=files.inaccessible,
        exec=files.exec,
        devices=files.devices,
        cwd=files.cwd,
    )
    sockets = tuple(sorted(set(policy.network.unix)))
    return attrs.evolve(
        policy, filesystem=in_order, network=attrs.evolve(policy.network, unix=sockets)
    )


def test_a_file_becomes_a_policy(tmp_path: Path) -> None:
    """Every table of a file arrives in the policy."""
    file = tmp_path / "p.toml"
    file.write_text(TEXT)

    assert Policy.load(file) == POLICY


def test_show_is_canonical() -> None:
    """A policy shows as sorted, expanded TOML."""
    assert POLICY.show() == TEXT


def test_no_policy_grants_nothing() -> None:
    """Without a policy there is no file, no variable, and no limit to what is left."""
    none = Policy.none()

    assert none == Policy()
    assert none.filesystem.grants == ()
    assert none.environment == Environment(inherit=(), set={})
    assert none.limits == Limits(*[None] * 6)
    assert none.network == Network(connect=(), listen=(), unix=())
    assert none.syscalls == Syscalls(allow=None, within=(), deny=(), on_deny="EPERM")
    assert none.lockdown == "required"
    assert none.view == "auto"
    assert (none.clock, none.random) == (Clock("host"), Random(None))
    assert none.audit == Audit("none", None)
    assert none.show() == "version = 1\n"


@given(strategies.policies)
def test_shown_policies_load_again(policy: Policy) -> None:
    """What a policy shows loads as a policy that grants the same."""
    try:
        loaded = Policy.from_dict(tomllib.loads(policy.show()), "/")
    except PolicyError:  # two trees at one guest path, or narrowing: no file can say it
        assume(False)
    else:
        assert canonical(loaded) == canonical(policy)


@given(strategies.policies, strategies.policies)
def test_intersection_commutes(one: Policy, other: Policy) -> None:
    """The order of two policies does not matter."""
    assert one.intersect(other) == other.intersect(one)


@given(strategies.policies, strategies.policies, strategies.policies)
def test_intersection_associates(one: Policy, two: Policy, three: Policy) -> None:
    """It does not matter which two of three policies meet first."""
    assert one.intersect(two).intersect(three) == one.intersect(two.intersect(three))


@given(strategies.policies)
def test_intersection_with_itself_changes_nothing(policy: Policy) -> None:
    """A policy already is what it shares with itself."""
    assert policy.intersect(policy) == canonical(policy)


@given(strategies.policies, strategies.policies)
def test_intersection_never_widens(one: Policy, other: Policy) -> None:
    """Each grant, variable and limit of an intersection is within both policies."""
    both = one.intersect(other)

    for policy in (one, other):
        for grant in both.filesystem.grants:
            assert any(given.covers(grant) for given in policy.filesystem.grants)
        assert set(both.environment.inherit) <= set(policy.environment.inherit)
        assert both.environment.set.items() <= policy.environment.set.items()
        assert set(both.network.connect) <= set(policy.network.connect)
        assert set(both.network.listen) <= set(policy.network.listen)
        assert both.granted_calls(strategies.CATALOGUE) <= policy.granted_calls(
            strategies.CATALOGUE
        )
        for grant in both.filesystem.exec:
            assert any(given.covers(grant) for given in policy.filesystem.exec)
        assert set(both.network.unix) <= set(policy.network.unix)
        assert set(both.filesystem.devices) <= set(policy.filesystem.devices)
        for denied in policy.filesystem.inaccessible:
            assert both.filesystem.denial([denied]) is not None
        for limit, given_limit in attrs.asdict(policy.limits).items():
            if given_limit is not None:
                assert getattr(both.limits, limit) <= given_limit
        for part, words in (("lockdown", MODES), ("view", VIEWS)):
            assert words.index(getattr(both, part)) <= words.index(getattr(policy, part))
        assert LOGS.index(both.audit.log) <= LOGS.index(policy.audit.log)
        assert policy.clock in (both.clock, Clock()) or both.clock.source != "host"
        assert both.random == policy.random or both.random.seed is not None


@given(strategies.policies)
def test_nothing_is_shared_with_no_policy(policy: Policy) -> None:
    """What is shared with a policy that grants nothing is nothing, within the same limits."""
    none = Policy.none()
    both = policy.intersect(none)

    nothing = Filesystem(inaccessible=policy.filesystem.inaccessible)
    kept = {part: getattr(both, part) for part in ("name", "syscalls", "view", "clock", "random")}
    assert both == attrs.evolve(
        none, filesystem=nothing, limits=policy.limits, audit=policy.audit, **kept
    )
    assert both.granted_calls(strategies.CATALOGUE) <= none.granted_calls(strategies.CATALOGUE)


@given(strategies.policies)
def test_policies_are_plain_data(policy: Policy) -> None:
    """A policy pickles, and equal policies have one hash."""
    again = pickle.loads(pickle.dumps(policy))  # noqa: S301 (our own)

    assert again == policy
    assert hash(again) == hash(policy)


def test_policies_are_told_apart_by_what_they_say() -> None:
    """Where a policy comes from is kept for messages, and is no part of what it says."""
    data = {"version": 1}
    one, other = (Policy.from_dict(data, "/", source=source) for source in ("a.toml", "b.toml"))

    assert one == other
    assert hash(one) == hash(other)
    assert one.intersect(other).source == "a.toml and b.toml"
    assert one.intersect(one).source == "a.toml"
