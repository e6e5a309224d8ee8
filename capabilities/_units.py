"""Sizes and durations as people write them.

The command line reads its options with this module, so it imports nothing that takes time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIZE_UNITS = {"T": 1 << 40, "G": 1 << 30, "M": 1 << 20, "K": 1 << 10, "": 1}
# Multiplier and divisor: a thousandth has no exact float to multiply with.
DURATION_UNITS = {"h": (3600, 1), "m": (60, 1), "s": (1, 1), "ms": (1, 1000), "": (1, 1)}

# Beyond these a value is a slip of the keyboard. Both are far from where int and float arithmetic,
# or the kernel's own counters, would begin to round or wrap.
LARGEST_SIZE = 16 << 40
LONGEST_DURATION = 366 * 86400.0
SHORTEST_DURATION = 0.001

SIZE_FORM = 'write a whole number of bytes, or one with K, M, G or T (binary units), as in "256M"'
DURATION_FORM = 'write a number of seconds, or one with ms, s, m or h, as in "1.5m"'

_DIGITS = frozenset("0123456789")
_LONGEST_NUMBER = 32
_LONGEST_QUOTE = 60


def parse_size(value: object) -> int:
    """Return a size in bytes, at least 1.

    Args:
        value: an int (bytes), or a string: a whole number, alone (bytes) or followed by K, M, G or
            T (binary units: `"1K"` is 1024).

    Raises:
        ValueError: it is not a size, is zero or negative, or is above 16T; the message says what to
            write instead.
    """
    size = _size(value)
    if size is None:
        raise ValueError(f"{quote(value)} is not a size: {SIZE_FORM}")
    if size < 1:
        raise ValueError(f"{quote(value)} is not a size above zero: {SIZE_FORM}")
    if size > LARGEST_SIZE:
        raise ValueError(f"{quote(value)} is more than {format_size(LARGEST_SIZE)}")
    return size


def parse_duration(value: object) -> float:
    """Return a duration in seconds, at least a millisecond.

    Args:
        value: an int or a float (seconds), or a string: a decimal number, alone (seconds) or
            followed by ms, s, m or h.

    Raises:
        ValueError: it is not a duration, is below a millisecond, or is above 366 days; the message
            says what to write instead.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"{quote(value)} is not a duration: {DURATION_FORM}")
    if seconds < SHORTEST_DURATION:
        raise ValueError(f"{quote(value)} is shorter than a millisecond: {DURATION_FORM}")
    if seconds > LONGEST_DURATION:
        raise ValueError(f"{quote(value)} is longer than 366 days")
    return seconds


def format_size(size: int) -> str:
    """Return the shortest text from which `parse_size` makes exactly `size` bytes."""
    suffix, unit = next(item for item in SIZE_UNITS.items() if size % item[1] == 0)
    return f"{size // unit}{suffix}"


def format_duration(seconds: float) -> str:
    """Return text from which `parse_duration` makes exactly `seconds`, in whole units if it can."""
    for suffix, (multiplier, divisor) in DURATION_UNITS.items():
        text = f"{round(seconds * divisor / multiplier)}{suffix}"
        if _seconds(text) == seconds:
            return text
    return f"{seconds!r}s"


def quote(value: object) -> str:
    """Return a value for a message, cut short if it is long: near to how TOML has it."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    if hasattr(value, "isoformat"):  # a date or a time
        text = value.isoformat()
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def _size(value: object) -> int | None:
    if isinstance(value, str):
        number, suffix = _split(value, SIZE_UNITS)
        valid = _is_whole(number) and suffix in SIZE_UNITS
        return int(number) * SIZE_UNITS[suffix] if valid else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        number, suffix = _split(value, DURATION_UNITS)
        if not _is_decimal(number) or suffix not in DURATION_UNITS:
            return None
        multiplier, divisor = DURATION_UNITS[suffix]
        return float(number) * multiplier / divisor
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if value != value:  # noqa: PLR0124 (NaN alone is not equal to itself)
        return None
    # Bounded first: an int can be too large for a float.
    return float(min(max(value, -1), 2 * LONGEST_DURATION))


def _split(text: str, units: Iterable[str]) -> tuple[str, str]:
    """Split into what may be a number and what may be a unit."""
    number = text.rstrip("".join(units))
    return number, text[len(number) :]


def _is_whole(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NUMBER and _DIGITS.issuperset(text)


def _is_decimal(text: str) -> bool:
    whole, point, fraction = text.partition(".")
    return len(text) <= _LONGEST_NUMBER and (
        _is_whole(whole) and (not point or _is_whole(fraction))
    )
