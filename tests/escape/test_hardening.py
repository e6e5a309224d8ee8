"""What leads to no file outside, and still is more than a guest or a shim should be able to do."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from wasmtime import wat2wasm

from tests.escape.broken import ROOT
from tests.escape.evil import BOX, LONG_AGO, TOKEN, Evil, Out
from tests.escape.paths import TIMES
from tests.wasi_shim.calls import WasiError
from wali_core import GuestTimeout, _bridge
from wali_core._plan import Plan
from wali_core._stdio import Given

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.escape.evil import EvilHost, World
    from tests.escape.wasi_guest import WasiHost

# --- clocks ---------------------------------------------------------------------------------------


def process_clock(pid: int) -> int:
    """The clock that counts a process's CPU time (clock_getcpuclockid(3))."""
    return (~pid << 3) | 2


@pytest.mark.parametrize("call", ["clock_gettime", "clock_getres"])
def test_clocks_of_other_processes(evil: Evil, call: str) -> None:
    """A negative clock names a process, and would tell whether it lives and how it works."""
    for pid in (1, os.getppid()):
        assert evil.call(call, process_clock(pid), Out(16)) == -errno.EINVAL


@pytest.mark.parametrize("call", ["clock_gettime", "clock_getres"])
def test_clocks_of_descriptors(evil: Evil, call: str) -> None:
    """Another negative clock names a descriptor of the host's."""
    clock = (~evil.world.host_file << 3) | 3
    assert evil.call(call, clock, Out(16)) == -errno.EINVAL


# --- files that are more than files ---------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777])
@pytest.mark.parametrize("call", ["openat", "openat2"])
def test_no_set_user_id_files(evil: Evil, call: str, mode: int) -> None:
    """A program that runs as whoever made it is a way out for somebody else on the machine."""
    if call == "openat":
        evil.call("openat", BOX, b"new", os.O_CREAT | os.O_WRONLY, mode)
    else:
        evil.openat2(BOX, b"new", os.O_CREAT | os.O_WRONLY, mode=mode)
    made = evil.world.box / "new"
    assert not made.exists() or not made.stat().st_mode & 0o6000


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel lets only root")
def test_no_devices_by_rename(evil: Evil) -> None:
    """RENAME_WHITEOUT leaves a character device behind, where it is allowed."""
    evil.call("renameat2", BOX, b"file", BOX, b"new", 4)
    assert not (evil.world.box / "file").is_char_device()


def test_fifo_does_not_stop_the_clock(evil: Evil) -> None:
    """A shim that opens a FIFO without O_NONBLOCK waits, at most until the guest's time is up."""
    fifo = evil.world.box / "fifo"
    os.mkfifo(fifo)
    evil.memory.write(evil.arena, b"fifo\0")

    def rescue() -> None:
        if not done.wait(3):
            os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))

    done = threading.Event()
    rescuer = threading.Thread(target=rescue)
    rescuer.start()
    start = time.monotonic()
    try:
        evil.guest.call("wali.SYS_openat", BOX, evil.arena, os.O_RDONLY, 0, timeout=0.1)
    except GuestTimeout:
        pass
    finally:
        elapsed = time.monotonic() - start
        done.set()
        rescuer.join()
    assert elapsed < 2


# --- standard streams -----------------------------------------------------------------------------


@contextmanager
def descriptor(path: Path | str, flags: int) -> Iterator[int]:
    """A file, open."""
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def test_directory_as_standard_input_is_no_grant(evil_host: EvilHost, world: World) -> None:
    """`wali run program < folder` must not let it make files there."""
    with (
        descriptor(world.outside, os.O_RDONLY) as fd,
        evil_host.enter(world, stdin=fd) as evil,
    ):
        evil.scribble(evil.call("openat", 0, b"new", os.O_CREAT | os.O_RDWR, 0o600))
        evil.call("unlinkat", 0, b"secret", 0)
    assert not world.changed


def test_directory_as_standard_input_is_no_way_to_procfs(evil_host: EvilHost, world: World) -> None:
    """`wali run program < /` must not give it the engine's memory."""
    with descriptor("/", os.O_RDONLY) as fd, evil_host.enter(world, stdin=fd) as evil:
        assert evil.openat2(0, b"proc/self/mem", os.O_RDWR) < 0


def test_standard_input_is_for_reading(evil_host: EvilHost, world: World) -> None:
    """A file that is open for reading only keeps its times."""
    with (
        descriptor(world.outside / "secret", os.O_RDONLY) as fd,
        evil_host.enter(world, stdin=fd) as evil,
    ):
        evil.call("utimensat", 0, 0, TIMES, 0)
        evil.call("utimensat", 0, b"", TIMES, 0x1000)
    assert (world.outside / "secret").stat().st_mtime == LONG_AGO


def test_standard_input_is_for_reading_by_wasi(wasi_host: WasiHost, world: World) -> None:
    """The same by fd_filestat_set_times, for any guest."""
    with (
        descriptor(world.outside / "secret", os.O_RDONLY) as fd,
        wasi_host.enter(world, stdin=fd) as wasi,
    ):
        assert TOKEN in wasi.read(0, 64)
        with pytest.raises(WasiError):
            wasi.call("fd_filestat_set_times", 0, 5, 5, 5)
    assert not world.changed


# --- a guest that is only being started -----------------------------------------------------------

RUN = """
import sys, wali_core
try:
    wali_core.run_sync(sys.stdin.buffer.read(), timeout=0.2, cache=False)
except wali_core.GuestTimeout:
    print("in time")
except KeyboardInterrupt:
    print("interrupted")
"""

START = '(module (func $f (loop $again (br $again))) (start $f) (func (export "_start")))'


def test_start_section_has_no_more_time_than_the_guest() -> None:
    """A module whose start function never ends is ended at the deadline as well."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=bytes(wat2wasm(START)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=False,
        timeout=5,
    )
    assert done.stdout == b"in time\n"


def test_start_section_can_be_interrupted() -> None:
    """Ctrl-C ends it too."""
    command = [sys.executable, "-c", RUN.replace("timeout=0.2, ", "")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(wat2wasm(START)))
        process.stdin.close()
        process.stdin = None
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=3)
        finally:
            process.kill()
    assert output == b"interrupted\n"


# --- memory that is no linear memory --------------------------------------------------------------


def test_tables_count_as_memory(wasi_host: WasiHost) -> None:
    """A table of ten million elements is 80 MB, whatever the limit on memory."""
    text = (
        '(module (table $t 1 funcref) (func (export "f") (result i32)'
        "(table.grow $t (ref.null func) (i32.const 10000000))))"
    )
    runtime = wasi_host.runtime
    module = runtime.load(bytes(wat2wasm(text)))
    grants = runtime.grants(memory=1 << 20)
    with runtime.start(Plan(module, grants, Given((-1, -1, -1)))) as guest:
        assert guest.call("f") == -1


# --- handlers of signals --------------------------------------------------------------------------

TWO_CORES = """
import sys
from wali_core import GuestTrap, Runtime, _bridge
module = sys.stdin.buffer.read()
cores = _bridge.core, _bridge.Core(sys.argv[1]), _bridge.core
for runtime in [Runtime(cache=False, core=core) for core in cores]:
    with runtime.instantiate(module) as guest:
        try:
            guest.call("f")
        except GuestTrap as trap:
            print(trap)
"""


def test_handlers_do_not_go_in_circles(tmp_path: Path) -> None:
    """A core that is loaded after another passes faults on, and neither gets them back."""
    second = shutil.copy(_bridge.CORE_PATH, tmp_path / "second.so")
    text = '(module (memory 1) (func (export "f") (drop (i32.load (i32.const 0x7ffffff0)))))'
    done = subprocess.run(
        [sys.executable, "-c", TWO_CORES, second],
        input=bytes(wat2wasm(text)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=False,
        timeout=5,
    )
    assert done.returncode == 0
    assert done.stdout.count(b"out of bounds") == 3
