"""What is granted is looked at once, and nothing else is opened: others may move it meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from capabilities import Policy, links
from capabilities.lockdown import landlock, view
from tests.escape.swapper import exchanging
from tests.wali import building
from wali_core import PolicyError, Runtime

if TYPE_CHECKING:
    from pathlib import Path

needs_views = pytest.mark.skipif(view.probe() != "", reason="no namespace here: VIEWS NOT TESTED")
needs_landlock = pytest.mark.skipif(
    landlock.abi_version() < 1, reason="no Landlock here: RULES ARE NOT TESTED"
)

PROGRAMS = 100

# Arguments: a policy, its folder, and two names that change places between looking and opening.
LATE = """
import json, os, sys
from capabilities import Policy
from wali_core import PolicyError
from wali_core._bridge import core
from wali_core._confine import confine
from wali_core._grants import Grants
text, folder, one, other = json.loads(sys.argv[1])
policy = Policy.from_dict(text, folder)
grants = Grants()
grants.add_policy(policy)
grants.settle(policy)
os.rename(one, one + ".before")
os.rename(other, one)
try:
    confine(policy, grants, core)
except PolicyError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    """Return a folder with one that a guest may change, in which `link` leads to a secret."""
    made = tmp_path.resolve()
    for name in ("rw/sub", "secret"):
        (made / name).mkdir(parents=True)
    (made / "rw" / "sub" / "file").write_text("granted")
    (made / "secret" / "file").write_text("secret")
    (made / "rw" / "link").symlink_to("../secret")
    (made / "rw" / "file").write_text("granted")
    (made / "rw" / "away").symlink_to("../secret/file")
    return made


def late(moving: Path, tables: dict[str, Any], one: str, other: str) -> str:
    """Return how somebody is refused between whose looking and opening two names change places."""
    given = {"version": 1, **tables}, str(moving), f"{moving}/{one}", f"{moving}/{other}"
    done = subprocess.run(
        [sys.executable, "-c", LATE, json.dumps(given)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    return done.stderr.removesuffix("\n")


@pytest.mark.parametrize(
    ("key", "path", "one", "other", "reason"),
    [
        ("read_only", "rw/sub::/sub", "rw/sub", "rw/link", "Too many levels of symbolic links"),
        ("exec", "rw/sub::/sub", "rw/sub", "rw/link", "Too many levels of symbolic links"),
        ("read_only", "rw/file::/f", "rw/file", "rw/away", "Too many levels of symbolic links"),
        ("read_write", "rw/sub/file::/f", "rw/sub", "rw/link", "Not a directory"),
    ],
)
@needs_views
def test_no_link_is_followed_into_a_view(
    moving: Path, key: str, path: str, one: str, other: str, reason: str
) -> None:
    """A folder that becomes a link once it was looked at is not shown, nor what it leads to."""
    host, _, guest = path.partition("::")

    said = late(moving, {"filesystem": {key: [path]}}, one, other)

    assert said == f"{moving}/{host} as {guest} cannot be granted: {reason}"


@pytest.mark.parametrize(("key", "path"), [("read_only", "rw/sub"), ("exec", "rw/sub/file")])
@needs_landlock
def test_no_link_is_followed_by_the_kernels_rules(moving: Path, key: str, path: str) -> None:
    """The same where there is no view, but Landlock."""
    tables = {"view": "off", "filesystem": {key: [path]}}

    said = late(moving, tables, "rw/sub", "rw/link")

    assert said.startswith(f"{moving}/{path} cannot be granted: ")


@pytest.fixture
def narrow(moving: Path) -> Policy:
    """Return a policy for a part of what another one lets a guest change."""
    (moving / "base.toml").write_text("version = 1\n[filesystem]\nread_write = ['rw']\n")
    (moving / "narrow.toml").write_text(
        "version = 1\nextends = ['base.toml']\n[filesystem]\nread_write = ['rw/sub::/sub']\n"
    )
    return Policy.load(moving / "narrow.toml")


def opened(runtime: Runtime) -> str:
    """Return the name of the folder that a WASI program would be given, or why there is none."""
    try:
        fd, _ = runtime.grants().preopens["/sub"].open()
    except PolicyError as error:
        return "moved" if "it leads to" in str(error) else "swapped"
    with os.fdopen(os.open("file", os.O_RDONLY, dir_fd=fd)) as file:
        os.close(fd)
        return file.read()


def test_who_swaps_folders_wins_nothing(moving: Path, narrow: Policy) -> None:
    """A guest under a wider policy swaps another's folder for a link while that is started."""
    with (
        Runtime(policy=narrow) as runtime,
        exchanging(moving / "rw" / "sub", moving / "rw" / "link"),
    ):
        found: set[str] = set()
        while not found >= {"granted", "moved", "swapped"}:
            found.add(opened(runtime))

    assert "secret" not in found


def test_who_swaps_folders_wins_where_links_are_followed(
    moving: Path, narrow: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it would be if what is opened were the path that was looked at, links and all."""
    monkeypatch.setattr(links, "open_plain", os.open)
    with (
        Runtime(policy=narrow) as runtime,
        exchanging(moving / "rw" / "sub", moving / "rw" / "link"),
    ):
        while opened(runtime) != "secret":
            pass


@needs_views
def test_who_swaps_folders_of_programs_wins_nothing(moving: Path, narrow: Policy) -> None:
    """The same of WALI programs, which have processes and views of their own."""
    program, found = building.program("explore"), set[str]()
    with (
        Runtime(policy=narrow) as runtime,
        exchanging(moving / "rw" / "sub", moving / "rw" / "link"),
    ):
        for _ in range(PROGRAMS):
            try:
                done = runtime.run_sync(program, args=["read", "/sub/file"], capture_output=True)
                found.add((done.stdout or b"").decode())
            except PolicyError as error:
                found.add("moved" if "it leads to" in str(error) else "swapped")

    assert found <= {"granted\n", "moved", "swapped"}
    assert "moved" in found
