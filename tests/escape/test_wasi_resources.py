"""A guest of the real shim tries to use up its host, to stop it, or to outlast its time."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest
from wasmtime import wat2wasm

from tests.wasi_shim.calls import (
    CREAT,
    DIRECTORY,
    MEMORY_SIZE,
    PAGES,
    READ,
    WRITE,
    Errno,
    WasiError,
    clock_subscription,
)
from wali_core import GuestTimeout, GuestTrap

if TYPE_CHECKING:
    from tests.escape.evil import World
    from tests.escape.wasi_guest import WasiHost
    from tests.wasi_shim.calls import Wasi

BOX = 3
HOUR = 3600 * 10**9


@pytest.mark.parametrize("cookie", [1, 77, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_any_cookie_lists_something_or_nothing(wasi: Wasi, cookie: int) -> None:
    """A cookie that fd_readdir never gave: some entries or none, and no crash."""
    wasi.readdir(BOX, cookie)
    again = wasi.path_open(".", oflags=DIRECTORY)
    assert b"file" in {entry.name for entry in wasi.listdir(again)}


def test_entries_of_any_buffer_size(wasi: Wasi) -> None:
    """Buffers too small for one entry are filled, never overrun."""
    for size in (0, 1, 23, 24, 25, 31, 63):
        assert len(wasi.readdir(BOX, 0, size)) == size


@pytest.mark.parametrize("base", [READ, WRITE, READ | WRITE])
def test_fifo_does_not_stop_the_host(wasi: Wasi, world: World, base: int) -> None:
    """Nobody is at the other end: the open answers at once, whatever it answers."""
    os.mkfifo(world.box / "fifo")
    start = time.monotonic()
    for oflags in (0, CREAT):
        try:
            wasi.close(wasi.path_open("fifo", base=base, oflags=oflags))
        except WasiError as error:
            assert error.errno is Errno.NXIO  # noqa: PT017 - reading may go well
    assert time.monotonic() - start < 5


def test_many_subscriptions(wasi: Wasi) -> None:
    """10,000 clocks: INVAL; as many as there may be: their events."""
    wasi.memory.write(0, clock_subscription(0) * 10_000)
    assert wasi.guest.call("poll_oneoff", 0, 0, 10_000, MEMORY_SIZE - 8) == Errno.INVAL
    assert wasi.guest.call("poll_oneoff", 0, 250_000, 4096, MEMORY_SIZE - 8) == Errno.SUCCESS
    assert wasi.words(1, MEMORY_SIZE - 8) == (4096,)


def test_descriptors_run_out_in_the_guest(wasi: Wasi) -> None:
    """The guest gets MFILE long before its host has none left, and can go on after that."""
    first = wasi.path_open("file")
    wasi.memory.write(1024, b"file")
    arguments = BOX, 0, 1024, 4, 0, int(READ), 0, 0, 2048
    answers = [wasi.guest.call("path_open", *arguments) for _ in range(1100)]
    assert set(answers) == {Errno.SUCCESS, Errno.MFILE}
    assert answers.count(Errno.SUCCESS) < 1024
    os.close(os.open("/", os.O_RDONLY))
    wasi.close(first)
    assert wasi.path_open("file") == first


def test_memory_that_grows_between_calls(wasi: Wasi) -> None:
    """New pages are memory at once, and what was outside stays outside."""
    beyond = MEMORY_SIZE + 3 * 65536
    assert wasi.guest.call("random_get", MEMORY_SIZE, 8) == Errno.FAULT
    assert wasi.guest.call("grow", 4) == PAGES
    assert wasi.guest.call("random_get", MEMORY_SIZE, 8) == Errno.SUCCESS
    assert wasi.guest.call("random_get", beyond + 65536 - 8, 8) == Errno.SUCCESS
    assert wasi.guest.call("random_get", beyond + 65536 - 7, 8) == Errno.FAULT
    assert wasi.memory.read(MEMORY_SIZE, 8) != bytes(8)


def test_waiting_ends_with_the_time(wasi_host: WasiHost, world: World) -> None:
    """A guest that reads what never comes, or sleeps for an hour, is ended at its deadline."""
    read_end, write_end = os.pipe()
    try:
        with wasi_host.enter(world, stdin=read_end) as wasi:
            wasi.memory.write(64, (1024).to_bytes(4, "little") + (8).to_bytes(4, "little"))
            with pytest.raises(GuestTimeout):
                wasi.guest.call("fd_read", 0, 64, 1, 128, timeout=0.05)
        with wasi_host.enter(world) as wasi:
            wasi.memory.write(0, clock_subscription(HOUR))
            with pytest.raises(GuestTimeout):
                wasi.guest.call("poll_oneoff", 0, 1024, 1, 2048, timeout=0.05)
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize("call", ["fd_read", "sock_recv"])
def test_what_is_ready_and_gives_nothing_ends_with_the_time(
    wasi_host: WasiHost, world: World, call: str
) -> None:
    """Linux says that a datagram socket which was shut down is ready, and to read it AGAIN.

    Whoever tries again whenever it is ready tries for ever.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, wasi_host.enter(world, stdin=theirs.fileno()) as wasi:
        wasi.call("sock_shutdown", 0, 1)
        wasi.memory.write(64, (1024).to_bytes(4, "little") + (8).to_bytes(4, "little"))
        rest = (0, 128, 132) if call == "sock_recv" else (128,)
        with pytest.raises(GuestTimeout):
            wasi.guest.call(call, 0, 64, 1, *rest, timeout=0.05)


@pytest.mark.parametrize(
    "body",
    [
        "(loop $again (br $again))",
        "(loop $again (call $yield) (br $again))",
    ],
    ids=["computing", "calling"],
)
def test_computing_ends_with_the_time(wasi_host: WasiHost, body: str) -> None:
    """A busy loop, with or without calls in it, is ended too."""
    text = (
        '(module (import "wasi_snapshot_preview1" "sched_yield" (func $sched (result i32)))'
        f'(func $yield (drop (call $sched))) (func (export "f") {body}))'
    )
    with wasi_host.runtime.instantiate(bytes(wat2wasm(text)), stdio=(-1, -1, -1)) as guest:
        start = time.monotonic()
        with pytest.raises(GuestTimeout):
            guest.call("f", timeout=0.05)
        assert time.monotonic() - start < 5


def test_recursion_is_a_trap(wasi_host: WasiHost) -> None:
    """A guest that calls itself for ever traps, and the process goes on."""
    module = bytes(wat2wasm('(module (func $f (export "f") (call $f) (call $f)))'))
    with (
        wasi_host.runtime.instantiate(module) as guest,
        pytest.raises(GuestTrap, match="stack"),
    ):
        guest.call("f")


def test_deep_recursion_leaves_room_for_calls(wasi_host: WasiHost, world: World) -> None:
    """A call that is made when the guest's stack is nearly full has the host's stack to work on."""
    text = (
        '(module (import "wasi_snapshot_preview1" "path_open"'
        " (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"
        '(memory (export "memory") 1) (data (i32.const 8) "../outside/secret")'
        "(global $bad (mut i32) (i32.const 0))"
        '(func $f (export "f") (if (i32.ne (i32.const 63) (call $open (i32.const 3) (i32.const 1)'
        " (i32.const 8) (i32.const 17) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0)"
        " (i32.const 0))) (then (global.set $bad (i32.const 1)))) (call $f))"
        '(func (export "bad") (result i32) (global.get $bad)))'
    )
    dirs = {"/box": (str(world.box), "rw")}
    with wasi_host.runtime.instantiate(
        bytes(wat2wasm(text)), dirs=dirs, stdio=(-1, -1, -1)
    ) as guest:
        with pytest.raises(GuestTrap, match="stack"):
            guest.call("f", timeout=60)
        assert guest.call("bad") == 0
    assert not world.changed
