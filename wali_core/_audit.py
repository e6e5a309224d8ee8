"""What a guest asks for, written down: for its policy's author, and to learn a policy from.

Python goes around the calls that name something, which costs each some microseconds; calls on what
is open already are not looked at.  It decides nothing: what it writes is what the policy says, and
what the call answered.
"""

from __future__ import annotations

import os
import time
from hashlib import sha256
from importlib import import_module
from itertools import count
from posixpath import join, normpath

from attrs import evolve

from capabilities import Decision, Event, Policy, PolicyError, Request
from capabilities.links import open_plain
from wali_core._errors import GuestDenied, GuestLimit
from wali_core._errors import PolicyError as Refused
from wali_core._grants import beneath as beneath_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Final, Literal

    from capabilities import Access, Verdict
    from capabilities.links import Place
    from wali_core._grants import Grants, Preopen

    Proceed = Callable[[], int]

MOST_DENIALS: Final = 100_000
"""How many refusals are written down of one process; who is refused more is ended."""

# By then the program may be in a view, where there is no file of them.
_NEEDED_LATER: Final = (
    *("capabilities._decide", "capabilities._show"),
    *("wali_core.programs._audit_program", "wali_core._audit_wasi"),
)
_REMEMBERED: Final = 4096  # events that are not written again while they are remembered
_CALLER: Final = "caller"
_HELD_BACK: Final = "view"  # the rule by which calls are refused whatever else is said


class Audit:
    """The file that events go to, and what the policy says to each.

    ``policy`` is what the guest is granted in all; ``keys`` says of the keys of its directories
    which they are in the policy's file, or that they come from its caller.  ``catalogue`` are the
    system calls that there are, for a WALI program.  ``file`` is a descriptor, which is closed with
    the audit.

    With ``everything`` also what is granted is written; ``learning`` looks at the files, too.
    """

    def __init__(
        self,
        policy: Policy,
        keys: Mapping[str, str],
        file: int,
        *,
        everything: bool,
        learning: bool = False,
        catalogue: Mapping[str, str] | None = None,
    ) -> None:
        self._policy, self._keys, self._file = policy, keys, file
        # A path comes here as it is: what was named from the working directory has that before it.
        self._rules = evolve(policy, filesystem=evolve(policy.filesystem, cwd=None))
        self.everything, self.learning = everything, learning
        self.on_deny = policy.syscalls.on_deny
        self._denials = 0
        self._beginning: Event | None = None
        self._written: dict[tuple[str | bool | None, ...], None] = {}
        try:
            self.calls = {} if catalogue is None else policy.decide_calls(catalogue)
        except PolicyError as error:
            raise Refused(str(error)) from error

    def grants(self, call: str) -> bool:
        """Does the policy grant a system call, by itself?"""
        decision = self.calls.get(call)
        return decision is None or decision.granted

    def withhold(self, names: Iterable[str]) -> None:
        """Take note of calls that are held back: the policy grants some of them."""
        why = "without a view nothing holds it to the files that are granted"
        for name in names:
            if self.grants(name):
                self.calls[name] = Decision(granted=False, rule=_HELD_BACK, reason=why)

    def prepare(self, program: str) -> None:
        """Look at what ``start`` is to write of a program, while everything can be looked at."""
        digest = f"sha256:{sha256(self._policy.show().encode()).hexdigest()}"
        event = Event(time.time(), os.getpid(), "", program, "", "started", digest)
        if self.learning:
            event = _looked_at(event, os.getcwd(), None, relative=False)
        self._beginning = event

    def start(self) -> None:
        """Write down that a program begins, and under which policy: once nothing is in its way."""
        if self._beginning is not None:
            self._write(self._beginning)

    def on_path(
        self,
        call: str,
        path: str,
        access: Access,
        result: str,
        *,
        host: str | None = None,
        via: str | None = None,
        relative: bool = False,
        leads_out: bool = False,
        follows: bool = True,
    ) -> None:
        """Write down what came of a call on a path, ``result`` being ``"0"`` or an errno's name.

        It is empty for a file that is about to be executed: more follows if that fails.
        ``host`` is the host's path, if it is another; ``via`` the path as it was said, if it goes
        through other directories; ``relative`` says that it was so from the working directory.
        ``leads_out`` says that it was refused because of a link, to what nothing grants;
        ``follows`` whether it is about what a link leads to.
        """
        decision = self._named(call, path, access)
        if leads_out and decision.granted:
            decision = Decision(False, "default", f"a link leads out of {decision.rule}")
        place = host or path
        link = self.learning and not follows and os.path.islink(place)
        self._note(call, path, access, decision, result, place, via, relative=relative, link=link)

    def on_socket(self, call: str, resource: str, result: str) -> None:
        """The same of a call that names a socket's address."""
        self._note(call, resource, "", self._named(call, resource, ""), result)

    def _named(self, call: str, resource: str, access: Access | Literal[""]) -> Decision:
        """What the policy says to what a call names, whatever it says to the call."""
        if resource.startswith("/"):
            return self._rules.decide(Request(call, (resource,), access or "look"))
        try:
            request = Request.parse(f"{call} {resource}")
        except ValueError:  # an abstract name, another protocol: nothing grants it
            request = Request(call, port=0)
        return self._policy.decide(request)

    def on_kind(self, call: str, kind: str, result: str) -> None:
        """The same of a call that makes sockets, or listens at one that may have no address.

        What `on_deny = "log"` lets through is the call: the kind is refused all the same.
        """
        decision, own = self._policy.decide(Request(call, kind=kind or None)), self.calls[call]
        if not own.granted and (decision.granted or self.on_deny != "log"):
            self.on_call(call, kind, "", result)
        else:
            by_call = decision.granted and decision.rule == "always"
            self._note(call, kind, "", own if by_call else decision, result)

    def on_call(self, call: str, resource: str, access: Access | Literal[""], result: str) -> bool:
        """Write down a system call that the gate holds back, or would; is it held back?

        One that is granted is written down once, without what it names.  One that goes through by
        `on_deny = "log"` may name what is refused all the same: then that is what is written.
        """
        decision = self.calls.get(call)
        if decision is None or decision.granted:
            if decision is not None and self.everything:
                self._note(call, "", "", decision, "0")
            return False
        if self.on_deny == "log" and resource and result != "0":
            named = self._named(call, resource, access)
            decision = decision if named.granted else named
        self._note(call, resource, access, decision, result)
        if self.on_deny == "kill":
            raise GuestDenied(call)
        return True

    def _note(
        self,
        call: str,
        resource: str,
        access: str,
        decision: Decision,
        result: str,
        host: str | None = None,
        via: str | None = None,
        *,
        relative: bool = False,
        link: bool = False,
    ) -> None:
        verdict = self._verdict(call, decision, result)
        key = (call, resource, access, verdict, result, via, relative, link)
        if (key in self._written and result) or not (self.everything or verdict != "granted"):
            return
        if len(self._written) >= _REMEMBERED:
            del self._written[next(iter(self._written))]
        self._written[key] = None
        rule = self._rule(decision)
        event = Event(time.time(), os.getpid(), call, resource, access, verdict, rule, result)
        if self.learning and host is not None:
            event = _looked_at(event, host, via, relative=relative, link=link)
        self._write(event)
        self._count(verdict)

    def _verdict(self, call: str, decision: Decision, result: str) -> Verdict:
        if decision.granted:
            return "granted"
        lets_through = self.on_deny == "log" and decision.rule != _HELD_BACK
        if call in self.calls and self.calls[call] is decision and lets_through:
            return "logged"
        return "passed" if result in ("0", "") else "denied"

    def _rule(self, decision: Decision) -> str:
        """The rule's key in the policy, or that its caller has granted it."""
        return self._keys.get(decision.rule, decision.rule)

    def _count(self, verdict: Verdict) -> None:
        self._denials += verdict == "denied"
        if self._denials > MOST_DENIALS:
            raise GuestLimit(
                "audit", f"the guest was refused more than {MOST_DENIALS} things, one by one"
            )

    def _write(self, event: Event) -> None:
        os.write(self._file, event.line().encode())

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()


def _looked_at(
    event: Event, place: str, via: str | None, *, relative: bool, link: bool = False
) -> Event:
    """An event with what a policy is learned from."""
    real, directory = what_is_at(place, link=link or "readlink" in event.syscall)
    module = event.access == "execute" and is_module(place)
    return evolve(
        event,
        host=place,
        real=real,
        directory=directory,
        relative=relative,
        via=via,
        module=module,
        link=link,
    )


def what_is_at(path: str, *, link: bool) -> tuple[str, bool]:
    """The path without links, and whether that is a directory; or of the ``link`` at its end."""
    if not link:
        return os.path.realpath(path), os.path.isdir(path)
    folder, name = os.path.split(path)
    directory = os.path.isdir(path) and not os.path.islink(path)
    return os.path.join(os.path.realpath(folder), name), directory


def is_module(path: str) -> bool:
    """Is a program WebAssembly, or a script for such a one?"""
    from wali_core._elf import interpreters_of

    last = [path, *interpreters_of(path)][-1]
    try:
        with open(last, "rb") as file:
            return file.read(4) == b"\0asm"
    except OSError:
        return False


class Names:
    """What a guest's descriptors are called: the path that each was opened by.

    A guest that gets one in another way has no name for it here.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def __getitem__(self, number: int) -> str | None:
        return self._names.get(number)

    def opened(self, number: int, path: str | None) -> None:
        """A number means this file from now on, or one without a name."""
        self.closed(number)
        if path is not None and number >= 0:
            self._names[number] = path

    def closed(self, number: int) -> None:
        self._names.pop(number, None)

    def duplicated(self, old: int, new: int) -> None:
        if new != old:
            self.opened(new, self._names.get(old))


def beneath(folder: str | None, path: bytes) -> str | None:
    """An absolute path, from a folder if it is relative; None where that has no name."""
    said = _said(folder, path)
    return None if said is None else f"/{normpath(said).lstrip('/')}"


def detour(folder: str | None, path: bytes) -> str | None:
    """The same as it was said, if it goes through other directories than it leads to."""
    return _said(folder, path) if b".." in path.split(b"/") else None


def _said(folder: str | None, path: bytes) -> str | None:
    text = os.fsdecode(path)
    if text.startswith("/"):
        return text
    return None if folder is None else join(folder, text)


def _keys_of(directories: Iterable[Preopen]) -> dict[str, str]:
    """By which key a policy grants each; ``caller`` where another than the policy does."""
    numbers = {name: count() for name in ("read_only", "read_write")}
    keys = {}
    for one in directories:
        name = "read_only" if one.read_only else "read_write"
        keys[f"filesystem.{name}[{next(numbers[name])}]"] = one.key or _CALLER
    return keys


def audit(
    policy: Policy | None,
    grants: Grants,
    directories: Iterable[Preopen],
    catalogue: Mapping[str, str] | None,
    *,
    record: int | None = None,
) -> Audit:
    """The audit that a policy asks for; or one of everything, to the descriptor ``record``.

    ``directories`` are those of ``grants``, as the guest has them.  Raises ``PolicyError``.
    """
    for name in _NEEDED_LATER:
        import_module(name)
    trees = [one for one in directories if one.starts is None]
    everything, keys = grants.in_all(policy or Policy(), trees, _as_said), _keys_of(trees)
    if record is not None:
        return Audit(
            everything, keys, os.dup(record), everything=True, learning=True, catalogue=catalogue
        )
    wanted = everything.audit
    file = open_file(wanted.path or "", everything.source, grants.audit_place)
    return Audit(everything, keys, file, everything=wanted.log == "all", catalogue=catalogue)


def _as_said(one: Preopen) -> str:
    return one.full


def open_file(path: str, source: str, place: Place | None) -> int:
    """The descriptor of a file that lines are added to.  Raises ``PolicyError``."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    flags |= os.O_NONBLOCK  # a FIFO that nobody reads would keep us here, out of Ctrl-C's reach
    try:
        # Links of procfs lead to what their words do not name: /dev/stderr, for example.
        if place is None or any(beneath_folder(link, "/proc") for link in place.links):
            file = os.open(path, flags, 0o600)
        else:
            file = open_plain(place.path, flags, 0o600)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Refused(f"{source}: audit.path: {path} cannot be written: {reason}") from error
    os.set_blocking(file, True)
    return file
