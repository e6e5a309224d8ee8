"""Everything that this library raises on purpose.

::

    WaliError
    ├── UnsupportedPlatform   not Linux on x86-64 or aarch64, or a wasmtime that we cannot use
    ├── ModuleError           the file is not a module that we run: whoever made it must act
    ├── PolicyError           what was asked for is not granted, or cannot be: the caller must act
    ├── GuestError            the guest ended in another way than by returning
    │   ├── GuestExit         it called exit: ``status`` says with what
    │   ├── GuestTrap         it did something undefined: ``frames`` says where
    │   ├── GuestTimeout      its time was up (also a ``TimeoutError``)
    │   ├── GuestLimit        it used up another of its limits: ``limit`` says which
    │   └── GuestDenied       it made a call that its policy ends it for: ``call`` says which
    └── UseError              the library was used as it must not be (also a ``RuntimeError``)

An errno that a guest gets is a value and never appears here.
"""

from __future__ import annotations


class WaliError(Exception):
    """The root: ``except WaliError`` catches all that follows."""


class UnsupportedPlatform(WaliError, ImportError):
    """This machine, or the installed wasmtime, cannot run the core."""


class ModuleError(WaliError, ValueError):
    """The module cannot be run: what is wrong with it, and what to do."""


class PolicyError(WaliError, ValueError):
    """A grant or a policy cannot be had as it was written."""


class UseError(WaliError, RuntimeError):
    """A guest was used by another thread than its own, or after it was closed."""


class GuestError(WaliError):
    """A guest ended early.  ``stdout`` and ``stderr`` hold what was captured until then."""

    stdout: bytes | None = None
    stderr: bytes | None = None


TOO_MUCH_OUTPUT = "the guest wrote more output than its limit allows"


class GuestExit(GuestError):
    """The guest called exit (WASI ``proc_exit``, Linux ``exit_group(2)``) inside a call."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the guest exited with status {status}")
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.status,), self.__dict__


class GuestTrap(GuestError):
    """The guest trapped: unreachable code, an access outside its memory, a full stack.

    ``frames`` are the names of the functions it was in, innermost first.
    """

    def __init__(self, message: str, frames: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.frames = frames


class GuestTimeout(GuestError, TimeoutError):
    """The guest was still running, or waiting, when its time was up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the guest was stopped after its {seconds:g} s (wall_time)")
        self.seconds = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.seconds,), self.__dict__


class GuestLimit(GuestError):
    """The guest used up what it may: ``limit`` says of what.

    It is ``"cpu_time"``, ``"memory"``, ``"open_files"``, ``"output"``, ``"processes"``,
    ``"threads"`` or ``"audit"``.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.limit, str(self)), self.__dict__


class GuestDenied(GuestError):
    """The guest made a call that is not granted, and its policy says ``on_deny = "kill"``."""

    def __init__(self, call: str) -> None:
        super().__init__(f"the guest made a call that its policy does not grant: {call}")
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.call,), self.__dict__


_WANTED = {
    "memory": "bytes of memory",
    "open_files": "descriptors",
    "processes": "processes and threads",
    "threads": "threads in a process",
}


def more_than(limit: str, most: int) -> GuestLimit:
    """The error of a guest that wanted more of something than there is for it."""
    message = f"the guest wanted more than its {most} {_WANTED[limit]} (limits.{limit})"
    return GuestLimit(limit, message)


def needs_more(origin: str, least: int, most: int) -> GuestLimit:
    """The error of a module whose memory starts larger than it may be; both are in bytes."""
    message = f"{origin}: needs {least} bytes of memory to start, and may have {most}"
    return GuestLimit("memory", f"{message} (limits.memory)")


def ended_by(reason: str) -> GuestError:
    """The error of a guest whose streams have had it ended, for a reason of theirs."""
    return GuestLimit("output", reason) if reason == TOO_MUCH_OUTPUT else GuestError(reason)
