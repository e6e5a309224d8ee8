"""capabilities/schema.json, which editors use, says the same as the loader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
from tests.capabilities.validation import Schema

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
    number, _ = SCHEMA["$defs"]["duration"]["anyOf"]
    assert (number["minimum"], number["maximum"]) == (SHORTEST_DURATION, LONGEST_DURATION)
    for key in ("wall_time", "cpu_time"):
        assert LIMITS[key]["$ref"] == "#/$defs/duration"
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
            SCHEMA["$defs"]["duration"]["anyOf"][1]["pattern"],
            parse_duration,
            [
                *(
                    "1",
                    "1s",
                    "1.5m",
                    "20ms",
                    "1h",
                    "",
                    "s",
                    "1.",
                    ".5",
                    "1x",
                    "1 s",
                    "-1s",
                    "0",
                    "0h",
                ),
                *("0.001", "0.0009", "00.01", "1ms", "0.9ms", "31622400", "31622400.0", "31622401"),
                *("366", "8784h", "8784.5h", "8785h", "527040m", "527041m", "31622400000ms"),
                *("31622400.5", "31622400001ms", f"{'0' * 31}1", f"{'0' * 32}1", f"0.{'0' * 31}1"),
            ],
            id="duration",
        ),
        pytest.param(
            LIMITS["memory"]["anyOf"][1]["pattern"],
            _values.memory,
            [
                *("1", "65535", "65536", "63K", "64K", "1M", "1G", "1T", "", "K", "64.5K", "64k"),
                *("64KB", "-65536", "0", "0G", "16T", "17T", "16384G", "16385G", "16777217M"),
                *("17179869184K", "17179869185K", "17592186044416", "17592186044417", "064K"),
            ],
            id="memory",
        ),
        pytest.param(
            LIMITS["output"]["anyOf"][1]["pattern"],
            parse_size,
            ["1", "0", "0K", "1K", "16T", "17T", "", "K", f"{'0' * 31}1", f"{'0' * 32}1"],
            id="size",
        ),
        pytest.param(
            SCHEMA["$defs"]["tree"]["pattern"],
            _values.place,
            [
                *("a", "/a", "a::/", "a::/b", "a:b::/c:d", "", "::/a", "a::", "a::b", "a::/b::/c"),
                *(
                    "/a*",
                    "/a?::/b",
                    "/a::/b*",
                    "/a[0-9]",
                    "a::/..",
                    "a::/b/../c",
                    "a::/b..",
                    "../a",
                ),
                *("a\0", "a::/\0", "a::/b:", "a:::/b"),
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
            ["a", "/a", "~/a", "${A}/b", "a:b", "", "a::/b", "::", "/a*", "?", "a\0b"],
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
            ["", "/a", "a*", "?", "${A}", "$A", "a\0"],
            id="value",
        ),
        pytest.param(
            SCHEMA["properties"]["environment"]["properties"]["inherit"]["items"]["pattern"],
            _values.inherited_name,
            ["PATH", "a b", "LC_*", "L?", "", "A=B", "A\0"],
            id="inherited",
        ),
        pytest.param(
            SCHEMA["properties"]["filesystem"]["properties"]["cwd"]["pattern"],
            _values.guest_path,
            ["/", "/a/b", "", "a", "/*", "/..", "/a/../b", "/..a", "/a\0"],
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
            [
                *("host", "seed:0", "seed:42", "", "seed", "seed:", "seed:x", "seed:-1", "42"),
                *("seed:007", f"seed:{'0' * 21}", f"seed:{2**64 - 1}", f"seed:{2**64}"),
            ],
            id="random",
        ),
    ],
)
def test_patterns(pattern: str, parse: Any, texts: list[str]) -> None:
    """A text matches a pattern exactly if the loader takes it."""

    def is_right(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    assert {text: bool(re.search(pattern, text)) for text in texts} == {
        text: is_right(text) for text in texts
    }


# --- the whole ------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("", "a", "/a", "~/a", "a::/b", "a::/../b", "${A}", "${B", "a*", "a\0", "..", "/", "::"),
        *("tcp://*:80", "tcp://*:0", "tcp://*:65536", "unix:///a", "openat", "@sync", "Open"),
        *("null", "tty", "PATH", "A=B", "host", "virtual", "seed:1", f"seed:{2**64}", "log"),
        *("kill", "EPERM", "off", "required", "auto", "none", "all", "followed", "refused"),
        *("64K", "63K", "0", "1", "16T", "17T", "1ms", "0ms", "366h", "9000h", "1.5m", "1s\n"),
        *("profile:server", "profile:none", "fixed:2026-01-01T00:00:00Z", "fixed:2026", "x\n"),
    ]
)
NUMBERS = st.sampled_from([0, 1, 2, 3, 0.5, 1.5, 0.0001, 4096, 4097, 32768, 65535, 65536, 10**14])
SCALARS = WORDS | NUMBERS | st.booleans()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Draw TOML data with some keys of the schema, each of which often has a value of its kind."""
    document: dict[str, Any] = {"version": draw(st.sampled_from([1, 1, 1, 1, 2, "1"]))}
    for table, kind in draw(st.lists(st.sampled_from([*TABLES.items()]), max_size=4)):
        into = document.setdefault(table, {}) if table else document
        keys = [key for key in attrs.fields_dict(kind) if key not in (*TABLES, "version")]
        for key in draw(st.lists(st.sampled_from(keys), max_size=3)):
            into[key] = draw(VALUES | st.lists(WORDS, max_size=2) | st.sampled_from(OFTEN[key]))
    return document


OFTEN: dict[str, list[Any]] = {
    **{key: [["/a"], ["/b::/b"], []] for key in ("read_only", "read_write", "exec", "unix")},
    **{key: [["tcp://*:80"]] for key in ("connect", "listen")},
    **{key: ["1s", 2, 0.5] for key in ("wall_time", "cpu_time")},
    **{key: ["64K", "1G", 70000] for key in ("memory", "output")},
    **{key: [3, 4, 1024] for key in ("open_files", "processes", "threads")},
    **{key: [["read"], ["@sync"]] for key in ("allow", "deny")},
    "within": [[["read"]]],
    "on_deny": ["log", "kill"],
    "log": list(LOGS),
    "path": ["/log"],
    "inaccessible": [["/d"]],
    "devices": [["null"]],
    "cwd": ["/a"],
    "inherit": [["LANG"]],
    "set": [{"A": "b"}],
    "source": ["host", "virtual", "seed:1"],
    "name": ["x"],
    "extends": [[], ["profile:server"]],
    "lockdown": list(MODES),
    "view": list(VIEWS),
    "links": list(LINKS),
    "variables": [{"A": "b"}],
}

# What docs/policy.md says that the schema cannot: what keys have to do with each other, and with
# what there is. Each by words of its message.
BEYOND = re.compile(
    "is granted to the guest by|narrow|remove one of the two|lets the guest change|has no '"
    "|needs a name and|home directory|cannot be read|is not granted by|is less than the"
    "|is more than the|is the file of|is not that of|is no time with its zone"
)


def is_taken(document: dict[str, Any]) -> bool:
    """Return whether the loader takes a document, or finds nothing wrong but what is beyond."""
    try:
        capabilities.Policy.from_dict(document, "/nowhere")
    except capabilities.PolicyError as error:
        return all(BEYOND.search(problem.message) for problem in error.problems)
    return True


def _is_whole(value: object) -> bool:
    """Return whether no number in a value is one that TOML alone tells from a whole one."""
    if isinstance(value, dict):
        return all(map(_is_whole, value.values()))
    if isinstance(value, list):
        return all(map(_is_whole, value))
    return not isinstance(value, float) or value != int(value)


@settings(max_examples=400)
@given(documents())
def test_the_schema_takes_what_the_loader_takes(document: dict[str, Any]) -> None:
    """No more, and no less, but for what no schema can say."""
    assume(_is_whole(document))

    assert Schema(SCHEMA).takes(document) is is_taken(document)
