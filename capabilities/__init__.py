"""What a guest may do, as data: policies are read, checked and combined here.

They are enforced elsewhere: here is no WebAssembly, and no file is opened but the policy itself.
The one exception is the package `lockdown`, which asks the kernel to confine a thread.
"""

# General layout:
#
#   _units    sizes ("256M") and durations ("10s") as people write them
#   _errors   PolicyError: all that is wrong with a policy, at once; LockdownError
#   _model    Grant, Filesystem, Environment, Network, Syscalls, Limits, Problem: frozen values
#   _load     TOML to those values, with every mistake found
#   _show     those values to canonical TOML
#   _calls    which system calls those values grant
#   _policy   Policy, which ties the others together
#   lockdown  Landlock and limits of the kernel's, set before a guest runs
#
# Names are imported when they are first used: attrs and cattrs take longer to import than a small
# guest to run, and a guest without a policy needs neither. For the same reason `typing` is not
# imported here: type checkers take the constant below for true.

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._errors import LockdownError as LockdownError
    from ._errors import PolicyError as PolicyError
    from ._model import Environment as Environment
    from ._model import Filesystem as Filesystem
    from ._model import Grant as Grant
    from ._model import Limits as Limits
    from ._model import Network as Network
    from ._model import Problem as Problem
    from ._model import Syscalls as Syscalls
    from ._policy import Policy as Policy
    from ._units import parse_duration as parse_duration
    from ._units import parse_size as parse_size
    from .lockdown import Lockdown as Lockdown

__all__ = [
    "Environment",
    "Filesystem",
    "Grant",
    "Limits",
    "Lockdown",
    "LockdownError",
    "Network",
    "Policy",
    "PolicyError",
    "Problem",
    "Syscalls",
    "parse_duration",
    "parse_size",
]

_HOMES = {
    "Environment": "_model",
    "Filesystem": "_model",
    "Grant": "_model",
    "Limits": "_model",
    "Lockdown": "lockdown",
    "LockdownError": "_errors",
    "Network": "_model",
    "Policy": "_policy",
    "PolicyError": "_errors",
    "Problem": "_model",
    "Syscalls": "_model",
    "parse_duration": "_units",
    "parse_size": "_units",
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
