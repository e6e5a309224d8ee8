"""capabilities/schema.json, which editors use, says the same as the loader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

import capabilities
from capabilities import _profiles, _values, parse_duration, parse_size
from capabilities._document import TABLES, VERSION
from capabilities._files import DEVICES
from capabilities._model import (
    FEWEST_FILES,
    LINKS,
    LOGS,
    MODES,
    MOST_FILES,
    MOST_PROCESSES,
    MOST_THREADS,
    ON_DENY,
    VIEWS,
)
from capabilities._units import LARGEST_SIZE, LONGEST_DURATION, SHORTEST_DURATION

SCHEMA: dict[str, Any] = json.loads(
    (Path(capabilities.__file__).parent / "schema.json").read_text()
)
LIMITS = SCHEMA["properties"]["limits"]["properties"]


def table_schema(table: str) -> dict[str, Any]:
    """Return the part of the schema that describes a table."""
    part: dict[str, Any] = SCHEMA["properties"][table] if table else SCHEMA
    return part


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table or "top")
def test_keys(table: str) -> None:
    """Each table has the same keys, in the same order, and no others are allowed."""
    part = table_schema(table)

    assert list(part["properties"]) == list(attrs.fields_dict(TABLES[table]))
    assert part["additionalProperties"] is False


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table or "top")
def test_keys_are_documented(table: str) -> None:
    """The page on policies has a row for each key that is not a table."""
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    for key in attrs.fields_dict(TABLES[table]):
        if key not in TABLES:
            assert f"\n| `{f'{table}.{key}' if table else key}` | " in page


def test_profiles_are_documented() -> None:
    """So have all the policies that come with the package."""
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()

    assert [f"| `{name}` |" in page for name in _profiles.names()] == [True] * 3


def test_version() -> None:
    """The version is the one that the loader takes, and the only key that must be there."""
    assert SCHEMA["properties"]["version"]["const"] == VERSION
    assert SCHEMA["required"] == ["version"]


def test_choices() -> None:
    """Where a key takes one of some words, they are the same words."""
    assert SCHEMA["properties"]["lockdown"]["enum"] == list(MODES)
    assert SCHEMA["properties"]["view"]["enum"] == list(VIEWS)
    assert SCHEMA["properties"]["links"]["enum"] == list(LINKS)
    files = SCHEMA["properties"]["filesystem"]["properties"]
    assert files["devices"]["items"]["enum"] == list(DEVICES)
    assert SCHEMA["properties"]["syscalls"]["properties"]["on_deny"]["enum"] == list(ON_DENY)
    assert SCHEMA["properties"]["audit"]["properties"]["log"]["enum"] == list(LOGS)


def test_bounds() -> None:
    """Numbers have the same bounds."""
    number, _ = LIMITS["wall_time"]["anyOf"]
    assert (number["minimum"], number["maximum"]) == (SHORTEST_DURATION, LONGEST_DURATION)
    assert LIMITS["cpu_time"]["anyOf"] == LIMITS["wall_time"]["anyOf"]
    for key, least in (("memory", _values.SMALLEST_MEMORY), ("output", 1)):
        number, _ = LIMITS[key]["anyOf"]
        assert (number["minimum"], number["maximum"]) == (least, LARGEST_SIZE)
    files, processes = LIMITS["open_files"], LIMITS["processes"]
    assert (files["minimum"], files["maximum"]) == (FEWEST_FILES, MOST_FILES)
    assert (processes["minimum"], processes["maximum"]) == (1, MOST_PROCESSES)
    assert (LIMITS["threads"]["minimum"], LIMITS["threads"]["maximum"]) == (1, MOST_THREADS)


@pytest.mark.parametrize(
    ("pattern", "parse", "texts"),
    [
        pytest.param(
            LIMITS["wall_time"]["anyOf"][1]["pattern"],
            parse_duration,
            ["1", "1s", "1.5m", "20ms", "1h", "", "s", "1.", ".5", "1x", "1 s", "-1s"],
            id="duration",
        ),
        pytest.param(
            LIMITS["memory"]["anyOf"][1]["pattern"],
            parse_size,
            ["1", "1K", "1M", "1G", "1T", "", "K", "1.5K", "1k", "1KB", "-1"],
            id="size",
        ),
        pytest.param(
            SCHEMA["$defs"]["tree"]["pattern"],
            _values.place,
            [
                *("a", "/a", "a::/", "a::/b", "a:b::/c:d", "", "::/a", "a::", "a::b", "a::/b::/c"),
                *("/a*", "/a?::/b", "/a::/b*", "/a[0-9]"),
            ],
            id="tree",
        ),
        pytest.param(
            SCHEMA["$defs"]["port"]["pattern"],
            _values.port,
            [
                *(f"tcp://*:{port}" for port in (0, 1, 9, 10, 9999, 10000, 59999, 60000, 64999)),
                *(f"tcp://*:{port}" for port in (65000, 65499, 65500, 65529, 65530, 65535, 65536)),
                *("tcp://*:01", "tcp://*:100000", "tcp://*:", "tcp://*", "tcp://:1", "*:1", "1"),
                *("udp://*:1", "tcp://a:1", "tcp://*:*", "TCP://*:1", "tcp://*:1 ", "tcp:/*:1"),
            ],
            id="port",
        ),
        pytest.param(
            SCHEMA["$defs"]["calls"]["items"]["pattern"],
            _values.call,
            [
                *("open", "openat2", "_llseek", "pread64", "@sync", "@io-event", "@a1", "x_y"),
                *("", "@", "@@a", "@-a", "@a_b", "a-b", "Open", "oPen", "~open", "open ", "2open"),
                *("@A", "a.b", "a:b", "é", "@é", "SYS_open"),
            ],
            id="call",
        ),
        pytest.param(
            SCHEMA["$defs"]["path"]["pattern"],
            _values.host_place,
            ["a", "/a", "~/a", "${A}/b", "a:b", "", "a::/b", "::", "/a*", "?"],
            id="path",
        ),
        pytest.param(
            SCHEMA["properties"]["variables"]["propertyNames"]["pattern"],
            _values.variable_name,
            ["A", "a_1", "_", "", "1", "A B", "é", "A-B"],
            id="variable",
        ),
        pytest.param(
            SCHEMA["properties"]["variables"]["additionalProperties"]["pattern"],
            _values.variable_value,
            ["", "/a", "a*", "?"],
            id="value",
        ),
        pytest.param(
            SCHEMA["properties"]["environment"]["properties"]["inherit"]["items"]["pattern"],
            _values.inherited_name,
            ["PATH", "a b", "LC_*", "L?", "", "A=B"],
            id="inherited",
        ),
        pytest.param(
            SCHEMA["properties"]["filesystem"]["properties"]["cwd"]["pattern"],
            _values.guest_path,
            ["/", "/a/b", "", "a", "/*"],
            id="cwd",
        ),
        pytest.param(
            SCHEMA["properties"]["clock"]["properties"]["source"]["pattern"],
            _values.clock,
            ["host", "virtual", "fixed:2026-01-01T00:00:00Z", "", "fixed", "fixed:", "Host", "utc"],
            id="clock",
        ),
        pytest.param(
            SCHEMA["properties"]["random"]["properties"]["source"]["pattern"],
            _values.random,
            ["host", "seed:0", "seed:42", "", "seed", "seed:", "seed:x", "seed:-1", "42"],
            id="random",
        ),
    ],
)
def test_patterns(pattern: str, parse: Any, texts: list[str]) -> None:
    """A text matches a pattern exactly if the loader takes it."""

    def is_taken(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    assert {text: bool(re.search(pattern, text)) for text in texts} == {
        text: is_taken(text) for text in texts
    }
