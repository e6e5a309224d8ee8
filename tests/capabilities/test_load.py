"""Tests of capabilities._load and _document: every mistake, by the text that its author reads."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities import Filesystem, Grant, Limits, Policy, PolicyError, Problem
from capabilities._document import read
from capabilities._load import LARGEST_FILE
from capabilities._structure import structure
from capabilities._units import DURATION_FORM, SIZE_FORM
from tests.capabilities import strategies

if TYPE_CHECKING:
    from pathlib import Path

VIEW = '"required", "auto" or "off"'
LOG = '"all", "denied" or "none"'
CLOCK = '"host", "virtual" or "fixed:TIME", as in "fixed:2026-01-01T00:00:00Z"'
RANDOM = '"host" or "seed:NUMBER", from 0 to 18446744073709551615, as in "seed:42"'
REFERENCE = 'a policy file, or a profile such as "profile:pure-compute"'
NO_PATH = "is missing: write the file that lines are added to"
CALL = 'a call such as "openat" or a group such as "@file-system"'
ADDRESS = '"tcp://*:PORT", as in "tcp://*:443"'
NO_STRING = "must be a string"
NUMBER = "not a number"
WILDCARD = (
    "holds a wildcard, which nothing enforces: write the folder around what is meant, or each path "
    "by itself"
)
CATALOGUE = {"openat": "@file-system", "openat2": "@file-system", "read": "@basic-io"}
NO_NAME = 'is no name of a variable: it is empty or holds "=" or NUL'


def problems(text: str) -> list[str]:
    """Return the lines of what is wrong with a policy that lies in `/base`, without the file."""
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(tomllib.loads(text), "/base", source="FILE", catalogue=CATALOGUE)
    return [line.removeprefix("FILE: ") for line in str(caught.value).splitlines()]


def filesystem(text: str) -> Filesystem:
    """Return what a policy in `/base` grants, given the lines of its table."""
    data = tomllib.loads(f"version = 1\n[filesystem]\n{text}")
    return Policy.from_dict(data, "/base").filesystem


@pytest.mark.parametrize(
    ("entry", "host", "guest"),
    [
        ("/usr/share", "/usr/share", "/usr/share"),
        ("./models::/models", "/base/models", "/models"),
        ("models", "/base/models", "/base/models"),
        (".::/", "/base", "/"),
        ("../up::/up", "/up", "/up"),
        ("/::/host", "/", "/host"),
        ("//srv//x/::///d//e/./", "/srv/x", "/d/e"),
        ("~/data::/data", "/home/somebody/data", "/data"),
        ("~::/home", "/home/somebody", "/home"),
        ("./~::/tilde", "/base/~", "/tilde"),
        ("a:b::/c:d", "/base/a:b", "/c:d"),
        ("/é ü::/é", "/é ü", "/é"),
    ],
)
def test_entry(entry: str, host: str, guest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry is HOST or HOST::GUEST: host paths start where the policy lies, `~` is a home."""
    monkeypatch.setenv("HOME", "/home/somebody")

    assert filesystem(f"read_only = ['{entry}']").grants == (Grant(host, guest),)
    assert filesystem(f"read_write = ['{entry}']").grants == (Grant(host, guest, read_write=True),)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("''", """'' must be "HOST" or "HOST::GUEST", with one "::" at most"""),
        ("'::/a'", """'::/a' must be "HOST" or "HOST::GUEST", with one "::" at most"""),
        ("'/a::'", """'/a::' must be "HOST" or "HOST::GUEST", with one "::" at most"""),
        ("'a::/b::ro'", """'a::/b::ro' must be "HOST" or "HOST::GUEST", with one "::" at most"""),
        (
            '"a\\u0000b"',
            "'a\\x00b' must not hold a NUL character",
        ),
        ("3", 'must be a string, "HOST" or "HOST::GUEST", not a number'),
        ("{}", 'must be a string, "HOST" or "HOST::GUEST", not a table'),
        ("'a::b'", """'b' must be absolute for the guest, as in "/data", without "..\""""),
        (
            "'a::/b/../c'",
            """'/b/../c' must be absolute for the guest, as in "/data", without "..\"""",
        ),
        (
            "'${D}/a'",
            "'${D}/a': [variables] has no 'D', and nothing else is expanded; there: none",
        ),
        ("'/a/${D'", """'/a/${D': "${" needs a name and "}\""""),
        (
            "'a::/${D}/../b'",
            """'/${D}/../b' must be absolute for the guest, as in "/data", without "..\"""",
        ),
        ("'~~/a'", "'~~/a': there is no such home directory; write the whole path"),
        *(
            (f"'{entry}'", f"{quoted!r} {WILDCARD}")
            for entry, quoted in (("/a*", "/a*"), ("/?/b", "/?/b"), ("/a::/*", "/*"))
        ),
    ],
)
def test_wrong_entry(entry: str, message: str) -> None:
    """A wrong entry is named by its place in the list."""
    text = f"version = 1\n[filesystem]\nread_only = ['/ok', {entry}]"

    assert problems(text) == [f"filesystem.read_only[1]: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "version: is missing: write version = 1"),
        ("version = 2", "version: 2 is not known here: write version = 1"),
        ("version = '1'", "version: '1' is not known here: write version = 1"),
        ("version = true", "version: true is not known here: write version = 1"),
        ("version = 1.0", "version: 1.0 is not known here: write version = 1"),
        ("version = 1\nname = 3", "name: must be a string, not a number"),
        ("version = 1\nname = true", "name: must be a string, not true or false"),
        ("version = 1\nname = 2026-01-01", "name: must be a string, not a date or a time"),
        ("version = 1\nname = 'x'\nfilesystem = 3", "filesystem: must be a table, not a number"),
        ("version = 1\n[[limits]]", "limits: must be a table, not a list"),
        (
            "version = 1\nfilesystem.read_only = '/a'",
            "filesystem.read_only: must be a list of strings, not a string",
        ),
        (
            "version = 1\nfilesystem.read_write = { a = 1 }",
            "filesystem.read_write: must be a list of strings, not a table",
        ),
        (
            "version = 1\nenvironment.inherit = 'PATH'",
            "environment.inherit: must be a list of strings, not a string",
        ),
        (
            "version = 1\nenvironment.inherit = ['A', 3]",
            "environment.inherit[1]: must be the name of a variable, a string, not a number",
        ),
        (
            "version = 1\nenvironment.inherit = ['A=B']",
            f"environment.inherit[0]: 'A=B' {NO_NAME}",
        ),
        (
            "version = 1\nenvironment.inherit = ['PATH*']",
            (
                "environment.inherit[0]: 'PATH*' holds a wildcard, and variables are inherited one "
                "by one: write each name"
            ),
        ),
        ("version = 1\nvariables.A = '/a*'", f"variables.A: '/a*' {WILDCARD}"),
        ("version = 1\naudit.path = '*.jsonl'", f"audit.path: '*.jsonl' {WILDCARD}"),
        ("version = 1\nfilesystem.cwd = '/?'", f"filesystem.cwd: '/?' {WILDCARD}"),
        (
            "version = 1\nlockdown = 'off'\nnetwork.unix = ['/x']",
            (
                'network.unix: lockdown = "off" is in its way; it takes Landlock: without it '
                "sockets with abstract names could be connected to"
            ),
        ),
        (
            "version = 1\nview = 'off'\nnetwork.unix = ['/x']",
            (
                'network.unix: view = "off" is in its way; it takes a view: without one any unix '
                "socket of the host's could be connected to"
            ),
        ),
        (
            "version = 1\nenvironment.set = ['A=B']",
            "environment.set: must be a table of strings, not a list",
        ),
        (
            "version = 1\nenvironment.set = { A = 3 }",
            "environment.set.A: must be a string, not a number",
        ),
        (
            "version = 1\nenvironment.set = { 'A.B' = true }",
            "environment.set.'A.B': must be a string, not true or false",
        ),
        (
            'version = 1\nenvironment.set = { A = "x\\u0000" }',
            "environment.set.A: 'x\\x00' must not hold a NUL character",
        ),
        (
            "version = 1\nenvironment.set = { '' = 'x' }",
            f"environment.set.'': '' {NO_NAME}",
        ),
        (
            "version = 1\nlimits.wall_time = '0s'",
            f"limits.wall_time: '0s' is shorter than a millisecond: {DURATION_FORM}",
        ),
        (
            "version = 1\nlimits.wall_time = -1",
            f"limits.wall_time: -1 is shorter than a millisecond: {DURATION_FORM}",
        ),
        (
            "version = 1\nlimits.wall_time = nan",
            f"limits.wall_time: nan is not a duration: {DURATION_FORM}",
        ),
        (
            "version = 1\nlimits.wall_time = '9999h'",
            "limits.wall_time: '9999h' is longer than 366 days",
        ),
        ("version = 1\nlimits.memory = '1MB'", f"limits.memory: '1MB' is not a size: {SIZE_FORM}"),
        ("version = 1\nlimits.memory = '63K'", "limits.memory: '63K' is less than 64K, one page"),
        ("version = 1\nlimits.memory = '99T'", "limits.memory: '99T' is more than 16T"),
        (
            "version = 1\nlimits.cpu_time = '1d'",
            f"limits.cpu_time: '1d' is not a duration: {DURATION_FORM}",
        ),
        (
            "version = 1\nlimits.output = 0",
            f"limits.output: 0 is not a size above zero: {SIZE_FORM}",
        ),
        (
            "version = 1\nlimits.open_files = 2",
            "limits.open_files: 2 is no number of descriptors: write one from 3 to 4096",
        ),
        (
            "version = 1\nlimits.open_files = '64'",
            "limits.open_files: '64' is no number of descriptors: write one from 3 to 4096",
        ),
        (
            "version = 1\nlimits.processes = true",
            "limits.processes: true is no number of processes: write one from 1 to 32768",
        ),
        (
            "version = 1\nlimits.threads = 1025",
            "limits.threads: 1025 is no number of threads: write one from 1 to 1024",
        ),
        ("version = 1\nview = 'on'", f"view: 'on' is not known here: write {VIEW}"),
        (
            "version = 1\nclock.source = 'utc'",
            f"clock.source: 'utc' is not known here: write {CLOCK}",
        ),
        (
            "version = 1\nclock.source = 'fixed'",
            f"clock.source: 'fixed' is not known here: write {CLOCK}",
        ),
        ("version = 1\nclock.source = 3", f"clock.source: {NO_STRING}, {CLOCK}, {NUMBER}"),
        (
            "version = 1\nclock.source = 'fixed:2026-01-01T00:00:00'",
            f"clock.source: 'fixed:2026-01-01T00:00:00' is no time with its zone: write {CLOCK}",
        ),
        (
            "version = 1\nclock.source = 'fixed:soon'",
            f"clock.source: 'fixed:soon' is no time with its zone: write {CLOCK}",
        ),
        (
            "version = 1\nclock.source = 'fixed:1969-12-31T23:59:59Z'",
            (
                "clock.source: 'fixed:1969-12-31T23:59:59Z' is no time from 1970 to 2554, which is "
                "what WASI can say"
            ),
        ),
        *(
            (
                f"version = 1\nrandom.source = '{source}'",
                f"random.source: '{source}' is not known here: write {RANDOM}",
            )
            for source in ("seed", "seed:", "seed:-1", "seed:x", "seed:18446744073709551616", "42")
        ),
        ("version = 1\naudit.log = 'some'", f"audit.log: 'some' is not known here: write {LOG}"),
        ("version = 1\n[audit]", f"audit.path: {NO_PATH}"),
        ("version = 1\naudit.log = 'all'", f"audit.path: {NO_PATH}"),
        (
            "version = 1\nsyscalls.on_deny = 'log'",
            (
                "syscalls.on_deny: 'log' lets calls through and only says so: it needs an [audit] "
                "that says where"
            ),
        ),
        ("version = 1\naudit.path = 3", f'audit.path: {NO_STRING}, "HOST", {NUMBER}'),
        (
            "version = 1\naudit.path = 'a::/b'",
            """audit.path: 'a::/b' must be "HOST": no guest finds it under another name""",
        ),
        (
            "version = 1\nfilesystem.inaccessible = ['/a::/b']",
            (
                "filesystem.inaccessible[0]: '/a::/b' must be \"HOST\": no guest finds it under "
                "another name"
            ),
        ),
        (
            "version = 1\nfilesystem.inaccessible = ['']",
            """filesystem.inaccessible[0]: '' must be "HOST", a path""",
        ),
        (
            "version = 1\nfilesystem.devices = ['sda']",
            (
                'filesystem.devices[0]: \'sda\' is not known here: write "full", "null", '
                '"ptmx", "random", "tty", "urandom" or "zero"'
            ),
        ),
        (
            "version = 1\nfilesystem.devices = ['null']\nfilesystem.inaccessible = ['/dev']",
            (
                "filesystem.devices[0]: '/dev/null' lies in '/dev', which "
                "filesystem.inaccessible[0] denies: deny wins, so remove one of the two"
            ),
        ),
        (
            "version = 1\nfilesystem.cwd = 'out'",
            'filesystem.cwd: \'out\' must be absolute for the guest, as in "/data", without ".."',
        ),
        ("version = 1\nextends = 'profile:x'", "extends: must be a list of strings, not a string"),
        ("version = 1\nextends = [3]", f"extends[0]: {NO_STRING}, {REFERENCE}, {NUMBER}"),
        ("version = 1\nextends = ['']", f"extends[0]: '' must be {REFERENCE}"),
        (
            "version = 1\nvariables = { 'A B' = 'x' }",
            (
                "variables.'A B': 'A B' is no name of a variable: write letters, digits and _, no "
                "digit first"
            ),
        ),
        ("version = 1\nvariables = { A = 3 }", "variables.A: must be a string, not a number"),
        (
            "version = 1\nvariables = { A = '${B}', B = 'x' }",
            "variables.A: '${B}' must be plain: a variable does not hold others",
        ),
        (
            "version = 1\nlockdown = 'none'",
            'lockdown: \'none\' is not known here: write "required", "best-effort" or "off"',
        ),
        (
            "version = 1\nlockdown = false",
            'lockdown: false is not known here: write "required", "best-effort" or "off"',
        ),
        (
            "version = 1\nsyscalls.on_deny = 'EIO'",
            (
                'syscalls.on_deny: \'EIO\' is not known here: write "kill", "EPERM", "EACCES", '
                '"ENOSYS", "ENOENT", "EINVAL", "EOPNOTSUPP" or "log"'
            ),
        ),
        (
            "version = 1\nsyscalls.allow = '@default'",
            "syscalls.allow: must be a list of strings, not a string",
        ),
        (
            "version = 1\nsyscalls.within = ['@default']",
            "syscalls.within[0]: must be a list of strings, not a string",
        ),
        (
            "version = 1\nsyscalls.within = { a = [] }",
            "syscalls.within: must be a list of lists of strings, not a table",
        ),
        (
            "version = 1\nsyscalls.within = [[], ['read', '']]",
            f"syscalls.within[1][1]: '' must be {CALL}",
        ),
        ("version = 1\nsyscalls.deny = [3]", f"syscalls.deny[0]: {NO_STRING}, {CALL}, {NUMBER}"),
        ("version = 1\nsyscalls.deny = ['~@mount']", f"syscalls.deny[0]: '~@mount' must be {CALL}"),
        ("version = 1\nsyscalls.deny = ['a:EPERM']", f"syscalls.deny[0]: 'a:EPERM' must be {CALL}"),
        ("version = 1\nsyscalls.deny = ['Openat']", f"syscalls.deny[0]: 'Openat' must be {CALL}"),
        (
            "version = 1\nnetwork.connect = 'tcp://*:1'",
            "network.connect: must be a list of strings, not a string",
        ),
        (
            "version = 1\nnetwork.connect = [443]",
            f"network.connect[0]: {NO_STRING}, {ADDRESS}, {NUMBER}",
        ),
        (
            "version = 1\nnetwork.connect = ['localhost:443']",
            f"network.connect[0]: 'localhost:443' is no address: write {ADDRESS}",
        ),
        *(
            (
                f"version = 1\nnetwork.connect = ['tcp://*{port}']",
                f"network.connect[0]: 'tcp://*{port}': the port must be a number from 1 to 65535",
            )
            for port in ("", ":", ":0", ":*", ":65536", ":080", ":-1", ":1-9", ":https", ":8\u0660")
        ),
    ],
)
def test_wrong_value(text: str, message: str) -> None:
    """A wrong value is named by its key, with what is allowed."""
    assert problems(text) == [message]


@pytest.mark.parametrize(
    ("address", "key", "held"),
    [
        ("udp://*:53", "connect", "udp"),
        ("tcp://127.0.0.1:443", "connect", "127.0.0.1"),
        ("tcp://[::1]:443", "listen", "[::1]"),
        ("tcp://*.example.com:443", "connect", "*.example.com"),
    ],
)
def test_addresses_that_nothing_enforces(address: str, key: str, held: str) -> None:
    """An address of which the kernel would check a part only is refused, with what is enforced."""
    text = f"version = 1\n[network]\n{key} = ['tcp://*:1', '{address}']"
    if address.startswith("tcp"):
        enforced, instead = "the port, for every address", '"tcp://*:443"'
    else:
        enforced, instead = "TCP by port", ADDRESS

    message = (
        f"{address!r}: what is enforced is {enforced}, so nothing would hold the guest to "
        f"{held!r}: write {instead}"
    )

    assert problems(text) == [f"network.{key}[1]: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam = 'x'", 'nam: unknown key; did you mean "name"?'),
        ("filesystem.readonly = []", 'filesystem.readonly: unknown key; did you mean "read_only"?'),
        ("[limit]", 'limit: unknown key; did you mean "limits"?'),
        ("[netwrok]", 'netwrok: unknown key; did you mean "network"?'),
        ("read_only = []", "read_only: unknown key here; it belongs to [filesystem]"),
        ("limits.name = 'x'", "limits.name: unknown key here; it belongs to the top"),
        (
            "'' = 3",
            (
                "'': unknown key; allowed here: version, name, extends, lockdown, view, links, "
                "variables, filesystem, environment, network, syscalls, limits, clock, random, "
                "audit"
            ),
        ),
        (
            "filesystem.'x y' = 3",
            (
                "filesystem.'x y': unknown key; allowed here: read_only, read_write, inaccessible, "
                "exec, devices, cwd"
            ),
        ),
        ("environment.qq = 3", "environment.qq: unknown key; allowed here: inherit, set"),
        (
            "syscalls.qq = 3",
            "syscalls.qq: unknown key; allowed here: allow, within, deny, on_deny",
        ),
        ("[syscalls]\nalow = []", 'syscalls.alow: unknown key; did you mean "allow"?'),
        ("network.deny = []", "network.deny: unknown key here; it belongs to [syscalls]"),
        (
            "limits.qq = 3",
            (
                "limits.qq: unknown key; allowed here: wall_time, cpu_time, memory, open_files, "
                "output, processes, threads"
            ),
        ),
        ("audit.qq = 3", "audit.qq: unknown key; allowed here: log, path"),
        ("clock.qq = 3", "clock.qq: unknown key; allowed here: source"),
    ],
)
def test_unknown_key(text: str, message: str) -> None:
    """An unknown key is refused, with the nearest that is known."""
    assert problems(f"version = 1\n{text}") == [message]


def test_one_guest_path_has_one_grant() -> None:
    """The same guest path twice is refused, in one list or over both."""
    text = """
    version = 1
    [filesystem]
    read_only = ["/a::/x", "/b::/x/"]
    read_write = ["/c::/y/./", "/d::/x"]
    """

    message = "'/x' is granted to the guest by filesystem.read_only[0] already: grant it once"

    assert problems(text) == [
        f"filesystem.read_only[1]: {message}",
        f"filesystem.read_write[1]: {message}",
    ]


def test_one_guest_path_is_one_place() -> None:
    """What is read and executed may have one name, if it is the same."""
    text = 'version = 1\n[filesystem]\nread_only = ["/a::/x", "/b"]\nexec = ["/c::/x", "/b"]\n'

    assert problems(text) == [
        (
            "filesystem.exec[0]: '/x' is granted to the guest by filesystem.read_only[0] already: "
            "there it is '/a'"
        )
    ]


def test_unix_sockets_are_granted_by_path() -> None:
    """They are no addresses, and the message says which key takes them."""
    text = "version = 1\n[network]\nconnect = ['unix:///run/x.sock']"

    assert problems(text) == [
        (
            "network.connect[0]: 'unix:///run/x.sock': unix sockets are granted by path, in "
            "network.unix"
        )
    ]


@pytest.mark.parametrize(
    ("inner", "outer"), [("/a/b", "/a"), ("/a", "/a"), ("/a", "/"), ("/base/x", ".")]
)
def test_narrowing_is_refused(inner: str, outer: str) -> None:
    """A tree to read inside a tree to write is refused, with the reason."""
    text = f"""
    version = 1
    [filesystem]
    read_only = ["{inner}::/inner"]
    read_write = ["/elsewhere", "{outer}::/outer"]
    """
    whole = "/base" if outer == "." else outer

    message = (
        f"'{inner}' lies in '{whole}', which filesystem.read_write[1] makes writable: a policy "
        "can widen inside a tree but not narrow, since the kernel adds up what is granted along "
        "a path"
    )

    assert problems(text) == [f"filesystem.read_only[0]: {message}"]


def test_widening_is_fine() -> None:
    """A tree to write inside a tree to read is what policies are for."""
    granted = filesystem('read_only = ["/a"]\nread_write = ["/a/b", "/ab"]')

    assert granted.grants == (
        Grant("/a", "/a"),
        Grant("/a/b", "/a/b", read_write=True),
        Grant("/ab", "/ab", read_write=True),
    )


def test_every_mistake_is_reported_at_once() -> None:
    """Mistakes of every kind come together, table by table, unknown tables last."""
    text = """
    nam = "x"
    lockdown = "strict"
    extends = ["profile:"]
    [audit]
    path = "/srv/audit.jsonl"
    log = "every"
    [clock]
    source = "sun"
    [syscalls]
    deny = ["openat", "Chmod", "opneat"]
    on_deny = "kill"
    allow = ["@x y", "@file-sytem"]
    [network]
    unix = ["x::y"]
    listen = [80]
    connect = ["tcp://*:1", "tcp://*:0"]
    [limits]
    memory = "3K"
    wall_time = "0s"
    cpu_time = "x"
    processes = 0
    [environment]
    set = { A = 1, B = 2 }
    [filesystem]
    read_only = [1, "/srv/x::/d", "b::c"]
    read_write = ["/srv::/d"]
    exec = ["", "/srv/x::/e"]
    devices = ["tty", "kmsg"]
    inaccessible = ["/srv/x", "/srv/y"]
    """

    assert [line.partition(": ")[0] for line in problems(text)] == [
        "version",
        "extends[0]",
        "lockdown",
        *("filesystem.read_only[0]", "filesystem.read_only[2]"),
        "filesystem.exec[0]",
        "filesystem.devices[1]",
        "filesystem.read_write[0]",
        "filesystem.read_only[1]",
        *("filesystem.read_only[1]", "filesystem.exec[1]"),
        "filesystem.inaccessible[1]",
        *("environment.set.A", "environment.set.B"),
        *("network.connect[1]", "network.listen[0]", "network.unix[0]"),
        *("syscalls.allow[0]", "syscalls.deny[1]", "syscalls.allow[1]", "syscalls.deny[2]"),
        *("limits.wall_time", "limits.cpu_time", "limits.memory", "limits.processes"),
        "clock.source",
        *("audit.log", "audit.path"),
        "nam",
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "deny = ['opneat']",
            ["deny[0]: 'opneat' is no call of this version: did you mean 'openat' or 'openat2'?"],
        ),
        ("deny = ['creat']", []),
        (
            "allow = ['read', 'creat']",
            ["allow[1]: 'creat' is no call of this version: did you mean 'openat' or 'openat2'?"],
        ),
        (
            "within = [[], ['read', '@file-sytem']]",
            [
                (
                    "within[1][1]: '@file-sytem' is no group of this version: did you mean "
                    "'@file-system'?"
                )
            ],
        ),
        (
            "allow = ['@x']\ndeny = ['@y']",
            [
                "allow[0]: '@x' is no group of this version: there are @basic-io, @file-system",
                "deny[0]: '@y' is no group of this version: there are @basic-io, @file-system",
            ],
        ),
        (
            "allow = ['frobnicate']",
            [
                (
                    "allow[0]: 'frobnicate' is no call of this version: what is not served is "
                    "never granted, so remove it"
                )
            ],
        ),
    ],
)
def test_names_of_calls(text: str, messages: list[str]) -> None:
    """Where it is said what calls there are, those of a policy are looked at with the rest."""
    data = tomllib.loads(f"version = 1\n[syscalls]\n{text}\n[limits]\nmemory = 'x'")

    Policy.from_dict({**data, "limits": {}}, "/")
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(data, "/", source="FILE", catalogue=CATALOGUE)
    *found, last = str(caught.value).splitlines()

    assert found == [f"FILE: syscalls.{message}" for message in messages]
    assert last.startswith("FILE: limits.memory: ")


def test_values_in_their_natural_types() -> None:
    """Limits may be numbers: seconds and bytes."""
    data = {"version": 1, "limits": {"wall_time": 2, "memory": 1 << 20}}

    assert Policy.from_dict(data, "/").limits == Limits(wall_time=2.0, memory=1 << 20)


def test_relative_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A base folder that is relative is so to the working directory."""
    monkeypatch.chdir(tmp_path)
    data = {"version": 1, "filesystem": {"read_only": ["x::/x"]}}

    (grant,) = Policy.from_dict(data, "sub").filesystem.grants

    assert grant.host == f"{tmp_path}/sub/x"


def test_host_paths_start_in_the_folder_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Relative host paths of a file start where it really lies, so that `..` means what it says."""
    (tmp_path / "real" / "policies").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/policies")
    (tmp_path / "real" / "policies" / "p.toml").write_text(
        'version = 1\n[filesystem]\nread_only = ["../data::/data"]\n'
    )
    monkeypatch.chdir(tmp_path)

    (grant,) = Policy.load("link/p.toml").filesystem.grants

    assert grant.host == f"{tmp_path.resolve()}/real/data"

    (tmp_path / "real" / "policies" / "p.toml").rename(tmp_path / "real" / "p.toml")
    (grant,) = Policy.load("link/../p.toml").filesystem.grants

    assert grant.host == f"{tmp_path.resolve()}/data"


def unreadable(path: Path) -> str:
    """Return the one problem that loading finds in a file."""
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == (str(path), "")
    return problem.message.removesuffix(f"; write {REFERENCE}")


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is an error like any other, which its cause explains."""
    assert unreadable(tmp_path / "none.toml") == "cannot be read: No such file or directory"
    assert unreadable(tmp_path) == "cannot be read: Is a directory"


def test_not_toml(tmp_path: Path) -> None:
    """What is not TOML is refused, with the line and column."""
    file = tmp_path / "p.toml"

    file.write_text("version = 1\nversion = 1\n")
    assert unreadable(file) == "is not TOML: Cannot overwrite a value (at line 2, column 12)"
    file.write_bytes(b"name = '\xff'")
    assert unreadable(file).startswith("is not TOML: 'utf-8' codec can't decode byte 0xff")
    file.write_text("a = " + 100_000 * "[")
    assert unreadable(file).startswith("is not TOML: ")


def test_endless_file() -> None:
    """Reading stops where no policy goes on."""
    with pytest.raises(PolicyError) as caught:
        Policy.load("/dev/zero")

    assert caught.value.problems == (Problem("/dev/zero", "", "is larger than 1M: not a policy"),)
    assert LARGEST_FILE == 1 << 20


TABLES = ["version", "name", "filesystem", "environment", "limits", "network", "syscalls", "audit"]
FIELDS = ["read_only", "read_write", "exec", "inherit", "set", "wall_time", "memory", "x"]
FIELDS += ["lockdown", "connect", "listen", "allow", "within", "deny", "on_deny"]
KEYS = st.sampled_from(TABLES + FIELDS)
TOML_VALUES = st.recursive(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from(["/a", "/a/b::/x", "../c::/", "10s", "64K", "PATH", "off", "EACCES"]),
        st.sampled_from(["tcp://*:80", "tcp://*:0", "@default", "openat", "@", "EPERM"]),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.just(dt.date(2026, 1, 1)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(data=st.dictionaries(KEYS, TOML_VALUES, max_size=5), versioned=st.booleans())
def test_any_data_is_a_policy_or_an_error(data: dict[str, object], *, versioned: bool) -> None:
    """Whatever TOML holds becomes a policy that loads again, or problems of one line each."""
    if versioned:
        data["version"] = 1
    try:
        policy = Policy.from_dict(data, "/base", source="FILE")
    except PolicyError as error:
        assert error.problems  # noqa: PT017 (either outcome is right)
        assert len(str(error).splitlines()) == len(error.problems)  # noqa: PT017
    else:
        again = Policy.from_dict(tomllib.loads(policy.show()), "/")
        for part in ("limits", "network", "syscalls", "lockdown"):
            assert getattr(again, part) == getattr(policy, part)


@given(
    data=st.dictionaries(KEYS, TOML_VALUES, max_size=5)
    | strategies.policies.map(lambda policy: tomllib.loads(policy.show())),
    versioned=st.booleans(),
)
def test_what_is_right_is_read_alike(data: dict[str, object], *, versioned: bool) -> None:
    """What reads policies that are right takes the same for right as what finds mistakes."""
    if versioned:
        data["version"] = 1
    document, problems = structure(data)

    found = read(data)
    assert (found is None) == bool(problems)
    assert found is None or attrs.asdict(found) == attrs.asdict(document)


def test_a_right_policy_takes_no_cattrs(tmp_path: Path) -> None:
    """Its import takes as long as a small guest runs, and is for those that have mistakes."""
    file = tmp_path / "p.toml"
    file.write_text('version = 1\n[filesystem]\nread_only = ["."]\n[limits]\nmemory = "1M"\n')
    code = (
        "import sys; from capabilities import Policy; Policy.load(sys.argv[1]); "
        "print(sorted({'cattrs', 'difflib'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
