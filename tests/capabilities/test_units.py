"""Tests of capabilities._units: sizes and durations as text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities._units import (
    DURATION_FORM,
    LARGEST_SIZE,
    LONGEST_DURATION,
    SIZE_FORM,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    quote,
)
from tests import strategies


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1),
        (65536, 65536),
        ("2", 2),
        ("0256", 256),
        ("64K", 65536),
        ("256M", 256 * 1024**2),
        ("1G", 1024**3),
        ("16T", LARGEST_SIZE),
        (LARGEST_SIZE, LARGEST_SIZE),
    ],
)
def test_size(value: object, size: int) -> None:
    """A size is bytes, or a whole number with a binary unit."""
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "'' is not a size: " + SIZE_FORM),
        ("K", "'K' is not a size: " + SIZE_FORM),
        ("1.5G", "'1.5G' is not a size: " + SIZE_FORM),
        ("1KK", "'1KK' is not a size: " + SIZE_FORM),
        ("1 K", "'1 K' is not a size: " + SIZE_FORM),
        ("256m", "'256m' is not a size: " + SIZE_FORM),
        ("256MB", "'256MB' is not a size: " + SIZE_FORM),
        ("-1", "'-1' is not a size: " + SIZE_FORM),
        ("+1", "'+1' is not a size: " + SIZE_FORM),
        ("1_000", "'1_000' is not a size: " + SIZE_FORM),
        ("\u0661K", "'\u0661K' is not a size: " + SIZE_FORM),  # a digit, but not of ours
        ("0x10", "'0x10' is not a size: " + SIZE_FORM),
        (True, "true is not a size: " + SIZE_FORM),
        (1.0, "1.0 is not a size: " + SIZE_FORM),
        (None, "None is not a size: " + SIZE_FORM),
        (["1"], "['1'] is not a size: " + SIZE_FORM),
        (0, "0 is not a size above zero: " + SIZE_FORM),
        ("0K", "'0K' is not a size above zero: " + SIZE_FORM),
        (-5, "-5 is not a size above zero: " + SIZE_FORM),
        ("17T", "'17T' is more than 16T"),
        (LARGEST_SIZE + 1, f"{LARGEST_SIZE + 1} is more than 16T"),
    ],
)
def test_wrong_size(value: object, message: str) -> None:
    """What is no size is named, with the forms that are allowed."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared)
        parse_size(value)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("10s", 10.0),
        ("1.5m", 90.0),
        ("500ms", 0.5),
        ("2h", 7200.0),
        ("2", 2.0),
        ("0.25", 0.25),
        (10, 10.0),
        (0.001, 0.001),
        ("1ms", 0.001),
        (LONGEST_DURATION, LONGEST_DURATION),
    ],
)
def test_duration(value: object, seconds: float) -> None:
    """A duration is seconds, or a decimal number with a unit."""
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "'' is not a duration: " + DURATION_FORM),
        ("s", "'s' is not a duration: " + DURATION_FORM),
        (".5s", "'.5s' is not a duration: " + DURATION_FORM),
        ("5.s", "'5.s' is not a duration: " + DURATION_FORM),
        ("1.2.3s", "'1.2.3s' is not a duration: " + DURATION_FORM),
        ("5sm", "'5sm' is not a duration: " + DURATION_FORM),
        ("5 s", "'5 s' is not a duration: " + DURATION_FORM),
        ("1e3s", "'1e3s' is not a duration: " + DURATION_FORM),
        ("-1s", "'-1s' is not a duration: " + DURATION_FORM),
        ("inf", "'inf' is not a duration: " + DURATION_FORM),
        ("1d", "'1d' is not a duration: " + DURATION_FORM),
        (True, "true is not a duration: " + DURATION_FORM),
        (None, "None is not a duration: " + DURATION_FORM),
        (math.nan, "nan is not a duration: " + DURATION_FORM),
        ("0s", "'0s' is shorter than a millisecond: " + DURATION_FORM),
        (0, "0 is shorter than a millisecond: " + DURATION_FORM),
        (-1, "-1 is shorter than a millisecond: " + DURATION_FORM),
        (-math.inf, "-inf is shorter than a millisecond: " + DURATION_FORM),
        ("0.5ms", "'0.5ms' is shorter than a millisecond: " + DURATION_FORM),
        ("9000h", "'9000h' is longer than 366 days"),
        (math.inf, "inf is longer than 366 days"),
        (10**400, f"{'1' + 59 * '0'}... is longer than 366 days"),
    ],
    ids=lambda value: quote(value)[:40],
)
def test_wrong_duration(value: object, message: str) -> None:
    """What is no duration is named, with the forms that are allowed."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared)
        parse_duration(value)

    assert str(caught.value) == message


@pytest.mark.parametrize("number", ["9" * 33, "9" * 10_000], ids=len)
def test_endless_numbers_are_no_numbers(number: str) -> None:
    """A number longer than any that makes sense is not even converted."""
    for parse in (parse_size, parse_duration):
        with pytest.raises(ValueError, match="is not a"):
            parse(number)


@given(strategies.sizes)
def test_size_round_trip(size: int) -> None:
    """The text of a size is read as that size."""
    assert parse_size(format_size(size)) == size


@given(strategies.durations)
def test_duration_round_trip(seconds: float) -> None:
    """The text of a duration is read as exactly that duration."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7200.0, "2h"), (90.0, "90s"), (0.5, "500ms"), (1.5, "1500ms"), (0.0015, "0.0015s")],
)
def test_duration_text(seconds: float, text: str) -> None:
    """The text of a duration uses the largest unit that gives a whole number."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(1, "1"), (1 << 10, "1K"), (1536, "1536"), (3 << 30, "3G")]
)
def test_size_text(size: int, text: str) -> None:
    """The text of a size uses the largest unit that gives a whole number."""
    assert format_size(size) == text


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text())))
def test_anything_is_read_or_refused(value: object) -> None:
    """Whatever is given, the answer is a value in range or a ValueError of one line."""
    for parse, least in ((parse_size, 1), (parse_duration, 0.001)):
        try:
            assert parse(value) >= least
        except ValueError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 (either outcome is right)
