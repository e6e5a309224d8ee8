"""Tests of wali_core._stdio: whose descriptors a guest's three streams are."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.held import open_descriptors, settled_descriptors
from wali_core import UseError
from wali_core import _stdio as stdio
from wali_core._stdio import DEVNULL, PIPE, STDOUT, Given, Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

F_GET_SEALS = 1034


class NoFile(io.BytesIO):
    """A stream of Python's own, behind which there is no descriptor."""

    def __repr__(self) -> str:
        return "no file"


NO_FILE = NoFile()


@pytest.fixture
def streams() -> Iterator[Callable[..., Streams]]:
    """Return a function that makes streams, which are closed at the end, and leave nothing."""
    made: list[Streams] = []
    before = settled_descriptors()

    def make(stdin: Any = None, stdout: Any = None, stderr: Any = None, **options: Any) -> Streams:
        made.append(Streams(stdin, stdout, stderr, **({"capture": False, "limit": 9} | options)))
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.close()
    assert open_descriptors() == before


def test_nothing_said_is_inherited(streams: Callable[..., Streams]) -> None:
    """Without a word a guest has the process's own streams, which are not closed."""
    assert list(streams().host) == [0, 1, 2]


def test_what_is_given_is_used(streams: Callable[..., Streams], tmp_path: Path) -> None:
    """Descriptors and files are used as they are, and stay open."""
    with (tmp_path / "file").open("wb") as file:
        made = streams(file, 2, file.fileno())
        assert list(made.host) == [file.fileno(), 2, file.fileno()]
        made.close()
        file.write(b"still open")


def test_nothing_can_be_given(streams: Callable[..., Streams]) -> None:
    """DEVNULL is read as empty and takes everything, as with subprocess."""
    made = streams(DEVNULL, subprocess.DEVNULL, DEVNULL)

    assert len(set(made.host)) == 3
    assert os.read(made.host[0], 10) == b""
    assert os.write(made.host[1], b"gone") == 4


@pytest.mark.parametrize("data", [b"", b"input", bytearray(b"x" * 200_000)], ids=len)
def test_bytes_become_a_file_in_memory(
    data: bytes | bytearray, streams: Callable[..., Streams]
) -> None:
    """Bytes are read from the start to the end; nobody, the guest included, can change them."""
    fd = streams(data).host[0]

    assert os.pread(fd, len(data) + 1, 0) == data
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    assert not os.get_inheritable(fd)
    assert fcntl.fcntl(fd, F_GET_SEALS) == stdio._SEALS
    for change in (lambda: os.write(fd, b"x"), lambda: os.ftruncate(fd, 1_000_000)):
        with pytest.raises(OSError, match="Operation not permitted") as caught:
            change()
        assert caught.value.errno == errno.EPERM


def test_output_is_captured_apart(streams: Callable[..., Streams]) -> None:
    """Captured streams are two, and give what was written to each, once."""
    made = streams(capture=True, limit=4)
    os.write(made.host[1], b"out")
    os.write(made.host[2], b"error")

    assert made.finish() == (b"out", b"erro")
    assert made.exceeded
    assert made.finish() == (None, None)


def test_one_stream_is_captured(streams: Callable[..., Streams]) -> None:
    """PIPE is for one of the two, and STDOUT sends both there."""
    made = streams(None, PIPE, STDOUT, limit=(4, None))
    os.write(made.host[1], b"1")
    os.write(made.host[2], b"2")
    assert made.finish() == (b"12", None)

    made = streams(None, DEVNULL, PIPE, limit=(0, None))
    os.write(made.host[2], b"error")
    assert made.finish() == (None, b"error")
    assert not made.exceeded


def test_the_constants_are_those_of_subprocess() -> None:
    """Whoever knows subprocess can use its words."""
    theirs = (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL)

    assert theirs == (PIPE, STDOUT, DEVNULL)


def test_without_a_capture_there_is_none(streams: Callable[..., Streams]) -> None:
    """Where nothing is captured, nothing is given, and nothing was too much."""
    made = streams()

    assert made.finish() == (None, None)
    assert not made.exceeded


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((9999, None, None), UseError, "descriptor 9999, given as stream 0, is not open"),
        ((-1, None, None), UseError, "descriptor -1, given as stream 0, is not open"),
        ((None, STDOUT, None), UseError, "descriptor -2, given as stream 1, is not open"),
        ((None, None, -4), UseError, "descriptor -4, given as stream 2"),
        ((None, 1 << 40, None), UseError, "is not open"),
        (("text", None, None), TypeError, "stream 0 is neither bytes nor .* nor gives any: 'text'"),
        ((5.5, None, None), TypeError, "stream 0 is neither bytes nor a descriptor"),
        ((None, b"bytes", None), TypeError, "stream 1 is neither"),
        ((None, None, 1.5), TypeError, "stream 2 is neither"),
        ((None, NO_FILE, None), TypeError, "stream 1 is neither .* can it be called"),
    ],
    ids=lambda value: repr(value) if isinstance(value, tuple) else "",
)
def test_what_is_no_stream_is_refused(
    given: tuple[Any, ...],
    error: type[Exception],
    message: str,
    streams: Callable[..., Streams],
) -> None:
    """What cannot be a stream is refused by its number, and nothing stays open."""
    with pytest.raises(error, match=message):
        streams(*given)
    if given[0] is None:
        with pytest.raises(error, match=message):
            streams(b"in memory by then", *given[1:])


@pytest.mark.parametrize("limit", [-1, (None, -5), "1M"])
def test_limits_are_numbers_of_bytes(limit: Any) -> None:
    """Anything else is named."""
    with pytest.raises(UseError, match=r"output_limit=.*: it must be a number of bytes"):
        Streams(None, None, None, capture=True, limit=limit)


@pytest.mark.parametrize("given", [(None, 1, None), (None, None, DEVNULL)])
def test_captured_streams_cannot_be_given(
    given: tuple[Any, ...], streams: Callable[..., Streams]
) -> None:
    """Output either goes somewhere, or is captured."""
    with pytest.raises(UseError, match="capture_output takes stdout and stderr"):
        streams(*given, capture=True)


def test_streams_of_the_caller_stay_as_they_are() -> None:
    """Three descriptors of the caller's are lent, -1 for none."""
    assert list(Given((5, -1, 2)).host) == [5, -1, 2]
    assert Given((0, 1, 2)).captures == ()


# --- closed streams -------------------------------------------------------------------------------

CLOSED = """
import os
from wali_core import _stdio
os.close(0), os.close(2)
first = _stdio.own_streams()
opened = os.open(os.__file__, os.O_RDONLY)
again = _stdio.own_streams()
lent = list(_stdio.Given((0, 1, 2)).host)
inheritable = os.get_inheritable(0)
os.dup2(opened, 0)
replaced = _stdio.own_streams()
print(first, opened, again, lent, inheritable, replaced)
"""


def test_closed_streams_are_plugged() -> None:
    """A closed stream is none, and nothing that is opened later becomes it by accident."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[-1, 1, -1] 3 [-1, 1, -1] [-1, 1, -1] False [0, 1, -1]\n"


def test_a_stream_that_is_nothing_is_one() -> None:
    """A process that was given /dev/null has a stream: it is not taken for a plug."""
    code = "from wali_core import _stdio; print(_stdio.own_streams())"

    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "[0, 1, 2]\n"
