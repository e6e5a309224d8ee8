"""Tests of wali_core.processes._supervisor: what ends a program with all that it has started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# An ordinary user of whom there is nothing else here may have so many processes, each of which
# starts another whenever it can, in a session of its own.  They end after so many seconds, whatever
# goes wrong, and have the lowest priority.
MANY = 60
SECONDS = 10

TREE = f"""
import os, resource, signal, time
from wali_core.processes._supervisor import adopt_orphans, children, end_descendants

os.setresuid(61234, 61234, 61234)
resource.setrlimit(resource.RLIMIT_NPROC, ({MANY}, {MANY}))
until = time.monotonic() + {SECONDS}
adopt_orphans()
full, told = os.pipe()
os.set_blocking(told, False)
if os.fork() == 0:
    os.nice(19)
    while time.monotonic() < until:
        try:
            if os.fork() == 0:
                os.setsid()
        except BlockingIOError:
            try:
                os.write(told, b".")
            except BlockingIOError:
                pass
    os._exit(0)
os.read(full, 1)
end_descendants()
print(children(), until - time.monotonic() > {SECONDS} / 2)
"""


@pytest.mark.skipif(
    os.getuid() != 0, reason="needs root, to be a user who has nothing else running"
)
def test_a_tree_that_grows_again_while_it_is_ended() -> None:
    """Whoever is killed makes room for another, which must not be what goes on for ever."""
    done = subprocess.run(
        [sys.executable, "-c", TREE], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.stdout, done.stderr) == ("[] True\n", "")
