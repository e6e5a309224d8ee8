"""Another process that exchanges two names, again and again, until it is told to stop."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def exchanging(first: Path, second: Path) -> Iterator[None]:
    """Two names change places as fast as they can while the block runs."""
    command = [sys.executable, __file__, str(first), str(second)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(1) == b"!"  # it has begun
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    """Exchange until somebody kills this process, or its parent is gone."""
    first, second = map(os.fsencode, sys.argv[1:3])
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    parent = os.getppid()
    if rename(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")
    os.write(1, b"!")
    while os.getppid() == parent:
        for _ in range(1000):
            rename(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)


if __name__ == "__main__":
    main()
