"""Single values of a policy file: what each may be, and the words for what it may not.

Every function raises ValueError with a message for the author of the policy.
"""

from __future__ import annotations

import datetime as dt
import os
import posixpath
import re
from collections.abc import Callable, Mapping

import attrs

from ._files import DEVICES, device_grant
from ._model import LARGEST_PORT, LARGEST_SEED, LATEST_TIME, SOURCES, Clock, Random
from ._units import format_size, parse_duration, parse_size, quote

# One page of Wasm: with less, no guest that has a memory starts.
SMALLEST_MEMORY = 64 << 10

PLACE_FORM = '"HOST" or "HOST::GUEST"'
ADDRESS_FORM = '"tcp://*:PORT", as in "tcp://*:443"'
CALL_FORM = 'a call such as "openat" or a group such as "@file-system"'
REFERENCE_FORM = 'a policy file, or a profile such as "profile:pure-compute"'
CLOCK_FORM = '"host", "virtual" or "fixed:TIME", as in "fixed:2026-01-01T00:00:00Z"'
RANDOM_FORM = f'"host" or "seed:NUMBER", from 0 to {LARGEST_SEED}, as in "seed:42"'

PROFILE = "profile:"
_FIXED = "fixed:"
_SEED = "seed:"

_CALL = re.compile("@[a-z][a-z0-9-]*|[a-z_][a-z0-9_]*")
_VARIABLE_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


@attrs.frozen(eq=False, repr=False)
class Place:
    """One entry of `read_only` and its like.

    Attributes:
        host: path on the host as it is written, perhaps relative, with `~` and `${VAR}` in it.
        guest: absolute, normalised path for the guest, or None if the entry gives none.
    """

    host: str
    guest: str | None


def kind(value: object) -> str:
    """Say what TOML calls a value."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a string"),
        (list, "a list"),
        (Mapping, "a table"),
        ((dt.date, dt.time), "a date or a time"),
    )
    names = (name for a_kind, name in kinds if isinstance(value, a_kind))
    return next(names, f"a {type(value).__name__}")


def text(value: object) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {kind(value)}")
    if "\0" in value:
        raise ValueError(f"{quote(value)} must not hold a NUL character")
    return value


def _string_of(value: object, form: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, {form}, not {kind(value)}")
    return value


def environment_name(value: object) -> str:
    """Read the name of an environment variable."""
    if not isinstance(value, str):
        raise ValueError(f"must be the name of a variable, a string, not {kind(value)}")
    if not value or "=" in value or "\0" in value:
        raise ValueError(
            f'{quote(value)} is no name of a variable: it is empty or holds "=" or NUL'
        )
    return value


def inherited_name(value: object) -> str:
    """Read the name of an environment variable of whoever starts a guest."""
    name = environment_name(value)
    if has_wildcard(name):
        raise ValueError(
            f"{quote(name)} holds a wildcard, and variables are inherited one by one: write each "
            "name"
        )
    return name


# --- paths ----------------------------------------------------------------------------------------


def place(value: object) -> Place:
    """Split `"HOST"` or `"HOST::GUEST"`."""
    entry = text(_string_of(value, PLACE_FORM))
    host, *guests = entry.split("::")
    if len(guests) > 1 or not host or "" in guests:
        raise ValueError(f'{quote(entry)} must be {PLACE_FORM}, with one "::" at most')
    _refuse_wildcard(host)
    return Place(host, guest_path(guests[0]) if guests else None)


def device(value: object) -> Place:
    """Read the name of a device, which is where every host has it."""
    grant = device_grant(choice(DEVICES)(value))
    return Place(grant.host, grant.guest)


def host_place(value: object) -> Place:
    """Read `"HOST"`, a path that the guest does not see under another name, if at all."""
    entry = text(_string_of(value, '"HOST"'))
    if not entry:
        raise ValueError(f'{quote(entry)} must be "HOST", a path')
    if "::" in entry:
        raise ValueError(f'{quote(entry)} must be "HOST": no guest finds it under another name')
    _refuse_wildcard(entry)
    return Place(entry, None)


def guest_path(value: object) -> str:
    """Read an absolute path of the guest's, and normalise it."""
    path = text(value)
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError(
            f'{quote(path)} must be absolute for the guest, as in "/data", without ".."'
        )
    _refuse_wildcard(path)
    return f"/{posixpath.normpath(path).lstrip('/')}"


def has_wildcard(text: str) -> bool:
    """Say whether a path or a name is a pattern to those who know patterns. Nothing here does."""
    return "*" in text or "?" in text


def _refuse_wildcard(path: str) -> None:
    if has_wildcard(path):
        raise ValueError(
            f"{quote(path)} holds a wildcard, which nothing enforces: write the folder around what "
            "is meant, or each path by itself"
        )


def host_path(written: str, base_dir: str, variables: Mapping[str, str]) -> str:
    """Return the absolute, normalised path that a written one means: `${VAR}` first, then `~`."""
    unclosed = _REFERENCE.sub("", written)
    if "${" in unclosed:
        raise ValueError(f'{quote(written)}: "${{" needs a name and "}}"')
    expanded = _REFERENCE.sub(lambda found: _value_of(found[1], written, variables), written)
    path = os.path.expanduser(expanded)
    if expanded.startswith("~") and not path.startswith("/"):
        raise ValueError(f"{quote(written)}: there is no such home directory; write the whole path")
    # normpath keeps two leading slashes, which Linux does not tell from one.
    return f"/{posixpath.normpath(posixpath.join(base_dir, path)).lstrip('/')}"


def _value_of(name: str, written: str, variables: Mapping[str, str]) -> str:
    if name not in variables:
        known = ", ".join(sorted(variables)) or "none"
        raise ValueError(
            f"{quote(written)}: [variables] has no {quote(name)}, and nothing else is expanded; "
            f"there: {known}"
        )
    return variables[name]


def variable_name(value: object) -> str:
    """Read the name of a variable of the policy's own."""
    if not isinstance(value, str) or not _VARIABLE_NAME.fullmatch(value):
        raise ValueError(
            f"{quote(value)} is no name of a variable: write letters, digits and _, no digit first"
        )
    return value


def variable_value(value: object) -> str:
    """Read the value of a variable of the policy's own: part of a host path."""
    if "${" in text(value):
        raise ValueError(f"{quote(value)} must be plain: a variable does not hold others")
    _refuse_wildcard(str(value))
    return str(value)


def reference(value: object) -> str:
    """Read what a policy extends: the path of a file, or the name of a profile."""
    name = text(_string_of(value, REFERENCE_FORM))
    if not name:
        raise ValueError(f"{quote(name)} must be {REFERENCE_FORM}")
    return name


# --- sockets and calls ----------------------------------------------------------------------------


def port(value: object) -> int:
    """Read `"tcp://*:PORT"`, the one form of an address that the kernel enforces."""
    address = _string_of(value, ADDRESS_FORM)
    scheme, separator, rest = address.partition("://")
    if not separator:
        raise ValueError(f"{quote(address)} is no address: write {ADDRESS_FORM}")
    if scheme == "unix":
        raise ValueError(f"{quote(address)}: unix sockets are granted by path, in network.unix")
    if scheme != "tcp":
        raise ValueError(
            f"{quote(address)}: what is enforced is TCP by port, so nothing would hold the guest "
            f"to {quote(scheme)}: write {ADDRESS_FORM}"
        )
    host, _, number = rest.rpartition(":")
    if not _is_port(number):
        raise ValueError(f"{quote(address)}: the port must be a number from 1 to {LARGEST_PORT}")
    if host != "*":
        raise ValueError(
            f"{quote(address)}: what is enforced is the port, for every address, so nothing would "
            f'hold the guest to {quote(host)}: write "tcp://*:{number}"'
        )
    return int(number)


def _is_port(digits: str) -> bool:
    plain = digits.isascii() and digits.isdigit() and len(digits) <= len(str(LARGEST_PORT))
    return plain and not digits.startswith("0") and int(digits) <= LARGEST_PORT


def call(value: object) -> str:
    """Check the form of an entry: a call, or a group. Whether there is one is the core's to say."""
    name = _string_of(value, CALL_FORM)
    if not _CALL.fullmatch(name):
        raise ValueError(f"{quote(name)} must be {CALL_FORM}")
    return name


# --- words and numbers ----------------------------------------------------------------------------


def choice(choices: tuple[str, ...]) -> Callable[[object], str]:
    """Return a function that reads one of some words."""
    *others, last = (f'"{word}"' for word in choices)
    allowed = f"{', '.join(others)} or {last}"

    def choose(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{quote(value)} is not known here: write {allowed}")
        return str(value)

    return choose


def count(least: int, most: int, what: str) -> Callable[[object], int]:
    """Return a function that reads a whole number between two."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(
                f"{quote(value)} is no number of {what}: write one from {least} to {most}"
            )
        return value

    return read


seconds = parse_duration
size = parse_size


def memory(value: object) -> int:
    """Read a size of a linear memory, in bytes."""
    bytes_ = parse_size(value)
    if bytes_ < SMALLEST_MEMORY:
        raise ValueError(f"{quote(value)} is less than {format_size(SMALLEST_MEMORY)}, one page")
    return bytes_


def clock(value: object) -> Clock:
    """Read where a guest's time comes from."""
    source = _string_of(value, CLOCK_FORM)
    if source.startswith(_FIXED):
        return Clock("fixed", _nanoseconds(source.removeprefix(_FIXED), source))
    for name in SOURCES:
        if source == name != "fixed":
            return Clock(name)
    raise ValueError(f"{quote(source)} is not known here: write {CLOCK_FORM}")


def _nanoseconds(written: str, whole: str) -> int:
    try:
        time = dt.datetime.fromisoformat(written)
        since = (time - _EPOCH) // _MICROSECOND * 1000
    except (ValueError, TypeError):  # TypeError: without its zone it cannot be compared
        raise ValueError(f"{quote(whole)} is no time with its zone: write {CLOCK_FORM}") from None
    if not 0 <= since <= LATEST_TIME:
        raise ValueError(f"{quote(whole)} is no time from 1970 to 2554, which is what WASI can say")
    return since


def format_clock(value: Clock) -> str:
    """Return the text from which `clock` makes the same."""
    if value.at is None:
        return value.source
    time = _EPOCH + dt.timedelta(microseconds=value.at // 1000)
    return f"{_FIXED}{time.replace(tzinfo=None).isoformat()}Z"


def random(value: object) -> Random:
    """Read where a guest's random bytes come from."""
    source = _string_of(value, RANDOM_FORM)
    if source == "host":
        return Random()
    digits = source.removeprefix(_SEED)
    plain = digits.isascii() and digits.isdigit() and len(digits) <= len(str(LARGEST_SEED))
    if not source.startswith(_SEED) or not plain or int(digits) > LARGEST_SEED:
        raise ValueError(f"{quote(source)} is not known here: write {RANDOM_FORM}")
    return Random(int(digits))


def format_random(value: Random) -> str:
    """Return the text from which `random` makes the same."""
    return "host" if value.seed is None else f"{_SEED}{value.seed}"
