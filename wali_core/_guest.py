"""A guest: one program with its memory, its descriptors and its shim."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from _thread import get_ident
from ctypes import byref, c_void_p

from wali_core import _bridge as bridge
from wali_core._abi import EXCEEDED_EXPORT, LIMIT_EXPORT, ROOM, ROOM_EXPORT, START_EXPORT
from wali_core._bridge import W
from wali_core._errors import (
    GuestExit,
    GuestTimeout,
    GuestTrap,
    ModuleError,
    PolicyError,
    UseError,
    ended_by,
    more_than,
    needs_more,
)
from wali_core._function import Function
from wali_core._grants import refuse_missing
from wali_core._link import Trapped
from wali_core._monitor import Guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from ctypes import Array
    from typing import Any, Final, Self

    from wali_core._abi import Shim
    from wali_core._audit import Audit
    from wali_core._engine import Engine, Module
    from wali_core._grants import Preopen
    from wali_core._limits import CpuTime, OutputMeter
    from wali_core._link import Hook, HostFunctions, ShimLink
    from wali_core._monitor import Watched
    from wali_core._sockets import Socket
    from wali_core._statistics import Statistics

_ENTRY: Final = 8  # bytes of a table's entry
OPEN_FILES: Final = 1024
_HOST_STACK: Final = 128 << 10  # what Python, wasmtime and the core need beside a guest
INITIALIZE: Final = "_initialize"
_AT_START: Final = (START_EXPORT, INITIALIZE)
_NOT_TO_CALL: Final = frozenset((START_EXPORT, LIMIT_EXPORT, EXCEEDED_EXPORT))
_WASM_PAGE: Final = 64 << 10
_MOST_PAGES: Final = 1 << 16
_NO_LIMIT: Final = (1 << 63) - 1
_POOL_IS_FULL: Final = "maximum concurrent"  # what wasmtime says of its pooling allocator
_STARTS_WITH, _TOO_MUCH = "memory minimum size of ", "exceeds memory limits"  # and of its limiter
_NEVER: Final = 2.0**33  # seconds: what the core's nanoseconds can still say


_STREAM: Final = (
    bridge.DESCRIPTOR_BORROWED | bridge.DESCRIPTOR_SHARED | bridge.DESCRIPTOR_MAY_REACH_PROC
)


def _stream_flags(number: int, mode: int) -> int:
    """What a standard stream may be used for, of a file of that mode: it is a stream, and no more.

    Standard input is not for changing; a directory that stands there is not a grant of it, nor a
    way to the engine's memory, should procfs lie beneath.
    """
    read_only = number == 0 or stat.S_ISDIR(mode)
    return _STREAM | bridge.DESCRIPTOR_READ_ONLY if read_only else _STREAM


class Memory:
    """The guest's linear memory, from outside.  Addresses and sizes are in bytes."""

    def __init__(self, guest: AnyGuest, memory: bridge.Memory) -> None:
        self._guest = guest
        self._memory = memory

    def _at(self, address: int, size: int) -> int:
        store = self._guest.usable_store()
        limit = W["wasmtime_memory_data_size"](store, byref(self._memory))
        if address < 0 or size < 0 or address + size > limit:
            raise IndexError(
                f"[{address}, {address + size}) is outside the guest's memory of {limit} bytes"
            )
        base: int = W["wasmtime_memory_data"](store, byref(self._memory))
        return base + address

    @property
    def size(self) -> int:
        """How large it is now."""
        return int(W["wasmtime_memory_data_size"](self._guest.usable_store(), byref(self._memory)))

    def read(self, address: int, size: int) -> bytes:
        """A copy of ``size`` bytes.  Raises ``IndexError`` outside the memory."""
        return ctypes.string_at(self._at(address, size), size)

    def write(self, address: int, data: bytes) -> None:
        """Put ``data`` at ``address``.  Raises ``IndexError`` where it does not fit."""
        data = bytes(memoryview(data))  # memmove would take text, and numbers as addresses
        ctypes.memmove(self._at(address, len(data)), data, len(data))


class AnyGuest:
    """What all guests have in common, however they wait: ``Guest``, and those of the reactor."""

    # There may be ten thousand of them.
    __slots__ = (
        "__weakref__",
        "_address",
        "_audit",
        "_captures",
        "_computing",
        "_context",
        "_cpu",
        "_deadline",
        "_ended",
        "_engine",
        "_functions",
        "_import_hooks",
        "_imports",
        "_instance",
        "_link",
        "_linked",
        "_meter",
        "_module",
        "_most_memory",
        "_seconds",
        "_shim_instance",
        "_sockets",
        "_store",
        "_store_owner",
        "_thread",
        "_waiting",
        "_wall_time",
        "opened",
    )

    cooperative = False
    """Does it wait in its slot, for the reactor?"""

    def __init__(self, engine: Engine, module: Module) -> None:
        self._engine = engine
        self._module = module
        self._thread = get_ident()
        self._store: int | None = None
        self._functions: dict[str, Function] = {}
        self._instance = bridge.Instance()
        self._shim_instance: bridge.Instance | None = None
        self._link: ShimLink | None = None  # kept: the guest's calls count into its denials
        self._ended: str | None = None
        self._captures: tuple[Watched, ...] = ()
        self.opened: list[tuple[int, Preopen]] = []
        """The directories that it was given, by the host's descriptors."""
        self._linked: Array[bridge.Extern] | None = None
        self._wall_time: float | None = None
        self._deadline: float | None = None
        self._seconds = 0.0
        self._cpu: CpuTime | None = None
        self._meter: OutputMeter | None = None
        self._audit: Audit | None = None
        self._most_memory: int | None = None
        self._sockets: list[int] = []  # those of the descriptors it begins with that are sockets
        self._imports: HostFunctions | None = None
        self._import_hooks: Mapping[str, Hook] = {}
        self._context = engine.core.make_context()
        self._address = ctypes.addressof(self._context)
        engine.core.context_init(self._address, OPEN_FILES)
        self._waiting = self._computing = 0.0  # seconds
        engine.totals.begin(self)

    # --- what the two kinds of stores do differently ----------------------------------------------

    def _watch_epochs(self) -> None:
        """Say what happens in the store when the engine's epoch has moved."""
        raise NotImplementedError

    def limit_computing(self, seconds: float | None, *, whole_run: bool) -> None:
        """Bound the computing time of every call from here on; or of all of them together.

        Raises ``PolicyError`` where that cannot be held.
        """
        raise NotImplementedError

    def _instantiate_linked(self, pre: int | None) -> bridge.Instance:
        """An instance of what a ``Link`` has prepared."""
        raise NotImplementedError

    def _instantiate_with(self, imports: Any) -> bridge.Instance:
        """An instance of the guest's own module."""
        raise NotImplementedError

    def _run_now(self, function: Function, args: Sequence[float]) -> Any:
        """Call what does not wait, and give its result."""
        raise NotImplementedError

    # --- making, step by step: the runtime calls these in order -----------------------------------

    def open_store(self) -> None:
        self._store_owner = W["wasmtime_store_new"](self._engine.pointer, self._address, None)
        self._store = W["wasmtime_store_context"](self._store_owner)
        self._watch_epochs()
        W["wasmtime_context_set_epoch_deadline"](self._store, 1)

    def place_stdio(self, stdio: Sequence[int]) -> None:
        """Borrow the host's descriptors for 0, 1 and 2; -1 leaves a number free."""
        for number, host in enumerate(stdio):
            if host >= 0:
                mode = os.fstat(host).st_mode
                self._place(number, host, _stream_flags(number, mode))
                if stat.S_ISSOCK(mode):
                    self._sockets.append(number)

    def _place(self, number: int, host: int, flags: int) -> None:
        if self._engine.core.descriptor_set(self._address, number, host, flags) < 0:
            raise UseError(
                f"descriptor {number} of the guest cannot be set: there may be at most "
                f"{self._context.table.contents.limit}"
            )

    def place_preopens(
        self, preopens: Sequence[Preopen], first: int
    ) -> list[tuple[int, bytes, bool]]:
        """Open the directories, from ``first`` on.  What a shim is told of them."""
        refuse_missing(preopens)
        told = []
        for number, preopen in enumerate(preopens, first):
            fd, reaches_proc = preopen.open()
            self.opened.append((fd, preopen))
            flags = bridge.DESCRIPTOR_READ_ONLY if preopen.read_only else 0
            flags |= bridge.DESCRIPTOR_MAY_REACH_PROC if reaches_proc else 0
            try:
                self._place(number, fd, flags)
            except UseError:
                os.close(fd)
                raise
            told.append((number, os.fsencode(preopen.guest), preopen.read_only))
        return told

    def place_sockets(self, sockets: Sequence[Socket], first: int) -> None:
        """Give it these sockets, from ``first`` on.  The shim finds them by itself."""
        if not sockets:
            return
        from wali_core._sockets import duplicate

        for number, given in enumerate(sockets, first):
            fd = duplicate(given)
            try:
                self._place(number, fd, bridge.DESCRIPTOR_SHARED)
            except UseError:
                os.close(fd)
                raise
            self._sockets.append(number)

    def datagrams(self) -> list[int]:
        """Which of the descriptors that it begins with are sockets for datagrams."""
        if not self._sockets:
            return []
        from wali_core._sockets import is_datagram

        return [number for number in self._sockets if is_datagram(self.host_of(number))]

    def start_shim(self, link: ShimLink, configuration: bytes) -> None:
        """Instantiate the shim in this guest's store and hand it its configuration."""
        self._link = link
        self._shim_instance = instance = self._instantiate_linked(link.pre)
        memory = self._export(instance, "memory")
        if memory is None or memory.kind != bridge.EXTERN_MEMORY:
            raise ModuleError(f"{link.module.origin}: a shim must export its memory")
        self._engine.core.context_bind(self._address, 0, self._store, byref(memory.of.memory), 0)
        own, size = Memory(self, memory.of.memory), len(configuration)
        address = self._room_for(size)
        if not 0 < address <= own.size - size:
            raise ModuleError(f"{link.module.origin}: no memory for {size} bytes of configuration")
        own.write(address, configuration)
        if status := self._call_shim("wasi_configure", address, size):
            raise ModuleError(
                f"{link.module.origin}: the shim refused its configuration: {os.strerror(status)}"
            )

    def _room_for(self, size: int) -> int:
        """Where in the shim's memory so many bytes may lie; 0, or anything, where it has no room.

        A little of it may lie there ready: where, is the same in every instance.
        """
        assert self._link is not None
        assert self._shim_instance is not None
        if size <= ROOM and ROOM_EXPORT in self._link.module.exports:
            if self._link.room is None:
                found = self._export(self._shim_instance, ROOM_EXPORT)
                assert found is not None
                self._link.room = bridge.constant(self._store, found)
            return self._link.room
        return self._call_shim("wasi_allocate", size) & 0xFFFFFFFF

    def _call_shim(self, name: str, *values: int) -> int:
        assert self._shim_instance is not None
        assert self._store is not None
        assert self._link is not None
        found = self._export(self._shim_instance, name)
        function = None
        if found is not None and found.kind == bridge.EXTERN_FUNC:
            function = Function(self._store, found, self._link.module.exports.get(name))
        if function is None or (function.parameters, function.results) != ("i" * len(values), "i"):
            raise ModuleError(f"the shim does not export {name} as it must")
        result = self._run_now(function, values)
        assert isinstance(result, int)
        return result

    def limit_memory(self, size: int | None) -> None:
        """From here on no memory of the store grows beyond ``size`` bytes, nor starts larger."""
        self._most_memory = size
        if size is not None:
            # The limit is one memory's, so there may be one only, beside the shim's.
            memories = 1 if self._shim_instance is None else 2
            W["wasmtime_store_limiter"](
                self._store_owner, min(size, _NO_LIMIT), size // _ENTRY, -1, -1, memories
            )

    def limit_files(self, count: int | None) -> None:
        """Let it have so many descriptors at a time; before it gets any."""
        if count is not None:
            table = self._context.table.contents
            table.limit = table.limit_most = count
            table.ends = 1

    def meter_output(self, limit: int | None, hosts: Sequence[int]) -> Mapping[str, Hook]:
        """Have what is written to these files counted, and the guest ended that writes too much.

        Gives what is to go around its calls.
        """
        if limit is None or not hosts:
            return {}
        from wali_core._limits import OutputMeter

        self._meter = OutputMeter(limit, hosts, self._read_memory, self.host_of)
        return self._meter.hooks()

    def write_down(self, audit: Audit, preopens: Sequence[Preopen], first: int) -> None:
        """Have what it asks for written down, as a WASI program; the audit is closed with it.

        ``preopens`` are its directories, from the number ``first`` on.
        """
        if self.cooperative:
            raise PolicyError(
                "audit.log: calls of guests that share a thread are not written down: run it by "
                'run_sync, or have the policy say log = "none"'
            )
        from wali_core._audit_wasi import WasiCalls
        from wali_core._link import HostFunctions

        self._audit, self._imports = audit, HostFunctions()
        named = list(enumerate(preopens, first))
        self._import_hooks = WasiCalls(audit, named, self._read_memory, self.host_of).hooks()

    def _read_memory(self, address: int, size: int) -> bytes:
        try:
            return self.memory.read(address & 0xFFFFFFFF, size)
        except IndexError:
            raise OSError(errno.EFAULT, "") from None

    def host_of(self, number: int) -> int:
        """The host's descriptor for a number of the guest's.  ``OSError`` where none is open."""
        host: int = self._engine.core.descriptor_host(self._address, number)
        if host < 0:
            raise OSError(errno.EBADF, "")
        return host

    def limit_time(self, seconds: float | None, deadline: float | None = None) -> None:
        """Bound every call from here on; or, with a deadline, all of them together.

        The deadline is on the clock that the guest's calls are bounded by: Python's monotonic one,
        or trio's.
        """
        self._wall_time, self._deadline = seconds, deadline

    def _bound(self, timeout: float | None, now: float) -> tuple[float | None, float]:
        """When a call that begins now must have ended, if ever; and how long that is, for words."""
        bounds = [] if timeout is None else [(now + max(0.0, timeout), timeout)]
        if self._wall_time is not None:
            bounds.append((self._deadline or now + self._wall_time, self._wall_time))
        at, seconds = min(bounds, default=(_NEVER, 0.0))
        return (at if at < _NEVER else None), seconds

    def watch_output(self, captures: tuple[Watched, ...]) -> None:
        """Have what the guest writes collected while a call runs."""
        self._captures = captures

    def link(self, shim: Shim | None) -> Array[bridge.Extern]:
        """Find what the module imports, before its process is confined, if that is to be.

        Functions of Python's take memory that can be executed, which there is none of then.
        """
        imports = (bridge.Extern * len(self._module.imports))()
        for i, item in enumerate(self._module.imports):
            assert shim is not None
            served = self._resolve(item, shim.modules[item.module])
            hook = self._import_hooks.get(item.name)
            imports[i] = served if hook is None else self._hooked(item, served, hook)
        self._linked = imports
        return imports

    def make_instance(self, shim: Shim | None) -> list[Function]:
        """Instantiate the module itself: its imports are the shim's exports.

        Gives what is to be called first, now that its memory is known: what was its start function,
        then a reactor's ``_initialize``.
        """
        self._instance = self._instantiate_with(self._linked or self.link(shim))
        exports = self._module.exports
        if self._most_memory is not None and LIMIT_EXPORT in exports:
            self._call_own(LIMIT_EXPORT, min(self._most_memory // _WASM_PAGE, _MOST_PAGES))
        memory = self._export(self._instance, "memory") if "memory" in exports else None
        if memory is not None and memory.kind == bridge.EXTERN_MEMORY:
            self._engine.core.context_bind(
                self._address, 1, self._store, byref(memory.of.memory), 1
            )
        if INITIALIZE in exports and "_start" in exports:
            raise ModuleError(
                f"{self._module.origin}: exports both _start and {INITIALIZE}: "
                "a module is a command or a reactor, not both"
            )
        found = [self._first_function(name) for name in _AT_START if name in exports]
        if self._audit is not None:
            self._audit.start()
        return [function for function in found if function is not None]

    def _call_own(self, name: str, *values: int) -> Any:
        """Call a function that the module was given when it was prepared."""
        found = self._export(self._instance, name)
        assert found is not None
        assert self._store is not None
        function = Function(self._store, found, self._module.exports.get(name))
        return self._run_now(function, values)

    def _first_function(self, name: str) -> Function | None:
        """What the module may export to be called first, and not again."""
        found = self._export(self._instance, name)
        if found is None or found.kind != bridge.EXTERN_FUNC:
            return None
        assert self._store is not None
        function = Function(self._store, found, self._module.exports.get(name))
        if function.parameters or function.results:
            what = "the start function" if name == START_EXPORT else name
            raise ModuleError(f"{self._module.origin}: {what} takes or gives values; it must not")
        return function

    def _hooked(self, item: bridge.ImportType, served: bridge.Extern, hook: Hook) -> bridge.Extern:
        """A host function around what serves an import."""
        assert self._imports is not None
        count = max(len(item.parameters), len(item.results), 1)

        def call(
            arguments: Sequence[int], _context: None, caller: int, values: int, _count: int
        ) -> int:
            def proceed() -> int:
                trap = c_void_p()
                context = W["wasmtime_caller_context"](caller)
                error = W["wasmtime_func_call_unchecked"](
                    context, byref(served.of.func), values, count, byref(trap)
                )
                if error:
                    message = bridge.error_message(error).encode()
                    trap.value = W["wasmtime_trap_new"](message, len(message))
                if trap.value:
                    raise Trapped(trap.value)
                return ctypes.c_int32.from_address(values).value

            return hook(arguments, proceed)

        made = bridge.Extern(kind=bridge.EXTERN_FUNC)
        address = self._imports.make(item.parameters, call)
        W["wasmtime_func_new_unchecked"](
            self._store, item.functype, address, None, None, byref(made.of.func)
        )
        return made

    def _refuse_instance(self, imports: Any, error: int) -> None:
        """Raise what is wrong with a module, or with an import of another type than it says."""
        reason = bridge.last_line(bridge.error_message(error))
        _, too_large, rest = reason.partition(_STARTS_WITH)
        if too_large and self._most_memory is not None and _TOO_MUCH in rest:
            least = int(rest.split()[0]) * _WASM_PAGE
            raise needs_more(self._module.origin, least, self._most_memory)
        raise ModuleError(f"{self._module.origin}: {self._misfit(imports)}{reason}")

    def _misfit(self, found: Any) -> str:
        """Which import has another type than what was found for it: wasmtime does not say."""
        assert self._store is not None
        for item, extern in zip(self._module.imports, found, strict=True):
            function = Function(self._store, extern)
            if (function.parameters, function.results) != (item.parameters, item.results):
                return f"imports {item.module}.{item.name}: "
        return ""

    def _resolve(self, item: bridge.ImportType, prefix: str) -> bridge.Extern:
        assert self._shim_instance is not None
        for name in (prefix + item.name, item.name) if prefix else (item.name,):
            found = self._export(self._shim_instance, name)
            if (
                found is not None
                and found.kind == item.kind == bridge.EXTERN_FUNC
                and not name.startswith("wasi_")
            ):
                return found
        raise ModuleError(
            f"{self._module.origin}: imports {item.module}.{item.name}, "
            "which does not exist in that interface"
        )

    # --- the public part --------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """The memory that the module exports as ``memory``.  Raises ``ModuleError`` without one."""
        found = self._export_of("memory")
        if found is None or found.kind != bridge.EXTERN_MEMORY:
            raise ModuleError(f"{self._module.origin}: exports no memory")
        return Memory(self, found.of.memory)

    def exports(self, name: str) -> bool:
        """Does the module export a function of this name?"""
        found = self._export_of(name)
        return found is not None and found.kind == bridge.EXTERN_FUNC

    def types(self, name: str) -> tuple[str, str]:
        """The types of an exported function's parameters and of its results, a letter each.

        ``i`` is i32, ``I`` i64, ``f`` f32, ``F`` f64, and ``?`` what ``call`` cannot pass.
        """
        function = self._function(name)
        return function.parameters, function.results

    def _function(self, name: str) -> Function:
        store = self.usable_store()
        function = self._functions.get(name)
        if function is None:
            found = self._export_of(name)
            if found is None or found.kind != bridge.EXTERN_FUNC or name in _NOT_TO_CALL:
                raise ModuleError(f"{self._module.origin}: exports no function {name!r}")
            if name == INITIALIZE:
                raise UseError(f"{name} was called when the guest was made, and may not be again")
            function = self._functions[name] = Function(
                store, found, self._module.exports.get(name)
            )
        return function

    @property
    def write_refused(self) -> bool:
        """Has it tried to write through a grant that is read-only?"""
        if self._context.refused_write or self._shim_instance is None or self._store is None:
            return self._context.refused_write != 0
        if self._export(self._shim_instance, "wasi_refused_writes") is None:
            return False
        # It is the shim that runs now: what ended the guest does not concern it.
        stop, self._context.stop = self._context.stop, bridge.STOP_NONE
        self._context.deadline = bridge.NO_DEADLINE
        try:
            return self._call_shim("wasi_refused_writes") != 0
        finally:
            self._context.stop = stop

    def numbers(self) -> tuple[float, ...]:
        """What it has done: the fields of its statistics."""
        c = self._context
        return c.calls, c.waits, c.read, c.written, self._waiting, self._computing

    def statistics(self) -> Statistics:
        """What it has done until now.  After its end as well."""
        from wali_core._statistics import Statistics

        numbers: Any = self.numbers()
        return Statistics(*numbers)

    def close(self) -> None:
        """End the guest: its memory and every descriptor that it holds.  Again does nothing."""
        self._engine.totals.end(self)
        if self._store is not None:
            self._own()
            self._store = None
            W["wasmtime_store_delete"](self._store_owner)
        self._engine.core.context_close(self._address)
        for kept in (self._meter, self._audit):
            if kept is not None:
                kept.close()
        # What goes around its calls leads back here: garbage, which would keep its modules open.
        if self._imports is not None:
            self._imports.forget()
            self._import_hooks = {}
        if self._meter is not None and self._link is not None:
            self._link.functions.forget()  # the link is the guest's own
        self._meter = self._audit = None
        self._ended = self._ended or "it was closed"

    def __del__(self) -> None:
        if getattr(self, "_store", None) is not None:
            self._thread = get_ident()  # whoever collects the garbage
            self.close()

    # --- inside -----------------------------------------------------------------------------------

    def _own(self) -> None:
        if get_ident() != self._thread:
            raise UseError(
                "a guest belongs to the thread that made it; make one guest for each thread"
            )

    def usable_store(self) -> int:
        """The store's context.  Raises ``UseError`` for the wrong thread, or after the end."""
        self._own()
        if self._context.stop and not self._ended:  # just as a call returned by itself
            self._ended = "it was interrupted"
        if self._ended or self._store is None:
            raise UseError(f"the guest cannot be used any more: {self._ended}")
        return self._store

    def _export_of(self, name: str) -> bridge.Extern | None:
        self.usable_store()
        return self._export(self._instance, name)

    def _export(self, instance: bridge.Instance, name: str) -> bridge.Extern | None:
        assert self._store is not None
        return bridge.export_of(self._store, instance, name)

    def _finish_call(self, error: int | None, trap: int | None) -> None:
        """Turn the end of a call into an exception, unless it was an ordinary return."""
        if not error and not trap:
            return
        frames: tuple[str, ...] = ()
        message = bridge.error_message(error) if error else ""
        if _POOL_IS_FULL in message:
            raise UseError(
                f"there are as many guests as Runtime(pool={self._engine.pool}) lays out room for: "
                "close some, or lay out room for more"
            )
        if trap:
            message, frames = bridge.trap_message(trap)
        self.raise_end()
        if self._wanted_memory():
            assert self._most_memory is not None
            beyond = more_than("memory", self._most_memory)
            self._ended = str(beyond)
            raise beyond
        raise GuestTrap(_trap_text(message), frames)

    def _wanted_memory(self) -> bool:
        """Has it trapped because its memory may not grow any more?"""
        if self._most_memory is None or EXCEEDED_EXPORT not in self._module.exports:
            return False
        return self._instance.store_id != 0 and bool(self._call_own(EXCEEDED_EXPORT))

    def raise_end(self) -> None:
        """Raise what has ended the guest, if anything has: perhaps as its last call returned."""
        reason = self._stopped()
        if reason is not None:
            self._ended = str(reason) or "it was interrupted"
            raise reason

    def _stopped(self) -> BaseException | None:
        for functions in (self._imports, None if self._link is None else self._link.functions):
            if functions is not None and functions.failure is not None:
                return functions.failure
        stop = self._context.stop
        if stop == bridge.STOP_EXIT:
            return GuestExit(self._context.status)
        if stop == bridge.STOP_TIMEOUT:
            return GuestTimeout(self._seconds)
        if stop == bridge.STOP_FILES:
            return more_than("open_files", self._context.table.contents.limit_most)
        if stop == bridge.STOP_INTERRUPT:
            reasons = [capture.reason for capture in self._captures if capture.exceeded]
            if self._cpu is not None and self._cpu.exceeded:
                return self._cpu.error()
            return ended_by(reasons[0]) if reasons else KeyboardInterrupt()
        return None


class Guest(AnyGuest):
    """One instance of a module.

    It belongs to the thread that made it; use by another raises ``UseError``.  Made by
    ``Runtime.instantiate``.  A context manager: leaving it closes the guest.
    """

    def __init__(self, engine: Engine, module: Module) -> None:
        stack = bridge.thread_stack()
        if 0 < stack < engine.stack + _HOST_STACK:
            raise UseError(
                f"this thread's stack of {stack} bytes is too small for a guest, which may use "
                f"{engine.stack} of it: see threading.stack_size, or Runtime(stack=...)"
            )
        super().__init__(engine, module)

    def start(self, shim: Shim | None) -> None:
        """Instantiate the module itself, and call what it has to have called first."""
        with self._guard():
            for function in self.make_instance(shim):
                self._run_now(function, ())

    def call(self, name: str, *args: float, timeout: float | None = None) -> Any:
        """Call an exported function; its result: None, a number, or a tuple of them.

        Integers may be given signed or unsigned and come back signed.  ``timeout`` is in seconds;
        the policy's ``wall_time`` bounds each call as well.  Raises ``GuestExit``, ``GuestTrap``,
        ``GuestTimeout``; ``ModuleError`` where there is no such function; ``TypeError`` or
        ``OverflowError`` for arguments that do not fit it; ``KeyboardInterrupt`` at Ctrl-C.
        """
        function = self._function(name)
        with self._guard(timeout):
            return self._run_now(function, args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------------------

    def _guard(self, timeout: float | None = None) -> Guard:
        """Around what runs the guest's code: ends it at the first deadline, or at Ctrl-C."""
        deadline, self._seconds = self._bound(timeout, time.monotonic())
        # Python's monotonic clock is CLOCK_MONOTONIC, the one that the core compares with.
        nanoseconds = None if deadline is None else int(max(deadline, 0.0) * 1e9)
        self._context.deadline = bridge.NO_DEADLINE if nanoseconds is None else nanoseconds
        return Guard(
            self._engine,
            self._address,
            deadline,
            self._captures,
            self._deadline_action(),
            self._cpu,
        )

    def limit_computing(self, seconds: float | None, *, whole_run: bool) -> None:
        """Bound the computing time of every call from here on; or of all of them together."""
        if seconds is not None:
            from wali_core._limits import CpuTime

            self._cpu = CpuTime(seconds, own_process=self._own_process, whole_run=whole_run)

    _own_process = False
    """Has it a process for itself?"""

    def _deadline_action(self) -> Callable[[], None] | None:
        """What must happen at the deadline besides: nothing, where every wait sees it."""
        return None

    def _watch_epochs(self) -> None:
        W["wasmtime_store_epoch_deadline_callback"](
            self._store_owner, self._engine.core.on_epoch, self._address, None
        )

    def _instantiate_linked(self, pre: int | None) -> bridge.Instance:
        instance, trap = bridge.Instance(), c_void_p()
        error = W["wasmtime_instance_pre_instantiate"](
            pre, self._store, byref(instance), byref(trap)
        )
        self._finish_call(error, trap.value)
        return instance

    def _instantiate_with(self, imports: Any) -> bridge.Instance:
        instance, trap = bridge.Instance(), c_void_p()
        error = W["wasmtime_instance_new"](
            self._store,
            self._module.pointer,
            imports,
            len(imports),
            byref(instance),
            byref(trap),
        )
        if error and not self._context.stop:
            self._refuse_instance(imports, error)
        self._finish_call(error, trap.value)
        return instance

    def _run_now(self, function: Function, args: Sequence[float]) -> Any:
        trap, values = c_void_p(), function.raw_values(args)
        began, computed = time.perf_counter(), time.thread_time()
        error = W["wasmtime_func_call_unchecked"](
            self._store, function.func, values, len(values), byref(trap)
        )
        computed = time.thread_time() - computed
        self._computing += computed
        self._waiting += max(0.0, time.perf_counter() - began - computed)
        self._finish_call(error, trap.value)
        return function.result_of(values)


def _trap_text(message: str) -> str:
    """The cause without the backtrace, which is in ``frames``."""
    return bridge.last_line(message).removeprefix("wasm trap: ") or "the guest trapped"
