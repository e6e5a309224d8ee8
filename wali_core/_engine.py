"""The compiler and its settings, and modules compiled by it."""

from __future__ import annotations

import ctypes
import os
from _thread import allocate_lock
from _weakref import ref
from ctypes import byref, c_void_p
from functools import partial

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core._cache import Cache, digest
from wali_core._errors import ModuleError, UseError
from wali_core._signals import ALL, set_mask
from wali_core._stdio import seal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from wali_core._guest import AnyGuest

_MAGIC: Final = b"\0asm"
_CORE_VERSION: Final = b"\1\0\0\0"
_COMPONENT_VERSION: Final = b"\r\0\1\0"

# What a guest's own recursion may use.  Threads with 1 MiB stacks (musl's) must have room for it,
# and for the host's frames below.
DEFAULT_STACK: Final = 512 * 1024

# What the core's calls and the kernel's signals may use besides, of a fiber's stack.
_FIBER_STACK: Final = 256 * 1024

# Part of every cache key: what is not in wasmtime's own check of an artefact.
_SETTINGS: Final = "10;fixed memories"


def sniff(data: bytes, origin: str) -> None:
    """Raise ``ModuleError`` where ``data`` is plainly not a core module."""
    if data[:4] != _MAGIC:
        what = (
            "an empty file"
            if not data
            else "not a WebAssembly module (its first bytes are not \\0asm)"
        )
        if data[:2] == b"#!" or data[:4] == b"\x7fELF":
            what = "a native program, not a WebAssembly module"
        elif data.lstrip()[:7] == b"(module":
            what = "WebAssembly text; assemble it first (wat2wasm, or wasmtime.wat2wasm in Python)"
        raise ModuleError(f"{origin}: {what}")
    if data[4:8] == _COMPONENT_VERSION:
        raise ModuleError(
            f"{origin}: a component (WASI preview 2 or later); wali runs core modules: "
            "build it for wasm32-wasip1"
        )
    if data[4:8] != _CORE_VERSION:
        raise ModuleError(f"{origin}: a truncated module, or one of an unknown version")


def _lay_out(config: int, guests: int) -> None:
    """Have room made for so many guests, each with its shim and one call going on."""
    pool = W["wasmtime_pooling_allocation_config_new"]()
    for what, each in (("core_instances", 2), ("memories", 2), ("tables", 2), ("stacks", 1)):
        W[f"wasmtime_pooling_allocation_config_total_{what}_set"](pool, each * guests)
    W["wasmtime_pooling_allocation_strategy_set"](config, pool)
    W["wasmtime_pooling_allocation_config_delete"](pool)


def which_compiler() -> str:
    """What tells it from others: its file, and the machine that it compiles for."""
    status = os.stat(bridge.WASMTIME_PATH)
    return f"{bridge.WASMTIME_PATH};{status.st_size};{status.st_mtime_ns};{bridge.MACHINE}"


class Totals:
    """What all guests of an engine have done, those that are gone and those that are there."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._live: dict[int, ref[AnyGuest]] = {}
        self._gone: tuple[float, ...] = (0,) * 6
        self._started = 0

    def begin(self, guest: AnyGuest) -> None:
        """One more."""
        with self._lock:
            self._started += 1
            self._live[id(guest)] = ref(guest)

    def end(self, guest: AnyGuest) -> None:
        """One is gone."""
        with self._lock:
            if self._live.pop(id(guest), None) is not None:
                self._gone = _sums(self._gone, guest.numbers())

    def numbers(self) -> tuple[float, ...]:
        """The fields of a ``RuntimeStatistics``."""
        with self._lock:
            sums, there = self._gone, 0
            for guest in [found() for found in self._live.values()]:
                if guest is not None:
                    sums, there = _sums(sums, guest.numbers()), there + 1
            return (*sums, there, self._started)


def _sums(some: tuple[float, ...], more: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(one + other for one, other in zip(some, more, strict=True))


class Engine:
    """One wasmtime engine.  May be shared between threads; goes with the last who uses it.

    ``stack`` is how much of its thread's stack a guest may use, in bytes.  Unless it compiles in
    ``parallel``, the process gets no threads by it.  ``pool`` is for how many guests room is laid
    out beforehand; with None each is allocated by itself.  ``polls`` says that modules bring their
    own polls (``_polls.py``): without, their code looks at the engine's epoch.
    ``compiler`` is what ``which_compiler`` said, where that cannot be asked any more.
    """

    pool: int | None = None

    def __init__(
        self,
        core: bridge.Core,
        stack: int = DEFAULT_STACK,
        *,
        parallel: bool = True,
        pool: int | None = None,
        polls: bool = False,
        compiler: str | None = None,
    ) -> None:
        self.core = core
        self.stack = stack
        self.pool = pool
        self.polls = polls
        self.totals = Totals()
        self._parallel = parallel
        self._compiler = compiler or which_compiler()
        self._lock = allocate_lock()
        self._polling: Engine | None = None
        self.pointer: int | None = None
        config = W["wasm_config_new"]()
        W["wasmtime_config_epoch_interruption_set"](config, not polls)
        W["wasmtime_config_wasm_branch_hinting_set"](config, polls)
        # A memory that never moves is what lets the core keep its address.
        W["wasmtime_config_memory_may_move_set"](config, False)
        # That behind it no address of 32 bits is another's, that it may hand over any (core.h).
        W["wasmtime_config_memory_reservation_set"](config, 1 << 32)
        W["wasmtime_config_max_wasm_stack_set"](config, stack)
        W["wasmtime_config_async_stack_size_set"](config, stack + _FIBER_STACK)
        W["wasmtime_config_shared_memory_set"](config, True)
        if pool is not None:
            # An image mapped into each memory would be a mapping more for each, of which the kernel
            # allows 65,530 in a process (vm.max_map_count).
            W["wasmtime_config_memory_init_cow_set"](config, False)
            _lay_out(config, pool)
        if not parallel:
            W["wasmtime_config_parallel_compilation_set"](config, False)
        self.pointer = W["wasm_engine_new_with_config"](config)
        if not self.pointer:
            raise ModuleError("wasmtime could not make an engine on this processor")
        if core.install_fault_handler() < 0:
            raise UseError("the core's SIGSEGV handler could not be installed")

    def polling(self) -> Engine:
        """Its like for modules with polls: those of programs in processes of their own."""
        with self._lock:
            if self._polling is None:
                self._polling = self._alike(parallel=self._parallel, polls=True)
                self._polling.totals = self.totals
            return self._polling

    def without_threads(self) -> Engine:
        """Its like for a process that was forked, and has no threads that compile."""
        return self._alike(parallel=False, polls=self.polls)

    def _alike(self, *, parallel: bool, polls: bool) -> Engine:
        # A confined process does not find the compiler's file.
        known = self._compiler
        return Engine(self.core, self.stack, parallel=parallel, polls=polls, compiler=known)

    def increment_epoch(self) -> None:
        """Bring every guest of this engine to its safepoint soon.  From any thread."""
        W["wasmtime_engine_increment_epoch"](self.pointer)

    def key(self, data: bytes, preparation: str = "") -> str:
        """The cache key of a module, as a preparation leaves it."""
        settings = _SETTINGS + (";polls" if self.polls else ";epochs")
        settings += "" if self.pool is None else ";no images"
        return digest(data, settings, self._compiler, preparation)

    def compile(
        self,
        data: bytes,
        origin: str,
        cache: Cache | None,
        *,
        preparation: str = "",
        prepare: Callable[[bytes], bytes] | None = None,
        on_compile: Callable[[int], None] | None = None,
    ) -> Module:
        """The compiled module, from the cache where it holds it.

        ``origin`` names the module in errors; ``prepare`` rewrites it before it is compiled,
        and ``preparation`` is a name for how; ``on_compile`` is told its size in bytes before a
        compilation that may take long.  Raises ``ModuleError``.
        """
        sniff(data, origin)
        found = self.cached(data, origin, cache, preparation=preparation) if cache else None
        if found is not None:
            return found
        key = self.key(data, preparation)
        if on_compile:
            on_compile(len(data))
        self._start_workers()
        if prepare:
            self._validate(data, origin)
            data = prepare(data)
        pointer = self._compile(data, origin)
        if cache and cache.usable:
            # A module that cannot be kept still runs.
            self.serialize(pointer, partial(cache.store, key))
        return Module(self, pointer, origin, key, preparation)

    def cached(
        self, data: bytes, origin: str, cache: Cache, *, preparation: str = ""
    ) -> Module | None:
        """What ``compile`` finds in the cache, which may be nothing."""
        key = self.key(data, preparation)
        pointer = cache.load(key, self._deserialize)
        return None if pointer is None else Module(self, pointer, origin, key, preparation)

    def load_artefact(self, fd: int, origin: str) -> Module:
        """A module that another process has compiled: its ``Module.artefact``.  Nobody else's!

        Raises ``ModuleError``.
        """
        pointer = self._deserialize(b"/proc/self/fd/%d" % fd)
        if pointer is None:
            raise ModuleError(f"{origin}: this process cannot load what another has compiled")
        return Module(self, pointer, origin)

    def _validate(self, data: bytes, origin: str) -> None:
        """As it is: what is added to it could make an invalid one valid, with another meaning."""
        _refuse(W["wasmtime_module_validate"](self.pointer, data, len(data)), origin)

    def _compile(self, data: bytes, origin: str) -> int:
        out = c_void_p()
        _refuse(W["wasmtime_module_new"](self.pointer, data, len(data), byref(out)), origin)
        assert out.value is not None
        return out.value

    def _start_workers(self) -> None:
        """Have the compiler's threads made by an empty module, and so that they block all signals.

        They live as long as the process, which a WALI program may get for itself: a signal that it
        blocks must wait for it, and not come to one of them.
        """
        if not Engine._has_workers:
            Engine._has_workers = True
            mask, out, empty = set_mask(ALL), c_void_p(), _MAGIC + _CORE_VERSION
            try:
                bridge.check(W["wasmtime_module_new"](self.pointer, empty, len(empty), byref(out)))
            finally:
                set_mask(mask)
            W["wasmtime_module_delete"](out)

    _has_workers = False

    def serialize(self, module: int, use: Callable[[memoryview], None]) -> str | None:
        """Give ``use`` the compiled code of a module; what is wrong, if there is none."""
        vector = bridge.ByteVec()
        if error := W["wasmtime_module_serialize"](module, byref(vector)):
            return bridge.error_message(error)
        assert vector.data is not None
        try:
            use(memoryview((ctypes.c_char * vector.size).from_address(vector.data)))
        finally:
            W["wasm_byte_vec_delete"](byref(vector))
        return None

    def _deserialize(self, path: bytes) -> int | None:
        out = c_void_p()
        if error := W["wasmtime_module_deserialize_file"](self.pointer, path, byref(out)):
            bridge.error_message(error)
            return None
        return out.value

    def __del__(self) -> None:
        # Modules and guests hold the engine, so none is left that could use the pointer.
        if self.pointer:
            W["wasm_engine_delete"](self.pointer)


def _refuse(error: int | None, origin: str) -> None:
    if error:
        raise ModuleError(f"{origin}: {bridge.last_line(bridge.error_message(error))}")


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Module:
    """A compiled module.  May be shared between threads and guests of one ``Runtime``."""

    def __init__(
        self, engine: Engine, pointer: int, origin: str, key: str = "", preparation: str = ""
    ) -> None:
        self.engine = engine
        self.pointer: int | None = pointer
        self.origin = origin
        self.key = key
        """What it was made of, and how: its name in the cache."""
        self.preparation = preparation
        """The name of how it was rewritten before it was compiled."""
        self._types = bridge.TypeVector(pointer, imports=True)
        self.imports = self._types.items
        self.interface: str | None = ""
        """What ``_abi.interface_of`` has found; empty, if nobody has asked yet."""
        self._exports: dict[str, tuple[int, str, str]] | None = None

    @property
    def import_modules(self) -> frozenset[str]:
        """The names of the modules that it imports from."""
        return frozenset(item.module for item in self.imports)

    @property
    def is_program(self) -> bool:
        """Does it export what a program starts with: ``_start``, which takes and gives nothing?"""
        return self.exports.get("_start") == (bridge.EXTERN_FUNC, "", "")

    @property
    def exports(self) -> dict[str, tuple[int, str, str]]:
        """The kind, parameters and results of each export.

        By its name as it is shown: what is not a printable one is not found here.
        """
        if self._exports is None:
            assert self.pointer
            vector = bridge.TypeVector(self.pointer, imports=False)
            self._exports = {
                item.name: (item.kind, item.parameters, item.results) for item in vector.items
            }
            vector.close()
        return self._exports

    def artefact(self) -> int:
        """A new descriptor of its compiled code, for another process's ``Engine.load_artefact``.

        Nobody can change it any more: several programs run it, and one to which procfs is granted
        can open it there, by its number, which no rule for files withholds.
        """
        assert self.pointer
        fd = os.memfd_create("artefact", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            wrong = self.engine.serialize(self.pointer, partial(_write, fd))
            seal(fd)
        except BaseException:
            os.close(fd)
            raise
        if wrong is not None:
            os.close(fd)
            raise ModuleError(f"{self.origin}: {wrong}")
        return fd

    def close(self) -> None:
        if self.pointer:
            self._types.close()
            self.imports = ()
            W["wasmtime_module_delete"](self.pointer)
            self.pointer = None

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Module {self.origin}>"
