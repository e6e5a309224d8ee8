"""A program under a policy has a view of its own: other names, as root and as anybody else."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

from capabilities import Filesystem, Grant, Policy
from capabilities.lockdown import privileges, view
from tests import ordinary
from tests.wali import building
from wali_core import PolicyError, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Explore = Callable[..., list[str]]

pytestmark = pytest.mark.skipif(view.probe() != "", reason="no namespace here: VIEWS NOT TESTED")

NAMES = {-getattr(errno, name): name for name in ("ENOENT", "EROFS", "EACCES", "EPERM", "EXDEV")}


def said(output: str) -> list[str]:
    """Return the lines of a program, with errors by their names and lists in order."""
    lines = []
    for line in output.splitlines():
        number = int(line) if line.startswith("-") else 0
        listed = " ".join(sorted(line.split())) if line.endswith(" ") else line
        lines.append(NAMES.get(number, listed))
    return lines


@pytest.fixture
def home(open_folder: Path) -> Path:
    """Return a folder that anybody can reach, with the program in it."""
    made = open_folder / "home"
    made.mkdir()
    shutil.copy(building.program("explore"), made)
    return made


@pytest.fixture(params=["root", "user"])
def explore(request: pytest.FixtureRequest, home: Path, cache_folder: Path) -> Explore:
    """Return a function that has a program look around: by the command, as root and as a user."""
    if request.param == "root" and os.geteuid():
        pytest.skip("not root")

    def run(
        *words: str | Path, options: tuple[str | Path, ...] = (), cwd: Path = home
    ) -> list[str]:
        command = [sys.executable, "-m", "wali_core", "run", *options, "explore.wasm", *words]
        command[-len(words) - 1] = str(home / "explore.wasm")
        if request.param == "user":
            done = ordinary.run(command, ordinary.give(home), cwd=cwd)
        else:
            done = subprocess.run(
                list(map(str, command)),
                env=os.environ
                | {"PYTHONPATH": str(ordinary.ROOT), "XDG_CACHE_HOME": str(cache_folder)},
                cwd=cwd,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stderr) == (0, "")
        return said(done.stdout)

    return run


def policy(folder: Path, text: str) -> tuple[str, str]:
    """Return the options for a policy of this text, which is a file in a folder."""
    file = folder / "policy.toml"
    file.write_text(f"version = 1\n{text}")
    return "--policy", str(file)


# --- names ----------------------------------------------------------------------------------------


def test_folders_have_new_names(explore: Explore, home: Path) -> None:
    """`HOST::GUEST` shows a folder under another name, and no other; nothing else is there."""
    (home / "in").mkdir()
    (home / "in" / "file").write_text("in it")
    (home / "out").mkdir()

    got = explore(
        *("list", "/", "list", "/data", "read", "/data/file", "write", "/results/deep/new"),
        *("write", "/data/new", "list", home, "read", "../etc/passwd", "cwd", ""),
        options=("--dir", "./in::/data", "--dir", "./out::/results/deep:rw"),
    )

    assert got[:5] == ["data results", "file", "in it", "written", "EROFS"]
    assert got[5:] == ["ENOENT", "ENOENT", "/"]
    assert (home / "out" / "new").read_text() == "written"
    assert os.listdir(home / "in") == ["file"]


def test_metadata_can_be_changed_in_what_is_granted(explore: Explore, home: Path) -> None:
    """What Landlock has no hook for is held by the view: there, and there only."""
    for name in ("ro", "rw"):
        (home / name).mkdir()
        (home / name / "file").touch(0o600)

    got = explore(
        *("chmod", "/rw/file", "chmod", "/ro/file", "chmod", home / "ro" / "file"),
        options=("--dir", "./ro::/ro", "--dir", "./rw::/rw:rw"),
    )

    assert got == ["0", "EROFS", "ENOENT"]
    assert (home / "rw" / "file").stat().st_mode & 0o777 == 0o640
    assert (home / "ro" / "file").stat().st_mode & 0o777 == 0o600


def test_policies_rename(explore: Explore, home: Path) -> None:
    """In a policy's file it means the same, and what the caller grants is added."""
    (home / "in").mkdir()
    (home / "in" / "file").write_text("in it")
    (home / "more").mkdir()
    options = policy(home, '[filesystem]\nread_only = ["./in::/data"]\n')

    got = explore("read", "/data/file", "list", "/", options=(*options, "--dir", "./more::/more"))

    assert got == ["in it", "data more"]


def test_links_lead_to_what_is_granted(explore: Explore, home: Path) -> None:
    """A name may lead there by links: what they led to when it started is seen, and no link."""
    (home / "real" / "in").mkdir(parents=True)
    (home / "real" / "in" / "file").write_text("here")
    (home / "link").symlink_to("real")
    (home / "last").symlink_to("link/in/file")

    got = explore(
        *("list", "/l", "read", "/l/in/file", "read", "/f", "read", "/p/file"),
        options=(
            *("--dir", "./link/in::/l/in", "--dir", "./last::/f"),
            *policy(home, "[filesystem]\nread_only = ['link/in::/p']\n"),
        ),
    )

    assert got == ["in", "here", "here", "here"]


def test_relative_names(explore: Explore, home: Path) -> None:
    """One without a slash lies in the root; `.` is the working directory, where the host has it."""
    (home / "sub").mkdir()
    (home / "sub" / "file").write_text("here")

    inside = explore("read", "data/file", "cwd", "", options=("--dir", "./sub::data"))
    dot = explore("read", "file", "cwd", "", "list", "..", options=("--dir", "sub::."))

    assert inside == ["here", "/"]
    assert dot == ["here", str(home / "sub"), "sub"]


def test_names_that_are_not_changed(explore: Explore, home: Path) -> None:
    """Without a new name a folder is where the host has it; so is the program."""
    (home / "sub").mkdir()
    (home / "sub" / "file").write_text("here")

    here = explore("read", "sub/file", "cwd", "", options=("--dir", "."))
    below = explore(
        *("cwd", "", "read", "file", "read", home / "sub" / "file", "list", home.parent),
        options=("--dir", home),
        cwd=home / "sub",
    )

    assert here == ["here", str(home)]
    assert below == [str(home / "sub"), "here", "here", home.name]


@pytest.mark.parametrize(
    ("grant", "cwd", "expected"),
    [
        ("./sub::/data", "sub/deeper", "/data/deeper"),
        ("./sub::/data", ".", "/"),
        ("./link::/data", "sub", "/data"),
        ("./sub::/", "sub/deeper", "/deeper"),
    ],
)
def test_working_directory_is_translated(
    grant: str, cwd: str, expected: str, explore: Explore, home: Path
) -> None:
    """Where it is granted, it has a name of the program's; if not, the program is in the root."""
    (home / "sub" / "deeper").mkdir(parents=True)
    (home / "link").symlink_to("sub")
    host, _, guest = grant.partition("::")

    assert explore("cwd", "", options=("--dir", f"{home / host}::{guest}"), cwd=home / cwd) == [
        expected
    ]


def test_working_directory_of_a_policy(explore: Explore, home: Path) -> None:
    """`cwd` is a path of the program's own."""
    (home / "in" / "deep").mkdir(parents=True)
    (home / "in" / "deep" / "file").write_text("deep")
    options = policy(home, '[filesystem]\nread_only = ["./in::/data"]\ncwd = "/data/deep"\n')

    assert explore("cwd", "", "read", "file", options=options) == ["/data/deep", "deep"]


def test_single_files_and_devices(explore: Explore, home: Path) -> None:
    """A file may be granted alone; devices by their names."""
    (home / "one").write_text("alone")
    (home / "other").write_text("not granted")
    options = policy(
        home, '[filesystem]\nread_only = ["./one::/etc/one"]\ndevices = ["null", "full"]\n'
    )

    got = explore(
        *("list", "/", "list", "/etc", "read", "/etc/one", "write", "/etc/one", "list", "/dev"),
        *("read", "/dev/null", "write", "/dev/full", "read", home / "other"),
        options=options,
    )

    assert got == [
        *("dev etc", "one", "alone", "EROFS", "full null"),
        *("", str(-errno.ENOSPC), "ENOENT"),
    ]


def test_devices_themselves_stay(wali: Callable[..., Any], home: Path) -> None:
    """What is written to a device goes through; its mode and times are the host's, for root too."""
    options = policy(home, '[filesystem]\ndevices = ["full"]\n')
    before = os.stat("/dev/full")
    words = ("chmod", "/dev/full", "set times", "/dev/full", "open to write", "/dev/full")

    done = wali(*options, building.program("attempt"), *words)
    after = os.stat("/dev/full")
    if after.st_mode != before.st_mode:
        os.chmod("/dev/full", before.st_mode & 0o777)

    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)
    assert done.stdout.split() == [str(-errno.EROFS), str(-errno.EROFS), "0"]


@pytest.mark.skipif(not building.HAS_NATIVE, reason="what is right, a native program says")
@pytest.mark.parametrize("who", ["root", "user"])
def test_terminals_are_its_own(who: str, home: Path) -> None:
    """With `ptmx` it makes some and talks through them; those of others have no name there."""
    if who == "root" and os.geteuid():
        pytest.skip("not root")
    calls = '"@default", "@basic-io", "@file-system", "@process", "@signal"'
    options = policy(
        home, f'[filesystem]\ndevices = ["ptmx", "tty"]\n[syscalls]\nallow = [{calls}]\n'
    )
    shutil.copy(building.program("terminals"), home)
    native = subprocess.run(
        [building.native("terminals"), "names"], capture_output=True, text=True, check=True
    )
    command = [sys.executable, "-m", "wali_core", "run", *options, "terminals.wasm", "names"]
    ends = os.openpty()  # one of the host's
    try:
        if who == "user":
            done = ordinary.run(command, ordinary.give(home))
        else:
            done = subprocess.run(
                command,
                cwd=home,
                env=os.environ | {"PYTHONPATH": str(ordinary.ROOT)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
    finally:
        for end in ends:
            os.close(end)

    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == native.stdout
    assert "terminals of others: 0\n" in done.stdout


def test_terminals_beside_what_is_granted(explore: Explore, home: Path) -> None:
    """They are in a folder of the view's, with a link to what makes them; not in a granted one."""
    (home / "dev").mkdir()
    (home / "dev" / "pts").mkdir()
    options = policy(home, '[filesystem]\ndevices = ["ptmx"]\n')

    own = explore("list", "/dev", "list", "/dev/pts", "write", "/dev/pts/x", options=options)
    look = "list", "/dev", "list", "/dev/pts"
    given = explore(*look, options=(*options, "--dir", "./dev::/dev:rw"))
    for _ in range(2):
        for mode in ("", ":rw"):
            assert explore(*look, options=(*options, "--dir", f".::/{mode}")) == given

    assert own == ["ptmx pts", "ptmx", "EROFS"]
    assert given == ["pts", "ptmx"]
    assert os.listdir(home / "dev") == ["pts"]


def test_names_of_environments_are_taken(wali: Callable[..., Any], home: Path) -> None:
    """A grant there would hide them."""
    (home / "x").mkdir()
    options = policy(home, '[filesystem]\nread_only = ["./x::/.environment/x"]\n')

    done = wali(*options, building.program("attempt"), "pid", "")

    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == (
        f"wali: {home}/x as /.environment/x cannot be granted: environments lie there: it takes "
        "another name\n"
    )


def test_sockets(explore: Explore, home: Path) -> None:
    """A unix socket that is granted can be connected to, by its new name; and no other."""
    for name in ("granted", "other"):
        (home / name).touch()
    options = policy(home, '[network]\nunix = ["./granted::/run/s"]\n')
    words = ("connect", "/run/s", "connect", home / "other", "connect", home / "granted")
    ordinary.give(home)
    with Greeting(home / "granted"), Greeting(home / "other"):
        got = explore(*words, "list", "/", options=options)
        without = explore(*words, options=("--dir", f"{home}::/home"))

    assert got == ["hello", "ENOENT", "ENOENT", "run"]
    assert without == ["EPERM"] * 3


class Greeting:
    """A unix socket that greets whoever connects to it, and lets him go."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        path.unlink()
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            with end:
                end.send(b"hello")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def test_environment(explore: Explore, home: Path) -> None:
    """A program finds its environment in a file, of which nobody else's view has one."""
    got = explore("environment", "", "list", "/", options=("--env", "A=1"))
    none = explore("environment", "", "list", "/", options=("--dir", f"{home}::/home"))

    assert got == ["A=1", "EPERM"]  # nothing else of files is granted
    assert none == ["", "home"]


def test_users(explore: Explore, home: Path) -> None:
    """Everybody stays who he is; files of others belong to somebody else, whoever that is."""
    (home / "own").touch()
    who, own, other = explore(
        *("who", "", "stat owner", "/h/own", "stat owner", "/etc/passwd"),
        options=("--dir", f"{home}::/h", "--dir", "/etc"),
    )

    uid = who.split()[0]
    assert own == f"0 {uid}"
    assert other == ("0 0" if uid == "0" else "0 65534")


def test_threads_and_forked_processes_inherit_it(explore: Explore, home: Path) -> None:
    """What a program begins has the same view."""
    (home / "in").mkdir()
    options = policy(
        home,
        '[filesystem]\nread_only = ["./in::/data"]\n'
        '[syscalls]\nallow = ["@default", "@basic-io", "@file-system", "fork", "wait4", "@ipc"]\n',
    )

    for where in ("list in a child", "list in a thread"):
        assert explore(where, "/", where, home, options=options) == ["data", "ENOENT"]


@pytest.mark.parametrize("kind", ["Wasm", "native"])
def test_executed_programs_have_it(kind: str, explore: Explore, home: Path) -> None:
    """Wasm files, with an environment of their own, and native programs; and no others."""
    if kind == "native" and not building.HAS_NATIVE:
        pytest.skip("no native guests for this processor")
    (home / "bin").mkdir()
    (home / "other").mkdir()
    source = building.program("explore") if kind == "Wasm" else building.native("explore")
    for folder in ("bin", "other"):
        shutil.copy(source, home / folder / "program")
    options = policy(
        home,
        '[filesystem]\nread_only = ["./other::/other"]\nexec = ["./bin::/bin"]\ncwd = "/bin"\n',
    )

    refused, *executed = explore(
        *("execute", "/other/program", "execute", "/bin/program"),
        options=(*options, "--env", "A=1"),
    )

    assert refused == "EACCES"
    assert executed == ["B=2" if kind == "Wasm" else "", ".environment bin other", "/bin"]


@pytest.mark.skipif(
    os.geteuid() != 0 or not building.HAS_NATIVE,
    reason="it takes root to make a set-uid file, and native guests: SET-UID FILES NOT TESTED",
)
@pytest.mark.parametrize("lockdown", ["required", "off"])
def test_set_uid_files_do_nothing(lockdown: str, home: Path) -> None:
    """One of root's, in a granted folder, makes nobody root that executes it, as it would outside.

    The view alone sees to that, and so does no_new_privs.
    """
    (home / "bin").mkdir()
    program = home / "bin" / "program"
    shutil.copy(building.native("explore"), program)
    options = policy(home, f'lockdown = "{lockdown}"\n[filesystem]\nexec = ["./bin::/bin"]\n')
    ordinary.give(home)
    os.chown(program, 0, 0)
    program.chmod(0o4755)
    wali = [sys.executable, "-m", "wali_core", "run", *options, str(home / "explore.wasm")]

    outside = ordinary.run([program, "who", ""], home)
    inside = ordinary.run([*wali, "execute to ask who", "/bin/program"], home)

    assert outside.stdout == f"{ordinary.NOBODY} {ordinary.NOBODY} 0\n"
    assert (inside.returncode, inside.stderr) == (0, "")
    assert inside.stdout == f"{ordinary.NOBODY} {ordinary.NOBODY} {ordinary.NOBODY}\n"


def test_a_server_has_it(home: Path, cache_folder: Path) -> None:
    """A server with epoll writes its log where its policy says, under another name."""
    program = building.program(ordinary.ROOT / "examples" / "06_echo_server" / "echo_server.c")
    (home / "log").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = policy(
        home,
        f'[filesystem]\nread_write = ["./log::/var/log"]\n[network]\nlisten = ["tcp://*:{port}"]\n',
    )
    words = ["run", *options, str(program), str(port), "/var/log/served"]
    with subprocess.Popen(
        [sys.executable, "-m", "wali_core", *words],
        env=os.environ | {"PYTHONPATH": str(ordinary.ROOT), "XDG_CACHE_HOME": str(cache_folder)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            attempts = [server.stdout.readline(), server.stdout.readline()]
            server.stdout.readline()  # it serves
            clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(3)]
            for client in clients:
                client.sendall(b"hello")
            echoes = [client.recv(100) for client in clients]
            for client in clients:
                client.close()
            status = server.wait(60)
        finally:
            server.kill()

    assert attempts == ["open /etc/passwd: -2\n", "serve at the next port: -13\n"]
    assert (status, echoes) == (0, [b"hello"] * 3)
    assert (home / "log" / "served").read_text().count("ended\n") == 3


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace: WHAT PYTHON OPENS NOT TESTED")
def test_python_opens_nothing_in_it(home: Path, cache_folder: Path) -> None:
    """From the view on there is only what Landlock is told of; after that, only the program."""
    (home / "in").mkdir()
    trace = home.parent / "trace"
    calls = "-e trace=open,openat,openat2,execve,pivot_root,landlock_restrict_self"
    command = [sys.executable, "-m", "wali_core", "run", "--dir", "./in::/data", "--env", "A=1"]
    done = subprocess.run(
        ["strace", "-f", "-o", trace, *calls.split(), *command, "explore.wasm", "cwd", ""],
        env=os.environ | {"PYTHONPATH": str(ordinary.ROOT), "XDG_CACHE_HOME": str(cache_folder)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"strace does not work here: {done.stderr}")

    before, _, after = trace.read_text().partition("pivot_root(")
    inside, _, confined = after.partition("landlock_restrict_self(")
    opened = re.findall(r'(?:open\w*|execve)\((?:\w+, )?"(.*?)", (.*?)[,)]', inside)
    assert "explore.wasm" in before
    assert {path for path, _ in opened} == {"/", ".", "data", ".environment"}
    assert all("O_PATH" in flags for _, flags in opened)
    assert not re.findall(r"(?:open\w*|execve)\(", confined)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grants", "message"),
    [
        (
            ["./none::/data", "./in", "./file/x::/x", "./loop"],
            """directory '/data': cannot open ./none on the host: No such file or directory
directory '/x': cannot open ./file/x on the host: Not a directory
directory './loop': cannot open ./loop on the host: Too many levels of symbolic links""",
        ),
        (
            ["./in::/a", "./in::/a/b"],
            "{home}/in as /a/b cannot be granted: what is granted around it has no 'b'",
        ),
        (
            ["./file::/a", "./in::/a/b"],
            "{home}/in as /a/b cannot be granted: 'a' in what is granted around it is a file",
        ),
        (
            ["./in::/a", "./in::/a/link"],
            "{home}/in as /a/link cannot be granted: 'link' in what is granted around it is a link",
        ),
    ],
)
def test_what_cannot_be_shown_is_said(
    grants: list[str], message: str, wali: Callable[..., Any], home: Path
) -> None:
    """Before the program starts, with what is wrong and which grant it is."""
    (home / "in").mkdir()
    (home / "in" / "link").symlink_to("/etc")
    (home / "loop").symlink_to("loop")
    (home / "file").touch()
    options = [word for grant in grants for word in ("--dir", grant)]

    done = wali(*options, home / "explore.wasm", "list", "/", cwd=home)

    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == f"wali: {message.format(home=home)}\n"
    assert os.listdir(home / "in") == ["link"]


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_folders_as_streams_are_refused(stream: str, runtime: Runtime, home: Path) -> None:
    """A folder that stands at a stream would lead out, up to the host's root."""
    fd = os.open(home, os.O_RDONLY)
    options: dict[str, Any] = {stream: fd}
    try:
        with pytest.raises(PolicyError, match="is a directory, which a confined program"):
            runtime.run_sync(home / "explore.wasm", **options)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("view", '.toml: network.unix: view = "off" is in its way; it takes a view: without'),
        ("lockdown", '.toml: network.unix: lockdown = "off" is in its way; it takes Landlock'),
    ],
)
def test_unix_sockets_take_a_view_and_landlock(
    wali: Callable[..., Any], home: Path, without: str, message: str
) -> None:
    """Neither alone would keep a program from others, by path and by name: so they go together."""
    options = policy(home, f'{without} = "off"\n[network]\nunix = ["./s"]\n')

    done = wali(*options, home / "explore.wasm", "list", "/")

    assert (done.returncode, done.stdout) == (126, "")
    assert message in done.stderr


# --- from Python ----------------------------------------------------------------------------------


@pytest.fixture
def runtimes(cache_folder: Path) -> Iterator[Callable[..., Runtime]]:
    """Return a function that makes a runtime with a policy."""
    made: list[Runtime] = []

    def make(**options: Any) -> Runtime:
        made.append(Runtime(cache=cache_folder, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_directories_from_python(runtimes: Callable[..., Runtime], home: Path) -> None:
    """`dirs` means for a program what it means for a WASI guest, again and again."""
    (home / "in").mkdir()
    (home / "in" / "file").write_text("in it")
    grant = Grant(str(home / "in"), "/policy")
    runtime = runtimes(policy=Policy(filesystem=Filesystem(read_only=(grant,))))
    before = Path("/proc/self/mountinfo").read_text()
    for name in ("/data", "/other"):
        done = runtime.run_sync(
            home / "explore.wasm",
            args=["list", "/", "read", f"{name}/file", "write", f"{name}/new"],
            dirs={name: (home / "in", "rw")},
            capture_output=True,
        )

        listed = " ".join(sorted([name[1:], "policy"]))
        assert said((done.stdout or b"").decode()) == [listed, "in it", "written"]
    assert Path("/proc/self/mountinfo").read_text() == before


def test_mistakes_from_python(runtimes: Callable[..., Runtime], home: Path) -> None:
    """They are raised here, as PolicyError."""
    with pytest.raises(PolicyError, match=r"'/data': cannot open .*/none on the host: No such"):
        runtimes().run_sync(home / "explore.wasm", dirs={"/data": home / "none"})


def test_killed_programs_leave_no_mount(runtimes: Callable[..., Runtime], home: Path) -> None:
    """A view goes with its process, whatever ends that."""
    before = Path("/proc/self/mountinfo").read_text()
    runtime = runtimes()
    with pytest.raises(TimeoutError):
        runtime.run_sync(
            building.program("processes"), args=["sleeping"], dirs={"/d": home}, timeout=0.2
        )

    assert Path("/proc/self/mountinfo").read_text() == before


# --- WASI guests ----------------------------------------------------------------------------------

READS = """(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\\10\\00\\00\\00\\01\\00\\00\\00")
    (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_process_of_a_wasi_guest_has_an_empty_one(home: Path, cache_folder: Path, who: str) -> None:
    """It has given up everything that it does not need: names, privileges and system calls."""
    user = who == "user"
    if not user and os.geteuid():
        pytest.skip("not root")
    (home / "reads.wasm").write_bytes(wasmtime.wat2wasm(READS))
    (home / "data").mkdir()
    words = [sys.executable, "-m", "wali_core", "run", "--dir", "data:rw", "reads.wasm"]
    own = os.environ | {"PYTHONPATH": str(ordinary.ROOT)}
    with subprocess.Popen(
        ordinary.command(words, reads=[ordinary.give(home)]) if user else words,
        env=own | ({"HOME": str(home)} if user else {"XDG_CACHE_HOME": str(cache_folder)}),
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        there = Path("/proc", str(process.pid))
        mounts = (there / "mountinfo").read_text().splitlines()
        names = os.listdir(there / "root")
        status = dict(line.split(":\t") for line in (there / "status").read_text().splitlines())
        process.communicate(b"x")

    assert process.returncode == 0
    assert [mount.split()[4] for mount in mounts] == ["/"]
    assert names == []
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    kept = 0 if user else sum(1 << number for number in privileges.OF_FILES)
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")] == [kept] * 3
