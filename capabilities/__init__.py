"""What a guest may do, as data: policies are read, checked and combined here.

They are enforced elsewhere: here is no WebAssembly, and no file is opened but the policy itself.
The exceptions are `links`, which finds where paths lead, and the package `lockdown`, which asks the
kernel to confine a thread.
"""

# General layout:
#
#   _units     sizes ("256M") and durations ("10s") as people write them
#   _errors    PolicyError: all that is wrong with a policy, at once; LockdownError
#   _files     Grant, Filesystem: trees of files
#   _model     Environment, Network, Syscalls, Limits, Clock, Random, Audit, Problem: frozen values
#   _values    single values of a file, and the words for what is wrong with them
#   _document  the tables of a file
#   _structure what is wrong with them
#   _load      TOML to those values, with every mistake found; _conflicts: among several values
#   _combine   two policies in one: what both grant, and what one that extends another grants
#   _profiles  the policies that come with the package
#   _show      values to canonical TOML
#   _metadata  calls that only a view holds to the grants
#   _calls     which system calls those values grant, and why
#   _requests  Request: what a guest asks for
#   _explain   what a policy grants, for people
#   _decide    Decision: what a policy says to it, and by which rule
#   _audit     Event: what is written down of a guest
#   _learn     the least policy under which a run would have passed
#   _policy    Policy, which ties the others together
#   links      where paths of the host's lead, followed once; opened with no link
#   lockdown   Landlock and limits of the kernel's, set before a guest runs
#
# Names are imported when they are first used: attrs and cattrs take longer to import than a small
# guest to run, and a guest without a policy needs neither. For the same reason `typing` is not
# imported here: type checkers take the constant below for true.

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._audit import Event as Event
    from ._audit import Verdict as Verdict
    from ._audit import read_events as read_events
    from ._decide import Decision as Decision
    from ._errors import LockdownError as LockdownError
    from ._errors import PolicyError as PolicyError
    from ._files import Filesystem as Filesystem
    from ._files import Grant as Grant
    from ._learn import Learned as Learned
    from ._learn import learn as learn
    from ._model import Audit as Audit
    from ._model import Clock as Clock
    from ._model import Environment as Environment
    from ._model import Limits as Limits
    from ._model import Network as Network
    from ._model import Problem as Problem
    from ._model import Random as Random
    from ._model import Syscalls as Syscalls
    from ._policy import Policy as Policy
    from ._profiles import profile_named as profile_named
    from ._requests import Access as Access
    from ._requests import Request as Request
    from ._requests import access_of as access_of
    from ._units import parse_duration as parse_duration
    from ._units import parse_size as parse_size
    from .lockdown import Lockdown as Lockdown

__all__ = [
    "Audit",
    "Clock",
    "Decision",
    "Environment",
    "Event",
    "Filesystem",
    "Grant",
    "Learned",
    "Limits",
    "Lockdown",
    "LockdownError",
    "Network",
    "Policy",
    "PolicyError",
    "Problem",
    "Random",
    "Request",
    "Syscalls",
    "access_of",
    "learn",
    "parse_duration",
    "parse_size",
    "profile_named",
    "read_events",
]

_HOMES = {
    "Audit": "_model",
    "Clock": "_model",
    "Decision": "_decide",
    "Environment": "_model",
    "Event": "_audit",
    "Filesystem": "_files",
    "Grant": "_files",
    "Learned": "_learn",
    "Limits": "_model",
    "Lockdown": "lockdown",
    "LockdownError": "_errors",
    "Network": "_model",
    "Policy": "_policy",
    "PolicyError": "_errors",
    "Problem": "_model",
    "Random": "_model",
    "Request": "_requests",
    "Syscalls": "_model",
    "access_of": "_requests",
    "learn": "_learn",
    "parse_duration": "_units",
    "parse_size": "_units",
    "profile_named": "_profiles",
    "read_events": "_audit",
}


if not TYPE_CHECKING:  # else every name would be one of ours to a type checker

    def __getattr__(name: str) -> object:
        """Import the module that a public name lives in, and keep the name here."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f".{home}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the names that are not imported yet, too."""
    return sorted({*globals(), *__all__})
