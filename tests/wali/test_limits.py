"""What a WALI program may use up: each limit holds it and what it forks, and nobody else."""

from __future__ import annotations

import resource
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from capabilities import Filesystem, Grant, Limits, Policy, Syscalls
from tests.held import open_descriptors, settled_descriptors
from tests.wali import building
from wali_core import GuestLimit, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Wali = Callable[..., subprocess.CompletedProcess[str]]

PAGE = 4096
FORKS = Syscalls(allow=["@default", "@basic-io", "@file-system", "@ipc", "@process"])


@pytest.fixture
def under(wali: Wali, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the greedy program under some limits, by the command."""

    def run(
        limits: Limits, *words: str | int, **options: object
    ) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "limits.toml"
        file.write_text(Policy(limits=limits, syscalls=FORKS).show())
        return wali("--policy", file, building.program("greedy"), *map(str, words), **options)

    return run


@pytest.fixture
def from_python(cache_folder: Path) -> Callable[..., bytes]:
    """Return a function that runs it under some limits, from Python: what it printed."""

    def run(limits: Limits, *words: str | int, **options: object) -> bytes:
        policy = Policy(limits=limits, syscalls=FORKS)
        with Runtime(policy=policy, cache=cache_folder) as runtime:
            done = runtime.run_sync(
                building.program("greedy"),
                args=[*map(str, words)],
                **options,  # type: ignore[arg-type]
            )
        return done.stdout or b""

    return run


# --- computing time -------------------------------------------------------------------------------


def test_computing_ends(under: Wali) -> None:
    """The command says why, with the status of a process that had SIGXCPU."""
    done = under(Limits(cpu_time=0.2), "spin")

    assert done.returncode == 128 + signal.SIGXCPU
    assert done.stderr == "wali: the guest has computed for its 0.2 s (limits.cpu_time)\n"


def test_computing_ends_from_python(from_python: Callable[..., bytes]) -> None:
    """It is an error that names the limit; what was printed until then goes along."""
    with pytest.raises(GuestLimit, match=r"the guest has computed for its 0\.2 s") as caught:
        from_python(Limits(cpu_time=0.2), "spin", capture_output=True)

    assert caught.value.limit == "cpu_time"
    assert caught.value.stdout == b""


def test_computing_ends_in_children(under: Wali) -> None:
    """What it forks is ended by the kernel; the program goes on."""
    done = under(Limits(cpu_time=0.1), "spin in a child")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"status: {int(signal.SIGXCPU)}\n"


# --- output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "stream"), [("write", "stdout"), ("write vectors", "stderr")])
def test_output_ends(under: Wali, way: str, stream: str) -> None:
    """Up to the limit all arrives; the call that would go beyond is not made."""
    limits = Limits(output=10 * PAGE)

    enough, too_much = under(limits, way, 10), under(limits, way, 11)

    assert (enough.returncode, len(getattr(enough, stream))) == (0, 10 * PAGE)
    assert too_much.returncode == 128 + signal.SIGXFSZ
    message = f"wali: the guest wrote more output than its {10 * PAGE} bytes (limits.output)\n"
    assert too_much.stderr.endswith(message)
    assert len(too_much.stdout + too_much.stderr) == 10 * PAGE + len(message)


def test_each_stream_has_the_limit(under: Wali) -> None:
    """Standard output does not take from standard error, unless they are one file."""
    apart = under(Limits(output=10 * PAGE), "write vectors", 10)
    together = under(
        Limits(output=10 * PAGE),
        "write vectors",
        10,
        capture_output=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    assert (apart.returncode, together.returncode) == (0, 0)


def test_output_of_all_processes_counts(under: Wali) -> None:
    """What it forks writes on the same account, through whatever descriptor."""
    enough = under(Limits(output=12 * PAGE), "write by children", 4)
    too_much = under(Limits(output=12 * PAGE - 1), "write by children", 4)

    assert (enough.returncode, len(enough.stdout)) == (0, 12 * PAGE)
    assert (too_much.returncode, len(too_much.stdout)) == (9, 11 * PAGE)
    assert "the guest wrote more output" in too_much.stderr


@pytest.mark.parametrize("how", ["captured", "passed on"])
def test_output_ends_from_python(
    how: str, from_python: Callable[..., bytes], tmp_path: Path
) -> None:
    """Whether it is captured or goes to a file, there is no more of it."""
    limits, path = Limits(output=10 * PAGE), tmp_path / "out"
    with path.open("wb") as file:
        options = {"capture_output": True} if how == "captured" else {"stdout": file}

        from_python(limits, "write", 10, **options)
        file.truncate(0)
        file.seek(0)
        with pytest.raises(GuestLimit) as caught:
            from_python(limits, "write", 11, **options)

    assert caught.value.limit == "output"
    assert (len(caught.value.stdout or b"") or path.stat().st_size) == 10 * PAGE


@pytest.mark.parametrize("way", ["send", "copy"])
@pytest.mark.parametrize("at_once", [PAGE, 1 << 30])
def test_output_that_the_kernel_moves_counts(
    way: str, at_once: int, under: Wali, tmp_path: Path
) -> None:
    """From a file, of which more than there is may be asked for."""
    sizes = {}
    for pages in (10, 11):
        (tmp_path / "in").write_bytes(bytes(pages * PAGE))
        with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as file:
            options = {"capture_output": False, "stdin": given, "stdout": file}
            done = under(Limits(output=10 * PAGE), way, at_once, stderr=subprocess.PIPE, **options)
        sizes[pages] = done.returncode, (tmp_path / "out").stat().st_size

    all_or_none = 10 * PAGE if at_once == PAGE else 0
    assert sizes == {10: (0, 10 * PAGE), 11: (128 + signal.SIGXFSZ, all_or_none)}


def test_output_without_an_end_is_not_begun(under: Wali) -> None:
    """A device that the kernel would read from for as long as is asked."""
    with open("/dev/zero", "rb") as zero:
        done = under(Limits(output=10 * PAGE), "send", 1 << 20, stdin=zero)

    assert (done.returncode, done.stdout) in ((128 + signal.SIGXFSZ, ""), (1, ""))


def test_other_files_do_not_count(under: Wali, box: Path, tmp_path: Path) -> None:
    """What is written elsewhere is no output; what else is appended to the same file is."""
    limits = Limits(output=2 * PAGE)
    with (tmp_path / "out").open("wb") as file:
        done = under(limits, "write", 2, capture_output=False, stdout=file, stderr=file)

    assert done.returncode == 0
    assert (tmp_path / "out").stat().st_size == 2 * PAGE
    assert list(box.iterdir()) == []


# --- descriptors, processes, memory ---------------------------------------------------------------

WANTED = "wali: the guest wanted more than its {} (limits.{})\n"


def ended(done: subprocess.CompletedProcess[str], what: str, limit: str) -> bool:
    """Return whether a program was ended by a limit, which the command says."""
    killed = 128 + signal.SIGKILL
    return (done.returncode, done.stderr) == (killed, WANTED.format(what, limit))


@pytest.mark.parametrize("count", [6, 20, 100])
def test_descriptors(under: Wali, count: int) -> None:
    """So many it may have; a place that is free again can be had again, one more is the end."""
    enough = under(Limits(open_files=count), "descriptors", count - 3)
    too_many = under(Limits(open_files=count), "descriptors", count - 2)

    assert (enough.returncode, enough.stdout) == (0, f"{count - 3}\nagain: 5\nbeyond: -9\n")
    assert ended(too_many, f"{count} descriptors", "open_files")
    assert too_many.stdout == ""


@pytest.mark.parametrize("most", [3, 4, 40])
def test_processes(under: Wali, most: int) -> None:
    """All that it forks, and they fork, is counted; what has ended is not."""
    enough = under(Limits(processes=most), "fork", most - 1)
    too_many = under(Limits(processes=most), "fork", most)

    assert (enough.returncode, enough.stderr) == (0, "")
    assert enough.stdout == f"{most - 1} 0\ninside 0\nafter: 0\n"
    assert ended(too_many, f"{most} processes and threads", "processes")


def test_processes_of_processes(under: Wali) -> None:
    """It is the one that wants one more that is ended."""
    done = under(Limits(processes=2), "fork", 1)

    assert (done.returncode, done.stdout) == (0, f"1 0\nafter: {(128 + signal.SIGKILL) << 8}\n")
    assert done.stderr == WANTED.format("2 processes and threads", "processes")


def test_processes_are_counted_from_python(from_python: Callable[..., bytes]) -> None:
    """In the process of `run_sync` as well."""
    done = from_python(Limits(processes=3), "fork", 2, capture_output=True)
    with pytest.raises(GuestLimit) as caught:
        from_python(Limits(processes=3), "fork", 3, capture_output=True)

    assert done == b"2 0\ninside 0\nafter: 0\n"
    assert caught.value.limit == "processes"


def test_killed_processes_give_back_their_place(cache_folder: Path) -> None:
    """Runs that follow each other do not count the processes of those before."""
    policy = Policy(limits=Limits(processes=3), syscalls=FORKS)
    with Runtime(policy=policy, cache=cache_folder) as runtime:
        for _ in range(3):
            with pytest.raises(GuestLimit, match="3 processes"):
                runtime.run_sync(building.program("greedy"), args=["fork", "3"])
            done = runtime.run_sync(
                building.program("greedy"), args=["fork", "2"], capture_output=True
            )
            assert (done.stdout or b"").startswith(b"2 0\n")


THREAD = """
#include "thread.h"
static void nothing(long n) { (void)n; }
int main(int argc, char **argv) {
    (void)argv;
    if (begin(0, nothing, argc) >= 0)
        join(0);
    return 0;
}
"""


@pytest.mark.parametrize(
    ("limit", "what"),
    [("processes", "1 processes and threads"), ("threads", "1 threads in a process")],
)
def test_a_thread(wali: Wali, tmp_path: Path, limit: str, what: str) -> None:
    """Threads have a limit of their own, and are counted with the processes."""
    source, policy = tmp_path / "one_thread.c", tmp_path / "p.toml"
    source.write_text(THREAD)
    done = []
    for most in (1, 2):
        policy.write_text(Policy(limits=Limits(**{limit: most})).show())
        done.append(wali("--policy", policy, building.program(source, "STACKS=2")))

    assert ended(done[0], what, limit)
    assert (done[1].returncode, done[1].stderr) == (0, "")


THREADS = """
#include "thread.h"
static volatile int go;
static void wait_for(long n) {
    (void)n;
    while (!go)
        SYS_futex((void *)&go, FUTEX_WAIT, 0, NULL, NULL, 0);
}
static void let_go(int count) {
    go = 1;
    SYS_futex((void *)&go, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
    for (int i = 0; i < count; i++)
        join(i);
}
int main(int argc, char **argv) {
    int count = argc > 1 ? (int)number(argv[1]) : 0, status;
    for (int i = 0; i < count; i++)
        begin(i, wait_for, 0);
    say("%d\\n", count);
    let_go(count);
    if (SYS_fork() == 0) { /* a child has as many again */
        go = 0;
        for (int i = 0; i < count; i++)
            begin(i, wait_for, 0);
        say("%d\\n", count);
        let_go(count);
        leave(0);
    }
    SYS_wait4(-1, &status, 0, NULL);
    return 0;
}
"""


def test_threads(cache_folder: Path, tmp_path: Path) -> None:
    """So many at a time in each process: who has ended leaves a place; one more is the end."""
    source = tmp_path / "many_threads.c"
    source.write_text(THREADS)
    program = building.program(source)
    policy = Policy(limits=Limits(threads=5), syscalls=FORKS)
    with Runtime(policy=policy, cache=cache_folder) as runtime:
        done = runtime.run_sync(program, args=["4"], capture_output=True)
        assert (done.returncode, done.stdout) == (0, b"4\n4\n")
        for words in (["5"], ["9"]):
            with pytest.raises(GuestLimit, match="more than its 5 threads in a") as caught:
                runtime.run_sync(program, args=words)
            assert caught.value.limit == "threads"


def test_procfs_does_not_undo_it(wali: Wali, tmp_path: Path) -> None:
    """What holds the places is open in the process, and nobody can open and close it again."""
    policy = tmp_path / "p.toml"
    files = Filesystem(read_only=(Grant("/proc", "/proc"),))
    policy.write_text(Policy(filesystem=files, limits=Limits(processes=3), syscalls=FORKS).show())

    done = wali("--policy", policy, building.program("greedy"), "reopen and fork", "3")

    assert done.stdout.startswith("reopened ")
    assert int(done.stdout.split()[1]) > 0
    assert ended(done, "3 processes and threads", "processes")


def test_memory(under: Wali) -> None:
    """Its memory is shared, and bounded all the same."""
    limits = Limits(memory=4 << 20)

    assert under(limits, "map", 512).stdout == "mapped: 0\n"
    assert ended(under(limits, "map", 1024), f"{4 << 20} bytes of memory", "memory")


def test_memory_that_it_starts_with(under: Wali, from_python: Callable[..., bytes]) -> None:
    """One that starts with more than it may have is not started, by the same limit."""
    limits = Limits(memory=1 << 16)

    done = under(limits, "map", 1)
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr.endswith("bytes of memory to start, and may have 65536 (limits.memory)\n")
    with pytest.raises(GuestLimit, match=r"needs \d+ bytes of memory to start") as caught:
        from_python(limits, "map", 1)
    assert caught.value.limit == "memory"


def test_memory_that_nobody_limits(under: Wali) -> None:
    """Without a limit what a module says of its own memory is answered by errors."""
    assert under(Limits(), "map", 1 << 19).stdout == "mapped: -12\n"


# --- the host -------------------------------------------------------------------------------------


def test_limits_are_not_the_embedders(from_python: Callable[..., bytes]) -> None:
    """Nothing of it stays in the process that ran it."""
    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    before = [resource.getrlimit(kind) for kind in kinds], settled_descriptors()

    with pytest.raises(GuestLimit):
        from_python(
            Limits(cpu_time=0.1, open_files=8, processes=2, output=PAGE),
            "spin",
            capture_output=True,
        )

    after = [resource.getrlimit(kind) for kind in kinds], open_descriptors()
    assert after == before


def test_trusted_programs_here_are_limited_too(cache_folder: Path, tmp_path: Path) -> None:
    """In the embedder's process: computing time, output, descriptors."""
    limits = Limits(cpu_time=0.1, output=PAGE, open_files=8)
    with Runtime(policy=Policy(limits=limits), cache=cache_folder) as runtime:
        program = building.program("greedy")
        with pytest.raises(GuestLimit, match="computed"):
            runtime.run_sync(program, args=["spin"], isolation="shared")
        with (tmp_path / "out").open("wb") as file, pytest.raises(GuestLimit, match="output"):
            runtime.run_sync(program, args=["write", "2"], isolation="shared", stdout=file)
        with pytest.raises(GuestLimit, match="8 descriptors"):
            runtime.run_sync(program, args=["descriptors", "6"], isolation="shared")

    assert (tmp_path / "out").stat().st_size == PAGE
