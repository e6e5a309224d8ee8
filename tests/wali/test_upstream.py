"""Upstream's own programs, where `WALI_UPSTREAM` names the folder of a checkout.

Nothing of it is here: the binaries and scripts are used as they lie there.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import ordinary
from tests.wali.broker import DISCONNECT, PUBACK, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, Broker
from tests.wali.conftest import ROOT
from tests.wali.test_terminal import END, INTERRUPT, PROMPT, QUIT, STOP, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Wali = Callable[..., subprocess.CompletedProcess[str]]

UPSTREAM = os.environ.get("WALI_UPSTREAM")

pytestmark = [
    pytest.mark.suite,
    pytest.mark.skipif(not UPSTREAM, reason="WALI_UPSTREAM names no checkout of WALI"),
]


def precompiled(name: str) -> Path:
    """Return one of the folders with a program that upstream has compiled."""
    folder = Path(UPSTREAM or "", "examples", "precompiled", name).resolve()
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


def precompiled_file(name: str) -> Path:
    """Return one that is a file by itself."""
    program = Path(UPSTREAM or "", "examples", "precompiled", f"{name}.wasm").resolve()
    if not program.is_file():
        pytest.skip(f"{program} is missing")
    return program


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def started(
    options: list[str], program: Path, box: Path, cache: Path, *words: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a program run until it ends, or nobody needs it any more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wali_core", "run", *options, str(program), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)},
        cwd=box,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def test_lua_runs_a_script(wali: Wali) -> None:
    """Lua reads a script from the one folder that it is granted."""
    folder = precompiled("lua")

    done = wali("--dir", ".", "lua.wasm", "test.lua", cwd=folder)

    assert (done.returncode, done.stderr) == (0, "")
    assert "sum(10):\t55" in done.stdout
    assert "fact(5):\t120" in done.stdout


def test_lua_is_confined(wali: Wali, tmp_path: Path) -> None:
    """It reads nothing beside that folder, and writes nothing in it."""
    folder = precompiled("lua")
    (tmp_path / "box" / "attempt.lua").write_text(
        'print(io.open("/etc/passwd")); print(io.open("new", "w")); print(os.getenv("HOME"))'
    )

    done = wali("--dir", ".", folder / "lua.wasm", "attempt.lua")

    assert (done.returncode, done.stderr) == (0, "")
    # In a view of its own what is not granted is not there; without one, Landlock refuses it.
    in_view = (
        "nil\t/etc/passwd: No such file or directory\t2\nnil\tnew: Read-only file system\t30\n"
    )
    refused = "nil\t/etc/passwd: Permission denied\t13\nnil\tnew: Permission denied\t13\n"
    assert done.stdout in (in_view + "nil\n", refused + "nil\n")


def test_sqlite_answers_queries(wali: Wali) -> None:
    """SQLite reads a database."""
    folder = precompiled("sqlite")

    done = wali("--dir", ".", "sqlite3.wasm", "chinook.db", ".read list_albums.sql", cwd=folder)

    assert done.returncode == 0
    assert "Ace Of Spades" in done.stdout


def test_sqlite_writes_a_database(wali: Wali) -> None:
    """It makes one as well, with locks and a journal, and finds in it what it wrote.

    Its input ends with a command that flushes: what stdio holds when `main` returns is lost with
    upstream's start-up code, unless standard output is a terminal.
    """
    program = precompiled("sqlite") / "sqlite3.wasm"
    write = "create table t(a, b); insert into t values (1, 'one'), (2, 'two');"

    made = wali("--dir", ".:rw", program, "new.db", write)
    read = wali(
        *("--dir", ".", program, "-readonly", "new.db"),
        input="select b from t order by a desc;\n",
    )

    assert (made.returncode, made.stdout) == (0, "")
    assert (read.returncode, read.stdout) == (0, "two\none\n")


def test_folders_have_other_names(wali: Wali, tmp_path: Path) -> None:
    """Both run under a policy that renames: what they are told are names of their own."""
    lua, sqlite = precompiled("lua"), precompiled("sqlite")
    (tmp_path / "data").mkdir()
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f"""version = 1
        view = "required"
        [filesystem]
        read_only = ["{lua}::/scripts", "{sqlite}::/music"]
        read_write = ["./data::/data"]
        cwd = "/data"
        """
    )
    write = "create table t(a); insert into t values ('one');"

    script = wali("--policy", policy, lua / "lua.wasm", "/scripts/test.lua")
    queried = wali(
        *("--policy", policy, sqlite / "sqlite3.wasm", "-readonly", "/music/chinook.db"),
        ".read /music/list_albums.sql",
    )
    made = wali("--policy", policy, sqlite / "sqlite3.wasm", "new.db", write)
    read = wali(
        *("--policy", policy, sqlite / "sqlite3.wasm", "-readonly", "/data/new.db"),
        input="select a from t;\n",
    )

    assert "sum(10):\t55" in script.stdout
    assert "Ace Of Spades" in queried.stdout
    assert (made.returncode, read.stdout) == (0, "one\n")
    assert os.listdir(tmp_path / "data") == ["new.db"]


def test_bash_executes_wasm_and_native_programs(wali: Wali, box: Path) -> None:
    """A shell forks, executes Lua in WebAssembly in its child's place, and Linux's own programs."""
    for name in ("bash", "lua"):
        shutil.copy(precompiled(name) / f"{name}.wasm", box)
        (box / f"{name}.wasm").chmod(0o755)
    (box / "script").write_text(
        "echo a b c | /usr/bin/tr a-z A-Z | /bin/cat\n"
        "./lua.wasm -e 'print(6 * 7)'\n"
        "/bin/sh -c 'kill -9 $$' 2>/dev/null\n"
        "echo $?\n"
    )

    done = wali("--allow-all", "bash.wasm", "script")

    assert done.returncode == 0
    assert done.stdout == "A B C\n42\n137\n"


BASH_SCRIPT = r"""
echo "$# arguments: $*"
for i in 1 2 3; do printf '%s-%03d\n' n $i; done
x=5; while ((x > 0)); do ((x--)); done; echo x=$x
for ((i = 0; i < 3; i++)); do case $i in 1) echo one;; *) echo other;; esac; done
a=(one two three); echo "${a[1]} ${#a[@]} ${a[@]:1}"
declare -A m=([k]=v [z]=w); echo "${m[k]} ${!m[@]}"
[[ abc == a* && 3 -lt 5 && hello =~ l+ ]] && echo "${BASH_REMATCH[0]}"
s="hello world"; echo "${s^^} ${s#hello } ${s/world/x} ${#s} $((2 ** 10 & 0x7ff))"
read -r p q <<< "x y"; echo "$q $p"
echo one two | while read -r p q; do echo "$q $p"; done
echo data > file; echo more >> file; while read -r line; do echo "<$line>"; done < file
mapfile -t lines < file; echo "${#lines[@]} lines"
exec 5< file; read -r -u 5 line; echo "$line"; exec 5<&-; exec 6> file2; echo six >&6; exec 6>&-
/bin/cat file2 - << END
document $x
END
(echo in a subshell; cd /; pwd); cd / && pwd
{ echo a; echo b; } | /usr/bin/sort -r | tr a-z A-Z
export V=exported; /usr/bin/env | /bin/grep ^V=
/bin/false || echo "failed: $?"; ! /bin/true; echo $?
/bin/sh -c 'exit 9'; echo $?; no_such_program 2> /dev/null; echo $?
/bin/sleep 100 & kill $!; wait $!; echo $?
y=`echo captured`; echo $y
umask 027; umask; ulimit -n 500; ulimit -n
set -- p q r; shift; echo "$*"
trap 'echo handled' USR1; kill -USR1 $$
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no native bash to compare with")
def test_bash_prints_what_a_native_one_prints(wali: Wali, box: Path, tmp_path: Path) -> None:
    """As far as it goes without ``setjmp`` and calls by another type: see the guide."""
    (tmp_path / "script").write_text(BASH_SCRIPT)
    words = (tmp_path / "script", "two words", "three")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    native = subprocess.run(
        ["bash", *words], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    done = wali("--allow-all", precompiled("bash") / "bash.wasm", *words)

    assert done.stdout == native.stdout
    assert "indirect call type mismatch" in done.stderr  # after a trap it goes no further
    assert sorted(os.listdir(box)) == ["file", "file2"]


def test_memcached_serves_with_four_threads(box: Path, cache_folder: Path) -> None:
    """Ten thousand values are set and got over eight connections; SIGTERM ends it in order."""
    program, port = precompiled_file("memcached"), free_port()
    words = ["-u", "root", "-t", "4", "-U", "0", "-l", "127.0.0.1", "-p", str(port)]
    with started(["--allow-all"], program, box, cache_folder, *words) as server:
        with ThreadPoolExecutor(8) as clients:
            assert sum(clients.map(partial(_set_and_get, port), range(8))) == 10_000
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
        assert server.returncode == 0, errors


@pytest.mark.parametrize("qos", [0, 1])
def test_paho_publishes_and_subscribes(qos: int, wali: Wali) -> None:
    """It gets its own messages from a broker, with a thread for each direction.

    When fifty have arrived it unsubscribes and takes leave.  What it prints then is lost, as above.
    """
    with Broker() as broker:
        done = wali(
            *("--allow-all", precompiled_file("paho-mqtt-app")),
            *(f"--broker=tcp://127.0.0.1:{broker.port}", "--name=me", f"--qos={qos}"),
            *(
                "--pub=news",
                "--sub=news",
                "--iterations=50",
                "--interval=500",
                "--size=100",
                "--log",
            ),
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert "Message arrived (9) | Recv time" in done.stdout
    published = broker.seen[PUBLISH]
    head = 6 + 2 * (qos > 0) + len(b"me\0")  # the topic, a number, and who it is
    assert len(published) > 50
    assert [body[head : head + 4] for body in published] == [
        n.to_bytes(4, "little") for n in range(len(published))
    ]
    assert {len(body) for body in published} == {100 + head - 3}
    assert len(broker.seen[PUBACK]) >= 50 * qos
    assert {body[4:8] for body in broker.seen[SUBSCRIBE]} == {b"news", b"pubk"}
    assert len(broker.seen[UNSUBSCRIBE]) == 2
    assert broker.seen[DISCONNECT] == [b""]


def test_paho_publishes_until_it_is_told(box: Path, cache_folder: Path) -> None:
    """Another's message reaches it while it publishes."""
    with (
        Broker() as broker,
        started(
            *(["--allow-all"], precompiled_file("paho-mqtt-app"), box, cache_folder),
            *(f"--broker=tcp://127.0.0.1:{broker.port}", "--pub=news", "--interval=1000"),
        ) as client,
    ):
        broker.wait_for(PUBLISH, 30)
        broker.publish(b"pubkill", 1, b"enough")
        _, errors = client.communicate(timeout=30)

    assert (client.returncode, errors) == (0, b"")
    assert broker.seen[DISCONNECT] == [b""]


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash to compare with")
@pytest.mark.parametrize("shell", ["native", "wali"])
def test_bash_keeps_jobs(shell: str, cache_folder: Path) -> None:
    """Interactive at a terminal it does what this machine's does: keys, jobs, statuses, sizes."""
    words: tuple[str, ...] = ("bash",)
    if shell == "wali":
        wali = (sys.executable, "-m", "wali_core", "run", "--allow-all")
        words = (*wali, str(precompiled("bash") / "bash.wasm"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache_folder)}

    # What it answers nobody has typed: so it is in the foreground.
    job = 'sh -c "$program"'
    with Terminal('echo ready; while read l; do echo "<$l>"; done', environment, words) as terminal:
        terminal.expect(PROMPT)
        for keys, shown in (
            (f"{job}\n", "\nready\n"),
            (STOP, f"^Z\n[1]+  Stopped                 {job}\n"),
            ("echo status $?\n", "status 148\n"),
            ("jobs\n", f"[1]+  Stopped                 {job}\n"),
            ("fg\n", f"fg\n{job}\n"),
            ("two\n", "<two>\n"),
            (INTERRUPT, f"^C\n{PROMPT}"),
            ("echo status $?\n", "status 130\n"),
            (f"{job}\n", "\nready\n"),
            (QUIT, "^\\Quit"),
            ("echo status $?\n", "status 131\n"),
            (f"{job}\n", "\nready\n"),
            (STOP, f"[1]+  Stopped                 {job}\n"),
            ("bg\n", f"[1]+ {job} &\n"),
            ("fg\n", f"fg\n{job}\n"),
            ("five\n", "<five>\n"),
            (END, PROMPT),
            ("sh -c 'exit 9' & wait $!; echo status $?\n", "status 9\n"),
        ):
            terminal.type(keys)
            terminal.expect(shown)
        terminal.resize(100, 40)
        terminal.type("stty size\n")
        terminal.expect("40 100\n")


SSHD_CONFIG = """HostKey /etc/host
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile /etc/authorized
"""
SSHD_POLICY = """version = 1
view = "required"
lockdown = "required"
[filesystem]
read_only = ["./etc::/etc"]
read_write = ["./home::/home"]
exec = {exec}
devices = ["null", "ptmx", "tty", "urandom"]
cwd = "/home"
[network]
listen = ["tcp://*:{port}"]
[syscalls]
allow = ["@default", "@basic-io", "@file-system", "@io-event", "@ipc", "@network-io", "@process",
         "@signal", "@timer", "@sync", "@resources", "@setuid", "@chown"]
"""


@pytest.mark.skipif(
    not (shutil.which("ssh") and shutil.which("ssh-keygen")), reason="there is no ssh client"
)
def test_sshd_lets_in_who_has_the_key(open_folder: Path, tmp_path: Path) -> None:
    """An ordinary user's, under a policy: it answers for its key, and runs native programs.

    Three clients come at once, each with a megabyte there and back; one has a terminal, where keys
    are signals; one without the key is refused.
    """
    program, port = precompiled_file("sshd"), free_port()
    _make_keys(open_folder, tmp_path, port)
    places = ("/bin", "/usr/bin", "/usr/lib", "/lib", "/lib64")
    native = [place for place in places if Path(place).is_dir()]
    (open_folder / "policy.toml").write_text(SSHD_POLICY.format(exec=native, port=port))
    server = subprocess.Popen(
        ordinary.command(
            [
                *(sys.executable, "-m", "wali_core", "run", "--policy", "policy.toml", program),
                *("-D", "-e", "-r", "-p", str(port), "-f", "/etc/sshd_config"),
            ],
            reads=[ordinary.give(open_folder), program],
        ),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(open_folder)},
        cwd=open_folder,
        stderr=subprocess.PIPE,
    )
    try:
        _connected(port).close()
        data = os.urandom(1 << 20)
        command = [*_ssh(tmp_path, "key", port), "cat; exit 7"]

        def talk(_client: int) -> tuple[int, bool]:
            done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
            return done.returncode, done.stdout == data

        with ThreadPoolExecutor(3) as clients:
            talks = list(clients.map(talk, range(3)))
        at_terminal = _at_a_terminal([*_ssh(tmp_path, "key", port), "-tt", "sh -i"])
        stranger = [*_ssh(tmp_path, "other", port), "true"]
        refused = subprocess.run(stranger, capture_output=True, text=True, timeout=60, check=False)
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
    finally:
        server.kill()
        server.wait()

    assert talks == [(7, True)] * 3, errors
    assert (refused.returncode, refused.stdout) == (255, "")
    assert "Permission denied (publickey" in refused.stderr
    assert at_terminal == (7, ["/dev/pts/0", "24 80", "interrupted 130"])
    assert errors.count(b"Accepted publickey for user") == 4
    assert b"Received signal 15; terminating." in errors


def _at_a_terminal(command: list[str]) -> tuple[int, list[str]]:
    """Type into a shell of the server's from a terminal here: its status, and what it has said."""
    here, there = os.openpty()
    termios.tcsetwinsize(there, (24, 80))
    client = subprocess.Popen(command, stdin=there, stdout=there, stderr=there)
    os.close(there)
    seen, lines = b"", b""

    def expect(text: bytes) -> None:
        nonlocal seen, lines
        while text not in seen:
            assert select.select([here], [], [], 60)[0], lines + seen
            seen += os.read(here, 4096)
        before, found, seen = seen.partition(text)
        lines += before + found

    try:
        os.write(here, b"PS1='ne''xt '; stty -echo; tty; stty size; echo rea''dy; cat\n")
        expect(b"ready\r\n")
        os.write(here, b"\x03")
        expect(b"next ")
        os.write(here, b"echo interrupted $?; exit 7\n")
        expect(b"interrupted 130\r\n")
        status = client.wait(60)
    finally:
        client.kill()
        client.wait()
        os.close(here)
    said = re.findall(rb"/dev/pts/\d+|\d+ \d+|interrupted \d+", lines)
    return status, [word.decode() for word in said]


def _make_keys(server: Path, clients: Path, port: int) -> None:
    """What a server has to know goes into ``etc`` of one folder, the clients' keys into another."""
    etc, user = server / "etc", ordinary.NOBODY if os.geteuid() == 0 else os.geteuid()
    etc.mkdir()
    (server / "home").mkdir()
    (etc / "passwd").write_text(f"user:x:{user}:{user}::/home:/bin/sh\n")
    (etc / "group").write_text(f"user:x:{user}:\n")
    (etc / "sshd_config").write_text(SSHD_CONFIG)
    for path in (etc / "host", clients / "key", clients / "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    shutil.copy(clients / "key.pub", etc / "authorized")
    (clients / "known").write_text(f"[127.0.0.1]:{port} {(etc / 'host.pub').read_text()}")


def _ssh(clients: Path, key: str, port: int) -> list[str]:
    """Return what runs a command there, for who has a key; that is to follow."""
    options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"]
    options += [f"UserKnownHostsFile={clients / 'known'}", f"IdentityFile={clients / key}"]
    words = ["ssh", "-F", "none", "-p", str(port), *(w for o in options for w in ("-o", o))]
    return [*words, "user@127.0.0.1"]


def _set_and_get(port: int, client: int) -> int:
    """Use one connection; how many values came back as they were."""
    connection = _connected(port)
    good = 0
    with connection, connection.makefile("rb") as answers:
        for i in range(1250):
            key, value = f"{client}.{i}".encode(), f"value {i} of {client}".encode()
            connection.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
            stored = answers.readline()
            connection.sendall(b"get %s\r\n" % key)
            got = [answers.readline() for _ in range(3)]
            good += (stored, got[1], got[2]) == (b"STORED\r\n", value + b"\r\n", b"END\r\n")
    return good


def _connected(port: int) -> socket.socket:
    """Connect as soon as somebody listens."""
    ends = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            if time.monotonic() > ends:
                raise
            select.select([], [], [], 0.05)
