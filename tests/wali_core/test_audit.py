"""What is written down of WASI guests: what they asked for, what came of it, and by which rule."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from capabilities import Audit, Event, Limits, Policy, read_events
from tests.held import open_descriptors, settled_descriptors
from tests.wasi_shim.calls import READ, WRITE, Wasi, WasiError, caller
from wali_core import GuestLimit, PolicyError, Runtime, _audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from capabilities import Verdict

    Run = Callable[..., list[Event]]
    Line = tuple[str, str, str, Verdict, str, str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with some things in it."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "file").write_text("in")
    (tmp_path / "out").mkdir()
    return tmp_path


def policy(folder: Path, log: str = "all") -> Policy:
    """Return a policy that grants one tree to read and one to change, and writes down what is."""
    return Policy.from_dict(
        {
            "version": 1,
            "filesystem": {"read_only": ["in::/in"], "read_write": ["out::/out"]},
            "audit": {"log": log, "path": "audit.jsonl"},
        },
        folder,
    )


@pytest.fixture
def watched(cache_folder: Path, folder: Path) -> Iterator[Callable[..., Wasi]]:
    """Return a function that starts a guest whose calls are written down."""
    runtimes = []

    def start(log: str = "all", **options: Any) -> Wasi:
        runtime = Runtime(policy=policy(folder, log), cache=cache_folder)
        guest = runtime.instantiate(caller("wasi_snapshot_preview1"), stdio=(-1, -1, -1), **options)
        runtimes.append((guest, runtime))
        return Wasi(guest)

    yield start
    for guest, runtime in runtimes:
        guest.close()
        runtime.close()


def events(folder: Path) -> list[Event]:
    """Return what was written down, but for the start."""
    with (folder / "audit.jsonl").open() as file:
        start, *rest = read_events(file)
    assert start.decision == "started"
    return rest


def lines(folder: Path) -> list[Line]:
    """Return what was written down in short."""
    return [(e.syscall, e.resource, e.access, e.decision, e.rule, e.result) for e in events(folder)]


RO, RW = "filesystem.read_only[0]", "filesystem.read_write[0]"
IN, OUT = 3, 4


def refused(what: Callable[[], object]) -> None:
    """Do what has to fail."""
    with pytest.raises(WasiError):
        what()


def test_what_was_granted(watched: Callable[..., Wasi], folder: Path) -> None:
    """Each call that names a file is written down with the rule that grants it."""
    wasi = watched()
    wasi.path_open("file", fd=IN)
    wasi.stat("sub", fd=IN)
    fd = wasi.create("new", fd=OUT)
    wasi.call("fd_filestat_set_size", fd, 10)
    wasi.path_open("new", fd=OUT, base=WRITE)
    wasi.on_path("path_create_directory", "d", fd=OUT)
    wasi.on_path("path_unlink_file", "new", fd=OUT)

    assert lines(folder) == [
        ("path_open", "/in/file", "read", "granted", RO, "0"),
        ("path_filestat_get", "/in/sub", "look", "granted", RO, "0"),
        ("path_open", "/out/new", "make", "granted", RW, "0"),
        ("fd_filestat_set_size", "/out/new", "write", "granted", RW, "0"),
        ("path_open", "/out/new", "write", "granted", RW, "0"),
        ("path_create_directory", "/out/d", "make", "granted", RW, "0"),
        ("path_unlink_file", "/out/new", "make", "granted", RW, "0"),
    ]


def test_what_was_refused(watched: Callable[..., Wasi], folder: Path) -> None:
    """Refusals are written down alone, if that is asked for, by whom they are refused."""
    (folder / "in" / "link").symlink_to("../out")
    wasi = watched("denied")
    wasi.path_open("file", fd=IN)
    refused(lambda: wasi.path_open("link", fd=IN))
    refused(lambda: wasi.path_open("../secret", fd=IN))
    refused(lambda: wasi.path_open("/etc/passwd", fd=IN))
    refused(lambda: wasi.path_open("file", fd=IN, base=WRITE))
    refused(lambda: wasi.create("new", fd=IN))
    refused(lambda: wasi.on_path("path_unlink_file", "file", fd=IN))
    refused(lambda: wasi.path_open("none", fd=IN))

    assert lines(folder) == [
        ("path_open", "/in/link", "read", "denied", "default", "EPERM"),
        ("path_open", "/secret", "read", "denied", "default", "EPERM"),
        ("path_open", "/etc/passwd", "read", "denied", "default", "EPERM"),
        ("path_open", "/in/file", "write", "denied", RO, "EPERM"),
        ("path_open", "/in/new", "make", "denied", RO, "EPERM"),
        ("path_unlink_file", "/in/file", "make", "denied", RO, "EPERM"),
    ]


def test_what_fails_by_itself_is_no_refusal(watched: Callable[..., Wasi], folder: Path) -> None:
    """What is granted and not there is granted, and its error is written down."""
    wasi = watched()
    refused(lambda: wasi.path_open("none", fd=IN))

    assert lines(folder) == [("path_open", "/in/none", "read", "granted", RO, "ENOENT")]


def test_paths_begin_where_descriptors_were_opened(
    watched: Callable[..., Wasi], folder: Path
) -> None:
    """A directory that was opened is named by its path, also when it has another number."""
    wasi = watched()
    sub = wasi.path_open("sub", fd=IN, oflags=2)
    refused(lambda: wasi.path_open("x", fd=sub))
    wasi.call("fd_renumber", sub, OUT)
    refused(lambda: wasi.path_open("y", fd=OUT))
    wasi.close(OUT)
    refused(lambda: wasi.path_open("z", fd=OUT))

    assert [line[1] for line in lines(folder)] == ["/in/sub", "/in/sub/x", "/in/sub/y"]


def test_two_paths_of_one_call(watched: Callable[..., Wasi], folder: Path) -> None:
    """A rename and a link name two, each by its own directory."""
    wasi = watched()
    wasi.create("a", fd=OUT)
    old, new = wasi.put_path("a"), wasi.put_path("b", 65536)
    wasi.call("path_rename", OUT, *old, OUT, *new)
    refused(lambda: wasi.call("path_link", OUT, 0, *new, IN, *old))

    assert lines(folder)[1:] == [
        ("path_rename", "/out/a", "make", "granted", RW, "0"),
        ("path_rename", "/out/b", "make", "granted", RW, "0"),
        ("path_link", "/out/b", "make", "granted", RW, "EPERM"),
        ("path_link", "/in/a", "make", "denied", RO, "EPERM"),
    ]


def test_what_the_caller_grants_is_the_callers(watched: Callable[..., Wasi], folder: Path) -> None:
    """Directories that were given besides have no rule of the policy's."""
    (folder / "more").mkdir()
    wasi = watched(dirs={"/more": (folder / "more", "rw"), ".": folder / "in"})
    wasi.create("x", fd=5)
    wasi.path_open("file", fd=6)

    assert lines(folder) == [
        ("path_open", "/more/x", "make", "granted", "caller", "0"),
        ("path_open", "/file", "read", "granted", "caller", "0"),
    ]


def test_where_it_starts(cache_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named from the working directory lies in the tree that this is a part of."""
    files = {"read_only": ["in::/in"], "read_write": ["out::/out"], "cwd": "/in/sub"}
    audit = {"log": "all", "path": "audit.jsonl"}
    started = {"version": 1, "filesystem": files, "audit": audit}
    own = {**started, "filesystem": {"read_only": ["in"]}}
    monkeypatch.chdir(folder / "in")
    for data, place in ((started, 5), (own, 4)):
        with Runtime(policy=Policy.from_dict(data, folder), cache=cache_folder) as runtime:
            guest = runtime.instantiate(caller("wasi_snapshot_preview1"), stdio=(-1, -1, -1))
            with guest:
                wasi = Wasi(guest)
                refused(partial(wasi.path_open, "etc/passwd", fd=place))
                refused(partial(wasi.create, "new", fd=place))
                refused(partial(wasi.path_open, "../x", fd=place))

    first, second = "/in/sub", f"{folder}/in"
    with (folder / "audit.jsonl").open() as file:
        seen = [(e.resource, e.decision, e.rule) for e in read_events(file) if e.syscall]
    assert seen == [
        (f"{first}/etc/passwd", "granted", RO),
        (f"{first}/new", "denied", RO),
        ("/in/x", "denied", "default"),
        (f"{second}/etc/passwd", "granted", RO),
        (f"{second}/new", "denied", RO),
        (f"{folder}/x", "denied", "default"),
    ]


def test_the_same_is_written_once(watched: Callable[..., Wasi], folder: Path) -> None:
    """A loop does not fill the disk."""
    wasi = watched()
    for _ in range(100):
        wasi.close(wasi.path_open("file", fd=IN))
        refused(lambda: wasi.path_open("none", fd=IN))

    assert len(lines(folder)) == 2


def test_a_guest_cannot_fill_the_disk_with_refusals(
    watched: Callable[..., Wasi], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is refused too many things is ended."""
    monkeypatch.setattr(_audit, "MOST_DENIALS", 20)
    wasi = watched("denied")

    for number in range(20):
        refused(partial(wasi.path_open, f"/{number}", fd=IN))
    with pytest.raises(GuestLimit, match="refused more than 20 things") as caught:
        wasi.path_open("/one more", fd=IN)

    assert caught.value.limit == "audit"
    assert len(lines(folder)) == 21


def test_lines_are_json_with_a_version(watched: Callable[..., Wasi], folder: Path) -> None:
    """A line is an object with these keys, whatever the names of files are."""
    wasi = watched()
    refused(lambda: wasi.path_open(b"\xff\n\x1b[m", fd=IN))

    text = (folder / "audit.jsonl").read_bytes()
    start, line = map(json.loads, text.splitlines())
    keys = {"v", "time", "pid", "syscall", "resource", "access", "decision", "rule", "result"}
    assert set(start) == set(line) == keys
    assert text.isascii()
    assert b"\x1b" not in text
    assert os.fsencode(line["resource"]) == b"/in/\xff\n\x1b[m"
    assert start["rule"].startswith("sha256:")
    assert (start["pid"], line["pid"], line["v"]) == (os.getpid(), os.getpid(), 1)


def test_files_are_private_and_added_to(watched: Callable[..., Wasi], folder: Path) -> None:
    """Runs follow each other in one file, which is its owner's alone."""
    for _ in range(2):
        watched().path_open("file", fd=IN)

    with (folder / "audit.jsonl").open() as file:
        decisions = [event.decision for event in read_events(file)]
    assert decisions == ["started", "granted"] * 2
    assert (folder / "audit.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("make", "reason"), [(os.mkdir, "Is a directory"), (os.mkfifo, "No such device or address")]
)
def test_file_that_cannot_be_written(
    make: Callable[[Path], None], reason: str, cache_folder: Path, folder: Path
) -> None:
    """Without its audit no guest runs; nobody waits for who would read it."""
    with Runtime(policy=policy(folder), cache=cache_folder) as runtime:
        make(folder / "audit.jsonl")
        with pytest.raises(
            PolicyError, match=rf"^policy: audit\.path: .*audit.jsonl cannot be written: {reason}"
        ):
            runtime.instantiate(caller("wasi_snapshot_preview1"), stdio=(-1, -1, -1))


def test_what_never_starts_is_not_written_down(
    cache_folder: Path, folder: Path, guest_from_wat: Callable[..., Path]
) -> None:
    """A program that is refused before anything of it runs has not started."""
    large = guest_from_wat(
        '(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))'
        ' (memory (export "memory") 257) (func (export "_start")))'
    )
    limited = attrs.evolve(policy(folder), limits=Limits(memory=1 << 20))
    with Runtime(policy=limited, cache=cache_folder) as runtime, pytest.raises(GuestLimit):
        runtime.run_sync(large)

    assert (folder / "audit.jsonl").read_text() == ""


def test_disk_that_is_full_ends_the_guest(cache_folder: Path) -> None:
    """What cannot be written down does not happen in silence."""
    full = Policy(audit=Audit("all", "/dev/full"))
    with Runtime(policy=full, cache=cache_folder) as runtime, pytest.raises(OSError, match="space"):
        runtime.instantiate(caller("wasi_snapshot_preview1"), stdio=(-1, -1, -1))


@pytest.mark.parametrize("log", ["none", "denied", "all"])
def test_nothing_is_left_open(log: str, cache_folder: Path, folder: Path) -> None:
    """Files of audits are closed with the guest."""
    with Runtime(policy=policy(folder, log), cache=cache_folder) as runtime:
        module = caller("wasi_snapshot_preview1")
        runtime.instantiate(module, stdio=(-1, -1, -1)).close()
        before = settled_descriptors()
        runtime.instantiate(module, stdio=(-1, -1, -1)).close()

        assert open_descriptors() == before


def test_calls_on_what_is_open_are_not_looked_at(
    watched: Callable[..., Wasi], folder: Path
) -> None:
    """Reading and writing go their usual way."""
    wasi = watched()
    fd = wasi.create("x", fd=OUT)
    wasi.call("fd_close", fd)
    fd = wasi.path_open("x", fd=OUT, base=READ | WRITE)
    wasi.write(fd, b"some")
    wasi.seek(fd, 0, 0)

    assert wasi.read(fd, 4) == b"some"
    assert [line[0] for line in lines(folder)] == ["path_open", "path_open"]
