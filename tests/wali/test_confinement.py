"""What holds a program under a policy: the gate, the view, the kernel, and the core's own look.

Every refusal is an attempt of a real program's; the same attempts succeed with `--allow-all`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime

from capabilities import Policy
from capabilities.lockdown import landlock, view
from tests.wali import answering, building
from wali_core import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Wali = Callable[..., subprocess.CompletedProcess[str]]
    Attempts = Callable[..., dict[str, str]]

ROOT = Path(__file__).resolve().parents[2]

needs_landlock = pytest.mark.skipif(
    landlock.abi_version() < landlock.FEATURES["signals"],
    reason="this kernel's Landlock is missing or too old: CONFINEMENT IS NOT TESTED HERE",
)


needs_views = pytest.mark.skipif(
    view.probe() != "", reason="no namespace here: WHAT A VIEW SHOWS IS NOT TESTED"
)


def named(line: str) -> str:
    """Return what a line of output says: an errno's name, or the number."""
    value = int(line)
    return errno.errorcode[-value] if value < 0 else str(value)


@pytest.fixture
def attempts(wali: Wali) -> Attempts:
    """Return a function that has a program attempt things: `{"what on": result}`."""

    def attempt(*words: str | Path, options: tuple[str | Path, ...] = ()) -> dict[str, str]:
        pairs = list(zip(words[::2], words[1::2], strict=True))
        done = wali(*options, building.program("attempt"), *words)
        assert (done.returncode, done.stderr) == (0, "")
        return {
            f"{what} {on}".strip(): named(line)
            for (what, on), line in zip(pairs, done.stdout.splitlines(), strict=True)
        }

    return attempt


@pytest.fixture
def on_disk(box: Path, tmp_path: Path) -> Path:
    """Return the empty folder, with a file in it and a secret beside it."""
    (box / "file").write_text("in the box")
    (tmp_path / "secret").write_text("beside it")
    (box / "out").symlink_to(tmp_path / "secret")
    return box


def policy(**tables: object) -> Policy:
    """Return a policy of some tables."""
    return Policy.from_dict({"version": 1, **tables}, "/")


# --- the gate -------------------------------------------------------------------------------------

NEEDS_NOTHING = ("clock", "random", "poll", "pid", "protect")


def test_nothing_is_granted_without_a_policy(attempts: Attempts, on_disk: Path) -> None:
    """A program has memory, time and randomness; every other call answers EPERM."""
    words = [word for what in NEEDS_NOTHING for word in (what, "")]
    got = attempts(
        *words,
        *("map memory", "4096"),
        *("read", on_disk / "file", "create", "new", "stat", "/", "readlink", "out"),
        *("mkdir", "d", "unlink", "file", "chdir", "/", "getcwd", "", "truncate", "file"),
        *("connect", "80", "listen", "80", "datagrams", "", "unix", "", "fork", "", "kill", "1"),
        *("open as a path", "/etc/passwd", "open memory", "/proc/self/mem"),
    )

    free = dict.fromkeys(NEEDS_NOTHING, "0")
    free |= {"pid": "1", "random": "8", "map memory 4096": "0"}
    assert got == {what: free.get(what, "EPERM") for what in got}
    assert sorted(os.listdir(on_disk)) == ["file", "out"]


def test_refusals_can_have_another_errno(attempts: Attempts, tmp_path: Path) -> None:
    """`on_deny` of a policy says what a call that is held back answers."""
    (tmp_path / "p.toml").write_text('version = 1\n[syscalls]\non_deny = "ENOSYS"\n')

    got = attempts("read", "/etc/passwd", "fork", "", options=("--policy", tmp_path / "p.toml"))

    assert got == {"read /etc/passwd": "ENOSYS", "fork": "ENOSYS"}


def test_calls_can_be_allowed_and_denied(attempts: Attempts, tmp_path: Path) -> None:
    """`[syscalls]` names calls and groups; what it denies is denied in every variant."""
    (tmp_path / "p.toml").write_text(
        f"""version = 1
        [filesystem]
        read_only = ["{tmp_path}"]
        [syscalls]
        allow = ["@default", "@basic-io", "@file-system", "@process"]
        deny = ["mkdir", "stat"]
        """
    )
    got = attempts(
        *("fork", "", "mkdir", tmp_path / "d", "stat", "/", "read", tmp_path / "p.toml"),
        *("connect", "80"),
        options=("--policy", tmp_path / "p.toml"),
    )

    assert list(got.values()) == ["0", "EPERM", "EPERM", "1", "EPERM"]


def test_programs_stay_executable_in_inner_grants(attempts: Attempts, tmp_path: Path) -> None:
    """A folder to change in one to execute from widens it, though it is a mount of its own."""
    source, inner = tmp_path / "nothing.c", tmp_path / "bin" / "inner"
    source.write_text('#include "wali.h"\nint main(int n, char **w) { return (void)w, n < 0; }\n')
    inner.mkdir(parents=True)
    program = shutil.copy(building.native(source), inner)
    (tmp_path / "p.toml").write_text(
        f'version = 1\n[filesystem]\nread_write = ["{inner}"]\nexec = ["{inner.parent}"]\n'
    )

    got = attempts("execute", program, options=("--policy", tmp_path / "p.toml"))

    assert list(got.values()) == ["0"]


NEEDS_MEMORY = """
#include "wali.h"
int main(int argc, char **argv) {
    (void)argv;
    say("begun\\n");
    long at = SYS_mmap(NULL, PAGE, PROT_BOTH, MAP_NEW, -1, 0);
    if (at < 0 && argc > 1)
        __builtin_trap();
    return at < 0;
}
"""
REFUSED = "wali: the program was refused what nearly every one calls: "


@pytest.mark.parametrize(
    ("syscalls", "status", "refused"),
    [
        ('allow = ["getpid"]', 0, "write (syscalls.allow of {})"),
        ('allow = ["@basic-io"]', 0, ""),
        ('deny = ["@default"]', 0, ""),
        ('deny = ["mmap"]', 1, "mmap (syscalls.deny of {})"),
        ('deny = ["mmap", "writev"]', 1, "mmap (syscalls.deny of {}), write (syscalls.deny of {})"),
        ('deny = ["mmap"]\non_deny = "ENOSYS"', 1, "mmap (syscalls.deny of {})"),
    ],
)
def test_what_every_program_needs_is_named_if_it_was_refused(
    wali: Wali, tmp_path: Path, syscalls: str, status: int, refused: str
) -> None:
    """A program without memory, or without words, ends mute: what it was refused is said for it."""
    policy, source = tmp_path / "p.toml", tmp_path / "needs_memory.c"
    policy.write_text(f"version = 1\n[syscalls]\n{syscalls}\n")
    source.write_text(NEEDS_MEMORY)
    program = building.program(source)

    done = wali("--policy", policy, program)
    trapped = wali("--policy", policy, program, "trap")

    message = f"{REFUSED}{refused.format(policy, policy)}\n" if refused else ""
    assert (done.returncode, done.stderr) == (status, message)
    assert trapped.stderr.startswith(message)
    assert trapped.returncode == (128 + 6 if status else 0)


def test_unknown_calls_of_a_policy_are_refused(wali: Wali, tmp_path: Path) -> None:
    """A name that the core does not know is a mistake, not a wish."""
    (tmp_path / "p.toml").write_text('version = 1\n[syscalls]\nallow = ["opne"]\n')

    done = wali("--policy", tmp_path / "p.toml", building.program("odd"))

    assert (done.returncode, done.stdout) == (126, "")
    assert "opne" in done.stderr


# --- files, by the view and by Landlock -----------------------------------------------------------


@pytest.fixture(params=["view", "Landlock"])
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, tuple[str, ...]]:
    """Return who holds a program to its files, and options for that."""
    file = tmp_path / "holder.toml"
    wanted = "required" if request.param == "view" else "off"
    file.write_text(f'version = 1\nview = "{wanted}"\n')
    return request.param, ("--policy", str(file))


@needs_landlock
@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_folders_are_granted(
    mode: str,
    holder: tuple[str, tuple[str, ...]],
    attempts: Attempts,
    on_disk: Path,
    tmp_path: Path,
) -> None:
    """A folder can be read, and written if it says so; nothing else can, by whatever path."""
    secret = tmp_path / "secret"
    by, options = holder
    got = attempts(
        *("read", on_disk / "file", "read", "file", "map a file", "file", "chdir", on_disk),
        *("open to write", "file", "create", "new", "mkdir", "d", "rename", "file moved"),
        *("truncate", "new", "unlink", "moved"),
        options=(*options, "--dir", f"{on_disk}:{mode}"),
    )
    refused = attempts(
        *("read", "/etc/passwd", "read", secret, "read", "../secret", "read", "out"),
        *("open to write", secret, "create", "../new", "truncate", secret, "unlink", secret),
        *("rename", f"out {tmp_path}/new", "rename", f"{secret} stolen", "mkdir", "../d"),
        *("open beneath", "/etc passwd", "open beneath", f"{on_disk} ../secret", "read", "/"),
        *("map a file", secret, "set times", secret, "chmod", secret),
        options=(*options, "--dir", f"{on_disk}:{mode}"),
    )

    assert list(got.values())[:4] == ["1", "1", "0", "0"]
    kept = {"view": {"EROFS", "ENOENT"}, "Landlock": {"EACCES", "ENOENT"}}[by]
    assert set(list(got.values())[4:]) <= ({"0"} if mode == "rw" else kept)
    # Metadata is held back by the gate where there is no view.
    expected = {"view": ("ENOENT", "ENOENT"), "Landlock": ("EPERM", "EPERM")}[by]
    assert tuple(refused.values())[-2:] == expected
    without = {"view": {"ENOENT", "EROFS", "EXDEV"}, "Landlock": {"EACCES", "EXDEV"}}[by]
    assert set(list(refused.values())[:-2]) <= {*without, "EISDIR"}
    assert secret.read_text() == "beside it"
    names = {"ro": ["file", "out"], "rw": ["d", "new", "out"]}[mode]
    assert sorted(os.listdir(on_disk)) == names
    assert sorted(os.listdir(tmp_path)) == ["box", "holder.toml", "secret"]


@needs_landlock
def test_the_kernel_alone_refuses(
    holder: tuple[str, tuple[str, ...]], cache_folder: Path, on_disk: Path
) -> None:
    """With the gate taken out, all is refused that the kernel can refuse."""
    by, options = holder
    got = without_gate(
        cache_folder,
        (*options, "--dir", str(on_disk)),
        *("read", "/etc/passwd", "read", "out", "create", "new", "connect", "80", "listen", "80"),
        *("read", "file", "fork", "", "kill parent", ""),
        cwd=on_disk,
    )

    files = {"view": ["ENOENT", "ENOENT", "EROFS"], "Landlock": ["EACCES"] * 3}[by]
    assert got == [*files, "EPERM", "EPERM", "1", "EPERM", "EPERM"]


UNGATED = """
import sys
from wali_core import _confine, cli
confine = _confine.confine
def without_gate(*arguments, **options):
    made = confine(*arguments, **options)
    made.gate.clear()
    made.network = _confine.NETWORK_ANY
    return made
_confine.confine = without_gate
sys.exit(cli.main(sys.argv[1:]))
"""


def without_gate(
    cache_folder: Path, options: tuple[str, ...], *words: str | Path, cwd: Path
) -> list[str]:
    """Have a program attempt things where nothing but the kernel confines it."""
    done = subprocess.run(
        [sys.executable, "-c", UNGATED, "run", *options, building.program("attempt"), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [named(line) for line in done.stdout.splitlines()]


@needs_landlock
def test_policies_confine_from_python(
    cache_folder: Path, on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy object, or a file's path, holds in the other process, with grants besides."""
    monkeypatch.chdir(on_disk)
    file = on_disk.parent / "p.toml"
    file.write_text('version = 1\n[filesystem]\nread_only = ["./box"]\n')
    words = ["read", "file", "read", "../secret", "create", "x", "read", "/etc/passwd"]

    for given in (file, Policy.load(file)):
        with Runtime(policy=given, cache=cache_folder) as runtime:
            program = building.program("attempt")
            plain = runtime.run_sync(program, args=words, capture_output=True)
            more = runtime.run_sync(program, args=words, dirs={"/etc": "/etc"}, capture_output=True)

        assert plain.stdout == b"1\n-2\n-30\n-2\n"
        assert more.stdout == b"1\n-2\n-30\n1\n"


def test_renaming_needs_a_view(wali: Wali, on_disk: Path, tmp_path: Path) -> None:
    """Without one a program sees the host's paths, so `HOST::GUEST` cannot be had: it is said."""
    file = tmp_path / "p.toml"
    file.write_text('version = 1\nview = "off"\n')

    done = wali("--policy", file, "--dir", f"{on_disk}::/data", building.program("odd"))

    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == (
        f"wali: {on_disk} cannot be /data for a WALI program, which without a view of its own sees "
        'the host\'s own paths: the policy says view = "off"\n'
    )


def test_folder_that_is_not_there_is_refused(wali: Wali, tmp_path: Path) -> None:
    """It is named, and nothing runs."""
    done = wali("--dir", tmp_path / "none", building.program("odd"))

    assert (done.returncode, done.stdout) == (126, "")
    assert "none" in done.stderr


# --- ports, by the kernel -------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Return a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def free_port() -> int:
    """Return a port that nobody listens at, a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        port: int = made.getsockname()[1]
        return port


@needs_landlock
def test_ports_are_granted_by_the_kernel(
    attempts: Attempts, server: socket.socket, free_port: int, tmp_path: Path
) -> None:
    """One port to connect to and one to listen at are those, and none else; TCP alone."""
    port = server.getsockname()[1]
    file = tmp_path / "p.toml"
    file.write_text(
        f'version = 1\n[network]\nconnect = ["tcp://*:{port}"]\nlisten = ["tcp://*:{free_port}"]\n'
    )

    got = attempts(
        *("connect", str(port), "listen", str(free_port)),
        *("connect", str(free_port), "listen", str(port), "listen", "0", "connect", "80"),
        *("datagrams", "", "unix", "", "multipath", "", "raw packets", "", "netlink", ""),
        options=("--policy", file),
    )

    assert list(got.values()) == [
        *("0", "0"),
        *("EACCES", "EACCES", "EACCES", "EACCES"),
        *("EACCES", "EACCES", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EAFNOSUPPORT"),
    ]


@needs_landlock
def test_connecting_is_not_listening(
    attempts: Attempts, server: socket.socket, tmp_path: Path
) -> None:
    """Who may connect may not listen, not even at a port that the kernel chooses."""
    port = server.getsockname()[1]
    file = tmp_path / "p.toml"
    file.write_text(f'version = 1\n[network]\nconnect = ["tcp://*:{port}"]\n')

    got = attempts(
        "connect", str(port), "listen unbound", "", "listen", "0", options=("--policy", file)
    )

    assert list(got.values()) == ["0", "EACCES", "EACCES"]


# --- the memory of processes ----------------------------------------------------------------------


def test_memory_of_a_process_cannot_be_opened(attempts: Attempts, on_disk: Path) -> None:
    """Whatever it is called: with the whole file system granted, it is looked at once it is open.

    What /proc has besides can be read, as is granted.
    """
    (on_disk / "link").symlink_to("/proc/self/mem")
    (on_disk / "folder").symlink_to("/proc/self")
    parent = os.getpid()
    paths = (
        *(
            "/proc/self/mem",
            "/proc/thread-self/mem",
            f"/proc/{parent}/mem",
            "/proc/self/../self/mem",
        ),
        *("link", "folder/mem", "/proc/self/cwd/link", "/proc/self/root/proc/self/mem"),
        f"/proc/{parent}/task/{parent}/mem",
        "/proc//self///mem",
    )
    words = [word for path in paths for what in ("open memory", "read") for word in (what, path)]
    words += ["open beneath", "/proc/self mem", "open beneath", "/proc self/mem"]
    words += ["open as a path", "/proc/self/mem"]

    for options in (("--dir", "/:rw"), ("--dir", "/"), ("--allow-all",)):
        got = attempts(*words, options=options)
        # The last one can be positioned like memory, and is read from its beginning all the same.
        harmless = ("/proc/self/status", "/proc/self/maps", "/proc/self/environ")
        control = attempts(*(w for path in harmless for w in ("read", path)), options=options)

        # To open it for writing is another matter in what is granted to read only.
        assert set(got.values()) <= {"EACCES", "EROFS"}
        assert "1" not in got.values()
        assert len(got) == len(words) // 2
        assert list(control.values()) == ["1", "1", "1"]


@pytest.mark.parametrize("how", ["chdir", "chdir by descriptor"])
def test_memory_cannot_be_opened_from_a_directory_in_procfs(attempts: Attempts, how: str) -> None:
    """Nor when the path begins there, on the mount: also of what is executed there."""
    program = str(building.program("attempt"))
    names = ("mem", "./mem", "cwd/mem", "root/proc/self/mem")
    words = [word for name in names for word in ("open memory", name)]
    others = ("open as a path", ".") * 20  # where the core has just left a mount, it looks closer

    got = attempts(how, "/proc/self", *others, *words, "become", program, options=("--allow-all",))

    assert list(got.values()) == ["0", "0", *["EACCES"] * 5]


def test_memory_cannot_be_opened_where_wali_is_started_in_procfs(wali: Wali) -> None:
    """Started in /proc/self, the program begins there as well."""
    for cwd, name in (("/proc/self", "mem"), ("/proc", "self/mem")):
        words = ("open memory", name, "open memory", f"./{name}")
        done = wali("--allow-all", building.program("attempt"), *words, cwd=cwd)

        assert done.stdout == "-13\n-13\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="the root can be changed by root alone")
def test_memory_cannot_be_opened_with_procfs_as_root(attempts: Attempts) -> None:
    """Nor when the root is procfs itself."""
    words = ("chroot", "/proc", "open memory", "/self/mem", "open memory", "/thread-self/mem")

    assert list(attempts(*words, options=("--allow-all",)).values()) == ["0", "EACCES", "EACCES"]


def test_code_cannot_be_made(attempts: Attempts) -> None:
    """Memory is never executable, whatever is granted."""
    for options in ((), ("--allow-all",)):
        got = attempts("map code", "", "make code", "", options=options)

        assert list(got.values()) == ["EPERM", "EACCES"]


# --- everything, and nothing ----------------------------------------------------------------------


def test_other_processes_are_nobodys_business(attempts: Attempts) -> None:
    """A confined program can ask about itself; the kernel would let it ask about anybody."""
    words = ("own group", "", "group of parent", "", "processors of parent", "")

    assert [*attempts(*words).values()] == ["0", "EPERM", "EPERM"]
    assert [*attempts(*words, options=("--allow-all",)).values()] == ["0", "0", "0"]


@pytest.mark.usefixtures("on_disk")
def test_everything_can_be_granted(attempts: Attempts, server: socket.socket) -> None:
    """`--allow-all` lifts the gate and the kernel's rules."""
    got = attempts(
        *("read", "/etc/passwd", "read", "out", "create", "new", "unlink", "new", "fork", ""),
        *("connect", str(server.getsockname()[1]), "listen", "0", "datagrams", "", "unix", ""),
        *("getcwd", "", "chmod", "file", "set times", "file", "stat", "/", "kill parent", ""),
        options=("--allow-all",),
    )

    assert list(got.values()) == ["1", "1"] + ["0"] * 12


OLD_KERNEL = """
import sys
from capabilities.lockdown import landlock
abi = int(sys.argv.pop(1))
landlock.abi_version = lambda: abi
from wali_core import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def on_kernel(abi: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command as if the kernel had that version of Landlock."""
    return subprocess.run(
        [sys.executable, "-c", OLD_KERNEL, str(abi), "run", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_kernel_without_landlock_is_refused() -> None:
    """Nothing runs, and it is said what is missing and what can be done."""
    done = on_kernel(0, building.program("odd"))

    assert (done.returncode, done.stdout) == (126, "")
    assert "this kernel has no Landlock" in done.stderr
    assert 'lockdown = "best-effort"' in done.stderr


def test_kernel_with_an_old_landlock_is_refused(tmp_path: Path) -> None:
    """Ports cannot be granted where the kernel cannot confine them; files alone can."""
    ports = tmp_path / "ports.toml"
    ports.write_text('version = 1\n[network]\nconnect = ["tcp://*:80"]\n')

    refused = on_kernel(3, "--policy", ports, building.program("odd"))

    assert (refused.returncode, refused.stdout) == (126, "")
    assert "TCP ports" in refused.stderr


def test_best_effort_goes_on(tmp_path: Path) -> None:
    """A policy can say that it runs without; the gate holds all the same."""
    file = tmp_path / "p.toml"
    file.write_text('version = 1\nlockdown = "best-effort"\n')

    done = on_kernel(0, "--policy", file, building.program("attempt"), "read", "/etc/passwd")

    assert (done.returncode, done.stdout, done.stderr) == (0, "-1\n", "")


# --- after lockdown -------------------------------------------------------------------------------

WATCHED = """
import os, sys
armed = False
def hook(name, arguments):
    if armed and name in {"open", "import", "os.listdir", "os.scandir", "compile", "exec"}:
        os.write(2, f"event: {name} {arguments[0]}\\n".encode())
sys.addaudithook(hook)
from capabilities.lockdown import Lockdown
commit = Lockdown.commit
def committed(self):
    global armed
    commit(self)
    armed = True
    os.write(2, b"armed\\n")
Lockdown.commit = committed
from wali_core import cli
status = cli.main(sys.argv[1:])
armed = False
sys.exit(status)
"""


@needs_landlock
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["odd"], 0),
        (["memory"], 0),
        (["hello"], 0),
        (["faults", "read unmapped"], 134),
        (["odd LONGJMP"], 134),
        (["attempt", "read", "/etc/passwd"], 0),
        (["greedy", "map", "100000"], 137),
    ],
)
def test_python_opens_nothing_after_lockdown(words: list[str], status: int, box: Path) -> None:
    """From the moment that the thread is confined, Python neither opens nor imports anything."""
    program = building.program(*words[0].split())
    options = ("--dir", f"{box}:rw", "--memory", "64M")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "run", *options, program, *words[1:]],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=box,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == status
    assert "armed" in done.stderr.splitlines()
    assert "event: " not in done.stderr


WASI_GUESTS = {
    "ends": ('(func (export "_start"))', 0),
    "traps": ('(func (export "_start") unreachable)', 134),
    "exits": ('(func (export "_start") (call $exit (i32.const 3)))', 3),
    "spins": ('(func (export "_start") (loop (br 0)))', 124),
    "recurses": ('(func $f (export "_start") (call $f))', 134),
    "grows": ('(func (export "_start") (drop (memory.grow (i32.const 100))))', 0),
    "grows too much": ('(func (export "_start") (drop (memory.grow (i32.const 1000))))', 137),
    "opens": (
        """(func (export "_start") (call $exit (call $open
            (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 1)
            (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 8))))""",
        0,
    ),
}


@needs_landlock
@pytest.mark.parametrize("what", WASI_GUESTS)
def test_python_opens_nothing_after_lockdown_of_a_wasi_guest(what: str, box: Path) -> None:
    """The process of `wali run` is confined for a WASI guest, too, and Python needs no file."""
    body, status = WASI_GUESTS[what]
    imports = """
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "new")
    """
    module = box.parent / "guest.wasm"
    module.write_bytes(wasmtime.wat2wasm(f"(module {imports} {body})"))
    seconds = "3s" if what == "spins" else "60s"
    options = ("--timeout", seconds, "--memory", "32M", "--dir", f"{box}:rw")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "run", *options, module],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == status
    assert "armed" in done.stderr.splitlines()
    assert "event: " not in done.stderr
    assert os.listdir(box) == (["new"] if what == "opens" else [])


# --- unix sockets ---------------------------------------------------------------------------------


@needs_landlock
@needs_views
def test_unix_sockets_alone_are_granted(attempts: Attempts, tmp_path: Path) -> None:
    """No others come with them, nor what only the free may: by the core, not by seccomp (EPERM)."""
    with socket.socket(socket.AF_UNIX) as granted:
        granted.bind(str(tmp_path / "s"))
        (tmp_path / "p.toml").write_text(
            """version = 1
            view = "required"
            [network]
            unix = ["./s"]
            [syscalls]
            allow = ["@default", "@basic-io", "@network-io", "@process"]
            """
        )
        got = attempts(
            *("unix", "", "connect", "80", "listen", "80", "datagrams", "", "raw packets", ""),
            *("multipath", "", "netlink", "", "group of parent", "", "processors of parent", ""),
            options=("--policy", tmp_path / "p.toml"),
        )

    expected = {"unix": "0", "raw packets": "ESOCKTNOSUPPORT", "multipath": "EPROTONOSUPPORT"}
    expected |= {"netlink": "EAFNOSUPPORT", "connect 80": "EACCES", "listen 80": "EACCES"}
    expected |= {"datagrams": "EACCES", "group of parent": "EPERM"}
    assert got == {**expected, "processors of parent": "EPERM"}


# --- ahead of time --------------------------------------------------------------------------------

FORESEEN = """
import json, sys
from capabilities import Policy
from wali_core import _confine, _filter
from wali_core._bridge import core
from wali_core._grants import Grants
from wali_core.programs._calls import environment_text
policy, folders, variables = json.loads(sys.argv[1])
policy = Policy.from_dict(policy, "/")
grants = Grants()
grants.add_policy(policy)
grants.add_dirs({name: name for name in folders})
grants.add_env(variables)
_confine.foresee(policy, grants, core)
made = len(_filter._made)
environment = environment_text([f"{k}={v}".encode() for k, v in grants.env.items()])
_confine.confine(policy, grants, core, environment=environment)
print(made, len(_filter._made))
"""


@needs_landlock
@pytest.mark.parametrize("variables", [{}, {"A": "1"}])
@pytest.mark.parametrize("folders", [[], ["/usr"]])
@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"view": "off"},
        {"filesystem": {"read_only": ["/usr"]}},
        {"filesystem": {"exec": ["/usr"]}},
        {"network": {"connect": ["tcp://*:80"], "listen": ["tcp://*:81"]}},
        {"syscalls": {"allow": ["@default", "@chown"]}},
        {"environment": {"set": {"B": "2"}}},
    ],
)
def test_filters_are_foreseen(
    tables: dict[str, object], folders: list[str], variables: dict[str, str]
) -> None:
    """What a launcher makes before it forks is what the forked process asks for."""
    words = json.dumps([{"version": 1, **tables}, folders, variables])
    done = subprocess.run(
        [sys.executable, "-c", FORESEEN, words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 1\n"


@pytest.fixture
def narrowed(tmp_path: Path) -> Path:
    """Return the file of a policy that narrows one over a tree which a guest may write."""
    (tmp_path / "rw" / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("x")
    (tmp_path / "base.toml").write_text("version = 1\n[filesystem]\nread_write = ['rw']\n")
    file = tmp_path / "narrowed.toml"
    file.write_text(
        "version = 1\nextends = ['base.toml']\n[filesystem]\nread_write = ['rw/sub::/sub']\n"
    )
    return file


def test_links_of_a_guest_do_not_widen(wali: Wali, narrowed: Path) -> None:
    """A policy that narrows another refuses to be started through a link out of that one."""
    program = building.program("attempt")
    words = ("create", "/sub/made", "read", "/secret/file")
    assert wali("--policy", narrowed, program, *words).returncode == 0
    assert (narrowed.parent / "rw" / "sub" / "made").exists()

    (narrowed.parent / "rw" / "sub").rename(narrowed.parent / "rw" / "before")
    (narrowed.parent / "rw" / "sub").symlink_to("../secret")
    done = wali("--policy", narrowed, program, "read", "/sub/file")

    assert (done.returncode, done.stdout) == (126, "")
    assert f"leads to '{narrowed.parent}/secret', which is not granted" in done.stderr
    assert "filesystem.read_write[0]: " in done.stderr


def test_what_others_answer_is_no_descriptor(wali: Wali, tmp_path: Path) -> None:
    """TIOCGPTPEER of a file whose server has a number for it: one that is open on the host."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    try:
        with answering.mounted(folder, 2) as file:
            done = wali("--allow-all", building.program("peer"), file)
    except OSError as error:
        pytest.skip(f"no file system in user space can be mounted here: {error}")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "opened: 3\nanswered: 2\n"
