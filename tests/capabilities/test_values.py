"""Tests of capabilities._values: what has more than one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities import Clock, Random, _values
from capabilities._model import LARGEST_SEED, LATEST_TIME


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:00Z", 1_767_225_600 * 10**9),
        ("2026-01-01T01:30:00+01:30", 1_767_225_600 * 10**9),
        ("2026-01-01T00:00:00.000001Z", 1_767_225_600 * 10**9 + 1000),
        ("20260101T000000Z", 1_767_225_600 * 10**9),
    ],
)
def test_fixed_time(written: str, nanoseconds: int) -> None:
    """A fixed time is one of ISO 8601, with its zone."""
    assert _values.clock(f"fixed:{written}") == Clock("fixed", nanoseconds)


@given(st.integers(0, LATEST_TIME // 1000))
def test_clocks_are_written_as_they_are_read(microseconds: int) -> None:
    """What is written for a clock reads as the same clock."""
    for clock in (Clock(), Clock("virtual"), Clock("fixed", microseconds * 1000)):
        assert _values.clock(_values.format_clock(clock)) == clock


@given(st.none() | st.integers(0, LARGEST_SEED))
def test_seeds_are_written_as_they_are_read(seed: int | None) -> None:
    """What is written for a source of random bytes reads as the same."""
    assert _values.random(_values.format_random(Random(seed))) == Random(seed)


@pytest.mark.parametrize(("source", "at"), [("host", 0), ("virtual", 0), ("fixed", None)])
def test_only_a_fixed_clock_has_a_time(source: str, at: int | None) -> None:
    """A time without its clock, and a clock without its time, are mistakes."""
    with pytest.raises(ValueError, match="a fixed clock has a time, and no other has one"):
        Clock(source, at)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [-1, LATEST_TIME + 1])
def test_times_are_those_of_wasi(at: int) -> None:
    """A time is what 64 bits of nanoseconds can say."""
    with pytest.raises(ValueError, match="it must be nanoseconds since 1970"):
        Clock("fixed", at)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("${DATA}/x", "/srv/data/x"),
        ("a${B}c", "/base/a-c"),
        ("${HOME}", "/home/other"),
        ("${DATA}/../${B}", "/srv/-"),
        ("$DATA", "/base/$DATA"),
        ("$$", "/base/$$"),
        ("~", "/home/somebody"),
        ("a/~", "/base/a/~"),
    ],
)
def test_host_path(written: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are the policy's own, not the environment's, and may begin with a home."""
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("DATA", "/elsewhere")
    variables = {"DATA": "/srv/data", "B": "-", "HOME": "/home/other"}

    assert _values.host_path(written, "/base", variables) == path
    assert _values.host_path("${H}/x", "/base", {"H": "~"}) == "/home/somebody/x"
