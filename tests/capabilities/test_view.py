"""The view: what exists in it, as root and as an ordinary user, and what is left of it: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capabilities.lockdown import view
from tests import forbidding, ordinary
from tests.capabilities.confined import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Seen = Callable[..., list[str]]

# Arguments: binds, options of `enter`, and expressions of which the results are printed, one a
# line: an error by its name.
INSIDE = """
import errno, json, os, socket, stat, sys
from capabilities import LockdownError
from capabilities.lockdown import privileges, view
from capabilities.lockdown.view import Bind

given = json.loads(sys.argv[1])
globals().update(given["names"])

def attempt(code):
    try:
        return repr(eval(code))
    except OSError as error:
        return errno.errorcode[error.errno]

def tree(path="/"):
    found = []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            found.append(entry.path)
            if entry.is_dir(follow_symlinks=False):
                found += tree(entry.path)
    return found

def mounts():  # where something is mounted, and with which flags
    with open(os.open("mountinfo", os.O_RDONLY, dir_fd=kept)) as file:
        return [line.split()[4:6] for line in file]

def read(path):
    with open(path) as file:
        return file.read()

def write(path, text="text", mode="w"):
    with open(path, mode) as file:
        return file.write(text)

def connect(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)

exec(given["setup"])
view.claim()
kept = os.open("/proc/self", os.O_PATH)
try:
    made = view.enter(
        [Bind(h, g, writable="w" in how, executable="x" in how) for h, g, how in given["binds"]],
        **{n: v.encode() if n == "environment" else v for n, v in given["options"].items()},
    )
except (LockdownError, view.Unavailable) as error:
    sys.exit(f"{type(error).__name__}: {error}")
if given["drop"]:
    privileges.drop()
for code in given["attempts"]:
    print(attempt(code))
"""

HAS_VIEWS = view.probe() == ""
needs_views = pytest.mark.skipif(not HAS_VIEWS, reason="no namespace here: VIEWS ARE NOT TESTED")
pytestmark = [needs_views]


@pytest.fixture
def box(open_folder: Path) -> Path:
    """Return a folder for the host's files."""
    made = open_folder / "box"
    made.mkdir()
    return made


@pytest.fixture(params=["root", "user"])
def seen(request: pytest.FixtureRequest, box: Path) -> Seen:
    """Return a function that looks around in a view, as root and as an ordinary user."""
    if request.param == "root" and os.geteuid():
        pytest.skip("not root")

    def look(
        binds: Sequence[tuple[str | Path, str, str]],
        *attempts: str,
        setup: str = "",
        drop: bool = True,
        names: dict[str, object] | None = None,
        **options: object,
    ) -> list[str]:
        done = look_around(
            request.param, box, binds, attempts, setup, options, names or {}, drop=drop
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return look


def look_around(
    who: str,
    box: Path,
    binds: Sequence[tuple[str | Path, str, str]],
    attempts: Sequence[str] = (),
    setup: str = "",
    options: dict[str, object] | None = None,
    names: dict[str, object] | None = None,
    *,
    drop: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Enter a view and make attempts in it, in a process of its own."""
    given = {
        "binds": [[str(host), guest, how] for host, guest, how in binds],
        "attempts": list(attempts),
        "setup": setup,
        "options": options or {},
        "names": {"box": str(box), **(names or {})},
        "drop": drop,
    }
    command = [sys.executable, "-c", INSIDE, json.dumps(given)]
    if who == "user":
        return ordinary.run(command, ordinary.give(box))
    return subprocess.run(command, cwd=box, capture_output=True, text=True, check=False, timeout=60)


def refused(box: Path, binds: Sequence[tuple[str | Path, str, str]], **options: Any) -> list[str]:
    """Return what is said of a view that cannot be made."""
    done = look_around("user", box, binds, options=options)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.removesuffix("\n").splitlines()


# --- what exists ----------------------------------------------------------------------------------


def test_nothing_exists_without_a_grant(seen: Seen) -> None:
    """The root is empty, cannot be written to, and is where the thread is."""
    assert seen([], "tree()", "os.getcwd()", "write('/new')", "os.mkdir('d')") == [
        "[]",
        "'/'",
        "EROFS",
        "EROFS",
    ]


def test_only_what_was_granted_exists(seen: Seen, box: Path) -> None:
    """Folders and files, under the names that they were given."""
    (box / "sources" / "deep").mkdir(parents=True)
    (box / "sources" / "deep" / "file").write_text("deep")
    (box / "one").write_text("one")
    (box / "beside").write_text("not granted")
    binds = [(box / "sources", "/a/b/c", ""), (box / "one", "/a/one.txt", "")]

    got = seen(binds, "tree()", "read('/a/b/c/deep/file')", "read('/a/one.txt')", "os.stat(box)")

    files = ["/a", "/a/b", "/a/b/c", "/a/b/c/deep", "/a/b/c/deep/file", "/a/one.txt"]
    assert got == [repr(files), "'deep'", "'one'", "ENOENT"]


def test_writing_is_granted_by_itself(seen: Seen, box: Path) -> None:
    """What is not writable answers EROFS to every change, of metadata too; the rest does not."""
    for name in ("ro", "rw"):
        (box / name).mkdir()
        (box / name / "file").write_text(name)
    changes = (
        "write(p)",
        "write(p, mode='a')",
        "os.chmod(p, 0o600)",
        "os.utime(p)",
        "os.truncate(p, 0)",
        "os.setxattr(p, 'user.a', b'1')",
        "os.link(p, p + '2')",
        "os.mkdir(p + 'd')",
        "os.unlink(p)",
    )
    binds = [(box / "ro", "/ro", ""), (box / "rw", "/rw", "w")]

    kept = seen(binds, *changes, names={"p": "/ro/file"})
    changed = seen(binds, *changes, names={"p": "/rw/file"})

    assert set(kept) == {"EROFS"}
    assert not {"EROFS", "EPERM", "EACCES"}.intersection(changed)
    assert sorted(os.listdir(box / "rw")) == ["file2", "filed"]
    assert (box / "ro" / "file").read_text() == "ro"


def test_nothing_of_the_host_is_mounted(seen: Seen, box: Path) -> None:
    """The root, what was granted, and no more; as the kernel lists it."""
    (box / "d").mkdir()

    got = seen([(box / "d", "/d", "")], "mounts()", "os.stat('..').st_ino == os.stat('/').st_ino")

    flags = "ro,nosuid,nodev,noexec,relatime", "ro,nosuid,noexec,relatime"
    assert got == [repr([["/", flags[0]], ["/d", flags[1]]]), "True"]


def test_flags_of_a_mount_are_kept(box: Path) -> None:
    """A bind has what was granted, and no flag less than the mount that it was made from."""
    if os.geteuid():
        pytest.skip("not root")
    (box / "m").mkdir()
    setup = """
import ctypes
libc = ctypes.CDLL(None)
libc.unshare(0x20000)
assert not libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None)
flags = ctypes.c_ulong(2 | 4 | 1024)  # nosuid, nodev, noatime
assert not libc.mount(b"none", (box + "/m").encode(), b"tmpfs", flags, None)
"""
    done = look_around("root", box, [(box / "m", "/m", "wx")], ["mounts()[1]"], setup)

    assert done.stdout == "['/m', 'rw,nosuid,nodev,noatime']\n"


def test_mounts_below_are_seen(box: Path) -> None:
    """What is mounted below a granted folder comes with it, and is not writable if that is not."""
    if os.geteuid():
        pytest.skip("not root")
    (box / "m").mkdir()
    setup = """
import ctypes
libc = ctypes.CDLL(None)
libc.unshare(0x20000)
assert not libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None)
assert not libc.mount(b"none", (box + "/m").encode(), b"tmpfs", ctypes.c_ulong(0), None)
write(box + "/m/below")
"""
    attempts = ["read('/b/m/below')", "write('/b/m/below')", "write('/b/m/new')"]
    for how, expected in (("", ["EROFS", "EROFS"]), ("w", ["4", "4"])):
        done = look_around("root", box, [(box, "/b", how)], attempts, setup)

        assert done.stdout.splitlines() == ["'text'", *expected]


def test_devices_work(seen: Seen) -> None:
    """They are bound like files, and can be written to whatever the bind says: the kernel's way."""
    binds = [(f"/dev/{name}", f"/dev/{name}", "w") for name in ("null", "zero", "urandom", "full")]
    got = seen(
        binds,
        "tree()",
        "write('/dev/null')",
        "len(open('/dev/urandom', 'rb').read(8))",
        "open('/dev/zero', 'rb').read(2)",
        "write('/dev/full')",
        "os.chmod('/dev/null', 0o600)" if os.geteuid() else "0",
    )

    files = ["/dev", "/dev/full", "/dev/null", "/dev/urandom", "/dev/zero"]
    assert got[:5] == [repr(files), "4", "8", repr(b"\0\0"), "ENOSPC"]


def test_sockets_can_be_bound(seen: Seen, box: Path) -> None:
    """A unix socket that is granted can be connected to by its new name; no other is there."""
    listens = """
servers = []
for name in ("granted", "other"):
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{box}/{name}{os.getpid()}")
    server.listen()
    servers.append(server)
    os.rename(f"{box}/{name}{os.getpid()}", f"{box}/{name}")
"""
    got = seen(
        [(box / "granted", "/run/s", "")],
        *("connect('/run/s')", "connect(box + '/granted')", "connect(box + '/other')", "tree()"),
        setup=listens,
    )

    assert got == ["None", "ENOENT", "ENOENT", "['/run', '/run/s']"]


# --- where things go ------------------------------------------------------------------------------


def test_grants_can_be_nested(seen: Seen, box: Path) -> None:
    """An inner one is seen in the place that the outer one has for it, in any order."""
    (box / "outer" / "in").mkdir(parents=True)
    (box / "outer" / "file").write_text("of the outer")
    (box / "inner").mkdir()
    (box / "other").write_text("another")
    binds = [
        (box / "inner", "/o/in", "w"),
        (box / "other", "/o/file", ""),
        (box / "outer", "/o", ""),
        (box / "other", "/o2/deep/er", ""),
    ]

    got = seen(binds, "write('/o/in/new')", "read('/o/file')", "write('/o/new')", "tree()")

    files = ["/o", "/o/file", "/o/in", "/o/in/new", "/o2", "/o2/deep", "/o2/deep/er"]
    assert got == ["4", "'another'", "EROFS", repr(files)]
    assert (box / "inner" / "new").read_text() == "text"


def test_same_folder_by_two_names(seen: Seen, box: Path) -> None:
    """It can be written to by the one that says so."""
    (box / "d").mkdir()
    binds = [(box / "d", "/ro", ""), (box / "d", "/rw", "w")]

    assert seen(binds, "write('/ro/f')", "write('/rw/f')", "read('/ro/f')") == [
        "EROFS",
        "4",
        "'text'",
    ]


def test_whole_tree(seen: Seen, box: Path) -> None:
    """The root itself can be granted, and something else in it."""
    (box / "d").mkdir()
    binds = [("/", "/", ""), (box / "d", str(box / "d"), "w")]

    got = seen(
        binds,
        *("os.path.exists('/etc/passwd')", "write('/new')", "write(box + '/new')"),
        "write(box + '/d/new')",
        "os.getcwd() == box",
        cwd=str(box),
    )

    assert got == ["True", "EROFS", "EROFS", "4", "True"]


def test_links_in_a_granted_path_are_refused(box: Path) -> None:
    """Who follows them looks at where they lead, before: here they could lead elsewhere again."""
    (box / "real" / "in").mkdir(parents=True)
    (box / "link").symlink_to("real")
    (box / "last").symlink_to("real/in")
    (box / "loop").symlink_to("loop")

    binds = [(box / "link" / "in", "/i", ""), (box / "last", "/l", ""), (box / "loop", "/o", "")]

    assert refused(box, binds) == [
        f"LockdownError: {box}/link/in as /i cannot be granted: Not a directory",
        f"{box}/last as /l cannot be granted: Too many levels of symbolic links",
        f"{box}/loop as /o cannot be granted: Too many levels of symbolic links",
    ]


def test_links_in_the_view_lead_nowhere_else(seen: Seen, box: Path) -> None:
    """A link in a granted folder means what it means in the view."""
    (box / "d").mkdir()
    (box / "secret").write_text("secret")
    links = {"absolute": str(box / "secret"), "relative": "../secret", "far": "/../../etc/passwd"}
    for name, target in links.items():
        (box / "d" / name).symlink_to(target)

    got = seen([(box / "d", "/d", "")], *(f"read('/d/{name}')" for name in links))

    assert got == ["ENOENT"] * 3


def test_host_folders_can_move(seen: Seen, box: Path) -> None:
    """What is renamed on the host is seen as before; what is removed is gone, as on Linux."""
    (box / "d").mkdir()
    (box / "d" / "file").write_text("here")
    script = """
import threading
def outside():  # a thread that was there before has the host's tree
    go.wait()
    os.rename(box + "/d", box + "/moved")
    done.set()
    again.wait()
    os.unlink(box + "/moved/file")
    os.rmdir(box + "/moved")
    gone.set()
go, done, again, gone = (threading.Event() for _ in range(4))
view.claim()
threading.Thread(target=outside, daemon=True).start()
"""
    got = seen(
        [(box / "d", "/d", "w")],
        *("go.set() or done.wait() and read('/d/file')", "write('/d/new') and os.unlink('/d/new')"),
        *(
            "again.set() or gone.wait() and os.listdir('/d')",
            "write('/d/new')",
            "os.stat('/d').st_nlink",
        ),
        setup=script,
    )

    assert got == ["'here'", "None", "[]", "ENOENT", "0"]


def test_working_directory(seen: Seen, box: Path) -> None:
    """It is said in the view's own words."""
    (box / "d" / "e").mkdir(parents=True)

    assert seen([(box / "d", "/x", "")], "os.getcwd()", "os.listdir('..')", cwd="/x/e") == [
        "'/x/e'",
        "['e']",
    ]


# --- what cannot be had ---------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said(box: Path) -> None:
    """What is not there, what there is no place for; all of it, and nothing runs."""
    (box / "d").mkdir()
    (box / "d" / "link").symlink_to("/etc")
    (box / "d" / "file").touch()
    (box / "file").touch()
    binds = [
        (box / "none", str(box / "none"), ""),
        (box / "none", "/n", "w"),
        (box / "file" / "in", "/i", ""),
        (box / "d", "/d", "w"),
        (box, "/d/new", ""),
        (box, "/d/link", ""),
        (box, "/d/link/x", ""),
        (box, "/d/file", ""),
        (box / "file", "/d", ""),
    ]
    granted_around = "in what is granted around it is a"

    assert refused(box, binds) == [
        f"LockdownError: {box}/none as /n cannot be granted: No such file or directory",
        f"{box}/file/in as /i cannot be granted: Not a directory",
        f"{box}/file as /d cannot be granted: 'd' {granted_around} folder",
        f"{box} as /d/new cannot be granted: what is granted around it has no 'new'",
        f"{box} as /d/link cannot be granted: 'link' {granted_around} link",
        f"{box} as /d/file cannot be granted: 'file' {granted_around} file",
        f"{box} as /d/link/x cannot be granted: 'link' {granted_around} link",
        f"{box}/none cannot be granted: No such file or directory",
    ]
    assert sorted(os.listdir(box / "d")) == ["file", "link"]


@pytest.mark.parametrize("how", ["", "w"])
def test_nothing_is_made_in_a_root_of_the_hosts(how: str, box: Path) -> None:
    """Places are made in a root of the view's own alone."""
    (box / "root").mkdir()
    (box / "file").touch()
    binds = [(box / "root", "/", how), (box, "/new/box", ""), (box / "file", "/file", "")]

    no_place = "cannot be granted: what is granted around it has no"
    assert refused(box, binds) == [
        f"LockdownError: {box}/file as /file {no_place} 'file'",
        f"{box} as /new/box {no_place} 'new'",
    ]
    assert os.listdir(box / "root") == []


def test_root_that_is_not_there(box: Path) -> None:
    """The one thing that cannot be put into a root is another root that does not exist."""
    assert refused(box, [(box / "none", "/", "")]) == [
        f"LockdownError: {box}/none as / cannot be granted: No such file or directory"
    ]


def test_working_directory_that_is_not_there(box: Path) -> None:
    """It is named."""
    assert refused(box, [], cwd="/x") == [
        "LockdownError: /x cannot be the working directory: No such file or directory"
    ]


def test_other_threads_stop_an_ordinary_user(box: Path) -> None:
    """A user namespace is for a process with one thread: the kernel's rule, said as it is."""
    setup = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    done = look_around("user", box, [], setup=setup)

    assert (
        done.stderr
        == "Unavailable: the kernel gives this user no namespace (unshare: Invalid argument)\n"
    )


REFUSED = """
import os, sys
from capabilities.lockdown import view
os.chdir(sys.argv[1])
probed = view.probe()
view.claim()
try:
    view.enter([])
except view.Unavailable as error:
    print(error)
    print(probed == str(error))
print(os.path.exists("/etc/passwd"), os.getcwd() == sys.argv[1], os.listdir("/proc/self/fd"))
"""


@pytest.mark.parametrize(
    ("who", "call", "reason"),
    [
        ("user", forbidding.UNSHARE, "this user no namespace (unshare: Operation not permitted)"),
        ("root", forbidding.UNSHARE, "this process no namespace: Operation not permitted"),
        ("root", forbidding.PIVOT_ROOT, "this process no namespace: Operation not permitted"),
    ],
)
def test_namespaces_can_be_forbidden(who: str, call: int, reason: str, box: Path) -> None:
    """Then it is said, and the thread sees what it saw, where it was."""
    if who == "root" and os.geteuid():
        pytest.skip("not root")
    command = forbidding.command([sys.executable, "-c", REFUSED, box], call)
    done = (
        ordinary.run(command, ordinary.give(box))
        if who == "user"
        else subprocess.run(command, capture_output=True, text=True, check=False)
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"the kernel gives {reason}",
        "True",
        "True True ['0', '1', '2', '3']",
    ]


def test_old_kernels_are_named(box: Path) -> None:
    """Without mount_setattr there is no view: Linux 5.12 brought it."""
    script = f"""
import os
from capabilities.lockdown import privileges, view
view.claim()
original = view.call
def call(number, *arguments):
    if number == {forbidding.MOUNT_SETATTR}:
        raise OSError(38, "Function not implemented")
    return original(number, *arguments)
view.call = call
try:
    view.enter([])
except view.Unavailable as error:
    print(error)
"""
    done = ordinary.run([sys.executable, "-c", script], ordinary.give(box))

    assert done.stdout == "the kernel lacks mount_setattr or its kin: that takes Linux 5.12\n"


def test_probing_changes_nothing() -> None:
    """It is another process that tries."""
    before = os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/user")

    assert view.probe() == ""
    assert before == (os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/user"))


# --- privileges -----------------------------------------------------------------------------------


def test_privileges_of_the_namespace_are_given_up(seen: Seen) -> None:
    """Until then the view could be changed; afterwards nobody in it can."""
    unshare = (
        f"__import__('ctypes').CDLL(None, use_errno=True).syscall({forbidding.UNSHARE}, 0x20000)"
    )

    assert seen([], unshare, drop=False) == ["0"]
    assert seen([], unshare) == ["-1"]


def test_users_stay_who_they_are(seen: Seen, box: Path) -> None:
    """In a user namespace too; new files are theirs, and others' files are no more theirs."""
    (box / "d").mkdir()
    got = seen(
        [(box / "d", "/d", "w"), ("/etc/passwd", "/passwd", "w")],
        "os.getuid() == os.geteuid() == os.stat('/d').st_uid",
        "write('/d/new') and os.stat('/d/new').st_uid == os.getuid()",
        "os.chmod('/passwd', 0o644) if os.getuid() else errno.EPERM and os.chmod('/passwd', 0)"
        if os.geteuid()
        else "os.access('/passwd', os.W_OK) == (os.getuid() == 0)",
    )

    assert got[:2] == ["True", "True"]
    assert got[2] in ("True", "EPERM", "EROFS")


def test_set_uid_files_do_nothing(seen: Seen, box: Path) -> None:
    """A granted folder is mounted so that their bit is ignored."""
    got = seen([(box, "/b", "wx")], "os.statvfs('/b').f_flag & os.ST_NOSUID != 0", "mounts()[1]")

    assert got == ["True", "['/b', 'rw,nosuid,relatime']"]


# --- the environment ------------------------------------------------------------------------------


def test_environment_is_a_file(seen: Seen) -> None:
    """It can be read where it is said to be, and not be written."""
    got = seen(
        [],
        *("tree() == ['/.environment', view.environment_path()]", "read(view.environment_path())"),
        *("write(view.environment_path())", "os.listdir('/.environment') == [str(os.getpid())]"),
        environment="A=1\n",
    )

    assert got == ["True", "'A=1\\n'", "EROFS", "True"]


def test_environment_can_be_replaced(seen: Seen) -> None:
    """By whoever has made the view, for each process; and by nobody else."""
    got = seen(
        [],
        *("made.place_environment(b'A=1\\n') == view.environment_path()", "made.rewritable"),
        *("read(made.place_environment(b'B=2'))", "write('/.environment/x')"),
        "os.listdir('/.environment') == [str(os.getpid())]",
        "os.waitpid(os.fork() or os._exit(made.place_environment(b'C=3') is None), 0)[1]",
        "len(os.listdir('/.environment'))",
        *("made.close()", "made.place_environment(b'D=4')"),
        environment="A=1\n",
        rewritable=True,
    )

    assert got == ["True", "True", "'B=2'", "EROFS", "True", "0", "2", "None", "EROFS"]


def test_environment_is_made_once(seen: Seen) -> None:
    """Without a need for more there is the first one, and no way to make another."""
    got = seen(
        [],
        *("read(made.place_environment(b'A=1\\n'))", "made.place_environment(b'A=1\\n')"),
        *("made.environments", "made.rewritable"),
        environment="A=1\n",
    )

    assert got == ["'A=1\\n'", "EROFS", "'/.environment'", "False"]


def test_view_without_a_place_for_it(seen: Seen) -> None:
    """The host's whole tree has none, and gets none."""
    assert seen([("/", "/", "")], "os.path.exists('/.environment')", environment="A=1\n") == [
        "False"
    ]


# --- what is left ---------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from capabilities.lockdown import view
most, box = int(sys.argv[1]), sys.argv[2]
count, original = 0, view.call
def call(number, *arguments):
    global count
    count += 1
    if count == most:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(number, *arguments)
view.call = call
view.claim()
view.enter([view.Bind(box, "/a/b", writable=True)], environment=b"A=1\\n", rewritable=True)
print("entered")
"""


def mounted() -> list[str]:
    """Return what is mounted here, but for what is the test's own doing."""
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.mark.parametrize("who", ["root", "user"])
def test_killed_at_every_step(who: str, box: Path) -> None:
    """Whenever it is killed: no mount, no process and no file is left."""
    if who == "root" and os.geteuid():
        pytest.skip("not root")
    before = mounted()
    step, done = 0, -signal.SIGKILL
    while done == -signal.SIGKILL:
        step += 1
        # Where temporary files would be, if there were any.
        command = ["/usr/bin/env", f"TMPDIR={box}"]
        command += [sys.executable, "-c", KILLED, str(step), str(box)]
        if who == "user":
            done = ordinary.run(command, ordinary.give(box)).returncode
        else:
            done = subprocess.run(command, check=False).returncode
        assert mounted() == before
        assert os.listdir(box) == []

    assert done == 0
    assert step > 15


def test_importing_it_is_cheap() -> None:
    """It is part of every start: no attrs, no typing, no re."""
    code = "import sys; from capabilities.lockdown import view; print(*sys.modules)"

    assert not set(run(code).split()) & {"attr", "cattrs", "enum", "re", "typing", "subprocess"}
