"""Tests of capabilities.links: where paths lead, and that none is followed when opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capabilities.links import MOST_LINKS, follow, open_plain
from tests.held import open_descriptors, settled_descriptors

NAMES = st.sampled_from(["a", "b", "c", "..", ".", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
TREES = st.fixed_dictionaries(
    dict.fromkeys(("a", "b", "c", "a/a", "a/b", "a/b/a", "b/c"), st.none() | PATHS)
)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Return a folder whose path has no link in it."""
    return Path(os.path.realpath(tmp_path))


@settings(deadline=None)
@given(tree=TREES, path=PATHS)
def test_paths_lead_where_the_kernel_says(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, str | None], path: str
) -> None:
    """Through any links, up and down: what is opened without them is what the kernel opens."""
    box = Path(os.path.realpath(tmp_path_factory.mktemp("links")))
    folders = {box}
    for name, target in sorted(tree.items()):
        if (box / name).parent not in folders:
            continue  # that is a link
        if target is None:
            (box / name).mkdir()
            folders.add(box / name)
        else:
            (box / name).symlink_to(target or ".")
    said = f"{box}/{path}"
    found = follow(said)

    if found.error:
        with pytest.raises(OSError, match=found.error):
            os.stat(said)
        return
    kernel = os.stat(said)
    fd = open_plain(found.path, os.O_PATH)
    assert os.path.samestat(os.fstat(fd), kernel)
    os.close(fd)
    assert all(os.path.islink(link) for link in found.links)
    assert [*map(os.path.dirname, found.links)] == [
        os.path.realpath(os.path.dirname(link)) for link in found.links
    ]


def test_links_are_told_in_order(box: Path) -> None:
    """Those in what other links lead to as well, each by a path without links."""
    (box / "real").mkdir()
    (box / "first").symlink_to(f"{box}/second/in")
    (box / "second").symlink_to("real")
    (box / "real" / "in").symlink_to("../real")

    found = follow(f"{box}/first/.")

    assert found.path == f"{box}/real"
    assert found.links == (f"{box}/first", f"{box}/second", f"{box}/real/in")


def test_relative_paths_begin_where_this_process_is(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere; and the root is the root."""
    (box / "in").mkdir()
    monkeypatch.chdir(box)
    assert (follow("in").path, follow(".").path, follow("..").path) == (
        f"{box}/in",
        str(box),
        str(box.parent),
    )
    assert (follow("/").path, follow("/..").path, follow("//").path) == ("/", "/", "/")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("none", "No such file or directory"),
        ("none/in", "No such file or directory"),
        ("file/in", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("dangling", "No such file or directory"),
    ],
)
def test_what_is_not_there_is_said(box: Path, path: str, error: str) -> None:
    """Why there is nothing, as the kernel would say it."""
    (box / "file").touch()
    (box / "loop").symlink_to("loop")
    (box / "dangling").symlink_to("none")

    assert follow(f"{box}/{path}").error == error


def test_empty_paths_lead_nowhere() -> None:
    """To the kernel they are no names of the working directory."""
    assert follow("").error == "No such file or directory"


def test_as_many_links_as_the_kernel_follows(box: Path) -> None:
    """And not one more."""
    (box / "0").mkdir()
    for number in range(MOST_LINKS + 1):
        (box / f"{number + 1}").symlink_to(f"{number}")

    assert follow(f"{box}/{MOST_LINKS}").error == ""
    assert os.path.isdir(box / f"{MOST_LINKS}")
    assert follow(f"{box}/{MOST_LINKS + 1}").error == "Too many levels of symbolic links"
    assert not os.path.isdir(box / f"{MOST_LINKS + 1}")


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH, os.O_PATH | os.O_DIRECTORY])
@pytest.mark.parametrize("path", ["link", "link/in", "in/back"])
def test_no_link_is_opened(box: Path, path: str, flags: int) -> None:
    """Neither on the way nor at the end, where O_PATH would give the link itself."""
    (box / "in").mkdir()
    (box / "in" / "in").mkdir()
    (box / "link").symlink_to("in")
    (box / "in" / "back").symlink_to("../in")
    before = settled_descriptors()

    with pytest.raises(OSError, match=r"Not a directory|Too many levels of symbolic links"):
        open_plain(f"{box}/{path}", flags)

    assert open_descriptors() == before


@pytest.mark.parametrize("path", ["", ".", "etc"])
def test_nothing_is_opened_by_a_relative_path(path: str) -> None:
    """It would be taken for one from the root, and the empty one for the root itself."""
    with pytest.raises(ValueError, match="is not absolute"):
        open_plain(path, os.O_PATH)


def test_what_is_opened_is_for_this_process_alone(box: Path) -> None:
    """It is close-on-exec; a file is made with the mode that is said."""
    fd = open_plain(f"{box}/made", os.O_WRONLY | os.O_CREAT, 0o600)
    assert not os.get_inheritable(fd)
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    os.close(fd)
    fd = open_plain("/", os.O_PATH)
    assert os.path.samestat(os.fstat(fd), os.stat("/"))
    os.close(fd)
