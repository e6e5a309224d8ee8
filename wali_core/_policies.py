"""The command ``wali policy``: what policies say, and what a program would need of one."""

from __future__ import annotations

import os
import stat

from wali_core._elf import interpreter_of
from wali_core._errors import PolicyError
from wali_core._grants import beneath, load_policy
from wali_core._options import OptionError
from wali_core._terminal import REFUSED, Refusal, print_text, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

    from capabilities import Environment, Policy
    from wali_core._follow import Record
    from wali_core._options import Options

WRONG: Final = 1
"""The status where a policy has mistakes, or a request is refused."""


def catalogue() -> dict[str, str]:
    """Every system call that there is, with its group."""
    from wali_core._bridge import core

    return core.catalogue()


def check(words: Sequence[str]) -> int:
    """Say of each policy whether it is right: also of its calls, and whether its files exist."""
    if not words:
        raise OptionError("policy check needs POLICY, one or more")
    return max(map(_check, words))


def _check(word: str) -> int:
    try:
        policy = _loaded(word)
    except PolicyError as error:
        return say(str(error), WRONG)
    contradictions = policy.conflicts(os.path.realpath)
    if contradictions:
        return say("\n".join(map(str, contradictions)), WRONG)
    from wali_core._grants import Grants

    grants = Grants()
    grants.add_policy(policy)
    try:
        grants.settle(policy)
    except PolicyError as error:
        return say(str(error), WRONG)
    for key, grant in policy.keyed_grants().items():
        if not os.path.exists(grant.host):
            say(f"{word}: {key}: {grant.host} does not exist here: no program starts without it", 0)
    for line in _unwritable(policy):
        say(f"{word}: audit.path: {line}", 0)
    cwd = policy.filesystem.cwd
    if cwd is not None and not any(
        beneath(cwd, grant.guest) for grant in policy.filesystem.readable
    ):
        say(f"{word}: filesystem.cwd: {cwd} lies in nothing that is granted: that takes --dir", 0)
    for line in (*_sockets(policy), *_withheld(policy), *_let_through(policy)):
        say(f"{word}: {line.removeprefix('! ')}", 0)
    print_text(f"{word}: right\n")
    return 0


def _unwritable(policy: Policy) -> Iterator[str]:
    """Why no line can be added to the file of an audit, as far as that can be seen."""
    path = policy.audit.path
    if path is None:
        return
    if os.path.isdir(path):
        yield f"{path} is a folder: no program starts; write the file that lines are added to"
    elif not os.path.isdir(folder := os.path.dirname(path)):
        yield f"{folder} is no folder here: no program starts without it"


def _sockets(policy: Policy) -> Iterator[str]:
    """What of ``network.unix`` is here, and no socket."""
    for grant in policy.network.unix:
        if os.path.isdir(grant.host):
            yield f"! {grant.host} is a folder: every socket in it can be connected to"
        elif os.path.exists(grant.host) and not stat.S_ISSOCK(os.stat(grant.host).st_mode):
            yield f"! {grant.host} is no socket, and nothing that could be connected to"


def show(words: Sequence[str]) -> int:
    """Print a policy in full: with absolute paths, and what it extends taken over."""
    print_text(_loaded(_one(words, "show")).show())
    return 0


def explain(words: Sequence[str]) -> int:
    """Say what a policy grants and who holds a WALI program to that here; or answer a request."""
    if len(words) not in (1, 2):
        raise OptionError("policy explain needs POLICY, and perhaps a REQUEST in quotes")
    policy = _loaded(words[0])
    try:
        if len(words) == 1:
            print_text("\n".join(_explained(policy)) + "\n")
            return 0
        decision = _started(policy).decide(words[1], catalogue())
    except ValueError as error:  # a request that is none; or calls that nobody knows
        raise Refusal(str(error), REFUSED) from None
    print_text(f"{decision}\n")
    return 0 if decision else WRONG


def _started(policy: Policy) -> Policy:
    """A policy that says where a WASI program starts that is started here."""
    from attrs import evolve

    from wali_core._grants import Grants

    grants = Grants()
    grants.add_policy(policy)
    if policy.filesystem.cwd is not None:
        return policy
    cwd = next((place.starts for place in grants.directories(policy) if place.starts), None)
    return evolve(policy, filesystem=evolve(policy.filesystem, cwd=cwd))


def _explained(policy: Policy) -> Iterator[str]:
    yield from policy.explain(catalogue())
    yield from _native_needs(policy)
    yield from _sockets(policy)
    yield from _withheld(policy)
    yield from _let_through(policy)
    yield ""
    yield "A WASI program is held to the files by the core, whatever its shim asks for."
    yield "A WALI program is held here by:"
    yield from (f"  {line}" for line in _enforced(policy))


def _withheld(policy: Policy) -> Iterator[str]:
    """What keeps nearly every program from working."""
    found: dict[str, list[str]] = {}
    for name, key in policy.withheld_calls(catalogue()).items():
        found.setdefault(key, []).append(name)
    for key, names in found.items():
        yield f"! nearly every program calls {', '.join(names)}, which {key} does not grant"


def _let_through(policy: Policy) -> Iterator[str]:
    """What a policy may be thought to let through."""
    if policy.syscalls.on_deny == "log":
        yield (
            '! syscalls.on_deny: "log" lets calls through, and not what they name: files, ports '
            "and kinds of sockets that are not granted are refused all the same"
        )


def _enforced(policy: Policy) -> list[str]:
    """Who closes which door on this machine.  This process is confined a little, on the way."""
    from wali_core._bridge import core
    from wali_core._confine import claim_view, confine
    from wali_core._grants import Grants

    grants = Grants()
    grants.add_policy(policy)
    grants.settle(policy)
    claim_view(policy)
    fallbacks: list[str] = []
    confinement = confine(policy, grants, core, on_fallback=fallbacks.append)
    return [f"open: no view of its own: {reason}" for reason in fallbacks] + confinement.explain()


def _native_needs(policy: Policy) -> Iterator[str]:
    """What programs of Linux's own need besides themselves."""
    granted = [grant.host for grant in policy.filesystem.exec]
    for host in granted:
        interpreter = interpreter_of(host)
        if interpreter and not any(_lies_in(interpreter, other) for other in granted):
            yield f"! {host} is run by {interpreter}, which filesystem.exec does not grant"
    if granted:
        yield (
            "! native programs execute libraries, which filesystem.exec has to grant, and read "
            "locales and more: wali policy learn finds out which"
        )


def _lies_in(path: str, tree: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(tree).rstrip("/") + "/") or (
        os.path.realpath(path) == os.path.realpath(tree)
    )


def _one(words: Sequence[str], command: str) -> str:
    if len(words) != 1:
        raise OptionError(f"policy {command} needs one POLICY")
    return words[0]


def _loaded(word: str) -> Policy:
    policy = load_policy(word)
    assert policy is not None
    return policy


# --- learning -------------------------------------------------------------------------------------


def learn(options: Options, run: Callable[[Record], int]) -> int:
    """Run a program with everything granted, and write the least policy that would have done.

    ``run`` runs it in this process, with everything that it asks for written down, and gives its
    status.  That process is another: a program may end it, or become another in it.
    """
    if not options.rest:
        raise OptionError("policy learn needs the FILE of a program")
    for name in ("policy", "allow-all"):
        if name in options:
            raise OptionError(f"policy learn grants everything: --{name} has no place there")
    out = options["out"] or f"{_stem(options.rest[0])}.policy.toml"
    if os.path.lexists(out):
        raise Refusal(f"{out} exists already: name another with --out, or remove it", REFUSED)
    record = os.memfd_create("record", os.MFD_CLOEXEC)
    status = _waited(run, record)
    text, remarks = _learned(record, options, status)
    try:
        with open(out, "x") as file:
            file.write(text)
    except OSError as error:
        raise Refusal(f"{out}: {error.strerror}", REFUSED) from None
    for remark in remarks:
        say(remark, 0)
    say(f"the policy that this run needed is {out}", 0)
    return status


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _waited(run: Callable[[Record], int], record: int) -> int:
    """The status of a run in a process of its own.  What interrupts that is for that alone."""
    import _signal  # type: ignore[import-not-found]
    import socket

    from wali_core._follow import Follower, Record

    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os._exit(run(Record(record, theirs)))
    theirs.close()
    before = _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    try:
        with ours:
            Follower(ours, record).until_end_of(pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        _signal.signal(_signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _learned(record: int, options: Options, status: int) -> tuple[str, tuple[str, ...]]:
    import shlex

    import capabilities

    os.lseek(record, 0, os.SEEK_SET)
    with open(record, encoding="utf-8") as file:
        events = list(capabilities.read_events(file))
    calls = catalogue()
    made = any(event.syscall in calls for event in events)  # WASI programs make none
    learned = capabilities.learn(
        events, environment=_environment(options), catalogue=calls if made else None
    )
    lines = [
        f"# Learned from: {shlex.join(options.rest)}".replace("\n", " "),
        f"# That ended with status {status}. What it did not do then is not granted here.",
        *(f"# {remark}" for remark in learned.remarks),
    ]
    return "\n".join([*lines, learned.policy.show()]), learned.remarks


def _environment(options: Options) -> Environment:
    """The variables that the program had, as they were given."""
    from capabilities import Environment

    pairs = [text.partition("=") for text in options.all("env")]
    return Environment(
        inherit=[name for name, equals, _ in pairs if not equals and name in os.environ],
        set={name: value for name, equals, value in pairs if equals},
    )
