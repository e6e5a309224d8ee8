"""The processes behind a program: the launcher, the supervisor; what they share and survive."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capabilities import Policy
from capabilities.lockdown import privileges, view
from tests.wali import building
from wali_core import GuestError, Runtime
from wali_core.processes import _process, _supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wali_core import CompletedGuest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 10.0  # seconds, for what takes milliseconds


def launcher_of(runtime: Runtime) -> int:
    """Return the process number of a runtime's launcher."""
    assert runtime._launcher is not None
    return runtime._launcher._pid


def parent_of(pid: int) -> int:
    """Return the process number of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_stopped(pid: int) -> bool:
    """Wait for a process to stop, which nobody but its parent is told, and say whether it has."""
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        if time.monotonic() > end:
            return False
        os.sched_yield()
    return True


def children_of(pid: int) -> list[int]:
    """Return the children of a process that has one thread."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    """Wait for a process that is nobody's child here, and say whether it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], PATIENCE)[0])
    finally:
        os.close(pidfd)


def attempted(runtime: Runtime, *words: str) -> list[str]:
    """Have a program attempt things, and return the lines that it prints."""
    result = runtime.run_sync(building.program("attempt"), args=words, capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")
    return (result.stdout or b"").decode().splitlines()


class Run:
    """A program that runs on a thread, from when it has printed its first line."""

    def __init__(self, runtime: Runtime, *args: str) -> None:
        self._reader, writer = os.pipe()
        self.stdin, self._feed = os.pipe()
        self.result: CompletedGuest | None = None
        self.error: BaseException | None = None

        def run() -> None:
            try:
                self.result = runtime.run_sync(
                    building.program("processes"), args=args, stdin=self.stdin, stdout=writer
                )
            except GuestError as error:
                self.error = error
            finally:
                os.close(writer)

        # A daemon: where a test has failed, nobody ends the program, and the thread goes on.
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def lines(self, count: int) -> list[int]:
        """Wait for so many numbers that it prints."""
        found: list[int] = []
        while len(found) < count:
            found += map(int, os.read(self._reader, 100).split())
        return found

    def finish(self) -> None:
        """End its input, and wait for it."""
        os.close(self._feed)
        self._thread.join()
        os.close(self.stdin)
        os.close(self._reader)


# --- what goes over -------------------------------------------------------------------------------


def test_the_caller_is_as_he_is_now(
    free: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folder and umask are those of the call, whatever they were when the launcher was made."""
    found = []
    for name, mask in (("one", 0o77), ("two", 0o22)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("x")
        monkeypatch.chdir(folder)
        before = os.umask(mask)
        try:
            found.append(attempted(free, "umask", "", "read", name, "create", "new"))
        finally:
            os.umask(before)

    assert found == [["63", "1", "0"], ["18", "1", "0"]]
    assert (tmp_path / "two" / "new").exists()


CLOSED = """
import os, sys
from wali_core import Runtime
number = int(sys.argv[3])
os.close(number)
with Runtime(allow_all=True, cache=sys.argv[2]) as runtime:
    for _ in range(2):
        result = runtime.run_sync(sys.argv[1], args=["is open", str(number), "is open", "1"],
                                  stdout=(2 if number != 2 else 1))
        assert result.returncode == 0
"""


@pytest.mark.parametrize(("number", "said"), [(0, "-9\n0\n"), (2, "-9\n0\n")])
def test_closed_streams_are_closed(number: int, said: str, cache_folder: Path) -> None:
    """What the caller has closed is not there, and no other descriptor takes its place."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, building.program("attempt"), cache_folder, str(number)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, said * 2)


@pytest.mark.skipif(
    view.probe() != "", reason="no namespace here: PRIVILEGES IN A VIEW ARE NOT TESTED"
)
@pytest.mark.parametrize("lockdown", ["required", "off"])
def test_privileges_stay_here(lockdown: str, cache_folder: Path) -> None:
    """A confined program has of root's what is about files, in no set more; so have children."""
    kept = sum(1 << number for number in privileges.OF_FILES) if os.geteuid() == 0 else 0
    sets = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")
    groups = ["@default", "@basic-io", "@process", "@ipc", "@signal", "fork", "wait4"]
    tables = {"lockdown": lockdown, "view": "required", "syscalls": {"allow": groups}}
    policy = Policy.from_dict({"version": 1, **tables}, "/")
    with Runtime(cache=cache_folder, policy=policy) as runtime:
        run = Run(runtime, "reading")
        found = []
        for pid in run.lines(2):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = dict(line.split(":\t") for line in lines)
            found.append([int(status[name], 16) for name in sets])
            filtered = "2" if lockdown == "required" else "0"
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", filtered)
        run.finish()

    assert found == [[kept, kept, kept, 0, 0]] * 2


def test_descriptors_stay_here(free: Runtime, tmp_path: Path) -> None:
    """Not even those that may be inherited go over: to the launcher, or to the programs."""
    with (tmp_path / "secret").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        run = Run(free, "reading")
        pids = run.lines(2)
        held = {
            os.readlink(entry)
            for pid in (launcher_of(free), parent_of(pids[0]), *pids)
            for entry in Path(f"/proc/{pid}/fd").iterdir()
        }
        run.finish()

    assert not any("secret" in name for name in held)


def test_what_is_the_runtimes_own_stays_as_it_is(runtime: Runtime) -> None:
    """A program that procfs is granted finds the descriptors of its process there.

    Compiled code cannot be written to, and what is said by being closed is no pipe, which could be
    opened once more.
    """
    result = runtime.run_sync(
        building.program("reopen"), dirs={"/proc": ("/proc", "rw")}, capture_output=True
    )

    assert (result.returncode, result.stdout) == (0, b"change what is there: -1\n")


def test_signals_are_as_a_program_finds_them(free: Runtime) -> None:
    """None is blocked or ignored, whatever is here; handled are WebAssembly's traps."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        run = Run(free, "reading")
        pid = run.lines(2)[0]
        status = Path(f"/proc/{pid}/status").read_text()
        run.finish()
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])

    masks = {name: int(mask, 16) for name, mask in re.findall(r"(Sig\w+):\t([0-9a-f]+)\n", status)}
    faults = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
    own = 1 << 31 | 1 << 32  # glibc's: its posix_spawn leaves them ignored
    assert (masks["SigBlk"], masks["SigIgn"] & ~own) == (0, 0)
    assert masks["SigCgt"] & ~sum(1 << number - 1 for number in faults) == 0


# --- what may happen to them ----------------------------------------------------------------------


def test_a_killed_launcher_is_replaced(free: Runtime) -> None:
    """The next program has a new one."""
    assert attempted(free, "pid", "") == ["1"]
    first = launcher_of(free)
    os.kill(first, signal.SIGKILL)
    assert is_gone(first)

    assert attempted(free, "pid", "") == ["1"]
    assert launcher_of(free) != first


def test_programs_outlive_their_launcher(free: Runtime) -> None:
    """One that is running goes on, and ends as it would."""
    run = Run(free, "reading")
    pids = run.lines(2)
    os.kill(launcher_of(free), signal.SIGKILL)
    os.kill(pids[0], signal.SIGTERM)
    run.finish()

    assert run.result is not None
    assert run.result.returncode == -signal.SIGTERM
    assert [is_gone(pid) for pid in pids] == [True, True]


def test_nothing_outlives_its_supervisor(free: Runtime) -> None:
    """One that is killed has failed: the launcher ends what it has left, in other sessions too."""
    run = Run(free, "fleeing")
    pids = run.lines(2)
    supervisor = parent_of(pids[1])  # the program speaks last
    assert parent_of(supervisor) == launcher_of(free)
    os.kill(supervisor, signal.SIGKILL)
    run.finish()

    assert isinstance(run.error, GuestError)
    assert "was lost" in str(run.error)
    assert [is_gone(pid) for pid in pids] == [True, True]
    assert attempted(free, "pid", "") == ["1"]
    assert not set(children_of(launcher_of(free))) & set(pids)


def test_closing_disturbs_nobody(cache_folder: Path) -> None:
    """A program that runs when its runtime is closed goes on; the launcher ends after it."""
    runtime = Runtime(allow_all=True, cache=cache_folder)
    run = Run(runtime, "reading")
    pids = run.lines(2)
    launcher = launcher_of(runtime)

    runtime.close()
    assert [parent_of(pid) > 0 for pid in pids] == [True, True]
    os.kill(pids[0], signal.SIGTERM)
    run.finish()

    assert run.result is not None
    assert run.result.returncode == -signal.SIGTERM
    assert is_gone(launcher)
    with pytest.raises(ChildProcessError):
        os.waitpid(launcher, os.WNOHANG)


FORKED = """
import os, sys
from wali_core import Runtime
with Runtime(cache=sys.argv[2]) as runtime:
    def run():
        return runtime.run_sync(sys.argv[1]).returncode
    print(run(), flush=True)
    child = os.fork()
    if child == 0:
        print(run(), flush=True)
        runtime.close()
        os._exit(7)
    print(run(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), run(), flush=True)
"""


def test_embedders_that_fork(cache_folder: Path) -> None:
    """Each has a launcher of its own; neither ends the other's."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED, building.program("odd", "RESULT"), cache_folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["41", "41", "41 7 41"]


FORGETFUL = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from wali_core import run_sync
for _ in range(2):
    print(run_sync(sys.argv[1], cache=sys.argv[2]).returncode)
"""


def test_embedders_that_ignore_their_children(cache_folder: Path) -> None:
    """Where the kernel reaps, statuses arrive all the same."""
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL, building.program("odd", "RESULT"), cache_folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "41\n41\n", "")


def test_what_cannot_be_started(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an interpreter there is no process: it is said, and nothing is left."""
    program = building.program("odd")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        Runtime(cache=cache_folder) as runtime,
        pytest.raises(GuestError, match=r"was lost|/bin/false: no process can be started"),
    ):
        runtime.run_sync(program)


SEARCH = """
import os, subprocess, sys
from wali_core.processes import _supervisor
sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
sleepers[0].kill()
assert sorted(p.pid for p in sleepers) == sorted(_supervisor.children())
assert sorted(_supervisor.children()) == sorted(_supervisor.children_by_search())
_supervisor.end_descendants(but=[sleepers[1].pid])
assert _supervisor.children() == [sleepers[1].pid]
_supervisor.end_descendants()
assert _supervisor.children() == _supervisor.children_by_search() == []
os._exit(0)
"""


def test_children_are_found() -> None:
    """By the kernel's list, and by a search where it has none: the dead are among them."""
    subprocess.run(
        [sys.executable, "-c", SEARCH],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )


def test_reports_say_what_wait_says() -> None:
    """A status and a usage arrive as they were."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    words = " ".join(map(repr, (0x200, *usage))).encode()

    assert _supervisor.report_of(words) == (0x200, usage)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"x", b"\xff", b"[]", b"{}", b"7", b"[" * 100_000, b'{"kind": "GuestTrap"}'),
        b'{"kind": "", "message": "", "filename": "", "errno": 1e999}',
        b'{"kind": "GuestTrap", "message": "", "frames": 7}',
    ],
)
def test_answers_that_say_nothing(answer: bytes) -> None:
    """The program may have had its hands on what its process answers with: it is an error."""
    error = _process._error(answer)

    assert isinstance(error, GuestError)
    assert "left an answer that cannot be read" in str(error)


# --- at a terminal --------------------------------------------------------------------------------

SHELL = """
import os, signal, sys
terminal = os.open(sys.argv[1], os.O_RDWR)  # which is this session's from here on
for number in range(3):
    os.dup2(terminal, number)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.posix_spawn(sys.executable, [sys.executable, "-c", *sys.argv[2:]], os.environ,
                     setpgroup=0, setsigdef=[signal.SIGTTOU])
os.tcsetpgrp(0, job)
while True:
    status = os.waitpid(job, os.WUNTRACED)[1]
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, os.getpgrp())
    print("stopped by", os.WSTOPSIG(status), flush=True)
    input()
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
    print("continued", flush=True)
print("status", os.waitstatus_to_exitcode(status), flush=True)
os.read(0, 100)
"""
JOB = """
import sys
from wali_core import Runtime
with Runtime(allow_all=True, cache=sys.argv[2]) as runtime:
    try:
        result = runtime.run_sync(sys.argv[1], args=sys.argv[3:])
        print("returned", result.returncode, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


class Terminal:
    """A terminal, a shell that knows of jobs, and a job that runs a program."""

    def __init__(self, cache_folder: Path) -> None:
        self._cache = str(cache_folder)
        self._master, self._slave = self._ends = list(os.openpty())
        self._shell: subprocess.Popen[bytes] | None = None
        self.seen = ""

    def start(self, program: str, *args: str) -> None:
        """Start the job."""
        words = [os.ttyname(self._slave), JOB, str(building.program(program)), self._cache, *args]
        self._shell = subprocess.Popen(
            [sys.executable, "-c", SHELL, *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for words to be shown."""
        while (found := re.search(pattern, self.seen)) is None:
            ready = select.select([self._master], [], [], PATIENCE)[0]
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self._master, 1000).decode()
        self.seen = self.seen[found.end() :]
        return found

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def close(self) -> None:
        """Hang up."""
        while self._ends:
            os.close(self._ends.pop())
        if self._shell is not None:
            self._shell.wait(PATIENCE)


@pytest.fixture
def terminal(cache_folder: Path) -> Iterator[Terminal]:
    """Return a terminal without a job."""
    made = Terminal(cache_folder)
    yield made
    made.close()


def test_terminals_can_be_read(terminal: Terminal) -> None:
    """A program in the foreground gets what is typed."""
    terminal.start("attempt", "read", "/dev/stdin", "read", "/dev/tty")
    terminal.type("x\ny\n")

    terminal.until(r"1\r\n1\r\nreturned 0")
    terminal.until("status 0")


def test_interrupt_key(terminal: Terminal) -> None:
    """Ctrl-C ends the program and all of its, and is KeyboardInterrupt for who has started it."""
    terminal.start("processes", "fleeing")
    pids = [int(terminal.until(r"(\d+)\r\n")[1]) for _ in range(2)]
    terminal.type("\x03")

    terminal.until("interrupted")
    terminal.until("status 0")
    assert [is_gone(pid) for pid in pids] == [True, True]


def test_suspend_key(terminal: Terminal) -> None:
    """Ctrl-Z stops the job, the program with it; in the foreground again it goes on."""
    terminal.start("processes", "sleeping")
    numbers = terminal.until(r"(\d+) (\d+)\r\n")
    terminal.type("\x1a")

    terminal.until(f"stopped by {int(signal.SIGTSTP)}")
    assert [is_stopped(int(pid)) for pid in numbers.groups()] == [True, True]
    terminal.type("\n")
    terminal.until("continued")
    terminal.type("\x03")

    terminal.until("interrupted")


def test_hanging_up_ends_it(terminal: Terminal) -> None:
    """A terminal that is gone ends the job, and so the program."""
    terminal.start("processes", "fleeing")
    pids = [int(terminal.until(r"(\d+)\r\n")[1]) for _ in range(2)]
    terminal.close()

    assert [is_gone(pid) for pid in pids] == [True, True]
