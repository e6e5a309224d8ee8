"""What a policy is said to decide is what happens: any policy, any request, both kinds of guest.

Policies and requests are drawn at random. Each request is made for real, by a guest that is started
under the policy, and what it is answered is compared with what `Policy.decide` says. A few are
drawn, always the same; with `WALI_AGREEMENT=2000` that many policies for each kind, new ones each
time (`--hypothesis-seed` repeats a run).
"""

from __future__ import annotations

import errno
import faulthandler
import itertools
import os
import shutil
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capabilities import Policy, PolicyError
from capabilities.lockdown import landlock, view
from tests.wali import building
from wali_core import PolicyError as Refused
from wali_core import Runtime
from wali_core._bridge import core
from wali_core.native import compile as compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

VARIABLE = "WALI_AGREEMENT"
EXAMPLES = {"wali": 20, "wasi": 40}
SETTINGS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(hypothesis.HealthCheck),
    # Every example starts a process: what disagrees is said as it is, with its policy.
    "phases": (hypothesis.Phase.generate,),
    "report_multiple_bugs": False,
}
CATALOGUE = core.catalogue()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        landlock.abi_version() < landlock.FEATURES["signals"] or view.probe() != "",
        reason="no namespaces here, or Landlock is missing or too old: AGREEMENT IS NOT TESTED",
    ),
]

# --- policies -------------------------------------------------------------------------------------

FOLDERS = ("", "a", "a/a", "a/a/b", "a/b", "b", "b/a")
ELSEWHERE = "/granted"  # where a guest finds the trees that are renamed
GROUPS = sorted({group for group in CATALOGUE.values() if group != "@mount"})
NAMED = (
    *("open", "openat", "read", "stat", "mkdir", "unlink", "rename", "chmod", "utimensat"),
    *("truncate", "chdir", "access", "socket", "connect", "bind", "listen", "fork", "execve"),
    *("wait4", "getpid", "getrandom", "mmap", "poll", "umask", "getcwd", "setrlimit"),
)
# What every guest needs to tell how it fared.
SPOKEN = ("write", "writev", "@basic-io")

folders = st.sampled_from(FOLDERS)
kinds = st.sampled_from(("read_only", "read_only", "read_write", "read_write", "exec"))
ports = st.integers(0, 2)  # indexes of those that there are
entries = st.sampled_from((*GROUPS, *NAMED))


def lies_in(path: str, tree: str) -> bool:
    """Return whether a folder lies in another: relative paths, the empty one is the root."""
    return tree in ("", path) or path.startswith(f"{tree}/")


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a policy as TOML data, with the tree's folders and indexes of ports in it."""
    trees = draw(st.dictionaries(folders, kinds, max_size=4))
    writable = [folder for folder, kind in trees.items() if kind == "read_write"]
    narrowing = [
        folder
        for folder, kind in trees.items()
        if kind == "read_only" and any(lies_in(folder, tree) for tree in writable)
    ]
    for folder in narrowing:
        trees[folder] = "read_write"
    denied = draw(st.lists(folders, max_size=1))
    mode, seen = draw(
        st.sampled_from(
            [
                *(("required", "required"), ("best-effort", "auto"), ("off", "required")),
                *(("required", "off"), ("best-effort", "off"), ("off", "off")),
            ]
        )
    )
    syscalls: dict[str, Any] = {"deny": draw(st.lists(entries, max_size=2))}
    if draw(st.booleans()):
        syscalls["allow"] = [*draw(st.lists(entries, max_size=8)), *SPOKEN]
    syscalls["on_deny"] = draw(st.sampled_from(["EPERM", "EACCES", "ENOSYS"]))
    syscalls["deny"] = [entry for entry in syscalls["deny"] if entry not in SPOKEN]
    return {
        "version": 1,
        "lockdown": mode,
        "view": seen,
        "places": _places(draw, trees) if seen == "required" and draw(st.booleans()) else None,
        "cwd": draw(st.sampled_from([None, *trees])),
        "trees": trees,
        "denied": [
            folder
            for folder in denied
            if not any(lies_in(folder, tree) or lies_in(tree, folder) for tree in trees)
        ],
        "devices": draw(st.lists(st.sampled_from(["null", "zero"]), max_size=1)),
        "network": {
            "connect": draw(st.lists(ports, max_size=2)),
            "listen": draw(st.lists(ports, max_size=2)),
            "unix": draw(st.lists(ports, max_size=2)) if "off" not in (mode, seen) else [],
        },
        "syscalls": syscalls,
    }


def _places(draw: st.DrawFn, trees: Mapping[str, str]) -> dict[str, str]:
    """Draw where a guest finds the trees: as they lie, or each anywhere else."""
    if draw(st.booleans()):
        return {folder: folder for folder in trees}
    places = st.lists(folders, min_size=len(trees), max_size=len(trees), unique=True)
    return dict(zip(trees, draw(places), strict=True))


def join(*parts: str) -> str:
    """Join paths, of which some may be empty."""
    return "/".join(filter(None, parts))


# --- requests -------------------------------------------------------------------------------------


@attrs.frozen
class Ask:
    """Something that a guest attempts, and the requests that all have to be granted for it.

    Attributes:
        what: the word that the guest knows it by.
        needs: the requests, with `{}` for the path, `{to}` for a second one, or the port.
        kind: what it names: `file`, `program` and `folder` are there, `new` is not; `device`,
            `port`, `socket`; or nothing.
        passes: errors that are the answer to a request that was let through.
        looks: it only finds out what is there, which Landlock does not hold.
    """

    what: str
    needs: tuple[str, ...]
    kind: str = ""
    passes: tuple[int, ...] = ()
    looks: bool = False


OF_WALI = (
    Ask("read", ("open {} read", "read"), "file"),
    Ask("open to write", ("open {} write",), "file"),
    Ask("open as a path", ("open {} look",), "file", looks=True),
    Ask("create", ("open {} make",), "new"),
    Ask("truncate", ("truncate {}",), "file"),
    Ask("mkdir", ("mkdir {}",), "new"),
    Ask("unlink", ("unlink {}",), "file"),
    Ask("rename", ("rename {} {to}",), "file"),
    Ask("stat", ("stat {}",), "file", looks=True),
    Ask("stat", ("stat {}",), "folder", looks=True),
    Ask("chdir", ("chdir {}",), "folder", looks=True),
    Ask("access", ("access {}",), "file", looks=True),
    Ask("list", ("open {} read", "getdents64"), "folder"),
    Ask("chmod", ("chmod {}",), "file"),
    Ask("set times", ("utimensat {}",), "file"),
    Ask("map a file", ("open {} read", "mmap"), "file"),
    Ask("execute", ("execve {}", "fork", "wait4"), "program"),
    Ask("connect", ("socket tcp", "connect tcp://*:{}"), "port"),
    Ask("listen", ("socket tcp", "bind tcp://*:{}", "listen tcp://*:{}"), "port"),
    Ask("listen unbound", ("socket tcp", "listen")),
    Ask("datagrams", ("socket udp",)),
    Ask("unix", ("socket unix",)),
    Ask("connect by path", ("socket unix", "connect unix://{}"), "socket"),
    Ask("read", ("open {} read", "read"), "device"),
    Ask("open to write", ("open {} write",), "device"),
    Ask("set times", ("utimensat {}",), "device"),
    Ask("fork", ("fork", "wait4")),
    Ask("pid", ("getpid",)),
    Ask("random", ("getrandom",)),
    Ask("clock", ("clock_gettime",)),
    Ask("poll", ("poll",)),
    Ask("umask", ("umask",)),
    Ask("getcwd", ("getcwd",), passes=(errno.ENOENT,)),
    Ask("no cores", ("setrlimit",)),
    Ask("protect", ("mmap", "mprotect")),
    Ask("wait", ("wait4",), passes=(errno.ECHILD,)),
)
OF_WASI = (
    Ask("read", ("path_open {} read",), "file"),
    Ask("write", ("path_open {} write",), "file"),
    Ask("create", ("path_open {} make",), "new"),
    Ask("mkdir", ("path_create_directory {}",), "new"),
    Ask("unlink", ("path_unlink_file {}",), "file"),
    Ask("rename", ("path_rename {} {to}",), "file"),
    Ask("stat", ("path_filestat_get {}",), "file"),
    Ask("stat", ("path_filestat_get {}",), "folder"),
    Ask("list", ("path_open {} read",), "folder"),
)


def requests(asks: Sequence[Ask]) -> st.SearchStrategy[list[tuple[Ask, str, int]]]:
    """Draw things to attempt, each in a folder and with the index of a port."""
    return st.lists(st.tuples(st.sampled_from(asks), folders, ports), min_size=20, max_size=50)


NOTHING = """
#include "wali.h"
int main(int argc, char **argv) { return (void)argv, argc < 0; }
"""


# --- worlds ---------------------------------------------------------------------------------------


class World:
    """A tree of folders, in which every attempt has files of its own, and ports."""

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder, self._program, self._count = folder, program, itertools.count()
        self.refused: list[str] = []
        """What was said of policies that no guest is started under."""
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self._connected = [listener.getsockname()[1] for listener in self._listeners]
        with_port = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self._free = [listener.getsockname()[1] for listener in with_port]
        for listener in with_port:
            listener.close()
        self._sockets = [str(folder / f"{number}.sock") for number in range(3)]
        for path in self._sockets:
            self._listeners.append(socket.socket(socket.AF_UNIX))
            self._listeners[-1].bind(path)
            self._listeners[-1].listen(100)

    def close(self) -> None:
        """Close the ports."""
        for listener in self._listeners:
            listener.close()

    def compare(
        self,
        drawn: Mapping[str, Any],
        asked: Sequence[tuple[Ask, str, int]],
        run: Callable[[Policy, list[str]], bytes],
        *,
        wali: bool,
    ) -> None:
        """Make the requests under the policy; fails where the answers are not what it says."""
        root = self._folder / str(next(self._count))
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True)
        try:
            policy = self._policy(drawn, root)
            for folder in drawn["places"] or ():  # one may lie in another that has a place for it
                host_of(drawn, root, folder, wali=wali, below=True).mkdir(
                    parents=True, exist_ok=True
                )
            made = [self._make(root, drawn, i, *each, wali=wali) for i, each in enumerate(asked)]
            words = [word for words, _ in made for word in words]
            answers = [int(line) for line in run(policy, words).splitlines()]
        except (PolicyError, Refused) as error:
            self.refused.append(str(error))
            hypothesis.reject()
        finally:
            shutil.rmtree(root)
        assert len(answers) == len(made)
        if wali:
            answers = [
                _error(ask, answer) for (ask, *_), answer in zip(asked, answers, strict=True)
            ]
        catalogue = CATALOGUE if wali else None
        wrong = []
        for (ask, _, _), (words, needs), answer in zip(asked, made, answers, strict=True):
            decisions = [policy.decide(need, catalogue) for need in needs]
            granted = all(decisions)
            passed = answer == 0 or answer in ask.passes
            if granted != passed and not (passed and not_held(policy, ask, decisions)):
                said = next((str(d) for d in decisions if not d), str(decisions[0]))
                wrong.append(f"{words}: {said}; answered {errno.errorcode.get(answer, answer)}")
        assert not wrong, "\n".join([*wrong, policy.show()])

    def _policy(self, drawn: Mapping[str, Any], root: Path) -> Policy:
        def place(folder: str) -> str:
            return f"{root / folder}::{guest_path(drawn, root, folder)}"

        files: dict[str, Any] = {"devices": drawn["devices"]}
        if drawn["cwd"] is not None:
            files["cwd"] = guest_path(drawn, root, drawn["cwd"])
        for folder, kind in drawn["trees"].items():
            # What is executed is a program of Linux's, which is a single file here.
            files.setdefault(kind, []).append(place(folder))
        files["inaccessible"] = [str(root / folder) for folder in drawn["denied"]]
        network = {
            "connect": [f"tcp://*:{self._connected[i]}" for i in drawn["network"]["connect"]],
            "listen": [f"tcp://*:{self._free[i]}" for i in drawn["network"]["listen"]],
            "unix": [self._sockets[i] for i in {*drawn["network"]["unix"]}],
        }
        said = {key: drawn[key] for key in ("version", "lockdown", "view", "syscalls")}
        return Policy.from_dict({**said, "filesystem": files, "network": network}, "/")

    def _make(
        self,
        root: Path,
        drawn: Mapping[str, Any],
        index: int,
        ask: Ask,
        folder: str,
        port: int,
        *,
        wali: bool,
    ) -> tuple[list[str], list[str]]:
        """Return the guest's words for an attempt, and what is requested by it."""
        name = f"{ask.kind}{index}"
        here = host_of(drawn, root, folder, wali=wali) / name
        there = join(ELSEWHERE if drawn["places"] else str(root), folder, name)
        here.parent.mkdir(parents=True, exist_ok=True)
        if ask.kind == "file":
            here.write_text("it")
        elif ask.kind == "program":
            shutil.copy(self._program, here)
        elif ask.kind == "folder":
            there = there.rpartition("/")[0]
        elif ask.kind == "device":
            there = "/dev/zero"
        elif ask.kind == "socket":
            there = self._sockets[port]
        elif ask.kind == "port":
            there = str((self._connected if ask.what == "connect" else self._free)[port])
        moved = f"{there}.moved"
        words = [ask.what, f"{there} {moved}" if ask.what == "rename" else there]
        if not ask.kind:
            words[1] = ""
        return words, [need.format(there, to=moved) for need in ask.needs]


def guest_path(drawn: Mapping[str, Any], root: Path, folder: str) -> str:
    """Return where a guest finds a tree."""
    places = drawn["places"]
    return str(root / folder) if places is None else join(ELSEWHERE, places[folder])


def host_of(
    drawn: Mapping[str, Any], root: Path, folder: str, *, wali: bool, below: bool = False
) -> Path:
    """Return which folder of the host's a guest finds at the path of a folder.

    Or, `below`, where a tree is to be shown: what would be found there without it.
    """
    kinds = drawn["trees"]
    places = drawn["places"] or {tree: tree for tree in kinds}
    trees = [tree for tree in kinds if wali or kinds[tree] != "exec"]

    def found_at(place: str, others: Sequence[str]) -> Path | None:
        around = [(places[tree], tree) for tree in others if lies_in(place, places[tree])]
        if not around:
            return None
        at, tree = max(around, key=lambda pair: len(pair[0]))
        return root.joinpath(tree, place[len(at) :].lstrip("/"))

    if below:
        others = [tree for tree in trees if tree != folder]
        return found_at(places[folder], others) or root / folder
    cwd = None if wali or drawn["cwd"] is None else found_at(places[drawn["cwd"]], trees)
    said = join(ELSEWHERE if drawn["places"] else str(root), folder)
    return found_at(folder, trees) or (root / folder if cwd is None else cwd / said.lstrip("/"))


def _error(ask: Ask, result: int) -> int:
    """Return the errno of what a WALI guest says, 0 if it is none."""
    # The status of a child, which exits with the errno if it cannot be another program.
    return result >> 8 if ask.kind == "program" and result > 0 else max(-result, 0)


def not_held(policy: Policy, ask: Ask, decisions: Sequence[Any]) -> bool:
    """Return whether it is known, and documented, that a refusal is not enforced."""
    by_path = [d for d in decisions if not d and not d.rule.startswith("syscalls.")]
    if len(by_path) < len([d for d in decisions if not d]):
        return False  # by the gate
    if ask.kind == "port":
        return policy.lockdown == "off"
    if ask.kind not in ("file", "folder", "new", "program", "device"):
        return False
    if policy.view == "off":
        return ask.looks or policy.lockdown == "off"
    # What leads to grants is there for that, and shows no more than their names.
    return ask.what == "list"


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for compiled modules."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return the world that policies are about."""
    source = tmp_path_factory.mktemp("program") / "nothing.c"
    source.write_text(NOTHING)
    made = World(tmp_path_factory.mktemp("w"), building.native(source))
    yield made
    made.close()


def in_process(cache: Path, program: Path, policy: Policy, words: list[str]) -> bytes:
    """Run a program under a policy, and return what it printed."""
    with Runtime(policy=policy, cache=cache) as runtime:
        done = runtime.run_sync(program, args=words, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout is not None
    return done.stdout


@pytest.fixture(scope="module", params=["wali", "wasi"])
def compare(
    request: pytest.FixtureRequest,
    world: World,
    cache_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Callable[..., None]]:
    """Return a kind of guest, and what has one make requests under a policy."""
    if request.param == "wali":
        program = building.program("attempt")
    else:
        source = Path(__file__).parents[1] / "wali_core" / "attempt.c"
        out = tmp_path_factory.mktemp("attempts") / "attempt.wasm"
        program = compiler.compile_guest(source, out, target="wasm32-wasi")
    run = partial(in_process, cache_folder, program)
    return request.param, partial(world.compare, run=run, wali=request.param == "wali")


def test_decisions_are_what_happens(compare: tuple[str, Callable[..., None]]) -> None:
    """What is decided to be granted is let through, and what is not is refused."""
    kind, check = compare

    @hypothesis.settings(max_examples=EXAMPLES[kind], derandomize=True, **SETTINGS)
    @given(policies(), requests(OF_WALI if kind == "wali" else OF_WASI))
    def agree(drawn: dict[str, Any], asked: list[tuple[Ask, str, int]]) -> None:
        check(drawn, asked)

    agree()


@pytest.mark.timeout(0)
@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"set {VARIABLE} to a number of policies")
def test_many_decisions_are_what_happens(
    compare: tuple[str, Callable[..., None]],
    world: World,
    report_figure: Callable[[str], None],
) -> None:
    """The same for as many policies as the environment says."""
    faulthandler.cancel_dump_traceback_later()  # pytest's: it takes as long as it takes
    kind, check = compare
    made = 0
    world.refused.clear()

    @hypothesis.settings(max_examples=int(os.environ[VARIABLE]), **SETTINGS)
    @given(policies(), requests(OF_WALI if kind == "wali" else OF_WASI))
    def agree(drawn: dict[str, Any], asked: list[tuple[Ask, str, int]]) -> None:
        nonlocal made
        check(drawn, asked)
        made += len(asked)

    agree()
    report_figure(
        f"{kind}: {made} requests decided and made alike; {len(world.refused)} policies refused"
    )
