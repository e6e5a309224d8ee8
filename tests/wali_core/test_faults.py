"""Guest memory that is gone: the core's copies survive it, and traps still reach wasmtime."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import wasmtime

from wali_core import Runtime, _bridge

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
EFAULT = 21  # as WASI numbers it

GUEST = """
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "write") (param i32) (result i32)
    (call $fd_write (i32.const 1) (local.get 0) (i32.const 1) (i32.const 64)))
  (func (export "open") (param i32) (result i32)
    (call $path_open (i32.const 3) (i32.const 0) (local.get 0) (i32.const 4) (i32.const 0)
      (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 64)))
  (func (export "clock") (param i32) (result i32)
    (call $clock (i32.const 1) (i64.const 1) (local.get 0)))
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0))))
"""


@pytest.mark.parametrize("call", ["write", "open", "clock"])
def test_a_page_that_is_gone_is_efault(call: str, tmp_path: Path) -> None:
    """An argument on a page that nobody can touch answers EFAULT, and the next call works."""
    module = bytes(wasmtime.wat2wasm(GUEST))
    with Runtime() as runtime, runtime.instantiate(module, dirs={"/": tmp_path}) as guest:
        address = guest.memory._at(16 * PAGE, PAGE)
        libc = ctypes.CDLL(None)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert libc.mprotect(address, PAGE, 0) == 0

        assert guest.call(call, 16 * PAGE) == EFAULT
        assert guest.call(call, 16 * PAGE - 2) == EFAULT

        assert libc.mprotect(address, PAGE, 3) == 0
        assert guest.call("clock", 16 * PAGE) == 0


TWO_CORES = """
import sys
import faulthandler
from wali_core import GuestTrap, Runtime, _bridge
faulthandler.enable()
second = _bridge.Core(sys.argv[1])
module = open(sys.argv[2], "rb").read()
for core in (None, second, None, second):
    with Runtime(cache=False, core=core) as runtime, runtime.instantiate(module) as guest:
        try:
            guest.call("load", -8)
        except GuestTrap as trap:
            print(trap)
"""


def test_handlers_of_several_owners_do_not_chase_each_other(tmp_path: Path) -> None:
    """Two cores and faulthandler pass a trap on instead of in a circle."""
    core, module = tmp_path / "second.so", tmp_path / "guest.wasm"
    shutil.copy(_bridge.CORE_PATH, core)
    module.write_bytes(bytes(wasmtime.wat2wasm(GUEST)))

    done = subprocess.run(
        [sys.executable, "-c", TWO_CORES, str(core), str(module)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.splitlines() == ["out of bounds memory access"] * 4
