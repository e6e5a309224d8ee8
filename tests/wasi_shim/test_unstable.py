"""The old edition, wasi_unstable: where it differs."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.wasi_shim.calls import Wasi, WasiError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.wasi_shim.conftest import Start


@pytest.fixture
def unstable(start: Start, box: Path) -> Wasi:
    """Return a guest that imports wasi_unstable, with a file of ten bytes in its directory."""
    (box / "file").write_bytes(b"0123456789")
    return start({"/": (str(box), "rw")}, interface="wasi_unstable")


def test_whence_is_numbered_otherwise(unstable: Wasi) -> None:
    """CUR, END, SET."""
    fd = unstable.path_open("file")

    assert unstable.seek(fd, 4, 2) == 4
    assert unstable.seek(fd, 1, 0) == 5
    assert unstable.seek(fd, -1, 1) == 9
    with pytest.raises(WasiError, match="INVAL"):
        unstable.seek(fd, 0, 3)


def test_filestat_is_shorter(unstable: Wasi, box: Path) -> None:
    """A link count of 32 bits, 56 bytes in all."""
    os.link(box / "file", box / "other")
    fd, where = unstable.path_open("file"), unstable.put_path("file")
    for call in (("fd_filestat_get", fd, 0), ("path_filestat_get", 3, 0, *where, 0)):
        unstable.memory.write(0, b"#" * 64)

        unstable.call(*call)

        data = unstable.memory.read(0, 64)
        stat = os.stat(box / "file")
        assert (stat.st_dev, stat.st_ino, 4, 2, 10) == struct.unpack("<QQB3xIQ", data[:32])
        assert stat.st_mtime_ns == int.from_bytes(data[40:48], "little")
        assert data[56:] == b"#" * 8


def test_subscriptions_are_longer(unstable: Wasi) -> None:
    """A clock has an identifier more; events are the same."""
    clock = struct.pack("<QB7xQI4xQQH6x", 1, 0, 99, 1, 0, 0, 0)
    assert len(clock) == 56
    unstable.memory.write(64, clock * 2)

    unstable.call("poll_oneoff", 64, 256, 2, 0)

    assert unstable.words() == (2,)
    assert unstable.memory.read(256, 32) == struct.pack("<QHB21x", 1, 0, 0)
