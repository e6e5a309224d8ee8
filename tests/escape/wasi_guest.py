"""Guests of the real shim, in the same world that the evil one is let into."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wasmtime import wat2wasm

from tests.escape.evil import TOKEN
from tests.wasi_shim.calls import PAGES, SIGNATURES, Errno, Wasi, WasiError
from wali_core._link import ShimLink
from wali_core._runtime import Runtime
from wasi_shim import WasiAbi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.escape.evil import World

WIDTHS = {"i": "i32", "I": "i64"}

GROW = '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))'


class ChosenAbi(WasiAbi):
    """The real shim, told to resolve paths in one way or the other."""

    def __init__(self, *, manual_walk: bool) -> None:
        self._manual_walk = manual_walk

    def configuration(
        self,
        args: Sequence[bytes],
        env: Sequence[bytes],
        preopens: Sequence[tuple[int, bytes, bool]],
        datagrams: Sequence[int] = (),
        **options: Any,
    ) -> bytes:
        """The usual configuration, but for the way of resolving."""
        options["manual_walk"] = self._manual_walk
        return super().configuration(args, env, preopens, datagrams, **options)


def functions(interface: str) -> dict[str, str]:
    """The functions of an interface and the kinds of their parameters."""
    return {
        name: kinds
        for name, kinds in SIGNATURES.items()
        if interface != "wasi_unstable" or name != "sock_accept"
    }


def relay(interface: str, extra: str = GROW) -> bytes:
    """A module that exports every function of the interface, and a memory."""
    lines = ["(module"]
    for name, kinds in functions(interface).items():
        types = "".join(f" (param {WIDTHS[kind]})" for kind in kinds)
        types += "" if name == "proc_exit" else " (result i32)"
        lines.append(f'(import "{interface}" "{name}" (func ${name}{types}))')
    lines += [f'(export "{name}" (func ${name}))' for name in functions(interface)]
    lines.append(f'(memory (export "memory") {PAGES}) {extra})')
    return bytes(wat2wasm("\n".join(lines)))


def answer(call: Callable[..., object], *arguments: Any, **options: Any) -> Errno:
    """What a call answers.  The secret must not be in it."""
    try:
        result = call(*arguments, **options)
    except WasiError as error:
        return error.errno
    assert TOKEN not in repr(result).encode()
    return Errno.SUCCESS


class WasiHost:
    """A runtime with the real shim, which resolves paths in one way."""

    def __init__(self, *, manual_walk: bool) -> None:
        self.runtime = Runtime(cache=False)
        abi = ChosenAbi(manual_walk=manual_walk)
        with open(abi.path(), "rb") as file:
            module = self.runtime._modules.compile(file.read(), "the shim")
        self.runtime._modules.serve(abi, ShimLink(module))
        self._guests = {name: self.runtime.load(relay(name)) for name in abi.modules}

    @contextmanager
    def enter(
        self,
        world: World,
        *,
        stdin: int = -1,
        stdout: int = -1,
        interface: str = "wasi_snapshot_preview1",
        **options: Any,
    ) -> Iterator[Wasi]:
        """A guest with the box as 3, writable, and the shelf as 4, read-only."""
        dirs = {"/box": (str(world.box), "rw"), "/shelf": (str(world.shelf), "ro")}
        stdio = (stdin, stdout, -1)
        module = self._guests[interface]
        with self.runtime.instantiate(module, dirs=dirs, stdio=stdio, **options) as guest:
            yield Wasi(guest)

    def close(self) -> None:
        """Close the runtime."""
        self.runtime.close()
