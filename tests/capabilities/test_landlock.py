"""Tests of capabilities.lockdown.landlock: the kernel's own answers, and kernels that are older."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from capabilities import LockdownError
from capabilities.lockdown import landlock
from tests.capabilities.confined import attempt, needs_landlock, run
from tests.held import open_descriptors, settled_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEWER = "ioctls of devices (version 5), abstract unix sockets (version 6), signals (version 6)"
ROOT = os.geteuid() == 0
SCRIPT = "import sys\nfrom capabilities.lockdown import landlock\n"


@pytest.fixture
def trees(tmp_path: Path) -> dict[str, object]:
    """Make three trees alike: to read (`ro`), to write (`rw`), and `out`, which is not granted."""
    names: dict[str, object] = {}
    for name in ("ro", "rw", "out"):
        tree = tmp_path / name
        (tree / "sub").mkdir(parents=True)
        (tree / "file").write_text(name)
        (tree / "other").write_text(name)
        (tree / "script").write_text("#!/bin/sh\n")
        (tree / "script").chmod(0o755)
        names[name] = tree
    return names


def confined(attempts: dict[str, str], trees: dict[str, object]) -> dict[str, str]:
    """Make attempts where `ro` and `rw` are granted."""
    return attempt(
        attempts,
        names=trees,
        read_only=[trees["ro"]],
        read_write=[trees["rw"]],
    )


@needs_landlock
def test_a_tree_to_read(trees: dict[str, object]) -> None:
    """What lies in a tree to read can be read and listed, and not changed in any way."""
    attempts = {
        "open(ro + '/file').read()": "ro",
        "os.listdir(ro + '/sub')": "ok",
        "open(ro + '/file', 'r+')": "EACCES",
        "open(ro + '/new', 'x')": "EACCES",
        "os.open(ro + '/file', os.O_TRUNC)": "EACCES",
        "os.truncate(ro + '/file', 0)": "EACCES",
        "os.unlink(ro + '/file')": "EACCES",
        "os.rmdir(ro + '/sub')": "EACCES",
        "os.mkdir(ro + '/new')": "EACCES",
        "os.symlink('file', ro + '/new')": "EACCES",
        "os.link(ro + '/file', ro + '/new')": "EACCES",
        "os.rename(ro + '/file', ro + '/new')": "EACCES",
        "os.mkfifo(ro + '/new')": "EACCES",
        "unix('bind', ro + '/new')": "EACCES",
        "os.execv(ro + '/script', ['x'])": "EACCES",
        "open(f'/proc/self/fd/{os.open(ro + \"/file\", os.O_PATH)}', 'r+')": "EACCES",
    }

    assert confined(attempts, trees) == attempts


@needs_landlock
def test_a_tree_to_write(trees: dict[str, object]) -> None:
    """What lies in a tree to write can be changed in all ways, but for devices and execution."""
    attempts = {
        "open(rw + '/file').read()": "rw",
        "os.listdir(rw)": "ok",
        "open(rw + '/file', 'r+').write('x')": "ok",
        "open(rw + '/new', 'x')": "ok",
        "os.open(rw + '/file', os.O_TRUNC)": "ok",
        "os.truncate(rw + '/file', 0)": "ok",
        "os.mkdir(rw + '/folder')": "ok",
        "os.rename(rw + '/new', rw + '/folder/new')": "ok",
        "os.link(rw + '/file', rw + '/folder/link')": "ok",
        "os.rename(rw + '/folder', rw + '/sub/folder')": "ok",
        "os.unlink(rw + '/sub/folder/new')": "ok",
        "os.rmdir(rw + '/sub')": "ENOTEMPTY",
        "os.symlink('file', rw + '/symlink')": "ok",
        "os.mkfifo(rw + '/fifo')": "ok",
        "unix('bind', rw + '/socket')": "ok",
        "os.execv(rw + '/script', ['x'])": "EACCES",
    }
    if ROOT:  # others may not, whatever Landlock says
        attempts["os.mknod(rw + '/null', stat.S_IFCHR, os.makedev(1, 3))"] = "EACCES"
        attempts["os.mknod(rw + '/disk', stat.S_IFBLK, os.makedev(8, 0))"] = "EACCES"

    assert confined(attempts, trees) == attempts


@needs_landlock
def test_nothing_else(trees: dict[str, object]) -> None:
    """Outside of what is granted nothing is read, listed, made, removed, cut off or executed."""
    attempts = {
        "open(out + '/file')": "EACCES",
        "os.listdir(out)": "EACCES",
        "os.open(out, os.O_RDONLY)": "EACCES",
        "open(out + '/file', 'r+')": "EACCES",
        "open(out + '/new', 'x')": "EACCES",
        "os.truncate(out + '/file', 0)": "EACCES",
        "os.unlink(out + '/file')": "EACCES",
        "os.rmdir(out + '/sub')": "EACCES",
        "os.mkdir(out + '/new')": "EACCES",
        "os.symlink('file', out + '/new')": "EACCES",
        "os.rename(out + '/file', out + '/new')": "EACCES",
        "os.execv('/bin/true', ['true'])": "EACCES",
        "open('/proc/self/mem')": "EACCES",
        "open('/dev/null')": "EACCES",
        "open(f'/proc/self/fd/{os.open(out + \"/file\", os.O_PATH)}')": "EACCES",
        "open('..')": "EACCES",
        "os.listdir('/')": "EACCES",
    }

    assert confined(attempts, trees) == attempts


@needs_landlock
def test_across_trees(trees: dict[str, object]) -> None:
    """Files neither leave a tree nor come into it by rename, link, symlink or `..`."""
    attempts = {
        "os.rename(rw + '/file', out + '/new')": "EACCES",
        "os.rename(out + '/file', rw + '/new')": "EACCES",
        "os.link(out + '/file', rw + '/new')": "EXDEV",
        "os.link(rw + '/file', out + '/new')": "EACCES",
        "os.rename(rw + '/file', ro + '/new')": "EACCES",
        "os.link(ro + '/file', rw + '/new')": "EXDEV",
        "os.symlink(out + '/file', rw + '/way')": "ok",
        "open(rw + '/way')": "EACCES",
        "open(rw + '/way', 'r+')": "EACCES",
        "os.symlink(out, rw + '/out')": "ok",
        "open(rw + '/out/file')": "EACCES",
        "os.unlink(rw + '/out/file')": "EACCES",
        "open(rw + '/../out/file')": "EACCES",
        "os.symlink(ro + '/file', rw + '/granted')": "ok",
        "open(rw + '/granted').read()": "ro",
        "open(rw + '/granted', 'r+')": "EACCES",
    }

    assert confined(attempts, trees) == attempts


@needs_landlock
def test_single_files(trees: dict[str, object]) -> None:
    """A file can be granted without what lies beside it."""
    attempts = {
        "open(ro + '/file').read()": "ro",
        "open(ro + '/file', 'r+')": "EACCES",
        "open(ro + '/other')": "EACCES",
        "os.listdir(ro)": "EACCES",
        "open(rw + '/file', 'r+')": "ok",
        "os.truncate(rw + '/file', 0)": "ok",
        "os.unlink(rw + '/file')": "EACCES",
        "open(rw + '/other')": "EACCES",
    }

    found = attempt(
        attempts,
        names=trees,
        read_only=[f"{trees['ro']}/file"],
        read_write=[f"{trees['rw']}/file"],
    )

    assert found == attempts


@needs_landlock
def test_inner_trees_widen(trees: dict[str, object]) -> None:
    """A tree to read can hold one to write."""
    attempts = {
        "open(ro + '/file', 'r+')": "EACCES",
        "open(ro + '/sub/new', 'x')": "ok",
        "open(rw + '/file')": "EACCES",
        "open(out + '/file')": "EACCES",
    }

    found = attempt(
        attempts,
        names=trees,
        read_only=[trees["ro"]],
        read_write=[f"{trees['ro']}/sub"],
    )

    assert found == attempts


@needs_landlock
def test_execution(trees: dict[str, object]) -> None:
    """What may be executed runs, confined as whoever executes it, and gains no privileges."""
    attempts = {
        "subprocess.run(['/bin/cat', out + '/file'], capture_output=True).stdout.decode()": "out",
        "subprocess.run(['/bin/sh', '-c', f'echo > {out}/file']).returncode and 'failed'": "failed",
        "subprocess.run(['/bin/grep', 'NoNewPrivs', '/proc/self/status'],"
        " capture_output=True, text=True).stdout.split()[1]": "1",
        "open(out + '/file', 'r+')": "EACCES",
    }
    quiet = "os.dup2(os.open('/dev/null', os.O_WRONLY), 2)"

    assert attempt(attempts, names=trees, setup=quiet, exec_paths=["/"]) == attempts


@pytest.fixture
def listeners() -> Iterator[list[int]]:
    """Listen at two TCP ports of the loopback, and return them."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for _ in range(2)
        ]


@needs_landlock
def test_connecting(listeners: list[int]) -> None:
    """TCP connects to granted ports, and to no others."""
    granted, other = listeners
    attempts = {
        "tcp('connect', granted)": "ok",
        "tcp('connect', other)": "EACCES",
        "tcp('bind', granted)": "EACCES",
        "tcp('bind', 0)": "EACCES",
    }
    names = {"granted": granted, "other": other}

    assert attempt(attempts, names=names, connect_ports=[granted]) == attempts
    assert attempt(attempts, names=names, confine=False)["tcp('connect', other)"] == "ok"


@needs_landlock
def test_binding() -> None:
    """TCP binds to granted ports, and to no others."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        granted, other = (end.getsockname()[1] for end in (one, two))
    attempts = {
        "tcp('bind', granted)": "ok",
        "tcp('bind', other)": "EACCES",
        "tcp('bind', 0)": "EACCES",
        "tcp('connect', granted)": "EACCES",
    }

    found = attempt(attempts, names={"granted": granted, "other": other}, listen_ports=[granted])

    assert found == attempts


@needs_landlock
def test_abstract_sockets() -> None:
    """An abstract socket from outside is out of reach; one from inside is not."""
    name = f"\0wali-test-{os.getpid()}"
    attempts = {
        "unix('connect', name)": "EPERM",
        "unix('connect', name + 'd', socket.SOCK_DGRAM)": "EPERM",
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'', name + 'd')": "EPERM",
        "[end := socket.socket(socket.AF_UNIX), end.bind(name + 'x'), end.listen(),"
        " unix('connect', name + 'x')]": "ok",
    }
    with (
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        server.bind(name)
        server.listen()
        receiver.bind(name + "d")

        found = attempt(attempts, names={"name": name})

    assert found == attempts


@needs_landlock
def test_signals() -> None:
    """Processes outside cannot be sent signals; one's own and one's children's can."""
    attempts = {
        "os.kill(os.getppid(), 0)": "EPERM",
        "os.kill(os.getppid(), signal.SIGCONT)": "EPERM",
        "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)": "EPERM",
        "os.kill(os.getpid(), 0)": "ok",
        "forked('os.kill(os.getpid(), 0)')": "ok",
        "forked('os.kill(os.getppid(), 0)')": "ok",
    }

    assert attempt(attempts) == attempts


@needs_landlock
def test_one_thread_alone() -> None:
    """The calling thread is confined and what it starts; other threads keep their rights."""
    attempts = {
        "threaded('open(\"/etc/passwd\")')": "ok",
        'threaded(\'landlock.restrict([], [], [], [], mode="required") or open("/etc/passwd")\')': (
            "EACCES"
        ),
        "open('/etc/passwd')": "ok",
        "no_new_privs()": "0",
        "landlock.restrict([], [], [], [], mode='required')": "ok",
        "open('/etc/passwd')  # and now": "EACCES",
        "no_new_privs()  # and now": "1",
        "threaded('open(\"/etc/passwd\")')  # and now": "EACCES",
        "forked('open(\"/etc/passwd\")')": "EACCES",
        "forked('no_new_privs()')": "1",
    }

    assert attempt(attempts, confine=False) == attempts


@needs_landlock
@pytest.mark.skipif(not ROOT, reason="all other tests run without privileges")
def test_without_privileges() -> None:
    """It takes no privileges to be confined."""
    attempts = {"str(os.getuid())": "65534", "open('/etc/passwd')": "EACCES"}

    assert attempt(attempts, setup="os.setgroups([]); os.setuid(65534)") == attempts


@needs_landlock
def test_what_passes(trees: dict[str, object]) -> None:
    """What `Lockdown.explain` says of Landlock is so; if this fails, a kernel closes more."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{trees['out']}/socket")
        server.listen()
        attempts = {
            "os.stat(out + '/file')": "ok",
            "os.access(out + '/file', os.R_OK)": "ok",
            "os.open(out + '/file', os.O_PATH)": "ok",
            "os.chdir(out)": "ok",
            "os.chmod(out + '/file', 0o600)": "ok",
            "os.utime(out + '/file')": "ok",
            "os.fchmod(os.open(ro + '/file', os.O_RDONLY), 0o600)": "ok",
            "unix('connect', out + '/socket')": "ok",
            "os.getpgid(os.getppid())": "ok",
            "socket.socket().listen()": "ok",
            "socket.socket(type=socket.SOCK_DGRAM).bind(('127.0.0.1', 0))": "ok",
        }

        assert confined(attempts, trees) == attempts


def test_handled_rights() -> None:
    """Each version handles what landlock(7) says it brought."""
    files = (1 << 13) - 1
    assert [landlock.handled(abi) for abi in range(9)] == [
        (0, 0, 0),
        (files, 0, 0),
        (files | 1 << 13, 0, 0),
        (files | 3 << 13, 0, 0),
        (files | 3 << 13, 3, 0),
        (files | 7 << 13, 3, 0),
        (files | 7 << 13, 3, 3),
        (files | 7 << 13, 3, 3),
        (files | 7 << 13, 3, 3),
    ]


def test_granted_rights() -> None:
    """To read is not to execute, and to write is not to make devices."""
    everything = landlock.handled(landlock.LATEST)[0]
    kept_back = landlock.EXECUTE | landlock.MAKE_CHAR | landlock.MAKE_BLOCK

    assert landlock.TO_READ == landlock.READ_FILE | landlock.READ_DIR
    assert everything ^ kept_back == landlock.TO_WRITE
    assert landlock.TO_EXECUTE == landlock.TO_READ | landlock.EXECUTE


@pytest.mark.parametrize(
    ("abi", "has", "lacks"),
    [
        (
            0,
            "has no Landlock, or it is switched off",
            "files, truncation, TCP ports, ioctls of devices, abstract unix sockets, signals",
        ),
        (
            1,
            "has version 1 of Landlock",
            "truncation (version 3), TCP ports (version 4), " + NEWER,
        ),
        (
            4,
            "has version 4 of Landlock",
            NEWER,
        ),
    ],
)
def test_older_kernels_are_refused(
    abi: int, has: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all is required, a kernel that cannot do it all is refused, with what it lacks."""
    monkeypatch.setattr(landlock, "abi_version", lambda: abi)

    with pytest.raises(LockdownError) as caught:
        landlock.prepare([], [], [], [], mode="required")

    assert str(caught.value) == (
        f"this kernel {has}, and cannot confine {lacks}: the policy has to say "
        'lockdown = "best-effort" to run without'
    )


@needs_landlock
def test_older_kernels_suffice_where_nothing_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not needed may be missing, but for files."""
    monkeypatch.setattr(landlock, "abi_version", lambda: 3)
    ruleset = landlock.prepare([], [], [], [], mode="required", needed=["truncation"])
    ruleset.close()

    assert ruleset.missing == (
        *("TCP ports", "ioctls of devices", "abstract unix sockets", "signals"),
    )
    monkeypatch.setattr(landlock, "abi_version", lambda: 0)
    with pytest.raises(LockdownError, match="cannot confine files: "):
        landlock.prepare([], [], [], [], mode="required", needed=[])


@needs_landlock
@pytest.mark.parametrize("abi", [*range(8), 99])
def test_best_effort(abi: int, trees: dict[str, object], listeners: list[int]) -> None:
    """Each older kernel confines what its version can, and says what it cannot."""
    (granted, other) = listeners
    since = landlock.FEATURES
    attempts = {
        "open(rw + '/file', 'r+')": "ok",
        "open(out + '/file')": "EACCES" if abi >= since["files"] else "ok",
        "os.rename(rw + '/other', rw + '/sub/new')": "ok" if abi != 1 else "EXDEV",
        "os.truncate(out + '/file', 0)": "EACCES" if abi >= since["truncation"] else "ok",
        "tcp('connect', granted)": "ok",
        "tcp('connect', other)": "EACCES" if abi >= since["TCP ports"] else "ok",
        "unix('connect', name)": "EPERM" if abi >= since["abstract unix sockets"] else "ok",
        "os.kill(os.getppid(), 0)": "EPERM" if abi >= since["signals"] else "ok",
        "no_new_privs()": "1",
        "' '.join(landlock.restrict([], [], [], [], mode='best-effort'))": " ".join(
            name for name, version in since.items() if abi < version
        ),
    }
    name = f"\0wali-test-{os.getpid()}-{abi}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()

        found = attempt(
            attempts,
            names={**trees, "granted": granted, "other": other, "name": name},
            abi=abi,
            mode="best-effort",
            read_write=[trees["rw"]],
            connect_ports=[granted],
        )

    assert found == attempts


@needs_landlock
def test_what_cannot_be_granted(tmp_path: Path) -> None:
    """Every path that is not there is named, at once, and no descriptor stays open."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = settled_descriptors()

    with pytest.raises(LockdownError) as caught:
        landlock.prepare(
            [f"{tmp_path}/none", str(tmp_path)],
            [f"{tmp_path}/file/x", "/a\0b"],
            [],
            [],
            exec_paths=[f"{tmp_path}/loop"],
            mode="best-effort",
        )

    assert caught.value.reasons == (
        f"{tmp_path}/none cannot be granted: No such file or directory",
        f"{tmp_path}/file/x cannot be granted: Not a directory",
        "/a\0b cannot be granted: embedded null byte",
        f"{tmp_path}/loop cannot be granted: Too many levels of symbolic links",
    )
    assert open_descriptors() == before


@needs_landlock
def test_paths_are_checked_without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is not there is refused on every kernel alike."""
    monkeypatch.setattr(landlock, "abi_version", lambda: 0)

    with pytest.raises(LockdownError, match=r"/none cannot be granted: No such file or directory"):
        landlock.prepare(["/none"], [], [80], [80], mode="best-effort")


@needs_landlock
def test_preparing_confines_nobody(tmp_path: Path) -> None:
    """Rules that are prepared hold nobody, and can be given up."""
    before = settled_descriptors()
    ruleset = landlock.prepare([str(tmp_path)], [], [443], [80], mode="required")

    assert ruleset.abi == min(landlock.abi_version(), landlock.LATEST)
    assert ruleset.missing == ()
    assert len(open_descriptors()) == len(before) + 1
    assert os.listdir("/")
    ruleset.close()
    ruleset.close()
    assert open_descriptors() == before


@needs_landlock
def test_rules_are_for_once() -> None:
    """Rules that were committed, or closed, are no rules any more."""
    code = """
rules = landlock.prepare([], [], [], [], mode="required")
rules.commit()
try:
    rules.commit()
except landlock.LockdownError as error:
    print(error)
"""
    expected = "Landlock refused: these rules were committed or closed before\n"

    assert run(SCRIPT + code) == expected


@needs_landlock
def test_too_many_layers() -> None:
    """The kernel takes so many rulesets for a thread and no more, which is said."""
    code = """
try:
    for _ in range(100):
        landlock.restrict([], [], [], [], mode="required")
except landlock.LockdownError as error:
    print(error)
"""
    expected = "Landlock refused: too many rulesets hold this thread already\n"

    assert run(SCRIPT + code) == expected
