"""What is written down of a guest: an event for each thing that it asked for, a line of JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION = 1

Verdict = Literal["granted", "denied", "passed", "logged", "started"]


@attrs.frozen
class Event:
    """One thing that a guest asked for, and what came of it.

    Attributes:
        time: when, in seconds since 1970.
        pid: the process that asked.
        syscall: the call's name: a system call, or a function of WASI's; empty for a start.
        resource: what the call named, by the guest's own name for it: a path, `tcp://HOST:PORT`,
            `unix://PATH`; of a new socket its kind, such as `tcp`; empty for a call that names
            nothing, and the program's name for a start.
        access: what it would have done to it: read, write, make or execute; empty for sockets.
        decision: `granted` and `denied` are the policy's. `passed` is what the policy does not
            grant and nobody refused; `logged` a call that goes through because the policy says so.
            `started` is the beginning of a run.
        rule: the key of the policy that decided, such as `filesystem.read_only[0]`; `caller` for
            what whoever started the guest granted besides; for a start, the policy's digest.
        result: what the call answered: `0`, or the name of an error; empty for a file that is about
            to be executed, since that never answers: another event follows if it fails.
        host: the host's path of a file, with links still in it; for a start, of the working
            directory. This and what follows is there only where policies are learned.
        real: the same without links.
        directory: whether that is a directory.
        relative: whether the call named it from the working directory.
        via: the path as the call said it, absolute, if that goes through other directories (`..`).
        module: whether a file that is executed is WebAssembly, or a script that one runs.
        link: whether it is a link, and the call is about that and not about what it leads to.
    """

    time: float
    pid: int
    syscall: str
    resource: str
    access: str
    decision: Verdict
    rule: str
    result: str = ""
    host: str | None = None
    real: str | None = None
    directory: bool = False
    relative: bool = False
    via: str | None = None
    module: bool = False
    link: bool = False

    def line(self) -> str:
        """Return the event as a line of JSON, with its line feed."""
        words = attrs.asdict(self)
        said = {name: words[name] for name in words if name not in _OPTIONAL or words[name]}
        return json.dumps({"v": VERSION, **said}) + "\n"


_OPTIONAL = frozenset(("host", "real", "directory", "relative", "via", "module", "link"))
_FIELDS = frozenset(field.name for field in attrs.fields(Event))


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Read what `Event.line` wrote.

    Raises:
        ValueError: a line is none of these.
    """
    for number, line in enumerate(lines, 1):
        try:
            yield _event(json.loads(line))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"line {number} is no line of an audit: {error}") from error


def _event(words: dict[str, Any]) -> Event:
    version = words.pop("v")
    if version != VERSION:
        raise ValueError(f"version {version!r} is not known here")
    return Event(**{name: words[name] for name in _FIELDS & words.keys()})
