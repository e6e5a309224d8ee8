"""Tests of wali_core._cache: an entry is native code, so whose it is decides."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from tests import ordinary
from wali_core import _bridge as bridge
from wali_core import _cache
from wali_core._cache import Cache, default_folder, digest
from wali_core._engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES = bytes(wasmtime.wat2wasm('(module (func (export "f") (result i32) (i32.const 42)))'))
ROOT = Path(__file__).resolve().parents[2]
NAME = digest(b"a module")
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    made = Cache(str(tmp_path / "cache"))
    assert made.usable
    return made


@pytest.fixture
def entry(cache: Cache) -> Path:
    """Return the path of the one entry of the cache, which is four bytes long."""
    cache.store(NAME, b"code")
    return Path(cache.folder, NAME)


def content(path: bytes) -> int:
    """Use an entry as the compiler would: return its address, which here is its length."""
    return len(Path(os.fsdecode(path)).read_bytes())


def never(path: bytes) -> int:
    """Fail: the entry must not be used."""
    raise AssertionError(path)


# --- what is kept ---------------------------------------------------------------------------------


def test_what_is_stored_is_loaded(cache: Cache, entry: Path) -> None:
    """An entry is loaded by its name, and nothing by another."""
    assert cache.load(NAME, content) == 4
    assert cache.load("other", never) is None
    assert os.listdir(cache.folder) == [entry.name]


def test_folder_and_entries_are_private(tmp_path: Path) -> None:
    """Whatever the umask, others can neither read nor write what is made."""
    before = os.umask(0)
    try:
        cache = Cache(str(tmp_path / "cache"))
        cache.store(NAME, b"code")
    finally:
        os.umask(before)

    assert Path(cache.folder).stat().st_mode & 0o7777 == 0o700
    assert Path(cache.folder, NAME).stat().st_mode & 0o7777 == 0o600


def test_entries_are_replaced(cache: Cache, entry: Path) -> None:
    """Storing again replaces the entry, and leaves nothing else behind."""
    cache.store(NAME, b"longer code")

    assert cache.load(NAME, content) == 11
    assert os.listdir(cache.folder) == [entry.name]


@given(context=st.lists(st.text(max_size=4), max_size=3), data=st.binary(max_size=8))
def test_digests_keep_their_parts_apart(context: list[str], data: bytes) -> None:
    """A digest is a file name of fixed length, and other settings make another."""
    name = digest(data, *context)

    assert len(name) == 40
    assert int(name, 16) >= 0
    assert name != digest(data, *context, "more")


def test_digests_are_of_the_whole_text() -> None:
    """What can be cut in two ways is not the same in both."""
    assert digest(b"", "ab", "c") != digest(b"", "a", "bc")
    assert digest(b"c", "ab") != digest(b"bc", "a")


def test_paths_of_any_bytes_can_be_digested() -> None:
    """A path that is no UTF-8 is as good as another: wasmtime may be installed there."""
    assert digest(b"", os.fsdecode(b"/caf\xe9")) != digest(b"", "/café")


# --- where it is ----------------------------------------------------------------------------------


def test_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG variable says where, if it is absolute; else the home folder does."""
    monkeypatch.setenv("HOME", "/home/me")

    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert default_folder() == "/var/cache/me/wali"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == "/home/me/.cache/wali"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == "/home/me/.cache/wali"


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a home folder gets no cache, and none in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)

    cache = Cache()

    assert not cache.usable
    assert not list(tmp_path.iterdir())


# --- who could have written it --------------------------------------------------------------------


def chmod(mode: int) -> Callable[[Path], None]:
    """Return a function that changes the mode."""
    return lambda path: path.chmod(mode)


def give_away(path: Path) -> None:
    """Make it another user's."""
    os.chown(path, NOBODY, -1)


def replace_by_link(path: Path) -> None:
    """Put a symbolic link in its place."""
    moved = path.rename(path.parent.parent / "moved")
    path.symlink_to(moved)


ATTACKS = [
    pytest.param(chmod(0o660), id="group-writable"),
    pytest.param(chmod(0o602), id="world-writable"),
    pytest.param(replace_by_link, id="symbolic link"),
    pytest.param(give_away, id="other owner", marks=needs_root),
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_entries_of_others_are_not_used(
    attack: Callable[[Path], None], cache: Cache, entry: Path
) -> None:
    """An entry that another user owns, or could have written, is as good as none."""
    attack(entry)

    assert cache.load(NAME, never) is None


@pytest.mark.parametrize("attack", ATTACKS)
def test_entries_of_others_are_replaced(
    attack: Callable[[Path], None], cache: Cache, entry: Path
) -> None:
    """A new entry takes the place of one that could not be trusted."""
    attack(entry)

    cache.store(NAME, b"new")

    assert cache.load(NAME, content) == 3
    assert not entry.is_symlink()


@pytest.mark.parametrize("attack", ATTACKS)
def test_folders_of_others_are_not_used(
    attack: Callable[[Path], None], cache: Cache, entry: Path
) -> None:
    """A folder that another user owns, or could write to, is no cache: nothing is read or made."""
    attack(Path(cache.folder))

    again = Cache(cache.folder)

    assert not again.usable
    assert again.load(entry.name, never) is None
    again.store("more", b"code")
    assert not Path(cache.folder, "more").exists()


# Everybody else is this user there, by the number: uid 65534 of the one is that of all the others.
IN_NAMESPACE = """
import os, sys
from capabilities.lockdown import view
from wali_core._cache import Cache
view.claim()
folder, name = sys.argv[1:]
cache = Cache(folder)
print(view.claimed(), os.stat(folder).st_uid == os.geteuid() == 65534)
print(cache.usable, cache.load(name, lambda path: 1), cache.load("0" * 40, lambda path: 1))
"""


@needs_root
@pytest.mark.parametrize(
    ("owned", "found"),
    [([], "False None None"), (["."], "True None None"), ([".", NAME], "True 1 None")],
)
def test_others_are_told_apart_in_a_user_namespace(owned: list[str], found: str) -> None:
    """Where all other users have this one's number, what he does not own is not used."""
    with tempfile.TemporaryDirectory(prefix="wali-") as name:
        home = Path(name)
        home.chmod(0o755)
        folder = home / "cache"
        folder.mkdir(0o755)
        for entry in (NAME, "0" * 40):
            (folder / entry).write_bytes(b"code")
            (folder / entry).chmod(0o644)
        for path in owned:
            os.chown(folder / path, NOBODY, NOBODY)

        done = ordinary.run([sys.executable, "-c", IN_NAMESPACE, str(folder), NAME], home)

    assert (done.stderr, done.stdout) == ("", f"True True\n{found}\n")


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo])
def test_entries_that_are_no_files_are_not_used(kind: Callable[[str], None], cache: Cache) -> None:
    """A folder or a pipe in an entry's place is not read, nor waited for."""
    kind(os.path.join(cache.folder, NAME))

    assert cache.load(NAME, never) is None


def test_a_file_in_the_folders_place_is_no_cache(tmp_path: Path) -> None:
    """Where a file has the folder's name there is no cache, and no error."""
    (tmp_path / "cache").write_text("")

    assert not Cache(str(tmp_path / "cache")).usable
    assert not Cache(str(tmp_path / "cache" / "deeper")).usable


# --- when it goes wrong ---------------------------------------------------------------------------


def test_unusable_entries_are_removed(cache: Cache, entry: Path) -> None:
    """An entry that the compiler does not take makes room for a good one."""
    assert cache.load(NAME, lambda _: None) is None
    assert not entry.exists()


def test_a_folder_that_is_gone_is_no_error(cache: Cache, entry: Path) -> None:
    """A cache whose folder was removed meanwhile keeps nothing and says nothing."""
    entry.unlink()
    Path(cache.folder).rmdir()

    cache.store(NAME, b"code")
    cache._bound()

    assert cache.load(NAME, never) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_disk_is_no_error(
    cache: Cache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that cannot be written whole leaves the old one, and nothing unfinished."""
    opened = os.open

    def full(path: str, flags: int, mode: int = 0o777) -> int:
        os.close(opened(path, flags, mode))
        return opened("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", full)
    cache.store(NAME, b"too long")
    monkeypatch.undo()

    assert cache.load(NAME, content) == 4
    assert os.listdir(cache.folder) == [entry.name]


def test_an_unwritable_folder_is_still_read(cache: Cache, entry: Path) -> None:
    """An ordinary user whose cache may not be written compiles again, without an error."""
    folder = Path(cache.folder)
    folder.chmod(0o500)
    folder.parent.chmod(0o711)
    code = f"""
import os
from wali_core._cache import Cache
if os.geteuid() == 0:
    for path in ("cache", "cache/{entry.name}"):
        os.chown(path, {NOBODY}, -1)
    os.seteuid({NOBODY})
cache = Cache("cache")
assert cache.usable
cache.store("other", b"code")
print(os.listdir("cache") == ["{entry.name}"], cache.load("{entry.name}", lambda path: 1))
"""

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout == "True 1\n"


# --- size -----------------------------------------------------------------------------------------


def test_the_oldest_entries_go_first(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longest unused goes when the entries take more than they may."""
    monkeypatch.setattr(_cache, "MAXIMUM_BYTES", 25)
    first, second, third, fourth = (digest(b"", str(number)) for number in range(4))
    for age, name in enumerate([first, second, third]):
        cache.store(name, b"0123456789")
        os.utime(Path(cache.folder, name), (1000 + age, 1000 + age))
    assert set(os.listdir(cache.folder)) == {second, third}

    cache.load(second, content)  # which makes it the younger one
    cache.store(fourth, b"0123456789")

    assert set(os.listdir(cache.folder)) == {second, fourth}


def test_other_files_are_left_alone(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else keeps in the folder is neither counted nor removed."""
    monkeypatch.setattr(_cache, "MAXIMUM_BYTES", 10)
    others = {"thesis.tex", "x" * 40, "0123.4567", "a" * 41}
    for name in others:
        Path(cache.folder, name).write_text("a lot of work")

    cache.store(NAME, b"code")

    assert set(os.listdir(cache.folder)) == {*others, NAME}


def test_reading_does_not_write_every_time(cache: Cache, entry: Path) -> None:
    """The time of last use is kept to a day: a loaded entry of today is not touched."""
    now = entry.stat().st_mtime
    os.utime(entry, (now - 3600, now - 3600))

    cache.load(NAME, content)

    assert entry.stat().st_mtime == now - 3600


def test_unfinished_entries_count(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process left behind goes like any other entry."""
    left = Path(cache.folder, digest(b"") + ".12345")
    left.write_bytes(b"0123456789")
    os.utime(left, (1000, 1000))
    monkeypatch.setattr(_cache, "MAXIMUM_BYTES", 5)

    cache.store(NAME, b"code")

    assert os.listdir(cache.folder) == [NAME]


# --- many at once ---------------------------------------------------------------------------------


def test_writers_do_not_disturb_each_other(cache: Cache) -> None:
    """Threads that store and load one entry see it whole, or not at all."""
    data = [bytes([byte]) * 100_000 for byte in range(4)]
    seen: set[bytes] = set()

    def use(path: bytes) -> int:
        seen.add(Path(os.fsdecode(path)).read_bytes())
        return 1

    def work(mine: bytes) -> None:
        for _ in range(20):
            cache.store(NAME, mine)
            cache.load(NAME, use)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen
    assert seen <= set(data)
    assert os.listdir(cache.folder) == [NAME]


def test_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Processes that compile the same module into one cache all get it, and leave one entry."""
    module = tmp_path / "m.wasm"
    module.write_bytes(BYTES)
    code = f"""
from wali_core import Runtime
with Runtime(cache={str(tmp_path / "cache")!r}) as runtime:
    with runtime.instantiate({str(module)!r}) as guest:
        print(guest.call("f"))
"""
    command = [sys.executable, "-c", code]

    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    assert [process.communicate()[0] for process in processes] == ["42\n"] * 4
    assert len(os.listdir(tmp_path / "cache")) == 1


# --- what wasmtime makes of it --------------------------------------------------------------------


def compiled_with(cache: Cache) -> bool:
    """Compile the module, and return whether that took the compiler."""
    told: list[int] = []
    engine = Engine(bridge.core)
    module = engine.compile(BYTES, "m", cache, on_compile=told.append)
    assert module.pointer
    return bool(told)


def test_compiled_modules_come_from_the_cache(cache: Cache) -> None:
    """What one engine compiled another one loads."""
    assert compiled_with(cache)
    assert not compiled_with(cache)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: b"\0" * len(data),
        lambda _: b"not an artefact",
        lambda data: data[:100],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"\x7fELF" + b"\xff" * (len(data) - 4),
    ],
    ids=["empty", "zeros", "text", "its start", "half", "all but the end", "header"],
)
def test_damaged_entries_are_compiled_again(damage: Callable[[bytes], bytes], cache: Cache) -> None:
    """An entry that is cut or overwritten is recognised, compiled again and replaced."""
    compiled_with(cache)
    (entry,) = Path(cache.folder).iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))

    assert compiled_with(cache)
    assert not compiled_with(cache)
    assert entry.stat().st_size == len(whole)


def test_entries_of_other_settings_are_compiled_again(cache: Cache) -> None:
    """An artefact of an engine with other settings is refused by wasmtime, whatever its name."""
    compiled_with(cache)
    (entry,) = Path(cache.folder).iterdir()
    config = wasmtime.Config()
    config.epoch_interruption = False
    other = wasmtime.Module(wasmtime.Engine(config), BYTES).serialize()
    entry.write_bytes(bytes(other))

    assert compiled_with(cache)
