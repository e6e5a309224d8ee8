"""A shim in a Store of somebody else's, for guests that find it in a Linker of somebody else's.

Two things are different there.  The store's data is its owner's, so the thunks are linked with the
guest's context as their ``env``.  And nobody says when a guest is instantiated, or which memory is
its own: what it imports are host functions in Python that look up the memory of the instance which
calls, bind it, and call the shim.  ``bind`` is the way around them, for who can say.

The functions in a Linker know no store: they find what was made for the one they are called in.
That is closed when its store is deleted.
"""

from __future__ import annotations

import ctypes
import os
import stat
from ctypes import byref, c_char_p, c_size_t, c_uint32, c_void_p

from wali_core import _bridge as bridge
from wali_core._bridge import W
from wali_core._cache import Cache
from wali_core._engine import Engine, Module, Totals, which_compiler
from wali_core._errors import ModuleError, UseError
from wali_core._grants import encoded, refuse_moved
from wali_core._guest import Guest
from wali_core._link import ShimLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from typing import Any, Final

    from wali_core._abi import Shim
    from wali_core._grants import Preopen

FIRST_GRANTED: Final = 3
_SHIM_PAGES: Final = 16  # 1 MiB; untouched ones cost nothing


class _ForeignEngine(Engine):
    """An engine that is not ours to delete, with settings that we do not know."""

    def __init__(self, pointer: int) -> None:
        self.core = bridge.core
        self.pointer = pointer
        self.stack = 0  # is its owner's to know
        self.polls = False
        self._compiler = which_compiler()
        self.totals = Totals()
        if self.core.install_fault_handler() < 0:
            raise UseError("the core's SIGSEGV handler could not be installed")

    def __del__(self) -> None:
        pass


class _ForeignLink(ShimLink):
    """A shim's module for one guest, whose context every thunk gets as its ``env``."""

    def __init__(self, module: Module, context: int) -> None:
        self._context = context
        super().__init__(module)

    def _resolve(self, item: bridge.ImportType) -> tuple[int, int | None]:
        thunk, env = super()._resolve(item)
        return thunk, env or self._context


class ForeignShim:
    """A shim, compiled by an engine of somebody else's.

    ``engine`` is the address of a ``wasm_engine_t``, which must live while this is used.  ``cache``
    is as for ``Runtime``.  Raises ``ModuleError``.
    """

    def __init__(
        self, engine: int, shim: Shim, *, cache: bool | str | os.PathLike[str] = True
    ) -> None:
        self.shim = shim
        path = shim.path()
        with open(path, "rb") as file:
            data = file.read()
        folder = None if cache is True or cache is False else os.fspath(cache)

        def prepare(data: bytes) -> bytes:
            from wali_core.rewriting._prepare import fix_memory

            return fix_memory(data, path, _SHIM_PAGES)

        self.module = _ForeignEngine(engine).compile(
            data,
            path,
            None if cache is False else Cache(folder),
            preparation="foreign",
            prepare=prepare,
        )
        assert self.module.pointer
        self._types = bridge.TypeVector(self.module.pointer, imports=False)
        self.functions = tuple(self._offers())

    def _offers(self) -> Iterable[tuple[str, str, bridge.ImportType]]:
        """Each function that guests may import: module, name, and the export that serves it."""
        found = {item.name: item for item in self._types.items if item.kind == bridge.EXTERN_FUNC}
        prefixes = ("wasi_", *filter(None, self.shim.modules.values()))
        names = [name for name in found if not name.startswith(prefixes)]
        for module, prefix in self.shim.modules.items():
            for name in names:
                yield module, name, found.get(prefix + name, found[name])

    def define(self, linker: int, only: Container[str] | None = None) -> None:
        """Put the functions into a Linker, once.  They serve every store with a ``ForeignGuest``.

        ``linker`` is the address of a ``wasmtime_linker_t`` of the same engine.  ``only`` are the
        names of those that are wanted.  Raises ``ModuleError`` where one is defined already.
        """
        for index, (module, name, item) in enumerate(self.functions):
            if only is not None and name not in only:
                continue
            words = module.encode(), name.encode()
            bridge.check(
                W["wasmtime_linker_define_func_unchecked"](
                    linker,
                    words[0],
                    len(words[0]),
                    words[1],
                    len(words[1]),
                    item.functype,
                    _enter,
                    index,
                    None,
                )
            )

    def __del__(self) -> None:
        if hasattr(self, "_types"):
            self._types.close()


class ForeignGuest(Guest):
    """All that one store's guests have of WASI.

    ``store`` is the address of a ``wasmtime_store_t``.  ``stdio`` are three descriptors, -1 for
    none, of which the guests get duplicates: to read and write, not to change what is behind them.

    ``fail`` turns an exception into a ``wasm_trap_t`` and gives its address: whoever owns the store
    knows how they raise through Wasm.  ``exited`` gives the exception for an exit status.
    ``after``, if given, is called after every call of the guest's.  ``strict_rights`` is as for
    ``Runtime.instantiate``.

    Raises ``ModuleError``, ``PolicyError``, and ``UseError`` for a store that has one already.
    """

    def __init__(
        self,
        shim: ForeignShim,
        store: int,
        *,
        args: Sequence[str | bytes],
        env: Iterable[tuple[str, str]],
        preopens: Sequence[Preopen],
        stdio: Sequence[int],
        fail: Callable[[BaseException], int],
        exited: Callable[[int], BaseException],
        after: Callable[[], None] | None = None,
        strict_rights: bool = False,
    ) -> None:
        self.context: int = W["wasmtime_store_context"](store)
        if self.context in _served:
            raise UseError("this store has its WASI already")
        super().__init__(shim.module.engine, shim.module)
        self._store = self.context
        self._fail, self._exited, self.after = fail, exited, after
        refuse_moved(preopens, [one for one in preopens if not one.read_only])
        argv = encoded(args, "argument")
        environ = encoded((f"{name}={value}" for name, value in env), "environment variable")
        try:
            self.place_stdio(stdio)
            told = self.place_preopens(preopens, FIRST_GRANTED)
            link = _ForeignLink(shim.module, self._address)
            configuration = shim.shim.configuration(
                argv, environ, told, self.datagrams(), strict=strict_rights
            )
            self.start_shim(link, configuration)
            link.close()  # the store keeps what it needs
            self._prepare_calls(shim)
            self._close_with_store(shim)
        except BaseException:
            self.close()
            raise
        _served[self.context] = self

    def place_stdio(self, stdio: Sequence[int]) -> None:
        """Duplicate the descriptors for 0, 1 and 2."""
        for number, host in enumerate(stdio):
            if host >= 0:
                fd = os.dup(host)
                self._place(number, fd, bridge.DESCRIPTOR_SHARED | bridge.DESCRIPTOR_READ_ONLY)
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    self._sockets.append(number)

    def _prepare_calls(self, shim: ForeignShim) -> None:
        """Make all that a call needs and that does not change: a conversion takes 100 ns."""
        assert self._shim_instance is not None
        self._offered = shim.functions
        self._exports: dict[str, bridge.Extern] = {}
        self.trap, self.found = c_void_p(), bridge.Extern()
        bind = (
            c_void_p(self._address),
            c_uint32(1),
            c_void_p(self.context),
            byref(self.found.of.memory),
            c_uint32(1),
        )
        doors = []
        for _, _, item in shim.functions:
            found = self._export(self._shim_instance, item.name)
            assert found is not None
            self._exports[item.name] = found
            count = c_size_t(max(len(item.parameters), len(item.results)))
            call = (bind[2], byref(found.of.func), count, byref(self.trap))
            doors.append((self, byref(self.found), bind, *call))
        self.doors = tuple(doors)

    def _close_with_store(self, shim: ForeignShim) -> None:
        """Put something into the store whose finalizer runs when the store is deleted."""
        kept = bridge.Func()
        W["wasmtime_func_new_unchecked"](
            self.context,
            shim.functions[0][2].functype,
            self._engine.core.denied,  # never called
            self.context,
            _release,
            byref(kept),
        )

    def refuse(self, there: bool) -> int:  # noqa: FBT001 - what wasmtime has just said
        """The trap for a module without a memory, or with one that is shared."""
        if there and self.found.kind == bridge.EXTERN_SHAREDMEMORY:
            W["wasmtime_sharedmemory_delete"](self.found.of.sharedmemory)
        return _trap("the module that calls WASI exports no memory, or a shared one")

    def returned(self, error: int | None) -> int | None:
        """What a call ends with that was no ordinary one: a trap's address, or None."""
        trap, self.trap.value = self.trap.value, None
        exited = self._context.stop == bridge.STOP_EXIT
        self._context.stop = bridge.STOP_NONE  # a guest may be called again, as wasmtime's own may
        message = bridge.error_message(error) if error else ""
        if self.after is not None:
            self.after()
        if not exited:
            return trap or (_trap(message) if error else None)
        if trap:
            bridge.trap_message(trap)  # frees it
        return self._fail(self._exited(self._context.status))

    def fail(self, error: BaseException) -> int:
        """The trap that raises an exception where the guest was called."""
        self._context.stop = bridge.STOP_NONE
        return self._fail(error)

    def define(self, linker: int, leave_out: Container[str]) -> None:
        """Put the shim's own functions into a Linker: for this store alone, and nothing in between.

        They know the memory that ``bind_memory`` has named.  Raises ``ModuleError`` where one is
        defined already.
        """
        for module, name, item in self._offered:
            if name in leave_out:
                continue
            words = module.encode(), name.encode()
            bridge.check(
                W["wasmtime_linker_define"](
                    linker,
                    self.context,
                    words[0],
                    len(words[0]),
                    words[1],
                    len(words[1]),
                    byref(self._exports[item.name]),
                )
            )

    def bind_memory(self, linker: int, module: str) -> None:
        """Use the memory that a Linker knows as ``module``'s, until somebody calls by another way.

        Raises ``ModuleError`` where there is none.
        """
        found, name = bridge.Extern(), module.encode()
        there = W["wasmtime_linker_get"](
            linker, self.context, name, len(name), b"memory", 6, byref(found)
        )
        if not there or found.kind != bridge.EXTERN_MEMORY:
            raise ModuleError("the instance exports no memory, or a shared one")
        self._engine.core.context_bind(self._address, 1, self.context, byref(found.of.memory), 1)

    def close(self) -> None:
        """Close what it has open.  The store is not ours to delete."""
        self._store = None
        self._engine.core.context_close(self._address)
        self._ended = self._ended or "its store is gone"


class _Pointer(c_void_p):
    """A pointer that ctypes passes on as it is, where it would make a number of ``c_void_p``."""


_calls = bridge.HostCalls()
_context_of, _export_get, _bind, _call = (
    _calls.context,
    _calls.export_get,
    _calls.bind,
    _calls.call,
)
_PLAIN: Final = bridge.EXTERN_MEMORY
_MEMORY, _MEMORY_LENGTH = c_char_p(b"memory"), c_size_t(6)
_served: dict[int, ForeignGuest] = {}


def _trap(message: str) -> int:
    words = message.encode()
    trap: int = W["wasmtime_trap_new"](words, len(words))
    return trap


def _enter_guest(index: int, caller: _Pointer, values: _Pointer, _count: int) -> int | None:
    """Any function that a guest imports: an unchecked host function, with a number as its env."""
    guest = None
    try:
        door = _served[_context_of(caller)].doors[index]
        guest, found, bind, store, function, count, trap = door
        there = _export_get(caller, _MEMORY, _MEMORY_LENGTH, found)
        if not there or guest.found.kind != _PLAIN:
            return guest.refuse(there)
        _bind(*bind)
        error = _call(store, function, values, count, trap)
        if error or guest.trap.value or guest.after:
            return guest.returned(error)
    except BaseException as error:  # noqa: BLE001 - raised where the guest was called
        if guest is None:
            return _trap(f"WASI was not defined for the store of the calling module ({error!r})")
        return guest.fail(error)
    return None


def _release_guest(store: int, served: dict[int, ForeignGuest] = _served) -> None:
    if guest := served.pop(store, None):
        guest.close()


_enter = ctypes.CFUNCTYPE(c_void_p, c_size_t, _Pointer, _Pointer, c_size_t)(_enter_guest)
_release = ctypes.CFUNCTYPE(None, c_void_p)(_release_guest)


def trap_of(linker: int, context: int, module: str, name: str) -> int:
    """Call a function without parameters that traps, and give the address of its ``wasm_trap_t``.

    It is found in a Linker; ``context`` is ``ForeignGuest.context``.  This is how an exception gets
    through Wasm in the way of those who own the Linker.
    """
    found, trap, words = bridge.Extern(), c_void_p(), (module.encode(), name.encode())
    W["wasmtime_linker_get"](
        linker, context, words[0], len(words[0]), words[1], len(words[1]), byref(found)
    )
    values: Any = (bridge.ValRaw * 1)()
    error = W["wasmtime_func_call_unchecked"](context, byref(found.of.func), values, 1, byref(trap))
    return trap.value or _trap(bridge.error_message(error) if error else name)
