"""Tests of wali_core._grants: what a guest is given, from the caller's words and a policy."""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities import Environment, Filesystem, Grant, Limits, Policy
from tests.held import open_descriptors, settled_descriptors
from wali_core import PolicyError
from wali_core import _grants as module
from wali_core._grants import Grants, Preopen, encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wali_core._grants import Dirs


@pytest.fixture
def grants() -> Grants:
    """Return grants of nothing."""
    return Grants()


def shown(grants: Grants) -> list[tuple[str, str, bool]]:
    """Return the directories: the guest's name, the host's, whether it is read-only."""
    return [(p.guest, p.host, p.read_only) for p in grants.preopens.values()]


# --- what is given --------------------------------------------------------------------------------


def test_nothing_is_given_unasked(grants: Grants) -> None:
    """Without a word there is no directory, no variable and no limit."""
    assert shown(grants) == []
    assert (grants.env, grants.wall_time, grants.memory, grants.deadline) == ({}, None, None, None)


def test_directories_are_read_only_if_nothing_is_said(grants: Grants) -> None:
    """A directory's mode is what was said, in whatever form its path is."""
    grants.add_dirs({"a": "/1", "b": Path("/2"), "c": ("/3", "ro"), "d": (Path("/4"), "rw")})
    as_bytes: Any = {b"e": b"/\xff"}
    grants.add_dirs(as_bytes)

    assert shown(grants) == [
        ("a", "/1", True),
        ("b", "/2", True),
        ("c", "/3", True),
        ("d", "/4", False),
        ("e", "/\udcff", True),
    ]


def test_later_directories_replace_earlier_ones(grants: Grants) -> None:
    """A name that is granted again keeps its place and means the other directory."""
    grants.add_dirs({"a": "/1", "b": "/2"})
    grants.add_dirs({"a": ("/3", "rw")})

    assert shown(grants) == [("a", "/3", False), ("b", "/2", True)]
    assert [p.host for p in grants.added] == ["/1", "/2", "/3"]


@pytest.mark.parametrize("through", ["", "link/"], ids=["plainly", "through_a_link"])
def test_a_read_only_directory_does_not_lie_in_a_writable_one(
    grants: Grants, tmp_path: Path, through: str
) -> None:
    """By the outer one it could be written to.  The other way round is fine, and so are twins."""
    for name in ("out/in", "out/in/deep", "outer"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path)
    outer, inner = tmp_path / "out", tmp_path / through / "out/in"

    grants.add_dirs({"/w": (outer, "rw"), "/twin": outer, "/outer": tmp_path / "outer"})
    grants.add_dirs({"/a": tmp_path, "/b": (inner, "rw")})
    grants.settle(None)
    grants = Grants()
    grants.add_dirs({"/w": (outer, "rw"), "/r": inner / "deep"})
    with pytest.raises(PolicyError, match=r"directory '/r': .*deep cannot be granted read-only"):
        grants.settle(None)


@pytest.mark.parametrize(
    "dirs",
    [{"": "/"}, {"a\0b": "/"}, {"a": ("/", "w")}, {"a": ("/", "RW")}, {"a": ("/", True)}],
    ids=str,
)
def test_what_cannot_be_a_directory_is_refused(dirs: dict[str, Any], grants: Grants) -> None:
    """A name that is none and a mode that is neither are refused, and nothing is granted."""
    with pytest.raises(PolicyError):
        grants.add_dirs(dirs)
    assert shown(grants) == []


def test_variables_are_checked(grants: Grants) -> None:
    """A variable has a name without an equals sign, and no NUL; the last value counts."""
    grants.add_env({"A": "1", "B": ""})
    grants.add_env({"A": "2=3"})

    assert grants.env == {"A": "2=3", "B": ""}
    for name, value in (("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")):
        with pytest.raises(PolicyError, match="environment variable"):
            grants.add_env({name: value})


def test_wrong_types_are_named(grants: Grants) -> None:
    """What was given, and for what, is said where the caller's program has no checker of types."""
    given: Any
    for given in ({"A": 1}, {b"A": "1"}):
        with pytest.raises(TypeError, match=r"environment variable .*A.*: .*1.*: both must be str"):
            grants.add_env(given)
    given = ["/tmp"]
    with pytest.raises(TypeError, match=r"dirs: .*/tmp.*: it must be a mapping"):
        grants.add_dirs(given)


def test_a_policy_is_taken_over(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy gives its directories, its variables, those that are set here, and its limits."""
    monkeypatch.setenv("HERE", "x")
    monkeypatch.delenv("NOT_HERE", raising=False)
    grants.add_policy(
        Policy(
            filesystem=Filesystem(
                read_only=(Grant("/1", "/a"),), read_write=(Grant("/2", "/b", read_write=True),)
            ),
            environment=Environment(inherit=("HERE", "NOT_HERE", "BOTH"), set={"BOTH": "set"}),
            limits=Limits(wall_time=2.5, memory=1 << 20),
        )
    )

    assert shown(grants) == [("/a", "/1", True), ("/b", "/2", False)]
    assert grants.added == []
    assert grants.env == {"HERE": "x", "BOTH": "set"}
    assert (grants.wall_time, grants.memory) == (2.5, 1 << 20)


def test_everything_is_everything(grants: Grants) -> None:
    """The working directory, all that lies in the root but procfs, and the environment."""
    grants.add_everything()

    folders = [str(path) for path in sorted(Path("/").iterdir()) if path.is_dir()]
    folders.remove("/proc")
    assert shown(grants) == [(path, path, False) for path in [".", *folders]]
    assert grants.env == dict(os.environ)


def test_everything_is_what_there_is(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the root and cannot be looked at is not granted, and no obstacle."""

    class Entry:
        def __init__(self, path: str) -> None:
            self.path = path

        def is_dir(self) -> bool:
            raise PermissionError(self.path)

    entries = [Entry("/no such link"), Entry("/proc"), Entry("/usr"), Entry("/etc/passwd")]
    monkeypatch.setattr(os, "scandir", lambda _: contextlib.nullcontext(entries))

    grants.add_everything()

    assert list(grants.preopens) == [".", "/usr"]


NUMBERS = st.none() | st.floats(0, 100)


@given(first=NUMBERS, second=NUMBERS)
def test_limits_only_narrow(first: float | None, second: float | None) -> None:
    """Of two limits the tighter one counts, and one is a limit though the other is none."""
    grants = Grants()
    grants.narrow(first, None)
    grants.narrow(second, None)

    given = [limit for limit in (first, second) if limit is not None]
    assert grants.wall_time == min(given, default=None)


@pytest.mark.parametrize("seconds", [1e9, 1e300, math.inf])
def test_what_is_longer_than_anybody_waits_is_no_limit(seconds: float, grants: Grants) -> None:
    """No clock is asked to count it; the policy's limit stays."""
    grants.narrow(seconds, None)
    assert grants.wall_time is None

    grants.narrow(5.0, None)
    grants.narrow(seconds, None)
    assert grants.wall_time == 5.0


def test_time_is_a_number(grants: Grants) -> None:
    """NaN is neither short nor long, and would be waited for in one way here, another there."""
    with pytest.raises(PolicyError, match="timeout: nan is no number of seconds"):
        grants.narrow(math.nan, None)


def test_memory_cannot_be_negative(grants: Grants) -> None:
    """A limit below nothing is a mistake, and no limit is lifted by it."""
    grants.narrow(None, 5)
    with pytest.raises(PolicyError, match="memory: -1 is negative"):
        grants.narrow(None, -1)
    assert grants.memory == 5


def test_time_can_be_that_of_a_whole_run(grants: Grants) -> None:
    """Counted from its start, the time of a run has an end; without a limit it has none."""
    grants.count_from(100.0)
    assert grants.deadline is None
    grants.narrow(2.5, None)
    grants.count_from(100.0)
    assert grants.deadline == 102.5


def test_grants_travel(grants: Grants, tmp_path: Path) -> None:
    """Another process gets the same grants."""
    grants.add_dirs({"a": (tmp_path, "rw")})
    grants.add_env({"A": "1"})

    other = pickle.loads(pickle.dumps(grants))  # noqa: S301 (our own words)

    assert shown(other) == shown(grants)
    assert other.env == grants.env


@given(words=st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_words_become_bytes(words: list[str]) -> None:
    """Words are what the system makes of them, and bytes stay as they are."""
    assert encoded(words, "argument") == [word.encode() for word in words]
    assert encoded([word.encode() for word in words], "argument") == encoded(words, "argument")


@pytest.mark.parametrize("word", [3, None])
def test_words_are_text(word: object) -> None:
    """What is neither text nor bytes is named, with what it is for."""
    with pytest.raises(TypeError, match=rf"argument {word}: it must be str or bytes, not "):
        encoded(["a", word], "argument")  # type: ignore[list-item]


def test_words_have_no_nul() -> None:
    """A word with a NUL would be another word to the program."""
    for word in ("a\0b", b"\0"):
        with pytest.raises(PolicyError, match=r"argument .* holds a NUL"):
            encoded(["fine", word], "argument")


# --- directories, opened --------------------------------------------------------------------------


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Return a list whose descriptors are closed at the end."""
    descriptors: list[int] = []
    yield descriptors
    for fd in descriptors:
        os.close(fd)


def test_a_directory_is_opened_for_this_process_alone(tmp_path: Path, opened: list[int]) -> None:
    """A granted directory is open, and no program that is started meanwhile inherits it."""
    fd, reaches_proc = Preopen("/x", str(tmp_path), read_only=True).open()
    opened.append(fd)

    assert os.path.samestat(os.fstat(fd), tmp_path.stat())
    assert not os.get_inheritable(fd)
    assert not reaches_proc


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("/no/such", "No such file or directory"),
        (__file__, "Not a directory"),
        ("", "No such file or directory"),
        ("/\0", "null"),
        ("x" * 5000, "File name too long"),
    ],
    ids=["missing", "file", "empty", "NUL", "long"],
)
def test_what_cannot_be_opened_says_why(host: str, message: str) -> None:
    """A directory that is not there is named with both its names, and the system's reason."""
    with pytest.raises(
        PolicyError, match=rf"^directory '/x': cannot open .* on the host: .*{message}"
    ):
        Preopen("/x", host, read_only=True).open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_cannot_be_listed_can_be_granted(tmp_path: Path) -> None:
    """Where the user may pass through a directory and not list it, the guest may too."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o711)
    code = """
import os
os.seteuid(65534)
from wali_core._grants import Preopen
fd, _ = Preopen("/x", ".", read_only=True).open()
print(os.stat("file", dir_fd=fd).st_size)
"""
    (folder / "file").write_text("four")
    for parent in folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)

    done = subprocess.run(
        [sys.executable, "-c", f"import wali_core._grants\n{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("4\n", "")


# --- procfs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["/proc", "/proc/self", "/proc/self/task", "/proc/1/../sys"])
def test_procfs_is_never_granted(host: str) -> None:
    """A directory of procfs is refused, by whatever path it is named."""
    before = settled_descriptors()

    with pytest.raises(PolicyError, match="lies on procfs, which is never granted"):
        Preopen("/x", host, read_only=True).open()

    assert open_descriptors() == before


def test_procfs_behind_a_link_is_never_granted(tmp_path: Path) -> None:
    """A link to procfs is procfs."""
    (tmp_path / "link").symlink_to("/proc/self")

    with pytest.raises(PolicyError, match="lies on procfs"):
        Preopen("/x", str(tmp_path / "link"), read_only=True).open()


def test_procfs_beneath_a_directory_is_known(opened: list[int]) -> None:
    """Of a directory with procfs beneath it that is known, so that the core looks out for it."""
    fd, reaches_proc = Preopen("/x", "/", read_only=True).open()
    opened.append(fd)

    assert reaches_proc


def test_without_a_list_of_mounts_everything_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: list[int]
) -> None:
    """Where it cannot be known what is mounted, the core looks at all that is opened."""
    monkeypatch.setattr(module, "_proc_mounts", lambda: None)

    fd, reaches_proc = Preopen("/x", str(tmp_path), read_only=True).open()
    opened.append(fd)

    assert reaches_proc


def test_mounts_are_read_with_their_strange_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the list of mounts white space and backslashes are escaped; other file systems pass."""
    lines = (
        b"22 1 0:20 / /proc rw,relatime shared:5 - proc proc rw\n"
        b"23 1 0:21 / /sys rw - sysfs sysfs rw\n"
        b"24 1 0:22 / /a\\040b\\134c\\012d rw master:1 - proc none rw\n"
        b"25 1 0:23 / /procfs-like rw - tmpfs proc rw\n"
        b"26 1 0:24 / /\xff rw - proc proc rw\n\n"
    )

    monkeypatch.setattr("builtins.open", lambda *_: io.BytesIO(lines))

    found = module._proc_mounts()
    monkeypatch.undo()

    assert found == ["/proc", "/a b\\c\nd", os.fsdecode(b"/\xff")]


@pytest.mark.parametrize(
    ("path", "folder", "beneath"),
    [
        ("/proc", "/proc", True),
        ("/proc/1", "/proc", True),
        ("/process", "/proc", False),
        ("/", "/proc", False),
        ("/proc", "/", True),
        ("/", "/", True),
    ],
)
def test_beneath_is_by_whole_names(path: str, folder: str, *, beneath: bool) -> None:
    """A path lies beneath a folder by its components, not by its letters."""
    assert module.beneath(path, folder) == beneath


# --- what a policy denies, and where it starts ----------------------------------------------------


@pytest.fixture
def denying(tmp_path: Path) -> Policy:
    """Return a policy that denies a folder, to which a link leads."""
    (tmp_path / "secret" / "inner").mkdir(parents=True)
    (tmp_path / "open").mkdir()
    (tmp_path / "link").symlink_to("secret")
    return Policy(filesystem=Filesystem(inaccessible=(f"{tmp_path}/secret",)), source="p.toml")


@pytest.mark.parametrize("path", ["secret", "secret/inner", "link", "link/inner", "open/..", ""])
def test_what_is_denied_cannot_be_granted(
    path: str, denying: Policy, grants: Grants, tmp_path: Path
) -> None:
    """Nor what lies in it or around it, by whatever path."""
    grants.add_dirs({"/x": tmp_path / path})

    with pytest.raises(PolicyError, match=r"'/x': .* cannot be granted: p\.toml makes .*/secret"):
        grants.settle(denying)


def test_what_is_not_denied_can_be_granted(denying: Policy, grants: Grants, tmp_path: Path) -> None:
    """A folder beside it is none of it, even if its name begins alike."""
    (tmp_path / "secrets").mkdir()
    grants.add_dirs({"/x": tmp_path / "open", "/y": tmp_path / "secrets"})

    grants.settle(denying)


def test_programs_and_sockets_are_denied_as_well(
    denying: Policy, grants: Grants, tmp_path: Path
) -> None:
    """Whatever kind of grant it is."""
    tool = Grant(f"{tmp_path}/link/tool", "/tool")
    policy = attrs.evolve(denying, filesystem=attrs.evolve(denying.filesystem, exec=(tool,)))

    grants.add_policy(policy)
    with pytest.raises(PolicyError, match=r"^p\.toml: filesystem\.exec\[0\]: .*/link/tool cannot"):
        grants.settle(policy)


def started(grants: Grants, policy: Policy | None) -> tuple[str, bool] | None:
    """Return what relative paths start from, on the host, and whether it is read-only."""
    last = grants.directories(policy)[-1:]
    return next(((p.host, p.read_only) for p in last if p.guest == "."), None)


@pytest.mark.parametrize(
    ("cwd", "place"),
    [
        ("/data", ("/srv/in", True)),
        ("/data/sub/x", ("/srv/in/sub/x", True)),
        ("/out", ("/srv/out", False)),
        ("/data/out", ("/srv/out2", False)),
    ],
)
def test_working_directory(cwd: str, place: tuple[str, bool], grants: Grants) -> None:
    """The guest's path is looked up in what it is granted, the innermost first."""
    policy = Policy(filesystem=Filesystem(cwd=cwd))
    grants.add_dirs(
        {"/data": "/srv/in", "/out": ("/srv/out", "rw"), "/data/out": ("/srv/out2", "rw")}
    )

    assert started(grants, policy) == place


def test_working_directory_that_is_not_granted(grants: Grants) -> None:
    """Where nothing is there, nothing starts."""
    grants.add_dirs({"/data": "/srv"})

    with pytest.raises(PolicyError, match=r"filesystem\.cwd: '/datum' lies in no directory"):
        grants.directories(Policy(filesystem=Filesystem(cwd="/datum")))


@pytest.mark.parametrize("root", ["/", "."])
def test_working_directory_beside_the_root(root: str, grants: Grants) -> None:
    """To wasi-libc the two are one name."""
    grants.add_dirs({"/data": "/srv", root: "/tmp"})

    with pytest.raises(PolicyError, match=r"cannot be had beside a grant of '/' or '\.'"):
        grants.directories(Policy(filesystem=Filesystem(cwd="/data")))


def test_root_as_working_directory(grants: Grants) -> None:
    """The root is one anyway."""
    grants.add_dirs({"/": "/srv"})

    assert started(grants, Policy(filesystem=Filesystem(cwd="/"))) is None


def test_working_directory_is_where_this_process_is(
    grants: Grants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the policy grants it, under its own name: as for any program."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    own = Policy(filesystem=Filesystem(read_only=(Grant(f"{tmp_path}", f"{tmp_path}"),)))
    renamed = Policy(filesystem=Filesystem(read_only=(Grant(f"{tmp_path}", "/x"),)))
    for policy, place in ((own, (f"{tmp_path}/sub", True)), (renamed, None), (None, None)):
        grants = Grants()
        if policy is not None:
            grants.add_policy(policy)

        assert started(grants, policy) == place
    grants = Grants()
    grants.add_policy(own)
    grants.add_dirs({".": "/srv"})
    assert started(grants, own) == ("/srv", True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"args": ["\ud800"]}, r"argument '\\ud800': it cannot be bytes: surrogates not allowed"),
        ({"env": {"A": "\ud800"}}, "environment variable 'A': .*: it cannot be bytes"),
        ({"dirs": {"/\ud800": "/tmp"}}, r"directory '/\\ud800': it cannot be bytes"),
        ({"dirs": {"/x": "/\ud800"}}, r"directory '/\\ud800': it cannot be bytes"),
    ],
)
def test_words_that_are_no_bytes(options: dict[str, Any], said: str, grants: Grants) -> None:
    """What Linux has no bytes for is said to be so, and of what."""
    add = {
        "args": lambda words: encoded(words, "argument"),
        "env": grants.add_env,
        "dirs": grants.add_dirs,
    }
    (which,) = options
    with pytest.raises(PolicyError, match=said):
        add[which](options[which])


def refusal(policy: Policy, dirs: Dirs | None = None) -> str:
    """Return why nothing starts with these grants; empty if it does."""
    grants = Grants()
    grants.add_policy(policy)
    grants.add_dirs(dirs or {})
    try:
        grants.settle(policy)
    except PolicyError as error:
        return str(error)
    return ""


def test_directories_are_opened_where_they_were_found(tmp_path: Path) -> None:
    """Links are followed once: one that comes between that and the opening is not."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("in")
    folder = os.path.realpath(tmp_path)

    one = Preopen("/sub", f"{folder}/link/sub", read_only=True)
    assert one.place == f"{folder}/in/sub"
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("/etc")
    fd, _ = one.open()
    assert os.path.realpath(f"/proc/self/fd/{fd}") == f"{folder}/in/sub"
    os.close(fd)
    (tmp_path / "in").rename(tmp_path / "before")
    for target in ("/etc", "before"):
        (tmp_path / "in").symlink_to(target)
        before = settled_descriptors()
        with pytest.raises(PolicyError, match=r"'/sub': cannot open .*: Not a directory"):
            one.open()
        assert open_descriptors() == before
        (tmp_path / "in").unlink()


def test_links_that_came_later_are_refused(tmp_path: Path) -> None:
    """A combined policy is not started with what was swapped for a link since it was loaded."""
    folder = os.path.realpath(tmp_path)
    (tmp_path / "sub").mkdir()
    text = {"version": 1, "filesystem": {"exec": ["sub"]}, "network": {"unix": ["sub"]}}
    one = Policy.from_dict(text, folder)
    both = one.intersect(one)
    assert refusal(both) == ""
    (tmp_path / "sub").rmdir()
    (tmp_path / "sub").symlink_to("/etc")

    assert refusal(one) == ""
    assert refusal(both).splitlines() == [
        f"policy: {key}[0]: {folder}/sub cannot be granted: it leads to /etc, and no link may be "
        'followed (links = "refused", as in all combined policies)'
        for key in ("filesystem.exec", "network.unix")
    ]


def test_working_directories_stay_within(tmp_path: Path, grants: Grants) -> None:
    """A link that a guest has left leads about in what is granted, and not out of it."""
    folder = os.path.realpath(tmp_path)
    for name in ("out/sub", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out" / "there").symlink_to("sub")
    (tmp_path / "out" / "away").symlink_to("../secret")
    grants.add_dirs({"/out": (tmp_path / "out", "rw")})

    def place(cwd: str) -> Preopen:
        return grants.directories(Policy(filesystem=Filesystem(cwd=cwd)))[-1]

    fd, _ = place("/out/there").open()
    assert os.path.realpath(f"/proc/self/fd/{fd}") == f"{folder}/out/sub"
    os.close(fd)
    with pytest.raises(PolicyError, match=r"filesystem\.cwd: '/out/away' leads to .*/secret on"):
        place("/out/away").open()


def test_links_out_of_what_the_guest_may_change_are_refused(tmp_path: Path) -> None:
    """A tree in a writable one may by now be a link of the guest's; within that one it may lead."""
    (tmp_path / "rw" / "sub").mkdir(parents=True)
    (tmp_path / "rw" / "in").symlink_to("sub")
    (tmp_path / "rw" / "out").symlink_to("/etc")
    (tmp_path / "rw" / "both").symlink_to("../rw")

    def of(name: str) -> str:
        files = {"read_write": ["rw"], "exec": [f"rw/{name}"]}
        return refusal(
            Policy.from_dict({"version": 1, "filesystem": files}, tmp_path, source="p.toml")
        )

    assert [of(name) for name in ("sub", "in", "both")] == [""] * 3
    assert re.fullmatch(
        r"p\.toml: filesystem\.exec\[0\]: .*/rw/out cannot be granted: it leads to /etc, out of "
        ".*/rw, which the guest may change",
        of("out"),
    )


@pytest.mark.parametrize("path", ["alias/out", "chain", "rw/sub/../out", "rw/in/../out/."])
def test_links_of_a_guest_are_found_wherever_a_path_comes_by(tmp_path: Path, path: str) -> None:
    """By another name of what it may change, by a link of somebody else's, by the caller's word."""
    (tmp_path / "rw" / "sub").mkdir(parents=True)
    (tmp_path / "rw" / "in").symlink_to("sub")
    (tmp_path / "rw" / "out").symlink_to("../secret")
    (tmp_path / "alias").symlink_to("rw")
    (tmp_path / "chain").symlink_to("alias/in/../out")
    (tmp_path / "secret").mkdir()
    folder = os.path.realpath(tmp_path)

    of_caller: Dirs = {"/rw": (tmp_path / "rw", "rw"), "/x": f"{tmp_path}/{path}"}
    said = refusal(Policy(), of_caller)
    assert said == (
        f"directory '/x': {tmp_path}/{path} cannot be granted: it leads to {folder}/secret, out of "
        f"{tmp_path}/rw, which the guest may change"
    )
    if not path.startswith("rw"):  # in a policy that is refused anyway
        files = {"read_write": ["rw"], "read_only": [path]}
        by_policy = Policy.from_dict({"version": 1, "filesystem": files}, tmp_path)
        assert "filesystem.read_only[0]: " in refusal(by_policy)


def test_what_is_audited_lies_where_the_guest_cannot_write(tmp_path: Path) -> None:
    """Not by a link either, nor in what the caller grants: it could be led to another file."""
    (tmp_path / "rw").mkdir()
    (tmp_path / "log").symlink_to("rw")
    for folder, granted, said in (
        ("log", {"read_write": ["rw"]}, True),
        ("rw", {}, True),
        (".", {"read_write": ["rw"]}, False),
    ):
        text = {"filesystem": granted, "audit": {"path": f"{folder}/audit.jsonl"}}
        policy = Policy.from_dict({"version": 1, **text}, tmp_path, source="p.toml")
        found = refusal(policy, {"/rw": (tmp_path / "rw", "rw")})
        assert found.startswith("p.toml: audit.path: ") == said, found
