"""WASI and WALI programs on wasmtime, confined.

# General layout:
#
# _table.py            every call that a module may import; the build makes the C thunks from it,
#                      and the numbers of _constants.py; _layout.py: what C and Python share
# native/              the trusted C: thunks, descriptors, memory checks, capability mode, waiting
# _bridge.py           the only module that calls wasmtime and the native core
# _engine.py _cache.py compiling, and compiled modules on disk
# _passes.py           what is changed in a module's code before: rewriting/ does it
# _abi.py _link.py     which interface a module imports, and what stands behind each import
# _guest.py            one guest: memory, descriptors, shim, calls; _function.py what it exports
# _monitor.py          deadlines, Ctrl-C and captured output of guests that have a thread;
#                      _patience.py what is not waited for any longer then
# tasks/               guests that are tasks of trio
# programs/            WALI programs; _signals.py how signals get to them
# processes/           processes for those, from the outside: _launcher.py starts them, _child.py is
#                      what they do, _confine.py _filter.py what holds them
# _limits.py           what a guest may use up
# _audit.py            what is written down of it: _audit_wasi.py
# _grants.py _sockets.py  what a guest is given,
# _stdio.py _pump.py      and what its standard streams are
# _runtime.py _run.py  what the public functions are made of,
# _modules.py _plan.py    what guests are compiled and linked by, and what one is started with
# _ending.py _result.py _statistics.py _errors.py  how it ended
# aio.py               trio in programs that are asyncio's
# lowlevel.py _foreign.py  a shim in a Store of somebody else's
# cli.py               the command ``wali``: _options.py its options, _terminal.py what it says,
#                      _invoke.py --invoke, _policies.py ``wali policy``: _follow.py _elf.py what
#                      it finds out of native programs

Nothing is imported before it is used: ``wali run`` must start faster than ``import wasmtime``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wali_core._errors import GuestDenied as GuestDenied
    from wali_core._errors import GuestError as GuestError
    from wali_core._errors import GuestExit as GuestExit
    from wali_core._errors import GuestLimit as GuestLimit
    from wali_core._errors import GuestTimeout as GuestTimeout
    from wali_core._errors import GuestTrap as GuestTrap
    from wali_core._errors import ModuleError as ModuleError
    from wali_core._errors import PolicyError as PolicyError
    from wali_core._errors import UnsupportedPlatform as UnsupportedPlatform
    from wali_core._errors import UseError as UseError
    from wali_core._errors import WaliError as WaliError
    from wali_core._guest import Guest as Guest
    from wali_core._guest import Memory as Memory
    from wali_core._result import CompletedGuest as CompletedGuest
    from wali_core._result import GuestFailed as GuestFailed
    from wali_core._run import run as run
    from wali_core._run import run_sync as run_sync
    from wali_core._runtime import Runtime as Runtime
    from wali_core._statistics import RuntimeStatistics as RuntimeStatistics
    from wali_core._statistics import Statistics as Statistics
    from wali_core.tasks._cooperative import CooperativeGuest as CooperativeGuest

_HOMES = {
    **dict.fromkeys(
        (
            "GuestDenied",
            "GuestError",
            "GuestExit",
            "GuestLimit",
            "GuestTimeout",
            "GuestTrap",
            "ModuleError",
            "PolicyError",
            "UnsupportedPlatform",
            "UseError",
            "WaliError",
        ),
        "_errors",
    ),
    "CooperativeGuest": "tasks._cooperative",
    **dict.fromkeys(("Guest", "Memory"), "_guest"),
    **dict.fromkeys(("CompletedGuest", "GuestFailed"), "_result"),
    **dict.fromkeys(("run", "run_sync"), "_run"),
    "Runtime": "_runtime",
    **dict.fromkeys(("RuntimeStatistics", "Statistics"), "_statistics"),
}

__all__ = [
    "CompletedGuest",
    "CooperativeGuest",
    "Guest",
    "GuestDenied",
    "GuestError",
    "GuestExit",
    "GuestFailed",
    "GuestLimit",
    "GuestTimeout",
    "GuestTrap",
    "Memory",
    "ModuleError",
    "PolicyError",
    "Runtime",
    "RuntimeStatistics",
    "Statistics",
    "UnsupportedPlatform",
    "UseError",
    "WaliError",
    "run",
    "run_sync",
]


def _require_platform() -> None:
    import os
    import sys

    machine = os.uname().machine if hasattr(os, "uname") else "this machine"
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        from wali_core._errors import UnsupportedPlatform

        raise UnsupportedPlatform(
            f"wali_core runs on Linux on x86-64 and aarch64 only, not on {sys.platform} {machine}"
        )


_require_platform()


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'wali_core' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"wali_core.{home}"), name)
    globals()[name] = value
    return value
