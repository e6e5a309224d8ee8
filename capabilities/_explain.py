"""What a policy grants, in lines for people: each with the key that says so."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ._units import format_duration, format_size
from ._values import format_clock, format_random

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ._files import Grant
    from ._model import Number
    from ._policy import Policy

_NOTHING, _UNLIMITED = "nothing", "unlimited"


def explain(policy: Policy, catalogue: Mapping[str, str]) -> list[str]:
    """Say what is granted, and by which keys.

    Args:
        policy: what to explain.
        catalogue: every system call that there is, with its group.

    Raises:
        PolicyError: an entry of `[syscalls]` is neither a call nor a group of the catalogue.
    """
    rows = [
        *_files(policy),
        *_environment(policy),
        *_network(policy),
        *_limits(policy),
        ("time", format_clock(policy.clock), "clock.source"),
        ("randomness", format_random(policy.random), "random.source"),
        *_audit(policy),
        *_calls(policy, catalogue),
    ]
    wide, wider = (max(len(row[i]) for row in rows) for i in (0, 1))
    return [f"{what:{wide}}  {said:{min(wider, 60)}}  {key}".rstrip() for what, said, key in rows]


def _files(policy: Policy) -> Iterator[tuple[str, str, str]]:
    files = policy.filesystem
    yield from _trees("reads", "filesystem.read_only", files.read_only)
    yield from _trees("changes", "filesystem.read_write", files.read_write)
    yield from _trees("executes", "filesystem.exec", files.exec)
    yield from _trees("devices", "filesystem.devices", files.named_devices)
    if not (files.readable or files.devices):
        yield "files", _NOTHING, ""
    for index, path in enumerate(files.inaccessible):
        yield "never", path, f"filesystem.inaccessible[{index}]"
    if files.cwd is not None:
        yield "starts in", files.cwd, "filesystem.cwd"


def _trees(what: str, key: str, grants: Iterable[Grant]) -> Iterator[tuple[str, str, str]]:
    for index, grant in enumerate(grants):
        named = "" if grant.host == grant.guest else f" as {grant.guest}"
        yield what, f"{grant.host}{named}", f"{key}[{index}]"


def _environment(policy: Policy) -> Iterator[tuple[str, str, str]]:
    environment = policy.environment
    if environment.inherit:
        yield "inherits", ", ".join(environment.inherit), "environment.inherit"
    for name, value in sorted(environment.set.items()):
        yield "variable", f"{name}={value}", f"environment.set.{name}"
    if not (environment.inherit or environment.set):
        yield "variables", _NOTHING, ""


def _network(policy: Policy) -> Iterator[tuple[str, str, str]]:
    network = policy.network
    for what, key, ports in (
        ("connects to", "network.connect", network.connect),
        ("listens at", "network.listen", network.listen),
    ):
        if ports:
            yield what, f"TCP {', '.join(map(str, ports))}, at any address", key
    yield from _trees("connects to", "network.unix", network.unix)
    if not (network.connect or network.listen or network.unix):
        yield "network", _NOTHING, ""


def _limits(policy: Policy) -> Iterator[tuple[str, str, str]]:
    limits = policy.limits
    for what, key, said in (
        ("time", "wall_time", _most(limits.wall_time, format_duration)),
        ("computing", "cpu_time", _most(limits.cpu_time, format_duration)),
        ("memory", "memory", _most(limits.memory, format_size)),
        ("descriptors", "open_files", _most(limits.open_files, str)),
        ("output", "output", _most(limits.output, format_size)),
        ("processes", "processes", _most(limits.processes, str)),
        ("threads", "threads", _most(limits.threads, str)),
    ):
        yield what, said, f"limits.{key}" if said != _UNLIMITED else ""


def _most(value: Number | None, show: Callable[[Number], str]) -> str:
    return _UNLIMITED if value is None else f"at most {show(value)}"


def _audit(policy: Policy) -> Iterator[tuple[str, str, str]]:
    if policy.audit.log != "none":
        yield "written down", f"{policy.audit.log}, to {policy.audit.path}", "audit.log"


def _calls(policy: Policy, catalogue: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """For WALI programs: of each group how many calls are granted, and by what."""
    decided = policy.decide_calls(catalogue)
    sizes = Counter(catalogue.values())
    found = Counter((catalogue[name], d.rule) for name, d in decided.items() if d.granted)
    for (group, rule), count in sorted(found.items()):
        yield "calls", f"{group}: {count} of {sizes[group]}", rule
    refused = len(decided) - sum(found.values())
    if refused:
        answer = {"kill": "end the program", "log": "are made all the same, and written down"}
        on_deny = policy.syscalls.on_deny
        said = f"{refused} others {answer.get(on_deny, f'answer {on_deny}')}"
        yield "calls", said, "syscalls.on_deny"
