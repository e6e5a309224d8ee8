"""What the commands of ``wali`` have in common: how they speak, and how they end."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TIMED_OUT: Final = 124
REFUSED: Final = 126
NOT_FOUND: Final = 127
TRAPPED: Final = 128 + 6  # SIGABRT, as natively
USED_UP: Final = {
    "cpu_time": 128 + 24,  # SIGXCPU
    "output": 128 + 25,  # SIGXFSZ
    # SIGKILL, as without memory
    **dict.fromkeys(("memory", "open_files", "processes", "threads"), 128 + 9),
}
DENIED: Final = 128 + 31  # SIGSYS
USAGE_ERROR: Final = 2
WRITE_ERROR: Final = 1


class Refusal(Exception):
    """One line for the user, and a status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def say(message: str, status: int) -> int:
    """Tell the user, if there is a way; the status says it in any case."""
    message = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    if sys.stderr is not None:
        try:
            sys.stderr.write(f"wali: {message}\n")
            sys.stderr.flush()
        except OSError:
            pass
    return status


def on_terminal() -> bool:
    """Is somebody there who reads what we say?"""
    return sys.stderr is not None and sys.stderr.isatty()


def print_text(text: str) -> None:
    """Print to standard output, at once.  Names and paths go out as the bytes that they are."""
    if sys.stdout is None:
        raise Refusal("standard output is closed", WRITE_ERROR)
    try:
        sys.stdout.buffer.write(os.fsencode(text))
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer shall not be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            end_by(SIGPIPE)
        raise Refusal(f"standard output: {error.strerror}", WRITE_ERROR) from None


SIGINT, SIGPIPE = 2, 13


def end_by(number: int) -> int:
    """End as a native program does, so that a shell sees what happened."""
    _default_action(number)
    os.kill(os.getpid(), number)
    return 128 + number


def _default_action(number: int) -> None:
    # Not the module signal: it makes enums of every number, which takes as long as loading a guest.
    import _signal  # type: ignore[import-not-found]

    _signal.signal(number, _signal.SIG_DFL)


def default_interrupt() -> None:
    """Let Ctrl-C end the process at once, in a compilation or a guest: neither runs Python.

    Where whoever started us had it ignored, as shells do in the background, it stays so.
    """
    import _signal

    if _signal.getsignal(SIGINT) is _signal.default_int_handler:
        _default_action(SIGINT)


def require_file(path: str) -> None:
    if not os.path.exists(path):
        raise Refusal(f"{path}: no such file", NOT_FOUND)
    if os.path.isdir(path):
        raise Refusal(f"{path}: a directory, not a WebAssembly module", REFUSED)
    if not os.access(path, os.R_OK):
        raise Refusal(f"{path}: not readable", REFUSED)
