"""Tests of capabilities._combine: policies that extend others narrow them, and nothing else."""

from __future__ import annotations

import os
import posixpath
import tomllib
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Request,
    Syscalls,
)
from capabilities._combine import extend
from capabilities._conflicts import Trees
from capabilities._load import MOST_FILES
from capabilities._model import LOGS, MODES, VIEWS
from tests.capabilities import strategies
from tests.capabilities.strategies import CATALOGUE
from tests.capabilities.test_decide import requests

if TYPE_CHECKING:
    from pathlib import Path

BASE = """
version = 1
name = "base"
lockdown = "best-effort"
[filesystem]
read_only = ["/usr", "/srv/models::/models"]
read_write = ["/srv/out::/out"]
inaccessible = ["/home"]
exec = ["/usr/bin"]
devices = ["null", "zero"]
cwd = "/out"
[environment]
inherit = ["LANG", "TZ"]
set = { MODE = "base", BASE = "1" }
[network]
connect = ["tcp://*:80", "tcp://*:443"]
listen = ["tcp://*:8080"]
unix = ["/run/x.sock"]
[syscalls]
allow = ["@basic-io", "@file-system"]
deny = ["chmod"]
on_deny = "ENOSYS"
[limits]
wall_time = "10s"
memory = "256M"
processes = 4
threads = 2
[clock]
source = "virtual"
[random]
source = "seed:1"
[audit]
log = "denied"
path = "/log/audit.jsonl"
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return the file of a policy that says something of everything."""
    file = tmp_path / "base.toml"
    file.write_text(BASE)
    return file


def extending(base: Path, text: str = "", name: str = "base.toml") -> Policy:
    """Load a policy beside the base that extends it."""
    file = base.with_name("p.toml")
    file.write_text(f'version = 1\nextends = ["{name}"]\n{text}')
    return Policy.load(file)


def problems(base: Path, text: str) -> list[str]:
    """Return what is wrong with a policy that extends the base, without the names of the files."""
    with pytest.raises(PolicyError) as caught:
        extending(base, text)
    folder = f"{base.parent}/"
    return [
        line.replace(folder, "").removeprefix("p.toml: ") for line in str(caught.value).splitlines()
    ]


def test_what_is_not_stated_is_taken_over(base: Path) -> None:
    """A policy that says nothing is the one that it extends, but for the name."""
    policy = extending(base)

    assert policy == attrs.evolve(Policy.load(base), name="")
    assert policy.source == str(base.with_name("p.toml"))


def test_what_is_stated_replaces(base: Path) -> None:
    """A key that is stated says all of what it is about, and can rename."""
    policy = extending(
        base,
        """
        name = "mine"
        lockdown = "required"
        view = "required"
        [filesystem]
        read_only = ["/usr/share::/share", "/srv/out/done::/done"]
        read_write = []
        exec = []
        devices = ["null"]
        cwd = "/"
        [environment]
        inherit = []
        set = { MODE = "mine", OWN = "2" }
        [network]
        connect = ["tcp://*:443"]
        listen = []
        [limits]
        wall_time = "5s"
        output = "1M"
        [audit]
        log = "all"
        """,
    )

    assert policy == Policy(
        name="mine",
        lockdown="required",
        view="required",
        filesystem=Filesystem(
            read_only=(Grant("/usr/share", "/share"), Grant("/srv/out/done", "/done")),
            inaccessible=("/home",),
            devices=("null",),
            cwd="/",
        ),
        environment=Environment(set={"MODE": "mine", "BASE": "1", "OWN": "2"}),
        network=Network(connect=[443], unix=(Grant("/run/x.sock", "/run/x.sock"),)),
        syscalls=Syscalls(allow=["@basic-io", "@file-system"], deny=["chmod"], on_deny="ENOSYS"),
        limits=Limits(wall_time=5, memory=256 << 20, output=1 << 20, processes=4, threads=2),
        clock=Clock("virtual"),
        random=Random(1),
        audit=Audit("all", "/log/audit.jsonl"),
    )


def test_lists_of_calls_add_up(base: Path) -> None:
    """A call has to be in every list, and what anybody denies is denied."""
    policy = extending(
        base,
        '[syscalls]\nallow = ["@file-system", "@process"]\ndeny = ["mkdir"]\non_deny = "kill"\n',
    )

    assert policy.syscalls == Syscalls(
        allow=["@basic-io", "@file-system"],
        within=[["@file-system", "@process"]],
        deny=["chmod", "mkdir"],
        on_deny="kill",
    )


def test_lists_of_calls_are_within_what_follows(tmp_path: Path) -> None:
    """Where the extended policy lists no calls, a list gets no more than its tables grant."""
    base = tmp_path / "base.toml"
    base.write_text("version = 1\n")
    policy = extending(base, '[syscalls]\nallow = ["fork", "openat", "read"]\n')

    assert policy.granted_calls(CATALOGUE) == {"mmap", "exit_group", "read"}


def test_denials_take_away_what_is_taken_over(base: Path) -> None:
    """A tree that is denied takes the grants in it along, unless they are stated."""
    policy = extending(base, '[filesystem]\ninaccessible = ["/srv/models", "/run"]\n')

    assert policy.filesystem.read_only == (Grant("/usr", "/usr"),)
    assert policy.filesystem.inaccessible == ("/home", "/run", "/srv/models")
    assert policy.network.unix == ()


SUFFIX = "base.toml, which this policy extends: it can only narrow that"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "filesystem.read_only = ['/usr/share', '/etc']",
            f"filesystem.read_only[1]: '/etc' is not granted by {SUFFIX}",
        ),
        (
            "filesystem.read_write = ['/usr/share']",
            f"filesystem.read_write[0]: '/usr/share' is not granted to be changed by {SUFFIX}",
        ),
        (
            "filesystem.exec = ['/usr/lib']",
            f"filesystem.exec[0]: '/usr/lib' is not granted to be executed by {SUFFIX}",
        ),
        (
            "network.unix = ['/run/y.sock']",
            f"network.unix[0]: '/run/y.sock' is not granted by {SUFFIX}",
        ),
        (
            "filesystem.devices = ['null', 'tty']",
            f"filesystem.devices: 'tty' is not granted by {SUFFIX}",
        ),
        (
            "environment.inherit = ['PATH', 'TZ']",
            f"environment.inherit: 'PATH' is not granted by {SUFFIX}",
        ),
        ("network.connect = ['tcp://*:22']", f"network.connect: 22 is not granted by {SUFFIX}"),
        ("network.listen = ['tcp://*:80']", f"network.listen: 80 is not granted by {SUFFIX}"),
        ("limits.wall_time = '11s'", f"limits.wall_time: 11s is more than the 10s of {SUFFIX}"),
        ("limits.memory = '1G'", f"limits.memory: 1G is more than the 256M of {SUFFIX}"),
        ("limits.processes = 5", f"limits.processes: 5 is more than the 4 of {SUFFIX}"),
        ("limits.threads = 3", f"limits.threads: 3 is more than the 2 of {SUFFIX}"),
        ("lockdown = 'off'", f"lockdown: 'off' is less than the 'best-effort' of {SUFFIX}"),
        ("view = 'off'", f"view: 'off' is less than the 'auto' of {SUFFIX}"),
        (
            "syscalls.on_deny = 'log'",
            f"syscalls.on_deny: 'log' is less than the 'ENOSYS' of {SUFFIX}",
        ),
        ("audit.log = 'none'", f"audit.log: 'none' is less than the 'denied' of {SUFFIX}"),
        (
            "audit.path = '/tmp/x'",
            f"audit.path: '/log/audit.jsonl' is the file of {SUFFIX}",
        ),
        ("clock.source = 'host'", f"clock.source: it is not that of {SUFFIX}"),
        ("random.source = 'seed:2'", f"random.source: it is not that of {SUFFIX}"),
        (
            "filesystem.inaccessible = ['/srv/out/x']",
            (
                "filesystem.inaccessible[0]: '/srv/out/x' lies in '/srv/out', which "
                "filesystem.read_write[0] of base.toml grants: a policy can widen inside a tree "
                "but not narrow, since the kernel adds up what is granted along a path"
            ),
        ),
        (
            "filesystem.read_only = ['/usr/share::/out']",
            (
                "extends: '/out' is granted to the guest by filesystem.read_only[0] already: grant "
                "it once"
            ),
        ),
        (
            "filesystem.read_only = ['/srv/out/x']",
            (
                "filesystem.read_only[0]: '/srv/out/x' lies in '/srv/out', which "
                "filesystem.read_write[0] of base.toml makes writable: a policy can widen inside a "
                "tree but not narrow, since the kernel adds up what is granted along a path"
            ),
        ),
    ],
)
def test_widening_is_refused(base: Path, text: str, message: str) -> None:
    """A key that grants more than the extended policy, or limits less, is refused, with both."""
    assert problems(base, text) == [message]


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """Return the file of a policy over two trees, in which links lead out of them and about."""
    for name in ("box/ro", "box/rw/sub", "secret", "box/ro/sub"):
        (tmp_path / name).mkdir(parents=True)
    for tree in ("ro", "rw"):
        (tmp_path / "box" / tree / "out").symlink_to("../../secret")
        (tmp_path / "box" / tree / "in").symlink_to("sub")
    file = tmp_path / "base.toml"
    file.write_text(
        "version = 1\n[filesystem]\nread_only = ['box/ro']\nread_write = ['box/rw']\n"
        "exec = ['box/ro']\n[network]\nunix = ['box/ro']\n"
    )
    return file


@pytest.mark.parametrize(
    ("key", "path", "purpose"),
    [
        ("filesystem.read_only", "box/ro/out", ""),
        ("filesystem.read_only", "box/ro/out/file", ""),
        ("filesystem.read_write", "box/rw/out::/x", "to be changed "),
        ("filesystem.exec", "box/ro/out/true", "to be executed "),
        ("network.unix", "box/ro/out/socket", ""),
    ],
)
def test_links_do_not_widen(links: Path, key: str, path: str, purpose: str) -> None:
    """What a policy grants is what its paths lead to."""
    host = path.partition("::")[0]
    place = host.replace("box/ro/out", "secret").replace("box/rw/out", "secret")

    assert problems(links, f"{key} = ['{path}']") == [
        f"{key}[0]: {host!r} leads to {place!r}, which is not granted {purpose}by {SUFFIX}"
    ]


def test_links_within_are_followed_once(links: Path) -> None:
    """A link that leads about in what is granted is no more followed when a guest starts."""
    box = links.parent / "box"
    policy = extending(links, "[filesystem]\nread_only = ['box/ro/in']\nread_write = []\nexec = []")
    (grant,) = policy.filesystem.grants

    assert grant == Grant(f"{box}/ro/sub", f"{box}/ro/in")
    assert grant.pinned


def test_links_around_what_is_extended_are_followed(links: Path) -> None:
    """A tree that the other policy grants by a link is the same tree."""
    folder = links.parent
    (folder / "other").symlink_to("box/ro")
    links.write_text("version = 1\n[filesystem]\nread_only = ['other']\n")
    policy = extending(links, "[filesystem]\nread_only = ['box/ro/sub']")

    assert policy.filesystem.grants == (Grant(f"{folder}/box/ro/sub", f"{folder}/box/ro/sub"),)


def test_links_do_not_widen_intersections(links: Path) -> None:
    """Two policies have in common what their paths lead to."""
    one = Policy.load(links)
    for path, found in (("box/ro/out", ()), ("box/ro/sub", ("box/ro/sub",))):
        text = {"version": 1, "filesystem": {"read_only": [path]}}
        other = Policy.from_dict(text, links.parent)
        expected = tuple(
            Grant(f"{links.parent}/{host}", f"{links.parent}/{host}") for host in found
        )
        assert one.intersect(other).filesystem.grants == expected
        assert other.intersect(one).filesystem.grants == expected


def test_links_are_followed_once_for_all(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared is what is granted, though the link leads elsewhere a moment later."""
    link, follow = links.parent / "box" / "ro" / "sub", os.path.realpath
    (links.parent / "box" / "ro" / "link").symlink_to("sub")
    moved = []

    def moving(path: str) -> str:
        found = follow(path)
        if path.endswith("/link"):
            moved.append(path)
            os.unlink(path)
            os.symlink("../../secret", path)
        return found

    monkeypatch.setattr(os.path, "realpath", moving)
    policy = extending(links, "[filesystem]\nread_only = ['box/ro/link']\nexec = []")

    assert [grant.host for grant in policy.filesystem.read_only] == [str(link)]
    assert len(moved) == 1


def test_combinations_can_be_shown_and_loaded_again(links: Path) -> None:
    """What was followed stays what was found: shown, it is a policy that refuses links."""
    narrow = extending(links, "[filesystem]\nread_only = ['box/ro/sub']\nexec = []")
    again = Policy.from_dict(tomllib.loads(narrow.show()), "/")

    assert 'links = "refused"' in narrow.show()
    assert again == narrow
    granted = (*again.filesystem.readable, *again.network.unix)
    assert [grant.pinned for grant in granted] == [True] * len(granted)
    assert granted


def test_what_was_followed_is_not_followed_again(links: Path) -> None:
    """A guest that puts a link into a tree of its own gains nothing by another combination."""
    folder = links.parent
    narrow = extending(
        links, "[filesystem]\nread_only = []\nread_write = ['box/rw/sub']\nexec = []"
    )
    (folder / "box" / "rw" / "sub").rmdir()
    (folder / "box" / "rw" / "sub").symlink_to("../../secret")
    everything = Policy.from_dict({"version": 1, "filesystem": {"read_write": ["."]}}, folder)

    (grant,) = narrow.intersect(everything).filesystem.grants
    assert grant.host == f"{folder}/box/rw/sub"
    assert grant.pinned


def test_all_that_widens_is_reported_at_once(base: Path) -> None:
    """Every key that goes too far is named."""
    text = "lockdown = 'off'\nfilesystem.read_only = ['/a', '/b']\nlimits.memory = '1T'\n"

    assert [line.partition(": ")[0] for line in problems(base, text)] == [
        *("lockdown", "filesystem.read_only[0]", "filesystem.read_only[1]", "limits.memory"),
    ]


def test_several_bases(base: Path) -> None:
    """What extends several policies is within all of them."""
    other = base.with_name("other.toml")
    other.write_text(
        "version = 1\n[filesystem]\nread_only = ['/usr/share']\n[limits]\nwall_time = '1s'\n"
    )
    file = base.with_name("p.toml")
    file.write_text("version = 1\nextends = ['base.toml', 'other.toml']\n")

    policy = Policy.load(file)

    assert policy.filesystem.grants == (Grant("/usr/share", "/usr/share"),)
    assert policy.limits == Limits(wall_time=1, memory=256 << 20, processes=4, threads=2)


def test_chains(base: Path) -> None:
    """A policy can extend one that extends another; each file's paths are relative to itself."""
    (base.parent / "sub").mkdir()
    base.write_text("version = 1\n[filesystem]\nread_only = ['.']\n")
    middle = base.parent / "sub" / "middle.toml"
    middle.write_text("version = 1\nextends = ['../base.toml']\n[filesystem]\nread_only = ['.']\n")
    policy = extending(base, "[filesystem]\nread_only = ['sub/x']\n", "sub/middle.toml")

    assert policy.filesystem.grants == (Grant(f"{base.parent}/sub/x", f"{base.parent}/sub/x"),)


def test_circles_are_refused(base: Path) -> None:
    """Two files that extend each other are neither of them a policy."""
    base.write_text("version = 1\nextends = ['p.toml']\n")

    assert problems(base, "limits.memory = 'x'")[1:] == [
        "base.toml: extends[0]: 'p.toml': it extends this file in turn: remove one of the two"
    ]
    base.write_text("version = 1\nextends = ['base.toml']\n")
    with pytest.raises(PolicyError) as caught:
        Policy.load(base)
    assert str(caught.value) == (
        f"{base}: extends[0]: 'base.toml': it is this file itself: write another"
    )


def test_long_chains_are_refused(base: Path) -> None:
    """There is an end to files that extend each other, before the stack has one."""
    for number in range(MOST_FILES + 1):
        file = base.with_name(f"{number}.toml")
        file.write_text(f"version = 1\nextends = ['{number + 1}.toml']\n")

    with pytest.raises(PolicyError) as caught:
        Policy.load(base.with_name("0.toml"))

    assert str(caught.value) == (
        f"{base.parent}/15.toml: extends[0]: '16.toml': that is one more than 16 files that extend "
        "each other: extend fewer"
    )


def test_mistakes_of_extended_files_are_reported_as_theirs(base: Path) -> None:
    """All files that are loaded tell all their mistakes, each under its own name."""
    base.write_text("version = 1\nnam = 'x'\nextends = ['none.toml', 'profile:none']\n")

    assert problems(base, "limits.memory = '1K'") == [
        "limits.memory: '1K' is less than 64K, one page",
        (
            "base.toml: extends[0]: 'none.toml': cannot be read: No such file or directory; write "
            'a policy file, or a profile such as "profile:pure-compute"'
        ),
        (
            "base.toml: extends[1]: 'profile:none': there is no such profile: there are cli-tool, "
            "pure-compute, server"
        ),
        'base.toml: nam: unknown key; did you mean "name"?',
    ]


def test_mistakes_come_with_what_widens(base: Path) -> None:
    """What goes too far is said with all else that is wrong, under the numbers of the file."""
    text = """
    nam = 'x'
    view = 'on'
    filesystem.read_only = [3, '/etc', '/usr/x::/x', '/usr/y::/x']
    limits.memory = '1K'
    limits.processes = 5
    """

    assert problems(base, text) == [
        'view: \'on\' is not known here: write "required", "auto" or "off"',
        'filesystem.read_only[0]: must be a string, "HOST" or "HOST::GUEST", not a number',
        (
            "filesystem.read_only[3]: '/x' is granted to the guest by filesystem.read_only[2] "
            "already: grant it once"
        ),
        f"filesystem.read_only[1]: '/etc' is not granted by {SUFFIX}",
        "limits.memory: '1K' is less than 64K, one page",
        f"limits.processes: 5 is more than the 4 of {SUFFIX}",
        'nam: unknown key; did you mean "name"?',
    ]


def test_an_audit_needs_a_file_in_the_end(base: Path) -> None:
    """Who logs may leave the file to the policy that is extended, but there must be one."""
    base.write_text("version = 1\n")

    assert problems(base, "[audit]\nlog = 'all'") == [
        "audit.path: is missing: write the file that lines are added to"
    ]


KEYS = (
    *("filesystem.read_only", "filesystem.read_write", "filesystem.exec", "network.unix"),
    *("environment.inherit", "network.connect", "network.listen", "syscalls.allow"),
    *("filesystem.devices", "lockdown", "view", "clock", "random", "audit.log"),
)


@st.composite
def narrowings(draw: st.DrawFn) -> tuple[Policy, frozenset[str], Policy]:
    """Draw what a policy states, by which keys, and a policy that it extends."""
    base, other = draw(strategies.policies), draw(strategies.policies)
    stated = draw(st.frozensets(st.sampled_from(KEYS)))

    def some(key: str, items: tuple[Any, ...]) -> tuple[Any, ...]:
        chosen = draw(st.lists(st.sampled_from(items), unique=True)) if items else []
        return tuple(chosen) if key in stated else ()

    def below(key: str, grants: tuple[Grant, ...], *, read_write: bool = False) -> tuple[Any, ...]:
        return tuple(
            Grant(join(grant.host, path), join(grant.guest, path), read_write=read_write)
            for grant in some(key, grants)
            for path in [draw(st.sampled_from(["", "a", "b/a"]))]
        )

    own = Policy(
        filesystem=Filesystem(
            read_only=below("filesystem.read_only", base.filesystem.readable),
            read_write=below("filesystem.read_write", base.filesystem.read_write, read_write=True),
            exec=below("filesystem.exec", base.filesystem.exec),
            devices=some("filesystem.devices", base.filesystem.devices),
            inaccessible=other.filesystem.inaccessible,
        ),
        network=Network(
            some("network.connect", base.network.connect),
            some("network.listen", base.network.listen),
            some("network.unix", base.network.unix),
        ),
        environment=Environment(some("environment.inherit", base.environment.inherit)),
        syscalls=attrs.evolve(other.syscalls, on_deny="kill"),
        lockdown=other.lockdown,
        view=other.view,
        clock=other.clock,
        random=other.random,
        limits=other.limits,
        audit=other.audit,
    )
    return own, stated, base


@given(narrowings(), requests)
def test_extending_never_widens(
    drawn: tuple[Policy, frozenset[str], Policy], request_: Request
) -> None:
    """Nothing of the host's is granted by a policy that the one which it extends does not grant."""
    own, stated, base = drawn
    both, problems = extend(own, stated, base, Trees.of(own))
    if problems:
        return
    policy = Policy(**{field.name: getattr(both, field.name) for field in attrs.fields(Policy)})

    assert policy.granted_calls(CATALOGUE) <= base.granted_calls(CATALOGUE)
    assert set(policy.environment.inherit) <= set(base.environment.inherit)
    for grants, outside in (
        (policy.filesystem.read_only, base.filesystem.readable),
        (policy.filesystem.read_write, base.filesystem.read_write),
        (policy.filesystem.exec, base.filesystem.exec),
        (policy.filesystem.named_devices, base.filesystem.named_devices),
    ):
        for grant in grants:
            assert any(within(grant.host, outer.host) for outer in outside)
    if request_.port is not None and policy.decide(request_):
        assert base.decide(request_)
    for denied in base.filesystem.inaccessible:
        assert policy.filesystem.denial([denied]) is not None
    for limit, most in attrs.asdict(base.limits).items():
        assert most is None or getattr(policy.limits, limit) <= most
    assert MODES.index(policy.lockdown) <= MODES.index(base.lockdown)
    assert VIEWS.index(policy.view) <= VIEWS.index(base.view)
    assert LOGS.index(policy.audit.log) <= LOGS.index(base.audit.log)
    assert base.audit.path in (None, policy.audit.path)
    # What is not the host's tells nothing of it, whichever it is.
    assert policy.clock.source != "host" or base.clock.source == "host"
    assert policy.random.seed is not None or base.random.seed is None


def join(tree: str, path: str) -> str:
    """Join two paths, the second of which may be empty."""
    return posixpath.join(tree, path) if path else tree


def within(path: str, tree: str) -> bool:
    """Return whether a path lies in a tree, by another way than the code's."""
    return f"{path}/".startswith(tree if tree.endswith("/") else f"{tree}/")


@given(strategies.policies)
def test_extending_nothing_grants_nothing(own: Policy) -> None:
    """The policy that grants nothing can be extended by policies that grant nothing."""
    both, problems = extend(own, frozenset(KEYS), Policy(), Trees.of(own))
    if not problems:
        assert both.filesystem.readable == ()
        assert (both.network.connect, both.network.listen, both.network.unix) == ((), (), ())
        assert both.environment.inherit == ()
