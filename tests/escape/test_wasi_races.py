"""Another process changes names while a guest of the real shim resolves them.

The default run is short. For one that attacks at least 100,000 times by each race, in both ways to
resolve paths:

    WALI_RACES=100000 python -m pytest tests/escape/test_races.py tests/escape/test_wasi_races.py
"""

from __future__ import annotations

import faulthandler
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.escape.evil import TOKEN
from tests.escape.races import ATTEMPTS
from tests.escape.swapper import exchanging
from tests.wasi_shim.calls import CREAT, DIRECTORY, READ, TRUNC, WRITE, Errno, WasiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.escape.evil import World
    from tests.wasi_shim.calls import Wasi

    Tell = Callable[[str, dict[Errno, int]], None]

SECONDS, AT_MOST = 0.2, 20.0
"""How long each race lasts, and how long on a machine that has little time for it."""

pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(0)] if ATTEMPTS else [])]

# What a path may answer whose parts come and go.
CHANGING = {
    Errno.SUCCESS,
    Errno.PERM,
    Errno.NOENT,
    Errno.NOTDIR,
    Errno.LOOP,
    Errno.EXIST,
    Errno.ISDIR,
    Errno.INVAL,
}


@pytest.fixture(autouse=True)
def _as_long_as_it_takes() -> None:
    if ATTEMPTS:
        faulthandler.cancel_dump_traceback_later()  # pytest's


def is_over(past: float, answers: dict[Errno, int], *, until_both: bool) -> bool:
    """Has a race lasted for long enough, in seconds and in attempts?"""
    if sum(answers.values()) < ATTEMPTS:
        return False
    both = Errno.SUCCESS in answers and len(answers) > 1
    return past > AT_MOST or (past > SECONDS and (both or not until_both))


def repeat(call: Callable[[], object], *, until_both: bool = False) -> dict[Errno, int]:
    """How often a call answers what, over a while, and until both sides have won."""
    answers: dict[Errno, int] = {}
    start = time.monotonic()
    while not is_over(time.monotonic() - start, answers, until_both=until_both):
        try:
            call()
            errno = Errno.SUCCESS
        except WasiError as error:
            errno = error.errno
        answers[errno] = answers.get(errno, 0) + 1
    return answers


def read(wasi: Wasi, path: str, *, follow: bool = True) -> None:
    """Read a file, which must not be the secret."""
    fd = wasi.path_open(path, follow=follow)
    try:
        assert TOKEN not in wasi.read(fd, 64)
    finally:
        wasi.close(fd)


@pytest.fixture
def tell(request: pytest.FixtureRequest, report_figure: Callable[[str], None]) -> Tell:
    """Return a function that reports what a race was answered, in a long run."""
    way = request.node.callspec.params["wasi"]

    def report(race: str, answers: dict[Errno, int]) -> None:
        if ATTEMPTS:
            counts = ", ".join(f"{count} {errno.name}" for errno, count in answers.items())
            report_figure(f"race {race} ({way}): {sum(answers.values())} attempts: {counts}")

    return report


@pytest.fixture
def swapped(world: World) -> Iterator[None]:
    """`place` is a directory of the box or a link to the outside, `name` a file or a link."""
    (world.box / "place").mkdir()
    for name in ("secret", "new", "pointer"):
        (world.box / "place" / name).write_bytes(b"of the box")
    (world.box / "place" / "empty").mkdir()
    (world.box / "link").symlink_to("../outside")
    (world.box / "name").write_bytes(b"of the box")
    (world.box / "namelink").symlink_to("../outside/secret")
    with (
        exchanging(world.box / "place", world.box / "link"),
        exchanging(world.box / "name", world.box / "namelink"),
    ):
        yield


READS: dict[str, Callable[[Wasi], object]] = {
    "file_is_a_link": lambda wasi: read(wasi, "name"),
    "directory_is_a_link": lambda wasi: read(wasi, "place/secret"),
    "directory_is_a_link_with_dots": lambda wasi: read(wasi, "dir/../place/./secret"),
    "directory_is_a_link_and_back": lambda wasi: read(wasi, "place/../name"),
    "link_is_not_followed": lambda wasi: read(wasi, "name", follow=False),
}

CHANGES: dict[str, Callable[[Wasi], object]] = {
    "open_to_write": lambda wasi: wasi.close(wasi.path_open("name", base=READ | WRITE)),
    "truncate": lambda wasi: wasi.close(wasi.path_open("place/secret", oflags=TRUNC)),
    "create": lambda wasi: wasi.close(wasi.path_open("place/made", oflags=CREAT, base=WRITE)),
    "set_times": lambda wasi: wasi.set_times("place/secret", mtim=5, flags=4),
    "set_times_of_file": lambda wasi: wasi.set_times("name", mtim=5, flags=4),
    "create_directory": lambda wasi: wasi.on_path("path_create_directory", "place/folder"),
    "remove_directory": lambda wasi: wasi.on_path("path_remove_directory", "place/empty"),
    "unlink": lambda wasi: wasi.on_path("path_unlink_file", "place/secret"),
    "rename_from": lambda wasi: wasi.rename("place/secret", "stolen"),
    "rename_to": lambda wasi: wasi.rename("file", "place/new"),
    "link_from": lambda wasi: wasi.link("place/secret", "stolen"),
    "link_to": lambda wasi: wasi.link("file", "place/linked"),
    "symlink": lambda wasi: wasi.symlink("anything", "place/linked"),
}


@pytest.mark.usefixtures("swapped")
@pytest.mark.parametrize("call", READS)
def test_reading_never_leaves(wasi: Wasi, world: World, call: str, tell: Tell) -> None:
    """The last component, or a directory on the way, turns into a link out and back."""
    answers = repeat(lambda: READS[call](wasi), until_both=True)

    tell(call, answers)
    assert set(answers) <= CHANGING
    assert Errno.SUCCESS in answers, "it was never seen to be the file"
    assert len(answers) > 1, "it was never seen to be the link"
    assert not world.changed


@pytest.mark.usefixtures("swapped")
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("path", ["name", "place", "place/secret", "place/pointer"])
def test_metadata_never_comes_from_outside(
    wasi: Wasi, world: World, path: str, *, follow: bool, tell: Tell
) -> None:
    """What is looked at is a file of the box, or a link in it."""
    outside = {os.lstat(path).st_ino for path in world.outside.rglob("*")}
    outside.add(world.outside.stat().st_ino)

    def look() -> None:
        assert wasi.stat(path, follow=follow).ino not in outside

    answers = repeat(look)

    tell(f"stat {path}, {follow=}", answers)
    assert set(answers) <= CHANGING


@pytest.mark.usefixtures("swapped")
def test_changes_never_leave(wasi: Wasi, world: World, tell: Tell) -> None:
    """Every call that makes, moves, removes or changes something: nothing outside changes."""
    answers: dict[str, dict[Errno, int]] = {name: {} for name in CHANGES}

    def all_of_them() -> None:
        for name, change in CHANGES.items():
            try:
                change(wasi)
                errno = Errno.SUCCESS
            except WasiError as error:
                errno = error.errno
            answers[name][errno] = answers[name].get(errno, 0) + 1

    repeat(all_of_them)

    for name, given in answers.items():
        tell(name, given)
        assert set(given) <= CHANGING, name
    assert not world.changed


def test_directory_that_is_moved_out(wasi: Wasi, world: World, tell: Tell) -> None:
    """`..` is asked for in a directory that is in the box and outside of it by turns."""
    (world.root / "other").mkdir()
    (world.root / "other" / "inner").mkdir()
    (world.root / "secret").write_bytes(TOKEN)
    (world.box / "place" / "inner").mkdir(parents=True)
    with exchanging(world.box / "place", world.root / "other"):
        for path in ("place/inner/../../secret", "place/inner/../../file", "place/../secret"):
            answers = repeat(lambda path=path: read(wasi, path))  # type: ignore[misc]
            tell(f"moved out, {path}", answers)
            assert set(answers) <= CHANGING


def test_moved_out_descriptor_leads_nowhere(wasi: Wasi, world: World) -> None:
    """A directory that is open and is moved out is its own root all the same."""
    fd = wasi.path_open("dir", oflags=DIRECTORY)
    (world.box / "dir").rename(world.root / "moved")
    for path in ("..", "../outside/secret", "far", "far/outside/secret", "third"):
        with pytest.raises(WasiError) as refused:
            wasi.path_open(path, fd=fd)
        assert refused.value.errno is Errno.PERM


def test_renames_elsewhere_do_not_disturb(wasi: Wasi, world: World, tell: Tell) -> None:
    """While anything is renamed anywhere, the kernel gives up on `..`: the guest never notices."""
    (world.root / "one").mkdir()
    (world.root / "two").mkdir()
    with exchanging(world.root / "one", world.root / "two"):
        answers = repeat(lambda: read(wasi, "dir/../dir/../dir/../dir/../file"))
    tell("renames elsewhere", answers)
    assert set(answers) == {Errno.SUCCESS}
