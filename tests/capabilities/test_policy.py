"""Tests of capabilities._policy and of how policies are shown."""

from __future__ import annotations

import pickle
import tomllib
from typing import TYPE_CHECKING

import attrs
from hypothesis import assume, given

from capabilities import Environment, Filesystem, Grant, Limits, Policy, PolicyError
from tests import strategies

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
version = 1
name = "thumbnailer"

[filesystem]
read_only = [
    "/srv/models::/models",
    "/usr/share/zoneinfo::/usr/share/zoneinfo",
]
read_write = [
    "/srv/out::/out",
]

[environment]
inherit = [
    "LANG",
    "TZ",
]
set = { "MODE" = "batch" }

[limits]
wall_time = "10s"
memory = "256M"
"""

POLICY = Policy(
    name="thumbnailer",
    filesystem=Filesystem(
        read_only=(
            Grant("/srv/models", "/models"),
            Grant("/usr/share/zoneinfo", "/usr/share/zoneinfo"),
        ),
        read_write=(Grant("/srv/out", "/out", read_write=True),),
    ),
    environment=Environment(inherit=("LANG", "TZ"), set={"MODE": "batch"}),
    limits=Limits(wall_time=10.0, memory=256 << 20),
)


def canonical(policy: Policy) -> Policy:
    """Return the policy with its grants in order."""
    return attrs.evolve(policy, filesystem=Filesystem.of(policy.filesystem.grants))


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
    assert none.limits == Limits(wall_time=None, memory=None)
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
        for limit in ("wall_time", "memory"):
            given_limit = getattr(policy.limits, limit)
            if given_limit is not None:
                assert getattr(both.limits, limit) <= given_limit


@given(strategies.policies)
def test_nothing_is_shared_with_no_policy(policy: Policy) -> None:
    """What is shared with a policy that grants nothing is nothing, within the same limits."""
    both = policy.intersect(Policy.none())

    assert both == attrs.evolve(Policy.none(), name=both.name, limits=policy.limits)


@given(strategies.policies)
def test_policies_are_plain_data(policy: Policy) -> None:
    """A policy pickles, and equal policies have one hash."""
    again = pickle.loads(pickle.dumps(policy))  # noqa: S301 (our own)

    assert again == policy
    assert hash(again) == hash(policy)
