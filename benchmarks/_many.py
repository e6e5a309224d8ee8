"""Many guests that wait, and a process that wakes them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

WASI = "wasi_snapshot_preview1"

# Waits until one of its descriptors 0, 3, 4 and so on is readable, as many as are asked for.
POLLER = f"""(module
  (import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "poll") (param $count i32) (result i32) (local $i i32) (local $at i32)
    (loop $next
      (local.set $at (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 48))))
      (i64.store (local.get $at) (i64.extend_i32_u (local.get $i)))
      (i32.store8 offset=8 (local.get $at) (i32.const 1))
      (i32.store offset=16 (local.get $at)
        (select (i32.add (local.get $i) (i32.const 2)) (i32.const 0) (local.get $i)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $count))))
    (if (i32.ne (call $poll (i32.const 1024) (i32.const 65536) (local.get $count) (i32.const 0))
                (i32.const 0))
      (then (return (i32.const -1))))
    (i32.load (i32.const 65536)))
  (func (export "spin") (loop $again (br $again)))
  (func (export "_start")
    (i32.store8 offset=8 (i32.const 1024) (i32.const 1))
    (drop (call $poll (i32.const 1024) (i32.const 65536) (i32.const 1) (i32.const 0)))))"""

# Holds the other ends of pipes, and writes to those that it is told.
WRITER = """
import os, socket, sys
control, ends = socket.socket(fileno=int(sys.argv[1])), []
while True:
    words, received, _, _ = socket.recv_fds(control, 64, 200)
    if not words:
        break
    ends += received
    if words != b"take":
        os.write(ends[int(words)], b"x")
    control.send(b"done")
"""


class Writer:
    """A process that has the writing ends of ``count`` pipes, of which ``reads`` are the others."""

    def __init__(self, count: int) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import resource\n{LIMIT}\n{WRITER}", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.reads: list[int] = []
        while len(self.reads) < count:
            ends = [os.pipe() for _ in range(min(200, count - len(self.reads)))]
            self.reads += [read for read, _ in ends]
            socket.send_fds(self._control, [b"take"], [write for _, write in ends])
            for _, write in ends:
                os.close(write)
            self._control.recv(10)

    def write(self, index: int) -> None:
        """Have a byte written to that pipe."""
        self._control.send(b"%d" % index)
        self._control.recv(10)

    def close(self) -> None:
        """End the process, and close the pipes."""
        self._control.close()
        self._process.wait()
        for fd in self.reads:
            os.close(fd)


LIMIT = """
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
"""
