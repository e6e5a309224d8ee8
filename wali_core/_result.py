"""How a program ended, as ``subprocess`` would say it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from wali_core._errors import TOO_MUCH_OUTPUT, GuestError, ended_by
from wali_core._stdio import PIPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from resource import struct_rusage

    from wali_core._ending import Ending
    from wali_core._stdio import Streams


class GuestFailed(GuestError):
    """``CompletedGuest.check_returncode`` found a status other than 0."""

    def __init__(self, result: CompletedGuest) -> None:
        super().__init__(f"{result.module} exited with status {result.returncode}")
        self.result = result
        self.returncode = result.returncode
        self.stdout, self.stderr = result.stdout, result.stderr

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.result,), self.__dict__


@attrs.frozen
class CompletedGuest:
    """How a program ended: shaped like ``subprocess.CompletedProcess``.

    ``stdout`` and ``stderr`` are bytes where they were captured, else None.
    """

    module: str
    args: tuple[str | bytes, ...]
    returncode: int
    stdout: bytes | None = None
    stderr: bytes | None = None
    usage: struct_rusage | None = None
    """What a program with a process of its own has used (getrusage(2)), else None."""

    def check_returncode(self) -> None:
        """Raise ``GuestFailed`` unless the status is 0."""
        if self.returncode:
            raise GuestFailed(self)


def completed(
    run: Callable[[], Ending], module: str, args: Sequence[str | bytes], streams: Streams
) -> CompletedGuest:
    """The result of ``run``, with what the streams captured; errors get that too.

    Raises what went wrong with the streams, if anything did, even as the program had ended.
    """
    try:
        ending = run()
    except GuestError as error:
        failed(error, streams)
        raise
    return concluded(ending, module, args, streams)


def failed(error: GuestError, streams: Streams) -> None:
    """Give an error what the streams captured.  Raises what went wrong with those."""
    error.stdout, error.stderr = streams.finish()
    if streams.error is not None:
        raise streams.error from error


@contextmanager
def captured_nothing(stdout: object, stderr: object, *, capture: bool) -> Iterator[None]:
    """What ends in here does so before the program began: so it has what was captured, nothing."""
    try:
        yield
    except GuestError as error:
        error.stdout = b"" if capture or stdout == PIPE else None
        error.stderr = b"" if capture or stderr == PIPE else None
        raise


def concluded(
    ending: Ending, module: str, args: Sequence[str | bytes], streams: Streams
) -> CompletedGuest:
    """The result of a program that has ended by itself; raises as ``completed``."""
    stdout, stderr = streams.finish()
    if streams.error is not None:
        raise streams.error
    late = ended_by(TOO_MUCH_OUTPUT) if streams.exceeded else streams.late
    if late is not None:
        late.stdout, late.stderr = stdout, stderr
        raise late
    return CompletedGuest(module, tuple(args), ending.status, stdout, stderr, ending.usage)
